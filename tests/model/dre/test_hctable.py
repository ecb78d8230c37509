"""HC table against a table that takes one token at a time in plain Python."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vrex.model.dre import hctable, hcu, mean
from vrex.model.dre.hctable import HCTable
from vrex.model.dre.hcu import Clustering

DIM = 3


@dataclasses.dataclass
class SlowCluster:
    founder: int
    tokens: list[int]
    mean: np.ndarray


class SlowTable:
    """The contract, read word by word: one token after another, closed clusters skipped."""

    def __init__(self, th_hd: int, max_count: int) -> None:
        self.th_hd, self.max_count = th_hd, max_count
        self.clusters: list[SlowCluster] = []

    def add(self, token: int, word: int, key: np.ndarray) -> None:
        best: SlowCluster | None = None
        nearest = 1 << 30
        for cluster in self.clusters:
            distance = bin(cluster.founder ^ word).count("1")
            if len(cluster.tokens) < self.max_count and distance < nearest:
                best, nearest = cluster, distance
        if best is None or nearest >= self.th_hd:
            self.clusters.append(SlowCluster(word, [token], key))
            return
        best.tokens.append(token)
        best.mean = mean.update(best.mean[None], key[None], np.array([len(best.tokens)]))[0]


def unit(th_hd: int, chunk_tokens: int) -> hctable.ClusterFn:
    """The clustering unit, which must never be given more tokens than it can take."""

    def cluster(tokens: np.ndarray, clusters: np.ndarray) -> Clustering:
        assert 1 <= len(tokens) <= chunk_tokens
        return hcu.cluster(tokens, clusters, th_hd)

    return cluster


@settings(derandomize=True, max_examples=200, deadline=None)
@given(
    words=st.lists(st.integers(0, 15) | st.integers(0, 0xFF), min_size=1, max_size=60),
    cuts=st.lists(st.integers(1, 12), min_size=1, max_size=8),
    th_hd=st.integers(0, 4),
    chunk_tokens=st.sampled_from([2, 4, 8]),
    max_count=st.integers(1, 6),
)
def test_equals_one_token_at_a_time(
    words: list[int], cuts: list[int], th_hd: int, chunk_tokens: int, max_count: int
) -> None:
    rng = np.random.default_rng(len(words))
    keys = rng.integers(0x3F00, 0x4100, (len(words), DIM)).astype(np.uint16)
    slow = SlowTable(th_hd, max_count)
    table = HCTable(1, DIM, chunk_tokens, max_count=max_count, capacity=1)
    first = 0
    while first < len(words):
        last = min(len(words), first + cuts[first % len(cuts)])
        hashes = np.array(words[first:last], dtype=np.uint32)[:, None]
        ids = 2 * np.arange(first, last)
        table.add(hashes, keys[first:last], ids, unit(th_hd, chunk_tokens))
        for token in range(first, last):
            slow.add(2 * token, words[token], keys[token])
        first = last
    assert [int(word) for word in table.hashes[:, 0]] == [cluster.founder for cluster in slow.clusters]
    assert list(table.counts) == [len(cluster.tokens) for cluster in slow.clusters]
    assert np.array_equal(table.means, [cluster.mean for cluster in slow.clusters])
    for i, cluster in enumerate(slow.clusters):
        mask = np.zeros(table.clusters, dtype=bool)
        mask[i] = True
        assert list(table.tokens_of(mask)) == cluster.tokens
    assert list(table.token_ids) == [2 * i for i in range(len(words))]


def add_same(table: HCTable, n: int, first_id: int, cluster_fn: hctable.ClusterFn) -> np.ndarray:
    hashes = np.zeros((n, 1), dtype=np.uint32)
    return table.add(hashes, np.zeros((n, DIM), np.uint16), np.arange(first_id, first_id + n), cluster_fn)


def test_full_clusters_close() -> None:
    table = HCTable(1, DIM, 8, max_count=3)
    assert list(add_same(table, 8, 0, unit(5, 8))) == [0, 0, 0, 1, 1, 1, 2, 2]
    assert list(table.counts) == [3, 3, 2]


def test_tokens_of_several_clusters_are_ascending() -> None:
    table = HCTable(1, DIM, 8, max_count=2)
    add_same(table, 5, 10, unit(5, 8))
    assert list(table.tokens_of(np.array([True, False, True]))) == [10, 11, 14]


def test_exception_leaves_the_table_as_it_was() -> None:
    table = HCTable(1, DIM, 4, max_count=3, capacity=1)
    add_same(table, 2, 0, unit(5, 4))
    before = [np.copy(part) for part in (table.hashes, table.counts, table.means, table.token_cluster)]
    calls = 0

    def fails_later(tokens: np.ndarray, clusters: np.ndarray) -> Clustering:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise RuntimeError("planted")
        return hcu.cluster(tokens, clusters, 5)

    with pytest.raises(RuntimeError, match="planted"):
        add_same(table, 9, 2, fails_later)
    assert calls == 3
    after = [table.hashes, table.counts, table.means, table.token_cluster]
    assert all(np.array_equal(x, y) for x, y in zip(before, after, strict=True))
    assert (table.clusters, table.tokens) == (1, 2)
    add_same(table, 9, 2, unit(5, 4))
    assert list(table.counts) == [3, 3, 3, 2]


def test_closed_clusters_count_towards_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hctable, "MAX_CLUSTERS", 3)
    table = HCTable(1, DIM, 4, max_count=1)
    add_same(table, 3, 0, unit(5, 4))
    with pytest.raises(hcu.TableFullError):
        add_same(table, 1, 3, unit(5, 4))
    assert table.tokens == 3


@pytest.mark.parametrize("ids", [[4, 4], [5, 4], [3, 6]])
def test_token_ids_must_ascend(ids: list[int]) -> None:
    table = HCTable(1, DIM, 4)
    add_same(table, 4, 0, unit(5, 4))
    with pytest.raises(ValueError, match="ascending"):
        table.add(np.zeros((2, 1), np.uint32), np.zeros((2, DIM), np.uint16), np.array(ids), unit(5, 4))
    assert table.tokens == 4


def test_adding_nothing_changes_nothing() -> None:
    table = HCTable(1, DIM, 4)
    assert len(add_same(table, 0, 0, unit(5, 4))) == 0
    assert (table.clusters, table.tokens) == (0, 0)
    assert len(table.tokens_of(np.zeros(0, dtype=bool))) == 0
