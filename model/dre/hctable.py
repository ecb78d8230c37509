"""HC table: the clusters of one layer (or KV head) and the tokens in them (paper Section IV-B, Fig. 7)."""

from collections.abc import Callable

import numpy as np

from vrex.model.config import MAX_CLUSTERS, MAX_COUNT
from vrex.model.dre import mean
from vrex.model.dre.hcu import Clustering, TableFullError

ClusterFn = Callable[[np.ndarray, np.ndarray], Clustering]
"""(token hashes uint32 [n, words], open clusters' hashes uint32 [C, words]) -> decisions."""


def _grown(array: np.ndarray, rows: int) -> np.ndarray:
    """`array` with room for `rows` rows, doubled so that appending stays cheap."""
    if rows <= len(array):
        return array
    larger = np.zeros((max(rows, 2 * len(array)), *array.shape[1:]), dtype=array.dtype)
    larger[: len(array)] = array
    return larger


class HCTable:
    """Clusters of tokens. A cluster's hash is its founder's for good; a full cluster is closed.

    Attributes:
        clusters: number of clusters, closed ones included.
        tokens: number of tokens in them.
    """

    def __init__(
        self,
        words: int,
        dim: int,
        chunk_tokens: int,
        *,
        max_count: int = MAX_COUNT,
        capacity: int = 256,
        dithered: bool = False,
    ) -> None:
        """An empty table.

        Args:
            words: 32-bit words of one hash.
            dim: length of a key; with one table for all KV heads their keys are concatenated.
            chunk_tokens: tokens that one call of the clustering unit can take.
            max_count: members at which a cluster is closed.
            capacity: rows to start with; the table grows by itself.
            dithered: how means are rounded, as `mean.update`'s.
        """
        self.clusters = 0
        self.tokens = 0
        self._chunk_tokens = chunk_tokens
        self._max_count = max_count
        self._dithered = dithered
        self._hashes = np.zeros((capacity, words), dtype=np.uint32)
        self._counts = np.zeros(capacity, dtype=np.int64)
        self._means = np.zeros((capacity, dim), dtype=np.uint16)
        self._token_ids = np.zeros(4 * capacity, dtype=np.int64)
        self._token_cluster = np.zeros(4 * capacity, dtype=np.int32)

    @property
    def hashes(self) -> np.ndarray:
        """Founders' hash words, uint32 [clusters, words]; a view."""
        return self._hashes[: self.clusters]

    @property
    def counts(self) -> np.ndarray:
        """Members of each cluster, int64 [clusters], 1..65535; a view."""
        return self._counts[: self.clusters]

    @property
    def means(self) -> np.ndarray:
        """Key_cluster as BF16 bits, uint16 [clusters, dim]; a view."""
        return self._means[: self.clusters]

    @property
    def token_ids(self) -> np.ndarray:
        """Tokens in the table, int64 [tokens], ascending; a view."""
        return self._token_ids[: self.tokens]

    @property
    def token_cluster(self) -> np.ndarray:
        """Cluster of each token, int32 [tokens]; a view."""
        return self._token_cluster[: self.tokens]

    def tokens_of(self, mask: np.ndarray) -> np.ndarray:
        """Tokens of the chosen clusters.

        Args:
            mask: bool [clusters].

        Returns:
            int64, ascending token ids.
        """
        return self.token_ids[mask[self.token_cluster]]

    def add(
        self, hashes: np.ndarray, keys: np.ndarray, token_ids: np.ndarray, cluster_fn: ClusterFn
    ) -> np.ndarray:
        """Clusters tokens in order and takes them in; an exception leaves the table as it was.

        The result is that of one token at a time: a call of `cluster_fn` gets no more tokens than any open
        cluster has room for, so none can fill up before the call's last token.

        Args:
            hashes: hash words, uint32 [n, words].
            keys: BF16 bits, uint16 [n, dim], RoPE applied.
            token_ids: integers [n], ascending and above those in the table.
            cluster_fn: the clustering unit, offered the clusters that are not full.

        Returns:
            int32 [n], the cluster of each token.

        Raises:
            ValueError: the token ids are not ascending.
            TableFullError: more than 65 535 clusters would exist, closed ones included.
        """
        previous = self._token_ids[self.tokens - 1] if self.tokens else -1
        if (np.diff(token_ids, prepend=previous) <= 0).any():
            raise ValueError("token ids must be ascending and above those in the table")
        self._reserve(len(hashes))
        assigned, counts = self._decide(hashes, cluster_fn)
        # Nothing below can fail, so the table changes as a whole.
        self._update_means(assigned, keys)
        end = self.tokens + len(hashes)
        self._token_ids[self.tokens : end] = token_ids
        self._token_cluster[self.tokens : end] = assigned
        self._counts[: len(counts)] = counts
        self.clusters, self.tokens = len(counts), end
        return assigned

    def restore(
        self, hashes: np.ndarray, means: np.ndarray, token_ids: np.ndarray, token_cluster: np.ndarray
    ) -> None:
        """Fills an empty table with what another one held.

        Args:
            hashes, means: as the properties.
            token_ids, token_cluster: as the properties.

        Raises:
            ValueError: the table is not empty, the token ids are not ascending, or a cluster has no token
                or more than it can hold, or does not exist.
        """
        clusters, tokens = len(hashes), len(token_ids)
        counts = np.bincount(token_cluster, minlength=clusters)
        if self.tokens or len(counts) > clusters or not ((counts > 0) & (counts <= self._max_count)).all():
            raise ValueError("these tokens do not make these clusters")
        if (np.diff(token_ids) <= 0).any():
            raise ValueError("token ids must be ascending")
        self._reserve(max(clusters, tokens))
        self._hashes[:clusters], self._means[:clusters] = hashes, means
        self._counts[:clusters] = counts
        self._token_ids[:tokens], self._token_cluster[:tokens] = token_ids, token_cluster
        self.clusters, self.tokens = clusters, tokens

    def _reserve(self, n: int) -> None:
        """Room for n more tokens, each of which may open a cluster."""
        self._hashes = _grown(self._hashes, self.clusters + n)
        self._counts = _grown(self._counts, self.clusters + n)
        self._means = _grown(self._means, self.clusters + n)
        self._token_ids = _grown(self._token_ids, self.tokens + n)
        self._token_cluster = _grown(self._token_cluster, self.tokens + n)

    def _decide(self, hashes: np.ndarray, cluster_fn: ClusterFn) -> tuple[np.ndarray, np.ndarray]:
        """Cluster of each token, int32 [n], and the counts that result, int64 [clusters afterwards].

        Founders' hashes are written behind the table's last row, where nobody looks before the commit.
        """
        assigned = np.zeros(len(hashes), dtype=np.int32)
        counts = self.counts.copy()
        first = 0
        while first < len(hashes):
            is_open = counts < self._max_count
            fullest = int(counts.max(where=is_open, initial=0))
            n = min(len(hashes) - first, self._chunk_tokens, self._max_count - fullest)
            tokens = hashes[first : first + n]
            offered = np.flatnonzero(is_open)
            known = self._hashes[: len(counts)]
            decision = cluster_fn(tokens, known if len(offered) == len(counts) else known[offered])
            founders = tokens[decision.opened]
            if len(counts) + len(founders) > MAX_CLUSTERS:
                raise TableFullError
            self._hashes[len(counts) : len(counts) + len(founders)] = founders
            # Those that the unit opened come behind all others, closed ones included.
            new = np.arange(len(counts), len(counts) + len(founders))
            chosen = np.concatenate([offered, new])[decision.cluster]
            counts = np.concatenate([counts, np.zeros(len(founders), dtype=counts.dtype)])
            np.add.at(counts, chosen, 1)
            assigned[first : first + n] = chosen
            first += n
        return assigned, counts

    def _update_means(self, assigned: np.ndarray, keys: np.ndarray) -> None:
        """Takes keys into the means in token order: each round has at most one key per cluster."""
        order = np.argsort(assigned, kind="stable")
        rank = np.empty(len(assigned), dtype=np.int64)
        rank[order] = np.arange(len(order)) - np.searchsorted(assigned[order], assigned[order])
        count = np.where(assigned < self.clusters, self._counts[assigned], 0) + rank + 1
        for turn in range(int(rank.max(initial=-1)) + 1):
            members = np.flatnonzero(rank == turn)
            rows = assigned[members]
            self._means[rows] = mean.update(
                self._means[rows], keys[members], count[members], dithered=self._dithered
            )
