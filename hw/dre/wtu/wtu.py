"""WTU: WiCSum threshold unit (paper Section V-B; model `vrex.model.dre.wtu`).

The row's scores are handled `lanes` at a time. `exact` is a radix select over accumulated weight, in three
passes whatever the data. The first sums each bin of scores. The second, over the words that reach the bin in
which the threshold is passed, takes what is above the bin and sums each score of it. The third, over the
words with a cluster in that bin, takes what is above the score at which the threshold is passed, and of the
clusters level with it the first ones. `bucket` needs the first and the last only.

Under `raw` the first pass runs while the row comes in, and again from the row's start whenever a score raises
the row's exponent. A row that does not fit the score memory is sent once for each pass.

The passes go through `Lanes` to `Histogram` (what is summed) and `Ties` (what is taken); between them,
`Crossing` finds where the threshold is passed and `Finder` the words that matter then.
"""

import operator
from typing import Any

import numpy as np
from amaranth import C, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from vrex.hw.dre.wtu.lanes import (
    BIN_BITS,
    CODE_BITS,
    EXP_SHIFT_BITS,
    EXP_STAGES,
    LINEAR_LATENCY,
    PASS,
    PRODUCT_BITS,
    ROW,
    U_BITS,
    Lanes,
    Purpose,
    bin_of,
    first_code,
    integer_form,
    lane_groups,
    pipe,
    token_layout,
)
from vrex.hw.dre.wtu.load import Extremes, Intake
from vrex.hw.dre.wtu.search import SCAN, SCANS, Crossing, Finder, Histogram, Ties, scan_latency, tie_latency
from vrex.hw.lib.float32 import saturate
from vrex.hw.lib.stream import Packer, Stage, delay, reduce_tree, tree_stages
from vrex.model.commands import LONG_PASSES, Register
from vrex.model.config import Config
from vrex.model.dre import wtu as model

ROW_BIAS = 127 + model.FRACTION_BITS + 15 - model.EXP_INDEX_BITS
"""Shift of `exp` before the row's and the scale's exponents are taken off."""

BUCKET_WAIT = 2
"""Cycles that the shift of buckets is known after a row's extremes."""

NO_COLLISION = {"no_rw_check": 1}
"""Of a memory whose words are of no use in the cycle that writes them: Yosys adds nothing for that case."""

COMMAND = data.StructLayout(
    {
        "clusters": 16,
        "rows": 16,
        "heads": 6,
        "th_r": 16,
        "transform": 2,
        "selection": 1,
        "scale_mantissa": 16,
        "scale_exponent": signed(8),
    }
)
DONE = data.StructLayout({"degenerate": 32})


def exponent_wait(config: Config) -> int:
    """Cycles from when a word of scores is written until it may be read and every lane knows its exponent."""
    return max(1, tree_stages(config.wtu.lanes) + lane_groups(config.wtu.lanes) - 1)


def extremes_wait(config: Config) -> int:
    """Cycles more until every lane knows the extremes of the word."""
    return tree_stages(config.wtu.lanes, 1) - tree_stages(config.wtu.lanes)


