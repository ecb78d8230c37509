"""The heat map of the retrieval ratio."""

import io

import numpy as np


def ratio_heatmap(ratio: list[list[float | None]], title: str) -> bytes:
    """A PNG picture: one row for each layer, one column for each KV head, the ratio as colour and number.

    Args:
        ratio: attended past tokens / past tokens, 0 to 1, [layers][KV heads]; None where there was no past.
        title: what was run.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    percent = 100 * np.asarray(ratio, dtype=np.float64)
    layers, heads = percent.shape
    figure = Figure(figsize=(3.6 + 0.9 * heads, 1.6 + 0.42 * layers), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    image = axes.imshow(percent, cmap="viridis", vmin=0, vmax=100, aspect="auto")
    axes.set(xlabel="KV head", ylabel="layer", xticks=range(heads), yticks=range(layers))
    axes.set_title(title, fontsize=9, parse_math=False)
    for layer, head in np.ndindex(layers, heads):
        value = percent[layer, head]
        ink = "black" if value > 60 else "white"
        label = "-" if np.isnan(value) else f"{value:.1f}"
        axes.text(head, layer, label, ha="center", va="center", color=ink, fontsize=8)
    figure.colorbar(image, ax=axes, label="past tokens attended [%]")
    picture = io.BytesIO()
    # Without the version of matplotlib in it the same figures give the same bytes.
    figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()
