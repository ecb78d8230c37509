"""LXE: LLM execution engine, DPE and VPE around a memory (paper Section V-A; model `vrex.model.lxe.lxe`)."""

from types import SimpleNamespace
from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from vrex.hw.lib.layout import struct_layout
from vrex.hw.lib.stream import Skid
from vrex.hw.lxe.dpe import COUNTER_BITS, Dpe
from vrex.hw.lxe.memory import LxeMemory
from vrex.hw.lxe.reader import Reader, Unpacker, request_layout
from vrex.hw.lxe.sequencer import Sequencer, needs
from vrex.hw.lxe.sram import unit_values
from vrex.hw.lxe.vpe import Vpe
from vrex.hw.lxe.walker import Walker
from vrex.hw.lxe.writer import Writer, WriteSource, address_bits
from vrex.model.config import CHUNK, Config, DpeConfig, LxeConfig, VpeConfig
from vrex.model.lxe import vpe
from vrex.model.lxe.instructions import COMPLETION, INSTRUCTION, Opcode

CHUNK_BITS = 11
"""Width of a chunk's number: a row has at most 65,535 terms."""

COUNTERS = ("busy", "no_weights", "no_rows", "no_room")

READERS = ("rows", "weights", "a", "b", "c")
"""Who reads the memory, in the order of its ports: of the DPE, and operands of the VPE."""

WRITERS = ("matrix", "vector")
"""Who writes it, likewise."""


