"""Steps against closed forms that can be checked by hand."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from vrex.errors import UserError
from vrex.sw.perf.description.method import Method, load_method
from vrex.sw.perf.description.system import load_system
from vrex.sw.perf.description.workload import Workload, frame, load_model, load_vision, token
from vrex.sw.perf.simulation import calibration, events
from vrex.sw.perf.simulation.events import Task
from vrex.sw.perf.simulation.machine import Machine
from vrex.sw.perf.simulation.recorded import read
from vrex.sw.perf.simulation.step import DRAM, ENGINE, LINK, OutOfMemoryError, Step, simulate

MODEL, VISION = load_model("llama-3-8b"), load_vision("siglip-l-384")
EDGE, ORIN = Machine(load_system("v-rex8")), Machine(load_system("agx-orin"))
TOKEN_BYTES = 131_072
WEIGHTS = 15_009_316_864
"""Of a generated token."""


def method(name: str, **fields: Any) -> Method:
    return dataclasses.replace(load_method(name), **fields)


def run(machine: Machine, chosen: Method | str, work: Workload) -> Step:
    return simulate(machine, load_method(chosen) if isinstance(chosen, str) else chosen, work)


# -- the core -------------------------------------------------------------------------------------------


def test_tasks_wait_for_predecessors_and_resources() -> None:
    tasks = [
        Task("a", "compute", "x", 2.0),
        Task("b", "compute", "x", 1.0),
        Task("c", "fetch", "y", 4.0, (0,)),
        Task("d", "compute", "x", 1.0, (2,)),
    ]
    log = events.run(tasks)
    assert [(record.ready, record.start, record.end) for record in log] == [
        (0, 0, 2), (0, 2, 3), (2, 2, 6), (6, 6, 7),
    ]  # fmt: skip
    assert events.latency(log) == 7
    assert events.busy(log, ("x", "y")) == 7
    assert events.breakdown(log, ("compute", "fetch")) == {"compute": 4, "fetch": 3, "idle": 0}


def test_of_tasks_ready_at_once_the_first_goes_first() -> None:
    tasks = [Task("a", "k", "x", 1.0), Task("b", "k", "y", 1.0)]
    tasks += [Task("late", "k", "z", 1.0, (1,)), Task("first", "k", "z", 1.0, (0,))]
    log = events.run(tasks)
    assert (log[2].start, log[3].start) == (1, 2)


@pytest.mark.parametrize("resource", [ENGINE, DRAM, LINK])
@pytest.mark.parametrize("name", ["vrex", "resv-gpu", "flexgen"])
def test_littles_law_holds_in_the_log(name: str, resource: str) -> None:
    machine = EDGE if name == "vrex" else ORIN
    length, rate, wait = events.little(run(machine, name, frame(MODEL, VISION, 20_000, 4)).log, resource)
    assert length > 0
    assert length == pytest.approx(rate * wait, rel=1e-9)


# -- closed forms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("past", [1000, 40_000])
def test_all_resident_is_bound_by_dram(past: int) -> None:
    step = run(EDGE, "resident", token(MODEL, past))
    size = WEIGHTS + (past + 1) * TOKEN_BYTES
    assert step.dram_bytes == size
    assert step.link_bytes == 0
    assert step.seconds == pytest.approx(size / EDGE.bandwidth(), rel=0.01)


def test_a_long_cache_behind_the_link_is_bound_by_it() -> None:
    past = 160_000
    step = run(ORIN, "flexgen-overlapped", token(MODEL, past))
    assert step.link_bytes == past * TOKEN_BYTES
    assert step.seconds == pytest.approx(past * TOKEN_BYTES / ORIN.link_rate(), rel=0.01)


def test_without_overlap_fetch_and_compute_add_up() -> None:
    past = 40_000
    step = run(ORIN, "flexgen", token(MODEL, past))
    fetch = past * TOKEN_BYTES / ORIN.link_rate() + 32 * ORIN.link_latency()
    compute = (WEIGHTS + (past + 1) * TOKEN_BYTES) / ORIN.bandwidth()
    assert step.seconds == pytest.approx(fetch + compute, rel=0.01)


def test_only_what_is_selected_crosses_the_link() -> None:
    step = run(EDGE, "vrex", frame(MODEL, VISION, 40_000))
    assert step.link_bytes == pytest.approx(0.327 * 40_000 * TOKEN_BYTES)
    assert step.seconds > step.link_bytes / EDGE.link_rate(16384)


def test_a_layer_is_bound_by_arithmetic_with_many_rows() -> None:
    # 512 rows: 16 blocks of 32 rows, each 64 cycles a tile of 64 x 64 weights, on 8 cores.
    tiles = MODEL.layer_weights / 4096
    cycles = tiles * 16 * 64 / 8 / calibration.load()["dpe"]["utilisation"]
    assert EDGE.gemm(MODEL.layer_weights, 512) == pytest.approx(cycles / 800e6)


def test_four_bits_move_about_a_quarter() -> None:
    work = frame(MODEL, VISION, 40_000)
    whole, small = run(EDGE, "vrex", work), run(EDGE, "vrex-kv4", work)
    assert small.link_bytes / whole.link_bytes == pytest.approx((1024 + 32) / 4096)


# -- energy ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("machine", "name"), [(EDGE, "vrex"), (ORIN, "flexgen"), (EDGE, "resident")])
def test_energy_is_the_sum_of_its_parts(machine: Machine, name: str) -> None:
    step = run(machine, name, frame(MODEL, VISION, 10_000))
    power = machine.system.power
    assert step.joules == pytest.approx(sum(step.energy.values()))
    assert step.energy["dram"] == pytest.approx(step.dram_bytes * 8 * power.dram_pj_bit * 1e-12)
    linked = events.busy(step.log, (LINK,))
    assert step.energy["link"] == pytest.approx(4 * 3.0 * linked)
    assert step.energy["offload"] == pytest.approx(power.offload_w * linked)


# -- monotone -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vrex", "vrex-kv4", "vrex-resident", "resident"])
def test_time_grows_with_the_cache(name: str) -> None:
    times = [run(EDGE, name, frame(MODEL, VISION, past)).seconds for past in (1000, 5000, 20_000, 80_000)]
    assert times == sorted(times)
    assert len(set(times)) == len(times)


def test_time_falls_with_bandwidth() -> None:
    memory = dataclasses.replace(EDGE.system.memory, channels=32)
    link = dataclasses.replace(EDGE.system.link, lanes=8)
    work = frame(MODEL, VISION, 20_000)
    before = run(EDGE, "vrex", work).seconds
    for change in ({"memory": memory}, {"link": link}):
        assert run(Machine(dataclasses.replace(EDGE.system, **change)), "vrex", work).seconds < before


def test_time_grows_with_the_ratio() -> None:
    work = frame(MODEL, VISION, 40_000)
    ratios = (0.05, 0.1, 0.3, 0.6, 0.99)
    times = [run(EDGE, method("vrex", ratio_frame=ratio), work).seconds for ratio in ratios]
    assert times == sorted(times)


def test_time_grows_with_the_batch() -> None:
    times = [run(EDGE, "vrex", frame(MODEL, VISION, 10_000, batch)).seconds for batch in (1, 4, 16, 64)]
    assert times == sorted(times)


@pytest.mark.parametrize("name", ["llama-3-70b", "qwen3-8b", "qwen2.5-7b", "qwen3-32b"])
def test_other_models_run_on_a_large_system(name: str) -> None:
    memory = dataclasses.replace(EDGE.system.memory, capacity_gb=400.0)
    large = Machine(dataclasses.replace(EDGE.system, memory=memory))
    model = load_model(name)
    step = run(large, "vrex", token(model, 1000))
    weights = 2 * (model.layers * model.layer_weights + model.head_weights)
    assert step.seconds == pytest.approx(weights / large.bandwidth(), rel=0.05)


# -- what can't be done ---------------------------------------------------------------------------------


def test_a_cache_that_does_not_fit_is_said() -> None:
    with pytest.raises(OutOfMemoryError, match=r"needs \d+\.\d GB of 32 GB"):
        run(ORIN, "resident", frame(MODEL, VISION, 200_000))


def test_our_engine_is_not_in_a_gpu() -> None:
    with pytest.raises(UserError, match="needs a V-Rex"):
        run(ORIN, "vrex", frame(MODEL, VISION, 1000))


# -- recorded ratios ------------------------------------------------------------------------------------


def recorded(folder: Path, **changes: Any) -> Path:
    content = {"ratio": {"per_layer_head": [[0.1] * 8, [0.3] * 8] * 16}, "tokens_per_cluster": 5.0} | changes
    path = folder / "run.json"
    path.write_text(json.dumps(content))
    return path


def test_a_recorded_run_gives_ratios_by_layer(tmp_path: Path) -> None:
    ratios, chosen = read(recorded(tmp_path), MODEL, "llama-3-8b", load_method("vrex"))
    assert ratios == pytest.approx([0.1, 0.3] * 16)
    assert chosen.cluster_tokens == 5
    step = simulate(EDGE, chosen, frame(MODEL, VISION, 10_000), ratios)
    assert step.link_bytes == pytest.approx(0.2 * 10_000 * TOKEN_BYTES)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"ratio": {"per_layer_head": [[0.1, 0.1]] * 8}},
            "8 layers of 2 KV heads, but model llama-3-8b has 32 of 8",
        ),
        ({"ratio": {}}, "field ratio.per_layer_head is missing"),
        ({"ratio": {"per_layer_head": [[1.5] * 8] * 32}}, r"per_layer_head\[0\] = 1.5 is not within"),
        ({"ratio": {"per_layer_head": 3}}, "no list of layers"),
        ({"tokens_per_cluster": None}, "tokens_per_cluster = None is not"),
    ],
)
def test_a_run_of_another_model_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    path = recorded(tmp_path, **changes)
    with pytest.raises(UserError, match=said) as raised:
        read(path, MODEL, "llama-3-8b", load_method("vrex"))
    assert str(path) in str(raised.value)


# -- calibration ----------------------------------------------------------------------------------------


def test_cycles_are_those_that_were_recorded() -> None:
    assert calibration.hcu_cycles(10, 1250) == pytest.approx(889)
    assert calibration.hcu_cycles(10, 4096) == pytest.approx(2659)
    assert calibration.wtu_row_cycles(1024) == pytest.approx(64 + 66.38, rel=1e-3)
    assert len(calibration.load()["rtl_commit"]) >= 7


def test_more_clusters_take_longer() -> None:
    sizes = (1, 100, 1024, 1250, 4096, 4097, 31250, 100_000)
    assert sorted(map(calibration.wtu_row_cycles, sizes)) == [
        calibration.wtu_row_cycles(size) for size in sizes
    ]
    assert sorted(calibration.hcu_cycles(10, size) for size in sizes) == [
        calibration.hcu_cycles(10, size) for size in sizes
    ]
