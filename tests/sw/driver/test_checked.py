"""The check of a transport against the golden model, with faults planted in a second golden model."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vrex.errors import UserError
from vrex.model import commands
from vrex.model.commands import Completion, Descriptor, Opcode, Register
from vrex.model.config import Config, preset
from vrex.sw.driver import DriverError, open_transport
from vrex.sw.driver.command_check import MAX_RECORDS, CheckedCommands, Mismatch
from vrex.sw.driver.command_interface import Batch, CommandInterface, CommandReport, Outcome, Results
from vrex.sw.driver.golden import GoldenTransport

CONFIG = preset("tiny")
Fault = Callable[[Completion, bytes], tuple[Completion, bytes]]


class Faulty(GoldenTransport[Batch, Results, CommandReport]):
    """A golden model that a test can break."""

    def __init__(self, config: Config, fault: Fault | None = None) -> None:
        super().__init__(CommandInterface(config))
        self.fault = fault
        self.hang = False

    def submit(self, batch: Batch) -> Results:
        if self.hang:
            self.hang = False
            self.reset()
            raise DriverError("no completion")
        results = super().submit(batch)
        return [Outcome(*self.fault(*result[:2])) for result in results] if self.fault else results


def cluster_command(tokens: int = 5) -> tuple[Descriptor, bytes]:
    hashes = np.random.default_rng(1).integers(0, 1 << 32, (tokens + 9, 1), dtype=np.uint32)
    return commands.cluster_command(CONFIG, hashes[:tokens], hashes[tokens:], tag=4, layer=2)


def select_command(heads: int = 3) -> tuple[Descriptor, bytes]:
    scores = np.random.default_rng(2).integers(0x3C00, 0x4400, (heads, 4, 20)).astype(np.uint16)
    return commands.select_command(CONFIG, scores, np.arange(1, 21), tag=5)


def flip(bit: int) -> Fault:
    """Flips one bit of the result."""

    def fault(completion: Completion, result: bytes) -> tuple[Completion, bytes]:
        if not result:
            return completion, result
        value = int.from_bytes(result, "little") ^ 1 << bit
        return completion, value.to_bytes(len(result), "little")

    return fault


def test_equal_results_are_counted() -> None:
    checked = CheckedCommands(Faulty(CONFIG))
    checked.submit([cluster_command(5), select_command(3), cluster_command(7)])
    assert (checked.report.compared, checked.report.mismatches, checked.report.calls) == (15, 0, 3)
    assert checked.records == []


@pytest.mark.parametrize(("command", "compared"), [(cluster_command(), 5), (select_command(), 3)])
def test_one_flipped_bit_is_one_mismatch(command: tuple[Descriptor, bytes], compared: int) -> None:
    checked = CheckedCommands(Faulty(CONFIG, flip(1)))
    outcomes = checked.submit([command])
    assert (checked.report.compared, checked.report.mismatches) == (compared, 1)
    assert outcomes == GoldenTransport(CommandInterface(CONFIG)).submit([command])


@pytest.mark.parametrize("field", ["status", "size", "detail", "tag"])
def test_a_wrong_completion_is_a_mismatch(field: str) -> None:
    def fault(completion: Completion, result: bytes) -> tuple[Completion, bytes]:
        return dataclasses.replace(completion, **{field: getattr(completion, field) + 1}), result

    checked = CheckedCommands(Faulty(CONFIG, fault))
    checked.submit([cluster_command()])
    assert checked.report.mismatches == 1


def test_a_missing_result_is_a_mismatch_of_each_part() -> None:
    checked = CheckedCommands(Faulty(CONFIG, lambda completion, result: (completion, b"")))
    checked.submit([select_command(3)])
    assert (checked.report.compared, checked.report.mismatches) == (3, 3)


def test_cycles_are_the_devices_and_no_mismatch() -> None:
    checked = CheckedCommands(Faulty(CONFIG, lambda c, result: (dataclasses.replace(c, cycles=123), result)))
    [(completion, *_)] = checked.submit([cluster_command()])
    assert completion.cycles == 123
    assert checked.report.mismatches == 0


@pytest.mark.parametrize(("register", "mismatches"), [(Register.HCU_BUSY, 0), (Register.TH_HD, 1)])
def test_counters_are_not_compared_but_registers_are(register: Register, mismatches: int) -> None:
    checked = CheckedCommands(Faulty(CONFIG, lambda c, result: (dataclasses.replace(c, detail=99), result)))
    [(completion, *_)] = checked.submit([(Descriptor(Opcode.GETREG, count=register), b"")])
    assert checked.report.mismatches == mismatches
    assert (completion.detail == 99) == (mismatches == 0)


def test_a_record_replays_with_its_registers(tmp_path: Path) -> None:
    checked = CheckedCommands(Faulty(CONFIG, flip(2)))
    checked.submit([(Descriptor(Opcode.SETREG, count=Register.TH_HD, param=20), b""), cluster_command()])
    [record] = checked.records
    record.save(tmp_path / "mismatch.json")
    loaded = Mismatch.load(tmp_path / "mismatch.json")
    assert loaded == record
    assert loaded.replay(GoldenTransport(CommandInterface(CONFIG)))[:2] == (
        loaded.expected,
        loaded.expected_result,
    )
    assert loaded.replay(Faulty(CONFIG, flip(2)))[:2] == (loaded.actual, loaded.actual_result)
    assert [path.name for path in tmp_path.iterdir()] == ["mismatch.json"]


def test_records_are_limited_but_counting_is_not() -> None:
    checked = CheckedCommands(Faulty(CONFIG, flip(0)))
    for _ in range(MAX_RECORDS + 4):
        checked.submit([cluster_command()])
    assert len(checked.records) == MAX_RECORDS
    assert checked.report.mismatches == MAX_RECORDS + 4


@pytest.mark.parametrize("text", ["", "{}", '{"registers": 3}'])
def test_a_file_that_is_no_record(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(UserError, match="no record of a mismatch"):
        Mismatch.load(path)


def test_a_time_out_resets_the_golden_model_too() -> None:
    device = Faulty(CONFIG)
    checked = CheckedCommands(device)
    checked.submit([(Descriptor(Opcode.SETREG, count=Register.TH_HD, param=0), b"")])
    device.hang = True
    with pytest.raises(DriverError):
        checked.submit([cluster_command()])
    checked.submit([cluster_command(), (Descriptor(Opcode.GETREG, count=Register.TH_HD), b"")])
    assert checked.report.mismatches == 0


def test_open_transport_names_the_choices() -> None:
    with pytest.raises(UserError, match="unknown backend 'fpga'; choose golden or rtl"):
        open_transport("fpga", CONFIG)
    with pytest.raises(UserError, match="checked against itself"):
        open_transport("golden", CONFIG, check=True)
    assert isinstance(open_transport("golden", CONFIG), GoldenTransport)
