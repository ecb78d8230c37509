"""Testbench of the DRE: commands on tables in a memory that stalls, reorders and fails.

The golden engine runs on a memory of its own. Every result, beat of K and V and completion is compared, and
after each case every byte of both windows.
"""

from dataclasses import replace
from random import Random
from typing import Any

import numpy as np

from vrex.model import commands
from vrex.model.commands import Completion, Descriptor, Opcode, Register, Status
from vrex.model.config import Config
from vrex.model.dre import COUNTERS, PREDICT_ONLY, VALID, Dre
from vrex.model.kvstore import Header, plan
from vrex.model.memory import PAGE, Memory, Window
from vrex.tb.axi_memory import AxiMemory, AxiWires
from vrex.tb.bench import Bench, beats, case, scaled
from vrex.tb.kvpu import CYCLES_MASK, DETAIL_MASK, Command
from vrex.tb.stimuli import SCORES
from vrex.tb.streams import PROFILES, StreamError

DEVICE, HOST = Window(0x30, 4096), Window(0x4000, 8192)
TIMEOUT = 600
"""Cycles: longer than the bench's own stalls and latencies."""

FIRST_PAGE = 0x31


class EngineMemory(AxiMemory):
    """Memory that is empty at first, as the model's."""

    def page(self, number: int) -> bytearray:
        """Bytes of a page."""
        return self._pages.setdefault(number, bytearray(PAGE))


class DreBench(Bench):
    """Drives commands and expects what the model returns.

    Attributes:
        model: golden DRE, in step with the design.
        memory: behind the design's port.
        statuses: of the completions so far.
    """

    unit = "dre"

    def __init__(self, dut: Any, config: Config, seed: str) -> None:
        super().__init__(dut, config, seed, inputs=("cmd", "din"), outputs=("dout", "kv", "cpl"))
        self.memory = EngineMemory(config, Random(self.random.getrandbits(64)))
        self.wires = AxiWires(dut, self.memory)
        self.statuses: list[Status] = []
        self.details: list[int] = []
        self.cycles: list[int] = []
        self.sinks["cpl"].on_word = self._completed

    def stall(self, profile: str | None = None) -> None:
        """Every port's and every channel's profile."""
        super().stall(profile)
        self.memory.stall(PROFILES[profile] if profile else None)

    async def reset(self) -> None:
        """Resets design, memory and model; all tables are gone."""
        self.model = Dre(self.config, Memory(DEVICE, HOST))
        self.memory._pages.clear()
        self._pages = [DEVICE.base + 1, HOST.base]
        self.wires.reset()
        await super().reset()
        windows = {Register.DEVICE_BASE: DEVICE.base, Register.DEVICE_PAGES: DEVICE.pages}
        windows |= {Register.HOST_BASE: HOST.base, Register.HOST_PAGES: HOST.pages}
        for register, value in (windows | {Register.TIMEOUT: TIMEOUT, Register.TH_HD: 5}).items():
            self.send(self.write(register, value))

    def _drive(self) -> None:
        super()._drive()
        self.wires.drive()

    def _sample(self) -> list[Any]:
        taken = super()._sample()
        self._moved |= self.wires.sample()
        return taken

    async def finish(self) -> None:
        """Also compares all of memory."""
        await super().finish()
        self.compare()

    def _completed(self, word: int) -> None:
        completion = Completion.unpack(word.to_bytes(16, "little"))
        self.statuses.append(Status(completion.status))
        self.details.append(completion.detail)
        self.cycles.append(completion.cycles)

    def compare(self) -> None:
        """Every byte of both windows.

        Raises:
            StreamError: the design's memory is not the model's.
        """
        for window in (DEVICE, HOST):
            want = self.model.memory.view(window.start, window.pages * PAGE).reshape(-1, PAGE)
            for number in set(np.flatnonzero(want.any(axis=1)) + window.base) | set(self.memory._pages):
                if window.base <= number < window.base + window.pages:
                    self._compare_page(number, want[number - window.base])

    def _compare_page(self, number: int, want: np.ndarray) -> None:
        got = np.frombuffer(self.memory.page(number), dtype=np.uint8)
        if (want != got).any():
            at = int((want != got).argmax())
            raise StreamError(
                f"memory at {number * PAGE + at:#x} is {got[at : at + 16].tobytes().hex()}, "
                f"not {want[at : at + 16].tobytes().hex()}"
            )

    def poke(self, address: int, content: bytes) -> None:
        """Writes both memories."""
        self.model.memory.write(address, content)
        self.memory.write(address, content)

    def send(self, command: Command) -> Completion:
        """Queues one command and its expectations; returns the model's completion."""
        descriptor, payload = command
        payload = commands.to_beats(self.config, payload)
        completion, result, kv = self.model.execute(descriptor, payload)
        self.queue(descriptor, payload)
        what, after = f"{descriptor}", None
        for name, content in (("dout", result), ("kv", kv)):
            sink = self.sinks[name]
            sink.expect(what, beats(content, self.config.bus_bytes))
            after = (sink, sink.asked) if content else after
        mask = (1 << 128) - 1 & ~CYCLES_MASK
        if descriptor.opcode == Opcode.GETREG and descriptor.count in COUNTERS:
            mask &= ~DETAIL_MASK
        self.sinks["cpl"].expect(what, beats(completion.pack(), 16), mask, after=after)
        name = Opcode(descriptor.opcode).name if descriptor.opcode in list(Opcode) else "reserved opcode"
        self.coverage.hit(f"{name} ends with {Status(completion.status).name}")
        return completion

    def queue(self, descriptor: Descriptor, payload: bytes) -> None:
        """Puts a command on the design's ports."""
        self.sources["cmd"].send(beats(descriptor.pack(), 32))
        self.sources["din"].send(beats(payload, self.config.bus_bytes))

    # -- tables and commands ------------------------------------------------------------------------------

    def table(self, heads: int | None = None, ring: int | None = None, **caps: int) -> int:
        """Makes an empty table; returns its address."""
        chunk = self.config.hcu.chunk_tokens
        heads = heads or self.config.kvmu.kv_heads
        ring = self.random.choice([0, 2 * chunk, 4 * chunk]) if ring is None else ring
        room = {"cap_clusters": 600, "cap_segments": 150} | caps
        layout = plan(self.config, heads, room["cap_clusters"], room["cap_segments"], ring, self._pages[1])
        address = self._pages[0] * PAGE
        self._pages[0] += layout.device_pages
        self._pages[1] += layout.host_pages
        assert self._pages[0] <= DEVICE.base + DEVICE.pages, "the device window is too small for the test"
        assert self._pages[1] <= HOST.base + HOST.pages, "the host window is too small for the test"
        self.poke(address, layout.header.pack())
        return address

    def header(self, address: int) -> Header:
        """The table's header in the model."""
        return Header.unpack(self.model.memory.read(address, 64))

    def tag(self) -> dict[str, int]:
        """Fields that do not change what a command does."""
        bits = self.random.getrandbits
        return {"tag": bits(16), "sequence": bits(16), "layer": bits(16)}

    def write(self, register: int, value: int) -> Command:
        """SETREG."""
        return Descriptor(Opcode.SETREG, count=register, param=value, **self.tag()), b""

    def read(self, register: int) -> Command:
        """GETREG."""
        return Descriptor(Opcode.GETREG, count=register, **self.tag()), b""

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
        width = self.config.beats(header.clusters, 16) * self.config.bus_bits // 16
        scores = np.zeros((n, width), dtype="<u2")
        for row in scores:
            row[: header.clusters] = self.values(header.clusters) if header.clusters else 0
        made = Descriptor(
            Opcode.RETRIEVE,
            kv_heads=mask,
            count=rows,
            clusters=header.clusters,
            address=address,
            length=scores.size * 2,
            param=param,
            **self.tag(),
        )
        return made, scores.tobytes()

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
    for ring in (0, 2 * chunk):
        table = bench.table(ring=ring)
        for tokens in (1, chunk, *(bench.random.randrange(1, chunk + 1) for _ in range(scaled(8, 2)))):
            bench.send(bench.append(table, tokens))
        await bench.drain()
        bench.compare()


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
async def random_commands(bench: DreBench) -> None:
    """Commands of every kind on several tables at once."""
    bench.stall()
    tables = [bench.table() for _ in range(2)] + [bench.table(heads=1)]
    for _ in range(scaled(60, 10)):
        bench.send(bench.good(tables))
    await bench.drain()


