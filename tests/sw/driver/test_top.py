"""Sequences dealt out to the cores of a chip, on golden cores."""

from dataclasses import replace

import numpy as np
import pytest

from tests.sw.driver.test_core import CONFIG, PROGRAM, adding, setting
from vrex.model.core.instructions import JOB_END, Engine, Function, Instruction, pack_program
from vrex.model.core.program import Address, CoreProgram, Pool
from vrex.model.core.program import Register as ProgramRegister
from vrex.model.core.registers import Register
from vrex.model.core.top import BUSY, ENABLE, IRQ, TopRegister, core_address
from vrex.model.lib.memory import PAGE, Memory, Window
from vrex.sw.driver.core import CoreSetting
from vrex.sw.driver.core_rtl import CheckedCoreTransport
from vrex.sw.driver.top import TopDriver
from vrex.sw.driver.top_golden import GoldenTopTransport
from vrex.sw.driver.transport import DriverError

CORES = 3
CHIP = replace(CONFIG, cores=CORES)
DEVICE = Window(8, 40)
DATA = 20 * PAGE


def settings(cores: int = CORES) -> list[CoreSetting]:
    rings = [(40 + 2 * core, 41 + 2 * core) for core in range(cores)]
    return [setting(jobs=jobs, ends=ends, sequences=8, device=DEVICE) for jobs, ends in rings]  # type: ignore[arg-type]


def driver() -> TopDriver:
    chip = TopDriver(GoldenTopTransport(CHIP, Memory(DEVICE, Window(0, 0))), settings())
    chip.memory.write(PROGRAM, pack_program(adding()))
    return chip


def test_sequences_go_round_the_cores_and_stay_in_order() -> None:
    chip = driver()
    for first in range(0, 24, 8):
        posted = [chip.post(PROGRAM, sequence=n, parameters=(n, first, 4 * n)) for n in range(8)]
        assert [job.core for job in posted] == [n % CORES for n in range(8)]
        # Collected in another order than they were posted in, those of a core in theirs.
        for job in sorted(posted, key=lambda job: -job.core):
            end = chip.collect(job)
            assert (end.tag, end.sequence) == (job.job.tag, job.job.sequence)
        found = [int.from_bytes(chip.memory.read(DATA + 4 * n, 4), "little") for n in range(8)]
        assert found == [n + first for n in range(8)]
    assert [engine.counters()["jobs"] for engine in chip.engines] == [9, 9, 6]
    assert chip.counters()["jobs"] == chip.traffic.jobs == chip.traffic.ends == 24
    assert chip.run(PROGRAM, sequence=5, parameters=(1, 1, 0)).sequence == 5


def test_a_core_that_is_not_enabled_takes_no_job() -> None:
    chip = driver()
    chip.enable(1, False)
    waiting = chip.post(PROGRAM, sequence=1, parameters=(1, 1, 0))
    chip.run(PROGRAM, sequence=2, parameters=(2, 2, 4))
    assert chip.engines[1].counters()["jobs"] == 0
    assert not chip.busy(1)
    with pytest.raises(DriverError, match="no core of the chip has a job to end"):
        chip.collect(waiting)
    chip.enable(1, True)
    assert chip.collect(waiting).sequence == 1


def meeting() -> list[Instruction]:
    """Writes register 0 to the place in register 1, meets another core, and adds the place in register 2."""
    p = CoreProgram(CHIP, Pool(30 * PAGE, PAGE), 3)
    mine, place, other = (ProgramRegister(n) for n in range(3))
    p.write(Address(DATA, bytes=place), mine)
    p.wait(Engine.RESULT)
    p.barrier(2)
    with p.registers(1) as [word]:
        p.read(word, Address(DATA, bytes=other))
        p.compute(Function.ADD, mine, mine, word)
    p.barrier(2)
    p.write(Address(DATA, bytes=place), mine)
    p.end()
    return p.assemble()


def test_cores_meet_and_who_waits_in_vain_is_stalled() -> None:
    chip = driver()
    chip.memory.write(PROGRAM, pack_program(meeting()))
    for first in (5, 50):
        posted = [
            chip.post(PROGRAM, parameters=(first + core, 4 * core, 4 * (1 - core)), core=core)
            for core in (1, 0)
        ]
        assert [job.core for job in posted] == [1, 0]
        for job in posted:
            chip.collect(job)
        words = np.frombuffer(chip.memory.read(DATA, 8), dtype="<u4").tolist()
        assert words == [2 * first + 1, 2 * first + 1]
    alone = chip.post(PROGRAM, parameters=(1, 0, 4), core=0)
    assert chip.busy(0)
    with pytest.raises(DriverError, match="waits at instruction 2 of its program for what never comes"):
        chip.collect(alone)
    # The third core has no neighbour.
    with pytest.raises(DriverError, match="waits at instruction 2"):
        chip.collect(chip.post(PROGRAM, parameters=(1, 0, 4), core=2))
    assert not chip.busy(0)


