"""`vrex eval` from end to end on a few frames."""

import json
from pathlib import Path
from typing import Any

import pytest

from vrex.sw.cli import main as cli
from vrex.sw.evaluation.cells import Bench, VideoCell

SEEDS = "7,9"
"""Each has a question within so few frames."""
FRAMES = "12"
KEYS = {
    *("policy", "settings", "length", "suite", "task", "accuracy", "low", "high", "n"),
    *("difference", "difference_low", "difference_high", "ideal", "ratio_frame", "ratio_text"),
    *("fetched", "bytes", "degenerate"),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test runs in an empty folder, with an empty cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VREX_CACHE", str(tmp_path / "cache"))
    return tmp_path


def _eval(*words: str, out: str = "out.json", jobs: int = 1) -> int:
    options = ["--lengths", FRAMES, "--seeds", SEEDS, "--json", out, "--jobs", str(jobs)]
    return cli.main(["eval", *options, *words])


def _rows(out: str = "out.json") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(Path(out).read_text())["rows"]
    return rows


POINTS = ("--policies", "full,resv", "--set", "resv.window=1", "--set", "th_r=0.1,0.5")


def test_rows_page_and_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert _eval(*POINTS, "--html", "out.html") == 0
    rows = _rows()
    assert all(set(row) == KEYS for row in rows)
    whole = [row for row in rows if row["task"] == "all"]
    assert [(row["policy"], row["settings"].get("th_r")) for row in whole] == [
        ("full", None),
        ("resv", 0.1),
        ("resv", 0.5),
    ]
    assert len({row["n"] for row in whole}) == 1
    assert {row["ideal"] for row in rows} == {1.0}
    assert whole[0]["n"] >= 2
    assert whole[0]["ratio_frame"] == 1.0 > whole[2]["ratio_frame"] > whole[1]["ratio_frame"] > 0
    assert "th_r=0.1" in capsys.readouterr().out
    assert "th_r=0.1" in Path("out.html").read_text()


class _Stop:
    """Lets so many cells run, then does as Ctrl-C does."""

    def __init__(self, cells: int) -> None:
        self.left, self.run = cells, Bench.run

    def __call__(self, bench: Bench, cell: VideoCell) -> dict[str, Any]:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return self.run(bench, cell)


def test_an_interrupted_run_goes_on_with_the_same_rows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _eval(*POINTS, out="whole.json") == 0
    stop = _Stop(2)
    with monkeypatch.context() as patch:
        patch.setattr(Bench, "run", lambda bench, cell: stop(bench, cell))
        assert _eval(*POINTS) == 130
    assert "2 of 6 cells are kept in out.cells.jsonl" in capsys.readouterr().err
    assert not Path("out.json").exists()
    # As if killed while it wrote the second one: that cell has to be done again.
    kept = Path("out.cells.jsonl").read_bytes()
    Path("out.cells.jsonl").write_bytes(kept[:-9])
    count = _Stop(5)
    with monkeypatch.context() as patch:
        patch.setattr(Bench, "run", lambda bench, cell: count(bench, cell))
        assert _eval(*POINTS) == 0
    assert count.left == 0
    assert _rows() == _rows("whole.json")
    assert Path("out.cells.jsonl").read_bytes() == Path("whole.cells.jsonl").read_bytes()


def test_processes_give_the_rows_of_one() -> None:
    assert _eval("--policies", "full", jobs=2) == 0
    assert _eval("--policies", "full", out="one.json") == 0
    assert _rows() == _rows("one.json")


def test_a_second_run_only_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _eval("--policies", "full") == 0
    first = Path("out.json").read_bytes()
    monkeypatch.setattr(Bench, "__init__", lambda *_: pytest.fail("a model was loaded"))
    assert _eval("--policies", "full") == 0
    assert Path("out.json").read_bytes() == first


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--policies", "full,magic"], "'magic' is unknown"),
        (["--set", "magic=1"], "'magic'"),
        (["--set", "th_r=2"], "th_r must be"),
        (["--set", "th_r=many"], "th_r must be"),
        (["--videos", "0"], "at least 1"),
        (["--videos", "3"], "--seeds names 2"),
        (["--seeds", "x"], "'x' is not a whole number"),
        (["--lengths", "0"], "at least 1"),
        (["--lengths", "3", "--policies", "full"], "too short for any question"),
        (["--suites", "films"], "'films' is none of"),
        (["--level", "hardest"], "no level 'hardest'"),
        (["--model", "missing"], "missing"),
        (["--json", "missing/out.json"], "missing"),
        (["--html", "out.json"], "both name"),
    ],
)
def test_bad_input(folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str) -> None:
    assert _eval(*words) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("vrex: error: ")
    assert captured.err.count("\n") == 1
    assert says in captured.err
    assert list(folder.iterdir()) == []


def test_results_of_another_version_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("out.cells.jsonl").write_text('{"format": 1, "vrex": "0.0.1", "model": "a"}\n')
    assert _eval() == 2
    assert "was written by vrex 0.0.1" in capsys.readouterr().err


def test_a_model_that_lacks_the_levels_words_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert _eval("--policies", "full", "--level", "hard", "--lengths", "40") == 2
    assert "does not know the word task63 of level hard; give --model" in capsys.readouterr().err
    assert not Path("out.json").exists()
