"""What every way to the accelerator has in common."""

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from vrex.errors import UserError
from vrex.model.commands import Completion, Descriptor, Opcode
from vrex.model.config import Config
from vrex.model.lib.memory import Memory

Batch = list[tuple[Descriptor, bytes]]
"""Commands with their payloads, `length` bytes each, a whole number of bus beats."""


class Outcome(NamedTuple):
    """What came of one command.

    Attributes:
        completion: its end.
        result: bytes on the result stream.
        kv: bytes on the DRE's stream `kv`; none of a command that failed.
    """

    completion: Completion
    result: bytes
    kv: bytes = b""


Results = list[Outcome]
"""The outcome of every command of a batch, in its order."""

UNITS = {
    "kvpu": {"hcu": Opcode.CLUSTER, "wtu": Opcode.SELECT},
    "dre": {"append": Opcode.APPEND, "retrieve": Opcode.RETRIEVE, "fetch": Opcode.FETCH},
}
"""What each accelerator's cycles are reported under, and by which command they are counted."""

DELIVERING = (Opcode.RETRIEVE, Opcode.FETCH)
"""Commands with K and V on the stream `kv`; their completions' `detail` counts its beats."""


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
        unit: the accelerator, `kvpu` or `dre`.
        calls: commands other than SETREG and GETREG.
        cycles: clock cycles by opcode, from taking each descriptor to its completion; 0 without a clock.
        compared: results compared with the golden model: a decision per token of CLUSTER and APPEND, a
            bitmask per KV head of SELECT and RETRIEVE, K and V of a RETRIEVE or FETCH, and the table in
            memory after the APPENDs of a batch.
        mismatches: those that differ.
    """

    unit: str = "kvpu"
    calls: int = 0
    cycles: Counter[int] = field(default_factory=Counter)
    compared: int = 0
    mismatches: int = 0

    def count(self, batch: Batch, results: Results) -> None:
        """Adds one batch's calls and cycles."""
        for (command, _), outcome in zip(batch, results, strict=True):
            self.calls += command.opcode in UNITS[self.unit].values()
            self.cycles[command.opcode] += outcome.completion.cycles

    def to_dict(self) -> dict[str, int | dict[str, int]]:
        """Plain dictionary, for JSON."""
        return {
            "cycles": sum(self.cycles.values()),
            "calls": self.calls,
            "compared": self.compared,
            "mismatches": self.mismatches,
            "units": {unit: self.cycles[opcode] for unit, opcode in UNITS[self.unit].items()},
        }


class Transport(Protocol):
    """A way to one accelerator; commands of several threads must not mix.

    Attributes:
        config: the accelerator.
        report: what went over.
        memory: what the DRE's AXI port reaches, for the host to read; None of a KVPU, which has no such port.
    """

    config: Config
    report: TransportReport
    memory: Memory | None

    def submit(self, batch: Batch) -> Results:
        """Executes commands in order; a command that fails does not stop those after it.

        Raises:
            DriverError: the accelerator did not answer. It has then been reset: its registers hold their
                reset values and the next command works.
        """
        ...

    def write(self, address: int, data: bytes) -> None:
        """Writes the DRE's memory, between two batches; the host writes it in no other way."""
        ...

    def close(self) -> None:
        """Lets the accelerator go; the transport can't be used any more."""
        ...


def write_memory(memory: Memory | None, address: int, data: bytes) -> None:
    """`Transport.write` for a memory that may not be there.

    Raises:
        ValueError: it is not.
    """
    if memory is None:
        raise ValueError("a KVPU has no memory")
    memory.write(address, data)


def open_transport(name: str, config: Config, check: bool = False, memory: Memory | None = None) -> Transport:
    """Opens an accelerator: a KVPU, or with a memory a DRE.

    Args:
        name: `golden`, the golden model, or `rtl`, the simulated Verilog (built on first use).
        config: accelerator.
        check: with `rtl`, compare every result with the golden model's.
        memory: what the DRE's AXI port reaches, nothing but zeros yet.

    Raises:
        UserError: no such transport, nothing to check, or the simulator can't be built.
    """
    # The transports' own modules import what is heavy.
    if name == "golden":
        from vrex.sw.driver.golden import GoldenTransport

        if check:
            raise UserError("the golden model can't be checked against itself; choose the backend rtl")
        return GoldenTransport(config, memory)
    if name == "rtl":
        from vrex.sw.driver.checked import CheckedTransport
        from vrex.sw.driver.rtl import RtlTransport

        rtl = RtlTransport(config, memory)
        return CheckedTransport(rtl) if check else rtl
    raise UserError(f"unknown backend {name!r}; choose golden or rtl")
