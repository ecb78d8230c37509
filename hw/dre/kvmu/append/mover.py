"""The ways of APPEND's data: from memory and payload to whoever takes them, and to the writer."""

from typing import Any

from amaranth import Module, Mux, ResetInserter, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out, connect, flipped

from vrex.hw.dre.kvmu.append.addresses import COPY_PAGES_BITS
from vrex.hw.dre.kvmu.append.onehot import select
from vrex.hw.dre.kvmu.append.steps import Sink, Source, Step, reading_for, step_in, writing_from
from vrex.hw.dre.mean import Mean
from vrex.hw.dre.quant import Quant
from vrex.hw.lib.stream import Skid, delay
from vrex.model.config import Config, KvmuConfig, MeanConfig

NUMBERS = {Sink.COPY_PAGES: COPY_PAGES_BITS, Sink.COUNT: 16, Sink.TAIL: 32}
"""Bits of what is taken out of a beat."""


class Mover(wiring.Component):
    """Connects streams as the step wants it while its accesses are under way; holds mean and quantiser.

    Reads and writes pass a `Skid` each, so that no readiness goes from the writer to the reader.

    Args:
        config: the KV store.
        mean: of the running mean.
        bus_bits: width of a beat.

    Members:
        at: the step, one-hot.
        moves: the step's accesses are under way from the next cycle on.
        load: a step begins; it may take a key and a value from the payload.
        hashing: the payload goes to the HCU.
        clear: forgets a key without a mean, which a command that failed leaves.
        lane: address of the step's read within a beat.
        memory: what the step reads.
        reading: some of it is still to be taken, once all has come.
        payload: of the command.
        word: what the step writes if it writes a word.
        write: what the step writes.
        hcu_din: hash-bits of tokens and founders.
        hash_taken, founder_taken: one of their beats is taken.
        header, counts: beats of the header and of counts; always taken.
        copy_pages, count, tail: the numbers of their steps, three cycles after the beat that holds them.
        mean_cmd: keys of the cluster whose mean the step updates.
        quant_cmd: whether the step quantises to four bits.
        scale: of the last mean that was quantised.
    """

    at: Signal
    moves: Signal
    load: Signal
    hashing: Signal
    clear: Signal
    lane: Signal
    memory: stream.Interface
    reading: Signal
    payload: stream.Interface
    word: stream.Interface
    write: stream.Interface
    hcu_din: stream.Interface
    hash_taken: Signal
    founder_taken: Signal
    header: stream.Interface
    counts: stream.Interface
    copy_pages: stream.Interface
    count: stream.Interface
    tail: stream.Interface
    mean_cmd: stream.Interface
    quant_cmd: stream.Interface
    scale: Signal

    def __init__(self, config: KvmuConfig, *, mean: MeanConfig, bus_bits: int) -> None:
        self.bus_bits, self.bus_bytes = bus_bits, bus_bits // 8
        # Beats of a key, and as many of its value.
        self.key_beats = 16 * config.head_dim // bus_bits
        chip = Config(bus_bits=bus_bits, kvmu=config, mean=mean)
        self.mean, self.quant = Mean(chip), Quant(chip)
        self.came, self.out = Skid(bus_bits), Skid(bus_bits)
        # One place more than there are beats: its output register may be empty while its memory is full.
        self.keys = SyncFIFOBuffered(width=bus_bits, depth=self.key_beats + 1)
        # The step's key and value are not complete; the next step's must not be taken.
        self.payload_open = Signal()
        beats = stream.Signature(bus_bits)
        taken = stream.Signature(bus_bits, always_ready=True)
        super().__init__(
            {
                "at": In(len(Step)),
                "moves": In(1),
                "load": In(1),
                "hashing": In(1),
                "clear": In(1),
                "lane": In(range(self.bus_bytes)),
                "memory": In(beats),
                "reading": Out(1),
                "payload": In(beats),
                "word": In(beats),
                "write": Out(beats),
                "hcu_din": Out(beats),
                "hash_taken": Out(1),
                "founder_taken": Out(1),
                "header": Out(taken),
                "counts": Out(taken),
                "copy_pages": Out(stream.Signature(NUMBERS[Sink.COPY_PAGES], always_ready=True)),
                "count": Out(stream.Signature(NUMBERS[Sink.COUNT], always_ready=True)),
                "tail": Out(stream.Signature(NUMBERS[Sink.TAIL], always_ready=True)),
                "mean_cmd": In(stream.Signature(16)),
                "quant_cmd": In(stream.Signature(1)),
                "scale": Out(16),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware: multiplexers between two skid buffers; mean, quantiser and a FIFO of keys."""
        m = Module()
        m.submodules.running_mean, m.submodules.quant = self.mean, self.quant
        m.submodules.came, m.submodules.out = self.came, self.out
        # A key waits here for its mean.
        m.submodules.keys = ResetInserter(delay(m, self.clear, 1, "clear_keys"))(self.keys)
        connect(m, flipped(self.memory), self.came.i)
        connect(m, self.out.o, flipped(self.write))
        reads = {sink: self._moving(m, reading_for(sink)) for sink in Sink}
        writes = {source: self._moving(m, writing_from(source)) for source in Source}
        self._reads(m, reads)
        self._writes(m, writes)
        self._hashes(m, reads[Sink.HCU])
        self._payload(m, writes[Source.PAYLOAD])
        self._mean(m, reads[Sink.MEAN])
        self._quant(m, reads[Sink.QUANT])
        return m

    def _moving(self, m: Module, steps: tuple[Step, ...]) -> Any:
        """Whether accesses of one of these steps are under way; registered because of its fan-out."""
        return delay(m, self.moves & step_in(self.at, steps), 1, "moving", reset=True)

    def _reads(self, m: Module, moving: dict[Sink, Any]) -> None:
        """Passes on what was read to those who always take it, and its readiness from all."""
        came = self.came.o
        always = (*NUMBERS, Sink.HEADER, Sink.BLOCK_COUNTS)
        takers = [
            (self._moving(m, reading_for(*always)), 1),
            (moving[Sink.HCU], self.hcu_din.ready),
            (moving[Sink.QUANT], self.quant.i.ready),
            (moving[Sink.MEAN], self.mean.mean.ready),
            (moving[Sink.WRITER], self.out.i.ready),
        ]
        m.d.comb += [
            came.ready.eq(select(takers)),
            self.reading.eq(came.valid),
            self.header.payload.eq(came.payload),
            self.header.valid.eq(came.valid & moving[Sink.HEADER]),
            self.counts.payload.eq(came.payload),
            self.counts.valid.eq(came.valid & moving[Sink.BLOCK_COUNTS]),
        ]
        numbers = {Sink.COPY_PAGES: self.copy_pages, Sink.COUNT: self.count, Sink.TAIL: self.tail}
        for sink, number in numbers.items():
            self._take(m, moving[sink], number, NUMBERS[sink])

    def _take(self, m: Module, moving: Any, number: stream.Interface, bits: int) -> None:
        """Takes the step's number out of the lanes of its address, in three cycles; the step lasts longer."""
        came = self.came.o
        lane = self.lane[(bits // 8).bit_length() - 1 :]
        pair = delay(m, came.payload.word_select(lane[1:], min(2 * bits, self.bus_bits)), 1, "pair")
        m.d.comb += [
            number.valid.eq(delay(m, moving & came.valid, 2, "came", reset=True)),
            number.payload.eq(delay(m, pair.word_select(lane[:1], bits), 1, "number")),
        ]

    def _writes(self, m: Module, moving: dict[Source, Any]) -> None:
        """Passes the step's source on to the writer."""
        out, came = self.out.i, self.came.o
        sources = [
            (Source.PAYLOAD, self.payload.valid & self.payload_open, self.payload.payload),
            (Source.QUANT, self.quant.o.valid, self.quant.o.payload),
            (Source.MEAN, self.mean.o.valid, self.mean.o.payload),
            (Source.READ, came.valid, came.payload),
            (Source.WORD, self.word.valid, self.word.payload),
        ]
        m.d.comb += [
            out.payload.eq(select((moving[source], payload) for source, _, payload in sources)),
            out.valid.eq(select((moving[source], valid) for source, valid, _ in sources)),
            self.quant.o.ready.eq(moving[Source.QUANT] & out.ready),
            self.mean.o.ready.eq(moving[Source.MEAN] & out.ready),
            self.word.ready.eq(moving[Source.WORD] & out.ready),
        ]

    def _hashes(self, m: Module, moving: Any) -> None:
        """Hash-bits of tokens, from the payload, and of founders, from memory."""
        came, founders = self.came.o, self.at[Step.FOUNDERS]
        m.d.comb += [
            self.hcu_din.payload.eq(Mux(founders, came.payload, self.payload.payload)),
            self.hcu_din.valid.eq((moving & came.valid) | (self.hashing & self.payload.valid)),
            self.hash_taken.eq(self.hashing & self.payload.valid & self.hcu_din.ready),
            self.founder_taken.eq(founders & came.valid & came.ready),
        ]

    def _payload(self, m: Module, moving: Any) -> None:
        """A key and its value on their way to the writer; the key is kept for the mean."""
        beat, takes = Signal(range(2 * self.key_beats)), moving & self.payload_open
        taken = takes & self.payload.valid & self.out.i.ready
        m.d.comb += [
            self.payload.ready.eq((takes & self.out.i.ready) | (self.hashing & self.hcu_din.ready)),
            self.keys.w_data.eq(self.payload.payload),
            self.keys.w_en.eq(taken & (beat < self.key_beats)),
        ]
        m.d.sync += beat.eq(beat + taken)
        with m.If(taken & (beat == 2 * self.key_beats - 1)):
            m.d.sync += self.payload_open.eq(0)
        with m.If(self.load):
            m.d.sync += self.payload_open.eq(1)

    def _mean(self, m: Module, moving: Any) -> None:
        """The old mean from memory, and the key from the FIFO."""
        mean = self.mean
        m.d.comb += [
            mean.cmd.payload.count.eq(self.mean_cmd.payload),
            mean.cmd.payload.beats.eq(self.key_beats),
            mean.cmd.valid.eq(self.mean_cmd.valid),
            self.mean_cmd.ready.eq(mean.cmd.ready),
            mean.mean.payload.eq(self.came.o.payload),
            mean.mean.valid.eq(self.came.o.valid & moving),
            mean.key.payload.eq(self.keys.r_data),
            mean.key.valid.eq(self.keys.r_rdy),
            self.keys.r_en.eq(mean.key.ready),
        ]

    def _quant(self, m: Module, moving: Any) -> None:
        """The new mean from memory; its scale is kept."""
        quant = self.quant
        connect(m, flipped(self.quant_cmd), quant.cmd)
        m.d.comb += [
            quant.i.payload.eq(self.came.o.payload),
            quant.i.valid.eq(self.came.o.valid & moving),
            quant.done.ready.eq(1),
        ]
        with m.If(quant.done.valid):
            m.d.sync += self.scale.eq(quant.done.payload)
