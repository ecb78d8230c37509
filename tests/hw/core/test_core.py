"""The core's Verilog against the golden core: random jobs, faults, resets, the bus."""

import os
from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from vrex.model.config import (
    Config,
    preset,
)
from vrex.model.core.core import Core, Job, JobEnd
from vrex.model.core.instructions import (
    JOB,
    JOB_END,
    PATCHES,
    Control,
    Engine,
    Instruction,
    Mode,
    Move,
    Opcode,
    Patch,
    Port,
    Status,
    pack_program,
)
from vrex.model.core.registers import ID, VERSION, Register, caps
from vrex.model.lib.memory import PAGE, Memory, Window
from vrex.model.lxe.instructions import Instruction as LxeInstruction
from vrex.model.lxe.instructions import Opcode as LxeOpcode
from vrex.model.lxe.instructions import Operand
from vrex.sw.driver.core_rtl import RtlCoreTransport
from vrex.sw.driver.transport import DriverError
from vrex.tb.configs import CONFIGS, SMALLEST_CORE
from vrex.tb.core.programs import (
    DATA_PAGE,
    DEVICE,
    ENDS_PAGE,
    HOST,
    JOBS_PAGE,
    LIMITS,
    PROGRAM_PAGE,
    ProgramStimuli,
    RandomJob,
)

MINI = CONFIGS[SMALLEST_CORE]

ADDRESS_WORD = 5
"""Of an instruction of control."""

RING_BITS = 2
STALL = 20_000
LIMIT = 3_000_000
WORK = (Window(PROGRAM_PAGE, DEVICE.base + DEVICE.pages - PROGRAM_PAGE), HOST)
"""Memory without the rings."""


@dataclass
class Device:
    """A simulated core, its rings, and a golden core that starts from the same memory."""

    config: Config
    seed: int
    stall: float = 0.0
    latency: int = 16
    ends: Counter[Status] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.memory, self.golden_memory = Memory(DEVICE, HOST), Memory(DEVICE, HOST)
        self.golden = Core(self.config, self.golden_memory, LIMITS)
        self.rtl = RtlCoreTransport(
            self.config,
            self.memory,
            stall=self.stall,
            seed=self.seed,
            latency=self.latency,
            cycle_limit=LIMIT,
        )
        self.jobs = 0
        self.enable()

    def enable(self) -> None:
        """Sets the registers; the rings go on where they are."""
        values = {
            Register.JOB_BASE: JOBS_PAGE,
            Register.JOB_SIZE: RING_BITS,
            Register.END_BASE: ENDS_PAGE,
            Register.SEQUENCES: LIMITS.sequences,
            Register.BUDGET: LIMITS.budget,
            Register.STALL: STALL,
            Register.TIMEOUT: 0,
            Register.DEVICE_BASE: DEVICE.base,
            Register.DEVICE_PAGES: DEVICE.pages,
            Register.HOST_BASE: HOST.base,
            Register.HOST_PAGES: HOST.pages,
            Register.IRQ_MASK: 1,
            Register.CONTROL: 1,
        }
        for register, value in values.items():
            self.rtl.write_register(register, value)

    def post(self, job: Job) -> int:
        """Writes a job and rings the bell; returns its place in the rings."""
        place = self.jobs % (1 << RING_BITS)
        self.memory.write(JOBS_PAGE * PAGE + place * JOB.size, job.pack())
        self.jobs += 1
        self.rtl.write_register(Register.JOB_TAIL, self.jobs & 0xFFFF)
        return place

    def end(self, place: int) -> JobEnd:
        """Waits for an interrupt and reads the end in that place."""
        self.rtl.wait()
        self.rtl.write_register(Register.IRQ, 3)
        data = self.memory.read(ENDS_PAGE * PAGE + place * JOB_END.size, JOB_END.size)
        self.rtl.write_register(Register.END_HEAD, self.jobs & 0xFFFF)
        return JobEnd.unpack(data)

    def run(self, job: RandomJob, *, broken: bool = False) -> JobEnd:
        """Runs a job on both and compares: its end, and what it has written unless it failed.

        With `broken` memory may fail, so the job may, and only one that did not is compared.
        """
        for memory in (self.memory, self.golden_memory):
            job.fill(memory)
        got = self.end(self.post(job.job))
        self.ends[Status(got.status)] += 1
        want = self.golden.run(job.job)
        if broken and got.status != Status.OK:
            assert (got.tag, got.sequence) == (want.tag, want.sequence)
            # The golden core must have lost its DRE's registers as well.
            self.golden = Core(self.config, self.golden_memory, LIMITS)
        else:
            # A failed job may have taken some more instructions meanwhile.
            taken = got.instructions if want.status else want.instructions
            assert replace(got, cycles=0) == replace(want, instructions=taken)
            assert want.status == Status.OK or want.status in job.faults
            assert got.cycles > 0
        for window in WORK:
            ours = self.memory.view(window.start, window.pages * PAGE)
            golden = self.golden_memory.view(window.start, window.pages * PAGE)
            if got.status == Status.OK:
                assert np.array_equal(ours, golden), f"at {np.flatnonzero(ours != golden)[:4] + window.start}"
            ours[:] = golden
        return got


