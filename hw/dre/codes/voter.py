"""Voter: the selection of tokens by codes behind a command stream (model `vrex.model.dre.voter`)."""

import operator
from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib import data

from vrex.hw.dre.codes.codes import CodeSelect
from vrex.hw.dre.codes.scorer import Query
from vrex.hw.dre.front import CommandFront
from vrex.hw.lib.layout import struct_layout
from vrex.hw.lib.registers import Registers
from vrex.hw.lib.stream import reduce_tree
from vrex.model.commands import VOTE_PARAM, VOTE_ROWS, Opcode, Register, Status
from vrex.model.config import CodesConfig, Config
from vrex.model.dre.registers import SCALE, VOTER_REGISTERS


class Voter(CommandFront):
    """Executes VOTE in order, one completion each (see `CommandFront`).

    A VOTE takes 7 cycles besides those of its unit (`CodeSelect.cycles`).

    Args:
        codes: dimensions of its unit.
        bus_bits: width of `din` and `dout`.
    """

    def __init__(self, codes: CodesConfig, *, bus_bits: int) -> None:
        """A unit of these dimensions.

        Raises:
            ValueError: the parts do not go together, see `Config`.
        """
        super().__init__(Config(codes=codes, bus_bits=bus_bits))

    def _parts(self, m: Module) -> None:
        """The unit of codes, and registers (see `CommandFront._parts`)."""
        config = self.config
        m.submodules.selector = self.codes = codes = CodeSelect(config.codes, bus_bits=config.bus_bits)
        counted = {
            Register.VOTE_BUSY: codes.busy,
            Register.VOTE_WAIT_IN: codes.din.ready & ~codes.din.valid,
            Register.VOTE_WAIT_OUT: codes.dout.valid & ~codes.dout.ready,
        }
        self.registers = Registers(m, counted, VOTER_REGISTERS)
        self.param: Any = data.View(struct_layout(VOTE_PARAM), self.command.param)
        self._sizes(m)
        scale: Any = data.View(struct_layout(SCALE), self.registers.values[Register.SCALE])
        to_unit = codes.cmd.payload
        m.d.comb += [
            to_unit.tokens.eq(self.command.clusters),
            to_unit.rows.eq(self.command.count),
            to_unit.residents.eq(self.param.residents),
            to_unit.count.eq(self.param.wanted),
            to_unit.scale_mantissa.eq(scale.mantissa),
            to_unit.scale_exponent.eq(scale.exponent),
            codes.din.payload.eq(self.din.payload),
            self.dout.payload.eq(codes.dout.payload),
        ]

    def _sizes(self, m: Module) -> None:
        """Expected sizes of payload and result in beats, valid four cycles after the descriptor."""
        command, config = self.command, self.config
        self.heads = Signal(6)
        past = Signal(24)
        row = Signal(17)
        rows = Signal(25)
        self.payload_beats = Signal(26)
        self.mask_beats = Signal(14)
        query = Query.beats_of(config.codes.bits, config.bus_bits)
        m.d.sync += [
            self.heads.eq(reduce_tree(list(command.kv_heads), operator.add)),
            past.eq(self._beats(command.clusters, config.codes.bits) + self._beats(command.clusters, 16)),
            row.eq(query + self._beats(self.param.residents, 16)),
            rows.eq(row * command.count[: VOTE_ROWS.bit_length()]),
            self.payload_beats.eq(past + rows),
            self.mask_beats.eq(self._beats(command.clusters, 1)),
        ]

    def _checks(self) -> dict[Opcode, Any]:
        """See `CommandFront._checks`."""
        command, codes = self.command, self.config.codes
        none = (command.count == 0) | (command.clusters == 0) | (self.heads != 1)
        too_long = (command.clusters > codes.tokens) | (self.param.residents > codes.residents)
        fits = Mux(too_long, Status.CAPACITY, self._whole(self.payload_beats))
        return {Opcode.VOTE: Mux(none | (command.count > VOTE_ROWS), Status.BAD_COUNT, fits)}

    def _begin(self, m: Module) -> None:
        """See `CommandFront._begin`."""
        with m.Case(Opcode.VOTE):
            m.next = "START"

    def _unit_states(self, m: Module) -> None:
        """See `CommandFront._unit_states`."""
        codes, completion = self.codes, self.completion
        with m.State("START"):
            m.d.comb += codes.cmd.valid.eq(1)
            with m.If(codes.cmd.ready):
                m.next = "RUN"
        with m.State("RUN"):
            m.d.comb += [
                codes.din.valid.eq(self.din.valid),
                self.din.ready.eq(codes.din.ready),
                self.dout.valid.eq(codes.dout.valid),
                codes.dout.ready.eq(self.dout.ready),
                codes.done.ready.eq(1),
            ]
            with m.If(codes.done.valid):
                m.d.sync += [
                    completion.size.eq(self.mask_beats << (self.config.bus_bytes.bit_length() - 1)),
                    completion.detail.eq(codes.done.payload),
                ]
                m.next = "COMPLETE"
