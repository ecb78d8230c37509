"""Testbench of the core as an integrator sees it: its registers, its AXI4 port, its interrupt, nothing else.

The bench is host and memory. Jobs are random programs of all engines; every end, and all of memory, must be
what the golden core makes of them.
"""

from collections import Counter
from dataclasses import replace
from typing import Any

from cocotbext.axi import AxiLiteBus, AxiLiteMaster

from vrex.hw.core.core import CORE_ID_BITS
from vrex.hw.lib.axi.lite import OKAY, SLVERR
from vrex.model.commands import Descriptor
from vrex.model.config import Config
from vrex.model.core.core import Core, Job, JobEnd
from vrex.model.core.instructions import (
    JOB,
    JOB_END,
    Condition,
    Control,
    Instruction,
    Opcode,
    Status,
    pack_program,
)
from vrex.model.core.registers import ID, VERSION, Register, caps
from vrex.model.lib.memory import PAGE, Memory
from vrex.model.lxe.instructions import Instruction as LxeInstruction
from vrex.tb.core.programs import (
    ALL,
    DEVICE,
    ENDS_PAGE,
    HOST,
    JOBS_PAGE,
    LIMITS,
    PROGRAM_PAGE,
    ProgramStimuli,
    RandomJob,
)
from vrex.tb.core.registers import CHANNELS as REGISTER_CHANNELS
from vrex.tb.core.registers import WHOLE, WORD
from vrex.tb.lib.axi_bench import MemoryBench, RamSide, channel_stream
from vrex.tb.lib.axi_memory import CHANNELS as MEMORY_CHANNELS
from vrex.tb.lib.axi_memory import EmptyMemory
from vrex.tb.lib.axi_memory import Window as BusWindow
from vrex.tb.lib.bench import case, scaled
from vrex.tb.lib.streams import StreamError

RING_BITS = 2
STALL = 20_000
"""Cycles without progress after which a job is STALLED: longer than the memory's stalls."""

TIMEOUT = 2_000
"""Cycles, as long."""

PATIENCE = 1_000_000
"""Cycles within which an interrupt comes: a program that branches often, on a bus that stalls for long, has
needed 200 682. The core itself ends a job that stands still (`STALL`)."""

TRIES = 8

END = Instruction(Opcode.END)
ENABLE, RESET = 1, 2
FULL, DRAINING, BUSY = 4, 2, 1
"""Bits of STATUS."""


