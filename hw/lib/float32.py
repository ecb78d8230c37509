"""Floating point of the numeric contract as pipelines: IEEE 754, round to nearest, ties to even.

Subnormals, signed zeros and infinities are kept, going in and coming out; every NaN that comes out is the
quiet one (0x7FC00000 in FP32), whatever went in. The model is numpy's float32, or `vrex.model.lib.arith`.

A pipeline takes operands in every cycle and never stalls by itself: a result follows its operands by
`latency` cycles. To stall one, wrap it: `EnableInserter(en)(Adder())`. The format is a parameter so that
the same circuit can be checked exhaustively in a small format.
"""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from vrex.hw.lib.stream import delay


@dataclass(frozen=True)
class Format:
    """A binary interchange format: a sign, a biased exponent, a fraction, from the highest bit down.

    Attributes:
        exponent: bits of the exponent, at least 2.
        fraction: bits of the fraction, at least 2.
    """

    exponent: int = 8
    fraction: int = 23

    @property
    def bits(self) -> int:
        """Width of a number."""
        return 1 + self.exponent + self.fraction

    @property
    def bias(self) -> int:
        """Exponent field of 1.0."""
        return (1 << self.exponent - 1) - 1

    @property
    def infinity(self) -> int:
        """Bits of +infinity."""
        return (1 << self.exponent) - 1 << self.fraction

    @property
    def nan(self) -> int:
        """Bits of the quiet NaN."""
        return self.infinity | 1 << self.fraction - 1

    def view(self, bits: Any) -> Any:
        """A number's fields `fraction`, `exponent` and `sign`."""
        layout = data.StructLayout({"fraction": self.fraction, "exponent": self.exponent, "sign": 1})
        return data.View(layout, bits)


FP32 = Format()
BF16 = Format(8, 7)


def _wire(m: Module, value: Any, name: str) -> Any:
    """The value as a named signal, as an expression used twice would be generated twice."""
    signal = Signal.like(value, name=name)
    m.d.comb += signal.eq(value)
    return signal


def leading_zeros(m: Module, value: Any, registered: int = 0) -> Any:
    """How many bits above the highest one are zero, or the width if all are; balanced.

    Args:
        m: module.
        value: at least one bit.
        registered: bits, a power of two, of the groups whose counts go through a register, so that the result
            is a cycle late; 0 for none, combinational.
    """

    def count(bits: Any) -> tuple[Any, Any]:
        """Whether no bit is set, and the zeros on top if one is."""
        if len(bits) == 2:
            empty, zeros = ~bits.any(), ~bits[1]
        else:
            half = len(bits) // 2
            (low_empty, low), (high_empty, high) = count(bits[:half]), count(bits[half:])
            empty = _wire(m, low_empty & high_empty, "empty")
            zeros = _wire(m, Cat(Mux(high_empty, low, high), high_empty), "zeros")
        if len(bits) == registered:
            return delay(m, empty, 1, "empty"), delay(m, zeros, 1, "zeros")
        return empty, zeros

    # A one below the lowest bit ends the count.
    padding = (1 << len(value).bit_length()) - len(value)
    padded = Cat(Const(-1, padding), value)
    zeros = count(padded)[1][: bits_for(len(value))]
    return delay(m, zeros, 1, "zeros") if len(padded) < registered else zeros


def shift_right_sticky(m: Module, value: Any, amount: Any, sticky: Any) -> tuple[Any, Any]:
    """A value shifted right, and `sticky` ORed with the bits shifted out; combinational."""
    # Longest shift first, as then the fewest bits are ORed late in the path.
    for level in reversed(range(len(amount))):
        step = min(1 << level, len(value))
        sticky |= amount[level] & value[:step].any()
        value = _wire(m, Mux(amount[level], value[step:], value), "shifted")
    return value, _wire(m, sticky, "sticky")


def saturate(value: Any, bits: int) -> Any:
    """An unsigned value in so many bits; what does not fit becomes the largest that does."""
    return value if len(value) <= bits else value[:bits] | value[bits:].any().replicate(bits)


def split_product(m: Module, a: Any, b: Any) -> Any:
    """Product of two unsigned values of one width, 2 cycles later: products of halves, then their sum."""
    half = (len(a) + 1) // 2
    parts = {
        f"{i}{j}": delay(m, part_a * part_b, 1, "part")
        for i, part_a in enumerate((a[:half], a[half:]))
        for j, part_b in enumerate((b[:half], b[half:]))
    }
    outer = Cat(parts["00"], parts["11"])
    inner = parts["01"] + parts["10"]
    return delay(m, (outer + (inner << half))[: len(outer)], 1, "product")


