"""A unit in standard cells, or in generic gates when there is no library of cells."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vrex.files import cache_folder
from vrex.hw.tools.synth import shares, tools
from vrex.hw.tools.synth.liberty import Library
from vrex.hw.tools.synth.mapping import CellLibrary, MappedModule, Mapper
from vrex.hw.tools.synth.timing import slowest_path

TIMED_CELLS = 600_000
"""Cells up to which timing is analysed: of more, the flat netlist does not fit into memory."""

SPLIT = {"vrex_core": "", "vrex_dre": "dre."}
"""Modules whose area is given by unit, and their path in a core."""

TRANSISTORS_A_GATE = 4
"""Of a two-input NAND."""

Modules = dict[str, MappedModule]


def measure(
    top: str, design: str, folder: Path, library: CellLibrary | None, progress: tools.Progress
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Cells, area and the slowest path of a unit.

    Args:
        top: its module.
        design: RTLIL (`vrex.hw.tools.generate.netlist`).
        folder: for the tools' files.
        library: None for generic gates.
        progress: told of the two parts, and which modules are mapped.

    Returns:
        The figures, and the unit's ports as Yosys lists them. Figures of a unit of more than `TIMED_CELLS`
        cells have no critical path.

    Raises:
        UserError: a tool failed, or the cache can't be written.
    """
    progress("gates")
    mapper = Mapper(library, cache_folder())
    modules = mapper.map(design, top, folder, lambda detail: progress("gates", detail))
    figures: dict[str, Any] = {"memories": _memories(modules, top)}
    figures |= _figures(top, modules, library)
    progress("timing")
    if library is not None and figures["cells"] <= TIMED_CELLS:
        figures |= _timing(flat(mapper, library, design, top, folder), library.library)
    else:
        figures |= _no_path()
    if top in SPLIT:
        figures |= _by_unit(top, modules, figures, library)
    return figures, modules[top].ports


def _figures(top: str, modules: Modules, library: CellLibrary | None) -> dict[str, Any]:
    """Cells of all instances and of each module."""
    size = "transistors" if library is None else "area"
    rows: list[dict[str, Any]] = [
        {
            "module": name,
            "instances": times,
            "cells": sum(modules[name].cells.values()),
            size: _size(modules[name], library),
        }
        for name, times in _instances(modules, top).items()
    ]
    counts: Counter[str] = Counter()
    for row in rows:
        for kind, count in modules[row["module"]].cells.items():
            counts[kind] += row["instances"] * count
    figures = {"cells": counts.total(), size: sum(row["instances"] * row[size] for row in rows)}
    if library is None:
        registers = sum(count for kind, count in counts.items() if kind.startswith("$_DFF"))
        return {**figures, "area": None, "ff": registers, "modules": rows}
    cells = library.library.cells
    return {
        **figures,
        "ff": sum(count for kind, count in counts.items() if cells[kind].sequential),
        "modules": rows,
        "cell_types": dict(sorted(counts.items())),
    }


def _size(module: MappedModule, library: CellLibrary | None) -> float:
    """Area or transistors of a module without those below it."""
    if library is None:
        return module.transistors or 0
    return sum(count * library.library.cells[kind].area for kind, count in module.cells.items())


def _by_unit(
    top: str, modules: Modules, figures: dict[str, Any], library: CellLibrary | None
) -> dict[str, Any]:
    """Gate equivalents and bits by unit, of a core their shares, and `modules` with gates by unit.

    Nothing if no cell is a NAND gate.
    """
    gate = TRANSISTORS_A_GATE if library is None else shares.gate_area(library.library)
    if gate is None:
        return {}
    children = {name: module.children for name, module in modules.items()}
    own = {name: _size(module, library) / gate for name, module in modules.items()}
    areas = shares.areas(top, children, own, SPLIT[top])
    gates = {unit: sum(inside.values()) for unit, inside in areas.items()}
    macro_bits = shares.bits(figures["memories"], SPLIT[top])
    return {
        "by_unit": {
            unit: {"gates": round(gates.get(unit, 0.0)), "macro_bits": macro_bits.get(unit, 0)}
            for unit in sorted({*gates, *macro_bits})
        },
        "modules": [
            row
            | {
                "gates": {
                    unit: round(inside[row["module"]], 1)
                    for unit, inside in areas.items()
                    if row["module"] in inside
                }
            }
            for row in figures["modules"]
        ],
        **(shares.shares(gates, macro_bits) if top == "vrex_core" else {}),
    }


def _memories(modules: Modules, top: str) -> list[dict[str, Any]]:
    """The memories of all instances below `top`, in the order of their names."""
    found = [
        {
            "name": path + memory["cell"],
            "depth": memory["depth"],
            "width": memory["width"],
            "bits": memory["depth"] * memory["width"],
            "kind": memory["kind"],
        }
        for path, name in _below(modules, top, "")
        for memory in modules[name].memories
    ]
    return sorted(found, key=lambda memory: str(memory["name"]))


def _below(modules: Modules, name: str, path: str) -> Iterator[tuple[str, str]]:
    """Path and module of all instances."""
    yield path, name
    for instance, kind in modules[name].children.items():
        yield from _below(modules, kind, f"{path}{instance}.")


def _instances(modules: Modules, top: str) -> Counter[str]:
    """How often each module with anything in it occurs below `top`, itself included."""
    found = Counter(name for _, name in _below(modules, top, ""))
    full = {name for name, module in modules.items() if module.cells or module.memories or module.children}
    return Counter({name: times for name, times in found.items() if name in full})


def total(modules: Modules, top: str) -> int:
    """Cells of all instances below `top`, without memories."""
    return sum(times * sum(modules[name].cells.values()) for name, times in _instances(modules, top).items())


def flat(mapper: Mapper, library: CellLibrary, design: str, top: str, folder: Path) -> dict[str, Any]:
    """A unit that was mapped, as one module of Yosys's JSON: cells of the library, and memories (`$mem_v2`).

    Args:
        mapper: that mapped it.
        library: its cells.
        design: RTLIL of the unit.
        top: its module.
        folder: for the tools' files.

    Raises:
        UserError: a tool failed, or the cache no longer has a module.
    """
    _write_netlist(mapper, design, top, folder / "netlist.json")
    shutil.copyfile(library.path, folder / "cells.lib")
    script = f"read_liberty -lib cells.lib\nread_json netlist.json\nhierarchy -top {top}\n"
    tools.yosys(f"{script}check -assert\nflatten -noscopeinfo\nwrite_json flat.json\n", folder)
    module: dict[str, Any] = json.loads((folder / "flat.json").read_text())["modules"][top]
    return module


def _write_netlist(mapper: Mapper, design: str, top: str, path: Path) -> None:
    """All modules as one file of Yosys's JSON, never in memory as a whole."""
    with path.open("w", encoding="utf-8") as file:
        file.write('{"modules": {')
        for number, (name, text) in enumerate(mapper.netlist(design, top)):
            file.write(f"{', ' if number else ''}{json.dumps(name)}: {text}")
        file.write("}}")


def _no_path() -> dict[str, None]:
    return {"critical_path_ns": None, "critical_path": None}


def _timing(module: dict[str, Any], library: Library) -> dict[str, Any]:
    path = slowest_path(module, library)
    if path is None:
        return _no_path()
    return {
        "critical_path_ns": round(path.ns, 3),
        "critical_path": {
            "from": path.start,
            "to": path.end,
            "steps": [{"cell": cell, "net": net, "ns": round(ns, 3)} for cell, net, ns in path.steps],
        },
    }
