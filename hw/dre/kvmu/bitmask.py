"""The bitmask of one KV head: loaded from beats, read bit by bit."""

from typing import Any

from amaranth import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from vrex.hw.lib.stream import delay
from vrex.model.config import MAX_CLUSTERS

WORD_BITS = 32
"""Bits of a bitmask looked at in one cycle while it is loaded."""


def _bits_below(m: Module, limit: Any, word: Any) -> Any:
    """Mask of a word of a bitmask, its bits whose index is below the limit; a cycle after the word."""
    shift = WORD_BITS.bit_length() - 1
    whole = delay(m, word < limit >> shift, 1, "whole")
    edge = delay(m, word == limit >> shift, 1, "edge")
    within = Cat(bit < limit[:shift] for bit in range(WORD_BITS))
    return whole.replicate(WORD_BITS) | (within & edge.replicate(WORD_BITS))


class MaskMemory(wiring.Component):
    """A head's bitmask: loaded from beats, then read bit by bit.

    Loading takes a cycle for every 32 clusters and two. A bit follows its cluster by three cycles.

    Args:
        bus_bits: width of a beat.

    Members:
        start: load a bitmask.
        stop: load no more of it.
        clusters, known: bits of the bitmask, and how many of them may be 1.
        beats: the bitmask.
        loading: it is not complete yet, from the cycle after `start`.
        some, wrong: once complete: a bit is 1; a bit is 1 that may not be.
        cluster: number of the bit to read, in any cycle.
        selected: that bit, three cycles later.
    """

    start: Signal
    stop: Signal
    clusters: Signal
    known: Signal
    beats: stream.Interface
    loading: Signal
    some: Signal
    wrong: Signal
    cluster: Signal
    selected: Signal

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
        """Hardware: a memory of 32-bit words, written through a pipeline that masks and checks each word."""
        m = Module()
        shift, per_beat = WORD_BITS.bit_length() - 1, self.bus_bits // WORD_BITS
        memory: Memory[Any, Any] = Memory(shape=WORD_BITS, depth=(MAX_CLUSTERS + 1) // WORD_BITS, init=[])
        m.submodules.memory = memory
        write, read = memory.write_port(), memory.read_port()
        word = Signal(16 - shift + 1)
        # `clusters` is stable many cycles before the first beat.
        last = word == delay(m, (self.clusters - 1)[shift:16], 1, "last_word")
        taking = Signal()
        taken = Signal()
        m.d.comb += taken.eq(taking & self.beats.valid & ~self.start & ~self.stop)
        with m.If(self.start):
            m.d.sync += [word.eq(0), taking.eq(self.clusters != 0), self.some.eq(0), self.wrong.eq(0)]
        with m.Elif(self.stop):
            m.d.sync += taking.eq(0)
        with m.Elif(taking):
            m.d.comb += self.beats.ready.eq(last | (word[: per_beat.bit_length() - 1] == per_beat - 1))
            with m.If(self.beats.valid):
                m.d.sync += [word.eq(word + 1), taking.eq(~last)]
        # Three stages: a word is taken out of its beat, masked and stored, checked.
        bits = delay(
            m, self.beats.payload.word_select(word[: per_beat.bit_length() - 1], WORD_BITS), 1, "bits"
        )
        cut, cut_word = delay(m, taken, 1, "cut", reset=True), delay(m, word, 1, "cut_word")
        # Bits behind the last cluster are padding.
        used = bits & _bits_below(m, self.clusters, word)
        seen, seen_bits = delay(m, cut, 1, "seen", reset=True), delay(m, used, 1, "used")
        unknown = delay(m, used & ~_bits_below(m, self.known, word), 1, "unknown")
        with m.If(seen):
            m.d.sync += [
                self.some.eq(self.some | seen_bits.any()),
                self.wrong.eq(self.wrong | unknown.any()),
            ]
        m.d.comb += [
            self.loading.eq(taking | cut | seen),
            write.en.eq(cut),
            write.addr.eq(cut_word),
            write.data.eq(used),
            read.addr.eq(self.cluster >> shift),
        ]
        # Registered: a block memory's data arrive late in their cycle.
        read_bits, index = delay(m, read.data, 1, "read_bits"), delay(m, self.cluster[:shift], 2, "index")
        inside = delay(m, self.cluster < self.clusters, 2, "inside")
        m.d.sync += self.selected.eq(inside & read_bits.bit_select(index, 1))
        return m
