"""Policy resv against a slow policy that follows the contract token by token in plain Python."""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vrex.errors import UserError
from vrex.model.config import preset
from vrex.model.dre import hashing, mean, wtu
from vrex.model.lib import arith
from vrex.model.lxe import mac_tree
from vrex.sw.driver import open_transport
from vrex.sw.driver.command_interface import CommandInterface
from vrex.sw.driver.golden import GoldenTransport
from vrex.sw.retrieval.policies.base import FRAME, TEXT, Chunk
from vrex.sw.retrieval.policies.full import Full
from vrex.sw.retrieval.policies.host_tables import HostTables
from vrex.sw.retrieval.policies.resv import Resv
from vrex.sw.retrieval.policies.resv_settings import ResvSettings
from vrex.sw.retrieval.policies.shape import Shape

CONFIG = preset("tiny")
SHAPE = Shape(layers=3, query_heads=4, kv_heads=2, head_dim=8, frame_tokens=2)
GROUP = SHAPE.query_heads // SHAPE.kv_heads


class Tape:
    """Random keys and queries of a whole stream, given out chunk by chunk."""

    def __init__(self, sizes: list[int], seed: int, shape: Shape = SHAPE) -> None:
        rng = np.random.default_rng(seed)
        self.sizes, self.shape, self.total = sizes, shape, sum(sizes)
        # Few directions with some noise, so that tokens do cluster.
        centres = rng.normal(size=(shape.layers, 5, shape.kv_heads, shape.head_dim))
        which = rng.integers(0, 5, self.total)
        noise = 0.4 * rng.normal(size=(shape.layers, self.total, shape.kv_heads, shape.head_dim))
        self.keys = (centres[:, which] + noise).transpose(0, 2, 1, 3).astype(np.float32)
        # own[l] are layer l's queries, ahead[l] those that layer l-1 predicts for it.
        drawn = rng.normal(size=(2, shape.layers, shape.query_heads, self.total, shape.head_dim))
        self.own, self.ahead = drawn.astype(np.float32)

    def chunk(self, layer: int, start: int, rows: int, stage: str = FRAME) -> Chunk:
        span = slice(start, start + rows)
        k = self.keys[layer]
        return Chunk(
            layer,
            stage,
            start,
            self.own[layer][:, span],
            k[:, span],
            k[:, span],
            k[:, :start],
            lambda other: self.ahead[other][:, span],
            # Resv works on rotated keys and must not look at these.
            unrotated_q=np.zeros(0),
            unrotated_k=np.zeros(0),
        )

    def play(self, policy: Any) -> list[list[list[np.ndarray]]]:
        """Selected tokens by chunk, layer and KV head."""
        start, played = 0, []
        for rows in self.sizes:
            stage = FRAME if rows > 1 else TEXT
            chunks = [self.chunk(layer, start, rows, stage) for layer in range(self.shape.layers)]
            played.append([policy.select(chunk) for chunk in chunks])
            start += rows
        return played


@dataclass
class SlowCluster:
    founder: int
    mean: np.ndarray
    tokens: list[int] = field(default_factory=list)


def copied(mean: np.ndarray, bits: int) -> np.ndarray:
    """The mean as SCORE reads it: back from its codes."""
    if bits == 16:
        return mean
    x, top = arith.from_bf16(mean).tolist(), 2 ** (bits - 1) - 1
    scale = arith.round_bf16(np.abs(x, dtype=np.float32).max(keepdims=True) / np.float32(top))[0]
    codes = [max(-top, min(top, round(float(np.float32(v) * (np.float32(1) / scale))))) for v in x]
    return arith.to_bf16(np.array(codes, dtype=np.float32) * scale)


