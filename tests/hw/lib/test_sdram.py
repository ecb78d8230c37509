"""The SDRAM controller with times that are too short, which the chip must find, and at other clocks."""

import dataclasses
from random import Random
from typing import Any

import pytest
from amaranth.sim import Simulator

from vrex.hw.fpga.memory import EXTRA_READ_CYCLES
from vrex.hw.lib.sdram import Sdram
from vrex.model.lib.sdram import SDR_32MB, SdramCycles
from vrex.tb.lib.sdram_chip import Pins, SdramModel

CHIP = dataclasses.replace(SDR_32MB, init=500, refresh=700)
"""Starts soon and is refreshed often, so that a short run meets every rule."""

FASTEST = 133.0
"""MHz at which every rule is the one that decides somewhere."""

CYCLES = 1200
BEAT = 4


class Run:
    """Random single beats, written and read back, on a controller with its chip."""

    def __init__(
        self, mhz: float, cycles: SdramCycles, read_delay: int | None = None, registered: bool = False
    ) -> None:
        self.registered = registered
        self.model = SdramModel(CHIP, mhz, Random(5))
        self.unit = Sdram(CHIP, cycles, data_width=8 * BEAT, read_delay=read_delay)
        self.memory: dict[int, int] = {}
        self.wrong = self.reads = 0
        simulator = Simulator(self.unit)
        simulator.add_clock(1e-6)
        simulator.add_testbench(self._chip, background=True)
        simulator.add_testbench(self._master)
        simulator.run()

    async def _chip(self, ctx: Any) -> None:
        port, shown = self.unit.pins, None
        names = [field.name for field in dataclasses.fields(Pins)]
        before = Pins(cke=0)
        while True:
            ctx.set(port.dq_i, 0 if shown is None else shown)
            pins = Pins(**{name: ctx.get(getattr(port, name)) for name in names})
            # Behind registers the pins are a cycle late. The chip's edge is then within the cycle, so what it
            # shows after it is in a register at the cycle's end.
            shown = self.model.step(before if self.registered else pins)
            before = pins
            await ctx.tick()

    async def _master(self, ctx: Any) -> None:
        rng, port = Random(7), self.unit.s_axi
        for channel in (port.ar, port.aw):
            ctx.set(channel.burst, 1)
            ctx.set(channel.size, BEAT.bit_length() - 1)
        ctx.set(port.b.ready, 1)
        ctx.set(port.r.ready, 1)
        ctx.set(port.w.strb, (1 << BEAT) - 1)
        ctx.set(port.w.last, 1)
        while self.model.cycle < CYCLES:
            # Few rows of two banks, so that they are closed and opened all the time.
            address = rng.randrange(2) << 12 | rng.randrange(2) << 10 | rng.randrange(4) * BEAT
            if rng.random() < 0.5:
                self.memory[address] = word = rng.getrandbits(8 * BEAT)
                ctx.set(port.w.data, word)
                await self._both(ctx, address)
                await self._wait(ctx, port.b)
            else:
                ctx.set(port.ar.addr, address)
                await self._send(ctx, port.ar)
                word = await self._wait(ctx, port.r, port.r.data)
                expected = self.memory.setdefault(address, word)
                self.reads, self.wrong = self.reads + 1, self.wrong + (word != expected)
            await ctx.tick().repeat(1 + rng.randrange(4))

    async def _both(self, ctx: Any, address: int) -> None:
        ctx.set(self.unit.s_axi.aw.addr, address)
        await self._send(ctx, self.unit.s_axi.w)
        await self._send(ctx, self.unit.s_axi.aw)

    async def _send(self, ctx: Any, channel: Any) -> None:
        ctx.set(channel.valid, 1)
        while not ctx.get(channel.ready):
            await ctx.tick()
        await ctx.tick()
        ctx.set(channel.valid, 0)

    async def _wait(self, ctx: Any, channel: Any, value: Any = None) -> Any:
        while not ctx.get(channel.valid):
            await ctx.tick()
        found = None if value is None else ctx.get(value)
        await ctx.tick()
        return found


@pytest.mark.parametrize("mhz", [50.0, FASTEST])
def test_no_rule_is_broken(mhz: float) -> None:
    run = Run(mhz, CHIP.cycles(mhz))
    assert run.model.violations == []
    assert run.reads > 10
    assert run.wrong == 0
    assert run.model.refreshes > 8


PLANTED = {
    "tRCD": {"rcd": 2},
    "tRP": {"rp": 2},
    "tRAS": {"ras": 4},
    "tRC": {"rc": 8, "ras": 5},
    "tRFC": {"rfc": 9},
    "tWR": {"wr": 1},
    "tMRD": {"mrd": 1},
    "start": {"init": 60},
    "refresh interval": {"refresh": 130},
    "CAS latency": {"cas": 2},
}
"""Times of the controller that are too short at `FASTEST`, by the rule they break."""


@pytest.mark.parametrize("rule", list(PLANTED))
def test_a_time_that_is_too_short_is_found(rule: str) -> None:
    run = Run(FASTEST, dataclasses.replace(CHIP.cycles(FASTEST), **PLANTED[rule]))
    assert any(rule in violation for violation in run.model.violations), run.model.violations[:3]


def test_a_word_that_is_taken_too_early_is_found() -> None:
    cycles = CHIP.cycles(50)
    assert Run(50, cycles, read_delay=cycles.cas - 1).wrong > 3


@pytest.mark.parametrize("mhz", [50.0, FASTEST])
def test_a_board_with_registers_at_the_pins(mhz: float) -> None:
    cycles = CHIP.cycles(mhz)
    run = Run(mhz, cycles, read_delay=cycles.cas + EXTRA_READ_CYCLES, registered=True)
    assert (run.model.violations, run.wrong) == ([], 0)
    assert run.reads > 10
    assert Run(mhz, cycles, registered=True).wrong > 3


@pytest.mark.parametrize("bits", [16, 24, 48, 32_768])
def test_beats_that_are_no_words(bits: int) -> None:
    with pytest.raises(ValueError, match=f"beats of {bits} bits are not"):
        Sdram(CHIP, CHIP.cycles(50), data_width=bits)
