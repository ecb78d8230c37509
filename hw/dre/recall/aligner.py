"""Moves the bytes of beats up to where they go in memory."""

from typing import Any

from amaranth import C, Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from vrex.hw.lib.axi.burst import LENGTH_BITS, beat_shift


class Aligner(wiring.Component):
    """Shifts packets of beats up by some bytes: a beat a cycle, latency one cycle.

    Args:
        bus_bits: width of a beat.
        step: bytes that a shift is a multiple of, a power of two.

    Members:
        cmd: a packet: its beats, those of the result (as many or one more), and the shift in steps.
        i: the packet.
        o: the result; its first bytes are 0.
        takes: beats of a packet are still to be taken.
        busy: beats of the result are still to leave.
    """

    cmd: stream.Interface
    i: stream.Interface
    o: stream.Interface
    takes: Signal
    busy: Signal

    def __init__(self, bus_bits: int, *, step: int) -> None:
        self.bus_bits, self.step_bits = bus_bits, 8 * step
        beats = LENGTH_BITS - beat_shift(bus_bits) + 1
        shift = range(max(bus_bits // self.step_bits, 2))
        super().__init__(
            {
                "cmd": In(
                    stream.Signature(data.StructLayout({"take": beats, "give": beats, "shift": shift}))
                ),
                "i": In(stream.Signature(bus_bits)),
                "o": Out(stream.Signature(bus_bits)),
                "takes": Out(1),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware: a shifter, a register of the bytes that a beat leaves to the next, two counters."""
        m = Module()
        cmd = self.cmd.payload
        take = Signal.like(cmd.take)
        give = Signal.like(cmd.give)
        shift = Signal.like(cmd.shift)
        # Known ahead: there are any of them.
        taking = self.takes
        giving = Signal()
        carry = Signal(self.bus_bits)
        beat = Mux(taking, self.i.payload, 0)
        both = Cat(beat, C(0, self.bus_bits)) << (shift * self.step_bits)
        free = self.o.ready | ~self.o.valid
        moves = giving & free & (self.i.valid | ~taking)
        m.d.comb += [
            self.cmd.ready.eq(~giving),
            self.busy.eq(giving | self.o.valid),
            self.i.ready.eq(giving & taking & free),
        ]
        with m.If(free):
            m.d.sync += [self.o.valid.eq(moves), self.o.payload.eq(both[: self.bus_bits] | carry)]
        with m.If(self.cmd.valid & self.cmd.ready):
            m.d.sync += [take.eq(cmd.take), give.eq(cmd.give), shift.eq(cmd.shift), carry.eq(0)]
            m.d.sync += [taking.eq(cmd.take != 0), giving.eq(cmd.give != 0)]
        with m.If(moves):
            m.d.sync += [
                carry.eq(both[self.bus_bits : 2 * self.bus_bits]),
                take.eq(take - taking),
                give.eq(give - 1),
                taking.eq(taking & (take != 1)),
                giving.eq(give != 1),
            ]
        return m
