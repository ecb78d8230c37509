"""Testbench of the rings: every job and every end in its place, whatever host, memory and sequencer do.

The bench is all three of them. What becomes of a job is decided when its doorbell rings, so every word that
must come is known then.
"""

from collections import deque
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

from vrex.hw.core.front import END
from vrex.hw.lib.axi.burst import ADDRESS_BITS, LENGTH_BITS, PAGE_BITS, Error
from vrex.model.config import Config
from vrex.model.core.instructions import JOB, JOB_END, Status
from vrex.tb.lib.bench import Bench, beats, case, fields, scaled
from vrex.tb.lib.streams import Source, StreamError

NUMBERS = 1 << 16
"""Heads and tails count modulo this."""

START_CYCLES = 2
"""Cycles from a doorbell to the request that reads the job."""

JOB_CYCLES = 1
"""Cycles from the last beat of a job to the sequencer's."""

END_CYCLES = 1
"""Cycles from the end of a job to the request that writes it."""

FAILED_READS = {
    Error.RESPONSE: Status.BUS_ERROR,
    Error.TIMEOUT: Status.TIMEOUT,
    Error.OUTSIDE: Status.BAD_ADDRESS,
}
WIDTHS = {field.name: field.bits for field in JOB_END.fields if field.name in END.members}
CYCLES = next((offset, field.bits) for offset, field in JOB_END.places() if field.name == "cycles")
"""Lowest bit and width of an end's cycles."""


@dataclass
class Plan:
    """What becomes of a job.

    Attributes:
        job: its bytes.
        end: what the sequencer says, field by field, or what a read that fails makes of it.
        read, write: how its read and the write of its end go.
        began, ended: cycles of its first request, and of its end or of the last beat of a read that fails.
    """

    job: bytes
    end: dict[str, int]
    read: Error = Error.NONE
    write: Error = Error.NONE
    began: int = 0
    ended: int = 0


