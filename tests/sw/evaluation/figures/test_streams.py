"""Figures that watch streams, on a few frames of the shipped model."""

from typing import Any

import numpy as np
import pytest

from vrex.sw.driver.kvpu import KvpuEngine, SelectRequest
from vrex.sw.evaluation.cells import Bench, Clip, VideoCell
from vrex.sw.evaluation.figures import clustering, quantised, ratio, recall
from vrex.sw.evaluation.figures.watch import capture_keys
from vrex.sw.evaluation.points import Point
from vrex.sw.retrieval.policies.account import Reporting
from vrex.sw.retrieval.policies.base import Codec
from vrex.sw.retrieval.policies.oaken import Oaken, quantise
from vrex.sw.retrieval.policies.shape import Shape
from vrex.sw.videollm.stream import Stream

CLIP = Clip("tasks", 14, 7)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("bench")
    return Bench(None, folder / "calibration.npz", folder)


@pytest.fixture(autouse=True)
def _short_calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vrex.sw.videollm.calibration.VIDEO_FRAMES", 8)


def _oaken(bench: Bench) -> Oaken:
    store = bench.make(Point.of("oaken", {}))
    assert isinstance(store, Oaken)
    return store


def test_captured_keys_are_the_caches(bench: Bench) -> None:
    video = CLIP.video()
    stream = Stream(bench.model)
    for _ in stream.run(video.frames, [(question.time, question.text) for question in video.questions]):
        pass
    expected = np.stack([layer.keys for layer in stream.cache.layers])
    np.testing.assert_array_equal(capture_keys(bench, CLIP), expected)


def test_work_is_what_the_engine_was_asked_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    select = KvpuEngine.select

    def counted(engine: KvpuEngine, requests: list[SelectRequest], **more: Any) -> list[np.ndarray]:
        asked.extend(request.scores.size for request in requests)
        return select(engine, requests, **more)

    monkeypatch.setattr(KvpuEngine, "select", counted)
    found = clustering.measure(bench, [CLIP])
    policies = found["policies"]
    assert policies["resv"]["scores"] == sum(asked) > 0
    assert found["fewer_scores"] == policies["resv-nocluster"]["scores"] / sum(asked) > 1
    for name, work in policies.items():
        plain: list[Reporting] = []

        def keep(policy: Reporting, plain: list[Reporting] = plain) -> Reporting:
            plain.append(policy)
            return policy

        result = bench.run(VideoCell(Point.of(name, {}), CLIP), keep)
        assert work["rows"] == plain[0].report()["rows"]
        assert work["kv_bytes"] + work["metadata_bytes"] == result["bytes"]


def test_ratio_is_the_policies_own(bench: Bench) -> None:
    figures = ratio.measure(bench, [CLIP])
    for name, own in figures["policies"].items():
        result = bench.run(VideoCell(Point.of(name, {}), CLIP))
        assert (own["fetched"], own["ratio_frame"]) == (result["fetched"], result["ratio_frame"])
        # The mean over layers and heads lies between the two stages'.
        low, high = sorted((own["ratio_frame"], own["ratio_text"]))
        assert low <= np.mean(own["per_layer_head"]) <= high
    fetched = [figures["policies"][name]["fetched"] for name in ("rekv", "resv")]
    assert figures["fewer_fetched"] == fetched[0] / fetched[1]


def test_full_recalls_everything_and_a_window_its_share(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recall, "WARMUP", 11)
    monkeypatch.setattr(recall, "POLICIES", ("full", "streaming-llm", "topk"))
    figures = recall.measure(bench, [CLIP])
    whole, window, best = figures["policies"].values()
    assert figures["chunks"] > 2
    np.testing.assert_allclose(whole["mass"], 1)
    np.testing.assert_allclose(whole["cosine"], 1, rtol=1e-6)
    np.testing.assert_array_equal(whole["ratio"], 1)
    # All heads have the same sinks and window; a tenth of the tokens, well chosen, holds more than a tenth.
    assert len(np.unique(window["ratio"])) == 1
    assert 0.5 < np.min(window["ratio"]) < 1
    assert 0 < np.min(window["mass"]) < 1
    assert 0.1 <= np.max(best["ratio"]) < 0.12
    assert np.mean(best["mass"]) > 0.2


def test_a_quantised_cache_holds_what_oaken_gives_back(bench: Bench) -> None:
    shape, store = Shape.of(bench.model.config), _oaken(bench)
    policy = quantised.Quantised(bench.make(Point.of("resv", {})), store, shape)
    assert isinstance(policy, Codec)
    k, v = np.random.default_rng(0).normal(size=(2, shape.kv_heads, 5, shape.head_dim)).astype(np.float32)
    for at, back in enumerate(policy.encode(2, k, v)):
        rows = (k, v)[at].transpose(1, 0, 2).reshape(5, -1)
        expected = quantise(rows, store._thresholds[2][at], 4).values
        np.testing.assert_array_equal(back.transpose(1, 0, 2).reshape(5, -1), expected)


def test_quantised_bytes_are_the_stored_bits_and_scales(bench: Bench) -> None:
    kept: list[quantised.Quantised] = []

    def wrap(policy: Reporting) -> Reporting:
        kept.append(quantised.Quantised(policy, _oaken(bench), Shape.of(bench.model.config)))
        return kept[0]

    result = bench.run(VideoCell(Point.of("resv", {}), CLIP), wrap)
    inner, bits = kept[0]._policy.report()["fetched"], kept[0]._store.bits_per_value()
    assert 4 < bits < 6
    values = inner["tokens"] * 2 * bench.model.config.text.head_dim
    expected = values * bits / 8 + inner["tokens"] * 12 * 2 + inner["metadata_bytes"]
    assert result["bytes"] == pytest.approx(expected, abs=1)
    rows = {row["name"]: row for row in quantised.measure(bench, [CLIP])["rows"]}
    assert rows["resv, 4-bit KV"]["bytes"] == result["bytes"] < rows["resv"]["bytes"]
    for name in ("full", "oaken", "resv"):
        own = bench.run(VideoCell(Point.of(name, {}), CLIP))
        assert (rows[name]["fetched"], rows[name]["bytes"]) == (own["fetched"], own["bytes"])
        assert rows[name]["n"] == len(own["items"])
