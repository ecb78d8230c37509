"""WTU: WiCSum thresholding, the selection of clusters by weighted cumulative sum (paper Section IV-C).

Integers only, so that the order of summation cannot matter. The steps and their widths are those of the
numeric contract; `fixed_point`, `transform` and `select` are what the hardware's stages compute.
"""

from dataclasses import dataclass
from enum import IntEnum
from math import frexp, log2

import numpy as np

from vrex.model.lib.arith import from_bf16

FRACTION_BITS = 14
"""u = floor(S * 2^(14 - e)): the row's largest finite magnitude lands in [2^14, 2^15) if it is normal."""

INFINITY = np.uint16(0x7F80)
"""Magnitude bits of a BF16 infinity; those of a NaN are above."""

TH_R_BITS = 16
EXP_INDEX_BITS = 6
EXP_ONE = 1 << 15
EXP_SATURATED = 16 << EXP_INDEX_BITS
"""From this exponent on (2^-16) a weight of `exp` is 0."""

EXP_TABLE = np.array(
    [round(EXP_ONE * 2.0 ** (-i / (1 << EXP_INDEX_BITS))) for i in range(1 << EXP_INDEX_BITS)]
)
"""2^(-i/64) in units of 2^-15; truncating the fraction to 6 bits makes a weight at most 1.09 % too large."""

ORDER_ZERO = 1152
"""Order code of u = 0; +infinity has 0, -infinity twice as much."""

NEAR = 8
"""Below this distance from the row's exponent no bit of a significand is lost."""

FINE_CODES = 1536
FINE_BITS = 5
COARSE_BITS = 6
"""Bins of order codes hold 32 of the first 1536, among them all above zero, and then 64."""


class Transform(IntEnum):
    """How a score becomes a weight per token."""

    RAW = 0
    SHIFT = 1
    EXP = 2


class Selection(IntEnum):
    """How clusters are taken until the threshold is passed."""

    EXACT = 0
    BUCKET = 1


@dataclass(frozen=True)
class Scale:
    """Scale register of `exp`: scale * log2(e) = mantissa * 2^(exponent - 15).

    Attributes:
        mantissa: 0, or 0x8000..0xFFFF.
        exponent: -128..127.
    """

    mantissa: int
    exponent: int

    @classmethod
    def from_float(cls, scale: float) -> "Scale":
        """Nearest register value for a scale >= 0, e.g. 1/sqrt(head_dim).

        Raises:
            ValueError: negative, not finite, or outside the register's range.
        """
        value = scale * log2(np.e)
        if not 0 <= value < float("inf"):
            raise ValueError(f"scale must be finite and not negative, not {scale!r}")
        if value == 0:
            return cls(0, 0)
        fraction, exponent = frexp(value)
        mantissa = round(fraction * (1 << 16))
        if mantissa == 1 << 16:
            mantissa, exponent = 1 << 15, exponent + 1
        if not -128 <= exponent - 1 <= 127:
            raise ValueError(f"scale {scale!r} is outside the register's range of about 2^-128 to 2^127")
        return cls(mantissa, exponent - 1)


@dataclass(frozen=True)
class Rule:
    """Registers of one selection.

    Attributes:
        th_r: threshold ratio in Q0.16, 0..65535.
        transform: weight rule.
        selection: `exact` or `bucket`.
        buckets: number of buckets of selection `bucket`.
        scale: scale of `exp`.
    """

    th_r: int
    transform: Transform = Transform.RAW
    selection: Selection = Selection.EXACT
    buckets: int = 16
    scale: Scale = Scale(0, 0)


@dataclass(frozen=True)
class FixedPoint:
    """A block of rows in the WTU's integer form.

    Attributes:
        u: int32 [rows, n], signed 16-bit scores; 0 where `nan`.
        nan: bool [rows, n].
        exponent: int32 [rows, 1], biased exponent of the row's largest finite magnitude (>= 1).
    """

    u: np.ndarray
    nan: np.ndarray
    exponent: np.ndarray


