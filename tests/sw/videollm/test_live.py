"""`LiveInfer` says what `Stream.run` says."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vrex.errors import UserError
from vrex.sw.retrieval.policies.registry import make_policy, make_settings
from vrex.sw.retrieval.policies.shape import Shape
from vrex.sw.videollm.live import LiveInfer
from vrex.sw.videollm.procstream.procvideo import ProcVideo, make
from vrex.sw.videollm.stream import Answered, Spoke, Stream
from vrex.sw.videollm.videollm import VideoLLM

FRAMES = 40


@pytest.fixture(scope="module")
def video() -> ProcVideo:
    return make(4, FRAMES, questions=3)


def resv(model: VideoLLM) -> Any:
    return make_policy("resv", make_settings("resv", {}), Shape.of(model.config))


def streamed(model: VideoLLM, video: ProcVideo, mode: str) -> list[tuple[str | None, str]]:
    stream = Stream(model, resv(model), mode)
    events = stream.run(video.frames, [(q.time, q.text) for q in video.questions])
    return [
        (event.question if isinstance(event, Answered) else None, event.text)
        for event in events
        if isinstance(event, Answered | Spoke)
    ]


def drain(live: LiveInfer) -> list[tuple[str | None, str | None]]:
    said: list[tuple[str | None, str | None]] = []
    while True:
        query, response = live()
        if response is None:
            return said
        said.append((query, response))


@pytest.mark.parametrize("mode", ["quiet", "narrate"])
@pytest.mark.parametrize("step", [0.5, 3.2])
def test_answers_are_the_streams(shipped: VideoLLM, video: ProcVideo, mode: str, step: float) -> None:
    live = LiveInfer(shipped, lambda: resv(shipped), mode=mode)
    wanted = streamed(shipped, video, mode)
    assert len(wanted) >= 3
    for _ in range(2):
        live.load_video(video.frames)
        waiting = list(video.questions)
        said: list[tuple[str | None, str | None]] = []
        for now in [*np.arange(0, FRAMES / 2, step).tolist(), FRAMES]:
            while waiting and waiting[0].time <= now:
                question = waiting.pop(0)
                live.input_query_stream(question.text, video_time=question.time)
            live.input_video_stream(now)
            said += drain(live)
        assert said == wanted
        live.reset()


def test_streams_do_not_mix_and_are_logged(shipped: VideoLLM, video: ProcVideo, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    lives = [LiveInfer(shipped, sequence=i, log=log) for i in range(2)]
    other = make(5, FRAMES, questions=3)
    both = (video, other)
    for live, one in zip(lives, both, strict=True):
        live.load_video(one.frames)
        for question in one.questions:
            live.input_query_stream(question.text, video_time=question.time)
    for now in np.arange(0, FRAMES / 2, 1.5):
        for live in lives:
            live.input_video_stream(float(now))
            drain(live)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {line["sequence"] for line in lines} == {0, 1}
    assert set(lines[0]) == {"sequence", "role", "content", "time", "fps", "cost"}
    for live, one in zip(lives, both, strict=True):
        answers = [entry["content"] for entry in live.history if entry["role"] == "assistant"]
        assert answers == [question.answer for question in one.questions]
        logged = [line for line in lines if line["sequence"] == live.sequence]
        assert [entry["content"] for entry in live.history] == [line["content"] for line in logged]
        assert all(line["cost"] > 0 and line["fps"] > 0 for line in logged if line["role"] == "assistant")


def test_history_of_the_caller(shipped: VideoLLM) -> None:
    live, history = LiveInfer(shipped), list[dict[str, Any]]()
    live.input_query_stream("now", history)
    assert history == live.history
    live.reset()
    assert live.history == []


def test_mistakes(shipped: VideoLLM, tmp_path: Path) -> None:
    live = LiveInfer(shipped)
    with pytest.raises(UserError, match="no video is loaded; call load_video first"):
        live.input_video_stream(1)
    with pytest.raises(UserError, match='does not know the word "zebra"'):
        live.input_query_stream("zebra")
    assert live.history == []
    with pytest.raises(UserError, match=r"nowhere\.mp4"):
        live.load_video(tmp_path / "nowhere.mp4")
    with pytest.raises(UserError, match="threshold 2 is no probability"):
        LiveInfer(shipped, frame_token_interval_threshold=2)
    logged = LiveInfer(shipped, log=tmp_path / "missing" / "log")
    with pytest.raises(UserError, match="cannot be written"):
        logged.input_query_stream("now")
