"""Rows of all figures: the paper's, and what goes beyond it."""

from collections.abc import Iterator, Sequence
from typing import Any

from vrex.errors import UserError
from vrex.sw.perf.description.system import load_system
from vrex.sw.perf.memory.dram import SEQUENTIAL, bandwidth
from vrex.sw.perf.memory.parts import load_dram
from vrex.sw.perf.report import contradictions
from vrex.sw.perf.report.metrics import LENGTHS, METRICS, PARTS, Context, machine
from vrex.sw.perf.report.paper import Quantity, numbers
from vrex.sw.perf.report.verdict import judge
from vrex.sw.perf.simulation.step import OutOfMemoryError

Row = dict[str, Any]
PAPER = ("4a", "4b", "4c", "13a", "13b", "14", "15", "16", "17", "18", "table1", "table3")
BEYOND = ("contradictions", "beyond", "best", "energy", "gemm", "memory")
NAMES = (*PAPER, *BEYOND)
ALIASES = {"4": ("4a", "4b", "4c"), "13": ("13a", "13b")}
LONG = (40_000, 80_000, 160_000, 320_000, 1_000_000)
COLUMNS = ("figure", "system", "method", "metric", "kv", "batch", "paper", "ours", "ratio", "verdict")

CURVES: dict[str, Sequence[tuple[str, str, str, int]]] = {
    "13a": (
        ("v-rex8", "vrex", "frame_ms", 1),
        ("agx-orin", "flexgen", "frame_ms", 1),
        ("agx-orin", "infinigen-p", "frame_ms", 1),
        ("agx-orin", "rekv", "frame_ms", 1),
        ("agx-orin", "resident", "frame_ms", 1),
        ("v-rex8", "vrex", "tpot_ms", 1),
        ("agx-orin", "flexgen", "tpot_ms", 1),
        ("agx-orin", "resident", "tpot_ms", 1),
    ),
    "13b": (
        ("v-rex48", "vrex", "frame_ms", 1),
        ("a100", "flexgen", "frame_ms", 1),
        ("a100", "infinigen-p", "frame_ms", 1),
        ("a100", "rekv", "frame_ms", 1),
        ("a100", "resident", "frame_ms", 1),
        ("v-rex48", "vrex", "tpot_ms", 1),
        ("v-rex48", "vrex", "tpot_ms", 8),
        ("a100", "flexgen", "tpot_ms", 1),
    ),
    "15": (
        ("v-rex8", "vrex", "fps", 16),
        ("v-rex8", "oaken", "fps", 16),
        ("agx-orin", "resident", "fps", 16),
    ),
}
"""Curves over the paper's lengths, of which the paper gives single points or none in words."""

GEMM = {1: 0.82, 8: 0.79, 16: 0.78, 64: 0.71, 512: 0.72}
"""Share of the roofline of an A100's layer products of Llama-3-8B by tokens, measured, not the paper's."""
GEMM_BOUND = 0.15


def chosen(words: Sequence[str]) -> list[str]:
    """Names of figures: `4` is 4a to 4c, `Fig. 13a` and `13a` the same; none: all but memory.

    Raises:
        UserError: there is no such figure.
    """
    found: list[str] = []
    for given in words:
        word = given.lower().removeprefix("fig.").removeprefix("fig").replace(" ", "")
        word = {"tablei": "table1", "tableiii": "table3"}.get(word, word)
        if word not in NAMES and word not in ALIASES:
            raise UserError(f"figure {given!r} is unknown; known are {', '.join(NAMES)}")
        found += ALIASES.get(word, (word,))
    return list(dict.fromkeys(found)) or [name for name in NAMES if name != "memory"]


def compute(context: Context, wanted: Quantity) -> Row:
    """One row."""
    ours, obstacle = None, "power needs switching activity of a layout, which is not simulated here"
    if wanted.metric in METRICS:
        try:
            ours = METRICS[wanted.metric](context, wanted)
        except OutOfMemoryError as error:
            obstacle = f"does not fit: {error}"
    return {
        "figure": wanted.figure,
        "system": wanted.system,
        "method": wanted.method or None,
        "metric": wanted.metric,
        "kv": wanted.kv or None,
        "batch": wanted.batch or None,
        "paper": wanted.paper,
        "ours": ours,
        "ratio": ours / wanted.paper if ours is not None and wanted.paper else None,
        "verdict": judge(context, wanted, ours, obstacle),
        "over": wanted.over or None,
        "source": wanted.source,
    }


