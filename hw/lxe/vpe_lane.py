"""A lane of the vector engine: a ring through one multiply-add (model `vrex.model.lxe.vpe`).

`SEQUENCES` says what an operation does in each pass. At the head of the ring, `HEAD` cycles long, the
operands of the multiply-add are decoded, selected, transformed and assembled. The ring never stalls.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

from amaranth import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from vrex.hw.lib.float32 import FP32
from vrex.hw.lib.stream import delay
from vrex.hw.lxe.fma import Fma
from vrex.model.lxe import vpe
from vrex.model.lxe.vpe import Function

WORD = FP32.bits

OPCODE_BITS = TURN_BITS = 4

HEAD = 4
"""Cycles from the returning element to the multiply-add."""


class OperandSource(IntEnum):
    """Where an operand of the multiply-add is fetched from."""

    PORT = 0
    """The command's operand, or an accumulator."""
    RING = 1
    """The returning element."""
    V = 2
    """Value V, which goes round beside the ring: x of an exponential, or a normalised operand."""
    U = 3
    """Value U, which does so too: an intermediate value that a later pass needs again."""


class Form(IntEnum):
    """How a fetched operand is transformed."""

    PLAIN = 0
    FLIP = 1
    """Negated."""
    TABLE = 2
    """The entry of the operation's table whose index is a as fetched."""
    SCALED = 3
    """Scaling by a power of two in two factors: a is multiplied by one (in its exponent), b is the other."""
    LARGER = 4
    """The larger one of a and c, which the multiply-add passes on unchanged."""
    NEAR = 5
    """Magnitude limited to `EXP_LIMIT`."""
    MINUS = 6
    """The significand with exponent 0, negated."""
    HALF = 7
    """Half of what RSQRT normalises to: the significand with exponent 0, or -1 if its own is even."""


@dataclass(frozen=True)
class Pass:
    """Operands a, b and c of the multiply-add a * b + c in one pass.

    Attributes:
        a, b, c: where they are fetched from, even if a constant or a table's entry replaces them.
        a_is, b_is, c_is: how they are transformed, or a constant instead.
        lift: b is 2^`LIFT` if a is subnormal.
        keep_v, keep_u: V becomes a, U becomes b, as fetched (a after `NEAR`).
    """

    a: OperandSource = OperandSource.PORT
    b: OperandSource = OperandSource.PORT
    c: OperandSource = OperandSource.PORT
    a_is: Form = Form.PLAIN
    b_is: Form | float = 1.0
    c_is: Form | float = -0.0
    lift: bool = False
    keep_v: bool = False
    keep_u: bool = False


PORT, RING, V, U = OperandSource
PLAIN, FLIP, TABLE, SCALED, LARGER, NEAR, MINUS, HALF = Form
_T1, _T2, _T3 = (float(term) for term in vpe.EXP_TERMS)
_MAGIC, _STEPS, _STEPS_LOW = (float(x) for x in (vpe.EXP_MAGIC, vpe.EXP_STEPS, vpe.EXP_STEPS_LOW))

SEQUENCES: dict[Function, tuple[Pass, ...]] = {
    Function.FMA: (Pass(b_is=PLAIN, c_is=PLAIN),),
    Function.FNMA: (Pass(a_is=FLIP, b_is=PLAIN, c_is=PLAIN),),
    Function.MUL: (Pass(b_is=PLAIN),),
    Function.ADD: (Pass(c_is=PLAIN),),
    Function.SUB: (Pass(c_is=FLIP),),
    Function.MAX: (Pass(a_is=LARGER, c_is=PLAIN),),
    Function.EXP: (
        Pass(a_is=NEAR, b_is=_STEPS, c_is=_MAGIC, keep_v=True),
        Pass(RING, b=RING, c_is=-_MAGIC, keep_u=True),
        Pass(V, b_is=_STEPS, c=RING, c_is=FLIP),
        Pass(V, b_is=_STEPS_LOW, c=RING, c_is=PLAIN),
        Pass(RING, b_is=_T3, c_is=_T2, keep_v=True),
        Pass(RING, V, b_is=PLAIN, c_is=_T1),
        Pass(RING, V, b_is=PLAIN),
        Pass(U, RING, a_is=TABLE, b_is=PLAIN, c_is=TABLE),
        Pass(RING, c=U, a_is=SCALED, b_is=SCALED),
    ),
    Function.RECIP: (
        Pass(lift=True),
        Pass(RING, a_is=MINUS, b_is=TABLE, c_is=1.0, keep_v=True),
        Pass(V, RING, a_is=TABLE, b_is=PLAIN, c_is=TABLE),
        Pass(V, RING, a_is=MINUS, b_is=PLAIN, c_is=1.0, keep_u=True),
        Pass(U, RING, U, b_is=PLAIN, c_is=PLAIN),
        Pass(RING, V, a_is=SCALED, b_is=SCALED),
    ),
    Function.RSQRT: (
        Pass(lift=True),
        Pass(RING, a_is=TABLE, b_is=TABLE, keep_v=True),
        Pass(V, RING, a_is=HALF, b_is=PLAIN, c_is=0.5),
        Pass(V, RING, a_is=TABLE, b_is=PLAIN, c_is=TABLE),
        Pass(RING, RING, b_is=PLAIN, keep_u=True),
        Pass(V, RING, a_is=HALF, b_is=PLAIN, c_is=0.5),
        Pass(U, RING, U, b_is=PLAIN, c_is=PLAIN),
        Pass(RING, V, a_is=SCALED, b_is=SCALED),
    ),
}
"""Passes of each operation; COPY, SIGN and the first pass of a sum's elements are `Pass()`."""

