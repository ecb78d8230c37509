"""Testbench of the DPE: matrix products bit for bit against `vrex.model.lxe.dpe`."""

from typing import Any

import numpy as np

from vrex.hw.lxe.dpe import HAZARD, Dpe
from vrex.hw.lxe.mac_tree import latencies
from vrex.model.commands import Status
from vrex.model.config import CHUNK, Config
from vrex.model.lib import arith
from vrex.model.lxe import dpe
from vrex.tb.lib.bench import Bench, case, scaled
from vrex.tb.lib.stimuli import SCORES
from vrex.tb.lib.streams import Profile, Source, StreamError

COUNTERS = ("busy", "no_weights", "no_rows", "no_room")
"""Ports that count cycles."""

INFINITY, MINUS_INFINITY = 0x7F80, 0xFF80
"""BF16 bits."""

COUNTERS = ("busy", "no_weights", "no_rows", "no_room")


class DpeBench(Bench):
    """Drives commands and expects what the model computes."""

    unit = "dpe"

    def __init__(self, dut: Any, config: Config, seed: str) -> None:
        super().__init__(dut, config, seed, inputs=("cmd", "x", "w"), outputs=("o", "done"))
        self.counts: dict[str, int] | None = None
        self.working = False

    def count(self) -> dict[str, int]:
        """The counters; from now on every cycle sees that they count what they may."""
        self.counts = {name: int(getattr(self.dut, name).value) for name in COUNTERS}
        return self.counts

    def _sample(self) -> list[Source]:
        """As every bench's; after `count`, a cycle of a command counts once at most, others never."""
        taken = super()._sample()
        if self.counts is not None:
            before, after = self.counts, self.count()
            added = [after[name] - before[name] for name in COUNTERS]
            if min(added) < 0 or sum(added) > self.working:
                where = "in one cycle" if self.working else "without a command"
                raise StreamError(f"the counters {', '.join(COUNTERS)} add {added} {where}")
        # A counter shows in a cycle what it counted in the one before.
        self.working &= not (self.dut.done__valid.value == 1 and self.sinks["done"].ready)
        self.working |= self.sources["cmd"] in taken
        return taken

    def values(self, rows: int, terms: int, kind: str | None = None) -> np.ndarray:
        """BF16 bits uint16 [rows, terms], of a class of `vrex.tb.lib.stimuli` or of one drawn."""
        drawn = SCORES[kind or self.random.choice(list(SCORES))](self.rng, rows * terms)
        return drawn.reshape(rows, terms)

    def multiply(
        self, x: np.ndarray, w: np.ndarray, *, bf16: bool = False, columns: bool = False
    ) -> np.ndarray:
        """Queues one product and its expectations; returns the model's."""
        config = self.config.dpe
        tiles = dpe.tiles(len(w), config)
        padded = np.zeros((tiles * config.trees, w.shape[1]), dtype=np.uint16)
        padded[: len(w)] = w
        chunks = -(-x.shape[1] // CHUNK)
        self.command(len(x), chunks, tiles, bf16, columns)
        self.sources["w"].send(_words((dpe.column_beats if columns else dpe.weight_beats)(w, config)))
        self.sources["x"].send(_words(dpe.row_beats(x, tiles, config)))
        product = dpe.gemm(x, padded, config, bf16=bf16)
        what = f"{len(x)} x {x.shape[1]} x {len(w)}"
        words = product if bf16 else _bits(product)
        size = 16 if bf16 else 32
        for tile in range(tiles):
            part = words[:, tile * config.trees : (tile + 1) * config.trees]
            self.sinks["o"].expect(
                f"tile {tile} of {what}",
                [sum(int(value) << size * i for i, value in enumerate(row)) for row in part],
            )
        self.sinks["done"].expect(
            f"status of {what}", [Status.OK], after=(self.sinks["o"], self.sinks["o"].asked)
        )
        self.cover(x, w, chunks, tiles, bf16)
        self.coverage.hit("weights by columns", columns)
        return product

    def command(self, rows: int, chunks: int, tiles: int, bf16: bool = False, columns: bool = False) -> None:
        """Queues a command."""
        values = {"rows": rows, "chunks": chunks, "tiles": tiles, "bf16": bf16, "columns": columns}
        self.sources["cmd"].send([dpe.COMMAND.to_int(values)])

    def refuse(self, rows: int, chunks: int, tiles: int) -> None:
        """Queues a command out of range."""
        self.command(rows, chunks, tiles)
        self.sinks["done"].expect(
            f"status of {rows} rows, {chunks} chunks, {tiles} tiles", [Status.BAD_LENGTH]
        )
        hit = self.coverage.hit
        hit("no rows", rows == 0)
        hit("no chunks", chunks == 0)
        hit("no tiles", tiles == 0)
        hit("more rows than there is room for", rows > self.config.dpe.rows)

    def cover(self, x: np.ndarray, w: np.ndarray, chunks: int, tiles: int, bf16: bool) -> None:
        """Counts the corner cases that a command met."""
        config, hit = self.config.dpe, self.coverage.hit
        hit("one row", len(x) == 1)
        hit("as many rows as there is room for", len(x) == config.rows)
        hit("rows that come too early for their sums", chunks > 1 and (len(x) - 1) * config.beats < HAZARD)
        hit("one chunk", chunks == 1)
        hit("several chunks", chunks > 1)
        hit("partial last chunk", x.shape[1] % CHUNK)
        hit("several tiles", tiles > 1)
        hit("partial last tile", len(w) % config.trees)
        hit("more results than there is room for", tiles * len(x) > 2 * config.rows)
        hit("BF16 results", bf16)
        hit("FP32 results", not bf16)
        hit("NaN goes in", np.isnan(arith.from_bf16(x)).any())


def _words(beats: np.ndarray) -> list[int]:
    """Beats, uint16 [n, inputs], as words."""
    return [int.from_bytes(beat.astype("<u2").tobytes(), "little") for beat in beats]


def _bits(values: np.ndarray) -> np.ndarray:
    """FP32 bits, every NaN the quiet one."""
    return np.where(np.isnan(values), np.uint32(0x7FC0_0000), values.view(np.uint32))


def make(dut: Any, config: Config, seed: str) -> DpeBench:
    """Bench of one case."""
    return DpeBench(dut, config, seed)


@case(make)
async def shapes(bench: DpeBench) -> None:
    """All of rows, terms and columns small and large, whole tiles and chunks or not."""
    trees, rows = bench.config.dpe.trees, bench.config.dpe.rows
    for m, k, n in (
        (1, 1, 1),
        (1, CHUNK, trees),
        (1, 3 * CHUNK, trees + 1),
        (2, CHUNK + 1, 2 * trees),
        (rows, CHUNK, 3 * trees),
        (rows, 2 * CHUNK - 1, 2 * trees - 1),
        (rows - 1, 2 * CHUNK, 1),
    ):
        bench.stall()
        for columns in (False, True):
            x, w = bench.values(m, k, "normal"), bench.values(n, k, "normal")
            bench.multiply(x, w, bf16=bool(k % 2), columns=columns)
        await bench.drain()


@case(make, kind=list(SCORES))
async def classes(bench: DpeBench, kind: str) -> None:
    """Every class of numbers with itself and with ordinary ones."""
    trees = bench.config.dpe.trees
    for left, right in ((kind, kind), (kind, "normal"), ("normal", kind)):
        bench.stall()
        bench.multiply(bench.values(2, 2 * CHUNK, left), bench.values(trees, 2 * CHUNK, right))
    await bench.drain()


@case(make)
async def infinities(bench: DpeBench) -> None:
    """One infinity among ordinary numbers, two of one sign or of both, and one that meets a zero."""
    trees = bench.config.dpe.trees
    for specials in (
        (INFINITY,),
        (MINUS_INFINITY,),
        (INFINITY, INFINITY),
        (MINUS_INFINITY, MINUS_INFINITY),
        (INFINITY, MINUS_INFINITY),
    ):
        for weights in (0x3F80, 0xBF80, 0x0000):
            bench.stall()
            x, w = bench.values(2, CHUNK, "normal"), bench.values(trees, CHUNK, "normal")
            places = bench.rng.permutation(CHUNK)[: len(specials)]
            x[0, places], w[:, places] = specials, weights
            bench.multiply(x, w)
            bench.multiply(w[:2], np.resize(x, (trees, CHUNK)))
    await bench.drain()


@case(make, late=["w", "x", "o"])
async def counters(bench: DpeBench, late: str) -> None:
    """One port makes the unit wait: a cycle counts once, and late weights or rows show in their counter."""
    config = bench.config.dpe
    rows, chunks, tiles = min(2, config.rows), 2, 3
    bench.stall("none")
    port = bench.sinks[late] if late == "o" else bench.sources[late]
    # Weights are many beats, and the first tile waits for its own in any case.
    port.stalls.profile = Profile(0.9, 8 if late == "w" else 60)
    before = bench.count()
    bench.multiply(
        bench.values(rows, chunks * CHUNK, "normal"),
        bench.values(tiles * config.trees, chunks * CHUNK, "normal"),
    )
    await bench.drain()
    after = bench.count()
    added = {name: after[name] - before[name] for name in COUNTERS}
    if added["busy"] != chunks * tiles * rows * config.beats:
        raise StreamError(f"the counter says {added['busy']} busy cycles")
    if late != "o" and not added["no_weights" if late == "w" else "no_rows"]:
        raise StreamError(f"{late} was late, and the counters say {added}")


@case(make, round=range(scaled(4, 2)))
async def random(bench: DpeBench, round: int) -> None:
    """Random commands back to back, some of them out of range."""
    config = bench.config.dpe
    for _ in range(scaled(8, 3)):
        bench.stall()
        m = bench.random.choice([1, 2, bench.random.randint(1, config.rows)])
        k = bench.random.randint(1, 4 * CHUNK)
        n = bench.random.randint(1, 3 * config.trees)
        bf16, columns = (bench.random.random() < 0.5 for _ in range(2))
        bench.multiply(bench.values(m, k), bench.values(n, k), bf16=bf16, columns=columns)
        if bench.random.random() < 0.3:
            bench.refuse(*bench.random.choice([(0, 1, 1), (1, 0, 1), (1, 1, 0), (config.rows + 1, 1, 1)]))
        if bench.random.random() < 0.3:
            await bench.drain()


@case(make)
async def out_of_range(bench: DpeBench) -> None:
    """Commands that no unit can do get a status at once; the next one works."""
    for shape in ((0, 1, 1), (1, 0, 1), (1, 1, 0), (bench.config.dpe.rows + 1, 2, 2), (0xFFFF, 1, 1)):
        bench.stall()
        bench.refuse(*shape)
        bench.multiply(bench.values(1, 70, "normal"), bench.values(2, 70, "normal"))
    await bench.drain()


@case(make)
async def reset(bench: DpeBench) -> None:
    """Reset at random moments of a command; what follows must not notice."""
    trees = bench.config.dpe.trees
    for _ in range(scaled(8, 3)):
        bench.stall("light")
        bench.multiply(bench.values(2, 2 * CHUNK, "normal"), bench.values(trees, 2 * CHUNK, "normal"))
        await bench.steps(int(bench.rng.integers(1, 3 * Dpe.tile_cycles(bench.config.dpe, 2))))
        bench.coverage.hit("reset in the middle of a command", bench.sinks["o"].expected)
        await bench.reset_in_work()
    bench.multiply(bench.values(2, 100, "normal"), bench.values(trees, 100, "normal"))


@case(make)
async def reset_counters(bench: DpeBench) -> None:
    """A reset at any moment of a command: what the counters say of the next one is equal, bit for bit."""
    trees = bench.config.dpe.trees
    x, w = bench.values(2, 2 * CHUNK, "normal"), bench.values(trees, 2 * CHUNK, "normal")
    bench.stall("none")
    wanted: list[int] = []
    for number in range(1 + scaled(8, 3)):
        start = bench.cycle
        bench.multiply(x, w)
        await bench.drain()
        took, counted = bench.cycle - start, [bench.number(name) for name in COUNTERS]
        wanted = wanted or counted
        if counted != wanted:
            raise StreamError(f"after reset {number} the counters say {counted}, not {wanted}")
        bench.multiply(x, w)
        await bench.steps(int(bench.rng.integers(1, took)))
        bench.coverage.hit("counters after a reset in the middle of a command", bench.sinks["o"].expected)
        await bench.reset_in_work()
        if any(bench.number(name) for name in COUNTERS):
            raise StreamError(f"a counter is not 0 after reset {number}")
    bench.multiply(x, w)


@case(make)
async def ready_and_valid(bench: DpeBench) -> None:
    """No valid depends on a ready of the same cycle."""
    bench.stall("heavy")
    for _ in range(3):
        bench.multiply(bench.values(2, CHUNK, "normal"), bench.values(2, CHUNK, "normal"))
    await bench.check_ready_is_not_seen_by_valid(600)


@case(make)
async def roofline(bench: DpeBench) -> None:
    """Tiles follow each other as fast as arithmetic or weights allow, and as published."""
    config = bench.config.dpe
    # Among them so many that a tile waits for its sums, but hardly: one row more would cover the hazard.
    some = 1 + (HAZARD - 3) // config.beats
    for rows in sorted({1, min(some, config.rows), min(11, config.rows), config.rows}):
        chunks, tiles = (12, 4) if rows == some else (4, 3)
        bench.stall("none")
        bench.multiply(
            bench.values(rows, chunks * CHUNK, "normal"),
            bench.values(tiles * config.trees, chunks * CHUNK, "normal"),
        )
        await bench.drain(lambda: not bench.sources["cmd"].queue)
        start, busy = bench.cycle, int(bench.dut.busy.value)
        await bench.drain()
        took, published = bench.cycle - start, Dpe.tile_cycles(config, rows)
        # The first tile's weights come before, the last one's sums after all others.
        fill = config.trees * config.beats + rows * config.beats + latencies(config)[1] + 2 * rows
        if not chunks * tiles * (published - 1) <= took <= chunks * tiles * published + fill:
            raise StreamError(
                f"{chunks * tiles} tiles of {rows} rows took {took} cycles, published {published} each"
            )
        used = int(bench.dut.busy.value) - busy
        if used != chunks * tiles * rows * config.beats:
            raise StreamError(f"the counter says {used} busy cycles")
