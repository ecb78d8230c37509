"""The plot of what an ideal observer can answer."""

import io
from typing import Any


def bayes_plot(description: dict[str, Any]) -> bytes:
    """A PNG picture: accuracy of each kind of question over the number of steps seen.

    Args:
        description: as `vrex.sw.videollm.procstream.ideal.describe` gives it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    rows = [row for row in description["rows"] if row["seen"] is not None]
    certain = []
    for kind in dict.fromkeys(row["kind"] for row in rows):
        points = [(row["seen"], row["accuracy"]) for row in rows if row["kind"] == kind]
        if all(accuracy == 1 for _, accuracy in points):
            certain.append(kind)
        else:
            axes.plot(*zip(*points, strict=True), "o-", label=kind)
    if certain:
        axes.axhline(1, color="grey", linestyle=":", label=", ".join(certain))
    axes.set(
        xlabel="steps of the recipe seen",
        ylabel="Bayes accuracy",
        ylim=(0, 1.05),
        xticks=sorted({row["seen"] for row in rows}),
    )
    axes.set_title(f"What an ideal observer answers, level {description['level']}", fontsize=9)
    axes.legend(fontsize=8, loc="lower right")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()
