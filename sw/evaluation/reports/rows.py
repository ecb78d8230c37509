"""Rows of an evaluation as text."""

from collections.abc import Sequence
from typing import Any

from vrex.sw.evaluation.reports.table import aligned
from vrex.sw.retrieval.policies.registry import entry

HEADER = ("policy", "settings", "frames", "task", "accuracy", "n", "to full", "ratio", "MB/video")


def format_rows(rows: Sequence[dict[str, Any]]) -> str:
    """An aligned table; the ratio is frame / text in percent."""
    knobs = shown_knobs(rows)
    lines = [HEADER, *(_words(row, knobs) for row in rows)]
    return aligned(lines)


def _words(row: dict[str, Any], knobs: dict[str, list[str]]) -> tuple[str, ...]:
    return (
        row["policy"],
        settings_text(row, knobs),
        str(row["length"]),
        row["task"],
        f"{row['accuracy']:.3f} [{interval_text(row)}]",
        str(row["n"]),
        difference_text(row),
        f"{percent(row['ratio_frame'])}/{percent(row['ratio_text'])}",
        f"{row['bytes'] / 1e6:.1f}",
    )


def shown_knobs(rows: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """For each policy the knobs that are not at their defaults in all of its rows."""
    policies = dict.fromkeys(row["policy"] for row in rows)
    return {
        policy: _moved([row["settings"] for row in rows if row["policy"] == policy], policy)
        for policy in policies
    }


def _moved(settings: Sequence[dict[str, Any]], policy: str) -> list[str]:
    defaults = entry(policy).knobs
    return [knob for knob, value in defaults.items() if any(each[knob] != value for each in settings)]


def settings_text(row: dict[str, Any], knobs: dict[str, list[str]]) -> str:
    """A row's values of the knobs that are shown (`shown_knobs`)."""
    return " ".join(f"{knob}={row['settings'][knob]}" for knob in knobs[row["policy"]]) or "-"


def interval_text(row: dict[str, Any]) -> str:
    """The interval of the accuracy."""
    return f"{row['low']:.3f}..{row['high']:.3f}"


def difference_text(row: dict[str, Any]) -> str:
    """The difference to `full` and its interval."""
    if row["difference"] is None:
        return "-"
    return f"{row['difference']:+.3f} [{row['difference_low']:+.3f}..{row['difference_high']:+.3f}]"


def percent(ratio: float | None) -> str:
    """A ratio in percent."""
    return "-" if ratio is None else f"{100 * ratio:.1f}"
