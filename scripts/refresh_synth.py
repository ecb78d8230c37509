"""Records area and timing of the units: docs/synth-history.json and the table of docs/area.md.

    python scripts/refresh_synth.py              measures every unit of preset edge (an hour), then records
    python scripts/refresh_synth.py FILE...      records what `vrex synth --json FILE` measured on this commit

An entry of a unit takes the place of an earlier one of the same commit and preset.
"""

import json
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vrex.errors import UserError
from vrex.files import write_file
from vrex.sw.cli import main as cli

HISTORY = Path("docs/synth-history.json")
PAGE = Path("docs/area.md")
BEGIN, END = "<!-- table: scripts/refresh_synth.py -->", "<!-- end of table -->"
MEASURE = ("--preset", "edge", "--fetch-liberty", "osu018", "--ecp5")
SOURCES = ("hw", "model")
"""What the figures depend on."""

Entry = dict[str, Any]


def entries(result: dict[str, Any], commit: str, date: str) -> list[Entry]:
    """One entry a unit of what `vrex synth` wrote."""
    return [
        {
            "date": date,
            "commit": commit,
            "preset": result["preset"],
            "unit": unit,
            "library": result["library"],
            "cells": figures["cells"],
            "area": figures["area"],
            "ff": figures["ff"],
            "macro_bits": sum(m["bits"] for m in figures["memories"] if m["kind"] == "macro"),
            "critical_path_ns": figures["critical_path_ns"],
            "ecp5": _ecp5(figures.get("ecp5")),
        }
        for unit, figures in result["units"].items()
    ]


def _ecp5(figures: dict[str, Any] | None) -> dict[str, Any] | None:
    if figures is None:
        return None
    counts = {key: value for key, value in figures.items() if isinstance(value, int)}
    return counts | {"fmax_mhz": figures["fmax_mhz"]}


def merge(history: list[Entry], new: list[Entry]) -> list[Entry]:
    """The history with new entries, which replace those of the same commit, preset and unit."""

    def key(entry: Entry) -> tuple[str, ...]:
        return entry["commit"], entry["preset"], entry["unit"]

    replaced = {key(entry) for entry in new}
    return [entry for entry in history if key(entry) not in replaced] + new


def table(history: list[Entry]) -> str:
    """The last entry of every unit and preset, as Markdown."""
    lines = [
        "| unit | preset | commit | cells | area | FF | path ns | macro bits"
        " | LUT4 | CCU2C | DPR16X4 | FF | DP16KD | MULT18 | Fmax MHz |",
        "|---|---|---|" + "---:|" * 12,
    ]
    latest = {(entry["unit"], entry["preset"]): entry for entry in history}
    for unit, preset in sorted(latest):
        entry = latest[unit, preset]
        cells = [unit, f"`{preset}`", entry["commit"], f"{entry['cells']:,}", _number(entry["area"])]
        cells += [f"{entry['ff']:,}", _path(entry["critical_path_ns"]), f"{entry['macro_bits']:,}"]
        lines.append("| " + " | ".join([*cells, *_ecp5_cells(entry["ecp5"])]) + " |")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{round(value):,}"


def _path(ns: float | None) -> str:
    return "-" if ns is None else f"{ns:.2f}"


def _ecp5_cells(figures: dict[str, Any] | None) -> list[str]:
    if figures is None:
        return ["-"] * 7
    keys = ("lut4", "ccu2c", "dpr16x4", "ff", "dp16kd", "mult18x18d")
    fmax = figures["fmax_mhz"]
    clocks = "/".join(f"{fmax[key]:.0f}" for key in ("min", "median", "max"))
    return [*(f"{figures[key]:,}" for key in keys), clocks]


def fill(page: str, text: str) -> str:
    """The page with what stands between its two marks replaced.

    Raises:
        ValueError: a mark is missing.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{PAGE} has lost the marks of its table")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout.strip()


def commit() -> str:
    """The commit checked out; a plus sign says that sources have changed since."""
    changed = _git("status", "--porcelain", "--", *SOURCES)
    return _git("rev-parse", "--short=7", "HEAD") + ("+" if changed else "")


def _measure() -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "synth.json"
        code = cli.main(["synth", *MEASURE, "--json", str(out)])
        if code:
            sys.exit(code)
        return [json.loads(out.read_text())]


def main(files: list[str]) -> None:
    """Measures, or reads what was measured, and writes both documents."""
    try:
        results = [json.loads(Path(file).read_text()) for file in files] if files else _measure()
        now = datetime.now(UTC).strftime("%Y-%m-%d")
        new = [entry for result in results for entry in entries(result, commit(), now)]
        history = merge(json.loads(HISTORY.read_text()) if HISTORY.exists() else [], new)
        page = fill(PAGE.read_text(encoding="utf-8"), table(history))
        write_file(HISTORY, (json.dumps(history, indent=1) + "\n").encode())
        write_file(PAGE, page.encode())
    except (OSError, ValueError, UserError) as error:
        sys.exit(f"refresh_synth: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
