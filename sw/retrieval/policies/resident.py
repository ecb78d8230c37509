"""Keys and values of sinks and window, for tables that replace the cache."""

import numpy as np

from vrex.model.lib import arith
from vrex.sw.retrieval.policies.base import Chunk, Delivered
from vrex.sw.retrieval.policies.shape import Shape


class Resident:
    """Keys and values of one layer's sinks and of the tokens that are in no table yet, BF16 bits."""

    def __init__(self, sinks: int, shape: Shape) -> None:
        self._sinks, self._gone = sinks, 0
        self._kv = np.empty((2, shape.kv_heads, 0, shape.head_dim), dtype=np.uint16)

    def add(self, kv: np.ndarray, tabled: int) -> None:
        """Takes tokens in, uint16 [2, KV heads, n, head_dim], and drops [sinks, tabled)."""
        gone = tabled - self._sinks
        kept = self._sinks + gone - self._gone
        self._kv = np.concatenate([self._kv[:, :, : self._sinks], self._kv[:, :, kept:], kv], axis=2)
        self._gone = gone

    def read(self, first: int, last: int) -> np.ndarray:
        """Tokens first..last-1, all of them sinks or none, uint16 [2, KV heads, n, head_dim]."""
        shift = self._gone if first >= self._sinks else 0
        return self._kv[:, :, first - shift : last - shift]

    def around(self, kv: list[np.ndarray], sinks: int, tabled: int, end: int) -> Delivered:
        """The first `sinks` tokens, what the tables delivered, and tokens tabled..end-1, to attend to.

        Args:
            kv: per KV head BF16 bits, uint16 [n, 2, head_dim].
            sinks, tabled, end: tokens.
        """
        before, behind = self.read(0, sinks), self.read(tabled, end)
        parts = [
            np.concatenate([before[:, head], delivered.transpose(1, 0, 2), behind[:, head]], axis=1)
            for head, delivered in enumerate(kv)
        ]
        return Delivered([arith.from_bf16(part) for part in parts])


def bf16_of(chunk: Chunk) -> np.ndarray:
    """A chunk's keys and values as BF16 bits, uint16 [2, KV heads, rows, head_dim].

    Raises:
        ValueError: they are not rounded to BF16.
    """
    values = np.stack([chunk.k, chunk.v])
    bits = arith.to_bf16(values)
    if not np.array_equal(arith.from_bf16(bits), values, equal_nan=True):
        raise ValueError("a memory that holds BF16 takes no keys and values that are not rounded to it")
    return bits
