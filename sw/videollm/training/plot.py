"""The plot of a training run."""

import io
from typing import Any


def training_plot(log: dict[str, Any]) -> bytes:
    """A PNG picture: the loss, and the accuracy of each kind of question, over the steps.

    Args:
        log: as the trainer writes it: `log` with `step`, `loss` and `accuracy` (kind: [right, asked]) each.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 3.8), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    entries = log["log"]
    known = [(entry["step"], entry["loss"]) for entry in entries if entry["loss"] is not None]
    left.plot(*zip(*known, strict=True), "o-", markersize=3) if known else None
    left.set(xlabel="step", ylabel="loss", yscale="log", title="mean loss since the last test")
    kinds = dict.fromkeys(kind for entry in entries for kind in entry["accuracy"])
    for kind in kinds:
        shares = [
            (entry["step"], entry["accuracy"][kind][0] / entry["accuracy"][kind][1])
            for entry in entries
            if kind in entry["accuracy"]
        ]
        asked = max(entry["accuracy"].get(kind, [0, 0])[1] for entry in entries)
        style = ":" if kind in ("silent", "speak") else "-"
        right.plot(*zip(*shares, strict=True), f"o{style}", markersize=3, label=f"{kind} (n {asked})")
    right.set(xlabel="step", ylabel="share right", ylim=(-0.03, 1.03), title="on videos kept for the test")
    right.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()
