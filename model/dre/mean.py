"""Running mean of a cluster's keys: Key_cluster (paper Section IV-B), in BF16."""

import numpy as np

from vrex.model.lib import arith

COUNT_BITS = 16


def dither(values: np.ndarray, count: np.ndarray) -> np.ndarray:
    """FP32 to BF16: away from zero if the bits cut off and the count with its bits reversed carry over.

    So of 2^k counts in a row that begin at a multiple of it, the share that rounds away from zero is what the
    cut bits are of a unit of the last place, to k bits.

    Args:
        values: float32.
        count: integers of a shape that fits, 1..65535.

    Returns:
        BF16 bits, uint16; of a NaN 0x7FC0.
    """
    count = np.asarray(count, dtype=np.uint32)
    reverse = np.zeros_like(count)
    for bit in range(COUNT_BITS):
        reverse |= (count >> bit & 1) << (COUNT_BITS - 1 - bit)
    rounded = (values.view(np.uint32) + reverse >> COUNT_BITS).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(arith.NAN), rounded)


def update(mean: np.ndarray, key: np.ndarray, count: np.ndarray, *, dithered: bool = False) -> np.ndarray:
    """Means after one more key each: m' = bf16(m + (k - m) * fp32(1 / n')), FP32 RNE at each operation.

    A first key (n' = 1) is its cluster's mean as it is: the formula would turn -0 into +0 and an infinity
    into a NaN. Rounded to nearest, a mean stops following once its steps are below half a unit of BF16's
    last place; dithered it takes as large a share of them as they are of that unit.

    Args:
        mean: BF16 bits, uint16 [n, dim]; what a first key's row holds does not matter.
        key: BF16 bits, uint16 [n, dim], the keys that join.
        count: integers [n], members including the new one, 1..65535.
        dithered: the last rounding is `dither`'s, not to nearest even.

    Returns:
        BF16 bits, uint16 [n, dim].
    """
    count = np.asarray(count)
    m, k = arith.from_bf16(mean), arith.from_bf16(key)
    reciprocal = np.float32(1.0) / count.astype(np.float32)
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        exact = m + (k - m) * reciprocal[:, None]
        updated = dither(exact, count[:, None]) if dithered else arith.to_bf16(exact)
    return np.where(count[:, None] == 1, key, updated)
