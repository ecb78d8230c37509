"""Codes of one KV head on one level and on two."""

from typing import Any

import numpy as np
import pytest

from vrex.model.dre import codes, quant
from vrex.model.dre.wtu import Scale
from vrex.model.lib import arith
from vrex.sw.retrieval.policies import code_table
from vrex.sw.retrieval.policies.code_table import CodeTable, Levels

DIM, SCALE = 64, Scale.from_float(0.125)
NAN = 0x7FC0


def keys_of(seed: int, count: int, kinds: int = 30) -> np.ndarray:
    """Keys of some kinds around a common centre."""
    rng = np.random.default_rng(seed)
    means = 2 + 2 * np.random.default_rng(9).standard_normal((kinds, DIM))
    drawn = means[rng.integers(0, kinds, count)] + 0.5 * rng.standard_normal((count, DIM))
    return arith.to_bf16(drawn.astype(np.float32))


def asked(seed: int) -> dict[str, Any]:
    """Queries near a key, with some residents."""
    rng = np.random.default_rng(seed)
    queries = arith.from_bf16(keys_of(seed, 6)) - 2 + 0.2 * rng.standard_normal((6, DIM))
    seen = np.ones((6, 5), dtype=bool)
    seen[:3, 4] = False
    return {
        "queries": arith.to_bf16(queries.astype(np.float32)),
        "residents": keys_of(seed + 1, 5),
        "seen": seen,
        "scale": SCALE,
    }


def tables_of(keys: np.ndarray, settings: Levels, step: int = 50) -> tuple[CodeTable, CodeTable]:
    planes = codes.planes(0, 0, 0, 64, DIM)
    flat, two = CodeTable(planes, keys[:50]), CodeTable(planes, keys[:50], settings)
    for first in range(0, len(keys), step):
        flat.add(keys[first : first + step])
        two.add(keys[first : first + step])
    return flat, two


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_two_levels_find_what_one_does(seed: int) -> None:
    """The kinds are well apart, so the best tokens are in the clusters that the first level names."""
    flat, two = tables_of(keys_of(seed, 3000), Levels(th_hd=15, limit=800))
    one, both = (table.best(**asked(seed), count=100) for table in (flat, two))
    assert 0 < two.clusters < 300
    assert len(both.tokens) == 100
    assert (np.diff(both.tokens) > 0).all()
    assert len(np.intersect1d(one.tokens, both.tokens)) > 90
    assert both.read < one.read == 3000 * 10


def test_one_level_where_it_reads_less() -> None:
    """4,096 candidates of 14 bytes are more than 3,000 codes of 10."""
    flat, two = tables_of(keys_of(4, 3000), Levels(th_hd=15, limit=4096))
    one, both = (table.best(**asked(4), count=100) for table in (flat, two))
    assert two.clusters > 0
    assert both.read == one.read == 3000 * 10
    np.testing.assert_array_equal(one.tokens, both.tokens)


def test_the_youngest_are_always_candidates() -> None:
    """Long keys in the direction of a cluster of short ones: better than the cluster that goes first."""
    rng = np.random.default_rng(5)
    first, second = 2 * np.linalg.qr(rng.standard_normal((DIM, 2)))[0].T
    noise = 0.05 * rng.standard_normal((3000, DIM))
    drawn = np.where(np.arange(3000)[:, None] % 2, first, second) + noise
    drawn[2980:] = 4 * second
    # The centre is that of the first 50, about half way between the two.
    keys = arith.to_bf16(drawn.astype(np.float32))
    query = arith.to_bf16((8 * first + 6 * second)[None].astype(np.float32))
    nothing = {"residents": np.empty((0, DIM), np.uint16), "seen": np.empty((1, 0), dtype=bool)}
    _, two = tables_of(keys, Levels(th_hd=15, limit=400))
    chosen = two.best(query, **nothing, scale=SCALE, count=20).tokens
    assert two.clusters == 2
    assert chosen.tolist() == list(range(2980, 3000))


