"""AXI4-Lite: the port's signature, and what turns its accesses into requests for registers."""

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from vrex.hw.lib.axi.signature import ChannelSignature, ReadChannel, ResponseChannel, WriteChannel

REGISTER_ADDRESS_BITS = 12
REGISTER_BITS = 32
OKAY = 0
SLVERR = 2


def access_layout(address_bits: int) -> data.StructLayout:
    """A read, or a write of a whole register; `address` counts bytes."""
    return data.StructLayout({"address": address_bits, "write": 1, "data": REGISTER_BITS})


ACCESS = access_layout(REGISTER_ADDRESS_BITS)
"""An access to the registers of one unit."""

ANSWER = data.StructLayout({"data": REGISTER_BITS, "error": 1})
"""How an access ended; `data` is that of a read without an error."""


class LiteAddressChannel(wiring.PureInterface):
    """AR or AW of AXI4-Lite."""

    addr: Signal
    prot: Signal
    valid: Signal
    ready: Signal


class AxiLiteInterface(wiring.PureInterface):
    """An AXI4-Lite port; see `AxiLiteSignature`."""

    ar: LiteAddressChannel
    r: ReadChannel
    aw: LiteAddressChannel
    w: WriteChannel
    b: ResponseChannel


class AxiLiteSignature(wiring.Signature):
    """An AXI4-Lite port of 32-bit data, from the manager's side.

    Args:
        address_bits: of an address.

    Members:
        ar, aw (out): `addr`, `prot`, and the handshake.
        r (in): `data`, `resp`, and the handshake.
        w (out): `data`, `strb`, and the handshake.
        b (in): `resp`, and the handshake.
    """

    def __init__(self, address_bits: int = REGISTER_ADDRESS_BITS) -> None:
        address = ChannelSignature(LiteAddressChannel, {"addr": address_bits, "prot": 3})
        beat = {"data": REGISTER_BITS, "strb": REGISTER_BITS // 8}
        super().__init__(
            {
                "ar": Out(address),
                "r": In(ChannelSignature(ReadChannel, {"data": REGISTER_BITS, "resp": 2})),
                "aw": Out(address),
                "w": Out(ChannelSignature(WriteChannel, beat)),
                "b": In(ChannelSignature(ResponseChannel, {"resp": 2})),
            }
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AxiLiteSignature) and self.members == other.members

    def create(self, *, path: tuple[str | int, ...] = (), src_loc_at: int = 0) -> AxiLiteInterface:
        """The port's signals."""
        return AxiLiteInterface(self, path=path, src_loc_at=1 + src_loc_at)


class AxiLite(wiring.Component):
    """AXI4-Lite accesses as requests, one at a time; reads and writes that wait go in turn.

    A write's address and data come in any order. A write of some bytes of a register only is answered with
    SLVERR and goes no further. `prot` is ignored. An access is a request two cycles after it came at the
    earliest.

    Args:
        address_bits: of an address.

    Members:
        s_axi: AXI4-Lite subordinate.
        request: accesses.
        response: how they ended; it is waited for before the next request.
    """

    s_axi: AxiLiteInterface
    request: stream.Interface
    response: stream.Interface

    def __init__(self, address_bits: int = REGISTER_ADDRESS_BITS) -> None:
        super().__init__(
            {
                "s_axi": In(AxiLiteSignature(address_bits)),
                "request": Out(stream.Signature(access_layout(address_bits))),
                "response": In(stream.Signature(ANSWER)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware: a register each behind AR, AW and W, and a state machine."""
        m = Module()
        port, access, response = self.s_axi, self.request.payload, self.response
        # The access in work is a write; so was the last one.
        write = Signal()
        done = Signal()
        read_at, asked = self._take(m, "ar", ("addr",), done & ~write)
        write_at, placed = self._take(m, "aw", ("addr",), done & write)
        word, given = self._take(m, "w", ("data", "strb"), done & write)
        m.d.comb += [
            access.write.eq(write),
            access.address.eq(Mux(write, write_at.addr, read_at.addr)),
            access.data.eq(word.data),
        ]
        writes = placed & given
        with m.FSM():
            with m.State("IDLE"), m.If(asked | writes):
                m.d.sync += write.eq(Mux(write, ~asked, writes))
                m.next = "ASK"
            with m.State("ASK"):
                with m.If(write & ~word.strb.all()):
                    m.d.sync += [port.b.resp.eq(SLVERR), port.b.valid.eq(1)]
                    m.next = "ANSWER"
                with m.Else():
                    m.d.comb += self.request.valid.eq(1)
                    with m.If(self.request.ready):
                        m.next = "WAIT"
            with m.State("WAIT"):
                m.d.comb += response.ready.eq(1)
                result = Mux(response.payload.error, SLVERR, OKAY)
                m.d.sync += [
                    port.b.resp.eq(result),
                    port.r.resp.eq(result),
                    port.r.data.eq(response.payload.data),
                ]
                with m.If(response.valid):
                    m.d.sync += [port.b.valid.eq(write), port.r.valid.eq(~write)]
                    m.next = "ANSWER"
            with m.State("ANSWER"), m.If(Mux(write, port.b.ready, port.r.ready)):
                m.d.comb += done.eq(1)
                m.d.sync += [port.b.valid.eq(0), port.r.valid.eq(0)]
                m.next = "IDLE"
        return m

    def _take(self, m: Module, name: str, fields: tuple[str, ...], done: Any) -> tuple[Any, Signal]:
        """A register behind a channel, free again when `done`; returns what it holds and whether it does."""
        channel = getattr(self.s_axi, name)
        shape = data.StructLayout({field: len(getattr(channel, field)) for field in fields})
        word: Any = Signal(shape, name=f"{name}_word")
        held = Signal(name=f"{name}_held")
        m.d.comb += channel.ready.eq(~held)
        with m.If(channel.ready):
            m.d.sync += [
                held.eq(channel.valid),
                *(word[field].eq(getattr(channel, field)) for field in fields),
            ]
        with m.Elif(done):
            m.d.sync += held.eq(0)
        return word, held
