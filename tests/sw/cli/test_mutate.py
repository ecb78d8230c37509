"""`vrex mutate`, without the campaign, which its own tests run."""

import json
from pathlib import Path

import pytest

from vrex.sw.cli import main as cli
from vrex.sw.evaluation.reports import mutants as report
from vrex.tb.mutate import kept
from vrex.tb.mutate.campaign import Campaign, Verdict, identity
from vrex.tb.mutate.points import Mutant

SEEN = Mutant("dre/mean.py", "Mean.elaborate", "drop", "self.o.valid.eq(1)", line=7)
MISSED = Mutant("lib/float32.py", "Adder._count", "left", "zero & step.subtract", line=9)
SAME = Mutant("lib/float32.py", "Adder._count", "right", "zero & step.subtract", line=9)
VERDICTS = [
    Verdict(SEEN, "killed", "tiny", "sizes", "o: word 0 is wrong"),
    Verdict(MISSED, "survived", "tiny, lane1"),
    Verdict(SAME, "equivalent", "tiny", "Yosys", "every register and port stays equal"),
]


def _pretend(monkeypatch: pytest.MonkeyPatch, verdicts: list[Verdict]) -> None:
    def run(self: Campaign) -> list[Verdict]:
        self.reached = {"tiny": ["a", "b"], "lane1": ["b", "c"]}
        self.verdicts = {verdict.mutant.name: verdict for verdict in verdicts}
        return verdicts

    monkeypatch.setattr(Campaign, "run", run)


def test_table_json_and_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _pretend(monkeypatch, VERDICTS)
    path = tmp_path / "mean.json"
    assert cli.main(["mutate", "--unit", "mean", "--effort", "0.5", "--json", str(path)]) == 1
    figures = json.loads(path.read_text())
    assert {name: figures[name] for name in ("killed", "equivalent", "survived", "seen")} == {
        "killed": 1,
        "equivalent": 1,
        "survived": 1,
        "seen": 0.5,
    }
    assert figures["drawn_from"] == 3
    assert figures["configs"] == ["tiny", "lane1", "lane2", "wide"]
    assert figures["verdicts"][0]["mutant"] == "dre/mean.py Mean.elaborate drop: self.o.valid.eq(1)"
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["source", "mutants", "killed", "equivalent", "survived"]
    assert lines[3].split() == ["all", "3", "1", "1", "1"]
    assert "SURVIVED hw/lib/float32.py:9 Adder._count left: zero & step.subtract" in lines
    replay = "vrex mutate --unit mean --configs tiny,lane1,lane2,wide --seed 1 --effort 0.5"
    assert f"  replay: {replay} --only {identity(MISSED.name)} --json -" in lines
    assert lines[-2] == "mutate: unit mean, 3 mutants, 50.0 % of those that are not equivalent seen"


def test_all_seen_is_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend(monkeypatch, [VERDICTS[0], VERDICTS[2]])
    assert cli.main(["mutate", "--unit", "mean", "--json", str(tmp_path / "mean.json")]) == 0


def test_figures_on_stdout_are_alone_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _pretend(monkeypatch, VERDICTS[2:])
    assert cli.main(["mutate", "--unit", "mean", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["seen"] is None


def test_a_picture_that_cannot_be_drawn_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def plot(figures: object) -> bytes:
        raise ImportError("No module named 'matplotlib'")

    _pretend(monkeypatch, VERDICTS[:1])
    monkeypatch.setattr(report, "plot", plot)
    assert cli.main(["mutate", "--unit", "mean", "--json", str(tmp_path / "mean.json")]) == 0
    picture = tmp_path / "mean.png"
    left_out = f"vrex: warning: the picture {picture} was left out: No module named 'matplotlib'\n"
    assert capsys.readouterr().err == left_out
    assert [path.name for path in tmp_path.iterdir()] == ["mean.json"]


def test_a_stopped_campaign_says_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(self: Campaign) -> list[Verdict]:
        self.chosen, self.verdicts = ["a", "b", "c"], {"a": VERDICTS[0]}
        raise KeyboardInterrupt

    monkeypatch.setattr(Campaign, "run", run)
    path = tmp_path / "mean.json"
    assert cli.main(["mutate", "--unit", "mean", "-o", str(tmp_path / "kept"), "--json", str(path)]) == 130
    assert "vrex: 1 of 3 mutants are decided and kept in " in capsys.readouterr().err
    assert not path.exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--unit", "gpu"], "argument --unit: invalid choice: 'gpu' (choose from"),
        (["--count", "3"], "the following arguments are required: --unit"),
        (["--unit", "mean", "--count", "0"], "--count: '0' is not a whole number of at least 1"),
        (["--unit", "mean", "--count", "-3"], "--count: '-3' is not a whole number of at least 1"),
        (["--unit", "mean", "--count", "many"], "--count: 'many' is not a whole number of at least 1"),
        (["--unit", "mean", "--seed", "x"], "--seed: 'x' is not a whole number of at least 0"),
        (["--unit", "mean", "--jobs", "0"], "--jobs: '0' is not a whole number of at least 1"),
        (["--unit", "mean", "--effort", "0"], "'0' is not a number from 0.01 to 1000"),
        (["--unit", "mean", "--configs", "tiny,huge"], "unit mean has no configuration 'huge'; choose from"),
        (["--unit", "dpe", "--configs", "edge"], "unit dpe has no configuration 'edge'; choose from tiny"),
        (["--unit", "mean", "--only", "ffffffff"], "unit mean has no mutant 'ffffffff'; take the `id`"),
    ],
)
def test_a_mistake_is_one_sentence(
    words: list[str],
    says: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Campaign, "_reached", lambda self, config: [SEEN.name])
    output = ["-o", str(tmp_path / "out"), "--json", str(tmp_path / "out.json")]
    assert cli.main(["mutate", *words, *output]) == 2
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1].startswith("vrex: error: ")
    assert says in captured.err
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "says"),
    [("none/out.json", "does not exist"), ("out.png", "--json and the picture beside --json both name")],
)
def test_the_json_must_have_a_place(
    name: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["mutate", "--unit", "mean", "--json", str(tmp_path / name)]) == 2
    assert says in capsys.readouterr().err


def test_a_kept_mutant_that_is_gone_is_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = tmp_path / "kept.toml"
    listed.write_text('[[equivalent]]\nunit = "mean"\nmutant = "gone"\nwhy = "Nobody reads it."\n')
    monkeypatch.setattr(kept, "PATH", listed)
    path = tmp_path / "mean.json"
    assert cli.main(["mutate", "--unit", "mean", "--json", str(path)]) == 2
    says = "vrex: error: kept.toml keeps a mutant of unit mean that no longer exists, 'gone'; take the entry"
    assert capsys.readouterr().err.startswith(says)
    assert not path.exists()
