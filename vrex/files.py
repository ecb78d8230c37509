"""Files that appear whole or not at all, places that are the same by whatever name, and what is kept."""

import errno
import fcntl
import hashlib
import os
import re
import select
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from vrex.errors import UserError

STDOUT = Path("/dev/stdout")
"""The name that stands for standard output on command lines, besides ``-``."""

_STREAMS = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
_MOST_LINKS = 40
"""The system follows no more either."""

SUM = ".sum"
"""Ending of the file beside a kept one that holds its size and SHA-256."""

Place = tuple[int | str, ...]
"""What tells a file from others: see `place_of`."""


# -- what a name stands for ------------------------------------------------------------------------------


def descriptor(path: Path) -> int | None:
    """The open file of this process that a name stands for, such as /dev/stdout or a shell's /dev/fd/63."""
    own = rf"/dev/fd/(\d+)|/proc/(?:self|{os.getpid()})(?:/task/\d+)?/fd/(\d+)"
    name = str(path)
    for _ in range(_MOST_LINKS):
        if name in _STREAMS:
            return _STREAMS[name]
        name = os.path.join(os.path.realpath(os.path.dirname(name) or "."), os.path.basename(name))
        if found := re.fullmatch(own, name):
            return int(found[1] or found[2])
        if not os.path.islink(name):
            return None
        name = os.path.join(os.path.dirname(name), os.readlink(name))
    return None


def status(path: Path) -> os.stat_result | None:
    """What stands at a path or where its links lead, None when nothing does.

    Raises:
        OSError: the system doesn't say, for example because links lead in a circle.
    """
    number = descriptor(path)
    if number is not None:
        return os.fstat(number)
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def place_of(path: Path) -> Place:
    """What is equal for two paths exactly when they lead to the same file, which need not be there yet.

    Links in folders, hard links, `..` and the link itself don't matter: of a file it is device and inode, of
    one that is not there the same of the nearest folder that is, and the names below it.
    """
    try:
        found = status(path)
    except OSError:
        found = None
    if found is not None:
        return found.st_dev, found.st_ino
    below: list[str] = []
    at = os.path.realpath(path)
    while True:
        at, name = os.path.split(at)
        below.insert(0, name)
        with suppress(OSError):
            folder = os.stat(at)
            return folder.st_dev, folder.st_ino, *below
        if not name:
            return tuple(below)


def folders_above(path: Path) -> Iterator[Place]:
    """The places of all folders that a path lies in."""
    for folder in Path(os.path.realpath(path)).parents:
        yield place_of(folder)


def is_plain(path: Path) -> bool:
    """Whether a path is a file or may become one, so that other files may stand beside it."""
    if descriptor(path) is not None:
        return False
    found = status(path)
    return found is None or stat.S_ISREG(found.st_mode)


# -- writing ---------------------------------------------------------------------------------------------

_UNWRITABLE = {stat.S_IFDIR: "a folder", stat.S_IFBLK: "a disk", stat.S_IFSOCK: "a socket"}


