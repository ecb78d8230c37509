"""Pixels of ProcStream videos, against geometry worked out by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vrex.sw.videollm.procstream import HARD, Motion, make, world
from vrex.sw.videollm.procstream.render import coverage, render

FRAMES = 12
PIXEL = 2 / 63
"""Distance of two pixels' centres in the step's unit of length."""
SOFT = 0.006
"""The soft outline adds (2 pi / EDGE)**2 / 3 = 0.0037 to a square's area, and the like to the others."""


def a_step(name: str, center: tuple[float, float] = (0.0, 0.0), direction: int = 1) -> Motion:
    shape, action = name.split()
    number = world.SHAPES.index(shape) * 6 + world.ACTIONS.index(action)
    return Motion(number, 2, direction, 0.3, center, start=0, end=FRAMES)


def cover(step: Motion) -> np.ndarray:
    return coverage(step, np.arange(FRAMES))


def centroid(covered: np.ndarray) -> np.ndarray:
    """(x, y) of each frame's shape."""
    axis = np.linspace(-1, 1, 64)
    total = covered.sum((1, 2))
    return np.stack([covered.sum(1) @ axis / total, covered.sum(2) @ axis / total], 1)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**9), st.integers(1, 80), st.integers(1, 80))
def test_same_seed_same_pixels_and_shorter_is_a_prefix(seed: int, a: int, b: int) -> None:
    short, long = make(seed, min(a, b)), make(seed, max(a, b))
    assert long.frames.dtype == np.uint8
    assert long.frames.shape == (max(a, b), 64, 64, 3)
    assert np.array_equal(short.frames, long.frames[: min(a, b)])
    assert short.steps == long.steps[: len(short.steps)]


def test_seeds_differ() -> None:
    assert not np.array_equal(make(1, 4).frames, make(2, 4).frames)


def test_noise_is_camera_noise() -> None:
    grey = render([], 0.3, 20, np.random.default_rng(0)) / 255
    assert grey.mean() == pytest.approx(0.3, abs=1e-3)
    assert grey.std() == pytest.approx(0.04, abs=1e-3)
    assert np.corrcoef(grey[0].ravel(), grey[1].ravel())[0, 1] == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("seed", range(6))
def test_frames_show_each_step_in_its_colour_and_gaps_empty(seed: int) -> None:
    video = make(seed, 120)
    background = video.frames[:, [0, 0, -1, -1], [0, -1, 0, -1]].mean() / 255
    busy = np.zeros(120, bool)
    for step in video.steps:
        frames = np.arange(step.start, min(step.end, 120))
        busy[frames] = True
        inside = coverage(step, frames) > 0.999
        color = world.RGB[world.COLORS[step.color]]
        if inside.sum() > 300:
            # Clipping at full brightness takes 0.4 standard deviations of the noise off the mean.
            assert video.frames[frames][inside].mean(0) / 255 == pytest.approx(color, abs=0.025)
    for picture in video.frames[~busy]:
        assert picture.std() / 255 < 0.05
        assert picture.mean() / 255 == pytest.approx(background, abs=0.02)


@pytest.mark.parametrize(
    ("name", "area"),
    [
        ("circle", math.pi * 0.3**2),
        ("square", (2 * 0.85 * 0.3) ** 2),
        ("cross", 2 * (2 * 0.3) * (0.6 * 0.3) - (0.6 * 0.3) ** 2),
        ("ring", math.pi * 0.3**2 * (1 - 0.6**2)),
        ("star", math.pi * 0.3**2 * (0.62**2 + 0.38**2 / 2)),
    ],
)
def test_shapes_have_their_areas(name: str, area: float) -> None:
    assert cover(a_step(f"{name} blink"))[0].sum() * PIXEL**2 == pytest.approx(area, abs=SOFT)


def test_triangle_points_down() -> None:
    widths = cover(a_step("triangle blink"))[0].sum(1) * PIXEL
    rows = np.linspace(-1, 1, 64)
    inside = (rows > -0.16) & (rows < 0.3)
    expected = 2 * (0.6 * 0.3 - 0.5 * rows[inside]) / 0.866
    assert widths[inside] == pytest.approx(expected, abs=0.01)
    assert widths[rows < -0.3].max() < 0.01


def test_ring_is_hollow_and_circle_is_not() -> None:
    assert cover(a_step("ring blink"))[0, 31, 31] < 1e-3
    assert cover(a_step("circle blink"))[0, 31, 31] > 0.999


@pytest.mark.parametrize("direction", [1, -1])
def test_motion_follows_the_action(direction: int) -> None:
    phase = np.arange(FRAMES) / FRAMES
    at = np.array([0.05, -0.05])
    turn = 2 * math.pi * phase * direction
    still = np.zeros(FRAMES)
    paths = {
        "slide": (direction * (1.2 * phase - 0.6), still),
        "fall": (still, 1.2 * phase - 0.6),
        "rotate": (still, still),
        "grow": (still, still),
        "orbit": (0.45 * np.cos(turn), 0.45 * np.sin(turn)),
    }
    for action, path in paths.items():
        covered = cover(a_step(f"circle {action}", (0.05, -0.05), direction))
        assert centroid(covered) == pytest.approx(at + np.stack(path, 1), abs=1e-3), action


