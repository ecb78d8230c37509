"""File of clusters' keys and values: appended in runs, checked, read through a memory map.

A run holds what the clusters of one HC table have gained since the run before, cluster after cluster: a
segment for each, with the checksum of its records and the cluster's hash and mean as they are by then. All
that a run writes begins at a multiple of a record's size, so that the file is an array of records.
"""

import fcntl
import json
import mmap
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vrex.errors import UserError
from vrex.sw.retrieval.cache.records import Records

MAGIC = b"vrex-kv\n"
VERSION = 2
_HEADER = struct.Struct("<8sIII")
_RUN = struct.Struct("<8sIIIII")
_RUN_MAGIC = b"vrex-run"


@dataclass(frozen=True)
class Run:
    """What one HC table gained.

    Attributes:
        table: its number.
        clusters: int64 [S], the cluster of each segment, ascending.
        counts: int64 [S], tokens of each.
        tokens: int64 [n], their ids, segment after segment.
        hashes: uint32 [S, words], the clusters' founders'.
        means: uint16 [S, dim], Key_cluster as BF16 bits.
    """

    table: int
    clusters: np.ndarray
    counts: np.ndarray
    tokens: np.ndarray
    hashes: np.ndarray
    means: np.ndarray


def write_error(path: Path, error: OSError) -> UserError:
    """The sentence for a write that the system refused."""
    return UserError(
        f"cannot write {path}: {error.strerror}; the cache keeps all frames before this one, so make room "
        "and go on with the same command"
    )


