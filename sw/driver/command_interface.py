"""Commands of the command units: batches of descriptors with payloads, a completion each."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from vrex.model.commands import COMPLETION, Completion, Descriptor, Opcode, Status, to_beats
from vrex.model.config import Config
from vrex.model.dre.dre import Dre
from vrex.model.dre.kvpu import Kvpu
from vrex.model.dre.recall import Recall
from vrex.model.dre.voter import Voter
from vrex.model.lib.memory import Memory
from vrex.sw.driver.transport import DriverError, Interface, Request, Response, Transport

Batch = list[tuple[Descriptor, bytes]]
"""Commands with their payloads, `length` bytes each, a whole number of bus beats."""


class Outcome(NamedTuple):
    """What came of one command.

    Attributes:
        completion: its end.
        result: bytes on the result stream; none of a command that failed.
        kv: bytes on the stream `kv`; likewise.
    """

    completion: Completion
    result: bytes
    kv: bytes = b""


Results = list[Outcome]
"""The outcome of every command of a batch, in its order."""

KVPU, VOTER, DRE, RECALL = "kvpu", "voter", "dre", "recall"

UNITS = {
    KVPU: {"hcu": Opcode.CLUSTER, "wtu": Opcode.SELECT},
    VOTER: {"votes": Opcode.VOTE},
    DRE: {"append": Opcode.APPEND, "retrieve": Opcode.RETRIEVE, "fetch": Opcode.FETCH},
    RECALL: {"store": Opcode.STORE, "recall": Opcode.RECALL},
}
"""What each accelerator's cycles are reported under, and by which command they are counted."""

DELIVERING = (Opcode.RETRIEVE, Opcode.FETCH, Opcode.RECALL)
"""Commands with K and V on the stream `kv`; their completions' `detail` counts its beats."""


def describe(command: Descriptor) -> str:
    """A command in a few words, for messages."""
    opcode = Opcode(command.opcode).name if command.opcode in list(Opcode) else f"opcode {command.opcode}"
    return (
        f"{opcode} (tag {command.tag}, layer {command.layer}, count {command.count}, "
        f"{command.clusters} clusters, {command.length} bytes)"
    )


@dataclass
class CommandReport:
    """What went over a transport of commands (see `Report`).

    Attributes:
        unit: the accelerator, a key of `UNITS`.
        calls: commands other than SETREG and GETREG.
        cycles: clock cycles by opcode, from taking each descriptor to its completion; 0 without a clock.
        compared: results compared with the golden model: a decision per token of CLUSTER and APPEND, a
            bitmask per KV head of SELECT, RETRIEVE, VOTE and RECALL, K and V of a RETRIEVE, FETCH or RECALL,
            and the table or store in memory after the APPENDs or STOREs of a batch.
        mismatches: those that differ.
        resets: of a board in the middle of the work, after which it was taken up again; its counters began
            anew then.
    """

    unit: str = KVPU
    calls: int = 0
    cycles: Counter[int] = field(default_factory=Counter)
    compared: int = 0
    mismatches: int = 0
    resets: int = 0

    def count(self, sent: Batch, answer: Results, /) -> None:
        """Adds one batch's calls and cycles."""
        for (command, _), outcome in zip(sent, answer, strict=True):
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


CommandTransport = Transport[Batch, Results, CommandReport]
"""A way to one of `UNITS`."""


class CommandInterface(Interface[Batch, Results, CommandReport]):
    """One of `UNITS`, a KVPU or with a memory a DRE where none is named (see `Interface`)."""

    def __init__(self, config: Config, memory: Memory | None = None, unit: str | None = None) -> None:
        super().__init__(config, memory)
        self.unit = unit or (KVPU if memory is None else DRE)

    def new_report(self) -> CommandReport:
        """An empty report."""
        return CommandReport(self.unit)

    def with_new_memory(self) -> "CommandInterface":
        """The same accelerator with a memory of its own, if it has one."""
        memory = Memory(self.memory.device, self.memory.host) if self.memory else None
        return CommandInterface(self.config, memory, self.unit)

    def golden(self) -> Callable[[Batch], Results]:
        """The golden model (see `Interface`)."""
        model: Kvpu | Voter | Dre | Recall
        if self.memory is not None:
            model = (Recall if self.unit == RECALL else Dre)(self.config, self.memory)
        else:
            model = (Voter if self.unit == VOTER else Kvpu)(self.config)

        def execute(command: Descriptor, payload: bytes) -> Outcome:
            completion, result, *kv = model.execute(command, payload)
            outcome = Outcome(completion, result, *kv)
            # What a failed command delivered before its error is dropped.
            return outcome if outcome.completion.status == Status.OK else outcome._replace(kv=b"")

        return lambda batch: [execute(command, payload) for command, payload in batch]

    def pack(self, sent: Batch) -> Request:
        """Descriptors and payloads, each payload in whole beats."""
        descriptors = b"".join(command.pack() for command, _ in sent)
        payload = b"".join(to_beats(self.config, data) for _, data in sent)
        return Request(descriptors, len(sent), len(sent), payload)

    def unpack(self, sent: Batch, response: Response) -> Results:
        """Outcomes (see `Interface`)."""
        completions = _completions(response)
        results, kv = response.results, response.kv
        delivered = [
            completion.detail * self.config.bus_bytes if command.opcode in DELIVERING else 0
            for (command, _), completion in zip(sent, completions, strict=True)
        ]
        if sum(completion.size for completion in completions) != len(results) or sum(delivered) != len(kv):
            raise DriverError(
                f"the accelerator returned {len(results) + len(kv)} bytes up to {describe(sent[-1][0])}, "
                "which is not what the completions say: its Verilog is at fault, so run vrex regress"
            )
        return _split(completions, results, delivered, kv)

    def unanswered(self, sent: Batch, response: Response, cycles: int) -> str:
        """Names the command that did not complete."""
        done = len(_completions(response))
        if done == len(sent):
            return (
                f"the accelerator completed {describe(sent[-1][0])} without taking all of its payload: "
                "its Verilog is at fault, so run vrex regress"
            )
        return (
            f"no completion of {describe(sent[done][0])} after {cycles} cycles: "
            "its Verilog is at fault, so run vrex regress"
        )


def _completions(response: Response) -> list[Completion]:
    ends = response.completions
    return [
        Completion.unpack(ends[first : first + COMPLETION.size])
        for first in range(0, len(ends), COMPLETION.size)
    ]


def _split(completions: list[Completion], results: bytes, delivered: list[int], kv: bytes) -> Results:
    """Gives every command its bytes of both streams; those that a failed one left are dropped."""
    answers: Results = []
    first = first_kv = 0
    for completion, size in zip(completions, delivered, strict=True):
        good = Outcome(completion, results[first : first + completion.size], kv[first_kv : first_kv + size])
        first += completion.size
        first_kv += size
        answers.append(good if completion.status == Status.OK else Outcome(completion, b""))
    return answers
