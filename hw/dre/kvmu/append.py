"""APPEND: takes a chunk into an HC table and a KV store in memory (model `model.dre.kvstore.Table.append`).

The founders' hash-bits stream from memory through the HCU. Its decisions give every token a place: cluster,
count, segment, slot. K and V then go to their slots while they stream in, keys also to the running mean,
whose rows are staged in memory; segments that leave the ring are copied to the host window. Until then the
table says what it said before. At last the staged rows and what changed of the other arrays are written,
token by token, and the header last.

All of it is a sequence of steps (`Step`), each with at most one read and one write whose addresses a small
pipeline computes from the step, the token and the KV head.
"""

import operator
from collections.abc import Iterable
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

from amaranth import C, Cat, Module, Mux, ResetInserter, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped

from vrex.hw.dre import hcu, mean, quant
from vrex.hw.dre.kvmu.table import HEADER, HEADER_BYTES, STATUS_BITS, ExactReader, shift_in, status_of
from vrex.hw.lib.axi.burst import ADDRESS_BITS, LENGTH_BITS, REQUEST, Error, beat_layout
from vrex.hw.lib.axi.writer import DONE as WRITTEN
from vrex.hw.lib.stream import BeatMemory, Packer, Skid, delay, reduce_tree
from vrex.model.commands import Status
from vrex.model.config import MAX_COUNT, Config
from vrex.model.dre.kvstore import CLOSED, COPIES, COUNT_BYTES, MAP_BYTES, POISONED, SCALE_BYTES, TAIL_BYTES

DONE = data.StructLayout({"status": STATUS_BITS, "opened": 9})

PREPARE_CYCLES = 6
"""Cycles from a step's token and head to its addresses."""

WORD_BITS = 128
"""Width of what is written besides keys, values and means."""

FLAGS_AT = 12
COUNTERS_BYTES = 14
"""The header's fields that change: clusters, segments, tokens, and from `FLAGS_AT` on the flags."""

BLOCK = 128
"""Clusters whose counts are read before their hashes where some cluster is closed."""


def command_layout(config: Config) -> data.StructLayout:
    """An APPEND whose payload has the right length."""
    return data.StructLayout(
        {"address": ADDRESS_BITS, "tokens": range(config.hcu.chunk_tokens + 1), "kv_heads": 32}
    )


class Step(IntEnum):
    """One access to memory, in the order of a command; from STAGED on the table changes."""

    HEADER = 0
    COPY_PAGES = 1
    CLOSED = 2
    FOUNDERS = 3
    COUNT = 4
    TAIL = 5
    TOKEN = 6
    MEAN = 7
    EVICT = 8
    STAGED = 9
    CODES = 10
    NEW_SCALE = 11
    NEW_COUNT = 12
    NEW_TAIL = 13
    NEW_MAP = 14
    NEW_HASH = 15
    COUNTERS = 16
    POISON = 17


WORDS = tuple(step for step in Step if step >= Step.NEW_SCALE)
"""Steps that write a word."""


def _any(flags: Iterable[Any]) -> Any:
    """Whether one of the bits is set."""
    return reduce_tree(list(flags), operator.or_)


def _chosen(values: Iterable[tuple[Any, Any]]) -> Any:
    """The value whose bit is set, of (bit, value), at most one of them; 0 for none."""
    return _any(Mux(flag, value, 0) for flag, value in values)


