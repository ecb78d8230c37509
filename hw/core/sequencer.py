"""The sequencer: takes a program's instructions in order (model `vrex.model.core.core`)."""

from typing import Any

from amaranth import Array, Cat, Module, Mux, ResetInserter, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from vrex.hw.core.dispatch import view
from vrex.hw.core.fetcher import INSTRUCTION_BITS, Fetcher
from vrex.hw.core.front import END, JOB
from vrex.hw.core.movers import FAULT, INDEX_BITS, status_of
from vrex.hw.lib.axi.burst import ADDRESS_BITS, REQUEST, Error, beat_layout
from vrex.model.config import MOST_CORES, Config
from vrex.model.core.instructions import (
    BODY_WORD,
    CONTROL,
    HEAD,
    PARAMETERS,
    PATCHES,
    REGISTERS,
    WORDS,
    Condition,
    Engine,
    Function,
    Mode,
    Opcode,
    Status,
)

ENGINES = tuple(Engine)

CORES_BITS = MOST_CORES.bit_length()
"""Of the number of cores that wait for each other."""


class Sequencer(wiring.Component):
    """Executes control itself and hands everything else to the engines.

    Args:
        config: accelerator.

    Members:
        job: jobs (`vrex.hw.core.front.JOB`).
        end: how each ended (`vrex.hw.core.front.END`).
        sequences, budget, stall: the host's registers of these names.
        program_request, program_beats, word_request, word_beats: ports of an `AxiReader`, for the program and
            for
            READ.
        bits, index, value, right, go, handed: as of `Dispatch`.
        busy: each engine has something to do, in the order of `Engine`.
        left: something that an engine gave was not taken.
        tokens_ready, tokens: as of `KvBuffer`, for the limit in `tokens_limit`; `tokens_take`.
        detail: of the last completion of the DRE.
        barrier: waits at a BARRIER of several cores, of how many says `cores`; until `met`.
        cores: see `barrier`.
        met: all of them do.
        others: something moves in another one of them.
        nan: a result of the LXE was NaN; sampled in every cycle of a job.
        fault: what an engine tells.
        progress: something moved in this cycle.
        quiet: nothing has moved on the bus for a while.
        drained: the bus owes nothing.
        flush: the engines are to be reset; from a failure until `drained`.
        working: a job is in work.
        taken: an instruction is taken in this cycle.
        waits: an instruction waits for engines in this cycle.
    """

    job: stream.Interface
    end: stream.Interface
    sequences: Signal
    budget: Signal
    stall: Signal
    program_request: stream.Interface
    program_beats: stream.Interface
    word_request: stream.Interface
    word_beats: stream.Interface
    bits: Signal
    index: Signal
    value: Signal
    right: Signal
    go: Signal
    handed: Signal
    busy: Signal
    left: Signal
    tokens_limit: Signal
    tokens_ready: Signal
    tokens: Signal
    tokens_take: Signal
    detail: Signal
    barrier: Signal
    cores: Signal
    met: Signal
    others: Signal
    nan: Signal
    fault: stream.Interface
    progress: Signal
    quiet: Signal
    drained: Signal
    flush: Signal
    working: Signal
    taken: Signal
    waits: Signal

    def __init__(self, config: Config) -> None:
        self.config = config
        beats = stream.Signature(beat_layout(config.bus_bits))
        super().__init__(
            {
                "job": In(stream.Signature(JOB)),
                "end": Out(stream.Signature(END)),
                "sequences": In(16),
                "budget": In(32),
                "stall": In(32),
                "program_request": Out(stream.Signature(REQUEST)),
                "program_beats": In(beats),
                "word_request": Out(stream.Signature(REQUEST)),
                "word_beats": In(beats),
                "bits": Out(INSTRUCTION_BITS),
                "index": Out(INDEX_BITS),
                "value": Out(32),
                "right": In(1),
                "go": Out(1),
                "handed": In(1),
                "busy": In(len(ENGINES)),
                "left": In(1),
                "tokens_limit": Out(16),
                "tokens_ready": In(1),
                "tokens": In(16),
                "tokens_take": Out(1),
                "detail": In(32),
                "barrier": Out(1),
                "cores": Out(CORES_BITS),
                "met": In(1),
                "others": In(1),
                "nan": In(1),
                "fault": In(stream.Signature(FAULT, always_ready=True)),
                "progress": In(1),
                "quiet": In(1),
                "drained": In(1),
                "flush": Out(1),
                "working": Out(1),
                "taken": Out(1),
                "waits": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """The instruction's register, the 16 registers, patches, checks, and the state machine."""
        m = Module()
        self.fetcher = Fetcher(self.config.bus_bits)
        m.submodules.fetcher = ResetInserter(self.flush)(self.fetcher)
        connect(m, self.fetcher.request, flipped(self.program_request))
        connect(m, flipped(self.program_beats), self.fetcher.beats)
        self.registers = Array(Signal(32, name=f"r{n}") for n in range(REGISTERS))
        self.program = Signal(ADDRESS_BITS)
        body = self.bits[32 * BODY_WORD :]
        self.head, self.control = view(HEAD, self.bits), view(CONTROL, body)
        self.failed = Signal()
        # Number of the patch in work.
        self.patch = Signal(range(PATCHES))
        self.why: Any = Signal(FAULT)
        # One port to read and one to write, as the registers' multiplexers are large.
        self.read = Signal(range(REGISTERS), name="read_register")
        self.operand = Signal(32)
        self.write = Signal(name="write_register")
        self.written = Signal(32)
        m.d.comb += [
            self.read.eq(self.control.a),
            self.operand.eq(self.registers[self.read]),
            self.value.eq(self.operand),
            self.tokens_limit.eq(self.control.immediate),
            self.cores.eq(self.control.immediate),
            self.word_request.payload.address.eq(self.control.address),
            self.word_request.payload.bytes.eq(4),
        ]
        with m.If(self.write):
            m.d.sync += self.registers[self.control.destination].eq(self.written)
        self._watch(m)
        with m.FSM() as fsm:
            self._start(m)
            self._take(m)
            self._patch(m)
            self._execute(m)
            self._finish(m)
        m.d.comb += self.working.eq(~fsm.ongoing("IDLE"))
        return m

    def _start(self, m: Module) -> None:
        """A job: its registers and its program."""
        job = self.job.payload
        end = self.end.payload
        with m.State("IDLE"):
            m.d.comb += self.job.ready.eq(1)
            with m.If(self.job.valid):
                m.d.sync += [self.registers[n].eq(getattr(job, f"r{n}")) for n in range(PARAMETERS)]
                m.d.sync += [self.registers[n].eq(0) for n in range(PARAMETERS, REGISTERS)]
                m.d.sync += [
                    *(self.program.eq(job.program), self.index.eq(0), self.failed.eq(0)),
                    *(end.tag.eq(job.tag), end.sequence.eq(job.sequence), end.nan.eq(0)),
                    *(end.status.eq(Status.OK), end.detail.eq(0), end.instructions.eq(0)),
                ]
                with m.If(job.sequence >= self.sequences):
                    self._fail(m, Status.BAD_SEQUENCE)
                with m.Else():
                    m.d.comb += [self.fetcher.start.eq(1), self.fetcher.address.eq(job.program)]
                    m.next = "TAKE"

    def _fail(self, m: Module, status: Any) -> None:
        """The instruction in work fails."""
        m.d.sync += [
            self.failed.eq(1),
            self.why.status.eq(status),
            self.why.detail.eq(0),
            self.why.index.eq(self.index),
        ]
        m.next = "FAILED"

    def _take(self, m: Module) -> None:
        """The next instruction."""
        fetched, end = self.fetcher.o, self.end.payload
        with m.State("TAKE"):
            with m.If(self.failed):
                m.next = "FAILED"
            with m.Elif(fetched.valid):
                m.d.comb += [fetched.ready.eq(1), self.taken.eq(1)]
                m.d.sync += [self.bits.eq(fetched.payload.bits), end.instructions.eq(end.instructions + 1)]
                m.d.sync += self.patch.eq(0)
                m.next = "PATCH"
                with m.If(fetched.payload.error != Error.NONE):
                    self._fail(m, status_of(fetched.payload.error))
                with m.If((self.budget != 0) & (end.instructions >= self.budget)):
                    self._fail(m, Status.BUDGET)

    def _patch(self, m: Module) -> None:
        """The patches in turn, each in one cycle if it is not used, else in two: operands, and sum."""
        words = Array(self.bits.word_select(n, 32) for n in range(WORDS))
        patches = [getattr(self.head, f"patch{n}") for n in range(PATCHES)]
        patch: Any = Signal(patches[0].shape())
        number = self.patch
        value = Signal(32)
        low = Signal(32)
        high = Signal(32)
        word = Signal(4)
        mode = Signal(3)
        wide = (mode == Mode.BYTES) | (mode == Mode.PAGES)
        added = Mux(mode == Mode.PAGES, value << 12, value)
        short = Mux(mode == Mode.HIGH, Cat(low[:16], low[16:] + value[:16]), low + value)[:32]
        short = Mux(mode == Mode.LOW, Cat((low[:16] + value[:16])[:16], low[16:]), short)
        total = Signal(64)
        m.d.comb += [
            total.eq(Mux(wide, Cat(low, high) + added, Cat(short, high))),
            patch.eq(Array(each.as_value() for each in patches)[number]),
        ]
        two = (patch.mode == Mode.BYTES) | (patch.mode == Mode.PAGES)
        wrong = (patch.mode > max(Mode)) | (patch.word < BODY_WORD) | (two & (patch.word == WORDS - 1))

        def follow() -> None:
            m.d.sync += number.eq(number + 1)
            m.next = "PATCH"
            with m.If(number == PATCHES - 1):
                m.next = "CHECK"

        with m.State("PATCH"):
            m.d.comb += self.read.eq(patch.register)
            m.d.sync += [
                *(value.eq(self.operand), word.eq(patch.word), mode.eq(patch.mode)),
                *(low.eq(words[patch.word]), high.eq(words[(patch.word + 1)[:4]])),
            ]
            follow()
            with m.If(patch.used):
                m.d.sync += number.eq(number)
                m.next = "ADD"
                with m.If(wrong):
                    self._fail(m, Status.BAD_INSTRUCTION)
        with m.State("ADD"):
            for k in range(BODY_WORD, WORDS):
                with m.If(word == k):
                    m.d.sync += self.bits.word_select(k, 32).eq(total[:32])
                with m.If((word + 1 == k) & wide):
                    m.d.sync += self.bits.word_select(k, 32).eq(total[32:])
            follow()
        with m.State("CHECK"):
            m.next = "JUDGE"
        with m.State("JUDGE"):
            m.next = "EXECUTE"
            with m.If(~self.right):
                self._fail(m, Status.BAD_INSTRUCTION)

    def _watch(self, m: Module) -> None:
        """Errors of the engines, NaN, and standstills."""
        still = Signal(32)
        m.d.sync += still.eq(still + 1)
        with m.If(self.progress | self.taken | ~self.working | (self.barrier & self.others)):
            m.d.sync += still.eq(0)
        with m.If(self.working & ~self.failed):
            with m.If((self.stall != 0) & (still == self.stall)):
                m.d.sync += [self.failed.eq(1), self.why.status.eq(Status.STALLED), self.why.detail.eq(0)]
                m.d.sync += self.why.index.eq(self.index)
            with m.If(self.fault.valid):
                m.d.sync += [self.failed.eq(1), self.why.eq(self.fault.payload)]
            with m.If(self.nan):
                m.d.sync += self.end.payload.nan.eq(1)

    def _execute(self, m: Module) -> None:
        """One instruction; a failure ends every wait."""
        done = Signal()
        opcode, control = self.head.opcode, self.control
        with m.State("EXECUTE"):
            m.d.comb += self.waits.eq(~done)
            with m.If(done):
                m.d.sync += self.index.eq(self.index + 1)
                m.next = "TAKE"
            with m.Switch(opcode):
                with m.Case(Opcode.END), m.If(~self.busy.any() & ~self.left):
                    m.next = "STOP"
                with m.Case(Opcode.COMPUTE):
                    m.next = "COMPUTE"
                with m.Case(Opcode.BRANCH):
                    self._branch(m, done)
                with m.Case(Opcode.READ):
                    m.d.comb += self.word_request.valid.eq(1)
                    with m.If(self.word_request.ready):
                        m.next = "READ"
                with m.Case(Opcode.WAIT):
                    m.d.comb += done.eq(~(self.busy & control.immediate).any())
                with m.Case(Opcode.TOKENS):
                    m.d.comb += [done.eq(self.tokens_ready), self.tokens_take.eq(self.tokens_ready)]
                    m.d.comb += [self.write.eq(self.tokens_ready), self.written.eq(self.tokens)]
                with m.Case(Opcode.BARRIER):
                    alone = control.immediate == 1
                    m.d.comb += [done.eq(alone | self.met), self.barrier.eq(~alone & ~self.failed)]
                with m.Case(Opcode.DETAIL):
                    m.d.comb += done.eq(~self.busy[ENGINES.index(Engine.DRE)])
                    m.d.comb += [self.write.eq(1), self.written.eq(self.detail)]
                with m.Default():
                    m.d.comb += [self.go.eq(1), done.eq(self.handed)]
            # The request of a READ that is offered must be taken first.
            with m.If(self.failed & ~done & ~self.word_request.valid):
                m.next = "FAILED"
        self._compute(m)
        self._read(m)

    def _branch(self, m: Module, done: Signal) -> None:
        control = self.control
        goes = Mux(control.function == Condition.ZERO, self.operand == 0, self.operand != 0) | (
            control.function == Condition.ALWAYS
        )
        m.d.comb += done.eq(1)
        with m.If(goes):
            m.d.comb += [
                self.fetcher.start.eq(1),
                self.fetcher.address.eq(self.program + (control.immediate << (4 * WORDS).bit_length() - 1)),
            ]
            m.d.sync += self.index.eq(control.immediate)

    def _compute(self, m: Module) -> None:
        """COMPUTE: operands, then the result."""
        control = self.control
        left = Signal(32)
        right = Signal(32)
        m.d.sync += [
            left.eq(self.operand),
            right.eq(Mux(control.use_b, self.registers[control.b], control.immediate)),
        ]
        results = {
            Function.COPY: right,
            Function.ADD: left + right,
            Function.SUB: left - right,
            Function.AND: left & right,
            Function.SHL: left << right[:5],
            Function.SHR: left >> right[:5],
            Function.MIN: Mux(left < right, left, right),
        }
        with m.State("COMPUTE"):
            with m.Switch(control.function):
                for function, result in results.items():
                    with m.Case(function):
                        m.d.comb += [self.write.eq(1), self.written.eq(result)]
            m.d.sync += self.index.eq(self.index + 1)
            m.next = "TAKE"

    def _read(self, m: Module) -> None:
        """READ: the word of a beat, or an error."""
        beat = self.word_beats.payload
        words = self.config.bus_bits // 32
        place = self.control.address[2 : 2 + words.bit_length() - 1]
        with m.State("READ"):
            m.d.comb += self.word_beats.ready.eq(1)
            with m.If(self.word_beats.valid):
                m.d.comb += [self.write.eq(1), self.written.eq(beat.data.word_select(place, 32))]
                m.d.sync += self.index.eq(self.index + 1)
                m.next = "TAKE"
                with m.If(beat.error != Error.NONE):
                    self._fail(m, status_of(beat.error))

    def _finish(self, m: Module) -> None:
        """The end of a job: leaves the program, resets the engines after a failure, and tells."""
        end = self.end.payload
        with m.State("STOP"):
            m.d.comb += self.fetcher.stop.eq(1)
            m.d.sync += end.index.eq(self.index)
            m.next = "LEAVE"
        with m.State("LEAVE"), m.If(self.fetcher.idle):
            m.next = "DONE"
            with m.If(self.failed):
                m.next = "FLUSH"
        with m.State("FAILED"):
            m.d.comb += self.fetcher.stop.eq(1)
            with m.If(self.quiet):
                m.next = "FLUSH"
        with m.State("FLUSH"):
            m.d.comb += self.flush.eq(1)
            m.d.sync += [
                *(
                    end.status.eq(self.why.status),
                    end.detail.eq(self.why.detail),
                    end.index.eq(self.why.index),
                ),
            ]
            with m.If(self.drained):
                m.next = "DONE"
        with m.State("DONE"):
            m.d.comb += self.end.valid.eq(1)
            with m.If(self.end.ready):
                m.next = "IDLE"