def run_jobs(device: Device, count: int, *, faulty: float, broken: float = 0.0) -> None:
    """Random jobs; the seed is printed with what fails."""
    rng = np.random.default_rng(device.seed)
    stimuli = ProgramStimuli(device.config, rng)
    if broken:
        device.rtl.inject_faults(broken, device.seed, PROGRAM_PAGE * PAGE)
    for tag in range(count):
        job = stimuli.job(tag & 0xFFFF, rng.random() < faulty)
        try:
            device.run(job, broken=broken > 0)
        except (AssertionError, DriverError) as error:
            raise AssertionError(f"seed {device.seed}, job {tag}: {error}") from error
    assert device.rtl.violations == 0
    assert device.rtl.read_register(Register.JOB_HEAD) == count & 0xFFFF
    assert device.rtl.read_register(Register.END_TAIL) == count & 0xFFFF


@pytest.mark.parametrize(("seed", "stall"), [(1, 0.0), (2, 0.3)])
def test_random_jobs_end_as_in_the_golden_core(seed: int, stall: float) -> None:
    device = Device(MINI, seed, stall)
    run_jobs(device, 40, faulty=0.25)
    assert device.ends[Status.OK] > 20
    assert len(device.ends) > 2


def test_no_job_is_lost_where_memory_fails() -> None:
    device = Device(MINI, 3, 0.2)
    run_jobs(device, 40, faulty=0.1, broken=0.01)
    assert device.ends[Status.OK] > 5
    assert device.ends[Status.BUS_ERROR] + device.ends[Status.DRE_FAILED] > 3


