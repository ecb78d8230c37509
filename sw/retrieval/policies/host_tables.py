"""HC tables in the host's memory, streamed through the KVPU: `--offload kvpu`."""

from typing import Any

import numpy as np

from vrex.model.config import MAX_CLUSTERS
from vrex.model.dre import hashing, quant
from vrex.model.dre.hctable import HCTable
from vrex.model.dre.hcu import Clustering, TableFullError
from vrex.model.lib import arith
from vrex.sw.driver.command_interface import CommandTransport
from vrex.sw.driver.kvpu import KvpuEngine, SelectRequest
from vrex.sw.driver.transport import DriverError
from vrex.sw.retrieval.policies.account import BF16_BYTES
from vrex.sw.retrieval.policies.base import Chunk
from vrex.sw.retrieval.policies.resv_settings import ResvSettings
from vrex.sw.retrieval.policies.shape import Shape
from vrex.sw.retrieval.policies.tables import Group, Selection, check_accelerator, flat_keys, groups

COUNT_BYTES = 2
INDEX_BYTES = 4


class HostTable:
    """An HC table with what belongs to it.

    Attributes:
        hc: the table.
        group: KV heads whose keys it holds.
        mask: the same, one bit a head.
        row_bytes: a cluster as SCORE and SELECT read it: mean and count.
    """

    def __init__(self, hc: HCTable, group: Group, dim: int, mean_bits: int) -> None:
        self.hc, self.group = hc, group
        self.mask = ((1 << group.size) - 1) << group.heads.start
        self._bits, self._copy = mean_bits, np.empty((0, group.size, dim // group.size), dtype=np.uint16)
        self._mean_bytes = dim * BF16_BYTES
        self._copy_bytes = 0 if mean_bits == 16 else quant.nbytes(dim, group.size, mean_bits)
        self.row_bytes = (self._copy_bytes or self._mean_bytes) + COUNT_BYTES

    def keys(self) -> np.ndarray:
        """Key_cluster as SCORE reads it, BF16 bits [C, KV heads of the table, head_dim]."""
        if self._bits == 16:
            return self.hc.means.reshape(self.hc.clusters, *self._copy.shape[1:])
        return self._copy[: self.hc.clusters]

    def refresh(self, clusters: np.ndarray) -> None:
        """Quantises the means of these clusters anew."""
        if self._bits == 16:
            return
        if len(self._copy) < self.hc.clusters:
            self._copy = np.resize(self._copy, (2 * self.hc.clusters, *self._copy.shape[1:]))
        means = self.hc.means[clusters].reshape(len(clusters), *self._copy.shape[1:])
        self._copy[clusters] = quant.dequantise(*quant.quantise(means, self._bits))

    def update_bytes(self, tokens: int, opened: int, hash_bytes: int) -> int:
        """Bytes moved to add tokens one by one; the first token of a cluster has nothing to read."""
        entry = self._mean_bytes + COUNT_BYTES
        read = tokens * self._mean_bytes + (tokens - opened) * entry
        written = tokens * (entry + self._copy_bytes + INDEX_BYTES) + opened * hash_bytes
        return read + written


class HostTables:
    """HC tables in the host's memory; keys and values stay in the cache (see `Tables`).

    Attributes:
        layers: the tables of each layer.
    """

    def __init__(
        self, settings: ResvSettings, shape: Shape, transport: CommandTransport, sequence: int = 0
    ) -> None:
        """Empty tables; sets the accelerator's registers.

        Args:
            settings: knobs.
            shape: the decoder's dimensions.
            transport: a KVPU.
            sequence: stream id in the commands, 0..65535.

        Raises:
            UserError: the accelerator can't hold such hashes or so many KV heads.
            DriverError: the accelerator refused or did not answer.
        """
        check_accelerator(settings, shape, transport.config)
        self._shape, self._config, self._sequence = shape, transport.config, sequence
        self._engine = KvpuEngine(transport)
        self._engine.set_rule(settings.wtu_rule(shape.head_dim), settings.th_hd)
        words = -(-self._config.hcu.hash_bits // hashing.WORD_BITS)
        self.layers = [
            [
                HostTable(
                    HCTable(
                        words,
                        group.size * shape.head_dim,
                        self._config.hcu.chunk_tokens,
                        dithered=self._config.mean.dithered,
                    ),
                    group,
                    group.size * shape.head_dim,
                    settings.mean_bits,
                )
                for group in groups(settings, shape, layer)
            ]
            for layer in range(shape.layers)
        ]
        self._fetched_tokens = self._metadata_bytes = 0

    def select(self, wanted: list[tuple[int, np.ndarray, int]]) -> list[Selection]:
        """Selections on layers' tables (see `Tables.select`)."""
        targets = [
            (
                index,
                table,
                SelectRequest(
                    table.group.scores(q, table.keys(), self._shape.kv_heads),
                    table.hc.counts,
                    index,
                    table.mask,
                ),
            )
            for index, q, _ in wanted
            for table in self.layers[index]
            if table.hc.clusters
        ]
        masks = self._engine.select([request for _, _, request in targets], sequence=self._sequence)
        tokens = {index: [np.zeros(0, dtype=np.int64)] * self._shape.kv_heads for index, _, _ in wanted}
        for (index, table, _), heads in zip(targets, masks, strict=True):
            found = [table.hc.tokens_of(mask) for mask in heads]
            self._metadata_bytes += table.hc.clusters * table.row_bytes + sum(map(len, found)) * INDEX_BYTES
            tokens[index][table.group.heads] = found
        return [Selection(tokens[index], tabled) for index, _, tabled in wanted]

    def add(self, chunk: Chunk, first: int, last: int) -> None:
        """Takes tokens into the layer's tables (see `Tables.add`); the window is the cache's own.

        Raises:
            DriverError: the accelerator refused or did not answer, or a table is full.
        """
        if first < last:
            self.take(chunk.layer, arith.to_bf16(_keys(chunk, first, last)), np.arange(first, last))

    def take(self, layer: int, keys: np.ndarray, tokens: np.ndarray) -> None:
        """Takes tokens into the layer's tables; keys are BF16 bits, uint16 [KV heads, n, head_dim].

        Raises:
            DriverError: the accelerator refused or did not answer, or a table is full.
        """
        for table in self.layers[layer]:
            self._cluster(layer, table, keys[table.group.heads], tokens)

    def choose(self, chunk: Chunk, selection: Selection, sinks: int) -> list[np.ndarray]:
        """Tokens to attend to, per KV head (see `Tables.choose`)."""
        self._fetched_tokens += sum(map(len, selection.tokens))
        ends = np.arange(sinks), np.arange(selection.tabled, chunk.start)
        return [np.concatenate([ends[0], tokens, ends[1]]) for tokens in selection.tokens]

    def report(self) -> dict[str, Any]:
        """See `Tables.report`."""
        tables = [[table.hc for table in layer] for layer in self.layers]
        return {
            "fetched": {
                "tokens": self._fetched_tokens,
                "bytes": self._fetched_tokens * 2 * self._shape.head_dim * BF16_BYTES,
                "metadata_bytes": self._metadata_bytes,
            },
            "clusters_per_layer": [sum(hc.clusters for hc in layer) for layer in tables],
            "tokens": sum(hc.tokens for layer in tables for hc in layer),
            "rows": self._engine.rows,
            "degenerate_rows": self._engine.degenerate,
            "rtl": self._engine.transport.report.to_dict(),
        }

    def _cluster(self, layer: int, table: HostTable, keys: np.ndarray, tokens: np.ndarray) -> None:
        """Adds tokens to a table; keys are BF16 bits [KV heads of the table, n, head_dim]."""
        hash_bits = self._config.hcu.hash_bits
        known = table.hc.clusters

        def cluster(hashes: np.ndarray, clusters: np.ndarray) -> Clustering:
            self._metadata_bytes += len(clusters) * hash_bits // 8
            return self._engine.cluster(hashes, clusters, sequence=self._sequence, layer=layer)

        try:
            joined = table.hc.add(table.group.hashes(keys, hash_bits), flat_keys(keys), tokens, cluster)
        except TableFullError:
            raise DriverError(
                f"the HC table of layer {layer} would need more than {MAX_CLUSTERS} clusters; "
                "raise th_hd or shorten the video"
            ) from None
        table.refresh(np.unique(joined))
        opened = table.hc.clusters - known
        self._metadata_bytes += table.update_bytes(len(tokens), opened, hash_bits // 8)


def _keys(chunk: Chunk, first: int, last: int) -> np.ndarray:
    """Keys of tokens first..last-1 out of past and chunk, float32 [KV heads, last - first, head_dim]."""
    past = chunk.keys[:, first:last]
    own = chunk.k[:, max(first - chunk.start, 0) : max(last - chunk.start, 0)]
    return np.concatenate([past, own], axis=1)
