"""Testbench of the HCU: every decision bit for bit against `vrex.model.dre.hcu`."""

from collections import deque
from typing import Any

import numpy as np

from vrex.hw.dre.hcu import Hcu
from vrex.model import commands
from vrex.model.config import MAX_CLUSTERS, Config
from vrex.model.dre import hcu
from vrex.tb.lib.bench import Bench, beats, case, fields, scaled
from vrex.tb.lib.streams import PROFILES, Profile, Source, StreamError

LATENCY_MARGIN = 0
"""Cycles that a command may take beyond the unit's published figure."""


def random_hashes(
    rng: np.random.Generator, config: Config, n: int, distinct: int | None = None
) -> np.ndarray:
    """Random hash words uint32 [n, words], drawn from `distinct` values if given."""
    words = -(-config.hcu.hash_bits // 32)
    bits = rng.integers(0, 1 << min(32, config.hcu.hash_bits), (distinct or n, words), dtype=np.uint32)
    return bits if distinct is None else bits[rng.integers(0, distinct, n)]


class HcuBench(Bench):
    """Drives commands and expects what the model decides."""

    unit = "hcu"

    def __init__(self, dut: Any, config: Config, seed: str) -> None:
        super().__init__(dut, config, seed, inputs=("cmd", "din"), outputs=("dout", "done"))
        # Beats of tokens and of founders: of the commands that the unit has not taken, and what is still to
        # come of the one in work.
        self.orders: deque[tuple[int, int]] = deque()
        self.tokens_left = self.founders_left = 0
        self.working = False

    async def reset(self) -> None:
        """As every bench's; no command is in work."""
        self.orders.clear()
        self.tokens_left = self.founders_left = 0
        self.working = False
        await super().reset()

    def _sample(self) -> list[Source]:
        """Beside the ports, checks what the unit says of itself: busy, wait_in, wait_out."""
        done, dout = (bool(getattr(self.dut, f"{name}__valid").value) for name in ("done", "dout"))
        given = self.sources["din"].valid
        busy, wait_in, wait_out = (
            bool(getattr(self.dut, name).value) for name in ("busy", "wait_in", "wait_out")
        )
        if busy != (self.working and not done):
            raise StreamError(f"busy is {busy} {'in' if self.working else 'without'} a command")
        if wait_out != (dout and not self.sinks["dout"].ready):
            raise StreamError(f"wait_out is {wait_out} while dout is {'' if dout else 'not '}valid")
        if self.tokens_left and wait_in == given:
            raise StreamError(f"wait_in is {wait_in} while tokens are {'' if given else 'not '}there")
        if wait_in and (given or not (self.tokens_left or self.founders_left)):
            raise StreamError("wait_in is high although no beat is missing")
        taken = super()._sample()
        self._follow(taken, ended=done and self.sinks["done"].ready)
        return taken

    def _follow(self, taken: list[Source], ended: bool) -> None:
        """Keeps the account of the command in work."""
        self.working &= not ended
        if self.sources["din"] in taken:
            if self.tokens_left:
                self.tokens_left -= 1
            else:
                self.founders_left -= 1
        if self.sources["cmd"] in taken:
            self.tokens_left, self.founders_left = self.orders.popleft()
            self.working = True

    def hashes(self, n: int, distinct: int | None = None) -> np.ndarray:
        """`random_hashes` of this case."""
        return random_hashes(self.rng, self.config, n, distinct)

    def near(self, hashes: np.ndarray, flips: int) -> np.ndarray:
        """The same hashes with up to `flips` random bits turned over in each."""
        out = hashes.copy()
        for row in out:
            for bit in self.rng.integers(0, self.config.hcu.hash_bits, self.rng.integers(0, flips + 1)):
                row[bit // 32] ^= np.uint32(1 << (bit % 32))
        return out

    def opposite(self, hashes: np.ndarray) -> np.ndarray:
        """The hashes with every bit turned over: as far away as can be."""
        return hashes ^ np.uint32((1 << min(self.config.hcu.hash_bits, 32)) - 1)

    def affordable(self, clusters: int, cycles: int) -> int:
        """Tokens of a chunk, at least 1, that a table of that size takes about so many cycles for."""
        rows = -(-clusters // self.config.hcu.lanes)
        return int(np.clip(scaled(cycles) // max(rows, 1), 1, self.config.hcu.chunk_tokens))

    def cluster(self, tokens: np.ndarray, clusters: np.ndarray, th_hd: int) -> hcu.Clustering | None:
        """Queues one command and its expectations; returns the model's result, None if the table is full."""
        config, dout = self.config, self.sinks["dout"]
        what = f"{len(tokens)} tokens on {len(clusters)} clusters with th_hd {th_hd}"
        parts = [
            beats(commands.to_beats(config, commands.hashes_to_bytes(config, part)), config.bus_bytes)
            for part in (tokens, clusters)
        ]
        self.sources["cmd"].send([fields((len(tokens), 9), (len(clusters), 16), (th_hd, 8))])
        for part in parts:
            self.sources["din"].send(part)
        self.orders.append((len(parts[0]), len(parts[1])))
        try:
            result = hcu.cluster(tokens, clusters, th_hd)
        except hcu.TableFullError:
            # The number of clusters opened does not matter to a command that fails.
            self.sinks["done"].expect(what, [fields((0, 9), (1, 1))], 1 << 9, after=(dout, dout.asked))
            self.coverage.hit("table full")
            return None
        decisions = commands.pack_clustering(config, result)[: 4 * len(tokens)]
        dout.expect(what, beats(decisions, 4))
        done = fields((int(result.opened.sum()), 9), (0, 1))
        self.sinks["done"].expect(what, [done], after=(dout, dout.asked))
        self.cover(tokens, clusters, th_hd, result)
        return result

    def cover(self, tokens: np.ndarray, clusters: np.ndarray, th_hd: int, result: hcu.Clustering) -> None:
        """Counts the corner cases that a command met."""
        unit, hit = self.config.hcu, self.coverage.hit
        n, existing = len(tokens), len(clusters)
        per_beat = self.config.bus_bits // unit.hash_bits
        hit("empty table", existing == 0)
        hit("one cluster", existing == 1)
        hit("table of one whole tile", existing == unit.tile_clusters)
        hit("table of more than one tile", existing > unit.tile_clusters)
        hit("table of 5000 clusters or more", existing >= 5000)
        hit("table just not full", existing + result.opened.sum() == MAX_CLUSTERS)
        hit("one token", n == 1)
        hit("whole chunk", n == unit.chunk_tokens)
        hit("partial last beat of tokens", n % per_beat)
        hit("partial last beat of clusters", existing % per_beat)
        hit("partial last row of lanes", existing % unit.lanes)
        hit("every token opens a cluster", result.opened.all())
        hit("no token opens a cluster", not result.opened.any())
        hit(
            "token joins a cluster opened in this chunk",
            (~result.opened & (result.cluster >= existing)).any(),
        )
        hit("distance equals threshold", (result.distance == th_hd).any())
        hit("distance one below threshold", (result.distance == th_hd - 1).any())
        hit("largest distance", (result.distance == unit.hash_bits).any())
        hit("threshold 0", th_hd == 0)
        hit("threshold 255", th_hd == 255)
        # How often a token's smallest one occurs in the table and behind it.
        founders = np.flatnonzero(result.opened)
        for t in np.flatnonzero(result.distance < hcu.NO_DISTANCE):
            distance = result.distance[t]
            old = int((hcu.hamming(tokens[t : t + 1], clusters) == distance).sum()) if existing else 0
            before = founders[founders < t]
            new = (
                int((hcu.hamming(tokens[t : t + 1], tokens[before]) == distance).sum()) if len(before) else 0
            )
            hit("tie between clusters", old > 1)
            hit("tie between a cluster and one opened in this chunk", old and new)
            hit("tie between clusters opened in this chunk", not old and new > 1)


def make(dut: Any, config: Config, seed: str) -> HcuBench:
    """Bench of one case."""
    return HcuBench(dut, config, seed)


@case(make)
async def sizes(bench: HcuBench) -> None:
    """Table and chunk sizes around every boundary of lanes, beats and tiles."""
    unit = bench.config.hcu
    per_beat = max(1, bench.config.bus_bits // unit.hash_bits)
    tables = {
        0,
        1,
        2,
        *(base + step for base in (unit.lanes, per_beat, unit.tile_clusters) for step in (-1, 0, 1)),
    }
    for clusters in sorted(size for size in tables if size >= 0):
        for n in sorted({1, 2, per_beat + 1, unit.chunk_tokens}):
            n = min(n, bench.affordable(clusters, 600) if n > 2 else n, unit.chunk_tokens)
            bench.stall()
            table = bench.hashes(clusters)
            bench.cluster(bench.hashes(n), table, unit.hash_bits // 4)
            await bench.drain()


@case(make)
async def thresholds(bench: HcuBench) -> None:
    """Every threshold that means something, tokens at chosen distances of the founders."""
    width = bench.config.hcu.hash_bits
    for th_hd in (0, 1, 2, 5, width // 2, width - 1, width, min(width + 1, 255), 254, 255):
        bench.stall()
        table = bench.hashes(7)
        n = min(bench.config.hcu.chunk_tokens, 12)
        bench.cluster(bench.near(table[bench.rng.integers(0, 7, n)], 7), table, th_hd)
        bench.cluster(bench.hashes(n), table[:0], th_hd)
        bench.cluster(bench.opposite(table[:1]), table[:1], th_hd)
    await bench.drain()


@case(make, distinct=[1, 2, 5])
async def ties(bench: HcuBench, distinct: int) -> None:
    """A few hash values that repeat everywhere: the lowest index must win, old before new."""
    for clusters in (0, 3, 40, 200):
        bench.stall()
        values = bench.hashes(clusters + 2 * bench.config.hcu.chunk_tokens, distinct)
        n = bench.affordable(clusters, 1200)
        for th_hd in (0, 1, 4):
            tokens = bench.near(values[clusters : clusters + n], 2)
            bench.cluster(tokens, values[:clusters], th_hd)
    await bench.drain()


@case(make)
async def tie_with_new_cluster(bench: HcuBench) -> None:
    """A token as far from a founder of the table as from one opened just before it."""
    old = bench.hashes(1)
    new, between = old.copy(), old.copy()
    new[0, 0] ^= np.uint32(0b1111)
    between[0, 0] ^= np.uint32(0b0011)
    bench.stall()
    bench.cluster(np.concatenate([new, between]), old, 3)
    other = old.copy()
    other[0, 0] ^= np.uint32(0b1111_0000_0000)
    middle = old.copy()
    middle[0, 0] ^= np.uint32(0b0011_0000_0011)
    bench.cluster(np.concatenate([old, new, other, middle])[: bench.config.hcu.chunk_tokens], old[:0], 4)
    await bench.drain()


@case(make)
async def stream(bench: HcuBench) -> None:
    """Thousands of tokens of drifting hashes through one growing table."""
    table, total = bench.hashes(0), 0
    scene = bench.hashes(4)
    goal = scaled(2000, 64)
    while total < goal:
        bench.stall("light" if bench.random.random() < 0.9 else None)
        n = bench.affordable(len(table), 400)
        if bench.random.random() < 0.2:
            scene = bench.near(scene, 3)
        tokens = bench.near(scene[bench.rng.integers(0, 4, n)], 3)
        result = bench.cluster(tokens, table, 5)
        assert result is not None
        table = np.concatenate([table, tokens[result.opened]])
        total += n
        await bench.drain()
    bench.coverage.hit("thousands of tokens in one stream", total >= 2000)


@case(make)
async def large_table(bench: HcuBench) -> None:
    """Tables far beyond one tile."""
    for clusters in (3 * bench.config.hcu.tile_clusters + 5, 5000):
        bench.stall("light")
        table = bench.hashes(clusters)
        tokens = bench.near(table[bench.rng.integers(0, clusters, bench.affordable(clusters, 3000))], 6)
        bench.cluster(tokens, table, 5)
        await bench.drain()


@case(make)
async def full_table(bench: HcuBench) -> None:
    """The table reaches 65 535 clusters exactly, then overflows; the next command works."""
    if scaled(100) < 100 or bench.config.hcu.lanes < 4:
        return
    table = bench.hashes(MAX_CLUSTERS)
    for clusters, n in ((MAX_CLUSTERS - 2, 2), (MAX_CLUSTERS - 1, 2), (MAX_CLUSTERS, 1)):
        bench.stall("none")
        full = bench.cluster(bench.hashes(n), table[:clusters], 0)
        assert (full is None) == (clusters + n > MAX_CLUSTERS)
        bench.cluster(table[5:7], table[:9], 1)
        await bench.drain()


@case(make, round=range(scaled(6, 2)))
async def random(bench: HcuBench, round: int) -> None:
    """Random commands back to back."""
    unit = bench.config.hcu
    for _ in range(scaled(20, 3)):
        bench.stall()
        clusters = int(bench.rng.integers(0, bench.random.choice([3, 40, 2 * unit.tile_clusters])))
        n = int(bench.rng.integers(1, bench.affordable(clusters, 2000) + 1))
        pool = bench.hashes(clusters + n, bench.random.choice([None, 3, 30]))
        tokens = bench.near(pool[bench.rng.integers(0, clusters + n, n)], bench.random.choice([0, 2, 8]))
        bench.cluster(tokens, pool[:clusters], bench.random.choice([0, 1, 2, 5, 7, 20, 255]))
        if bench.random.random() < 0.5:
            await bench.drain()


@case(make)
async def reset(bench: HcuBench) -> None:
    """Reset at random moments of a command; what follows must not notice."""
    table = bench.hashes(60)
    for _ in range(scaled(12, 3)):
        bench.stall()
        bench.cluster(bench.hashes(4), table, 5)
        await bench.steps(int(bench.rng.integers(1, 4 * -(-60 // bench.config.hcu.lanes) + 60)))
        bench.coverage.hit("reset in the middle of a command", bench.sinks["done"].expected)
        await bench.reset_in_work()
    bench.cluster(bench.near(table[:6], 3), table, 5)


@case(make)
async def starved(bench: HcuBench) -> None:
    """Beats stop coming: once those there are compared, the unit says that it waits, until more come."""
    unit = bench.config.hcu
    din = bench.sources["din"]
    clusters = unit.tile_clusters + 5
    for given in (0, 1, 2, 5, 9):
        bench.stall("none")
        bench.cluster(bench.hashes(2), bench.hashes(clusters), 5)
        goal = din.sent + given
        await bench.drain(lambda goal=goal: din.sent >= goal and bench.working)  # type: ignore[misc]
        din.stalls.profile = Profile(1.0)
        # One beat may be on the port already; then every row there takes two cycles.
        await bench.steps(2 * clusters + 4 * unit.chunk_tokens + 40)
        missing = bench.tokens_left or bench.founders_left
        if bool(bench.dut.wait_in.value) != bool(missing):
            raise StreamError(f"wait_in is low although no beat has come for long ({given} were given)")
        din.stalls.profile = PROFILES["none"]
        await bench.drain()


@case(make)
async def ready_and_valid(bench: HcuBench) -> None:
    """No valid depends on a ready of the same cycle."""
    bench.stall("heavy")
    for _ in range(4):
        bench.cluster(bench.hashes(3), bench.hashes(9), 5)
    await bench.check_ready_is_not_seen_by_valid(600)


@case(make)
async def latency(bench: HcuBench) -> None:
    """A command that never waits takes no more cycles than the unit publishes."""
    unit = bench.config.hcu
    for n in sorted({1, 2, unit.chunk_tokens // 2, unit.chunk_tokens}):
        for clusters in (0, 1, unit.lanes, 5 * unit.lanes + 1, 37 * unit.lanes):
            bench.stall("none")
            bench.cluster(bench.hashes(n), bench.hashes(clusters), 5)
            await bench.drain(lambda: bench.sources["cmd"].sent > 0 and not bench.sources["cmd"].queue)
            start = bench.cycle
            await bench.drain()
            took = bench.sinks["done"].first_seen - start + 1
            published = Hcu.cycles(bench.config.hcu, n, clusters, bus_bits=bench.config.bus_bits)
            if took > published + LATENCY_MARGIN:
                raise StreamError(
                    f"{n} tokens on {clusters} clusters took {took} cycles, published {published}"
                )
