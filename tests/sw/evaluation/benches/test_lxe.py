"""The figures of the LXE: what decides the default scheme, and how busy the DPE is."""

import dataclasses
import io
import json
from typing import Any

import pytest
from PIL import Image

from vrex.model.config import DpeConfig, preset
from vrex.sw.evaluation.benches import lxe
from vrex.sw.evaluation.reports.lxe import schemes_plot


@pytest.fixture(scope="module")
def data() -> dict[str, lxe.Pairs]:
    return lxe._data_sets()


def test_the_default_is_no_less_accurate_than_the_tree(data: dict[str, lxe.Pairs]) -> None:
    tree = lxe._accuracy(DpeConfig(scheme="tree"), data)["mean_error"]
    fused = lxe._accuracy(DpeConfig(), data)["mean_error"]
    assert set(tree) == {"normal", "heavy_tailed", "captured"}
    for name, error in fused.items():
        assert 0 < error <= tree[name]


def test_more_bits_are_more_accurate(data: dict[str, lxe.Pairs]) -> None:
    for name in data:
        errors = [
            lxe._accuracy(DpeConfig(fraction_bits=w), {name: data[name]})["mean_error"][name]
            for w in (20, 24, 28, 32)
        ]
        assert errors == sorted(errors, reverse=True)


def test_the_dpe_is_busy() -> None:
    figures = lxe._dpe()
    json.dumps(figures, allow_nan=False)
    assert 0.9 <= figures["utilisation"] <= 1
    assert {rows: entry["arithmetic_cycles"] for rows, entry in figures["gemm"].items()} == {
        str(rows): lxe.GEMM_CHUNKS * lxe.GEMM_TILES * rows * 4 for rows in lxe.GEMM_ROWS
    }


def test_the_plot() -> None:
    entry = {"cells": 100, "mean_error": {"normal": 1e-8, "captured": 2e-8}}
    figures: dict[str, Any] = {
        "tree": entry,
        "fused": {"20": entry | {"cells": 40}, "26": entry | {"cells": 50}},
    }
    figures["default"] = {"scheme": "fused", "fraction_bits": 26}
    picture = Image.open(io.BytesIO(schemes_plot(figures)))
    assert picture.size == (960, 408)
    assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 10


@pytest.mark.slow
def test_everything_on_a_small_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lxe, "WIDTHS", (22, 26))
    config = dataclasses.replace(preset("tiny"), dpe=DpeConfig(trees=2, inputs=8))
    seen: list[str] = []
    figures = lxe.bench_lxe(config, None, vectors=500, progress=seen.append)
    assert len(seen) == lxe.steps()
    assert figures["mismatches"] == 0
    assert figures["vectors"] == 500 * len(figures["by_class"])
    assert figures["fused"]["22"]["cells"] < figures["fused"]["26"]["cells"] < figures["tree"]["cells"]
    assert "0 mismatches" in lxe.table(figures)
