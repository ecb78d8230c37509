"""Testbench of the quantised means: every code and scale bit for bit against `vrex.model.dre.quant`."""

from typing import Any

import numpy as np

from vrex.hw.dre.quant import Quant
from vrex.model.config import Config
from vrex.model.dre import quant
from vrex.model.lib import arith
from vrex.tb.lib.bench import Bench, beats, case, scaled
from vrex.tb.lib.stimuli import SCORES
from vrex.tb.lib.streams import StreamError

SPARE_CYCLES = 2
"""What the published bound has beyond the cycles that a command takes."""


class QuantBench(Bench):
    """Drives commands and expects what the model computes."""

    unit = "quant"

    def __init__(self, dut: Any, config: Config, seed: str) -> None:
        super().__init__(dut, config, seed, inputs=("cmd", "i"), outputs=("o", "done"))

    def values(self, kind: str | None = None) -> np.ndarray:
        """BF16 bits uint16 of a group, of a class of `vrex.tb.lib.stimuli` or of one drawn."""
        return SCORES[kind or self.random.choice(list(SCORES))](self.rng, self.config.kvmu.head_dim)

    def quantise(self, group: np.ndarray, bits: int) -> None:
        """Queues one command and its expectations."""
        size = self.config.bus_bytes
        codes, scale = quant.quantise(group.astype(np.uint16), bits)
        packed = quant.pack(codes, bits).tobytes()
        self.sources["cmd"].send([int(bits == 4)])
        self.sources["i"].send(beats(group.astype("<u2").tobytes(), size))
        what = f"a group in {bits} bits"
        self.sinks["o"].expect(what, beats(packed * max(1, size // len(packed)), size))
        self.sinks["done"].expect(what, [int(scale)], after=(self.sinks["o"], self.sinks["o"].asked))
        self.cover(group, codes, int(scale), bits)

    def cover(self, group: np.ndarray, codes: np.ndarray, scale: int, bits: int) -> None:
        """Counts the corner cases that a command met."""
        hit, top = self.coverage.hit, 2 ** (bits - 1) - 1
        hit(f"{bits} bits")
        magnitudes = group & 0x7FFF
        hit("scale is NaN", scale == arith.NAN)
        hit("every value is 0", not magnitudes.any())
        hit("scale is 0 for its smallness", scale == 0 and magnitudes.any())
        hit("scale is the smallest", scale == 0x0080)
        hit("largest code", (codes == top).any())
        hit("smallest code", (codes == -top).any())
        if scale not in (0, arith.NAN):
            factor = np.float32(1) / arith.from_bf16(np.array(scale, dtype=np.uint16))
            hit("code half way between two", ((arith.from_bf16(group) * factor) % 1 == 0.5).any())


def make(dut: Any, config: Config, seed: str) -> QuantBench:
    """Bench of one case."""
    return QuantBench(dut, config, seed)


@case(make, kind=list(SCORES))
async def classes(bench: QuantBench, kind: str) -> None:
    """Every class of values, in both widths."""
    for _ in range(scaled(6, 2)):
        for bits in quant.BITS:
            bench.stall()
            bench.quantise(bench.values(kind), bits)
    await bench.drain()


@case(make)
async def ties(bench: QuantBench) -> None:
    """Values half way between two codes: the even one is right."""
    n = bench.config.kvmu.head_dim
    for bits in quant.BITS:
        top = 2 ** (bits - 1) - 1
        for scale in (1.0, 2.0**-100, 2.0**90):
            bench.stall()
            halves = bench.rng.integers(-2 * top, 2 * top + 1, n) / 2
            halves[bench.rng.integers(n)] = top
            bench.quantise(arith.to_bf16((halves * scale).astype(np.float32)), bits)
    await bench.drain()


@case(make)
async def range_ends(bench: QuantBench) -> None:
    """Groups of zeros, at both ends of the range, and round the smallest scale."""
    n = bench.config.kvmu.head_dim
    for bits in quant.BITS:
        top = 2 ** (bits - 1) - 1
        smallest = int(arith.to_bf16(np.full(1, top * 2.0**-126, dtype=np.float32))[0])
        near = range(smallest - 3, smallest + 3)
        for largest in (0, 1, 0x0080, *near, 0x0480, 0x7F00, 0x7F7F, 0x7F80, 0x7F81, 0x7FC0):
            bench.stall()
            group = bench.rng.integers(0, largest + 1, n).astype(np.uint16)
            group[bench.rng.integers(n)] = largest
            bench.quantise(group | bench.rng.choice([0, 0x8000], n).astype(np.uint16), bits)
    await bench.drain()


@case(make)
async def scales(bench: QuantBench) -> None:
    """Every fraction of the largest value, so that every scale's reciprocal is met."""
    for fraction in range(0, 128, max(1, 128 // scaled(128, 16))):
        bench.stall("light")
        group = bench.values("normal") & 0x807F
        group |= (bench.rng.integers(118, 127, len(group)) << 7).astype(np.uint16)
        group[bench.rng.integers(len(group))] = 127 << 7 | fraction
        bench.quantise(group, bench.random.choice(quant.BITS))
    await bench.drain()


@case(make, round=range(scaled(4, 2)))
async def random(bench: QuantBench, round: int) -> None:
    """Random commands back to back."""
    for _ in range(scaled(40, 5)):
        bench.stall()
        bench.quantise(bench.values(), bench.random.choice(quant.BITS))
        if bench.random.random() < 0.3:
            await bench.drain()


@case(make)
async def reset(bench: QuantBench) -> None:
    """Reset at random moments of a command; what follows must not notice."""
    for _ in range(scaled(20, 5)):
        bench.stall()
        bench.quantise(bench.values(), bench.random.choice(quant.BITS))
        await bench.steps(
            int(bench.rng.integers(1, Quant.cycles(kvmu=bench.config.kvmu, mean=bench.config.mean) + 10))
        )
        bench.coverage.hit("reset in the middle of a command", bench.sinks["done"].expected)
        await bench.reset_in_work()
    bench.quantise(bench.values("normal"), 8)


@case(make)
async def ready_and_valid(bench: QuantBench) -> None:
    """No valid depends on a ready of the same cycle."""
    bench.stall("heavy")
    for bits in (8, 4, 8):
        bench.quantise(bench.values(), bits)
    await bench.check_ready_is_not_seen_by_valid(900)


@case(make, bits=quant.BITS)
async def latency(bench: QuantBench, bits: int) -> None:
    """A command that never waits takes the cycles that the unit publishes, less those of its bound."""
    for _ in range(3):
        bench.stall("none")
        bench.quantise(bench.values("normal"), bits)
        await bench.drain(lambda: not bench.sources["cmd"].queue)
        start = bench.cycle
        await bench.drain()
        took, published = (
            bench.sinks["done"].first_seen - start + 1,
            Quant.cycles(kvmu=bench.config.kvmu, mean=bench.config.mean),
        )
        if took != published - SPARE_CYCLES:
            raise StreamError(f"a group in {bits} bits took {took} cycles, published {published}")
