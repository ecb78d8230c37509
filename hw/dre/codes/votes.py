"""Votes of tokens, and the ones with the most (model `codes.vote`, `codes.select`)."""

import operator
from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from vrex.hw.dre.codes.weigher import NAN_WEIGHT, QUOTIENT_BITS
from vrex.hw.dre.wtu.datapath import NO_BYPASS
from vrex.hw.dre.wtu.search import running_sums
from vrex.hw.lib.stream import delay, reduce_tree, tree_stages, word_layout
from vrex.model.commands import VOTE_ROWS
from vrex.model.config import CodesConfig
from vrex.model.dre.codes import RECIPROCAL_BITS, SHARE_BITS

ROW_BITS = VOTE_ROWS.bit_length()
"""Rows of a command are a number of so many bits."""

VOTE_BITS = ROW_BITS + SHARE_BITS
"""A vote is at most a whole share of each row."""

ENTRY_BITS = VOTE_BITS + 1
"""A token's vote, and whether any of its scores was a number."""

DIGIT_BITS = 2
"""Bits of the vote sought that one pass over the votes finds."""

PASSES = VOTE_BITS // DIGIT_BITS


def passes(rows: int) -> int:
    """Passes over the votes of so many rows."""
    return -(-(rows.bit_length() + SHARE_BITS) // DIGIT_BITS)


def counter(m: Module, start: Any, last: Any, name: str, when: Any = 1) -> tuple[Any, Any, Any]:
    """Numbers 0 to `last`, one in each cycle of `when`, from the cycle after `start` on.

    Returns:
        Whether there is a number, the number, and whether it is the last.
    """
    running = Signal(name=f"{name}_running")
    number = Signal.like(last, name=f"{name}_number", reset_less=True)
    ends = number == last
    with m.If(running & when):
        m.d.sync += [number.eq(number + 1), running.eq(~ends)]
    with m.If(start):
        m.d.sync += [number.eq(0), running.eq(1)]
    return running, number, ends


class Shares(wiring.Component):
    """Shares of the tokens in a row: floor(weight * reciprocal / 2^16).

    Args:
        lanes: weights in a word.

    Members:
        reciprocal: of the row's sum, in units of 2^-40.
        weights: a word (`Weigher`).
        shares: in units of 2^-24, `latency` cycles later.
        heard: lanes whose weight is not a NaN's, with the shares.
    """

    latency = 3

    reciprocal: Signal
    weights: Signal
    shares: list[Signal]
    heard: Signal

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        super().__init__(
            {
                "reciprocal": In(QUOTIENT_BITS),
                "weights": In(16 * lanes),
                "shares": Out(SHARE_BITS + 1).array(lanes),
                "heard": Out(lanes),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """A multiplier a lane, in two halves."""
        m = Module()
        half = QUOTIENT_BITS // 2
        low, high = self.reciprocal[:half], self.reciprocal[half:]
        for lane in range(self.lanes):
            weight = self.weights.word_select(lane, 16)
            nan = weight == NAN_WEIGHT
            value = delay(m, Mux(nan, 0, weight), 1, "value")
            products = [delay(m, value * part, 1, "product") for part in (low, high)]
            total = products[0] + (products[1] << half)
            share = total[RECIPROCAL_BITS - SHARE_BITS :][: SHARE_BITS + 1]
            m.d.comb += [
                self.shares[lane].eq(delay(m, share, 1, "share")),
                self.heard[lane].eq(delay(m, ~nan, self.latency, "heard")),
            ]
        return m


class Search(wiring.Component):
    """Finds the K-th largest vote, `DIGIT_BITS` bits a pass, from the highest that the rows can give on.

    A pass counts the votes that are not below each of the values that the next digit allows. The largest
    value that K votes or more reach has the digit sought. What fails last is one more than the vote found.

    Args:
        config: unit.

    Members:
        start: seek, in a memory that is no longer written.
        wanted: K.
        rows: that voted.
        last_word: number of the last word of votes.
        read, word: reads a word of votes; `entries` follow by one cycle.
        entries: votes and marks (`ENTRY_BITS` each).
        done: for one cycle; the results stay until the next start.
        found: the K-th largest vote, or 0 where fewer tokens are heard; all ones for K = 0.
        above: votes that are larger.
    """

    start: Signal
    wanted: Signal
    rows: Signal
    last_word: Signal
    read: Signal
    word: Signal
    entries: Signal
    done: Signal
    found: Signal
    above: Signal

    def __init__(self, config: CodesConfig) -> None:
        self.config = config
        words = config.tokens // config.lanes
        self.count_bits = config.tokens.bit_length()
        # From a word's number: memory, comparison, tree, sum; then the decision.
        self.latency = 2 + tree_stages(config.lanes) + 1
        super().__init__(
            {
                "start": In(1),
                "wanted": In(16),
                "rows": In(ROW_BITS),
                "last_word": In(range(words)),
                "read": Out(1),
                "word": Out(range(words)),
                "entries": In(ENTRY_BITS * config.lanes),
                "done": Out(1),
                "found": Out(VOTE_BITS),
                "above": Out(self.count_bits),
            }
        )

    @staticmethod
    def pass_cycles(lanes: int, words: int) -> int:
        """Cycles of one pass."""
        return words + tree_stages(lanes) + 4

    def elaborate(self, platform: Any) -> Module:
        """A counter of passes and of words, three comparators a lane, and three sums."""
        m = Module()
        again = Signal()
        running, word, ends = counter(m, self.start | again, self.last_word, "search")
        m.d.comb += [self.read.eq(running), self.word.eq(word)]
        digit = Signal(range(PASSES))
        values = self._values(m, digit)
        counts = self._counts(m, values, self.start | again, delay(m, running, 1, "there", reset=True))
        decide = delay(m, running & ends, self.latency, "decide", reset=True)
        reached = [count >= self.wanted for count in counts]
        with m.If(decide):
            m.d.sync += digit.eq(digit - 1)
            for value, enough in zip(values, reached, strict=True):
                with m.If(enough):
                    m.d.sync += self.found.eq(value)
            # Counts fall from value to value: the first that is too small is that of the next value.
            for count, enough in reversed(list(zip(counts, reached, strict=True))):
                with m.If(~enough):
                    m.d.sync += self.above.eq(count)
        m.d.comb += [
            again.eq(delay(m, decide & (digit != 0), 1, "again", reset=True)),
            self.done.eq(delay(m, decide & (digit == 0), 1, "found", reset=True)),
        ]
        first_digit = self._first_digit(m)
        with m.If(self.start):
            m.d.sync += [self.found.eq(0), self.above.eq(0), digit.eq(first_digit)]
        return m

    def _first_digit(self, m: Module) -> Signal:
        """The highest digit of `rows` whole shares."""
        first = Signal(range(PASSES), name="first_digit", reset_less=True)
        for rows in range(ROW_BITS):
            with m.If(self.rows[rows:] != 0):
                m.d.sync += first.eq(passes(1 << rows) - 1)
        return first

    def _values(self, m: Module, digit: Signal) -> list[Any]:
        """What was found so far with 1, 2, 3 as its next digit, registered."""
        values = []
        for number in range(1, 1 << DIGIT_BITS):
            value = Signal(VOTE_BITS, name=f"value_{number}")
            shifted = (Const(number, DIGIT_BITS) << (digit * DIGIT_BITS))[:VOTE_BITS]
            m.d.comb += value.eq(self.found | shifted)
            values.append(value)
        return values

    def _counts(self, m: Module, values: list[Any], clear: Any, there: Any) -> list[Any]:
        """Heard votes that are at least each of the values."""
        stages = tree_stages(self.config.lanes)
        counts = []
        counted = delay(m, there, 1 + stages, "counted", reset=True)
        for value in values:
            registered = delay(m, value, 1, "value")
            reaching = []
            for lane in range(self.config.lanes):
                entry = self.entries.word_select(lane, ENTRY_BITS)
                reaching.append(delay(m, entry[-1] & (entry[:-1] >= registered), 1, "reaches"))
            count = Signal(self.count_bits, reset_less=True)
            total = reduce_tree(reaching, operator.add, m)
            with m.If(counted):
                m.d.sync += count.eq(count + total)
            with m.If(clear):
                m.d.sync += count.eq(0)
            counts.append(count)
        return counts


class Picker(wiring.Component):
    """Makes the bitmask: votes above the one found, and the first of those equal to it.

    Args:
        config: unit.

    Members:
        start: begin.
        found, above, wanted: see `Search`.
        last_word: number of the last word of votes.
        read, word: reads a word of votes in the cycles of `read`; `entries` follow by one cycle and stay.
        entries: votes and marks.
        o: words of the bitmask; `last` with the last one (`word_layout`).
        selected: tokens selected so far.
    """

    start: Signal
    found: Signal
    above: Signal
    wanted: Signal
    last_word: Signal
    read: Signal
    word: Signal
    entries: Signal
    o: stream.Interface
    selected: Signal

    def __init__(self, config: CodesConfig) -> None:
        self.config = config
        words = config.tokens // config.lanes
        count_bits = config.tokens.bit_length()
        super().__init__(
            {
                "start": In(1),
                "found": In(VOTE_BITS),
                "above": In(count_bits),
                "wanted": In(16),
                "last_word": In(range(words)),
                "read": Out(1),
                "word": Out(range(words)),
                "entries": In(ENTRY_BITS * config.lanes),
                "o": Out(stream.Signature(word_layout(config.lanes))),
                "selected": Out(count_bits),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Comparison, ranks of the ties, the word: a stage each, all of which wait for `o`."""
        m = Module()
        lanes = self.config.lanes
        flow = Signal()
        m.d.comb += flow.eq(self.o.ready | ~self.o.valid)
        running, word, ends = counter(m, self.start, self.last_word, "pick", flow)
        m.d.comb += [self.read.eq(flow), self.word.eq(word)]
        out = self._pipe(m, flow, running, running & ends)
        larger, equal = self._compare(m, flow)
        ranks = [Signal(range(lanes + 1), name=f"rank_{i}", reset_less=True) for i in range(lanes)]
        word_ties = Signal(range(lanes + 1), reset_less=True)
        ranked_larger = Signal(lanes, reset_less=True)
        # Ties that may still be selected; negative never, as at most `wanted` votes are above the one found.
        room = Signal(16)
        chosen = Signal(lanes)
        m.d.comb += chosen.eq(ranked_larger | Cat((rank != 0) & (rank <= room) for rank in ranks))
        with m.If(flow):
            totals = running_sums(list(equal))
            m.d.sync += [word_ties.eq(totals[-1]), ranked_larger.eq(larger)]
            for rank, total, tie in zip(ranks, totals, equal, strict=True):
                # A tie's place among the word's ties; 0 of what is none.
                m.d.sync += rank.eq(Mux(tie, total, 0))
            m.d.sync += [self.o.valid.eq(out.valid), self.o.payload.eq(Cat(chosen, out.last))]
            with m.If(out.valid):
                m.d.sync += [
                    room.eq(Mux(room < word_ties, 0, room - word_ties)),
                    self.selected.eq(self.selected + sum(chosen)),
                ]
        with m.If(self.start):
            m.d.sync += [room.eq(self.wanted - self.above), self.selected.eq(0)]
        return m

    @staticmethod
    def _pipe(m: Module, flow: Signal, valid: Any, last: Any) -> Any:
        """Entry of the word whose ties have ranks: behind the read, the comparison and the ranks."""
        layout = data.StructLayout({"valid": 1, "last": 1})
        entry: Any = Cat(valid, last)
        for name in ("read", "compared", "ranked"):
            stage: Any = Signal(layout, name=f"{name}_entry")
            with m.If(flow):
                m.d.sync += stage.eq(entry)
            entry = stage
        return entry

    def _compare(self, m: Module, flow: Signal) -> tuple[Signal, Signal]:
        """Lanes whose vote is above the one found, or equal to it."""
        lanes = self.config.lanes
        larger = Signal(lanes, reset_less=True)
        equal = Signal(lanes, reset_less=True)
        with m.If(flow):
            for lane in range(lanes):
                entry = self.entries.word_select(lane, ENTRY_BITS)
                m.d.sync += [
                    larger[lane].eq(entry[-1] & (entry[:-1] > self.found)),
                    equal[lane].eq(entry[-1] & (entry[:-1] == self.found)),
                ]
        return larger, equal


class Votes(wiring.Component):
    """Memory of votes: shares are added to it row by row; then the tokens with the most votes are selected.

    Args:
        config: unit.

    Members:
        add, fresh, number: a word of weights is added, or replaces what there was; its number.
        reciprocal, weights: see `Shares`.
        select: begin the selection, `add_latency` cycles after the last word or later.
        wanted, last_word: K, and the number of the last word; stable during the selection.
        rows: that vote; stable from two cycles before `select` on.
        o: words of the bitmask (`Picker`).
        selected: tokens selected, when the last word has come.
    """

    add_latency = Shares.latency + 2

    add: Signal
    fresh: Signal
    number: Signal
    reciprocal: Signal
    weights: Signal
    select: Signal
    wanted: Signal
    rows: Signal
    last_word: Signal
    o: stream.Interface
    selected: Signal

    def __init__(self, config: CodesConfig) -> None:
        self.config = config
        words = config.tokens // config.lanes
        super().__init__(
            {
                "add": In(1),
                "fresh": In(1),
                "number": In(range(words)),
                "reciprocal": In(QUOTIENT_BITS),
                "weights": In(16 * config.lanes),
                "select": In(1),
                "wanted": In(16),
                "rows": In(ROW_BITS),
                "last_word": In(range(words)),
                "o": Out(stream.Signature(word_layout(config.lanes))),
                "selected": Out(config.tokens.bit_length()),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """The memory with its adders, and what reads it afterwards."""
        m = Module()
        config = self.config
        lanes, words = config.lanes, config.tokens // config.lanes
        memory: Memory = Memory(shape=ENTRY_BITS * lanes, depth=words, init=[], attrs=NO_BYPASS)
        m.submodules.memory = memory
        port = memory.read_port()
        m.submodules.search = search = Search(config)
        m.submodules.picker = picker = Picker(config)
        number = delay(m, self.number, Shares.latency - 1, "number")
        picking = Signal()
        with m.If(self.add):
            m.d.sync += picking.eq(0)
        with m.If(search.done):
            m.d.sync += picking.eq(1)
        m.d.comb += [
            port.addr.eq(Mux(picking, picker.word, Mux(search.read, search.word, number))),
            port.en.eq(~picking | picker.read),
            search.start.eq(self.select),
            search.rows.eq(self.rows),
            picker.start.eq(search.done),
            picker.found.eq(search.found),
            picker.above.eq(search.above),
            self.selected.eq(picker.selected),
        ]
        for part in (search, picker):
            m.d.comb += [
                part.wanted.eq(self.wanted),
                part.last_word.eq(self.last_word),
                part.entries.eq(port.data),
            ]
        wiring.connect(m, picker.o, wiring.flipped(self.o))
        self._add(m, memory, delay(m, number, 2, "number"), port.data)
        return m

    def _add(self, m: Module, memory: Memory, number: Any, entries: Any) -> None:
        """Adds the shares of a word to the entries that were read, and writes them a cycle later."""
        lanes = self.config.lanes
        m.submodules.shares = shares = Shares(lanes)
        write = memory.write_port()
        fresh = delay(m, self.fresh, Shares.latency, "fresh")
        sums = []
        for lane in range(lanes):
            entry = entries.word_select(lane, ENTRY_BITS)
            vote = (Mux(fresh, 0, entry[:-1]) + shares.shares[lane])[:VOTE_BITS]
            sums.append(Cat(vote, shares.heard[lane] | (entry[-1] & ~fresh)))
        m.d.comb += [
            shares.reciprocal.eq(self.reciprocal),
            shares.weights.eq(self.weights),
            write.addr.eq(number),
            write.data.eq(delay(m, Cat(sums), 1, "sums")),
            write.en.eq(delay(m, self.add, Shares.latency + 1, "add", reset=True)),
        ]
