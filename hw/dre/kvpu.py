"""KVPU: KV prediction unit, HCU and WTU behind one command stream.

Paper Section V-B; model `vrex.model.dre.kvpu`.

A command connects `din` and `dout` to its unit.
"""

import operator
from typing import Any

from amaranth import Module, Mux, Signal

from vrex.hw.dre import hcu
from vrex.hw.dre.commands import unit_counters
from vrex.hw.dre.front import CommandFront
from vrex.hw.dre.wtu import wtu
from vrex.hw.lib.registers import Registers
from vrex.hw.lib.stream import Packer, reduce_tree
from vrex.model.commands import LONG_PASSES, Opcode, Register, Status
from vrex.model.config import Config, HcuConfig, WtuConfig
from vrex.model.dre.registers import KVPU_REGISTERS


class Kvpu(CommandFront):
    """Executes commands in order, one completion each (see `CommandFront`).

    A command takes 8 cycles besides its unit's (`Hcu.cycles`, `Wtu.cycles`) and its result's last beats.

    Args:
        hcu, wtu: dimensions of its units.
        bus_bits: width of `din` and `dout`.
    """

    def __init__(self, *, hcu: HcuConfig, wtu: WtuConfig, bus_bits: int) -> None:
        """A unit of these dimensions.

        Raises:
            ValueError: the parts do not go together, see `Config`.
        """
        super().__init__(Config(hcu=hcu, wtu=wtu, bus_bits=bus_bits))

    def _parts(self, m: Module) -> None:
        """HCU, WTU, packer of decisions, and registers (see `CommandFront._parts`)."""
        m.submodules.hcu = self.hcu = hcu.Hcu(self.config.hcu, bus_bits=self.config.bus_bits)
        m.submodules.wtu = self.wtu = wtu.Wtu(self.config.wtu, bus_bits=self.config.bus_bits)
        m.submodules.packer = self.packer = Packer(hcu.DECISION.size, self.config.bus_bits)
        self.registers = Registers(m, unit_counters(self.hcu, self.wtu), KVPU_REGISTERS)
        self._sizes(m)
        self._units(m)

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

    def _checks(self) -> dict[Opcode, Any]:
        """See `CommandFront._checks`."""
        command, config = self.command, self.config
        no_tokens = (command.count == 0) | (command.count > config.hcu.chunk_tokens)
        no_rows = (command.count == 0) | (self.heads == 0)
        too_long = command.clusters > config.wtu.mask_clusters
        select = Mux(too_long, Status.CAPACITY, self._whole(self.select_beats))
        return {
            Opcode.CLUSTER: Mux(no_tokens, Status.BAD_COUNT, self._whole(self.cluster_beats)),
            Opcode.SELECT: Mux(no_rows, Status.BAD_COUNT, select),
        }

    def _begin(self, m: Module) -> None:
        """See `CommandFront._begin`."""
        with m.Case(Opcode.CLUSTER):
            m.next = "HCU_START"
        with m.Case(Opcode.SELECT), m.If(self.command.clusters != 0):
            m.next = "WTU_START"

    def _unit_states(self, m: Module) -> None:
        """See `CommandFront._unit_states`."""
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
