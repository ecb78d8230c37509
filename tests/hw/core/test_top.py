"""The Verilog of chips of several cores against golden ones: all cores at once, on one memory."""

import os
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from amaranth.sim import Simulator

from tests.hw.core.test_core import LIMIT, MINI, RING_BITS, STALL
from vrex.hw.core.top import Barrier
from vrex.hw.core.top import Top as TopVerilog
from vrex.model.config import Config, DpeConfig, HcuConfig, KvmuConfig, MeanConfig, WtuConfig
from vrex.model.core.core import Job, JobEnd, Limits
from vrex.model.core.instructions import (
    JOB,
    JOB_END,
    Condition,
    Control,
    Engine,
    Function,
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
    complete,
    core_address,
    cores_word,
    port_of,
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

UNTAKEN, UNWRITTEN = 4, 3
"""Most cycles in a row in which a port's answer waits for its core, and memory for a core's beats."""


MICRO = replace(
    MINI,
    name="micro",
    hcu=HcuConfig(lanes=1, chunk_tokens=16, tile_clusters=16),
    wtu=WtuConfig(lanes=1, row_clusters=64, mask_clusters=128, buckets=2),
    kvmu=KvmuConfig(head_dim=16, kv_heads=2, outstanding=2, burst_beats=8),
    mean=MeanConfig(lanes=1),
    dpe=DpeConfig(trees=2, inputs=4, rows=16),
)
"""An even smaller core, which is built in half the time."""


def chip(cores: int, ports: int = 1) -> Config:
    """A chip of small cores."""
    return replace(MICRO, name=f"micro{cores}p{ports}", cores=cores, ports=ports)


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
            functions=True,
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
        """Reads the end of a core's job; compares it, and what the job has written, with the golden chip."""
        job = self.jobs[core]
        assert job is not None
        self.write(core, Register.IRQ, 3)
        place = (self.posted[core] - 1) % (1 << RING_BITS)
        got = JobEnd.unpack(self.memory.read(self.rings(core)[1] * PAGE + place * JOB_END.size, JOB_END.size))
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
    # Everything but the rings, which the golden chip has none of.
    start, size = DEVICE.start, device.memory.device.stop - DEVICE.start
    ours, golden = (memory.view(start, size) for memory in (device.memory, device.golden_memory))
    assert np.array_equal(ours, golden)
    # A core takes its answers at once, and its beats are there when a port wants them.
    assert device.rtl.longest_wait(writes=False) <= UNTAKEN
    assert device.rtl.longest_wait(writes=True) <= UNWRITTEN


@pytest.mark.parametrize(("stall", "broken", "right"), [(0.0, 0.0, 10), (0.3, 0.01, 3)])
def test_random_jobs_on_two_cores_end_as_in_the_golden_chip(stall: float, broken: float, right: int) -> None:
    device = Chip(chip(2), 1, stall, broken=broken)
    run_jobs(device, 40, resets=0.03, pauses=0.05)
    assert device.ends[Status.OK] > right
    assert len(device.ends) > 2


@pytest.mark.slow
@pytest.mark.timeout(6 * 3600)
@pytest.mark.parametrize(("cores", "ports"), [(2, 1), (4, 1), (4, 2)])
def test_thousands_of_random_jobs(cores: int, ports: int) -> None:
    """`VREX_JOBS` sets how many, `VREX_SEED` the first seed."""
    count, seed = int(os.environ.get("VREX_JOBS", "2000")), int(os.environ.get("VREX_SEED", "100"))
    rng = np.random.default_rng(seed)
    for part in range(max(1, count // 200)):
        stall, latency = float(rng.choice([0, 0.1, 0.5])), int(rng.integers(0, 100))
        device = Chip(chip(cores, ports), seed + part, stall, latency, broken=float(rng.choice([0, 0.01])))
        run_jobs(device, min(count, 200), faulty=0.2, resets=0.02, pauses=0.05)
        waits = [device.rtl.longest_wait(writes=writes) for writes in (False, True)]
        print(f"seed {seed + part}: {dict(device.ends)}, {device.rtl.cycles} cycles, waits {waits}")
        device.rtl.close()


def simple(core: int, *instructions: Instruction, tag: int = 0) -> RandomJob:
    """A job of these instructions and END."""
    program = windows_of(core)[0].start + PROGRAM_PAGE * PAGE - DEVICE.start
    return RandomJob(Job(program=program, tag=tag), [*instructions, Instruction(Opcode.END)])


def streaming(core: int) -> RandomJob:
    """A job that reads rows into the LXE for ever."""
    lines, rows = 16, 256
    size = rows * lines * MICRO.dpe.beat_bytes
    address = windows_of(core)[0].start + DATA_PAGE * PAGE - DEVICE.start
    move = Move(source=Port.MEMORY, sink=Port.LXE, bytes=2048, pitch=2048, rows=size // 2048, address=address)
    load = LxeInstruction(
        opcode=LxeOpcode.LOAD,
        rows=rows,
        length=lines * MICRO.dpe.inputs,
        beats=rows * lines,
        o=Operand(0, lines),
    )
    return simple(
        core,
        Instruction(Opcode.MOVE, move),
        Instruction(Opcode.LXE, load),
        Instruction(Opcode.BRANCH, Control(function=Condition.ALWAYS, immediate=0)),
    )


def shares(device: Chip, cycles: int = 20_000) -> list[float]:
    """Share of the cycles in which a beat of each core moves."""
    device.rtl.work(2000)
    before = [(device.moved(core), device.rtl.cycles) for core in range(device.config.cores)]
    device.rtl.work(cycles)
    after = [(device.moved(core), device.rtl.cycles) for core in range(device.config.cores)]
    return [(a[0] - b[0]) / (a[1] - b[1]) for a, b in zip(after, before, strict=True)]


def test_cores_that_all_want_the_port_get_the_same() -> None:
    device = Chip(chip(2), 2, latency=0)
    for core in range(2):
        device.post(core, streaming(core))
    found = shares(device)
    assert sum(found) > 0.98
    assert found == pytest.approx([0.5, 0.5], abs=0.01)
    # One by itself gets what it can take: it reads no more lines ahead than it has room for.
    device.reset(1)
    (alone, nothing) = shares(device)
    assert nothing == 0
    assert alone > 0.7


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("cores", "ports"), [(4, 1), (4, 2)])
def test_shares_of_four(cores: int, ports: int) -> None:
    device = Chip(chip(cores, ports), 3, latency=0)
    alone = 1.0
    for wanting in range(1, cores + 1):
        device.post(wanting - 1, streaming(wanting - 1))
        found = shares(device)
        print(f"{cores} cores, {ports} ports, {wanting} want: {[round(share, 3) for share in found]}")
        alone = found[0] if wanting == 1 else alone
        at = Counter(port_of(core, ports) for core in range(wanting))
        for core, share in enumerate(found):
            wanted = min(alone, 1 / at[port_of(core, ports)]) if core < wanting else 0
            assert share == pytest.approx(wanted, abs=0.02)
    assert alone > 0.7


def test_a_core_that_is_not_enabled_ends_its_job_and_is_quiet() -> None:
    device = Chip(chip(2), 4)
    rng = np.random.default_rng(4)
    stimuli = ProgramStimuli(device.config, rng, 0)
    device.post(1, streaming(1))
    device.post(0, stimuli.job(7, faulty=False))
    while not device.rtl.read_register(BUSY[0]) & 1:
        pass
    device.enable(0, False)
    assert device.raised() == [0]
    assert device.end(0).tag == 7
    device.post(0, stimuli.job(8, faulty=False))
    moved, other = device.moved(0), device.moved(1)
    device.rtl.work(5000)
    assert device.rtl.read_register(BUSY[0]) == 0b10
    assert device.read(0, Register.JOB_HEAD) == 1
    assert device.moved(0) == moved
    assert device.moved(1) > other + 2000
    device.enable(0, True)
    assert device.raised() == [0]
    assert device.end(0).tag == 8


@pytest.mark.parametrize("cores", [4, 6])
def test_a_barrier_lets_complete_groups_go(cores: int) -> None:
    """Whoever waits for whom: those go that the golden chip lets go, and a group knows what moves in it."""
    unit, rng = Barrier(replace(MICRO, cores=cores)), np.random.default_rng(cores)
    states = (
        [*product((0, 2, 4), repeat=4)] if cores == 4 else rng.choice([0, 2, 4, 8], (300, cores)).tolist()
    )

    async def bench(ctx: Any) -> None:
        for waits in states:
            progress = int(rng.integers(1 << cores))
            ctx.set(unit.barrier, sum((size > 0) << core for core, size in enumerate(waits)))
            ctx.set(unit.progress, progress)
            for core, size in enumerate(waits):
                # Of one that does not wait it does not matter.
                ctx.set(unit.cores[core], int(size or rng.choice([0, 1, 2, 4])))
            await ctx.tick()
            met = {first + k for first in complete(list(waits)) for k in range(waits[first])}
            assert ctx.get(unit.met) == sum(1 << core for core in met)
            for core, size in enumerate(waits):
                first = core // size * size if size else 0
                group = range(first, first + size) if first + size <= cores else ()
                moved = any(progress >> other & 1 for other in group)
                assert ctx.get(unit.others) >> core & 1 == moved

    simulator = Simulator(unit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


def exchange(device: Chip, core: int, cores: int, rng: np.random.Generator, rounds: int = 6) -> RandomJob:
    """Writes a word, meets the others of a group, and adds what the next one has written; so many times.

    Between these the core works for a time of its own. Words lie at the first core's data.
    """
    first = core // cores * cores
    other = first + (core - first + 1) % cores
    code = [Instruction(Opcode.COMPUTE, Control(immediate=core + 1, function=Function.COPY))]
    for number in range(rounds):
        at = DATA_PAGE * PAGE + 1024 * (number % 2)
        wait = Control(destination=1, immediate=int(rng.integers(1, 60)), function=Function.COPY)
        code += [Instruction(Opcode.COMPUTE, wait)]
        code += [
            Instruction(Opcode.COMPUTE, Control(destination=1, a=1, immediate=1, function=Function.SUB)),
            Instruction(Opcode.BRANCH, Control(a=1, function=Condition.NONZERO, immediate=len(code))),
            Instruction(Opcode.WRITE, Control(a=0, address=at + 4 * core)),
            Instruction(Opcode.WAIT, Control(immediate=Engine.RESULT)),
            Instruction(Opcode.BARRIER, Control(immediate=cores)),
            Instruction(Opcode.READ, Control(destination=2, address=at + 4 * other)),
            Instruction(Opcode.COMPUTE, Control(a=0, b=2, use_b=True, function=Function.ADD)),
        ]
    return simple(
        core,
        *code,
        Instruction(Opcode.BARRIER, Control(immediate=cores)),
        Instruction(Opcode.WRITE, Control(a=0, address=DATA_PAGE * PAGE + 4 * core)),
        tag=core,
    )


def sums(cores: int, group: int, rounds: int = 6) -> list[int]:
    """What each core has in the end."""
    values = [core + 1 for core in range(cores)]
    for _ in range(rounds):
        values = [
            value + values[core // group * group + (core + 1) % group] for core, value in enumerate(values)
        ]
    return values


@pytest.mark.parametrize("stall", [0.0, 0.3])
def test_cores_meet_at_barriers(stall: float) -> None:
    """In pairs and alone, whoever comes first; what one has written the other one reads."""
    device, rng = Chip(chip(2), 6, stall), np.random.default_rng(6)
    for turn in range(12):
        group = (2, 1)[turn % 4 == 3]
        for core in rng.permutation(2).tolist():
            device.post(core, exchange(device, core, group, rng))
            device.rtl.work(int(rng.integers(1, 2000)))
        found: dict[int, JobEnd] = {}
        while len(found) < 2:
            for core in device.raised():
                device.write(core, Register.IRQ, 3)
                place = (device.posted[core] - 1) % (1 << RING_BITS) * JOB_END.size
                found[core] = JobEnd.unpack(
                    device.memory.read(device.rings(core)[1] * PAGE + place, JOB_END.size)
                )
                device.write(core, Register.END_HEAD, device.posted[core] & 0xFFFF)
        assert {core: (end.status, end.tag) for core, end in found.items()} == {0: (0, 0), 1: (0, 1)}
        words = np.frombuffer(device.memory.read(DATA_PAGE * PAGE, 8), dtype="<u4")
        assert words.tolist() == sums(2, group)
        device.jobs = [None, None]
    assert device.rtl.violations == 0


def test_a_core_whose_neighbour_fails_is_stalled_and_both_go_on() -> None:
    """It waits as long as the other one works, and the register STALL after that."""
    device, rng = Chip(chip(2), 7), np.random.default_rng(7)
    meets = simple(0, Instruction(Opcode.BARRIER, Control(immediate=2)), tag=1)
    spins = 3 * STALL // 10
    again = Instruction(Opcode.BRANCH, Control(function=Condition.NONZERO, a=1, immediate=1))
    fails = simple(
        1,
        Instruction(Opcode.COMPUTE, Control(destination=1, immediate=spins, function=Function.COPY)),
        Instruction(Opcode.COMPUTE, Control(destination=1, a=1, immediate=1, function=Function.SUB)),
        again,
        Instruction(0xAB),
        tag=2,
    )
    device.post(0, meets)
    device.post(1, fails)
    assert device.raised() == [1]
    fails.faults.add(Status.BAD_INSTRUCTION)
    assert device.end(1).status == Status.BAD_INSTRUCTION
    begun = device.rtl.cycles
    assert device.raised() == [0]
    assert STALL - 100 < device.rtl.cycles - begun < STALL + 1000
    assert device.read(0, Register.JOBS) == 1
    device.write(0, Register.IRQ, 3)
    end = JobEnd.unpack(device.memory.read(device.rings(0)[1] * PAGE, JOB_END.size))
    assert (end.status, end.index) == (Status.STALLED, 0)
    device.write(0, Register.END_HEAD, 1)
    for core in range(2):
        device.post(core, exchange(device, core, 2, rng))
    while device.read(0, Register.JOBS) < 2 or device.read(1, Register.JOBS) < 2:
        device.rtl.work(100)
    words = np.frombuffer(device.memory.read(DATA_PAGE * PAGE, 8), dtype="<u4")
    assert words.tolist() == sums(2, 2)


def test_registers_of_the_chip() -> None:
    device = Chip(chip(2), 5)
    expected = {
        TopRegister.ID: ID,
        TopRegister.VERSION: VERSION,
        TopRegister.CORES: cores_word(device.config),
        TopRegister.ENABLE_0: 3,
        TopRegister.ENABLE_1: 0,
        TopRegister.IRQ_0: 0,
        TopRegister.IRQ_1: 0,
        TopRegister.BUSY_0: 0,
        TopRegister.BUSY_1: 0,
    }
    assert {register: device.rtl.read_register(register) for register in TopRegister} == expected
    for register in TopRegister:
        if register not in ENABLE:
            with pytest.raises(DriverError, match="SLVERR"):
                device.rtl.write_register(register, 0)
    for address in (0x00C, 0x028, 0xFFC, core_address(2), core_address(0, 0xFFC)):
        with pytest.raises(DriverError, match="SLVERR"):
            device.rtl.read_register(address)
        with pytest.raises(DriverError, match="SLVERR"):
            device.rtl.write_register(address, 0)
    # Bits of cores that there are not read 0.
    device.rtl.write_register(ENABLE[0], 0xFFFF_FFFE)
    device.rtl.write_register(ENABLE[1], 0xFFFF_FFFF)
    assert [device.rtl.read_register(register) for register in ENABLE] == [2, 0]
    # Registers of a core are its own.
    device.post(1, simple(1, tag=3))
    assert device.raised() == [1]
    assert device.read(0, Register.JOBS) == 0
    assert device.end(1).tag == 3


@pytest.mark.parametrize(
    ("cores", "ports", "says"),
    [
        (65, 1, "cores must be a multiple of ports, at most 64"),
        (3, 2, "cores must be a multiple of ports, at most 64"),
    ],
)
def test_what_makes_no_chip(cores: int, ports: int, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        TopVerilog(MICRO, cores=cores, ports=ports)


@pytest.mark.parametrize(
    ("cores", "ports", "bits"), [(1, 1, 6), (2, 1, 7), (48, 1, 12), (48, 48, 6), (48, 8, 9)]
)
def test_ids_hold_the_cores_number(cores: int, ports: int, bits: int) -> None:
    top = TopVerilog(MICRO, cores=cores, ports=ports)
    assert len(top.m_axi) == ports
    assert len(top.m_axi[0].ar.id) == len(top.m_axi[0].b.id) == bits
    assert len(top.s_axi.ar.addr) == 12 + cores.bit_length()
