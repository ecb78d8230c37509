"""The segments of a table that are in the ring before and after a chunk."""

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class Residency(wiring.Component):
    """Numbers of the first resident segments (model `vrex.model.dre.kvstore.Header.first_resident`).

    Args:
        chunk_tokens: slots of the ring that stay free.

    Members:
        before, after: segments of the table before the chunk, and with what it has added so far.
        ring_segments: slots of the ring, 0 for none.
        has_ring: the table has a ring; one cycle after `ring_segments`.
        first_before, first_after: the oldest segments in the ring; two cycles after `before` and `after`,
            three after `ring_segments`. Undefined without a ring.
    """

    before: Signal
    after: Signal
    ring_segments: Signal
    has_ring: Signal
    first_before: Signal
    first_after: Signal

    def __init__(self, chunk_tokens: int) -> None:
        self.chunk_tokens = chunk_tokens
        super().__init__(
            {
                "before": In(32),
                "after": In(32),
                "ring_segments": In(32),
                "has_ring": Out(1),
                "first_before": Out(32),
                "first_after": Out(32),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware: two subtractors, registered before and after the clamp to 0."""
        m = Module()
        spare = Signal(32)
        m.d.sync += [
            spare.eq(self.ring_segments - self.chunk_tokens),
            self.has_ring.eq(self.ring_segments != 0),
        ]
        for segments, first in ((self.before, self.first_before), (self.after, self.first_after)):
            over = Signal(33, name="over")
            m.d.sync += [over.eq(segments - spare), first.eq(Mux(over[32], 0, over[:32]))]
        return m
