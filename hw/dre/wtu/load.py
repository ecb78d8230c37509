"""How the WTU loads a row: from beats to words of one score a lane, and the constants of the whole row."""

from typing import Any

from amaranth import C, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from vrex.hw.dre.wtu.lanes import bin_of, integer_form, unpack
from vrex.hw.dre.wtu.layouts import (
    BIN_BITS,
    CODE_BITS,
    EXP_SHIFT_BITS,
    ROW,
    U_BITS,
    loaded_layout,
)
from vrex.hw.lib.float32 import saturate
from vrex.hw.lib.stream import delay, reduce_tree, tree_stages
from vrex.model.dre import wtu as model

ROW_BIAS = 127 + model.FRACTION_BITS + 15 - model.EXP_INDEX_BITS
"""Shift of `exp`, from which the exponents of the row and of the scale are subtracted."""

BUCKET_WAIT = 2
"""Cycles by which a row's `bucket_shift` follows the other constants that the lanes use."""


def ordered(score: Any) -> Any:
    """BF16 bits -> unsigned 16 bits that sort as the scores do."""
    return Mux(score[15], ~score, score | 0x8000)[:16]


def unordered(key: Any) -> Any:
    """Inverse of `ordered`."""
    return Mux(key[15], key & 0x7FFF, ~key)[:16]


