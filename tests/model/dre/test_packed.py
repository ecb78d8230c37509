"""Packed keys and values, byte by byte."""

import numpy as np
import pytest

from vrex.model.dre import packed, quant
from vrex.model.lib import arith


def vectors_of(seed: int, n: int, count: int, dim: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    spread = 2.0 ** rng.integers(-6, 6, (n, count, dim))
    return arith.to_bf16((spread * rng.standard_normal((n, count, dim))).astype(np.float32))


@pytest.mark.parametrize(
    ("dim", "group"), [(64, 32), (128, 32), (96, 32), (80, 20), (48, 24), (24, 24), (10, 10), (2, 2), (62, 2)]
)
def test_a_group_divides_a_key(dim: int, group: int) -> None:
    assert packed.group_of(dim) == group
    assert packed.nbytes(2, dim) == dim + 2 * 2 * dim // group


def test_an_odd_key_has_no_groups() -> None:
    with pytest.raises(ValueError, match="a key of 7 dimensions"):
        packed.group_of(7)


@pytest.mark.parametrize(("count", "dim"), [(2, 64), (4, 64), (2, 128), (6, 10), (2, 80)])
def test_every_byte(count: int, dim: int) -> None:
    """Codes in order, the first of two in the lower half, then the scales, low byte first."""
    vectors = vectors_of(dim, 5, count, dim)
    records = packed.pack(vectors)
    assert records.dtype == np.uint8
    assert records.shape == (5, packed.nbytes(count, dim))
    group = packed.group_of(dim)
    for token, record in zip(vectors, records.tolist(), strict=True):
        codes: list[int] = []
        scales: list[int] = []
        for vector in token:
            for first in range(0, dim, group):
                found, scale = quant.quantise(vector[None, first : first + group], 4)
                codes += [int(code) & 15 for code in found[0]]
                scales += [int(scale[0]) & 255, int(scale[0]) >> 8]
        assert record == [codes[i] | codes[i + 1] << 4 for i in range(0, len(codes), 2)] + scales


@pytest.mark.parametrize(("count", "dim"), [(2, 64), (4, 128), (6, 10)])
def test_unpacking_gives_codes_times_scales(count: int, dim: int) -> None:
    vectors = vectors_of(3, 7, count, dim)
    group = packed.group_of(dim)
    restored = packed.unpack(packed.pack(vectors), count, dim)
    expected = quant.dequantise(*quant.quantise(vectors.reshape(7, -1, group), 4)).reshape(vectors.shape)
    np.testing.assert_array_equal(restored, expected)
    error = np.abs(arith.from_bf16(restored) - arith.from_bf16(vectors)).reshape(7, -1, group)
    largest = np.abs(arith.from_bf16(vectors)).reshape(7, -1, group).max(axis=2, keepdims=True)
    # Half a step, an ulp of the scale and one of the product.
    assert (error <= largest * (1 / 14 + 2.0**-7)).all()


def test_a_group_that_is_not_finite_comes_back_as_nan() -> None:
    vectors = vectors_of(1, 3, 2, 64)
    vectors[1, 1, 40], vectors[2, 0, 0] = 0x7F80, 0x7FC0
    restored = arith.from_bf16(packed.unpack(packed.pack(vectors), 2, 64))
    lost = np.isnan(restored)
    assert lost[1, 1, 32:].all()
    assert lost[2, 0, :32].all()
    assert lost.sum() == 64


def test_no_tokens() -> None:
    records = packed.pack(np.empty((0, 2, 64), dtype=np.uint16))
    assert records.shape == (0, 72)
    assert packed.unpack(records, 2, 64).shape == (0, 2, 64)


def test_records_of_another_size() -> None:
    with pytest.raises(ValueError, match="a record has 72 bytes, not 70"):
        packed.unpack(np.zeros((3, 70), dtype=np.uint8), 2, 64)
