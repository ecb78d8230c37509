"""Keys and queries of the shipped checkpoint, as the retrieval engine receives them."""

from dataclasses import dataclass

import numpy as np

from vrex.model.lib import arith
from vrex.model.lxe import mac_tree
from vrex.sw.retrieval.policies.base import Chunk
from vrex.sw.videollm.procstream.procvideo import make
from vrex.sw.videollm.stream import Stream
from vrex.sw.videollm.videollm import VideoLLM

_VIDEO_SEED = 3


@dataclass(frozen=True)
class Trace:
    """What one decoder layer held when a frame's chunk came.

    Attributes:
        keys: BF16 bits, uint16 [KV heads, tokens, head_dim]: the past keys, RoPE applied.
        values: as `keys`.
        queries: BF16 bits, uint16 [KV heads, rows, head_dim]: the chunk's queries, grouped by KV head.
    """

    keys: np.ndarray
    values: np.ndarray
    queries: np.ndarray

    def scores(self, head: int, tokens: int) -> np.ndarray:
        """Queries times the first keys, without clustering: BF16 bits, uint16 [rows, tokens]."""
        return mac_tree.dot_bf16(self.queries[head], self.keys[head, :tokens])


class _Watch:
    """A policy that attends to everything and keeps what it saw last."""

    name = "watch"

    def __init__(self, layers: int) -> None:
        self.chunks: list[Chunk | None] = [None] * layers

    def select(self, chunk: Chunk) -> None:
        """See `Policy.select`."""
        self.chunks[chunk.layer] = chunk


def capture(tokens: int) -> list[Trace]:
    """Streams a ProcStream video until so many tokens are past; one trace a layer.

    Args:
        tokens: least number of past tokens.
    """
    model = VideoLLM.load()
    video = make(_VIDEO_SEED, -(-tokens // model.config.frame_tokens) + 2)
    watch = _Watch(model.config.text.layers)
    stream = Stream(model, policy=watch)
    for _ in stream.run(video.frames):
        last = watch.chunks[-1]
        if last is not None and last.start >= tokens:
            break
    kv_heads = model.config.text.kv_heads
    traces = []
    for chunk, cache in zip(watch.chunks, stream.cache.layers, strict=True):
        assert chunk is not None
        grouped = arith.to_bf16(chunk.q).reshape(kv_heads, -1, chunk.q.shape[2])
        values = arith.to_bf16(cache.values[:, : chunk.start])
        traces.append(Trace(arith.to_bf16(chunk.keys), values, grouped))
    return traces
