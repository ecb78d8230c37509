"""Reads a program ahead of the sequencer."""

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from vrex.hw.core.queue import Queue
from vrex.hw.lib.axi.burst import ADDRESS_BITS, REQUEST, Error, beat_layout
from vrex.model.core.instructions import WORDS

INSTRUCTION_BITS = 32 * WORDS
BLOCK = 4
"""Instructions that are asked for at once."""

AHEAD = 4
"""Blocks that the buffer holds."""

FETCHED = data.StructLayout({"bits": INSTRUCTION_BITS, "error": Error})
"""An instruction as memory holds it; nothing with an error."""


class Fetcher(wiring.Component):
    """Reads instructions one after another until it is sent elsewhere.

    Args:
        bus_bits: width of a beat.

    Members:
        address: where to go on; sampled with `start`.
        start: goes on there; what was read ahead is dropped.
        stop: reads nothing more; what was read ahead is dropped.
        request, beats: port of an `AxiReader`.
        o: instructions.
        idle: stopped, and nothing is under way.
    """

    address: Signal
    start: Signal
    stop: Signal
    request: stream.Interface
    beats: stream.Interface
    o: stream.Interface
    idle: Signal

    def __init__(self, bus_bits: int) -> None:
        self.bus_bits = bus_bits
        super().__init__(
            {
                "address": In(ADDRESS_BITS),
                "start": In(1),
                "stop": In(1),
                "request": Out(stream.Signature(REQUEST)),
                "beats": In(stream.Signature(beat_layout(bus_bits))),
                "o": Out(stream.Signature(FETCHED)),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """A buffer whose space is reserved before a block is asked for, and a register that beats fill up."""
        m = Module()
        parts = INSTRUCTION_BITS // self.bus_bits
        block = BLOCK * parts
        m.submodules.buffer = buffer = Queue(beat_layout(self.bus_bits), AHEAD * block)
        following = Signal(ADDRESS_BITS)
        running = Signal()
        broken = Signal()
        # Blocks under way, and beats of the buffer that are free and not reserved.
        asked = Signal(range(AHEAD + 1))
        free = Signal(range(AHEAD * block + 1), init=AHEAD * block)
        dropping = Signal()
        beat = self.beats.payload
        taken = self.request.valid & self.request.ready
        answered = self.beats.valid & self.beats.ready & beat.last
        popped = buffer.o.valid & buffer.o.ready
        asks = running & ~broken & ~dropping & (free >= block)
        # Held until it is taken.
        held = Signal()
        m.d.sync += held.eq(self.request.valid & ~self.request.ready)
        m.d.comb += [
            self.request.valid.eq(asks | held),
            self.request.payload.address.eq(following),
            self.request.payload.bytes.eq(block * self.bus_bits // 8),
            buffer.i.payload.eq(beat),
            buffer.i.valid.eq(self.beats.valid & ~dropping),
            self.beats.ready.eq(buffer.i.ready | dropping),
            self.idle.eq(~running & ~dropping & (asked == 0)),
        ]
        m.d.sync += [
            asked.eq(asked + taken - answered),
            free.eq(free - Mux(taken, block, 0) + popped),
        ]
        with m.If(taken):
            m.d.sync += following.eq(following + block * self.bus_bits // 8)
        # Behind an error nothing more is asked for.
        with m.If(self.beats.valid & (beat.error != Error.NONE)):
            m.d.sync += broken.eq(1)
        self._assemble(m, buffer, parts, dropping)
        self._redirect(m, buffer, free, asked, (following, running, broken, dropping), AHEAD * block)
        return m

    def _assemble(self, m: Module, buffer: Queue, parts: int, dropping: Signal) -> None:
        """Fills the output register beat by beat."""
        index = Signal(range(max(2, parts)))
        beat = buffer.o.payload
        fails = beat.error != Error.NONE
        m.d.comb += buffer.o.ready.eq(~self.o.valid | dropping)
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(buffer.o.valid & ~self.o.valid & ~dropping):
            m.d.sync += [
                self.o.payload.bits.word_select(index, self.bus_bits).eq(beat.data),
                self.o.payload.error.eq(beat.error),
                self.o.valid.eq(fails | (index == parts - 1)),
                index.eq(Mux(fails | (index == parts - 1), 0, index + 1)),
            ]
        with m.If(self.start | self.stop | dropping):
            m.d.sync += [self.o.valid.eq(0), index.eq(0)]

    def _redirect(
        self, m: Module, buffer: Queue, free: Signal, asked: Signal, state: Any, space: int
    ) -> None:
        """Drops what was read ahead, then goes on at the new address."""
        following, running, broken, dropping = state
        target = Signal(ADDRESS_BITS)
        goes_on = Signal()
        with m.If(self.start | self.stop):
            m.d.sync += [dropping.eq(1), target.eq(self.address), goes_on.eq(self.start)]
        with m.Elif(dropping & (asked == 0) & ~self.request.valid & ~buffer.o.valid & buffer.empty):
            m.d.sync += [
                dropping.eq(0),
                following.eq(target),
                running.eq(goes_on),
                broken.eq(0),
                free.eq(space),
            ]
