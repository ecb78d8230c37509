"""A vector lane made of C++ functions against its Verilog, cycle by cycle, on random operations."""

import os
from pathlib import Path

import numpy as np
import pytest
from amaranth import ClockSignal, Instance, Module, ResetSignal, Signal

from vrex.hw.lxe.vpe import Vpe
from vrex.hw.lxe.vpe_lane import Lane
from vrex.hw.tools import verilated
from vrex.hw.tools.export import to_rtlil
from vrex.model.config import Config, VpeConfig
from vrex.model.lxe.vpe import EXP_LIMIT, Function, to_bits

SEED = 31
CI_CYCLES = 50_000
SLOW_CYCLES = int(os.environ.get("VREX_VECTORS", "1000000"))
BATCH = 500_000

CONFIG = Config(vpe=VpeConfig(lanes=16))
WIDTHS = {"opcode": 4, "turn": 4, **dict.fromkeys(("add", "fold", "stay"), 1)}
WIDTHS |= dict.fromkeys(("a", "b", "c", "left", "right"), 32)

FIRST = ((Function.EXP, 0), (Function.EXP, 1), (Function.RECIP, 0))
"""Operation and pass of the first rounds, after which nothing depends on the registers' first contents."""


def lanes(folder: Path) -> verilated.Simulation:
    """Both lanes."""
    m, length = Module(), Vpe.ring_length(CONFIG.vpe)
    m.submodules.lane = lane = Lane(length)
    inputs = [Signal(bits, name=name) for name, bits in WIDTHS.items()]
    o, other = Signal(32, name="o"), Signal(32, name="other")
    m.d.comb += [*(getattr(lane, port.name).eq(port) for port in inputs), o.eq(lane.o)]
    ports = {f"i_{port.name}": port for port in inputs}
    m.submodules.other = Instance(
        "vrex_vpe_lane", i_clk=ClockSignal(), i_rst=ResetSignal(), o_o=other, **ports
    )
    part = to_rtlil(Lane(length), "vrex_vpe_lane")
    return verilated.build(m, inputs, [o, other], folder, part, CONFIG)


def operands(rng: np.random.Generator, cycles: int) -> np.ndarray:
    """FP32 bits: any, of usual size, near EXP's limit, powers of two, subnormal, special."""
    near_limit = (EXP_LIMIT * (1 + rng.integers(-2, 3, cycles) * 2.0**-23)).astype(np.float32)
    magnitudes = [0, 1, 0x7FFFFF, 0x800000, 0x3F800000, 0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FC00000]
    special = np.array([*magnitudes, *(1 << 31 | bits for bits in magnitudes)], dtype=np.uint32)
    kinds = [
        rng.integers(0, 1 << 32, cycles, dtype=np.uint32),
        to_bits(rng.standard_normal(cycles).astype(np.float32) * 8),
        to_bits(near_limit) ^ rng.integers(0, 2, cycles, dtype=np.uint32) << np.uint32(31),
        rng.integers(0, 512, cycles, dtype=np.uint32) << np.uint32(23),
        rng.integers(0, 1 << 24, cycles, dtype=np.uint32) ^ np.uint32(0x80000000),
        rng.choice(special, cycles),
    ]
    return np.choose(rng.integers(0, len(kinds), cycles), kinds)


def stimuli(rng: np.random.Generator, cycles: int) -> dict[str, np.ndarray]:
    """Values of every input; operands are often equal, so that comparisons and differences meet that too."""
    length = Vpe.ring_length(CONFIG.vpe)
    given = {
        name: rng.integers(0, 1 << bits, cycles, dtype=np.uint32)
        for name, bits in WIDTHS.items()
        if bits < 32
    }
    for name in ("add", "fold", "stay"):
        given[name] &= rng.random(cycles) < 0.3
        given[name][: len(FIRST) * length] = 0
    # Half of the passes are those of an operation's own.
    given["turn"] = np.where(rng.random(cycles) < 0.5, given["turn"] % 9, given["turn"])
    for place, (code, turn) in enumerate(FIRST):
        at = slice(place * length, (place + 1) * length)
        given["opcode"][at], given["turn"][at] = code, turn
    given |= {name: operands(rng, cycles) for name, bits in WIDTHS.items() if bits == 32}
    same = rng.random(cycles) < 0.1
    given["c"] = np.where(same, given["a"], given["c"])
    given["right"] = np.where(same, given["left"], given["right"])
    return given


def differences(run: verilated.Simulation, cycles: int) -> int:
    """Cycles in which the two lanes' outputs differ."""
    wrong = 0
    first = (len(FIRST) + 1) * Vpe.ring_length(CONFIG.vpe)
    for batch in range(-(-cycles // BATCH)):
        seen = run(**stimuli(np.random.default_rng([SEED, batch]), min(cycles, BATCH)))
        wrong += int((seen["o"] != seen["other"])[first:].sum())
        assert len(np.unique(seen["o"][first:])) > len(seen["o"]) // 10
    return wrong


def test_equals_the_verilog(tmp_path: Path) -> None:
    assert differences(lanes(tmp_path), CI_CYCLES) == 0


@pytest.mark.slow
def test_equals_the_verilog_on_many(tmp_path: Path) -> None:
    assert differences(lanes(tmp_path), SLOW_CYCLES) == 0
