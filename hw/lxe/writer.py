"""Writes results and loaded lines into the LXE's memory."""

from enum import IntEnum
from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from vrex.hw.lib.float32 import BF16, FP32
from vrex.hw.lib.stream import reduce_tree
from vrex.hw.lxe.sram import unit_values
from vrex.hw.lxe.walker import COUNT_BITS, Walker
from vrex.model.config import Config


class Source(IntEnum):
    """Who gives the words."""

    DPE = 0
    VPE = 1
    DIN = 2


LEVELS = 3
"""Loops around a word."""


def address_bits(config: Config) -> int:
    """Width of an address in units of `unit_values` values."""
    return max(1, (config.lines * config.dpe.inputs // unit_values(config) - 1).bit_length())


class Writer(wiring.Component):
    """Puts words to the addresses of a loop nest. A word that takes two lines takes two cycles.

    Args:
        config: accelerator.

    Members:
        start: takes what follows; it must stay as it is until the end.
        source: see `Source`.
        bf16: of the words of DPE and VPE, else FP32.
        length: columns of the DPE's result that count; others become 0. The outermost loop counts its tiles.
        base, counts, strides: of the loop nest, in units.
        dpe, vpe, din: words.
        write_mask, write_line, write_data: of the memory.
        busy: something is still to be written.
        nan: a word of the DPE held a NaN since `start`.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.inputs, self.unit = config.dpe.inputs, unit_values(config)
        bits = address_bits(config)
        super().__init__(
            {
                "start": In(1),
                "source": In(2),
                "bf16": In(1),
                "length": In(COUNT_BITS),
                "base": In(bits),
                "counts": In(COUNT_BITS).array(LEVELS),
                "strides": In(bits).array(LEVELS),
                "dpe": In(stream.Signature(32 * config.dpe.trees)),
                "vpe": In(stream.Signature(32 * config.vpe.lanes)),
                "din": In(stream.Signature(16 * self.inputs)),
                "write_mask": Out(self.inputs // self.unit),
                "write_line": Out(range(max(2, config.lines))),
                "write_data": Out(16 * self.inputs),
                "busy": Out(1),
                "nan": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware."""
        m = Module()
        m.submodules.walker = walker = Walker(LEVELS, address_bits(self.config))
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
        lanes = self.config.vpe.lanes
        results = {
            Source.DPE: (self.dpe, *self._kept(m, walker.o.payload.index[0], take)),
            Source.VPE: (
                self.vpe,
                Cat(self.vpe.payload.word_select(k, 32)[: BF16.bits] for k in range(lanes)),
                self.vpe.payload,
            ),
        }
        data, units = Signal(16 * self.inputs), Signal(range(self.inputs // self.unit + 1))
        with m.Switch(self.source):
            for source, (port, short, full) in results.items():
                with m.Case(source):
                    m.d.comb += [present.eq(port.valid), port.ready.eq(walker.o.valid & (~twice | second))]
                    self._word(m, short, full, second, (data, units, twice))
            with m.Case(Source.DIN):
                m.d.comb += [present.eq(self.din.valid), self.din.ready.eq(walker.o.valid)]
                m.d.comb += [data.eq(self.din.payload), units.eq(self.inputs // self.unit)]
        self._write(m, walker.o.payload.address, second, take, data, units)
        m.d.comb += self.busy.eq(walker.busy | self.write_mask.any())
        return m

    def _kept(self, m: Module, tile: Any, take: Any) -> tuple[Any, Any]:
        """The DPE's results, BF16 and FP32, those that do not count as 0; notes NaN in the others."""
        trees = self.config.dpe.trees
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
        with m.Elif(take & (self.source == Source.DPE)):
            m.d.sync += self.nan.eq(self.nan | reduce_tree(nans, lambda a, b: a | b))
        return Cat(kept[0]), Cat(kept[1])

    def _word(self, m: Module, short: Any, full: Any, second: Any, target: Any) -> None:
        """A line that holds the word, as BF16 or FP32, at every place where it could belong, and its size."""
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
        """The register in front of the memory."""
        shift = (self.inputs // self.unit).bit_length() - 1
        mask = (Const(1) << units) - 1
        m.d.sync += [
            self.write_mask.eq(Mux(take, mask << address[:shift], 0)),
            self.write_line.eq(address[shift:] + second),
            self.write_data.eq(data),
        ]
