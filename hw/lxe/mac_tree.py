"""MAC tree of the DPE: BF16 dot products with FP32 sums (paper Section V-A; model `vrex.model.lxe.mac_tree`).

A chunk of 64 terms takes 64 / inputs beats in consecutive cycles; its sum is added to the dot product so far.
Two schemes (numeric contract): `fused` aligns the exact products to the largest and adds integers, `tree`
adds FP32-rounded products in FP32 adders. The pipeline never stalls: a user that must stall wraps it in an
`EnableInserter`.
"""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from vrex.hw.lib.float32 import (
    BF16,
    FP32,
    Adder,
    Multiplier,
    leading_zeros,
    round_to_even,
    saturate,
    shift_right_sticky,
)
from vrex.hw.lib.stream import delay, reduce_tree, tree_stages
from vrex.model.config import DpeConfig

MINUS_ZERO = 1 << FP32.bits - 1
"""FP32 bits of -0, the neutral element of the addition: it keeps even the sign of a zero."""

PRODUCT = 2
"""Latency of a product in scheme `fused`."""

EXPONENT_LEVELS = 1
"""Levels of the tree that finds the largest exponent, each a comparison, between two registers."""

_FINE_LEVELS = 3
"""Levels of the alignment shifter before its register."""


def _levels(leaves: int) -> int:
    """Levels of a balanced tree."""
    return (leaves - 1).bit_length()


def _chunk_ports(config: DpeConfig) -> dict[str, Any]:
    """Ports of `Fused` and `Tree`."""
    beat = config.inputs * BF16.bits
    return {"a": In(beat), "b": In(beat), "i_valid": In(1), "o": Out(FP32.bits), "o_valid": Out(1)}


class _Moments(NamedTuple):
    """Pipeline stages of scheme `fused`, in cycles after a chunk's last beat at the inputs.

    Attributes:
        top: the chunk's largest exponent is known.
        beat: the sum of its last beat is known.
        total: the sum of the chunk is known.
        result: that sum is normalised and rounded.
    """

    top: int
    beat: int
    total: int
    result: int

    @classmethod
    def of(cls, config: DpeConfig) -> "_Moments":
        """Those of a tree of so many inputs."""
        over_beats = int(config.beats > 1)
        top = PRODUCT + tree_stages(config.inputs, EXPONENT_LEVELS) + over_beats
        beat = top + config.beats - 1 + 3 + _levels(config.inputs)
        return cls(top, beat, beat + over_beats, beat + over_beats + 6)


def latencies(config: DpeConfig) -> tuple[int, int]:
    """`total_latency` and `latency` of a MAC tree: see `MacTree`."""
    if config.scheme == "fused":
        chunk = _Moments.of(config).result
    else:
        # The sum of a beat waits for its neighbour: each level adds the later one when it arrives.
        levels = _levels(config.inputs) + _levels(config.beats)
        chunk = Multiplier.latency + levels * Adder.latency
    return chunk, chunk + Adder.latency


def _count_beats(m: Module, valid: Any, beats: int) -> tuple[Any, Any]:
    """Whether the beat in this cycle is the first of a chunk, and whether it is the last."""
    if beats == 1:
        return valid, valid
    beat = Signal(range(beats))
    with m.If(valid):
        m.d.sync += beat.eq(beat + 1)
    return valid & (beat == 0), valid & (beat == beats - 1)


