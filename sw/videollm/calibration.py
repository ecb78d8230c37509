"""Calibrates a video LLM for policies `infinigen` and `oaken`: watches a few videos and measures."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from vrex.errors import UserError
from vrex.sw.retrieval.policies.base import Policy
from vrex.sw.retrieval.policies.calibration import Calibration, calibrate_decoder
from vrex.sw.videollm.procstream import make
from vrex.sw.videollm.stream import Stream
from vrex.sw.videollm.videollm import VideoLLM

VIDEO_SEEDS = (900_001, 900_002)
VIDEO_FRAMES = 96


class Question(Protocol):
    """A question of a video."""

    @property
    def time(self) -> float:
        """Seconds."""
        ...

    @property
    def text(self) -> str:
        """Without `User:`."""
        ...


class Video(Protocol):
    """What a calibration watches; `ProcVideo` is one."""

    @property
    def frames(self) -> np.ndarray:
        """uint8 [n, image_size, image_size, 3]."""
        ...

    @property
    def questions(self) -> Sequence[Question]:
        """To be asked on the way."""
        ...


def calibrate(model: VideoLLM, videos: Sequence[Video] | None = None, seed: int = 0) -> Calibration:
    """Watches videos with full attention and measures; the same arguments give the same result.

    Args:
        model: the video LLM.
        videos: what to watch, with their questions; None is two ProcStream videos kept apart from all others.
        seed: of the choice of rows.

    Raises:
        UserError: no videos, or frames of a size that the model does not take.
    """
    videos = _default_videos(model) if videos is None else videos
    if not videos:
        raise UserError("a calibration needs at least one video; give some")

    def watch(policy: Policy) -> None:
        for video in videos:
            asked = [(question.time, question.text) for question in video.questions]
            for _ in Stream(model, policy).run(video.frames, asked):
                pass

    return calibrate_decoder(model.decoder, watch, seed, tuple(len(video.frames) for video in videos))


def _default_videos(model: VideoLLM) -> list[Video]:
    videos: list[Video] = [make(seed, VIDEO_FRAMES) for seed in VIDEO_SEEDS]
    edge, side = videos[0].frames.shape[1], model.config.vision.image_size
    if edge != side:
        raise UserError(
            f"the calibration's own videos are {edge} pixels wide, but the model takes {side}; "
            "give videos of that size"
        )
    return videos
