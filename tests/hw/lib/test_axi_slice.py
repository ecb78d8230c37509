"""A register slice: its latencies, and that no burst of writes shows before its last beat."""

from typing import Any

from tests.hw.lib.test_axi_merge import simulate
from vrex.hw.lib.axi.slice import AxiSlice


def test_latencies() -> None:
    unit = AxiSlice(64, beats=4)
    came, goes = unit.s_axi, unit.m_axi
    found: dict[str, int] = {}

    async def bench(ctx: Any) -> None:
        for channel in (goes.ar, goes.aw, goes.w, came.r, came.b):
            ctx.set(channel.ready, 1)
        for name, given, shown in (("ar", came.ar, goes.ar), ("r", goes.r, came.r), ("b", goes.b, came.b)):
            ctx.set(given.valid, 1)
            found[name] = 0
            while not ctx.get(shown.valid):
                await ctx.tick()
                found[name] += 1
                ctx.set(given.valid, 0)
            await ctx.tick()
        # The address waits for the second of its two beats.
        ctx.set(came.aw.len, 1)
        ctx.set(came.aw.valid, 1)
        ctx.set(came.w.valid, 1)
        await ctx.tick()
        ctx.set(came.aw.valid, 0)
        ctx.set(came.w.valid, 0)
        for _ in range(10):
            await ctx.tick()
            assert not ctx.get(goes.aw.valid)
        ctx.set(came.w.valid, 1)
        ctx.set(came.w.last, 1)
        found["aw"] = 0
        while not ctx.get(goes.aw.valid):
            await ctx.tick()
            found["aw"] += 1
            ctx.set(came.w.valid, 0)

    simulate(unit, bench)
    assert found == {"ar": 1, "r": 1, "b": 1, "aw": 2}


def test_a_beat_a_cycle() -> None:
    unit = AxiSlice(64, beats=4)
    came, goes = unit.s_axi, unit.m_axi
    beats: list[int] = []

    async def give(ctx: Any) -> None:
        ctx.set(came.aw.valid, 1)
        ctx.set(came.aw.len, 1)
        ctx.set(came.w.valid, 1)
        ctx.set(goes.aw.ready, 1)
        ctx.set(goes.w.ready, 1)
        for number in range(40):
            ctx.set(came.w.data, number)
            ctx.set(came.w.last, number % 2)
            assert number < 6 or ctx.get(came.w.ready)
            if ctx.get(goes.w.valid):
                beats.append(ctx.get(goes.w.data))
            await ctx.tick()

    simulate(unit, give)
    assert len(beats) > 30
    assert beats == sorted(beats)
