"""What share of an accelerator's area each of its units has (paper Table III).

Standard cells count in gate equivalents, two-input NAND gates, and memories in bits. How large either is on
a chip, no tool here can say, so shares are given under several densities, and their range over these.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vrex.hw.tools.synth.liberty import Library

UNITS = ("dpe", "vpe", "hcu", "wtu", "kvmu")
"""Instances whose whole content is the unit's."""

FRONT = "front"
"""The rest of the DRE: dispatch, registers, queues."""

MEMORY = "memory"
"""Bits of the LXE's memory."""

CONTROL = "control"
"""The rest of LXE and core: readers, writer, sequencers, movers, bus."""

DRE = ("hcu", "wtu", "kvmu", FRONT)

TABLE_III = {"dpe": 0.728, "vpe": 0.072, MEMORY: 0.1798, "hcu": 0.0028, "wtu": 0.0123, "kvmu": 0.0053}
"""The paper's shares of a core's area."""

PAPER_AREA = {"dpe": 1.37, "vpe": 0.14, MEMORY: 0.34, "hcu": 0.01, "wtu": 0.02, "kvmu": 0.01}
"""The paper's square millimetres in 14 nm."""


@dataclass(frozen=True)
class Density:
    """Square micrometres of a gate equivalent and of a bit of memory, an assumption."""

    name: str
    gate: float
    bit: float


DENSITIES = (
    Density("middle", 0.135, 0.10),
    Density("dense gates", 0.10, 0.10),
    Density("sparse gates", 0.18, 0.10),
    Density("dense memory", 0.135, 0.07),
    # CACTI, 22 nm: 96 KB of 1,024-bit words take 0.098 mm2 with one port, 0.221 with one to read and one to
    # write, which is what all memories here have.
    Density("two ports a memory", 0.135, 0.226),
)


def unit_of(path: str) -> str:
    """The unit that an instance belongs to, by its path with dots."""
    names = path.split(".")
    for name in names:
        if name in UNITS:
            return name
    if "dre" in names:
        return FRONT
    return MEMORY if any(name.startswith("bank_") for name in names) else CONTROL


def areas(
    top: str, children: dict[str, dict[str, str]], own: dict[str, float], whole: str = ""
) -> dict[str, dict[str, float]]:
    """Area of standard cells by unit, and in each by module, of all its instances.

    Args:
        top: module.
        children: of each module, the module of each instance in it.
        own: area of a module's cells without those of modules below it.
        whole: path of `top` in the accelerator, as in `dre.` where it is a DRE.
    """
    found: dict[str, dict[str, float]] = {}
    for path, module in _below(top, children, whole):
        modules = found.setdefault(unit_of(path), {})
        modules[module] = modules.get(module, 0.0) + own[module]
    return found


def _below(module: str, children: dict[str, dict[str, str]], path: str) -> Iterator[tuple[str, str]]:
    yield path, module
    for name, kind in children[module].items():
        yield from _below(kind, children, f"{path}{name}.")


def bits(memories: list[dict[str, Any]], whole: str = "") -> dict[str, int]:
    """Bits of macros by unit, of memories as `measure` lists them; `whole` as of `areas`."""
    found: dict[str, int] = {}
    for memory in memories:
        if memory["kind"] == "macro":
            unit = unit_of(whole + memory["name"])
            found[unit] = found.get(unit, 0) + memory["bits"]
    return found


def gate_area(library: Library) -> float | None:
    """Area of a library's smallest two-input NAND gate, None if no cell is called that."""
    found = [cell.area for name, cell in library.cells.items() if "NAND2" in name.upper()]
    return min(found, default=None)


def shares(gates: dict[str, float], macro_bits: dict[str, int]) -> dict[str, Any]:
    """Shares of a core's units.

    Args:
        gates: gate equivalents by unit.
        macro_bits: bits of memories by unit.

    Returns:
        `share`: of each unit, its gates alone, and `memory` the LXE's bits; `dre_share` of all the DRE's
        gates, `dre_share_with_memories`; each as `middle`, `min` and `max` over `DENSITIES`; and
        `densities`, with each one's figures.
    """
    by_density = {density.name: _under(density, gates, macro_bits) for density in DENSITIES}
    names = list(by_density[DENSITIES[0].name])
    ranges = {name: _range([figures[name] for figures in by_density.values()]) for name in names}
    of_dre = {name: ranges.pop(name) for name in ("dre_share", "dre_share_with_memories")}
    assumed = {density.name: {"um2_a_gate": density.gate, "um2_a_bit": density.bit} for density in DENSITIES}
    return {
        "share": ranges,
        **of_dre,
        "densities": {name: {**assumed[name], **figures} for name, figures in by_density.items()},
    }


def _under(density: Density, gates: dict[str, float], macro_bits: dict[str, int]) -> dict[str, float]:
    logic = {unit: count * density.gate for unit, count in gates.items()}
    memory = {unit: count * density.bit for unit, count in macro_bits.items()}
    total = sum(logic.values()) + sum(memory.values())
    dre = sum(logic.get(unit, 0.0) for unit in DRE)
    return {
        **{unit: logic.get(unit, 0.0) / total for unit in (*UNITS, FRONT, CONTROL)},
        MEMORY: memory.get(MEMORY, 0.0) / total,
        "dre_share": dre / total,
        "dre_share_with_memories": (dre + sum(memory.get(unit, 0.0) for unit in DRE)) / total,
    }


def _range(values: list[float]) -> dict[str, float]:
    return {"middle": values[0], "min": min(values), "max": max(values)}