class Fused(wiring.Component):
    """Sum of a chunk, scheme `fused`.

    Args:
        config: DPE; `inputs` and `fraction_bits` matter.

    Members:
        a, b: one beat of BF16 values, the first in the lowest bits.
        i_valid: a and b hold a beat; the beats of a chunk come in consecutive cycles.
        o, o_valid: FP32 bits, `latency` cycles after the chunk's last beat.
    """

    a: Signal
    b: Signal
    i_valid: Signal
    o: Signal
    o_valid: Signal

    def __init__(self, config: DpeConfig) -> None:
        self.config = config
        self.beats = config.beats
        self.moments = _Moments.of(config)
        self.latency = self.moments.result
        super().__init__(_chunk_ports(config))

    def elaborate(self, platform: Any) -> Module:
        """Builds multipliers, largest exponent, aligners, a tree of integer adders, and the rounding."""
        m = Module()
        first, last = _count_beats(m, self.i_valid, self.beats)
        lanes = [self._multiply(m, i) for i in range(self.config.inputs)]
        top, flags = self._over_chunk(m, lanes, first, last)
        # The products of a beat wait until the largest exponent of their whole chunk is known.
        wait = self.moments.top - PRODUCT + self.beats - 1
        total, carry = self._sum(m, [self._align(m, lane, top, wait) for lane in lanes])
        if self.beats > 1:
            is_first = delay(m, first, self.moments.beat, "first", reset=True)
            total, carry = self._accumulate(m, total, carry, is_first)
        late = self.moments.total - (self.moments.top + self.beats - 1)
        step = self._measure(m, total, carry, delay(m, top, late, "top"), delay(m, flags, late, "flags"))
        m.d.comb += [
            self.o.eq(self._round(m, self._shift(m, step))),
            self.o_valid.eq(delay(m, last, self.latency, "valid", reset=True)),
        ]
        return m

    def _multiply(self, m: Module, i: int) -> Any:
        """Product of the i-th terms: sign, 16-bit magnitude, sum of the exponent fields, flags.

        The flags are NaN, +infinity, -infinity.
        """
        a, b = (BF16.view(beat.word_select(i, BF16.bits)) for beat in (self.a, self.b))
        parts = []
        for x in (a, b):
            fields = SimpleNamespace(
                significand=Cat(x.fraction, x.exponent.any()),
                exponent=Cat(x.exponent[0] | ~x.exponent.any(), x.exponent[1:]),
                zero=~(x.exponent.any() | x.fraction.any()),
                infinite=x.exponent.all() & ~x.fraction.any(),
                nan=x.exponent.all() & x.fraction.any(),
            )
            parts.append(fields)
        left, right = parts
        zero, infinite = left.zero | right.zero, left.infinite | right.infinite
        sign = a.sign ^ b.sign
        nan = left.nan | right.nan | (zero & infinite)
        factors = [delay(m, part.significand, 1, "factor") for part in parts]
        exponent = delay(m, left.exponent + right.exponent, 1, "sum")
        counts = delay(m, ~zero, 1, "counts").replicate(len(exponent))
        return SimpleNamespace(
            magnitude=delay(m, factors[0] * factors[1], 1, "magnitude"),
            sign=delay(m, sign, 2, "sign"),
            exponent=delay(m, exponent & counts, 1, "exponent"),
            flags=delay(m, Cat(nan, infinite & ~sign, infinite & sign), 2, "flags"),
        )

    def _over_chunk(self, m: Module, lanes: Sequence[Any], first: Any, last: Any) -> tuple[Any, Any]:
        """Largest exponent of a chunk and the OR of its flags, held until those of the next chunk."""

        def larger(left: Any, right: Any) -> Any:
            return Mux(left > right, left, right)

        def either(left: Any, right: Any) -> Any:
            return left | right

        top = reduce_tree([lane.exponent for lane in lanes], larger, m, EXPONENT_LEVELS)
        flags = reduce_tree([lane.flags for lane in lanes], either, m, EXPONENT_LEVELS)
        if self.beats == 1:
            return top, flags
        first, last = (delay(m, mark, self.moments.top - 1, "mark", reset=True) for mark in (first, last))
        results = []
        for value, join in ((top, larger), (flags, either)):
            running, held = Signal.like(value, name="running"), Signal.like(value, name="held")
            joined = Signal.like(value, name="joined")
            m.d.comb += joined.eq(Mux(first, value, join(running, value)))
            m.d.sync += running.eq(joined)
            with m.If(last):
                m.d.sync += held.eq(joined)
            results.append(held)
        return results[0], results[1]

    def _align(self, m: Module, lane: Any, top: Any, wait: int) -> tuple[Any, Any]:
        """A product as a multiple of 2^(top - W): in ones' complement if negative, and the carry to add."""
        bits = self.config.fraction_bits + 2
        magnitude = delay(m, lane.magnitude, wait + 1, "waiting")
        sign = delay(m, lane.sign, wait + 2, "waiting_sign")
        distance = (top - delay(m, lane.exponent, wait, "waiting_exponent"))[: len(top)]
        amount = delay(m, saturate(distance, bits.bit_length()), 1, "amount")
        value: Value = Cat(Const(0, bits - len(magnitude)), magnitude)
        for level in range(len(amount)):
            step = min(1 << level, bits)
            if level == _FINE_LEVELS:
                value, amount = delay(m, value, 1, "fine"), delay(m, amount, 1, "amount")
            shifted = Signal(bits, name="shifted")
            m.d.comb += shifted.eq(Mux(amount[level], value[step:], value))
            value = shifted
        signed = Cat(value ^ sign.replicate(bits), sign).as_signed()
        return delay(m, signed, 1, "aligned"), delay(m, sign, 1, "carry")

    @staticmethod
    def _sum(m: Module, terms: Sequence[tuple[Any, Any]]) -> tuple[Any, Any]:
        """Sum of the terms and one carry still to add; one level of adders a cycle.

        Each adder takes one carry in, and a tree has one adder fewer than it has leaves.
        """
        while len(terms) > 1:
            joined = []
            for (left, carry), (right, left_over) in zip(terms[0::2], terms[1::2], strict=True):
                width = len(left) + 1
                total = (Cat(carry, left).as_signed() + Cat(carry, right).as_signed())[1 : width + 1]
                joined.append((delay(m, total.as_signed(), 1, "sum"), delay(m, left_over, 1, "carry")))
            terms = joined
        return terms[0]

    def _accumulate(self, m: Module, total: Any, carry: Any, first: Any) -> tuple[Any, Any]:
        """Sum over the beats of a chunk; the carry still to add is that of the last beat."""
        bits = len(total) + (self.beats - 1).bit_length()
        held = Signal(signed(bits))
        held_carry = Signal()
        before = Mux(first, 0, held)
        before_carry = held_carry & ~first
        m.d.sync += [
            held.eq((Cat(before_carry, before).as_signed() + Cat(before_carry, total).as_signed())[1:]),
            held_carry.eq(carry),
        ]
        return held, held_carry

    def _measure(self, m: Module, total: Any, carry: Any, top: Any, flags: Any) -> Any:
        """Sign, magnitude and the leading zeros of the magnitude."""
        sign = total[-1]
        # -(total + carry) = ~total + 1 - carry
        spread = sign.replicate(len(total) - 1)
        magnitude = delay(m, ((total[:-1] ^ spread) + (carry ^ sign))[: len(total) - 1], 1, "magnitude")
        return SimpleNamespace(
            magnitude=delay(m, magnitude, 1, "magnitude"),
            zeros=delay(m, leading_zeros(m, magnitude), 1, "zeros"),
            sign=delay(m, sign, 2, "sign"),
            top=delay(m, top, 2, "top"),
            flags=delay(m, flags, 2, "flags"),
        )

    def _shift(self, m: Module, step: Any) -> Any:
        """Normalises the magnitude, then shifts a subnormal one right again."""
        bits = len(step.magnitude)
        # The unit of `top` is 2^-254, that of the magnitude W bits below.
        highest = FP32.bias - 2 * BF16.bias - self.config.fraction_bits + bits - 1
        exponent = delay(m, step.top + highest - step.zeros, 1, "exponent")
        below = exponent < 1
        amount = saturate((1 - exponent)[: len(exponent)], (FP32.fraction + 3).bit_length())
        normal = delay(m, (step.magnitude << step.zeros)[:bits], 2, "normal")
        low = bits - FP32.fraction - 2
        kept, rest = shift_right_sticky(
            m,
            normal[low:],
            delay(m, Mux(below, amount, 0), 1, "amount"),
            normal[:low].any() if low else Const(0, 1),
        )
        nan, plus, minus = delay(m, step.flags, 3, "flags")
        return SimpleNamespace(
            kept=delay(m, kept, 1, "kept"),
            rest=delay(m, rest, 1, "rest"),
            exponent=delay(m, Mux(below, 0, saturate(exponent[:-1], FP32.exponent)), 2, "exponent"),
            sign=delay(m, step.sign, 3, "sign"),
            zero=delay(m, ~normal[-1], 1, "zero"),
            nan=nan | (plus & minus),
            plus=plus,
            minus=minus,
        )

    @staticmethod
    def _round(m: Module, step: Any) -> Any:
        """Rounds to FP32 bits and inserts zeros, infinities and NaN."""
        magnitude = round_to_even(FP32, step.exponent, step.kept[1:-1], step.kept[0], step.rest)
        finite = Mux(step.zero, 0, Cat(magnitude[: FP32.bits - 1], step.sign))
        infinite = Cat(Const(FP32.infinity, FP32.bits - 1), step.minus)
        special = Mux(step.plus | step.minus, infinite, finite)
        return delay(m, Mux(step.nan, FP32.nan, special), 1, "o")


