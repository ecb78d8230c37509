"""The dimensions of a decoder that a policy has to know before the first chunk."""

from dataclasses import dataclass
from typing import Protocol


class DecoderConfig(Protocol):
    """The part of a model's configuration that describes its decoder."""

    @property
    def layers(self) -> int:
        """Decoder layers."""
        ...

    @property
    def heads(self) -> int:
        """Query heads of a layer."""
        ...

    @property
    def kv_heads(self) -> int:
        """KV heads of a layer."""
        ...

    @property
    def head_dim(self) -> int:
        """Length of one head's key."""
        ...


class ModelConfig(Protocol):
    """A video LLM's configuration; `vrex.sw.videollm.config.ModelConfig` is one."""

    @property
    def text(self) -> DecoderConfig:
        """Of the decoder."""
        ...

    @property
    def frame_tokens(self) -> int:
        """Embeddings of one frame."""
        ...


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
    def of(cls, config: ModelConfig) -> "Shape":
        """The shape of a checkpoint's decoder."""
        text = config.text
        return cls(text.layers, text.heads, text.kv_heads, text.head_dim, config.frame_tokens)
