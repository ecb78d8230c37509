"""Addresses and sizes of a step's accesses."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from vrex.hw.dre.kvmu.append.blocks import BLOCK_CLUSTERS
from vrex.hw.dre.kvmu.append.onehot import any_of, select
from vrex.hw.dre.kvmu.append.places import SLOT_BITS, place_layout
from vrex.hw.dre.kvmu.append.steps import STEPS, Address, Size, Step, step_in
from vrex.hw.dre.kvmu.table import HEADER, HEADER_BYTES
from vrex.hw.lib.axi.burst import ADDRESS_BITS, LENGTH_BITS, PAGE_BITS, PAGE_NUMBER_BITS, REQUEST
from vrex.hw.lib.stream import delay
from vrex.model.config import HcuConfig, KvmuConfig
from vrex.model.dre.kvstore import COPIES, COUNT_BYTES, MAP_BYTES, SCALE_BYTES, TAIL_BYTES

PREPARE_CYCLES = 6
"""Cycles from a change of step, token or KV head to valid requests."""

FLAGS_BYTES = HEADER["flags"].width // 8
FLAGS_OFFSET = HEADER["flags"].offset // 8
COUNTERS_BYTES = FLAGS_OFFSET + FLAGS_BYTES
"""The header's fields that change: clusters, segments, tokens and flags, its first ones."""

COPY_PAGES_BITS = 64
"""Pages of the codes, then of the scales, behind the header of a table with a quantised copy."""


@dataclass(frozen=True)
class Origin:
    """One way to form an address: a page, relative to the table's first or absolute, and an offset in bytes.

    Where an `Address` has several, their conditions exclude each other.
    """

    page: Any
    offset: Any
    condition: Any = None
    in_table: bool = True


