"""Policy `resv-bits` against a float64 transcription of its rule, and its accounts."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from vrex.model.config import preset
from vrex.model.dre import codes
from vrex.model.lib import arith
from vrex.sw.driver import VoterEngine, open_voter
from vrex.sw.retrieval.policies.base import Chunk
from vrex.sw.retrieval.policies.resv_bits import ResvBits, ResvBitsSettings
from vrex.sw.retrieval.policies.shape import Shape

Tapes = Callable[[int], Any]


def rounded(values: np.ndarray) -> np.ndarray:
    return arith.round_bf16(values.astype(np.float32)).astype(float)


def float_votes(
    chunk: Chunk, head: int, first: int, last: int, centre: np.ndarray, planes: np.ndarray
) -> np.ndarray:
    """Shares of the softmax, summed over rows, with keys rebuilt from their signs."""
    keys = chunk.keys[head].astype(float)
    x = rounded(keys[first:last] - centre)
    turned = x @ planes.T
    scale = (x**2).sum(axis=1) / np.abs(turned).sum(axis=1)
    rebuilt = scale[:, None] * (np.sign(turned) @ planes)
    own = rounded(chunk.k[head].astype(float) - centre)
    around = rounded(np.concatenate([keys[:first], keys[last:]]) - centre)
    votes = np.zeros(last - first)
    group, rows = len(chunk.q) // len(chunk.k), chunk.k.shape[1]
    for query_head in range(group):
        for row in range(rows):
            q = rounded(chunk.q[head * group + query_head][row]) / math.sqrt(chunk.q.shape[-1])
            scores = np.concatenate([around @ q, own[: row + 1] @ q, rebuilt @ q])
            weights = np.exp(scores - scores.max())
            votes += weights[len(around) + row + 1 :] / weights.sum()
    return votes


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(("k", "sinks", "window"), [(5, 0, 0), (9, 4, 2), (20, 1, 1)])
def test_the_tokens_with_the_most_votes(
    make_tape: Tapes, shape: Shape, seed: int, k: int, sinks: int, window: int
) -> None:
    policy = ResvBits(ResvBitsSettings(k=k, sinks=sinks, window=window, seed=seed), shape)
    centres: dict[tuple[int, int], np.ndarray] = {}
    lost = chosen_votes = 0.0
    compared = 0
    for chunk in make_tape(seed).chunks():
        chosen = policy.select(chunk)
        first = min(sinks, chunk.start)
        last = max(first, chunk.start - window * shape.step_tokens)
        for head, tokens in enumerate(chosen):
            assert list(tokens) == sorted(set(tokens))
            resident = [*range(first), *range(last, chunk.start)]
            assert set(resident) <= set(tokens)
            coded = [t - first for t in tokens if first <= t < last]
            assert len(coded) == min(k, last - first)
            at = chunk.layer, head
            if at not in centres and last > first:
                keys = chunk.keys[head, sinks:].astype(float)
                centres[at] = rounded(rounded(keys).mean(axis=0))
            if last - first <= k:
                continue
            planes = arith.from_bf16(codes.planes(seed, *at, 64, shape.head_dim)).astype(float)
            votes = float_votes(chunk, head, first, last, centres[at], planes)
            best = np.sort(votes)[::-1][:k].sum()
            lost += best - votes[coded].sum()
            chosen_votes += best
            compared += 1
    # The hardware's rounding of queries, scores and weights exchanges tokens whose votes are nearly equal.
    assert compared > 5
    assert lost < 0.01 * chosen_votes


def test_bytes_are_counted(make_tape: Tapes, shape: Shape) -> None:
    """Transcribed from the table of `vrex.sw.retrieval.policies.account`."""
    k, sinks, window = 6, 2, 1
    policy = ResvBits(ResvBitsSettings(k=k, sinks=sinks, window=window), shape)
    metadata = fetched = 0
    written = [sinks] * shape.layers
    for chunk in make_tape(2).chunks():
        policy.select(chunk)
        last = max(min(sinks, chunk.start), chunk.start - window * shape.step_tokens)
        coded = last - min(sinks, chunk.start)
        metadata += (coded * 10 if coded > k else 0) * shape.kv_heads
        metadata += max(0, last - written[chunk.layer]) * shape.kv_heads * (10 + 2 * shape.head_dim)
        written[chunk.layer] = max(written[chunk.layer], last)
        fetched += min(k, coded) * shape.kv_heads
    report = policy.report()["fetched"]
    assert report["metadata_bytes"] == metadata
    assert report["tokens"] == fetched > 0
    assert report["bytes"] == fetched * 2 * shape.head_dim * 2


def test_bits_and_seed_change_the_choice(make_tape: Tapes, shape: Shape) -> None:
    def choices(**knobs: int) -> list[list[int]]:
        policy = ResvBits(ResvBitsSettings(k=4, window=0, **knobs), shape)
        return [list(tokens) for chunk in make_tape(1).chunks() for tokens in policy.select(chunk)]

    default = choices()
    assert default == choices(bits=64, seed=0)
    assert all(default != choices(**other) for other in ({"bits": 32}, {"bits": 128}, {"seed": 1}))


@pytest.mark.parametrize("bits", [32, 64, 128])
def test_a_voter_selects_what_the_host_does(make_tape: Tapes, shape: Shape, bits: int) -> None:
    settings = ResvBitsSettings(k=5, bits=bits, window=1)
    voter = VoterEngine(open_voter("golden", preset("tiny").with_code_bits(bits)))
    host, asked = ResvBits(settings, shape), ResvBits(settings, shape, voter)
    for chunk in make_tape(3).chunks():
        for own, other in zip(host.select(chunk), asked.select(chunk), strict=True):
            assert own.tolist() == other.tolist()
    assert host.report()["fetched"] == asked.report()["fetched"]
    assert host.report()["rtl"]["calls"] == 0
    assert asked.report()["rtl"]["calls"] > shape.kv_heads
