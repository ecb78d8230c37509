"""Figures that compare points of `vrex eval`: their cells are kept and resumed as that command's are."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vrex.sw.evaluation.cells import Clip
from vrex.sw.evaluation.figures.picture import new_figure, png, spans, text_table
from vrex.sw.evaluation.points import Point
from vrex.sw.evaluation.reports.rows import format_rows, interval_text, percent

SEEDS = (0, 1, 2)
"""Of the hyperplanes."""

LONG = 768
"""Frames of one length that are spent at least: longer videos come alone."""

SENSITIVITY = {
    "n_hp": (16, 32, 64),
    "th_hd": (3, 5, 7, 9),
    "th_r": (0.1, 0.3, 0.5),
    "window": (0, 10, 20),
    "scope": ("layer", "head"),
}
"""Values of each knob, the others at their defaults."""


def _resv(**knobs: Any) -> Point:
    return Point.of("resv", knobs)


def _sensitivity() -> list[Point]:
    points = [
        _resv(**{knob: value, "seed": seed})
        for knob, values in SENSITIVITY.items()
        for value in values
        for seed in SEEDS
    ]
    return list(dict.fromkeys(points))


FULL = Point.of("full", {})

POINTS = {
    "clustering": [FULL, _resv(), Point.of("resv-nocluster", {})],
    "sensitivity": [FULL, *_sensitivity()],
    "predict": [FULL, *(_resv(predict=mode) for mode in ("same", "next", "reuse"))],
    "lengths": [FULL, _resv(), Point.of("rekv", {})],
}
"""Points of each figure."""

LENGTHS = {"lengths": (96, 192, 384, 768)}
"""Frames, where they are not the command's default."""


def kept_clips(clips: Sequence[Clip]) -> list[Clip]:
    """Of long videos only the first ones: as many as make up `LONG` frames, at least one."""
    kept: list[Clip] = []
    for clip in clips:
        same = sum(clip.frames == other.frames for other in kept)
        if same == 0 or (same + 1) * clip.frames <= LONG:
            kept.append(clip)
    return kept


