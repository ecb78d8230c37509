"""Writes results and loaded lines to the LXE's memory."""

from enum import IntEnum
from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from vrex.hw.lib.float32 import BF16, FP32
from vrex.hw.lib.stream import reduce_tree
from vrex.hw.lxe.sram import unit_values
from vrex.hw.lxe.walker import COUNT_BITS, Walker
from vrex.model.config import DpeConfig, LxeConfig, VpeConfig


class WriteSource(IntEnum):
    """Which stream is written."""

    DPE = 0
    VPE = 1
    DIN = 2


LEVELS = 3
"""Loops of a loop nest of words."""


def address_bits(config: LxeConfig, dpe: DpeConfig, vpe: VpeConfig) -> int:
    """Width of an address in units of `unit_values` values."""
    return max(1, (config.lines(dpe) * dpe.inputs // unit_values(dpe, vpe) - 1).bit_length())


class Writer(wiring.Component):
    """Writes words to the addresses of a loop nest. A word of two lines takes two cycles.

    Args:
        config: size of the memory.
        dpe, vpe: widths of their results, and of a line.

    Members:
        start: starts a transfer; the inputs up to `strides` must be stable until it ends.
        source: see `WriteSource`.
        bf16: words of DPE and VPE are BF16, else FP32.
        length: valid columns of the DPE's result; the others are written as 0. The outermost loop counts
            its tiles.
        base, counts, strides: of the loop nest (`vrex.hw.lxe.walker.Walker`), in units of `unit_values`
            values.
        dpe, vpe, din: words to write.
        write_mask, write_line, write_data: write port of the memory.
        busy: something is still to be written.
        nan: a word of the DPE has held a NaN since `start`.
    """

    start: Signal
    source: Signal
    bf16: Signal
    length: Signal
    base: Signal
    counts: list[Signal]
    strides: list[Signal]
    dpe: stream.Interface
    vpe: stream.Interface
    din: stream.Interface
    write_mask: Signal
    write_line: Signal
    write_data: Signal
    busy: Signal
    nan: Signal

    def __init__(self, config: LxeConfig, *, dpe: DpeConfig, vpe: VpeConfig) -> None:
        self.inputs, self.unit = dpe.inputs, unit_values(dpe, vpe)
        self.trees, self.lanes = dpe.trees, vpe.lanes
        self.address_bits = bits = address_bits(config, dpe, vpe)
        super().__init__(
            {
                "start": In(1),
                "source": In(2),
                "bf16": In(1),
                "length": In(COUNT_BITS),
                "base": In(bits),
                "counts": In(COUNT_BITS).array(LEVELS),
                "strides": In(bits).array(LEVELS),
                "dpe": In(stream.Signature(32 * dpe.trees)),
                "vpe": In(stream.Signature(32 * vpe.lanes)),
                "din": In(stream.Signature(16 * self.inputs)),
                "write_mask": Out(self.inputs // self.unit),
                "write_line": Out(range(max(2, config.lines(dpe)))),
                "write_data": Out(16 * self.inputs),
                "busy": Out(1),
                "nan": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Builds the address generator, the alignment of words, and a register in front of the memory."""
        m = Module()
        m.submodules.walker = walker = Walker(LEVELS, self.address_bits)
        second, twice, take, present = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            *(walker.start.eq(self.start), walker.base.eq(self.base)),
            *(x.eq(y) for x, y in zip(walker.counts, self.counts, strict=True)),
            *(x.eq(y) for x, y in zip(walker.strides, self.strides, strict=True)),
            take.eq(walker.o.valid & present),
            walker.o.ready.eq(present & (~twice | second)),
        ]
        with m.If(take):
            m.d.sync += second.eq(twice & ~second)
        results = {
            WriteSource.DPE: (self.dpe, *self._kept(m, walker.o.payload.index[0], take)),
            WriteSource.VPE: (
                self.vpe,
                Cat(self.vpe.payload.word_select(k, 32)[: BF16.bits] for k in range(self.lanes)),
                self.vpe.payload,
            ),
        }
        data, units = Signal(16 * self.inputs), Signal(range(self.inputs // self.unit + 1))
        with m.Switch(self.source):
            for source, (port, short, full) in results.items():
                with m.Case(source):
                    m.d.comb += [present.eq(port.valid), port.ready.eq(walker.o.valid & (~twice | second))]
                    self._word(m, short, full, second, (data, units, twice))
            with m.Case(WriteSource.DIN):
                m.d.comb += [present.eq(self.din.valid), self.din.ready.eq(walker.o.valid)]
                m.d.comb += [data.eq(self.din.payload), units.eq(self.inputs // self.unit)]
        self._write(m, walker.o.payload.address, second, take, data, units)
        m.d.comb += self.busy.eq(walker.busy | self.write_mask.any())
        return m

    def _kept(self, m: Module, tile: Any, take: Any) -> tuple[Any, Any]:
        """The DPE's results as BF16 and as FP32, 0 from column `length` on; records NaN in the others."""
        trees = self.trees
        left = Signal(COUNT_BITS)
        m.d.comb += left.eq(self.length - (tile << trees.bit_length() - 1))
        kept: tuple[list[Any], list[Any]] = ([], [])
        nans = []
        for j in range(trees):
            short, full = (self.dpe.payload.word_select(j, shape.bits) for shape in (BF16, FP32))
            is_nan = [
                number.exponent.all() & number.fraction.any()
                for number in (BF16.view(short), FP32.view(full))
            ]
            nans.append((left > j) & Mux(self.bf16, is_nan[0], is_nan[1]))
            for values, value in zip(kept, (short, full), strict=True):
                values.append(Mux(left > j, value, 0))
        with m.If(self.start):
            m.d.sync += self.nan.eq(0)
        with m.Elif(take & (self.source == WriteSource.DPE)):
            m.d.sync += self.nan.eq(self.nan | reduce_tree(nans, lambda a, b: a | b))
        return Cat(kept[0]), Cat(kept[1])

    def _word(self, m: Module, short: Any, full: Any, second: Any, target: Any) -> None:
        """Replicates a word, BF16 or FP32, over a line; gives its size, from which the mask is made."""
        data, units, twice = target
        values = len(short) // BF16.bits
        with m.If(self.bf16):
            m.d.comb += [data.eq(Cat(*[short] * (self.inputs // values))), units.eq(values // self.unit)]
        with m.Elif(Const(values == self.inputs, 1)):
            # A whole line of BF16 values is two of FP32.
            m.d.comb += [data.eq(full.word_select(second, 16 * self.inputs)), twice.eq(1)]
            m.d.comb += units.eq(self.inputs // self.unit)
        with m.Else():
            m.d.comb += [data.eq(Cat(*[full] * (self.inputs // values // 2)))]
            m.d.comb += units.eq(2 * values // self.unit)

    def _write(self, m: Module, address: Any, second: Any, take: Any, data: Any, units: Any) -> None:
        """The registers in front of the memory."""
        shift = (self.inputs // self.unit).bit_length() - 1
        mask = (Const(1) << units) - 1
        m.d.sync += [
            self.write_mask.eq(Mux(take, mask << address[:shift], 0)),
            self.write_line.eq(address[shift:] + second),
            self.write_data.eq(data),
        ]
