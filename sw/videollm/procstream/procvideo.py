"""A whole ProcStream video: frames, steps, questions and narration from one seed."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vrex.sw.errors import UserError
from vrex.sw.videollm.procstream.render import render
from vrex.sw.videollm.procstream.script import Question, Step, make_narration, make_questions, make_steps

DARKEST, BRIGHTEST = 0.0, 0.35
"""Range of the background's grey level."""


@dataclass(frozen=True)
class ProcVideo:
    """A rendered video.

    `frames` is uint8 [T, 64, 64, 3] (RGB), frame i is shown from i / `fps` seconds on; `steps` are all that
    begin in it (the last one may be cut off); `questions` in order of time, at most one a frame;
    `narration` is (time in seconds, step that just ended).
    """

    seed: int
    fps: float
    frames: NDArray[np.uint8]
    steps: list[Step]
    questions: list[Question]
    narration: list[tuple[float, str]]


def make(seed: int, frames: int, fps: float = 2.0, questions: int | None = None) -> ProcVideo:
    """Make the ProcStream video of `seed`, `frames` frames long.

    A question after frame f has the time (f + 0.5) / fps. By default about 8 questions per 96 frames, always
    fewer than finished steps (but one if there is one); `questions` asks for a number of them, of which a
    video gives at most one per finished step, so none if it is too short to finish one (a step has 6 to 14
    frames). Frames and steps of a shorter video of the same seed are a prefix of those of a longer one; its
    questions are its own. Deterministic for a given numpy build; another build of its float functions may
    round single pixel values the other way.

    Raises UserError if the seed or the number of questions is negative, there is no frame, or fps is not a
    positive number.
    """
    _check(seed, frames, fps, questions)
    # A stream of random numbers each, so that a change of one does not shift the others.
    for_steps, for_questions, for_noise = map(np.random.default_rng, np.random.SeedSequence(seed).spawn(3))
    background = float(for_steps.uniform(DARKEST, BRIGHTEST))
    steps = make_steps(for_steps, frames)
    return ProcVideo(
        seed=seed,
        fps=fps,
        frames=render(steps, background, frames, for_noise),
        steps=steps,
        questions=make_questions(for_questions, steps, frames, fps, questions),
        narration=make_narration(steps, frames, fps),
    )


def _check(seed: int, frames: int, fps: float, questions: int | None) -> None:
    if seed < 0:
        raise UserError(f"the ProcStream seed is {seed}; give an integer of 0 or more")
    if frames < 1:
        raise UserError(f"a ProcStream video of {frames} frames cannot be made; ask for at least 1 frame")
    if not (math.isfinite(fps) and fps > 0):
        raise UserError(f"the frame rate of a ProcStream video is {fps}; give a number above 0")
    if questions is not None and questions < 0:
        raise UserError(f"{questions} questions cannot be asked; give 0 or more")
