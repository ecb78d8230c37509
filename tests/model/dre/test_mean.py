"""Running mean against a scalar binary32 reference, and its drift."""

import struct

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vrex.model.dre import mean
from vrex.model.lib import arith

BITS = st.integers(0, 0xFFFF)


def f32(value: float) -> float:
    """Rounds a Python float to binary32 by way of its bytes; an overflow gives an infinity."""
    try:
        return struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def value_of(bits: int) -> float:
    return struct.unpack("<f", struct.pack("<I", bits << 16))[0]


def bf16_of(value: float) -> int:
    if value != value:
        return 0x7FC0
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16


def dithered_of(value: float, count: int) -> int:
    if value != value:
        return 0x7FC0
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    return (bits + int(f"{count:016b}"[::-1], 2)) >> 16


def reference(m: int, k: int, count: int, dithered: bool = False) -> int:
    """One element: every operation in float64, rounded to binary32 (double rounding is exact for + - *)."""
    if count == 1:
        return k
    difference = f32(value_of(k) - value_of(m))
    exact = f32(value_of(m) + f32(difference * f32(1.0 / count)))
    return dithered_of(exact, count) if dithered else bf16_of(exact)


@settings(derandomize=True, max_examples=1000)
@given(BITS, BITS, st.integers(1, 65535), st.booleans())
def test_matches_scalar_reference(m: int, k: int, count: int, dithered: bool) -> None:
    arrays = np.array([[m]], dtype=np.uint16), np.array([[k]], dtype=np.uint16)
    updated = mean.update(*arrays, np.array([count]), dithered=dithered)
    assert updated[0, 0] == reference(m, k, count, dithered)


def test_dither_rounds_away_from_zero_as_often_as_the_share_that_is_cut() -> None:
    """Of 2^8 counts in a row 3/4 for 3/4 of a unit, 1/256 for 1/256 of it, and none for a BF16 number."""
    counts = np.arange(256, 512)
    for cut, up in ((0xC000, 192), (0x0100, 1), (0, 0)):
        for sign in (0, 0x80000000):
            value = np.array([0x3F800000 | sign | cut], dtype=np.uint32).view(np.float32)
            rounded = mean.dither(np.repeat(value, 256), counts)
            assert (rounded == (0x3F81 | sign >> 16)).sum() == up
            assert (rounded == (0x3F80 | sign >> 16)).sum() == 256 - up


def test_first_key_is_the_mean_bit_for_bit() -> None:
    keys = np.arange(1 << 16, dtype=np.uint16)[None]
    assert np.array_equal(mean.update(np.full_like(keys, 0x7FC0), keys, np.array([1])), keys)


def test_the_reciprocal_is_rounded_before_it_is_multiplied() -> None:
    """Dividing by n' at once would give 0 here."""
    m, k = np.array([[0x3F44]], dtype=np.uint16), np.array([[0xC093]], dtype=np.uint16)
    assert mean.update(m, k, np.array([7]))[0, 0] == reference(0x3F44, 0xC093, 7) == 0xB380


def test_rows_have_their_own_counts() -> None:
    m = arith.to_bf16(np.zeros((2, 3)))
    k = arith.to_bf16(np.full((2, 3), 8.0))
    updated = arith.from_bf16(mean.update(m, k, np.array([2, 4])))
    assert np.array_equal(updated, [[4.0] * 3, [2.0] * 3])


def drift(keys: np.ndarray, counts: list[int], dithered: bool = False) -> list[float]:
    """How far the running mean of the first n keys strays from the exact one, for each n of `counts`.

    BF16 holds 8 significant bits, so a key whose share (k - m) / n' is below half a unit of the mean's last
    place leaves it where it is: from some hundred members on the mean hardly moves.
    """
    result = []
    running = keys[:1]
    exact = np.zeros(keys.shape[1])
    for i, key in enumerate(keys):
        running = mean.update(running, key[None], np.array([i + 1]), dithered=dithered)
        exact += arith.from_bf16(key)
        if i + 1 in counts:
            difference = arith.from_bf16(running[0]) - exact / (i + 1)
            result.append(float(np.linalg.norm(difference) / np.linalg.norm(exact / (i + 1))))
    return result


def test_drift_stays_small_up_to_a_full_cluster() -> None:
    """Members as alike as a cluster's are (cosine about 0.9): the mean is off by percents, never more."""
    seed = 11
    rng = np.random.default_rng(seed)
    keys = arith.to_bf16(rng.normal(size=128) + 0.5 * rng.normal(size=(65_535, 128)))
    counts = [2, 10, 100, 1_000, 10_000, 65_535]
    drifts = drift(keys, counts)
    print(f"seed {seed}: drift of the running mean", dict(zip(counts, drifts, strict=True)))
    assert max(drifts) < 0.2
    assert drifts[1] < 0.01


def test_a_mean_of_thousands_no_longer_follows_members_that_change() -> None:
    """The documented limit: BF16 has no room for a thousandth of a step, so late members are lost."""
    seed = 12
    rng = np.random.default_rng(seed)
    towards = np.linspace(0, 1, 65_535)[:, None] * rng.normal(size=64)
    keys = arith.to_bf16(rng.normal(size=64) + 0.3 * rng.normal(size=(65_535, 64)) + towards)
    counts = [256, 4_096, 65_535]
    drifts = drift(keys, counts)
    print(f"seed {seed}: drift of a mean of changing members", dict(zip(counts, drifts, strict=True)))
    assert drifts[0] < 0.03
    assert drifts[1] < 0.1
    assert 0.3 < drifts[2] < 0.7
    dithered = drift(keys, counts, dithered=True)
    print(f"seed {seed}: the same with dithered rounding", dict(zip(counts, dithered, strict=True)))
    assert max(dithered) < 0.03


def test_a_mean_of_finite_keys_can_leave_the_range() -> None:
    """The documented limit: the difference of key and mean is an FP32 number of its own."""
    largest = np.array([[0x7F7F]], dtype=np.uint16)
    assert mean.update(largest, largest | 0x8000, np.array([2]))[0, 0] == 0xFF80


def test_drift_of_one_key_is_zero() -> None:
    keys = arith.to_bf16(np.ones((3, 4)))
    assert drift(keys, [1, 2, 3]) == [0.0, 0.0, 0.0]
