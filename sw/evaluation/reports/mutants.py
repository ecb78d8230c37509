"""Table and picture of `vrex mutate`."""

import io
from collections import Counter
from collections.abc import Sequence
from typing import Any

from vrex.sw.evaluation.reports.table import aligned

VERDICTS = {"killed": "tab:green", "equivalent": "tab:gray", "survived": "tab:red"}
"""Verdicts, with their colours."""


def _counts(verdicts: Sequence[dict[str, Any]], key: str) -> dict[str, Counter[str]]:
    """Verdicts counted by a key of the entries."""
    counts: dict[str, Counter[str]] = {}
    for entry in verdicts:
        counts.setdefault(entry[key], Counter())[entry["verdict"]] += 1
    return dict(sorted(counts.items()))


def table(figures: dict[str, Any]) -> str:
    """Mutants by source, and the survivors with the command that runs each alone.

    Args:
        figures: as `vrex mutate` writes them.
    """
    rows = [("source", "mutants", *VERDICTS)]
    counts = _counts(figures["verdicts"], "file")
    for file, count in [*counts.items(), ("all", Counter(e["verdict"] for e in figures["verdicts"]))]:
        rows.append((file, str(count.total()), *(str(count[verdict]) for verdict in VERDICTS)))
    lines = [aligned(rows)]
    for entry in figures["verdicts"]:
        if entry["verdict"] == "survived":
            lines.append(f"SURVIVED {entry['file']}:{entry['line']} {entry['mutant'].partition(' ')[2]}")
            lines.append(f"  replay: {_replay(figures, entry['id'])}")
    seen = figures["seen"]
    share = "none is real" if seen is None else f"{100 * seen:.1f} % of those that are not equivalent seen"
    return "\n".join([*lines, f"mutate: unit {figures['unit']}, {figures['mutants']} mutants, {share}"])


def _replay(figures: dict[str, Any], identity: str) -> str:
    effort = "" if figures["effort"] == 1 else f" --effort {figures['effort']:g}"
    configs = ",".join(figures["configs"])
    return (
        f"vrex mutate --unit {figures['unit']} --configs {configs} --seed {figures['seed']}{effort} "
        f"--only {identity} --json -"
    )


def plot(figures: dict[str, Any]) -> bytes:
    """A PNG picture: bars of the verdicts, by source and by kind of mutant.

    Args:
        figures: as `vrex mutate` writes them.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    parts = [_counts(figures["verdicts"], key) for key in ("file", "kind")]
    height = 1.2 + 0.28 * max(1, *map(len, parts))
    figure = Figure(figsize=(9.0, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, counts, title in zip(figure.subplots(1, 2), parts, ("by source", "by kind"), strict=True):
        labels, left = list(counts), [0] * len(counts)
        for verdict, colour in VERDICTS.items():
            widths = [counts[label][verdict] for label in labels]
            axes.barh(labels, widths, left=left, color=colour, label=verdict)
            left = [start + width for start, width in zip(left, widths, strict=True)]
        axes.invert_yaxis()
        axes.set(title=title, xlabel="mutants")
        axes.tick_params(labelsize=8)
    figure.suptitle(f"{figures['unit']}: {figures['mutants']} mutants", fontsize=10)
    figure.axes[0].legend(fontsize=8)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()
