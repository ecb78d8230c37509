"""Bounded proofs of what moves between `recall` and memory, each with planted bugs that it catches."""

from pathlib import Path
from typing import Any

import pytest
from amaranth import Mux, Signal

from tests.hw.dre.test_formal import pytestmark as needs_yices
from tests.hw.dre.test_formal import unit_proof, with_bug
from tests.hw.formal import Proof
from vrex.hw.dre.recall import aligner, records, store
from vrex.hw.lib.axi.burst import Error
from vrex.model.config import CodesConfig, KvmuConfig, MeanConfig

pytestmark = needs_yices

ALIGNER_DEPTH = 12
"""Two packets of two beats and stalls."""

BYTES = 2
"""Of a beat in the aligner's proof."""


def aligner_proof(unit: Any) -> Proof:
    """Any byte of any packet, followed from its acceptance, comes out in its place, with zeros before it."""
    proof = unit_proof(unit, ("cmd", "i"), ("o",))
    m, cmd = proof.m, unit.cmd.payload
    proof.always((cmd.take != 0) & (cmd.take <= 3) & ((cmd.give == cmd.take) | (cmd.give == cmd.take + 1)))
    # A shift of 0 fills no beat more.
    proof.always((cmd.shift != 0) | (cmd.give == cmd.take))
    which, lane = proof.constant(3, "which"), proof.constant(1, "lane")
    # Beats taken and given so far; of the packet in work: its first ones' numbers, its beats, its shift.
    taken, given = Signal(4), Signal(4)
    first, base, size, shift = Signal(4), Signal(4), Signal(4), Signal(1)
    accepted, delivered = unit.i.valid & unit.i.ready, unit.o.valid & unit.o.ready
    ends = (base + size)[:4]
    with m.If(unit.cmd.valid & unit.cmd.ready):
        m.d.sync += [first.eq(taken), base.eq(ends), size.eq(cmd.give), shift.eq(cmd.shift)]
    known, byte, beat, place = Signal(), Signal(8), Signal(4), Signal(1)
    at = (taken - first)[:4] * BYTES + lane + shift
    with m.If(accepted):
        m.d.sync += taken.eq(taken + 1)
        # Where the packet's last beat fills no other, its upper bytes are padding.
        with m.If((taken == which) & (at >> 1 < size)):
            m.d.sync += [
                known.eq(1),
                byte.eq(unit.i.payload.word_select(lane, 8)),
                beat.eq(base + (at >> 1)),
                place.eq(at[0]),
            ]
    m.d.sync += given.eq(given + delivered)
    now = unit.o.valid & known & (beat == given)
    proof.holds(~now | (unit.o.payload.word_select(place, 8) == byte))
    proof.holds(~unit.o.valid | (given < ends))
    opens = unit.o.valid & (given == base) & (shift != 0)
    proof.holds(~opens | (unit.o.payload[:8] == 0))
    proof.holds(unit.busy | (given == ends))
    # What needs no more beats comes at once.
    owed = (ends - given - delivered)[:4] != 0
    proof.holds(~proof.past(owed & ~unit.takes & (unit.o.ready | ~unit.o.valid)) | unit.o.valid)
    return proof


def test_aligner(tmp_path: Path) -> None:
    assert aligner_proof(aligner.Aligner(8 * BYTES, step=1)).run(tmp_path, ALIGNER_DEPTH)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("carry.eq(both[self.bus_bits : 2 * self.bus_bits])", "carry.eq(both[: self.bus_bits])"),
        ("shift.eq(cmd.shift), carry.eq(0)", "shift.eq(cmd.shift)"),
        ("moves = giving & free & (self.i.valid | ~taking)", "moves = giving & free & self.i.valid"),
        ("self.busy.eq(giving | self.o.valid)", "self.busy.eq(giving)"),
        ("free = self.o.ready | ~self.o.valid", "free = self.o.ready | 1"),
    ],
)
def test_a_bug_in_the_aligner_is_caught(good: str, bad: str, tmp_path: Path) -> None:
    broken = with_bug(aligner, good, bad).Aligner(8 * BYTES, step=1)
    assert not aligner_proof(broken).run(tmp_path, ALIGNER_DEPTH)


def unpack_proof(unit: Any) -> Proof:
    """Stream rules, where nobody clears; and each record gives K and V once."""
    proof = unit_proof(unit, ("i",), ("o",))
    m, shape = proof.m, unit.shape
    m.d.comb += unit.clear.eq(0)
    taken, given = Signal(8), Signal(8)
    with m.If(unit.i.valid & unit.i.ready):
        m.d.sync += taken.eq(taken + shape.token_beats)
    with m.If(unit.o.valid & unit.o.ready):
        m.d.sync += given.eq(given + shape.beats)
    # In units of a beat of a record times a beat of a token: nothing leaves before all of a record came.
    proof.holds(~unit.o.valid | (given < taken))
    proof.holds(unit.busy | (taken - given < shape.beats * shape.token_beats))
    return proof


