"""What the decoder asks of a retrieval policy, and what it offers it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

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
        keys: float32 [KV heads, start, head_dim]: the layer's cached past keys (a view).
        predict_q: ``predict_q(layer)`` gives the queries another layer would have if this layer's
            input entered it: RoPE(norm_layer(x) W_Q[layer]), shaped as ``q``.
    """

    layer: int
    stage: str
    start: int
    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    keys: np.ndarray
    predict_q: Callable[[int], np.ndarray]


class Policy(Protocol):
    """Chooses the past tokens that each KV head of a layer attends to."""

    name: str

    def select(self, chunk: Chunk) -> list[np.ndarray] | None:
        """Token indices to attend, one ascending int array per KV head, or None for all of the past.

        Called exactly once per layer and chunk, layers ascending, before attention; the policy may also
        take the chunk's keys into its own tables here. The chunk itself is always attended (causally).
        """
        ...