def check_writable(path: Path) -> None:
    """Says before the work, not after it, that a result can't be written to ``path``.

    Raises:
        UserError: its folder is missing or read-only, it is a folder itself, or nothing can be written to
            what stands there.
    """
    number = descriptor(path)
    if number is not None:
        _check_descriptor(path, number)
        return
    try:
        found = status(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose another name") from error
    if found is not None:
        what = _UNWRITABLE.get(stat.S_IFMT(found.st_mode))
        if what is not None:
            raise UserError(f"cannot write {path}: it is {what}; name a file")
        if not os.access(path, os.W_OK):
            raise UserError(f"cannot write {path}: it is read-only; choose another")
        if not stat.S_ISREG(found.st_mode):
            return
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise UserError(f"cannot write {path}: the folder {folder} does not exist; make it first")
    if not os.access(folder, os.W_OK):
        raise UserError(f"cannot write {path}: the folder {folder} is read-only; choose another")


def _check_descriptor(path: Path, number: int) -> None:
    try:
        mode = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE
    except OSError as error:
        raise UserError(f"cannot write {path}: it is not open; choose another") from error
    if mode == os.O_RDONLY:
        raise UserError(f"cannot write {path}: it is open for reading only; choose another")


def check_folder(folder: Path) -> None:
    """Says before the work that no files can be written in a folder, which need not be there yet.

    Raises:
        UserError: a file is in its way, or the folder that it would be made in is read-only.
    """
    try:
        existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; choose another folder") from error
    if not existing.is_dir():
        raise UserError(f"cannot write to {folder}: {existing} is a file; name a folder")
    if not os.access(existing, os.W_OK):
        raise UserError(f"cannot write to {folder}: {existing} is read-only; choose another folder")


def write_file(path: Path, content: bytes) -> None:
    """Writes a file so that it appears whole or not at all, at the end of the links that lead there.

    A file that is there keeps its mode and owner. What is none (a device, a pipe, a descriptor such as
    /dev/stdout) is written to as it is.

    Raises:
        UserError: the system refuses.
        BrokenPipeError: whoever read standard output has gone.
    """
    check_writable(path)
    try:
        number = descriptor(path)
        if number is not None:
            _write_descriptor(number, content)
        elif is_plain(path):
            _replace(Path(os.path.realpath(path)), content)
        else:
            _write_through(path, content)
    except OSError as error:
        if isinstance(error, BrokenPipeError) and descriptor(path) == 1:
            raise
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def _replace(target: Path, content: bytes) -> None:
    """Makes the file beside its place and moves it there."""
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".vrex-", delete=False) as file:
            temporary = file.name
            file.write(content)
            take_after(file.fileno(), status(target))
        os.replace(temporary, target)
        temporary = None
    except OSError as error:
        # A file that is a mount point of its own, as containers have them, can't be replaced.
        if error.errno != errno.EBUSY:
            raise
        _write_through(target, content)
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def take_after(number: int, former: os.stat_result | None) -> None:
    """Gives an open file the owner and the mode of the one that it replaces."""
    if former is None:
        os.fchmod(number, 0o666 & ~_umask())
        return
    made = os.fstat(number)
    if (made.st_uid, made.st_gid) != (former.st_uid, former.st_gid):
        # Only root may give files away; others keep what they may.
        with suppress(PermissionError):
            os.fchown(number, former.st_uid, former.st_gid)
    os.fchmod(number, stat.S_IMODE(former.st_mode))


def _write_through(path: Path, content: bytes) -> None:
    """Writes to what stands there; a pipe is waited for until somebody reads it."""
    number = os.open(path, os.O_WRONLY | os.O_NOCTTY)
    try:
        if stat.S_ISREG(os.fstat(number).st_mode):
            os.ftruncate(number, 0)
        _write_all(number, content)
    finally:
        os.close(number)


def _write_descriptor(number: int, content: bytes) -> None:
    """Writes behind what was written there so far."""
    stream = {1: sys.stdout, 2: sys.stderr}.get(number)
    if stream is None:
        _write_all(number, content)
        return
    # By way of the stream where it has bytes: whoever runs the command line from Python may have put another.
    stream.flush()
    if hasattr(stream, "buffer"):
        stream.buffer.write(content)
    else:
        stream.write(content.decode("utf-8", "replace"))
    stream.flush()


def _write_all(number: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        try:
            left = left[os.write(number, left) :]
        except BlockingIOError:
            select.select([], [number], [])


def _umask() -> int:
    """The process's file mode mask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


# -- what can be made again ------------------------------------------------------------------------------


def cache_folder() -> Path:
    """Where built simulators and computed embeddings are kept: $VREX_CACHE, else the user's cache folder.

    Raises:
        UserError: neither is set and the user has no home folder.
    """
    if named := os.environ.get("VREX_CACHE"):
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):
        return Path(base) / "vrex"
    home = os.path.expanduser("~")
    if not os.path.isabs(home):
        raise UserError(
            "there is no folder for the cache, as this user has no home folder; "
            "set VREX_CACHE to a folder that can be written"
        )
    return Path(home) / ".cache" / "vrex"


def keep(path: Path, content: bytes) -> None:
    """Writes a file that `kept` gives back, with its size and hash beside it.

    Raises:
        UserError: the system refuses.
    """
    write_file(path, content)
    keep_sum(path)


def keep_sum(path: Path) -> None:
    """Writes the size and hash of a file that is there beside it.

    Raises:
        UserError: the system refuses.
    """
    try:
        write_file(sum_of(path), _sum(path.read_bytes()))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def kept(path: Path) -> bytes | None:
    """The content of a file that `keep` wrote; None where it is missing, or no longer what was written."""
    if not path.is_file():
        return None
    try:
        content, noted = path.read_bytes(), sum_of(path).read_bytes()
    except OSError:
        return None
    return content if noted == _sum(content) else None


def sum_of(path: Path) -> Path:
    """Where the size and hash of a kept file are."""
    return path.with_name(path.name + SUM)


def _sum(content: bytes) -> bytes:
    return f"{len(content)} {hashlib.sha256(content).hexdigest()}\n".encode()
