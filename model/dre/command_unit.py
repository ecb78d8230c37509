"""What the golden models of KVPU and voter share: one command at a time, registers, statuses."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

from vrex.model.commands import CommandError, Completion, Descriptor, Opcode, Register, Status
from vrex.model.config import Config
from vrex.model.dre.registers import RegisterFile

Result = tuple[bytes, int]
"""Result bytes and the completion's `detail`."""

Operation = Callable[[Descriptor, bytes], Result]


class CommandUnit(ABC):
    """Golden model of a unit behind a command stream. Cycle counters read 0: the model has no clock."""

    def __init__(self, config: Config, registers: tuple[Register, ...]) -> None:
        self.config = config
        self.registers = RegisterFile(registers)

    @abstractmethod
    def operations(self) -> Mapping[int, Operation]:
        """What the unit executes besides SETREG and GETREG, by opcode."""

    def execute(self, command: Descriptor, payload: bytes) -> tuple[Completion, bytes]:
        """Runs one command.

        Args:
            command: descriptor.
            payload: its data, `command.length` bytes rounded up to whole beats.
        """
        try:
            result, detail = self._dispatch(command, payload)
        except CommandError as error:
            return Completion(command.tag, error.status), b""
        return Completion(command.tag, Status.OK, size=len(result), detail=detail), result

    def _dispatch(self, command: Descriptor, payload: bytes) -> Result:
        operations: dict[int, Operation] = {
            Opcode.SETREG: self._setreg,
            Opcode.GETREG: self._getreg,
            **self.operations(),
        }
        if command.opcode not in operations:
            raise CommandError(Status.BAD_OPCODE)
        return operations[command.opcode](command, payload)

    def _setreg(self, command: Descriptor, payload: bytes) -> Result:
        self.registers.set(command)
        return b"", 0

    def _getreg(self, command: Descriptor, payload: bytes) -> Result:
        return b"", self.registers.get(command)
