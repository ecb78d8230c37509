"""Steps, questions and narration of ProcStream videos."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vrex.sw.errors import UserError
from vrex.sw.videollm.procstream import Question, Step, make, world
from vrex.sw.videollm.procstream.script import KINDS, make_steps

SEEDS = range(12)
LONG = [make(seed, 96) for seed in SEEDS]


def shown_at(steps: list[Step], frame: int) -> list[Step]:
    """The steps of the current recipe up to the one that `frame` shows, derived by a scan over all steps."""
    history: list[Step] = []
    for step in steps:
        if step.start > frame:
            break
        history = [step] if step.position == 0 else [*history, step]
    return history


def expected_answer(question: Question, history: list[Step]) -> str:
    names = [f"{shape} {action}" for shape in world.SHAPES for action in world.ACTIONS]
    task = history[-1].recipe
    rest = [names[number] for number in world.RECIPES[task]][len(history) :]
    words = question.text.split()
    match words:
        case ["now"]:
            return names[history[-1].step]
        case ["first"]:
            return names[world.RECIPES[task][0]]
        case ["task"]:
            return f"task{task}"
        case ["next"]:
            return rest[0] if rest else "idle"
        case ["plan"]:
            return " ".join(rest) or "idle"
        case ["goal", name]:
            assert name == f"task{task}"
            return " ".join(rest) or "idle"
        case ["color", "of", shape, action]:
            (color,) = {step.color for step in history if names[step.step] == f"{shape} {action}"}
            return world.COLORS[color]
    raise AssertionError(f"a question of no kind: {question}")


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 2**70), st.integers(1, 150), st.floats(0.1, 60), st.one_of(st.none(), st.integers(0, 20))
)
def test_every_answer_follows_from_the_steps(seed: int, frames: int, fps: float, count: int | None) -> None:
    video = make(seed, frames, fps, count)
    asked = []
    for question in video.questions:
        frame = math.floor(question.time * fps)
        assert question.time == pytest.approx((frame + 0.5) / fps)
        assert frame < frames
        history = shown_at(video.steps, frame)
        assert frame == history[-1].end - 1
        assert question.kind == question.text.split()[0]
        assert question.answer == expected_answer(question, history)
        if question.kind in ("next", "task", "plan"):
            assert len(history) >= 2
        asked.append(frame)
    assert asked == sorted(set(asked))


@pytest.mark.parametrize("count", [0, 1, 3, 1000])
def test_as_many_questions_as_wanted_up_to_the_finished_steps(count: int) -> None:
    for seed in SEEDS:
        video = make(seed, 96, questions=count)
        finished = [step for step in video.steps if step.end <= 96]
        assert len(video.questions) == min(count, len(finished))


def test_default_questions_are_many_but_never_about_every_step() -> None:
    for video in LONG:
        finished = sum(step.end <= 96 for step in video.steps)
        assert 4 <= len(video.questions) <= min(8, finished - 1)
    assert np.mean([len(video.questions) for video in LONG]) > 6


def test_all_kinds_are_asked() -> None:
    assert {question.kind for video in LONG for question in video.questions} == set(KINDS)


def test_a_video_without_a_finished_step_has_no_questions() -> None:
    video = make(5, 5)
    assert (len(video.frames), len(video.steps)) == (5, 1)
    assert video.questions == []
    assert video.narration == []


def test_a_step_that_ends_with_the_video_can_be_asked_about() -> None:
    end = make(0, 1).steps[0].end
    assert make(0, end - 1).questions == []
    assert [question.time for question in make(0, end).questions] == [(end - 0.5) / 2]


def test_narration_names_each_step_at_the_frame_after_it() -> None:
    video = make(2, 96, fps=4.0)
    assert video.narration == [(step.end / 4, step.name) for step in video.steps if step.end < 96]


def test_steps_have_the_trained_distribution() -> None:
    steps = make_steps(np.random.default_rng(11), 40_000)
    lengths = np.bincount([step.end - step.start for step in steps])
    gaps = np.bincount([b.start - a.end for a, b in pairwise(steps)])
    assert np.flatnonzero(lengths).tolist() == list(range(6, 15))
    assert np.flatnonzero(gaps).tolist() == [0, 1, 2, 3]
    counts = [
        lengths[6:],
        gaps,
        np.bincount([step.color for step in steps], minlength=8),
        np.bincount([step.direction == 1 for step in steps]),
        np.bincount([step.recipe for step in steps if step.position == 0], minlength=16),
    ]
    for count in counts:
        deviation = np.abs(count - count.mean()) / np.sqrt(count.mean())
        assert deviation.max() < 4.5, count
    assert all(0.18 <= step.size < 0.34 for step in steps)
    assert all(-0.3 <= value < 0.3 for step in steps for value in step.center)


def test_recipes_are_shown_whole_and_in_order() -> None:
    steps = make_steps(np.random.default_rng(3), 2_000)
    at = 0
    while at + 6 < len(steps):
        recipe = world.RECIPES[steps[at].recipe]
        assert tuple(step.step for step in steps[at : at + len(recipe)]) == recipe
        assert [step.position for step in steps[at : at + len(recipe)]] == list(range(len(recipe)))
        at += len(recipe)


def test_recipes_cannot_make_a_colour_question_ambiguous() -> None:
    assert all(len(set(recipe)) == len(recipe) for recipe in world.RECIPES)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"seed": -1, "frames": 4}, "seed is -1"),
        ({"seed": 0, "frames": 0}, "at least 1 frame"),
        ({"seed": 0, "frames": 4, "fps": 0.0}, "above 0"),
        ({"seed": 0, "frames": 4, "fps": math.nan}, "above 0"),
        ({"seed": 0, "frames": 4, "fps": math.inf}, "above 0"),
        ({"seed": 0, "frames": 4, "questions": -2}, "0 or more"),
    ],
)
def test_impossible_wishes_are_named(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        make(**arguments)
