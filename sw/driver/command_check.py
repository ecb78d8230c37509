"""The check of the command units against the golden model, with records of what differs."""

import base64
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vrex.errors import UserError
from vrex.files import write_file
from vrex.model.commands import CommandError, Completion, Descriptor, Opcode, Register, Status
from vrex.model.dre.kvstore import Table
from vrex.model.dre.token_store import TokenStore
from vrex.model.lib.memory import AccessError
from vrex.sw.driver.checked import CheckedTransport
from vrex.sw.driver.command_interface import (
    DELIVERING,
    UNITS,
    Batch,
    CommandReport,
    CommandTransport,
    Outcome,
    Results,
)
from vrex.text import from_json

MAX_RECORDS = 16
"""Mismatches kept in full; the others are only counted."""

BYTES = ("payload", "expected_result", "actual_result", "expected_memory", "actual_memory")
"""Fields of a `Mismatch` that hold bytes."""


APPENDING: dict[Opcode, type[Table | TokenStore]] = {Opcode.APPEND: Table, Opcode.STORE: TokenStore}
"""Commands that change memory, and what is at their address."""


@dataclass(frozen=True)
class Mismatch:
    """A command whose outcome differs, with everything needed to replay it.

    Attributes:
        registers: SETREG values that held, register number to value; those not named had reset values.
        command, payload: the command.
        expected, expected_result: the golden model's completion and result.
        actual, actual_result: the accelerator's.
        expected_memory, actual_memory: of a unit with a memory, which is not kept here as it was before the
            command: K and V that it delivered, or the table or store that its APPEND or STORE left behind.
    """

    registers: dict[int, int]
    command: Descriptor
    payload: bytes
    expected: Completion
    expected_result: bytes
    actual: Completion
    actual_result: bytes
    expected_memory: bytes = b""
    actual_memory: bytes = b""

    def replay(self, transport: CommandTransport) -> Outcome:
        """The command's outcome on another transport, after the same SETREGs."""
        batch: Batch = [
            (Descriptor(Opcode.SETREG, count=register, param=value), b"")
            for register, value in self.registers.items()
        ]
        return transport.submit([*batch, (self.command, self.payload)])[-1]

    def save(self, path: Path) -> None:
        """Writes a JSON file, whole or not at all."""
        fields = {
            "registers": self.registers,
            "command": dataclasses.asdict(self.command),
            "expected": dataclasses.asdict(self.expected),
            "actual": dataclasses.asdict(self.actual),
            **{name: base64.b64encode(getattr(self, name)).decode() for name in BYTES},
        }
        write_file(path, json.dumps(fields, indent=1).encode())

    @classmethod
    def load(cls, path: Path) -> "Mismatch":
        """Inverse of `save`.

        Raises:
            UserError: the file can't be read or is no such record.
        """
        try:
            fields = from_json(path.read_text())
            return cls(
                registers={int(register): value for register, value in fields["registers"].items()},
                command=Descriptor(**fields["command"]),
                expected=Completion(**fields["expected"]),
                actual=Completion(**fields["actual"]),
                **{name: base64.b64decode(fields[name]) for name in BYTES},
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path} is no record of a mismatch ({error}); give a file that Mismatch.save wrote"
            ) from error


