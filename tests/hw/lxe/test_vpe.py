"""One lane of the vector engine against the model, value by value; its streams are in the testbench."""

import os

import numpy as np
import pytest
from amaranth import Module, Signal

from tests.model.lxe.test_vpe import triples
from vrex.hw.lxe.vpe import Vpe
from vrex.hw.lxe.vpe_lane import Lane
from vrex.hw.tools import verilated
from vrex.model.config import PRESETS
from vrex.model.lxe import vpe
from vrex.model.lxe.vpe import OPERATIONS, PASSES, Function

SEED = 21
RING = Lane.latency + 1
VECTORS = int(os.environ.get("VREX_VPE_VECTORS", "100_000"))
"""Of each operation in the long test."""

ELEMENTWISE = [code for code in OPERATIONS if code not in vpe.REDUCTIONS]


@pytest.fixture(scope="module")
def lane(tmp_path_factory: pytest.TempPathFactory) -> verilated.Simulation:
    m = Module()
    m.submodules.lane = unit = Lane(RING)
    inputs = [
        Signal(bits, name=name) for name, bits in {"opcode": 4, "turn": 4, "a": 32, "b": 32, "c": 32}.items()
    ]
    output = Signal(32, name="o")
    m.d.comb += [getattr(unit, port.name).eq(port) for port in inputs]
    m.d.comb += output.eq(unit.o)
    return verilated.build(m, inputs, [output], tmp_path_factory.mktemp("lane"))


def compute(lane: verilated.Simulation, code: Function, *operands: np.ndarray) -> np.ndarray:
    """Rings full of elements, each going round as often as the operation needs."""
    passes = PASSES.get(code, 1)
    rounds = -(-len(operands[0]) // RING)
    spread = np.zeros((3, rounds + 1, passes, RING), dtype=np.uint32)
    for place, operand in enumerate(operands):
        padded = np.zeros(rounds * RING, dtype=np.uint32)
        padded[: len(operand)] = operand
        spread[place, :rounds, 0] = padded.reshape(rounds, RING)
    turn = np.broadcast_to(np.arange(passes)[:, None], spread.shape[1:]).ravel()
    a, b, c = (x.ravel() for x in spread)
    seen = lane(opcode=int(code), turn=turn, a=a, b=b, c=c)["o"].reshape(spread.shape[1:])
    return seen[1:, 0].ravel()[: len(operands[0])]


def check(lane: verilated.Simulation, code: Function, vectors: int, seed: int) -> None:
    """So many vectors of all classes; the operations with fewer operands take the first of them."""
    rng = np.random.default_rng(seed)
    names = vpe.OPERANDS.get(code, "a")
    done = 0
    while done < vectors:
        for triple in triples(rng, min(100_000, -(-vectors // 7))):
            values = dict(zip("abc", (np.asarray(x) for x in triple), strict=True))
            bits = [
                values[name].view(np.uint32) if name in names else np.zeros_like(values["a"])
                for name in "abc"
            ]
            bits = [np.asarray(x).view(np.uint32) for x in bits]
            want = OPERATIONS[code](*(values[name] for name in names)).view(np.uint32)
            got = compute(lane, code, *bits)
            wrong = np.flatnonzero(got != want)[:3]
            assert not len(wrong), f"{code.name}, seed {seed}: " + "; ".join(
                f"{' '.join(f'{x[i]:08x}' for x in bits)} -> {got[i]:08x}, not {want[i]:08x}" for i in wrong
            )
            done += len(got)


@pytest.mark.parametrize("code", ELEMENTWISE)
def test_a_lane_is_the_model(code: Function, lane: verilated.Simulation) -> None:
    check(lane, code, 10_000, SEED)


@pytest.mark.slow
@pytest.mark.parametrize("code", ELEMENTWISE)
def test_a_lane_is_the_model_many_times(code: Function, lane: verilated.Simulation) -> None:
    """100 thousand vectors an operation, or as many as VREX_VPE_VECTORS says."""
    check(lane, code, VECTORS, SEED + 1)


@pytest.mark.slow
@pytest.mark.parametrize("code", [Function.EXP, Function.RECIP, Function.RSQRT])
def test_every_exponent_and_seed(code: Function, lane: verilated.Simulation) -> None:
    """Both signs, every exponent field, every seed's index, and what lies beside it."""
    high = np.arange(1 << 16, dtype=np.uint32)[:, None] << 16
    values = (high | np.array([0, 1, 0x8000, 0xFFFF], dtype=np.uint32)).ravel()
    want = OPERATIONS[code](values.view(np.float32)).view(np.uint32)
    assert np.array_equal(compute(lane, code, values), want)


@pytest.mark.parametrize("name", PRESETS)
def test_published_cycles(name: str) -> None:
    config = PRESETS[name].vpe
    assert Vpe.ring_length(config) >= 64 // config.lanes
    one, many = (Vpe.cycles(config, Function.FMA, words * config.lanes) for words in (1, 101))
    assert many - one == 100
    assert Vpe.cycles(config, Function.EXP, 4096) > Vpe.cycles(config, Function.MUL, 4096)
