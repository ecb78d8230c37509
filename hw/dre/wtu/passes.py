"""Passes of the WTU over a row: which words go through the lanes, and what the next pass compares with."""

from typing import Any

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from vrex.hw.dre.wtu.lanes import first_code, lane_groups
from vrex.hw.dre.wtu.layouts import (
    BIN_BITS,
    CODE_BITS,
    MODE,
    PASS,
    Purpose,
    entry_layout,
    remaining_bits,
    summary_layout,
)
from vrex.hw.dre.wtu.load import BUCKET_WAIT
from vrex.hw.dre.wtu.search import Crossing, Finder, ScanSignature
from vrex.hw.lib.stream import delay, tree_stages
from vrex.model.config import WtuConfig


def exponent_wait(lanes: int) -> int:
    """Cycles from when a word of scores is loaded until it can be read and every lane has its exponent."""
    return max(1, tree_stages(lanes) + lane_groups(lanes) - 1)


def extremes_wait(lanes: int) -> int:
    """Additional cycles until every lane has the extremes of the word."""
    return tree_stages(lanes, 1) - tree_stages(lanes)


class WordIssue(wiring.Component):
    """Issues a tile's words in order as soon as the lanes can handle them, then those that are found.

    A streamed row's words are issued as they are loaded; a loaded word waits `exponent_wait` cycles. Other
    rows that fit wait for the extremes of the last word, tiles of a long row for none, since its extremes
    were measured when it was sent before.

    Args:
        config: WTU.

    Members:
        end_tile: forgets the words loaded; also before the first tile.
        mode, last_word: see `MODE`; number of the tile's last word.
        skip: the words of this tile are not needed.
        loaded, loaded_last: a word of scores is loaded, and is the tile's last.
        raised: a word has raised the row's exponent (`Extremes.raised`).
        found: a word that a later pass needs (`Finder.o`).
        o: entry of a word for the lanes.
        flush: one cycle after `raised`, the first pass restarts: every word issued before is void.
    """

    end_tile: Signal
    mode: data.View
    last_word: Signal
    skip: Signal
    loaded: Signal
    loaded_last: Signal
    raised: Signal
    found: data.View
    o: data.View
    flush: Signal

    def __init__(self, config: WtuConfig) -> None:
        self.config = config
        self.words = config.row_clusters // config.lanes
        super().__init__(
            {
                "end_tile": In(1),
                "mode": In(MODE),
                "last_word": In(range(max(2, self.words))),
                "skip": In(1),
                "loaded": In(1),
                "loaded_last": In(1),
                "raised": In(1),
                "found": In(entry_layout(self.words)),
                "o": Out(entry_layout(self.words)),
                "flush": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Counters of loaded and issued words; the former is delayed until the lanes have the constants."""
        m = Module()
        lanes, bits = self.config.lanes, self.words.bit_length()
        # With resets, or a reset of one cycle would let a word of the command before it be issued.
        loaded = Signal(bits)
        complete = Signal()
        number = Signal(bits)
        ready = self._delay(m, Cat(loaded, complete), exponent_wait(lanes))
        ready_words, ready_complete = ready[:-1], ready[-1]
        measured = self._delay(m, ready_complete, extremes_wait(lanes))
        # `bucket_shift` takes longer than the constants that other rules need.
        measured = Mux(self.mode.by_bucket, self._delay(m, measured, BUCKET_WAIT), measured)
        skip = delay(m, self.skip, 1, "skip", reset=True)
        may_issue = Mux(self.mode.long, ~skip, self.mode.streamed | measured)
        issue = may_issue & (number != ready_words)
        with m.If(self.loaded):
            m.d.sync += [loaded.eq(loaded + 1), complete.eq(self.loaded_last)]
        with m.If(issue):
            m.d.sync += number.eq(number + 1)
        restart = self.raised & self.mode.streamed
        m.d.sync += self.flush.eq(restart)
        with m.If(restart):
            m.d.sync += number.eq(0)
        with m.If(self.end_tile):
            m.d.sync += [loaded.eq(0), complete.eq(0), number.eq(0)]
        m.d.comb += [
            self.o.valid.eq(issue | self.found.valid),
            self.o.last.eq((issue & (number == self.last_word)) | self.found.last),
            self.o.word.eq(Mux(self.found.valid, self.found.word, number)),
        ]
        return m

    def _delay(self, m: Module, value: Any, cycles: int) -> Any:
        """What is known of a tile, `cycles` later; the tile's end clears it."""
        for _ in range(cycles):
            delayed = Signal(len(value), name="known")
            m.d.sync += delayed.eq(value)
            with m.If(self.end_tile):
                m.d.sync += delayed.eq(0)
            value = delayed
        return value


class Passes(wiring.Component):
    """Finds the bin of the crossing after a pass, and begins the next pass over the words that reach it.

    `exact` takes the passes FIRST, SECOND and FINAL; `bucket`, degenerate rows, and rows whose sum never
    exceeds the threshold leave out SECOND. Of a row that fits, only words that can matter are issued again; a
    long row is sent again, and all of its words are issued.

    Args:
        config: WTU.

    Members:
        begin_row: the next pass is a row's first; needed after reset too.
        end_tile, mode, last_word, skip, loaded, loaded_last, raised: see `WordIssue`.
        start_scan: the last word of a pass has left the lanes two cycles before.
        scan: of the histogram (`ScanSignature`).
        remaining, not_positive: see `Threshold`.
        top_code, top_bin: see `RowConstants`.
        summary: what the pass found in a word.
        o, flush: see `WordIssue`.
        word_again: the word in `o` was found, so goes through the lanes once more.
        compare: the pass (`PASS`), from one cycle after `decided` on.
        examines: the pass is the row's first to handle clusters one by one.
        degenerate: the row's sum is not positive; every cluster weighs 1, and the top one is selected.
        decided: for one cycle, the scan has ended.
        left, load_left: what remains to be exceeded in the bin of the crossing; valid now.
        clear_bins: all sums of bins become 0.
    """

    begin_row: Signal
    end_tile: Signal
    mode: data.View
    last_word: Signal
    skip: Signal
    loaded: Signal
    loaded_last: Signal
    raised: Signal
    start_scan: Signal
    scan: Any
    remaining: Signal
    not_positive: Signal
    top_code: Signal
    top_bin: Signal
    summary: data.View
    o: data.View
    flush: Signal
    word_again: Signal
    compare: data.View
    examines: Signal
    degenerate: Signal
    decided: Signal
    left: Signal
    load_left: Signal
    clear_bins: Signal

    def __init__(self, config: WtuConfig) -> None:
        self.config = config
        self.words = config.row_clusters // config.lanes
        bits = remaining_bits(config)
        super().__init__(
            {
                "begin_row": In(1),
                "end_tile": In(1),
                "mode": In(MODE),
                "last_word": In(range(max(2, self.words))),
                "skip": In(1),
                "loaded": In(1),
                "loaded_last": In(1),
                "raised": In(1),
                "start_scan": In(1),
                "scan": Out(ScanSignature(bits)),
                "remaining": In(signed(bits)),
                "not_positive": In(1),
                "top_code": In(CODE_BITS),
                "top_bin": In(BIN_BITS),
                "summary": In(summary_layout(self.words)),
                "o": Out(entry_layout(self.words)),
                "flush": Out(1),
                "word_again": Out(1),
                "compare": Out(PASS),
                "examines": Out(1),
                "degenerate": Out(1),
                "decided": Out(1),
                "left": Out(signed(bits)),
                "load_left": Out(1),
                "clear_bins": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Scan, finder and issue of words, and the registers of the pass."""
        m = Module()
        m.submodules.crossing = crossing = Crossing(self.config.lanes, remaining_bits(self.config))
        m.submodules.finder = finder = Finder(self.words)
        m.submodules.issue = issue = WordIssue(self.config)
        wiring.connect(m, crossing.scan, wiring.flipped(self.scan))
        clear_bins = self.begin_row | crossing.done | self.flush
        m.d.comb += [
            crossing.start.eq(self.start_scan),
            crossing.stop.eq(self.not_positive),
            crossing.remaining.eq(self.remaining),
            # Sought as soon as the bin is known. All words that were kept in the second pass match.
            finder.start.eq(crossing.ends & ~self.mode.long),
            finder.cut.eq(Mux(self.not_positive, self.top_bin, crossing.cut)),
            finder.last_word.eq(self.last_word),
            finder.summary.eq(self.summary),
            issue.found.eq(finder.o),
            issue.end_tile.eq(self.end_tile),
            issue.mode.eq(self.mode),
            issue.last_word.eq(self.last_word),
            issue.skip.eq(self.skip),
            issue.loaded.eq(self.loaded),
            issue.loaded_last.eq(self.loaded_last),
            issue.raised.eq(self.raised),
            self.o.eq(issue.o),
            self.flush.eq(issue.flush),
            self.word_again.eq(finder.o.valid),
            self.decided.eq(crossing.done),
            self.left.eq(crossing.left),
            self.load_left.eq(delay(m, crossing.done, 1, "load_left", reset=True)),
            self.clear_bins.eq(delay(m, clear_bins, 1, "clear_bins", reset=True)),
        ]
        self._decide(m, crossing)
        return m

    def _decide(self, m: Module, crossing: Crossing) -> None:
        """Registers of the pass."""
        compare = self.compare
        refined = Signal()
        first, final = compare.purpose == Purpose.FIRST, compare.purpose == Purpose.FINAL
        # After a second pass the final one sees no cluster for the first time.
        m.d.comb += self.examines.eq(~first & ~(final & refined))
        refine = first & crossing.found & ~self.mode.by_bucket & ~self.degenerate
        with m.If(self.not_positive):
            m.d.sync += self.degenerate.eq(1)
        with m.If(crossing.done):
            m.d.sync += [
                refined.eq(refined | refine),
                compare.purpose.eq(Mux(refine, Purpose.SECOND, Purpose.FINAL)),
                # The sum is never exceeded, so every cluster is selected, or whole buckets are.
                compare.whole.eq(first & ~self.degenerate & (self.mode.by_bucket | ~crossing.found)),
                compare.cut.eq(crossing.bin),
                compare.limit.eq((compare.limit + crossing.bin)[:CODE_BITS]),
            ]
            with m.If(first):
                # In a degenerate row the first cluster of the top code exceeds 0.
                m.d.sync += compare.limit.eq(Mux(self.degenerate, self.top_code, first_code(crossing.bin)))
        with m.If(self.begin_row):
            m.d.sync += [compare.eq(0), refined.eq(0), self.degenerate.eq(0)]
