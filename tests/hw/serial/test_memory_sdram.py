"""Two ports in front of the SDRAM, as the host's and the DRE's on a board: merge, controller and chip."""

import dataclasses
from random import Random
from typing import Any

import numpy as np
from amaranth import Module
from amaranth.lib.wiring import connect
from amaranth.sim import Simulator

from vrex.hw.fpga.memory import EXTRA_READ_CYCLES
from vrex.hw.lib.axi.merge import AxiMerge
from vrex.hw.lib.axi.signature import ID_BITS
from vrex.hw.lib.sdram import Sdram
from vrex.hw.serial.memory import ACCESS, MemoryPort
from vrex.model.lib.sdram import SDR_32MB
from vrex.model.serial.memory import Access, End, execute
from vrex.tb.lib.sdram_chip import Pins, SdramModel

CHIP = dataclasses.replace(SDR_32MB, init=500, refresh=2000)
"""Starts soon and is refreshed often."""

MHZ = 50.0
BUS_BYTES = 8
REGION = 1 << 12
"""Bytes of each port's own part; several rows of the chip."""

ACCESSES = 24


class Host:
    """Writes and reads at random in a part of the memory, and what the model says of each."""

    def __init__(self, number: int) -> None:
        self.port = MemoryPort(8 * BUS_BYTES, memory_bytes=CHIP.bytes)
        rng = Random(number)
        content = np.zeros(REGION, dtype=np.uint8)
        self.words: list[tuple[str, int]] = []
        self.wanted: list[tuple[End, bytes]] = []
        self.got: list[tuple[End, bytes]] = []
        places = [(rng.randrange(REGION - 64), rng.randrange(1, 50)) for _ in range(ACCESSES // 2)]
        for tag, (address, size) in enumerate(
            [(0, REGION // 2), (REGION // 2, REGION // 2), *places, *places]
        ):
            access = Access(number * REGION + address, size, int(tag < 2 + len(places)), tag)
            data = rng.randbytes(access.beats(BUS_BYTES) * BUS_BYTES * access.write)

            def view(at: int, size: int) -> np.ndarray:
                return content[at - number * REGION :][:size]

            self.wanted.append(execute(access, data, view, CHIP.bytes, BUS_BYTES))
            self.words.append(("access", int.from_bytes(access.pack(), "little")))
            beats = range(0, len(data), BUS_BYTES)
            self.words += [("data", int.from_bytes(data[i : i + BUS_BYTES], "little")) for i in beats]

    async def give(self, ctx: Any) -> None:
        """All words, in their order."""
        for name, word in self.words:
            stream = getattr(self.port, name)
            ctx.set(stream.payload, ACCESS.from_bits(word) if name == "access" else word)
            ctx.set(stream.valid, 1)
            await ctx.tick().until(stream.ready)
            ctx.set(stream.valid, 0)
        while len(self.got) < len(self.wanted):
            await ctx.tick()

    async def take(self, ctx: Any) -> None:
        """All that comes of them."""
        read, end, beats = self.port.read, self.port.end, b""
        ctx.set(read.ready, 1)
        ctx.set(end.ready, 1)
        while True:
            _, _, given, beat, ended, tag, status, count = await ctx.tick().sample(
                read.valid, read.payload, end.valid, end.payload.tag, end.payload.status, end.payload.beats
            )
            beats += beat.to_bytes(BUS_BYTES, "little") if given else b""
            if ended:
                self.got.append((End(tag, status, count), beats))
                beats = b""


def test_two_ports_and_a_chip() -> None:
    m = Module()
    cycles = CHIP.cycles(MHZ)
    hosts = [Host(0), Host(1)]
    m.submodules.merge = merge = AxiMerge(8 * BUS_BYTES, reads=2, writes=2)
    m.submodules.sdram = sdram = Sdram(
        CHIP,
        cycles,
        data_width=8 * BUS_BYTES,
        id_width=ID_BITS + 1,
        read_delay=cycles.cas + EXTRA_READ_CYCLES,
    )
    for number, host in enumerate(hosts):
        m.submodules[f"port_{number}"] = host.port
        for name in ("ar", "r"):
            connect(m, getattr(host.port.m_axi, name), getattr(merge.read_axi[number], name))
        for name in ("aw", "w", "b"):
            connect(m, getattr(host.port.m_axi, name), getattr(merge.write_axi[number], name))
    connect(m, merge.m_axi, sdram.s_axi)
    chip = SdramModel(CHIP, MHZ, Random(5))

    async def pins(ctx: Any) -> None:
        # Registers at the pins, as on a board.
        names = [field.name for field in dataclasses.fields(Pins)]
        shown, before = None, Pins(cke=0)
        while True:
            ctx.set(sdram.pins.dq_i, 0 if shown is None else shown)
            now = Pins(**{name: ctx.get(getattr(sdram.pins, name)) for name in names})
            shown, before = chip.step(before), now
            await ctx.tick()

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(pins, background=True)
    for host in hosts:
        simulator.add_testbench(host.take, background=True)
        simulator.add_testbench(host.give)
    simulator.run()
    assert chip.violations == []
    assert chip.refreshes > 8
    for host in hosts:
        assert host.got == host.wanted
