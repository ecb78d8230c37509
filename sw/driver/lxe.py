"""Ways to an LXE: programs in, what they store out."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Lock

import numpy as np

from vrex.errors import UserError
from vrex.hw.tools.build import Notify, library, to_stderr
from vrex.model.commands import Status
from vrex.model.config import Config
from vrex.model.lxe.instructions import COMPLETION, Completion, Instruction, Opcode
from vrex.model.lxe.lxe import Lxe
from vrex.model.lxe.program import Program
from vrex.sw.driver.rtl import CYCLE_LIMIT, STALL_UNITS, fetched, load_library
from vrex.sw.driver.transport import DriverError


@dataclass
class LxeReport:
    """What went over a transport.

    Attributes:
        programs: that were run.
        cycles: from each program's first instruction to its end; 0 without a clock.
        multiplying: of these, cycles in which rows enter the DPE's trees, as the instructions ask for them.
        compared: lines of results, and ends of programs, compared with the golden model.
        mismatches: those that differ.
    """

    programs: int = 0
    cycles: int = 0
    multiplying: int = 0
    compared: int = 0
    mismatches: int = 0


@dataclass(frozen=True)
class Outcome:
    """What came of a program.

    Attributes:
        results: of its stores (`Program.outputs`).
        completion: its end.
    """

    results: list[np.ndarray]
    completion: Completion


class LxeTransport(ABC):
    """A way to one LXE.

    Attributes:
        config: accelerator.
        report: what went over.
    """

    def __init__(self, config: Config) -> None:
        self.config, self.report = config, LxeReport()
        # Hash-bits and scores are asked for by different threads.
        self._lock = Lock()

    def run(self, program: Program) -> Outcome:
        """Executes a program, whose tensors must all be loaded or computed by itself.

        Raises:
            DriverError: the LXE refused an instruction or did not answer.
        """
        instructions, payload = program.finish()
        with self._lock:
            lines, completion = self.execute(instructions, payload)
            self.report.programs += 1
            self.report.cycles += completion.cycles
            self.report.multiplying += sum(_beats(i, self.config) for i in instructions)
        if completion.status != Status.OK:
            raise DriverError(
                f"the LXE refused instruction {completion.index} of a program with status "
                f"{Status(completion.status).name}: {instructions[completion.index]}"
            )
        return Outcome(program.outputs(lines), completion)

    @abstractmethod
    def execute(self, instructions: list[Instruction], payload: np.ndarray) -> tuple[np.ndarray, Completion]:
        """Lines stored, uint16 [n, dpe.inputs], and the end of a program; a refusal is not an error here."""


def _beats(i: Instruction, config: Config) -> int:
    """Cycles in which a product's rows enter the trees."""
    if i.opcode != Opcode.GEMM:
        return 0
    tiles, chunks = -(-i.length // config.dpe.trees), -(-i.inner // (config.dpe.inputs * config.dpe.beats))
    return tiles * chunks * i.rows * i.groups * config.dpe.beats


class GoldenLxe(LxeTransport):
    """The golden model as an LXE without a clock."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._model = Lxe(config)

    def execute(self, instructions: list[Instruction], payload: np.ndarray) -> tuple[np.ndarray, Completion]:
        """See `LxeTransport`."""
        return self._model.run(instructions, payload)


class RtlLxe(LxeTransport):
    """A cycle-accurate simulation of the generated Verilog, built on first use."""

    def __init__(
        self,
        config: Config,
        *,
        mutate: Callable[[str], str] | None = None,
        stall: float = 0.0,
        seed: int = 0,
        cycle_limit: int = CYCLE_LIMIT,
        notify: Notify = to_stderr,
    ) -> None:
        """Opens a simulation; arguments as of `RtlTransport`.

        Raises:
            UserError: the simulator can't be built.
        """
        super().__init__(config)
        self._limit = cycle_limit
        self._library = load_library(library(config, "lxe", mutate, notify))
        self._simulation = self._library.vrex_open(seed, int(stall * STALL_UNITS))

    def execute(self, instructions: list[Instruction], payload: np.ndarray) -> tuple[np.ndarray, Completion]:
        """See `LxeTransport`.

        Raises:
            DriverError: no completion came; the simulation was reset.
        """
        packed = b"".join(instruction.pack() for instruction in instructions)
        data = payload.astype("<u2").tobytes()
        ended = self._library.vrex_run(
            self._simulation, packed, len(instructions), 1, data, len(data), self._limit
        )
        end = fetched(self._library.vrex_completions, self._simulation)
        lines = np.frombuffer(fetched(self._library.vrex_results, self._simulation), dtype="<u2")
        if not ended:
            self._library.vrex_reset(self._simulation)
            raise DriverError(
                f"a program of {len(instructions)} instructions did not end after {self._limit} cycles: "
                "the LXE's Verilog is at fault, so run vrex regress"
            )
        return lines.astype(np.uint16).reshape(-1, self.config.dpe.inputs), Completion.unpack(
            end[: COMPLETION.size]
        )

    def __del__(self) -> None:
        # Nothing was opened where the build failed.
        if hasattr(self, "_simulation"):
            self._library.vrex_close(self._simulation)


class CheckedLxe(LxeTransport):
    """An LXE watched by the golden model, whose results are passed on."""

    def __init__(self, device: LxeTransport) -> None:
        super().__init__(device.config)
        self._device = device
        self._golden = GoldenLxe(device.config)
        # A simulation leaves the other core to the golden model.
        self._worker = ThreadPoolExecutor(1)

    def execute(self, instructions: list[Instruction], payload: np.ndarray) -> tuple[np.ndarray, Completion]:
        """See `LxeTransport`."""
        running = self._worker.submit(self._device.execute, instructions, payload)
        expected, end = self._golden.execute(instructions, payload)
        lines, device_end = running.result()
        # The model has no clock.
        end = replace(end, cycles=device_end.cycles)
        self.report.compared += len(expected) + 1
        same = min(len(lines), len(expected))
        wrong = int((lines[:same] != expected[:same]).any(axis=1).sum()) + abs(len(lines) - len(expected))
        self.report.mismatches += wrong + (end != device_end)
        return expected, end


def open_lxe(name: str, config: Config, check: bool = False) -> LxeTransport:
    """Opens an LXE.

    Args:
        name: `golden`, the golden model, or `rtl`, the simulated Verilog (built on first use).
        config: accelerator.
        check: with `rtl`, compare every result with the golden model's.

    Raises:
        UserError: no such transport, nothing to check, or the simulator can't be built.
    """
    if name == "golden":
        if check:
            raise UserError("the golden model can't be checked against itself; choose the backend rtl")
        return GoldenLxe(config)
    if name == "rtl":
        device = RtlLxe(config)
        return CheckedLxe(device) if check else device
    raise UserError(f"unknown backend {name!r}; choose golden or rtl")
