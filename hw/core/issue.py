"""In front of LXE and DRE: instructions that wait, and what became of those in work."""

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out, connect, flipped

from vrex.hw.core.movers import FAULT, INDEX_BITS
from vrex.hw.core.queue import Queue
from vrex.hw.dre.commands import COMPLETION as DRE_COMPLETION
from vrex.hw.dre.commands import DESCRIPTOR
from vrex.hw.lib.layout import struct_layout
from vrex.hw.lib.stream import word_layout
from vrex.model.commands import Status as UnitStatus
from vrex.model.config import Config
from vrex.model.core.instructions import Status
from vrex.model.lxe.instructions import COMPLETION as LXE_COMPLETION
from vrex.model.lxe.instructions import INSTRUCTION as LXE_INSTRUCTION

COUNT_BITS = 32
"""Of tokens since reset, modulo 2^32."""


def command_layout(shape: Any) -> data.StructLayout:
    """A unit's command and the number of the instruction that it comes from."""
    return data.StructLayout({"command": shape, "index": INDEX_BITS})


class Issue(wiring.Component):
    """Hands commands to a unit, and takes its completions.

    Args:
        config: accelerator.
        command: shape of a command.
        completion: shape of a completion, which has a `status`.
        failure: status of a job when a command failed.

    Members:
        cmd: commands (`command_layout`).
        unit_cmd, unit_cpl: ports of the unit.
        busy: a command has not completed.
        working: one is in the unit.
        fault: valid for a cycle with `FAULT`.
    """

    cmd: stream.Interface
    unit_cmd: stream.Interface
    unit_cpl: stream.Interface
    busy: Signal
    working: Signal
    fault: stream.Interface

    def __init__(self, config: Config, command: Any, completion: Any, failure: Status) -> None:
        self.config, self.shape, self.failure = config, command_layout(command), failure
        super().__init__(
            {
                "cmd": In(stream.Signature(self.shape)),
                "unit_cmd": Out(stream.Signature(command)),
                "unit_cpl": In(stream.Signature(completion)),
                "busy": Out(1),
                "working": Out(1),
                "fault": Out(stream.Signature(FAULT, always_ready=True)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """A queue, and the numbers of the commands in work."""
        m = Module()
        m.submodules.queue = queue = Queue(self.shape, self.config.core.queue)
        open_: Any = SyncFIFOBuffered(width=INDEX_BITS, depth=self.config.core.queue)
        m.submodules.open = open_
        connect(m, flipped(self.cmd), queue.i)
        m.d.comb += [
            self.unit_cmd.payload.eq(queue.o.payload.command),
            self.unit_cmd.valid.eq(queue.o.valid & open_.w_rdy),
            queue.o.ready.eq(self.unit_cmd.ready & open_.w_rdy),
            open_.w_data.eq(queue.o.payload.index),
            open_.w_en.eq(self.unit_cmd.valid & self.unit_cmd.ready),
            self.unit_cpl.ready.eq(open_.r_rdy),
            open_.r_en.eq(self.unit_cpl.valid),
            self.working.eq(open_.level != 0),
            self.busy.eq(~queue.empty | queue.o.valid | self.working),
            self.fault.valid.eq(
                self.unit_cpl.valid & open_.r_rdy & (self.unit_cpl.payload.status != UnitStatus.OK)
            ),
            self.fault.payload.status.eq(self.failure),
            self.fault.payload.detail.eq(self.unit_cpl.payload.status),
            self.fault.payload.index.eq(open_.r_data),
        ]
        return m


def lxe_issue(config: Config) -> Issue:
    """`Issue` in front of an LXE."""
    return Issue(config, struct_layout(LXE_INSTRUCTION), struct_layout(LXE_COMPLETION), Status.LXE_FAILED)


def dre_issue(config: Config) -> Issue:
    """`Issue` in front of a DRE."""
    return Issue(config, DESCRIPTOR, DRE_COMPLETION, Status.DRE_FAILED)


class KvBuffer(wiring.Component):
    """Keeps delivered tokens for the LXE, and grants them to the sequencer's TOKENS.

    Args:
        config: accelerator.

    Members:
        i: the DRE's stream `kv`.
        ended: a FETCH or RETRIEVE has delivered its last token; in the cycle of its last beat or later.
        o: beats; `last` ends a token.
        limit: tokens that TOKENS asks for, stable while it waits.
        ready: it can be granted.
        granted: how many.
        take: it is granted.
        empty: no beat is here.
        full: a beat waits for space.
    """

    i: stream.Interface
    ended: Signal
    o: stream.Interface
    limit: Signal
    ready: Signal
    granted: Signal
    take: Signal
    empty: Signal
    full: Signal

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(config.bus_bits)),
                "ended": In(1),
                "o": Out(stream.Signature(word_layout(config.bus_bits))),
                "limit": In(16),
                "ready": Out(1),
                "granted": Out(16),
                "take": In(1),
                "empty": Out(1),
                "full": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """A FIFO of beats, counters of tokens, and the counts at which deliveries ended."""
        m = Module()
        config = self.config
        per_token = config.kvmu.token_bytes // config.bus_bytes
        depth = config.core.kv_tokens * per_token
        m.submodules.fifo = fifo = Queue(config.bus_bits, depth)
        m.submodules.ends = ends = Queue(COUNT_BITS, config.core.queue)
        connect(m, flipped(self.i), fifo.i)
        coming = Signal(range(per_token))
        leaving = Signal(range(per_token))
        arrived = Signal(COUNT_BITS)
        given = Signal(COUNT_BITS)
        now = Signal(COUNT_BITS)
        last_in, last_out = coming == per_token - 1, leaving == per_token - 1
        m.d.comb += [
            now.eq(arrived + (self.i.valid & self.i.ready & last_in)),
            self.o.payload.data.eq(fifo.o.payload),
            self.o.payload.last.eq(last_out),
            self.o.valid.eq(fifo.o.valid),
            fifo.o.ready.eq(self.o.ready),
            ends.i.payload.eq(now),
            ends.i.valid.eq(self.ended),
            self.empty.eq(fifo.empty & ~fifo.o.valid),
            self.full.eq(self.i.valid & ~self.i.ready),
        ]
        m.d.sync += arrived.eq(now)
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += coming.eq(Mux(last_in, 0, coming + 1))
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += leaving.eq(Mux(last_out, 0, leaving + 1))
        # Registered: `ready` and `granted` belong to the limit and the counts of the cycle before.
        left = Signal(COUNT_BITS)
        m.d.comb += left.eq(Mux(ends.o.valid, ends.o.payload, arrived) - given)
        m.d.sync += [
            self.ready.eq((ends.o.valid | (left >= self.limit)) & ~self.take),
            self.granted.eq(Mux(left >= self.limit, self.limit, left)),
        ]
        with m.If(self.take):
            m.d.sync += given.eq(given + self.granted)
            m.d.comb += ends.o.ready.eq(self.granted == 0)
        return m
