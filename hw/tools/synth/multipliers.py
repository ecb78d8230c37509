"""Registers of products in the ECP5's multiplier blocks.

A MULT18X18D has a register behind its product, which Lattice's own tools put to use; Yosys leaves those
registers in slices, so that a product crosses the chip before it is kept. `pack` moves them in, as the
sysDSP guide (Lattice FPGA-TN-02205) describes the block: REG_OUTPUT_CLK, _CE and _RST name the pins that
clock, enable and reset it.
"""

from collections import Counter
from typing import Any

REGISTERED = {
    "REG_OUTPUT_CLK": "CLK0",
    "REG_OUTPUT_CE": "CE0",
    "REG_OUTPUT_RST": "RST0",
    "GSR": "DISABLED",
}

NetlistCell = dict[str, Any]


def pack(module: dict[str, Any]) -> None:
    """Moves the registers behind products into their multipliers.

    Those of one multiplier go in together: if every bit of the product that is used goes to one flip-flop
    and to nothing else, and all of these share clock and enable, start at 0 and have no reset.

    Args:
        module: mapped to an ECP5 by Yosys, of the modules in its JSON; changed in place.
    """
    cells = module["cells"]
    loads: Counter[int | str] = Counter(bit for port in module["ports"].values() for bit in port["bits"])
    register_of = {}
    for name, cell in cells.items():
        loads.update(bit for port in _ports(cell, "input") for bit in cell["connections"][port])
        if cell["type"] == "TRELLIS_FF":
            register_of[cell["connections"]["DI"][0]] = name
    for multiplier in [cell for cell in cells.values() if cell["type"] == "MULT18X18D"]:
        bits = {port: multiplier["connections"][port][0] for port in _ports(multiplier, "output")}
        used = {port: bit for port, bit in bits.items() if loads[bit]}
        if not used or any(loads[bit] > 1 or bit not in register_of for bit in used.values()):
            continue
        controls = {_control(cells[register_of[bit]]) for bit in used.values()}
        if len(controls) == 1 and (control := controls.pop()):
            for port, bit in used.items():
                multiplier["connections"][port] = cells.pop(register_of[bit])["connections"]["Q"]
            _register(multiplier, *control)


def _ports(cell: NetlistCell, direction: str) -> list[str]:
    return [port for port, way in cell["port_directions"].items() if way == direction]


def _control(register: NetlistCell) -> tuple[int | str, int | str] | None:
    """Clock and enable of a flip-flop; None if a multiplier's register cannot do what it does."""
    parameters, connections = register["parameters"], register["connections"]
    wanted = {"CLKMUX": "CLK", "LSRMUX": "LSR", "REGSET": "RESET"}
    plain = connections["LSR"] == ["0"] and parameters.items() >= wanted.items()
    enabled = parameters["CEMUX"].strip()
    if not plain or enabled not in ("1", "CE"):
        return None
    enable = connections["CE"][0] if enabled == "CE" else "1"
    return connections["CLK"][0], enable


def _register(multiplier: NetlistCell, clock: int | str, enable: int | str) -> None:
    multiplier["parameters"] |= REGISTERED
    for port, bit in (("CLK0", clock), ("CE0", enable), ("RST0", "0")):
        multiplier["connections"][port] = [bit]
        multiplier["port_directions"][port] = "input"
