"""Rows of an evaluation as text."""

from collections.abc import Sequence
from typing import Any

from vrex.sw.policies.registry import entry

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


def words(rows: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Each row's figures, as `HEADER` names them; the ratio is frame / text in percent."""
    policies = dict.fromkeys(row["policy"] for row in rows)
    shown = {policy: _moved([row for row in rows if row["policy"] == policy]) for policy in policies}
    return [_words(row, shown[row["policy"]]) for row in rows]


def _moved(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The knobs of one policy that are not at their defaults in all of its rows."""
    defaults = entry(rows[0]["policy"]).knobs
    return [knob for knob, value in defaults.items() if any(row["settings"][knob] != value for row in rows)]


def _words(row: dict[str, Any], knobs: Sequence[str]) -> tuple[str, ...]:
    return (
        row["policy"],
        " ".join(f"{knob}={row['settings'][knob]}" for knob in knobs) or "-",
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
    lines = [HEADER, *words(rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(f"{word:<{width}}" for word, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3f}"


def _percent(ratio: float | None) -> str:
    return "-" if ratio is None else f"{100 * ratio:.1f}"
