"""Policies `infinigen` and `infinigen-p`: speculation on a few columns of turned keys (InfiniGen, OSDI 2024).

An orthogonal matrix A per layer and KV head (see `vrex.sw.retrieval.policies.calibration`) turns queries and
keys so that few columns carry most of a score; (q A).(k A) = q.k. The columns with the largest sum |q A| over
the calibration's sample are kept: a stream has no one prompt to take them from. Layer l is speculated on with
the queries that layer l-1's input gives with layer l's weights.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from vrex.errors import UserError
from vrex.sw.retrieval.policies.account import BF16_BYTES, Account
from vrex.sw.retrieval.policies.base import TEXT, Chunk
from vrex.sw.retrieval.policies.calibration import Calibration
from vrex.sw.retrieval.policies.ranking import grouped, share_of, top
from vrex.sw.retrieval.policies.settings import check_int, check_share
from vrex.sw.retrieval.policies.shape import Shape


@dataclass(frozen=True, kw_only=True)
class InfinigenSettings:
    """Knobs; the defaults are InfiniGen's for Llama.

    Attributes:
        alpha: a token counts when its speculated logit is above the largest one less alpha, alpha >= 0.
        columns: share of the columns to speculate with, 0 < columns <= 1.
        cap: largest share of the past tokens to attend, 0 < cap <= 1.
        full_layers: first layers that attend to everything, at least 1 as layer 0 can't be speculated on.

    Raises:
        UserError: a value is out of its range.
    """

    alpha: float = 5.0
    columns: float = 0.2
    cap: float = 0.2
    full_layers: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < float("inf"):
            raise UserError(f"alpha must be a number of at least 0, not {self.alpha!r}")
        check_share("columns", self.columns)
        check_share("cap", self.cap)
        check_int("full_layers", self.full_layers, 1)


@dataclass(frozen=True, kw_only=True)
class InfinigenPSettings(InfinigenSettings):
    """Knobs of `infinigen-p`.

    Attributes:
        prefill_ratio: share of the past tokens to attend in prefill, 0 < prefill_ratio <= 1.
    """

    prefill_ratio: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share("prefill_ratio", self.prefill_ratio)


class _Partial:
    """The kept columns of one layer's turned keys."""

    def __init__(self, basis: np.ndarray) -> None:
        self.basis = basis  # float32 [KV heads, head_dim, kept columns]
        self._tokens = 0
        self._keys = np.empty((len(basis), 256, basis.shape[2]), dtype=np.float32)

    def update(self, keys: np.ndarray) -> np.ndarray:
        """Takes in the tokens that are new among all past keys; returns float32 [KV heads, past, columns]."""
        start = keys.shape[1]
        while start > self._keys.shape[1]:
            self._keys = np.concatenate([self._keys, np.empty_like(self._keys)], axis=1)
        self._keys[:, self._tokens : start] = keys[:, self._tokens :] @ self.basis
        self._tokens = start
        return self._keys[:, :start]


class Infinigen:
    """Top tokens of each KV head by speculated scores, the largest over its rows (see `Policy`).

    Generation is a text chunk of one token; everything else is prefill, which attends to everything under
    `infinigen` and to a fixed share under `infinigen-p`. The cache is in host memory, so all that is
    attended to is fetched.
    """

    name = "infinigen"

    def __init__(self, settings: InfinigenSettings, shape: Shape, calibration: Calibration) -> None:
        self.settings, self._shape = settings, shape
        columns = share_of(shape.head_dim, settings.columns)
        self._partial = [_Partial(calibration.columns(layer, columns)) for layer in range(shape.layers)]
        self._queries = np.empty(0, dtype=np.float32)
        self._account = Account(shape, predict="next")

    def select(self, chunk: Chunk) -> list[np.ndarray] | None:
        """Tokens by the layer before's speculation (see `Policy.select`)."""
        shape, following = self._shape, chunk.layer + 1
        queries = self._queries
        keys = self._partial[chunk.layer].update(chunk.keys)
        # Bytes of a token's columns; they are written also while nothing is speculated on.
        columns = len(keys) * keys.shape[2] * BF16_BYTES if chunk.layer >= self.settings.full_layers else 0
        written = chunk.k.shape[1] * columns
        if self.settings.full_layers <= following < shape.layers:
            basis = self._partial[following].basis
            self._queries = grouped(chunk.predict_q(following), shape.kv_heads) @ basis
        generates = chunk.stage == TEXT and chunk.q.shape[1] == 1
        ratio = None if generates else self._prefill_ratio()
        if chunk.start == 0 or chunk.layer < self.settings.full_layers or not (generates or ratio):
            attended = chunk.start * shape.kv_heads
            self._account.add(chunk, [chunk.start] * shape.kv_heads, fetched=attended, metadata_bytes=written)
            return None
        scores = (queries @ keys.swapaxes(1, 2)).max(axis=1) * np.float32(shape.head_dim**-0.5)
        k = share_of(chunk.start, ratio) if ratio else self._count(scores)
        self._account.add(
            chunk,
            [k] * shape.kv_heads,
            fetched=k * shape.kv_heads,
            metadata_bytes=chunk.start * columns + written,
        )
        return [top(row, k) for row in scores]

    def _prefill_ratio(self) -> float | None:
        return None

    def _count(self, scores: np.ndarray) -> int:
        """Tokens to attend, from scores [KV heads, past]: one number for all heads, at least 1."""
        near = scores > scores.max(axis=1, keepdims=True) - self.settings.alpha
        count = min(round(float(near.sum(axis=1).mean())), int(self.settings.cap * scores.shape[1]))
        return max(count, 1)

    def report(self) -> dict[str, Any]:
        """The keys of `Resv.report`."""
        return self._account.report()


class InfinigenP(Infinigen):
    """InfiniGen in prefill as well, as the V-Rex paper compares with it (see `Infinigen`)."""

    name = "infinigen-p"
    settings: InfinigenPSettings

    def __init__(self, settings: InfinigenPSettings, shape: Shape, calibration: Calibration) -> None:
        super().__init__(settings, shape, calibration)
        self.settings = settings

    def _prefill_ratio(self) -> float:
        return self.settings.prefill_ratio
