"""The core: LXE and DRE behind one AXI4 port, run by programs in memory (model `vrex.model.core.core`)."""

import operator
from functools import reduce
from typing import Any

from amaranth import Cat, ClockDomain, ClockSignal, Const, DomainRenamer, Module, Mux, ResetSignal, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from vrex.hw.core.dispatch import MOVING, Dispatch
from vrex.hw.core.front import Front
from vrex.hw.core.gear import Widen
from vrex.hw.core.issue import Issue, KvBuffer, dre_issue, lxe_issue
from vrex.hw.core.movers import FAULT, FeedMover, LoadMover, Outlet, WriteMover
from vrex.hw.core.registers import CoreRegisters
from vrex.hw.core.sequencer import CORES_BITS, ENGINES, Sequencer
from vrex.hw.dre.dre import Dre
from vrex.hw.lib.axi.lite import AxiLiteInterface, AxiLiteSignature
from vrex.hw.lib.axi.merge import AxiMerge
from vrex.hw.lib.axi.reader import AxiReader
from vrex.hw.lib.axi.signature import ID_BITS, Axi4Interface, Axi4Signature
from vrex.hw.lib.axi.writer import AxiWriter
from vrex.hw.lxe.lxe import Lxe
from vrex.model.config import Config
from vrex.model.core.instructions import Engine

READ_CLIENTS = ("program", "load", "feed", "word")
"""Of the core's reader, besides the DRE's; the last one reads jobs, too."""

BUFFERED = (0, 1, 2)
"""Clients that may keep their beats waiting, so they ask for no more than there is space for."""

SAVE_PORT, RESULT_PORT, DRE_PORT = range(3)
"""Ports of the merge that write."""

DRE_READ_PORT = 1
"""Of the ports that read; the other one is the core's own reader."""

CORE_ID_BITS = ID_BITS + (max(2, DRE_PORT + 1) - 1).bit_length()
"""Of the ids of a core's AXI4 port: those of its parts with the number of their port above them."""

WINDOWS = ("device_base", "device_pages", "host_base", "host_pages")
RINGS = ("job_base", "job_size", "job_tail", "end_base", "end_head")
"""Registers that the reader's and writers' windows, and the front's rings, take."""

QUIET_CYCLES = 512
"""Without anything on the bus, after which nothing more is expected of engines that work on a failed job."""


