"""Power of a netlist made by hand, its energies added up by hand."""

from pathlib import Path
from typing import Any

import pytest

from tests.hw.tools.synth.toy import LIBERTY
from vrex.errors import UserError
from vrex.hw.tools.gates import power, power_report, toggles
from vrex.hw.tools.gates.power import memory_bit_pj, of_netlist, unit_of
from vrex.hw.tools.gates.toggles import Activity
from vrex.hw.tools.gates.verilog import counted
from vrex.hw.tools.synth.liberty import parse


def _replaced(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new, 1)


def _inside(tables: str, source: str = "") -> str:
    related = f'related_pin : "{source}";' if source else ""
    return f"internal_power () {{ {related} {tables} }}"


# An inverter's rising edge takes 1 + 2 * load, its falling one 3; a flip-flop's clock .5 and 1.5, its Q 2.
TEXT = _replaced(
    LIBERTY, 'time_unit : "1ns";', 'time_unit : "1ns"; nom_voltage : 2; leakage_power_unit : "1uW";'
)
TEXT = _replaced(
    TEXT,
    "lu_table_template (both)",
    'power_lut_template (energy) { variable_1 : total_output_net_capacitance; index_1 ("0, 1"); }\n'
    "lu_table_template (both)",
)
TEXT = _replaced(
    TEXT,
    'function : "(!A)";',
    'function : "(!A)"; '
    + _inside('rise_power (energy) { values ("1, 3"); } fall_power (scalar) { values ("3"); }', "A"),
)
TEXT = _replaced(
    TEXT,
    "clock : true;",
    "clock : true; "
    + _inside('rise_power (scalar) { values ("0.5"); } fall_power (scalar) { values ("1.5"); }'),
)
TEXT = _replaced(
    TEXT, 'function : "IQ";', 'function : "IQ"; ' + _inside('power (scalar) { values ("2"); }', "CK")
)
TEXT = _replaced(TEXT, "area : 2;", "area : 2; cell_leakage_power : 5;")
TEXT = _replaced(TEXT, "area : 10;", "area : 10; cell_leakage_power : 7;")

CLOCK, Q, Y, INPUT = 2, 3, 4, 5


def _cell(kind: str, pins: dict[str, list[Any]], outputs: str) -> dict[str, Any]:
    directions = {pin: "output" if pin in outputs.split() else "input" for pin in pins}
    return {"type": kind, "parameters": {}, "port_directions": directions, "connections": pins}


def _module() -> dict[str, Any]:
    """A flip-flop in `below.one_3`, an inverter behind it, and a memory of four words of two bits."""
    memory = _cell(
        "$mem_v2",
        {
            "RD_EN": ["1"],
            "RD_ADDR": [Q, Q],
            "RD_DATA": [6, 7],
            "WR_EN": [INPUT, INPUT],
            "WR_ADDR": [Q, Y],
            "WR_DATA": [Q, Y],
        },
        "RD_DATA",
    )
    memory["parameters"] = {"SIZE": "100", "WIDTH": 2}
    return {
        "ports": {
            "clk": {"direction": "input", "bits": [CLOCK]},
            "i": {"direction": "input", "bits": [INPUT]},
            "o": {"direction": "output", "bits": [Y]},
        },
        "cells": {
            "$flatten\\below.\\one_3.$auto$1": _cell("DFF", {"CK": [CLOCK], "D": [Y], "Q": [Q]}, "Q"),
            "$abc$2": _cell("INV", {"A": [Q], "Y": [Y]}, "Y"),
            "words_1.memory": memory,
        },
        "netnames": {},
    }


ACTIVITY = Activity(cycles=10, toggles={Q: 4, Y: 6, INPUT: 2, 6: 0, 7: 0}, high={INPUT: 3})


