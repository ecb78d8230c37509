"""Policy `oaken`: all of the past in 4 bits a value, outliers in 5 (Oaken, ISCA 2025).

Per layer, K (before RoPE) and V apart, thresholds from calibration split the values by magnitude: 4 % outer,
90 % middle, 6 % inner. Outer and middle values are moved to 0 by the threshold they start from, so that a
group's codes are spent on its own range. A code is a sign and a magnitude; a token has one scale for either
sign of each group, its largest magnitude rounded up to BF16.

Storage: the middle's bits for every value; for an outer or inner value 8 more (6 of index in a block of 64,
its group, its code's fifth bit); 6 scales of 16 bits for K and V each.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from vrex.sw.retrieval.policies.account import BF16_BYTES, Account
from vrex.sw.retrieval.policies.base import Chunk
from vrex.sw.retrieval.policies.calibration import Calibration
from vrex.sw.retrieval.policies.settings import check_int
from vrex.sw.retrieval.policies.shape import Shape

OUTLIER_BITS = 8
SCALES = 6


@dataclass(frozen=True, kw_only=True)
class OakenSettings:
    """Knobs.

    Attributes:
        bits: of a middle value, sign included, 2..8; outer and inner ones have one more.

    Raises:
        UserError: the value is out of its range.
    """

    bits: int = 4

    def __post_init__(self) -> None:
        check_int("bits", self.bits, 2, 8)


@dataclass(frozen=True)
class Quantised:
    """What comes back from storage.

    Attributes:
        values: float32 [rows, n].
        bound: float32 [rows, n], the largest error a value's group, sign and token allow.
        outliers: bool [rows, n], values outside the middle group.
    """

    values: np.ndarray
    bound: np.ndarray
    outliers: np.ndarray


def quantise(x: np.ndarray, thresholds: np.ndarray, bits: int) -> Quantised:
    """Quantises tokens.

    Args:
        x: float32 [rows, n], a row holds all values of one token.
        thresholds: float32 [3], values below the first or above the last are outer, those of at most the
            second's magnitude inner.
        bits: of a middle value, sign included.
    """
    low, inner, high = thresholds
    negative = x < 0
    is_inner = np.abs(x) <= inner
    is_outer = (x < low) | (x > high)
    origin = np.where(is_outer, np.where(negative, low, high), np.where(negative, -inner, inner))
    origin = np.where(is_inner, np.float32(0), origin)
    magnitude = np.abs(x - origin)
    step = np.zeros_like(x)
    for members, code_bits in ((is_inner, bits + 1), (is_outer, bits + 1), (~is_inner & ~is_outer, bits)):
        for side in (negative, ~negative):
            mask = members & side
            largest = round_up_bf16((magnitude * mask).max(axis=1, keepdims=True))
            step += mask * (largest / np.float32((1 << code_bits - 1) - 1))
    codes = np.rint(np.divide(magnitude, step, out=np.zeros_like(x), where=step > 0))
    moved = codes * step
    values = origin + np.where(negative, -moved, moved)
    return Quantised(values, step / 2, is_inner | is_outer)


def round_up_bf16(x: np.ndarray) -> np.ndarray:
    """The smallest BF16 value of at least x, for finite float32 x >= 0; still float32."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    return (bits + 0xFFFF & 0xFFFF0000).astype(np.uint32).view(np.float32)


class Oaken:
    """Everything, quantised, fetched whole at every step (see `Policy` and `Codec`)."""

    name = "oaken"

    def __init__(self, settings: OakenSettings, shape: Shape, calibration: Calibration) -> None:
        self.settings, self._shape = settings, shape
        self._thresholds = calibration.thresholds
        # Per layer: tokens stored, and values outside the middle group among them.
        self._tokens = [0] * shape.layers
        self._outliers = [0] * shape.layers
        self._account = Account(shape)

    def encode(self, layer: int, k: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """K and V as they come back from storage (see `Codec.encode`)."""
        read = []
        for x, thresholds in zip((k, v), self._thresholds[layer], strict=True):
            rows = x.transpose(1, 0, 2).reshape(x.shape[1], -1)
            stored = quantise(rows, thresholds, self.settings.bits)
            self._outliers[layer] += int(stored.outliers.sum())
            read.append(stored.values.reshape(x.shape[1], x.shape[0], -1).transpose(1, 0, 2))
        self._tokens[layer] += k.shape[1]
        return read[0], read[1]

    def select(self, chunk: Chunk) -> None:
        """All of the past (see `Policy.select`)."""
        heads = self._shape.kv_heads
        # The chunk is stored already; its outliers are taken to be as many as those of the tokens before.
        stored = self._stored_bits(chunk.layer) * chunk.start
        self._account.add(
            chunk,
            [chunk.start] * heads,
            fetched=chunk.start * heads,
            # Scales of the past are read, those of the chunk written.
            metadata_bytes=(chunk.start + chunk.k.shape[1]) * 2 * SCALES * BF16_BYTES,
            fetched_bytes=round(stored / 8),
        )

    def bits_per_value(self) -> float:
        """Mean storage of a value so far, without scales; 4.8 with 10 % outliers."""
        return self.settings.bits + OUTLIER_BITS * sum(self._outliers) / max(
            sum(self._tokens) * self._values, 1
        )

    @property
    def _values(self) -> int:
        """Values of one token in one layer."""
        return 2 * self._shape.kv_heads * self._shape.head_dim

    def _stored_bits(self, layer: int) -> float:
        """Mean storage of a token in a layer."""
        outliers = self._outliers[layer] / max(self._tokens[layer], 1)
        return self.settings.bits * self._values + OUTLIER_BITS * outliers

    def report(self) -> dict[str, Any]:
        """The keys of `Resv.report`."""
        return self._account.report()
