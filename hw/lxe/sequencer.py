"""Sequencer of the LXE: checks and starts its instructions in order, and reports the end of programs.

There are two lanes: products, LOAD and STORE work in `matrix`, VECTOR in `vector`. An instruction starts when
its lane is free, when it writes no line that the other lane's instruction reads or writes, and reads none
that that one writes. So the two work at the same time, and memory is as if one had come after the other.
"""

from types import SimpleNamespace
from typing import Any

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from vrex.hw.lib.layout import struct_layout
from vrex.model.commands import Status
from vrex.model.config import CHUNK, DpeConfig, LxeConfig, VpeConfig
from vrex.model.lxe import vpe
from vrex.model.lxe.instructions import COMPLETION, INSTRUCTION, Opcode
from vrex.model.lxe.vpe import HASH_WORD_BITS, OPERANDS, REDUCTIONS

SIZES = data.StructLayout(
    {
        **dict.fromkeys(("total", "tiles", "chunks"), 16),
        **dict.fromkeys(("words", "words_out"), 24),
        **dict.fromkeys(("lines_a", "lines_b", "lines_c", "lines_o"), 22),
    }
)
"""Sizes of a checked instruction.

`total` rows; `tiles` and `chunks` of a product; `words` read and `words_out` written for each row of a
VECTOR; `lines_a` to `lines_o` of a row of each operand.
"""

LAST_STEP = 8
"""Last step of the check: six products, each in a pipeline of three cycles from operands to decision."""

OPEN = 8
"""Instructions that may have started without being reported yet."""

OPERAND_NAMES = ("a", "b", "c", "o")


class Lane(wiring.PureInterface):
    """A lane: its instruction and when it works (see `LaneSignature`)."""

    instruction: Any
    sizes: Any
    go: Signal
    working: Signal
    finished: Signal
    nan: Signal


