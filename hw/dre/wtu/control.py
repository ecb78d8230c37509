"""Control of the WTU: the state machine of a command, its heads, rows and tiles."""

from typing import Any

from amaranth import C, Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from vrex.hw.dre.wtu.layouts import COMMAND, DONE, MODE, Purpose, tile_layout
from vrex.model.commands import LONG_PASSES
from vrex.model.config import WtuConfig
from vrex.model.dre import wtu as model


class Control(wiring.Component):
    """Takes a command, loads its rows, starts the scan after each pass, and has each head's bitmask sent.

    A row that fits is loaded once; the token counts, which all rows share, come before the first row. A long
    row is sent `LONG_PASSES` times, tile by tile, with its token counts but for the first time, which only
    measures its extremes. A time that the row's selection does not need is loaded and skipped.

    Args:
        config: WTU.

    Members:
        cmd, done: a command (`COMMAND`) and its result (`DONE`), which follows the last beat of the bitmasks.
        busy: a command is in work.
        searching: a row that fits is complete and its bits in the bitmask are not.
        row_ends: a row's bits are complete.
        command, mode, last_cluster: the command in work, and the number of its rows' last cluster; `mode` is
            valid from the third cycle after the command on.
        tile: the tile in work (`tile_layout`).
        take_counts, take_scores: a field of token counts, of scores is being loaded.
        measure: the row is sent for the first time.
        first_row: the row is the first of the command.
        begin_row, end_tile: for one cycle before a row, and before a row or a tile; high after reset too, so
            that what they clear needs no reset.
        skip: the words that are loaded are not needed.
        field_ends: the last word of a field is loaded.
        leaves_lanes, bits_complete: the last word of a pass or tile leaves the lanes; is in the bitmask.
        purpose, degenerate: see `Passes.compare`, `Passes.degenerate`.
        start_scan, decided: see `Passes`.
        send, read_first: a head's bitmask is sent; its first word is read.
        sent, drained: no word is left to be sent; the last beat has left.
    """

    cmd: stream.Interface
    done: stream.Interface
    busy: Signal
    searching: Signal
    row_ends: Signal
    command: data.View
    mode: data.View
    last_cluster: Signal
    tile: data.View
    take_counts: Signal
    take_scores: Signal
    measure: Signal
    first_row: Signal
    begin_row: Signal
    end_tile: Signal
    skip: Signal
    field_ends: Signal
    leaves_lanes: Signal
    bits_complete: Signal
    purpose: Value
    degenerate: Signal
    start_scan: Signal
    decided: Signal
    send: Signal
    read_first: Signal
    sent: Signal
    drained: Signal

    def __init__(self, config: WtuConfig) -> None:
        self.config = config
        super().__init__(
            {
                "cmd": In(stream.Signature(COMMAND)),
                "done": Out(stream.Signature(DONE)),
                "busy": Out(1),
                "searching": Out(1),
                "row_ends": Out(1),
                "command": Out(COMMAND),
                "mode": Out(MODE),
                "last_cluster": Out(16),
                "tile": Out(tile_layout(config)),
                "take_counts": Out(1),
                "take_scores": Out(1),
                "measure": Out(1),
                "first_row": Out(1),
                "begin_row": Out(1),
                "end_tile": Out(1),
                "skip": Out(1),
                "field_ends": In(1),
                "leaves_lanes": In(1),
                "bits_complete": In(1),
                "purpose": In(Purpose),
                "degenerate": In(1),
                "start_scan": Out(1),
                "decided": In(1),
                "send": Out(1),
                "read_first": Out(1),
                "sent": In(1),
                "drained": In(1),
            }
        )
        self._lane_bits = config.lanes.bit_length() - 1
        self._row_bits = config.row_clusters.bit_length() - 1
        self._time = Signal(range(LONG_PASSES), name="time")
        """How often the row in work has been sent before."""
        self._tile_number = Signal.like(self.tile.number, name="tile_number")
        self._last_tile = Signal(name="last_tile")
        self._next_last_tile = Signal(name="next_last_tile")
        """`_last_tile` in the next cycle."""
        self._before_last_tile = Signal(name="before_last_tile")
        self._row_begins, self._tile_ends = Signal(name="row_begins", init=1), Signal(name="tile_ends")
        self._row_number, self._head = Signal(16, name="row_number"), Signal(6, name="head")
        self._at_last_row, self._at_last_head = Signal(name="at_last_row"), Signal(name="at_last_head")
        self._degenerate_rows = Signal(32, name="degenerate_rows")

    def elaborate(self, platform: Any) -> Module:
        """A state machine, counters of heads, rows and tiles, and what is derived from the command."""
        m = Module()
        self._sizes(m)
        self._mode(m)
        self._begin_row(m)
        m.d.comb += self.busy.eq(1)
        # The state machine's assignments come last, so they take precedence over the defaults above.
        with m.FSM():
            self._command_states(m)
            self._load_states(m)
            self._search_states(m)
            self._send_states(m)
        return m

    def _sizes(self, m: Module) -> None:
        """Last head, row, tile and word; registered, so valid from the third cycle after the command on."""
        command, clusters = self.command, self.command.clusters
        lane_bits, row_bits = self._lane_bits, self._row_bits
        uneven = Signal()
        last_row = Signal(16)
        last_head = Signal(6)
        last_word = Signal(row_bits - lane_bits, name="last_word")
        long = Signal(name="long")
        with m.If(self.cmd.ready):
            m.d.sync += [
                self.last_cluster.eq(self.cmd.payload.clusters - 1),
                long.eq(self.cmd.payload.clusters > self.config.row_clusters),
            ]
        m.d.comb += [self.mode.long.eq(long), self._next_last_tile.eq(self._last_tile)]
        in_last_tile, in_other_tile = self.last_cluster[lane_bits:row_bits], ~C(0, row_bits - lane_bits)
        m.d.sync += [
            uneven.eq(clusters[:lane_bits].any()),
            self._last_tile.eq(self._next_last_tile),
            last_word.eq(Mux(self._next_last_tile, in_last_tile, in_other_tile)),
            last_row.eq(command.rows - 1),
            last_head.eq(command.heads - 1),
            self._at_last_row.eq(self._row_number == last_row),
            self._at_last_head.eq(self._head == last_head),
        ]
        m.d.comb += [
            self._before_last_tile.eq(self._tile_number + 1 == self.last_cluster[row_bits:16]),
            self.tile.number.eq(self._tile_number),
            self.tile.last.eq(self._last_tile),
            self.tile.last_word.eq(last_word),
            self.tile.partial.eq(self._last_tile & uneven),
        ]

    def _mode(self, m: Module) -> None:
        """How the rows are handled, and which times of a long row are skipped."""
        streamed = Signal()
        raw = Signal()
        by_bucket = Signal()
        is_raw = self.command.transform == model.Transform.RAW.value
        is_exact = self.command.selection == model.Selection.EXACT.value
        m.d.sync += [
            streamed.eq(is_raw & is_exact & ~self.mode.long),
            by_bucket.eq(~is_exact),
            raw.eq(is_raw),
        ]
        first_time = self._time == 0
        no_second_pass = (self._time == 2) & (self.purpose != Purpose.SECOND)
        m.d.comb += [
            self.mode.streamed.eq(streamed),
            self.mode.raw.eq(raw),
            self.mode.by_bucket.eq(by_bucket),
            self.measure.eq(first_time),
            self.skip.eq(self.mode.long & (first_time | no_second_pass)),
        ]

    def _begin_row(self, m: Module) -> None:
        """The first tile of a row, sent for the first time."""
        m.d.comb += [
            self.begin_row.eq(self._row_begins),
            self.end_tile.eq(self._row_begins | self._tile_ends),
        ]
        m.d.sync += [self._row_begins.eq(0), self._tile_ends.eq(0)]
        with m.If(self._row_begins):
            m.d.sync += [self._time.eq(0), self._tile_number.eq(0)]
            m.d.comb += self._next_last_tile.eq(~self.mode.long)

    def _load(self, m: Module, state: str) -> None:
        """Enters COUNTS or SCORES; a copy of the state bit limits its fan-out."""
        m.d.sync += [self.take_counts.eq(state == "COUNTS"), self.take_scores.eq(state == "SCORES")]
        m.next = state

    def _end_tile(self, m: Module) -> None:
        """Ends the tile of a long row."""
        m.d.sync += self._tile_ends.eq(1)
        m.next = "NEXT_TILE"

    def _command_states(self, m: Module) -> None:
        """States that begin a command and end a row."""
        with m.State("IDLE"):
            m.d.comb += [self.cmd.ready.eq(1), self.busy.eq(0)]
            m.d.sync += [
                self._row_number.eq(0),
                self._head.eq(0),
                self._degenerate_rows.eq(0),
                self.first_row.eq(1),
                self.command.eq(self.cmd.payload),
            ]
            with m.If(self.cmd.valid):
                m.next = "COMMAND"
        with m.State("COMMAND"):
            m.d.comb += self._next_last_tile.eq(~self.mode.long)
            self._load(m, "COUNTS")
            with m.If(self.mode.long):
                self._load(m, "SCORES")
        with m.State("ROW_END"):
            m.d.comb += self.row_ends.eq(1)
            m.d.sync += [
                self.first_row.eq(0),
                self._row_number.eq(self._row_number + 1),
                self._degenerate_rows.eq(self._degenerate_rows + self.degenerate),
            ]
            self._load(m, "SCORES")
            with m.If(self._at_last_row):
                m.d.sync += [self._row_number.eq(0), self.send.eq(1), self.take_scores.eq(0)]
                m.next = "READ_FIRST"

    def _load_states(self, m: Module) -> None:
        """States that load token counts and scores, and wait until their words have left the lanes."""
        with m.State("COUNTS"), m.If(self.field_ends):
            self._load(m, "SCORES")
        with m.State("SCORES"), m.If(self.field_ends):
            m.d.sync += self.take_scores.eq(0)
            m.next = "WORDS"
            with m.If(self.skip):
                self._end_tile(m)
        with m.State("WORDS"):
            m.d.comb += self.searching.eq(~self.mode.long)
            # A tile's last word must be in the bitmask before the next tile begins.
            more_tiles = self.mode.long & ~self._last_tile
            with m.If(more_tiles & self.bits_complete):
                self._end_tile(m)
            with m.If(~more_tiles & self.leaves_lanes):
                m.next = "SUMS"
                with m.If(self.purpose == Purpose.FINAL):
                    m.next = "BITS"
        with m.State("NEXT_TILE"):
            # On to the row's next tile, or, the next time the row is sent, to its first.
            m.d.sync += self._tile_number.eq(self._tile_number + 1)
            m.d.comb += self._next_last_tile.eq(self._before_last_tile)
            self._load(m, "COUNTS")
            with m.If(self._last_tile):
                m.d.sync += [self._tile_number.eq(0), self._time.eq(self._time + 1)]
                m.d.comb += self._next_last_tile.eq(0)
            with m.Elif(self.measure):
                self._load(m, "SCORES")

    def _search_states(self, m: Module) -> None:
        """States between the passes of a row and after the last one."""
        # One cycle for the last products to reach their sums; the scan needs the threshold only later.
        with m.State("SUMS"):
            m.d.comb += self.searching.eq(~self.mode.long)
            m.next = "START_SCAN"
        with m.State("START_SCAN"):
            m.d.comb += [self.searching.eq(~self.mode.long), self.start_scan.eq(1)]
            m.next = "SCAN"
        with m.State("SCAN"):
            m.d.comb += self.searching.eq(~self.mode.long)
            with m.If(self.decided):
                m.next = "WORDS"
                with m.If(self.mode.long):
                    self._end_tile(m)
        with m.State("BITS"):
            m.d.comb += self.searching.eq(~self.mode.long)
            with m.If(self.bits_complete):
                m.d.sync += self._row_begins.eq(1)
                m.next = "ROW_END"

    def _send_states(self, m: Module) -> None:
        """States that have a head's bitmask sent, and end the command."""
        with m.State("READ_FIRST"):
            m.d.comb += self.read_first.eq(1)
            m.next = "SEND"
        with m.State("SEND"), m.If(self.sent):
            m.d.sync += [self.send.eq(0), self._head.eq(self._head + 1)]
            self._load(m, "SCORES")
            with m.If(self._at_last_head):
                m.d.sync += self.take_scores.eq(0)
                m.next = "DONE"
        with m.State("DONE"):
            m.d.comb += [
                self.done.valid.eq(self.drained),
                self.done.payload.degenerate.eq(self._degenerate_rows),
            ]
            with m.If(self.done.valid & self.done.ready):
                m.next = "IDLE"
