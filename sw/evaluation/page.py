"""A self-contained HTML page of an evaluation: a plot for each suite and length, and all rows."""

import html
import io
from collections.abc import Iterable, Sequence
from typing import Any

from vrex.sw.evaluation.reports.rows import (
    difference_text,
    interval_text,
    percent,
    settings_text,
    shown_knobs,
)
from vrex.sw.evaluation.rows import ALL

STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 90em; padding: 0 1em; color: #222; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2em .5em; text-align: left; border-bottom: 1px solid #ddd; white-space: nowrap; }
th { border-bottom: 2px solid #888; }
svg { max-width: 100%; height: auto; }
.wide { overflow-x: auto; }
"""


def make_page(result: dict[str, Any]) -> str:
    """The page.

    Args:
        result: as ``vrex eval --json`` writes it.
    """
    rows = result["rows"]
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["suite"], row["length"]), []).append(row)
    knobs = shown_knobs(rows)
    sections = "\n".join(_section(suite, length, group, knobs) for (suite, length), group in groups.items())
    return f"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>vrex eval</title><style>{STYLE}</style></head>
<body>
<h1>Retrieval policies on ProcStream</h1>
<p>vrex {html.escape(result["vrex"])}, model {result["model"][:12]},
videos of level {result["level"]}, seeds {_span(result["seeds"])}.
Intervals are {100 * result["confidence"]:g} %: Wilson's for an accuracy, and for the difference to
<i>full</i> the bootstrap over questions asked of both, {result["resamples"]:,} resamples. Where both agree on
all of n questions it gives a single point; a true difference of up to about 3/n is then still possible.
The ratio is attended past tokens / past tokens. Bytes are those fetched per video, metadata included;
<i>full</i> keeps everything resident. A task's interval and n show when you point at its accuracy.</p>
{sections}
</body>
</html>
"""


def _section(suite: str, length: int, rows: list[dict[str, Any]], knobs: dict[str, list[str]]) -> str:
    """Heading, plot and table of one suite and length; a line of the table is a point."""
    whole = [row for row in rows if row["task"] == ALL.get(suite)]
    plot = tradeoff_svg(whole, f"{suite}, {length} frames, {whole[0]['n']} questions") if whole else ""
    points: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        points.setdefault((row["policy"], settings_text(row, knobs)), []).append(row)
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    head = ["policy", "settings", *tasks, *(["to full"] if whole else []), "ratio frame", "ratio text", "MB"]
    lines = [_cells("th", map(html.escape, head))]
    for names, own in points.items():
        by_task = {row["task"]: row for row in own}
        first = own[0]
        figures = [_accuracy(by_task.get(task)) for task in tasks]
        cost = [percent(first["ratio_frame"]), percent(first["ratio_text"]), f"{first['bytes'] / 1e6:.1f}"]
        compared = [html.escape(difference_text(first))] if whole else []
        lines.append(_cells("td", [*map(html.escape, names), *figures, *compared, *cost]))
    table = "\n".join(lines)
    return f'<h2>{suite}, {length} frames</h2>\n{plot}\n<div class="wide"><table>\n{table}\n</table></div>'


def _accuracy(row: dict[str, Any] | None) -> str:
    if row is None:
        return "-"
    return f'<span title="{interval_text(row)}, n = {row["n"]}">{row["accuracy"]:.3f}</span>'


def _cells(tag: str, contents: Iterable[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{content}</{tag}>' for content in contents)}</tr>"


def tradeoff_svg(rows: Sequence[dict[str, Any]], title: str) -> str:
    """Accuracy over the bytes fetched and over the ratio, as an SVG element.

    Args:
        rows: of one suite, length and task; points of a policy are joined in order of their cost.
        title: what they show.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    FigureCanvasSVG(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    for policy in dict.fromkeys(row["policy"] for row in rows):
        own = [row for row in rows if row["policy"] == policy]
        _curve(left, policy, [(row["bytes"] / 1e6, row) for row in own])
        _curve(
            right, policy, [(100 * row["ratio_frame"], row) for row in own if row["ratio_frame"] is not None]
        )
    most = max(row["bytes"] / 1e6 for row in rows) or 1.0
    left.set(xlabel="MB fetched per video, metadata included", xlim=(-0.02 * most, 1.04 * most))
    left.set(ylabel="accuracy", ylim=(None, 1.02))
    right.set(xlabel="past tokens attended, frame stage [%]", xlim=(0, 104))
    for axes in (left, right):
        axes.grid(alpha=0.3)
    right.legend(fontsize=8)
    figure.suptitle(title, fontsize=11)
    picture = io.StringIO()
    # The same figures give the same bytes: no date, and names counted from a fixed salt.
    with rc_context({"svg.hashsalt": title}):
        figure.savefig(picture, format="svg", metadata={"Date": None})
    text = picture.getvalue()
    return text[text.index("<svg") :]


def _curve(axes: Any, policy: str, points: list[tuple[float, dict[str, Any]]]) -> None:
    points.sort(key=lambda point: point[0])
    accuracy = [row["accuracy"] for _, row in points]
    spans = [
        [at - row["low"] for at, (_, row) in zip(accuracy, points, strict=True)],
        [row["high"] - at for at, (_, row) in zip(accuracy, points, strict=True)],
    ]
    axes.errorbar(
        [cost for cost, _ in points], accuracy, yerr=spans, label=policy, marker="o", ms=4, capsize=2, lw=1
    )


def _span(seeds: list[int]) -> str:
    if len(seeds) > 1 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds))
