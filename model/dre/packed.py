"""Keys and values of a token in 4 bits a value, as memory holds them: codes, then one BF16 scale a group.

Codes and scales are those of `vrex.model.dre.quant`, as the copies of Key_cluster have them, so that one unit
makes both. A group lies within one key or value, so that a token can be written and read by itself. A record
is its vectors' codes, two in a byte and the first in the lower half, then their scales, little-endian:

    K of head 0 | V of head 0 | ... | scales of K of head 0 | scales of V of head 0 | ...

in the order of the vectors that are given. Of one KV head with 64 dimensions that is 72 bytes instead of 256.
"""

import numpy as np

from vrex.model.dre import quant

BITS = 4
"""Of a value."""

GROUP = 32
"""Most values that share a scale."""


def group_of(dim: int) -> int:
    """Values that share a scale: the largest even divisor of dim up to `GROUP`.

    Raises:
        ValueError: dim is odd; RoPE has no such keys.
    """
    if dim % 2:
        raise ValueError(f"a key of {dim} dimensions has no pairs to pack into bytes")
    return max(size for size in range(2, GROUP + 1, 2) if dim % size == 0)


def nbytes(vectors: int, dim: int) -> int:
    """Bytes of so many packed vectors of dim values, scales included."""
    return quant.nbytes(vectors * dim, vectors * dim // group_of(dim), BITS)


def pack(vectors: np.ndarray) -> np.ndarray:
    """Records of tokens.

    A group that holds a value that is not finite becomes a NaN scale (`quant.quantise`).

    Args:
        vectors: BF16 bits, uint16 [n, vectors, dim], dim even.

    Returns:
        uint8 [n, nbytes(vectors, dim)].
    """
    n, count, dim = vectors.shape
    group = group_of(dim)
    codes, scales = quant.quantise(vectors.reshape(n, count * dim // group, group), BITS)
    halves = quant.pack(codes, BITS).reshape(n, count * dim // 2)
    return np.concatenate([halves, scales.astype("<u2").view(np.uint8)], axis=1)


def unpack(records: np.ndarray, vectors: int, dim: int) -> np.ndarray:
    """What FETCH delivers: bf16(code * scale), NaN throughout a group whose scale is NaN.

    Args:
        records: uint8 [n, nbytes(vectors, dim)].
        vectors, dim: of a record.

    Returns:
        BF16 bits, uint16 [n, vectors, dim].

    Raises:
        ValueError: the records are of another size.
    """
    n, size = records.shape
    if size != nbytes(vectors, dim):
        raise ValueError(f"a record has {nbytes(vectors, dim)} bytes, not {size}")
    split, group = vectors * dim // 2, group_of(dim)
    codes = quant.unpack(np.ascontiguousarray(records[:, :split]), BITS)
    codes = codes.reshape(n, vectors * dim // group, group)
    scales = np.ascontiguousarray(records[:, split:]).view("<u2").astype(np.uint16)
    return quant.dequantise(codes, scales).reshape(n, vectors, dim)
