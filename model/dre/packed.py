"""Keys and values of a token in 4 bits a value, as memory holds them: codes, then one BF16 scale a group.

Codes and scales are those of `vrex.model.dre.quant`, as the copies of Key_cluster have them, so that one unit
makes both. A group lies within one key or value, so that a token can be written and read by itself. A record
is its vectors' codes, two in a byte and the first in the lower half, then their scales, little-endian:

    K of head 0 | V of head 0 | ... | scales of K of head 0 | scales of V of head 0 | ...

in the order of the vectors that are given. Of one KV head with 64 dimensions that is 72 bytes instead of 256.

Keys may be rotated before they are packed and back after they are unpacked (`rotation`): the few large
components of a key, which would set the scale of their group, are spread over all of them (Ashkboos et al.,
"QuaRot", NeurIPS 2024). A record does not show it.
"""

from functools import lru_cache

import numpy as np

from vrex.model.dre import hadamard, quant
from vrex.model.lib import arith
from vrex.model.lxe import mac_tree

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


@lru_cache(maxsize=1024)
def rotation(seed: int, layer: int, head: int, dim: int) -> np.ndarray:
    """The matrix R that rotates the keys of one KV head.

    Blocks of a Hadamard matrix along the diagonal, as large as the largest power of two that divides dim,
    each column times a sign. Where dim is a power of two these are the first dim rows of `codes.planes`, so
    that one product rotates a query for codes and for keys.

    Args:
        seed, layer, head: of the signs, as for `codes.planes`.
        dim: head_dim.

    Returns:
        BF16 bits of 1, -1 and 0, uint16 [dim, dim].
    """
    block = hadamard.sylvester(dim & -dim)
    rows = np.kron(np.eye(dim // len(block)), block) * hadamard.signs(seed, layer, head, 0, dim)
    # Adding 0 makes zeros positive.
    bits = arith.to_bf16((rows + 0).astype(np.float32))
    bits.flags.writeable = False
    return bits


def rotate(keys: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """bf16(dot(R_i, k)): BF16 bits uint16 [n, dim] to the same; `rows` as `rotation` gives them."""
    with np.errstate(over="ignore"):
        return arith.to_bf16(mac_tree.dot_fused(keys, rows))


def rotate_back(keys: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """bf16(dot(R^T_i, k) / block), the division exact: what a rotated key is attended to as.

    Args:
        keys: BF16 bits, uint16 [n, dim].
        rows: as `rotation` gives them.

    Returns:
        BF16 bits, uint16 [n, dim]; NaN throughout a key that is not finite.
    """
    dim = rows.shape[1]
    with np.errstate(invalid="ignore", over="ignore"):
        back = mac_tree.dot_fused(keys, np.ascontiguousarray(rows.T))
        return arith.to_bf16(back * np.float32(1 / (dim & -dim)))


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
