"""WTU: WiCSum threshold unit (paper Section V-B; model `vrex.model.wtu`).

A row of scores is loaded once and then passed over a fixed number of times, `lanes` scores a cycle, through
one pipeline: integer form, weight, weight x token count, and `buckets` adder trees whose sums are cumulative
from the highest bucket. `exact` finds the score at which the threshold is passed digit by digit, most
significant first (radix select over accumulated weight), in `digits` passes, whatever the data; the first
of them also gives the row's sum. The last pass makes the bitmask: scores above that value are taken, those
equal to it while the threshold is not passed, for which the same trees form running sums over the lanes.
`bucket` needs the first and the last pass only.
"""

import operator
from typing import Any

from amaranth import C, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from vrex.hw.stream import BeatMemory, Packer, delay, reduce_tree, tree_stages
from vrex.model import wtu as model
from vrex.model.config import Config

U_BITS = 16
WEIGHT_BITS = 33
NIBBLE = 4
"""Bits of Th_r multiplied in one cycle."""

ROW_BIAS = 127 + model.FRACTION_BITS + 15 - model.EXP_INDEX_BITS
"""Shift of `exp` before the row's and the scale's exponents are taken off."""

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


class Pass(enum.Enum, shape=1):
    """What a pass over the row is for."""

    SUM = 0
    MASK = 1


def unpack(score: Any) -> tuple[Any, Any, Any, Any]:
    """BF16 bits -> (biased exponent >= 1, signed fixed-point value at that exponent, special, NaN)."""
    exponent, fraction = score[7:15], score[:7]
    special = exponent.all()
    magnitude = Cat(C(0, 7), fraction, exponent.any())
    fixed = Mux(score[15], -magnitude, magnitude)
    saturated = Mux(score[15], C(-(1 << 15), signed(16)), C((1 << 15) - 1, signed(16)))
    value = Mux(special, saturated, fixed)[:U_BITS].as_signed()
    return Mux(exponent.any(), exponent, 1)[:8], value, special, special & fraction.any()


def integer_form(m: Module, score: Any, row_exponent: Any) -> Any:
    """BF16 bits -> u of the numeric contract, signed 16 bits, two cycles later."""
    exponent, value, special, _ = unpack(score)
    distance = (row_exponent - exponent)[:8]
    shift = Mux(special, 0, Mux(distance > U_BITS, U_BITS, distance))[:5]
    shifted = delay(m, value, 1, "value") >> delay(m, shift, 1, "shift")
    return delay(m, shifted[:U_BITS].as_signed(), 1, "u")


def ordered(score: Any) -> Any:
    """BF16 bits -> unsigned 16 bits that sort as the scores do."""
    return Mux(score[15], ~score, score | 0x8000)[:16]


def unordered(key: Any) -> Any:
    """Inverse of `ordered`."""
    return Mux(key[15], key & 0x7FFF, ~key)[:16]


def extremes_latency(scores: int) -> int:
    """Cycles from a beat of so many scores to the `Extremes` that count it."""
    return 2 + tree_stages(scores)


def pipeline_latency(lanes: int) -> int:
    """Cycles from a word's number to the accumulators, or the bitmask, that count it.

    Memory, integer form (2), weight (5), product, bucket sums, accumulator.
    """
    return 9 + tree_stages(lanes) + 1


