"""A register slice between an AXI4 manager and ports that it shares with others."""

from typing import Any

from amaranth import Module
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from vrex.hw.lib.axi.merge import ADDRESS, READ, RESPONSE, WRITE, WriteBuffer
from vrex.hw.lib.axi.signature import ID_BITS, Axi4Interface, Axi4Signature
from vrex.hw.lib.stream import Skid


class AxiSlice(wiring.Component):
    """Registers on all channels, and room for beats of writes: no burst shows before its last beat is there.

    So what stands behind it may give the beats of a burst as late as it likes, and holds back nobody. It must
    take its beats and responses, as the merge demands of its ports. Latency one cycle on AR, R and B, two
    from a burst's last beat to its address; a beat a cycle.

    Args:
        data_width: bits of a beat.
        id_width: bits of an id.
        beats: of writes that there is room for, at least those of the longest burst.

    Members:
        s_axi: AXI4 subordinate.
        m_axi: AXI4 manager.
    """

    s_axi: Axi4Interface
    m_axi: Axi4Interface

    def __init__(self, data_width: int, *, id_width: int = ID_BITS, beats: int) -> None:
        self.data_width, self.id_width, self.beats = data_width, id_width, beats
        super().__init__(self.members_of(data_width, id_width))

    @staticmethod
    def members_of(data_width: int, id_width: int) -> dict[str, wiring.Member]:
        """Its ports."""
        signature = Axi4Signature(data_width=data_width, id_width=id_width)
        return {"s_axi": In(signature), "m_axi": Out(signature)}

    def elaborate(self, platform: Any) -> Module:
        """Hardware: skid buffers, and the buffer of writes."""
        m = Module()
        came, goes = self.s_axi, self.m_axi
        m.submodules.writes = writes = WriteBuffer(self.data_width, id_width=self.id_width, beats=self.beats)
        inner = writes.s_axi
        channels: dict[str, tuple[str, ...]] = {"aw": ADDRESS, "w": WRITE}
        for name, fields in channels.items():
            _pass(m, getattr(came, name), getattr(inner, name), fields)
            _pass(m, getattr(writes.m_axi, name), getattr(goes, name), fields)
        _pass(m, inner.b, came.b, RESPONSE)
        links: list[tuple[str, Any, Any, tuple[str, ...]]] = [
            ("ar", came.ar, goes.ar, ADDRESS),
            ("r", goes.r, came.r, READ),
            ("b", goes.b, writes.m_axi.b, RESPONSE),
        ]
        for name, source, sink, fields in links:
            skid = Skid(data.StructLayout({field: len(getattr(source, field)) for field in fields}))
            m.submodules[name] = skid
            m.d.comb += [
                *(skid.i.payload[field].eq(getattr(source, field)) for field in fields),
                skid.i.valid.eq(source.valid),
                source.ready.eq(skid.i.ready),
                *(getattr(sink, field).eq(skid.o.payload[field]) for field in fields),
                sink.valid.eq(skid.o.valid),
                skid.o.ready.eq(sink.ready),
            ]
        return m


def _pass(m: Module, source: Any, sink: Any, fields: tuple[str, ...]) -> None:
    """Connects a channel of two ports."""
    m.d.comb += [
        *(getattr(sink, field).eq(getattr(source, field)) for field in fields),
        sink.valid.eq(source.valid),
        source.ready.eq(sink.ready),
    ]
