"""Programs of the LXE: instructions with one payload, what they store, and one completion."""

from collections.abc import Callable
from dataclasses import InitVar, dataclass, replace
from typing import NamedTuple

import numpy as np

from vrex.model.config import Config
from vrex.model.lxe.instructions import COMPLETION, Completion, Instruction, Opcode
from vrex.model.lxe.lxe import Lxe
from vrex.sw.driver.checked import CheckedTransport
from vrex.sw.driver.transport import Interface, Request, Response, Transport


class Code(NamedTuple):
    """A program as `Program.finish` gives it.

    Attributes:
        instructions: in order; the last one is marked.
        payload: BF16 bits or halves of FP32, uint16.
    """

    instructions: list[Instruction]
    payload: np.ndarray


class Ending(NamedTuple):
    """What came of a program.

    Attributes:
        lines: stored, uint16 [n, dpe.inputs].
        completion: its end; a refusal is not an error here.
    """

    lines: np.ndarray
    completion: Completion


@dataclass
class ProgramReport:
    """What went over a transport of programs (see `Report`).

    Attributes:
        programs: that were run.
        cycles: from each program's first instruction to its end; 0 without a clock.
        multiplying: of these, cycles in which rows enter the DPE's trees, as the instructions ask for them.
        compared: lines of results, and ends of programs, compared with the golden model.
        mismatches: those that differ.
    """

    config: InitVar[Config]
    programs: int = 0
    cycles: int = 0
    multiplying: int = 0
    compared: int = 0
    mismatches: int = 0

    def __post_init__(self, config: Config) -> None:
        self._config = config

    def count(self, sent: Code, answer: Ending, /) -> None:
        """Adds one program."""
        self.programs += 1
        self.cycles += answer.completion.cycles
        self.multiplying += sum(_beats(i, self._config) for i in sent.instructions)


def _beats(i: Instruction, config: Config) -> int:
    """Cycles in which a product's rows enter the trees."""
    if i.opcode != Opcode.GEMM:
        return 0
    tiles, chunks = -(-i.length // config.dpe.trees), -(-i.inner // (config.dpe.inputs * config.dpe.beats))
    return tiles * chunks * i.rows * i.groups * config.dpe.beats


ProgramTransport = Transport[Code, Ending, ProgramReport]
"""A way to an LXE."""


class ProgramInterface(Interface[Code, Ending, ProgramReport]):
    """An LXE (see `Interface`)."""

    unit = "lxe"

    def new_report(self) -> ProgramReport:
        """An empty report."""
        return ProgramReport(self.config)

    def with_new_memory(self) -> "ProgramInterface":
        """The same: an LXE has no memory outside itself."""
        return self

    def golden(self) -> Callable[[Code], Ending]:
        """The golden model (see `Interface`)."""
        model = Lxe(self.config)
        return lambda code: Ending(*model.run(code.instructions, code.payload))

    def pack(self, sent: Code) -> Request:
        """Instructions, of which only the last one completes."""
        packed = b"".join(instruction.pack() for instruction in sent.instructions)
        return Request(packed, len(sent.instructions), 1, sent.payload.astype("<u2").tobytes())

    def unpack(self, sent: Code, response: Response) -> Ending:
        """Lines and completion."""
        lines = np.frombuffer(response.results, dtype="<u2").astype(np.uint16)
        completion = Completion.unpack(response.completions[: COMPLETION.size])
        return Ending(lines.reshape(-1, self.config.dpe.inputs), completion)

    def unanswered(self, sent: Code, response: Response, cycles: int) -> str:
        """Says how long the program is."""
        return (
            f"a program of {len(sent.instructions)} instructions did not end after {cycles} cycles: "
            "the LXE's Verilog is at fault, so run vrex regress"
        )


class CheckedPrograms(CheckedTransport[Code, Ending, ProgramReport]):
    """An LXE watched by the golden model (see `CheckedTransport`)."""

    def _compare(self, sent: Code, expected: Ending, actual: Ending) -> Ending:
        # The model has no clock.
        end = replace(expected.completion, cycles=actual.completion.cycles)
        wanted, got = expected.lines, actual.lines
        self.report.compared += len(wanted) + 1
        same = min(len(got), len(wanted))
        wrong = int((got[:same] != wanted[:same]).any(axis=1).sum()) + abs(len(got) - len(wanted))
        self.report.mismatches += wrong + (end != actual.completion)
        return Ending(wanted, end)
