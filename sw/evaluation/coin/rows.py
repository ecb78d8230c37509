"""Cells of `vrex eval-coin`, brought together into one row for each point and task."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vrex.sw.evaluation.bootstrap import paired_blocks, wilson
from vrex.sw.evaluation.coin.annotations import Case
from vrex.sw.evaluation.coin.cells import CoinCell
from vrex.sw.evaluation.costs import means, rounded
from vrex.sw.evaluation.points import Point
from vrex.sw.evaluation.rows import REFERENCE
from vrex.sw.evaluation.store import Store

COSTS = ("frames", "ratio_frame", "ratio_text", "fetched", "bytes")
"""Figures of a case of which a row has the mean."""


def make_rows(
    store: Store, points: Sequence[Point], cases: dict[str, list[Case]], conditions: str
) -> list[dict[str, Any]]:
    """One row for each point and task.

    Args:
        store: holds every cell of points and cases.
        points: of the policies; differences are taken against `full` if it is among them.
        cases: by task.
        conditions: of the cells.

    Returns:
        Rows with `policy`, `settings`, `task`; `cases`, and `n` answers, which are more where a case asks for
        several steps; `accuracy` over the answers and its interval `low`, `high`; `difference` to `full` with
        `difference_low`, `difference_high`, drawn anew case by case (null without `full`); and means over
        cases: `frames`, `ratio_frame`, `ratio_text`, `fetched`, `bytes`. Numbers are rounded to 6 places.
    """
    rows = []
    for point in points:
        for task, group in cases.items():
            results, others = (
                [store[CoinCell(at, case, conditions).key()] for case in group] if at in points else None
                for at in (point, REFERENCE)
            )
            assert results is not None
            row = {**_accuracy(results, others), **means(results, COSTS)}
            rows.append({**point.key(), "task": task, **rounded(row)})
    return rows


def _accuracy(results: list[dict[str, Any]], reference: list[dict[str, Any]] | None) -> dict[str, Any]:
    right, counts = (np.array([f(result["right"]) for result in results]) for f in (sum, len))
    n = int(counts.sum())
    low, high = wilson(int(right.sum()), n)
    row = {"cases": len(results), "n": n, "accuracy": right.sum() / n, "low": low, "high": high}
    difference = dict.fromkeys(("difference", "difference_low", "difference_high"))
    if reference is not None:
        others = np.array([sum(result["right"]) for result in reference])
        span = paired_blocks(right, others, counts)
        difference = dict(zip(difference, ((right - others).sum() / n, *span), strict=True))
    return row | difference
