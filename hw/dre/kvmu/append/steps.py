"""APPEND as a table: what each step reads and writes, where its data come from, and what follows it.

A step makes at most one read and one write, which run at the same time. Between steps the sequencer may pass
through phases without accesses (`Phase`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, IntEnum, auto
from typing import Any

from amaranth import Cat


class Step(IntEnum):
    """Steps in the order of a command; those from STAGED on update the table."""

    HEADER = 0
    COPY_PAGES = 1
    BLOCK_COUNTS = 2
    FOUNDERS = 3
    COUNT = 4
    TAIL = 5
    TOKEN = 6
    MEAN = 7
    EVICT = 8
    STAGED = 9
    CODES = 10
    NEW_SCALE = 11
    NEW_COUNT = 12
    NEW_TAIL = 13
    NEW_MAP = 14
    NEW_HASH = 15
    COUNTERS = 16
    POISON = 17


class Phase(Enum):
    """What the sequencer does between steps; the values are states of its FSM."""

    CLUSTER = "CLUSTER"
    DECIDE = "DECIDE"
    PLACE = "PLACE"
    EVICTIONS = "EVICTIONS"
    RESULT = "RESULT"
    DONE = "DONE"


class Address(Enum):
    """Where an access begins; `AddressUnit` computes them."""

    HEADER = auto()
    COPY_PAGES = auto()
    FLAGS = auto()
    BLOCK_COUNTS = auto()
    BLOCK_HASHES = auto()
    COUNT = auto()
    TAIL = auto()
    HASH = auto()
    MEANS = auto()
    MEAN_BEFORE = auto()
    STAGED = auto()
    CODES = auto()
    SCALE = auto()
    MAP = auto()
    SLOT = auto()
    RING_SEGMENT = auto()
    HOST_SEGMENT = auto()


class Size(Enum):
    """Bytes of an access; `AddressUnit` computes them. KEY: a key or a mean of one KV head."""

    HEADER = auto()
    COPY_PAGES = auto()
    COUNTERS = auto()
    FLAGS = auto()
    BLOCK_COUNTS = auto()
    BLOCK_HASHES = auto()
    COUNT = auto()
    TAIL = auto()
    HASH = auto()
    KEY = auto()
    KEY_BEFORE = auto()
    KEYS_OF_ALL_HEADS = auto()
    CODES = auto()
    SCALE = auto()
    MAP = auto()
    KEY_AND_VALUE = auto()
    SEGMENT = auto()


class Sink(Enum):
    """Where read data go; WRITER: they are copied."""

    HEADER = auto()
    COPY_PAGES = auto()
    BLOCK_COUNTS = auto()
    HCU = auto()
    COUNT = auto()
    TAIL = auto()
    MEAN = auto()
    QUANT = auto()
    WRITER = auto()


class Source(Enum):
    """Where written data come from; READ: from the step's read, WORD: from `WordSource`."""

    PAYLOAD = auto()
    MEAN = auto()
    QUANT = auto()
    READ = auto()
    WORD = auto()


class Counter(Enum):
    """Counters over which steps are repeated."""

    BLOCK = auto()
    HEAD = auto()
    TOKEN = auto()


class Condition(Enum):
    """What a successor may depend on: the table has a quantised copy; the token opened its cluster."""

    COPY = auto()
    OPENED = auto()


@dataclass(frozen=True)
class Read:
    """A step's read."""

    address: Address
    bytes: Size
    sink: Sink


@dataclass(frozen=True)
class Write:
    """A step's write."""

    address: Address
    bytes: Size
    source: Source


@dataclass(frozen=True)
class Choice:
    """`yes` follows where the condition holds, else `no`."""

    condition: Condition
    yes: "Successor"
    no: "Successor"


@dataclass(frozen=True)
class Repeat:
    """A nested loop: `again` follows until all `counters` have reached their last values, then `then`.

    The first counter is the innermost: it advances; at its last value it returns to 0 and the next one
    advances.
    """

    counters: tuple[Counter, ...]
    again: Step
    then: "Successor"


Successor = Step | Phase | Choice | Repeat


@dataclass(frozen=True)
class Row:
    """One step.

    Attributes:
        then: what follows it if it does not fail.
        read, write: its accesses.
        by_head: it accesses the row of one KV head, not those of all.
    """

    then: Successor
    read: Read | None = None
    write: Write | None = None
    by_head: bool = False


NEXT_TOKEN = Repeat((Counter.TOKEN,), again=Step.STAGED, then=Step.COUNTERS)

