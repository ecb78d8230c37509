"""Quantised copy of a group of Key_cluster: codes of 8 or 4 bits and a scale (model `vrex.model.dre.quant`).

A group, one KV head's slice of a mean, is stored while its largest magnitude is found. The scale is that
magnitude times 1 / top, rounded to BF16; its reciprocal comes from a table, as a scale has seven fraction
bits. Then the group goes through the lanes, `lanes` values a cycle, and leaves as packed codes.
"""

from typing import Any

import numpy as np
from amaranth import Array, Cat, Const, EnableInserter, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from vrex.hw.lib.float32 import BF16, FP32, Multiplier, shift_right_sticky, to_bf16
from vrex.hw.lib.stream import delay, reduce_tree, tree_stages
from vrex.model.config import KvmuConfig, MeanConfig, check_unit
from vrex.model.dre import quant

CODE_BITS = 8
MAGNITUDE_BITS = BF16.bits - 1


def reciprocal_of_top(bits: int) -> int:
    """FP32 bits of fp32(1 / top)."""
    return int((np.float32(1) / np.float32(2 ** (bits - 1) - 1)).view(np.uint32))


def reciprocals() -> list[int]:
    """Fractions of 1 / (1 + m / 128) in FP32, for m from 1 to 127; that of 1 comes first."""
    significands = 1 + np.arange(128, dtype=np.float32) / 128
    return ((np.float32(1) / significands).view(np.uint32) & ((1 << FP32.fraction) - 1)).tolist()


def reciprocal(scale: Any) -> Any:
    """FP32 of 1 / scale; combinational. The scale is that of a group: normal and at most 2^126."""
    number = BF16.view(scale)
    fraction = Array(Const(value, FP32.fraction) for value in reciprocals())[number.fraction]
    exponent = (2 * FP32.bias - number.exponent - number.fraction.any())[: FP32.exponent]
    return Cat(fraction, exponent, Const(0, 1))


