"""Oaken's quantiser: error bound, storage, and a value-by-value transcription."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from vrex.model.lib.arith import round_bf16
from vrex.sw.retrieval.policies.calibration import Calibration, split
from vrex.sw.retrieval.policies.oaken import Oaken, OakenSettings, quantise, round_up_bf16
from vrex.sw.retrieval.policies.shape import Shape
from vrex.sw.videollm.videollm import VideoLLM


def sample(seed: int, rows: int = 40, n: int = 128) -> np.ndarray:
    """Heavy-tailed values whose scale differs from token to token."""
    rng = np.random.default_rng(seed)
    return (rng.standard_t(4, (rows, n)) * rng.lognormal(0, 0.5, (rows, 1))).astype(np.float32)


def limits(x: np.ndarray) -> np.ndarray:
    """Oaken's thresholds of a sample."""
    return np.array(split(x), dtype=np.float32)


def slowly(row: list[float], thresholds: np.ndarray, bits: int) -> tuple[list[float], list[float]]:
    """Values read back and their error bounds, one token, one value at a time."""
    low, inner, high = (float(t) for t in thresholds)

    def group(x: float) -> tuple[str, bool]:
        name = "inner" if abs(x) <= inner else "outer" if x < low or x > high else "middle"
        return name, x < 0

    origins = {
        ("inner", False): 0.0,
        ("inner", True): 0.0,
        ("middle", False): inner,
        ("middle", True): -inner,
        ("outer", False): high,
        ("outer", True): low,
    }
    values, bounds = [], []
    for x in row:
        mine = group(x)
        largest = max(abs(y - origins[mine]) for y in row if group(y) == mine)
        levels = 2 ** (bits - 1 if mine[0] == "middle" else bits) - 1
        step = float(round_up_bf16(np.array([largest], dtype=np.float32))[0]) / levels
        code = round(abs(x - origins[mine]) / step) if step else 0
        assert code <= levels
        values.append(origins[mine] + (-code if x < 0 else code) * step)
        bounds.append(step / 2)
    return values, bounds


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_equals_a_slow_transcription(bits: int) -> None:
    x = sample(1, rows=12)
    thresholds = limits(x)
    stored = quantise(x, thresholds, bits)
    for row, values, bounds in zip(x, stored.values, stored.bound, strict=True):
        expected, steps = slowly([float(v) for v in row], thresholds, bits)
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(bounds, steps, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_no_error_exceeds_half_a_step_of_its_group(seed: int, bits: int) -> None:
    x = sample(seed)
    stored = quantise(x, limits(sample(seed + 100)), bits)
    error = np.abs(stored.values - x)
    assert (error <= stored.bound * (1 + 1e-4) + 1e-6).all()
    assert error.max() > 0
    # The bound is no larger than the group's own range allows.
    assert stored.bound[~stored.outliers].max() <= np.abs(x).max() / (2 ** (bits - 1) - 1)


def test_values_that_quantise_exactly() -> None:
    x = np.zeros((3, 8), dtype=np.float32)
    x[1] = 1.0
    stored = quantise(x, np.array([-2, 0.5, 2], dtype=np.float32), 4)
    np.testing.assert_array_equal(stored.values, x)
    np.testing.assert_array_equal(stored.outliers[:, 0], [True, False, True])


def test_calibrated_thresholds_split_as_oaken_does() -> None:
    x = sample(3, rows=2000)
    low, inner, high = split(x)
    assert np.mean((x < low) | (x > high)) == pytest.approx(0.04, abs=1e-3)
    assert np.mean(np.abs(x) <= inner) == pytest.approx(0.06, abs=1e-3)
    # Values of one sign only must not turn the order of the thresholds round.
    low, inner, high = split(np.abs(x) + 1)
    assert low <= -inner < inner <= high


def test_scales_are_rounded_up() -> None:
    x = np.abs(sample(4)).ravel()
    up = round_up_bf16(x)
    np.testing.assert_array_equal(up, round_bf16(up))
    assert (up >= x).all()
    assert (up <= x * (1 + 2**-7)).all()
    np.testing.assert_array_equal(round_up_bf16(up), up)


def test_storage_is_counted(make_tape: Callable[[int], Any], shape: Shape) -> None:
    thresholds = np.tile(np.array([-1e9, 0, 1e9], dtype=np.float32), (shape.layers, 2, 1))
    calibration = Calibration("", 0, (1,), np.empty(0), np.empty(0), thresholds)
    policy = Oaken(OakenSettings(), shape, calibration)
    tokens = written = 0
    for chunk in make_tape(2).chunks():
        # Without outliers a value takes 4 bits.
        policy.encode(chunk.layer, np.abs(chunk.k) + 1, np.abs(chunk.v) + 1)
        policy.select(chunk)
        tokens += chunk.start * shape.kv_heads
        written += chunk.k.shape[1]
    fetched = policy.report()["fetched"]
    assert policy.bits_per_value() == 4
    assert fetched["tokens"] == tokens
    assert fetched["bytes"] == tokens * 2 * shape.head_dim // 2
    assert fetched["metadata_bytes"] == (tokens // shape.kv_heads + written) * 2 * 6 * 2


def test_about_4_8_bits_on_the_shipped_model(shipped: VideoLLM, calibration: Calibration) -> None:
    shape = Shape.of(shipped.config)
    policy = Oaken(OakenSettings(), shape, calibration)
    decoder = shipped.decoder
    x = shipped.embed_frame(np.full((64, 64, 3), 90, dtype=np.uint8))
    cache, plain = decoder.new_cache(), decoder.new_cache("float32")
    decoder.forward(x, cache, policy=policy)
    decoder.forward(x, plain)
    assert policy.bits_per_value() == pytest.approx(4.8, abs=0.5)
    # Layer 0's input is the same with and without, and the cache holds what storage gives back.
    layer = plain.layers[0]
    _, v = Oaken(OakenSettings(), shape, calibration).encode(0, layer.keys, layer.values)
    np.testing.assert_array_equal(cache.layers[0].values, round_bf16(v))
    assert np.abs(v - layer.values).max() > 0


def test_more_bits_come_closer_to_the_full_cache(shipped: VideoLLM, calibration: Calibration) -> None:
    decoder, shape = shipped.decoder, Shape.of(shipped.config)
    rng = np.random.default_rng(8)
    frames = [shipped.embed_frame(rng.integers(0, 255, (64, 64, 3)).astype(np.uint8)) for _ in range(3)]

    def last(policy: Any) -> np.ndarray:
        cache = decoder.new_cache()
        return [decoder.forward(x, cache, policy=policy) for x in frames][-1]

    full = last(None)
    errors = [
        float(np.abs(last(Oaken(OakenSettings(bits=bits), shape, calibration)) - full).mean())
        for bits in (2, 4, 8)
    ]
    assert errors[0] > 2 * errors[1] > 4 * errors[2] > 0
