"""Streams' small pieces against Python references, with seeded random stalls."""

import operator
import random
from collections.abc import Callable
from typing import Any

import pytest
from amaranth import Cat, Module, Signal
from amaranth.sim import Simulator

from vrex.hw.lib.stream import BeatMemory, Packer, Skid, Stage, delay, reduce_tree, tree_stages

SEEDS = (1, 2, 3)


def simulate(module: Any, *benches: Callable[[Any], Any]) -> None:
    simulator = Simulator(module)
    simulator.add_clock(1e-6)
    for bench in benches:
        simulator.add_testbench(bench)
    simulator.run_until(5e-3)


def packed(packets: list[list[int]], word_bits: int, words: int) -> list[int]:
    """Beats of packets, each of which starts on a new one."""
    return [
        sum(word << i * word_bits for i, word in enumerate(packet[first : first + words]))
        for packet in packets
        for first in range(0, len(packet), words)
    ]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("word_bits", "beat_bits"), [(8, 8), (8, 16), (3, 12), (1, 8), (32, 64), (4, 64)])
def test_packer(word_bits: int, beat_bits: int, seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(f"{word_bits}/{beat_bits}/{seed}")
    words = beat_bits // word_bits
    packets = [[rng.getrandbits(word_bits) for _ in range(rng.randint(1, 2 * words + 1))] for _ in range(12)]
    packer = Packer(word_bits, beat_bits)
    stall_in, stall_out = rng.choice([0, 0.3, 0.8]), rng.choice([0, 0.3, 0.8])
    beats: list[int] = []

    async def send(ctx: Any) -> None:
        for packet in packets:
            for i, word in enumerate(packet):
                while rng.random() < stall_in:
                    await ctx.tick()
                ctx.set(packer.i.payload, {"data": word, "last": i == len(packet) - 1})
                ctx.set(packer.i.valid, 1)
                await ctx.tick().until(packer.i.ready)
                ctx.set(packer.i.valid, 0)

    async def receive(ctx: Any) -> None:
        expected = packed(packets, word_bits, words)
        while len(beats) < len(expected):
            while rng.random() < stall_out:
                await ctx.tick()
            ctx.set(packer.o.ready, 1)
            (beat,) = await ctx.tick().sample(packer.o.payload).until(packer.o.valid)
            beats.append(beat)
            ctx.set(packer.o.ready, 0)

    simulate(packer, send, receive)
    assert beats == packed(packets, word_bits, words)


@pytest.mark.parametrize("kind", [Skid, Stage])
@pytest.mark.parametrize("seed", SEEDS)
def test_skid(kind: Any, seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(f"skid {seed}")
    words = [rng.getrandbits(8) for _ in range(60)]
    skid = kind(8)
    stall_in, stall_out = rng.choice([0, 0.3, 0.8]), rng.choice([0, 0.3, 0.8])
    received: list[int] = []

    async def send(ctx: Any) -> None:
        for word in words:
            while rng.random() < stall_in:
                await ctx.tick()
            ctx.set(skid.i.payload, word)
            ctx.set(skid.i.valid, 1)
            await ctx.tick().until(skid.i.ready)
            ctx.set(skid.i.valid, 0)

    async def receive(ctx: Any) -> None:
        while len(received) < len(words):
            while rng.random() < stall_out:
                await ctx.tick()
            ctx.set(skid.o.ready, 1)
            (word,) = await ctx.tick().sample(skid.o.payload).until(skid.o.valid)
            received.append(word)
            ctx.set(skid.o.ready, 0)

    simulate(skid, send, receive)
    assert received == words


@pytest.mark.parametrize("kind", [Skid, Stage])
def test_skid_moves_a_word_every_cycle(kind: Any) -> None:
    skid = kind(8)
    received: list[int] = []

    async def bench(ctx: Any) -> None:
        ctx.set(skid.o.ready, 1)
        ctx.set(skid.i.valid, 1)
        for word in range(20):
            ctx.set(skid.i.payload, word)
            assert ctx.get(skid.i.ready)
            if ctx.get(skid.o.valid):
                received.append(ctx.get(skid.o.payload))
            await ctx.tick()

    simulate(skid, bench)
    assert received == list(range(19))


@pytest.mark.parametrize(("word_bits", "beat_bits"), [(0, 8), (3, 8), (16, 24)])
def test_packer_refuses_words_that_do_not_fit(word_bits: int, beat_bits: int) -> None:
    with pytest.raises(ValueError, match=f"beats of {beat_bits} bits do not hold"):
        Packer(word_bits, beat_bits)


@pytest.mark.parametrize("row_bits", [8, 16, 32, 64, 128])
@pytest.mark.parametrize("beat_bits", [8, 32, 128])
def test_beat_memory(beat_bits: int, row_bits: int) -> None:
    bits = 1024
    rng = random.Random(beat_bits * row_bits)
    memory = BeatMemory(beat_bits, row_bits, bits)
    contents = 0
    answers: list[tuple[int, int]] = []

    async def bench(ctx: Any) -> None:
        nonlocal contents
        for _ in range(300):
            beat, data, write = (
                rng.randrange(bits // beat_bits),
                rng.getrandbits(beat_bits),
                rng.random() < 0.6,
            )
            row = rng.randrange(bits // row_bits)
            ctx.set(memory.write_beat, beat)
            ctx.set(memory.write_data, data)
            ctx.set(memory.write_en, write)
            ctx.set(memory.read_row, row)
            before = contents >> row * row_bits & (1 << row_bits) - 1
            await ctx.tick()
            if write:
                contents &= ~((1 << beat_bits) - 1 << beat * beat_bits)
                contents |= data << beat * beat_bits
            answers.append((ctx.get(memory.read_data), before))

    simulate(memory, bench)
    assert len(answers) == 300
    assert [got for got, _ in answers] == [expected for _, expected in answers]
    assert any(got for got, _ in answers)


def in_order(values: list[int]) -> int:
    return int.from_bytes(bytes(values), "little")


@pytest.mark.parametrize("leaves", [1, 2, 3, 4, 5, 7, 8, 16, 33])
@pytest.mark.parametrize("registered", [False, True])
@pytest.mark.parametrize(
    ("join", "reference", "growth"),
    [(operator.add, sum, lambda n: (n - 1).bit_length()), (Cat, in_order, lambda n: 8 * (n - 1))],
    ids=["sum", "order"],
)
def test_reduce_tree(
    leaves: int,
    registered: bool,
    join: Callable[[Any, Any], Any],
    reference: Callable[[list[int]], int],
    growth: Callable[[int], int],
) -> None:
    rng = random.Random(leaves)
    m = Module()
    inputs = [Signal(8) for _ in range(leaves)]
    result = reduce_tree(inputs, join, m if registered else None)
    output = Signal(len(result))
    m.d.comb += output.eq(result)
    # A clock domain even where no register is.
    m.d.sync += Signal().eq(1)
    stages = tree_stages(leaves) if registered else 0
    rounds = [[rng.getrandbits(8) for _ in inputs] for _ in range(20)]
    answers: list[int] = []

    async def bench(ctx: Any) -> None:
        for number in range(len(rounds) + stages):
            for signal, value in zip(inputs, rounds[min(number, len(rounds) - 1)], strict=True):
                ctx.set(signal, value)
            if number >= stages:
                answers.append(ctx.get(output))
            await ctx.tick()

    simulate(m, bench)
    assert answers == [reference(values) for values in rounds]
    assert len(output) == 8 + growth(leaves)


@pytest.mark.parametrize("cycles", [0, 1, 2, 5])
def test_delay(cycles: int) -> None:
    m = Module()
    value = Signal(8, init=3)
    late = Signal(8)
    m.d.comb += late.eq(delay(m, value, cycles))
    m.d.sync += Signal().eq(1)
    seen: list[int] = []

    async def bench(ctx: Any) -> None:
        for number in range(20):
            ctx.set(value, number + 1)
            seen.append(ctx.get(late))
            await ctx.tick()

    simulate(m, bench)
    assert seen[cycles:] == list(range(1, 21 - cycles))
    assert seen[:cycles] == [3] * cycles
