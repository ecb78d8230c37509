"""Fused dot product of the MAC tree: aligned integer sums, one rounding a chunk (numeric contract, `fused`).

A chunk's products are exact. With E the largest exponent among those that are not zero, where a product's
exponent is the sum of its operands' (a subnormal operand has exponent -126), every magnitude is cut to a
multiple of 2^(E - W), the integers are added, and the sum is rounded once to FP32. W is the number of
fractional bits. A sum of zero is +0. A NaN, an infinity times zero, or infinities of both signs give the
quiet NaN; else an infinity gives itself. Chunks are added in FP32, as in scheme `tree`.
"""

from collections.abc import Callable

import numpy as np

from vrex.model.config import CHUNK, DpeConfig
from vrex.model.lib import arith

FRACTION_BITS = DpeConfig.fraction_bits
"""W of the default configuration."""

_NAN = np.float32(np.nan)
_SMALLEST = -252
"""The smallest exponent of a product that is not zero."""

_BLOCK_RESULTS = 1 << 14
_BLOCK_PRODUCTS = 1 << 15

Decoded = tuple[np.ndarray, np.ndarray]
"""BF16 numbers as float64, and the exponents that enter E."""


def _decode(bits: np.ndarray) -> Decoded:
    """BF16 bits as float64 and the exponent that enters E; a zero's puts its product below all others."""
    biased = (bits & np.uint16(0x7FFF)).astype(np.int16)
    exponent = np.maximum(biased >> 7, 1) - np.int16(127)
    return arith.from_bf16(bits).astype(np.float64), np.where(biased == 0, np.int16(-1024), exponent)


def chunk_fused(a: np.ndarray, b: np.ndarray, fraction_bits: int = FRACTION_BITS) -> np.ndarray:
    """Dot products of one chunk each.

    Args:
        a, b: BF16 bits, uint16 [CHUNK, ...] of shapes that broadcast, the terms on the first axis.
        fraction_bits: W, 18..40.

    Returns:
        float32 [...].
    """
    # A signalling NaN is converted as any other.
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        return _with_specials(_sum_decoded(_decode(a), _decode(b), fraction_bits), a, b)


