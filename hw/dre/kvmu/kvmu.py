"""KVMU: everything of the engine that touches memory, behind one AXI4 port (paper Section V-C)."""

from typing import Any

from amaranth import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from vrex.hw.dre import hcu
from vrex.hw.dre.kvmu import fetch, retrieve
from vrex.hw.dre.kvmu.append import append
from vrex.hw.dre.wtu import wtu
from vrex.hw.lib.axi.burst import LIMITS, axi_members, connect_members
from vrex.hw.lib.axi.master import AxiMaster
from vrex.model.config import Config

APPEND_CLIENT, RETRIEVE_CLIENT, MAP_CLIENT, KV_CLIENT = range(4)
"""Clients of the AXI reader; FETCH has two, that of K and V with a buffer."""

COUNTERS = ("read_bursts", "read_beats", "write_bursts", "write_beats")


class Kvmu(wiring.Component):
    """The engines APPEND, RETRIEVE and FETCH, which work at the same time.

    Args:
        config: accelerator.

    Members:
        append_*, retrieve_*, fetch_*: commands, payloads, results, ends and `busy` of the engines; see
            `Append`, `Retrieve` and `Fetch`.
        for_retrieve: FETCH belongs to RETRIEVE; changes only while FETCH is idle.
        kv, host_beat, fetch_wait_in: see `Fetch`.
        th_hd, hcu_*: the other side of an `Hcu`, see `Append`.
        wtu_*: the other side of a `Wtu`, see `Retrieve`.
        LIMITS, m_axi_*, counters: see `vrex.hw.lib.axi.master.AxiMaster`.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        beats = stream.Signature(config.bus_bits)
        done = stream.Signature(fetch.DONE)
        super().__init__(
            LIMITS
            | axi_members(config)
            | dict.fromkeys(COUNTERS, Out(1))
            | {
                "append_cmd": In(stream.Signature(append.command_layout(config.hcu))),
                "append_din": In(beats),
                "append_dout": Out(beats),
                "append_done": Out(stream.Signature(append.DONE)),
                "append_busy": Out(1),
                "retrieve_cmd": In(stream.Signature(retrieve.COMMAND)),
                "retrieve_din": In(beats),
                "retrieve_dout": Out(beats),
                "retrieve_done": Out(done),
                "retrieve_busy": Out(1),
                "fetch_cmd": In(stream.Signature(fetch.COMMAND)),
                "fetch_din": In(beats),
                "fetch_done": Out(done),
                "fetch_busy": Out(1),
                "fetch_wait_in": Out(1),
                "for_retrieve": In(1),
                "kv": Out(beats),
                "host_beat": Out(1),
                "th_hd": In(8),
                "hcu_cmd": Out(stream.Signature(hcu.COMMAND)),
                "hcu_din": Out(beats),
                "hcu_closed": Out(hcu.founders_in_a_beat(config)),
                "hcu_dout": In(stream.Signature(hcu.DECISION)),
                "hcu_done": In(stream.Signature(hcu.DONE)),
                "wtu_start": Out(stream.Signature(16)),
                "wtu_din": Out(beats),
                "wtu_dout": In(beats),
                "wtu_done": In(stream.Signature(wtu.DONE)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware."""
        m = Module()
        config = self.config
        m.submodules.append = self.append = append.Append(
            config.kvmu, hcu=config.hcu, mean=config.mean, bus_bits=config.bus_bits
        )
        m.submodules.retrieve = self.retrieve = retrieve.Retrieve(self.config)
        m.submodules.fetch = self.fetch = fetch.Fetch(self.config)
        m.submodules.axi = self.axi = AxiMaster(self.config, buffered=(KV_CLIENT,))
        self._memory(m)
        self._append(m)
        self._retrieve(m)
        self._fetch(m)
        return m

    def _memory(self, m: Module) -> None:
        """The engines' accesses."""
        axi = self.axi
        connect_members(m, self, axi, LIMITS | axi_members(self.config))
        m.d.comb += [getattr(self, name).eq(getattr(axi, name)) for name in COUNTERS]
        clients = {
            APPEND_CLIENT: (self.append.read, self.append.beats),
            RETRIEVE_CLIENT: (self.retrieve.read, self.retrieve.beats),
            MAP_CLIENT: (self.fetch.map_read, self.fetch.map_beats),
            KV_CLIENT: (self.fetch.kv_read, self.fetch.kv_beats),
        }
        for client, (request, beats) in clients.items():
            connect(m, request, axi.read[client])
            connect(m, axi.beats[client], beats)
        connect(m, self.append.write, axi.write)
        connect(m, self.append.data, axi.data)
        connect(m, axi.done, self.append.written)

    def _append(self, m: Module) -> None:
        engine = self.append
        connect(m, flipped(self.append_cmd), engine.cmd)
        connect(m, flipped(self.append_din), engine.din)
        connect(m, engine.dout, flipped(self.append_dout))
        connect(m, engine.done, flipped(self.append_done))
        connect(m, engine.hcu_cmd, flipped(self.hcu_cmd))
        connect(m, engine.hcu_din, flipped(self.hcu_din))
        connect(m, flipped(self.hcu_dout), engine.hcu_dout)
        connect(m, flipped(self.hcu_done), engine.hcu_done)
        m.d.comb += [
            engine.th_hd.eq(self.th_hd),
            self.hcu_closed.eq(engine.hcu_closed),
            self.append_busy.eq(engine.busy),
        ]

    def _retrieve(self, m: Module) -> None:
        engine = self.retrieve
        connect(m, flipped(self.retrieve_cmd), engine.cmd)
        connect(m, flipped(self.retrieve_din), engine.din)
        connect(m, engine.dout, flipped(self.retrieve_dout))
        connect(m, engine.done, flipped(self.retrieve_done))
        connect(m, engine.wtu_start, flipped(self.wtu_start))
        connect(m, engine.wtu_din, flipped(self.wtu_din))
        connect(m, flipped(self.wtu_dout), engine.wtu_dout)
        connect(m, flipped(self.wtu_done), engine.wtu_done)
        m.d.comb += self.retrieve_busy.eq(engine.busy)

    def _fetch(self, m: Module) -> None:
        """FETCH works for its own commands or for RETRIEVE."""
        engine, retrieve = self.fetch, self.retrieve
        with m.If(self.for_retrieve):
            connect(m, retrieve.fetch_cmd, engine.cmd)
            connect(m, retrieve.masks, engine.masks)
            connect(m, engine.done, retrieve.fetch_done)
        with m.Else():
            connect(m, flipped(self.fetch_cmd), engine.cmd)
            connect(m, flipped(self.fetch_din), engine.masks)
            connect(m, engine.done, flipped(self.fetch_done))
        connect(m, engine.kv, flipped(self.kv))
        m.d.comb += [
            self.fetch_busy.eq(engine.busy),
            self.fetch_wait_in.eq(engine.wait_in),
            self.host_beat.eq(engine.host_beat),
        ]
