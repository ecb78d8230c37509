"""Binary codes against float64 and against integers that know no widths."""

import math
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import ArrayLike

from vrex.model.dre import codes
from vrex.model.dre.wtu import EXP_TABLE, Scale
from vrex.model.lib import arith

SEEDS = [1, 2, 3]
NAN = 0x7FC0


def bf16(values: ArrayLike) -> np.ndarray:
    return arith.to_bf16(np.asarray(values, dtype=np.float32))


def real(bits: np.ndarray) -> np.ndarray:
    return arith.from_bf16(bits).astype(np.float64)


def keys_of(seed: int, count: int = 300, dim: int = 64) -> np.ndarray:
    """Keys with a common offset and a few large channels, as real ones have."""
    rng = np.random.default_rng(seed)
    spread = np.where(np.arange(dim) % 16 == 3, 4.0, 1.0)
    return bf16(3 * rng.standard_normal(dim) + spread * rng.standard_normal((count, dim)))


@pytest.mark.parametrize(("bits", "dim"), [(32, 64), (64, 64), (128, 64), (64, 128), (64, 16), (64, 96)])
def test_planes_are_signs_and_orthogonal(bits: int, dim: int) -> None:
    rows = real(codes.planes(1, 2, 3, bits, dim))
    assert rows.shape == (bits, dim)
    assert (np.abs(rows) == 1).all()
    if dim & (dim - 1) == 0:
        for first in range(0, bits, dim):
            block = rows[first : first + dim]
            np.testing.assert_array_equal(block @ block.T, dim * np.eye(len(block)))
    wider = real(codes.planes(1, 2, 3, 128, dim))
    np.testing.assert_array_equal(rows, wider[:bits])
    for other in ((0, 2, 3), (1, 0, 3), (1, 2, 0)):
        assert (rows != real(codes.planes(*other, bits, dim))).any()


@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 1000])
def test_the_centre_is_the_mean(count: int) -> None:
    keys = keys_of(5, count)
    exact = real(keys).mean(axis=0)
    assert np.abs(real(codes.centre(keys)) - exact).max() <= 2.0**-8 * np.abs(exact).max()
    if count == 1:
        np.testing.assert_array_equal(codes.centre(keys), keys[0])


@pytest.mark.parametrize("seed", SEEDS)
def test_a_code_is_signs_and_the_unbiased_scale(seed: int) -> None:
    keys = keys_of(seed)
    x = codes.centred(keys, codes.centre(keys))
    rows = codes.planes(seed, 0, 0, 64, 64)
    coded = codes.encode(x, rows)
    rotated = real(x) @ real(rows).T
    bits = np.unpackbits(coded.words.astype("<u4").view(np.uint8), axis=1, bitorder="little")
    clear = np.abs(rotated) > 1e-5
    np.testing.assert_array_equal(bits[clear], (rotated > 0)[clear])
    scales = (real(x) ** 2).sum(axis=1) / np.abs(rotated).sum(axis=1)
    np.testing.assert_allclose(real(coded.scales), scales, rtol=2.0**-8)
    # What the scale is for: the reconstruction has the key's own length along the key.
    rebuilt = real(coded.scales)[:, None] * (np.where(bits, 1.0, -1.0) @ real(rows))
    along = (rebuilt * real(x)).sum(axis=1) / (real(x) ** 2).sum(axis=1)
    np.testing.assert_allclose(along, 1, rtol=2.0**-7)


@pytest.mark.parametrize("seed", SEEDS)
def test_scores_are_the_formula(seed: int) -> None:
    """Term by term in fractions: quantised components, integer sum, two FP32 products, BF16."""
    keys = keys_of(seed, 20)
    rows = codes.planes(seed, 0, 0, 64, 64)
    coded = codes.encode(codes.centred(keys, codes.centre(keys)), rows)
    queries = bf16(np.random.default_rng(seed).standard_normal((5, 64)))
    got = codes.score(*codes.rotate(queries, rows), coded)
    for r, query in enumerate(real(queries)):
        rotated = real(bf16(real(rows) @ query))
        scale = float(real(bf16(np.float32(np.abs(rotated).max()) * (np.float32(1) / np.float32(127)))))
        reciprocal = float(np.float32(1) / np.float32(scale))
        components = [round(float(np.float32(value * reciprocal))) for value in rotated]
        for t in range(len(keys)):
            word = int(coded.words[t, 0]) | int(coded.words[t, 1]) << 32
            total = sum(c if word >> i & 1 else -c for i, c in enumerate(components))
            inner = Fraction(scale) * total
            product = np.float32(float(Fraction(float(real(coded.scales)[t])) * inner))
            assert got[r, t] == bf16(product), (r, t)


