"""Design points: what a spec makes, figures that are those of `vrex perf`, fronts, areas, and the page."""

import dataclasses
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vrex.errors import UserError
from vrex.sw.perf.description.method import load_method
from vrex.sw.perf.description.system import load_system
from vrex.sw.perf.explore import accuracy, design, page, table
from vrex.sw.perf.explore.evaluate import COLUMNS, OBJECTIVES, evaluate
from vrex.sw.perf.explore.pareto import front, fronts
from vrex.sw.perf.explore.spec import DEFAULT, Spec, digest, load_spec
from vrex.sw.perf.report.metrics import Context
from vrex.sw.perf.simulation import area, calibration
from vrex.sw.perf.simulation.calibration import EDGE, Core

SPEC = """
[workload]
model = ["llama-3-8b"]
vision = ["siglip-l-384"]
kv = [1000, 40000]
batch = [1, 16]

[[sweep]]
system = ["v-rex8"]
method = ["vrex", "resident"]
[sweep.hardware]
compute.cores = [4, 8]

[[sweep]]
system = ["agx-orin"]
method = ["resident", "flexgen"]
"""


def spec(folder: Path, text: str = SPEC) -> Spec:
    path = folder / "spec.toml"
    path.write_text(text)
    return load_spec(path)


# -- points ---------------------------------------------------------------------------------------------


def test_a_spec_makes_every_combination_once(tmp_path: Path) -> None:
    found = spec(tmp_path, SPEC + SPEC[SPEC.index("[[sweep]]") :]).designs()
    assert len(found) == (2 * 2 + 2) * 4
    assert len({one.id for one in found}) == len(found)
    assert digest(found) != digest(found[:-1])


def test_the_default_makes_ten_thousand_points() -> None:
    found = load_spec(DEFAULT).designs()
    assert 10_000 <= len(found) < 20_000
    assert {one.system.title for one in found} > {"V-Rex8", "V-Rex48", "AGX Orin", "H100"}


def test_points_have_the_figures_of_perf(tmp_path: Path) -> None:
    context = Context()
    seen = 0
    for one in spec(tmp_path).designs():
        row = evaluate(one)
        assert tuple(row) == COLUMNS
        if one.system == load_system(one.names[0]) and row["fits"]:
            step = context.frame(*one.names[:2], one.kv, one.batch)
            text = context.token(*one.names[:2], one.kv, one.batch)
            assert row["frame_ms"] == step.seconds * 1e3
            assert row["tpot_ms"] == text.seconds * 1e3
            assert row["fps"] == one.batch / step.seconds
            assert row["joule_per_frame"] == step.joules / one.batch
            assert row["tpot_joule"] == text.joules
            seen += 1
    assert seen == 14


def test_what_does_not_fit_says_so(tmp_path: Path) -> None:
    rows = [evaluate(one) for one in spec(tmp_path).designs() if one.names[1] == "resident"]
    [row] = [row for row in rows if (row["system"], row["kv"], row["batch"]) == ("agx-orin", 40_000, 16)]
    assert (row["fits"], row["fps"]) == (False, None)
    assert re.fullmatch(r"needs \d+\.\d GB of 32 GB", row["obstacle"])


def changed(**changes: Any) -> tuple[Any, Core]:
    return design.change_hardware(load_system("v-rex8"), changes, Path("x.toml"), "sweep[0].hardware")


def test_peak_and_power_follow_cores_clock_and_units() -> None:
    before = load_system("v-rex8")
    assert changed(**{"link.lanes": 8})[0].power == before.power
    twice, _ = changed(**{"compute.cores": 16, "compute.clock_mhz": 400.0})
    assert twice.power.compute_w == pytest.approx(before.power.compute_w)
    assert twice.compute.peak_tflops == pytest.approx(before.compute.peak_tflops, rel=2e-3)
    half, core = changed(**{"dpe.trees": 32})
    # Table III: DPE 2311.39 of 2609.43 mW.
    assert half.power.compute_w / before.power.compute_w == pytest.approx(1 - 2311.39 / 2609.43 / 2, rel=1e-3)
    assert core == dataclasses.replace(EDGE, trees=32)
    assert half.compute.peak_tflops == pytest.approx(8 * (2 * 32 * 64 + 2 * 64) * 0.8e-3)


