"""The host's accesses to a board's memory and registers (model `vrex.model.serial.memory`)."""

from typing import Any

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from vrex.hw.lib.axi.burst import CACHE, INCR, PROT, beat_shift
from vrex.hw.lib.axi.signature import ID_BITS, Axi4Interface, Axi4Signature
from vrex.hw.lib.layout import struct_layout
from vrex.model.serial import memory

ACCESS = struct_layout(memory.ACCESS)
END = struct_layout(memory.END)
OK, BAD_LENGTH, BAD_ADDRESS, BUS_ERROR = memory.AccessStatus


class MemoryPort(wiring.Component):
    """Executes accesses one after the other, a beat at a time.

    Every beat is a burst of its own, for which the port is ready before it asks, so it never holds back whom
    it shares the memory with. A beat takes 4 cycles and memory's own; the line needs 40 a byte. Data are
    taken for a write in work, and thrown away while there is none.

    Args:
        bus_bits: width of a beat.
        memory_bytes: what may be accessed, from address 0 on; a power of two, more than `MOST_BYTES`.
        register_bytes: what may be accessed behind it, 0 or a power of two of at most `memory_bytes`.
        id_width: bits of a burst's id, which is 0.

    Members:
        access: what to do.
        data: beats of writes.
        read: beats of reads.
        end: how each access ended, behind its beats.
        m_axi: AXI4 manager. The addresses of both its channels are that of the beat in work, from AR or AW on
            until R or B.
    """

    access: stream.Interface
    data: stream.Interface
    read: stream.Interface
    end: stream.Interface
    m_axi: Axi4Interface

    def __init__(
        self, bus_bits: int, *, memory_bytes: int, register_bytes: int = 0, id_width: int = ID_BITS
    ) -> None:
        """A port.

        Raises:
            ValueError: `memory_bytes` is no such number.
        """
        if memory_bytes & memory_bytes - 1 or memory_bytes <= memory.MOST_BYTES:
            raise ValueError(
                f"memory_bytes must be a power of two above {memory.MOST_BYTES}, not {memory_bytes}"
            )
        self.bus_bits, self.memory_bytes, self.register_bytes = bus_bits, memory_bytes, register_bytes
        super().__init__(
            {
                "access": In(stream.Signature(ACCESS)),
                "data": In(stream.Signature(bus_bits)),
                "read": Out(stream.Signature(bus_bits)),
                "end": Out(stream.Signature(END)),
                "m_axi": Out(Axi4Signature(data_width=bus_bits, id_width=id_width)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware: the access, its place and beats left, and a state machine of single beats."""
        m = Module()
        shift, width = beat_shift(self.bus_bits), self.memory_bytes.bit_length() - 1
        access: Any = Signal(ACCESS)
        last_byte = Signal(width + 1)
        beat = Signal(width + bool(self.register_bytes) - shift)
        left = Signal(range(memory.MOST_BYTES // (self.bus_bits // 8) + 2))
        first = Signal()
        too_long = Signal()
        beyond = Signal()
        self.beat, self.first, self.is_last = beat, first, left == 1
        self.start, self.stop = access.address[:shift], last_byte[:shift]
        end = self.end.payload
        self._channels(m, beat << shift)
        m.d.comb += [end.tag.eq(access.tag), self.read.payload.eq(self.held)]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [self.access.ready.eq(1), self.data.ready.eq(1)]
                m.d.sync += [access.eq(self.access.payload), end.status.eq(OK), end.beats.eq(0)]
                with m.If(self.access.valid):
                    m.next = "PLACE"
            with m.State("PLACE"):
                m.d.sync += [
                    too_long.eq((access.size == 0) | (access.size > memory.MOST_BYTES)),
                    # Of too many bytes the upper ones are cut off, and not looked at.
                    last_byte.eq(access.address[:width] + access.size[: len(left) + shift] - 1),
                    beyond.eq(self._is_beyond(access.address, width)),
                    beat.eq(access.address[shift:]),
                    first.eq(1),
                ]
                m.next = "CHECK"
            with m.State("CHECK"):
                m.d.sync += [
                    left.eq((last_byte >> shift) - beat[: width - shift] + 1),
                    end.status.eq(Mux(too_long, BAD_LENGTH, BAD_ADDRESS)),
                ]
                m.next = "END"
                with m.If(~too_long & ~beyond & ~self._ends_beyond(last_byte, beat[width - shift :])):
                    m.d.sync += end.status.eq(OK)
                    m.next = "ASK"
                    with m.If(access.write != 0):
                        m.next = "TAKE"
            self._read_states(m, left)
            self._write_states(m, left)
            with m.State("END"):
                m.d.comb += self.end.valid.eq(1)
                with m.If(self.end.ready):
                    m.next = "IDLE"
        return m

    def _is_beyond(self, address: Any, width: int) -> Any:
        """Whether an address is that of no byte of memory or registers."""
        if not self.register_bytes:
            return address[width:].any()
        beyond_registers = address[self.register_bytes.bit_length() - 1 : width].any()
        return address[width + 1 :].any() | (address[width] & beyond_registers)

    def _ends_beyond(self, last_byte: Any, is_register: Any) -> Any:
        """Whether an access that begins within memory or registers ends behind them."""
        if not self.register_bytes:
            return last_byte[-1]
        return Mux(is_register, last_byte[self.register_bytes.bit_length() - 1 :].any(), last_byte[-1])

    def _channels(self, m: Module, address: Any) -> None:
        """A beat to and from the port, and both address channels at its address."""
        axi, size = self.m_axi, self.bus_bits // 8
        self.held = Signal(self.bus_bits)
        for channel in (axi.ar, axi.aw):
            m.d.comb += [
                channel.addr.eq(address),
                channel.size.eq(beat_shift(self.bus_bits)),
                channel.burst.eq(INCR),
                channel.cache.eq(CACHE),
                channel.prot.eq(PROT),
            ]
        strobes = [
            (~self.first | (self.start <= i)) & (~self.is_last | (self.stop >= i)) for i in range(size)
        ]
        m.d.comb += [axi.w.data.eq(self.held), axi.w.strb.eq(Cat(strobes)), axi.w.last.eq(1)]

    def _ends_beat(self, m: Module, left: Signal, next_state: str) -> None:
        """Goes on to the next beat, or to the end."""
        m.d.sync += [left.eq(left - 1), self.beat.eq(self.beat + 1), self.first.eq(0)]
        m.next = next_state
        with m.If(self.is_last):
            m.next = "END"

    def _read_states(self, m: Module, left: Signal) -> None:
        """Asks for a beat, waits for it, and gives it away."""
        axi, end = self.m_axi, self.end.payload
        with m.State("ASK"):
            m.d.comb += axi.ar.valid.eq(1)
            with m.If(axi.ar.ready):
                m.next = "COMES"
        with m.State("COMES"):
            m.d.comb += axi.r.ready.eq(1)
            m.d.sync += self.held.eq(Mux(axi.r.resp[1], 0, axi.r.data))
            with m.If(axi.r.valid):
                m.d.sync += end.beats.eq(end.beats + 1)
                with m.If(axi.r.resp[1]):
                    m.d.sync += end.status.eq(BUS_ERROR)
                m.next = "GIVE"
        with m.State("GIVE"):
            m.d.comb += self.read.valid.eq(1)
            with m.If(self.read.ready):
                self._ends_beat(m, left, "ASK")

    def _write_states(self, m: Module, left: Signal) -> None:
        """Takes a beat, sends it, and waits for the response."""
        axi, end = self.m_axi, self.end.payload
        aw = Signal()
        w = Signal()
        m.d.comb += [axi.aw.valid.eq(aw), axi.w.valid.eq(w)]
        with m.State("TAKE"):
            m.d.comb += self.data.ready.eq(1)
            m.d.sync += self.held.eq(self.data.payload)
            with m.If(self.data.valid):
                m.d.sync += [aw.eq(1), w.eq(1)]
                m.next = "SEND"
        with m.State("SEND"):
            m.d.comb += axi.b.ready.eq(1)
            with m.If(axi.aw.ready):
                m.d.sync += aw.eq(0)
            with m.If(axi.w.ready):
                m.d.sync += w.eq(0)
            with m.If(axi.b.valid):
                with m.If(axi.b.resp[1]):
                    m.d.sync += end.status.eq(BUS_ERROR)
                self._ends_beat(m, left, "TAKE")
