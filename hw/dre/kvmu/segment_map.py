"""The segment map on its way from memory."""

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from vrex.hw.lib.axi.burst import ADDRESS_BITS, PAGE_BITS, REQUEST, Error, beat_layout
from vrex.hw.lib.stream import Stage, delay
from vrex.model.dre.kvstore import MAP_BYTES

ENTRY = data.StructLayout({"cluster": 16, "fill": 16})
"""An entry of the segment map."""

NUMBERED_ENTRY = data.StructLayout({"entry": ENTRY, "segment": 32})
"""An entry and the number of its segment."""

CHUNK_BYTES = 256
CHUNKS = 4
"""The map is read in so many chunks of so many bytes ahead of the scan."""

PAGES_BITS = 39
"""Page numbers before they are known to be inside the address space: three bits more."""

FAR_BITS = PAGES_BITS + PAGE_BITS


class MapReader(wiring.Component):
    """Streams a segment map's entries; what was asked for always has space, so that memory never waits.

    Args:
        bus_bits: width of a beat.

    Members:
        start: read a map; only while `open` is low.
        address, segments: its first byte, on a page, and its entries; stable from `start` on.
        stop: ask for no more, discard what comes, and forget the error.
        entry: entries in order, with their numbers.
        open: answers are still to come, or entries to be taken.
        error: of the first access that failed so far.
        read, beats: a client's side of `vrex.hw.lib.axi.reader.AxiReader`.
    """

    start: Signal
    address: Signal
    segments: Signal
    stop: Signal
    entry: stream.Interface
    open: Signal
    error: Any
    read: stream.Interface
    beats: stream.Interface

    def __init__(self, bus_bits: int) -> None:
        self.bus_bits = bus_bits
        super().__init__(
            {
                "start": In(1),
                "address": In(FAR_BITS),
                "segments": In(32),
                "stop": In(1),
                "entry": Out(stream.Signature(NUMBERED_ENTRY)),
                "open": Out(1),
                "error": Out(Error),
                "read": Out(stream.Signature(REQUEST)),
                "beats": In(stream.Signature(beat_layout(bus_bits))),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware: a FIFO of beats asked for ahead, and a register whose entries are shown in turn."""
        m = Module()
        bus_bytes, per_beat = self.bus_bits // 8, self.bus_bits // (8 * MAP_BYTES)
        chunk_beats = CHUNK_BYTES // bus_bytes
        fifo: Any = SyncFIFOBuffered(width=8 * bus_bytes, depth=CHUNKS * chunk_beats + 1)
        m.submodules.fifo = fifo
        beat = self.beats.payload
        segment = Signal(32)
        popped = Signal(range(chunk_beats))
        m.submodules.stage = stage = Stage(8 * bus_bytes)
        shown = stage.o
        index = segment[: per_beat.bit_length() - 1]
        last = Signal()
        before_last = Signal(32)
        taken = self.entry.valid & self.entry.ready
        m.d.comb += [
            self.entry.payload.segment.eq(segment),
            self.entry.payload.entry.eq(shown.payload.word_select(index, ENTRY.size)),
            stage.i.payload.eq(fifo.r_data),
            stage.i.valid.eq(fifo.r_rdy),
            fifo.r_en.eq(stage.i.ready),
            self.entry.valid.eq(shown.valid & ~self.stop),
            shown.ready.eq(self.stop | (taken & (last | (index == per_beat - 1)))),
            fifo.w_data.eq(beat.data),
            fifo.w_en.eq(self.beats.valid & ~self.stop & (beat.error == Error.NONE)),
            self.beats.ready.eq(1),
        ]
        freed = fifo.r_rdy & fifo.r_en & (popped == chunk_beats - 1)
        with m.If(fifo.r_rdy & fifo.r_en):
            m.d.sync += popped.eq(popped + 1)
        with m.If(taken):
            m.d.sync += [segment.eq(segment + 1), last.eq(segment == before_last)]
        with m.If(self.beats.valid & (beat.error != Error.NONE)):
            m.d.sync += self.error.eq(beat.error)
        with m.If(self.stop):
            m.d.sync += self.error.eq(Error.NONE)
        owed = self._ask(m, freed)
        # Whether the FIFO holds beats or one has just been written, a cycle late.
        holds = delay(m, (fifo.level != 0) | fifo.w_en, 1, "holds", reset=True)
        m.d.comb += self.open.eq(owed | holds | shown.valid)
        with m.If(self.start):
            m.d.sync += [segment.eq(0), popped.eq(0)]
            m.d.sync += [last.eq(self.segments == 1), before_last.eq(self.segments - 2)]
        return m

    def _ask(self, m: Module, freed: Any) -> Any:
        """Requests, a chunk each, while the FIFO has space; returns whether one is under way or to come."""
        entries = CHUNK_BYTES // MAP_BYTES
        entry_bits = entries.bit_length() - 1
        # Chunks to ask for: their number, whether there are any, whether it is the last; bytes of the last.
        at = Signal(FAR_BITS)
        left = Signal(32 - entry_bits + 1)
        more = Signal()
        final = Signal()
        rest = Signal(range(CHUNK_BYTES + 1))
        # Chunks with beats that have not come, and with beats that have not been taken.
        owed = Signal(range(CHUNKS + 1))
        held = Signal(range(CHUNKS + 1))
        asked = self.read.valid & self.read.ready
        ended = self.beats.valid & self.beats.payload.last
        m.d.comb += [
            self.read.payload.address.eq(at),
            self.read.payload.bytes.eq(Mux(final, rest, CHUNK_BYTES)),
        ]
        m.d.sync += [owed.eq(owed + asked - ended), held.eq(held + asked - freed)]
        with m.If(asked):
            m.d.sync += [
                self.read.valid.eq(0),
                at.eq(at + CHUNK_BYTES),
                left.eq(left - 1),
                more.eq(~final),
                final.eq(left == 2),
            ]
        with m.Elif(~self.read.valid):
            with m.If(self.stop):
                m.d.sync += more.eq(0)
            with m.Elif(more & at[ADDRESS_BITS:].any()):
                m.d.sync += [more.eq(0), self.error.eq(Error.OUTSIDE)]
            with m.Elif(more & (held != CHUNKS)):
                m.d.sync += self.read.valid.eq(1)
        with m.If(self.start):
            odd = self.segments[:entry_bits]
            m.d.sync += [
                at.eq(self.address),
                left.eq((self.segments + (entries - 1)) >> entry_bits),
                more.eq(self.segments != 0),
                final.eq(self.segments <= entries),
                rest.eq(Mux(odd == 0, CHUNK_BYTES, odd * MAP_BYTES)),
                held.eq(0),
            ]
        return (owed != 0) | more | self.read.valid
