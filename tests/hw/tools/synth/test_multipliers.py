"""Products' registers inside multiplier blocks: the netlist does what it did before."""

import json
from pathlib import Path
from typing import Any

import pytest

from vrex.errors import UserError
from vrex.hw.tools.gates.ecp5_models import MODELS
from vrex.hw.tools.synth import ecp5, tools


def _unit(body: str) -> str:
    return f"""module unit(input clk, input rst, input en, input signed [3:0] a, input signed [2:0] b,
  output reg signed [6:0] y, output reg z);
  initial begin y = 0; z = 0; end
  {body}
endmodule
"""


PLAIN = "always @(posedge clk) begin y <= a * b; z <= rst ^ en; end"
PACKED = {
    "plain": (PLAIN, 7),
    "enable": ("always @(posedge clk) begin if (en) y <= a * b; z <= rst; end", 7),
    "some bits": (
        "wire signed [6:0] p = a * b;"
        " always @(posedge clk) begin {z, y[2:0]} <= p[6:3]; y[6:3] <= {4{en}}; end",
        4,
    ),
    "more after": (
        "reg signed [6:0] p; initial p = 0; always @(posedge clk) begin p <= a * b; y <= p + a; z <= ^p; end",
        7,
    ),
}
LEFT = {
    "reset": "always @(posedge clk) begin y <= rst ? 0 : a * b; z <= en; end",
    "starts at 4": "reg signed [6:0] p; initial p = 4;"
    " always @(posedge clk) begin p <= a * b; y <= p; z <= 0; end",
    "used at once too": "wire signed [6:0] p = a * b; always @(posedge clk) begin y <= p; z <= ^p; end",
    "two enables": "wire signed [6:0] p = a * b; always @(posedge clk) begin if (en) y[3:0] <= p[3:0];"
    " if (rst) y[6:4] <= p[6:4]; z <= 0; end",
    "the other edge": PLAIN.replace("posedge", "negedge"),
}


def _mapped(body: str, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The unit mapped without and with `multipliers.pack`."""
    (folder / "unit.v").write_text(_unit(body))
    packed = ecp5.mapped("unit", "read_verilog unit.v", folder)
    return json.loads((folder / "mapped.json").read_text()), packed


def _registers(design: dict[str, Any]) -> int:
    cells = design["modules"]["unit"]["cells"].values()
    assert sum(cell["type"] == "MULT18X18D" for cell in cells) == 1
    return sum(cell["type"] == "TRELLIS_FF" for cell in cells)


def _prove_equal(plain: dict[str, Any], packed: dict[str, Any], folder: Path) -> None:
    """Raises UserError unless both give the same outputs for ever."""
    for name, design in (("plain", plain), ("packed", packed)):
        alone = {"modules": {"unit": design["modules"]["unit"]}}
        (folder / f"{name}.json").write_text(json.dumps(alone))
    (folder / "block.v").write_text(MODELS["MULT18X18D"])
    tools.yosys(
        """read_json plain.json
rename unit gold
read_json packed.json
rename unit gate
read_verilog block.v
read_verilog -D NO_INCLUDES +/lattice/cells_sim_ecp5.v
setattr -mod -unset top gold gate
hierarchy -check
proc
flatten
miter -equiv -flatten -make_assert gold gate miter
hierarchy -top miter
opt
async2sync
sat -verify -prove-asserts -tempinduct -set-init-undef -seq 1 miter
""",
        folder,
    )


@pytest.mark.parametrize("name", PACKED)
def test_registers_of_a_product_go_in(name: str, tmp_path: Path) -> None:
    body, moved = PACKED[name]
    plain, packed = _mapped(body, tmp_path)
    assert _registers(plain) - _registers(packed) == moved
    _prove_equal(plain, packed, tmp_path)


@pytest.mark.parametrize("name", LEFT)
def test_registers_stay_that_the_block_has_not(name: str, tmp_path: Path) -> None:
    plain, packed = _mapped(LEFT[name], tmp_path)
    assert packed == plain


def test_the_proof_sees_an_enable_that_was_lost(tmp_path: Path) -> None:
    plain, packed = _mapped(PACKED["enable"][0], tmp_path)
    cells = packed["modules"]["unit"]["cells"].values()
    (block,) = (cell for cell in cells if cell["type"] == "MULT18X18D")
    block["connections"]["CE0"] = ["1"]
    with pytest.raises(UserError, match="proof did fail"):
        _prove_equal(plain, packed, tmp_path)
