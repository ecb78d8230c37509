"""Figures of a unit's power, as JSON, lines and a picture."""

from collections.abc import Mapping
from io import BytesIO
from typing import Any

from vrex.hw.tools.gates import power
from vrex.hw.tools.gates.power import PARTS, Energies, Power

SHOWN_TYPES = 8
"""Types of cells in the table: those that take most."""


def figures(found: Power, volts: float, mhz: float) -> dict[str, Any]:
    """What the JSON says of a power.

    Args:
        found: it.
        volts: of the library.
        mhz: clock at which milliwatts are given.
    """
    total = found.total
    return {
        "volts": volts,
        "assumed": {
            "wire_pf_a_pin": power.WIRE_PF,
            "clock_slope_ns": power.CLOCK_SLOPE_NS,
            "memory_fixed_pf_a_bit": power.MEMORY_FIXED_PF,
            "memory_pf_a_bit_and_word": power.MEMORY_WORD_PF,
        },
        "toggles": found.toggles,
        "pj_a_cycle": total.total,
        "parts": {part: total.parts[part] for part in PARTS},
        "mhz": mhz,
        "dynamic_mw": total.total * mhz * 1e-3,
        "leakage_mw": found.leakage * 1e3,
        "by_kind": _json(found.by_kind),
        "by_cell": _json(found.by_cell),
        "by_unit": _json(found.by_unit),
    }


def _json(energies: Mapping[str, Energies]) -> dict[str, Any]:
    return {name: part.as_json() for name, part in energies.items()}


def table(measured: Mapping[str, Any]) -> str:
    """The figures as aligned lines: by kind, by type of cell and by unit, pJ a cycle."""
    lines = [
        f"{measured['unit']} of {measured['preset']} in {measured['library']}, {measured['volts']:g} V: "
        f"{measured['cycles']:,} cycles of {measured['cases']} cases, all equal to the model",
        f"a net changes {measured['toggles']:.3f} times a cycle; clock tree and glitches are not in it",
        "",
    ]
    for title, group in (("kind", "by_kind"), ("cell", "by_cell"), ("part", "by_unit")):
        lines += [*_rows(title, measured[group]), ""]
    lines.append(
        f"{measured['pj_a_cycle']:.1f} pJ a cycle: {measured['dynamic_mw']:.2f} mW at "
        f"{measured['mhz']:g} MHz, and leakage of {measured['leakage_mw']:.2g} mW"
    )
    return "\n".join(lines)


def _rows(title: str, group: Mapping[str, Any]) -> list[str]:
    rows = [[title, "number", *(part.replace("_", " ") for part in PARTS), "pJ a cycle", "share"]]
    whole = sum(part["pj"] for part in group.values())
    largest = sorted(group.items(), key=lambda item: -item[1]["pj"])[:SHOWN_TYPES]
    for name, part in largest:
        row = [name or "(top)", f"{part['number']:,}", *(f"{part[key]:.2f}" for key in PARTS)]
        rows.append([*row, f"{part['pj']:.2f}", f"{part['pj'] / whole if whole else 0:.1%}"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]


def plot(measured: Mapping[str, Any]) -> bytes:
    """A PNG of bars by kind and by part of the unit, pJ a cycle, each split into `PARTS`."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(9, 3.6), layout="constrained")
    sides = drawing.subplots(1, 2)
    for axes, (title, group) in zip(
        sides, (("kind of cell", "by_kind"), ("part of the unit", "by_unit")), strict=True
    ):
        largest = sorted(measured[group].items(), key=lambda item: item[1]["pj"])[-SHOWN_TYPES:]
        names = [name or "(top)" for name, _ in largest]
        left = [0.0] * len(largest)
        for part in PARTS:
            values = [energies[part] for _, energies in largest]
            axes.barh(names, values, left=left, label=part.replace("_", " "))
            left = [start + value for start, value in zip(left, values, strict=True)]
        axes.set_xlabel("pJ a cycle")
        axes.set_title(f"by {title}")
    sides[0].legend(fontsize="small")
    drawing.suptitle(
        f"{measured['unit']} of {measured['preset']} in {measured['library']}: "
        f"{measured['pj_a_cycle']:.0f} pJ a cycle"
    )
    stream = BytesIO()
    drawing.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()
