"""What the trainer learns from: ProcStream videos as token streams with labels.

The stream is the one that `vrex.sw.videollm.stream` feeds: ``<bos> mode [ F , F ] User: question Assistant:
answer <eos> [ F , ...``. A label is the token that the model has to predict at its place.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from vrex.errors import UserError
from vrex.sw.videollm.procstream import EASY, Level, ProcVideo, Question, make, make_needles
from vrex.sw.videollm.procstream.script import ALL_KINDS, make_questions
from vrex.sw.videollm.procstream.world import ACTIONS, COLORS, SHAPES

PROTOCOL = ("<pad>", "<bos>", "<eos>", "<v>", "[", ",", "]", "User:", "Assistant:", "narrate", "quiet")
QUESTION_WORDS = ("now", "next", "task", "plan", "goal", "first", "color", "of", "idle")
FRAME_TOKENS = 10
NOTHING = -100
"""The label where nothing is to be predicted."""
SPOKEN = "narrate"
"""The kind of an answer that nobody asked for."""

FPS = 2.0
NARRATED = 0.4
"""Share of the videos in which the model speaks of its own accord."""
NEEDLES = 0.15
"""Share of the videos whose questions come in a row at the end, where the level asks about older recipes."""
TRIES = 8
"""Of a question of the wanted kinds."""
DECISION_WEIGHT = 0.1
"""Of a decision to keep watching or to speak, against 1 of a word of an answer: frames are many."""


T = TypeVar("T")


def words(level: Level) -> list[str]:
    """The vocabulary of models for a level; a word's place is its id."""
    tasks = (f"task{number}" for number in range(len(level.recipes)))
    return [*PROTOCOL, *QUESTION_WORDS, *SHAPES, *ACTIONS, *COLORS, *tasks]


@dataclass(frozen=True)
class Sample:
    """A video as the model sees it.

    Attributes:
        frames: uint8 [n, 64, 64, 3].
        ids: int64 [tokens]; `<v>` stands for the tokens of the frames, in order.
        labels: int64 [tokens]; `NOTHING` where nothing is learnt.
        weights: float32 [tokens], of the labels.
        answers: (kind, first, end) of every answer's labels, its `<eos>` included.
    """

    frames: NDArray[np.uint8]
    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    weights: NDArray[np.float32]
    answers: list[tuple[str, int, int]]


@dataclass(frozen=True)
class Mix:
    """Which videos and questions are drawn.

    Attributes:
        level: of the videos, with `older` set where older recipes are asked about.
        kinds: of the questions; needles count as `older`.
    """

    level: Level = EASY
    kinds: tuple[str, ...] = ALL_KINDS

    def __post_init__(self) -> None:
        for kind in self.kinds:
            if kind not in ALL_KINDS:
                raise UserError(f"there is no kind of question {kind!r}; choose of {', '.join(ALL_KINDS)}")


def draw(mix: Mix, seed: int, frames: int) -> Sample:
    """The sample of a seed: a video, whether it is narrated, and a few of the questions it could bring.

    Questions are sparse, 1 to about one in `level.frames_per_question` frames: asked about every step, a
    model learns to answer from its earlier answers instead of from the pictures.
    """
    rng = np.random.default_rng([seed, len(mix.kinds)])
    vocabulary = {word: number for number, word in enumerate(words(mix.level))}
    narrated = bool(rng.random() < NARRATED)
    if mix.level.older and "older" in mix.kinds and rng.random() < NEEDLES:
        return encode(make_needles(seed, frames, FPS, mix.level), vocabulary, narrated)
    video = make(seed, frames, FPS, questions=0, level=mix.level)
    fitting = _fitting(rng, mix, video)
    most = max(1, min(round(frames / mix.level.frames_per_question), len(fitting) - 1))
    chosen = rng.permutation(len(fitting))[: rng.integers(1, most, endpoint=True)]
    questions = [fitting[index] for index in sorted(chosen)]
    return encode(replace(video, questions=questions), vocabulary, narrated)


