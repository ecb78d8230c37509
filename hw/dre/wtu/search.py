"""How the WTU finds the cluster at which the threshold is passed: sums of bins, their scan, and ties."""

import operator
from collections.abc import Sequence
from typing import Any

from amaranth import C, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from vrex.hw.dre.wtu.lanes import BIN_BITS, BINS, PRODUCT_BITS, pipe, token_layout
from vrex.hw.lib.stream import LEVELS_PER_STAGE, delay, reduce_tree, tree_stages

SCAN = 4
"""Bins summed over the lanes and looked at in one cycle."""

SCANS = BINS // SCAN
"""Cycles to look at all bins."""

FAN_IN = 1 << LEVELS_PER_STAGE
"""Values joined between two registers of a tree."""


def scan_latency(lanes: int) -> int:
    """Cycles from a scan's first group of bins to its result, if the crossing is among them."""
    return tree_stages(lanes) + 5


def tie_latency(lanes: int) -> int:
    """Cycles from a word's products to the bits it adds to the bitmask."""
    return max(1, 3 * tree_stages(lanes) - 1)


def running_sums(values: Sequence[Any]) -> list[Any]:
    """Sums of the first one, two, ... values; depth grows with the logarithm."""
    if len(values) < 2:
        return list(values)
    half = (len(values) + 1) // 2
    left, right = running_sums(values[:half]), running_sums(values[half:])
    return left + [left[-1] + value for value in right]


def first_of(hits: Any) -> Any:
    """Number of the lowest bit that is set, of a power of two; if there is none, of the highest bit."""
    if len(hits) <= 2:
        return ~hits[: len(hits) - 1]
    half = len(hits) // 2
    low = hits[:half]
    return Cat(Mux(low.any(), first_of(low), first_of(hits[half:])), ~low.any())


def _held(m: Module, value: Any, enable: Any, name: str) -> Any:
    """`value` of the last cycle in which `enable` was high."""
    held = Signal.like(value, name=f"found_{name}", reset_less=True)
    with m.If(enable):
        m.d.sync += held.eq(value)
    return held


