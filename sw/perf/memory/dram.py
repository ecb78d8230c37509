"""Reads of one DRAM channel, command by command, as a controller with open rows orders them.

The controller chooses among `queue` reads: of all commands that they wait for, the one that the timing allows
first; reads of open rows before others, older before younger (FR-FCFS). One channel stands for all.
"""

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

from vrex.sw.perf.memory.parts import Dram

SEQUENTIAL, RANDOM = "sequential", "random"
REFRESHES = 4
"""Refresh intervals that a measurement spans."""
ROWS = 4096
"""Rows of a bank that random reads touch."""

Place = tuple[int, int]
"""Bank and row."""


def place(part: Dram, address: int) -> Place:
    """Bank and row of a channel's address: group bytes, bank group, column, bank, row, from low to high."""
    block, groups = address // part.group_bytes, part.bank_groups
    group, block = block % groups, block // groups
    block //= part.row_bytes // part.group_bytes
    bank, row = block % part.banks_per_group, block // part.banks_per_group
    return group * part.banks_per_group + bank, row


def piece_bytes(part: Dram, channels: int, chunk: int) -> int:
    """Bytes at contiguous addresses of one channel that a chunk of contiguous bytes is made of."""
    return max(part.burst_bytes, min(chunk, part.interleave_bytes), chunk // channels)


def addresses(part: Dram, channels: int, chunk: int, pattern: str) -> Iterator[int]:
    """Addresses of one channel's reads without end.

    Args:
        part: one channel.
        channels: that contiguous addresses are dealt out to.
        chunk: contiguous bytes of one request, of pattern `random`.
        pattern: `sequential` or `random`.
    """
    if pattern == SEQUENTIAL:
        yield from _count(part)
    piece = piece_bytes(part, channels, chunk)
    space = ROWS * part.row_bytes * part.bank_groups * part.banks_per_group
    source = random.Random(1)
    while True:
        start = source.randrange(space // piece) * piece
        yield from range(start, start + piece, part.burst_bytes)


def _count(part: Dram) -> Iterator[int]:
    address = 0
    while True:
        yield address
        address += part.burst_bytes


@dataclass
class _Bank:
    """A bank and the reads that wait for it.

    Attributes:
        group: its bank group.
        waiting: (age, row) of reads, oldest first.
        row: that is open; None: none is.
        activate, read, precharge: the earliest times of these commands by the bank's own timing.
    """

    group: int
    waiting: deque[tuple[int, int]] = field(default_factory=deque)
    row: int | None = None
    activate: float = 0.0
    read: float = 0.0
    precharge: float = 0.0


class Channel:
    """One channel's controller and banks."""

    def __init__(self, part: Dram, reads: Iterator[int]) -> None:
        """A channel with closed rows.

        Args:
            part: its timing.
            reads: addresses, never at an end.
        """
        self.part, self._reads = part, reads
        banks = part.bank_groups * part.banks_per_group
        self._banks = [_Bank(bank // part.banks_per_group) for bank in range(banks)]
        self._busy: set[int] = set()
        # Earliest reads and activates of a bank group, by what others of the channel did.
        self._next_read = [0.0] * part.bank_groups
        self._next_activate = [0.0] * part.bank_groups
        self._activates: deque[float] = deque([-1e9] * 4, maxlen=4)
        self._refresh = part.t_refi
        self.now = 0.0
        self.done = 0
        self._age = 0
        for _ in range(part.queue):
            self._fill()

    def run(self, until: float) -> int:
        """Reads that begin up to a time in ns."""
        while self.now < until:
            self.step()
        return self.done

    def step(self) -> None:
        """Issues one command, or a refresh that is due."""
        time, rank, _, bank = min(map(self._command, self._busy))
        if time >= self._refresh:
            self._refresh_all()
            return
        self.now = time
        chosen = self._banks[bank]
        if rank == 0:
            self._read(chosen, bank)
        elif chosen.row is None:
            self._activate(chosen)
        else:
            chosen.row, chosen.activate = None, max(chosen.activate, time + self.part.t_rp)

    def _fill(self) -> None:
        bank, row = place(self.part, next(self._reads))
        self._banks[bank].waiting.append((self._age, row))
        self._busy.add(bank)
        self._age += 1

    def _command(self, number: int) -> tuple[float, int, int, int]:
        """(earliest time, 0 for a read, age, bank) of what a bank needs next."""
        bank = self._banks[number]
        age, rank, open_row = bank.waiting[0][0], 1, bank.row
        if open_row is None:
            time = bank.activate
            limit = self._next_activate[bank.group]
        else:
            time, limit = bank.precharge, 0.0
            for waiting, row in bank.waiting:
                if row == open_row:
                    age, rank, time, limit = waiting, 0, bank.read, self._next_read[bank.group]
                    break
        # Comparisons, since this is the inner loop and max() takes twice as long.
        if limit > time:
            time = limit
        return (time if time > self.now else self.now), rank, age, number

    def _read(self, bank: _Bank, number: int) -> None:
        for index, (_, row) in enumerate(bank.waiting):
            if row == bank.row:
                del bank.waiting[index]
                break
        bank.precharge = max(bank.precharge, self.now + self.part.t_rtp)
        self._next_read = [max(time, self.now + self.part.t_ccd_s) for time in self._next_read]
        self._next_read[bank.group] = self.now + self.part.t_ccd_l
        self.done += 1
        if not bank.waiting:
            self._busy.discard(number)
        self._fill()

    def _activate(self, bank: _Bank) -> None:
        bank.row = bank.waiting[0][1]
        bank.read = self.now + self.part.t_rcd
        bank.precharge = self.now + self.part.t_ras
        self._activates.append(self.now)
        least = max(self.now + self.part.t_rrd_s, self._activates[0] + self.part.t_faw)
        self._next_activate = [max(time, least) for time in self._next_activate]
        self._next_activate[bank.group] = max(least, self.now + self.part.t_rrd_l)

    def _refresh_all(self) -> None:
        """All banks precharge, and nothing is activated until the refresh is over."""
        begin = max(self._refresh, *(bank.precharge for bank in self._banks if bank.row is not None), 0.0)
        begin += self.part.t_rp
        for bank in self._banks:
            bank.row = None
        self.now = begin + self.part.t_rfc
        self._next_activate = [max(time, self.now) for time in self._next_activate]
        self._refresh += self.part.t_refi


@cache
def efficiency(part: Dram, channels: int, chunk: int, pattern: str) -> float:
    """Share of the data pins' bandwidth that reads of a pattern reach, whole refresh intervals long.

    Args:
        part: one channel.
        channels: of the memory.
        chunk: contiguous bytes of one request; of pattern `sequential` it does not matter.
        pattern: `sequential` or `random`.
    """
    channel = Channel(part, addresses(part, channels, chunk, pattern))
    first = channel.run(part.t_refi)
    reads = channel.run((1 + REFRESHES) * part.t_refi) - first
    return min(1.0, reads * part.burst_ns / (REFRESHES * part.t_refi))


def bandwidth(part: Dram, channels: int, chunk: int = 0, pattern: str = SEQUENTIAL) -> float:
    """Bytes/s of a memory of so many channels."""
    whole = chunk if pattern == RANDOM else 0
    return channels * part.peak * efficiency(part, channels, whole, pattern)
