"""AXI4 writes for one client."""

from typing import Any

from amaranth import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from vrex.hw.lib.axi.burst import (
    LENGTH_BITS,
    REQUEST,
    BurstPlanner,
    Error,
    Watchdog,
    Windows,
    WindowsSignature,
    beat_shift,
    drive_address,
    request_beats,
)
from vrex.hw.lib.axi.signature import Axi4Interface, Axi4Signature
from vrex.hw.lib.stream import Skid

DONE = data.StructLayout({"error": Error})


class AxiWriter(wiring.Component):
    """Writes for one client, one request at a time, several bursts of it outstanding.

    A request's first burst is on the port five cycles after it at the earliest; then a beat a cycle. Once a
    request has failed, what lies in its range is unknown; outside its range nothing is ever written. After a
    time-out the rest of a burst that was begun is made up with beats that write nothing.

    Args:
        bus_bits: width of a beat.
        outstanding: most bursts without a response.
        burst_beats: most beats of a burst, a power of two.

    Members:
        windows, timeout: where writes may go, and cycles without progress before a request ends (0: never).
        request: what to write.
        data: the bus beats that hold the request's bytes, in place; other bytes of a beat are not written.
            A request takes all its beats, however it ends.
        done: how it ended, once its last response has come.
        m_axi: AXI4 manager, channels AW, W and B.
        bursts, write_beats: high in each cycle in which a burst, a beat is accepted.
    """

    windows: Windows
    timeout: Signal
    request: stream.Interface
    data: stream.Interface
    done: stream.Interface
    m_axi: Axi4Interface
    bursts: Signal
    write_beats: Signal

    def __init__(self, bus_bits: int, *, outstanding: int, burst_beats: int) -> None:
        self.bus_bits, self.outstanding, self.burst_beats = bus_bits, outstanding, burst_beats
        super().__init__(
            {
                "windows": In(WindowsSignature()),
                "timeout": In(32),
                "request": In(stream.Signature(REQUEST)),
                "data": In(stream.Signature(bus_bits)),
                "done": Out(stream.Signature(DONE)),
                "m_axi": Out(Axi4Signature(data_width=bus_bits, read=False)),
                "bursts": Out(1),
                "write_beats": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware: a planner, registers for AW, a skid buffer for W, counters of bursts, a state machine."""
        m = Module()
        m.submodules.planner = self.planner = BurstPlanner(self.bus_bits, burst_beats=self.burst_beats)
        m.submodules.watchdog = self.watchdog = Watchdog()
        connect(m, flipped(self.windows), self.planner.windows)
        m.d.comb += self.watchdog.timeout.eq(self.timeout)
        # Beats that the client still has to send, and that the burst in work still needs.
        self.remaining = Signal(LENGTH_BITS - beat_shift(self.bus_bits) + 1)
        self.burst_left = Signal(range(self.burst_beats + 1))
        # Known ahead: there are any of the former; there are any of the latter, it is the last of them.
        self.wanted = Signal()
        self.in_burst = Signal()
        self.ends = Signal()
        # Bursts without a response, and those of them whose beats are all accepted.
        self.owed = Signal(range(self.outstanding + 1))
        self.due = Signal.like(self.owed)
        # After a time-out, until nothing is owed.
        self.late = Signal()
        self.error = Signal(Error)
        self.issue = Signal()
        self.load = Signal()
        self.running = Signal()
        self._address(m)
        self._beats(m)
        self._responses(m)
        self._control(m)
        return m

    def _address(self, m: Module) -> None:
        """Bursts to AW."""
        held = drive_address(m, self.m_axi.aw, self.bus_bits, self.burst_beats)
        valid, burst = self.m_axi.aw.valid, self.planner.burst
        m.d.comb += self.bursts.eq(valid & self.m_axi.aw.ready)
        with m.If(self.bursts):
            m.d.sync += valid.eq(0)
        # A burst follows another when the other's last beat goes to the registers of W. An address is there
        # for at least a cycle, in which the bursts owed are compared.
        most = self.outstanding
        allowed = Signal(init=1)
        m.d.sync += allowed.eq(self.owed != most)
        free = ~self.in_burst | (self.ends & self.load)
        self.may_issue = Signal()
        m.d.comb += self.may_issue.eq(burst.valid & free & ~self.late & ~valid & allowed)
        with m.If(self.issue):
            m.d.sync += [valid.eq(1), held.burst.eq(burst.payload)]

    def _beats(self, m: Module) -> None:
        """Beats to W, with their strobes."""
        shift, size = beat_shift(self.bus_bits), self.bus_bits // 8
        request = self.request.payload
        first = Signal()
        start = Signal(shift)
        end = Signal(shift)
        m.submodules.beat = beat = Skid(data.StructLayout({"data": self.bus_bits, "strb": size, "last": 1}))
        free = beat.i.ready
        taken = self.data.valid & self.data.ready
        with m.If(self.request.valid & self.request.ready):
            m.d.sync += [
                self.remaining.eq(request_beats(self.bus_bits, request)),
                self.wanted.eq(request.bytes != 0),
                first.eq(1),
                start.eq(request.address),
                end.eq(request.address + request.bytes - 1),
            ]
        with m.Elif(taken):
            m.d.sync += [self.remaining.eq(self.remaining - 1), first.eq(0)]
            m.d.sync += self.wanted.eq(self.remaining != 1)
        m.d.comb += [
            self.load.eq(self.in_burst & free & (self.late | (self.running & self.data.valid))),
            self.write_beats.eq(self.m_axi.w.valid & self.m_axi.w.ready),
        ]
        with m.If(self.running):
            m.d.comb += self.data.ready.eq(self.in_burst & free & ~self.late)
        strobes = [
            ~self.late & (~first | (start <= i)) & ((self.remaining != 1) | (end >= i)) for i in range(size)
        ]
        m.d.comb += [
            beat.i.valid.eq(self.load),
            beat.i.payload.data.eq(self.data.payload),
            beat.i.payload.strb.eq(Cat(strobes)),
            beat.i.payload.last.eq(self.ends),
            beat.o.ready.eq(self.m_axi.w.ready),
            self.m_axi.w.valid.eq(beat.o.valid),
            self.m_axi.w.data.eq(beat.o.payload.data),
            self.m_axi.w.strb.eq(beat.o.payload.strb),
            self.m_axi.w.last.eq(beat.o.payload.last),
        ]
        with m.If(self.load):
            m.d.sync += [
                self.burst_left.eq(self.burst_left - 1),
                self.in_burst.eq(~self.ends),
                self.ends.eq(self.burst_left == 2),
            ]
        with m.If(self.issue):
            beats = self.planner.burst.payload.beats
            m.d.sync += [self.burst_left.eq(beats), self.in_burst.eq(1), self.ends.eq(beats == 1)]

    def _responses(self, m: Module) -> None:
        """Counts what is owed; one that nobody waits for is swallowed."""
        answered = self.m_axi.b.valid & (self.due != 0)
        complete = self.write_beats & self.m_axi.w.last
        m.d.comb += self.m_axi.b.ready.eq(1)
        m.d.sync += [
            self.owed.eq(self.owed + self.issue - answered),
            self.due.eq(self.due + complete - answered),
        ]
        with m.If(answered & self.m_axi.b.resp[1] & ~self.late & (self.error == Error.NONE)):
            m.d.sync += self.error.eq(Error.RESPONSE)
        with m.If((self.owed == 0) & ~self.in_burst):
            m.d.sync += self.late.eq(0)

    def _control(self, m: Module) -> None:
        """One request: its bursts (RUN), data without bursts after a failure (SKIP), responses (WAIT)."""
        planner, watchdog = self.planner, self.watchdog
        stalled = self.m_axi.aw.valid | self.m_axi.w.valid | (self.due != 0)
        waits = stalled | (self.late & planner.burst.valid)
        m.d.comb += [
            planner.request.payload.eq(self.request.payload),
            watchdog.moved.eq(self.bursts | self.write_beats | self.m_axi.b.valid),
            self.done.payload.error.eq(self.error),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [
                    planner.request.valid.eq(self.request.valid),
                    self.request.ready.eq(planner.request.ready),
                ]
                m.d.sync += self.error.eq(Error.NONE)
                with m.If(self.request.valid & self.request.ready):
                    m.next = "RUN"
            with m.State("RUN"):
                inside = planner.burst.payload.inside
                m.d.comb += [
                    self.running.eq(1),
                    self.issue.eq(self.may_issue & inside),
                    planner.burst.ready.eq(self.may_issue),
                    watchdog.running.eq(waits),
                ]
                with m.If(~self.wanted & ~planner.busy):
                    m.next = "WAIT"
                with m.If(self.may_issue & ~inside):
                    m.d.sync += self.error.eq(Error.OUTSIDE)
                    m.next = "SKIP"
                self._expire(m, "SKIP")
            with m.State("SKIP"):
                m.d.comb += [
                    self.data.ready.eq(self.wanted),
                    planner.burst.ready.eq(1),
                    planner.drop.eq(1),
                    watchdog.running.eq(waits & ~self.late),
                ]
                with m.If(~self.wanted & ~planner.busy):
                    m.next = "WAIT"
                self._expire(m, "SKIP")
            with m.State("WAIT"):
                m.d.comb += watchdog.running.eq(waits)
                with m.If((self.owed == 0) | self.late):
                    m.next = "DONE"
                self._expire(m, "DONE")
            with m.State("DONE"):
                m.d.comb += self.done.valid.eq(1)
                with m.If(self.done.ready):
                    m.next = "IDLE"

    def _expire(self, m: Module, state: str) -> None:
        """What a time-out does in any state."""
        with m.If(self.watchdog.expired):
            m.d.sync += [self.error.eq(Error.TIMEOUT), self.late.eq(1)]
            m.next = state
