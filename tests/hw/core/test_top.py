"""The Verilog of chips of several cores against golden ones: all cores at once, on one memory."""

import os
from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from tests.hw.core.test_core import LIMIT, MINI, RING_BITS, STALL
from vrex.hw.core.top import Top as TopVerilog
from vrex.hw.lib.axi.merge import AHEAD
from vrex.model.config import Config
from vrex.model.core.core import Job, JobEnd, Limits
from vrex.model.core.instructions import (
    JOB,
    JOB_END,
    Condition,
    Control,
    Instruction,
    Move,
    Opcode,
    Port,
    Status,
)
from vrex.model.core.registers import Register
from vrex.model.core.top import (
    BUSY,
    ENABLE,
    ID,
    IRQ,
    VERSION,
    Top,
    TopRegister,
    core_address,
    cores_word,
)
from vrex.model.lib.memory import PAGE, Memory, Window
from vrex.model.lxe.instructions import Instruction as LxeInstruction
from vrex.model.lxe.instructions import Opcode as LxeOpcode
from vrex.model.lxe.instructions import Operand
from vrex.sw.driver.core_rtl import RtlCoreTransport
from vrex.sw.driver.transport import DriverError
from vrex.tb.core.programs import (
    DATA_PAGE,
    DEVICE,
    HOST,
    PROGRAM_PAGE,
    ProgramStimuli,
    RandomJob,
    windows_of,
)

RING_PAGES = 2
"""Of a core: its jobs, its ends. Those of all cores lie before everything else."""


def chip(cores: int, ports: int = 1) -> Config:
    """A chip of small cores."""
    return replace(MINI, name=f"mini{cores}p{ports}", cores=cores, ports=ports)


@dataclass
class Chip:
    """A simulated chip, and a golden one that starts from the same memory."""

    config: Config
    seed: int
    stall: float = 0.0
    latency: int = 16
    broken: float = 0.0
    ends: Counter[Status] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        cores = self.config.cores
        first = DEVICE.base - RING_PAGES * cores
        device = Window(first, RING_PAGES * cores + cores * DEVICE.pages)
        host = Window(HOST.base, cores * HOST.pages)
        self.memory, self.golden_memory = Memory(device, host), Memory(device, host)
        self.limits = Limits(device=device, host=host, sequences=4)
        self.golden = Top(self.config, self.golden_memory, self.limits)
        self.golden.enable = [True] * cores
        self.rtl = RtlCoreTransport(
            self.config,
            self.memory,
            stall=self.stall,
            seed=self.seed,
            latency=self.latency,
            cycle_limit=LIMIT,
            unit="top",
        )
        if self.broken:
            self.rtl.inject_faults(self.broken, self.seed, PROGRAM_PAGE * PAGE)
        self.posted, self.enabled = [0] * cores, (1 << cores) - 1
        self.jobs: list[RandomJob | None] = [None] * cores
        self.rtl.write_register(ENABLE[0], self.enabled)
        for core in range(cores):
            self.start(core)

    def rings(self, core: int) -> tuple[int, int]:
        """Pages of a core's jobs and ends."""
        page = self.memory.device.base + RING_PAGES * core
        return page, page + 1

    def read(self, core: int, register: Register) -> int:
        """A core's register."""
        return self.rtl.read_register(core_address(core, register))

    def write(self, core: int, register: Register, value: int) -> None:
        """See `read`."""
        self.rtl.write_register(core_address(core, register), value)

    def start(self, core: int) -> None:
        """Sets a core's registers, whose rings are empty."""
        jobs, ends = self.rings(core)
        values = {
            Register.JOB_BASE: jobs,
            Register.JOB_SIZE: RING_BITS,
            Register.END_BASE: ends,
            Register.SEQUENCES: self.limits.sequences,
            Register.STALL: STALL,
            Register.DEVICE_BASE: self.limits.device.base,
            Register.DEVICE_PAGES: self.limits.device.pages,
            Register.HOST_BASE: self.limits.host.base,
            Register.HOST_PAGES: self.limits.host.pages,
            Register.IRQ_MASK: 1,
            Register.CONTROL: 1,
        }
        for register, value in values.items():
            self.write(core, register, value)
        self.posted[core] = 0

    def post(self, core: int, job: RandomJob) -> None:
        """Writes a job for a core that has none, and what it needs, and rings the bell."""
        for memory in (self.memory, self.golden_memory):
            job.fill(memory)
        place = self.posted[core] % (1 << RING_BITS)
        self.memory.write(self.rings(core)[0] * PAGE + place * JOB.size, job.job.pack())
        self.posted[core] += 1
        self.jobs[core] = job
        self.write(core, Register.JOB_TAIL, self.posted[core] & 0xFFFF)

    def raised(self) -> list[int]:
        """Cores whose interrupts are raised, after at least one is."""
        self.rtl.wait()
        bits = self.rtl.read_register(IRQ[0])
        return [core for core in range(self.config.cores) if bits >> core & 1]

    def end(self, core: int) -> JobEnd:
        """Reads the end of a core's job and compares it, and what the job has written, with the golden chip."""
        job = self.jobs[core]
        assert job is not None
        self.write(core, Register.IRQ, 3)
        place = (self.posted[core] - 1) % (1 << RING_BITS)
        got = JobEnd.unpack(
            self.memory.read(self.rings(core)[1] * PAGE + place * JOB_END.size, JOB_END.size)
        )
        self.write(core, Register.END_HEAD, self.posted[core] & 0xFFFF)
        self.golden.post(core, job.job)
        ((_, want),) = self.golden.work()
        self.ends[Status(got.status)] += 1
        if self.broken and got.status != Status.OK:
            assert (got.tag, got.sequence) == (want.tag, want.sequence)
            # The golden core must have lost its DRE's registers as well.
            self.golden.reset(core)
        else:
            # A failed job may have taken some more instructions meanwhile.
            taken = got.instructions if want.status else want.instructions
            assert replace(got, cycles=0) == replace(want, instructions=taken)
            assert want.status == Status.OK or want.status in job.faults
        self.jobs[core] = None
        self.compare(core, whole=got.status == Status.OK)
        return got

    def compare(self, core: int, *, whole: bool) -> None:
        """Compares what is a core's own, or only takes it over where the job has failed."""
        for window in windows_of(core):
            ours = self.memory.view(window.start, window.pages * PAGE)
            golden = self.golden_memory.view(window.start, window.pages * PAGE)
            if whole:
                wrong = np.flatnonzero(ours != golden)
                assert not len(wrong), f"at {wrong[:4] + window.start:}"
            golden[:] = ours

    def reset(self, core: int) -> None:
        """A soft reset of one core, whatever it does, from which it starts anew."""
        self.write(core, Register.CONTROL, 2)
        while self.read(core, Register.STATUS) & 3:
            pass
        assert self.read(core, Register.END_TAIL) == 0
        self.write(core, Register.IRQ, 3)
        self.golden.reset(core)
        self.jobs[core] = None
        self.compare(core, whole=False)
        self.start(core)

    def enable(self, core: int, on: bool) -> None:
        """Lets a core take jobs or not."""
        self.enabled = self.enabled & ~(1 << core) | on << core
        self.rtl.write_register(ENABLE[0], self.enabled)

    def moved(self, core: int) -> int:
        """Beats that a core has moved so far."""
        return self.read(core, Register.READ_BEATS) + self.read(core, Register.WRITE_BEATS)


