"""KVPU: KV prediction unit, HCU and WTU behind one command stream.

Paper Section V-B; model `vrex.model.dre.kvpu`.

One command at a time: takes the descriptor, checks it, connects `din` and `dout` to the unit, and completes.
The payload of a command that fails its check is discarded.
"""

import operator
from functools import partial
from typing import Any

from amaranth import C, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from vrex.hw.dre import hcu
from vrex.hw.dre.commands import COMPLETION, DESCRIPTOR, count_beats, unit_counters
from vrex.hw.dre.wtu import wtu
from vrex.hw.lib.registers import Registers
from vrex.hw.lib.stream import Packer, reduce_tree
from vrex.model.commands import LONG_PASSES, Opcode, Register, Status
from vrex.model.config import Config, HcuConfig, WtuConfig


class Kvpu(wiring.Component):
    """Executes commands in order, one completion each.

    A command takes 8 cycles besides its unit's (`Hcu.cycles`, `Wtu.cycles`) and its result's last beats.

    Args:
        hcu, wtu: dimensions of its units.
        bus_bits: width of `din` and `dout`.

    Members:
        cmd: descriptors, 32 bytes.
        din: payloads of the commands, in their order.
        dout: results of the commands, in their order; a command's beats leave before its completion.
        cpl: completions, 16 bytes.
    """

    cmd: stream.Interface
    din: stream.Interface
    dout: stream.Interface
    cpl: stream.Interface

    def __init__(self, *, hcu: HcuConfig, wtu: WtuConfig, bus_bits: int) -> None:
        """A unit of these dimensions.

        Raises:
            ValueError: the parts do not go together, see `Config`.
        """
        self.config = Config(hcu=hcu, wtu=wtu, bus_bits=bus_bits)
        self._beats = partial(count_beats, bus_bits=bus_bits)
        super().__init__(
            {
                "cmd": In(stream.Signature(DESCRIPTOR)),
                "din": In(stream.Signature(bus_bits)),
                "dout": Out(stream.Signature(bus_bits)),
                "cpl": Out(stream.Signature(COMPLETION)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """HCU, WTU, packer of decisions, registers, and the state machine of one command."""
        m = Module()
        self.command: Any = Signal(DESCRIPTOR)
        self.completion: Any = Signal(COMPLETION)
        m.d.comb += self.cpl.payload.eq(self.completion)
        m.submodules.hcu = self.hcu = hcu.Hcu(self.config.hcu, bus_bits=self.config.bus_bits)
        m.submodules.wtu = self.wtu = wtu.Wtu(self.config.wtu, bus_bits=self.config.bus_bits)
        m.submodules.packer = self.packer = Packer(hcu.DECISION.size, self.config.bus_bits)
        self.registers = Registers(m, unit_counters(self.hcu, self.wtu), dre=False)
        self.value = self.registers.read(m, self.command)
        self._sizes(m)
        self._units(m)
        self._control(m)
        return m

    def _sizes(self, m: Module) -> None:
        """Expected sizes of payload and result in beats, valid five cycles after the descriptor."""
        command, hash_bits = self.command, self.config.hcu.hash_bits
        self.heads = Signal(6)
        rows = Signal(22)
        fields = Signal(25)
        field = Signal(18)
        long = command.clusters > self.config.wtu.row_clusters
        self.cluster_beats = Signal(20)
        self.select_beats = Signal(43)
        self.mask_beats = Signal(20)
        m.d.sync += [
            self.heads.eq(reduce_tree(list(command.kv_heads), operator.add)),
            field.eq(self._beats(command.clusters, 16)),
            rows.eq(self.heads * command.count),
            fields.eq(Mux(long, (2 * LONG_PASSES - 1) * rows, rows + 1)),
            self.select_beats.eq(fields * field),
            self.cluster_beats.eq(
                self._beats(command.count, hash_bits) + self._beats(command.clusters, hash_bits)
            ),
            self.mask_beats.eq(self.heads * self._beats(command.clusters, 1)),
        ]

    def _units(self, m: Module) -> None:
        """Commands and results of the units."""
        command, registers = self.command, self.registers
        to_hcu, to_wtu = self.hcu.cmd.payload, self.wtu.cmd.payload
        decision = self.hcu.dout.payload
        sent = Signal(9)
        m.d.comb += [
            to_hcu.tokens.eq(command.count),
            to_hcu.clusters.eq(command.clusters),
            to_hcu.th_hd.eq(registers.values[Register.TH_HD]),
            to_wtu.clusters.eq(command.clusters),
            to_wtu.rows.eq(command.count),
            to_wtu.heads.eq(self.heads),
            *registers.rule(to_wtu),
            self.hcu.din.payload.eq(self.din.payload),
            self.wtu.din.payload.eq(self.din.payload),
            self.packer.i.valid.eq(self.hcu.dout.valid),
            self.packer.i.payload.data.eq(decision),
            self.packer.i.payload.last.eq(sent == command.count - 1),
            self.hcu.dout.ready.eq(self.packer.i.ready),
        ]
        with m.If(self.hcu.dout.valid & self.hcu.dout.ready):
            m.d.sync += sent.eq(Mux(self.packer.i.payload.last, 0, sent + 1))

    def _check(self) -> Any:
        """Status of the command before it runs."""
        command, config = self.command, self.config
        shift = config.bus_bytes.bit_length() - 1
        beats, whole = command.length >> shift, command.length[:shift] == 0
        checks = {
            Opcode.SETREG: self.registers.status(command, write=True),
            Opcode.GETREG: self.registers.status(command, write=False),
            Opcode.CLUSTER: Mux(
                (command.count == 0) | (command.count > config.hcu.chunk_tokens),
                Status.BAD_COUNT,
                Mux(whole & (beats == self.cluster_beats), Status.OK, Status.BAD_LENGTH),
            ),
            Opcode.SELECT: Mux(
                (command.count == 0) | (self.heads == 0),
                Status.BAD_COUNT,
                Mux(
                    command.clusters > config.wtu.mask_clusters,
                    Status.CAPACITY,
                    Mux(whole & (beats == self.select_beats), Status.OK, Status.BAD_LENGTH),
                ),
            ),
        }
        status: Any = C(Status.BAD_OPCODE, 16)
        for opcode, check in checks.items():
            status = Mux(command.opcode == opcode, check, status)
        return status

    def _control(self, m: Module) -> None:
        """Sequence of one command."""
        command, completion = self.command, self.completion
        sizing = Signal(range(5))
        drain = Signal(32)
        status = self._check()
        m.d.sync += completion.cycles.eq(completion.cycles + 1)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.cmd.ready.eq(1)
                m.d.sync += [sizing.eq(0), completion.eq(0)]
                with m.If(self.cmd.valid):
                    m.d.sync += command.eq(self.cmd.payload)
                    m.next = "SIZE"
            with m.State("SIZE"):
                m.d.sync += [sizing.eq(sizing + 1), completion.tag.eq(command.tag)]
                with m.If(sizing == 4):
                    m.next = "CHECK"
            with m.State("CHECK"):
                m.d.sync += [completion.status.eq(status), drain.eq(self._beats(command.length, 8))]
                m.next = "DRAIN"
                with m.If(status == Status.OK):
                    m.next = "COMPLETE"
                    self._start(m)
            with m.State("DRAIN"):
                m.d.comb += self.din.ready.eq(drain != 0)
                with m.If(drain == 0):
                    m.next = "COMPLETE"
                with m.Elif(self.din.valid):
                    m.d.sync += drain.eq(drain - 1)
            self._unit_states(m)
            with m.State("COMPLETE"):
                m.d.comb += self.cpl.valid.eq(1)
                m.d.sync += completion.cycles.eq(completion.cycles)
                with m.If(self.cpl.ready):
                    m.next = "IDLE"

    def _start(self, m: Module) -> None:
        """Executes SETREG and GETREG, or starts the command's unit."""
        command = self.command
        with m.Switch(command.opcode):
            with m.Case(Opcode.SETREG):
                self.registers.write(m, command)
            with m.Case(Opcode.GETREG):
                m.d.sync += self.completion.detail.eq(self.value)
            with m.Case(Opcode.CLUSTER):
                m.next = "HCU_START"
            with m.Case(Opcode.SELECT), m.If(command.clusters != 0):
                m.next = "WTU_START"

    def _unit_states(self, m: Module) -> None:
        """States that start a unit and connect its streams."""
        bus_shift = self.config.bus_bytes.bit_length() - 1
        completion, packer = self.completion, self.packer
        decision_beats = self._beats(self.command.count, hcu.DECISION.size)
        for name, unit in (("HCU", self.hcu), ("WTU", self.wtu)):
            with m.State(f"{name}_START"):
                m.d.comb += unit.cmd.valid.eq(1)
                with m.If(unit.cmd.ready):
                    m.next = f"{name}_RUN"
        with m.State("HCU_RUN"):
            done = self.hcu.done
            m.d.comb += [
                self.hcu.din.valid.eq(self.din.valid),
                self.din.ready.eq(self.hcu.din.ready),
                self.dout.valid.eq(packer.o.valid),
                self.dout.payload.eq(packer.o.payload),
                packer.o.ready.eq(self.dout.ready),
                done.ready.eq(~packer.o.valid),
            ]
            with m.If(done.valid & done.ready):
                m.d.sync += [
                    completion.size.eq(decision_beats << bus_shift),
                    completion.detail.eq(done.payload.opened),
                ]
                with m.If(done.payload.full):
                    m.d.sync += [completion.size.eq(0), completion.detail.eq(0)]
                    m.d.sync += completion.status.eq(Status.TABLE_FULL)
                m.next = "COMPLETE"
        with m.State("WTU_RUN"):
            done = self.wtu.done
            m.d.comb += [
                self.wtu.din.valid.eq(self.din.valid),
                self.din.ready.eq(self.wtu.din.ready),
                self.dout.valid.eq(self.wtu.dout.valid),
                self.dout.payload.eq(self.wtu.dout.payload),
                self.wtu.dout.ready.eq(self.dout.ready),
                done.ready.eq(1),
            ]
            with m.If(done.valid):
                m.d.sync += [
                    completion.size.eq(self.mask_beats << bus_shift),
                    completion.detail.eq(done.payload.degenerate),
                ]
                m.next = "COMPLETE"
