"""The HC table and the KV store in memory, address for address (paper Section V-C).

A table lies at a page of the device window; its pages follow each other:

=========  ===========================================  ==================================================
array      an entry                                     entries
=========  ===========================================  ==================================================
header     72 bytes, see `Header`                       1, in page 0
hashes     founder's hash-bits                          `cap_clusters`, from page 1
counts     u16, tokens of the cluster                   `cap_clusters`, from `counts_page`
tails      u32, number of the cluster's last segment    `cap_clusters`, from `tails_page`
means      Key_cluster, BF16 [heads, head_dim]          `cap_clusters`, from `means_page`
map        u16 cluster, u16 fill of a segment           `cap_segments`, from `map_page`
codes      quantised copy of Key_cluster, packed codes  `cap_clusters`, from `codes_page`
           [heads, head_dim] (`vrex.model.dre.quant`)
scales     BF16 scales of the copy [heads]              `cap_clusters`, from `scales_page`
stage      as means; scratch of APPEND                  `chunk_tokens`, from `stage_page`
ring       segments of one head, `ring_stride` pages    `ring_segments`, from `ring_page`
           on those of the next head
host       as ring, in the host window                  `cap_segments`, from `host_page`
=========  ===========================================  ==================================================

A segment holds up to `segment_tokens` tokens of one cluster, K and V of one KV head, token by token. Segments
are numbered in the order in which clusters needed them, the same in all heads of the table. The youngest are
resident in the ring (segment g in slot g mod `ring_segments`), all others in the host window; `chunk_tokens`
slots of the ring stay free, so that a chunk never overwrites what its table still needs. A ring of 0 segments
leaves all of them in the host window. Tables without a quantised copy have neither codes nor scales.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from vrex.model.commands import CommandError, Status, bytes_to_hashes, hashes_to_bytes
from vrex.model.config import MAX_CLUSTERS, MAX_COUNT, Config
from vrex.model.config_rules import is_power_of_two
from vrex.model.dre import hcu, mean, quant
from vrex.model.dre.in_memory import InMemory
from vrex.model.lib.layout import Field, Layout
from vrex.model.lib.memory import PAGE, Memory

POISONED = 1
"""Flag of a header: an error came while a chunk was written, so the table does not hold together."""

CLOSED = 2
"""Flag of a header: some cluster is closed, so APPEND must look at the counts."""

COPIES = {16: 0, 8: 4, 4: 8}
"""Flags of a header by bits of a mean as scores read it: the table has a quantised copy of its means."""

COUNT_BYTES = 2
TAIL_BYTES = 4
MAP_BYTES = 4
SCALE_BYTES = 2
HEADER = Layout(
    "HEADER",
    (
        Field("clusters", 32, "clusters in use"),
        Field("segments", 32, "segments in use"),
        Field("tokens", 32, "tokens in use"),
        Field("flags", 16, "`POISONED` (bit 0), `CLOSED` (bit 1), and one of `COPIES` (bits 2 and 3)"),
        Field("heads", 16, "KV heads of the table"),
        Field("cap_clusters", 32, "clusters that fit"),
        Field("cap_segments", 32, "segments that fit"),
        Field("ring_segments", 32, "slots of the ring: a power of two >= 2 * chunk_tokens, or 0"),
        Field("counts_page", 32, "page of the array `counts`, from the table's first page"),
        Field("tails_page", 32, "of `tails`"),
        Field("means_page", 32, "of `means`"),
        Field("map_page", 32, "of `map`"),
        Field("stage_page", 32, "of `stage`"),
        Field("ring_page", 32, "of `ring`"),
        Field("ring_stride", 32, "pages between two heads' rings"),
        Field("host_page", 32, "number of the host segments' first page"),
        Field("host_stride", 32, "pages between two heads' host segments"),
    ),
)
"""What every command reads of a header: 64 bytes."""

COPY_PAGES = Layout(
    "COPY_PAGES",
    (
        Field(
            "codes_page", 32, "page of the array `codes`, from the table's first page; 0: no quantised copy"
        ),
        Field("scales_page", 32, "of `scales`; 0: no quantised copy"),
    ),
)
"""What follows: APPEND reads it if there is a quantised copy."""

HEADER_BYTES = HEADER.size + COPY_PAGES.size


@dataclass(frozen=True)
class Header:
    """First bytes of a table: the fields of `HEADER` and `COPY_PAGES`.

    The engine changes the three counters in front and the flags; the host writes the rest once.
    """

    clusters: int
    segments: int
    tokens: int
    flags: int
    heads: int
    cap_clusters: int
    cap_segments: int
    ring_segments: int
    counts_page: int
    tails_page: int
    means_page: int
    map_page: int
    stage_page: int
    ring_page: int
    ring_stride: int
    host_page: int
    host_stride: int
    codes_page: int = 0
    scales_page: int = 0

    def pack(self) -> bytes:
        """`HEADER_BYTES` bytes, little-endian."""
        return HEADER.pack(vars(self)) + COPY_PAGES.pack(vars(self))

    @classmethod
    def unpack(cls, data: bytes) -> "Header":
        """Inverse of `pack`."""
        return cls(**HEADER.unpack(data[: HEADER.size]), **COPY_PAGES.unpack(data[HEADER.size :]))

    @property
    def mean_bits(self) -> int:
        """Bits of a mean as scores read it: 16, or those of the quantised copy."""
        return next((bits for bits, flag in COPIES.items() if self.flags & flag), 16)

    def first_resident(self, chunk_tokens: int) -> int:
        """Number of the oldest segment in the ring; no segment has so high a number where there is none."""
        if self.ring_segments == 0:
            return 1 << 32
        return max(0, self.segments - (self.ring_segments - chunk_tokens))


def _pages(size: int) -> int:
    return -(-size // PAGE)


@dataclass(frozen=True)
class Plan:
    """Where a new table goes.

    Attributes:
        header: of the empty table.
        device_pages: pages of the device window from the table's first one.
        host_pages: pages of the host window from `header.host_page`.
    """

    header: Header
    device_pages: int
    host_pages: int


def copy_bytes(config: Config, heads: int, mean_bits: int) -> tuple[int, int]:
    """Bytes of a cluster's codes and scales in a table of so many KV heads; 0 for 16 bits."""
    if mean_bits == 16:
        return 0, 0
    return heads * config.kvmu.head_dim * mean_bits // 8, heads * SCALE_BYTES