def fixed_point(scores: np.ndarray) -> FixedPoint:
    """BF16 bits uint16 [rows, n] to 16-bit integers with one exponent a row; infinities saturate."""
    magnitude = scores & np.uint16(0x7FFF)
    special = magnitude >= INFINITY
    # Rows are almost always finite: then three passes over them are saved.
    finite = not special.any()
    largest = (magnitude if finite else np.where(special, 0, magnitude)).max(axis=1, initial=0, keepdims=True)
    exponent = np.maximum(largest >> 7, 1).astype(np.int32)
    # A multiple of a power of two is exact in float64, whose range none of them leaves.
    values = from_bf16(scores if finite else np.where(special, 0, scores)).astype(np.float64)
    values *= np.ldexp(1.0, FRACTION_BITS + 127 - exponent)
    u = np.floor(values, out=values).astype(np.int32)
    nan = magnitude > INFINITY
    if not finite:
        u[special] = np.where(scores[special] & 0x8000, -(1 << 15), (1 << 15) - 1)
        u[nan] = 0
    return FixedPoint(u, nan, exponent)


def order_code(scores: np.ndarray) -> np.ndarray:
    """12 bits that sort as -u does: two codes of a row are equal iff their u are.

    u has at most 8 significant bits, so the distance of its exponent from the row's and its significand say
    all: ORDER_ZERO -+ (7 - distance, significand), and beyond that distance ORDER_ZERO - u.

    Args:
        scores: BF16 bits, uint16 [rows, n].

    Returns:
        int32 [rows, n], 0 to 2304; NaN has any.
    """
    rows = fixed_point(scores)
    bits = scores.astype(np.int32)
    exponent, fraction = (bits >> 7) & 0xFF, bits & 0x7F
    significand = np.where(exponent > 0, fraction | 0x80, fraction)
    distance = rows.exponent - np.maximum(exponent, 1)
    magnitude = np.where(significand > 0, ((NEAR - 1 - distance) << 7) + significand, 0)
    magnitude = np.where(exponent == 0xFF, ORDER_ZERO, magnitude)
    near = ORDER_ZERO + np.where(bits & 0x8000, magnitude, -magnitude)
    return np.where(distance < NEAR, near, ORDER_ZERO - rows.u)


def order_bin(codes: np.ndarray) -> np.ndarray:
    """Bin of each order code, 0 to 60: what the first pass of `exact` tells apart."""
    coarse = (FINE_CODES >> FINE_BITS) + (codes - FINE_CODES >> COARSE_BITS)
    return np.where(codes < FINE_CODES, codes >> FINE_BITS, coarse)


def _extreme(rows: FixedPoint, sign: int) -> np.ndarray:
    """Largest (sign 1) or smallest (sign -1) u of each row that is not NaN; int32 [rows, 1], 0 if none."""
    low = -(1 << 20)
    best = np.where(rows.nan, low, sign * rows.u).max(axis=1, initial=low, keepdims=True)
    return np.where(best == low, 0, sign * best)


def transform(rows: FixedPoint, rule: Rule) -> np.ndarray:
    """Weight per token of every score: int64 [rows, n], NaN 0.

    `raw` is u, `shift` is u - min u, `exp` is 2^((u - max u) * scale * log2 e) in units of 2^-15, the
    exponent in the row's real units, truncated to 1/64.
    """
    if rule.transform == Transform.RAW:
        weight = rows.u
    elif rule.transform == Transform.SHIFT:
        weight = rows.u - _extreme(rows, -1)
    else:
        product = (_extreme(rows, 1) - rows.u).astype(np.int64) * rule.scale.mantissa
        real_exponent = rows.exponent - 127 - FRACTION_BITS
        shift = 15 - EXP_INDEX_BITS - rule.scale.exponent - real_exponent
        x = np.where(shift > 0, product >> np.clip(shift, 0, 40), product)
        x = np.clip(x, 0, EXP_SATURATED)
        weight = EXP_TABLE[x & ((1 << EXP_INDEX_BITS) - 1)] >> (x >> EXP_INDEX_BITS)
    return np.where(rows.nan, 0, weight).astype(np.int64)


