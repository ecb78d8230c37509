"""Testbench of the unit `recall`: commands on stores in a memory that stalls and fails (`EngineBench`)."""

from dataclasses import replace
from typing import Any

import numpy as np

from vrex.hw.dre.codes.codes import CodeSelect
from vrex.model import commands
from vrex.model.commands import (
    STORE_TOKENS,
    VOTE_PARAM,
    VOTE_ROWS,
    Completion,
    Descriptor,
    Opcode,
    Register,
    Status,
    VoteRows,
)
from vrex.model.config import Config
from vrex.model.dre.recall import Recall
from vrex.model.dre.registers import RECALL_REGISTERS, counters, scale_to_register
from vrex.model.dre.token_store import STORE_HEADER, StoreHeader, TokenStore, kv_bytes, plan_store
from vrex.model.dre.wtu import Scale
from vrex.model.lib.memory import PAGE
from vrex.tb.dre.codes import Draws
from vrex.tb.dre.engine import DEVICE, HOST, EngineBench
from vrex.tb.lib.bench import case, scaled
from vrex.tb.lib.counters import Command, counted
from vrex.tb.lib.stimuli import SCORES
from vrex.tb.lib.streams import StreamError

COUNTERS = counters(RECALL_REGISTERS)
PLACES = ("header", "codes", "scales", "host")
"""Of a store."""


