"""Benches on mapped netlists: they pass, they find a wrong cell, and mistakes are explained."""

import argparse
import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from tests.hw.tools.synth.toy import LIBERTY
from vrex.errors import UserError
from vrex.hw.tools.gates import netlists
from vrex.hw.tools.gates.verilog import of_standard_cells
from vrex.hw.tools.synth import cells
from vrex.hw.tools.synth.liberty import parse as parse_liberty
from vrex.hw.tools.synth.mapping import CellLibrary
from vrex.sw.cli import main as cli
from vrex.sw.cli import regress as command
from vrex.tb import regress
from vrex.tb.regress import Job, RegressError

ROOT = Path(__file__).parents[3]
OUTPUT = ROOT / "build" / "regress"
"""Where netlists and built simulators stay from one run to the next."""

SMALL = ("--unit", "hcu", "--config", "lane1", "--sim", "verilator", "--case", "ties", "--effort", "0.3")


LATE = """module LATE(input CK, D, output Q);
  reg a, b;
  always @(posedge CK) begin a <= D; b <= a; end
  assign Q = b;
endmodule

"""
"""A flip-flop that is a cycle late."""


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(words)


@pytest.fixture(autouse=True)
def mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mapped modules stay in the project's build folder, not in the user's cache."""
    monkeypatch.setenv("VREX_CACHE", str(OUTPUT / "mapped"))


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    path = tmp_path / "toy.lib"
    path.write_text(LIBERTY)
    return path


def share(folder: Path) -> Path:
    """An output folder of a test's own that uses what was mapped and built before."""
    output = folder / "out"
    output.mkdir()
    for kept in ("cache", "verilog"):
        (OUTPUT / kept).mkdir(parents=True, exist_ok=True)
        (output / kept).symlink_to(OUTPUT / kept)
    return output


def test_a_netlist_in_standard_cells_agrees_and_a_wrong_cell_is_found(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = share(tmp_path)
    words = [*SMALL, "--netlist", "toy", "--liberty", str(toy), "-o", str(output)]
    assert regress.main(parse(*words)) == 0
    printed = capsys.readouterr().out
    assert "netlist in toy: all ports compared; no check is left out" in printed
    assert "hcu-lane1-verilator-toy" in printed
    assert json.loads((output / "coverage.json").read_text())["hcu"]["netlist"] == "toy"
    (job,) = regress.plan(parse(*words))
    assert regress.plan(parse(*shlex.split(job.replay("ties"))[2:])) == [job]
    # In one of its registers alone.
    text = netlists.verilog("hcu", job.design, CellLibrary.load(toy))
    assert text.count("  DFF c") > 100
    wrong = LATE + text.replace("  DFF c", "  LATE c", 1)
    (result,) = regress.run([replace(job, verilog=wrong)], output, processes=1)
    assert not result.passed


def test_a_netlist_of_an_ecp5_agrees(tmp_path: Path) -> None:
    output = share(tmp_path)
    assert regress.main(parse(*SMALL, "--netlist", "ecp5", "-o", str(output))) == 0
    assert json.loads((output / "coverage.json").read_text())["hcu"]["netlist"] == "ecp5"


@pytest.mark.slow
@pytest.mark.parametrize("netlist", ["osu018", "ecp5"])
@pytest.mark.parametrize("unit", ["hcu", "quant", "mean", "fetch"])
def test_whole_benches_pass_on_netlists(unit: str, netlist: str) -> None:
    words = [
        "--unit",
        unit,
        "--preset",
        "tiny",
        "--sim",
        "verilator",
        "--netlist",
        netlist,
        "-o",
        str(OUTPUT),
    ]
    words += ["--fetch-liberty", "osu018"] if netlist == "osu018" else []
    assert regress.main(parse(*words)) == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--netlist", "sky130"], "unknown netlist 'sky130': choose one of ecp5, osu018"),
        (["--netlist", "osu018"], "needs the library, which was not fetched yet; add --fetch-liberty osu018"),
        (["--netlist", "ecp5", "--no-initial"], "a netlist starts as its cells do; leave out --no-initial"),
        (["--netlist", "ecp5", "--liberty", "toy.lib"], "--netlist ecp5 takes no library"),
        (["--netlist", "other", "--liberty", "toy.lib"], "is library toy; give --netlist toy, not other"),
        (
            ["--netlist", "osu018", "--fetch-liberty", "osu035"],
            "--fetch-liberty osu035 is not the library of",
        ),
        (["--liberty", "toy.lib"], "--liberty and --fetch-liberty are of a netlist; add --netlist NAME"),
    ],
)
def test_mistakes_are_explained(
    words: list[str], says: str, toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(toy.parent)
    monkeypatch.setenv("VREX_CACHE", str(toy.parent / "cache"))
    with pytest.raises(RegressError, match=says):
        regress.plan(parse("--unit", "hcu", *words))


def test_a_netlist_is_of_one_unit() -> None:
    with pytest.raises(RegressError, match="--netlist is of one unit; add --unit U"):
        regress.plan(parse("--netlist", "ecp5"))


def test_what_cant_be_simulated_is_one_sentence(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cells, "TIMED_CELLS", 100)
    words = [*SMALL, "--netlist", "toy", "--liberty", str(toy), "-o", str(tmp_path / "out")]
    assert cli.main(["regress", *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("vrex: error: the netlist of hcu has ")
    assert "more than 100 can't be simulated; choose a smaller configuration" in said
    assert said.count("\n") == 1


def test_a_cell_without_a_function_is_named() -> None:
    library = parse_liberty(LIBERTY.replace('function : "(!(A B))";', ""))
    gate = {"type": "NAND", "parameters": {}, "connections": {"A": [2], "B": [2], "Y": [3]}}
    module = {"ports": {"i": {"direction": "input", "bits": [2]}}, "cells": {"gate": gate}}
    with pytest.raises(
        UserError, match="library toy: cell NAND can't be simulated: its pin Y has no function"
    ):
        of_standard_cells("top", module, library)


def test_names_of_jobs_and_replay() -> None:
    job = Job("hcu", "tiny", "verilator", 3, netlist="osu018", liberty=Path("/a b/osu018.lib"))
    assert job.name == "hcu-tiny-verilator-osu018"
    assert "--netlist osu018 --liberty '/a b/osu018.lib' --seed 3" in job.replay("ties")
