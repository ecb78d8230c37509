"""The plot that the MAC tree's default scheme is chosen by."""

import io
from typing import Any

LABEL_STEP = 0.7
"""A point is labelled when its error is below this share of the last labelled one's."""


def schemes_plot(figures: dict[str, Any]) -> bytes:
    """A PNG picture: cells against mean error, the tree and scheme `fused` by W, one panel a data set.

    Args:
        figures: as `vrex.sw.evaluation.benches.lxe.bench_lxe` gives them.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sets = list(figures["tree"]["mean_error"])
    figure = Figure(figsize=(4.0 * len(sets), 3.4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(sets), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, sets, strict=True):
        fused = figures["fused"].items()
        cells = [entry["cells"] / 1000 for _, entry in fused]
        errors = [entry["mean_error"][name] for _, entry in fused]
        axes.plot(cells, errors, "o-", label="fused, by W")
        shown = float("inf")
        for (w, _), x, y in zip(fused, cells, errors, strict=True):
            # Only where the error moves: the others would lie on each other.
            if y < LABEL_STEP * shown:
                axes.annotate(w, (x, y), textcoords="offset points", xytext=(5, 4), fontsize=8)
                shown = y
        default = figures["fused"].get(str(figures["default"]["fraction_bits"]))
        if default is not None:
            label = f"default, W {figures['default']['fraction_bits']}"
            axes.plot(default["cells"] / 1000, default["mean_error"][name], "D", markersize=8, label=label)
        axes.plot(figures["tree"]["cells"] / 1000, figures["tree"]["mean_error"][name], "s", label="tree")
        axes.axhline(figures["tree"]["mean_error"][name], linestyle=":", linewidth=1)
        axes.set(title=name.replace("_", "-"), xlabel="cells of one tree [1000]", yscale="log")
    panels[0].set_ylabel("mean error / sum of magnitudes")
    panels[0].legend(fontsize=8)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()
