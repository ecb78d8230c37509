"""Blocks of clusters: sizes, and marks of those that are closed."""

from typing import Any

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from vrex.hw.dre.hcu import founders_in_a_beat
from vrex.hw.dre.kvmu.table import HEADER
from vrex.model.config import MAX_COUNT, HcuConfig
from vrex.model.dre.kvstore import CLOSED, COUNT_BYTES

BLOCK_CLUSTERS = 128
"""Clusters of a block. If any cluster is closed, the counts of a block are read before its hashes."""

BLOCK_SHIFT = BLOCK_CLUSTERS.bit_length() - 1
BLOCK_BITS = 16 - BLOCK_SHIFT


class Blocks(wiring.Component):
    """Sizes of a table's blocks, and marks of a block's closed clusters.

    A table without closed clusters is one block, whose counts are not read. In the last block, marks past
    the last cluster may be stale; nothing reads them.

    Args:
        hcu: whose hash-bits are read.
        bus_bits: width of a beat.

    Members:
        header: of the table.
        block: number of the block.
        clear: clears the marks.
        counts: beats of the block's counts.
        founder_taken: a beat of founders is transferred to the HCU.
        last_block: the block is the table's last; one cycle after `block`, two after `header`.
        block_counts, founders: counts and founders' hashes to read, two cycles after `last_block`.
        hcu_closed: which founders in the HCU's next beat are closed.
    """

    header: Any
    block: Signal
    clear: Signal
    counts: stream.Interface
    founder_taken: Signal
    last_block: Signal
    block_counts: Signal
    founders: Signal
    hcu_closed: Signal

    def __init__(self, hcu: HcuConfig, *, bus_bits: int) -> None:
        self.hcu, self.bus_bits = hcu, bus_bits
        self.marks = Signal(BLOCK_CLUSTERS)
        self.counts_beat = Signal(8)
        self.founder_beat = Signal(16)
        super().__init__(
            {
                "header": In(HEADER),
                "block": In(BLOCK_BITS),
                "clear": In(1),
                "counts": In(stream.Signature(bus_bits, always_ready=True)),
                "founder_taken": In(1),
                "last_block": Out(1),
                "block_counts": Out(range(BLOCK_CLUSTERS + 1)),
                "founders": Out(16),
                "hcu_closed": Out(founders_in_a_beat(hcu, bus_bits)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware: comparators for a beat of counts, a register of marks, and registered sizes."""
        m = Module()
        clusters = self.header.clusters
        last = Signal(16)
        has_closed = (self.header.flags & CLOSED) != 0
        m.d.sync += [
            last.eq(clusters - 1),
            self.last_block.eq(~has_closed | (self.block == last >> BLOCK_SHIFT)),
            self.block_counts.eq(Mux(self.last_block, last[:BLOCK_SHIFT] + 1, BLOCK_CLUSTERS)),
            self.founders.eq(Mux(has_closed, self.block_counts, clusters)),
        ]
        self._mark(m)
        return m

    def _mark(self, m: Module) -> None:
        """Stores marks beat by beat of counts, and selects those of a beat of founders."""
        bus_bits = self.bus_bits
        per_beat, in_beat = bus_bits // (8 * COUNT_BYTES), founders_in_a_beat(self.hcu, bus_bits)
        counts = [self.counts.payload.word_select(i, 8 * COUNT_BYTES) for i in range(per_beat)]
        group = self.counts_beat[: (BLOCK_CLUSTERS // per_beat).bit_length() - 1]
        shown = self.founder_beat[: (BLOCK_CLUSTERS // in_beat).bit_length() - 1]
        m.d.comb += self.hcu_closed.eq(self.marks.word_select(shown, in_beat))
        with m.If(self.counts.valid):
            m.d.sync += [
                self.counts_beat.eq(self.counts_beat + 1),
                self.marks.word_select(group, per_beat).eq(Cat(count == MAX_COUNT for count in counts)),
            ]
        with m.If(self.founder_taken):
            m.d.sync += [self.founder_beat.eq(self.founder_beat + 1), self.counts_beat.eq(0)]
        with m.If(self.clear):
            m.d.sync += [self.marks.eq(0), self.founder_beat.eq(0)]
