"""What a policy cost in an evaluation's cells, and numbers of rows: means and rounding."""

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

PLACES = 6
"""Decimal places of a row's numbers."""


def cost_of(report: dict[str, Any]) -> dict[str, Any]:
    """A video cell's `ratio_frame`, `ratio_text`, `fetched` tokens, `bytes` with metadata, and `degenerate`.

    The last is the share of degenerate rows among those that selected, None where a policy has no rows.

    Args:
        report: of the policy (`Resv.report`).
    """
    return {
        "ratio_frame": report["ratio"]["frame"],
        "ratio_text": report["ratio"]["text"],
        "fetched": report["fetched"]["tokens"],
        "bytes": report["fetched"]["bytes"] + report["fetched"]["metadata_bytes"],
        "degenerate": report["degenerate_rows"] / report["rows"] if report["rows"] else None,
    }


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of the values that are not None; None without any."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def means(results: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, float | None]:
    """The mean of each named figure over results."""
    return {name: mean(result[name] for result in results) for name in names}


def rounded(row: dict[str, Any]) -> dict[str, Any]:
    """A row's numbers to `PLACES` places; None and whole numbers stay."""
    return {
        name: value if value is None or isinstance(value, int) else round(float(value), PLACES)
        for name, value in row.items()
    }