def _select_exact(rows: FixedPoint, weights: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    """Smallest prefix in descending u (lower index first on ties) whose weight passes the threshold."""
    order = np.argsort((~rows.u).astype(np.int16), axis=1, kind="stable")
    passed = np.take_along_axis(weights, order, axis=1).cumsum(axis=1) > threshold
    # The cluster that passes it, by its place in the order and in the row; without one the last in order.
    place = np.where(passed.any(axis=1), passed.argmax(axis=1), weights.shape[1] - 1)[:, None]
    last = np.take_along_axis(order, place, axis=1)
    u = np.take_along_axis(rows.u, last, axis=1)
    chosen: np.ndarray = (rows.u > u) | ((rows.u == u) & (np.arange(weights.shape[1]) <= last))
    return chosen


def _select_bucket(rows: FixedPoint, weights: np.ndarray, threshold: np.ndarray, buckets: int) -> np.ndarray:
    """Whole buckets from the top until the threshold is passed."""
    low = _extreme(rows, -1)
    _, span_bits = np.frexp((_extreme(rows, 1) - low).astype(np.float64))
    digit = (rows.u - low) >> np.maximum(span_bits - (buckets.bit_length() - 1), 0)
    chosen = np.zeros(weights.shape, dtype=bool)
    open_rows = np.ones((len(weights), 1), dtype=bool)
    for bucket in range(buckets - 1, -1, -1):
        at_least = digit >= bucket
        chosen |= at_least & open_rows
        total = np.where(at_least & ~rows.nan, weights, 0).sum(axis=1, keepdims=True)
        open_rows &= total <= threshold
    return chosen


def _scale_by_ratio(total: np.ndarray, th_r: int) -> np.ndarray:
    """floor(total * th_r / 2^16): for integers, acc * 2^16 > th_r * total iff acc is above it.

    In two halves: the product needs 64 bits and a sign at 65 535 full clusters.
    """
    high, low = total >> TH_R_BITS, total & ((1 << TH_R_BITS) - 1)
    return high * th_r + (low * th_r >> TH_R_BITS)


@dataclass(frozen=True)
class Selected:
    """What a block of rows selects.

    Attributes:
        rows: bool [rows, n].
        degenerate: rows of `raw` whose sum was <= 0 (only their top cluster is taken).
    """

    rows: np.ndarray
    degenerate: int


def select(scores: np.ndarray, counts: np.ndarray, rule: Rule) -> Selected:
    """Selects clusters row by row.

    With weight = transform(u) * token count, sum over the row, a set is complete when
    acc * 2^16 > Th_r * sum. If that never happens everything is selected; `raw` with a sum <= 0 selects
    the top cluster. A NaN score is never selected.

    Args:
        scores: BF16 bits, uint16 [rows, n].
        counts: token counts of the clusters, integers [n], 0..65535.
        rule: registers.
    """
    if scores.shape[1] == 0:
        return Selected(np.zeros(scores.shape, dtype=bool), 0)
    rows = fixed_point(scores)
    weights = transform(rows, rule) * counts.astype(np.int64)
    total = weights.sum(axis=1, keepdims=True)
    threshold = _scale_by_ratio(total, rule.th_r)
    if rule.selection == Selection.EXACT:
        chosen = _select_exact(rows, weights, threshold)
    else:
        chosen = _select_bucket(rows, weights, threshold, rule.buckets)
    degenerate = np.zeros(len(scores), dtype=bool)
    if rule.transform == Transform.RAW:
        degenerate = total[:, 0] <= 0
        top = np.where(rows.nan, -(1 << 20), rows.u).argmax(axis=1)
        chosen[degenerate] = False
        chosen[degenerate, top[degenerate]] = True
    return Selected(chosen & ~rows.nan, int(degenerate.sum()))
