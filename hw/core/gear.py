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
    """Makes lines of beats; the first beat is in the lowest bits. One word a cycle, latency one cycle.

    Args:
        bus_bits: width of a beat.
        line_bits: width of a line, a multiple of it.
        most: beats that a word has at most, a power of two.

    Members:
        i: words; `last` ends a row, and with it its line, whose missing beats are 0.
        size: log2 of the beats of a word, the same for a whole row; the others are passed over.
        o: lines; `last` marks the last one of a row.
    """

    i: stream.Interface
    size: Signal
    o: stream.Interface

    def __init__(self, bus_bits: int, line_bits: int, most: int = 1) -> None:
        self.bus_bits, self.line_bits, self.most = bus_bits, line_bits, most
        self.parts = _parts(line_bits, bus_bits)
        super().__init__(
            {
                "i": In(stream.Signature(word_layout(most * bus_bits))),
                "size": In(range(most.bit_length())),
                "o": Out(stream.Signature(word_layout(line_bits))),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """A register for each beat of a line but the last one, and a skid buffer behind them."""
        m = Module()
        m.submodules.skid = skid = Skid(word_layout(self.line_bits))
        connect(m, skid.o, flipped(self.o))
        word, parts = self.i.payload, self.parts
        index = Signal(range(max(2, parts)))
        kept = [Signal(self.bus_bits, name=f"beat_{k}", reset_less=True) for k in range(parts - 1)]
        beats = 1 << self.size
        ends = word.last | (index == parts - beats)
        # Of the line, which beats come now, and which have come before.
        now = [self._comes(k, index) for k in range(parts)]
        places = [self._beat(k) for k in range(parts)]
        line = [
            Mux(now[k], places[k], Mux(index > k, before, 0) if before is not None else 0)
            for k, before in enumerate([*kept, None])
        ]
        m.d.comb += [
            skid.i.payload.data.eq(Cat(line)),
            skid.i.payload.last.eq(word.last),
            skid.i.valid.eq(self.i.valid & ends),
            self.i.ready.eq(~ends | skid.i.ready),
        ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += index.eq(Mux(ends, 0, index + beats))
            for k, before in enumerate(kept):
                with m.If(now[k]):
                    m.d.sync += before.eq(places[k])
        return m

    def _comes(self, k: int, index: Any) -> Any:
        """Whether beat k of the line is in the word."""
        result: Any = index == k
        for log in range(1, self.most.bit_length()):
            result = Mux(self.size == log, index >> log == k >> log, result)
        return result

    def _beat(self, k: int) -> Any:
        """Beat k of the line, if it is in the word."""
        beats = [self.i.payload.data.word_select(n, self.bus_bits) for n in range(self.most)]
        result = beats[0]
        for log in range(1, self.most.bit_length()):
            result = Mux(self.size == log, beats[k % (1 << log)], result)
        return result


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
