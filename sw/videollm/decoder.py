"""A Llama decoder in float32 numpy, fed chunk by chunk against a KV cache.

Per layer: RMSNorm, q/k/v with RoPE (half-split rotation), grouped-query attention over the selected past
and, causally, the chunk itself, then RMSNorm and a SwiGLU feed-forward network.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from vrex.sw.retrieval.policies.base import Choice, Chunk, Codec, Compacted, Delivered, Policy
from vrex.sw.videollm.cache import KVCache, LayerCache
from vrex.sw.videollm.checkpoint import Tensors
from vrex.sw.videollm.config import RopeScaling, TextConfig

PREFIX = "language_model."
BLOCK_ROWS = 256
"""Most rows of a chunk that attention computes at a time."""


@dataclass(frozen=True)
class _Layer:
    """Weights [outputs, inputs]; each norm's gain is multiplied into the weights that follow it.

    `q_norm` and `k_norm` are the gains [head_dim] of the norms on each head, where there are any.
    """

    qkv: np.ndarray
    out: np.ndarray
    gate_up: np.ndarray
    down: np.ndarray
    q_norm: np.ndarray | None
    k_norm: np.ndarray | None


@dataclass(frozen=True)
class Projected:
    """A chunk in a layer.

    Attributes:
        q: float32 [query heads, rows, head_dim], RoPE applied.
        k, v: float32 [KV heads, rows, head_dim], RoPE applied to k.
        bare_q, bare_k: q and k before RoPE.
    """

    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    bare_q: np.ndarray
    bare_k: np.ndarray


def _load_layer(checkpoint: Tensors, config: TextConfig, index: int) -> _Layer:
    d, ffn = config.hidden_size, config.intermediate_size
    q_size, kv_size = config.heads * config.head_dim, config.kv_heads * config.head_dim
    at = f"{PREFIX}model.layers.{index}."

    def tensor(name: str, *shape: int) -> np.ndarray:
        return checkpoint.tensor(f"{at}{name}.weight", shape)

    projections = [("q", q_size), ("k", kv_size), ("v", kv_size)]
    qkv = np.concatenate([tensor(f"self_attn.{name}_proj", size, d) for name, size in projections])
    gate_up = np.concatenate([tensor(f"mlp.{name}_proj", ffn, d) for name in ("gate", "up")])
    return _Layer(
        qkv=qkv * tensor("input_layernorm", d),
        out=tensor("self_attn.o_proj", d, q_size),
        gate_up=gate_up * tensor("post_attention_layernorm", d),
        down=tensor("mlp.down_proj", d, ffn),
        q_norm=tensor("self_attn.q_norm", config.head_dim) if config.qk_norm else None,
        k_norm=tensor("self_attn.k_norm", config.head_dim) if config.qk_norm else None,
    )


class _Streamed(Sequence[_Layer]):
    """Layers that are read anew whenever one is needed, for models whose weights do not fit in memory."""

    def __init__(self, checkpoint: Tensors, config: TextConfig) -> None:
        self._checkpoint, self._config = checkpoint, config

    def __len__(self) -> int:
        return self._config.layers

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return _load_layer(self._checkpoint, self._config, index)


class Decoder:
    """The language model of a checkpoint.

    Args:
        checkpoint: its tensors.
        config: its shapes.
        resident: keep the layers' weights in memory, as float32; else read a layer whenever it is needed.

    Raises:
        UserError: a tensor is missing or has another shape than the config demands.
    """

    def __init__(self, checkpoint: Tensors, config: TextConfig, resident: bool = True) -> None:
        d = config.hidden_size
        self.config = config
        self.embeddings = checkpoint.tensor(f"{PREFIX}model.embed_tokens.weight", (config.vocab_size, d))
        self._layers: Sequence[_Layer] = _Streamed(checkpoint, config)
        if resident:
            self._layers = list(self._layers)
        head = self.embeddings
        if not config.tied:
            head = checkpoint.tensor(f"{PREFIX}lm_head.weight", (config.vocab_size, d))
        self._head = head * checkpoint.tensor(f"{PREFIX}model.norm.weight", (d,))
        exponents = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
        self._frequencies = (1.0 / np.float32(config.rope_theta) ** exponents).astype(np.float32)
        if config.rope is not None:
            self._frequencies = _scaled(self._frequencies, config.rope)

    def fingerprint(self) -> str:
        """SHA-256 of shapes and weights: what was measured on this decoder fits no other."""
        digest = hashlib.sha256(repr(self.config).encode())
        for layer in self._layers:
            for weights in (layer.qkv, layer.out, layer.gate_up, layer.down, layer.q_norm, layer.k_norm):
                digest.update(b"" if weights is None else weights.tobytes())
        digest.update(self.embeddings.tobytes() + self._head.tobytes())
        return digest.hexdigest()

    def new_cache(self, dtype: str = "bfloat16") -> KVCache:
        """An empty KV cache; ``dtype`` is ``"bfloat16"`` or ``"float32"``."""
        return KVCache(self.config.layers, self.config.kv_heads, self.config.head_dim, dtype)

    def forward(
        self, x: np.ndarray, cache: KVCache, stage: str = "frame", policy: Policy | None = None
    ) -> np.ndarray:
        """Run one chunk through every layer and take its keys and values into the cache.

        Args:
            x: float32 [rows, hidden_size]: embeddings of the chunk's tokens.
            cache: the past; grows by ``rows``.
            stage: ``"frame"`` or ``"text"``, passed on to the policy.
            policy: chooses the past tokens each KV head attends to; None attends to all.

        Returns:
            float32 [rows, hidden_size]: the last layer's output, before the final norm.
        """
        rotation = self._rotation(cache.length, len(x))
        for index, layer in enumerate(self._layers):
            x = x + self._attention(index, x, rotation, cache.layers[index], stage, policy)
            x += feed_forward(layer, normalise(x, self.config.eps))
        return x

    def logits(self, x: np.ndarray) -> np.ndarray:
        """float32 [rows, hidden_size], as `forward` returns it, to float32 [rows, vocab_size]."""
        return normalise(x, self.config.eps) @ self._head.T

    def _rotation(self, start: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Cosines and sines of the chunk's positions, float32 [rows, head_dim / 2]."""
        angles = np.arange(start, start + rows, dtype=np.float32)[:, None] * self._frequencies
        return np.cos(angles), np.sin(angles)

    def _attention(
        self,
        index: int,
        x: np.ndarray,
        rotation: tuple[np.ndarray, np.ndarray],
        cache: LayerCache,
        stage: str,
        policy: Policy | None,
    ) -> np.ndarray:
        rows, layer = len(x), self._layers[index]
        normed = normalise(x, self.config.eps)
        projected = self._project(index, normed, rotation, policy)
        chosen = self._choose(index, normed, projected, rotation, cache, stage, policy)
        keys, values = cache.keys, cache.values
        if isinstance(chosen, Compacted):
            attended = self._attend_compacted(projected.q, keys, values, chosen.tokens)
        elif isinstance(chosen, Delivered):
            attended = attend_delivered(projected.q, cache.last(rows), chosen.kv)
            if not chosen.keeps:
                cache.release()
        else:
            attended = attend(projected.q, keys, values, chosen)
        return joined(attended) @ layer.out.T

    def _project(
        self,
        index: int,
        normed: np.ndarray,
        rotation: tuple[np.ndarray, np.ndarray],
        policy: Policy | None,
    ) -> Projected:
        """Queries, keys and values of a layer's normalised input."""
        config, layer = self.config, self._layers[index]
        projected = _split_heads(normed @ layer.qkv.T, config.head_dim)
        heads = config.heads + config.kv_heads
        bare_q, bare_k, v = projected[: config.heads], projected[config.heads : heads], projected[heads:]
        bare_q = _normalise_heads(bare_q, layer.q_norm, config.eps)
        bare_k = _normalise_heads(bare_k, layer.k_norm, config.eps)
        if isinstance(policy, Codec):
            bare_k, v = policy.encode(index, bare_k, v)
        return Projected(_rotate(bare_q, rotation), _rotate(bare_k, rotation), v, bare_q, bare_k)

    def _choose(
        self,
        index: int,
        normed: np.ndarray,
        projected: Projected,
        rotation: tuple[np.ndarray, np.ndarray],
        cache: LayerCache,
        stage: str,
        policy: Policy | None,
    ) -> Choice:
        """Takes keys and values into the cache, and asks the policy what to attend to."""
        config, start, rows = self.config, cache.length, len(normed)
        cache.append(np.stack([projected.k, projected.v]))
        if policy is None:
            return None

        def predict_q(other: int) -> np.ndarray:
            weights = self._layers[other]
            bare = _split_heads(normed @ weights.qkv[: config.heads * config.head_dim].T, config.head_dim)
            return _rotate(_normalise_heads(bare, weights.q_norm, config.eps), rotation)

        k, v = cache.last(rows)
        return policy.select(
            Chunk(
                layer=index,
                stage=stage,
                start=start,
                q=projected.q,
                k=k,
                v=v,
                keys=cache.keys[:, : cache.keys.shape[1] - rows],
                predict_q=predict_q,
                unrotated_q=projected.bare_q,
                unrotated_k=projected.bare_k,
            )
        )

    def _attend_compacted(
        self, q: np.ndarray, keys: np.ndarray, values: np.ndarray, tokens: np.ndarray
    ) -> np.ndarray:
        """`attend` with the chosen tokens moved to the positions right before the chunk (see `Compacted`)."""
        start = keys.shape[1] - q.shape[1]
        steps = np.arange(start - len(tokens), start) - tokens
        # Tokens behind the last gap, such as a recent window, stay where they are.
        moved = np.count_nonzero(steps)
        distinct, which = np.unique(steps[:moved], return_inverse=True)
        angles = distinct.astype(np.float32)[:, None] * self._frequencies
        taken = np.concatenate([tokens, np.arange(start, keys.shape[1])])
        keys, values = keys[:, taken], values[:, taken]
        keys[:, :moved] = _rotate(keys[:, :moved], (np.cos(angles)[which], np.sin(angles)[which]))
        return attend(q, keys, values, None)


