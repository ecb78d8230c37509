"""The heat map."""

import io

import numpy as np
from PIL import Image

from vrex.sw.evaluation.reports.heatmap import ratio_heatmap


def _pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=int)


def test_the_same_figures_give_the_same_bytes() -> None:
    assert ratio_heatmap([[0.1, 0.2]], "run") == ratio_heatmap([[0.1, 0.2]], "run")


def test_a_cell_takes_the_colour_of_its_ratio() -> None:
    # viridis goes from dark violet (0 %) to yellow (100 %).
    low, high = _pixels(ratio_heatmap([[0.0]], "x")), _pixels(ratio_heatmap([[1.0]], "x"))
    changed = np.any(low != high, axis=-1)
    assert changed.mean() > 0.1
    assert np.median(high[changed][:, 0]) > 200
    assert np.median(low[changed][:, 0]) < 100


def test_layers_and_heads_fit_and_a_layer_without_past_is_allowed() -> None:
    small, large = _pixels(ratio_heatmap([[0.5]], "x")), _pixels(ratio_heatmap([[None] * 8] * 32, "x"))
    assert large.shape[0] > 3 * small.shape[0]
    assert large.shape[1] > 2 * small.shape[1]
