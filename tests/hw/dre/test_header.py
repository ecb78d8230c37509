"""The header of a command's table against the model's bytes, and what is wrong with it."""

import dataclasses
import random
from typing import Any

import pytest
from amaranth.sim import Simulator

from vrex.hw.dre.kvmu.header import TableHeader
from vrex.hw.dre.kvmu.table import HEADER_BYTES
from vrex.hw.lib.axi.burst import Error
from vrex.model.commands import Status
from vrex.model.dre.kvstore import CLOSED, POISONED, Header

FIELDS = ("clusters", "flags", "heads", "cap_clusters", "counts_page", "host_stride")
NAMES = tuple(field.name for field in dataclasses.fields(Header))
PLAIN = Header(**{name: 1000 + i for i, name in enumerate(NAMES)} | {"flags": 0, "heads": 2})


def status_of_command(
    header: Header, kv_heads: int, error: Any = Error.NONE, *, bus_bits: int = 64, most: int | None = None
) -> Status:
    """Sends a header, checks the fields at their cycle, and returns the status at its own."""
    unit, found = TableHeader(bus_bits, FIELDS, all_heads_up_to=most), []
    packed, size = header.pack()[:HEADER_BYTES], bus_bits // 8

    async def send(ctx: Any) -> None:
        ctx.set(unit.kv_heads, kv_heads)
        for at in range(0, HEADER_BYTES, size):
            ctx.set(unit.i.payload, int.from_bytes(packed[at : at + size], "little"))
            ctx.set(unit.i.valid, 1)
            await ctx.tick()
            ctx.set(unit.i.valid, 0)
            ctx.set(unit.i.payload, 0)
            if at + size < HEADER_BYTES:
                await ctx.tick().repeat(random.choice((1, 3)))
        ctx.set(unit.error, error)
        assert {name: ctx.get(unit.header[name]) for name in FIELDS} == {
            name: getattr(header, name) for name in FIELDS
        }
        await ctx.tick().repeat(2)
        found.append(ctx.get(unit.status))
        await ctx.tick().repeat(5)
        assert ctx.get(unit.status) == found[0]

    simulator = Simulator(unit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(send)
    simulator.run()
    return Status(found[0])


@pytest.mark.parametrize("bus_bits", [64, 128, 256, 512])
def test_fields_arrive_on_every_bus(bus_bits: int) -> None:
    assert status_of_command(PLAIN, 0b11, bus_bits=bus_bits) == Status.OK


@pytest.mark.parametrize("heads", [1, 2, 31, 32, 33, 64, 65_535])
def test_some_heads_of_the_table(heads: int) -> None:
    header = dataclasses.replace(PLAIN, heads=heads)
    for kv_heads in (1, 2, 1 << 30, 1 << 31, (1 << min(heads, 32)) - 1):
        good = kv_heads >> heads == 0
        assert status_of_command(header, kv_heads) == (Status.OK if good else Status.BAD_COUNT)


@pytest.mark.parametrize("heads", [0, 1, 2, 3, 4, 18])
def test_all_heads_of_the_table(heads: int) -> None:
    header = dataclasses.replace(PLAIN, heads=heads)
    for kv_heads in (1, 0b11, 0b10, 0b111, 0b1111):
        good = kv_heads == (1 << heads) - 1 and heads <= 3
        assert status_of_command(header, kv_heads, most=3) == (Status.OK if good else Status.BAD_COUNT)


@pytest.mark.parametrize("most", [None, 2])
def test_the_first_of_several_errors_is_named(most: int | None) -> None:
    poisoned = dataclasses.replace(PLAIN, flags=POISONED | CLOSED)
    assert status_of_command(dataclasses.replace(PLAIN, flags=CLOSED), 0b11, most=most) == Status.OK
    assert status_of_command(poisoned, 0b100, most=most) == Status.POISONED
    for error, status in (
        (Error.RESPONSE, Status.BUS_ERROR),
        (Error.TIMEOUT, Status.TIMEOUT),
        (Error.OUTSIDE, Status.BAD_ADDRESS),
    ):
        assert status_of_command(poisoned, 0b100, error, most=most) == status