def test_energies_by_hand() -> None:
    found = of_netlist(_module(), parse(TEXT), ACTIVITY)
    flip_flop, inverter = found.by_cell["DFF"].parts, found.by_cell["INV"].parts
    # Half of C V^2 at 2 V is 2 pJ a pF; each net drives one pin of .5 pF.
    assert flip_flop["pins"] == pytest.approx(4 * 2 * 0.5 / 10)
    assert flip_flop["wires"] == pytest.approx(4 * 2 * power.WIRE_PF / 10)
    assert inverter["pins"] == pytest.approx(6 * 2 * 0.5 / 10)
    assert inverter["wires"] == pytest.approx(6 * 2 * power.WIRE_PF / 10)
    # Each change of the inverter's output takes the mean of both edges; the clock has one of each a cycle.
    load = 0.5 + power.WIRE_PF
    assert inverter["internal"] == pytest.approx(6 * ((1 + 2 * load) + 3) / 2 / 10)
    assert flip_flop["internal"] == pytest.approx((0.5 + 1.5) + 4 * 2 / 10)
    assert flip_flop["clock_pins"] == pytest.approx(2 * 2 * 0.1)
    # Two bits are read in each of ten cycles and written in three.
    bit = (power.MEMORY_FIXED_PF + 4 * power.MEMORY_WORD_PF) * 4
    assert memory_bit_pj(4, 2.0) == pytest.approx(bit)
    assert found.by_kind["memories"].parts["memories"] == pytest.approx((10 * 2 + 3 * 2) * bit / 10)
    assert found.leakage == pytest.approx(12e-6)
    assert found.toggles == pytest.approx(12 / 5 / 10)
    assert set(found.by_kind) == {"registers", "gates", "memories", "ports"}
    assert set(found.by_unit) == {"below", "", "words"}
    whole = sum(part.total for part in found.by_unit.values())
    assert found.total.total == pytest.approx(whole)
    assert found.total.number == 3
    assert sum(part.total for part in found.by_cell.values()) == pytest.approx(whole)


def test_nets_that_are_counted() -> None:
    assert counted(_module()) == ([Q, Y, INPUT, 6, 7], [INPUT])


def test_a_tied_input_is_no_cause() -> None:
    # The NAND's second input is tied, so only the first one's energy counts.
    text = TEXT.replace(
        'function : "(!(A B))";',
        'function : "(!(A B))"; '
        + _inside('power (scalar) { values ("8"); }', "A")
        + _inside('power (scalar) { values ("2"); }', "B"),
    )
    module = _module()
    for second, energy in (("1", 8.0), (Q, 5.0)):
        module["cells"]["$abc$2"] = _cell("NAND", {"A": [Q], "B": [second], "Y": [Y]}, "Y")
        found = of_netlist(module, parse(text), ACTIVITY)
        assert found.by_cell["NAND"].parts["internal"] == pytest.approx(6 * energy / 10)


def test_what_the_table_and_the_picture_show() -> None:
    found = of_netlist(_module(), parse(TEXT), ACTIVITY)
    figures = power_report.figures(found, 2.0, 50.0)
    assert figures["pj_a_cycle"] == pytest.approx(found.total.total)
    assert figures["dynamic_mw"] == pytest.approx(found.total.total * 50e-3)
    assert figures["leakage_mw"] == pytest.approx(0.012)
    assert sum(figures["parts"].values()) == pytest.approx(figures["pj_a_cycle"])
    assert figures["by_cell"]["DFF"]["number"] == 1
    about = {"unit": "u", "preset": "p", "library": "toy", "cycles": 10, "cases": 1}
    lines = power_report.table(about | figures).splitlines()
    assert lines[0] == "u of p in toy, 2 V: 10 cycles of 1 cases, all equal to the model"
    (row,) = (line.split() for line in lines if line.startswith("DFF "))
    assert row[1:6] == ["1", "0.40", "0.01", "2.80", "0.40"]
    assert power_report.plot(about | figures).startswith(b"\x89PNG")


def test_a_library_without_energies_is_refused() -> None:
    for text in (LIBERTY, LIBERTY.replace('time_unit : "1ns";', 'time_unit : "1ns"; nom_voltage : 2;')):
        with pytest.raises(UserError, match="library toy has no voltage"):
            of_netlist(_module(), parse(text), ACTIVITY)


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("$abc$1$blif", ""),
        ("register", ""),
        ("$flatten\\lane_12.\\mac.$abc$3", "lane"),
        ("queue.memory", "queue"),
        ("$buffer$17", ""),
    ],
)
def test_units_of_cells(name: str, unit: str) -> None:
    assert unit_of(name) == unit


def test_counts_are_read_by_their_bits(tmp_path: Path) -> None:
    nets, levels = [7, 9, 11], [9]
    planes = [[0b101, 0b001, 0b100], [0b1, 0, 0b1]]
    lines = [
        f"{number} 20 {([*found, *[0] * 32])[k]:x}" for number, found in enumerate(planes) for k in range(32)
    ]
    (tmp_path / toggles.FILE).write_text("\n".join([*lines, ""]))
    activity = toggles.read(tmp_path, nets, levels)
    assert activity == Activity(20, {7: 1 + 2, 9: 0, 11: 1 + 4}, {9: 1 + 4})
    (tmp_path / toggles.FILE).write_text("\n".join(lines[:40]))
    with pytest.raises(UserError, match="left no counts of its nets"):
        toggles.read(tmp_path, nets, levels)
