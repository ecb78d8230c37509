"""Policy `resv-bits` in the memory of the unit `recall`, against the policy on the host."""

from collections.abc import Iterator

import numpy as np
import pytest

from vrex.errors import UserError
from vrex.model.config import preset
from vrex.model.lib import arith
from vrex.sw.driver import StoreLayout, open_recall
from vrex.sw.driver.transport import DriverError
from vrex.sw.retrieval.policies.base import FRAME, TEXT, Chunk
from vrex.sw.retrieval.policies.memory_codes import ResvBitsInMemory, fitted
from vrex.sw.retrieval.policies.narrow import Narrow
from vrex.sw.retrieval.policies.resv_bits import ResvBits, ResvBitsSettings
from vrex.sw.retrieval.policies.shape import Shape

SHAPE = Shape(layers=2, query_heads=4, kv_heads=2, head_dim=16, frame_tokens=4)
SIZES = [(FRAME, 3), *[(FRAME, 4)] * 6, (TEXT, 3), (TEXT, 1), *[(FRAME, 4)] * 4, (TEXT, 1)]
BROKEN = 9
"""A token with a NaN in its key, where one is asked for."""


class Stream:
    """Random chunks, their keys and values apart."""

    def __init__(self, seed: int, *, broken: bool = False) -> None:
        rng = np.random.default_rng(seed)
        total = sum(rows for _, rows in SIZES)

        def drawn(heads: int) -> np.ndarray:
            values = 2 * rng.standard_normal((SHAPE.layers, heads, total, SHAPE.head_dim))
            return arith.round_bf16(values.astype(np.float32))

        self.q, self.k, self.v = drawn(4), drawn(2), drawn(2)
        if broken:
            self.k[:, 0, BROKEN, 3] = np.nan

    def chunks(self, *, keeps: bool) -> Iterator[Chunk]:
        """With the past's keys, or without them as for a policy that keeps the past itself."""
        start = 0
        for stage, rows in SIZES:
            span = slice(start, start + rows)
            for layer in range(SHAPE.layers):
                q, k = self.q[layer][:, span], self.k[layer][:, span]
                past = self.k[layer][:, : start if keeps else 0]
                v = self.v[layer][:, span]
                yield Chunk(layer, stage, start, q, k, v, past, self.q[:, :, span].__getitem__, q, k)
            start += rows


def in_memory(
    settings: ResvBitsSettings, *, backend: str = "golden", check: bool = False
) -> ResvBitsInMemory:
    config = fitted(preset("tiny"), settings, SHAPE)
    stores, packs = SHAPE.layers * SHAPE.kv_heads, settings.kv_bits == 4
    layout = StoreLayout.of(config, stores, 60, is_packed=packs)
    transport = open_recall(backend, config, check, layout.new_memory())
    return ResvBitsInMemory(settings, SHAPE, transport, layout)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(
    ("k", "sinks", "window", "bits"), [(5, 0, 0, 64), (9, 4, 2, 32), (3, 6, 1, 128), (1000, 2, 1, 64)]
)
def test_delivers_what_the_host_selects(seed: int, k: int, sinks: int, window: int, bits: int) -> None:
    settings = ResvBitsSettings(k=k, sinks=sinks, window=window, bits=bits, seed=seed, kv_bits=16)
    host, memory, stream = ResvBits(settings, SHAPE), in_memory(settings), Stream(seed)
    retrieved = 0
    for own, bare in zip(stream.chunks(keeps=True), stream.chunks(keeps=False), strict=True):
        selected, delivered = host.select(own), memory.select(bare)
        retrieved += own.start > len(selected[0])
        for head, tokens in enumerate(selected):
            wanted = np.stack([values[own.layer, head, tokens] for values in (stream.k, stream.v)])
            np.testing.assert_array_equal(delivered.kv[head], wanted)
        assert not delivered.keeps
    assert (retrieved > 5) == (k < 1000)
    ours, theirs = memory.report(), host.report()
    assert ours["ratio"] == theirs["ratio"]
    for figure in ("tokens", "bytes"):
        assert ours["fetched"][figure] == theirs["fetched"][figure]
    assert ours["stores"]["delivered_bytes"] == ours["fetched"]["bytes"] > 0


