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


class Lxe(wiring.Component):
    """Runs programs, one instruction at a time.

    Each instruction has an overhead of 13 cycles: 10 for its check, 3 for start and end.

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
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Builds sequencer, memory, both engines, a reader for each operand, the writer, and their wiring."""
        m = Module()
        config, dpe, vpe = self.config, self.dpe_config, self.vpe_config
        m.submodules.sequencer = self.sequencer = Sequencer(config, dpe=dpe, vpe=vpe)
        m.submodules.memory = self.memory = LxeMemory(config, dpe=dpe, vpe=vpe)
        m.submodules.dpe = self.dpe = Dpe(dpe)
        m.submodules.vpe = self.vpe = Vpe(vpe)
        m.submodules.writer = self.writer = Writer(config, dpe=dpe, vpe=vpe)
        self.i: Any = self.sequencer.instruction
        self.sizes: Any = self.sequencer.sizes
        self.is_ = SimpleNamespace(**{code.name.lower(): self.i.opcode == code for code in Opcode})
        wiring.connect(m, wiring.flipped(self.cmd), self.sequencer.cmd)
        wiring.connect(m, self.sequencer.done, wiring.flipped(self.cpl))
        readers = [self._reader_a(m), self._reader_b(m), self._reader_c(m)]
        self._write(m)
        self._multiply(m, readers)
        self._operate(m, readers)
        self._pass(m, readers)
        self._finish(m, readers)
        return m

    def _units(self, lines: Any) -> Any:
        """A number of lines in units of `unit_values` values, as addresses are counted."""
        return lines << self.shift

    def _reader(self, m: Module, name: str, starts: Any, loops: list[tuple[Any, Any]]) -> SimpleNamespace:
        """Adds the reader of an operand and its address generator.

        Args:
            m: module.
            name: "a", "b" or "c".
            starts: whether the instruction reads the operand.
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
        wiring.connect(m, reader.port, self.memory.readers["abc".index(name)])
        step, request = walker.o.payload, skid.i.payload
        m.d.comb += [
            *(walker.start.eq(self.sequencer.go & starts), walker.base.eq(self._units(self.i[name].base))),
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
        left, keep = Signal(range(-(1 << 17), 1 << 17)), Signal(range(dpe.inputs + 1))
        m.d.comb += [
            left.eq(self.i.inner - position),
            keep.eq(Mux(left < 0, 0, Mux(left > dpe.inputs, dpe.inputs, left))),
        ]
        return keep

    def _reader_a(self, m: Module) -> SimpleNamespace:
        """Reader of operand a: rows of GEMM, again for each tile of columns; rows of STORE and VECTOR."""
        i, sizes, gemm, beats = self.i, self.sizes, self.is_.gemm, self.dpe_config.beats
        loops = [
            (Mux(gemm, sizes.tiles, 1), 0),
            (Mux(gemm, sizes.chunks, 1), self._units(beats)),
            (i.groups, self._units(i.a.group)),
            (i.rows, self._units(i.a.stride)),
            (Mux(gemm, beats, sizes.lines_a), self._units(1)),
        ]
        reader = self._reader(m, "a", ~self.is_.load, loops)
        keep = self._keep(m, reader.step.index[1], reader.step.index[4])
        with m.If(gemm):
            m.d.comb += reader.request.keep.eq(keep)
        return reader

    def _reader_b(self, m: Module) -> SimpleNamespace:
        """Reader of operand b: weights of GEMM, by rows or by columns; operand b of VECTOR."""
        i, sizes, dpe = self.i, self.sizes, self.dpe_config
        vector = [
            (i.groups, self._units(i.b.group)),
            (i.rows, self._units(i.b.stride)),
            (1, 0),
            (sizes.lines_b, self._units(1)),
        ]
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

        def choose(vector: Any, by_rows: Any, by_columns: Any) -> Any:
            return Mux(self.is_.vector, vector, Mux(i.columns, by_columns, by_rows))

        loops = [
            (choose(v[0], r[0], c[0]), choose(v[1], r[1], c[1]))
            for v, r, c in zip(vector, by_rows, by_columns, strict=True)
        ]
        starts = Mux(self.is_.gemm, i.resident, self.is_.vector & needs(i.function, "b"))
        reader = self._reader(m, "b", starts, loops)
        step = reader.step
        term = Cat(step.index[2][: CHUNK.bit_length() - 1], step.index[1][:CHUNK_BITS])
        by_row = self._keep(m, step.index[1], step.index[3])
        with m.If(self.is_.gemm):
            m.d.comb += reader.request.keep.eq(Mux(i.columns, Mux(term < i.inner, dpe.trees, 0), by_row))
            if self.shift:
                first = step.address[: self.shift] << self.unit.bit_length() - 1
                m.d.comb += reader.request.first.eq(Mux(i.columns, first, 0))
        return reader

    def _reader_c(self, m: Module) -> SimpleNamespace:
        """Reader of operand c of VECTOR."""
        i = self.i
        loops = [
            (i.groups, self._units(i.c.group)),
            (i.rows, self._units(i.c.stride)),
            (self.sizes.lines_c, self._units(1)),
        ]
        return self._reader(m, "c", self.is_.vector & needs(i.function, "c"), loops)

    def _write(self, m: Module) -> None:
        """Connects the writer: results of the engines and loaded lines."""
        i, sizes, writer, gemm = self.i, self.sizes, self.writer, self.is_.gemm
        bf16 = i.bf16[3] & (gemm | (i.function != vpe.Function.SIGN))
        word = Mux(gemm, self.dpe_config.trees // self.unit, self.vpe_config.lanes // self.unit) << ~bf16
        rows = [(i.groups, self._units(i.o.group)), (i.rows, self._units(i.o.stride))]
        other = (
            Mux(gemm, sizes.tiles, Mux(self.is_.load, sizes.lines_o, sizes.words_out)),
            Mux(self.is_.load, self._units(1), word),
        )
        # The DPE gives its words tile by tile, the others row by row.
        for k, (first, later) in enumerate(zip([other, *rows], [*rows, other], strict=True)):
            m.d.comb += [
                writer.counts[k].eq(Mux(gemm, first[0], later[0])),
                writer.strides[k].eq(Mux(gemm, first[1], later[1])),
            ]
        m.d.comb += [
            *(writer.start.eq(self.sequencer.go & ~self.is_.store), writer.base.eq(self._units(i.o.base))),
            writer.source.eq(
                Mux(gemm, WriteSource.DPE, Mux(self.is_.vector, WriteSource.VPE, WriteSource.DIN))
            ),
            *(writer.bf16.eq(bf16), writer.length.eq(i.length)),
            *(self.memory.write_mask.eq(writer.write_mask), self.memory.write_line.eq(writer.write_line)),
            self.memory.write_data.eq(writer.write_data),
        ]
        wiring.connect(m, self.dpe.o, writer.dpe)
        wiring.connect(m, self.vpe.o, writer.vpe)

    def _multiply(self, m: Module, readers: list[SimpleNamespace]) -> None:
        """Connects the DPE: its command, and its rows and weights from memory or from `din`."""
        command, asked = self.dpe.cmd.payload, Signal()
        with m.If(self.sequencer.go):
            m.d.sync += asked.eq(self.is_.gemm)
        with m.Elif(self.dpe.cmd.ready):
            m.d.sync += asked.eq(0)
        weights = self.is_.gemm & ~self.i.resident
        m.d.comb += [
            *(self.dpe.cmd.valid.eq(asked), command.rows.eq(self.sizes.total)),
            *(command.chunks.eq(self.sizes.chunks), command.tiles.eq(self.sizes.tiles)),
            *(command.bf16.eq(self.i.bf16[3]), command.columns.eq(self.i.columns)),
            *(
                self.dpe.x.payload.eq(readers[0].o.payload),
                self.dpe.x.valid.eq(self.is_.gemm & readers[0].o.valid),
            ),
            self.dpe.w.payload.eq(Mux(weights, self.din.payload, readers[1].o.payload)),
            self.dpe.w.valid.eq(Mux(weights, self.din.valid, self.is_.gemm & readers[1].o.valid)),
            *(getattr(self, name).eq(getattr(self.dpe, name)) for name in COUNTERS),
        ]

    def _operate(self, m: Module, readers: list[SimpleNamespace]) -> None:
        """Connects the VPE: its command, and its operands."""
        i, command, asked = self.i, self.vpe.cmd.payload, Signal()
        with m.If(self.sequencer.go):
            m.d.sync += asked.eq(self.is_.vector)
        with m.Elif(self.vpe.cmd.ready):
            m.d.sync += asked.eq(0)
        m.d.comb += [
            *(self.vpe.cmd.valid.eq(asked), command.opcode.eq(i.function), command.bf16.eq(i.bf16)),
            *(command.scalar.eq(i.scalar), command.length.eq(i.length), command.rows.eq(self.sizes.total)),
        ]
        inputs, lanes = self.dpe_config.inputs, self.vpe_config.lanes
        ones = {"a": 0, "b": i.scalar[0], "c": i.scalar[1]}
        for place, (name, one) in enumerate(ones.items()):
            m.submodules[f"unpacker_{name}"] = unpacker = Unpacker(inputs, lanes)
            m.submodules[f"operand_{name}"] = skid = Skid(len(unpacker.o.payload))
            wiring.connect(m, unpacker.o, skid.i)
            wiring.connect(m, skid.o, getattr(self.vpe, name))
            m.d.comb += [
                *(unpacker.bf16.eq(i.bf16[place]), unpacker.words.eq(Mux(one, 1, self.sizes.words))),
                unpacker.i.payload.eq(readers[place].o.payload),
                unpacker.i.valid.eq(self.is_.vector & readers[place].o.valid),
            ]
            others = {"a": self.is_.gemm & self.dpe.x.ready, "b": self.is_.gemm & self.dpe.w.ready}.get(
                name, 0
            )
            ready = Mux(self.is_.vector, unpacker.i.ready, others)
            if name == "a":
                ready = Mux(self.is_.store, self.dout.ready, ready)
            m.d.comb += readers[place].o.ready.eq(ready)

    def _pass(self, m: Module, readers: list[SimpleNamespace]) -> None:
        """Connects `din` to the writer and the DPE, or drops its beats; and reader a to `dout`."""
        working = Signal()
        with m.If(self.sequencer.go):
            m.d.sync += working.eq(1)
        with m.Elif(self.sequencer.finished):
            m.d.sync += working.eq(0)
        drop = self.sequencer.drop
        weights, load = self.is_.gemm & ~self.i.resident, self.is_.load
        ready = Mux(weights, self.dpe.w.ready, load & self.writer.din.ready)
        m.d.comb += [
            self.writer.din.payload.eq(self.din.payload),
            self.writer.din.valid.eq(working & load & self.din.valid),
            self.din.ready.eq(drop | (working & ready)),
            self.sequencer.dropped.eq(drop & self.din.valid),
            self.dout.payload.eq(readers[0].o.payload),
            self.dout.valid.eq(self.is_.store & readers[0].o.valid),
        ]
        self.working = working

    def _finish(self, m: Module, readers: list[SimpleNamespace]) -> None:
        """Tells the sequencer when the instruction has ended, and whether a result was NaN."""
        left, nan = Signal(), Signal()
        ended = Mux(self.is_.gemm, self.dpe.done.valid, self.vpe.done.valid)
        m.d.comb += [self.dpe.done.ready.eq(1), self.vpe.done.ready.eq(1)]
        with m.If(self.sequencer.go):
            m.d.sync += [left.eq(self.is_.gemm | self.is_.vector), nan.eq(0)]
        with m.Elif(ended):
            m.d.sync += [left.eq(0), nan.eq(self.is_.vector & self.vpe.done.payload.nan)]
        quiet = ~self.writer.busy & ~left & readers[0].idle
        m.d.comb += [
            self.sequencer.finished.eq(self.working & quiet),
            self.sequencer.nan.eq(nan | (self.is_.gemm & self.writer.nan)),
        ]
