"""WTU: WiCSum threshold unit (paper Section V-B; model `vrex.model.dre.wtu`).

The row's scores are handled `lanes` at a time. `exact` is a radix select over accumulated weight, in three
passes whatever the data. The first sums each bin of scores. The second, over the words that reach the bin in
which the threshold is passed, selects what is above the bin and sums each score of it. The third, over the
words with a cluster in that bin, selects what is above the score at which the threshold is passed, and the
first of the clusters with that score. `bucket` needs the first and the last only.

Under `raw` the first pass runs while the row is loaded, and restarts from the row's first word whenever a
score raises the row's exponent. A row that does not fit the score memory is sent once for each pass.

`Control` runs the command, `Intake` makes words of its beats, `Passes` chooses the words of each pass and
what it compares with, `Datapath` weighs, sums and selects, and `Sender` holds and sends the bitmask.
"""

from typing import Any

import numpy as np
from amaranth import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from vrex.hw.dre.wtu.control import Control
from vrex.hw.dre.wtu.datapath import Datapath
from vrex.hw.dre.wtu.lanes import EXP_STAGES, LINEAR_LATENCY
from vrex.hw.dre.wtu.layouts import COMMAND, DONE, Purpose
from vrex.hw.dre.wtu.load import Intake
from vrex.hw.dre.wtu.passes import Passes, exponent_wait, extremes_wait
from vrex.hw.dre.wtu.search import SCAN, SCANS, scan_latency, tie_latency
from vrex.hw.dre.wtu.sender import Sender
from vrex.hw.lib.stream import tree_stages
from vrex.model.commands import LONG_PASSES, Register
from vrex.model.config import WtuConfig, check_unit
from vrex.model.dre import wtu as model


