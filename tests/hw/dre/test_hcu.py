"""The HCU's parts that a simulator can look at alone, and its figures."""

import random
from typing import Any

import pytest
from amaranth import Module, Signal
from amaranth.sim import Simulator

from vrex.hw.dre import hcu
from vrex.model.config import preset


def words(bits: int, count: int) -> list[tuple[int, int]]:
    """Pairs of words: equal, opposite, one bit apart, and with every number of differences."""
    draw = random.Random(bits)
    full = (1 << bits) - 1
    pairs = [(0, 0), (full, full), (0, full), (full, 0), (0, 1), (1 << (bits - 1), 0)]
    for _ in range(count):
        left = draw.getrandbits(bits)
        places = draw.sample(range(bits), draw.randint(0, bits))
        pairs.append((left, left ^ sum(1 << place for place in places)))
    return pairs


@pytest.mark.parametrize("bits", [8, 16, 32, 64, 128])
def test_differences_are_counted_one_pair_a_cycle(bits: int) -> None:
    m = Module()
    left, right = Signal(bits), Signal(bits)
    count = Signal(range(bits + 1))
    m.d.comb += count.eq(hcu.count_differences(m, left, right))
    pairs = words(bits, 300)
    latency = hcu.count_stages(bits)
    seen: list[int] = []

    async def drive(ctx: Any) -> None:
        for a, b in [*pairs, *[(0, 0)] * latency]:
            ctx.set(left, a)
            ctx.set(right, b)
            await ctx.tick()
            seen.append(ctx.get(count))

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(drive)
    simulator.run()
    expected = [(a ^ b).bit_count() for a, b in pairs]
    assert seen[latency - 1 : latency - 1 + len(pairs)] == expected
    assert max(expected) == bits


def test_a_frame_of_ten_tokens_is_in_time() -> None:
    edge = preset("edge")
    cycles = hcu.Hcu.cycles(edge.hcu, 10, 1250, bus_bits=edge.bus_bits)
    assert cycles <= 1.1 * 10 * 1250 / 16 + 200
