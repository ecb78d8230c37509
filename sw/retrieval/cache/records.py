"""A token's keys and values as bytes of a file."""

from dataclasses import dataclass

import numpy as np

from vrex.model.dre import quant

BITS = (16, 4)
"""Widths of a stored value: BF16 itself, or codes with a BF16 scale a group."""

GROUP = 32
"""Values that share a scale, or a head's, if those are fewer."""


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
    def _groups(self) -> tuple[int, int]:
        """Groups of a token, and values in each."""
        group = min(GROUP, self.head_dim)
        return 2 * self.heads * self.head_dim // group, group

    @property
    def size(self) -> int:
        """Bytes of a record."""
        groups, group = self._groups
        return groups * group * 2 if self.bits == 16 else quant.nbytes(groups * group, groups, self.bits)

    def encode(self, kv: np.ndarray) -> np.ndarray:
        """Records uint8 [n, size] of BF16 bits, uint16 [n, 2, heads, head_dim]."""
        if self.bits == 16:
            return np.ascontiguousarray(kv).view(np.uint8).reshape(len(kv), self.size)
        codes, scales = quant.quantise(kv.reshape(len(kv), *self._groups), self.bits)
        nibbles = (codes.reshape(len(kv), -1) + 8).astype(np.uint8)
        packed = nibbles[:, 0::2] | nibbles[:, 1::2] << 4
        return np.concatenate([packed, np.ascontiguousarray(scales).view(np.uint8)], axis=1)

    def decode(self, records: np.ndarray) -> np.ndarray:
        """BF16 bits uint16 [n, 2, heads, head_dim] of records."""
        n = len(records)
        if self.bits == 16:
            return np.ascontiguousarray(records).view(np.uint16).reshape(n, *self.shape)
        groups, group = self._groups
        packed = records[:, : groups * group // 2]
        codes = np.stack([packed & 15, packed >> 4], axis=-1).astype(np.int8) - 8
        scales = np.ascontiguousarray(records[:, groups * group // 2 :]).view(np.uint16)
        return quant.dequantise(codes.reshape(n, groups, group), scales).reshape(n, *self.shape)
