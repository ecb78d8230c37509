"""Addresses of the rows of a MOVE."""

from typing import Any

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from vrex.hw.lib.axi.burst import ADDRESS_BITS, LENGTH_BITS, REQUEST
from vrex.model.core.instructions import CODE_ROWS

PRODUCT_CYCLES = 3
"""From the command to first row's number times pitch: operands, product and sum have a register each."""

ROWS = data.StructLayout(
    {"address": ADDRESS_BITS, "pitch": 32, "rows": 16, "first": 16, "mask": 16, "bytes": LENGTH_BITS}
)
"""Rows in memory: the fields of `vrex.model.core.instructions.MOVE`, at least one row."""


SCALE_BYTES = 2


def scales_layout(most_step: int) -> data.StructLayout:
    """Scales of rows of codes: whether there are any, row 0's address, and the step from row to row.

    Args:
        most_step: largest step; with 0 there are never any, and nothing is stored.
    """
    wide = most_step > 0
    return data.StructLayout(
        {"coded": wide * 1, "four": wide * 1, "step": range(most_step + 1), "address": wide * ADDRESS_BITS}
    )


class RowWalker(wiring.Component):
    """Requests the rows of a MOVE one after another, a request a cycle; before rows of codes their scales.

    Args:
        most_step: see `scales_layout`.

    Members:
        cmd: rows; taken when the last request of those before has been.
        scales: with `cmd`, `scales_layout`.
        o: requests.
        busy: rows are in work.
    """

    cmd: stream.Interface
    scales: Any
    o: stream.Interface
    busy: Signal

    def __init__(self, most_step: int = 0) -> None:
        self.most_step = most_step
        super().__init__(
            {
                "cmd": In(stream.Signature(ROWS)),
                "scales": In(scales_layout(most_step)),
                "o": Out(stream.Signature(REQUEST)),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """A multiplier for the first row; the others are a pitch behind each other, but where they wrap."""
        m = Module()
        rows: Any = Signal(ROWS)
        number = Signal(16)
        left = Signal(16)
        waited = Signal(range(PRODUCT_CYCLES + 1))
        factor = Signal(16)
        product = Signal(48)
        address = Signal(ADDRESS_BITS)
        scales: Any = Signal(scales_layout(self.most_step))
        following = (number + 1)[:16] & rows.mask
        m.d.sync += [product.eq(factor * rows.pitch), waited.eq(waited + 1)]
        m.d.comb += [self.o.payload.address.eq(address), self.o.payload.bytes.eq(rows.bytes)]
        scales_request = self._scales(m, scales, factor, left)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.cmd.ready.eq(1)
                m.d.sync += scales.eq(self.scales)
                m.d.sync += [rows.eq(self.cmd.payload), left.eq(self.cmd.payload.rows), waited.eq(0)]
                m.d.sync += [
                    factor.eq(self.cmd.payload.first & self.cmd.payload.mask),
                    number.eq(self.cmd.payload.first & self.cmd.payload.mask),
                ]
                with m.If(self.cmd.valid):
                    m.next = "PRODUCT"
            with m.State("PRODUCT"):
                m.d.comb += self.busy.eq(1)
                m.d.sync += address.eq(rows.address + product)
                with m.If(waited == PRODUCT_CYCLES - 1):
                    m.next = "REQUEST"
                    if self.most_step:
                        with m.If(scales.coded):
                            m.next = "SCALES"
            if self.most_step:
                with m.State("SCALES"):
                    m.d.comb += [self.busy.eq(1), self.o.valid.eq(1)]
                    m.d.comb += self.o.payload.eq(scales_request)
                    with m.If(self.o.ready):
                        m.next = "REQUEST"
            with m.State("REQUEST"):
                m.d.comb += [self.busy.eq(1), self.o.valid.eq(1)]
                with m.If(self.o.ready):
                    m.d.sync += [
                        number.eq(following),
                        address.eq(Mux(following == 0, rows.address, address + rows.pitch)),
                        left.eq(left - 1),
                    ]
                    with m.If(left == 1):
                        m.next = "IDLE"
        return m

    def _scales(self, m: Module, scales: Any, first: Any, rows: Any) -> Any:
        """The request of all scales of `rows` rows from row `first` on, in as many cycles as `address`."""
        product = Signal(16 + len(scales.step))
        between = Signal(range((CODE_ROWS - 1) * self.most_step + 1))
        address = Signal(ADDRESS_BITS)
        size = Signal(LENGTH_BITS)
        m.d.sync += [
            product.eq(first * scales.step),
            between.eq((rows - 1)[: (CODE_ROWS - 1).bit_length()] * scales.step),
            address.eq(scales.address + SCALE_BYTES * product),
            size.eq(SCALE_BYTES * between + SCALE_BYTES),
        ]
        return Cat(address, size)
