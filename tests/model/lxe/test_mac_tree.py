"""Scheme `fused` against integers without bounds, and against IEEE where the two must agree."""

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrex.model.config import CHUNK
from vrex.model.lib import arith
from vrex.model.lxe import mac_tree

SEED = 7


def value(bits: int) -> Fraction:
    """A finite BF16 number."""
    return Fraction(float(arith.from_bf16(np.array(bits))))


def exponent(bits: int) -> int:
    return max(bits >> 7 & 0xFF, 1) - 127


def reference(a: list[int], b: list[int], fraction_bits: int) -> np.float32:
    """The definition, term by term, for finite operands."""
    products = [(value(x) * value(y), exponent(x) + exponent(y)) for x, y in zip(a, b, strict=True)]
    top = max((at for product, at in products if product), default=0)
    unit = Fraction(2) ** (top - fraction_bits)
    total = sum((abs(product) // unit) * (1 if product > 0 else -1) for product, _ in products)
    if total == 0:
        return np.float32(0)
    return nearest(total * unit)


def nearest(exact: Fraction) -> np.float32:
    """FP32 of a rational number that is not zero, ties to even, by comparing neighbours."""
    with np.errstate(over="ignore"):
        guess = np.float32(float(exact))
        near = [np.nextafter(guess, np.float32(to)) for to in (-np.inf, np.inf)]
    candidates = [x for x in (near[0], guess, near[1]) if np.isfinite(x)]
    best = min(abs(Fraction(float(x)) - exact) for x in candidates)
    if best >= Fraction(2) ** 103 and abs(exact) > Fraction(float(np.finfo(np.float32).max)):
        return np.copysign(np.float32(np.inf), np.float32(1 if exact > 0 else -1))
    nearest_ones = [x for x in candidates if abs(Fraction(float(x)) - exact) == best]
    result = next((x for x in nearest_ones if not int(x.view(np.uint32)) & 1), nearest_ones[0])
    return np.copysign(result, np.float32(1 if exact > 0 else -1))


finite = st.integers(0, 0xFFFF).filter(lambda bits: bits & 0x7F80 != 0x7F80)
near_one = st.builds(
    lambda sign, at, low: sign << 15 | at << 7 | low,
    st.integers(0, 1),
    st.integers(110, 140),
    st.integers(0, 127),
)
tiny = st.builds(lambda sign, low: sign << 15 | low, st.integers(0, 1), st.integers(0, 0x200))


@pytest.mark.parametrize("fraction_bits", [18, 20, 26, 32, 40])
@given(data=st.data())
def test_a_chunk_is_its_definition(data: st.DataObject, fraction_bits: int) -> None:
    kind = data.draw(st.sampled_from([finite, near_one, tiny, st.one_of(finite, tiny, near_one)]))
    n = data.draw(st.integers(1, 8))
    a, b = (data.draw(st.lists(kind, min_size=n, max_size=n)) for _ in range(2))
    expected = reference(a, b, fraction_bits)
    padded = [np.array(x + [0] * (CHUNK - n), dtype=np.uint16) for x in (a, b)]
    got = mac_tree.chunk_fused(padded[0], padded[1], fraction_bits)
    assert got.view(np.uint32) == expected.view(np.uint32), (a, b, got, expected)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([0x7F80], [0x3F80], 0x7F800000),
        ([0x7F80], [0xBF80], 0xFF800000),
        ([0x7F80], [0x0000], 0x7FC00000),
        ([0x7F80, 0xFF80], [0x3F80, 0x3F80], 0x7FC00000),
        ([0x7F80, 0x7FC1], [0x3F80, 0x0000], 0x7FC00000),
        ([0xFFC0], [0x3F80], 0x7FC00000),
        ([0x8000], [0x3F80], 0),
        ([0x3F80, 0xBF80], [0x3F80, 0x3F80], 0),
        ([0x7F7F], [0x7F7F], 0x7F800000),
        ([0x0001], [0x8001], 0x80000000),
    ],
)  # fmt: skip
def test_special_values(a: list[int], b: list[int], expected: int) -> None:
    left, right = (np.array([x + [0] * (CHUNK - len(x))], dtype=np.uint16) for x in (a, b))
    assert mac_tree.dot_fused(left, right).view(np.uint32)[0, 0] == expected


@pytest.mark.parametrize("terms", [1, 63, 64, 65, 200])
def test_dots_are_chunks_added_in_fp32(terms: int) -> None:
    rng = np.random.default_rng(SEED)
    a, b = (arith.to_bf16(rng.standard_normal((n, terms)).astype(np.float32)) for n in (3, 5))
    for i, row in enumerate(a):
        for j, column in enumerate(b):
            total: np.float32 | None = None
            for at in range(0, terms, CHUNK):
                part = reference(row[at : at + CHUNK].tolist(), column[at : at + CHUNK].tolist(), 26)
                total = part if total is None else np.float32(total + part)
            assert mac_tree.dot_fused(a, b, 26)[i, j] == total


