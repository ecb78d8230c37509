"""Computes the figures of `vrex perf` anew for the documentation.

    python scripts/refresh_perf_docs.py

Writes docs/perf.json, the plots in docs/perf/, and the table of docs/perf-reproduces.md.
"""

import json
from pathlib import Path
from typing import Any

from scripts.refresh import run
from vrex.files import write_file
from vrex.sw.perf.report import figures
from vrex.sw.perf.report.metrics import Context
from vrex.sw.perf.report.page import cell, heading, summary
from vrex.sw.perf.report.plots import plot
from vrex.sw.perf.simulation.calibration import load

JSON, PAGE, PLOTS = Path("docs/perf.json"), Path("docs/perf-reproduces.md"), Path("docs/perf")
SHOWN = ("13a", "13b", "15", "16", "beyond", "best", "energy")
BEGIN, END = "<!-- table: scripts/refresh_perf_docs.py -->", "<!-- end of table -->"
COLUMNS = ("figure", "system", "method", "metric", "kv", "batch", "paper", "ours", "ratio", "verdict")


def table(rows: list[dict[str, Any]]) -> str:
    """The paper's numbers as a table, and how many got which verdict."""
    known = [row for row in rows if row["paper"] is not None and row["figure"] != "gemm"]
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    for row in known:
        words = [cell(row[name]) for name in COLUMNS]
        words[3] = f"`{words[3]}`" + (f" over {row['over']}" if row["over"] else "")
        words[0] = heading(row["figure"])
        lines.append(f"| {' | '.join(words)} |")
    return f"Of the paper's numbers: {summary(known)}.\n\n" + "\n".join(lines)


def page(old: str, rows: list[dict[str, Any]]) -> str:
    """The page with a new table."""
    before, _, rest = old.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table(rows)}\n\n{END}{after}"


def record() -> str:
    """Writes all files."""
    context = Context()
    rows = figures.rows(context, figures.chosen([]))
    result = {"rtl_commit": load()["rtl_commit"], "fitted": {}, "rows": rows}
    write_file(JSON, (json.dumps(result, indent=1) + "\n").encode())
    for figure in SHOWN:
        picture = plot([row for row in rows if row["figure"] == figure], context, heading(figure))
        if picture is not None:
            write_file(PLOTS / f"fig-{figure}.png", picture)
    write_file(PAGE, page(PAGE.read_text(encoding="utf-8"), rows).encode())
    return f"{JSON}, {PLOTS}, {PAGE}: {summary([row for row in rows if row['paper'] is not None])}"


if __name__ == "__main__":
    run(record)
