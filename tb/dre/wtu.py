"""Testbench of the WTU: every bitmask and every degenerate row bit for bit against `vrex.model.dre.wtu`."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from vrex.hw.dre.wtu.wtu import Wtu, search_cycles
from vrex.model import commands
from vrex.model.config import Config
from vrex.model.dre import wtu
from vrex.model.dre.wtu import Rule, Scale, Selection, Transform
from vrex.tb.lib.bench import Bench, beats, case, fields, scaled
from vrex.tb.lib.stimuli import COUNTS, SCORES
from vrex.tb.lib.streams import Source, StreamError

SCALES = [
    Scale(0, 0),
    Scale.from_float(0.125),
    Scale.from_float(1.0),
    Scale(0x8000, 127),
    Scale(0xFFFF, 127),
    Scale(0x8000, -128),
    Scale(0xFFFF, -9),
]


def examined(scores: np.ndarray, counts: np.ndarray, rule: Rule) -> int:
    """Clusters from the top one to the end of the bin, or bucket, in which the threshold is passed.

    Without a crossing these are all clusters, in a degenerate row those level with the top one; never a NaN.

    Args:
        scores: BF16 bits of one row, uint16 [clusters].
        counts: token counts [clusters].
        rule: registers.
    """
    row = wtu.fixed_point(scores[None])
    weights = wtu.transform(row, rule)[0] * counts.astype(np.int64)
    valid = ~row.nan[0]
    total = int(weights.sum())
    if not valid.any():
        return 0
    u = row.u[0][valid]
    if rule.transform == Transform.RAW and total <= 0:
        return int((u == u.max()).sum())
    bins = wtu.order_bin(wtu.order_code(scores[None]))[0][valid]
    if rule.selection == Selection.BUCKET:
        shift = max(0, int(u.max() - u.min()).bit_length() - (rule.buckets.bit_length() - 1))
        bins = rule.buckets - 1 - (u - u.min() >> shift)
    passed = 0
    for number in np.unique(bins):
        passed += int(weights[valid][bins == number].sum())
        if passed > total * rule.th_r >> wtu.TH_R_BITS:
            return int((bins <= number).sum())
    return len(bins)


class WtuBench(Bench):
    """Drives commands and expects what the model selects.

    Attributes:
        examined, rows: clusters and rows that the unit has counted since the reset.
        to_examine, to_end: those that the commands queued since then make it count.
    """

    unit = "wtu"

    def __init__(self, dut: Any, config: Config, seed: str) -> None:
        super().__init__(dut, config, seed, inputs=("cmd", "din"), outputs=("dout", "done"))
        self.examined = self.rows = self.to_examine = self.to_end = 0

    async def reset(self) -> None:
        """Also forgets what was counted before."""
        self.examined = self.rows = self.to_examine = self.to_end = 0
        await super().reset()

    def _sample(self) -> list[Source]:
        """Beside the ports, checks what the unit says of its waiting."""
        dout, given = bool(self.dut.dout__valid.value), self.sources["din"].valid
        wait_in, wait_out = bool(self.dut.wait_in.value), bool(self.dut.wait_out.value)
        if wait_out != (dout and not self.sinks["dout"].ready):
            raise StreamError(f"wait_out is {wait_out} while dout is {'' if dout else 'not '}valid")
        if wait_in and (given or not self.dut.busy.value):
            raise StreamError("wait_in is high although no beat is missing")
        return super()._sample()

    def _count(self) -> None:
        if not self.resetting:
            self.examined += self.number("examined")
            self.rows += self.number("row_ends")

    async def drain(self, until: Callable[[], bool] | None = None) -> None:
        """Also compares what was counted."""
        await super().drain(until)
        if until is None and (self.examined, self.rows) != (self.to_examine, self.to_end):
            raise StreamError(
                f"{self.examined} clusters in {self.rows} rows were counted as examined, "
                f"not {self.to_examine} in {self.to_end}"
            )

    def rule(self, transform: Transform | None = None, selection: Selection | None = None) -> Rule:
        """Registers, drawn where none are given."""
        pick = self.random.choice
        return Rule(
            th_r=pick([0, 1, 6554, 19661, 19661, 32768, 58982, 65535, self.random.randrange(1 << 16)]),
            transform=pick(list(Transform)) if transform is None else transform,
            selection=pick(list(Selection)) if selection is None else selection,
            buckets=self.config.wtu.buckets,
            scale=pick(
                [*SCALES, Scale(self.random.randrange(0x8000, 1 << 16), self.random.randrange(-30, 30))]
            ),
        )

    def scores(self, heads: int, rows: int, clusters: int, kind: str | None = None) -> np.ndarray:
        """BF16 bits [heads, rows, clusters], each row of the class or of one drawn for it."""
        classes = [kind or self.random.choice(list(SCORES)) for _ in range(heads * rows)]
        return np.array([SCORES[name](self.rng, clusters) for name in classes], dtype=np.uint16).reshape(
            heads, rows, clusters
        )

    def counts(self, clusters: int, kind: str | None = None) -> np.ndarray:
        """Token counts [clusters] of the class or of one drawn for them."""
        return COUNTS[kind or self.random.choice(["small", *COUNTS])](self.rng, clusters)

    def affordable(self, clusters: int, cycles: int) -> int:
        """Rows, at least 1, that take about so many cycles."""
        return max(1, scaled(cycles) // self.published(clusters, 1, 1))

    def published(self, clusters: int, rows: int, heads: int, transform: Transform = Transform.EXP) -> int:
        """Cycles of a command that never waits, as the unit publishes them."""
        config = self.config
        return Wtu.cycles(config.wtu, clusters, rows, heads, transform, bus_bits=config.bus_bits)

    def select(self, scores: np.ndarray, counts: np.ndarray, rule: Rule) -> None:
        """Queues one command and its expectations."""
        config, dout = self.config, self.sinks["dout"]
        heads, rows, clusters = scores.shape
        what = f"{heads} heads x {rows} rows x {clusters} clusters under {rule}"
        _, payload = commands.select_command(config, scores, counts, tag=0)
        self.sources["cmd"].send(
            [
                fields(
                    (clusters, 16),
                    (rows, 16),
                    (heads, 6),
                    (rule.th_r, 16),
                    (int(rule.transform), 2),
                    (int(rule.selection), 1),
                    (rule.scale.mantissa, 16),
                    (rule.scale.exponent, 8),
                )
            ]
        )
        self.sources["din"].send(beats(payload, config.bus_bytes))
        chosen = wtu.select(scores.reshape(-1, clusters), counts, rule)
        masks = list(np.asarray(chosen.rows.reshape(scores.shape).any(axis=1)))
        dout.expect(what, beats(commands.pack_masks(config, masks), config.bus_bytes))
        self.sinks["done"].expect(what, [chosen.degenerate], after=(dout, dout.asked))
        rows_of_all = scores.reshape(-1, clusters)
        self.to_end += len(rows_of_all)
        self.to_examine += sum(examined(row, counts, rule) for row in rows_of_all)
        self.cover(scores, counts, rule, chosen)

    def cover(self, scores: np.ndarray, counts: np.ndarray, rule: Rule, chosen: wtu.Selected) -> None:
        """Counts the corner cases that a command met."""
        hit, unit = self.coverage.hit, self.config.wtu
        heads, rows, clusters = scores.shape
        hit("row of one cluster", clusters == 1)
        hit("row of the whole memory", clusters == unit.row_clusters)
        hit("row of one tile and one cluster", clusters == unit.row_clusters + 1)
        hit("row of several tiles", clusters > 2 * unit.row_clusters)
        hit("partial last beat", clusters * 16 % self.config.bus_bits)
        hit("partial last row of lanes", clusters % unit.lanes)
        hit("several rows of a head", rows > 1)
        hit("several heads", heads > 1)
        by_head = chosen.rows.reshape(scores.shape)
        hit("rows of a head differ", (by_head != by_head[:, :1]).any())
        hit(f"{rule.transform.name.lower()} {rule.selection.name.lower()}")
        hit("count 0", (counts == 0).any())
        hit("count 65535", (counts == 65535).any())
        hit("all counts 0", not counts.any())
        hit("threshold 0", rule.th_r == 0)
        hit("threshold 65535", rule.th_r == 65535)
        for row, taken in zip(scores.reshape(-1, clusters), chosen.rows, strict=True):
            self._cover_formats(row)
            self._cover_order(row, rule, taken)
            self._cover_sums(row, counts, rule, taken)

    def _cover_formats(self, row: np.ndarray) -> None:
        hit, magnitude = self.coverage.hit, row & 0x7FFF
        nan, infinite = magnitude > 0x7F80, magnitude == 0x7F80
        subnormal = (magnitude > 0) & (magnitude < 0x80)
        hit("NaN score", nan.any())
        hit("row of NaN only", nan.all())
        hit("+Inf score", (row == 0x7F80).any())
        hit("-Inf score", (row == 0xFF80).any())
        hit("row of infinities only", infinite.all())
        hit("+0 and -0 in a row", (row == 0).any() and (row == 0x8000).any())
        hit("subnormal score", subnormal.any())
        hit("row of subnormals only", subnormal.all())
        hit("largest finite score", (magnitude == 0x7F7F).any())
        hit("one distinct score", len(row) > 1 and not nan.any() and (row == row[0]).all())

    def _cover_order(self, row: np.ndarray, rule: Rule, taken: np.ndarray) -> None:
        hit, lanes = self.coverage.hit, self.config.wtu.lanes
        exponents = (row >> 7 & 0xFF).astype(int)
        words = [exponents[i : i + lanes].max() for i in range(0, len(row), lanes)]
        finite = 0xFF not in words
        hit(
            "last score raises the exponent",
            finite and len(words) > 1 and exponents[-1] > max(exponents[:-1]),
        )
        hit("every word raises the exponent", finite and len(words) > 2 and (np.diff(words) > 0).all())
        if rule.selection != Selection.EXACT or not taken.any():
            return
        numbers = wtu.fixed_point(row[None])
        level = (numbers.u[0] == numbers.u[0][taken].min()) & ~numbers.nan[0]
        last, left_out = np.flatnonzero(level & taken)[-1], np.flatnonzero(level & ~taken)
        cut = len(left_out) > 0
        hit("crossing among level scores of one word", cut and left_out[0] // lanes == last // lanes)
        hit("crossing beyond a tile of level scores", cut and last >= self.config.wtu.row_clusters)

    def _cover_sums(self, row: np.ndarray, counts: np.ndarray, rule: Rule, taken: np.ndarray) -> None:
        hit = self.coverage.hit
        numbers = wtu.fixed_point(row[None])
        weights = wtu.transform(numbers, rule)[0]
        u, nan = numbers.u[0], numbers.nan[0]
        total = int((weights * counts).sum())
        raw = rule.transform == Transform.RAW
        hit("negative sum", total < 0)
        hit("sum of zero", total == 0)
        hit("sum cancels to zero", total == 0 and (weights * counts).any())
        hit("negative scores, positive sum", raw and (u < 0).any() and total > 0)
        hit("sum beyond 32 bits", abs(total) >= 1 << 32)
        hit("raw degenerate row", raw and total <= 0)
        hit("shift with sum 0", rule.transform == Transform.SHIFT and total == 0)
        hit("threshold never passed", not raw and total == 0 and taken[~nan].all() and not nan.all())
        hit("one cluster suffices", taken.sum() == 1 and (~nan).sum() > 1 and not (raw and total <= 0))
        hit("a tie is cut by the threshold", bool(set(u[taken]) & set(u[~taken & ~nan])))
        tiny = (row & 0x7FFF > 0) & ~nan
        hit("scores below the row's resolution", (tiny & (u == 0)).any())
        hit("negative score below the row's resolution", (tiny & (row > 0x8000) & (u == -1)).any())
        if rule.transform == Transform.EXP:
            spread = u[~nan].max(initial=0) - u[~nan].min(initial=0)
            shift = 15 - wtu.EXP_INDEX_BITS - rule.scale.exponent
            shift -= int(numbers.exponent[0, 0]) - 127 - wtu.FRACTION_BITS
            hit("scale 0", rule.scale.mantissa == 0)
            hit("scale exponent saturates", rule.scale.mantissa and shift <= 0 and spread)
            hit("scale exponent vanishes", rule.scale.mantissa and shift > 32 and spread)
            hit("exp weight saturates to 0", (weights[~nan] == 0).any())


def make(dut: Any, config: Config, seed: str) -> WtuBench:
    """Bench of one case."""
    return WtuBench(dut, config, seed)


@case(make)
async def sizes(bench: WtuBench) -> None:
    """Row lengths around every boundary of lanes, beats and the memory."""
    unit = bench.config.wtu
    marks = (unit.lanes, bench.config.bus_bits // 16, bench.config.bus_bits, unit.row_clusters)
    lengths = {1, 2, 3, *(mark + step for mark in marks for step in (-1, 0, 1))}
    for clusters in sorted(n for n in lengths if 1 <= n <= unit.row_clusters):
        bench.stall()
        scores = bench.scores(1, 1, clusters, "mostly_positive")
        bench.select(scores, bench.counts(clusters, "small"), bench.rule())
        await bench.drain()


@case(make, transform=[rule.name for rule in Transform], selection=[way.name for way in Selection])
async def classes(bench: WtuBench, transform: str, selection: str) -> None:
    """Every class of scores with every class of counts, under one transform and selection."""
    for kind in SCORES:
        bench.stall()
        for count_kind in COUNTS:
            clusters = int(bench.rng.integers(1, max(2, scaled(40, 12))))
            rule = bench.rule(Transform[transform], Selection[selection])
            bench.select(bench.scores(1, 1, clusters, kind), bench.counts(clusters, count_kind), rule)
        await bench.drain()


@case(make)
async def thresholds(bench: WtuBench) -> None:
    """The threshold exactly at, one below and one above what a prefix reaches."""
    scores = np.array([[[0x4200, 0x4100, 0x4080, 0x4000]]], dtype=np.uint16)  # 32, 8, 4, 2
    for counts in ([1, 1, 1, 1], [2, 8, 16, 32], [0, 0, 1, 1], [1, 0, 0, 0]):
        for th_r in (0, 1, 32767, 32768, 32769, 16384, 49152, 65535):
            for selection in Selection:
                bench.select(
                    scores, np.array(counts), Rule(th_r, Transform.RAW, selection, bench.config.wtu.buckets)
                )
    bench.stall()
    await bench.drain()


def octaves(bench: WtuBench, clusters: int, last: int) -> np.ndarray:
    """BF16 bits [1, 1, clusters]: positive scores whose exponent rises from word to word up to `last`."""
    words = np.arange(clusters) // bench.config.wtu.lanes
    exponents = np.clip(last - words[-1] + words, 1, None)
    return (exponents << 7 | bench.rng.integers(0, 128, clusters)).astype(np.uint16)[None, None]


@case(make)
async def exponents(bench: WtuBench) -> None:
    """Rows whose exponent rises with the last score, with every word, or late and by much."""
    lanes, rise = bench.config.wtu.lanes, np.uint16(0x4300)
    for clusters in (2 * lanes, 5 * lanes + 1, min(bench.config.wtu.row_clusters, scaled(60, 20) * lanes)):
        rows = [octaves(bench, clusters, 140), octaves(bench, clusters, 254)]
        for place in (-1, clusters // 2, 1, -lanes):
            row = bench.scores(1, 1, clusters, bench.random.choice(["mostly_positive", "ties", "constant"]))
            row[..., place] = bench.random.choice([rise, row[..., place] ^ 0x8000, 0x7F7F, 0xFF7F])
            rows.append(row)
        for row in rows:
            bench.stall(bench.random.choice(["none", "light", "bursts"]))
            bench.select(row, bench.counts(clusters), bench.rule(bench.random.choice([None, Transform.RAW])))
        await bench.drain()


@case(make)
async def levels(bench: WtuBench) -> None:
    """All scores level but for a few that differ in one place of the order code; the threshold among them."""
    lanes = bench.config.wtu.lanes
    for clusters in (lanes, 3 * lanes + 2, min(bench.config.wtu.row_clusters, scaled(40, 12) * lanes)):
        for base, step in (
            (0x4000, 1),
            (0x4000, 0x10),
            (0x4000, 0x40),
            (0x4000, 0x100),
            (0xC000, 1),
            (0x0040, 1),
        ):
            row = np.full((1, 1, clusters), base, dtype=np.uint16)
            odd = bench.rng.integers(0, clusters, max(1, clusters // 8))
            row[..., odd] += np.uint16(step * bench.random.choice([1, 1, 3]))
            transform = bench.random.choice([Transform.RAW, Transform.RAW, *Transform])
            rule = dataclasses.replace(
                bench.rule(transform, Selection.EXACT),
                th_r=bench.random.choice([0, 9830, 32768, 63000, 65535]),
            )
            bench.stall(bench.random.choice(["none", "light"]))
            bench.select(
                row, bench.counts(clusters, bench.random.choice(["ones", "small", "with_zeros"])), rule
            )
        await bench.drain()


@case(make, selection=[way.name for way in Selection])
async def long_rows(bench: WtuBench, selection: str) -> None:
    """Rows that do not fit the score memory, up to the longest where simulation is cheap."""
    unit = bench.config.wtu
    lengths = {unit.row_clusters + step for step in (1, unit.lanes, unit.lanes + 1)}
    lengths |= {2 * unit.row_clusters + step for step in (0, 1)} | {
        unit.mask_clusters - 1,
        unit.mask_clusters,
    }
    lengths = {
        n for n in lengths if unit.row_clusters < n <= min(unit.mask_clusters, 65535, scaled(9000, 300))
    }
    for clusters in sorted(lengths):
        for transform in Transform if clusters <= scaled(1100) else [bench.random.choice(list(Transform))]:
            bench.stall(bench.random.choice(["none", "light"]))
            kind = bench.random.choice(["mostly_positive", "ties", "sprinkled", "normal", "outlier"])
            rows = 2 if clusters <= scaled(600) else 1
            scores = bench.scores(rows, rows, clusters, kind)
            bench.select(scores, bench.counts(clusters, "small"), bench.rule(transform, Selection[selection]))
        level = np.full((1, 1, clusters), 0x4000, dtype=np.uint16)
        rule = Rule(65000, Transform.RAW, Selection[selection], unit.buckets)
        bench.select(level, bench.counts(clusters, "ones"), rule)
        await bench.drain()


@case(make)
async def whole_memory(bench: WtuBench) -> None:
    """The longest rows, with the largest counts and with scores of every class."""
    clusters = bench.config.wtu.row_clusters
    for kind in ("positive", "sprinkled", "ties"):
        bench.stall("light")
        scores = bench.scores(1, 1, clusters, kind)
        bench.select(scores, bench.counts(clusters, "largest"), bench.rule(selection=Selection.EXACT))
        await bench.drain()


@case(make)
async def heads_and_rows(bench: WtuBench) -> None:
    """Several heads of several rows: the union is over the rows of one head only."""
    for heads, rows in ((1, 9), (2, 3), (5, 1), (32, 2)):
        bench.stall()
        clusters = int(bench.rng.integers(2, 30))
        bench.select(
            bench.scores(heads, rows, clusters, "normal"), bench.counts(clusters, "small"), bench.rule()
        )
    await bench.drain()


@case(make, round=range(scaled(8, 2)))
async def random(bench: WtuBench, round: int) -> None:
    """Random commands back to back."""
    for _ in range(scaled(15, 3)):
        bench.stall()
        clusters = int(bench.rng.integers(1, bench.random.choice([5, 40, 300]) + 1))
        clusters = min(clusters, bench.config.wtu.row_clusters)
        heads = int(bench.rng.integers(1, 4))
        rows = int(bench.rng.integers(1, min(6, max(1, bench.affordable(clusters, 3000) // heads)) + 1))
        bench.select(bench.scores(heads, rows, clusters), bench.counts(clusters), bench.rule())
        if bench.random.random() < 0.5:
            await bench.drain()


@case(make)
async def reset(bench: WtuBench) -> None:
    """Reset at random moments of a command; what follows must not notice."""
    counts = bench.counts(30, "small")
    for _ in range(scaled(12, 3)):
        bench.stall()
        bench.select(bench.scores(2, 2, 30), counts, bench.rule())
        await bench.steps(int(bench.rng.integers(1, bench.published(30, 2, 2))))
        bench.coverage.hit("reset in the middle of a command", bench.sinks["done"].expected)
        await bench.reset_in_work()
    bench.select(bench.scores(2, 2, 30), counts, bench.rule())


@case(make)
async def reset_at_any_moment(bench: WtuBench) -> None:
    """A cycle of reset at any moment of a command: nothing is counted afterwards, the next one is right."""
    bench.stall("none")
    lanes = bench.config.wtu.lanes
    scores, counts = bench.scores(1, 2, 4 * lanes, "mostly_positive"), bench.counts(4 * lanes, "ones")
    moments = range(1, bench.published(4 * lanes, 2, 1, Transform.RAW))
    for moment in sorted(bench.random.sample(moments, min(scaled(len(moments), 30), len(moments)))):
        bench.select(scores, counts, bench.rule(Transform.RAW))
        await bench.steps(moment)
        await bench.reset()
        await bench.steps(20)
        await bench.drain()
        bench.select(scores[:, :1], counts, bench.rule(Transform.RAW))
        await bench.drain()


@case(make)
async def ready_and_valid(bench: WtuBench) -> None:
    """No valid depends on a ready of the same cycle."""
    bench.stall("heavy")
    for _ in range(3):
        bench.select(bench.scores(3, 1, 9), bench.counts(9), bench.rule())
    await bench.check_ready_is_not_seen_by_valid(800)


async def _longest_search(bench: WtuBench) -> int:
    """Drains; returns the most cycles from a row's last score to its last bit in the bitmask."""
    longest = now = 0
    while bench.sinks["done"].expected:
        await bench.step()
        now = now + 1 if bench.dut.searching.value == 1 else 0
        longest = max(longest, now)
    return longest


