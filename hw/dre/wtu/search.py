"""How the WTU finds the cluster at which the threshold is passed: sums of bins, their scan, and ties."""

import operator
from collections.abc import Sequence
from typing import Any

from amaranth import C, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from vrex.hw.dre.wtu.lanes import pipe
from vrex.hw.dre.wtu.layouts import BIN_BITS, BINS, PRODUCT_BITS, entry_layout, summary_layout
from vrex.hw.lib.stream import LEVELS_PER_STAGE, delay, reduce_tree, tree_stages

SCAN = 4
"""Bins that are summed over the lanes and compared in one cycle: a group."""

SCANS = BINS // SCAN
"""Groups of bins, that is cycles of a whole scan."""

FAN_IN = 1 << LEVELS_PER_STAGE
"""Inputs of a tree's node between two registers."""


def scan_latency(lanes: int) -> int:
    """Cycles from a scan's first group of bins to its result, if the crossing is in that group."""
    return tree_stages(lanes) + 5


def tie_latency(lanes: int) -> int:
    """Cycles from a word's products to its bits of the bitmask."""
    return max(1, 3 * tree_stages(lanes) - 1)


def running_sums(values: Sequence[Any]) -> list[Any]:
    """Sums of the first one, two, ... values; depth grows with the logarithm."""
    if len(values) < 2:
        return list(values)
    half = (len(values) + 1) // 2
    left, right = running_sums(values[:half]), running_sums(values[half:])
    return left + [left[-1] + value for value in right]


def first_of(hits: Any) -> Any:
    """Index of the lowest bit that is set, or of the highest bit if none is; a power of two of bits."""
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


class ScanSignature(wiring.Signature):
    """A scan over the bins of a histogram, seen from what scans.

    Args:
        bits: of a sum over all bins, signed.

    Members:
        active: bins group * `SCAN` and following are read; nothing may be added meanwhile.
        group, group_bit: the group's number, for the memories' addresses, and one-hot, for their marks.
        totals: sums of these bins over the lanes, `tree_stages(lanes)` + 2 cycles later.
    """

    def __init__(self, bits: int) -> None:
        super().__init__(
            {
                "active": Out(1),
                "group": Out(range(SCANS)),
                "group_bit": Out(SCANS),
                "totals": In(signed(bits)).array(SCAN),
            }
        )


