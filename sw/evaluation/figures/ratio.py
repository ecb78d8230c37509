"""Figure `ratio` (the paper's Fig. 20): what resv attends to per layer and KV head, and what rekv does."""

from typing import Any

import numpy as np

from vrex.sw.evaluation.cells import Bench, Clip, VideoCell
from vrex.sw.evaluation.figures.picture import heat, new_figure, png, text_table
from vrex.sw.evaluation.points import Point
from vrex.sw.retrieval.policies.account import Reporting

POLICIES = ("resv", "rekv")


def measure(bench: Bench, clips: list[Clip]) -> dict[str, Any]:
    """Both policies at their defaults on the first video, each in its own stream."""
    found = {}
    for name in POLICIES:
        kept: list[Reporting] = []

        def keep(policy: Reporting, kept: list[Reporting] = kept) -> Reporting:
            kept.append(policy)
            return policy

        result = bench.run(VideoCell(Point.of(name, {}), clips[0]), keep)
        report = kept[0].report()
        found[name] = {
            "per_layer_head": report["ratio"]["per_layer_head"],
            **{key: result[key] for key in ("ratio_frame", "ratio_text", "fetched", "bytes")},
            "right": sum(item["right"] for item in result["items"]),
            "questions": len(result["items"]),
        }
    fewer = found["rekv"]["fetched"] / max(found["resv"]["fetched"], 1)
    return {"clip": vars(clips[0]), "policies": found, "fewer_fetched": fewer}


def table(figures: dict[str, Any]) -> str:
    """Range over layers and heads, fetched tokens and bytes."""
    lines: list[tuple[Any, ...]] = [
        ("policy", "ratio frame/text %", "layer and head from", "to %", "fetched tokens", "MB", "right")
    ]
    for name, own in figures["policies"].items():
        ratios = 100 * np.array(own["per_layer_head"])
        lines.append(
            (
                name,
                f"{100 * own['ratio_frame']:.1f}/{100 * own['ratio_text']:.1f}",
                f"{ratios.min():.1f}",
                f"{ratios.max():.1f}",
                f"{own['fetched']:,}",
                f"{own['bytes'] / 1e6:.0f}",
                f"{own['right']} of {own['questions']}",
            )
        )
    return text_table(lines) + f"\nresv fetches {figures['fewer_fetched']:.1f} times fewer tokens than rekv"


def plot(figures: dict[str, Any]) -> bytes:
    """A heat map for each policy."""
    figure, axes = new_figure(len(figures["policies"]), 3.0)
    image: Any = None
    for at, (name, own) in zip(axes, figures["policies"].items(), strict=True):
        image = heat(at, own["per_layer_head"], f"{name}, {own['fetched']:,} tokens fetched", 0, 1)
    axes[0].set_ylabel("layer")
    figure.colorbar(image, ax=axes[-1], label="share of the past attended")
    return png(figure)