class Tree(wiring.Component):
    """Sum of a chunk, scheme `tree`: neighbours are added first.

    Args:
        config: DPE; `inputs` matters.

    Members: those of `Fused`.
    """

    a: Signal
    b: Signal
    i_valid: Signal
    o: Signal
    o_valid: Signal

    def __init__(self, config: DpeConfig) -> None:
        self.config = config
        self.beats = config.beats
        super().__init__(_chunk_ports(config))

    def elaborate(self, platform: Any) -> Module:
        """Builds multipliers and a tree of FP32 adders over the inputs, then over the beats."""
        m = Module()
        terms: list[Multiplier | Adder] = []
        for i in range(self.config.inputs):
            m.submodules[f"product_{i}"] = product = Multiplier(operand=BF16)
            m.d.comb += [
                product.a.eq(self.a.word_select(i, BF16.bits)),
                product.b.eq(self.b.word_select(i, BF16.bits)),
                product.i_valid.eq(self.i_valid),
            ]
            terms.append(product)
        level = 0
        while len(terms) > 1:
            terms = [
                self._add(m, f"level_{level}_{i}", terms[i].o, terms[i + 1].o, terms[i].o_valid)
                for i in range(0, len(terms), 2)
            ]
            level += 1
        total = terms[0]
        for wait in range(_levels(self.beats)):
            total = self._add_neighbours(m, f"beats_{wait}", total, 1 << wait)
        m.d.comb += [self.o.eq(total.o), self.o_valid.eq(total.o_valid)]
        return m

    @staticmethod
    def _add(m: Module, name: str, a: Any, b: Any, valid: Any) -> Adder:
        """An adder of two values that are valid in the same cycle."""
        m.submodules[name] = adder = Adder()
        m.d.comb += [adder.a.eq(a), adder.b.eq(b), adder.subtract.eq(0), adder.i_valid.eq(valid)]
        return adder

    def _add_neighbours(self, m: Module, name: str, sums: Multiplier | Adder, apart: int) -> Adder:
        """Adds every second sum to the one `apart` cycles before it."""
        odd = Signal(name=f"{name}_odd")
        with m.If(sums.o_valid):
            m.d.sync += odd.eq(~odd)
        return self._add(m, name, delay(m, sums.o, apart, name), sums.o, sums.o_valid & odd)


