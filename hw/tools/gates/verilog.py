"""Verilog of a flat netlist, for a simulator."""

from collections.abc import Iterator, Mapping
from typing import Any

from vrex.errors import UserError
from vrex.hw.tools.gates import macros, toggles
from vrex.hw.tools.gates.functions import identifier
from vrex.hw.tools.gates.models import cell_model
from vrex.hw.tools.synth.liberty import Library
from vrex.hw.tools.synth.liberty_syntax import LibertyError
from vrex.hw.tools.synth.memories import MEMORY

NetlistModule = dict[str, Any]

SCOPE = "$scopeinfo"
"""What Yosys leaves of a module that was flattened."""


def of_standard_cells(top: str, module: NetlistModule, library: Library, *, count: bool = False) -> str:
    """A netlist in a library's cells, with models of those that it has.

    Args:
        top: name of the module.
        module: flat, of Yosys's `write_json`: cells of the library, and memories (`$mem_v2`).
        library: its cells.
        count: with counters (`vrex.hw.tools.gates.toggles`) of what `counted` names.

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
            pins = macros.pins_of(cell)
        instances.append(instance(kind, index, pins))
    if count:
        text.append(toggles.MODEL)
        instances += toggles.counters("clk", *counted(module))
    return "\n".join([*text, flat(top, module, instances)])


def counted(module: NetlistModule) -> tuple[list[int], list[int]]:
    """Nets of which power needs the changes, all but the clock, and the high cycles, memories' enables."""
    clock = module["ports"]["clk"]["bits"]
    nets = set(_bits(module)) - set(clock)
    enables = {
        bit
        for cell in module["cells"].values()
        if cell["type"] == MEMORY
        for pin in ("RD_EN", "WR_EN")
        for bit in cell["connections"][pin]
    }
    return sorted(bit for bit in nets if isinstance(bit, int)), sorted(enables & nets - {"0", "1", "x"})


def _bits(module: NetlistModule) -> Iterator[int | str]:
    """The nets of all pins and ports, and constants."""
    for cell in module["cells"].values():
        for bits in cell["connections"].values():
            yield from bits
    for port in module["ports"].values():
        yield from port["bits"]


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
    wires = sorted({bit for bit in _bits(module) if isinstance(bit, int)})
    lines += [f"  wire {net(bit)};" for bit in wires]
    for name, port in ports.items():
        if port["direction"] == "input":
            lines += [f"  assign {net(bit)} = {identifier(name)}[{i}];" for i, bit in enumerate(port["bits"])]
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