def _fitting(rng: np.random.Generator, mix: Mix, video: ProcVideo) -> list[Question]:
    """A question of the wanted kinds about each step, where a few tries give one; in order of time."""
    frames = len(video.frames)
    found: dict[float, Question] = {}
    for _ in range(1 if set(mix.kinds) == set(ALL_KINDS) else TRIES):
        for question in make_questions(rng, video.steps, frames, FPS, frames, mix.level):
            if question.kind in mix.kinds:
                found.setdefault(question.time, question)
    return [found[time] for time in sorted(found)]


def encode(video: ProcVideo, vocabulary: dict[str, int], narrated: bool) -> Sample:
    """A video with its questions, and its narration if it is narrated, as tokens and labels."""
    builder = _Builder(vocabulary)
    builder.say("<bos>", "narrate" if narrated else "quiet", "[")
    asked = _by_frame([(question.time, question) for question in video.questions], video.fps)
    told = _by_frame(list(video.narration), video.fps) if narrated else {}
    for frame in range(len(video.frames)):
        builder.say(*["<v>"] * FRAME_TOKENS)
        questions, names = asked.get(frame, []), told.get(frame, [])
        if names or not questions:
            # A question that is put to it leaves the model nothing to decide.
            builder.decide("]" if names else ",")
        if not names and not questions:
            builder.say(",")
            continue
        for name in names:
            builder.say("]", "Assistant:")
            builder.answer(SPOKEN, name)
        for question in questions:
            builder.say("]", "User:", *question.text.split(), "Assistant:")
            builder.answer(_kind(question), question.answer)
        builder.say("[")
    return builder.finish(video.frames)


def _kind(question: Question) -> str:
    return "older" if question.kind.startswith("needle") else question.kind


def _by_frame(timed: Sequence[tuple[float, T]], fps: float) -> dict[int, list[T]]:
    """What comes after each frame; (f + 0.5) / fps comes after frame f, and so does what is seen in it."""
    found: dict[int, list[T]] = {}
    for time, item in timed:
        found.setdefault(int(time * fps + 1e-6), []).append(item)
    return found


class _Builder:
    """Collects tokens, and labels for the token before them."""

    def __init__(self, vocabulary: dict[str, int]) -> None:
        self._vocabulary = vocabulary
        self._ids: list[int] = []
        self._labels: list[int] = []
        self._weights: list[float] = []
        self._answers: list[tuple[str, int, int]] = []

    def say(self, *said: str) -> None:
        """Adds words that nobody has to predict."""
        for word in said:
            self._ids.append(self._vocabulary[word])
            self._labels.append(NOTHING)
            self._weights.append(0.0)

    def decide(self, word: str) -> None:
        """The last token has to predict whether to speak."""
        self._label(word, DECISION_WEIGHT)

    def answer(self, kind: str, answer: str) -> None:
        """Adds an answer and its `<eos>`, each word predicted at the token before it."""
        first = len(self._ids) - 1
        for word in (*answer.split(), "<eos>"):
            self._label(word, 1.0)
            self.say(word)
        self._answers.append((kind, first, len(self._ids) - 1))

    def _label(self, word: str, weight: float) -> None:
        self._labels[-1], self._weights[-1] = self._vocabulary[word], weight

    def finish(self, frames: NDArray[np.uint8]) -> Sample:
        return Sample(
            frames,
            np.array(self._ids),
            np.array(self._labels),
            np.array(self._weights, np.float32),
            self._answers,
        )


@dataclass(frozen=True)
class Batch:
    """Samples of equally many frames, their tokens filled up with `<pad>` to a common length.

    `frames` uint8 [samples * n, 64, 64, 3]; `ids`, `labels`, `weights` [samples, tokens]; `answers` of each.
    """

    frames: NDArray[np.uint8]
    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    weights: NDArray[np.float32]
    answers: list[list[tuple[str, int, int]]]


def collate(samples: Sequence[Sample]) -> Batch:
    """Puts samples of equally many frames together."""
    tokens = max(len(sample.ids) for sample in samples)

    def filled(rows: list[NDArray], value: float) -> NDArray:
        return np.stack([np.pad(row, (0, tokens - len(row)), constant_values=value) for row in rows])

    return Batch(
        np.concatenate([sample.frames for sample in samples]),
        filled([sample.ids for sample in samples], 0),
        filled([sample.labels for sample in samples], NOTHING),
        filled([sample.weights for sample in samples], 0),
        [sample.answers for sample in samples],
    )