class LaneSignature(wiring.Signature):
    """Signature of a `Lane` as the sequencer sees it.

    Members:
        instruction, sizes: the lane's instruction and its sizes, stable from `go` to `finished`.
        go: the instruction starts.
        working: it has started; from the cycle after `go` to `finished`.
        finished: it has ended.
        nan: one of its results was NaN; sampled with `finished`.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "instruction": Out(struct_layout(INSTRUCTION)),
                "sizes": Out(SIZES),
                "go": Out(1),
                "working": Out(1),
                "finished": In(1),
                "nan": In(1),
            }
        )

    def create(self, *, path: tuple[str | int, ...] = (), src_loc_at: int = 0) -> Lane:
        """The interface, with its signals."""
        return Lane(self, path=path, src_loc_at=1 + src_loc_at)


def needs(function: Any, name: str) -> Any:
    """Whether a function of VECTOR has operand `name`, "b" or "c"."""
    return Cat(function == code for code, names in OPERANDS.items() if name in names).any()


def _up(value: Any, divisor: int) -> Any:
    """Value / divisor, rounded up; the divisor is a power of two."""
    return (value + (divisor - 1)) >> divisor.bit_length() - 1


class Sequencer(wiring.Component):
    """Checks and dispatches instructions; the model is `vrex.model.lxe.instructions.check`.

    Args:
        config: size of the memory.
        dpe, vpe: the engines, whose widths decide how many lines an instruction takes.

    Members:
        cmd: instructions.
        done: a completion for each program, in their order.
        matrix, vector: the two lanes.
        drop: a beat on `din` is to be discarded.
        dropped: a beat on `din` is discarded in this cycle.
    """

    cmd: stream.Interface
    done: stream.Interface
    matrix: Lane
    vector: Lane
    drop: Signal
    dropped: Signal

    def __init__(self, config: LxeConfig, *, dpe: DpeConfig, vpe: VpeConfig) -> None:
        self.dpe, self.vpe, self.lines = dpe, vpe, config.lines(dpe)
        super().__init__(
            {
                "cmd": In(stream.Signature(struct_layout(INSTRUCTION))),
                "done": Out(stream.Signature(struct_layout(COMPLETION))),
                "matrix": Out(LaneSignature()),
                "vector": Out(LaneSignature()),
                "drop": Out(1),
                "dropped": In(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Builds the computation of sizes, one shared multiplier pair for the checks, lanes and control."""
        m = Module()
        i: Any = Signal(struct_layout(INSTRUCTION))
        self.instruction = i
        self.sizes: Any = Signal(SIZES)
        self.status = Signal(8)
        self.index = Signal(16)
        self.failed = Signal()
        self.bad_length = Signal()
        self.bad_address = Signal()
        self.step = Signal(range(LAST_STEP + 1))
        # Cycles, and when the program in `instruction` began.
        self.now = Signal(32)
        self.began = Signal(32)
        m.d.sync += self.now.eq(self.now + 1)
        self.in_vector = i.opcode == Opcode.VECTOR
        self.spans = self._new_spans("")
        self._sizes(m)
        self._products(m)
        self.lanes = [self._lane(m, name) for name in ("matrix", "vector")]
        self._order(m)
        self._may_start(m)
        self._report(m)
        self._control(m)
        return m

    def _new_spans(self, prefix: str) -> dict[str, SimpleNamespace]:
        """Of each operand the lines from `first` to before `end`, if it is `used`."""
        bits = range(self.lines + 1)
        return {
            name: SimpleNamespace(
                first=Signal(bits, name=f"{prefix}{name}_first"),
                end=Signal(bits, name=f"{prefix}{name}_end"),
                used=Signal(name=f"{prefix}{name}_used"),
            )
            for name in OPERAND_NAMES
        }

    def _lane(self, m: Module, name: str) -> SimpleNamespace:
        """A lane's registers: it gets the checked instruction with `start`, a cycle before `go`."""
        port: Any = getattr(self, name)
        lane = SimpleNamespace(
            port=port, start=Signal(name=f"start_{name}"), busy=Signal(name=f"busy_{name}")
        )
        lane.spans = self._new_spans(f"{name}_")
        # Of each instruction that has ended and is not reported: was a result NaN?
        m.submodules[f"ended_{name}"] = lane.ended = SyncFIFOBuffered(width=1, depth=OPEN)
        m.d.sync += port.go.eq(lane.start)
        with m.If(lane.start):
            m.d.sync += [port.instruction.eq(self.instruction), port.sizes.eq(self.sizes), lane.busy.eq(1)]
            for operand, span in lane.spans.items():
                m.d.sync += [x.eq(y) for x, y in zip(vars(span).values(), self._span(operand), strict=True)]
        with m.If(port.go):
            m.d.sync += port.working.eq(1)
        with m.Elif(port.finished):
            m.d.sync += [port.working.eq(0), lane.busy.eq(0)]
        m.d.comb += [lane.ended.w_data.eq(port.nan), lane.ended.w_en.eq(port.finished)]
        return lane

    def _span(self, operand: str) -> list[Any]:
        return list(vars(self.spans[operand]).values())

    def _may_start(self, m: Module) -> None:
        """Whether the checked instruction's lane is free, and the other one's does not forbid it."""

        def meet(one: SimpleNamespace, other: SimpleNamespace) -> Any:
            return one.used & other.used & (one.first < other.end) & (other.first < one.end)

        self.may_start = Signal()
        free = []
        for lane, other in zip(self.lanes, reversed(self.lanes), strict=True):
            own, theirs = self.spans, other.spans
            pairs = [(own["o"], theirs[name]) for name in OPERAND_NAMES]
            pairs += [(own[name], theirs["o"]) for name in "abc"]
            # Registered because of its depth: both instructions are known long before.
            clash = Signal(name="clash")
            m.d.sync += clash.eq(Cat(meet(*pair) for pair in pairs).any())
            free.append(~lane.busy & ~(clash & other.busy))
        m.d.comb += self.may_start.eq(Mux(self.in_vector, free[1], free[0]) & self.order.w_rdy)

    def _order(self, m: Module) -> None:
        """Instructions that have started, in order, until they are reported."""
        layout = data.StructLayout({"vector": 1, "last": 1, "index": 16, "began": 32})
        self.order: Any = SyncFIFOBuffered(width=layout.size, depth=OPEN)
        m.submodules.order = self.order
        self.entry = data.View(layout, self.order.r_data)
        started = data.View(layout, self.order.w_data)
        m.d.comb += [
            *(started.vector.eq(self.in_vector), started.last.eq(self.instruction.last)),
            *(started.index.eq(self.index), started.began.eq(self.began)),
            self.order.w_en.eq(self.lanes[0].start | self.lanes[1].start),
        ]

    def _report(self, m: Module) -> None:
        """Takes the ends of instructions in the order of their starts, and reports that of a program."""
        result, entry = self.done.payload, self.entry
        ended = Signal()
        nan = Signal()
        matrix, vector = (lane.ended for lane in self.lanes)
        # The program whose ends are taken, up to now.
        self.nan = Signal()
        self.nan_index = Signal(16)
        takes = self.order.r_rdy & ended & ~self.done.valid
        m.d.comb += [
            ended.eq(Mux(entry.vector, vector.r_rdy, matrix.r_rdy)),
            nan.eq(Mux(entry.vector, vector.r_data, matrix.r_data)),
            self.order.r_en.eq(takes),
            vector.r_en.eq(takes & entry.vector),
            matrix.r_en.eq(takes & ~entry.vector),
        ]
        with m.If(self.done.ready):
            m.d.sync += self.done.valid.eq(0)
        with m.If(takes):
            with m.If(nan & ~self.nan):
                m.d.sync += [self.nan.eq(1), self.nan_index.eq(entry.index)]
            with m.If(entry.last):
                m.d.sync += [
                    *(self.done.valid.eq(1), result.status.eq(Status.OK), result.index.eq(entry.index)),
                    *(result.nan.eq(self.nan | nan), result.cycles.eq(self.now - entry.began)),
                    result.nan_index.eq(Mux(self.nan, self.nan_index, Mux(nan, entry.index, 0))),
                    *(self.nan.eq(0), self.nan_index.eq(0)),
                ]

    def _control(self, m: Module) -> None:
        """Control FSM: checks an instruction, starts it or drops its beats; ends a program that failed."""
        i: Any = self.instruction
        left = Signal(32)
        fresh = Signal(init=1)
        result = self.done.payload
        matrix, vector = self.lanes
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.cmd.ready.eq(1)
                m.d.sync += [i.eq(self.cmd.payload), self.step.eq(0), left.eq(self.cmd.payload.beats)]
                m.d.sync += [self.bad_length.eq(0), self.bad_address.eq(0)]
                with m.If(self.cmd.valid):
                    m.d.sync += fresh.eq(0)
                    with m.If(fresh):
                        m.d.sync += self.began.eq(self.now)
                    m.next = "CHECK"
                    with m.If(self.failed):
                        m.next = "DROP"
            with m.State("CHECK"):
                m.d.sync += self.step.eq(self.step + 1)
                with m.If(self.step == LAST_STEP):
                    m.next = "JUDGE"
            with m.State("JUDGE"):
                m.d.sync += self.status.eq(self._status())
                m.next = "START"
            with m.State("START"):
                with m.If(self.status != Status.OK):
                    m.d.sync += self.failed.eq(1)
                    m.next = "SETTLE"
                with m.Elif(self.may_start):
                    m.d.comb += [vector.start.eq(self.in_vector), matrix.start.eq(~self.in_vector)]
                    m.next = "NEXT"
            # Those before it are reported first.
            with m.State("SETTLE"), m.If((self.order.level == 0) & ~self.done.valid):
                m.next = "DROP"
            with m.State("DROP"):
                m.d.comb += self.drop.eq(left != 0)
                with m.If(self.dropped):
                    m.d.sync += left.eq(left - 1)
                with m.If(left == 0):
                    m.next = "NEXT"
            with m.State("NEXT"):
                m.next = "IDLE"
                with m.If(i.last):
                    m.d.sync += [self.index.eq(0), self.failed.eq(0), fresh.eq(1)]
                    with m.If(self.failed):
                        m.d.sync += [
                            *(self.done.valid.eq(1), result.status.eq(self.status)),
                            *(result.index.eq(self.index), result.cycles.eq(self.now - self.began)),
                            *(result.nan.eq(self.nan), result.nan_index.eq(self.nan_index)),
                            *(self.nan.eq(0), self.nan_index.eq(0)),
                        ]
                with m.Else():
                    # `index` stays at the instruction that failed.
                    m.d.sync += self.index.eq(self.index + ~self.failed)

    def _status(self) -> Any:
        """Status of the first check that fails, or OK."""
        i: Any = self.instruction
        gemm, vector = i.opcode == Opcode.GEMM, i.opcode == Opcode.VECTOR
        bad_opcode = (i.opcode == 0) | (i.opcode > max(Opcode)) | (vector & (i.function > max(vpe.Function)))
        most = Mux(gemm, self.dpe.rows, 0xFFFF)
        bad_count = (self.rows == 0) | (self.rows > most) | (i.length == 0)
        bad_count |= gemm & ((i.inner == 0) | self.many_tiles)
        status = Mux(self.bad_address, Status.BAD_ADDRESS, Status.OK)
        for bad, code in (
            (self.bad_length, Status.BAD_LENGTH),
            (bad_count, Status.BAD_COUNT),
            (bad_opcode, Status.BAD_OPCODE),
        ):
            status = Mux(bad, code, status)
        return status

    def _sizes(self, m: Module) -> None:
        """Computes `sizes`, one cycle after the instruction was accepted."""
        i: Any = self.instruction
        sizes: Any = self.sizes
        inputs, trees, lanes = self.dpe.inputs, self.dpe.trees, self.vpe.lanes
        gemm, vector = i.opcode == Opcode.GEMM, i.opcode == Opcode.VECTOR
        self.rows = Signal(32)
        self.many_tiles = Signal()
        tiles, inner, plain = _up(i.length, trees), _up(i.inner, inputs), _up(i.length, inputs)
        reduces = Cat(i.function == code for code in REDUCTIONS).any()
        signs = i.function == vpe.Function.SIGN
        words = _up(i.length, lanes)
        words_out = Mux(reduces, 1, Mux(signs, _up(i.length, HASH_WORD_BITS * lanes), words))

        def of_words(count: Any, bf16: Any, word: int) -> Any:
            return _up(Mux(bf16, count, count << 1), inputs // word)

        lines = {
            "a": Mux(vector, of_words(words, i.bf16[0], lanes), Mux(gemm, inner, plain)),
            "b": Mux(
                vector,
                of_words(Mux(i.scalar[0], 1, words), i.bf16[1], lanes),
                Mux(i.columns, of_words(tiles, 1, trees), inner),
            ),
            "c": of_words(Mux(i.scalar[1], 1, words), i.bf16[2], lanes),
            "o": Mux(
                vector,
                of_words(words_out, i.bf16[3] & ~signs, lanes),
                Mux(gemm, of_words(tiles, i.bf16[3], trees), plain),
            ),
        }
        m.d.sync += [
            *(sizes.total.eq(self.rows), sizes.tiles.eq(tiles), sizes.chunks.eq(_up(i.inner, CHUNK))),
            *(sizes.words.eq(words), sizes.words_out.eq(words_out), self.many_tiles.eq(tiles > 0xFFFF)),
            *(sizes[f"lines_{name}"].eq(count) for name, count in lines.items()),
        ]

    def _products(self, m: Module) -> None:
        """Six products, one after another: number of rows, ends of a, b, c and o, and number of beats."""
        i: Any = self.instruction
        sizes: Any = self.sizes
        dpe = self.dpe
        gemm, vector = i.opcode == Opcode.GEMM, i.opcode == Opcode.VECTOR
        load, store = i.opcode == Opcode.LOAD, i.opcode == Opcode.STORE
        factor = [Signal(bits, name=f"factor_{number}") for number, bits in enumerate((24, 22, 16, 16))]
        base = Signal(16)
        lines = Signal(22)
        used = Signal()
        weights = gemm & i.resident
        by_rows = {
            "a": (~load, i.rows, i.groups),
            "b": (
                weights | (vector & needs(i.function, "b")),
                Mux(gemm, Mux(i.columns, i.inner, i.length), i.rows),
                Mux(gemm, 1, i.groups),
            ),
            "c": (vector & needs(i.function, "c"), i.rows, i.groups),
            "o": (~store, i.rows, i.groups),
        }
        with m.Switch(self.step):
            with m.Case(0):
                m.d.sync += [factor[0].eq(i.rows), factor[1].eq(i.groups)]
            for step, (name, (wanted, rows, groups)) in enumerate(by_rows.items(), 1):
                operand = i[name]
                with m.Case(step):
                    m.d.sync += [
                        *(factor[0].eq(rows - 1), factor[1].eq(operand.stride)),
                        *(factor[2].eq(groups - 1), factor[3].eq(operand.group)),
                        *(base.eq(operand.base), lines.eq(sizes[f"lines_{name}"]), used.eq(wanted)),
                    ]
            with m.Case(5):
                m.d.sync += [
                    factor[0].eq(Mux(gemm, sizes.tiles, self.rows)),
                    factor[1].eq(Mux(gemm, sizes.chunks, sizes.lines_o)),
                ]
        first = Signal(46)
        second = Signal(32)
        base_too = Signal(16)
        lines_too = Signal(22)
        used_too = Signal()
        m.d.sync += [
            *(first.eq(factor[0] * factor[1]), second.eq(factor[2] * factor[3])),
            *(base_too.eq(base), lines_too.eq(lines), used_too.eq(used)),
        ]
        with m.If(self.step == 2):
            m.d.sync += self.rows.eq(first)
        end = Signal(48)
        m.d.comb += end.eq(base_too + lines_too + first + second)
        for step, name in enumerate(OPERAND_NAMES, 3):
            span = self.spans[name]
            with m.If(self.step == step):
                m.d.sync += [
                    self.bad_address.eq(self.bad_address | (used_too & (end > self.lines))),
                    *(span.first.eq(base_too), span.end.eq(end), span.used.eq(used_too)),
                ]
        shift = Mux(i.columns, CHUNK.bit_length() - 1, (dpe.trees * dpe.beats).bit_length() - 1)
        expected = Mux(load, first, Mux(gemm & ~i.resident, first << shift, 0))
        with m.If(self.step == 7):
            m.d.sync += self.bad_length.eq(i.beats != expected)
