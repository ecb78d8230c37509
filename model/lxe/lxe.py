"""LLM execution engine: programs of instructions on an on-chip memory (paper Section V-A)."""

from collections.abc import Sequence

import numpy as np

from vrex.model.commands import Status
from vrex.model.config import Config
from vrex.model.lib import arith
from vrex.model.lxe import dpe, instructions, vpe
from vrex.model.lxe.instructions import Completion, Instruction, Opcode
from vrex.model.lxe.vpe import OPERANDS, OPERATIONS, REDUCTIONS


class Lxe:
    """Golden model of the engine: its memory and the execution of programs.

    Attributes:
        config: accelerator.
        memory: 16-bit values, uint16 [lines, dpe.inputs].

    Raises:
        ValueError: the configuration makes no LXE (`Config.check_lxe`).
    """

    def __init__(self, config: Config) -> None:
        config.check_lxe()
        self.config = config
        self.memory = np.zeros((config.lines, config.dpe.inputs), dtype=np.uint16)

    def run(self, program: Sequence[Instruction], payload: np.ndarray) -> tuple[np.ndarray, Completion]:
        """Executes a program.

        Args:
            program: instructions; the last one is marked so, and no other.
            payload: their beats on `din`, uint16 [beats, dpe.inputs].

        Returns:
            Lines on `dout`, uint16 [n, dpe.inputs], and the completion.
        """
        stored, first = [np.zeros((0, self.config.dpe.inputs), dtype=np.uint16)], 0
        nan_at: int | None = None
        for index, instruction in enumerate(program):
            beats = payload[first : first + instruction.beats]
            first += instruction.beats
            status = instructions.check(instruction, self.config)
            if status != Status.OK:
                return np.concatenate(stored), self._completion(status, index, nan_at)
            lines, nan = self._execute(instruction, beats)
            stored.append(lines)
            if nan and nan_at is None:
                nan_at = index
        return np.concatenate(stored), self._completion(Status.OK, len(program) - 1, nan_at)

    @staticmethod
    def _completion(status: Status, index: int, nan_at: int | None) -> Completion:
        return Completion(status, index & 0xFFFF, nan_at is not None, (nan_at or 0) & 0xFFFF)

    def _execute(self, i: Instruction, beats: np.ndarray) -> tuple[np.ndarray, bool]:
        """Executes a valid instruction; returns lines for `dout`, and whether a result is NaN."""
        nothing = beats[:0]
        if i.opcode == Opcode.LOAD:
            self._write(i, beats.reshape(i.rows * i.groups, -1))
            return nothing, False
        if i.opcode == Opcode.STORE:
            width = instructions.accesses(i, self.config)["a"].lines * self.config.dpe.inputs
            return self._rows(i.a.lines(i.rows, i.groups), width).reshape(-1, self.config.dpe.inputs), False
        return nothing, self._gemm(i, beats) if i.opcode == Opcode.GEMM else self._vector(i)

    def _rows(self, lines: list[int], width: int) -> np.ndarray:
        """The first `width` values from each of these lines on: uint16 [rows, width]."""
        flat = self.memory.reshape(-1)
        starts = np.array(lines) * self.config.dpe.inputs
        return flat[starts[:, None] + np.arange(width)]

    def _write(self, i: Instruction, values: np.ndarray) -> None:
        """Rows of 16-bit values, uint16 [rows, width], to o."""
        starts = np.array(i.o.lines(i.rows, i.groups)) * self.config.dpe.inputs
        self.memory.reshape(-1)[starts[:, None] + np.arange(values.shape[1])] = values

    def _gemm(self, i: Instruction, beats: np.ndarray) -> bool:
        config = self.config.dpe
        x = self._rows(i.a.lines(i.rows, i.groups), i.inner)
        if not i.resident:
            w = dpe.weights_of(beats, dpe.tiles(i.length, config), i.columns, config)[:, : i.inner]
        elif i.columns:
            w = self._rows(i.b.lines(i.inner, 1), i.length).T
        else:
            w = self._rows(i.b.lines(i.length, 1), i.inner)
        words = np.zeros((dpe.tiles(i.length, config) * config.trees, i.inner), dtype=np.uint16)
        words[: i.length] = w[: i.length]
        if i.bf16 >> 3:
            rounded = dpe.gemm(x, words, config, bf16=True)
            rounded[:, i.length :] = 0
            self._write(i, rounded)
            return bool((rounded & 0x7FFF > 0x7F80).any())
        product = vpe.copy(dpe.gemm(x, words, config))
        product[:, i.length :] = 0
        self._write(i, _stored(product, bf16=False))
        return bool(np.isnan(product).any())

    def _vector(self, i: Instruction) -> bool:
        code, lanes = vpe.Function(i.function), self.config.vpe.lanes
        operands = []
        for place, name in enumerate(OPERANDS.get(code, "a")):
            one = place and i.scalar >> "bc".index(name) & 1
            lines = getattr(i, name).lines(i.rows, i.groups)
            operands.append(
                self._values(lines, 1 if one else i.length, bool(i.bf16 >> "abc".index(name) & 1))
            )
        if code == vpe.Function.SIGN:
            result = np.stack([vpe.sign(row) for row in operands[0]]).view(np.float32)
            nan = bool(np.isnan(operands[0]).any())
        else:
            width = 1 if code in REDUCTIONS else i.length
            result = np.broadcast_to(OPERATIONS[code](*operands), (i.rows * i.groups, width))
            nan = bool(np.isnan(result).any())
        words = np.zeros((len(result), -(-result.shape[1] // lanes) * lanes), dtype=np.float32)
        words[:, : result.shape[1]] = result
        self._write(i, _stored(words, instructions.result_is_bf16(i)))
        return nan

    def _values(self, lines: list[int], length: int, bf16: bool) -> np.ndarray:
        """Elements of rows: float32 [rows, length]."""
        if bf16:
            return arith.from_bf16(self._rows(lines, length))
        return np.ascontiguousarray(self._rows(lines, 2 * length)).view("<u4").view(np.float32)


def _stored(values: np.ndarray, bf16: bool) -> np.ndarray:
    """Float32 rows as 16-bit values, uint16 [rows, n or 2 n]; hash words keep their bits."""
    if bf16:
        return arith.to_bf16(values)
    return np.ascontiguousarray(values).view("<u2").astype(np.uint16)
