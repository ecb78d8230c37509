"""Memories of a netlist as macros: what a model of one does is what the memory's Verilog says."""

import json
from pathlib import Path
from typing import Any

import pytest

from vrex.errors import UserError
from vrex.hw.tools.gates.macros import macro_model, pins_of
from vrex.hw.tools.synth import tools
from vrex.hw.tools.synth.memories import MEMORY

HEAD = """module unit(input clk, input [1:0] ra, rb, wa, wb, input [2:0] d, input [3:0] e,
  output reg [2:0] y, output reg [2:0] z);
  reg [2:0] words [0:3];
"""
BODIES = {
    "read before write": "always @(posedge clk) begin y <= words[ra]; if (e[0]) words[wa] <= d; z <= 0; end",
    "enable": "always @(posedge clk) begin if (e[1]) y <= words[ra]; if (e[0]) words[wa] <= d; z <= 0; end",
    "reset": "always @(posedge clk) begin if (e[2]) y <= 5; else if (e[1]) y <= words[ra];"
    " if (e[0]) words[wa] <= d; z <= 0; end",
    "write through": "always @(posedge clk) begin if (e[0]) words[wa] <= d;"
    " y <= e[0] && wa == ra ? d : words[ra]; z <= 0; end",
    "bit by bit": "integer i; always @(posedge clk) begin y <= words[ra]; z <= words[rb];"
    " for (i = 0; i < 3; i = i + 1) if (e[i]) words[wa][i] <= d[i]; end",
    "two of each": "always @(posedge clk) begin y <= words[ra]; z <= words[rb];"
    " if (e[0]) words[wa] <= d; if (e[1]) words[wb] <= ~d; end",
}


def _memory(body: str, folder: Path) -> tuple[dict[str, Any], str]:
    """The memory of the unit, whose JSON is left in the folder, and its macro's model."""
    (folder / "unit.v").write_text(f"{HEAD}  {body}\nendmodule\n")
    passes = "proc\nopt\nmemory -nomap\nopt -full\nmemory_collect\nopt_clean -purge"
    tools.yosys(f"read_verilog unit.v\n{passes}\nwrite_json gold.json\n", folder)
    cells = json.loads((folder / "gold.json").read_text())["modules"]["unit"]["cells"]
    (cell,) = (cell for cell in cells.values() if cell["type"] == MEMORY)
    return cell, macro_model("macro", cell)


def _prove(model: str, folder: Path) -> None:
    """Raises UserError unless the unit is the same with the model, for eight cycles from zeros on."""
    design = json.loads((folder / "gold.json").read_text())
    for cell in design["modules"]["unit"]["cells"].values():
        if cell["type"] == MEMORY:
            cell["connections"] = pins_of(cell)
            cell["type"], cell["parameters"] = "macro", {}
            cell["port_directions"] = {
                pin: "output" if pin == "RD_DATA" else "input" for pin in cell["connections"]
            }
    (folder / "gate.json").write_text(json.dumps(design))
    (folder / "model.v").write_text(model)
    tools.yosys(
        """read_json gold.json
rename unit gold
read_json gate.json
rename unit gate
read_verilog model.v
proc
flatten
memory
opt -full
miter -equiv -flatten -make_assert gold gate miter
hierarchy -top miter
sat -verify -prove-asserts -set-init-zero -seq 8 miter
""",
        folder,
    )


@pytest.mark.parametrize("name", BODIES)
def test_a_macro_does_what_its_memory_did(name: str, tmp_path: Path) -> None:
    _, model = _memory(BODIES[name], tmp_path)
    _prove(model, tmp_path)


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("enable", "if (RD_EN[0])", "if (1)"),
        ("reset", "3'b101", "3'b100"),
        ("write through", "<= WR_DATA", "<= ~WR_DATA"),
        ("bit by bit", "WR_EN[0 + i]", "WR_EN[0]"),
    ],
)
def test_the_proof_finds_a_wrong_model(name: str, right: str, wrong: str, tmp_path: Path) -> None:
    _, model = _memory(BODIES[name], tmp_path)
    assert right in model
    with pytest.raises(UserError, match="proof did fail"):
        _prove(model.replace(right, wrong), tmp_path)


def test_a_memory_that_no_macro_can_be_is_refused(tmp_path: Path) -> None:
    cell, _ = _memory(BODIES["enable"], tmp_path)
    cell["parameters"]["RD_CLK_POLARITY"] = "0"
    with pytest.raises(UserError, match="memory macro has ports of a kind that can't be simulated"):
        macro_model("macro", cell)
