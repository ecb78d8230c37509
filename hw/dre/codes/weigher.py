"""Weights of a row's softmax, and the reciprocal of their sum (model `codes.vote`)."""

import operator
from typing import Any

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from vrex.hw.dre.wtu.lanes import EXP_STAGES, TABLE_PORTS, exp_table, exp_weight, integer_form, unpack
from vrex.hw.dre.wtu.layouts import ROW
from vrex.hw.dre.wtu.load import Extremes, RowConstants
from vrex.hw.lib.stream import delay, reduce_tree, tree_stages
from vrex.model.dre.codes import RECIPROCAL_BITS
from vrex.model.dre.wtu import EXP_ONE

NAN_WEIGHT = 0xFFFF
"""Stands for the weight of a NaN; weights are at most `EXP_ONE`."""

QUOTIENT_BITS = RECIPROCAL_BITS - (EXP_ONE.bit_length() - 1) + 1
"""Of 2^40 / sum: a row's largest score alone weighs `EXP_ONE`."""

UNUSED_BUCKETS = 2
"""The WTU's constants of a row are those of buckets too, which nothing reads here."""


class RowRange(wiring.Component):
    """What the weights of a row depend on: exponent, largest score, and the shift of `exp`.

    Args:
        lanes: scores in a word.

    Members:
        clear: forgets the row before; needed before a row and after reset.
        valid, word: a word of scores, BF16; NaN where a lane has none.
        take: makes the row that has passed, `latency` cycles ago or more, the one that `row` tells of.
        scale_exponent: of the scale register.
        row: constants (`ROW`), `settling` cycles after `take`.
    """

    settling = 4

    clear: Signal
    valid: Signal
    word: Signal
    take: Signal
    scale_exponent: Signal
    row: Any

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self.latency = self.latency_of(lanes)
        super().__init__(
            {
                "clear": In(1),
                "valid": In(1),
                "word": In(16 * lanes),
                "take": In(1),
                "scale_exponent": In(signed(8)),
                "row": Out(ROW),
            }
        )

    @staticmethod
    def latency_of(lanes: int) -> int:
        """From a row's last word until its extremes are known."""
        return sum(Extremes.latencies(lanes))

    def elaborate(self, platform: Any) -> Module:
        """The WTU's extremes and constants, with a register between them."""
        m = Module()
        m.submodules.extremes = extremes = Extremes(self.lanes)
        m.submodules.constants = constants = RowConstants(UNUSED_BUCKETS)
        m.d.comb += [
            extremes.clear.eq(self.clear),
            extremes.valid.eq(self.valid),
            extremes.word.eq(self.word),
            extremes.used.eq(~0),
            constants.scale_exponent.eq(self.scale_exponent),
            self.row.eq(constants.row),
        ]
        with m.If(self.take):
            m.d.sync += [constants.high.eq(extremes.high), constants.exponent.eq(extremes.exponent)]
        return m


class Weigher(wiring.Component):
    """Weights of `exp` of a word of scores, and their sum.

    Args:
        lanes: scores in a word.

    Members:
        row: constants of the row (`RowRange`).
        mantissa: of the scale register.
        scores: BF16.
        weights: 16 bits each, `latency` cycles later; `NAN_WEIGHT` for a NaN.
        sum: of the word's weights, `sum_latency` cycles after its scores.
    """

    latency = 1 + 2 + EXP_STAGES + 1

    row: Any
    mantissa: Signal
    scores: Signal
    weights: Signal
    sum: Signal

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self.sum_latency = self.sum_latency_of(lanes)
        super().__init__(
            {
                "row": In(ROW),
                "mantissa": In(16),
                "scores": In(16 * lanes),
                "weights": Out(16 * lanes),
                "sum": Out(16 + lanes.bit_length() - 1),
            }
        )

    @staticmethod
    def sum_latency_of(lanes: int) -> int:
        """`sum_latency`."""
        return Weigher.latency + tree_stages(lanes)

    def elaborate(self, platform: Any) -> Module:
        """Lanes as the WTU's, and a tree of adders."""
        m = Module()
        # Bit 1 of the shift, done here, and bit 0, done in `exp_weight`, shorten the right shift.
        mantissa = Signal(18, reset_less=True)
        m.d.sync += mantissa.eq(Mux(self.row.exp_shift[1], self.mantissa, self.mantissa << 2))
        sums, table = [], exp_table(m)
        for lane in range(self.lanes):
            if lane and lane % TABLE_PORTS == 0:
                table = exp_table(m)
            weight, nan = self._lane(m, self.scores.word_select(lane, 16), mantissa, table)
            m.d.comb += self.weights.word_select(lane, 16).eq(Mux(nan, NAN_WEIGHT, weight))
            sums.append(Mux(nan, 0, weight))
        m.d.comb += self.sum.eq(reduce_tree(sums, operator.add, m))
        return m

    def _lane(self, m: Module, score: Any, mantissa: Any, table: Memory) -> tuple[Any, Any]:
        """Weight and whether the score is a NaN, `latency` cycles after it."""
        score = delay(m, score, 1, "score")
        nan = delay(m, unpack(score)[3], self.latency - 1, "nan")
        u, _ = integer_form(m, score, self.row.exponent)
        weight = exp_weight(m, u, self.row, mantissa, table)
        return delay(m, weight[:16], 1, "weight"), nan


class RowDivider(wiring.Component):
    """floor(2^40 / sum) of a row's weights, a bit a cycle.

    Args:
        bits: of the sum, which is at least `EXP_ONE`; the quotient of a smaller one is not used.

    Members:
        start: divide.
        sum: at `start`.
        quotient: `cycles` cycles later; stays until the next start.
    """

    cycles = QUOTIENT_BITS + 1

    start: Signal
    sum: Signal
    quotient: Signal

    def __init__(self, bits: int) -> None:
        self.bits = bits
        super().__init__({"start": In(1), "sum": In(bits), "quotient": Out(QUOTIENT_BITS)})

    def elaborate(self, platform: Any) -> Module:
        """Restoring division."""
        m = Module()
        divisor = Signal(self.bits)
        remainder = Signal(self.bits + 1)
        left = Signal(range(QUOTIENT_BITS + 1))
        difference = Signal(self.bits + 2)
        m.d.comb += difference.eq(remainder - divisor)
        fits = ~difference[-1]
        with m.If(left != 0):
            m.d.sync += [
                left.eq(left - 1),
                self.quotient.eq((self.quotient << 1) | fits),
                remainder.eq(Mux(fits, difference, remainder) << 1),
            ]
        with m.If(self.start):
            m.d.sync += [
                divisor.eq(self.sum),
                remainder.eq(1 << RECIPROCAL_BITS - QUOTIENT_BITS + 1),
                left.eq(QUOTIENT_BITS),
            ]
        return m
