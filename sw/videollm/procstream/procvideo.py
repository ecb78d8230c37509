"""A whole ProcStream video: frames, steps, questions and narration from one seed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vrex.errors import UserError
from vrex.sw.videollm.procstream.levels import EASY, Level
from vrex.sw.videollm.procstream.render import render
from vrex.sw.videollm.procstream.script import (
    Choose,
    Motion,
    Question,
    RecipeStep,
    make_motions,
    make_narration,
    make_questions,
)

DARKEST, BRIGHTEST = 0.0, 0.35
"""Range of the background's grey level."""
SCENE_CHANGE = (0.1, 0.25)
"""By so much the grey level moves up, past the brightest on from the darkest, when a scene begins."""


@dataclass(frozen=True)
class ProcVideo:
    """A rendered video.

    `frames` is uint8 [T, 64, 64, 3] (RGB), frame i is shown from i / `fps` seconds on; `steps` are all that
    begin in it (the last one may be cut off); `questions` in order of time, at most one a frame;
    `narration` is (time in seconds, step that just ended); `distractors` are the grey objects that begin in
    it, none on level `easy`.
    """

    seed: int
    fps: float
    frames: NDArray[np.uint8]
    steps: list[RecipeStep]
    questions: list[Question]
    narration: list[tuple[float, str]]
    distractors: list[Motion] = field(default_factory=list)
    level: str = EASY.name


def make(
    seed: int,
    frames: int,
    fps: float = 2.0,
    questions: int | None = None,
    level: Level = EASY,
    choose: Choose | None = None,
) -> ProcVideo:
    """Make the ProcStream video of `seed` on `level`, `frames` frames long.

    A question after frame f has the time (f + 0.5) / fps. By default about one question in
    `level.frames_per_question` frames, always fewer than finished steps (but one if there is one);
    `questions` asks for a number of them, of which a video gives at most one per finished step, so none if
    it is too short to finish one (a step has 6 to 14 frames). `choose` gives the recipes; None draws them
    evenly. Frames and steps of a shorter video of the same seed are a prefix of those of a longer one; its
    questions are its own. Deterministic for a given numpy build; another build of its float functions may
    round single pixel values the other way.

    Raises UserError if the seed or the number of questions is negative, there is no frame, or fps is not a
    positive number.
    """
    check_wishes(seed, frames, fps, questions)
    # A stream of random numbers each, so that a change of one does not shift the others.
    salted = seed if level.name == EASY.name else [seed, len(level.recipes)]
    streams = map(np.random.default_rng, np.random.SeedSequence(salted).spawn(4))
    for_steps, for_questions, for_noise, for_scenes = streams
    background = float(for_steps.uniform(DARKEST, BRIGHTEST))
    motions = make_motions(for_steps, frames, level, choose)
    steps = [motion for motion in motions if isinstance(motion, RecipeStep)]
    backgrounds = _scenes(for_scenes, background, steps, frames) if level.scenes else background
    return ProcVideo(
        seed=seed,
        fps=fps,
        frames=render(motions, backgrounds, frames, for_noise),
        steps=steps,
        questions=make_questions(for_questions, steps, frames, fps, questions, level),
        narration=make_narration(steps, frames, fps),
        distractors=[motion for motion in motions if not isinstance(motion, RecipeStep)],
        level=level.name,
    )


def _scenes(
    rng: np.random.Generator, background: float, steps: Sequence[RecipeStep], frames: int
) -> NDArray[np.float64]:
    """The grey level of each frame, float64 [frames]: `background` at first, another from each recipe on."""
    levels = np.full(frames, background)
    for step in steps[1:]:
        if step.position == 0:
            background = (background + rng.uniform(*SCENE_CHANGE)) % BRIGHTEST
            levels[step.start :] = background
    return levels


def check_wishes(seed: int, frames: int, fps: float, questions: int | None) -> None:
    """Raises the UserErrors of `make`."""
    if seed < 0:
        raise UserError(f"the ProcStream seed is {seed}; give an integer of 0 or more")
    if frames < 1:
        raise UserError(f"a ProcStream video of {frames} frames cannot be made; ask for at least 1 frame")
    if not (math.isfinite(fps) and fps > 0):
        raise UserError(f"the frame rate of a ProcStream video is {fps}; give a number above 0")
    if questions is not None and questions < 0:
        raise UserError(f"{questions} questions cannot be asked; give 0 or more")
