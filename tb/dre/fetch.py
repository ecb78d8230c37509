"""Testbench of FETCH: K, V and statuses byte for byte against `vrex.model.dre.dre` on the same memory.

Only what FETCH reads is made: a header, a segment map and whatever the memory holds where the segments are.
"""

from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np

from vrex.hw.dre.kvmu.fetch import RUN_BYTES
from vrex.hw.dre.kvmu.table import HEADER_BYTES
from vrex.model import commands
from vrex.model.commands import Descriptor, Opcode, Register, Status
from vrex.model.config import Config
from vrex.model.dre.dre import Dre
from vrex.model.dre.kvstore import MAP_BYTES, POISONED, Header, Table, plan
from vrex.model.lib.memory import AccessError, BusError
from vrex.tb.lib.axi_bench import WindowBench
from vrex.tb.lib.axi_memory import PAGE, AxiMemory, Window, bursts
from vrex.tb.lib.bench import beats, case, fields, scaled
from vrex.tb.lib.streams import Sink, StreamError

DEVICE = Window(0x40, 0x40000)
HOST = Window(0x800000, 0x40000)
TABLE = DEVICE.base + 3
LATENCY = 64
"""Cycles of the memory whose throughput is measured."""

KV_CLIENT = 1
"""Id of the reads of segments; header and map have the other."""

BUSY = 0.9
"""Least share of the cycles in which R moves a beat of whole segments of 16 KiB behind each other."""


