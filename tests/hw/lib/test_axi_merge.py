"""Merged AXI4 ports: what the bench can't ask for."""

from typing import Any

import pytest
from amaranth.sim import Simulator

from vrex.hw.lib.axi.merge import AHEAD, AxiMerge, Owed
from vrex.hw.tools.export import to_rtlil


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"reads": 0, "writes": 1}, "a port that reads and one that writes, not 0 and 1"),
        ({"reads": 1, "writes": 0}, "a port that reads and one that writes, not 1 and 0"),
        ({"reads": 1, "writes": 1, "outstanding": 1}, "outstanding must be at least 2, not 1"),
        ({"reads": 2, "writes": 1, "buffered": {2: 16}}, r"buffered names ports \[2\], and there are 2"),
        ({"reads": 2, "writes": 1, "gathered": {1: 16}}, r"gathered names ports \[1\], and there are 1"),
    ],
)
def test_too_few_of_anything(sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AxiMerge(64, **sizes)


@pytest.mark.parametrize(("reads", "writes", "bits"), [(1, 1, 4), (2, 1, 5), (1, 3, 6), (4, 4, 6), (5, 1, 7)])
def test_ids_hold_the_ports_number(reads: int, writes: int, bits: int) -> None:
    unit = AxiMerge(64, reads=reads, writes=writes)
    assert len(unit.m_axi.ar.id) == len(unit.m_axi.b.id) == bits
    assert len(unit.read_axi[0].ar.id) == len(unit.write_axi[0].b.id) == 4
    to_rtlil(unit, "merge")


def simulate(unit: Any, *benches: Any) -> None:
    simulator = Simulator(unit)
    simulator.add_clock(1e-6)
    for bench in benches:
        simulator.add_testbench(bench)
    simulator.run_until(1e-3)


def test_answers_that_nobody_asked_for_are_swallowed() -> None:
    unit = AxiMerge(64, reads=3, writes=3)
    seen = []

    async def bench(ctx: Any) -> None:
        port = unit.m_axi
        for part in unit.read_axi:
            ctx.set(part.r.ready, 1)
        # One of no port, then one of a port that asked for nothing, then another of no port.
        for number in (3, 1, 3):
            for channel in (port.r, port.b):
                ctx.set(channel.id, number << 4 | 5)
                ctx.set(channel.valid, 1)
            ctx.set(port.r.last, 1)
            assert ctx.get(port.r.ready)
            assert ctx.get(port.b.ready)
            await ctx.tick()
            for channel in (port.r, port.b):
                ctx.set(channel.valid, 0)
            seen.append([(ctx.get(part.r.valid), ctx.get(part.r.id)) for part in unit.read_axi])
            for part in unit.write_axi:
                ctx.set(part.b.ready, 1)
            await ctx.tick()
            await ctx.tick()
            assert ctx.get(unit.idle)

    simulate(unit, bench)
    assert [[valid for valid, _ in ports] for ports in seen] == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert seen[1][1][1] == 5


@pytest.mark.parametrize("most", [2, 3, AHEAD])
def test_never_more_is_owed_than_may_be(most: int) -> None:
    unit = Owed(most)

    async def bench(ctx: Any) -> None:
        # As the turns do it: whatever may be asked for is.
        owed = 0
        for cycle in range(20):
            ctx.set(unit.asked, asked := not ctx.get(unit.full))
            ctx.set(unit.came, came := cycle in (12, 13))
            assert ctx.get(unit.none) == (owed == 0)
            await ctx.tick()
            owed += asked - came
            assert owed <= most
            assert cycle not in (11, 19) or owed == most

    simulate(unit, bench)


def test_latencies() -> None:
    """From port to port, without anything in the way."""
    unit = AxiMerge(64, reads=2, writes=2, buffered={1: 4}, gathered={1: 4})
    port = unit.m_axi
    found: dict[str, int] = {}

    async def cycles(ctx: Any, name: str, shown: Any, given: Any) -> None:
        """Gives a word, and counts from the cycle in which it came until it shows."""
        found[name] = 0
        ctx.set(given.valid, 1)
        while not ctx.get(shown.valid):
            taken = ctx.get(given.ready)
            await ctx.tick()
            found[name] += 1
            if taken:
                ctx.set(given.valid, 0)
        await ctx.tick()

    async def bench(ctx: Any) -> None:
        ctx.set(port.r.last, 1)
        takers: list[Any] = [port.ar, port.aw, port.w, *(part.r for part in unit.read_axi)]
        for channel in takers:
            ctx.set(channel.ready, 1)
        for part in unit.write_axi:
            ctx.set(part.b.ready, 1)
        await cycles(ctx, "ar", port.ar, unit.read_axi[0].ar)
        await cycles(ctx, "r", unit.read_axi[0].r, port.r)
        await cycles(ctx, "aw", port.aw, unit.write_axi[0].aw)
        await cycles(ctx, "w", port.w, unit.write_axi[0].w)
        await cycles(ctx, "b", unit.write_axi[0].b, port.b)
        await cycles(ctx, "ar, buffered", port.ar, unit.read_axi[1].ar)
        ctx.set(port.r.id, 1 << 4)
        await cycles(ctx, "r, buffered", unit.read_axi[1].r, port.r)

    simulate(unit, bench)
    assert found == {"ar": 1, "r": 1, "aw": 1, "w": 2, "b": 1, "ar, buffered": 5, "r, buffered": 3}