class Core(wiring.Component):
    """Takes jobs from a ring in memory and executes their programs.

    Args:
        config: accelerator.

    Members:
        s_axi: AXI4-Lite subordinate: registers (`vrex.model.core.registers`).
        m_axi: AXI4 manager: everything else.
        irq: interrupt, active high, as long as a bit of IRQ is set that IRQ_MASK lets through.
        enable: jobs are taken, if CONTROL.enable says so too; the job in work goes on.
        barrier: waits at a BARRIER of `cores` cores, until `met`; `others` says that something moves in
            another one of them. All of it is of use where there are several.
        cores, met, others: see `barrier`.
        progress: something moved.
        busy: a job is in work, or a reset is; else nothing is on `m_axi`.

    Raises:
        ValueError: the configuration makes no core (`Config.check_core`).
    """

    s_axi: AxiLiteInterface
    m_axi: Axi4Interface
    irq: Signal
    enable: Signal
    barrier: Signal
    cores: Signal
    met: Signal
    others: Signal
    progress: Signal
    busy: Signal

    def __init__(self, config: Config) -> None:
        config.check_core()
        self.config = config
        super().__init__(self.members_of(config))

    @staticmethod
    def members_of(config: Config) -> dict[str, wiring.Member]:
        """Its ports."""
        return {
            "s_axi": In(AxiLiteSignature()),
            "m_axi": Out(Axi4Signature(data_width=config.bus_bits, id_width=CORE_ID_BITS)),
            "irq": Out(1),
            "enable": In(1),
            "barrier": Out(1),
            "cores": Out(CORES_BITS),
            "met": In(1),
            "others": In(1),
            "progress": Out(1),
            "busy": Out(1),
        }

    def elaborate(self, platform: Any) -> Module:
        """All parts and their wiring, and what resets them.

        The engines are reset after a failed job, all but the registers by the host's soft reset.
        """
        m = Module()
        config = self.config
        # The engines are reset; so are sequencer and front.
        self.flush = Signal()
        self.reset = Signal()
        self.sequencer, self.front = Sequencer(config), Front(config.bus_bits)
        self.dispatch = Dispatch(config)
        self.lxe = Lxe(config.lxe, dpe=config.dpe, vpe=config.vpe)
        self.dre = Dre(
            hcu=config.hcu, wtu=config.wtu, kvmu=config.kvmu, mean=config.mean, bus_bits=config.bus_bits
        )
        sizes: Any = {"outstanding": config.kvmu.outstanding, "burst_beats": config.kvmu.burst_beats}
        self.reader = AxiReader(config.bus_bits, clients=len(READ_CLIENTS), buffered=BUFFERED, **sizes)
        self.writers = {
            SAVE_PORT: AxiWriter(config.bus_bits, **sizes),
            RESULT_PORT: AxiWriter(config.bus_bits, **sizes),
        }
        self.load, self.feed = LoadMover(config), FeedMover(config)
        self.save, self.result, self.outlet = WriteMover(config), WriteMover(config), Outlet(config)
        self.to_lxe, self.to_dre, self.kv = lxe_issue(config), dre_issue(config), KvBuffer(config)
        # What the DRE asks for may have to wait for what the LXE still has to read.
        buffered = {DRE_READ_PORT: config.kvmu.outstanding * config.kvmu.burst_beats}
        # It asks for writes before it has what the payload still has to bring.
        gathered = {DRE_PORT: 2 * config.kvmu.burst_beats}
        self.merge = AxiMerge(config.bus_bits, reads=2, writes=3, buffered=buffered, gathered=gathered)
        self.registers = CoreRegisters(config)
        m.submodules.registers, m.submodules.merge = self.registers, self.merge
        # Domains rather than inserted resets, which would not reach instances such as the trees.
        self._domain(m, "host", self.reset)
        self._domain(m, "engine", self.flush)
        for name in ("sequencer", "dispatch", "front"):
            m.submodules[name] = DomainRenamer("host")(getattr(self, name))
        for name in (
            "lxe",
            "dre",
            "reader",
            "load",
            "feed",
            "save",
            "result",
            "outlet",
            "to_lxe",
            "to_dre",
            "kv",
        ):
            m.submodules[name] = DomainRenamer("engine")(getattr(self, name))
        for number, writer in self.writers.items():
            m.submodules[f"writer_{number}"] = DomainRenamer("engine")(writer)
        self._bus(m)
        self._host(m)
        self._reading(m)
        self._writing(m)
        self._engines(m)
        self._faults(m)
        self._resets(m)
        self._counters(m)
        return m

    @staticmethod
    def _domain(m: Module, name: str, reset: Signal) -> None:
        """Adds a clock domain on the same clock that has one more reset."""
        m.domains += ClockDomain(name, local=True)
        m.d.comb += [ClockSignal(name).eq(ClockSignal()), ResetSignal(name).eq(ResetSignal() | reset)]

    def _bus(self, m: Module) -> None:
        """Everything that reads and writes, behind the merge."""
        merge, dre = self.merge, self.dre.m_axi
        connect(m, merge.m_axi, flipped(self.m_axi))
        for port, source in ((merge.read_axi[0], self.reader.m_axi), (merge.read_axi[DRE_READ_PORT], dre)):
            connect(m, source.ar, port.ar)
            connect(m, port.r, source.r)
        sources = [self.writers[SAVE_PORT].m_axi, self.writers[RESULT_PORT].m_axi, dre]
        for port, source in zip(merge.write_axi, sources, strict=True):
            connect(m, source.aw, port.aw)
            connect(m, source.w, port.w)
            connect(m, port.b, source.b)
        values = self.registers.values
        parts: list[AxiReader | AxiWriter] = [self.reader, *self.writers.values()]
        for part in parts:
            m.d.comb += [
                *(getattr(part.windows, name).eq(getattr(values, name)) for name in WINDOWS),
                part.timeout.eq(values.timeout),
            ]

    def _host(self, m: Module) -> None:
        """Registers, rings and sequencer."""
        registers, front, sequencer = self.registers, self.front, self.sequencer
        connect(m, flipped(self.s_axi), registers.s_axi)
        connect(m, front.job, sequencer.job)
        connect(m, sequencer.end, front.end)
        m.d.comb += [
            self.irq.eq(registers.irq),
            sequencer.sequences.eq(registers.values.sequences),
            sequencer.budget.eq(registers.values.budget),
            sequencer.stall.eq(registers.values.stall),
            front.enable.eq(registers.enable & self.enable),
            *(getattr(front, name).eq(getattr(registers.values, name)) for name in RINGS),
            registers.states.job_head.eq(front.job_head),
            registers.states.end_tail.eq(front.end_tail),
            registers.states.status.eq(Cat(front.busy, self.reset, front.full)),
            self.busy.eq(front.busy | self.reset),
            registers.events.eq(Cat(front.ended, front.failed)),
        ]

    def _reading(self, m: Module) -> None:
        """The reader's clients; jobs are read while no program reads words."""
        reader, sequencer, front = self.reader, self.sequencer, self.front
        program, load, feed, word = range(len(READ_CLIENTS))
        connect(m, sequencer.program_request, reader.request[program])
        connect(m, reader.beats[program], sequencer.program_beats)
        for number, mover in ((load, self.load), (feed, self.feed)):
            connect(m, mover.request, reader.request[number])
            connect(m, reader.beats[number], mover.beats)
        request, beats = reader.request[word], reader.beats[word]
        mine = sequencer.working
        m.d.comb += [
            request.valid.eq(Mux(mine, sequencer.word_request.valid, front.read.valid)),
            request.payload.eq(
                Mux(mine, sequencer.word_request.payload.as_value(), front.read.payload.as_value())
            ),
            sequencer.word_request.ready.eq(mine & request.ready),
            front.read.ready.eq(~mine & request.ready),
            *(port.payload.eq(beats.payload) for port in (sequencer.word_beats, front.beats)),
            sequencer.word_beats.valid.eq(mine & beats.valid),
            front.beats.valid.eq(~mine & beats.valid),
            beats.ready.eq(Mux(mine, sequencer.word_beats.ready, front.beats.ready)),
        ]

    def _writing(self, m: Module) -> None:
        """The writers; ends of jobs are written by that of RESULT, which has nothing to do then."""
        save, result = self.writers[SAVE_PORT], self.writers[RESULT_PORT]
        connect(m, self.save.write, save.request)
        connect(m, self.save.data, save.data)
        connect(m, save.done, self.save.done)
        front, mover, mine = self.front, self.result, self.result.busy
        m.d.comb += [
            result.request.valid.eq(Mux(mine, mover.write.valid, front.write.valid)),
            result.request.payload.eq(
                Mux(mine, mover.write.payload.as_value(), front.write.payload.as_value())
            ),
            mover.write.ready.eq(mine & result.request.ready),
            front.write.ready.eq(~mine & result.request.ready),
            result.data.valid.eq(Mux(mine, mover.data.valid, front.data.valid)),
            result.data.payload.eq(Mux(mine, mover.data.payload, front.data.payload)),
            mover.data.ready.eq(mine & result.data.ready),
            front.data.ready.eq(~mine & result.data.ready),
            *(port.payload.eq(result.done.payload) for port in (mover.done, front.done)),
            mover.done.valid.eq(mine & result.done.valid),
            front.done.valid.eq(~mine & result.done.valid),
            result.done.ready.eq(Mux(mine, mover.done.ready, front.done.ready)),
        ]

    def _engines(self, m: Module) -> None:
        """LXE and DRE, what brings to them and takes from them, and what the sequencer sees of all."""
        sequencer, dispatch, lxe, dre, kv = self.sequencer, self.dispatch, self.lxe, self.dre, self.kv
        movers: dict[Engine, LoadMover | FeedMover | WriteMover] = {
            Engine.LOAD: self.load,
            Engine.FEED: self.feed,
            Engine.SAVE: self.save,
            Engine.RESULT: self.result,
        }
        for engine, port in zip(MOVING, dispatch.moves, strict=True):
            connect(m, port, movers[engine].cmd)
        m.d.comb += self.load.scales.eq(dispatch.scales)
        connect(m, dispatch.outlet, self.outlet.cmd)
        units: list[tuple[Any, Issue, Lxe | Dre]] = [
            (dispatch.lxe, self.to_lxe, lxe),
            (dispatch.dre, self.to_dre, dre),
        ]
        for port, issue, unit in units:
            connect(m, port, issue.cmd)
            connect(m, issue.unit_cmd, unit.cmd)
            connect(m, unit.cpl, issue.unit_cpl)
        connect(m, self.load.o, lxe.din)
        connect(m, lxe.dout, self.outlet.i)
        connect(m, self.outlet.save, self.save.i)
        connect(m, self.outlet.feed, self.feed.other)
        connect(m, self.feed.o, dre.din)
        connect(m, dre.dout, self.result.i)
        connect(m, dre.kv, kv.i)
        connect(m, self._kv_lines(m), self.load.other)
        busy: dict[Engine, Any] = {engine: mover.busy for engine, mover in movers.items()}
        busy |= {Engine.LXE: self.to_lxe.busy, Engine.DRE: self.to_dre.busy}
        detail = Signal(32)
        with m.If(dre.cpl.valid & dre.cpl.ready):
            m.d.sync += detail.eq(dre.cpl.payload.detail)
        m.d.comb += [
            *(dispatch.bits.eq(sequencer.bits), dispatch.index.eq(sequencer.index)),
            *(dispatch.value.eq(sequencer.value), dispatch.go.eq(sequencer.go)),
            *(sequencer.right.eq(dispatch.right), sequencer.handed.eq(dispatch.handed)),
            kv.ended.eq(dre.kv_end),
            kv.limit.eq(sequencer.tokens_limit),
            kv.take.eq(sequencer.tokens_take),
            sequencer.tokens_ready.eq(kv.ready),
            sequencer.tokens.eq(kv.granted),
            sequencer.busy.eq(Cat(busy[engine] for engine in ENGINES)),
            sequencer.left.eq(~kv.empty | self.outlet.busy | lxe.dout.valid | dre.dout.valid),
            sequencer.detail.eq(detail),
            sequencer.nan.eq(lxe.cpl.valid & lxe.cpl.ready & lxe.cpl.payload.nan[0]),
        ]

    def _kv_lines(self, m: Module) -> Any:
        """Adds what makes lines of delivered beats; returns their stream."""
        widen = Widen(self.config.bus_bits, 8 * self.config.dpe.beat_bytes)
        m.submodules.kv_widen = DomainRenamer("engine")(widen)
        connect(m, self.kv.o, widen.i)
        return widen.o

    def _faults(self, m: Module) -> None:
        """What any part tells, the first in this list where several do."""
        fault: Any = Const(0, data.StructLayout({"valid": 1, "fault": FAULT}).size)
        parts = [self.load, self.feed, self.save, self.result, self.to_lxe, self.to_dre]
        for part in reversed(parts):
            told = part.fault
            fault = Mux(told.valid, Cat(told.valid, told.payload.as_value()), fault)
        m.d.comb += [self.sequencer.fault.valid.eq(fault[0]), self.sequencer.fault.payload.eq(fault[1:])]

    def _resets(self, m: Module) -> None:
        """Quiet on the bus, and the two resets, during which the bus is drained."""
        port = self.merge.m_axi
        moved = reduce(
            operator.or_,
            [channel.valid & channel.ready for channel in (port.ar, port.r, port.aw, port.w, port.b)],
        )
        still = Signal(range(QUIET_CYCLES + 1))
        m.d.sync += still.eq(Mux(moved, 0, Mux(still == QUIET_CYCLES, still, still + 1)))
        with m.If(self.registers.reset):
            m.d.sync += self.reset.eq(1)
        with m.Elif(self.merge.idle):
            m.d.sync += self.reset.eq(0)
        sequencer = self.sequencer
        m.d.comb += [
            self.flush.eq(self.reset | sequencer.flush),
            self.merge.drain.eq(self.flush),
            sequencer.quiet.eq(still == QUIET_CYCLES),
            sequencer.drained.eq(self.merge.idle),
            sequencer.progress.eq(moved | self._moved()),
            self.progress.eq(sequencer.progress | sequencer.taken),
            *(self.barrier.eq(sequencer.barrier), self.cores.eq(sequencer.cores)),
            *(sequencer.met.eq(self.met), sequencer.others.eq(self.others)),
        ]

    def _moved(self) -> Any:
        """Something moved inside."""
        streams = [self.lxe.din, self.lxe.dout, self.lxe.cpl, self.dre.din, self.dre.cpl, self.dre.kv]
        return reduce(operator.or_, [port.valid & port.ready for port in streams])

    def _counters(self, m: Module) -> None:
        """What the counters count; those of the DPE are told by the change of their lowest bit."""
        counts, lxe, sequencer = self.registers.counts, self.lxe, self.sequencer
        for name in ("busy", "no_weights", "no_rows", "no_room"):
            before, total = Signal(name=f"{name}_before"), getattr(lxe, name)
            m.d.sync += before.eq(total[0])
            m.d.comb += getattr(counts, f"dpe_{name}").eq((before ^ total[0]) & ~self.flush)
        m.d.comb += [
            counts.jobs.eq(self.front.ended),
            counts.lost_ends.eq(self.front.lost),
            counts.instructions.eq(sequencer.taken),
            counts.busy.eq(sequencer.working),
            counts.lxe_busy.eq(self.to_lxe.working),
            counts.vpe_busy.eq(lxe.vector_works),
            counts.dre_busy.eq(self.to_dre.working),
            counts.load_busy.eq(self.load.active),
            counts.load_wait.eq(lxe.din.ready & ~lxe.din.valid),
            counts.save_busy.eq(self.save.busy),
            counts.feed_busy.eq(self.feed.active),
            counts.sequencer_wait.eq(sequencer.waits),
            counts.read_beats.eq(self.merge.read_beats),
            counts.write_beats.eq(self.merge.write_beats),
            counts.kv_wait.eq(self.kv.full),
        ]
