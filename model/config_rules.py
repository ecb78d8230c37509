"""What a field of the configuration means and what it may hold.

Each field of a configuration's dataclass carries a `FieldSpec` in its metadata. Everything that speaks of the
fields derives from it: the check when an object is made, the class's docstring, the comments of a TOML file
and the reference in the documentation.
"""

import dataclasses
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeGuard, TypeVar, cast

AnyClass = TypeVar("AnyClass", bound=type)
Whole = TypeVar("Whole")

_SPEC = "spec"


def is_whole(value: object) -> TypeGuard[int]:
    """True for an int that is no bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_power_of_two(value: object) -> TypeGuard[int]:
    """True for 1, 2, 4, ..."""
    return is_whole(value) and value > 0 and value & (value - 1) == 0


@dataclass(frozen=True)
class Multiple:
    """A bound that follows from another field of the same section, declared before it.

    Attributes:
        factor: times the field.
        name: the field.
    """

    factor: int
    name: str

    def __str__(self) -> str:
        return self.name if self.factor == 1 else f"{self.factor} x {self.name}"


class Rule(ABC):
    """What a field's value must be."""

    @abstractmethod
    def holds(self, value: object, section: object) -> bool:
        """Whether a value keeps it; the section's fields before this one are known to be good."""

    @abstractmethod
    def describe(self, section: object | None = None) -> str:
        """What fits behind "must be"; bounds in numbers where the section is given."""


@dataclass(frozen=True)
class InRange(Rule):
    """A whole number from `low` to `high`."""

    low: int
    high: int

    def holds(self, value: object, section: object) -> bool:
        """See `Rule`."""
        return is_whole(value) and self.low <= value <= self.high

    def describe(self, section: object | None = None) -> str:
        """See `Rule`."""
        return f"a whole number from {self.low} to {self.high}"


@dataclass(frozen=True)
class PowerOfTwo(Rule):
    """A power of two from `low` to `high`."""

    low: int | Multiple
    high: int

    def holds(self, value: object, section: object) -> bool:
        """See `Rule`."""
        return is_power_of_two(value) and self._low(section) <= value <= self.high

    def describe(self, section: object | None = None) -> str:
        """See `Rule`."""
        low = self.low if section is None else self._low(section)
        return f"a power of two from {low} to {self.high}"

    def _low(self, section: object) -> int:
        if isinstance(self.low, int):
            return self.low
        return self.low.factor * int(getattr(section, self.low.name))


@dataclass(frozen=True)
class OneOf(Rule):
    """One of some words."""

    words: tuple[str, ...]

    def holds(self, value: object, section: object) -> bool:
        """See `Rule`."""
        return isinstance(value, str) and value in self.words

    def describe(self, section: object | None = None) -> str:
        """See `Rule`."""
        return " or ".join(self.words)


@dataclass(frozen=True)
class FileName(Rule):
    """A word that may be part of a file's name on every system."""

    longest: int

    def holds(self, value: object, section: object) -> bool:
        """See `Rule`."""
        pattern = rf"[A-Za-z0-9][A-Za-z0-9_.+-]{{0,{self.longest - 1}}}"
        return isinstance(value, str) and re.fullmatch(pattern, value) is not None

    def describe(self, section: object | None = None) -> str:
        """See `Rule`."""
        return f"1 to {self.longest} letters (A-Z, a-z), digits or any of _.+-, the first a letter or digit"


@dataclass(frozen=True)
class FieldSpec:
    """What is to be known of a field.

    Attributes:
        meaning: half a sentence.
        rule: for its value.
    """

    meaning: str
    rule: Rule

    def __str__(self) -> str:
        return f"{self.meaning}; {self.rule.describe()}."


def spec(meaning: str, rule: Rule) -> dict[str, FieldSpec]:
    """The metadata of a field."""
    return {_SPEC: FieldSpec(meaning, rule)}


def spec_of(field: "dataclasses.Field[Any]") -> FieldSpec | None:
    """The spec of a field, None of one that holds a section."""
    return field.metadata.get(_SPEC)


@dataclass(frozen=True)
class Relation(Generic[Whole]):
    """A rule about fields of several sections.

    Attributes:
        text: what must hold, naming the fields.
        fields: those it depends on, as in `hcu.lanes`.
        holds: whether it does.
    """

    text: str
    fields: tuple[str, ...]
    holds: Callable[[Whole], bool]

    def check(self, whole: Whole) -> None:
        """Sees that it holds.

        Raises:
            ValueError: it does not.
        """
        if not self.holds(whole):
            values = [f"{path} is {_value(whole, path)}" for path in self.fields]
            raise ValueError(f"{self.text}, but {', '.join(values[:-1])} and {values[-1]}")


def _value(whole: object, path: str) -> object:
    for name in path.split("."):
        whole = getattr(whole, name)
    return whole


@dataclass(frozen=True)
class Section:
    """A dataclass whose fields have specs, or are sections, and are checked when it is made."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            found, value = spec_of(field), getattr(self, field.name)
            if found is not None and not found.rule.holds(value, self):
                path = f"{section_name(type(self))}.{field.name}".removeprefix(".")
                raise ValueError(f"{path} must be {found.rule.describe(self)}, not {value!r}")


def section_name(section: type) -> str:
    """The name of a section in a configuration: `hcu` of `HcuConfig`, empty of the whole."""
    return section.__name__.removesuffix("Config").lower()


def summary(section: type) -> str:
    """What a section is: the first line of its docstring."""
    return (section.__doc__ or "").partition("\n")[0]


def sections(whole: type[Section]) -> "dict[str, type[Section]]":
    """The sections of a configuration by their fields' names."""
    return {f.name: _class_of(f) for f in dataclasses.fields(whole) if spec_of(f) is None}


def _class_of(field: "dataclasses.Field[Any]") -> type[Section]:
    """The class of a field that holds a section, made by default."""
    return cast("type[Section]", field.default_factory)


def documented(section: AnyClass) -> AnyClass:
    """Adds what the fields' specs say to a dataclass's docstring."""
    lines = [
        f"    {field.name}: {spec_of(field) or summary(_class_of(field))}"
        for field in dataclasses.fields(section)
    ]
    section.__doc__ = "\n".join([(section.__doc__ or "").strip(), "", "Attributes:", *lines])
    return section