STEPS = {
    # The table, and the chunk's clusters.
    Step.HEADER: Row(
        read=Read(Address.HEADER, Size.HEADER, Sink.HEADER),
        then=Choice(Condition.COPY, yes=Step.COPY_PAGES, no=Phase.CLUSTER),
    ),
    Step.COPY_PAGES: Row(
        read=Read(Address.COPY_PAGES, Size.COPY_PAGES, Sink.COPY_PAGES),
        then=Phase.CLUSTER,
    ),
    Step.BLOCK_COUNTS: Row(
        read=Read(Address.BLOCK_COUNTS, Size.BLOCK_COUNTS, Sink.BLOCK_COUNTS),
        then=Step.FOUNDERS,
    ),
    Step.FOUNDERS: Row(
        read=Read(Address.BLOCK_HASHES, Size.BLOCK_HASHES, Sink.HCU),
        then=Repeat((Counter.BLOCK,), again=Step.BLOCK_COUNTS, then=Phase.DECIDE),
    ),
    # For a token that is the chunk's first in its cluster.
    Step.COUNT: Row(
        read=Read(Address.COUNT, Size.COUNT, Sink.COUNT),
        then=Step.TAIL,
    ),
    Step.TAIL: Row(
        read=Read(Address.TAIL, Size.TAIL, Sink.TAIL),
        then=Phase.PLACE,
    ),
    # Key and value of each token and KV head; nothing that the table holds is overwritten.
    Step.TOKEN: Row(
        write=Write(Address.SLOT, Size.KEY_AND_VALUE, Source.PAYLOAD),
        then=Step.MEAN,
    ),
    Step.MEAN: Row(
        read=Read(Address.MEAN_BEFORE, Size.KEY_BEFORE, Sink.MEAN),
        write=Write(Address.STAGED, Size.KEY, Source.MEAN),
        by_head=True,
        then=Repeat((Counter.HEAD, Counter.TOKEN), again=Step.TOKEN, then=Phase.EVICTIONS),
    ),
    Step.EVICT: Row(
        read=Read(Address.RING_SEGMENT, Size.SEGMENT, Sink.WRITER),
        write=Write(Address.HOST_SEGMENT, Size.SEGMENT, Source.READ),
        then=Repeat((Counter.HEAD,), again=Step.EVICT, then=Phase.EVICTIONS),
    ),
    # The updates of the table, token by token.
    Step.STAGED: Row(
        read=Read(Address.STAGED, Size.KEYS_OF_ALL_HEADS, Sink.WRITER),
        write=Write(Address.MEANS, Size.KEYS_OF_ALL_HEADS, Source.READ),
        then=Choice(Condition.COPY, yes=Step.CODES, no=Step.NEW_COUNT),
    ),
    Step.CODES: Row(
        read=Read(Address.STAGED, Size.KEY, Sink.QUANT),
        write=Write(Address.CODES, Size.CODES, Source.QUANT),
        by_head=True,
        then=Step.NEW_SCALE,
    ),
    Step.NEW_SCALE: Row(
        write=Write(Address.SCALE, Size.SCALE, Source.WORD),
        by_head=True,
        then=Repeat((Counter.HEAD,), again=Step.CODES, then=Step.NEW_COUNT),
    ),
    Step.NEW_COUNT: Row(
        write=Write(Address.COUNT, Size.COUNT, Source.WORD),
        then=Step.NEW_TAIL,
    ),
    Step.NEW_TAIL: Row(
        write=Write(Address.TAIL, Size.TAIL, Source.WORD),
        then=Step.NEW_MAP,
    ),
    Step.NEW_MAP: Row(
        write=Write(Address.MAP, Size.MAP, Source.WORD),
        then=Choice(Condition.OPENED, yes=Step.NEW_HASH, no=NEXT_TOKEN),
    ),
    Step.NEW_HASH: Row(
        write=Write(Address.HASH, Size.HASH, Source.WORD),
        then=NEXT_TOKEN,
    ),
    # The header: its counters at the end, or its flags after an update that failed.
    Step.COUNTERS: Row(
        write=Write(Address.HEADER, Size.COUNTERS, Source.WORD),
        then=Phase.RESULT,
    ),
    Step.POISON: Row(
        write=Write(Address.FLAGS, Size.FLAGS, Source.WORD),
        then=Phase.DONE,
    ),
}
"""Every step of an APPEND."""

UPDATES = tuple(step for step in Step if Step.STAGED <= step < Step.POISON)
"""Steps that update the table; one that fails leaves it inconsistent, so it must be poisoned."""


def reading_for(*sinks: Sink) -> tuple[Step, ...]:
    """Steps that read for one of the sinks."""
    return tuple(step for step, row in STEPS.items() if row.read is not None and row.read.sink in sinks)


def writing_from(*sources: Source) -> tuple[Step, ...]:
    """Steps that write what comes from one of the sources."""
    return tuple(step for step, row in STEPS.items() if row.write is not None and row.write.source in sources)


def step_in(flags: Any, steps: Iterable[Step]) -> Any:
    """Whether the step is one of these, from its one-hot flags."""
    return Cat(flags[step] for step in steps).any()
