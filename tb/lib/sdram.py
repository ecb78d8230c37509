"""Testbench of the SDRAM controller: random bursts against a plain memory, with a chip that checks its rules.

Reads and writes that are under way at the same time go to rows of their own, so what must come is known when
it is asked for; between two rounds they change places.
"""

from random import Random
from typing import Any

from vrex.hw.lib.axi.burst import CACHE, INCR, PROT
from vrex.hw.lib.axi.signature import ID_BITS, Axi4Signature
from vrex.hw.lib.sdram import DECERR, READ_BEATS, SLVERR
from vrex.hw.tools.generate import SDRAM_CHIP, SDRAM_MHZ
from vrex.model.config import Config
from vrex.model.lib.sdram import SdramCommand
from vrex.tb.lib.axi_bench import AxiProbe, channel_stream, channel_widths
from vrex.tb.lib.axi_memory import PAGE
from vrex.tb.lib.bench import Bench, case, fields, scaled
from vrex.tb.lib.sdram_chip import Pins, SdramModel
from vrex.tb.lib.streams import PROFILES, Profile, Source, StreamError

IDS = 1 << ID_BITS
HALVES = 2
PAGES = 6
"""Pages of each half; a row of all banks is one."""

FIXED = 0

PAUSE_SEEN = 20
"""Cycles of the pause after power-up whose pins are looked at."""


