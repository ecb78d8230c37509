"""DRE: dynamic KV cache retrieval engine (paper Section V; model `vrex.model.dre.dre`).

One stream of commands goes to three engines that work at the same time: APPEND (with the HCU), RETRIEVE
(with the WTU) and FETCH, which RETRIEVE uses too. They share one AXI4 port. A command waits for its engine,
and for those that work on the same table if either side changes it. Registers are written and read when
nothing else is in work. Payloads are distributed, and results and completions returned, in command order.
"""

import operator
from enum import IntEnum
from functools import partial
from typing import Any

from amaranth import C, Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out, connect, flipped

from vrex.hw.dre.commands import COMPLETION, DESCRIPTOR, count_beats, unit_counters
from vrex.hw.dre.hcu import Hcu
from vrex.hw.dre.kvmu.kvmu import Kvmu
from vrex.hw.dre.wtu.wtu import Wtu
from vrex.hw.lib.axi.signature import Axi4Interface, Axi4Signature
from vrex.hw.lib.registers import Registers
from vrex.hw.lib.stream import reduce_tree
from vrex.model.commands import LONG_PASSES, Opcode, Register, Status
from vrex.model.config import Config, HcuConfig, KvmuConfig, MeanConfig, WtuConfig
from vrex.model.dre.dre import PREDICT_ONLY
from vrex.model.dre.registers import DRE_REGISTERS

SIZE_CYCLES = 6
"""Cycles from a descriptor to the expected size of its payload."""

PORTS = ("cmd", "din", "done")
"""Of each engine."""


class Engine(IntEnum):
    """Who executes a command."""

    APPEND = 0
    RETRIEVE = 1
    FETCH = 2


IN_WORK = 4
"""Most commands that are in work or wait for their completion."""


class Slot:
    """An engine's command in work.

    Attributes:
        cmd, din, done: the engine's ports.
        active: there is one.
        finished: the engine has ended it.
        owes: part of its payload has not arrived.
        fetches: a RETRIEVE that fetches.
        tag, page, start: of the descriptor; its table's page and when it came.
        status, detail: for its completion.
    """

    def __init__(self, name: str, cmd: Any, din: Any, done: Any) -> None:
        self.cmd, self.din, self.done = cmd, din, done
        self.active = Signal(name=f"{name}_active")
        self.finished = Signal(name=f"{name}_finished")
        self.owes = Signal(name=f"{name}_owes")
        self.fetches = Signal(name=f"{name}_fetches")
        self.tag = Signal(16, name=f"{name}_tag")
        self.page = Signal(36, name=f"{name}_page")
        self.start = Signal(32, name=f"{name}_start")
        self.status = Signal(8, name=f"{name}_status")
        self.detail = Signal(32, name=f"{name}_detail")


