"""Confidence intervals of accuracies and of differences between two policies.

Resampling n values with replacement draws the counts of the distinct values from a multinomial distribution,
so a resample costs as much as there are distinct values, not as there are questions.
"""

import math

import numpy as np

RESAMPLES = 10_000
CONFIDENCE = 0.95
SEED = 0
NORMAL_QUANTILE = 1.959963984540054
"""Two-sided, of CONFIDENCE."""


def wilson(right: int, n: int) -> tuple[float, float]:
    """Wilson's score interval of the share `right` / `n`, n > 0 (E. B. Wilson, 1927).

    Unlike the bootstrap's it does not shrink to a point when all answers are right.
    """
    share, z2 = right / n, NORMAL_QUANTILE**2
    centre = share + z2 / (2 * n)
    half = NORMAL_QUANTILE * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    low, high = (centre - half) / (1 + z2 / n), (centre + half) / (1 + z2 / n)
    # Rounding must not push the ends past the share where they meet it, at none and at all right.
    return max(min(low, share), 0.0), min(max(high, share), 1.0)


def paired_bootstrap(
    first: np.ndarray, second: np.ndarray, resamples: int = RESAMPLES, seed: int = SEED
) -> tuple[float, float]:
    """The percentile interval of mean(first) - mean(second) over questions drawn anew in pairs.

    Args:
        first: bool [n], n > 0: was question i answered right?
        second: the same of the other policy.
        resamples: number of draws.
        seed: of the draws.

    Returns:
        (low, high); both 0 when the two agree on every question.
    """
    differences = np.asarray(first, dtype=np.int64) - np.asarray(second, dtype=np.int64)
    values, counts = np.unique(differences, return_counts=True)
    n = len(differences)
    draws = np.random.default_rng(seed).multinomial(n, counts / n, size=resamples) @ values / n
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def paired_blocks(
    first: np.ndarray, second: np.ndarray, counts: np.ndarray, resamples: int = RESAMPLES, seed: int = SEED
) -> tuple[float, float]:
    """The percentile interval of a difference of means over items that come in blocks.

    Blocks are drawn anew, in pairs and with all of their items, as items of one block are not independent.

    Args:
        first: float [blocks], sums over each block's items.
        second: the same of the other policy.
        counts: int [blocks], items of each block, at least one of them above 0.
        resamples: number of draws.
        seed: of the draws.

    Returns:
        (low, high) of sum(first - second) / sum(counts).
    """
    counts = np.asarray(counts)
    filled = counts > 0
    differences = (np.asarray(first, dtype=np.float64) - second)[filled]
    n = len(differences)
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    means = draws @ differences / (draws @ counts[filled])
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)
