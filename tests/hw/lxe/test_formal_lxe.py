"""Bounded proofs of what feeds the LXE's engines: addresses, lines and words, with planted bugs."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from amaranth import Const, Mux, Signal

from tests.hw.dre.test_formal import pytestmark, with_bug
from tests.hw.formal import Proof
from vrex.hw.lxe import reader, walker
from vrex.model.config import DpeConfig, LxeConfig

__all__ = ["pytestmark"]


WALKER_DEPTH = 16
"""A walk of 3 x 3 steps, another one begun, and stalls."""


def walker_proof(module: Any) -> Proof:
    """Addresses are those of two nested loops, computed by multiplication; none is lost or doubled."""
    proof, unit = Proof(), module.Walker(2, 6)
    m = proof.m
    m.submodules.unit = unit
    proof.sink(unit.o, "o")
    base, strides = proof.constant(6, "base"), [proof.constant(6, f"stride_{k}") for k in range(2)]
    counts = [proof.constant(2, f"count_{k}") for k in range(2)]
    start = proof.free(1, "start")
    for count in counts:
        proof.always(count != 0)
    proof.always(~(start & unit.busy))
    m.d.comb += [unit.start.eq(start), unit.base.eq(base)]
    m.d.comb += [port.eq(value) for port, value in zip(unit.counts, counts, strict=True)]
    m.d.comb += [port.eq(value) for port, value in zip(unit.strides, strides, strict=True)]
    outer, inner, walking = Signal(2), Signal(2), Signal()
    last = (outer == counts[0] - 1) & (inner == counts[1] - 1)
    step = unit.o.payload
    proof.holds(unit.o.valid == walking)
    proof.holds(unit.busy == walking)
    proof.holds(~walking | (step.address == (base + outer * strides[0] + inner * strides[1])[:6]))
    proof.holds(~walking | (step.last == last))
    proof.holds(~walking | ((step.index[0] == outer) & (step.index[1] == inner)))
    with m.If(start):
        m.d.sync += [walking.eq(1), outer.eq(0), inner.eq(0)]
    with m.Elif(walking & unit.o.ready):
        m.d.sync += [walking.eq(~last), inner.eq(Mux(inner == counts[1] - 1, 0, inner + 1))]
        m.d.sync += outer.eq(outer + (inner == counts[1] - 1))
    return proof


def test_walker(tmp_path: Path) -> None:
    assert walker_proof(walker).run(tmp_path, WALKER_DEPTH)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("for x in begun[k:]", "for x in begun[k : k + 1]"),
        ("value == count - 1", "value == count"),
        ("self.busy & self.o.ready", "self.busy"),
        ("x.eq(0) for x in index[k + 1 :]", "x.eq(1) for x in index[k + 1 :]"),
    ],
)
def test_a_bug_in_the_walker_is_caught(good: str, bad: str, tmp_path: Path) -> None:
    assert not walker_proof(with_bug(walker, good, bad)).run(tmp_path, WALKER_DEPTH)


READER_DEPTH = 16
"""More lines than there is room for, refused now and then."""


def reader_proof(module: Any) -> Proof:
    """Lines come in the order of the requests, each once, without the values that do not count."""
    config, dpe = LxeConfig(memory_kib=1, banks=1), DpeConfig(trees=1, inputs=2, rows=2)
    proof, unit = Proof(), module.Reader(config, dpe=dpe)
    m = proof.m
    m.submodules.unit = unit
    proof.drive(unit.request, "request")
    proof.sink(unit.o, "o")
    # Each line holds its number twice; what a memory shows when nothing was granted is anything.
    data, idle = Signal(32), proof.free(32, "idle")
    granted = unit.port.en & unit.port.granted
    m.d.comb += [unit.port.granted.eq(proof.free(1, "granted")), unit.port.data.eq(data)]
    number = Const(0, 8) | unit.port.line
    m.d.sync += data.eq(Mux(granted, number | number << 16, idle))
    which, asked, came = proof.constant(4, "which"), Signal(5), Signal(5)
    accepted, taken = unit.request.valid & unit.request.ready, unit.o.valid & unit.o.ready
    wanted = Signal(32)
    request = unit.request.payload
    low = Mux(request.keep > 0, request.line, 0)
    high = Mux(request.keep > 1, request.line, 0)
    m.d.sync += [asked.eq(asked + accepted), came.eq(came + taken)]
    with m.If(accepted & (asked == which)):
        m.d.sync += wanted.eq(low | high << 16)
    proof.always(request.first == 0)
    proof.holds(accepted == granted)
    proof.holds((asked - came)[:5] <= reader.ROOM)
    proof.holds(~unit.o.valid | (came != asked))
    proof.holds(~(unit.o.valid & (came == which)) | (unit.o.payload == wanted))
    proof.holds(~unit.idle | ((came == asked) & ~unit.request.valid))
    return proof


def test_reader(tmp_path: Path) -> None:
    assert reader_proof(reader).run(tmp_path, READER_DEPTH)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("(room != 0) & self.port.granted", "self.port.granted"),
        ("self.request.valid & (room != 0)", "self.request.valid"),
        ("(keep > i)", "(keep >= i)"),
        ("m.If(granted != taken)", "m.If(taken)"),
        ("~self.request.valid & (room == ROOM)", "(room == ROOM)"),
    ],
)
def test_a_bug_in_the_reader_is_caught(good: str, bad: str, tmp_path: Path) -> None:
    assert not reader_proof(with_bug(reader, good, bad)).run(tmp_path, READER_DEPTH)


UNPACKER_DEPTH = 14
"""Two rows of the longest below."""


def unpacker_proof(module: Any, inputs: int, lanes: int) -> Proof:
    """A row's lines give its words, and a new row begins with a new line."""
    proof, unit = Proof(), module.Unpacker(inputs, lanes)
    m = proof.m
    m.submodules.unit = unit
    proof.sink(unit.o, "o")
    words, bf16, valid = proof.constant(3, "words"), proof.constant(1, "bf16"), proof.free(1, "valid")
    proof.always(words != 0)
    waiting = proof.past(unit.i.valid & ~unit.i.ready)
    proof.always(~waiting | valid)
    # Every value of a line says which line it is, and its place.
    line, row_line = Signal(5), Signal(5)
    values = [Const(place, 4) | line << 4 for place in range(inputs)]
    m.d.comb += [unit.words.eq(words), unit.bf16.eq(bf16), unit.i.valid.eq(valid)]
    m.d.comb += [unit.i.payload.word_select(k, 16).eq(value) for k, value in enumerate(values)]
    taken, given = unit.i.valid & unit.i.ready, unit.o.valid & unit.o.ready
    word = Signal(3)
    ends = word == words - 1
    halves = Mux(bf16, 1, 2)
    m.d.sync += line.eq(line + taken)
    with m.If(given):
        m.d.sync += word.eq(Mux(ends, 0, word + 1))
        with m.If(ends):
            m.d.sync += row_line.eq(line + 1)
    for lane in range(lanes):
        for half in range(2):
            at = SimpleNamespace(index=(word * lanes + lane) * halves + half)
            bits = inputs.bit_length() - 1
            expected = (at.index[:bits] | (row_line + (at.index >> bits))[:5] << 4) if bits else row_line << 4
            found = unit.o.payload.word_select(2 * lane + half, 16)
            # Of a BF16 element the lower half counts.
            counts = unit.o.valid & ~(bf16 & half)
            proof.holds(~counts | (found == expected))
    return proof


@pytest.mark.parametrize(("inputs", "lanes"), [(2, 2), (2, 1), (4, 1)])
def test_unpacker(inputs: int, lanes: int, tmp_path: Path) -> None:
    assert unpacker_proof(reader, inputs, lanes).run(tmp_path, UNPACKER_DEPTH)


@pytest.mark.parametrize(
    ("good", "bad", "shape"),
    [
        ("ends | (whole | (place == places - 1))", "whole | (place == places - 1)", (4, 1)),
        ("place.eq(Mux(final, 0, place + 1))", "place.eq(place + 1)", (4, 1)),
        ("self.o.ready & final", "final", (4, 1)),
        ("has_half.eq(0)", "has_half.eq(has_half)", (2, 2)),
        ("Mux(begun, left, self.words)", "self.words", (2, 1)),
    ],
)
def test_a_bug_in_the_unpacker_is_caught(good: str, bad: str, shape: tuple[int, int], tmp_path: Path) -> None:
    assert not unpacker_proof(with_bug(reader, good, bad), *shape).run(tmp_path, UNPACKER_DEPTH)