def attend(
    q: np.ndarray, keys: np.ndarray, values: np.ndarray, selected: list[np.ndarray] | None
) -> np.ndarray:
    """Grouped-query attention of a chunk over selected past tokens and, causally, over itself.

    Args:
        q: float32 [query heads, rows, head_dim]; consecutive query heads share a KV head.
        keys: float32 [KV heads, past + rows, head_dim]; the chunk's own keys come last.
        values: as ``keys``.
        selected: per KV head the past tokens to attend, int [n]; None attends to all of them.

    Returns:
        float32 [query heads, rows, head_dim].
    """
    rows, head_dim = q.shape[1:]
    kv_heads, tokens = keys.shape[:2]
    grouped = (q * np.float32(head_dim**-0.5)).reshape(kv_heads, -1, head_dim)
    if selected is None:
        return _attend_all(grouped, keys, values, rows).reshape(q.shape)
    own = np.arange(tokens - rows, tokens)
    out = np.empty_like(grouped)
    for head, past in enumerate(selected):
        taken = np.concatenate([past, own])
        out[head] = _attend_all(grouped[head], keys[head].take(taken, 0), values[head].take(taken, 0), rows)
    return out.reshape(q.shape)


def attend_delivered(q: np.ndarray, own: np.ndarray, past: list[np.ndarray]) -> np.ndarray:
    """Grouped-query attention of a chunk over keys and values of the past and, causally, over itself.

    Args:
        q: float32 [query heads, rows, head_dim]; consecutive query heads share a KV head.
        own: float32 [2, KV heads, rows, head_dim]: the chunk's keys and values.
        past: per KV head float32 [2, n, head_dim]: keys and values to attend (see `Delivered`).

    Returns:
        float32 [query heads, rows, head_dim], what `attend` gives for the same tokens in the same order.
    """
    rows, head_dim = q.shape[1:]
    grouped = (q * np.float32(head_dim**-0.5)).reshape(own.shape[1], -1, head_dim)
    out = np.empty_like(grouped)
    for head, kv in enumerate(past):
        keys, values = np.concatenate([kv, own[:, head]], axis=1)
        out[head] = _attend_all(grouped[head], keys, values, rows)
    return out.reshape(q.shape)