class SlowResv:
    """The contract's sentences, one token and one row at a time."""

    def __init__(self, knobs: ResvSettings) -> None:
        self.knobs = knobs
        self.window = knobs.window * (SHAPE.frame_tokens + 1)
        heads = range(SHAPE.kv_heads)
        self.groups = [list(heads)] if knobs.scope == "layer" else [[head] for head in heads]
        self.tables: list[list[list[SlowCluster]]] = [[[] for _ in self.groups] for _ in range(SHAPE.layers)]
        self.in_table = [knobs.sinks] * SHAPE.layers
        self.ahead: tuple[list[set[int]], int] = ([], 0)

    def select(self, chunk: Chunk) -> list[np.ndarray]:
        if self.knobs.cluster_first:
            self.leave(chunk)
        chosen, covered = self.choose(chunk)
        past = set(range(chunk.start))
        resident = {t for t in past if t < self.knobs.sinks or t >= covered}
        attended = [np.array(sorted((picked & past) | resident), dtype=int) for picked in chosen]
        if not self.knobs.cluster_first:
            self.leave(chunk)
        return attended

    def choose(self, chunk: Chunk) -> tuple[list[set[int]], int]:
        layer, knobs = chunk.layer, self.knobs
        own = self.ask(layer, chunk.q)
        if knobs.predict == "same":
            return own
        use = own if layer == 0 else self.ahead
        if knobs.predict == "reuse":
            # Layer l serves l + 1 with what its own queries found, not with what it was served itself.
            self.ahead = own
        elif layer + 1 < SHAPE.layers:
            self.ahead = self.ask(layer + 1, chunk.predict_q(layer + 1))
        return use

    def ask(self, layer: int, q: np.ndarray) -> tuple[list[set[int]], int]:
        found: list[set[int]] = [set() for _ in range(SHAPE.kv_heads)]
        rule = self.knobs.wtu_rule(SHAPE.head_dim)
        for group, table in zip(self.groups, self.tables[layer], strict=True):
            counts = np.array([len(cluster.tokens) for cluster in table])
            for place, head in enumerate(group if table else []):
                span = slice(place * SHAPE.head_dim, (place + 1) * SHAPE.head_dim)
                means = np.stack([copied(cluster.mean[span], self.knobs.mean_bits) for cluster in table])
                for query in q[head * GROUP : (head + 1) * GROUP].reshape(-1, SHAPE.head_dim):
                    score = arith.to_bf16(mac_tree.dot_fused(arith.to_bf16(query[None]), means))
                    for i in np.flatnonzero(wtu.select(score, counts, rule).rows[0]):
                        found[head].update(table[i].tokens)
        return found, self.in_table[layer]

    def leave(self, chunk: Chunk) -> None:
        layer = chunk.layer
        keys = arith.to_bf16(np.concatenate([chunk.keys, chunk.k], axis=1))
        while self.in_table[layer] < keys.shape[1] - self.window:
            token = self.in_table[layer]
            for number, group in enumerate(self.groups):
                self.add(layer, number, token, np.concatenate([keys[head, token] for head in group]))
            self.in_table[layer] += 1

    def add(self, layer: int, number: int, token: int, key: np.ndarray) -> None:
        table, knobs = self.tables[layer][number], self.knobs
        planes = hashing.hyperplanes(knobs.seed, layer, number, knobs.n_hp, len(key))
        word = int(hashing.hash_keys(key[None], planes, 32)[0, 0])
        distances = [bin(cluster.founder ^ word).count("1") for cluster in table]
        if not distances or min(distances) >= knobs.th_hd:
            table.append(SlowCluster(word, key, [token]))
            return
        nearest = table[distances.index(min(distances))]
        nearest.tokens.append(token)
        nearest.mean = mean.update(nearest.mean[None], key[None], np.array([len(nearest.tokens)]))[0]


def resv(knobs: ResvSettings, shape: Shape = SHAPE) -> Resv:
    return Resv(knobs, shape, HostTables(knobs, shape, GoldenTransport(CommandInterface(CONFIG))))


# Tokens that leave the window between a prediction and its use must not be lost.
@example(sizes=[5] * 5, knobs=ResvSettings(window=1, sinks=0, predict="next", cluster_first=True, th_hd=3))
@settings(derandomize=True, max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=9),
    knobs=st.builds(
        ResvSettings,
        rule=st.sampled_from(["raw", "shift", "exp"]),
        th_r=st.sampled_from([0.0, 0.3, 0.9]),
        th_hd=st.sampled_from([3, 9]),
        n_hp=st.sampled_from([16, 32]),
        scope=st.sampled_from(["layer", "head"]),
        sinks=st.sampled_from([0, 2, 7]),
        window=st.sampled_from([0, 1, 2]),
        predict=st.sampled_from(["same", "next", "reuse"]),
        cluster_first=st.booleans(),
        selection=st.sampled_from(["exact", "bucket"]),
        mean_bits=st.sampled_from([16, 8, 4]),
        seed=st.integers(0, 3),
    ),
)
def test_equals_the_slow_policy(sizes: list[int], knobs: ResvSettings) -> None:
    tape = Tape(sizes, seed=sum(sizes))
    fast, slow = tape.play(resv(knobs)), tape.play(SlowResv(knobs))
    for fast_chunk, slow_chunk in zip(fast, slow, strict=True):
        for fast_layer, slow_layer in zip(fast_chunk, slow_chunk, strict=True):
            for got, wanted in zip(fast_layer, slow_layer, strict=True):
                assert np.array_equal(got, wanted)


