"""HCU: hash-bit clustering unit (paper Section V-B; model `vrex.model.hcu`).

The tokens of a chunk are loaded first. The founders' hash-bits then stream through the cluster hash-bits
memory, a circular buffer of rows of `lanes` hashes: every row is compared with all tokens, one token a
cycle, while later rows arrive, so loading hides behind comparing. A token's nearest cluster so far lives in
the `best` memory. At last the tokens are settled in order: token t is compared with the tokens before it,
of which those that opened a cluster count, and then joins or opens. One pipeline serves rows, pairs and
settlements, in order, so a settlement sees every comparison before it and is seen by every one after it.
"""

import operator
from typing import Any

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from vrex.hw.stream import BeatMemory, delay, reduce_tree, tree_stages
from vrex.model.config import MAX_CLUSTERS, Config
from vrex.model.hcu import NO_DISTANCE

GROUP = 4
"""Bits counted in the first stage of a population count."""

COMMAND = data.StructLayout({"tokens": 9, "clusters": 16, "th_hd": 8})
DECISION = data.StructLayout({"cluster": 16, "distance": 8, "opened": 1, "_": 7})
DONE = data.StructLayout({"opened": 9, "full": 1})


class Step(enum.Enum, shape=2):
    """What a pipeline slot does."""

    ROW = 0
    PAIR = 1
    SETTLE = 2