def _attend_all(q: np.ndarray, keys: np.ndarray, values: np.ndarray, rows: int) -> np.ndarray:
    """Softmax attention; q [..., group * rows, head_dim], already scaled, keys [..., tokens, head_dim].

    A long chunk goes through block by block, so that its scores take memory in proportion to its length. No
    result depends on that: every row's scores lie in as many places as there are tokens, 0 in those it must
    not see, and are summed in the same order.
    """
    by_row = q.reshape(*q.shape[:-2], -1, rows, q.shape[-1])
    out = np.empty_like(by_row)
    past = keys.shape[-2] - rows
    # Blocks of equal length: a short one at the end would be multiplied in another order.
    blocks = -(-rows // BLOCK_ROWS)
    for first, last in pairwise([rows * block // blocks for block in range(blocks + 1)]):
        block = by_row[..., first:last, :]
        flat = block.reshape(*q.shape[:-2], -1, q.shape[-1])
        attended = _attend_block(flat, keys, values, past + first, last - first)
        out[..., first:last, :] = attended.reshape(block.shape)
    return out.reshape(q.shape)


def _attend_block(q: np.ndarray, keys: np.ndarray, values: np.ndarray, before: int, rows: int) -> np.ndarray:
    """`_attend_all` of `rows` consecutive tokens that have `before` others before them."""
    seen = before + rows
    weights = np.zeros((*q.shape[:-1], keys.shape[-2]), dtype=np.float32)
    shown = weights[..., :seen]
    np.matmul(q, keys[..., :seen, :].swapaxes(-1, -2), out=shown)
    if rows > 1:
        own = shown[..., before:]
        own += np.tile(np.triu(np.full((rows, rows), -np.inf, dtype=np.float32), 1), (q.shape[-2] // rows, 1))
    shown -= shown.max(axis=-1, keepdims=True)
    np.exp(shown, out=shown)
    total = weights.sum(axis=-1, keepdims=True)
    out = weights @ values
    out /= total
    return out


def normalise(x: np.ndarray, eps: float) -> np.ndarray:
    """RMSNorm without its gain."""
    mean_square = np.einsum("ij,ij->i", x, x)[:, None] / np.float32(x.shape[1])
    return x / np.sqrt(mean_square + np.float32(eps))


def _normalise_heads(x: np.ndarray, gain: np.ndarray | None, eps: float) -> np.ndarray:
    """RMSNorm of each head's rows, where there is a gain [head_dim]; x [heads, rows, head_dim]."""
    if gain is None:
        return x
    mean_square = np.square(x).mean(axis=-1, keepdims=True)
    return x / np.sqrt(mean_square + np.float32(eps)) * gain


def _scaled(frequencies: np.ndarray, rope: RopeScaling) -> np.ndarray:
    """Rotary frequencies, radians a position, after Llama 3's scaling (see `RopeScaling`)."""
    wavelengths = 2 * np.pi / frequencies
    kept = (rope.original / wavelengths - rope.low) / (rope.high - rope.low)
    kept = kept.clip(0, 1)
    return ((1 - kept) * frequencies / rope.factor + kept * frequencies).astype(np.float32)


def _split_heads(x: np.ndarray, head_dim: int) -> np.ndarray:
    """[rows, heads * head_dim] to a view [heads, rows, head_dim]."""
    return x.reshape(len(x), -1, head_dim).transpose(1, 0, 2)


def joined(x: np.ndarray) -> np.ndarray:
    """[heads, rows, head_dim] to [rows, heads * head_dim]."""
    return x.transpose(1, 0, 2).reshape(x.shape[1], -1)


def _rotate(x: np.ndarray, rotation: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """RoPE: rotate (x[i], x[i + head_dim / 2]) by the position's i-th angle; x [heads, rows, head_dim]."""
    cos, sin = rotation
    half = x.shape[2] // 2
    low, high = x[..., :half], x[..., half:]
    out = np.empty(x.shape, dtype=np.float32)
    np.subtract(low * cos, high * sin, out=out[..., :half])
    np.add(high * cos, low * sin, out=out[..., half:])
    return out


def feed_forward(layer: _Layer, normed: np.ndarray) -> np.ndarray:
    """SwiGLU on transposed rows, which BLAS multiplies faster; SiLU by tanh because exp would overflow."""
    gate, up = np.split(layer.gate_up @ normed.T, 2)
    gated = np.tanh(gate * np.float32(0.5))
    gated += 1
    gated *= gate
    gated *= up
    gated *= np.float32(0.5)
    return (layer.down @ gated).T
