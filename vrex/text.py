"""Text that any terminal, any JSON and any picture can hold, whatever bytes a file's name has."""

import codecs
import io
import json
import math
import tomllib
from typing import Any, TextIO

ESCAPE = "vrex.escape"
"""Name of the error handler that writes what an encoding lacks as an escape: a backslash and its code."""

_BYTES = range(0xDC80, 0xDD00)
"""Code points by which Python carries bytes of a name that are no UTF-8 (PEP 383)."""


def _escape(character: str) -> str:
    code = ord(character)
    if code in _BYTES:
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("ascii", "backslashreplace").decode()


def _escaped(error: UnicodeError) -> tuple[str | bytes, int]:
    """See `ESCAPE`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_escape, error.object[error.start : error.end])), error.end


def _restored(error: UnicodeError) -> tuple[str | bytes, int]:
    """Gives the bytes of a name back, and escapes what else UTF-8 lacks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end]
    parts = [
        bytes([ord(character) - 0xDC00]) if ord(character) in _BYTES else _escape(character).encode()
        for character in found
    ]
    return b"".join(parts), error.end


_RESTORE = "vrex.restore"
codecs.register_error(ESCAPE, _escaped)
codecs.register_error(_RESTORE, _restored)


def printable(text: str) -> str:
    r"""The text as UTF-8 can hold it: a byte of a name that is no UTF-8 becomes four characters, `\xe9`."""
    return text.encode("utf-8", _RESTORE).decode("utf-8", "backslashreplace")


def is_utf8(text: str) -> bool:
    """Whether UTF-8 holds the text as it is."""
    return text.isascii() or printable(text) == text


def from_json(text: str | bytes, **hooks: Any) -> Any:
    """What a JSON document holds.

    Args:
        text: the document.
        hooks: of `json.loads`.

    Raises:
        ValueError: it is none, a number of it is longer than Python reads, or it is nested too deeply.
    """
    try:
        return json.loads(text, **hooks)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def from_toml(text: str) -> dict[str, Any]:
    """What a TOML document holds.

    Raises:
        ValueError: as `from_json`.
    """
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def to_json(value: Any, indent: int) -> bytes:
    """JSON that every reader takes: ASCII, with `printable` strings, and null for NaN and infinity."""
    return (json.dumps(_plain(value), indent=indent, allow_nan=False) + "\n").encode("ascii")


def _plain(value: Any) -> Any:
    match value:
        case str():
            return printable(value)
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {_plain(key): _plain(entry) for key, entry in value.items()}
        case list() | tuple():
            return [_plain(entry) for entry in value]
    return value


def escape_on(stream: TextIO | None) -> None:
    """Lets a stream write escapes for what its encoding lacks, instead of failing."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors=ESCAPE)
