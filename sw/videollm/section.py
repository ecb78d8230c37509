"""JSON files of checkpoints, read key by key: what is not understood is refused by its name."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from vrex.errors import UserError
from vrex.text import from_json

LARGEST = float(np.finfo(np.float32).max)
SHOWN = 60
"""Characters of a value that a message shows."""


def is_number(value: Any) -> bool:
    """Whether a value is a number, which true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def shortened(value: Any) -> str:
    """A value for a message."""
    text = repr(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


def read_json(path: Path, give: str = "give a checkpoint folder") -> Any:
    """What a JSON file holds; NaN, infinities and keys that stand twice in an object are errors.

    Args:
        path: the file.
        give: what to do if it can't be read.

    Raises:
        UserError: it can't be read or is not valid JSON.
    """

    def finite(word: str) -> float:
        value = float(word)
        if not math.isfinite(value):
            raise ValueError(f"{word} is no number that a checkpoint can hold")
        return value

    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise ValueError(f"key {key!r} stands twice")
            found[key] = value
        return found

    try:
        text = path.read_text(encoding="utf-8")
        return from_json(text, parse_float=finite, parse_constant=finite, object_pairs_hook=distinct)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {give}") from error
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); restore the file") from error


class Section:
    """One JSON object of a configuration, whose faults are `UserError`s that name file and key."""

    def __init__(self, values: Any, path: Path, prefix: str = "") -> None:
        if not isinstance(values, dict):
            raise UserError(f"{path}: {prefix.rstrip('.') or 'the file'} is not a JSON object; fix it")
        self.values, self.path, self.prefix = values, path, prefix

    def fault(self, key: str, problem: str) -> UserError:
        """What is to be raised about a key; nothing is raised here."""
        return UserError(f"{self.path}: key {self.prefix + key} {problem}")

    def get(self, key: str, default: Any = None) -> Any:
        """A value that must be there, unless there is a default; null counts as not there."""
        value = self.values.get(key)
        value = default if value is None else value
        if value is None:
            raise self.fault(key, "is missing; the checkpoint's config needs it")
        return value

    def section(self, key: str) -> "Section":
        """An object within this one."""
        return Section(self.get(key), self.path, f"{self.prefix}{key}.")

    def size(self, key: str, default: int | None = None) -> int:
        """A whole number of at least 1."""
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.fault(key, f"is {shortened(value)}, expected a whole number of at least 1")
        return value

    def token(self, key: str) -> tuple[int, ...]:
        """One token id or several."""
        value = self.get(key)
        ids: list[Any] = value if isinstance(value, list) and value else [value]
        if any(isinstance(i, bool) or not isinstance(i, int) or i < 0 for i in ids):
            raise self.fault(key, f"is {shortened(value)}, expected a token id")
        return tuple(ids)

    def positive(self, key: str, default: float | None = None) -> float:
        """A number above 0."""
        value = self.get(key, default)
        # Arithmetic is float32, in which it may be neither 0 nor infinite.
        if not is_number(value) or not 0 < abs(value) <= LARGEST or not np.float32(value) > 0:
            raise self.fault(key, f"is {shortened(value)}, expected a number above 0 that fits float32")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise self.fault(key, f"is {shortened(value)}, expected true or false")
        return value

    def word(self, key: str, default: str | None = None) -> str:
        """A string that is not empty."""
        value = self.get(key, default)
        if not isinstance(value, str) or not value:
            raise self.fault(key, f"is {shortened(value)}, expected a word")
        return value

    def known(self, *names: Iterable[str]) -> None:
        """Every key must be one of these, or null: what is not understood may change what is computed."""
        understood = {key for group in names for key in group}
        for key, value in self.values.items():
            if key not in understood and value is not None:
                raise self.fault(
                    key,
                    f"is {shortened(value)}, which is not understood; "
                    "take it out if it changes nothing in what the model computes",
                )

    def numbers(self, key: str, count: int) -> tuple[float, ...]:
        """A list of so many numbers."""
        value = self.get(key)
        if (
            not isinstance(value, list)
            or len(value) != count
            or not all(is_number(x) and abs(x) <= LARGEST for x in value)
        ):
            raise self.fault(key, f"is {shortened(value)}, expected {count} numbers")
        return tuple(float(x) for x in value)

    def only(self, key: str, supported: Any, required: bool = False) -> None:
        """The value must be the one this implementation supports."""
        value = self.get(key, None if required else supported)
        # Python takes 0 for False and 1 for True; JSON does not.
        if value != supported or isinstance(value, bool) != isinstance(supported, bool):
            raise self.fault(key, f"is {shortened(value)}, but only {supported!r} is supported")
