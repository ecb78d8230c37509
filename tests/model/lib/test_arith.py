import struct
from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest
from hypothesis import strategies as st

from vrex.model.lib import arith

LOWER_HALVES = (0x0000, 0x0001, 0x7FFF, 0x8000, 0x8001, 0xFFFF)
"""Exact, just above exact, and below, at and above halfway between two BF16 values."""


def reference_bf16(values: np.ndarray) -> np.ndarray:
    """ml_dtypes' rounding, with the contract's one NaN."""
    with np.errstate(all="ignore"):
        bits = values.astype(ml_dtypes.bfloat16).view(np.uint16).copy()
    bits[np.isnan(values)] = 0x7FC0
    return bits


@pytest.mark.parametrize("lower", LOWER_HALVES)
def test_to_bf16_rounds_every_upper_half_like_ml_dtypes(lower: int) -> None:
    values = ((np.arange(1 << 16, dtype=np.uint32) << 16) | lower).view(np.float32)
    np.testing.assert_array_equal(arith.to_bf16(values), reference_bf16(values))


def test_to_bf16_on_random_bit_patterns() -> None:
    values = np.random.default_rng(1).integers(0, 1 << 32, 200_000, dtype=np.uint32).view(np.float32)
    np.testing.assert_array_equal(arith.to_bf16(values), reference_bf16(values))


@pytest.mark.parametrize(
    ("fp32", "bf16"),
    [
        (0x00000000, 0x0000),
        (0x80000000, 0x8000),
        (0x3F808000, 0x3F80),  # halfway, even below
        (0x3F818000, 0x3F82),  # halfway, even above
        (0x00000001, 0x0000),  # the smallest FP32 subnormal
        (0x00008000, 0x0000),  # half of the smallest BF16 subnormal
        (0x00008001, 0x0001),
        (0x80018000, 0x8002),
        (0x007FFFFF, 0x0080),  # the largest FP32 subnormal becomes the smallest normal
        (0x7F7F7FFF, 0x7F7F),
        (0x7F7F8000, 0x7F80),  # overflow to infinity
        (0xFF7FFFFF, 0xFF80),
        (0x7F800000, 0x7F80),
        (0x7F800001, 0x7FC0),  # signalling NaN
        (0xFFFFFFFF, 0x7FC0),  # negative quiet NaN
    ],
)
def test_to_bf16_named_cases(fp32: int, bf16: int) -> None:
    assert arith.to_bf16(np.array([fp32], dtype=np.uint32).view(np.float32)) == bf16


def test_from_bf16_is_exact() -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    got = arith.from_bf16(bits)
    np.testing.assert_array_equal(got.view(np.uint32), bits.astype(np.uint32) << 16)
    numbers = ~np.isnan(got)
    np.testing.assert_array_equal(arith.to_bf16(got)[numbers], bits[numbers])
    np.testing.assert_array_equal(arith.round_bf16(got)[numbers], got[numbers])


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (2, 3, 4)])
def test_shapes_are_kept(shape: tuple[int, ...]) -> None:
    values = np.full(shape, 1.5, dtype=np.float32)
    assert arith.to_bf16(values).shape == arith.from_bf16(arith.to_bf16(values)).shape == shape


def test_to_bf16_of_a_strided_view() -> None:
    values = np.random.default_rng(2).standard_normal((6, 8)).astype(np.float32)
    np.testing.assert_array_equal(arith.to_bf16(values.T[::2]), reference_bf16(values.T[::2].copy()))


def fp32(value: float) -> float:
    """Rounds a Python float to binary32; correct after one +, - or * of binary32 operands.

    binary64 has more than 2 * 24 + 2 significant bits, so rounding twice equals rounding once.
    """
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def scalar_dot(a: list[float], b: list[float]) -> float:
    """Scheme `tree` on Python floats, one operation at a time."""
    products = [fp32(x * y) for x, y in zip(a, b, strict=True)]
    products += [0.0] * (-len(products) % 64)
    total: float | None = None
    for start in range(0, len(products), 64):
        level = products[start : start + 64]
        while len(level) > 1:
            level = [fp32(level[i] + level[i + 1]) for i in range(0, len(level), 2)]
        total = level[0] if total is None else fp32(total + level[0])
    return 0.0 if total is None else total


def floats(bits: np.ndarray) -> list[float]:
    """One row of BF16 bits as Python floats."""
    return [struct.unpack("<f", struct.pack("<I", int(b) << 16))[0] for b in bits]


def bits_of(values: np.ndarray) -> np.ndarray:
    """FP32 bits with one NaN, so that signed zeros are told apart and NaN payloads are not."""
    bits = values.astype(np.float32).view(np.uint32).copy()
    bits[np.isnan(values)] = 0x7FC00000
    return bits


