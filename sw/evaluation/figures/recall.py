"""Figure `recall`: the attention that each policy's selection keeps, on the same queries and keys.

The stream attends to everything. Every policy sees its chunks and selects; nothing is made of that, so no
policy's errors add up and all of them are measured on the same attention.
"""

from typing import Any

import numpy as np

from vrex.errors import UserError
from vrex.sw.evaluation.cells import Bench, Clip, VideoCell
from vrex.sw.evaluation.figures.picture import heat, new_figure, png, text_table
from vrex.sw.evaluation.figures.watch import FULL, Observed
from vrex.sw.evaluation.points import Point
from vrex.sw.retrieval.policies.account import Reporting
from vrex.sw.retrieval.policies.base import Chunk, Compacted
from vrex.sw.retrieval.policies.ranking import grouped
from vrex.sw.retrieval.policies.shape import Shape
from vrex.sw.videollm.cache import LayerCache
from vrex.sw.videollm.decoder import attend

POLICIES = ("resv", "resv-nocluster", "rekv", "infinigen-p", "quest", "topk", "streaming-llm")
WARMUP = 20
"""Frames of past from which on chunks count: earlier most of it is in the policies' windows."""


def mass_recalled(q: np.ndarray, keys: np.ndarray, tokens: list[np.ndarray]) -> np.ndarray:
    """Share of each row's softmax over the past that falls on the chosen tokens, mean over rows.

    Args:
        q: float32 [query heads, rows, head_dim].
        keys: float32 [KV heads, past, head_dim], past > 0.
        tokens: chosen past tokens of each KV head.

    Returns:
        float64 [KV heads].
    """
    scores = grouped(q, len(keys)) @ keys.swapaxes(1, 2) * np.float32(q.shape[-1] ** -0.5)
    weights = np.exp((scores - scores.max(axis=-1, keepdims=True)).astype(np.float64))
    weights /= weights.sum(axis=-1, keepdims=True)
    kept = [own[:, chosen].sum(axis=1).mean() for own, chosen in zip(weights, tokens, strict=True)]
    return np.array(kept)


def output_cosine(
    q: np.ndarray, keys: np.ndarray, values: np.ndarray, tokens: list[np.ndarray]
) -> np.ndarray:
    """Cosine of the attention's output over the chosen tokens with that over all, mean over rows.

    Args:
        q: float32 [query heads, rows, head_dim].
        keys, values: float32 [KV heads, past + rows, head_dim].
        tokens: chosen past tokens of each KV head; they keep their positions.

    Returns:
        float64 [KV heads].
    """
    whole, part = (attend(q, keys, values, chosen).astype(np.float64) for chosen in (None, tokens))
    lengths = np.linalg.norm(whole, axis=-1) * np.linalg.norm(part, axis=-1)
    cosine: np.ndarray = ((whole * part).sum(axis=-1) / lengths).reshape(len(keys), -1).mean(axis=1)
    return cosine


class Panel:
    """Policies that select side by side on one stream.

    Attributes:
        chunks: that counted, for every layer.
        mass, cosine: sums over them, float64 [layers, KV heads] of each policy.
        attended: tokens, and `past` those there were, the same way.
    """

    def __init__(self, policies: dict[str, Reporting], shape: Shape) -> None:
        self._policies, self._shape = policies, shape
        self._caches = [LayerCache(shape.kv_heads, shape.head_dim, "float32") for _ in range(shape.layers)]
        size = (shape.layers, shape.kv_heads)
        self.mass, self.cosine, self.attended = (
            {name: np.zeros(size) for name in policies} for _ in range(3)
        )
        self.chunks = self.past = 0

    def __call__(self, chunk: Chunk) -> None:
        """One layer of one chunk."""
        cache, layer = self._caches[chunk.layer], chunk.layer
        cache.append(np.stack([chunk.k, chunk.v]))
        counts = chunk.start >= WARMUP * self._shape.step_tokens
        if counts and layer == 0:
            self.chunks += 1
            self.past += chunk.start
        for name, policy in self._policies.items():
            choice = policy.select(chunk)
            if not counts:
                continue
            tokens = _tokens(choice, chunk.start, self._shape.kv_heads)
            self.mass[name][layer] += mass_recalled(chunk.q, chunk.keys, tokens)
            self.cosine[name][layer] += output_cosine(chunk.q, cache.keys, cache.values, tokens)
            self.attended[name][layer] += [len(own) for own in tokens]


def _tokens(choice: Any, start: int, heads: int) -> list[np.ndarray]:
    """A choice as past tokens of each KV head."""
    if choice is None:
        return [np.arange(start)] * heads
    return [choice.tokens] * heads if isinstance(choice, Compacted) else choice


def measure(bench: Bench, clips: list[Clip]) -> dict[str, Any]:
    """All policies at their defaults on the first video.

    Raises:
        UserError: the video is too short for any chunk to count.
    """
    if clips[0].frames <= WARMUP:
        raise UserError(f"figure recall counts from frame {WARMUP + 1} on; give --lengths more than {WARMUP}")
    shape = Shape.of(bench.model.config)
    panel = Panel({name: bench.make(Point.of(name, {})) for name in POLICIES}, shape)
    bench.run(VideoCell(FULL, clips[0]), lambda policy: Observed(policy, panel))
    return {
        "clip": vars(clips[0]),
        "chunks": panel.chunks,
        "policies": {
            name: {
                "mass": (panel.mass[name] / panel.chunks).tolist(),
                "cosine": (panel.cosine[name] / panel.chunks).tolist(),
                "ratio": (panel.attended[name] / panel.past).tolist(),
            }
            for name in POLICIES
        },
    }


def table(figures: dict[str, Any]) -> str:
    """Means and the worst layer and head of each policy."""
    head: tuple[Any, ...] = ("policy", "ratio", "mass", "worst", "cosine", "worst ")
    lines = [head]
    for name, own in figures["policies"].items():
        mass, cosine = np.array(own["mass"]), np.array(own["cosine"])
        numbers = (np.mean(own["ratio"]), mass.mean(), mass.min(), cosine.mean(), cosine.min())
        lines.append((name, *(f"{number:.3f}" for number in numbers)))
    return text_table(lines)


def plot(figures: dict[str, Any]) -> bytes:
    """Mass recalled per layer and KV head."""
    figure, axes = new_figure(len(figures["policies"]), 1.8)
    image: Any = None
    for at, (name, own) in zip(axes, figures["policies"].items(), strict=True):
        image = heat(at, own["mass"], name, 0, 1)
    axes[0].set_ylabel("layer")
    figure.colorbar(image, ax=axes[-1], label="attention mass recalled")
    return png(figure)