def whole(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows over all tasks."""
    return [row for row in rows if row["task"] == "all"]


def by_value(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of resv brought together over the seeds of hyperplanes, one for each knob's value.

    Returns:
        `knob`, `value`, `n` questions; means over the seeds of `accuracy`, `ratio_frame`, `ratio_text`,
        `bytes` and `degenerate`; `lowest` and `highest` accuracy of a seed; `low` and `high`, from the lower
        end of the worst seed's Wilson interval to the upper one of the best's: the questions are the same,
        they don't add up.
    """
    defaults = dict(_resv().knobs)
    found = []
    for knob, values in SENSITIVITY.items():
        for value in values:
            wanted = defaults | {knob: value}
            own = [
                row
                for row in whole(rows)
                if row["policy"] == "resv" and row["settings"] | {"seed": defaults["seed"]} == wanted
            ]
            accuracy = [row["accuracy"] for row in own]
            found.append(
                {
                    "knob": knob,
                    "value": value,
                    "n": own[0]["n"],
                    "seeds": len(own),
                    "lowest": min(accuracy),
                    "highest": max(accuracy),
                    "low": min(row["low"] for row in own),
                    "high": max(row["high"] for row in own),
                    **{
                        name: round(float(np.mean([row[name] for row in own])), 6)
                        for name in ("accuracy", "ratio_frame", "ratio_text", "bytes", "degenerate")
                    },
                }
            )
    return found


def table(name: str, figures: dict[str, Any]) -> str:
    """The rows over all tasks; of `sensitivity` those by value."""
    if name != "sensitivity":
        return format_rows(whole(figures["rows"]))
    lines: list[tuple[Any, ...]] = [
        (
            *("knob", "value", "accuracy", "seeds from", "to", "95 %", "n"),
            *("ratio frame/text %", "MB/video", "degenerate %"),
        )
    ]
    for row in figures["values"]:
        ratio = f"{percent(row['ratio_frame'])}/{percent(row['ratio_text'])}"
        seeds = (f"{row['lowest']:.3f}", f"{row['highest']:.3f}")
        accuracy = f"{row['accuracy']:.3f}", *seeds, interval_text(row), row["n"]
        cost = ratio, f"{row['bytes'] / 1e6:.0f}", percent(row["degenerate"])
        lines.append((row["knob"], str(row["value"]), *accuracy, *cost))
    return text_table(lines)


def plot(name: str, figures: dict[str, Any]) -> bytes:
    """Accuracy and bytes: over each knob, over the length, or as bars of the points."""
    if name == "sensitivity":
        return _knobs(figures["values"])
    if name == "lengths":
        return _lengths(whole(figures["rows"]))
    return _bars(whole(figures["rows"]))


def _knobs(values: list[dict[str, Any]]) -> bytes:
    figure, axes = new_figure(len(SENSITIVITY), 3.0)
    cost: Any = None
    for at, knob in zip(axes, SENSITIVITY, strict=True):
        own = [row for row in values if row["knob"] == knob]
        places = range(len(own))
        at.errorbar(places, [row["accuracy"] for row in own], spans(own), fmt="o-", capsize=3)
        at.set(xlabel=knob, xticks=places, xticklabels=[str(row["value"]) for row in own], ylim=(0, 1.03))
        at.grid(alpha=0.3)
        cost = at.twinx()
        cost.plot(places, [row["bytes"] / 1e6 for row in own], "s--", color="tab:red", ms=4)
        cost.set_ylim(0, 1.1 * max(row["bytes"] / 1e6 for row in values))
        cost.tick_params(colors="tab:red")
    axes[0].set_ylabel("accuracy (blue)")
    cost.set_ylabel("MB a video (red)", color="tab:red")
    return png(figure)


def _lengths(rows: list[dict[str, Any]]) -> bytes:
    figure, (left, middle, right) = new_figure(3, 3.4)
    frames: list[Any] = []
    for policy in dict.fromkeys(row["policy"] for row in rows):
        own = [row for row in rows if row["policy"] == policy]
        frames = [row["length"] for row in own]
        left.errorbar(frames, [row["accuracy"] for row in own], spans(own), fmt="o-", capsize=3, label=policy)
        middle.plot(frames, [100 * row["ratio_frame"] for row in own], "o-")
        right.plot(frames, [row["bytes"] / 1e6 for row in own], "o-")
    left.set(ylabel="accuracy", ylim=(0, 1.03))
    middle.set(ylabel="past attended, frame stage [%]", ylim=(0, 104))
    right.set(ylabel="MB a video")
    for at in (left, middle, right):
        at.set(xlabel="frames", xscale="log", xticks=frames, xticklabels=[str(n) for n in frames])
        at.minorticks_off()
        at.grid(alpha=0.3)
    left.legend(fontsize=8)
    return png(figure)


def _bars(rows: list[dict[str, Any]]) -> bytes:
    figure, (left, middle, right) = new_figure(3, 3.4)
    names = [row["settings"].get("predict", "same") for row in rows]
    told = len(set(names)) > 1
    labels = [
        f"{row['policy']}\n{name}" if told and row["policy"] == "resv" else row["policy"]
        for row, name in zip(rows, names, strict=True)
    ]
    left.bar(labels, [row["accuracy"] for row in rows], yerr=spans(rows), capsize=4)
    left.set(ylabel="accuracy", ylim=(0, 1.05))
    middle.bar(labels, [100 * row["ratio_frame"] for row in rows])
    middle.set(ylabel="past attended, frame stage [%]")
    right.bar(labels, [row["bytes"] / 1e6 for row in rows])
    right.set(ylabel="MB a video, metadata included")
    for at in (left, middle, right):
        at.tick_params(axis="x", labelsize=7)
    return png(figure)
