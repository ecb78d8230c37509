"""Addresses of the rows of a MOVE."""

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from vrex.hw.lib.axi.burst import ADDRESS_BITS, LENGTH_BITS, REQUEST

PRODUCT_CYCLES = 3
"""From the command to first row's number times pitch: operands, product and sum have a register each."""

ROWS = data.StructLayout(
    {"address": ADDRESS_BITS, "pitch": 32, "rows": 16, "first": 16, "mask": 16, "bytes": LENGTH_BITS}
)
"""Rows in memory: the fields of `vrex.model.core.instructions.MOVE`, at least one row."""


class RowWalker(wiring.Component):
    """Requests the rows of a MOVE one after another, a request a cycle.

    Members:
        cmd: rows; taken when the last request of those before has been.
        o: requests.
        busy: rows are in work.
    """

    cmd: stream.Interface
    o: stream.Interface
    busy: Signal

    def __init__(self) -> None:
        super().__init__(
            {"cmd": In(stream.Signature(ROWS)), "o": Out(stream.Signature(REQUEST)), "busy": Out(1)}
        )

    def elaborate(self, platform: Any) -> Module:
        """A multiplier for the first row; the others are a pitch behind each other, but where they wrap."""
        m = Module()
        rows: Any = Signal(ROWS)
        number, left, waited = Signal(16), Signal(16), Signal(range(PRODUCT_CYCLES + 1))
        factor, product, address = Signal(16), Signal(48), Signal(ADDRESS_BITS)
        following = (number + 1)[:16] & rows.mask
        m.d.sync += [product.eq(factor * rows.pitch), waited.eq(waited + 1)]
        m.d.comb += [self.o.payload.address.eq(address), self.o.payload.bytes.eq(rows.bytes)]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.cmd.ready.eq(1)
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
