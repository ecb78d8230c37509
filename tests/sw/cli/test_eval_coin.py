"""`vrex eval-coin` from end to end: real video files, the shipped model, made-up annotations."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.sw.evaluation.coin.test_annotations import entry, write
from vrex.sw.cli import main as cli
from vrex.sw.evaluation.coin.annotations import read_annotations
from vrex.sw.evaluation.coin.cells import Watcher
from vrex.sw.evaluation.coin.scoring import score
from vrex.sw.retrieval.policies.full import Full
from vrex.sw.retrieval.policies.shape import Shape
from vrex.sw.videollm.procstream import make, write_mp4
from vrex.sw.videollm.stream import Answered, Stream, VideoLLM
from vrex.sw.videollm.video import open_video

LABELS = {"a": ["red circle moves", "blue square grows", "stop"], "b": ["green star turns", "stop"]}
KEYS = {
    *("policy", "settings", "task", "cases", "n", "accuracy", "low", "high"),
    *("difference", "difference_low", "difference_high"),
    *("frames", "ratio_frame", "ratio_text", "fetched", "bytes"),
}
POINTS = ("--policies", "full,resv", "--set", "resv.window=1")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test runs in a folder with annotations of three videos, two of which are there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VREX_CACHE", str(tmp_path / "cache"))
    database = {name: entry("MoveShapes", labels) for name, labels in LABELS.items()}
    write(tmp_path, database | {"gone": entry("Vanish", ["go away"])})
    (tmp_path / "videos").mkdir()
    for seed, name in enumerate(LABELS):
        write_mp4(make(seed + 3, 8, 2.0), tmp_path / "videos" / f"{name}.mp4")
    return tmp_path


def _eval(*words: str, out: str = "out.json") -> int:
    files = ("--annotations", "COIN.json", "--videos", "videos", "--json", out, "--max-answer", "3")
    return cli.main(["eval-coin", *files, *words])


def _rows(out: str = "out.json") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(Path(out).read_text())["rows"]
    return rows


def _cells(out: str = "out.cells.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(out).read_text().splitlines()[1:]]


def test_five_tasks_under_two_policies(capsys: pytest.CaptureFixture[str]) -> None:
    assert _eval(*POINTS, "--limit", "1") == 0
    rows = _rows()
    assert all(set(row) == KEYS for row in rows)
    assert [(row["task"], row["cases"], row["n"]) for row in rows[:5]] == [
        ("step", 1, 1),
        ("next", 1, 1),
        ("task", 1, 1),
        ("procedure", 1, 2),
        ("goal", 1, 2),
    ]
    assert [row["policy"] for row in rows] == ["full"] * 5 + ["resv"] * 5
    assert all(row["difference"] == 0 for row in rows[:5])
    assert rows[7]["bytes"] > 0
    printed = capsys.readouterr().out
    assert "1 of 3 videos are not in videos" in printed
    assert json.loads(Path("out.json").read_text())["missing_videos"] == ["gone"]


def test_a_cell_is_what_the_stream_gives() -> None:
    """The second step of video a: seconds 2 to 3.5, frames 4 to 7; asked when they have been seen."""
    assert _eval("--policies", "full", "--tasks", "step", "--limit", "2") == 0
    cell = _cells()[1]
    assert (cell["video"], cell["index"]) == ("a", 1)
    model = VideoLLM.load()
    frames = np.stack(list(open_video(Path("videos/a.mp4"), 2.0, model.config.vision.image_size)))[4:8]
    stream = Stream(model, Full(Shape.of(model.config)), max_answer=3)
    answers = [event for event in stream.run(frames, [(2.0, "now")]) if isinstance(event, Answered)]
    assert cell["frames"] == 4
    assert cell["given"] == answers[0].text
    categories = read_annotations(Path("COIN.json"), "test").steps
    assert cell["expected"] == ["Blue square grows."]
    assert cell["right"] == score(answers[0].text, ["Blue square grows."], categories)


def test_an_interrupted_run_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (*POINTS, "--tasks", "step", "--limit", "1")
    assert _eval(*words, out="whole.json") == 0
    run, left = Watcher.run, [1]

    def stop(watcher: Watcher, cell: Any) -> dict[str, Any]:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return run(watcher, cell)

    monkeypatch.setattr(Watcher, "run", stop)
    assert _eval(*words) == 130
    assert "1 of 2 cells are kept in" in capsys.readouterr().err
    left[0] = 1
    assert _eval(*words) == 0
    assert _rows() == _rows("whole.json")
    assert _eval(*words) == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--policies", "fulll"), "policy 'fulll' is unknown"),
        (("--tasks", "steps"), "'steps' is none of step, next"),
        (("--annotations", "none.json"), "none.json cannot be read"),
        (("--videos", "none"), "--videos none: is not a folder"),
        (("--videos", "cache2"), "holds none of the 3 videos of split 'test'"),
        (("--split", "train"), "no video of split 'train'"),
        (("--fps", "0"), "'0' is not a number above 0"),
        (("--model", "videos"), "config.json"),
        (("--json", "no/out.json"), "the folder"),
    ],
)
def test_mistakes_are_one_sentence(
    words: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    (folder / "cache2").mkdir()
    before = sorted(folder.iterdir())
    assert _eval(*words) == 2
    error = capsys.readouterr().err
    assert error.startswith("vrex: error: ")
    assert error.count("\n") == 1
    assert sentence in error
    assert sorted(folder.iterdir()) == before


def test_a_video_that_is_cut_off_is_named_and_used(capsys: pytest.CaptureFixture[str]) -> None:
    video = Path("videos/a.mp4")
    video.write_bytes(video.read_bytes()[:-200])
    assert _eval("--tasks", "step", "--policies", "full") == 0
    assert "vrex: warning: videos/a.mp4 is cut off or damaged at" in capsys.readouterr().err
    assert Path("out.json").exists()