def _sum_decoded(left: Decoded, right: Decoded, fraction_bits: int, axis: int = 0) -> np.ndarray:
    """`chunk_fused` of finite operands, decoded, with the terms on any axis (see `_with_specials`)."""
    exponent = (left[1] + right[1]).max(axis=axis, keepdims=True).astype(np.int32)
    unit = np.maximum(exponent, _SMALLEST) - fraction_bits
    # Products have 16 significant bits and, in units, fewer than 53 before the point, as their sum has:
    # float64 is exact, so that only the last step rounds.
    products = left[0] * right[0]
    products *= np.ldexp(1.0, -unit)
    total = np.trunc(products, out=products).sum(axis=axis)
    unit = unit.squeeze(axis)
    rounded = np.ldexp(total, unit).astype(np.float32)
    return np.where(total == 0, np.float32(0), rounded)


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
    left, right = _chunks(a), _chunks(b).transpose(1, 2, 0)
    special = any((x & 0x7F80 == 0x7F80).any() for x in (a, b))
    # Blocks of rows whose products stay inside the processor's cache.
    step = max(1, _BLOCK_PRODUCTS // max(1, CHUNK * len(b)))
    total = np.zeros((len(a), len(b)), dtype=np.float32)
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        values, exponents = _decode(left)
        for at, chunk in enumerate(right):
            decoded = _decode(chunk)
            for first in range(0, len(a), step):
                rows = slice(first, first + step)
                block = values[rows, at, :, None], exponents[rows, at, :, None]
                part = _sum_decoded(block, decoded, fraction_bits, axis=1)
                if special:
                    part = _with_specials(part, left[rows, at].T[:, :, None], chunk[:, None])
                total[rows] = part if at == 0 else total[rows] + part
    return np.where(np.isnan(total), _NAN, total)


def dot_bf16(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`to_bf16(dot_fused(a, b))`, bit by bit: scores.

    Args:
        a: BF16 bits, uint16 [m, K].
        b: BF16 bits, uint16 [n, K].

    Returns:
        BF16 bits, uint16 [m, n].
    """
    return _decided(a, b, arith.to_bf16)


def positive(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`dot_fused(a, b) > 0`, bit by bit: hash-bits.

    Args:
        a: BF16 bits, uint16 [m, K].
        b: BF16 bits, uint16 [n, K].

    Returns:
        bool [m, n].
    """
    return _decided(a, b, lambda values: values > 0)


def _decided(a: np.ndarray, b: np.ndarray, decide: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """`decide(dot_fused(a, b))`, without adding up most of the chunks.

    The fused sum lies within a proven distance of the exact dot product, which float64 gives. Where both ends
    of that interval are decided alike the result is known, since `decide` is constant between them; elsewhere
    the fused sum decides.
    """
    # A signalling NaN is converted as any other.
    with np.errstate(invalid="ignore"):
        left, right = (arith.from_bf16(x).astype(np.float64) for x in (a, b))
    chunks = -(-left.shape[1] // CHUNK)
    # Of a chunk's 64 magnitudes each is cut by less than 2^(E - W); then the chunk, and every sum of chunks,
    # is rounded to FP32. One more unit covers float64 and the second order.
    relative = CHUNK * 2.0**-FRACTION_BITS + (chunks + 2) * 2.0**-24
    absolute = 2 * chunks * 2.0**-149
    blocks = []
    with np.errstate(invalid="ignore", over="ignore"):
        # Cauchy-Schwarz: the product of the norms is at least the sum of the terms' magnitudes. An operand
        # counts as at least 2^-126 in E, in each chunk.
        norms = [np.sqrt(np.einsum("ij,ij->i", x, x)) + chunks * 2.0**-126 for x in (left, right)]
        # Larger sums might leave FP32's range on the way; a NaN compares false.
        in_range = norms[0].max(initial=0) * norms[1].max(initial=0) < 2.0**126
        # Blocks of columns stay inside the processor's cache.
        step = max(1, _BLOCK_RESULTS // max(1, len(a)))
        for first in range(0, max(1, len(b)), step):
            block = slice(first, first + step)
            exact = left @ right[block].T
            bound = np.outer(norms[0] * relative, norms[1][block]) + absolute
            low = decide((exact - bound).astype(np.float32))
            high = decide((exact + bound).astype(np.float32))
            rows, columns = np.nonzero((low != high) if in_range else np.ones(low.shape, dtype=bool))
            low[rows, columns] = decide(dot_pairs(a[rows], b[first + columns]))
            blocks.append(low)
    return np.concatenate(blocks, axis=1)


def dot_pairs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Dot products of rows i of `a` and `b` as `dot_fused` gives them: uint16 [n, K] to float32 [n]."""
    total: np.ndarray | None = None
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        for chunk in zip(_chunks(a).transpose(1, 2, 0), _chunks(b).transpose(1, 2, 0), strict=True):
            part = chunk_fused(*chunk)
            total = part if total is None else total + part
    return np.zeros(len(a), dtype=np.float32) if total is None else total


def dot(a: np.ndarray, b: np.ndarray, config: DpeConfig) -> np.ndarray:
    """All dot products of the rows of `a` and `b` (see `dot_fused`) as a DPE's MAC trees give them."""
    if config.scheme == "tree":
        return arith.dot_tree(a, b)
    return dot_fused(a, b, config.fraction_bits)


def _chunks(x: np.ndarray) -> np.ndarray:
    """uint16 [n, K] as [n, chunks, CHUNK], padded with +0."""
    n, terms = x.shape
    chunks = -(-terms // CHUNK)
    padded = np.zeros((n, chunks * CHUNK), dtype=np.uint16)
    padded[:, :terms] = x
    return padded.reshape(n, chunks, CHUNK)
