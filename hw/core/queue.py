"""What waits for an engine of the core."""

from typing import Any

from amaranth import Module, Signal
from amaranth.hdl import Value
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out


class Queue(wiring.Component):
    """Items that wait for an engine.

    Args:
        shape: of an item.
        depth: how many can wait.

    Members:
        i, o: items.
        empty: none waits.
    """

    i: stream.Interface
    o: stream.Interface
    empty: Signal

    def __init__(self, shape: Any, depth: int) -> None:
        self.shape, self.depth = shape, depth
        super().__init__(
            {"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape)), "empty": Out(1)}
        )

    def elaborate(self, platform: Any) -> Module:
        """A FIFO with a registered output."""
        m = Module()
        fifo: Any = SyncFIFOBuffered(width=len(Value.cast(self.i.payload)), depth=self.depth)
        m.submodules.fifo = fifo
        m.d.comb += [
            *(fifo.w_data.eq(self.i.payload), fifo.w_en.eq(self.i.valid), self.i.ready.eq(fifo.w_rdy)),
            *(self.o.payload.eq(fifo.r_data), self.o.valid.eq(fifo.r_rdy), fifo.r_en.eq(self.o.ready)),
            self.empty.eq(fifo.level == 0),
        ]
        return m