def search_cycles(config: Config, clusters: int, transform: model.Transform = model.Transform.RAW) -> int:
    """Upper bound of the cycles from the last score of a row that fits to its last bit in the bitmask.

    Args:
        config: accelerator.
        clusters: of the row, 1 to `row_clusters`.
        transform: of the rule.
    """
    stages, scan = tree_stages(config.wtu.lanes), scan_latency(config.wtu.lanes)
    raw = transform == model.Transform.RAW
    words = -(-clusters // config.wtu.lanes)
    through = words + LINEAR_LATENCY + (EXP_STAGES if transform == model.Transform.EXP else 0)
    # Under `raw` the row's last score may raise the exponent, and only positive scores pass the threshold.
    wait = stages + 3 if raw else exponent_wait(config) + extremes_wait(config)
    first_scans, second_scans = SCANS, SCANS
    if raw:
        first_scans = -(-int(model.order_bin(np.array(model.ORDER_ZERO))) // SCAN)
        second_scans = (1 << model.FINE_BITS) // SCAN
    # A cycle goes by between a decision and the first word that is found by it.
    first = wait + through + 3 + scan + first_scans - 1
    second = 1 + through + 3 + scan + second_scans - 1
    return first + second + 1 + through + 1 + tie_latency(config.wtu.lanes)


class Wtu(wiring.Component):
    """Selects the clusters of every KV head of a command.

    Cycles of a command that never waits: see `cycles`; of a row, from its last score on: `search_cycles`.

    Args:
        config: accelerator; `wtu` and `bus_bits` matter.

    Members:
        cmd: clusters (1..mask_clusters), rows per head (>= 1), heads (1..32) and the registers of the rule.
        din: the payload of SELECT (`vrex.model.commands`).
        dout: one bitmask per head: the OR over its rows.
        done: number of `raw` rows whose sum was not positive; follows the last beat of `dout`.
        busy, wait_in, wait_out: a command is in work; it waits for `din`, for `dout`.
        searching: a row is complete and its bits in the bitmask are not.
        row_ends: a row's bits are complete.
        word_again: a word of a row that fits goes through the lanes after the first pass.
        examined: clusters from the top one to the last of the bin, or the bucket, of the crossing, a word's
            at a time.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        wtu = config.wtu
        super().__init__(
            {
                "cmd": In(stream.Signature(COMMAND)),
                "din": In(stream.Signature(config.bus_bits)),
                "dout": Out(stream.Signature(config.bus_bits)),
                "done": Out(stream.Signature(DONE)),
                "busy": Out(1),
                "wait_in": Out(1),
                "wait_out": Out(1),
                "searching": Out(1),
                "row_ends": Out(1),
                "word_again": Out(1),
                "examined": Out(range(wtu.lanes + 1)),
            }
        )
        self.lane_bits = wtu.lanes.bit_length() - 1
        self.words = wtu.row_clusters // wtu.lanes
        self.word_bits = self.words.bit_length() - 1
        self.tile_bits = (wtu.mask_clusters // wtu.row_clusters).bit_length() - 1
        self.sum_bits = PRODUCT_BITS + wtu.mask_clusters.bit_length() - 1
        self.left_bits = self.sum_bits + 2

    @staticmethod
    def cycles(
        config: Config,
        clusters: int,
        rows: int,
        heads: int,
        transform: model.Transform = model.Transform.EXP,
    ) -> int:
        """Upper bound of the cycles from a command to `done` when no port makes the unit wait.

        Args:
            config: accelerator.
            clusters, rows, heads: of the command.
            transform: of the rule; `exp` takes longest.
        """
        wtu = config.wtu
        words = -(-clusters // wtu.lanes)
        load = max(config.beats(clusters, 16), words)
        if clusters <= wtu.row_clusters:
            counts, row = load, load + search_cycles(config, clusters, transform) + 2
        else:
            tiles = -(-clusters // wtu.row_clusters)
            lanes = LINEAR_LATENCY + EXP_STAGES + 1 + tie_latency(wtu.lanes)
            passes = LONG_PASSES - 1
            scan = scan_latency(wtu.lanes) + SCANS + 2
            counts = 0
            row = load + tiles + passes * (2 * load + tiles * (lanes + 5) + scan) + 4
        out = words + 2 * config.beats(clusters, 1) + 5
        return 4 + counts + heads * (rows * row + out)

    @property
    def counters(self) -> dict[Register, Any]:
        """What each counter of the unit adds in a cycle."""
        return {
            Register.WTU_BUSY: self.busy,
            Register.WTU_WAIT_IN: self.wait_in,
            Register.WTU_WAIT_OUT: self.wait_out,
            Register.WTU_ROWS: self.row_ends,
            Register.WTU_SEARCH: self.searching,
            Register.WTU_WORDS: self.word_again,
            Register.WTU_EXAMINED: self.examined,
        }

    def elaborate(self, platform: Any) -> Module:
        """Hardware."""
        m = Module()
        wtu = self.config.wtu
        self.command = Signal(COMMAND)
        self.phase = Signal(range(LONG_PASSES))
        self.tile = Signal(max(1, self.tile_bits))
        self.row_number = Signal(16)
        self.head = Signal(6)
        self.row = Signal(ROW)
        self.compare = Signal(PASS)
        self.idle = Signal()
        self.refined = Signal()
        self.degenerate = Signal()
        self.top_code = Signal(CODE_BITS)
        self.top_bin = Signal(BIN_BITS)
        # High after reset too, so that what it clears needs none.
        self.begin_row = Signal(init=1)
        self.sending = Signal()
        self.first_row = Signal()
        m.submodules.intake = self.intake = Intake(self.config.bus_bits, wtu.lanes, wtu.row_clusters)
        m.submodules.extremes = self.extremes = Extremes(wtu.lanes)
        m.submodules.lanes = self.lanes = Lanes(wtu.lanes, self.words, wtu.buckets)
        lane_sum = PRODUCT_BITS + (wtu.mask_clusters // wtu.lanes).bit_length() - 1
        m.submodules.histogram = self.histogram = Histogram(wtu.lanes, lane_sum)
        m.submodules.crossing = self.crossing = Crossing(wtu.lanes, self.left_bits)
        m.submodules.finder = self.finder = Finder(self.words)
        m.submodules.ties = self.ties = Ties(wtu.lanes, self.words, self.left_bits)
        self._geometry(m)
        self._load(m)
        self._row_constants(m)
        self._reader(m)
        self._passes(m)
        self._threshold(m)
        self._bitmask(m)
        self._sender(m)
        self._decide(m)
        self._control(m)
        return m

    def _geometry(self, m: Module) -> None:
        """Tiles and words of the row, known from the third cycle after the command on."""
        wtu, clusters = self.config.wtu, self.command.clusters
        row_bits = self.lane_bits + self.word_bits
        self.long, self.last_tile, self.partial = Signal(), Signal(), Signal()
        self.next_last_tile = Signal()
        self.last_word = Signal(self.word_bits)
        self.last_cluster, uneven = Signal(16), Signal()
        last_row, last_head = Signal(16), Signal(6)
        self.at_last_row, self.at_last_head = Signal(), Signal()
        with m.If(self.cmd.ready):
            m.d.sync += [
                self.last_cluster.eq(self.cmd.payload.clusters - 1),
                self.long.eq(self.cmd.payload.clusters > wtu.row_clusters),
            ]
        m.d.comb += self.next_last_tile.eq(self.last_tile)
        m.d.sync += [
            uneven.eq(clusters[: self.lane_bits].any()),
            self.last_tile.eq(self.next_last_tile),
            self.last_word.eq(
                Mux(self.next_last_tile, self.last_cluster[self.lane_bits : row_bits], ~C(0, self.word_bits))
            ),
            last_row.eq(self.command.rows - 1),
            last_head.eq(self.command.heads - 1),
            self.at_last_row.eq(self.row_number == last_row),
            self.at_last_head.eq(self.head == last_head),
        ]
        m.d.comb += self.partial.eq(self.last_tile & uneven)
        raw = self.command.transform == model.Transform.RAW.value
        exact = self.command.selection == model.Selection.EXACT.value
        # Such a row needs no extremes: its first pass may begin with its first word.
        self.streams, self.by_bucket, self.raw = Signal(), Signal(), Signal()
        m.d.sync += [
            self.streams.eq(raw & exact & ~self.long),
            self.by_bucket.eq(~exact),
            self.raw.eq(raw),
        ]
        self.before_last_tile = self.tile + 1 == self.last_cluster[row_bits:16]

    def _load(self, m: Module) -> None:
        """Token counts and scores on their way into their memories."""
        wtu, intake, extremes = self.config.wtu, self.intake, self.extremes
        self.take_counts, self.take_scores = Signal(), Signal()
        word = {"shape": 16 * wtu.lanes, "depth": self.words, "init": [], "attrs": NO_COLLISION}
        m.submodules.scores = scores = Memory(**word)
        m.submodules.counts = counts = Memory(**word)
        self.score_port, self.count_port = scores.read_port(), counts.read_port()
        wiring.connect(m, wiring.flipped(self.din), intake.beats)
        m.d.comb += [
            intake.active.eq(self.take_counts | self.take_scores),
            intake.whole.eq(~self.last_tile),
            intake.last_item.eq(self.last_cluster),
            self.wait_in.eq(intake.active & ~self.din.valid),
            self.count_port.addr.eq(self.lanes.count_word),
            extremes.word.eq(intake.data),
            extremes.first.eq(intake.number == 0),
            extremes.valid.eq(intake.valid & self.take_scores & (self.phase == 0)),
        ]
        # Written from registers, since a memory's blocks lie far apart; see `exponent_wait`.
        number, word = delay(m, intake.number, 1, "number"), delay(m, intake.data, 1, "word")
        for memory, taken in ((scores, self.take_scores), (counts, self.take_counts)):
            write = memory.write_port()
            m.d.comb += [
                write.addr.eq(number),
                write.data.eq(word),
                write.en.eq(delay(m, intake.valid & taken, 1, "written", reset=True)),
            ]
        void = delay(m, self.partial & intake.last, 1, "void")
        for lane in range(wtu.lanes):
            in_tail = delay(m, lane < self.command.clusters[: self.lane_bits], 1, "in_tail")
            m.d.comb += extremes.used[lane].eq(~void | in_tail)

    def _row_constants(self, m: Module) -> None:
        """What holds for a whole row: two cycles after its extremes, shift and top of buckets up to five."""
        extremes, command = self.extremes, self.command
        low, _ = integer_form(m, extremes.low, extremes.exponent)
        high, code = integer_form(m, extremes.high, extremes.exponent)
        digit_bits = self.config.wtu.buckets.bit_length() - 1
        span = delay(m, (high - low)[:U_BITS], 1, "span")
        shift: Any = 0
        for bit in range(digit_bits, U_BITS):
            shift = Mux(span[bit], bit + 1 - digit_bits, shift)
        without_row = delay(m, ROW_BIAS - command.scale_exponent, 1, "without_row")
        exp_shift = without_row - extremes.exponent
        exp_shift = Mux(exp_shift[-1], 0, saturate(exp_shift[:-1], EXP_SHIFT_BITS))
        m.d.comb += [
            self.row.exponent.eq(extremes.exponent),
            self.row.u_low.eq(low),
            self.row.u_high.eq(high),
            self.row.bucket_shift.eq(delay(m, C(0, 5) | shift, 1, "bucket_shift")),
            self.row.exp_shift.eq(delay(m, exp_shift[:EXP_SHIFT_BITS], 1, "exp_shift")),
        ]
        top_bucket = ~(span >> self.row.bucket_shift)[:digit_bits]
        m.d.sync += [
            self.top_code.eq(code),
            self.top_bin.eq(Mux(self.by_bucket, top_bucket, bin_of(self.top_code))),
        ]

    def _reader(self, m: Module) -> None:
        """Words of the first pass, or of a tile, as soon as they and the exponents before them are there."""
        extremes = self.extremes
        self.token = Signal(token_layout(self.words))
        self.end_tile = Signal()
        loaded = Signal(self.word_bits + 1, reset_less=True)
        complete = Signal(reset_less=True)
        number = Signal(self.word_bits + 1, reset_less=True)
        known = self._later(m, Cat(loaded, complete), exponent_wait(self.config))
        number_known, complete_known = known[:-1], known[-1]
        whole = self._later(m, complete_known, extremes_wait(self.config))
        # The shift of buckets takes longer than what other rules need.
        whole = Mux(self.by_bucket, self._later(m, whole, BUCKET_WAIT), whole)
        idle = delay(m, self.idle, 1, "idle", reset=True)
        early = Mux(self.long, ~idle, self.streams | whole)
        issue = early & (number != number_known)
        last = number == self.last_word
        finder = self.finder
        with m.If(self.intake.valid & self.take_scores):
            m.d.sync += [loaded.eq(loaded + 1), complete.eq(self.intake.last)]
        with m.If(issue):
            m.d.sync += number.eq(number + 1)
        again = extremes.raised & self.streams
        m.d.sync += self.lanes.flush.eq(again)
        with m.If(again):
            m.d.sync += number.eq(0)
        with m.If(self.end_tile):
            m.d.sync += [loaded.eq(0), complete.eq(0), number.eq(0)]
        m.d.comb += [
            self.token.valid.eq(issue | finder.valid),
            self.token.mark.eq((issue & last) | finder.mark),
            self.token.word.eq(Mux(finder.valid, finder.word, number)),
            self.score_port.addr.eq(self.token.word),
            self.word_again.eq(finder.valid),
        ]

    def _later(self, m: Module, value: Any, cycles: int) -> Any:
        """What is known of a tile, so many cycles later unless the tile has ended."""
        for _ in range(cycles):
            later = Signal(len(value), name="known", reset_less=True)
            m.d.sync += later.eq(value)
            with m.If(self.end_tile):
                m.d.sync += later.eq(0)
            value = later
        return value

    def _passes(self, m: Module) -> None:
        """From words to sums of bins and bits of the bitmask."""
        lanes, ties, histogram, finder = self.lanes, self.ties, self.histogram, self.finder
        first, final = self.compare.purpose == Purpose.FIRST, self.compare.purpose == Purpose.FINAL
        self.clear_bins = Signal()
        m.d.comb += [
            lanes.i.eq(self.token),
            lanes.scores.eq(self.score_port.data),
            lanes.counts.eq(self.count_port.data),
            lanes.partial.eq(self.partial),
            lanes.last_word.eq(self.last_word),
            lanes.tail.eq(self.command.clusters[: self.lane_bits]),
            lanes.transform.eq(self.command.transform),
            lanes.scale_mantissa.eq(self.command.scale_mantissa),
            lanes.by_bucket.eq(self.by_bucket & ~self.degenerate),
            lanes.ones.eq(self.degenerate),
            lanes.row.eq(self.row),
            lanes.compare.eq(self.compare),
            ties.i.eq(pipe(m, lanes.o, 1, lanes.flush)),
            ties.flush.eq(lanes.flush),
            ties.gate.eq(delay(m, lanes.gate, 1, "gate")),
            ties.hard.eq(lanes.hard),
            ties.final.eq(final),
            histogram.add.eq(Mux(lanes.o.valid & ~final, lanes.gate, 0)),
            histogram.clear.eq(delay(m, self.clear_bins | lanes.flush, 1, "clear", reset=True)),
            histogram.scan.eq(self.crossing.scan),
            histogram.group.eq(self.crossing.group),
            histogram.group_bit.eq(self.crossing.group_bit),
        ]
        for total, bins in zip(self.crossing.totals, histogram.totals, strict=True):
            m.d.comb += total.eq(bins)
        lowest = []
        for lane in range(self.config.wtu.lanes):
            m.d.comb += [
                ties.product[lane].eq(lanes.product[lane]),
                histogram.product[lane].eq(lanes.product[lane]),
                histogram.digit[lane].eq(lanes.digit[lane]),
            ]
            lowest.append(Cat(lanes.digit[lane], ~lanes.gate[lane]))
        lowest_digit = reduce_tree(lowest, lambda a, b: Mux(b < a, b, a), m, 1)
        word = pipe(m, lanes.o, tree_stages(self.config.wtu.lanes, 1), lanes.flush)
        m.d.comb += [
            finder.write.eq(word.valid & ~final),
            finder.write_word.eq(word.word),
            finder.write_void.eq(lowest_digit[BIN_BITS]),
            finder.write_bin.eq(Mux(first, lowest_digit[:BIN_BITS], 0)),
            finder.last_word.eq(self.last_word),
        ]
        counted = delay(m, lanes.o.valid & ~first & ~(final & self.refined), 1, "counted")
        gate = delay(m, lanes.gate, 1, "gate")
        looked_at = [counted & (lanes.hard[lane] | gate[lane]) for lane in range(self.config.wtu.lanes)]
        m.d.comb += self.examined.eq(reduce_tree(looked_at, operator.add, m))

    def _threshold(self, m: Module) -> None:
        """The row's sum and what has to be exceeded, in time for the first scan."""
        lanes, ties, flush = self.config.wtu.lanes, self.ties, self.lanes.flush
        first = self.compare.purpose == Purpose.FIRST
        total = Signal(signed(self.sum_bits), reset_less=True)
        with m.If(ties.summed & first):
            m.d.sync += total.eq(total + ties.sum)
        with m.If(self.begin_row | flush):
            m.d.sync += total.eq(0)
        stages = tree_stages(lanes)
        total_known = pipe(m, ties.i, stages + 1, flush).mark & first
        total_known &= self.last_tile
        not_positive = delay(m, total_known & self.raw & (total <= 0), 1, "not_positive", reset=True)
        # Not before the finder knows every word.
        wait = max(0, tree_stages(lanes, 1) - stages - 2)
        self.not_positive = delay(m, not_positive, wait, "not_positive", reset=True)
        scaled = self._times_th_r(m, total)
        m.d.sync += self.crossing.remaining.eq(
            Mux(first, scaled >> model.TH_R_BITS, self.crossing.left)[: self.left_bits].as_signed()
        )

    def _times_th_r(self, m: Module, total: Any) -> Any:
        """Th_r * `total`, three cycles later: its multiples by two bits each, joined pairwise."""
        th_r = self.command.th_r
        held, triple = (
            delay(m, total, 1, "total"),
            delay(m, (total + (total << 1))[: len(total) + 2].as_signed(), 1, "triple"),
        )
        digits = [th_r[place : place + 2] for place in range(0, model.TH_R_BITS, 2)]
        parts = [Mux(digit[1], Mux(digit[0], triple, held << 1), Mux(digit[0], held, 0)) for digit in digits]
        bits = 2
        while True:
            sums = [low + (high << bits) for low, high in zip(parts[0::2], parts[1::2], strict=True)]
            bits *= 2
            parts = [value[: len(total) + bits].as_signed() for value in sums]
            if len(parts) == 1:
                return parts[0]
            parts = [delay(m, value, 1, "scaled") for value in parts]

    def _bitmask(self, m: Module) -> None:
        """The head's bits, joined with those of its earlier rows."""
        wtu, ties = self.config.wtu, self.ties
        words = wtu.mask_clusters // wtu.lanes
        m.submodules.bitmask = bitmask = Memory(shape=wtu.lanes, depth=words, init=[], attrs=NO_COLLISION)
        self.mask_read, write = bitmask.read_port(), bitmask.write_port()
        # The word that is sent, whether it is taken, and the word after it, which is read then.
        self.sent_word, self.ahead = Signal(range(max(2, words))), Signal(range(max(2, words)))
        self.clear_word, self.read_first = Signal(), Signal()
        # The command's first words of scores, of a row that fits those of token counts, clear their places.
        fresh = self.intake.valid & self.first_row & (self.phase == 0) & (self.long | self.take_counts)
        within = self.tile[: self.tile_bits]
        clear = delay(m, fresh | self.clear_word, 1, "clear", reset=True)
        clear_word = Mux(self.sending, self.sent_word, Cat(self.intake.number, within))
        clear_word = delay(m, clear_word, 1, "clear_word")
        m.d.comb += [
            self.mask_read.addr.eq(Mux(self.sending, self.ahead, Cat(ties.soon, within))),
            self.mask_read.en.eq(~self.sending | self.read_first | self.clear_word),
        ]
        # What was read comes late in its cycle, so a word is written one cycle later.
        m.d.sync += [
            write.addr.eq(Mux(clear, clear_word, Cat(ties.o.word, within))),
            write.data.eq(Mux(clear, 0, ties.taken | self.mask_read.data)),
            write.en.eq(clear | (ties.o.valid & (self.compare.purpose != Purpose.FIRST))),
        ]

    def _decide(self, m: Module) -> None:
        """Starts a pass over the words that reach the bin of the crossing."""
        crossing, compare, finder = self.crossing, self.compare, self.finder
        first = compare.purpose == Purpose.FIRST
        # The words are sought as soon as the bin is known; all that were kept in the second pass matter.
        m.d.comb += [
            finder.start.eq(crossing.ends & ~self.long),
            finder.cut.eq(Mux(self.not_positive, self.top_bin, crossing.cut)),
            self.ties.load.eq(delay(m, crossing.done, 1, "decided", reset=True)),
            self.ties.remaining.eq(Mux(self.degenerate, 0, crossing.left)),
            self.clear_bins.eq(self.begin_row | crossing.done),
        ]
        with m.If(self.not_positive):
            m.d.sync += self.degenerate.eq(1)
        refine = first & crossing.found & ~self.by_bucket & ~self.degenerate
        with m.If(crossing.done):
            m.d.sync += [
                self.refined.eq(self.refined | refine),
                compare.purpose.eq(Mux(refine, Purpose.SECOND, Purpose.FINAL)),
                # The sum is not exceeded, or whole buckets are taken: up to a bin, or all.
                compare.whole.eq(first & ~self.degenerate & (self.by_bucket | ~crossing.found)),
                compare.cut.eq(crossing.bin),
                compare.limit.eq((compare.limit + crossing.bin)[:CODE_BITS]),
            ]
            with m.If(first):
                # The top cluster alone: every cluster weighs 1, and 0 is to be exceeded.
                m.d.sync += compare.limit.eq(Mux(self.degenerate, self.top_code, first_code(crossing.bin)))

    def _control(self, m: Module) -> None:
        """Sequence of one command."""
        command = self.command
        self.degenerate_rows = Signal(32)
        unused = (self.phase == 0) | ((self.phase == 2) & (self.compare.purpose != Purpose.SECOND))
        m.d.comb += [
            self.busy.eq(1),
            self.extremes.clear.eq(self.begin_row),
            self.idle.eq(self.long & unused),
        ]
        self.tile_ends = Signal()
        m.d.comb += self.end_tile.eq(self.begin_row | self.tile_ends)
        m.d.sync += [self.begin_row.eq(0), self.tile_ends.eq(0)]
        with m.If(self.begin_row):
            m.d.sync += [
                self.phase.eq(0),
                self.tile.eq(0),
                self.compare.eq(0),
                self.refined.eq(0),
                self.degenerate.eq(0),
            ]
            m.d.comb += self.next_last_tile.eq(~self.long)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [self.cmd.ready.eq(1), self.busy.eq(0)]
                m.d.sync += [self.row_number.eq(0), self.head.eq(0), self.degenerate_rows.eq(0)]
                m.d.sync += self.first_row.eq(1)
                m.d.sync += command.eq(self.cmd.payload)
                with m.If(self.cmd.valid):
                    m.next = "COMMAND"
            with m.State("COMMAND"):
                m.d.comb += self.next_last_tile.eq(~self.long)
                self._take(m, "COUNTS")
                with m.If(self.long):
                    self._take(m, "SCORES")
            self._load_states(m)
            self._search_states(m)
            with m.State("ROW_END"):
                m.d.comb += self.row_ends.eq(1)
                m.d.sync += [
                    self.first_row.eq(0),
                    self.row_number.eq(self.row_number + 1),
                    self.degenerate_rows.eq(self.degenerate_rows + self.degenerate),
                ]
                self._take(m, "SCORES")
                with m.If(self.at_last_row):
                    m.d.sync += [self.row_number.eq(0), self.sending.eq(1), self.take_scores.eq(0)]
                    m.next = "OUT"
            self._out_states(m)

    def _take(self, m: Module, state: str) -> None:
        """Goes on to take counts or scores, which much depends on: each has a register beside the state's."""
        m.d.sync += [self.take_counts.eq(state == "COUNTS"), self.take_scores.eq(state == "SCORES")]
        m.next = state

    def _load_states(self, m: Module) -> None:
        """States that take in counts and scores, and wait until their words went through the lanes."""
        with m.State("COUNTS"), m.If(self.intake.valid & self.intake.last):
            self._take(m, "SCORES")
        with m.State("SCORES"), m.If(self.intake.valid & self.intake.last):
            m.d.sync += self.take_scores.eq(0)
            m.next = "WORDS"
            with m.If(self.idle):
                m.d.sync += self.tile_ends.eq(1)
                m.next = "NEXT_TILE"
        with m.State("WORDS"):
            m.d.comb += self.searching.eq(~self.long)
            # The bits of a tile's last word must find their place before the next tile begins.
            more_tiles = self.long & ~self.last_tile
            with m.If(more_tiles & self.ties.o.mark):
                m.d.sync += self.tile_ends.eq(1)
                m.next = "NEXT_TILE"
            with m.If(~more_tiles & self.lanes.o.mark):
                m.next = "SUMS"
                with m.If(self.compare.purpose == Purpose.FINAL):
                    m.next = "BITS"
        with m.State("NEXT_TILE"):
            # On to the row's next tile, or to the first tile of its next pass.
            m.d.sync += self.tile.eq(self.tile + 1)
            m.d.comb += self.next_last_tile.eq(self.before_last_tile)
            self._take(m, "COUNTS")
            with m.If(self.last_tile):
                m.d.sync += [self.tile.eq(0), self.phase.eq(self.phase + 1)]
                m.d.comb += self.next_last_tile.eq(0)
            with m.Elif(self.phase == 0):
                self._take(m, "SCORES")
        with m.State("BITS"):
            # The bits of the last word are still on their way.
            m.d.comb += self.searching.eq(~self.long)
            with m.If(self.ties.o.mark):
                m.d.sync += self.begin_row.eq(1)
                m.next = "ROW_END"

    def _search_states(self, m: Module) -> None:
        """States between passes."""
        m.d.comb += self.crossing.stop.eq(self.not_positive)
        # The last products reach their sums, and the scan must not need the threshold before it is there.
        with m.State("SUMS"):
            m.d.comb += self.searching.eq(~self.long)
            m.next = "SCAN_START"
        with m.State("SCAN_START"):
            m.d.comb += [self.searching.eq(~self.long), self.crossing.start.eq(1)]
            m.next = "SCAN"
        with m.State("SCAN"):
            m.d.comb += self.searching.eq(~self.long)
            with m.If(self.crossing.done):
                m.next = "WORDS"
                with m.If(self.long):
                    m.d.sync += self.tile_ends.eq(1)
                    m.next = "NEXT_TILE"

    def _sender(self, m: Module) -> None:
        """Sends the words of a head's bitmask while `send` is high, and clears them behind it."""
        m.submodules.packer = packer = self.packer = Packer(self.config.wtu.lanes, self.config.bus_bits)
        m.submodules.stage = stage = self.stage = Stage(packer.i.payload.shape())
        wiring.connect(m, stage.o, packer.i)
        wiring.connect(m, packer.o, wiring.flipped(self.dout))
        self.last_sent_word = self.last_cluster[self.lane_bits :][: len(self.sent_word)]
        self.send, self.last_sent = Signal(), Signal()
        m.d.comb += [
            self.wait_out.eq(packer.o.valid & ~self.dout.ready),
            stage.i.payload.data.eq(self.mask_read.data),
            stage.i.payload.last.eq(self.last_sent),
            stage.i.valid.eq(self.send),
            self.clear_word.eq(self.send & stage.i.ready),
        ]
        with m.If(self.read_first | self.clear_word):
            m.d.sync += [
                self.sent_word.eq(self.ahead),
                self.ahead.eq(self.ahead + 1),
                self.last_sent.eq(self.ahead == self.last_sent_word),
                self.send.eq(self.read_first | ~self.last_sent),
            ]

    def _out_states(self, m: Module) -> None:
        """States that send a head's bitmask and end the command."""
        with m.State("OUT"):
            m.d.comb += self.read_first.eq(1)
            m.next = "SEND"
        with m.State("SEND"), m.If(~self.send):
            m.d.sync += [self.sending.eq(0), self.ahead.eq(0), self.head.eq(self.head + 1)]
            self._take(m, "SCORES")
            with m.If(self.at_last_head):
                m.d.sync += self.take_scores.eq(0)
                m.next = "DONE"
        with m.State("DONE"):
            m.d.comb += [
                self.done.valid.eq(~(self.stage.o.valid | self.packer.o.valid)),
                self.done.payload.degenerate.eq(self.degenerate_rows),
            ]
            with m.If(self.done.valid & self.done.ready):
                m.next = "IDLE"
