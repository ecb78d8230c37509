"""Each baseline against a direct, slow transcription of its formula."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from vrex.model.config import preset
from vrex.model.dre import wtu
from vrex.model.lib.arith import to_bf16
from vrex.sw.driver import open_transport
from vrex.sw.retrieval.policies.base import FRAME, TEXT, Choice, Chunk, Compacted
from vrex.sw.retrieval.policies.calibration import Calibration
from vrex.sw.retrieval.policies.full import Flexgen
from vrex.sw.retrieval.policies.host_tables import HostTables
from vrex.sw.retrieval.policies.infinigen import Infinigen, InfinigenP, InfinigenPSettings, InfinigenSettings
from vrex.sw.retrieval.policies.quest import Quest, QuestSettings
from vrex.sw.retrieval.policies.ranking import share_of, top
from vrex.sw.retrieval.policies.rekv import Rekv, RekvSettings
from vrex.sw.retrieval.policies.resv import Resv
from vrex.sw.retrieval.policies.resv_nocluster import ResvNocluster, ResvNoclusterSettings
from vrex.sw.retrieval.policies.resv_settings import ResvSettings
from vrex.sw.retrieval.policies.shape import Shape
from vrex.sw.retrieval.policies.streaming_llm import StreamingLlm, StreamingLlmSettings
from vrex.sw.retrieval.policies.topk import Topk, TopkSettings

SEEDS = [1, 2, 3]
Tapes = Callable[[int], Any]


def best(scores: list[float], k: int) -> list[int]:
    """Indices of the k largest, ascending."""
    return sorted(sorted(range(len(scores)), key=lambda i: -scores[i])[:k])


def rows_of(chunk: Chunk, kv_head: int) -> list[np.ndarray]:
    """All queries that share a KV head, float64."""
    group = len(chunk.q) // len(chunk.k)
    return [row.astype(float) for head in range(group) for row in chunk.q[kv_head * group + head]]


def check(policy: Any, chunks: Any, expect: Callable[[Chunk, int], list[int]]) -> None:
    """The policy chooses what `expect` names for every chunk and KV head."""
    for chunk in chunks:
        chosen = policy.select(chunk)
        for head in range(len(chunk.k)):
            tokens = chosen.tokens if isinstance(chosen, Compacted) else chosen[head]
            assert list(tokens) == expect(chunk, head), (chunk.layer, chunk.start, head)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("ratio", [0.1, 0.37, 1.0])
def test_topk(make_tape: Tapes, shape: Shape, seed: int, ratio: float) -> None:
    def expect(chunk: Chunk, head: int) -> list[int]:
        mass = [0.0] * chunk.start
        for q in rows_of(chunk, head):
            logits = [math.exp(q @ key / math.sqrt(len(q))) for key in chunk.keys[head].astype(float)]
            mass = [m + x / sum(logits) for m, x in zip(mass, logits, strict=True)]
        return best(mass, share_of(chunk.start, ratio))

    policy = Topk(TopkSettings(ratio=ratio), shape)
    check(policy, make_tape(seed).chunks(), expect)
    assert policy.report()["ratio"]["text"] == pytest.approx(ratio, abs=0.03)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("page", "ratio"), [(1, 0.3), (5, 0.25), (16, 0.5), (7, 1.0)])
def test_quest(make_tape: Tapes, shape: Shape, seed: int, page: int, ratio: float) -> None:
    def expect(chunk: Chunk, head: int) -> list[int]:
        pages = [chunk.keys[head][i : i + page].astype(float) for i in range(0, chunk.start, page)]
        bounds: list[float] = [
            max(
                sum(max(x * low, x * high) for x, low, high in zip(q, p.min(0), p.max(0), strict=True))
                for q in rows_of(chunk, head)
            )
            for p in pages
        ]
        chosen = best(bounds, math.ceil(ratio * len(pages)))
        return [t for t in range(chunk.start) if t // page in chosen]

    check(Quest(QuestSettings(page=page, ratio=ratio), shape), make_tape(seed).chunks(), expect)


@pytest.mark.parametrize(("sinks", "window"), [(0, 0), (4, 0), (0, 2), (5, 3)])
def test_streaming_llm(make_tape: Tapes, shape: Shape, sinks: int, window: int) -> None:
    def expect(chunk: Chunk, head: int) -> list[int]:
        return [t for t in range(chunk.start) if t < sinks or t >= chunk.start - 4 * window]

    policy = StreamingLlm(StreamingLlmSettings(sinks=sinks, window=window), shape)
    check(policy, make_tape(1).chunks(), expect)
    assert policy.report()["fetched"] == {"tokens": 0, "bytes": 0, "metadata_bytes": 0}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("sinks", "window"), [(0, 0), (4, 2), (9, 1)])
def test_rekv(make_tape: Tapes, shape: Shape, seed: int, sinks: int, window: int) -> None:
    ratios = {FRAME: 0.5, TEXT: 0.3}
    blocks: list[list[tuple[int, int, np.ndarray]]] = [[] for _ in range(shape.layers)]  # begin, end, mean
    group = shape.query_heads // shape.kv_heads

    def expect(chunk: Chunk, head: int) -> list[int]:
        known = blocks[chunk.layer]
        old = [block for block in known if block[1] <= chunk.start - 4 * window]
        query = np.concatenate([rows.mean(0) for rows in chunk.unrotated_q.astype(float)])
        scores = [float(query @ np.repeat(mean, group, axis=0).ravel()) for _, _, mean in old]
        spans = [old[i] for i in best(scores, math.ceil(ratios[chunk.stage] * len(old)))]
        recent = old[-1][1] if old else 0
        if chunk.stage == FRAME and head == shape.kv_heads - 1:
            begin = known[-1][1] if known else 0
            known.append((begin, chunk.start + chunk.k.shape[1], chunk.unrotated_k.astype(float).mean(1)))
        return [
            t
            for t in range(chunk.start)
            if t < sinks or t >= recent or any(begin <= t < end for begin, end, _ in spans)
        ]

    check(Rekv(RekvSettings(sinks=sinks, window=window), shape), make_tape(seed).chunks(), expect)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("full_layers", [1, 2])
@pytest.mark.parametrize(("alpha", "columns", "cap"), [(5.0, 0.2, 0.2), (1.0, 0.5, 0.9), (0.0, 1.0, 1.0)])
def test_infinigen_p(
    make_tape: Tapes,
    shape: Shape,
    random_calibration: Calibration,
    seed: int,
    full_layers: int,
    alpha: float,
    columns: float,
    cap: float,
) -> None:
    tape, group = make_tape(seed), shape.query_heads // shape.kv_heads
    knobs: dict[str, Any] = {"alpha": alpha, "columns": columns, "cap": cap, "full_layers": full_layers}
    kept = math.ceil(columns * shape.head_dim)

    def speculated(chunk: Chunk, head: int) -> list[float]:
        """Largest score of every past token over rows and query heads, on the kept columns."""
        basis = random_calibration.basis[chunk.layer, head].astype(float)
        weight = random_calibration.magnitude[chunk.layer, head]
        basis = basis[:, best(list(weight), kept)]
        span = slice(chunk.start, chunk.start + chunk.q.shape[1])
        queries = tape.ahead[chunk.layer][head * group : (head + 1) * group, span].reshape(-1, shape.head_dim)
        scores = (queries.astype(float) @ basis) @ (chunk.keys[head].astype(float) @ basis).T
        return list(scores.max(0) / math.sqrt(shape.head_dim))

    def number(chunk: Chunk) -> int:
        counts = [sum(s > max(x) - alpha for s in x) for x in (speculated(chunk, h) for h in (0, 1))]
        return max(1, min(round(sum(counts) / len(counts)), int(cap * chunk.start)))

    def expect(chunk: Chunk, head: int) -> list[int]:
        generates = chunk.stage == TEXT and chunk.q.shape[1] == 1
        return best(speculated(chunk, head), number(chunk) if generates else math.ceil(chunk.start / 2))

    prefill = Infinigen(InfinigenSettings(**knobs), shape, random_calibration)
    both = InfinigenP(InfinigenPSettings(**knobs), shape, random_calibration)
    for chunk in tape.chunks():
        chosen, chosen_p = prefill.select(chunk), both.select(chunk)
        if chunk.layer < full_layers or chunk.start == 0:
            assert chosen is None
            assert chosen_p is None
            continue
        assert [list(tokens) for tokens in chosen_p or []] == [expect(chunk, 0), expect(chunk, 1)]
        if chunk.stage == TEXT and chunk.q.shape[1] == 1:
            assert [list(tokens) for tokens in chosen or []] == [expect(chunk, 0), expect(chunk, 1)]
        else:
            assert chosen is None
    assert prefill.report()["ratio"]["frame"] == 1
    assert both.report()["predict"] == "next"


def test_flexgen_fetches_everything(make_tape: Tapes, shape: Shape) -> None:
    policy = Flexgen(shape)
    past = 0
    for chunk in make_tape(1).chunks():
        past += chunk.start * shape.kv_heads
        everything: Choice = policy.select(chunk)  # type: ignore[func-returns-value]
        assert everything is None
    nbytes = past * 2 * shape.head_dim * 2
    assert policy.report()["fetched"] == {"tokens": past, "bytes": nbytes, "metadata_bytes": 0}
    assert policy.report()["ratio"]["frame"] == 1


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("rule", ["raw", "shift", "exp"])
@pytest.mark.parametrize(("th_r", "sinks", "window"), [(0.3, 0, 0), (0.7, 4, 2)])
def test_resv_nocluster_is_resv_with_clusters_of_one(
    make_tape: Tapes, shape: Shape, seed: int, rule: str, th_r: float, sinks: int, window: int
) -> None:
    knobs: dict[str, Any] = {"rule": rule, "th_r": th_r, "sinks": sinks, "window": window}
    alone = ResvNocluster(ResvNoclusterSettings(**knobs), shape)
    # No distance is below 0, so every token opens a cluster.
    settings = ResvSettings(th_hd=0, **knobs)
    clustered = Resv(settings, shape, HostTables(settings, shape, open_transport("golden", preset("edge"))))
    for chunk in make_tape(seed).chunks():
        selected = clustered.select(chunk)
        assert isinstance(selected, list)
        for ours, theirs in zip(alone.select(chunk), selected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    report, other = alone.report(), clustered.report()
    assert report["ratio"] == other["ratio"]
    assert report["fetched"]["tokens"] == other["fetched"]["tokens"]
    assert report["rows"] == other["rows"] > 0
    assert report["degenerate_rows"] == other["degenerate_rows"]


def test_rule_shift_does_not_see_a_constant() -> None:
    """Whole numbers up to 256 are exact in BF16, so that the constant can be added without rounding."""
    rng = np.random.default_rng(4)
    scores, counts = rng.integers(-60, 60, (50, 40)), rng.integers(1, 30, 40)
    constant = rng.integers(-60, 60, (50, 1))
    before, after = (to_bf16(x.astype(np.float32)) for x in (scores, scores + constant))
    for name, same in (("shift", True), ("raw", False)):
        rule = ResvSettings(rule=name).wtu_rule(64)
        rows = [wtu.select(x, counts, rule).rows for x in (before, after)]
        assert (rows[0] == rows[1]).all() == same


def test_shares_are_rounded_up_to_whole_things() -> None:
    assert [share_of(n, 0.1) for n in (0, 1, 9, 10, 11, 30)] == [0, 1, 1, 1, 2, 3]
    assert share_of(7, 1.0) == 7


def test_ties_go_to_the_lower_index() -> None:
    assert list(top(np.array([1, 3, 2, 3, 3], dtype=np.float32), 2)) == [1, 3]


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TopkSettings().ratio = 0.2  # type: ignore[misc]


def test_metadata_of_the_baselines_is_counted(
    make_tape: Tapes, shape: Shape, random_calibration: Calibration
) -> None:
    """Transcribed from the table of `vrex.sw.retrieval.policies.account`, one chunk at a time."""
    page, columns, window = 5, 5, 1
    per_mean, per_token = shape.kv_heads * shape.head_dim * 2, shape.kv_heads * columns * 2
    expected = {"quest": 0, "rekv": 0, "infinigen": 0, "infinigen-p": 0, "topk": 0}
    policies: list[Any] = [
        Quest(QuestSettings(page=page), shape),
        Rekv(RekvSettings(sinks=0, window=window), shape),
        Infinigen(InfinigenSettings(columns=0.5), shape, random_calibration),
        InfinigenP(InfinigenPSettings(columns=0.5), shape, random_calibration),
        Topk(TopkSettings(), shape),
    ]
    ends: list[int] = []
    before = 0
    for chunk in make_tape(2).chunks():
        for policy in policies:
            policy.select(chunk)
        rows, start = chunk.k.shape[1], chunk.start
        pages = [set(range(0, start, page)), {t - t % page for t in range(before, start)}]
        halves = [first for first in pages[1] if first < before]
        expected["quest"] += sum(map(len, [*pages, halves])) * 2 * per_mean
        expected["rekv"] += sum(end <= start - window * shape.step_tokens for end in ends) * per_mean
        expected["rekv"] += per_mean * (chunk.stage == FRAME)
        expected["topk"] += start * per_mean
        if chunk.layer > 0:
            reads = [chunk.stage == TEXT and rows == 1, True]
            for name, speculates in zip(("infinigen", "infinigen-p"), reads, strict=True):
                expected[name] += (rows + start * speculates) * per_token
        if chunk.layer == shape.layers - 1:
            before = start
            if chunk.stage == FRAME:
                ends.append(start + rows)
    assert {policy.name: policy.report()["fetched"]["metadata_bytes"] for policy in policies} == expected
