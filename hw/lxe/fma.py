"""Pipelined fused multiply-add, with the rules of `vrex.hw.lib.float32` (model `vrex.model.lxe.vpe.fma`)."""

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from vrex.hw.lib.float32 import (
    FP32,
    Format,
    _effective_exponent,
    _next,
    _significand,
    leading_zeros,
    round_to_even,
    saturate,
    split_product,
)
from vrex.hw.lib.stream import delay

_FINE_LEVELS = 3
"""Levels of a wide shifter behind its register."""

_COUNTED = 8
"""Bits of a group whose leading zeros are counted in front of the register."""


class Fma(wiring.Component):
    """a * b + c, rounded once. Latency 12 cycles.

    The product is placed at the bottom of a fixed window, and c is shifted right from its top. Whichever is
    larger, bits shifted out of the window only matter to the rounding as a sticky bit. A subnormal factor is
    normalised first. The exponent of the window's top is never below that of subnormal numbers.

    Args:
        form: format of operands and result.

    Members:
        a, b, c: operands.
        i_valid: a, b and c are valid.
        o, o_valid: result.
    """

    a: Signal
    b: Signal
    c: Signal
    i_valid: Signal
    o: Signal
    o_valid: Signal

    latency = 12

    def __init__(self, form: Format = FP32) -> None:
        self.form = form
        # A sticky bit, the product, two guard bits, c, a carry.
        self.window = 3 * (form.fraction + 1) + 4
        self.exponent = signed(form.exponent + 4)
        ports = dict.fromkeys("abc", In(form.bits))
        super().__init__({**ports, "i_valid": In(1), "o": Out(form.bits), "o_valid": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        """Builds the pipeline: multiply and align, add, normalise, round."""
        m = Module()
        step = self._sum(m, self._multiply(m, self._scale(m, self._place(m, self._choose(m)))))
        step = self._normalise(m, self._count(m, self._measure(m, step)))
        form = self.form
        magnitude = round_to_even(form, step.exponent, step.fraction, step.half, step.rest)
        finite = Mux(step.zero, 0, magnitude)
        number = Cat(Mux(step.infinite, form.infinity, finite)[: form.bits - 1], step.sign)
        m.d.comb += [
            self.o.eq(delay(m, Mux(step.nan, form.nan, number)[: form.bits], 1, "o")),
            self.o_valid.eq(delay(m, self.i_valid, self.latency, "valid", reset=True)),
        ]
        return m

    def _wire(self, m: Module, value: Any, name: str) -> Any:
        """A named signed exponent."""
        signal = Signal(self.exponent, name=name)
        m.d.comb += signal.eq(value)
        return signal

    def _choose(self, m: Module) -> Any:
        """Unpacks the operands, with a subnormal factor first.

        If both factors are subnormal, only the sign of their product matters.
        """
        form = self.form
        a, b, c = (form.view(bits) for bits in (self.a, self.b, self.c))
        swap = a.exponent.any()
        return _next(
            m,
            first=Mux(swap, _significand(b), _significand(a)),
            second=Mux(swap, _significand(a), _significand(b)),
            product=_effective_exponent(a) + _effective_exponent(b),
            c_exponent=_effective_exponent(c),
            c=_significand(c),
            c_sign=c.sign,
            sign=a.sign ^ b.sign,
            zeros=Cat(~x.as_value()[:-1].any() for x in (a, b)),
            largest=Cat(x.exponent.all() for x in (a, b, c)),
            fractions=Cat(x.fraction.any() for x in (a, b, c)),
        )

    def _place(self, m: Module, step: Any) -> Any:
        """Leading zeros of the first factor, distance of c from its place, special cases."""
        form = self.form
        # Exponent field of c at the top of the window, before the first factor's shift is subtracted.
        above = form.fraction + 4 - form.bias
        zero, endless, c_endless = step.zeros.any(), step.largest[:2].any(), step.largest[2]
        invalid = (zero & endless) | (endless & c_endless & (step.sign ^ step.c_sign))
        return _next(
            m,
            first=step.first,
            second=step.second,
            shift=leading_zeros(m, step.first),
            reach=step.product + above,
            distance=step.product - (step.c_exponent - above),
            c_exponent=step.c_exponent,
            c=step.c,
            c_zeros=leading_zeros(m, step.c[::-1]),
            sign=step.sign,
            c_sign=step.c_sign,
            zero=zero,
            nan=(step.largest & step.fractions).any() | invalid,
            infinite=endless | c_endless,
            infinite_sign=Mux(c_endless, step.c_sign, step.sign),
        )

    def _scale(self, m: Module, step: Any) -> Any:
        """Normalises the first factor; gives the shift of c and the exponent field of the window's top."""
        reach = self._wire(m, step.reach - step.shift, "lifted_reach")
        distance = self._wire(m, step.distance - step.shift, "lifted_distance")
        stay = step.zero | (distance < 0)
        amount = saturate(distance[:-1], self.window.bit_length())
        return _next(
            m,
            first=(step.first << step.shift)[: len(step.first)],
            second=step.second,
            amount=Mux(stay, 0, amount),
            exponent=self._wire(m, Mux(stay, step.c_exponent, reach), "top"),
            c=step.c,
            # Longer shifts of c than this lose a one.
            c_room=step.c_zeros + (self.window - 2 - len(step.c)),
            **self._signs(step),
        )

    @staticmethod
    def _signs(step: Any) -> dict[str, Any]:
        """Signs and special cases, which every stage passes on."""
        names = ("sign", "c_sign", "nan", "infinite", "infinite_sign")
        return {name: getattr(step, name) for name in names}

    def _multiply(self, m: Module, step: Any) -> Any:
        """Multiplies, in 2 cycles, and aligns c meanwhile: first by the coarse, then by the fine shift."""
        low = Const(0, self.window - 2 - len(step.c))
        long = Cat(Const(0, _FINE_LEVELS), step.amount[_FINE_LEVELS:])
        late = _next(
            m,
            coarse=Cat(low, step.c) >> long,
            sticky=step.c.any() & (step.amount > step.c_room),
            fine=step.amount[:_FINE_LEVELS],
            exponent=step.exponent,
            **self._signs(step),
        )
        aligned = Cat(late.sticky, late.coarse >> late.fine)
        product = split_product(m, step.first, step.second)
        late = _next(m, aligned=aligned, exponent=late.exponent, **self._signs(late))
        late.product = Cat(Const(0, 1), product)
        return late

    def _sum(self, m: Module, step: Any) -> Any:
        """Adds the product to c, or subtracts it; the result is signed."""
        subtract = step.sign ^ step.c_sign
        product = Cat(step.product, Const(0, self.window + 1 - len(step.product)))
        turned = product ^ subtract.replicate(len(product))
        # The lowest bits are the carry in of the two's complement.
        total = (Cat(subtract, step.aligned, Const(0, 2)) + Cat(subtract, turned))[1:-1]
        return _next(m, total=total, subtract=subtract, exponent=step.exponent, **self._signs(step))

    def _measure(self, m: Module, step: Any) -> Any:
        """Magnitude and sign, and `limit`, one bit where the left shift of a subnormal result ends."""
        negative = step.subtract & step.total[-1]
        magnitude = (step.total[:-1] ^ negative.replicate(self.window)) + negative
        return _next(
            m,
            total=magnitude[: self.window],
            # The window's top is one place above c's.
            limit=Cat(step.exponent == place for place in reversed(range(self.window))),
            exponent=step.exponent,
            subtract=step.subtract,
            sign=Mux(step.infinite, step.infinite_sign, Mux(negative, step.sign, step.c_sign)),
            nan=step.nan,
            infinite=step.infinite,
        )

    def _count(self, m: Module, step: Any) -> Any:
        """Left shift, 2 cycles later: the leading zeros, but no further than the exponent of subnormals."""
        marked = step.total | step.limit
        parts = [step.total[i : i + _COUNTED] for i in range(0, self.window, _COUNTED)]
        late = _next(
            m,
            total=step.total,
            some=Cat(part.any() for part in parts),
            exponent=step.exponent,
            subtract=step.subtract,
            sign=step.sign,
            nan=step.nan,
            infinite=step.infinite,
        )
        zero = ~late.some.any()
        return _next(
            m,
            total=late.total,
            shift=leading_zeros(m, marked, _COUNTED),
            exponent=late.exponent,
            # x - x is +0.
            sign=late.sign & ~(zero & late.subtract & ~late.infinite),
            zero=zero,
            nan=late.nan,
            infinite=late.infinite,
        )

    def _normalise(self, m: Module, step: Any) -> Any:
        """Normalises, in 2 cycles: exponent, fraction, and the bits below it for the rounding."""
        form = self.form
        long = Cat(Const(0, _FINE_LEVELS), step.shift[_FINE_LEVELS:])
        step = _next(
            m,
            coarse=(step.total << long)[: self.window],
            fine=step.shift[:_FINE_LEVELS],
            exponent=self._wire(m, step.exponent - step.shift + 1, "exponent"),
            sign=step.sign,
            zero=step.zero,
            nan=step.nan,
            infinite=step.infinite,
        )
        total = Signal(self.window, name="normal")
        m.d.comb += total.eq((step.coarse << step.fine)[: self.window])
        below = self.window - 1 - form.fraction
        return _next(
            m,
            exponent=Mux(total[-1], saturate(step.exponent[:-1], form.exponent), 0),
            fraction=total[below:-1],
            half=total[below - 1],
            rest=self._rest(step.coarse, step.fine, below - 1),
            sign=step.sign,
            zero=step.zero,
            nan=step.nan,
            infinite=step.infinite,
        )

    @staticmethod
    def _rest(coarse: Any, fine: Any, bits: int) -> Any:
        """Whether any of the lowest `bits` bits is set after shifting `coarse` left by `fine`."""
        always = max(0, bits - (1 << len(fine)) + 1)
        return coarse[:always].any() | Cat(coarse[i] & (fine < bits - i) for i in range(always, bits)).any()
