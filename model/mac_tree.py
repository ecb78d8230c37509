"""Fused dot product of the MAC tree: aligned integer sums, one rounding a chunk (numeric contract, `fused`).

A chunk's products are exact. With E the largest exponent among those that are not zero, where a product's
exponent is the sum of its operands' (a subnormal operand has exponent -126), every magnitude is cut to a
multiple of 2^(E - W), the integers are added, and the sum is rounded once to FP32. W is the number of
fractional bits. A sum of zero is +0. A NaN, an infinity times zero, or infinities of both signs give the
quiet NaN; else an infinity gives itself. Chunks are added in FP32, as in scheme `tree`.
"""

import numpy as np

from vrex.model import arith
from vrex.model.config import CHUNK, DpeConfig

FRACTION_BITS = DpeConfig.fraction_bits
"""W of the default configuration."""

_NAN = np.float32(np.nan)
_MIN_EXPONENT = -1 << 12
"""Below the exponent of every product."""


def _decode(bits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """BF16 bits as a signed significand (|.| < 256) and the exponent of its bit 7."""
    fields = np.asarray(bits).astype(np.int32)
    biased = fields >> 7 & 0xFF
    significand = fields & 0x7F | (biased != 0).astype(np.int32) << 7
    return np.where(fields >> 15, -significand, significand), np.maximum(biased, 1) - 127


def chunk_fused(a: np.ndarray, b: np.ndarray, fraction_bits: int = FRACTION_BITS) -> np.ndarray:
    """Dot products of one chunk each.

    Args:
        a, b: BF16 bits, uint16 [CHUNK, ...] of shapes that broadcast, the terms on the first axis.
        fraction_bits: W, 18..40.

    Returns:
        float32 [...].
    """
    (left, left_exponent), (right, right_exponent) = _decode(a), _decode(b)
    product = left.astype(np.int64) * right
    exponent = np.where(product != 0, left_exponent + right_exponent, _MIN_EXPONENT)
    top = exponent.max(axis=0)
    # A product has 14 bits below the unit of its exponent.
    magnitude = np.abs(product) << fraction_bits - 14
    magnitude >>= np.minimum(top - exponent, 63)
    total = np.where(product < 0, -magnitude, magnitude).sum(axis=0)
    # The sum has fewer than 53 bits: float64 holds it, so that only the last step rounds.
    with np.errstate(over="ignore", under="ignore"):
        rounded = np.ldexp(total.astype(np.float64), top - fraction_bits).astype(np.float32)
    return _with_specials(np.where(total == 0, np.float32(0), rounded), a, b)


def _with_specials(finite: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The finite results, or infinity or NaN where an operand says so."""
    a, b = np.asarray(a), np.asarray(b)
    if not ((a & 0x7F80 == 0x7F80).any() or (b & 0x7F80 == 0x7F80).any()):
        return finite
    infinite = [x & 0x7FFF == 0x7F80 for x in (a, b)]
    nan = [x & 0x7FFF > 0x7F80 for x in (a, b)]
    zero = [x & 0x7FFF == 0 for x in (a, b)]
    invalid = nan[0] | nan[1] | infinite[0] & zero[1] | zero[0] & infinite[1]
    any_infinite = infinite[0] | infinite[1]
    negative = (a ^ b) >> 15 != 0
    plus, minus = (any_infinite & ~negative).any(axis=0), (any_infinite & negative).any(axis=0)
    result = np.where(plus, np.float32(np.inf), np.where(minus, np.float32(-np.inf), finite))
    return np.where(invalid.any(axis=0) | plus & minus, _NAN, result)


def dot_fused(a: np.ndarray, b: np.ndarray, fraction_bits: int = FRACTION_BITS) -> np.ndarray:
    """All dot products of the rows of `a` and `b`, scheme `fused` of the contract.

    Args:
        a: BF16 bits, uint16 [m, K].
        b: BF16 bits, uint16 [n, K].
        fraction_bits: W.

    Returns:
        float32 [m, n].
    """
    total = np.zeros((len(a), len(b)), dtype=np.float32)
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        for row, left in enumerate(_chunks(a)):
            for at, chunk in enumerate(zip(left, _chunks(b).transpose(1, 2, 0), strict=True)):
                part = chunk_fused(chunk[0][:, None], chunk[1], fraction_bits)
                total[row] = part if at == 0 else total[row] + part
    return total


def dot(a: np.ndarray, b: np.ndarray, config: DpeConfig) -> np.ndarray:
    """All dot products of the rows of `a` and `b` (see `dot_fused`) as a DPE's MAC trees give them."""
    if config.scheme == "tree":
        return arith.dot_tree(a, b)
    return dot_fused(a, b, config.fraction_bits)


def _chunks(x: np.ndarray) -> np.ndarray:
    """uint16 [n, K] as [n, chunks, CHUNK], padded with +0."""
    n, terms = x.shape
    padded = np.zeros((n, -(-terms // CHUNK) * CHUNK), dtype=np.uint16)
    padded[:, :terms] = x
    return padded.reshape(n, -1, CHUNK)
