"""The decoder's KV cache: one growing buffer a layer, read as views."""

import numpy as np

from vrex.model.lib.arith import round_bf16

DTYPES = ("float32", "bfloat16")


class LayerCache:
    """Keys and values of one decoder layer.

    Attributes:
        length: tokens that have been appended, released ones included.

    Args:
        kv_heads: number of KV heads.
        head_dim: dimensions of one head.
        dtype: ``"float32"``, or ``"bfloat16"``: every stored value is rounded (to nearest even) to BF16
            precision, while the buffer stays float32 so that it feeds the arithmetic without conversion.
        capacity: tokens the first buffer holds; it doubles when full.
    """

    def __init__(self, kv_heads: int, head_dim: int, dtype: str, capacity: int = 256) -> None:
        if dtype not in DTYPES:
            raise ValueError(f"cache dtype {dtype!r} is none of {', '.join(DTYPES)}")
        self._rounds = dtype == "bfloat16"
        self._buffer = np.empty((2, kv_heads, capacity, head_dim), dtype=np.float32)
        self.length = self._held = 0

    @property
    def keys(self) -> np.ndarray:
        """float32 [KV heads, tokens since `release`, head_dim], a view."""
        return self._buffer[0, :, : self._held]

    @property
    def values(self) -> np.ndarray:
        """float32 [KV heads, tokens since `release`, head_dim], a view."""
        return self._buffer[1, :, : self._held]

    def last(self, rows: int) -> np.ndarray:
        """Keys and values of the last tokens, float32 [2, KV heads, rows, head_dim], a view."""
        return self._buffer[:, :, self._held - rows : self._held]

    def append(self, kv: np.ndarray) -> None:
        """Store the keys and values of new tokens.

        Args:
            kv: float32 [2, KV heads, rows, head_dim]: keys (RoPE applied), then values.
        """
        rows = kv.shape[2]
        end = self._held + rows
        if end > self._buffer.shape[2]:
            self._grow(end)
        self._buffer[:, :, self._held : end] = round_bf16(kv) if self._rounds else kv
        self._held = end
        self.length += rows

    def release(self) -> None:
        """Drops all keys and values; from here on the policy keeps them."""
        self._held = 0

    def _grow(self, needed: int) -> None:
        old = self._buffer
        capacity = max(needed, 2 * old.shape[2])
        self._buffer = np.empty((*old.shape[:2], capacity, old.shape[3]), dtype=np.float32)
        self._buffer[:, :, : self._held] = old[:, :, : self._held]


class KVCache:
    """The caches of all decoder layers; each layer appends the same tokens as a chunk passes through it."""

    def __init__(self, layers: int, kv_heads: int, head_dim: int, dtype: str = "bfloat16") -> None:
        self.layers = [LayerCache(kv_heads, head_dim, dtype) for _ in range(layers)]

    @property
    def length(self) -> int:
        """Tokens that have passed every layer."""
        return self.layers[-1].length