class CheckedCommands(CheckedTransport[Batch, Results, CommandReport]):
    """A command unit watched by the golden model (see `CheckedTransport`).

    Attributes:
        records: the first mismatches, in full; the others are only counted.
    """

    def __init__(self, device: CommandTransport) -> None:
        """Watches an accelerator whose memory holds nothing but zeros yet."""
        super().__init__(device)
        self.records: list[Mismatch] = []
        self._registers: dict[int, int] = {}

    def _compare(self, sent: Batch, expected: Results, actual: Results) -> Results:
        results = [
            self._compare_command(command, payload, golden, device)
            for (command, payload), golden, device in zip(sent, expected, actual, strict=True)
        ]
        own = set(APPENDING) & set(UNITS[self.report.unit].values())
        last = {command.address: i for i, (command, _) in enumerate(sent) if command.opcode in own}
        for index in last.values():
            self._compare_memory(*sent[index], results[index])
        return results

    def _forget(self) -> None:
        self._registers.clear()

    def _compare_command(
        self, command: Descriptor, payload: bytes, expected: Outcome, actual: Outcome
    ) -> Outcome:
        golden = _comparable(command, expected.completion, actual.completion, self.report.resets == 0)
        wanted = self._parts(command, golden, expected.result)
        got = self._parts(command, golden, actual.result)
        delivers = command.opcode in DELIVERING and golden.status == Status.OK
        self.report.compared += len(wanted) + delivers
        if (golden, *expected[1:]) != actual:
            # A wrong completion around right results is still a mismatch.
            wrong = _differing(wanted, got) + (expected.kv != actual.kv)
            self._record(
                max(1, wrong),
                Mismatch(
                    dict(self._registers),
                    command,
                    payload,
                    golden,
                    expected.result,
                    actual.completion,
                    actual.result,
                    expected.kv,
                    actual.kv,
                ),
            )
        if command.opcode == Opcode.SETREG and golden.status == Status.OK:
            self._registers[command.count] = command.param
        return expected._replace(completion=golden)

    def _compare_memory(self, command: Descriptor, payload: bytes, golden: Outcome) -> None:
        """Compares what the commands of a batch have changed in memory, and corrects what differs."""
        ours, theirs = self.memory, self._device.memory
        if ours is None or theirs is None:
            return
        try:
            spans = APPENDING[Opcode(command.opcode)](self.config, ours, command.address).spans()
            wanted, got = (b"".join(memory.read(*span) for span in spans) for memory in (ours, theirs))
        except (CommandError, AccessError):
            # There is no table at the address, or one that leaves the windows.
            return
        self.report.compared += 1
        if wanted == got:
            return
        completion, result, _ = golden
        self._record(
            1,
            Mismatch(
                dict(self._registers), command, payload, completion, result, completion, result, wanted, got
            ),
        )
        for address, size in spans:
            theirs.write(address, ours.read(address, size))

    def _record(self, wrong: int, record: Mismatch) -> None:
        self.report.mismatches += wrong
        if len(self.records) < MAX_RECORDS:
            self.records.append(record)

    def _parts(self, command: Descriptor, golden: Completion, result: bytes) -> np.ndarray:
        """A command's results, one row each: decisions of a clustering, bitmasks of a selection."""
        raw = np.frombuffer(result, dtype=np.uint8)
        if golden.status != Status.OK:
            return np.zeros((0, 1), dtype=np.uint8)
        if command.opcode in (Opcode.CLUSTER, Opcode.APPEND):
            rows, size = command.count, 4
        elif command.opcode in (Opcode.SELECT, Opcode.RETRIEVE, Opcode.VOTE, Opcode.RECALL):
            # A store is one KV head's.
            rows = 1 if command.opcode == Opcode.RECALL else command.kv_heads.bit_count()
            size = self.config.beats(command.clusters, 1) * self.config.bus_bytes
        else:
            rows, size = 0, 1
        padded = np.zeros(rows * size, dtype=np.uint8)
        padded[: min(len(raw), len(padded))] = raw[: len(padded)]
        return padded.reshape(rows, size)


def _comparable(command: Descriptor, golden: Completion, device: Completion, counted: bool) -> Completion:
    """The golden completion with the accelerator's figures where the model has none.

    `counted`: the accelerator's counters have counted from the start.
    """
    golden = dataclasses.replace(golden, cycles=device.cycles)
    counter = command.opcode == Opcode.GETREG and command.count >= Register.HCU_BUSY
    # The model has no clock to count by, nor an order of what errors stop; and it does not begin anew.
    if counter and not (counted and command.count == Register.DEGENERATE_ROWS):
        return dataclasses.replace(golden, detail=device.detail)
    if command.opcode in DELIVERING and golden.status not in (Status.OK, Status.BAD_MASK):
        return dataclasses.replace(golden, detail=device.detail, size=device.size)
    return golden


def _differing(wanted: np.ndarray, got: np.ndarray) -> int:
    return int((wanted != got).any(axis=1).sum())
