"""The dimensions of a decoder that a policy has to know before the first chunk."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """A decoder as a policy sees it.

    Attributes:
        layers: decoder layers.
        query_heads: query heads of a layer, a multiple of `kv_heads`.
        kv_heads: KV heads of a layer.
        head_dim: length of one head's key.
        frame_tokens: embeddings of one frame; with the interval token a frame adds one more to the past.
    """

    layers: int
    query_heads: int
    kv_heads: int
    head_dim: int
    frame_tokens: int
