"""Area of a core's units by their dimensions, from recorded `vrex synth` figures (`data/area.json`).

Of a dimension that was not synthesised the area lies on the straight line between its neighbours; beyond the
last one on the line of the last two, which the result says.
"""

import json
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from vrex.sw.perf.description.sections import DATA
from vrex.sw.perf.simulation.calibration import Core

GATE_UM2 = 0.1348
"""A two-input NAND in 14 nm: three gate pitches of 78 nm by nine tracks of 64 nm (14LPP, published)."""
BIT_UM2 = 0.107
"""Area of a bit in a compiled memory: a cell of .064 um2 (14LPP, published) at 60 % of the macro's area."""
GATE_UNITS = 24
"""Units of osu018 in its two-input NAND."""
LXE_MEMORY_BITS = 384 * 1024 * 8
RECORDED, INTERPOLATED, EXTRAPOLATED = "recorded", "interpolated", "extrapolated"
_ORDER = (RECORDED, INTERPOLATED, EXTRAPOLATED)


@dataclass(frozen=True)
class Area:
    """An area and how far synthesis covers it.

    Attributes:
        logic_mm2, memory_mm2: of gates and of memory bits, at published 14 nm densities.
        basis: `recorded`, `interpolated` or `extrapolated`.
    """

    logic_mm2: float
    memory_mm2: float
    basis: str

    @property
    def mm2(self) -> float:
        """Both."""
        return self.logic_mm2 + self.memory_mm2

    def __add__(self, other: "Area") -> "Area":
        return Area(
            self.logic_mm2 + other.logic_mm2,
            self.memory_mm2 + other.memory_mm2,
            max(self.basis, other.basis, key=_ORDER.index),
        )


@cache
def records() -> list[dict[str, Any]]:
    """Entries of `data/area.json`: unit, `fields`, area in units of osu018, bits in memory macros, source."""
    found: list[dict[str, Any]] = json.loads((DATA / "area.json").read_text(encoding="utf-8"))["records"]
    return found


def on_lines(points: Mapping[int, float], at: int) -> tuple[float, str]:
    """A value on straight lines between points, and its basis; of a single point the point itself.

    Raises:
        KeyError: there is one point, and it is another.
    """
    if at in points:
        return points[at], RECORDED
    known = sorted(points)
    if len(known) < 2:
        raise KeyError(at)
    place = min(max(1, bisect_left(known, at)), len(known) - 1)
    low, high = known[place - 1], known[place]
    value = points[low] + (points[high] - points[low]) * (at - low) / (high - low)
    return value, INTERPOLATED if low < at < high else EXTRAPOLATED


def _unit(unit: str, swept: str = "", at: int = 0, **others: int) -> Area:
    """Area of a unit whose dimension `swept` has a value, among records whose other fields have these."""
    mine = [
        entry
        for entry in records()
        if entry["unit"] == unit and all(entry["fields"][name] == value for name, value in others.items())
    ]

    def value(name: str) -> tuple[float, str]:
        points = {entry["fields"].get(swept, 0): float(entry[name]) for entry in mine}
        return on_lines(points, at)

    (units, basis), (bits, _) = value("area"), value("macro_bits")
    return Area(units / GATE_UNITS * GATE_UM2 / 1e6, bits * BIT_UM2 / 1e6, basis)


@cache
def parts(core: Core) -> dict[str, Area]:
    """A core's units; the LXE's memory is that of preset edge, and so are WTU and KVMU.

    Of the DPE these are its trees, and its memories as the RTL has them.
    """
    tree = _unit("mac_tree")
    return {
        "dpe": Area(core.trees * tree.logic_mm2, 0.0, tree.basis)
        + _unit("dpe_memories", "trees", core.trees, rows=core.rows),
        "vpe": _unit("vpe", "lanes", core.vpe_lanes),
        "hcu": _unit("hcu", "lanes", core.hcu_lanes),
        "wtu": _unit("wtu"),
        "kvmu": _unit("kvmu"),
        "memory": Area(0.0, LXE_MEMORY_BITS * BIT_UM2 / 1e6, RECORDED),
    }


def chip(core: Core, cores: int) -> Area:
    """All cores; what lies between them and the memory's interface are not in it."""
    total = sum(parts(core).values(), Area(0.0, 0.0, RECORDED))
    return Area(cores * total.logic_mm2, cores * total.memory_mm2, total.basis)
