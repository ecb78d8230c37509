"""Bytes from the line to frames in slots: COBS, CRC, and what an in-order receiver takes."""

from importlib import import_module
from typing import Any

from amaranth import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from vrex.hw.lib.layout import struct_layout
from vrex.model.serial.frames import (
    DELIMITER,
    HEADER,
    HEADER_BYTES,
    LONGEST,
    LONGEST_BLOCK,
    OVERHEAD,
    PAYLOAD_BYTES,
)

HEAD = struct_layout(HEADER)


def crc32() -> Any:
    """The CRC of frames, a byte a cycle (`amaranth.lib.crc.Processor`)."""
    # By its name, because amaranth-stubs lacks this module.
    catalog: Any = import_module("amaranth.lib.crc.catalog")
    return catalog.CRC32_ISO_HDLC(data_width=8).create()


class FrameReceiver(wiring.Component):
    """Decodes frames as their bytes come in.

    The payload leaves before its CRC is known: who takes it must be able to forget it. The bytes of the CRC
    come behind it like more payload.

    Members:
        i: bytes from the line; always taken.
        byte, index, write: a byte behind the header, its place there, and whether there is one.
        good, bad: a frame ended a cycle before, whole or damaged; one cycle each.
        head: its header, valid with `good`.
        length: bytes of its payload, valid with `good`.
    """

    i: stream.Interface
    byte: Signal
    index: Signal
    write: Signal
    good: Signal
    bad: Signal
    head: Any
    length: Signal

    def __init__(self) -> None:
        super().__init__(
            {
                "i": In(stream.Signature(8)),
                "byte": Out(8),
                "index": Out(range(PAYLOAD_BYTES)),
                "write": Out(1),
                "good": Out(1),
                "bad": Out(1),
                "head": Out(HEAD),
                "length": Out(range(LONGEST)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """COBS decoder, CRC, and the place in the frame."""
        m = Module()
        m.submodules.crc = crc = crc32()
        left = Signal(8)
        whole = Signal()
        begun = Signal()
        count = Signal(range(LONGEST + 2))
        byte = Signal(8)
        valid = Signal()
        end = Signal()
        cut = Signal()
        got = self.i.payload
        # Registered once between the decoder and all that follows.
        m.d.sync += [valid.eq(0), end.eq(0), byte.eq(got)]
        m.d.comb += self.i.ready.eq(1)
        with m.If(self.i.valid):
            m.d.sync += [left.eq(left - 1), begun.eq(1)]
            with m.If(got == DELIMITER):
                m.d.sync += [end.eq(begun), cut.eq(left != 0), left.eq(0), begun.eq(0)]
            with m.Elif(left == 0):
                # The code of the next block, whose place the zero had.
                m.d.sync += [left.eq(got - 1), whole.eq(got == LONGEST_BLOCK + 1), byte.eq(0)]
                m.d.sync += valid.eq(begun & ~whole)
            with m.Else():
                m.d.sync += valid.eq(1)
        m.d.comb += [
            crc.start.eq(end),
            crc.data.eq(byte),
            crc.valid.eq(valid),
            self.byte.eq(byte),
            self.index.eq(count - HEADER_BYTES),
            self.write.eq(valid & (count >= HEADER_BYTES) & (count < HEADER_BYTES + PAYLOAD_BYTES)),
        ]
        m.d.sync += [self.good.eq(0), self.bad.eq(0)]
        with m.If(valid):
            with m.If(count != LONGEST + 1):
                m.d.sync += count.eq(count + 1)
            with m.If(count < HEADER_BYTES):
                m.d.sync += self.head.as_value().eq((byte << HEAD.size - 8) | (self.head.as_value() >> 8))
        with m.If(end):
            fits = (count >= OVERHEAD) & (count <= LONGEST)
            good = crc.match_detected & fits & ~cut
            m.d.sync += [
                self.good.eq(good),
                self.bad.eq(~good),
                count.eq(0),
                self.length.eq(count - OVERHEAD),
            ]
        return m
