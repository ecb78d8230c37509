"""Assembles programs of the LXE: allocates lines for tensors and collects instructions and their payload."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vrex.model.config import Config
from vrex.model.lxe import dpe, instructions, vpe
from vrex.model.lxe.instructions import Instruction, Opcode, Operand
from vrex.model.lxe.vpe import OPERANDS, REDUCTIONS


@dataclass(frozen=True)
class Tensor:
    """Rows in the LXE's memory.

    Attributes:
        base: line of the first row.
        stride: lines from a row to the next.
        rows: number of rows.
        length: elements of a row.
        bf16: BF16 or FP32.
    """

    base: int
    stride: int
    rows: int
    length: int
    bf16: bool = True

    def part(self, first: int, rows: int) -> "Tensor":
        """Some of the rows."""
        return replace(self, base=self.base + first * self.stride, rows=rows)

    @property
    def place(self) -> Operand:
        """All rows as one group."""
        return Operand(self.base, self.stride)


class Assembler(ABC):
    """Allocates lines and makes instructions; what becomes of these is up to the class.

    Attributes:
        config: accelerator.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._next = 0

    @contextmanager
    def scratch(self) -> Iterator[None]:
        """Context in which allocated lines are temporary: they are free again afterwards."""
        before = self._next
        yield
        self._next = before

    @property
    def free(self) -> int:
        """Lines that are not allocated."""
        return self.config.lines - self._next

    def row_lines(self, length: int, bf16: bool = True) -> int:
        """Lines of a row that DPE, VPE and LOAD can all write."""
        word = max(self.config.dpe.trees, self.config.vpe.lanes)
        return instructions.lines_of(length, word, bf16, self.config)

    def tensor(self, rows: int, length: int, bf16: bool = True) -> Tensor:
        """Allocates lines for a tensor.

        Raises:
            ValueError: the memory is full.
        """
        stride = self.row_lines(length, bf16)
        if rows * stride > self.free:
            raise ValueError(
                f"{rows} rows of {length} elements need {rows * stride} lines, but {self.free} of the "
                f"{self.config.lines} of preset {self.config.name} are free: take a larger preset"
            )
        self._next += rows * stride
        return Tensor(self._next - rows * stride, stride, rows, length, bf16)

    def columns(self, tensor: Tensor, first: int, length: int) -> Tensor:
        """Some columns of a tensor.

        Raises:
            ValueError: they do not begin with a line.
        """
        halves = first * (1 if tensor.bf16 else 2)
        if halves % self.config.dpe.inputs:
            raise ValueError(
                f"column {first} does not begin a line of {self.config.dpe.inputs} values in preset "
                f"{self.config.name}"
            )
        return replace(tensor, base=tensor.base + halves // self.config.dpe.inputs, length=length)

    def load(self, values: np.ndarray, target: Tensor | None = None) -> Tensor:
        """Rows from the host: BF16 bits uint16, or float32, [rows, length], to a tensor of their format."""
        bf16 = values.dtype == np.uint16
        rows, length = values.shape
        target = target or self.tensor(rows, length, bf16)
        halves = np.ascontiguousarray(values).view("<u2").astype(np.uint16)
        lines = instructions.lines_of(halves.shape[1], 1, True, self.config)
        beats = np.zeros((len(values), lines * self.config.dpe.inputs), dtype=np.uint16)
        beats[:, : halves.shape[1]] = halves
        payload = beats.reshape(-1, self.config.dpe.inputs)
        self._add(
            Instruction(
                opcode=Opcode.LOAD,
                rows=len(values),
                length=halves.shape[1],
                beats=len(payload),
                o=target.place,
            ),
            payload,
        )
        return target

    def store(self, source: Tensor) -> None:
        """Rows to `dout`."""
        length = source.length * (1 if source.bf16 else 2)
        self._add(Instruction(opcode=Opcode.STORE, rows=source.rows, length=length, a=source.place))

    def gemm(
        self,
        x: Tensor,
        w: "np.ndarray | Tensor",
        target: Tensor,
        *,
        columns: bool = False,
    ) -> Tensor:
        """Target = x times the transpose of w, or with `columns` times w.

        Args:
            x: BF16 [M, K].
            w: BF16 [N, K], or with `columns` [K, N]: bits uint16 that come on `din`, or a tensor in memory.
            target: [M, N].
            columns: see above; of an array too.

        Returns:
            `target`.

        Raises:
            ValueError: the shapes do not fit, or the result would share a line with an operand.
        """
        config = self.config.dpe
        shape = w.shape if isinstance(w, np.ndarray) else (w.rows, w.length)
        if shape != ((x.length, target.length) if columns else (target.length, x.length)):
            raise ValueError(f"{shape} weights do not lead from {x.length} to {target.length} elements a row")
        self._apart(target, x, w)
        beats = None
        if isinstance(w, np.ndarray):
            beats = dpe.column_beats(w.T, config) if columns else dpe.weight_beats(w, config)
        for instruction in self._products(x, target, w if isinstance(w, Tensor) else None, columns):
            self._add(instruction, beats)
        return target

    def vector(
        self,
        function: vpe.Function,
        target: Tensor,
        a: Tensor,
        b: Tensor | None = None,
        c: Tensor | None = None,
        *,
        whole: bool = False,
    ) -> Tensor:
        """Target = function(a, b, c), row by row; rows that may be are taken as one long row.

        b and c may be one element a row, or one row for all rows. With `whole` the rest of each row's last
        lines, which must hold numbers, may be computed with too.

        Returns:
            `target`.

        Raises:
            ValueError: the function has other operands, the shapes do not fit, or the result would share a
                line with an operand that has not its place and format.
        """
        given = {"a": a, "b": b, "c": c}
        operands: dict[str, Tensor] = {name: t for name, t in given.items() if t is not None}
        if "".join(operands) != OPERANDS.get(function, "a"):
            raise ValueError(
                f"{function.name} has operands {OPERANDS.get(function, 'a')}, not {''.join(operands)}"
            )
        self._apart(target, *(x for x in operands.values() if x != replace(target, length=x.length)))
        joined = self._joins(function, target, list(operands.values()), whole)
        places: dict[str, Any] = {}
        bf16, scalar = target.bf16 << 3, 0
        for name, operand in operands.items():
            bf16 |= operand.bf16 << "abc".index(name)
            one = name != "a" and operand.length == 1 and (a.length != 1 or (joined and operand.rows == 1))
            if (not one and operand.length != a.length) or operand.rows not in (1, a.rows):
                raise ValueError(f"operand {name} of {function.name} does not fit {a}: {operand}")
            scalar |= one << "abc".index(name) >> 1
            places[name] = Operand(operand.base, 0 if operand.rows < a.rows else operand.stride)
        rows, length = (1, a.rows * self._pitch(a)) if joined else (a.rows, a.length)
        self._add(
            Instruction(
                opcode=Opcode.VECTOR,
                function=function,
                bf16=bf16,
                scalar=scalar,
                rows=rows,
                length=length,
                **places,
                o=target.place,
            )
        )
        return target

    def _pitch(self, tensor: Tensor) -> int:
        """Elements from a row to the next one."""
        return tensor.stride * self.config.dpe.inputs // (1 if tensor.bf16 else 2)

    def _joins(self, function: vpe.Function, target: Tensor, operands: list[Tensor], whole: bool) -> bool:
        """Whether all rows may be one long row, which takes a fraction of the vector engine's time.

        They may where an operation knows no rows, and rows lie behind each other in the same way in all
        tensors; single elements that serve all rows don't count.
        """
        rows, length, pitch = operands[0].rows, operands[0].length, self._pitch(operands[0])
        if rows == 1 or function in REDUCTIONS or function == vpe.Function.SIGN or not self._may_join():
            return False
        if not (whole or pitch == length) or rows * pitch > vpe.MAX_LENGTH:
            return False
        rest = [t for t in operands[1:] if (t.rows, t.length) != (1, 1)]
        return all(t.rows == rows and t.length == length and self._pitch(t) == pitch for t in [target, *rest])

    def _may_join(self) -> bool:
        """Whether the next instruction has the sizes that it says."""
        return True

    def _products(self, x: Tensor, target: Tensor, w: Tensor | None, columns: bool) -> Iterator[Instruction]:
        """Instructions of a product, at most `dpe.rows` rows each; w is None where it comes on `din`."""
        for first in range(0, x.rows, self.config.dpe.rows):
            rows = min(self.config.dpe.rows, x.rows - first)
            instruction = Instruction(
                opcode=Opcode.GEMM,
                bf16=7 | target.bf16 << 3,
                resident=w is not None,
                columns=columns,
                rows=rows,
                inner=x.length,
                length=target.length,
                a=x.part(first, rows).place,
                b=Operand() if w is None else w.place,
                o=target.part(first, rows).place,
            )
            yield replace(instruction, beats=instructions.expected_beats(instruction, self.config))

    def _apart(self, target: Tensor, *operands: "np.ndarray | Tensor") -> None:
        """Checks that the result shares no line with an operand.

        Raises:
            ValueError: it does.
        """
        written = self._lines(target)
        for operand in operands:
            if isinstance(operand, np.ndarray):
                continue
            read = self._lines(operand)
            near = written[0] <= read[-1] and read[0] <= written[-1]
            if near and len(np.intersect1d(written, read)):
                raise ValueError(f"the result {target} shares lines with the operand {operand}")

    def _lines(self, tensor: Tensor) -> np.ndarray:
        """Numbers of all lines, ascending."""
        starts = tensor.base + tensor.stride * np.arange(tensor.rows)
        return (starts[:, None] + np.arange(self.row_lines(tensor.length, tensor.bf16))).reshape(-1)

    @abstractmethod
    def _add(self, instruction: Instruction, payload: np.ndarray | None = None) -> None:
        """Takes an instruction and its beats on `din`, uint16 [beats, dpe.inputs]."""


class Program(Assembler):
    """Instructions and their payload.

    Attributes:
        instructions: so far; `finish` marks the last one.
        payload: beats on `din` so far, each uint16 [beats, dpe.inputs].
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.instructions: list[Instruction] = []
        self.payload: list[np.ndarray] = []
        self._outputs: list[Tensor] = []

    def store(self, source: Tensor) -> None:
        """Rows to the host (see `outputs`)."""
        super().store(source)
        self._outputs.append(source)

    def finish(self) -> tuple[list[Instruction], np.ndarray]:
        """The instructions, the last one marked, and the payload, uint16 [beats, dpe.inputs]."""
        program = [*self.instructions[:-1], replace(self.instructions[-1], last=True)]
        nothing = np.zeros((0, self.config.dpe.inputs), dtype=np.uint16)
        return program, np.concatenate([nothing, *self.payload])

    def outputs(self, lines: np.ndarray) -> list[np.ndarray]:
        """What was stored, in order: BF16 bits uint16 or float32, [rows, length].

        Args:
            lines: on `dout`, uint16 [n, dpe.inputs].
        """
        results, first = [], 0
        for source in self._outputs:
            halves = source.length * (1 if source.bf16 else 2)
            count = instructions.lines_of(halves, 1, True, self.config)
            rows = lines[first : first + source.rows * count].reshape(source.rows, -1)[:, :halves]
            first += source.rows * count
            rows = np.ascontiguousarray(rows)
            results.append(rows if source.bf16 else rows.view("<u4").astype(np.uint32).view(np.float32))
        return results

    def _add(self, instruction: Instruction, payload: np.ndarray | None = None) -> None:
        self.instructions.append(instruction)
        if payload is not None:
            self.payload.append(payload)


def softmax(program: Assembler, scores: Tensor, scale: float, target: Tensor) -> Tensor:
    """Appends `vrex.model.lxe.vpe.softmax_row` of scores, BF16 or FP32, to a program.

    Args:
        program: to append to.
        scores: [rows, n]; those in FP32 are overwritten.
        scale: positive, rounded to FP32.
        target: [rows, n].

    Returns:
        `target`.
    """
    code = vpe.Function
    with program.scratch():
        factor = program.load(np.array([[scale]], dtype=np.float32))
        row = program.tensor(scores.rows, scores.length, bf16=False) if scores.bf16 else scores
        one = program.tensor(scores.rows, 1, bf16=False)
        program.vector(code.MUL, row, scores, b=factor)
        program.vector(code.RMAX, one, row)
        program.vector(code.SUB, row, row, c=one)
        program.vector(code.EXP, row, row)
        program.vector(code.RSUM, one, row)
        program.vector(code.RECIP, one, one)
        program.vector(code.MUL, target, row, b=one)
    return target


def rms_norm(program: Assembler, x: Tensor, weight: Tensor, epsilon: float, target: Tensor) -> Tensor:
    """Appends `vrex.model.lxe.vpe.rms_norm` of x, BF16 or FP32, to a program.

    Args:
        program: to append to.
        x: [rows, n].
        weight: BF16 [1, n].
        epsilon: rounded to FP32.
        target: [rows, n].

    Returns:
        `target`.
    """
    code = vpe.Function
    with program.scratch():
        share, small = (
            program.load(np.array([[value]], dtype=np.float32)) for value in (1 / x.length, epsilon)
        )
        row = program.tensor(x.rows, x.length, bf16=False)
        one = program.tensor(x.rows, 1, bf16=False)
        program.vector(code.MUL, row, x, b=x)
        program.vector(code.RSUM, one, row)
        program.vector(code.FMA, one, one, b=share, c=small)
        program.vector(code.RSQRT, one, one)
        program.vector(code.MUL, row, x, b=one)
        program.vector(code.MUL, target, row, b=weight)
    return target


def silu(program: Assembler, x: Tensor, target: Tensor) -> Tensor:
    """Appends `vrex.model.lxe.vpe.silu` of x, BF16 or FP32, to a program."""
    code = vpe.Function
    with program.scratch():
        minus, one = (program.load(np.array([[value]], dtype=np.float32)) for value in (-1, 1))
        row = program.tensor(x.rows, x.length, bf16=False)
        program.vector(code.MUL, row, x, b=minus)
        program.vector(code.EXP, row, row)
        program.vector(code.ADD, row, row, c=one)
        program.vector(code.RECIP, row, row)
        program.vector(code.MUL, target, x, b=row)
    return target
