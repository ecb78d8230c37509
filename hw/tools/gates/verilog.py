"""Verilog of a flat netlist, for a simulator."""

from collections.abc import Mapping
from typing import Any

from vrex.errors import UserError
from vrex.hw.tools.gates import macros
from vrex.hw.tools.gates.functions import identifier
from vrex.hw.tools.gates.models import cell_model
from vrex.hw.tools.synth.liberty import Library
from vrex.hw.tools.synth.liberty_syntax import LibertyError
from vrex.hw.tools.synth.memories import MEMORY

NetlistModule = dict[str, Any]

SCOPE = "$scopeinfo"
"""What Yosys leaves of a module that was flattened."""


def of_standard_cells(top: str, module: NetlistModule, library: Library, extra: str = "") -> str:
    """A netlist in a library's cells, with models of those that it has.

    Args:
        top: name of the module.
        module: flat, of Yosys's `write_json`: cells of the library, and memories (`$mem_v2`).
        library: its cells.
        extra: Verilog in the module, which calls nets `net` does.

    Raises:
        UserError: a cell or memory can't be simulated.
    """
    kinds = sorted({cell["type"] for cell in module["cells"].values()} - {MEMORY})
    try:
        models = [cell_model(kind, library.cells[kind]) for kind in kinds]
    except LibertyError as error:
        raise UserError(f"library {library.name}: {error}; name another library") from error
    text = [*models]
    instances = []
    for index, cell in enumerate(module["cells"].values()):
        kind, pins = cell["type"], cell["connections"]
        if kind == MEMORY:
            kind = f"vrex_memory_{index}"
            text.append(macros.macro_model(kind, cell))
            pins = {"CLK": macros.clocks(cell)[:1], **pins}
            pins = {pin: bits for pin, bits in pins.items() if pin not in ("RD_CLK", "WR_CLK", "RD_ARST")}
        instances.append(instance(kind, index, pins))
    return "\n".join([*text, flat(top, module, [*instances, extra])])


def of_ecp5(top: str, module: NetlistModule, models: Mapping[str, str]) -> str:
    """A netlist of an ECP5, with models of the cells that it has.

    Args:
        top: name of the module.
        module: of `vrex.hw.tools.synth.ecp5.mapped`.
        models: Verilog by type of cell.

    Raises:
        UserError: there is no model of a cell.
    """
    cells = [cell for cell in module["cells"].values() if cell["type"] != SCOPE]
    kinds = sorted({cell["type"] for cell in cells})
    if strange := [kind for kind in kinds if kind not in models]:
        raise UserError(f"there is no model of the ECP5's cell {strange[0]}; choose another unit")
    instances = [
        instance(cell["type"], index, cell["connections"], cell["parameters"])
        for index, cell in enumerate(cells)
    ]
    return "\n".join([*(models[kind] for kind in kinds), flat(top, module, instances)])


def flat(top: str, module: NetlistModule, instances: list[str]) -> str:
    """A module of instances: its ports as vectors, every other net as a wire of its own."""
    ports = module["ports"]
    # Named without their widths: the simulator's builder looks for the names.
    lines = [f"module {top}({', '.join(map(identifier, ports))});"]
    for name, port in ports.items():
        lines.append(f"  {port['direction']} [{len(port['bits']) - 1}:0] {identifier(name)};")
    used = {bit for cell in module["cells"].values() for bits in cell["connections"].values() for bit in bits}
    used |= {bit for port in ports.values() for bit in port["bits"]}
    lines += [f"  wire {net(bit)};" for bit in sorted(bit for bit in used if isinstance(bit, int))]
    for name, port in ports.items():
        if port["direction"] == "input":
            wires = [f"{net(bit)} = {identifier(name)}[{i}]" for i, bit in enumerate(port["bits"])]
            lines += [f"  assign {wire};" for wire in wires]
        else:
            lines.append(f"  assign {identifier(name)} = {joined(port['bits'])};")
    return "\n".join([*lines, *instances, "endmodule", ""])


def instance(
    kind: str, index: int, pins: Mapping[str, list[int | str]], parameters: Mapping[str, str] | None = None
) -> str:
    """One instance of a cell; its parameters are numbers in binary, or words."""
    values = [f".{name}({_value(value)})" for name, value in (parameters or {}).items()]
    given = f" #({', '.join(values)})" if values else ""
    links = [f".{identifier(pin)}({joined(bits)})" for pin, bits in pins.items()]
    return f"  {identifier(kind)}{given} c{index}({', '.join(links)});"


def _value(value: int | str) -> str:
    if isinstance(value, int):
        return str(value)
    # Yosys puts a space behind a word that could be read as bits.
    return f"{len(value)}'b{value}" if value and not value.strip("01x") else f'"{value.rstrip()}"'


def net(bit: int | str) -> str:
    """The name of a net, or a constant."""
    return f"n{bit}" if isinstance(bit, int) else f"1'b{bit}"


def joined(bits: list[int | str]) -> str:
    """Nets as one vector, given the lowest bit first."""
    return net(bits[0]) if len(bits) == 1 else f"{{{', '.join(net(bit) for bit in reversed(bits))}}}"
