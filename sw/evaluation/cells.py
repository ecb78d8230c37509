"""One cell of the benchmark: a policy at a point, watching one video and answering its questions."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vrex.errors import UserError
from vrex.sw.evaluation.costs import cost_of
from vrex.sw.evaluation.embeddings import EmbeddingCache
from vrex.sw.evaluation.points import Point
from vrex.sw.retrieval.policies.account import Reporting
from vrex.sw.retrieval.policies.calibration import Calibration
from vrex.sw.retrieval.policies.shape import Shape
from vrex.sw.videollm.calibration import calibrate
from vrex.sw.videollm.checkpoint import SHIPPED, model_digest
from vrex.sw.videollm.procstream import EASY, LEVELS, ProcVideo, level_named, make, make_needles
from vrex.sw.videollm.procstream.ideal import ideal_answers
from vrex.sw.videollm.stream import Answered, Event, Spoke, Stream, VideoLLM

SUITES = ("tasks", "needles", "speak")
FPS = 2.0


@dataclass(frozen=True)
class Clip:
    """A video of the benchmark and what is done with it.

    Attributes:
        suite: `tasks`, questions on the way; `needles`, colours of steps asked about at the end;
            `speak`, no question: the model names each step when it ends.
        frames: length.
        seed: of the video.
        level: name of ProcStream's level.
    """

    suite: str
    frames: int
    seed: int
    level: str = EASY.name

    def video(self) -> ProcVideo:
        """Renders it."""
        if self.suite == "needles":
            return make_needles(self.seed, self.frames, FPS, LEVELS[self.level])
        questions = 0 if self.suite == "speak" else None
        return make(self.seed, self.frames, FPS, questions, LEVELS[self.level])

    def asks(self) -> bool:
        """Whether the video has a question, or for suite `speak` anything to say."""
        video = self.video()
        return bool(video.narration if self.suite == "speak" else video.questions)


def check_clips(clips: Sequence[Clip]) -> None:
    """Checks that every suite and length has something to ask.

    Raises:
        UserError: its videos are too short for that.
    """
    groups: dict[tuple[str, int], list[Clip]] = {}
    for clip in clips:
        groups.setdefault((clip.suite, clip.frames), []).append(clip)
    for (suite, frames), group in groups.items():
        if not any(clip.asks() for clip in group):
            raise UserError(
                f"{len(group)} video(s) of {frames} frames are too short for any question of suite {suite}; "
                "give --lengths of at least 96"
            )


@dataclass(frozen=True)
class VideoCell:
    """A clip under a policy."""

    point: Point
    clip: Clip

    def key(self) -> dict[str, Any]:
        """What tells it from other cells, for JSON."""
        return {**self.point.key(), **asdict(self.clip)}


class Bench:
    """A model that runs cells.

    Args:
        folder: checkpoint; None is the shipped one.
        calibration: file that holds the calibration of policies that need one; made when there is none.
        cache: folder of the embeddings; None is in the user's cache.

    Raises:
        UserError: the checkpoint is broken, or takes pictures of another size than ProcStream's.
    """

    def __init__(self, folder: Path | None, calibration: Path, cache: Path | None = None) -> None:
        self.model = VideoLLM.load(folder)
        self._embeddings = EmbeddingCache(self.model, model_digest(folder or SHIPPED), cache)
        self._calibration_path = calibration
        self._calibration: Calibration | None = None

    def prepare(self, points: list[Point]) -> None:
        """Makes the calibration if one of the points needs it."""
        for point in points:
            self._calibration = self._calibration or point.calibration(
                self._calibration_path, self.model, lambda: calibrate(self.model)
            )

    def embed(self, clip: Clip) -> None:
        """Embeds the clip into the cache, ahead of the cells that share it.

        Raises:
            UserError: as `run`.
        """
        self._check_words(clip.level)
        self._embed(clip.video())

    def make(self, point: Point) -> Reporting:
        """A policy that has seen nothing yet."""
        self.prepare([point])
        return point.new_policy(Shape.of(self.model.config), self._calibration)

    def run(
        self, cell: VideoCell, wrap: Callable[[Reporting], Reporting] = lambda policy: policy
    ) -> dict[str, Any]:
        """Streams the video.

        Args:
            cell: what is streamed.
            wrap: gives the policy to stream with, out of the cell's.

        Returns:
            The cell's `key`; `items`, one for each question or expected word: `task`, `time` (s), `asked`,
            `expected`, `given`, `right`, and for a question `ideal`, the probability that the best
            possible answer at that time is right; `ratio_frame`, `ratio_text`, `fetched` (tokens), `bytes`
            (metadata included), `degenerate`, as the policy's report has them.

        Raises:
            UserError: the model does not know the level's words, or the policy fails, for example
                because a table is full.
        """
        self._check_words(cell.clip.level)
        video = cell.clip.video()
        policy = wrap(self.make(cell.point))
        narrates = cell.clip.suite == "speak"
        stream = Stream(self.model, policy, mode="narrate" if narrates else "quiet", fps=FPS)
        questions = [(question.time, question.text) for question in video.questions]
        events = list(stream.run(self._embed(video), questions))
        return {
            **cell.key(),
            "items": _spoken(video, events) if narrates else _answered(cell.clip, video, events),
            **cost_of(policy.report()),
        }

    def _check_words(self, name: str) -> None:
        """A model of another level lacks the names of this one's recipes."""
        last = f"task{len(level_named(name).recipes) - 1}"
        if self.model.tokenizer.knows(last):
            return
        raise UserError(
            f"the model does not know the word {last} of level {name}; give --model one that was trained "
            "on it"
        )

    def _embed(self, video: ProcVideo) -> np.ndarray:
        side = self.model.config.vision.image_size
        if video.frames.shape[1] != side:
            raise UserError(
                f"the benchmark's videos are {video.frames.shape[1]} pixels wide, but the model takes "
                f"{side}; evaluate a model made for ProcStream"
            )
        return self._embeddings.embed(video.frames)


def _answered(clip: Clip, video: ProcVideo, events: list[Event]) -> list[dict[str, Any]]:
    """Items of the questions; all needles have been shown, so an ideal observer answers every one."""
    given = [event.text for event in events if isinstance(event, Answered)]
    needles = clip.suite == "needles"
    best = [1.0] * len(given) if needles else [float(share) for _, share in ideal_answers(video)]
    return [
        {**_item(question.kind, question.time, question.text, question.answer, text), "ideal": share}
        for question, text, share in zip(video.questions, given, best, strict=True)
    ]


def _spoken(video: ProcVideo, events: list[Event]) -> list[dict[str, Any]]:
    """Items of a narrated clip: the model should speak at the first frame after a step and name the step."""
    spoken = {event.time: event.text for event in events if isinstance(event, Spoke)}
    expected = dict(video.narration)
    items = []
    for time, name in video.narration:
        items.append(_item("speak recall", time, None, "speaks", "speaks" if time in spoken else "silent"))
        if time in spoken:
            items.append(_item("speak name", time, None, name, spoken[time]))
    for time in spoken:
        items.append(
            _item("speak precision", time, None, "speaks" if time in expected else "silent", "speaks")
        )
    return items


def _item(task: str, time: float, asked: str | None, expected: str, given: str) -> dict[str, Any]:
    return {
        "task": task,
        "time": time,
        "asked": asked,
        "expected": expected,
        "given": given,
        "right": given == expected,
    }
