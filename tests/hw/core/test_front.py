"""The rings' numbers wrap: with fewer bits than in hardware, since 65,536 jobs take a simulator too long."""

from typing import Any

import pytest
from amaranth.sim import Simulator

from tests.hw.dre.test_formal import with_bug
from vrex.hw.core import front
from vrex.hw.lib.axi.burst import Error

BITS = 5


@pytest.mark.parametrize("size", [0, 2, BITS - 1])
def test_heads_and_tails_wrap(size: int) -> None:
    unit = with_bug(front, "NUMBER_BITS = 16", f"NUMBER_BITS = {BITS}").Front(512)
    entries, jobs = 1 << size, 3 << BITS
    addresses: list[tuple[int, int]] = []
    most = 0

    async def bench(ctx: Any) -> None:
        nonlocal most
        ctx.set(unit.job_size, size)
        ctx.set(unit.end_base, 1)
        ctx.set(unit.enable, 1)
        for stream in (unit.read, unit.write, unit.data, unit.job):
            ctx.set(stream.ready, 1)
        ctx.set(unit.beats.payload, {"data": 0, "last": 1, "error": Error.NONE})
        for stream in (unit.beats, unit.end, unit.done):
            ctx.set(stream.valid, 1)
        read = written = 0
        while written < jobs:
            # As many jobs wait as their ring holds, and now and then the host reads the ends.
            ctx.set(unit.job_tail, (written + entries) % (1 << BITS))
            if written - read == entries:
                for _ in range(20):
                    await ctx.tick()
                assert ctx.get(unit.full)
                assert ctx.get(unit.end_tail) == written % (1 << BITS)
                read = written
                ctx.set(unit.end_head, read % (1 << BITS))
            if ctx.get(unit.read.valid):
                addresses.append((ctx.get(unit.read.payload.address), 0))
            if ctx.get(unit.write.valid):
                addresses[-1] = addresses[-1][0], ctx.get(unit.write.payload.address)
            written += ctx.get(unit.ended)
            most = max(most, written - read)
            await ctx.tick()

    simulator = Simulator(unit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert most == entries
    assert addresses == [(n % entries * 64, 4096 + n % entries * 32) for n in range(jobs)]
