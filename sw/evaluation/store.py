"""Finished cells, one JSON line each; an interrupted run resumes from them."""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

from vrex.errors import UserError
from vrex.text import from_json

FORMAT = 3
SOURCES = ("vrex.model", "vrex.sw.driver", "vrex.sw.retrieval.policies", "vrex.sw.videollm")
"""Packages whose code decides what a cell's result is."""
NAMES = ("policy", "settings", "suite", "frames", "seed", "level")
"""What a cell of videos is known by."""


class Store:
    """Finished cells of one model and one version in a file; `open_store` makes it."""

    def __init__(self, path: Path, file: BinaryIO, names: Sequence[str]) -> None:
        self.path = path
        self._file = file
        self._names = names
        self._cells: dict[str, dict[str, Any]] = {}
        self.read()

    def __len__(self) -> int:
        return len(self._cells)

    def __contains__(self, key: dict[str, Any]) -> bool:
        return _name(key) in self._cells

    def __getitem__(self, key: dict[str, Any]) -> dict[str, Any]:
        """The result with that cell's key."""
        return self._cells[_name(key)]

    def read(self) -> None:
        """Takes the cells from the file: an interrupted `add` may have written one and not noted it.

        Raises:
            UserError: the file is damaged.
        """
        self._cells = _read(self.path, _whole_lines(self._file)[1:], self._names)

    def add(self, key: dict[str, Any], result: dict[str, Any]) -> None:
        """Keeps a result in the file; on return it outlives the process.

        Raises:
            UserError: the disk refuses.
        """
        _append(self.path, self._file, result)
        self._cells[_name(key)] = result


def store_path(json_path: Path) -> Path:
    """Where the cells behind a results file are."""
    return json_path.with_name(json_path.stem + ".cells.jsonl")


def source_digest(sources: Sequence[str]) -> str:
    """SHA-256 of the code that results depend on, so that those from before an edit are not reused."""
    digest = hashlib.sha256()
    for name in sources:
        for file in sorted(Path(str(resources.files(name))).rglob("*.py")):
            digest.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


@dataclass(frozen=True)
class Kind:
    """What a store holds, in words for its sentences.

    Attributes:
        cells: what it holds.
        of: what all of it belongs to; the header has its digest under this name.
    """

    cells: str = "cells of an evaluation"
    of: str = "model"


@contextmanager
def open_store(
    path: Path, model: str, names: Sequence[str] = NAMES, more: Sequence[str] = ()
) -> Iterator[Store]:
    """Opens or starts the file of an evaluation's cells, see `open_lines`.

    Args:
        path: of the file.
        model: digest of the model.
        names: keys that a cell is known by.
        more: packages whose code decides what a cell's result is, besides `SOURCES`.

    Raises:
        UserError: the file is of another version or model, damaged, in use, or can't be written.
    """
    with open_lines(path, Kind(), model, [*SOURCES, *more], names) as store:
        yield store


@contextmanager
def open_lines(
    path: Path, kind: Kind, digest: str, sources: Sequence[str], names: Sequence[str]
) -> Iterator[Store]:
    """Opens or starts the file, for this process alone; one that stays empty is removed.

    Args:
        path: of the file.
        kind: of what it holds.
        digest: of what all of it belongs to.
        sources: packages whose code decides what a result is.
        names: keys that a result is known by.

    Raises:
        UserError: the file is of another version or digest, damaged, in use, or can't be written.
    """
    header = {
        "format": FORMAT,
        "vrex": version("vrex"),
        "source": source_digest(sources),
        kind.of: digest,
    }
    try:
        file = path.open("a+b", buffering=0)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{path} is in use by another run; wait for its end or choose another OUT"
            ) from None
        except OSError as error:
            raise UserError(
                f"{path} can't be locked ({error.strerror}); choose an OUT on another file system"
            ) from error
        lines = _whole_lines(file)
        if lines:
            _check_header(path, lines[0], header, kind)
        else:
            _append(path, file, header)
        store = Store(path, file, names)
        try:
            yield store
        finally:
            if len(_whole_lines(file)) == 1:
                path.unlink()


def _whole_lines(file: Any) -> list[bytes]:
    """The lines; one cut off by the end of an earlier run is removed."""
    file.seek(0)
    content = file.read()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.ftruncate(file.fileno(), len(whole))
    return whole.splitlines()


def _check_header(path: Path, line: bytes, header: dict[str, Any], kind: Kind) -> None:
    found = _parse(path, 1, line)
    if "format" not in found or kind.of not in found:
        raise UserError(f"{path} holds no {kind.cells}; choose another OUT")
    if (found["format"], found.get("vrex")) != (header["format"], header["vrex"]):
        raise UserError(
            f"{path} was written by vrex {found.get('vrex')} (format {found['format']}), this is "
            f"{header['vrex']} (format {header['format']}); choose another OUT or delete it"
        )
    what = kind.cells.partition(" ")[0]
    if found.get("source") != header["source"]:
        raise UserError(
            f"{path} holds {what} computed before the source code of vrex was changed; "
            "choose another OUT or delete it"
        )
    if found[kind.of] != header[kind.of]:
        raise UserError(f"{path} holds {what} of another {kind.of}; choose another OUT or delete it")


def _read(path: Path, lines: list[bytes], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    cells = {}
    for number, line in enumerate(lines, 2):
        result = _parse(path, number, line)
        try:
            key = {name: result[name] for name in names}
        except KeyError as error:
            raise UserError(f"{path}, line {number}: {error.args[0]} is missing; delete that line") from error
        cells[_name(key)] = result
    return cells


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        parsed = from_json(line)
    except ValueError as error:
        raise UserError(f"{path}, line {number}: is not JSON; delete that line") from error
    if not isinstance(parsed, dict):
        raise UserError(f"{path}, line {number}: is no cell; delete that line")
    return parsed


def _append(path: Path, file: Any, line: dict[str, Any]) -> None:
    data = json.dumps(line).encode() + b"\n"
    try:
        file.write(data)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def _name(key: dict[str, Any]) -> str:
    return json.dumps(key, sort_keys=True)