class Lxe(wiring.Component):
    """Runs programs, a VECTOR and another instruction at a time (`vrex.hw.lxe.sequencer`).

    An instruction takes 13 cycles to check and start, while those before it work.

    Args:
        config: size of the memory, and its banks.
        dpe: matrix engine.
        vpe: vector engine.

    Members:
        cmd: instructions (`vrex.model.lxe.instructions.INSTRUCTION`).
        din: beats of LOAD, and of weights that are not in memory, in the order of the instructions.
        dout: lines of STORE.
        cpl: how a program ended (`vrex.model.lxe.instructions.COMPLETION`), after its last line was taken.
        busy, no_weights, no_rows, no_room: the DPE's counters.
        vector_works: a VECTOR is at work.

    Raises:
        ValueError: the three do not fit together (`LxeConfig.check`).
    """

    cmd: stream.Interface
    din: stream.Interface
    dout: stream.Interface
    cpl: stream.Interface
    busy: Signal
    no_weights: Signal
    no_rows: Signal
    no_room: Signal
    vector_works: Signal

    def __init__(self, config: LxeConfig, *, dpe: DpeConfig, vpe: VpeConfig) -> None:
        Config(lxe=config, dpe=dpe, vpe=vpe).check_lxe()
        self.config, self.dpe_config, self.vpe_config = config, dpe, vpe
        self.unit = unit_values(dpe, vpe)
        self.address_bits = address_bits(config, dpe, vpe)
        self.shift = (dpe.inputs // self.unit).bit_length() - 1
        line = stream.Signature(8 * dpe.beat_bytes)
        super().__init__(
            {
                "cmd": In(stream.Signature(struct_layout(INSTRUCTION))),
                "din": In(line),
                "dout": Out(line),
                "cpl": Out(stream.Signature(struct_layout(COMPLETION))),
                **dict.fromkeys(COUNTERS, Out(COUNTER_BITS)),
                "vector_works": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Builds sequencer, memory, both engines, readers and a writer for each, and their wiring."""
        m = Module()
        config, dpe, vpe = self.config, self.dpe_config, self.vpe_config
        m.submodules.sequencer = self.sequencer = Sequencer(config, dpe=dpe, vpe=vpe)
        m.submodules.memory = self.memory = LxeMemory(config, dpe=dpe, vpe=vpe)
        m.submodules.dpe = self.dpe = Dpe(dpe)
        m.submodules.vpe = self.vpe = Vpe(vpe)
        wiring.connect(m, wiring.flipped(self.cmd), self.sequencer.cmd)
        wiring.connect(m, self.sequencer.done, wiring.flipped(self.cpl))
        self._matrix(m)
        self._vector(m)
        return m

    def _matrix(self, m: Module) -> None:
        """The lane of GEMM, LOAD and STORE."""
        self.lane: Any = self.sequencer.matrix
        opcode = self.lane.instruction.opcode
        self.gemm, self.load, self.store = (
            opcode == code for code in (Opcode.GEMM, Opcode.LOAD, Opcode.STORE)
        )
        self.streams = self.gemm & ~self.lane.instruction.resident
        rows, weights = self._rows(m), self._weights(m)
        writer = self._write_matrix(m)
        self._multiply(m, rows, weights)
        self._pass(m, rows, writer)
        self._finish(m, self.lane, asked=self.gemm, done=self.dpe.done.valid, busy=writer.busy | ~rows.idle)
        m.d.comb += [self.dpe.done.ready.eq(1), self.lane.nan.eq(self.gemm & writer.nan)]

    def _vector(self, m: Module) -> None:
        """The lane of VECTOR."""
        lane: Any = self.sequencer.vector
        operands = {name: self._operand(m, lane, name) for name in "abc"}
        writer = self._write_vector(m, lane)
        self._operate(m, lane, operands)
        self._finish(m, lane, asked=1, done=self.vpe.done.valid, busy=writer.busy | ~operands["a"].idle)
        nan = Signal()
        with m.If(self.vpe.done.valid):
            m.d.sync += nan.eq(self.vpe.done.payload.nan)
        m.d.comb += [self.vpe.done.ready.eq(1), lane.nan.eq(nan), self.vector_works.eq(lane.working)]

    def _units(self, lines: Any) -> Any:
        """A number of lines in units of `unit_values` values, as addresses are counted."""
        return lines << self.shift

    def _reader(
        self, m: Module, name: str, lane: Any, base: Any, starts: Any, loops: list[tuple[Any, Any]]
    ) -> SimpleNamespace:
        """Adds a reader and its address generator.

        Args:
            m: module.
            name: one of `READERS`.
            lane: whose instruction it serves.
            base: first line.
            starts: whether the instruction reads anything here.
            loops: count and stride of each loop, outermost first, in units of `unit_values` values.

        Returns:
            `step` of the loop nest; the `request` made from it, whose `keep` and `first` the caller may
            override; the lines `o`; `idle`.
        """
        config, dpe = self.config, self.dpe_config
        m.submodules[f"walker_{name}"] = walker = Walker(len(loops), self.address_bits)
        m.submodules[f"request_{name}"] = skid = Skid(request_layout(config, dpe))
        m.submodules[f"reader_{name}"] = reader = Reader(config, dpe=dpe)
        wiring.connect(m, skid.o, reader.request)
        wiring.connect(m, reader.port, self.memory.readers[READERS.index(name)])
        step, request = walker.o.payload, skid.i.payload
        m.d.comb += [
            *(walker.start.eq(lane.go & starts), walker.base.eq(self._units(base))),
            *(walker.counts[k].eq(count) for k, (count, _) in enumerate(loops)),
            *(walker.strides[k].eq(stride) for k, (_, stride) in enumerate(loops)),
            *(skid.i.valid.eq(walker.o.valid), walker.o.ready.eq(skid.i.ready)),
            *(request.line.eq(step.address >> self.shift), request.keep.eq(dpe.inputs)),
        ]
        idle = ~walker.busy & ~skid.o.valid & reader.idle
        return SimpleNamespace(step=step, request=request, o=reader.o, idle=idle)

    def _keep(self, m: Module, chunk: Any, beat: Any) -> Signal:
        """How many values of a beat of a chunk belong to a row of `inner` terms."""
        dpe = self.dpe_config
        position = Cat(
            Const(0, dpe.inputs.bit_length() - 1), beat[: dpe.beats.bit_length() - 1], chunk[:CHUNK_BITS]
        )
        left = Signal(range(-(1 << 17), 1 << 17))
        keep = Signal(range(dpe.inputs + 1))
        m.d.comb += [
            left.eq(self.lane.instruction.inner - position),
            keep.eq(Mux(left < 0, 0, Mux(left > dpe.inputs, dpe.inputs, left))),
        ]
        return keep

    def _rows(self, m: Module) -> SimpleNamespace:
        """Reader of operand a: rows of GEMM, again for each tile of columns; rows of STORE."""
        i, sizes, gemm, beats = self.lane.instruction, self.lane.sizes, self.gemm, self.dpe_config.beats
        loops = [
            (Mux(gemm, sizes.tiles, 1), 0),
            (Mux(gemm, sizes.chunks, 1), self._units(beats)),
            (i.groups, self._units(i.a.group)),
            (i.rows, self._units(i.a.stride)),
            (Mux(gemm, beats, sizes.lines_a), self._units(1)),
        ]
        reader = self._reader(m, "rows", self.lane, i.a.base, ~self.load, loops)
        keep = self._keep(m, reader.step.index[1], reader.step.index[4])
        with m.If(gemm):
            m.d.comb += reader.request.keep.eq(keep)
        return reader

    def _weights(self, m: Module) -> SimpleNamespace:
        """Reader of operand b of GEMM: weights by rows or by columns."""
        i, sizes, dpe = self.lane.instruction, self.lane.sizes, self.dpe_config
        by_rows = [
            (sizes.tiles, self._units(i.b.stride) * dpe.trees),
            (sizes.chunks, self._units(dpe.beats)),
            (dpe.trees, self._units(i.b.stride)),
            (dpe.beats, self._units(1)),
        ]
        by_columns = [
            (sizes.tiles, dpe.trees // self.unit),
            (sizes.chunks, self._units(i.b.stride) * CHUNK),
            (CHUNK, self._units(i.b.stride)),
            (1, 0),
        ]
        loops = [
            (Mux(i.columns, c[0], r[0]), Mux(i.columns, c[1], r[1]))
            for r, c in zip(by_rows, by_columns, strict=True)
        ]
        reader = self._reader(m, "weights", self.lane, i.b.base, self.gemm & i.resident, loops)
        step = reader.step
        term = Cat(step.index[2][: CHUNK.bit_length() - 1], step.index[1][:CHUNK_BITS])
        by_row = self._keep(m, step.index[1], step.index[3])
        m.d.comb += reader.request.keep.eq(Mux(i.columns, Mux(term < i.inner, dpe.trees, 0), by_row))
        if self.shift:
            first = step.address[: self.shift] << self.unit.bit_length() - 1
            m.d.comb += reader.request.first.eq(Mux(i.columns, first, 0))
        return reader

    def _operand(self, m: Module, lane: Any, name: str) -> SimpleNamespace:
        """Reader of an operand of VECTOR."""
        i = lane.instruction
        loops = [
            (i.groups, self._units(i[name].group)),
            (i.rows, self._units(i[name].stride)),
            (lane.sizes[f"lines_{name}"], self._units(1)),
        ]
        starts = 1 if name == "a" else needs(i.function, name)
        return self._reader(m, name, lane, i[name].base, starts, loops)

    def _writer(self, m: Module, name: str, sources: tuple[WriteSource, ...]) -> Writer:
        """Adds a writer at the next port of the memory."""
        writer = Writer(self.config, dpe=self.dpe_config, vpe=self.vpe_config, sources=sources)
        m.submodules[f"writer_{name}"] = writer
        wiring.connect(m, writer.port, self.memory.writers[WRITERS.index(name)])
        return writer

    def _write_matrix(self, m: Module) -> Writer:
        """Results of the DPE, tile by tile, and loaded lines, row by row."""
        i, sizes, gemm = self.lane.instruction, self.lane.sizes, self.gemm
        writer = self._writer(m, "matrix", (WriteSource.DPE, WriteSource.DIN))
        word = (self.dpe_config.trees // self.unit) << ~i.bf16[3]
        rows = [(i.groups, self._units(i.o.group)), (i.rows, self._units(i.o.stride))]
        words = (Mux(gemm, sizes.tiles, sizes.lines_o), Mux(gemm, word, self._units(1)))
        for k, (first, later) in enumerate(zip([words, *rows], [*rows, words], strict=True)):
            m.d.comb += [
                writer.counts[k].eq(Mux(gemm, first[0], later[0])),
                writer.strides[k].eq(Mux(gemm, first[1], later[1])),
            ]
        m.d.comb += [
            *(writer.start.eq(self.lane.go & ~self.store), writer.base.eq(self._units(i.o.base))),
            writer.source.eq(Mux(gemm, WriteSource.DPE, WriteSource.DIN)),
            *(writer.bf16.eq(i.bf16[3]), writer.length.eq(i.length)),
        ]
        wiring.connect(m, self.dpe.o, writer.dpe)
        return writer

    def _write_vector(self, m: Module, lane: Any) -> Writer:
        """Results of the VPE, row by row."""
        i = lane.instruction
        writer = self._writer(m, "vector", (WriteSource.VPE,))
        bf16 = i.bf16[3] & (i.function != vpe.Function.SIGN)
        loops = [
            (i.groups, self._units(i.o.group)),
            (i.rows, self._units(i.o.stride)),
            (lane.sizes.words_out, (self.vpe_config.lanes // self.unit) << ~bf16),
        ]
        for k, (count, stride) in enumerate(loops):
            m.d.comb += [writer.counts[k].eq(count), writer.strides[k].eq(stride)]
        m.d.comb += [
            *(writer.start.eq(lane.go), writer.base.eq(self._units(i.o.base))),
            *(writer.source.eq(WriteSource.VPE), writer.bf16.eq(bf16), writer.length.eq(i.length)),
        ]
        wiring.connect(m, self.vpe.o, writer.vpe)
        return writer

    def _multiply(self, m: Module, rows: SimpleNamespace, weights: SimpleNamespace) -> None:
        """Connects the DPE: its command, and its rows and weights from memory or from `din`."""
        i, sizes = self.lane.instruction, self.lane.sizes
        command = self.dpe.cmd.payload
        asked = Signal()
        with m.If(self.lane.go):
            m.d.sync += asked.eq(self.gemm)
        with m.Elif(self.dpe.cmd.ready):
            m.d.sync += asked.eq(0)
        m.d.comb += [
            *(self.dpe.cmd.valid.eq(asked), command.rows.eq(sizes.total)),
            *(command.chunks.eq(sizes.chunks), command.tiles.eq(sizes.tiles)),
            *(command.bf16.eq(i.bf16[3]), command.columns.eq(i.columns)),
            *(self.dpe.x.payload.eq(rows.o.payload), self.dpe.x.valid.eq(self.gemm & rows.o.valid)),
            self.dpe.w.payload.eq(Mux(self.streams, self.din.payload, weights.o.payload)),
            self.dpe.w.valid.eq(Mux(self.streams, self.din.valid, self.gemm & weights.o.valid)),
            weights.o.ready.eq(self.gemm & ~self.streams & self.dpe.w.ready),
            rows.o.ready.eq(Mux(self.store, self.dout.ready, self.gemm & self.dpe.x.ready)),
            *(getattr(self, name).eq(getattr(self.dpe, name)) for name in COUNTERS),
        ]

    def _operate(self, m: Module, lane: Any, operands: dict[str, SimpleNamespace]) -> None:
        """Connects the VPE: its command, and its operands."""
        i = lane.instruction
        command = self.vpe.cmd.payload
        asked = Signal()
        with m.If(lane.go):
            m.d.sync += asked.eq(1)
        with m.Elif(self.vpe.cmd.ready):
            m.d.sync += asked.eq(0)
        m.d.comb += [
            *(self.vpe.cmd.valid.eq(asked), command.opcode.eq(i.function), command.bf16.eq(i.bf16)),
            *(command.scalar.eq(i.scalar), command.length.eq(i.length), command.rows.eq(lane.sizes.total)),
        ]
        inputs, lanes = self.dpe_config.inputs, self.vpe_config.lanes
        ones = {"a": 0, "b": i.scalar[0], "c": i.scalar[1]}
        for place, (name, one) in enumerate(ones.items()):
            m.submodules[f"unpacker_{name}"] = unpacker = Unpacker(inputs, lanes)
            m.submodules[f"operand_{name}"] = skid = Skid(len(unpacker.o.payload))
            wiring.connect(m, operands[name].o, unpacker.i)
            wiring.connect(m, unpacker.o, skid.i)
            wiring.connect(m, skid.o, getattr(self.vpe, name))
            m.d.comb += [
                *(unpacker.bf16.eq(i.bf16[place]), unpacker.words.eq(Mux(one, 1, lane.sizes.words))),
            ]

    def _pass(self, m: Module, rows: SimpleNamespace, writer: Writer) -> None:
        """Connects `din` to the writer and the DPE, or drops its beats; and the rows of STORE to `dout`."""
        working, drop = self.lane.working, self.sequencer.drop
        ready = Mux(self.streams, self.dpe.w.ready, self.load & writer.din.ready)
        m.d.comb += [
            writer.din.payload.eq(self.din.payload),
            writer.din.valid.eq(working & self.load & self.din.valid),
            self.din.ready.eq(drop | (working & ready)),
            self.sequencer.dropped.eq(drop & self.din.valid),
            *(self.dout.payload.eq(rows.o.payload), self.dout.valid.eq(self.store & rows.o.valid)),
        ]

    @staticmethod
    def _finish(m: Module, lane: Any, *, asked: Any, done: Any, busy: Any) -> None:
        """Tells the sequencer when a lane's instruction has ended, which may have asked an engine."""
        left = Signal()
        with m.If(lane.go):
            m.d.sync += left.eq(asked)
        with m.Elif(done):
            m.d.sync += left.eq(0)
        m.d.comb += lane.finished.eq(lane.working & ~busy & ~left)