class CoreBench(MemoryBench):
    """Posts jobs, waits for their interrupts, and has the golden core execute the same.

    Attributes:
        golden: core on a memory of its own, `golden_memory`.
        jobs, instructions: posted, and taken by jobs that ended, since the last reset.
        ends: how often a job ended with each status.
    """

    unit = "core"
    windows = tuple(BusWindow(window.base, window.pages) for window in (DEVICE, HOST))
    ids = 1 << CORE_ID_BITS
    memory_type = EmptyMemory
    memory: EmptyMemory

    def __init__(self, dut: Any, config: Config, seed: str) -> None:
        super().__init__(dut, config, seed, inputs=("ar", "aw", "w"), outputs=("r", "b"))
        self.memory.write_ids = self.ids
        self.ends: Counter[Status] = Counter()
        self._read = 0
        self.sinks["r"].on_word = self._take_read
        self.stimuli = ProgramStimuli(config, self.rng)

    def find(self, name: str) -> tuple[Any, Any, Any]:
        """A channel of the registers' port as a stream."""
        return channel_stream(self.dut, f"s_axi_{name}", REGISTER_CHANNELS[name])

    def _take_read(self, word: int) -> None:
        self._read = word & WORD

    async def reset(self) -> None:
        """Resets the design; memory is empty, and the registers say where everything lies."""
        self.memory.clear()
        self.golden_memory = Memory(DEVICE, HOST)
        self.dut.enable.value = 1
        self.dut.met.value = self.dut.others.value = 0
        await super().reset()
        await self.set_up()

    async def set_up(self, **changes: int) -> None:
        """Writes the registers as a host does, with some other values, and enables the core."""
        self.golden = Core(
            self.config, self.golden_memory, replace(LIMITS, budget=changes.get("BUDGET", LIMITS.budget))
        )
        self.jobs = self.instructions = 0
        values = {
            "JOB_BASE": JOBS_PAGE,
            "JOB_SIZE": RING_BITS,
            "END_BASE": ENDS_PAGE,
            "SEQUENCES": LIMITS.sequences,
            "BUDGET": LIMITS.budget,
            "STALL": STALL,
            "TIMEOUT": 0,
            "DEVICE_BASE": DEVICE.base,
            "DEVICE_PAGES": DEVICE.pages,
            "HOST_BASE": HOST.base,
            "HOST_PAGES": HOST.pages,
            "IRQ_MASK": 1,
        }
        for name, value in (values | changes | {"CONTROL": ENABLE}).items():
            await self.write(Register[name], value)

    async def write(self, register: int, value: int, answer: int = OKAY) -> None:
        """Writes a register."""
        self.sources["aw"].send([register])
        self.sources["w"].send([value | WHOLE << 32])
        self.sinks["b"].expect(f"write to {register:#x}", [answer])
        await self.drain()

    async def read(self, register: int, answer: int = OKAY) -> int:
        """Reads a register."""
        self.sources["ar"].send([register])
        self.sinks["r"].expect(f"read of {register:#x}", [answer << 32], ~WORD)
        await self.drain()
        return self._read

    def memory_read(self, address: int, size: int) -> bytes:
        """What the design's memory holds."""
        return self.memory.read(address, size)

    def memory_write(self, address: int, data: bytes) -> None:
        """Writes the design's memory."""
        self.memory.write(address, data)

    async def post(self, job: Job) -> int:
        """Writes a job and rings the bell; returns its place in the rings."""
        place = self.jobs % (1 << RING_BITS)
        self.memory_write(JOBS_PAGE * PAGE + place * JOB.size, job.pack())
        self.jobs += 1
        await self.write(Register.JOB_TAIL, self.jobs & 0xFFFF)
        return place

    async def interrupt(self) -> None:
        """Waits for it.

        Raises:
            StreamError: none came.
        """
        for _ in range(PATIENCE):
            if self.number("irq"):
                return
            await self.step()
        raise StreamError(f"no interrupt in {PATIENCE} cycles")

    async def end(self, place: int) -> JobEnd:
        """Waits for the interrupt of a job, and takes its end."""
        await self.interrupt()
        await self.write(Register.IRQ, 3)
        data = self.memory_read(ENDS_PAGE * PAGE + place * JOB_END.size, JOB_END.size)
        await self.write(Register.END_HEAD, self.jobs & 0xFFFF)
        end = JobEnd.unpack(data)
        self.instructions += end.instructions
        self.ends[Status(end.status)] += 1
        self.coverage.hit(f"job ends with {Status(end.status).name}")
        return end

    def fill(self, job: RandomJob) -> None:
        """Writes what a job needs to both memories."""
        job.fill(self.golden_memory)
        for address, data in (job.contents | {job.job.program: pack_program(job.program)}).items():
            self.memory_write(address, data)

    async def run(self, job: RandomJob, *, broken: bool = False) -> JobEnd:
        """Runs a job on both cores and compares.

        Args:
            job: with what it needs in memory.
            broken: memory may fail, so the job may, and only one that did not is compared.

        Raises:
            StreamError: they differ.
        """
        self.fill(job)
        got = await self.end(await self.post(job.job))
        want = self.golden.run(job.job)
        if broken and got.status != Status.OK:
            self._check(got, replace(got, tag=want.tag, sequence=want.sequence))
            # The golden core must have lost its DRE's registers as well.
            self.golden = Core(self.config, self.golden_memory, self.golden.limits)
        else:
            # A failed job may have taken some more instructions meanwhile.
            taken = got.instructions if want.status else want.instructions
            self._check(got, replace(want, instructions=taken, cycles=got.cycles))
            if want.status != Status.OK and want.status not in job.faults:
                raise StreamError(f"a job meant to work ended with {Status(want.status).name}")
        self.compare(failed=got.status != Status.OK)
        return got

    def counted(self) -> dict[Register, int]:
        """What counters must read since the last reset."""
        return {
            Register.INSTRUCTIONS: self.instructions,
            Register.READ_BEATS: self.memory.counts.read_beats,
            Register.WRITE_BEATS: self.memory.counts.write_beats,
        }

    @staticmethod
    def _check(got: JobEnd, want: JobEnd) -> None:
        if got != want or got.cycles < 1:
            raise StreamError(f"a job ended with {got}, not {want}")

    def compare(self, *, failed: bool) -> None:
        """All of memory but the rings, unless what a failed job has written is not defined."""
        rings = DEVICE.start, (PROGRAM_PAGE - DEVICE.base) * PAGE
        self.golden_memory.write(DEVICE.start, self.memory_read(*rings))
        if not failed:
            self.memory.compare(self.golden_memory)
        else:
            self.memory.copy_from(self.golden_memory)


