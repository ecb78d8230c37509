"""The movers: rows between memory, LXE and DRE (`vrex.model.core.instructions.Move`).

Each mover works through its MOVEs in order, and asks memory for the rows of the next ones while those before
are on their way. What goes wrong is told once, with the number of the instruction.
"""

from typing import Any

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from vrex.hw.core.codes import Dequantise, Scales, first_scale
from vrex.hw.core.gear import Narrow, Widen
from vrex.hw.core.queue import Queue
from vrex.hw.core.rows import ROWS, SCALE_BYTES, RowWalker, scales_layout
from vrex.hw.lib.axi.burst import LENGTH_BITS, REQUEST, Error, beat_layout
from vrex.hw.lib.axi.writer import DONE
from vrex.hw.lib.stream import Skid, word_layout
from vrex.model.config import Config
from vrex.model.core.instructions import SMALL_ROWS, Port, Status

INDEX_BITS = 32
"""Of the number of an instruction in its program."""

ITEM = data.StructLayout(
    {
        "rows": ROWS,
        "source": 4,
        "sink": 4,
        "index": INDEX_BITS,
        "is_word": 1,
        "word": 32,
    }
)
"""A MOVE and its number; with `is_word` a WRITE of `word` to the address of its one row."""

FAULT = data.StructLayout({"status": 8, "detail": 8, "index": INDEX_BITS})
"""What went wrong, and in which instruction."""

STATUS = {Error.OUTSIDE: Status.BAD_ADDRESS, Error.RESPONSE: Status.BUS_ERROR, Error.TIMEOUT: Status.TIMEOUT}


def status_of(error: Any) -> Any:
    """Status of a job whose access to memory ended with an error."""
    status: Any = Status.OK
    for code, name in STATUS.items():
        status = Mux(error == code, name, status)
    return status


def beats_of(size: Any, bus_bytes: int) -> Any:
    """Beats of a row of so many bytes."""
    return (size + (bus_bytes - 1)) >> bus_bytes.bit_length() - 1


SHARE = data.StructLayout({"rows": 16, "other": 1})
"""Rows that a MOVE brings to the stream of its engine: how many, and from which of two sources."""


