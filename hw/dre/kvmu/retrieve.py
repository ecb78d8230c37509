"""RETRIEVE: selects clusters of a table in memory, and fetches them head by head while the WTU goes on.

The token counts stream from memory into the WTU, the scores follow from the payload; of a row that does not
fit the score memory tile by tile, in each of the WTU's passes but the first. Every bitmask that the WTU gives
leaves as a result and goes to the FETCH engine as well (model `vrex.model.dre.dre`).
"""

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from vrex.hw.dre.kvmu import fetch
from vrex.hw.dre.kvmu.header import TableHeader
from vrex.hw.dre.kvmu.ports import WtuPort, WtuSignature
from vrex.hw.dre.kvmu.table import HEADER_BYTES, STATUS_BITS, ExactReader, status_of
from vrex.hw.lib.axi.burst import ADDRESS_BITS, PAGE_BITS, PAGE_NUMBER_BITS, REQUEST, Error, beat_layout
from vrex.hw.lib.stream import delay
from vrex.model.commands import LONG_PASSES, Status
from vrex.model.dre.kvstore import COUNT_BYTES

COMMAND = data.StructLayout({"address": ADDRESS_BITS, "clusters": 16, "kv_heads": 32, "fetches": 1})
"""A RETRIEVE whose payload has the right length."""

DONE = fetch.DONE

SCORE_BITS = 16


