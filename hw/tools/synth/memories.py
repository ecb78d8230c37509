"""The memories of a unit: which stay macros, and how large they are."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MEMORY = "$mem_v2"


@dataclass(frozen=True)
class Memory:
    """One memory, as Yosys finds it in a netlist.

    Attributes:
        name: path from the unit's top, with dots.
        module, cell: where it is.
        depth, width: words and bits of a word.
        kind: "macro": stays a black box; "registers": flip-flops, because a word is read in the very cycle
            of its address, which no SRAM macro does; "logic": a table of constants, made of gates.
    """

    name: str
    module: str
    cell: str
    depth: int
    width: int
    kind: str

    @property
    def bits(self) -> int:
        """Its size."""
        return self.depth * self.width


def find(netlist: dict[str, Any], top: str) -> list[Memory]:
    """The memories of all instances below `top`, in the order of their names.

    Args:
        netlist: Yosys's `write_json`, memories as cells of type `$mem_v2`.
        top: name of the unit's module.
    """
    return sorted(_below(netlist["modules"], top, ""), key=lambda memory: memory.name)


def _below(modules: dict[str, Any], module: str, path: str) -> Iterator[Memory]:
    for name, cell in modules[module]["cells"].items():
        if cell["type"] == MEMORY:
            values = {key: _integer(cell["parameters"][key]) for key in ("SIZE", "WIDTH")}
            yield Memory(path + name, module, name, values["SIZE"], values["WIDTH"], _kind(cell))
        elif cell["type"] in modules:
            yield from _below(modules, cell["type"], f"{path}{name}.")


def _kind(cell: dict[str, Any]) -> str:
    parameters = cell["parameters"]
    if _integer(parameters["WR_PORTS"]) == 0:
        return "logic"
    # A bit for each read port: whether it has a clock.
    ports = _integer(parameters["RD_PORTS"])
    clocked = _integer(parameters["RD_CLK_ENABLE"]) if ports else 0
    return "macro" if clocked == (1 << ports) - 1 else "registers"


def _integer(value: int | str) -> int:
    return int(value, 2) if isinstance(value, str) else value