def test_a_tile_of_fewer_trees_takes_fewer_cycles() -> None:
    # 32 rows keep 64 trees waiting for their 64 columns, 32 trees for 33 cycles of 32 columns.
    values = 4096 * 1000
    whole = calibration.gemm_cycles(values, 32)
    assert calibration.gemm_cycles(values, 32, Core(trees=32)) == pytest.approx(whole * 2 * 33 / 64)
    assert calibration.gemm_cycles(values, 64, Core(rows=64)) == pytest.approx(whole * 65 / 64)
    assert calibration.vector_cycles(640, "exp", core=Core(vpe_lanes=8)) == pytest.approx(80 * 9)


def test_clusters_that_lie_together_stay_so() -> None:
    together, apart = load_method("vrex"), load_method("resv-gpu")
    assert design.change_method(together, {"cluster_tokens": 3.3}).run_tokens == 3
    assert design.change_method(apart, {"cluster_tokens": 3.3}).run_tokens == 1
    assert design.change_method(together, {}) == together


# -- accuracy -------------------------------------------------------------------------------------------


def test_only_recorded_settings_have_an_accuracy() -> None:
    assert accuracy.known(load_method("vrex"), None) is None
    full = accuracy.known(load_method("resident"), None)
    assert full is not None
    assert (full.accuracy, full.n) == (1.0, 221)
    name = next(name for name, entry in accuracy.records().items() if "resv" in entry.predictors)
    given = accuracy.records()[name].applied(load_method("vrex"))
    assert accuracy.known(given, name) == accuracy.records()[name]
    assert accuracy.known(dataclasses.replace(given, ratio_frame=0.05), name) is None


def test_records_are_what_was_measured() -> None:
    rows = json.loads(Path("docs/accuracy.json").read_text())["rows"]
    wanted = {
        (row["policy"], row["ratio_frame"], row["accuracy"], row["n"]) for row in rows if row["task"] == "all"
    }
    found = {
        (entry.name.split()[0].rstrip(","), entry.ratio_frame, entry.accuracy, entry.n)
        for entry in accuracy.records().values()
        if "docs/accuracy.json" in entry.source
    }
    assert found
    assert found <= wanted


# -- area -----------------------------------------------------------------------------------------------


def test_recorded_areas_come_out_as_they_are() -> None:
    [kvmu] = [entry for entry in area.records() if entry["unit"] == "kvmu"]
    assert area.parts(EDGE)["kvmu"].logic_mm2 == pytest.approx(kvmu["area"] / 24 * 0.1348 / 1e6)
    assert area.parts(EDGE)["hcu"].basis == "recorded"
    assert all(entry["source"] and entry["commit"] and entry["date"] for entry in area.records())


def test_between_records_are_straight_lines() -> None:
    points = {4: 10.0, 8: 20.0, 16: 80.0}
    assert area.on_lines(points, 8) == (20.0, "recorded")
    assert area.on_lines(points, 12) == (50.0, "interpolated")
    assert area.on_lines(points, 32) == (200.0, "extrapolated")
    with pytest.raises(KeyError):
        area.on_lines({4: 1.0}, 8)


def test_larger_cores_are_larger() -> None:
    for name, values in (("trees", (16, 32, 64)), ("vpe_lanes", (8, 16, 32, 64)), ("hcu_lanes", (4, 8, 64))):
        sizes = [area.chip(Core(**{name: value}), 8).mm2 for value in values]
        assert sizes == sorted(sizes)
        assert len(set(sizes)) == len(sizes)
    assert area.chip(EDGE, 16).mm2 == pytest.approx(2 * area.chip(EDGE, 8).mm2)
    # The paper's core has 1.89 mm2; ours is of its size.
    assert 1 < area.chip(EDGE, 1).mm2 < 3


