"""The UART alone: every byte, clocks that differ, and what is no byte."""

import itertools
import random
from typing import Any

import pytest
from amaranth import Module, Signal
from amaranth.sim import Simulator

from vrex.hw.serial.uart import Uart
from vrex.model.serial.line import BITS

# The one that is refused.
pytestmark = pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")


def bits_of(byte: int) -> list[int]:
    return [0, *(byte >> i & 1 for i in range(8)), 1]


def received(divisor: int, levels: list[tuple[int, float]]) -> list[int]:
    """Bytes that come of levels on the line and the bits' times that each lasts."""
    uart = Uart(divisor=divisor)
    got: list[int] = []

    async def drive(ctx: Any) -> None:
        at = 0.0
        cycle = 0
        for level, bits in levels:
            ctx.set(uart.rx, level)
            at += bits * divisor
            while cycle < at:
                cycle += 1
                await ctx.tick()

    async def watch(ctx: Any) -> None:
        async for *_, valid, byte in ctx.tick().sample(uart.received.valid, uart.received.payload):
            if valid:
                got.append(byte)

    simulator = Simulator(uart)
    simulator.add_clock(1e-6)
    simulator.add_testbench(drive)
    simulator.add_testbench(watch, background=True)
    simulator.run()
    return got


@pytest.mark.parametrize(
    ("divisor", "drift"), [(4, 0), (4, 0.02), (4, -0.02), (7, 0.03), (16, 0.04), (16, -0.04)]
)
def test_bytes_back_to_back(divisor: int, drift: float) -> None:
    data = random.Random(divisor).randbytes(60) + bytes([0, 255, 0, 0x55, 0xAA])
    levels: list[tuple[int, float]] = [(1, 2)]
    for byte in data:
        levels += [(bit, 1 + drift) for bit in bits_of(byte)]
    assert received(divisor, [*levels, (1, 3)]) == list(data)


def test_what_is_no_byte_is_dropped() -> None:
    good: list[tuple[int, float]] = [(bit, 1) for bit in bits_of(0x5A)]
    no_stop: list[tuple[int, float]] = [(0, 1), *[(1, 1)] * 8, (0, 1), (1, 12)]
    glitch: list[tuple[int, float]] = [(0, 0.25), (1, 12)]
    held_low: list[tuple[int, float]] = [(0, 30), (1, 12)]
    levels = [(1, 2.0), *good, *no_stop, *good, *glitch, *good, (1, 2.0), *held_low, *good, (1, 3.0)]
    assert received(8, levels) == [0x5A] * 4


@pytest.mark.parametrize("divisor", [4, 5, 16])
def test_loop(divisor: int) -> None:
    m = Module()
    m.submodules.uart = uart = Uart(divisor=divisor)
    m.d.comb += uart.rx.eq(uart.tx)
    took = Signal(32)
    m.d.sync += took.eq(took + 1)
    data = random.Random(divisor).randbytes(30)
    got: list[int] = []
    times: list[int] = []

    async def send(ctx: Any) -> None:
        ctx.set(uart.send.valid, 1)
        for byte in data:
            ctx.set(uart.send.payload, byte)
            await ctx.tick().until(uart.send.ready)
            times.append(ctx.get(took))
        ctx.set(uart.send.valid, 0)
        await ctx.tick().repeat(2 * BITS * divisor)

    async def watch(ctx: Any) -> None:
        async for *_, valid, byte in ctx.tick().sample(uart.received.valid, uart.received.payload):
            if valid:
                got.append(byte)

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(send)
    simulator.add_testbench(watch, background=True)
    simulator.run()
    assert got == list(data)
    assert {later - before for before, later in itertools.pairwise(times)} == {BITS * divisor + 1}


def test_too_few_cycles_of_a_bit() -> None:
    with pytest.raises(ValueError, match="at least 4 clock cycles, not 3"):
        Uart(divisor=3)
