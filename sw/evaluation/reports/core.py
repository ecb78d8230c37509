"""The picture of a layer on the core: a lane for each engine over time."""

import io
from typing import Any


def lanes_plot(figures: dict[str, Any]) -> bytes:
    """A PNG picture: how busy each engine is over a job, one panel a measured past.

    Args:
        figures: as `vrex.sw.evaluation.benches.core.bench_core` gives them; points without a trace are left
            out.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    points = [point for point in figures["layer"] if "trace" in point]
    names = list(points[0]["trace"])
    figure = Figure(figsize=(9.0, 0.5 + 2.6 * len(points)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(points), 1, squeeze=False)[:, 0]
    shown: Any = None
    for axes, point in zip(panels, points, strict=True):
        shares = [point["trace"][name] for name in names]
        extent = (0, point["cycles"] / 1000, len(names) - 0.5, -0.5)
        shown = axes.imshow(
            shares, aspect="auto", cmap="Greys", vmin=0, vmax=1, interpolation="nearest", extent=extent
        )
        axes.set_yticks(range(len(names)), names)
        for edge in range(1, len(names)):
            axes.axhline(edge - 0.5, color="0.7", linewidth=0.6)
        needs = point["needs"]
        axes.set_title(
            f"{point['rows']} rows on {point['past']} tokens: {point['cycles']:,} cycles, "
            f"{point['ratio']:.2f} x what {needs['bound_by']} needs",
            fontsize=9,
        )
        axes.set_xlabel("1000 cycles")
    figure.colorbar(shown, ax=list(panels), label="busy share of a slice")
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()
