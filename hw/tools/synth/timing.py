"""Static timing of a netlist of standard cells: the path that limits the clock.

Delays and slopes come from the library's tables with the capacitance of the pins that a net drives; wires
weigh nothing, the clock is ideal, a port or a memory's output is there at the clock's edge, and a port or a
memory's input is due at the next. Registers count with their clock-to-output and setup times.
"""

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from vrex.hw.tools.synth.liberty import EDGES, Arc, Library, StandardCell

OTHER = {"rise": "fall", "fall": "rise"}
Bit = int | str
Point = tuple[Bit, str]
"""A net and the edge on it."""


@dataclass(frozen=True)
class Path:
    """The slowest way from register to register.

    Attributes:
        ns: its length, setup included.
        start, end: net of the register, port or memory at which it starts, and where it ends.
        steps: (type of the cell, net it drives, ns at which that changes) on the way.
    """

    ns: float
    start: str
    end: str
    steps: list[tuple[str, str, float]]


@dataclass
class _Event:
    """The latest edge on a net: when, how steep, and what caused it."""

    time: float
    slew: float
    cause: Point | None
    cell: str


@dataclass
class _Netlist:
    """A module of cells as Yosys writes it, seen from its nets; `wire` is pF of each pin's wire."""

    module: dict[str, Any]
    library: Library
    wire: float = 0.0
    loads: dict[Bit, float] = field(default_factory=lambda: defaultdict(float))
    names: dict[Bit, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for _, cell in self.cells():
            known = self.library.cells.get(cell["type"])
            if known:
                for pin, load in known.loads.items():
                    for bit in cell["connections"].get(pin, []):
                        self.loads[bit] += load + self.wire
        for name, net in self.module["netnames"].items():
            for index, bit in enumerate(net["bits"]):
                label = f"{name}[{index}]" if len(net["bits"]) > 1 else name
                if bit not in self.names or not net["hide_name"]:
                    self.names[bit] = label

    def cells(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Names and cells."""
        yield from self.module["cells"].items()

    def name(self, bit: Bit) -> str:
        """A net's name."""
        return self.names.get(bit, str(bit))


def slowest_path(module: dict[str, Any], library: Library) -> Path | None:
    """The path that limits the clock, None if there is no register, port or memory to end at.

    Args:
        module: a flat module of Yosys's `write_json`: cells of the library, and memories (`$mem_v2`).
        library: its cells.

    Raises:
        ValueError: the gates form a loop.
    """
    netlist = _Netlist(module, library)
    events = _analyse(netlist)
    ends = list(_ends(netlist, events))
    if not ends:
        return None
    ns, point, end = max(ends, key=lambda one: one[0])
    return _trace(netlist, events, ns, point, end)


def slopes(module: dict[str, Any], library: Library, wire: float) -> dict[Bit, float]:
    """The slope of each net in ns, the mean of its edges' where they come last; ports and memories have 0.

    Args:
        module, library: as of `slowest_path`.
        wire: capacitance of the wire to each pin, pF.

    Raises:
        ValueError: the gates form a loop.
    """
    found: dict[Bit, list[float]] = defaultdict(list)
    for (bit, _), event in _analyse(_Netlist(module, library, wire)).items():
        found[bit].append(event.slew)
    return {bit: sum(values) / len(values) for bit, values in found.items()}


def _analyse(netlist: _Netlist) -> dict[Point, _Event]:
    """The latest edges on all nets."""
    events: dict[Point, _Event] = {}
    gates = _start(netlist, events)
    for cell, known in _in_order(netlist, gates):
        for pin, arcs in known.arcs.items():
            for bit in cell["connections"].get(pin, []):
                _drive(netlist, events, cell, bit, arcs)
    return events


def _start(netlist: _Netlist, events: dict[Point, _Event]) -> list[tuple[dict[str, Any], StandardCell]]:
    """Puts the events of ports, memories and registers in place; returns the gates between them."""
    gates = []
    for port in netlist.module["ports"].values():
        if port["direction"] == "input":
            _begin(events, port["bits"], "port")
    for _, cell in netlist.cells():
        known = netlist.library.cells.get(cell["type"])
        if known is None:
            for pin, direction in cell["port_directions"].items():
                if direction == "output":
                    _begin(events, cell["connections"][pin], cell["type"])
        elif known.sequential:
            for pin, arcs in known.arcs.items():
                for bit in cell["connections"].get(pin, []):
                    _launch(netlist, events, cell["type"], bit, arcs)
        else:
            gates.append((cell, known))
    return gates


def _begin(events: dict[Point, _Event], bits: list[Bit], kind: str) -> None:
    for bit in bits:
        for edge in EDGES:
            events[bit, edge] = _Event(0.0, 0.0, None, kind)


def _launch(netlist: _Netlist, events: dict[Point, _Event], kind: str, bit: Bit, arcs: list[Arc]) -> None:
    for arc in arcs:
        if arc.clocked:
            for edge, delay in arc.delay.items():
                load = netlist.loads[bit]
                events[bit, edge] = _Event(delay(0.0, load), arc.slew[edge](0.0, load), None, kind)


def _in_order(
    netlist: _Netlist, gates: list[tuple[dict[str, Any], StandardCell]]
) -> Iterator[tuple[dict[str, Any], StandardCell]]:
    """The gates, each after those that drive it."""
    driven = {bit for cell, known in gates for pin in known.arcs for bit in cell["connections"].get(pin, [])}
    readers: dict[Bit, list[int]] = defaultdict(list)
    waiting = []
    for index, (cell, known) in enumerate(gates):
        inputs = [bit for pin in known.loads for bit in cell["connections"].get(pin, []) if bit in driven]
        waiting.append(len(inputs))
        for bit in inputs:
            readers[bit].append(index)
    ready = [index for index, count in enumerate(waiting) if count == 0]
    done = 0
    while ready:
        cell, known = gates[ready.pop()]
        done += 1
        yield cell, known
        for pin in known.arcs:
            for bit in cell["connections"].get(pin, []):
                for index in readers[bit]:
                    waiting[index] -= 1
                    if waiting[index] == 0:
                        ready.append(index)
    if done < len(gates):
        raise ValueError("the gates form a loop")


def _drive(
    netlist: _Netlist, events: dict[Point, _Event], cell: dict[str, Any], bit: Bit, arcs: list[Arc]
) -> None:
    """The events that a gate causes on a net."""
    load = netlist.loads[bit]
    for arc in arcs:
        for source in cell["connections"].get(arc.source, []):
            for edge, delay in arc.delay.items():
                for cause in _causes(arc.sense, edge):
                    before = events.get((source, cause))
                    if before is None:
                        continue
                    time = before.time + delay(before.slew, load)
                    known = events.get((bit, edge))
                    if known is None or time > known.time:
                        slew = arc.slew[edge](before.slew, load)
                        events[bit, edge] = _Event(time, slew, (source, cause), cell["type"])


def _causes(sense: str, edge: str) -> tuple[str, ...]:
    """Edges of the input that can cause an edge of the output."""
    if sense == "positive_unate":
        return (edge,)
    return (OTHER[edge],) if sense == "negative_unate" else EDGES


def _ends(netlist: _Netlist, events: dict[Point, _Event]) -> Iterator[tuple[float, Point, str]]:
    """(ns with setup, where, name of the end) of all that must be there at the next clock edge."""
    for name, port in netlist.module["ports"].items():
        if port["direction"] == "output":
            yield from _at(events, port["bits"], f"port {name}", None)
    for name, cell in netlist.cells():
        known = netlist.library.cells.get(cell["type"])
        if known is None:
            for pin, direction in cell["port_directions"].items():
                if direction == "input" and not pin.endswith("CLK"):
                    yield from _at(events, cell["connections"][pin], f"memory {name}", None)
        elif known.sequential:
            outputs = [bit for pin in known.arcs for bit in cell["connections"].get(pin, [])]
            label = netlist.name(outputs[0]) if outputs else name
            for pin, setup in known.setup.items():
                yield from _at(events, cell["connections"].get(pin, []), label, setup)


def _at(
    events: dict[Point, _Event], bits: list[Bit], label: str, setup: dict[str, Any] | None
) -> Iterator[tuple[float, Point, str]]:
    for bit in bits:
        for edge in EDGES:
            event = events.get((bit, edge))
            if event is not None:
                needed = setup[edge](0.0, event.slew) if setup and edge in setup else 0.0
                yield event.time + max(needed, 0.0), (bit, edge), label


def _trace(netlist: _Netlist, events: dict[Point, _Event], ns: float, point: Point, end: str) -> Path:
    steps = []
    at: Point | None = point
    while at is not None:
        event = events[at]
        steps.append((event.cell, netlist.name(at[0]), event.time))
        at = event.cause
    steps.reverse()
    assert math.isfinite(ns)
    return Path(ns, steps[0][1], end, steps)