@case(make, transform=[rule.name for rule in Transform])
async def search(bench: WtuBench, transform: str) -> None:
    """From a row's last score to its bits no more cycles than published, on rows that take the longest."""
    unit, kind = bench.config.wtu, Transform[transform]
    clusters = min(unit.row_clusters, scaled(64, 20) * unit.lanes)
    for exponent in (0x3F00, 0x3A00, 0x3900, 0x3880):
        for th_r in (19661, 65000, 65535):
            bench.stall("none")
            # Level but for every other score, so that no word can be left out; the last raises the exponent.
            row = np.full((1, 1, clusters), exponent + 0x7F, dtype=np.uint16)
            row[..., ::2] = exponent + 1
            row[..., -1] = 0x3F80
            rule = dataclasses.replace(bench.rule(kind, Selection.EXACT), th_r=th_r, scale=SCALES[1])
            bench.select(row, bench.counts(clusters, "ones"), rule)
            took, published = await _longest_search(bench), search_cycles(unit, clusters, kind)
            if not 0 < took <= published:
                raise StreamError(
                    f"the search in {clusters} scores took {took} cycles, published {published}"
                )
            bench.coverage.hit("search as long as published", took > 0.9 * published)


@case(make)
async def latency(bench: WtuBench) -> None:
    """A command that never waits takes no more cycles than the unit publishes, whatever the scores."""
    for clusters in (1, bench.config.wtu.lanes, 100, min(bench.config.wtu.row_clusters, scaled(700, 40))):
        for selection in Selection:
            bench.stall("none")
            heads, rows = (1, 1) if clusters > 100 else (2, 2)
            rule = bench.rule(selection=selection)
            bench.select(bench.scores(heads, rows, clusters), bench.counts(clusters), rule)
            await bench.drain(lambda: bench.sources["cmd"].sent > 0 and not bench.sources["cmd"].queue)
            start = bench.cycle
            await bench.drain()
            took = bench.sinks["done"].first_seen - start + 1
            published = bench.published(clusters, rows, heads, rule.transform)
            if took > published:
                raise StreamError(f"{heads} x {rows} x {clusters} took {took} cycles, published {published}")