class Append(wiring.Component):
    """Executes one APPEND after the other.

    Args:
        config: accelerator.

    Members:
        cmd: what to append, and where.
        th_hd: Hamming threshold.
        din: the payload; what is left of it when `done` comes early is not taken.
        dout: decisions, packed into beats; none when the command fails.
        done: status and clusters opened; comes after the last beat of `dout`.
        busy: a command is in work.
        hcu_cmd, hcu_din, hcu_closed, hcu_dout, hcu_done: the other side of the ports of an `Hcu` that knows
            closed clusters.
        read, beats: a client's side of `vrex.hw.lib.axi.AxiReader`.
        write, data, written: `request`, `data` and `done` of `vrex.hw.lib.axi.AxiWriter`.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        bus = config.bus_bits
        kvmu = config.kvmu
        self.slice_bytes = 2 * kvmu.head_dim
        self.slice_shift = self.slice_bytes.bit_length() - 1
        self.segment_shift = kvmu.segment_bytes.bit_length() - 1
        super().__init__(
            {
                "cmd": In(stream.Signature(command_layout(config))),
                "th_hd": In(8),
                "din": In(stream.Signature(bus)),
                "dout": Out(stream.Signature(bus)),
                "done": Out(stream.Signature(DONE)),
                "busy": Out(1),
                "hcu_cmd": Out(stream.Signature(hcu.COMMAND)),
                "hcu_din": Out(stream.Signature(bus)),
                "hcu_closed": Out(hcu.founders_in_a_beat(config.hcu, config.bus_bits)),
                "hcu_dout": In(stream.Signature(hcu.DECISION)),
                "hcu_done": In(stream.Signature(hcu.DONE)),
                "read": Out(stream.Signature(REQUEST)),
                "beats": In(stream.Signature(beat_layout(bus))),
                "write": Out(stream.Signature(REQUEST)),
                "data": Out(stream.Signature(bus)),
                "written": In(stream.Signature(WRITTEN)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware."""
        m = Module()
        config = self.config
        chunk = config.hcu.chunk_tokens
        self.command = Signal(command_layout(config))
        self.header = Signal(HEADER)
        self.step = Signal(Step)
        self.token = Signal(range(chunk))
        self.head = Signal(range(config.kvmu.kv_heads))
        self.segments, self.evicted = Signal(32), Signal(32)
        # Both change many cycles before they matter.
        self.last_token = delay(m, self.token == self.command.tokens - 1, 1, "last_token")
        self.last_head = delay(m, self.head == self.header.heads - 1, 1, "last_head")
        self.status = Signal(STATUS_BITS)
        self.opened = Signal(9)
        # Of the token's cluster, before it: tokens, and the last segment.
        self.count, self.tail = Signal(16), Signal(32)
        # Of a table with a quantised copy: pages of codes and of scales; the last scale.
        self.copy_pages, self.scale = Signal(64), Signal(16)
        flags = self.header.flags
        self.copies, self.four = (flags & (COPIES[8] | COPIES[4])) != 0, (flags & COPIES[4]) != 0
        m.submodules.packer = self.packer = Packer(hcu.DECISION.size, config.bus_bits)
        connect(m, self.packer.o, flipped(self.dout))
        m.submodules.reader = self.reader = ExactReader(config.bus_bits)
        connect(m, self.reader.to_reader, flipped(self.read))
        connect(m, flipped(self.beats), self.reader.from_reader)
        # Registers between the memory's answers and who takes them.
        m.submodules.came = came = Skid(config.bus_bits)
        connect(m, self.reader.o, came.i)
        self.came = came.o
        # Registers on the way to the writer: its readiness does not reach the memory's answers.
        m.submodules.out = out = Skid(config.bus_bits)
        self.out = out.i
        connect(m, out.o, flipped(self.data))
        self._steps(m)
        self._places(m)
        self._hashes(m)
        self._blocks(m)
        self._residency(m)
        self._addresses(m)
        self._sizes(m)
        self._word(m)
        self._moves(m)
        self._control(m)
        return m

    def _steps(self, m: Module) -> None:
        """One bit a step, a cycle late; long before it decides anything."""
        self.at = {step: delay(m, self.step == step, 1, f"at_{step.name.lower()}") for step in Step}
        # The step's accesses are under way in the next cycle, so `came` and `out` may move.
        self.moves = Signal()

    def _moving(self, m: Module, *steps: Step) -> Any:
        """Whether accesses of one of these steps are under way: a register, much hangs on it."""
        return delay(m, self.moves & Cat(self.at[step] for step in steps).any(), 1, "moving", reset=True)

    def _in(self, m: Module, *steps: Step) -> Any:
        """Whether the step is one of these, two cycles late."""
        return delay(m, Cat(self.at[step] for step in steps).any(), 1, "in_step")

    def _places(self, m: Module) -> None:
        """The memory of places, `place` being the token's; `other` goes through the earlier ones."""
        chunk = self.config.hcu.chunk_tokens
        self.layout = data.StructLayout(
            {
                "cluster": 16,
                "distance": 8,
                "opened": 1,
                "count": 16,
                "segment": 32,
                "previous": range(chunk),
                "repeated": 1,
            }
        )
        m.submodules.places = places = Memory(shape=self.layout, depth=chunk, init=[])
        self.place_write, port = places.write_port(), places.read_port()
        self.place = port.data
        self.other = Signal(range(chunk))
        self.look_back = Signal()
        m.d.comb += [
            port.addr.eq(Mux(self.look_back, self.other, self.token)),
            self.place_write.addr.eq(self.token),
        ]
        self.slot = ((self.place.count - 1) & (self.config.kvmu.segment_tokens - 1))[:7]

    def _hashes(self, m: Module) -> None:
        """The tokens' hash-bits, kept for those that open clusters."""
        config = self.config
        bits = config.hcu.chunk_tokens * config.hcu.hash_bits
        size = max(bits, config.bus_bits)
        m.submodules.hashes = self.hash_memory = BeatMemory(config.bus_bits, config.hcu.hash_bits, size)
        self.hash_beat = Signal(range(size // config.bus_bits + 1))
        m.d.comb += [
            self.hash_memory.write_beat.eq(self.hash_beat),
            self.hash_memory.write_data.eq(self.din.payload),
            self.hash_memory.read_row.eq(self.token),
        ]

    def _blocks(self, m: Module) -> None:
        """Founders block by block, each behind the marks of its closed clusters; without any all at once.

        Only of the last block marks may be left from the one before: those of clusters there are none of.
        """
        header, config = self.header, self.config
        self.closing, self.closes = Signal(), Signal()
        self.block, self.last_block = Signal(16 - (BLOCK.bit_length() - 1)), Signal()
        self.founders, self.block_counts = Signal(16), Signal(range(BLOCK + 1))
        shift, last = BLOCK.bit_length() - 1, Signal(16)
        m.d.comb += self.closing.eq((header.flags & CLOSED) != 0)
        m.d.sync += [
            last.eq(header.clusters - 1),
            self.last_block.eq(~self.closing | (self.block == last >> shift)),
            self.block_counts.eq(Mux(self.last_block, last[:shift] + 1, BLOCK)),
            self.founders.eq(Mux(self.closing, self.block_counts, header.clusters)),
        ]
        self.counts_beat, self.founder_beat = Signal(8), Signal(16)
        self.marks = marks = Signal(BLOCK)
        per_beat, in_beat = (
            config.bus_bytes // COUNT_BYTES,
            hcu.founders_in_a_beat(config.hcu, config.bus_bits),
        )
        beats_of_a_hash = max(1, config.hcu.hash_bits // config.bus_bits)
        counts = [self.came.payload.word_select(i, 8 * COUNT_BYTES) for i in range(per_beat)]
        first = self.founder_beat >> (beats_of_a_hash.bit_length() - 1)
        m.d.comb += self.hcu_closed.eq(
            marks.word_select(first[: (BLOCK // in_beat).bit_length() - 1], in_beat)
        )
        taken = self.came.valid & self.came.ready
        with m.If(self._moving(m, Step.CLOSED) & self.came.valid):
            m.d.sync += [
                self.counts_beat.eq(self.counts_beat + 1),
                marks.word_select(self.counts_beat[: (BLOCK // per_beat).bit_length() - 1], per_beat).eq(
                    Cat(count == MAX_COUNT for count in counts)
                ),
            ]
        with m.If(self.at[Step.FOUNDERS] & taken):
            m.d.sync += [self.founder_beat.eq(self.founder_beat + 1), self.counts_beat.eq(0)]

    def _residency(self, m: Module) -> None:
        """First resident segment before (`resident`) and after (`resident_after`) the chunk."""
        header, spare = self.header, Signal(32)
        self.resident, self.resident_after = Signal(32), Signal(32)
        self.has_ring = Signal()
        m.d.sync += [
            spare.eq(header.ring_segments - self.config.hcu.chunk_tokens),
            self.has_ring.eq(header.ring_segments != 0),
        ]
        for first, segments in ((self.resident, header.segments), (self.resident_after, self.segments)):
            over = Signal(33, name="over")
            m.d.sync += [over.eq(segments - spare), first.eq(Mux(over[32], 0, over[:32]))]

    def _addresses(self, m: Module) -> None:
        """Addresses of the step's read and write, `PREPARE_CYCLES` after step, token and head."""
        header, place, shift, at = self.header, self.place, self.slice_shift, self.at
        hash_shift = (self.config.hcu.hash_bits // 8).bit_length() - 1
        cluster = delay(m, place.cluster, 1, "cluster")
        repeated = delay(m, place.repeated, 1, "repeated")
        segment = delay(m, Mux(at[Step.EVICT], self.evicted, place.segment), 1, "segment")
        resident = delay(m, self.has_ring & (segment >= self.resident), 1, "resident")
        by_head = self._in(m, Step.MEAN, Step.CODES, Step.NEW_SCALE)
        group, earlier, stage = (
            delay(m, delay(m, row * header.heads[:6], 1, "row")[:22] + Mux(by_head, self.head, 0), 1, "group")
            for row in (cluster, delay(m, place.previous, 1, "previous"), self.token)
        )
        # (page of the table, offset)
        means, staged = (header.means_page, group << shift), (header.stage_page, stage << shift)
        codes_page, scales_page = self.copy_pages[:32], self.copy_pages[32:]
        codes = (codes_page, Mux(self.four, group << (shift - 2), group << (shift - 1)))
        counts = (header.counts_page, cluster * COUNT_BYTES)
        tails = (header.tails_page, cluster * TAIL_BYTES)
        ring_page, host_page = self._segment_pages(m)
        ring = (ring_page, (segment & (header.ring_segments - 1)[:32]) << self.segment_shift)
        host = (host_page, segment << self.segment_shift)
        slot = self.slot << (self.config.kvmu.token_bytes.bit_length() - 1)
        in_ring, in_host = ((page, offset | slot) for page, offset in (ring, host))
        self.read_at = self._address(
            m,
            [
                (at[Step.HEADER], (0, 0)),
                (at[Step.COPY_PAGES], (0, HEADER_BYTES)),
                (at[Step.CODES] | at[Step.STAGED], staged),
                (at[Step.CLOSED], (header.counts_page, self.block * (BLOCK * COUNT_BYTES))),
                (at[Step.FOUNDERS], (1, self.block * (BLOCK * self.config.hcu.hash_bits // 8))),
                (at[Step.COUNT], counts),
                (at[Step.TAIL], tails),
                (at[Step.MEAN] & ~repeated, means),
                (at[Step.MEAN] & repeated, (header.stage_page, earlier << shift)),
                (at[Step.EVICT], ring),
            ],
            [],
        )
        self.write_at = self._address(
            m,
            [
                (at[Step.TOKEN] & resident, in_ring),
                (at[Step.MEAN], staged),
                (at[Step.STAGED], means),
                (at[Step.CODES], codes),
                (at[Step.NEW_SCALE], (scales_page, group * SCALE_BYTES)),
                (at[Step.NEW_COUNT], counts),
                (at[Step.NEW_TAIL], tails),
                (at[Step.NEW_MAP], (header.map_page, segment * MAP_BYTES)),
                (at[Step.NEW_HASH], (1, cluster << hash_shift)),
                (at[Step.COUNTERS], (0, 0)),
                (at[Step.POISON], (0, FLAGS_AT)),
            ],
            [(at[Step.TOKEN] & ~resident, in_host), (at[Step.EVICT], host)],
        )

    def _segment_pages(self, m: Module) -> tuple[Any, Any]:
        """Pages of this head's segments in the ring, from the table on, and in the host window."""
        header, pages = self.header, []
        for first, stride in (
            (header.ring_page, header.ring_stride),
            (header.host_page, header.host_stride),
        ):
            # Two products, as a multiplier block takes them.
            low, high = (delay(m, self.head * half, 1, "product") for half in (stride[:16], stride[16:]))
            before = delay(m, low + (high << 16), 1, "before")
            pages.append(delay(m, (first + before)[:36], 1, "segment_page"))
        return pages[0], pages[1]

    def _address(self, m: Module, in_table: list[Any], elsewhere: list[Any]) -> Signal:
        """Address of the step out of (page, offset) of each, the page being one of the table or not."""
        places = in_table + elsewhere
        page = delay(m, _chosen((flag, page) for flag, (page, _) in places), 1, "page")
        offset = delay(m, _chosen((flag, offset) for flag, (_, offset) in places)[:ADDRESS_BITS], 1, "offset")
        table = delay(m, Mux(_any(flag for flag, _ in in_table), self.command.address[12:], 0), 1, "table")
        first = delay(m, (table + page)[:36], 1, "first")
        return delay(m, ((first << 12) + offset)[:ADDRESS_BITS], 1, "address")

    def _sizes(self, m: Module) -> None:
        """Bytes that the step reads and writes, 0 for none."""
        header, kvmu = self.header, self.config.kvmu
        hash_bytes = self.config.hcu.hash_bits // 8
        row = header.heads[:6] * self.slice_bytes
        reads = {
            Step.HEADER: HEADER_BYTES,
            Step.COPY_PAGES: len(self.copy_pages) // 8,
            Step.CODES: self.slice_bytes,
            Step.CLOSED: self.block_counts * COUNT_BYTES,
            Step.FOUNDERS: self.founders * hash_bytes,
            Step.COUNT: COUNT_BYTES,
            Step.TAIL: TAIL_BYTES,
            Step.MEAN: Mux(self.place.count == 1, 0, self.slice_bytes),
            Step.EVICT: kvmu.segment_bytes,
            Step.STAGED: row,
        }
        writes = {
            Step.TOKEN: kvmu.token_bytes,
            Step.MEAN: self.slice_bytes,
            Step.EVICT: kvmu.segment_bytes,
            Step.STAGED: row,
            Step.CODES: Mux(self.four, self.slice_bytes // 4, self.slice_bytes // 2),
            Step.NEW_SCALE: SCALE_BYTES,
            Step.NEW_COUNT: COUNT_BYTES,
            Step.NEW_TAIL: TAIL_BYTES,
            Step.NEW_MAP: MAP_BYTES,
            Step.NEW_HASH: hash_bytes,
            Step.COUNTERS: COUNTERS_BYTES,
            Step.POISON: 2,
        }
        self.read_bytes, self.write_bytes = Signal(LENGTH_BITS), Signal(LENGTH_BITS)
        for size, sizes in ((self.read_bytes, reads), (self.write_bytes, writes)):
            m.d.sync += size.eq(0)
            with m.Switch(self.step):
                for step, value in sizes.items():
                    with m.Case(step):
                        m.d.sync += size.eq(value)

    def _word(self, m: Module) -> None:
        """What the step writes besides keys, values and means: `word`, repeated in all lanes."""
        place, header, founder = self.place, self.header, self.hash_memory.read_data
        count, fill, flags = Signal(16), Signal(16), Signal(16)
        clusters, tokens = Signal(32), Signal(32)
        m.d.sync += [
            clusters.eq(header.clusters + self.opened),
            tokens.eq(header.tokens + self.command.tokens),
            fill.eq(self.slot + 1),
            count.eq(place.count),
            flags.eq(header.flags | Mux(self.closes, CLOSED, 0)),
        ]
        words = {
            Step.NEW_SCALE: self.scale,
            Step.NEW_COUNT: count,
            Step.NEW_TAIL: place.segment,
            Step.NEW_MAP: Cat(place.cluster, fill),
            Step.NEW_HASH: founder,
            Step.COUNTERS: Cat(clusters, self.segments, tokens, flags, header.heads),
            Step.POISON: C(POISONED, 16),
        }
        lanes = {step: value.replicate(WORD_BITS // len(value)) for step, value in words.items()}
        word = delay(m, _chosen((self.at[step], value) for step, value in lanes.items()), 1, "word")
        beats = max(1, WORD_BITS // self.config.bus_bits)
        self.word_beat, self.word_left = Signal(range(max(2, beats))), Signal(range(beats + 1))
        repeated = word.replicate(max(1, self.config.bus_bits // WORD_BITS))
        self.word = repeated.word_select(self.word_beat, self.config.bus_bits)

    def _word_beats(self) -> Any:
        """Beats of the step's word, 0 if it writes none."""
        bus, hash_bits = self.config.bus_bits, self.config.hcu.hash_bits
        counters = -(-8 * COUNTERS_BYTES // bus)
        founder = Mux(self.step == Step.NEW_HASH, max(1, hash_bits // bus), 1)
        beats = Mux(self.step == Step.COUNTERS, counters, founder)
        return Mux(self.step >= WORDS[0], beats, 0)

    def _moves(self, m: Module) -> None:
        """Leads beats where the step wants them while its accesses are under way."""
        config, came = self.config, self.came
        # `token_open`: a step's key and value are not complete; the next step's must not be taken.
        self.token_open = Signal()
        m.submodules.running_mean = self.mean = mean.Mean(config.mean, bus_bits=config.bus_bits)
        m.submodules.quant = self.quant = quant.Quant(
            kvmu=config.kvmu, mean=config.mean, bus_bits=config.bus_bits
        )
        beats = self.slice_bytes // config.bus_bytes
        # One more than there are: the FIFO's output register may be empty while its memory is full.
        keys = SyncFIFOBuffered(width=config.bus_bits, depth=beats + 1)
        # A command that fails between a key and its mean leaves the key behind.
        self.forget = Signal()
        m.submodules.keys = ResetInserter(delay(m, self.forget, 1, "forget_keys"))(keys)
        token_beat = Signal(range(2 * beats))
        moving = {step: self._moving(m, step) for step in (Step.MEAN, Step.CODES, Step.FOUNDERS, Step.TOKEN)}
        m.d.comb += [
            self.mean.cmd.payload.count.eq(self.place.count),
            self.mean.cmd.payload.beats.eq(beats),
            self.mean.mean.payload.eq(came.payload),
            self.mean.mean.valid.eq(came.valid & moving[Step.MEAN]),
            self.quant.cmd.payload.eq(self.four),
            self.quant.i.payload.eq(came.payload),
            self.quant.i.valid.eq(came.valid & moving[Step.CODES]),
            self.quant.done.ready.eq(1),
            self.mean.key.payload.eq(keys.r_data),
            self.mean.key.valid.eq(keys.r_rdy),
            keys.r_en.eq(self.mean.key.ready),
            keys.w_data.eq(self.din.payload),
            self.hcu_din.payload.eq(Mux(self.at[Step.FOUNDERS], came.payload, self.din.payload)),
        ]
        with m.If(self.quant.done.valid):
            m.d.sync += self.scale.eq(self.quant.done.payload)
        self._read_to(m, moving)
        self._write_from(m, moving)
        with m.If(self._moving(m, Step.HEADER) & came.valid):
            m.d.sync += self.header.eq(shift_in(self.header, came.payload))
        self._take(m, Step.COPY_PAGES, self.copy_pages)
        self._take(m, Step.COUNT, self.count)
        self._take(m, Step.TAIL, self.tail)
        with m.If(moving[Step.FOUNDERS]):
            m.d.comb += self.hcu_din.valid.eq(came.valid)
        with m.If(moving[Step.TOKEN] & self.token_open):
            m.d.comb += self.din.ready.eq(self.out.ready)
            taken = self.din.valid & self.out.ready
            m.d.comb += keys.w_en.eq(taken & (token_beat < beats))
            m.d.sync += token_beat.eq(token_beat + taken)
            with m.If(taken & (token_beat == 2 * beats - 1)):
                m.d.sync += self.token_open.eq(0)
        with m.If(self._moving(m, *WORDS) & self.out.ready & (self.word_left != 0)):
            m.d.sync += [self.word_left.eq(self.word_left - 1), self.word_beat.eq(self.word_beat + 1)]

    def _read_to(self, m: Module, moving: dict[Step, Any]) -> None:
        """Takes what came where the step wants it."""
        numbers = self._moving(m, Step.HEADER, Step.COPY_PAGES, Step.CLOSED, Step.COUNT, Step.TAIL)
        takers = [
            (numbers, 1),
            (moving[Step.FOUNDERS], self.hcu_din.ready),
            (moving[Step.CODES], self.quant.i.ready),
            (moving[Step.MEAN], self.mean.mean.ready),
            (self._moving(m, Step.EVICT, Step.STAGED), self.out.ready),
        ]
        m.d.comb += self.came.ready.eq(_chosen(takers))

    def _write_from(self, m: Module, moving: dict[Step, Any]) -> None:
        """Leads a stream to the writer."""
        word = SimpleNamespace(valid=self.word_left != 0, payload=self.word)
        key_value = SimpleNamespace(valid=self.din.valid & self.token_open, payload=self.din.payload)
        sources = [
            (moving[Step.TOKEN], key_value),
            (moving[Step.CODES], self.quant.o),
            (moving[Step.MEAN], self.mean.o),
            (self._moving(m, Step.EVICT, Step.STAGED), self.came),
            (self._moving(m, *WORDS), word),
        ]
        m.d.comb += [
            self.out.payload.eq(_chosen((flag, source.payload) for flag, source in sources)),
            self.out.valid.eq(_chosen((flag, source.valid) for flag, source in sources)),
            self.quant.o.ready.eq(moving[Step.CODES] & self.out.ready),
            self.mean.o.ready.eq(moving[Step.MEAN] & self.out.ready),
        ]

    def _take(self, m: Module, step: Step, value: Signal) -> None:
        """Takes the step's number out of the lanes of its address, in three cycles; the step lasts longer."""
        size, bus = len(value) // 8, self.config.bus_bits
        lane = self.read_at[size.bit_length() - 1 : self.config.bus_bytes.bit_length() - 1]
        came = delay(m, self._moving(m, step) & self.came.valid, 2, "came", reset=True)
        pair = delay(m, self.came.payload.word_select(lane[1:], min(2 * len(value), bus)), 1, "pair")
        number = delay(m, pair.word_select(lane[:1], len(value)), 1, "number")
        with m.If(came):
            m.d.sync += value.eq(number)

    def _control(self, m: Module) -> None:
        """Sequence of one command."""
        prepared = Signal(range(PREPARE_CYCLES))
        read_sent, write_sent, mean_sent, quant_sent = Signal(), Signal(), Signal(), Signal()
        self.write_error, self.writing, ended = Signal(Error), Signal(), Signal()
        self.error = Mux(self.reader.error == Error.NONE, self.write_error, self.reader.error)
        reads = delay(m, self.read_bytes != 0, 1, "reads")
        writes = delay(m, self.write_bytes != 0, 1, "writes")
        means, codes = self.at[Step.MEAN], self.at[Step.CODES]
        m.d.comb += [
            self.busy.eq(1),
            self.reader.request.payload.address.eq(self.read_at),
            self.reader.request.payload.bytes.eq(self.read_bytes),
            self.write.payload.address.eq(self.write_at),
            self.write.payload.bytes.eq(self.write_bytes),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [self.busy.eq(0), self.cmd.ready.eq(1)]
                m.d.comb += [self.reader.clear.eq(1), self.forget.eq(1)]
                m.d.sync += [self.command.eq(self.cmd.payload), self.token.eq(0), self.head.eq(0)]
                m.d.sync += [self.opened.eq(0), self.status.eq(Status.OK), self.write_error.eq(Error.NONE)]
                m.d.sync += [self.step.eq(Step.HEADER), self.hash_beat.eq(0), prepared.eq(0)]
                m.d.sync += [self.block.eq(0), self.marks.eq(0), self.founder_beat.eq(0), self.closes.eq(0)]
                with m.If(self.cmd.valid):
                    m.next = "PREPARE"
            with m.State("PREPARE"):
                m.d.sync += [prepared.eq(prepared + 1), self.word_beat.eq(0)]
                # What is not asked for counts as sent.
                m.d.sync += [read_sent.eq(~reads), write_sent.eq(~writes)]
                m.d.sync += [mean_sent.eq(~means), quant_sent.eq(~codes)]
                m.d.sync += [self.writing.eq(writes), self.token_open.eq(1)]
                m.d.sync += self.word_left.eq(self._word_beats())
                with m.If(prepared == PREPARE_CYCLES - 1):
                    m.d.sync += prepared.eq(0)
                    m.next = "ISSUE"
            with m.State("ISSUE"):
                m.d.comb += [
                    self.reader.request.valid.eq(~read_sent),
                    self.write.valid.eq(~write_sent),
                    self.mean.cmd.valid.eq(~mean_sent),
                    self.quant.cmd.valid.eq(~quant_sent),
                ]
                read_done = read_sent | self.reader.request.ready
                write_done = write_sent | self.write.ready
                mean_done = mean_sent | self.mean.cmd.ready
                quant_done = quant_sent | self.quant.cmd.ready
                m.d.sync += [read_sent.eq(read_done), write_sent.eq(write_done)]
                m.d.sync += [mean_sent.eq(mean_done), quant_sent.eq(quant_done)]
                with m.If(read_done & write_done & mean_done & quant_done):
                    m.d.comb += self.moves.eq(1)
                    m.d.sync += ended.eq(0)
                    m.next = "MOVE"
            with m.State("MOVE"):
                m.d.comb += [self.written.ready.eq(1), self.moves.eq(~ended)]
                m.d.sync += ended.eq(~self.reader.busy & ~self.came.valid & ~self.writing)
                with m.If(self.written.valid):
                    m.d.sync += self.writing.eq(0)
                    with m.If(self.write_error == Error.NONE):
                        m.d.sync += self.write_error.eq(self.written.payload.error)
                with m.If(ended):
                    m.next = "NEXT"
            self._next_state(m)
            self._cluster_states(m)
            self._place_states(m)
            self._end_states(m)

    def _go(self, m: Module, step: Step) -> None:
        """Goes on with another step."""
        m.d.sync += self.step.eq(step)
        m.next = "PREPARE"

    def _fail(self, m: Module, status: Any) -> None:
        """Ends the command."""
        m.d.sync += self.status.eq(status)
        m.next = "DONE"

    def _next_state(self, m: Module) -> None:
        """What follows a step's access."""
        # The HCU must come to its end, so founders go on; what cannot be read is made up.
        self.fits = delay(m, self._heads_fit(), 1, "fits")
        goes_on = self._in(m, Step.CLOSED, Step.FOUNDERS)
        # The access has ended for more than a cycle.
        failed = delay(m, (self.error != Error.NONE) & ~goes_on, 1, "failed")
        status = delay(m, status_of(self.error), 1, "status_after")
        changes = self._in(m, *(step for step in Step if Step.STAGED <= step < Step.POISON))
        with m.State("NEXT"):
            with m.If(failed):
                self._fail(m, status)
                with m.If(changes):
                    self._go(m, Step.POISON)
            with m.Else(), m.Switch(self.step):
                with m.Case(Step.HEADER):
                    self._check_header(m)
                with m.Case(Step.COPY_PAGES):
                    m.next = "CLUSTER"
                with m.Case(Step.CLOSED):
                    self._go(m, Step.FOUNDERS)
                with m.Case(Step.FOUNDERS):
                    m.next = "DECIDE"
                    with m.If(~self.last_block):
                        m.d.sync += self.block.eq(self.block + 1)
                        self._go(m, Step.CLOSED)
                with m.Case(Step.COUNT):
                    self._go(m, Step.TAIL)
                with m.Case(Step.TAIL):
                    m.next = "PLACE"
                with m.Case(Step.TOKEN):
                    self._go(m, Step.MEAN)
                with m.Case(Step.MEAN):
                    self._next_slice(m)
                with m.Case(Step.EVICT):
                    self._next_eviction(m)
                with m.Case(Step.STAGED):
                    self._go(m, Step.NEW_COUNT)
                    with m.If(self.copies):
                        self._go(m, Step.CODES)
                with m.Case(Step.CODES):
                    self._go(m, Step.NEW_SCALE)
                with m.Case(Step.NEW_SCALE):
                    m.d.sync += self.head.eq(Mux(self.last_head, 0, self.head + 1))
                    self._go(m, Step.CODES)
                    with m.If(self.last_head):
                        self._go(m, Step.NEW_COUNT)
                with m.Case(Step.NEW_COUNT):
                    self._go(m, Step.NEW_TAIL)
                with m.Case(Step.NEW_TAIL):
                    self._go(m, Step.NEW_MAP)
                with m.Case(Step.NEW_MAP):
                    with m.If(self.place.opened):
                        self._go(m, Step.NEW_HASH)
                    with m.Else():
                        self._next_token(m)
                with m.Case(Step.NEW_HASH):
                    self._next_token(m)
                with m.Case(Step.COUNTERS):
                    m.next = "RESULT"
                with m.Case(Step.POISON):
                    m.next = "DONE"

    def _heads_fit(self) -> Any:
        """Whether the command has a bit for each of the table's KV heads, and no other."""
        return _any(
            (self.header.heads == heads) & (self.command.kv_heads == (1 << heads) - 1)
            for heads in range(1, self.config.kvmu.kv_heads + 1)
        )

    def _check_header(self, m: Module) -> None:
        """Goes on if the table can be used and holds the command's KV heads."""
        header = self.header
        m.d.sync += self.segments.eq(header.segments)
        with m.If(header.flags[0]):
            self._fail(m, Status.POISONED)
        with m.Elif(~self.fits):
            self._fail(m, Status.BAD_COUNT)
        with m.Elif(self.copies):
            self._go(m, Step.COPY_PAGES)
        with m.Else():
            m.next = "CLUSTER"

    def _next_slice(self, m: Module) -> None:
        """After a token's key and value of one head."""
        m.d.sync += self.head.eq(Mux(self.last_head, 0, self.head + 1))
        self._go(m, Step.TOKEN)
        with m.If(self.last_head):
            m.d.sync += self.token.eq(self.token + 1)
            with m.If(self.last_token):
                m.d.sync += [self.token.eq(0), self.evicted.eq(self.resident)]
                m.next = "LEAVE"

    def _next_eviction(self, m: Module) -> None:
        """After one head of a segment that leaves the ring."""
        m.d.sync += self.head.eq(Mux(self.last_head, 0, self.head + 1))
        self._go(m, Step.EVICT)
        with m.If(self.last_head):
            m.d.sync += self.evicted.eq(self.evicted + 1)
            m.next = "LEAVE"

    def _next_token(self, m: Module) -> None:
        """After all that a token changes in the table."""
        m.d.sync += self.token.eq(self.token + 1)
        self._go(m, Step.STAGED)
        with m.If(self.last_token):
            m.d.sync += self.token.eq(0)
            self._go(m, Step.COUNTERS)

    def _cluster_states(self, m: Module) -> None:
        """The tokens' hashes, and later the HCU's decisions."""
        config, command = self.config, self.command
        hash_beats = (command.tokens * config.hcu.hash_bits + config.bus_bits - 1)[
            config.bus_bits.bit_length() - 1 :
        ]
        last_beat = delay(m, hash_beats - 1, 1, "last_beat")
        m.d.comb += [
            self.hcu_cmd.payload.tokens.eq(command.tokens),
            self.hcu_cmd.payload.clusters.eq(self.header.clusters),
            self.hcu_cmd.payload.th_hd.eq(self.th_hd),
        ]
        decision, full = self.hcu_dout.payload, Signal()
        room = delay(m, self.header.cap_clusters - self.header.clusters, 1, "room")
        no_room = delay(m, self.opened > room, 1, "no_room")
        with m.State("CLUSTER"):
            m.d.comb += self.hcu_cmd.valid.eq(1)
            with m.If(self.hcu_cmd.ready):
                m.next = "HASHES"
        with m.State("HASHES"):
            m.d.comb += [self.hcu_din.valid.eq(self.din.valid), self.din.ready.eq(self.hcu_din.ready)]
            with m.If(self.din.valid & self.din.ready):
                m.d.comb += self.hash_memory.write_en.eq(1)
                m.d.sync += self.hash_beat.eq(self.hash_beat + 1)
                with m.If(self.hash_beat == last_beat):
                    self._go(m, Step.FOUNDERS)
                    with m.If(self.closing):
                        self._go(m, Step.CLOSED)
                    with m.If(self.header.clusters == 0):
                        m.next = "DECIDE"
        with m.State("DECIDE"):
            m.d.comb += [self.hcu_dout.ready.eq(1), self.hcu_done.ready.eq(1)]
            with m.If(self.hcu_dout.valid):
                m.d.comb += [
                    self.place_write.en.eq(1),
                    self.place_write.data.cluster.eq(decision.cluster),
                    self.place_write.data.distance.eq(decision.distance),
                    self.place_write.data.opened.eq(decision.opened),
                ]
                m.d.sync += self.token.eq(self.token + 1)
            with m.If(self.hcu_done.valid):
                m.d.sync += [
                    self.token.eq(0),
                    self.opened.eq(self.hcu_done.payload.opened),
                    full.eq(self.hcu_done.payload.full),
                ]
                m.next = "DECIDED"
        with m.State("DECIDED"):
            m.next = "ROOM"
        with m.State("ROOM"):
            m.next = "FIRST"
            with m.If(self.error != Error.NONE):
                self._fail(m, status_of(self.error))
            with m.Elif(full | no_room):
                self._fail(m, Status.TABLE_FULL)

    def _place_states(self, m: Module) -> None:
        """A place for each token: it follows the chunk's last token in its cluster, or the table's."""
        place, write = self.place, self.place_write.data
        now, found = Signal(self.layout), Signal()
        # The earlier token that `place` is of, and, compared with `now` a cycle later, `earlier`.
        seen = delay(m, self.other, 1, "seen")
        earlier, compared = delay(m, place, 1, "earlier"), delay(m, seen, 1, "compared")
        slot = self.count & (self.config.kvmu.segment_tokens - 1)
        # `segments` changes every few cycles only.
        limit, over = self.header.cap_segments, Signal()
        reached, exceeded = (
            delay(m, flag, 1, "segments_full") for flag in (self.segments >= limit, self.segments > limit)
        )
        with m.State("FIRST"):
            m.d.sync += [self.other.eq(0), self.look_back.eq(1)]
            m.next = "LATCH"
        with m.State("LATCH"):
            m.d.sync += [now.eq(place), self.other.eq(1), found.eq(0), self.count.eq(0)]
            m.next = "LOOK"
        with m.State("LOOK"):
            m.d.sync += self.other.eq(self.other + 1)
            with m.If((seen != 0) & (earlier.cluster == now.cluster)):
                m.d.sync += [found.eq(1), now.previous.eq(compared)]
                m.d.sync += [self.count.eq(earlier.count), self.tail.eq(earlier.segment)]
            with m.If(seen == self.token):
                m.d.sync += self.look_back.eq(0)
                m.next = "LOOKED"
        with m.State("LOOKED"):
            m.next = "PLACE"
            with m.If(~found & ~now.opened):
                self._go(m, Step.COUNT)
        with m.State("PLACE"):
            m.d.comb += [
                write.eq(now),
                write.repeated.eq(found),
                write.count.eq(self.count + 1),
                write.segment.eq(Mux(slot == 0, self.segments, self.tail)),
            ]
            m.d.sync += self.token.eq(self.token + 1)
            m.next = "FIRST"
            with m.If(self.count == MAX_COUNT):
                self._fail(m, Status.CLUSTER_FULL)
            with m.Else():
                m.d.comb += self.place_write.en.eq(1)
                m.d.sync += self.segments.eq(self.segments + (slot == 0))
                m.d.sync += over.eq(Mux(slot == 0, reached, exceeded))
                with m.If(write.count == MAX_COUNT):
                    m.d.sync += self.closes.eq(1)
                with m.If(self.last_token):
                    m.d.sync += self.token.eq(0)
                    m.next = "PLACED"
        with m.State("PLACED"):
            self._go(m, Step.TOKEN)
            with m.If(over):
                self._fail(m, Status.KV_FULL)

    def _end_states(self, m: Module) -> None:
        """Segments that leave the ring, if there are any; decisions and status."""
        decision = Signal(hcu.DECISION)
        packer = self.packer
        m.d.comb += [
            decision.cluster.eq(self.place.cluster),
            decision.distance.eq(self.place.distance),
            decision.opened.eq(self.place.opened),
            packer.i.payload.data.eq(decision),
            packer.i.payload.last.eq(self.last_token),
        ]
        left = delay(m, ~self.has_ring | (self.evicted == self.resident_after), 1, "left")
        with m.State("LEAVE"):
            m.next = "LEFT"
        with m.State("LEFT"):
            self._go(m, Step.EVICT)
            with m.If(left):
                self._go(m, Step.STAGED)
        with m.State("RESULT"):
            m.next = "DECISION"
        with m.State("DECISION"):
            m.d.comb += packer.i.valid.eq(1)
            with m.If(packer.i.ready):
                m.d.sync += self.token.eq(self.token + 1)
                m.next = "DONE"
                with m.If(~self.last_token):
                    m.next = "RESULT"
        with m.State("DONE"):
            m.d.comb += [
                self.done.valid.eq(~packer.o.valid),
                self.done.payload.status.eq(self.status),
                self.done.payload.opened.eq(Mux(self.status == Status.OK, self.opened, 0)),
            ]
            with m.If(self.done.valid & self.done.ready):
                m.next = "IDLE"
