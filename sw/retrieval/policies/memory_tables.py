"""HC tables, keys and values in the memory of a DRE: `--offload dre`."""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from vrex.errors import UserError
from vrex.model.config import MAX_CLUSTERS, MAX_COUNT, Config
from vrex.model.dre.kvstore import COPY_PAGES, COUNT_BYTES, HEADER, MAP_BYTES, TAIL_BYTES, copy_bytes
from vrex.sw.driver.command_interface import CommandTransport
from vrex.sw.driver.dre import AppendRequest, Capacity, DreEngine, MemoryLayout, RetrieveRequest
from vrex.sw.driver.products import Products
from vrex.sw.driver.transport import DriverError
from vrex.sw.retrieval.policies.account import BF16_BYTES
from vrex.sw.retrieval.policies.base import Chunk, Delivered
from vrex.sw.retrieval.policies.resident import Resident, bf16_of
from vrex.sw.retrieval.policies.resv_settings import ResvSettings
from vrex.sw.retrieval.policies.shape import Shape
from vrex.sw.retrieval.policies.tables import Group, Selection, check_accelerator, groups

RING_CHUNKS = 4
"""Segments of a default ring, in chunks; one chunk's worth of them stays free."""

COUNTER_RANGE = 1 << 32


def fitted(config: Config, settings: ResvSettings, shape: Shape, segment_tokens: int | None = None) -> Config:
    """An accelerator's configuration for a decoder whose tables are in its memory.

    Args:
        config: accelerator.
        settings: of the policy.
        shape: of the decoder.
        segment_tokens: tokens of a segment, if not the accelerator's own.

    Raises:
        UserError: a DRE can't serve such a decoder or such settings, or have such segments.
    """
    if settings.predict == "reuse":
        raise UserError(
            "predict reuse takes another layer's tokens, but a DRE delivers by its own table; "
            "choose predict same or next, or offload kvpu"
        )
    if segment_tokens is not None:
        try:
            config = replace(config, kvmu=replace(config.kvmu, segment_tokens=segment_tokens))
        except ValueError as error:
            raise UserError(f"--segment-tokens: {error}") from error
    try:
        return config.with_hash_bits(settings.n_hp).with_heads(shape.kv_heads, shape.head_dim)
    except ValueError as error:
        raise UserError(f"a DRE can't serve this model: {error}; choose offload kvpu") from error


def capacity_for(
    tokens: int,
    config: Config,
    clusters: int | None = None,
    segments: int | None = None,
    ring: int | None = None,
) -> Capacity:
    """Capacity of a table for so many tokens, however they cluster, where it is not given."""
    return Capacity(
        clusters=min(tokens, MAX_CLUSTERS) if clusters is None else clusters,
        segments=tokens if segments is None else segments,
        ring=RING_CHUNKS * config.hcu.chunk_tokens if ring is None else ring,
    )


