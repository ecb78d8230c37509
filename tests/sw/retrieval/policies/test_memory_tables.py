"""Policy resv on a DRE's memory against the same policy on the host's tables and the cache."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sw.tape import KNOBS, SHAPE, SMALL, Tape, on_host
from vrex.errors import UserError
from vrex.model.config import Config
from vrex.model.dre import kvstore
from vrex.model.dre.hctable import HCTable
from vrex.model.lib.memory import PAGE
from vrex.sw.driver import DriverError, open_transport
from vrex.sw.retrieval.policies import memory_tables
from vrex.sw.retrieval.policies.base import Delivered
from vrex.sw.retrieval.policies.memory_tables import MemoryTables, capacity_for
from vrex.sw.retrieval.policies.resv import Resv
from vrex.sw.retrieval.policies.resv_settings import ResvSettings
from vrex.sw.retrieval.policies.shape import Shape
from vrex.sw.videollm.procstream import make
from vrex.sw.videollm.stream import Answered, Stream
from vrex.sw.videollm.videollm import VideoLLM


def in_memory(knobs: ResvSettings, shape: Shape = SHAPE, config: Config = SMALL, **capacity: int) -> Resv:
    config = memory_tables.fitted(config, knobs, shape)
    layout = memory_tables.lay_out(config, knobs, shape, capacity_for(200, config, **capacity))
    transport = open_transport("golden", config, memory=layout.new_memory())
    return Resv(knobs, shape, MemoryTables(knobs, shape, transport, layout))


@settings(derandomize=True, max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 11), min_size=1, max_size=9),
    ring=st.sampled_from([0, 8, 64]),
    mean_bits=st.sampled_from([16, 8, 4]),
    knobs=KNOBS,
)
def test_keys_and_values_are_those_of_the_tokens_that_the_host_selects(
    sizes: list[int], ring: int, mean_bits: int, knobs: ResvSettings
) -> None:
    knobs = replace(knobs, mean_bits=mean_bits)
    _equal(Tape(sizes, seed=sum(sizes)), in_memory(knobs, ring=ring), on_host(knobs))


@pytest.mark.parametrize("most", [1, 3, 7])
@pytest.mark.parametrize("scope", ["layer", "head"])
def test_clusters_that_fill_up_are_closed(monkeypatch: pytest.MonkeyPatch, most: int, scope: str) -> None:
    """As many tokens as in a test: nobody waits for 65,535."""
    monkeypatch.setattr(kvstore, "MAX_COUNT", most)
    monkeypatch.setattr(memory_tables, "MAX_COUNT", most)
    monkeypatch.setitem(HCTable.__init__.__kwdefaults__ or {}, "max_count", most)
    knobs = ResvSettings(sinks=1, window=1, th_hd=12, scope=scope)
    ours = in_memory(knobs, ring=8)
    _equal(Tape([7] * 8, seed=most), ours, on_host(knobs))
    assert ours.report()["tokens_per_cluster"] <= most


def _equal(tape: Tape, ours: Resv, theirs: Resv) -> None:
    """Plays to a policy on a DRE's memory and to one on the host's tables."""
    played = zip(tape.play(ours, True), tape.play(theirs, False), strict=True)
    for (chunk, delivered), (_, tokens) in played:
        for head, (got, wanted) in enumerate(zip(delivered.kv, tokens, strict=True)):
            np.testing.assert_array_equal(got[0], tape.k[chunk.layer][head, wanted])
            np.testing.assert_array_equal(got[1], tape.v[chunk.layer][head, wanted])
    report, other, knobs = ours.report(), theirs.report(), ours.settings
    json.dumps(report, allow_nan=False)
    same = ("ratio", "clusters", "clusters_per_layer", "tokens_per_cluster", "rows", "degenerate_rows")
    assert {key: report[key] for key in same} == {key: other[key] for key in same}
    if not knobs.cluster_first:
        # Else a chunk's own tokens may come along, which nobody attends to as past.
        assert report["fetched"]["tokens"] == other["fetched"]["tokens"]


@pytest.mark.parametrize(("mean_bits", "copy"), [(16, 0), (8, 16 + 2), (4, 8 + 2)])
@pytest.mark.parametrize("scope", ["layer", "head"])
def test_the_report_is_a_direct_recount(scope: str, mean_bits: int, copy: int) -> None:
    tape = Tape([6] * 12, seed=3)
    policy = in_memory(ResvSettings(sinks=2, window=1, th_hd=9, scope=scope, mean_bits=mean_bits))
    played = tape.play(policy, True)
    report = policy.report()
    tabled = sum(tape.sizes) - 2 - 3
    resident = [min(chunk.start, 2) + min(max(chunk.start - 2, 0), 3) for chunk, _ in played]
    attended = [[kv.shape[1] for kv in delivered.kv] for _, delivered in played]
    fetched = sum(sum(heads) - 2 * held for heads, held in zip(attended, resident, strict=True))
    token_bytes = 4 * SHAPE.head_dim
    assert report["fetched"]["bytes"] == report["dre"]["delivered_bytes"] == fetched * token_bytes
    tables = SHAPE.layers * (1 if scope == "layer" else 2)
    dre = report["dre"]
    assert dre["tokens"] == tables * tabled
    assert dre["fill"] == dre["tokens"] / (2 * dre["segments"])
    mean = (token_bytes // 2 + copy) * (2 if scope == "layer" else 1)
    size = tables * 64 + report["clusters"] * (4 + 2 + 4 + mean) + 4 * dre["segments"]
    assert dre["hc_table"] == {"bytes": size, "share": size / (SHAPE.layers * tabled * 2 * token_bytes)}


def test_attention_gets_what_memory_holds() -> None:
    """A byte changed in the host window is seen by attention, so there is no copy to read instead."""
    knobs = ResvSettings(sinks=0, window=0, th_hd=9, rule="shift", th_r=0.9)
    tape = Tape([5, 5, 5], seed=8)
    config = memory_tables.fitted(SMALL, knobs, SHAPE)
    layout = memory_tables.lay_out(config, knobs, SHAPE, capacity_for(200, config, ring=0))
    transport = open_transport("golden", config, memory=layout.new_memory())
    policy = Resv(knobs, SHAPE, MemoryTables(knobs, SHAPE, transport, layout))
    for start in (0, 5):
        for layer in range(SHAPE.layers):
            policy.select(tape.chunk(layer, start, 5))
    first = layout.headers[0].host_page * PAGE
    changed = np.array([1.0] * SHAPE.head_dim, dtype=np.float32)
    transport.write(first, (changed.view("<u4") >> 16).astype("<u2").tobytes())
    delivered = policy.select(tape.chunk(0, 10, 5))
    assert isinstance(delivered, Delivered)
    assert (delivered.kv[0][0] == changed).all(axis=1).any()
    assert not (delivered.kv[1][0] == changed).all(axis=1).any()


def test_the_host_keeps_sinks_and_window_only() -> None:
    policy = in_memory(ResvSettings(sinks=3, window=2))
    Tape([5] * 12, seed=1).play(policy, True)
    tables: Any = policy.tables
    # The window, and the last chunk, which is let go when the next one comes.
    assert [held._kv.shape[2] for held in tables._resident] == [3 + 6 + 5] * SHAPE.layers


@pytest.mark.parametrize(
    ("capacity", "says"),
    [
        (
            {"clusters": 5},
            "the HC table of layer 0 has room for 5 clusters and is full; raise table_clusters",
        ),
        (
            {"segments": 6},
            "the KV store of layer 0 has room for 6 segments and is full; raise table_segments",
        ),
    ],
)
def test_a_full_table_says_what_to_raise(capacity: dict[str, int], says: str) -> None:
    with pytest.raises(DriverError, match=says):
        Tape([6] * 5, seed=2).play(
            in_memory(ResvSettings(sinks=0, window=0, th_hd=0), SHAPE, SMALL, **capacity), True
        )


def test_an_error_of_the_last_chunk_is_told_with_the_report() -> None:
    policy = in_memory(ResvSettings(sinks=0, window=0, th_hd=0), SHAPE, SMALL, clusters=5)
    Tape([6], seed=2).play(policy, True)
    with pytest.raises(DriverError, match="layer 0 has room for 5 clusters"):
        policy.report()


def test_counters_start_with_the_tables() -> None:
    knobs = ResvSettings(sinks=0, window=0)
    config = memory_tables.fitted(SMALL, knobs, SHAPE)
    layout = memory_tables.lay_out(config, knobs, SHAPE, capacity_for(200, config))
    transport = open_transport("golden", config, memory=layout.new_memory())
    reports = []
    for _ in range(2):
        policy = Resv(knobs, SHAPE, MemoryTables(knobs, SHAPE, transport, layout))
        Tape([4] * 6, seed=5).play(policy, True)
        reports.append(policy.report())
    assert reports[0]["degenerate_rows"] > 0
    same = ("ratio", "clusters", "rows", "degenerate_rows", "dre", "fetched")
    assert {key: reports[0][key] for key in same} == {key: reports[1][key] for key in same}


@pytest.mark.parametrize(
    ("knobs", "shape", "says"),
    [
        ({"predict": "reuse"}, SHAPE, "predict reuse takes another layer's tokens.*choose predict same"),
        ({}, Shape(2, 4, 2, 24, 2), "head_dim must be a power of two from 16 to 256, not 24; choose offload"),
        (
            {},
            Shape(2, 64, 33, 16, 2),
            "kv_heads must be a whole number from 1 to 32, not 33; choose offload kvpu",
        ),
    ],
)
def test_what_a_dre_cannot_serve(knobs: dict[str, Any], shape: Shape, says: str) -> None:
    with pytest.raises(UserError, match=says):
        in_memory(ResvSettings(**knobs), shape)


def test_a_ring_of_the_wrong_size() -> None:
    with pytest.raises(
        UserError, match="can't be laid out: a ring is 0 or a power of two from 8 segments on"
    ):
        in_memory(ResvSettings(), ring=12)


def test_memory_that_the_machine_does_not_have() -> None:
    with pytest.raises(UserError, match=r"the tables need .* GiB, which this machine does not give; lower"):
        in_memory(ResvSettings(), segments=1 << 31)


def test_a_cache_that_is_not_in_bf16() -> None:
    tape = Tape([3], seed=1)
    tape.v += np.float32(1e-6)
    with pytest.raises(ValueError, match="holds BF16"):
        tape.play(in_memory(ResvSettings()), True)


class Recording(Stream):
    """Keeps the logits of every chunk."""

    logits: list[np.ndarray]

    def _feed(self, x: np.ndarray, stage: str) -> np.ndarray:
        logits = super()._feed(x, stage)
        self.logits = [*getattr(self, "logits", []), logits]
        return logits


def watch(model: VideoLLM, policy: Resv, frames: int) -> tuple[Recording, list[str]]:
    """The stream after a video with two questions, and its answers."""
    video = make(7, frames)
    stream = Recording(model, policy)
    questions = [(question.time, question.text) for question in video.questions]
    assert questions
    events = list(stream.run(video.frames, questions))
    return stream, [event.text for event in events if isinstance(event, Answered)]


SETTINGS: dict[str, Callable[[], ResvSettings]] = {
    "default": lambda: ResvSettings(window=2),
    "head": lambda: ResvSettings(window=1, scope="head"),
    "next": lambda: ResvSettings(window=2, predict="next", rule="exp", th_r=0.6),
    "head, next": lambda: ResvSettings(window=0, sinks=0, scope="head", predict="next"),
    "4 bits": lambda: ResvSettings(window=2, mean_bits=4),
    "paper": lambda: ResvSettings.paper(),
    "paper, next": lambda: ResvSettings.paper(predict="next"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_answers_and_logits_of_a_video_are_equal(shipped: VideoLLM, name: str) -> None:
    knobs, shape, config = SETTINGS[name](), Shape.of(shipped.config), Config()
    layout_config = memory_tables.fitted(config, knobs, shape)
    layout = memory_tables.lay_out(layout_config, knobs, shape, capacity_for(1000, config, ring=64))
    transport = open_transport("golden", layout_config, memory=layout.new_memory())
    ours, answers = watch(shipped, Resv(knobs, shape, MemoryTables(knobs, shape, transport, layout)), 20)
    theirs, expected = watch(shipped, on_host(knobs, shape, config), 20)
    assert answers == expected
    assert len(ours.logits) == len(theirs.logits) > 20
    np.testing.assert_array_equal(ours.logits, theirs.logits)
    assert [layer.keys.shape[1] for layer in ours.cache.layers] == [0] * shape.layers
    assert ours.cache.length == theirs.cache.length
