"""Testbench of the vector engine: every result bit for bit against `vrex.model.lxe.vpe`."""

from typing import Any

import numpy as np

from vrex.hw.lxe.vpe import Vpe
from vrex.model.config import Config
from vrex.model.lib import arith
from vrex.model.lxe import vpe
from vrex.model.lxe.vpe import OPERANDS, OPERATIONS, REDUCTIONS, Function, Status
from vrex.tb.lib.bench import Bench, beats, case, scaled
from vrex.tb.lib.stimuli import SCORES
from vrex.tb.lib.streams import StreamError


class VpeBench(Bench):
    """Drives commands and expects what the model computes."""

    unit = "vpe"

    def __init__(self, dut: Any, config: Config, seed: str) -> None:
        super().__init__(dut, config, seed, inputs=("cmd", "a", "b", "c"), outputs=("o", "done"))
        self.lanes = config.vpe.lanes

    def values(self, n: int, kind: str | None, bf16: bool) -> np.ndarray:
        """Bits uint32 of n elements of a class of `vrex.tb.lib.stimuli`, in BF16 or in FP32."""
        high = SCORES[kind or self.random.choice(list(SCORES))](self.rng, n).astype(np.uint32)
        if bf16:
            return high
        low = self.rng.integers(0, 1 << 16, n, dtype=np.uint32)
        return high << 16 | np.where(self.rng.random(n) < 0.8, low, 0).astype(np.uint32)

    def send(self, name: str, bits: np.ndarray) -> None:
        """Queues the words of an operand; what lies beyond its elements is random."""
        words = self.rng.integers(0, 1 << 32, -(-len(bits) // self.lanes) * self.lanes, dtype=np.uint32)
        words[: len(bits)] = bits
        self.sources[name].send(beats(words.tobytes(), 4 * self.lanes))

    def run(
        self, opcode: int, length: int, kind: str | None = None, bf16: int = 0, scalar: int = 0, rows: int = 1
    ) -> None:
        """Queues one command and its expectations.

        Args:
            opcode, length, bf16, scalar, rows: of the command.
            kind: class of the operands, or one drawn for each.
        """
        status = vpe.status(opcode, length, rows)
        command = {
            **{"opcode": opcode, "bf16": bf16, "scalar": scalar, "length": length, "rows": rows},
            "unused": self.random.randrange(4),
        }
        self.sources["cmd"].send([vpe.COMMAND.to_int(command)])
        nan = False
        if status == Status.OK:
            for _ in range(rows):
                nan |= self.row(Function(opcode), length, kind, bf16, scalar)
            self.coverage.hit("several rows", rows > 1)
        after = (self.sinks["o"], self.sinks["o"].received + len(self.sinks["o"].expected))
        self.sinks["done"].expect(f"{opcode}", [vpe.DONE.to_int({"status": status, "nan": nan})], after=after)
        self.coverage.hit(f"ends with {status.name}")

    def row(self, code: Function, length: int, kind: str | None, bf16: int, scalar: int) -> bool:
        """Queues the operands and results of a row; returns whether a result is NaN."""
        operands = []
        for name in OPERANDS.get(code, "a"):
            one = name != "a" and scalar >> "bc".index(name) & 1
            is_bf16 = bool(bf16 >> "abc".index(name) & 1)
            bits = self.values(1 if one else length, kind, is_bf16)
            # The upper half of a BF16 element is not looked at.
            noise = self.rng.integers(0, 1 << 16, len(bits), dtype=np.uint32) << 16 if is_bf16 else 0
            self.send(name, bits | noise)
            operands.append((bits << 16 if is_bf16 else bits).view(np.float32))
            self.coverage.hit("operand in BF16", is_bf16)
            self.coverage.hit("one element for the row", one)
        result, nan = self.expect(code, operands, bool(bf16 >> 3))
        self.cover(code, length, result, nan, bool(bf16 >> 3))
        return nan

    def expect(self, code: Function, operands: list[np.ndarray], rounded: bool) -> tuple[np.ndarray, bool]:
        """Queues the results of a good command; returns their bits and whether NaN is among them."""
        if code == Function.SIGN:
            bits, nan = vpe.sign(operands[0]), bool(np.isnan(operands[0]).any())
        else:
            result = np.broadcast_to(
                OPERATIONS[code](*operands), (1 if code in REDUCTIONS else len(operands[0]),)
            )
            nan = bool(np.isnan(result).any())
            bits = arith.to_bf16(result).astype(np.uint32) if rounded else result.view(np.uint32)
        words = np.zeros(-(-len(bits) // self.lanes) * self.lanes, dtype=np.uint32)
        words[: len(bits)] = bits
        what = f"{code.name} of {len(operands[0])}"
        self.sinks["o"].expect(what, beats(words.tobytes(), 4 * self.lanes))
        return bits, nan

    def cover(self, code: Function, length: int, result: np.ndarray, nan: bool, rounded: bool) -> None:
        """Counts the corner cases that a command met."""
        hit = self.coverage.hit
        hit(f"{code.name}")
        hit(f"{code.name} with a NaN", nan)
        hit("one element", length == 1)
        hit("partial last word", length % self.lanes)
        hit("reduction of fewer than 64", code in REDUCTIONS and length < vpe.ACCUMULATORS)
        hit("reduction of several rounds", code in REDUCTIONS and length > 2 * vpe.ACCUMULATORS)
        hit("result in BF16", rounded)
        if code != Function.SIGN and not rounded:
            magnitude = result & 0x7FFF_FFFF
            hit("subnormal result", ((magnitude > 0) & (magnitude < 1 << 23)).any())
            hit("infinite result", (magnitude == 0x7F80_0000).any())
            hit("result is -0", (result == 0x8000_0000).any())


def make(dut: Any, config: Config, seed: str) -> VpeBench:
    """Bench of one case."""
    return VpeBench(dut, config, seed)


@case(make, opcode=[code.name for code in Function])
async def classes(bench: VpeBench, opcode: str) -> None:
    """Every operation on every class of operands."""
    for kind in SCORES:
        bench.stall()
        bench.run(Function[opcode], bench.random.randint(1, 4 * bench.lanes), kind)
        bench.run(Function[opcode], bench.random.randint(1, 4 * bench.lanes), None)
    await bench.drain()


@case(make, opcode=[code.name for code in Function])
async def lengths(bench: VpeBench, opcode: str) -> None:
    """Rows around the edges of a word, of the accumulators and of a ring."""
    for length in (1, 2, bench.lanes, bench.lanes + 1, 63, 64, 65, 129, 500):
        bench.stall()
        bench.run(Function[opcode], length, "normal", bench.random.randrange(16), bench.random.randrange(4))
    await bench.drain()


@case(make, opcode=[code.name for code in Function])
async def rows(bench: VpeBench, opcode: str) -> None:
    """Rows of one command, one after the other, with partial words and one element for each row."""
    for length in (1, bench.lanes, bench.lanes + 1, 70, 200):
        for scalar in (0, 3):
            bench.stall()
            count, bf16 = bench.random.randint(2, 5), bench.random.randrange(16)
            bench.run(Function[opcode], length, None, bf16, scalar, count)
    await bench.drain()


@case(make)
async def faults(bench: VpeBench) -> None:
    """Reserved opcodes and rows without an element, among good commands."""
    for opcode, length, rows in ((13, 5, 1), (0, 0, 1), (255, 0, 0), (8, 0, 2), (128, 1, 1), (0, 5, 0)):
        bench.stall()
        bench.run(opcode, length, rows=rows)
        bench.run(bench.random.choice(list(Function)), 7)
    await bench.drain()


@case(make, round=range(scaled(4, 1)))
async def random(bench: VpeBench, round: int) -> None:
    """Random commands back to back."""
    for _ in range(scaled(60, 8)):
        bench.stall()
        length = bench.random.randint(1, bench.random.choice([3, 70, 300]))
        opcode, rows = bench.random.choice(list(Function)), bench.random.choice([1, 1, 2, 3])
        bench.run(opcode, length, None, bench.random.randrange(16), bench.random.randrange(4), rows)
    await bench.drain()


@case(make)
async def reset(bench: VpeBench) -> None:
    """Reset at random moments of a command; what follows must not notice."""
    for _ in range(scaled(20, 5)):
        bench.stall()
        bench.run(bench.random.choice(list(Function)), 100, rows=2)
        await bench.steps(bench.random.randint(1, 150))
        bench.coverage.hit("reset in the middle of a command", bench.sinks["done"].expected)
        await bench.reset_in_work()
    for opcode in (Function.RSUM, Function.RMAX, Function.SIGN):
        bench.run(opcode, 100)


@case(make)
async def reset_cycles(bench: VpeBench) -> None:
    """A reset at any moment of a command: the next one takes as many cycles as after a reset at rest."""
    bench.stall("none")
    for opcode in (Function.FMA, Function.RSUM, Function.RMAX, Function.SIGN, Function.RSQRT):
        wanted = 0
        for number in range(1 + scaled(8, 3)):
            start = bench.cycle
            bench.run(opcode, 100, "normal", rows=2)
            await bench.drain()
            took = bench.cycle - start
            wanted = wanted or took
            if took != wanted:
                raise StreamError(f"after reset {number} a {opcode.name} took {took} cycles, not {wanted}")
            bench.run(bench.random.choice(list(Function)), 100, rows=2)
            await bench.steps(bench.random.randint(1, wanted))
            bench.coverage.hit("reset in the middle of a command", bench.sinks["done"].expected)
            await bench.reset_in_work()


@case(make)
async def ready_and_valid(bench: VpeBench) -> None:
    """No valid depends on a ready of the same cycle."""
    bench.stall("heavy")
    for opcode in Function:
        bench.run(opcode, 40)
    await bench.check_ready_is_not_seen_by_valid(900)


@case(make, opcode=["FMA", "RSUM", "RMAX", "EXP", "RECIP", "RSQRT"])
async def latency(bench: VpeBench, opcode: str) -> None:
    """A command that never waits takes no more cycles than the unit publishes."""
    for length, rows in ((1, 1), (64, 1), (1000, 1), (1, 8), (50, 8)):
        bench.stall("none")
        bench.run(Function[opcode], length, "normal", rows=rows)
        await bench.drain(lambda: not bench.sources["cmd"].queue)
        start = bench.cycle
        await bench.drain()
        took, published = bench.cycle - start, Vpe.cycles(bench.config.vpe, Function[opcode], length, rows)
        if took > published:
            raise StreamError(f"{opcode} of {rows} x {length} took {took} cycles, published {published}")
