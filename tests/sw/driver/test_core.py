"""Jobs through rings and registers, on the golden core."""

from dataclasses import replace

import pytest

from vrex.errors import UserError
from vrex.model.commands import Opcode as DreOpcode
from vrex.model.commands import Status as EngineStatus
from vrex.model.config import preset
from vrex.model.core.core import JobEnd
from vrex.model.core.instructions import (
    Engine,
    Function,
    Instruction,
    Move,
    Opcode,
    Port,
    Status,
    pack_program,
)
from vrex.model.core.program import Address, CoreProgram, Pool, Register
from vrex.model.core.registers import Register as CoreRegister
from vrex.model.lib.memory import PAGE, Memory, Window
from vrex.model.lxe.instructions import Instruction as LxeInstruction
from vrex.sw.driver.backends import open_core
from vrex.sw.driver.core import CoreEngine, CoreSetting, complaint
from vrex.sw.driver.core_golden import GoldenCoreTransport
from vrex.sw.driver.transport import DriverError

CONFIG = preset("small")
DEVICE = Window(8, 32)
JOBS, ENDS, PROGRAM, DATA = 8, 9, 12 * PAGE, 20 * PAGE


def setting(**changes: int) -> CoreSetting:
    made = CoreSetting(
        jobs=JOBS, ends=ENDS, ring_bits=2, device=DEVICE, host=Window(0, 0), sequences=2, budget=1000
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def engine(**changes: int) -> CoreEngine:
    # Memory goes on behind the window, so that what leaves it can be seen.
    memory = Memory(Window(DEVICE.base, DEVICE.pages + 8), Window(0, 0))
    return CoreEngine(GoldenCoreTransport(CONFIG, memory), setting(**changes))


def put(core: CoreEngine, *instructions: Instruction) -> None:
    core.memory.write(PROGRAM, pack_program(instructions))


def program() -> CoreProgram:
    return CoreProgram(CONFIG, Pool(30 * PAGE, PAGE), 12)


def adding() -> list[Instruction]:
    """Writes register 0 + register 1 to the place in register 2."""
    p = program()
    p.compute(Function.ADD, Register(0), Register(0), Register(1))
    p.write(Address(DATA, bytes=Register(2)), Register(0))
    p.end()
    return p.assemble()


def test_jobs_go_round_the_rings() -> None:
    """Ten times as many as fit, one by one and as many at once as the ring holds."""
    core = engine()
    put(core, *adding())
    for n in range(40):
        end = core.run(PROGRAM, sequence=n % 2, parameters=(n, 100, 4 * n))
        assert (end.tag, end.sequence, end.index) == (n, n % 2, 2)
    for first in range(40, 60, 4):
        jobs = [core.post(PROGRAM, parameters=(n, 100, 4 * n)) for n in range(first, first + 4)]
        with pytest.raises(DriverError, match="ring of jobs is full"):
            core.post(PROGRAM)
        for job in jobs:
            core.collect(job)
    found = [int.from_bytes(core.memory.read(DATA + 4 * n, 4), "little") for n in range(60)]
    assert found == [n + 100 for n in range(60)]
    assert core.counters()["jobs"] == 60
    assert core.counters()["instructions"] == 180


def test_traffic_is_counted() -> None:
    core = engine()
    put(core, *adding())
    for _ in range(3):
        core.run(PROGRAM)
    # Doorbell, the number of ends, and how many were read.
    assert (core.traffic.registers, core.traffic.ring_bytes) == (9, 3 * 96)


def failing(status: Status) -> tuple[list[Instruction], int]:
    """A program that fails so, and its sequence."""
    p = program()
    sequence = 0
    match status:
        case Status.BAD_INSTRUCTION:
            return [Instruction(Opcode.MOVE, Move(source=Port.NONE, sink=Port.LXE, bytes=8))], 0
        case Status.BAD_SEQUENCE:
            sequence = 2
        case Status.BAD_ADDRESS:
            p.write(Address((DEVICE.base + DEVICE.pages) * PAGE), Register(0))
        case Status.LXE_FAILED:
            return [Instruction(Opcode.LXE, LxeInstruction(opcode=9))], 0
        case Status.DRE_FAILED:
            p.dre(DreOpcode.SETREG, count=200)
        case Status.BUDGET:
            p.branch(p.label())
        case Status.STALLED:
            p.move(Port.DRE, Port.NONE, bytes=8)
            p.wait(Engine.RESULT)
    p.end()
    return p.assemble(), sequence


SENTENCES = {
    Status.BAD_INSTRUCTION: "the core refused instruction 0 of its program of job 0",
    Status.BAD_SEQUENCE: "job 0 is for sequence 2, for which the core is not set up",
    Status.BAD_ADDRESS: "job 0 leaves the memory windows at instruction 0 of its program",
    Status.LXE_FAILED: "the LXE refused instruction 0 of its program of job 0 with status BAD_OPCODE",
    Status.DRE_FAILED: "the DRE could not execute instruction 0 of its program of job 0: it answered",
    Status.BUDGET: "took more instructions than its budget allows",
    Status.STALLED: "job 0 waits at instruction 1 of its program for what never comes",
}


@pytest.mark.parametrize("status", SENTENCES)
def test_a_job_that_fails_is_a_sentence_and_the_next_one_works(status: Status) -> None:
    core = engine()
    code, sequence = failing(status)
    put(core, *code)
    with pytest.raises(DriverError, match=SENTENCES[status]):
        core.run(PROGRAM, sequence=sequence)
    put(core, *adding())
    core.run(PROGRAM, parameters=(1, 2))
    assert core.memory.read(DATA, 4) == b"\3\0\0\0"


def test_a_bus_error_is_a_sentence() -> None:
    """The window reaches behind memory."""
    memory = Memory(DEVICE, Window(0, 0))
    core = CoreEngine(
        GoldenCoreTransport(CONFIG, memory), replace(setting(), device=Window(DEVICE.base, DEVICE.pages + 1))
    )
    p = program()
    p.write(Address((DEVICE.base + DEVICE.pages) * PAGE), Register(0))
    put(core, *p.assemble())
    with pytest.raises(DriverError, match="memory answered job 0 with a bus error at instruction 0"):
        core.run(PROGRAM)


def test_every_status_has_a_sentence() -> None:
    sentences = {complaint(JobEnd(status=status, tag=7)) for status in [*Status, 99] if status != Status.OK}
    assert len(sentences) == len(Status)
    assert all("job 7" in sentence for sentence in sentences)
    reasons = {
        complaint(JobEnd(status=Status.DRE_FAILED, detail=detail)).partition(": ")[2]
        for detail in EngineStatus
    }
    assert len(reasons) == len(EngineStatus)


def test_a_soft_reset_forgets_jobs_and_the_next_one_works() -> None:
    core = engine()
    put(core, *adding())
    core.post(PROGRAM)
    core.reset()
    core.run(PROGRAM, parameters=(1, 4))
    assert core.memory.read(DATA, 4) == b"\5\0\0\0"


def test_registers_refuse_what_they_do_not_take() -> None:
    transport = engine().transport
    for register in (CoreRegister.ID, CoreRegister.CYCLES, CoreRegister.JOB_BASE):
        with pytest.raises(DriverError, match=f"register {register.name} can't be written now"):
            transport.write_register(register, 1)
    with pytest.raises(DriverError, match="there is no register at 0xc"):
        transport.read_register(0xC)
    with pytest.raises(DriverError, match="no job to end"):
        transport.wait()


def test_another_core_is_refused() -> None:
    memory = Memory(DEVICE, Window(0, 0))
    transport = GoldenCoreTransport(CONFIG, memory)
    transport.config = preset("edge")
    with pytest.raises(DriverError, match=r"register CAPS reads .* this is no core of preset edge"):
        CoreEngine(transport, setting())


def test_no_other_backend() -> None:
    memory = Memory(DEVICE, Window(0, 0))
    with pytest.raises(UserError, match="unknown backend 'silicon'; choose golden or rtl"):
        open_core("silicon", CONFIG, False, memory)
    with pytest.raises(UserError, match="can't be checked against itself; choose the backend rtl"):
        open_core("golden", CONFIG, True, memory)
