"""Systems, models and methods: what is read is what the file says, and a wrong file is refused by field."""

import re
from pathlib import Path

import pytest

from vrex.errors import UserError
from vrex.sw.perf.description.method import load_method, methods
from vrex.sw.perf.description.sections import DATA, named
from vrex.sw.perf.description.system import load_system
from vrex.sw.perf.description.workload import load_model, load_vision
from vrex.sw.perf.memory.parts import load_dram, load_flash

SYSTEM = (DATA / "systems" / "v-rex8.toml").read_text()


def changed(folder: Path, before: str, after: str) -> Path:
    text, count = re.subn(before, after, SYSTEM, count=1, flags=re.M)
    assert count == 1
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def test_every_file_that_comes_with_the_package_is_right() -> None:
    assert set(named("systems")) == {"agx-orin", "a100", "v-rex8", "v-rex48", "jetson-thor", "h100"}
    for name in named("systems"):
        system = load_system(name)
        load_dram(system.memory.part)
        (load_flash if system.offload.kind == "ssd" else load_dram)(system.offload.part)
    for name in methods():
        load_method(name)


@pytest.mark.parametrize(
    "path", [*(DATA / "systems").glob("*.toml"), *(DATA / "parts").glob("lpddr5-*.toml")]
)
def test_every_number_names_its_source(path: Path) -> None:
    for line in path.read_text().splitlines():
        if re.match(r"\w+ = [\d.]+$", line):
            assert line.split(" =")[0] in ("launch_us", "cores", "lanes", "channel_bits", "bank_groups",
                                           "banks_per_group", "t_ras", "t_rrd_l", "t_faw", "t_refi",
                                           "capacity_gb", "channels", "compute_w"), line  # fmt: skip


def test_a_copied_file_is_a_system(tmp_path: Path) -> None:
    path = changed(tmp_path, r"^cores = 8", "cores = 16")
    assert load_system(str(path)).compute.cores == 16


@pytest.mark.parametrize(
    ("before", "after", "field", "said"),
    [
        (r"^cores = 8\n", "", "compute.cores", "is missing"),
        (r"^\[link\][^\[]*", "", "link", "is missing"),
        (r"^cores = 8", "cores = -8", "compute.cores", "is negative"),
        (r"^cores = 8", "cores = 0", "compute.cores", "not above 0"),
        (r"^cores = 8", "cores = 8.5", "compute.cores", "whole number"),
        (r"^cores = 8", "cores = true", "compute.cores", "not a number"),
        (r"^cores = 8", 'cores = "8"', "compute.cores", "not a number"),
        (r"^clock_mhz = 800.0", "clock_mhz = nan", "compute.clock_mhz", "not finite"),
        (r"^clock_mhz = 800.0", "clock_mhz = inf", "compute.clock_mhz", "not finite"),
        (r"^launch_us = 0.0", "launch_us = -1.0", "compute.launch_us", "is negative"),
        (r"^roofline_share = 1.0", "roofline_share = 1.5", "compute.roofline_share", "above 1"),
        (r"^cores = 8", "cores = 8\ncoers = 8", "compute.coers", "is unknown"),
        (r"^title", "colour = 1\ntitle", "colour", "is unknown"),
        (r'^kind = "v-rex"', 'kind = "tpu"', "compute.kind", "not one of gpu, v-rex"),
        (r"^max_payload = 256", "max_payload = 300", "link.max_payload", "power of two"),
        (r"^title = .*$", "title = 3", "title", "not a word"),
        (r"^title", "link = 3\ntitle", "no TOML file", "no TOML file"),
        (r"^cores = 8", f"cores = {'8' * 5_000}", "no TOML file", "no TOML file"),
        (r"^cores = 8", f"cores = {'[' * 5_000}", "no TOML file", "nested too deeply"),
        (r"^part = .*$", 'part = "sdram"', "sdram", "unknown"),
    ],
)  # fmt: skip
def test_a_wrong_system_is_refused_in_one_sentence(
    tmp_path: Path, before: str, after: str, field: str, said: str
) -> None:
    path = changed(tmp_path, before, after)
    with pytest.raises(UserError) as raised:
        load_dram(load_system(str(path)).memory.part)
    message = str(raised.value)
    assert said in message
    assert field in message
    assert "\n" not in message
    assert field == "sdram" or str(path) in message


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text("title = ")
    for name, said in (("gone.toml", "cannot read"), ("broken.toml", "no TOML")):
        with pytest.raises(UserError, match=said):
            load_system(tmp_path / name)
    with pytest.raises(UserError, match="known are a100, agx-orin"):
        load_system("tpu")


def test_unknown_models_and_methods_are_refused() -> None:
    for load in (load_model, load_vision, load_method):
        with pytest.raises(UserError, match="'gpt' is unknown; known are"):
            load("gpt")


def test_methods_and_models_come_from_files_too(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    fields = "layers = 2\nhidden = 8\nheads = 2\nkv_heads = 1\nhead_dim = 4\nffn = 16\nvocab = 32\n"
    mine.write_text(fields)
    assert load_model(str(mine)).layers == 2
    mine.write_text(fields.replace("layers = 2", "layers = 0"))
    with pytest.raises(UserError, match=r"mine\.toml: field layers = 0 is not above 0"):
        load_model(str(mine))
    with pytest.raises(UserError, match="field layers is unknown"):
        load_method(str(mine))


def test_kv_bytes_count_once_for_each_kv_head() -> None:
    # 8 KV heads x 128 values x K and V x 2 bytes = 4 KB a token and layer, whatever the 32 query heads.
    model = load_model("llama-3-8b")
    assert model.kv_bytes(1) == 4096
    assert model.layers * model.kv_bytes(1) == 131_072
    assert load_model("llama-3-70b").kv_bytes(1) == 4096
    assert load_model("qwen2.5-7b").kv_bytes(1) == 2048
    # 4 bits: a quarter, and a scale of two bytes for K and V of each KV head.
    assert model.kv_bytes(1, 4) == 1024 + 32


def test_sizes_of_llama_and_siglip() -> None:
    model, vision = load_model("llama-3-8b"), load_vision("siglip-l-384")
    assert 2 * model.layers * model.layer_weights == 13_958_643_712
    assert 2 * (model.layers * model.layer_weights + model.head_weights) == 15_009_316_864
    assert vision.flop == pytest.approx(381.4e9, rel=1e-3)
