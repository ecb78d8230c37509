"""Slots of frames in block memory, between the line and the unit's streams (`vrex.model.serial.board`)."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from amaranth import Cat, Module, Mux, Signal
from amaranth.hdl import Shape, ShapeLike, Value
from amaranth.lib import data, wiring
from amaranth.lib import stream as streams
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from vrex.model.serial.board import RECEIVE_SLOTS, SEND_SLOTS
from vrex.model.serial.frames import CLOSING, PAYLOAD_BYTES, SEQUENCES, Kind

BYTE = 8
KIND_BITS = 5
"""Bits that tell the kinds of frames with data apart."""

SLOT = data.StructLayout({"kind": KIND_BITS, "length": range(PAYLOAD_BYTES + 1)})
"""What is kept of a frame beside its payload."""


class Carried(NamedTuple):
    """A stream of the unit's that frames carry.

    Attributes:
        kind: of those frames.
        shape: of the stream's payload: whole bytes, a power of two of them, at most a frame's.
    """

    kind: Kind
    shape: ShapeLike

    @property
    def bytes(self) -> int:
        """Size of a word.

        Raises:
            ValueError: it does not divide a frame.
        """
        size, rest = divmod(Shape.cast(self.shape).width, BYTE)
        if rest or not size or PAYLOAD_BYTES % size:
            raise ValueError(f"words of {Shape.cast(self.shape).width} bits do not fill a frame")
        return size


class ReceiveSlots(wiring.Component):
    """Frames that wait for the unit, `RECEIVE_SLOTS` of `PAYLOAD_BYTES`.

    Takes 2 cycles a byte and 1 a word to present a word; the line needs 40 a byte at least.

    Args:
        carried: streams to the unit by name; frames of other kinds are thrown away.

    Members:
        byte, index, write: a byte of the frame that comes in, and its place; written if there is room.
        commit: that frame, of `kind` and `length`, is good and in order; not without `room`.
        room: whether a slot is free.
        expected, consumed: frames taken in and given out, modulo `SEQUENCES`.
        freed: `consumed` counts in the next cycle.
        others: the streams.
    """

    byte: Signal
    index: Signal
    write: Signal
    commit: Signal
    kind: Signal
    length: Signal
    room: Signal
    expected: Signal
    consumed: Signal
    freed: Signal

    def __init__(self, carried: Mapping[str, Carried]) -> None:
        self.carried = dict(carried)
        super().__init__(
            {
                "byte": In(BYTE),
                "index": In(range(PAYLOAD_BYTES)),
                "write": In(1),
                "commit": In(1),
                "kind": In(KIND_BITS),
                "length": In(range(PAYLOAD_BYTES + 1)),
                "room": Out(1),
                "expected": Out(range(SEQUENCES)),
                "consumed": Out(range(SEQUENCES)),
                "freed": Out(1),
                **{name: Out(streams.Signature(each.shape)) for name, each in self.carried.items()},
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """The memories, and the machine that makes words of their bytes."""
        m = Module()
        slot_bits = (RECEIVE_SLOTS - 1).bit_length()
        memory: Memory[Any, Any] = Memory(shape=BYTE, depth=RECEIVE_SLOTS * PAYLOAD_BYTES, init=[])
        kept: Memory[Any, Any] = Memory(shape=SLOT, depth=RECEIVE_SLOTS, init=[])
        m.submodules.memory, m.submodules.kept = memory, kept
        write, read = memory.write_port(), memory.read_port()
        keep, kept_read = kept.write_port(), kept.read_port(domain="comb")
        offset = Signal(range(PAYLOAD_BYTES + 1))
        m.d.comb += [
            write.addr.eq(Cat(self.index, self.expected[:slot_bits])),
            write.data.eq(self.byte),
            write.en.eq(self.write & self.room),
            keep.addr.eq(self.expected[:slot_bits]),
            keep.data.kind.eq(self.kind),
            keep.data.length.eq(self.length),
            keep.en.eq(self.commit),
            kept_read.addr.eq(self.consumed[:slot_bits]),
            read.addr.eq(Cat(offset[:-1], self.consumed[:slot_bits])),
        ]
        # The difference of two registers of 8 bits has 9, and counts modulo 256.
        m.d.comb += self.room.eq((self.expected - self.consumed)[:BYTE] != RECEIVE_SLOTS)
        m.d.sync += self.expected.eq(self.expected + self.commit)
        self._words(m, kept_read.data, read.data, offset)
        return m

    def _words(self, m: Module, slot: Any, byte: Value, offset: Signal) -> None:
        """Words out of the oldest frame's bytes, the first byte in the lowest bits."""
        widest = max(each.bytes for each in self.carried.values())
        word = Signal(widest * BYTE)
        filled = Signal(range(widest + 1))
        kind: Any = Signal(KIND_BITS)
        size: Any = 1
        taken: Any = 1
        for name, each in self.carried.items():
            stream = getattr(self, name)
            mine = kind == each.kind
            m.d.comb += Value.cast(stream.payload).eq(word[-each.bytes * BYTE :])
            size = Mux(mine, each.bytes, size)
            taken = Mux(mine, stream.ready, taken)
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [offset.eq(0), filled.eq(0), kind.eq(slot.kind)]
                with m.If(self.consumed != self.expected):
                    m.next = "READ"
            with m.State("READ"):
                m.next = "SHIFT"
                with m.If(offset == slot.length):
                    m.d.comb += self.freed.eq(1)
                    m.d.sync += self.consumed.eq(self.consumed + 1)
                    m.next = "IDLE"
            with m.State("SHIFT"):
                m.d.sync += [
                    word.eq(Cat(word, byte)[BYTE:]),
                    offset.eq(offset + 1),
                    filled.eq(filled + 1),
                ]
                m.next = "READ"
                with m.If(filled == size - 1):
                    m.next = "PRESENT"
            with m.State("PRESENT"):
                for name, each in self.carried.items():
                    m.d.comb += getattr(self, name).valid.eq(kind == each.kind)
                m.d.sync += filled.eq(0)
                with m.If(taken):
                    m.next = "READ"


