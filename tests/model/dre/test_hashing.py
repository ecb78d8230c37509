import hashlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import strategies as st
from ml_dtypes import bfloat16

from vrex.model.dre import hashing


def bf16(values: np.ndarray) -> np.ndarray:
    return values.astype(bfloat16).view(np.uint16)


@pytest.mark.parametrize(("seed", "layer", "table"), [(0, 0, 0), (7, 31, 5), (1 << 31, 2, 1)])
def test_planes_are_numpys_pcg64_stream(seed: int, layer: int, table: int) -> None:
    stream = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, layer, table])))
    expected = bf16(
        np.array([[stream.standard_normal() for _ in range(65)] for _ in range(9)], dtype=np.float32)
    )
    np.testing.assert_array_equal(hashing.hyperplanes(seed, layer, table, 9, 65), expected)


def test_planes_stay_what_they_were() -> None:
    """numpy may change its normal generator in a later version: recorded tables would then not match."""
    digest = hashlib.sha256(hashing.hyperplanes(0, 0, 0, 32, 128).astype("<u2").tobytes()).hexdigest()
    assert digest == "2fdd71b02bfa73f196834ae783a3aa2a3511d6a931a4603a354093b79c09ad54"


def test_planes_differ_by_seed_layer_and_table() -> None:
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    assert len({hashing.hyperplanes(*key, 4, 16).tobytes() for key in keys}) == len(keys)


@pytest.mark.parametrize("n_hp", [1, 8, 31, 64])
def test_fewer_planes_are_the_first_of_more(n_hp: int) -> None:
    np.testing.assert_array_equal(
        hashing.hyperplanes(3, 1, 0, n_hp, 40), hashing.hyperplanes(3, 1, 0, 128, 40)[:n_hp]
    )


def test_planes_are_shared_and_read_only() -> None:
    planes = hashing.hyperplanes(0, 0, 0, 4, 8)
    with pytest.raises(ValueError, match="read-only"):
        planes[0, 0] = 0


def test_sign_rule() -> None:
    """One plane along the only axis: the bit is the sign of the key; zeros and NaN give 0."""
    keys = np.array([0x3F80, 0xBF80, 0x0000, 0x8000, 0x7FC0, 0x7F80, 0xFF80, 0x0001, 0x8001], dtype=np.uint16)
    bits = hashing.hash_keys(keys[:, None], np.array([[0x3F80]], dtype=np.uint16), 32)
    assert bits[:, 0].tolist() == [1, 0, 0, 0, 0, 1, 0, 1, 0]


def test_cancelled_projection_gives_zero() -> None:
    keys = np.array([[0x3F80, 0xBF80]], dtype=np.uint16)
    assert hashing.hash_keys(keys, np.array([[0x3F80, 0x3F80]], dtype=np.uint16), 32) == 0


def test_hash_is_the_sign_of_the_float64_projection() -> None:
    rng = np.random.default_rng(11)
    keys, planes = bf16(rng.standard_normal((50, 96))), hashing.hyperplanes(5, 2, 0, 40, 96)
    projection = keys.view(bfloat16).astype(np.float64) @ planes.view(bfloat16).astype(np.float64).T
    assert np.abs(projection).min() > 1e-4, "the seed gives a projection within rounding of 0: take another"
    words = hashing.hash_keys(keys, planes, 64)
    got = [[int(words[t, i // 32]) >> i % 32 & 1 for i in range(40)] for t in range(50)]
    np.testing.assert_array_equal(got, projection > 0)
    assert words.shape == (50, 2)
    assert not (words[:, 1] >> 8).any(), "bits past N_hp must be 0"


def test_packing(prove: Callable[..., None]) -> None:
    def check(rows: list[int], n_hp: int, hash_bits: int) -> None:
        n_hp = min(n_hp, hash_bits)
        bits = np.array([[value >> i & 1 for i in range(n_hp)] for value in rows], dtype=bool)
        words = hashing.pack_bits(bits.reshape(len(rows), n_hp), hash_bits)
        assert words.dtype == np.uint32
        assert words.shape == (len(rows), max(1, hash_bits // 32))
        packed = [sum(int(word) << 32 * i for i, word in enumerate(row)) for row in words]
        assert packed == [value & ((1 << n_hp) - 1) for value in rows]

    prove(
        check,
        rows=st.lists(st.integers(0, (1 << 128) - 1), max_size=5),
        n_hp=st.integers(1, 128),
        hash_bits=st.sampled_from([8, 16, 32, 64, 128]),
    )


@pytest.mark.parametrize(("n_hp", "hash_bits"), [(9, 8), (33, 32), (17, 16)])
def test_more_bits_than_the_hash_holds(n_hp: int, hash_bits: int) -> None:
    with pytest.raises(ValueError, match=f"{n_hp} hash-bits do not fit a hash of {hash_bits}"):
        hashing.pack_bits(np.ones((1, n_hp), dtype=bool), hash_bits)


@pytest.mark.parametrize("theta", [0.1, 0.5, 1.0, np.pi / 2, 2.5])
def test_simhash_theory(theta: float) -> None:
    """P[bit differs] = theta / pi; 4 standard deviations of 64 x 128 draws are allowed."""
    rng = np.random.default_rng(13)
    print("seed 13, theta", theta)
    a, b = np.linalg.qr(rng.standard_normal((64, 64)))[0][:2]
    pair = bf16(np.stack([a, np.cos(theta) * a + np.sin(theta) * b]))
    differing = 0
    for layer in range(64):
        words = hashing.hash_keys(pair, hashing.hyperplanes(1, layer, 0, 128, 64), 128)
        differing += int(np.bitwise_count(words[0] ^ words[1]).sum())
    draws, p = 64 * 128, theta / np.pi
    assert abs(differing / draws - p) < 4 * np.sqrt(p * (1 - p) / draws)
