"""A unit in standard cells, or in generic gates when there is no library of cells."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vrex.hw.tools.synth import shares, tools
from vrex.hw.tools.synth.buffers import insert_buffers
from vrex.hw.tools.synth.liberty import Library, load
from vrex.hw.tools.synth.memories import MEMORY, Memory, find
from vrex.hw.tools.synth.timing import slowest_path

COARSE = "synth -run begin:fine -top {top}; memory_collect; opt_clean"
FINE = "opt -full; techmap; opt -fast"
GATES = "dfflegalize -cell $_DFF_P_ 01; abc -g cmos; opt_clean"
MAP = "dfflibmap -liberty cells.lib; abc -liberty cells.lib -script map.abc; opt_clean -purge"
ABC = ["strash", "&get -n", "&dch -f", "&nf", "&put", "buffer -c -N 16", "topo", "upsize", "dnsize"]
"""The mapper's script: structural choices, mapping, then buffers and sizes for what the gates drive."""

TIMED_CELLS = 2_000_000
"""Cells up to which timing is analysed: of more, the flat netlist does not fit into memory."""

SPLIT = {"vrex_core": "", "vrex_dre": "dre."}
"""Modules whose area is given by unit, and their path in a core."""

TRANSISTORS_A_GATE = 4
"""Of a two-input NAND."""

Step = Callable[[str], None]


@dataclass(frozen=True)
class CellLibrary:
    """A Liberty file and what it says."""

    path: Path
    library: Library

    @classmethod
    def load(cls, path: Path) -> "CellLibrary":
        """Reads it.

        Raises:
            UserError: it cannot be read, or is no usable Liberty file.
        """
        return cls(path, load(path))


def flags(library: CellLibrary | None) -> dict[str, str]:
    """What Yosys and its mapper are told."""
    coarse = f"{COARSE.format(top='TOP')}; memory_map of registers and logic; {FINE}"
    if library is None:
        return {"yosys": f"{coarse}; {GATES}"}
    return {"yosys": f"{coarse}; {MAP}", "abc": "; ".join(ABC)}


