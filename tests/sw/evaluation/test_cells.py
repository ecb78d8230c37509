"""Cells on the shipped model, a few frames each."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vrex.errors import UserError
from vrex.sw.evaluation.cells import SUITES, Bench, Clip, VideoCell, check_clips
from vrex.sw.evaluation.points import Point
from vrex.sw.retrieval.policies.full import Full
from vrex.sw.retrieval.policies.shape import Shape
from vrex.sw.videollm.procstream import make
from vrex.sw.videollm.stream import Answered, Stream, VideoLLM

SEED = 7
"""Its first step ends early, so that few frames hold a question and a narration."""
FRAMES = 10
FULL = Point.of("full", {})


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("bench")
    return Bench(None, folder / "calibration.npz", folder)


def questions(result: dict[str, Any]) -> list[tuple[str, float, str]]:
    return [(item["task"], item["time"], item["asked"]) for item in result["items"]]


def test_a_cell_is_what_the_stream_gives_on_the_pictures(bench: Bench) -> None:
    model = VideoLLM.load()
    video = make(SEED, FRAMES)
    policy = Full(Shape.of(model.config))
    asked = [(question.time, question.text) for question in video.questions]
    events = list(Stream(model, policy).run(video.frames, asked))
    result = bench.run(VideoCell(FULL, Clip("tasks", FRAMES, SEED)))
    assert [item["given"] for item in result["items"]] == [
        event.text for event in events if isinstance(event, Answered)
    ]
    assert [item["expected"] for item in result["items"]] == [question.answer for question in video.questions]
    assert all(item["right"] for item in result["items"])
    assert (result["ratio_frame"], result["ratio_text"]) == (1.0, 1.0)
    assert (result["fetched"], result["bytes"]) == (0, 0)


def test_all_policies_get_the_same_questions(bench: Bench) -> None:
    clip = Clip("tasks", FRAMES, SEED)
    asked = questions(bench.run(VideoCell(FULL, clip)))
    assert asked
    for policy, knobs in [("resv", {"window": 2}), ("rekv", {"window": 2}), ("streaming-llm", {"window": 1})]:
        result = bench.run(VideoCell(Point.of(policy, knobs), clip))
        assert questions(result) == asked
        assert 0 < result["ratio_frame"] < 1


def test_bytes_count_the_metadata(bench: Bench) -> None:
    result = bench.run(VideoCell(Point.of("resv", {"window": 2}), Clip("tasks", FRAMES, SEED)))
    head_dim = bench.model.config.text.head_dim
    assert result["bytes"] > result["fetched"] * 2 * head_dim * 2 > 0


def test_speaking_is_judged_frame_by_frame(bench: Bench) -> None:
    clip = Clip("speak", FRAMES, SEED)
    result = bench.run(VideoCell(FULL, clip))
    told = {(item["task"], item["time"], item["given"]) for item in result["items"]}
    ((time, name),) = make(SEED, FRAMES).narration
    assert told == {
        ("speak recall", time, "speaks"),
        ("speak name", time, name),
        ("speak precision", time, "speaks"),
    }
    assert all(item["right"] for item in result["items"])


def test_silence_and_false_alarms_are_errors(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that speaks after every frame, and one that never does."""
    clip = Clip("speak", FRAMES, SEED)
    monkeypatch.setattr(Stream, "talk", lambda self, turn: "ring fall")
    monkeypatch.setattr(Stream, "_wants_to_speak", lambda self, logits: True)
    items = bench.run(VideoCell(FULL, clip))["items"]
    precision = [item["right"] for item in items if item["task"] == "speak precision"]
    assert (len(precision), sum(precision)) == (FRAMES, 1)
    monkeypatch.setattr(Stream, "_wants_to_speak", lambda self, logits: False)
    items = bench.run(VideoCell(FULL, clip))["items"]
    assert [(item["task"], item["right"]) for item in items] == [("speak recall", False)]


def test_calibrated_policies_keep_their_calibration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vrex.sw.videollm.calibration.VIDEO_FRAMES", 8)
    cell = VideoCell(Point.of("infinigen-p", {}), Clip("tasks", FRAMES, SEED))
    path = tmp_path / "calibration.npz"
    first = Bench(None, path, tmp_path).run(cell)
    written = path.read_bytes()
    assert Bench(None, path, tmp_path).run(cell) == first
    assert path.read_bytes() == written


def test_a_stream_takes_embeddings_for_pictures(bench: Bench) -> None:
    frames = make(SEED, FRAMES).frames
    embedded = np.stack([bench.model.embed_frame(frame) for frame in frames])
    streams = [Stream(bench.model), Stream(bench.model)]
    for stream, source in zip(streams, (frames, embedded), strict=True):
        for _ in stream.run(source):
            pass
    for ours, theirs in zip(streams[0].cache.layers, streams[1].cache.layers, strict=True):
        np.testing.assert_array_equal(ours.keys, theirs.keys)
        np.testing.assert_array_equal(ours.values, theirs.values)


@pytest.mark.parametrize("suite", SUITES)
def test_videos_too_short_for_their_suite_are_named(suite: str) -> None:
    check_clips([Clip(suite, 130, SEED)])
    with pytest.raises(UserError, match=f"3 frames are too short for any question of suite {suite}"):
        check_clips([Clip(suite, 130, SEED), Clip(suite, 3, SEED)])
