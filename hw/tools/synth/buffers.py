"""Buffer trees behind the registers, memories and ports of a mapped netlist.

The mapper buffers what gates drive, but not what it sees as its inputs.
"""

from collections import defaultdict
from typing import Any

from vrex.hw.tools.synth.liberty import Library, StandardCell

FANOUT = 12
"""Pins that a net from a register, a memory or a port may drive."""


def insert_buffers(module: dict[str, Any], library: Library) -> None:
    """Puts a tree of buffers behind every such net that drives more pins than `FANOUT`.

    Args:
        module: a module of Yosys's `write_json` after mapping; changed in place.
        library: its cells; without a buffer among them nothing changes.
    """
    found = _buffer(library)
    if found is None:
        return
    name, (source, target) = found
    readers = _readers(module, library)
    fresh = max((bit for bit in _bits(module) if isinstance(bit, int)), default=1) + 1
    for net in _sources(module, library):
        pins = readers[net]
        while len(pins) > FANOUT:
            groups = [pins[i : i + FANOUT] for i in range(0, len(pins), FANOUT)]
            pins = []
            for group in groups:
                for bits, index in group:
                    bits[index] = fresh
                into = [net]
                module["cells"][f"$buffer${fresh}"] = {
                    "hide_name": 1,
                    "type": name,
                    "parameters": {},
                    "attributes": {},
                    "port_directions": {source: "input", target: "output"},
                    "connections": {source: into, target: [fresh]},
                }
                pins.append((into, 0))
                fresh += 1


def _buffer(library: Library) -> tuple[str, tuple[str, str]] | None:
    """The buffer of the smallest delay at a load of `FANOUT` of its own inputs: name, input, output."""
    best = None
    for name, cell in library.cells.items():
        if pins := _buffer_pins(cell):
            arc = cell.arcs[pins[1]][0]
            load = FANOUT * cell.loads[pins[0]]
            delay = max(table(0.0, load) for table in arc.delay.values())
            if best is None or (delay, name) < best[0]:
                best = (delay, name), (name, pins)
    return best and best[1]


def _buffer_pins(cell: StandardCell) -> tuple[str, str] | None:
    if cell.sequential or len(cell.loads) != 1 or len(cell.arcs) != 1:
        return None
    (source,), ((target, arcs),) = cell.loads, cell.arcs.items()
    return (source, target) if arcs and all(arc.sense == "positive_unate" for arc in arcs) else None


def _readers(module: dict[str, Any], library: Library) -> dict[Any, list[tuple[list[Any], int]]]:
    """For each net the pins of gates and registers that read it, but clocks."""
    readers: dict[Any, list[tuple[list[Any], int]]] = defaultdict(list)
    for cell in module["cells"].values():
        known = library.cells.get(cell["type"])
        if known:
            clocks = {arc.source for arcs in known.arcs.values() for arc in arcs if arc.clocked}
            for pin in known.loads.keys() - clocks:
                bits = cell["connections"].get(pin, [])
                for index, bit in enumerate(bits):
                    readers[bit].append((bits, index))
    return readers


def _sources(module: dict[str, Any], library: Library) -> list[Any]:
    """Nets that no gate of the module drives."""
    nets = [bit for port in module["ports"].values() if port["direction"] == "input" for bit in port["bits"]]
    for cell in module["cells"].values():
        known = library.cells.get(cell["type"])
        if known is None or known.sequential:
            for pin, direction in cell["port_directions"].items():
                if direction == "output":
                    nets += cell["connections"][pin]
    return nets


def _bits(module: dict[str, Any]) -> list[Any]:
    return [bit for net in module["netnames"].values() for bit in net["bits"]]
