"""What every way to the accelerator has in common."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol

from vrex.model.commands import Completion, Descriptor, Opcode
from vrex.model.config import Config
from vrex.sw.errors import UserError

Batch = list[tuple[Descriptor, bytes]]
"""Commands with their payloads, `length` bytes each, a whole number of bus beats."""

Results = list[tuple[Completion, bytes]]
"""A completion and the result bytes for every command of a batch, in its order."""

UNITS = {"hcu": Opcode.CLUSTER, "wtu": Opcode.SELECT}
"""The unit that works on a command."""


class DriverError(UserError):
    """The accelerator refused a command, or did not answer; the sentence says which and why."""


def describe(command: Descriptor) -> str:
    """A command in a few words, for messages."""
    opcode = Opcode(command.opcode).name if command.opcode in list(Opcode) else f"opcode {command.opcode}"
    return (
        f"{opcode} (tag {command.tag}, layer {command.layer}, count {command.count}, "
        f"{command.clusters} clusters, {command.length} bytes)"
    )


@dataclass
class TransportReport:
    """What went over a transport.

    Attributes:
        calls: CLUSTER and SELECT commands.
        cycles: clock cycles by opcode, from taking each descriptor to its completion; 0 without a clock.
        compared: results compared with the golden model: a decision per token of CLUSTER, a bitmask per KV
            head of SELECT.
        mismatches: those that differ.
    """

    calls: int = 0
    cycles: Counter[int] = field(default_factory=Counter)
    compared: int = 0
    mismatches: int = 0

    def count(self, batch: Batch, results: Results) -> None:
        """Adds one batch's calls and cycles."""
        for (command, _), (completion, _) in zip(batch, results, strict=True):
            self.calls += command.opcode in UNITS.values()
            self.cycles[command.opcode] += completion.cycles

    def to_dict(self) -> dict[str, int | dict[str, int]]:
        """Plain dictionary, for JSON."""
        return {
            "cycles": sum(self.cycles.values()),
            "calls": self.calls,
            "compared": self.compared,
            "mismatches": self.mismatches,
            "units": {unit: self.cycles[opcode] for unit, opcode in UNITS.items()},
        }


class Transport(Protocol):
    """A way to one accelerator; commands of several threads must not mix."""

    config: Config
    report: TransportReport

    def submit(self, batch: Batch) -> Results:
        """Executes commands in order; a command that fails does not stop those after it.

        Raises:
            DriverError: the accelerator did not answer. It has then been reset: its registers hold their
                reset values and the next command works.
        """
        ...

    def close(self) -> None:
        """Lets the accelerator go; the transport can't be used any more."""
        ...


def open_transport(name: str, config: Config, check: bool = False) -> Transport:
    """Opens an accelerator.

    Args:
        name: `golden`, the golden model, or `rtl`, the simulated Verilog (built on first use).
        config: accelerator.
        check: with `rtl`, compare every result with the golden model's.

    Raises:
        UserError: no such transport, nothing to check, or the simulator can't be built.
    """
    # The transports' own modules import what is heavy.
    if name == "golden":
        from vrex.sw.driver.golden import GoldenTransport

        if check:
            raise UserError("the golden model can't be checked against itself; choose the backend rtl")
        return GoldenTransport(config)
    if name == "rtl":
        from vrex.sw.driver.checked import CheckedTransport
        from vrex.sw.driver.rtl import RtlTransport

        rtl = RtlTransport(config)
        return CheckedTransport(rtl) if check else rtl
    raise UserError(f"unknown backend {name!r}; choose golden or rtl")
