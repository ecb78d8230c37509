"""The LXE in figures: area, delay and accuracy of the MAC tree's two schemes, and how busy the DPE is."""

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vrex.hw.tools.lxe_parts import SimulatedDpe, simulate_dpe, simulate_tree
from vrex.hw.tools.synth.mapping import CellLibrary
from vrex.model.config import CHUNK, Config, DpeConfig
from vrex.model.dre import hashing
from vrex.model.lib import arith
from vrex.model.lxe import mac_tree
from vrex.sw.evaluation.benches.mac_tree import check
from vrex.sw.evaluation.benches.traces import Trace, capture

WIDTHS = (20, 22, 24, 25, 26, 28, 30, 32)
"""W of scheme `fused`."""

DOTS = 20_000
"""Chunks of each data set."""

LONG_TERMS, LONG_DOTS = 4096, 1000
"""Length and number of the long dot products of each data set: chunks that FP32 adds up."""

VECTORS = 100_000
"""Dot products of each class of numbers that the simulated MAC tree is held against the model with."""

TRACE_TOKENS = 512
GEMM_ROWS = (1, 11, 32)
GEMM_CHUNKS, GEMM_TILES = 8, 8
DPE = DpeConfig(trees=16, inputs=16)
"""The DPE that is simulated."""

_SEED = 21

Progress = Callable[[str], None]
Pairs = tuple[np.ndarray, np.ndarray]
"""Chunks to multiply, BF16 bits uint16 [CHUNK, n] each."""


def steps() -> int:
    """Steps that `bench_lxe` reports."""
    return 3 + 1 + len(WIDTHS)


def bench_lxe(
    config: Config,
    library: CellLibrary | None,
    vectors: int = VECTORS,
    progress: Progress = lambda step: None,
) -> dict[str, Any]:
    """Measures the MAC tree in both schemes, and the DPE in the simulated Verilog.

    Args:
        config: accelerator; the tree's inputs matter.
        library: standard cells, None for generic gates without delays.
        vectors: dot products of each class of numbers that RTL and model are compared with.
        progress: gets the name of each step before it begins.

    Returns:
        `tree`: `cells`, `area` or `transistors`, `critical_path_ns`, and by data set `mean_error` and
        `correctly_rounded`; `fused`: the same for each W; `default`; `dpe`: `utilisation` at 11 rows of the
        smaller of arithmetic and weight port, and `gemm` for several rows; `vectors`, `mismatches`,
        `by_class`; `long`: `mean_error` over `LONG_TERMS` terms by scheme (`tree`, W, and `float32`: numpy's
        product) and data set; `conditions`. An error is that of a sum over the sum of its terms' magnitudes.

    Raises:
        UserError: a tool is missing or failed.
    """
    progress("data")
    data = _data_sets()
    figures: dict[str, Any] = {"tree": {}, "fused": {}}
    for w in (None, *WIDTHS):
        scheme = "tree" if w is None else "fused"
        dpe = dataclasses.replace(config.dpe, scheme=scheme, fraction_bits=w or config.dpe.fraction_bits)
        progress("scheme tree" if w is None else f"scheme fused, W {w}")
        entry = _area(dataclasses.replace(config, dpe=dpe), library) | _accuracy(dpe, data)
        if w is None:
            figures["tree"] = entry
        else:
            figures["fused"][str(w)] = entry
    figures["long"] = _long()
    figures["default"] = {"scheme": config.dpe.scheme, "fraction_bits": config.dpe.fraction_bits}
    progress("DPE")
    figures["dpe"] = _dpe()
    progress("RTL against the model")
    with tempfile.TemporaryDirectory() as folder:
        by_class = check(simulate_tree(DPE, Path(folder)), vectors, _SEED)
    figures["by_class"] = {name: list(counts) for name, counts in by_class.items()}
    figures["vectors"] = sum(compared for compared, _ in by_class.values())
    figures["mismatches"] = sum(wrong for _, wrong in by_class.values())
    figures["conditions"] = {
        "inputs": config.dpe.inputs,
        "library": library and library.library.name,
        "chunks": DOTS,
        "long_terms": LONG_TERMS,
        "long_dots": LONG_DOTS,
        "simulated": dataclasses.asdict(DPE),
        "seed": _SEED,
    }
    return figures