def test_bytes_are_those_of_the_description() -> None:
    keys, limit = keys_of(6, 3000), 400
    planes = codes.planes(0, 0, 0, 64, DIM)
    flat, two = CodeTable(planes, keys[:50]), CodeTable(planes, keys[:50], Levels(15, limit))
    for first in range(0, 3000, 100):
        part = keys[first : first + 100]
        known = two.clusters
        alone, both = flat.add(part), two.add(part)
        assert alone == 100 * (2 * DIM + 10)
        opened = two.clusters - known
        entry, copy = 2 * DIM + 2, DIM // 2 + 2
        upkeep = 8 * known + 8 * opened + (100 - opened) * entry + 100 * (entry + copy) + 100 * 14
        assert both == alone + upkeep
    ranking = two.best(**asked(6), count=50)
    per_cluster = quant.nbytes(DIM, 1, 4) + 2
    older = ranking.read - two.clusters * per_cluster - limit // 4 * 10
    assert older % 14 == 0
    assert older // 14 >= limit - limit // 4


def test_a_stream_in_pieces_is_the_stream() -> None:
    keys, parts = keys_of(7, 900), asked(7)
    found = [tables_of(keys, Levels(15, 200), step)[1] for step in (1, 30, 900)]
    rankings = [table.best(**parts, count=40) for table in found]
    assert len({table.clusters for table in found}) == 1
    for ranking in rankings[1:]:
        np.testing.assert_array_equal(ranking.tokens, rankings[0].tokens)


def test_clusters_keep_to_their_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_table, "BUDGET", 12)
    flat, two = tables_of(keys_of(8, 3000), Levels(th_hd=15, limit=800))
    assert 0 < two.clusters <= code_table.budget(3000) == 12
    assert two.th_hd is not None
    assert two.th_hd > 15
    one, both = (table.best(**asked(8), count=100) for table in (flat, two))
    assert len(np.intersect1d(one.tokens, both.tokens)) > 50


def test_the_budget_grows_slower_than_the_square_root() -> None:
    assert code_table.budget(100) == code_table.budget(16_384) == 2240
    for tokens in (20_000, 40_000, 400_000, 1_000_000):
        assert 2240 < code_table.budget(tokens) < 2240 * (tokens / 16_384) ** 0.5


def test_keys_that_are_not_finite_are_counted_and_never_selected() -> None:
    keys = keys_of(9, 1500)
    keys[[600, 1400], 3], keys[1499, 0] = NAN, 0x7F80
    for table in tables_of(keys, Levels(15, 200)):
        assert table.nans == 3
        ranking = table.best(**asked(9), count=1500)
        assert not np.isin([600, 1400, 1499], ranking.tokens).any()
    assert len(tables_of(keys, Levels(15, 200))[0].best(**asked(9), count=1500).tokens) == 1497


def test_a_centre_leaves_out_keys_that_are_not_finite() -> None:
    keys, parts, planes = keys_of(11, 400), asked(11), codes.planes(0, 0, 0, 64, DIM)
    broken = keys.copy()
    broken[7, 2], broken[30, 9] = NAN, 0xFF80
    table, clean = CodeTable(planes, broken[:50]), CodeTable(planes, np.delete(keys[:50], [7, 30], axis=0))
    for one in (table, clean):
        one.add(keys)
    np.testing.assert_array_equal(table.best(**parts, count=40).tokens, clean.best(**parts, count=40).tokens)
    lost = CodeTable(planes, np.full((3, DIM), NAN, dtype=np.uint16))
    lost.add(keys)
    assert len(lost.best(**parts, count=40).tokens) == 40


def test_queries_that_are_not_finite_are_counted_and_have_no_vote() -> None:
    keys, parts = keys_of(10, 1500), asked(10)
    rest = {name: part[1:] if name in ("queries", "seen") else part for name, part in parts.items()}
    parts["queries"][0, 5] = NAN
    for table in tables_of(keys, Levels(15, 200)):
        ranking, without = table.best(**parts, count=60), table.best(**rest, count=60)
        assert (ranking.silent, without.silent) == (1, 0)
        np.testing.assert_array_equal(ranking.tokens, without.tokens)