class Lane(wiring.Component):
    """Pipeline of one value: value * reciprocal, rounded to FP32, then to the nearest integer, ties to even.

    Members:
        value: FP32 bits.
        factor: FP32 bits; the product is below 128 in magnitude where it is used as a code.
        i_valid: `value` and `factor` are valid.
        product: FP32 bits, `Multiplier.latency` cycles later.
        code, o_valid: two's complement, `latency` cycles later.
    """

    latency = Multiplier.latency + 2

    value: Signal
    factor: Signal
    i_valid: Signal
    product: Signal
    code: Signal
    o_valid: Signal

    def __init__(self) -> None:
        super().__init__(
            {
                "value": In(FP32.bits),
                "factor": In(FP32.bits),
                "i_valid": In(1),
                "product": Out(FP32.bits),
                "code": Out(CODE_BITS),
                "o_valid": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Multiplier, shifter and the rounding to an integer."""
        m = Module()
        m.submodules.multiplier = multiplier = Multiplier(normal=True, zeros=FP32.fraction - BF16.fraction)
        product = FP32.view(multiplier.o)
        # Products below a half have code 0. The shift leaves seven integer bits.
        half = FP32.bias - 1
        some, places = product.exponent >= half, (half + CODE_BITS - 1 - product.exponent)[:3]
        shifted, sticky = shift_right_sticky(m, Cat(product.fraction, Const(1, 1)), places, Const(0, 1))
        point = FP32.fraction + 1 - (CODE_BITS - 1)
        kept = delay(m, Mux(some, shifted, 0), 1, "shifted")
        sign, rest = delay(m, product.sign, 1, "sign"), delay(m, sticky, 1, "sticky")
        up = kept[point - 1] & (rest | kept[: point - 1].any() | kept[point])
        # -(kept + up) is ~kept + ~up.
        whole = Cat(kept[point:], Const(0, 1))
        code = ((whole ^ sign.replicate(CODE_BITS)) + (up ^ sign))[:CODE_BITS]
        m.d.comb += [
            multiplier.a.eq(self.value),
            multiplier.b.eq(self.factor),
            multiplier.i_valid.eq(self.i_valid),
            self.product.eq(multiplier.o),
            self.code.eq(delay(m, code, 1, "code")),
            self.o_valid.eq(delay(m, multiplier.o_valid, 2, "code_valid", reset=True)),
        ]
        return m


class Quant(wiring.Component):
    """Quantises one group of `head_dim` values a command.

    Cycles of a command that never waits: see `cycles`.

    Args:
        kvmu: its `head_dim` values are a group.
        mean: its `lanes` values are handled in one cycle.
        bus_bits: width of the streams of beats.

    Members:
        cmd: whether codes have 4 bits; else 8.
        i: beats of the group, BF16, first value in the lowest bits.
        o: codes, first in the lowest bits; of a group whose codes do not fill a beat they are repeated.
        done: scale of the group, BF16; follows its last beat.
    """

    cmd: stream.Interface
    i: stream.Interface
    o: stream.Interface
    done: stream.Interface

    def __init__(self, *, kvmu: KvmuConfig, mean: MeanConfig, bus_bits: int) -> None:
        """A unit of these dimensions.

        Raises:
            ValueError: a group does not fill a beat, a beat does not hold a value for each lane, or its width
                is no power of two.
        """
        check_unit(kvmu=kvmu, mean=mean, bus_bits=bus_bits)
        self.group_size, self.lanes, self.bus_bits = kvmu.head_dim, mean.lanes, bus_bits
        self.words = self.group_size // self.lanes
        self.beat_words = bus_bits // (BF16.bits * self.lanes)
        self.scale_cycles = self._scale_cycles(mean)
        beats = stream.Signature(bus_bits)
        super().__init__(
            {
                "cmd": In(stream.Signature(1)),
                "i": In(beats),
                "o": Out(beats),
                "done": Out(stream.Signature(BF16.bits)),
            }
        )

    @staticmethod
    def cycles(*, kvmu: KvmuConfig, mean: MeanConfig) -> int:
        """Upper bound of the cycles from a command to `done` when no port makes the unit wait."""
        words = kvmu.head_dim // mean.lanes
        return 1 + words + Quant._scale_cycles(mean) + words + 2 + Lane.latency + 3

    @staticmethod
    def _scale_cycles(mean: MeanConfig) -> int:
        """From the last value of the group to the scale: largest, lane, product, rounding, table, factor."""
        return tree_stages(mean.lanes, 1) + 1 + Multiplier.latency + 4

    def elaborate(self, platform: Any) -> Module:
        """Memory of one group, lanes, scale with its reciprocal, packer of codes, state machine."""
        m = Module()
        self.four = Signal()
        self.flow = Signal()
        self.word = Signal(range(self.words + 1))
        self.given = Signal(range(self.words + 1))
        # `word` is the last of its beat. Registered, as `i.ready` starts a long path.
        self.last_in_beat = Signal(init=self.beat_words == 1)
        # State flags: the group is read (registered like `last_in_beat`), its scale or its codes computed.
        self.taking = Signal()
        self.scaling = Signal()
        self.coding = Signal()
        self.largest = Signal(MAGNITUDE_BITS)
        self.scale = Signal(BF16.bits)
        self.factor = Signal(FP32.bits)
        self.no_codes = Signal()
        self.made = Signal()
        self.group: Memory[Any, Any] = Memory(
            shape=self.bus_bits, depth=max(2, self.words // self.beat_words), init=[]
        )
        m.submodules.group = self.group
        self.beat = self.word >> (self.beat_words.bit_length() - 1)
        m.d.comb += self.flow.eq(~self.o.valid | self.o.ready)
        self._take(m)
        first = self._lanes(m)
        self._scale(m, first.product)
        self._control(m)
        return m

    def _value(self, beat: Any, word: Any, lane: int) -> Any:
        """A lane's value of a word of a beat."""
        bits = beat.word_select(word[: self.beat_words.bit_length() - 1], BF16.bits * self.lanes)
        return bits.word_select(lane, BF16.bits)

    def _take(self, m: Module) -> None:
        """Stores the beats of a group and finds its largest magnitude, word by word."""
        write = self.group.write_port()
        m.d.comb += [
            self.i.ready.eq(self.taking & self.last_in_beat),
            write.addr.eq(self.beat),
            write.data.eq(self.i.payload),
            write.en.eq(self.i.valid & self.i.ready),
        ]
        values = [
            delay(m, self._value(self.i.payload, self.word, lane)[:MAGNITUDE_BITS], 1, "magnitude")
            for lane in range(self.lanes)
        ]
        largest = reduce_tree(values, lambda a, b: Mux(a < b, b, a), m, 1)
        there = delay(m, self.taking & self.i.valid, tree_stages(self.lanes, 1) + 1, "there", reset=True)
        with m.If(there & (self.largest < largest)):
            m.d.sync += self.largest.eq(largest)

    def _scale(self, m: Module, product: Any) -> None:
        """The scale, which is the largest magnitude times 1 / top, and its reciprocal."""
        bad = BF16.view(Cat(self.largest, Const(0, 1))).exponent.all()
        rounded = delay(m, to_bf16(product), 1, "rounded")
        inverse, scale = delay(m, reciprocal(rounded), 1, "inverse"), delay(m, rounded, 1, "scale")
        normal = BF16.view(scale).exponent.any()
        with m.If(self.made):
            m.d.sync += [
                self.scale.eq(Mux(bad, BF16.nan, Mux(normal, scale, 0))),
                self.factor.eq(inverse),
                self.no_codes.eq(bad | ~normal),
            ]

    def _lanes(self, m: Module) -> Lane:
        """The lanes that compute the codes; returns the first, which also computes the scale."""
        read, flow = self.group.read_port(), self.flow
        within = Signal.like(self.word)
        valid = Signal()
        value_valid = Signal()
        m.d.comb += [read.addr.eq(self.beat), read.en.eq(flow)]
        with m.If(flow):
            m.d.sync += [within.eq(self.word), valid.eq(self.coding), value_valid.eq(valid)]
        lanes = [Lane() for _ in range(self.lanes)]
        for i, lane in enumerate(lanes):
            m.submodules[f"lane_{i}"] = EnableInserter(flow)(lane)
            value = Signal(BF16.bits, name=f"value_{i}", reset_less=True)
            scales = self.scaling if i == 0 else Const(0, 1)
            with m.If(flow):
                m.d.sync += value.eq(Mux(scales, self.largest, self._value(read.data, within, i)))
            m.d.comb += [
                lane.value.eq(Cat(Const(0, FP32.bits - BF16.bits), value)),
                lane.factor.eq(self.factor),
                lane.i_valid.eq(value_valid),
            ]
        self._pack(m, [Mux(self.no_codes, 0, lane.code) for lane in lanes], lanes[0].o_valid)
        return lanes[0]

    def _pack(self, m: Module, codes: list[Any], there: Any) -> None:
        """Packs codes into beats, the first in the lowest bits; codes of less than a beat are repeated."""
        bus = self.bus_bits
        packed = Signal(self.bus_bits)
        place = Signal(range(max(2, self.words)))
        filled = {bits: min(bus, self.group_size * bits) for bits in quant.BITS}
        words = {bits: Cat(code[:bits] for code in codes) for bits in quant.BITS}
        shown = {bits: packed[bus - size :].replicate(bus // size) for bits, size in filled.items()}
        m.d.comb += self.o.payload.eq(Mux(self.four, shown[4], shown[8]))
        full = Mux(self.four, *(filled[bits] // (bits * self.lanes) - 1 for bits in (4, 8)))
        with m.If(self.flow):
            m.d.sync += self.o.valid.eq(there & (place == full))
            with m.If(there):
                moved = {bits: Cat(packed[len(word) :], word) for bits, word in words.items()}
                m.d.sync += [
                    packed.eq(Mux(self.four, moved[4], moved[8])),
                    place.eq(Mux(place == full, 0, place + 1)),
                    self.given.eq(self.given + 1),
                ]

    def _go_on(self, m: Module, last: Any) -> None:
        """Advances to the group's next word, from the last to the first."""
        before = self.word[: self.beat_words.bit_length() - 1] == self.beat_words - 2
        m.d.sync += [
            self.word.eq(Mux(last, 0, self.word + 1)),
            self.last_in_beat.eq(before if self.beat_words > 1 else 1),
        ]

    def _control(self, m: Module) -> None:
        """Sequence of one command."""
        waited = Signal(range(self.scale_cycles))
        last = self.word == self.words - 1
        m.d.comb += self.done.payload.eq(self.scale)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.cmd.ready.eq(1)
                m.d.sync += [
                    self.four.eq(self.cmd.payload),
                    self.largest.eq(0),
                    self.given.eq(0),
                    waited.eq(0),
                ]
                with m.If(self.cmd.valid):
                    m.d.sync += self.taking.eq(1)
                    m.next = "TAKE"
            with m.State("TAKE"):
                # The lanes multiply by 1 / top until the scale is known.
                top = (Const(reciprocal_of_top(bits), FP32.bits) for bits in (4, 8))
                m.d.sync += self.factor.eq(Mux(self.four, *top))
                with m.If(self.i.valid):
                    self._go_on(m, last)
                    with m.If(last):
                        m.d.sync += self.taking.eq(0)
                        m.next = "SCALE"
            with m.State("SCALE"):
                m.d.comb += [self.scaling.eq(1), self.made.eq(waited == self.scale_cycles - 1)]
                m.d.sync += waited.eq(waited + 1)
                with m.If(self.made):
                    m.next = "CODE"
            with m.State("CODE"):
                m.d.comb += self.coding.eq(1)
                with m.If(self.flow):
                    self._go_on(m, last)
                    with m.If(last):
                        m.next = "FLUSH"
            with m.State("FLUSH"), m.If((self.given == self.words) & self.flow):
                m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += self.done.valid.eq(1)
                with m.If(self.done.ready):
                    m.next = "IDLE"


class Product(wiring.Component):
    """The way back: BF16 of code * scale, as `vrex.model.dre.quant.dequantise` rounds it.

    BF16 bits without the sign count up through subnormal and normal numbers to infinity, so the exponent's
    part and the significand are added; a carry goes where it belongs.

    Args:
        bits: of a code.

    Members:
        code, scale: operands.
        value: `latency` cycles later.
    """

    latency = 3

    code: Signal
    scale: Signal
    value: Signal

    def __init__(self, bits: int) -> None:
        self.bits = bits
        super().__init__({"code": In(bits), "scale": In(BF16.bits), "value": Out(BF16.bits)})

    def elaborate(self, platform: Any) -> Module:
        """Registers of the exact product, of its significand and exponent, and of their rounded sum."""
        m = Module()
        number, code = BF16.view(self.scale), self.code
        negative, normal = code[-1], number.exponent.any()
        magnitude = Mux(negative, -code.as_signed(), code)[: self.bits]
        exact = Signal(BF16.fraction + 1 + self.bits - 1)
        m.d.sync += exact.eq(Cat(number.fraction, normal) * magnitude)
        nothing, special = magnitude == 0, number.exponent.all()
        # Of the exact product, and then a cycle later.
        first: Any = Signal(data.StructLayout({"sign": 1, "zero": 1, "infinite": 1, "nan": 1}))
        base = Signal(BF16.exponent)
        m.d.sync += [
            first.sign.eq(number.sign ^ negative),
            first.zero.eq(nothing),
            first.infinite.eq(special),
            first.nan.eq(special & (number.fraction.any() | nothing)),
            base.eq(Mux(normal, number.exponent - 1, 0)),
        ]
        second = delay(m, first, 1, "flags")
        kept, up, exponent = self._normalised(m, exact, base)
        # One carry chain for both additions: what is carried out of the lowest place rounds up.
        bits = (Cat(1, kept) + Cat(up, Const(0, BF16.fraction), exponent))[1:]
        infinite = second.infinite | ((bits >= BF16.infinity) & ~second.zero)
        magnitude_bits = Mux(infinite, BF16.infinity, Mux(second.zero, 0, bits))[: BF16.bits - 1]
        signed = Cat(magnitude_bits, second.sign)
        m.d.sync += self.value.eq(Mux(second.nan, BF16.nan, signed))
        return m

    def _normalised(self, m: Module, exact: Any, base: Any) -> tuple[Signal, Signal, Signal]:
        """Registers of the significand's bits, of whether it is to be rounded up, and of its exponent."""
        kept = Signal(BF16.fraction + 1)
        up = Signal()
        exponent = Signal(BF16.exponent + 1)
        m.d.sync += [kept.eq(exact), up.eq(0), exponent.eq(base)]
        for places in range(1, self.bits):
            moved, rest = exact >> places, exact[:places]
            # To the nearest, ties to even.
            with m.If(exact[BF16.fraction + places :].any()):
                m.d.sync += [
                    kept.eq(moved),
                    up.eq(rest[places - 1] & (rest[: places - 1].any() | moved[0])),
                    exponent.eq(base + places),
                ]
        return kept, up, exponent