@case(make)
async def faults(bench: DreBench) -> None:
    """Commands that must fail, between good ones; tables stay as they were."""
    bench.stall()
    tables = [bench.table(cap_clusters=20), bench.table(cap_segments=40), bench.table(heads=1)]
    poisoned = bench.table()
    bench.poke(poisoned + 12, b"\1\0")
    page, far = PAGE, 1 << 40

    def spoiled(command: Command, **fields: int) -> Command:
        made = replace(command[0], **fields)
        return made, bench.rng.bytes(made.length)

    for _ in range(scaled(8, 2)):
        table = bench.random.choice(tables)
        clusters = bench.header(table).clusters
        missing = bench.fetch(table, extra=3)
        mask = np.ones((1, clusters + 3), dtype=bool)
        bad = [
            spoiled(bench.append(table, 2), count=0),
            spoiled(bench.append(table, 2), count=bench.config.hcu.chunk_tokens + 1),
            spoiled(bench.append(table, 2), length=64),
            spoiled(bench.append(table, 2), address=table + 64),
            spoiled(bench.append(table, 2), address=far + table),
            spoiled(bench.append(poisoned, 2)),
            spoiled(bench.fetch(table), address=HOST.stop + page),
            spoiled(bench.fetch(table), kv_heads=0),
            spoiled(bench.retrieve(table), opcode=bench.random.randrange(8, 256)),
            spoiled(bench.retrieve(table), count=0),
            spoiled(bench.retrieve(table), param=2),
            (
                replace(missing[0], kv_heads=1, length=len(commands.pack_masks(bench.config, mask))),
                commands.pack_masks(bench.config, mask),
            ),
            bench.append(table, bench.config.hcu.chunk_tokens, centres=50),
            bench.write(Register.KV_BEATS, 1),
            bench.write(Register.TH_HD, 256),
        ]
        bench.random.shuffle(bad)
        for command in bad:
            bench.send(command)
            if bench.random.random() < 0.5:
                bench.send(bench.good(tables))
    await bench.drain()
