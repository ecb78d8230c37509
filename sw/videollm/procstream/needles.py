"""Needles: the colours of single steps, asked about at the end of a long video.

On a level without questions about older recipes the needles are steps of the last whole recipe, because
that is what the shipped model is trained to answer: asked about an older one, or after a recipe that broke
off, it guesses even when it attends to everything. On the others they lie at set depths of the video: a
needle is a step that no later recipe shows, and so the latest of its name.
"""

from dataclasses import replace

import numpy as np

from vrex.sw.videollm.procstream.levels import EASY, Level
from vrex.sw.videollm.procstream.procvideo import ProcVideo, check_wishes, make
from vrex.sw.videollm.procstream.script import Question, RecipeStep, color_of

PER_VIDEO = 3
"""Questions in a row about the last whole recipe; the shipped model is trained on single ones."""
DEPTHS = (0, 25, 50, 75)
"""Where needles lie, percent of the video's length; the last step shown to its end is one more, at 100."""
LEAST_RECIPES = 4
"""The haystack is made of so many recipes at least."""
SALT = 7
"""Sets the questions' random numbers apart from those of `make`."""


def make_needles(seed: int, frames: int, fps: float = 2.0, level: Level = EASY) -> ProcVideo:
    """Make a video with needles for questions.

    Where `level.older` is false it is the video that `make` makes of `seed`. The questions come after the
    last frame of its last whole recipe and ask for the colour of up to 3 of that recipe's steps; a
    question's kind is `needle N`, N being how many steps ago the step was shown (0: it has just ended). A
    video that shows no recipe to its end (one takes at most 99 frames) has none.

    Else the recipes are drawn so that a step of the first recipe that begins at or after each of `DEPTHS`
    is not shown again, and the questions, all after the last step that is shown to its end and in random
    order, ask for the colours of these and of that last step; kinds are `needle 0%` to `needle 100%`. A
    needle that a short video doesn't show to its end is left out.

    Deterministic as `make` is. Raises UserError if the seed is negative, there is no frame, or fps is not a
    positive number.
    """
    check_wishes(seed, frames, fps, None)
    rng = np.random.default_rng([seed, SALT])
    if level.older:
        return _at_depths(rng, seed, frames, fps, level)
    video = make(seed, frames, fps, questions=0, level=level)
    recipe = _last_recipe(video.steps, frames)
    asked = rng.permutation(len(recipe))[:PER_VIDEO]
    questions = [
        _ask(f"needle {len(recipe) - 1 - index}", recipe[index], recipe[-1], fps) for index in asked.tolist()
    ]
    return replace(video, questions=questions)


def _last_recipe(steps: list[RecipeStep], frames: int) -> list[RecipeStep]:
    """The steps of the last recipe that is shown to its end, none if there is no such recipe."""
    ends = [
        index
        for index, step in enumerate(steps)
        if step.position == len(step.sequence) - 1 and step.end <= frames
    ]
    return steps[ends[-1] - steps[ends[-1]].position : ends[-1] + 1] if ends else []


def _ask(kind: str, needle: RecipeStep, last: RecipeStep, fps: float) -> Question:
    """Asks for a needle's colour when the step `last` ends."""
    return Question((last.end - 0.5) / fps, kind, *color_of(needle))


def _at_depths(rng: np.random.Generator, seed: int, frames: int, fps: float, level: Level) -> ProcVideo:
    haystack = _Haystack(rng, frames, level)
    video = make(seed, frames, fps, questions=0, level=level, choose=haystack.choose)
    finished = [step for step in video.steps if step.end <= frames]
    if not finished:
        return video
    latest = {step.step: step for step in finished}
    needles = {depth: latest[step] for step, depth in haystack.needles.items() if step in latest}
    needles = {depth: step for depth, step in needles.items() if step is not finished[-1]}
    needles[100] = finished[-1]
    order = rng.permutation(list(needles)).tolist()
    return replace(
        video,
        questions=[_ask(f"needle {depth:3}%", needles[depth], finished[-1], fps) for depth in order],
    )


class _Haystack:
    """Chooses recipes, hides a needle in the first at each depth, and avoids the needles from then on.

    Attributes:
        needles: depth (percent) by the needle's step number.
    """

    def __init__(self, rng: np.random.Generator, frames: int, level: Level) -> None:
        self._rng, self._frames, self._level = rng, frames, level
        self._allowed = list(range(len(level.recipes)))
        self._depths = list(DEPTHS)
        self.needles: dict[int, int] = {}

    def choose(self, start: int) -> int:
        """The recipe that begins at frame `start`."""
        recipe = self._allowed[self._rng.integers(len(self._allowed))]
        reached = [depth for depth in self._depths if 100 * start >= depth * self._frames]
        if reached:
            self._depths = self._depths[len(reached) :]
            self._hide(recipe, reached[-1])
        return recipe

    def _hide(self, recipe: int, depth: int) -> None:
        """Makes one of the recipe's steps a needle, if enough recipes are left without it."""
        for step in self._rng.permutation(self._level.recipes[recipe]).tolist():
            allowed = [number for number in self._allowed if step not in self._level.recipes[number]]
            if len(allowed) >= LEAST_RECIPES:
                self.needles[step] = depth
                self._allowed = allowed
                return
