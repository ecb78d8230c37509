"""FETCH: K and V of the clusters that bitmasks name (model `vrex.model.dre.kvstore.Table.fetch`).

One KV head after the other: its bitmask is loaded, then the segment map streams by, one entry a cycle; it is
asked for as soon as the bitmask has named a cluster. The cluster of every entry is looked up in the bitmask;
segments that are wanted and lie behind each other become one read. Reads go out while the scan goes on, and
the next head's scan begins while they are answered.

A scan never waits with the memory's answer in its hands: map beats are asked for only where there is room,
and the pipeline behind them only starts what the queue of reads can take.
"""

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out, connect, flipped

from vrex.hw.dre.kvmu.bitmask import MaskMemory
from vrex.hw.dre.kvmu.segment_map import ENTRY, FAR_BITS, PAGES_BITS, MapReader
from vrex.hw.dre.kvmu.table import HEADER, HEADER_BYTES, STATUS_BITS, ExactReader, shift_in, status_of
from vrex.hw.lib.axi.burst import (
    ADDRESS_BITS,
    LENGTH_BITS,
    LIMITS,
    PAGE_BITS,
    REQUEST,
    Error,
    beat_layout,
    connect_members,
    read_members,
)
from vrex.hw.lib.axi.reader import AxiReader
from vrex.hw.lib.stream import delay
from vrex.model.commands import Status
from vrex.model.config import Config
from vrex.model.dre.kvstore import POISONED

COMMAND = data.StructLayout({"address": ADDRESS_BITS, "clusters": 16, "kv_heads": 32})
"""What to fetch: one bitmask of `clusters` bits follows on `masks` for each bit of `kv_heads`."""

DONE = data.StructLayout({"status": STATUS_BITS})

RUN_BYTES = 16384
"""A read grows by whole segments while it stays within so many bytes, so that the first soon goes out."""

RUNS = 16
"""Reads that may wait; the pipeline starts an entry only while no more than half of them do."""


