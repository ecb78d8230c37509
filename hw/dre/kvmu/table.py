"""What the engines that work on a table in memory share: its header, and reads that always complete."""

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from vrex.hw.lib.axi.burst import LENGTH_BITS, REQUEST, Error, beat_layout, request_beats
from vrex.hw.lib.layout import struct_layout
from vrex.model.commands import Status
from vrex.model.dre import kvstore

HEADER = struct_layout(kvstore.HEADER)

HEADER_BYTES = kvstore.HEADER.size
STATUS_BITS = 8


def status_of(error: Any) -> Any:
    """Status of a command whose access ended with an `Error`."""
    status: Any = Status.OK
    for kind, value in (
        (Error.RESPONSE, Status.BUS_ERROR),
        (Error.TIMEOUT, Status.TIMEOUT),
        (Error.OUTSIDE, Status.BAD_ADDRESS),
    ):
        status = Mux(error == kind, value, status)
    return status


class ExactReader(wiring.Component):
    """One read at a time; always delivers the full beat count, padding after an error.

    After a failure nothing is asked for until `clear`, so that no second time-out is waited for.

    Args:
        bus_bits: width of a beat.

    Members:
        request: what to read.
        o: exactly the beats that hold it.
        to_reader, from_reader: a client's side of `vrex.hw.lib.axi.reader.AxiReader`.
        busy: beats are still to come.
        error: of the first access that failed since `clear`.
        clear: forgets it.
    """

    request: stream.Interface
    o: stream.Interface
    to_reader: stream.Interface
    from_reader: stream.Interface
    busy: Signal
    error: Any
    clear: Signal

    def __init__(self, bus_bits: int) -> None:
        self.bus_bits = bus_bits
        super().__init__(
            {
                "request": In(stream.Signature(REQUEST)),
                "o": Out(stream.Signature(bus_bits)),
                "to_reader": Out(stream.Signature(REQUEST)),
                "from_reader": In(stream.Signature(beat_layout(bus_bits))),
                "busy": Out(1),
                "error": Out(Error),
                "clear": In(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware: a counter of the beats to deliver, and a register of the request."""
        m = Module()
        beat = self.from_reader.payload
        left = Signal(LENGTH_BITS)
        ended = Signal()
        failed = self.error != Error.NONE
        m.d.comb += [
            self.request.ready.eq(~self.busy),
            self.o.payload.eq(beat.data),
            self.o.valid.eq(self.busy & (self.from_reader.valid | ended)),
            self.from_reader.ready.eq(self.busy & self.o.ready & ~ended),
        ]
        with m.If(~self.busy):
            m.d.sync += [
                left.eq(request_beats(self.bus_bits, self.request.payload)),
                ended.eq(failed),
                # Registered: the request arrives late, and its beats and windows are computed from it.
                self.to_reader.payload.eq(self.request.payload),
                self.to_reader.valid.eq(self.request.valid & ~failed),
                self.busy.eq(self.request.valid),
            ]
        with m.Elif(self.to_reader.ready):
            m.d.sync += self.to_reader.valid.eq(0)
        with m.If(self.clear):
            m.d.sync += self.error.eq(Error.NONE)
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [left.eq(left - 1), self.busy.eq(left != 1)]
            with m.If(~ended):
                m.d.sync += ended.eq(beat.last)
                with m.If(self.error == Error.NONE):
                    m.d.sync += self.error.eq(beat.error)
        return m
