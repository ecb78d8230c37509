"""Reads lines of the LXE's memory into a stream, and unpacks them into words of the vector engine."""

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from vrex.hw.lib.stream import delay
from vrex.hw.lxe.memory import ReadPort, ReadPortSignature
from vrex.model.config import DpeConfig, LxeConfig

ROOM = 6
"""Lines in flight or waiting in the FIFO: enough for one line a cycle."""


def request_layout(config: LxeConfig, dpe: DpeConfig) -> data.StructLayout:
    """A request: number of the line, the first of its values that are used, and how many they are."""
    inputs = dpe.inputs
    return data.StructLayout(
        {"line": range(max(2, config.lines(dpe))), "keep": range(inputs + 1), "first": range(max(2, inputs))}
    )


class Reader(wiring.Component):
    """Reads lines in the order of the requests and replaces unused values by zeros.

    Args:
        config: size of the memory.
        dpe: width of a line.

    Members:
        request: see `request_layout`; `keep` values from `first` on are used.
        port: read port of the memory.
        o: lines, shifted so that the value `first` is in the lowest place.
        idle: no request is pending and no line is in flight or waiting.
    """

    request: stream.Interface
    port: ReadPort
    o: stream.Interface
    idle: Signal

    def __init__(self, config: LxeConfig, *, dpe: DpeConfig) -> None:
        self.inputs, self.line_bits = dpe.inputs, 8 * dpe.beat_bytes
        super().__init__(
            {
                "request": In(stream.Signature(request_layout(config, dpe))),
                "port": Out(ReadPortSignature(config, dpe)),
                "o": Out(stream.Signature(self.line_bits)),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Builds the request logic with its credit counter, the masking of values, and a FIFO of lines."""
        m = Module()
        m.submodules.lines = fifo = SyncFIFOBuffered(width=self.line_bits, depth=ROOM)
        request = self.request.payload
        room = Signal(range(ROOM + 1), init=ROOM)
        granted = Signal()
        taken = Signal()
        m.d.comb += [
            self.port.en.eq(self.request.valid & (room != 0)),
            self.port.line.eq(request.line),
            granted.eq(self.port.en & self.port.granted),
            self.request.ready.eq((room != 0) & self.port.granted),
            taken.eq(self.o.valid & self.o.ready),
            self.idle.eq(~self.request.valid & (room == ROOM)),
        ]
        with m.If(granted != taken):
            m.d.sync += room.eq(Mux(granted, room - 1, room + 1))
        keep, first = delay(m, request.keep, 1, "keep"), delay(m, request.first, 1, "first")
        moved = self.port.data >> (first << 4)
        values = [moved.word_select(i, 16) & (keep > i).replicate(16) for i in range(self.inputs)]
        m.d.comb += [
            fifo.w_data.eq(Cat(values)),
            fifo.w_en.eq(delay(m, granted, 1, "came", reset=True)),
            self.o.payload.eq(fifo.r_data),
            self.o.valid.eq(fifo.r_rdy),
            fifo.r_en.eq(self.o.ready),
        ]
        return m


class Unpacker(wiring.Component):
    """Unpacks the lines of rows into words of the vector engine, one element in each 32 bits.

    Args:
        inputs: 16-bit values of a line.
        lanes: elements of a word, at most `inputs`.

    Members:
        bf16: elements are BF16, else FP32.
        words: words of a row, at least 1; each row starts on a new line.
        i: lines.
        o: words; a BF16 element is in the lower half of its 32 bits.
    """

    bf16: Signal
    words: Signal
    i: stream.Interface
    o: stream.Interface

    def __init__(self, inputs: int, lanes: int) -> None:
        self.inputs, self.lanes = inputs, lanes
        super().__init__(
            {
                "bf16": In(1),
                "words": In(24),
                "i": In(stream.Signature(16 * self.inputs)),
                "o": Out(stream.Signature(32 * self.lanes)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Builds a multiplexer that selects words of a line, and a register for half an FP32 word."""
        m = Module()
        narrow, wide = 16 * self.lanes, 32 * self.lanes
        whole = self.inputs == self.lanes
        place = Signal(range(max(2, self.inputs // self.lanes)))
        left = Signal(24)
        half = Signal(narrow)
        has_half = Signal()
        begun = Signal()
        line = self.i.payload
        short = line.word_select(place, narrow)
        spread = Cat(Cat(short.word_select(k, 16), Const(0, 16)) for k in range(self.lanes))
        # With as many lanes as a line has BF16 values, an FP32 word takes two lines.
        full = Cat(half, line) if whole else line.word_select(place[: len(place) - 1], wide)
        remaining = Mux(begun, left, self.words)
        ends = remaining == 1
        final = Signal()
        places = Mux(self.bf16, self.inputs // self.lanes, self.inputs // self.lanes // 2)
        m.d.comb += [
            self.o.payload.eq(Mux(self.bf16, spread, full)),
            self.o.valid.eq(self.i.valid & (self.bf16 | has_half | (not whole))),
            final.eq(ends | (whole | (place == places - 1))),
            self.i.ready.eq(Mux(self.o.valid, self.o.ready & final, 1)),
        ]
        if whole:
            with m.If(self.i.valid & ~self.o.valid):
                m.d.sync += [half.eq(line), has_half.eq(1)]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [
                place.eq(Mux(final, 0, place + 1)),
                left.eq(remaining - 1),
                begun.eq(~ends),
                has_half.eq(0),
            ]
        return m
