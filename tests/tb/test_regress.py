"""The regression itself: it passes on the hardware, catches planted bugs and tells how to replay them."""

import argparse
import json
import re
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from vrex.hw.tools.generate import verilog
from vrex.model.config import PRESETS, Config
from vrex.sw.cli import regress as command
from vrex.tb import build, regress
from vrex.tb.configs import CONFIGS, core
from vrex.tb.lib.bench import beats, fields
from vrex.tb.lib.coverage import BINS
from vrex.tb.regress import Job, RegressError

ROOT = Path(__file__).parents[2]
OUTPUT = ROOT / "build" / "regress"
"""Where built simulators stay from one run to the next."""

CI_EFFORT = 0.3


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(words)


def share_simulators(folder: Path) -> Path:
    """An output folder of a test's own that uses the simulators built before; its name must not matter."""
    (OUTPUT / "cache").mkdir(parents=True, exist_ok=True)
    output = folder / """out's "$HOME" #"""
    output.mkdir()
    (output / "cache").symlink_to(OUTPUT / "cache")
    return output


PARTS = [unit for unit in regress.UNITS if unit != "core"]
# Beside those for every part: lanes in two groups, copies a beat a cycle over a wide bus, and the core.
MORE_JOBS = [("wtu", "wide"), ("mean", "lane2"), ("core", "mini")]
JOBS = [(unit, config) for unit in PARTS for config in ("tiny", "lane1")] + MORE_JOBS
# Four minutes; the DRE on `lane1` stays.
LONG_JOB = ("dre", "tiny")


@pytest.mark.parametrize(
    ("unit", "config"),
    [*(job for job in JOBS if job != LONG_JOB), pytest.param(*LONG_JOB, marks=pytest.mark.slow)],
)
def test_a_unit_agrees_with_the_model(unit: str, config: str, tmp_path: Path) -> None:
    output = share_simulators(tmp_path)
    # One of them without initial values, from a random start, so that a reset that is missing shows.
    job = Job(unit, config, "verilator", regress.DEFAULT_SEED, CI_EFFORT, initial=config == "tiny")
    print(f"seed {job.seed}")
    (result,) = regress.run([job], output, processes=1)
    assert regress.report([result], output, check_coverage=False) == 0
    assert result.cycles > 1000
    assert len(result.cases) >= 8


POWER_UP = {
    "hcu": "ties",
    "wtu": "heads_and_rows",
    "kvpu": "registers",
    "axi": "outside_reads",
    "merge": "in_turn",
    "sdram": "reset",
    "registers": "soft_reset",
    "front": "failing",
    "fetch": "heads",
    "mean": "reset",
    "quant": "reset",
    "codes": "reset",
    "voter": "reset",
    "recall": "power_up",
    "dpe": "reset",
    "vpe": "reset",
    "lxe": "ready_and_valid",
    "dre": "power_up",
    "core": "identity",
}
"""A short case of each unit."""


@pytest.mark.slow
@pytest.mark.skipif(not build.installed("icarus"), reason="Icarus Verilog is not installed")
@pytest.mark.parametrize("unit", regress.UNITS)
def test_a_unit_starts_without_initial_values(unit: str, tmp_path: Path) -> None:
    config = "mini" if unit == "core" else "tiny"
    job = Job(unit, config, "icarus", regress.DEFAULT_SEED, 0.3, case=POWER_UP[unit], initial=False)
    results = regress.run([job], tmp_path, processes=1)
    assert regress.report(results, tmp_path, check_coverage=False) == 0


def test_a_missing_reset_is_found(tmp_path: Path) -> None:
    # Without its reset the unit works only if its registers start at their initial values.
    text, planted = re.subn(r"= rst \? \S+ : ", "= ", verilog("hcu", CONFIGS["lane1"], initial=False))
    assert planted > 10
    output = share_simulators(tmp_path)
    job = Job("hcu", "lane1", "verilator", seed=1, effort=0.2, case="ties", verilog=text)
    (result,) = regress.run([job], output, processes=1)
    assert not result.passed


@pytest.mark.slow
def test_the_whole_regression_passes_without_a_hole() -> None:
    assert regress.main(parse("--output", str(OUTPUT))) == 0


