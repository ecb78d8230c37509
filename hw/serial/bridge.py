"""The board's end of the serial link (model `vrex.model.serial.board`)."""

from collections.abc import Mapping
from typing import Any

from amaranth import Array, C, Module, Mux, ResetInserter, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from vrex.hw.serial.receiver import HEAD, FrameReceiver
from vrex.hw.serial.sender import FrameSender
from vrex.hw.serial.slots import KIND_BITS, Carried, ReceiveSlots, SendSlots
from vrex.model.serial.board import RECEIVE_SLOTS, SEND_SLOTS
from vrex.model.serial.capabilities import Capabilities
from vrex.model.serial.frames import CONTROL, NO_SESSION, SEQUENCES, Kind

BYTE = 8


class SerialBridge(wiring.Component):
    """Streams of bytes from and to a UART on one side, the streams of a unit on the other.

    Args:
        capabilities: what HELLO says.
        to_unit, from_unit: the unit's streams by name; of several valid ones of `from_unit` the first is
            taken, so results must stand before completions.

    Members:
        received: bytes from the line; always taken.
        send: bytes for the line.
        unit_reset: high for one cycle when the host resets the unit.
        others: the unit's streams.
    """

    received: stream.Interface
    send: stream.Interface
    unit_reset: Signal

    def __init__(
        self,
        capabilities: Capabilities,
        *,
        to_unit: Mapping[str, Carried],
        from_unit: Mapping[str, Carried],
    ) -> None:
        self.capabilities = capabilities
        self.to_unit, self.from_unit = dict(to_unit), dict(from_unit)
        super().__init__(
            {
                "received": In(stream.Signature(BYTE)),
                "send": Out(stream.Signature(BYTE)),
                "unit_reset": Out(1),
                **{name: Out(stream.Signature(each.shape)) for name, each in self.to_unit.items()},
                **{name: In(stream.Signature(each.shape)) for name, each in self.from_unit.items()},
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Receiver, slots and sender, and the state of the link."""
        m = Module()
        m.submodules.receiver = self.receiver = FrameReceiver()
        m.submodules.sender = self.sender = FrameSender()
        self.waiting, self.kept = ReceiveSlots(self.to_unit), SendSlots(self.from_unit)
        m.submodules.receive_slots = ResetInserter(self.unit_reset)(self.waiting)
        m.submodules.send_slots = ResetInserter(self.unit_reset)(self.kept)
        for name in self.to_unit:
            wiring.connect(m, getattr(self.waiting, name), wiring.flipped(getattr(self, name)))
        for name in self.from_unit:
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(self.kept, name))
        wiring.connect(m, wiring.flipped(self.received), self.receiver.i)
        wiring.connect(m, self.sender.o, wiring.flipped(self.send))
        self.session = Signal(BYTE, init=NO_SESSION)
        self.base = Signal(range(SEQUENCES))
        self.next = Signal(range(SEQUENCES))
        # What is to be sent; a board says HELLO after its own reset.
        self.hello = Signal(init=1)
        self.ack = Signal()
        self.resend = Signal()
        self.asked = Signal()
        self._send(m)
        self._receive(m)
        self._reset(m)
        return m

    def _send(self, m: Module) -> None:
        """What is sent next, and its bytes."""
        sender, kept = self.sender, self.kept
        text = Array(C(byte, BYTE) for byte in self.capabilities.pack())
        says_hello = Signal()
        hello_byte = Signal(BYTE)
        slot = Signal(range(SEND_SLOTS))
        data = ~self.hello & ~self.resend & (self.next != kept.fill)
        anything = self.hello | self.resend | (self.next != kept.fill) | self.ack
        kind = Mux(
            self.hello,
            Kind.HELLO,
            Mux(self.resend, Kind.RESEND, Mux(data, kept.kind, C(Kind.ACK, BYTE))),
        )
        head: Any = Signal(HEAD)
        m.d.comb += [
            head.kind.eq(kind),
            head.session.eq(self.session),
            head.sequence.eq(self.next),
            head.ack.eq(self.waiting.expected),
            head.limit.eq(self.waiting.consumed + RECEIVE_SLOTS),
            sender.head.eq(head),
            sender.length.eq(Mux(self.hello, len(text), Mux(data, kept.length, 0))),
            # What arrives in this cycle changes what is to be sent.
            sender.start.eq(sender.idle & anything & ~self.receiver.good & ~self.unit_reset),
            kept.base.eq(self.base),
            kept.slot.eq(Mux(sender.idle, self.next[: len(slot)], slot)),
            kept.index.eq(sender.index),
            sender.byte.eq(Mux(says_hello, hello_byte, kept.byte)),
        ]
        m.d.sync += hello_byte.eq(text[sender.index[: len(text).bit_length()]])
        with m.If(sender.start):
            m.d.sync += [slot.eq(self.next), says_hello.eq(self.hello), self.ack.eq(0)]
            with m.If(self.hello):
                m.d.sync += self.hello.eq(0)
            with m.Elif(self.resend):
                m.d.sync += self.resend.eq(0)
            with m.Elif(data):
                m.d.sync += self.next.eq(self.next + 1)

    def _receive(self, m: Module) -> None:
        """What a frame does; comes behind `_send`, whose end of an acknowledgement it overrules."""
        receiver, waiting = self.receiver, self.waiting
        head = receiver.head
        mine = head.session == self.session
        ahead = Signal(BYTE)
        m.d.comb += [
            ahead.eq(head.sequence - waiting.expected),
            waiting.byte.eq(receiver.byte),
            waiting.index.eq(receiver.index),
            waiting.write.eq(receiver.write),
            waiting.kind.eq(head.kind[:KIND_BITS]),
            waiting.length.eq(receiver.length),
        ]
        missed = Signal()
        with m.If(waiting.freed):
            m.d.sync += self.ack.eq(1)
        with m.If(receiver.bad):
            m.d.comb += missed.eq(self.session != NO_SESSION)
        with m.If(receiver.good & (head.kind != Kind.RESET)):
            with m.If(~mine):
                m.d.sync += self.hello.eq(1)
            with m.Else():
                self._acknowledged(m, head)
                with m.If(~head.kind[CONTROL.bit_length() - 1]):
                    with m.If((ahead == 0) & waiting.room):
                        m.d.comb += waiting.commit.eq(1)
                        m.d.sync += [self.ack.eq(1), self.asked.eq(0)]
                    with m.Elif(ahead[-1]):
                        m.d.sync += self.ack.eq(1)
                    with m.Else():
                        m.d.comb += missed.eq(self.session != NO_SESSION)
                with m.Elif(head.kind == Kind.RESEND):
                    m.d.sync += [self.ack.eq(1), self.asked.eq(0)]
        with m.If(missed & ~self.asked):
            m.d.sync += [self.resend.eq(1), self.asked.eq(1)]

    def _acknowledged(self, m: Module, head: Any) -> None:
        """Frees what the host has, and goes back to what it asks for."""
        acked = Signal(BYTE)
        used = Signal(BYTE)
        sent = Signal(BYTE)
        m.d.comb += [
            acked.eq(head.ack - self.base),
            used.eq(self.kept.fill - self.base),
            sent.eq(self.next - self.base),
        ]
        back = head.kind == Kind.RESEND
        with m.If(acked <= used):
            m.d.sync += self.base.eq(head.ack)
            with m.If((sent < acked) | back):
                m.d.sync += self.next.eq(head.ack)
        with m.Elif(back):
            m.d.sync += self.next.eq(self.base)

    def _reset(self, m: Module) -> None:
        """RESET: comes last, and overrules all else."""
        m.d.sync += self.unit_reset.eq(self.receiver.good & (self.receiver.head.kind == Kind.RESET))
        with m.If(self.unit_reset):
            m.d.sync += [
                self.session.eq(self.receiver.head.session),
                self.base.eq(0),
                self.next.eq(0),
                self.hello.eq(1),
                self.ack.eq(0),
                self.resend.eq(0),
                self.asked.eq(0),
            ]
