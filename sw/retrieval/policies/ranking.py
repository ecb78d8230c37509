"""Ranking by score, shared by several policies."""

import math

import numpy as np


def grouped(q: np.ndarray, kv_heads: int) -> np.ndarray:
    """Queries [query heads, rows, head_dim] as [KV heads, query heads of one x rows, head_dim]."""
    return q.reshape(kv_heads, -1, q.shape[-1])


def share_of(n: int, share: float) -> int:
    """A share of n things, rounded up to whole ones.

    The product is rounded to 9 places first: 0.1 of 30 is 3, though 0.1 * 30 is a little more in binary.
    """
    return math.ceil(round(n * share, 9))


def top(scores: np.ndarray, k: int) -> np.ndarray:
    """Indices of the k largest scores [n], ascending; the lower index first on ties."""
    if k >= len(scores):
        return np.arange(len(scores))
    return np.sort(np.argsort(-scores, kind="stable")[:k])
