"""One lane of the running mean against the model, value by value; its streams are in the testbench."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
from amaranth import Module, Signal

from vrex.hw.dre.mean import Lane, Mean
from vrex.hw.tools import verilated
from vrex.model.config import MAX_COUNT, PRESETS, MeanConfig
from vrex.model.dre import mean
from vrex.tb.lib.stimuli import SCORES

SEED = 9
COUNTS = (2, 3, 5, 16, 100, 257, 4096, 32_769, MAX_COUNT)
VECTORS = 200_000
BLOCK = 10_000


@pytest.fixture(scope="module")
def lane(tmp_path_factory: pytest.TempPathFactory) -> verilated.Simulation:
    m = Module()
    m.submodules.lane = unit = Lane()
    ports = {"mean": 16, "key": 16, "reciprocal": 32, "i_valid": 1, "o": 16, "o_valid": 1}
    signals = {name: Signal(bits, name=name) for name, bits in ports.items()}
    inputs, outputs = list(signals.values())[:4], list(signals.values())[4:]
    m.d.comb += [getattr(unit, port.name).eq(port) for port in inputs]
    m.d.comb += [port.eq(getattr(unit, port.name)) for port in outputs]
    return verilated.build(m, inputs, outputs, tmp_path_factory.mktemp("lane"))


def updated(lane: verilated.Simulation, m: np.ndarray, k: np.ndarray, count: int) -> np.ndarray:
    """New means, one a cycle."""
    pad = np.zeros(Lane.latency, dtype=np.uint16)
    reciprocal = (np.float32(1) / np.float32(count)).view(np.uint32)
    old, key = np.append(m, pad), np.append(k, pad)
    return lane(mean=old, key=key, reciprocal=reciprocal, i_valid=1)["o"][Lane.latency :]


def pairs(rng: np.random.Generator, n: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Means and keys: every class with itself and with anything, and keys a few units away from the mean."""
    for name, draw in SCORES.items():
        yield name, draw(rng, n), draw(rng, n)
        yield f"{name} and bits", draw(rng, n), SCORES["bits"](rng, n)
    m = SCORES["exponents"](rng, n)
    yield "near", m, m ^ (1 << rng.integers(0, 4, n)).astype(np.uint16)
    yield "opposite", m, m ^ np.uint16(0x8000)


def check(lane: verilated.Simulation, vectors: int, seed: int) -> None:
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    done = 0
    while done < vectors:
        for name, m, k in pairs(rng, BLOCK):
            count = int(rng.choice([rng.choice(COUNTS), rng.integers(2, MAX_COUNT + 1)]))
            want = mean.update(m[None], k[None], np.array([count]))[0]
            got = updated(lane, m, k, count)
            wrong = np.flatnonzero(got != want)[:3]
            assert not len(wrong), [
                f"{name}, count {count}: {m[i]:04x} and {k[i]:04x} give {got[i]:04x}, not {want[i]:04x}"
                for i in wrong
            ]
            done += len(m)


def test_a_lane_is_the_model(lane: verilated.Simulation) -> None:
    check(lane, VECTORS, SEED)


@pytest.mark.slow
def test_a_lane_is_the_model_ten_million_times(lane: verilated.Simulation) -> None:
    check(lane, 10_000_000, SEED + 1)


def test_the_reciprocal_is_rounded_before_it_is_multiplied(lane: verilated.Simulation) -> None:
    """Dividing by n' at once would give 0 here."""
    assert updated(lane, np.array([0x3F44]), np.array([0xC093]), 7) == 0xB380


def test_valid_follows_through_the_lane(lane: verilated.Simulation) -> None:
    valid = np.random.default_rng(SEED).integers(0, 2, 500)
    seen = lane(mean=0, key=0, reciprocal=0, i_valid=valid)["o_valid"]
    assert np.array_equal(seen[Lane.latency :], valid[: -Lane.latency])
    assert not seen[: Lane.latency].any()


@pytest.mark.parametrize("name", PRESETS)
def test_published_cycles(name: str) -> None:
    config = PRESETS[name]
    words = config.bus_bits // (16 * config.mean.lanes)
    cycles = partial(Mean.cycles, config.mean, bus_bits=config.bus_bits)
    assert cycles(1, 64) == 69
    start = cycles(2, 0)
    assert 40 < start < 60
    assert cycles(9, 10) == start + 10 * words


def test_as_many_lanes_as_a_beat_holds() -> None:
    cycles = partial(Mean.cycles, MeanConfig(lanes=4), bus_bits=64)
    assert cycles(5, 7) == cycles(5, 0) + 7
