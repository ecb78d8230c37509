"""The first level of binary codes against integers that know no widths."""

import math

import numpy as np
import pytest

from vrex.model.config import MAX_COUNT
from vrex.model.dre import codes, levels
from vrex.model.dre.wtu import EXP_TABLE, Scale
from vrex.model.lib import arith

NAN = 0x7FC0


def bf16(values: object) -> np.ndarray:
    return arith.to_bf16(np.asarray(values, dtype=np.float32))


def weight(distance: float) -> int:
    """2^-distance in units of 2^-15 as the WTU's table has it."""
    x = int(distance * 64)
    return 0 if x >= 1024 else int(EXP_TABLE[x % 64]) >> x // 64


def test_a_cluster_weighs_as_many_as_it_has() -> None:
    """Scores that the fixed point holds exactly, so that the WTU's steps can be written down."""
    residents = bf16([[8.0, 2.0], [4.0, 4.0]])
    residents[1, 1] = NAN
    scores = bf16([[6.0, 8.0, 0.0], [4.0, 5.0, 6.0]])
    counts = np.array([1, 7, 300])
    got = levels.vote_clusters(residents, scores, counts, Scale.from_float(math.log(2)))
    expected = np.zeros(3, dtype=np.int64)
    for seen, row in [([8.0, 2.0], [6.0, 8.0, 0.0]), ([4.0], [4.0, 5.0, 6.0])]:
        top = max(seen + row)
        total = sum(weight(top - score) for score in seen)
        total += sum(n * weight(top - score) for n, score in zip(counts.tolist(), row, strict=True))
        expected += [weight(top - score) * (2**40 // total) >> 16 for score in row]
    assert got.tolist() == expected.tolist()
    assert (got * counts).sum() < 2 << 24


def test_clusters_of_one_are_tokens() -> None:
    rng = np.random.default_rng(1)
    residents, scores = bf16(3 * rng.standard_normal((5, 9))), bf16(3 * rng.standard_normal((5, 40)))
    scale = Scale.from_float(0.3)
    alone = levels.vote_clusters(residents, scores, np.ones(40, dtype=np.int64), scale)
    np.testing.assert_array_equal(alone, codes.vote(residents, scores, scale))
    assert len(set(alone.tolist())) > 20


def test_what_is_nan_has_no_vote_and_is_no_candidate() -> None:
    scores = bf16([[1.0, 2.0, 3.0]] * 2)
    scores[:, 1] = NAN
    votes = levels.vote_clusters(
        np.empty((2, 0), np.uint16), scores, np.array([1, 5, 2]), Scale.from_float(0.3)
    )
    assert (votes == codes.NO_VOTE).tolist() == [False, True, False]
    assert levels.candidates(votes, np.array([1, 5, 2]), 100).tolist() == [0, 2]


@pytest.mark.parametrize(
    ("limit", "expected"), [(1, [3]), (5, [3]), (6, [1, 3]), (8, [1, 3]), (9, [0, 1, 3]), (99, [0, 1, 2, 3])]
)
def test_candidates_reach_the_limit(limit: int, expected: list[int]) -> None:
    """By votes 3, 1, 0, 2; of equal votes the lower cluster first."""
    votes, counts = np.array([4, 6, 4, 9]), np.array([2, 3, 50, 5])
    assert levels.candidates(votes, counts, limit).tolist() == expected


@pytest.mark.parametrize("th_hd", [1, 9, 14, 30])
def test_coarse_clusters_are_the_rule_written_down(th_hd: int) -> None:
    rng = np.random.default_rng(th_hd)
    hashes = rng.integers(0, 1 << 32, (60, 1), dtype=np.uint32) & rng.integers(
        0, 1 << 32, (60, 1), dtype=np.uint32
    )
    means, counts = bf16(rng.standard_normal((60, 8))), rng.integers(1, 400, 60)
    got = levels.coarsen(hashes, means, counts, th_hd)
    founders: list[int] = []
    members: list[list[int]] = []
    for i, word in enumerate(hashes[:, 0].tolist()):
        distances = [(word ^ int(hashes[f, 0])).bit_count() for f in founders]
        if founders and min(distances) < th_hd:
            members[distances.index(min(distances))].append(i)
        else:
            founders.append(i)
            members.append([i])
    for cluster, own in enumerate(members):
        assert (got.owners[own] == cluster).all()
        assert got.counts[cluster] == counts[own].sum()
        assert got.hashes[cluster] == hashes[own[0]]
        exact = (arith.from_bf16(means[own]) * counts[own, None]).sum(axis=0) / counts[own].sum()
        # A running mean: each member's step is rounded to BF16.
        bound = len(own) * 2.0**-8 * np.abs(arith.from_bf16(means[own])).max()
        np.testing.assert_allclose(arith.from_bf16(got.means[cluster]), exact, atol=bound)
    assert len(got.counts) == len(members) < 60 or th_hd == 1


def test_one_step_of_a_coarse_mean() -> None:
    """3 tokens of mean 1.0 and one of 2.0: 1 + 1 * fp32(1 / 4)."""
    got = levels.coarsen(
        np.zeros((2, 1), np.uint32), bf16([[1.0, -2.0], [2.0, 6.0]]), np.array([3, 1]), th_hd=1
    )
    assert arith.from_bf16(got.means).tolist() == [[1.25, 0.0]]


def test_a_cluster_does_not_outgrow_its_count() -> None:
    hashes, means = np.zeros((3, 1), np.uint32), bf16(np.ones((3, 4)))
    got = levels.coarsen(hashes, means, np.array([MAX_COUNT - 5, 6, 5]), th_hd=9)
    assert got.owners.tolist() == [0, 1, 0]
    assert got.counts.tolist() == [MAX_COUNT, 6]
