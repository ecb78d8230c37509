"""A design on a board: clock and reset, the serial line's pins, a memory behind its port, and LEDs."""

from typing import Any

from amaranth import Module, Signal
from amaranth.hdl import Elaboratable
from amaranth.lib import io
from amaranth.lib.cdc import FFSynchronizer

from vrex.hw.fpga.boards import Board
from vrex.hw.fpga.clocks import Clocks, Pll, add_domains

NAME = "top"
"""Module of a whole board."""

GLOW = 22
"""Bits of the counter that keeps an LED alight after a bit has passed: about 0.1 s at 50 MHz."""


class Top(Elaboratable):
    """What a board's FPGA holds.

    LEDs, as far as there are some: the clock runs (blinks), a bit comes in, a bit goes out, reset.

    Args:
        board: it.
        design: with members `rx` and `tx`, and `m_axi` and `memory_reset` if it needs the board's memory.
        mhz: of its clock.
        pll: makes the clock, None: it is the oscillator's.
    """

    def __init__(self, board: Board, design: Any, *, mhz: float, pll: Pll | None) -> None:
        self.board, self.design, self.mhz, self.pll = board, design, mhz, pll

    def elaborate(self, platform: Any) -> Module:
        """All of it."""
        m = Module()
        has_memory = hasattr(self.design, "m_axi")
        add_domains(m, shifted=has_memory)
        m.submodules.clocks = Clocks(self.board, self.pll, shifted=has_memory)
        m.submodules.design = design = self.design
        self._serial(m, platform)
        if has_memory:
            from vrex.hw.fpga.memory import attach

            attach(m, platform, self.board, design.m_axi, self.mhz, reset=design.memory_reset)
        self._leds(m, platform)
        if self.board.held_high is not None:
            resource, signal = self.board.held_high
            port = getattr(_request(platform, resource), signal)
            m.submodules.held = held = io.Buffer(io.Direction.Output, port)
            m.d.comb += held.o.eq(1)
        return m

    def _serial(self, m: Module, platform: Any) -> None:
        pins = _request(platform, "uart")
        m.submodules.rx = rx = io.Buffer(io.Direction.Input, pins.rx)
        m.submodules.tx = tx = io.FFBuffer(io.Direction.Output, pins.tx)
        # The design has a synchroniser of its own; this one is the LED's.
        self.rx = Signal(init=1)
        m.submodules.rx_sync = FFSynchronizer(rx.i, self.rx, init=1)
        m.d.comb += [self.design.rx.eq(rx.i), tx.o.eq(self.design.tx)]

    def _leds(self, m: Module, platform: Any) -> None:
        if not self.board.leds:
            return
        beat = Signal(25)
        m.d.sync += beat.eq(beat + 1)
        states = [beat[-1], self._glow(m, ~self.rx, "in"), self._glow(m, ~self.design.tx, "out")]
        for index, state in enumerate(states[: self.board.leds]):
            led = io.Buffer(io.Direction.Output, platform.request("led", index, dir="-"))
            m.submodules[f"led{index}"] = led
            m.d.comb += led.o.eq(state)

    def _glow(self, m: Module, event: Any, name: str) -> Any:
        """High from an event on, long enough to be seen."""
        left = Signal(GLOW, name=f"glow_{name}")
        with m.If(event):
            m.d.sync += left.eq(-1)
        with m.Elif(left != 0):
            m.d.sync += left.eq(left - 1)
        return left != 0


def _request(platform: Any, name: str) -> Any:
    """A resource's ports, without buffers."""
    signals = [signal.name for signal in platform.resources[name, 0].ios if hasattr(signal, "ios")]
    return platform.request(name, 0, dir=dict.fromkeys(signals, "-"))
