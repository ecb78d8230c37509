"""`vrex figures` from end to end on a few frames."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vrex.sw.cli import figures
from vrex.sw.cli import main as cli
from vrex.sw.evaluation.cells import Bench
from vrex.sw.evaluation.figures import recall, sweeps


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test runs in an empty folder, with an empty cache, on videos that ask early."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VREX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(figures, "FIRST_SEED", 7)
    monkeypatch.setattr("vrex.sw.videollm.calibration.VIDEO_FRAMES", 8)
    monkeypatch.setattr(recall, "WARMUP", 3)
    return tmp_path


def _figures(*words: str) -> int:
    return cli.main(["figures", *words, "--jobs", "1"])


@pytest.mark.parametrize("name", [name for name in figures.NAMES if name != "sensitivity"])
def test_each_figure_leaves_json_table_and_plot(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _figures(name, "--lengths", "13", "--videos", "1", "--json", "out.json") == 0
    found = json.loads(Path("out.json").read_text())
    assert found["figure"] == name
    assert "NaN" not in Path("out.json").read_text()
    picture = np.asarray(Image.open(io.BytesIO(Path("out.png").read_bytes())).convert("L"))
    assert picture.std() > 5
    assert len(capsys.readouterr().out.splitlines()) > 3


def test_an_interrupted_sweep_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeps, "SENSITIVITY", {"th_hd": (5, 7)})
    monkeypatch.setattr(sweeps, "SEEDS", (0, 1))
    points = [sweeps.FULL, *sweeps._sensitivity()]
    monkeypatch.setitem(sweeps.POINTS, "sensitivity", points)
    words = ("sensitivity", "--lengths", "12", "--videos", "1", "--json", "out.json")
    run, left = Bench.run, [3]

    def stopping(bench: Bench, *arguments: object) -> object:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        return run(bench, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Bench, "run", stopping)
        assert _figures(*words) == 130
    assert not Path("out.json").exists()
    left[0] = 2
    with monkeypatch.context() as patch:
        patch.setattr(Bench, "run", stopping)
        assert _figures(*words) == 0
    assert left[0] == 0
    values = json.loads(Path("out.json").read_text())["values"]
    assert [(row["knob"], row["value"], row["seeds"]) for row in values] == [("th_hd", 5, 2), ("th_hd", 7, 2)]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["magic"], "invalid choice: 'magic'"),
        (["ratio", "--lengths", "96,192"], "watches one video"),
        (["recall", "--lengths", "3"], "too short for any question"),
        (["drift", "--lengths", "0"], "at least 1"),
        (["drift", "--png", "out.json"], "both name"),
        (["drift", "--model", "missing"], "missing"),
        (["drift", "--png", "missing/out.png"], "missing"),
    ],
)
def test_bad_input(folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str) -> None:
    assert _figures(*words, "--json", "out.json") == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("vrex: error: ")
    assert captured.err.count("\n") == 1
    assert says in captured.err
    assert list(folder.iterdir()) == []
