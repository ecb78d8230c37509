"""Cells of two documents become rows, checked by hand."""

import math
from pathlib import Path
from typing import Any

import pytest

from vrex.sw.evaluation.points import Point
from vrex.sw.evaluation.store import open_store
from vrex.sw.evaluation.text.cells import Passage, TextCell
from vrex.sw.evaluation.text.rows import make_rows

PASSAGES = [Passage("t", 0, 8, 1, 2), Passage("t", 1, 8, 2, 2)]
FULL, OTHER = Point.of("full", {}), Point.of("topk", {"ratio": 0.5})
NAMES = ("policy", "settings", "text", "index", "tokens", "needles", "chunk")


def _cell(point: Point, passage: Passage, surprise: list[float], right: list[bool]) -> dict[str, Any]:
    depths = [0.5] if passage.needles == 1 else [0.0, 1.0]
    return {
        **TextCell(point, passage).key(),
        "surprise": surprise,
        "counted": [4, 2, 0, 1],
        "items": [
            {"depth": depth, "right": yes, "digits": 7 if yes else 3}
            for depth, yes in zip(depths, right, strict=True)
        ],
        "ratio_read": 1.0 if point is FULL else 0.25 * (1 + passage.index),
        "ratio_ask": 0.5,
        "fetched": 10,
        "bytes": 1000 * passage.index,
        "metadata_bytes": 10,
        "tokens_per_cluster": None,
        "rows": 0 if point is FULL else 100,
        "degenerate_rows": 0 if point is FULL else 10 * (1 + passage.index),
    }


@pytest.fixture
def rows(tmp_path: Path) -> list[dict[str, Any]]:
    full, other = [8.0, 4.0, 0.0, 2.0], [8.7, 4.35, 0.0, 2.175]
    with open_store(tmp_path / "a.jsonl", "m", NAMES) as store:
        for passage in PASSAGES:
            n = passage.needles
            for point, surprise, right in (
                (FULL, full, [True] * n),
                (OTHER, other, [n == 1] + [True] * (n - 1)),
            ):
                cell = _cell(point, passage, surprise, right)
                store.add(TextCell(point, passage).key(), cell)
        return make_rows(store, [FULL, OTHER], PASSAGES)


def test_perplexity(rows: list[dict[str, Any]]) -> None:
    full, other = rows
    assert full["tokens"] == 14
    assert full["perplexity"] == pytest.approx(math.exp(2), abs=1e-5)
    assert other["perplexity"] == pytest.approx(math.exp(2.175), abs=1e-5)
    assert other["perplexity_late"] == pytest.approx(math.exp(2.175), abs=1e-5)
    assert (full["to_full"], full["to_full_low"], full["to_full_high"]) == (1, 1, 1)
    # Each token is .175 worse, whichever blocks are drawn.
    for name in ("to_full", "to_full_low", "to_full_high"):
        assert other[name] == pytest.approx(math.exp(0.175), abs=1e-5)


def test_recall(rows: list[dict[str, Any]]) -> None:
    full, other = rows
    assert (full["needles"], full["recall"], other["recall"]) == (3, 1.0, pytest.approx(2 / 3, abs=1e-6))
    assert other["digits"] == pytest.approx((7 + 3 + 7) / 21, abs=1e-6)
    assert other["difference"] == pytest.approx(-1 / 3, abs=1e-6)
    assert other["difference_low"] <= other["difference"] <= other["difference_high"] <= 0
    assert other["low"] < other["recall"] < other["high"]
    # The very end belongs to the last part.
    assert other["by_depth"] == [[0, 1], [0, 0], [1, 1], [1, 1]]
    assert other["by_needles"] == {"1": [1, 1], "2": [1, 2]}


def test_cost(rows: list[dict[str, Any]]) -> None:
    other = rows[1]
    assert (other["ratio_read"], other["ratio_ask"]) == (0.375, 0.5)
    assert (other["kv_bytes"], other["metadata_bytes"], other["bytes"]) == (500, 10, 510)
    assert other["tokens_per_cluster"] is None
    assert (rows[0]["degenerate"], other["degenerate"]) == (None, 0.15)


def test_without_full_nothing_is_compared(tmp_path: Path) -> None:
    with open_store(tmp_path / "a.jsonl", "m", NAMES) as store:
        store.add(TextCell(OTHER, PASSAGES[0]).key(), _cell(OTHER, PASSAGES[0], [8.0, 4.0, 0.0, 2.0], [True]))
        (row,) = make_rows(store, [OTHER], PASSAGES[:1])
    assert row["to_full"] is None
    assert row["difference"] is None
