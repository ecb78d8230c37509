"""The KVPU's engine: arrays in and out, error statuses as messages."""

from dataclasses import dataclass

import numpy as np

from vrex.model import commands
from vrex.model.dre.hcu import Clustering
from vrex.sw.driver.command_interface import CommandTransport
from vrex.sw.driver.link import Link


@dataclass(frozen=True)
class SelectRequest:
    """Scores of one HC table.

    Attributes:
        scores: BF16 bits, uint16 [KV heads, rows, C], C >= 1.
        counts: token counts, integers [C], 1..65535.
        layer: decoder layer.
        kv_heads: mask with one bit per KV head of `scores`; None takes the lowest ones.
    """

    scores: np.ndarray
    counts: np.ndarray
    layer: int
    kv_heads: int | None = None


class KvpuEngine(Link):
    """CLUSTER and SELECT of one KVPU (see `Link`).

    Attributes:
        rows: rows of scores selected so far.
        degenerate: those of rule `raw` with a sum <= 0; only their top cluster was taken.
    """

    def __init__(self, transport: CommandTransport) -> None:
        super().__init__(transport)
        self.rows = self.degenerate = 0

    def cluster(
        self, tokens: np.ndarray, clusters: np.ndarray, *, sequence: int = 0, layer: int = 0
    ) -> Clustering:
        """Clusters tokens in order (see `vrex.model.dre.hcu.cluster`).

        Args:
            tokens: hash words, uint32 [n, words], n <= chunk_tokens.
            clusters: hash words of the open clusters, uint32 [C, words].
            sequence, layer: whose they are.

        Raises:
            DriverError: the accelerator refused or did not answer.
        """
        command = commands.cluster_command(
            self.config, tokens, clusters, tag=self._next_tag(), sequence=sequence, layer=layer
        )
        [outcome] = self._submit([command])
        return commands.unpack_clustering(outcome.result, len(tokens))

    def select(self, requests: list[SelectRequest], *, sequence: int = 0) -> list[np.ndarray]:
        """Selects clusters, all requests in one batch.

        Returns:
            For each request bool [KV heads, C]: clusters that any row of the head selects.

        Raises:
            DriverError: the accelerator refused or did not answer.
        """
        batch = [
            commands.select_command(
                self.config,
                request.scores,
                request.counts,
                tag=self._next_tag(),
                sequence=sequence,
                layer=request.layer,
                kv_heads=request.kv_heads,
            )
            for request in requests
        ]
        results = self._submit(batch)
        self.rows += sum(request.scores.shape[0] * request.scores.shape[1] for request in requests)
        self.degenerate += sum(outcome.completion.detail for outcome in results)
        return [
            commands.unpack_masks(self.config, outcome.result, len(request.counts), len(request.scores))
            for request, outcome in zip(requests, results, strict=True)
        ]
