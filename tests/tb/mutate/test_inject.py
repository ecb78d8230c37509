"""Mutants of a small design: each does among all what it does built in alone, and nothing when it is off."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from amaranth.sim import Simulator

from vrex.tb.mutate import inject
from vrex.tb.mutate.points import KINDS, instrument

TOY = """
from amaranth import Module, Mux, Signal
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

WIDTH = 2 + 2


class Kind(enum.Enum, shape=2):
    IDLE = 0
    BUSY = 1


class Toy(wiring.Component):
    a: In(WIDTH)
    b: In(WIDTH)
    o: Out(8)
    p: Out(8)
    q: Out(1)
    s: Out(2)

    def elaborate(self, platform):
        m = Module()
        count, kind = Signal(4), Signal(Kind)
        double = WIDTH + WIDTH if WIDTH > 1 else 0
        more = [self.p[0].eq(self.a[0] ^ self.b[0])]
        m.d.comb += [self.q.eq(self.a.any() & ~self.b[0]), *more]
        m.d.comb += self.s.eq(kind)
        m.d["sync"] += count.eq(count + 1)
        with m.If((self.a == self.b) | (self.a == 3)):
            m.d.sync += [count.eq(0), self.o.eq(self.a - self.b)]
        with m.Elif(self.a < self.b):
            m.d.sync += self.o.eq(Mux(count[0], self.a << 1, self.b >> 1)[:double])
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += kind.eq(Kind.IDLE)
                with m.If(self.b.all() | (kind == Kind.BUSY)):
                    m.next = "BUSY"
            with m.State("BUSY"):
                m.d.comb += kind.eq(Kind.BUSY)
                with m.If(count >= 2):
                    m.next = "IDLE"
        return m
"""

Trace = list[tuple[int, ...]]


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The instrumented module of the design."""
    (tmp_path / "vrex_toy.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    inject.install({"vrex_toy": "toy.py"})
    yield importlib.import_module("vrex_toy")
    del sys.modules["vrex_toy"]
    inject.begin()


def trace(toy: Any, number: int = 0) -> Trace:
    """Outputs of 60 cycles of random inputs with a mutant on."""
    component, random, seen = toy.Toy(), Random(1), []
    simulator = Simulator(component)
    simulator.add_clock(1e-6)

    async def drive(ctx: Any) -> None:
        ctx.set(inject.wanted.number, number)
        for _ in range(60):
            ctx.set(component.a, random.choice([0, 3, 15, random.randrange(16)]))
            ctx.set(component.b, random.choice([0, 3, 15, random.randrange(16)]))
            await ctx.delay(1e-8)
            seen.append(tuple(ctx.get(port) for port in (component.o, component.p, component.q, component.s)))
            await ctx.tick()

    simulator.add_testbench(drive)
    simulator.run()
    return seen


def test_every_mutant_is_the_same_alone_and_among_all(toy: Any) -> None:
    original = trace(toy)
    numbers = {name: number for number, name in enumerate(inject.wanted.reached, 1)}
    unseen = []
    for name, number in numbers.items():
        inject.begin(alone=name)
        alone = trace(toy)
        inject.begin(numbers)
        assert trace(toy, number) == alone, name
        if alone == original:
            unseen.append(name)
    inject.begin(numbers)
    assert trace(toy) == original
    # `kind` is IDLE in IDLE, so the drop and the test for BUSY change nothing; in Elif a and b differ.
    assert sorted(unseen) == [
        "toy.py Toy.elaborate drop: kind.eq(Kind.IDLE)",
        "toy.py Toy.elaborate left: self.b.all() | (kind == Kind.BUSY)",
        "toy.py Toy.elaborate swap: self.a < self.b",
    ]


def test_mutants_are_where_hardware_is_made(toy: Any) -> None:
    _, mutants = instrument(TOY, "toy.py")
    inject.begin()
    trace(toy)
    reached = set(inject.wanted.reached)
    assert reached < {mutant.name for mutant in mutants}
    unreached = [mutant for mutant in mutants if mutant.name not in reached]
    assert {mutant.text for mutant in unreached} == {"WIDTH + WIDTH", "WIDTH > 1", "kind == Kind.BUSY"}
    assert {mutant.kind for mutant in mutants if mutant.name in reached} == set(KINDS)


def test_names_survive_moves_of_lines() -> None:
    _, before = instrument(TOY, "toy.py")
    moved = TOY.replace("        more = ", "        # a comment\n\n        more =  ")
    _, after = instrument(moved, "toy.py")
    assert [mutant.name for mutant in after] == [mutant.name for mutant in before]
    assert after[-1].line == before[-1].line + 2


def test_the_same_text_twice_in_a_function_makes_two_names() -> None:
    _, mutants = instrument("def f(a, b):\n    return a & b, a & b\n", "f.py")
    assert [mutant.name for mutant in mutants[2:4]] == ["f.py f swap: a & b", "f.py f left: a & b #2"]


def test_what_is_imported_already_is_not_instrumented() -> None:
    with pytest.raises(RuntimeError, match=r"already imported: vrex.tb.mutate.inject"):
        inject.install({"vrex.tb.mutate.inject": "inject.py"})
