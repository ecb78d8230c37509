"""Draws what moves in a ProcStream video as RGB frames, all frames of a motion at once."""

import math
from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from vrex.sw.videollm.procstream.script import Motion
from vrex.sw.videollm.procstream.world import ACTIONS, PALETTE, SHAPES

SIZE = 64
NOISE = 0.04
"""Standard deviation of the camera noise of every value, in units of full brightness."""
EDGE = 60.0
"""Sharpness of the outlines: a pixel's coverage is sigmoid(-EDGE * distance to the outline)."""
BLINKS = 6
"""A blinking shape's motion has this many equal parts; every second one is dark."""

Floats = NDArray[np.float64]


def render(
    motions: Sequence[Motion], background: float | Floats, frames: int, noise: np.random.Generator
) -> NDArray[np.uint8]:
    """Draw the first `frames` frames.

    `motions` in order of time, each beginning within them; those shown together have one `start` and one
    `end`, and later ones are drawn over earlier ones. `background` is the grey level (0 to 1) of all frames
    or, as float64 [frames], of each; `noise` the source of the camera noise, drawn frame by frame so that a
    shorter video is a prefix of a longer one. Returns uint8 [frames, 64, 64, 3] (rows, columns, RGB).
    """
    video = np.empty((frames, SIZE, SIZE, 3), np.uint8)
    backgrounds = np.broadcast_to(background, frames)
    for start, end, together in _segments(motions, frames):
        picture = np.empty((end - start, SIZE, SIZE, 3))
        picture[:] = backgrounds[start:end, None, None, None]
        for motion in together:
            covered = coverage(motion, np.arange(start, end))[..., None]
            picture += covered * (PALETTE[motion.color] - picture)
        picture += NOISE * noise.standard_normal(picture.shape)
        video[start:end] = np.rint(np.clip(picture, 0.0, 1.0) * 255.0)
    return video


def _segments(motions: Sequence[Motion], frames: int) -> Iterator[tuple[int, int, list[Motion]]]:
    """Cut the video into (start, end, what is shown), nothing where the picture is empty."""
    at = 0
    for (start, end), together in groupby(motions, lambda motion: (motion.start, motion.end)):
        if at < start:
            yield at, start, []
        at = min(end, frames)
        yield start, at, list(together)
    if at < frames:
        yield at, frames, []


def coverage(motion: Motion, frames: NDArray[np.int64]) -> Floats:
    """How much of every pixel the shape covers, float64 [N, 64, 64] in 0 to 1, at frame numbers [N]."""
    done = frames - motion.start
    length = motion.end - motion.start
    phase = done / length
    turn = 2.0 * math.pi * phase * motion.direction
    center_x, center_y = _center(motion, phase, turn)
    size = motion.size * (0.4 + 1.2 * phase if _does(motion, "grow") else np.ones_like(phase))
    angle = turn if _does(motion, "rotate") else np.zeros_like(phase)

    axis = np.linspace(-1.0, 1.0, SIZE)
    right = axis[None, None, :] - center_x[:, None, None]
    down = axis[None, :, None] - center_y[:, None, None]
    cosine, sine = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    outline = _outline(
        SHAPES[motion.shape], right * cosine - down * sine, right * sine + down * cosine, size[:, None, None]
    )
    covered = 1.0 / (1.0 + np.exp(EDGE * outline))
    if _does(motion, "blink"):
        covered[BLINKS * done // length % 2 == 1] = 0.0
    return covered


def _does(motion: Motion, action: str) -> bool:
    return ACTIONS[motion.action] == action


def _center(motion: Motion, phase: Floats, turn: Floats) -> tuple[Floats, Floats]:
    """The shape's centre (x, y), [N] each."""
    x, y = np.full_like(phase, motion.center[0]), np.full_like(phase, motion.center[1])
    if _does(motion, "slide"):
        x += motion.direction * (1.2 * phase - 0.6)
    elif _does(motion, "fall"):
        y += 1.2 * phase - 0.6
    elif _does(motion, "orbit"):
        x += 0.45 * np.cos(turn)
        y += 0.45 * np.sin(turn)
    return x, y


def _outline(shape: str, x: Floats, y: Floats, size: Floats) -> Floats:
    """A signed measure of the distance to the outline, negative inside, at x and y from the centre."""
    if shape == "circle":
        return np.hypot(x, y) - size
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - 0.85 * size
    if shape == "triangle":
        flanks = 0.866 * np.abs(x) + 0.5 * y - 0.6 * size
        return np.maximum(-y - 0.7 * size, flanks)
    if shape == "cross":
        upright = np.maximum(np.abs(x) - 0.3 * size, np.abs(y) - size)
        level = np.maximum(np.abs(x) - size, np.abs(y) - 0.3 * size)
        return np.minimum(upright, level)
    if shape == "ring":
        return np.abs(np.hypot(x, y) - 0.8 * size) - 0.2 * size
    if shape == "star":
        return np.hypot(x, y) - size * (0.62 + 0.38 * np.cos(5.0 * np.arctan2(y, x)))
    raise ValueError(f"no outline for the shape {shape}")
