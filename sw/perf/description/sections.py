"""TOML tables as frozen dataclasses, strictly: every field is there, known, of its type and in its range."""

import dataclasses
import math
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from vrex.errors import UserError
from vrex.text import from_toml

DATA = Path(__file__).parent.parent / "data"
"""The files that come with the package."""

_RULE = "rule"

AnySection = TypeVar("AnySection")


@dataclass(frozen=True)
class Rule:
    """What a field may be.

    Attributes:
        kind: float, int, str or bool.
        above: the least value that is not allowed any more; None where there is none.
        most: the largest value.
        choices: all words that are allowed; empty: any.
    """

    kind: type
    above: float | None = None
    most: float = math.inf
    choices: tuple[str, ...] = ()

    def complaint(self, value: object) -> str | None:
        """What is wrong with a value, as the end of a sentence; None: nothing."""
        if self.kind is bool:
            return None if isinstance(value, bool) else "is not true or false"
        if self.kind is str:
            if not isinstance(value, str) or not value:
                return "is not a word in quotes"
            if self.choices and value not in self.choices:
                return f"is not one of {', '.join(self.choices)}"
            return None
        return self._number(value)

    def _number(self, value: object) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return "is not a number"
        if self.kind is int and not isinstance(value, int):
            return "is not a whole number"
        if not math.isfinite(value):
            return "is not finite"
        if self.above is not None and value <= self.above:
            return "is negative" if value < 0 else f"is not above {self.above:g}"
        return f"is above {self.most:g}" if value > self.most else None


def number(*, zero: bool = False, most: float = math.inf) -> Any:
    """A field that holds a number above 0, or with `zero` of at least 0."""
    return field(metadata={_RULE: Rule(float, above=-1e-300 if zero else 0, most=most)})


def whole(*, zero: bool = False, most: float = math.inf) -> Any:
    """A field that holds a whole number of at least 1, or with `zero` of at least 0."""
    return field(metadata={_RULE: Rule(int, above=-1 if zero else 0, most=most)})


def word(*choices: str) -> Any:
    """A field that holds one of these words, or any where none is given."""
    return field(metadata={_RULE: Rule(str, choices=choices)})


def flag() -> Any:
    """A field that holds true or false."""
    return field(metadata={_RULE: Rule(bool)})


def rule_of(section: type, name: str) -> Rule:
    """The rule of a field, which may lie in a section within: `link.lanes`.

    Raises:
        KeyError: there is no such field.
    """
    first, _, rest = name.partition(".")
    if rest:
        return rule_of(get_type_hints(section)[first], rest)
    fields = {entry.name: entry for entry in dataclasses.fields(section)}
    rule: Rule = fields[first].metadata[_RULE]
    return rule


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a file, not to be changed; one that comes with the package is read once.

    Raises:
        UserError: it can't be read, or is no TOML.
    """
    return _kept(path) if path.is_relative_to(DATA) else _parsed(path)


@cache
def _kept(path: Path) -> dict[str, Any]:
    return _parsed(path)


def _parsed(path: Path) -> dict[str, Any]:
    try:
        return from_toml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; give a file that exists") from error
    except ValueError as error:
        raise UserError(f"{path} is no TOML file: {error}; correct it") from error


def build(section: type[AnySection], values: object, path: Path, place: str = "") -> AnySection:
    """A section out of a TOML table.

    Args:
        section: a dataclass whose fields were made with the functions above, or hold further sections.
        values: the table.
        path: of the file, for the message.
        place: name of the table within the file, with a point behind it.

    Raises:
        UserError: a field is missing, unknown, of another type or out of range; it names file and field.
    """
    if not isinstance(values, dict):
        raise UserError(
            f"{path}: {place.rstrip('.') or 'the file'} is not a table; write its fields under a heading"
        )
    types = get_type_hints(section)
    fields = {
        entry.name: entry.metadata.get(_RULE, types[entry.name])
        for entry in dataclasses.fields(section)  # type: ignore[arg-type]
    }
    for name in values:
        if name not in fields:
            raise UserError(f"{path}: field {place}{name} is unknown; known are {', '.join(fields)}")
    found = {}
    for name, rule in fields.items():
        if name not in values:
            raise UserError(f"{path}: field {place}{name} is missing; add it")
        if isinstance(rule, Rule):
            if wrong := rule.complaint(values[name]):
                raise UserError(f"{path}: field {place}{name} = {values[name]!r} {wrong}; correct it")
            found[name] = rule.kind(values[name])
        else:
            found[name] = build(rule, values[name], path, f"{place}{name}.")
    return section(**found)


def named(folder: str) -> list[str]:
    """Names of the files of a folder that comes with the package."""
    return sorted(path.stem for path in (DATA / folder).glob("*.toml"))


def find(folder: str, chosen: str, what: str) -> Path:
    """The file that a name or a path means.

    Args:
        folder: of the files that come with the package.
        chosen: the name of one of them, or a path that ends in `.toml`.
        what: what they describe, for the message.

    Raises:
        UserError: there is none of that name.
    """
    if chosen.endswith(".toml"):
        return Path(chosen)
    if chosen not in named(folder):
        raise UserError(
            f"{what} {chosen!r} is unknown; known are {', '.join(named(folder))}, "
            "or give a file that ends in .toml"
        )
    return DATA / folder / f"{chosen}.toml"


def load_entry(section: type[AnySection], file: str, chosen: str, what: str) -> AnySection:
    """A section by its name among the tables of a file of the package, or from a file of the user's.

    Args:
        section: a dataclass, see `build`.
        file: name in the package's data, a table for each entry.
        chosen: name of a table, or a path that ends in `.toml`, whose top level holds the fields.
        what: is described, for the message.

    Raises:
        UserError: there is none of that name, or a field is wrong.
    """
    if chosen.endswith(".toml"):
        return build(section, read_toml(Path(chosen)), Path(chosen))
    path = DATA / file
    entries = read_toml(path)
    if chosen not in entries:
        raise UserError(
            f"{what} {chosen!r} is unknown; known are {', '.join(entries)}, or give a file that ends in .toml"
        )
    return build(section, entries[chosen], path, f"{chosen}.")