def plan(
    config: Config,
    heads: int,
    cap_clusters: int,
    cap_segments: int,
    ring_segments: int,
    host_page: int,
    mean_bits: int = 16,
) -> Plan:
    """Lays out an empty table.

    Args:
        config: accelerator.
        heads: KV heads of the table, 1..kv_heads.
        cap_clusters: 1..65535.
        cap_segments: >= 1.
        ring_segments: see `Header`.
        host_page: first page of its segments in the host window.
        mean_bits: 8 or 4 for a quantised copy of the means, 16 for none.

    Raises:
        ValueError: a size that the engine cannot use.
    """
    kvmu, chunk = config.kvmu, config.hcu.chunk_tokens
    if not 1 <= heads <= kvmu.kv_heads:
        raise ValueError(f"a table holds 1 to {kvmu.kv_heads} KV heads, not {heads}")
    if not 1 <= cap_clusters <= MAX_CLUSTERS:
        raise ValueError(f"a table has room for 1 to {MAX_CLUSTERS} clusters, not {cap_clusters}")
    if not 1 <= cap_segments < 1 << 32:
        raise ValueError(f"a table has room for 1 to 2^32 - 1 segments, not {cap_segments}")
    if ring_segments and not (is_power_of_two(ring_segments) and ring_segments >= 2 * chunk):
        raise ValueError(f"a ring is 0 or a power of two from {2 * chunk} segments on, not {ring_segments}")
    row = 2 * heads * kvmu.head_dim
    entry_bytes = [config.hcu.hash_bits // 8, COUNT_BYTES, TAIL_BYTES, row]
    sizes = [cap_clusters * size for size in entry_bytes] + [cap_segments * MAP_BYTES, chunk * row]
    sizes += [cap_clusters * size for size in copy_bytes(config, heads, mean_bits)]
    starts = [1]
    for size in sizes:
        starts.append(starts[-1] + _pages(size))
    ring_stride, host_stride = (_pages(n * kvmu.segment_bytes) for n in (ring_segments, cap_segments))
    counts, tails, means, segment_map, stage, codes, scales, ring = starts[1:]
    header = Header(
        clusters=0,
        segments=0,
        tokens=0,
        flags=COPIES[mean_bits],
        heads=heads,
        cap_clusters=cap_clusters,
        cap_segments=cap_segments,
        ring_segments=ring_segments,
        counts_page=counts,
        tails_page=tails,
        means_page=means,
        map_page=segment_map,
        stage_page=stage,
        ring_page=ring,
        ring_stride=ring_stride,
        host_page=host_page,
        host_stride=host_stride,
        codes_page=codes if mean_bits < 16 else 0,
        scales_page=scales if mean_bits < 16 else 0,
    )
    return Plan(header, ring + heads * ring_stride, heads * host_stride)


@dataclass(frozen=True)
class Place:
    """Where one token of a chunk goes.

    Attributes:
        cluster: index.
        count: tokens of the cluster, this one included.
        segment: number.
        slot: position in the segment.
        previous: earlier token of the chunk in the same cluster, -1 if there is none.
        opened: it founds the cluster.
    """

    cluster: int
    count: int
    segment: int
    slot: int
    previous: int
    opened: bool


class Table(InMemory):
    """The table at an address, for one command.

    Attributes:
        header: as the command found it.
    """

    def __init__(self, config: Config, memory: Memory, address: int) -> None:
        """Reads the header.

        Raises:
            CommandError: BAD_ADDRESS or POISONED.
        """
        super().__init__(config, memory, address)
        self.header = Header.unpack(self._view(address, HEADER_BYTES).tobytes())
        if self.header.flags & POISONED:
            raise CommandError(Status.POISONED)

    def hashes(self) -> np.ndarray:
        """Founders' hash words, uint32 [clusters, words]."""
        n, size = self.header.clusters, self.config.hcu.hash_bits // 8
        return bytes_to_hashes(self.config, self._view(self.address + PAGE, n * size).tobytes(), n)

    def counts(self) -> np.ndarray:
        """Tokens of each cluster, uint16 [clusters]; a view."""
        return self._array(self.header.counts_page, self.header.clusters * COUNT_BYTES, "<u2")

    def means(self) -> np.ndarray:
        """Key_cluster, BF16 bits uint16 [clusters, heads, head_dim]; a view."""
        header = self.header
        shape = (header.clusters, header.heads, self.config.kvmu.head_dim)
        return self._array(header.means_page, 2 * int(np.prod(shape)), "<u2").reshape(shape)

    def codes(self) -> np.ndarray:
        """Packed codes of the quantised copy, uint8 [clusters, heads, head_dim * mean_bits / 8]; a view."""
        header = self.header
        size, _ = copy_bytes(self.config, header.heads, header.mean_bits)
        raw = self._array(header.codes_page, header.clusters * size, "u1")
        return raw.reshape(header.clusters, header.heads, size // header.heads)

    def scales(self) -> np.ndarray:
        """Scales of the quantised copy, BF16 bits uint16 [clusters, heads]; a view."""
        header = self.header
        raw = self._array(header.scales_page, header.clusters * header.heads * SCALE_BYTES, "<u2")
        return raw.reshape(header.clusters, header.heads)

    def score_means(self) -> np.ndarray:
        """Key_cluster as scores read it: the means, or what their quantised copy stands for; as `means`."""
        bits = self.header.mean_bits
        if bits == 16:
            return self.means()
        return quant.dequantise(quant.unpack(self.codes(), bits), self.scales())

    def map(self) -> np.ndarray:
        """Segment map, uint16 [segments, 2]: cluster and fill; a view."""
        return self._array(self.header.map_page, self.header.segments * MAP_BYTES, "<u2").reshape(-1, 2)

    def cluster_arrays(self) -> list[tuple[int, int]]:
        """First byte, and bytes of an entry, of each array with an entry a cluster."""
        config, header = self.config, self.header
        pages = [1, header.counts_page, header.tails_page, header.means_page]
        row = 2 * header.heads * config.kvmu.head_dim
        sizes = [config.hcu.hash_bits // 8, COUNT_BYTES, TAIL_BYTES, row]
        if header.mean_bits < 16:
            pages += [header.codes_page, header.scales_page]
            sizes += copy_bytes(config, header.heads, header.mean_bits)
        return [(self._at(page), size) for page, size in zip(pages, sizes, strict=True)]

    def spans(self) -> list[tuple[int, int]]:
        """Address and size of all that an APPEND changes: the header and each array in use, not K and V."""
        header = self.header
        arrays = [(first, header.clusters * size) for first, size in self.cluster_arrays()]
        segment_map = self._at(header.map_page), header.segments * MAP_BYTES
        return [(self.address, HEADER_BYTES), *arrays, segment_map]

    def place(self, decisions: hcu.Clustering) -> list[Place]:
        """Places of a chunk's tokens.

        Raises:
            CommandError: TABLE_FULL, KV_FULL, or CLUSTER_FULL where the chunk has more tokens for a cluster
                than it has room for.
        """
        header, per_segment = self.header, self.config.kvmu.segment_tokens
        if header.clusters + int(decisions.opened.sum()) > header.cap_clusters:
            raise CommandError(Status.TABLE_FULL)
        places: list[Place] = []
        latest: dict[int, int] = {}
        segments = header.segments
        for token, (cluster, opened) in enumerate(zip(decisions.cluster, decisions.opened, strict=True)):
            previous = latest.get(int(cluster), -1)
            if previous >= 0:
                count, segment = places[previous].count, places[previous].segment
            elif opened:
                count, segment = 0, 0
            else:
                count, segment = int(self.counts()[cluster]), self._tail(int(cluster))
            if count == MAX_COUNT:
                raise CommandError(Status.CLUSTER_FULL)
            slot = count % per_segment
            if slot == 0:
                segment, segments = segments, segments + 1
            places.append(Place(int(cluster), count + 1, segment, slot, previous, bool(opened)))
            latest[int(cluster)] = token
        if segments > header.cap_segments:
            raise CommandError(Status.KV_FULL)
        return places

    def append(self, hashes: np.ndarray, keys: np.ndarray, values: np.ndarray, th_hd: int) -> hcu.Clustering:
        """Clusters a chunk and takes its keys and values in; an error leaves the table as it was.

        A cluster of `MAX_COUNT` tokens is closed to the chunks that come after it.

        Args:
            hashes: hash words, uint32 [n, words].
            keys: BF16 bits, uint16 [n, heads, head_dim], RoPE applied.
            values: as `keys`.
            th_hd: Hamming threshold.

        Raises:
            CommandError: see `place`; BAD_ADDRESS when the table leaves the windows.
        """
        try:
            decisions = hcu.cluster(hashes, self.hashes(), th_hd, self._closed())
        except hcu.TableFullError:
            raise CommandError(Status.TABLE_FULL) from None
        places = self.place(decisions)
        self._write_tokens(places, keys, values)
        self._stage_means(places, keys)
        after = self._after(places)
        self._evict(after)
        self._commit(places, hashes, after)
        return decisions

    def fetch(self, head: int, mask: np.ndarray) -> Iterator[np.ndarray]:
        """K and V of the selected clusters, segment by segment in the order of the map.

        Args:
            head: KV head of the table.
            mask: bool [C]; clusters behind it are not selected.

        Yields:
            uint8 [fill * token_bytes].
        """
        first = self.header.first_resident(self.config.hcu.chunk_tokens)
        selected = np.zeros(MAX_CLUSTERS + 1, dtype=bool)
        selected[: len(mask)] = mask
        entries = self.map()
        for segment in np.flatnonzero(selected[entries[:, 0]]):
            size = int(entries[segment, 1]) * self.config.kvmu.token_bytes
            yield self._view(self.segment_address(int(segment), head, first), size)

    def segment_address(self, segment: int, head: int, first_resident: int) -> int:
        """First byte of a segment, in the ring or in the host window."""
        header, size = self.header, self.config.kvmu.segment_bytes
        if segment >= first_resident:
            slot = segment % header.ring_segments
            return self._at(header.ring_page + head * header.ring_stride) + slot * size
        return (header.host_page + head * header.host_stride) * PAGE + segment * size

    def _write_tokens(self, places: list[Place], keys: np.ndarray, values: np.ndarray) -> None:
        """K and V into their slots, which nothing reads before the commit."""
        kvmu, first = self.config.kvmu, self.header.first_resident(self.config.hcu.chunk_tokens)
        for token, place in enumerate(places):
            for head in range(self.header.heads):
                at = self.segment_address(place.segment, head, first) + place.slot * kvmu.token_bytes
                both = np.concatenate([keys[token, head], values[token, head]]).astype("<u2")
                self._view(at, kvmu.token_bytes)[:] = both.view(np.uint8)

    def _stage_means(self, places: list[Place], keys: np.ndarray) -> None:
        """New means into the scratch, one row a token."""
        means = self.means()
        for token, place in enumerate(places):
            key = keys[token].reshape(1, -1)
            old = key
            if place.previous >= 0:
                old = self._stage_row(place.previous)[None]
            elif not place.opened:
                old = means[place.cluster].reshape(1, -1)
            count, dithered = np.array([place.count]), self.config.mean.dithered
            self._stage_row(token)[:] = mean.update(old, key, count, dithered=dithered)[0]

    def _after(self, places: list[Place]) -> Header:
        """The header once the chunk is in."""
        header = self.header
        return replace(
            header,
            clusters=header.clusters + sum(place.opened for place in places),
            segments=header.segments + sum(place.slot == 0 for place in places),
            tokens=header.tokens + len(places),
            flags=header.flags | (CLOSED if any(place.count == MAX_COUNT for place in places) else 0),
        )

    def _evict(self, after: Header) -> None:
        """Copies the segments that leave the ring into the host window, whole."""
        chunk, size = self.config.hcu.chunk_tokens, self.config.kvmu.segment_bytes
        first = self.header.first_resident(chunk)
        if after.ring_segments == 0:
            return
        for segment in range(first, after.first_resident(chunk)):
            for head in range(after.heads):
                source = self._view(self.segment_address(segment, head, first), size)
                self._view(self.segment_address(segment, head, segment + 1), size)[:] = source

    def _commit(self, places: list[Place], hashes: np.ndarray, after: Header) -> None:
        """Everything that changes what the table says; the header last."""
        header, size = self.header, self.config.hcu.hash_bits // 8
        row = 2 * header.heads * self.config.kvmu.head_dim
        raw = hashes_to_bytes(self.config, hashes)
        for token, place in enumerate(places):
            c = place.cluster
            self._write(self._at(header.means_page) + c * row, self._stage_row(token).tobytes())
            if header.mean_bits < 16:
                self._write_copy(c, self._stage_row(token))
            self._write(self._at(header.counts_page) + c * COUNT_BYTES, struct.pack("<H", place.count))
            self._write(self._at(header.tails_page) + c * TAIL_BYTES, struct.pack("<I", place.segment))
            entry = struct.pack("<HH", c, place.slot + 1)
            self._write(self._at(header.map_page) + place.segment * MAP_BYTES, entry)
            if place.opened:
                self._write(self.address + PAGE + c * size, raw[token * size : (token + 1) * size])
        self._write(self.address, after.pack())

    def _write_copy(self, cluster: int, mean: np.ndarray) -> None:
        """The quantised copy of a mean, uint16 [heads * head_dim]."""
        header, bits = self.header, self.header.mean_bits
        codes, scales = quant.quantise(mean.reshape(header.heads, -1), bits)
        parts = quant.pack(codes, bits).tobytes(), scales.astype("<u2").tobytes()
        pages = header.codes_page, header.scales_page
        for page, part in zip(pages, parts, strict=True):
            self._write(self._at(page) + cluster * len(part), part)

    def _closed(self) -> np.ndarray | None:
        """Which clusters are closed, bool [clusters]; None where the header says that none is."""
        return self.counts() == MAX_COUNT if self.header.flags & CLOSED else None

    def _tail(self, cluster: int) -> int:
        at = self._at(self.header.tails_page) + cluster * TAIL_BYTES
        return int(self._view(at, TAIL_BYTES).view("<u4")[0])

    def _stage_row(self, token: int) -> np.ndarray:
        """Scratch of one token, uint16 [heads * head_dim]; a view."""
        row = 2 * self.header.heads * self.config.kvmu.head_dim
        return self._view(self._at(self.header.stage_page) + token * row, row).view("<u2")

    def _array(self, page: int, size: int, dtype: str) -> np.ndarray:
        return self._view(self._at(page), size).view(dtype)
