import numpy as np
import pytest

from vrex.model.lib.arith import round_bf16
from vrex.sw.videollm.cache import KVCache, LayerCache


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_growth_keeps_every_token(dtype: str) -> None:
    rng = np.random.default_rng(3)
    cache = LayerCache(kv_heads=2, head_dim=4, dtype=dtype, capacity=3)
    chunks = [rng.standard_normal((2, 2, rows, 4)).astype(np.float32) for rows in (1, 2, 5, 40, 1)]
    for chunk in chunks:
        cache.append(chunk)
    expected = np.concatenate(chunks, axis=2)
    if dtype == "bfloat16":
        expected = round_bf16(expected)
    assert cache.length == 49
    np.testing.assert_array_equal(cache.keys, expected[0])
    np.testing.assert_array_equal(cache.values, expected[1])


def test_buffers_double() -> None:
    cache = LayerCache(kv_heads=1, head_dim=2, dtype="float32", capacity=4)
    buffers = set()
    for _ in range(1000):
        cache.append(np.zeros((2, 1, 1, 2), dtype=np.float32))
        buffers.add(cache._buffer.shape[2])
    assert sorted(buffers) == [4 * 2**i for i in range(9)]


def test_length_and_unknown_dtype() -> None:
    assert KVCache(3, 1, 2).length == 0
    with pytest.raises(ValueError, match="float16"):
        LayerCache(1, 2, "float16")


def test_released_tokens_are_gone_but_counted() -> None:
    cache = LayerCache(kv_heads=2, head_dim=4, dtype="float32", capacity=3)
    first, second = (np.full((2, 2, rows, 4), rows, dtype=np.float32) for rows in (5, 3))
    cache.append(first)
    cache.release()
    assert (cache.length, cache.keys.shape[1]) == (5, 0)
    cache.append(second)
    assert cache.length == 8
    np.testing.assert_array_equal(cache.keys, second[0])
    np.testing.assert_array_equal(cache.values, second[1])
