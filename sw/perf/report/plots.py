"""Plots of the figures: readable in grey, with the floors of DRAM and PCIe drawn in."""

import io
from collections.abc import Sequence
from typing import Any

from vrex.sw.perf.description.workload import BF16_BYTES, FRAME_TOKENS
from vrex.sw.perf.memory import pcie
from vrex.sw.perf.report.metrics import Context, machine

Row = dict[str, Any]
DASHES, MARKS = ("-", "--", "-.", ":"), "os^DvPX*<>hp"
GREYS = ("#000000", "#555555", "#888888")
TITLES = {
    "frame_ms": "frame [ms]",
    "tpot_ms": "token [ms]",
    "frame_gain": "frame: gain in time",
    "tpot_gain": "token: gain in time",
    "frame_joule": "frame [J]",
    "frame_energy_gain": "frame: gain in energy",
    "tpot_energy_gain": "token: gain in energy",
    "coin_gain": "COIN case: gain in time",
    "fps": "frames/s in all",
    "area_mm2": "area [mm2]",
    "chip_area_mm2": "area of the chip [mm2]",
    "dre_area_share": "DRE's share of a core's area",
    "fps_gain": "gain in frames/s",
    "minutes_to_full": "minutes until memory is full",
    "largest_kv": "largest cache that fits [tokens]",
    "op_per_byte": "operations a byte",
    "roof_share": "share of the roof",
    "peak_tflops": "peak [TFLOPS]",
    "bandwidth_gb_s": "memory [GB/s]",
    "link_gb_s": "link [GB/s]",
    "prediction_peak_gb_s": "prediction, peak [GB/s]",
    "retrieval_dram_share": "retrieval of DRAM bandwidth",
    "retrieval_flop_share": "retrieval of operations",
    "gemm_roofline_share": "layer products, share of roofline",
}
FEWEST = 3
"""Points that make a line; fewer are bars."""


def _grouped(rows: Sequence[Row]) -> dict[tuple[str, int | None], list[Row]]:
    """Rows by metric, of gains also by batch; those without a number of ours left out."""
    groups: dict[tuple[str, int | None], list[Row]] = {}
    for row in rows:
        if row["ours"] is not None and row["metric"] != "power_mw":
            key = (row["metric"], row["batch"] if row["metric"].endswith("gain") else None)
            groups.setdefault(key, []).append(row)
    return groups


def label(row: Row) -> str:
    """What a curve or bar is called."""
    words = [row["system"], row["method"] or ""]
    if row["metric"].endswith("gain") and row["over"] and row["figure"] == "15":
        words.append(f"over {row['over'].replace('/', ' ')}")
    elif row["figure"] == "gemm" or (row["batch"] and row["batch"] > 1):
        words.append(f"{'rows' if row['figure'] == 'gemm' else 'batch'} {row['batch']}")
    return " ".join(word for word in words if word)


def floors(
    context: Context, system: str, method: str, kv: int, batch: int, text: bool
) -> tuple[float, float]:
    """Least ms by the memory's data pins and by the link's nominal rate, at the method's ratio."""
    found, chosen, model = machine(system), context.method(method), context.model
    values = model.layers * model.layer_weights + (model.head_weights if text else context.tower.weights)
    past = kv * (chosen.ratio(text) if chosen.predictor != "none" else 1) + FRAME_TOKENS
    cache = batch * model.layers * model.kv_bytes(past, chosen.kv_bits)
    dram = (BF16_BYTES * values + cache) / found.peak_bandwidth
    link = cache / pcie.nominal(found.system.link) if chosen.offloaded else 0.0
    return dram * 1e3, link * 1e3


def _lines(axes: Any, rows: Sequence[Row], context: Context) -> None:
    curves: dict[str, list[Row]] = {}
    for row in rows:
        curves.setdefault(label(row), []).append(row)
    for place, (name, points) in enumerate(curves.items()):
        points = sorted(points, key=lambda row: row["kv"])
        line, mark = DASHES[place % len(DASHES)], MARKS[place % len(MARKS)]
        grey = GREYS[place % len(GREYS)]
        lengths = [row["kv"] / 1000 for row in points]
        axes.plot(lengths, [row["ours"] for row in points], line, marker=mark, color=grey, ms=4, label=name)
        printed = [row for row in points if row["paper"] is not None]
        axes.plot(
            [row["kv"] / 1000 for row in printed],
            [row["paper"] for row in printed],
            linestyle="none", marker=mark, mfc="white", mec=grey, ms=9, mew=1.2,
            label=f"{name}, paper" if printed else None,
        )  # fmt: skip
    if rows[0]["metric"] in ("frame_ms", "tpot_ms"):
        _floors(axes, rows, context)
    if rows[0]["metric"] == "fps":
        _ceilings(axes, rows, context)
    axes.set(xscale="log", yscale="log", xlabel="tokens in the cache [K]")
    lengths = sorted({row["kv"] for row in rows})
    axes.set_xticks([length / 1000 for length in lengths], [f"{length / 1000:g}" for length in lengths])
    axes.minorticks_off()
    from matplotlib.ticker import FuncFormatter, LogLocator

    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.legend(fontsize=6, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, frameon=False)


