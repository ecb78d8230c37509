"""AXI4 reads for several clients."""

import operator
from collections.abc import Collection
from typing import Any

from amaranth import C, Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out, connect, flipped

from vrex.hw.lib.axi.burst import (
    REQUEST,
    BurstPlanner,
    Error,
    Watchdog,
    Windows,
    WindowsSignature,
    beat_layout,
    burst_layout,
    drive_address,
)
from vrex.hw.lib.axi.signature import ID_BITS, Axi4Interface, Axi4Signature
from vrex.hw.lib.stream import Skid, Stage, delay, reduce_tree


class ReadClient(wiring.Component):
    """One client's share of a reader: its bursts, what they are owed, and how its requests end.

    Args:
        bus_bits: width of a beat.
        outstanding: most bursts without an answer.
        burst_beats: most beats of a burst, a power of two.
        buffered: whether a FIFO has space for every beat that was asked for, so that `answer` never waits.

    Members:
        windows, timeout, request, beats: as `AxiReader`'s.
        burst: bursts to issue; not a stream, since a time-out withdraws one that was not taken.
        answer: the memory's beats for this client.
        held: a beat of any client holds the memory back, so no client can expect an answer.
        accepted: the memory took one of this client's bursts.
    """

    windows: Windows
    timeout: Signal
    request: stream.Interface
    beats: stream.Interface
    burst: stream.Interface
    answer: stream.Interface
    held: Signal
    accepted: Signal

    def __init__(self, bus_bits: int, *, outstanding: int, burst_beats: int, buffered: bool) -> None:
        self.bus_bits, self.outstanding, self.burst_beats = bus_bits, outstanding, burst_beats
        self.buffered = buffered
        answer = data.StructLayout({"data": bus_bits, "last": 1, "failed": 1})
        super().__init__(
            {
                "windows": In(WindowsSignature()),
                "timeout": In(32),
                "request": In(stream.Signature(REQUEST)),
                "beats": Out(stream.Signature(beat_layout(bus_bits))),
                "burst": Out(stream.Signature(burst_layout(bus_bits, burst_beats))),
                "answer": In(stream.Signature(answer)),
                "held": In(1),
                "accepted": In(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware: a planner, a FIFO of open bursts, a beat buffer if wanted, a time-out state machine."""
        m = Module()
        outstanding = self.outstanding
        m.submodules.planner = self.planner = BurstPlanner(self.bus_bits, burst_beats=self.burst_beats)
        m.submodules.watchdog = self.watchdog = Watchdog()
        # An answer in the very cycle still counts.
        self.expired = self.watchdog.expired & ~self.answer.valid
        # Of each burst whose end the client has not seen: is it the request's last, is it outside?
        self.pending: Any = SyncFIFOBuffered(width=2, depth=outstanding)
        m.submodules.pending = self.pending
        # Bit k: the memory owes answers to more than k bursts.
        self.owed = Signal(outstanding)
        self.waits = self.owed[0]
        # The memory has answered the request in work with an error; 0 outside RUN.
        self.failed = Signal()
        # The buffer has space for any burst; `pending` has too, a cycle late (bursts come every other).
        self.fits = Signal()
        self.may_take = Signal()
        # In RUN, a planned burst is taken; in OWED, the last late answer has come.
        self.take = Signal()
        self.settled = Signal()
        # Not in FLUSH; in RUN.
        self.open = Signal(init=1)
        self.runs = Signal(init=1)
        self.out = stream.Signature(beat_layout(self.bus_bits)).create(path=("out",))
        # An answer may pass; in the FIFO its space is reserved.
        self.passes = C(1, 1) if self.buffered else self.out.ready
        connect(m, flipped(self.windows), self.planner.windows)
        m.d.comb += self.watchdog.timeout.eq(self.timeout)
        self._count(m)
        self._output(m)
        self._control(m)
        return m

    def _count(self, m: Module) -> None:
        """Bursts that the memory still has to answer; whether it has failed in the request it answers."""
        answer, issued = self.answer, self.burst.valid & self.burst.ready
        taken = answer.valid & answer.ready & self.waits
        answered = taken & answer.payload.last
        with m.If(taken):
            ends = answer.payload.last & self.pending.r_data[0]
            m.d.sync += self.failed.eq((self.failed | answer.payload.failed) & ~ends)
        with m.If(~self.runs):
            m.d.sync += self.failed.eq(0)
        with m.If(issued & ~answered):
            m.d.sync += self.owed.eq(Cat(C(1, 1), self.owed))
        with m.If(answered & ~issued):
            m.d.sync += self.owed.eq(self.owed >> 1)

    def _output(self, m: Module) -> None:
        """Leads `out` to the client; `fits` while any burst has space."""
        if not self.buffered:
            connect(m, self.out, flipped(self.beats))
            m.d.comb += self.fits.eq(1)
            return
        burst, burst_beats = self.planner.burst, self.burst_beats
        depth = (self.outstanding + 1) * burst_beats
        # One more than is ever asked for: the FIFO's output register may be empty while its memory is full.
        fifo: Any = SyncFIFOBuffered(width=len(self.out.payload.as_value()), depth=depth + 1)
        m.submodules.fifo = fifo
        beats = beat_layout(self.bus_bits)
        m.submodules.stage, m.submodules.skid = stage, skid = Stage(beats), Skid(beats)
        m.d.comb += [
            fifo.w_data.eq(self.out.payload),
            fifo.w_en.eq(self.out.valid),
            self.out.ready.eq(fifo.w_rdy),
            stage.i.payload.eq(fifo.r_data),
            stage.i.valid.eq(fifo.r_rdy),
            fifo.r_en.eq(stage.i.ready),
        ]
        connect(m, stage.o, skid.i)
        connect(m, skid.o, flipped(self.beats))
        # Beats that are neither in the FIFO nor reserved, as of a cycle ago. The decision is another cycle
        # older, so it leaves space for the burst that was reserved meanwhile: they come every other cycle.
        free = Signal(range(depth + 1), init=depth)
        reserved = Signal(range(burst_beats + 1))
        popped = delay(m, fifo.r_rdy & fifo.r_en, 1, "popped", reset=True)
        wanted = Mux(burst.payload.inside, burst.payload.beats, 1)
        m.d.sync += [reserved.eq(Mux(self.take, wanted, 0)), free.eq(free - reserved + popped)]
        with m.If(self.settled):
            m.d.sync += free.eq(depth - fifo.level)
        m.d.comb += self.fits.eq(free >= 2 * burst_beats)

    def _end(self, m: Module, error: Any) -> None:
        """Shows a beat that ends a request without data."""
        m.d.comb += [self.out.valid.eq(1), self.out.payload.last.eq(1), self.out.payload.error.eq(error)]

    def _control(self, m: Module) -> None:
        """Requests in work (RUN); after a time-out, ends of all that are open (FLUSH), then late answers."""
        planned, pending, answer = self.planner.burst, self.pending, self.answer
        entry_last, entry_outside = pending.r_data[0], pending.r_data[1]
        outside = pending.r_rdy & entry_outside
        taken = planned.valid & planned.ready
        empty = delay(m, (pending.level == 0) & ~pending.w_en, 1, "empty", reset=True)
        m.d.sync += self.may_take.eq(pending.w_rdy & self.fits & ~self.settled)
        m.d.comb += [
            # Outside RUN all answers are late ones.
            answer.ready.eq(~self.runs | (self.passes & ~outside)),
            pending.w_data.eq(Cat(planned.payload.last, ~planned.payload.inside)),
            self.planner.request.payload.eq(self.request.payload),
            self.watchdog.moved.eq(
                answer.valid | self.accepted | taken | (self.burst.valid & self.burst.ready)
            ),
        ]
        with m.If(self.burst.ready):
            m.d.sync += self.burst.valid.eq(0)
        # Not `take`: it arrives too late for so many registers.
        with m.If(planned.valid & ~self.burst.valid):
            m.d.sync += self.burst.payload.eq(planned.payload)
        waits = self.waits | self.burst.valid
        with m.FSM():
            with m.State("RUN"):
                m.d.comb += [
                    planned.ready.eq(self.may_take & ~self.burst.valid),
                    self.take.eq(planned.valid & self.may_take & ~self.burst.valid),
                    pending.w_en.eq(self.take),
                    self.watchdog.running.eq(waits & ~self.held),
                ]
                with m.If(self.take & planned.payload.inside):
                    m.d.sync += self.burst.valid.eq(1)
                with m.If(outside):
                    self._end(m, Error.OUTSIDE)
                    m.d.comb += pending.r_en.eq(self.passes)
                with m.Else():
                    self._pass(m, entry_last)
                with m.If(self.expired):
                    m.d.sync += [self.burst.valid.eq(0), self.open.eq(0), self.runs.eq(0)]
                    m.next = "FLUSH"
            with m.State("FLUSH"):
                with m.If(pending.r_rdy):
                    m.d.comb += pending.r_en.eq(self.out.ready | ~entry_last)
                    with m.If(entry_last):
                        self._end(m, Mux(entry_outside, Error.OUTSIDE, Error.TIMEOUT))
                with m.Elif(~empty):
                    # The next entry is on its way to the FIFO's output.
                    pass
                with m.Elif(planned.valid):
                    self._end(m, Error.TIMEOUT)
                    m.d.comb += [planned.ready.eq(self.out.ready), self.planner.drop.eq(1)]
                with m.Elif(~self.planner.busy):
                    m.d.sync += self.open.eq(1)
                    m.next = "OWED"
            with m.State("OWED"):
                m.d.comb += self.watchdog.running.eq(planned.valid & ~self.held)
                with m.If(self.expired):
                    m.d.sync += self.open.eq(0)
                    m.next = "FLUSH"
                with m.If(~self.waits):
                    m.d.comb += self.settled.eq(1)
                    m.d.sync += self.runs.eq(1)
                    m.next = "RUN"
        m.d.comb += [
            self.planner.request.valid.eq(self.request.valid & self.open),
            self.request.ready.eq(self.planner.request.ready & self.open),
        ]

    def _pass(self, m: Module, request_last: Any) -> None:
        """The memory's beats on their way to the client; what nobody asked for is swallowed."""
        out, answer, passes = self.out, self.answer, self.passes
        failed, last = self.failed | answer.payload.failed, answer.payload.last & request_last
        # Don't-care while invalid; ungated to keep the wide path short.
        m.d.comb += out.payload.data.eq(answer.payload.data)
        with m.If(self.waits):
            m.d.comb += [
                out.valid.eq(answer.valid),
                out.payload.last.eq(last),
                out.payload.error.eq(Mux(failed, Error.RESPONSE, Error.NONE)),
                self.pending.r_en.eq(answer.valid & passes & answer.payload.last),
            ]


def _either(chosen: Any, values: list[Any]) -> Any:
    """The value whose bit is set, 0 for none."""
    masked = [value & chosen[i].replicate(len(value)) for i, value in enumerate(values)]
    return reduce_tree(masked, operator.or_)


class AxiReader(wiring.Component):
    """Reads for several clients; one client's answers come in order, those of different clients in any.

    A request's first burst is on the port seven cycles after the request at the earliest, and a beat of the
    memory reaches its client two cycles later (five if it is buffered). Client i reads as ARID i. A client
    without a buffer holds back all others while it does not take its beats, so it must take them.

    Args:
        bus_bits: width of a beat.
        outstanding: most bursts of a client without an answer.
        burst_beats: most beats of a burst, a power of two.
        clients: 1 to 16.
        buffered: clients with a FIFO of (`outstanding` + 1) x `burst_beats` beats, each reserved
            before its burst is issued.

    Members:
        windows, timeout: where reads may go, and cycles without progress before requests end (0: never).
        request: per client; several may be under way.
        beats: per client, the bus beats that hold the request's bytes. After a beat with RESPONSE the rest
            of the request comes with RESPONSE as well. TIMEOUT and OUTSIDE come on one last beat of zeros.
        m_axi: AXI4 manager, channels AR and R.
        bursts, read_beats: high in each cycle in which a burst is accepted, a beat arrives.

    Raises:
        ValueError: `clients` is out of range, or `buffered` names one that does not exist.
    """

    windows: Windows
    timeout: Signal
    request: list[stream.Interface]
    beats: list[stream.Interface]
    m_axi: Axi4Interface
    bursts: Signal
    read_beats: Signal

    def __init__(
        self,
        bus_bits: int,
        *,
        outstanding: int,
        burst_beats: int,
        clients: int = 4,
        buffered: Collection[int] = (),
    ) -> None:
        if not 1 <= clients <= 1 << ID_BITS:
            raise ValueError(f"clients must be from 1 to {1 << ID_BITS}, not {clients!r}")
        if not set(buffered) <= set(range(clients)):
            raise ValueError(f"buffered clients {sorted(buffered)} are not all among {clients} clients")
        self.bus_bits, self.outstanding, self.burst_beats = bus_bits, outstanding, burst_beats
        self.clients, self.buffered = clients, frozenset(buffered)
        super().__init__(
            {
                "windows": In(WindowsSignature()),
                "timeout": In(32),
                "request": In(stream.Signature(REQUEST)).array(clients),
                "beats": Out(stream.Signature(beat_layout(bus_bits))).array(clients),
                "m_axi": Out(Axi4Signature(data_width=bus_bits, write=False)),
                "bursts": Out(1),
                "read_beats": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware: a `ReadClient` each, a round-robin arbiter in front of AR, a skid buffer behind R."""
        m = Module()
        parts = []
        for i in range(self.clients):
            part = ReadClient(
                self.bus_bits,
                outstanding=self.outstanding,
                burst_beats=self.burst_beats,
                buffered=i in self.buffered,
            )
            m.submodules[f"client_{i}"] = part
            connect(m, flipped(self.windows), part.windows)
            m.d.comb += part.timeout.eq(self.timeout)
            connect(m, flipped(self.request[i]), part.request)
            if i in self.buffered:
                connect(m, part.beats, flipped(self.beats[i]))
            else:
                # Without registers here, a client's readiness would reach the memory and the other clients.
                m.submodules[f"skid_{i}"] = skid = Skid(beat_layout(self.bus_bits))
                connect(m, part.beats, skid.i)
                connect(m, skid.o, flipped(self.beats[i]))
            parts.append(part)
        self._issue(m, parts)
        self._answer(m, parts)
        return m

    def _issue(self, m: Module, parts: list[ReadClient]) -> None:
        """Bursts of all clients in turn to AR."""
        held = drive_address(m, self.m_axi.ar, self.bus_bits, self.burst_beats)
        valid, ready, clients = self.m_axi.ar.valid, self.m_axi.ar.ready, self.clients
        accepted, asks = valid & ready, [part.burst.valid for part in parts]
        # One bit a client: whose burst was the last; whose is next, those after the last one first; whose
        # goes out, a cycle later, since this steers an address's many bits.
        last = Signal(clients, init=1)
        chosen = Signal(clients)
        granted = Signal(clients)
        for i in range(clients):
            turns = []
            for distance in range(1, clients + 1):
                before = [asks[(i - k) % clients] for k in range(1, distance)]
                turns.append(last[(i - distance) % clients] & ~Cat(before).any())
            m.d.comb += chosen[i].eq(asks[i] & Cat(turns).any())
        m.d.comb += self.bursts.eq(accepted)
        with m.If(~granted.any()):
            m.d.sync += [granted.eq(chosen), last.eq(Mux(Cat(asks).any(), chosen, last))]
        with m.If(~valid | ready):
            m.d.sync += [
                valid.eq((granted & Cat(asks)).any()),
                held.burst.eq(_either(granted, [part.burst.payload.as_value() for part in parts])),
                held.id.eq(_either(granted, [C(i, ID_BITS) for i in range(clients)])),
            ]
            m.d.comb += [part.burst.ready.eq(granted[i]) for i, part in enumerate(parts)]
            with m.If(granted.any()):
                m.d.sync += granted.eq(0)
        m.d.comb += [part.accepted.eq(accepted & (held.id == i)) for i, part in enumerate(parts)]

    def _answer(self, m: Module, parts: list[ReadClient]) -> None:
        """R to the client that it belongs to, behind one skid buffer for all of them."""
        r, shape = self.m_axi.r, parts[0].answer.payload.shape()
        m.submodules.arrived = arrived = Skid(data.StructLayout({"id": ID_BITS, "answer": shape}))
        into, beat = arrived.i.payload, arrived.o.payload
        m.d.comb += [
            *(arrived.i.valid.eq(r.valid), r.ready.eq(arrived.i.ready)),
            *(into.id.eq(r.id), into.answer.data.eq(r.data)),
            *(into.answer.last.eq(r.last), into.answer.failed.eq(r.resp[1])),
            self.read_beats.eq(r.valid & r.ready),
            # An answer to nobody is swallowed.
            arrived.o.ready.eq(1),
        ]
        for i, part in enumerate(parts):
            mine = beat.id == i
            m.d.comb += [
                part.answer.payload.eq(beat.answer),
                part.answer.valid.eq(arrived.o.valid & mine),
                part.held.eq(arrived.o.valid & ~arrived.o.ready),
            ]
            with m.If(mine):
                m.d.comb += arrived.o.ready.eq(part.answer.ready)