class Histogram(wiring.Component):
    """Sums of products by lane and bin, in `SCAN` banks, and totals over the lanes, `SCAN` bins at a time.

    A product counts from three cycles later on.

    Args:
        lanes: products in a word.
        bits: of a lane's sum, signed.
        total_bits: of a sum over all bins, signed.

    Members:
        clear: all sums become 0; needed after reset.
        add, digit, product: lanes that count, their bins, and one cycle later their products.
        scan: reads the sums (`ScanSignature`).
    """

    clear: Signal
    add: Signal
    digit: list[Signal]
    product: list[Signal]
    scan: Any

    def __init__(self, lanes: int, bits: int, total_bits: int) -> None:
        self.lanes, self.bits = lanes, bits
        super().__init__(
            {
                "clear": In(1),
                "add": In(lanes),
                "digit": In(BIN_BITS).array(lanes),
                "product": In(signed(PRODUCT_BITS)).array(lanes),
                "scan": In(ScanSignature(total_bits)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """A memory with its read-modify-write pipeline for each lane, and adders over the lanes."""
        m = Module()
        by_lane = [self._lane(m, lane) for lane in range(self.lanes)]
        for total, sums in zip(self.scan.totals, zip(*by_lane, strict=True), strict=True):
            m.d.comb += total.eq(reduce_tree(sums, operator.add, m))
        return m

    def _lane(self, m: Module, lane: int) -> list[Any]:
        """One lane; returns its sums of the group that is scanned, two cycles after the group's number."""
        bank_bits = SCAN.bit_length() - 1
        memory: Memory = Memory(shape=SCAN * self.bits, depth=SCANS, init=[])
        m.submodules += memory
        port, write = memory.read_port(), memory.write_port(granularity=self.bits)
        # A sum is read, registered, and added to; so two products for the same sum may be in the pipeline.
        steps = [(self.add[lane], self.digit[lane])]
        for name in ("reading", "adding", "added"):
            add, digit = steps[-1]
            steps.append(
                (delay(m, add & ~self.clear, 1, name, reset=True), delay(m, digit, 1, f"{name}_digit"))
            )
        (_, read_digit), (reading, digit), (adding, written_digit), _ = steps
        # Forwarding: the sum was changed by the product right before, or by the one before that.
        by_last = delay(m, reading & ~self.clear & (read_digit == digit), 1, "by_last", reset=True)
        by_second_last = delay(
            m, adding & ~self.clear & (read_digit == written_digit), 1, "by_second_last", reset=True
        )
        bank, entry = written_digit[:bank_bits], written_digit[bank_bits:]
        m.d.comb += port.addr.eq(Mux(self.scan.active, self.scan.group, read_digit[bank_bits:]))
        sums, marks = [], []
        for index in range(SCAN):
            # Marks instead of clearing: a sum that was not written since `clear` counts as 0.
            written, writes = Signal(SCANS, name="written", reset_less=True), adding & (bank == index)
            m.d.comb += write.en[index].eq(writes)
            # All marks are written in every cycle: an enable for each bit would cost routing. `writes` is not
            # what is shifted, so that an unknown number without it leaves the marks known.
            marked = (C(1) << entry)[:SCANS] & writes.replicate(SCANS)
            m.d.sync += written.eq(written | marked)
            with m.If(self.clear):
                m.d.sync += written.eq(0)
            marks.append(delay(m, written.bit_select(read_digit[bank_bits:], 1), 1, "marks"))
            in_group = delay(m, (written & self.scan.group_bit).any(), 1, "in_group")
            total = Mux(in_group, port.data.word_select(index, self.bits), 0)
            sums.append(delay(m, total[: self.bits].as_signed(), 1, "sum"))
        old, new = Signal(signed(self.bits), name="old"), Signal(signed(self.bits), name="new")
        stored = port.data.word_select(digit[:bank_bits], self.bits).as_signed()
        last_new = delay(m, new, 1, "last_new")
        m.d.sync += old.eq(Mux(by_last, new, Mux(by_second_last, last_new, stored)))
        # The marks lack only what the two products right before write.
        mark = Cat(*marks).bit_select(digit[:bank_bits], 1)
        mark = delay(m, by_last | by_second_last | mark, 1, "mark")
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
        start: scan the bins from the next cycle on.
        stop: give up, with `done`.
        remaining: what has to be exceeded, needed `tree_stages(lanes)` + 4 cycles after the start, when the
            first totals are compared.
        scan: of the histogram (`ScanSignature`).
        ends, cut: for one cycle, `scan_latency` cycles after the start and one more for each further group,
            the scan ends; number of the crossing's bin, or of the last bin.
        done, found, bin: one cycle later; whether there is a crossing, and the number of its bin.
        left: another cycle later, `remaining` less the bins before the crossing's.
    """

    start: Signal
    stop: Signal
    remaining: Signal
    scan: Any
    ends: Signal
    cut: Signal
    done: Signal
    found: Signal
    bin: Signal
    left: Signal

    def __init__(self, lanes: int, bits: int) -> None:
        self.lanes, self.bits = lanes, bits
        super().__init__(
            {
                "start": In(1),
                "stop": In(1),
                "remaining": In(signed(bits)),
                "scan": Out(ScanSignature(bits)),
                "ends": Out(1),
                "cut": Out(BIN_BITS),
                "done": Out(1),
                "found": Out(1),
                "bin": Out(BIN_BITS),
                "left": Out(signed(bits)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """A counter of groups, and a pipeline that compares the running sums of a group in a cycle."""
        m = Module()
        running = Signal()
        group = Signal(range(SCANS))
        group_bit = Signal(SCANS, init=1)
        m.d.comb += [
            self.scan.active.eq(running),
            self.scan.group.eq(group),
            self.scan.group_bit.eq(group_bit),
        ]
        with m.If(self.start):
            m.d.sync += running.eq(1)
        with m.If(running):
            m.d.sync += [
                running.eq(group != SCANS - 1),
                group.eq(group + 1),
                group_bit.eq(group_bit.rotate_left(1)),
            ]
        entry: Any = Signal(entry_layout(SCANS))
        m.d.comb += [entry.valid.eq(running), entry.word.eq(group), entry.last.eq(group == SCANS - 1)]
        entry = pipe(m, entry, tree_stages(self.lanes) + 2, self.ends)
        first = delay(m, entry.word == 0, 1, "first")
        entry = pipe(m, entry, 1, self.ends)
        sums = [
            delay(m, total[: self.bits].as_signed(), 1, "sum") for total in running_sums(self.scan.totals)
        ]
        left = Signal(signed(self.bits))
        before = Mux(first, self.remaining, left)
        after = [(before - total)[: self.bits].as_signed() for total in sums]
        m.d.sync += left.eq(after[-1])
        hits = delay(m, Cat(value[-1] for value in after), 1, "hits")
        lefts = [delay(m, value, 2, "left") for value in (before, *after[:-1])]
        compared = pipe(m, entry, 1, self.ends)
        index = first_of(hits)
        m.d.comb += [
            self.ends.eq(self.stop | (compared.valid & (hits.any() | compared.last))),
            self.cut.eq(Cat(index, compared.word)),
        ]
        m.d.sync += [self.done.eq(self.ends), self.found.eq(hits.any())]
        with m.If(compared.valid):
            m.d.sync += self.bin.eq(self.cut)
        with m.If(self.done):
            m.d.sync += self.left.eq(Cat(*lefts).word_select(self.bin[: len(index)], self.bits).as_signed())
        with m.If(self.ends):
            m.d.sync += [running.eq(0), group.eq(0), group_bit.eq(1)]
        return m


class Finder(wiring.Component):
    """Remembers the first bin of every word, and finds the words that reach a bin, one a cycle.

    The summaries of a group of words are compared together; a group without a hit takes a cycle.

    Args:
        words: of a row.

    Members:
        summary: what the first pass, or the second, found in a word (`summary_layout`).
        start, cut: find the words whose first bin is `cut` or before.
        last_word: number of the row's last word.
        o: a word (`entry_layout`), from three cycles after the start on; `last` comes with the last word or,
            without `valid`, after it.
    """

    summary: data.View
    start: Signal
    cut: Signal
    last_word: Signal
    o: data.View

    def __init__(self, words: int) -> None:
        self.words, self.group = words, min(16, words)
        super().__init__(
            {
                "summary": In(summary_layout(words)),
                "start": In(1),
                "cut": In(BIN_BITS),
                "last_word": In(range(max(2, words))),
                "o": Out(entry_layout(words)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """A memory of summaries, read by group, and a register of the group's hits, taken lowest first."""
        m = Module()
        groups, index_bits = self.words // self.group, self.group.bit_length() - 1
        stored = data.StructLayout({"bin": BIN_BITS, "void": 1})
        memory: Memory = Memory(shape=stored.size * self.group, depth=groups, init=[])
        m.submodules.memory = memory
        read, write = memory.read_port(), memory.write_port(granularity=stored.size)
        # The group whose summaries have been read, and the group after it.
        number = Signal(range(max(2, groups)))
        next_number = Signal(range(max(2, groups)), init=1)
        active = Signal()
        cut = Signal(BIN_BITS)
        first = delay(m, self.start, 1, "first", reset=True)
        second = delay(m, first, 1, "second", reset=True)
        # Hits of a group that have not been issued; of these the lowest, as a bit and as an index; whether at
        # most one is left, and whether a group follows.
        pending = Signal(self.group)
        low = Signal(self.group)
        single = Signal(init=1)
        lowest = Signal(index_bits)
        base = Signal.like(number)
        more = Signal()
        valid = Signal()
        take = second | (more & single)
        step = first | take
        summary = self.summary
        m.d.comb += [
            write.addr.eq(summary.word >> index_bits),
            write.data.eq(Cat(summary.bin, summary.void).replicate(self.group)),
            write.en.bit_select(summary.word[:index_bits], 1).eq(summary.valid),
            read.addr.eq(Mux(active, next_number, 0)),
            read.en.eq(step | ~active),
        ]
        last_group = number == self.last_word >> index_bits
        hits = Signal(self.group)
        for index in range(self.group):
            word: Any = data.View(stored, read.data.word_select(index, stored.size))
            in_row = ~last_group | (index <= self.last_word[:index_bits])
            m.d.comb += hits[index].eq(~word.void & (word.bin <= cut) & in_row)
        with m.If(step):
            m.d.sync += [number.eq(number + 1), next_number.eq(next_number + 1)]
        found_hits = _held(m, hits, step, "hits")
        found_base = _held(m, number, step, "base")
        found_more = _held(m, ~last_group, step, "more")
        rest = Mux(take, found_hits, pending & ~low)
        # Computed for both cases in parallel to shorten the path.
        several = [(bits & (bits - 1)[: self.group]).any() for bits in (pending & ~low, found_hits)]
        m.d.sync += [
            pending.eq(rest),
            low.eq(rest & ~(rest - 1)[: self.group]),
            lowest.eq(first_of(rest)),
            single.eq(~Mux(take, several[1], several[0])),
            valid.eq(rest.any()),
        ]
        with m.If(take):
            m.d.sync += [base.eq(found_base), more.eq(found_more)]
        m.d.comb += [
            self.o.valid.eq(valid),
            self.o.last.eq(active & ~first & ~second & ~more & single),
            self.o.word.eq(Cat(lowest, base)),
        ]
        with m.If(self.o.last):
            m.d.sync += [active.eq(0), number.eq(0), next_number.eq(1)]
        with m.If(self.start):
            m.d.sync += [active.eq(1), cut.eq(self.cut)]
        return m


class Ties(wiring.Component):
    """Sums the products of words, and selects lanes in their order until what remains is exceeded.

    `sum` follows a word by `tree_stages(lanes)` cycles, its selected lanes follow by `tie_latency(lanes)`.

    Args:
        lanes: products in a word.
        words: of a tile.
        bits: of what remains, signed.

    Members:
        i, flush: entry of a word; drops every entry in the pipeline.
        gate, product: lanes that are summed, and their products; those of the others are 0.
        above: lanes that are selected in any case.
        final: lanes that are summed are selected, up to the one at which the sum exceeds what remains.
        load, remaining: what has to be exceeded by all that follows.
        summed, sum: a word's sum.
        next_word: number of the word that leaves one cycle later.
        o, selected: entry of a word that leaves, and its selected lanes.
    """

    i: data.View
    flush: Signal
    gate: Signal
    product: list[Signal]
    above: Signal
    final: Signal
    load: Signal
    remaining: Signal
    summed: Signal
    sum: Signal
    next_word: Signal
    o: data.View
    selected: Signal

    def __init__(self, lanes: int, words: int, bits: int) -> None:
        self.lanes, self.bits = lanes, bits
        entry = entry_layout(words)
        super().__init__(
            {
                "i": In(entry),
                "flush": In(1),
                "gate": In(lanes),
                "product": In(signed(PRODUCT_BITS)).array(lanes),
                "above": In(lanes),
                "final": In(1),
                "load": In(1),
                "remaining": In(signed(bits)),
                "summed": Out(1),
                "sum": Out(signed(PRODUCT_BITS + lanes.bit_length() - 1)),
                "next_word": Out(range(max(2, words))),
                "o": Out(entry),
                "selected": Out(lanes),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """An adder tree with its running sums, a comparison at the root, and the way back to the lane."""
        m = Module()
        stages = tree_stages(self.lanes)
        nodes: list[Any] = list(self.product)
        levels = []
        while len(nodes) > 1:
            groups = [nodes[i : i + FAN_IN] for i in range(0, len(nodes), FAN_IN)]
            levels.append([[delay(m, total, 1, "tree") for total in running_sums(group)] for group in groups])
            nodes = [sums[-1] for sums in levels[-1]]
        entry = pipe(m, self.i, stages, self.flush)
        left = Signal(signed(self.bits))
        passed = Signal()
        after = (left - nodes[0])[: self.bits].as_signed()
        is_open = self.final & entry.valid & ~passed
        with m.If(is_open):
            m.d.sync += [passed.eq(after[-1]), left.eq(after)]
        with m.If(self.load):
            m.d.sync += [left.eq(self.remaining), passed.eq(0)]
        # Only used where the word exceeds what is left, which then is less than the word's sum.
        last_lane = self._last_lane(m, levels, left[: len(nodes[0])].as_signed())
        latency = tie_latency(self.lanes)
        all_ties = delay(m, is_open & ~after[-1], latency - stages, "all_ties")
        first_ties = delay(m, is_open & after[-1], latency - stages, "first_ties")
        above, tie = delay(m, self.above, latency, "above"), delay(m, self.gate, latency, "tie")
        before = pipe(m, entry, latency - stages - 1, self.flush)
        m.d.comb += [
            self.summed.eq(entry.valid),
            self.sum.eq(nodes[0]),
            self.next_word.eq(before.word),
            self.o.eq(pipe(m, before, 1, self.flush)),
        ]
        for lane in range(self.lanes):
            selects_tie = all_ties | (first_ties & (lane <= last_lane))
            m.d.comb += self.selected[lane].eq(above[lane] | (tie[lane] & selects_tie))
        return m

    def _last_lane(self, m: Module, levels: list[list[list[Any]]], left: Any) -> Any:
        """Descends the tree to the lane at which `left` is exceeded; a stage takes two cycles, the root one.

        Args:
            m: module.
            levels: from the leaves on, of each group of nodes the running sums, registered.
            left: with the sum of the word.
        """
        index: Any = C(0, 0)
        stages = len(levels)
        for level in reversed(range(stages)):
            # The children of node `index`; at the root that is the only node.
            groups, waited = levels[level], 3 * (stages - 1 - level)
            sums = [Cat(*(group[child] for group in groups)) for child in range(len(groups[0]) - 1)]
            widths = [len(total) for total in groups[0]]
            aligned = [delay(m, total, max(0, waited - 1), "sums") for total in sums]
            chosen = [
                total.word_select(index, width).as_signed()
                for total, width in zip(aligned, widths, strict=False)
            ]
            if level < stages - 1:
                chosen = [delay(m, total, 1, "chosen") for total in chosen]
                index, left = delay(m, index, 1, "index"), delay(m, left, 1, "left")
            lefts = [left, *((left - total)[: len(left)].as_signed() for total in chosen)]
            passed = Cat(*(value[-1] for value in lefts[1:]))
            if level > 0:
                passed = delay(m, passed, 1, "passed")
                lefts = [delay(m, value, 1, "left") for value in lefts]
                index = delay(m, index, 1, "index")
            child = first_of(Cat(passed, C(0, 1)))
            index = Cat(child, index)
            left = Cat(*lefts).word_select(child, len(left)).as_signed()
        return delay(m, index, 1, "index") if stages else index
