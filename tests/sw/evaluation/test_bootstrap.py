"""Intervals against direct computations."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrex.sw.evaluation.bootstrap import RESAMPLES, paired_blocks, paired_bootstrap, wilson

SEED = 31


def answers(n: int, share: float, seed: int) -> np.ndarray:
    return np.random.default_rng([SEED, seed]).random(n) < share


def binomial_quantile(n: int, p: float, tail: float) -> int:
    """The smallest k with P[X <= k] >= tail, from the definition."""
    total = 0.0
    for k in range(n + 1):
        total += math.comb(n, k) * p**k * (1 - p) ** (n - k)
        if total >= tail:
            return k
    return n


@pytest.mark.parametrize(("n", "right"), [(40, 30), (200, 188), (97, 3)])
def test_against_a_second_policy_that_is_never_right_it_is_binomial(n: int, right: int) -> None:
    first = np.arange(n) < right
    low, high = paired_bootstrap(first, np.zeros(n, dtype=bool))
    exact = [binomial_quantile(n, right / n, tail) / n for tail in (0.025, 0.975)]
    assert [low, high] == pytest.approx(exact, abs=1.01 / n)


def test_it_equals_resampling_pairs_one_by_one() -> None:
    first, second = answers(120, 0.8, 1), answers(120, 0.9, 2)
    rng = np.random.default_rng([SEED, 3])
    chosen = rng.integers(120, size=(RESAMPLES, 120))
    means = (first[chosen].astype(float) - second[chosen]).mean(axis=1)
    direct = np.quantile(means, [0.025, 0.975])
    assert paired_bootstrap(first, second) == pytest.approx(tuple(direct), abs=0.009)


def test_pairs_count_and_not_only_the_means() -> None:
    """Two policies that err on the same questions differ less surely than two that err on others."""
    first = np.arange(100) < 90
    same, other = np.arange(100) < 88, np.arange(100) >= 12
    narrow, wide = paired_bootstrap(first, same), paired_bootstrap(first, other)
    assert narrow[1] - narrow[0] < 0.5 * (wide[1] - wide[0])


def test_no_disagreement_gives_no_difference() -> None:
    first = answers(50, 0.7, 4)
    assert paired_bootstrap(first, first) == (0.0, 0.0)


def test_the_same_seed_gives_the_same_interval() -> None:
    first, second = answers(60, 0.5, 5), answers(60, 0.6, 6)
    assert paired_bootstrap(first, second, seed=7) == paired_bootstrap(first, second, seed=7)


@given(st.integers(1, 400), st.data())
def test_wilson_solves_its_equation(n: int, data: st.DataObject) -> None:
    """Its ends are where the share lies 1.96 standard errors away, by the ends' own standard errors."""
    right = data.draw(st.integers(0, n))
    low, high = wilson(right, n)
    assert 0 <= low <= right / n <= high <= 1
    for end in (low, high):
        if 1e-9 < end < 1 - 1e-9:
            assert abs(end - right / n) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / n), rel=1e-4)


def test_wilson_does_not_shrink_to_a_point() -> None:
    low, high = wilson(200, 200)
    assert high == pytest.approx(1.0)
    assert low == pytest.approx(0.981, abs=0.001)


@given(st.lists(st.integers(0, 9), min_size=2, max_size=30).filter(any), st.floats(-2, 2))
def test_a_difference_that_all_items_share_has_no_width(counts: list[int], each: float) -> None:
    second = np.random.default_rng(0).normal(size=len(counts))
    low, high = paired_blocks(second + each * np.array(counts), second, np.array(counts), resamples=50)
    assert low == pytest.approx(each, abs=1e-9)
    assert high == pytest.approx(each, abs=1e-9)


def test_blocks_are_drawn_with_their_counts() -> None:
    """Against resamples drawn one index at a time."""
    rng = np.random.default_rng(3)
    counts = rng.integers(0, 60, 40)
    first, second = rng.normal(size=(2, 40)) * counts
    kept = np.flatnonzero(counts)
    means = []
    for _ in range(4000):
        drawn = rng.choice(kept, len(kept))
        means.append((first[drawn] - second[drawn]).sum() / counts[drawn].sum())
    low, high = paired_blocks(first, second, counts, resamples=4000)
    expected = np.quantile(means, [0.025, 0.975])
    np.testing.assert_allclose([low, high], expected, atol=0.06 * (expected[1] - expected[0]))
