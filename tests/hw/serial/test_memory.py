"""The host's port to a board's memory and registers against `vrex.model.serial.memory`, access for access."""

import gc
import random
from typing import Any

import numpy as np
import pytest
from amaranth import Module
from amaranth.lib.wiring import connect
from amaranth.sim import Simulator

from tests.sw.driver.model_board import GoldenRegisters
from vrex.hw.core.registers import CoreRegisters
from vrex.hw.serial.memory import ACCESS, MemoryPort
from vrex.hw.serial.registers import RegisterWindow
from vrex.model.config import preset
from vrex.model.core.registers import Register
from vrex.model.lib.memory import BusError, Memory, Window
from vrex.model.serial.memory import (
    MOST_BYTES,
    REGISTERS,
    Access,
    AccessStatus,
    End,
    execute,
    register_address,
)

CONFIG = preset("tiny")
BUS_BITS = 32
BUS_BYTES = BUS_BITS // 8
MEMORY_BYTES = 2 * MOST_BYTES
BROKEN = range(4096 + 512, 4096 + 600)
"""Addresses that memory answers with an error."""

# The one that is refused.
pytestmark = pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")


class Around:
    """A port between scripted streams and a memory, all of which stall at random; or with registers, too."""

    def __init__(self, rng: random.Random, stall: float, *, has_registers: bool = False) -> None:
        self.rng, self.stall = rng, stall
        self.content = np.frombuffer(rng.randbytes(MEMORY_BYTES), dtype=np.uint8).copy()
        self.expected = self.content.copy()
        self.words: list[tuple[str, int]] = []
        self.wanted: list[tuple[End, bytes]] = []
        self.ends: list[End] = []
        self.given: list[bytes] = []
        self.registers = (
            GoldenRegisters(CONFIG, Memory(Window(0, 0), Window(0, 0))) if has_registers else None
        )
        size = REGISTERS * BUS_BYTES if has_registers else 0
        self.port = MemoryPort(BUS_BITS, memory_bytes=MEMORY_BYTES, register_bytes=size)
        self.window = RegisterWindow(BUS_BITS, memory_bytes=MEMORY_BYTES)
        self.axi = self.window.m_axi if has_registers else self.port.m_axi

    def view(self, address: int, size: int) -> np.ndarray:
        if address in BROKEN:
            raise BusError
        return self.expected[address : address + size]

    def add(self, access: Access) -> None:
        data = b""
        if access.write:
            # As much as would be right, also where it is refused.
            data = self.rng.randbytes(BUS_BYTES * min(access.beats(BUS_BYTES), 40))
        self.wanted.append(execute(access, data, self.view, MEMORY_BYTES, BUS_BYTES, self.registers))
        self.words.append(("access", int.from_bytes(access.pack(), "little")))
        for first in range(0, len(data), BUS_BYTES):
            self.words.append(("data", int.from_bytes(data[first : first + BUS_BYTES], "little")))

    def waits(self) -> bool:
        return self.rng.random() < self.stall

    async def host(self, ctx: Any) -> None:
        """Words in their order, one at a time, as the bridge presents them."""
        for name, word in self.words:
            stream = getattr(self.port, name)
            while self.waits():
                await ctx.tick()
            ctx.set(stream.payload, ACCESS.from_bits(word) if name == "access" else word)
            ctx.set(stream.valid, 1)
            await ctx.tick().until(stream.ready)
            ctx.set(stream.valid, 0)
        while len(self.ends) < len(self.wanted):
            await ctx.tick()

    async def taker(self, ctx: Any) -> None:
        beats = b""
        while True:
            ready = not self.waits()
            ctx.set(self.port.read.ready, ready)
            ctx.set(self.port.end.ready, ready)
            _, _, read, beat, end, tag, status, count = await ctx.tick().sample(
                self.port.read.valid,
                self.port.read.payload,
                self.port.end.valid,
                self.port.end.payload.tag,
                self.port.end.payload.status,
                self.port.end.payload.beats,
            )
            assert not (read and end)
            if read and ready:
                beats += beat.to_bytes(BUS_BYTES, "little")
            if end and ready:
                self.ends.append(End(tag, status, count))
                self.given.append(beats)
                beats = b""

    async def reader(self, ctx: Any) -> None:
        axi = self.axi
        while True:
            ctx.set(axi.ar.ready, 0)
            ctx.set(axi.r.valid, 0)
            if self.waits() or not ctx.get(axi.ar.valid):
                await ctx.tick()
                continue
            assert (ctx.get(axi.ar.len), ctx.get(axi.ar.size), ctx.get(axi.ar.burst)) == (0, 2, 1)
            address = ctx.get(axi.ar.addr)
            assert address % BUS_BYTES == 0
            ctx.set(axi.ar.ready, 1)
            await ctx.tick()
            ctx.set(axi.ar.ready, 0)
            while self.waits():
                await ctx.tick()
            # Taken at once, so that it holds back nobody else.
            assert ctx.get(axi.r.ready)
            ctx.set(axi.r.data, int.from_bytes(self.content[address : address + BUS_BYTES], "little"))
            ctx.set(axi.r.resp, 2 if address in BROKEN else 0)
            ctx.set(axi.r.valid, 1)
            await ctx.tick()

    async def writer(self, ctx: Any) -> None:
        axi = self.axi
        while True:
            if not ctx.get(axi.aw.valid | axi.w.valid):
                await ctx.tick()
                continue
            address, data, strobes, left = -1, 0, 0, {"aw", "w"}
            while left:
                name = self.rng.choice(sorted(left))
                channel = getattr(axi, name)
                assert ctx.get(channel.valid)
                if not self.waits():
                    if name == "aw":
                        address = ctx.get(channel.addr)
                        assert (ctx.get(channel.len), ctx.get(channel.size)) == (0, 2)
                    else:
                        data, strobes = ctx.get(channel.data), ctx.get(channel.strb)
                        assert ctx.get(channel.last)
                    ctx.set(channel.ready, 1)
                    left.discard(name)
                await ctx.tick()
                ctx.set(channel.ready, 0)
            if address not in BROKEN:
                for lane in range(BUS_BYTES):
                    if strobes >> lane & 1:
                        self.content[address + lane] = data >> 8 * lane & 0xFF
            while self.waits():
                await ctx.tick()
            assert ctx.get(axi.b.ready)
            ctx.set(axi.b.resp, 3 if address in BROKEN else 0)
            ctx.set(axi.b.valid, 1)
            await ctx.tick()
            ctx.set(axi.b.valid, 0)

    def run(self) -> None:
        m = Module()
        m.submodules.port = self.port
        if self.registers is not None:
            m.submodules.window, m.submodules.core = self.window, (core := CoreRegisters(CONFIG))
            connect(m, self.port.m_axi, self.window.s_axi)
            connect(m, self.window.registers, core.s_axi)
        simulator = Simulator(m)
        simulator.add_clock(1e-6)
        simulator.add_testbench(self.host)
        for bench in (self.taker, self.reader, self.writer):
            simulator.add_testbench(bench, background=True)
        simulator.run()
        assert self.ends == [end for end, _ in self.wanted]
        assert self.given == [beats for _, beats in self.wanted]
        assert (self.content == self.expected).all()


