"""What a netlist of standard cells takes: energy a cycle, from counted toggles and the library's tables.

- **Nets**: each change takes half of C V^2; C is the capacitance of the pins that the net drives and of
  `WIRE_PF` for the wire to each.
- **Cells**: each change of a pin takes what the library's tables say at the slope of the cause and the load
  of the net, the mean of rising and falling edge and of the inputs that can be the cause; a register's clock
  pin changes twice a cycle.
- **Clock pins**: what charges the pins of the registers. The tree that drives them, its buffers and wires, is
  not in it.
- **Memories**: an estimate a bit that an access reads or writes, `memory_bit_pj`.
- **Leakage**: the library's figure of each cell.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vrex.errors import UserError
from vrex.hw.tools.gates.macros import number
from vrex.hw.tools.gates.toggles import Activity
from vrex.hw.tools.gates.verilog import NetlistModule
from vrex.hw.tools.synth.liberty import Energy, Library, StandardCell
from vrex.hw.tools.synth.memories import MEMORY
from vrex.hw.tools.synth.timing import slopes

WIRE_PF = 0.010
"""Of the wire to each pin that a net drives, an assumption: about 50 um in 180 nm. Nothing here is placed."""

CLOCK_SLOPE_NS = 0.1
"""Of the clock at the registers' pins, an assumption."""

MEMORY_FIXED_PF, MEMORY_WORD_PF = 0.060, 0.002
"""Capacitance that an access charges for each bit, an assumption: sense amplifier and driver, and for each
word the part of a bitline that its cell hangs on, in 180 nm."""

PARTS = ("pins", "wires", "internal", "clock_pins", "memories")
"""Of an energy: charge of pins, of wires, inside the cells, of the registers' clock pins, memories."""


@dataclass
class Energies:
    """Energies by `PARTS`, pJ a cycle, and the number of cells."""

    number: int = 0
    parts: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))

    def add(self, parts: Mapping[str, float], number: int = 0) -> None:
        """Adds what some cells take."""
        self.number += number
        for part, value in parts.items():
            self.parts[part] += value

    @property
    def total(self) -> float:
        """All of it."""
        return sum(self.parts.values())

    def as_json(self) -> dict[str, Any]:
        """Number of cells, the parts and `pj`, their sum."""
        return {"number": self.number, **{part: self.parts[part] for part in PARTS}, "pj": self.total}


@dataclass
class Power:
    """What a netlist takes.

    Attributes:
        by_kind: of registers, gates, buffers, memories and ports.
        by_cell: of each type of cell.
        by_unit: of each instance below the top module, by its path's first name; "" of the top's own.
        leakage: W.
        toggles: changes of a net in a cycle, the mean over all nets.
    """

    by_kind: dict[str, Energies]
    by_cell: dict[str, Energies]
    by_unit: dict[str, Energies]
    leakage: float
    toggles: float

    @property
    def total(self) -> Energies:
        """Of the whole netlist."""
        whole = Energies()
        for energies in self.by_kind.values():
            whole.add(energies.parts, energies.number)
        return whole


def of_netlist(module: NetlistModule, library: Library, activity: Activity) -> Power:
    """What a netlist took in a simulation.

    Args:
        module: flat, of `vrex.hw.tools.gates.netlists.standard_cells`.
        library: its cells.
        activity: of all its nets but the clock.

    Raises:
        UserError: as `check`.
    """
    check(library)
    return _Meter(module, library, activity).power()


def check(library: Library) -> None:
    """Sees that a library says what power takes.

    Raises:
        UserError: it says nothing of voltage or of the energy inside cells.
    """
    if not library.volts or not any(cell.energies for cell in library.cells.values()):
        raise UserError(
            f"library {library.name} has no voltage (nom_voltage) or no internal_power; name another library"
        )


