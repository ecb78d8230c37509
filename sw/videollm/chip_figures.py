"""What a sequence on a core retrieved and moved, from its jobs' results and its tables' headers."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from vrex.model.dre.kvstore import COUNT_BYTES, HEADER, MAP_BYTES, TAIL_BYTES
from vrex.sw.retrieval.policies.account import BF16_BYTES
from vrex.sw.retrieval.policies.ratio import RatioMeter
from vrex.sw.retrieval.policies.shape import Shape
from vrex.sw.videollm.chip_job import Step
from vrex.sw.videollm.chip_layout import ChipShape


@dataclass(frozen=True)
class TableCounts:
    """What headers say, int [layers, tables] each."""

    clusters: np.ndarray
    segments: np.ndarray
    tokens: np.ndarray


class ChipFigures:
    """Sums over the chunks of a sequence (see `vrex.sw.retrieval.policies.account`).

    Attributes:
        degenerate: rows of scores that were degenerate.
    """

    def __init__(self, shape: ChipShape, policy_shape: Shape) -> None:
        self._shape = shape
        self._ratio = RatioMeter(policy_shape)
        none = np.zeros((shape.text.layers, shape.team * shape.tables), dtype=np.int64)
        self._counts = TableCounts(none, none, none)
        self._rows = self._delivered = self._metadata = 0
        self.degenerate = 0

    def add(self, stage: str, step: Step, rows: int, delivered: np.ndarray, counts: TableCounts) -> None:
        """One chunk.

        Args:
            stage: `frame` or `text`.
            step: what it did.
            rows: its tokens.
            delivered: tokens by layer and KV head, int [layers, KV heads].
            counts: of the tables after it.
        """
        for layer, tokens in enumerate(delivered):
            self._ratio.add(stage, layer, tokens + (step.sinks + step.window), step.start)
        self._delivered += int(delivered.sum())
        self._count_prediction(rows)
        self._count_append(step.retire, counts)
        self._counts = counts

    def _count_prediction(self, rows: int) -> None:
        """What RETRIEVE read, in tables that are not empty."""
        shape, before = self._shape, self._counts
        used = int((before.clusters > 0).sum())
        heads = shape.table_heads
        self._rows += used * heads * shape.group * rows
        self._metadata += int(before.clusters.sum()) * (self._mean_bytes + COUNT_BYTES)
        self._metadata += (
            heads * int(before.segments[before.clusters > 0].sum()) * MAP_BYTES + used * HEADER.size
        )

    def _count_append(self, tokens: int, after: TableCounts) -> None:
        """What APPEND read and wrote; founders' hashes as if all of a job's came in its last chunk."""
        shape, mean = self._shape, self._mean_bytes
        if tokens == 0:
            return
        tables = shape.text.layers * shape.team * shape.tables
        chunks = -(-tokens // shape.config.hcu.chunk_tokens)
        opened = int((after.clusters - self._counts.clusters).sum())
        entry = mean + COUNT_BYTES + TAIL_BYTES
        moved = tables * tokens * (mean + entry + MAP_BYTES + 2 * mean) + (tables * tokens - opened) * entry
        hashes = chunks * int(after.clusters.sum()) * shape.hash_bytes
        self._metadata += 2 * HEADER.size * tables * chunks + hashes + moved

    @property
    def _mean_bytes(self) -> int:
        return self._shape.table_heads * self._shape.text.head_dim * BF16_BYTES

    def report(self) -> dict[str, Any]:
        """The keys of `Resv.report` that are about retrieval, and `dre` without its counters."""
        shape, counts, config = self._shape, self._counts, self._shape.config
        clusters, tokens, segments = (
            int(part.sum()) for part in (counts.clusters, counts.tokens, counts.segments)
        )
        entry = shape.hash_bytes + COUNT_BYTES + TAIL_BYTES + self._mean_bytes
        table_bytes = counts.clusters.size * HEADER.size + clusters * entry + segments * MAP_BYTES
        stored = tokens * shape.table_heads * config.kvmu.token_bytes
        delivered = self._delivered * config.kvmu.token_bytes
        return {
            "ratio": self._ratio.report(),
            "fetched": {"tokens": self._delivered, "bytes": delivered, "metadata_bytes": self._metadata},
            "clusters": clusters,
            "clusters_per_layer": [int(n) for n in counts.clusters.sum(axis=1)],
            "tokens_per_cluster": tokens / clusters if clusters else None,
            "rows": self._rows,
            "degenerate_rows": self.degenerate,
            "predict": shape.settings.predict,
            "dre": {
                "delivered_bytes": delivered,
                "segments": segments,
                "tokens": tokens,
                "fill": tokens / (segments * config.kvmu.segment_tokens) if segments else None,
                "hc_table": {"bytes": table_bytes, "share": table_bytes / stored if stored else None},
            },
        }
