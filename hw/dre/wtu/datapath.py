"""Datapath of the WTU: memories of scores and token counts, lanes, sums, threshold and selected lanes."""

import operator
from typing import Any

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.hdl import Value
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from vrex.hw.dre.wtu.lanes import Lanes, pipe
from vrex.hw.dre.wtu.layouts import (
    BIN_BITS,
    CODE_BITS,
    COMMAND,
    MODE,
    PASS,
    PRODUCT_BITS,
    Purpose,
    entry_layout,
    loaded_layout,
    remaining_bits,
    sum_bits,
    summary_layout,
    tile_layout,
)
from vrex.hw.dre.wtu.load import Extremes, RowConstants
from vrex.hw.dre.wtu.search import Histogram, ScanSignature, Ties
from vrex.hw.lib.stream import delay, reduce_tree, tree_stages
from vrex.model.config import WtuConfig
from vrex.model.dre import wtu as model

NO_BYPASS: dict[str, Any] = {"no_rw_check": 1}
"""For memories never read and written at one address in one cycle: Yosys adds no bypass."""


class Threshold(wiring.Component):
    """Sums the row in the first pass and makes of it what the running sum over the bins has to exceed.

    Args:
        config: WTU.

    Members:
        clear: the row's sum becomes 0.
        first: the pass is the row's first.
        add, sum: a word's sum of products, `tree_stages(lanes)` cycles behind the word's `entry`.
        entry, flush: entry of a word (as `Ties.i`); drops every entry in the pipeline.
        last_tile, raw, th_r: whether the tile is the row's last; the rule.
        left: what a later pass has to exceed (`Crossing.left`).
        remaining: what has to be exceeded: in the first pass th_r * sum >> 16, five cycles after the sum.
        not_positive: for one cycle after the first pass: under `raw` the row's sum is 0 or less.
    """

    clear: Signal
    first: Signal
    add: Signal
    sum: Signal
    entry: data.View
    flush: Signal
    last_tile: Signal
    raw: Signal
    th_r: Signal
    left: Signal
    remaining: Signal
    not_positive: Signal

    def __init__(self, config: WtuConfig) -> None:
        self.config = config
        lanes = config.lanes
        super().__init__(
            {
                "clear": In(1),
                "first": In(1),
                "add": In(1),
                "sum": In(signed(PRODUCT_BITS + lanes.bit_length() - 1)),
                "entry": In(entry_layout(config.row_clusters // lanes)),
                "flush": In(1),
                "last_tile": In(1),
                "raw": In(1),
                "th_r": In(16),
                "left": In(signed(remaining_bits(config))),
                "remaining": Out(signed(remaining_bits(config))),
                "not_positive": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """An accumulator, a pipelined multiplier, and the comparison with 0."""
        m = Module()
        total = Signal(signed(sum_bits(self.config)), reset_less=True)
        with m.If(self.add & self.first):
            m.d.sync += total.eq(total + self.sum)
        with m.If(self.clear):
            m.d.sync += total.eq(0)
        lanes = self.config.lanes
        stages = tree_stages(lanes)
        complete = pipe(m, self.entry, stages + 1, self.flush).last & self.first & self.last_tile
        not_positive = delay(m, complete & self.raw & (total <= 0), 1, "not_positive", reset=True)
        # Not before the finder holds the summaries of all words.
        wait = max(0, tree_stages(lanes, 1) - stages - 2)
        m.d.comb += self.not_positive.eq(delay(m, not_positive, wait, "not_positive", reset=True))
        scaled = self._times_th_r(m, total)
        m.d.sync += self.remaining.eq(
            Mux(self.first, scaled >> model.TH_R_BITS, self.left)[: len(self.remaining)].as_signed()
        )
        return m

    def _times_th_r(self, m: Module, total: Signal) -> Any:
        """Th_r * `total`, three cycles later: its multiples by two bits each, joined pairwise."""
        registered = delay(m, total, 1, "total")
        triple = delay(m, (total + (total << 1))[: len(total) + 2].as_signed(), 1, "triple")
        digits = [self.th_r[low : low + 2] for low in range(0, model.TH_R_BITS, 2)]
        parts: list[Any] = [
            Mux(digit[1], Mux(digit[0], triple, registered << 1), Mux(digit[0], registered, 0))
            for digit in digits
        ]
        bits = 2
        while len(parts) > 1:
            sums = [low + (high << bits) for low, high in zip(parts[0::2], parts[1::2], strict=True)]
            bits *= 2
            parts = [value[: len(total) + bits].as_signed() for value in sums]
            if len(parts) > 1:
                parts = [delay(m, value, 1, "scaled") for value in parts]
        return parts[0]


class Datapath(wiring.Component):
    """Holds a row, or a tile of it, and takes its words through the lanes.

    A word that enters with `entry` leaves with `o`. What it adds to the sums and to `summary` is there before
    a scan that follows the last word can need it.

    Args:
        config: WTU.

    Members:
        loaded: a word of scores or token counts (`loaded_layout`).
        take_counts, take_scores: which of the two it is.
        measure: the word counts in the row's extremes.
        command, mode, tile: what is in work (`COMMAND`, `MODE`, `tile_layout`).
        begin_row: forgets the row before; needed after reset too.
        entry, flush: entry of a word for the lanes; drops every entry in the pipeline and the row's sum.
        compare, examines, degenerate: the pass (`PASS`); whether it is the row's first to handle clusters one
            by one; every cluster weighs 1 and the row's top one alone is selected.
        clear_bins: all sums of bins become 0.
        scan: reads the sums of bins (`ScanSignature`).
        left, load_left: what the clusters whose code equals the crossing's have to exceed; valid now.
        raised: see `Extremes`.
        top_code, top_bin: see `RowConstants`.
        remaining, not_positive: see `Threshold`.
        summary: what the pass found in a word (`summary_layout`).
        examined: clusters of a word that `examines` applies to.
        leaves_lanes: the last word of the pass, or of the tile, leaves the lanes.
        next_word: number of the word that leaves one cycle later.
        o, selected: entry of a word, and its selected lanes.
    """

    loaded: data.View
    take_counts: Signal
    take_scores: Signal
    measure: Signal
    command: data.View
    mode: data.View
    tile: data.View
    begin_row: Signal
    entry: data.View
    flush: Signal
    compare: data.View
    examines: Signal
    degenerate: Signal
    clear_bins: Signal
    scan: Any
    left: Signal
    load_left: Signal
    raised: Signal
    top_code: Signal
    top_bin: Signal
    remaining: Signal
    not_positive: Signal
    summary: data.View
    examined: Signal
    leaves_lanes: Signal
    next_word: Signal
    o: data.View
    selected: Signal

    def __init__(self, config: WtuConfig) -> None:
        self.config = config
        lanes, words = config.lanes, config.row_clusters // config.lanes
        bits = remaining_bits(config)
        super().__init__(
            {
                "loaded": In(loaded_layout(lanes, words)),
                "take_counts": In(1),
                "take_scores": In(1),
                "measure": In(1),
                "command": In(COMMAND),
                "mode": In(MODE),
                "tile": In(tile_layout(config)),
                "begin_row": In(1),
                "entry": In(entry_layout(words)),
                "flush": In(1),
                "compare": In(PASS),
                "examines": In(1),
                "degenerate": In(1),
                "clear_bins": In(1),
                "scan": In(ScanSignature(bits)),
                "left": In(signed(bits)),
                "load_left": In(1),
                "raised": Out(1),
                "top_code": Out(CODE_BITS),
                "top_bin": Out(BIN_BITS),
                "remaining": Out(signed(bits)),
                "not_positive": Out(1),
                "summary": Out(summary_layout(words)),
                "examined": Out(range(lanes + 1)),
                "leaves_lanes": Out(1),
                "next_word": Out(range(max(2, words))),
                "o": Out(entry_layout(words)),
                "selected": Out(lanes),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """The memories and the parts that a row's words pass in turn."""
        m = Module()
        config = self.config
        lanes = Lanes(config.lanes, config.row_clusters // config.lanes, config.buckets)
        m.submodules.lanes = lanes
        m.d.comb += [
            lanes.row.eq(self._row(m)),
            lanes.i.eq(self.entry),
            lanes.flush.eq(self.flush),
            lanes.partial.eq(self.tile.partial),
            lanes.last_word.eq(self.tile.last_word),
            lanes.tail.eq(self._tail()),
            lanes.transform.eq(self.command.transform),
            lanes.scale_mantissa.eq(self.command.scale_mantissa),
            lanes.by_bucket.eq(self.mode.by_bucket & ~self.degenerate),
            lanes.ones.eq(self.degenerate),
            lanes.compare.eq(self.compare),
            self.leaves_lanes.eq(lanes.o.last),
        ]
        self._memories(m, lanes)
        self._bins(m, lanes)
        self._select(m, lanes)
        self._summarize(m, lanes)
        return m

    def _tail(self) -> Value:
        """Clusters in a partial last word."""
        return self.command.clusters[: self.config.lanes.bit_length() - 1]

    def _memories(self, m: Module, lanes: Lanes) -> None:
        """Memories of scores and of token counts; data follow the number of their word by one cycle."""
        shape, depth = 16 * self.config.lanes, self.config.row_clusters // self.config.lanes
        scores: Memory = Memory(shape=shape, depth=depth, init=[], attrs=NO_BYPASS)
        counts: Memory = Memory(shape=shape, depth=depth, init=[], attrs=NO_BYPASS)
        m.submodules.score_memory, m.submodules.count_memory = scores, counts
        # Written from registers, since a memory's blocks are placed far apart.
        number, word = delay(m, self.loaded.number, 1, "number"), delay(m, self.loaded.data, 1, "word")
        for memory, taken in ((scores, self.take_scores), (counts, self.take_counts)):
            write = memory.write_port()
            m.d.comb += [
                write.addr.eq(number),
                write.data.eq(word),
                write.en.eq(delay(m, self.loaded.valid & taken, 1, "written", reset=True)),
            ]
        score_port, count_port = scores.read_port(), counts.read_port()
        m.d.comb += [
            score_port.addr.eq(self.entry.word),
            count_port.addr.eq(lanes.count_word),
            lanes.scores.eq(score_port.data),
            lanes.counts.eq(count_port.data),
        ]

    def _row(self, m: Module) -> data.View:
        """Extremes of the row and its constants (`ROW`)."""
        loaded, lanes = self.loaded, self.config.lanes
        m.submodules.extremes = extremes = Extremes(lanes)
        m.submodules.constants = constants = RowConstants(self.config.buckets)
        m.d.comb += [
            extremes.clear.eq(self.begin_row),
            extremes.word.eq(loaded.data),
            extremes.first.eq(loaded.number == 0),
            extremes.valid.eq(loaded.valid & self.take_scores & self.measure),
            constants.low.eq(extremes.low),
            constants.high.eq(extremes.high),
            constants.exponent.eq(extremes.exponent),
            constants.scale_exponent.eq(self.command.scale_exponent),
            constants.by_bucket.eq(self.mode.by_bucket),
            self.raised.eq(extremes.raised),
            self.top_code.eq(constants.top_code),
            self.top_bin.eq(constants.top_bin),
        ]
        ends_early = delay(m, self.tile.partial & loaded.last, 1, "ends_early")
        for lane in range(lanes):
            in_tail = delay(m, lane < self._tail(), 1, "in_tail")
            m.d.comb += extremes.used[lane].eq(~ends_early | in_tail)
        return constants.row

    def _bins(self, m: Module, lanes: Lanes) -> None:
        """Sums by bin."""
        config = self.config
        lane_bits = PRODUCT_BITS + (config.mask_clusters // config.lanes).bit_length() - 1
        histogram = Histogram(config.lanes, lane_bits, remaining_bits(config))
        m.submodules.histogram = histogram
        final = self.compare.purpose == Purpose.FINAL
        m.d.comb += [
            histogram.clear.eq(self.clear_bins),
            histogram.add.eq(Mux(lanes.o.valid & ~final, lanes.gate, 0)),
        ]
        for lane in range(config.lanes):
            m.d.comb += [
                histogram.product[lane].eq(lanes.product[lane]),
                histogram.digit[lane].eq(lanes.digit[lane]),
            ]
        wiring.connect(m, wiring.flipped(self.scan), histogram.scan)

    def _select(self, m: Module, lanes: Lanes) -> None:
        """Sum of the row, its threshold, and the lanes of a word that are selected."""
        config = self.config
        words = config.row_clusters // config.lanes
        m.submodules.ties = ties = Ties(config.lanes, words, remaining_bits(config))
        m.submodules.threshold = threshold = Threshold(config)
        m.d.comb += [
            ties.i.eq(pipe(m, lanes.o, 1, self.flush)),
            ties.flush.eq(self.flush),
            ties.gate.eq(delay(m, lanes.gate, 1, "gate")),
            ties.above.eq(lanes.above),
            ties.final.eq(self.compare.purpose == Purpose.FINAL),
            ties.load.eq(self.load_left),
            ties.remaining.eq(Mux(self.degenerate, 0, self.left)),
            threshold.clear.eq(self.begin_row | self.flush),
            threshold.first.eq(self.compare.purpose == Purpose.FIRST),
            threshold.add.eq(ties.summed),
            threshold.sum.eq(ties.sum),
            threshold.entry.eq(ties.i),
            threshold.flush.eq(self.flush),
            threshold.last_tile.eq(self.tile.last),
            threshold.raw.eq(self.mode.raw),
            threshold.th_r.eq(self.command.th_r),
            threshold.left.eq(self.left),
            self.remaining.eq(threshold.remaining),
            self.not_positive.eq(threshold.not_positive),
            self.next_word.eq(ties.next_word),
            self.o.eq(ties.o),
            self.selected.eq(ties.selected),
        ]
        for lane in range(config.lanes):
            m.d.comb += ties.product[lane].eq(lanes.product[lane])

    def _summarize(self, m: Module, lanes: Lanes) -> None:
        """What the pass found in a word, and how many clusters it examined."""
        count, purpose = self.config.lanes, self.compare.purpose
        # An unused lane counts as beyond every bin.
        digits = [Cat(lanes.digit[lane], ~lanes.gate[lane]) for lane in range(count)]
        lowest = reduce_tree(digits, lambda a, b: Mux(b < a, b, a), m, 1)
        entry = pipe(m, lanes.o, tree_stages(count, 1), self.flush)
        m.d.comb += [
            self.summary.valid.eq(entry.valid & (purpose != Purpose.FINAL)),
            self.summary.word.eq(entry.word),
            self.summary.void.eq(lowest[BIN_BITS]),
            # Every word that the second pass keeps has clusters in the bin of the crossing.
            self.summary.bin.eq(Mux(purpose == Purpose.FIRST, lowest[:BIN_BITS], 0)),
        ]
        # With resets up to the counter, which would go on counting after a reset of a few cycles.
        counted = delay(m, lanes.o.valid & self.examines, 1, "counted", reset=True)
        gate = delay(m, lanes.gate, 1, "gate")
        examined = [counted & (lanes.above[lane] | gate[lane]) for lane in range(count)]
        m.d.comb += self.examined.eq(reduce_tree(examined, operator.add, m, reset=True))
