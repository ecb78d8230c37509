"""Figure `quantised`: ReSV on a KV cache of 4 bits a value, in Oaken's groups."""

from typing import Any

import numpy as np

from vrex.sw.evaluation.bootstrap import wilson
from vrex.sw.evaluation.cells import Bench, Clip, VideoCell
from vrex.sw.evaluation.figures.picture import new_figure, png, spans, text_table
from vrex.sw.evaluation.points import Point
from vrex.sw.evaluation.reports.rows import interval_text
from vrex.sw.retrieval.policies.account import BF16_BYTES, Reporting
from vrex.sw.retrieval.policies.base import Choice, Chunk
from vrex.sw.retrieval.policies.oaken import SCALES, Oaken
from vrex.sw.retrieval.policies.shape import Shape

BITS = 16

RESV = {"resv": {}, "resv 4-bit means": {"mean_bits": 4}}
"""Settings of resv that are tried with and without a quantised cache."""


class Quantised:
    """A selecting policy whose keys and values are stored as `oaken` stores them (see `Policy`, `Codec`).

    Hashes and means are made of what is read back. The scales of a fetched token are counted for the KV head
    that fetches it: one of Oaken's belongs to all heads of a layer, so up to `kv_heads` times too often.
    """

    def __init__(self, policy: Reporting, store: Oaken, shape: Shape) -> None:
        self.name, self._policy, self._store, self._shape = f"{policy.name}-oaken", policy, store, shape

    def encode(self, layer: int, k: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Codec.encode`."""
        return self._store.encode(layer, k, v)

    def select(self, chunk: Chunk) -> Choice:
        """See `Policy.select`."""
        return self._policy.select(chunk)

    def report(self) -> dict[str, Any]:
        """The policy's, its K and V in the bits that they are stored in, scales among the metadata."""
        report = self._policy.report()
        fetched = report["fetched"]
        scales = fetched["tokens"] * 2 * SCALES * BF16_BYTES
        stored = round(fetched["bytes"] * self._store.bits_per_value() / BITS)
        return report | {
            "fetched": fetched | {"bytes": stored, "metadata_bytes": fetched["metadata_bytes"] + scales}
        }


def measure(bench: Bench, clips: list[Clip]) -> dict[str, Any]:
    """`full`, `oaken` and resv with and without Oaken's storage on all videos."""
    shape = Shape.of(bench.model.config)

    def quantised(policy: Reporting) -> Reporting:
        store = bench.make(Point.of("oaken", {}))
        assert isinstance(store, Oaken)
        return Quantised(policy, store, shape)

    def plain(policy: Reporting) -> Reporting:
        return policy

    runs: dict[str, tuple[Point, Any]] = {name: (Point.of(name, {}), plain) for name in ("full", "oaken")}
    for name, knobs in RESV.items():
        runs[name] = Point.of("resv", knobs), plain
        runs[f"{name}, 4-bit KV"] = Point.of("resv", knobs), quantised
    return {
        "clips": [vars(clip) for clip in clips],
        "rows": [
            _row(name, [bench.run(VideoCell(point, clip), wrap) for clip in clips])
            for name, (point, wrap) in runs.items()
        ],
    }


def _row(name: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    right = [item["right"] for result in results for item in result["items"]]
    low, high = wilson(sum(right), len(right))
    means = {
        key: float(np.mean([result[key] for result in results]))
        for key in ("ratio_frame", "ratio_text", "fetched", "bytes")
    }
    return {
        "name": name,
        "accuracy": float(np.mean(right)),
        "low": low,
        "high": high,
        "n": len(right),
    } | means


def table(figures: dict[str, Any]) -> str:
    """A line for each way to store and to select."""
    lines: list[tuple[Any, ...]] = [("", "accuracy", "95 %", "n", "ratio frame/text %", "MB/video")]
    for row in figures["rows"]:
        ratio = f"{100 * row['ratio_frame']:.1f}/{100 * row['ratio_text']:.1f}"
        lines.append(
            (
                row["name"],
                f"{row['accuracy']:.3f}",
                interval_text(row),
                row["n"],
                ratio,
                f"{row['bytes'] / 1e6:.0f}",
            )
        )
    return text_table(lines)


def plot(figures: dict[str, Any]) -> bytes:
    """Accuracy and bytes as bars."""
    figure, (left, right) = new_figure(2, 4.6)
    rows = figures["rows"]
    names = [row["name"].replace(", ", "\n").replace(" 4-bit m", "\n4-bit m") for row in rows]
    left.bar(names, [row["accuracy"] for row in rows], yerr=spans(rows), capsize=3)
    left.set(ylabel="accuracy", ylim=(0, 1.05))
    right.bar(names, [row["bytes"] / 1e6 for row in rows])
    right.set(ylabel="MB a video, metadata included")
    for at in (left, right):
        at.tick_params(axis="x", labelsize=7)
    return png(figure)
