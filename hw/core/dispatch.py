"""Judges instructions of a program and hands them to engines (model `vrex.model.core.instructions.check`)."""

import operator
from functools import reduce
from typing import Any

from amaranth import C, Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from vrex.hw.core.fetcher import INSTRUCTION_BITS
from vrex.hw.core.issue import command_layout
from vrex.hw.core.movers import INDEX_BITS, ITEM, OUTLET
from vrex.hw.core.rows import scales_layout
from vrex.hw.dre.commands import DESCRIPTOR
from vrex.hw.lib.axi.burst import ADDRESS_BITS, LENGTH_BITS
from vrex.hw.lib.layout import struct_layout
from vrex.model.config import Config
from vrex.model.core.instructions import (
    BODY_WORD,
    CODE_BITS,
    CODE_ROWS,
    CONTROL,
    GROUPS,
    HEAD,
    MOVE,
    MOVERS,
    SMALL_ROWS,
    Condition,
    Engine,
    Function,
    Opcode,
    Port,
)
from vrex.model.lib.layout import Layout
from vrex.model.lxe.instructions import INSTRUCTION as LXE_INSTRUCTION

MOVING = (Engine.LOAD, Engine.FEED, Engine.SAVE, Engine.RESULT)
"""Engines that move rows, in the order of `Dispatch.moves`."""


def view(layout: Layout, bits: Any) -> Any:
    """Bits, from the lowest on, as the fields of a layout."""
    return data.View(struct_layout(layout), bits[: layout.bits])


