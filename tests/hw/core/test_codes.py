"""LOAD's way from codes to lines, by itself: rows of codes and plain ones, in many ratios of beat to line."""

from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np
import pytest
from amaranth.sim import Simulator

from vrex.hw.core.movers import LoadMover
from vrex.model.config import Config, CoreConfig, KvmuConfig
from vrex.model.core.instructions import CODE_ROWS, Move, Port
from vrex.model.dre import quant
from vrex.tb.configs import CONFIGS

SIZE = 1 << 16
PATIENCE = 20_000
"""Cycles within which all lines come."""
SHAPES = [(64, 4), (64, 8), (64, 16), (64, 32), (128, 8), (256, 64)]
"""Bits of a beat and values of a line."""


def accelerator(bus_bits: int, inputs: int, heads: int = 3) -> Config:
    """What of a configuration the mover looks at."""
    tiny = CONFIGS["tiny"]
    dpe, vpe = replace(tiny.dpe, inputs=inputs), tiny.vpe
    kvmu = KvmuConfig(head_dim=64, kv_heads=heads)
    return replace(
        tiny, bus_bits=bus_bits, dpe=dpe, vpe=vpe, kvmu=kvmu, core=CoreConfig(stream_lines=16, queue=4)
    )


@dataclass
class Bench:
    """A mover between a memory and what takes its lines.

    Attributes:
        stall: how often each side waits for a cycle.
        cycles: until the last line has been taken.
    """

    config: Config
    memory: np.ndarray
    seed: int = 0
    stall: float = 0.0
    cycles: int = 0

    def run(self, moves: list[Move], lines: int) -> list[int]:
        """The lines that come of some moves."""
        unit = LoadMover(self.config)
        self.random, self.got, self.requests = Random(self.seed), list[int](), list[tuple[int, int]]()

        async def give(ctx: Any) -> None:
            for move in moves:
                await self._give(ctx, unit, move)

        async def requests(ctx: Any) -> None:
            ctx.set(unit.request.ready, 1)
            while True:
                _, _, valid, request = await ctx.tick().sample(unit.request.valid, unit.request.payload)
                if valid:
                    self.requests.append((request.address, request.bytes))

        async def beats(ctx: Any) -> None:
            while True:
                if not self.requests:
                    await ctx.tick()
                    continue
                await self._answer(ctx, unit, *self.requests.pop(0))

        async def take(ctx: Any) -> None:
            while len(self.got) < lines:
                ctx.set(unit.o.ready, self.random.random() >= self.stall)
                _, _, valid, ready, line = await ctx.tick().sample(unit.o.valid, unit.o.ready, unit.o.payload)
                self.cycles += 1
                assert self.cycles < PATIENCE, f"{len(self.got)} of {lines} lines"
                if valid and ready:
                    self.got.append(line)
            await ctx.tick().repeat(4)
            assert not ctx.get(unit.busy)

        simulator = Simulator(unit)
        simulator.add_clock(1e-6)
        for process in (requests, beats):
            simulator.add_testbench(process, background=True)
        for process in (give, take):
            simulator.add_testbench(process)
        simulator.run()
        return self.got

    async def _give(self, ctx: Any, unit: LoadMover, move: Move) -> None:
        rows = {name: getattr(move, name) for name in ("address", "pitch", "rows", "first", "mask", "bytes")}
        ctx.set(unit.cmd.payload.rows, rows)
        ctx.set(unit.cmd.payload.source, move.source)
        coded = {"coded": move.bits > 0, "four": move.bits == 4, "step": move.step, "address": move.scales}
        ctx.set(unit.scales, coded)
        ctx.set(unit.cmd.valid, 1)
        await ctx.tick().until(unit.cmd.ready)
        ctx.set(unit.cmd.valid, 0)

    async def _answer(self, ctx: Any, unit: LoadMover, address: int, size: int) -> None:
        unit_bytes = self.config.bus_bytes
        for first in range(address // unit_bytes * unit_bytes, address + size, unit_bytes):
            while self.random.random() < self.stall:
                await ctx.tick()
            data = self.memory[first : first + unit_bytes].tobytes()
            ctx.set(unit.beats.payload.data, int.from_bytes(data, "little"))
            ctx.set(unit.beats.payload.last, first + unit_bytes >= address + size)
            ctx.set(unit.beats.valid, 1)
            await ctx.tick().until(unit.beats.ready)
            ctx.set(unit.beats.valid, 0)


def expected(config: Config, memory: np.ndarray, move: Move) -> list[int]:
    """The lines of a move."""
    lines = []
    for row, address in enumerate(move.addresses()):
        size = -(-move.bytes // config.bus_bytes) * config.bus_bytes
        data = memory[address : address + size]
        if move.bits:
            at = move.scales + 2 * (move.first + row) * move.step
            scale = np.frombuffer(memory[at : at + 2].tobytes(), dtype="<u2")[0]
            data = quant.dequantise(quant.unpack(data, move.bits), scale).astype("<u2").view(np.uint8)
        padded = np.pad(data, (0, -len(data) % config.dpe.beat_bytes)).reshape(-1, config.dpe.beat_bytes)
        lines += [int.from_bytes(line.tobytes(), "little") for line in padded]
    return lines


def drawn(config: Config, rng: np.random.Generator, bits: int) -> Move:
    """A move of any few rows."""
    bus = config.bus_bytes
    size = int(rng.integers(1, 5)) * bus
    move = Move(
        source=Port.MEMORY, sink=Port.LXE, bytes=size, pitch=size + bus * int(rng.integers(2)),
        rows=int(rng.integers(1, 10)), address=bus * int(rng.integers(100)),
    )  # fmt: skip
    if not bits:
        return move
    scales = SIZE // 2 + 2 * int(rng.integers(1000))
    steps = {"step": int(rng.integers(config.kvmu.kv_heads + 1)), "first": int(rng.integers(50))}
    return replace(move, bits=bits, scales=scales, **steps)


@pytest.mark.parametrize(("bus_bits", "inputs"), SHAPES)
@pytest.mark.parametrize("stall", [0.0, 0.3])
def test_lines_are_the_models(bus_bits: int, inputs: int, stall: float) -> None:
    config, rng = accelerator(bus_bits, inputs), np.random.default_rng([bus_bits, inputs])
    memory = rng.integers(0, 256, SIZE, dtype=np.uint8)
    moves = [drawn(config, rng, int(bits)) for bits in rng.choice([0, 0, 4, 8], 14)]
    assert {move.bits for move in moves} == {0, 4, 8}
    want = [line for move in moves for line in expected(config, memory, move)]
    assert Bench(config, memory, seed=1, stall=stall).run(moves, len(want)) == want


@pytest.mark.parametrize(
    ("bits", "inputs", "heads"), [(8, 16, 1), (8, 32, 3), (4, 16, 2), (4, 8, 1), (8, 4, 1)]
)
def test_a_beat_a_cycle_but_where_a_line_has_fewer_values(bits: int, inputs: int, heads: int) -> None:
    """A tile of the most rows; a step of as many heads, whose scales all come over the bus."""
    config, rng = accelerator(64, inputs, heads), np.random.default_rng(3)
    memory = rng.integers(0, 256, SIZE, dtype=np.uint8)
    move = Move(
        source=Port.MEMORY, sink=Port.LXE, bytes=8 * bits, pitch=8 * bits, rows=CODE_ROWS, bits=bits,
        step=heads, scales=SIZE // 2,
    )  # fmt: skip
    want = expected(config, memory, move) * 3
    bench = Bench(config, memory)
    assert bench.run([move] * 3, len(want)) == want
    beats = CODE_ROWS * bits + move.scale_beats(8)[1]
    # Values that a beat of codes has, in lines.
    factor = max(1, 64 // bits // inputs)
    # The first beat takes as long as command, walker, scales, product and line do.
    assert bench.cycles < 3 * (beats + (factor - 1) * CODE_ROWS * bits) + 60
