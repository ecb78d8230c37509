"""Policy `resv-bits`: the tokens with the most attention, estimated from binary codes of their keys.

The rule and its arithmetic are those of `vrex.model.dre.codes`: a frozen centre for each KV head, 64 sign
bits and a BF16 scale a token, one vote over all rows and query heads of a KV head, and the k tokens with the
most. With `levels` 2 long streams are ranked on two levels (`vrex.model.dre.levels`): not every code is read.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from vrex.errors import UserError
from vrex.model.config import MAX_CLUSTERS
from vrex.model.dre import codes
from vrex.model.dre.hcu import TableFullError
from vrex.model.dre.wtu import Scale
from vrex.model.lib import arith
from vrex.sw.driver.voter import VoterEngine, VoteRequest
from vrex.sw.retrieval.policies.account import Account
from vrex.sw.retrieval.policies.base import TEXT, Chunk
from vrex.sw.retrieval.policies.code_table import Ballot, CodeTable, Levels, Ranking
from vrex.sw.retrieval.policies.narrow import BF16_BITS, check_kv_bits
from vrex.sw.retrieval.policies.ranking import grouped, share_of
from vrex.sw.retrieval.policies.settings import check_int
from vrex.sw.retrieval.policies.shape import Shape

BITS = (32, 64, 128)


@dataclass(frozen=True, kw_only=True)
class ResvBitsSettings:
    """Knobs.

    Attributes:
        k: past tokens that a KV head attends to beside sinks and window, at least 1; all of them where the
            past has no more.
        prompt: as many times k, at least 1, when a chunk of text of several tokens enters: it is read once,
            and all that follows depends on it.
        bits: of a token's code: 32, 64 or 128.
        kv_bits: of a value of stored keys and values: 16 is BF16, 4 packed codes (`narrow`).
        rotate: keys are rotated before they are packed, and back when they are read; of packed ones alone.
        levels: 1 reads every code; 2 keeps clusters as well and, once that reads fewer bytes, ranks them
            first, then the codes of the best ones' tokens. `th_hd` and `depth` have a meaning with 2 alone.
        th_hd: of two levels: a token joins a cluster below this Hamming distance, 1..255.
        depth: of two levels: tokens whose codes are read, in multiples of k, at least `prompt`.
        sinks: first tokens, always attended.
        window: most recent frames, always attended.
        seed: of the rotation.

    Raises:
        UserError: a value is out of its range, or of two levels where there is one, or of packed keys where
            there are none.
    """

    k: int = 448
    prompt: float = 1.0
    bits: int = 64
    kv_bits: int = 4
    rotate: bool = False
    levels: int = 1
    th_hd: int = 11
    depth: int = 16
    sinks: int = 4
    window: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        check_int("k", self.k, 1)
        if not 1 <= self.prompt < math.inf:
            raise UserError(f"prompt must be a number of at least 1, not {self.prompt!r}")
        check_kv_bits(self.kv_bits)
        check_int("levels", self.levels, 1, 2)
        check_int("th_hd", self.th_hd, 1, 255)
        check_int("depth", self.depth, 1)
        for name in ("sinks", "window", "seed"):
            check_int(name, getattr(self, name), 0)
        if self.bits not in BITS:
            raise UserError(f"bits must be 32, 64 or 128, not {self.bits!r}")
        for name in ("th_hd", "depth"):
            if self.levels == 1 and getattr(self, name) != getattr(type(self), name):
                raise UserError(f"{name} is of two levels of codes; set levels to 2, or leave {name} out")
        if self.levels == 2 and self.depth < self.prompt:
            raise UserError(
                f"depth {self.depth} is below prompt {self.prompt:g}: raise depth, or lower prompt"
            )
        if self.kv_bits == BF16_BITS and self.rotate:
            raise UserError("rotate is of packed keys; set kv_bits to 4, or leave rotate out")

    def wanted(self, chunk: Chunk) -> int:
        """Past tokens that a KV head attends to beside sinks and window when this chunk enters."""
        is_prompt = chunk.stage == TEXT and chunk.k.shape[1] > 1
        return share_of(self.k, self.prompt) if is_prompt else self.k


def causal_rows(chunk: Chunk, rows: int, before: int) -> np.ndarray:
    """What each row of a KV head sees of `before` tokens and of the chunk up to itself, bool [rows, m].

    Rows are those of one query head after the other.
    """
    own = chunk.k.shape[1]
    seen = np.concatenate([np.ones((own, before), dtype=bool), np.tri(own, dtype=bool)], axis=1)
    return np.tile(seen, (rows // own, 1))


class ResvBits:
    """Top-k tokens by estimated attention, with sinks and a recent window (see `Policy`)."""

    name = "resv-bits"

    def __init__(self, settings: ResvBitsSettings, shape: Shape, voter: VoterEngine | None = None) -> None:
        """A policy that has seen nothing yet.

        Args:
            settings: knobs.
            shape: the decoder's dimensions.
            voter: selects, its codes of as many bits as the settings'; None: the host does.
        """
        self.settings, self._shape, self._voter = settings, shape, voter
        self._window = settings.window * shape.step_tokens
        self._tables: list[list[CodeTable]] = [[] for _ in range(shape.layers)]
        # Of a layer's `tokens` tokens, [sinks, coded) have a code.
        self._tokens = [0] * shape.layers
        self._coded = [settings.sinks] * shape.layers
        self._rows = self._silent = 0
        self._scale = Scale.from_float(shape.head_dim**-0.5)
        if voter is not None:
            voter.set_scale(self._scale)
        self._account = Account(shape, predict="same")

    def select(self, chunk: Chunk) -> list[np.ndarray]:
        """Sinks, the tokens with the most votes, and the window (see `Policy.select`).

        Raises:
            UserError: the first level is full.
            ValueError: the chunk does not follow the one before; codes of another stream have its centre.
        """
        settings, shape = self.settings, self._shape
        if chunk.start != self._tokens[chunk.layer]:
            raise ValueError("a policy serves one stream, chunk by chunk: make a new one for another")
        self._tokens[chunk.layer] += chunk.k.shape[1]
        first = min(settings.sinks, chunk.start)
        last = max(first, chunk.start - self._window)
        moved = self._code(chunk, last)
        coded = last - first
        chosen = [np.arange(coded)] * shape.kv_heads
        if coded > settings.wanted(chunk):
            best = self._best(chunk, first, last)
            chosen = [ranking.tokens for ranking in best]
            moved += sum(ranking.read for ranking in best)
        resident = np.r_[:first], np.r_[last : chunk.start]
        attended = [np.concatenate([resident[0], first + tokens, resident[1]]) for tokens in chosen]
        self._account.add(
            chunk,
            [len(tokens) for tokens in attended],
            fetched=sum(len(tokens) for tokens in chosen),
            metadata_bytes=moved,
        )
        return attended

    def _code(self, chunk: Chunk, last: int) -> int:
        """Codes the tokens that have left the window, and freezes the centre when the first do.

        Returns:
            Bytes moved for that.
        """
        layer, settings = chunk.layer, self.settings
        new = slice(self._coded[layer], last)
        if new.stop <= new.start:
            return 0
        if not self._tables[layer]:
            keys = arith.to_bf16(chunk.keys[:, settings.sinks :])
            levels = None if settings.levels == 1 else Levels(settings.th_hd, settings.depth * settings.k)
            self._tables[layer] = [
                CodeTable(
                    codes.planes(settings.seed, layer, head, settings.bits, self._shape.head_dim),
                    past,
                    levels,
                )
                for head, past in enumerate(keys)
            ]
        self._coded[layer] = last
        behind = arith.to_bf16(chunk.keys[:, new])
        try:
            return sum(table.add(past) for table, past in zip(self._tables[layer], behind, strict=True))
        except TableFullError:
            raise UserError(
                f"the codes of layer {layer} would need more than {MAX_CLUSTERS:,} clusters; raise th_hd, or "
                "set levels to 1"
            ) from None

    def _best(self, chunk: Chunk, first: int, last: int) -> list[Ranking]:
        """The coded tokens that each KV head selects, counted from the first coded one."""
        queries = arith.to_bf16(grouped(chunk.q, self._shape.kv_heads))
        past = np.concatenate([chunk.keys[:, :first], chunk.keys[:, last:], chunk.k], axis=1)
        residents = arith.to_bf16(past)
        seen = causal_rows(chunk, queries.shape[1], first + chunk.start - last)
        ballots = [
            table.ballot(head, keys, seen, self._scale)
            for table, head, keys in zip(self._tables[chunk.layer], queries, residents, strict=True)
        ]
        self._rows += queries.shape[0] * queries.shape[1]
        self._silent += sum(ballot.silent for ballot in ballots)
        counted = self._count(ballots, chunk.layer, self.settings.wanted(chunk))
        return [ballot.ranking(chosen) for ballot, chosen in zip(ballots, counted, strict=True)]

    def _count(self, ballots: list[Ballot], layer: int, wanted: int) -> list[np.ndarray]:
        """What the voter, or the host, selects of each KV head's codes."""
        if self._voter is None:
            return [ballot.count(wanted, self._scale) for ballot in ballots]
        requests = [VoteRequest(ballot.past, ballot.rows, layer, head) for head, ballot in enumerate(ballots)]
        return self._voter.select(requests, wanted)

    def report(self) -> dict[str, Any]:
        """The keys of `Resv.report`.

        Clusters are those of the first level; `rows` are the rows of queries that voted, degenerate those
        with a NaN or infinity, which have no vote. And `nan_keys`: tokens, summed over KV heads and layers,
        that are never selected because their key is not finite.
        """
        tables = [[table for table in layer if table.clusters] for layer in self._tables]
        per_layer = [sum(table.clusters for table in layer) for layer in tables]
        tokens = sum(
            (self._coded[index] - self.settings.sinks) * len(layer) for index, layer in enumerate(tables)
        )
        rtl = {} if self._voter is None else {"rtl": self._voter.transport.report.to_dict()}
        return (
            self._account.report()
            | rtl
            | {
                "clusters": sum(per_layer),
                "clusters_per_layer": per_layer,
                "tokens_per_cluster": tokens / sum(per_layer) if sum(per_layer) else None,
                "rows": self._rows,
                "degenerate_rows": self._silent,
                "nan_keys": sum(table.nans for layer in self._tables for table in layer),
            }
        )