class SendSlots(wiring.Component):
    """What the unit gives, in frames that are kept until they are acknowledged, `SEND_SLOTS` of them.

    A frame is closed when it is full, when a word of another kind comes, and after each word of `CLOSING`. A
    word takes 1 cycle, and 1 a byte.

    Args:
        carried: streams from the unit by name; of several valid ones the first is taken.

    Members:
        base: number of the oldest frame that is not acknowledged.
        fill: number of the frame that is not closed yet.
        slot: number of the frame to read.
        kind, length: of that frame.
        index, byte: place of a byte in it, and that byte a cycle later.
        others: the streams.
    """

    base: Signal
    fill: Signal
    slot: Signal
    kind: Signal
    length: Signal
    index: Signal
    byte: Signal

    def __init__(self, carried: Mapping[str, Carried]) -> None:
        self.carried = dict(carried)
        super().__init__(
            {
                "base": In(range(SEQUENCES)),
                "fill": Out(range(SEQUENCES)),
                "slot": In(range(SEND_SLOTS)),
                "kind": Out(KIND_BITS),
                "length": Out(range(PAYLOAD_BYTES + 1)),
                "index": In(range(PAYLOAD_BYTES)),
                "byte": Out(BYTE),
                **{name: In(streams.Signature(each.shape)) for name, each in self.carried.items()},
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """The memories, and the machine that fills them."""
        m = Module()
        slot_bits = (SEND_SLOTS - 1).bit_length()
        memory: Memory[Any, Any] = Memory(shape=BYTE, depth=SEND_SLOTS * PAYLOAD_BYTES, init=[])
        kept: Memory[Any, Any] = Memory(shape=SLOT, depth=SEND_SLOTS, init=[])
        m.submodules.memory, m.submodules.kept = memory, kept
        self.write, read = memory.write_port(), memory.read_port()
        keep, kept_read = kept.write_port(), kept.read_port(domain="comb")
        self.offset = Signal(range(PAYLOAD_BYTES + 1))
        self.open_kind = Signal(KIND_BITS)
        self.close = Signal()
        m.d.comb += [
            self.write.addr.eq(Cat(self.offset[:-1], self.fill[:slot_bits])),
            keep.addr.eq(self.fill[:slot_bits]),
            keep.data.kind.eq(self.open_kind),
            keep.data.length.eq(self.offset),
            keep.en.eq(self.close),
            kept_read.addr.eq(self.slot),
            self.kind.eq(kept_read.data.kind),
            self.length.eq(kept_read.data.length),
            read.addr.eq(Cat(self.index, self.slot)),
            self.byte.eq(read.data),
        ]
        with m.If(self.close):
            m.d.sync += [self.fill.eq(self.fill + 1), self.offset.eq(0)]
        self._fill(m)
        return m

    def _fill(self, m: Module) -> None:
        """Bytes out of the streams' words, the lowest first."""
        widest = max(each.bytes for each in self.carried.values())
        word = Signal(widest * BYTE)
        left = Signal(range(widest + 1))
        full = (self.fill - self.base)[:BYTE] == SEND_SLOTS
        used = self.offset != 0
        any_valid: Any = 0
        kind: Any = 0
        payload: Any = 0
        size: Any = 0
        for name, each in reversed(self.carried.items()):
            stream = getattr(self, name)
            any_valid = any_valid | stream.valid
            kind = Mux(stream.valid, each.kind, kind)
            payload = Mux(stream.valid, Value.cast(stream.payload), payload)
            size = Mux(stream.valid, each.bytes, size)
        other = used & (self.open_kind != kind)
        take = Signal()
        with m.FSM():
            with m.State("TAKE"):
                m.d.comb += [self.close.eq(any_valid & other), take.eq(any_valid & ~other & ~full)]
                m.d.sync += [
                    word.eq(payload),
                    left.eq(size),
                    self.open_kind.eq(Mux(take, kind, self.open_kind)),
                ]
                with m.If(take):
                    m.next = "WRITE"
            with m.State("WRITE"):
                m.d.comb += self.write.en.eq(1)
                m.d.sync += [word.eq(word >> BYTE), left.eq(left - 1), self.offset.eq(self.offset + 1)]
                with m.If(left == 1):
                    m.next = "END"
            with m.State("END"):
                ends = self.offset == PAYLOAD_BYTES
                for closing in CLOSING:
                    ends |= self.open_kind == closing
                m.d.comb += self.close.eq(ends)
                m.next = "TAKE"
        m.d.comb += self.write.data.eq(word[:BYTE])
        before: Any = 0
        for name in self.carried:
            stream = getattr(self, name)
            m.d.comb += stream.ready.eq(take & ~before)
            before = before | stream.valid
