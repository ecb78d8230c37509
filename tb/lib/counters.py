"""Counters of a unit that executes commands, read by commands of their own."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from vrex.model.commands import Descriptor

Command = tuple[Descriptor, bytes]
"""A descriptor and its payload."""


class CommandBench(Protocol):
    """What reading counters takes of a bench.

    Attributes:
        details: `detail` of the completions so far.
    """

    details: list[int]

    def stall(self, profile: str | None = None) -> None:
        """As `vrex.tb.lib.bench.Bench.stall`."""

    async def drain(self) -> None:
        """As `vrex.tb.lib.bench.Bench.drain`."""

    def read(self, register: int) -> Command:
        """GETREG of a register."""
        raise NotImplementedError

    def send(self, command: Command) -> Any:
        """Queues a command and what it must return."""


async def counted(bench: CommandBench, counters: Sequence[int], work: Iterable[Command]) -> list[int]:
    """Every counter before some commands and after them, while nobody makes the unit wait.

    Args:
        bench: of the unit.
        counters: their registers.
        work: the commands.
    """
    bench.stall("none")
    await bench.drain()
    reads = [bench.read(counter) for counter in counters]
    before = len(bench.details)
    for command in (*reads, *work, *reads):
        bench.send(command)
    await bench.drain()
    found = bench.details[before:]
    return found[: len(reads)] + found[-len(reads) :]
