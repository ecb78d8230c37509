"""`vrex config`, and the options by which commands take a configuration."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from vrex.model.config import PRESETS, preset
from vrex.model.config_file import own_config, read, with_params
from vrex.sw.cli import main as cli
from vrex.tb import regress
from vrex.tb.configs import CONFIGS, SMALLEST_CORE


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _print(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert cli.main(["config", *words]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", PRESETS)
def test_it_prints_what_it_reads(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = _print(capsys, "--preset", name)
    Path("mine.toml").write_text(text, encoding="utf-8")
    assert read(Path("mine.toml")) == preset(name)
    assert _print(capsys, "--config", "mine.toml") == text


def test_params_come_after_preset_or_file(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.toml").write_text(_print(capsys, "--preset", "tiny", "--param", "hcu.lanes=8"))
    made = read(Path("mine.toml"))
    assert (made.hcu.lanes, made.wtu.lanes) == (8, 4)
    Path("again.toml").write_text(_print(capsys, "--config", "mine.toml", "--param", "wtu.lanes=2"))
    assert read(Path("again.toml")).hcu.lanes == 8
    assert read(Path("again.toml")).wtu.lanes == 2
    Path("edge.toml").write_text(_print(capsys))
    assert read(Path("edge.toml")) == preset("edge")


COMMANDS = {
    "config": [],
    "generate": ["--unit", "hcu", "-o", "verilog"],
    "synth": ["--unit", "hcu", "--json", "out.json"],
    "bench": ["dre", "--json", "out.json"],
    "run": ["--video", "procstream:1", "--json", "out.json"],
    "regress": ["--unit", "hcu", "-o", "results"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--param", "hcu.lane=8"], "preset edge has no field 'hcu.lane'; choose from hcu.lanes, "),
        (["--param", "hcu.lanes"], "'hcu.lanes' is not of the form FIELD=VALUE, as in 'hcu.lanes=8'"),
        (["--param", "=8"], "'=8' is not of the form FIELD=VALUE"),
        (["--param", "hcu.lanes="], "'hcu.lanes=' is not of the form FIELD=VALUE"),
        (["--param", "hcu.lanes=8", "--param", "hcu.lanes=4"], "hcu.lanes=4 sets hcu.lanes a second time"),
        (["--param", "hcu.lanes=7"], "hcu.lanes must be a power of two from 1 to 64, not 7"),
        (["--preset", "edge", "--config", "mine.toml"], "not allowed with argument"),
        (["--preset", "huge"], "unknown preset 'huge': choose one of tiny, "),
        (["--config", "mine.toml"], "configuration mine.toml cannot be read (No such file or directory)"),
        (["--config", "bad.toml"], "bad.toml is not TOML: "),
        (["--config", "bad.toml", "--param", "hcu.lanes=8"], "bad.toml is not TOML: "),
    ],
)
def test_every_command_explains_a_bad_configuration(
    command: str, words: list[str], says: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("bad.toml").write_text("lanes: 8\n")
    assert cli.main([command, *COMMANDS[command], *words]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("vrex: error: ")
    assert captured.err.count("\n") == 1
    assert says in captured.err
    assert [path.name for path in folder.iterdir()] == ["bad.toml"]


def test_a_configuration_that_makes_no_lxe(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("generate", "synth", "regress"):
        words = ["--unit", "lxe", *COMMANDS[command][2:]]
        # A line of 128 bytes in each of 32 banks is more than 1 KiB.
        for param in ("dpe.inputs=64", "lxe.banks=32", "lxe.memory_kib=1"):
            words += ["--param", param]
        assert cli.main([command, *words]) == 2
        assert "makes no LXE: lxe.memory_kib must be whole lines of 2 x " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("unit", "params", "says"),
    [
        ("core", ["kvmu.head_dim=32"], "makes no core: kvmu.head_dim, the values of a key,"),
        ("top", ["cores=6", "ports=4"], "makes no chip: cores must be a multiple of ports, at most 64, "),
        ("top", ["cores=65"], "makes no chip: cores must be a multiple of ports, at most 64, "),
    ],
)
def test_a_configuration_that_makes_no_core_or_chip(
    unit: str, params: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("generate", "synth"):
        words = [word for param in params for word in ("--param", param)]
        assert cli.main([command, "--unit", unit, *COMMANDS[command][2:], *words]) == 2
        assert says in capsys.readouterr().err


def test_verilog_of_an_own_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--unit", "mean", "--preset", "tiny", "--param", "mean.lanes=4", "-o", "verilog"]
    assert cli.main(["generate", *words]) == 0
    config = json.loads(Path("verilog/vrex_mean.json").read_text())["config"]
    made = with_params(preset("tiny"), [("mean.lanes", 4)], "preset tiny")
    assert config == made.to_dict()
    assert own_config(made) == {"config": config}
    assert own_config(preset("tiny")) == {}


def _plan(*words: str) -> list[regress.Job]:
    parsed = ["regress", "--sim", "verilator", "--unit", "hcu", *words]
    return regress.plan(cli.build_parser(parsed).parse_args(parsed))


def test_regress_takes_names_files_and_params(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.toml").write_text(_print(capsys, "--preset", "tiny"))
    text = Path("mine.toml").read_text()
    Path("own.toml").write_text(text.replace('name = "tiny"', 'name = "lane1"'))
    # The smallest core is there for the core's bench.
    assert [job.config for job in _plan()] == [name for name in CONFIGS if name != SMALLEST_CORE]
    # The configurations of the testbenches keep their names and commands, however they are named.
    for words in (["--config", "tiny"], ["--preset", "tiny"], ["--config", "mine.toml"]):
        (job,) = _plan(*words)
        assert (job.config, job.own, job.name) == ("tiny", None, "hcu-tiny-verilator")
        assert "--config tiny --sim" in job.replay("ties")
    # Others are filed apart from them.
    for words in (
        ["--config", "lane1", "--param", "hcu.lanes=2"],
        ["--config", "own.toml"],
        ["--config", "mine.toml", "--param", "hcu.lanes=2", "--param", "wtu.lanes=2"],
        ["--preset", "edge8"],
        ["--param", "hcu.lanes=8"],
    ):
        (job,) = _plan(*words)
        assert job.own is not None
        assert job.own == job.design
        assert job.config == job.own.name
        assert job.config not in CONFIGS
        assert f" {' '.join(words)} --sim" in job.replay("ties")
        assert _plan(*job.replay("ties").split()[4:]) == [dataclasses.replace(job, case="ties")]


def test_a_name_is_taken_before_a_file_of_that_name(capsys: pytest.CaptureFixture[str]) -> None:
    Path("lane2").write_text(_print(capsys, "--preset", "tiny"))
    assert _plan("--config", "lane2")[0].design == CONFIGS["lane2"]
    assert _plan("--config", "./lane2")[0].design == preset("tiny")


def test_the_package_is_a_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vrex", "config", "--preset", "tiny"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert 'name = "tiny"' in done.stdout


def test_run_tells_the_whole_own_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    run = ["run", "--video", "procstream:7", "--frames", "2", "--json", "-", "--preset", "tiny"]
    assert cli.main([*run, "--param", "wtu.lanes=8"]) == 0
    settings = json.loads(capsys.readouterr().out)["settings"]
    made = with_params(preset("tiny"), [("wtu.lanes", 8)], "preset tiny")
    assert (settings["preset"], settings["config"]) == (made.name, made.to_dict())
