"""The torch steps of ReSV against the golden model, bit by bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vrex.model.dre import hashing, hcu, mean, wtu
from vrex.model.dre.hctable import HCTable

torch = pytest.importorskip("torch")
kernels = pytest.importorskip("vrex.sw.retrieval.hf.kernels")

SCALES = (wtu.Scale(0, 0), wtu.Scale.from_float(0.125), wtu.Scale.from_float(3.0), wtu.Scale(65535, -40))


def bits_of(rng: np.random.Generator, shape: tuple[int, ...], kind: str) -> np.ndarray:
    """BF16 bits: any, ordinary values, few distinct values, or specials among ordinary ones."""
    if kind == "any":
        return rng.integers(0, 1 << 16, shape).astype(np.uint16)
    values = rng.standard_normal(shape).astype(np.float32)
    bits = (values.view(np.uint32) >> 16).astype(np.uint16)
    if kind == "level":
        bits = np.take(bits.ravel()[:3], rng.integers(0, min(3, bits.size), shape))
    if kind == "specials":
        odd = np.array([0, 0x8000, 0x7F80, 0xFF80, 0x7FC0, 0xFFFF, 1, 0x7F7F], dtype=np.uint16)
        bits = np.where(rng.random(shape) < 0.3, odd[rng.integers(0, 8, shape)], bits)
    return bits.astype(np.uint16)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 1 << 32),
    st.sampled_from(["any", "ordinary", "level", "specials"]),
    st.sampled_from(list(wtu.Transform)),
    st.sampled_from(list(wtu.Selection)),
    st.sampled_from(SCALES),
    st.integers(0, 65535),
)
def test_selection_is_the_models(
    seed: int, kind: str, transform: wtu.Transform, selection: wtu.Selection, scale: wtu.Scale, th_r: int
) -> None:
    rng = np.random.default_rng(seed)
    rows, n = int(rng.integers(1, 6)), int(rng.integers(1, 70))
    scores = bits_of(rng, (rows, n), kind)
    counts = rng.choice([0, 1, 3, 40, 65535], n)
    rule = wtu.Rule(th_r, transform, selection, int(rng.choice([2, 16, 32])), scale)
    wanted = wtu.select(scores, counts, rule)
    chosen, degenerate = kernels.select(
        kernels.bf16_from_bits(scores, torch.device("cpu")), torch.from_numpy(counts.astype(np.int64)), rule
    )
    np.testing.assert_array_equal(chosen.numpy(), wanted.rows)
    assert degenerate == wanted.degenerate


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 32), st.integers(0, 40), st.integers(1, 12))
def test_clustering_is_the_models(seed: int, th_hd: int, max_count: int) -> None:
    rng = np.random.default_rng(seed)
    table = HCTable(1, 4, 8, max_count=max_count)
    founders = torch.zeros((0, 32), dtype=torch.bool)
    counts = torch.zeros(0, dtype=torch.int64)
    pool = rng.integers(0, 2, (4, 32)).astype(bool)
    for step in range(6):
        n = int(rng.integers(1, 12))
        bits = pool[rng.integers(0, 4, n)] ^ (rng.random((n, 32)) < 0.08)
        words = hashing.pack_bits(bits, 32)
        joined = table.add(
            words,
            np.zeros((n, 4), np.uint16),
            np.arange(100 * step, 100 * step + n),
            lambda tokens, clusters: hcu.cluster(tokens, clusters, th_hd),
        )
        chosen = kernels.cluster(torch.from_numpy(bits), founders, counts, th_hd, max_count)
        np.testing.assert_array_equal(chosen.numpy(), joined)
        opens = [i for i in range(n) if joined[i] >= len(founders) and joined[i] not in joined[:i]]
        founders = torch.cat([founders, torch.from_numpy(bits[opens])])
        counts = torch.from_numpy(table.counts.copy())


@pytest.mark.parametrize("kind", ["any", "ordinary", "specials"])
def test_means_are_the_models(kind: str) -> None:
    rng = np.random.default_rng(5)
    for count in (1, 2, 3, 7, 100, 65535):
        old, key = bits_of(rng, (1, 300), kind), bits_of(rng, (1, 300), kind)
        wanted = mean.update(old, key, np.array([count]))
        cpu = torch.device("cpu")
        got = kernels.update_mean(
            kernels.bf16_from_bits(old[0], cpu), kernels.bf16_from_bits(key[0], cpu), count
        )
        np.testing.assert_array_equal(got.view(torch.int16).numpy().view(np.uint16), wanted[0])