# -- fronts ---------------------------------------------------------------------------------------------


def dominated(values: np.ndarray, index: int) -> bool:
    return any(bool((other <= values[index]).all() and (other < values[index]).any()) for other in values)


POINTS = st.integers(1, 4).flatmap(
    lambda width: st.lists(
        st.lists(st.integers(-3, 3) | st.floats(-2, 2), min_size=width, max_size=width),
        min_size=1,
        max_size=25,
    )
)


@given(POINTS)
@settings(max_examples=100, deadline=None)
def test_a_front_is_what_nothing_dominates(points: list[list[float]]) -> None:
    values = np.array(points, float)
    assert front(values).tolist() == [not dominated(values, index) for index in range(len(values))]


def row(fps: float | None, watts: float | None, kv: int = 1, fits: bool = True) -> dict[str, Any]:
    same = {"model": "m", "vision": "v", "batch": 1}
    return {**same, "kv": kv, "fps": fps, "compute_w": watts, "fits": fits}


def test_fronts_are_of_one_workload_and_of_what_fits() -> None:
    rows = [row(2, 5), row(3, 5), row(1, 1), row(None, 0), row(1, 9, kv=2), row(9, 0, fits=False)]
    assert fronts(rows, ["fps", "compute_w"]) == [False, True, True, False, True, False]


# -- page, table ----------------------------------------------------------------------------------------


class Parts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.data = ""
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.addresses += [values[name] or "" for name in ("src", "href") if name in values]
        self._inside = values.get("id") == "data"

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.data += data


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("explore")
    names = ["fps", "joule_per_frame", "area_mm2"]
    rows = [evaluate(one) for one in spec(folder).designs()]
    for one, mine in zip(rows, fronts(rows, names), strict=True):
        one["front"] = mine
    return {"vrex": "0", "rtl_commit": "0", "objectives": names, "rows": rows}


def test_the_page_holds_all_points_and_needs_no_network(result: dict[str, Any]) -> None:
    parser = Parts()
    parser.feed(page.page(result))
    assert parser.addresses == []
    found = json.loads(parser.data)
    assert len(found["rows"]) == len(result["rows"])
    place = found["columns"].index("fps")
    for line, one in zip(found["rows"], result["rows"], strict=True):
        assert line[place] == (None if one["fps"] is None else pytest.approx(one["fps"], rel=1e-4))
    assert set(found["objectives"]) <= set(OBJECTIVES)
    assert not re.search(r"(https?:)?//\w", page.page(result))


def test_no_name_ends_the_script(result: dict[str, Any]) -> None:
    rows = [{**one, "model": "</script><b>é\udce9"} for one in result["rows"]]
    parser = Parts()
    parser.feed(page.page({**result, "rows": rows}))
    found = json.loads(parser.data)
    assert {line[found["columns"].index("model")] for line in found["rows"]} == {"</script><b>é\\xe9"}


def test_the_parquet_table_has_every_column(result: dict[str, Any]) -> None:
    from pyarrow import parquet

    read = parquet.read_table(io.BytesIO(table.parquet(result["rows"])))
    assert read.column_names == [*COLUMNS, "front"]
    assert read.column("fps").to_pylist() == [one["fps"] for one in result["rows"]]


def test_the_text_names_each_front(result: dict[str, Any]) -> None:
    shown = table.text(result["rows"], result["objectives"])
    assert shown.count(" tokens, batch ") == 4
    assert "24 points, 21 fit" in shown


