"""FETCH: K and V of the clusters that bitmasks name (model `vrex.model.dre.kvstore.Table.fetch`).

One KV head after the other: its bitmask is loaded, then the segment map streams by, one entry a cycle; it is
asked for as soon as the bitmask has named a cluster. `SegmentLocator` looks the cluster of every entry up in
the bitmask and computes where its segment is; `RunJoiner` makes one read of segments that are wanted and lie
behind each other; `RunReader` reads them. Reads go out while the scan goes on, and the next head's scan
begins while they are answered.

A scan never stalls the memory's answers: map beats are asked for only where a FIFO has space for them, and
the pipeline behind it only starts what the queue of reads can take.
"""

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out, connect, flipped

from vrex.hw.dre.kvmu.bitmask import MaskMemory
from vrex.hw.dre.kvmu.header import TableHeader
from vrex.hw.dre.kvmu.segment_map import FAR_BITS, NUMBERED_ENTRY, PAGES_BITS, MapReader
from vrex.hw.dre.kvmu.table import HEADER, HEADER_BYTES, STATUS_BITS, ExactReader, status_of
from vrex.hw.lib.axi.burst import (
    ADDRESS_BITS,
    LENGTH_BITS,
    PAGE_BITS,
    PAGE_NUMBER_BITS,
    REQUEST,
    Error,
    Windows,
    WindowsSignature,
    beat_layout,
)
from vrex.hw.lib.axi.reader import AxiReader
from vrex.hw.lib.axi.signature import Axi4Interface, Axi4Signature
from vrex.hw.lib.stream import delay
from vrex.model.commands import Status
from vrex.model.config import KvmuConfig

COMMAND = data.StructLayout({"address": ADDRESS_BITS, "clusters": 16, "kv_heads": 32})
"""What to fetch: one bitmask of `clusters` bits follows on `masks` for each bit of `kv_heads`."""

DONE = data.StructLayout({"status": STATUS_BITS})

HEADER_FIELDS = (
    "clusters",
    "segments",
    "ring_segments",
    "map_page",
    "ring_page",
    "ring_stride",
    "host_page",
    "host_stride",
)
"""What FETCH needs of a table's header."""

READ_FIELDS = {"bytes": LENGTH_BITS, "host": 1, "full": 1, "follows": 1}

SEGMENT = data.StructLayout({"valid": 1, "wanted": 1, "outside": 1, "address": ADDRESS_BITS, **READ_FIELDS})
"""A segment of the map.

`wanted`: read `bytes` bytes from `address` on; `outside`: it would be wanted, but lies outside the address
space; `host`: in the host window; `full`: so that the next segment may continue it; `follows`: it lies behind
the segment before it.
"""

RUN = data.StructLayout({"request": REQUEST, "host": 1})
"""A read, and whether it is from the host window."""

RUN_BYTES = 16384
"""A run grows by whole segments while it stays within so many bytes, so that its read starts early."""

RUNS = 16
"""Runs that may wait; the pipeline starts an entry only while no more than half of them do."""


