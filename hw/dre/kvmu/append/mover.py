"""Data paths of APPEND: from memory and payload to the units that take them, and to the writer."""

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
from vrex.model.config import KvmuConfig, MeanConfig

NUMBERS = {Sink.COPY_PAGES: COPY_PAGES_BITS, Sink.COUNT: 16, Sink.TAIL: 32}
"""Width of the values that are extracted from a beat."""


class Mover(wiring.Component):
    """Routes the step's data while its accesses are under way; contains running mean and quantiser.

    Read and written data pass a `Skid` each, so there is no path from the writer's ready to the reader's.

    Args:
        config: the KV store.
        mean: of the running mean.
        bus_bits: width of a beat.

    Members:
        step_flags: the step, one-hot.
        active: the step's accesses are under way from the next cycle on.
        load: a step is being prepared; it may take one key and value from the payload.
        hashing: the payload goes to the HCU.
        clear: discards a key without a mean, left by a command that failed.
        lane: address of the step's read within a beat.
        memory: data of the step's read.
        reading: some of it is in the skid buffer.
        payload: of the command.
        word: data of a step that writes a word.
        write: data of the step's write.
        hcu_din: hash-bits of tokens and founders.
        hash_taken, founder_taken: a beat of them is transferred.
        header, counts: beats of the header, and of a block's counts.
        copy_pages, count, tail: values of the steps of these names, two cycles after their beat.
        mean_cmd: count of the cluster whose mean the step updates.
        quant_cmd: the step quantises to four bits, not eight.
        scale: of the last mean that was quantised.
    """

    step_flags: Signal
    active: Signal
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
        self.mean = Mean(mean, bus_bits=bus_bits)
        self.quant = Quant(kvmu=config, mean=mean, bus_bits=bus_bits)
        self.read_skid, self.write_skid = Skid(bus_bits), Skid(bus_bits)
        # One entry more than a key has beats: the output register may be empty while the memory is full.
        self.keys = SyncFIFOBuffered(width=bus_bits, depth=self.key_beats + 1)
        # The step's key and value are incomplete; beats of the next ones must wait.
        self.payload_open = Signal()
        beats = stream.Signature(bus_bits)
        taken = stream.Signature(bus_bits, always_ready=True)
        super().__init__(
            {
                "step_flags": In(len(Step)),
                "active": In(1),
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
        m.submodules.read_skid, m.submodules.write_skid = self.read_skid, self.write_skid
        # Holds a key until the step that updates its mean.
        m.submodules.keys = ResetInserter(delay(m, self.clear, 1, "clear_keys"))(self.keys)
        connect(m, flipped(self.memory), self.read_skid.i)
        connect(m, self.write_skid.o, flipped(self.write))
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
        return delay(m, self.active & step_in(self.step_flags, steps), 1, "moving", reset=True)

    def _reads(self, m: Module, moving: dict[Sink, Any]) -> None:
        """Routes read data to its sink, and the sink's ready back."""
        read = self.read_skid.o
        always = (*NUMBERS, Sink.HEADER, Sink.BLOCK_COUNTS)
        takers = [
            (self._moving(m, reading_for(*always)), 1),
            (moving[Sink.HCU], self.hcu_din.ready),
            (moving[Sink.QUANT], self.quant.i.ready),
            (moving[Sink.MEAN], self.mean.mean.ready),
            (moving[Sink.WRITER], self.write_skid.i.ready),
        ]
        m.d.comb += [
            read.ready.eq(select(takers)),
            self.reading.eq(read.valid),
            self.header.payload.eq(read.payload),
            self.header.valid.eq(read.valid & moving[Sink.HEADER]),
            self.counts.payload.eq(read.payload),
            self.counts.valid.eq(read.valid & moving[Sink.BLOCK_COUNTS]),
        ]
        numbers = {Sink.COPY_PAGES: self.copy_pages, Sink.COUNT: self.count, Sink.TAIL: self.tail}
        for sink, number in numbers.items():
            self._take(m, moving[sink], number, NUMBERS[sink])

    def _take(self, m: Module, moving: Any, number: stream.Interface, bits: int) -> None:
        """Extracts the value at the read's address from its beat, in two cycles; the step lasts longer."""
        read = self.read_skid.o
        lane = self.lane[(bits // 8).bit_length() - 1 :]
        pair = delay(m, read.payload.word_select(lane[1:], min(2 * bits, self.bus_bits)), 1, "pair")
        m.d.comb += [
            number.valid.eq(delay(m, moving & read.valid, 2, "number_valid", reset=True)),
            number.payload.eq(delay(m, pair.word_select(lane[:1], bits), 1, "number")),
        ]

    def _writes(self, m: Module, moving: dict[Source, Any]) -> None:
        """Routes the step's source to the writer."""
        out, read = self.write_skid.i, self.read_skid.o
        sources = [
            (Source.PAYLOAD, self.payload.valid & self.payload_open, self.payload.payload),
            (Source.QUANT, self.quant.o.valid, self.quant.o.payload),
            (Source.MEAN, self.mean.o.valid, self.mean.o.payload),
            (Source.READ, read.valid, read.payload),
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
        """Routes hash-bits to the HCU: tokens' from the payload, founders' from memory."""
        read, founders = self.read_skid.o, self.step_flags[Step.FOUNDERS]
        m.d.comb += [
            self.hcu_din.payload.eq(Mux(founders, read.payload, self.payload.payload)),
            self.hcu_din.valid.eq((moving & read.valid) | (self.hashing & self.payload.valid)),
            self.hash_taken.eq(self.hashing & self.payload.valid & self.hcu_din.ready),
            self.founder_taken.eq(founders & read.valid & read.ready),
        ]

    def _payload(self, m: Module, moving: Any) -> None:
        """Routes a key and its value to the writer; keeps the key for the mean."""
        beat = Signal(range(2 * self.key_beats))
        takes = moving & self.payload_open
        taken = takes & self.payload.valid & self.write_skid.i.ready
        m.d.comb += [
            self.payload.ready.eq((takes & self.write_skid.i.ready) | (self.hashing & self.hcu_din.ready)),
            self.keys.w_data.eq(self.payload.payload),
            self.keys.w_en.eq(taken & (beat < self.key_beats)),
        ]
        m.d.sync += beat.eq(beat + taken)
        with m.If(taken & (beat == 2 * self.key_beats - 1)):
            m.d.sync += self.payload_open.eq(0)
        with m.If(self.load):
            m.d.sync += self.payload_open.eq(1)

    def _mean(self, m: Module, moving: Any) -> None:
        """Feeds the running mean: the old mean from memory, the key from the FIFO."""
        mean = self.mean
        m.d.comb += [
            mean.cmd.payload.count.eq(self.mean_cmd.payload),
            mean.cmd.payload.beats.eq(self.key_beats),
            mean.cmd.valid.eq(self.mean_cmd.valid),
            self.mean_cmd.ready.eq(mean.cmd.ready),
            mean.mean.payload.eq(self.read_skid.o.payload),
            mean.mean.valid.eq(self.read_skid.o.valid & moving),
            mean.key.payload.eq(self.keys.r_data),
            mean.key.valid.eq(self.keys.r_rdy),
            self.keys.r_en.eq(mean.key.ready),
        ]

    def _quant(self, m: Module, moving: Any) -> None:
        """Feeds the quantiser with the new mean; keeps its scale."""
        quant = self.quant
        connect(m, flipped(self.quant_cmd), quant.cmd)
        m.d.comb += [
            quant.i.payload.eq(self.read_skid.o.payload),
            quant.i.valid.eq(self.read_skid.o.valid & moving),
            quant.done.ready.eq(1),
        ]
        with m.If(quant.done.valid):
            m.d.sync += self.scale.eq(quant.done.payload)
