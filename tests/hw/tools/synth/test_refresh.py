"""The script that records area and timing."""

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[4]


@pytest.fixture
def refresh() -> ModuleType:
    spec = importlib.util.spec_from_file_location("refresh_synth", ROOT / "scripts" / "refresh_synth.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def result(cells: int, ecp5: bool = True) -> dict[str, Any]:
    """What `vrex synth` writes, as far as the script reads it."""
    memories = [{"bits": 64, "kind": "macro"}, {"bits": 7, "kind": "registers"}]
    figures = {"cells": cells, "area": 2345.6, "ff": 9, "memories": memories, "critical_path_ns": 2.5}
    counts = {"lut4": 1500, "ccu2c": 2, "ff": 3, "dp16kd": 4, "dpr16x4": 5, "mult18x18d": 6}
    clocks = {"fmax_mhz": {"min": 99.5, "median": 101.2, "max": 103.0, "by_seed": [101.2, 99.5, 103.0]}}
    if ecp5:
        figures["ecp5"] = counts | clocks | {"critical_path": {"ns": 9.9}}
    return {"preset": "edge", "library": "toy", "units": {"hcu": figures}}


def test_records_and_shows_the_latest(
    refresh: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("docs").mkdir()
    Path("docs/area.md").write_text(f"before\n{refresh.BEGIN}\nold\n{refresh.END}\nafter\n")
    commits = iter(["aaaaaaa", "bbbbbbb", "bbbbbbb"])
    monkeypatch.setattr(refresh, "commit", lambda: next(commits))
    for cells in (1000, 2000, 3000):
        Path("out.json").write_text(json.dumps(result(cells)))
        refresh.main(["out.json"])
    history = json.loads(Path("docs/synth-history.json").read_text())
    assert [(entry["commit"], entry["cells"]) for entry in history] == [("aaaaaaa", 1000), ("bbbbbbb", 3000)]
    assert history[0]["macro_bits"] == 64
    assert history[0]["ecp5"]["lut4"] == 1500
    assert "critical_path" not in history[0]["ecp5"]
    page = Path("docs/area.md").read_text()
    assert page.startswith("before\n")
    assert page.endswith("\nafter\n")
    assert "old" not in page
    (row,) = [line for line in page.splitlines() if line.startswith("| hcu")]
    assert [cell.strip() for cell in row.split("|")[1:-1]] == [
        *("hcu", "`edge`", "bbbbbbb", "3,000", "2,346", "9", "2.50", "64"),
        *("1,500", "2", "5", "3", "4", "6", "100/101/103"),
    ]


def test_a_unit_without_ecp5_shows_dashes(refresh: ModuleType) -> None:
    new = refresh.entries(result(5, ecp5=False), "aaaaaaa", "2026-01-01")
    assert refresh.table(new).splitlines()[-1].endswith("| - |" + " - |" * 6)


def test_a_page_without_marks_is_refused(refresh: ModuleType) -> None:
    with pytest.raises(ValueError, match="marks"):
        refresh.fill("no marks", "text")


def test_the_page_shows_what_the_history_holds(refresh: ModuleType) -> None:
    history = json.loads((ROOT / refresh.HISTORY).read_text())
    page = (ROOT / refresh.PAGE).read_text()
    assert refresh.fill(page, refresh.table(history)) == page
    for entry in history:
        assert re.fullmatch(r"[0-9a-f]{7}\+?", entry["commit"])
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", entry["date"])
