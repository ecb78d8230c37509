"""Counts, tails, map entries, hashes, scales and header fields: what APPEND writes by the word."""

from typing import Any

from amaranth import C, Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from vrex.hw.dre.kvmu.append.addresses import COUNTERS_BYTES
from vrex.hw.dre.kvmu.append.onehot import select
from vrex.hw.dre.kvmu.append.places import SLOT_BITS, place_layout
from vrex.hw.dre.kvmu.append.steps import Source, Step, writing_from
from vrex.hw.dre.kvmu.table import HEADER
from vrex.hw.lib.stream import delay
from vrex.model.config import HcuConfig
from vrex.model.dre.kvstore import CLOSED, POISONED

WORD_BITS = 128
"""Width of the longest word."""

WORDS = writing_from(Source.WORD)
"""Steps that write a word: all from the first one on."""


class WordSource(wiring.Component):
    """Beats of the step's word, which is repeated in all lanes and so lies right for every address.

    Args:
        hcu: `hash_bits` and `chunk_tokens` matter.
        bus_bits: width of a beat.

    Members:
        step, step_flags: the step, and one-hot a cycle later.
        load: the step is being prepared; its word is valid two cycles after the operands.
        header: of the table.
        place, slot, hash: the token's place, the place's slot in its segment, the token's hash-bits.
        tokens, opened: tokens of the chunk, and clusters that it opened.
        segments, closes: see `Places`.
        scale: of the mean that was quantised last.
        o: beats of the word, from the cycle after `load`; none for a step without a word.
    """

    step: Signal
    step_flags: Signal
    load: Signal
    header: Any
    place: Any
    slot: Signal
    hash: Signal
    tokens: Signal
    opened: Signal
    segments: Signal
    closes: Signal
    scale: Signal
    o: stream.Interface

    def __init__(self, hcu: HcuConfig, *, bus_bits: int) -> None:
        self.hash_bits, self.bus_bits = hcu.hash_bits, bus_bits
        beats = max(1, WORD_BITS // bus_bits)
        self.beat = Signal(range(max(2, beats)))
        self.left = Signal(range(beats + 1))
        super().__init__(
            {
                "step": In(Step),
                "step_flags": In(len(Step)),
                "load": In(1),
                "header": In(HEADER),
                "place": In(place_layout(hcu.chunk_tokens)),
                "slot": In(SLOT_BITS),
                "hash": In(hcu.hash_bits),
                "tokens": In(range(hcu.chunk_tokens + 1)),
                "opened": In(9),
                "segments": In(32),
                "closes": In(1),
                "scale": In(16),
                "o": Out(stream.Signature(bus_bits)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware: registered fields, a one-hot multiplexer into a register, and a counter of beats."""
        m = Module()
        word = self._word(m).replicate(max(1, self.bus_bits // WORD_BITS))
        m.d.comb += [
            self.o.payload.eq(word.word_select(self.beat, self.bus_bits)),
            self.o.valid.eq(self.left != 0),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [self.left.eq(self.left - 1), self.beat.eq(self.beat + 1)]
        with m.If(self.load):
            m.d.sync += [self.left.eq(self._beats()), self.beat.eq(0)]
        return m

    def _word(self, m: Module) -> Any:
        """The step's word, repeated to `WORD_BITS`."""
        count = Signal(16)
        fill = Signal(16)
        flags = Signal(16)
        clusters = Signal(32)
        tokens = Signal(32)
        m.d.sync += [
            clusters.eq(self.header.clusters + self.opened),
            tokens.eq(self.header.tokens + self.tokens),
            fill.eq(self.slot + 1),
            count.eq(self.place.count),
            flags.eq(self.header.flags | Mux(self.closes, CLOSED, 0)),
        ]
        words: dict[Step, Any] = {
            Step.NEW_SCALE: self.scale,
            Step.NEW_COUNT: count,
            Step.NEW_TAIL: self.place.segment,
            Step.NEW_MAP: Cat(self.place.cluster, fill),
            Step.NEW_HASH: self.hash,
            Step.COUNTERS: Cat(clusters, self.segments, tokens, flags, self.header.heads),
            Step.POISON: C(POISONED, 16),
        }
        lanes = [
            (self.step_flags[step], words[step].replicate(WORD_BITS // len(words[step]))) for step in WORDS
        ]
        return delay(m, select(lanes), 1, "word")

    def _beats(self) -> Any:
        """Beats of the step's word, 0 if it writes none."""
        counters = -(-8 * COUNTERS_BYTES // self.bus_bits)
        beats = Mux(self.step == Step.COUNTERS, counters, 1)
        return Mux(self.step >= WORDS[0], beats, 0)