def measure(
    top: str, folder: Path, library: CellLibrary | None, step: Step
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Cells, area and the slowest path of a unit.

    Args:
        top: its module; `folder` holds its Verilog as `unit.v`.
        folder: for the tools' files.
        library: None for generic gates.
        step: called with the name of each of the two parts before it begins.

    Returns:
        The figures, and the unit's ports as Yosys lists them. Figures of a unit of more than `TIMED_CELLS`
        cells have no critical path.

    Raises:
        UserError: a tool failed.
    """
    step("gates")
    coarse = f"read_verilog unit.v\n{_lines(COARSE.format(top=top))}write_rtlil coarse.il\n"
    tools.yosys(f"{coarse}write_json coarse.json\n", folder)
    netlist = json.loads((folder / "coarse.json").read_text())
    memories = find(netlist, top)
    start = f"read_rtlil coarse.il\n{_memory_map(memories)}{_lines(FINE)}"
    figures: dict[str, Any] = {"memories": [_memory(memory) for memory in memories]}
    if library is None:
        figures |= _gates(top, folder, start)
        step("timing")
    else:
        modules = _map(folder, start, library)
        figures |= _standard_cells(top, modules, library.library)
        step("timing")
        timed = figures["cells"] <= TIMED_CELLS
        figures |= _timing(top, folder, library.library) if timed else _no_path()
    if top in SPLIT:
        figures |= _by_unit(top, figures, library)
    return figures, netlist["modules"][top]["ports"]


def _by_unit(top: str, figures: dict[str, Any], library: CellLibrary | None) -> dict[str, Any]:
    """Gate equivalents and bits by unit, and of a core their shares; nothing if no cell is a NAND gate."""
    own = figures.pop("area_by_unit")
    gate = TRANSISTORS_A_GATE if library is None else shares.gate_area(library.library)
    if gate is None:
        return {}
    gates = {unit: area / gate for unit, area in own.items()}
    macro_bits = shares.bits(figures["memories"], SPLIT[top])
    by_unit = {
        unit: {"gates": round(gates.get(unit, 0.0)), "macro_bits": macro_bits.get(unit, 0)}
        for unit in sorted({*gates, *macro_bits})
    }
    return {"by_unit": by_unit, **(shares.shares(gates, macro_bits) if top == "vrex_core" else {})}


def _lines(commands: str) -> str:
    return commands.replace("; ", "\n") + "\n"


def _memory_map(memories: list[Memory]) -> str:
    """Commands that turn into gates the memories that are no macros."""
    mapped = {(memory.module, memory.cell) for memory in memories if memory.kind != "macro"}
    # Brackets in a name would be a pattern.
    names = sorted(f"{module}/{cell}".translate(str.maketrans("[]*", "???")) for module, cell in mapped)
    return "".join(f"memory_map {name}\n" for name in names)


def _memory(memory: Memory) -> dict[str, Any]:
    return {
        "name": memory.name,
        "depth": memory.depth,
        "width": memory.width,
        "bits": memory.bits,
        "kind": memory.kind,
    }


def _gates(top: str, folder: Path, start: str) -> dict[str, Any]:
    script = f"{start}{_lines(GATES)}write_json gates.json\ntee -q -o stat.json stat -json -tech cmos\n"
    tools.yosys(script, folder)
    modules = json.loads((folder / "gates.json").read_text())["modules"]
    stat = json.loads((folder / "stat.json").read_text())["modules"]
    counts = _count(modules, top)
    rows: list[dict[str, Any]] = []
    instances = _instances(modules, top)
    transistors = 0
    for name, times in instances.items():
        # A plus sign says that a memory or a module below is not in it.
        own = int(str(stat["\\" + name].get("estimated_num_transistors", 0)).rstrip("+"))
        transistors += times * own
        rows.append(
            {"module": name, "instances": times, "cells": _own(modules, name).total(), "transistors": own}
        )
    return {
        "cells": counts.total(),
        "transistors": transistors,
        "area": None,
        **_area_by_unit(top, modules, rows, "transistors"),
        "ff": sum(count for kind, count in counts.items() if kind.startswith("$_DFF")),
        "modules": rows,
        **_no_path(),
    }


def _no_path() -> dict[str, None]:
    return {"critical_path_ns": None, "critical_path": None}


def _map(folder: Path, start: str, library: CellLibrary) -> dict[str, Any]:
    """Maps to the library's cells and buffers what the mapper left; returns the modules."""
    shutil.copyfile(library.path, folder / "cells.lib")
    (folder / "map.abc").write_text("\n".join(ABC) + "\n")
    tools.yosys(f"{start}{_lines(MAP)}read_liberty -lib cells.lib\nwrite_json cells.json\n", folder)
    netlist = json.loads((folder / "cells.json").read_text())
    for name, module in netlist["modules"].items():
        if name not in library.library.cells:
            insert_buffers(module, library.library)
    (folder / "buffered.json").write_text(json.dumps(netlist))
    modules: dict[str, Any] = netlist["modules"]
    return modules


def _standard_cells(top: str, modules: dict[str, Any], library: Library) -> dict[str, Any]:
    counts = _count(modules, top)
    rows: list[dict[str, Any]] = [
        {
            "module": name,
            "instances": times,
            "cells": _own(modules, name).total(),
            "area": _area(_own(modules, name), library),
        }
        for name, times in _instances(modules, top).items()
    ]
    return {
        "cells": counts.total(),
        "area": _area(counts, library),
        **_area_by_unit(top, modules, rows, "area"),
        "ff": sum(count for kind, count in counts.items() if library.cells[kind].sequential),
        "modules": rows,
        "cell_types": dict(sorted(counts.items())),
    }


def _area_by_unit(top: str, modules: dict[str, Any], rows: list[dict[str, Any]], size: str) -> dict[str, Any]:
    """What `_by_unit` takes: the sum of a figure of `rows`, `area` or `transistors`, over each unit."""
    if top not in SPLIT:
        return {}
    own = {row["module"]: float(row[size]) for row in rows}
    return {"area_by_unit": shares.areas(top, modules, own, SPLIT[top])}


def _area(counts: Counter[str], library: Library) -> float:
    return sum(count * library.cells[kind].area for kind, count in counts.items())


def _timing(top: str, folder: Path, library: Library) -> dict[str, Any]:
    script = f"read_json buffered.json\nhierarchy -top {top}\ncheck -assert\nflatten -noscopeinfo\n"
    tools.yosys(f"{script}write_json flat.json\n", folder)
    module = json.loads((folder / "flat.json").read_text())["modules"][top]
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


def _instances(modules: dict[str, Any], top: str) -> Counter[str]:
    """How often each module of cells occurs below `top`, itself included."""
    found = Counter([top])
    for cell in modules[top]["cells"].values():
        if cell["type"] in modules and modules[cell["type"]]["cells"]:
            found += _instances(modules, cell["type"])
    return found


def _own(modules: dict[str, Any], name: str) -> Counter[str]:
    """Types of the cells of one module, without memories and modules below it."""
    inside = {kind for kind, module in modules.items() if module["cells"]}
    kinds = (cell["type"] for cell in modules[name]["cells"].values())
    return Counter(kind for kind in kinds if kind != MEMORY and kind not in inside)


def _count(modules: dict[str, Any], top: str) -> Counter[str]:
    """Types of all cells below `top`."""
    counts: Counter[str] = Counter()
    for name, times in _instances(modules, top).items():
        for kind, count in _own(modules, name).items():
            counts[kind] += times * count
    return counts