def test_infinities_of_both_signs_in_two_chunks_are_the_contracts_nan() -> None:
    a = np.zeros((1, 2 * CHUNK), dtype=np.uint16)
    a[0, 0], a[0, CHUNK] = 0x7F80, 0xFF80
    ones = np.full((1, 2 * CHUNK), 0x3F80, dtype=np.uint16)
    assert mac_tree.dot_fused(a, ones).view(np.uint32)[0, 0] == 0x7FC00000


def test_wide_alignment_is_the_correctly_rounded_sum() -> None:
    rng = np.random.default_rng(SEED)
    a, b = (arith.to_bf16(rng.standard_normal((CHUNK, 1000)).astype(np.float32)) for _ in range(2))
    exact = (arith.from_bf16(a).astype(np.float64) * arith.from_bf16(b)).sum(axis=0)
    np.testing.assert_array_equal(mac_tree.chunk_fused(a, b, 40), exact.astype(np.float32))


def test_no_terms_give_zero() -> None:
    empty = np.zeros((2, 0), dtype=np.uint16)
    np.testing.assert_array_equal(mac_tree.dot_fused(empty, empty), np.zeros((2, 2), dtype=np.float32))


def any_bits(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.integers(0, 1 << 16, shape, dtype=np.uint16)


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return arith.to_bf16(rng.standard_normal(shape).astype(np.float32))


def near_subnormal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Products around and below the smallest FP32 subnormal, subnormal operands among them."""
    low = rng.choice(np.array([0x0000, 0x1A00]), shape)
    return (rng.integers(0, 2, shape) << 15 | rng.integers(0, 0x800, shape) + low).astype(np.uint16)


def cancelling(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Few values of both signs, so that sums are often zero, halfway or far below their terms."""
    values = np.array([0, 0x8000, 0x3F80, 0xBF80, 0x3B80, 0xBB80, 0x4780, 0xC780], dtype=np.uint16)
    return rng.choice(values, shape)


KINDS = [any_bits, normal, near_subnormal, cancelling]


def patterns(values: np.ndarray) -> np.ndarray:
    """BF16 bits of float32 values."""
    with np.errstate(all="ignore"):
        return arith.to_bf16(values)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("terms", [0, 1, 63, 64, 65, 128, 200])
def test_decided_early_is_decided_right(kind: Callable[..., np.ndarray], terms: int) -> None:
    rng = np.random.default_rng(terms)
    a, b = kind(rng, (40, terms)), kind(rng, (500, terms))
    whole = mac_tree.dot_fused(a, b)
    np.testing.assert_array_equal(mac_tree.dot_bf16(a, b), patterns(whole))
    np.testing.assert_array_equal(mac_tree.positive(a, b), whole > 0)


def test_decided_early_at_the_boundaries() -> None:
    """Sums halfway between two BF16 values, sums that cancel, and terms that the alignment cuts off."""
    one, half_step, small = 0x3F80, 127 - 8 << 7, 127 - 27 << 7
    rows = np.array(
        [
            [one, half_step, 0],
            [one, half_step | 0x8000, 0],
            [one, one | 0x8000, 0],
            [one, half_step, small],
            [one, one | 0x8000, small],
            [0x8000, 0, 0],
        ],
        dtype=np.uint16,
    )
    ones = np.full((1, 3), one, dtype=np.uint16)
    expected = mac_tree.dot_fused(rows, ones)
    # 2^-27 is below a unit of the alignment: it neither breaks the tie nor makes the sum positive.
    np.testing.assert_array_equal(patterns(expected)[:, 0], [0x3F80, 0x3F7F, 0, 0x3F80, 0, 0])
    np.testing.assert_array_equal(mac_tree.dot_bf16(rows, ones), patterns(expected))
    np.testing.assert_array_equal(mac_tree.positive(rows, ones)[:, 0], [1, 1, 0, 1, 0, 0])


@given(seed=st.integers(0, 1 << 32), terms=st.integers(1, 300), kind=st.sampled_from(KINDS))
def test_decided_early_on_random_lengths(seed: int, terms: int, kind: Callable[..., np.ndarray]) -> None:
    rng = np.random.default_rng(seed)
    a, b = kind(rng, (2, terms)), kind(rng, (3, terms))
    whole = mac_tree.dot_fused(a, b)
    np.testing.assert_array_equal(mac_tree.dot_bf16(a, b), patterns(whole))
    np.testing.assert_array_equal(mac_tree.positive(a, b), whole > 0)


@pytest.mark.parametrize("block", [1, 64, 1 << 20])
def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    rng = np.random.default_rng(SEED)
    a, b = normal(rng, (5, 130)), normal(rng, (37, 130))
    whole = mac_tree.dot_bf16(a, b)
    monkeypatch.setattr(mac_tree, "_BLOCK_RESULTS", block)
    np.testing.assert_array_equal(mac_tree.dot_bf16(a, b), whole)
