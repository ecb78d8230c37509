"""Selects the tokens of one KV head whose codes get the most votes (model `vrex.model.dre.codes`).

A command loads the codes of the past, then takes rows: a rotated query and the scores of the resident tokens.
Three rows are in work at once, each in another part of a step (`steps`). After the last row the K-th largest
vote is sought and the bitmask is sent.
"""

from typing import Any

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from vrex.hw.dre.codes.scorer import Query
from vrex.hw.dre.codes.steps import RowMemories, Score, Share, Weigh
from vrex.hw.dre.codes.votes import ROW_BITS, Search, Votes, passes
from vrex.hw.dre.codes.weigher import RowRange
from vrex.hw.dre.wtu.datapath import NO_BYPASS
from vrex.hw.dre.wtu.load import Intake
from vrex.hw.lib.stream import BeatMemory, Packer, delay
from vrex.model.config import CodesConfig, check_unit

COMMAND = data.StructLayout(
    {
        "tokens": 16,
        "rows": ROW_BITS,
        "residents": 16,
        "count": 16,
        "scale_mantissa": 16,
        "scale_exponent": signed(8),
    }
)
"""A command: coded tokens, rows, resident tokens of a row, K, and the scale (`vrex.model.dre.wtu.Scale`)."""


class CodeSelect(wiring.Component):
    """Selects tokens by their codes.

    Payload of a command, each field on a new beat: `tokens` codes; `tokens` scales f, BF16; then for each row
    its query, `bits` components of 8 bits and a BF16 scale, and the scores of the residents, BF16, NaN where
    the row must not look. Cycles of a command that never waits: see `cycles`.

    Args:
        codes: unit.
        bus_bits: width of the streams of beats.

    Members:
        cmd: `COMMAND`; `tokens` from 1 to `codes.tokens`, `rows` at least 1, `residents` at most
            `codes.residents`, any `count`.
        din: payload.
        dout: bitmask of the tokens, lowest first, zeros after the last token.
        done: number of tokens selected; follows the last beat.
        busy: a command is in work.
    """

    cmd: stream.Interface
    din: stream.Interface
    dout: stream.Interface
    done: stream.Interface
    busy: Signal

    def __init__(self, codes: CodesConfig, *, bus_bits: int) -> None:
        """A unit of these dimensions.

        Raises:
            ValueError: the dimensions do not go together.
        """
        check_unit(codes=codes, bus_bits=bus_bits)
        self.config, self.bus_bits = codes, bus_bits
        self.words = codes.tokens // codes.lanes
        super().__init__(
            {
                "cmd": In(stream.Signature(COMMAND)),
                "din": In(stream.Signature(bus_bits)),
                "dout": Out(stream.Signature(bus_bits)),
                "done": Out(stream.Signature(16)),
                "busy": Out(1),
            }
        )

    @staticmethod
    def cycles(codes: CodesConfig, tokens: int, rows: int, residents: int, *, bus_bits: int) -> int:
        """Cycles from a command to `done` when no port makes the unit wait."""
        lanes = codes.lanes
        words, resident_words = -(-tokens // lanes), -(-residents // lanes)

        def beats(bits: int) -> int:
            return -(-bits // bus_bits)

        load = beats(tokens * codes.bits) + max(words, beats(16 * tokens))
        residents_take = max(resident_words, beats(16 * residents))
        score = Query.beats_of(codes.bits, bus_bits) + residents_take + words + Score.drain(codes)
        parts = (score, Weigh.cycles(codes, resident_words + words), Share.cycles(words))
        steps = sum(
            1 + max(part for i, part in enumerate(parts) if 0 <= step - i < rows) for step in range(rows + 2)
        )
        search = passes(rows) * Search.pass_cycles(lanes, words)
        per_beat = bus_bits // lanes
        # Five cycles to the first word of the bitmask; the packer is idle for one after a beat that fills up.
        send = 5 + words + (words - 1) // per_beat + 1
        return load + steps + search + send

    def elaborate(self, platform: Any) -> Module:
        """Memories, the three parts of a step, the votes, and the control of them all."""
        m = Module()
        config = self.config
        self.command: Any = Signal(COMMAND)
        self.start = Signal(3)
        self.loading_codes = Signal()
        self.loading_scales = Signal()
        self.select = Signal()
        self.fresh = Signal()
        m.submodules.intake = self.intake = Intake(self.bus_bits, config.lanes, config.tokens)
        m.submodules.score = self.score = Score(config, bus_bits=self.bus_bits)
        m.submodules.weigh = self.weigh = Weigh(config)
        m.submodules.share = self.share = Share(config)
        m.submodules.range = self.range = RowRange(config.lanes)
        m.submodules.rows = self.rows = RowMemories(config)
        m.submodules.votes = self.votes = Votes(config)
        m.submodules.packer = self.packer = Packer(config.lanes, self.bus_bits)
        self._sizes(m)
        self._load(m)
        self._connect(m)
        self._control(m)
        return m

    def _sizes(self, m: Module) -> None:
        """Numbers of last words, and lanes in use in them, registered."""
        command, lane_bits = self.command, self.config.lanes.bit_length() - 1
        lanes = self.config.lanes
        loading = self.loading_codes | self.loading_scales
        resident_words = delay(m, (command.residents + lanes - 1) >> lane_bits, 1, "resident_words")
        last_word = delay(m, (command.tokens - 1)[:16] >> lane_bits, 1, "last_word")
        m.d.comb += [
            self.score.with_residents.eq(command.residents != 0),
            self.score.resident_tail.eq(command.residents[:lane_bits]),
            self.score.token_tail.eq(command.tokens[:lane_bits]),
            self.score.last_word.eq(last_word),
            self.share.first_word.eq(resident_words),
            self.share.last_word.eq(last_word),
            self.votes.last_word.eq(last_word),
            self.votes.wanted.eq(command.count),
            self.votes.rows.eq(command.rows),
            self.weigh.mantissa.eq(command.scale_mantissa),
            self.range.scale_exponent.eq(command.scale_exponent),
            # Of scales from before their field on.
            self.intake.last_item.eq(Mux(loading, command.tokens, command.residents) - 1),
        ]
        m.d.sync += self.weigh.last_word.eq(resident_words + last_word)

    def _load(self, m: Module) -> None:
        """Memories of codes and scales, and where the beats of `din` go."""
        config, intake, score = self.config, self.intake, self.score
        m.submodules.code_memory = codes = BeatMemory(
            self.bus_bits, config.lanes * config.bits, config.tokens * config.bits
        )
        scales: Memory = Memory(shape=16 * config.lanes, depth=self.words, init=[], attrs=NO_BYPASS)
        m.submodules.scale_memory = scales
        read, write = scales.read_port(), scales.write_port()
        word = intake.word
        self.beat = Signal.like(codes.write_beat)
        m.d.comb += [
            codes.write_en.eq(self.loading_codes & self.din.valid),
            codes.write_beat.eq(self.beat),
            codes.write_data.eq(self.din.payload),
            codes.read_row.eq(score.code_word),
            score.codes.eq(codes.read_data),
            write.addr.eq(word.number),
            write.data.eq(word.data),
            write.en.eq(word.valid & self.loading_scales),
            read.addr.eq(score.factor_word),
            score.factors.eq(read.data),
            intake.active.eq(self.loading_scales | score.takes_residents),
            score.resident.eq(word),
        ]
        for beats in (intake.beats, score.beats):
            m.d.comb += [beats.payload.eq(self.din.payload), beats.valid.eq(self.din.valid)]
        m.d.comb += self.din.ready.eq(self.loading_codes | intake.beats.ready | score.beats.ready)

    def _connect(self, m: Module) -> None:
        """The parts of a step with the rows in work, and the votes."""
        score, weigh, share, rows, votes = self.score, self.weigh, self.share, self.rows, self.votes
        m.d.comb += [
            Cat(score.start, weigh.start, share.start).eq(self.start),
            self.range.clear.eq(score.start),
            self.range.take.eq(weigh.start),
            self.range.valid.eq(score.valid),
            self.range.word.eq(score.scores),
            weigh.row.eq(self.range.row),
            share.total.eq(weigh.total),
            rows.score.eq(score.valid),
            rows.score_word.eq(score.number),
            rows.scores.eq(score.scores),
            rows.weigh_word.eq(weigh.word),
            weigh.scores.eq(rows.to_weigh),
            rows.weighed.eq(weigh.valid),
            rows.weighed_word.eq(weigh.number),
            rows.weights.eq(weigh.weights),
            rows.share_word.eq(share.word),
            votes.add.eq(share.add),
            votes.number.eq(share.number),
            votes.reciprocal.eq(share.reciprocal),
            votes.weights.eq(rows.to_share),
            votes.select.eq(self.select),
        ]
        wiring.connect(m, votes.o, self.packer.i)
        wiring.connect(m, self.packer.o, wiring.flipped(self.dout))

    def _control(self, m: Module) -> None:
        """Sequence of a command."""
        command, votes = self.command, self.votes
        last_beat = (command.tokens * self.config.bits - 1) >> (self.bus_bits.bit_length() - 1)
        at_last = self.beat == last_beat[: len(self.beat)]
        # Steps begun, and the parts of the present one that have not finished.
        step = Signal(ROW_BITS + 1)
        waited = Signal(3)
        parts = Cat(step < command.rows, (step != 0) & (step <= command.rows), step > 1)
        finished = Cat(self.score.finished, self.weigh.finished, self.share.finished)
        m.d.comb += [
            self.done.payload.eq(votes.selected),
            votes.fresh.eq(self.fresh),
            self.busy.eq(~self.cmd.ready),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.cmd.ready.eq(1)
                m.d.sync += [command.eq(self.cmd.payload), self.beat.eq(0), step.eq(0)]
                with m.If(self.cmd.valid):
                    m.next = "CODES"
            with m.State("CODES"):
                m.d.comb += self.loading_codes.eq(1)
                with m.If(self.din.valid):
                    m.d.sync += self.beat.eq(self.beat + 1)
                    with m.If(at_last):
                        m.next = "SCALES"
            with m.State("SCALES"):
                m.d.comb += self.loading_scales.eq(1)
                with m.If(self.intake.word.valid & self.intake.word.last):
                    m.next = "BEGIN"
            with m.State("BEGIN"):
                m.d.comb += [self.start.eq(parts), self.rows.turn.eq(1)]
                m.d.sync += [
                    waited.eq(parts),
                    step.eq(step + 1),
                    self.fresh.eq(step == 2),
                ]
                m.next = "STEP"
            with m.State("STEP"):
                m.d.sync += waited.eq(waited & ~finished)
                with m.If((waited & ~finished) == 0):
                    m.next = "BEGIN"
                    with m.If(step == command.rows + 2):
                        m.d.comb += self.select.eq(1)
                        m.next = "SEND"
            with m.State("SEND"), m.If(votes.o.valid & votes.o.ready & votes.o.payload.last):
                m.next = "LAST_BEAT"
            with m.State("LAST_BEAT"), m.If(self.dout.valid & self.dout.ready):
                m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += self.done.valid.eq(1)
                with m.If(self.done.ready):
                    m.next = "IDLE"
