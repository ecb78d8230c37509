"""BF16 and FP32 arithmetic of the numeric contract.

BF16 values travel as their bits (uint16). Rounding is to nearest even everywhere, subnormals and signed
zeros are kept, and every NaN that is stored becomes the quiet NaN 0x7FC0. FP32 operations are IEEE 754
binary32; numpy's float32 is their model.
"""

import numpy as np

from vrex.model.config import CHUNK

NAN = 0x7FC0
_BLOCK_TERMS = 1 << 18


def to_bf16(values: np.ndarray) -> np.ndarray:
    """FP32 to BF16 bits, round to nearest even.

    Args:
        values: float32, any shape (other dtypes are first rounded to float32).

    Returns:
        uint16, same shape.
    """
    values32 = np.ascontiguousarray(values, dtype=np.float32)
    bits = values32.view(np.uint32)
    rounded = ((bits + (((bits >> 16) & 1) + 0x7FFF)) >> 16).astype(np.uint16)
    is_nan = np.isnan(values32)
    if is_nan.any():
        rounded[is_nan] = NAN
    return rounded.reshape(np.shape(values))


def from_bf16(bits: np.ndarray) -> np.ndarray:
    """BF16 bits (uint16) to the float32 of the same value."""
    return (np.asarray(bits, dtype=np.uint32) << 16).view(np.float32)


def round_bf16(values: np.ndarray) -> np.ndarray:
    """float32 values rounded to BF16 precision, still float32."""
    return from_bf16(to_bf16(values))


def tree_sum(terms: np.ndarray) -> np.ndarray:
    """Balanced tree of FP32 adders over the first axis: neighbours (2i, 2i+1) are added first.

    Args:
        terms: float32 [n, ...], n a power of two.

    Returns:
        float32 [...].
    """
    while len(terms) > 1:
        terms = terms[0::2] + terms[1::2]
    return terms[0]


def _pad_terms(x: np.ndarray) -> np.ndarray:
    """float32 [n, K] as [K', n], K' the next multiple of the chunk length, padded with +0."""
    n, terms = x.shape
    padded = np.zeros((-(-terms // CHUNK) * CHUNK, n), dtype=np.float32)
    padded[:terms] = x.T
    return padded


def dot_tree(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """All dot products of the rows of `a` and `b`, scheme `tree` of the contract.

    FP32-rounded products, 64-term chunks in ascending order, each summed by a balanced tree of FP32
    adders, the chunks accumulated in FP32.

    Args:
        a: BF16 bits, uint16 [m, K].
        b: BF16 bits, uint16 [n, K].

    Returns:
        float32 [m, n].
    """
    left, right = _pad_terms(from_bf16(a)), _pad_terms(from_bf16(b))
    out = np.empty((left.shape[1], right.shape[1]), dtype=np.float32)
    # Blocks of columns keep the products inside the processor's cache.
    step = max(1, _BLOCK_TERMS // (CHUNK * max(1, left.shape[1])))
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        for first in range(0, right.shape[1], step):
            block = right[:, first : first + step]
            total: np.ndarray | None = None
            for k in range(0, len(left), CHUNK):
                partial = tree_sum(left[k : k + CHUNK, :, None] * block[k : k + CHUNK, None, :])
                total = partial if total is None else total + partial
            out[:, first : first + step] = 0.0 if total is None else total
    return out
