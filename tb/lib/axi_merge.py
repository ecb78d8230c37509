"""Testbench of AXI4 ports merged into one: every beat, response and byte of every port, in any order.

Each channel of a port is a stream of its signals, so each side is driven with stalls and checked as every
stream is. Reads and writes use pages of their own, writing ports one each, so what must come is known when it
is asked for. The memory behind the port reorders, mixes and stalls, and checks the protocol.
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

from cocotbext.axi import AxiBus, AxiMasterRead, AxiMasterWrite, AxiRam, AxiReadBus, AxiWriteBus

from vrex.hw.lib.axi.burst import CACHE, INCR, PROT
from vrex.hw.lib.axi.signature import ID_BITS, Axi4Signature
from vrex.hw.tools.generate import MERGED_BEATS, MERGED_BURSTS, MERGED_PORTS
from vrex.model.config import Config
from vrex.tb.lib.axi_bench import AxiProbe, MemoryBench, channel_stream, channel_widths
from vrex.tb.lib.axi_memory import PAGE, AxiMemory
from vrex.tb.lib.bench import Bench, case, fields, scaled
from vrex.tb.lib.streams import PROFILES, Profile, Sink, Source, Stalls, StreamError

IDS = 1 << ID_BITS
READ_PAGES = range(0x10, 0x18)
WRITE_PAGES = [range(0x20 + 4 * port, 0x24 + 4 * port) for port in range(MERGED_PORTS)]

BUFFERED = MERGED_PORTS - 1
"""The port of either kind that has a buffer."""

TURNS = {channel: [port for port in range(MERGED_PORTS) if port != BUFFERED] for channel in ("ar", "aw")}
"""Ports that go in turn right where they are; a buffered one's addresses wait behind it."""

OTHER_PAGES = 16
"""Pages of cocotbext-axi's memory: each reading port, each writing port has two of its own."""

LONGEST = 16
"""Beats of a burst; now and then there is one as long as a page or the bus allows."""

DRAIN_CYCLES = 5_000
"""Most cycles from a drain to `idle`, with a memory that answers."""


class IdSink(Sink):
    """Checks answers that have an id in their lowest bits: those of an id come in order."""

    overtaken = 0

    def _check_word(self, payload: int) -> None:
        key = payload % IDS
        found = next((i for i, expected in enumerate(self.expected) if expected.word % IDS == key), None)
        if found is None:
            raise StreamError(f"{self.name}: an answer came that nobody asked for, {payload:#x}")
        self.overtaken += found > 0
        self.expected.rotate(-found)
        super()._check_word(payload)
        self.expected.rotate(found)


class MergeMemory(AxiMemory):
    """Notes the order of the bursts: (channel, port) of each."""

    def __post_init__(self) -> None:
        self.order: list[tuple[str, int]] = []
        super().__post_init__()

    def _accept(self, name: str, payload: dict[str, int]) -> None:
        super()._accept(name, payload)
        self.order.append((name, payload["id"] >> ID_BITS))


