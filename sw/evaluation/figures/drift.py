"""Figure `drift`: how far the running mean in BF16 is from the exact mean of a cluster's keys."""

from typing import Any

import numpy as np

from vrex.model.config import preset
from vrex.model.dre.hctable import HCTable
from vrex.model.lib import arith
from vrex.sw.driver import open_transport
from vrex.sw.evaluation.cells import Bench, Clip
from vrex.sw.evaluation.figures.picture import new_figure, png, text_table
from vrex.sw.evaluation.figures.watch import capture_keys
from vrex.sw.retrieval.policies.host_tables import HostTables
from vrex.sw.retrieval.policies.resv_settings import ResvSettings
from vrex.sw.retrieval.policies.shape import Shape
from vrex.sw.retrieval.policies.tables import flat_keys

TH_HDS = (5, 7, 10)
LARGEST = 9
"""Sizes are binned by powers of two, the last bin open: 1, 2-3, 4-7, ..., 512 and more."""


def errors(table: HCTable, keys: np.ndarray) -> np.ndarray:
    """Relative distances of means from the exact ones.

    Args:
        table: of the clusters.
        keys: BF16 bits, uint16 [tokens, dim], by token id.

    Returns:
        float64 [2, clusters]: |mean - exact| / |exact|, and the same of the exact mean rounded to BF16, which
        no arithmetic can undercut by much.
    """
    exact = np.zeros(table.means.shape)
    np.add.at(exact, table.token_cluster, arith.from_bf16(keys[table.token_ids]).astype(np.float64))
    exact /= table.counts[:, None]
    size = np.linalg.norm(exact, axis=1)
    means = arith.from_bf16(table.means).astype(np.float64)
    rounded = arith.round_bf16(exact.astype(np.float32)).astype(np.float64)
    return np.stack([np.linalg.norm(each - exact, axis=1) / size for each in (means, rounded)])


def measure(bench: Bench, clips: list[Clip]) -> dict[str, Any]:
    """All tokens of the first video clustered at a few thresholds."""
    keys = arith.to_bf16(capture_keys(bench, clips[0]))
    layers, heads, tokens, dim = keys.shape
    shape = Shape(layers, heads, heads, dim, 0)
    found = []
    for th_hd in TH_HDS:
        tables = HostTables(ResvSettings(th_hd=th_hd), shape, open_transport("golden", preset("edge")))
        parts, counts = [], []
        for layer in range(layers):
            tables.take(layer, keys[layer], np.arange(tokens))
            [own] = tables.layers[layer]
            parts.append(errors(own.hc, flat_keys(keys[layer])))
            counts.append(own.hc.counts)
        found.append(
            {"th_hd": th_hd, "sizes": _by_size(np.concatenate(parts, axis=1), np.concatenate(counts))}
        )
    return {"clip": vars(clips[0]), "tokens": tokens, "thresholds": found}


def _by_size(both: np.ndarray, counts: np.ndarray) -> list[dict[str, float]]:
    which = np.minimum(np.log2(counts).astype(int), LARGEST)
    return [
        {
            "from": 1 << int(at),
            "clusters": int((which == at).sum()),
            "mean": float(both[0, which == at].mean()),
            "largest": float(both[0, which == at].max()),
            "rounding": float(both[1, which == at].mean()),
        }
        for at in np.unique(which)
    ]


def table(figures: dict[str, Any]) -> str:
    """Errors by threshold and size."""
    lines: list[tuple[Any, ...]] = [
        ("th_hd", "members from", "clusters", "mean", "largest", "rounding alone")
    ]
    for own in figures["thresholds"]:
        for row in own["sizes"]:
            errors = (f"{row[name]:.5f}" for name in ("mean", "largest", "rounding"))
            lines.append((own["th_hd"], row["from"], f"{row['clusters']}", *errors))
    return text_table(lines)


def plot(figures: dict[str, Any]) -> bytes:
    """Mean error over cluster size."""
    figure, (axes,) = new_figure(1, 5.6)
    sizes: list[Any] = []
    rows: list[Any] = []
    for own in figures["thresholds"]:
        # A single member is its cluster's mean: no error, which a logarithmic axis can't show.
        rows = [row for row in own["sizes"] if row["from"] > 1]
        sizes, label = [row["from"] for row in rows], f"running mean, th_hd {own['th_hd']}"
        axes.plot(sizes, [row["mean"] for row in rows], "o-", label=label)
    axes.plot(sizes, [row["rounding"] for row in rows], "k:", label="exact mean rounded to BF16")
    axes.set(xscale="log", yscale="log", xlabel="members of a cluster (bin's least)")
    axes.set_ylabel("relative error of Key_cluster")
    axes.legend(fontsize=8)
    return png(figure)