class Pretended(GoldenTopTransport):
    """A golden chip that pretends to be simulated Verilog, with a clock and perhaps a fault."""

    unit = "top"

    def __init__(self, fault: int | None) -> None:
        super().__init__(CHIP, Memory(DEVICE, Window(0, 0)))
        self._fault = fault

    def wait(self) -> None:
        super().wait()
        for core in range(CORES):
            # Cycles, which no golden core has.
            (bit,) = (low for low, field in JOB_END.places() if field.name == "cycles")
            self.memory.write(settings()[core].ends * PAGE + bit // 8, bytes([core + 1]))
        if self._fault is not None:
            self.memory.write(self._fault, b"\x55")


# No fault; one where nothing is written; one in a result, which the golden model must not repair by its own.
@pytest.mark.parametrize(("fault", "differ"), [(None, 0), (DATA + 3 * PAGE + 9, 1), (DATA, 1)])
def test_a_checked_chip_is_compared_when_all_its_cores_have_ended(fault: int | None, differ: int) -> None:
    device = Pretended(fault)
    checked = CheckedCoreTransport(device)
    chip = TopDriver(checked, settings())
    chip.memory.write(PROGRAM, pack_program(meeting()))
    posted = [
        chip.post(PROGRAM, parameters=(7 + core, 4 * core, 4 * (1 - core)), core=core) for core in (0, 1)
    ]
    checked.wait()
    for job in posted:
        chip.collect(job)
    assert checked.report.mismatches == differ
    assert checked.report.compared > DEVICE.pages
    # What differed is put right.
    for window in (DATA, DATA + 3 * PAGE):
        assert device.memory.read(window, PAGE) == checked.memory.read(window, PAGE)


def test_a_core_that_is_reset_loses_only_its_own() -> None:
    chip = driver()
    others = [chip.post(PROGRAM, sequence=n, parameters=(n, 0, 4 * n)) for n in (0, 2)]
    chip.enable(1, False)
    chip.post(PROGRAM, sequence=1)
    chip.engines[1].reset()
    chip.enable(1, True)
    for job in others:
        chip.collect(job)
    assert chip.run(PROGRAM, sequence=1, parameters=(7, 8, 0)).sequence == 1


def test_registers() -> None:
    chip = GoldenTopTransport(CHIP, Memory(DEVICE, Window(0, 0)))
    assert chip.read_register(TopRegister.CORES) == CORES | 1 << 16
    chip.write_register(ENABLE[0], 0xFFFF_FFFD)
    chip.write_register(ENABLE[1], 1)
    assert [chip.read_register(word) for word in (*ENABLE, *IRQ, *BUSY)] == [5, 0, 0, 0, 0, 0]
    chip.write_register(core_address(2, Register.BUDGET), 99)
    budgets = [chip.read_register(core_address(core, Register.BUDGET)) for core in range(CORES)]
    assert budgets == [0, 0, 99]
    for address in (TopRegister.ID, TopRegister.CORES, IRQ[0], BUSY[1]):
        with pytest.raises(DriverError, match="read-only"):
            chip.write_register(address, 0)
    with pytest.raises(DriverError, match="no register at 0xc"):
        chip.read_register(0x00C)
    with pytest.raises(DriverError, match="has 3 cores, so page 4"):
        chip.write_register(core_address(CORES), 0)


def test_what_is_no_such_chip() -> None:
    transport = GoldenTopTransport(CHIP, Memory(DEVICE, Window(0, 0)))
    transport.config = replace(CHIP, cores=2)
    with pytest.raises(DriverError, match="register CORES of the chip reads 0x10003 instead of 0x10002"):
        TopDriver(transport, settings(2))
    transport.config = CHIP
    with pytest.raises(ValueError, match="there are 3 cores and 2 settings"):
        TopDriver(transport, settings(2))
    same = [setting(sequences=8)] * CORES
    with pytest.raises(ValueError, match="pages of its own"):
        TopDriver(transport, same)
    with pytest.raises(ValueError, match="cores must be a multiple of ports"):
        GoldenTopTransport(replace(CHIP, ports=2), Memory(DEVICE, Window(0, 0)))
