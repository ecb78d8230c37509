"""Vector engine of the LXE: FP32 operations on rows (paper Section V-A; model `vrex.model.lxe.vpe`).

The lanes are rings (`vrex.hw.lxe.vpe_lane`): an element that enters passes the fused multiply-add, and then
leaves or goes round again. An operation of one pass takes a word a cycle; one of p passes takes as many words
as the ring is long in p rounds. The rows of a command follow each other without a gap. In a sum the words in
the ring are the 64 accumulators, so each round takes 64 elements; six more rounds then add the accumulators
up, and only then the next row begins. A maximum passes the rings by: its order is free, so a tree of
comparators takes a word a cycle.

The rings never stall, so no enable has to reach all lanes within a cycle: a word enters only when a place for
its result is reserved, and a round of a sum starts only when all its words have arrived.

The lanes are instances of the module `vrex_vpe_lane`, so that its Verilog is generated only once.
"""

from types import SimpleNamespace
from typing import Any

from amaranth import Cat, ClockSignal, Const, Instance, Module, Mux, ResetSignal, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from vrex.hw.lib.float32 import BF16, to_bf16
from vrex.hw.lib.layout import struct_layout
from vrex.hw.lib.stream import delay, reduce_tree, tree_stages
from vrex.hw.lxe.vpe_lane import OPCODE_BITS, WORD, Lane, greater, is_nan, number
from vrex.model.config import VpeConfig
from vrex.model.lxe.vpe import (
    ACCUMULATORS,
    COMMAND,
    DONE,
    HASH_WORD_BITS,
    NAN,
    OPERANDS,
    PASSES,
    Function,
    Status,
)

FOLDS = (ACCUMULATORS - 1).bit_length()
"""Rounds that add up the accumulators."""

ROUND_TRIP = 10
"""Cycles that the place of a result is reserved, besides those in the ring, when `o` does not stall."""

MINUS_ZERO, MINUS_INFINITY = number(-0.0), number(-float("inf"))


def _needs(opcode: Any, name: str) -> Any:
    """Whether an operation has operand `name`."""
    return Cat(opcode == code for code, names in OPERANDS.items() if name in names).any()


def _passes(opcode: Any) -> Any:
    """Passes of an element through the multiply-add; for a sum, rounds after the last word."""
    passes: Any = Const(1, 4)
    for code, count in (PASSES | {Function.RSUM: FOLDS}).items():
        passes = Mux(opcode == code, count, passes)
    return passes


def _larger(left: Any, right: Any) -> Any:
    return Mux(greater(left, right), left, right)


