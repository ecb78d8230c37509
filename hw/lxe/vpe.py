"""Vector engine of the LXE: FP32 operations on rows (paper Section V-A; model `vrex.model.vpe`).

The lanes are rings: what enters passes the fused multiply-add, and comes out or goes round again. An
operation of one pass takes a word a cycle, one of p passes as many words as the ring is long in p rounds. In
a reduction the words in the ring are the accumulators, 64 elements of them, so each round takes 64 elements;
then six rounds add them up. The whole ring stands still while a result waits or an operand is missing.
"""

from types import SimpleNamespace
from typing import Any

from amaranth import Array, Cat, Const, EnableInserter, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from vrex.hw.float32 import BF16, FP32, to_bf16
from vrex.hw.lxe.fma import Fma
from vrex.hw.stream import delay
from vrex.model import vpe
from vrex.model.config import Config
from vrex.model.vpe import ACCUMULATORS, HASH_WORD_BITS, OPERANDS, PASSES, REDUCTIONS, Opcode, Status

COMMAND = data.StructLayout({"opcode": 8, "bf16": 4, "scalar": 2, "reserved": 2, "length": 24})
"""bf16: operand a, b, c, result; scalar: b, c."""

DONE = data.StructLayout({"status": 2, "nan": 1})

FOLDS = (ACCUMULATORS - 1).bit_length()
"""Rounds that add up the accumulators."""

WORD = FP32.bits


def _number(value: Any) -> Any:
    """Bits of an FP32 constant."""
    return Const(int(vpe.to_bits(value)), WORD)


ONE, MINUS_ZERO = _number(1.0), _number(-0.0)


def _table(index: Any, values: Any) -> Any:
    """Bits of a constant table's entry."""
    return Array([_number(value) for value in values])[index]


def _is_nan(bits: Any) -> Any:
    number = FP32.view(bits)
    return number.exponent.all() & number.fraction.any()


def _larger(left: Any, right: Any) -> Any:
    """`vrex.model.vpe.maximum`; a NaN need not be the one NaN yet."""

    def key(bits: Any) -> Any:
        return bits ^ Cat(bits[-1].replicate(WORD - 1), Const(1, 1))

    nan = _is_nan(left)
    return Mux(nan | ((key(left) > key(right)) & ~_is_nan(right)), left, right)


