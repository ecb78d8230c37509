"""Running mean of a cluster's keys: Key_cluster (paper Section IV-B), in BF16."""

import numpy as np

from vrex.model.lib import arith


def update(mean: np.ndarray, key: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Means after one more key each: m' = bf16(m + (k - m) * fp32(1 / n')), FP32 RNE at each operation.

    A first key (n' = 1) is its cluster's mean as it is: the formula would turn -0 into +0 and an infinity
    into a NaN.

    Args:
        mean: BF16 bits, uint16 [n, dim]; what a first key's row holds does not matter.
        key: BF16 bits, uint16 [n, dim], the keys that join.
        count: integers [n], members including the new one, 1..65535.

    Returns:
        BF16 bits, uint16 [n, dim].
    """
    count = np.asarray(count)
    m, k = arith.from_bf16(mean), arith.from_bf16(key)
    reciprocal = np.float32(1.0) / count.astype(np.float32)
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        updated = arith.to_bf16(m + (k - m) * reciprocal[:, None])
    return np.where(count[:, None] == 1, key, updated)