SMALL = KvmuConfig(head_dim=16)
UNPACK_DEPTH = 18


def test_unpack(tmp_path: Path) -> None:
    assert unpack_proof(records.Unpack(SMALL, bus_bits=256)).run(tmp_path, UNPACK_DEPTH)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("free = ~self.o.valid | self.o.ready", "free = self.o.ready | 1"),
        ("self.busy.eq(giving | stages.any() | self.o.valid)", "self.busy.eq(giving | self.o.valid)"),
        ("self.i.ready.eq(~giving)", "self.i.ready.eq(1)"),
        ("with m.If(given == shape.token_beats - 1)", "with m.If(given == shape.token_beats - 2)"),
    ],
)
def test_a_bug_in_the_unpacker_is_caught(good: str, bad: str, tmp_path: Path) -> None:
    broken = with_bug(records, good, bad).Unpack(SMALL, bus_bits=256)
    assert not unpack_proof(broken).run(tmp_path, UNPACK_DEPTH)


STORE_DEPTH = 38
"""Three writes of a beat each and that of the count, each answered at once or late."""


def store_proof(unit: Any) -> Proof:
    """One token at most a beat: the count is written last, once, and only after three good answers."""
    proof = unit_proof(unit, ("cmd", "din"), ("write", "data", "done"))
    m, cmd = proof.m, unit.cmd.payload
    proof.always((cmd.count == 1) & ~cmd.packed & (cmd.address == 0) & (cmd.codes_page == 1))
    proof.always((cmd.scales_page == 2) & (cmd.host_page == 3) & (cmd.tokens < 16))
    # A writer: a request, all of its beats, then its answer.
    asked, good, bad, counted = Signal(), Signal(3), Signal(), Signal()
    left = Signal(4)
    request = unit.write.valid & unit.write.ready
    answer = proof.free(1, "answer")
    error = proof.free(2, "error")
    m.d.comb += [
        unit.written.valid.eq(asked & (left == 0) & answer),
        unit.written.payload.error.eq(error),
    ]
    proof.always(~asked | ~unit.write.ready)
    proof.always(~unit.data.ready | (asked & (left != 0)))
    is_count = unit.write.payload.address[12:] == 0
    with m.If(request):
        # Codes and scales lie in a beat, K and V in four, the count in one.
        m.d.sync += [asked.eq(1), left.eq(Mux(unit.write.payload.address[12:] == 3, 4, 1))]
        m.d.sync += counted.eq(is_count)
    with m.If(unit.data.valid & unit.data.ready):
        m.d.sync += left.eq(left - 1)
    with m.If(unit.written.valid & unit.written.ready):
        m.d.sync += [asked.eq(0), good.eq(good + 1)]
        with m.If(error != Error.NONE):
            m.d.sync += bad.eq(1)
    with m.If(unit.cmd.valid & unit.cmd.ready):
        m.d.sync += [good.eq(0), bad.eq(0), counted.eq(0)]
    proof.holds(~unit.write.valid | ~is_count | ((good == 3) & ~bad))
    proof.holds(~unit.write.valid | is_count | (~bad & ~counted))
    ends = unit.done.valid
    proof.holds(~ends | ((unit.done.payload.status == 0) == ((good == 4) & ~bad)))
    proof.holds(~ends | ~asked)
    return proof


def stored(module: Any) -> Any:
    return module.Store(
        codes=CodesConfig(lanes=1, bits=8), kvmu=SMALL, mean=MeanConfig(lanes=1), bus_bits=128
    )


def test_store(tmp_path: Path) -> None:
    assert store_proof(stored(store)).run(tmp_path, STORE_DEPTH)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (
            "with m.If(error == Error.NONE):\n                        m.next",
            "with m.If(1):\n                        m.next",
        ),
        (
            "with m.If(error != Error.NONE):\n                    m.next",
            "with m.If(0):\n                    m.next",
        ),
        ("& ~skid.o.valid & ~waiting):", "& ~skid.o.valid):"),
        ("with m.If(self.part == PARTS - 1):", "with m.If(self.part == PARTS - 2):"),
        ('with m.State("COUNTED"), m.If(~waiting):', 'with m.State("COUNTED"), m.If(1):'),
    ],
)
def test_a_bug_in_the_store_is_caught(good: str, bad: str, tmp_path: Path) -> None:
    assert not store_proof(stored(with_bug(store, good, bad))).run(tmp_path, STORE_DEPTH)