class RowTiles(wiring.Component):
    """Counts the tiles of rows of scores, where a row doesn't fit the WTU's score memory.

    Such a row comes `LONG_PASSES` times, in tiles of `row_clusters` clusters; its last tile may be shorter.

    Args:
        row_clusters: clusters that the score memory holds.
        bus_bits: width of a beat.

    Members:
        clear: before a command.
        start: before a command's first tile; `clusters` is stable since the cycle before.
        clusters: of a row.
        beat: a beat of scores or counts is taken.
        next: with a tile's last beat: go to the next tile.
        long: rows come in tiles.
        tile, tile_clusters: number of the tile in its row, and its clusters.
        last_beat: the next beat is the tile's last.
        needs_counts: with `next`: the next tile begins with token counts.
    """

    clear: Signal
    start: Signal
    clusters: Signal
    beat: Signal
    next: Signal
    long: Signal
    tile: Signal
    tile_clusters: Signal
    last_beat: Signal
    needs_counts: Signal

    def __init__(self, row_clusters: int, bus_bits: int) -> None:
        self.row_clusters, self.bus_bits = row_clusters, bus_bits
        self.row_bits = row_clusters.bit_length() - 1
        super().__init__(
            {
                "clear": In(1),
                "start": In(1),
                "clusters": In(16),
                "beat": In(1),
                "next": In(1),
                "long": Out(1),
                "tile": Out(16 - self.row_bits + 1),
                "tile_clusters": Out(self.row_bits + 1),
                "last_beat": Out(1),
                "needs_counts": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware: counters of beats, tiles and passes, and comparisons with the row's end."""
        m = Module()
        row_clusters, row_bits = self.row_clusters, self.row_bits
        item_shift = (self.bus_bits // SCORE_BITS).bit_length() - 1
        # Number of the row's last cluster, and of the last beat of its last tile.
        last_cluster = Signal(16)
        last_beat = Signal(row_bits - item_shift + 1)
        beat = Signal.like(last_beat)
        last_tile = Signal()
        phase = Signal(range(LONG_PASSES))
        m.d.sync += [
            self.long.eq(self.clusters > row_clusters),
            last_cluster.eq(self.clusters - 1),
            last_beat.eq(last_cluster[item_shift:row_bits]),
        ]
        m.d.comb += [
            self.tile_clusters.eq(Mux(last_tile, last_cluster[:row_bits] + 1, row_clusters)),
            self.last_beat.eq(beat == Mux(last_tile, last_beat, (row_clusters >> item_shift) - 1)),
            # The first pass has no counts.
            self.needs_counts.eq(Mux(last_tile, phase != LONG_PASSES - 1, phase != 0)),
        ]
        with m.If(self.beat):
            m.d.sync += beat.eq(Mux(self.last_beat, 0, beat + 1))
        with m.If(self.clear):
            m.d.sync += [beat.eq(0), self.tile.eq(0), phase.eq(0)]
        with m.If(self.start):
            m.d.sync += last_tile.eq(~self.long)
        with m.If(self.next):
            m.d.sync += [
                self.tile.eq(self.tile + 1),
                last_tile.eq(self.tile + 1 == last_cluster[row_bits:16]),
            ]
            with m.If(last_tile):
                m.d.sync += [self.tile.eq(0), phase.eq(phase + 1), last_tile.eq(0)]
        return m


class Retrieve(wiring.Component):
    """Executes one RETRIEVE after the other.

    Args:
        row_clusters: clusters of a row that fits the WTU's score memory.
        bus_bits: width of a beat.

    Members:
        cmd: what to select from, and whether to fetch it.
        din: the payload; what is left of it when `done` comes early is not taken.
        dout: bitmasks; none when the command fails before the first.
        done: status; comes after the last beats of `dout` and `kv`.
        busy: a command is in work.
        wtu: the other side of a `Wtu`'s ports.
        fetch_cmd, masks, fetch_done: the other side of a `Fetch`'s ports.
        read, beats: a client's side of `vrex.hw.lib.axi.reader.AxiReader`.
    """

    cmd: stream.Interface
    din: stream.Interface
    dout: stream.Interface
    done: stream.Interface
    busy: Signal
    wtu: WtuPort
    fetch_cmd: stream.Interface
    masks: stream.Interface
    fetch_done: stream.Interface
    read: stream.Interface
    beats: stream.Interface

    def __init__(self, row_clusters: int, *, bus_bits: int) -> None:
        self.row_clusters, self.bus_bits = row_clusters, bus_bits
        super().__init__(
            {
                "cmd": In(stream.Signature(COMMAND)),
                "din": In(stream.Signature(bus_bits)),
                "dout": Out(stream.Signature(bus_bits)),
                "done": Out(stream.Signature(DONE)),
                "busy": Out(1),
                "wtu": Out(WtuSignature(bus_bits)),
                "fetch_cmd": Out(stream.Signature(fetch.COMMAND)),
                "masks": Out(stream.Signature(bus_bits)),
                "fetch_done": In(stream.Signature(fetch.DONE)),
                "read": Out(stream.Signature(REQUEST)),
                "beats": In(stream.Signature(beat_layout(bus_bits))),
            }
        )
        self.command: Any = Signal(COMMAND)
        # Of RETRIEVE itself and of its FETCH.
        self.status = Signal(STATUS_BITS)
        self.fetch_status = Signal(STATUS_BITS)
        # FETCH works for this command.
        self.fetching = Signal()

    def elaborate(self, platform: Any) -> Module:
        """Hardware: a reader of header and counts, tile counters, a fork of the bitmasks, a state machine."""
        m = Module()
        command = self.command
        m.submodules.reader = reader = ExactReader(self.bus_bits)
        m.submodules.header = header = TableHeader(self.bus_bits, ("clusters", "counts_page"))
        m.submodules.tiles = tiles = RowTiles(self.row_clusters, self.bus_bits)
        connect(m, reader.to_reader, flipped(self.read))
        connect(m, flipped(self.beats), reader.from_reader)
        m.d.comb += [
            header.i.payload.eq(reader.o.payload),
            header.kv_heads.eq(command.kv_heads),
            header.error.eq(reader.error),
            tiles.clusters.eq(command.clusters),
            tiles.beat.eq(self.wtu.din.valid & self.wtu.din.ready),
            self.fetch_cmd.payload.address.eq(command.address),
            self.fetch_cmd.payload.clusters.eq(command.clusters),
            self.fetch_cmd.payload.kv_heads.eq(command.kv_heads),
            self.fetch_done.ready.eq(self.fetching),
            self.done.payload.status.eq(Mux(self.status == Status.OK, self.fetch_status, self.status)),
        ]
        self._fork_masks(m)
        self._request(m, reader, header, tiles)
        self._control(m, reader, header, tiles)
        return m

    def _fork_masks(self, m: Module) -> None:
        """Forks the WTU's bitmasks; each side takes a beat once, a FETCH that has failed no more."""
        out, fetch_side, mask = self.dout, self.masks, self.wtu.dout
        out_took = Signal()
        fetch_took = Signal()
        drop = self.status != Status.OK
        out_done = out_took | out.ready | drop
        fetch_done = fetch_took | fetch_side.ready | ~self.fetching
        m.d.comb += [
            out.payload.eq(mask.payload),
            fetch_side.payload.eq(mask.payload),
            out.valid.eq(mask.valid & ~out_took & ~drop),
            fetch_side.valid.eq(mask.valid & ~fetch_took & self.fetching),
            mask.ready.eq(out_done & fetch_done),
        ]
        with m.If(mask.valid):
            m.d.sync += [out_took.eq(out_done & ~mask.ready), fetch_took.eq(fetch_done & ~mask.ready)]

    def _request(self, m: Module, reader: ExactReader, header: TableHeader, tiles: RowTiles) -> None:
        """What is read next: before the header that, then the counts of the tile."""
        table = self.command.address[PAGE_BITS:]
        has_header = Signal()
        counts_page = delay(m, (table + header.header.counts_page)[:PAGE_NUMBER_BITS], 1, "counts_page")
        counts = (counts_page << PAGE_BITS) + tiles.tile * (COUNT_BYTES * self.row_clusters)
        # Registered: the reader computes much from a read's bytes in the cycle in which it is asked for.
        read = reader.request.payload
        m.d.sync += [
            read.address.eq(Mux(has_header, counts, self.command.address)),
            read.bytes.eq(Mux(has_header, tiles.tile_clusters * COUNT_BYTES, HEADER_BYTES)),
        ]
        with m.If(tiles.clear):
            m.d.sync += [
                has_header.eq(0),
                read.address.eq(self.cmd.payload.address),
                read.bytes.eq(HEADER_BYTES),
            ]
        with m.If(tiles.start):
            m.d.sync += has_header.eq(1)

    def _control(self, m: Module, reader: ExactReader, header: TableHeader, tiles: RowTiles) -> None:
        """Sequence of one command."""
        command, to_wtu = self.command, self.wtu.din
        some = delay(m, command.clusters != 0, 1, "some")
        others = delay(m, command.clusters != header.header.clusters, 1, "others")
        m.d.comb += [
            self.busy.eq(1),
            to_wtu.payload.eq(self.din.payload),
            self.wtu.start.payload.eq(command.clusters),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [self.busy.eq(0), self.cmd.ready.eq(1), reader.clear.eq(1), tiles.clear.eq(1)]
                m.d.sync += [command.eq(self.cmd.payload), self.status.eq(0), self.fetch_status.eq(0)]
                with m.If(self.cmd.valid):
                    m.next = "READ_HEADER"
            with m.State("READ_HEADER"):
                self._read(m, reader, "HEADER")
            with m.State("HEADER"):
                m.d.comb += [reader.o.ready.eq(1), header.i.valid.eq(reader.o.valid)]
                with m.If(~reader.busy):
                    m.next = "COMPARE"
            with m.State("COMPARE"):
                m.d.comb += tiles.start.eq(1)
                m.next = "COMPARED"
            with m.State("COMPARED"):
                m.next = "CHECK"
            with m.State("CHECK"):
                m.next = "DONE"
                with m.If(header.status != Status.OK):
                    m.d.sync += self.status.eq(header.status)
                with m.Elif(others):
                    m.d.sync += self.status.eq(Status.BAD_COUNT)
                with m.Elif(some):
                    m.next = "WTU"
            with m.State("WTU"):
                m.d.comb += self.wtu.start.valid.eq(1)
                with m.If(self.wtu.start.ready):
                    m.next = "READ_COUNTS"
                    with m.If(tiles.long):
                        m.next = "SCORES"
                        with m.If(command.fetches):
                            m.next = "FETCH"
            with m.State("NEXT_TILE"):
                # The tile's address goes into its register.
                m.next = "READ_COUNTS"
            with m.State("READ_COUNTS"):
                # The WTU must come to its end, so after a failure it gets the counts that the reader pads.
                self._read(m, reader, "COUNTS")
            with m.State("COUNTS"):
                m.d.comb += [to_wtu.payload.eq(reader.o.payload), to_wtu.valid.eq(reader.o.valid)]
                m.d.comb += reader.o.ready.eq(to_wtu.ready)
                with m.If(~reader.busy):
                    m.d.sync += self.status.eq(status_of(reader.error))
                    m.next = "SCORES"
                    with m.If(~tiles.long & command.fetches & (reader.error == Error.NONE)):
                        m.next = "FETCH"
            with m.State("FETCH"):
                m.d.comb += self.fetch_cmd.valid.eq(1)
                with m.If(self.fetch_cmd.ready):
                    m.d.sync += self.fetching.eq(1)
                    m.next = "SCORES"
            with m.State("SCORES"):
                m.d.comb += [to_wtu.valid.eq(self.din.valid), self.din.ready.eq(to_wtu.ready)]
                m.d.comb += self.wtu.done.ready.eq(1)
                with m.If(tiles.long & tiles.beat & tiles.last_beat):
                    m.d.comb += tiles.next.eq(1)
                    with m.If(tiles.needs_counts):
                        m.next = "NEXT_TILE"
                with m.If(self.wtu.done.valid):
                    m.next = "WAIT"
            with m.State("WAIT"), m.If(~self.fetching):
                m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += self.done.valid.eq(1)
                with m.If(self.done.ready):
                    m.next = "IDLE"
        with m.If(self.fetching & self.fetch_done.valid):
            m.d.sync += [self.fetching.eq(0), self.fetch_status.eq(self.fetch_done.payload.status)]

    def _read(self, m: Module, reader: ExactReader, after: str) -> None:
        """Asks for what is next and goes on."""
        m.d.comb += reader.request.valid.eq(1)
        with m.If(reader.request.ready):
            m.next = after
