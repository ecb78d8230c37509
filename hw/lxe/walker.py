"""Address generator: the addresses of a loop nest, one a cycle."""

from typing import Any

from amaranth import Cat, Module, Signal
from amaranth.lib import data as layouts
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

COUNT_BITS = 24


def step_layout(levels: int, address_bits: int) -> layouts.StructLayout:
    """An address, the index of each loop, outermost first, and whether it is the last step."""
    indices = layouts.ArrayLayout(COUNT_BITS, levels)
    return layouts.StructLayout({"address": address_bits, "index": indices, "last": 1})


class Walker(wiring.Component):
    """Generates base + sum of index x stride for all indices of a loop nest, innermost loop first.

    Args:
        levels: number of loops.
        address_bits: width of addresses and strides, which wrap around.

    Members:
        start: starts a walk; only while not busy.
        base: first address, sampled with `start`.
        counts: iterations of each loop, outermost first, at least 1; stable until the walk ends.
        strides: address step of each loop, outermost first; stable until the walk ends.
        o: steps (`step_layout`).
        busy: from the cycle after `start` until the last step is taken.
    """

    start: Signal
    base: Signal
    counts: list[Signal]
    strides: list[Signal]
    o: stream.Interface
    busy: Signal

    def __init__(self, levels: int, address_bits: int) -> None:
        self.levels, self.address_bits = levels, address_bits
        super().__init__(
            {
                "start": In(1),
                "base": In(address_bits),
                "counts": In(COUNT_BITS).array(levels),
                "strides": In(address_bits).array(levels),
                "o": Out(stream.Signature(step_layout(levels, address_bits))),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Builds index and start address registers for each loop; adders only, no multipliers."""
        m = Module()
        step = self.o.payload
        # For each loop: the address at which it started, its index, and whether that is its last one.
        begun = [Signal(self.address_bits, name=f"begun_{k}") for k in range(self.levels)]
        index = [Signal(COUNT_BITS, name=f"index_{k}") for k in range(self.levels)]
        last = [Signal(name=f"last_{k}") for k in range(self.levels)]
        m.d.comb += [
            *(
                flag.eq(value == count - 1)
                for flag, value, count in zip(last, index, self.counts, strict=True)
            ),
            step.address.eq(begun[-1]),
            *(step.index[k].eq(index[k]) for k in range(self.levels)),
            step.last.eq(Cat(last).all()),
            self.o.valid.eq(self.busy),
        ]
        with m.If(self.start):
            m.d.sync += [self.busy.eq(1), *(x.eq(0) for x in index), *(x.eq(self.base) for x in begun)]
        with m.Elif(self.busy & self.o.ready):
            with m.If(step.last):
                m.d.sync += self.busy.eq(0)
            for k in range(self.levels):
                # Loop k advances when all loops inside it are at their last index; those then restart.
                moves = Cat(last[k + 1 :]).all() & ~last[k] if k + 1 < self.levels else ~last[k]
                with m.If(moves):
                    target = begun[k] + self.strides[k]
                    m.d.sync += index[k].eq(index[k] + 1)
                    m.d.sync += [x.eq(target) for x in begun[k:]]
                    m.d.sync += [x.eq(0) for x in index[k + 1 :]]
        return m
