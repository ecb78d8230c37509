"""Pictures of the figures, as PNG."""

import io
from typing import Any

import numpy as np

from vrex.sw.evaluation.reports.table import aligned


def new_figure(columns: int, width: float = 4.2) -> tuple[Any, Any]:
    """A figure and its axes, one row of them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, 3.4), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def png(figure: Any) -> bytes:
    """Its bytes, the same for the same figures."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()


def spans(rows: list[dict[str, Any]]) -> list[list[float]]:
    """Error bars of the rows' accuracies, down and up."""
    return [
        [row["accuracy"] - row["low"] for row in rows],
        [row["high"] - row["accuracy"] for row in rows],
    ]


def heat(axes: Any, values: list[list[float | None]], title: str, low: float, high: float) -> Any:
    """Layers x KV heads as colours with numbers."""
    grid = np.asarray(values, dtype=np.float64)
    image = axes.imshow(grid, cmap="viridis", vmin=low, vmax=high, aspect="auto")
    axes.set(xlabel="KV head", xticks=range(grid.shape[1]), yticks=range(len(grid)))
    axes.set_title(title, fontsize=9)
    for layer, head in np.ndindex(*grid.shape):
        ink = "black" if grid[layer, head] > (low + high) / 2 else "white"
        axes.text(head, layer, f"{grid[layer, head]:.2f}", ha="center", va="center", color=ink, fontsize=7)
    return image


def text_table(lines: list[tuple[Any, ...]]) -> str:
    """Aligned columns; the first line is the head."""
    words = [[word if isinstance(word, str) else f"{word:g}" for word in line] for line in lines]
    return aligned(words)