@pytest.mark.slow
@pytest.mark.timeout(6 * 3600)
@pytest.mark.parametrize("name", ["mini", "small"])
def test_ten_thousand_random_jobs(name: str) -> None:
    """`VREX_JOBS` sets how many, `VREX_SEED` the first seed."""
    count, seed = int(os.environ.get("VREX_JOBS", "10000")), int(os.environ.get("VREX_SEED", "100"))
    config = MINI if name == "mini" else preset(name)
    rng = np.random.default_rng(seed)
    for part in range(max(1, count // 200)):
        stall, latency = float(rng.choice([0, 0.1, 0.5])), int(rng.integers(0, 100))
        device = Device(config, seed + part, stall, latency)
        run_jobs(device, min(count, 200), faulty=0.2, broken=float(rng.choice([0, 0.01])))
        print(f"seed {seed + part}: {dict(device.ends)}")
        device.rtl.close()


def simple(*instructions: Instruction, tag: int = 0, sequence: int = 0) -> RandomJob:
    """A job of these instructions and END."""
    job = Job(program=PROGRAM_PAGE * PAGE, tag=tag, sequence=sequence)
    return RandomJob(job, [*instructions, Instruction(Opcode.END)], faults=set(Status))


def test_registers_say_what_it_is_and_count() -> None:
    device = Device(MINI, 4)
    for register, value in {Register.ID: ID, Register.VERSION: VERSION, Register.CAPS: caps(MINI)}.items():
        assert device.rtl.read_register(register) == value
    end = device.run(simple(tag=9))
    assert end.instructions == 1
    assert device.rtl.read_register(Register.JOBS) == 1
    assert device.rtl.read_register(Register.INSTRUCTIONS) == 1
    assert end.cycles <= device.rtl.read_register(Register.CYCLES)
    # The base of a ring is closed while the core is enabled.
    with pytest.raises(DriverError):
        device.rtl.write_register(Register.JOB_BASE, 0)


def test_a_sequence_that_there_is_not_and_a_budget() -> None:
    device = Device(MINI, 5)
    assert device.run(simple(sequence=LIMITS.sequences)).status == Status.BAD_SEQUENCE
    device.rtl.write_register(Register.CONTROL, 0)
    device.rtl.write_register(Register.BUDGET, 100)
    device.rtl.write_register(Register.CONTROL, 1)
    device.golden.limits = replace(LIMITS, budget=100)
    for_ever = Instruction(Opcode.BRANCH, Control(immediate=0))
    end = device.run(simple(for_ever))
    assert (end.status, end.instructions, end.index) == (Status.BUDGET, 101, 0)
    assert device.run(simple()).status == Status.OK


@pytest.mark.parametrize("before", range(PATCHES))
def test_a_patch_that_is_refused_leaves_the_next_jobs_patches_alone(before: int) -> None:
    """The sequencer counts patches, and the count must begin anew."""
    device = Device(MINI, 6)
    good, bad = Patch(ADDRESS_WORD, Mode.BYTES, 0), Patch(0, Mode.WORD, 0)
    write = Control(address=DATA_PAGE * PAGE)
    refused = simple(Instruction(Opcode.WRITE, write, (*[good] * before, bad)))
    assert device.run(refused).status == Status.BAD_INSTRUCTION
    # The value lies where the first patch puts it.
    job = simple(Instruction(Opcode.WRITE, write, (good,)))
    job = replace(job, job=replace(job.job, parameters=(64,)))
    assert device.run(job).status == Status.OK
    assert device.memory.read(DATA_PAGE * PAGE + 64, 4) == (64).to_bytes(4, "little")


def test_rings_wrap_and_ends_wait_for_room() -> None:
    device = Device(MINI, 6)
    program = [Instruction(Opcode.END)]
    device.memory.write(PROGRAM_PAGE * PAGE, pack_program(program))
    for tag in range(1 << RING_BITS):
        device.post(Job(program=PROGRAM_PAGE * PAGE, tag=tag))
    device.rtl.wait()
    while device.rtl.read_register(Register.END_TAIL) < 1 << RING_BITS:
        pass
    # All ends wait for the host, so the next job does too.
    device.post(Job(program=PROGRAM_PAGE * PAGE, tag=99))
    for _ in range(50):
        assert device.rtl.read_register(Register.END_TAIL) == 1 << RING_BITS
    assert device.rtl.read_register(Register.STATUS) & 4
    ends = device.memory.read(ENDS_PAGE * PAGE, JOB_END.size << RING_BITS)
    tags = [JobEnd.unpack(ends[at : at + JOB_END.size]).tag for at in range(0, len(ends), JOB_END.size)]
    assert tags == list(range(1 << RING_BITS))
    device.rtl.write_register(Register.IRQ, 3)
    device.rtl.write_register(Register.END_HEAD, 1)
    device.rtl.wait()
    assert device.rtl.read_register(Register.END_TAIL) == 1 + (1 << RING_BITS)
    assert JobEnd.unpack(device.memory.read(ENDS_PAGE * PAGE, JOB_END.size)).tag == 99


def test_a_bell_while_disabled_waits() -> None:
    device = Device(MINI, 7)
    device.rtl.write_register(Register.CONTROL, 0)
    job = simple(tag=5)
    job.fill(device.memory)
    place = device.post(job.job)
    for _ in range(50):
        assert device.rtl.read_register(Register.JOB_HEAD) == 0
    device.rtl.write_register(Register.CONTROL, 1)
    assert device.end(place).tag == 5


@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_a_soft_reset_in_work_leaves_a_core_that_works(stall: float) -> None:
    device = Device(MINI, 8, stall)
    rng = np.random.default_rng(8)
    stimuli = ProgramStimuli(MINI, rng)
    for _ in range(6):
        job = stimuli.job(1, faulty=False)
        job.fill(device.memory)
        device.post(job.job)
        # Accesses to registers are what lets the core go on.
        for _ in range(int(rng.integers(1, 60))):
            device.rtl.read_register(Register.ID)
        device.rtl.write_register(Register.CONTROL, 2)
        for _ in range(1000):
            if device.rtl.read_register(Register.STATUS) & 3 == 0:
                break
        assert device.rtl.read_register(Register.JOB_HEAD) == 0
        assert device.rtl.read_register(Register.END_TAIL) == 0
        device.rtl.write_register(Register.IRQ, 3)
        for window in WORK:
            ours = device.memory.view(window.start, window.pages * PAGE)
            device.golden_memory.view(window.start, window.pages * PAGE)[:] = ours
        device.golden = Core(MINI, device.golden_memory, LIMITS)
        device.jobs = 0
        device.enable()
        device.run(stimuli.job(2, faulty=False))
        device.jobs = 1
    assert device.rtl.violations == 0


def test_what_waits_for_nothing_is_stalled_and_the_next_job_works() -> None:
    device = Device(MINI, 9)
    lines = Instruction(Opcode.LXE, LxeInstruction(opcode=LxeOpcode.LOAD, length=4, beats=1))
    assert device.run(simple(lines, Instruction(Opcode.WAIT, Control(immediate=63)))).status == Status.STALLED
    assert device.run(simple()).status == Status.OK


@pytest.mark.parametrize("spins", [0, 1, 2, 3])
def test_a_product_that_is_reset_in_the_middle_of_a_chunk_leaves_nothing_behind(spins: int) -> None:
    """The trees count the beats of a chunk by themselves, so what ends a job must reset them too."""
    device = Device(MINI, 10 + spins)
    stimuli = ProgramStimuli(MINI, np.random.default_rng(spins))
    lines, rows, columns = 64 // MINI.dpe.inputs, MINI.dpe.rows, 200
    load = LxeInstruction(
        opcode=LxeOpcode.LOAD, rows=columns, length=64, beats=columns * lines, o=Operand(0, lines)
    )
    size = load.beats * MINI.dpe.beat_bytes
    moves = Move(source=Port.MEMORY, sink=Port.LXE, bytes=size, address=DATA_PAGE * PAGE)
    # From memory of its own, so that the bus is quiet long before the product has ended.
    product = LxeInstruction(
        opcode=LxeOpcode.GEMM,
        resident=True,
        rows=rows,
        inner=64,
        length=columns,
        a=Operand(0, lines),
        b=Operand(0, lines),
        o=Operand(4000, columns // MINI.dpe.inputs),
    )
    job = simple(
        Instruction(Opcode.MOVE, moves),
        Instruction(Opcode.LXE, load),
        Instruction(Opcode.LXE, product),
        Instruction(Opcode.WAIT, Control(immediate=Engine.LOAD)),
        *[Instruction(Opcode.COMPUTE, Control())] * spins,
        Instruction(0xAB),
    )
    assert device.run(job).status == Status.BAD_INSTRUCTION
    assert device.run(stimuli.product_job()).status == Status.OK
