"""What policies see and what their choice does; equality with transformers is tested elsewhere."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from vrex.model.lib.arith import round_bf16
from vrex.sw.retrieval.policies.base import Chunk
from vrex.sw.videollm.decoder import Decoder, attend
from vrex.sw.videollm.videollm import VideoLLM


@dataclass
class Keep:
    """Keeps a random share of the past for each KV head, and remembers what it was given."""

    share: float
    name: str = "keep"
    seen: list[Chunk] = field(default_factory=list)

    def select(self, chunk: Chunk) -> list[np.ndarray] | None:
        self.seen.append(chunk)
        rng = np.random.default_rng(len(self.seen))
        kept = rng.random((len(chunk.keys), chunk.start)) < self.share
        return [np.flatnonzero(row) for row in kept]


class KeepAll:
    name = "all"

    def select(self, chunk: Chunk) -> None:
        return None


def chunks(decoder: Decoder, rows: list[int], seed: int = 5) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((n, decoder.config.hidden_size)).astype(np.float32) for n in rows]


@pytest.mark.parametrize("policy", [Keep(share=2.0), KeepAll()])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_selecting_everything_is_full_attention(tiny: VideoLLM, policy: Keep | KeepAll, dtype: str) -> None:
    decoder = tiny.decoder
    full, chosen = decoder.new_cache(dtype), decoder.new_cache(dtype)
    for x in chunks(decoder, [3, 7, 1, 8]):
        expected = decoder.forward(x, full)
        np.testing.assert_allclose(decoder.forward(x, chosen, policy=policy), expected, atol=1e-5)


def masked_attention(q: np.ndarray, keys: np.ndarray, values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Softmax attention in float64, head by head; mask [KV heads, rows, tokens] of what may be attended."""
    group = len(q) // len(keys)
    out = np.empty(q.shape)
    for head, rows in enumerate(q.astype(np.float64)):
        kv = head // group
        scores = rows @ keys[kv].T.astype(np.float64) / np.sqrt(q.shape[2])
        scores[~mask[kv]] = -np.inf
        weights = np.exp(scores - scores.max(1, keepdims=True))
        out[head] = (weights / weights.sum(1, keepdims=True)) @ values[kv].astype(np.float64)
    return out


@pytest.mark.parametrize(("heads", "kv_heads", "rows", "past"), [(6, 2, 11, 40), (4, 4, 1, 9), (3, 1, 5, 0)])
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0, None])
def test_attention_equals_a_masked_softmax(
    heads: int, kv_heads: int, rows: int, past: int, share: float | None
) -> None:
    rng = np.random.default_rng(6)
    q = 3 * rng.standard_normal((heads, rows, 8)).astype(np.float32)
    keys, values = rng.standard_normal((2, kv_heads, past + rows, 8)).astype(np.float32)
    kept = rng.random((kv_heads, past)) < (1.0 if share is None else share)
    causal = np.tri(rows, dtype=bool)
    mask = np.concatenate([np.repeat(kept[:, None], rows, 1), np.tile(causal, (kv_heads, 1, 1))], axis=2)
    selected = None if share is None else [np.flatnonzero(row) for row in kept]
    expected = masked_attention(q, keys, values, mask)
    np.testing.assert_allclose(attend(q, keys, values, selected), expected, atol=2e-6)


def test_a_subset_changes_the_result(tiny: VideoLLM) -> None:
    decoder = tiny.decoder
    full, few = decoder.new_cache(), decoder.new_cache()
    first, second = chunks(decoder, [20, 4])
    decoder.forward(first, full)
    decoder.forward(first, few)
    difference = decoder.forward(second, full) - decoder.forward(second, few, policy=Keep(share=0.2))
    assert np.abs(difference).max() > 1e-2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_a_policy_sees(tiny: VideoLLM, dtype: str) -> None:
    decoder, config = tiny.decoder, tiny.config.text
    cache, policy = decoder.new_cache(dtype), Keep(share=2.0)
    for x, stage in zip(chunks(decoder, [5, 3]), ("frame", "text"), strict=True):
        decoder.forward(x, cache, stage, policy)
    assert [c.layer for c in policy.seen] == [0, 1, 2, 0, 1, 2]
    assert [c.stage for c in policy.seen] == ["frame"] * 3 + ["text"] * 3
    assert [c.start for c in policy.seen] == [0] * 3 + [5] * 3
    for chunk, before in zip(policy.seen[3:], policy.seen[:3], strict=True):
        assert chunk.q.shape == (config.heads, 3, config.head_dim)
        assert chunk.k.shape == chunk.v.shape == (config.kv_heads, 3, config.head_dim)
        np.testing.assert_array_equal(chunk.keys, before.k)
        np.testing.assert_array_equal(cache.layers[chunk.layer].keys[:, 5:], chunk.k)
        np.testing.assert_array_equal(cache.layers[chunk.layer].values[:, 5:], chunk.v)
        if dtype == "bfloat16":
            np.testing.assert_array_equal(chunk.k, round_bf16(chunk.k))
            np.testing.assert_array_equal(chunk.v, round_bf16(chunk.v))
            assert (chunk.q != round_bf16(chunk.q)).any()


def test_predicted_queries(tiny: VideoLLM) -> None:
    """Layer l's own prediction is its q; layer l + 1's is that layer's q for the input of layer l."""
    decoder, policy = tiny.decoder, Keep(share=2.0)
    (x,) = chunks(decoder, [4])
    decoder.forward(x, decoder.new_cache(), policy=policy)
    for chunk in policy.seen:
        np.testing.assert_allclose(chunk.predict_q(chunk.layer), chunk.q, atol=1e-6)
    assert np.abs(policy.seen[0].predict_q(1) - policy.seen[1].q).max() > 0.1
    layers = list(decoder._layers)
    decoder._layers = layers[1:] + layers[:1]
    rotated = Keep(share=2.0)
    decoder.forward(x, decoder.new_cache(), policy=rotated)
    decoder._layers = layers
    np.testing.assert_allclose(policy.seen[0].predict_q(1), rotated.seen[0].q, atol=1e-6)


def test_chunking_does_not_matter(tiny: VideoLLM) -> None:
    decoder = tiny.decoder
    (x,) = chunks(decoder, [12])
    whole = decoder.forward(x, decoder.new_cache("float32"))
    cache = decoder.new_cache("float32")
    parts = [decoder.forward(row[None], cache) for row in x]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=2e-5)
    assert cache.length == 12
