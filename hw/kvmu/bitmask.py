"""The bitmask of one KV head: loaded from beats, read bit by bit."""

from typing import Any

from amaranth import C, Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from vrex.model.config import MAX_CLUSTERS

WORD_BITS = 32
"""Bits of a bitmask looked at in one cycle while it is loaded."""


def _bits_below(limit: Any, word: Any) -> Any:
    """Mask of a word of a bitmask: its bits whose index is below the limit."""
    shift = WORD_BITS.bit_length() - 1
    within = Cat(bit < limit[:shift] for bit in range(WORD_BITS))
    whole = C((1 << WORD_BITS) - 1, WORD_BITS)
    return Mux(word < limit >> shift, whole, Mux(word == limit >> shift, within, 0))


class MaskMemory(wiring.Component):
    """A head's bitmask: loaded from beats, then read bit by bit.

    Loading takes a cycle for every 32 clusters. A bit follows its cluster by two cycles.

    Args:
        bus_bits: width of a beat.

    Members:
        start: take a bitmask.
        stop: take no more of it.
        clusters, known: bits of the bitmask, and how many of them may be 1.
        beats: the bitmask.
        loading: it is not complete yet, from the cycle after `start`.
        some, wrong: once complete: a bit is 1; a bit is 1 that may not be.
        cluster: bit to read, in any cycle.
        selected: it, two cycles later.
    """

    def __init__(self, bus_bits: int) -> None:
        self.bus_bits = bus_bits
        super().__init__(
            {
                "start": In(1),
                "stop": In(1),
                "clusters": In(16),
                "known": In(32),
                "beats": In(stream.Signature(bus_bits)),
                "loading": Out(1),
                "some": Out(1),
                "wrong": Out(1),
                "cluster": In(16),
                "selected": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware."""
        m = Module()
        shift, per_beat = WORD_BITS.bit_length() - 1, self.bus_bits // WORD_BITS
        m.submodules.memory = memory = Memory(shape=WORD_BITS, depth=(MAX_CLUSTERS + 1) // WORD_BITS, init=[])
        write, read = memory.write_port(), memory.read_port()
        word = Signal(16 - shift + 1)
        # Whatever lies behind the last cluster in its beat does not count.
        bits = self.beats.payload.word_select(word[: per_beat.bit_length() - 1], WORD_BITS)
        used = bits & _bits_below(self.clusters, word)
        last = word == (self.clusters - 1)[shift:16]
        with m.If(self.start):
            m.d.sync += [word.eq(0), self.loading.eq(self.clusters != 0), self.some.eq(0), self.wrong.eq(0)]
        with m.Elif(self.stop):
            m.d.sync += self.loading.eq(0)
        with m.Elif(self.loading):
            m.d.comb += [
                write.en.eq(self.beats.valid),
                self.beats.ready.eq(last | (word[: per_beat.bit_length() - 1] == per_beat - 1)),
            ]
            with m.If(self.beats.valid):
                m.d.sync += [
                    word.eq(word + 1),
                    self.loading.eq(~last),
                    self.some.eq(self.some | used.any()),
                    self.wrong.eq(self.wrong | (used & ~_bits_below(self.known, word)).any()),
                ]
        m.d.comb += [
            write.addr.eq(word),
            write.data.eq(used),
            read.addr.eq(self.cluster >> shift),
        ]
        index, inside = Signal(shift), Signal()
        m.d.sync += [
            index.eq(self.cluster),
            inside.eq(self.cluster < self.clusters),
            self.selected.eq(inside & read.data.bit_select(index, 1)),
        ]
        return m
