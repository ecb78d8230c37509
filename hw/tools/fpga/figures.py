"""What a design takes of a board, and the clock that its placements reach."""

import re
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from vrex.errors import UserError
from vrex.hw.fpga.boards import Board
from vrex.hw.fpga.families import Family
from vrex.hw.tools.synth.ecp5 import slowest

SCOPE = "$scopeinfo"
"""Type of the cells that Yosys leaves for each instance when it flattens a design."""


def cells_by_unit(cells: Mapping[str, Any]) -> dict[str, Counter[str]]:
    """Cells of every instance, those of the instances in it included, by its path; "" is the whole design.

    Yosys names a cell after the signal that it makes, so a LUT counts where its output is.

    Args:
        cells: of a flattened module, as in Yosys's JSON.
    """
    scopes = {name for name, cell in cells.items() if cell["type"] == SCOPE}
    counts: dict[str, Counter[str]] = {scope: Counter() for scope in ["", *sorted(scopes)]}
    for name, cell in cells.items():
        if cell["type"] == SCOPE:
            continue
        counts[""][cell["type"]] += 1
        path = name
        while "." in path:
            path = path.rpartition(".")[0]
            if path in scopes:
                counts[path][cell["type"]] += 1
    return counts


def utilisation(family: Family, cells: Mapping[str, Any], depth: int) -> list[dict[str, Any]]:
    """What each unit that takes anything takes, that of the units in it included.

    Args:
        family: of the FPGA.
        cells: see `cells_by_unit`.
        depth: levels of instances below the top that get a row.

    Returns:
        `unit`, "all" first, and a number for each resource.
    """
    return [
        # A number behind a name tells it from a signal's.
        {"unit": re.sub(r"\$\d+", "", path) or "all", **usage}
        for path, counts in cells_by_unit(cells).items()
        if any((usage := family.usage(counts)).values()) and path.count(".") < depth
    ]


def check_room(board: Board, needs: Mapping[str, int], what: str) -> None:
    """Says by how much a design is too large for a board.

    Args:
        board: it.
        needs: of each resource.
        what: the design, for the sentence.

    Raises:
        UserError: it needs more of something than there is.
    """
    over = [
        f"{needs[name]:,} {name} of {has:,} ({needs[name] - has:,} too many)"
        for name, has in board.has.items()
        if needs.get(name, 0) > has
    ]
    if over:
        raise UserError(
            f"{what} does not fit on {board.name}: it needs {' and '.join(over)}; "
            "choose a smaller preset or a larger board"
        )


def fmax(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The clock that each placement reaches, in MHz.

    Args:
        reports: nextpnr's, one a seed.

    Returns:
        min, median, max, and by_seed in the order of the reports.
    """
    clocks = [round(float(_clock(report)["achieved"]), 2) for report in reports]
    return {
        "min": min(clocks),
        "median": round(statistics.median(clocks), 2),
        "max": max(clocks),
        "by_seed": clocks,
    }


def missed(report: Mapping[str, Any]) -> bool:
    """Whether some clock of a placement is slower than it must be."""
    return any(clock["achieved"] < clock["constraint"] for clock in report["fmax"].values())


def _clock(report: Mapping[str, Any]) -> Mapping[str, float]:
    """The clock with the least to spare: a board's others have next to no logic."""
    clocks: list[Mapping[str, float]] = list(report["fmax"].values())
    return min(clocks, key=lambda clock: clock["achieved"] / clock["constraint"])


def packed(report: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """What a placement takes after packing, by nextpnr's type of cell: `used` and `available`."""
    return {
        kind: {"used": count["used"], "available": count["available"]}
        for kind, count in report["utilization"].items()
        if count["used"]
    }


def critical_path(report: Mapping[str, Any]) -> dict[str, Any] | None:
    """The slowest path of a placement between two clocked cells, with its cells; None if there is none."""
    found = slowest(report["critical_paths"])
    if found is None:
        return None
    inside = [p["path"] for p in report["critical_paths"] if "<async>" not in (p["from"], p["to"])]
    path = max(inside, key=lambda steps: sum(step["delay"] for step in steps))
    logic = [step for step in path if step["type"] != "routing"]
    found["logic_ns"] = round(found["ns"] - found["routing_ns"], 2)
    found["cells"] = [step["to"]["cell"] for step in logic]
    return found