def lay_out(
    config: Config, settings: ResvSettings, shape: Shape, capacity: Capacity, *, near: bool = False
) -> MemoryLayout:
    """The tables of a decoder in a DRE's memory, layer by layer; `near` as of `MemoryLayout.of`.

    Raises:
        UserError: a size that the engine can't use.
    """
    per_layer = 1 if settings.scope == "layer" else shape.kv_heads
    made = replace(capacity, mean_bits=settings.mean_bits)
    return MemoryLayout.of(config, shape.layers * per_layer, shape.kv_heads // per_layer, made, near=near)


class _Index:
    """Which token is where in the segments of a table; the engine keeps no token ids."""

    def __init__(self, segment_tokens: int) -> None:
        self.segments = self.tokens = 0
        self._owner = np.zeros(64, dtype=np.int32)
        self._places = np.full((64, segment_tokens), -1, dtype=np.int64)
        self._counts: list[int] = []
        self._tails: list[int] = []
        self._fullest = 0
        self.has_closed = False

    @property
    def clusters(self) -> int:
        """Clusters in use."""
        return len(self._counts)

    @property
    def free(self) -> int:
        """Tokens that one APPEND may bring: as many as any open cluster has room for."""
        return MAX_COUNT - self._fullest

    def add(self, clusters: np.ndarray, tokens: np.ndarray) -> None:
        """Takes tokens in that joined or opened these clusters."""
        for cluster, token in zip(clusters.tolist(), tokens.tolist(), strict=True):
            if cluster == len(self._counts):
                self._counts.append(0)
                self._tails.append(0)
            slot = self._counts[cluster] % self._places.shape[1]
            if slot == 0:
                self._new_segment(cluster)
            self._places[self._tails[cluster], slot] = token
            self._counts[cluster] += 1
            self._fullest = max(self._fullest, self._counts[cluster])
        self.tokens += len(tokens)
        if self._fullest == MAX_COUNT:
            self.has_closed = True
            self._fullest = max((count for count in self._counts if count < MAX_COUNT), default=0)

    def delivered(self, mask: np.ndarray) -> np.ndarray:
        """Tokens of the clusters of a mask, bool [C], in the order in which the engine delivers them."""
        places = self._places[: self.segments][mask[self._owner[: self.segments]]]
        return places[places >= 0]

    def _new_segment(self, cluster: int) -> None:
        if self.segments == len(self._owner):
            self._owner = np.concatenate([self._owner, self._owner])
            self._places = np.concatenate([self._places, np.full_like(self._places, -1)])
        self._owner[self.segments] = cluster
        self._tails[cluster] = self.segments
        self.segments += 1


class MemoryTables:
    """HC tables, keys and values in a DRE's memory, sinks and window beside it (see `Tables`).

    The host keeps no copy of the tables' content, only where each token is. APPEND runs while the host
    continues with the layer; its error is raised when the layer's tables are used next.
    """

    def __init__(
        self,
        settings: ResvSettings,
        shape: Shape,
        transport: CommandTransport,
        layout: MemoryLayout,
        products: Products | None = None,
        sequence: int = 0,
    ) -> None:
        """Empty tables; sets the accelerator's registers.

        Args:
            settings: knobs.
            shape: the decoder's dimensions.
            transport: a DRE.
            layout: of the tables in its memory (`lay_out`).
            products: where hash-bits and scores are computed; None is the golden arithmetic.
            sequence: stream id in the commands, 0..65535.

        Raises:
            UserError: the accelerator can't hold such hashes or so many KV heads.
            DriverError: the accelerator refused or did not answer.
        """
        check_accelerator(settings, shape, transport.config)
        self._shape, self._config, self._sequence = shape, transport.config, sequence
        self._engine = DreEngine(transport, layout)
        self._engine.set_rule(settings.wtu_rule(shape.head_dim), settings.th_hd)
        self._counters = self._engine.counters()
        self._groups = [groups(settings, shape, layer, products) for layer in range(shape.layers)]
        self._indices = [_Index(self._config.kvmu.segment_tokens) for _ in layout.addresses]
        self._resident = [Resident(settings.sinks, shape) for _ in range(shape.layers)]
        self._mean_bits = settings.mean_bits
        self._rows = self._delivered_bytes = self._metadata_bytes = 0
        # The engine works in one thread, in the order of the calls.
        self._worker = ThreadPoolExecutor(1)
        self._appends: list[Future[None] | None] = [None] * shape.layers

    def select(self, wanted: list[tuple[int, np.ndarray, int]]) -> list[Selection]:
        """Selections on layers' tables (see `Tables.select`), keys and values delivered."""
        for layer, _, _ in wanted:
            self._finish(layer)
        targets = [
            (index, table, group, self._request(index, table, group, q))
            for index, q, _ in wanted
            for table, group in self._tables(index)
            if self._indices[table].clusters
        ]
        requests = [request for *_, request in targets]
        answers = self._worker.submit(self._engine.retrieve, requests, sequence=self._sequence).result()
        heads, head_dim = self._shape.kv_heads, self._shape.head_dim
        tokens = {layer: [np.zeros(0, dtype=np.int64)] * heads for layer, _, _ in wanted}
        kv = {layer: [np.zeros((0, 2, head_dim), dtype=np.uint16)] * heads for layer, _, _ in wanted}
        for (layer, table, group, request), answer in zip(targets, answers, strict=True):
            ids = [self._indices[table].delivered(mask) for mask in answer.masks]
            self._count(table, request, answer.kv, ids)
            # Ascending, so that attention adds up in the order of the tokens.
            orders = [np.argsort(head) for head in ids]
            parts = np.split(answer.kv, np.cumsum([len(head) for head in ids])[:-1])
            tokens[layer][group.heads] = [head[order] for head, order in zip(ids, orders, strict=True)]
            kv[layer][group.heads] = [part[order] for part, order in zip(parts, orders, strict=True)]
        return [Selection(tokens[layer], tabled, kv[layer]) for layer, _, tabled in wanted]

    def add(self, chunk: Chunk, first: int, last: int) -> None:
        """Takes the chunk into the window and tokens from there into the tables (see `Tables.add`).

        Raises:
            DriverError: the accelerator refused or did not answer, or a table is full.
            ValueError: the cache is not in BF16.
        """
        resident = self._resident[chunk.layer]
        resident.add(bf16_of(chunk), first)
        if first < last:
            self._finish(chunk.layer)
            self._appends[chunk.layer] = self._worker.submit(
                self._append, chunk.layer, np.arange(first, last), resident.read(first, last)
            )

    def choose(self, chunk: Chunk, selection: Selection, sinks: int) -> Delivered:
        """Keys and values to attend to, per KV head (see `Tables.choose`)."""
        return self._resident[chunk.layer].around(selection.kv or [], sinks, selection.tabled, chunk.start)

    def report(self) -> dict[str, Any]:
        """See `Tables.report`; and `dre`: what is in memory, and what went to and from it.

        Returns:
            As there, and in `dre`:
                delivered_bytes: on the stream `kv`.
                segments, tokens, fill: segments in use, tokens in them, and those over places for tokens.
                hc_table: `bytes` of header, hashes, counts, tails, means and segment map in use, and `share`,
                    those over the bytes of K and V in the tables; None without any.
                counters: of the engine (`DreEngine.counters`), since these tables were made.
        """
        for layer in range(self._shape.layers):
            self._finish(layer)
        per_layer = len(self._indices) // self._shape.layers
        clusters = np.array([index.clusters for index in self._indices]).reshape(-1, per_layer).sum(axis=1)
        tokens = sum(index.tokens for index in self._indices)
        segments = sum(index.segments for index in self._indices)
        counters = self._counted()
        table_bytes = sum(map(self._table_bytes, range(len(self._indices))))
        kvmu, heads = self._config.kvmu, self._shape.kv_heads // per_layer
        stored = tokens * heads * kvmu.token_bytes
        return {
            "fetched": {
                "tokens": self._delivered_bytes // kvmu.token_bytes,
                "bytes": self._delivered_bytes,
                "metadata_bytes": self._metadata_bytes,
            },
            "clusters_per_layer": [int(n) for n in clusters],
            "tokens": tokens,
            "rows": self._rows,
            "degenerate_rows": counters["degenerate_rows"],
            "rtl": self._engine.transport.report.to_dict(),
            "dre": {
                "delivered_bytes": self._delivered_bytes,
                "segments": segments,
                "tokens": tokens,
                "fill": tokens / (segments * kvmu.segment_tokens) if segments else None,
                "hc_table": {"bytes": table_bytes, "share": table_bytes / stored if stored else None},
                "counters": counters,
            },
        }

    def _tables(self, layer: int) -> list[tuple[int, Group]]:
        """Index and KV heads of each of a layer's tables."""
        first = layer * len(self._groups[layer])
        return list(enumerate(self._groups[layer], first))

    def _request(self, layer: int, table: int, group: Group, q: np.ndarray) -> RetrieveRequest:
        means = self._engine.table(table).score_means()
        return RetrieveRequest(table, layer, group.scores(q, means, self._shape.kv_heads))

    def _count(self, table: int, request: RetrieveRequest, kv: np.ndarray, ids: list[np.ndarray]) -> None:
        """Adds a RETRIEVE to the figures, after checking that it delivered all that it selected."""
        if len(kv) != sum(map(len, ids)):
            raise DriverError(
                f"the accelerator delivered {len(kv)} tokens of layer {request.layer}, but its bitmasks name "
                f"{sum(map(len, ids))}: its Verilog is at fault, so run it with --check"
            )
        heads, rows, clusters = request.scores.shape
        index = self._indices[table]
        self._rows += heads * rows
        self._delivered_bytes += kv.nbytes
        mean = self._copy_bytes(heads) or self._mean_bytes(heads)
        read = clusters * (mean + COUNT_BYTES) + heads * index.segments * MAP_BYTES
        self._metadata_bytes += HEADER.size + read

    def _finish(self, layer: int) -> None:
        """Waits until the layer's tables have taken in what they were given."""
        append, self._appends[layer] = self._appends[layer], None
        if append is not None:
            append.result()

    def _append(self, layer: int, tokens: np.ndarray, kv: np.ndarray) -> None:
        """Takes tokens into the layer's tables, in chunks; kv is uint16 [2, KV heads, n, head_dim]."""
        first = 0
        while first < len(tokens):
            free = min(self._indices[table].free for table, _ in self._tables(layer))
            part = slice(first, first + min(self._config.hcu.chunk_tokens, free))
            self._append_chunk(layer, tokens[part], kv[:, :, part])
            first = part.stop

    def _append_chunk(self, layer: int, tokens: np.ndarray, kv: np.ndarray) -> None:
        hash_bits = self._config.hcu.hash_bits
        requests = [
            AppendRequest(table, layer, group.hashes(kv[0, group.heads], hash_bits), kv[:, group.heads])
            for table, group in self._tables(layer)
        ]
        results = self._engine.append(requests, sequence=self._sequence)
        for request, result in zip(requests, results, strict=True):
            index, opened = self._indices[request.table], int(result.opened.sum())
            mean, n = self._mean_bytes(request.kv.shape[1]), len(tokens)
            # A token's key is read; mean, count and tail are, unless it opens a cluster. Written are those,
            # the segment's entry of the map, and a founder's hash; the mean goes through the scratch as well.
            entry = mean + COUNT_BYTES + TAIL_BYTES
            moved = n * mean + (n - opened) * entry + n * (entry + MAP_BYTES + 2 * mean)
            hashes = (index.clusters + opened) * hash_bits // 8
            hashes += index.clusters * COUNT_BYTES if index.has_closed else 0
            if copy := self._copy_bytes(request.kv.shape[1]):
                # The mean is read from the scratch once more, and the copy written.
                moved += n * (mean + copy) + COPY_PAGES.size
            self._metadata_bytes += 2 * HEADER.size + hashes + moved
            index.add(result.cluster, tokens)

    def _counted(self) -> dict[str, int]:
        """What the engine's counters, which wrap, have counted for these tables."""
        now = self._engine.counters()
        return {name: (value - self._counters[name]) % COUNTER_RANGE for name, value in now.items()}

    def _mean_bytes(self, heads: int) -> int:
        return heads * self._shape.head_dim * BF16_BYTES

    def _copy_bytes(self, heads: int) -> int:
        """Bytes of a cluster's quantised copy, 0 without one."""
        return sum(copy_bytes(self._config, heads, self._mean_bits))

    def _table_bytes(self, table: int) -> int:
        """Bytes of a table in use, its segments apart."""
        index = self._indices[table]
        heads = self._engine.layout.headers[table].heads
        entry = self._config.hcu.hash_bits // 8 + COUNT_BYTES + TAIL_BYTES
        entry += self._mean_bytes(heads) + self._copy_bytes(heads)
        return HEADER.size + index.clusters * entry + index.segments * MAP_BYTES
