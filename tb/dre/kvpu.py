"""Testbench of the KVPU: results, statuses and registers bit for bit against `vrex.model.dre.kvpu`."""

from collections.abc import Callable
from typing import Any

import numpy as np

from vrex.hw.dre.hcu import Hcu
from vrex.hw.dre.wtu.wtu import Wtu, search_cycles
from vrex.model import commands
from vrex.model.commands import Completion, Descriptor, Opcode, Register, Status
from vrex.model.config import MAX_CLUSTERS, Config
from vrex.model.dre.kvpu import COUNTERS, RESET, VALID, Kvpu
from vrex.model.dre.registers import scale_to_register
from vrex.tb.dre.hcu import random_hashes
from vrex.tb.dre.wtu import SCALES, examined
from vrex.tb.lib.bench import Bench, beats, case, scaled
from vrex.tb.lib.counters import Command, counted
from vrex.tb.lib.stimuli import COUNTS, SCORES
from vrex.tb.lib.streams import StreamError

COMMAND_CYCLES = 8
"""Published cycles of a command besides those of its unit and of its result's beats."""

CYCLES_MASK = 0xFFFF_FFFF << 32
DETAIL_MASK = 0xFFFF_FFFF << 96

OWN = (Opcode.SETREG, Opcode.GETREG, Opcode.CLUSTER, Opcode.SELECT)
"""Opcodes that a KVPU has; those of a DRE are reserved here like all others."""


