"""Place of each token of a chunk: its cluster, its number in the cluster, and its segment."""

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
    """Places the tokens of a chunk in order, and stores their places.

    A token follows the last earlier token of the chunk in its cluster. Where there is none and the token did
    not open the cluster, it follows the table's last token, whose count and segment are read from memory. A
    token whose number in its cluster is a multiple of `segment_tokens` starts the table's next segment.

    Token n takes n + 5 cycles with `run` high, from its first cycle to `placed`. After `look_up` the owner
    lowers `run` until `count` and `tail` have been read.

    Args:
        chunk_tokens: of the longest chunk.
        segment_tokens: tokens in a segment.

    Members:
        start: a command begins: `segments_before` is loaded, a search that a failed read left is abandoned.
        segments_before, cap_segments: segments of the table, and how many it may have.
        token: number of the token; changes only with `placed` or while `run` is low.
        decision: the HCU's for `token`; stored when valid.
        run: `token` is being placed.
        look_up: count and last segment of the token's cluster must be read.
        count, tail: the values that were read; stored when valid.
        placed: the place of `token` is written in this cycle.
        cluster_full: with `placed`: it is not, since the cluster is full.
        kv_full: the token placed last exceeds the table's segments; from the cycle after `placed`.
        segments: segments of the table with the tokens placed so far.
        closes: a token of the chunk was the last that its cluster can hold.
        place: of `token`, one cycle later, while `run` is low.
        slot: number of `place` in its segment.
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
        # Of the token's cluster without the token: count, and last segment.
        self.count_before = Signal(16)
        self.tail_before = Signal(32)
        # Earlier token to compare with, and whether the memory reads its place.
        self.search_index = Signal(range(chunk_tokens))
        self.searching = Signal()
        # `segments` has reached, or exceeds, what the table may have.
        self.reached = Signal(reset_less=True)
        self.exceeded = Signal(reset_less=True)
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
        """Hardware: a memory of places, an FSM that searches it, and the segment counter."""
        m = Module()
        memory: Memory[Any, Any] = Memory(shape=self.layout, depth=self.chunk_tokens, init=[])
        m.submodules.memory = memory
        write, read = memory.write_port(), memory.read_port()
        m.d.comb += [
            read.addr.eq(Mux(self.searching, self.search_index, self.token)),
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
        """Compares the token with all earlier ones, then places it."""
        current: Any = Signal(self.layout)
        found = Signal()
        # The earlier token that `place` is of, and, compared with `current` a cycle later, `earlier`.
        read_index = delay(m, self.search_index, 1, "read_index")
        candidate, candidate_index = (
            delay(m, self.place, 1, "candidate"),
            delay(m, read_index, 1, "candidate_index"),
        )
        # Registered: `segments` changes every few cycles only.
        m.d.sync += [
            self.reached.eq(self.segments >= self.cap_segments),
            self.exceeded.eq(self.segments > self.cap_segments),
        ]
        with m.FSM():
            with m.State("IDLE"), m.If(self.run):
                m.d.sync += [self.search_index.eq(0), self.searching.eq(1)]
                m.next = "LATCH"
            with m.State("LATCH"):
                m.d.sync += [
                    current.eq(self.place),
                    self.search_index.eq(1),
                    found.eq(0),
                    self.count_before.eq(0),
                ]
                m.next = "LOOK"
            with m.State("LOOK"):
                m.d.sync += self.search_index.eq(self.search_index + 1)
                with m.If((read_index != 0) & (candidate.cluster == current.cluster)):
                    m.d.sync += [
                        found.eq(1),
                        current.previous.eq(candidate_index),
                        self.count_before.eq(candidate.count),
                        self.tail_before.eq(candidate.segment),
                    ]
                with m.If(read_index == self.token):
                    m.d.sync += self.searching.eq(0)
                    m.next = "LOOKED"
            with m.State("LOOKED"):
                m.d.comb += self.look_up.eq(~found & ~current.opened)
                m.next = "PLACE"
            with m.State("PLACE"):
                with m.If(self.run):
                    self._place(m, current, found)
                    m.next = "IDLE"
                with m.If(self.start):
                    m.next = "IDLE"

    def _place(self, m: Module, current: Any, found: Any) -> None:
        """Writes the token's place and counts a segment that it starts."""
        new_segment = (self.count_before & (self.segment_tokens - 1)) == 0
        m.d.comb += [
            self.placed.eq(1),
            self.cluster_full.eq(self.count_before == MAX_COUNT),
            self.write.eq(current),
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
