"""Testbench of the selection by codes: every bitmask bit for bit against `vrex.model.dre.codes`."""

from random import Random
from typing import Any

import numpy as np

from vrex.hw.dre.codes.codes import CodeSelect
from vrex.model import commands
from vrex.model.commands import VOTE_ROWS, VoteRows
from vrex.model.config import Config
from vrex.model.dre import codes, hashing, wtu
from vrex.model.dre.codes import Codes
from vrex.model.dre.wtu import Rule, Scale, Transform
from vrex.model.lib import arith
from vrex.tb.dre.wtu import SCALES
from vrex.tb.lib.bench import Bench, beats, case, fields, scaled
from vrex.tb.lib.stimuli import SCORES
from vrex.tb.lib.streams import StreamError

FACTORS = ("positive", "mostly_positive", "ties", "constant", "subnormal", "zeros", "sprinkled", "exponents")
"""Classes of the scales of codes."""

QUERIES = ("random", "small", "largest", "zeros", "one", "cancelling")
"""Classes of the components of a query."""


class Draws:
    """Random commands of the unit.

    Args:
        config: accelerator.
        rng, random: numpy's and Python's generator.
    """

    def __init__(self, config: Config, rng: np.random.Generator, random: Random) -> None:
        self.config, self.rng, self.random = config, rng, random

    def coded(self, tokens: int, kind: str | None = None) -> Codes:
        """Codes of random bits, some of them alike, with scales of the class or of one drawn."""
        bits = self.config.codes.bits
        kinds = self.rng.random((max(1, tokens // 2), bits)) < self.rng.choice([0.1, 0.5, 0.5, 0.9])
        raw = kinds[self.rng.integers(0, len(kinds), tokens)]
        factors = SCORES[kind or self.random.choice(FACTORS)](self.rng, tokens)
        return Codes(hashing.pack_bits(raw, bits), factors.astype(np.uint16))

    def components(self, rows: int, kind: str | None = None) -> np.ndarray:
        """Components int8 [rows, bits], each row of the class or of one drawn for it."""
        bits = self.config.codes.bits
        made = {
            "random": lambda: self.rng.integers(-127, 128, bits),
            "small": lambda: self.rng.integers(-2, 3, bits),
            "largest": lambda: self.rng.choice([-127, 127]) * np.ones(bits, dtype=np.int64),
            "zeros": lambda: np.zeros(bits, dtype=np.int64),
            "one": lambda: 127 * (np.arange(bits) == self.rng.integers(bits)),
            "cancelling": lambda: np.tile([1, -1], bits // 2) * self.rng.integers(1, 128),
        }
        return np.array([made[kind or self.random.choice(QUERIES)]() for _ in range(rows)]).astype(np.int8)

    def scales(self, rows: int) -> np.ndarray:
        """Scales of queries as the quantiser makes them, BF16 bits uint16 [rows]: normal, +0 or NaN."""
        exponents = self.rng.integers(*self.random.choice([(120, 134), (120, 134), (1, 255)]), rows)
        values = (exponents << 7 | self.rng.integers(0, 128, rows)).astype(np.uint16)
        special = self.rng.choice(np.array([0, arith.NAN], dtype=np.uint16), rows)
        return np.where(self.rng.random(rows) < 0.1, special, values)

    def residents(self, rows: int, count: int, kind: str | None = None) -> np.ndarray:
        """Scores BF16 bits uint16 [rows, count], each row of the class or of one drawn for it."""
        if count == 0:
            return np.empty((rows, 0), dtype=np.uint16)
        classes = [kind or self.random.choice(list(SCORES)) for _ in range(rows)]
        return np.array([SCORES[name](self.rng, count) for name in classes], dtype=np.uint16)

    def rule(self) -> Scale:
        """A scale register."""
        drawn = Scale(self.random.randrange(0x8000, 1 << 16), self.random.randrange(-30, 30))
        return self.random.choice([*SCALES, Scale.from_float(0.125), drawn])


class CodesBench(Bench):
    """Drives commands and expects what the model selects.

    Attributes:
        draws: what commands are made of.
        working: 1 while a command is in work.
    """

    unit = "codes"

    def __init__(self, dut: Any, config: Config, seed: str) -> None:
        super().__init__(dut, config, seed, inputs=("cmd", "din"), outputs=("dout", "done"))
        self.draws = Draws(config, self.rng, self.random)
        self.working = 0

    async def reset(self) -> None:
        """Also drops the command in work."""
        self.working = 0
        await super().reset()

    def _count(self) -> None:
        """`busy` is high from the cycle after a command was taken until its end has left."""
        if self.resetting:
            return
        if self.number("busy") != self.working:
            raise StreamError(f"busy is not {self.working}")
        for name, working in (("cmd", 1), ("done", 0)):
            if self.number(f"{name}__valid") and self.number(f"{name}__ready"):
                self.working = working

    def published(self, tokens: int, rows: int, residents: int) -> int:
        """Cycles of a command that never waits, as the unit publishes them."""
        config = self.config
        return CodeSelect.cycles(config.codes, tokens, rows, residents, bus_bits=config.bus_bits)

    def select(
        self,
        coded: Codes,
        components: np.ndarray,
        scales: np.ndarray,
        residents: np.ndarray,
        count: int,
        scale: Scale,
    ) -> None:
        """Queues one command and its expectations."""
        config, size = self.config, self.config.bus_bytes
        tokens, (rows, seen) = len(coded.scales), residents.shape
        command = fields(
            (tokens, 16),
            (rows, VOTE_ROWS.bit_length()),
            (seen, 16),
            (count, 16),
            (scale.mantissa, 16),
            (scale.exponent, 8),
        )
        self.sources["cmd"].send([command])
        rows_sent = VoteRows(components, scales, residents)
        _, payload = commands.vote_command(config, coded, rows_sent, count, tag=0)
        self.sources["din"].send(beats(payload, size))
        scores = codes.score(components, scales, coded)
        votes = codes.vote(residents, scores, scale)
        chosen = codes.select(votes, count)
        what = f"{count} of {tokens} tokens by {rows} rows with {seen} residents under {scale}"
        dout = self.sinks["dout"]
        dout.expect(what, beats(commands.pack_masks(config, [codes.bitmask(chosen, tokens)]), size))
        self.sinks["done"].expect(what, [len(chosen)], after=(dout, dout.asked))
        self.cover(coded, residents, scores, votes, count, scale)

    def draw(self, tokens: int, rows: int, residents: int, count: int | None = None) -> None:
        """Queues a command of drawn classes."""
        draws = self.draws
        counts = [0, 1, tokens // 4, tokens // 2, tokens, tokens + 3, 65535]
        self.select(
            draws.coded(tokens),
            draws.components(rows),
            draws.scales(rows),
            draws.residents(rows, residents),
            self.random.choice(counts) if count is None else count,
            draws.rule(),
        )

    def cover(
        self,
        coded: Codes,
        residents: np.ndarray,
        scores: np.ndarray,
        votes: np.ndarray,
        count: int,
        scale: Scale,
    ) -> None:
        """Counts the corner cases that a command met."""
        hit, unit = self.coverage.hit, self.config.codes
        tokens, (rows, seen) = len(votes), residents.shape
        hit("one token", tokens == 1)
        hit("as many tokens as fit", tokens == unit.tokens)
        hit("partial last word of tokens", tokens % unit.lanes)
        hit("partial last beat of the bitmask", tokens % self.config.bus_bits)
        hit("no residents", seen == 0)
        hit("as many residents as fit", seen == unit.residents)
        hit("partial last word of residents", seen % unit.lanes)
        hit("one row", rows == 1)
        hit("as many rows as fit", rows == VOTE_ROWS)
        heard = votes > codes.NO_VOTE
        hit("count 0", count == 0)
        hit("count above the tokens", count > tokens)
        hit("count above the tokens with a vote", heard.sum() < count <= tokens)
        hit("token without a vote", not heard.all())
        hit("no token has a vote", not heard.any())
        ranked = np.sort(votes[heard])[::-1]
        cut = 0 < count < len(ranked) and ranked[count - 1] == ranked[count]
        hit("a tie is cut by the count", cut)
        hit("a tie at 0 is cut by the count", cut and ranked[count] == 0)
        top = votes[heard].max(initial=0)
        hit("a whole share of a row", top >= 1 << codes.SHARE_BITS)
        hit("votes of all rows for one token", rows > 1 and top == rows << codes.SHARE_BITS)
        row = np.concatenate([residents, scores], axis=1)
        fixed = wtu.fixed_point(row)
        weights = wtu.transform(fixed, Rule(th_r=0, transform=Transform.EXP, scale=scale))
        hit("row without a score", fixed.nan.all(axis=1).any())
        hit("weight 0", ((weights == 0) & ~fixed.nan).any())
        hit("infinite score", ((scores & 0x7FFF) == wtu.INFINITY).any())
        hit("a resident has the largest score", (weights[:, :seen].max(axis=1, initial=0) > 0).any())
        hit(
            "scale of a code is subnormal", ((coded.scales & 0x7FFF > 0) & (coded.scales & 0x7F80 == 0)).any()
        )
        hit("scale of a code is NaN", ((coded.scales & 0x7FFF) > wtu.INFINITY).any())


def make(dut: Any, config: Config, seed: str) -> CodesBench:
    """Bench of one case."""
    return CodesBench(dut, config, seed)


@case(make)
async def sizes(bench: CodesBench) -> None:
    """Numbers of tokens and residents around every boundary of lanes, beats and the memories."""
    unit, bus = bench.config.codes, bench.config.bus_bits
    marks = (unit.lanes, bus // 16, bus // unit.bits, bus)
    lengths = {1, 2, 3, *(mark + step for mark in marks for step in (-1, 0, 1))}
    for tokens in sorted(n for n in lengths if 1 <= n <= unit.tokens):
        for residents in (0, 1, unit.lanes - 1, unit.lanes, min(unit.residents, bus // 16 + 1)):
            bench.stall()
            bench.draw(tokens, 2, residents)
        await bench.drain()


@case(make, factors=FACTORS)
async def classes(bench: CodesBench, factors: str) -> None:
    """Every class of scales with every class of queries."""
    for query in QUERIES:
        bench.stall()
        tokens, residents, rows = int(bench.rng.integers(2, 40)), int(bench.rng.integers(0, 12)), 3
        bench.select(
            bench.draws.coded(tokens, factors),
            bench.draws.components(rows, query),
            bench.draws.scales(rows),
            bench.draws.residents(rows, residents),
            int(bench.rng.integers(0, tokens)),
            bench.draws.rule(),
        )
    await bench.drain()


@case(make, kind=list(SCORES))
async def resident_classes(bench: CodesBench, kind: str) -> None:
    """Every class of the residents' scores."""
    for _ in range(scaled(4, 1)):
        bench.stall()
        tokens, residents, rows = int(bench.rng.integers(2, 40)), int(bench.rng.integers(1, 12)), 3
        bench.select(
            bench.draws.coded(tokens),
            bench.draws.components(rows),
            bench.draws.scales(rows),
            bench.draws.residents(rows, residents, kind),
            int(bench.rng.integers(0, tokens)),
            bench.draws.rule(),
        )
    await bench.drain()


@case(make)
async def ties(bench: CodesBench) -> None:
    """Tokens with few different codes and one scale: many votes are equal, at 0 and above."""
    for tokens in (bench.config.codes.lanes, 3 * bench.config.codes.lanes + 1, 50):
        for rule in (Scale(0, 0), Scale.from_float(1.0), Scale(0xFFFF, 127)):
            for count in (1, tokens // 3 + 1, tokens - 1):
                bench.stall()
                rows = 2
                bench.select(
                    bench.draws.coded(tokens, "constant"),
                    bench.draws.components(rows, "small"),
                    np.full(rows, 0x3F80, dtype=np.uint16),
                    bench.draws.residents(rows, 1, "mostly_positive"),
                    count,
                    rule,
                )
        await bench.drain()


@case(make)
async def one_winner(bench: CodesBench) -> None:
    """One token has the whole share of every row: the largest votes there are."""
    bits = bench.config.codes.bits
    for rows in (1, 2, VOTE_ROWS if scaled(100) >= 50 else 20):
        bench.stall("light")
        raw = np.zeros((9, bits), dtype=bool)
        raw[4] = True
        coded = Codes(hashing.pack_bits(raw, bits), np.full(9, 0x4000, dtype=np.uint16))
        bench.select(
            coded,
            np.full((rows, bits), 127, dtype=np.int8),
            np.full(rows, 0x3F80, dtype=np.uint16),
            np.full((rows, 2), 0xC000, dtype=np.uint16),
            3,
            Scale.from_float(1.0),
        )
        await bench.drain()


@case(make)
async def silence(bench: CodesBench) -> None:
    """Codes, queries and residents that are NaN, some of them and all of them."""
    rows, tokens = 3, 20
    for nan_codes in (0, 5, tokens):
        for nan_queries in (0, 1, rows):
            for residents in (0, 4):
                bench.stall()
                coded = bench.draws.coded(tokens, "positive")
                coded.scales[bench.rng.permutation(tokens)[:nan_codes]] = arith.NAN
                scales = np.full(rows, 0x3F80, dtype=np.uint16)
                scales[:nan_queries] = arith.NAN
                seen = bench.draws.residents(rows, residents, bench.random.choice(["nan", "normal"]))
                for count in (1, 16, tokens):
                    bench.select(coded, bench.draws.components(rows), scales, seen, count, bench.draws.rule())
    await bench.drain()


@case(make)
async def whole_memory(bench: CodesBench) -> None:
    """As many tokens and residents as fit, and one less."""
    unit = bench.config.codes
    for less in (0, 1) if scaled(100) >= 50 else (0,):
        bench.stall("light")
        bench.draw(unit.tokens - less, 2, unit.residents - less, unit.tokens // 3)
        await bench.drain()


@case(make, round=range(scaled(8, 2)))
async def random(bench: CodesBench, round: int) -> None:
    """Random commands back to back."""
    unit = bench.config.codes
    for _ in range(scaled(8, 2)):
        bench.stall()
        tokens = min(unit.tokens, int(bench.rng.integers(1, bench.random.choice([5, 40, 300]) + 1)))
        residents = min(unit.residents, int(bench.rng.integers(0, bench.random.choice([2, 30]) + 1)))
        rows = int(bench.rng.integers(1, 8 if tokens < 100 else 4))
        bench.draw(tokens, rows, residents)
        if bench.random.random() < 0.5:
            await bench.drain()


@case(make)
async def reset(bench: CodesBench) -> None:
    """Reset at random moments of a command; what follows must not notice."""
    for _ in range(scaled(16, 3)):
        bench.stall()
        bench.draw(30, 3, 5)
        await bench.steps(int(bench.rng.integers(1, bench.published(30, 3, 5))))
        bench.coverage.hit("reset in the middle of a command", bench.sinks["done"].expected)
        await bench.reset_in_work()
    bench.draw(30, 3, 5, 10)


@case(make)
async def ready_and_valid(bench: CodesBench) -> None:
    """No valid depends on a ready of the same cycle."""
    bench.stall("heavy")
    for _ in range(3):
        bench.draw(20, 2, 3)
    await bench.check_ready_is_not_seen_by_valid(scaled(2500, 400))


@case(make)
async def latency(bench: CodesBench) -> None:
    """A command that never waits takes the cycles that the unit publishes."""
    unit = bench.config.codes
    for tokens, rows, residents in ((1, 1, 0), (unit.lanes + 1, 1, 3), (100, 3, 9), (200, 5, 0)):
        bench.stall("none")
        bench.draw(tokens, rows, residents, 5)
        await bench.drain(lambda: not bench.sources["cmd"].queue)
        start = bench.cycle
        await bench.drain()
        took, published = bench.sinks["done"].first_seen - start + 1, bench.published(tokens, rows, residents)
        if took != published:
            what = f"{tokens} tokens, {rows} rows with {residents} residents"
            raise StreamError(f"{what} took {took} cycles, published {published}")
