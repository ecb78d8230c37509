"""The harness that a unit stands in while it is placed."""

import json
from pathlib import Path

from vrex.hw.tools.synth import ecp5, tools

UNIT = """module unit(input clk, input [2:0] a, input b, output [3:0] y, output z);
  assign y = {a, b} + 4'd3;
  assign z = b;
endmodule
"""
PORTS = {
    "clk": {"direction": "input", "bits": [2]},
    "a": {"direction": "input", "bits": [3, 4, 5]},
    "b": {"direction": "input", "bits": [6]},
    "y": {"direction": "output", "bits": [7, 8, 9, 10]},
    "z": {"direction": "output", "bits": [6]},
}


def test_every_port_has_a_register_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "unit.v").write_text(UNIT)
    (tmp_path / "harness.v").write_text(ecp5.harness("unit", PORTS))
    script = "read_verilog unit.v harness.v\nhierarchy -check -top harness\nproc\nsplitnets\nopt\ndffunmap\n"
    tools.yosys(f"{script}techmap\nopt -purge\nwrite_json out.json\n", tmp_path)
    modules = json.loads((tmp_path / "out.json").read_text())["modules"]
    cells = modules["harness"]["cells"].values()
    registers = {
        cell["connections"]["Q"][0]: cell["connections"]["D"][0]
        for cell in cells
        if cell["type"].startswith("$_DFF")
    }
    (unit,) = (cell for cell in cells if cell["type"] == "unit")
    inputs = [bit for port in "ab" for bit in unit["connections"][port]]
    assert len(set(inputs)) == 4
    assert set(inputs) <= registers.keys()
    # No input's register is the delayed copy of another register.
    assert all(registers[bit] not in registers for bit in inputs)
    taken = set(registers.values())
    assert {bit for port in "yz" for bit in unit["connections"][port]} <= taken
    ports = modules["harness"]["ports"]
    assert sum(len(port["bits"]) for port in ports.values()) == 3
