"""RETRIEVE: selects clusters of a table in memory, and fetches them head by head while the WTU goes on.

The token counts stream from memory into the WTU, the scores follow from the payload; of a row that does not
fit the score memory tile by tile, in each of the WTU's passes but the first. Every bitmask that the WTU gives
leaves as a result and goes to the FETCH engine as well (model `vrex.model.dre.dre`).
"""

from typing import Any

from amaranth import C, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from vrex.hw.dre.kvmu import fetch
from vrex.hw.dre.kvmu.table import HEADER, HEADER_BYTES, STATUS_BITS, ExactReader, shift_in, status_of
from vrex.hw.dre.wtu import wtu
from vrex.hw.lib.axi.burst import ADDRESS_BITS, REQUEST, Error, beat_layout
from vrex.hw.lib.stream import delay
from vrex.model.commands import LONG_PASSES, Status
from vrex.model.config import Config
from vrex.model.dre.kvstore import COUNT_BYTES

COMMAND = data.StructLayout({"address": ADDRESS_BITS, "clusters": 16, "kv_heads": 32, "fetches": 1})
"""A RETRIEVE whose payload has the right length."""


class Retrieve(wiring.Component):
    """Executes one RETRIEVE after the other.

    Args:
        config: accelerator.

    Members:
        cmd: what to select from, and whether to fetch it.
        din: the payload; what is left of it when `done` comes early is not taken.
        dout: bitmasks; none when the command fails before the first.
        done: status; comes after the last beats of `dout` and `kv`.
        busy: a command is in work.
        wtu_start: the WTU's command may start, for so many clusters; its other fields are the owner's.
        wtu_din, wtu_dout, wtu_done: the other side of a `Wtu`'s ports.
        fetch_cmd, masks, fetch_done: the other side of a `Fetch`'s ports.
        read, beats: a client's side of `vrex.hw.lib.axi.AxiReader`.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        bus = config.bus_bits
        super().__init__(
            {
                "cmd": In(stream.Signature(COMMAND)),
                "din": In(stream.Signature(bus)),
                "dout": Out(stream.Signature(bus)),
                "done": Out(stream.Signature(fetch.DONE)),
                "busy": Out(1),
                "wtu_start": Out(stream.Signature(16)),
                "wtu_din": Out(stream.Signature(bus)),
                "wtu_dout": In(stream.Signature(bus)),
                "wtu_done": In(stream.Signature(wtu.DONE)),
                "fetch_cmd": Out(stream.Signature(fetch.COMMAND)),
                "masks": Out(stream.Signature(bus)),
                "fetch_done": In(stream.Signature(fetch.DONE)),
                "read": Out(stream.Signature(REQUEST)),
                "beats": In(stream.Signature(beat_layout(bus))),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware."""
        m = Module()
        self.command, self.header = Signal(COMMAND), Signal(HEADER)
        self.status, self.fetch_status = Signal(STATUS_BITS), Signal(STATUS_BITS)
        m.submodules.reader = self.reader = ExactReader(self.config)
        connect(m, self.reader.to_reader, flipped(self.read))
        connect(m, flipped(self.beats), self.reader.from_reader)
        self.fetching = Signal()
        self._tiles(m)
        self._masks(m)
        self._control(m)
        return m

    def _tiles(self, m: Module) -> None:
        """Where in a row that does not fit the WTU's score memory its beats are."""
        row_clusters, clusters = self.config.wtu.row_clusters, self.command.clusters
        row_bits = row_clusters.bit_length() - 1
        item_shift = (self.config.bus_bits // 16).bit_length() - 1
        self.long, self.last_tile, self.last_beat = Signal(), Signal(), Signal()
        self.phase, self.tile = Signal(range(LONG_PASSES)), Signal(16 - row_bits + 1)
        self.tile_clusters, beat = Signal(row_bits + 1), Signal(row_bits - item_shift + 1)
        self.beat_taken, self.forget = Signal(), Signal()
        # Known long before the first beat: the header is read in between.
        last_cluster, last_beat = Signal(16), Signal.like(beat)
        m.d.sync += [
            self.long.eq(clusters > row_clusters),
            last_cluster.eq(clusters - 1),
            last_beat.eq(last_cluster[item_shift:row_bits]),
        ]
        self.before_last_tile = self.tile + 1 == last_cluster[row_bits:16]
        m.d.comb += [
            self.tile_clusters.eq(Mux(self.last_tile, last_cluster[:row_bits] + 1, row_clusters)),
            self.last_beat.eq(beat == Mux(self.last_tile, last_beat, (row_clusters >> item_shift) - 1)),
            self.beat_taken.eq(self.wtu_din.valid & self.wtu_din.ready),
        ]
        with m.If(self.beat_taken):
            m.d.sync += beat.eq(Mux(self.last_beat, 0, beat + 1))
        with m.If(self.forget):
            m.d.sync += [beat.eq(0), self.tile.eq(0), self.phase.eq(0)]

    def _next_tile(self, m: Module) -> None:
        """On to the row's next tile, to its next pass, or to the next row."""
        m.d.sync += [self.tile.eq(self.tile + 1), self.last_tile.eq(self.before_last_tile)]
        with m.If(self.last_tile):
            m.d.sync += [self.tile.eq(0), self.phase.eq(self.phase + 1), self.last_tile.eq(0)]
        with m.If(Mux(self.last_tile, self.phase != LONG_PASSES - 1, self.phase != 0)):
            m.next = "NEXT_TILE"

    def _masks(self, m: Module) -> None:
        """Forks the WTU's bitmasks; each side takes a beat once, a FETCH that has failed no more."""
        out, fetch_side, mask = self.dout, self.masks, self.wtu_dout
        out_took, fetch_took = Signal(), Signal()
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

    def _control(self, m: Module) -> None:
        """Sequence of one command."""
        command, reader, header = self.command, self.reader, self.header
        table = command.address >> 12
        m.d.comb += [
            self.busy.eq(1),
            self.fetch_cmd.payload.address.eq(command.address),
            self.fetch_cmd.payload.clusters.eq(command.clusters),
            self.fetch_cmd.payload.kv_heads.eq(command.kv_heads),
            self.wtu_din.payload.eq(self.din.payload),
            self.wtu_start.payload.eq(command.clusters),
            self.done.payload.status.eq(Mux(self.status == Status.OK, self.fetch_status, self.status)),
            self.fetch_done.ready.eq(self.fetching),
        ]
        heads = delay(m, (C(1) << header.heads[:6]) - 1, 1, "heads")[:32]
        others, self.some = command.clusters != header.clusters, delay(m, command.clusters != 0, 1, "some")
        self.missing = delay(m, others | (command.kv_heads & ~heads).any(), 1, "missing")
        counts_page = delay(m, (table + header.counts_page)[:36], 1, "counts_page")
        counts = (counts_page << 12) + self.tile * (COUNT_BYTES * self.config.wtu.row_clusters)
        # Registers: how long a read is decides much in the cycle that asks for it.
        has_header, read = Signal(), reader.request.payload
        m.d.sync += [
            read.address.eq(Mux(has_header, counts, command.address)),
            read.bytes.eq(Mux(has_header, self.tile_clusters * COUNT_BYTES, HEADER_BYTES)),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [self.busy.eq(0), self.cmd.ready.eq(1), reader.clear.eq(1), self.forget.eq(1)]
                m.d.sync += [has_header.eq(0), read.address.eq(self.cmd.payload.address)]
                m.d.sync += read.bytes.eq(HEADER_BYTES)
                m.d.sync += [command.eq(self.cmd.payload), self.status.eq(0), self.fetch_status.eq(0)]
                with m.If(self.cmd.valid):
                    m.next = "READ_HEADER"
            with m.State("READ_HEADER"):
                self._read(m, "HEADER")
            with m.State("HEADER"):
                m.d.comb += reader.o.ready.eq(1)
                with m.If(reader.o.valid):
                    m.d.sync += header.eq(shift_in(header, reader.o.payload))
                with m.If(~reader.busy):
                    m.next = "COMPARE"
            with m.State("COMPARE"):
                m.d.sync += [has_header.eq(1), self.last_tile.eq(~self.long)]
                m.next = "COMPARED"
            with m.State("COMPARED"):
                m.next = "CHECK"
            with m.State("CHECK"):
                self._check(m)
            with m.State("WTU"):
                m.d.comb += self.wtu_start.valid.eq(1)
                with m.If(self.wtu_start.ready):
                    m.next = "READ_COUNTS"
                    with m.If(self.long):
                        m.next = "SCORES"
                        with m.If(command.fetches):
                            m.next = "FETCH"
            with m.State("NEXT_TILE"):
                # The tile's address goes into its register.
                m.next = "READ_COUNTS"
            with m.State("READ_COUNTS"):
                # The WTU must come to its end, so after a failure it gets counts that the reader makes up.
                self._read(m, "COUNTS")
            with m.State("COUNTS"):
                m.d.comb += [
                    self.wtu_din.payload.eq(reader.o.payload),
                    self.wtu_din.valid.eq(reader.o.valid),
                    reader.o.ready.eq(self.wtu_din.ready),
                ]
                with m.If(~reader.busy):
                    m.d.sync += self.status.eq(status_of(reader.error))
                    m.next = "SCORES"
                    with m.If(~self.long & command.fetches & (reader.error == Error.NONE)):
                        m.next = "FETCH"
            with m.State("FETCH"):
                m.d.comb += self.fetch_cmd.valid.eq(1)
                with m.If(self.fetch_cmd.ready):
                    m.d.sync += self.fetching.eq(1)
                    m.next = "SCORES"
            with m.State("SCORES"):
                m.d.comb += [self.wtu_din.valid.eq(self.din.valid), self.din.ready.eq(self.wtu_din.ready)]
                m.d.comb += self.wtu_done.ready.eq(1)
                with m.If(self.long & self.beat_taken & self.last_beat):
                    self._next_tile(m)
                with m.If(self.wtu_done.valid):
                    m.next = "WAIT"
            with m.State("WAIT"), m.If(~self.fetching):
                m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += self.done.valid.eq(1)
                with m.If(self.done.ready):
                    m.next = "IDLE"
        with m.If(self.fetching & self.fetch_done.valid):
            m.d.sync += [self.fetching.eq(0), self.fetch_status.eq(self.fetch_done.payload.status)]

    def _read(self, m: Module, after: str) -> None:
        """Asks for what is next and goes on."""
        m.d.comb += self.reader.request.valid.eq(1)
        with m.If(self.reader.request.ready):
            m.next = after

    def _check(self, m: Module) -> None:
        """Goes on if the table can be used and has the command's clusters and KV heads."""
        m.next = "DONE"
        with m.If(self.reader.error != Error.NONE):
            m.d.sync += self.status.eq(status_of(self.reader.error))
        with m.Elif(self.header.flags[0]):
            m.d.sync += self.status.eq(Status.POISONED)
        with m.Elif(self.missing):
            m.d.sync += self.status.eq(Status.BAD_COUNT)
        with m.Elif(self.some):
            m.next = "WTU"