class OtherSideBench(RamSide, CoreBench):
    """Leaves registers and memory to cocotbext-axi."""

    def __init__(self, dut: Any, config: Config, seed: str) -> None:
        super().__init__(dut, config, seed)
        self.master: Any = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axi"), dut.clk, dut.rst)
        for log in (self.master.write_if.log, self.master.read_if.log):
            log.setLevel("WARNING")
        self.attach(HOST.stop)
        # Neither our driver of the registers' port nor our memory moves.
        self.sources.clear()
        self.sinks.clear()

    @property
    def answers(self) -> list[Any]:
        """Channels on which the core answers accesses to its registers."""
        return [self.master.read_if.r_channel, self.master.write_if.b_channel]

    async def write(self, register: int, value: int, answer: int = OKAY) -> None:
        """Writes a register."""
        event = self.master.init_write(register, value.to_bytes(4, "little"))
        if int((await self._access(event)).resp) != answer:
            raise StreamError(f"a write to {register:#x} was not answered with {answer}")

    async def read(self, register: int, answer: int = OKAY) -> int:
        """Reads a register."""
        result = await self._access(self.master.init_read(register, 4))
        if int(result.resp) != answer:
            raise StreamError(f"a read of {register:#x} was not answered with {answer}")
        return int.from_bytes(result.data, "little")

    async def _access(self, event: Any) -> Any:
        while not event.is_set():
            await self.step()
        return event.data

    def memory_read(self, address: int, size: int) -> bytes:
        """What cocotbext-axi's memory holds."""
        return bytes(self.ram.read(address, size))

    def memory_write(self, address: int, data: bytes) -> None:
        """Writes cocotbext-axi's memory."""
        self.ram.write(address, data)

    def counted(self) -> dict[Register, int]:
        """See `CoreBench.counted`; this memory counts no beats."""
        return {Register.INSTRUCTIONS: self.instructions}

    def compare(self, *, failed: bool) -> None:
        """See `CoreBench.compare`."""
        for window in (DEVICE, HOST):
            self.memory.write(window.start, self.memory_read(window.start, window.pages * PAGE))
        super().compare(failed=failed)
        for window in (DEVICE, HOST):
            self.memory_write(window.start, self.golden_memory.read(window.start, window.pages * PAGE))


def make(dut: Any, config: Config, seed: str) -> CoreBench:
    """Bench of one case."""
    return CoreBench(dut, config, seed)


def make_other(dut: Any, config: Config, seed: str) -> OtherSideBench:
    """Bench of one case on cocotbext-axi."""
    return OtherSideBench(dut, config, seed)