class AddressUnit(wiring.Component):
    """Computes address and size of the step's read and write.

    A free-running pipeline: the requests are valid `PREPARE_CYCLES` cycles after the last change of their
    inputs; `place` may follow `token` by one cycle.

    Args:
        config: the KV store.
        hcu: `hash_bits` and `chunk_tokens` matter.

    Members:
        step, step_flags: the step, and one-hot a cycle later.
        table_page: the table's first page.
        header: of the table.
        copy_pages: pages of codes and scales; stored when valid.
        block, block_counts, block_hashes: block of clusters, and number of its counts and hashes to read.
        token, place, slot: the token, its place (`place_layout`), and the place's slot in its segment.
        head: KV head.
        evicted: segment that is copied to the host window.
        has_ring, first_resident: whether the table has a ring, and its oldest segment before the chunk.
        read, write: the requests; 0 bytes where the step has none.
        reads, writes: the step has a read, a write; registered.
    """

    step: Signal
    step_flags: Signal
    table_page: Signal
    header: Any
    copy_pages: stream.Interface
    block: Signal
    block_counts: Signal
    block_hashes: Signal
    token: Signal
    place: Any
    slot: Signal
    head: Signal
    evicted: Signal
    has_ring: Signal
    first_resident: Signal
    read: Any
    write: Any
    reads: Signal
    writes: Signal

    def __init__(self, config: KvmuConfig, *, hcu: HcuConfig) -> None:
        self.config, self.hcu = config, hcu
        self.key_bytes = 2 * config.head_dim
        self.pages = Signal(COPY_PAGES_BITS)
        super().__init__(
            {
                "step": In(Step),
                "step_flags": In(len(Step)),
                "table_page": In(PAGE_NUMBER_BITS),
                "header": In(HEADER),
                "copy_pages": In(stream.Signature(COPY_PAGES_BITS, always_ready=True)),
                "block": In(range(-(-(1 << 16) // BLOCK_CLUSTERS))),
                "block_counts": In(range(BLOCK_CLUSTERS + 1)),
                "block_hashes": In(16),
                "token": In(range(hcu.chunk_tokens)),
                "place": In(place_layout(hcu.chunk_tokens)),
                "slot": In(SLOT_BITS),
                "head": In(range(config.kv_heads)),
                "evicted": In(32),
                "has_ring": In(1),
                "first_resident": In(32),
                "read": Out(REQUEST),
                "write": Out(REQUEST),
                "reads": Out(1),
                "writes": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware: multipliers by KV heads; a one-hot multiplexer and an adder each for read and write."""
        m = Module()
        with m.If(self.copy_pages.valid):
            m.d.sync += self.pages.eq(self.copy_pages.payload)
        origins = self._origins(m)
        reads = {step: row.read for step, row in STEPS.items() if row.read is not None}
        writes = {step: row.write for step, row in STEPS.items() if row.write is not None}
        sizes = self._sizes()
        for request, accesses in ((self.read, reads), (self.write, writes)):
            m.d.comb += request.address.eq(
                self._address(m, {step: access.address for step, access in accesses.items()}, origins)
            )
            size = Signal(LENGTH_BITS, name="size")
            m.d.comb += request.bytes.eq(size)
            m.d.sync += size.eq(0)
            with m.Switch(self.step):
                for step, access in accesses.items():
                    with m.Case(step):
                        m.d.sync += size.eq(sizes[access.bytes])
        m.d.comb += [
            self.reads.eq(delay(m, self.read.bytes != 0, 1, "reads")),
            self.writes.eq(delay(m, self.write.bytes != 0, 1, "writes")),
        ]
        return m

    def _origins(self, m: Module) -> dict[Address, Sequence[Origin]]:
        """Page and offset of every address; `_address` registers them."""
        header, place = self.header, self.place
        key_shift = self.key_bytes.bit_length() - 1
        segment_shift = self.config.segment_bytes.bit_length() - 1
        token_shift = self.config.token_bytes.bit_length() - 1
        hash_shift = (self.hcu.hash_bits // 8).bit_length() - 1
        cluster = delay(m, place.cluster, 1, "cluster")
        repeated = delay(m, place.repeated, 1, "repeated")
        evicts = self.step_flags[Step.EVICT]
        segment = delay(m, Mux(evicts, self.evicted, place.segment), 1, "segment")
        resident = delay(m, self.has_ring & (segment >= self.first_resident), 1, "resident")
        previous = delay(m, place.previous, 1, "previous")
        group, before, stage = self._rows(m, cluster, previous, self.token)
        codes_page, scales_page = self.pages[:32], self.pages[32:]
        four = (header.flags & COPIES[4]) != 0
        ring_page, host_page = self._segment_pages(m)
        ring = (segment & (header.ring_segments - 1)[:32]) << segment_shift
        host = segment << segment_shift
        slot = self.slot << token_shift
        counts_in_block, hashes_in_block = BLOCK_CLUSTERS * COUNT_BYTES, BLOCK_CLUSTERS << hash_shift
        return {
            Address.HEADER: [Origin(0, 0)],
            Address.COPY_PAGES: [Origin(0, HEADER_BYTES)],
            Address.FLAGS: [Origin(0, FLAGS_OFFSET)],
            Address.BLOCK_COUNTS: [Origin(header.counts_page, self.block * counts_in_block)],
            Address.BLOCK_HASHES: [Origin(1, self.block * hashes_in_block)],
            Address.COUNT: [Origin(header.counts_page, cluster * COUNT_BYTES)],
            Address.TAIL: [Origin(header.tails_page, cluster * TAIL_BYTES)],
            Address.HASH: [Origin(1, cluster << hash_shift)],
            Address.MEANS: [Origin(header.means_page, group << key_shift)],
            # The mean of a cluster that an earlier token of the chunk updated is in the scratch.
            Address.MEAN_BEFORE: [
                Origin(header.means_page, group << key_shift, ~repeated),
                Origin(header.stage_page, before << key_shift, repeated),
            ],
            Address.STAGED: [Origin(header.stage_page, stage << key_shift)],
            Address.CODES: [
                Origin(codes_page, Mux(four, group << (key_shift - 2), group << (key_shift - 1)))
            ],
            Address.SCALE: [Origin(scales_page, group * SCALE_BYTES)],
            Address.MAP: [Origin(header.map_page, segment * MAP_BYTES)],
            Address.SLOT: [
                Origin(ring_page, ring | slot, resident),
                Origin(host_page, host | slot, ~resident, in_table=False),
            ],
            Address.RING_SEGMENT: [Origin(ring_page, ring)],
            Address.HOST_SEGMENT: [Origin(host_page, host, in_table=False)],
        }

    def _rows(self, m: Module, *indices: Any) -> list[Any]:
        """Row numbers in arrays [index, KV heads], two cycles after the indices."""
        by_head = delay(
            m, step_in(self.step_flags, [step for step, row in STEPS.items() if row.by_head]), 1, "by_head"
        )
        first = [delay(m, index * self.header.heads[:6], 1, "row")[:22] for index in indices]
        return [delay(m, row + Mux(by_head, self.head, 0), 1, "group") for row in first]

    def _segment_pages(self, m: Module) -> tuple[Any, Any]:
        """Pages of this head's segments in the ring, from the table on, and in the host window."""
        header, pages = self.header, []
        for first, stride in (
            (header.ring_page, header.ring_stride),
            (header.host_page, header.host_stride),
        ):
            # Two products of 16 bits, one multiplier block each.
            low, high = (delay(m, self.head * half, 1, "product") for half in (stride[:16], stride[16:]))
            before = delay(m, low + (high << 16), 1, "before")
            pages.append(delay(m, (first + before)[:PAGE_NUMBER_BITS], 1, "segment_page"))
        return pages[0], pages[1]

    def _address(
        self, m: Module, addresses: dict[Step, Address], origins: dict[Address, Sequence[Origin]]
    ) -> Any:
        """The step's address: three cycles after a page, two after an offset."""
        chosen: list[tuple[Any, Any]] = []
        for address, choices in origins.items():
            steps = [step for step, wanted in addresses.items() if wanted == address]
            if steps:
                accessed = step_in(self.step_flags, steps)
                flags = [
                    accessed if origin.condition is None else accessed & origin.condition
                    for origin in choices
                ]
                chosen += zip(flags, choices, strict=True)
        page = delay(m, select((flag, origin.page) for flag, origin in chosen), 1, "page")
        offset = select((flag, origin.offset) for flag, origin in chosen)[:ADDRESS_BITS]
        offset = delay(m, offset, 1, "offset")
        in_table = any_of(flag for flag, origin in chosen if origin.in_table)
        table = delay(m, Mux(in_table, self.table_page, 0), 1, "table")
        first = delay(m, (table + page)[:PAGE_NUMBER_BITS], 1, "first")
        return delay(m, ((first << PAGE_BITS) + offset)[:ADDRESS_BITS], 1, "address")

    def _sizes(self) -> dict[Size, Any]:
        """Bytes of every size."""
        four = (self.header.flags & COPIES[4]) != 0
        hash_bytes = self.hcu.hash_bits // 8
        return {
            Size.HEADER: HEADER_BYTES,
            Size.COPY_PAGES: COPY_PAGES_BITS // 8,
            Size.COUNTERS: COUNTERS_BYTES,
            Size.FLAGS: FLAGS_BYTES,
            Size.BLOCK_COUNTS: self.block_counts * COUNT_BYTES,
            Size.BLOCK_HASHES: self.block_hashes * hash_bytes,
            Size.COUNT: COUNT_BYTES,
            Size.TAIL: TAIL_BYTES,
            Size.HASH: hash_bytes,
            Size.KEY: self.key_bytes,
            # A cluster's first key has no mean before it.
            Size.KEY_BEFORE: Mux(self.place.count == 1, 0, self.key_bytes),
            Size.KEYS_OF_ALL_HEADS: self.header.heads[:6] * self.key_bytes,
            Size.CODES: Mux(four, self.key_bytes // 4, self.key_bytes // 2),
            Size.SCALE: SCALE_BYTES,
            Size.MAP: MAP_BYTES,
            Size.KEY_AND_VALUE: self.config.token_bytes,
            Size.SEGMENT: self.config.segment_bytes,
        }
