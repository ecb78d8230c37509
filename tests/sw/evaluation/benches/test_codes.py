"""The bench of binary codes: its streams, its exact attention, and its figures."""

import numpy as np
import pytest

from vrex.model.lib import arith
from vrex.sw.evaluation.benches import codes
from vrex.sw.evaluation.benches.codes import Source, Stream

DIM = 16
FREQUENCIES = 10_000.0 ** (-np.arange(0, DIM, 2) / DIM)


@pytest.fixture
def source() -> Source:
    rng = np.random.default_rng(1)
    kinds = rng.standard_normal((12, DIM)) * 2 + 1
    keys = kinds[rng.integers(0, 12, 600)] + 0.3 * rng.standard_normal((600, DIM))
    queries = rng.standard_normal((2, 600, DIM)) * 2
    return Source("toy", 1, 0, keys.astype(np.float32), queries.astype(np.float32), FREQUENCIES)


def test_rope_turns_pairs(source: Source) -> None:
    turned = arith.from_bf16(source.turned(source.keys[:5], 100))
    pairs = source.keys[:5, : DIM // 2] + 1j * source.keys[:5, DIM // 2 :]
    expected = pairs * np.exp(1j * (np.arange(100, 105)[:, None] * FREQUENCIES))
    np.testing.assert_allclose(turned[:, : DIM // 2], expected.real, atol=0.05)
    np.testing.assert_allclose(turned[:, DIM // 2 :], expected.imag, atol=0.05)


def test_what_turns_less_than_once_is_stretched(source: Source) -> None:
    long = source.stretched(6000)
    slow = 2 * np.pi > FREQUENCIES * 600
    assert 0 < slow.sum() < len(slow)
    np.testing.assert_allclose(long.frequencies[slow], FREQUENCIES[slow] / 10)
    np.testing.assert_array_equal(long.frequencies[~slow], FREQUENCIES[~slow])
    np.testing.assert_array_equal(source.stretched(300).frequencies, FREQUENCIES)


def test_a_stream_begins_as_the_real_one_and_keeps_its_statistics(source: Source) -> None:
    still = Source("toy", 1, 0, source.keys, source.queries, 0 * FREQUENCIES)
    first = arith.from_bf16(Stream(still, 4, mix=0).next(100))
    np.testing.assert_array_equal(first, arith.round_bf16(source.keys[4:104]))
    drawn = arith.from_bf16(Stream(still, 4, mix=0.5).next(20_000))
    np.testing.assert_allclose(drawn.mean(axis=0), source.keys[4:].mean(axis=0), atol=0.15)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(source.keys[4:].T), atol=0.4)
    assert len(np.unique(drawn, axis=0)) > 10_000


def test_exact_attention(source: Source) -> None:
    probe = codes.probes_at(source, 4, 300)[0]
    keys = Stream(source, 4).next(300)
    mass, near = codes.masses(probe, keys)
    everything = arith.from_bf16(np.concatenate([keys, probe.residents])).astype(np.float64)
    scores = arith.from_bf16(probe.queries).astype(np.float64) @ everything.T / DIM**0.5
    scores[:, 300:][~probe.seen] = -np.inf
    weights = np.exp(scores)
    shares = (weights / weights.sum(axis=1, keepdims=True)).mean(axis=0)
    np.testing.assert_allclose(mass, shares[:300], rtol=1e-3, atol=1e-7)
    assert near == pytest.approx(shares[300:].sum(), abs=1e-5)


def test_figures(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codes, "MOST", 400)
    steps: list[str] = []
    figures = codes.bench_codes([source, source], (400, 900), steps.append)
    # A model's later heads have no streams beyond MOST.
    assert [row["tokens"] for row in figures["rows"]] == [400, 900, 400]
    assert len(steps) == 3
    for row in figures["rows"]:
        flat, two = row["flat"], row["two"]
        assert flat["read_bytes"] == 10 * row["tokens"]
        # So few tokens are read on one level in either table, which then find the same.
        assert two["read_bytes"] == flat["read_bytes"]
        assert two["recall"] == flat["recall"]
        assert flat["kept_bytes"] == 11 * (2 * DIM + 10) < two["kept_bytes"]
        assert 0 <= row["resident"] <= flat["recall"] <= row["best"] <= 1
        assert 0 < row["clusters"] < row["tokens"]
    text = codes.table(figures)
    assert len(text.splitlines()) == 1 + 3
    assert codes.plot(figures).startswith(b"\x89PNG")
