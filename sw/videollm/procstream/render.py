"""Draws the steps of a ProcStream video as RGB frames, all frames of a step at once."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vrex.sw.videollm.procstream.script import Step
from vrex.sw.videollm.procstream.world import ACTIONS, PALETTE, SHAPES

SIZE = 64
NOISE = 0.04
"""Standard deviation of the camera noise of every value, in units of full brightness."""
EDGE = 60.0
"""Sharpness of the outlines: a pixel's coverage is sigmoid(-EDGE * distance to the outline)."""
BLINKS = 6
"""A blinking step has this many equal parts; every second one is dark."""

Floats = NDArray[np.float64]


def render(
    steps: list[Step], background: float, frames: int, noise: np.random.Generator
) -> NDArray[np.uint8]:
    """Draw the first `frames` frames.

    `steps` in order of time, each beginning within them; `background` the grey level (0 to 1); `noise` the
    source of the camera noise, drawn frame by frame so that a shorter video is a prefix of a longer one.
    Returns uint8 [frames, 64, 64, 3] (rows, columns, RGB).
    """
    video = np.empty((frames, SIZE, SIZE, 3), np.uint8)
    for start, end, step in _segments(steps, frames):
        picture = np.full((end - start, SIZE, SIZE, 3), background)
        if step is not None:
            picture += coverage(step, np.arange(start, end))[..., None] * (PALETTE[step.color] - background)
        picture += NOISE * noise.standard_normal(picture.shape)
        video[start:end] = np.rint(np.clip(picture, 0.0, 1.0) * 255.0)
    return video


def _segments(steps: list[Step], frames: int) -> Iterator[tuple[int, int, Step | None]]:
    """Cut the video into (start, end, step), step None where the picture is empty."""
    at = 0
    for step in steps:
        if at < step.start:
            yield at, step.start, None
        at = min(step.end, frames)
        yield step.start, at, step
    if at < frames:
        yield at, frames, None


def coverage(step: Step, frames: NDArray[np.int64]) -> Floats:
    """How much of every pixel the shape covers, float64 [N, 64, 64] in 0 to 1, at frame numbers [N]."""
    done = frames - step.start
    length = step.end - step.start
    phase = done / length
    turn = 2.0 * math.pi * phase * step.direction
    center_x, center_y = _center(step, phase, turn)
    size = step.size * (0.4 + 1.2 * phase if _does(step, "grow") else np.ones_like(phase))
    angle = turn if _does(step, "rotate") else np.zeros_like(phase)

    axis = np.linspace(-1.0, 1.0, SIZE)
    right = axis[None, None, :] - center_x[:, None, None]
    down = axis[None, :, None] - center_y[:, None, None]
    cosine, sine = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    outline = _outline(
        SHAPES[step.shape], right * cosine - down * sine, right * sine + down * cosine, size[:, None, None]
    )
    covered = 1.0 / (1.0 + np.exp(EDGE * outline))
    if _does(step, "blink"):
        covered[BLINKS * done // length % 2 == 1] = 0.0
    return covered


def _does(step: Step, action: str) -> bool:
    return ACTIONS[step.action] == action


def _center(step: Step, phase: Floats, turn: Floats) -> tuple[Floats, Floats]:
    """The shape's centre (x, y), [N] each."""
    x, y = np.full_like(phase, step.center[0]), np.full_like(phase, step.center[1])
    if _does(step, "slide"):
        x += step.direction * (1.2 * phase - 0.6)
    elif _does(step, "fall"):
        y += 1.2 * phase - 0.6
    elif _does(step, "orbit"):
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
