"""Figures of units, gathered and shown."""

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vrex.hw.tools.synth import cells, ecp5, tools
from vrex.hw.tools.synth.mapping import CellLibrary, flags
from vrex.hw.tools.synth.shares import DRE, TABLE_III
from vrex.model.config import Config

PARTS = 3
"""Steps of a unit without ECP5: RTL, gates, timing."""


def steps(units: int, seeds: int | None) -> int:
    """Steps that `synthesise` reports for so many units."""
    return units * (PARTS + (0 if seeds is None else 1 + seeds))


def synthesise(
    units: Sequence[str],
    config: Config,
    library: CellLibrary | None,
    seeds: int | None,
    progress: tools.Progress,
) -> dict[str, Any]:
    """Measures units one after the other.

    Args:
        units: names of `vrex.hw.tools.generate.UNITS`.
        config: accelerator.
        library: standard cells, None for generic gates.
        seeds: placements on an ECP5, None for none of it.
        progress: told of what begins, `steps(len(units), seeds)` times, and how a part goes on.

    Returns:
        preset, library, versions, flags, and by unit cells, area or transistors, ff, memories,
        critical_path_ns and, if asked for, ecp5.

    Raises:
        UserError: a tool is missing or failed.
    """
    packages = ["amaranth", tools.YOSYS]
    told = flags(library)
    if seeds is not None:
        tools.need(tools.NEXTPNR)
        packages.append(tools.NEXTPNR)
        told |= ecp5.flags(seeds)
    return {
        "preset": config.name,
        "library": library and library.library.name,
        "versions": tools.versions("vrex", *packages),
        "flags": told,
        "units": {unit: _measure(unit, config, library, seeds, progress) for unit in units},
    }


def _measure(
    unit: str,
    config: Config,
    library: CellLibrary | None,
    seeds: int | None,
    progress: tools.Progress,
) -> dict[str, Any]:
    from vrex.hw.tools.generate import netlist, verilog

    def named(part: str, detail: str = "") -> None:
        progress(f"{unit}: {part}", detail)

    named("RTL")
    top = f"vrex_{unit}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures, ports = cells.measure(top, netlist(unit, config), folder, library, named)
        if seeds is not None:
            (folder / "unit.v").write_text(verilog(unit, config), encoding="utf-8")
            figures["ecp5"] = ecp5.measure(top, ports, folder, seeds, named)
    return figures


def table(result: dict[str, Any]) -> str:
    """The figures as aligned lines, one a unit, and the memories below them."""
    gates = result["library"] is None
    units = result["units"]
    on_ecp5 = all("ecp5" in figures for figures in units.values())
    head = ["unit", "cells", "transistors" if gates else "area", "FF", "macro bits"]
    head += [] if gates else ["path ns"]
    head += ["LUT4", "CCU2C", "DPR16X4", "FF", "DP16KD", "MULT18", "Fmax MHz min/med/max"] if on_ecp5 else []
    rows = [head]
    for unit, figures in units.items():
        macros = sum(memory["bits"] for memory in figures["memories"] if memory["kind"] == "macro")
        area = figures["transistors"] if gates else round(figures["area"])
        row = [unit, *(f"{value:,}" for value in (figures["cells"], area, figures["ff"], macros))]
        row += [] if gates else [_path(figures["critical_path_ns"])]
        row += _ecp5(figures["ecp5"]) if on_ecp5 else []
        rows.append(row)
    split = [line for figures in units.values() for line in _split(figures)]
    return "\n".join([*_aligned(rows), *split, "", *_memories(units)])


def _split(figures: dict[str, Any]) -> list[str]:
    """Gates and memory by unit, and the shares of a core beside the paper's."""
    if "by_unit" not in figures:
        return []
    rows = [["part", "gates", "macro bits"]]
    rows += [
        [unit, f"{part['gates']:,}", f"{part['macro_bits']:,}"] for unit, part in figures["by_unit"].items()
    ]
    lines = ["", *_aligned(rows)]
    if "share" not in figures:
        return lines
    paper = TABLE_III | {"dre_share": sum(TABLE_III[unit] for unit in DRE if unit in TABLE_III)}
    whole = {name: figures[name] for name in ("dre_share", "dre_share_with_memories")}
    rows = [["share of area", "middle", "min", "max", "paper"]]
    for name, values in (figures["share"] | whole).items():
        row = [f"{100 * values[key]:.2f} %" for key in ("middle", "min", "max")]
        rows.append([name, *row, f"{100 * paper[name]:.2f} %" if name in paper else "-"])
    return [*lines, "", *_aligned(rows)]


def _path(ns: float | None) -> str:
    return "-" if ns is None else f"{ns:.2f}"


def _ecp5(figures: dict[str, Any]) -> list[str]:
    keys = ("lut4", "ccu2c", "dpr16x4", "ff", "dp16kd", "mult18x18d")
    fmax = figures["fmax_mhz"]
    clocks = "/".join(f"{fmax[key]:.1f}" for key in ("min", "median", "max"))
    return [*(f"{figures[key]:,}" for key in keys), clocks]


def _memories(units: dict[str, Any]) -> list[str]:
    """One line for memories of one size and use; of several, the first one's name."""
    rows = [["memory", "number", "depth x width", "bits", "as"]]
    for unit, figures in units.items():
        alike: dict[tuple[Any, ...], list[str]] = {}
        for memory in figures["memories"]:
            # Of numbered instances, such as lanes, one line too.
            place = re.sub(r"_\d+\b", "", memory["name"].rpartition(".")[0])
            alike.setdefault((place, memory["depth"], memory["width"], memory["kind"]), []).append(
                memory["name"]
            )
        for (_, depth, width, kind), names in alike.items():
            bits = depth * width * len(names)
            rows.append([f"{unit}.{names[0]}", str(len(names)), f"{depth} x {width}", f"{bits:,}", kind])
    return _aligned(rows)


def _aligned(rows: list[list[str]]) -> list[str]:
    """Rows as lines: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows
    ]
