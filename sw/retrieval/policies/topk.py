"""Policy `topk`: the past tokens with the most attention, an oracle that reads every key.

For each KV head the softmax over the past is summed over the chunk's rows and the head's query heads; the k
tokens with the largest sums are the best k any selection per KV head can name, by attention mass.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from vrex.sw.retrieval.policies.account import BF16_BYTES, Account
from vrex.sw.retrieval.policies.base import Chunk
from vrex.sw.retrieval.policies.ranking import grouped, share_of, top
from vrex.sw.retrieval.policies.settings import check_share
from vrex.sw.retrieval.policies.shape import Shape


@dataclass(frozen=True, kw_only=True)
class TopkSettings:
    """Knobs.

    Attributes:
        ratio: share of the past tokens to attend, 0 < ratio <= 1.

    Raises:
        UserError: the value is out of its range.
    """

    ratio: float = 0.1

    def __post_init__(self) -> None:
        check_share("ratio", self.ratio)


class Topk:
    """Exact top-k tokens by attention mass (see `Policy`)."""

    name = "topk"

    def __init__(self, settings: TopkSettings, shape: Shape) -> None:
        self.settings, self._shape = settings, shape
        self._account = Account(shape, predict="same")

    def select(self, chunk: Chunk) -> list[np.ndarray]:
        """The heaviest tokens of each KV head (see `Policy.select`)."""
        shape = self._shape
        k = share_of(chunk.start, self.settings.ratio)
        mass = attention_mass(grouped(chunk.q, shape.kv_heads), chunk.keys)
        self._account.add(
            chunk,
            [k] * shape.kv_heads,
            fetched=k * shape.kv_heads,
            metadata_bytes=chunk.start * shape.kv_heads * shape.head_dim * BF16_BYTES,
        )
        return [top(row, k) for row in mass]

    def report(self) -> dict[str, Any]:
        """The keys of `Resv.report`."""
        return self._account.report()


def attention_mass(q: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Softmax over the past, summed over rows: [KV heads, rows, dim], [KV heads, n, dim] -> [KV heads, n]."""
    weights = (q * np.float32(q.shape[-1] ** -0.5)) @ keys.swapaxes(1, 2)
    weights -= weights.max(axis=-1, keepdims=True, initial=-np.inf)
    np.exp(weights, out=weights)
    weights /= weights.sum(axis=-1, keepdims=True)
    mass: np.ndarray = weights.sum(axis=1)
    return mass
