"""What a command reads and writes, seen together, so that no output destroys an input or another output."""

import argparse
import os
import re
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TextIO

from vrex.errors import UserError
from vrex.files import (
    cache_folder,
    check_folder,
    check_writable,
    descriptor,
    folders_above,
    is_plain,
    place_of,
    status,
    write_file,
)
from vrex.sw.cli.arguments import PathType, Role
from vrex.text import printable, to_json

_STREAMS = {1: "standard output", 2: "standard error"}
_CACHED = re.compile(r"embeddings|liberty|\w+-[0-9a-f]{20}(\..*)?")
"""Names in the cache folder that are vrex's own."""


def _values(given: Any) -> list[Any]:
    """What was given for an option that takes one word or several."""
    if isinstance(given, list):
        return given
    return [] if given is None else [given]


@dataclass(frozen=True)
class _Named:
    """A path and what a sentence calls it."""

    path: Path
    name: str

    def __str__(self) -> str:
        return f"{self.name} {self.path}" if self.name.startswith("-") else self.name


class CommandFiles:
    """All inputs and outputs of one command line.

    Each is compared with all others when it is added, an output once more when it is written, by what it is
    and not by its name (`vrex.files.place_of`). A command writes through `write` what it has added before.
    """

    def __init__(self) -> None:
        self._inputs: list[_Named] = []
        self._folders: list[_Named] = []
        self._outputs: list[_Named] = []
        self._failed: UserError | None = None

    @classmethod
    def of(cls, args: argparse.Namespace, options: Iterable[argparse.Action]) -> "CommandFiles":
        """Those that the options of a command line name.

        Raises:
            UserError: an output can't be written, is an input or another output, or its name says that it
                is of another kind.
        """
        files = cls()
        given = [
            (option, option.type, value)
            for option in options
            if isinstance(option.type, PathType)
            for value in _values(getattr(args, option.dest, None))
        ]
        # Inputs first: a sentence names the output that would destroy one.
        given.sort(key=lambda entry: entry[1].role in (Role.WRITTEN, Role.FILLED, Role.RESUMED))
        for option, kind, value in given:
            name = max(option.option_strings, key=len, default=option.metavar or option.dest)
            files._add(Path(value), str(name), kind, str(value))
        for _, kind, value in given:
            if kind.role is Role.WRITTEN and is_plain(value) and not kind.fits(value):
                raise UserError(f"{value} does not end in {kind.ending}; give it that ending")
        return files

    def _add(self, path: Path, name: str, kind: PathType, word: str) -> None:
        match kind.role:
            case Role.READ:
                if not _is_word(word, kind.other):
                    self.add_input(path, name)
            case Role.READ_ALL:
                self.add_input(path, name)
                self._folders.append(_Named(path, name))
            case Role.SEARCHED:
                self.add_input(path, name)
            case Role.WRITTEN:
                self.add_output(path, name)
            case Role.FILLED:
                check_folder(path)
            case Role.RESUMED:
                from vrex.sw.retrieval.cache.journal import partial_of
                from vrex.sw.retrieval.cache.tables import journal_of

                journal = journal_of(path)
                self.add_output(path, name, kept=True)
                self.add_output(journal, f"the journal of {name}", kept=True)
                self.add_output(partial_of(journal), f"the new journal of {name}", kept=True)

    def add_input(self, path: Path, name: str) -> None:
        """Adds a file or folder that is read.

        Raises:
            UserError: it is an output, or the system doesn't say what stands there.
        """
        try:
            status(path)
        except OSError as error:
            raise UserError(f"{name} {path} cannot be read: {error.strerror}; check the name") from error
        found = _Named(path, name)
        self._inputs.append(found)
        for output in self._outputs:
            self._check_input(output, found)
        stream = _stream_at(path)
        if stream is not None and descriptor(path) is None:
            raise UserError(f"{stream} would overwrite {found}; let it go elsewhere")

    def add_output(self, path: Path, name: str, *, kept: bool = False, needed: bool = True) -> None:
        """Adds a file that is written.

        Args:
            path: of the file; `STDOUT` is standard output.
            name: what sentences call it, an option or words.
            kept: later runs read it, so that it must be a file and no device or pipe.
            needed: whether it is sure to be written, so that it must be possible.

        Raises:
            UserError: it can't be written, or is an input, another output or something that vrex keeps.
        """
        if needed:
            check_writable(path)
        if kept and not _may_be_kept(path, needed):
            raise UserError(f"cannot write {path}: it is no file, and later runs read it; choose another")
        output = _Named(path, name)
        self._check(output)
        self._outputs.append(output)

    def write(self, path: Path, content: bytes) -> None:
        """Writes an output that was added.

        Raises:
            UserError: the system refuses, or links have changed so that the output is another file now.
        """
        found = [output for output in self._outputs if output.path == path]
        assert found, f"{path} was not added"
        self._check(found[0])
        write_file(path, content)

    def write_json(self, path: Path, value: Any, indent: int) -> bool:
        """Writes figures as JSON, before anything else that a command has to give.

        When the system refuses, the command goes on to what a person reads, and `check_written` raises.

        Returns:
            Whether they were written.
        """
        try:
            self.write(path, to_json(value, indent))
        except UserError as error:
            self._failed = error
        return self._failed is None

    def check_written(self) -> None:
        """Sees at the end of a command that its figures were written.

        Raises:
            UserError: they were not.
        """
        if self._failed is not None:
            raise self._failed

    def try_write(self, path: Path, make: Callable[[], bytes], what: str) -> bool:
        """Makes and writes an output that the figures do without, such as a picture.

        Args:
            path: of the output, which was added.
            make: gives its content.
            what: it is, for the warning on stderr that takes its place when it can't be made or written.

        Returns:
            Whether it was written.
        """
        try:
            self.write(path, make())
        except Exception as error:  # whatever matplotlib and its fonts raise
            reason = " ".join((str(error) or type(error).__name__).split())
            print(printable(f"vrex: warning: {what} was left out: {reason}"), file=sys.stderr)
            return False
        return True

    @property
    def out(self) -> TextIO:
        """Where text for people goes: stderr when an output takes stdout."""
        return sys.stderr if any(descriptor(output.path) == 1 for output in self._outputs) else sys.stdout

    def _check(self, output: _Named) -> None:
        """Compares an output with all others and with what is read."""
        for found in self._inputs:
            self._check_input(output, found)
        for folder in self._folders:
            self._check_folder(output, folder)
        for other in self._outputs:
            if other is not output and _is_same(output.path, other.path) and not _is_null(output.path):
                raise UserError(f"{_both(other, output)}; give them different names")
        stream = _stream_at(output.path)
        if stream is not None and descriptor(output.path) is None:
            raise UserError(f"{stream} goes to {output} as well; let one of them go elsewhere")
        if _is_cached(output.path):
            raise UserError(f"{output} lies among what vrex keeps for later runs; choose another folder")

    def _check_input(self, output: _Named, found: _Named) -> None:
        if _is_same(output.path, found.path) and not _is_device(output.path):
            raise UserError(f"{output.path} would overwrite {found}; choose another name")

    def _check_folder(self, output: _Named, folder: _Named) -> None:
        place = place_of(folder.path)
        try:
            inside = [Path(entry.path) for entry in os.scandir(folder.path)]
        except OSError:
            return  # what is no folder is its reader's to complain about
        if place in folders_above(output.path) or any(_is_same(output.path, path) for path in inside):
            raise UserError(f"{output.path} lies in {folder}, which is read; choose another folder")


