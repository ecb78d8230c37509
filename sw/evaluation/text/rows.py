"""Cells of `vrex eval-text`, brought together into one row for each point."""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np

from vrex.sw.evaluation.bootstrap import paired_blocks, paired_bootstrap, wilson
from vrex.sw.evaluation.costs import mean, means, rounded
from vrex.sw.evaluation.points import Point
from vrex.sw.evaluation.rows import REFERENCE
from vrex.sw.evaluation.store import Store
from vrex.sw.evaluation.text.cells import Passage, TextCell
from vrex.sw.evaluation.text.corpus import DIGITS

DEPTHS = 4
"""Equal parts of a document that recall is told apart by."""


def make_rows(store: Store, points: Sequence[Point], passages: Sequence[Passage]) -> list[dict[str, Any]]:
    """One row for each point.

    Args:
        store: holds every cell of points and passages.
        points: of the policies; differences are taken against `full` if it is among them.
        passages: what they read.

    Returns:
        Rows with `policy`, `settings`; `tokens` (prose counted), `perplexity` and `perplexity_late` (of each
        document's second half); `to_full`, the perplexity over that of `full`, with its interval
        `to_full_low`, `to_full_high`; `needles` asked for, `recall` and its interval `low`, `high`,
        `difference` to the recall of `full` with `difference_low`, `difference_high`; `digits`, share of the
        values' digits; `by_depth`, for each of `DEPTHS` equal parts [right, asked], and `by_needles`, the
        same by the number of needles in the document; and means over documents: `ratio_read`, `ratio_ask`,
        `fetched`, `bytes` with metadata, `kv_bytes`, `metadata_bytes`, `tokens_per_cluster`; `degenerate`,
        the share of degenerate rows among those that selected, null where a policy has no rows. What compares
        with `full` is null without it. Numbers are rounded to 6 places.
    """
    reference = _results(store, REFERENCE, passages) if REFERENCE in points else None
    rows = []
    for point in points:
        results = _results(store, point, passages)
        row = {**_surprise(results, reference), **_recall(results, reference), **_cost(results)}
        rows.append({**point.key(), **rounded(row), **_parts(results)})
    return rows


def _results(store: Store, point: Point, passages: Sequence[Passage]) -> list[dict[str, Any]]:
    return [store[TextCell(point, passage).key()] for passage in passages]


def _blocks(results: list[dict[str, Any]], name: str) -> np.ndarray:
    return np.concatenate([result[name] for result in results])


def _surprise(results: list[dict[str, Any]], reference: list[dict[str, Any]] | None) -> dict[str, Any]:
    counts, sums = _blocks(results, "counted"), _blocks(results, "surprise")
    late = [
        np.array([result[name][len(result[name]) // 2 :] for name in ("surprise", "counted")]).sum(axis=1)
        for result in results
    ]
    late_sum, late_count = np.sum(late, axis=0)
    row = {
        "tokens": int(counts.sum()),
        "perplexity": math.exp(sums.sum() / counts.sum()),
        "perplexity_late": math.exp(late_sum / late_count),
        **dict.fromkeys(("to_full", "to_full_low", "to_full_high")),
    }
    if reference is not None:
        others = _blocks(reference, "surprise")
        low, high = paired_blocks(sums, others, counts)
        mean = (sums - others).sum() / counts.sum()
        row |= {"to_full": math.exp(mean), "to_full_low": math.exp(low), "to_full_high": math.exp(high)}
    return row


def _recall(results: list[dict[str, Any]], reference: list[dict[str, Any]] | None) -> dict[str, Any]:
    right = np.array([item["right"] for item in _items(results)])
    low, high = wilson(int(right.sum()), len(right))
    row = {
        "needles": len(right),
        "recall": right.mean(),
        "low": low,
        "high": high,
        "digits": fmean(item["digits"] for item in _items(results)) / DIGITS,
        **dict.fromkeys(("difference", "difference_low", "difference_high")),
    }
    if reference is not None:
        others = np.array([item["right"] for item in _items(reference)])
        span = paired_bootstrap(right, others)
        row |= {
            "difference": right.mean() - others.mean(),
            "difference_low": span[0],
            "difference_high": span[1],
        }
    return row


def _items(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [item for result in results for item in result["items"]]


def _parts(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Recall by depth and by the number of needles."""
    by_depth = [[0, 0] for _ in range(DEPTHS)]
    for item in _items(results):
        part = by_depth[min(int(item["depth"] * DEPTHS), DEPTHS - 1)]
        part[0] += item["right"]
        part[1] += 1
    by_needles: dict[str, list[int]] = {}
    for result in results:
        part = by_needles.setdefault(str(result["needles"]), [0, 0])
        part[0] += sum(item["right"] for item in result["items"])
        part[1] += len(result["items"])
    return {"by_depth": by_depth, "by_needles": by_needles}


def _cost(results: list[dict[str, Any]]) -> dict[str, Any]:
    row = means(results, ("ratio_read", "ratio_ask", "fetched", "metadata_bytes", "tokens_per_cluster"))
    row["kv_bytes"] = mean(result["bytes"] for result in results)
    row["bytes"] = mean(result["bytes"] + result["metadata_bytes"] for result in results)
    asked = sum(result["rows"] for result in results)
    row["degenerate"] = sum(result["degenerate_rows"] for result in results) / asked if asked else None
    return row
