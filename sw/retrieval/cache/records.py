"""A token's keys and values as bytes of a file."""

from dataclasses import dataclass

import numpy as np

from vrex.model.dre import packed

BITS = (16, 4)
"""Widths of a stored value: BF16 itself, or packed codes with scales (`vrex.model.dre.packed`)."""


@dataclass(frozen=True)
class Records:
    """Format of the records of one file.

    Attributes:
        heads: KV heads of a record.
        head_dim: dimensions of one head.
        bits: of a value, one of `BITS`.
    """

    heads: int
    head_dim: int
    bits: int = 16

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a token: keys, then values; KV heads; dimensions."""
        return 2, self.heads, self.head_dim

    @property
    def size(self) -> int:
        """Bytes of a record."""
        if self.bits == 16:
            return 4 * self.heads * self.head_dim
        return packed.nbytes(2 * self.heads, self.head_dim)

    def encode(self, kv: np.ndarray) -> np.ndarray:
        """Records uint8 [n, size] of BF16 bits, uint16 [n, 2, heads, head_dim]."""
        if self.bits == 16:
            return np.ascontiguousarray(kv).view(np.uint8).reshape(len(kv), self.size)
        return packed.pack(kv.reshape(len(kv), 2 * self.heads, self.head_dim))

    def decode(self, records: np.ndarray) -> np.ndarray:
        """BF16 bits uint16 [n, 2, heads, head_dim] of records."""
        if self.bits == 16:
            return np.ascontiguousarray(records).view(np.uint16).reshape(len(records), *self.shape)
        return packed.unpack(records, 2 * self.heads, self.head_dim).reshape(len(records), *self.shape)
