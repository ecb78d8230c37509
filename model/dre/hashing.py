"""Hash-bits of keys: signs of projections on random hyperplanes (paper Section IV-B)."""

from functools import lru_cache

import numpy as np

from vrex.model.lib import arith
from vrex.model.lxe import mac_tree

WORD_BITS = 32


@lru_cache(maxsize=1024)
def hyperplanes(seed: int, layer: int, table: int, n_hp: int, dim: int) -> np.ndarray:
    """Random hyperplanes of one HC table.

    Returns:
        BF16 bits, uint16 [n_hp, dim]: standard normals of numpy's PCG64 seeded with (seed, layer, table),
        each below 2^32, rounded to FP32 and then to BF16. Plane i does not depend on n_hp.
    """
    rng = np.random.Generator(np.random.PCG64([seed, layer, table]))
    planes = arith.to_bf16(rng.standard_normal((n_hp, dim)).astype(np.float32))
    planes.flags.writeable = False
    return planes


def pack_bits(bits: np.ndarray, hash_bits: int) -> np.ndarray:
    """Bits to hash words, bit i at position i % 32 of word i // 32, unused bits 0.

    Args:
        bits: bool [n, n_hp].
        hash_bits: width of the stored hash, at least n_hp.

    Returns:
        uint32 [n, ceil(hash_bits / 32)].

    Raises:
        ValueError: more bits than the hash holds.
    """
    if bits.shape[1] > hash_bits:
        raise ValueError(f"{bits.shape[1]} hash-bits do not fit a hash of {hash_bits}")
    words = -(-hash_bits // WORD_BITS)
    padded = np.zeros((len(bits), words * WORD_BITS), dtype=np.uint8)
    padded[:, : bits.shape[1]] = bits
    return np.packbits(padded, axis=1, bitorder="little").view("<u4").astype(np.uint32)


def hash_keys(keys: np.ndarray, planes: np.ndarray, hash_bits: int) -> np.ndarray:
    """Hash words of keys; bit i is 1 iff projection i is > 0 (a NaN gives 0).

    Args:
        keys: BF16 bits, uint16 [n, dim], RoPE applied.
        planes: BF16 bits, uint16 [n_hp, dim].
        hash_bits: width of the stored hash.

    Returns:
        uint32 [n, ceil(hash_bits / 32)].
    """
    return pack_bits(mac_tree.positive(keys, planes), hash_bits)
