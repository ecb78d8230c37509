"""Execution of one step."""

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from vrex.hw.dre.kvmu.append.addresses import PREPARE_CYCLES
from vrex.hw.lib.axi.burst import Error
from vrex.hw.lib.axi.writer import DONE as WRITTEN

UNITS = data.StructLayout({"read": 1, "write": 1, "mean": 1, "quant": 1})
"""What a step may need: reader, writer, mean and quantiser."""


class StepRunner(wiring.Component):
    """Issues a step's requests once they are valid, and waits until its accesses have ended.

    A step takes `PREPARE_CYCLES` cycles, at least one until all units have accepted their requests, the
    duration of its accesses, and two more.

    Members:
        run: a step is to be executed; high until `ended`.
        clear: clears the write error.
        prepare: the requests are being computed.
        needed: units that the step needs; sampled in the last cycle of `prepare`.
        issue, accepted: valid and ready of the units' requests.
        active: the accesses are under way from the next cycle on.
        reading: beats of the step's read are outstanding.
        written: end of the write.
        ended: the accesses have ended; one cycle.
        read_error: of the first read that failed since `clear`.
        error: `read_error`, or, if there is none, that of the first write that failed.
    """

    run: Signal
    clear: Signal
    prepare: Signal
    needed: Any
    issue: Any
    accepted: Any
    active: Signal
    reading: Signal
    written: stream.Interface
    ended: Signal
    read_error: Any
    error: Any

    def __init__(self) -> None:
        self.prepared = Signal(range(PREPARE_CYCLES))
        # Units that have accepted their request or are not needed.
        self.sent: Any = Signal(UNITS)
        self.writing = Signal()
        self.write_error = Signal(Error)
        # Registered: the accesses have ended. Its operands arrive late in their cycle.
        self.quiet = Signal()
        super().__init__(
            {
                "run": In(1),
                "clear": In(1),
                "prepare": Out(1),
                "needed": In(UNITS),
                "issue": Out(UNITS),
                "accepted": In(UNITS),
                "active": Out(1),
                "reading": In(1),
                "written": In(stream.Signature(WRITTEN)),
                "ended": Out(1),
                "read_error": In(Error),
                "error": Out(Error),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware: an FSM, a counter of cycles, one flag per unit, and the first write error."""
        m = Module()
        m.d.comb += self.error.eq(Mux(self.read_error == Error.NONE, self.write_error, self.read_error))
        with m.FSM():
            with m.State("PREPARE"), m.If(self.run):
                m.d.comb += self.prepare.eq(1)
                m.d.sync += [
                    self.prepared.eq(self.prepared + 1),
                    self.sent.as_value().eq(~self.needed.as_value()),
                    self.writing.eq(self.needed.write),
                ]
                with m.If(self.prepared == PREPARE_CYCLES - 1):
                    m.d.sync += self.prepared.eq(0)
                    m.next = "ISSUE"
            with m.State("ISSUE"):
                sent = self.sent.as_value() | self.accepted.as_value()
                m.d.comb += self.issue.as_value().eq(~self.sent.as_value())
                m.d.sync += self.sent.as_value().eq(sent)
                with m.If(sent.all()):
                    m.d.comb += self.active.eq(1)
                    m.d.sync += self.quiet.eq(0)
                    m.next = "MOVE"
            with m.State("MOVE"):
                m.d.comb += [self.written.ready.eq(1), self.active.eq(~self.quiet)]
                m.d.sync += self.quiet.eq(~self.reading & ~self.writing)
                with m.If(self.written.valid):
                    m.d.sync += self.writing.eq(0)
                    with m.If(self.write_error == Error.NONE):
                        m.d.sync += self.write_error.eq(self.written.payload.error)
                with m.If(self.quiet):
                    m.d.comb += self.ended.eq(1)
                    m.next = "PREPARE"
        with m.If(self.clear):
            m.d.sync += self.write_error.eq(Error.NONE)
        return m
