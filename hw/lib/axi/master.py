"""Reader and writer behind one AXI4 port."""

from collections.abc import Collection
from typing import Any

from amaranth import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from vrex.hw.lib.axi.burst import (
    LIMITS,
    REQUEST,
    axi_members,
    beat_layout,
    connect_members,
    read_members,
    write_members,
)
from vrex.hw.lib.axi.reader import AxiReader
from vrex.hw.lib.axi.writer import DONE, AxiWriter
from vrex.model.config import Config


class AxiMaster(wiring.Component):
    """A reader and a writer behind one port.

    Args:
        config, clients, buffered: as `AxiReader`'s.

    Members:
        read, beats: `request` and `beats` of the reader.
        write, data, done: `request`, `data` and `done` of the writer.
        LIMITS, m_axi_*: see `axi_members`.
        read_bursts, read_beats, write_bursts, write_beats: see the parts.
    """

    def __init__(self, config: Config, *, clients: int = 4, buffered: Collection[int] = (3,)) -> None:
        self.config = config
        self.reader = AxiReader(config, clients=clients, buffered=buffered)
        self.writer = AxiWriter(config)
        counters = dict.fromkeys(("read_bursts", "read_beats", "write_bursts", "write_beats"), Out(1))
        super().__init__(
            LIMITS
            | axi_members(config)
            | {
                "read": In(stream.Signature(REQUEST)).array(clients),
                "beats": Out(stream.Signature(beat_layout(config.bus_bits))).array(clients),
                "write": In(stream.Signature(REQUEST)),
                "data": In(stream.Signature(config.bus_bits)),
                "done": Out(stream.Signature(DONE)),
            }
            | counters
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware."""
        m = Module()
        m.submodules.reader, m.submodules.writer = reader, writer = self.reader, self.writer
        connect_members(m, self, reader, LIMITS | read_members(self.config))
        connect_members(m, self, writer, LIMITS | write_members(self.config))
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
