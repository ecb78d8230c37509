"""Needles: the colours of single steps, asked about at the end of a long video.

Recipes all over the video show the same shapes and actions in other colours, so only the needle itself
answers. The needles are steps of the last whole recipe, because that is what the model is trained to answer:
asked about an older one, or after a recipe that broke off, it guesses even when it attends to everything.
"""

from dataclasses import replace

import numpy as np

from vrex.sw.videollm.procstream.procvideo import ProcVideo, make
from vrex.sw.videollm.procstream.script import Question, Step
from vrex.sw.videollm.procstream.world import COLORS, RECIPES

PER_VIDEO = 3
"""Questions in a row; the model is trained on single ones."""
SALT = 7
"""Sets the questions' random numbers apart from those of `make`."""


def make_needles(seed: int, frames: int, fps: float = 2.0) -> ProcVideo:
    """Make the video of `seed` as `make` does, with needles for questions.

    They come after the last frame of its last whole recipe and ask for the colour of up to 3 of that recipe's
    steps; a question's kind is `needle N`, N being how many steps ago the step was shown (0: it has just
    ended). A video that shows no recipe to its end (one takes at most 99 frames) has none. Deterministic as
    `make` is.

    Raises UserError if the seed is negative, there is no frame, or fps is not a positive number.
    """
    video = make(seed, frames, fps, questions=0)
    recipe = _last_recipe(video.steps, frames)
    if not recipe:
        return video
    asked = np.random.default_rng([seed, SALT]).permutation(len(recipe))[:PER_VIDEO]
    time = (recipe[-1].end - 0.5) / fps
    return replace(video, questions=[_ask(recipe, int(index), time) for index in asked])


def _last_recipe(steps: list[Step], frames: int) -> list[Step]:
    """The steps of the last recipe that is shown to its end, none if there is no such recipe."""
    ends = [
        index
        for index, step in enumerate(steps)
        if step.position == len(RECIPES[step.recipe]) - 1 and step.end <= frames
    ]
    return steps[ends[-1] - steps[ends[-1]].position : ends[-1] + 1] if ends else []


def _ask(recipe: list[Step], index: int, time: float) -> Question:
    step = recipe[index]
    return Question(time, f"needle {len(recipe) - 1 - index}", f"color of {step.name}", COLORS[step.color])
