"""Keys and values of clustered tokens in three tiers: device memory, host memory, a file."""

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vrex.errors import UserError
from vrex.model.dre.hctable import HCTable
from vrex.sw.retrieval.cache.records import Records
from vrex.sw.retrieval.cache.segments import Run, SegmentFile

LEAST_TOKENS = 64
"""Tokens that the device's and the host's part must at least have room for."""


@dataclass(frozen=True)
class Budgets:
    """Memory that keys and values may take.

    Attributes:
        device: bytes of device memory, sinks and window included.
        host: bytes of host memory.
    """

    device: int
    host: int


@dataclass
class Traffic:
    """What came from, or went to, one tier.

    Attributes:
        tokens: of one HC table.
        bytes: that moved.
        seconds: it took.
    """

    tokens: int = 0
    bytes: int = 0
    seconds: float = 0.0
    _begun: float = field(default=0.0, repr=False)

    def __enter__(self) -> "Traffic":
        self._begun = time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        self.seconds += time.perf_counter() - self._begun

    def count(self, tokens: int, nbytes: int) -> None:
        """Adds to the sums."""
        self.tokens += tokens
        self.bytes += nbytes

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"tokens": self.tokens, "bytes": self.bytes, "seconds": self.seconds}


def room(budgets: Budgets, step: int, resident_tokens: int) -> tuple[int, int]:
    """(tokens fetched that the device holds, tokens that host memory holds) of all tables.

    Args:
        budgets: of all tables together.
        step: bytes of a token in all tables.
        resident_tokens: that the device holds besides.

    Raises:
        UserError: a budget is too small.
    """
    slots = budgets.device // step - resident_tokens
    if slots < LEAST_TOKENS:
        raise UserError(
            f"{budgets.device:,} bytes of device memory are too few: sinks and window take "
            f"{resident_tokens * step:,}; allow at least {(resident_tokens + LEAST_TOKENS) * step:,}"
        )
    if budgets.host < LEAST_TOKENS * step:
        raise UserError(
            f"{budgets.host:,} bytes of host memory are too few; allow at least {LEAST_TOKENS * step:,}"
        )
    return slots, budgets.host // step


class _DeviceCache:
    """Tokens of one table that were fetched last; a new one takes the place of the oldest."""

    def __init__(self, slots: int, shape: tuple[int, ...]) -> None:
        self._pool = np.empty((slots, *shape), dtype=np.uint16)
        # Touches every page now, so that memory in use does not grow later.
        self._pool.fill(0)
        self._owner = np.full(slots, -1, dtype=np.int64)
        self._next = 0

    def put(self, slot_of: np.ndarray, tokens: np.ndarray, kv: np.ndarray) -> None:
        """Keeps as many of the last tokens as there is room for; `slot_of` [all tokens] follows."""
        slots = len(self._owner)
        tokens, kv = tokens[-slots:], kv[-slots:]
        at = (self._next + np.arange(len(tokens))) % slots
        gone = self._owner[at]
        slot_of[gone[gone >= 0]] = -1
        slot_of[tokens] = at
        self._owner[at], self._pool[at] = tokens, kv
        self._next = (self._next + len(tokens)) % slots

    def read(self, slots: np.ndarray) -> np.ndarray:
        """uint16 [n, ...]."""
        return self._pool[slots]