@pytest.mark.parametrize(("backend", "rotate"), [("golden", False), ("golden", True), ("rtl", True)])
def test_packed_keys_and_values_read_back_as_the_hosts(backend: str, rotate: bool) -> None:
    settings = ResvBitsSettings(k=6, prompt=2, sinks=2, window=1, kv_bits=4, rotate=rotate)
    stream = Stream(7)
    host = Narrow(ResvBits(settings, SHAPE), settings, SHAPE)
    memory = in_memory(settings, backend=backend, check=backend == "rtl")
    for own, bare in zip(stream.chunks(keeps=True), stream.chunks(keeps=False), strict=True):
        for wanted, got in zip(host.select(own).kv, memory.select(bare).kv, strict=True):
            np.testing.assert_array_equal(got, wanted)
    report = memory.report()
    # A record of 16 dimensions has 20 bytes, 24 in whole beats.
    assert report["fetched"]["bytes"] == 24 * host.report()["fetched"]["tokens"] > 0
    assert report["stores"]["delivered_bytes"] == 64 * host.report()["fetched"]["tokens"]
    assert report["rtl"]["mismatches"] == 0


def test_bytes_are_counted() -> None:
    """Transcribed from the table of `vrex.sw.retrieval.policies.account`."""
    sinks, window = 2, 1
    policy = in_memory(ResvBitsSettings(k=6, sinks=sinks, window=window))
    metadata, stored, in_stores = 0, [sinks] * SHAPE.layers, 0
    for chunk in Stream(3).chunks(keeps=False):
        policy.select(chunk)
        last = max(min(sinks, chunk.start), chunk.start - window * SHAPE.step_tokens)
        new, coded = max(0, last - stored[chunk.layer]), last - min(sinks, chunk.start)
        metadata += SHAPE.kv_heads * ((new > 0) * 32 + new * (10 + 2 * SHAPE.head_dim))
        metadata += SHAPE.kv_heads * ((coded > 0) * 32 + coded * 10)
        stored[chunk.layer] += new
        in_stores += new * SHAPE.kv_heads
    report = policy.report()
    assert report["fetched"]["metadata_bytes"] == metadata
    assert report["stores"]["tokens"] == in_stores
    assert report["stores"]["bytes"] == 4 * 32 + in_stores * 10


def test_the_rtl_delivers_the_same() -> None:
    settings = ResvBitsSettings(k=5, window=1)
    golden, rtl = in_memory(settings), in_memory(settings, backend="rtl", check=True)
    for chunk in Stream(4).chunks(keeps=False):
        for own, other in zip(golden.select(chunk).kv, rtl.select(chunk).kv, strict=True):
            np.testing.assert_array_equal(own, other)
    report = rtl.report()
    assert (report["rtl"]["mismatches"], report["rtl"]["compared"] > report["rtl"]["calls"]) == (0, True)
    beats = report["stores"]["delivered_bytes"] // preset("tiny").bus_bytes
    assert report["stores"]["counters"]["kv_beats"] == beats > 0


@pytest.mark.parametrize("k", [5, 1000])
def test_a_key_that_is_not_finite_is_never_delivered(k: int) -> None:
    policy = in_memory(ResvBitsSettings(k=k, sinks=2, window=1))
    # Whole once it is in a store: until then it is in the window.
    behind = BROKEN + 1 + SHAPE.step_tokens
    for chunk in Stream(5, broken=True).chunks(keeps=False):
        delivered = policy.select(chunk)
        if chunk.start >= behind:
            assert not np.isnan(delivered.kv[0]).any()
    assert policy.report()["nan_keys"] == SHAPE.layers


def test_a_full_store_and_another_stream_end_with_a_sentence() -> None:
    settings = ResvBitsSettings(k=5, sinks=0, window=0)
    config = fitted(preset("tiny"), settings, SHAPE)
    layout = StoreLayout.of(config, SHAPE.layers * SHAPE.kv_heads, 10)
    transport = open_recall("golden", config, False, layout.new_memory())
    policy = ResvBitsInMemory(settings, SHAPE, transport, layout)
    chunks = list(Stream(6).chunks(keeps=False))
    # The fourth chunk has 11 tokens in front of it.
    for chunk in chunks[: 3 * SHAPE.layers]:
        policy.select(chunk)
    with pytest.raises(DriverError, match="a store of layer 0 has room for 10 tokens and is full"):
        policy.select(chunks[3 * SHAPE.layers])
    with pytest.raises(ValueError, match="a policy serves one stream"):
        in_memory(settings).select(chunks[-1])


def test_what_a_dre_cannot_serve() -> None:
    with pytest.raises(UserError, match="set levels=1, or leave --offload dre out"):
        fitted(preset("tiny"), ResvBitsSettings(levels=2), SHAPE)
    odd = Shape(layers=1, query_heads=1, kv_heads=1, head_dim=10, frame_tokens=1)
    with pytest.raises(UserError, match=r"a DRE can't serve this model: .*head_dim"):
        fitted(preset("tiny"), ResvBitsSettings(), odd)
