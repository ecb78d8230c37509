"""Testbench of the DRE: commands on tables in a memory that stalls, reorders and fails (`EngineBench`)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from vrex.hw.dre.kvmu.append.blocks import BLOCK_CLUSTERS
from vrex.model import commands
from vrex.model.commands import Completion, Descriptor, Opcode, Register, Status
from vrex.model.config import MAX_COUNT, Config
from vrex.model.dre import quant
from vrex.model.dre.dre import COUNTERS, PREDICT_ONLY, VALID, Dre
from vrex.model.dre.kvstore import CLOSED, HEADER_BYTES, POISONED, Header, Table, copy_bytes, plan
from vrex.model.lib.memory import PAGE, AccessError
from vrex.tb.dre.engine import DEVICE, HOST, EngineBench
from vrex.tb.lib.bench import case, scaled
from vrex.tb.lib.counters import Command, counted
from vrex.tb.lib.stimuli import SCORES
from vrex.tb.lib.streams import Profile, Stalls, StreamError


class DreBench(EngineBench[Dre]):
    """Drives commands and expects what the model returns (see `EngineBench`).

    Attributes:
        joined: cluster of each token of the last good APPEND.
    """

    unit = "dre"
    ids = 4
    model_type = Dre

    def __init__(self, dut: Any, config: Config, seed: str) -> None:
        super().__init__(dut, config, seed)
        self.joined: list[int] = []

    async def reset(self) -> None:
        """See `EngineBench.reset`."""
        await super().reset()
        self.send(self.write(Register.TH_HD, 5))

    def run_model(self, descriptor: Descriptor, payload: bytes) -> tuple[Completion, bytes, bytes]:
        """See `EngineBench.run_model`."""
        before = self.header(descriptor.address) if descriptor.opcode == Opcode.APPEND else None
        completion, result, kv = super().run_model(descriptor, payload)
        if before is not None and completion.status == Status.OK:
            self._cover_append(before, descriptor, result)
        return completion, result, kv

    def _cover_append(self, before: Header, descriptor: Descriptor, result: bytes) -> None:
        """Counts the corner cases of a good APPEND."""
        chunk = self.config.hcu.chunk_tokens
        first = self.header(descriptor.address).first_resident(chunk)
        joined = self.joined = commands.unpack_clustering(result, descriptor.count).cluster.tolist()
        self.coverage.hit("APPEND to an empty table", before.tokens == 0)
        after = self.header(descriptor.address)
        self.coverage.hit("APPEND closes a cluster", not before.flags & CLOSED and after.flags & CLOSED)
        self.coverage.hit(f"APPEND to means of {before.mean_bits} bits")
        self.coverage.hit("APPEND to a table with closed clusters", before.flags & CLOSED)
        self.coverage.hit(
            "closed clusters in several blocks", before.flags & CLOSED and before.clusters > BLOCK_CLUSTERS
        )
        leaves = before.ring_segments and first > before.first_resident(chunk)
        self.coverage.hit("segments leave the ring", leaves)
        self.coverage.hit("token joins a cluster of its chunk", len(set(joined)) < len(joined))

    async def fail(self, command: Command, status: Status) -> bool:
        """Runs a command in whose way the memory stands; the model does not run it.

        What the table says must stay as it was, or the table must be marked: then it is written anew.

        Returns:
            Whether it was marked.
        """
        await self.run_into(command, status)
        address = command[0].address
        poisoned = self.memory.read(address + 12, 2) == POISONED.to_bytes(2, "little")
        if poisoned:
            self.coverage.hit("error while a chunk is written")
            self.memory.copy_from(self.model.memory)
        else:
            self._adopt(address)
        return poisoned

    def _adopt(self, address: int) -> None:
        """Checks that the table says the same in both memories; takes over what nobody can see."""
        before = self.visible(address)
        self.memory.copy_to(self.model.memory)
        for name, content in self.visible(address).items():
            if content != before[name]:
                raise StreamError(f"a failed command changed the table's {name}")

    def visible(self, address: int) -> dict[str, bytes]:
        """All that a table says in the model's memory."""
        table = Table(self.config, self.model.memory, address)
        everything = np.ones(table.header.clusters, dtype=bool)
        kv = [part.tobytes() for head in range(table.header.heads) for part in table.fetch(head, everything)]
        arrays = {"hashes": table.hashes(), "counts": table.counts(), "means": table.means()}
        if table.header.mean_bits < 16:
            arrays |= {"codes": table.codes(), "scales": table.scales()}
        return {
            "header": table.header.pack(),
            "segment map": table.map().tobytes(),
            "keys and values": b"".join(kv),
            **{name: array.tobytes() for name, array in arrays.items()},
        }

    # -- tables and commands ------------------------------------------------------------------------------

    def table(
        self, heads: int | None = None, ring: int | None = None, mean_bits: int | None = None, **caps: int
    ) -> int:
        """Makes an empty table, what is not given as it comes; returns its address."""
        chunk = self.config.hcu.chunk_tokens
        heads = heads or self.config.kvmu.kv_heads
        ring = self.random.choice([0, 2 * chunk, 4 * chunk]) if ring is None else ring
        room = {"cap_clusters": 600, "cap_segments": 150} | caps
        bits = mean_bits or self.random.choice([16, *quant.BITS])
        layout = plan(
            self.config, heads, room["cap_clusters"], room["cap_segments"], ring, self._pages[1], bits
        )
        address = self._pages[0] * PAGE
        self._pages[0] += layout.device_pages
        self._pages[1] += layout.host_pages
        assert self._pages[0] <= DEVICE.base + DEVICE.pages, "the device window is too small for the test"
        assert self._pages[1] <= HOST.base + HOST.pages, "the host window is too small for the test"
        self.poke(address, layout.header.pack())
        return address

    def header(self, address: int) -> Header:
        """The table's header in the model; zeros where none can be."""
        try:
            return Header.unpack(self.model.memory.read(address, HEADER_BYTES))
        except AccessError:
            return Header.unpack(bytes(HEADER_BYTES))

    def values(self, count: int) -> np.ndarray:
        """BF16 bits of any class."""
        return SCORES[self.random.choice(list(SCORES))](self.rng, count)

    def append(self, address: int, tokens: int, centres: int = 6) -> Command:
        """APPEND of tokens near a few centres, the same ones all the time."""
        config, heads = self.config, self.header(address).heads
        fixed = np.random.default_rng(address)
        pool = fixed.integers(0, 256, (centres, config.hcu.hash_bits // 8), dtype=np.uint8)
        hashes = pool[self.rng.integers(centres, size=tokens)]
        bit = self.rng.integers(config.hcu.hash_bits, size=tokens)
        hashes[np.arange(tokens), bit // 8] ^= (1 << bit % 8).astype(np.uint8)
        payload = commands.to_beats(config, hashes.tobytes())
        per_head = 2 * config.kvmu.head_dim
        kv = [self.values(per_head) for _ in range(tokens * heads)]
        payload += np.concatenate(kv).astype("<u2").tobytes()
        made = Descriptor(
            Opcode.APPEND,
            kv_heads=(1 << heads) - 1,
            count=tokens,
            address=address,
            length=len(payload),
            **self.tag(),
        )
        return made, payload

    def retrieve(self, address: int, rows: int = 1, param: int = 0, heads: int | None = None) -> Command:
        """RETRIEVE from all clusters by random scores."""
        header = self.header(address)
        mask = heads or (1 << header.heads) - 1
        n = mask.bit_count() * rows
        scores = np.zeros((n, header.clusters), dtype="<u2")
        for row in scores:
            row[:] = self.values(header.clusters) if header.clusters else 0
        payload = commands.retrieve_payload(self.config, scores)
        made = Descriptor(
            Opcode.RETRIEVE,
            kv_heads=mask,
            count=rows,
            clusters=header.clusters,
            address=address,
            length=len(payload),
            param=param,
            **self.tag(),
        )
        return made, payload

    def fetch(self, address: int, share: float = 0.5, heads: int | None = None, extra: int = 0) -> Command:
        """FETCH of a random share of the clusters."""
        header = self.header(address)
        mask = heads or (1 << header.heads) - 1
        clusters = header.clusters + extra
        wanted = self.rng.random((mask.bit_count(), clusters)) < share
        wanted[:, header.clusters :] = False
        payload = commands.pack_masks(self.config, list(wanted))
        made = Descriptor(
            Opcode.FETCH,
            kv_heads=mask,
            clusters=clusters,
            address=address,
            length=len(payload),
            **self.tag(),
        )
        return made, payload

    def good(self, tables: list[int]) -> Command:
        """A random command on one of the tables."""
        address = self.random.choice(tables)
        kind = self.random.choice(["append", "append", "retrieve", "fetch", "predict", "read"])
        header = self.header(address)
        heads = self.random.choice([None, self.random.randrange(1, 1 << header.heads)])
        if kind == "append":
            return self.append(address, self.random.randrange(1, self.config.hcu.chunk_tokens + 1))
        if kind == "retrieve":
            return self.retrieve(address, self.random.randrange(1, 4), heads=heads)
        if kind == "predict":
            return self.retrieve(address, self.random.randrange(1, 4), PREDICT_ONLY, heads)
        if kind == "read":
            return self.read(self.random.choice([*VALID, *COUNTERS]))
        return self.fetch(address, self.random.choice([0, 0.2, 0.9, 1]), heads, self.random.choice([0, 5]))


def make(dut: Any, config: Config, seed: str) -> DreBench:
    """Bench of one case."""
    return DreBench(dut, config, seed)


@case(make)
async def appends(bench: DreBench) -> None:
    """Tables grow chunk by chunk, with and without a ring, one chunk of one token and full chunks too."""
    bench.stall()
    chunk = bench.config.hcu.chunk_tokens
    # With many centres nearly every token opens a segment, so that some must leave the ring.
    for ring, centres in ((0, 6), (2 * chunk, 100)):
        table = bench.table(ring=ring)
        for tokens in (1, chunk, *(bench.random.randrange(1, chunk + 1) for _ in range(scaled(8, 2)))):
            bench.send(bench.append(table, tokens, centres))
        await bench.drain()
        bench.memory.compare(bench.model.memory)


@case(make, ring=[0, 1, 2])
async def one_table(bench: DreBench, ring: int) -> None:
    """A table grows chunk by chunk and is read in between."""
    bench.stall()
    table = bench.table(ring=2 * ring * bench.config.hcu.chunk_tokens)
    for _ in range(scaled(12, 3)):
        bench.send(bench.append(table, bench.random.randrange(1, bench.config.hcu.chunk_tokens + 1)))
        bench.send(bench.fetch(table))
        bench.send(bench.retrieve(table, 2))
    await bench.drain()


@case(make)
async def long_rows(bench: DreBench) -> None:
    """Rows that do not fit the WTU's score memory: token counts come from memory tile by tile."""
    bench.stall()
    tile = bench.config.wtu.row_clusters
    lengths = [tile + 1] if bench.config.wtu.mask_clusters > tile else []
    if lengths and scaled(10) > 10:
        lengths.append(2 * tile)
    for clusters in lengths:
        table = await _table_of(bench, clusters)
        for param in (0, PREDICT_ONLY):
            bench.send(bench.retrieve(table, 2, param))
        bench.send(bench.append(table, 2))
        await bench.drain()
        bench.coverage.hit("RETRIEVE of rows in tiles")
        at = table + bench.header(table).counts_page * PAGE + 2 * bench.random.randrange(clusters)
        bench.memory.bad_beats.add(at // bench.config.bus_bytes)
        await bench.fail(bench.retrieve(table, 2), Status.BUS_ERROR)
        bench.send(bench.retrieve(table))
        await bench.drain()


async def _table_of(bench: DreBench, clusters: int) -> int:
    """A table of so many clusters, most of them of one token, which the model alone has made."""
    chunk = bench.config.hcu.chunk_tokens
    table = bench.table(ring=0, cap_clusters=clusters + chunk, cap_segments=clusters + 2 * chunk)
    await bench.drain()
    bench.send(bench.write(Register.TH_HD, 0))
    while (missing := clusters - bench.header(table).clusters) > 0:
        completion, _, _ = bench.model.execute(*bench.append(table, min(chunk, missing)))
        assert completion.status == Status.OK
    bench.send(bench.write(Register.TH_HD, 5))
    bench.memory.copy_from(bench.model.memory)
    return table


@case(make)
async def random_commands(bench: DreBench) -> None:
    """Commands of every kind on several tables at once."""
    bench.stall()
    tables = [bench.table() for _ in range(2)] + [bench.table(heads=1)]
    for _ in range(scaled(60, 10)):
        bench.send(bench.good(tables))
    await bench.drain()


@case(make)
async def closed_clusters(bench: DreBench) -> None:
    """Clusters fill up and are closed: their tokens open others, also where founders come in blocks."""
    bench.stall()
    table = bench.table(cap_clusters=60)
    bench.send(bench.append(table, bench.config.hcu.chunk_tokens))
    await _fill_clusters(bench, table, left=2)
    for tokens in (1, 1, 2, *(bench.random.randrange(1, 5) for _ in range(scaled(8, 3)))):
        bench.send(bench.append(table, tokens, centres=2))
        bench.send(bench.fetch(table))
    await bench.drain()
    table = await _table_of(bench, BLOCK_CLUSTERS + bench.random.randrange(1, 40))
    await _fill_clusters(bench, table)
    for _ in range(scaled(6, 3)):
        bench.send(bench.append(table, 1))
    await bench.drain()
    for array in ("counts", "hashes"):
        at, size = _array_start(table, bench.header(table), array), bench.config.bus_bytes
        bench.memory.bad_beats |= set(range(at // size, (at + 64) // size))
        await bench.fail(bench.append(table, 2), Status.BUS_ERROR)
        bench.send(bench.append(table, 1))
        await bench.drain()


@case(make)
async def faults(bench: DreBench) -> None:
    """Commands that must fail, between good ones; tables stay as they were."""
    bench.stall()
    tables = [bench.table(cap_clusters=20), bench.table(cap_segments=40), bench.table(heads=1)]
    poisoned = bench.table()
    bench.poke(poisoned + 12, b"\1\0")
    for _ in range(scaled(6, 2)):
        bad = _bad_commands(bench, bench.random.choice(tables), poisoned)
        bench.random.shuffle(bad)
        for command in bad:
            bench.send(command)
            if bench.random.random() < 0.5:
                bench.send(bench.good(tables))
    await bench.drain()
    await _fill_clusters(bench, tables[2])
    assert bench.send(bench.append(tables[2], 8, centres=1)).status == Status.CLUSTER_FULL
    await bench.drain()


@case(make)
async def last_place(bench: DreBench) -> None:
    """Tokens one by one into a table and into a store, until the last place is taken and beyond."""
    for cap, status in (("cap_clusters", Status.TABLE_FULL), ("cap_segments", Status.KV_FULL)):
        table = bench.table(ring=0, **{cap: 3})
        ended = [bench.send(bench.append(table, 1)).status for _ in range(20)]
        await bench.drain()
        header = bench.header(table)
        assert status in ended
        assert (header.clusters if cap == "cap_clusters" else header.segments) == 3


async def _fill_clusters(bench: DreBench, table: int, left: int = 1) -> None:
    """Leaves every cluster room for so many tokens; tokens of the first centre have one to join."""
    bench.send(bench.append(table, 1, centres=1))
    await bench.drain()
    at = table + bench.header(table).counts_page * PAGE
    for index in range(bench.header(table).clusters):
        bench.poke(at + 2 * index, (MAX_COUNT - left).to_bytes(2, "little"))


def _bad_commands(bench: DreBench, table: int, poisoned: int) -> list[Command]:
    """Commands that must fail."""
    config, far = bench.config, 1 << 40

    def spoiled(command: Command, **fields: int) -> Command:
        made = replace(command[0], **fields)
        return made, bench.rng.bytes(made.length)

    heads = bench.header(table).heads
    missing = np.ones((heads, bench.header(table).clusters + 3), dtype=bool)
    missing[:-1, -3:] = False
    mask_payload = commands.pack_masks(config, list(missing))
    bad_mask = replace(bench.fetch(table)[0], clusters=missing.shape[1], length=len(mask_payload))
    each = [bench.append(table, 2), bench.retrieve(table, 2), bench.fetch(table)]
    return [
        *(spoiled(command, length=command[0].length + 1) for command in each),
        *(spoiled(command, address=table + 64) for command in each),
        *(spoiled(command, address=far + table) for command in each),
        *(spoiled(command, address=HOST.stop + PAGE) for command in each),
        *(spoiled(command, address=poisoned, clusters=command[0].clusters) for command in each),
        *(spoiled(command, kv_heads=0) for command in each),
        spoiled(each[0], count=0),
        spoiled(each[0], count=config.hcu.chunk_tokens + 1),
        spoiled(each[1], count=0),
        spoiled(each[1], param=2),
        spoiled(each[1], clusters=min(config.wtu.mask_clusters + 1, 65535)),
        spoiled(each[1], opcode=bench.random.randrange(8, 256)),
        spoiled(each[2], opcode=Opcode.SELECT),
        (bad_mask, mask_payload),
        bench.append(table, config.hcu.chunk_tokens, centres=50),
        bench.write(Register.KV_BEATS, 1),
        bench.write(Register.TH_HD, 256),
        spoiled(bench.write(Register.TH_HD, 5), length=16),
        bench.read(100),
        spoiled(bench.read(Register.TH_HD), length=3),
    ]


def _filled(bench: DreBench, **options: int) -> int:
    """A table with some chunks in it."""
    table = bench.table(**options)
    for _ in range(3):
        bench.send(bench.append(table, bench.config.hcu.chunk_tokens))
    return table


@case(
    make,
    place=["header", "hashes", "counts", "tails", "means", "codes", "scales", "map", "stage", "ring", "host"],
)
async def bus_errors(bench: DreBench, place: str) -> None:
    """Memory refuses reads and writes of one array; each command ends by name and the next one works."""
    bench.stall()
    chunk = bench.config.hcu.chunk_tokens
    bits = bench.random.choice(quant.BITS) if place in ("codes", "scales") else 16
    table = _filled(bench, ring=0 if place == "host" else 2 * chunk, mean_bits=bits)
    await bench.drain()
    header = bench.header(table)
    first = _array_start(table, header, place)
    hurt = {
        "header": (Opcode.APPEND, Opcode.RETRIEVE, Opcode.FETCH),
        "counts": (Opcode.APPEND, Opcode.RETRIEVE),
        "map": (Opcode.APPEND, Opcode.FETCH, Opcode.RETRIEVE),
        "ring": (Opcode.APPEND, Opcode.FETCH, Opcode.RETRIEVE),
        "host": (Opcode.APPEND, Opcode.FETCH, Opcode.RETRIEVE),
    }.get(place, (Opcode.APPEND,))
    for opcode in hurt:
        command = {
            Opcode.APPEND: lambda: bench.append(table, chunk),
            Opcode.RETRIEVE: lambda: bench.retrieve(table, 2),
            Opcode.FETCH: lambda: bench.fetch(table, 1),
        }[opcode]()
        size = bench.config.bus_bytes
        last = first + _array_bytes(bench, header, place)
        bench.memory.bad_beats |= set(range(first // size, last // size))
        given = bench.sinks["dout"].received
        await bench.fail(command, Status.BUS_ERROR)
        if place in ("header", "counts") and bench.sinks["dout"].received > given:
            raise StreamError(f"a {opcode.name} that failed on the {place} gave results")
        bench.send(bench.append(table, 2))
        bench.send(bench.retrieve(table))
        await bench.drain()


def _array_start(table: int, header: Header, place: str) -> int:
    """First byte of one of the table's arrays."""
    if place == "host":
        return header.host_page * PAGE
    page = {"header": 0, "hashes": 1}.get(place)
    return table + PAGE * (getattr(header, f"{place}_page") if page is None else page)


def _array_bytes(bench: DreBench, header: Header, place: str) -> int:
    """Bytes of one of the table's arrays."""
    row = 2 * header.heads * bench.config.kvmu.head_dim
    codes, scales = copy_bytes(bench.config, header.heads, header.mean_bits)
    return {
        "codes": codes * header.cap_clusters,
        "scales": scales * header.cap_clusters,
        "header": 64,
        "hashes": header.cap_clusters * bench.config.hcu.hash_bits // 8,
        "counts": 2 * header.cap_clusters,
        "tails": 4 * header.cap_clusters,
        "means": row * header.cap_clusters,
        "map": 4 * header.cap_segments,
        "stage": row * bench.config.hcu.chunk_tokens,
        "ring": header.heads * header.ring_stride * PAGE,
        "host": header.heads * header.host_stride * PAGE,
    }[place]


@case(make, channel=["ar", "r", "aw", "w", "b"])
async def no_answer(bench: DreBench, channel: str) -> None:
    """Memory falls silent in the middle of a command; later it answers again."""
    bench.stall("none")
    table = _filled(bench)
    await bench.drain()
    reads_only = (bench.fetch(table, 1), bench.retrieve(table, 2)) if channel in ("ar", "r") else ()
    for command in (bench.append(table, bench.config.hcu.chunk_tokens), *reads_only):
        # Before the end of the shortest command: it reads two headers, counts, map, keys and values.
        bench.memory.allow[channel] = bench.random.randrange(5 if channel == "ar" else 12)
        await bench.fail(command, Status.TIMEOUT)
        bench.send(bench.append(table, 2))
        bench.send(bench.fetch(table))
        await bench.drain()


@case(make)
async def reset_in_the_middle(bench: DreBench) -> None:
    """A reset while bursts are under way forgets the command; nothing of it comes later."""
    for _ in range(scaled(4, 1)):
        bench.stall()
        table = _filled(bench)
        bench.send(bench.retrieve(table))
        await bench.steps(bench.random.randrange(200, 3000))
        bench.coverage.hit("reset in the middle of a burst", not bench.memory.idle)
        await bench.reset_in_work()
    bench.send(bench.append(bench.table(), 3))
    await bench.drain()


@case(make)
async def reset_counters(bench: DreBench) -> None:
    """A reset at any moment of commands: what is counted afterwards is equal, bit for bit.

    The memory's latency doesn't vary then.
    """
    empty = {"heads": bench.config.kvmu.kv_heads, "ring": 0, "mean_bits": 16}
    table = bench.table(**empty)
    chunk = bench.append(table, bench.config.hcu.chunk_tokens)
    await bench.drain()
    bench.send(chunk)
    work = [chunk, bench.append(table, 2), bench.retrieve(table, 2), bench.fetch(table)]
    await bench.drain()
    await bench.reset()
    assert bench.table(**empty) == table
    bench.memory.latency, bench.memory.reorder = (20, 20), False
    wanted = await counted(bench, COUNTERS, work)
    if any(wanted[: len(COUNTERS)]):
        raise StreamError(f"counters are {wanted[: len(COUNTERS)]} after a reset")
    took = sum(bench.cycles[-len(COUNTERS) - len(work) : -len(COUNTERS)])
    for _ in range(scaled(4, 2)):
        for command in work:
            bench.send(command)
        await bench.steps(bench.random.randrange(took))
        bench.coverage.hit("counters after a reset in the middle of a command", bench.sinks["cpl"].expected)
        await bench.reset_in_work()
        assert bench.table(**empty) == table
        found = await counted(bench, COUNTERS, work)
        if found != wanted:
            raise StreamError(f"after a reset the counters go from {found}, not {wanted}")


PORT_COUNTERS = (
    Register.READ_BURSTS,
    Register.READ_BEATS,
    Register.WRITE_BURSTS,
    Register.WRITE_BEATS,
    Register.KV_BEATS,
    Register.FETCH_WAIT_OUT,
)
"""Counters of what the ports show."""

ENGINE_CYCLES = 40
"""Most cycles of a command in which its engine does not work: its sizes, its start, its completion."""


async def _counters(bench: DreBench, counters: Sequence[Register]) -> list[int]:
    """Counters while nothing is in work."""
    await bench.drain()
    before = len(bench.details)
    for counter in counters:
        bench.send(bench.read(counter))
    await bench.drain()
    return bench.details[before:]


@case(make)
async def port_counters(bench: DreBench) -> None:
    """What is counted of memory and of K and V is what passes the ports, and where K and V come from."""
    busy = (Register.FETCH_BUSY, Register.FETCH_WAIT_IN, Register.FETCH_WAIT_OUT, Register.KV_BEATS)
    for ring in (0, 4 * bench.config.hcu.chunk_tokens):
        await bench.drain()
        await bench.reset()
        counts, kv = replace(bench.memory.counts), bench.sinks["kv"]
        received, blocked = kv.received, kv.blocked
        bench.stall("heavy")
        table = bench.table(ring=ring)
        for tokens in (3, 2):
            bench.send(bench.append(table, tokens))
        for command in (bench.retrieve(table, 2), bench.fetch(table, 1)):
            bench.send(command)
        found, now = await _counters(bench, PORT_COUNTERS), bench.memory.counts
        passed = [
            now.read_bursts - counts.read_bursts,
            now.read_beats - counts.read_beats,
            now.write_bursts - counts.write_bursts,
            now.write_beats - counts.write_beats,
            kv.received - received,
            kv.blocked - blocked,
        ]
        if found != passed or 0 in passed:
            raise StreamError(f"the counters of the ports say {found}, and {passed} passed")
        (from_host,) = await _counters(bench, (Register.KV_HOST_BEATS,))
        if from_host != (0 if ring else passed[4]):
            raise StreamError(
                f"{from_host} of {passed[4]} beats are said to come from the host, with ring {ring}"
            )
        works, *parts = await _counters(bench, busy)
        if works != sum(parts):
            raise StreamError(f"FETCH is said to be busy for {works} cycles, which are {parts}")


@case(make, opcode=["APPEND", "RETRIEVE", "FETCH"])
async def busy_counters(bench: DreBench, opcode: str) -> None:
    """An engine alone is busy for the cycles of its command but for a few; the others are not."""
    registers = {name: Register[f"{name}_BUSY"] for name in ("APPEND", "RETRIEVE", "FETCH")}
    bench.stall("none")
    table = _filled(bench)
    before = await _counters(bench, list(registers.values()))
    bench.send(
        {
            "APPEND": lambda: bench.append(table, 3),
            "RETRIEVE": lambda: bench.retrieve(table, 2, PREDICT_ONLY),
            "FETCH": lambda: bench.fetch(table, 1),
        }[opcode]()
    )
    await bench.drain()
    took = bench.cycles[-1]
    after = await _counters(bench, list(registers.values()))
    for name, first, last in zip(registers, before, after, strict=True):
        least, most = (took - ENGINE_CYCLES, took) if name == opcode else (0, 0)
        if not least <= last - first <= most:
            raise StreamError(f"{name} is said to be busy for {last - first} of a {opcode}'s {took} cycles")


@case(make)
async def closed_clusters_of_another_table(bench: DreBench) -> None:
    """A table without closed clusters right after one with them: its tokens join clusters of any number."""
    bench.stall()
    chunk = bench.config.hcu.chunk_tokens
    closed, other = bench.table(), bench.table()
    bench.send(bench.append(closed, chunk))
    bench.send(bench.append(other, chunk))
    await _fill_clusters(bench, closed)
    bench.send(bench.append(closed, 1, centres=1))
    assert bench.header(closed).flags & CLOSED
    await bench.drain()
    bench.memory.read_at.clear()
    joined = 0
    for _ in range(scaled(4, 2)):
        # All clusters but the newest are closed, so as many as the other table has.
        await _fill_clusters(bench, closed, left=0)
        bench.send(bench.append(closed, 1))
        old = bench.header(other).clusters
        bench.send(bench.append(other, 2))
        joined += len({cluster for cluster in bench.joined if cluster < old})
        assert not bench.header(other).flags & CLOSED
        bench.coverage.hit("table without closed clusters after one with them")
    await bench.drain()
    counts = other + bench.header(other).counts_page * PAGE
    read = sum(counts <= at < counts + 2 * bench.header(other).cap_clusters for at in bench.memory.read_at)
    if read != joined:
        raise StreamError(f"counts were read {read} times for {joined} clusters with a token more")


@case(make)
async def other_heads(bench: DreBench) -> None:
    """APPEND for KV heads that are not all of the table's, or not only these."""
    bench.stall()
    for heads in sorted({1, bench.config.kvmu.kv_heads}):
        table = _filled(bench, heads=heads)
        every = (1 << heads) - 1
        for mask in {1, 1 << heads - 1, every - 1, 2 * every + 1, 1 << heads, 0x8000_0001} - {0, every}:
            length = commands.append_length(bench.config, 2, mask.bit_count())
            command = replace(bench.append(table, 2)[0], kv_heads=mask, length=length)
            assert bench.send((command, bench.rng.bytes(length))).status == Status.BAD_COUNT
            bench.coverage.hit("APPEND for some of the table's heads", mask < every)
        bench.send(bench.append(table, 2))
        await bench.drain()


@case(make)
async def claimed_heads(bench: DreBench) -> None:
    """Headers that claim fewer KV heads than the table has, or more than there can be."""
    bench.stall()
    most = bench.config.kvmu.kv_heads
    table = _filled(bench, heads=most)
    await bench.drain()
    for claimed in (0, 31, 32, 64, 96, 65535):
        good, asked = bench.header(table), bench.random.randrange(1, 1 << most)
        reads = bench.retrieve(table, 2, heads=asked), bench.fetch(table, heads=asked)
        append = bench.append(table, 2)
        bench.poke(table, replace(good, heads=claimed).pack())
        wanted = Status.BAD_COUNT if asked >> claimed else Status.OK
        assert [bench.send(command).status for command in reads] == [wanted, wanted]
        assert bench.send(append).status == Status.BAD_COUNT
        await bench.drain()
        bench.coverage.hit("RETRIEVE from a table that claims 64 heads", claimed == 64)
        bench.poke(table, good.pack())
        bench.send(append)
        await bench.drain()


@case(make, opcode=["RETRIEVE", "FETCH"])
async def append_waits_for_readers(bench: DreBench, opcode: str) -> None:
    """An APPEND behind a command that reads its table starts when that has ended, however long that takes."""
    bench.stall("none")
    table = _filled(bench)
    bench.send(bench.append(table, 1))
    await bench.drain()
    alone, written = bench.cycles[-1], bench.memory.counts.write_beats
    kv = bench.sinks["kv"]
    stalls, kv.stalls = kv.stalls, Stalls(bench.random, Profile(1.0, 1 << 30))
    bench.send(bench.fetch(table, 1) if opcode == "FETCH" else bench.retrieve(table, 4))
    assert kv.expected
    bench.send(bench.append(table, 1))
    await bench.steps(2 * alone)
    if bench.memory.counts.write_beats > written:
        raise StreamError(f"an APPEND wrote while a {opcode} on its table was in work")
    bench.coverage.hit(f"APPEND waits for a {opcode}")
    kv.stalls = stalls
    await bench.drain()


@case(make)
async def power_up(bench: DreBench) -> None:
    """Every register and a short command of each kind: as much as Icarus simulates in little time."""
    bench.stall("none")
    bench.memory.latency = (1, 2)
    table = bench.table(heads=1, ring=0, mean_bits=16)
    for register in (*VALID, *COUNTERS):
        bench.send(bench.read(register))
    for tokens in (2, 1):
        bench.send(bench.append(table, tokens))
    for command in (bench.retrieve(table), bench.fetch(table, 1), *(bench.read(c) for c in COUNTERS)):
        bench.send(command)
    await bench.drain()


@case(make)
async def overlap(bench: DreBench) -> None:
    """Commands on different tables run at the same time, those on one table one after the other.

    A RETRIEVE gives up the payload's port early, an APPEND only with its last token.
    """
    bench.stall("none")
    first, second = _filled(bench), _filled(bench)
    await bench.drain()
    alone = len(bench.cycles)
    for command in (bench.retrieve(second, 4), bench.append(first, 4)):
        bench.send(command)
        await bench.drain()
    began = bench.cycle
    bench.send(bench.retrieve(second, 4))
    bench.send(bench.append(first, 4))
    await bench.drain()
    together = bench.cycle - began
    behind = sum(bench.cycles[alone : alone + 2])
    assert together < 0.95 * behind, f"{together} cycles at once, {behind} one after the other"
    bench.coverage.hit("commands of several engines at once")
    bench.send(bench.append(first, 4))
    bench.send(bench.fetch(first))
    await bench.drain()
    waits, works = bench.cycles[-1], bench.cycles[-2]
    bench.coverage.hit("command waits for its table", waits > works // 2)