class Tiers:
    """Keys and values of the tokens first, first + 1, ... of several HC tables.

    New tokens enter host memory. When that is full they go to the file, all of them, cluster by cluster.
    What is read stays in device memory until newer reads need the room.

    Attributes:
        first: lowest token.
        filed: tokens first..filed-1 are in the file.
        end: tokens filed..end-1 are in host memory.
    """

    def __init__(
        self,
        records: Records,
        tables: int,
        first: int,
        budgets: Budgets,
        resident_tokens: int,
        file: SegmentFile,
    ) -> None:
        """Empty tiers.

        Args:
            records: format in the file, which also tells the shape of a token.
            tables: number of HC tables.
            first: lowest token.
            budgets: of all tables together.
            resident_tokens: that the device holds besides.
            file: the last tier.

        Raises:
            UserError: a budget is too small.
        """
        self.first = self.filed = self.end = first
        self.file, self._records = file, records
        self._token_bytes = 2 * int(np.prod(records.shape))
        slots, rows = room(budgets, tables * self._token_bytes, resident_tokens)
        self._host = np.empty((tables, rows, *records.shape), dtype=np.uint16)
        self._host.fill(0)
        self._devices = [_DeviceCache(slots, records.shape) for _ in range(tables)]
        # By token minus `first`: its slot in device memory, and its row in the file.
        self._slots = np.full((tables, 1024), -1, dtype=np.int32)
        self._rows = np.full((tables, 1024), -1, dtype=np.int32)
        self.traffic = {name: Traffic() for name in ("device", "host", "file", "written")}

    @property
    def free(self) -> int:
        """Tokens that host memory still takes."""
        return self._host.shape[1] - (self.end - self.filed)

    def check_free(self, tokens: int) -> None:
        """Checks that this many tokens fit into empty host memory.

        Raises:
            UserError: they don't.
        """
        if tokens > self._host.shape[1]:
            raise UserError(
                f"{tokens} tokens leave the window at once, but host memory holds {self._host.shape[1]}; "
                "allow more bytes of host memory"
            )

    def add(self, table: int, first: int, kv: np.ndarray) -> None:
        """Takes tokens first, first + 1, ... of a table; kv is BF16 bits, uint16 [n, 2, heads, head_dim].

        `advance` follows when all tables have theirs.
        """
        at = first - self.filed
        self._host[table, at : at + len(kv)] = kv

    def advance(self, end: int) -> None:
        """All tables have their tokens before `end`."""
        self.end = end
        short = end - self.first - self._slots.shape[1]
        if short > 0:
            more = np.full((len(self._slots), short + self._slots.shape[1]), -1, dtype=np.int32)
            self._slots = np.concatenate([self._slots, more], axis=1)
            self._rows = np.concatenate([self._rows, more], axis=1)

    def fetch(self, table: int, tokens: np.ndarray) -> np.ndarray:
        """Keys and values of a table's tokens, from wherever they are.

        Args:
            table: its number.
            tokens: int64 [n], first..end-1, without repeats.

        Returns:
            BF16 bits, uint16 [n, 2, heads, head_dim].

        Raises:
            UserError: the file is damaged.
        """
        kv = np.empty((len(tokens), *self._records.shape), dtype=np.uint16)
        slots = self._slots[table, tokens - self.first]
        near = slots >= 0
        with self.traffic["device"] as traffic:
            kv[near] = self._devices[table].read(slots[near])
            traffic.count(int(near.sum()), int(near.sum()) * self._token_bytes)
        filed = ~near & (tokens < self.filed)
        hosted = ~near & ~filed
        with self.traffic["host"] as traffic:
            kv[hosted] = self._host[table, tokens[hosted] - self.filed]
            traffic.count(int(hosted.sum()), int(hosted.sum()) * self._token_bytes)
        with self.traffic["file"] as traffic:
            if filed.any():
                records = self.file.read(self._rows[table, tokens[filed] - self.first])
                kv[filed] = self._records.decode(records)
                traffic.count(len(records), records.nbytes)
        self._devices[table].put(self._slots[table], tokens[~near] - self.first, kv[~near])
        return kv

    def flush(self, tables: list[HCTable]) -> None:
        """Moves all of host memory to the file, cluster by cluster.

        Raises:
            UserError: the system refuses; host memory is as it was, and the file's end too.
        """
        n = self.end - self.filed
        rows = np.empty((len(tables), n), dtype=np.int32)
        with self.traffic["written"] as traffic:
            for number, table in enumerate(tables):
                owners = table.token_cluster[self.filed - self.first : self.end - self.first]
                order = np.argsort(owners, kind="stable")
                clusters, counts = np.unique(owners[order], return_counts=True)
                run = Run(
                    number,
                    clusters,
                    counts,
                    self.filed + order,
                    table.hashes[clusters],
                    table.means[clusters],
                )
                records = self._records.encode(self._host[number, order])
                rows[number, order] = self.file.append(run, records)
                traffic.count(n, records.nbytes)
            self.file.sync()
        at = self.filed - self.first
        self._rows[:, at : at + n] = rows
        self.filed = self.end

    def restore(self, table: int, tokens: np.ndarray, rows: np.ndarray) -> None:
        """Tokens of a table that a file holds, and their rows; `advance` was called before."""
        self._rows[table, tokens - self.first] = rows

    def metadata_bytes(self) -> int:
        """Memory that tells where each token is."""
        return self._rows.nbytes + self._slots.nbytes
