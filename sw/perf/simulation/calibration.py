"""Cycles of the RTL's units, from `data/calibration.json`, which a script makes from recorded counters."""

import json
from bisect import bisect_left
from dataclasses import dataclass
from functools import cache
from typing import Any

from vrex.sw.perf.description.sections import DATA


@dataclass(frozen=True, kw_only=True)
class Core:
    """Dimensions of a core that may differ from those of the preset whose cycles were recorded.

    Attributes:
        trees, rows: of the DPE (`dpe.trees`, `dpe.rows`).
        vpe_lanes, hcu_lanes: of the vector engine and of the HCU.
    """

    trees: int = 64
    rows: int = 32
    vpe_lanes: int = 64
    hcu_lanes: int = 16


EDGE = Core()
"""The core of preset `edge`."""


@cache
def load() -> dict[str, Any]:
    """The file, see scripts/refresh_perf_calibration.py."""
    found: dict[str, Any] = json.loads((DATA / "calibration.json").read_text(encoding="utf-8"))
    return found


def interpolate(points: dict[str, float], at: float) -> float:
    """A value on straight lines between points; below the first in proportion, above on the last line."""
    known = sorted((float(x), float(y)) for x, y in points.items())
    if at <= known[0][0]:
        return known[0][1] * at / known[0][0]
    place = min(max(1, bisect_left(known, (at, 0.0))), len(known) - 1)
    (x0, y0), (x1, y1) = known[place - 1], known[place]
    return y0 + (y1 - y0) * (at - x0) / (x1 - x0)


def gemm_cycles(values: float, rows: int, core: Core = EDGE) -> float:
    """Cycles of one core's DPE for a matrix product.

    Args:
        values: of the weights (or of K and V, which take the weights' place).
        rows: of activations, which meet a tile in blocks of `core.rows`.
        core: whose; the share of cycles in which trees work is the one measured with 64 trees.
    """
    dpe = load()["dpe"]
    of_rows = dpe["tile_cycles"][str(core.trees)]
    tiles = values / (core.trees * dpe["inputs"])
    blocks, rest = divmod(rows, core.rows)
    cycles = blocks * of_rows[core.rows - 1] + (of_rows[rest - 1] if rest else 0)
    return tiles * cycles / dpe["utilisation"]


def vector_cycles(elements: float, *functions: str, core: Core = EDGE) -> float:
    """Cycles of one core's VPE for functions one after the other: `one_pass`, `exp`, `recip`, `reduction`."""
    words = load()["vpe"]["word_cycles"][str(core.vpe_lanes)]
    return elements / core.vpe_lanes * sum(words[name] for name in functions)


SOFTMAX = ("one_pass", "reduction", "one_pass", "exp", "reduction", "one_pass")
SILU = ("one_pass", "exp", "one_pass", "recip", "one_pass")
NORM = ("one_pass", "reduction", "one_pass", "one_pass")
"""Functions of a row, as `vrex.model.lxe.program` writes them; those on one value a row are left out."""


def hcu_cycles(tokens: int, clusters: float, core: Core = EDGE) -> float:
    """Cycles of one HCU for a chunk against a table."""
    hcu = load()["hcu"]
    return interpolate(hcu["cycles"][str(core.hcu_lanes)], max(1.0, clusters)) * tokens / hcu["tokens"]


def wtu_row_cycles(clusters: float) -> float:
    """Cycles of one WTU for a row: loading and search; a row longer than its memory is sent in passes."""
    wtu = load()["wtu"]
    if clusters > wtu["row_clusters"]:
        first = min(wtu["load"], key=int)
        return clusters * wtu["load"][first] / float(first) * wtu["passes_of_long_rows"]
    return interpolate(wtu["load"], clusters) + interpolate(wtu["search"], clusters)


def mean_cycles(tokens: int, values: int) -> float:
    """Cycles of one mean unit for a chunk's tokens of so many values each."""
    mean = load()["mean"]
    beats = values * 16 / mean["bus_bits"]
    return tokens * (mean["command_cycles"] + beats * mean["word_cycles"])