def asked_layout(most_step: int, bus_bytes: int) -> data.StructLayout:
    """Rows that memory was asked for; of codes, how many bits they have and which scales are theirs.

    Args:
        most_step: see `scales_layout`.
        bus_bytes: of a beat.
    """
    coded = 1 if most_step else 0
    place = range(bus_bytes // SCALE_BYTES) if most_step else 0
    return data.StructLayout(
        {
            **{"rows": 16, "index": INDEX_BITS, "coded": coded, "four": coded},
            **{"step": range(most_step + 1), "place": place},
        }
    )


class Mover(wiring.Component):
    """Base class of `LoadMover` and `FeedMover`: rows from memory, or from another source, to one stream.

    Args:
        config: accelerator.
        shape: of a word of the stream.
        most_step: see `scales_layout`.

    Members:
        cmd: `ITEM`.
        scales: with `cmd`, `scales_layout`.
        request, beats: port of an `AxiReader`.
        other: words of the other source; `last` ends a row.
        o: words of both, MOVE by MOVE.
        busy: a MOVE has not ended.
        active: a row from memory is under way.
        fault: valid for a cycle with `FAULT`.
    """

    cmd: stream.Interface
    scales: Any
    request: stream.Interface
    beats: stream.Interface
    other: stream.Interface
    o: stream.Interface
    busy: Signal
    active: Signal
    fault: stream.Interface

    def __init__(self, config: Config, shape: Any, most_step: int = 0) -> None:
        self.config, self.shape, self.most_step = config, shape, most_step
        super().__init__(
            {
                "cmd": In(stream.Signature(ITEM)),
                "scales": In(scales_layout(most_step)),
                "request": Out(stream.Signature(REQUEST)),
                "beats": In(stream.Signature(beat_layout(config.bus_bits))),
                "other": In(stream.Signature(word_layout(shape))),
                "o": Out(stream.Signature(shape)),
                "busy": Out(1),
                "active": Out(1),
                "fault": Out(stream.Signature(FAULT, always_ready=True)),
            }
        )

    def _words(self, m: Module, asked: Any, first: Any) -> Any:
        """Adds what lies between `beats` and the stream.

        Args:
            m: module.
            asked: `asked_layout` of the MOVE whose beats come.
            first: they are those of its first request.

        Returns:
            stream in, stream out, of `word_layout`.
        """
        raise NotImplementedError

    def elaborate(self, platform: Any) -> Module:
        """A queue, a walker over rows, and the order of what is under way."""
        m = Module()
        depth, bus_bytes = self.config.core.queue, self.config.bus_bytes
        entry = data.StructLayout({"item": ITEM, "scales": scales_layout(self.most_step)})
        m.submodules.queue = queue = Queue(entry, depth)
        m.submodules.order = order = Queue(SHARE, depth)
        m.submodules.asked = asked = Queue(asked_layout(self.most_step, bus_bytes), depth)
        m.submodules.walker = walker = RowWalker(self.most_step)
        connect(m, walker.o, flipped(self.request))
        item, scales = queue.o.payload.item, queue.o.payload.scales
        other, wanted = item.source != Port.MEMORY, queue.o.valid & (item.rows.rows != 0)
        free = order.i.ready & (other | (asked.i.ready & walker.cmd.ready))
        m.d.comb += [
            *(queue.i.valid.eq(self.cmd.valid), self.cmd.ready.eq(queue.i.ready)),
            *(queue.i.payload.item.eq(self.cmd.payload), queue.i.payload.scales.eq(self.scales)),
            queue.o.ready.eq(free | (item.rows.rows == 0)),
            order.i.valid.eq(wanted & free),
            asked.i.valid.eq(wanted & free & ~other),
            walker.cmd.valid.eq(wanted & free & ~other),
            *(walker.cmd.payload.eq(item.rows), walker.scales.eq(scales)),
            *(order.i.payload.rows.eq(item.rows.rows), order.i.payload.other.eq(other)),
            *(asked.i.payload.rows.eq(item.rows.rows), asked.i.payload.index.eq(item.index)),
            *(getattr(asked.i.payload, name).eq(getattr(scales, name)) for name in ("coded", "four", "step")),
        ]
        if self.most_step:
            m.d.comb += asked.i.payload.place.eq(first_scale(scales, item.rows.first, bus_bytes))
        self._merge(m, order, self._answers(m, asked))
        m.d.comb += [
            self.active.eq(walker.busy | ~asked.empty),
            self.busy.eq(~queue.empty | ~order.empty | order.o.valid | queue.o.valid | walker.busy),
        ]
        return m

    def _answers(self, m: Module, asked: Queue) -> Any:
        """Passes the beats that memory gives, and tells errors; returns the words made of them."""
        beat = self.beats.payload
        share = asked.o.payload
        requests = Signal(16)
        into, out = self._words(m, share, requests == 0)
        m.d.comb += [
            into.payload.data.eq(beat.data),
            into.payload.last.eq(beat.last),
            into.valid.eq(self.beats.valid & asked.o.valid),
            self.beats.ready.eq(into.ready & asked.o.valid),
            self.fault.valid.eq(self.beats.valid & asked.o.valid & (beat.error != Error.NONE)),
            self.fault.payload.status.eq(status_of(beat.error)),
            self.fault.payload.index.eq(share.index),
        ]
        with m.If(self.beats.valid & self.beats.ready & beat.last):
            # The scales are one more.
            ends = requests == (share.rows if self.most_step == 0 else share.rows + share.coded) - 1
            m.d.sync += requests.eq(Mux(ends, 0, requests + 1))
            m.d.comb += asked.o.ready.eq(ends)
        return out

    def _merge(self, m: Module, order: Queue, out: Any) -> None:
        """Gives the words of both sources in the order of the MOVEs."""
        share = order.o.payload
        rows = Signal(16)
        source_valid = Mux(share.other, self.other.valid, out.valid) & order.o.valid
        last = Mux(share.other, self.other.payload.last, out.payload.last)
        taken = source_valid & self.o.ready
        ends = rows == share.rows - 1
        m.d.comb += [
            self.o.valid.eq(source_valid),
            self.o.payload.eq(Mux(share.other, self.other.payload.data, out.payload.data)),
            self.other.ready.eq(order.o.valid & share.other & self.o.ready),
            out.ready.eq(order.o.valid & ~share.other & self.o.ready),
            order.o.ready.eq(taken & last & ends),
        ]
        with m.If(taken & last):
            m.d.sync += rows.eq(Mux(ends, 0, rows + 1))


class LoadMover(Mover):
    """Rows from memory, and tokens from the DRE, to the LXE's `din`; lines are read ahead of the LXE.

    Of rows of codes it makes BF16. Rows as they are wait until those have left `Dequantise`.

    Args:
        config: accelerator.

    Members: see `Mover`; a word is a line.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config, 8 * config.dpe.beat_bytes, config.kvmu.kv_heads)

    def _words(self, m: Module, asked: Any, first: Any) -> Any:
        config, line_bits = self.config, 8 * self.config.dpe.beat_bytes
        m.submodules.scales = scales = Scales(self.most_step, config.bus_bits)
        m.submodules.codes = codes = Dequantise(config)
        m.submodules.widen = widen = Widen(config.bus_bits, line_bits, codes.most)
        m.submodules.lines = lines = Queue(word_layout(line_bits), config.core.stream_lines)
        connect(m, widen.o, lines.i)
        connect(m, scales.o, codes.scales)
        into = stream.Signature(word_layout(config.bus_bits)).create(path=("into",))
        is_scales, plain = asked.coded & first, ~asked.coded
        m.d.comb += [
            scales.i.payload.eq(into.payload.data),
            scales.i.valid.eq(into.valid & is_scales),
            scales.start.eq(into.valid & is_scales & into.payload.last & scales.i.ready),
            *(scales.picks.rows.eq(asked.rows), scales.picks.step.eq(asked.step)),
            scales.picks.place.eq(asked.place),
            codes.i.payload.eq(into.payload),
            codes.i.valid.eq(into.valid & asked.coded & ~first),
            codes.four.eq(asked.four),
            widen.i.payload.eq(codes.o.payload),
            widen.size.eq(codes.size),
            widen.i.valid.eq(codes.o.valid | (into.valid & plain & ~codes.busy)),
            codes.o.ready.eq(widen.i.ready),
            into.ready.eq(
                Mux(is_scales, scales.i.ready, Mux(plain, widen.i.ready & ~codes.busy, codes.i.ready))
            ),
        ]
        with m.If(~codes.o.valid):
            m.d.comb += [
                *(widen.i.payload.data.eq(into.payload.data), widen.i.payload.last.eq(into.payload.last)),
                widen.size.eq(0),
            ]
        return into, lines.o


class FeedMover(Mover):
    """Rows from memory, and from the LXE, to the DRE's `din`.

    Args:
        config: accelerator.

    Members: see `Mover`; a word is a beat.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config, config.bus_bits)

    def _words(self, m: Module, asked: Any, first: Any) -> Any:
        m.submodules.skid = skid = Skid(word_layout(self.config.bus_bits))
        return skid.i, skid.o