def _floors(axes: Any, rows: Sequence[Row], context: Context) -> None:
    """The floors of the first curve: no design on its memory and link is faster."""
    first = rows[0]
    text = first["metric"] == "tpot_ms"
    lengths = sorted({row["kv"] for row in rows})
    found = [floors(context, first["system"], first["method"], kv, first["batch"], text) for kv in lengths]
    at = [kv / 1000 for kv in lengths]
    axes.plot(
        at, [dram for dram, _ in found], color="#aaaaaa", lw=3, zorder=0, label=f"DRAM floor, {label(first)}"
    )
    if any(link for _, link in found):
        axes.plot(
            at, [link for _, link in found], color="#cccccc", lw=3, ls=":", zorder=0,
            label=f"PCIe floor, {label(first)}",
        )  # fmt: skip
    highest = max(max(row["ours"], row["paper"] or 0) for row in rows)
    axes.set_ylim(min(row["ours"] for row in rows) / 4, highest * 1.4)


def _ceilings(axes: Any, rows: Sequence[Row], context: Context) -> None:
    """Most frames/s of the first curve by its memory's and its link's floor."""
    first = rows[0]
    lengths = sorted({row["kv"] for row in rows})
    most = []
    for kv in lengths:
        least = floors(context, first["system"], first["method"], kv, first["batch"], text=False)
        most.append(first["batch"] / max(least) * 1e3)
    at = [kv / 1000 for kv in lengths]
    axes.plot(at, most, color="#aaaaaa", lw=3, zorder=0, label=f"DRAM and PCIe limit, {label(first)}")


def _bars(axes: Any, rows: Sequence[Row], context: Context) -> None:
    reference = "measured" if rows[0]["figure"] == "gemm" else "paper"
    for place, row in enumerate(rows):
        axes.bar(place - 0.2, row["ours"], 0.38, color="#444444", label="ours" if not place else None)
        if row["paper"] is not None:
            axes.bar(
                place + 0.2, row["paper"], 0.38, color="white", edgecolor="black", hatch="///",
                label=reference if reference not in axes.get_legend_handles_labels()[1] else None,
            )  # fmt: skip
        if row["metric"] in ("fps", "frame_ms", "tpot_ms") and row["kv"]:
            _limit(axes, place, row, context)
    names = [
        label(row).replace(" ", "\n", 1) + (f"\n{row['kv'] / 1000:g} K" if row["kv"] else "") for row in rows
    ]
    axes.set_xticks(range(len(rows)), names, fontsize=6, rotation=0 if len(rows) <= 5 else 90)
    axes.legend(fontsize=6)
    axes.margins(y=0.15)


def _limit(axes: Any, place: int, row: Row, context: Context) -> None:
    """A bar's own limit by memory and link, as a line across it."""
    text = row["metric"] == "tpot_ms"
    least = max(floors(context, row["system"], row["method"], row["kv"], row["batch"], text))
    limit = row["batch"] / least * 1e3 if row["metric"] == "fps" else least
    name = "DRAM and PCIe limit"
    known = axes.get_legend_handles_labels()[1]
    axes.plot(
        [place - 0.45, place + 0.45], [limit, limit], color="#999999", lw=2, ls=":",
        label=None if name in known else name,
    )  # fmt: skip


def _stacks(rows: Sequence[Row]) -> bytes:
    """Energy by part as stacked bars."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    names = list(dict.fromkeys(label(row) for row in rows))
    bottoms = dict.fromkeys(names, 0.0)
    fills = (("#000000", ""), ("#dddddd", ""), ("#888888", ""), ("white", "///"), ("white", "..."))
    for place, metric in enumerate(dict.fromkeys(row["metric"] for row in rows)):
        color, hatch = fills[place]
        values = {label(row): row["ours"] or 0.0 for row in rows if row["metric"] == metric}
        axes.bar(
            names, [values[name] for name in names], 0.6, bottom=[bottoms[name] for name in names],
            color=color, hatch=hatch, edgecolor="black", lw=0.6, label=metric.removeprefix("frame_joule_"),
        )  # fmt: skip
        bottoms = {name: bottoms[name] + values[name] for name in names}
    axes.set_xticks(range(len(names)), [name.replace(" ", "\n", 1) for name in names], fontsize=7)
    axes.set_ylabel("J a frame")
    axes.set_title("Energy of a frame by part, 40 K tokens", fontsize=9)
    axes.legend(fontsize=7)
    return _png(figure)


def _png(figure: Any) -> bytes:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()


def plot(rows: Sequence[Row], context: Context, title: str) -> bytes | None:
    """A figure's rows as PNG, a panel a metric; None where nothing can be drawn."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if rows[0]["figure"] == "energy":
        return _stacks(rows)
    groups = _grouped(rows)
    if not groups:
        return None
    columns = min(3, len(groups))
    lines = -(-len(groups) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.9 * lines + 0.3), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(lines, columns, squeeze=False).flatten()
    for axes, ((metric, batch), group) in zip(panels, groups.items(), strict=False):
        lengths = {row["kv"] for row in group if row["kv"]}
        if len(lengths) >= FEWEST and all(row["kv"] for row in group):
            _lines(axes, group, context)
        else:
            _bars(axes, group, context)
        heading = TITLES.get(metric, metric.replace("_", " "))
        axes.set_title(heading + (f", batch {batch}" if batch else ""), fontsize=9)
        axes.tick_params(labelsize=7)
        axes.grid(axis="y", color="#dddddd", lw=0.5)
        axes.set_axisbelow(True)
    for axes in panels[len(groups) :]:
        axes.set_visible(False)
    figure.suptitle(title, fontsize=10)
    return _png(figure)
