"""What every way to every accelerator has in common.

An accelerator takes descriptors and a payload stream and gives completions and result streams. `Interface`
says what these are for one accelerator, and has its golden model. Three transports serve every accelerator:
the golden model (`golden`), the simulated Verilog (`rtl`), and the latter watched by the former (`checked`).
Above them `KvpuEngine`, `DreEngine` and `LxeEngine` take and return arrays.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from vrex.errors import UserError
from vrex.model.config import Config
from vrex.model.lib.memory import Memory


class DriverError(UserError):
    """The accelerator refused a command, or did not answer; the sentence says which and why."""


class Report(Protocol):
    """What went over a transport.

    Attributes:
        compared: results compared with the golden model.
        mismatches: those that differ.
    """

    compared: int
    mismatches: int

    def count(self, sent: Any, answer: Any, /) -> None:
        """Adds what one `submit` took and returned."""
        ...


Sent = TypeVar("Sent")
"""What is submitted at once."""
Answer = TypeVar("Answer")
"""What comes of it."""
AnyReport = TypeVar("AnyReport", bound=Report)


@dataclass(frozen=True)
class Request:
    """What an accelerator is sent.

    Attributes:
        descriptors: packed, one after the other.
        count: number of descriptors.
        completions: how many to wait for.
        payload: whole beats.
    """

    descriptors: bytes
    count: int
    completions: int
    payload: bytes


@dataclass(frozen=True)
class Response:
    """What an accelerator gave: the content of its streams of completions, results, and keys and values."""

    completions: bytes
    results: bytes
    kv: bytes


class Interface(ABC, Generic[Sent, Answer, AnyReport]):
    """The descriptors, completions and streams of one accelerator, and its golden model.

    Attributes:
        unit: hardware unit, `kvpu`, `dre` or `lxe`.
        config: accelerator.
        memory: what the unit's AXI port reaches; None without such a port.
    """

    unit: str

    def __init__(self, config: Config, memory: Memory | None = None) -> None:
        self.config, self.memory = config, memory

    @abstractmethod
    def new_report(self) -> AnyReport:
        """An empty report."""

    @abstractmethod
    def with_new_memory(self) -> "Interface[Sent, Answer, AnyReport]":
        """The same accelerator with a memory of its own, nothing but zeros, if it has one."""

    @abstractmethod
    def golden(self) -> Callable[[Sent], Answer]:
        """The golden model as after power-up; memory keeps its content."""

    @abstractmethod
    def pack(self, sent: Sent) -> Request:
        """The accelerator's bytes."""

    @abstractmethod
    def unpack(self, sent: Sent, response: Response) -> Answer:
        """The answer out of the accelerator's bytes, when all completions have come.

        Raises:
            DriverError: the streams contradict the completions.
        """

    @abstractmethod
    def unanswered(self, sent: Sent, response: Response, cycles: int) -> str:
        """What to say when not all completions came within so many cycles."""


class Transport(ABC, Generic[Sent, Answer, AnyReport]):
    """A way to one accelerator; commands of several threads must not mix.

    Attributes:
        interface: of the accelerator.
        config: the accelerator.
        memory: what the accelerator's AXI port reaches, for the host to read; None without such a port.
        report: what went over.
    """

    def __init__(self, interface: Interface[Sent, Answer, AnyReport], report: AnyReport) -> None:
        self.interface, self.report = interface, report
        self.config, self.memory = interface.config, interface.memory

    @abstractmethod
    def submit(self, sent: Sent, /) -> Answer:
        """Executes commands in order; a command that fails does not stop those after it.

        Raises:
            DriverError: the accelerator did not answer. It has then been reset: its registers hold their
                reset values and the next command works.
        """

    def write(self, address: int, data: bytes) -> None:
        """Writes the accelerator's memory, between two batches; the host writes it in no other way.

        Raises:
            ValueError: there is no memory.
        """
        if self.memory is None:
            raise ValueError(f"a {self.interface.unit.upper()} has no memory")
        self.memory.write(address, data)

    def close(self) -> None:
        """Releases the accelerator; the transport can't be used any more. A second call does nothing."""