OUTLET = data.StructLayout({"feed": 1, "rows": 16, "bytes": LENGTH_BITS})
"""Rows of the LXE's `dout`: for the DRE or for memory, how many, and their bytes."""


class Outlet(wiring.Component):
    """Deals the LXE's `dout` out to `FeedMover` and SAVE's `WriteMover`, in the order of the instructions.

    Args:
        config: accelerator.

    Members:
        cmd: `OUTLET`, in the order of the instructions.
        i: lines.
        feed: beats for the DRE; `last` ends a row.
        save: beats for memory; rows of `SMALL_ROWS` bytes are repeated over their beat.
        busy: rows are still to come.
    """

    cmd: stream.Interface
    i: stream.Interface
    feed: stream.Interface
    save: stream.Interface
    busy: Signal

    def __init__(self, config: Config) -> None:
        self.config = config
        beat = stream.Signature(word_layout(config.bus_bits))
        super().__init__(
            {
                "cmd": In(stream.Signature(OUTLET)),
                "i": In(stream.Signature(8 * config.dpe.beat_bytes)),
                "feed": Out(beat),
                "save": Out(stream.Signature(config.bus_bits)),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """The order of the MOVEs, and counters of beats and rows."""
        m = Module()
        config, line_bits = self.config, 8 * self.config.dpe.beat_bytes
        m.submodules.order = order = Queue(OUTLET, 2 * config.core.queue)
        m.submodules.line = line = Skid(line_bits)
        m.submodules.narrow = narrow = Narrow(line_bits, config.bus_bits)
        m.submodules.skid = skid = Skid(word_layout(config.bus_bits))
        connect(m, flipped(self.cmd), order.i)
        connect(m, flipped(self.i), line.i)
        connect(m, line.o, narrow.i)
        connect(m, skid.o, flipped(self.feed))
        entry = order.o.payload
        beats = Signal(LENGTH_BITS)
        rows = Signal(16)
        ends = beats == beats_of(entry.bytes, config.bus_bytes) - 1
        ready = order.o.valid & Mux(entry.feed, skid.i.ready, self.save.ready)
        taken = narrow.o.valid & narrow.o.ready
        m.d.comb += [
            narrow.ends.eq(ends),
            narrow.o.ready.eq(ready),
            skid.i.payload.data.eq(narrow.o.payload),
            skid.i.payload.last.eq(ends),
            skid.i.valid.eq(order.o.valid & entry.feed & narrow.o.valid),
            self.save.valid.eq(order.o.valid & ~entry.feed & narrow.o.valid),
            self.save.payload.eq(self._repeated(narrow.o.payload, entry.bytes)),
            order.o.ready.eq(taken & ends & (rows == entry.rows - 1)),
            self.busy.eq(~order.empty | order.o.valid | skid.o.valid),
        ]
        with m.If(taken):
            m.d.sync += beats.eq(Mux(ends, 0, beats + 1))
            with m.If(ends):
                m.d.sync += rows.eq(Mux(rows == entry.rows - 1, 0, rows + 1))
        return m

    def _repeated(self, beat: Any, size: Any) -> Any:
        """A beat as memory takes it: a small row in every place where it may lie."""
        result: Any = beat
        for small in SMALL_ROWS:
            if small < self.config.bus_bytes:
                repeated = Cat([beat[: 8 * small]] * (self.config.bus_bytes // small))
                result = Mux(size == small, repeated, result)
        return result


class WriteMover(wiring.Component):
    """Rows of a stream to memory, or nowhere, one MOVE at a time: engines SAVE and RESULT.

    Args:
        config: accelerator.

    Members:
        cmd: `ITEM`.
        i: beats.
        write, data, done: port of an `AxiWriter`.
        busy: a MOVE has not ended.
        fault: valid for a cycle with `FAULT`.
    """

    cmd: stream.Interface
    i: stream.Interface
    write: stream.Interface
    data: stream.Interface
    done: stream.Interface
    busy: Signal
    fault: stream.Interface

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "cmd": In(stream.Signature(ITEM)),
                "i": In(stream.Signature(config.bus_bits)),
                "write": Out(stream.Signature(REQUEST)),
                "data": Out(stream.Signature(config.bus_bits)),
                "done": In(stream.Signature(DONE)),
                "busy": Out(1),
                "fault": Out(stream.Signature(FAULT, always_ready=True)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """A queue, a walker over rows, and a counter of those that are written."""
        m = Module()
        m.submodules.queue = queue = Queue(ITEM, self.config.core.queue)
        m.submodules.walker = walker = RowWalker()
        connect(m, flipped(self.cmd), queue.i)
        item: Any = Signal(ITEM)
        left = Signal(16)
        beats = Signal(LENGTH_BITS)
        per_row = beats_of(item.rows.bytes, self.config.bus_bytes)
        m.d.comb += [
            walker.cmd.payload.eq(queue.o.payload.rows),
            # Not before there are data, since an address without them would hold back all other writes.
            self.write.payload.eq(walker.o.payload),
            self.write.valid.eq(walker.o.valid & (self.i.valid | item.is_word)),
            walker.o.ready.eq(self.write.ready & (self.i.valid | item.is_word)),
            self.done.ready.eq(1),
            self.fault.valid.eq(self.done.valid & (self.done.payload.error != Error.NONE) & self.busy),
            self.fault.payload.status.eq(status_of(self.done.payload.error)),
            self.fault.payload.index.eq(item.index),
            self.data.payload.eq(
                Mux(item.is_word, Cat([item.word] * (self.config.bus_bits // 32)), self.i.payload)
            ),
        ]
        to_memory = queue.o.payload.sink == Port.MEMORY
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [
                    queue.o.ready.eq(walker.cmd.ready),
                    walker.cmd.valid.eq(queue.o.valid & (queue.o.payload.rows.rows != 0) & to_memory),
                    self.busy.eq(~queue.empty | queue.o.valid),
                ]
                m.d.sync += [item.eq(queue.o.payload), left.eq(queue.o.payload.rows.rows), beats.eq(0)]
                with m.If(queue.o.valid & walker.cmd.ready & (queue.o.payload.rows.rows != 0)):
                    m.next = "DROP"
                    with m.If(to_memory):
                        m.next = "WRITE"
            with m.State("WRITE"):
                m.d.comb += [
                    self.busy.eq(1),
                    self.data.valid.eq(self.i.valid | item.is_word),
                    self.i.ready.eq(self.data.ready & ~item.is_word),
                ]
                with m.If(self.done.valid):
                    m.d.sync += left.eq(left - 1)
                    with m.If(left == 1):
                        m.next = "IDLE"
            with m.State("DROP"):
                m.d.comb += [self.busy.eq(1), self.i.ready.eq(1)]
                with m.If(self.i.valid):
                    m.d.sync += beats.eq(Mux(beats == per_row - 1, 0, beats + 1))
                    with m.If(beats == per_row - 1):
                        m.d.sync += left.eq(left - 1)
                        with m.If(left == 1):
                            m.next = "IDLE"
        return m
