"""Keys and queries of real streams before RoPE, for `vrex.sw.evaluation.benches.codes`."""

from pathlib import Path
from typing import Any

import numpy as np

from vrex.sw.evaluation.benches.codes import Source
from vrex.sw.retrieval.policies.base import FRAME, Chunk
from vrex.sw.videollm.config import TextConfig

VIDEO_HEADS = ((1, 0), (3, 1), (6, 0))
TEXT_HEADS = ((15, 1), (7, 0), (23, 2))
"""Layer and KV head; the first ones are those of the longest streams."""

VIDEO_SEED, FRAMES = 1000, 384
TEXT_TOKENS, TEXT_ROWS = 4096, 32

CAPTURE = tuple[tuple[int, int], ...]


class _Tap:
    """A policy that attends to everything and keeps what enters some heads (see `Policy`)."""

    name = "full"

    def __init__(self, heads: CAPTURE) -> None:
        self._parts: dict[tuple[int, int], list[Chunk]] = {head: [] for head in heads}

    def select(self, chunk: Chunk) -> None:
        """All of the past (see `Policy.select`)."""
        for (layer, _), parts in self._parts.items():
            if layer == chunk.layer:
                parts.append(chunk)

    def report(self) -> dict[str, Any]:
        """Nothing: no bytes are counted."""
        return {}

    def sources(self, model: str, config: TextConfig) -> list[Source]:
        """What went through the heads."""
        exponents = -np.arange(0, config.head_dim, 2) / config.head_dim
        frequencies = float(config.rope_theta) ** exponents
        group = config.heads // config.kv_heads
        return [
            Source(
                model,
                layer,
                head,
                np.concatenate([chunk.unrotated_k[head] for chunk in parts]),
                np.concatenate(
                    [chunk.unrotated_q[head * group : (head + 1) * group] for chunk in parts], axis=1
                ),
                frequencies,
            )
            for (layer, head), parts in self._parts.items()
        ]


def video_sources(heads: CAPTURE = VIDEO_HEADS, frames: int = FRAMES) -> list[Source]:
    """The shipped checkpoint on a ProcStream video without questions."""
    from vrex.sw.evaluation.cells import FPS
    from vrex.sw.videollm.procstream import make
    from vrex.sw.videollm.stream import Stream, VideoLLM

    model, tap = VideoLLM.load(), _Tap(heads)
    video = make(VIDEO_SEED, frames, FPS, 0)
    embeddings = np.stack([model.embed_frame(frame) for frame in video.frames])
    list(Stream(model, tap, mode="quiet", fps=FPS).run(embeddings, []))
    return tap.sources("ProcStream", model.config.text)


def text_sources(weights: Path, heads: CAPTURE = TEXT_HEADS, tokens: int = TEXT_TOKENS) -> list[Source]:
    """SmolLM2 on the prose that `vrex eval-text` reads first.

    Raises:
        UserError: the file can't be read, or this Python has no such text.
    """
    from vrex.sw.evaluation.text.corpus import cut, python_topics
    from vrex.sw.evaluation.text.gguf import TextModel

    model, tap = TextModel.load(weights), _Tap(heads)
    ids = cut(python_topics(), model.encode, tokens, 1)[0]
    decoder, cache = model.decoder, model.decoder.new_cache()
    for start in range(0, len(ids), TEXT_ROWS):
        decoder.forward(decoder.embeddings[ids[start : start + TEXT_ROWS]], cache, FRAME, tap)
    return tap.sources("SmolLM2", model.config)