class SegmentFile:
    """The file of one stream's tables; nobody else may have it open.

    Attributes:
        path: where it is.
        end: bytes that are in use.
        segments: number of segments.
    """

    def __init__(self, path: Path, identity: dict[str, Any], records: Records, words: int) -> None:
        """Opens the file, or begins an empty one.

        Args:
            path: of the file.
            identity: what a file must have been written with, for JSON.
            records: format of the tokens.
            words: 32-bit words of a hash.

        Raises:
            UserError: the file is no cache, another version's, another model's or in use, or can't be used.
        """
        self.path, self._records, self._words = path, records, words
        self._map: mmap.mmap | None = None
        self._starts, self._counts = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        self._sums, self._checked = np.zeros(0, dtype=np.uint32), np.zeros(0, dtype=bool)
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise UserError(f"cannot open the cache {path}: {error.strerror}; name another file") from error
        try:
            if not stat.S_ISREG(os.fstat(self._fd).st_mode):
                raise UserError(f"{path} is no file and can't hold a cache; name another file")
            self._lock()
            header = self._aligned(_header(identity))
            if os.fstat(self._fd).st_size == 0:
                self.end = 0
                self._write(header)
            self._check_header(identity)
            self.end = self._begin = len(header)
        except BaseException:
            os.close(self._fd)
            raise

    @property
    def segments(self) -> int:
        """Segments in the file."""
        return len(self._starts)

    @property
    def is_empty(self) -> bool:
        """Whether nothing but the header was ever written."""
        return os.fstat(self._fd).st_size <= self._begin

    def close(self) -> None:
        """Closes the file."""
        self._map = None
        os.close(self._fd)

    def append(self, run: Run, records: np.ndarray) -> np.ndarray:
        """Writes a run.

        Args:
            run: what it holds.
            records: uint8 [n, size], in the order of `run.tokens`.

        Returns:
            int64 [n], the rows to `read` the tokens from.

        Raises:
            UserError: the system refuses; the file is as it was.
        """
        ends = np.cumsum(run.counts)
        sums = np.array(
            [
                zlib.crc32(records[end - n : end].data)
                for end, n in zip(ends.tolist(), run.counts.tolist(), strict=True)
            ],
            dtype=np.uint32,
        )
        parts = [run.clusters, run.counts, sums, run.tokens, run.hashes]
        index = b"".join(np.ascontiguousarray(part, dtype="<u4").tobytes() for part in parts)
        index += np.ascontiguousarray(run.means, dtype="<u2").tobytes()
        head = _RUN.pack(
            _RUN_MAGIC, run.table, len(run.clusters), len(run.tokens), run.means.shape[1], zlib.crc32(index)
        )
        before = self._aligned(head + index)
        first = (self.end + len(before)) // self._records.size
        self._write(before + records.tobytes())
        self._add_segments(first, run.counts, sums)
        return first + np.arange(len(records))

    def sync(self) -> None:
        """Syncs everything written to disk.

        Raises:
            UserError: the system refuses.
        """
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            raise write_error(self.path, error) from error

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Records by their rows, uint8 [n, size]; each segment is checked when it is first read.

        Raises:
            UserError: a segment is not what was written.
        """
        view = self._view()
        self._check(view, rows)
        records = view[rows]
        # The pages stay in the system's cache, but no longer count as this process's memory.
        if self._map is not None:
            self._map.madvise(mmap.MADV_DONTNEED)
        return records

    def scan(self, end: int) -> Iterator[tuple[Run, np.ndarray]]:
        """All runs up to byte `end` with their tokens' rows; what lies behind is cut off. Checks everything.

        Raises:
            UserError: the file is shorter, or a run or segment is not what was written.
        """
        size = os.fstat(self._fd).st_size
        if size < end:
            raise UserError(
                f"the cache {self.path} is cut off: it has {size:,} bytes of {end:,}; delete it and its "
                "journal to begin anew"
            )
        os.ftruncate(self._fd, end)
        at, self.end = self.end, end
        while at < end:
            run, sums, first, at = self._read_run(at)
            self._add_segments(first, run.counts, sums)
            rows = first + np.arange(len(run.tokens))
            self._check(self._view(), rows)
            yield run, rows
        if self._map is not None:
            self._map.madvise(mmap.MADV_DONTNEED)

    def _read_run(self, at: int) -> tuple[Run, np.ndarray, int, int]:
        """The run at a byte, its checksums, the row of its first record, and where it ends."""
        magic, table, segments, tokens, dim, crc = _RUN.unpack(os.pread(self._fd, _RUN.size, at))
        bytes_of_index = 4 * (3 * segments + tokens + segments * self._words) + 2 * segments * dim
        index = os.pread(self._fd, bytes_of_index, at + _RUN.size) if magic == _RUN_MAGIC else b""
        if zlib.crc32(index) != crc or len(index) != bytes_of_index:
            raise UserError(
                f"the cache {self.path} is damaged: the index of the run at byte {at:,} is not what was "
                "written; delete the file and its journal to begin anew"
            )
        lengths = [segments, segments, segments, tokens, segments * self._words]
        numbers = np.frombuffer(index, dtype="<u4", count=sum(lengths))
        clusters, counts, sums, ids, hashes = np.split(numbers, np.cumsum(lengths)[:-1])
        means = np.frombuffer(index, dtype="<u2", offset=4 * sum(lengths)).reshape(segments, dim)
        size = self._records.size
        first = -(-(at + _RUN.size + bytes_of_index) // size)
        run = Run(
            table,
            clusters.astype(np.int64),
            counts.astype(np.int64),
            ids.astype(np.int64),
            hashes.reshape(segments, self._words),
            means,
        )
        return run, sums, first, (first + tokens) * size

    def _add_segments(self, first: int, counts: np.ndarray, sums: np.ndarray) -> None:
        starts = first + np.cumsum(counts) - counts
        self._starts = np.concatenate([self._starts, starts])
        self._counts = np.concatenate([self._counts, counts])
        self._sums = np.concatenate([self._sums, sums])
        self._checked = np.concatenate([self._checked, np.zeros(len(counts), dtype=bool)])

    def _check(self, view: np.ndarray, rows: np.ndarray) -> None:
        """Compares the segments of these rows with their checksums, unless that was done before."""
        segments = np.unique(np.searchsorted(self._starts, rows, side="right") - 1)
        for segment in segments[~self._checked[segments]].tolist():
            start = int(self._starts[segment])
            if zlib.crc32(view[start : start + int(self._counts[segment])].data) != self._sums[segment]:
                raise UserError(
                    f"the cache {self.path} is damaged: segment {segment} at byte "
                    f"{start * self._records.size:,} is not what was written; delete the file and its "
                    "journal to begin anew"
                )
            self._checked[segment] = True

    def _view(self) -> np.ndarray:
        """The file as records, uint8 [rows, size]."""
        size = self._records.size
        if self._map is None or len(self._map) < self.end:
            self._map = mmap.mmap(self._fd, self.end, prot=mmap.PROT_READ)
        return np.frombuffer(self._map, dtype=np.uint8, count=self.end // size * size).reshape(-1, size)

    def _aligned(self, data: bytes) -> bytes:
        return data + bytes(-len(data) % self._records.size)

    def _write(self, data: bytes) -> None:
        """Appends; a write that fails leaves nothing."""
        left, at = memoryview(data), self.end
        try:
            while left:
                written = os.pwrite(self._fd, left, at)
                left, at = left[written:], at + written
        except OSError as error:
            os.ftruncate(self._fd, self.end)
            raise write_error(self.path, error) from error
        self.end = at

    def _lock(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"the cache {self.path} is in use by another process; wait for it or name another file"
            ) from None
        except OSError as error:
            raise UserError(
                f"the cache {self.path} can't be locked ({error.strerror}); name a file on another disk"
            ) from error

    def _check_header(self, identity: dict[str, Any]) -> None:
        found = os.pread(self._fd, _HEADER.size, 0)
        magic, version, length, crc = _HEADER.unpack(found) if len(found) == _HEADER.size else (b"", 0, 0, 0)
        if magic != MAGIC:
            raise UserError(f"{self.path} is no cache of vrex; name another file")
        if version != VERSION:
            raise UserError(
                f"the cache {self.path} is of format {version}, but this vrex reads {VERSION}; "
                "name another file"
            )
        text = os.pread(self._fd, length, _HEADER.size)
        if zlib.crc32(text) != crc:
            raise UserError(
                f"the cache {self.path} is damaged: its header is not what was written; delete it"
            )
        written = json.loads(text)
        for name in dict.fromkeys([*identity, *written]):
            value = identity.get(name)
            if written.get(name) != value:
                raise UserError(
                    f"the cache {self.path} is another stream's: its {name} is {written.get(name)}, not "
                    f"{value}; name another file"
                )


def _header(identity: dict[str, Any]) -> bytes:
    text = json.dumps(identity).encode()
    return _HEADER.pack(MAGIC, VERSION, len(text), zlib.crc32(text)) + text
