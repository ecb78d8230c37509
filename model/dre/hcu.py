"""HCU: clusters one chunk of tokens by the Hamming distance of their hash-bits (paper Section IV-B)."""

from dataclasses import dataclass

import numpy as np

from vrex.model.config import MAX_CLUSTERS
from vrex.model.lib.layout import Field, Layout

NO_DISTANCE = 255
"""Reported distance of a token that had no cluster to compare with."""

DECISION = Layout(
    "DECISION",
    (
        Field("cluster", 16, "index of the cluster that the token joined or opened"),
        Field("distance", 8, "Hamming distance to the nearest cluster before; 255 if there was none"),
        Field("opened", 1, "the token opened the cluster"),
        Field("reserved", 7),
    ),
)
"""What CLUSTER and APPEND return for each token."""


class TableFullError(Exception):
    """A token would open cluster number 65 536; nothing was clustered."""


@dataclass(frozen=True)
class Clustering:
    """Decision for each token of a chunk, in token order.

    Attributes:
        cluster: int32 [n], index of the cluster joined or opened.
        distance: int32 [n], Hamming distance to the nearest cluster there was, 255 if there was none.
        opened: bool [n], the token founded its cluster (its hash is the cluster's for good).
    """

    cluster: np.ndarray
    distance: np.ndarray
    opened: np.ndarray


def hamming(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Distances of all pairs: uint32 [n, words] and [m, words] -> int32 [n, m]."""
    counts = np.bitwise_count(a[:, None, :] ^ b[None, :, :])
    return counts[..., 0].astype(np.int32) if a.shape[1] == 1 else counts.sum(axis=-1, dtype=np.int32)


def cluster(
    tokens: np.ndarray, clusters: np.ndarray, th_hd: int, closed: np.ndarray | None = None
) -> Clustering:
    """Clusters tokens in order; each sees the clusters that earlier tokens of the chunk opened.

    The nearest cluster wins, the lowest index on ties; a token joins iff its distance is < th_hd and opens
    a cluster otherwise. Clusters that accept no members are left out by the caller, or marked as closed:
    those keep their index and count as `NO_DISTANCE` away.

    Args:
        tokens: hash words, uint32 [n, words].
        clusters: founders' hash words, uint32 [C, words].
        th_hd: Hamming threshold, 0..255.
        closed: bool [C]; None closes none.

    Raises:
        TableFullError: more than 65 535 clusters would exist.
    """
    n, existing = len(tokens), len(clusters)
    index = np.zeros(n, dtype=np.int32)
    distance = np.full(n, NO_DISTANCE, dtype=np.int32)
    if n and existing:
        all_distances = hamming(tokens, clusters)
        if closed is not None:
            all_distances[:, closed] = NO_DISTANCE
        index = all_distances.argmin(axis=1).astype(np.int32)
        distance = all_distances[np.arange(n), index]
    among = hamming(tokens, tokens)
    founders: list[int] = []
    opened = np.zeros(n, dtype=bool)
    for t in range(n):
        for k, founder in enumerate(founders):
            if among[t, founder] < distance[t]:
                index[t], distance[t] = existing + k, among[t, founder]
        if distance[t] >= th_hd:
            index[t], opened[t] = existing + len(founders), True
            founders.append(t)
    if existing + len(founders) > MAX_CLUSTERS:
        raise TableFullError
    return Clustering(index, distance, opened)
