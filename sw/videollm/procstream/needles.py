"""Needles: the colours of one recipe's steps, asked about at the end of a long video.

Recipes all over the video show the same shapes and actions in other colours, so only the needle itself
answers. The needles are the steps of the last recipe, because the model is trained to answer about the recipe
that is on: asked about an older one it guesses, even when it attends to everything.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import takewhile

import numpy as np

from vrex.sw.errors import UserError
from vrex.sw.videollm.procstream.procvideo import BRIGHTEST, DARKEST, ProcVideo, check
from vrex.sw.videollm.procstream.render import render
from vrex.sw.videollm.procstream.script import STEP_FRAMES, Question, Step, endless_steps, make_narration
from vrex.sw.videollm.procstream.world import COLORS

MOST_FRAMES = 84
"""The last recipe is drawn until it has at most so many frames, so that it fits into a video of 96 frames."""
PER_VIDEO = 3
"""Questions asked at the end; more of them in a row the model has not been trained on."""


def make_needles(seed: int, frames: int, fps: float = 2.0) -> ProcVideo:
    """Make the needle video of `seed`, `frames` frames long, whose last recipe ends with its last frame.

    Its questions, all after the last frame, ask for the colour of some of that recipe's steps; a question's
    kind is `needle N`, N being how many steps ago the step was shown (0: it is the last one). Deterministic
    as `make` is.

    Raises UserError if the seed is negative, fps is not a positive number, or `frames` is below 84.
    """
    check(seed, frames, fps, None)
    if frames < MOST_FRAMES:
        raise UserError(
            f"A needle video of {frames} frames cannot be made, ask for at least {MOST_FRAMES} frames"
        )
    for_steps, for_last, for_questions, for_noise = map(
        np.random.default_rng, np.random.SeedSequence(seed).spawn(4)
    )
    background = float(for_steps.uniform(DARKEST, BRIGHTEST))
    last = _last_recipe(for_last, frames)
    steps = [*_haystack(endless_steps(for_steps), last[0].start), *last]
    return ProcVideo(
        seed=seed,
        fps=fps,
        frames=render(steps, background, frames, for_noise),
        steps=steps,
        questions=_ask(for_questions, last, (frames - 0.5) / fps),
        narration=make_narration(steps, frames, fps),
    )


def _last_recipe(rng: np.random.Generator, frames: int) -> list[Step]:
    """A whole recipe whose last frame is the video's last one."""
    while True:
        drawn = endless_steps(rng)
        first = next(drawn)
        recipe = [first, *takewhile(lambda step: step.position > 0, drawn)]
        if recipe[-1].end <= MOST_FRAMES:
            later = frames - recipe[-1].end
            return [replace(step, start=step.start + later, end=step.end + later) for step in recipe]


def _haystack(drawn: Iterator[Step], end: int) -> Iterator[Step]:
    """The steps before frame `end`; the last one is cut short, or left out where too little of it is left."""
    for step in takewhile(lambda step: step.start + STEP_FRAMES[0] <= end, drawn):
        yield replace(step, end=min(step.end, end))


def _ask(rng: np.random.Generator, recipe: list[Step], time: float) -> list[Question]:
    asked = rng.permutation(len(recipe))[:PER_VIDEO]
    return [
        Question(
            time,
            f"needle {len(recipe) - 1 - index}",
            f"color of {recipe[index].name}",
            COLORS[recipe[index].color],
        )
        for index in asked
    ]
