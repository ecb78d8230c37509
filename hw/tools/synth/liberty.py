"""Standard cells of a Liberty file: what they compute, area, pin capacitances, delays and energies."""

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from vrex.errors import UserError
from vrex.hw.tools.synth.liberty_syntax import Group, LibertyError, number, read

NANOSECONDS = {"ps": 1e-3, "ns": 1.0, "us": 1e3}
VOLTS = {"mV": 1e-3, "V": 1.0}
WATTS = {"pW": 1e-12, "nW": 1e-9, "uW": 1e-6, "mW": 1e-3}
EDGES = ("rise", "fall")
STATES = ("ff", "latch")
"""Groups of cells that keep something."""

SEPARATORS = str.maketrans(",\\", "  ")
"""What may stand between the numbers of a list: lines in it are continued with a backslash."""

SLEWS = {"input_net_transition", "input_transition_time", "related_pin_transition"}
LOADS = {"total_output_net_capacitance", "constrained_pin_transition"}
"""Variables of a table's first and second axis here, whatever the order in the file."""


@dataclass(frozen=True)
class Table:
    """Values over the slope at the input and the load at the output, bilinear between and beyond them.

    Attributes:
        slews: ns, ascending; of the clock in a table of constraints.
        loads: pF, ascending; slopes (ns) of the data in a table of constraints.
        values: ns, or pJ in a table of energies, [slew][load].
    """

    slews: tuple[float, ...]
    loads: tuple[float, ...]
    values: tuple[tuple[float, ...], ...]

    def __call__(self, slew: float, load: float) -> float:
        """The value at a point."""
        i, s = _place(self.slews, slew)
        j, t = _place(self.loads, load)
        low = self._along(i, j, t)
        return low if s == 0 else low + s * (self._along(i + 1, j, t) - low)

    def _along(self, i: int, j: int, t: float) -> float:
        row = self.values[i]
        return row[j] if t == 0 else row[j] + t * (row[j + 1] - row[j])


@dataclass(frozen=True)
class Arc:
    """From an input (or the clock) to an output.

    Attributes:
        source: the input pin.
        sense: "positive_unate", "negative_unate" or "non_unate".
        clocked: the input is the clock of a register.
        delay, slew: of the output's rising and falling edge.
    """

    source: str
    sense: str
    clocked: bool
    delay: dict[str, Table]
    slew: dict[str, Table]


@dataclass(frozen=True)
class State:
    """What a register or latch keeps.

    Attributes:
        kind: "ff" or "latch".
        names: of what it keeps and of its complement, as the functions of its pins call them.
        rules: the group's attributes, such as `next_state` and `clocked_on`.
    """

    kind: str
    names: tuple[str, ...]
    rules: dict[str, str]


@dataclass(frozen=True)
class Energy:
    """What a cell takes inside when a pin changes, without what charges the net.

    Attributes:
        source: the input whose edge is the cause; empty for an input's own edges.
        edges: pJ of the pin's rising and falling edge.
    """

    source: str
    edges: dict[str, Table]


@dataclass(frozen=True)
class StandardCell:
    """One standard cell.

    Attributes:
        area: in the library's units.
        sequential: a register or latch.
        loads: capacitance of the input pins, pF.
        arcs: of the output pins.
        setup: of the data pins: the table of the data's rising and falling edge.
        functions: of the output pins, in Liberty's syntax.
        three_state: of the outputs that can let go: when they do.
        state: of a register or latch; None if it keeps nothing, or what it keeps has no function.
        leakage: W.
        energies: of the pins that have any.
    """

    area: float
    sequential: bool
    loads: dict[str, float]
    arcs: dict[str, list[Arc]]
    setup: dict[str, dict[str, Table]]
    functions: dict[str, str]
    three_state: dict[str, str]
    state: State | None
    leakage: float
    energies: dict[str, list[Energy]]


@dataclass(frozen=True)
class Library:
    """The cells of one Liberty file.

    Attributes:
        name: of the library.
        cells: by name.
        volts: of the supply; 0 if the file does not say.
    """

    name: str
    cells: dict[str, StandardCell]
    volts: float


