"""Standard cells: area, pin capacitances and delay tables of a Liberty file."""

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from vrex.errors import UserError

TOKEN = re.compile(
    r'/\*.*?\*/|//[^\n]*|\\\r?\n|\s+|("(?:[^"\\]|\\.)*")|([{}();:,])|([^\s{}();:,"]+)', re.DOTALL
)
NANOSECONDS = {"ps": 1e-3, "ns": 1.0, "us": 1e3}
EDGES = ("rise", "fall")
SEPARATORS = str.maketrans(",\\", "  ")
"""What may stand between the numbers of a list: lines in it are continued with a backslash."""

SLEWS = {"input_net_transition", "input_transition_time", "related_pin_transition"}
LOADS = {"total_output_net_capacitance", "constrained_pin_transition"}
"""Variables of a table's first and second axis here, whatever the order in the file."""


class LibertyError(Exception):
    """The text is no Liberty file, or one without what synthesis needs; the message says what is wrong."""


@dataclass
class Group:
    """`name (args) { attributes; groups }`."""

    name: str
    args: list[str]
    attributes: dict[str, list[str]] = field(default_factory=dict)
    groups: list["Group"] = field(default_factory=list)

    def all(self, name: str) -> Iterator["Group"]:
        """Its groups of that name."""
        return (group for group in self.groups if group.name == name)

    def get(self, name: str, default: str = "") -> str:
        """An attribute's value."""
        return self.attributes.get(name, [default])[0]

    def number(self, name: str, default: float = 0.0) -> float:
        """An attribute's value as a number.

        Raises:
            LibertyError: it is none.
        """
        return _number(self.get(name, str(default)))


@dataclass(frozen=True)
class DelayTable:
    """Values over the slope at the input and the load at the output, bilinear between and beyond them.

    Attributes:
        slews: ns, ascending; of the clock in a table of constraints.
        loads: pF, ascending; slopes (ns) of the data in a table of constraints.
        values: ns, [slew][load].
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
    delay: dict[str, DelayTable]
    slew: dict[str, DelayTable]


@dataclass(frozen=True)
class StandardCell:
    """One standard cell.

    Attributes:
        area: in the library's units.
        sequential: a register or latch.
        loads: capacitance of the input pins, pF.
        arcs: of the output pins.
        setup: of the data pins: the table of the data's rising and falling edge.
    """

    area: float
    sequential: bool
    loads: dict[str, float]
    arcs: dict[str, list[Arc]]
    setup: dict[str, dict[str, DelayTable]]


@dataclass(frozen=True)
class Library:
    """The cells of one Liberty file, by name."""

    name: str
    cells: dict[str, StandardCell]


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
    library = _Reader(text).library()
    unit = re.fullmatch(r"1\s*(ps|ns|us)", library.get("time_unit", "1ns"))
    capacitance = library.attributes.get("capacitive_load_unit", ["1", "pf"])
    if unit is None or len(capacitance) != 2 or capacitance[1].lower() not in ("ff", "pf"):
        raise LibertyError("its units of time and capacitance are not known ones")
    picofarads = _number(capacitance[0]) * (1e-3 if capacitance[1].lower() == "ff" else 1.0)
    tables = _Tables(library, NANOSECONDS[unit[1]], picofarads)
    cells = {cell.args[0]: _cell(cell, tables, picofarads) for cell in library.all("cell") if cell.args}
    if not any(cell.sequential and cell.setup for cell in cells.values()):
        raise LibertyError("it has no flip-flop")
    if not any(cell.arcs and not cell.sequential for cell in cells.values()):
        raise LibertyError("it has no gate with delays")
    return Library(library.args[0] if library.args else "", cells)


class _Reader:
    """Recursive descent over the tokens of a Liberty file."""

    def __init__(self, text: str) -> None:
        self.tokens = self._tokens(text)
        self.at = 0

    @staticmethod
    def _tokens(text: str) -> list[str]:
        tokens, at = [], 0
        while at < len(text):
            found = TOKEN.match(text, at)
            if found is None:
                line = text.count("\n", 0, at) + 1
                raise LibertyError(f"line {line} is not in its syntax")
            at = found.end()
            if token := found[1] or found[2] or found[3]:
                tokens.append(token)
        return tokens

    def library(self) -> Group:
        """The file's one group."""
        if self._next() != "library":
            raise LibertyError("it does not begin with a library")
        return self._group("library", self._args())

    def _next(self) -> str:
        if self.at == len(self.tokens):
            raise LibertyError("it ends too early")
        self.at += 1
        return self.tokens[self.at - 1]

    def _peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def _expect(self, token: str) -> None:
        found = self._next()
        if found != token:
            raise LibertyError(f"there is {found!r} where {token!r} should be")

    def _args(self) -> list[str]:
        self._expect("(")
        args = []
        while (token := self._next()) != ")":
            if token != ",":
                args.append(token.strip('"'))
        return args

    def _group(self, name: str, args: list[str]) -> Group:
        group = Group(name, args)
        self._expect("{")
        while (token := self._next()) != "}":
            if token != ";":
                self._statement(group, token)
        return group

    def _statement(self, group: Group, name: str) -> None:
        if self._peek() == ":":
            self._next()
            words = []
            while self._peek() not in (";", "}"):
                words.append(self._next().strip('"'))
            group.attributes[name] = [" ".join(words)]
            return
        args = self._args()
        if self._peek() == "{":
            group.groups.append(self._group(name, args))
        else:
            group.attributes[name] = args


