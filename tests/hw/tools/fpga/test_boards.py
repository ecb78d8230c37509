"""The smallest design on one board of every family, with the real tools."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from tests.hw.tools.fpga.test_flow import Echo
from vrex.hw.fpga import designs
from vrex.hw.fpga.boards import BOARDS
from vrex.hw.tools.fpga.flow import Built, Job, build
from vrex.hw.tools.fpga.pieces import Pieces
from vrex.model.config import preset


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(designs, "make", lambda *of: Echo())


def _build(board: str, folder: Path, **other: Any) -> Built:
    job = Job(BOARDS[board], "kvpu", preset("tiny"), None, 1_000_000, seeds=1, **other)
    for package in job.board.family.packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    return build(job, lambda *_: None, Pieces(folder))


PREAMBLES = {
    "ecpix5": b"\xff\xff\xbd\xb3",
    "icebreaker": b"\x7e\xaa\x99\x7e",
    "tangnano9k": b"1010010111000011",
}
"""What a bitstream of each family has near its beginning; Gowin's is written in digits."""


@pytest.mark.slow
@pytest.mark.parametrize("board", list(PREAMBLES))
def test_a_bitstream(board: str, echo: None, tmp_path: Path) -> None:
    built = _build(board, tmp_path)
    ((name, bits),) = built.files.items()
    assert name == f"kvpu-{board}-tiny.{BOARDS[board].family.ending}"
    assert PREAMBLES[board] in bits[:300]
    figures = built.figures
    assert figures["meets_clock"]
    assert figures["fmax_mhz"]["max"] > figures["clock_mhz"]
    assert 0 < figures["needs"]["LUT4"] < 200
    assert 0 < figures["needs"]["FF"] < 200
    assert figures["units"][0]["unit"] == "all"
    assert {"design", "clocks.reset"} & {row["unit"] for row in figures["units"]}
    path = figures["critical_paths"][0]
    assert path["ns"] == pytest.approx(path["logic_ns"] + path["routing_ns"], abs=0.02)
    assert path["logic_ns"] > 0


def test_a_project_for_the_vendors_tools(echo: None, tmp_path: Path) -> None:
    built = _build("arty-a7", tmp_path)
    assert {"top.v", "top.xdc", "top.tcl"} <= built.files.keys()
    assert b"PLLE2_BASE" in built.files["top.v"]
    assert b"xc7a35ti" in built.files["top.tcl"]
    assert b"create_clock" in built.files["top.xdc"]
    assert 0 < built.figures["needs"]["FF"] < 200
    assert "fmax_mhz" not in built.figures
    assert built.figures["clock_mhz"] == 50
