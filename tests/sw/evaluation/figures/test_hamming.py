"""Cosines and distances against plain Python, and SimHash's curve against random planes."""

import math

import numpy as np

from vrex.model.dre import hashing
from vrex.model.lib import arith
from vrex.sw.evaluation.figures import hamming
from vrex.sw.retrieval.policies.resv_settings import ResvSettings

HEADS, TOKENS, DIM = 2, 12, 8


def test_pairs_equal_plain_python() -> None:
    rng = np.random.default_rng(3)
    keys = arith.round_bf16(rng.normal(size=(HEADS, TOKENS, DIM)).astype(np.float32))
    pairs = np.array([(i, j) for i in range(TOKENS) for j in range(i)])
    cosine, distance = hamming.pair_figures(keys, ResvSettings(seed=2, n_hp=40), 3, pairs)
    planes = arith.from_bf16(hashing.hyperplanes(2, 3, 0, 40, HEADS * DIM)).tolist()
    flat = [keys[:, token].ravel().tolist() for token in range(TOKENS)]

    def dot(a: list[float], b: list[float]) -> float:
        return math.fsum(x * y for x, y in zip(a, b, strict=True))

    bits = [[dot(key, plane) > 0 for plane in planes] for key in flat]
    for at, (i, j) in enumerate(pairs.tolist()):
        expected = dot(flat[i], flat[j]) / (math.hypot(*flat[i]) * math.hypot(*flat[j]))
        assert math.isclose(cosine[at], expected, rel_tol=1e-12, abs_tol=1e-12)
        assert distance[at] == sum(a != b for a, b in zip(bits[i], bits[j], strict=True))


def test_theory_is_what_random_planes_give() -> None:
    planes = np.random.default_rng(0).normal(size=(200_000, 2))
    for degrees in (0, 20, 90, 135, 180):
        angle = math.radians(degrees)
        differ = (planes[:, 0] > 0) != (planes @ [math.cos(angle), math.sin(angle)] > 0)
        expected = hamming.theory(np.array([math.cos(angle)]), 32)[0]
        # Five deviations of so many draws.
        assert abs(32 * differ.mean() - expected) < 32 * 5 * 0.5 / math.sqrt(len(planes))


def test_bins_hold_every_pair_once() -> None:
    rng = np.random.default_rng(1)
    both = np.stack([rng.uniform(-1, 1, 500), rng.integers(0, 33, 500)])
    both[0, :2] = -1, 1
    bins = hamming._bins(both, 32)
    assert sum(own["n"] for own in bins) == 500
    mean = sum(own["n"] * own["mean"] for own in bins) / 500
    assert math.isclose(mean, both[1].mean(), rel_tol=1e-12)
