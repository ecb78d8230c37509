"""Writes results and loaded lines to the LXE's memory."""

from collections.abc import Sequence
from enum import IntEnum
from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from vrex.hw.lib.float32 import BF16, FP32
from vrex.hw.lib.stream import reduce_tree
from vrex.hw.lxe.memory import WritePort, WritePortSignature
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
        sources: streams that it writes; each is a member of the name in small letters.

    Members:
        start: starts a transfer; the inputs up to `strides` must be stable until it ends.
        source: see `WriteSource`; one of `sources`.
        bf16: words of DPE and VPE are BF16, else FP32.
        length: valid columns of the DPE's result; the others are written as 0. The outermost loop counts
            its tiles.
        base, counts, strides: of the loop nest (`vrex.hw.lxe.walker.Walker`), in units of `unit_values`
            values.
        dpe, vpe, din: words to write.
        port: write port of the memory.
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
    port: WritePort
    busy: Signal
    nan: Signal

    def __init__(
        self, config: LxeConfig, *, dpe: DpeConfig, vpe: VpeConfig, sources: Sequence[WriteSource]
    ) -> None:
        self.sources = sources
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
                **{name: In(stream.Signature(bits)) for name, bits in self._widths().items()},
                "port": Out(WritePortSignature(config, dpe=dpe, vpe=vpe)),
                "busy": Out(1),
                "nan": Out(1),
            }
        )

    def _widths(self) -> dict[str, int]:
        """Width of each stream that it writes."""
        widths = {
            WriteSource.DPE: 32 * self.trees,
            WriteSource.VPE: 32 * self.lanes,
            WriteSource.DIN: 16 * self.inputs,
        }
        return {source.name.lower(): widths[source] for source in self.sources}

    def elaborate(self, platform: Any) -> Module:
        """Builds the address generator, the alignment of words, and a register in front of the memory."""
        m = Module()
        m.submodules.walker = walker = Walker(LEVELS, self.address_bits)
        second = Signal()
        twice = Signal()
        take = Signal()
        present = Signal()
        room = Signal()
        # The other writer may have the bank.
        m.d.comb += room.eq(~self.port.mask.any() | self.port.granted)
        m.d.comb += [
            *(walker.start.eq(self.start), walker.base.eq(self.base)),
            *(x.eq(y) for x, y in zip(walker.counts, self.counts, strict=True)),
            *(x.eq(y) for x, y in zip(walker.strides, self.strides, strict=True)),
            take.eq(walker.o.valid & present & room),
            walker.o.ready.eq(present & room & (~twice | second)),
        ]
        with m.If(take):
            m.d.sync += second.eq(twice & ~second)
        results: dict[WriteSource, tuple[Any, Any]] = {}
        if WriteSource.DPE in self.sources:
            results[WriteSource.DPE] = self._kept(m, walker.o.payload.index[0], take)
        if WriteSource.VPE in self.sources:
            word = self.vpe.payload
            short = Cat(word.word_select(k, 32)[: BF16.bits] for k in range(self.lanes))
            results[WriteSource.VPE] = short, word
        data = Signal(16 * self.inputs)
        units = Signal(range(self.inputs // self.unit + 1))
        with m.Switch(self.source):
            for source in self.sources:
                port: Any = getattr(self, source.name.lower())
                with m.Case(source):
                    m.d.comb += present.eq(port.valid)
                    m.d.comb += port.ready.eq(walker.o.valid & room & (~twice | second))
                    if source in results:
                        short, full = results[source]
                        self._word(m, short, full, second, (data, units, twice))
                    else:
                        m.d.comb += [data.eq(port.payload), units.eq(self.inputs // self.unit)]
        self._write(m, walker.o.payload.address, second, take, data, units)
        m.d.comb += self.busy.eq(walker.busy | self.port.mask.any())
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
        with m.If(~self.port.mask.any() | self.port.granted):
            m.d.sync += [
                self.port.mask.eq(Mux(take, mask << address[:shift], 0)),
                self.port.line.eq(address[shift:] + second),
                self.port.data.eq(data),
            ]
