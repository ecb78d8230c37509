"""Rows out of cells that are made up."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vrex.sw.evaluation.bootstrap import paired_bootstrap, wilson
from vrex.sw.evaluation.cells import Clip, VideoCell
from vrex.sw.evaluation.page import make_page
from vrex.sw.evaluation.points import Point
from vrex.sw.evaluation.reports.rows import format_rows
from vrex.sw.evaluation.rows import make_rows
from vrex.sw.evaluation.store import open_store

FULL, RESV = Point.of("full", {}), Point.of("resv", {"th_r": 0.2})
CLIPS = [Clip("tasks", 48, seed) for seed in (1, 2)]


def item(task: str, time: float, right: bool) -> dict[str, Any]:
    known = {"ideal": 1 / time} if task == "now" else {}
    return {"task": task, "time": time, "asked": task, "expected": "a", "given": "a", "right": right, **known}


ITEMS = {
    (FULL, 1): [item("now", 1.0, True), item("next", 2.0, True)],
    (FULL, 2): [item("now", 1.0, True), item("now", 3.0, False)],
    # In another order: rows pair by question, not by place.
    (RESV, 1): [item("next", 2.0, False), item("now", 1.0, True)],
    (RESV, 2): [item("now", 3.0, False), item("now", 1.0, True)],
}


def rows_of(path: Path, points: list[Point]) -> list[dict[str, Any]]:
    with open_store(path / "a.jsonl", "model") as store:
        for (point, seed), items in ITEMS.items():
            key = VideoCell(point, Clip("tasks", 48, seed)).key()
            cost = {"ratio_frame": 0.1 * seed, "ratio_text": None, "fetched": 10 * seed, "bytes": 100 * seed}
            cost |= {"degenerate": None if point is FULL else 0.2 * seed}
            store.add(key, {**key, "items": items, **cost})
        return make_rows(store, points, CLIPS)


def test_rows_hold_what_the_cells_say(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, [FULL, RESV])
    assert [(row["policy"], row["task"], row["accuracy"], row["n"]) for row in rows] == [
        ("full", "all", 0.75, 4),
        ("full", "now", round(2 / 3, 6), 3),
        ("full", "next", 1.0, 1),
        ("resv", "all", 0.5, 4),
        ("resv", "now", round(2 / 3, 6), 3),
        ("resv", "next", 0.0, 1),
    ]
    for row in rows:
        assert row["length"] == 48
        assert row["settings"].get("th_r") == (0.2 if row["policy"] == "resv" else None)
        assert (row["ratio_frame"], row["ratio_text"], row["fetched"], row["bytes"]) == (0.15, None, 15, 150)
        assert row["degenerate"] == (0.3 if row["policy"] == "resv" else None)
        best = {"now": round(7 / 9, 6), "next": None, "all": round(7 / 9, 6)}
        assert row["ideal"] == best[row["task"]]
        right = round(row["accuracy"] * row["n"])
        assert [row["low"], row["high"]] == pytest.approx(wilson(right, row["n"]), abs=1e-6)


def test_differences_are_taken_question_by_question(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, [FULL, RESV])
    resv = rows[3]
    full_right, resv_right = np.array([1, 1, 1, 0]), np.array([1, 0, 1, 0])
    expected = paired_bootstrap(resv_right, full_right)
    assert resv["difference"] == -0.25
    assert (resv["difference_low"], resv["difference_high"]) == pytest.approx(expected, abs=1e-6)
    assert expected[0] < expected[1] == 0
    assert (rows[0]["difference"], rows[0]["difference_low"], rows[0]["difference_high"]) == (0, 0, 0)


def test_without_full_there_is_no_difference(tmp_path: Path) -> None:
    for row in rows_of(tmp_path, [RESV]):
        assert row["difference"] is row["difference_low"] is row["difference_high"] is None


def test_table_and_page_show_every_row(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, [FULL, RESV])
    table = format_rows(rows).splitlines()
    assert len(table) == 1 + len(rows)
    assert table[4].split()[:5] == ["resv", "th_r=0.2", "48", "all", "0.500"]
    result = {
        "vrex": "1.0",
        "model": "ab" * 32,
        "seeds": [1, 2],
        "level": "easy",
        "confidence": 0.95,
        "resamples": 10_000,
        "rows": rows,
    }
    page = make_page(result)
    assert page == make_page(result)
    # A line for each point, and a header.
    assert page.count("<tr") == 1 + 2
    assert page.count("<span title=") == len(rows)
    assert page.count("<svg") == page.count("</svg>") == 1
    # Self-contained: nothing is loaded from elsewhere.
    assert "src=" not in page
    assert "<link" not in page