def round_to_even(form: Format, exponent: Any, fraction: Any, half: Any, rest: Any) -> Any:
    """Magnitude (all bits but the sign) of the nearest number; combinational.

    Args:
        form: format of the number.
        exponent: field of the number below or equal; 0 for a subnormal one, all ones past the range.
        fraction: of that number.
        half: the bit below the fraction.
        rest: whether any bit below that is set.

    Returns:
        Exponent and fraction; infinity if the range is left.
    """
    # The largest number rounds up to the bits of infinity by itself.
    rounded = (Cat(fraction, exponent) + (half & (rest | fraction[0])))[:-1]
    return Mux(exponent.all(), form.infinity, rounded)


def _is_nan(number: Any) -> Any:
    """Whether a number, by its fields, is none."""
    return number.exponent.all() & number.fraction.any()


def to_bf16(bits: Any) -> Any:
    """BF16 of an FP32 number, NaN as 0x7FC0; combinational (model `vrex.model.lib.arith.to_bf16`)."""
    number, low = FP32.view(bits), bits[: FP32.fraction - BF16.fraction]
    magnitude = round_to_even(BF16, number.exponent, number.fraction[len(low) :], low[-1], low[:-1].any())
    return Mux(_is_nan(number), BF16.nan, Cat(magnitude, number.sign))


def dither(bits: Any, count: Any) -> Any:
    """BF16 of an FP32 number by a count of 16 bits; combinational (model `vrex.model.dre.mean.dither`)."""
    number, cut = FP32.view(bits), FP32.fraction - BF16.fraction
    total = bits[: FP32.bits - 1] + Cat(reversed(count))
    return Mux(_is_nan(number), BF16.nan, Cat(total[cut : FP32.bits - 1], number.sign))


def _effective_exponent(number: Any) -> Any:
    """Exponent of a significand's unit: that of a subnormal number is 1, not 0."""
    return Cat(number.exponent[0] | ~number.exponent.any(), number.exponent[1:])


def _significand(number: Any) -> Any:
    """Fraction with its hidden bit."""
    return Cat(number.fraction, number.exponent.any())


def _next(m: Module, **values: Any) -> SimpleNamespace:
    """The values, one cycle later."""
    return SimpleNamespace(**{name: delay(m, value, 1, name) for name, value in values.items()})


class _Pipeline(wiring.Component):
    """Base class: two operands in, one result out."""

    latency: int

    a: Signal
    b: Signal
    i_valid: Signal
    o: Signal
    o_valid: Signal

    def __init__(self, form: Format = FP32, operand: Format | None = None, **members: Any) -> None:
        self.form, self.operand = form, operand or form
        super().__init__(
            {
                "a": In(self.operand.bits),
                "b": In(self.operand.bits),
                **members,
                "i_valid": In(1),
                "o": Out(form.bits),
                "o_valid": Out(1),
            }
        )

    def _finish(self, m: Module, step: Any) -> None:
        """Last stage: round, unless the result is special (`nan`, `infinite`, `zero` in this order)."""
        form = self.form
        magnitude = round_to_even(form, step.exponent, step.fraction, step.half, step.rest)
        finite = Mux(step.zero, 0, magnitude)
        number = Cat(Mux(step.infinite, form.infinity, finite), step.sign)
        m.d.comb += [
            self.o.eq(delay(m, Mux(step.nan, form.nan, number)[: form.bits], 1, "o")),
            self.o_valid.eq(delay(m, self.i_valid, self.latency, "valid", reset=True)),
        ]


