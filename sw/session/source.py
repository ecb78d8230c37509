"""Where the frames and the questions of a session come from."""

from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from vrex.errors import UserError
from vrex.sw.videollm.procstream import EASY, Question, level_named, make, read_sidecar, sidecar_path
from vrex.sw.videollm.video import VideoReader, open_video

PROCSTREAM = "procstream:"
DEFAULT_FRAMES = 96
DEFAULT_FPS = 2.0


@dataclass(frozen=True)
class Source:
    """A video and what is asked about it.

    Attributes:
        frames: uint8 [size, size, 3] RGB pictures, in order; can be gone through once.
        frame_count: how many there are, or None when the file does not say.
        fps: frames a second of the video's time.
        questions: (seconds, text), ascending in time.
        answers: the right answer of each question, or None when nobody knows.
        reader: of the file, None where there is none; it says where the file is damaged.
    """

    frames: Iterable[np.ndarray]
    frame_count: int | None
    fps: float
    questions: list[tuple[float, str]]
    answers: list[str] | None
    reader: VideoReader | None = None


def open_source(
    video: str | Path | Iterable[np.ndarray],
    size: int,
    frames: int | None,
    fps: float | None,
    asked: Sequence[tuple[float, str]],
) -> Source:
    """Opens a file, renders a ProcStream video, or takes frames that are there.

    Args:
        video: a path, ``procstream:SEED``, ``procstream:LEVEL:SEED``, or frames as `Source.frames`.
        size: edge of the square pictures the vision tower takes, in pixels.
        frames: at most so many; None takes a whole file, or 96 frames of ProcStream.
        fps: frames a second; None takes the sidecar's, else 2.
        asked: questions of the user's own; without any the video's own are asked.

    Raises:
        UserError: the level, the seed, the file or its sidecar is not what it should be.
    """
    if not isinstance(video, str | Path):
        count = len(video) if isinstance(video, Sized) else None
        shown = count if count is None or frames is None else min(count, frames)
        return _with_questions(islice(video, frames), shown, fps or DEFAULT_FPS, None, asked)
    if isinstance(video, str) and video.startswith(PROCSTREAM):
        return _procstream(video, size, frames or DEFAULT_FRAMES, fps or DEFAULT_FPS, asked)
    return _file(Path(video), size, frames, fps, asked)


def _procstream(video: str, size: int, frames: int, fps: float, asked: Sequence[tuple[float, str]]) -> Source:
    name, colon, seed = video.removeprefix(PROCSTREAM).rpartition(":")
    level = level_named(name) if colon else EASY
    if not seed.isdecimal():
        raise UserError(f"--video {video}: {seed!r} is not a seed; give a whole number, as in procstream:1")
    rendered = make(int(seed), frames, fps, level=level)
    if rendered.frames.shape[1] != size:
        edge = rendered.frames.shape[1]
        raise UserError(
            f"--video {video} is {edge} pixels wide, but the model takes {size}; give a video file"
        )
    return _with_questions(rendered.frames, frames, fps, rendered.questions, asked)


def _file(
    path: Path, size: int, frames: int | None, fps: float | None, asked: Sequence[tuple[float, str]]
) -> Source:
    # What is no file is the reader's to complain about.
    has_sidecar = path.is_file() and sidecar_path(path).is_file()
    sidecar = read_sidecar(sidecar_path(path)) if has_sidecar else None
    fps = fps or (sidecar.fps if sidecar else DEFAULT_FPS)
    reader = open_video(path, fps, size)
    counts = [count for count in (reader.frame_count, frames) if count is not None]
    count = min(counts) if reader.frame_count is not None else None
    known = sidecar.questions if sidecar else None
    return replace(_with_questions(islice(reader, frames), count, fps, known, asked), reader=reader)


def _with_questions(
    frames: Iterable[np.ndarray],
    count: int | None,
    fps: float,
    known: list[Question] | None,
    asked: Sequence[tuple[float, str]],
) -> Source:
    """A source that asks what the user asks, or else what the video brings along for the frames shown."""
    if asked or known is None:
        return Source(frames, count, fps, sorted(asked, key=lambda item: item[0]), None)
    shown = [question for question in known if count is None or question.time * fps < count]
    questions = [(question.time, question.text) for question in shown]
    return Source(frames, count, fps, questions, [question.answer for question in shown])