def test_growing_scales_the_area() -> None:
    area = cover(a_step("square grow")).sum((1, 2)) * PIXEL**2
    phase = np.arange(FRAMES) / FRAMES
    assert area == pytest.approx((1.7 * 0.3 * (0.4 + 1.2 * phase)) ** 2, abs=SOFT)


def test_rotation_turns_a_square_by_its_phase() -> None:
    covered = cover(a_step("square rotate"))
    assert covered[3] == pytest.approx(covered[0], abs=1e-6), "a quarter turn maps a square to itself"
    corner = np.sqrt(2) * 0.85 * 0.3 - 0.02
    at = round((corner + 1) / PIXEL)
    assert covered[0, 31, at] < 0.01, "no corner to the right at first"
    eighth = coverage(Motion(a_step("square rotate").step, 2, 1, 0.3, (0.0, 0.0), 0, 8), np.array([1]))
    assert eighth[0, 31, at - 1] > 0.5, "an eighth turn puts a corner to the right"


def test_rotation_goes_both_ways() -> None:
    one = cover(a_step("star rotate", direction=1))
    other = cover(a_step("star rotate", direction=-1))
    assert one[1] == pytest.approx(other[1][::-1], abs=1e-6)
    assert np.abs(one[1] - other[1]).max() > 0.5


@pytest.mark.parametrize("length", range(6, 15))
def test_blinking_is_dark_in_every_second_sixth(length: int) -> None:
    step = Motion(a_step("circle blink").step, 2, 1, 0.3, (0.0, 0.0), 0, length)
    lit = coverage(step, np.arange(length)).max((1, 2)) > 0
    for frame in range(length):
        sixth = next(n for n in range(6) if n * length <= 6 * frame < (n + 1) * length)
        assert lit[frame] == (sixth % 2 == 0)


def test_what_comes_later_is_drawn_over_what_came_before() -> None:
    below, above = a_step("circle blink"), replace(a_step("square blink"), color=0)
    red = np.array(world.RGB["red"])
    for motions, seen in (([below, above], red), ([above, below], np.array(world.RGB["blue"]))):
        middle = render(motions, 0.2, 1, np.random.default_rng(0))[0, 28:36, 28:36].mean((0, 1)) / 255
        assert middle == pytest.approx(seen, abs=0.04)
    corner = below.size * 0.8 / PIXEL  # inside the square, outside the circle
    at = round(31.5 + corner)
    assert render([below, above], 0.2, 1, np.random.default_rng(0))[0, at, at, 0] > 200


def test_each_frame_has_its_background() -> None:
    levels = np.array([0.1, 0.3, 0.2])
    picture = render([], levels, 3, np.random.default_rng(0)) / 255
    assert picture.mean((1, 2, 3)) == pytest.approx(levels, abs=2e-3)


@pytest.mark.parametrize("seed", range(4))
def test_the_hard_level_changes_the_background_with_each_recipe_and_shows_grey_objects(seed: int) -> None:
    video = make(seed, 300, level=HARD)
    corners = video.frames[:, [0, 0, -1, -1], [0, -1, 0, -1]].mean((1, 2)) / 255
    starts = [step.start for step in video.steps if step.position == 0]
    assert len(starts) > 2
    scenes = [np.median(part) for part in np.split(corners, starts[1:])]
    assert np.abs(np.diff(scenes)).min() > 0.08
    for part in np.split(corners, starts[1:]):
        assert np.quantile(np.abs(part - np.median(part)), 0.7) < 0.04, "a scene keeps its background"
    alone = [grey for grey in video.distractors if grey.start not in {step.start for step in video.steps}]
    assert alone
    for grey in alone:
        frames = np.arange(grey.start, min(grey.end, 300))
        inside = coverage(grey, frames) > 0.999
        if inside.sum() > 300:
            assert video.frames[frames][inside].mean(0) / 255 == pytest.approx([0.5] * 3, abs=0.01)


def test_the_step_is_never_hidden() -> None:
    """Its object lies over the grey one that goes with it."""
    video = make(5, 300, level=HARD)
    for step in video.steps:
        frames = np.arange(step.start, min(step.end, 300))
        inside = coverage(step, frames) > 0.999
        if inside.sum() > 300:
            color = world.RGB[world.COLORS[step.color]]
            assert video.frames[frames][inside].mean(0) / 255 == pytest.approx(color, abs=0.025)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**9), st.integers(1, 120), st.integers(1, 120))
def test_a_shorter_video_of_the_hard_level_is_a_prefix(seed: int, a: int, b: int) -> None:
    short, long = (make(seed, frames, level=HARD) for frames in sorted((a, b)))
    assert np.array_equal(short.frames, long.frames[: min(a, b)])
    assert short.steps == long.steps[: len(short.steps)]
    assert short.distractors == long.distractors[: len(short.distractors)]
