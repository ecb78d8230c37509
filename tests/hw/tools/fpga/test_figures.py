"""Figures from what Yosys and nextpnr write."""

from typing import Any

import pytest

from vrex.errors import UserError
from vrex.hw.fpga.boards import BOARDS
from vrex.hw.fpga.families import ECP5, GOWIN, ICE40, XILINX7
from vrex.hw.tools.fpga import figures, report

SCOPE = {"type": "$scopeinfo"}
CELLS = {
    "design": SCOPE,
    "design.uart": SCOPE,
    "design.kvpu": SCOPE,
    "design.kvpu.hcu": SCOPE,
    "design.kvpu.packer$12": SCOPE,
    "design.idle": SCOPE,
    "reset_TRELLIS_FF_Q": {"type": "TRELLIS_FF"},
    "design.tx_LUT4_Z": {"type": "LUT4"},
    "design.uart.left_LUT4_Z": {"type": "LUT4"},
    # A signal's own name may have a dot, as a field of a word has.
    "design.kvpu.hcu.word.field_LUT4_Z": {"type": "LUT4"},
    "design.kvpu.hcu.sum_CCU2C_S0": {"type": "CCU2C"},
    "design.kvpu.memory.0.0": {"type": "DP16KD"},
    "design.kvpux_LUT4_Z": {"type": "LUT4"},
    "design.kvpu.packer$12.o_TRELLIS_FF_Q": {"type": "TRELLIS_FF"},
}


def _path(*steps: tuple[str, float, str]) -> dict[str, Any]:
    return {
        "from": "posedge $glbnet$clk",
        "to": "posedge $glbnet$clk",
        "path": [
            {"type": kind, "delay": ns, "from": {"cell": f"from_{cell}"}, "to": {"cell": cell}, "net": cell}
            for kind, ns, cell in steps
        ],
    }


REPORT: dict[str, Any] = {
    "fmax": {
        "$glbnet$clk": {"achieved": 61.234, "constraint": 50.0},
        "$glbnet$clk25_0__io$TRELLIS_IO_IN": {"achieved": 500.0, "constraint": 25.0},
    },
    "utilization": {"TRELLIS_COMB": {"used": 12, "available": 83640}, "DCUA": {"used": 0, "available": 2}},
    "critical_paths": [
        _path(("clk-to-q", 0.5, "a"), ("routing", 1.25, "b"), ("logic", 0.25, "b"), ("setup", 0.1, "c")),
        _path(("clk-to-q", 0.5, "d"), ("routing", 0.5, "e")),
        {**_path(("routing", 9.0, "far")), "from": "<async>"},
    ],
}


def test_cells_count_where_their_output_is() -> None:
    counts = figures.cells_by_unit(CELLS)
    assert counts[""].total() == 8
    assert counts["design"].total() == 7
    assert counts["design.uart"] == {"LUT4": 1}
    assert counts["design.kvpu"] == {"LUT4": 1, "CCU2C": 1, "DP16KD": 1, "TRELLIS_FF": 1}
    assert counts["design.kvpu.hcu"] == {"LUT4": 1, "CCU2C": 1}


def test_utilisation_has_a_row_for_each_unit() -> None:
    rows = {row["unit"]: row for row in figures.utilisation(ECP5, CELLS, depth=3)}
    units = ["all", "design", "design.kvpu", "design.kvpu.hcu", "design.kvpu.packer", "design.uart"]
    assert list(rows) == units
    assert rows["all"] == {"unit": "all", "LUT4": 6, "FF": 2, "DP16KD": 1, "MULT18X18D": 0}
    kvpu = {"unit": "design.kvpu", "LUT4": 3, "FF": 1, "DP16KD": 1, "MULT18X18D": 0}
    assert rows["design.kvpu"] == kvpu
    assert [row["unit"] for row in figures.utilisation(ECP5, CELLS, depth=1)] == ["all", "design"]


@pytest.mark.parametrize(
    ("family", "cells", "usage"),
    [
        (ECP5, {"LUT4": 10, "CCU2C": 3, "TRELLIS_DPR16X4": 2, "EHXPLLL": 1}, {"LUT4": 28}),
        (ICE40, {"SB_LUT4": 5, "SB_DFFER": 2, "SB_DFF": 1, "SB_CARRY": 4}, {"LUT4": 5, "FF": 3}),
        (GOWIN, {"LUT2": 5, "LUT5": 1, "LUT8": 1, "ALU": 2, "DFFRE": 7}, {"LUT4": 25, "FF": 7}),
        (XILINX7, {"LUT6": 5, "RAM64M": 1, "RAMB36E1": 2, "RAMB18E1": 1}, {"LUT": 9, "RAMB18": 5}),
    ],
)
def test_what_cells_take(family: Any, cells: dict[str, int], usage: dict[str, int]) -> None:
    found = family.usage(cells)
    assert tuple(found) == family.resources
    assert {name: count for name, count in found.items() if count} == usage


def test_every_board_says_what_its_family_counts() -> None:
    for board in BOARDS.values():
        assert tuple(board.has) == board.family.resources, board.name


def test_a_design_that_does_not_fit() -> None:
    board = BOARDS["icebreaker"]
    needs = {"LUT4": 5280, "FF": 100, "RAM4K": 30, "MAC16": 8}
    figures.check_room(board, needs, "kvpu of tiny")
    with pytest.raises(UserError) as caught:
        figures.check_room(board, needs | {"LUT4": 12_793, "MAC16": 9}, "kvpu of tiny")
    assert str(caught.value) == (
        "kvpu of tiny does not fit on icebreaker: it needs 12,793 LUT4 of 5,280 (7,513 too many) and "
        "9 MAC16 of 8 (1 too many); choose a smaller preset or a larger board"
    )


def test_the_clock_with_the_least_to_spare_counts() -> None:
    slower = {"fmax": {"clk": {"achieved": 40.01, "constraint": 50.0}}}
    assert figures.fmax([REPORT, slower]) == {
        "min": 40.01,
        "median": 50.62,
        "max": 61.23,
        "by_seed": [61.23, 40.01],
    }
    assert not figures.missed(REPORT)
    assert figures.missed(slower)
    # A clock of a memory that is missed is no less wrong than the design's.
    assert figures.missed({"fmax": REPORT["fmax"] | {"shifted": {"achieved": 49.9, "constraint": 50.0}}})


def test_the_slowest_path_says_what_is_logic() -> None:
    path = figures.critical_path(REPORT)
    assert path is not None
    assert (path["ns"], path["routing_ns"], path["logic_ns"]) == (2.1, 1.25, 0.85)
    assert (path["from"], path["to"], path["cells"]) == ("from_a", "c", ["a", "b", "c"])
    assert figures.critical_path({"critical_paths": REPORT["critical_paths"][2:]}) is None


def test_what_is_packed() -> None:
    assert figures.packed(REPORT) == {"TRELLIS_COMB": {"used": 12, "available": 83640}}


def test_the_table_leaves_out_what_takes_nothing() -> None:
    units = [
        {"unit": "all", "LUT4": 1000, "FF": 500},
        {"unit": "design", "LUT4": 990, "FF": 500},
        {"unit": "design.uart", "LUT4": 9, "FF": 5},
        {"unit": "design.kvpu", "LUT4": 900, "FF": 400},
    ]
    assert report.table({"units": units, "has": {"LUT4": 5280, "FF": 5280}}).splitlines() == [
        "unit            LUT4     FF",
        "all            1,000    500",
        "  design         990    500",
        "    kvpu         900    400",
        "the board has  5,280  5,280",
    ]
