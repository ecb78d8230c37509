"""UART: two pins to two streams of bytes; eight bits, no parity, one stop bit, lowest bit first."""

from importlib import import_module
from typing import Any

from amaranth import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from vrex.model.serial.line import BITS, LEAST_DIVISOR

BYTE = 8


class Uart(wiring.Component):
    """Receives and sends bytes at one bit every `divisor` clock cycles.

    The receiver samples each bit in its middle, counted from the falling edge of the start bit behind a
    synchroniser of two registers; so the clocks of both ends may differ by 4 % together at 16 cycles a bit,
    by 2 % at 4. A byte whose start bit is gone in its middle, or whose stop bit is 0, is dropped.

    Args:
        divisor: clock frequency / baud rate, at least `LEAST_DIVISOR`.

    Members:
        rx, tx: the pins, 1 while nobody sends.
        received: bytes received, valid for one cycle each; `ready` is not looked at, a byte that nobody takes
            is lost.
        send: bytes to send; one is taken every 10 x `divisor` + 1 cycles.
    """

    rx: Signal
    tx: Signal
    received: stream.Interface
    send: stream.Interface

    def __init__(self, *, divisor: int) -> None:
        """A UART.

        Raises:
            ValueError: `divisor` is too small.
        """
        if divisor < LEAST_DIVISOR:
            raise ValueError(f"a bit must take at least {LEAST_DIVISOR} clock cycles, not {divisor}")
        self.divisor = divisor
        super().__init__(
            {
                "rx": In(1),
                "tx": Out(1),
                "received": Out(stream.Signature(BYTE)),
                "send": In(stream.Signature(BYTE)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """A counter and a shift register each way."""
        m = Module()
        self._receive(m)
        self._send(m)
        return m

    def _receive(self, m: Module) -> None:
        """Sampling in the middle of every bit."""
        rx = Signal(init=1)
        # By its name, because amaranth-stubs lacks this module.
        cdc: Any = import_module("amaranth.lib.cdc")
        m.submodules.synchronizer = cdc.FFSynchronizer(self.rx, rx, init=1)
        timer = Signal(range(self.divisor))
        left = Signal(range(BITS + 1))
        byte = Signal(BYTE)
        broken = Signal()
        m.d.comb += self.received.payload.eq(byte)
        m.d.sync += [timer.eq(timer - 1), self.received.valid.eq(0)]
        with m.If(left == 0):
            # The edge is seen within the start bit's first cycle.
            m.d.sync += timer.eq(self.divisor // 2 - 1)
            with m.If(~rx & ~broken):
                m.d.sync += left.eq(BITS)
            with m.If(rx):
                m.d.sync += broken.eq(0)
        with m.Elif(timer == 0):
            m.d.sync += [timer.eq(self.divisor - 1), left.eq(left - 1)]
            with m.If(left == 1):
                # The next start bit is behind a 1, however long the line is 0 now.
                m.d.sync += [self.received.valid.eq(rx), broken.eq(~rx)]
            with m.Else():
                m.d.sync += byte.eq(Cat(byte[1:], rx))
            with m.If((left == BITS) & rx):
                m.d.sync += left.eq(0)

    def _send(self, m: Module) -> None:
        """Ten bits, the last one the stop bit."""
        timer = Signal(range(self.divisor))
        left = Signal(range(BITS + 1))
        bits = Signal(BYTE + 1, init=(1 << BYTE + 1) - 1)
        m.d.comb += [self.tx.eq(bits[0]), self.send.ready.eq(left == 0)]
        m.d.sync += timer.eq(timer - 1)
        with m.If(left == 0):
            m.d.sync += timer.eq(self.divisor - 1)
            with m.If(self.send.valid):
                m.d.sync += [bits.eq(Cat(0, self.send.payload)), left.eq(BITS)]
        with m.Elif(timer == 0):
            m.d.sync += [timer.eq(self.divisor - 1), bits.eq(Cat(bits[1:], 1)), left.eq(left - 1)]