class Adder(_Pipeline):
    """a + b, or a - b. Latency 6 cycles.

    Args:
        form: format of operands and result.

    Members:
        a, b: operands.
        subtract: b is taken away.
        i_valid: operands are there.
        o, o_valid: result.
    """

    latency = 6

    subtract: Signal

    def __init__(self, form: Format = FP32) -> None:
        super().__init__(form, subtract=In(1))

    def elaborate(self, platform: Any) -> Module:
        """Order, align, add, count zeros, normalise, round: one stage each."""
        m = Module()
        self._finish(m, self._normalise(m, self._count(m, self._add(m, self._align(m, self._order(m))))))
        return m

    def _order(self, m: Module) -> Any:
        """The operand of the larger magnitude first; how far their exponents' fields are apart."""
        form = self.form
        a, b = self.a, Cat(self.b[:-1], self.b[-1] ^ self.subtract)
        exponent_a, exponent_b = (form.view(number).exponent for number in (a, b))
        swap = _wire(m, a[:-1] < b[:-1], "swap")
        # Not `swap`, which arrives late; where they differ, the exponents are equal.
        above = exponent_a < exponent_b
        apart = Mux(above, exponent_b - exponent_a, exponent_a - exponent_b)[: form.exponent]
        bits = bits_for(form.fraction + 2)
        return _next(
            m,
            large=Mux(swap, b, a),
            small=Mux(swap, a, b),
            distance=apart[:bits],
            # Further than a significand with its three bits more is wide.
            far=apart[bits:].any(),
            # Only the smaller is subnormal: its exponent is 1, so the distance is one less than the fields'.
            nearer=exponent_a.any() ^ exponent_b.any(),
        )

    def _align(self, m: Module, step: Any) -> Any:
        """The smaller significand under the larger, with three bits more: two exact ones, one sticky."""
        form = self.form
        large, small = form.view(step.large), form.view(step.small)
        shifted = Cat(Const(0, 2), Mux(step.nearer, Cat(Const(0, 1), small.fraction), _significand(small)))
        aligned, sticky = shift_right_sticky(m, shifted, step.distance, Const(0, 1))
        aligned, sticky = Mux(step.far, 0, aligned), Mux(step.far, shifted.any(), sticky)
        subtract = large.sign ^ small.sign
        # Of two infinities the first is the larger; a NaN is larger than both.
        largest = large.exponent.all()
        both = largest & small.exponent.all()
        return _next(
            m,
            sign=large.sign,
            exponent=_effective_exponent(large),
            large=Cat(Const(0, 3), _significand(large)),
            small=Cat(sticky, aligned),
            subtract=subtract,
            nan=(largest & large.fraction.any()) | (both & subtract),
            infinite=largest,
        )

    def _add(self, m: Module, step: Any) -> Any:
        """Sum or difference of the significands, never negative; a mark where a subnormal's shift ends."""
        small = Cat(step.small, Const(0, 1)) ^ step.subtract.replicate(len(step.small) + 1)
        # The lowest bits make the carry of a two's complement.
        total = (Cat(step.subtract, step.large, Const(0, 1)) + Cat(step.subtract, small))[1:-1]
        return _next(
            m,
            total=total,
            limit=Cat(step.exponent == distance for distance in reversed(range(len(total)))),
            sign=step.sign,
            exponent=step.exponent,
            subtract=step.subtract,
            nan=step.nan,
            infinite=step.infinite,
        )

    def _count(self, m: Module, step: Any) -> Any:
        """How far to shift left: by all leading zeros, or until the exponent is that of subnormals."""
        zero = ~step.total.any()
        return _next(
            m,
            total=step.total,
            shift=leading_zeros(m, step.total | step.limit),
            exponent=step.exponent,
            # x - x is +0.
            sign=step.sign & ~(zero & step.subtract),
            zero=zero,
            nan=step.nan,
            infinite=step.infinite,
        )

    def _normalise(self, m: Module, step: Any) -> Any:
        """Fraction, what is below it, and the exponent."""
        total = _wire(m, (step.total << step.shift)[: len(step.total)], "shifted")
        exponent = (step.exponent - step.shift + 1)[: self.form.exponent]
        return _next(
            m,
            exponent=Mux(total[-1], exponent, 0),
            fraction=total[4:-1],
            half=total[3],
            rest=total[:3].any(),
            sign=step.sign,
            zero=step.zero,
            nan=step.nan,
            infinite=step.infinite,
        )


