"""Testbench of the AXI4 master: every beat, byte and error against a memory that is hard on it.

The windows are small: a device window in the middle of the address space and a host window at its very end.
Reads and writes use different pages, so a read's answer is known when it is asked for. Writes are compared
with a copy of the memory that holds guard bytes round each of them.
"""

from collections.abc import Iterator
from typing import Any

from vrex.hw.lib.axi.burst import ADDRESS_BITS, LENGTH_BITS, PAGE_NUMBER_BITS, Error
from vrex.model.config import Config
from vrex.tb.lib.axi_bench import TIMEOUT, RamSide, WindowBench
from vrex.tb.lib.axi_memory import CHANNELS, PAGE, Window, bursts
from vrex.tb.lib.bench import Bench, case, fields, scaled
from vrex.tb.lib.streams import PROFILES, Profile, Sink, Source, Stalls, StreamError

CLIENTS = 4
BUFFERED = 3
DEVICE = Window(0x12, 24)
HOST = Window((1 << ADDRESS_BITS) // PAGE - 8, 8)
READ_PAGES = 12
"""Pages of the device window that are read; the others are written."""

LATENCY = 64
"""Cycles of the memory whose throughput is measured."""

TIMEOUT_LATENCY = 12
"""Most cycles from a request to its end without an answer, besides the time-out."""

BUSY = 0.9
"""Least share of the cycles in which R moves a beat, if the bursts that may be in flight hide the latency."""


class ForgivingSink(Sink):
    """Lets a request end early with a time-out; what comes before must be right."""

    timeout_word: int | None = None

    def _check_word(self, payload: int) -> None:
        if payload == self.timeout_word and self.expected and self.expected[0].word != payload:
            request = self.expected[0].what
            while self.expected and self.expected[0].what == request:
                self.expected.popleft()
            return
        super()._check_word(payload)


class AxiBench(WindowBench):
    """Asks for reads and writes and expects what the memory holds."""

    unit = "axi"
    windows = (DEVICE, HOST)
    ids = CLIENTS

    def __init__(self, dut: Any, config: Config, seed: str) -> None:
        reads = [f"read__{i}" for i in range(CLIENTS)]
        beats = [f"beats__{i}" for i in range(CLIENTS)]
        super().__init__(dut, config, seed, inputs=(*reads, "write", "data"), outputs=(*beats, "done"))
        for name, sink in self.sinks.items():
            self.sinks[name] = ForgivingSink(name, sink.stalls.rng)
        self.asked = 0
        in_flight = config.kvmu.outstanding * config.kvmu.burst_beats
        self.cycles_per_beat = 1 + 20 // in_flight
        self.latencies = [(1, 1), (1, 40), (60, 64)] if in_flight > 16 else [(1, 1), (1, 6)]
        self.memory.latency = self.latencies[1]
        self.written: dict[int, bytearray] = {}
        self.counted = dict.fromkeys(("read_bursts", "read_beats", "write_bursts", "write_beats"), 0)

    def _sample(self) -> list[Source]:
        taken = super()._sample()
        for name in self.counted:
            self.counted[name] += int(getattr(self.dut, name).value)
        return taken

    async def drain(self, until: Any = None) -> None:
        """Also waits until the memory owes nothing, and compares what was written."""
        await super().drain(until)
        if until is None:
            while not self.memory.idle:
                await self.step()
            self.compare()

    async def finish(self) -> None:
        """Also compares the counters."""
        await super().finish()
        if self.counted != {name: getattr(self.memory.counts, name) for name in self.counted}:
            raise StreamError(f"counted {self.counted}, but {self.memory.counts} passed")
        self.coverage.hit("answers of different clients overtake each other", self.memory.counts.overtaken)

    def word(self, data: bytes, last: bool, error: Any) -> int:
        """A beat for a client."""
        return fields((int.from_bytes(data, "little"), self.config.bus_bits), (last, 1), (error.value, 2))

    def end_word(self, error: Any) -> int:
        """A beat that ends a request without data."""
        return self.word(bytes(self.config.bus_bytes), True, error)

    def allowed(self, address: int) -> bool:
        """Whether a burst may start there."""
        return any(window.holds(address) for window in (DEVICE, HOST))

    def answer(self, address: int, size: int) -> list[int]:
        """The beats that a read gets."""
        width, bad = self.config.bus_bytes, False
        words: list[int] = []
        if size == 0:
            return [self.end_word(Error.OUTSIDE)]
        last = (address + size - 1) // width * width
        for at, beats in bursts(self.config, address, size):
            if not self.allowed(at):
                return [*words, self.end_word(Error.OUTSIDE)]
            for beat in range(at, at + beats * width, width):
                bad |= beat // width in self.memory.bad_beats
                error = Error.RESPONSE if bad else Error.NONE
                words.append(self.word(self.memory.read(beat, width), beat == last, error))
        return words

    def read(self, client: int, address: int, size: int) -> int:
        """Asks for bytes and expects them; returns how many beats come."""
        words = self.answer(address, size)
        self.ask(client, address, size)
        self.sinks[f"beats__{client}"].expect(f"read {self.asked}, {size} bytes at {address:#x}", words)
        self._cover(address, size)
        return len(words)

    def ask(self, client: int, address: int, size: int) -> None:
        """Asks for bytes."""
        self.asked += 1
        self.sources[f"read__{client}"].send([fields((address, ADDRESS_BITS), (size, LENGTH_BITS))])

    def write(self, address: int, size: int, error: Any = Error.NONE) -> bytes:
        """Writes random bytes, expects how it ends, and copies them (or guards what they must not touch)."""
        content = self.random.randbytes(size)
        self.sources["write"].send([fields((address, ADDRESS_BITS), (size, LENGTH_BITS))])
        width = self.config.bus_bytes
        start, end = address // width * width, -(-(address + size) // width) * width
        image = bytearray(self.random.randbytes(end - start))
        image[address - start : address - start + size] = content
        words = [int.from_bytes(image[i : i + width], "little") for i in range(0, len(image), width)]
        self.sources["data"].send(words if size else [])
        self.sinks["done"].expect(f"write of {size} bytes at {address:#x}", [error.value])
        self._copy(address, b"" if error == Error.TIMEOUT else content[: self.inside(address, size)])
        self._cover(address, size)
        return content

    def inside(self, address: int, size: int) -> int:
        """Bytes of a range that come before its first burst outside the windows."""
        outside = (at for at, _ in bursts(self.config, address, size) if not self.allowed(at))
        return max(next(outside, address + size) - address, 0)

    def _guard(self, page: int) -> bytearray:
        if page not in self.written:
            self.written[page] = bytearray(self.memory.page(page))
        return self.written[page]

    def _copy(self, address: int, content: bytes) -> None:
        """Puts bytes into the copy, and the pages beside them."""
        first, last = address // PAGE, (address + max(len(content), 1) - 1) // PAGE
        for page in range(max(first - 1, 0), last + 2):
            self._guard(page)
        for i, byte in enumerate(content):
            self._guard((address + i) // PAGE)[(address + i) % PAGE] = byte

    def read_until(self, client: int, address: int, size: int, channel: str, left: int) -> int:
        """Asks for bytes of a memory that falls silent.

        Args:
            client: who asks.
            address, size: what for.
            channel: that falls silent, "ar" or "r".
            left: transfers on it before it does.

        Returns:
            Transfers left; -1 if this request does not get all its beats.
        """
        words = self.answer(address, size)
        needs = [beats for _, beats in bursts(self.config, address, size)]
        come = left if channel == "r" else sum(needs[:left])
        enough = come >= len(words)
        self.ask(client, address, size)
        expected = words if enough else [*words[:come], self.end_word(Error.TIMEOUT)]
        self.sinks[f"beats__{client}"].expect(f"read {self.asked}", expected)
        return left - (len(words) if channel == "r" else len(needs)) if enough else -1

    def forgive(self, address: int, size: int) -> None:
        """Takes over what a failed write left in its range."""
        self._copy(address, self.memory.read(address, size))

    def compare(self) -> None:
        """Compares the memory with the copy, guard bytes included."""
        for page, content in self.written.items():
            found = self.memory.page(page)
            if found != content:
                at = next(i for i in range(PAGE) if found[i] != content[i])
                raise StreamError(
                    f"byte {page * PAGE + at:#x} is {found[at]:#04x} instead of {content[at]:#04x}"
                )

    def _cover(self, address: int, size: int) -> None:
        hit, width = self.coverage.hit, self.config.bus_bytes
        cut = list(bursts(self.config, address, size))
        hit("request of one byte", size == 1)
        hit("unaligned start", address % width)
        hit("unaligned end", (address + size) % width)
        hit("burst of one beat", any(beats == 1 for _, beats in cut))
        hit("longest burst", any(beats == self.config.kvmu.burst_beats for _, beats in cut))
        hit("burst ends at a 4 KiB edge", any((at + beats * width) % PAGE == 0 for at, beats in cut))
        hit("request crosses a 4 KiB edge", size and address // PAGE != (address + size - 1) // PAGE)
        hit("more bursts than may be in flight", len(cut) > self.config.kvmu.outstanding)

    async def wait_for_sinks(self) -> None:
        """Until all that is expected has come, though the memory may owe something."""
        await super().drain()


class RamBench(RamSide, AxiBench):
    """The same master on cocotbext-axi's memory, where the addresses begin at 0."""

    def __init__(self, dut: Any, config: Config, seed: str) -> None:
        super().__init__(dut, config, seed)
        self.attach(64 * PAGE)
        for page in range(64):
            self.ram.write(page * PAGE, bytes(self.memory.page(page)))

    def compare(self) -> None:
        """Compares what cocotbext-axi's memory holds now."""
        for page in self.written:
            self.memory.page(page)[:] = self.ram.read(page * PAGE, PAGE)
        super().compare()

    async def finish(self) -> None:
        """As any bench; our own memory counted nothing."""
        await self.drain()
        await Bench.finish(self)


def make(dut: Any, config: Config, seed: str) -> AxiBench:
    """Bench of one case."""
    return AxiBench(dut, config, seed)


def make_ram(dut: Any, config: Config, seed: str) -> RamBench:
    """Bench of one case on cocotbext-axi's memory."""
    return RamBench(dut, config, seed)


def lengths(config: Config) -> list[int]:
    """Lengths round every boundary of beats, bursts and pages."""
    width = config.bus_bytes
    burst = width * config.kvmu.burst_beats
    around = (width, 2 * width, burst, 2 * burst, PAGE)
    return sorted({1, 2, 3, *(n + step for n in around for step in (-1, 0, 1) if n + step > 0)})


def offsets(config: Config) -> list[int]:
    """Places in a page round its beginning, beats, bursts and its end."""
    width = config.bus_bytes
    burst = width * config.kvmu.burst_beats
    around = (0, width, burst, PAGE - burst, PAGE - width, PAGE)
    return sorted({(n + step) % PAGE for n in around for step in (-1, 0, 1)} | {width // 2})


def sweep(bench: AxiBench, part: int = 0, parts: int = 1) -> Iterator[tuple[int, int]]:
    """(offset, length) of one part of the sweep in a random order, until the effort's cycles are used up."""
    pairs = [(offset, length) for offset in offsets(bench.config) for length in lengths(bench.config)]
    pairs = pairs[part::parts]
    bench.random.shuffle(pairs)
    cycles = scaled(80_000)
    for offset, length in pairs:
        cycles -= length // bench.config.bus_bytes * bench.cycles_per_beat
        if cycles < 0:
            return
        yield offset, length


@case(make, client=range(CLIENTS))
async def reads(bench: AxiBench, client: int) -> None:
    """Length x offset round every edge, shared out among the clients, several requests under way."""
    for number, (offset, length) in enumerate(sweep(bench, client, CLIENTS)):
        if number % 8 == 0:
            bench.stall()
            bench.memory.latency = bench.random.choice(bench.latencies)
        page = DEVICE.base + bench.random.randrange(READ_PAGES - 3)
        bench.read(client, page * PAGE + offset, length)
        if bench.random.random() < 0.1:
            await bench.drain()
    await bench.drain()


@case(make)
async def writes(bench: AxiBench) -> None:
    """Length x offset round every edge, with guard bytes."""
    for number, (offset, length) in enumerate(sweep(bench)):
        if number % 8 == 0:
            bench.stall()
            bench.memory.latency = bench.random.choice(bench.latencies)
        page = DEVICE.base + READ_PAGES + bench.random.randrange(1, 6)
        bench.write(page * PAGE + offset, length)
        if bench.random.random() < 0.1:
            await bench.drain()
    await bench.drain()


@case(make_ram)
async def other_memory(bench: RamBench) -> None:
    """The sweep on cocotbext-axi's memory."""
    for number, (offset, length) in enumerate(sweep(bench, 0, 2)):
        if number % 8 == 0:
            Bench.stall(bench)
            bench.pauses(bench.random.choice(list(PROFILES)))
        bench.read(number % CLIENTS, (DEVICE.base + number % 8) * PAGE + offset, length)
        bench.write((DEVICE.base + READ_PAGES + number % 8) * PAGE + offset, length)
        if number % 20 == 0:
            await Bench.drain(bench)


@case(make, round=range(scaled(4, 1)))
async def random(bench: AxiBench, round: int) -> None:
    """All clients at once, with errors here and there and requests outside."""
    width, most = bench.config.bus_bytes, PAGE // min(bench.cycles_per_beat, 8)
    first = (DEVICE.base * PAGE) // width
    bench.memory.bad_beats = {
        first + bench.random.randrange(DEVICE.pages * PAGE // width) for _ in range(6 * DEVICE.pages)
    }
    for _ in range(scaled(20, 4)):
        bench.stall()
        size = 0
        for _ in range(6):
            size = bench.random.choice([bench.random.randint(1, 3 * width), bench.random.randint(1, most)])
            client = bench.random.randrange(CLIENTS)
            page = bench.random.choice([DEVICE.base + bench.random.randrange(READ_PAGES), HOST.base + 1, 3])
            bench.read(client, page * PAGE + bench.random.randrange(PAGE), size)
        # A burst fails as a whole, so any of its beats will do.
        address = (DEVICE.base + READ_PAGES + bench.random.randrange(1, 8)) * PAGE + bench.random.randrange(
            PAGE
        )
        touched = {at // width + i for at, beats in bursts(bench.config, address, size) for i in range(beats)}
        bad = bool(touched & bench.memory.bad_beats)
        bench.write(address, size, Error.RESPONSE if bad else Error.NONE)
        bench.coverage.hit("reads and writes at once")
        await bench.drain()


EDGES = {
    "below the device window": (DEVICE.base * PAGE - 40, 30),
    "just below the device window": (DEVICE.base * PAGE - 1, 2),
    "into the end of the device window": ((DEVICE.base + DEVICE.pages) * PAGE - 100, 300),
    "behind the device window": ((DEVICE.base + DEVICE.pages) * PAGE, 1),
    "before the host window": (HOST.base * PAGE - 5000, 9000),
    "past the last address": ((1 << ADDRESS_BITS) - 300, 5000),
    "far away": (0, 20),
    "no bytes": (DEVICE.base * PAGE + 64, 0),
    "no bytes at an odd address": (DEVICE.base * PAGE + 65, 0),
    "the largest": ((DEVICE.base + DEVICE.pages) * PAGE - 200, (1 << LENGTH_BITS) - 1),
}
"""(address, bytes) of requests that are not or not wholly inside."""


@case(make, client=range(CLIENTS))
async def outside_reads(bench: AxiBench, client: int) -> None:
    """What lies outside the windows is never read; the next request works."""
    for name, (address, size) in EDGES.items():
        bench.stall()
        bench.read(client, address, size)
        bench.read(client, DEVICE.base * PAGE + 77, 200)
        bench.coverage.hit(f"read {name}")
    await bench.drain()


@case(make)
async def outside_writes(bench: AxiBench) -> None:
    """What lies outside the windows is never written; the next request works."""
    for name, (address, size) in EDGES.items():
        bench.stall()
        if name == "the largest":
            size = 9000
        bench.write(address, size, Error.OUTSIDE)
        bench.write((DEVICE.base + READ_PAGES + 2) * PAGE + 77, 200)
        bench.coverage.hit(f"write {name}")
        await bench.drain()


@case(make)
async def failing_beats(bench: AxiBench) -> None:
    """An error on the first beat, on the last, on any between; the next request works."""
    width = bench.config.bus_bytes
    size = min(3 * width * bench.config.kvmu.burst_beats, 2 * PAGE) // width * width
    for place in ("first", "middle", "last"):
        bench.stall()
        at = DEVICE.base * PAGE
        beat = {"first": 0, "middle": size // width // 2, "last": size // width - 1}[place]
        bench.memory.bad_beats = {at // width + beat}
        for client in range(CLIENTS):
            bench.read(client, at, size)
            bench.read(client, at + size, size)
        await bench.drain()
        bench.coverage.hit(f"read fails on its {place} beat")
        at = (DEVICE.base + READ_PAGES + 1) * PAGE
        bench.memory.bad_beats = {at // width + beat}
        bench.write(at, size, Error.RESPONSE)
        bench.write(at + size, size)
        await bench.drain()
        bench.coverage.hit(f"write fails on its {place} beat")


@case(make, client=(0, BUFFERED), channel=("ar", "r"))
async def silent_read(bench: AxiBench, client: int, channel: str) -> None:
    """A memory that stops to take bursts or to answer: all requests end, those queued behind as well."""
    width, kvmu = bench.config.bus_bytes, bench.config.kvmu
    for before in (0, 1, kvmu.burst_beats - 1, kvmu.burst_beats, bench.random.randrange(200)):
        bench.stall("light")
        bench.memory.allow = {channel: before}
        # Beats that still come.
        left = before
        while left >= 0:
            address = DEVICE.base * PAGE + bench.random.randrange(PAGE)
            size = bench.random.randint(1, min(3 * width * kvmu.burst_beats, PAGE))
            left = bench.read_until(client, address, size, channel, left)
        for _ in range(2 * kvmu.outstanding + 5):
            bench.ask(
                client, DEVICE.base * PAGE + bench.random.randrange(PAGE), bench.random.randint(1, PAGE)
            )
            bench.sinks[f"beats__{client}"].expect("read behind", [bench.end_word(Error.TIMEOUT)])
        await bench.wait_for_sinks()
        bench.coverage.hit(f"silence on {channel}")
        bench.coverage.hit("answers come after their request ended", not bench.memory.idle)
        await bench.clear()
        for other in range(CLIENTS):
            bench.read(other, DEVICE.base * PAGE + 333, 500)
        await bench.drain()


@case(make)
async def silent_for_all(bench: AxiBench) -> None:
    """No answer for anybody; the next requests wait for the late answers and are right."""
    for _ in range(scaled(4, 1)):
        bench.stall("light")
        bench.memory.allow = {"r": 0}
        for client in range(CLIENTS):
            bench.ask(client, DEVICE.base * PAGE + 100 * client, 1000)
            bench.sinks[f"beats__{client}"].expect("read", [bench.end_word(Error.TIMEOUT)])
        await bench.wait_for_sinks()
        for client in range(CLIENTS):
            bench.read(client, DEVICE.base * PAGE + PAGE + 100 * client, 500)
        await bench.steps(TIMEOUT // 2)
        bench.coverage.hit("request waits for late answers")
        await bench.clear()
        await bench.drain()


@case(make, channel=("aw", "w", "b"))
async def silent_write(bench: AxiBench, channel: str) -> None:
    """A memory that stops in the middle of a write: it ends, and so does one behind it; then all is well."""
    width, kvmu = bench.config.bus_bytes, bench.config.kvmu
    size = min((kvmu.outstanding + 2) * width * kvmu.burst_beats, 2 * PAGE)
    address = (DEVICE.base + READ_PAGES + 1) * PAGE + 5
    behind = (DEVICE.base + READ_PAGES + 5) * PAGE
    count = len(list(bursts(bench.config, address, size)))
    transfers = -(-size // width) if channel == "w" else count
    for before in sorted({0, 1, kvmu.burst_beats // 2, kvmu.burst_beats, transfers - 1}):
        if before >= transfers:
            continue
        bench.stall("light")
        bench.memory.allow = {channel: before}
        bench.write(address, size, Error.TIMEOUT)
        bench.write(behind, 3 * width, Error.TIMEOUT)
        await bench.wait_for_sinks()
        bench.coverage.hit(f"silence on {channel}")
        bench.write(behind + PAGE, 4 * width)
        await bench.steps(TIMEOUT // 2)
        await bench.clear()
        bench.forgive(address, size)
        await bench.drain()


@case(make, round=range(scaled(3, 1)))
async def silent_at_random(bench: AxiBench, round: int) -> None:
    """Silences about as long as the time-out: a request is right, or right until it ends with a time-out."""
    most = PAGE // min(bench.cycles_per_beat, 8)
    for client in range(CLIENTS):
        sink = bench.sinks[f"beats__{client}"]
        assert isinstance(sink, ForgivingSink)
        sink.timeout_word = bench.end_word(Error.TIMEOUT)
    for _ in range(scaled(6, 2)):
        bench.stall()
        for _ in range(12):
            size = bench.random.choice([bench.random.randint(1, 100), bench.random.randint(1, most)])
            bench.read(
                bench.random.randrange(CLIENTS), DEVICE.base * PAGE + bench.random.randrange(PAGE), size
            )
        for _ in range(3):
            bench.memory.allow = {bench.random.choice(["ar", "r"]): bench.random.randrange(60)}
            await bench.steps(bench.random.randint(TIMEOUT // 2, 3 * TIMEOUT))
            bench.memory.allow.clear()
            await bench.steps(bench.random.randint(1, 100))
        await bench.drain()


@case(make)
async def slow_clients(bench: AxiBench) -> None:
    """Clients that stall for longer than the time-out are no fault of the memory."""
    bench.memory.stall(PROFILES["light"])
    slow = Profile(0.1, 2 * TIMEOUT)
    ports: list[Source | Sink] = [*bench.sinks.values(), bench.sources["data"]]
    for port in ports:
        port.stalls.profile = slow
    for client in range(CLIENTS):
        bench.read(client, DEVICE.base * PAGE + 11 * client, 20 * bench.config.bus_bytes)
    bench.write((DEVICE.base + READ_PAGES + 1) * PAGE + 3, 20 * bench.config.bus_bytes)
    await bench.drain()
    bench.coverage.hit("client stalls longer than the time-out")


@case(make)
async def slow_data_of_a_write_outside(bench: AxiBench) -> None:
    """A client that is slow to give what is not written any more is no time-out of the memory."""
    slow = Profile(1.0, 2 * TIMEOUT)
    for name in ("into the end of the device window", "behind the device window"):
        address, _ = EDGES[name]
        bench.memory.stall(PROFILES["none"])
        beats = max(3 * bench.config.kvmu.burst_beats, 48)
        bench.write(address, beats * bench.config.bus_bytes, Error.OUTSIDE)
        while bench.sources["write"].queue:
            await bench.step()
        bench.sources["data"].stalls.profile = PROFILES["none"]
        await bench.steps(30)
        bench.sources["data"].stalls.profile = slow
        await bench.steps(3 * TIMEOUT)
        bench.sources["data"].stalls = Stalls(bench.random, PROFILES["none"])
        await bench.drain()
    bench.coverage.hit("data of a write outside come later than the time-out")


@case(make)
async def slow_data_of_a_write(bench: AxiBench) -> None:
    """Nor is one that is slow to give what will be written."""
    bench.stall("none")
    source = bench.sources["data"]
    beats = 3 * bench.config.kvmu.burst_beats
    bench.write((DEVICE.base + READ_PAGES + 2) * PAGE, beats * bench.config.bus_bytes)
    source.stalls = Stalls(bench.random, Profile(1.0, 1 << 30))
    await bench.steps(3 * TIMEOUT)
    source.stalls = Stalls(bench.random, PROFILES["none"])
    await bench.drain()


@case(make)
async def window_beyond_the_last_page(bench: AxiBench) -> None:
    """A window that is told to reach beyond the address space does not go on at its beginning."""
    last = (1 << PAGE_NUMBER_BITS) - 1
    bench.dut.host_base.value, bench.dut.host_pages.value = last - 1, last
    await bench.steps(4)
    for client in range(CLIENTS):
        bench.ask(client, PAGE, 8)
        bench.sinks[f"beats__{client}"].expect("read", [bench.end_word(Error.OUTSIDE)])
    await bench.drain()
    bench.dut.host_base.value, bench.dut.host_pages.value = HOST.base, HOST.pages


@case(make)
async def late_answers_block_nobody(bench: AxiBench) -> None:
    """A client that timed out and takes none of its ends; its late answers let those of others pass."""
    bench.stall("none")
    client = 0
    sink = bench.sinks[f"beats__{client}"]
    stalls, sink.stalls = sink.stalls, Stalls(bench.random, Profile(1.0, 1 << 30))
    bench.memory.allow = {"r": 0}
    # Two ends wait in the buffer behind the client, the third before it.
    for number in range(3):
        bench.ask(client, DEVICE.base * PAGE + 128 * number, 8)
        sink.expect("read", [bench.end_word(Error.TIMEOUT)])
    await bench.steps(2 * TIMEOUT)
    bench.memory.allow.clear()
    others = [other for other in range(CLIENTS) if other != client]
    for other in others:
        bench.read(other, DEVICE.base * PAGE + PAGE + other, 500)
    await bench.drain(lambda: not any(bench.sinks[f"beats__{other}"].expected for other in others))
    bench.coverage.hit("late answers of a client that takes nothing", bool(sink.expected))
    sink.stalls = stalls
    await bench.drain()


@case(make)
async def no_timeout(bench: AxiBench) -> None:
    """Time-out 0: the memory may take as long as it likes."""
    bench.dut.timeout.value = 0
    bench.memory.allow = {"r": 3, "b": 0}
    for client in range(CLIENTS):
        bench.read(client, DEVICE.base * PAGE + 11 * client, 500)
    bench.write((DEVICE.base + READ_PAGES + 1) * PAGE + 3, 100)
    await bench.steps(10 * TIMEOUT)
    bench.memory.allow.clear()
    await bench.drain()


@case(make, timeout=(1, 2, 3, 40))
async def short_timeout(bench: AxiBench, timeout: int) -> None:
    """The shortest time-outs: a request that gets no answer ends when they say, and the next one works."""
    bench.stall("none")
    bench.dut.timeout.value = timeout
    bench.memory.allow = {"r": 0, "b": 0}
    for client in range(CLIENTS):
        source, sink = bench.sources[f"read__{client}"], bench.sinks[f"beats__{client}"]
        bench.ask(client, DEVICE.base * PAGE, 1)
        sink.expect("read", [bench.end_word(Error.TIMEOUT)])
        while source.queue:
            await bench.step()
        asked = bench.cycle
        await bench.steps(timeout + TIMEOUT_LATENCY)
        if sink.expected or sink.first_seen - asked < timeout:
            raise StreamError(f"client {client} did not wait for the {timeout} cycles of the time-out")
    bench.write((DEVICE.base + READ_PAGES + 1) * PAGE, 1, Error.TIMEOUT)
    await bench.wait_for_sinks()
    bench.coverage.hit("time-out of one cycle", timeout == 1)
    bench.dut.timeout.value = TIMEOUT
    await bench.clear()
    bench.forgive((DEVICE.base + READ_PAGES + 1) * PAGE, 1)
    for client in range(CLIENTS):
        bench.read(client, DEVICE.base * PAGE + 3, 500)
    bench.write((DEVICE.base + READ_PAGES + 1) * PAGE + 5, 100)
    await bench.drain()


@case(make)
async def progress_restarts_the_timeout(bench: AxiBench) -> None:
    """Silences shorter than the time-out before each of a request's transfers do not end it."""
    bench.stall("none")
    width = bench.config.bus_bytes
    for client in range(CLIENTS):
        bench.read(client, DEVICE.base * PAGE + PAGE, min(2, bench.config.kvmu.burst_beats) * width)
        await _trickle(bench, "ar", "r", "r")
    bench.coverage.hit("silences of a read that add up to more than the time-out")
    bench.write((DEVICE.base + READ_PAGES + 1) * PAGE, width)
    await _trickle(bench, "aw", "w", "b")
    bench.coverage.hit("silences of a write that add up to more than the time-out")


async def _trickle(bench: AxiBench, *channels: str) -> None:
    """One transfer on each of the channels, each after a silence of all; then whatever is left."""
    for channel in channels:
        bench.memory.allow = dict.fromkeys(CHANNELS, 0)
        await bench.steps(3 * TIMEOUT // 4)
        bench.memory.allow[channel] = 1
        await bench.steps(10)
    bench.memory.allow.clear()
    await bench.drain()


@case(make)
async def a_buffered_client_blocks_nobody(bench: AxiBench) -> None:
    """The buffered client takes nothing at all, and the others get their beats."""
    kvmu = bench.config.kvmu
    sink = bench.sinks[f"beats__{BUFFERED}"]
    sink.stalls.profile = Profile(1.0, 1 << 30)
    asked = 0
    while asked <= 2 * kvmu.outstanding * kvmu.burst_beats:
        asked += bench.read(BUFFERED, DEVICE.base * PAGE + bench.random.randrange(PAGE), PAGE)
    for client in range(CLIENTS):
        if client != BUFFERED:
            bench.read(client, DEVICE.base * PAGE + PAGE, PAGE)
    others = [bench.sinks[f"beats__{client}"] for client in range(CLIENTS) if client != BUFFERED]
    await bench.drain(lambda: not any(other.expected for other in others))
    # The buffer holds what was asked for ahead, no beat is lost, and no time-out comes of it.
    await bench.steps(2 * TIMEOUT)
    bench.coverage.hit("buffered client full", sink.received == 0)
    sink.stalls = Stalls(bench.random, PROFILES["light"])
    await bench.drain()


@case(make)
async def reset(bench: AxiBench) -> None:
    """Reset in the middle of bursts; what follows must not notice."""
    for _ in range(scaled(12, 3)):
        bench.stall()
        for client in range(CLIENTS):
            bench.read(client, DEVICE.base * PAGE + 3, 700)
        bench.write((DEVICE.base + READ_PAGES + 1) * PAGE + 3, 700)
        await bench.steps(bench.random.randint(1, 150))
        bench.coverage.hit("reset in the middle of a burst", not bench.memory.idle)
        await bench.reset_in_work()
        bench.forgive((DEVICE.base + READ_PAGES + 1) * PAGE + 3, 700)
    for client in range(CLIENTS):
        bench.read(client, DEVICE.base * PAGE + 3, 700)
    bench.write((DEVICE.base + READ_PAGES + 1) * PAGE + 9, 700)


@case(make)
async def ready_and_valid(bench: AxiBench) -> None:
    """No valid depends on a ready of the same cycle."""
    bench.stall("heavy")
    for client in range(CLIENTS):
        bench.read(client, DEVICE.base * PAGE + 3, 700)
    bench.write((DEVICE.base + READ_PAGES + 1) * PAGE + 3, 700)
    await bench.check_ready_is_not_seen_by_valid(600)


@case(make, client=(0, BUFFERED))
async def throughput(bench: AxiBench, client: int) -> None:
    """R is busy while requests of 16 KiB follow each other and the memory takes 64 cycles."""
    kvmu = bench.config.kvmu
    bench.stall("none")
    bench.memory.latency = (LATENCY, LATENCY)
    in_flight = kvmu.outstanding * kvmu.burst_beats
    hidden = in_flight >= LATENCY + 2 * kvmu.burst_beats
    size = 16384 if hidden else 1024
    beats = sum(bench.read(client, DEVICE.base * PAGE, size) for _ in range(scaled(4, 2)))
    await bench.drain(lambda: bench.memory.counts.read_beats > 0)
    start = bench.cycle
    await bench.drain()
    busy = beats / (bench.cycle - start)
    bench.dut._log.info(f"R busy {busy:.4f} with {kvmu.outstanding} bursts of {kvmu.burst_beats} beats")
    if hidden and busy < BUSY:
        raise StreamError(f"R was busy for {busy:.3f} of the time, not {BUSY}")
