"""An accelerator watched by the golden model."""

import base64
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vrex.model.commands import Completion, Descriptor, Opcode, Register, Status
from vrex.sw.driver.golden import GoldenTransport
from vrex.sw.driver.transport import Batch, DriverError, Results, Transport, TransportReport
from vrex.sw.errors import UserError
from vrex.sw.files import write_file

MAX_RECORDS = 16
"""Mismatches kept in full; the others are only counted."""


@dataclass(frozen=True)
class Mismatch:
    """A command whose outcome differs, with all it takes to repeat it.

    Attributes:
        registers: SETREG values that held, register number to value; those not named had reset values.
        command, payload: the command.
        expected, expected_result: the golden model's completion and result.
        actual, actual_result: the accelerator's.
    """

    registers: dict[int, int]
    command: Descriptor
    payload: bytes
    expected: Completion
    expected_result: bytes
    actual: Completion
    actual_result: bytes

    def replay(self, transport: Transport) -> tuple[Completion, bytes]:
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
            **{
                name: base64.b64encode(getattr(self, name)).decode()
                for name in ("payload", "expected_result", "actual_result")
            },
        }
        write_file(path, json.dumps(fields, indent=1).encode())

    @classmethod
    def load(cls, path: Path) -> "Mismatch":
        """Inverse of `save`.

        Raises:
            UserError: the file can't be read or is no such record.
        """
        try:
            fields = json.loads(path.read_text())
            return cls(
                registers={int(register): value for register, value in fields["registers"].items()},
                command=Descriptor(**fields["command"]),
                payload=base64.b64decode(fields["payload"]),
                expected=Completion(**fields["expected"]),
                expected_result=base64.b64decode(fields["expected_result"]),
                actual=Completion(**fields["actual"]),
                actual_result=base64.b64decode(fields["actual_result"]),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path} is no record of a mismatch ({error}); give a file that Mismatch.save wrote"
            ) from error


class CheckedTransport:
    """Runs every command on an accelerator and on the golden model and compares (see `Transport`).

    Where they differ the golden result is passed on, so that what follows stays comparable and one fault
    is counted once; the first mismatches are kept in full. Cycles come from the accelerator.

    Attributes:
        records: the first mismatches.
    """

    def __init__(self, device: Transport) -> None:
        self.config = device.config
        self.report: TransportReport = device.report
        self.records: list[Mismatch] = []
        self._device = device
        self._golden = GoldenTransport(device.config)
        self._registers: dict[int, int] = {}

    def submit(self, batch: Batch) -> Results:
        """Executes commands in order (see `Transport`)."""
        try:
            actual = self._device.submit(batch)
        except DriverError:
            # The accelerator was reset.
            self._golden.reset()
            self._registers.clear()
            raise
        expected = self._golden.submit(batch)
        return [
            self._compare(command, payload, golden, device)
            for (command, payload), golden, device in zip(batch, expected, actual, strict=True)
        ]

    def close(self) -> None:
        """Closes the accelerator."""
        self._device.close()

    def _compare(
        self,
        command: Descriptor,
        payload: bytes,
        expected: tuple[Completion, bytes],
        actual: tuple[Completion, bytes],
    ) -> tuple[Completion, bytes]:
        golden, device = expected[0], actual[0]
        if command.opcode == Opcode.GETREG and command.count >= Register.HCU_BUSY:
            # The model has no clock to count by.
            golden = dataclasses.replace(golden, detail=device.detail)
        golden = dataclasses.replace(golden, cycles=device.cycles)
        wanted, got = self._parts(command, golden, expected[1]), self._parts(command, golden, actual[1])
        self.report.compared += len(wanted)
        if golden != device or expected[1] != actual[1]:
            # A wrong completion around right results is still a mismatch.
            self.report.mismatches += max(1, _differing(wanted, got))
            if len(self.records) < MAX_RECORDS:
                record = Mismatch(
                    dict(self._registers), command, payload, golden, expected[1], device, actual[1]
                )
                self.records.append(record)
        if command.opcode == Opcode.SETREG and golden.status == Status.OK:
            self._registers[command.count] = command.param
        return golden, expected[1]

    def _parts(self, command: Descriptor, golden: Completion, result: bytes) -> np.ndarray:
        """A command's results, one row each: decisions of CLUSTER, bitmasks of SELECT."""
        raw = np.frombuffer(result, dtype=np.uint8)
        if golden.status != Status.OK:
            return np.zeros((0, 1), dtype=np.uint8)
        if command.opcode == Opcode.CLUSTER:
            rows, size = command.count, 4
        elif command.opcode == Opcode.SELECT:
            rows = command.kv_heads.bit_count()
            size = self.config.beats(command.clusters, 1) * self.config.bus_bytes
        else:
            rows, size = 0, 1
        padded = np.zeros(rows * size, dtype=np.uint8)
        padded[: min(len(raw), len(padded))] = raw[: len(padded)]
        return padded.reshape(rows, size)


def _differing(wanted: np.ndarray, got: np.ndarray) -> int:
    return int((wanted != got).any(axis=1).sum())
