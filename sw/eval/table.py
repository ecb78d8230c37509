"""Rows of an evaluation as text."""

from collections.abc import Sequence
from typing import Any

from vrex.sw.eval.points import Point

HEADER = (
    "policy",
    "settings",
    "frames",
    "task",
    "accuracy",
    "[95 %]",
    "n",
    "to full",
    "[95 %]",
    "ratio",
    "MB/video",
)


def label(row: dict[str, Any]) -> str:
    """The knobs of a row that are not at their defaults."""
    return Point(row["policy"], tuple(row["settings"].items())).label


def cells_of(row: dict[str, Any]) -> tuple[str, ...]:
    """A row's figures, as `HEADER` names them; the ratio is frame / text in percent."""
    return (
        row["policy"],
        label(row) or "-",
        str(row["length"]),
        row["task"],
        f"{row['accuracy']:.3f}",
        f"{row['low']:.3f}..{row['high']:.3f}",
        str(row["n"]),
        _signed(row["difference"]),
        "-" if row["difference"] is None else f"{row['difference_low']:+.3f}..{row['difference_high']:+.3f}",
        f"{_percent(row['ratio_frame'])}/{_percent(row['ratio_text'])}",
        f"{row['bytes'] / 1e6:.1f}",
    )


def format_rows(rows: Sequence[dict[str, Any]]) -> str:
    """An aligned table."""
    lines = [HEADER, *(cells_of(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(f"{word:<{width}}" for word, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3f}"


def _percent(ratio: float | None) -> str:
    return "-" if ratio is None else f"{100 * ratio:.1f}"
