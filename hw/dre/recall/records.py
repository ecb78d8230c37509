"""K and V of a token in 4 bits a value, to memory and back (model `vrex.model.dre.packed`)."""

from dataclasses import replace
from typing import Any

from amaranth import Cat, EnableInserter, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect

from vrex.hw.dre.quant import Product, Quant
from vrex.hw.lib.float32 import BF16
from vrex.model.config import KvmuConfig, MeanConfig
from vrex.model.dre import packed
from vrex.model.dre.packed import BITS


class RecordShape:
    """Sizes of a token's record.

    Attributes:
        group: values that share a scale.
        groups: of K and V.
        code_bits: of all codes, which come before the scales.
        bits: of a record, filled up to whole beats.
        beats, token_beats: of a record, and of K and V in BF16.
    """

    def __init__(self, kvmu: KvmuConfig, bus_bits: int) -> None:
        self.group = packed.group_of(kvmu.head_dim)
        self.groups = 2 * kvmu.head_dim // self.group
        self.code_bits = 2 * kvmu.head_dim * BITS
        self.beats = -(-8 * packed.nbytes(2, kvmu.head_dim) // bus_bits)
        self.bits = self.beats * bus_bits
        self.token_beats = 8 * kvmu.token_bytes // bus_bits


class Pack(wiring.Component):
    """Makes records of tokens: group by group through a `Quant`, then the record beat by beat.

    Args:
        kvmu: dimensions of K and V.
        mean: its `lanes` values are handled in one cycle.
        bus_bits: width of a beat.

    Members:
        i: K, then V of a token, BF16.
        o: its record.
        busy: a record is in work.
    """

    i: stream.Interface
    o: stream.Interface
    busy: Signal

    def __init__(self, kvmu: KvmuConfig, *, mean: MeanConfig, bus_bits: int) -> None:
        self.shape, self.bus_bits = RecordShape(kvmu, bus_bits), bus_bits
        self.quant = Quant(kvmu=replace(kvmu, head_dim=self.shape.group), mean=mean, bus_bits=bus_bits)
        super().__init__(
            {"i": In(stream.Signature(bus_bits)), "o": Out(stream.Signature(bus_bits)), "busy": Out(1)}
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware: the quantiser, a register of a record, a state machine."""
        m = Module()
        shape, bus_bits = self.shape, self.bus_bits
        m.submodules.quant = quant = self.quant
        connect(m, wiring.flipped(self.i), quant.i)
        # Codes of a group come in parts of a beat; codes that fill less than a beat are one part.
        part_bits = min(bus_bits, shape.group * BITS)
        parts = shape.code_bits // part_bits
        record = Signal(shape.bits)
        group = Signal(range(shape.groups))
        part = Signal(range(parts))
        sent = Signal(range(shape.beats))
        scales = record[shape.code_bits : shape.code_bits + shape.groups * BF16.bits]
        m.d.comb += [
            quant.cmd.payload.eq(1),
            self.o.payload.eq(record[:bus_bits]),
            self.busy.eq(1),
        ]
        with m.If(quant.o.valid & quant.o.ready):
            m.d.sync += record[: shape.code_bits].word_select(part, part_bits).eq(quant.o.payload[:part_bits])
            m.d.sync += part.eq(part + 1)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.busy.eq(0)
                m.d.sync += [group.eq(0), part.eq(0), sent.eq(0)]
                with m.If(self.i.valid):
                    m.d.sync += record.eq(0)
                    m.next = "GROUP"
            with m.State("GROUP"):
                m.d.comb += quant.cmd.valid.eq(1)
                with m.If(quant.cmd.ready):
                    m.next = "CODES"
            with m.State("CODES"):
                m.d.comb += [quant.o.ready.eq(1), quant.done.ready.eq(1)]
                with m.If(quant.done.valid):
                    m.d.sync += scales.word_select(group, BF16.bits).eq(quant.done.payload)
                    m.d.sync += group.eq(group + 1)
                    m.next = "GROUP"
                    with m.If(group == shape.groups - 1):
                        m.next = "SEND"
            with m.State("SEND"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.d.sync += [record.eq(record >> bus_bits), sent.eq(sent + 1)]
                    with m.If(sent == shape.beats - 1):
                        m.next = "IDLE"
        return m


class Unpack(wiring.Component):
    """Makes K and V of records: takes a record, then gives a beat a cycle.

    Args:
        kvmu: dimensions of K and V.
        bus_bits: width of a beat.

    Members:
        clear: forgets what there is of a record.
        i: records.
        o: K, then V, BF16.
        busy: beats of a whole record are still to leave.
    """

    clear: Signal
    i: stream.Interface
    o: stream.Interface
    busy: Signal

    def __init__(self, kvmu: KvmuConfig, *, bus_bits: int) -> None:
        self.shape, self.bus_bits = RecordShape(kvmu, bus_bits), bus_bits
        super().__init__(
            {
                "clear": In(1),
                "i": In(stream.Signature(bus_bits)),
                "o": Out(stream.Signature(bus_bits)),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware: registers of a record, of a beat's codes and of a beat, a product for each value."""
        m = Module()
        shape, bus_bits = self.shape, self.bus_bits
        values = bus_bits // BF16.bits
        record = Signal(shape.bits)
        taken = Signal(range(shape.beats))
        giving = Signal()
        given = Signal(range(shape.token_beats))
        codes = Signal(values * BITS)
        scale = Signal(BF16.bits)
        # Of the registers from `codes` to the one before `o`.
        stages = Signal(1 + Product.latency - 1)
        scales = record[shape.code_bits : shape.code_bits + shape.groups * BF16.bits]
        beats_of_group = max(1, shape.group // values)
        free = ~self.o.valid | self.o.ready
        products = [Product(BITS) for _ in range(values)]
        for i, product in enumerate(products):
            m.submodules[f"product_{i}"] = EnableInserter(free)(product)
            m.d.comb += [product.code.eq(codes.word_select(i, BITS)), product.scale.eq(scale)]
        m.d.comb += [
            self.i.ready.eq(~giving),
            self.busy.eq(giving | stages.any() | self.o.valid),
            self.o.payload.eq(Cat(product.value for product in products)),
        ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [record.eq(Cat(record, self.i.payload)[bus_bits:]), taken.eq(taken + 1)]
            with m.If(taken == shape.beats - 1):
                m.d.sync += [taken.eq(0), giving.eq(1)]
        with m.If(free):
            m.d.sync += [
                Cat(stages, self.o.valid).eq(Cat(giving, stages)),
                codes.eq(record[: shape.code_bits].word_select(given, values * BITS)),
                scale.eq(scales.word_select(given >> (beats_of_group.bit_length() - 1), BF16.bits)),
            ]
            with m.If(giving):
                m.d.sync += given.eq(given + 1)
                with m.If(given == shape.token_beats - 1):
                    m.d.sync += [given.eq(0), giving.eq(0)]
        with m.If(self.clear):
            m.d.sync += [taken.eq(0), given.eq(0), giving.eq(0), stages.eq(0), self.o.valid.eq(0)]
        return m
