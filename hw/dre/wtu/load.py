"""The WTU's intake: beats into words of one score a lane, and what is known of a row so far."""

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from vrex.hw.dre.wtu.lanes import unpack
from vrex.hw.lib.stream import delay, reduce_tree, tree_stages


def ordered(score: Any) -> Any:
    """BF16 bits -> unsigned 16 bits that sort as the scores do."""
    return Mux(score[15], ~score, score | 0x8000)[:16]


def unordered(key: Any) -> Any:
    """Inverse of `ordered`."""
    return Mux(key[15], key & 0x7FFF, ~key)[:16]


class Intake(wiring.Component):
    """Regroups the beats of a field, which starts on a new beat, into words.

    A word passes in the cycle of its last beat; a beat of k words takes k cycles.

    Args:
        beat_bits: width of a beat.
        lanes: items of 16 bits in a word.
        items: longest field.

    Members:
        beats: beats.
        active: a field is being taken.
        whole: the field is the longest.
        last_item: number of the last item of any other field; stays from the cycle before a field on.
        valid, data, number, last: a word, its number in the field, and whether it ends the field.
    """

    def __init__(self, beat_bits: int, lanes: int, items: int) -> None:
        self.beat_bits, self.lanes, self.items = beat_bits, lanes, items
        super().__init__(
            {
                "beats": In(stream.Signature(beat_bits)),
                "active": In(1),
                "whole": In(1),
                "last_item": In(range(items)),
                "valid": Out(1),
                "data": Out(16 * lanes),
                "number": Out(range(max(2, items // lanes))),
                "last": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware."""
        m = Module()
        per_beat = self.beat_bits // 16
        lane_bits = self.lanes.bit_length() - 1
        # Compared a cycle ahead, with both ends: much hangs on whether a word is the last.
        coming, at_end, at_last = Signal.like(self.number), Signal(), Signal()
        m.d.comb += [
            self.last.eq(Mux(self.whole, at_end, at_last)),
            coming.eq(self.number),
        ]
        with m.If(self.valid):
            m.d.comb += coming.eq(Mux(self.last, 0, self.number + 1))
        m.d.sync += [
            self.number.eq(coming),
            at_end.eq(coming == self.items // self.lanes - 1),
            at_last.eq(coming == self.last_item >> lane_bits),
        ]
        if per_beat >= self.lanes:
            self._split(m, per_beat // self.lanes)
        else:
            self._gather(m, self.lanes // per_beat)
        return m

    def _split(self, m: Module, parts: int) -> None:
        """A beat holds `parts` words."""
        part = Signal(range(max(2, parts)))
        m.d.comb += [
            self.valid.eq(self.active & self.beats.valid),
            self.data.eq(self.beats.payload.word_select(part, len(self.data))),
            self.beats.ready.eq(self.active & ((part == parts - 1) | self.last)),
        ]
        with m.If(self.valid):
            m.d.sync += part.eq(Mux(self.beats.ready, 0, part + 1))

    def _gather(self, m: Module, parts: int) -> None:
        """A word takes `parts` beats; the field's last word perhaps fewer."""
        part = Signal(range(parts))
        kept = Signal(len(self.data), reset_less=True)
        last_part = (self.last_item >> (self.beat_bits // 16).bit_length() - 1)[: len(part)]
        ends = (part == parts - 1) | (~self.whole & self.last & (part == last_part))
        m.d.comb += [
            self.beats.ready.eq(self.active),
            self.valid.eq(self.active & self.beats.valid & ends),
            self.data.eq(kept),
            self.data.word_select(part, self.beat_bits).eq(self.beats.payload),
        ]
        with m.If(self.active & self.beats.valid):
            m.d.sync += [
                kept.word_select(part, self.beat_bits).eq(self.beats.payload),
                part.eq(Mux(ends, 0, part + 1)),
            ]


class Extremes(wiring.Component):
    """Largest and smallest score and largest finite exponent of a row, while its words go by.

    Latency `latency` cycles from a word to an exponent that counts it, `late` more to `low` and `high`, whose
    trees have a register after every level.

    Args:
        lanes: scores in a word, a power of two.

    Members:
        clear: forget everything; comes before the row's first word, and after reset.
        valid, first, word: a word, and whether it is the row's first.
        used: the lanes that belong to the row, one cycle after their word.
        low, high: the smallest and largest score that is not NaN.
        exponent: biased, at least 1.
        raised: a word other than the first has raised the exponent one cycle before.
    """

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self.latency = 3 + tree_stages(lanes)
        self.late = tree_stages(lanes, 1) - tree_stages(lanes)
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

    def elaborate(self, platform: Any) -> Module:
        """Hardware."""
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
        lowest, highest = Signal(16, reset_less=True), Signal(16, reset_less=True)
        low = Mux(low < lowest, low, lowest)
        high = Mux(high > highest, high, highest)
        with m.If(delay(m, valid, self.late, "valid", reset=True)):
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
