"""Quantised means against scalar arithmetic in Python floats, and the error that the format allows."""

import math
import struct

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vrex.model.dre import quant
from vrex.model.lib import arith

GROUPS = st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=9)


def f32(value: float) -> float:
    """Rounds a float64 to binary32; exact operations on binary32 operands may be rounded twice (2p + 2)."""
    try:
        return struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)


def value_of(bits: int) -> float:
    return struct.unpack("<f", struct.pack("<I", bits << 16))[0]


def bf16_of(value: float) -> int:
    if math.isnan(value):
        return 0x7FC0
    (bits,) = struct.unpack("<I", struct.pack("<f", f32(value)))
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16


def reference(group: list[int], bits: int) -> tuple[list[int], int, list[int]]:
    """Codes, scale and what comes back, one value at a time."""
    values, top = [value_of(x) for x in group], 2 ** (bits - 1) - 1
    if not all(map(math.isfinite, values)):
        return [0] * len(group), 0x7FC0, [0x7FC0] * len(group)
    scale = bf16_of(f32(max(map(abs, values)) * f32(1 / top)))
    step = value_of(scale)
    if step < 2.0**-126:
        return [0] * len(group), 0, [0] * len(group)
    codes = [round(f32(x * f32(1 / step))) for x in values]
    return codes, scale, [bf16_of(code * step) for code in codes]


@settings(derandomize=True, max_examples=500)
@given(group=GROUPS, bits=st.sampled_from(quant.BITS))
@example(group=[0, 0x8000], bits=8)
@example(group=[0x7F7F, 0xFF7F, 0x0001], bits=4)  # the largest numbers and the smallest
@example(group=[0x3F80, 0x7FC0], bits=8)
@example(group=[0xFF80, 0x3F80], bits=4)
@example(group=[0x40E0, 0x3F00, 0x3FC0, 0x4020, 0xBF00], bits=4)  # ties: 0.5, 1.5, 2.5 steps
@example(group=[0x0080, 0x0380], bits=4)  # next to the smallest scale
def test_equals_the_scalar_reference(group: list[int], bits: int) -> None:
    codes, scales = quant.quantise(np.array([group], dtype=np.uint16), bits)
    restored = quant.dequantise(codes, scales)
    assert np.abs(codes.astype(int)).max() <= 2 ** (bits - 1) - 1
    assert (codes.dtype, scales.dtype, restored.dtype) == (np.int8, np.uint16, np.uint16)
    assert (codes[0].tolist(), int(scales[0]), restored[0].tolist()) == reference(group, bits)


def test_ties_go_to_even() -> None:
    group = arith.to_bf16(np.array([[7.0, 0.5, 1.5, 2.5, -0.5, -1.5]]))
    codes, scales = quant.quantise(group, 4)
    assert arith.from_bf16(scales) == [1.0]
    assert codes.tolist() == [[7, 0, 2, 2, 0, -2]]


@pytest.mark.parametrize("bits", quant.BITS)
def test_groups_are_apart_and_signs_do_not_matter(bits: int) -> None:
    rng = np.random.default_rng(5)
    values = arith.to_bf16(rng.normal(size=(4, 3, 64)) * [[[1e-3], [1.0], [1e3]]])
    codes, scales = quant.quantise(values, bits)
    assert codes.shape == values.shape
    assert scales.shape == values.shape[:2]
    for i, j in np.ndindex(scales.shape):
        alone, scale = quant.quantise(values[i, j], bits)
        np.testing.assert_array_equal(codes[i, j], alone)
        assert scales[i, j] == scale
    negated, same = quant.quantise(values ^ 0x8000, bits)
    np.testing.assert_array_equal(negated, -codes)
    np.testing.assert_array_equal(same, scales)


@pytest.mark.parametrize(("bits", "top"), [(8, 127), (4, 7)])
def test_the_error_is_half_a_step_and_the_roundings(bits: int, top: int) -> None:
    seed = 6
    values = arith.to_bf16(np.random.default_rng(seed).normal(size=(500, 64)))
    codes, scales = quant.quantise(values, bits)
    assert np.abs(codes).max() == top
    step = arith.from_bf16(scales)[:, None]
    x = arith.from_bf16(values)
    error = np.abs(arith.from_bf16(quant.dequantise(codes, scales)) - x)
    # The scale may be 2^-8 short, and so the largest code; what comes back is rounded by up to 2^-8.
    bound = 0.5 * step + np.abs(x) * 2.0**-7
    print(f"seed {seed}: {bits} bits, error up to {float((error / step).max()):.3f} steps")
    assert (error <= bound).all()


def test_bytes() -> None:
    assert quant.nbytes(128, 2, 8) == 132
    assert quant.nbytes(128, 2, 4) == 68
    assert quant.nbytes(5, 1, 4) == 5


@pytest.mark.parametrize(("bits", "top"), [(8, 127), (4, 7)])
def test_the_largest_value_has_the_largest_code(bits: int, top: int) -> None:
    """Every finite BF16 number as a group of its own: a rounded scale never pushes its code past the top."""
    every = np.arange(1 << 16, dtype=np.uint16)
    codes, scales = quant.quantise(every[np.isfinite(arith.from_bf16(every))][:, None], bits)
    assert set(np.abs(codes[scales > 0].astype(int)).ravel()) == {top}


@pytest.mark.parametrize("bits", quant.BITS)
def test_packed_codes_come_back(bits: int) -> None:
    rng = np.random.default_rng(bits)
    top = 2 ** (bits - 1) - 1
    codes = rng.integers(-top, top + 1, (5, 3, 16)).astype(np.int8)
    packed = quant.pack(codes, bits)
    assert (packed.dtype, packed.shape) == (np.uint8, (5, 3, 2 * bits))
    np.testing.assert_array_equal(quant.unpack(packed, bits), codes)


def test_the_first_of_two_codes_is_in_the_lower_half() -> None:
    assert quant.pack(np.array([1, -7], dtype=np.int8), 4).tolist() == [0x91]
    assert quant.pack(np.array([1, -7], dtype=np.int8), 8).tolist() == [1, 0xF9]
