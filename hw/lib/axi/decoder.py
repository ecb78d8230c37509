"""One AXI4-Lite port in front of several, by pages."""

import operator
from typing import Any

from amaranth import Cat, Const, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from vrex.hw.lib.axi.lite import (
    ACCESS,
    ANSWER,
    REGISTER_ADDRESS_BITS,
    REGISTER_BITS,
    SLVERR,
    AxiLite,
    AxiLiteInterface,
    AxiLiteSignature,
    access_layout,
)
from vrex.hw.lib.stream import reduce_tree


class AxiLiteDecoder(wiring.Component):
    """Leads accesses to the registers of the first page, and to ports that have a page each behind it.

    One access at a time; one to a page that there is not is answered with SLVERR. Addresses and data are
    registered before they fan out, answers where they come together. An access shows at a port five cycles
    after it came, its answer three after the port's.

    Args:
        ports: number of ports.

    Members:
        s_axi: AXI4-Lite subordinate, with an address wide enough for all pages.
        request, response: accesses to the first page and how they end, as of `AxiLite`.
        m_axi: AXI4-Lite managers, port k for page 1 + k.
    """

    s_axi: AxiLiteInterface
    request: stream.Interface
    response: stream.Interface
    m_axi: list[AxiLiteInterface]

    def __init__(self, ports: int) -> None:
        self.ports = ports
        self.address_bits = self.address_bits_of(ports)
        super().__init__(
            {
                "s_axi": In(AxiLiteSignature(self.address_bits)),
                "request": Out(stream.Signature(ACCESS)),
                "response": In(stream.Signature(ANSWER)),
                "m_axi": Out(AxiLiteSignature()).array(ports),
            }
        )

    @staticmethod
    def address_bits_of(ports: int) -> int:
        """Bits of an address."""
        return REGISTER_ADDRESS_BITS + ports.bit_length()

    def elaborate(self, platform: Any) -> Module:
        """Hardware: the port's front, a register of the access, one bit a page, and a state machine."""
        m = Module()
        m.submodules.lite = lite = AxiLite(self.address_bits)
        connect(m, flipped(self.s_axi), lite.s_axi)
        access: Any = Signal(access_layout(self.address_bits))
        page = access.address[REGISTER_ADDRESS_BITS:]
        hits = Signal(1 + self.ports)
        response = lite.response
        self._lead(m, access)
        came = [self.response.valid, *(port.r.valid | port.b.valid for port in self.m_axi)]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += lite.request.ready.eq(1)
                m.d.sync += access.eq(lite.request.payload)
                with m.If(lite.request.valid):
                    m.next = "FIND"
            with m.State("FIND"):
                m.d.sync += hits.eq(Cat(page == i for i in range(1 + self.ports)))
                m.next = "ASK"
            with m.State("ASK"):
                m.d.sync += self.request.valid.eq(hits[0])
                for port, hit in zip(self.m_axi, hits[1:], strict=True):
                    m.d.sync += [
                        port.ar.valid.eq(hit & ~access.write),
                        *(channel.valid.eq(hit & access.write) for channel in (port.aw, port.w)),
                    ]
                m.d.sync += [response.payload.error.eq(1), response.valid.eq(~hits.any())]
                m.next = "ANSWER"
                with m.If(hits.any()):
                    m.next = "WAIT"
            with m.State("WAIT"):
                m.d.comb += self.response.ready.eq(1)
                for port in self.m_axi:
                    m.d.comb += [port.r.ready.eq(1), port.b.ready.eq(1)]
                m.d.sync += [
                    response.valid.eq(reduce_tree(came, operator.or_)),
                    response.payload.eq(self._answer()),
                ]
                with m.If(reduce_tree(came, operator.or_)):
                    m.next = "ANSWER"
            with m.State("ANSWER"), m.If(response.ready):
                m.d.sync += response.valid.eq(0)
                m.next = "IDLE"
        return m

    def _lead(self, m: Module, access: Any) -> None:
        """What every port sees of an access, and the end of each of its handshakes."""
        m.d.comb += [self.request.payload[name].eq(access[name]) for name in ("address", "write", "data")]
        with m.If(self.request.ready):
            m.d.sync += self.request.valid.eq(0)
        for port in self.m_axi:
            m.d.comb += [
                port.ar.addr.eq(access.address),
                port.aw.addr.eq(access.address),
                port.w.data.eq(access.data),
                port.w.strb.eq(-1),
            ]
            for channel in (port.ar, port.aw, port.w):
                with m.If(channel.ready):
                    m.d.sync += channel.valid.eq(0)

    def _answer(self) -> Any:
        """The answer of whoever gives one."""
        own = self.response
        answers = [own.valid.replicate(REGISTER_BITS + 1) & own.payload.as_value()]
        for port in self.m_axi:
            read = Cat(port.r.data, port.r.resp == SLVERR) & port.r.valid.replicate(REGISTER_BITS + 1)
            wrote = Cat(Const(0, REGISTER_BITS), port.b.valid & (port.b.resp == SLVERR))
            answers.append(read | wrote)
        return reduce_tree(answers, operator.or_)
