"""Journal of a cache: one record for each chunk that is not in the file of segments yet."""

import os
import struct
import zlib
from pathlib import Path

from vrex.errors import UserError
from vrex.files import status, take_after
from vrex.sw.retrieval.cache.segments import write_error

_RECORD = struct.Struct("<4sII")
_MAGIC = b"vrxj"


class Journal:
    """A file of records; each is complete or absent.

    Attributes:
        path: where it is.
        end: its bytes.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.end = path, 0
        self._fd: int | None = None

    def read(self) -> tuple[list[bytes], int]:
        """All whole records, and how many bytes behind them were lost and are cut off now.

        Raises:
            UserError: the system refuses, or there is no first record.
        """
        try:
            self._fd = os.open(self.path, os.O_RDWR)
            data = self.path.read_bytes()
        except OSError as error:
            raise UserError(
                f"cannot read the cache's journal {self.path}: {error.strerror}; without it the cache is "
                "lost, so delete both to begin anew"
            ) from error
        records = []
        while (record := _record_at(data, self.end)) is not None:
            records.append(record)
            self.end += _RECORD.size + len(record)
        if not records:
            raise UserError(
                f"the cache's journal {self.path} is damaged: it has no whole record; delete it and the "
                "cache to begin anew"
            )
        os.ftruncate(self._fd, self.end)
        return records, len(data) - self.end

    def begin(self, record: bytes) -> None:
        """Replaces the journal atomically by a new one that begins with this record and has its mode.

        Raises:
            UserError: the system refuses; the old journal stays.
        """
        partial = partial_of(self.path)
        framed = _framed(record)
        try:
            fd = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
            try:
                take_after(fd, status(self.path))
                _write(fd, framed, 0)
                os.fdatasync(fd)
                os.replace(partial, os.path.realpath(self.path))
            except OSError:
                os.close(fd)
                partial.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise write_error(self.path, error) from error
        self.close()
        self._fd, self.end = fd, len(framed)

    def append(self, record: bytes) -> None:
        """Appends a record; it is on disk on return.

        Raises:
            UserError: the system refuses; the journal is as it was.
        """
        assert self._fd is not None, "a journal begins before it goes on"
        framed = _framed(record)
        try:
            _write(self._fd, framed, self.end)
            os.fdatasync(self._fd)
        except OSError as error:
            os.ftruncate(self._fd, self.end)
            raise write_error(self.path, error) from error
        self.end += len(framed)

    def close(self) -> None:
        """Closes the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def partial_of(journal: Path) -> Path:
    """Where the journal that replaces another is written at first, at the end of links that lead there."""
    target = Path(os.path.realpath(journal))
    return target.with_name(target.name + ".new")


def _framed(record: bytes) -> bytes:
    return _RECORD.pack(_MAGIC, len(record), zlib.crc32(record)) + record


def _record_at(data: bytes, at: int) -> bytes | None:
    """The record there if it is whole."""
    if at + _RECORD.size > len(data):
        return None
    magic, length, crc = _RECORD.unpack_from(data, at)
    record = data[at + _RECORD.size : at + _RECORD.size + length]
    return record if magic == _MAGIC and len(record) == length and zlib.crc32(record) == crc else None


def _write(fd: int, data: bytes, at: int) -> None:
    left = memoryview(data)
    while left:
        written = os.pwrite(fd, left, at)
        left, at = left[written:], at + written
