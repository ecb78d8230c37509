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
"""Cycles from a step's step, token and head to its addresses and sizes."""

FLAGS_OFFSET = 12
COUNTERS_BYTES = 14
FLAGS_BYTES = 2
"""The header's fields that change: clusters, segments, tokens, and from `FLAGS_OFFSET` on the flags."""

COPY_PAGES_BITS = 64
"""Pages of the codes, then of the scales, behind the header of a table with a quantised copy."""


@dataclass(frozen=True)
class Origin:
    """How an address is made: a page, counted from the table's first one or from 0, and an offset in bytes.

    An `Address` may have several, of which `condition` names one.
    """

    page: Any
    offset: Any
    condition: Any = None
    in_table: bool = True


class AddressUnit(wiring.Component):
    """Makes the requests of the step's read and write out of what the step is about.

    A pipeline without readiness: the requests follow their inputs by `PREPARE_CYCLES` cycles and stay as
    long as those do. What is read of `place` must be the token's one cycle after `token`.

    Args:
        config: the KV store.
        hcu: `hash_bits` and `chunk_tokens` matter.

    Members:
        step, at: the step, and one-hot a cycle later.
        table_page: the table's first page.
        header: of the table.
        copy_pages: pages of codes and scales; taken when valid.
        block, block_counts, block_hashes: the block of clusters, and how many counts and hashes it takes.
        token, place, slot: the token, its place (`place_layout`), and the slot in its segment.
        head: KV head.
        evicted: segment that leaves the ring.
        has_ring, first_resident: which segments were in the ring before the chunk.
        read, write: the requests; 0 bytes for none.
        reads, writes: there are bytes to read, to write.
    """

    step: Signal
    at: Signal
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
                "at": In(len(Step)),
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
        """Hardware: products by heads, a one-hot multiplexer and a sum each for read and write; sizes."""
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
        """Page and offset of every address, three cycles after what it depends on."""
        header, place = self.header, self.place
        key_shift = self.key_bytes.bit_length() - 1
        segment_shift = self.config.segment_bytes.bit_length() - 1
        token_shift = self.config.token_bytes.bit_length() - 1
        hash_shift = (self.hcu.hash_bits // 8).bit_length() - 1
        cluster = delay(m, place.cluster, 1, "cluster")
        repeated = delay(m, place.repeated, 1, "repeated")
        leaves = self.at[Step.EVICT]
        segment = delay(m, Mux(leaves, self.evicted, place.segment), 1, "segment")
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
            # A cluster that the chunk has met before has its mean in the scratch.
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
        """Rows of a matrix [clusters or tokens, heads], two cycles after the clusters or tokens."""
        by_head = delay(
            m, step_in(self.at, [step for step, row in STEPS.items() if row.by_head]), 1, "by_head"
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
            # Two products, as a multiplier block takes them.
            low, high = (delay(m, self.head * half, 1, "product") for half in (stride[:16], stride[16:]))
            before = delay(m, low + (high << 16), 1, "before")
            pages.append(delay(m, (first + before)[:PAGE_NUMBER_BITS], 1, "segment_page"))
        return pages[0], pages[1]

    def _address(
        self, m: Module, addresses: dict[Step, Address], origins: dict[Address, Sequence[Origin]]
    ) -> Any:
        """Address of the step, three cycles after the origins."""
        chosen = []
        for address, choices in origins.items():
            steps = [step for step, wanted in addresses.items() if wanted == address]
            if steps:
                at = step_in(self.at, steps)
                flags = [at if origin.condition is None else at & origin.condition for origin in choices]
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
