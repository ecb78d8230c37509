"""Points, clips and rows of the figures that `vrex eval`'s cells make up."""

from typing import Any

import pytest

from vrex.sw.evaluation.cells import Clip
from vrex.sw.evaluation.figures import sweeps


def test_long_videos_come_alone() -> None:
    lengths = (96, 384, 768, 1536)
    kept = sweeps.kept_clips([Clip("tasks", frames, seed) for frames in lengths for seed in range(9)])
    assert [sum(clip.frames == frames for clip in kept) for frames in lengths] == [8, 2, 1, 1]
    assert all(clip.seed < 8 for clip in kept)


def test_sensitivity_moves_one_knob_at_a_time_over_three_seeds() -> None:
    points = [dict(point.knobs) for point in sweeps.POINTS["sensitivity"] if point.policy == "resv"]
    default = dict(sweeps._resv().knobs)
    for knobs in points:
        assert sum(knobs[name] != default[name] for name in knobs if name != "seed") <= 1
    others = sum(len(values) - 1 for values in sweeps.SENSITIVITY.values())
    assert len(points) == 3 * (1 + others)


def _row(knobs: dict[str, Any], accuracy: float) -> dict[str, Any]:
    settings = dict(sweeps._resv(**knobs).knobs)
    cost = {"ratio_frame": accuracy / 2, "ratio_text": 0.1, "bytes": 1e6 * accuracy, "degenerate": 0.3}
    span = {"low": accuracy - 0.1, "high": accuracy + 0.1, "n": 30}
    return {"policy": "resv", "settings": settings, "task": "all", "accuracy": accuracy, **span, **cost}


def test_seeds_are_brought_together() -> None:
    rows = []
    for point in sweeps.POINTS["sensitivity"]:
        if point.policy == "resv":
            knobs = dict(point.knobs)
            rows.append(_row(knobs, 0.8 if knobs["th_hd"] != 9 else 0.5 + 0.1 * knobs["seed"]))
    rows += [row | {"task": "now", "accuracy": 0.0} for row in rows]
    values = {(row["knob"], row["value"]): row for row in sweeps.by_value(rows)}
    assert len(values) == sum(map(len, sweeps.SENSITIVITY.values()))
    coarse = values["th_hd", 9]
    assert coarse["accuracy"] == pytest.approx(0.6)
    assert (coarse["lowest"], coarse["highest"]) == pytest.approx((0.5, 0.7))
    assert (coarse["low"], coarse["high"]) == pytest.approx((0.4, 0.8))
    assert (coarse["bytes"], coarse["ratio_frame"]) == pytest.approx((0.6e6, 0.3))
    assert (coarse["n"], coarse["seeds"]) == (30, 3)
    assert values["scope", "head"]["accuracy"] == pytest.approx(0.8)
