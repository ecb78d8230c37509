"""`vrex run` from end to end on short videos."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vrex.sw import cli
from vrex.sw.commands.source import open_source
from vrex.sw.driver.transport import TransportReport
from vrex.sw.errors import UserError
from vrex.sw.policies.resv import ResvSettings
from vrex.sw.videollm.procstream import make, write_mp4

SEED = 7
"""Its first step ends early, so that few frames hold a narration and a question."""
FRAMES = 8


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test runs in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _run(*words: str) -> int:
    return cli.main(["run", "--frames", str(FRAMES), *words])


def _figures(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """Runs with the figures on stdout, which must hold nothing else."""
    assert _run("--json", "-", *words) == 0
    figures: dict[str, Any] = json.loads(capsys.readouterr().out)
    return figures


def test_full_policy_narrates_and_answers_right(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--video", f"procstream:{SEED}", "--policy", "full", "--mode", "narrate")
    figures = _figures(capsys, *options)
    video = make(SEED, FRAMES)
    assert figures["frames"] == FRAMES
    assert figures["fps"] > 0
    assert figures["questions"] == figures["correct"] == len(video.questions) > 0
    assert figures["ratio"] == {"frame": 1.0, "text": 1.0, "per_layer_head": [[1.0, 1.0]] * 8}
    assert figures["rtl"]["calls"] == figures["rtl"]["compared"] == figures["rtl"]["mismatches"] == 0
    told = [(turn["time"], turn["question"], turn["answer"]) for turn in figures["conversation"]]
    right: list[tuple[float, str | None, str]] = [(time, None, text) for time, text in video.narration]
    right += [(question.time, question.text, question.answer) for question in video.questions]
    assert told == sorted(right)


def test_own_questions_replace_the_videos(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--ask", "3.25: now", "--ask", "1: first")
    figures = _figures(capsys, "--video", f"procstream:{SEED}", "--policy", "full", *asked)
    assert figures["settings"]["ask"] == [[1.0, "first"], [3.25, "now"]]
    assert (figures["questions"], figures["correct"]) == (2, None)


def test_a_file_brings_its_questions_along_and_a_wrong_answer_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_mp4(make(SEED, FRAMES, fps=4), "video.mp4")
    sidecar = json.loads(Path("video.json").read_text())
    sidecar["questions"][0]["answer"] = "nothing"
    Path("video.json").write_text(json.dumps(sidecar))
    assert _run("--video", "video.mp4", "--policy", "full", "--json", "run.json") == 0
    printed = capsys.readouterr().out
    question = make(SEED, FRAMES, fps=4).questions[0]
    assert f"{question.text}? {question.answer}  (wrong: nothing)" in printed
    figures = json.loads(Path("run.json").read_text())
    assert figures["correct"] == figures["questions"] - 1
    assert figures["settings"]["video_fps"] == 4
    assert {path.name for path in folder.iterdir()} == {"video.mp4", "video.json", "run.json", "run.png"}
    assert Image.open("run.png").format == "PNG"


def test_only_questions_of_the_frames_shown_are_asked() -> None:
    write_mp4(make(SEED, 96), "video.mp4")
    source = open_source("video.mp4", 64, 48, None, [])
    assert source.frame_count == 48
    assert source.questions
    assert all(time < 24 for time, _ in source.questions)
    assert len(source.questions) < len(open_source("video.mp4", 64, None, None, []).questions)


def test_procstream_comes_in_the_size_it_was_made_for() -> None:
    with pytest.raises(UserError, match="64 pixels wide, but the model takes 384"):
        open_source("procstream:1", 384, 8, None, [])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--video", "missing.mp4"], "missing.mp4"),
        (["--video", "text.mp4"], "text.mp4"),
        (["--video", "."], "."),
        (["--video", "procstream:1", "--model", "missing"], "missing"),
        (["--video", "procstream:1", "--ask", "1: colour"], "colour"),
        (["--video", "procstream:1", "--ask", "99: now"], "past the end of the video"),
    ],
)
def test_bad_input(folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str) -> None:
    Path("text.mp4").write_text("no video\n" * 100)
    assert _run("--json", "out.json", "--policy", "full", *words) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("vrex: error: ")
    assert captured.err.count("\n") == 1
    assert says in captured.err
    assert [path.name for path in folder.iterdir()] == ["text.mp4"]


def test_mismatches_end_with_code_1_and_keep_the_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = TransportReport.to_dict
    monkeypatch.setattr(TransportReport, "to_dict", lambda self: report(self) | {"mismatches": 3})
    assert _run("--video", f"procstream:{SEED}", "--json", "run.json") == 1
    assert "check failed: the RTL gave 3 results that the golden model does not" in capsys.readouterr().err
    assert json.loads(Path("run.json").read_text())["rtl"]["mismatches"] == 3


def test_resv_retrieves_and_counts(capsys: pytest.CaptureFixture[str]) -> None:
    figures = _figures(capsys, "--video", f"procstream:{SEED}", "--window", "2", "--th-hd", "6")
    assert figures["settings"]["resv"] | {"window": 2, "th_hd": 6} == figures["settings"]["resv"]
    assert 0 < figures["ratio"]["frame"] < 1
    assert figures["correct"] is not None
    # A SELECT and a CLUSTER for each layer and chunk once tokens leave the window.
    assert figures["rtl"]["calls"] > 8 * (FRAMES - 3)


def test_the_papers_setting_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    figures = _figures(capsys, "--video", f"procstream:{SEED}", "--paper", "--seed", "5")
    assert figures["settings"]["resv"] == asdict(ResvSettings.paper(seed=5))


def test_rtl_equals_the_golden_model(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--video", f"procstream:{SEED}", "--window", "2", "--preset", "tiny")
    golden = _figures(capsys, *options)
    rtl = _figures(capsys, *options, "--backend", "rtl", "--check")
    assert rtl["rtl"]["mismatches"] == 0
    assert rtl["rtl"]["compared"] > rtl["rtl"]["calls"] == golden["rtl"]["calls"]
    assert rtl["rtl"]["cycles"] > sum(rtl["rtl"]["units"].values()) * 0.9 > 0
    for key in ("ratio", "clusters", "conversation"):
        assert rtl[key] == golden[key]
