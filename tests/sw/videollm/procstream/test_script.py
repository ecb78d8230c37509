"""Steps, questions and narration of ProcStream videos."""

import hashlib
import json
import math
from collections import Counter
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vrex.errors import UserError
from vrex.sw.videollm.procstream import (
    HARD,
    Motion,
    Question,
    RecipeStep,
    level_named,
    make,
    make_needles,
    world,
)
from vrex.sw.videollm.procstream.script import KINDS, make_motions

SEEDS = range(12)
LONG = [make(seed, 96) for seed in SEEDS]


def only_steps(motions: list[Motion]) -> list[RecipeStep]:
    """On the easy level there is nothing else."""
    steps = [motion for motion in motions if isinstance(motion, RecipeStep)]
    assert len(steps) == len(motions)
    return steps


def shown_at(steps: list[RecipeStep], frame: int) -> list[RecipeStep]:
    """The steps of the current recipe up to the one that `frame` shows, derived by a scan over all steps."""
    history: list[RecipeStep] = []
    for step in steps:
        if step.start > frame:
            break
        history = [step] if step.position == 0 else [*history, step]
    return history


def expected_answer(question: Question, history: list[RecipeStep]) -> str:
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
    steps = only_steps(make_motions(np.random.default_rng(11), 40_000))
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
    steps = only_steps(make_motions(np.random.default_rng(3), 2_000))
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


def test_the_easy_level_stays_what_the_checkpoint_was_trained_on() -> None:
    """Steps, questions and narrations of a few seeds, as they were when the checkpoint was measured."""
    told = []
    for seed in (0, 1, 1000, 10**9):
        for video in (make(seed, 130), make_needles(seed, 130)):
            steps = [
                [
                    *(step.recipe, step.position, step.step, step.color, step.direction),
                    *(step.size, list(step.center), step.start, step.end),
                ]
                for step in video.steps
            ]
            told.append([steps, [asdict(question) for question in video.questions], video.narration])
    assert hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16] == "30fd7ee1be0dce29"


# -- the hard level --------------------------------------------------------------------------------------


def test_the_hard_levels_recipes() -> None:
    assert hashlib.sha256(json.dumps(HARD.recipes).encode()).hexdigest()[:16] == "31ba58d3e494fb16"
    assert len(HARD.recipes) == len(set(HARD.recipes)) == 64
    assert all(len(set(recipe)) == len(recipe) in (4, 5, 6) for recipe in HARD.recipes)
    assert {step for recipe in HARD.recipes for step in recipe} == set(range(36))
    for length, recipes in ((1, 4), (2, 2), (3, 1)):
        begun = Counter(recipe[:length] for recipe in HARD.recipes)
        assert set(begun.values()) == {recipes}


def hard_answer(question: Question, step: RecipeStep, steps: list[RecipeStep]) -> str:
    """From the steps alone, before and after the question, by a scan."""
    names = [f"{shape} {action}" for shape in world.SHAPES for action in world.ACTIONS]
    at = steps.index(step)
    begin = max(index for index in range(at + 1) if steps[index].position == 0)
    after = [names[number] for number in step.sequence][at - begin + 1 :]
    match question.text.split():
        case ["now"]:
            return names[step.step]
        case ["first"]:
            return names[steps[begin].step]
        case ["task"]:
            return f"task{step.recipe}"
        case ["next"]:
            return after[0] if after else "idle"
        case ["plan"]:
            return " ".join(after) or "idle"
        case ["goal", name]:
            assert name == f"task{step.recipe}"
            return " ".join(after) or "idle"
        case ["color", "of", shape, action]:
            latest = [other for other in steps[: at + 1] if names[other.step] == f"{shape} {action}"][-1]
            assert (steps.index(latest) < begin) == (question.kind == "older")
            return world.COLORS[latest.color]
    raise AssertionError(f"a question of no kind: {question}")


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**70), st.integers(1, 400), st.one_of(st.none(), st.integers(0, 40)))
def test_every_answer_of_the_hard_level_follows_from_the_steps(
    seed: int, frames: int, count: int | None
) -> None:
    video = make(seed, frames, 4.0, count, HARD)
    by_end = {step.end: step for step in video.steps}
    for question in video.questions:
        step = by_end[math.floor(question.time * 4.0) + 1]
        assert question.answer == hard_answer(question, step, video.steps)
    assert video.narration == [(step.end / 4, step.name) for step in video.steps if step.end < frames]


def test_the_hard_level_shows_what_it_says_how_often_it_says() -> None:
    motions = make_motions(np.random.default_rng(5), 200_000, HARD)
    steps = [motion for motion in motions if isinstance(motion, RecipeStep)]
    greys = [motion for motion in motions if not isinstance(motion, RecipeStep)]
    starts = {step.start for step in steps}
    firsts = [step for step in steps if step.position == 0]
    swaps = [step for step in firsts if step.sequence != HARD.recipes[step.recipe]]
    assert all(grey.color == world.GREY for grey in greys)
    assert all(step.color != world.GREY for step in steps)
    for count, total, share in (
        (sum(grey.start in starts for grey in greys), len(steps), 1 / 2),
        (sum(grey.start not in starts for grey in greys), len(steps), 1 / 4),
        (len(swaps), len(firsts), 1 / 4),
    ):
        assert abs(count - share * total) < 4.5 * math.sqrt(total * share * (1 - share))
    for step in swaps:
        recipe = HARD.recipes[step.recipe]
        (first, second) = [i for i, (a, b) in enumerate(zip(step.sequence, recipe, strict=True)) if a != b]
        assert second == first + 1
        assert sorted(step.sequence) == sorted(recipe)
    for before, after in pairwise(motions):
        assert after.start >= before.end or (after.start, after.end) == (before.start, before.end)


def test_all_kinds_are_asked_on_the_hard_level_and_never_about_every_step() -> None:
    kinds = set()
    for seed in range(8):
        video = make(seed, 384, level=HARD)
        kinds |= {question.kind for question in video.questions}
        assert len(video.questions) < sum(step.end <= 384 for step in video.steps)
    assert kinds == {*KINDS, "older"}


def test_levels_differ_and_an_unknown_one_is_named() -> None:
    assert not np.array_equal(make(1, 4).frames, make(1, 4, level=HARD).frames)
    with pytest.raises(UserError, match="no level 'hardest'; choose one of easy, hard"):
        level_named("hardest")