class KvpuBench(Bench):
    """Drives descriptors and payloads and expects what the model returns.

    Attributes:
        model: golden KVPU, in step with the design.
        details: `detail` of the completions so far.
        cycles: `cycles` of the completions so far.
        examined: clusters that the last SELECT has the WTU examine.
    """

    unit = "kvpu"

    def __init__(self, dut: Any, config: Config, seed: str) -> None:
        super().__init__(dut, config, seed, inputs=("cmd", "din"), outputs=("dout", "cpl"))
        self.model = Kvpu(config)
        self.details: list[int] = []
        self.cycles: list[int] = []
        self.examined = 0
        self._last_completion = 0
        self._last_status = Status.OK
        self.sinks["cpl"].on_word = self._completed

    async def reset(self) -> None:
        """Resets design and model."""
        await super().reset()
        self.model = Kvpu(self.config)
        self._last_completion = self.cycle

    def _completed(self, word: int) -> None:
        completion = Completion.unpack(word.to_bytes(16, "little"))
        passed = self.cycle - self._last_completion
        if not 0 < completion.cycles <= passed:
            raise StreamError(f"cpl: {completion} claims {completion.cycles} cycles, {passed} have passed")
        self._last_completion = self.cycle
        self.cycles.append(completion.cycles)
        self.details.append(completion.detail)

    def send(self, command: Command) -> Completion:
        """Queues one command and its expectations; returns the model's completion."""
        descriptor, payload = command
        payload = commands.to_beats(self.config, payload)
        known = dict(self.model.registers.values)
        completion, result = self.model.execute(descriptor, payload)
        self.sources["cmd"].send(beats(descriptor.pack(), 32))
        self.sources["din"].send(beats(payload, self.config.bus_bytes))
        what = f"{descriptor}"
        dout = self.sinks["dout"]
        dout.expect(what, beats(result, self.config.bus_bytes))
        # The model has no clock: cycles and counters are checked for plausibility elsewhere.
        mask = (1 << 128) - 1 & ~CYCLES_MASK
        if descriptor.opcode == Opcode.GETREG and descriptor.count in COUNTERS:
            mask &= ~DETAIL_MASK
            self.coverage.hit("counter read", completion.status == Status.OK)
        self.sinks["cpl"].expect(what, beats(completion.pack(), 16), mask, after=(dout, dout.asked))
        self._cover(descriptor, Status(completion.status), completion, known)
        return completion

    def _cover(
        self, command: Descriptor, status: Status, completion: Completion, known: dict[Register, int]
    ) -> None:
        """Counts the corner cases that a command met."""
        hit, unit = self.coverage.hit, self.config
        name = Opcode(command.opcode).name if command.opcode in OWN else "reserved opcode"
        hit(f"{name} ends with {status.name}")
        good, fault_before = status == Status.OK, self._last_status != Status.OK
        hit("fault with a payload", not good and command.length)
        hit("fault without a payload", not good and not command.length)
        hit(
            "fault with a length that is no whole number of beats",
            not good and command.length % unit.bus_bytes,
        )
        hit("good command right after a fault", good and fault_before)
        hit("two faults in a row", not good and fault_before)
        self._last_status = status
        if name == "CLUSTER" and good:
            hit("CLUSTER of 0 clusters", command.clusters == 0)
            hit("CLUSTER of more than one tile", command.clusters > unit.hcu.tile_clusters)
        if name == "SELECT" and good:
            hit("SELECT of 0 clusters", command.clusters == 0)
            hit("SELECT of the whole memory", command.clusters == unit.wtu.row_clusters)
            hit("SELECT of more than the memory", command.clusters > unit.wtu.row_clusters)
            hit("SELECT of 32 KV heads", command.kv_heads == 0xFFFF_FFFF)
            hit("SELECT with gaps in the mask", "01" in f"{command.kv_heads:b}")
            hit("SELECT with degenerate rows", completion.detail)
        if name == "SETREG":
            hit("write of a counter refused", command.count in COUNTERS and status == Status.BAD_REGISTER)
        if name == "GETREG" and good and command.count in list(VALID):
            register = Register(command.count)
            hit("register reads back what was written", known[register] != RESET[register])

    # -- commands -----------------------------------------------------------------------------------------

    def tag(self) -> dict[str, int]:
        """Fields that do not change what a command does."""
        bits = self.random.getrandbits
        return {"tag": bits(16), "sequence": bits(16), "layer": bits(16)}

    def cluster(self, tokens: int, clusters: int) -> Command:
        """A good CLUSTER of random hashes near each other."""
        pool = random_hashes(self.rng, self.config, tokens + clusters, self.random.choice([None, 2, 20]))
        return commands.cluster_command(self.config, pool[:tokens], pool[tokens:], **self.tag())

    def select(self, mask: int, rows: int, clusters: int) -> Command:
        """A good SELECT of scores of any class."""
        heads = mask.bit_count()
        scores = np.zeros((heads, rows, clusters), dtype=np.uint16)
        for index in np.ndindex(heads, rows):
            if clusters:
                scores[index] = SCORES[self.random.choice(list(SCORES))](self.rng, clusters)
        counts = COUNTS[self.random.choice(list(COUNTS))](self.rng, clusters)
        rule = self.model.registers.rule(self.config)
        self.examined = sum(examined(row, counts, rule) for head in scores for row in head) if clusters else 0
        return commands.select_command(self.config, scores, counts, kv_heads=mask, **self.tag())

    def select_cycles(self, clusters: int, rows: int, heads: int) -> int:
        """Cycles of the WTU for a SELECT of at least one cluster, as it publishes them."""
        config = self.config
        return Wtu.cycles(config.wtu, max(1, clusters), rows, heads, bus_bits=config.bus_bits)

    def write(self, register: int, value: int, length: int = 0) -> Command:
        """SETREG, good or not."""
        command = Descriptor(Opcode.SETREG, count=register, param=value, length=length, **self.tag())
        return command, self.payload(length)

    def read(self, register: int, length: int = 0) -> Command:
        """GETREG, good or not."""
        return Descriptor(Opcode.GETREG, count=register, length=length, **self.tag()), self.payload(length)

    def payload(self, length: int) -> bytes:
        """Random bytes."""
        return self.rng.bytes(length)

    def good(self, cycles: int) -> Command:
        """A random good command that takes about so many cycles."""
        kind = self.random.choice(["cluster", "cluster", "select", "select", "select", "write", "read"])
        clusters = self.random.choice([0, 1, self.random.randrange(30), self.random.randrange(200)])
        if kind == "cluster":
            rows = -(-clusters // self.config.hcu.lanes)
            most = int(np.clip(cycles // max(1, rows), 1, self.config.hcu.chunk_tokens))
            return self.cluster(self.random.randrange(1, most + 1), clusters)
        if kind == "select":
            most = max(1, cycles // self.select_cycles(clusters, 1, 1))
            mask = self.random.choice([1, 0x8000_0000, 0b101, self.random.getrandbits(32) or 1])
            while mask.bit_count() > most:
                mask &= mask - 1
            return self.select(mask, self.random.randrange(1, max(1, most // mask.bit_count()) + 1), clusters)
        if kind == "read":
            return self.read(self.random.choice([*VALID, *COUNTERS]))
        register = self.random.choice(list(VALID))
        return self.write(register, self.random.choice(self.values(register)))

    def values(self, register: Register) -> list[int]:
        """Values that a register takes, its bounds among them."""
        return {
            Register.TH_HD: [0, 1, 5, 7, 255, self.random.randrange(256)],
            Register.TH_R: [0, 19661, 65535, self.random.randrange(1 << 16)],
            Register.TRANSFORM: [0, 1, 2],
            Register.SELECTION: [0, 1],
            Register.SCALE: [scale_to_register(scale) for scale in SCALES],
        }[register]

    def fault(self) -> Command:
        """A random command that must fail."""
        pick, below = self.random.choice, self.random.randrange
        length = pick([0, 1, self.config.bus_bytes, below(1, 400)])
        tag = self.tag()

        def spoiled(command: Command, **fields: int) -> Command:
            descriptor, _ = command
            known = {name: getattr(descriptor, name) for name in ("kv_heads", "count", "clusters", "length")}
            made = Descriptor(descriptor.opcode, **tag, **{**known, **fields})
            return made, self.payload(made.length)

        def other_length(command: Command) -> Command:
            right, bus = command[0].length, self.config.bus_bytes
            wrong = [0, 1, right - 1, right + 1, right - bus, right + bus, 2 * right]
            return spoiled(command, length=pick([value for value in wrong if value >= 0 and value != right]))

        def plain(opcode: int) -> Command:
            made = Descriptor(opcode, **tag, count=below(1 << 16), clusters=below(1 << 16), length=length)
            return made, self.payload(length)

        unit, wrong_registers = self.config, [5, 15, *COUNTERS, 26, 65535, 1 << 8]
        kinds: list[Callable[[], Command]] = [
            lambda: plain(pick([0, 5, 255, below(5, 256)])),
            lambda: self.write(pick(wrong_registers), below(1 << 32), length),
            lambda: self.write(*pick(self.wrong_values()), length=length),
            lambda: self.write(Register.TH_R, 1, max(1, length)),
            lambda: self.read(pick([5, 15, 26, 65535]), length),
            lambda: self.read(pick([*VALID, *COUNTERS]), max(1, length)),
            lambda: other_length(self.cluster(3, 9)),
            lambda: other_length(self.select(0b11, 2, 9)),
            lambda: spoiled(self.cluster(3, 9), count=pick([0, unit.hcu.chunk_tokens + 1, 65535])),
            lambda: spoiled(self.select(0b11, 2, 9), count=0, length=length),
            lambda: spoiled(self.select(0b11, 2, 9), kv_heads=0),
            lambda: spoiled(self.select(1, 1, 9), clusters=pick([unit.wtu.mask_clusters % 65536 + 1, 65535])),
        ]
        return pick(kinds)()

    def wrong_values(self) -> list[tuple[int, int]]:
        """(register, value) that SETREG must refuse."""
        return [
            (Register.TH_HD, 256),
            (Register.TH_HD, 1 << 31),
            (Register.TH_R, 1 << 16),
            (Register.TRANSFORM, 3),
            (Register.TRANSFORM, 1 << 16),
            (Register.SELECTION, 2),
            (Register.SCALE, 1),
            (Register.SCALE, 0x7FFF),
            (Register.SCALE, 0x0100_8000),
            (Register.SCALE, 1 << 31),
        ]


def make(dut: Any, config: Config, seed: str) -> KvpuBench:
    """Bench of one case."""
    return KvpuBench(dut, config, seed)


@case(make)
async def registers(bench: KvpuBench) -> None:
    """Every register: its reset value, its bounds, what it refuses; a refusal changes nothing."""
    bench.stall()
    for register in (*VALID, *COUNTERS):
        bench.send(bench.read(register))
    for register in VALID:
        for value in bench.values(register):
            bench.send(bench.write(register, value))
            bench.send(bench.read(register))
    for index, wrong in bench.wrong_values():
        failed = bench.send(bench.write(index, wrong))
        assert failed.status == Status.BAD_VALUE
        bench.send(bench.read(index))
    bench.coverage.hit("fault leaves a register as it was")
    for counter in COUNTERS:
        bench.send(bench.write(counter, 5))
    bench.coverage.hit("long queue of commands", len(bench.sources["cmd"].queue) > 50)
    await bench.drain()


@case(make)
async def sizes(bench: KvpuBench) -> None:
    """Empty, longest and widest commands."""
    unit = bench.config
    bench.stall("light")
    chunk = unit.hcu.chunk_tokens
    for tokens, clusters in ((1, 0), (chunk, 0), (chunk, 1), (2, unit.hcu.tile_clusters + 3), (1, 5000)):
        bench.send(bench.cluster(tokens, clusters))
    shapes = [(1, 1, 0), (0xF0, 2, 0), (0xFFFF_FFFF, 1, 5), (0x8000_0001, 2, 17)]
    if scaled(100) >= 100 or unit.wtu.row_clusters <= 512:
        shapes += [(1, 1, unit.wtu.row_clusters), (0b11, 2, unit.wtu.row_clusters + 1)]
    for mask, rows, clusters in shapes:
        bench.send(bench.select(mask, rows, clusters))
    await bench.drain()


@case(make)
async def faults(bench: KvpuBench) -> None:
    """Every kind of fault, alone and in a row, each time followed by a good command."""
    for _ in range(scaled(120, 30)):
        bench.stall()
        for _ in range(bench.random.choice([1, 1, 2])):
            failed = bench.send(bench.fault())
            assert failed.status != Status.OK
        bench.send(bench.good(300))
        if bench.random.random() < 0.3:
            await bench.drain()


@case(make)
async def table_full(bench: KvpuBench) -> None:
    """A table that overflows, between commands that do not."""
    if scaled(100) < 100 or bench.config.hcu.lanes < 8:
        return
    bench.stall("none")
    bench.send(bench.write(Register.TH_HD, 0))
    for clusters, status in ((MAX_CLUSTERS - 1, Status.TABLE_FULL), (MAX_CLUSTERS - 2, Status.OK)):
        assert bench.send(bench.cluster(2, clusters)).status == status
        bench.send(bench.cluster(2, 3))
        bench.send(bench.select(3, 1, 4))
    await bench.drain()


@case(make, round=range(scaled(6, 2)))
async def random(bench: KvpuBench, round: int) -> None:
    """Random commands of all kinds, queued back to back."""
    for _ in range(scaled(40, 8)):
        bench.stall()
        bench.send(bench.fault() if bench.random.random() < 0.25 else bench.good(scaled(1500, 300)))
        if bench.random.random() < 0.25:
            await bench.drain()


@case(make)
async def counters(bench: KvpuBench) -> None:
    """The cycle counters grow with their unit's work and waiting, and never beyond the time that passed."""
    await _check_counters(bench, waiting=False)
    await bench.reset()
    await _check_counters(bench, waiting=True)


async def _check_counters(bench: KvpuBench, waiting: bool) -> None:
    bench.stall("heavy" if waiting else "none")
    start, before = bench.cycle, len(bench.details)
    bench.send(bench.cluster(min(8, bench.config.hcu.chunk_tokens), 40))
    bench.send(bench.select(0b11, 2, 40))
    for counter in COUNTERS:
        bench.send(bench.read(counter))
    await bench.drain()
    work, (hcu, hcu_in, hcu_out, wtu, wtu_in, wtu_out, rows, search, words, clusters) = (
        sum(bench.cycles[before : before + 2]),
        bench.details[before + 2 :],
    )
    passed = bench.cycle - start
    plausible = 0 < hcu <= passed and 0 < wtu <= passed and hcu + wtu <= work
    plausible &= hcu_in + hcu_out <= hcu and wtu_in + wtu_out <= wtu
    lanes = bench.config.wtu.lanes
    plausible &= (
        rows == 4 and clusters == bench.examined and 0 < search <= 4 * search_cycles(bench.config.wtu, 40)
    )
    plausible &= 0 < words <= 4 * 2 * -(-40 // lanes) and 0 < clusters <= words * lanes
    if waiting:
        plausible &= hcu_in > 0 and wtu_in > 0
    if not plausible:
        raise StreamError(
            f"counters after {passed} cycles: {bench.details[before:]}, completions {work} cycles"
        )


@case(make)
async def reset(bench: KvpuBench) -> None:
    """Reset at random moments of a command; what follows must not notice, and the registers start anew."""
    for _ in range(scaled(12, 3)):
        bench.stall()
        for register in VALID:
            bench.send(bench.write(register, bench.random.choice(bench.values(register))))
        await bench.drain()
        bench.send(bench.random.choice([bench.cluster(4, 40), bench.select(0b11, 2, 20), bench.fault()]))
        await bench.steps(int(bench.rng.integers(1, 150)))
        bench.coverage.hit("reset in the middle of a command", bench.sinks["cpl"].expected)
        await bench.reset_in_work()
        for register in VALID:
            bench.send(bench.read(register))
        bench.send(bench.good(200))
        await bench.drain()
    bench.coverage.hit("reset restores the registers")


@case(make)
async def reset_counters(bench: KvpuBench) -> None:
    """A reset at any moment of a command: what is counted afterwards is equal, bit for bit."""
    work = [bench.cluster(4, 40), bench.select(0b11, 2, 20)]
    wanted = await counted(bench, COUNTERS, work)
    if any(wanted[: len(COUNTERS)]):
        raise StreamError(f"counters are {wanted[: len(COUNTERS)]} after a reset")
    took = bench.cycles[len(COUNTERS) + 1]
    for _ in range(scaled(24, 6)):
        bench.stall("none")
        bench.send(work[1])
        await bench.steps(int(bench.rng.integers(8, took)))
        bench.coverage.hit("counters after a reset in the middle of a command", bench.sinks["cpl"].expected)
        await bench.reset_in_work()
        found = await counted(bench, COUNTERS, work)
        if found != wanted:
            raise StreamError(f"after a reset the counters go from {found}, not {wanted}")


@case(make)
async def ready_and_valid(bench: KvpuBench) -> None:
    """No valid depends on a ready of the same cycle."""
    bench.stall("heavy")
    for _ in range(12):
        bench.send(bench.good(100))
    await bench.check_ready_is_not_seen_by_valid(800)


@case(make)
async def latency(bench: KvpuBench) -> None:
    """Completions count the cycles that were measured, and no more than are published."""
    bench.stall("none")
    config = bench.config
    for tokens, clusters, rows in ((1, 0, 1), (5, 33, 2), (8, 150, 3)):
        unit_cycles = (
            Hcu.cycles(config.hcu, tokens, clusters, bus_bits=config.bus_bits),
            bench.select_cycles(clusters, rows, 2),
        )
        both = bench.cluster(tokens, clusters), bench.select(0b11, rows, clusters)
        for command, published in zip(both, unit_cycles, strict=True):
            bench.send(command)
            await bench.drain(lambda: not bench.sources["cmd"].queue)
            start = bench.cycle
            results = bench.sinks["dout"].asked - bench.sinks["dout"].received
            await bench.drain()
            took = bench.sinks["cpl"].first_seen - start + 1
            if abs(took - bench.cycles[-1]) > 1:
                raise StreamError(f"cpl claims {bench.cycles[-1]} cycles, {took} were measured")
            if took > published + COMMAND_CYCLES + results + 1:
                raise StreamError(f"{command[0]} took {took} cycles, published {published + COMMAND_CYCLES}")
