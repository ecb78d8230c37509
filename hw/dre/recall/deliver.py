"""Reads K and V of the tokens that a bitmask names, from a token store (`vrex.model.dre.token_store`).

The bitmask is loaded, then every token has its turn, one a cycle; `RunJoiner` makes one read of tokens that
follow each other, `RunReader` reads them while the scan goes on.
"""

import operator
from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from vrex.hw.dre.kvmu.bitmask import MaskMemory
from vrex.hw.dre.kvmu.fetch import DONE, RunJoiner, RunReader
from vrex.hw.dre.kvmu.table import STATUS_BITS, status_of
from vrex.hw.dre.recall.records import Unpack
from vrex.hw.lib.axi.burst import ADDRESS_BITS, PAGE_BITS, REQUEST, Error, beat_layout
from vrex.hw.lib.stream import delay, reduce_tree
from vrex.model.commands import Status
from vrex.model.config import KvmuConfig

MASK_CYCLES = 3
"""From a token's number to its bit of the bitmask."""

COMMAND = data.StructLayout({"page": 32, "packed": 1, "tokens": 16})
"""Page of the first token's K and V, whether they are packed, and the tokens that there are, at least one."""


class Deliver(wiring.Component):
    """Executes one command after the other: a bitmask, then the beats it asks for.

    Takes `ceil(tokens / 32)` cycles for the bitmask and a cycle a token besides the reads that it waits for.

    Args:
        config: of the KV store.
        bus_bits: width of a beat.

    Members:
        cmd: where the tokens are.
        masks: beats of the bitmask.
        kv: beats of K and V; all have left before `done`. Those of a read that failed are left out.
        done: status.
        read, beats: a buffered client's side of `vrex.hw.lib.axi.reader.AxiReader`.
    """

    cmd: stream.Interface
    masks: stream.Interface
    kv: stream.Interface
    done: stream.Interface
    read: stream.Interface
    beats: stream.Interface

    def __init__(self, config: KvmuConfig, *, bus_bits: int) -> None:
        self.config, self.bus_bits = config, bus_bits
        super().__init__(
            {
                "cmd": In(stream.Signature(COMMAND)),
                "masks": In(stream.Signature(bus_bits)),
                "kv": Out(stream.Signature(bus_bits)),
                "done": Out(stream.Signature(DONE)),
                "read": Out(stream.Signature(REQUEST)),
                "beats": In(stream.Signature(beat_layout(bus_bits))),
            }
        )
        self.command: Any = Signal(COMMAND)
        self.status = Signal(STATUS_BITS)
        # Tokens are to come; of the one that has its turn.
        self.open = Signal()
        self.number = Signal(16)

    def elaborate(self, platform: Any) -> Module:
        """Hardware: bitmask, the path from tokens to reads, records made K and V again, a state machine."""
        m = Module()
        m.submodules.mask = mask = MaskMemory(self.bus_bits)
        m.submodules.joiner = joiner = RunJoiner(self.config.token_bytes)
        m.submodules.runs = runs = RunReader(self.bus_bits, outstanding=self.config.outstanding)
        m.submodules.unpack = self.unpack = unpack = Unpack(self.config, bus_bits=self.bus_bits)
        failed = self.status != Status.OK
        connect(m, flipped(self.masks), mask.beats)
        connect(m, joiner.run, runs.run)
        m.d.comb += unpack.i.payload.eq(runs.kv.payload)
        with m.If(self.command.packed):
            connect(m, unpack.o, flipped(self.kv))
            m.d.comb += [unpack.i.valid.eq(runs.kv.valid), runs.kv.ready.eq(unpack.i.ready)]
        with m.Else():
            connect(m, runs.kv, flipped(self.kv))
        connect(m, runs.read, flipped(self.read))
        connect(m, flipped(self.beats), runs.beats)
        m.d.comb += [
            mask.clusters.eq(self.command.tokens),
            mask.known.eq(self.command.tokens),
            mask.cluster.eq(self.number),
            runs.discard.eq(failed),
            self.done.payload.status.eq(self.status),
        ]
        # A cycle late: at most eight tokens are then behind the level that was compared.
        turn = self.open & delay(m, runs.has_space, 1, "has_space", reset=True)
        on_the_way = self._locate(m, turn, mask.selected, joiner.segment)
        # The last token's segment ends a run by itself, or the cycle behind it does.
        m.d.comb += joiner.scanning.eq(self.open | on_the_way)
        with m.If(turn):
            m.d.sync += self.number.eq(self.number + 1)
            with m.If(self.number == self.command.tokens - 1):
                m.d.sync += self.open.eq(0)
        with m.If((runs.error != Error.NONE) & ~failed):
            m.d.sync += self.status.eq(status_of(runs.error))
        with m.If(failed):
            m.d.sync += self.open.eq(0)
        working = self.open | on_the_way | joiner.segment.valid | joiner.pending | runs.busy
        self._control(m, mask, working | unpack.busy)
        return m

    def _locate(self, m: Module, turn: Any, selected: Any, segment: Any) -> Any:
        """Shows the token as a segment, whole, behind the last; returns whether one is on the way there."""
        whole, record = self.config.token_bytes, self.unpack.shape.bits // 8
        packed = self.command.packed
        first = Signal(ADDRESS_BITS)
        address = Signal(ADDRESS_BITS)
        place = Signal(16 + whole.bit_length())
        number = delay(m, self.number, MASK_CYCLES - 2, "number_late")
        m.d.sync += [
            first.eq(self.command.page << PAGE_BITS),
            place.eq(Mux(packed, number * record, number * whole)),
            address.eq(first + place),
        ]
        stages = [delay(m, turn, 1, "token", reset=True)]
        while len(stages) < MASK_CYCLES:
            stages.append(delay(m, stages[-1], 1, "token", reset=True))
        m.d.comb += [
            segment.valid.eq(delay(m, stages[-1], 1, "there", reset=True)),
            segment.wanted.eq(delay(m, stages[-1] & selected, 1, "wanted", reset=True)),
            segment.address.eq(delay(m, address, 1, "segment_address")),
            segment.bytes.eq(Mux(packed, record, whole)),
            segment.host.eq(1),
            segment.full.eq(1),
            segment.follows.eq(1),
        ]
        return reduce_tree(stages, operator.or_)

    def _control(self, m: Module, mask: MaskMemory, working: Any) -> None:
        """Sequence of one command."""
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.cmd.ready.eq(1)
                m.d.sync += [self.command.eq(self.cmd.payload), self.status.eq(Status.OK), self.number.eq(0)]
                with m.If(self.cmd.valid):
                    m.next = "START"
            with m.State("START"):
                # The bitmask's number of tokens is stable a cycle before it comes.
                m.d.comb += [mask.start.eq(1), self.unpack.clear.eq(1)]
                m.next = "MASK"
            with m.State("MASK"), m.If(~mask.loading):
                m.d.sync += self.open.eq(mask.some)
                m.next = "SCAN"
            with m.State("SCAN"):
                m.next = "DRAIN"
            with m.State("DRAIN"), m.If(~working):
                m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += self.done.valid.eq(1)
                with m.If(self.done.ready):
                    m.next = "IDLE"
