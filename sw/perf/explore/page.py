"""All points and their fronts as one HTML file that needs no network."""

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vrex.sw.perf.explore.evaluate import COLUMNS, OBJECTIVES, WORKLOAD, Row
from vrex.text import printable

SCRIPT, STYLE = Path(__file__).with_name("page.js"), Path(__file__).with_name("page.css")
DIGITS = 5
"""Of numbers on the page; the JSON and the Parquet file have all."""


def columns(rows: Sequence[Row]) -> tuple[list[str], dict[str, Any]]:
    """Names of columns in which rows differ, and the value of each other one that has any."""
    varying, constant = [], {}
    for name in COLUMNS:
        values = {row[name] for row in rows}
        if name == "id":
            continue
        if len(values) > 1 or name in WORKLOAD:
            varying.append(name)
        elif values != {None}:
            constant[name] = values.pop()
    return varying, constant


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    return printable(value) if isinstance(value, str) else value


def _data(result: dict[str, Any], varying: list[str]) -> str:
    """What the script reads; no string in it can end the script."""
    rows: list[Row] = result["rows"]
    data = {
        "columns": varying,
        "workload": list(WORKLOAD),
        "objectives": {name: way for name, way in OBJECTIVES.items() if name in varying},
        "chosen": [name for name in result["objectives"] if name in varying],
        "rows": [[_short(row[name]) for name in varying] for row in rows],
    }
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def page(result: dict[str, Any]) -> str:
    """The page.

    Args:
        result: what `vrex explore --json` writes.
    """
    rows: list[Row] = result["rows"]
    varying, constant = columns(rows)
    same = ", ".join(f"{name} {_short(value)}" for name, value in constant.items())
    fits = sum(row["fits"] for row in rows)
    known = sum(row["accuracy"] is not None for row in rows)
    basis = ", ".join(
        f"{sum(row['area_basis'] == name for row in rows)} {name}"
        for name in ("recorded", "interpolated", "extrapolated")
    )
    said = (
        f"vrex {result['vrex']}; cycles of the RTL of commit {result['rtl_commit']}. {len(rows)} points, of "
        f"which {fits} fit into memory; {known} have an accuracy that was recorded, the others none. Areas, "
        f"of V-Rex alone: {basis}."
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>vrex explore</title><style>{STYLE.read_text(encoding="utf-8")}</style></head>
<body>
<h1>Design points</h1>
<p>{html.escape(printable(said))}</p>
<p>The same in all: {html.escape(printable(same)) or "nothing"}.</p>
<form id="controls" autocomplete="off"></form>
<div id="plot">
<canvas id="points" tabindex="0" aria-label="Design points"></canvas><div id="tip" hidden></div>
</div>
<ul id="legend"></ul>
<p id="count" aria-live="polite"></p>
<div class="wide"><table id="front"></table></div>
<noscript><p>The plot needs JavaScript; the JSON and Parquet files hold the same points.</p></noscript>
<script type="application/json" id="data">{_data(result, varying)}</script>
<script>{SCRIPT.read_text(encoding="utf-8")}</script>
</body>
</html>
"""
