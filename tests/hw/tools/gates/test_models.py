"""Models of standard cells do what Yosys makes of the same Liberty file, for every input and state."""

from pathlib import Path

import pytest

from tests.hw.tools.gates.cells import LIBRARY
from vrex.errors import UserError
from vrex.files import cache_folder
from vrex.hw.tools.gates.models import cell_model
from vrex.hw.tools.synth import fetch, tools
from vrex.hw.tools.synth.liberty import Library
from vrex.hw.tools.synth.liberty import parse as parse_liberty
from vrex.hw.tools.synth.liberty_syntax import LibertyError


def _prove(text: str, names: list[str], models: str, folder: Path) -> None:
    """Raises UserError unless the models equal what Yosys reads of the library.

    For all inputs, clocks among them, of six steps from 0 on: a cell keeps one bit, which any two edges set.
    """
    (folder / "cells.lib").write_text(text)
    (folder / "models.v").write_text(models)
    lines = ["read_liberty cells.lib", *(f"rename {name} gold_{name}" for name in names)]
    lines += ["read_verilog models.v", "proc"]
    for name in names:
        lines += [
            f"miter -equiv -flatten -make_assert gold_{name} {name} miter_{name}",
            f"clk2fflogic miter_{name}",
            f"sat -verify -prove-asserts -set-init-zero -seq 6 miter_{name}",
        ]
    tools.yosys("\n".join([*lines, ""]), folder)


def _models(library: Library) -> tuple[list[str], str]:
    """Names of the cells that never let go of an output, and their models."""
    names = [name for name, cell in library.cells.items() if not cell.three_state]
    return names, "\n".join(cell_model(name, library.cells[name]) for name in names)


def test_every_kind_of_cell_equals_its_liberty(tmp_path: Path) -> None:
    names, models = _models(parse_liberty(LIBRARY))
    assert {"AOI22", "DFFRS", "LATCH", "FULLADD", "DFF"} <= set(names)
    _prove(LIBRARY, names, models, tmp_path)


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("AOI22", "&", "|"),
        ("DFFE", "E & D", "E | D"),
        ("DFFN", "negedge", "posedge"),
        ("DFFRS", "1'b0", "1'b1"),
        ("LATCH", "if (~G)", "if (G)"),
    ],
)
def test_the_proof_finds_a_wrong_model(name: str, right: str, wrong: str, tmp_path: Path) -> None:
    model = cell_model(name, parse_liberty(LIBRARY).cells[name])
    assert right in model
    with pytest.raises(UserError, match="proof did fail"):
        _prove(LIBRARY, [name], model.replace(right, wrong, 1), tmp_path)


@pytest.mark.slow
def test_every_cell_of_osu018_equals_its_liberty(tmp_path: Path) -> None:
    path = fetch.fetch("osu018", cache_folder())
    library = parse_liberty(path.read_text())
    names, models = _models(library)
    assert len(names) == 30
    assert sorted(library.cells.keys() - set(names)) == ["TBUFX1", "TBUFX2"]
    _prove(path.read_text(), names, models, tmp_path)
    # The other two: an inverter that lets go.
    assert "assign Y = ~EN ? 1'bz : ~A;" in cell_model("TBUFX1", library.cells["TBUFX1"])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (('function : "!(A^B)"', 'function : "!(A^Z)"'), "XNOR can't be simulated: '!(A^Z)' names Z"),
        (('function : "!(A^B)";', ""), "XNOR can't be simulated: its pin Y has no function"),
        (("latch (K, L)", "statetable (K, L)"), "LATCH can't be simulated: it keeps something"),
        (('clocked_on : "!C"', 'clocked_on : "C D"'), "DFFN can't be simulated: its clock is 'C D'"),
        (("clear_preset_var1 : H", "clear_preset_var1 : T"), "clear_preset_var1 T is not known"),
    ],
)
def test_what_cant_be_modelled_is_said(change: tuple[str, str], says: str) -> None:
    assert change[0] in LIBRARY
    library = parse_liberty(LIBRARY.replace(*change))
    with pytest.raises(LibertyError) as error:
        _models(library)
    assert says in str(error.value)
