"""Frames to bytes for the line: header, payload and CRC through COBS."""

from typing import Any

from amaranth import Array, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from vrex.hw.serial.receiver import HEAD, crc32
from vrex.model.serial.frames import CRC_BYTES, HEADER_BYTES, LONGEST, LONGEST_BLOCK, PAYLOAD_BYTES


def _bytes(value: Any, count: int) -> Any:
    """The bytes of a value, the lowest first."""
    return Array([value.word_select(i, 8) for i in range(count)])


class FrameSender(wiring.Component):
    """Sends one frame at a time.

    Reads the payload once for the CRC, once block by block for the distances of the zeros, and once to send
    it; a byte on the line takes so long that the first two, one byte a cycle, hardly show: 2 cycles a byte.
    A byte is registered behind the memory that it comes from, whose output is late in the cycle.

    Members:
        start: sends a frame; looked at while `idle`.
        head, length: its header and the bytes of its payload, taken with `start`.
        idle: nothing is being sent.
        index: place of the byte of the payload that is read.
        byte: that byte, a cycle later.
        o: bytes for the line.
    """

    start: Signal
    head: Any
    length: Signal
    idle: Signal
    index: Signal
    byte: Signal
    o: stream.Interface

    def __init__(self) -> None:
        super().__init__(
            {
                "start": In(1),
                "head": In(HEAD),
                "length": In(range(PAYLOAD_BYTES + 1)),
                "idle": Out(1),
                "index": Out(range(PAYLOAD_BYTES)),
                "byte": In(8),
                "o": Out(stream.Signature(8)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Reader of the frame's bytes, and the state machine of its three passes."""
        m = Module()
        m.submodules.crc = self.crc = crc32()
        self._read(m)
        self._passes(m)
        return m

    def _read(self, m: Module) -> None:
        """Stages behind `place`: the memory, then `got`.

        `got` is the frame's byte at the place of two cycles before, `valid` whether it was asked for then;
        `behind`: it is the CRC's, or none; `at_end`: there is none any more.
        """
        self.place = Signal(range(LONGEST + 2))
        self.ask = Signal()
        self.drop = Signal()
        header: Any = Signal(HEAD)
        self.header = header
        self.payload_end = Signal(range(LONGEST))
        place = Signal.like(self.place)
        end = self.payload_end
        asked = Signal()
        self.valid = Signal()
        self.got = Signal(8)
        self.behind = Signal()
        self.at_end = Signal()
        crc_byte = Signal(range(CRC_BYTES))
        behind = place >= end
        m.d.comb += [self.index.eq(self.place - HEADER_BYTES), crc_byte.eq(place - end)]
        m.d.sync += [
            place.eq(self.place),
            asked.eq(self.ask & ~self.drop),
            self.valid.eq(asked & ~self.drop),
            self.behind.eq(behind),
            self.at_end.eq(place == end + CRC_BYTES),
            self.got.eq(
                Mux(
                    place < HEADER_BYTES,
                    _bytes(header.as_value(), HEADER_BYTES)[place[:3]],
                    Mux(behind, _bytes(self.crc.crc, CRC_BYTES)[crc_byte], self.byte),
                )
            ),
        ]

    def _passes(self, m: Module) -> None:
        """CRC, then for each block its length and its bytes, then the delimiter."""
        place, got, valid = self.place, self.got, self.valid
        block = Signal.like(place)
        counted = Signal(8)
        sent = Signal(8)
        last = Signal()
        skip = Signal()
        m.d.comb += self.crc.data.eq(got)
        with m.FSM() as machine:
            with m.State("IDLE"):
                m.d.sync += place.eq(0)
                m.d.comb += self.crc.start.eq(1)
                with m.If(self.start):
                    m.d.sync += [self.header.eq(self.head), self.payload_end.eq(self.length + HEADER_BYTES)]
                    m.next = "CRC"
            with m.State("CRC"):
                m.d.sync += place.eq(place + 1)
                m.d.comb += [self.ask.eq(1), self.crc.valid.eq(valid & ~self.behind)]
                with m.If(valid & self.behind):
                    m.d.comb += self.drop.eq(1)
                    m.d.sync += [place.eq(0), block.eq(0), counted.eq(0)]
                    m.next = "SCAN"
            with m.State("SCAN"):
                m.d.sync += [place.eq(place + 1), counted.eq(counted + valid)]
                m.d.comb += self.ask.eq(1)
                full = counted == LONGEST_BLOCK
                with m.If(valid & (self.at_end | full | (got == 0))):
                    # Behind a zero there is a block even if it is empty; behind a whole one only if there
                    # is something left.
                    m.d.comb += self.drop.eq(1)
                    m.d.sync += [last.eq(self.at_end), skip.eq(~full), place.eq(block), counted.eq(counted)]
                    m.next = "CODE"
            with m.State("CODE"):
                m.d.comb += [self.o.valid.eq(1), self.o.payload.eq(counted + 1)]
                m.d.sync += sent.eq(0)
                with m.If(self.o.ready):
                    m.next = "NEXT"
            with m.State("NEXT"):
                m.next = "FETCH"
                with m.If(sent == counted):
                    m.d.sync += [counted.eq(0), place.eq(place + skip), block.eq(place + skip)]
                    m.next = "SCAN"
                    with m.If(last):
                        m.next = "END"
            with m.State("FETCH"):
                # The second cycle for the byte at `place` to be read.
                m.next = "BYTE"
            with m.State("BYTE"):
                m.d.comb += [self.o.valid.eq(1), self.o.payload.eq(got)]
                with m.If(self.o.ready):
                    m.d.sync += [place.eq(place + 1), sent.eq(sent + 1)]
                    m.next = "NEXT"
            with m.State("END"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.next = "IDLE"
            m.d.comb += self.idle.eq(machine.ongoing("IDLE"))
