"""Policy `resv-bits` against a float64 transcription of its rule, and its accounts."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from vrex.errors import UserError
from vrex.model.config import preset
from vrex.model.dre import codes
from vrex.model.lib import arith
from vrex.sw.driver import VoterEngine, open_voter
from vrex.sw.retrieval.policies import resv_bits
from vrex.sw.retrieval.policies.base import TEXT, Chunk
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
    settings = ResvBitsSettings(k=k, prompt=2.5, sinks=sinks, window=window, seed=seed)
    policy = ResvBits(settings, shape)
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
            is_prompt = chunk.stage == TEXT and chunk.k.shape[1] > 1
            wanted = math.ceil(2.5 * k) if is_prompt else k
            assert len(coded) == min(wanted, last - first)
            at = chunk.layer, head
            if at not in centres and last > first:
                keys = chunk.keys[head, sinks:].astype(float)
                centres[at] = rounded(rounded(keys).mean(axis=0))
            if last - first <= wanted:
                continue
            planes = arith.from_bf16(codes.planes(seed, *at, 64, shape.head_dim)).astype(float)
            votes = float_votes(chunk, head, first, last, centres[at], planes)
            best = np.sort(votes)[::-1][:wanted].sum()
            lost += best - votes[coded].sum()
            chosen_votes += best
            compared += 1
    # The hardware's rounding of queries, scores and weights exchanges tokens whose votes are nearly equal.
    assert compared > 5
    assert lost < 0.01 * chosen_votes


def test_bytes_are_counted(make_tape: Tapes, shape: Shape) -> None:
    """Transcribed from the table of `vrex.sw.retrieval.policies.account`."""
    k, sinks, window = 6, 2, 1
    policy = ResvBits(ResvBitsSettings(k=k, prompt=1.5, sinks=sinks, window=window), shape)
    metadata = fetched = 0
    written = [sinks] * shape.layers
    for chunk in make_tape(2).chunks():
        policy.select(chunk)
        wanted = 9 if (chunk.stage, chunk.k.shape[1]) == (TEXT, 3) else k
        last = max(min(sinks, chunk.start), chunk.start - window * shape.step_tokens)
        coded = last - min(sinks, chunk.start)
        metadata += (coded * 10 if coded > wanted else 0) * shape.kv_heads
        metadata += max(0, last - written[chunk.layer]) * shape.kv_heads * (10 + 2 * shape.head_dim)
        written[chunk.layer] = max(written[chunk.layer], last)
        fetched += min(wanted, coded) * shape.kv_heads
    report = policy.report()["fetched"]
    assert report["metadata_bytes"] == metadata
    assert report["tokens"] == fetched > 0
    assert report["bytes"] == fetched * 2 * shape.head_dim * 2


def test_bits_and_seed_change_the_choice(make_tape: Tapes, shape: Shape) -> None:
    def choices(**knobs: Any) -> list[list[int]]:
        policy = ResvBits(ResvBitsSettings(k=4, window=0, **knobs), shape)
        return [list(tokens) for chunk in make_tape(1).chunks() for tokens in policy.select(chunk)]

    default = choices()
    assert default == choices(bits=64, seed=0)
    assert all(default != choices(**other) for other in ({"bits": 32}, {"bits": 128}, {"seed": 1}))


@pytest.mark.parametrize("levels", [1, 2])
def test_k_above_the_past_attends_to_all_of_it(make_tape: Tapes, shape: Shape, levels: int) -> None:
    policy = ResvBits(ResvBitsSettings(k=1000, levels=levels), shape)
    for chunk in make_tape(3).chunks():
        assert all(list(tokens) == list(range(chunk.start)) for tokens in policy.select(chunk))
    assert policy.report()["rows"] == 0


def test_two_levels_on_a_stream(make_tape: Tapes, shape: Shape) -> None:
    """On so short a past all codes are fewer bytes; the clusters are kept all the same, and cost theirs."""
    one, two = (ResvBits(ResvBitsSettings(k=5, window=1, levels=levels), shape) for levels in (1, 2))
    for chunk in make_tape(4).chunks():
        for left, right in zip(one.select(chunk), two.select(chunk), strict=True):
            np.testing.assert_array_equal(left, right)
    plain, clustered = one.report(), two.report()
    assert plain["clusters"] == 0
    assert plain["tokens_per_cluster"] is None
    assert sum(clustered["clusters_per_layer"]) == clustered["clusters"] > 0
    assert clustered["tokens_per_cluster"] >= 1
    assert clustered["fetched"]["metadata_bytes"] > plain["fetched"]["metadata_bytes"]
    assert clustered["fetched"]["tokens"] == plain["fetched"]["tokens"]


def test_what_is_not_finite_is_reported(make_tape: Tapes, shape: Shape) -> None:
    """A NaN key is coded, counted and never selected; a row of NaN queries is counted and has no vote."""
    policy = ResvBits(ResvBitsSettings(k=4, sinks=2, window=1), shape)
    chunks = list(make_tape(5).chunks())
    bad = 9
    for chunk in chunks:
        keys, q = chunk.keys.copy(), chunk.q.copy()
        keys[:, bad : bad + 1] = np.nan
        if chunk is chunks[-1]:
            q[0, 0] = np.nan
        last = chunk.start - shape.step_tokens
        chosen = policy.select(dataclasses.replace(chunk, keys=keys, q=q))
        coded = last - 2 > 4 and bad < last
        assert all((bad not in tokens) == coded or chunk.start <= bad for tokens in chosen)
    report = policy.report()
    assert report["nan_keys"] == shape.layers * shape.kv_heads
    assert report["degenerate_rows"] == 1
    assert report["rows"] > 100


def test_another_stream_needs_a_table_of_its_own(make_tape: Tapes, shape: Shape) -> None:
    """Its keys would be coded around the first one's centre."""
    policy = ResvBits(ResvBitsSettings(), shape)
    first, *_ = make_tape(1).chunks()
    policy.select(first)
    with pytest.raises(ValueError, match="a policy serves one stream"):
        policy.select(first)


@pytest.mark.parametrize(
    ("knobs", "says"),
    [
        ({"bits": 0}, "bits must be 32, 64 or 128, not 0"),
        ({"k": 0}, "k must be at least 1, not 0"),
        ({"levels": 3}, "levels must be from 1 to 2, not 3"),
        ({"th_hd": 0}, "th_hd must be from 1 to 255, not 0"),
        ({"depth": 0}, "depth must be at least 1, not 0"),
    ],
)
def test_settings_out_of_range(knobs: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        ResvBitsSettings(**knobs)


def test_too_many_clusters_end_with_a_sentence(
    make_tape: Tapes, shape: Shape, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise resv_bits.TableFullError

    monkeypatch.setattr(resv_bits.CodeTable, "add", full)
    policy = ResvBits(ResvBitsSettings(k=4, window=1, levels=2), shape)
    # The first chunk that leaves the window behind.
    chunks = [chunk for chunk in make_tape(1).chunks() if chunk.layer == 0]
    for chunk in chunks[:2]:
        policy.select(chunk)
    with pytest.raises(UserError, match="layer 0 would need more than 65,535 clusters"):
        policy.select(chunks[2])


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
