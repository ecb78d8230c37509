"""Liberty files: what is read of them, and what is refused."""

from pathlib import Path

import pytest

from tests.hw.tools.synth.toy import LIBERTY
from vrex.errors import UserError
from vrex.hw.tools.synth import liberty


def test_areas_loads_and_registers() -> None:
    library = liberty.parse(LIBERTY)
    assert library.name == "toy"
    assert {name: cell.area for name, cell in library.cells.items()} == {
        "INV": 2,
        "NAND": 3,
        "BUF": 1,
        "DFF": 10,
    }
    assert [name for name, cell in library.cells.items() if cell.sequential] == ["DFF"]
    assert library.cells["NAND"].loads == {"A": 0.5, "B": 0.5}
    assert {arc.source for arc in library.cells["NAND"].arcs["Y"]} == {"A", "B"}


def test_one_group_may_name_several_pins() -> None:
    text = LIBERTY.replace('related_pin : "A"', 'related_pin : "A B"')
    arcs = liberty.parse(text).cells["NAND"].arcs["Y"]
    assert [arc.source for arc in arcs] == ["A", "B", "B"]


def test_setup_is_read_and_hold_is_not() -> None:
    setup = liberty.parse(LIBERTY).cells["DFF"].setup["D"]
    assert {edge: table(0.0, 0.0) for edge, table in setup.items()} == {"rise": 0.75, "fall": 0.5}


@pytest.mark.parametrize(
    ("cell", "slew", "load", "delay"),
    [("INV", 0, 0, 1), ("INV", 7, 0.5, 2), ("INV", 0, 2, 5), ("BUF", 2, 9, 1), ("BUF", 6, 0, 2)],
)
def test_delays_between_and_beyond_the_points(cell: str, slew: float, load: float, delay: float) -> None:
    (arc,) = liberty.parse(LIBERTY).cells[cell].arcs["Y"]
    assert arc.delay["rise"](slew, load) == pytest.approx(delay)


def test_units_and_the_order_of_axes() -> None:
    # Rows over the load and columns over the slope, in the table itself.
    own = (
        """cell_rise (swapped) { index_1 ("0, 1"); index_2 ("0, 4, 8"); values ("1, 2, 3", "10, 20, 30"); }"""
    )
    template = """lu_table_template (swapped) {
      variable_1 : total_output_net_capacitance; variable_2 : input_net_transition;
    }
    cell (INV)"""
    text = LIBERTY.replace("cell (INV)", template).replace('"1ns"', '"1ps"').replace("(1, pf)", "(10, ff)")
    text = text.replace('cell_rise (both) { values ("1, 3", "1, 3"); }', own)
    inverter = liberty.parse(text).cells["INV"]
    assert inverter.loads["A"] == pytest.approx(0.005)
    delay = inverter.arcs["Y"][0].delay["rise"]
    assert delay(0.004, 0.01) == pytest.approx(0.020)
    assert delay(0.008, 0.0) == pytest.approx(0.003)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "it ends too early"),
        ("module top; endmodule", "it does not begin with a library"),
        (LIBERTY[: len(LIBERTY) // 2], "it ends too early"),
        (LIBERTY.replace('time_unit : "1ns"', 'time_unit : "1 fortnight"'), "units"),
        (LIBERTY.replace("area : 2", "area : large"), "'large' is no number"),
        (LIBERTY.replace("ff (IQ, IQN)", "gg (IQ, IQN)"), "it has no flip-flop"),
        (LIBERTY.replace("0, 4", "4, 0"), "does not ascend"),
        (LIBERTY.replace('("1, 3", "1, 3")', '("1, 3, 5")', 1), "the size of its axes"),
        (LIBERTY.replace("variable_1 : input_net", "variable_1 : output_net"), "are not known here"),
        (LIBERTY.replace("rise_transition", "rise_slope"), "no slope"),
        ('library (x) { "', "syntax"),
        ("library (x) { a : 1; } ", "it has no flip-flop"),
    ],
)
def test_what_is_no_library_is_refused(text: str, says: str) -> None:
    with pytest.raises(liberty.LibertyError, match=says):
        liberty.parse(text)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00garbage", b"hello\n"])
def test_a_garbage_file_is_one_sentence(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cells.lib"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"cells\.lib is no usable Liberty file: .*; name another$"):
        liberty.load(path)


def test_a_missing_file_and_a_folder_are_one_sentence(tmp_path: Path) -> None:
    for path in (tmp_path / "no.lib", tmp_path):
        with pytest.raises(UserError, match=r"^cannot read .*; name a Liberty file$"):
            liberty.load(path)
