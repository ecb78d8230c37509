"""Scale and codes by value against the model; the streams are in the testbench."""

from pathlib import Path

import numpy as np
import pytest
from amaranth import Module, Signal

from vrex.hw.dre import quant as unit
from vrex.hw.tools import verilated
from vrex.model.config import PRESETS, KvmuConfig, MeanConfig
from vrex.model.dre import quant
from vrex.model.lib import arith

SEED = 4


@pytest.fixture(scope="module")
def lane(tmp_path_factory: pytest.TempPathFactory) -> verilated.Simulation:
    """A lane behind the reciprocal of a scale."""
    m = Module()
    m.submodules.lane = lane = unit.Lane()
    value, scale, code, factor = (
        Signal(bits, name=name) for name, bits in (("value", 16), ("scale", 16), ("code", 8), ("factor", 32))
    )
    m.d.comb += [
        lane.value.eq(value << 16),
        factor.eq(unit.reciprocal(scale)),
        lane.factor.eq(factor),
        lane.i_valid.eq(1),
        code.eq(lane.code),
    ]
    return verilated.build(m, [value, scale], [code, factor], tmp_path_factory.mktemp("lane"))


def test_every_reciprocal(lane: verilated.Simulation) -> None:
    """Of all scales that a finite group can have."""
    scales = np.arange(0x0080, 0x7E80).astype(np.uint16)
    got = lane(value=0, scale=scales)["factor"]
    np.testing.assert_array_equal(got, (np.float32(1) / arith.from_bf16(scales)).view(np.uint32))


@pytest.mark.parametrize("bits", quant.BITS)
def test_codes_are_the_models(lane: verilated.Simulation, bits: int) -> None:
    """Groups of two: one value makes the scale, the other one is coded; every 13th largest value."""
    rng = np.random.default_rng(SEED)
    print(f"seed {SEED}")
    largest = np.arange(0x0500, 0x7F80, 13).astype(np.uint16).repeat(8)
    near = largest - rng.integers(0, 0x500, len(largest)).astype(np.uint16)
    other = near | rng.choice([0, 0x8000], len(largest)).astype(np.uint16)
    codes, scales = quant.quantise(np.stack([largest, other], axis=1), bits)
    pad = np.zeros(unit.Lane.latency, dtype=np.uint16)
    got = lane(value=np.append(other, pad), scale=np.append(scales, pad + 0x3F80))["code"]
    wrong = np.flatnonzero(got[unit.Lane.latency :].astype(np.uint8).view(np.int8) != codes[:, 1])
    assert not len(wrong), [(hex(largest[i]), hex(other[i])) for i in wrong[:3]]


def test_next_to_a_tie(lane: verilated.Simulation) -> None:
    """Odd halves of every scale: the product may lie a unit in the last place beside the tie."""
    scales = np.arange(0x3F80, 0x4000).astype(np.uint16)
    halves = arith.from_bf16(scales)[:, None] * np.arange(1, 254, 2, dtype=np.float32) / 2
    values = arith.to_bf16(halves)
    exact = arith.from_bf16(values) == halves
    scales, values = np.broadcast_to(scales[:, None], values.shape)[exact], values[exact]
    products = arith.from_bf16(values) * (np.float32(1) / arith.from_bf16(scales))
    assert (products % 1 != 0.5).any()
    assert (products % 1 == 0.5).any()
    pad = np.zeros(unit.Lane.latency, dtype=np.uint16)
    got = lane(value=np.append(values, pad), scale=np.append(scales, pad + 0x3F80))["code"]
    np.testing.assert_array_equal(got[unit.Lane.latency :], np.rint(products))


@pytest.mark.parametrize("name", PRESETS)
def test_published_cycles(name: str) -> None:
    config = PRESETS[name]
    words = config.kvmu.head_dim // config.mean.lanes
    assert 20 < unit.Quant.cycles(kvmu=config.kvmu, mean=config.mean) - 2 * words < 30


def test_as_many_lanes_as_a_beat_holds() -> None:
    assert unit.Quant.cycles(kvmu=KvmuConfig(head_dim=64), mean=MeanConfig(lanes=16)) < 50


@pytest.mark.parametrize("bits", quant.BITS)
def test_every_product(bits: int, tmp_path: Path) -> None:
    """All codes of all 2^16 scales: subnormal, negative, infinite and NaN ones too."""
    m = Module()
    code, scale, value = Signal(bits, name="code"), Signal(16, name="scale"), Signal(16, name="value")
    m.submodules.product = product = unit.Product(bits)
    m.d.comb += [product.code.eq(code), product.scale.eq(scale), value.eq(product.value)]
    run = verilated.build(m, [code, scale], [value], tmp_path)
    pad = np.zeros(product.latency, dtype=np.uint16)
    scales = np.arange(1 << 16, dtype=np.uint16)
    for number in range(1 << bits):
        sent = {"code": np.append(np.full(scales.shape, number), pad), "scale": np.append(scales, pad)}
        got = run(**sent)["value"][product.latency :]
        signed = np.int8(number - (number >> bits - 1 << bits))
        want = quant.dequantise(np.full((len(scales), 1), signed), scales)[:, 0]
        np.testing.assert_array_equal(got.astype(np.uint16), want)