class MacTree(wiring.Component):
    """Adds the sum of a chunk to its dot product so far. One beat a cycle.

    Args:
        config: DPE; `inputs`, `scheme` and `fraction_bits` matter.

    Members:
        a, b: one beat of BF16 values, the first in the lowest bits.
        i_valid: a and b hold a beat; the beats of a chunk come in consecutive cycles.
        total: FP32 bits of the dot product so far, sampled `total_latency` cycles after the chunk's last
            beat; `MINUS_ZERO` for the first chunk of a dot product.
        o, o_valid: FP32 bits of the new sum, `latency` cycles after the chunk's last beat.
    """

    a: Signal
    b: Signal
    i_valid: Signal
    total: Signal
    o: Signal
    o_valid: Signal

    def __init__(self, config: DpeConfig) -> None:
        self.config = config
        self.total_latency, self.latency = latencies(config)
        super().__init__({**_chunk_ports(config), "total": In(FP32.bits)})

    def elaborate(self, platform: Any) -> Module:
        """Builds the chunk's summation and the FP32 adder behind it."""
        m = Module()
        chunk: Fused | Tree = Fused(self.config) if self.config.scheme == "fused" else Tree(self.config)
        m.submodules.chunk = chunk
        m.submodules.sum = adder = Adder()
        m.d.comb += [
            *(chunk.a.eq(self.a), chunk.b.eq(self.b), chunk.i_valid.eq(self.i_valid)),
            *(adder.a.eq(self.total), adder.b.eq(chunk.o), adder.subtract.eq(0)),
            *(adder.i_valid.eq(chunk.o_valid), self.o.eq(adder.o), self.o_valid.eq(adder.o_valid)),
        ]
        return m