# -- mistakes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('model = ["llama-3-8b"]\n', "", "field workload.model is missing"),
        ("kv = ", "kb = ", "field workload.kb is unknown; known are model, vision, kv, batch"),
        ("llama-3-8b", "gpt", "field workload.model: model 'gpt' is unknown"),
        ("siglip-l-384", "eye", "field workload.vision: vision tower 'eye' is unknown"),
        ('"agx-orin"', '"tpu"', "field sweep[1].system: system 'tpu' is unknown"),
        ('"flexgen"', '"magic"', "field sweep[1].method: method 'magic' is unknown"),
        ('"flexgen"', '"vrex"', "sweep[1].method: vrex needs a V-Rex, but agx-orin is a GPU"),
        ("[1000, 40000]", "[]", "field workload.kv is no list of values"),
        ("[1000, 40000]", "1000", "field workload.kv is no list of values"),
        ("[1000, 40000]", "[1000, 1000]", "field workload.kv has 1000 twice"),
        ("[1000, 40000]", "[-1]", "field workload.kv = -1 is not a whole number of at least 0"),
        ("[1000, 40000]", "[true]", "field workload.kv = True is not a whole number"),
        ("batch = [1, 16]", "batch = [0]", "field workload.batch = 0 is not a whole number of at least 1"),
        ("[workload]", "[work]", "field work is unknown; known are workload, sweep"),
        ("compute.cores", "compute.coers", "sweep[0].hardware.compute.coers = 4 is unknown; known are"),
        ("compute.cores = [4, 8]", "compute.cores = [-4]", "compute.cores = -4 is negative"),
        ("compute.cores = [4, 8]", "dpe.trees = [7]", "dpe.trees = 7 is not one of 8, 16, 32, 64, 128"),
        ("compute.cores = [4, 8]", "compute.launch_us = [7.0]", "does not belong to V-Rex8"),
        ("compute.cores = [4, 8]", "link.max_payload = [300]", "hardware makes no system of V-Rex8: "),
        ("compute.cores = [4, 8]", 'memory.part = ["sdram"]', "memory part 'sdram' is unknown"),
        ("[sweep.hardware]\ncompute.cores", "[sweep.algorithm]\nspeed", "algorithm.speed is unknown"),
        ("[sweep.hardware]\ncompute.cores = [4, 8]", "algorithm.kv_bits = [32]", "kv_bits = 32 is above 16"),
        ("[sweep.hardware]\ncompute.cores = [4, 8]", 'algorithm.recorded = ["x"]', "'x' is unknown; known"),
        ('["vrex", "resident"]', "[3]", "field sweep[0].method = 3 is not a word in quotes"),
        ("[[sweep]]", "[sweep]", "no TOML file"),
    ],
)  # fmt: skip
def test_a_wrong_spec_is_refused_by_field(tmp_path: Path, before: str, after: str, said: str) -> None:
    assert before in SPEC
    with pytest.raises(UserError) as raised:
        spec(tmp_path, SPEC.replace(before, after, 1)).designs()
    message = str(raised.value)
    assert said in message
    assert "spec.toml" in message
    assert "\n" not in message


def test_a_recorded_setting_of_another_method_is_refused(tmp_path: Path) -> None:
    name = next(name for name in accuracy.records() if name.startswith("rekv"))
    text = SPEC.replace("[sweep.hardware]", f'[sweep.algorithm]\nrecorded = ["{name}"]\n[sweep.hardware]')
    with pytest.raises(UserError, match=f"{name} fits none of vrex, resident"):
        spec(tmp_path, text)


def test_recorded_settings_take_the_place_of_a_method_s_own(tmp_path: Path) -> None:
    text = SPEC.replace("[sweep.hardware]", '[sweep.algorithm]\nrecorded = "all"\n[sweep.hardware]')
    rows = [evaluate(one) for one in spec(tmp_path, text).designs()]
    mine = [row for row in rows if row["method"] == "vrex"]
    assert {row["recorded"] for row in mine} == {
        name for name, entry in accuracy.records().items() if "dre" in entry.predictors
    }
    assert all(row["accuracy"] is not None and "docs/" in row["accuracy_source"] for row in mine)