def simple(*instructions: Instruction, tag: int = 0, sequence: int = 0) -> RandomJob:
    """A job of these instructions and END."""
    job = Job(program=PROGRAM_PAGE * PAGE, tag=tag, sequence=sequence)
    return RandomJob(job, [*instructions, END], faults=set(Status))


async def random_jobs(bench: CoreBench, count: int, faulty: float) -> None:
    """Jobs, some of which go wrong by themselves."""
    for tag in range(count):
        await bench.run(bench.stimuli.job(tag, bench.random.random() < faulty))
    if await bench.read(Register.JOBS) != count or await bench.read(Register.LOST_ENDS):
        raise StreamError("a job was lost")
    busy, waits = await bench.read(Register.BUSY), await bench.read(Register.SEQUENCER_WAIT)
    if not 0 < waits < busy < await bench.read(Register.CYCLES):
        raise StreamError(f"the sequencer has waited for {waits} of {busy} cycles")
    for register, want in bench.counted().items():
        if (found := await bench.read(register)) != want:
            raise StreamError(f"{register.name} is {found}, not {want}")


@case(make, stalls=("none", "light", "bursts"))
async def jobs(bench: CoreBench, stalls: str) -> None:
    """Random programs; every end and all of memory are the golden core's."""
    bench.stall(stalls)
    await random_jobs(bench, scaled(20, 3), faulty=0.3)


@case(make_other, stalls=("none", "light"))
async def other_side(bench: OtherSideBench, stalls: str) -> None:
    """The same between cocotbext-axi's manager and memory."""
    bench.pauses(stalls, *bench.answers)
    await random_jobs(bench, scaled(10, 2), faulty=0.2)


@case(make, stalls=("none", "light", "bursts"))
async def codes(bench: CoreBench, stalls: str) -> None:
    """Rows of codes with their scales, of both widths, between rows as they are."""
    bench.stall(stalls)
    for _ in range(scaled(12, 3)):
        job = bench.stimuli.codes_job()
        await bench.run(job)
        for bits, step in job.coded:
            how = ("one for all", "in a row", "apart")[min(step, 2)]
            bench.coverage.hit(f"scales of {bits}-bit codes, {how}")


