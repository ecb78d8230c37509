"""Types of command line arguments: each turns a word into a value or says what is wrong with it."""

import argparse
import enum
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vrex.errors import UserError
from vrex.files import STDOUT
from vrex.model.serial import SCHEME
from vrex.sw.session.options import BACKENDS
from vrex.text import is_utf8, printable


class Role(enum.Enum):
    """What a command does with a file or folder that an option names (see `vrex.sw.cli.paths`)."""

    READ = "reads this file"
    READ_ALL = "reads files of this folder and may read any of them"
    SEARCHED = "looks for files in this folder and says itself which it reads"
    WRITTEN = "writes this file"
    FILLED = "writes files to this folder and says itself which"
    RESUMED = "reads and writes this file of a cache"


@dataclass(frozen=True)
class PathType:
    """The type of an option that names a file or folder; every such option has one.

    Attributes:
        role: what the command does with it.
        ending: of a file that is written, such as ".png"; no other is allowed (see `fits`).
        other: the option also takes words that name no file: those that start so, or "" for any that names
            nothing that is there. Its values are words instead of paths.
    """

    role: Role
    ending: str | None = None
    other: str | None = None

    def __call__(self, word: str) -> Path | str:
        """The path that a word names.

        Raises:
            ArgumentTypeError: it names none, or a folder where a file is written.
        """
        if self.other is not None:
            return word
        if not word:
            raise argparse.ArgumentTypeError("'' names nothing; give a name")
        if self.role not in (Role.WRITTEN, Role.RESUMED):
            return Path(word)
        if word.endswith("/"):
            raise argparse.ArgumentTypeError(f"{printable(word)!r} names a folder; name a file")
        if word == "-" and self.role is Role.WRITTEN:
            return STDOUT
        return Path(word)

    def fits(self, path: Path) -> bool:
        """Whether what is written is what a file's name says it is; a name without an ending says nothing."""
        if self.ending is None or not path.suffix:
            return True
        return path.suffix.lower() in (self.ending, *_MEANT.get(self.ending, ()))


_MEANT = {".html": (".htm",)}

INPUT_FILE = PathType(Role.READ)
INPUT_FOLDER = PathType(Role.READ_ALL)
SEARCHED_FOLDER = PathType(Role.SEARCHED)
INPUT_VIDEO = PathType(Role.READ, other="procstream:")
INPUT_CONFIG_OR_NAME = PathType(Role.READ, other="")
PROGRAM = PathType(Role.READ, other="")
OUTPUT_JSON = PathType(Role.WRITTEN)
OUTPUT_PNG = PathType(Role.WRITTEN, ".png")
OUTPUT_HTML = PathType(Role.WRITTEN, ".html")
OUTPUT_PARQUET = PathType(Role.WRITTEN, ".parquet")
OUTPUT_MP4 = PathType(Role.WRITTEN, ".mp4")
OUTPUT_FOLDER = PathType(Role.FILLED)
CACHE_FILE = PathType(Role.RESUMED)


def at_least(least: int) -> Callable[[str], int]:
    """The type of an int that is ``least`` or more."""

    def parse(word: str) -> int:
        try:
            value = int(word)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"{word!r} is not a whole number of at least {least}")
        return value

    return parse


def numbers(least: int) -> Callable[[str], list[int]]:
    """The type of whole numbers of at least ``least`` with commas between them; each counts once."""

    def parse(words: str) -> list[int]:
        return list(dict.fromkeys(at_least(least)(word) for word in words.split(",")))

    return parse


def positive_float(word: str) -> float:
    """The type of a finite float above 0."""
    value = _number(word)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{word!r} is not a number above 0")
    return value


_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def byte_size(word: str) -> int:
    """The type of a number of bytes: 16MB, 1.5GiB, 4096."""
    number = word.rstrip("BKMGIbkmgi")
    unit, value = word[len(number) :].upper(), _number(number)
    if unit not in _UNITS or not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"{word!r} is no number of bytes, such as 16MB, 1.5GiB or 4096")
    return int(value * _UNITS[unit])


def question(word: str) -> tuple[float, str]:
    """The type of ``SECONDS: question``."""
    time, colon, text = word.partition(":")
    seconds = _number(time)
    if not colon or not text.strip() or not math.isfinite(seconds) or seconds < 0:
        raise argparse.ArgumentTypeError(
            f"{word!r} is not of the form 'SECONDS: question', as in '12.5: now'"
        )
    if not is_utf8(text):
        raise argparse.ArgumentTypeError(f"{printable(word)!r} is not UTF-8; write the question in UTF-8")
    return seconds, text.strip()


def backend(word: str) -> str:
    """The type of a backend: a name, or a board behind a serial port."""
    if word not in BACKENDS and not word.startswith(SCHEME):
        # As argparse says it of choices.
        names = ", ".join(map(repr, (*BACKENDS, f"{SCHEME}PORT")))
        raise argparse.ArgumentTypeError(f"invalid choice: {word!r} (choose from {names})")
    return word


def chance(word: str) -> float:
    """The type of a probability below 1."""
    value = _number(word)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{word!r} is no chance; give a number from 0 up to but not 1")
    return value


def layer_list(word: str) -> list[int]:
    """The type of layers' numbers with commas between: ascending, each once."""
    try:
        layers = sorted({int(part) for part in word.split(",")})
    except ValueError:
        layers = [-1]
    if layers[0] < 0:
        raise argparse.ArgumentTypeError(f"{word!r} is no list of layers, as in '0,3'")
    return layers


def knob(word: str) -> tuple[str, str]:
    """The type of ``KNOB=VALUE``."""
    name, equals, value = word.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"{word!r} is not of the form KNOB=VALUE, as in 'ratio=0.05'")
    return name, value


def unique_knobs(given: Iterable[tuple[str, str]], before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Values by knob, behind those of other options.

    Raises:
        UserError: one is set twice.
    """
    values = dict(before or {})
    for name, value in given:
        if name in values:
            raise UserError(f"--set {name}={value} sets {name} a second time; leave one of the two out")
        values[name] = value
    return values


def param(word: str) -> tuple[str, str]:
    """The type of ``FIELD=VALUE``."""
    name, equals, value = word.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"{word!r} is not of the form FIELD=VALUE, as in 'hcu.lanes=8'")
    return name, value


def _number(word: str) -> float:
    """The float a word stands for, or NaN."""
    try:
        return float(word)
    except ValueError:
        return math.nan
