"""Reads of an NVMe drive: commands in flight, dies that read pages, channels, and the link to the host."""

import heapq
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from vrex.sw.perf.description.system import Link
from vrex.sw.perf.memory import pcie
from vrex.sw.perf.memory.parts import Flash

SAMPLE = 12
"""Times its queue that a drive is kept busy to stand for a long run."""
SPACE = 1 << 22
"""Pages that random reads touch."""


@dataclass(frozen=True)
class Page:
    """What one command wants of one die at once.

    Attributes:
        die: number in the drive; its channel is the number modulo the channels.
        reads: page reads one after another.
        bytes: that go over the channel.
    """

    die: int
    reads: int
    bytes: int


def split(flash: Flash, first: int, offset: int, size: int) -> list[Page]:
    """Pages of a contiguous range, by die: pages follow each other over channels, dies, planes.

    Args:
        flash: the drive.
        first: page number.
        offset: bytes into it.
        size: bytes.
    """
    dies = flash.channels * flash.dies_per_channel
    found: dict[int, list[int]] = {}
    page = first
    while size > 0:
        taken = min(size, flash.page_bytes - offset)
        found.setdefault(page % dies, []).append(taken)
        size, offset, page = size - taken, 0, page + 1
    return [Page(die, -(-len(parts) // flash.planes), sum(parts)) for die, parts in found.items()]


def commands(flash: Flash, chunk: int, count: int, sequential: bool) -> Iterator[list[Page]]:
    """Commands of `chunk` bytes, rounded up to sectors: one after the other, or at random places."""
    size = -(-chunk // flash.sector_bytes) * flash.sector_bytes
    source = random.Random(1)
    slots = max(1, flash.page_bytes // size)
    for index in range(count):
        if sequential:
            yield split(flash, *divmod(index * size, flash.page_bytes), size)
        else:
            offset = source.randrange(slots) * size if size < flash.page_bytes else 0
            yield split(flash, source.randrange(SPACE), offset, size)


class Drive:
    """A drive at work: dies and channels serve by arrival; a die reads on while its channel is busy.

    Attributes:
        answers: times in us at which commands were answered.
        now: time in us.
    """

    def __init__(self, flash: Flash, link: Link) -> None:
        """An idle drive.

        Args:
            flash: its timing.
            link: to the host.
        """
        self.flash, self.link = flash, link
        dies = flash.channels * flash.dies_per_channel
        self._die_queues: list[deque[tuple[int, Page]]] = [deque() for _ in range(dies)]
        self._die_busy = [False] * dies
        self._channel_queues: list[deque[tuple[int, Page]]] = [deque() for _ in range(flash.channels)]
        self._channel_busy = [False] * flash.channels
        self._events: list[tuple[float, int, str, int, Page]] = []
        self._order = 0
        self._left: dict[int, int] = {}
        self._size: dict[int, int] = {}
        self._link_free = 0.0
        self.answers: list[float] = []
        self.now = 0.0

    def run(self, wanted: Iterator[list[Page]]) -> float:
        """Microseconds until all commands are answered, at most `queue` of them in flight."""
        issued = 0
        for _ in range(self.flash.queue):
            issued += self._issue(issued, wanted)
        while self._events:
            self.now, _, kind, command, page = heapq.heappop(self._events)
            if kind == "read":
                self._die_busy[page.die] = False
                self._channel_queues[page.die % self.flash.channels].append((command, page))
                self._start_die(page.die)
                self._start_channel(page.die % self.flash.channels)
            elif kind == "moved":
                self._channel_busy[page.die % self.flash.channels] = False
                self._start_channel(page.die % self.flash.channels)
                self._left[command] -= 1
                if not self._left[command]:
                    self._send(command, page)
            else:
                self.answers.append(self.now)
                issued += self._issue(issued, wanted)
        return self.now

    def _issue(self, number: int, wanted: Iterator[list[Page]]) -> int:
        pages = next(wanted, None)
        if pages is None:
            return 0
        self._left[number], self._size[number] = len(pages), sum(page.bytes for page in pages)
        for page in pages:
            self._die_queues[page.die].append((number, page))
            self._start_die(page.die)
        return 1

    def _start_die(self, die: int) -> None:
        if self._die_queues[die] and not self._die_busy[die]:
            self._die_busy[die] = True
            command, page = self._die_queues[die].popleft()
            self._at(page.reads * self.flash.read_us, "read", command, page)

    def _start_channel(self, channel: int) -> None:
        if self._channel_queues[channel] and not self._channel_busy[channel]:
            self._channel_busy[channel] = True
            command, page = self._channel_queues[channel].popleft()
            self._at(self.flash.command_us + page.bytes / self.flash.channel_mts, "moved", command, page)

    def _send(self, command: int, page: Page) -> None:
        """The command's data go over the link, in the order in which commands are complete."""
        size = self._size.pop(command)
        time = size / pcie.write_rate(self.link, size) * 1e6
        self._link_free = max(self._link_free, self.now) + time
        self._at(self._link_free - self.now, "sent", command, page)

    def _at(self, later: float, kind: str, command: int, page: Page) -> None:
        heapq.heappush(self._events, (self.now + later, self._order, kind, command, page))
        self._order += 1


@cache
def fetch_us(flash: Flash, link: Link, chunk: int, count: int, sequential: bool = False) -> float:
    """Microseconds of so many commands, from the first one's start to the last one's end.

    Args:
        flash: drive.
        link: to the host.
        chunk: bytes of a command.
        count: commands.
        sequential: at contiguous addresses; else at random ones.
    """
    return Drive(flash, link).run(commands(flash, chunk, count, sequential))


@cache
def rate(flash: Flash, link: Link, chunk: int, sequential: bool = False) -> float:
    """Bytes/s of a long run: between the first queue full of answers and the last one."""
    drive, count = Drive(flash, link), SAMPLE * flash.queue
    drive.run(commands(flash, chunk, count, sequential))
    first, last = drive.answers[flash.queue], drive.answers[count - flash.queue]
    return (count - 2 * flash.queue) * chunk / (last - first) * 1e6


def latency_us(flash: Flash, link: Link, chunk: int) -> float:
    """Microseconds of one command alone."""
    return fetch_us(flash, link, chunk, 1)
