"""Rows of `vrex eval-text` as a table and as a picture."""

import io
from collections.abc import Sequence
from typing import Any

from vrex.sw.evaluation.reports.rows import percent, settings_text, shown_knobs
from vrex.sw.evaluation.reports.table import aligned

HEADER = (
    *("policy", "settings", "perplexity", "to full", "needles found", "ratio"),
    *("K+V MB", "meta MB", "MB", "degenerate"),
)


def format_rows(rows: Sequence[dict[str, Any]]) -> str:
    """An aligned table; the ratio is reading / asking in percent, degenerate the share of such rows."""
    knobs = shown_knobs(rows)
    lines = [HEADER, *(_words(row, knobs) for row in rows)]
    return aligned(lines)


def _words(row: dict[str, Any], knobs: dict[str, list[str]]) -> tuple[str, ...]:
    found = round(row["recall"] * row["needles"])
    return (
        row["policy"],
        settings_text(row, knobs),
        f"{row['perplexity']:.3f}",
        ratio_text(row),
        f"{found} of {row['needles']} [{row['low']:.2f}..{row['high']:.2f}]",
        f"{percent(row['ratio_read'])}/{percent(row['ratio_ask'])}",
        f"{row['kv_bytes'] / 1e6:,.0f}",
        f"{row['metadata_bytes'] / 1e6:,.0f}",
        f"{row['bytes'] / 1e6:,.0f}",
        "-" if row["degenerate"] is None else f"{percent(row['degenerate'])} %",
    )


def ratio_text(row: dict[str, Any]) -> str:
    """The perplexity over that of `full`, and its interval."""
    if row["to_full"] is None:
        return "-"
    return f"{row['to_full']:.4f} [{row['to_full_low']:.4f}..{row['to_full_high']:.4f}]"


def picture(rows: Sequence[dict[str, Any]], title: str) -> bytes:
    """A PNG: perplexity and needles found, over the bytes that were moved; points of a policy are joined.

    Args:
        rows: of `make_rows`.
        title: what was read.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for policy in dict.fromkeys(row["policy"] for row in rows):
        own = sorted((row for row in rows if row["policy"] == policy), key=lambda row: row["bytes"])
        cost = [row["bytes"] / 1e6 for row in own]
        style = {"label": policy, "marker": "o", "ms": 4, "lw": 1}
        (line,) = left.plot(cost, [row["perplexity"] for row in own], **style)
        recall = [row["recall"] for row in own]
        spans = [[row["recall"] - row["low"] for row in own], [row["high"] - row["recall"] for row in own]]
        right.errorbar(cost, recall, yerr=spans, capsize=2, color=line.get_color(), **style)
    left.set(xlabel="MB moved per document, metadata included", ylabel="perplexity")
    right.set(xlabel="MB moved per document, metadata included", ylabel="needles found", ylim=(-0.03, 1.03))
    for axes in (left, right):
        axes.grid(alpha=0.3)
    left.legend(fontsize=8)
    figure.suptitle(title, fontsize=11, parse_math=False)
    content = io.BytesIO()
    # Without the version of matplotlib in it the same figures give the same bytes.
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()
