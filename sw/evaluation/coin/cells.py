"""One cell: a policy at a point, watching a part of a video and answering one question."""

import math
import sys
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from vrex.errors import UserError
from vrex.sw.evaluation.coin.annotations import Annotations, Case
from vrex.sw.evaluation.coin.scoring import score
from vrex.sw.evaluation.costs import cost_of
from vrex.sw.evaluation.embeddings import EmbeddingCache
from vrex.sw.evaluation.points import Point
from vrex.sw.retrieval.policies.shape import Shape
from vrex.sw.videollm.calibration import calibrate
from vrex.sw.videollm.stream import Stream, VideoLLM
from vrex.sw.videollm.video import open_video

SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov")
WORDS = {"step": "now", "next": "next", "task": "task", "procedure": "plan", "goal": "plan"}
"""The questions for models that know single words only; they can't be told a goal of COIN's."""


def find_videos(folder: Path) -> dict[str, Path]:
    """Videos by their names without suffix.

    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"--videos {folder}: is not a folder; give the folder of COIN's videos")
    return {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES}


@dataclass(frozen=True)
class CoinCell:
    """A question under a policy.

    Attributes:
        point: the policy.
        case: the question.
        conditions: whatever else an answer depends on besides the model.
    """

    point: Point
    case: Case
    conditions: str

    def key(self) -> dict[str, Any]:
        """What tells it from other cells, for JSON."""
        case = self.case
        names = {"task": case.task, "video": case.video, "index": case.index}
        return {**self.point.key(), **names, "conditions": self.conditions}


class Watcher:
    """A model that runs cells.

    Args:
        model: the video LLM.
        digest: of its files, for the cache of embeddings.
        annotations: what answers are compared with.
        videos: by name.
        fps: frames a second.
        max_answer: most tokens in an answer.
        calibration: file that holds the calibration of policies that need one; made when there is none.
        cache: folder of the embeddings; None is in the user's cache.
    """

    def __init__(
        self,
        model: VideoLLM,
        digest: str,
        annotations: Annotations,
        videos: dict[str, Path],
        fps: float,
        max_answer: int,
        calibration: Path,
        cache: Path | None = None,
    ) -> None:
        self.model, self._annotations, self._videos = model, annotations, videos
        self._fps, self._max_answer = fps, max_answer
        self._embeddings = EmbeddingCache(model, digest, cache)
        self._calibration_path = calibration

    def run(self, cell: CoinCell) -> dict[str, Any]:
        """Watches the part and answers.

        Models that speak in sentences are asked before the first frame, as VideoLLM-Online does; those that
        know single words are asked after the last one, as they were trained.

        Returns:
            The cell's `key`; `frames` watched, `asked`, `given`, `expected`, `right` (for each expected
            answer); `ratio_frame`, `ratio_text`, `fetched` (tokens), `bytes` (metadata included).

        Raises:
            UserError: the video can't be read or is shorter than the part, or the policy can't go on.
        """
        case, point = cell.case, cell.point
        frames = self._embeddings.embed(self._frames(case))
        calibration = point.calibration(self._calibration_path, self.model, lambda: calibrate(self.model))
        policy = point.new_policy(Shape.of(self.model.config), calibration)
        first = self.model.config.system is not None
        question = case.question if first else WORDS[case.task]
        stream = Stream(
            self.model,
            policy,
            fps=self._fps,
            max_answer=self._max_answer,
            question=question if first else None,
        )
        for index, frame in enumerate(frames):
            stream.watch(index, frame)
        given = stream.talk(self.model.tokenizer.turn(None if first else question))
        return {
            **cell.key(),
            "frames": len(frames),
            "asked": question,
            "given": given,
            "expected": list(case.expected),
            "right": score(given, case.expected, self._annotations.categories(case.task)),
            **cost_of(policy.report()),
        }

    def _frames(self, case: Case) -> np.ndarray:
        """Pictures of the part, both of its ends rounded up to a frame and included."""
        path = self._videos[case.video]
        reader = open_video(path, self._fps, self.model.config.vision.image_size)
        first, last = (math.ceil(time * self._fps) for time in (case.start, case.end))
        if reader.frame_count is not None:
            # Annotations may end a little after the video.
            first, last = min(first, reader.frame_count - 1), min(last, reader.frame_count - 1)
        pictures = list(islice(reader, first, last + 1))
        if not pictures:
            raise UserError(f"{path} ends before {case.start:g} s, where step {case.index} begins")
        if damage := reader.damage():
            tqdm.write(f"vrex: warning: {damage}", file=sys.stderr)
        return np.stack(pictures)
