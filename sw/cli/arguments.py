"""Types of command line arguments: each turns a word into a value or says what is wrong with it."""

import argparse
import math
from collections.abc import Callable


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
    return seconds, text.strip()


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
