"""Reads that always end, against a reader that takes its time."""

import random
from typing import Any

import pytest
from amaranth.sim import Simulator

from vrex.hw.dre.kvmu.table import ExactReader
from vrex.hw.lib.axi.burst import Error
from vrex.model.config import PRESETS

CONFIG = PRESETS["tiny"]


@pytest.mark.parametrize("seed", range(4))
def test_a_request_that_waits_is_kept(seed: int) -> None:
    """The requester may change its mind at once; the reader sees what was asked for, stable, once."""
    print(f"seed {seed}")
    rng = random.Random(f"exact reader {seed}")
    beats = [rng.randint(1, 3) for _ in range(20)]
    asked = [(rng.randrange(1 << 20) * CONFIG.bus_bytes, count * CONFIG.bus_bytes) for count in beats]
    reader, seen, taken = ExactReader(CONFIG.bus_bits), [], [0]
    request, to, came = reader.request, reader.to_reader, reader.from_reader

    async def ask(ctx: Any) -> None:
        for address, size in asked:
            ctx.set(request.payload, {"address": address, "bytes": size})
            ctx.set(request.valid, 1)
            await ctx.tick().until(request.ready)
            ctx.set(request.valid, 0)
            ctx.set(request.payload, {"address": rng.randrange(1 << 20), "bytes": 1})
            await ctx.tick().until(~reader.busy)

    async def answer(ctx: Any) -> None:
        for count in beats:
            await ctx.tick().until(to.valid)
            first = (ctx.get(to.payload.address), ctx.get(to.payload.bytes))
            for _ in range(rng.choice([0, 1, 5])):
                await ctx.tick()
                assert ctx.get(to.valid)
                assert (ctx.get(to.payload.address), ctx.get(to.payload.bytes)) == first
            ctx.set(to.ready, 1)
            seen.append(first)
            await ctx.tick()
            ctx.set(to.ready, 0)
            for beat in range(count):
                last = beat == count - 1
                ctx.set(came.payload, {"data": beat, "last": last, "error": Error.NONE})
                ctx.set(came.valid, 1)
                await ctx.tick().until(came.ready)
                ctx.set(came.valid, 0)

    async def take(ctx: Any) -> None:
        ctx.set(reader.o.ready, 1)
        while taken[0] < sum(beats):
            await ctx.tick().until(reader.o.valid)
            taken[0] += 1

    simulator = Simulator(reader)
    simulator.add_clock(1e-6)
    for process in (ask, answer, take):
        simulator.add_testbench(process)
    simulator.run_until(1e-3)
    assert seen == asked
    assert taken[0] == sum(beats)
