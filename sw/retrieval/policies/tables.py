"""The HC tables of policy `resv`: what the policy asks of them, and what all kinds of tables share.

There are four kinds, because hashes, means and counts of a table (its metadata), and the keys and values of
its tokens, may be in different places:

| class | metadata | keys and values | clusters and selects |
| --- | --- | --- | --- |
| `policies.host_tables.HostTables` | host, numpy | the decoder's cache | a KVPU |
| `policies.memory_tables.MemoryTables` | a DRE's memory | a DRE's memory | a DRE, by address |
| `cache.tables.StoredTables` | host, a `HostTables` inside | device, host and file tiers | a KVPU |
| `hf.tables.TorchTables` | the model's device, torch | transformers' cache | torch on that device |

One class can't serve two of them: a DRE updates its tables itself and the host only mirrors which token is
where, torch tensors never leave their device, and tiers need to know which tokens leave the window. One table
is a `vrex.model.dre.hctable.HCTable` on the host and a `vrex.model.dre.kvstore.Table` in a DRE's memory.
"""

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from vrex.errors import UserError
from vrex.model.config import Config
from vrex.model.dre import hashing
from vrex.model.lib import arith
from vrex.sw.driver.products import GoldenProducts, Products
from vrex.sw.retrieval.policies.base import Chunk, Delivered
from vrex.sw.retrieval.policies.resv_settings import ResvSettings
from vrex.sw.retrieval.policies.shape import Shape

MASK_HEADS = 32
"""KV heads that a command's bitmask can name."""


@dataclass(frozen=True)
class Group:
    """KV heads that share an HC table.

    Attributes:
        heads: which ones.
        planes: hyperplanes of the table.
        products: where hash-bits and scores are computed.
    """

    heads: slice
    planes: np.ndarray
    products: Products = field(default_factory=GoldenProducts)

    @property
    def size(self) -> int:
        """Number of KV heads."""
        return int(self.heads.stop - self.heads.start)

    def hashes(self, keys: np.ndarray, hash_bits: int) -> np.ndarray:
        """Hash words uint32 [n, words] of keys, BF16 bits [KV heads of the group, n, head_dim]."""
        return self.products.hashes(flat_keys(keys), self.planes, hash_bits)

    def scores(self, q: np.ndarray, means: np.ndarray, kv_heads: int) -> np.ndarray:
        """Queries times Key_cluster, each head its own slice.

        Args:
            q: float32 [query heads of the layer, rows, head_dim].
            means: BF16 bits, uint16 [C, KV heads of the group, head_dim].
            kv_heads: of the layer.

        Returns:
            BF16 bits, uint16 [KV heads of the group, rows x query heads of a KV head, C].
        """
        grouped = arith.to_bf16(q).reshape(kv_heads, -1, q.shape[2])[self.heads]
        return np.stack([self.products.scores(rows, means[:, head]) for head, rows in enumerate(grouped)])


def flat_keys(keys: np.ndarray) -> np.ndarray:
    """Keys [KV heads, n, head_dim] as a table takes them: [n, KV heads * head_dim]."""
    return keys.transpose(1, 0, 2).reshape(keys.shape[1], -1)


def check_accelerator(settings: ResvSettings, shape: Shape, config: Config) -> None:
    """An accelerator must be able to hold the policy's hashes and to name the decoder's KV heads.

    Raises:
        UserError: it can't.
    """
    if settings.n_hp > config.hcu.hash_bits:
        raise UserError(
            f"n_hp is {settings.n_hp}, but preset {config.name}'s HCU holds hashes of "
            f"{config.hcu.hash_bits} bits; lower n_hp or widen hash_bits"
        )
    if shape.kv_heads > MASK_HEADS:
        raise UserError(
            f"the model has {shape.kv_heads} KV heads, but a SELECT command has room for {MASK_HEADS}; "
            "choose a model with fewer"
        )


def groups(settings: ResvSettings, shape: Shape, layer: int, products: Products | None = None) -> list[Group]:
    """The groups of a layer: one of all KV heads, or one for each, as the scope says."""
    heads = shape.kv_heads if settings.scope == "layer" else 1
    return [
        Group(
            slice(first, first + heads),
            hashing.hyperplanes(settings.seed, layer, first // heads, settings.n_hp, heads * shape.head_dim),
            products or GoldenProducts(),
        )
        for first in range(0, shape.kv_heads, heads)
    ]


@dataclass(frozen=True)
class Selection:
    """What a layer's tables selected.

    Attributes:
        tokens: per KV head ascending token ids of the selected clusters.
        tabled: tokens [sinks, tabled) were in the tables then.
        kv: per KV head keys and values of the tokens, BF16 bits uint16 [n, 2, head_dim], where the tables
            hold them; None where the cache does.
    """

    tokens: list[np.ndarray]
    tabled: int
    kv: list[np.ndarray] | None = None

    def before(self, end: int) -> "Selection":
        """The part of it that lies before a token."""
        ends = [int(np.searchsorted(tokens, end)) for tokens in self.tokens]
        kv = self.kv and [part[:n] for part, n in zip(self.kv, ends, strict=True)]
        tokens = [tokens[:n] for tokens, n in zip(self.tokens, ends, strict=True)]
        return Selection(tokens, min(self.tabled, end), kv)


class Tables(Protocol):
    """The HC tables of all layers of one stream."""

    def select(self, wanted: list[tuple[int, np.ndarray, int]]) -> list[Selection]:
        """Selections on the tables of (layer, queries as in `Chunk.q`, tabled), all in one batch."""
        ...

    def add(self, chunk: Chunk, first: int, last: int) -> None:
        """Takes the chunk into the window and moves tokens first..last-1, possibly none, into the tables.

        Called once for every layer and chunk. Tokens before `first` are sinks or already in the tables.
        """
        ...

    def choose(self, chunk: Chunk, selection: Selection, sinks: int) -> list[np.ndarray] | Delivered:
        """What to attend to: the first `sinks` tokens, those selected, and all of the past since `tabled`."""
        ...

    def report(self) -> dict[str, Any]:
        """`tokens` in all tables, and of `Resv.report` what is about the tables and their accelerator."""
        ...
