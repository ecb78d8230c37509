"""`vrex power` from end to end on a small unit, and what it says of mistakes."""

import json
from pathlib import Path

import pytest

from tests.hw.tools.gates.test_power import TEXT
from tests.hw.tools.synth.toy import LIBERTY
from vrex.sw.cli import main as cli

ROOT = Path(__file__).parents[3]
SMALL = ("--unit", "hcu", "--preset", "tiny")
SMALLER = ("hcu.lanes=1", "hcu.hash_bits=16", "hcu.chunk_tokens=8", "hcu.tile_clusters=32")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test runs in an empty folder; mapped modules stay in the project's build folder."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("VREX_CACHE", str(ROOT / "build" / "regress" / "mapped"))
    return tmp_path / "work"


@pytest.mark.slow
def test_a_units_power(capsys: pytest.CaptureFixture[str]) -> None:
    Path("toy.lib").write_text(TEXT)
    words = [*SMALL, *(word for field in SMALLER for word in ("--param", field))]
    words += ["--liberty", "toy.lib", "--case", "ties", "--effort", "0.05", "--mhz", "50"]
    assert cli.main(["power", *words, "-o", "runs", "--json", "out.json"]) == 0
    result = json.loads(Path("out.json").read_text())
    assert Path("out.png").read_bytes().startswith(b"\x89PNG")
    assert (result["unit"], result["library"], result["case"]) == ("hcu", "toy", "ties")
    assert result["cycles"] > 1000
    assert result["cases"] == 3
    assert set(result["by_kind"]) == {"registers", "gates", "buffers", "memories", "ports"}
    assert set(result["by_cell"]) == {"DFF", "INV", "NAND", "BUF", "memories", "ports"}
    assert result["by_unit"]["founders"]["memories"] > 0
    # Every register takes a rising and a falling edge of its clock in every cycle: 2 pJ, and .4 for its pin.
    registers = result["by_kind"]["registers"]
    assert registers["clock_pins"] == pytest.approx(0.4 * registers["number"])
    assert 2.0 * registers["number"] < registers["internal"] < 4.0 * registers["number"]
    assert 0 < result["toggles"] < 0.5
    assert result["dynamic_mw"] == pytest.approx(result["pj_a_cycle"] * 50e-3)
    shown = capsys.readouterr().out
    assert f"{result['pj_a_cycle']:.1f} pJ a cycle: {result['dynamic_mw']:.2f} mW at 50 MHz" in shown


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((*SMALL,), "vrex power needs standard cells: add --fetch-liberty osu018 or --liberty FILE"),
        ((*SMALL, "--fetch-liberty", "tsmc2"), "unknown library 'tsmc2'; choose one of osu018"),
        ((*SMALL, "--liberty", "toy.lib"), "library toy has no voltage (nom_voltage) or no internal_power"),
        ((*SMALL, "--liberty", "toy.lib", "--mhz", "0"), "'0' is not a clock in MHz"),
        (("--unit", "gpu"), "invalid choice: 'gpu'"),
        ((*SMALL, "--liberty", "none.lib"), "none.lib"),
    ],
)
def test_mistakes_are_one_sentence(
    words: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("toy.lib").write_text(LIBERTY)
    before = sorted(Path().iterdir())
    assert cli.main(["power", *words, "--json", "out.json"]) == 2
    captured = capsys.readouterr()
    assert says in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert sorted(Path().iterdir()) == before