class Dispatch(wiring.Component):
    """Judges an instruction, and hands it to its engine.

    Args:
        config: accelerator.

    Members:
        bits: the instruction after its patches.
        index: its number.
        value: of its register `a`.
        right: the sequencer takes it, a cycle after `bits`.
        go: it is to be handed out.
        handed: with `go`: its engine takes it in this cycle.
        moves: `ITEM`, for each engine of `MOVING`.
        scales: with LOAD's (`scales_layout`).
        outlet: rows of the LXE's `dout`, in the order of their MOVEs (`OUTLET`).
        lxe, dre: commands for the units.
    """

    bits: Signal
    index: Signal
    value: Signal
    right: Signal
    go: Signal
    handed: Signal
    moves: list[stream.Interface]
    scales: Any
    outlet: stream.Interface
    lxe: stream.Interface
    dre: stream.Interface

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "bits": In(INSTRUCTION_BITS),
                "index": In(INDEX_BITS),
                "value": In(32),
                "right": Out(1),
                "go": In(1),
                "handed": Out(1),
                "moves": Out(stream.Signature(ITEM)).array(len(MOVING)),
                "scales": Out(scales_layout(config.kvmu.kv_heads)),
                "outlet": Out(stream.Signature(OUTLET)),
                "lxe": Out(stream.Signature(command_layout(struct_layout(LXE_INSTRUCTION)))),
                "dre": Out(stream.Signature(command_layout(DESCRIPTOR))),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Rules by opcode, and the fields that each engine wants."""
        m = Module()
        body = self.bits[32 * BODY_WORD :]
        self.opcode = view(HEAD, self.bits).opcode
        self.control, self.move = view(CONTROL, body), view(MOVE, body)
        self._check(m)
        self._fill_moves(m)
        self._fill_commands(m, body)
        self._hand_out(m)
        return m

    def _check(self, m: Module) -> None:
        """`right`; the engines check what is theirs."""
        config, control = self.config, self.control
        word = ~control.address[:2].any()
        rules = {
            Opcode.COMPUTE: control.function <= max(Function),
            Opcode.BRANCH: control.function <= max(Condition),
            Opcode.TOKENS: (control.immediate != 0) & (control.immediate <= config.core.kv_tokens),
            Opcode.READ: word,
            Opcode.WRITE: word,
            Opcode.BARRIER: Cat(control.immediate == cores for cores in GROUPS).any(),
            Opcode.MOVE: self._right_move(),
        }
        m.d.sync += self.right.eq(self.opcode <= max(Opcode))
        for code, rule in rules.items():
            with m.If(self.opcode == code):
                m.d.sync += self.right.eq(rule)

    def _right_move(self) -> Any:
        """Whether a MOVE is between ports that rows are moved between, and its rows begin with beats."""
        move, bus_bytes = self.move, self.config.bus_bytes
        unit: Any = C(bus_bytes - 1, 6)
        for small in SMALL_ROWS:
            if small < bus_bytes:
                unit = Mux((move.sink == Port.MEMORY) & (move.bytes == small), small - 1, unit)
        uneven = ((move.address[:6] | move.pitch[:6]) & unit).any()
        memory = (move.source == Port.MEMORY) | (move.sink == Port.MEMORY)
        right = self._moved_by(*MOVING) & (~move.bits.any() | self._right_codes())
        right &= (move.bytes != 0) & ~move.bytes[LENGTH_BITS:].any()
        right &= ~(move.mask & (move.mask + 1)).any() & ~(memory & uneven)
        return right & ((move.source != Port.KV) | (move.bytes == self.config.kvmu.token_bytes))

    def _right_codes(self) -> Any:
        """Whether a MOVE with `bits` is one that LOAD can do."""
        move = self.move
        end = move.first + move.rows
        right = (move.source == Port.MEMORY) & (move.sink == Port.LXE) & ~move.scales[0]
        right &= Cat(move.bits == bits for bits in CODE_BITS).any() & (move.rows <= CODE_ROWS)
        right &= move.mask.all() & (~end[16] | ~end[:16].any())
        return right & (move.step <= self.config.kvmu.kv_heads)

    def _moved_by(self, *engines: Engine) -> Any:
        """Whether a MOVE is for one of these engines."""
        move = self.move
        pairs = [
            (move.source == source) & (move.sink == sink)
            for (source, sink), engine in MOVERS.items()
            if engine in engines
        ]
        return reduce(operator.or_, pairs)

    def _fill_moves(self, m: Module) -> None:
        """What the movers are given, if they are; RESULT also writes words."""
        move, control = self.move, self.control
        place = move.address[:ADDRESS_BITS]
        rows = Cat(place, move.pitch, move.rows, move.first, move.mask, move.bytes[:LENGTH_BITS])
        for port in self.moves:
            item = port.payload
            m.d.comb += [
                *(item.source.eq(move.source), item.sink.eq(move.sink)),
                *(item.index.eq(self.index), item.rows.eq(rows)),
            ]
        m.d.comb += [
            *(self.scales.coded.eq(move.bits.any()), self.scales.four.eq(move.bits == 4)),
            *(self.scales.step.eq(move.step), self.scales.address.eq(move.scales[:ADDRESS_BITS])),
        ]
        result = self.moves[MOVING.index(Engine.RESULT)].payload
        # One row of four bytes.
        word = Cat(control.address[:ADDRESS_BITS], C(0, 32), C(1, 16), C(0, 32), C(4, LENGTH_BITS))
        with m.If(self.opcode == Opcode.WRITE):
            m.d.comb += [
                *(result.is_word.eq(1), result.word.eq(self.value)),
                *(result.sink.eq(Port.MEMORY), result.rows.eq(word)),
            ]

    def _fill_commands(self, m: Module, body: Any) -> None:
        """What outlet, LXE and DRE are given, if they are; each instruction of the LXE is a program."""
        move, lxe, dre = self.move, self.lxe.payload, self.dre.payload
        m.d.comb += [
            *(self.outlet.payload.feed.eq(move.sink == Port.DRE), self.outlet.payload.rows.eq(move.rows)),
            self.outlet.payload.bytes.eq(move.bytes),
            *(lxe.command.eq(view(LXE_INSTRUCTION, body)), lxe.command.last.eq(1), lxe.index.eq(self.index)),
            *(dre.command.eq(body[: len(dre.command.as_value())]), dre.index.eq(self.index)),
        ]

    def _hand_out(self, m: Module) -> None:
        """Offers the instruction to its engine, a MOVE from the LXE to the outlet in the same cycle."""
        moves = self.opcode == Opcode.MOVE
        from_lxe = moves & (self.move.source == Port.LXE) & (self.move.rows != 0)
        for code, port in ((Opcode.LXE, self.lxe), (Opcode.DRE, self.dre)):
            with m.If(self.opcode == code):
                m.d.comb += [port.valid.eq(self.go), self.handed.eq(port.ready)]
        for engine, port in zip(MOVING, self.moves, strict=True):
            mine = moves & self._moved_by(engine)
            if engine == Engine.RESULT:
                mine |= self.opcode == Opcode.WRITE
            with m.If(mine):
                free = port.ready & (self.outlet.ready | ~from_lxe)
                m.d.comb += [self.handed.eq(free), port.valid.eq(self.go & free)]
                m.d.comb += self.outlet.valid.eq(self.go & free & from_lxe)
