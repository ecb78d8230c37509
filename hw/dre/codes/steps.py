"""The three parts of a step: a row is scored, the one before it weighed, and the one before that shared out.

Each part begins with `start` and raises `finished` for one cycle; a row goes from one to the next by way of
`RowMemories`.
"""

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from vrex.hw.dre.codes.scorer import Lane, Query
from vrex.hw.dre.codes.votes import Votes, counter
from vrex.hw.dre.codes.weigher import RowDivider, RowRange, Weigher
from vrex.hw.dre.wtu.datapath import NO_BYPASS
from vrex.hw.dre.wtu.layouts import ROW, loaded_layout
from vrex.hw.lib.stream import delay, reduce_tree
from vrex.model.config import CodesConfig
from vrex.model.lib.arith import NAN

ROWS_IN_WORK = 3


def row_words(config: CodesConfig) -> int:
    """Words of the longest row: scores of residents, then of coded tokens."""
    return (config.tokens + config.residents) // config.lanes


class RowMemories(wiring.Component):
    """The rows in work: scores are written to one, weighed in the next, and read from the third.

    Args:
        config: unit.

    Members:
        turn: every memory takes the next part.
        score, score_word, scores: a word of scores is written.
        weigh_word, to_weigh: a word is read, data one cycle later.
        weighed, weighed_word, weights: it is replaced by its weights.
        share_word, to_share: a word of weights is read, data one cycle later.
    """

    turn: Signal
    score: Signal
    score_word: Signal
    scores: Signal
    weigh_word: Signal
    to_weigh: Signal
    weighed: Signal
    weighed_word: Signal
    weights: Signal
    share_word: Signal
    to_share: Signal

    def __init__(self, config: CodesConfig) -> None:
        self.config = config
        self.words = (config.tokens + config.residents) // config.lanes
        word, size = range(self.words), 16 * config.lanes
        super().__init__(
            {
                "turn": In(1),
                "score": In(1),
                "score_word": In(word),
                "scores": In(size),
                "weigh_word": In(word),
                "to_weigh": Out(size),
                "weighed": In(1),
                "weighed_word": In(word),
                "weights": In(size),
                "share_word": In(word),
                "to_share": Out(size),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """A memory with one write and one read port for each row."""
        m = Module()
        part = Signal(ROWS_IN_WORK, init=1)
        with m.If(self.turn):
            m.d.sync += part.eq(part.rotate_left(1))
        outputs = []
        for i in range(ROWS_IN_WORK):
            scored, weighed = part[i], part[(i + 1) % ROWS_IN_WORK]
            memory: Memory = Memory(shape=16 * self.config.lanes, depth=self.words, init=[], attrs=NO_BYPASS)
            m.submodules[f"row_{i}"] = memory
            read, write = memory.read_port(), memory.write_port()
            m.d.comb += [
                read.addr.eq(Mux(weighed, self.weigh_word, self.share_word)),
                write.addr.eq(Mux(scored, self.score_word, self.weighed_word)),
                write.data.eq(Mux(scored, self.scores, self.weights)),
                write.en.eq((scored & self.score) | (weighed & self.weighed)),
            ]
            outputs.append(read.data)
        # Row i is weighed while it stands one place after the scored one, and shared two places after.
        for output, place in ((self.to_weigh, 1), (self.to_share, 2)):
            chosen = [Mux(part[(i + place) % ROWS_IN_WORK], outputs[i], 0) for i in range(ROWS_IN_WORK)]
            m.d.comb += output.eq(reduce_tree(chosen, lambda a, b: a | b))
        return m


class Score(wiring.Component):
    """Takes a row's query and its residents' scores, and scores the coded tokens.

    Args:
        config: unit.
        bus_bits: width of a beat.

    Members:
        start, finished: see above; `finished` comes when the row's extremes are known.
        with_residents: the row has any.
        last_word: number of the last word of codes.
        resident_tail, token_tail: lanes in use in the last word, 0 if all are.
        beats: the query.
        resident: a word of the residents' scores (`loaded_layout`), taken while `takes_residents`.
        code_word, codes: a word of codes is read, data one cycle later.
        factor_word, factors: the same of the scales.
        valid, number, scores: a word of the row; NaN in lanes that are not in use.
    """

    start: Signal
    finished: Signal
    with_residents: Signal
    last_word: Signal
    resident_tail: Signal
    token_tail: Signal
    beats: stream.Interface
    takes_residents: Signal
    resident: Any
    code_word: Signal
    codes: Signal
    factor_word: Signal
    factors: Signal
    valid: Signal
    number: Signal
    scores: Signal

    def __init__(self, config: CodesConfig, *, bus_bits: int) -> None:
        self.config, self.bus_bits = config, bus_bits
        lanes, words = config.lanes, range(config.tokens // config.lanes)
        super().__init__(
            {
                "start": In(1),
                "finished": Out(1),
                "with_residents": In(1),
                "last_word": In(words),
                "resident_tail": In(range(max(2, lanes))),
                "token_tail": In(range(max(2, lanes))),
                "beats": In(stream.Signature(bus_bits)),
                "takes_residents": Out(1),
                "resident": In(loaded_layout(lanes, len(words))),
                "code_word": Out(words),
                "codes": In(config.bits * lanes),
                "factor_word": Out(words),
                "factors": In(16 * lanes),
                "valid": Out(1),
                "number": Out(range(row_words(config))),
                "scores": Out(16 * lanes),
            }
        )

    @staticmethod
    def drain(config: CodesConfig) -> int:
        """Cycles from the last word of codes to `finished`: memory, lane, the row's word, extremes."""
        return 1 + Lane.delays(config.bits)[1] + 1 + RowRange.latency_of(config.lanes)

    def elaborate(self, platform: Any) -> Module:
        """The query, a counter of words, and the lanes."""
        m = Module()
        config = self.config
        m.submodules.query = query = Query(config.bits, self.bus_bits)
        wiring.connect(m, wiring.flipped(self.beats), query.beats)
        begin = Signal()
        running, word, ends = counter(m, begin, self.last_word, "code")
        factor_delay, latency = Lane.delays(config.bits)
        m.d.comb += [
            self.code_word.eq(word),
            self.factor_word.eq(delay(m, word, factor_delay, "factor_word")),
        ]
        with m.FSM():
            with m.State("IDLE"), m.If(self.start):
                m.next = "QUERY"
            with m.State("QUERY"):
                m.d.comb += query.active.eq(1)
                with m.If(query.taken):
                    m.d.comb += begin.eq(~self.with_residents)
                    with m.If(self.with_residents):
                        m.next = "RESIDENTS"
                    with m.Else():
                        m.next = "IDLE"
            with m.State("RESIDENTS"):
                m.d.comb += self.takes_residents.eq(1)
                with m.If(self.resident.valid & self.resident.last):
                    m.d.comb += begin.eq(1)
                    m.next = "IDLE"
        scores = self._lanes(m, query)
        there = delay(m, running, 1 + latency, "there", reset=True)
        last = delay(m, running & ends, 1 + latency, "last", reset=True)
        self._write(m, scores, there, last)
        extremes = 1 + RowRange.latency_of(config.lanes)
        m.d.comb += self.finished.eq(delay(m, last, extremes, "finished", reset=True))
        return m

    def _lanes(self, m: Module, query: Query) -> list[Any]:
        """Scores of a word of codes."""
        scores = []
        for i in range(self.config.lanes):
            m.submodules[f"lane_{i}"] = lane = Lane(self.config.bits)
            m.d.comb += [
                lane.components.eq(query.components),
                lane.total.eq(query.total),
                lane.scale.eq(query.scale),
                lane.code.eq(self.codes.word_select(i, self.config.bits)),
                lane.factor.eq(self.factors.word_select(i, 16)),
            ]
            scores.append(lane.score)
        return scores

    def _write(self, m: Module, scores: list[Any], there: Any, last: Any) -> None:
        """Words of the row: first the residents', then the tokens'."""
        resident = self.resident
        takes = self.takes_residents & resident.valid
        m.d.sync += self.valid.eq(takes | there)
        with m.If(self.valid):
            m.d.sync += self.number.eq(self.number + 1)
        with m.If(self.start):
            m.d.sync += self.number.eq(0)
        ends = Mux(there, last, resident.last)
        tail = Mux(there, self.token_tail, self.resident_tail)
        for i, score in enumerate(scores):
            unused = ends & (tail != 0) & (i >= tail)
            value = Mux(there, score, resident.data.word_select(i, 16))
            m.d.sync += self.scores.word_select(i, 16).eq(Mux(unused, NAN, value))


class Weigh(wiring.Component):
    """Replaces the scores of a row by weights, and sums them.

    Args:
        config: unit.

    Members:
        start, finished: see above.
        row, mantissa: constants of the row, `RowRange.settling` cycles after `start`; of the scale.
        last_word: number of the row's last word.
        word, scores: a word is read, data one cycle later.
        valid, number, weights: a word of weights.
        total: of the row's weights, with `finished` and until the next start.
    """

    start: Signal
    finished: Signal
    row: Any
    mantissa: Signal
    last_word: Signal
    word: Signal
    scores: Signal
    valid: Signal
    number: Signal
    weights: Signal
    total: Signal

    def __init__(self, config: CodesConfig) -> None:
        self.config = config
        words, size = range(row_words(config)), 16 * config.lanes
        super().__init__(
            {
                "start": In(1),
                "finished": Out(1),
                "row": In(ROW),
                "mantissa": In(16),
                "last_word": In(words),
                "word": Out(words),
                "scores": In(size),
                "valid": Out(1),
                "number": Out(words),
                "weights": Out(size),
                "total": Out(self.total_bits(config)),
            }
        )

    @staticmethod
    def total_bits(config: CodesConfig) -> int:
        """Width of a row's sum."""
        return 16 + (config.tokens + config.residents).bit_length()

    @staticmethod
    def cycles(config: CodesConfig, words: int) -> int:
        """From `start` to `finished`."""
        return RowRange.settling + words + 2 + Weigher.sum_latency_of(config.lanes)

    def elaborate(self, platform: Any) -> Module:
        """A counter of words read, one of words written, and a sum."""
        m = Module()
        m.submodules.weigher = weigher = Weigher(self.config.lanes)
        begin = delay(m, self.start, RowRange.settling, "begin", reset=True)
        running, word, ends = counter(m, begin, self.last_word, "weigh")
        summed = delay(m, running, 1 + weigher.sum_latency, "summed", reset=True)
        m.d.comb += [
            self.word.eq(word),
            weigher.row.eq(self.row),
            weigher.mantissa.eq(self.mantissa),
            weigher.scores.eq(self.scores),
            self.valid.eq(delay(m, running, 1 + weigher.latency, "valid", reset=True)),
            self.weights.eq(weigher.weights),
            self.finished.eq(delay(m, running & ends, 2 + weigher.sum_latency, "finished", reset=True)),
        ]
        with m.If(self.valid):
            m.d.sync += self.number.eq(self.number + 1)
        with m.If(summed):
            m.d.sync += self.total.eq(self.total + weigher.sum)
        with m.If(self.start):
            m.d.sync += [self.number.eq(0), self.total.eq(0)]
        return m


class Share(wiring.Component):
    """Divides by a row's sum, and gives the weights of the coded tokens to the votes.

    Args:
        config: unit.

    Members:
        start, finished: see above; `finished` comes when the votes are written.
        total: sum of the row's weights, at `start`.
        first_word, last_word: number of the row's first word of coded tokens; of the last of these words.
        word: a word of weights is read, data one cycle later.
        add, number, reciprocal: of the word that was read (`Votes`).
    """

    start: Signal
    finished: Signal
    total: Signal
    first_word: Signal
    last_word: Signal
    word: Signal
    add: Signal
    number: Signal
    reciprocal: Signal

    def __init__(self, config: CodesConfig) -> None:
        self.config = config
        words = range(config.tokens // config.lanes)
        self.divider = RowDivider(Weigh.total_bits(config))
        super().__init__(
            {
                "start": In(1),
                "finished": Out(1),
                "total": In(self.divider.bits),
                "first_word": In(range(row_words(config))),
                "last_word": In(words),
                "word": Out(range(row_words(config))),
                "add": Out(1),
                "number": Out(words),
                "reciprocal": Out(self.divider.signature.members["quotient"].shape),
            }
        )

    @staticmethod
    def cycles(words: int) -> int:
        """From `start` to `finished`."""
        return RowDivider.cycles - 1 + words + Votes.add_latency

    def elaborate(self, platform: Any) -> Module:
        """The divider and a counter of words."""
        m = Module()
        m.submodules.divider = divider = self.divider
        begin = delay(m, self.start, RowDivider.cycles - 1, "begin", reset=True)
        running, word, ends = counter(m, begin, self.last_word, "share")
        m.d.comb += [
            divider.start.eq(self.start),
            divider.sum.eq(self.total),
            self.reciprocal.eq(divider.quotient),
            self.word.eq(self.first_word + word),
            self.add.eq(delay(m, running, 1, "add", reset=True)),
            self.number.eq(delay(m, word, 1, "number")),
            self.finished.eq(delay(m, running & ends, Votes.add_latency, "finished", reset=True)),
        ]
        return m
