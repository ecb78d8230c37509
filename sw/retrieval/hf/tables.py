"""HC tables of policy `resv` as torch tensors on the model's device."""

from typing import Any

import numpy as np
import torch

from vrex.errors import UserError
from vrex.model.config import MAX_CLUSTERS, MAX_COUNT, preset
from vrex.sw.driver.command_interface import CommandReport
from vrex.sw.retrieval.hf import kernels
from vrex.sw.retrieval.policies.account import BF16_BYTES
from vrex.sw.retrieval.policies.base import Chunk
from vrex.sw.retrieval.policies.host_tables import COUNT_BYTES, INDEX_BYTES
from vrex.sw.retrieval.policies.resv_settings import ResvSettings
from vrex.sw.retrieval.policies.shape import Shape
from vrex.sw.retrieval.policies.tables import Group, Selection, check_accelerator, groups


class _Table:
    """One HC table.

    Attributes:
        group: KV heads whose keys it holds.
        founders: hashes, bool [C, n_hp].
        counts: members, int64 [C].
        means: Key_cluster, bfloat16 [C, KV heads of the group, head_dim].
        token_ids, token_cluster: int64 [tokens], on the CPU.
    """

    def __init__(self, group: Group, head_dim: int, device: torch.device) -> None:
        self.group, self._dim = group, head_dim
        self.planes = kernels.bf16_from_bits(group.planes, device)
        self.founders = torch.zeros((0, len(group.planes)), dtype=torch.bool, device=device)
        self.counts = torch.zeros(0, dtype=torch.int64, device=device)
        self.means = torch.zeros((0, group.size, head_dim), dtype=torch.bfloat16, device=device)
        self.token_ids = self.token_cluster = np.zeros(0, dtype=np.int64)

    @property
    def clusters(self) -> int:
        """Clusters there are."""
        return len(self.counts)

    def tokens_of(self, mask: np.ndarray) -> np.ndarray:
        """Ascending token ids of the chosen clusters, bool [C]."""
        return self.token_ids[mask[self.token_cluster]]

    def add(self, keys: torch.Tensor, tokens: np.ndarray, th_hd: int) -> None:
        """Takes tokens in, keys bfloat16 [KV heads of the group, n, head_dim]."""
        flat = keys.transpose(0, 1).reshape(len(tokens), -1)
        bits = kernels.hash_bits(flat, self.planes)
        joined = kernels.cluster(bits, self.founders, self.counts, th_hd, MAX_COUNT)
        known, opened = self.clusters, max(0, int(joined.max()) + 1 - self.clusters)
        if known + opened > MAX_CLUSTERS:
            raise UserError(
                f"an HC table would need more than {MAX_CLUSTERS} clusters; "
                "raise th_hd or begin a new sequence"
            )
        firsts = [int((joined == known + i).nonzero()[0]) for i in range(opened)]
        self.founders = torch.cat([self.founders, bits[firsts]])
        self.counts = torch.nn.functional.pad(self.counts, (0, opened))
        self.means = torch.cat([self.means, self.means.new_zeros((opened, *self.means.shape[1:]))])
        counts = self.counts.cpu()
        for key, cluster in zip(keys.transpose(0, 1), joined.tolist(), strict=True):
            counts[cluster] += 1
            self.means[cluster] = kernels.update_mean(self.means[cluster], key, int(counts[cluster]))
        self.counts = counts.to(self.counts.device)
        self.token_ids = np.concatenate([self.token_ids, tokens])
        self.token_cluster = np.concatenate([self.token_cluster, joined.numpy()])


class TorchTables:
    """HC tables next to the model; keys and values stay in its cache (see `Tables`).

    What a chunk brings and what leaves it are tensors: `Chunk.q` float [query heads, rows, head_dim],
    `Chunk.keys` and `Chunk.k` [KV heads, tokens, head_dim].
    """

    def __init__(self, settings: ResvSettings, shape: Shape, device: torch.device) -> None:
        """Empty tables.

        Raises:
            UserError: settings that only the host's tables have, or more than preset `edge` can hold.
        """
        check_accelerator(settings, shape, preset("edge").with_hash_bits(settings.n_hp))
        if settings.mean_bits != 16:
            raise UserError(
                f"mean_bits is {settings.mean_bits}, but the plug-in keeps BF16 means; leave it at 16"
            )
        self._shape, self._th_hd = shape, settings.th_hd
        self._rule = settings.wtu_rule(shape.head_dim)
        self._layers = [
            [_Table(group, shape.head_dim, device) for group in groups(settings, shape, layer)]
            for layer in range(shape.layers)
        ]
        self._fetched = self._metadata_bytes = self._rows = self._degenerate = 0

    def select(self, wanted: list[tuple[int, Any, int]]) -> list[Selection]:
        """Selections on layers' tables (see `Tables.select`)."""
        return [Selection(self._select(layer, q), tabled) for layer, q, tabled in wanted]

    def _select(self, layer: int, q: torch.Tensor) -> list[np.ndarray]:
        """Tokens of the selected clusters, per KV head."""
        shape = self._shape
        tokens: list[np.ndarray] = []
        grouped = q.to(torch.bfloat16).reshape(shape.kv_heads, -1, shape.head_dim)
        for table in self._layers[layer]:
            for head, rows in enumerate(grouped[table.group.heads]):
                scores = (rows.float() @ table.means[:, head].float().T).to(torch.bfloat16)
                chosen, degenerate = kernels.select(scores, table.counts, self._rule)
                found = table.tokens_of(chosen.any(0).cpu().numpy())
                self._rows += len(rows) if table.clusters else 0
                self._degenerate += degenerate
                self._metadata_bytes += len(found) * INDEX_BYTES
                tokens.append(found)
            mean_bytes = table.group.size * shape.head_dim * BF16_BYTES
            self._metadata_bytes += table.clusters * (mean_bytes + COUNT_BYTES)
        return tokens

    def add(self, chunk: Chunk, first: int, last: int) -> None:
        """Takes tokens into the layer's tables (see `Tables.add`).

        Raises:
            UserError: a table is full.
        """
        if first == last:
            return
        # A policy's chunk holds numpy arrays; the plug-in's holds tensors.
        parts: list[Any] = [chunk.keys, chunk.k]
        held: Any = torch.cat(parts, dim=1)[:, first:last]
        for table in self._layers[chunk.layer]:
            keys = held[table.group.heads].to(torch.bfloat16)
            table.add(keys, np.arange(first, last), self._th_hd)

    def choose(self, chunk: Chunk, selection: Selection, sinks: int) -> list[np.ndarray]:
        """Tokens to attend to, per KV head (see `Tables.choose`)."""
        self._fetched += sum(map(len, selection.tokens))
        ends = np.arange(sinks), np.arange(selection.tabled, chunk.start)
        return [np.concatenate([ends[0], tokens, ends[1]]) for tokens in selection.tokens]

    def report(self) -> dict[str, Any]:
        """See `Tables.report`; `metadata_bytes` are those read to choose."""
        return {
            "fetched": {
                "tokens": self._fetched,
                "bytes": self._fetched * 2 * self._shape.head_dim * BF16_BYTES,
                "metadata_bytes": self._metadata_bytes,
            },
            "clusters_per_layer": [sum(table.clusters for table in layer) for layer in self._layers],
            "tokens": sum(len(table.token_ids) for layer in self._layers for table in layer),
            "rows": self._rows,
            "degenerate_rows": self._degenerate,
            "rtl": CommandReport().to_dict(),
        }
