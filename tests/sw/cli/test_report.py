"""`vrex report`: the page of what was measured, and what it says of mistakes."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from vrex.hw.tools.synth import shares
from vrex.sw.cli import main as cli

GATES = {"dpe": 700.0, "vpe": 100.0, "wtu": 10.0, "kvmu": 6.0, "hcu": 1.0, "front": 3.0, "control": 30.0}
BITS = {"memory": 2000, "wtu": 100}


def _result() -> dict[str, Any]:
    """What `vrex synth --unit core` writes, as far as the page reads it."""
    step = {"cell": "NAND2X1", "net": "a<b", "ns": 1.25}
    figures = {
        **{"cells": 12_345, "area": 20_400.0, "ff": 678, "critical_path_ns": 2.5, "ecp5": None},
        "critical_path": {"from": "a", "to": "b", "steps": [step]},
        "memories": [],
        "modules": [
            {"module": f"vrex_core_{unit}", "instances": 1, "cells": 1, "area": 1.0, "gates": {unit: gates}}
            for unit, gates in GATES.items()
        ],
        "by_unit": {
            unit: {"gates": round(GATES.get(unit, 0)), "macro_bits": BITS.get(unit, 0)}
            for unit in GATES | BITS
        },
        **shares.shares(GATES, BITS),
    }
    del figures["ecp5"]
    return {
        "preset": "edge",
        "library": "toy",
        "versions": {"vrex": "0"},
        "flags": {},
        "units": {"core": figures},
    }


def _entry(commit: str, area: float, mhz: float | None) -> dict[str, Any]:
    ecp5 = None if mhz is None else {"fmax_mhz": {"median": mhz}}
    kind = {"unit": "hcu", "preset": "edge", "commit": commit}
    return {**kind, "area": area, "critical_path_ns": 2.0, "ecp5": ecp5}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test runs in a folder with a result and a history."""
    monkeypatch.chdir(tmp_path)
    Path("synth.json").write_text(json.dumps(_result()))
    entries = [_entry("aaaaaaa", 2e6, 99.0), _entry("bbbbbbb", 1.5e6, None), _entry("ccccccc", 1e6, 110.0)]
    Path("history.json").write_text(json.dumps(entries))
    return tmp_path


class _Balance(HTMLParser):
    """Finds tags that are not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        assert tag in ("circle", "polyline")


def test_the_page_shows_shares_beside_the_paper(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", "synth.json", "--history", "history.json", "--html", "out.html"]) == 0
    assert "page in out.html" in capsys.readouterr().out
    page = Path("out.html").read_text()
    parser = _Balance()
    parser.feed(page.replace("<!DOCTYPE html>", ""))
    assert parser.open == []
    # Nothing of it comes over a network.
    assert not re.search(r"(src|href)=|url\(|@import", page)
    total = sum(GATES.values()) * 0.135 + sum(BITS.values()) * 0.10
    assert f"<td>{100 * 700 * 0.135 / total:.2f} %</td>" in page
    assert "<td>72.80 %</td>" in page
    assert f"<td>{100 * 20 * 0.135 / total:.2f} %</td>" in page
    assert "<td>2.04 %</td>" in page
    assert "2.50 ns from a to b" in page
    assert "<td>a&lt;b</td>" in page
    assert "<td>400</td>" in page


def test_every_module_has_a_rectangle_of_its_size() -> None:
    assert cli.main(["report", "synth.json", "--html", "out.html"]) == 0
    page = Path("out.html").read_text()
    rectangle = r'width="([\d.]+)" height="([\d.]+)" fill="[^"]*" [^>]*><title>'
    assert {found[3] for found in re.finditer(rectangle + r"(\w+): ", page)} == {*GATES, "memory"}
    units = {f[3]: float(f[1]) * float(f[2]) for f in re.finditer(rectangle + r"(\w+) [\d.]+ %", page)}
    assert units["dpe"] / units["vpe"] == pytest.approx(7, rel=0.01)
    assert units["memory"] / units["dpe"] == pytest.approx(2000 * 0.10 / (700 * 0.135), rel=0.01)
    assert "History" not in page


def test_the_history_is_plotted_by_commit() -> None:
    assert cli.main(["report", "synth.json", "--history", "history.json", "--html", "out.html"]) == 0
    page = Path("out.html").read_text()
    assert re.findall(r"<title>(\w+): 1\.5</title>", page) == ["bbbbbbb"]
    assert re.findall(r"<title>(\w+): (?:99|110)</title>", page) == ["aaaaaaa", "ccccccc"]
    heights = [float(y) for y in re.findall(r'<circle cx="[\d.]+" cy="([\d.]+)"', page)][:3]
    assert heights == sorted(heights)


def test_several_results_are_shown_together() -> None:
    other = _result() | {"preset": "small"}
    other["units"] = {"hcu": {**_result()["units"]["core"], "critical_path_ns": None, "cells": 77}}
    del other["units"]["hcu"]["by_unit"]
    Path("other.json").write_text(json.dumps(other))
    assert cli.main(["report", "synth.json", "other.json", "--html", "out.html"]) == 0
    page = Path("out.html").read_text()
    assert "<td>core, edge</td>" in page
    assert "<td>hcu, small</td><td>77</td>" in page


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["missing.json"], "cannot read missing.json: No such file or directory; name a"),
        (["text.json"], "text.json holds no JSON; name a file of vrex synth --json"),
        (["deep.json"], "deep.json holds no JSON; name a file of vrex synth --json"),
        (["history.json"], "history.json is not what vrex synth writes; name a file of vrex synth --json"),
        (["synth.json", "--history", "synth.json"], "synth.json is no history of areas; name a file such as"),
        ([], "the following arguments are required: FILE"),
    ],
)
def test_mistakes(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("text.json").write_text("no")
    Path("deep.json").write_text("[" * 100_000)
    assert cli.main(["report", *words, "--html", "out.html"]) == 2
    said = capsys.readouterr()
    assert says in said.err
    assert said.err.count("\n") == 1
    assert not Path("out.html").exists()


def test_the_page_does_not_replace_what_it_is_made_of(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", "synth.json", "history.json", "--html", "history.json"]) == 2
    assert "would overwrite" in capsys.readouterr().err