class Lane(wiring.Component):
    """One ring: a cycle at its head chooses the operands, then the multiply-add, then what makes it longer.

    Args:
        length: of the ring in cycles, at least `Fma.latency` + 1.

    Members:
        opcode: of the command.
        turn: passes that the returning element has behind it; 0 as it enters.
        add: the element joins the accumulator that returns.
        fold: left and right are folded.
        a, b, c: operands.
        left, right: two accumulators.
        o: what returns to the head.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        ports = dict.fromkeys(("a", "b", "c", "left", "right"), In(WORD))
        flags = dict.fromkeys(("add", "fold"), In(1))
        super().__init__({"opcode": In(4), "turn": In(4), **flags, **ports, "o": Out(WORD)})

    def elaborate(self, platform: Any) -> Module:
        """Hardware."""
        m = Module()
        m.submodules.fma = fma = Fma()
        # x or a normalised operand, then what Newton or the series needs again.
        v, u, lifted = Signal(WORD), Signal(WORD), Signal()
        next_v, next_u, next_lifted = Signal(WORD), Signal(WORD), Signal()
        operands = [Signal(WORD, name=f"next_{name}") for name in "abc"]
        m.d.comb += [next_v.eq(v), next_u.eq(u), next_lifted.eq(lifted)]
        side = SimpleNamespace(v=v, u=u, lifted=lifted, next_v=next_v, next_u=next_u, next_lifted=next_lifted)
        self._choose(m, operands, side)
        m.d.comb += [
            *(
                port.eq(delay(m, x, 1, "operand"))
                for port, x in zip((fma.a, fma.b, fma.c), operands, strict=True)
            ),
            fma.i_valid.eq(0),
            self.o.eq(delay(m, fma.o, self.length - Fma.latency - 1, "longer")),
            v.eq(delay(m, next_v, self.length, "v")),
            u.eq(delay(m, next_u, self.length, "u")),
            lifted.eq(delay(m, next_lifted, self.length, "lifted")),
        ]
        return m

    def _choose(self, m: Module, operands: Any, side: Any) -> None:
        """Operands of the multiply-add by the operation and the pass."""
        a, b, c = operands
        left = Mux(self.fold, self.left, self.a)
        right = Mux(self.fold, self.right, Mux(self.add, self.o, self.c))
        m.d.comb += [a.eq(left), b.eq(ONE), c.eq(MINUS_ZERO)]
        joins = self.fold | self.add
        flip = Const(1 << WORD - 1, WORD)
        with m.Switch(self.opcode):
            with m.Case(Opcode.FMA):
                m.d.comb += [b.eq(self.b), c.eq(self.c)]
            with m.Case(Opcode.FNMA):
                m.d.comb += [a.eq(left ^ flip), b.eq(self.b), c.eq(self.c)]
            with m.Case(Opcode.MUL):
                m.d.comb += b.eq(self.b)
            with m.Case(Opcode.ADD):
                m.d.comb += c.eq(self.c)
            with m.Case(Opcode.SUB):
                m.d.comb += c.eq(self.c ^ flip)
            with m.Case(Opcode.RSUM), m.If(joins):
                m.d.comb += c.eq(right)
            with m.Case(Opcode.RMAX), m.If(joins):
                m.d.comb += a.eq(_larger(left, right))
            with m.Case(Opcode.MAX):
                m.d.comb += a.eq(_larger(left, right))
            with m.Case(Opcode.EXP):
                self._exp(m, a, b, c, side)
            with m.Case(Opcode.RECIP):
                self._recip(m, a, b, c, side)
            with m.Case(Opcode.RSQRT):
                self._rsqrt(m, a, b, c, side)

    def _scale(self, m: Module, a: Any, b: Any, exponent: Any) -> None:
        """The result times 2^exponent: half of it by the exponent field, half by the multiplier."""
        number = FP32.view(self.o)
        low = exponent >> 1
        field = (number.exponent + (exponent - low))[: FP32.exponent]
        m.d.comb += [
            a.eq(Cat(number.fraction, Mux(number.exponent.all(), number.exponent, field), number.sign)),
            b.eq(Cat(Const(0, FP32.fraction), (low + FP32.bias)[: FP32.exponent], Const(0, 1))),
        ]

    def _exp(self, m: Module, a: Any, b: Any, c: Any, side: Any) -> None:
        x = FP32.view(self.a)
        far = (x.exponent >= FP32.bias + 7) & ~_is_nan(self.a)
        near = Mux(far, Cat(_number(vpe.EXP_LIMIT)[:-1], x.sign), self.a)
        flip = Const(1 << WORD - 1, WORD)
        steps = (side.u - _number(vpe.EXP_MAGIC))[:14].as_signed()
        table = _table(side.u[: vpe.EXP_BITS], vpe.EXP_TABLE)
        t1, t2, t3 = (_number(term) for term in vpe.EXP_TERMS)
        with m.Switch(self.turn):
            with m.Case(0):
                m.d.comb += [a.eq(near), b.eq(_number(vpe.EXP_STEPS)), c.eq(_number(vpe.EXP_MAGIC))]
                m.d.comb += side.next_v.eq(near)
            with m.Case(1):
                m.d.comb += [a.eq(self.o), c.eq(_number(-vpe.EXP_MAGIC)), side.next_u.eq(self.o)]
            with m.Case(2):
                m.d.comb += [a.eq(side.v), b.eq(_number(vpe.EXP_STEPS)), c.eq(self.o ^ flip)]
            with m.Case(3):
                m.d.comb += [a.eq(side.v), b.eq(_number(vpe.EXP_STEPS_LOW)), c.eq(self.o)]
            with m.Case(4):
                m.d.comb += [a.eq(self.o), b.eq(t3), c.eq(t2), side.next_v.eq(self.o)]
            with m.Case(5):
                m.d.comb += [a.eq(self.o), b.eq(side.v), c.eq(t1)]
            with m.Case(6):
                m.d.comb += [a.eq(self.o), b.eq(side.v)]
            with m.Case(7):
                m.d.comb += [a.eq(table), b.eq(self.o), c.eq(table)]
            with m.Case(8):
                self._scale(m, a, b, steps >> vpe.EXP_BITS)

    def _lift(self, m: Module, b: Any, side: Any) -> None:
        """First pass: a subnormal operand becomes normal."""
        subnormal = ~FP32.view(self.a).exponent.any()
        m.d.comb += b.eq(Mux(subnormal, _number(2.0**vpe.LIFT), ONE))
        m.d.comb += side.next_lifted.eq(subnormal)

    def _exponent(self, side: Any) -> Any:
        """Exponent of the operand itself."""
        return (FP32.view(side.v).exponent - FP32.bias - Mux(side.lifted, vpe.LIFT, 0)).as_signed()

    def _recip(self, m: Module, a: Any, b: Any, c: Any, side: Any) -> None:
        source = Mux(self.turn == 1, self.o, side.v)
        number = FP32.view(source)
        negative = Cat(number.fraction, Const(FP32.bias, FP32.exponent), Const(1, 1))
        seed = _table(number.fraction[-vpe.SEED_BITS :], vpe.RECIP_SEEDS)
        with m.Switch(self.turn):
            with m.Case(0):
                self._lift(m, b, side)
            with m.Case(1):
                m.d.comb += [a.eq(negative), b.eq(seed), c.eq(ONE), side.next_v.eq(self.o)]
            with m.Case(2):
                m.d.comb += [a.eq(seed), b.eq(self.o), c.eq(seed)]
            with m.Case(3):
                m.d.comb += [a.eq(negative), b.eq(self.o), c.eq(ONE), side.next_u.eq(self.o)]
            with m.Case(4):
                m.d.comb += [a.eq(side.u), b.eq(self.o), c.eq(side.u)]
            with m.Case(5):
                self._scale(m, a, b, -self._exponent(side))
                m.d.comb += a[-1].eq(number.sign)
                with m.If(_is_nan(side.v)):
                    m.d.comb += [a.eq(side.v), b.eq(ONE)]
                with m.Elif(number.exponent.all() | ~side.v[:-1].any()):
                    infinity = number.exponent.all().replicate(WORD - 1)
                    m.d.comb += [a.eq(Cat(~infinity & FP32.infinity, number.sign)), b.eq(ONE)]

    def _rsqrt(self, m: Module, a: Any, b: Any, c: Any, side: Any) -> None:
        source = Mux(self.turn == 1, self.o, side.v)
        number = FP32.view(source)
        odd = number.exponent[0]
        half = Cat(number.fraction, Const(FP32.bias, FP32.exponent) - odd)[: WORD - 1]
        seed = _table(Cat(number.fraction[1 - vpe.SEED_BITS :], odd), vpe.RSQRT_SEEDS)
        with m.Switch(self.turn):
            with m.Case(0):
                self._lift(m, b, side)
            with m.Case(1):
                m.d.comb += [a.eq(seed), b.eq(seed), side.next_v.eq(self.o)]
            with m.Case(2, 5):
                m.d.comb += [a.eq(Cat(half, Const(1, 1))), b.eq(self.o), c.eq(_number(0.5))]
            with m.Case(3):
                m.d.comb += [a.eq(seed), b.eq(self.o), c.eq(seed)]
            with m.Case(4):
                m.d.comb += [a.eq(self.o), b.eq(self.o), side.next_u.eq(self.o)]
            with m.Case(6):
                m.d.comb += [a.eq(side.u), b.eq(self.o), c.eq(side.u)]
            with m.Case(7):
                self._scale(m, a, b, -(self._exponent(side) >> 1))
                with m.If(~side.v[:-1].any()):
                    m.d.comb += [a.eq(Cat(Const(FP32.infinity, WORD - 1), number.sign)), b.eq(ONE)]
                with m.Elif(_is_nan(side.v) | number.sign):
                    m.d.comb += [a.eq(FP32.nan), b.eq(ONE)]
                with m.Elif(number.exponent.all()):
                    m.d.comb += [a.eq(0), b.eq(ONE), c.eq(0)]


class Vpe(wiring.Component):
    """Works off rows, one command after another.

    Cycles of a command that never waits: see `cycles`.

    Args:
        config: accelerator; `vpe` matters.

    Members:
        cmd: opcode, formats, which of b and c are one element for the whole row, length in elements.
        a, b, c: operands, an element in each 32 bits, BF16 in the lower half; a stream that the operation
            does not need is not touched. One element for the row is the lowest of one word.
        o: results in the same way, 0 from the length on.
        done: status and whether a result is NaN (SIGN: an operand), after the last result was taken. A
            command that is not OK takes no operand and gives no result.
    """

    def __init__(self, config: Config) -> None:
        self.lanes = config.vpe.lanes
        self.slots = ACCUMULATORS // self.lanes
        self.ring = self.ring_length(config)
        words = stream.Signature(WORD * self.lanes)
        super().__init__(
            {
                "cmd": In(stream.Signature(COMMAND)),
                **dict.fromkeys("abc", In(words)),
                "o": Out(words),
                "done": Out(stream.Signature(DONE)),
            }
        )

    @staticmethod
    def ring_length(config: Config) -> int:
        """Cycles of a pass: at least as many as a reduction has words of accumulators."""
        return max(Fma.latency + 1, ACCUMULATORS // config.vpe.lanes)

    @staticmethod
    def cycles(config: Config, opcode: int, length: int) -> int:
        """Upper bound of the cycles from a command to its `done` when no port makes the unit wait."""
        ring, lanes = Vpe.ring_length(config), config.vpe.lanes
        if opcode in REDUCTIONS:
            return ring * (-(-length // ACCUMULATORS) + FOLDS + 1) + 4
        passes = PASSES.get(Opcode(opcode), 1)
        words = -(-length // lanes)
        return (words + ring if passes == 1 else ring * passes * -(-words // ring) + ring) + 4

    def elaborate(self, platform: Any) -> Module:
        """Hardware."""
        m = Module()
        self.command = Signal(COMMAND)
        self.left, self.due = Signal(24), Signal(24)
        self.slot = Signal(range(max(2, self.slots)))
        self.filled, self.nan, self.running, self.flow = Signal(), Signal(), Signal(), Signal()
        self.reducing = Signal()
        m.d.comb += self.reducing.eq(
            (self.command.opcode == Opcode.RSUM) | (self.command.opcode == Opcode.RMAX)
        )
        self._control(m)
        head = self._head(m)
        results = self._rings(m, head)
        self._give(m, head, results)
        return m

    def _control(self, m: Module) -> None:
        """Sequence of one command."""
        command = self.cmd.payload
        status = Signal(2)
        m.d.comb += [self.done.payload.status.eq(status), self.done.payload.nan.eq(self.nan)]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.cmd.ready.eq(1)
                m.d.sync += [self.command.eq(command), self.nan.eq(0), self.slot.eq(0), self.filled.eq(0)]
                with m.If(self.cmd.valid):
                    m.d.sync += status.eq(Status.OK)
                    m.next = "RUN"
                    with m.If(command.opcode > max(Opcode)):
                        m.d.sync += status.eq(Status.BAD_OPCODE)
                        m.next = "DONE"
                    with m.Elif(command.length == 0):
                        m.d.sync += status.eq(Status.BAD_LENGTH)
                        m.next = "DONE"
                    with m.Else():
                        reduction = (command.opcode == Opcode.RSUM) | (command.opcode == Opcode.RMAX)
                        m.d.sync += [
                            self.left.eq(command.length),
                            self.due.eq(Mux(reduction, 1, command.length)),
                        ]
            with m.State("RUN"):
                m.d.comb += self.running.eq(1)
                with m.If((self.due == 0) & (~self.o.valid | self.o.ready)):
                    m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += self.done.valid.eq(1)
                with m.If(self.done.ready):
                    m.next = "IDLE"

    def _needs(self, name: str) -> Any:
        """Whether the command takes a stream."""
        if name == "a":
            return Const(1, 1)
        return Cat(self.command.opcode == code for code, names in OPERANDS.items() if name in names).any()

    def _scalars(self) -> dict[str, Any]:
        """Which operands are one element for the row."""
        return {"a": Const(0, 1), "b": self.command.scalar[0], "c": self.command.scalar[1]}

    def _head(self, m: Module) -> Any:
        """What enters, what goes round, what leaves; the streams' handshakes."""
        valid, turn = Signal(), Signal(4)
        next_valid, next_turn, odd = Signal(), Signal(4), Signal()
        head = SimpleNamespace(
            **{name: Signal(name=name) for name in ("enter", "add", "fold", "over_slots", "leave")},
            turn=turn,
        )
        passes, more, real, free = Signal(4), Signal(), Signal(), Signal()
        lane_folds = (self.lanes - 1).bit_length()
        m.d.comb += passes.eq(1)
        with m.Switch(self.command.opcode):
            for code, count in PASSES.items():
                with m.Case(code):
                    m.d.comb += passes.eq(count)
            with m.Case(*REDUCTIONS):
                m.d.comb += passes.eq(FOLDS)
        m.d.comb += [
            real.eq(self.left != 0),
            more.eq(self.running & (real | (self.reducing & (self.slot != 0)))),
            head.leave.eq(valid & (turn == passes)),
            free.eq(~valid | head.leave),
            head.enter.eq(more & free & ~(self.reducing & self.filled)),
            head.add.eq(more & valid & self.reducing),
            head.fold.eq(valid & self.reducing & ~more & ~head.leave),
            head.over_slots.eq(head.fold & (turn >= lane_folds)),
        ]
        takes = head.enter | head.add
        last = self.left <= self.lanes
        available = Const(1, 1)
        for name, scalar in (
            ("a", Const(0, 1)),
            ("b", self.command.scalar[0]),
            ("c", self.command.scalar[1]),
        ):
            port = getattr(self, name)
            needed = Signal(name=f"needs_{name}")
            m.d.comb += needed.eq(self._needs(name))
            available &= port.valid | ~needed
            # The one element of a row waits at its port until the row's last word.
            m.d.comb += port.ready.eq(self.flow & takes & real & needed & (~scalar | last))
        blocked = self.o.valid & ~self.o.ready
        m.d.comb += self.flow.eq(~blocked & ~(takes & real & ~available))
        m.d.comb += [
            next_valid.eq(head.enter | (valid & ~head.leave & ~(head.over_slots & ~odd))),
            next_turn.eq(Mux(head.enter, ~self.reducing, turn + (~head.add & valid))),
        ]
        with m.If(self.flow):
            with m.If(takes):
                m.d.sync += self.left.eq(Mux(last, 0, self.left - self.lanes))
                with m.If(self.reducing):
                    final = self.slot == self.slots - 1
                    m.d.sync += self.slot.eq(Mux(final, 0, self.slot + 1))
                    with m.If(final):
                        m.d.sync += self.filled.eq(1)
            with m.If(head.over_slots):
                m.d.sync += odd.eq(~odd)
        state = EnableInserter(self.flow)(self._state(next_valid, next_turn, valid, turn))
        m.submodules.state = state
        head.odd, head.real = odd, real
        return head

    def _state(self, next_valid: Any, next_turn: Any, valid: Any, turn: Any) -> Module:
        """Valid and passes of what is in the ring."""
        m = Module()
        m.d.comb += [
            valid.eq(delay(m, next_valid, self.ring, "valid", reset=True)),
            turn.eq(delay(m, next_turn, self.ring, "turn")),
        ]
        return m

    def _rings(self, m: Module, head: Any) -> list[Any]:
        """The lanes; returns what comes back to the head."""
        lanes = [Lane(self.ring) for _ in range(self.lanes)]
        held = Signal(WORD)
        turn = Signal(4, name="lane_turn")
        m.d.comb += turn.eq(Mux(head.enter, 0, head.turn))
        identity = Mux(self.command.opcode == Opcode.RMAX, Const(FP32.infinity | 1 << 31, WORD), MINUS_ZERO)
        scalars = self._scalars()
        for i, lane in enumerate(lanes):
            m.submodules[f"lane_{i}"] = EnableInserter(self.flow)(lane)
            for place, name in enumerate("abc"):
                beat = getattr(self, name).payload
                bits = Mux(scalars[name], beat[:WORD], beat.word_select(i, WORD))
                wide = Mux(self.command.bf16[place], Cat(Const(0, WORD - BF16.bits), bits[: BF16.bits]), bits)
                masked = Mux(self.reducing & (self.left <= i), identity, wide) if name == "a" else wide
                m.d.comb += getattr(lane, name).eq(masked)
            pair = (2 * i, 2 * i + 1) if 2 * i + 1 < self.lanes else (i, i)
            left, right = (lanes[k].o for k in pair)
            if i == 0:
                left, right = Mux(head.over_slots, held, left), Mux(head.over_slots, lane.o, right)
            m.d.comb += [lane.left.eq(left), lane.right.eq(right)]
            m.d.comb += [lane.opcode.eq(self.command.opcode), lane.turn.eq(turn)]
            m.d.comb += [getattr(lane, name).eq(getattr(head, name)) for name in ("add", "fold")]
        with m.If(self.flow & head.over_slots & ~head.odd):
            m.d.sync += held.eq(lanes[0].o)
        return [lane.o for lane in lanes]

    def _give(self, m: Module, head: Any, results: list[Any]) -> None:
        """Results that leave, rounded and masked, or the hash-bits of 32 words."""
        inside = [self.due > i for i in range(self.lanes)]
        last = self.due <= self.lanes
        words = HASH_WORD_BITS
        index = Signal(range(words))
        signing = self.command.opcode == Opcode.SIGN
        plain, positive = [], []
        for result, keep in zip(results, inside, strict=True):
            rounded = Mux(self.command.bf16[3], to_bf16(result), result)
            plain.append(Mux(keep, rounded, 0))
            positive.append(keep & ~result[-1] & result[:-1].any() & ~_is_nan(result))
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(self.flow & head.leave):
            nan = Cat(keep & _is_nan(result) for result, keep in zip(results, inside, strict=True)).any()
            m.d.sync += [
                self.nan.eq(self.nan | nan),
                self.due.eq(Mux(last, 0, self.due - self.lanes)),
                self.o.valid.eq(~signing | last | (index == words - 1)),
            ]
            with m.If(signing):
                m.d.sync += index.eq(Mux(last, 0, index + 1))
                with m.If(index == 0):
                    m.d.sync += self.o.payload.eq(Cat(positive))
                with m.Else():
                    m.d.sync += self.o.payload.word_select(index, self.lanes).eq(Cat(positive))
            with m.Else():
                m.d.sync += self.o.payload.eq(Cat(plain))