class Multiplier(_Pipeline):
    """a * b. Latency 6 cycles.

    Args:
        form: format of the result.
        operand: format of the operands, with as many bits of exponent; by default that of the result.
        normal: b is never subnormal.
        zeros: low bits of a's fraction that are always 0; only with `normal`.

    Members:
        a, b: operands.
        i_valid: operands are there.
        o, o_valid: result.
    """

    latency = 6

    def __init__(
        self, form: Format = FP32, operand: Format | None = None, *, normal: bool = False, zeros: int = 0
    ) -> None:
        self.normal, self.zeros = normal, zeros
        super().__init__(form, operand)

    def elaborate(self, platform: Any) -> Module:
        """Choose, scale, multiply in two stages, normalise, round."""
        m = Module()
        self._finish(m, self._normalise(m, self._multiply(m, self._scale(m, self._choose(m)))))
        return m

    def _choose(self, m: Module) -> Any:
        """The operand that may be subnormal first: if both are, the product vanishes however it is scaled."""
        form = self.form
        low = Const(0, form.bits - self.operand.bits)
        a, b = form.view(Cat(low, self.a)), form.view(Cat(low, self.b))
        swap = Const(0, 1) if self.normal else _wire(m, a.exponent.any(), "swap")
        first = _wire(m, Mux(swap, _significand(b), _significand(a)), "first_significand")
        zeros = [~number.as_value()[:-1].any() for number in (a, b)]
        largest = [number.exponent.all() for number in (a, b)]
        nans = [top & number.fraction.any() for top, number in zip(largest, (a, b), strict=True)]
        zero, infinite = zeros[0] | zeros[1], largest[0] | largest[1]
        return _next(
            m,
            first=first,
            second=Mux(swap, _significand(a), _significand(b)),
            # The hidden bit arrives late.
            shift=Mux(first[-1], 0, leading_zeros(m, Cat(first[:-1], Const(0, 1)))),
            exponent=_effective_exponent(a) + _effective_exponent(b),
            sign=a.sign ^ b.sign,
            zero=zero,
            nan=nans[0] | nans[1],
            infinite=infinite,
        )

    def _scale(self, m: Module, step: Any) -> Any:
        """Both significands without leading zeros; exponent of the product if that is below 2."""
        first = (step.first << step.shift)[: len(step.first)]
        return _next(
            m,
            first=Cat(Const(0, self.zeros), first[self.zeros :]),
            second=step.second,
            exponent=step.exponent - step.shift - self.form.bias,
            sign=step.sign,
            zero=step.zero,
            nan=step.nan | (step.zero & step.infinite),
            infinite=step.infinite,
        )

    def _multiply(self, m: Module, step: Any) -> Any:
        """Product, 2 cycles later, and how far it must be shifted right to become subnormal."""
        form = self.form
        small = step.exponent < 0
        amount = saturate((-step.exponent)[: len(step.exponent)], bits_for(form.fraction + 2))
        late = _next(
            m,
            positive=step.exponent > 0,
            # One more than the largest exponent is past the range as well.
            exponent=Mux(small, 0, saturate(step.exponent[:-1], form.exponent)),
            small=small,
            amount=Mux(small, amount, 0),
            sign=step.sign,
            zero=step.zero,
            nan=step.nan,
            infinite=step.infinite,
        )
        product = split_product(m, step.first, step.second)
        return SimpleNamespace(product=product, **vars(_next(m, **vars(late))))

    def _normalise(self, m: Module, step: Any) -> Any:
        """Fraction, what is below it, and the exponent; a product is at least 1 and below 4."""
        form, product = self.form, step.product
        top = product[-1]
        left = ~top & step.positive
        low = form.fraction
        below = product[: low - 1].any()
        # Right and left shifts exclude each other.
        moved, lost = shift_right_sticky(m, product[low:], step.amount, below | product[low - 1])
        shifted, rest = Mux(left, product[low - 1 : -1], moved), Mux(left, below, lost)
        exponent = step.exponent + (top & ~step.small)
        return _next(
            m,
            exponent=saturate(exponent, form.exponent),
            fraction=shifted[1:-1],
            half=shifted[0],
            rest=rest,
            sign=step.sign,
            zero=step.zero,
            nan=step.nan,
            infinite=step.infinite,
        )


class Reciprocal(wiring.Component):
    """FP32 of 1/n, correctly rounded, one bit of the quotient a cycle.

    Result `cycles` cycles after `start`; it stays until the next start. No 1/n lies half way between two
    numbers unless n is a power of two, whose quotient here is all ones and rounds up to itself.

    Members:
        start: divide; a division in work is dropped.
        count: n, 1..65535, at `start`.
        o: FP32 bits.
        valid: `o` is the reciprocal of the last n.
    """

    cycles = FP32.fraction + 5

    start: Signal
    count: Signal
    o: Signal
    valid: Signal

    def __init__(self) -> None:
        super().__init__({"start": In(1), "count": In(16), "o": Out(FP32.bits), "valid": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        """Restoring division of 1 by the count, and the rounding."""
        m = Module()
        count = Signal(16)
        # 1/n = 0.1q x 2^(1 - L) for an n of L bits: 1 is the remainder that starts as n's highest bit.
        remainder = Signal(16)
        quotient = Signal(FP32.fraction + 1)
        left = Signal(range(self.cycles))
        starts = Signal()
        zeros = Signal(range(17))
        exponent = Signal(FP32.exponent)
        twice = Cat(Const(0, 1), remainder)
        difference = _wire(m, (twice - count)[:18], "difference")
        with m.If(self.start):
            m.d.sync += [
                count.eq(self.count),
                # The lowest bit ends the count in any case: no division is by 0.
                zeros.eq(leading_zeros(m, self.count[1:])),
                starts.eq(1),
                left.eq(self.cycles - 1),
            ]
        with m.Elif(starts):
            m.d.sync += [
                [remainder[i].eq(zeros == 15 - i) for i in range(16)],
                exponent.eq(FP32.bias - 16 + zeros),
                starts.eq(0),
                left.eq(left - 1),
            ]
        with m.Elif(left != 0):
            m.d.sync += left.eq(left - 1)
            with m.If(left != 1):
                m.d.sync += [
                    # The first bit of the quotient, always 1, leaves at its top.
                    quotient.eq(Cat(~difference[-1], quotient)),
                    remainder.eq(Mux(difference[-1], twice, difference)),
                ]
        rounded = Cat(quotient[1:], exponent) + quotient[0]
        m.d.comb += [self.o.eq(delay(m, rounded, 1, "rounded")), self.valid.eq(left == 0)]
        return m
