"""The LXE's engine: programs in, arrays out, error statuses as messages."""

from dataclasses import dataclass
from threading import Lock

import numpy as np

from vrex.model.commands import Status
from vrex.model.lxe.instructions import Completion
from vrex.model.lxe.program import Program
from vrex.sw.driver.program_interface import Code, ProgramTransport
from vrex.sw.driver.transport import DriverError


@dataclass(frozen=True)
class ProgramOutcome:
    """What came of a program.

    Attributes:
        results: of its stores (`Program.outputs`).
        completion: its end.
    """

    results: list[np.ndarray]
    completion: Completion


class LxeEngine:
    """Programs of one LXE.

    Attributes:
        transport: the way to it.
        config: accelerator.
        report: what went over.
    """

    def __init__(self, transport: ProgramTransport) -> None:
        self.transport = transport
        self.config, self.report = transport.config, transport.report
        # Hash-bits and scores are asked for by different threads.
        self._lock = Lock()

    def run(self, program: Program) -> ProgramOutcome:
        """Executes a program, whose tensors must all be loaded or computed by itself.

        Raises:
            DriverError: the LXE refused an instruction or did not answer.
        """
        code = Code(*program.finish())
        with self._lock:
            lines, completion = self.transport.submit(code)
        if completion.status != Status.OK:
            raise DriverError(
                f"the LXE refused instruction {completion.index} of a program with status "
                f"{Status(completion.status).name}: {code.instructions[completion.index]}"
            )
        return ProgramOutcome(program.outputs(lines), completion)
