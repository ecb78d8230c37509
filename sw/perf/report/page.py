"""The figures as one HTML file that needs no network, and as lines of text."""

import base64
import html
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from vrex.sw.perf.report.figures import COLUMNS

Row = dict[str, Any]
STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 90em; padding: 0 1em; color: #222; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; }
th, td { padding: .2em .5em; text-align: left; border-bottom: 1px solid #ddd; vertical-align: top; }
th { border-bottom: 2px solid #888; }
img { max-width: 100%; height: auto; }
pre { overflow-x: auto; font-size: 12px; }
.wide { overflow-x: auto; }
"""


def number(value: float | None) -> str:
    """Four digits, or nothing."""
    return "" if value is None else f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"


def cell(value: object) -> str:
    """A value of a row as text."""
    if isinstance(value, float):
        return number(value)
    return "" if value is None else str(value)


def kind(verdict: str) -> str:
    """A verdict without its reason."""
    return verdict.partition(":")[0] if verdict.startswith("not") else verdict.partition("'s own ")[0]


def summary(rows: Sequence[Row]) -> str:
    """How many numbers of the paper got which verdict."""
    counted = Counter(kind(row["verdict"]) for row in rows if row["paper"] is not None)
    return ", ".join(f"{count} {name}" for name, count in counted.most_common())


def text(rows: Sequence[Row], fitted: Mapping[str, float]) -> str:
    """All rows, a line each."""
    names = [name for name in COLUMNS if name != "verdict"]
    lines = [[*names], *([cell(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(names))]
    verdicts = ["verdict", *(row["verdict"] for row in rows)]
    shown = [
        "  ".join(f"{word:<{width}}" for word, width in zip(line, widths, strict=True)) + f"  {verdict}"
        for line, verdict in zip(lines, verdicts, strict=True)
    ]
    return "\n".join([*shown, "", *notes(rows, fitted)])


def notes(rows: Sequence[Row], fitted: Mapping[str, float]) -> list[str]:
    """What has to be said about all rows together."""
    said = [f"{name} = {value:.4g}" for name, value in fitted.items()]
    return [
        f"of the paper's numbers: {summary(rows)}",
        f"fitted to the paper: {', '.join(said)}" if said else "no constant is fitted to the paper",
    ]


def page(
    rows: Sequence[Row], plots: Mapping[str, bytes], fitted: Mapping[str, float], memory: str, provenance: str
) -> str:
    """The page.

    Args:
        rows: of all figures.
        plots: PNG by figure.
        fitted: constants fitted to the paper.
        memory: table of the memories, or nothing.
        provenance: version and RTL.
    """
    sections = []
    for figure in dict.fromkeys(row["figure"] for row in rows):
        group = [row for row in rows if row["figure"] == figure]
        picture = ""
        if figure in plots:
            data = base64.b64encode(plots[figure]).decode()
            picture = f'<p><img alt="{heading(figure)}" src="data:image/png;base64,{data}"></p>'
        sections.append(f"<h2>{heading(figure)}</h2>\n{picture}\n{_table(group)}")
    if memory:
        sections.append(f"<h2>Memories</h2>\n<pre>{html.escape(memory)}</pre>")
    said = "".join(f"<li>{html.escape(note)}</li>" for note in notes(rows, fitted))
    return f"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>vrex perf</title><style>{STYLE}</style></head>
<body>
<h1>The V-Rex paper's figures, computed</h1>
<p>{html.escape(provenance)} Filled marks and bars are ours, hollow and hatched ones the paper's.</p>
<ul>{said}</ul>
{chr(10).join(sections)}
</body>
</html>
"""


def heading(figure: str) -> str:
    """A figure's name as the paper writes it."""
    tables = {"table1": "Table I", "table3": "Table III"}
    if figure[0].isdigit():
        return f"Fig. {figure}"
    return tables.get(figure, figure.capitalize())


def _table(rows: Sequence[Row]) -> str:
    names = [name for name in COLUMNS if name != "figure"]
    head = "".join(f"<th>{name}</th>" for name in names)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{html.escape(cell(row[name]))}</td>" for name in names) + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'