def test_a_planted_bug_is_caught_and_replayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # On ties the last cluster wins instead of the first one.
    text, planted = re.subn(r"(= nearest) < ", r"\1 <= ", verilog("hcu", CONFIGS["lane1"]))
    assert planted == 1
    output = share_simulators(tmp_path)
    job = Job("hcu", "lane1", "verilator", seed=123, effort=0.2, case="ties", verilog=text)
    results = regress.run([job], output, processes=1)
    assert regress.report(results, output, check_coverage=False) == 1
    printed = capsys.readouterr().out
    command = "vrex regress --unit hcu --config lane1 --sim verilator --seed 123 --effort 0.2"
    replay = f"{command} --case ties/distinct=1"
    assert "FAILED hcu-lane1-verilator ties/distinct=1: dout: word " in printed
    assert f"\n  replay: {replay}\n" in printed
    assert printed.endswith(f"regress: FAILED; results in {output}\n")
    suites = ET.parse(output / "junit.xml").getroot()
    assert int(suites[0].get("failures", 0)) == len(results[0].failures) >= 1
    (again,) = regress.plan(parse(*replay.split()[2:]))
    assert again == replace(job, case="ties/distinct=1", verilog=None)
    (repeated,) = regress.run([replace(again, verilog=text)], output, processes=1)
    assert repeated.failures == {"ties/distinct=1": results[0].failures["ties/distinct=1"]}


def test_a_design_that_does_not_build_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = Job("hcu", "tiny", "verilator", seed=1, verilog="module vrex_hcu(input clk; endmodule\n")
    results = regress.run([job], tmp_path, processes=1)
    assert regress.report(results, tmp_path, check_coverage=False) == 1
    assert "ERROR hcu-tiny-verilator: " in capsys.readouterr().out


def _result(**fields: object) -> regress.Result:
    return regress.Result(Job("hcu", "tiny", "verilator", seed=1), **fields)  # type: ignore[arg-type]


def test_an_uncovered_bin_fails_the_regression(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hits = Counter({name: 1 for name in BINS["hcu"] if name != "empty table"})
    result = _result(cases={"sizes": (1.0, None)}, hits=hits)
    assert regress.report([result], tmp_path, check_coverage=False) == 0
    assert regress.report([result], tmp_path, check_coverage=True) == 1
    assert "  HOLE hcu: empty table\n" in capsys.readouterr().out
    merged = json.loads((tmp_path / "coverage.json").read_text())["hcu"]
    assert merged["holes"] == ["empty table"]
    assert merged["bins"]["one token"] == 1


def test_bins_are_merged_over_the_results_of_a_unit(tmp_path: Path) -> None:
    half = len(BINS["hcu"]) // 2
    parts = [Counter(BINS["hcu"][:half]), Counter(BINS["hcu"][half:])]
    results = [_result(cases={"sizes": (1.0, None)}, hits=part) for part in parts]
    assert regress.report(results, tmp_path, check_coverage=True) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config", "huge"], "unknown configuration 'huge': choose one of tiny, "),
        (["--jobs", "0"], "--jobs must be at least 1, not 0"),
    ],
)
def test_mistakes_are_explained(words: list[str], message: str) -> None:
    with pytest.raises(RegressError, match=message):
        regress.plan(parse(*words))


def test_a_missing_icarus_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "installed", lambda simulator: simulator == "verilator")
    with pytest.raises(RegressError, match="Icarus Verilog is missing: install `iverilog`"):
        regress.plan(parse("--sim", "icarus"))
    assert {job.simulator for job in regress.plan(parse())} == {"verilator"}


def test_a_missing_cocotb_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regress, "find_spec", lambda name: None)
    with pytest.raises(RegressError, match="cocotb is missing"):
        regress.plan(parse())


def test_default_plan_covers_every_unit_and_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "installed", lambda simulator: True)
    jobs = regress.plan(parse())
    cores = {(job.unit, str(core(CONFIGS[job.config]))) for job in jobs if job.simulator == "verilator"}
    wanted = {(unit, str(core(config))) for unit in regress.UNITS for config in PRESETS.values()}
    # 4,096 lanes of MAC trees are more than a simulator compiles; a core's parts are tested by themselves.
    left = {(unit, str(core(PRESETS["edge"]))) for unit in ("dpe", "lxe", "core")}
    assert wanted - cores == left | {("core", str(core(PRESETS[name]))) for name in ("tiny", "ulx3s")}
    assert {job.unit for job in jobs if job.simulator == "icarus"} == set(regress.UNITS)


def test_a_random_seed_is_drawn_and_words_are_refused() -> None:
    assert parse("--seed", "random").seed != parse("--seed", "random").seed
    for words in (["--seed", "-3"], ["--seed", "x"], ["--effort", "0"], ["--effort", "much"]):
        with pytest.raises(SystemExit):
            parse(*words)
    assert parse("--long").effort == regress.LONG_EFFORT


def test_configurations_survive_json() -> None:
    for config in CONFIGS.values():
        assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_fields_and_beats_are_little_endian() -> None:
    assert fields((0x12, 8), (-1, 8), (1, 1)) == 0x1FF12
    assert beats(bytes([1, 2, 3]), 2) == [0x0201, 0x03]
    with pytest.raises(ValueError, match="256 does not fit into 8 bits"):
        fields((256, 8))