class MergeBench(MemoryBench):
    """Asks for bursts on every port.

    Attributes:
        waited: of each port with an address that waits, how many others have gone first.
    """

    unit = "merge"
    windows = ()
    ids = IDS << (MERGED_PORTS - 1).bit_length()
    memory_type = MergeMemory
    memory: MergeMemory

    def __init__(self, dut: Any, config: Config, seed: str) -> None:
        self.widths = channel_widths(Axi4Signature(data_width=config.bus_bits))
        ports = range(MERGED_PORTS)
        inputs = [f"{name}{port}" for port in ports for name in ("ar", "aw", "w")]
        outputs = [f"{name}{port}" for port in ports for name in ("r", "b")]
        self.longest = min(256, PAGE // config.bus_bytes)
        super().__init__(dut, config, seed, inputs, outputs)
        self.memory.write_ids, self.memory.outstanding = self.ids, MERGED_BURSTS
        self.memory.longest = self.longest
        self.probes = [
            AxiProbe(dut, f"{kind}_axi__{port}_", config.bus_bytes, channels)
            for kind, channels in (("read", ("ar", "r")), ("write", ("aw", "w", "b")))
            for port in ports
        ]
        for name, sink in self.sinks.items():
            self.sinks[name] = IdSink(name, sink.stalls.rng)
        self.waited: Counter[str] = Counter()
        self.counted: Counter[str] = Counter()
        # Pages as they must be in the end, as they were when nothing was under way, and what was written
        # since.
        self.written: dict[int, bytearray] = {}
        self.settled: dict[int, bytes] = {}
        self.under_way: list[tuple[int, bytes, int]] = []

    def find(self, name: str) -> tuple[Any, Any, Any]:
        """A channel of a port as a stream."""
        channel, port = name[:-1], name[-1]
        prefix = f"{'read' if channel in ('ar', 'r') else 'write'}_axi__{port}_{channel}"
        return channel_stream(self.dut, prefix, self.widths[channel])

    def word(self, channel: str, **values: int) -> int:
        """A channel's word."""
        return fields(*((values[name], bits) for name, bits in self.widths[channel].items()))

    def address(self, key: int, at: int, beats: int) -> int:
        """A burst on AR or AW."""
        size = self.config.bus_bytes.bit_length() - 1
        rest = {"size": size, "burst": INCR, "cache": CACHE, "prot": PROT}
        return self.word("ar", id=key, addr=at, len=beats - 1, **rest)

    def place(self, pages: range) -> tuple[int, int]:
        """A burst inside some pages: address and beats."""
        width, rng = self.config.bus_bytes, self.random
        page = rng.choice(pages)
        beats = rng.choice([1, 1, 2, rng.randint(1, min(LONGEST, self.longest)), self.longest // 8 or 1])
        if rng.random() < 0.03:
            beats = self.longest
        first = rng.randrange(PAGE // width - beats + 1)
        if rng.random() < 0.2:
            first = PAGE // width - beats
        self.coverage.hit("burst of one beat", beats == 1)
        self.coverage.hit("longest burst", beats == self.longest)
        self.coverage.hit("burst ends at a 4 KiB edge", first + beats == PAGE // width)
        return page * PAGE + first * width, beats

    def read(self, port: int, at: int, beats: int, key: int | None = None) -> None:
        """Asks for a burst and expects it."""
        width = self.config.bus_bytes
        key = self.random.randrange(IDS) if key is None else key
        self.sources[f"ar{port}"].send([self.address(key, at, beats)])
        words = []
        for beat in range(beats):
            start = at + beat * width
            data = int.from_bytes(self.memory.read(start, width), "little")
            bad = start // width in self.memory.bad_beats
            self.coverage.hit("read fails", bad)
            words.append(self.word("r", id=key, data=data, resp=2 * bad, last=beat == beats - 1))
        self.expect(f"r{port}", f"read of {beats} beats at {at:#x} as {key}", words)

    def write(self, port: int, at: int, beats: int, key: int | None = None) -> None:
        """Writes random bytes of a burst and expects its response."""
        width, rng = self.config.bus_bytes, self.random
        key = rng.randrange(IDS) if key is None else key
        self.sources[f"aw{port}"].send([self.address(key, at, beats)])
        data = rng.randbytes(beats * width)
        strobe = rng.choice([(1 << beats * width) - 1, rng.getrandbits(beats * width)])
        words = []
        for beat in range(beats):
            part = int.from_bytes(data[beat * width : (beat + 1) * width], "little")
            enabled = strobe >> beat * width & (1 << width) - 1
            words.append(self.word("w", data=part, strb=enabled, last=beat == beats - 1))
        self.sources[f"w{port}"].send(words)
        bad = any(at // width + beat in self.memory.bad_beats for beat in range(beats))
        self.coverage.hit("write fails", bad)
        response = self.word("b", id=key, resp=2 * bad)
        self.expect(f"b{port}", f"write of {beats} beats at {at:#x} as {key}", [response])
        page = at // PAGE
        self.settled.setdefault(page, bytes(self.memory.page(page)))
        self.under_way.append((at, data, strobe))
        copy = self.written.setdefault(page, bytearray(self.memory.page(page)))
        for i, byte in enumerate(data):
            if strobe >> i & 1:
                copy[at % PAGE + i] = byte

    def expect(self, name: str, what: str, words: Sequence[int]) -> None:
        """Queues answers; only the upper bit of `resp` tells an error."""
        mask = ~self.word(name[:-1], **dict.fromkeys(self.widths[name[:-1]], 0) | {"resp": 1})
        self.sinks[name].expect(what, words, mask)

    def traffic(self, bursts: int) -> None:
        """Random bursts on every port."""
        for _ in range(bursts):
            port = self.random.randrange(MERGED_PORTS)
            if self.random.random() < 0.5:
                self.read(port, *self.place(READ_PAGES))
            else:
                self.write(port, *self.place(WRITE_PAGES[port]))

    def _sample(self) -> list[Source]:
        asking = [name for name, source in self.sources.items() if source.valid and name[0] == "a"]
        taken = super()._sample()
        for probe in self.probes:
            probe.sample()
        for name in ("read_beats", "write_beats"):
            self.counted[name] += self.number(name)
        names = {source.name for source in taken}
        for channel, ports in TURNS.items():
            waiting = [name for name in asking if name[:-1] == channel and int(name[-1]) in ports]
            gone = [name for name in waiting if name in names]
            if len(gone) > 1:
                raise StreamError(f"{' and '.join(gone)} went at once")
            for name in waiting:
                self.waited[name] = 0 if name in gone else self.waited[name] + len(gone)
                if self.waited[name] >= len(ports):
                    raise StreamError(f"{name} has waited for {self.waited[name]} others")
                self.coverage.hit(f"{channel} waits for all others", self.waited[name] == len(ports) - 1)
        return taken

    async def drain(self, until: Any = None) -> None:
        """Also compares what was written."""
        await super().drain(until)
        if until is None:
            self.compare()

    def compare(self) -> None:
        """Compares the memory with the copy."""
        for page, content in self.written.items():
            found = self.memory.page(page)
            if found != content:
                at = next(i for i in range(PAGE) if found[i] != content[i])
                raise StreamError(
                    f"byte {page * PAGE + at:#x} is {found[at]:#04x} instead of {content[at]:#04x}"
                )
            self.settled[page] = bytes(content)
        self.under_way.clear()

    def adopt(self) -> None:
        """Takes over what writes that were given up have left; nothing else may be there."""
        for page, content in self.settled.items():
            may_be = [{byte} for byte in content]
            for at, data, strobe in self.under_way:
                if at // PAGE == page:
                    for i, byte in enumerate(data):
                        may_be[at % PAGE + i] |= {byte} if strobe >> i & 1 else set()
            found = self.memory.page(page)
            for i, byte in enumerate(found):
                if byte not in may_be[i]:
                    raise StreamError(f"byte {page * PAGE + i:#x} is {byte:#04x}, which nobody has written")
            self.written[page] = bytearray(found)
        self.compare()

    async def finish(self) -> None:
        """Also compares the counters; `idle` must show."""
        await super().finish()
        counts = self.memory.counts
        if self.counted != {"read_beats": counts.read_beats, "write_beats": counts.write_beats}:
            raise StreamError(f"counted {dict(self.counted)}, but {counts} passed")
        if not self.number("idle"):
            raise StreamError("not idle, though nothing is owed")
        self.coverage.hit("answers overtake each other", any(sink.overtaken for sink in self.id_sinks))

    @property
    def id_sinks(self) -> list[IdSink]:
        """All sinks."""
        return [sink for sink in self.sinks.values() if isinstance(sink, IdSink)]

    async def reset(self) -> None:
        """No drain, and nobody has waited."""
        self.dut.drain.value = 0
        for probe in self.probes:
            probe.monitor.reset()
        self.waited.clear()
        await super().reset()

    def quiet(self) -> None:
        """What a reset of all that stands behind the ports does."""
        for source in self.sources.values():
            source.clear()
            self._signals[source.name][0].value = 0
        for sink in self.sinks.values():
            sink.clear()
        for probe in self.probes:
            probe.monitor.reset()
        self.waited.clear()

    async def empty(self) -> None:
        """Drains the port."""
        self.dut.drain.value = 1
        self.quiet()
        began = self.cycle
        while True:
            await self.step()
            open_ports = [name for name in self.sources if str(self._signals[name][1].value) != "0"]
            if open_ports:
                raise StreamError(f"{', '.join(open_ports)}: ready in a drain")
            if self.number("idle"):
                break
            if self.cycle - began > DRAIN_CYCLES:
                raise StreamError(f"not idle after {DRAIN_CYCLES} cycles of drain")
        if not self.memory.idle:
            raise StreamError("idle, though the memory owes something")
        self.adopt()
        self.dut.drain.value = 0


class OtherBench(Bench):
    """The same ports for cocotbext-axi's managers, and its memory behind them.

    Attributes:
        ram: the memory.
        readers, writers: of the ports.
    """

    unit = "merge"

    def __init__(self, dut: Any, config: Config, seed: str) -> None:
        super().__init__(dut, config, seed, (), ())
        dut.drain.value = 0
        clock = dut.clk, dut.rst
        self.ram: Any = AxiRam(AxiBus.from_prefix(dut, "m_axi"), *clock, size=OTHER_PAGES * PAGE)
        ports = range(MERGED_PORTS)
        self.readers: list[Any] = [
            AxiMasterRead(AxiReadBus.from_prefix(dut, f"read_axi__{port}"), *clock, max_burst_len=LONGEST)
            for port in ports
        ]
        self.writers: list[Any] = [
            AxiMasterWrite(AxiWriteBus.from_prefix(dut, f"write_axi__{port}"), *clock, max_burst_len=LONGEST)
            for port in ports
        ]
        for part in (self.ram.read_if, self.ram.write_if, *self.readers, *self.writers):
            part.log.setLevel("WARNING")
        self.probe = AxiProbe(dut, "m_axi_", config.bus_bytes)

    def _sample(self) -> list[Source]:
        taken = super()._sample()
        self.probe.sample()
        return taken

    def pauses(self) -> None:
        """Stalls all channels at random."""
        reads, writes = [self.ram.read_if, *self.readers], [self.ram.write_if, *self.writers]
        channels = [getattr(part, f"{name}_channel") for part in reads for name in ("ar", "r")]
        channels += [getattr(part, f"{name}_channel") for part in writes for name in ("aw", "w", "b")]
        for channel in channels:
            rng, chance = Random(self.random.getrandbits(64)), self.random.choice([0.0, 0.1, 0.7])
            channel.set_pause_generator(
                rng.random() < chance for rng, chance in itertools.repeat((rng, chance))
            )


def make_other(dut: Any, config: Config, seed: str) -> OtherBench:
    """Bench of one case on cocotbext-axi's managers and memory."""
    return OtherBench(dut, config, seed)


def make(dut: Any, config: Config, seed: str) -> MergeBench:
    """Bench of one case."""
    return MergeBench(dut, config, seed)


@case(make, round=range(scaled(6, 2)))
async def random(bench: MergeBench, round: int) -> None:
    """All ports at once, with errors here and there, whatever stalls."""
    width = bench.config.bus_bytes
    pages = [*READ_PAGES, *(page for own in WRITE_PAGES for page in own)]
    bench.memory.bad_beats = {
        (bench.random.choice(pages) * PAGE + bench.random.randrange(PAGE)) // width for _ in range(40)
    }
    for _ in range(scaled(12, 3)):
        bench.stall()
        bench.memory.latency = bench.random.choice([(1, 1), (1, 40), (60, 64)])
        bench.traffic(24)
        await bench.drain()


@case(make)
async def one_port(bench: MergeBench) -> None:
    """A port by itself moves as if there were no others."""
    for port in range(MERGED_PORTS):
        for profile in ("none", "heavy"):
            bench.stall(profile)
            for _ in range(scaled(10, 4)):
                bench.read(port, *bench.place(READ_PAGES))
                bench.write(port, *bench.place(WRITE_PAGES[port]))
            await bench.drain()


@case(make)
async def in_turn(bench: MergeBench) -> None:
    """Ports that always ask go in turn, an address a cycle at most."""
    bench.stall("none")
    for _ in range(20):
        for port in range(MERGED_PORTS):
            bench.read(port, READ_PAGES[0] * PAGE, 1)
            bench.write(port, WRITE_PAGES[port][0] * PAGE, 1)
    await bench.drain()
    for channel in ("ar", "aw"):
        # At the beginning and at the end some ask for nothing.
        ports = [port for name, port in bench.memory.order if name == channel][8:-8]
        for port, following in itertools.pairwise(ports):
            if following != (port + 1) % MERGED_PORTS:
                raise StreamError(f"{channel}: port {following} went after port {port}")


@case(make)
async def a_buffered_port_blocks_nobody(bench: MergeBench) -> None:
    """The buffered port takes nothing at all, and the others get their beats; it gets its own in the end."""
    bench.stall("light")
    sink = bench.sinks[f"r{BUFFERED}"]
    sink.stalls.profile = Profile(1.0, 1 << 30)
    asked = 0
    while asked <= 2 * MERGED_BEATS:
        at, beats = bench.place(READ_PAGES)
        bench.read(BUFFERED, at, beats)
        asked += beats
    others = [bench.sinks[f"r{port}"] for port in range(MERGED_PORTS) if port != BUFFERED]
    for _ in range(scaled(60, 20)):
        for port in range(MERGED_PORTS):
            if port != BUFFERED:
                bench.read(port, *bench.place(READ_PAGES))
    await bench.drain(lambda: not any(other.expected for other in others))
    await bench.steps(400)
    held = bench.memory.counts.read_beats - sum(other.received for other in others)
    bench.coverage.hit("buffer is full", held > MERGED_BEATS - bench.longest)
    if sink.received or held > MERGED_BEATS:
        raise StreamError(f"{held} beats in a buffer of {MERGED_BEATS}, {sink.received} were taken")
    sink.stalls = Stalls(bench.random, PROFILES["light"])
    await bench.drain()


@case(make)
async def a_gathering_port_blocks_nobody(bench: MergeBench) -> None:
    """The port with the buffer gives not all beats of a burst, and the others' bursts pass."""
    bench.stall("light")
    beats, bursts = bench.sources[f"w{BUFFERED}"], scaled(20, 10)
    others = [port for port in range(MERGED_PORTS) if port != BUFFERED]
    # First the buffer fills up, with the last beat of a burst in front of it: it counts once.
    bench.memory.allow = {"w": 0}
    for _ in range(MERGED_BEATS + 40):
        bench.write(BUFFERED, WRITE_PAGES[BUFFERED][0] * PAGE, 1)
    await bench.steps(2 * MERGED_BEATS)
    bench.coverage.hit("buffer of a port that writes is full", beats.valid)
    bench.memory.allow.clear()
    await bench.drain()
    for missing in (1, 2):
        bench.write(BUFFERED, WRITE_PAGES[BUFFERED][0] * PAGE, 3)
        held = [beats.queue.pop() for _ in range(missing)]
        before = bench.memory.counts.write_bursts
        for port in others * bursts:
            bench.write(port, *bench.place(WRITE_PAGES[port]))
        await bench.drain(lambda: not any(bench.sinks[f"b{port}"].expected for port in others))
        if beats.queue or bench.memory.counts.write_bursts - before != len(others) * bursts:
            raise StreamError("a burst went on without its last beats")
        bench.coverage.hit("burst waits for its beats")
        beats.send(reversed(held))
        await bench.drain()


@case(make, channel=("r", "w"), beats=(1, 2, 16))
async def throughput(bench: MergeBench, channel: str, beats: int) -> None:
    """R and W move a beat in every cycle, whichever ports they belong to."""
    bench.stall("none")
    bench.memory.latency = (1, 1)
    asked = scaled(60, 30) // beats + 6
    for number in range(asked):
        port = number % MERGED_PORTS
        if channel == "r":
            bench.read(port, READ_PAGES[0] * PAGE, beats)
        else:
            bench.write(port, WRITE_PAGES[port][0] * PAGE, beats)
    counts, name = bench.memory.counts, {"r": "read_beats", "w": "write_beats"}[channel]
    await bench.drain(lambda: getattr(counts, name) > 0)
    start, left = bench.cycle, asked * beats - getattr(counts, name)
    await bench.drain(lambda: getattr(counts, name) == asked * beats)
    if bench.cycle - start != left:
        raise StreamError(f"{channel}: {left} beats took {bench.cycle - start} cycles")


@case(make)
async def many_bursts(bench: MergeBench) -> None:
    """As many bursts under way as may be, in a memory that answers late."""
    bench.stall("none")
    bench.memory.allow = {"r": 0, "b": 0}
    for _ in range(MERGED_BURSTS):
        for port in range(MERGED_PORTS):
            bench.read(port, READ_PAGES[0] * PAGE, 2)
            bench.write(port, WRITE_PAGES[port][0] * PAGE, 2)
    await bench.steps(20 * MERGED_BURSTS)
    counts = bench.memory.counts
    if (counts.read_bursts, counts.write_bursts) != (MERGED_BURSTS, MERGED_BURSTS):
        raise StreamError(f"{counts.read_bursts} and {counts.write_bursts} bursts under way")
    bench.coverage.hit("as many bursts under way as may be")
    bench.memory.allow.clear()
    await bench.drain()


@case(make)
async def beats_before_address(bench: MergeBench) -> None:
    """A memory may wait for a burst's beats before it takes the address, but gets no other burst's first."""
    bench.stall("none")
    for beats in (1, 3):
        bench.memory.allow = {"aw": 0}
        before = bench.memory.counts.write_beats
        for port in range(MERGED_PORTS):
            bench.write(port, WRITE_PAGES[port][0] * PAGE, beats)
        await bench.steps(40)
        if bench.memory.counts.write_beats - before != beats:
            raise StreamError(
                f"{bench.memory.counts.write_beats - before} beats of {beats} before the address"
            )
        bench.coverage.hit("beats before their address")
        bench.memory.allow.clear()
        await bench.drain()


@case(make)
async def slow_writer(bench: MergeBench) -> None:
    """A port that gives no beats lets others' addresses pass, but not their beats."""
    bench.stall("none")
    slow = bench.sources["w0"]
    slow.stalls.profile = Profile(1.0, 1 << 30)
    bench.write(0, WRITE_PAGES[0][0] * PAGE, 3)
    bench.write(1, WRITE_PAGES[1][0] * PAGE, 3)
    await bench.steps(40)
    if bench.memory.counts.write_bursts != 2 or bench.memory.counts.write_beats:
        raise StreamError(f"{bench.memory.counts} while the first port gives no beats")
    bench.coverage.hit("beats wait for another port's")
    slow.stalls = Stalls(bench.random, PROFILES["none"])
    await bench.drain()


@case(make, round=range(scaled(20, 5)))
async def drain(bench: MergeBench, round: int) -> None:
    """A drain in the middle of everything; what follows must not notice."""
    for _ in range(2):
        bench.stall()
        bench.traffic(20)
        await bench.steps(bench.random.randint(1, 150))
        bench.coverage.hit("drain in the middle of bursts", not bench.memory.idle)
        bench.coverage.hit("drain while beats are missing", bool(bench.memory.writes))
        await bench.empty()
    bench.stall()
    bench.traffic(10)
    await bench.drain()


@case(make, channel=("ar", "aw", "w", "r", "b"))
async def drain_waits(bench: MergeBench, channel: str) -> None:
    """A drain takes as long as the memory does, and an address or beat that shows stays."""
    for _ in range(scaled(4, 2)):
        bench.stall("light")
        bench.memory.allow = {channel: bench.random.randrange(4)}
        bench.traffic(20)
        await bench.steps(bench.random.randint(40, 120))
        bench.dut.drain.value = 1
        bench.quiet()
        for _ in range(300):
            await bench.step()
            if bench.number("idle"):
                raise StreamError(f"idle, though the memory is silent on {channel}")
        bench.coverage.hit(f"drain while {channel} is silent")
        bench.memory.allow.clear()
        await bench.empty()
    bench.traffic(10)
    await bench.drain()


@case(make)
async def drain_of_nothing(bench: MergeBench) -> None:
    """A drain without traffic is idle at once."""
    bench.stall("none")
    bench.traffic(6)
    await bench.drain()
    await bench.steps(2)
    bench.dut.drain.value = 1
    await bench.step()
    if not bench.number("idle"):
        raise StreamError("not idle, though nothing is under way")
    bench.dut.drain.value = 0
    bench.traffic(6)
    await bench.drain()


@case(make)
async def reset(bench: MergeBench) -> None:
    """Reset in the middle of bursts; what follows must not notice."""
    for _ in range(scaled(8, 3)):
        bench.stall()
        bench.traffic(12)
        await bench.steps(bench.random.randint(1, 150))
        bench.coverage.hit("reset in the middle of a burst", not bench.memory.idle)
        await bench.reset_in_work()
        bench.adopt()
    bench.traffic(12)


@case(make)
async def ready_and_valid(bench: MergeBench) -> None:
    """No valid depends on a ready of the same cycle."""
    bench.stall("heavy")
    bench.traffic(60)
    await bench.check_ready_is_not_seen_by_valid(600)


@case(make_other)
async def other_managers(bench: OtherBench) -> None:
    """cocotbext-axi's managers on every port, all at once, with its memory behind."""
    contents = bytearray(bench.random.randbytes(OTHER_PAGES * PAGE))
    bench.ram.write(0, bytes(contents))
    for _ in range(scaled(10, 3)):
        bench.pauses()
        reads: list[tuple[int, int, Any]] = []
        writes: list[Any] = []
        for port in range(MERGED_PORTS):
            for _ in range(3):
                size = bench.random.randint(1, 20 * bench.config.bus_bytes)
                at = 2 * port * PAGE + bench.random.randrange(2 * PAGE - size)
                reads.append((at, size, bench.readers[port].init_read(at, size)))
                at += 2 * MERGED_PORTS * PAGE
                data = bench.random.randbytes(size)
                contents[at : at + size] = data
                writes.append(bench.writers[port].init_write(at, data))
        for event in [*writes, *(event for *_, event in reads)]:
            while not event.is_set():
                await bench.step()
        for at, size, event in reads:
            if bytes(event.data.data) != contents[at : at + size]:
                raise StreamError(f"read of {size} bytes at {at:#x} is wrong")
        if bench.ram.read(0, len(contents)) != contents:
            raise StreamError("the memory is not what was written")
    if not bench.probe.monitor.idle:
        raise StreamError("something is still owed")
