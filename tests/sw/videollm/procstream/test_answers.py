"""The shipped checkpoint answers what ProcStream asks: the pictures are what it was trained on."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from vrex.sw.videollm.procstream import make, write_mp4
from vrex.sw.videollm.stream import Answered, Stream, VideoLLM
from vrex.sw.videollm.video import open_video


def answers(model: VideoLLM, seed: int, folder: Path | None) -> list[tuple[str, str]]:
    """(right answer, the model's) of every question; through a file if there is a folder for it."""
    video = make(seed, 96)
    frames: Iterable[np.ndarray] = video.frames
    if folder is not None:
        write_mp4(video, folder / "video.mp4")
        frames = open_video(folder / "video.mp4", video.fps, 64)
    questions = [(question.time, question.text) for question in video.questions]
    events = Stream(model, fps=video.fps).run(frames, questions, frame_count=96)
    given = [event.text for event in events if isinstance(event, Answered)]
    return list(zip([question.answer for question in video.questions], given, strict=True))


def test_answers_survive_the_file(tmp_path: Path) -> None:
    pairs = answers(VideoLLM.load(), 1, tmp_path)
    assert len(pairs) == 7
    assert [given for _, given in pairs] == [right for right, _ in pairs]


@pytest.mark.slow
@pytest.mark.parametrize("through_file", [False, True])
def test_answers_over_20_videos(tmp_path: Path, through_file: bool) -> None:
    model = VideoLLM.load()
    pairs = [pair for seed in range(20) for pair in answers(model, seed, tmp_path if through_file else None)]
    right = sum(right == given for right, given in pairs)
    assert right >= 0.95 * len(pairs) > 100