def test_report_is_a_direct_recount() -> None:
    tape = Tape([1, 5, 4, 1, 6, 3, 1, 1, 7], seed=3)
    knobs = ResvSettings(window=1, sinks=2, th_hd=9)
    policy = resv(knobs)
    played = tape.play(policy)
    report = policy.report()
    json.dumps(report, allow_nan=False)

    starts = np.cumsum([0, *tape.sizes[:-1]])
    lengths = np.array([[[len(head) for head in layer] for layer in chunk] for chunk in played])
    text = np.array(tape.sizes) == 1
    past = starts * SHAPE.layers * SHAPE.kv_heads
    assert report["ratio"]["text"] == lengths[text].sum() / past[text].sum()
    assert report["ratio"]["frame"] == lengths[~text].sum() / past[~text].sum()
    assert np.allclose(report["ratio"]["per_layer_head"], lengths.sum(axis=0) / starts.sum())

    resident = np.minimum(starts, 2) + np.minimum(np.maximum(starts - 2, 0), 3)
    fetched = lengths.sum() - resident.sum() * SHAPE.layers * SHAPE.kv_heads
    assert report["fetched"]["tokens"] == fetched
    assert report["fetched"]["bytes"] == fetched * 4 * SHAPE.head_dim
    tabled = SHAPE.layers * (tape.total - 2 - 3)
    assert report["clusters"] == sum(report["clusters_per_layer"])
    assert report["tokens_per_cluster"] == pytest.approx(tabled / report["clusters"])


# A mean in BF16, or its copy: 16 codes and a scale for either KV head.
@pytest.mark.parametrize(("mean_bits", "copy"), [(16, 0), (8, 16 + 4), (4, 8 + 4)])
@pytest.mark.parametrize("th_hd", [0, 255])
def test_metadata_counts_all_that_moves(mean_bits: int, copy: int, th_hd: int) -> None:
    shape = Shape(layers=1, query_heads=2, kv_heads=2, head_dim=8, frame_tokens=2)
    policy = resv(ResvSettings(sinks=0, window=0, th_hd=th_hd, mean_bits=mean_bits), shape)
    Tape([2, 3, 1], 1, shape).play(policy)
    fetched, mean, count, index, word = policy.report()["fetched"], 16 * 2, 2, 4, 4
    # Every token its own cluster, or all in one. Chunks 2 and 3 select among those of 2 and of 5 tokens.
    selected, founders = (2 + 5, 6) if th_hd == 0 else (1 + 1, 1)
    # CLUSTER reads as many hashes as SELECT reads clusters: at chunk 1 there are none.
    read = selected * ((copy or mean) + count + word) + fetched["tokens"] * index
    kept = 6 * (mean + mean + count + copy + index) + (6 - founders) * (mean + count) + founders * word
    assert fetched["metadata_bytes"] == read + kept


def test_quantised_means_differ_and_nearly_agree() -> None:
    tape = Tape([5] * 30, seed=13)
    ratios = {}
    for bits in (16, 8, 4):
        policy = resv(ResvSettings(sinks=0, window=0, th_hd=3, mean_bits=bits))
        tape.play(policy)
        ratios[bits] = policy.report()["ratio"]["per_layer_head"]
    assert ratios[16] != ratios[8] != ratios[4]
    assert np.allclose(ratios[16], ratios[8], atol=0.02)
    assert np.allclose(ratios[16], ratios[4], atol=0.1)


def test_a_window_over_everything_is_full() -> None:
    tape = Tape([4, 3, 1, 5, 2], seed=4)
    policy = resv(ResvSettings(window=10))
    for start, chunk in zip(np.cumsum([0, *tape.sizes]), tape.play(policy), strict=False):
        assert all(np.array_equal(head, np.arange(start)) for layer in chunk for head in layer)
    report = policy.report()
    assert report["ratio"] == {"frame": 1.0, "text": 1.0, "per_layer_head": [[1.0, 1.0]] * SHAPE.layers}
    assert report["tokens_per_cluster"] is None
    assert report["fetched"]["tokens"] == report["rtl"]["calls"] == 0


def test_a_high_threshold_with_shift_takes_nearly_everything() -> None:
    tape = Tape([5] * 8, seed=5)
    policy = resv(ResvSettings(rule="shift", th_r=0.999999, sinks=0, window=0, th_hd=0))
    tape.play(policy)
    # Of a row's clusters only the lowest, whose weight is 0, may be left out; the union takes it too.
    assert policy.report()["ratio"]["frame"] > 0.99


@pytest.mark.parametrize(("predict", "selects"), [("same", 3), ("next", 3), ("reuse", 2)])
def test_no_selection_is_asked_for_twice(predict: str, selects: int) -> None:
    policy = resv(ResvSettings(sinks=0, window=0, predict=predict))
    Tape([4, 4, 4], seed=12).play(policy)
    # Tables are empty at the first chunk; every chunk is one CLUSTER a layer.
    assert policy.report()["rtl"]["calls"] == 2 * selects + 3 * SHAPE.layers


