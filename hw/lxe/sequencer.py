"""Sequencer of the LXE: checks and starts its instructions one by one, and reports the end of programs."""

from typing import Any

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
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
        done: a completion for each program.
        instruction, sizes: the current instruction and its sizes, stable from `go` to `finished`.
        go: the instruction starts.
        finished: the instruction has ended.
        nan: one of its results was NaN; sampled with `finished`.
        drop: a beat on `din` is to be discarded.
        dropped: a beat on `din` is discarded in this cycle.
    """

    cmd: stream.Interface
    done: stream.Interface
    instruction: data.View
    sizes: data.View
    go: Signal
    finished: Signal
    nan: Signal
    drop: Signal
    dropped: Signal

    def __init__(self, config: LxeConfig, *, dpe: DpeConfig, vpe: VpeConfig) -> None:
        self.dpe, self.vpe, self.lines = dpe, vpe, config.lines(dpe)
        super().__init__(
            {
                "cmd": In(stream.Signature(struct_layout(INSTRUCTION))),
                "done": Out(stream.Signature(struct_layout(COMPLETION))),
                "instruction": Out(struct_layout(INSTRUCTION)),
                "sizes": Out(SIZES),
                "go": Out(1),
                "finished": In(1),
                "nan": In(1),
                "drop": Out(1),
                "dropped": In(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Builds the computation of sizes, one shared multiplier pair for the checks, and the control FSM."""
        m = Module()
        self.status, self.index, self.failed = Signal(8), Signal(16), Signal()
        self.bad_length, self.bad_address = Signal(), Signal()
        self.step = Signal(range(LAST_STEP + 1))
        self._sizes(m)
        self._products(m)
        self._control(m)
        return m

    def _control(self, m: Module) -> None:
        """Control FSM: checks an instruction, waits for it or drops its beats, and ends the program."""
        i: Any = self.instruction
        left = Signal(32)
        result, cycles, working = self.done.payload, Signal(32), Signal()
        m.d.comb += [
            *(result.status.eq(self.status), result.index.eq(self.index), result.cycles.eq(cycles)),
            self.drop.eq(0),
        ]
        with m.If(working):
            m.d.sync += cycles.eq(cycles + 1)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.cmd.ready.eq(1)
                m.d.sync += [i.eq(self.cmd.payload), self.step.eq(0), left.eq(self.cmd.payload.beats)]
                m.d.sync += [self.bad_length.eq(0), self.bad_address.eq(0)]
                with m.If(self.cmd.valid):
                    m.d.sync += working.eq(1)
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
                m.next = "DROP"
                m.d.sync += self.failed.eq(1)
                with m.If(self.status == Status.OK):
                    m.d.comb += self.go.eq(1)
                    m.d.sync += self.failed.eq(0)
                    m.next = "WORK"
            with m.State("WORK"), m.If(self.finished):
                with m.If(self.nan & ~result.nan[0]):
                    m.d.sync += [result.nan.eq(1), result.nan_index.eq(self.index)]
                m.next = "NEXT"
            with m.State("DROP"):
                m.d.comb += self.drop.eq(left != 0)
                with m.If(self.dropped):
                    m.d.sync += left.eq(left - 1)
                with m.If(left == 0):
                    m.next = "NEXT"
            with m.State("NEXT"):
                with m.If(i.last):
                    m.d.sync += working.eq(0)
                    m.next = "DONE"
                with m.Else():
                    # `index` stays at the instruction that failed.
                    m.d.sync += self.index.eq(self.index + ~self.failed)
                    m.next = "IDLE"
            with m.State("DONE"):
                m.d.comb += self.done.valid.eq(1)
                with m.If(self.done.ready):
                    m.d.sync += [self.index.eq(0), self.failed.eq(0), cycles.eq(0)]
                    m.d.sync += [result.nan.eq(0), result.nan_index.eq(0)]
                    m.next = "IDLE"

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
        self.rows, self.many_tiles = Signal(32), Signal()
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
        factor = [Signal(24), Signal(22), Signal(16), Signal(16)]
        base, lines, used = Signal(16), Signal(22), Signal()
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
        first, second = Signal(46), Signal(32)
        base_too, lines_too, used_too = Signal(16), Signal(22), Signal()
        m.d.sync += [
            *(first.eq(factor[0] * factor[1]), second.eq(factor[2] * factor[3])),
            *(base_too.eq(base), lines_too.eq(lines), used_too.eq(used)),
        ]
        with m.If(self.step == 2):
            m.d.sync += self.rows.eq(first)
        with m.If((self.step >= 3) & (self.step <= 6)):
            end = base_too + lines_too + first + second
            m.d.sync += self.bad_address.eq(self.bad_address | (used_too & (end > self.lines)))
        shift = Mux(i.columns, CHUNK.bit_length() - 1, (dpe.trees * dpe.beats).bit_length() - 1)
        expected = Mux(load, first, Mux(gemm & ~i.resident, first << shift, 0))
        with m.If(self.step == 7):
            m.d.sync += self.bad_length.eq(i.beats != expected)