class Vpe(wiring.Component):
    """Processes rows, one command after another; `cycles` bounds the latency of a command.

    Args:
        config: its parameters.

    Members:
        cmd: operations on rows (`vrex.model.lxe.vpe.COMMAND`).
        a, b, c: operands, an element in each 32 bits, BF16 in the lower half; a stream that the operation
            does not need is left alone. Every row begins with a new word. One element for a row is the lowest
            one of a single word.
        o: results in the same format, 0 from the length on.
        done: their ends (`vrex.model.lxe.vpe.DONE`), after the last result was taken. A command that is not
            OK takes no operand and gives no result.
    """

    cmd: stream.Interface
    a: stream.Interface
    b: stream.Interface
    c: stream.Interface
    o: stream.Interface
    done: stream.Interface

    def __init__(self, config: VpeConfig) -> None:
        self.lanes = config.lanes
        self.slots = ACCUMULATORS // self.lanes
        self.ring = self.ring_length(config)
        self.places = self.ring + ROUND_TRIP
        words = stream.Signature(WORD * self.lanes)
        super().__init__(
            {
                "cmd": In(stream.Signature(struct_layout(COMMAND))),
                **dict.fromkeys("abc", In(words)),
                "o": Out(words),
                "done": Out(stream.Signature(struct_layout(DONE))),
            }
        )

    @staticmethod
    def ring_length(config: VpeConfig) -> int:
        """Cycles of a pass: at least as many as a reduction has words of accumulators."""
        return max(Lane.latency, ACCUMULATORS // config.lanes)

    @staticmethod
    def cycles(config: VpeConfig, opcode: int, length: int, rows: int = 1) -> int:
        """Upper bound of the cycles from a command to its `done` when no port makes the unit wait."""
        ring, lanes = Vpe.ring_length(config), config.lanes
        if opcode == Function.RSUM:
            row = ring * (-(-length // ACCUMULATORS) + FOLDS + 1) + ACCUMULATORS // lanes + 10
            return rows * row
        passes = PASSES.get(Function(opcode), 1)
        words = rows * -(-length // lanes)
        return (words + ring if passes == 1 else ring * passes * -(-words // ring) + ring) + 10

    def elaborate(self, platform: Any) -> Module:
        """Builds the buffer of operand a, the lanes, their control, and the queue of results."""
        m = Module()
        self.command: Any = Signal(struct_layout(COMMAND))
        self.running = Signal()
        self.nan = Signal()
        self.reducing = Signal()
        self.summing = Signal()
        self.maxing = Signal()
        # Words of a row, and whether it has but one.
        self.words_of_row = Signal(24)
        self.one = Signal()
        # Words of a row still to come from a, to enter the rings, to leave them; rows likewise; and flags
        # decoded from these ahead.
        self.coming = Signal(24)
        self.left = Signal(24)
        self.due = Signal(24)
        self.rows_coming = Signal(16)
        self.rows_left = Signal(16)
        self.taking = Signal()
        self.real = Signal()
        self.last = Signal()
        self.last_due = Signal()
        # Which elements of a row's last word, and of its last result, are valid.
        self.tail = Signal(self.lanes)
        self.last_result = Signal(self.lanes)
        self.needs_b = Signal()
        self.needs_c = Signal()
        self.passes = Signal(4)
        self.signing = Signal()
        self.compared = Signal()
        self.slot = Signal(range(max(2, self.slots)))
        self.filled = Signal()
        self._operands(m)
        self._room(m)
        head = self._head(m)
        results = self._rings(m, head)
        self._give(m, head, results)
        self._control(m)
        return m

    def _control(self, m: Module) -> None:
        """Control FSM: accepts a command, waits for its last result, reports its end."""
        command, lane_bits = self.cmd.payload, self.lanes.bit_length() - 1
        status = Signal(2)
        m.d.comb += [self.done.payload.status.eq(status), self.done.payload.nan.eq(self.nan)]
        sums, maximum = command.opcode == Function.RSUM, command.opcode == Function.RMAX
        words = (command.length + (self.lanes - 1)) >> lane_bits
        one = ~(command.length - 1)[lane_bits:24].any()
        over = command.length[:lane_bits]
        tail = Cat((over > i) | ~over.any() for i in range(self.lanes))
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.cmd.ready.eq(1)
                m.d.sync += [self.command.eq(command), self.nan.eq(0), self.slot.eq(0), self.filled.eq(0)]
                m.d.sync += [
                    *(self.reducing.eq(sums | maximum), self.summing.eq(sums), self.maxing.eq(maximum)),
                    self.signing.eq(command.opcode == Function.SIGN),
                    *(self.words_of_row.eq(words), self.one.eq(one)),
                    *(self.coming.eq(words), self.rows_coming.eq(command.rows)),
                    *(self.left.eq(words), self.rows_left.eq(command.rows)),
                    self.real.eq(1),
                    self.last.eq(one),
                    self.tail.eq(tail),
                    self.due.eq(words),
                    self.last_due.eq(one | sums | maximum),
                    self.last_result.eq(Mux(sums | maximum, 1, tail)),
                    self.needs_b.eq(_needs(command.opcode, "b")),
                    self.needs_c.eq(_needs(command.opcode, "c")),
                    self.passes.eq(_passes(command.opcode)),
                ]
                with m.If(self.cmd.valid):
                    with m.If(command.opcode > max(Function)):
                        m.d.sync += status.eq(Status.BAD_OPCODE)
                        m.next = "DONE"
                    with m.Elif((command.length == 0) | (command.rows == 0)):
                        m.d.sync += status.eq(Status.BAD_LENGTH)
                        m.next = "DONE"
                    with m.Else():
                        m.d.sync += [status.eq(Status.OK), self.taking.eq(1)]
                        m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += self.running.eq(1)
                with m.If(~self.real & (self.slot == 0) & (self.free == self.places)):
                    with m.If(self.rows_left == 0):
                        m.next = "DONE"
                    with m.Else():
                        # The next row of a sum.
                        m.d.sync += [self.real.eq(1), self.filled.eq(0), self.taking.eq(1)]
            with m.State("DONE"):
                m.d.comb += self.done.valid.eq(1)
                with m.If(self.done.ready):
                    m.next = "IDLE"

    def _operands(self, m: Module) -> None:
        """Buffers words of a until a round of a reduction is complete; takes none of the next command."""
        depth = max(4, 2 * self.slots)
        m.submodules.words = self.words = words = SyncFIFOBuffered(width=WORD * self.lanes, depth=depth)
        stored = Signal(range(depth + 1))
        taken = self.a.valid & self.a.ready
        m.d.comb += [
            self.a.ready.eq(self.taking & words.w_rdy),
            words.w_en.eq(taken),
            words.w_data.eq(self.a.payload),
        ]
        m.d.sync += stored.eq(stored + taken - (words.r_rdy & words.r_en))
        with m.If(taken):
            m.d.sync += self.coming.eq(self.coming - 1)
            with m.If(self.coming == 1):
                # A sum takes nothing of a row before the one before it has ended.
                m.d.sync += [
                    self.coming.eq(self.words_of_row),
                    self.rows_coming.eq(self.rows_coming - 1),
                    self.taking.eq(~self.summing & (self.rows_coming != 1)),
                ]
        self.round_there = words.r_rdy & ((stored >= self.slots) | ~self.taking)

    def _room(self, m: Module) -> None:
        """The queue of results and its credits.

        `room` is registered, so it demands two free places: one may have just been reserved.
        """
        m.submodules.results = self.results = SyncFIFOBuffered(width=WORD * self.lanes, depth=self.places + 1)
        self.free = Signal(range(self.places + 1), init=self.places)
        self.room = Signal()
        self.reserve = Signal()
        self.unused = Signal()
        m.d.comb += [
            self.o.payload.eq(self.results.r_data),
            self.o.valid.eq(self.results.r_rdy),
            self.results.r_en.eq(self.o.ready),
        ]
        given = self.o.valid & self.o.ready
        m.d.sync += [
            self.free.eq(self.free + given + self.unused - self.reserve),
            self.room.eq(self.free >= 2),
        ]

    def _head(self, m: Module) -> Any:
        """Decides which words enter, go round or leave; the handshakes of the streams."""
        valid = Signal()
        turn = Signal(4)
        ends = Signal()
        next_valid = Signal()
        next_turn = Signal(4)
        next_ends = Signal()
        odd = Signal()
        head = SimpleNamespace(
            **{name: Signal(name=name) for name in ("enter", "add", "fold", "stay", "over_slots", "leave")},
            odd=odd,
        )
        moves = self._rounds(m, head, valid, ends)
        self.compares = compares = self.running & self.maxing & self.real & self.room & self.words.r_rdy
        there = self.words.r_rdy & (self.b.valid | ~self.needs_b) & (self.c.valid | ~self.needs_c)
        enters = self.running & ~self.reducing & self.real & self.room & there & (~valid | head.leave)
        m.d.comb += [
            head.leave.eq(valid & ends),
            head.enter.eq(enters | (moves & ~self.filled)),
            head.over_slots.eq(head.fold & (turn >= (self.lanes - 1).bit_length())),
            self.reserve.eq(enters | (head.enter & self.summing & (self.slot == 0)) | (compares & self.last)),
            # A scalar operand stays at its port until the row's last word.
            self.b.ready.eq(enters & self.needs_b & (~self.command.scalar[0] | self.last)),
            self.c.ready.eq(enters & self.needs_c & (~self.command.scalar[1] | self.last)),
            self.words.r_en.eq((enters | moves | compares) & self.real),
            next_valid.eq(head.enter | (valid & ~head.leave & ~(head.over_slots & ~odd))),
            next_turn.eq(Mux(head.enter, ~self.summing, turn + ~(head.add | head.stay))),
            next_ends.eq((next_turn == self.passes) & ~(head.enter & self.summing)),
            valid.eq(delay(m, next_valid, self.ring, "valid", reset=True)),
            turn.eq(delay(m, next_turn, self.ring, "turn")),
            ends.eq(delay(m, next_ends, self.ring, "ends")),
        ]
        with m.If(self.words.r_en):
            m.d.sync += [self.left.eq(self.left - 1), self.last.eq(self.left == 2)]
            with m.If(self.last):
                m.d.sync += [
                    *(self.left.eq(self.words_of_row), self.last.eq(self.one)),
                    self.rows_left.eq(self.rows_left - 1),
                    self.real.eq(~self.summing & (self.rows_left != 1)),
                ]
        with m.If(head.over_slots):
            m.d.sync += odd.eq(~odd)
        head.turn = Mux(head.enter, 0, turn)
        return head

    def _rounds(self, m: Module, head: Any, valid: Any, ends: Any) -> Any:
        """Rounds of a sum; returns whether a word is added to the accumulator at the head.

        Accumulators just go round until the words of a round have arrived. After the last word they are
        folded.
        """
        in_round = Signal()
        moves = Signal()
        begins = self.running & self.summing & self.real & self.round_there & (valid | ~self.filled)
        folding = self.filled & ~self.real & (self.slot == 0)
        m.d.comb += [
            moves.eq(Mux(self.slot == 0, begins, in_round)),
            head.add.eq(moves & self.filled),
            head.fold.eq(valid & folding & ~ends),
            head.stay.eq(valid & self.filled & ~moves & ~folding),
        ]
        with m.If(head.add | head.stay | (moves & ~self.filled)):
            final = self.slot == self.slots - 1
            m.d.sync += [self.slot.eq(Mux(final, 0, self.slot + 1)), in_round.eq(moves & ~final)]
            with m.If(final):
                m.d.sync += self.filled.eq(1)
        return moves

    def _rings(self, m: Module, head: Any) -> list[Any]:
        """The lanes, one cycle behind the decisions; returns what comes back to the head."""
        outputs = [Signal(WORD, name=f"o_{i}") for i in range(self.lanes)]
        held = Signal(WORD)
        late = SimpleNamespace(**{name: delay(m, value, 1, name) for name, value in vars(head).items()})
        identity = Mux(self.maxing, MINUS_INFINITY, MINUS_ZERO)
        words = {"a": self.words.r_data, "b": self.b.payload, "c": self.c.payload}
        words = {name: delay(m, word, 1, f"word_{name}") for name, word in words.items()}
        scalars = {"a": Const(0, 1), "b": self.command.scalar[0], "c": self.command.scalar[1]}
        elements = []
        for i, output in enumerate(outputs):
            operands = {}
            beyond = delay(m, self.reducing & (~self.real | (self.last & ~self.tail[i])), 1, "beyond")
            for place, (name, word) in enumerate(words.items()):
                bits = Mux(scalars[name], word[:WORD], word.word_select(i, WORD))
                wide = Mux(self.command.bf16[place], Cat(Const(0, WORD - BF16.bits), bits[: BF16.bits]), bits)
                operands[f"i_{name}"] = Mux(beyond, identity, wide) if name == "a" else wide
            elements.append(operands["i_a"])
            pair = (2 * i, 2 * i + 1) if 2 * i + 1 < self.lanes else (i, i)
            left, right = (Value.cast(outputs[k]) for k in pair)
            if i == 0:
                # Accumulators of different words are folded one by one: the first is held back.
                left, right = Mux(late.over_slots, held, left), Mux(late.over_slots, output, right)
            m.submodules[f"lane_{i}"] = Instance(
                "vrex_vpe_lane",
                i_clk=ClockSignal(),
                i_rst=ResetSignal(),
                i_opcode=self.command.opcode[:OPCODE_BITS],
                i_left=left,
                i_right=right,
                o_o=output,
                **operands,
                **{f"i_{name}": getattr(late, name) for name in ("turn", "add", "fold", "stay")},
            )
        with m.If(late.over_slots & ~late.odd):
            m.d.sync += held.eq(outputs[0])
        return [self._maximum(m, elements, outputs[0]), *outputs[1:]]

    def _maximum(self, m: Module, elements: list[Any], summed: Any) -> Any:
        """The first lane's result: in a maximum the largest element of a row, else what its ring gives.

        Elements are one cycle behind the decision to take them. `compared` is to the result what `head.leave`
        is to the rings' results.
        """
        word = reduce_tree(elements, _larger, m, levels=1)
        cycles = 1 + tree_stages(self.lanes, levels=1)
        comes = delay(m, self.compares, cycles, "comes", reset=True)
        last = delay(m, self.last, cycles, "last_of_row")
        largest = Signal(WORD)
        begun = Signal()
        m.d.comb += self.compared.eq(comes & last)
        with m.If(comes):
            m.d.sync += [largest.eq(Mux(begun, _larger(largest, word), word)), begun.eq(~last)]
        return Mux(self.maxing, Mux(is_nan(largest), Const(NAN, WORD), largest), summed)

    def _give(self, m: Module, head: Any, results: list[Any]) -> None:
        """Queues the results that leave, rounded and masked, or packs their signs into 32-bit hash words."""
        with m.If(head.leave & ~self.reducing):
            m.d.sync += [self.due.eq(self.due - 1), self.last_due.eq(self.due == 2)]
            with m.If(self.last_due):
                m.d.sync += [self.due.eq(self.words_of_row), self.last_due.eq(self.one)]
        # The lanes are one cycle behind; a register in front of the rounding and one behind it add two more.
        leaves = delay(m, head.leave | self.compared, 3, "leaves", reset=True)
        last = delay(m, self.last_due, 3, "last")
        rounded, positives, nans = [], [], []
        for i, result in enumerate(results):
            keep = delay(m, ~self.last_due | self.last_result[i], 2, "keep")
            result = delay(m, result, 1, "result")
            rounded.append(Mux(keep, Mux(self.command.bf16[3], to_bf16(result), result), 0))
            positives.append(keep & ~result[-1] & result[:-1].any() & ~is_nan(result))
            nans.append(keep & is_nan(result))
        plain, positive, nan = (delay(m, Cat(bits), 1, "made") for bits in (rounded, positives, nans))
        with m.If(leaves):
            m.d.sync += self.nan.eq(self.nan | nan.any())
        index = Signal(range(HASH_WORD_BITS))
        packed = Signal(WORD * self.lanes)
        complete = last | (index == HASH_WORD_BITS - 1)
        full = delay(m, leaves & self.signing & complete, 1, "full", reset=True)
        with m.If(leaves & self.signing):
            m.d.sync += index.eq(Mux(last, 0, index + 1))
            with m.If(index == 0):
                m.d.sync += packed.eq(positive)
            with m.Else():
                m.d.sync += packed.word_select(index, self.lanes).eq(positive)
        m.d.comb += [
            self.unused.eq(leaves & self.signing & ~complete),
            self.results.w_data.eq(Mux(self.signing, packed, plain)),
            self.results.w_en.eq(Mux(self.signing, full, leaves)),
        ]