class Histogram(wiring.Component):
    """Sums of products by lane and bin, in `SCAN` banks, and totals over the lanes, `SCAN` bins at a time.

    A product counts from three cycles later on; totals follow their group's number two cycles later than
    `tree_stages(lanes)` says.

    Args:
        lanes: products in a word.
        bits: of a lane's sum.

    Members:
        clear: all sums become 0; needed after reset.
        add, digit, product: lanes that count, their bins, and one cycle later their products.
        scan, group, group_bit: look at bins group * `SCAN` and following; nothing may be added meanwhile. The
            group's number goes to all memories, its bit to all marks.
        totals: of these bins.
    """

    def __init__(self, lanes: int, bits: int) -> None:
        self.lanes, self.bits = lanes, bits
        super().__init__(
            {
                "clear": In(1),
                "add": In(lanes),
                "digit": In(BIN_BITS).array(lanes),
                "product": In(signed(PRODUCT_BITS)).array(lanes),
                "scan": In(1),
                "group": In(range(SCANS)),
                "group_bit": In(SCANS),
                "totals": Out(signed(bits + lanes.bit_length() - 1)).array(SCAN),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware."""
        m = Module()
        by_lane = [self._lane(m, lane) for lane in range(self.lanes)]
        for total, sums in zip(self.totals, zip(*by_lane, strict=True), strict=True):
            m.d.comb += total.eq(reduce_tree(sums, operator.add, m))
        return m

    def _lane(self, m: Module, lane: int) -> list[Any]:
        """One lane; returns its sums of the bins that are looked at, two cycles after their number."""
        bank_bits = SCAN.bit_length() - 1
        m.submodules += (memory := Memory(shape=SCAN * self.bits, depth=SCANS, init=[]))
        port, write = memory.read_port(), memory.write_port(granularity=self.bits)
        # A sum is read, put aside, and added to; so two products may be on their way to the same sum.
        steps = [(self.add[lane], self.digit[lane])]
        for name in ("reading", "adding", "added"):
            add, digit = steps[-1]
            steps.append(
                (delay(m, add & ~self.clear, 1, name, reset=True), delay(m, digit, 1, f"{name}_digit"))
            )
        (_, asked), (reading, digit), (adding, last_digit), _ = steps
        again = delay(m, reading & ~self.clear & (asked == digit), 1, "again", reset=True)
        after_next = delay(m, adding & ~self.clear & (asked == last_digit), 1, "after_next", reset=True)
        bank, entry = last_digit[:bank_bits], last_digit[bank_bits:]
        m.d.comb += port.addr.eq(Mux(self.scan, self.group, asked[bank_bits:]))
        sums, marks = [], []
        for index in range(SCAN):
            # Marks instead of clearing: a sum that was not written since `clear` counts as 0.
            known, added = Signal(SCANS, name="known", reset_less=True), adding & (bank == index)
            m.d.comb += write.en[index].eq(added)
            # All bits are written in every cycle: an enable for each would cost a net of the placement a bit.
            m.d.sync += known.eq(known | (added << entry))
            with m.If(self.clear):
                m.d.sync += known.eq(0)
            marks.append(delay(m, known.bit_select(asked[bank_bits:], 1), 1, "marks"))
            seen = delay(m, (known & self.group_bit).any(), 1, "seen")
            total = Mux(seen, port.data.word_select(index, self.bits), 0)
            sums.append(delay(m, total[: self.bits].as_signed(), 1, "sum"))
        old, new = Signal(signed(self.bits), name="old"), Signal(signed(self.bits), name="new")
        stored = port.data.word_select(digit[:bank_bits], self.bits).as_signed()
        m.d.sync += old.eq(Mux(again, new, Mux(after_next, delay(m, new, 1, "last_new"), stored)))
        mark = Cat(marks).bit_select(digit[:bank_bits], 1)
        # Only the marks of the two products right before are not there yet.
        mark = delay(m, again | after_next | mark, 1, "mark")
        m.d.comb += [
            new.eq(Mux(mark, old, 0) + delay(m, self.product[lane], 1, "product")),
            write.addr.eq(entry),
            write.data.eq(new.replicate(SCAN)),
        ]
        return sums


class Crossing(wiring.Component):
    """Adds up the bins from the first one on and finds the one at which the sum exceeds `remaining`.

    Args:
        lanes: of the histogram.
        bits: of a sum over all bins, signed.

    Members:
        start: look at the bins from the next cycle on.
        stop: give up, with `done`.
        remaining: what has to be exceeded, while the first totals are compared: `tree_stages` + 4 cycles
            after the start.
        scan, group, group_bit, totals: the histogram.
        ends, cut: for one cycle, `scan_latency` cycles after the start and one more for each further group,
            the scan ends; number of the bin, or of the last one.
        done, found, bin, left: one cycle later; whether there is one, its number, and another cycle later
            `remaining` less the bins before it.
    """

    def __init__(self, lanes: int, bits: int) -> None:
        self.lanes, self.bits = lanes, bits
        super().__init__(
            {
                "start": In(1),
                "stop": In(1),
                "remaining": In(signed(bits)),
                "scan": Out(1),
                "group": Out(range(SCANS)),
                "group_bit": Out(SCANS, init=1),
                "totals": In(signed(bits)).array(SCAN),
                "ends": Out(1),
                "cut": Out(BIN_BITS),
                "done": Out(1),
                "found": Out(1),
                "bin": Out(BIN_BITS),
                "left": Out(signed(bits)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware."""
        m = Module()
        running = Signal()
        m.d.comb += self.scan.eq(running)
        with m.If(self.start):
            m.d.sync += running.eq(1)
        with m.If(running):
            m.d.sync += [
                running.eq(self.group != SCANS - 1),
                self.group.eq(self.group + 1),
                self.group_bit.eq(self.group_bit.rotate_left(1)),
            ]
        token = Signal(token_layout(SCANS))
        m.d.comb += [
            token.valid.eq(self.scan),
            token.word.eq(self.group),
            token.mark.eq(self.group == SCANS - 1),
        ]
        token = pipe(m, token, tree_stages(self.lanes) + 2, self.ends)
        first = delay(m, token.word == 0, 1, "first")
        token = pipe(m, token, 1, self.ends)
        sums = [delay(m, total[: self.bits].as_signed(), 1, "sum") for total in running_sums(self.totals)]
        left = Signal(signed(self.bits))
        before = Mux(first, self.remaining, left)
        after = [(before - total)[: self.bits].as_signed() for total in sums]
        m.d.sync += left.eq(after[-1])
        hits = delay(m, Cat(value[-1] for value in after), 1, "hits")
        lefts = [delay(m, value, 2, "left") for value in (before, *after[:-1])]
        picked = pipe(m, token, 1, self.ends)
        place = first_of(hits)
        m.d.comb += [
            self.ends.eq(self.stop | (picked.valid & (hits.any() | picked.mark))),
            self.cut.eq(Cat(place, picked.word)),
        ]
        m.d.sync += [self.done.eq(self.ends), self.found.eq(hits.any())]
        with m.If(picked.valid):
            m.d.sync += self.bin.eq(self.cut)
        with m.If(self.done):
            m.d.sync += self.left.eq(Cat(lefts).word_select(self.bin[: len(place)], self.bits).as_signed())
        with m.If(self.ends):
            m.d.sync += [running.eq(0), self.group.eq(0), self.group_bit.eq(1)]
        return m


class Finder(wiring.Component):
    """Remembers the first bin of every word, and finds the words that reach a bin, one a cycle.

    Groups of words are looked at together; a group without one takes a cycle.

    Args:
        words: of a row.

    Members:
        write, write_word, write_void, write_bin: a word, and that nothing in it counts, or its first bin.
        start, cut: find the words whose first bin is `cut` or before.
        last_word: number of the row's last word.
        valid, word, mark: a word from three cycles after the start on; `mark` with the last, or alone after
            it.
    """

    def __init__(self, words: int) -> None:
        self.words, self.group = words, min(16, words)
        super().__init__(
            {
                "write": In(1),
                "write_word": In(range(max(2, words))),
                "write_void": In(1),
                "write_bin": In(BIN_BITS),
                "start": In(1),
                "cut": In(BIN_BITS),
                "last_word": In(range(max(2, words))),
                "valid": Out(1),
                "word": Out(range(max(2, words))),
                "mark": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware."""
        m = Module()
        groups, place_bits = self.words // self.group, self.group.bit_length() - 1
        entry = data.StructLayout({"bin": BIN_BITS, "void": 1})
        m.submodules.memory = memory = Memory(shape=entry.size * self.group, depth=groups, init=[])
        read, write = memory.read_port(), memory.write_port(granularity=entry.size)
        # The group whose entries have been read, and the one that is read next.
        number, ahead = Signal(range(max(2, groups))), Signal(range(max(2, groups)), init=1)
        active, cut = Signal(), Signal(BIN_BITS)
        first = delay(m, self.start, 1, "first", reset=True)
        second = delay(m, first, 1, "second", reset=True)
        # Words that have been found, the first one's bit and number, whether at most one is left, and whether
        # a group comes after them.
        pending, low, single = Signal(self.group), Signal(self.group), Signal(init=1)
        lowest, base, more = Signal(place_bits), Signal.like(number), Signal()
        take = second | (more & single)
        step = first | take
        m.d.comb += [
            write.addr.eq(self.write_word >> place_bits),
            write.data.eq(Cat(self.write_bin, self.write_void).replicate(self.group)),
            write.en.bit_select(self.write_word[:place_bits], 1).eq(self.write),
            read.addr.eq(Mux(active, ahead, 0)),
            read.en.eq(step | ~active),
        ]
        last_group = number == self.last_word >> place_bits
        hits = Signal(self.group)
        for place in range(self.group):
            word = data.View(entry, read.data.word_select(place, entry.size))
            there = ~last_group | (place <= self.last_word[:place_bits])
            m.d.comb += hits[place].eq(~word.void & (word.bin <= cut) & there)
        found = {"hits": hits, "base": number, "more": ~last_group}
        with m.If(step):
            m.d.sync += [number.eq(number + 1), ahead.eq(ahead + 1)]
        found = {name: _held(m, value, step, name) for name, value in found.items()}
        rest = Mux(take, found["hits"], pending & ~low)
        # Of both possibilities at once, since it takes long.
        more_than_one = [(bits & (bits - 1)[: self.group]).any() for bits in (pending & ~low, found["hits"])]
        m.d.sync += [
            pending.eq(rest),
            low.eq(rest & ~(rest - 1)[: self.group]),
            lowest.eq(first_of(rest)),
            single.eq(~Mux(take, more_than_one[1], more_than_one[0])),
            self.valid.eq(rest.any()),
        ]
        with m.If(take):
            m.d.sync += [base.eq(found["base"]), more.eq(found["more"])]
        m.d.comb += [
            self.mark.eq(active & ~first & ~second & ~more & single),
            self.word.eq(Cat(lowest, base)),
        ]
        with m.If(self.mark):
            m.d.sync += [active.eq(0), number.eq(0), ahead.eq(1)]
        with m.If(self.start):
            m.d.sync += [active.eq(1), cut.eq(self.cut)]
        return m


class Ties(wiring.Component):
    """Sums the products of words, and takes lanes in their order until what remains is exceeded.

    `sum` follows a word by `tree_stages(lanes)` cycles, what it takes by `tie_latency(lanes)`.

    Args:
        lanes: products in a word.
        words: of a tile.
        bits: of what remains, signed.

    Members:
        i, flush: token of a word; forget every word in work.
        gate, product: lanes that are summed, and what; the others' products are 0.
        hard: lanes that are taken in any case.
        final: lanes that are summed are taken, up to the one that exceeds what remains.
        load, remaining: what has to be exceeded by all that follows.
        summed, sum: a word's sum.
        soon, o, taken: number of the word whose token comes one cycle later, with the lanes that it takes.
    """

    def __init__(self, lanes: int, words: int, bits: int) -> None:
        self.lanes, self.bits = lanes, bits
        token = token_layout(words)
        super().__init__(
            {
                "i": In(token),
                "flush": In(1),
                "gate": In(lanes),
                "product": In(signed(PRODUCT_BITS)).array(lanes),
                "hard": In(lanes),
                "final": In(1),
                "load": In(1),
                "remaining": In(signed(bits)),
                "summed": Out(1),
                "sum": Out(signed(PRODUCT_BITS + lanes.bit_length() - 1)),
                "soon": Out(range(max(2, words))),
                "o": Out(token),
                "taken": Out(lanes),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware."""
        m = Module()
        stages = tree_stages(self.lanes)
        nodes: list[Any] = list(self.product)
        levels = []
        while len(nodes) > 1:
            groups = [nodes[i : i + FAN_IN] for i in range(0, len(nodes), FAN_IN)]
            levels.append([[delay(m, total, 1, "tree") for total in running_sums(group)] for group in groups])
            nodes = [sums[-1] for sums in levels[-1]]
        token = pipe(m, self.i, stages, self.flush)
        left, passed = Signal(signed(self.bits)), Signal()
        after = (left - nodes[0])[: self.bits].as_signed()
        is_open = self.final & token.valid & ~passed
        with m.If(is_open):
            m.d.sync += [passed.eq(after[-1]), left.eq(after)]
        with m.If(self.load):
            m.d.sync += [left.eq(self.remaining), passed.eq(0)]
        # Where the word exceeds what is left, that is less than the word's sum.
        last = self._last_lane(m, levels, left[: len(nodes[0])].as_signed())
        late = tie_latency(self.lanes)
        every = delay(m, is_open & ~after[-1], late - stages, "every")
        some = delay(m, is_open & after[-1], late - stages, "some")
        hard, tie = delay(m, self.hard, late, "hard"), delay(m, self.gate, late, "tie")
        before = pipe(m, token, late - stages - 1, self.flush)
        m.d.comb += [
            self.summed.eq(token.valid),
            self.sum.eq(nodes[0]),
            self.soon.eq(before.word),
            self.o.eq(pipe(m, before, 1, self.flush)),
        ]
        for lane in range(self.lanes):
            m.d.comb += self.taken[lane].eq(hard[lane] | (tie[lane] & (every | (some & (lane <= last)))))
        return m

    def _last_lane(self, m: Module, levels: list[list[list[Any]]], left: Any) -> Any:
        """Goes down the tree to the lane at which `left` is exceeded, two cycles a stage, at the top one.

        Args:
            m: module.
            levels: from the leaves on, of each group of nodes the running sums, registered.
            left: with the sum of the word.
        """
        index: Any = C(0, 0)
        stages = len(levels)
        for level in reversed(range(stages)):
            # The children of the node of that index, or before it is known of the only one.
            groups, waited = levels[level], 3 * (stages - 1 - level)
            sums = [Cat(group[place] for group in groups) for place in range(len(groups[0]) - 1)]
            widths = [len(total) for total in groups[0]]
            later = [delay(m, total, max(0, waited - 1), "sums") for total in sums]
            chosen = [
                total.word_select(index, width).as_signed()
                for total, width in zip(later, widths, strict=False)
            ]
            if level < stages - 1:
                chosen = [delay(m, total, 1, "chosen") for total in chosen]
                index, left = delay(m, index, 1, "index"), delay(m, left, 1, "left")
            lefts = [left, *((left - total)[: len(left)].as_signed() for total in chosen)]
            passed = Cat(value[-1] for value in lefts[1:])
            if level > 0:
                passed = delay(m, passed, 1, "passed")
                lefts = [delay(m, value, 1, "left") for value in lefts]
                index = delay(m, index, 1, "index")
            place = first_of(Cat(passed, C(0, 1)))
            index = Cat(place, index)
            left = Cat(lefts).word_select(place, len(left)).as_signed()
        return delay(m, index, 1, "index") if stages else index