def _data_sets() -> dict[str, Pairs]:
    """So many pairs of chunks by name."""
    rng = np.random.default_rng(_SEED)
    return _drawn(rng, (CHUNK, DOTS)) | {"captured": _captured(rng, capture(TRACE_TOKENS))}


def _drawn(rng: np.random.Generator, size: tuple[int, ...]) -> dict[str, Pairs]:
    """Normal and heavy-tailed operands of these dimensions."""

    def bf16(values: np.ndarray) -> np.ndarray:
        return arith.to_bf16(values.astype(np.float32))

    heavy = rng.standard_t(2, size) * np.exp(2 * rng.standard_normal(size)), rng.standard_t(2, size)
    return {
        "normal": (bf16(rng.standard_normal(size)), bf16(rng.standard_normal(size))),
        "heavy_tailed": (bf16(heavy[0]), bf16(heavy[1])),
    }


def _captured(rng: np.random.Generator, traces: list[Trace]) -> Pairs:
    """First chunks of the checkpoint's queries and keys, and of keys and hyperplanes, half of each."""
    pairs: list[Pairs] = []
    for layer, trace in enumerate(traces):
        heads, _, dim = trace.keys.shape
        planes = hashing.hyperplanes(0, layer, 0, 32, heads * dim)
        pairs += [(trace.queries[head], trace.keys[head]) for head in range(heads)]
        pairs += [(planes[:, head * dim : (head + 1) * dim], trace.keys[head]) for head in range(heads)]
    columns = []
    for _ in range(DOTS):
        left, right = pairs[rng.integers(len(pairs))]
        columns.append((left[rng.integers(len(left)), :CHUNK], right[rng.integers(len(right)), :CHUNK]))
    left, right = (np.stack(side, axis=1) for side in zip(*columns, strict=True))
    return left, right


def _accuracy(dpe: DpeConfig, data: dict[str, Pairs]) -> dict[str, Any]:
    """`mean_error` and `correctly_rounded` by data set."""
    errors, right = {}, {}
    for name, (a, b) in data.items():
        exact, size = _exact(a, b)
        got = _sum_chunks(dpe, a, b)
        errors[name] = float((np.abs(got - exact) / size).mean())
        right[name] = float((got == exact.astype(np.float32)).mean())
    return {"mean_error": errors, "correctly_rounded": right}