class Fetch(wiring.Component):
    """Executes one FETCH after the other.

    Besides its beats of K and V a command takes the time of one read for the header, and for each KV head
    `ceil(clusters / 32)` cycles, the time of one read and a cycle a segment, of which those of all heads but
    the first are hidden behind the reads of the head before.

    Args:
        config: accelerator.

    Members:
        cmd: what to fetch.
        masks: beats of the bitmasks, lowest KV head first; after an early `done` what is left is not taken.
            A bitmask is checked before its head is fetched, so heads before a wrong one are delivered, whole.
        kv: beats of K and V; all of a command's have left before `done`. Those of a read that failed are
            left out.
        done: status.
        busy: a command is in work.
        host_beat: with a transfer on `kv`: it came from the host window.
        wait_in: a command is in work and `kv` waits for memory.
        map_read, map_beats: a client's side of `vrex.hw.lib.axi.reader.AxiReader`, for header and map.
        kv_read, kv_beats: the same of the buffered client.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        bus = config.bus_bits
        super().__init__(
            {
                "cmd": In(stream.Signature(COMMAND)),
                "masks": In(stream.Signature(bus)),
                "kv": Out(stream.Signature(bus)),
                "done": Out(stream.Signature(DONE)),
                "busy": Out(1),
                "host_beat": Out(1),
                "wait_in": Out(1),
                "map_read": Out(stream.Signature(REQUEST)),
                "map_beats": In(stream.Signature(beat_layout(bus))),
                "kv_read": Out(stream.Signature(REQUEST)),
                "kv_beats": In(stream.Signature(beat_layout(bus))),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware."""
        m = Module()
        self.command, self.header, self.status = Signal(COMMAND), Signal(HEADER), Signal(STATUS_BITS)
        self.failed, self.bad_mask = self.status != Status.OK, Signal()
        m.submodules.reader = self.reader = ExactReader(self.config)
        m.submodules.mask = self.mask = MaskMemory(self.config.bus_bits)
        m.submodules.map = self.map = MapReader(self.config)
        connect(m, flipped(self.masks), self.mask.beats)
        m.submodules.runs = self.runs = SyncFIFO(width=REQUEST.size + 1, depth=RUNS)
        m.submodules.hosts = self.hosts = SyncFIFO(width=1, depth=self.config.kvmu.outstanding + 4)
        self._places(m)
        scanned = self._scan(m)
        self.far = scanned.far
        self._join(m, scanned)
        self._transfer(m)
        self._control(m)
        return m

    def _places(self, m: Module) -> None:
        """Where the map and the head's segments are, and which segments are in the ring."""
        header = self.header
        table = self.command.address[PAGE_BITS:]
        self.ring, self.host, map_page = Signal(PAGES_BITS), Signal(PAGES_BITS), Signal(PAGES_BITS)
        self.first_head, self.next_head = Signal(), Signal()
        m.d.sync += map_page.eq(table + header.map_page)
        with m.If(self.first_head):
            m.d.sync += [self.ring.eq(table + header.ring_page), self.host.eq(header.host_page)]
        with m.Elif(self.next_head):
            m.d.sync += [
                self.ring.eq(self.ring + header.ring_stride),
                self.host.eq(self.host + header.host_stride),
            ]
        # The first entry comes many cycles after the header.
        spare, first = Signal(33), Signal(34)
        m.d.sync += [
            spare.eq(header.ring_segments - self.config.hcu.chunk_tokens),
            first.eq(header.segments - spare.as_signed()),
        ]
        self.first_resident, self.has_ring = Signal(33), Signal()
        m.d.sync += [
            self.first_resident.eq(Mux(first[-1], 0, first)),
            self.has_ring.eq(header.ring_segments != 0),
        ]
        m.d.comb += [
            self.map.address.eq(map_page << PAGE_BITS),
            self.map.segments.eq(header.segments),
            self.mask.clusters.eq(self.command.clusters),
            self.mask.known.eq(header.clusters),
        ]

    def _scan(self, m: Module) -> Any:
        """The pipeline of entries, five registers long; returns its end.

        Its fields: `wanted` (there is something to read), `far` (it is outside the address space), `at`,
        `bytes`, `host`; `full`, so that the next segment may follow it, and `follows`, that it lies behind
        the segment before it.
        """
        kvmu, entry = self.config.kvmu, self.map.entry
        token_shift, segment_shift = kvmu.token_bytes.bit_length() - 1, kvmu.segment_bytes.bit_length() - 1
        # A cycle late: at most eight entries are then behind the level that was looked at.
        m.d.sync += entry.ready.eq((self.runs.level <= RUNS // 2) & ~self.mask.loading)
        one = Signal(data.StructLayout({"valid": 1, "entry": ENTRY, "segment": 32}))
        m.d.sync += [
            one.valid.eq(entry.valid & entry.ready),
            one.entry.eq(entry.payload.entry),
            one.segment.eq(entry.payload.segment),
        ]
        m.d.comb += self.mask.cluster.eq(one.entry.cluster)
        two = Signal(
            data.StructLayout({"valid": 1, "fill": 16, "segment": 32, "slot": 32, "resident": 1, "first": 1})
        )
        m.d.sync += [
            two.valid.eq(one.valid),
            two.fill.eq(one.entry.fill),
            two.segment.eq(one.segment),
            two.slot.eq(one.segment & (self.header.ring_segments - 1)),
            two.resident.eq(self.has_ring & (one.segment >= self.first_resident)),
            two.first.eq(one.segment == self.first_resident),
        ]
        fields = {"bytes": LENGTH_BITS, "host": 1, "full": 1, "follows": 1}
        three = Signal(data.StructLayout({"valid": 1, "some": 1, "number": 32, "too_long": 1, **fields}))
        size = two.fill << token_shift
        m.d.sync += [
            three.valid.eq(two.valid),
            three.some.eq(two.fill != 0),
            three.number.eq(Mux(two.resident, two.slot, two.segment)),
            three.bytes.eq(size),
            three.too_long.eq(size[LENGTH_BITS:].any()),
            three.host.eq(~two.resident),
            three.full.eq(two.fill == kvmu.segment_tokens),
            three.follows.eq(~(two.resident & ((two.slot == 0) | two.first))),
        ]
        four = Signal(data.StructLayout({"valid": 1, "some": 1, "too_long": 1, "at": FAR_BITS, **fields}))
        m.d.sync += [
            four.at.eq(
                (Mux(three.host, self.host, self.ring) << PAGE_BITS) + (three.number << segment_shift)
            ),
            *(four[name].eq(three[name]) for name in ("valid", "some", "too_long", *fields)),
        ]
        five = Signal(data.StructLayout({"valid": 1, "wanted": 1, "far": 1, "at": ADDRESS_BITS, **fields}))
        selected = four.valid & four.some & self.mask.selected
        inside = ~four.too_long & ~four.at[ADDRESS_BITS:].any()
        m.d.sync += [
            five.wanted.eq(selected & inside),
            five.far.eq(selected & ~inside),
            *(five[name].eq(four[name]) for name in ("valid", "at", *fields)),
        ]
        # Whether entries are to come or in the pipeline: known a cycle ahead of its last register.
        self.scanning = Signal()
        stages = one.valid | two.valid | three.valid | four.valid
        m.d.sync += self.scanning.eq(self.map.start | self.map.open | stages)
        return five

    def _join(self, m: Module, segment: Any) -> None:
        """Joins neighbours into runs; a run goes to the queue when something else follows or nothing."""
        run, grows = Signal(data.StructLayout({"request": REQUEST, "host": 1})), Signal()
        self.run_valid = Signal()
        # A run that grows consists of whole segments; so many more fit.
        most = RUN_BYTES // self.config.kvmu.segment_bytes
        room = Signal(range(max(most, 2)))
        joins = segment.wanted & segment.follows & grows
        m.d.comb += self.runs.w_data.eq(run)
        with m.If(segment.valid & joins):
            m.d.sync += [
                run.request.bytes.eq(run.request.bytes + segment.bytes),
                room.eq(room - 1),
                grows.eq(segment.full & (room != 1)),
            ]
        with m.Elif(segment.valid):
            m.d.comb += self.runs.w_en.eq(self.run_valid)
            m.d.sync += [
                self.run_valid.eq(segment.wanted),
                room.eq(max(most - 1, 0)),
                grows.eq(segment.wanted & segment.full & (most > 1)),
                run.request.address.eq(segment.at),
                run.request.bytes.eq(segment.bytes),
                run.host.eq(segment.host),
            ]
        with m.Elif(~self.scanning):
            m.d.comb += self.runs.w_en.eq(self.run_valid)
            m.d.sync += [self.run_valid.eq(0), grows.eq(0)]

    def _transfer(self, m: Module) -> None:
        """Reads go out, K and V come in; after a failure no new read is shown."""
        runs, hosts, request, beats = self.runs, self.hosts, self.kv_read, self.kv_beats
        run = data.View(data.StructLayout({"request": REQUEST, "host": 1}), runs.r_data)
        good = beats.payload.error == Error.NONE
        m.d.comb += [
            hosts.w_data.eq(run.host),
            hosts.r_en.eq(beats.valid & beats.ready & beats.payload.last),
            self.kv.payload.eq(beats.payload.data),
            self.kv.valid.eq(beats.valid & good),
            beats.ready.eq(self.kv.ready | ~good),
            self.host_beat.eq(hosts.r_data),
            self.wait_in.eq(self.busy & ~self.kv.valid),
        ]
        with m.If(request.ready):
            m.d.sync += request.valid.eq(0)
        with m.If(self.failed):
            m.d.comb += runs.r_en.eq(1)
        with m.Elif((~request.valid | request.ready) & runs.r_rdy & hosts.w_rdy):
            m.d.comb += [runs.r_en.eq(1), hosts.w_en.eq(1)]
            m.d.sync += [request.valid.eq(1), request.payload.eq(run.request)]
        self.kv_error = Signal(Error)
        with m.If(beats.valid):
            m.d.comb += self.kv_error.eq(beats.payload.error)

    def _control(self, m: Module) -> None:
        """Sequence of one command."""
        command, reader, mask = self.command, self.reader, self.mask
        heads, scan, stop = Signal(32), self.map, Signal()
        stopping = delay(m, stop, 1, "stopping", reset=True)
        # The map was asked for.
        started = Signal()
        m.d.sync += scan.start.eq(0)
        has_segments, there = delay(m, self.header.segments != 0, 1, "has_segments"), self.header.heads
        self.missing = delay(m, ~there[5:].any() & (command.kv_heads >> there[:5]).any(), 1, "missing")
        self.has_header = Signal()
        self._map_client(m)
        m.d.comb += [
            self.busy.eq(1),
            self.done.payload.status.eq(Mux(self.bad_mask & ~self.failed, Status.BAD_MASK, self.status)),
            reader.request.payload.address.eq(command.address),
            reader.request.payload.bytes.eq(HEADER_BYTES),
            scan.stop.eq(stopping),
            mask.stop.eq(stopping),
        ]
        with m.If(self.next_head):
            m.d.sync += heads.eq(heads >> 1)
        for error in (self.kv_error, self.map.error, Mux(self.far, Error.OUTSIDE, Error.NONE)):
            with m.If((error != Error.NONE) & ~self.failed):
                m.d.sync += self.status.eq(status_of(error))
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [self.busy.eq(0), self.cmd.ready.eq(1), reader.clear.eq(1)]
                m.d.sync += [command.eq(self.cmd.payload), self.status.eq(Status.OK), self.bad_mask.eq(0)]
                m.d.sync += [self.has_header.eq(0), started.eq(0)]
                with m.If(self.cmd.valid):
                    m.next = "READ_HEADER"
            with m.State("READ_HEADER"):
                m.d.comb += reader.request.valid.eq(1)
                with m.If(reader.request.ready):
                    m.next = "HEADER"
            with m.State("HEADER"):
                m.d.comb += reader.o.ready.eq(1)
                with m.If(reader.o.valid):
                    m.d.sync += self.header.eq(shift_in(self.header, reader.o.payload))
                with m.If(~reader.busy):
                    m.next = "COMPARE"
            with m.State("COMPARE"):
                m.d.sync += self.has_header.eq(1)
                m.next = "CHECK"
            with m.State("CHECK"):
                m.d.comb += self.first_head.eq(1)
                m.d.sync += heads.eq(command.kv_heads)
                self._check(m)
            with m.State("HEAD"):
                with m.If((heads == 0) | self.failed):
                    m.next = "DRAIN"
                with m.Elif(heads[0]):
                    m.d.comb += mask.start.eq(1)
                    m.next = "MASK"
                with m.Else():
                    m.next = "NEXT_HEAD"
            with m.State("NEXT_HEAD"):
                m.d.comb += self.next_head.eq(1)
                m.d.sync += started.eq(0)
                m.next = "HEAD"
            with m.State("MASK"):
                with m.If(mask.some & has_segments & ~started):
                    m.d.sync += [scan.start.eq(1), started.eq(1)]
                with m.If(self.failed):
                    m.next = "DRAIN"
                with m.Elif(~mask.loading):
                    with m.If(mask.wrong):
                        m.d.sync += self.bad_mask.eq(1)
                        m.next = "DRAIN"
                    with m.Elif(started):
                        m.next = "SCAN"
                    with m.Elif(~mask.some | ~has_segments):
                        m.next = "NEXT_HEAD"
            with m.State("SCAN"):
                with m.If(self.failed):
                    m.next = "DRAIN"
                with m.Elif(~self.scanning & ~self.run_valid):
                    m.next = "NEXT_HEAD"
            with m.State("DRAIN"):
                m.d.comb += stop.eq(1)
                reads = self.runs.r_rdy | self.kv_read.valid | self.hosts.r_rdy
                with m.If(~scan.start & ~self.scanning & ~self.run_valid & ~reads):
                    m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += self.done.valid.eq(1)
                with m.If(self.done.ready):
                    m.next = "IDLE"

    def _check(self, m: Module) -> None:
        """Goes on if the table can be used and has the command's KV heads."""
        m.next = "DONE"
        with m.If(self.reader.error != Error.NONE):
            m.d.sync += self.status.eq(status_of(self.reader.error))
        with m.Elif((self.header.flags & POISONED) != 0):
            m.d.sync += self.status.eq(Status.POISONED)
        with m.Elif(self.missing):
            m.d.sync += self.status.eq(Status.BAD_COUNT)
        with m.Else():
            m.next = "HEAD"

    def _map_client(self, m: Module) -> None:
        """The header's reader has the client until the header is there, then the map's."""
        reader, scan = self.reader, self.map
        with m.If(~self.has_header):
            connect(m, reader.to_reader, flipped(self.map_read))
            connect(m, flipped(self.map_beats), reader.from_reader)
        with m.Else():
            connect(m, scan.read, flipped(self.map_read))
            connect(m, flipped(self.map_beats), scan.beats)


class FetchPort(wiring.Component):
    """FETCH with a read-only AXI4 port of its own.

    Args:
        config: accelerator.

    Members:
        cmd, masks, kv, done, busy, host_beat, wait_in: as `Fetch`'s.
        LIMITS, m_axi_*: see `vrex.hw.lib.axi.burst.read_members`.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.fetch = Fetch(config)
        members = ("cmd", "masks", "kv", "done", "busy", "host_beat", "wait_in")
        super().__init__(
            LIMITS | read_members(config) | {name: self.fetch.signature.members[name] for name in members}
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware."""
        m = Module()
        m.submodules.fetch = fetch = self.fetch
        m.submodules.reader = reader = AxiReader(self.config, clients=2, buffered=(1,))
        connect_members(m, self, reader, LIMITS | read_members(self.config))
        connect(m, fetch.map_read, reader.request[0])
        connect(m, reader.beats[0], fetch.map_beats)
        connect(m, fetch.kv_read, reader.request[1])
        connect(m, reader.beats[1], fetch.kv_beats)
        connect(m, flipped(self.cmd), fetch.cmd)
        connect(m, flipped(self.masks), fetch.masks)
        connect(m, fetch.kv, flipped(self.kv))
        connect(m, fetch.done, flipped(self.done))
        m.d.comb += [
            getattr(self, name).eq(getattr(fetch, name)) for name in ("busy", "host_beat", "wait_in")
        ]
        return m
