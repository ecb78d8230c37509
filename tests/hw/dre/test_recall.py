"""Parts of the unit `recall` by value against the model; its streams are in the testbench."""

from random import Random
from typing import Any

import numpy as np
import pytest
from amaranth.sim import Simulator

from vrex.hw.dre.recall.aligner import Aligner
from vrex.hw.dre.recall.records import Pack, Unpack
from vrex.model.config import KvmuConfig, MeanConfig
from vrex.model.dre import packed
from vrex.model.lib import arith

SEED = 3


def stream(unit: Any, sent: list[int], wanted: int, seed: int) -> list[int]:
    """What a component with streams `i` and `o` gives for beats, both sides stalling at random."""
    got: list[int] = []
    random = Random(seed)

    async def feed(ctx: Any) -> None:
        for beat in sent:
            while random.random() < 0.3:
                await ctx.tick()
            ctx.set(unit.i.payload, beat)
            ctx.set(unit.i.valid, 1)
            await ctx.tick().until(unit.i.ready)
            ctx.set(unit.i.valid, 0)

    async def take(ctx: Any) -> None:
        while len(got) < wanted:
            ctx.set(unit.o.ready, random.random() < 0.7)
            _, _, valid, ready, beat = await ctx.tick().sample(unit.o.valid, unit.o.ready, unit.o.payload)
            if valid and ready:
                got.append(beat)
        ctx.set(unit.o.ready, 0)
        await ctx.tick().repeat(4)
        assert not ctx.get(unit.busy)

    simulator = Simulator(unit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(feed)
    simulator.add_testbench(take)
    simulator.run()
    return got


def beats(raw: bytes, size: int) -> list[int]:
    return [int.from_bytes(raw[at : at + size], "little") for at in range(0, len(raw), size)]


SHAPES = [(16, 64, 1), (16, 256, 2), (32, 512, 2), (32, 64, 4), (64, 128, 1), (128, 256, 2)]
"""head_dim, bits of a beat, lanes of the quantiser."""


def drawn(dim: int, tokens: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """K and V, some groups of them zero or with a NaN, and their records in whole beats."""
    rng = np.random.default_rng([SEED, dim])
    kv = arith.to_bf16((3 * rng.standard_normal((tokens, 2, dim))).astype(np.float32))
    kv[1, 0, :] = 0
    kv[2, 1, 3] = arith.NAN
    return kv, packed.pack(kv)


def filled(records: np.ndarray, size: int) -> bytes:
    return np.pad(records, ((0, 0), (0, -records.shape[1] % size))).tobytes()


@pytest.mark.parametrize(("dim", "bus", "lanes"), SHAPES)
def test_records_are_the_models(dim: int, bus: int, lanes: int) -> None:
    kv, records = drawn(dim)
    size = bus // 8
    want = beats(filled(records, size), size)
    unit = Pack(KvmuConfig(head_dim=dim), mean=MeanConfig(lanes=lanes), bus_bits=bus)
    assert stream(unit, beats(kv.tobytes(), size), len(want), SEED) == want


@pytest.mark.parametrize(("dim", "bus", "lanes"), SHAPES)
def test_records_become_keys_and_values_again(dim: int, bus: int, lanes: int) -> None:
    _, records = drawn(dim)
    size = bus // 8
    want = beats(packed.unpack(records, 2, dim).astype("<u2").tobytes(), size)
    unit = Unpack(KvmuConfig(head_dim=dim), bus_bits=bus)
    assert stream(unit, beats(filled(records, size), size), len(want), SEED) == want


def test_a_cleared_unpacker_begins_a_record() -> None:
    kv, records = drawn(32, tokens=3)
    del kv
    size, dim = 8, 32
    unit = Unpack(KvmuConfig(head_dim=dim), bus_bits=8 * size)
    sent = beats(filled(records, size), size)
    each = len(sent) // 3
    want = beats(packed.unpack(records[:1], 2, dim).astype("<u2").tobytes(), size)

    async def run(ctx: Any) -> None:
        for count in (2, each):
            for beat in sent[:count]:
                ctx.set(unit.i.payload, beat)
                ctx.set(unit.i.valid, 1)
                await ctx.tick().until(unit.i.ready)
            ctx.set(unit.i.valid, 0)
            if count == 2:
                ctx.set(unit.clear, 1)
                await ctx.tick()
                ctx.set(unit.clear, 0)
        ctx.set(unit.o.ready, 1)
        for beat in want:
            (got,) = await ctx.tick().sample(unit.o.payload).until(unit.o.valid)
            assert got == beat

    simulator = Simulator(unit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(run)
    simulator.run()


@pytest.mark.parametrize("step", [1, 2])
def test_every_shift_of_short_packets(step: int) -> None:
    """Packets of one to four beats, moved up by every shift that a beat allows."""
    size, rng = 8, np.random.default_rng(SEED)
    packets = []
    for shift in range(size // step):
        for length in range(1, 3 * size + 1, 3):
            raw = rng.bytes(length)
            packets.append((shift, raw))
    unit = Aligner(8 * size, step=step)
    want: list[int] = []
    got: list[int] = []
    commands = []
    for shift, raw in packets:
        moved = bytes(shift * step) + raw
        expected = beats(moved + bytes(-len(moved) % size), size)
        sent = beats(raw + bytes(-len(raw) % size), size)
        commands.append((shift, sent, len(expected)))
        want += expected

    async def run(ctx: Any) -> None:
        ctx.set(unit.o.ready, 1)
        for shift, sent, give in commands:
            ctx.set(unit.cmd.payload, {"take": len(sent), "give": give, "shift": shift})
            ctx.set(unit.cmd.valid, 1)
            await ctx.tick().until(unit.cmd.ready)
            ctx.set(unit.cmd.valid, 0)
            for beat in sent:
                ctx.set(unit.i.payload, beat)
                ctx.set(unit.i.valid, 1)
                await ctx.tick().until(unit.i.ready)
            ctx.set(unit.i.valid, 0)
            while ctx.get(unit.busy):
                await ctx.tick()

    async def take(ctx: Any) -> None:
        while len(got) < len(want):
            (beat,) = await ctx.tick().sample(unit.o.payload).until(unit.o.valid & unit.o.ready)
            got.append(beat)

    simulator = Simulator(unit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(run)
    simulator.add_testbench(take)
    simulator.run()
    assert got == want