def _may_be_kept(path: Path, needed: bool) -> bool:
    """Whether there is a file or nothing; what is not needed may have an impossible name."""
    try:
        return is_plain(path)
    except OSError:
        return not needed


def _is_word(word: str, other: str | None) -> bool:
    """Whether a value of an option names no file (see `PathType.other`)."""
    if other is None:
        return False
    return word.startswith(other) if other else not os.path.exists(word)


def _is_same(one: Path, other: Path) -> bool:
    return place_of(one) == place_of(other)


def _is_device(path: Path) -> bool:
    """Whether it is a character device, which holds nothing that could be lost."""
    found = status(path)
    return found is not None and stat.S_ISCHR(found.st_mode)


def _is_null(path: Path) -> bool:
    found = status(path)
    return found is not None and stat.S_ISCHR(found.st_mode) and found.st_rdev == os.stat(os.devnull).st_rdev


def _both(one: _Named, other: _Named) -> str:
    if one.path == other.path:
        return f"{one.name} and {other.name} both name {one.path}"
    return f"{one.name} and {other.name} both name one file, as {one.path} and {other.path}"


def _stream_at(path: Path) -> str | None:
    """The standard stream that goes to the file of that path, if one does."""
    for number, name in _STREAMS.items():
        try:
            found = os.fstat(number)
        except OSError:
            continue
        if stat.S_ISREG(found.st_mode) and place_of(path) == (found.st_dev, found.st_ino):
            return name
    return None


def _is_cached(path: Path) -> bool:
    """Whether a path lies in the cache folder under one of vrex's own names."""
    try:
        folder = Path(os.path.realpath(cache_folder()))
    except UserError:
        return False
    target = Path(os.path.realpath(path))
    if not target.is_relative_to(folder) or target == folder:
        return False
    return _CACHED.fullmatch(target.relative_to(folder).parts[0]) is not None


@dataclass(frozen=True)
class Kept:
    """What an evaluation keeps beside its results.

    Attributes:
        cells: file of finished cells.
        calibration: file of the policies' calibration.
        lasting: whether they outlive the command.
    """

    cells: Path
    calibration: Path
    lasting: bool

    def where(self, what: str, results: Path, cells: str) -> str:
        """The line that says where the results are, and the cells, so called."""
        return f"{what} in {results}" + (f", {cells} in {self.cells}" if self.lasting else "")


@contextmanager
def kept_beside(results: Path, files: CommandFiles) -> Iterator[Kept]:
    """What is kept beside results; in a folder that goes with the command where nothing can stand there.

    That is so for results that go to a pipe, a device or stdout.

    Raises:
        UserError: see `CommandFiles`.
    """
    with ExitStack() as stack:
        lasting = is_plain(results)
        base = results if lasting else Path(stack.enter_context(TemporaryDirectory(prefix="vrex-")), "out")
        kept = Kept(
            base.with_name(base.stem + ".cells.jsonl"),
            base.with_name(base.stem + ".calibration.npz"),
            lasting,
        )
        files.add_output(kept.cells, "the cells", kept=True)
        files.add_output(kept.calibration, "the calibration", kept=True, needed=False)
        yield kept
