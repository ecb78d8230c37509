"""Scores of coded tokens: sums of a query's components by sign bits, scaled (model `codes.score`)."""

import operator
from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from vrex.hw.lib.float32 import BF16, FP32, Multiplier, leading_zeros, to_bf16
from vrex.hw.lib.stream import delay, reduce_tree, tree_stages
from vrex.model.dre.codes import QUERY_BITS


def sum_bits(bits: int) -> int:
    """Width of a signed sum of `bits` components, none of them beyond -127..127."""
    return QUERY_BITS + bits.bit_length() - 1


class Lane(wiring.Component):
    """Pipeline of one token: bf16(f * (scale * S)), S the sum of the components with the code's signs.

    As the components' sum is known, S is twice the sum of those whose bit is set, less that.

    Args:
        bits: of a code.

    Members:
        components: of the row's query, the first in the lowest bits; stable while tokens are in the pipeline.
        total: their sum.
        scale: the query's, BF16: normal, zero or NaN, as the quantiser makes it.
        code: the token's sign bits.
        factor: the token's f, BF16, `factor_delay` cycles after its code.
        score: BF16, `latency` cycles after the code.
    """

    components: Signal
    total: Signal
    scale: Signal
    code: Signal
    factor: Signal
    score: Signal

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.factor_delay = self.delays(bits)[0]
        self.latency = self.delays(bits)[1]
        super().__init__(
            {
                "components": In(QUERY_BITS * bits),
                "total": In(signed(sum_bits(bits))),
                "scale": In(BF16.bits),
                "code": In(bits),
                "factor": In(BF16.bits),
                "score": Out(BF16.bits),
            }
        )

    @staticmethod
    def delays(bits: int) -> tuple[int, int]:
        """`factor_delay` and `latency`: register, sum with its sign, normalisation, then two products."""
        product = 1 + tree_stages(bits) + 3 + Multiplier.latency
        return product, product + Multiplier.latency + 1

    def elaborate(self, platform: Any) -> Module:
        """A tree of adders, the conversion to FP32, and two multipliers in series."""
        m = Module()
        low = Const(0, FP32.bits - BF16.bits)
        zeros = FP32.fraction - BF16.fraction
        # The sum is 0 or at least 1 and the scale no subnormal number: so neither product is one.
        m.submodules.scaler = scaled = Multiplier(normal=True, zeros=zeros)
        m.submodules.multiplier = product = Multiplier(normal=True, zeros=zeros)
        m.d.comb += [
            scaled.a.eq(Cat(low, self.scale)),
            scaled.b.eq(self._normalised(m, self._sum(m))),
            product.a.eq(Cat(low, self.factor)),
            product.b.eq(scaled.o),
            self.score.eq(delay(m, to_bf16(product.o), 1, "score")),
        ]
        return m

    def _sum(self, m: Module) -> Any:
        """S, `tree_stages(bits)` + 2 cycles after the code, which a memory gives late in its cycle."""
        code = delay(m, self.code, 1, "code")
        chosen = [
            (self.components.word_select(i, QUERY_BITS) & code[i].replicate(QUERY_BITS)).as_signed()
            for i in range(self.bits)
        ]
        positive = reduce_tree(chosen, operator.add, m)
        return delay(m, ((positive << 1) - self.total)[: sum_bits(self.bits)].as_signed(), 1, "sum")

    def _normalised(self, m: Module, total: Any) -> Any:
        """FP32 bits of S, 2 cycles later."""
        width = len(total) - 1
        magnitude = delay(m, Mux(total < 0, -total, total)[:width], 1, "magnitude")
        sign = delay(m, total < 0, 2, "sign")
        shift = leading_zeros(m, magnitude)
        fraction = (magnitude << shift)[: width - 1]
        exponent = (FP32.bias + width - 1 - shift)[: FP32.exponent]
        nonzero = delay(m, magnitude.any(), 1, "nonzero")
        fraction, exponent = delay(m, fraction, 1, "fraction"), delay(m, exponent, 1, "exponent")
        below = Const(0, FP32.fraction - (width - 1))
        return Mux(nonzero, Cat(below, fraction, exponent, sign), 0)


class Query(wiring.Component):
    """Holds a row's query: components, their sum, and the scale.

    Args:
        bits: of a code, so components.
        bus_bits: width of a beat.

    Members:
        beats: components, 8 bits each, then the scale, BF16.
        active: the field is being taken.
        taken: for one cycle, with the field's last beat.
        components, scale: of the last query.
        total: sum of the components, `latency` cycles after their last beat.
    """

    beats: stream.Interface
    active: Signal
    taken: Signal
    components: Signal
    scale: Signal
    total: Signal

    def __init__(self, bits: int, bus_bits: int) -> None:
        self.bits, self.bus_bits = bits, bus_bits
        self.field_beats = self.beats_of(bits, bus_bits)
        self.beat_components = min(bits, bus_bits // QUERY_BITS)
        self.latency = tree_stages(self.beat_components) + 1
        super().__init__(
            {
                "beats": In(stream.Signature(bus_bits)),
                "active": In(1),
                "taken": Out(1),
                "components": Out(QUERY_BITS * bits),
                "scale": Out(BF16.bits),
                "total": Out(signed(sum_bits(bits))),
            }
        )

    @staticmethod
    def beats_of(bits: int, bus_bits: int) -> int:
        """Beats of the field."""
        return -(-(QUERY_BITS * bits + BF16.bits) // bus_bits)

    def elaborate(self, platform: Any) -> Module:
        """Registers written beat by beat, and an adder tree over a beat's components."""
        m = Module()
        stored = Signal(self.field_beats * self.bus_bits, reset_less=True)
        number = Signal(range(max(2, self.field_beats)))
        takes = self.active & self.beats.valid
        last = number == self.field_beats - 1
        size = QUERY_BITS * self.bits
        m.d.comb += [
            self.beats.ready.eq(self.active),
            self.taken.eq(takes & last),
            self.components.eq(stored[:size]),
            self.scale.eq(stored[size : size + BF16.bits]),
        ]
        with m.If(takes):
            m.d.sync += [
                stored.word_select(number, self.bus_bits).eq(self.beats.payload),
                number.eq(Mux(last, 0, number + 1)),
            ]
        parts = [
            self.beats.payload.word_select(i, QUERY_BITS).as_signed() for i in range(self.beat_components)
        ]
        partial = reduce_tree(parts, operator.add, m)
        stages = tree_stages(self.beat_components)
        component_beats = self.bits // self.beat_components
        adds = delay(m, takes & (number < component_beats), stages, "adds", reset=True)
        first = delay(m, number == 0, stages, "first")
        with m.If(adds):
            m.d.sync += self.total.eq(Mux(first, 0, self.total) + partial)
        return m
