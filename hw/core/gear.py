"""Between beats of the bus and lines of the LXE's memory."""

from typing import Any

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from vrex.hw.lib.stream import Skid, word_layout


def _parts(line_bits: int, bus_bits: int) -> int:
    """Beats of a line.

    Raises:
        ValueError: a line is not made of whole beats.
    """
    if line_bits < bus_bits or line_bits % bus_bits:
        raise ValueError(f"lines of {line_bits} bits are not made of whole beats of {bus_bits}")
    return line_bits // bus_bits


class Widen(wiring.Component):
    """Makes lines of beats; the first beat is in the lowest bits. One beat a cycle, latency one cycle.

    Args:
        bus_bits: width of a beat.
        line_bits: width of a line, a multiple of it.

    Members:
        i: beats; `last` ends a row, and with it its line, whose missing beats are 0.
        o: lines; `last` marks the last one of a row.
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, bus_bits: int, line_bits: int) -> None:
        self.bus_bits, self.line_bits = bus_bits, line_bits
        self.parts = _parts(line_bits, bus_bits)
        super().__init__(
            {
                "i": In(stream.Signature(word_layout(bus_bits))),
                "o": Out(stream.Signature(word_layout(line_bits))),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """A register for each beat of a line but the last one, and a skid buffer behind them."""
        m = Module()
        m.submodules.skid = skid = Skid(word_layout(self.line_bits))
        connect(m, skid.o, flipped(self.o))
        beat = self.i.payload
        index = Signal(range(max(2, self.parts)))
        kept = [Signal(self.bus_bits, name=f"beat_{k}", reset_less=True) for k in range(self.parts - 1)]
        ends = beat.last | (index == self.parts - 1)
        # Beat k of the line: kept before, the one that comes, or missing.
        beats = [Mux(index > k, word, Mux(index == k, beat.data, 0)) for k, word in enumerate(kept)]
        beats.append(Mux(index == self.parts - 1, beat.data, 0))
        m.d.comb += [
            skid.i.payload.data.eq(Cat(beats)),
            skid.i.payload.last.eq(beat.last),
            skid.i.valid.eq(self.i.valid & ends),
            self.i.ready.eq(~ends | skid.i.ready),
        ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += index.eq(Mux(ends, 0, index + 1))
            for k, word in enumerate(kept):
                with m.If(index == k):
                    m.d.sync += word.eq(beat.data)
        return m


class Narrow(wiring.Component):
    """Makes beats of lines. One beat a cycle, no latency.

    Args:
        line_bits: width of a line.
        bus_bits: width of a beat, which divides it.

    Members:
        i: lines.
        o: beats.
        ends: with a beat that is taken: it is the last one of its row, so the rest of its line is dropped.
    """

    i: stream.Interface
    o: stream.Interface
    ends: Signal

    def __init__(self, line_bits: int, bus_bits: int) -> None:
        self.line_bits, self.bus_bits = line_bits, bus_bits
        self.parts = _parts(line_bits, bus_bits)
        super().__init__(
            {
                "i": In(stream.Signature(line_bits)),
                "o": Out(stream.Signature(bus_bits)),
                "ends": In(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """The number of the beat, and a multiplexer."""
        m = Module()
        index = Signal(range(max(2, self.parts)))
        done = self.ends | (index == self.parts - 1)
        m.d.comb += [
            self.o.payload.eq(self.i.payload.word_select(index, self.bus_bits)),
            self.o.valid.eq(self.i.valid),
            self.i.ready.eq(self.o.ready & done),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += index.eq(Mux(done, 0, index + 1))
        return m