def load(path: Path) -> Library:
    """Reads a Liberty file.

    Raises:
        UserError: it cannot be read, or it holds no table of standard cells.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; name a Liberty file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no usable Liberty file: it is not text; name another") from error
    try:
        return parse(text)
    except LibertyError as error:
        raise UserError(f"{path} is no usable Liberty file: {error}; name another") from error


def parse(text: str) -> Library:
    """The cells that a Liberty file's text describes.

    Raises:
        LibertyError: see there.
    """
    library = read(text)
    unit = re.fullmatch(r"1\s*(ps|ns|us)", library.get("time_unit", "1ns"))
    capacitance = library.attributes.get("capacitive_load_unit", ["1", "pf"])
    if unit is None or len(capacitance) != 2 or capacitance[1].lower() not in ("ff", "pf"):
        raise LibertyError("its units of time and capacitance are not known ones")
    picofarads = number(capacitance[0]) * (1e-3 if capacitance[1].lower() == "ff" else 1.0)
    tables = _Tables(library, NANOSECONDS[unit[1]], picofarads)
    watts = _unit(library, "leakage_power_unit", "1nW", WATTS)
    cells = {cell.args[0]: _cell(cell, tables, watts) for cell in library.all("cell") if cell.args}
    if not any(cell.sequential and cell.setup for cell in cells.values()):
        raise LibertyError("it has no flip-flop")
    if not any(cell.arcs and not cell.sequential for cell in cells.values()):
        raise LibertyError("it has no gate with delays")
    return Library(library.args[0] if library.args else "", cells, library.number("nom_voltage"))


def _unit(library: Group, name: str, default: str, known: dict[str, float]) -> float:
    """A unit that the library states as a number and one of the known units."""
    text = library.get(name, default)
    found = re.fullmatch(r"([\d.]+)\s*(\w+)", text)
    if found is None or found[2] not in known:
        raise LibertyError(f"its {name} {text!r} is not a known one")
    return number(found[1]) * known[found[2]]


class _Tables:
    """Makes tables of a library's groups, whose axes may stand in a template."""

    def __init__(self, library: Group, nanoseconds: float, picofarads: float) -> None:
        kinds = ("lu_table_template", "power_lut_template")
        self.templates = {group.args[0]: group for kind in kinds for group in library.all(kind) if group.args}
        self.nanoseconds, self.picofarads = nanoseconds, picofarads
        # The unit of energy follows from the others.
        self.picojoules = _unit(library, "voltage_unit", "1V", VOLTS) ** 2 * picofarads

    def energy(self, group: Group) -> Table:
        """The table of energies of one group.

        Raises:
            LibertyError: as `of`.
        """
        return self.of(group, self.picojoules)

    def of(self, group: Group, unit: float | None = None) -> Table:
        """The table of one group.

        Args:
            group: with its values.
            unit: of the values; that of time if none is given.

        Raises:
            LibertyError: its shape is wrong, or it has axes that are not known here.
        """
        template = self.templates.get(group.args[0] if group.args else "", Group("", []))
        variables = [template.get("variable_1"), template.get("variable_2")]
        axes = [self._axis(group, template, i + 1, variable) for i, variable in enumerate(variables)]
        scale = self.nanoseconds if unit is None else unit
        flat = [value * scale for value in _numbers(group.attributes.get("values", []))]
        columns = len(axes[1])
        if len(flat) != len(axes[0]) * columns:
            raise LibertyError(f"a table of {group.name} does not have the size of its axes")
        rows = [tuple(flat[i : i + columns]) for i in range(0, len(flat), columns)]
        if variables[0] in LOADS or variables[1] in SLEWS:
            return Table(axes[1], axes[0], tuple(zip(*rows, strict=True)))
        return Table(axes[0], axes[1], tuple(rows))

    def _axis(self, group: Group, template: Group, number: int, variable: str) -> tuple[float, ...]:
        """Points of one axis: one point if there is no such axis."""
        if not variable:
            return (0.0,)
        if variable not in SLEWS | LOADS:
            raise LibertyError(f"tables over {variable} are not known here")
        scale = self.picofarads if variable == "total_output_net_capacitance" else self.nanoseconds
        name = f"index_{number}"
        words = group.attributes.get(name) or template.attributes.get(name) or []
        points = tuple(value * scale for value in _numbers(words))
        if not points or any(low >= high for low, high in pairwise(points)):
            raise LibertyError(f"the axis {name} of a table of {group.name} does not ascend")
        return points