@case(make)
async def bus_errors(bench: CoreBench) -> None:
    """Some beats of memory fail: no job is lost, and the next one works."""
    bench.stall()
    for tag in range(scaled(12, 3)):
        job = bench.stimuli.job(tag, faulty=False)
        spans = [(address, len(content)) for address, content in job.contents.items()]
        spans.append((job.job.program, len(pack_program(job.program))))
        for address, size in bench.random.sample(spans, bench.random.randint(0, 1)):
            bench.memory.bad_beats.add((address + bench.random.randrange(size)) // bench.config.bus_bytes)
        await bench.run(job, broken=True)
        bench.memory.bad_beats.clear()
        await bench.run(simple(tag=tag))
    if bench.ends[Status.OK] < scaled(12, 3):
        raise StreamError("a job after one that failed did not work")


@case(make)
async def identity(bench: CoreBench) -> None:
    """What the core says it is, what is closed while it is enabled, and what there is not."""
    bench.stall()
    for register, value in {
        Register.ID: ID,
        Register.VERSION: VERSION,
        Register.CAPS: caps(bench.config),
    }.items():
        if (found := await bench.read(register)) != value:
            raise StreamError(f"{register.name} reads {found:#x}, not {value:#x}")
    await bench.write(Register.JOB_BASE, 0, SLVERR)
    await bench.read(0xFFC, SLVERR)
    # Accesses that wait for one another.
    for mask in range(4):
        bench.sources["aw"].send([Register.IRQ_MASK])
        bench.sources["w"].send([mask | WHOLE << 32])
        bench.sources["ar"].send([Register.ID])
        bench.sinks["b"].expect("queued write", [OKAY])
        bench.sinks["r"].expect("queued read", [ID])
    await bench.drain()
    if (mask := await bench.read(Register.IRQ_MASK)) != 3:
        raise StreamError(f"IRQ_MASK is {mask} after writes in a row, not the last one")
    await bench.run(simple(tag=9))
    for register, least in {Register.JOBS: 1, Register.INSTRUCTIONS: 1, Register.READ_BEATS: 2}.items():
        if await bench.read(register) < least:
            raise StreamError(f"{register.name} did not count")


@case(make)
async def rings(bench: CoreBench) -> None:
    """Both rings wrap round; ends wait for the host, and jobs for ends."""
    bench.stall()
    program = [END]
    bench.memory_write(PROGRAM_PAGE * PAGE, pack_program(program))
    size = 1 << RING_BITS
    posted = taken = 0
    while taken < 3 * size:
        while posted < taken + size + 1:
            await bench.post(Job(program=PROGRAM_PAGE * PAGE, tag=posted & 0xFFFF))
            posted += 1
            await bench.steps(bench.random.randrange(200))
        while await bench.read(Register.END_TAIL) < taken + size:
            await bench.steps(10)
        full = await bench.read(Register.STATUS) & FULL
        bench.coverage.hit("ring of ends is full", full)
        ends = bench.memory_read(ENDS_PAGE * PAGE, JOB_END.size * size)
        for number in range(taken, taken + size):
            place = number % size * JOB_END.size
            end = JobEnd.unpack(ends[place : place + JOB_END.size])
            if (end.tag, end.status) != (number, Status.OK):
                raise StreamError(f"end {number} is {end}")
        taken += size
        await bench.write(Register.END_HEAD, taken)
        bench.coverage.hit("rings wrap", taken > size)
    while await bench.read(Register.END_TAIL) < posted:
        await bench.steps(10)
    await bench.write(Register.END_HEAD, posted)


@case(make)
async def interrupts(bench: CoreBench) -> None:
    """Bits of IRQ come with every end and failure, and reach the pin as IRQ_MASK lets them."""
    bench.stall()
    for mask in range(4):
        for fails in (False, True):
            await bench.write(Register.IRQ_MASK, mask)
            job = simple(sequence=LIMITS.sequences if fails else 0)
            bench.fill(job)
            await bench.post(job.job)
            while await bench.read(Register.END_TAIL) != bench.jobs:
                await bench.steps(5)
            await bench.steps(5)
            found, want = await bench.read(Register.IRQ), 3 if fails else 1
            if found != want or bench.number("irq") != (found & mask != 0):
                raise StreamError(f"IRQ is {found} under mask {mask}, and the pin {bench.number('irq')}")
            bench.coverage.hit("interrupt is masked", found & mask == 0)
            await bench.write(Register.IRQ, 3)
            await bench.write(Register.END_HEAD, bench.jobs)
            if bench.number("irq"):
                raise StreamError("the interrupt stays although its bits are cleared")


@case(make)
async def disabled(bench: CoreBench) -> None:
    """A bell while the register or the pin disables the core waits; a job in work goes on."""
    bench.stall()
    for by_pin in (False, True):
        if by_pin:
            bench.dut.enable.value = 0
        else:
            await bench.write(Register.CONTROL, 0)
        job = simple(tag=5)
        bench.fill(job)
        head = await bench.read(Register.JOB_HEAD)
        place = await bench.post(job.job)
        await bench.steps(300)
        if await bench.read(Register.JOB_HEAD) != head or bench.number("busy"):
            raise StreamError("a disabled core took a job")
        bench.coverage.hit("bell while disabled")
        bench.dut.enable.value = 1
        await bench.write(Register.CONTROL, ENABLE)
        if (await bench.end(place)).tag != 5:
            raise StreamError("the job that waited was lost")


@case(make)
async def limits(bench: CoreBench) -> None:
    """A loop without end, a sequence that there is not, a wait for nothing, commands that engines refuse."""
    bench.stall()
    await bench.write(Register.CONTROL, 0)
    await bench.set_up(BUDGET=100, STALL=2000)
    endless = Instruction(Opcode.BRANCH, Control(function=Condition.ALWAYS, immediate=0))
    nothing = Instruction(Opcode.TOKENS, Control(immediate=1))
    wait = Instruction(Opcode.WAIT, Control(immediate=ALL))
    for instructions, sequence, status in (
        ((endless,), 0, Status.BUDGET),
        ((), LIMITS.sequences, Status.BAD_SEQUENCE),
        ((nothing,), 0, Status.STALLED),
        ((Instruction(Opcode.LXE, LxeInstruction(opcode=99)), wait), 0, Status.LXE_FAILED),
        ((Instruction(Opcode.DRE, Descriptor(99)), wait), 0, Status.DRE_FAILED),
    ):
        end = await bench.run(simple(*instructions, sequence=sequence))
        if end.status != status:
            raise StreamError(f"a job ended with {Status(end.status).name}, not {status.name}")
        await bench.run(simple())


@case(make)
async def faults(bench: CoreBench) -> None:
    """Each of them has its status and the number of its instruction, and the next job works."""
    bench.stall()
    for job in bench.stimuli.fault_jobs():
        if (await bench.run(job)).status not in job.faults:
            raise StreamError(f"a job that had to fail with {job.faults} did not")
        await bench.run(simple())


@case(make)
async def silence(bench: CoreBench) -> None:
    """Memory falls silent on a channel in the middle of a job: TIMEOUT; when it answers, the next works."""
    await bench.write(Register.CONTROL, 0)
    await bench.set_up(TIMEOUT=TIMEOUT)
    for channel in MEMORY_CHANNELS:
        # A job may have ended before.
        for _ in range(TRIES):
            job = bench.stimuli.product_job()
            bench.fill(job)
            bench.stall()
            place = await bench.post(job.job)
            # The job itself is read first, and its end is written last.
            await bench.steps(bench.random.randrange(100, 400))
            bench.memory.allow[channel] = 0
            await bench.steps(4 * TIMEOUT)
            await bench.clear()
            end = await bench.end(place)
            bench.golden = Core(bench.config, bench.golden_memory, bench.golden.limits)
            bench.memory.copy_from(bench.golden_memory)
            await bench.run(bench.stimuli.job(1, faulty=False))
            if end.status == Status.TIMEOUT:
                break
        else:
            raise StreamError(f"a memory that is silent on {channel} did not end a job with TIMEOUT")
        bench.coverage.hit(f"silence on {channel} ends with TIMEOUT")


async def work(bench: CoreBench) -> None:
    """Posts a job, and lets it run to any place."""
    bench.stall()
    job = bench.stimuli.job(1, faulty=False)
    bench.fill(job)
    await bench.post(job.job)
    await bench.steps(bench.random.randrange(1500))


@case(make)
async def soft_reset(bench: CoreBench) -> None:
    """A reset of a job in work, at any time: the bus is clean after it, and the next job works."""
    for _ in range(scaled(12, 3)):
        await work(bench)
        bench.coverage.hit("soft reset of a job in work", bench.number("busy"))
        await bench.write(Register.CONTROL, RESET)
        while await bench.read(Register.STATUS) & (DRAINING | BUSY):
            await bench.steps(5)
        if not bench.memory.idle:
            raise StreamError("bursts are under way after a reset")
        if await bench.read(Register.JOB_HEAD) or await bench.read(Register.END_TAIL):
            raise StreamError("a ring goes on after a reset")
        await bench.write(Register.IRQ, 3)
        bench.memory.copy_to(bench.golden_memory)
        await bench.set_up()
        await bench.run(bench.stimuli.job(2, faulty=False))


@case(make)
async def hard_reset(bench: CoreBench) -> None:
    """A reset of core and memory in the middle of a job leaves nothing behind."""
    for _ in range(scaled(6, 2)):
        await work(bench)
        bench.coverage.hit("reset of a job in work", bench.number("busy"))
        await bench.reset_in_work()
        await bench.run(bench.stimuli.job(2, faulty=False))
