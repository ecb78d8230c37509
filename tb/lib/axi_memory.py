"""An AXI4 memory for testbenches that stalls, reorders and fails to stress its master.

Every channel stalls at random, answers take random times and overtake those of other ids (never of the same),
their beats mix. It gives error responses where it is told, falls silent on any channel when it is told, and
checks the master: the rules of AXI4 (`vrex.tb.lib.axi_monitor`), lengths, windows, attributes, bursts in
flight. Like `vrex.tb.lib.streams` it knows no simulator: `vrex.tb.lib.axi_bench` moves the signals.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

import numpy as np

from vrex.model.config import Config
from vrex.model.lib.memory import Memory
from vrex.tb.lib.axi_monitor import CHANNELS, PAGE, AxiMonitor, report_broken
from vrex.tb.lib.streams import PROFILES, Profile, Stalls, StreamError

SLVERR, DECERR = 2, 3
MASTER_FIELDS = {
    "ar": ("addr", "len", "size", "burst", "id", "cache", "prot"),
    "aw": ("addr", "len", "size", "burst", "id", "cache", "prot"),
    "w": ("data", "strb", "last"),
}
"""Payloads that the master drives."""

MEMORY_FIELDS = {"r": ("data", "id", "resp", "last"), "b": ("id", "resp")}
"""Payloads that the memory drives."""


def bursts(config: Config, address: int, size: int) -> Iterator[tuple[int, int]]:
    """(address, beats) of the bursts that cover bytes [address, address + size), as the master cuts them."""
    longest = config.bus_bytes * config.kvmu.burst_beats
    at, end = address // config.bus_bytes * config.bus_bytes, address + size
    while at < end:
        stop = min(at // longest * longest + longest, -(-end // config.bus_bytes) * config.bus_bytes)
        yield at, (stop - at) // config.bus_bytes
        at = stop


@dataclass(frozen=True)
class Window:
    """4 KiB pages [base, base + pages)."""

    base: int
    pages: int

    def holds(self, address: int) -> bool:
        """Whether a byte lies inside."""
        return self.base <= address // PAGE < self.base + self.pages


@dataclass
class Burst:
    """A burst under way; `due` is the cycle from which it may be answered."""

    address: int
    beats: int
    id: int
    due: int
    done: int = 0
    failed: bool = False


@dataclass
class Counts:
    """What passed the port."""

    read_bursts: int = 0
    read_beats: int = 0
    write_bursts: int = 0
    write_beats: int = 0
    overtaken: int = 0


@dataclass
class AxiMemory:
    """Memory behind one AXI4 port.

    Attributes:
        config: accelerator; `bus_bits` matters, and the other limits come from it.
        rng: decides everything that is random.
        windows: where bursts may go; none: anywhere.
        ids, write_ids: read and write ids in use.
        latency: fewest and most cycles from a burst to its first answer.
        reorder: whether answers of different ids overtake each other.
        bad_beats: beat numbers (address div bytes of a beat) whose access fails.
        allow: transfers still to be made on a channel ("ar", "r", "aw", "w", "b") before it falls silent.
        counts: what passed so far.
        cycle: number of the cycle.
        outstanding, longest: most bursts of an id under way, most beats of a burst.
    """

    config: Config
    rng: Random
    windows: tuple[Window, ...] = ()
    ids: int = 4
    write_ids: int = 1
    latency: tuple[int, int] = (1, 40)
    reorder: bool = True
    bad_beats: set[int] = field(default_factory=set)
    allow: dict[str, int] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)
    cycle: int = 0

    def __post_init__(self) -> None:
        self.outstanding, self.longest = self.config.kvmu.outstanding, self.config.kvmu.burst_beats
        self._pages: dict[int, bytearray] = {}
        self._fill = self.rng.getrandbits(64)
        self.stalls = {name: Stalls(Random(self.rng.getrandbits(64)), PROFILES["none"]) for name in CHANNELS}
        self.monitor = AxiMonitor(self.config.bus_bytes, early=False)
        self.reset()

    def reset(self) -> None:
        """Drops all transactions in flight; the contents stay."""
        self.reads: dict[int, deque[Burst]] = {i: deque() for i in range(self.ids)}
        self.writes: deque[Burst] = deque()
        self.responses: deque[Burst] = deque()
        self._beats: deque[tuple[int, int, int]] = deque()
        self.monitor.reset()
        self._shown: dict[str, dict[str, int]] = {}
        self._ready = dict.fromkeys(MASTER_FIELDS, False)
        self._reading: Burst | None = None
        self._responding: Burst | None = None

    def stall(self, profile: Profile | None) -> None:
        """Sets every channel's profile: that one, or one drawn for each channel."""
        for stalls in self.stalls.values():
            stalls.profile = profile or PROFILES[self.rng.choice(["none", "light", "heavy", "bursts"])]

    @property
    def idle(self) -> bool:
        """Whether everything is answered."""
        return not (any(self.reads.values()) or self.writes or self.responses or self._beats)

    def page(self, number: int) -> bytearray:
        """Bytes of a page; random ones at first, the same at every run."""
        if number not in self._pages:
            self._pages[number] = bytearray(Random(f"{self._fill}:{number}").randbytes(PAGE))
        return self._pages[number]

    def read(self, address: int, size: int) -> bytes:
        """Bytes from an address."""
        out = bytearray()
        while len(out) < size:
            at = address + len(out)
            out += self.page(at // PAGE)[at % PAGE :][: size - len(out)]
        return bytes(out)

    def write(self, address: int, content: bytes) -> None:
        """Writes bytes at an address."""
        done = 0
        while done < len(content):
            at = address + done
            part = content[done : done + PAGE - at % PAGE]
            self.page(at // PAGE)[at % PAGE : at % PAGE + len(part)] = part
            done += len(part)

    def drive(self) -> dict[str, int]:
        """Begins a cycle: values of the signals `<channel><field>` that the memory drives and that change."""
        out = {}
        for name in MASTER_FIELDS:
            ready = not self.stalls[name].next() and self.allow.get(name, 1) > 0
            if ready != self._ready[name]:
                self._ready[name] = ready
                out[f"{name}ready"] = int(ready)
        for name, choose in (("r", self._next_read), ("b", self._next_response)):
            if name not in self._shown:
                wants = self.allow.get(name, 1) > 0 and not self.stalls[name].next()
                payload = choose() if wants else None
                if payload is not None:
                    self._shown[name] = payload
                    out |= {f"{name}{key}": value for key, value in payload.items()}
                out[f"{name}valid"] = int(payload is not None)
        return out

    def _next_read(self) -> dict[str, int] | None:
        """The beat to show next, of any id whose first burst is due."""
        due = [queue[0] for queue in self.reads.values() if queue and queue[0].due <= self.cycle]
        if not due:
            return None
        burst = self.rng.choice(due) if self.reorder else min(due, key=lambda burst: burst.due)
        self._reading = burst
        at = burst.address + burst.done * self.config.bus_bytes
        bad = at // self.config.bus_bytes in self.bad_beats
        return {
            "data": int.from_bytes(self.read(at, self.config.bus_bytes), "little"),
            "id": burst.id,
            "resp": self.rng.choice((SLVERR, DECERR)) if bad else self.rng.choice((0, 1)),
            "last": int(burst.done == burst.beats - 1),
        }

    def _next_response(self) -> dict[str, int] | None:
        oldest: dict[int, Burst] = {}
        for burst in self.responses:
            oldest.setdefault(burst.id, burst)
        due = [burst for burst in oldest.values() if burst.due <= self.cycle]
        if not due:
            return None
        burst = self.rng.choice(due) if self.reorder and len(due) > 1 else due[0]
        self._responding = burst
        return {"id": burst.id, "resp": self.rng.choice((SLVERR, DECERR)) if burst.failed else 0}

    def end(self, values: dict[str, dict[str, int] | None], ready: dict[str, bool]) -> bool:
        """Ends a cycle; returns whether anything moved.

        Args:
            values: payload of each channel of `MASTER_FIELDS` that there is, None while its valid is low.
            ready: of the master, for those of channels r and b that there are.

        Raises:
            StreamError: the master broke a rule.
        """
        moved = False
        answers = {name: self._shown.get(name) for name in ready}
        self.monitor.end({**values, **answers}, {**self._ready, **ready})
        for name, payload in values.items():
            if payload is None or not self._ready[name]:
                continue
            moved = True
            self._take(name)
            if name == "w":
                self._beats.append((payload["data"], payload["strb"], payload["last"]))
                self.counts.write_beats += 1
            else:
                self._accept(name, payload)
        self._write_beats()
        for name in MEMORY_FIELDS:
            if name in self._shown and ready[name]:
                moved = True
                self._take(name)
                del self._shown[name]
                self._answered(name)
        self.cycle += 1
        return moved

    def _take(self, name: str) -> None:
        if name in self.allow:
            self.allow[name] -= 1

    def _accept(self, name: str, payload: dict[str, int]) -> None:
        """A burst on AR or AW."""
        burst = Burst(payload["addr"], payload["len"] + 1, payload["id"], 0)
        self._check(name, payload, burst)
        if name == "ar":
            burst.due = self.cycle + self.rng.randint(*self.latency)
            self.reads[burst.id].append(burst)
            self.counts.read_bursts += 1
        else:
            self.writes.append(burst)
            self.counts.write_bursts += 1
        open_bursts = self.reads[burst.id] if name == "ar" else (*self.writes, *self.responses)
        under_way = sum(other.id == burst.id for other in open_bursts)
        if under_way > self.outstanding:
            raise StreamError(f"{name}: {under_way} bursts of id {burst.id} are in flight")

    def _check(self, name: str, payload: dict[str, int], burst: Burst) -> None:
        rules = {
            "id": burst.id < (self.ids if name == "ar" else self.write_ids),
            "length": burst.beats <= self.longest,
            "alignment": burst.address % self.config.bus_bytes == 0,
            "window": not self.windows or any(window.holds(burst.address) for window in self.windows),
            "attributes": (payload["cache"], payload["prot"]) == (0b0011, 0b010),
        }
        report_broken(name, burst.address, burst.beats, rules)

    def _write_beats(self) -> None:
        """Matches write beats with their bursts."""
        size = self.config.bus_bytes
        while self._beats and self.writes:
            word, strobe, last = self._beats.popleft()
            burst = self.writes[0]
            at = burst.address + burst.done * size
            old = self.read(at, size)
            new = word.to_bytes(size, "little")
            self.write(at, bytes(new[i] if strobe >> i & 1 else old[i] for i in range(size)))
            burst.failed |= at // size in self.bad_beats
            burst.done += 1
            if last:
                self.writes.popleft()
                burst.due = self.cycle + self.rng.randint(*self.latency)
                self.responses.append(burst)

    def _answered(self, name: str) -> None:
        if name == "b":
            assert self._responding is not None
            self.responses.remove(self._responding)
            return
        burst = self._reading
        assert burst is not None
        self.counts.read_beats += 1
        older = [queue[0] for queue in self.reads.values() if queue and queue[0].due < burst.due]
        self.counts.overtaken += any(other is not burst for other in older)
        burst.done += 1
        if burst.done == burst.beats:
            self.reads[burst.id].popleft()


class EmptyMemory(AxiMemory):
    """Memory that is empty at first, as a golden model's."""

    def page(self, number: int) -> bytearray:
        """Bytes of a page."""
        return self._pages.setdefault(number, bytearray(PAGE))

    def clear(self) -> None:
        """Forgets the contents."""
        self._pages.clear()

    def compare(self, model: Memory) -> None:
        """Every byte of both windows of a model's memory.

        Raises:
            StreamError: this memory holds something else.
        """
        for window in (model.device, model.host):
            want = model.view(window.start, window.pages * PAGE).reshape(-1, PAGE)
            held = (np.flatnonzero(want.any(axis=1)) + window.base).tolist()
            for number in {*held, *self._pages}:
                if window.base <= number < window.base + window.pages:
                    self._compare_page(number, want[number - window.base])

    def _compare_page(self, number: int, want: np.ndarray) -> None:
        got = np.frombuffer(self.page(number), dtype=np.uint8)
        if (want != got).any():
            at = int((want != got).argmax())
            raise StreamError(
                f"memory at {number * PAGE + at:#x} is {got[at : at + 16].tobytes().hex()}, "
                f"not {want[at : at + 16].tobytes().hex()}"
            )

    def copy_from(self, model: Memory) -> None:
        """Brings it to what a model's memory holds."""
        for window in (model.device, model.host):
            held = model.view(window.start, window.pages * PAGE).reshape(-1, PAGE).any(axis=1)
            for page in np.flatnonzero(held):
                self.page(window.base + int(page))
        for number in self._pages:
            self.write(number * PAGE, model.read(number * PAGE, PAGE))

    def copy_to(self, model: Memory) -> None:
        """Brings a model's memory to what this one holds."""
        for number in self._pages:
            model.write(number * PAGE, self.read(number * PAGE, PAGE))
