"""What `vrex synth` measured as one HTML file that needs no network."""

import html
from collections.abc import Iterable, Sequence
from typing import Any

from vrex.hw.tools.synth.shares import CONTROL, DENSITIES, DRE, FRONT, MEMORY, PAPER_AREA, TABLE_III
from vrex.hw.tools.synth.treemap import Box, Place, arrange

STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; color: #222; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; }
th, td { padding: .2em .6em; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
th { border-bottom: 2px solid #888; }
svg { max-width: 100%; height: auto; display: block; }
svg text { font: 12px system-ui, sans-serif; fill: #111; pointer-events: none; }
.wide { overflow-x: auto; }
summary { cursor: pointer; }
"""
COLOURS = {
    "dpe": "#9ecae1",
    "vpe": "#a1d99b",
    MEMORY: "#d9d9d9",
    "hcu": "#fdae6b",
    "wtu": "#fc9272",
    "kvmu": "#fdd049",
    FRONT: "#c9a0dc",
    CONTROL: "#d4b996",
}
OTHER = "#c7d3d4"
WIDTH, HEIGHT = 1100, 560
"""Of the map of areas, pixels."""
LINE = 14
"""Height of a line of text in it."""
LETTER = 6.6
"""Width of a letter."""
PLOT_WIDTH, PLOT_HEIGHT = 340, 90
"""Of a plot of the history."""

Figures = dict[str, Any]


def page(results: Sequence[Figures], history: Sequence[Figures]) -> str:
    """The page.

    Args:
        results: what `vrex synth --json` wrote, one or several.
        history: entries of docs/synth-history.json, oldest first; may be empty.
    """
    units = [(result, unit, figures) for result in results for unit, figures in result["units"].items()]
    sections = [_split(*entry) for entry in units if "by_unit" in entry[2]]
    sections += [_clocks(units), *(_history(history) if history else [])]
    names = ", ".join(f"{name} {value}" for name, value in results[0]["versions"].items())
    return f"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>vrex synth</title><style>{STYLE}</style></head>
<body>
<h1>Area and timing</h1>
<p>Standard cells by Yosys, without wires: no layout. {html.escape(names)}.</p>
{chr(10).join(sections)}
</body>
</html>
"""


def _split(result: Figures, unit: str, figures: Figures) -> str:
    """The map of a unit's area and, of a core, the paper's Table III beside it."""
    library = result["library"] or "generic gates"
    name = html.escape(f"{unit} of {result['preset']}, {library}")
    shown = [f"<h2>{name}</h2>", _map(figures)]
    if "share" in figures:
        shown.append(_table_iii(figures))
    return "\n".join(shown)


def _boxes(figures: Figures) -> dict[str, list[Box]]:
    """By unit the square micrometres of its modules and memories at the middle density."""
    middle = DENSITIES[0]
    found: dict[str, list[Box]] = {name: [] for name in figures["by_unit"]}
    for row in figures["modules"]:
        for unit, gates in row["gates"].items():
            found[unit].append(Box(_short(row["module"]), gates * middle.gate))
    for unit, part in figures["by_unit"].items():
        if part["macro_bits"]:
            found[unit].append(Box("memory macros", part["macro_bits"] * middle.bit))
    return found


def _short(module: str) -> str:
    """A module's name without what all names begin with."""
    return module.removeprefix("vrex_").removeprefix("core_")


def _map(figures: Figures) -> str:
    """All modules as rectangles, those of a unit together."""
    boxes = _boxes(figures)
    whole = [Box(unit, sum(box.size for box in own)) for unit, own in boxes.items()]
    total = sum(box.size for box in whole)
    drawn = []
    for unit, place in arrange(whole, Place(0, 0, WIDTH, HEIGHT)):
        colour = COLOURS.get(unit.name, OTHER)
        said = f"{unit.name} {100 * unit.size / total:.1f} %"
        drawn.append(_rectangle(place, colour, said, 2))
        head = LINE + 3 if _fits(said, place) else 0
        inside = Place(place.x + 2, place.y + head, place.width - 4, place.height - head - 2)
        for box, own in arrange(boxes[unit.name], inside):
            note = f"{unit.name}: {box.name}, {box.size / 1e6:.4f} mm2, {100 * box.size / total:.2f} %"
            drawn += [_rectangle(own, colour, note, 0.5), _label(box.name, own)]
        drawn.append(_label(said, place, bold=True))
    return (
        f"<p>{total / 1e6:.2f} mm2 at {DENSITIES[0].gate} um2 a two-input NAND gate and {DENSITIES[0].bit} "
        "um2 a bit of memory, an estimate; point at a rectangle to see what it is.</p>\n"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Area by module">{"".join(drawn)}</svg>'
    )


def _rectangle(place: Place, colour: str, note: str, stroke: float) -> str:
    return (
        f'<rect x="{place.x:.1f}" y="{place.y:.1f}" width="{place.width:.1f}" height="{place.height:.1f}" '
        f'fill="{colour}" stroke="#fff" stroke-width="{stroke}"><title>{html.escape(note)}</title></rect>'
    )


def _fits(text: str, place: Place) -> bool:
    return len(text) * LETTER + 8 < place.width and place.height > LINE + 4


def _label(text: str, place: Place, bold: bool = False) -> str:
    if not _fits(text, place):
        return ""
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{place.x + 4:.1f}" y="{place.y + LINE:.1f}"{weight}>{html.escape(text)}</text>'


def _table_iii(figures: Figures) -> str:
    """Square millimetres and shares beside the paper's."""
    middle = DENSITIES[0]
    rows = []
    for name, share in figures["share"].items():
        part = figures["by_unit"].get(name, {"gates": 0, "macro_bits": 0})
        logic, bits = part["gates"] * middle.gate / 1e6, part["macro_bits"] * middle.bit / 1e6
        paper = _percent(TABLE_III[name]) if name in TABLE_III else "-"
        size = f"{PAPER_AREA[name]:.2f}" if name in PAPER_AREA else "-"
        rows.append([name, f"{part['gates']:,}", f"{part['macro_bits']:,}", f"{logic:.4f}", f"{bits:.4f}"])
        rows[-1] += [size, _percent(share["middle"]), _range(share), paper]
    for name, said in (("dre_share", "DRE, gates"), ("dre_share_with_memories", "DRE with memories")):
        own = [figures["by_unit"].get(unit, {"gates": 0, "macro_bits": 0}) for unit in DRE]
        gates, bits = (sum(part[key] for part in own) for key in ("gates", "macro_bits"))
        row = [said, f"{gates:,}", f"{bits:,}", f"{gates * middle.gate / 1e6:.4f}"]
        row += [f"{bits * middle.bit / 1e6:.4f}", "-", _percent(figures[name]["middle"])]
        paper = _percent(sum(TABLE_III[unit] for unit in DRE if unit in TABLE_III))
        rows.append([*row, _range(figures[name]), paper])
    head = ["part", "gates", "macro bits", "gates mm2", "memory mm2", "paper mm2", "share", "range", "paper"]
    said = ", ".join(f"{density.name} {density.gate} and {density.bit}" for density in DENSITIES)
    return (
        f"<h3>Table III</h3>\n{_table(head, rows)}\n"
        "<p>Gates are two-input NAND gates. A share is that of the gates alone, but for memory, the LXE's "
        f"bits. The range is over these um2 a gate and a bit, all assumptions: {html.escape(said)}.</p>"
    )


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def _range(share: dict[str, float]) -> str:
    return f"{100 * share['min']:.2f} .. {100 * share['max']:.2f} %"


def _clocks(units: Iterable[tuple[Figures, str, Figures]]) -> str:
    """Size, clock and slowest path of every unit."""
    rows, paths = [], []
    for result, unit, figures in units:
        ns, ecp5 = figures["critical_path_ns"], figures.get("ecp5")
        row = [f"{unit}, {result['preset']}", f"{figures['cells']:,}", f"{figures['ff']:,}"]
        row += ["-", "-"] if ns is None else [f"{ns:.2f}", f"{1000 / ns:.0f}"]
        rows.append([*row, "-" if ecp5 is None else f"{ecp5['fmax_mhz']['median']:.1f}"])
        if ns is not None:
            paths.append(_path(f"{unit}, {result['preset']}", ns, figures["critical_path"]))
    head = ["unit", "cells", "FF", "path ns", "MHz", "ECP5 MHz"]
    return "\n".join(["<h2>Clock by unit</h2>", _table(head, rows), *paths])


def _path(name: str, ns: float, path: Figures) -> str:
    steps = [[step["net"], step["cell"], f"{step['ns']:.2f}"] for step in path["steps"]]
    said = html.escape(f"{name}: {ns:.2f} ns from {path['from']} to {path['to']}")
    return f"<details><summary>{said}</summary>{_table(['net', 'cell', 'ns'], steps)}</details>"


def _history(entries: Sequence[Figures]) -> Iterable[str]:
    """Plots of all units that were measured more than once."""
    yield "<h2>History</h2>\n<p>By commit, oldest first; the last value stands at the right.</p>"
    for unit, preset in sorted({(entry["unit"], entry["preset"]) for entry in entries}):
        own = [entry for entry in entries if (entry["unit"], entry["preset"]) == (unit, preset)]
        areas = [(entry["commit"], entry["area"] / 1e6) for entry in own if entry["area"] is not None]
        paths = [(entry["commit"], entry["critical_path_ns"]) for entry in own]
        clocks = [(entry["commit"], entry["ecp5"]["fmax_mhz"]["median"]) for entry in own if entry["ecp5"]]
        if len(own) > 1:
            plots = [
                _plot("area, million units", areas),
                _plot("path, ns", [(commit, ns) for commit, ns in paths if ns is not None]),
                _plot("ECP5, MHz", clocks),
            ]
            yield f"<h3>{html.escape(f'{unit}, {preset}')}</h3>\n<div>{''.join(plots)}</div>"


def _plot(title: str, points: Sequence[tuple[str, float]]) -> str:
    """A line from zero; nothing of a single point."""
    if len(points) < 2:
        return ""
    top = max(value for _, value in points)
    step = (PLOT_WIDTH - 90) / (len(points) - 1)
    places = [
        (5 + number * step, PLOT_HEIGHT - 5 - value / top * (PLOT_HEIGHT - 30))
        for number, (_, value) in enumerate(points)
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="#3182bd"><title>'
        f"{html.escape(commit)}: {value:.4g}</title></circle>"
        for (x, y), (commit, value) in zip(places, points, strict=True)
    )
    x, y = places[-1]
    return (
        f'<svg style="display: inline-block" width="{PLOT_WIDTH}" height="{PLOT_HEIGHT}" role="img" '
        f'aria-label="{html.escape(title)}"><text x="5" y="12">{html.escape(title)}</text>'
        f'<polyline points="{line}" fill="none" stroke="#3182bd" stroke-width="1.5"/>{dots}'
        f'<text x="{x + 8:.1f}" y="{y + 4:.1f}">{points[-1][1]:.4g}</text></svg>'
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [
        "<tr>" + "".join(f"<{kind}>{html.escape(cell)}</{kind}>" for cell in row) + "</tr>"
        for kind, row in [("th", head), *(("td", row) for row in rows)]
    ]
    return f'<div class="wide"><table>\n{chr(10).join(lines)}\n</table></div>'