def finite(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return arith.to_bf16(rng.standard_normal(shape).astype(np.float32))


def wide(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Any BF16 bits: products overflow, underflow and are NaN."""
    return rng.integers(0, 1 << 16, shape, dtype=np.uint16)


def tiny(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Products around and below the smallest FP32 subnormal."""
    return (rng.integers(0, 2, shape) << 15 | rng.integers(0x1A00, 0x2200, shape)).astype(np.uint16)


def sparse(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Signed zeros, ones and infinities."""
    return rng.choice(
        np.array([0, 0x8000, 0x3F80, 0xBF80, 0x7F80], dtype=np.uint16), shape, p=[0.6, 0.2, 0.1, 0.08, 0.02]
    )


@pytest.mark.parametrize("kind", [finite, wide, tiny, sparse])
@pytest.mark.parametrize("terms", [0, 1, 2, 63, 64, 65, 100, 128, 200])
def test_dot_tree_equals_scalar_tree(kind: Callable[..., np.ndarray], terms: int) -> None:
    rng = np.random.default_rng(terms)
    a, b = kind(rng, (3, terms)), kind(rng, (4, terms))
    expected = np.array([[scalar_dot(floats(x), floats(y)) for y in b] for x in a])
    np.testing.assert_array_equal(bits_of(arith.dot_tree(a, b)), bits_of(expected))


def test_subnormal_products_are_kept() -> None:
    """2^-70 * 2^-70 underflows binary32 normals but not its subnormals."""
    small = np.full((1, 64), 127 - 70 << 7, dtype=np.uint16)
    assert arith.dot_tree(small, small)[0, 0] == 64 * 2.0**-140


def test_padding_adds_positive_zero() -> None:
    """-0 products of a full chunk sum to -0; a padded chunk gives +0."""
    minus, one = np.full((1, 64), 0x8000, dtype=np.uint16), np.full((1, 64), 0x3F80, dtype=np.uint16)
    assert np.signbit(arith.dot_tree(minus, one)[0, 0])
    assert not np.signbit(arith.dot_tree(minus[:, :63], one[:, :63])[0, 0])


def test_special_values_propagate() -> None:
    inf, zero, one = 0x7F80, 0x0000, 0x3F80
    a = np.array([[inf, one], [inf, inf], [inf, zero], [0x7FC0, zero]], dtype=np.uint16)
    b = np.array([[one, one], [0xBF80, one], [zero, one]], dtype=np.uint16)
    expected = np.array(
        [[np.inf, -np.inf, np.nan], [np.inf, np.nan, np.nan], [np.inf, -np.inf, np.nan], [np.nan] * 3]
    )
    np.testing.assert_array_equal(arith.dot_tree(a, b), expected)


@pytest.mark.parametrize("block", [1, 64, 1 << 12])
def test_dot_tree_does_not_depend_on_the_blocking(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    rng = np.random.default_rng(7)
    a, b = finite(rng, (5, 130)), finite(rng, (37, 130))
    whole = arith.dot_tree(a, b)
    monkeypatch.setattr(arith, "_BLOCK_TERMS", block)
    np.testing.assert_array_equal(arith.dot_tree(a, b), whole)
    np.testing.assert_array_equal(arith.dot_tree(a[2:3], b[9:10]), whole[2:3, 9:10])


@pytest.mark.parametrize("terms", [64, 128, 1024])
def test_dot_tree_error_bound_against_float64(terms: int) -> None:
    """Every rounding of the tree and of the accumulation costs at most 2^-24 of sum|p|."""
    rng = np.random.default_rng(terms)
    a, b = finite(rng, (16, terms)), finite(rng, (32, terms))
    left, right = arith.from_bf16(a).astype(np.float64), arith.from_bf16(b).astype(np.float64)
    roundings = 6 + terms // 64 - 1
    bound = np.abs(left) @ np.abs(right).T * roundings * 2.0**-24
    assert (np.abs(arith.dot_tree(a, b) - left @ right.T) <= bound * (1 + 1e-6)).all()


def test_dot_tree_on_random_lengths(prove: Callable[..., None]) -> None:
    def check(seed: int, terms: int, kind: Callable[..., np.ndarray]) -> None:
        rng = np.random.default_rng(seed)
        a, b = kind(rng, (1, terms)), kind(rng, (1, terms))
        expected = np.array([[scalar_dot(floats(a[0]), floats(b[0]))]])
        np.testing.assert_array_equal(bits_of(arith.dot_tree(a, b)), bits_of(expected))

    kinds = st.sampled_from([finite, wide, tiny, sparse])
    prove(check, seed=st.integers(0, 1 << 32), terms=st.integers(1, 300), kind=kinds)
