"""Packed keys and values, byte by byte."""

import numpy as np
import pytest

from vrex.model.dre import codes, packed, quant
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


@pytest.mark.parametrize(("dim", "block"), [(64, 64), (128, 128), (96, 32), (10, 2), (2, 2)])
def test_a_rotation_is_orthogonal(dim: int, block: int) -> None:
    rows = arith.from_bf16(packed.rotation(1, 2, 0, dim))
    np.testing.assert_array_equal(rows @ rows.T, block * np.eye(dim))
    assert set(np.abs(rows).ravel().tolist()) == ({1.0} if block == dim else {0.0, 1.0})
    others = [(2, 2, 0), (1, 3, 0), (1, 2, 1)]
    assert dim == 2 or all((rows != arith.from_bf16(packed.rotation(*other, dim))).any() for other in others)


@pytest.mark.parametrize("dim", [64, 128])
def test_the_rotation_is_that_of_the_codes(dim: int) -> None:
    np.testing.assert_array_equal(packed.rotation(3, 1, 2, dim), codes.planes(3, 1, 2, dim, dim))


def test_a_rotated_key_comes_back() -> None:
    """But for the rounding of its components to BF16, twice."""
    keys, rows = vectors_of(5, 20, 1, 64)[:, 0], packed.rotation(0, 0, 0, 64)
    wanted = arith.from_bf16(keys).astype(float)
    turned = wanted @ arith.from_bf16(rows).T
    np.testing.assert_array_equal(
        packed.rotate(keys, rows), arith.to_bf16(turned.astype(np.float32)), err_msg="few terms are cut"
    )
    back = arith.from_bf16(packed.rotate_back(packed.rotate(keys, rows), rows))
    norms = np.linalg.norm(wanted, axis=1, keepdims=True)
    assert (np.abs(back - wanted) < 2.0**-7 * norms).all()


def test_a_large_component_spoils_a_rotated_key_less() -> None:
    """What rotation is for: without it, the 31 others of its group are rounded to the step it sets."""
    rng = np.random.default_rng(4)
    values = rng.standard_normal((50, 64)).astype(np.float32)
    values[:, 7] *= 12
    keys, rows = arith.to_bf16(values), packed.rotation(0, 0, 0, 64)

    def error(kept: np.ndarray) -> float:
        return float(np.square(arith.from_bf16(kept) - arith.from_bf16(keys)).mean())

    plain = packed.unpack(packed.pack(keys[:, None]), 1, 64)[:, 0]
    turned = packed.unpack(packed.pack(packed.rotate(keys, rows)[:, None]), 1, 64)[:, 0]
    assert error(packed.rotate_back(turned, rows)) < 0.5 * error(plain)


def test_a_rotated_key_that_is_not_finite_is_nan() -> None:
    keys, rows = vectors_of(6, 3, 1, 64)[:, 0], packed.rotation(0, 0, 0, 64)
    keys[0, 5], keys[1, 6] = 0x7F80, 0x7FC0
    turned = packed.unpack(packed.pack(packed.rotate(keys, rows)[:, None]), 1, 64)[:, 0]
    lost = np.isnan(arith.from_bf16(packed.rotate_back(turned, rows)))
    np.testing.assert_array_equal(lost.all(axis=1), [True, True, False])
    assert not lost[2].any()
