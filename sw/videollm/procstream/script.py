"""What happens in a ProcStream video and what is asked about it: steps, questions, narration.

A video shows recipe after recipe. Every step of a recipe is one shape doing one action for 6 to 14
frames, followed by 0 to 3 empty frames.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from vrex.sw.videollm.procstream.world import ACTIONS, COLORS, RECIPES, step_name

STEP_FRAMES = (6, 14)
GAP_FRAMES = (0, 3)
KINDS = ("now", "next", "task", "plan", "goal", "first", "color")
KINDS_OF_FIRST_STEP = ("now", "first", "color", "goal")
"""Two recipes may begin alike, so next, task and plan can be answered only from a recipe's second step on."""
FRAMES_PER_QUESTION = 12
IDLE = "idle"
"""The answer when the recipe is finished and nothing comes next."""


@dataclass(frozen=True)
class Step:
    """One step of a recipe, as it is shown.

    `recipe` and `position` (0 = first) say where it stands in the world's recipes, `step` is its number
    there. It is shown in frames `start` to `end` - 1; `end` may lie past the end of the video. Lengths are
    in units of half the picture's width, the centre is (x right, y down) from the picture's middle.
    """

    recipe: int
    position: int
    step: int
    color: int
    direction: int
    size: float
    center: tuple[float, float]
    start: int
    end: int

    @property
    def shape(self) -> int:
        """Number of the shape in `world.SHAPES`."""
        return self.step // len(ACTIONS)

    @property
    def action(self) -> int:
        """Number of the action in `world.ACTIONS`."""
        return self.step % len(ACTIONS)

    @property
    def name(self) -> str:
        """`SHAPE ACTION`."""
        return step_name(self.step)


@dataclass(frozen=True)
class Question:
    """A question put at `time` (seconds), its text without `User:` and its right answer without `<eos>`."""

    time: float
    kind: str
    text: str
    answer: str


def make_steps(rng: np.random.Generator, frames: int) -> list[Step]:
    """The steps that begin within the first `frames` frames; fewer frames give a prefix of the same list."""
    return list(takewhile(lambda step: step.start < frames, _endless_steps(rng)))


def _endless_steps(rng: np.random.Generator) -> Iterator[Step]:
    start = 0
    while True:
        recipe = int(rng.integers(len(RECIPES)))
        for position, step in enumerate(RECIPES[recipe]):
            length = int(rng.integers(*STEP_FRAMES, endpoint=True))
            yield Step(
                recipe=recipe,
                position=position,
                step=step,
                color=int(rng.integers(len(COLORS))),
                direction=1 if rng.integers(2) else -1,
                size=float(rng.uniform(0.18, 0.34)),
                center=(float(rng.uniform(-0.3, 0.3)), float(rng.uniform(-0.3, 0.3))),
                start=start,
                end=start + length,
            )
            start += length + int(rng.integers(*GAP_FRAMES, endpoint=True))


def make_questions(
    rng: np.random.Generator, steps: list[Step], frames: int, fps: float, count: int | None
) -> list[Question]:
    """Ask about `count` of the finished steps, each at the last frame that shows it, in order of time.

    Without a `count`, about one question in 12 frames, and one finished step at least goes without a
    question wherever there are two: asked about every step, the model could answer from earlier answers
    instead of from the pixels. There are never more questions than finished steps.
    """
    finished = [index for index, step in enumerate(steps) if step.end <= frames]
    if count is None:
        count = min(max(round(frames / FRAMES_PER_QUESTION), 1), max(len(finished) - 1, 1))
    asked = rng.permutation(len(finished))[:count]
    return [_ask(rng, steps, finished[index], fps) for index in sorted(asked)]


def _ask(rng: np.random.Generator, steps: list[Step], index: int, fps: float) -> Question:
    """A question of a random kind about the recipe as it stands when step `index` ends."""
    step = steps[index]
    shown = steps[index - step.position : index + 1]
    plan = [step_name(number) for number in RECIPES[step.recipe][step.position + 1 :]] or [IDLE]
    # The steps of one recipe differ, so the recipe's latest SHAPE ACTION has one colour only.
    colored = shown[rng.integers(len(shown))]
    task = f"task{step.recipe}"
    kinds = KINDS if step.position else KINDS_OF_FIRST_STEP
    kind = kinds[rng.integers(len(kinds))]
    text, answer = {
        "now": ("now", step.name),
        "next": ("next", plan[0]),
        "task": ("task", task),
        "plan": ("plan", " ".join(plan)),
        "goal": (f"goal {task}", " ".join(plan)),
        "first": ("first", shown[0].name),
        "color": (f"color of {colored.name}", COLORS[colored.color]),
    }[kind]
    return Question((step.end - 0.5) / fps, kind, text, answer)


def make_narration(steps: list[Step], frames: int, fps: float) -> list[tuple[float, str]]:
    """What a narrating model says: (time, step that just ended), on seeing the first frame after the step."""
    return [(step.end / fps, step.name) for step in steps if step.end < frames]