def _numbers(words: list[str]) -> list[float]:
    """The numbers in an attribute of quoted lists."""
    return [number(word) for word in " ".join(words).translate(SEPARATORS).split()]


def _cell(group: Group, tables: _Tables, watts: float) -> StandardCell:
    loads: dict[str, float] = {}
    arcs: dict[str, list[Arc]] = {}
    setup: dict[str, dict[str, Table]] = {}
    for pin in group.all("pin"):
        name = pin.args[0]
        if pin.get("direction") == "output":
            arcs[name] = [arc for timing in pin.all("timing") for arc in _arcs(timing, tables)]
        else:
            loads[name] = pin.number("capacitance") * tables.picofarads
            if constraint := _setup(pin, tables):
                setup[name] = constraint
    energies = {
        pin.args[0]: [energy for power in pin.all("internal_power") for energy in _energies(power, tables)]
        for pin in group.all("pin")
    }
    return StandardCell(
        group.number("area"),
        any(part.name in (*STATES, "statetable") for part in group.groups),
        loads,
        arcs,
        setup,
        functions=_attributes(group, "function"),
        three_state=_attributes(group, "three_state"),
        state=_state(group),
        leakage=group.number("cell_leakage_power") * watts,
        energies={name: found for name, found in energies.items() if found},
    )


def _attributes(group: Group, name: str) -> dict[str, str]:
    """An attribute of a cell's pins that have it."""
    return {pin.args[0]: pin.get(name) for pin in group.all("pin") if pin.get(name)}


def _state(group: Group) -> State | None:
    for part in group.groups:
        if part.name in STATES:
            rules = {name: words[0] for name, words in part.attributes.items() if words}
            return State(part.name, tuple(part.args), rules)
    return None


def _energies(power: Group, tables: _Tables) -> Iterator[Energy]:
    """The energies of one group; `power` stands for both edges."""
    found = {
        edge: tables.energy(table)
        for edge in EDGES
        for name in ("power", f"{edge}_power")
        for table in power.all(name)
    }
    if found:
        for source in power.get("related_pin").split() or [""]:
            yield Energy(source, found)


def _arcs(timing: Group, tables: _Tables) -> Iterator[Arc]:
    kind = timing.get("timing_type", "combinational")
    clocked = kind in ("rising_edge", "falling_edge")
    if not clocked and not kind.startswith("combinational"):
        return
    found = {group.name: tables.of(group) for group in timing.groups if group.name in _NAMES}
    delay = {edge: found[f"cell_{edge}"] for edge in EDGES if f"cell_{edge}" in found}
    slew = {edge: found[f"{edge}_transition"] for edge in EDGES if f"{edge}_transition" in found}
    if delay.keys() != slew.keys():
        raise LibertyError("a delay has no slope, or a slope no delay")
    for source in timing.get("related_pin").split():
        yield Arc(source, timing.get("timing_sense", "non_unate"), clocked, delay, slew)


_NAMES = {name for edge in EDGES for name in (f"cell_{edge}", f"{edge}_transition")}


def _setup(pin: Group, tables: _Tables) -> dict[str, Table]:
    found = {}
    for timing in pin.all("timing"):
        if timing.get("timing_type") in ("setup_rising", "setup_falling"):
            for edge in EDGES:
                for group in timing.all(f"{edge}_constraint"):
                    found[edge] = tables.of(group)
    return found


def _place(axis: tuple[float, ...], value: float) -> tuple[int, float]:
    """Interval of an axis for a value, and where in it the value lies: below 0 or above 1 beyond the axis."""
    if len(axis) == 1:
        return 0, 0.0
    i = min(max(bisect_right(axis, value) - 1, 0), len(axis) - 2)
    return i, (value - axis[i]) / (axis[i + 1] - axis[i])