def quantities(figure: str) -> Iterator[Quantity]:
    """What a figure of the paper consists of: its numbers, and the rest of its curves."""
    known = [entry for entry in numbers() if entry.figure == figure]
    yield from known
    held = {(entry.system, entry.method, entry.metric, entry.kv, entry.batch) for entry in known}
    for system, method, metric, batch in CURVES.get(figure, ()):
        for kv in LENGTHS:
            if (system, method, metric, kv, batch) not in held:
                yield Quantity(figure, system, method, metric, kv, batch, "", None, "")


def beyond() -> Iterator[Quantity]:
    """Longer caches, resident baselines and systems of today."""
    cases = (
        ("v-rex8", "vrex"),
        ("v-rex8", "vrex-kv4"),
        ("v-rex8", "vrex-resident"),
        ("agx-orin", "flexgen-overlapped"),
        ("agx-orin", "resident"),
        ("jetson-thor", "resident"),
        ("jetson-thor", "resv-gpu"),
        ("v-rex48", "vrex"),
        ("h100", "resident"),
        ("h100", "resv-gpu"),
    )
    for metric in ("frame_ms", "tpot_ms", "frame_joule"):
        for system, method in cases:
            for kv in LONG:
                yield Quantity("beyond", system, method, metric, kv, 1, "", None, "")


def best() -> Iterator[Quantity]:
    """Frame rates of one V-Rex8 at 40 K tokens by what is kept where and in how many bits."""
    for method in (
        "vrex", "vrex-mean8", "vrex-mean4", "vrex-kv4", "resident", "vrex-resident", "vrex-best",
        "vrex-best-resident",
    ):  # fmt: skip
        paper = 3.9 if method == "vrex" else None
        yield Quantity(
            "best", "v-rex8", method, "fps", 40000, 1, "", paper, "abstract: 3.9 FPS at 40 K" if paper else ""
        )


def energy() -> Iterator[Quantity]:
    """Energy of a frame at 40 K tokens by part."""
    cases = (
        ("agx-orin", "flexgen"),
        ("agx-orin", "resident"),
        ("v-rex8", "vrex"),
        ("v-rex8", "vrex-kv4"),
        ("v-rex8", "vrex-best-resident"),
        ("a100", "resident"),
        ("v-rex48", "vrex"),
    )
    for part in PARTS:
        for system, method in cases:
            yield Quantity("energy", system, method, f"frame_joule_{part}", 40000, 1, "", None, "")


EXTRA = {"beyond": beyond, "best": best, "energy": energy}


def gemm() -> Iterator[Row]:
    """Layer products on an A100 against measured shares of the roofline."""
    found, context = machine("a100"), Context()
    weights = context.model.layer_weights
    part = load_dram(load_system("a100").memory.part)
    peak = found.peak_bandwidth
    assert bandwidth(part, found.system.memory.channels, 0, SEQUENTIAL) <= peak
    for tokens, measured in GEMM.items():
        flop, size = 2 * weights * tokens, 2 * weights
        roof = max(flop / found.peak_flops, size / peak)
        share = roof / max(found.gemm(weights, tokens), size / found.bandwidth())
        miss = abs(share / measured - 1)
        verdict = "reproduced (10 %)" if miss <= 0.1 else "within 15 %"
        yield {
            "figure": "gemm",
            "system": "a100",
            "method": None,
            "metric": "gemm_roofline_share",
            "kv": None,
            "batch": tokens,
            "paper": measured,
            "ours": share,
            "ratio": share / measured,
            "verdict": verdict if miss <= GEMM_BOUND else "not reproduced: one efficiency for all sizes",
            "over": None,
            "source": "measured on an A100, not by the V-Rex paper",
        }


def rows(context: Context, names: Sequence[str]) -> list[Row]:
    """Rows of these figures; `memory` has a table of its own and none here."""
    found: list[Row] = []
    for name in names:
        if name in PAPER:
            found += [compute(context, wanted) for wanted in quantities(name)]
        elif name == "contradictions":
            extra = {"over": None, "source": "derived"}
            found += [row | extra for row in contradictions.find(context)]
        elif name in EXTRA:
            found += [compute(context, wanted) for wanted in EXTRA[name]()]
        elif name == "gemm":
            found += list(gemm())
    return found
