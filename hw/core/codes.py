"""Rows of codes on their way to the LXE: BF16 of codes and scales (model `vrex.model.dre.quant`)."""

from itertools import pairwise
from typing import Any

from amaranth import Cat, EnableInserter, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from vrex.hw.core.queue import Queue
from vrex.hw.core.rows import SCALE_BYTES
from vrex.hw.dre.quant import Product
from vrex.hw.lib.float32 import BF16
from vrex.hw.lib.stream import word_layout
from vrex.model.config import Config
from vrex.model.core.instructions import CODE_BITS, CODE_ROWS

WIDE, NARROW = CODE_BITS


def first_scale(scales: Any, first: Any, bus_bytes: int) -> Any:
    """Place of the scale of row `first` in its beat; combinational, of the lowest bits alone."""
    bits = (bus_bytes // SCALE_BYTES).bit_length() - 1
    return (scales.address[1 : 1 + bits] + first[:bits] * scales.step[:bits])[:bits]


def picks_layout(most_step: int, bus_bytes: int) -> data.StructLayout:
    """Which scales a MOVE takes: of how many rows, the step between them, and the first one's place."""
    return data.StructLayout(
        {
            "rows": range(CODE_ROWS + 1),
            "step": range(most_step + 1),
            "place": range(bus_bytes // SCALE_BYTES),
        }
    )


class Scales(wiring.Component):
    """Picks the scale of each row out of the beats that hold them all.

    A scale a cycle, less one cycle for each beat that is passed over. There is room for the beats of a MOVE
    of the most rows.

    Args:
        most_step: largest step from scale to scale.
        bus_bits: width of a beat.

    Members:
        i: beats; none of a MOVE before the scales of the last one have been taken.
        picks: with `start`: of the MOVE whose beats come (`picks_layout`).
        start: for a cycle.
        o: scales.
    """

    i: stream.Interface
    picks: Any
    start: Signal
    o: stream.Interface

    def __init__(self, most_step: int, bus_bits: int) -> None:
        self.most_step, self.bus_bits = most_step, bus_bits
        super().__init__(
            {
                "i": In(stream.Signature(bus_bits)),
                "picks": In(picks_layout(most_step, bus_bits // 8)),
                "start": In(1),
                "o": Out(stream.Signature(BF16.bits)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """A queue of beats, the place of the next scale behind its head, and a register of a scale."""
        m = Module()
        per_beat = self.bus_bits // BF16.bits
        most = ((CODE_ROWS - 1) * self.most_step + per_beat) // per_beat + 1
        # The output register of the queue may be empty while its memory is full.
        m.submodules.beats = beats = Queue(self.bus_bits, most + 1)
        left = Signal(range(CODE_ROWS + 1))
        step = Signal(range(self.most_step + 1))
        place = Signal(range(per_beat + self.most_step))
        works, beyond = left != 0, place >= per_beat
        here = place[: (per_beat - 1).bit_length()]
        free = ~self.o.valid | self.o.ready
        pick = works & beats.o.valid & ~beyond & free
        m.d.comb += [
            beats.i.payload.eq(self.i.payload),
            beats.i.valid.eq(self.i.valid),
            self.i.ready.eq(beats.i.ready),
            # The last scale is in the last beat.
            beats.o.ready.eq((works & beyond) | (pick & (left == 1))),
        ]
        with m.If(free):
            m.d.sync += [
                self.o.valid.eq(pick),
                self.o.payload.eq(beats.o.payload.word_select(here, BF16.bits)),
            ]
        with m.If(self.start):
            m.d.sync += [left.eq(self.picks.rows), step.eq(self.picks.step), place.eq(self.picks.place)]
        with m.Elif(pick):
            m.d.sync += [left.eq(left - 1), place.eq(place + step)]
        with m.Elif(works & beyond & beats.o.valid):
            m.d.sync += place.eq(place - per_beat)
        return m


class Dequantise(wiring.Component):
    """Makes BF16 of codes and scales: a word a cycle.

    A word has as many values as a beat has codes, or as a line has values where these are fewer; a beat then
    takes several cycles. Latency: `1 + Product.latency` cycles.

    Args:
        config: accelerator.

    Members:
        i: beats of codes; `last` ends a row.
        four: with `i`: codes have 4 bits, not 8.
        scales: one for each row.
        o: words, as `vrex.hw.core.gear.Widen` takes them.
        size: with `o`, log2 of the beats of BF16 in a word.
        busy: something has been taken that has not left.
    """

    i: stream.Interface
    four: Signal
    scales: stream.Interface
    o: stream.Interface
    size: Signal
    busy: Signal

    def __init__(self, config: Config) -> None:
        bus_bits, inputs = config.bus_bits, config.dpe.inputs
        self.bus_bits = bus_bits
        # Values of a word, by the bits of a code.
        self.values = {bits: min(inputs, bus_bits // bits) for bits in CODE_BITS}
        self.most = self.values[NARROW] * BF16.bits // bus_bits
        super().__init__(
            {
                "i": In(stream.Signature(word_layout(bus_bits))),
                "four": In(1),
                "scales": In(stream.Signature(BF16.bits)),
                "o": Out(stream.Signature(word_layout(self.most * bus_bits))),
                "size": Out(range(self.most.bit_length())),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Registers of a word's codes, a product for each, and the marks that go along."""
        m = Module()
        free = ~self.o.valid | self.o.ready
        parts = {bits: self.bus_bits // bits // values for bits, values in self.values.items()}
        part = Signal(range(max(2, parts[NARROW])))
        ends = part == Mux(self.four, parts[NARROW] - 1, parts[WIDE] - 1)
        taken = self.i.valid & self.scales.valid
        # Of the registers from `codes` to the one before `o`.
        stages = Signal(Product.latency)
        marks = data.StructLayout({"last": 1, "four": 1})
        flags: list[Any] = [
            Signal(marks, name=f"marks_{k}", reset_less=True) for k in range(Product.latency + 1)
        ]
        codes = Signal(self.values[NARROW] * WIDE, reset_less=True, name="word_codes")
        scale = Signal(BF16.bits, reset_less=True, name="word_scale")
        m.d.comb += [
            self.i.ready.eq(free & self.scales.valid & ends),
            self.scales.ready.eq(free & self.i.valid & ends & self.i.payload.last),
            self.busy.eq(stages.any() | self.o.valid),
            self.o.payload.last.eq(flags[-1].last),
            self.size.eq(Mux(flags[-1].four, *(self._log(bits) for bits in (NARROW, WIDE)))),
        ]
        with m.If(free):
            m.d.sync += [
                Cat(stages, self.o.valid).eq(Cat(taken, stages)),
                codes.eq(Mux(self.four, self._narrow(part, parts), self._part(WIDE, part, parts))),
                scale.eq(self.scales.payload),
                flags[0].four.eq(self.four),
                flags[0].last.eq(self.i.payload.last & ends),
                *(later.eq(before) for before, later in pairwise(flags)),
            ]
            with m.If(taken):
                m.d.sync += part.eq(Mux(ends, 0, part + 1))
        values = []
        for n in range(self.values[NARROW]):
            product = Product(WIDE)
            m.submodules[f"product_{n}"] = EnableInserter(free)(product)
            m.d.comb += [product.code.eq(codes.word_select(n, WIDE)), product.scale.eq(scale)]
            values.append(product.value)
        m.d.comb += self.o.payload.data.eq(Cat(values))
        return m

    def _log(self, bits: int) -> int:
        return (self.values[bits] * BF16.bits // self.bus_bits).bit_length() - 1

    def _part(self, bits: int, part: Any, parts: dict[int, int]) -> Any:
        """The codes of a word out of the beat."""
        beat, size = self.i.payload.data, self.values[bits] * bits
        return beat.word_select(part[: (parts[bits] - 1).bit_length()], size) if parts[bits] > 1 else beat

    def _narrow(self, part: Any, parts: dict[int, int]) -> Any:
        """Codes of 4 bits with their signs extended."""
        word = self._part(NARROW, part, parts)
        codes = [word.word_select(n, NARROW) for n in range(self.values[NARROW])]
        return Cat(Cat(code, code[-1].replicate(WIDE - NARROW)) for code in codes)
