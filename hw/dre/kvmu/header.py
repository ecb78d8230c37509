"""The header of a command's table, as every engine reads and checks it before it starts."""

import operator
from collections.abc import Sequence
from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from vrex.hw.dre.kvmu.table import HEADER, STATUS_BITS, status_of
from vrex.hw.lib.axi.burst import Error
from vrex.hw.lib.stream import delay, reduce_tree
from vrex.model.commands import Status
from vrex.model.dre.kvstore import POISONED


class TableHeader(wiring.Component):
    """Keeps the header of a command's table and says whether the command may use the table.

    The engine reads the header with its own `ExactReader` and passes on the beats. A header is used as long
    as no beat of the next one comes. The checks, first one first: the read of the header has failed
    (`status_of` its error), the table is poisoned (`POISONED`), it lacks KV heads of the command, or the
    command lacks some of the table's where it must name them all (`BAD_COUNT`).

    Args:
        bus_bits: width of a beat.
        fields: names of the fields of `HEADER` that the engine uses; the others are not stored.
        all_heads_up_to: the command must name every KV head of the table, which may have so many; None: it
            may name some of them.

    Members:
        i: the header's beats, first fields in the lowest bits; always ready.
        kv_heads: KV heads of the command, one bit each.
        error: of the read; see `ExactReader`.
        header: the fields, complete in the cycle after the last beat.
        status: `Status.OK` or what ends the command, two cycles after `header`, `kv_heads` and `error`.
    """

    i: stream.Interface
    kv_heads: Signal
    error: Any
    header: Any
    status: Signal

    def __init__(self, bus_bits: int, fields: Sequence[str], *, all_heads_up_to: int | None = None) -> None:
        self.bus_bits, self.all_heads_up_to = bus_bits, all_heads_up_to
        self.fields = tuple(fields)
        super().__init__(
            {
                "i": In(stream.Signature(bus_bits, always_ready=True)),
                "kv_heads": In(32),
                "error": In(Error),
                "header": Out(data.StructLayout({name: HEADER[name].shape for name in fields})),
                "status": Out(STATUS_BITS),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware: a shift register of beats, a comparison of KV heads, and a register of the status."""
        m = Module()
        # Beats enter at the top; fields that no engine asks for are removed unless others pass through them.
        held: Any = Signal(HEADER)
        bits = held.as_value()
        with m.If(self.i.valid):
            m.d.sync += bits.eq((bits >> self.bus_bits) | (self.i.payload << (HEADER.size - self.bus_bits)))
        m.d.comb += [self.header[name].eq(held[name]) for name in self.fields]
        heads_fit = delay(m, self._heads_fit(held.heads), 1, "heads_fit")
        m.d.sync += self.status.eq(Mux(heads_fit, Status.OK, Status.BAD_COUNT))
        with m.If((held.flags & POISONED) != 0):
            m.d.sync += self.status.eq(Status.POISONED)
        with m.If(self.error != Error.NONE):
            m.d.sync += self.status.eq(status_of(self.error))
        return m

    def _heads_fit(self, heads: Any) -> Any:
        """Whether the command's KV heads are those of a table with `heads` of them, or some of those."""
        if self.all_heads_up_to is None:
            return heads[5:].any() | ~(self.kv_heads >> heads[:5]).any()
        every = [
            (heads == count) & (self.kv_heads == (1 << count) - 1)
            for count in range(1, self.all_heads_up_to + 1)
        ]
        return reduce_tree(every, operator.or_)
