"""`vrex procstream`."""

import json
from pathlib import Path

import pytest

from vrex.sw.cli import main as cli
from vrex.sw.videollm.procstream import HARD, make, read_sidecar
from vrex.sw.videollm.procstream.ideal import describe, table


def test_video_and_answers_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "video.mp4"
    assert cli.main(["procstream", "7", "--frames", "12", "--fps", "4", "-o", str(path)]) == 0
    assert {file.name for file in tmp_path.iterdir()} == {"video.mp4", "video.json"}
    sidecar = read_sidecar(tmp_path / "video.json")
    assert (sidecar.seed, sidecar.frames, sidecar.fps, sidecar.level) == (7, 12, 4.0, "easy")
    assert "level" not in json.loads((tmp_path / "video.json").read_text())
    assert sidecar.questions == make(7, 12, 4.0).questions
    assert (
        f"12 frames at 4/s; {tmp_path / 'video.json'}: {len(sidecar.questions)} questions, of which an ideal "
        f"observer answers {len(sidecar.questions)}.0 on average"
    ) in capsys.readouterr().out


def test_a_video_of_the_hard_level(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    assert cli.main(["procstream", "7", "--level", "hard", "--frames", "80", "-o", str(path)]) == 0
    sidecar = read_sidecar(tmp_path / "video.json")
    video = make(7, 80, level=HARD)
    assert sidecar.level == "hard"
    assert sidecar.questions == video.questions
    assert sidecar.narration == video.narration


def test_the_bayes_accuracies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bayes.json"
    assert cli.main(["procstream", "--bayes", "--level", "hard", "--json", str(out)]) == 0
    assert json.loads(out.read_text()) == describe(HARD)
    assert (tmp_path / "bayes.png").read_bytes().startswith(b"\x89PNG")
    assert table(describe(HARD)) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["7"], "needs a SEED and --output"),
        (["-o", "x.mp4"], "needs a SEED and --output"),
        (["--bayes", "7"], "leave SEED and --output out"),
        (["--bayes", "--level", "hardest"], "no level 'hardest'"),
        (["--bayes", "--json", "missing/out.json"], "missing"),
        (["7", "-o", "x.mp4", "--level", "hardest"], "no level 'hardest'"),
        (["7", "-o", "x.mp4", "--json", "x.json"], "--json goes with --bayes"),
    ],
)
def test_bad_input(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["procstream", *words]) == 2
    captured = capsys.readouterr()
    assert says in captured.err
    assert captured.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