def search_cycles(config: WtuConfig, clusters: int, transform: model.Transform = model.Transform.RAW) -> int:
    """Upper bound of the cycles from the last score of a row that fits to its last bit in the bitmask.

    Args:
        config: WTU.
        clusters: of the row, 1 to `row_clusters`.
        transform: of the rule.
    """
    lanes = config.lanes
    stages, scan = tree_stages(lanes), scan_latency(lanes)
    raw = transform == model.Transform.RAW
    words = -(-clusters // lanes)
    through = words + LINEAR_LATENCY + (EXP_STAGES if transform == model.Transform.EXP else 0)
    # Under `raw` the row's last score may raise the exponent, and only positive scores pass the threshold.
    wait = stages + 3 if raw else exponent_wait(lanes) + extremes_wait(lanes)
    first_scans, second_scans = SCANS, SCANS
    if raw:
        first_scans = -(-int(model.order_bin(np.array(model.ORDER_ZERO))) // SCAN)
        second_scans = (1 << model.FINE_BITS) // SCAN
    # The first word of a pass follows the decision by a cycle.
    first = wait + through + 3 + scan + first_scans - 1
    second = 1 + through + 3 + scan + second_scans - 1
    return first + second + 1 + through + 1 + tie_latency(lanes)


class Wtu(wiring.Component):
    """Selects the clusters of every KV head of a command.

    Cycles of a command that never waits: see `cycles`; of a row, from its last score on: `search_cycles`.

    Args:
        config: WTU.
        bus_bits: width of a beat, a power of two from 64 on.

    Raises:
        ValueError: a beat holds more scores than the score memory.

    Members:
        cmd: clusters (1..mask_clusters), rows per head (>= 1), heads (1..32) and the rule's registers.
        din: the payload of SELECT (`vrex.model.commands`).
        dout: one bitmask per head: the OR over its rows.
        done: number of `raw` rows whose sum was not positive; follows the last beat of `dout`.
        busy, wait_in, wait_out: a command is in work; it waits for `din`, for `dout`.
        searching: a row is complete and its bits in the bitmask are not.
        row_ends: a row's bits are complete.
        word_again: a word of a row that fits goes through the lanes after the first pass.
        examined: clusters from the top one to the last of the bin, or the bucket, of the crossing, a word's
            at a time.
    """

    cmd: stream.Interface
    din: stream.Interface
    dout: stream.Interface
    done: stream.Interface
    busy: Signal
    wait_in: Signal
    wait_out: Signal
    searching: Signal
    row_ends: Signal
    word_again: Signal
    examined: Signal

    def __init__(self, config: WtuConfig, *, bus_bits: int) -> None:
        """A unit of these dimensions.

        Raises:
            ValueError: the score memory holds no whole beat of `din`.
        """
        check_unit(wtu=config, bus_bits=bus_bits)
        self.config, self.bus_bits = config, bus_bits
        super().__init__(
            {
                "cmd": In(stream.Signature(COMMAND)),
                "din": In(stream.Signature(bus_bits)),
                "dout": Out(stream.Signature(bus_bits)),
                "done": Out(stream.Signature(DONE)),
                "busy": Out(1),
                "wait_in": Out(1),
                "wait_out": Out(1),
                "searching": Out(1),
                "row_ends": Out(1),
                "word_again": Out(1),
                "examined": Out(range(config.lanes + 1)),
            }
        )

    @staticmethod
    def cycles(
        config: WtuConfig,
        clusters: int,
        rows: int,
        heads: int,
        transform: model.Transform = model.Transform.EXP,
        *,
        bus_bits: int,
    ) -> int:
        """Upper bound of the cycles from a command to `done` when no port makes the unit wait.

        Args:
            config: WTU.
            clusters, rows, heads: of the command.
            transform: of the rule; `exp` takes longest.
            bus_bits: width of a beat.
        """
        words = -(-clusters // config.lanes)
        load = max(-(-clusters * 16 // bus_bits), words)
        if clusters <= config.row_clusters:
            counts, row = load, load + search_cycles(config, clusters, transform) + 2
        else:
            tiles = -(-clusters // config.row_clusters)
            lanes = LINEAR_LATENCY + EXP_STAGES + 1 + tie_latency(config.lanes)
            passes = LONG_PASSES - 1
            scan = scan_latency(config.lanes) + SCANS + 2
            counts = 0
            row = load + tiles + passes * (2 * load + tiles * (lanes + 5) + scan) + 4
        out = words + 2 * -(-clusters // bus_bits) + 5
        return 4 + counts + heads * (rows * row + out)

    @property
    def counters(self) -> dict[Register, Signal]:
        """What each counter of the unit adds in a cycle."""
        return {
            Register.WTU_BUSY: self.busy,
            Register.WTU_WAIT_IN: self.wait_in,
            Register.WTU_WAIT_OUT: self.wait_out,
            Register.WTU_ROWS: self.row_ends,
            Register.WTU_SEARCH: self.searching,
            Register.WTU_WORDS: self.word_again,
            Register.WTU_EXAMINED: self.examined,
        }

    def elaborate(self, platform: Any) -> Module:
        """The intake, the four components, and what connects them."""
        m = Module()
        config = self.config
        m.submodules.intake = intake = Intake(self.bus_bits, config.lanes, config.row_clusters)
        m.submodules.control = control = Control(config)
        m.submodules.passes = passes = Passes(config)
        m.submodules.datapath = datapath = Datapath(config)
        m.submodules.sender = sender = Sender(config, bus_bits=self.bus_bits)
        wiring.connect(m, wiring.flipped(self.cmd), control.cmd)
        wiring.connect(m, control.done, wiring.flipped(self.done))
        wiring.connect(m, wiring.flipped(self.din), intake.beats)
        wiring.connect(m, sender.dout, wiring.flipped(self.dout))
        wiring.connect(m, passes.scan, datapath.scan)
        m.d.comb += [
            self.busy.eq(control.busy),
            self.searching.eq(control.searching),
            self.row_ends.eq(control.row_ends),
            self.word_again.eq(passes.word_again),
            self.examined.eq(datapath.examined),
            self.wait_in.eq(intake.active & ~self.din.valid),
            self.wait_out.eq(self.dout.valid & ~self.dout.ready),
            intake.active.eq(control.take_counts | control.take_scores),
            intake.whole.eq(~control.tile.last),
            intake.last_item.eq(control.last_cluster),
            control.field_ends.eq(intake.word.valid & intake.word.last),
            control.leaves_lanes.eq(datapath.leaves_lanes),
            control.bits_complete.eq(datapath.o.last),
            control.purpose.eq(passes.compare.purpose),
            control.degenerate.eq(passes.degenerate),
            control.decided.eq(passes.decided),
            control.sent.eq(sender.sent),
            control.drained.eq(sender.drained),
        ]
        self._connect_passes(m, intake, control, passes, datapath)
        self._connect_datapath(m, intake, control, passes, datapath)
        first_time = control.first_row & control.measure
        m.d.comb += [
            sender.tile.eq(control.tile.number),
            sender.next_word.eq(datapath.next_word),
            sender.write.eq(datapath.o.valid & (passes.compare.purpose != Purpose.FIRST)),
            sender.word.eq(datapath.o.word),
            sender.selected.eq(datapath.selected),
            # The first field of the command clears the bits of its words.
            sender.fresh.eq(intake.word.valid & first_time & (control.mode.long | control.take_counts)),
            sender.fresh_word.eq(intake.word.number),
            sender.last_cluster.eq(control.last_cluster),
            sender.send.eq(control.send),
            sender.read_first.eq(control.read_first),
        ]
        return m

    @staticmethod
    def _connect_passes(
        m: Module, intake: Intake, control: Control, passes: Passes, datapath: Datapath
    ) -> None:
        """Inputs of `passes` but those of the scan."""
        m.d.comb += [
            passes.begin_row.eq(control.begin_row),
            passes.end_tile.eq(control.end_tile),
            passes.mode.eq(control.mode),
            passes.last_word.eq(control.tile.last_word),
            passes.skip.eq(control.skip),
            passes.loaded.eq(intake.word.valid & control.take_scores),
            passes.loaded_last.eq(intake.word.last),
            passes.raised.eq(datapath.raised),
            passes.start_scan.eq(control.start_scan),
            passes.remaining.eq(datapath.remaining),
            passes.not_positive.eq(datapath.not_positive),
            passes.top_code.eq(datapath.top_code),
            passes.top_bin.eq(datapath.top_bin),
            passes.summary.eq(datapath.summary),
        ]

    @staticmethod
    def _connect_datapath(
        m: Module, intake: Intake, control: Control, passes: Passes, datapath: Datapath
    ) -> None:
        """Inputs of `datapath` but those of the scan."""
        m.d.comb += [
            datapath.loaded.eq(intake.word),
            datapath.take_counts.eq(control.take_counts),
            datapath.take_scores.eq(control.take_scores),
            datapath.measure.eq(control.measure),
            datapath.command.eq(control.command),
            datapath.mode.eq(control.mode),
            datapath.tile.eq(control.tile),
            datapath.begin_row.eq(control.begin_row),
            datapath.entry.eq(passes.o),
            datapath.flush.eq(passes.flush),
            datapath.compare.eq(passes.compare),
            datapath.examines.eq(passes.examines),
            datapath.degenerate.eq(passes.degenerate),
            datapath.clear_bins.eq(passes.clear_bins),
            datapath.left.eq(passes.left),
            datapath.load_left.eq(passes.load_left),
        ]
