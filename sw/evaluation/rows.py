"""Results of cells, brought together into the rows of a table."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vrex.sw.evaluation.bootstrap import paired_bootstrap, wilson
from vrex.sw.evaluation.cells import Clip, VideoCell
from vrex.sw.evaluation.costs import PLACES, mean, means, rounded
from vrex.sw.evaluation.points import Point
from vrex.sw.evaluation.store import Store
from vrex.sw.videollm.procstream.script import ALL_KINDS

REFERENCE = Point.of("full", {})
"""What the others are compared with."""
ALL = {"tasks": "all", "needles": "needles"}
"""Name of the row over all tasks of a suite, where that means something."""
COSTS = ("ratio_frame", "ratio_text", "fetched", "bytes", "degenerate")
"""Figures of a video of which a row has the mean; a ratio or share is null where no video had one."""


def make_rows(store: Store, points: Sequence[Point], clips: Sequence[Clip]) -> list[dict[str, Any]]:
    """One row for each point, length and task, in that order.

    Args:
        store: holds every cell of points and clips.
        points: of the policies; differences are taken against `full` if it is among them.
        clips: of all suites and lengths, each with something to ask (`check_clips`).

    Returns:
        Rows with `policy`, `settings`, `length` (frames), `suite`, `task`; `accuracy`, its interval `low`,
        `high`, and `n` questions; `difference` to `full` on the same questions with `difference_low`,
        `difference_high` (all null without `full`, or where the items depend on the policy); `ideal`, the
        share that an ideal observer answers right on average (null where nothing is asked); `ratio_frame`,
        `ratio_text`, `fetched` tokens (sum over layers and KV heads), `bytes` with metadata and `degenerate`
        (share of degenerate rows), each the mean of the suite's videos. Numbers are rounded to 6 places.
    """
    groups: dict[tuple[str, int], list[Clip]] = {}
    for clip in clips:
        groups.setdefault((clip.suite, clip.frames), []).append(clip)
    with_reference = REFERENCE in points
    rows = []
    for point in points:
        for (suite, frames), group in groups.items():
            results = _results(store, point, group)
            reference = _by_question(_results(store, REFERENCE, group)) if with_reference else None
            items, best = _by_question(results), _by_question(results, "ideal")
            cost = rounded(means(results, COSTS))
            start = {**point.key(), "length": frames, "suite": suite}
            for task, keys in _tasks(suite, items).items():
                figures = _accuracy(items, reference, keys)
                rows.append({**start, "task": task, **figures, "ideal": _ideal(best, keys), **cost})
    return rows


Items = dict[tuple[int, str, float, str | None], Any]
"""A figure of each item, such as whether it was answered right, by video, task, time and question."""


def _results(store: Store, point: Point, clips: Sequence[Clip]) -> list[dict[str, Any]]:
    return [store[VideoCell(point, clip).key()] for clip in clips]


def _by_question(results: list[dict[str, Any]], figure: str = "right") -> Items:
    return {
        (result["seed"], item["task"], item["time"], item["asked"]): item.get(figure)
        for result in results
        for item in result["items"]
    }


def _tasks(suite: str, items: Items) -> dict[str, list[Any]]:
    """The keys of each task's items, all together first, then the tasks in the order of ProcStream's."""
    found = sorted(
        {key[1] for key in items}, key=lambda task: (ALL_KINDS.index(task) if task in ALL_KINDS else 0, task)
    )
    tasks = {task: [key for key in items if key[1] == task] for task in found}
    return ({ALL[suite]: list(items)} if suite in ALL else {}) | tasks


def _accuracy(items: Items, reference: Items | None, keys: list[Any]) -> dict[str, Any]:
    right = np.array([items[key] for key in keys])
    low, high = wilson(int(right.sum()), len(right))
    numbers = {"accuracy": float(right.mean()), "low": low, "high": high}
    difference = dict.fromkeys(("difference", "difference_low", "difference_high"))
    paired = reference is not None and all(key in reference for key in keys)
    if paired and reference is not None:
        others = np.array([reference[key] for key in keys])
        span = paired_bootstrap(right, others)
        difference = dict(zip(difference, (right.mean() - others.mean(), *span), strict=True))
    return {**rounded(numbers | difference), "n": len(right)}


def _ideal(best: Items, keys: list[Any]) -> float | None:
    """The mean over the items that are questions."""
    share = mean(best[key] for key in keys)
    return None if share is None else round(share, PLACES)