JOINS: dict[Function, dict[str, Any]] = {Function.RSUM: {"c_is": PLAIN}}
"""Changes to `Pass()` where an element is added to an accumulator, or two accumulators are folded."""

STAYS = {"a": RING}
"""Changes to `Pass()` for an accumulator that just goes round."""


def number(value: Any) -> Any:
    """Bits of an FP32 constant."""
    return Const(int(vpe.to_bits(value)), WORD)


def is_nan(bits: Any) -> Any:
    """Whether FP32 bits are a NaN."""
    view = FP32.view(bits)
    return view.exponent.all() & view.fraction.any()


def greater(left: Any, right: Any) -> Any:
    """Whether `vrex.model.lxe.vpe.maximum` gives the left one; NaNs need not be canonical."""

    def key(bits: Any) -> Any:
        return bits ^ Cat(bits[-1].replicate(WORD - 1), Const(1, 1))

    return is_nan(left) | ((key(left) > key(right)) & ~is_nan(right))


def _entry(index: Any, values: Iterable[Any]) -> Any:
    """FP32 bits of an entry of a constant table."""
    return Array([number(value) for value in values])[index]


class Lane(wiring.Component):
    """One ring: its head, the multiply-add, and registers up to the ring's length.

    Args:
        length: cycles of one round, at least `Lane.latency`.

    Members:
        opcode: operation of the command.
        turn: passes that the returning element has completed; 0 for one that enters.
        add: the entering element is added to the returning accumulator.
        fold: accumulators `left` and `right` are combined.
        stay: the returning accumulator goes round unchanged.
        a, b, c: operands.
        left, right: the two accumulators to combine.
        o: the element that returns to the head.
    """

    opcode: Signal
    turn: Signal
    add: Signal
    fold: Signal
    stay: Signal
    a: Signal
    b: Signal
    c: Signal
    left: Signal
    right: Signal
    o: Signal

    latency = HEAD + Fma.latency

    def __init__(self, length: int) -> None:
        self.length = length
        ports = dict.fromkeys(("a", "b", "c", "left", "right"), In(WORD))
        flags = dict.fromkeys(("add", "fold", "stay"), In(1))
        super().__init__({"opcode": In(OPCODE_BITS), "turn": In(TURN_BITS), **flags, **ports, "o": Out(WORD)})

    def elaborate(self, platform: Any) -> Module:
        """Builds the head's four pipeline stages, the multiply-add, and the registers that close the ring."""
        m = Module()
        m.submodules.fma = fma = Fma()
        # V and U, which go round beside the ring.
        self.v = Signal(WORD)
        self.u = Signal(WORD)
        operands = self._put_together(m, self._make(m, self._choose(m, self._fetch(m))))
        for port, operand in zip((fma.a, fma.b, fma.c), operands, strict=True):
            m.d.comb += port.eq(operand)
        m.d.comb += [
            fma.i_valid.eq(0),
            self.o.eq(delay(m, fma.o, self.length - self.latency, "longer")),
        ]
        return m

    def _decode(self, m: Module) -> SimpleNamespace:
        """The fields of the current pass, constants as `b_const` and `c_const`."""
        fields = {"a": 2, "b": 2, "c": 2, "a_is": 3, "b_is": 2, "c_is": 2, "b_const": WORD, "c_const": WORD}
        flags = dict.fromkeys(("b_fixed", "c_fixed", "lift", "keep_v", "keep_u"), 1)
        step = SimpleNamespace(**{name: Signal(bits, name=name) for name, bits in (fields | flags).items()})
        with m.Switch(self.opcode):
            for opcode in Function:
                with m.Case(opcode):
                    self._decode_turn(m, step, SEQUENCES.get(opcode, (Pass(),)))
            with m.Default():
                self._set(m, step, vars(Pass()))
        # In all other cases a sum's pass is `Pass()`, as decoded above.
        for opcode, changes in JOINS.items():
            with m.If((self.opcode == opcode) & (self.add | self.fold)):
                self._set(m, step, changes)
        with m.If(self.stay):
            self._set(m, step, STAYS)
        return step

    def _decode_turn(self, m: Module, step: SimpleNamespace, passes: Sequence[Pass]) -> None:
        """Selects the pass of an operation by `turn`."""
        with m.Switch(self.turn):
            for turn, one in enumerate(passes):
                # Turns past the last one do not occur, so the last pass is the default.
                with m.Case(turn) if turn < len(passes) - 1 else m.Default():
                    self._set(m, step, vars(one))

    @staticmethod
    def _set(m: Module, step: SimpleNamespace, fields: Mapping[str, Any]) -> None:
        """Drives some fields of a pass."""
        for name, value in fields.items():
            fixed = isinstance(value, float)
            if name in ("b_is", "c_is"):
                m.d.comb += getattr(step, f"{name[0]}_fixed").eq(fixed)
            if fixed:
                m.d.comb += getattr(step, f"{name[0]}_const").eq(number(value))
            else:
                m.d.comb += getattr(step, name).eq(int(value))

    def _fetch(self, m: Module) -> SimpleNamespace:
        """Stage 1: decodes the pass and registers everything that an operand may be fetched from."""
        step = self._decode(m)
        step.opcode = self.opcode
        step.port_a = Mux(self.fold, self.left, self.a)
        step.port_b = self.b
        step.port_c = Mux(self.fold, self.right, Mux(self.add, self.o, self.c))
        step.ring, step.v, step.u = self.o, self.v, self.u
        return _next(m, step)

    def _choose(self, m: Module, step: SimpleNamespace) -> SimpleNamespace:
        """Stage 2: fetches the operands, as `a_value`, `b_value` and `c_value`."""
        sources = [step.ring, step.v, step.u]
        for name in "abc":
            choice = Array([getattr(step, f"port_{name}"), *sources])[getattr(step, name)]
            setattr(step, f"{name}_value", choice)
        return _next(m, step)

    def _make(self, m: Module, step: SimpleNamespace) -> SimpleNamespace:
        """Stage 3: transforms each operand by itself, and decides between a and c."""
        a, b = step.a_value, step.b_value
        view = FP32.view(a)
        odd = view.exponent[0]
        recip, rsqrt = (step.opcode == code for code in (Function.RECIP, Function.RSQRT))
        exponent = Mux(step.a_is == MINUS, FP32.bias, Const(FP32.bias, FP32.exponent) - odd)
        significand = Cat(view.fraction, exponent[: FP32.exponent], Const(1, 1))
        a_made = Mux((step.a_is == MINUS) | (step.a_is == HALF), significand, a)
        subnormal = ~view.exponent.any()
        b_const = Mux(step.lift & subnormal, number(2.0**vpe.LIFT), step.b_const)
        c_flip = Cat(Const(0, WORD - 1), ~step.c_fixed & (step.c_is == FLIP))
        seeds = Mux(
            recip,
            _entry(view.fraction[-vpe.SEED_BITS :], vpe.RECIP_SEEDS),
            _entry(Cat(view.fraction[1 - vpe.SEED_BITS :], odd), vpe.RSQRT_SEEDS),
        )
        far = (view.exponent >= FP32.bias + 7) & ~is_nan(a)
        kept = {"v": Mux(step.keep_v, a, step.v), "u": Mux(step.keep_u, b, step.u)}
        made = SimpleNamespace(
            a=a_made ^ Cat(Const(0, WORD - 1), step.a_is == FLIP),
            b=Mux(step.b_fixed, b_const, b),
            c=Mux(step.c_fixed, step.c_const, step.c_value) ^ c_flip,
            larger=step.a_is == LARGER,
            other=(step.a_is == LARGER) & ~greater(a, step.c_value),
            limit=(step.a_is == NEAR) & far,
            a_table=step.a_is == TABLE,
            b_table=~step.b_fixed & (step.b_is == TABLE),
            c_table=~step.c_fixed & (step.c_is == TABLE),
            scaled=step.a_is == SCALED,
            table=Mux(recip | rsqrt, seeds, _entry(a[: vpe.EXP_BITS], vpe.EXP_TABLE)),
            **self._power(m, step, subnormal, recip, rsqrt),
            **self._special(step, recip, rsqrt),
            **kept,
        )
        return _next(m, made)

    def _power(self, m: Module, step: Any, subnormal: Any, recip: Any, rsqrt: Any) -> dict[str, Any]:
        """Exponent for `SCALED`: that of EXP from U; of RECIP minus the operand's; of RSQRT half of that."""
        lifted = Signal()
        m.d.comb += lifted.eq(delay(m, Mux(step.lift, subnormal, lifted), self.length, "lifted"))
        bias = FP32.bias + Mux(lifted, vpe.LIFT, 0) + rsqrt
        minus = Signal(FP32.exponent + 2, name="minus")
        m.d.comb += minus.eq(bias - FP32.view(step.b_value).exponent)
        signed = minus.as_signed()
        # U is the sum of `EXP_MAGIC`, whose lowest bits are 0, and the number of steps.
        steps = step.c_value[vpe.EXP_BITS : 14].as_signed()
        power = Signal(FP32.exponent + 2, name="power")
        m.d.comb += power.eq(Mux(recip, signed, Mux(rsqrt, signed >> 1, steps)))
        return {"power": power}

    @staticmethod
    def _special(step: Any, recip: Any, rsqrt: Any) -> dict[str, Any]:
        """Results of RECIP and RSQRT for zeros, infinities, NaNs: sign, exponent, top bit of the fraction."""
        b, sign = FP32.view(step.b_value), FP32.view(step.b_value).sign
        endless, zero, nan = b.exponent.all(), ~step.b_value[:-1].any(), is_nan(step.b_value)
        negative = rsqrt & sign & ~zero
        return {
            "special": (recip | rsqrt) & (endless | zero | negative),
            "special_sign": sign & ~nan & ~negative,
            "special_large": zero | nan | negative,
            "special_nan": nan | negative,
            "sign": Mux(recip, sign, step.a_value[-1]),
        }

    def _put_together(self, m: Module, step: SimpleNamespace) -> tuple[Any, Any, Any]:
        """Stage 4: assembles and registers the operands; returns a, b and c."""
        number_a, low = FP32.view(step.a), step.power.as_signed() >> 1
        # Adds the half that takes the odd unit of the exponent, in one addition.
        field = (Cat(Const(1, 1), number_a.exponent) + Cat(step.power[0], low[: FP32.exponent]))[1:-1]
        field = Mux(number_a.exponent.all(), number_a.exponent, field)
        forced = Cat(
            Const(0, FP32.fraction - 1),
            step.special_nan,
            step.special_large.replicate(FP32.exponent),
            step.special_sign,
        )
        scaled = Mux(step.special, forced, Cat(number_a.fraction, field, step.sign))
        half = Cat(Const(0, FP32.fraction), (low + FP32.bias)[: FP32.exponent], Const(0, 1))
        limit = Cat(number(vpe.EXP_LIMIT)[:-1], number_a.sign)
        a = Mux(step.scaled, scaled, Mux(step.a_table, step.table, Mux(step.other, step.c, step.a)))
        b = Mux(step.scaled, Mux(step.special, number(1.0), half), Mux(step.b_table, step.table, step.b))
        c = Mux(step.c_table, step.table, Mux(step.larger, number(-0.0), step.c))
        v = delay(m, Mux(step.limit, limit, step.v), 1, "v")
        m.d.comb += [
            self.v.eq(delay(m, v, self.length - HEAD, "v")),
            self.u.eq(delay(m, step.u, self.length - HEAD + 1, "u")),
        ]
        return tuple(delay(m, x, 1, "operand") for x in (Mux(step.limit, limit, a), b, c))


def _next(m: Module, step: SimpleNamespace) -> SimpleNamespace:
    """The values, one cycle later."""
    return SimpleNamespace(**{name: delay(m, value, 1, name) for name, value in vars(step).items()})
