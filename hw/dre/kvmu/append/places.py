"""Where each token of a chunk goes: its cluster's count, and its segment."""

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from vrex.hw.dre.hcu import DECISION
from vrex.hw.lib.stream import delay
from vrex.model.config import MAX_COUNT

SLOT_BITS = 7
"""Number of a token in its segment."""


def place_layout(chunk_tokens: int) -> data.StructLayout:
    """A token's place: the HCU's decision, tokens of the cluster with it, and its segment.

    If it is `repeated`, the chunk's token `previous` is the one before it in the cluster.
    """
    return data.StructLayout(
        {
            "cluster": 16,
            "distance": 8,
            "opened": 1,
            "count": 16,
            "segment": 32,
            "previous": range(chunk_tokens),
            "repeated": 1,
        }
    )


class Places(wiring.Component):
    """Gives the tokens of a chunk their places, in order, and keeps them.

    A token follows the chunk's last token in its cluster; if there is none, the table's last one, whose count
    and segment are read from memory; if the token opens the cluster, nothing. A token whose number in its
    cluster is a multiple of `segment_tokens` takes a new segment, the table's next one.

    A token n takes n + 5 cycles with `run`: it is kept high until `placed`, except, from the cycle after
    `look_up`, as long as `count` and `tail` are read.

    Args:
        chunk_tokens: of the longest chunk.
        segment_tokens: tokens in a segment.

    Members:
        start: another command, on a table with `segments_before` segments; ends a search whose read failed.
        segments_before, cap_segments: of the table.
        token: the token; may be changed with `placed` and while `run` is low.
        decision: of the token; taken when valid.
        run: look for the token's place.
        look_up: count and last segment of the cluster are to be read.
        count, tail: what was read; taken when valid.
        placed: the token has its place from the next cycle on.
        cluster_full: with `placed`: it has none, because its cluster is full.
        kv_full: the last token took a segment that the table does not have; from the cycle after `placed` on.
        segments: of the table and the chunk so far.
        closes: a cluster got its last token.
        place: of `token`, a cycle later, while `run` is low.
        slot: number of the place in its segment.
    """

    start: Signal
    segments_before: Signal
    cap_segments: Signal
    token: Signal
    decision: stream.Interface
    run: Signal
    look_up: Signal
    count: stream.Interface
    tail: stream.Interface
    placed: Signal
    cluster_full: Signal
    kv_full: Signal
    segments: Signal
    closes: Signal
    place: Any
    slot: Signal

    def __init__(self, chunk_tokens: int, segment_tokens: int) -> None:
        self.chunk_tokens, self.segment_tokens = chunk_tokens, segment_tokens
        self.layout = place_layout(chunk_tokens)
        # Of the token's cluster before it: tokens, and the last segment.
        self.count_before, self.tail_before = Signal(16), Signal(32)
        # The earlier token that is looked at, and whether the memory shows it.
        self.other, self.look_back = Signal(range(chunk_tokens)), Signal()
        # The table's segments are all in use, or more than it has.
        self.reached, self.exceeded = Signal(reset_less=True), Signal(reset_less=True)
        self.write: Any = Signal(self.layout)
        self.write_en = Signal()
        super().__init__(
            {
                "start": In(1),
                "segments_before": In(32),
                "cap_segments": In(32),
                "token": In(range(chunk_tokens)),
                "decision": In(stream.Signature(DECISION, always_ready=True)),
                "run": In(1),
                "look_up": Out(1),
                "count": In(stream.Signature(16, always_ready=True)),
                "tail": In(stream.Signature(32, always_ready=True)),
                "placed": Out(1),
                "cluster_full": Out(1),
                "kv_full": Out(1),
                "segments": Out(32),
                "closes": Out(1),
                "place": Out(self.layout),
                "slot": Out(SLOT_BITS),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware: a memory of places, a search through those before the token's, and counters."""
        m = Module()
        m.submodules.places = places = Memory(shape=self.layout, depth=self.chunk_tokens, init=[])
        write, read = places.write_port(), places.read_port()
        m.d.comb += [
            read.addr.eq(Mux(self.look_back, self.other, self.token)),
            self.place.eq(read.data),
            self.slot.eq((self.place.count - 1) & (self.segment_tokens - 1)),
            write.addr.eq(self.token),
            write.data.eq(self.write),
            write.en.eq(self.write_en),
        ]
        with m.If(self.start):
            m.d.sync += [self.segments.eq(self.segments_before), self.closes.eq(0)]
        with m.If(self.count.valid):
            m.d.sync += self.count_before.eq(self.count.payload)
        with m.If(self.tail.valid):
            m.d.sync += self.tail_before.eq(self.tail.payload)
        with m.If(self.decision.valid):
            decision = self.decision.payload
            m.d.comb += [
                self.write_en.eq(1),
                *(self.write[name].eq(decision[name]) for name in ("cluster", "distance", "opened")),
            ]
        self._search(m)
        return m

    def _search(self, m: Module) -> None:
        """Goes through the earlier tokens of the chunk and gives the token its place."""
        now: Any = Signal(self.layout)
        found = Signal()
        # The earlier token that `place` is of, and, compared with `now` a cycle later, `earlier`.
        seen = delay(m, self.other, 1, "seen")
        earlier, compared = delay(m, self.place, 1, "earlier"), delay(m, seen, 1, "compared")
        # Registered; `segments` changes every few cycles only.
        m.d.sync += [
            self.reached.eq(self.segments >= self.cap_segments),
            self.exceeded.eq(self.segments > self.cap_segments),
        ]
        with m.FSM():
            with m.State("IDLE"), m.If(self.run):
                m.d.sync += [self.other.eq(0), self.look_back.eq(1)]
                m.next = "LATCH"
            with m.State("LATCH"):
                m.d.sync += [now.eq(self.place), self.other.eq(1), found.eq(0), self.count_before.eq(0)]
                m.next = "LOOK"
            with m.State("LOOK"):
                m.d.sync += self.other.eq(self.other + 1)
                with m.If((seen != 0) & (earlier.cluster == now.cluster)):
                    m.d.sync += [
                        found.eq(1),
                        now.previous.eq(compared),
                        self.count_before.eq(earlier.count),
                        self.tail_before.eq(earlier.segment),
                    ]
                with m.If(seen == self.token):
                    m.d.sync += self.look_back.eq(0)
                    m.next = "LOOKED"
            with m.State("LOOKED"):
                m.d.comb += self.look_up.eq(~found & ~now.opened)
                m.next = "PLACE"
            with m.State("PLACE"):
                with m.If(self.run):
                    self._place(m, now, found)
                    m.next = "IDLE"
                with m.If(self.start):
                    m.next = "IDLE"

    def _place(self, m: Module, now: Any, found: Any) -> None:
        """Writes the token's place and counts the segment that it opens."""
        new_segment = (self.count_before & (self.segment_tokens - 1)) == 0
        m.d.comb += [
            self.placed.eq(1),
            self.cluster_full.eq(self.count_before == MAX_COUNT),
            self.write.eq(now),
            self.write.repeated.eq(found),
            self.write.count.eq(self.count_before + 1),
            self.write.segment.eq(Mux(new_segment, self.segments, self.tail_before)),
            self.write_en.eq(~self.cluster_full),
        ]
        with m.If(~self.cluster_full):
            m.d.sync += [
                self.segments.eq(self.segments + new_segment),
                self.kv_full.eq(Mux(new_segment, self.reached, self.exceeded)),
            ]
            with m.If(self.write.count == MAX_COUNT):
                m.d.sync += self.closes.eq(1)
