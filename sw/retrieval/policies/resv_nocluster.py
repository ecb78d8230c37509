"""Policy `resv-nocluster`: ReSV with every token its own cluster, the paper's ablation (Section VI, Fig. 19).

There are no hashes and no table: the WTU of the golden model thresholds the scores of the tokens' own keys.
Its rows are as long as the past, longer than the hardware's memory, so this policy runs on no accelerator.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from vrex.model.dre import wtu
from vrex.model.lib import arith
from vrex.model.lxe import mac_tree
from vrex.sw.retrieval.policies.account import BF16_BYTES, Account
from vrex.sw.retrieval.policies.base import Chunk
from vrex.sw.retrieval.policies.ranking import grouped
from vrex.sw.retrieval.policies.resv_settings import RULES, ResvSettings
from vrex.sw.retrieval.policies.settings import check_choice, check_int, check_th_r
from vrex.sw.retrieval.policies.shape import Shape


@dataclass(frozen=True, kw_only=True)
class ResvNoclusterSettings:
    """Knobs, those of `ResvSettings` that have a meaning without clusters.

    Raises:
        UserError: a value is out of its range.
    """

    rule: str = "raw"
    th_r: float = 0.3
    sinks: int = 4
    window: int = 10

    def __post_init__(self) -> None:
        check_choice("rule", self.rule, RULES)
        check_th_r(self.th_r)
        check_int("sinks", self.sinks, 0)
        check_int("window", self.window, 0)


class ResvNocluster:
    """WiCSum thresholding on single tokens, with sinks and a recent window (see `Policy`)."""

    name = "resv-nocluster"

    def __init__(self, settings: ResvNoclusterSettings, shape: Shape) -> None:
        self.settings, self._shape = settings, shape
        self._rule = ResvSettings(rule=settings.rule, th_r=settings.th_r).wtu_rule(shape.head_dim)
        self._window = settings.window * shape.step_tokens
        self._rows = self._degenerate = 0
        self._account = Account(shape, predict="same")

    def select(self, chunk: Chunk) -> list[np.ndarray]:
        """Sinks, window and every token that a row selects (see `Policy.select`)."""
        first = min(self.settings.sinks, chunk.start)
        last = max(first, chunk.start - self._window)
        keys = arith.to_bf16(chunk.keys[:, first:last])
        queries = grouped(arith.to_bf16(chunk.q), self._shape.kv_heads)
        resident = np.r_[:first], np.r_[last : chunk.start]
        attended, fetched = [], 0
        for head_queries, head_keys in zip(queries, keys, strict=True):
            scores = mac_tree.dot_bf16(head_queries, head_keys)
            chosen = wtu.select(scores, np.ones(last - first, dtype=np.int64), self._rule)
            tokens = first + np.flatnonzero(chosen.rows.any(axis=0))
            attended.append(np.concatenate([resident[0], tokens, resident[1]]))
            fetched += len(tokens)
            self._rows += len(scores) if scores.size else 0
            self._degenerate += chosen.degenerate
        self._account.add(
            chunk,
            [len(tokens) for tokens in attended],
            fetched=fetched,
            metadata_bytes=keys.size * BF16_BYTES,
        )
        return attended

    def report(self) -> dict[str, Any]:
        """The keys of `Resv.report`; clusters are not counted as none is stored."""
        return self._account.report() | {"rows": self._rows, "degenerate_rows": self._degenerate}