def test_own_tokens_never_count_as_past() -> None:
    tape = Tape([3, 4, 1, 5], seed=6)
    played = tape.play(resv(ResvSettings.paper()))
    for start, chunk in zip(np.cumsum([0, *tape.sizes]), played, strict=False):
        for head in (head for layer in chunk for head in layer):
            assert (np.diff(head) > 0).all()
            assert (head < start).all()
    assert len(played[1][0][0]) > 0


def test_no_past_gives_no_ratio() -> None:
    policy = resv(ResvSettings())
    Tape([3], seed=7).play(policy)
    none = [[None, None]] * SHAPE.layers
    assert policy.report()["ratio"] == {"frame": None, "text": None, "per_layer_head": none}


def test_chunks_must_follow_each_other() -> None:
    tape = Tape([3, 3], seed=8)
    policy = resv(ResvSettings())
    policy.select(tape.chunk(0, 0, 3))
    with pytest.raises(ValueError, match="one stream"):
        policy.select(tape.chunk(0, 0, 3))


def test_paper_is_the_papers_setting() -> None:
    assert ResvSettings.paper(predict="next", seed=3) == ResvSettings(
        rule="raw",
        th_r=0.3,
        th_hd=7,
        n_hp=32,
        scope="layer",
        sinks=0,
        window=0,
        cluster_first=True,
        predict="next",
        seed=3,
    )


@pytest.mark.parametrize(("th_r", "register"), [(0.0, 0), (0.3, 19661), (0.9999999, 65535)])
def test_threshold_in_fixed_point(th_r: float, register: int) -> None:
    assert ResvSettings(th_r=th_r).wtu_rule(64).th_r == register


@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"rule": "topk"}, "rule 'topk' is unknown; choose one of raw, shift, exp"),
        ({"scope": "model"}, "scope 'model' is unknown; choose one of layer, head"),
        ({"predict": "past"}, "predict 'past' is unknown; choose one of same, next, reuse"),
        ({"selection": "all"}, "selection 'all' is unknown; choose one of exact, bucket"),
        ({"th_r": 1.0}, "th_r must be at least 0 and below 1, not 1.0"),
        ({"th_r": float("nan")}, "th_r must be at least 0 and below 1, not nan"),
        ({"th_hd": 256}, "th_hd must be from 0 to 255, not 256"),
        ({"n_hp": 0}, "n_hp must be from 1 to 128, not 0"),
        ({"n_hp": 129}, "n_hp must be from 1 to 128, not 129"),
        ({"mean_bits": 5}, "mean_bits must be 16, 8 or 4, not 5"),
        ({"sinks": -1}, "sinks must be at least 0, not -1"),
        ({"window": -1}, "window must be at least 0, not -1"),
        ({"seed": -1}, "seed must be at least 0, not -1"),
    ],
)
def test_settings_out_of_range(knobs: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as raised:
        ResvSettings(**knobs)
    assert str(raised.value) == sentence


def test_hashes_must_fit_the_accelerator() -> None:
    with pytest.raises(UserError, match="n_hp is 33, but preset tiny's HCU holds hashes of 32 bits"):
        resv(ResvSettings(n_hp=33))
    wide = open_transport("golden", CONFIG.with_hash_bits(33))
    tape = Tape([4, 4, 4], seed=9)
    knobs = ResvSettings(n_hp=33, window=0)
    tape.play(Resv(knobs, SHAPE, HostTables(knobs, SHAPE, wide)))


def test_more_kv_heads_than_a_mask_holds() -> None:
    with pytest.raises(UserError, match="33 KV heads"):
        resv(ResvSettings(), Shape(1, 33, 33, 8, 2))


def test_too_many_clusters_for_the_unit() -> None:
    shape = Shape(layers=1, query_heads=1, kv_heads=1, head_dim=8, frame_tokens=2)
    tape = Tape([1500, 700, 1], 10, shape)
    narrow = dataclasses.replace(CONFIG, wtu=dataclasses.replace(CONFIG.wtu, mask_clusters=2048))
    knobs = ResvSettings(th_hd=0, sinks=0, window=0)
    policy = Resv(knobs, shape, HostTables(knobs, shape, GoldenTransport(CommandInterface(narrow))))
    with pytest.raises(
        UserError, match="layer 0 has 2200 clusters, but preset tiny's WTU holds rows of 2048"
    ):
        tape.play(policy)


def test_full_attends_to_everything_with_the_same_report() -> None:
    tape = Tape([4, 1, 5], seed=11)
    full, other = Full(SHAPE), resv(ResvSettings())
    assert all(selected is None for chunk in tape.play(full) for selected in chunk)
    tape.play(other)
    report = full.report()
    assert report["ratio"] == {"frame": 1.0, "text": 1.0, "per_layer_head": [[1.0, 1.0]] * SHAPE.layers}
    assert report.keys() == other.report().keys()
