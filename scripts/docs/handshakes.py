"""The waveforms of the page on handshakes, each taken from a simulation of a unit in Amaranth's simulator."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from amaranth.hdl import Value
from amaranth.lib.wiring import Component
from amaranth.sim import Simulator

from scripts.docs.waveform import Channel, Row
from vrex.hw.tools.generate import UNITS
from vrex.model.config import Config, HcuConfig
from vrex.model.lib.memory import PAGE

CONFIG = Config(bus_bits=64, hcu=HcuConfig(lanes=4, hash_bits=32, chunk_tokens=16, tile_clusters=64))
AXI = re.compile(r"m_axi_+(ar|r)_*(\w+)")

Testbench = Callable[[Any], Any]
Samples = dict[str, list[int]]
Parts = list[Row | Channel]


def record(design: Component, signals: dict[str, Any], cycles: int, *benches: Testbench) -> Samples:
    """Simulates the design and samples signals before each rising edge, as its registers do."""
    values: Samples = {name: [] for name in signals}

    async def sample(ctx: Any) -> None:
        for _ in range(cycles):
            _, _, *now = await ctx.tick().sample(*map(Value.cast, signals.values()))
            for name, value in zip(signals, now, strict=True):
                values[name].append(value)

    simulator = Simulator(design)
    simulator.add_clock(1e-8)
    for bench in (*benches, sample):
        simulator.add_testbench(bench)
    # Until every bench has ended, which may be later than what is shown.
    simulator.run()
    return values


def send(port: Any, items: Sequence[Any], gap: int = -1, idle: int = 0) -> Testbench:
    """Sends words into a stream; before the one of index `gap` the source has nothing for `idle` cycles."""

    async def bench(ctx: Any) -> None:
        for index, item in enumerate(items):
            if index == gap:
                await ctx.tick().repeat(idle)
            ctx.set(port.payload, item)
            ctx.set(port.valid, 1)
            await ctx.tick().until(port.ready)
            ctx.set(port.valid, 0)

    return bench


def take(port: Any, pattern: Sequence[int] = ()) -> Testbench:
    """Takes words of a stream: ready follows the pattern from the first valid word on, then stays high."""

    async def bench(ctx: Any) -> None:
        if pattern:
            await ctx.tick().until(port.valid)
        for value in pattern:
            ctx.set(port.ready, value)
            await ctx.tick()
        ctx.set(port.ready, 1)

    return bench


def _wires(name: str, port: Any) -> dict[str, Any]:
    return {f"{name}.valid": port.valid, f"{name}.ready": port.ready, f"{name}.payload": port.payload}


def _channel(samples: Samples, name: str, text: Callable[[int], str]) -> Channel:
    valid, ready, payload = (f"{name}.{part}" for part in ("valid", "ready", "payload"))
    words = Row(payload, samples[payload], text, samples[valid])
    return Channel(Row(valid, samples[valid]), Row(ready, samples[ready]), [words])


def _hashes(*values: int) -> list[int]:
    """Hashes of 32 bits as beats of 64."""
    padded = [*values, 0][: len(values) + len(values) % 2]
    return [low | high << 32 for low, high in zip(padded[::2], padded[1::2], strict=True)]


def _name_beats(*named: tuple[str, int]) -> Callable[[int], str]:
    names = {value: name for name, value in named}
    return lambda value: names[value]


def stream() -> Parts:
    """`din` of an HCU: the source pauses, then the unit lets it wait."""
    hcu: Any = UNITS["hcu"](CONFIG)
    beats = _hashes(*range(0x100, 0x120))
    command = {"tokens": 16, "clusters": 16, "th_hd": 5}
    benches = send(hcu.cmd, [command]), send(hcu.din, beats, gap=3, idle=2), take(hcu.dout), take(hcu.done)
    samples = record(hcu, _wires("din", hcu.din), 24, *benches)
    names = _name_beats(*((f"b{index}", beat) for index, beat in enumerate(beats)))
    return [_channel(samples, "din", names)]


def command() -> Parts:
    """A command of the HCU: two tokens against one cluster, decisions that are stalled, the completion."""
    hcu: Any = UNITS["hcu"](CONFIG)
    beats = [*_hashes(0x0F0F, 0xFFFF_0000), *_hashes(0x0F0E)]
    command = {"tokens": 2, "clusters": 1, "th_hd": 5}
    benches = send(hcu.cmd, [command]), send(hcu.din, beats), take(hcu.dout, (0, 0, 1)), take(hcu.done)
    wires = {"busy": hcu.busy}
    for port in ("cmd", "din", "dout", "done"):
        wires |= _wires(port, getattr(hcu, port))
    samples = record(hcu, wires, 28, *benches)

    def decision(word: int) -> str:
        return f"{word & 0xFFFF} new" if word >> 24 & 1 else str(word & 0xFFFF)

    return [
        _channel(samples, "cmd", lambda _: "cmd"),
        _channel(samples, "din", _name_beats(("tokens", beats[0]), ("table", beats[1]))),
        _channel(samples, "dout", decision),
        _channel(samples, "done", lambda word: f"{word & 0x1FF} new"),
        Row("busy", samples["busy"]),
    ]


def read_burst() -> Parts:
    """A request of 24 bytes at a reader: its burst on AR, the memory's beats on R, the client's beats."""
    axi: Any = UNITS["axi"](CONFIG)
    port = {}
    for path, _, value in axi.signature.flatten(axi):
        if signal := AXI.fullmatch("_".join(map(str, path))):
            port[f"{signal[1]}.{signal[2]}"] = value
    read, beats = axi.read[0], axi.beats[0]
    data = (0xA0, 0xA1, 0xA2)

    async def limits(ctx: Any) -> None:
        ctx.set(axi.windows.device_base, 1)
        ctx.set(axi.windows.device_pages, 4)

    async def memory(ctx: Any) -> None:
        ctx.set(port["ar.ready"], 1)
        await ctx.tick().until(port["ar.valid"])
        ctx.set(port["ar.ready"], 0)
        await ctx.tick().repeat(4)
        for index, value in enumerate(data):
            ctx.set(port["r.data"], value)
            ctx.set(port["r.last"], index == len(data) - 1)
            ctx.set(port["r.valid"], 1)
            await ctx.tick().until(port["r.ready"])
            ctx.set(port["r.valid"], 0)
            if index == 0:
                await ctx.tick()
        ctx.set(port["r.last"], 0)

    benches = limits, send(read, [{"address": PAGE + 0x40, "bytes": 8 * len(data)}]), memory, take(beats)
    wires = {name: wire for name, wire in port.items() if name.split(".")[1] in SHOWN}
    samples = record(axi, _wires("read[0]", read) | _wires("beats[0]", beats) | wires, 22, *benches)
    return [
        _channel(samples, "read[0]", lambda _: "24 B"),
        Channel(
            Row("arvalid", samples["ar.valid"]),
            Row("arready", samples["ar.ready"]),
            [
                Row("araddr", samples["ar.addr"], lambda value: f"{value:#x}", samples["ar.valid"]),
                Row("arlen", samples["ar.len"], str, samples["ar.valid"]),
            ],
        ),
        Channel(
            Row("rvalid", samples["r.valid"]),
            Row("rready", samples["r.ready"]),
            [
                Row("rdata", samples["r.data"], lambda value: f"{value:x}", samples["r.valid"]),
                Row("rlast", samples["r.last"]),
            ],
        ),
        _channel(samples, "beats[0]", lambda word: f"{word & 0xFF:x}"),
    ]


SHOWN = ("valid", "ready", "addr", "len", "data", "last")
"""Signals of the AXI4 port that the waveform shows."""

WAVEFORMS: dict[str, Callable[[], Parts]] = {"stream": stream, "command": command, "read-burst": read_burst}
"""Their parts, by the name that a page asks for."""
