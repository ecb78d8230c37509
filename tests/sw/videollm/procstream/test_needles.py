"""Needle videos: questions about the last whole recipe."""

from functools import cache

import numpy as np
import pytest

from vrex.errors import UserError
from vrex.sw.videollm.procstream import HARD, ProcVideo, make, make_needles, world

SEEDS = range(20)


@cache
def needles(seed: int, frames: int) -> ProcVideo:
    return make_needles(seed, frames, fps=4.0)


@pytest.mark.parametrize("frames", [96, 130])
def test_needles_ask_for_the_colours_of_the_last_whole_recipe(frames: int) -> None:
    for seed in SEEDS:
        video = needles(seed, frames)
        if not video.questions:
            continue
        (moment,) = {question.time for question in video.questions}
        (last,) = [step for step in video.steps if (step.end - 0.5) / 4.0 == moment]
        recipe = world.RECIPES[last.recipe]
        assert last.step == recipe[-1]
        after = [step for step in video.steps if step.start >= last.end]
        assert not any(
            step.step == world.RECIPES[step.recipe][-1] and step.end <= frames for step in after
        ), "a later recipe is whole"
        shown = [step for step in video.steps if step.end <= last.end][-len(recipe) :]
        for question in video.questions:
            word, back = question.kind.split()
            assert word == "needle"
            step = shown[len(recipe) - 1 - int(back)]
            assert question.text == f"color of {step.name}"
            assert question.answer == world.COLORS[step.color]
        assert len({question.kind for question in video.questions}) == 3


def test_most_videos_of_96_frames_and_all_of_130_have_needles() -> None:
    assert sum(bool(needles(seed, 96).questions) for seed in SEEDS) > 0.9 * len(SEEDS)
    assert all(needles(seed, 130).questions for seed in SEEDS)


def test_every_distance_is_asked() -> None:
    """A recipe of 6 steps is too rare to be sure of."""
    kinds = {question.kind for seed in SEEDS for question in needles(seed, 130).questions}
    assert {f"needle {back}" for back in range(5)} <= kinds <= {f"needle {back}" for back in range(6)}


def test_the_pictures_are_those_of_the_other_questions() -> None:
    """So that their embeddings are shared."""
    np.testing.assert_array_equal(make_needles(3, 100).frames, make(3, 100).frames)
    assert make_needles(3, 100).questions == make_needles(3, 100).questions


def test_too_short_a_video_has_no_needle() -> None:
    assert make_needles(1, 12).questions == []


def test_impossible_wishes_are_named() -> None:
    with pytest.raises(UserError, match="seed is -1"):
        make_needles(-1, 96)


# -- needles at depths, on the hard level ------------------------------------------------------------------


@cache
def deep(seed: int, frames: int) -> ProcVideo:
    return make_needles(seed, frames, fps=4.0, level=HARD)


@pytest.mark.parametrize("frames", [384, 1000])
def test_needles_lie_at_their_depths_and_are_not_shown_again(frames: int) -> None:
    for seed in range(10):
        video = deep(seed, frames)
        finished = [step for step in video.steps if step.end <= frames]
        begins = [step.start for step in video.steps if step.position == 0]
        assert {question.time for question in video.questions} == {(finished[-1].end - 0.5) / 4.0}
        assert len({question.text for question in video.questions}) == len(video.questions)
        for question in video.questions:
            depth = int(question.kind.removeprefix("needle").removesuffix("%"))
            showings = [step for step in finished if f"color of {step.name}" == question.text]
            assert question.answer == world.COLORS[showings[-1].color]
            if depth == 100:
                assert showings[-1] is finished[-1]
                continue
            scene = max(begin for begin in begins if begin <= showings[-1].start)
            assert scene == min(begin for begin in begins if 100 * begin >= depth * frames)
            later = [step for step in video.steps if step.start > showings[-1].start]
            assert all(step.step != showings[-1].step for step in later)


def test_long_videos_have_a_needle_at_every_depth() -> None:
    kinds = [sorted(question.kind for question in deep(seed, 1000).questions) for seed in range(10)]
    every = [f"needle {depth:3}%" for depth in (0, 25, 50, 75, 100)]
    assert sum(found == every for found in kinds) >= 9
    assert all(set(found) <= set(every) for found in kinds)


def test_recipes_in_the_haystack_stay_many() -> None:
    recipes = {step.recipe for step in deep(2, 1000).steps if step.start > 800}
    assert len(recipes) >= 4


def test_a_short_video_of_the_hard_level_has_at_most_its_last_step() -> None:
    assert make_needles(1, 4, level=HARD).questions == []
    end = make_needles(1, 4, level=HARD).steps[0].end
    assert [question.kind for question in make_needles(1, end, level=HARD).questions] == ["needle 100%"]
