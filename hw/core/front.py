"""The rings of a core: jobs from memory to the sequencer, and how they ended back to memory."""

from typing import Any

from amaranth import Cat, Module, Signal
from amaranth.hdl import Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from vrex.hw.lib.axi.burst import ADDRESS_BITS, PAGE_BITS, REQUEST, Error, beat_layout
from vrex.hw.lib.axi.writer import DONE
from vrex.hw.lib.layout import struct_layout
from vrex.model.core import instructions
from vrex.model.core.instructions import Status

JOB = struct_layout(instructions.JOB)

END = data.StructLayout(
    {
        field.name: field.bits
        for field in instructions.JOB_END.fields
        if not field.reserved and field.name != "cycles"
    }
)
"""How a job ended, but for its cycles."""

NUMBER_BITS = 16
"""Of the rings' heads and tails."""

INDEX_BITS = 15
"""Of an entry's number in the largest ring."""

FAILED = {
    Error.RESPONSE: Status.BUS_ERROR,
    Error.TIMEOUT: Status.TIMEOUT,
    Error.OUTSIDE: Status.BAD_ADDRESS,
}
"""How a job ends that could not be read."""


class Front(wiring.Component):
    """Takes jobs from their ring, one at a time, and writes their ends.

    A job is taken while `enable` is high and the ring of ends has room. It counts as taken once it is read.
    One that can't be read ends at once, with its reason and everything else 0. An end that can't be written
    is given up: END_TAIL goes on, so that job n's end is always entry n of its ring, what lies there is
    unknown, and `lost` and IRQ.failed tell.

    The request for a job shows two cycles after its doorbell, the job one after its last beat, and the
    request that writes its end one after that.

    Args:
        bus_bits: width of a beat, at most the 512 bits of a job.

    Members:
        enable: CONTROL.enable.
        job_base, job_size, job_tail, end_base, end_head: values of the registers of these names; the bases
            and the size stand still while `enable` or `busy` is high.
        job_head, end_tail: what these registers show.
        busy: a job is in work.
        full: the ring of ends is.
        ended: an end was written, or given up, in this cycle.
        failed: with `ended`: the job's status was not OK, or the end is lost.
        lost: with `ended`: the end was given up.
        read, beats: a reader's client (`vrex.hw.lib.axi.reader`).
        write, data, done: a writer (`vrex.hw.lib.axi.writer`).
        job: jobs for the sequencer.
        end: how each ended.
    """

    enable: Signal
    job_base: Signal
    job_size: Signal
    job_tail: Signal
    end_base: Signal
    end_head: Signal
    job_head: Signal
    end_tail: Signal
    busy: Signal
    full: Signal
    ended: Signal
    failed: Signal
    lost: Signal
    read: stream.Interface
    beats: stream.Interface
    write: stream.Interface
    data: stream.Interface
    done: stream.Interface
    job: stream.Interface
    end: stream.Interface

    def __init__(self, bus_bits: int) -> None:
        self.bus_bits = bus_bits
        self.end_beats = max(1, instructions.JOB_END.bits // bus_bits)
        values = {
            "job_base": 32,
            "job_size": 4,
            "job_tail": NUMBER_BITS,
            "end_base": 32,
            "end_head": NUMBER_BITS,
        }
        super().__init__(
            {
                "enable": In(1),
                **{name: In(bits) for name, bits in values.items()},
                "job_head": Out(NUMBER_BITS),
                "end_tail": Out(NUMBER_BITS),
                **{name: Out(1) for name in ("busy", "full", "ended", "failed", "lost")},
                "read": Out(stream.Signature(REQUEST)),
                "beats": In(stream.Signature(beat_layout(bus_bits))),
                "write": Out(stream.Signature(REQUEST)),
                "data": Out(stream.Signature(bus_bits)),
                "done": In(stream.Signature(DONE)),
                "job": Out(stream.Signature(JOB)),
                "end": In(stream.Signature(END)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware: registers of the rings' addresses and comparisons, of a job and of its end."""
        m = Module()
        self.word = Signal(instructions.JOB.bits)
        self.entry: Any = Signal(struct_layout(instructions.JOB_END))
        self.taken = Signal()
        self.sent = Signal(range(max(2, self.end_beats)))
        waiting = self._rings(m)
        self._requests(m)
        with m.FSM() as states:
            with m.State("IDLE"):
                m.d.sync += self.entry.eq(0)
                with m.If(self.enable & waiting & ~self.full):
                    m.next = "ASK"
            self._take(m)
            self._run(m)
            self._write(m)
        m.d.comb += self.busy.eq(~states.ongoing("IDLE"))
        return m

    def _rings(self, m: Module) -> Signal:
        """Heads, tails, and the addresses of the next entries; returns whether a job waits."""
        waiting = Signal()
        mask = Signal(INDEX_BITS)
        self.job_at = Signal(ADDRESS_BITS)
        self.end_at = Signal(ADDRESS_BITS)
        used = (self.end_tail - self.end_head)[:NUMBER_BITS]
        m.d.sync += [
            mask.eq((1 << self.job_size) - 1),
            waiting.eq(self.job_tail != self.job_head),
            self.full.eq(used > mask),
            self.job_at.eq((self.job_base << PAGE_BITS) + (self.job_head & mask) * instructions.JOB.size),
            self.end_at.eq((self.end_base << PAGE_BITS) + (self.end_tail & mask) * instructions.JOB_END.size),
            self.job_head.eq(self.job_head + self.taken),
            self.end_tail.eq(self.end_tail + self.ended),
        ]
        return waiting

    def _requests(self, m: Module) -> None:
        """Payloads of what goes out, and how an end was written."""
        lost = self.done.payload.error != Error.NONE
        # A beat that is wider than an end holds it in every place where it may lie.
        words = Value.cast(self.entry).replicate(max(1, self.bus_bits // instructions.JOB_END.bits))
        m.d.comb += [
            self.read.payload.address.eq(self.job_at),
            self.read.payload.bytes.eq(instructions.JOB.size),
            Value.cast(self.job.payload).eq(self.word),
            self.write.payload.address.eq(self.end_at),
            self.write.payload.bytes.eq(instructions.JOB_END.size),
            self.data.payload.eq(words.word_select(self.sent, self.bus_bits)),
            self.lost.eq(self.ended & lost),
            self.failed.eq(self.ended & (lost | (self.entry.status != Status.OK))),
        ]

    def _take(self, m: Module) -> None:
        """Reads a job (ASK, READ) and offers it to the sequencer (OFFER)."""
        beat = self.beats.payload
        with m.State("ASK"):
            m.d.comb += self.read.valid.eq(1)
            self._count(m)
            with m.If(self.read.ready):
                m.next = "READ"
        with m.State("READ"):
            m.d.comb += self.beats.ready.eq(1)
            self._count(m)
            with m.If(self.beats.valid):
                m.d.sync += self.word.eq(Cat(self.word[self.bus_bits :], beat.data))
                with m.If(beat.last):
                    m.d.comb += self.taken.eq(1)
                    m.next = "OFFER"
                for error, status in FAILED.items():
                    with m.If(beat.last & (beat.error == error)):
                        m.d.sync += self.entry.status.eq(status)
                        m.next = "WRITE"
        with m.State("OFFER"):
            m.d.comb += self.job.valid.eq(1)
            self._count(m)
            with m.If(self.job.ready):
                m.next = "RUN"

    def _run(self, m: Module) -> None:
        """Waits for the job's end (RUN)."""
        with m.State("RUN"):
            m.d.comb += self.end.ready.eq(1)
            self._count(m)
            with m.If(self.end.valid):
                m.d.sync += [self.entry[name].eq(self.end.payload[name]) for name in END.members]
                m.next = "WRITE"

    def _count(self, m: Module) -> None:
        """A cycle of the job."""
        m.d.sync += self.entry.cycles.eq(self.entry.cycles + 1)

    def _write(self, m: Module) -> None:
        """Writes the end (WRITE, DATA), advances its ring (DONE), and lets the comparisons follow (NEXT)."""
        with m.State("WRITE"):
            m.d.comb += self.write.valid.eq(1)
            m.d.sync += self.sent.eq(0)
            with m.If(self.write.ready):
                m.next = "DATA"
        with m.State("DATA"):
            m.d.comb += self.data.valid.eq(1)
            with m.If(self.data.ready):
                m.d.sync += self.sent.eq(self.sent + 1)
                with m.If(self.sent == self.end_beats - 1):
                    m.next = "DONE"
        with m.State("DONE"):
            m.d.comb += self.done.ready.eq(1)
            with m.If(self.done.valid):
                m.d.comb += self.ended.eq(1)
                m.next = "NEXT"
        with m.State("NEXT"):
            m.next = "IDLE"
