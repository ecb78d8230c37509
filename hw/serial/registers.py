"""The way from the host's port to a core's registers, which lie behind the memory."""

from typing import Any

from amaranth import Cat, Const, Module, Mux
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from vrex.hw.lib.axi.burst import beat_shift
from vrex.hw.lib.axi.lite import REGISTER_BITS, AxiLiteInterface, AxiLiteSignature
from vrex.hw.lib.axi.signature import ID_BITS, Axi4Interface, Axi4Signature
from vrex.model.serial.memory import REGISTER_BYTES


class RegisterWindow(wiring.Component):
    """Leads bursts of one beat to memory, or to an AXI4-Lite port that has one register a beat behind it.

    Combinational. For a `MemoryPort`, whose addresses stay until the answer has come, and which has one
    access in work at a time.

    Args:
        bus_bits: width of a beat.
        memory_bytes: a power of two; what has that bit of its address set is a register.
        id_width: bits of a burst's id.

    Members:
        s_axi: AXI4 subordinate, the host's.
        m_axi: AXI4 manager, to memory.
        registers: AXI4-Lite manager.
    """

    s_axi: Axi4Interface
    m_axi: Axi4Interface
    registers: AxiLiteInterface

    def __init__(self, bus_bits: int, *, memory_bytes: int, id_width: int = ID_BITS) -> None:
        self.bus_bits, self.memory_bytes = bus_bits, memory_bytes
        port = Axi4Signature(data_width=bus_bits, id_width=id_width)
        super().__init__({"s_axi": In(port), "m_axi": Out(port), "registers": Out(AxiLiteSignature())})

    def elaborate(self, platform: Any) -> Module:
        """Hardware: a multiplexer a channel."""
        m = Module()
        host, memory, lite = self.s_axi, self.m_axi, self.registers
        is_register = host.ar.addr[self.memory_bytes.bit_length() - 1]
        number = host.ar.addr[beat_shift(self.bus_bits) :]
        for name in ("ar", "aw", "w"):
            asked, to_memory, to_lite = (getattr(port, name) for port in (host, memory, lite))
            m.d.comb += [
                *(getattr(to_memory, field).eq(getattr(asked, field)) for field in _fields(asked)),
                to_memory.valid.eq(asked.valid & ~is_register),
                to_lite.valid.eq(asked.valid & is_register),
                asked.ready.eq(Mux(is_register, to_lite.ready, to_memory.ready)),
            ]
        for channel in (lite.ar, lite.aw):
            m.d.comb += [
                channel.addr.eq(Cat(Const(0, (REGISTER_BYTES - 1).bit_length()), number)),
                channel.prot.eq(host.ar.prot),
            ]
        m.d.comb += [
            lite.w.data.eq(host.w.data[:REGISTER_BITS]),
            lite.w.strb.eq(host.w.strb[:REGISTER_BYTES]),
        ]
        for name in ("r", "b"):
            answer, from_memory, from_lite = (getattr(port, name) for port in (host, memory, lite))
            m.d.comb += [
                *(getattr(answer, field).eq(getattr(from_memory, field)) for field in _fields(answer)),
                answer.valid.eq(Mux(is_register, from_lite.valid, from_memory.valid)),
                from_memory.ready.eq(answer.ready & ~is_register),
                from_lite.ready.eq(answer.ready & is_register),
            ]
        with m.If(is_register):
            m.d.comb += [
                host.r.data.eq(lite.r.data),
                host.r.last.eq(1),
                host.r.resp.eq(lite.r.resp),
                host.b.resp.eq(lite.b.resp),
            ]
        return m


def _fields(channel: Any) -> list[str]:
    """Names of a channel's signals, besides the handshake."""
    return [name for name in channel.signature.members if name not in ("valid", "ready")]