def check_command(
    m: Module, config: Config, command: Any, heads: Signal, registers: Registers
) -> tuple[Signal, Signal]:
    """What is wrong with a descriptor, and whose command it is; the engines check the table itself.

    Args:
        config: dimensions.
        command: the descriptor, stable meanwhile.
        heads: register that takes the number of KV heads it names.
        registers: they judge SETREG and GETREG.

    Returns:
        (status, unit), valid `SIZE_CYCLES` after the descriptor.
    """
    count = command.count
    bus_shift = config.bus_bytes.bit_length() - 1
    beats = partial(count_beats, bus_bits=config.bus_bits)
    token_beats = config.kvmu.token_bytes // config.bus_bytes
    rows = Signal(24)
    row_beats = Signal(18)
    mask_beats = Signal(18)
    hash_beats = Signal(18)
    right = Signal(42)
    long = (command.opcode == Opcode.RETRIEVE) & (command.clusters > config.wtu.row_clusters)
    m.d.sync += [
        heads.eq(reduce_tree(list(command.kv_heads), operator.add)),
        rows.eq(Mux(long, LONG_PASSES, 1) * (heads * count)),
        row_beats.eq(beats(command.clusters, 16)),
        mask_beats.eq(beats(command.clusters, 1)),
        hash_beats.eq(beats(count, config.hcu.hash_bits)),
    ]
    with m.Switch(command.opcode):
        with m.Case(Opcode.APPEND):
            m.d.sync += right.eq(hash_beats + rows * token_beats)
        with m.Case(Opcode.RETRIEVE):
            m.d.sync += right.eq(rows * row_beats)
        with m.Default():
            m.d.sync += right.eq(heads * mask_beats)
    fits = command.length == (right << bus_shift)
    page = Mux(command.address[:12].any() | command.address[48:].any(), Status.BAD_ADDRESS, Status.OK)
    table = Mux(fits, page, Status.BAD_LENGTH)
    no_tokens = (count == 0) | (count > config.hcu.chunk_tokens) | (heads == 0)
    nothing = (count == 0) | (heads == 0)
    retrieve = Mux(command.param > PREDICT_ONLY, Status.BAD_VALUE, table)
    retrieve = Mux(command.clusters > config.wtu.mask_clusters, Status.CAPACITY, retrieve)
    status = Signal(8)
    unit = Signal(Engine)
    m.d.sync += [status.eq(Status.BAD_OPCODE), unit.eq(Engine.APPEND)]
    with m.Switch(command.opcode):
        with m.Case(Opcode.SETREG):
            m.d.sync += status.eq(registers.status(command, write=True))
        with m.Case(Opcode.GETREG):
            m.d.sync += status.eq(registers.status(command, write=False))
        with m.Case(Opcode.APPEND):
            m.d.sync += status.eq(Mux(no_tokens, Status.BAD_COUNT, table))
        with m.Case(Opcode.RETRIEVE):
            m.d.sync += [status.eq(Mux(nothing, Status.BAD_COUNT, retrieve)), unit.eq(Engine.RETRIEVE)]
        with m.Case(Opcode.FETCH):
            m.d.sync += [status.eq(Mux(heads == 0, Status.BAD_COUNT, table)), unit.eq(Engine.FETCH)]
    return status, unit


