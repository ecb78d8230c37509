"""APPEND: takes a chunk into an HC table and a KV store in memory (model `model.dre.kvstore.Table.append`).

The founders' hash-bits stream from memory through the HCU. Its decisions give every token a place: cluster,
count, segment, slot. K and V then go to their slots while they stream in, keys also to the running mean,
whose rows are staged in memory; segments that leave the ring are copied to the host window. Until then the
table says what it said before. At last the staged rows and what changed of the other arrays are written,
token by token, and the header last.

All of it is a sequence of steps, the table `steps.STEPS`, each with at most one read and one write.
"""

from typing import Any

from amaranth import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from vrex.hw.dre import hcu as hcu_unit
from vrex.hw.dre.kvmu.append.addresses import AddressUnit
from vrex.hw.dre.kvmu.append.blocks import Blocks
from vrex.hw.dre.kvmu.append.mover import Mover
from vrex.hw.dre.kvmu.append.places import Places
from vrex.hw.dre.kvmu.append.residency import Residency
from vrex.hw.dre.kvmu.append.runner import StepRunner
from vrex.hw.dre.kvmu.append.sequencer import DONE, Sequencer, command_layout
from vrex.hw.dre.kvmu.append.steps import Step
from vrex.hw.dre.kvmu.append.words import WordSource
from vrex.hw.dre.kvmu.header import TableHeader
from vrex.hw.dre.kvmu.table import HEADER, ExactReader
from vrex.hw.lib.axi.burst import PAGE_BITS, REQUEST, beat_layout
from vrex.hw.lib.axi.writer import DONE as WRITTEN
from vrex.hw.lib.stream import BeatMemory, Packer
from vrex.model.config import HcuConfig, KvmuConfig, MeanConfig
from vrex.model.dre.kvstore import COPIES