class SdramBench(Bench):
    """Asks for bursts, and holds the chip's pins.

    Attributes:
        model: the chip.
        memory: what it must hold, as far as the bench has seen it, by address of a byte.
        reading: the half that is read; the other one is written.
        watched: the rules of AXI4 are checked.
    """

    unit = "sdram"

    def __init__(self, dut: Any, config: Config, seed: str) -> None:
        self.widths = channel_widths(Axi4Signature(data_width=config.bus_bits))
        super().__init__(dut, config, seed, ("ar", "aw", "w"), ("r", "b"))
        self.probe = AxiProbe(dut, "s_axi_", config.bus_bytes)
        self.model = SdramModel(SDRAM_CHIP, SDRAM_MHZ, Random(self.random.getrandbits(64)))
        self.memory: dict[int, int] = {}
        self.noise = Random(self.random.getrandbits(64))
        self.shown: int | None = None
        self.reading, self.watched = 0, True
        rows = self.random.sample(range(SDRAM_CHIP.bytes // PAGE), HALVES * PAGES)
        self.pages = [rows[:PAGES], rows[PAGES:]]

    def find(self, name: str) -> tuple[Any, Any, Any]:
        """A channel as a stream."""
        return channel_stream(self.dut, f"s_axi_{name}", self.widths[name])

    def word(self, channel: str, **values: int) -> int:
        """A channel's word."""
        return fields(*((values[name], bits) for name, bits in self.widths[channel].items()))

    # -- the chip ----------------------------------------------------------------------------------------

    def _count(self) -> None:
        if self.resetting:
            return
        names = {"cke", "command", "bank", "address", "mask", "dq_o", "dq_oe"}
        pins = Pins(**{name: self.number(f"pins__{name}") for name in names})
        self.shown = self.model.step(pins)
        if self.model.violations:
            raise StreamError("; ".join(self.model.violations))

    def _drive(self) -> None:
        super()._drive()
        width = SDRAM_CHIP.width
        self.dut.pins__dq_i.value = self.noise.getrandbits(width) if self.shown is None else self.shown

    def _sample(self) -> list[Source]:
        if self.watched:
            self.probe.sample()
        return super()._sample()

    async def reset(self) -> None:
        """The chip starts anew as well, which is more than a reset does to it."""
        self.probe.monitor.reset()
        self.model.power_up()
        await super().reset()
        await self._pass_pause()

    async def _pass_pause(self) -> None:
        """Most of the pause after power-up, in which nothing happens, without looking at every signal."""
        for _ in range(SDRAM_CHIP.cycles(SDRAM_MHZ).init - PAUSE_SEEN):
            self._clock.value = 0
            await self._half
            self._clock.value = 1
            await self._half
            self.cycle += 1
            self.model.cycle += 1

    # -- traffic -----------------------------------------------------------------------------------------

    def place(self, half: int) -> tuple[int, int]:
        """A burst in the pages of a half: address and beats."""
        width, rng = self.config.bus_bytes, self.random
        page = rng.choice(self.pages[half])
        longest = min(256, PAGE // width)
        beats = rng.choice([1, 1, 2, rng.randint(1, 16), rng.randint(1, 16)])
        if rng.random() < 0.02:
            beats = longest
        first = rng.randrange(PAGE // width - beats + 1)
        self.coverage.hit("burst of one beat", beats == 1)
        self.coverage.hit("longest burst", beats == longest)
        row_bytes = SDRAM_CHIP.columns * SDRAM_CHIP.width // 8
        crosses = first * width // row_bytes != ((first + beats) * width - 1) // row_bytes
        self.coverage.hit("burst goes on in another bank", crosses)
        return page * PAGE + first * width, beats

    def address(self, key: int, at: int, beats: int, **other: int) -> int:
        """A burst on AR or AW."""
        size = self.config.bus_bytes.bit_length() - 1
        rest = {"size": size, "burst": INCR, "cache": CACHE, "prot": PROT} | other
        return self.word("ar", id=key, addr=at, len=beats - 1, **rest)

    def held(self, at: int, size: int) -> bytes:
        """Bytes that must be there."""
        for address in range(at, at + size):
            if address not in self.memory:
                self.memory[address] = self.model.bytes(address, 1)[0]
        return bytes(self.memory[address] for address in range(at, at + size))

    def read(self, at: int, beats: int, resp: int = 0, **other: int) -> None:
        """Asks for a burst and expects it; the data of one that fails do not matter."""
        width, key = self.config.bus_bytes, self.random.randrange(IDS)
        self.sources["ar"].send([self.address(key, at, beats, **other)])
        words = []
        for beat in range(beats):
            data = 0 if resp else int.from_bytes(self.held(at + beat * width, width), "little")
            words.append(self.word("r", id=key, data=data, resp=resp, last=beat == beats - 1))
        blank = dict.fromkeys(self.widths["r"], 0)
        hidden = self.word("r", **blank | {"data": (1 << 8 * width) - 1}) if resp else 0
        self.sinks["r"].expect(f"read of {beats} beats at {at:#x} as {key}", words, ~hidden)

    def write(self, at: int, beats: int, resp: int = 0, **other: int) -> None:
        """Writes random bytes of a burst and expects its response; one that fails changes nothing."""
        width, rng = self.config.bus_bytes, self.random
        key = rng.randrange(IDS)
        self.sources["aw"].send([self.address(key, at, beats, **other)])
        size = beats * width
        data = rng.randbytes(size)
        strobe = rng.choice([(1 << size) - 1, rng.getrandbits(size), 0])
        self.coverage.hit("write of some bytes", strobe and strobe != (1 << size) - 1)
        self.coverage.hit("write of no bytes", not strobe)
        words = []
        for beat in range(beats):
            part = int.from_bytes(data[beat * width : (beat + 1) * width], "little")
            enabled = strobe >> beat * width & (1 << width) - 1
            words.append(self.word("w", data=part, strb=enabled, last=beat == beats - 1))
        self.sources["w"].send(words)
        self.sinks["b"].expect(f"write of {beats} beats at {at:#x}", [self.word("b", id=key, resp=resp)])
        if not resp:
            self.held(at, size)
            for i, byte in enumerate(data):
                if strobe >> i & 1:
                    self.memory[at + i] = byte

    def traffic(self, bursts: int) -> None:
        """Random bursts of both kinds, each in its half."""
        for _ in range(bursts):
            if self.random.random() < 0.5:
                self.read(*self.place(self.reading))
            else:
                self.write(*self.place(1 - self.reading))

    async def round(self, bursts: int) -> None:
        """Traffic until all of it is answered, then the halves change places."""
        self.traffic(bursts)
        await self.drain()
        self.reading = 1 - self.reading

    async def finish(self) -> None:
        """Also compares all that was written with the chip's contents."""
        await super().finish()
        for address, byte in self.memory.items():
            found = self.model.bytes(address, 1)[0]
            if found != byte:
                raise StreamError(f"byte {address:#x} is {found:#04x} instead of {byte:#04x}")
        self.coverage.hit("refresh", self.model.refreshes > 8)


def make(dut: Any, config: Config, seed: str) -> SdramBench:
    """Bench of the unit."""
    return SdramBench(dut, config, seed)


@case(make, profile=(*PROFILES, None))
async def bursts(bench: SdramBench, profile: str | None) -> None:
    """Random bursts of both kinds, under stalls of every kind."""
    for _ in range(scaled(8, 2)):
        bench.stall(profile)
        await bench.round(scaled(40, 10))


@case(make)
async def same_bank(bench: SdramBench) -> None:
    """Each burst wants another row of one bank: as much of the rows' times as there can be."""
    bench.stall("none")
    for _ in range(scaled(30, 5)):
        for half in (0, 1):
            for page in bench.pages[half]:
                at = page * PAGE
                (bench.read if half == bench.reading else bench.write)(at, 1)
        await bench.drain()
        bench.reading = 1 - bench.reading
    counts = bench.model.counts
    if counts[SdramCommand.ACTIVATE] < scaled(30, 5) * PAGES:
        raise StreamError(f"{counts}: rows stay open")


@case(make)
async def open_row(bench: SdramBench) -> None:
    """Bursts in one row need it opened once, and again after a refresh; their words come one a cycle."""
    bench.stall("none")
    beats = scaled(40, 8)
    at = bench.pages[0][0] * PAGE
    for _ in range(beats):
        bench.read(at, 8)
    await bench.drain()
    counts = bench.model.counts
    opened, refreshed = counts[SdramCommand.ACTIVATE], counts[SdramCommand.REFRESH]
    bench.coverage.hit("row stays open", opened < beats)
    if opened > 2 + refreshed:
        raise StreamError(f"{opened} ACTIVATEs for one row and {refreshed} REFRESHes")


@case(make)
async def slow_taker(bench: SdramBench) -> None:
    """Nobody takes what is read: the controller asks for no more than it has room for."""
    bench.stall("none")
    # The start takes longer than the bench waits below.
    bench.read(bench.pages[0][0] * PAGE, 1)
    await bench.drain()
    sink = bench.sinks["r"]
    sink.stalls.profile = PROFILES["bursts"]
    words = bench.config.bus_bits // SDRAM_CHIP.width
    for _ in range(scaled(6, 2)):
        before = bench.model.counts.get(SdramCommand.READ, 0)
        for _ in range(4):
            bench.read(bench.pages[0][1] * PAGE, READ_BEATS)
        await bench.drain()
        bench.coverage.hit("no room for beats", bool(sink.blocked))
        if bench.model.counts[SdramCommand.READ] - before != 4 * READ_BEATS * words:
            raise StreamError("words were read that nobody asked for")
    # None is taken for much longer than all of them take to be read.
    before = bench.model.counts[SdramCommand.READ]
    for _ in range(4):
        bench.read(bench.pages[0][1] * PAGE, READ_BEATS)
    sink.stalls.profile = Profile(1.0)
    await bench.steps(20 * READ_BEATS * words)
    if bench.model.counts[SdramCommand.READ] - before != READ_BEATS * words:
        raise StreamError("words were read without room for them, or not as many as there is room for")
    sink.stalls.profile = PROFILES["none"]
    await bench.drain()


@case(make)
async def refused(bench: SdramBench) -> None:
    """Bursts that are no whole beats in a row, or beyond the chip: an error, and nothing changes."""
    width, bench.watched = bench.config.bus_bytes, False
    for _ in range(scaled(20, 4)):
        bench.stall()
        at, beats = bench.place(1 - bench.reading)
        choice = bench.random.randrange(3)
        what: dict[str, int] = [{"burst": FIXED}, {"size": 0}, {}][choice]
        resp = DECERR if choice == 2 else SLVERR
        if choice == 2:
            at += SDRAM_CHIP.bytes * bench.random.randint(1, 1 << 20)
        beats = min(beats, 16)
        bench.held(at % SDRAM_CHIP.bytes, beats * width)
        (bench.read if bench.random.random() < 0.5 else bench.write)(at, beats, resp, **what)
        bench.coverage.hit("burst beyond the chip", choice == 2)
        bench.coverage.hit("burst of an unknown kind", choice != 2)
        bench.traffic(4)
        await bench.drain()


@case(make)
async def idle(bench: SdramBench) -> None:
    """Nothing is asked for: the refreshes go on."""
    await bench.round(2)
    before = bench.model.refreshes
    cycles = scaled(20_000, 2_000)
    await bench.steps(cycles)
    least = int(cycles / (SDRAM_CHIP.refresh * SDRAM_MHZ / 1000))
    if bench.model.refreshes - before < least:
        raise StreamError(f"{bench.model.refreshes - before} REFRESHes in {cycles} cycles")
    await bench.round(10)


@case(make)
async def ready_and_valid(bench: SdramBench) -> None:
    """No valid depends on a ready of the same cycle."""
    bench.stall("heavy")
    bench.read(bench.pages[0][0] * PAGE, 1)
    await bench.drain()
    bench.traffic(60)
    await bench.check_ready_is_not_seen_by_valid(600)


@case(make)
async def reset(bench: SdramBench) -> None:
    """Reset in the middle of bursts; what follows must not notice, and the chip starts anew."""
    for _ in range(scaled(4, 2)):
        bench.stall("light")
        await bench.round(4)
        for _ in range(6):
            bench.read(*bench.place(bench.reading))
        await bench.steps(bench.random.randint(20, 120))
        bench.coverage.hit("reset in the middle of a burst", bool(bench.sinks["r"].expected))
        await bench.reset_in_work()
    await bench.round(10)