class FrontBench(Bench):
    """Rings doorbells, and expects all that comes of it.

    Attributes:
        size: log2 of the rings' entries.
        tail, head: JOB_TAIL and END_HEAD as the host has written them, without the wrap.
        taken, written: jobs that were read, ends that were written.
    """

    unit = "front"
    taken_at_once = ("beats", "done", "end")

    def __init__(self, dut: Any, config: Config, seed: str) -> None:
        super().__init__(dut, config, seed, ("beats", "done", "end"), ("read", "write", "data", "job"))
        self.sinks["read"].on_word = self._on_read
        self.sinks["job"].on_word = self._on_job
        self.sinks["data"].on_word = self._on_data
        self.end_beats = max(1, JOB_END.size // config.bus_bytes)

    async def reset(self) -> None:
        """Empty rings of 16 entries, enabled."""
        self.reading: deque[Plan] = deque()
        self.working: deque[Plan] = deque()
        self.writing: deque[Plan] = deque()
        self.finishing: deque[Plan] = deque()
        self.tail = self.head = self.taken = self.written = 0
        self.beats_left, self.entry, self.entry_beats = 0, 0, 0
        self.was_full = False
        self.place(4, 0x100, 0x200)
        self.dut.job_tail.value = self.dut.end_head.value = 0
        self.dut.enable.value = 1
        await super().reset()

    def place(self, size: int, jobs: int, ends: int) -> None:
        """Puts the rings somewhere: log2 of their entries, their first pages."""
        self.size, self.job_base, self.end_base = size, jobs, ends
        self.dut.job_size.value = size
        self.dut.job_base.value, self.dut.end_base.value = jobs, ends

    def ring(self, count: int = 1, read: Error = Error.NONE, write: Error = Error.NONE) -> None:
        """Rings the doorbell for so many jobs."""
        for _ in range(count):
            end = {name: self.random.getrandbits(bits) for name, bits in WIDTHS.items()}
            end["status"] = self.random.choice([Status.OK, Status.OK, self.random.randrange(1, 10)])
            plan = Plan(self.random.randbytes(JOB.size), end, read, write)
            if read in FAILED_READS:
                plan.end = dict.fromkeys(end, 0) | {"status": FAILED_READS[read]}
            self._expect(plan, self.tail % (1 << self.size))
            self.reading.append(plan)
            self.tail += 1
            self.coverage.hit("ring wraps", self.tail >> self.size)
        self.dut.job_tail.value = self.tail % NUMBERS

    def _expect(self, plan: Plan, entry: int) -> None:
        """All words of a job."""
        what, width = f"job {self.tail}", self.config.bus_bytes
        at = (self.job_base << PAGE_BITS) + entry * JOB.size
        self.sinks["read"].expect(what, [fields((at, ADDRESS_BITS), (JOB.size, LENGTH_BITS))])
        if plan.read == Error.NONE:
            self.sinks["job"].expect(what, [int.from_bytes(plan.job, "little")])
        at = (self.end_base << PAGE_BITS) + entry * JOB_END.size
        self.sinks["write"].expect(what, [fields((at, ADDRESS_BITS), (JOB_END.size, LENGTH_BITS))])
        # Beats that are wider than the end hold it in its place; what is beside it is not written.
        shift = 8 * (at % width)
        image = JOB_END.to_int({**plan.end, "cycles": 0})
        known = (1 << JOB_END.bits) - 1 & ~((1 << CYCLES[1]) - 1 << CYCLES[0])
        for n in range(self.end_beats):
            word, mask = (value >> 8 * width * n & (1 << 8 * width) - 1 for value in (image, known))
            self.sinks["data"].expect(f"{what}, beat {n}", [word << shift], mask << shift)

    def _on_read(self, word: int) -> None:
        """Memory answers: all beats, with an error from some beat on, or fewer and an end without data."""
        plan, width = self.reading.popleft(), self.config.bus_bytes
        plan.began = self.sinks["read"].first_seen
        data = beats(plan.job, width)
        bad = self.random.randrange(len(data)) if plan.read != Error.NONE else len(data)
        words = [
            fields(
                (word, 8 * width), (n == len(data) - 1, 1), ((plan.read if n >= bad else Error.NONE).value, 2)
            )
            for n, word in enumerate(data)
        ]
        if plan.read in (Error.TIMEOUT, Error.OUTSIDE):
            words = [*words[:bad], fields((0, 8 * width), (1, 1), (plan.read.value, 2))]
        self.coverage.hit(f"read ends with {plan.read.name}")
        self.beats_left = len(words)
        self.sources["beats"].send(words)
        self.working.append(plan)

    def _on_job(self, word: int) -> None:
        """The sequencer works, and ends."""
        if not self.number("busy"):
            raise StreamError("a job is in work, but busy is low")
        self.sources["end"].send(
            [fields(*((self.working[0].end[name], bits) for name, bits in WIDTHS.items()))]
        )

    def _on_data(self, word: int) -> None:
        """Memory has a beat of an end; after the last it answers. The end's cycles must be right."""
        plan = self.writing[0]
        at = (self.end_base << PAGE_BITS) + (self.written % (1 << self.size)) * JOB_END.size
        self.entry |= word >> 8 * (at % self.config.bus_bytes) << 8 * self.config.bus_bytes * self.entry_beats
        self.entry_beats += 1
        if self.entry_beats < self.end_beats:
            return
        cycles = self.entry >> CYCLES[0] & (1 << CYCLES[1]) - 1
        if cycles != plan.ended - plan.began + 1:
            raise StreamError(f"{cycles} cycles from {plan.began} to {plan.ended}")
        self.entry = self.entry_beats = 0
        self.sources["done"].send([plan.write.value])
        self.finishing.append(self.writing.popleft())

    def _sample(self) -> list[Source]:
        self._check_numbers()
        taken = super()._sample()
        names = {source.name for source in taken}
        self._check_events("done" in names)
        if "beats" in names:
            self.beats_left -= 1
            if self.beats_left == 0:
                self.taken += 1
                if self.working[0].read != Error.NONE:
                    self._ends()
        if "end" in names:
            self._ends()
        return taken

    def _ends(self) -> None:
        """A job has ended."""
        plan = self.working.popleft()
        plan.ended = self.cycle
        self.writing.append(plan)

    def _check_numbers(self) -> None:
        """What the registers show; `full` comes a cycle late."""
        want = {
            "job_head": self.taken % NUMBERS,
            "end_tail": self.written % NUMBERS,
            "full": int(self.was_full),
        }
        for name, value in want.items():
            if self.number(name) != value:
                raise StreamError(f"{name} is {self.number(name)}, not {value}")
        self.was_full = self.written - self.head >= 1 << self.size

    def _check_events(self, done: bool) -> None:
        """`ended` in the cycle in which the write is done."""
        want = (0, 0, 0)
        if done:
            plan = self.finishing.popleft()
            lost = plan.write != Error.NONE
            self.written += 1
            self.coverage.hit(f"write ends with {plan.write.name}")
            want = (1, int(lost or plan.end["status"] != Status.OK), int(lost))
        found = tuple(self.number(name) for name in ("ended", "failed", "lost"))
        if found != want:
            raise StreamError(f"ended, failed and lost are {found}, not {want}")

    def read_ends(self, count: int) -> None:
        """The host has read so many ends."""
        self.head += count
        self.dut.end_head.value = self.head % NUMBERS

    async def run(self, count: int) -> None:
        """Until so many ends have been written in all."""
        await self.drain(lambda: self.written >= count)

    async def nothing(self, cycles: int) -> None:
        """Nothing may happen."""
        before = self.taken, self.written, self.sinks["read"].received
        await self.steps(cycles)
        if (self.taken, self.written, self.sinks["read"].received) != before or self.number("busy"):
            raise StreamError("a job was taken")

    async def finish(self) -> None:
        """Nothing may be in work."""
        await super().finish()
        if self.number("busy") or self.written != self.tail:
            raise StreamError(f"busy is {self.number('busy')} after {self.written} of {self.tail} jobs")


def make(dut: Any, config: Config, seed: str) -> FrontBench:
    """Bench of one case."""
    return FrontBench(dut, config, seed)


@case(make, size=(0, 1, 4))
async def rings(bench: FrontBench, size: int) -> None:
    """Jobs one by one and in heaps, a host that reads ends late, rings that wrap."""
    bench.place(size, bench.random.getrandbits(32), bench.random.getrandbits(32))
    entries, jobs = 1 << size, scaled(150, 40)
    while bench.written < jobs:
        bench.stall()
        room = entries - (bench.tail - bench.written)
        if room:
            bench.ring(bench.random.randint(1, min(room, jobs)))
        await bench.steps(bench.random.randrange(60))
        bench.read_ends(bench.random.randint(0, bench.written - bench.head))
    bench.read_ends(bench.written - bench.head)
    while bench.written < bench.tail:
        await bench.step()
        bench.read_ends(bench.written - bench.head)


@case(make)
async def any_place(bench: FrontBench) -> None:
    """Rings of any size anywhere, the ends of the address space among them."""
    for size, jobs, ends in (
        (15, 0, 1),
        (15, 0xFFFFFFFF, 0xFFFFFFFF),
        (9, 0x7FFFFFFF, 0x80000000),
        (12, 5, 0),
    ):
        bench.stall()
        bench.dut.enable.value = 0
        bench.place(size, jobs, ends)
        await bench.steps(4)
        bench.dut.enable.value = 1
        bench.ring(scaled(70, 20))
        await bench.drain()
        bench.read_ends(bench.written - bench.head)
        bench.coverage.hit("largest ring", size == 15)


@case(make, size=(0, 2))
async def full(bench: FrontBench, size: int) -> None:
    """A ring of ends that the host does not read: jobs wait, and go on as far as it does."""
    bench.place(size, 1, 2)
    bench.ring(4 << size)
    for _ in range(3):
        bench.stall()
        await bench.run(bench.head + (1 << size))
        await bench.steps(3)
        await bench.nothing(100)
        bench.coverage.hit("ring of ends is full", bench.number("full"))
        bench.read_ends(bench.random.randint(1, 1 << size))
    while bench.written < bench.tail:
        await bench.step()
        bench.read_ends(bench.written - bench.head)


@case(make)
async def disabled(bench: FrontBench) -> None:
    """A doorbell while disabled waits; a job in work ends, and the next one is not taken."""
    bench.dut.enable.value = 0
    bench.ring(3)
    await bench.nothing(60)
    bench.coverage.hit("doorbell while disabled")
    bench.stall("heavy")
    bench.dut.enable.value = 1
    for jobs in (1, 2):
        # Read, but not written yet.
        while bench.taken < jobs:
            await bench.step()
        bench.dut.enable.value = 0
        await bench.run(jobs)
        await bench.steps(3)
        await bench.nothing(60)
        bench.coverage.hit("disabled while a job is in work")
        bench.dut.enable.value = 1
    await bench.drain()


@case(make)
async def failing(bench: FrontBench) -> None:
    """Reads and writes that fail in every way, good ones between them: no job and no end loses its place."""
    for read, write in list(product(Error, Error)) * scaled(4, 1):
        bench.stall()
        bench.ring(1, read, write)
        bench.ring(bench.random.randrange(2))
        await bench.drain()
        bench.read_ends(bench.written - bench.head)


@case(make)
async def latency(bench: FrontBench) -> None:
    """Each step follows the one before as soon as the docstring says."""
    bench.stall("none")
    for _ in range(4):
        await bench.steps(5)
        rang = bench.cycle
        bench.ring()
        plan = bench.reading[0]
        await bench.drain(lambda: bool(bench.sources["end"].queue))
        await bench.drain()
        found = (
            plan.began - rang,
            bench.sinks["job"].first_seen - plan.began - 64 // bench.config.bus_bytes,
            bench.sinks["write"].first_seen - plan.ended,
        )
        if found != (START_CYCLES, JOB_CYCLES, END_CYCLES):
            raise StreamError(f"{found} cycles")
        bench.read_ends(1)


@case(make)
async def back_to_back(bench: FrontBench) -> None:
    """Jobs that wait follow each other, each as fast as the last."""
    bench.stall("none")
    bench.ring(16)
    ends = []
    while bench.written < 16:
        before = bench.written
        await bench.step()
        if bench.written > before:
            ends.append(bench.cycle)
    gaps = {after - before for before, after in pairwise(ends)}
    if len(gaps) != 1:
        raise StreamError(f"jobs took {sorted(gaps)} cycles")


@case(make)
async def reset(bench: FrontBench) -> None:
    """Reset in the middle of a job; what follows must not notice."""
    for _ in range(scaled(12, 4)):
        bench.stall()
        bench.ring(5)
        await bench.steps(bench.random.randint(1, 80))
        bench.coverage.hit("reset in the middle of a job", bench.number("busy"))
        await bench.reset_in_work()
    bench.ring(5)


@case(make)
async def ready_and_valid(bench: FrontBench) -> None:
    """No valid depends on a ready of the same cycle."""
    bench.stall("heavy")
    bench.ring(16)
    await bench.check_ready_is_not_seen_by_valid(400)