class Intake(wiring.Component):
    """Regroups the beats of a field, which starts on a new beat, into words.

    A word leaves in the cycle of its last beat; a beat of k words takes k cycles.

    Args:
        beat_bits: width of a beat.
        lanes: items of 16 bits in a word.
        items: longest field.

    Members:
        beats: beats of the field.
        active: a field is being taken.
        whole: the field has `items` items.
        last_item: number of the last item of any other field; stable from the cycle before a field on.
        word: a word (`loaded_layout`).
    """

    beats: stream.Interface
    active: Signal
    whole: Signal
    last_item: Signal
    word: data.View

    def __init__(self, beat_bits: int, lanes: int, items: int) -> None:
        self.beat_bits, self.lanes, self.items = beat_bits, lanes, items
        super().__init__(
            {
                "beats": In(stream.Signature(beat_bits)),
                "active": In(1),
                "whole": In(1),
                "last_item": In(range(items)),
                "word": Out(loaded_layout(lanes, items // lanes)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """A counter of words, and what splits or gathers beats."""
        m = Module()
        per_beat = self.beat_bits // 16
        lane_bits = self.lanes.bit_length() - 1
        word, number = self.word, Signal(range(max(2, self.items // self.lanes)), name="number")
        # Both candidates for the last word are compared a cycle ahead, because of the fan-out of `last`.
        next_number = Signal.like(number, name="next_number")
        at_end = Signal()
        at_last = Signal()
        m.d.comb += [
            word.number.eq(number),
            word.last.eq(Mux(self.whole, at_end, at_last)),
            next_number.eq(number),
        ]
        with m.If(word.valid):
            m.d.comb += next_number.eq(Mux(word.last, 0, number + 1))
        m.d.sync += [
            number.eq(next_number),
            at_end.eq(next_number == self.items // self.lanes - 1),
            at_last.eq(next_number == self.last_item >> lane_bits),
        ]
        if per_beat >= self.lanes:
            self._split(m, per_beat // self.lanes)
        else:
            self._gather(m, self.lanes // per_beat)
        return m

    def _split(self, m: Module, parts: int) -> None:
        """A beat holds `parts` words."""
        word = self.word
        part = Signal(range(max(2, parts)))
        m.d.comb += [
            word.valid.eq(self.active & self.beats.valid),
            word.data.eq(self.beats.payload.word_select(part, 16 * self.lanes)),
            self.beats.ready.eq(self.active & ((part == parts - 1) | word.last)),
        ]
        with m.If(word.valid):
            m.d.sync += part.eq(Mux(self.beats.ready, 0, part + 1))

    def _gather(self, m: Module, parts: int) -> None:
        """A word takes `parts` beats; the field's last word may take fewer."""
        word = self.word
        part = Signal(range(parts))
        collected = Signal(16 * self.lanes, reset_less=True)
        last_part = (self.last_item >> (self.beat_bits // 16).bit_length() - 1)[: len(part)]
        ends = (part == parts - 1) | (~self.whole & word.last & (part == last_part))
        m.d.comb += [
            self.beats.ready.eq(self.active),
            word.valid.eq(self.active & self.beats.valid & ends),
            word.data.eq(collected),
            word.data.word_select(part, self.beat_bits).eq(self.beats.payload),
        ]
        with m.If(self.active & self.beats.valid):
            m.d.sync += [
                collected.word_select(part, self.beat_bits).eq(self.beats.payload),
                part.eq(Mux(ends, 0, part + 1)),
            ]


class Extremes(wiring.Component):
    """Smallest and largest score and largest finite exponent of a row, as its words pass.

    A word counts in `exponent` after `latency` cycles, in `low` and `high`, whose trees have a register after
    every level, `extra_latency` cycles later.

    Args:
        lanes: scores in a word, a power of two.

    Members:
        clear: forgets the row; needed before a row's first word, and after reset.
        valid, first, word: a word, and whether it is the row's first.
        used: the lanes that belong to the row, one cycle after their word.
        low, high: the smallest and largest score that is not NaN, BF16.
        exponent: biased, at least 1.
        raised: a word other than the first raised the exponent one cycle before.
    """

    clear: Signal
    valid: Signal
    first: Signal
    word: Signal
    used: Signal
    low: Signal
    high: Signal
    exponent: Signal
    raised: Signal

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self.latency, self.extra_latency = self.latencies(lanes)
        super().__init__(
            {
                "clear": In(1),
                "valid": In(1),
                "first": In(1),
                "word": In(16 * lanes),
                "used": In(lanes),
                "low": Out(16),
                "high": Out(16),
                "exponent": Out(8),
                "raised": Out(1),
            }
        )

    @staticmethod
    def latencies(lanes: int) -> tuple[int, int]:
        """`latency` and `extra_latency`."""
        return 3 + tree_stages(lanes), tree_stages(lanes, 1) - tree_stages(lanes)

    def elaborate(self, platform: Any) -> Module:
        """Three trees over the lanes, and the extremes of the words before."""
        m = Module()
        lows, highs, exponents = [], [], []
        word = delay(m, self.word, 1, "word")
        for lane in range(self.lanes):
            score = word.word_select(lane, 16)
            exponent, _, special, nan = unpack(score)
            key = ordered(score)
            used = self.used[lane] & ~nan
            lows.append(delay(m, Mux(used, key, 0xFFFF)[:16], 1, "low"))
            highs.append(delay(m, Mux(used, key, 0)[:16], 1, "high"))
            exponents.append(delay(m, Mux(used & ~special, exponent, 1)[:8], 1, "exponent"))
        low = reduce_tree(lows, lambda a, b: Mux(b < a, b, a), m, 1)
        high = reduce_tree(highs, lambda a, b: Mux(b > a, b, a), m, 1)
        exponent = reduce_tree(exponents, lambda a, b: Mux(b > a, b, a), m)
        valid = delay(m, self.valid, self.latency - 1, "valid", reset=True)
        first = delay(m, self.first, self.latency - 1, "first")
        raised = valid & (exponent > self.exponent)
        m.d.sync += self.raised.eq(raised & ~first & ~self.clear)
        lowest = Signal(16, reset_less=True)
        highest = Signal(16, reset_less=True)
        low = Mux(low < lowest, low, lowest)
        high = Mux(high > highest, high, highest)
        with m.If(delay(m, valid, self.extra_latency, "valid", reset=True)):
            m.d.sync += [
                lowest.eq(low),
                highest.eq(high),
                self.low.eq(unordered(low)),
                self.high.eq(unordered(high)),
            ]
        with m.If(raised):
            m.d.sync += self.exponent.eq(exponent)
        with m.If(self.clear):
            m.d.sync += [lowest.eq(0xFFFF), highest.eq(0), self.exponent.eq(1)]
        return m


class RowConstants(wiring.Component):
    """What the lanes need to know of a whole row, from its extremes.

    `exponent` is passed on as it is. `exp_shift` follows the extremes by one cycle, u by two, `top_code` by
    three, `bucket_shift` and `top_bin` by four, `top_bin` of buckets by five.

    Args:
        buckets: of selection `bucket`.

    Members:
        low, high, exponent: see `Extremes`.
        scale_exponent, by_bucket: the rule.
        row: the constants (`ROW`).
        top_code, top_bin: order code of the largest score, and its bin, or bucket from the top.
    """

    low: Signal
    high: Signal
    exponent: Signal
    scale_exponent: Signal
    by_bucket: Signal
    row: data.View
    top_code: Signal
    top_bin: Signal

    def __init__(self, buckets: int) -> None:
        self.buckets = buckets
        super().__init__(
            {
                "low": In(16),
                "high": In(16),
                "exponent": In(8),
                "scale_exponent": In(signed(8)),
                "by_bucket": In(1),
                "row": Out(ROW),
                "top_code": Out(CODE_BITS),
                "top_bin": Out(BIN_BITS),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Two converters to integer form, a priority encoder of their span, and the shift of `exp`."""
        m = Module()
        low, _ = integer_form(m, self.low, self.exponent)
        high, code = integer_form(m, self.high, self.exponent)
        digit_bits = self.buckets.bit_length() - 1
        span = delay(m, (high - low)[:U_BITS], 1, "span")
        shift: Any = 0
        for bit in range(digit_bits, U_BITS):
            shift = Mux(span[bit], bit + 1 - digit_bits, shift)
        without_row = delay(m, ROW_BIAS - self.scale_exponent, 1, "without_row")
        exp_shift = without_row - self.exponent
        exp_shift = Mux(exp_shift[-1], 0, saturate(exp_shift[:-1], EXP_SHIFT_BITS))
        row = self.row
        m.d.comb += [
            row.exponent.eq(self.exponent),
            row.u_low.eq(low),
            row.u_high.eq(high),
            row.bucket_shift.eq(delay(m, C(0, 5) | shift, 1, "bucket_shift")),
            row.exp_shift.eq(delay(m, exp_shift[:EXP_SHIFT_BITS], 1, "exp_shift")),
        ]
        top_bucket = ~(span >> row.bucket_shift)[:digit_bits]
        m.d.sync += [
            self.top_code.eq(code),
            self.top_bin.eq(Mux(self.by_bucket, top_bucket, bin_of(self.top_code))),
        ]
        return m
