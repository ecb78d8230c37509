"""KVMU: everything of the engine that touches memory, behind one AXI4 port (paper Section V-C)."""

from typing import Any

from amaranth import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from vrex.hw.dre import hcu as hcu_unit
from vrex.hw.dre.kvmu import fetch, retrieve
from vrex.hw.dre.kvmu.append import append
from vrex.hw.dre.kvmu.fetch import Fetch
from vrex.hw.dre.kvmu.ports import (
    EnginePort,
    EngineSignature,
    HcuPort,
    HcuSignature,
    WtuPort,
    WtuSignature,
)
from vrex.hw.dre.kvmu.retrieve import Retrieve
from vrex.hw.lib.axi.burst import Windows, WindowsSignature
from vrex.hw.lib.axi.master import AxiMaster
from vrex.hw.lib.axi.signature import Axi4Interface, Axi4Signature
from vrex.model.config import HcuConfig, KvmuConfig, MeanConfig, WtuConfig

APPEND_CLIENT, RETRIEVE_CLIENT, MAP_CLIENT, KV_CLIENT = range(4)
"""Clients of the AXI reader; FETCH has two, that of K and V with a buffer."""


class Kvmu(wiring.Component):
    """The engines APPEND, RETRIEVE and FETCH, which work at the same time.

    Args:
        config: of the KV store.
        hcu, wtu, mean: of the units that APPEND and RETRIEVE work with.
        bus_bits: width of a beat.

    Members:
        append, retrieve, fetch: commands of the engines; see `Append`, `Retrieve` and `Fetch`.
        for_retrieve: FETCH belongs to RETRIEVE; changes only while FETCH is idle.
        kv, host_beat, wait_in: see `Fetch`.
        th_hd: Hamming threshold.
        hcu, wtu: the other sides of an `Hcu` that knows closed clusters and of a `Wtu`.
        windows, timeout, m_axi: see `vrex.hw.lib.axi.master.AxiMaster`, and the counters
            read_bursts, read_beats, write_bursts, write_beats.
    """

    append: EnginePort
    retrieve: EnginePort
    fetch: EnginePort
    for_retrieve: Signal
    kv: stream.Interface
    host_beat: Signal
    wait_in: Signal
    th_hd: Signal
    hcu: HcuPort
    wtu: WtuPort
    windows: Windows
    timeout: Signal
    m_axi: Axi4Interface
    read_bursts: Signal
    read_beats: Signal
    write_bursts: Signal
    write_beats: Signal

    def __init__(
        self, config: KvmuConfig, *, hcu: HcuConfig, wtu: WtuConfig, mean: MeanConfig, bus_bits: int
    ) -> None:
        self._config, self._hcu, self._wtu, self._mean = config, hcu, wtu, mean
        self._bus_bits = bus_bits
        founders = hcu_unit.founders_in_a_beat(hcu, bus_bits)
        command = append.command_layout(hcu)
        super().__init__(
            {
                "append": Out(EngineSignature(command, append.DONE, bus_bits)),
                "retrieve": Out(EngineSignature(retrieve.COMMAND, retrieve.DONE, bus_bits)),
                "fetch": Out(EngineSignature(fetch.COMMAND, fetch.DONE, bus_bits, results=False)),
                "for_retrieve": In(1),
                "kv": Out(stream.Signature(bus_bits)),
                "host_beat": Out(1),
                "wait_in": Out(1),
                "th_hd": In(8),
                "hcu": Out(HcuSignature(bus_bits, founders)),
                "wtu": Out(WtuSignature(bus_bits)),
                "windows": In(WindowsSignature()),
                "timeout": In(32),
                "m_axi": Out(Axi4Signature(data_width=bus_bits)),
                "read_bursts": Out(1),
                "read_beats": Out(1),
                "write_bursts": Out(1),
                "write_beats": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware: the three engines and an `AxiMaster` that they share."""
        m = Module()
        config, bus_bits = self._config, self._bus_bits
        m.submodules.append = appending = append.Append(
            config, hcu=self._hcu, mean=self._mean, bus_bits=bus_bits
        )
        m.submodules.retrieve = retrieving = Retrieve(self._wtu.row_clusters, bus_bits=bus_bits)
        m.submodules.fetch = fetching = Fetch(config, chunk_tokens=self._hcu.chunk_tokens, bus_bits=bus_bits)
        m.submodules.axi = axi = AxiMaster(
            bus_bits,
            outstanding=config.outstanding,
            burst_beats=config.burst_beats,
            buffered=(KV_CLIENT,),
        )
        self._memory(m, axi)
        reads = {
            APPEND_CLIENT: (appending.read, appending.beats),
            RETRIEVE_CLIENT: (retrieving.read, retrieving.beats),
            MAP_CLIENT: (fetching.map_read, fetching.map_beats),
            KV_CLIENT: (fetching.kv_read, fetching.kv_beats),
        }
        for client, (request, beats) in reads.items():
            connect(m, request, axi.read[client])
            connect(m, axi.beats[client], beats)
        connect(m, appending.write, axi.write)
        connect(m, appending.data, axi.data)
        connect(m, axi.done, appending.written)
        for port, engine in ((self.append, appending), (self.retrieve, retrieving)):
            connect(m, flipped(port.cmd), engine.cmd)
            connect(m, flipped(port.din), engine.din)
            connect(m, engine.dout, flipped(port.dout))
            connect(m, engine.done, flipped(port.done))
            m.d.comb += port.busy.eq(engine.busy)
        connect(m, appending.hcu_cmd, flipped(self.hcu.cmd))
        connect(m, appending.hcu_din, flipped(self.hcu.din))
        connect(m, flipped(self.hcu.dout), appending.hcu_dout)
        connect(m, flipped(self.hcu.done), appending.hcu_done)
        m.d.comb += [self.hcu.closed.eq(appending.hcu_closed), appending.th_hd.eq(self.th_hd)]
        connect(m, retrieving.wtu, flipped(self.wtu))
        self._share_fetch(m, fetching, retrieving)
        return m

    def _memory(self, m: Module, axi: AxiMaster) -> None:
        """The port, its limits and what is counted on it."""
        connect(m, axi.m_axi, flipped(self.m_axi))
        connect(m, flipped(self.windows), axi.windows)
        m.d.comb += [
            axi.timeout.eq(self.timeout),
            self.read_bursts.eq(axi.read_bursts),
            self.read_beats.eq(axi.read_beats),
            self.write_bursts.eq(axi.write_bursts),
            self.write_beats.eq(axi.write_beats),
        ]

    def _share_fetch(self, m: Module, engine: Fetch, retrieving: Retrieve) -> None:
        """FETCH works for its own commands or for RETRIEVE."""
        with m.If(self.for_retrieve):
            connect(m, retrieving.fetch_cmd, engine.cmd)
            connect(m, retrieving.masks, engine.masks)
            connect(m, engine.done, retrieving.fetch_done)
        with m.Else():
            connect(m, flipped(self.fetch.cmd), engine.cmd)
            connect(m, flipped(self.fetch.din), engine.masks)
            connect(m, engine.done, flipped(self.fetch.done))
        connect(m, engine.kv, flipped(self.kv))
        m.d.comb += [
            self.fetch.busy.eq(engine.busy),
            self.wait_in.eq(engine.wait_in),
            self.host_beat.eq(engine.host_beat),
        ]
