"""Testbench of the running mean: every value bit for bit against `vrex.model.dre.mean`."""

from typing import Any

import numpy as np

from vrex.hw.dre.mean import Mean
from vrex.model.config import MAX_COUNT, Config
from vrex.model.dre import mean
from vrex.model.lib import arith
from vrex.tb.lib.bench import Bench, beats, case, fields, scaled
from vrex.tb.lib.stimuli import SCORES
from vrex.tb.lib.streams import PROFILES, Profile, StreamError

COUNTS = (
    2,
    3,
    4,
    5,
    7,
    10,
    31,
    32,
    33,
    255,
    256,
    257,
    4097,
    32_767,
    32_768,
    32_769,
    MAX_COUNT - 1,
    MAX_COUNT,
)
"""Members of a cluster at and around the edges of the reciprocal."""

SPARE_UPDATING, SPARE_COPYING = 1, 2
"""What the published bound has beyond the cycles of an update, and of a first key that is copied."""


class MeanBench(Bench):
    """Drives commands and expects what the model computes."""

    unit = "mean"

    def __init__(self, dut: Any, config: Config, seed: str) -> None:
        super().__init__(dut, config, seed, inputs=("cmd", "mean", "key"), outputs=("o",))
        self.before = 0

    def values(self, words: int, kind: str | None = None) -> np.ndarray:
        """BF16 bits uint16 for so many beats, of a class of `vrex.tb.lib.stimuli` or of one drawn."""
        n = words * self.config.bus_bits // 16
        return SCORES[kind or self.random.choice(list(SCORES))](self.rng, n) if n else np.zeros(0, np.uint16)

    def count(self) -> int:
        """A count: a first key, an edge, or any."""
        return self.random.choice([1, self.random.choice(COUNTS), self.random.randint(1, MAX_COUNT)])

    def update(self, count: int, old: np.ndarray, key: np.ndarray) -> np.ndarray:
        """Queues one command and its expectations; returns the model's mean."""
        size = self.config.bus_bytes
        dithered = self.config.mean.dithered
        new = mean.update(old[None], key[None], np.array([count]), dithered=dithered)[0]
        words = len(key) * 2 // size
        self.sources["cmd"].send([fields((count, 16), (words, 16))])
        if count > 1:
            self.sources["mean"].send(beats(old.astype("<u2").tobytes(), size))
        self.sources["key"].send(beats(key.astype("<u2").tobytes(), size))
        what = f"{words} beats with count {count}"
        self.sinks["o"].expect(what, beats(new.astype("<u2").tobytes(), size))
        self.cover(count, old, key, new)
        self.before = count
        return new

    def cover(self, count: int, old: np.ndarray, key: np.ndarray, new: np.ndarray) -> None:
        """Counts the corner cases that a command met."""
        hit = self.coverage.hit
        hit("no beats", len(key) == 0)
        hit("one beat", len(key) * 16 == self.config.bus_bits)
        hit("first key", count == 1)
        hit("first key of -0 or NaN", count == 1 and np.isin(key, (0x8000, 0x7F81)).any())
        hit("first key right after an update", count == 1 and self.before > 1)
        hit("update right after a first key", count > 1 and self.before == 1)
        if count == 1:
            return
        hit("count 2", count == 2)
        hit("count 65535", count == MAX_COUNT)
        hit("count a power of two", count & (count - 1) == 0)
        hit("count not a power of two", count & (count - 1))
        m, k, result = (arith.from_bf16(bits) for bits in (old, key, new))
        with np.errstate(all="ignore"):
            difference = k - m
            share = difference * (np.float32(1) / np.float32(count))
            exact = m + share
        finite = np.isfinite(m) & np.isfinite(k)
        smallest = np.finfo(np.float32).tiny
        hit("the mean stays, the key differs", ((old == new) & (old != key)).any())
        hit("NaN goes in", (np.isnan(m) | np.isnan(k)).any())
        hit("NaN of two infinities", (np.isnan(result) & np.isinf(m) & np.isinf(k)).any())
        hit("infinite result", np.isinf(result).any())
        hit("difference overflows", (np.isinf(difference) & finite).any())
        hit("difference is zero", ((difference == 0) & (m != 0)).any())
        hit("share is subnormal", ((share != 0) & (np.abs(share) < smallest)).any())
        hit("result is subnormal", ((result != 0) & (np.abs(result) < smallest)).any())
        hit("result is -0", (new == 0x8000).any())
        hit("sign changes", (np.signbit(m) != np.signbit(result))[finite].any())
        hit("half way between two results", (exact.view(np.uint32) & 0xFFFF == 0x8000)[finite].any())


def make(dut: Any, config: Config, seed: str) -> MeanBench:
    """Bench of one case."""
    return MeanBench(dut, config, seed)


@case(make)
async def sizes(bench: MeanBench) -> None:
    """Commands of no beats up to many, first keys and others in turn."""
    for words in (0, 1, 2, 3, 0, 0, 5, 8, 17):
        for count in (2, 1, 1, 9, 3):
            bench.stall()
            bench.update(count, bench.values(words, "normal"), bench.values(words, "normal"))
    await bench.drain()


