"""COIN's annotations and the questions that VideoLLM-Online makes of them.

The file is COIN's own: {"database": {VIDEO: {"class": task, "subset": "training" or "testing", "start": s,
"end": s, "annotation": [{"segment": [s, s], "label": step}, ...]}}}, s being seconds; other keys are ignored.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vrex.errors import UserError
from vrex.text import from_json

TASKS = ("step", "next", "task", "procedure", "goal")
SPLITS = ("test", "train")
MOST_STEPS = 5
"""Steps that a procedure asks for."""

RENAMED = {
    "process (crop, fold) paper": "crop and fold paper",
    "try to press gun head, spray residual old grease": "try to press gun head to spray residual old grease",
}
"""Labels with a comma in them, as VideoLLM-Online words them."""
NAMES = re.compile(r"TV|CD|SIM|NBA|SSD|RJ45|[A-Z][^A-Z]*|[^A-Z]+")
"""Parts of a task's name, such as ReplaceSIMCard; of those in capitals nothing is changed."""

BRIEFLY = "Format your answer concisely. No extra text output."
LISTED = (
    "Format your answer concisely, listing each action on a new line with a number prefix. "
    "No extra text output."
)


@dataclass(frozen=True)
class AnnotatedStep:
    """A step of a video: `start` and `end` in seconds, `text` as it is answered."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class AnnotatedVideo:
    """One video's annotation: `task` in words, `start` and `end` of what matters in seconds."""

    name: str
    task: str
    start: float
    end: float
    steps: tuple[AnnotatedStep, ...]


@dataclass(frozen=True)
class Case:
    """A question about a part of a video.

    Attributes:
        task: one of `TASKS`.
        video: its name.
        index: of the step that is seen; 0 for a whole video.
        start, end: seconds of the video that are seen.
        question: in VideoLLM-Online's words.
        expected: the right answer, or that of each step to come.
    """

    task: str
    video: str
    index: int
    start: float
    end: float
    question: str
    expected: tuple[str, ...]


@dataclass(frozen=True)
class Annotations:
    """A file's videos of one split, and what may be answered.

    Attributes:
        videos: of the split.
        steps, tasks: every answer that there is in the whole file, in the order of the alphabet.
    """

    videos: list[AnnotatedVideo]
    steps: list[str]
    tasks: list[str]

    def categories(self, task: str) -> list[str]:
        """What an answer to one of `TASKS` is compared with."""
        return self.tasks if task == "task" else self.steps


def read_annotations(path: Path, split: str) -> Annotations:
    """Reads COIN's JSON.

    Args:
        path: of the file.
        split: `test` or `train`.

    Raises:
        UserError: the file is missing or broken, or has no video of the split.
    """
    try:
        content = from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give COIN's annotations") from error
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); restore the file") from error
    database = content.get("database") if isinstance(content, dict) else None
    if not isinstance(database, dict):
        raise UserError(f"{path} has no object 'database'; give COIN's annotations")
    whole = [_video(path, name, entry) for name, entry in database.items()]
    chosen = [video for video, subset in whole if split in subset.lower()]
    if not chosen:
        raise UserError(f"{path} has no video of split {split!r}; choose another --split")
    steps = {step.text for video, _ in whole for step in video.steps}
    return Annotations(chosen, sorted(steps), sorted({answer(video.task) for video, _ in whole}))


def _video(path: Path, name: str, entry: Any) -> tuple[AnnotatedVideo, str]:
    """A video and its subset."""

    def get(values: Any, key: str, kind: type | tuple[type, ...]) -> Any:
        value = values.get(key) if isinstance(values, dict) else None
        if not isinstance(value, kind) or isinstance(value, bool):
            raise UserError(f"{path}: video {name} has no proper {key!r}, but {value!r}; restore the file")
        return value

    steps = []
    for part in get(entry, "annotation", list):
        segment = get(part, "segment", list)
        numbers = len(segment) == 2 and all(type(time) in (int, float) for time in segment)
        if not numbers or not 0 <= segment[0] <= segment[1]:
            raise UserError(f"{path}: video {name} has the segment {segment!r}, which is no span of seconds")
        label: str = get(part, "label", str)
        steps.append(AnnotatedStep(segment[0], segment[1], answer(RENAMED.get(label) or label)))
    start, end = (get(entry, key, (int, float)) for key in ("start", "end"))
    if not 0 <= start <= end:
        raise UserError(f"{path}: video {name} lasts from {start} to {end}, which is no span of seconds")
    task = words_of(get(entry, "class", str))
    return AnnotatedVideo(name, task, start, end, tuple(steps)), get(entry, "subset", str)


def words_of(name: str) -> str:
    """A task's name in words: PutOnHair is `put on hair`."""
    parts = [part if part.isupper() and len(part) > 1 else part.lower() for part in NAMES.findall(name)]
    return " ".join(parts).strip()


def answer(text: str) -> str:
    """A step or task as it is answered: a sentence, only its first letter large."""
    return text.capitalize() + "."


def make_cases(videos: Sequence[AnnotatedVideo], task: str) -> list[Case]:
    """Every question of a task about the videos, in their order."""
    return [case for video in videos for case in _MAKERS[task](video)]


def _step_cases(video: AnnotatedVideo) -> list[Case]:
    question = f"What is the action in the video? {BRIEFLY}"
    return [
        Case("step", video.name, i, step.start, step.end, question, (step.text,))
        for i, step in enumerate(video.steps)
    ]


def _next_cases(video: AnnotatedVideo) -> list[Case]:
    question = f"What is the next action for the video? {BRIEFLY}"
    return [
        Case("next", video.name, i, step.start, step.end, question, (video.steps[i + 1].text,))
        for i, step in enumerate(video.steps[:-1])
    ]


def _task_cases(video: AnnotatedVideo) -> list[Case]:
    question = f"What is the overall activity in the video? {BRIEFLY}"
    return [Case("task", video.name, 0, video.start, video.end, question, (answer(video.task),))]


def _procedure_cases(video: AnnotatedVideo, task: str = "procedure") -> list[Case]:
    opening = f"To {video.task}, what" if task == "goal" else "What"
    cases = []
    for i, step in enumerate(video.steps[:-1]):
        coming = tuple(later.text for later in video.steps[i + 1 : i + 1 + MOST_STEPS])
        what = "action" if len(coming) == 1 else f"{len(coming)} actions"
        question = f"{opening} is the next {what} for the video? {BRIEFLY if len(coming) == 1 else LISTED}"
        cases.append(Case(task, video.name, i, step.start, step.end, question, coming))
    return cases


def _goal_cases(video: AnnotatedVideo) -> list[Case]:
    return _procedure_cases(video, "goal")


_MAKERS: dict[str, Callable[[AnnotatedVideo], list[Case]]] = {
    "step": _step_cases,
    "next": _next_cases,
    "task": _task_cases,
    "procedure": _procedure_cases,
    "goal": _goal_cases,
}
