"""What the golden models of command units share: one command at a time, registers, statuses."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

from vrex.model.commands import CommandError, Completion, Descriptor, Opcode, Register, Status
from vrex.model.config import Config
from vrex.model.dre.registers import WINDOWS, RegisterFile
from vrex.model.lib.memory import Memory, Window

Result = tuple[bytes, int]
"""Result bytes and the completion's `detail`."""

Operation = Callable[[Descriptor, bytes], Result]

Delivery = tuple[bytes, bytes, int]
"""Bytes on the result stream and on the stream `kv`, and the completion's `detail`."""

MemoryOperation = Callable[[Descriptor, bytes], Delivery]


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


class MemoryUnit(ABC):
    """Golden model of a unit with an AXI4 port and a stream `kv`. Cycle counters read 0."""

    def __init__(self, config: Config, memory: Memory, registers: RegisterFile) -> None:
        """A unit whose windows are not set yet.

        Args:
            config: accelerator.
            memory: what its AXI port reaches.
            registers: its own.
        """
        self.config, self.memory, self.registers = config, memory, registers

    @abstractmethod
    def operations(self) -> Mapping[int, MemoryOperation]:
        """What the unit executes besides SETREG and GETREG, by opcode."""

    def execute(self, command: Descriptor, payload: bytes) -> tuple[Completion, bytes, bytes]:
        """Runs one command.

        Args:
            command: descriptor.
            payload: its data, `command.length` bytes rounded up to whole beats.

        Returns:
            (completion, bytes on the result stream, bytes on the stream `kv`). A bitmask is looked at when
            its KV head has its turn, so a FETCH that ends with BAD_MASK has delivered the heads before. What
            leaves before another failure is not part of the contract, and nothing here.
        """
        operations: dict[int, MemoryOperation] = {
            Opcode.SETREG: self._setreg,
            Opcode.GETREG: self._getreg,
            **self.operations(),
        }
        try:
            if command.opcode not in operations:
                raise CommandError(Status.BAD_OPCODE)
            result, kv, detail = operations[command.opcode](command, payload)
        except CommandError as error:
            detail = len(error.kv) // self.config.bus_bytes
            return Completion(command.tag, error.status, detail=detail), b"", error.kv
        return Completion(command.tag, Status.OK, size=len(result), detail=detail), result, kv

    def seen(self) -> Memory:
        """The memory, as far as the registers' windows let it be seen."""
        base, pages, host_base, host_pages = (self.registers.values[register] for register in WINDOWS)
        return self.memory.seen_through(Window(base, pages), Window(host_base, host_pages))

    def _setreg(self, command: Descriptor, payload: bytes) -> Delivery:
        self.registers.set(command)
        return b"", b"", 0

    def _getreg(self, command: Descriptor, payload: bytes) -> Delivery:
        return b"", b"", self.registers.get(command)