def radix_digits(buckets: int) -> int:
    """Digits, and so passes, in which a 16-bit score is found among so many buckets a pass."""
    return -(-U_BITS // (buckets.bit_length() - 1))


class Extremes(wiring.Component):
    """Largest and smallest score and largest finite exponent of a row, while its beats go by.

    Latency `latency` cycles from a beat to the outputs that count it.

    Args:
        scores: scores in a beat, a power of two.

    Members:
        clear: forget everything; comes before the row's first beat.
        valid, beat, used: a beat, and how many of its scores belong to the row.
        low, high: order-preserving form of the smallest and largest score that is not NaN.
        exponent: biased, at least 1.
    """

    def __init__(self, scores: int) -> None:
        self.scores = scores
        self.latency = extremes_latency(scores)
        super().__init__(
            {
                "clear": In(1),
                "valid": In(1),
                "beat": In(16 * scores),
                "used": In(range(scores + 1)),
                "low": Out(16, init=0xFFFF),
                "high": Out(16),
                "exponent": Out(8, init=1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware."""
        m = Module()
        lows, highs, exponents = [], [], []
        for i in range(self.scores):
            score = self.beat.word_select(i, 16)
            exponent, _, special, nan = unpack(score)
            key = ordered(score)
            used = (i < self.used) & ~nan
            lows.append(delay(m, Mux(used, key, 0xFFFF)[:16], 1, "low"))
            highs.append(delay(m, Mux(used, key, 0)[:16], 1, "high"))
            exponents.append(delay(m, Mux(used & ~special, exponent, 1)[:8], 1, "exponent"))
        low = reduce_tree(lows, lambda a, b: Mux(b < a, b, a), m)
        high = reduce_tree(highs, lambda a, b: Mux(b > a, b, a), m)
        exponent = reduce_tree(exponents, lambda a, b: Mux(b > a, b, a), m)
        with m.If(delay(m, self.valid, self.latency - 1, "valid", reset=True)):
            m.d.sync += [
                self.low.eq(Mux(low < self.low, low, self.low)),
                self.high.eq(Mux(high > self.high, high, self.high)),
                self.exponent.eq(Mux(exponent > self.exponent, exponent, self.exponent)),
            ]
        with m.If(self.clear):
            m.d.sync += [self.low.eq(0xFFFF), self.high.eq(0), self.exponent.eq(1)]
        return m


class Wtu(wiring.Component):
    """Selects the clusters of every KV head of a command.

    Cycles of a command that never waits: see `cycles`.

    Args:
        config: accelerator; `wtu` and `bus_bits` matter.

    Members:
        cmd: clusters (1..row_clusters), rows per head (>= 1), heads (1..32) and the registers of the rule.
        din: beats with the token counts, then for each head and row the beats of its scores.
        dout: one bitmask per head: the OR over its rows.
        done: number of `raw` rows whose sum was not positive; follows the last beat of `dout`.
        busy, wait_in, wait_out: a command is in work; it waits for `din`, for `dout`.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "cmd": In(stream.Signature(COMMAND)),
                "din": In(stream.Signature(config.bus_bits)),
                "dout": Out(stream.Signature(config.bus_bits)),
                "done": Out(stream.Signature(DONE)),
                "busy": Out(1),
                "wait_in": Out(1),
                "wait_out": Out(1),
            }
        )
        wtu = config.wtu
        self.digit_bits = wtu.buckets.bit_length() - 1
        self.digits = radix_digits(wtu.buckets)
        self.key_bits = self.digits * self.digit_bits
        self.sum_bits = WEIGHT_BITS + wtu.row_clusters.bit_length() - 1
        self.trees = max(wtu.lanes, wtu.buckets)
        self.latency = pipeline_latency(wtu.lanes)

    @staticmethod
    def cycles(config: Config, clusters: int, rows: int, heads: int, *, exact: bool = True) -> int:
        """Upper bound of the cycles from a command to `done` when no port makes the unit wait."""
        wtu = config.wtu
        beats, words = config.beats(clusters, 16), -(-clusters // wtu.lanes)
        load = beats + extremes_latency(config.bus_bits // 16) + 4
        passes = 1 + (radix_digits(wtu.buckets) if exact else 1)
        search = passes * (words + pipeline_latency(wtu.lanes) + 3) + 5
        out = words + 2 * config.beats(clusters, 1) + 3
        return 4 + beats + heads * (rows * (load + search) + out)

    def elaborate(self, platform: Any) -> Module:
        """Hardware."""
        m = Module()
        wtu = self.config.wtu
        self.command = Signal(COMMAND)
        self.word = Signal(range(max(2, wtu.row_clusters // wtu.lanes)))
        self.issue = Signal()
        self.last_word = Signal()
        self.purpose = Signal(Pass)
        self.first_row = Signal()
        self._row_registers(m)
        self._load(m)
        self._lanes(m)
        self._sums(m)
        self._bitmask(m)
        self._control(m)
        return m

    def _row_registers(self, m: Module) -> None:
        """What holds for a whole row: extremes in integer form, shifts, and the state of the search."""
        self.extremes = extremes = Extremes(self.config.bus_bits // 16)
        m.submodules.extremes = extremes
        command = self.command
        self.u_low = integer_form(m, unordered(extremes.low), extremes.exponent)
        self.u_high = integer_form(m, unordered(extremes.high), extremes.exponent)
        self.bucket_shift = Signal(range(U_BITS + 1))
        span = (self.u_high - self.u_low)[:U_BITS]
        for bit in range(self.digit_bits, U_BITS):
            with m.If(span[bit]):
                m.d.sync += self.bucket_shift.eq(bit + 1 - self.digit_bits)
        with m.If(~span[self.digit_bits :].any()):
            m.d.sync += self.bucket_shift.eq(0)
        shift = ROW_BIAS - command.scale_exponent - extremes.exponent
        self.exp_shift = Signal(6)
        m.d.sync += self.exp_shift.eq(Mux(shift < 0, 0, Mux(shift > 32, 32, shift)))
        self.digit_index = Signal(range(self.digits + 1))
        self.prefix = Signal(self.key_bits)
        self.known = Signal(self.key_bits)
        self.cut = Signal(self.digit_bits)
        self.everything = Signal()
        self.degenerate = Signal()
        self.by_bucket = Signal()
        bucket = command.selection == model.Selection.BUCKET.value
        m.d.comb += self.by_bucket.eq(bucket & ~self.degenerate)
        self.remaining = Signal(signed(self.sum_bits + 1))

    def _load(self, m: Module) -> None:
        """Token counts and scores on their way into their memories."""
        wtu, bus = self.config.wtu, self.config.bus_bits
        per_beat = bus // 16
        row_bits = 16 * wtu.lanes
        m.submodules.scores = self.scores = BeatMemory(bus, row_bits, 16 * wtu.row_clusters)
        m.submodules.counts = self.counts = BeatMemory(bus, row_bits, 16 * wtu.row_clusters)
        self.beat = Signal(range(max(2, 16 * wtu.row_clusters // bus)))
        shift = per_beat.bit_length() - 1
        tail = self.command.clusters[:shift]
        self.last_beat = self.beat == ((self.command.clusters - 1) >> shift)[: len(self.beat)]
        m.d.comb += self.extremes.used.eq(Mux(self.last_beat & tail.any(), tail, per_beat))
        m.d.comb += self.extremes.beat.eq(self.din.payload)
        for memory in (self.scores, self.counts):
            m.d.comb += [
                memory.write_beat.eq(self.beat),
                memory.write_data.eq(self.din.payload),
                memory.read_row.eq(self.word),
            ]

    def _lanes(self, m: Module) -> None:
        """From a word's number to weight x count and flags of every lane, 9 cycles later."""
        wtu = self.config.wtu
        lane_bits = wtu.lanes.bit_length() - 1
        tail = self.command.clusters[:lane_bits]
        partial = delay(m, self.last_word, 1, "last_word") & tail.any()
        there = delay(m, self.issue, 1, "issue", reset=True)
        self.products, self.in_bucket, self.hard, self.tie = [], [], [], []
        m.submodules.exp_table = table = Memory(
            shape=16, depth=len(model.EXP_TABLE), init=[int(x) for x in model.EXP_TABLE]
        )
        for lane in range(wtu.lanes):
            score = self.scores.read_data.word_select(lane, 16)
            used = there & (~partial | (lane < tail)) & ~unpack(score)[3]
            u = integer_form(m, score, self.extremes.exponent)
            above_low = delay(m, (u - self.u_low)[:U_BITS], 1, "above_low")
            self._lane_weight(
                m, table, u, above_low, delay(m, self.counts.read_data.word_select(lane, 16), 7)
            )
            self._lane_flags(m, delay(m, u, 1, "u"), above_low, delay(m, used, 3, "used", reset=True))

    def _lane_weight(self, m: Module, table: Memory, u: Any, above_low: Any, count: Any) -> None:
        """Weight x token count, six cycles after u."""
        command = self.command
        below_high = delay(m, (self.u_high - u)[:U_BITS], 1, "below_high")
        raw = command.transform == model.Transform.RAW.value
        linear = Signal(signed(U_BITS + 1), name="linear")
        m.d.comb += linear.eq(Mux(raw, delay(m, u, 1, "u"), above_low))
        shifted = delay(m, below_high * command.scale_mantissa, 1, "scaled") >> self.exp_shift
        x = Signal(model.EXP_INDEX_BITS + 5, name="exponent", reset_less=True)
        top = len(x) - 1
        m.d.sync += x.eq(Mux(shifted[top:].any(), model.EXP_SATURATED, shifted[:top]))
        port = table.read_port()
        m.d.comb += port.addr.eq(x[: model.EXP_INDEX_BITS])
        power = port.data >> delay(m, x[model.EXP_INDEX_BITS :], 1, "power")
        use_exp = command.transform == model.Transform.EXP.value
        weight = Signal(signed(U_BITS + 1), name="weight", reset_less=True)
        m.d.sync += weight.eq(Mux(use_exp, power, delay(m, linear, 3, "linear")))
        product = Signal(signed(WEIGHT_BITS), name="product", reset_less=True)
        m.d.sync += product.eq(Mux(self.degenerate, 1, weight * count))
        self.products.append(product)

    def _lane_flags(self, m: Module, u: Any, above_low: Any, used: Any) -> None:
        """Which bucket sums a lane adds to, and whether it is taken for sure or a tie, five cycles later."""
        bucket = self.command.selection == model.Selection.BUCKET.value
        key = Cat(C(0, self.key_bits - U_BITS), u[: U_BITS - 1], ~u[U_BITS - 1])
        digit = Signal(self.digit_bits, name="digit", reset_less=True)
        place = self.digits - 1 - self.digit_index
        m.d.sync += digit.eq(
            Mux(
                bucket,
                above_low >> self.bucket_shift,
                key.word_select(place[: len(self.digit_index)], self.digit_bits),
            )
        )
        equal = ((key ^ self.prefix) & self.known) == 0
        member = delay(m, used & equal, 4, "member")
        late_digit = delay(m, digit, 3, "digit")
        self.in_bucket.append(
            [delay(m, member & (late_digit >= k), 1, "in_bucket") for k in range(self.config.wtu.buckets)]
        )
        taken = self.everything | (key > self.prefix)
        hard = delay(m, used & (taken | self.by_bucket), 1, "hard")
        hard &= ~self.by_bucket | self.everything | (digit >= self.cut)
        self.hard.append(delay(m, hard, 4, "hard"))
        self.tie.append(delay(m, used & equal & ~self.by_bucket & ~self.everything, 5, "tie"))

    def _sums(self, m: Module) -> None:
        """Adder trees: per bucket and cumulative from the top, or (last pass) running over tied lanes."""
        wtu = self.config.wtu
        making_mask = self.purpose == Pass.MASK
        self.sums = []
        for k in range(self.trees):
            leaves = []
            for lane in range(wtu.lanes):
                of_pass = self.in_bucket[lane][k] if k < wtu.buckets else C(0)
                of_mask = self.tie[lane] if lane <= k else C(0)
                leaves.append(
                    Mux(Mux(making_mask, of_mask, of_pass), self.products[lane], C(0, signed(WEIGHT_BITS)))
                )
            self.sums.append(reduce_tree(leaves, operator.add, m))
        self.totals = [Signal(signed(self.sum_bits), name=f"total_{k}") for k in range(wtu.buckets)]
        for total, partial in zip(self.totals, self.sums, strict=False):
            m.d.sync += total.eq(total + partial)

    def _bitmask(self, m: Module) -> None:
        """Last pass: the word's bits, joined with those of the head's earlier rows."""
        wtu = self.config.wtu
        m.submodules.union = union = Memory(shape=wtu.lanes, depth=wtu.row_clusters // wtu.lanes, init=[])
        self.union_read, write = union.read_port(), union.write_port()
        stages = tree_stages(wtu.lanes)
        valid = delay(m, self.issue & (self.purpose == Pass.MASK), self.latency - 1, "mask_valid", reset=True)
        word = delay(m, self.word, self.latency - 1, "mask_word")
        taken = []
        for lane in range(wtu.lanes):
            before = self.sums[lane - 1] if lane else C(0)
            tie = delay(m, self.tie[lane], stages, "tie") & (before <= self.remaining)
            taken.append(delay(m, self.hard[lane], stages, "hard") | tie)
        with m.If(valid):
            m.d.sync += self.remaining.eq(self.remaining - self.sums[wtu.lanes - 1])
        m.d.comb += [
            self.union_read.addr.eq(word),
            write.addr.eq(delay(m, word, 1, "mask_word")),
            write.en.eq(delay(m, valid, 1, "mask_valid", reset=True)),
            write.data.eq(delay(m, Cat(taken), 1, "taken") | Mux(self.first_row, 0, self.union_read.data)),
        ]

    def _control(self, m: Module) -> None:
        """Sequence of one command."""
        command = self.command
        self.row = Signal(16)
        self.head = Signal(6)
        self.degenerate_rows = Signal(32)
        lane_bits = self.config.wtu.lanes.bit_length() - 1
        m.d.comb += [
            self.last_word.eq(self.word == ((command.clusters - 1) >> lane_bits)[: len(self.word)]),
            self.first_row.eq(self.row == 0),
            self.busy.eq(1),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [self.cmd.ready.eq(1), self.busy.eq(0), self.extremes.clear.eq(1)]
                m.d.sync += [self.row.eq(0), self.head.eq(0), self.beat.eq(0), self.degenerate_rows.eq(0)]
                with m.If(self.cmd.valid):
                    m.d.sync += command.eq(self.cmd.payload)
                    m.next = "COUNTS"
            self._load_state(m, "COUNTS", self.counts, then="SCORES")
            self._load_state(m, "SCORES", self.scores, then="FLUSH")
            self._pass_states(m)
            self._search_states(m)
            with m.State("ROW_END"):
                m.d.comb += self.extremes.clear.eq(1)
                m.d.sync += [
                    self.row.eq(self.row + 1),
                    self.degenerate_rows.eq(self.degenerate_rows + self.degenerate),
                ]
                m.next = "SCORES"
                with m.If(self.row == command.rows - 1):
                    m.d.sync += self.row.eq(0)
                    m.next = "OUT"
            self._out_states(m)

    def _load_state(self, m: Module, name: str, memory: BeatMemory, then: str) -> None:
        """State that takes one field of `din` into a memory."""
        with m.State(name):
            m.d.comb += [
                self.din.ready.eq(1),
                self.wait_in.eq(~self.din.valid),
                memory.write_en.eq(self.din.valid),
                self.extremes.valid.eq(self.din.valid & (memory is self.scores)),
            ]
            with m.If(self.din.valid):
                m.d.sync += self.beat.eq(Mux(self.last_beat, 0, self.beat + 1))
                with m.If(self.last_beat):
                    m.next = then

    def _pass_states(self, m: Module) -> None:
        """States that settle the row's registers and run a pass over the row."""
        settled = self.extremes.latency + 3
        countdown = Signal(range(settled + 1), init=settled)
        self.product = Signal(signed(self.sum_bits + model.TH_R_BITS))
        with m.State("FLUSH"):
            m.d.sync += countdown.eq(countdown - 1)
            m.d.sync += [
                self.purpose.eq(Pass.SUM),
                self.digit_index.eq(0),
                self.prefix.eq(0),
                self.known.eq(0),
                self.everything.eq(0),
                self.degenerate.eq(0),
                self.product.eq(0),
            ]
            with m.If(countdown == 0):
                m.d.sync += countdown.eq(settled)
                m.next = "PASS"
        with m.State("PASS"):
            m.d.comb += self.issue.eq(1)
            m.d.sync += self.word.eq(Mux(self.last_word, 0, self.word + 1))
            with m.If(self.word == 0):
                m.d.sync += [total.eq(0) for total in self.totals]
            with m.If(self.last_word):
                m.next = "DRAIN"
        finished = delay(m, self.issue & self.last_word, self.latency, "finished", reset=True)
        with m.State("DRAIN"), m.If(finished):
            m.next = "HITS"
            with m.If(self.purpose == Pass.MASK):
                m.next = "ROW_END"
            with m.Elif(self.digit_index == 0):
                m.next = "THRESHOLD"

    def _search_states(self, m: Module) -> None:
        """States between passes: threshold, then the bucket in which it is passed."""
        command, total, product = self.command, self.totals[0], self.product
        steps = model.TH_R_BITS // NIBBLE
        step = Signal(range(steps))
        nibble = command.th_r.word_select((steps - 1 - step)[: len(step)], NIBBLE)
        with m.State("THRESHOLD"):
            m.d.sync += [product.eq((product << NIBBLE) + total * nibble), step.eq(step + 1)]
            with m.If(step == steps - 1):
                m.next = "LIMIT"
        with m.State("LIMIT"):
            m.d.sync += self.remaining.eq(product >> model.TH_R_BITS)
            m.next = "HITS"
            with m.If((command.transform == model.Transform.RAW.value) & (total <= 0)):
                top = Cat(C(0, self.key_bits - U_BITS), self.u_high[: U_BITS - 1], ~self.u_high[U_BITS - 1])
                m.d.sync += [self.degenerate.eq(1), self.remaining.eq(0), self.purpose.eq(Pass.MASK)]
                m.d.sync += [self.prefix.eq(top), self.known.eq(~0)]
                m.next = "PASS"
        hits = Signal(self.config.wtu.buckets)
        with m.State("HITS"):
            m.d.sync += [hit.eq(total > self.remaining) for hit, total in zip(hits, self.totals, strict=True)]
            m.next = "PICK"
        with m.State("PICK"):
            self._pick(m, hits)
            m.next = "PASS"

    def _pick(self, m: Module, hits: Signal) -> None:
        """Takes the highest bucket at which the threshold is passed; everything if there is none."""
        bucket = Signal(self.digit_bits)
        above = Signal.like(self.totals[0])
        for k in range(self.config.wtu.buckets):
            with m.If(hits[k]):
                m.d.comb += [bucket.eq(k), above.eq(self.totals[k + 1] if k + 1 < len(self.totals) else 0)]
        place = (self.digits - 1 - self.digit_index)[: len(self.digit_index)]
        with m.If(~hits.any()):
            m.d.sync += [self.everything.eq(1), self.purpose.eq(Pass.MASK)]
        with m.Elif(self.by_bucket):
            m.d.sync += [self.cut.eq(bucket), self.purpose.eq(Pass.MASK)]
        with m.Else():
            m.d.sync += [
                self.prefix.word_select(place, self.digit_bits).eq(bucket),
                self.known.word_select(place, self.digit_bits).eq(~0),
                self.remaining.eq(self.remaining - above),
                self.digit_index.eq(self.digit_index + 1),
                self.purpose.eq(Mux(self.digit_index == self.digits - 1, Pass.MASK, Pass.SUM)),
            ]

    def _out_states(self, m: Module) -> None:
        """States that send a head's bitmask and end the command."""
        lanes, bus = self.config.wtu.lanes, self.config.bus_bits
        m.submodules.packer = packer = Packer(lanes, bus)
        wiring.connect(m, packer.o, wiring.flipped(self.dout))
        m.d.comb += [
            self.wait_out.eq(packer.o.valid & ~self.dout.ready),
            packer.i.payload.data.eq(self.union_read.data),
            packer.i.payload.last.eq(self.last_word),
        ]
        with m.State("OUT"):
            m.d.comb += self.union_read.addr.eq(self.word)
            m.next = "SEND"
        with m.State("SEND"):
            m.d.comb += [packer.i.valid.eq(1), self.union_read.addr.eq(self.word + packer.i.ready)]
            with m.If(packer.i.ready):
                m.d.sync += self.word.eq(Mux(self.last_word, 0, self.word + 1))
                with m.If(self.last_word):
                    m.d.sync += self.head.eq(self.head + 1)
                    m.next = "SCORES"
                    with m.If(self.head == self.command.heads - 1):
                        m.next = "DONE"
        with m.State("DONE"):
            m.d.comb += [
                self.done.valid.eq(~packer.o.valid),
                self.done.payload.degenerate.eq(self.degenerate_rows),
            ]
            with m.If(self.done.valid & self.done.ready):
                m.next = "IDLE"
