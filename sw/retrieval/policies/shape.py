"""The dimensions of a decoder that a policy has to know before the first chunk."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vrex.sw.videollm.config import ModelConfig


@dataclass(frozen=True)
class Shape:
    """A decoder as a policy sees it.

    Attributes:
        layers: decoder layers.
        query_heads: query heads of a layer, a multiple of `kv_heads`; consecutive ones share a KV head.
        kv_heads: KV heads of a layer.
        head_dim: length of one head's key.
        frame_tokens: embeddings of one frame; with the interval token a frame adds one more to the past.
    """

    layers: int
    query_heads: int
    kv_heads: int
    head_dim: int
    frame_tokens: int

    @property
    def step_tokens(self) -> int:
        """Tokens that one more frame adds to the past, its interval token included."""
        return self.frame_tokens + 1

    @classmethod
    def of(cls, config: "ModelConfig") -> "Shape":
        """The shape of a checkpoint's decoder."""
        text = config.text
        return cls(text.layers, text.heads, text.kv_heads, text.head_dim, config.frame_tokens)