def run_jobs(
    device: Chip, count: int, *, faulty: float = 0.25, resets: float = 0.0, pauses: float = 0.0
) -> None:
    """Random jobs, so many in all, on all cores at once; some cores are reset or disabled in work.

    The seed is printed with what fails.
    """
    rng = np.random.default_rng(device.seed)
    cores = device.config.cores
    stimuli = [ProgramStimuli(device.config, rng, core) for core in range(cores)]
    left, ended, paused = count, 0, dict[int, int]()
    try:
        while left or any(device.jobs) or paused:
            for core in range(cores):
                if device.jobs[core] is None and left:
                    device.post(core, stimuli[core].job(left & 0xFFFF, rng.random() < faulty))
                    left -= 1
            core = int(rng.integers(cores))
            if rng.random() < resets and core not in paused and device.jobs[core] is not None:
                device.rtl.work(int(rng.integers(1, 3000)))
                device.reset(core)
                ended += 1
                continue
            if rng.random() < pauses and core not in paused:
                device.enable(core, False)
                paused[core] = int(rng.integers(1, 5))
            # A paused core may hold the only job that is left.
            if any(job is not None for other, job in enumerate(device.jobs) if other not in paused):
                for core in device.raised():
                    device.end(core)
                    ended += 1
            paused = {core: times - 1 for core, times in paused.items()}
            for core in [core for core, times in paused.items() if times <= 0]:
                del paused[core]
                device.enable(core, True)
    except (AssertionError, DriverError) as error:
        raise AssertionError(f"seed {device.seed}, {left} jobs left: {error}") from error
    assert ended == count
    assert device.rtl.violations == 0
    assert np.array_equal(*(memory.view(*WHOLE(device)) for memory in (device.memory, device.golden_memory)))


def WHOLE(device: Chip) -> tuple[int, int]:  # noqa: N802
    """Address and bytes of everything but the rings, which the golden chip has none of."""
    start = DEVICE.start
    return start, device.memory.device.stop - start