class Hcu(wiring.Component):
    """Clusters one chunk of tokens per command.

    Cycles of a command that never waits: see `cycles`.

    Args:
        config: accelerator; `hcu` and `bus_bits` matter.

    Members:
        cmd: tokens (1..chunk_tokens), clusters (0..65535) and th_hd of a chunk.
        din: beats with the tokens' hashes, then beats with the founders' hashes.
        dout: one decision per token, in order; none if the table would overflow.
        done: clusters opened, and whether the table would overflow; follows the last decision.
        busy, wait_in, wait_out: a command is in work; it waits for `din`, for `dout`.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "cmd": In(stream.Signature(COMMAND)),
                "din": In(stream.Signature(config.bus_bits)),
                "dout": Out(stream.Signature(DECISION)),
                "done": Out(stream.Signature(DONE)),
                "busy": Out(1),
                "wait_in": Out(1),
                "wait_out": Out(1),
            }
        )
        hcu = config.hcu
        self.distance_bits = bits_for(hcu.hash_bits)
        self.none = (1 << self.distance_bits) - 1
        self.best_layout = data.StructLayout({"distance": self.distance_bits, "cluster": 16, "opened": 1})
        self.step_layout = data.StructLayout(
            {
                "valid": 1,
                "kind": Step,
                "token": range(hcu.chunk_tokens),
                "other": range(hcu.chunk_tokens),
                "row": 16,
                "last": 1,
            }
        )
        # Memory, group counts, count, then the tree over the lanes.
        self.depth = 3 + tree_stages(hcu.lanes)

    @staticmethod
    def cycles(config: Config, tokens: int, clusters: int) -> int:
        """Upper bound of the cycles from a command to `done` when no port makes the unit wait."""
        hcu = config.hcu
        rows = -(-clusters // hcu.lanes)
        beats_per_row = max(1, hcu.lanes * hcu.hash_bits // config.bus_bits)
        compare = rows * max(tokens, beats_per_row) + beats_per_row + 2
        settle = tokens * (tokens + 1) // 2 + 4 + tree_stages(hcu.lanes)
        return 1 + tokens + compare + settle + tokens

    def elaborate(self, platform: Any) -> Module:
        """Hardware."""
        m = Module()
        hcu = self.config.hcu
        self.command = Signal(COMMAND)
        self.step = Signal(self.step_layout)
        self.loading = Signal()
        self.streaming = Signal()
        self.row = Signal(16)
        self.row_there = Signal()
        m.submodules.tokens = tokens = Memory(shape=hcu.hash_bits, depth=hcu.chunk_tokens, init=[])
        m.submodules.best = best = Memory(shape=self.best_layout, depth=hcu.chunk_tokens, init=[])
        self.best_write = best.write_port()
        self.best_read = best.read_port(domain="comb")
        self.best_other = best.read_port(domain="comb")
        self.token_write = tokens.write_port()
        token, other = tokens.read_port(), tokens.read_port()
        m.d.comb += [token.addr.eq(self.step.token), other.addr.eq(self.step.other)]
        row = self._queue(m)
        self.nearest = self._nearest(m, row, token.data, other.data)
        self.settled = delay(m, self.step, self.depth, "step", reset=True)
        self._control(m)
        return m

    def _queue(self, m: Module) -> Any:
        """Founders' hash-bits on their way through the memory; returns the row that `step` asked for."""
        hcu, bus = self.config.hcu, self.config.bus_bits
        row_bits = hcu.lanes * hcu.hash_bits
        bits = hcu.tile_clusters * hcu.hash_bits
        m.submodules.queue = queue = BeatMemory(bus, row_bits, bits)
        beat_shift = max(row_bits // bus, 1).bit_length() - 1
        row_shift = max(bus // row_bits, 1).bit_length() - 1
        words = bits // max(row_bits, bus)
        beat = Signal(17)
        beats = (self.command.clusters * hcu.hash_bits + bus - 1)[bus.bit_length() - 1 :]
        filled, used = beat >> beat_shift, self.row >> row_shift
        space = Signal()
        m.d.comb += [
            space.eq((filled - used)[:17] < words),
            self.row_there.eq((filled > used) | (beat >= beats)),
            queue.write_beat.eq(beat),
            queue.write_data.eq(self.din.payload),
            queue.read_row.eq(self.row),
        ]
        with m.If(self.streaming & (beat < beats) & space):
            m.d.comb += [self.din.ready.eq(1), queue.write_en.eq(self.din.valid)]
            m.d.sync += beat.eq(beat + self.din.valid)
        with m.If(self.loading):
            m.d.sync += beat.eq(0)
        return queue.read_data

    def _nearest(self, m: Module, row: Any, token: Any, other: Any) -> Any:
        """Distances of one slot: (distance, lane) of the nearest, `depth` cycles after the slot."""
        hcu = self.config.hcu
        lane_bits = hcu.lanes.bit_length() - 1
        entry = data.StructLayout({"distance": self.distance_bits, "lane": range(max(hcu.lanes, 2))})
        step = delay(m, self.step, 1, "step_read")
        pair = step.kind == Step.PAIR
        partial_row = step.row == self.command.clusters >> lane_bits
        candidates = []
        for lane in range(hcu.lanes):
            founder = row.word_select(lane, hcu.hash_bits)
            used = ~partial_row | (lane < self.command.clusters[:lane_bits])
            if lane == 0:
                founder, used = Mux(pair, other, founder), used | pair
            else:
                used &= ~pair
            candidate = Signal(entry, name=f"candidate_{lane}", reset_less=True)
            count = self._count(m, founder ^ token)
            m.d.sync += [
                candidate.distance.eq(Mux(delay(m, used, 1, "used"), count, self.none)),
                candidate.lane.eq(lane),
            ]
            candidates.append(candidate)

        def nearer(left: Any, right: Any) -> Any:
            return data.View(entry, Mux(right.distance < left.distance, right.as_value(), left.as_value()))

        return reduce_tree(candidates, nearer, m)

    def _count(self, m: Module, bits: Any) -> Any:
        """Population count with one register inside."""
        groups = [
            delay(m, reduce_tree(list(bits[first : first + GROUP]), operator.add), 1, "group")
            for first in range(0, len(bits), GROUP)
        ]
        return reduce_tree(groups, operator.add)

    def _settle(self, m: Module, opened: Signal, full: Signal) -> None:
        """End of the pipeline: improve a token's best cluster, or let the token join or open."""
        step, nearest, command = self.settled, self.nearest, self.command
        best, other, write = self.best_read.data, self.best_other.data, self.best_write
        lane_bits = self.config.hcu.lanes.bit_length() - 1
        distance = self._distance(best)
        m.d.comb += [
            self.best_read.addr.eq(step.token),
            self.best_other.addr.eq(step.other),
            write.addr.eq(step.token),
            write.data.distance.eq(nearest.distance),
            write.data.cluster.eq(Cat(nearest.lane[:lane_bits], step.row)),
        ]
        nearer = nearest.distance < best.distance
        with m.If(step.valid & (step.kind == Step.ROW)):
            m.d.comb += write.en.eq(nearer)
        with m.If(step.valid & (step.kind == Step.PAIR)):
            m.d.comb += [write.en.eq(nearer & other.opened), write.data.cluster.eq(other.cluster)]
        with m.If(step.valid & (step.kind == Step.SETTLE) & (distance >= command.th_hd)):
            cluster = command.clusters + opened
            m.d.comb += [
                write.en.eq(1),
                write.data.distance.eq(best.distance),
                write.data.cluster.eq(cluster),
                write.data.opened.eq(1),
            ]
            m.d.sync += [opened.eq(opened + 1), full.eq(full | (cluster >= MAX_CLUSTERS))]

    def _distance(self, best: Any) -> Any:
        """Distance of an entry of `best` as 8 bits."""
        return Mux(best.distance == self.none, NO_DISTANCE, best.distance)

    def _load_token(self, m: Module, token: Signal) -> Any:
        """Takes one token a cycle out of the beats; returns whether one was taken."""
        per_beat = self.config.bus_bits // self.config.hcu.hash_bits
        within = token[: per_beat.bit_length() - 1]
        last = token == self.command.tokens - 1
        m.d.comb += [
            self.token_write.addr.eq(token),
            self.token_write.data.eq(self.din.payload.word_select(within, self.config.hcu.hash_bits)),
            self.token_write.en.eq(self.din.valid),
            self.din.ready.eq((within == per_beat - 1) | last),
            self.best_write.addr.eq(token),
            self.best_write.data.eq(data.Const(self.best_layout, self.none)),
            self.best_write.en.eq(self.din.valid),
            self.wait_in.eq(~self.din.valid),
        ]
        return last

    def _control(self, m: Module) -> None:
        """Sequence of one command."""
        hcu, command, step = self.config.hcu, self.command, self.step
        token = Signal(range(hcu.chunk_tokens))
        opened = Signal(9)
        full = Signal()
        last_token = token == command.tokens - 1
        last_row = self.row + 1 == (command.clusters + hcu.lanes - 1)[hcu.lanes.bit_length() - 1 :]
        m.d.comb += [step.token.eq(token), step.row.eq(self.row)]
        self._settle(m, opened, full)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.cmd.ready.eq(1)
                m.d.sync += [token.eq(0), self.row.eq(0), opened.eq(0), full.eq(0)]
                with m.If(self.cmd.valid):
                    m.d.sync += command.eq(self.cmd.payload)
                    m.next = "TOKENS"
            with m.State("TOKENS"):
                m.d.comb += [self.busy.eq(1), self.loading.eq(1)]
                last = self._load_token(m, token)
                with m.If(self.din.valid):
                    m.d.sync += token.eq(Mux(last, 0, token + 1))
                    with m.If(last):
                        m.next = "COMPARE"
            with m.State("COMPARE"):
                m.d.comb += [self.busy.eq(1), self.streaming.eq(1), step.kind.eq(Step.ROW)]
                with m.If(command.clusters == 0):
                    m.next = "SETTLE"
                with m.Elif(self.row_there):
                    m.d.comb += step.valid.eq(1)
                    m.d.sync += token.eq(Mux(last_token, 0, token + 1))
                    with m.If(last_token):
                        m.d.sync += self.row.eq(self.row + 1)
                        with m.If(last_row):
                            m.next = "SETTLE"
                with m.Else():
                    m.d.comb += self.wait_in.eq(~self.din.valid)
            self._settle_states(m, token, last_token, full)
            with m.State("OUT"):
                word = self.dout.payload
                best = self.best_read.data
                m.d.comb += [
                    self.busy.eq(1),
                    self.best_read.addr.eq(token),
                    word.cluster.eq(best.cluster),
                    word.distance.eq(self._distance(best)),
                    word.opened.eq(best.opened),
                    # Bits that nothing drives become an `always @*` without inputs, which never runs.
                    word["_"].eq(0),
                    self.dout.valid.eq(1),
                    self.wait_out.eq(~self.dout.ready),
                ]
                with m.If(self.dout.ready):
                    m.d.sync += token.eq(token + 1)
                    with m.If(last_token):
                        m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += [
                    self.done.valid.eq(1),
                    self.done.payload.opened.eq(opened),
                    self.done.payload.full.eq(full),
                ]
                with m.If(self.done.ready):
                    m.next = "IDLE"

    def _settle_states(self, m: Module, token: Signal, last_token: Any, full: Signal) -> None:
        """States that send token t's pairs (t, 0) .. (t, t - 1) and then its settlement down the pipeline."""
        step = self.step
        other = Signal.like(token, name="other")
        m.d.comb += step.other.eq(other)
        with m.State("SETTLE"):
            m.d.comb += [self.busy.eq(1), step.valid.eq(1), step.kind.eq(Step.PAIR)]
            m.d.sync += other.eq(other + 1)
            with m.If(other == token):
                m.d.comb += [step.kind.eq(Step.SETTLE), step.last.eq(last_token)]
                m.d.sync += [other.eq(0), token.eq(Mux(last_token, 0, token + 1))]
                with m.If(last_token):
                    m.next = "FLUSH"
        with m.State("FLUSH"):
            m.d.comb += self.busy.eq(1)
            with m.If(delay(m, self.settled.valid & self.settled.last, 1, "flushed", reset=True)):
                m.next = "OUT"
                with m.If(full):
                    m.next = "DONE"