class SegmentLocator(wiring.Component):
    """Finds where each entry's segment is, and whether it is wanted: an entry a cycle, five cycles later.

    Args:
        config: of the KV store.
        chunk_tokens: most tokens of an APPEND; so many segments of a ring are not relied on.

    Members:
        header: of the table; stable from `first_head` on.
        table: page number of the table.
        first_head, next_head: go to the command's first KV head, to the next one; no entry is in work.
        may_start: an entry may start, from the next cycle on.
        entry: of the segment map, in order.
        cluster, selected: the bitmask's bit to read, and that bit three cycles later.
        segment: the entries' segments, in order.
        busy: an entry is in the first four registers.
    """

    header: Any
    table: Signal
    first_head: Signal
    next_head: Signal
    may_start: Signal
    entry: stream.Interface
    cluster: Signal
    selected: Signal
    segment: Any
    busy: Signal

    def __init__(self, config: KvmuConfig, *, chunk_tokens: int) -> None:
        self.config, self.chunk_tokens = config, chunk_tokens
        super().__init__(
            {
                "header": In(data.StructLayout({name: HEADER[name].shape for name in HEADER_FIELDS})),
                "table": In(PAGE_NUMBER_BITS),
                "first_head": In(1),
                "next_head": In(1),
                "may_start": In(1),
                "entry": In(stream.Signature(NUMBERED_ENTRY)),
                "cluster": Out(16),
                "selected": In(1),
                "segment": Out(SEGMENT),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware: the pages of the KV head's ring and host segments, and a pipeline of five registers.

        taken: the entry; the bitmask is read. placed: whether the segment is in the ring, and in which slot.
        sized: its number there, and its bytes. located: its address. segment: the bitmask's bit decides.
        """
        m = Module()
        token_shift, segment_shift = (
            size.bit_length() - 1 for size in (self.config.token_bytes, self.config.segment_bytes)
        )
        ring, host = self._pages(m)
        has_ring, first_resident = self._residency(m)
        m.d.sync += self.entry.ready.eq(self.may_start)

        taken: Any = Signal(data.StructLayout({"valid": 1, **dict(NUMBERED_ENTRY.members)}))
        m.d.sync += [
            taken.valid.eq(self.entry.valid & self.entry.ready),
            taken.entry.eq(self.entry.payload.entry),
            taken.segment.eq(self.entry.payload.segment),
        ]
        m.d.comb += self.cluster.eq(taken.entry.cluster)

        places = {"fill": 16, "segment": 32, "slot": 32, "resident": 1, "first": 1}
        placed: Any = Signal(data.StructLayout({"valid": 1, **places}))
        m.d.sync += [
            placed.valid.eq(taken.valid),
            placed.fill.eq(taken.entry.fill),
            placed.segment.eq(taken.segment),
            placed.slot.eq(taken.segment & (self.header.ring_segments - 1)),
            placed.resident.eq(has_ring & (taken.segment >= first_resident)),
            placed.first.eq(taken.segment == first_resident),
        ]

        sizes = {"valid": 1, "empty": 1, "too_long": 1, **READ_FIELDS}
        sized: Any = Signal(data.StructLayout({"number": 32, **sizes}))
        size = placed.fill << token_shift
        m.d.sync += [
            sized.valid.eq(placed.valid),
            sized.empty.eq(placed.fill == 0),
            sized.number.eq(Mux(placed.resident, placed.slot, placed.segment)),
            sized.bytes.eq(size),
            sized.too_long.eq(size[LENGTH_BITS:].any()),
            sized.host.eq(~placed.resident),
            sized.full.eq(placed.fill == self.config.segment_tokens),
            sized.follows.eq(~(placed.resident & ((placed.slot == 0) | placed.first))),
        ]

        located: Any = Signal(data.StructLayout({"address": FAR_BITS, **sizes}))
        first_byte = Mux(sized.host, host, ring) << PAGE_BITS
        m.d.sync += located.address.eq(first_byte + (sized.number << segment_shift))
        m.d.sync += [located[name].eq(sized[name]) for name in sizes]

        segment = self.segment
        selected = located.valid & ~located.empty & self.selected
        inside = ~located.too_long & ~located.address[ADDRESS_BITS:].any()
        m.d.sync += [segment.wanted.eq(selected & inside), segment.outside.eq(selected & ~inside)]
        m.d.sync += [segment[name].eq(located[name]) for name in ("valid", "address", *READ_FIELDS)]
        m.d.comb += self.busy.eq(taken.valid | placed.valid | sized.valid | located.valid)
        return m

    def _pages(self, m: Module) -> tuple[Signal, Signal]:
        """First pages of the KV head's segments in the ring and in the host window."""
        header = self.header
        ring = Signal(PAGES_BITS)
        host = Signal(PAGES_BITS)
        with m.If(self.first_head):
            m.d.sync += [ring.eq(self.table + header.ring_page), host.eq(header.host_page)]
        with m.Elif(self.next_head):
            m.d.sync += [ring.eq(ring + header.ring_stride), host.eq(host + header.host_stride)]
        return ring, host

    def _residency(self, m: Module) -> tuple[Signal, Signal]:
        """Whether the table has a ring, and the first segment that is in it."""
        # The first entry comes many cycles after the header.
        spare = Signal(33)
        first = Signal(34)
        m.d.sync += [
            spare.eq(self.header.ring_segments - self.chunk_tokens),
            first.eq(self.header.segments - spare.as_signed()),
        ]
        has_ring = Signal()
        first_resident = Signal(33)
        m.d.sync += [
            first_resident.eq(Mux(first[-1], 0, first)),
            has_ring.eq(self.header.ring_segments != 0),
        ]
        return has_ring, first_resident


class RunJoiner(wiring.Component):
    """Joins segments that lie behind each other into runs.

    Args:
        segment_bytes: a whole segment.

    Members:
        segment: in the order of the map.
        scanning: segments may still come.
        run: a run, in the cycle in which the next segment does not continue it or no more come; its receiver
            must have space for it.
        pending: a run is being joined.
    """

    segment: Any
    scanning: Signal
    run: stream.Interface
    pending: Signal

    def __init__(self, segment_bytes: int) -> None:
        self.segment_bytes = segment_bytes
        super().__init__(
            {
                "segment": In(SEGMENT),
                "scanning": In(1),
                "run": Out(stream.Signature(RUN, always_ready=True)),
                "pending": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware: a register of the run being joined, and a count of the segments that still fit."""
        m = Module()
        segment, run, pending = self.segment, self.run.payload, self.pending
        # A run that grows consists of whole segments; so many more fit.
        most = RUN_BYTES // self.segment_bytes
        left = Signal(range(max(most, 2)))
        grows = Signal()
        joins = segment.wanted & segment.follows & grows
        with m.If(segment.valid & joins):
            m.d.sync += [
                run.request.bytes.eq(run.request.bytes + segment.bytes),
                left.eq(left - 1),
                grows.eq(segment.full & (left != 1)),
            ]
        with m.Elif(segment.valid):
            m.d.comb += self.run.valid.eq(pending)
            m.d.sync += [
                pending.eq(segment.wanted),
                left.eq(max(most - 1, 0)),
                grows.eq(segment.wanted & segment.full & (most > 1)),
                run.request.address.eq(segment.address),
                run.request.bytes.eq(segment.bytes),
                run.host.eq(segment.host),
            ]
        with m.Elif(~self.scanning):
            m.d.comb += self.run.valid.eq(pending)
            m.d.sync += [pending.eq(0), grows.eq(0)]
        return m


class RunReader(wiring.Component):
    """Reads runs in order and delivers their beats, but for those of a read that failed.

    Args:
        bus_bits: width of a beat.
        outstanding: most bursts of the reader that are not answered.

    Members:
        run: to read; waits in a queue.
        has_space: at least half of the queue is free.
        discard: show no new read and empty the queue.
        kv: beats.
        host_beat: with a transfer on `kv`: it came from the host window.
        error: of the beat that the memory gives in this cycle.
        busy: runs wait or reads are not answered.
        read, beats: a buffered client's side of `vrex.hw.lib.axi.reader.AxiReader`.
    """

    run: stream.Interface
    has_space: Signal
    discard: Signal
    kv: stream.Interface
    host_beat: Signal
    error: Any
    busy: Signal
    read: stream.Interface
    beats: stream.Interface

    def __init__(self, bus_bits: int, *, outstanding: int) -> None:
        self.outstanding = outstanding
        super().__init__(
            {
                "run": In(stream.Signature(RUN, always_ready=True)),
                "has_space": Out(1),
                "discard": In(1),
                "kv": Out(stream.Signature(bus_bits)),
                "host_beat": Out(1),
                "error": Out(Error),
                "busy": Out(1),
                "read": Out(stream.Signature(REQUEST)),
                "beats": In(stream.Signature(beat_layout(bus_bits))),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware: a queue of runs, a register of the read that is shown, a queue of the reads' windows."""
        m = Module()
        request, beats = self.read, self.beats
        runs: Any = SyncFIFO(width=RUN.size, depth=RUNS)
        hosts: Any = SyncFIFO(width=1, depth=self.outstanding + 4)
        m.submodules.runs, m.submodules.hosts = runs, hosts
        run: Any = data.View(RUN, runs.r_data)
        good = beats.payload.error == Error.NONE
        m.d.comb += [
            runs.w_data.eq(self.run.payload),
            runs.w_en.eq(self.run.valid),
            self.has_space.eq(runs.level <= RUNS // 2),
            hosts.w_data.eq(run.host),
            hosts.r_en.eq(beats.valid & beats.ready & beats.payload.last),
            self.kv.payload.eq(beats.payload.data),
            self.kv.valid.eq(beats.valid & good),
            beats.ready.eq(self.kv.ready | ~good),
            self.host_beat.eq(hosts.r_data),
            self.error.eq(Mux(beats.valid, beats.payload.error, Error.NONE)),
            self.busy.eq(runs.r_rdy | request.valid | hosts.r_rdy),
        ]
        with m.If(request.ready):
            m.d.sync += request.valid.eq(0)
        with m.If(self.discard):
            m.d.comb += runs.r_en.eq(1)
        with m.Elif((~request.valid | request.ready) & runs.r_rdy & hosts.w_rdy):
            m.d.comb += [runs.r_en.eq(1), hosts.w_en.eq(1)]
            m.d.sync += [request.valid.eq(1), request.payload.eq(run.request)]
        return m


class Fetch(wiring.Component):
    """Executes one FETCH after the other.

    Besides its beats of K and V a command takes the time of one read for the header, and for each KV head
    `ceil(clusters / 32)` cycles, the time of one read and a cycle a segment, of which those of all heads but
    the first are hidden behind the reads of the head before.

    Args:
        config: of the KV store.
        chunk_tokens: most tokens of an APPEND.
        bus_bits: width of a beat.

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

    cmd: stream.Interface
    masks: stream.Interface
    kv: stream.Interface
    done: stream.Interface
    busy: Signal
    host_beat: Signal
    wait_in: Signal
    map_read: stream.Interface
    map_beats: stream.Interface
    kv_read: stream.Interface
    kv_beats: stream.Interface

    def __init__(self, config: KvmuConfig, *, chunk_tokens: int, bus_bits: int) -> None:
        self.config, self.chunk_tokens, self.bus_bits = config, chunk_tokens, bus_bits
        super().__init__(
            {
                "cmd": In(stream.Signature(COMMAND)),
                "masks": In(stream.Signature(bus_bits)),
                "kv": Out(stream.Signature(bus_bits)),
                "done": Out(stream.Signature(DONE)),
                "busy": Out(1),
                "host_beat": Out(1),
                "wait_in": Out(1),
                "map_read": Out(stream.Signature(REQUEST)),
                "map_beats": In(stream.Signature(beat_layout(bus_bits))),
                "kv_read": Out(stream.Signature(REQUEST)),
                "kv_beats": In(stream.Signature(beat_layout(bus_bits))),
            }
        )
        self.command: Any = Signal(COMMAND)
        self.status = Signal(STATUS_BITS)
        # The table's header is complete: the map has the client.
        self.has_header = Signal()
        # Entries are to come or in the locator's first registers.
        self.scanning = Signal()

    def elaborate(self, platform: Any) -> Module:
        """Hardware: readers of header, bitmask and map; the path from entries to reads; a state machine."""
        m = Module()
        bus_bits, command = self.bus_bits, self.command
        m.submodules.reader = reader = ExactReader(bus_bits)
        m.submodules.header = header = TableHeader(bus_bits, HEADER_FIELDS)
        m.submodules.mask = mask = MaskMemory(bus_bits)
        m.submodules.map = scan = MapReader(bus_bits)
        m.submodules.locator = locator = SegmentLocator(self.config, chunk_tokens=self.chunk_tokens)
        m.submodules.joiner = joiner = RunJoiner(self.config.segment_bytes)
        m.submodules.runs = runs = RunReader(bus_bits, outstanding=self.config.outstanding)
        table = command.address[PAGE_BITS:]
        map_page = Signal(PAGES_BITS)
        m.d.sync += map_page.eq(table + header.header.map_page)
        m.d.sync += self.scanning.eq(scan.start | scan.open | locator.busy)
        m.d.comb += [
            reader.request.payload.address.eq(command.address),
            reader.request.payload.bytes.eq(HEADER_BYTES),
            header.i.payload.eq(reader.o.payload),
            header.kv_heads.eq(command.kv_heads),
            header.error.eq(reader.error),
            mask.clusters.eq(command.clusters),
            mask.known.eq(header.header.clusters),
            mask.cluster.eq(locator.cluster),
            scan.address.eq(map_page << PAGE_BITS),
            scan.segments.eq(header.header.segments),
            locator.header.eq(header.header),
            locator.table.eq(table),
            # A cycle late: at most eight entries are then behind the level that was compared.
            # Of a bitmask that is wrong, not even the entry may start that waits when it turns out so.
            locator.may_start.eq(runs.has_space & ~mask.loading & ~mask.wrong),
            locator.selected.eq(mask.selected),
            joiner.segment.eq(locator.segment),
            joiner.scanning.eq(self.scanning),
            runs.discard.eq(self.status != Status.OK),
            self.host_beat.eq(runs.host_beat),
            self.wait_in.eq(self.busy & ~self.kv.valid),
        ]
        connect(m, flipped(self.masks), mask.beats)
        connect(m, scan.entry, locator.entry)
        connect(m, joiner.run, runs.run)
        connect(m, runs.kv, flipped(self.kv))
        connect(m, runs.read, flipped(self.kv_read))
        connect(m, flipped(self.kv_beats), runs.beats)
        with m.If(~self.has_header):
            connect(m, reader.to_reader, flipped(self.map_read))
            connect(m, flipped(self.map_beats), reader.from_reader)
        with m.Else():
            connect(m, scan.read, flipped(self.map_read))
            connect(m, flipped(self.map_beats), scan.beats)
        outside = Mux(locator.segment.outside, Error.OUTSIDE, Error.NONE)
        for error in (runs.error, scan.error, outside):
            with m.If((error != Error.NONE) & (self.status == Status.OK)):
                m.d.sync += self.status.eq(status_of(error))
        self._control(m, reader, header, mask, scan, locator, joiner.pending, runs.busy)
        return m

    def _control(
        self,
        m: Module,
        reader: ExactReader,
        header: TableHeader,
        mask: MaskMemory,
        scan: MapReader,
        locator: SegmentLocator,
        joining: Signal,
        reading: Signal,
    ) -> None:
        """Sequence of one command: header, then per KV head its bitmask and a scan of the map."""
        command, failed = self.command, self.status != Status.OK
        # Bits of the KV heads that are left; the head's map was asked for; a bitmask was wrong.
        heads = Signal(32)
        started = Signal()
        bad_mask = Signal()
        stop = Signal()
        has_segments = delay(m, header.header.segments != 0, 1, "has_segments")
        stopping = delay(m, stop, 1, "stopping", reset=True)
        m.d.sync += scan.start.eq(0)
        m.d.comb += [
            self.busy.eq(1),
            self.done.payload.status.eq(Mux(bad_mask & ~failed, Status.BAD_MASK, self.status)),
            scan.stop.eq(stopping),
            mask.stop.eq(stopping),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [self.busy.eq(0), self.cmd.ready.eq(1), reader.clear.eq(1)]
                m.d.sync += [command.eq(self.cmd.payload), self.status.eq(Status.OK), bad_mask.eq(0)]
                m.d.sync += [self.has_header.eq(0), started.eq(0)]
                with m.If(self.cmd.valid):
                    m.next = "READ_HEADER"
            with m.State("READ_HEADER"):
                m.d.comb += reader.request.valid.eq(1)
                with m.If(reader.request.ready):
                    m.next = "HEADER"
            with m.State("HEADER"):
                m.d.comb += [reader.o.ready.eq(1), header.i.valid.eq(reader.o.valid)]
                with m.If(~reader.busy):
                    m.next = "COMPARE"
            with m.State("COMPARE"):
                m.d.sync += self.has_header.eq(1)
                m.next = "CHECK"
            with m.State("CHECK"):
                m.d.comb += locator.first_head.eq(1)
                m.d.sync += [heads.eq(command.kv_heads), self.status.eq(header.status)]
                m.next = "HEAD"
                with m.If(header.status != Status.OK):
                    m.next = "DONE"
            with m.State("HEAD"):
                with m.If((heads == 0) | failed):
                    m.next = "DRAIN"
                with m.Elif(heads[0]):
                    m.d.comb += mask.start.eq(1)
                    m.next = "MASK"
                with m.Else():
                    m.next = "NEXT_HEAD"
            with m.State("NEXT_HEAD"):
                m.d.comb += locator.next_head.eq(1)
                m.d.sync += [heads.eq(heads >> 1), started.eq(0)]
                m.next = "HEAD"
            with m.State("MASK"):
                self._load_mask(m, mask, scan, has_segments, started, bad_mask)
            with m.State("SCAN"):
                with m.If(failed):
                    m.next = "DRAIN"
                with m.Elif(~self.scanning & ~joining):
                    m.next = "NEXT_HEAD"
            with m.State("DRAIN"):
                m.d.comb += stop.eq(1)
                with m.If(~scan.start & ~self.scanning & ~joining & ~reading):
                    m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += self.done.valid.eq(1)
                with m.If(self.done.ready):
                    m.next = "IDLE"

    def _load_mask(
        self, m: Module, mask: MaskMemory, scan: MapReader, has_segments: Any, started: Signal, bad: Signal
    ) -> None:
        """State in which a bitmask comes; the map is asked for once it names a cluster."""
        with m.If(mask.some & has_segments & ~started):
            m.d.sync += [scan.start.eq(1), started.eq(1)]
        with m.If(self.status != Status.OK):
            m.next = "DRAIN"
        with m.Elif(~mask.loading):
            with m.If(mask.wrong):
                m.d.sync += bad.eq(1)
                m.next = "DRAIN"
            with m.Elif(started):
                m.next = "SCAN"
            with m.Elif(~mask.some | ~has_segments):
                m.next = "NEXT_HEAD"


class FetchPort(wiring.Component):
    """FETCH with a read-only AXI4 port of its own.

    Args:
        config, chunk_tokens, bus_bits: as `Fetch`'s.

    Members:
        cmd, masks, kv, done, busy, host_beat, wait_in: as `Fetch`'s.
        windows, timeout, m_axi: as `vrex.hw.lib.axi.reader.AxiReader`'s.
    """

    cmd: stream.Interface
    masks: stream.Interface
    kv: stream.Interface
    done: stream.Interface
    busy: Signal
    host_beat: Signal
    wait_in: Signal
    windows: Windows
    timeout: Signal
    m_axi: Axi4Interface

    def __init__(self, config: KvmuConfig, *, chunk_tokens: int, bus_bits: int) -> None:
        self.config, self.chunk_tokens, self.bus_bits = config, chunk_tokens, bus_bits
        super().__init__(
            {
                "cmd": In(stream.Signature(COMMAND)),
                "masks": In(stream.Signature(bus_bits)),
                "kv": Out(stream.Signature(bus_bits)),
                "done": Out(stream.Signature(DONE)),
                "busy": Out(1),
                "host_beat": Out(1),
                "wait_in": Out(1),
                "windows": In(WindowsSignature()),
                "timeout": In(32),
                "m_axi": Out(Axi4Signature(data_width=bus_bits, write=False)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware: `Fetch` and an `AxiReader` of two clients."""
        m = Module()
        config = self.config
        m.submodules.fetch = fetch = Fetch(config, chunk_tokens=self.chunk_tokens, bus_bits=self.bus_bits)
        m.submodules.reader = reader = AxiReader(
            self.bus_bits,
            outstanding=config.outstanding,
            burst_beats=config.burst_beats,
            clients=2,
            buffered=(1,),
        )
        connect(m, fetch.map_read, reader.request[0])
        connect(m, reader.beats[0], fetch.map_beats)
        connect(m, fetch.kv_read, reader.request[1])
        connect(m, reader.beats[1], fetch.kv_beats)
        connect(m, flipped(self.cmd), fetch.cmd)
        connect(m, flipped(self.masks), fetch.masks)
        connect(m, fetch.kv, flipped(self.kv))
        connect(m, fetch.done, flipped(self.done))
        connect(m, flipped(self.windows), reader.windows)
        connect(m, reader.m_axi, flipped(self.m_axi))
        m.d.comb += [
            reader.timeout.eq(self.timeout),
            self.busy.eq(fetch.busy),
            self.host_beat.eq(fetch.host_beat),
            self.wait_in.eq(fetch.wait_in),
        ]
        return m
