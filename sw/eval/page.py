"""A self-contained HTML page of an evaluation: a plot for each suite and length, and all rows."""

import html
import io
from collections.abc import Iterable, Sequence
from typing import Any

from vrex.sw.eval.rows import ALL
from vrex.sw.eval.table import HEADER, words

STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 72em; padding: 0 1em; color: #222; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2em .7em; text-align: left; border-bottom: 1px solid #ddd; white-space: nowrap; }
th { border-bottom: 2px solid #888; }
tr.total { font-weight: 600; }
svg { max-width: 100%; height: auto; }
.wide { overflow-x: auto; }
"""


def make_page(result: dict[str, Any]) -> str:
    """The page.

    Args:
        result: as ``vrex eval --json`` writes it.
    """
    rows = result["rows"]
    videos = f"{len(result['seeds'])} videos of each length, seeds {_span(result['seeds'])}"
    plots = "\n".join(_plots(rows))
    lines = "\n".join(map(_line, rows, words(rows)))
    return f"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>vrex eval</title><style>{STYLE}</style></head>
<body>
<h1>Retrieval policies on ProcStream</h1>
<p>vrex {html.escape(result["vrex"])}, model {result["model"][:12]}, {videos}.
Intervals are {100 * result["confidence"]:g} %: Wilson's for an accuracy, and for the difference to
<i>full</i> the bootstrap over questions asked of both, {result["resamples"]:,} resamples. Where both agree on
all of n questions it gives a single point; a true difference of up to about 3/n is then still possible.
The ratio is attended past tokens / past tokens in the frame stage / in the text stage, in percent. Bytes are
those fetched per video, metadata included.</p>
{plots}
<h2>All rows</h2>
<div class="wide"><table>
<tr>{"".join(f"<th>{html.escape(name)}</th>" for name in HEADER)}</tr>
{lines}
</table></div>
</body>
</html>
"""


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
    left.set(xlabel="MB fetched per video, metadata included", ylabel="accuracy", ylim=(None, 1.02))
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


def _plots(rows: Sequence[dict[str, Any]]) -> Iterable[str]:
    shown = [row for row in rows if row["task"] in ALL.values()]
    for suite, length in dict.fromkeys((row["suite"], row["length"]) for row in shown):
        own = [row for row in shown if (row["suite"], row["length"]) == (suite, length)]
        yield tradeoff_svg(own, f"{suite}, {length} frames, {own[0]['n']} questions")


def _line(row: dict[str, Any], line: tuple[str, ...]) -> str:
    kind = ' class="total"' if row["task"] in ALL.values() else ""
    return f"<tr{kind}>{''.join(f'<td>{html.escape(word)}</td>' for word in line)}</tr>"


def _span(seeds: list[int]) -> str:
    if len(seeds) > 1 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds))
