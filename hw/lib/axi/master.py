"""Reader and writer behind one AXI4 port."""

from collections.abc import Collection
from typing import Any

from amaranth import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from vrex.hw.lib.axi.burst import REQUEST, Windows, WindowsSignature, beat_layout
from vrex.hw.lib.axi.reader import AxiReader
from vrex.hw.lib.axi.signature import Axi4Interface, Axi4Signature
from vrex.hw.lib.axi.writer import DONE, AxiWriter


class AxiMaster(wiring.Component):
    """An `AxiReader` and an `AxiWriter` behind one port.

    Args:
        bus_bits: width of a beat.
        outstanding: most bursts without an answer, of each reading client and of the writer.
        burst_beats: most beats of a burst, a power of two.
        clients, buffered: of the reader.

    Members:
        windows, timeout: as the parts'.
        read, beats: `request` and `beats` of the reader.
        write, data, done: `request`, `data` and `done` of the writer.
        m_axi: AXI4 manager.
        read_bursts, read_beats, write_bursts, write_beats: high in each cycle in which a burst is accepted,
            a beat is transferred.
    """

    windows: Windows
    timeout: Signal
    read: list[stream.Interface]
    beats: list[stream.Interface]
    write: stream.Interface
    data: stream.Interface
    done: stream.Interface
    m_axi: Axi4Interface
    read_bursts: Signal
    read_beats: Signal
    write_bursts: Signal
    write_beats: Signal

    def __init__(
        self,
        bus_bits: int,
        *,
        outstanding: int,
        burst_beats: int,
        clients: int = 4,
        buffered: Collection[int] = (3,),
    ) -> None:
        self.reader = AxiReader(
            bus_bits, outstanding=outstanding, burst_beats=burst_beats, clients=clients, buffered=buffered
        )
        self.writer = AxiWriter(bus_bits, outstanding=outstanding, burst_beats=burst_beats)
        super().__init__(
            {
                "windows": In(WindowsSignature()),
                "timeout": In(32),
                "read": In(stream.Signature(REQUEST)).array(clients),
                "beats": Out(stream.Signature(beat_layout(bus_bits))).array(clients),
                "write": In(stream.Signature(REQUEST)),
                "data": In(stream.Signature(bus_bits)),
                "done": Out(stream.Signature(DONE)),
                "m_axi": Out(Axi4Signature(data_width=bus_bits)),
                "read_bursts": Out(1),
                "read_beats": Out(1),
                "write_bursts": Out(1),
                "write_beats": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware: reader and writer, each on its channels of the port."""
        m = Module()
        m.submodules.reader, m.submodules.writer = reader, writer = self.reader, self.writer
        for part in (reader, writer):
            connect(m, flipped(self.windows), part.windows)
            m.d.comb += part.timeout.eq(self.timeout)
        port = flipped(self.m_axi)
        connect(m, reader.m_axi.ar, port.ar)
        connect(m, port.r, reader.m_axi.r)
        connect(m, writer.m_axi.aw, port.aw)
        connect(m, writer.m_axi.w, port.w)
        connect(m, port.b, writer.m_axi.b)
        for i in range(reader.clients):
            connect(m, flipped(self.read[i]), reader.request[i])
            connect(m, reader.beats[i], flipped(self.beats[i]))
        connect(m, flipped(self.write), writer.request)
        connect(m, flipped(self.data), writer.data)
        connect(m, writer.done, flipped(self.done))
        m.d.comb += [
            self.read_bursts.eq(reader.bursts),
            self.read_beats.eq(reader.read_beats),
            self.write_bursts.eq(writer.bursts),
            self.write_beats.eq(writer.write_beats),
        ]
        return m
