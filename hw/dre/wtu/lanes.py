"""Lanes of the WTU: from scores and token counts to weights, bins and flags (model `vrex.model.dre.wtu`)."""

from typing import Any

from amaranth import C, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from vrex.hw.dre.wtu.layouts import (
    BIN_BITS,
    CODE_BITS,
    PASS,
    PRODUCT_BITS,
    ROW,
    U_BITS,
    Purpose,
    entry_layout,
)
from vrex.hw.lib.float32 import saturate
from vrex.hw.lib.stream import delay
from vrex.model.dre import wtu as model

SHIFT_BITS = 5
"""A score is shifted right by up to 31 bits, which leave only its sign."""

LINEAR_LATENCY = 6
"""Cycles from a word's number to its bins: memory, integer form (3), weight, product."""

TABLE_PORTS = 2
"""Lanes that share a table of `exp`: block memories have two ports."""

EXP_STAGES = 4
"""Additional cycles of an `exp` weight."""

LANE_GROUP = 4
"""The fewest lanes that share a copy of the broadcast registers; a single copy would route too far."""


def lane_groups(lanes: int) -> int:
    """Groups of lanes with their own copy of `row`, the rule and `compare`, one cycle after the other."""
    return min(2, -(-lanes // LANE_GROUP))


def broadcast_layout(lanes: int) -> data.StructLayout:
    """Control bits of all lanes of a group, decoded from the rule and from `PASS`."""
    return data.StructLayout(
        {
            "raw": 1,
            "exponential": 1,
            "mantissa": 18,
            "by_bucket": 1,
            "ones": 1,
            "tail": range(max(2, lanes)),
            "first": 1,
            "second": 1,
            "whole": 1,
            "cut": BIN_BITS,
            "limit": CODE_BITS,
            "coarse": 1,
        }
    )


def pipe(m: Module, entry: Any, cycles: int, flush: Any = 0) -> Any:
    """Delays a pipeline entry by `cycles`; a flush drops it."""
    layout = entry.shape()
    for _ in range(cycles):
        delayed: Any = Signal(layout, name="entry")
        m.d.sync += delayed.eq(entry)
        with m.If(flush):
            m.d.sync += [delayed.valid.eq(0), delayed.last.eq(0)]
        entry = delayed
    return entry


def unpack(score: Any) -> tuple[Any, Any, Any, Any]:
    """BF16 bits -> (biased exponent >= 1, signed fixed-point value at that exponent, special, NaN)."""
    exponent, fraction = score[7:15], score[:7]
    special = exponent.all()
    magnitude = Cat(C(0, 7), fraction, exponent.any())
    fixed = Mux(score[15], -magnitude, magnitude)
    saturated = Mux(score[15], C(-(1 << 15), signed(16)), C((1 << 15) - 1, signed(16)))
    value = Mux(special, saturated, fixed)[:U_BITS].as_signed()
    return Cat(exponent[0] | ~exponent.any(), exponent[1:]), value, special, special & fraction.any()


def integer_form(m: Module, score: Any, row_exponent: Any) -> tuple[Any, Any]:
    """BF16 bits -> u, signed 16 bits, and order code (`model.order_code`), both two cycles later."""
    exponent, value, special, _ = unpack(score)
    distance = (row_exponent - exponent)[:8]
    shift = Mux(special, 0, saturate(distance, SHIFT_BITS))
    shifted = delay(m, value, 1, "value") >> delay(m, shift, 1, "shift")
    u = delay(m, shifted[:U_BITS].as_signed(), 1, "u")
    significand = Cat(score[:7], score[7:15].any())
    near = special | (distance < model.NEAR)
    octave = (~distance[:3] + significand[7])[:4]
    magnitude = Mux(significand.any(), Cat(score[:7], octave), 0)
    magnitude = delay(m, Mux(special, model.ORDER_ZERO, magnitude)[: CODE_BITS - 1], 1, "magnitude")
    negative = delay(m, score[15], 1, "sign")
    code = Mux(negative, model.ORDER_ZERO + magnitude, model.ORDER_ZERO - magnitude)[:CODE_BITS]
    code = delay(m, code, 1, "near_code")
    return u, Mux(delay(m, near, 2, "near"), code, model.ORDER_ZERO - u)[:CODE_BITS]


def bin_of(code: Any) -> Any:
    """`model.order_bin` of a code."""
    coarse = code[model.COARSE_BITS : CODE_BITS] + (
        (model.FINE_CODES >> model.FINE_BITS) - (model.FINE_CODES >> model.COARSE_BITS)
    )
    return Mux(code < model.FINE_CODES, code[model.FINE_BITS :], coarse)[:BIN_BITS]


def digit_of(code: Any) -> Any:
    """A code's position within its bin."""
    return Mux(code < model.FINE_CODES, code[: model.FINE_BITS], code[: model.COARSE_BITS])[:BIN_BITS]


def first_code(number: Any) -> Any:
    """The first code of a bin."""
    fine = model.FINE_CODES >> model.FINE_BITS
    coarse = (number - (fine - (model.FINE_CODES >> model.COARSE_BITS)))[:BIN_BITS] << model.COARSE_BITS
    return Mux(number < fine, number << model.FINE_BITS, coarse)[:CODE_BITS]


def exp_table(m: Module) -> Memory:
    """A copy of the table of `exp`."""
    words = [int(word) for word in model.EXP_TABLE]
    table: Memory = Memory(shape=16, depth=len(words), init=words)
    m.submodules += table
    return table


def exp_weight(m: Module, u: Any, row: Any, mantissa: Any, table: Memory) -> Any:
    """Weight of `exp`, `EXP_STAGES` cycles after u.

    Args:
        m: module.
        u: a score in integer form.
        row: constants of the row (`ROW`).
        mantissa: of the scale, times 4 if bit 1 of `row.exp_shift` is 0.
        table: of `exp`, with a port to spare.
    """
    below_high = (row.u_high - u)[:U_BITS]
    shift = row.exp_shift
    below_high = delay(m, Mux(shift[0], below_high, below_high << 1), 1, "below_high")
    scaled = delay(m, below_high * mantissa, 1, "scaled")
    shifted = delay(m, scaled[3:] >> (shift[2:] << 2), 1, "shifted")
    port = table.read_port()
    m.d.comb += port.addr.eq(shifted[: model.EXP_INDEX_BITS])
    saturated_bits = model.EXP_SATURATED.bit_length() - 1
    power = delay(m, shifted[model.EXP_INDEX_BITS : saturated_bits], 1, "power")
    saturated = delay(m, shifted[saturated_bits:].any(), 1, "saturated")
    return Mux(saturated, 0, port.data >> power)


class Lanes(wiring.Component):
    """Weighs, classifies and compares one word of scores a cycle.

    An entry that enters in cycle i leaves in cycle i + `LINEAR_LATENCY`, under `exp` `EXP_STAGES` later.

    Args:
        lanes: scores in a word, a power of two.
        words: of a tile.
        buckets: of selection `bucket`.

    Members:
        i, o: entry of a word.
        flush: drops every entry in the pipeline, but not the one that enters.
        partial, last_word, tail: whether the word of that number ends before lane `tail`.
        scores: the word's scores, one cycle after its entry.
        count_word, counts: number of a word whose token counts are read, and they, one cycle later.
        transform, scale_mantissa, by_bucket, ones: the rule; `ones` makes every product 1.
        row, compare: see `ROW` and `PASS`; the last group of lanes sees `row` `lane_groups(lanes)` - 1
            cycles late, and the rule and `compare` one cycle later.
        digit: with `o`: each lane's bin, or, in the second pass, its code's position within the bin.
        gate: with `o`: lanes whose products count: all used ones, those in the bin of the crossing, or those
            whose code equals the crossing's.
        product: weight x token count of these lanes, 0 of the others; one cycle after `o`.
        above: lanes that are selected whatever the sums say; one cycle after `o`.
    """

    i: data.View
    o: data.View
    flush: Signal
    partial: Signal
    last_word: Signal
    tail: Signal
    scores: Signal
    count_word: Signal
    counts: Signal
    transform: Signal
    scale_mantissa: Signal
    by_bucket: Signal
    ones: Signal
    row: data.View
    compare: data.View
    digit: list[Signal]
    gate: Signal
    product: list[Signal]
    above: Signal

    def __init__(self, lanes: int, words: int, buckets: int) -> None:
        self.lanes, self.buckets = lanes, buckets
        entry = entry_layout(words)
        super().__init__(
            {
                "i": In(entry),
                "o": Out(entry),
                "flush": In(1),
                "partial": In(1),
                "last_word": In(range(max(2, words))),
                "tail": In(range(max(2, lanes))),
                "scores": In(16 * lanes),
                "count_word": Out(range(max(2, words))),
                "counts": In(16 * lanes),
                "transform": In(2),
                "scale_mantissa": In(16),
                "by_bucket": In(1),
                "ones": In(1),
                "row": In(ROW),
                "compare": In(PASS),
                "digit": Out(BIN_BITS).array(lanes),
                "gate": Out(lanes),
                "product": Out(signed(PRODUCT_BITS)).array(lanes),
                "above": Out(lanes),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """The pipeline of entries, copies of the broadcast registers for each group, and the lanes."""
        m = Module()
        shared: Any = self._broadcast(m)
        row: Any = self.row
        layout = self.i.shape()
        # What enters in the cycle of `flush` is the first word of the restarted pass.
        stages = [pipe(m, self.i, 1)]
        for _ in range(LINEAR_LATENCY - 2 + EXP_STAGES - 1):
            stages.append(pipe(m, stages[-1], 1, self.flush))
        linear, exponential = LINEAR_LATENCY - 3, LINEAR_LATENCY - 3 + EXP_STAGES
        chosen: Any = data.View(layout, Mux(shared.exponential, stages[exponential], stages[linear]))
        count_word = Mux(shared.exponential, stages[exponential - 1].word, stages[linear - 1].word)
        m.d.comb += [self.o.eq(pipe(m, chosen, 2, self.flush)), self.count_word.eq(count_word)]
        # Whether the word that is in stages[1] ends early.
        ends_early = delay(m, self.partial & (stages[0].word == self.last_word), 1, "ends_early")
        table = exp_table(m)
        for lane in range(self.lanes):
            if lane and lane % TABLE_PORTS == 0:
                table = exp_table(m)
            if lane and lane % (self.lanes // lane_groups(self.lanes)) == 0:
                shared, row = self._copy(m, shared, "shared"), self._copy(m, row, "row")
            used = stages[1].valid & (~ends_early | (lane < shared.tail))
            self._lane(m, lane, shared, row, used, table)
        return m

    def _broadcast(self, m: Module) -> Any:
        """Decoded control bits, registered, for the first group of lanes."""
        compare = self.compare
        second = compare.purpose == Purpose.SECOND
        shared: Any = Signal(broadcast_layout(self.lanes), reset_less=True)
        m.d.sync += [
            shared.raw.eq(self.transform == model.Transform.RAW.value),
            shared.exponential.eq(self.transform == model.Transform.EXP.value),
            # Bit 1 of the shift of `exp`, done here, and bit 0, in `exp_weight`, shorten the right shift.
            shared.mantissa.eq(Mux(self.row.exp_shift[1], self.scale_mantissa, self.scale_mantissa << 2)),
            shared.by_bucket.eq(self.by_bucket),
            shared.ones.eq(self.ones),
            shared.tail.eq(self.tail),
            shared.first.eq(compare.purpose == Purpose.FIRST),
            shared.second.eq(second),
            shared.whole.eq(compare.whole),
            shared.cut.eq(compare.cut),
            shared.limit.eq(compare.limit),
            shared.coarse.eq(second & (compare.limit >= model.FINE_CODES)),
        ]
        return shared

    @staticmethod
    def _copy(m: Module, value: Any, name: str) -> Any:
        """A registered copy for the next group of lanes."""
        copy = Signal(value.shape(), name=name, reset_less=True)
        m.d.sync += copy.eq(value)
        return copy

    def _lane(self, m: Module, lane: int, shared: Any, row: Any, used: Any, table: Memory) -> None:
        """One lane.

        Args:
            m: module.
            lane: its number.
            shared: the group's control bits (`broadcast_layout`).
            row: the group's copy of `row`.
            used: whether the score belongs to the row, with the score's register.
            table: of `exp`.
        """

        def align(value: Any, name: str) -> Any:
            """Delays what is known with a score's u to one cycle before the score's product is made."""
            return delay(m, Mux(shared.exponential, delay(m, value, EXP_STAGES, name), value), 1, name)

        score = delay(m, self.scores.word_select(lane, 16), 1, "score")
        used = delay(m, used & ~unpack(score)[3], 2, "used")
        u, code = integer_form(m, score, row.exponent)
        above_low = (u - row.u_low)[:U_BITS]
        weight = Signal(signed(U_BITS + 1), name="weight", reset_less=True)
        linear = Mux(shared.raw, u, above_low)
        m.d.sync += weight.eq(Mux(shared.exponential, exp_weight(m, u, row, shared.mantissa, table), linear))
        count = Signal(16, name="count", reset_less=True)
        m.d.sync += count.eq(self.counts.word_select(lane, 16))
        with m.If(shared.ones):
            m.d.sync += [weight.eq(1), count.eq(1)]
        # A bucket's number is shifted right in two steps: here by multiples of 4, in `_compare` by the rest.
        shifted = (above_low >> (row.bucket_shift[2:] << 2))[: self.buckets.bit_length() + 2]
        bucket = ~(align(shifted, "shifted") >> row.bucket_shift[:2])[: self.buckets.bit_length() - 1]
        self._compare(m, lane, shared, align(used, "used"), align(code, "code"), bucket)
        product = delay(m, weight * count, 1, "product")
        m.d.sync += self.product[lane].eq(Mux(self.gate[lane], product, 0))

    def _compare(self, m: Module, lane: int, shared: Any, used: Any, code: Any, bucket: Any) -> None:
        """Bin and flags of a lane.

        Args:
            m: module.
            lane: its number.
            shared: the group's control bits.
            used: whether the score counts.
            code: its order code.
            bucket: its bucket, counted from the top one as bins are.
        """
        number = Mux(shared.by_bucket, bucket, bin_of(code))[:BIN_BITS]
        # The second pass compares only the bits that tell bins apart, the final pass compares all bits.
        differs = code ^ shared.limit
        within_fine, within_coarse = differs[: model.FINE_BITS], differs[model.FINE_BITS : model.COARSE_BITS]
        equal = ~differs[model.COARSE_BITS :].any()
        equal &= ~within_coarse.any() | shared.coarse
        equal &= ~within_fine.any() | shared.second
        m.d.sync += [
            self.digit[lane].eq(Mux(shared.second, digit_of(code), number)),
            self.gate[lane].eq(used & (shared.first | (equal & ~shared.whole))),
        ]
        above = ~shared.first & (delay(m, code, 1, "code") < shared.limit)
        in_whole = ~shared.by_bucket | (self.digit[lane] <= shared.cut)
        m.d.sync += self.above[lane].eq(delay(m, used, 1, "used") & Mux(shared.whole, in_whole, above))