@case(make, kind=list(SCORES))
async def classes(bench: MeanBench, kind: str) -> None:
    """Every class of means and of keys, with each other and with ordinary values."""
    for count in (1, 2, 3, 8, bench.count(), MAX_COUNT):
        bench.stall()
        bench.update(count, bench.values(3, kind), bench.values(3, kind))
        bench.update(count, bench.values(2, kind), bench.values(2, "normal"))
        bench.update(count, bench.values(2, "normal"), bench.values(2, kind))
        await bench.drain()


@case(make)
async def counts(bench: MeanBench) -> None:
    """The edges of the reciprocal, and any."""
    some = [bench.random.randint(2, MAX_COUNT) for _ in range(scaled(60, 5))]
    for count in (*COUNTS, *some):
        bench.stall()
        bench.update(count, bench.values(1, "mostly_positive"), bench.values(1, "normal"))
    await bench.drain()


@case(make)
async def running(bench: MeanBench) -> None:
    """One cluster's mean from its first key on, each update on the last one's result."""
    centre = bench.values(2, "normal")
    m = centre
    for n in range(1, scaled(120, 10)):
        bench.stall("light" if n % 5 else None)
        near = arith.from_bf16(centre) * (1 + 0.3 * bench.rng.standard_normal(len(centre)))
        m = bench.update(n, m, arith.to_bf16(near))
        await bench.drain()


@case(make)
async def ties(bench: MeanBench) -> None:
    """Means half way between two BF16 values: the even one is right."""
    for exponent in (1, 100, 127, 253):
        bench.stall()
        n = 4 * bench.config.bus_bits // 16
        old = (bench.rng.integers(0, 128, n) | exponent << 7).astype(np.uint16)
        bench.update(2, old, (old + bench.rng.choice([-3, -1, 1, 3], n)).astype(np.uint16))
    await bench.drain()


@case(make)
async def range_ends(bench: MeanBench) -> None:
    """The smallest and the largest exponents against each other, both signs."""
    for count in (2, 3, 50, MAX_COUNT):
        bench.stall()
        n = 4 * bench.config.bus_bits // 16
        old, key = (
            bench.values(4, "bits") & 0x807F
            | (bench.rng.choice([0, 1, 2, 253, 254], n) << 7).astype(np.uint16)
            for _ in range(2)
        )
        bench.update(count, old, key)
    await bench.drain()


@case(make, late=["mean", "key"])
async def lockstep(bench: MeanBench, late: str) -> None:
    """One input stream is far behind the other."""
    bench.stall("none")
    bench.sources[late].stalls.profile = PROFILES["heavy"]
    for words in (1, 7, 2):
        bench.update(5, bench.values(words), bench.values(words))
    await bench.drain()


@case(make)
async def held(bench: MeanBench) -> None:
    """Nobody takes a result for longer than the lanes are deep; none is lost."""
    for count in (1, 6):
        bench.stall("none")
        bench.sinks["o"].stalls.profile = Profile(1.0)
        for _ in range(3):
            bench.update(count, bench.values(40), bench.values(40))
        await bench.steps(400)
        bench.stall("none")
        await bench.drain()


@case(make, round=range(scaled(6, 2)))
async def random(bench: MeanBench, round: int) -> None:
    """Random commands back to back."""
    for _ in range(scaled(60, 5)):
        bench.stall()
        words = int(bench.rng.integers(0, bench.random.choice([2, 5, 20])))
        bench.update(bench.count(), bench.values(words), bench.values(words))
        if bench.random.random() < 0.3:
            await bench.drain()


@case(make)
async def reset(bench: MeanBench) -> None:
    """Reset at random moments of a command; what follows must not notice."""
    for _ in range(scaled(20, 5)):
        bench.stall()
        bench.update(bench.count(), bench.values(4), bench.values(4))
        await bench.steps(
            int(
                bench.rng.integers(
                    1, Mean.cycles(bench.config.mean, 2, 4, bus_bits=bench.config.bus_bits) + 10
                )
            )
        )
        bench.coverage.hit("reset in the middle of a command", bench.sinks["o"].expected)
        await bench.reset_in_work()
    bench.update(3, bench.values(2), bench.values(2))


@case(make)
async def ready_and_valid(bench: MeanBench) -> None:
    """No valid depends on a ready of the same cycle."""
    bench.stall("heavy")
    for count in (1, 6, 1, 1, 2):
        bench.update(count, bench.values(3), bench.values(3))
    await bench.check_ready_is_not_seen_by_valid(600)


@case(make)
async def latency(bench: MeanBench) -> None:
    """A command that never waits takes the cycles that the unit publishes, less those of its bound."""
    for words in (1, 2, 8, 33):
        for count in (1, 2, 1000):
            bench.stall("none")
            bench.update(count, bench.values(words, "normal"), bench.values(words, "normal"))
            await bench.drain(lambda: not bench.sources["cmd"].queue)
            start = bench.cycle
            await bench.drain()
            took, published = (
                bench.sinks["o"].first_seen - start + 1,
                Mean.cycles(bench.config.mean, count, words, bus_bits=bench.config.bus_bits),
            )
            if took != published - (SPARE_UPDATING if count > 1 else SPARE_COPYING):
                raise StreamError(
                    f"{words} beats with count {count} took {took} cycles, published {published}"
                )