class _Tables:
    """Makes tables of a library's groups, whose axes may stand in a template."""

    def __init__(self, library: Group, nanoseconds: float, picofarads: float) -> None:
        self.templates = {group.args[0]: group for group in library.all("lu_table_template") if group.args}
        self.nanoseconds, self.picofarads = nanoseconds, picofarads

    def of(self, group: Group) -> DelayTable:
        """The table of one group.

        Raises:
            LibertyError: its shape is wrong, or it has axes that are not known here.
        """
        template = self.templates.get(group.args[0] if group.args else "", Group("", []))
        variables = [template.get("variable_1"), template.get("variable_2")]
        axes = [self._axis(group, template, i + 1, variable) for i, variable in enumerate(variables)]
        flat = [value * self.nanoseconds for value in _numbers(group.attributes.get("values", []))]
        columns = len(axes[1])
        if len(flat) != len(axes[0]) * columns:
            raise LibertyError(f"a table of {group.name} does not have the size of its axes")
        rows = [tuple(flat[i : i + columns]) for i in range(0, len(flat), columns)]
        if variables[0] in LOADS or variables[1] in SLEWS:
            return DelayTable(axes[1], axes[0], tuple(zip(*rows, strict=True)))
        return DelayTable(axes[0], axes[1], tuple(rows))

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
    return [_number(word) for word in " ".join(words).translate(SEPARATORS).split()]


def _cell(group: Group, tables: _Tables, picofarads: float) -> StandardCell:
    loads: dict[str, float] = {}
    arcs: dict[str, list[Arc]] = {}
    setup: dict[str, dict[str, DelayTable]] = {}
    for pin in group.all("pin"):
        name = pin.args[0]
        if pin.get("direction") == "output":
            arcs[name] = [arc for timing in pin.all("timing") for arc in _arcs(timing, tables)]
        else:
            loads[name] = pin.number("capacitance") * picofarads
            if constraint := _setup(pin, tables):
                setup[name] = constraint
    sequential = any(part.name in ("ff", "latch", "statetable") for part in group.groups)
    return StandardCell(group.number("area"), sequential, loads, arcs, setup)


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


def _setup(pin: Group, tables: _Tables) -> dict[str, DelayTable]:
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


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError as error:
        raise LibertyError(f"{word!r} is no number") from error