@pytest.mark.parametrize("seed", SEEDS)
def test_scores_estimate_the_exact_ones(seed: int) -> None:
    keys = keys_of(seed, 400)
    x = codes.centred(keys, codes.centre(keys))
    queries = bf16(np.random.default_rng(seed).standard_normal((20, 64)))
    exact = real(queries) @ real(x).T
    found = {}
    for bits in (32, 64, 128):
        rows = codes.planes(seed, 0, 0, bits, 64)
        estimate = real(codes.score(*codes.rotate(queries, rows), codes.encode(x, rows)))
        # Scores of fewer rows than the key has components need the part of the query that they see.
        found[bits] = np.corrcoef(estimate.ravel(), exact.ravel())[0, 1]
    assert found[32] < found[64] < found[128]
    assert found[64] > 0.75


def weight(distance: float) -> int:
    """2^-distance in units of 2^-15 as the WTU's table has it."""
    x = int(distance * 64)
    return 0 if x >= 1024 else int(EXP_TABLE[x % 64]) >> x // 64


def test_votes_are_shares_of_rows() -> None:
    """Scores that the fixed point holds exactly, so that the WTU's steps can be written down."""
    residents = bf16(np.array([[8.0, 2.0], [4.0, 4.0]]))
    residents[1, 1] = NAN
    scores = bf16(np.array([[6.0, 8.0, 0.0, -8.0], [4.0, 5.0, 6.0, 6.0]]))
    got = codes.vote(residents, scores, Scale.from_float(math.log(2)))
    expected = np.zeros(4, dtype=np.int64)
    for seen, row in [([8.0, 2.0], [6.0, 8.0, 0.0, -8.0]), ([4.0], [4.0, 5.0, 6.0, 6.0])]:
        top = max(seen + row)
        total = sum(weight(top - score) for score in seen + row)
        expected += [weight(top - score) * (2**40 // total) >> 16 for score in row]
    assert got.tolist() == expected.tolist()
    assert 0 < got.sum() < 2 << 24


def test_what_is_not_finite_has_no_vote() -> None:
    keys = keys_of(1, 6)
    keys[2, 5], keys[4, 0] = NAN, 0x7F80
    mean = codes.centre(keys_of(1, 6))
    rows = codes.planes(0, 0, 0, 64, 64)
    coded = codes.encode(codes.centred(keys, mean), rows)
    assert [int(s) == NAN for s in coded.scales] == [False, False, True, False, True, False]
    queries = bf16(np.ones((3, 64)))
    votes = codes.vote(
        np.empty((3, 0), np.uint16), codes.score(*codes.rotate(queries, rows), coded), Scale.from_float(0.1)
    )
    assert (votes == codes.NO_VOTE).tolist() == [False, False, True, False, True, False]
    assert codes.select(votes, 6).tolist() == [0, 1, 3, 5]
    queries[:] = NAN
    votes = codes.vote(
        np.empty((3, 0), np.uint16), codes.score(*codes.rotate(queries, rows), coded), Scale.from_float(0.1)
    )
    assert codes.select(votes, 6).tolist() == []


def test_a_key_at_the_centre_has_scale_zero() -> None:
    coded = codes.encode(np.array([[0, 0x8000] * 32], dtype=np.uint16), codes.planes(0, 0, 0, 64, 64))
    assert coded.scales.tolist() == [0]
    assert coded.words.tolist() == [[0, 0]]


def test_ties_go_to_the_lower_token() -> None:
    assert codes.select(np.array([5, 7, 5, 7, 0]), 3).tolist() == [0, 1, 3]
    assert codes.select(np.array([0, 0, 0]), 2).tolist() == [0, 1]
    assert codes.select(np.array([1]), 9).tolist() == [0]


def test_no_planes_are_refused() -> None:
    with pytest.raises(ValueError, match="there are no planes"):
        codes.rotate(keys_of(1, 5), codes.planes(0, 0, 0, 64, 64)[:0])


@pytest.mark.parametrize(("coded", "asked"), [(64, 128), (64, 32), (128, 64)])
def test_codes_of_other_planes_are_refused(coded: int, asked: int) -> None:
    keys = keys_of(1, 5)
    found = codes.encode(keys, codes.planes(0, 0, 0, coded, 64))
    rows = codes.planes(0, 0, 0, 128, 64)[:asked]
    with pytest.raises(ValueError, match=f"do not belong to {asked} planes"):
        codes.score(*codes.rotate(keys, rows), found)


def test_no_codes_have_no_scores_and_no_votes() -> None:
    rows = codes.planes(0, 0, 0, 64, 64)
    found = codes.encode(np.empty((0, 64), np.uint16), rows)
    scores = codes.score(*codes.rotate(keys_of(1, 3), rows), found)
    assert scores.shape == (3, 0)
    votes = codes.vote(keys_of(1, 3), scores, Scale.from_float(0.125))
    assert codes.select(votes, 8).tolist() == []
