"""Lanes of the WTU: from scores and token counts to what is summed and taken (model `vrex.model.dre.wtu`)."""

from types import SimpleNamespace
from typing import Any

from amaranth import C, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, enum, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from vrex.hw.lib.float32 import saturate
from vrex.hw.lib.stream import delay
from vrex.model.dre import wtu as model

U_BITS = 16
SHIFT_BITS = 5
"""A score is shifted into place by up to 31 bits, which leave its sign."""

PRODUCT_BITS = 33
CODE_BITS = 12
BIN_BITS = 6
BINS = 1 << BIN_BITS

LINEAR_LATENCY = 6
"""Cycles from a word's number to its bins: memory, integer form (3), weight, product."""

TABLE_PORTS = 2
"""Lanes that share a table of `exp`: block memories have two ports."""

EXP_STAGES = 4
"""Cycles that the weight of `exp` takes more."""

EXP_SHIFT_BITS = 6
"""A weight's exponent is shifted into place by up to 63 bits, which leave none of it."""

LANE_GROUP = 4
"""Lanes, at least, that share registers of what holds for all lanes: one for all would be far from most."""


def lane_groups(lanes: int) -> int:
    """Groups of lanes: `row`, `compare` and the rule reach each of them one cycle after the one before."""
    return min(2, -(-lanes // LANE_GROUP))


class Purpose(enum.Enum, shape=2):
    """What a pass over the row is for."""

    FIRST = 0
    """Sum of the row and of each bin."""
    SECOND = 1
    """Takes what is above the bin of the crossing, and sums each code of that bin."""
    FINAL = 2
    """Takes what is above the crossing, and of what is level with it the first clusters."""


ROW = data.StructLayout(
    {
        "exponent": 8,
        "u_low": signed(U_BITS),
        "u_high": signed(U_BITS),
        "bucket_shift": 5,
        "exp_shift": EXP_SHIFT_BITS,
    }
)
"""What holds for a whole row; u are the smallest and largest score in integer form."""

PASS = data.StructLayout({"purpose": Purpose, "whole": 1, "cut": BIN_BITS, "limit": CODE_BITS})
"""What a pass compares codes with: the first one of the bin of the crossing, or the crossing's own.

`whole` takes all buckets up to `cut` instead, or, where there are no buckets, everything.
"""


def token_layout(words: int) -> data.StructLayout:
    """A word on its way: `mark` ends the pass."""
    return data.StructLayout({"valid": 1, "mark": 1, "word": range(max(2, words))})


def pipe(m: Module, token: Any, cycles: int, flush: Any = 0) -> Any:
    """A token, so many cycles later unless it was flushed meanwhile."""
    layout = token.shape()
    for _ in range(cycles):
        later = Signal(layout, name="token")
        m.d.sync += later.eq(token)
        with m.If(flush):
            m.d.sync += [later.valid.eq(0), later.mark.eq(0)]
        token = later
    return token


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
    below = delay(m, score[15], 1, "sign")
    code = Mux(below, model.ORDER_ZERO + magnitude, model.ORDER_ZERO - magnitude)[:CODE_BITS]
    code = delay(m, code, 1, "near_code")
    return u, Mux(delay(m, near, 2, "near"), code, model.ORDER_ZERO - u)[:CODE_BITS]


def bin_of(code: Any) -> Any:
    """`model.order_bin` of a code."""
    coarse = code[model.COARSE_BITS : CODE_BITS] + (
        (model.FINE_CODES >> model.FINE_BITS) - (model.FINE_CODES >> model.COARSE_BITS)
    )
    return Mux(code < model.FINE_CODES, code[model.FINE_BITS :], coarse)[:BIN_BITS]


def digit_of(code: Any) -> Any:
    """A code's place within its bin."""
    return Mux(code < model.FINE_CODES, code[: model.FINE_BITS], code[: model.COARSE_BITS])[:BIN_BITS]


def first_code(number: Any) -> Any:
    """The first code of a bin."""
    fine = model.FINE_CODES >> model.FINE_BITS
    coarse = (number - (fine - (model.FINE_CODES >> model.COARSE_BITS)))[:BIN_BITS] << model.COARSE_BITS
    return Mux(number < fine, number << model.FINE_BITS, coarse)[:CODE_BITS]


class Lanes(wiring.Component):
    """Handles one word of scores a cycle.

    A token that enters in cycle i leaves in cycle i + `LINEAR_LATENCY`, under `exp` `EXP_STAGES` later.

    Args:
        lanes: scores in a word, a power of two.
        words: of a tile.
        buckets: of selection `bucket`.

    Members:
        i, o: token of a word.
        flush: forgets every word in work, but not the one that enters.
        partial, last_word, tail: whether the word of that number ends before lane `tail`.
        scores: the word's scores, one cycle after its token.
        count_word, counts: number of a word whose token counts come one cycle later.
        transform, scale_mantissa, by_bucket, ones: the rule; `ones` makes every product 1.
        row, compare: see `ROW` and `PASS`; the last group of lanes sees `row` `lane_groups(lanes)` - 1
            cycles late, and the rule and `compare` one cycle later.
        digit: bin, or, in the second pass, place within it.
        gate: lanes that are summed: all, those in the bin of the crossing, or the ties.
        product: weight x token count of these, 0 of the others; one cycle later.
        hard: lanes that are taken for sure; one cycle later too.
    """

    def __init__(self, lanes: int, words: int, buckets: int) -> None:
        self.lanes, self.buckets = lanes, buckets
        token = token_layout(words)
        super().__init__(
            {
                "i": In(token),
                "o": Out(token),
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
                "hard": Out(lanes),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware."""
        m = Module()
        shared = self._shared(m)
        layout = self.i.shape()
        # What enters with `flush` is the first word anew.
        stages = [pipe(m, self.i, 1)]
        for _ in range(LINEAR_LATENCY - 2 + EXP_STAGES - 1):
            stages.append(pipe(m, stages[-1], 1, self.flush))
        early, late = LINEAR_LATENCY - 3, LINEAR_LATENCY - 3 + EXP_STAGES
        chosen = data.View(layout, Mux(shared.exponential, stages[late], stages[early]))
        m.d.comb += [
            self.o.eq(pipe(m, chosen, 2, self.flush)),
            self.count_word.eq(Mux(shared.exponential, stages[late - 1].word, stages[early - 1].word)),
        ]
        # Whether the word that is in stages[1] ends early.
        cut = delay(m, self.partial & (stages[0].word == self.last_word), 1, "cut")
        for lane in range(self.lanes):
            if lane % TABLE_PORTS == 0:
                table = Memory(shape=16, depth=len(model.EXP_TABLE), init=[int(x) for x in model.EXP_TABLE])
                m.submodules += table
            if lane and lane % (self.lanes // lane_groups(self.lanes)) == 0:
                shared = SimpleNamespace(**{k: self._later(m, k, v) for k, v in vars(shared).items()})
            self._lane(m, lane, shared, stages[1].valid & (~cut | (lane < shared.tail)), table)
        return m

    def _shared(self, m: Module) -> SimpleNamespace:
        """What holds for all lanes, as the first group of them sees it; all but `row` a cycle late."""
        # Two bits of the shift of `exp`, left here and in `_power`, are bits less to be shifted right.
        mantissa = Mux(self.row.exp_shift[1], self.scale_mantissa, self.scale_mantissa << 2)
        held = {
            "raw": self.transform == model.Transform.RAW.value,
            "exponential": self.transform == model.Transform.EXP.value,
            "mantissa": mantissa,
            "by_bucket": self.by_bucket,
            "ones": self.ones,
            "tail": self.tail,
        }
        held |= {
            "first": self.compare.purpose == Purpose.FIRST,
            "second": self.compare.purpose == Purpose.SECOND,
            "whole": self.compare.whole,
            "cut": self.compare.cut,
            "limit": self.compare.limit,
            "coarse": (self.compare.purpose == Purpose.SECOND) & (self.compare.limit >= model.FINE_CODES),
        }
        return SimpleNamespace(**{name: delay(m, v, 1, name) for name, v in held.items()}, row=self.row)

    @staticmethod
    def _later(m: Module, name: str, value: Any) -> Any:
        """The same for the next group of lanes."""
        later = Signal(value.shape(), name=name, reset_less=True)
        m.d.sync += later.eq(value)
        return later

    def _lane(self, m: Module, lane: int, shared: SimpleNamespace, used: Any, table: Memory) -> None:
        """One lane.

        Args:
            m: module.
            lane: its number.
            shared: what holds for all lanes.
            used: whether the score after its register belongs to the row.
            table: of `exp`.
        """

        def tap(value: Any, name: str) -> Any:
            """What belongs to a score when its u is there, one cycle before its product is made."""
            return delay(m, Mux(shared.exponential, delay(m, value, EXP_STAGES, name), value), 1, name)

        row = shared.row
        score = delay(m, self.scores.word_select(lane, 16), 1, "score")
        used = delay(m, used & ~unpack(score)[3], 2, "used")
        u, code = integer_form(m, score, row.exponent)
        above_low = (u - row.u_low)[:U_BITS]
        weight = Signal(signed(U_BITS + 1), name="weight", reset_less=True)
        linear = Mux(shared.raw, u, above_low)
        m.d.sync += weight.eq(Mux(shared.exponential, self._power(m, u, shared, table), linear))
        count = Signal(16, name="count", reset_less=True)
        m.d.sync += count.eq(self.counts.word_select(lane, 16))
        with m.If(shared.ones):
            m.d.sync += [weight.eq(1), count.eq(1)]
        # The bucket's number is shifted into place in two steps.
        far = (above_low >> (row.bucket_shift[2:] << 2))[: self.buckets.bit_length() + 2]
        self._compare(m, lane, shared, tap(used, "used"), tap(code, "code"), tap(far, "far"))
        product = delay(m, weight * count, 1, "product")
        m.d.sync += self.product[lane].eq(Mux(self.gate[lane], product, 0))

    def _power(self, m: Module, u: Any, shared: SimpleNamespace, table: Memory) -> Any:
        """Weight of `exp`, `EXP_STAGES` cycles after u."""
        below_high = (shared.row.u_high - u)[:U_BITS]
        shift = shared.row.exp_shift
        below_high = delay(m, Mux(shift[0], below_high, below_high << 1), 1, "below_high")
        scaled = delay(m, below_high * shared.mantissa, 1, "scaled")
        shifted = delay(m, scaled[3:] >> (shift[2:] << 2), 1, "shifted")
        port = table.read_port()
        m.d.comb += port.addr.eq(shifted[: model.EXP_INDEX_BITS])
        saturated_bits = model.EXP_SATURATED.bit_length() - 1
        power = delay(m, shifted[model.EXP_INDEX_BITS : saturated_bits], 1, "power")
        saturated = delay(m, shifted[saturated_bits:].any(), 1, "saturated")
        return Mux(saturated, 0, port.data >> power)

    def _compare(self, m: Module, lane: int, shared: SimpleNamespace, used: Any, code: Any, far: Any) -> None:
        """Bin and flags of a lane."""
        # Bins count from the top, buckets from the bottom.
        bits = self.buckets.bit_length() - 1
        bucket = ~(far >> shared.row.bucket_shift[:2])[:bits]
        number = Mux(shared.by_bucket, bucket, bin_of(code))[:BIN_BITS]
        # Level with the limit: in the second pass the bits that tell bins apart, in the last one all.
        differs = code ^ shared.limit
        within_fine, within_coarse = differs[: model.FINE_BITS], differs[model.FINE_BITS : model.COARSE_BITS]
        level = ~differs[model.COARSE_BITS :].any()
        level &= ~within_coarse.any() | shared.coarse
        level &= ~within_fine.any() | shared.second
        m.d.sync += [
            self.digit[lane].eq(Mux(shared.second, digit_of(code), number)),
            self.gate[lane].eq(used & (shared.first | (level & ~shared.whole))),
        ]
        above = ~shared.first & (delay(m, code, 1, "code") < shared.limit)
        in_whole = ~shared.by_bucket | (self.digit[lane] <= shared.cut)
        m.d.sync += self.hard[lane].eq(delay(m, used, 1, "used") & Mux(shared.whole, in_whole, above))
