"""Founders block by block, each behind the marks of its closed clusters."""

from typing import Any

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from vrex.hw.dre.hcu import founders_in_a_beat
from vrex.hw.dre.kvmu.table import HEADER
from vrex.model.config import MAX_COUNT, Config
from vrex.model.dre.kvstore import CLOSED, COUNT_BYTES

BLOCK_CLUSTERS = 128
"""Clusters whose counts are read before their hashes where some cluster is closed."""

BLOCK_SHIFT = BLOCK_CLUSTERS.bit_length() - 1
BLOCK_BITS = 16 - BLOCK_SHIFT


class Blocks(wiring.Component):
    """Sizes of a table's blocks of clusters, and which clusters of a block are closed.

    A table without a closed cluster is one block, whose counts are not read. In the last block marks past
    the last cluster may be stale; no founder is sent for them.

    Args:
        config: accelerator; `bus_bits` and `hcu.hash_bits` matter.

    Members:
        header: of the table.
        block: number of the block.
        clear: another command; no cluster is marked.
        counts: beats of the block's counts, always taken.
        founder_taken: a beat of founders was passed to the HCU.
        closing: some cluster of the table is closed.
        last_block: the block is the table's last; one cycle after `block`, two after `header`.
        block_counts, founders: counts and founders' hashes to read, two cycles after `last_block`.
        hcu_closed: which founders in the HCU's next beat are closed.
    """

    header: Any
    block: Signal
    clear: Signal
    counts: stream.Interface
    founder_taken: Signal
    closing: Signal
    last_block: Signal
    block_counts: Signal
    founders: Signal
    hcu_closed: Signal

    def __init__(self, config: Config) -> None:
        self.config = config
        self.marks = Signal(BLOCK_CLUSTERS)
        self.counts_beat, self.founder_beat = Signal(8), Signal(16)
        super().__init__(
            {
                "header": In(HEADER),
                "block": In(BLOCK_BITS),
                "clear": In(1),
                "counts": In(stream.Signature(config.bus_bits, always_ready=True)),
                "founder_taken": In(1),
                "closing": Out(1),
                "last_block": Out(1),
                "block_counts": Out(range(BLOCK_CLUSTERS + 1)),
                "founders": Out(16),
                "hcu_closed": Out(founders_in_a_beat(config)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware: comparators of a beat of counts, a register of marks, and the block's sizes."""
        m = Module()
        clusters, last = self.header.clusters, Signal(16)
        m.d.comb += self.closing.eq((self.header.flags & CLOSED) != 0)
        m.d.sync += [
            last.eq(clusters - 1),
            self.last_block.eq(~self.closing | (self.block == last >> BLOCK_SHIFT)),
            self.block_counts.eq(Mux(self.last_block, last[:BLOCK_SHIFT] + 1, BLOCK_CLUSTERS)),
            self.founders.eq(Mux(self.closing, self.block_counts, clusters)),
        ]
        self._mark(m)
        return m

    def _mark(self, m: Module) -> None:
        """Marks a beat of counts after the other, and shows the marks of a beat of founders."""
        hash_bits, bus_bits = self.config.hcu.hash_bits, self.config.bus_bits
        per_beat, in_beat = bus_bits // (8 * COUNT_BYTES), founders_in_a_beat(self.config)
        counts = [self.counts.payload.word_select(i, 8 * COUNT_BYTES) for i in range(per_beat)]
        group = self.counts_beat[: (BLOCK_CLUSTERS // per_beat).bit_length() - 1]
        beats_of_a_hash = max(1, hash_bits // bus_bits)
        first = self.founder_beat >> (beats_of_a_hash.bit_length() - 1)
        shown = first[: (BLOCK_CLUSTERS // in_beat).bit_length() - 1]
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