def random_access(rng: random.Random, tag: int) -> Access:
    size = rng.choice([1, 2, 3, 4, 5, 8, 15, 16, 17, 64])
    address = rng.choice([rng.randrange(MEMORY_BYTES), rng.choice([*BROKEN]) - size // 2])
    match rng.randrange(10):
        case 0:
            size = rng.choice([0, MOST_BYTES + 1, 1 << 20, (1 << 32) - 1])
        case 1:
            address = MEMORY_BYTES - rng.choice([0, 1, size // 2])
        case 2:
            address = rng.choice([1 << 25, 1 << 63, (1 << 64) - 1])
    return Access(address, size, rng.randrange(2), tag)


@pytest.mark.parametrize(("seed", "stall"), [(0, 0.0), (1, 0.3), (2, 0.3), (3, 0.7)])
def test_random_accesses(seed: int, stall: float) -> None:
    rng = random.Random(seed)
    around = Around(rng, stall)
    for tag in range(120):
        around.add(random_access(rng, tag))
    around.run()
    assert {end.status for end in around.ends} == set(AccessStatus)


def register_access(rng: random.Random, tag: int) -> Access:
    """Of registers that show the same at any time; now and then of some bytes of them, or beyond the last."""
    timed = (Register.CONTROL, Register.CYCLES)
    beats = rng.choice([1, 1, 1, 2, 3])
    while True:
        first = 4 * rng.randrange(Register.LOST_ENDS // 4 + 3)
        if not {*timed} & {*range(first, first + 4 * (beats + 1), 4)}:
            break
    if rng.random() < 0.05:
        first = 4 * (REGISTERS - rng.choice([0, 1, 2]))
    cut = rng.choice([0, 0, 0, 1])
    return Access(register_address(first, MEMORY_BYTES, BUS_BYTES) + cut, 4 * beats, rng.randrange(2), tag)


@pytest.mark.parametrize(("seed", "stall"), [(0, 0.0), (1, 0.4)])
def test_registers_behind_the_memory(seed: int, stall: float) -> None:
    rng = random.Random(seed)
    around = Around(rng, stall, has_registers=True)
    for tag in range(250):
        around.add((register_access if rng.random() < 0.7 else random_access)(rng, tag))
    around.run()
    assert {end.status for end in around.ends} == set(AccessStatus)
    # Writes have come through, not errors alone.
    assert around.registers is not None
    assert around.registers.read_register(Register.JOB_BASE) != 0


def test_the_longest_access_and_the_whole_memory() -> None:
    around = Around(random.Random(1), 0.0)
    for access in (
        Access(0, MOST_BYTES, 0, 1),
        Access(3, MOST_BYTES, 0, 2),
        Access(MEMORY_BYTES - 1, 1, 0, 3),
    ):
        around.add(access)
    around.run()
    assert [end.status for end in around.ends] == [0, 0, 0]
    assert [len(beats) for beats in around.given] == [MOST_BYTES, MOST_BYTES + BUS_BYTES, BUS_BYTES]


@pytest.mark.parametrize("size", [0, 4096, 5000])
def test_sizes_that_are_none(size: int) -> None:
    with pytest.raises(ValueError, match=f"must be a power of two above 4096, not {size}"):
        MemoryPort(BUS_BITS, memory_bytes=size)
    # Amaranth's word on it is this test's, not the next one's.
    gc.collect()