class Seen:
    """The bench's memory as the model sees it.

    Args:
        memory: it.
        strict: whether windows and failing beats count.
    """

    def __init__(self, memory: AxiMemory, strict: bool) -> None:
        self.memory, self.strict = memory, strict

    def seen_through(self, device: Any, host: Any) -> "Seen":
        """The same: the bench sets the windows of both."""
        return self

    def view(self, address: int, size: int) -> np.ndarray:
        """Bytes, uint8 [size].

        Raises:
            AccessError: not inside one window.
            BusError: a beat fails.
        """
        if self.strict:
            last = address + max(size, 1) - 1
            if not any(window.holds(address) and window.holds(last) for window in self.memory.windows):
                raise AccessError(f"{size} bytes at {address:#x}")
            width = self.memory.config.bus_bytes
            if any(beat in self.memory.bad_beats for beat in range(address // width, last // width + 1)):
                raise BusError(f"{size} bytes at {address:#x}")
        return np.frombuffer(self.memory.read(address, size), dtype=np.uint8)


class FetchMemory(AxiMemory):
    """Memory that lists the bursts which read segments: first byte and beats of each, in order."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.segment_reads: list[tuple[int, int]] = []

    def _accept(self, name: str, payload: dict[str, int]) -> None:
        super()._accept(name, payload)
        if payload["id"] == KV_CLIENT:
            self.segment_reads.append((payload["addr"], payload["len"] + 1))


class PartialSink(Sink):
    """Lets words be left out while `partial`: of a failed command some may come, in order."""

    partial = False

    def _check_word(self, payload: int) -> None:
        while self.partial and self.expected and self.expected[0].word != payload:
            self.expected.popleft()
            self.asked -= 1
        super()._check_word(payload)


class FetchBench(WindowBench):
    """Makes tables, fetches from them and expects what the model gives.

    Attributes:
        working: 1 while a command is in work.
        reads: bursts that must read segments, (first byte, beats), since the last command that failed.
    """

    unit = "fetch"
    windows = (DEVICE, HOST)
    ids = 2
    channels = ("ar", "r")
    memory_type = FetchMemory
    memory: FetchMemory

    def __init__(self, dut: Any, config: Config, seed: str) -> None:
        super().__init__(dut, config, seed, inputs=("cmd", "masks"), outputs=("kv", "done"))
        self.kv = PartialSink("kv", Random(self.random.getrandbits(64)))
        self.sinks["kv"] = self.kv
        self.header: Header
        self.entries: np.ndarray
        self.in_flight = config.kvmu.outstanding * config.kvmu.burst_beats
        self.segment_beats = config.kvmu.segment_bytes // config.bus_bytes
        self.memory.latency = (1, 40) if self.in_flight > 16 else (1, 4)
        self.address = TABLE * PAGE
        self.host_beats = self.expected_host_beats = 0
        self.early = False
        self.working = 0
        self.reads: list[tuple[int, int]] = []

    async def reset(self) -> None:
        """Also drops the command in work."""
        self.working = 0
        await super().reset()
        self.forget()

    def forget(self) -> None:
        """What a command that did not end well read and gave does not count."""
        self.host_beats = self.expected_host_beats
        self.reads.clear()
        self.memory.segment_reads.clear()

    def _count(self) -> None:
        """`busy` is high from the cycle after a command was taken until its end has left.

        So is `wait_in`, but for the cycles in which a beat of K and V is there.
        """
        if self.resetting:
            return
        wait_in = int(self.working and not self.number("kv__valid"))
        for name, value in (("busy", self.working), ("wait_in", wait_in)):
            if self.number(name) != value:
                raise StreamError(f"{name} is not {value}")
        for name, working in (("cmd", 1), ("done", 0)):
            if self.number(f"{name}__valid") and self.number(f"{name}__ready"):
                self.working = working

    def _sample(self) -> list[Any]:
        taken = super()._sample()
        kv = str(self.dut.kv__valid.value) == "1" and self.kv.ready
        self.host_beats += bool(kv and int(self.dut.host_beat.value))
        return taken

    def table(self, entries: np.ndarray, clusters: int, ring: int, heads: int = 2) -> None:
        """Writes a table's header and map.

        Args:
            entries: cluster and fill of each segment, [segments, 2].
            clusters: in the table.
            ring: slots of the ring, or 0.
            heads: KV heads.
        """
        heads = min(heads, self.config.kvmu.kv_heads)
        room = max(len(entries), 1) + self.random.randrange(4)
        host_page = HOST.base + self.random.randrange(5)
        self.header = replace(
            plan(self.config, heads, max(clusters, 1), room, ring, host_page).header,
            clusters=clusters,
            segments=len(entries),
            tokens=int(entries[:, 1].sum()),
        )
        self.entries = entries
        self.memory.write(self.address, self.header.pack())
        self.memory.write(self.map_address(0), entries.astype("<u2").tobytes())

    def map_address(self, segment: int) -> int:
        """First byte of an entry of the map."""
        return self.address + self.header.map_page * PAGE + segment * MAP_BYTES

    def random_table(self, segments: int, clusters: int, ring: int, heads: int = 2) -> None:
        """A table as APPEND leaves it: clusters come in any order, most segments are full."""
        full = self.config.kvmu.segment_tokens
        entries = np.zeros((segments, 2), dtype=np.int64)
        if segments:
            runs = self.rng.integers(1, 5, segments)
            entries[:, 0] = np.repeat(self.rng.integers(0, clusters, segments), runs)[:segments]
            part = self.rng.integers(1, full + 1, segments)
            entries[:, 1] = np.where(self.rng.random(segments) < 0.6, full, part)
        self.table(entries, clusters, ring, heads)

    def rings(self, segments: int) -> list[int]:
        """No ring, one that holds everything, and one that does not."""
        least = 2 * self.config.hcu.chunk_tokens
        large = least
        while large - self.config.hcu.chunk_tokens < segments:
            large *= 2
        return [0, least, large]

    def fetch(
        self, masks: np.ndarray, kv_heads: int, clusters: int | None = None, status: Status | None = None
    ) -> Status:
        """Asks for clusters and expects what the model gives.

        Args:
            masks: bool [heads of the command, clusters].
            kv_heads: of the command.
            clusters: of the command; default: the table's.
            status: that is expected although the model knows no reason for it.
        """
        clusters = self.header.clusters if clusters is None else clusters
        payload = commands.pack_masks(self.config, list(masks)) if masks.size else b""
        command = Descriptor(
            Opcode.FETCH, kv_heads=kv_heads, clusters=clusters, address=self.address, length=len(payload)
        )
        found, kv = self._model(command, payload, strict=True)
        what = f"{int(masks.sum())} of {clusters} clusters, heads {kv_heads:#x}"
        status = found if status is None else status
        self.early = status != Status.OK
        self.kv.partial = self.early and status != Status.BAD_MASK
        if self.kv.partial:
            # What was read before the failure may come.
            kv = self._model(command, payload, strict=False)[1]
        else:
            missing = masks[:, self.header.clusters :].any(axis=1)
            delivered = masks[: missing.argmax() if missing.any() else None]
            self.expected_host_beats += self._host_beats(delivered)
            named = [head for head in range(32) if kv_heads >> head & 1]
            for head, mask in zip(named, delivered, strict=False):
                for address, size in self._runs(head, mask):
                    self.reads += bursts(self.config, address, size)
        self.kv.expect(what, beats(kv, self.config.bus_bytes))
        self.sources["cmd"].send([fields((self.address, 48), (clusters, 16), (kv_heads, 32))])
        # The rest of the bitmasks' beats is garbage.
        words = beats(payload, self.config.bus_bytes)
        per_head = self.config.beats(clusters, 1)
        for last in range(per_head - 1, len(words), per_head) if words else ():
            used = clusters - (per_head - 1) * self.config.bus_bits
            words[last] |= self.random.getrandbits(self.config.bus_bits) >> used << used
        self.sources["masks"].send(words)
        after = None if self.kv.partial else (self.kv, self.kv.asked)
        self.sinks["done"].expect(what, [status], after=after)
        return status

    def fetch_all(self, density: float, status: Status | None = None) -> None:
        """Asks for clusters of all KV heads."""
        heads = self.header.heads
        self.fetch(self.masks(heads, density), (1 << heads) - 1, status=status)

    def _model(self, command: Descriptor, payload: bytes, strict: bool) -> tuple[Status, bytes]:
        """Status and K and V of the model; not `strict`: without windows and errors of the memory."""
        golden = Dre(self.config, Seen(self.memory, strict))  # type: ignore[arg-type]
        golden.registers.values[Register.DEVICE_BASE] = DEVICE.base
        completion, _, kv = golden.execute(command, payload)
        return Status(completion.status), kv

    def _runs(self, head: int, mask: np.ndarray) -> Iterator[tuple[int, int]]:
        """First byte and bytes of each read of a head: whole segments behind each other, and one more."""
        kvmu = self.config.kvmu
        table = Table(self.config, Seen(self.memory, strict=False), self.address)  # type: ignore[arg-type]
        first = self.header.first_resident(self.config.hcu.chunk_tokens)
        start = size = 0
        for segment, (cluster, fill) in enumerate(self.entries.tolist()):
            if cluster < len(mask) and mask[cluster] and fill:
                at = table.segment_address(segment, head, first)
                whole = size % kvmu.segment_bytes == 0 and size < RUN_BYTES
                if size and at == start + size and whole:
                    size += fill * kvmu.token_bytes
                    continue
                if size:
                    yield start, size
                start, size = at, fill * kvmu.token_bytes
            elif size:
                yield start, size
                size = 0
        if size:
            yield start, size

    def _host_beats(self, masks: np.ndarray) -> int:
        """Beats of K and V of so many heads that come from the host window."""
        first = self.header.first_resident(self.config.hcu.chunk_tokens)
        away = self.entries[: min(first, len(self.entries))]
        wanted = np.zeros((len(masks), 1 << 16), dtype=bool)
        wanted[:, : masks.shape[1]] = masks
        tokens = sum(int(away[mask[away[:, 0]], 1].sum()) for mask in wanted)
        return tokens * self.config.kvmu.token_bytes // self.config.bus_bytes

    async def end(self) -> None:
        """Until the command has ended; what a failed one left out does not come any more."""
        done = self.sinks["done"]
        await self.drain(lambda: not done.expected)
        if self.early:
            self.sources["masks"].clear()
            self.dut.masks__valid.value = 0
        if self.kv.partial:
            self.kv.clear()
            self.forget()
        await self.drain()
        if self.memory.segment_reads != self.reads:
            raise StreamError(_difference(self.memory.segment_reads, self.reads))
        if self.host_beats != self.expected_host_beats:
            raise StreamError(
                f"{self.host_beats} beats were said to come from the host, not {self.expected_host_beats}"
            )

    def masks(self, heads: int, density: float, clusters: int | None = None) -> np.ndarray:
        """Random bitmasks, bool [heads, clusters], below 1 no denser than the effort can afford."""
        if density < 1:
            every = max(1, len(self.entries)) * heads * self.segment_beats
            density = min(density, max(scaled(4000), self.segment_beats) / every)
        return self.rng.random((heads, self.header.clusters if clusters is None else clusters)) < density


def _difference(found: list[tuple[int, int]], wanted: list[tuple[int, int]]) -> str:
    """The first burst that is not the one that was to be read."""
    at = next(
        (i for i, pair in enumerate(zip(found, wanted, strict=False)) if pair[0] != pair[1]),
        min(len(found), len(wanted)),
    )
    first, second = (
        f"{rows[at][1]} beats at {rows[at][0]:#x}" if at < len(rows) else "none" for rows in (found, wanted)
    )
    return f"burst {at} of {len(wanted)} that read segments is {first}, not {second}"


def make(dut: Any, config: Config, seed: str) -> FetchBench:
    """Bench of one case."""
    return FetchBench(dut, config, seed)


@case(make)
async def sizes(bench: FetchBench) -> None:
    """Maps round every boundary of beats and chunks, any ring, any density."""
    for segments in (0, 1, 2, 15, 16, 63, 64, 65, 129, 300):
        for ring in bench.rings(segments):
            bench.stall()
            bench.random_table(segments, max(segments // 2, 1), ring)
            for density in (0.0, 0.05, bench.random.choice([0.3, 1.0])):
                if density * segments * bench.segment_beats > scaled(5_000):
                    density = 0.02
                bench.fetch(bench.masks(1, density), 1 << bench.random.randrange(bench.header.heads))
                await bench.end()
            bench.coverage.hit("empty table", segments == 0)
            resident = segments - bench.header.first_resident(bench.config.hcu.chunk_tokens)
            bench.coverage.hit("no ring", ring == 0 and segments)
            bench.coverage.hit("all segments resident", resident == segments > 0)
            bench.coverage.hit("some segments resident", 0 < resident < segments)
            bench.coverage.hit("ring wraps", ring and segments > ring)


@case(make)
async def bitmasks(bench: FetchBench) -> None:
    """Numbers of clusters round every boundary of words and beats; garbage behind the last one."""
    bus = bench.config.bus_bits
    for clusters in sorted({1, 2, 31, 32, 33, bus - 1, bus, bus + 1, 2 * bus, scaled(65535, 3000)}):
        bench.stall()
        bench.random_table(40, clusters, 0)
        entries = bench.entries
        entries[:4, 0] = clusters - 1, 0, clusters - 1, clusters // 2
        bench.table(entries, clusters, 0)
        for mask in (bench.masks(1, 0.3), np.arange(clusters)[None] == clusters - 1, bench.masks(1, 0)):
            bench.fetch(mask, 1)
            await bench.end()
        # A command may know fewer clusters than the table, or more.
        if clusters > 1:
            bench.fetch(bench.masks(1, 0.5, clusters // 2), 1, clusters // 2)
            bench.coverage.hit("fewer clusters than the table")
        more = np.concatenate([bench.masks(1, 0.5), np.zeros((1, 9), dtype=bool)], axis=1)
        await bench.end()
        if clusters + 9 <= 65535:
            bench.fetch(more, 1, clusters + 9)
            bench.coverage.hit("more clusters than the table, none of them wanted")
        await bench.end()
        bench.coverage.hit("largest table", clusters == 65535)
    bench.fetch(np.zeros((1, 0), dtype=bool), 1, 0)
    bench.coverage.hit("bitmask of no clusters")
    await bench.end()


@case(make)
async def heads(bench: FetchBench) -> None:
    """Several KV heads, gaps between them, a head without a cluster."""
    most = bench.config.kvmu.kv_heads
    for _ in range(scaled(8, 2)):
        bench.stall()
        segments = bench.random.randint(1, 60)
        bench.random_table(segments, 20, bench.random.choice(bench.rings(segments)), most)
        kv_heads = bench.random.randrange(1, 1 << bench.header.heads)
        masks = bench.masks(kv_heads.bit_count(), 0.1)
        masks[:, bench.entries[0, 0]] = True
        if len(masks) > 1 and bench.random.random() < 0.5:
            masks[bench.random.randrange(len(masks))] = False
            bench.coverage.hit("head without a cluster")
        bench.fetch(masks, kv_heads)
        bench.coverage.hit("several heads", kv_heads.bit_count() > 1)
        bench.coverage.hit("gap between heads", kv_heads & (kv_heads + 1))
        await bench.end()


@case(make)
async def neighbours(bench: FetchBench) -> None:
    """Full segments behind each other, over the ring's end, from the host window into the ring."""
    full, chunk = bench.config.kvmu.segment_tokens, bench.config.hcu.chunk_tokens
    for ring in (0, 2 * chunk):
        segments = 4 * chunk + 3
        for fills in ("full", "last of a run is short", "mixed"):
            bench.stall("light")
            entries = np.ones((segments, 2), dtype=np.int64)
            entries[:, 0] = np.arange(segments) // 3
            entries[:, 1] = full
            if fills == "last of a run is short":
                entries[2::3, 1] = max(1, full // 2)
            if fills == "mixed":
                entries[:, 1] = bench.rng.integers(0, full + 1, segments)
            bench.table(entries, segments // 3 + 1, ring)
            bench.coverage.hit("segment without a token", (entries[:, 1] == 0).any())
            clusters = np.arange(segments // 3 + 1)
            resident = min(bench.header.first_resident(chunk), segments) // 3
            some = max(2, scaled(4000) // (3 * bench.segment_beats))
            for first in (0, resident - some // 2, len(clusters) - some):
                bench.fetch(((clusters >= first) & (clusters < first + some))[None], 1)
                await bench.end()
        bench.coverage.hit("neighbours in both windows", ring)


REFUSED = {
    "poisoned": Status.POISONED,
    "head that the table does not have": Status.BAD_COUNT,
    "first cluster that the table does not have": Status.BAD_MASK,
    "last cluster that the table does not have": Status.BAD_MASK,
    "segments outside": Status.BAD_ADDRESS,
    "segments far outside": Status.BAD_ADDRESS,
    "map outside": Status.BAD_ADDRESS,
    "header outside": Status.BAD_ADDRESS,
}
"""What cannot be used, and how a command on it ends."""


@case(make)
async def refused(bench: FetchBench) -> None:
    """Tables and bitmasks that cannot be used; the next command works.

    Of a bitmask that names a missing cluster the heads before are delivered, whole.
    """
    for name, status in REFUSED.items():
        bench.stall()
        segments = bench.config.hcu.chunk_tokens + 20
        bench.random_table(segments, 40, bench.rings(segments)[1])
        good, address = bench.header, bench.address
        everything = (1 << good.heads) - 1
        masks, kv_heads, clusters = bench.masks(good.heads, 0.2), everything, 40
        header = {
            "poisoned": replace(good, flags=POISONED),
            "segments outside": replace(good, host_page=HOST.base + HOST.pages),
            "segments far outside": replace(good, host_page=(1 << 32) - 1),
            "map outside": replace(good, map_page=(1 << 32) - 1),
        }.get(name, good)
        bench.memory.write(bench.address, header.pack())
        asked = np.ones_like(masks)
        if name == "head that the table does not have":
            asked, kv_heads = masks[:1], 1 << good.heads
        if "cluster" in name:
            clusters = 50
            asked = np.concatenate([masks, np.zeros((len(masks), 10), dtype=bool)], axis=1)
            asked[-1, 40 if "first" in name else 49] = True
            bench.coverage.hit("heads before a bitmask that cannot be used", asked[:-1].any())
        if name == "header outside":
            bench.address = (DEVICE.base + DEVICE.pages) * PAGE
        found = bench.fetch(asked, kv_heads, clusters)
        if found != status:
            raise StreamError(f"{name}: the model says {found.name}")
        await bench.end()
        bench.coverage.hit(name)
        bench.address = address
        bench.memory.write(bench.address, good.pack())
        bench.fetch(masks, everything)
        await bench.end()


@case(make, clusters=(640, 1000))
async def wrong_at_the_end(bench: FetchBench, clusters: int) -> None:
    """Only the last bit of a bitmask cannot be used; entries of the map wait for its end."""
    bench.memory.latency = (1, 2)
    entries = np.ones((40, 2), dtype=np.int64)
    entries[:, 0] = 0
    for profile in ("none", "light", "none"):
        bench.stall(profile)
        bench.table(entries, clusters, bench.rings(40)[1])
        mask = np.zeros((1, clusters + 1), dtype=bool)
        mask[0, [0, clusters]] = True
        if bench.fetch(mask, 1, clusters + 1) != Status.BAD_MASK:
            raise StreamError("the model takes a bitmask that names a missing cluster")
        await bench.end()
        bench.fetch_all(0.1)
        await bench.end()


@case(make)
async def errors(bench: FetchBench) -> None:
    """An error on any read, on its first beat or its last; the next command works."""
    width = bench.config.bus_bytes
    bench.random_table(150, 30, 0)
    size = bench.config.kvmu.segment_bytes
    segment = (HOST.base * PAGE if not bench.header else bench.header.host_page * PAGE) + 70 * size
    length = int(bench.entries[70, 1]) * bench.config.kvmu.token_bytes
    places = {
        "header": bench.address + 63,
        "first beat of the map": bench.map_address(0),
        "last beat of the map": bench.map_address(149),
        "first beat of a segment": segment,
        "last beat of a segment": segment + length - 1,
    }
    masks = bench.masks(1, 0.3)
    masks[0, bench.entries[70, 0]] = True
    for name, at in places.items():
        bench.stall()
        bench.memory.bad_beats = {at // width}
        assert bench.fetch(masks, 1) == Status.BUS_ERROR
        await bench.end()
        bench.coverage.hit(f"error on the {name}")
        bench.memory.bad_beats = set()
        bench.fetch_all(0.1)
        await bench.end()


@case(make, channel=("ar", "r"))
async def silence(bench: FetchBench, channel: str) -> None:
    """A memory that stops to answer at any moment: TIMEOUT; the next command works."""
    for before in (0, 1, *(bench.random.randrange(200) for _ in range(scaled(8, 2)))):
        bench.stall("light")
        bench.random_table(100, 30, bench.random.choice(bench.rings(100)))
        # Enough transfers for the silence to come before the end.
        bench.memory.allow = {channel: before if channel == "r" else before // 20}
        bench.fetch_all(1, Status.TIMEOUT)
        await bench.drain(lambda: not bench.sinks["done"].expected)
        bench.coverage.hit(f"silence on {channel}")
        bench.kv.clear()
        bench.sources["masks"].clear()
        bench.dut.masks__valid.value = 0
        await bench.clear()
        bench.forget()
        bench.fetch_all(0.1)
        await bench.end()


@case(make)
async def late_errors(bench: FetchBench) -> None:
    """After a time-out the late answers of segments fail, while the next command reads its map."""
    half = 60
    for _ in range(scaled(6, 3)):
        bench.stall("none")
        entries = np.ones((2 * half, 2), dtype=np.int64)
        entries[:, 0] = np.arange(2 * half) // half
        bench.table(entries, 2, 0)
        # Header and map come, and of the segments that were asked for some beats only.
        bench.memory.allow = {"r": bench.random.randrange(70, 120)}
        bench.fetch(np.array([[True, False]]), 1, status=Status.TIMEOUT)
        await bench.drain(lambda: not bench.sinks["done"].expected)
        bench.kv.clear()
        late = [(burst.address, burst.beats) for burst in bench.memory.reads[KV_CLIENT]]
        bench.memory.bad_beats = {
            address // bench.config.bus_bytes + beat for address, count in late for beat in range(count)
        }
        bench.coverage.hit("answers of segments fail late", late)
        bench.memory.allow.clear()
        bench.forget()
        bench.fetch(np.array([[False, True]]), 1)
        await bench.end()
        bench.memory.bad_beats = set()


@case(make, round=range(scaled(3, 1)))
async def random(bench: FetchBench, round: int) -> None:
    """Random tables and commands, several for each table."""
    for _ in range(scaled(6, 2)):
        segments = bench.random.randint(1, 120)
        bench.random_table(segments, bench.random.randint(1, 300), bench.random.choice(bench.rings(segments)))
        for _ in range(3):
            bench.stall()
            bench.fetch_all(bench.random.choice([0.02, 0.06]))
            await bench.end()


@case(make)
async def reset(bench: FetchBench) -> None:
    """Reset at random moments; what follows must not notice."""
    bench.random_table(100, 30, bench.rings(100)[1])
    for _ in range(scaled(10, 3)):
        bench.stall()
        bench.fetch_all(0.5)
        await bench.steps(bench.random.randint(1, 500))
        bench.coverage.hit("reset in the middle of a burst", not bench.memory.idle)
        await bench.reset_in_work()
    bench.fetch_all(0.2)
    await bench.end()


@case(make)
async def long_runs_are_cut(bench: FetchBench) -> None:
    """Of many segments behind each other the first are read while the map still tells of the others."""
    kvmu, width = bench.config.kvmu, bench.config.bus_bytes
    most = RUN_BYTES // kvmu.segment_bytes
    segments = 3 * most + 4 * bench.in_flight * width // MAP_BYTES
    # The last segments keep the map long; nobody wants them.
    clusters = np.arange(segments) >= 3 * most
    entries = np.stack([clusters, np.full(segments, kvmu.segment_tokens)], axis=1).astype(np.int64)
    bench.stall("none")
    bench.dut.timeout.value = 0
    bench.table(entries, 2, ring=0)
    # The header, the bitmask's run, and one segment more, which does not fit; then memory falls silent.
    told = -(-HEADER_BYTES // width) + -(-(most + 1) * MAP_BYTES // width)
    bench.memory.allow = {"r": told}
    bench.fetch(np.array([[True, False]]), 1)
    await bench.drain(lambda: not bench.memory.allow["r"])
    await bench.steps(100)
    if not any(HOST.holds(burst.address) for queue in bench.memory.reads.values() for burst in queue):
        raise StreamError(f"no segment is read although the map has told of {most + 1}")
    bench.coverage.hit("run of the most bytes")
    bench.memory.allow.clear()
    await bench.end()


@case(make)
async def last_entry(bench: FetchBench) -> None:
    """The map's last entry continues a run, and may wait before that because too many others do.

    Where a burst is longer than a segment, the burst shows whether it does.
    """
    bench.stall("none")
    for _ in range(scaled(20, 16)):
        entries = np.full((100, 2), bench.config.kvmu.segment_tokens)
        entries[:, 0] = bench.rng.integers(0, 2, len(entries))
        entries[-2:, 0] = 0
        bench.table(entries, 2, ring=0)
        bench.fetch(np.array([[True, False]]), 1)
        await bench.end()


@case(make)
async def long_map(bench: FetchBench) -> None:
    """A map that comes late at first and then waits: what is asked for ahead still has space."""
    bench.stall("heavy")
    entries = np.ones((700, 2), dtype=np.int64)
    # Nobody wants the first, so the scan runs empty; keys and values of some others are taken slowly.
    number = np.arange(len(entries))
    entries[:, 0] = (number >= 250) & (number % 4 == 0)
    bench.table(entries, 2, ring=0)
    bench.fetch(np.array([[False, True]]), 1)
    await bench.end()


@case(make)
async def ready_and_valid(bench: FetchBench) -> None:
    """No valid depends on a ready of the same cycle."""
    bench.stall("heavy")
    bench.random_table(20, 5, 0)
    bench.fetch(bench.masks(1, 0.5), 1)
    await bench.check_ready_is_not_seen_by_valid(600)


@case(make, density=(1.0, 0.1))
async def throughput(bench: FetchBench, density: float) -> None:
    """R's beats a cycle while segments are fetched and the memory takes 64 cycles."""
    kvmu = bench.config.kvmu
    bench.stall("none")
    bench.memory.latency = (LATENCY, LATENCY)
    hidden = bench.in_flight >= LATENCY + 2 * kvmu.burst_beats
    total = scaled(20_000 if hidden else 500, 300) * bench.config.bus_bytes
    segments = max(2, int(total / density) // kvmu.segment_bytes)
    entries = np.stack([np.arange(segments) // 4, np.full(segments, kvmu.segment_tokens)], axis=1)
    bench.table(entries, segments // 4 + 1, 0)
    mask = np.ones((1, segments // 4 + 1), dtype=bool) if density == 1 else bench.masks(1, density)
    # Few clusters at a small effort: without one there is nothing to wait for.
    mask[:, 0] = True
    bench.fetch(mask, 1)
    await bench.drain(lambda: bench.kv.received > 0)
    start, came = bench.cycle, bench.memory.counts.read_beats
    await bench.end()
    busy = (bench.memory.counts.read_beats - came) / (bench.cycle - start)
    share = 1 - bench.kv.received / bench.memory.counts.read_beats
    bench.dut._log.info(f"R busy {busy:.4f} at density {density}, of it {share:.4f} header and map")
    if hidden and density == 1 and busy < BUSY:
        raise StreamError(f"R was busy for {busy:.3f} of the time, not {BUSY}")