class RecallBench(EngineBench[Recall]):
    """Drives commands and expects what the model returns (see `EngineBench`).

    Attributes:
        draws: stimuli of the bench of `codes`.
    """

    unit = "recall"
    ids = 2
    model_type = Recall

    def __init__(self, dut: Any, config: Config, seed: str) -> None:
        super().__init__(dut, config, seed)
        self.draws = Draws(config, self.rng, self.random)

    async def reset(self) -> None:
        """See `EngineBench.reset`; the register's own value, 0, makes all votes alike."""
        await super().reset()
        self.send(self.write(Register.SCALE, scale_to_register(Scale.from_float(0.125))))

    def run_model(self, descriptor: Descriptor, payload: bytes) -> tuple[Completion, bytes, bytes]:
        """See `EngineBench.run_model`; counts the corner cases of good commands."""
        completion, result, kv = super().run_model(descriptor, payload)
        if completion.status == Status.OK and descriptor.opcode == Opcode.STORE:
            first = completion.detail - descriptor.count
            self._cover_store(first, descriptor.count)
            self.coverage.hit("STORE of packed K and V", self.header(descriptor.address).is_packed)
        if completion.status == Status.OK and descriptor.opcode == Opcode.RECALL:
            self._cover_recall(result, descriptor.clusters)
            self.coverage.hit("RECALL of packed K and V", kv and self.header(descriptor.address).is_packed)
        return completion, result, kv

    def _cover_store(self, first: int, count: int) -> None:
        size, beat = self.config.codes.bits // 8, self.config.bus_bytes
        self.coverage.hit("STORE to an empty store", first == 0)
        self.coverage.hit("STORE into the middle of a beat", first * size % beat)
        whole = first * size % beat == 0 and count * size % beat == 0
        self.coverage.hit("STORE of whole beats", whole)
        ends = (first + count) * size % beat
        self.coverage.hit("codes need a beat more than they come in", 0 < ends < count * size % beat)

    def _cover_recall(self, result: bytes, tokens: int) -> None:
        chosen = np.flatnonzero(commands.unpack_masks(self.config, result, tokens, 1)[0])
        runs = int((np.diff(chosen) > 1).sum()) + 1
        self.coverage.hit("RECALL of no token", len(chosen) == 0)
        self.coverage.hit("RECALL of every token", len(chosen) == tokens)
        self.coverage.hit("RECALL of several runs", len(chosen) and runs > 1)
        self.coverage.hit("tokens that follow each other", len(chosen) > runs)
        self.coverage.hit("as many tokens as fit", tokens == self.config.codes.tokens)

    # -- stores and commands ------------------------------------------------------------------------------

    def store(self, cap_tokens: int = 600, is_packed: bool | None = None) -> int:
        """Makes an empty store, packed or not where it is not given; returns its address."""
        packs = self.random.random() < 0.5 if is_packed is None else is_packed
        identity = self.random.getrandbits(32)
        made = plan_store(self.config, cap_tokens, self._pages[1], identity, is_packed=packs)
        address = self._pages[0] * PAGE
        self._pages[0] += made.device_pages
        self._pages[1] += made.host_pages
        assert self._pages[0] <= DEVICE.base + DEVICE.pages, "the device window is too small for the test"
        assert self._pages[1] <= HOST.base + HOST.pages, "the host window is too small for the test"
        self.poke(address, made.header.pack())
        return address

    def header(self, address: int) -> StoreHeader:
        """The store's header in the model."""
        return StoreHeader.unpack(self.model.memory.read(address, STORE_HEADER.size))

    def visible(self, address: int) -> list[bytes]:
        """All that a store says in the model's memory."""
        store = TokenStore(self.config, self.model.memory, address)
        return [self.model.memory.read(*span) for span in store.spans()]

    def append(self, address: int, tokens: int) -> Command:
        """A good STORE."""
        values = SCORES[self.random.choice(list(SCORES))](self.rng, 2 * tokens * self.config.kvmu.head_dim)
        return commands.store_command(
            self.config,
            self.draws.coded(tokens),
            values.reshape(tokens, 2, -1).astype(np.uint16),
            address=address,
            identity=self.header(address).identity,
            **self.tag(),
        )

    def recall(self, address: int, rows: int = 1, residents: int = 3, wanted: int | None = None) -> Command:
        """A good RECALL of a store with tokens in it."""
        draws, header = self.draws, self.header(address)
        seen = VoteRows(draws.components(rows), draws.scales(rows), draws.residents(rows, residents))
        tokens = header.tokens
        count = self.random.choice([0, 1, tokens // 2, tokens, 65535]) if wanted is None else wanted
        return commands.recall_command(
            self.config,
            tokens,
            seen,
            count,
            address=address,
            identity=header.identity,
            **self.tag(),
        )

    def good(self, stores: list[int]) -> Command:
        """A random command on one of the stores."""
        address = self.random.choice(stores)
        kind = self.random.choice(["store", "store", "recall", "recall", "recall", "write", "read"])
        below = self.random.randrange
        if kind == "write":
            return self.write(Register.SCALE, scale_to_register(self.draws.rule()))
        if kind == "read":
            return self.read(self.random.choice(RECALL_REGISTERS))
        if kind == "recall" and self.header(address).tokens:
            return self.recall(address, 1 + below(4), below(12))
        return self.append(address, 1 + below(20))

    async def fail(self, command: Command, status: Status) -> None:
        """Runs a command in whose way the memory stands; what its store says must stay as it was.

        Or, where no answer came to the last write of all, that of the count, be as if nothing had happened.
        """
        address = command[0].address
        await self.run_into(command, status)
        tokens = int.from_bytes(self.memory.read(address, 4), "little")
        if tokens != self.header(address).tokens:
            assert status == Status.TIMEOUT
            self.model.execute(*command)
        wanted = self.visible(address)
        self.memory.copy_to(self.model.memory)
        if self.visible(address) != wanted:
            raise StreamError(f"a failed {Opcode(command[0].opcode).name} changed its store")


def make(dut: Any, config: Config, seed: str) -> RecallBench:
    """Bench of one case."""
    return RecallBench(dut, config, seed)


def _filled(bench: RecallBench, tokens: int = 40, is_packed: bool | None = None) -> int:
    """A store with some tokens in it, that has room for others."""
    store = bench.store(is_packed=is_packed)
    bench.send(bench.append(store, tokens))
    return store


@case(make, packed=[False, True])
async def grows(bench: RecallBench, packed: bool) -> None:
    """A store grows by a few tokens at a time, and is asked in between for all, some and none of them."""
    bench.stall()
    store = bench.store(is_packed=packed)
    beat = max(1, 8 * bench.config.bus_bytes // bench.config.codes.bits)
    for tokens in (beat, 1, 2 * beat, *(bench.random.randrange(1, 30) for _ in range(scaled(10, 3)))):
        bench.send(bench.append(store, tokens))
        bench.send(bench.recall(store, 2, 5, bench.header(store).tokens // 3))
        bench.send(bench.recall(store))
    await bench.drain()


@case(make)
async def every_place(bench: RecallBench) -> None:
    """STOREs that begin and end at every place of a beat."""
    bench.stall("light")
    store, beat = bench.store(), max(2, 8 * bench.config.bus_bytes // bench.config.codes.bits)
    for first in range(min(beat, scaled(beat, 4))):
        bench.send(bench.append(store, first + 1))
        bench.send(bench.append(store, bench.random.randrange(1, 2 * beat)))
    bench.send(bench.recall(store, wanted=65535))
    await bench.drain()


@case(make, round=range(scaled(3, 1)))
async def random_commands(bench: RecallBench, round: int) -> None:
    """Commands of every kind on several stores, under scales that change."""
    stores = [bench.store() for _ in range(3)]
    for _ in range(scaled(40, 8)):
        bench.stall()
        bench.send(bench.good(stores))
        if bench.random.random() < 0.2:
            await bench.drain()


@case(make)
async def as_much_as_fits(bench: RecallBench) -> None:
    """Tokens and residents up to the unit's own, and a STORE that fills the store to its last token."""
    unit = bench.config.codes
    bench.stall("light")
    store = bench.store(unit.tokens)
    first = min(unit.tokens - 1, STORE_TOKENS)
    bench.send(bench.append(store, first))
    assert bench.send(bench.append(store, unit.tokens - first + 1)).status == Status.KV_FULL
    bench.send(bench.append(store, unit.tokens - first))
    bench.send(bench.recall(store, 1, unit.residents, unit.tokens // 2))
    await bench.drain()


@case(make)
async def faults(bench: RecallBench) -> None:
    """Everything that is refused, each followed by a good command; stores stay as they were."""
    stores = [_filled(bench) for _ in range(2)]
    for _ in range(scaled(3, 1)):
        bad = _bad_commands(bench, bench.random.choice(stores))
        bench.random.shuffle(bad)
        for command in bad:
            bench.stall()
            bench.send(command)
            if bench.random.random() < 0.5:
                bench.send(bench.good(stores))
    await bench.drain()


def _bad_commands(bench: RecallBench, store: int) -> list[Command]:
    """Commands that must fail."""
    unit, size, far = bench.config.codes, bench.config.bus_bytes, 1 << 40

    def spoiled(command: Command, **fields: int) -> Command:
        made = replace(command[0], **fields)
        return made, bench.rng.bytes(made.length)

    tokens = bench.header(store).tokens
    each = store_, recall = bench.append(store, 2), bench.recall(store, 2, 3)
    many = VOTE_PARAM.to_int({"residents": unit.residents + 1, "wanted": 1})
    larger = replace(bench.header(store), tokens=unit.tokens + 1, cap_tokens=unit.tokens + 1)
    beyond = bench.store()
    bench.poke(beyond, replace(larger, identity=recall[0].kv_heads).pack())
    return [
        *(spoiled(command, length=command[0].length + 1) for command in each),
        *(spoiled(command, length=command[0].length + size) for command in each),
        *(spoiled(command, length=0) for command in each),
        *(spoiled(command, address=store + 64) for command in each),
        *(spoiled(command, address=far + store) for command in each),
        *(spoiled(command, address=(1 << 48) + store) for command in each),
        *(spoiled(command, address=HOST.stop + PAGE) for command in each),
        *(
            spoiled(command, kv_heads=command[0].kv_heads ^ 1 << bench.random.randrange(32))
            for command in each
        ),
        *(spoiled(command, count=0) for command in each),
        *(spoiled(command, count=3) for command in each),
        # The most that there may be have another length.
        spoiled(store_, count=STORE_TOKENS),
        spoiled(store_, count=STORE_TOKENS + 1),
        spoiled(recall, count=VOTE_ROWS),
        spoiled(recall, count=VOTE_ROWS + 1),
        spoiled(recall, clusters=0),
        spoiled(recall, clusters=tokens - 1),
        spoiled(recall, clusters=tokens + 1),
        spoiled(recall, clusters=unit.tokens + 1),
        spoiled(recall, address=beyond, clusters=1),
        spoiled(recall, param=many),
        *(spoiled(recall, opcode=opcode) for opcode in (0, Opcode.VOTE, Opcode.FETCH, 11, 255)),
        bench.write(Register.KV_BEATS, 1),
        bench.write(Register.SCALE, 1),
        spoiled(bench.write(Register.SCALE, 0), length=16),
        bench.read(Register.TH_HD),
        spoiled(bench.read(Register.SCALE), length=3),
    ]


def _place_of(bench: RecallBench, store: int, place: str) -> tuple[int, int]:
    """First byte and bytes of one of a store's arrays."""
    header, config = bench.header(store), bench.config
    return {
        "header": (store, STORE_HEADER.size),
        "codes": (store + header.codes_page * PAGE, header.cap_tokens * config.codes.bits // 8),
        "scales": (store + header.scales_page * PAGE, header.cap_tokens * 2),
        "host": (header.host_page * PAGE, header.cap_tokens * kv_bytes(config, header.is_packed)),
    }[place]


@case(make, place=PLACES)
async def bus_errors(bench: RecallBench, place: str) -> None:
    """Memory refuses accesses to one array; each command ends by name and the next one works."""
    bench.stall()
    store, size = _filled(bench), bench.config.bus_bytes
    await bench.drain()
    first, length = _place_of(bench, store, place)
    for opcode in (Opcode.STORE, Opcode.RECALL):
        command = bench.append(store, 5) if opcode == Opcode.STORE else bench.recall(store, 2, 3, 30)
        bench.memory.bad_beats |= set(range(first // size, -(-(first + length) // size)))
        await bench.fail(command, Status.BUS_ERROR)
        bench.send(bench.append(store, 2))
        bench.send(bench.recall(store))
        await bench.drain()


@case(make, place=PLACES[1:])
async def outside(bench: RecallBench, place: str) -> None:
    """A header whose array lies outside the windows."""
    bench.stall()
    store = _filled(bench)
    await bench.drain()
    good, page = bench.header(store), f"{place}_page"
    bench.poke(store, replace(good, **{page: (1 << 32) - 2}).pack())
    for command in (bench.append(store, 5), bench.recall(store, 2, 3, 30)):
        assert bench.model.execute(*command)[0].status == Status.BAD_ADDRESS
        await bench.run_into(command, Status.BAD_ADDRESS)
        bench.memory.copy_to(bench.model.memory)
    bench.poke(store, good.pack())
    bench.send(bench.recall(store))
    await bench.drain()


@case(make, channel=["ar", "r", "aw", "w", "b"])
async def no_answer(bench: RecallBench, channel: str) -> None:
    """Memory falls silent in the middle of a command; later it answers again."""
    bench.stall("none")
    store = _filled(bench)
    await bench.drain()
    writes = channel in ("aw", "w", "b")
    for _ in range(scaled(3, 1)):
        # Before the end of the command: a STORE reads a header and writes four times; a RECALL reads more.
        bench.memory.allow[channel] = bench.random.randrange(4 if writes else 1)
        await bench.fail(bench.append(store, 20), Status.TIMEOUT)
        if not writes:
            bench.memory.allow[channel] = bench.random.randrange(4)
            await bench.fail(bench.recall(store, 2, 3, 40), Status.TIMEOUT)
        bench.send(bench.append(store, 2))
        bench.send(bench.recall(store))
        await bench.drain()


@case(make)
async def counts(bench: RecallBench) -> None:
    """What is counted is what passed the ports; the unit of codes is busy as published, or longer."""
    config, rows, residents = bench.config, 3, 5
    store = _filled(bench)
    await bench.drain()
    before, half = replace(bench.memory.counts), len(COUNTERS)
    append, again = bench.append(store, 7), bench.read(Register.SCALE)
    found = await counted(bench, COUNTERS, [append, again])
    work = bench.recall(store, rows, residents, 20)
    found = found[:half] + (await counted(bench, COUNTERS, [work]))[half:]
    grown = {
        register: ended - begun
        for register, begun, ended in zip(COUNTERS, found[:half], found[half:], strict=True)
    }
    after = bench.memory.counts
    passed = {
        Register.READ_BURSTS: after.read_bursts - before.read_bursts,
        Register.READ_BEATS: after.read_beats - before.read_beats,
        Register.WRITE_BURSTS: after.write_bursts - before.write_bursts,
        Register.WRITE_BEATS: after.write_beats - before.write_beats,
        Register.KV_BEATS: bench.details[-half - 1],
    }
    for register, wanted in passed.items():
        if grown[register] != wanted:
            raise StreamError(f"{register.name} counted {grown[register]}, not {wanted}")
    busy, took = grown[Register.VOTE_BUSY], bench.cycles[-half - 1]
    own = CodeSelect.cycles(config.codes, work[0].clusters, rows, residents, bus_bits=config.bus_bits)
    if not own <= busy < took:
        raise StreamError(f"{busy} busy cycles of {took}, published {own}")


@case(make)
async def reset(bench: RecallBench) -> None:
    """A reset while bursts are under way forgets the command; nothing of it comes later."""
    for _ in range(scaled(8, 3)):
        bench.stall()
        store = _filled(bench)
        bench.send(bench.recall(store, 2, 3, 20))
        await bench.steps(bench.random.randrange(100, 1500))
        bench.coverage.hit("reset in the middle of a burst", not bench.memory.idle)
        await bench.reset()
    store = _filled(bench)
    bench.send(bench.recall(store, 2))
    await bench.drain()


@case(make)
async def power_up(bench: RecallBench) -> None:
    """Every register and a short command of each kind: as much as Icarus simulates in little time."""
    bench.stall("none")
    bench.memory.latency = (1, 2)
    for register in RECALL_REGISTERS:
        bench.send(bench.read(register))
    store = _filled(bench, 3)
    bench.send(bench.append(store, 2))
    bench.send(bench.recall(store, 1, 2, 2))
    await bench.drain()


@case(make)
async def ready_and_valid(bench: RecallBench) -> None:
    """No valid depends on a ready of the same cycle."""
    bench.stall("heavy")
    store = _filled(bench, 20)
    for _ in range(3):
        bench.send(bench.recall(store, 2, 3))
    await bench.check_ready_is_not_seen_by_valid(scaled(2000, 400))
