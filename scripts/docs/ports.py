"""Port tables of all units, from their signatures and docstrings."""

import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from amaranth.hdl import Shape, ShapeCastable
from amaranth.lib import data, enum, stream
from amaranth.lib.wiring import Component, In, Out

from scripts.docs import docstring
from vrex.hw.tools.generate import UNITS
from vrex.model.config import Config, preset

PRESET = "edge"

SHARED = {
    "device_base": "first page (4 KiB) of the device window",
    "device_pages": "pages of the device window",
    "host_base": "first page of the host window",
    "host_pages": "pages of the host window",
    "timeout": "cycles without an answer of the memory that end a request; 0: never",
    "*_bursts": "a burst is issued in this cycle; for a counter",
    "*_beats": "a beat moves in this cycle; for a counter",
}
"""Ports that several units have, whose docstrings leave them to `vrex.hw.lib.axi`."""

AXI = re.compile(r"(\w+_axi(?:\[[\d.]+\])?)[_.]+(ar|aw|r|w|b)[_.]*(\w+)")
"""A signal of an AXI4 port: the port, the channel and its standard name."""

HEAD = f"""# Ports of every unit

Generated from the units' signatures while this site is built, in preset `{PRESET}`: the widths follow the
configuration. `vrex generate --unit UNIT` writes the Verilog, top module `vrex_UNIT`, with clock `clk` and
synchronous reset `rst`.

A port of kind *stream* is three signals in Verilog: `NAME__payload`, `NAME__valid` and `NAME__ready`. The
payload's bits are those of the column; where it is a structure its fields follow, lowest bits first. A
channel of an AXI4 port is a row, with the bits of each of its signals. *In* and *out* are seen from the unit.
[Handshakes](handshakes.md) shows both in waveforms, and [The hardware](hardware.md) says what order and
latency they have.
"""


def page() -> str:
    """The page, as Markdown."""
    config = preset(PRESET)
    parts = [HEAD]
    for name, make in UNITS.items():
        parts.append(unit_section(name, make(config), config))
    return "\n".join(parts)


def unit_section(name: str, unit: Component, config: Config) -> str:
    """Heading, summary and port table of one unit."""
    owner = type(unit)
    source = Path(*owner.__module__.split(".")[1:]).with_suffix(".py")
    described: dict[str, str] = {}
    # Ports that a base class declares are described there.
    for parent in reversed(owner.__mro__):
        described |= docstring.items(parent, "Members", "Ports", "Attributes")
    lines = [f"## {name}", "", docstring.summary(owner), ""]
    lines += [f"`{owner.__module__}.{owner.__name__}`, in `{source}`.", ""]
    lines += ["| port | kind | bits | content |", "|---|---|---:|---|"]
    lines += [
        f"| {', '.join(names)} | {kind} | {bits} | {content} |"
        for names, kind, bits, content in rows(unit, described)
    ]
    return "\n".join(lines) + "\n"


def rows(unit: Component, described: dict[str, str]) -> list[tuple[list[str], str, int, str]]:
    """Names, kind, bits and content; ports that the docstring describes together share a row."""
    made: list[tuple[list[str], str, int, str]] = []
    channels: dict[tuple[str, str], list[str]] = {}
    directions: dict[tuple[str, str], str] = {}
    for path, kind, shape in members(unit.signature.members):
        if signal := AXI.fullmatch(path):
            width, name = Shape.cast(shape).width, signal[3]
            channels.setdefault((signal[1], signal[2]), []).append(name + (f" {width}" if width > 1 else ""))
            if name == "valid":
                directions[signal[1], signal[2]] = kind
            continue
        text = describe(path, described)
        row = kind, Shape.cast(shape).width, cell(text, layout(shape))
        if text and made and made[-1][1:] == row:
            made[-1][0].append(f"`{path}`")
        else:
            made.append(([f"`{path}`"], *row))
    # AXI4-Lite has no bursts.
    full = {port for (port, _), signals in channels.items() if any(name[:3] == "len" for name in signals)}
    for (port, channel), signals in channels.items():
        bits = sum(int(signal.partition(" ")[2] or 1) for signal in signals)
        kind = f"{directions[port, channel]}, {'AXI4' if port in full else 'AXI4-Lite'}"
        made.append(([f"`{port}`, {channel.upper()}"], kind, bits, ", ".join(signals)))
    return made


def members(tree: Any, prefix: str = "") -> Iterator[tuple[str, str, Any]]:
    """Ports of a signature's members, streams in one: path, kind and shape of the bits that carry data."""
    for name, member in tree.items():
        path = prefix + name + "".join(f"[0..{count - 1}]" for count in member.dimensions)
        word = {In: "in", Out: "out"}[member.flow]
        if member.is_port:
            yield path, word, member.shape
        elif isinstance(member.signature, stream.Signature):
            yield path, f"{word}, stream", member.signature.members["payload"].shape
        else:
            # Amaranth flips the signature of a member that flows in.
            yield from members(member.signature.members, f"{path}.")


def describe(path: str, described: dict[str, str]) -> str:
    """What is said of a port: for all units alike, or in its own docstring, by name or by a pattern."""
    member, name = path.partition("[")[0].partition(".")[0], path.split(".")[-1]
    for wanted, texts in ((name, SHARED), (member, described)):
        for key, text in texts.items():
            if key == wanted or ("*" in key and fnmatch(wanted, key)):
                return text
    return ""


def layout(shape: Any) -> str:
    """The fields of a structure with their bits, or the values of an enumeration."""
    if isinstance(shape, data.StructLayout):
        spans = []
        for name, field in shape:
            last = field.offset + field.width - 1
            span = str(last) if field.width == 1 else f"{field.offset}..{last}"
            if field.width and not str(name).startswith("_"):
                spans.append(f"`{name}` {span}")
        return ", ".join(spans)
    if isinstance(shape, type) and issubclass(shape, enum.Enum) and isinstance(shape, ShapeCastable):
        return ", ".join(f"{value.value} `{value.name}`" for value in shape)
    return ""


def cell(text: str, fields: str) -> str:
    """Both in one cell of a table."""
    text = text.replace("|", "\\|").strip().rstrip(".")
    return "; ".join(part for part in (text, fields) if part)
