"""The interface between decoder and retrieval policy."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

FRAME = "frame"
TEXT = "text"


@dataclass(frozen=True)
class Chunk:
    """What one decoder layer knows when a chunk (a frame or a few text tokens) enters it.

    Attributes:
        layer: index of the decoder layer.
        stage: ``"frame"`` or ``"text"``.
        start: number of past tokens, which is also the position of the chunk's first token.
        q: float32 [query heads, rows, head_dim], RoPE applied.
        k: float32 [KV heads, rows, head_dim], RoPE applied, as the cache stores it.
        v: float32 [KV heads, rows, head_dim], as the cache stores it.
        keys: float32 [KV heads, start, head_dim]: the layer's cached past keys (a view); [KV heads, 0,
            head_dim] where the policy keeps the past itself (see `Delivered`).
        predict_q: ``predict_q(layer)`` gives the queries another layer would have if this layer's
            input entered it: RoPE(norm_layer(x) W_Q[layer]), shaped as ``q``.
        unrotated_q, unrotated_k: the chunk's ``q`` and ``k`` before RoPE and before the cache's rounding.
    """

    layer: int
    stage: str
    start: int
    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    keys: np.ndarray
    predict_q: Callable[[int], np.ndarray]
    unrotated_q: np.ndarray
    unrotated_k: np.ndarray


@dataclass(frozen=True)
class Compacted:
    """Past tokens to attend in all KV heads, at consecutive positions.

    The n chosen tokens take the n positions right before the chunk. RoPE depends on differences of positions
    only, so this is the same as counting them from 0 and placing the chunk behind them.

    Attributes:
        tokens: int [n], ascending.
    """

    tokens: np.ndarray


@dataclass(frozen=True)
class Delivered:
    """Past tokens to attend, keys and values included, by a policy that keeps the past itself.

    Such a policy returns this for every chunk; the cache then drops each chunk after attention, unless it
    `keeps` them.

    Attributes:
        kv: per KV head float32 [2, n, head_dim]: keys (RoPE applied), then values, in order of position.
        keeps: the cache keeps every chunk, because the policy reads the past's keys there.
    """

    kv: list[np.ndarray]
    keeps: bool = False


Choice = list[np.ndarray] | Compacted | Delivered | None
"""Past tokens to attend: one ascending int array per KV head, None for all of the past, or a class above."""


class Policy(Protocol):
    """Chooses the past tokens that each KV head of a layer attends to."""

    name: str

    def select(self, chunk: Chunk) -> Choice:
        """Past tokens to attend.

        Called exactly once per layer and chunk, layers ascending, before attention; the policy may also
        take the chunk's keys into its own tables here. The chunk itself is always attended (causally).
        """
        ...


@runtime_checkable
class Codec(Protocol):
    """A policy that also changes what the cache keeps, such as a quantiser."""

    def encode(self, layer: int, k: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Keys (before RoPE) and values as they read back from storage.

        Args:
            layer: decoder layer.
            k: float32 [KV heads, rows, head_dim].
            v: as ``k``.
        """
        ...