class Append(wiring.Component):
    """Executes one APPEND after the other.

    Args:
        config: the KV store.
        hcu: of the HCU: `hash_bits` and `chunk_tokens` matter.
        mean: of the running mean.
        bus_bits: width of a beat.

    Members:
        cmd: what to append, and where.
        th_hd: Hamming threshold.
        din: the payload; what is left of it when `done` comes early is not taken.
        dout: decisions, packed into beats; none when the command fails.
        done: status and clusters opened; comes after the last beat of `dout`.
        busy: a command is in work.
        hcu_cmd, hcu_din, hcu_closed, hcu_dout, hcu_done: the other side of the ports of an `Hcu` that knows
            closed clusters.
        read, beats: a client's side of `vrex.hw.lib.axi.reader.AxiReader`.
        write, data, written: `request`, `data` and `done` of `vrex.hw.lib.axi.writer.AxiWriter`.
    """

    cmd: stream.Interface
    th_hd: Signal
    din: stream.Interface
    dout: stream.Interface
    done: stream.Interface
    busy: Signal
    hcu_cmd: stream.Interface
    hcu_din: stream.Interface
    hcu_closed: Signal
    hcu_dout: stream.Interface
    hcu_done: stream.Interface
    read: stream.Interface
    beats: stream.Interface
    write: stream.Interface
    data: stream.Interface
    written: stream.Interface

    def __init__(self, config: KvmuConfig, *, hcu: HcuConfig, mean: MeanConfig, bus_bits: int) -> None:
        super().__init__(
            {
                "cmd": In(stream.Signature(command_layout(hcu))),
                "th_hd": In(8),
                "din": In(stream.Signature(bus_bits)),
                "dout": Out(stream.Signature(bus_bits)),
                "done": Out(stream.Signature(DONE)),
                "busy": Out(1),
                "hcu_cmd": Out(stream.Signature(hcu_unit.COMMAND)),
                "hcu_din": Out(stream.Signature(bus_bits)),
                "hcu_closed": Out(hcu_unit.founders_in_a_beat(hcu, bus_bits)),
                "hcu_dout": In(stream.Signature(hcu_unit.DECISION)),
                "hcu_done": In(stream.Signature(hcu_unit.DONE)),
                "read": Out(stream.Signature(REQUEST)),
                "beats": In(stream.Signature(beat_layout(bus_bits))),
                "write": Out(stream.Signature(REQUEST)),
                "data": Out(stream.Signature(bus_bits)),
                "written": In(stream.Signature(WRITTEN)),
            }
        )
        self.sequencer = Sequencer(config, hcu=hcu, bus_bits=bus_bits)
        self.runner = StepRunner()
        self.addresses = AddressUnit(config, hcu=hcu)
        self.mover = Mover(config, mean=mean, bus_bits=bus_bits)
        self.places = Places(hcu.chunk_tokens, config.segment_tokens)
        self.residency = Residency(hcu.chunk_tokens)
        self.blocks = Blocks(hcu, bus_bits=bus_bits)
        self.words = WordSource(hcu, bus_bits=bus_bits)
        self.header = TableHeader(bus_bits, [name for name, _ in HEADER], all_heads_up_to=config.kv_heads)
        self.reader = ExactReader(bus_bits)
        # The tokens' hash-bits, for those that open clusters.
        size = max(hcu.chunk_tokens * hcu.hash_bits, bus_bits)
        self.hashes = BeatMemory(bus_bits, hcu.hash_bits, size)
        self.packer = Packer(hcu_unit.DECISION.size, bus_bits)

    def elaborate(self, platform: Any) -> Module:
        """Hardware: the sequencer and the units that execute its steps."""
        m = Module()
        m.submodules.sequencer = self.sequencer
        m.submodules.runner = self.runner
        m.submodules.addresses = self.addresses
        m.submodules.mover = self.mover
        m.submodules.places = self.places
        m.submodules.residency = self.residency
        m.submodules.blocks = self.blocks
        m.submodules.words = self.words
        m.submodules.header = self.header
        m.submodules.reader = self.reader
        m.submodules.hashes = self.hashes
        m.submodules.packer = self.packer
        self._memory(m)
        self._table(m)
        self._chunk(m)
        self._steps(m)
        self._requests(m)
        self._results(m)
        return m

    def _memory(self, m: Module) -> None:
        """Data from and to memory, and the payload."""
        mover, reader = self.mover, self.reader
        connect(m, reader.to_reader, flipped(self.read))
        connect(m, flipped(self.beats), reader.from_reader)
        connect(m, reader.o, mover.memory)
        connect(m, self.words.o, mover.word)
        connect(m, mover.write, flipped(self.data))
        connect(m, flipped(self.din), mover.payload)
        connect(m, flipped(self.written), self.runner.written)

    def _table(self, m: Module) -> None:
        """Header, blocks of clusters and resident segments of the table."""
        sequencer, header, blocks, residency = self.sequencer, self.header, self.blocks, self.residency
        connect(m, self.mover.header, header.i)
        connect(m, self.mover.counts, blocks.counts)
        m.d.comb += [
            header.kv_heads.eq(sequencer.command.kv_heads),
            header.error.eq(self.reader.error),
            sequencer.header_status.eq(header.status),
            *(unit.header.eq(header.header) for unit in (sequencer, self.addresses, self.words, blocks)),
            blocks.block.eq(sequencer.block),
            blocks.clear.eq(sequencer.idle),
            blocks.founder_taken.eq(self.mover.founder_taken),
            sequencer.last_block.eq(blocks.last_block),
            residency.before.eq(header.header.segments),
            residency.after.eq(self.places.segments),
            residency.ring_segments.eq(header.header.ring_segments),
            sequencer.has_ring.eq(residency.has_ring),
            sequencer.first_before.eq(residency.first_before),
            sequencer.first_after.eq(residency.first_after),
        ]

    def _chunk(self, m: Module) -> None:
        """Hash-bits, decisions and places of the chunk."""
        sequencer, places, hashes, mover = self.sequencer, self.places, self.hashes, self.mover
        connect(m, mover.hcu_din, flipped(self.hcu_din))
        connect(m, flipped(self.hcu_done), sequencer.hcu_done)
        connect(m, mover.count, places.count)
        connect(m, mover.tail, places.tail)
        m.d.comb += [
            self.hcu_cmd.payload.tokens.eq(sequencer.command.tokens),
            self.hcu_cmd.payload.clusters.eq(self.header.header.clusters),
            self.hcu_cmd.payload.th_hd.eq(self.th_hd),
            self.hcu_cmd.valid.eq(sequencer.hcu_start),
            sequencer.hcu_ready.eq(self.hcu_cmd.ready),
            self.hcu_closed.eq(self.blocks.hcu_closed),
            mover.hashing.eq(sequencer.hashing),
            sequencer.hash_taken.eq(mover.hash_taken),
            hashes.write_en.eq(mover.hash_taken),
            hashes.write_beat.eq(sequencer.hash_beat),
            hashes.write_data.eq(self.din.payload),
            hashes.read_row.eq(sequencer.token),
            self.hcu_dout.ready.eq(sequencer.deciding),
            sequencer.decision_valid.eq(self.hcu_dout.valid),
            places.decision.payload.eq(self.hcu_dout.payload),
            places.decision.valid.eq(self.hcu_dout.valid & sequencer.deciding),
            places.start.eq(sequencer.hcu_start),
            places.segments_before.eq(self.header.header.segments),
            places.cap_segments.eq(self.header.header.cap_segments),
            places.token.eq(sequencer.token),
            places.run.eq(sequencer.placing),
            sequencer.look_up.eq(places.look_up),
            sequencer.placed.eq(places.placed),
            sequencer.cluster_full.eq(places.cluster_full),
            sequencer.kv_full.eq(places.kv_full),
            sequencer.opened.eq(places.place.opened),
        ]

    def _steps(self, m: Module) -> None:
        """What the step concerns, to the units that execute it."""
        sequencer, addresses, words, mover = self.sequencer, self.addresses, self.words, self.mover
        connect(m, mover.copy_pages, addresses.copy_pages)
        m.d.comb += [
            addresses.step.eq(sequencer.step),
            addresses.step_flags.eq(sequencer.step_flags),
            addresses.table_page.eq(sequencer.command.address[PAGE_BITS:]),
            addresses.block.eq(sequencer.block),
            addresses.block_counts.eq(self.blocks.block_counts),
            addresses.block_hashes.eq(self.blocks.founders),
            addresses.token.eq(sequencer.token),
            addresses.place.eq(self.places.place),
            addresses.slot.eq(self.places.slot),
            addresses.head.eq(sequencer.head),
            addresses.evicted.eq(sequencer.evicted),
            addresses.has_ring.eq(self.residency.has_ring),
            addresses.first_resident.eq(self.residency.first_before),
            words.step.eq(sequencer.step),
            words.step_flags.eq(sequencer.step_flags),
            words.load.eq(self.runner.prepare),
            words.place.eq(self.places.place),
            words.slot.eq(self.places.slot),
            words.hash.eq(self.hashes.read_data),
            words.tokens.eq(sequencer.command.tokens),
            words.opened.eq(sequencer.clusters_opened),
            words.segments.eq(self.places.segments),
            words.closes.eq(self.places.closes),
            words.scale.eq(mover.scale),
            mover.step_flags.eq(sequencer.step_flags),
            mover.active.eq(self.runner.active),
            mover.load.eq(self.runner.prepare),
            mover.clear.eq(sequencer.idle),
            mover.lane.eq(addresses.read.address),
        ]

    def _requests(self, m: Module) -> None:
        """Requests of the step, and the end of its accesses."""
        sequencer, runner, addresses = self.sequencer, self.runner, self.addresses
        mover, reader = self.mover, self.reader
        issue, accepted, needed = runner.issue, runner.accepted, runner.needed
        m.d.comb += [
            needed.read.eq(addresses.reads),
            needed.write.eq(addresses.writes),
            needed.mean.eq(sequencer.step_flags[Step.MEAN]),
            needed.quant.eq(sequencer.step_flags[Step.CODES]),
            reader.request.payload.eq(addresses.read),
            reader.request.valid.eq(issue.read),
            accepted.read.eq(reader.request.ready),
            self.write.payload.eq(addresses.write),
            self.write.valid.eq(issue.write),
            accepted.write.eq(self.write.ready),
            mover.mean_cmd.payload.eq(self.places.place.count),
            mover.mean_cmd.valid.eq(issue.mean),
            accepted.mean.eq(mover.mean_cmd.ready),
            mover.quant_cmd.payload.eq((self.header.header.flags & COPIES[4]) != 0),
            mover.quant_cmd.valid.eq(issue.quant),
            accepted.quant.eq(mover.quant_cmd.ready),
            reader.clear.eq(sequencer.idle),
            runner.run.eq(sequencer.running),
            runner.clear.eq(sequencer.idle),
            runner.reading.eq(reader.busy | mover.reading),
            runner.read_error.eq(reader.error),
            sequencer.ended.eq(runner.ended),
            sequencer.error.eq(runner.error),
        ]

    def _results(self, m: Module) -> None:
        """The command, its results and its status."""
        sequencer, packer, place = self.sequencer, self.packer, self.places.place
        decision: Any = Signal(hcu_unit.DECISION)
        connect(m, flipped(self.cmd), sequencer.cmd)
        connect(m, sequencer.done, flipped(self.done))
        connect(m, packer.o, flipped(self.dout))
        m.d.comb += [
            self.busy.eq(sequencer.busy),
            *(decision[name].eq(place[name]) for name in ("cluster", "distance", "opened")),
            packer.i.payload.data.eq(decision),
            packer.i.payload.last.eq(sequencer.result.payload),
            packer.i.valid.eq(sequencer.result.valid),
            sequencer.result.ready.eq(packer.i.ready),
            sequencer.flushed.eq(~packer.o.valid),
        ]
