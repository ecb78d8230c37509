"""Any policy from the command line."""

import json
from pathlib import Path

import pytest

from vrex.sw.cli import main as cli

RUN = ["run", "--video", "procstream:7", "--frames", "4", "--json", "run.json"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_knobs_are_set_and_reported() -> None:
    assert cli.main([*RUN, "--policy", "quest", "--set", "ratio=0.5", "--set", "page=4"]) == 0
    figures = json.loads(Path("run.json").read_text())
    assert figures["settings"]["policy"] == "quest"
    assert figures["settings"]["knobs"] == {"page": 4, "ratio": 0.5}
    assert figures["settings"]["resv"] is None
    assert 0.5 <= figures["ratio"]["frame"] < 0.7


def test_an_option_of_resv_sets_the_knob_of_another_policy() -> None:
    assert cli.main([*RUN, "--policy", "streaming-llm", "--window", "1"]) == 0
    assert json.loads(Path("run.json").read_text())["settings"]["knobs"] == {"sinks": 4, "window": 1}


def test_a_calibration_is_kept_beside_the_figures(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("run.calibration.npz").write_text("not mine")
    assert cli.main([*RUN, "--policy", "infinigen"]) == 2
    assert "calibration run.calibration.npz is broken; delete it" in capsys.readouterr().err
    Path("run.calibration.npz").unlink()
    assert cli.main([*RUN, "--policy", "oaken"]) == 0
    assert {path.name for path in folder.iterdir()} == {"run.calibration.npz", "run.json", "run.png"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--policy", "topk", "--set", "ratio"], "is not of the form KNOB=VALUE"),
        (["--policy", "topk", "--set", "alpha=1"], "policy topk has no knob 'alpha'; choose one of ratio"),
        (["--policy", "topk", "--th-hd", "4"], "policy topk has no knob 'th_hd'; choose one of ratio"),
        (["--policy", "topk", "--set", "ratio=2"], "ratio must be above 0 and at most 1, not 2.0"),
        (["--policy", "full", "--set", "ratio=2"], "policy full has no knob 'ratio'; it has none"),
        (["--policy", "rekv", "--paper"], "--paper has no meaning with --policy rekv"),
        (["--policy", "rekv", "--backend", "rtl"], "--backend rtl has no meaning with --policy rekv"),
        (["--set", "th_hd=4", "--th-hd", "4"], "--set th_hd=4 sets th_hd a second time"),
        (["--set", "th_hd=4", "--paper"], "--paper sets --th-hd itself"),
    ],
)
def test_faults(folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str) -> None:
    try:
        code = cli.main([*RUN, *words])
    except SystemExit as stop:
        code = int(str(stop.code))
    assert code == 2
    error = capsys.readouterr().err
    assert says in error
    assert "Traceback" not in error
    assert list(folder.iterdir()) == []