class _Meter:
    """Adds up the energies of one netlist."""

    def __init__(self, module: NetlistModule, library: Library, activity: Activity) -> None:
        self.module, self.library, self.activity = module, library, activity
        self.clock = set(module["ports"]["clk"]["bits"])
        self.slopes = slopes(module, library, WIRE_PF)
        self.half = library.volts**2 / 2
        self.pins: dict[Any, float] = defaultdict(float)
        self.fanout: Counter[Any] = Counter()
        for cell in module["cells"].values():
            known = library.cells.get(cell["type"])
            for pin, load in known.loads.items() if known else ():
                for bit in cell["connections"].get(pin, []):
                    self.pins[bit] += load
                    self.fanout[bit] += 1
        self.kinds: dict[str, Energies] = defaultdict(Energies)
        self.types: dict[str, Energies] = defaultdict(Energies)
        self.units: dict[str, Energies] = defaultdict(Energies)
        self.leakage = 0.0

    def power(self) -> Power:
        """The sums over all cells and ports."""
        for name, cell in self.module["cells"].items():
            known = self.library.cells.get(cell["type"])
            if known is not None:
                self._cell(name, cell, known)
            elif cell["type"] == MEMORY:
                self._memory(name, cell)
        for port in self.module["ports"].values():
            if port["direction"] == "input":
                for bit in port["bits"]:
                    self._add("ports", "ports", "", self._driven(bit))
        cycles = max(self.activity.cycles, 1)
        nets = max(len(self.activity.toggles), 1)
        for table in (self.kinds, self.types, self.units):
            for energies in table.values():
                energies.parts = {part: value / cycles for part, value in energies.parts.items()}
        return Power(
            dict(sorted(self.kinds.items())),
            dict(sorted(self.types.items())),
            dict(sorted(self.units.items())),
            self.leakage,
            sum(self.activity.toggles.values()) / nets / cycles,
        )

    def _add(self, kind: str, cell: str, unit: str, parts: Mapping[str, float], number: int = 0) -> None:
        for energies in (self.kinds[kind], self.types[cell], self.units[unit]):
            energies.add(parts, number)

    def _driven(self, bit: int | str) -> dict[str, float]:
        """What charging a net takes over the whole simulation, pJ."""
        changes = self.activity.toggles.get(bit, 0) if isinstance(bit, int) else 0
        wires = self.fanout[bit] * WIRE_PF
        return {"pins": changes * self.half * self.pins[bit], "wires": changes * self.half * wires}

    def _cell(self, name: str, cell: dict[str, Any], known: StandardCell) -> None:
        pins = cell["connections"]
        total = Energies(1)
        parts = total.parts
        for pin in known.arcs:
            for bit in pins.get(pin, []):
                total.add(self._driven(bit))
                parts["internal"] += self._changes(bit) * self._each(known, pin, pins, bit)
        for pin in known.loads:
            for bit in pins.get(pin, []):
                parts["internal"] += self._changes(bit) * self._each(known, pin, pins, None)
                if bit in self.clock:
                    parts["clock_pins"] += self._changes(bit) * self.half * known.loads[pin]
        kind = "registers" if known.sequential else "buffers" if _repeats(known) else "gates"
        self._add(kind, cell["type"], unit_of(name), parts, 1)
        self.leakage += known.leakage

    def _changes(self, bit: int | str) -> int:
        """How often a net changed; the clock does twice a cycle."""
        if bit in self.clock:
            return 2 * self.activity.cycles
        return self.activity.toggles.get(bit, 0) if isinstance(bit, int) else 0

    def _each(self, known: StandardCell, pin: str, pins: dict[str, list[Any]], out: Any) -> float:
        """The pJ that one change of a pin takes inside the cell.

        Args:
            known: the cell.
            pin: an output, or an input whose own changes take energy.
            pins: the nets of all pins.
            out: net of the output; None of an input.
        """
        load = 0.0 if out is None else self.pins[out] + self.fanout[out] * WIRE_PF
        values = [
            table(self._slope(pins.get(energy.source or pin, [])), load)
            for energy in _causes(known.energies.get(pin, []), pins)
            for table in energy.edges.values()
        ]
        return sum(values) / len(values) if values else 0.0

    def _slope(self, bits: list[Any]) -> float:
        if any(bit in self.clock for bit in bits):
            return CLOCK_SLOPE_NS
        return max((self.slopes.get(bit, 0.0) for bit in bits), default=0.0)

    def _memory(self, name: str, cell: dict[str, Any]) -> None:
        """Reads by their enable, writes bit by bit by theirs."""
        has, pins = cell["parameters"], cell["connections"]
        reads = sum(self._high(bit) for bit in pins["RD_EN"]) * number(has["WIDTH"])
        written = sum(self._high(bit) for bit in pins["WR_EN"])
        total = Energies(1)
        total.parts["memories"] = (reads + written) * memory_bit_pj(number(has["SIZE"]), self.library.volts)
        for bit in pins["RD_DATA"]:
            total.add(self._driven(bit))
        self._add("memories", "memories", unit_of(name), total.parts, 1)

    def _high(self, bit: int | str) -> int:
        """Cycles in which an enable was high."""
        if isinstance(bit, int):
            return self.activity.high[bit]
        return self.activity.cycles if bit == "1" else 0


def _causes(energies: list[Energy], pins: dict[str, list[Any]]) -> list[Energy]:
    """The energies whose cause is a net: an input that is tied changes nothing."""
    real = [
        e for e in energies if not e.source or any(isinstance(bit, int) for bit in pins.get(e.source, []))
    ]
    return real or energies


def _repeats(known: StandardCell) -> bool:
    """Whether a cell is a buffer."""
    arcs = [arc for found in known.arcs.values() for arc in found]
    return len(known.loads) == 1 and all(arc.sense == "positive_unate" for arc in arcs)


def memory_bit_pj(words: int, volts: float) -> float:
    """The pJ that an access takes for each bit of a word."""
    return (MEMORY_FIXED_PF + MEMORY_WORD_PF * words) * volts**2


def unit_of(name: str) -> str:
    """First instance on the way to a cell in a flat netlist, numbered ones together; "" in the top module."""
    if name.startswith("$flatten"):
        places = re.findall(r"\\([^.\\]+)\.", name)
    else:
        places = [] if name.startswith("$") else name.split(".")[:-1]
    return re.sub(r"_\d+$", "", places[0]) if places else ""