class Dre(wiring.Component):
    """Executes commands on tables in memory; completions come in the order of the commands.

    Args:
        hcu, wtu, kvmu, mean: dimensions of its units.
        bus_bits: width of the streams of beats and of the AXI data.

    Members:
        cmd: descriptors, 32 bytes.
        din: payloads of the commands, in their order.
        dout: decisions and bitmasks, in command order.
        kv: K and V of RETRIEVE and FETCH, in command order.
        kv_end: high for a cycle when one of them has ended, not before its last beat on `kv`.
        cpl: completions, 16 bytes, in command order.
        m_axi: AXI4 manager (`vrex.hw.lib.axi`).
    """

    cmd: stream.Interface
    din: stream.Interface
    dout: stream.Interface
    kv: stream.Interface
    kv_end: Signal
    cpl: stream.Interface
    m_axi: Axi4Interface

    def __init__(
        self, *, hcu: HcuConfig, wtu: WtuConfig, kvmu: KvmuConfig, mean: MeanConfig, bus_bits: int
    ) -> None:
        """An engine of these dimensions.

        Raises:
            ValueError: the parts do not go together, see `Config`.
        """
        self.config = config = Config(hcu=hcu, wtu=wtu, kvmu=kvmu, mean=mean, bus_bits=bus_bits)
        self.bus_shift = config.bus_bytes.bit_length() - 1
        super().__init__(
            {
                "cmd": In(stream.Signature(DESCRIPTOR)),
                "din": In(stream.Signature(bus_bits)),
                "dout": Out(stream.Signature(bus_bits)),
                "kv": Out(stream.Signature(bus_bits)),
                "kv_end": Out(1),
                "cpl": Out(stream.Signature(COMPLETION)),
                "m_axi": Out(Axi4Signature(data_width=bus_bits)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """HCU, WTU, KVMU, registers; dispatcher, one slot per engine, payloads, results in order."""
        m = Module()
        self.command: Any = Signal(DESCRIPTOR)
        self.heads = Signal(6)
        config = self.config
        m.submodules.hcu = self.hcu = Hcu(config.hcu, bus_bits=config.bus_bits, closing=True)
        m.submodules.wtu = self.wtu = Wtu(config.wtu, bus_bits=config.bus_bits)
        m.submodules.kvmu = self.kvmu = Kvmu(
            config.kvmu, hcu=config.hcu, wtu=config.wtu, mean=config.mean, bus_bits=config.bus_bits
        )
        self._registers(m)
        self._connect_units(m)
        self._command_wtu(m)
        self._slots(m)
        self._payloads(m)
        self._results(m)
        self._dispatch(m)
        return m

    def _registers(self, m: Module) -> None:
        """Registers, and what the counters count."""
        kvmu, kv, wtu = self.kvmu, self.kv, self.wtu
        kv_beat = kv.valid & kv.ready
        rows = Mux(wtu.done.valid & wtu.done.ready, wtu.done.payload.degenerate, 0)
        self.registers = Registers(
            m,
            unit_counters(self.hcu, self.wtu)
            | {
                Register.DEGENERATE_ROWS: rows,
                Register.APPEND_BUSY: kvmu.append.busy,
                Register.RETRIEVE_BUSY: kvmu.retrieve.busy,
                Register.FETCH_BUSY: kvmu.fetch.busy,
                Register.FETCH_WAIT_IN: kvmu.wait_in,
                Register.FETCH_WAIT_OUT: kv.valid & ~kv.ready,
                Register.READ_BURSTS: kvmu.read_bursts,
                Register.READ_BEATS: kvmu.read_beats,
                Register.WRITE_BURSTS: kvmu.write_bursts,
                Register.WRITE_BEATS: kvmu.write_beats,
                Register.KV_BEATS: kv_beat,
                Register.KV_HOST_BEATS: kv_beat & kvmu.host_beat,
            },
            DRE_REGISTERS,
        )

    def _connect_units(self, m: Module) -> None:
        """KVMU with its windows, memory, HCU and WTU."""
        kvmu, hcu, wtu, values = self.kvmu, self.hcu, self.wtu, self.registers.values
        connect(m, kvmu.m_axi, flipped(self.m_axi))
        m.d.comb += [
            kvmu.windows.device_base.eq(values[Register.DEVICE_BASE]),
            kvmu.windows.device_pages.eq(values[Register.DEVICE_PAGES]),
            kvmu.windows.host_base.eq(values[Register.HOST_BASE]),
            kvmu.windows.host_pages.eq(values[Register.HOST_PAGES]),
            kvmu.timeout.eq(values[Register.TIMEOUT]),
            kvmu.th_hd.eq(values[Register.TH_HD]),
            wtu.cmd.valid.eq(kvmu.wtu.start.valid),
            kvmu.wtu.start.ready.eq(wtu.cmd.ready),
        ]
        connect(m, kvmu.hcu.cmd, hcu.cmd)
        connect(m, kvmu.hcu.din, hcu.din)
        m.d.comb += hcu.closed.eq(kvmu.hcu.closed)
        connect(m, hcu.dout, kvmu.hcu.dout)
        connect(m, hcu.done, kvmu.hcu.done)
        connect(m, kvmu.wtu.din, wtu.din)
        connect(m, wtu.done, kvmu.wtu.done)
        connect(m, wtu.dout, kvmu.wtu.dout)
        connect(m, kvmu.kv, flipped(self.kv))

    def _command_wtu(self, m: Module) -> None:
        """The WTU's command, from the RETRIEVE in work and the registers."""
        start, to_wtu = self.kvmu.retrieve.cmd, self.wtu.cmd.payload
        selected: Any = Signal(DESCRIPTOR)
        heads = Signal.like(self.heads, name="selected_heads")
        with m.If(start.valid & start.ready):
            m.d.sync += [selected.eq(self.command), heads.eq(self.heads)]
        m.d.comb += [
            to_wtu.clusters.eq(self.kvmu.wtu.start.payload),
            to_wtu.rows.eq(selected.count),
            to_wtu.heads.eq(heads),
            *self.registers.rule(to_wtu),
        ]

    def _slots(self, m: Module) -> None:
        """One command in work per engine, and the order of all of them."""
        kvmu = self.kvmu
        self.slots = {
            unit: Slot(
                unit.name.lower(), *(getattr(getattr(kvmu, unit.name.lower()), port) for port in PORTS)
            )
            for unit in Engine
        }
        self.now = Signal(32)
        self.kv_beats = Signal(32)
        m.d.sync += self.now.eq(self.now + 1)
        with m.If(self.kv.valid & self.kv.ready):
            m.d.sync += self.kv_beats.eq(self.kv_beats + 1)
        details = {
            Engine.APPEND: kvmu.append.done.payload.opened,
            Engine.RETRIEVE: Mux(self.slots[Engine.RETRIEVE].fetches, self.kv_beats, 0),
            Engine.FETCH: self.kv_beats,
        }
        for unit, slot in self.slots.items():
            m.d.comb += slot.done.ready.eq(slot.active & ~slot.finished)
            with m.If(slot.done.valid & slot.done.ready):
                if unit != Engine.APPEND:
                    m.d.comb += self.kv_end.eq(slot.fetches if unit == Engine.RETRIEVE else 1)
                m.d.sync += [
                    slot.finished.eq(1),
                    slot.status.eq(slot.done.payload.status),
                    slot.detail.eq(details[unit]),
                ]
        m.submodules.order = self.order = SyncFIFO(width=2, depth=IN_WORK)
        self.idle = Signal()
        m.d.comb += self.idle.eq(~reduce_tree([slot.active for slot in self.slots.values()], operator.or_))

    def _payloads(self, m: Module) -> None:
        """Distributes payloads in command order; discards the rest of a command that has ended."""
        m.submodules.payloads = self.payloads = payloads = SyncFIFO(width=2 + 32, depth=IN_WORK)
        beats = Signal(32)
        left = payloads.r_data[2:] - beats
        with m.If(payloads.r_rdy):
            for unit, slot in self.slots.items():
                with m.If(payloads.r_data[:2] == unit.value):
                    with m.If(left == 0):
                        m.d.comb += payloads.r_en.eq(1)
                        m.d.sync += [beats.eq(0), slot.owes.eq(0)]
                    with m.Elif(slot.finished):
                        m.d.comb += self.din.ready.eq(1)
                    with m.Else():
                        m.d.comb += [slot.din.valid.eq(self.din.valid), self.din.ready.eq(slot.din.ready)]
            with m.If(self.din.valid & self.din.ready):
                m.d.sync += beats.eq(beats + 1)
        m.d.comb += [slot.din.payload.eq(self.din.payload) for slot in self.slots.values()]

    def _results(self, m: Module) -> None:
        """Results of the oldest command, and then its completion."""
        self.completion: Any = Signal(COMPLETION)
        m.d.comb += self.cpl.payload.eq(self.completion)
        size = Signal(32)
        with m.If(self.cpl.ready):
            m.d.sync += self.cpl.valid.eq(0)
        with m.If(self.dout.valid & self.dout.ready):
            m.d.sync += size.eq(size + 1)
        sources = {Engine.APPEND: self.kvmu.append.dout, Engine.RETRIEVE: self.kvmu.retrieve.dout}
        for unit, slot in self.slots.items():
            with m.If(self.order.r_rdy & (self.order.r_data == unit.value)):
                if unit in sources:
                    connect(m, sources[unit], flipped(self.dout))
                with m.If(slot.finished & ~slot.owes & ~self.cpl.valid):
                    m.d.comb += self.order.r_en.eq(1)
                    m.d.sync += [slot.active.eq(0), slot.finished.eq(0), size.eq(0)]
                    self._complete(m, slot.tag, slot.status, slot.start, size << self.bus_shift, slot.detail)

    def _complete(self, m: Module, tag: Any, status: Any, start: Any, size: Any, detail: Any) -> None:
        """Sets a completion valid."""
        m.d.sync += [
            self.cpl.valid.eq(1),
            self.completion.tag.eq(tag),
            self.completion.status.eq(status),
            self.completion.cycles.eq(self.now - start),
            self.completion.size.eq(size),
            self.completion.detail.eq(detail),
        ]

    def _may_start(self, unit: Engine) -> Any:
        """Whether the engine is free and no command in work clashes with this one."""
        page = self.command.address[12:48]
        clash = [
            slot.active & (slot.page == page)
            for other, slot in self.slots.items()
            if Engine.APPEND in (unit, other)
        ]
        fetching = [
            self.slots[Engine.FETCH].active,
            self.slots[Engine.RETRIEVE].active & self.slots[Engine.RETRIEVE].fetches,
        ]
        uses_fetch = {Engine.APPEND: 0, Engine.RETRIEVE: self.command.param == 0, Engine.FETCH: 1}[unit]
        busy = [self.slots[unit].active, uses_fetch & (fetching[0] | fetching[1])]
        return ~reduce_tree([*clash, *busy], operator.or_) & self.order.w_rdy & self.payloads.w_rdy

    def _dispatch(self, m: Module) -> None:
        """Takes descriptors and starts their engines."""
        command = self.command
        waited = Signal(range(SIZE_CYCLES + 1))
        start = Signal(32)
        drain = Signal(32)
        status, unit = check_command(m, self.config, command, self.heads, self.registers)
        value = self.registers.read(m, command)
        is_control = (command.opcode == Opcode.SETREG) | (command.opcode == Opcode.GETREG)
        self._start_fields(m)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.cmd.ready.eq(1)
                m.d.sync += [command.eq(self.cmd.payload), start.eq(self.now), waited.eq(0)]
                with m.If(self.cmd.valid):
                    m.next = "SIZE"
            with m.State("SIZE"):
                m.d.sync += waited.eq(waited + 1)
                m.d.sync += drain.eq(
                    (command.length + self.config.bus_bytes - 1) >> (self.config.bus_bytes.bit_length() - 1)
                )
                with m.If(waited == SIZE_CYCLES):
                    m.next = "WAIT"
            with m.State("WAIT"):
                with m.If(is_control | (status != Status.OK)), m.If(self.idle):
                    m.next = "DRAIN"
                with m.Else():
                    self._wait_for_engine(m, unit)
            self._start_states(m, start)
            with m.State("DRAIN"):
                m.d.comb += self.din.ready.eq(drain != 0)
                with m.If(drain == 0):
                    m.next = "CONTROL"
                with m.Elif(self.din.valid):
                    m.d.sync += drain.eq(drain - 1)
            with m.State("CONTROL"), m.If(~self.cpl.valid):
                good_read = (command.opcode == Opcode.GETREG) & (status == Status.OK)
                self._complete(m, command.tag, status, start, 0, Mux(good_read, value, 0))
                with m.If((command.opcode == Opcode.SETREG) & (status == Status.OK)):
                    self.registers.write(m, command)
                m.next = "IDLE"

    def _start_fields(self, m: Module) -> None:
        """Fields of the engines' commands."""
        command = self.command
        append, retrieve, fetch = (slot.cmd.payload for slot in self.slots.values())
        for payload in (append, retrieve, fetch):
            m.d.comb += [payload.address.eq(command.address), payload.kv_heads.eq(command.kv_heads)]
        m.d.comb += [
            append.tokens.eq(command.count),
            retrieve.clusters.eq(command.clusters),
            retrieve.fetches.eq(command.param == 0),
            fetch.clusters.eq(command.clusters),
        ]

    def _wait_for_engine(self, m: Module, unit: Signal) -> None:
        """Leaves WAIT once the command's engine may start."""
        with m.Switch(unit):
            for name in self.slots:
                with m.Case(name), m.If(self._may_start(name)):
                    if name == Engine.RETRIEVE:
                        with m.If(self.command.param == 0):
                            m.d.sync += [self.kvmu.for_retrieve.eq(1), self.kv_beats.eq(0)]
                    if name == Engine.FETCH:
                        m.d.sync += [self.kvmu.for_retrieve.eq(0), self.kv_beats.eq(0)]
                    m.next = f"START_{name.name}"

    def _start_states(self, m: Module, start: Signal) -> None:
        """Starts an engine and remembers its command."""
        command = self.command
        for name, slot in self.slots.items():
            with m.State(f"START_{name.name}"):
                m.d.comb += [
                    slot.cmd.valid.eq(1),
                    self.order.w_data.eq(name.value),
                    self.payloads.w_data.eq(Cat(C(name.value, 2), command.length[self.bus_shift :])),
                ]
                with m.If(slot.cmd.ready):
                    m.d.comb += [self.order.w_en.eq(1), self.payloads.w_en.eq(1)]
                    m.d.sync += [
                        slot.active.eq(1),
                        slot.owes.eq(1),
                        slot.fetches.eq(command.param == 0),
                        slot.tag.eq(command.tag),
                        slot.page.eq(command.address[12:48]),
                        slot.start.eq(start),
                    ]
                    m.next = "IDLE"
