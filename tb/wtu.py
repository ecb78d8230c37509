"""Testbench of the WTU: every bitmask and every degenerate row bit for bit against `vrex.model.wtu`."""

from typing import Any

import numpy as np

from vrex.hw.wtu import Wtu
from vrex.model import commands, wtu
from vrex.model.config import Config
from vrex.model.wtu import Rule, Scale, Selection, Transform
from vrex.tb.bench import Bench, beats, case, fields, scaled
from vrex.tb.stimuli import COUNTS, SCORES
from vrex.tb.streams import StreamError

SCALES = [
    Scale(0, 0),
    Scale.from_float(0.125),
    Scale.from_float(1.0),
    Scale(0x8000, 127),
    Scale(0xFFFF, 127),
    Scale(0x8000, -128),
    Scale(0xFFFF, -9),
]


class WtuBench(Bench):
    """Drives commands and expects what the model selects."""

    unit = "wtu"

    def __init__(self, dut: Any, config: Config, seed: str) -> None:
        super().__init__(dut, config, seed, inputs=("cmd", "din"), outputs=("dout", "done"))

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
        return max(1, scaled(cycles) // Wtu.cycles(self.config, clusters, 1, 1))

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
        self.cover(scores, counts, rule, chosen)

    def cover(self, scores: np.ndarray, counts: np.ndarray, rule: Rule, chosen: wtu.Selected) -> None:
        """Counts the corner cases that a command met."""
        hit, unit = self.coverage.hit, self.config.wtu
        heads, rows, clusters = scores.shape
        hit("row of one cluster", clusters == 1)
        hit("row of the whole memory", clusters == unit.row_clusters)
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
        await bench.steps(int(bench.rng.integers(1, Wtu.cycles(bench.config, 30, 2, 2))))
        bench.coverage.hit("reset in the middle of a command", bench.sinks["done"].expected)
        await bench.reset()
    bench.select(bench.scores(2, 2, 30), counts, bench.rule())


@case(make)
async def ready_and_valid(bench: WtuBench) -> None:
    """No valid depends on a ready of the same cycle."""
    bench.stall("heavy")
    for _ in range(3):
        bench.select(bench.scores(3, 1, 9), bench.counts(9), bench.rule())
    await bench.check_ready_is_not_seen_by_valid(800)


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
            exact = selection == Selection.EXACT
            published = Wtu.cycles(bench.config, clusters, rows, heads, exact=exact)
            if took > published:
                raise StreamError(f"{heads} x {rows} x {clusters} took {took} cycles, published {published}")