def _exact(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Dot products over the first axis in float64, and the sums of their terms' magnitudes."""
    products = arith.from_bf16(a).astype(np.float64) * arith.from_bf16(b)
    return products.sum(axis=0), np.abs(products).sum(axis=0)


def _sum_chunks(dpe: DpeConfig, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Sums of chunks in the DPE's scheme: BF16 bits uint16 [CHUNK, ...] to float32 [...]."""
    if dpe.scheme == "tree":
        return arith.tree_sum(arith.from_bf16(a) * arith.from_bf16(b))
    return mac_tree.chunk_fused(a, b, dpe.fraction_bits)


def _long() -> dict[str, dict[str, float]]:
    """Mean error of dot products of many chunks by scheme and data set."""
    errors: dict[str, dict[str, float]] = {}
    schemes = {"tree": DpeConfig(scheme="tree")} | {str(w): DpeConfig(fraction_bits=w) for w in WIDTHS}
    for name, (a, b) in _drawn(np.random.default_rng(_SEED), (LONG_TERMS, LONG_DOTS)).items():
        exact, size = _exact(a, b)
        got = {
            scheme: _add_up(
                _sum_chunks(dpe, *(x.reshape(-1, CHUNK, LONG_DOTS).swapaxes(0, 1) for x in (a, b)))
            )
            for scheme, dpe in schemes.items()
        }
        left, right = (arith.from_bf16(x) for x in (a, b))
        got["float32"] = np.array([x @ y for x, y in zip(left.T, right.T, strict=True)])
        for scheme, sums in got.items():
            errors.setdefault(scheme, {})[name] = float((np.abs(sums - exact) / size).mean())
    return errors


def _add_up(chunks: np.ndarray) -> np.ndarray:
    """Chunks added one after another in FP32: float32 [chunks, n] to [n]."""
    total = chunks[0]
    for chunk in chunks[1:]:
        total = total + chunk
    return total


def _area(config: Config, library: CellLibrary | None) -> dict[str, Any]:
    from vrex.hw.tools.synth.report import synthesise

    unit = synthesise(["mac_tree"], config, library, None, lambda part, detail="": None)["units"]["mac_tree"]
    names = ("cells", "area", "transistors", "ff", "critical_path_ns")
    return {name: unit[name] for name in names if name in unit}


def _dpe() -> dict[str, Any]:
    """Cycles of matrix products whose streams never wait, from the counters of the simulated Verilog."""
    with tempfile.TemporaryDirectory() as folder:
        dpe = simulate_dpe(DPE, GEMM_CHUNKS, GEMM_TILES, Path(folder))
        gemm = {str(rows): _gemm(dpe, rows) for rows in GEMM_ROWS}
    return {"utilisation": gemm["11"]["utilisation"], "gemm": gemm}


def _gemm(dpe: SimulatedDpe, rows: int) -> dict[str, Any]:
    """One product: its cycles, and the share of them that arithmetic or weights need at least."""
    cycles, busy = dpe.multiply(rows)
    tiles, config = GEMM_CHUNKS * GEMM_TILES, dpe.config
    arithmetic, weights = tiles * rows * config.beats, tiles * config.trees * config.beats
    assert busy == arithmetic
    return {
        "cycles": cycles,
        "arithmetic_cycles": arithmetic,
        "weight_cycles": weights,
        "utilisation": max(arithmetic, weights) / cycles,
    }


def table(figures: dict[str, Any]) -> str:
    """The figures as text."""
    sets = list(figures["tree"]["mean_error"])
    heads = "".join(f"{name:>22}" for name in sets)
    lines = [f"{'scheme':<10} {'cells':>8} {'of tree':>8} {'path ns':>8}{heads}"]
    schemes = {"tree": figures["tree"], **{f"fused {w}": entry for w, entry in figures["fused"].items()}}
    for name, entry in schemes.items():
        path = entry.get("critical_path_ns")
        share = entry["cells"] / figures["tree"]["cells"]
        line = f"{name:<10} {entry['cells']:>8,} {share:>8.0%} {'-' if path is None else f'{path:.2f}':>8}"
        for data in sets:
            line += f"{entry['mean_error'][data]:>13.2e} {entry['correctly_rounded'][data]:>8.1%}"
        lines.append(line)
    lines += ["(mean error over the sum of magnitudes, and share of correctly rounded sums)", ""]
    lines.append(f"mean error over {LONG_TERMS:,} terms:")
    for scheme, errors in figures["long"].items():
        name = f"fused {scheme}" if scheme.isdigit() else scheme
        lines.append(f"{name:<10} " + "".join(f"{data:>14} {error:.2e}" for data, error in errors.items()))
    lines.append("")
    for rows, entry in figures["dpe"]["gemm"].items():
        lines.append(
            f"DPE {DPE.trees} x {DPE.inputs}, {rows} rows: {entry['cycles']:,} cycles; arithmetic needs "
            f"{entry['arithmetic_cycles']:,}, weights {entry['weight_cycles']:,}; "
            f"utilisation {entry['utilisation']:.1%}"
        )
    compared = f"{figures['vectors']:,} dot products, {figures['mismatches']:,} mismatches"
    lines.append(f"RTL against the model: {compared}")
    return "\n".join(lines)
