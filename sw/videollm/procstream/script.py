"""What happens in a ProcStream video and what is asked about it: steps, questions, narration.

A video shows recipe after recipe. Every step of a recipe is one shape doing one action for 6 to 14 frames,
followed by 0 to 3 empty frames. A level may swap steps and show grey objects, which belong to no recipe.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import takewhile

import numpy as np

from vrex.sw.videollm.procstream.levels import EASY, Level, Recipe, swapped
from vrex.sw.videollm.procstream.world import ACTIONS, COLORS, GREY, STEPS, step_name

STEP_FRAMES = (6, 14)
GAP_FRAMES = (0, 3)
KINDS = ("now", "next", "task", "plan", "goal", "first", "color")
KINDS_OF_FIRST_STEP = ("now", "first", "color", "goal")
"""Two recipes may begin alike, so next, task and plan are asked only from a recipe's second step on."""
OLDER = "older"
"""Like color, but about a step last shown in an earlier recipe; not on every level."""
ALL_KINDS = (*KINDS, OLDER)
IDLE = "idle"
"""The answer when the recipe is finished and nothing comes next."""

Choose = Callable[[int], int]
"""Gives the number of the recipe that begins at a frame."""


@dataclass(frozen=True)
class Motion:
    """One shape doing one action.

    `step` is its number in the world. It is shown in frames `start` to `end` - 1; `end` may lie past the end
    of the video. Lengths are in units of half the picture's width, the centre is (x right, y down) from the
    picture's middle.
    """

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
class RecipeStep(Motion):
    """A motion that is a step of a recipe.

    `recipe` is the recipe's number on its level, `sequence` its steps in the order of this showing, and
    `position` (0 = first) where this step stands in it.
    """

    recipe: int
    sequence: Recipe
    position: int


@dataclass(frozen=True)
class Question:
    """A question put at `time` (seconds), its text without `User:` and its right answer without `<eos>`."""

    time: float
    kind: str
    text: str
    answer: str


def make_motions(
    rng: np.random.Generator, frames: int, level: Level = EASY, choose: Choose | None = None
) -> list[Motion]:
    """What begins within the first `frames` frames: the steps and, being no `RecipeStep`, the grey objects.

    Fewer frames give a prefix of the same list. `choose` gives the recipes; None draws them evenly.
    """

    def evenly(start: int) -> int:
        return int(rng.integers(len(level.recipes)))

    motions = _endless_motions(rng, level, choose or evenly)
    return list(takewhile(lambda motion: motion.start < frames, motions))


def _endless_motions(rng: np.random.Generator, level: Level, choose: Choose) -> Iterator[Motion]:
    start = 0
    while True:
        recipe = choose(start)
        sequence = _draw_sequence(rng, level, recipe)
        for position, step in enumerate(sequence):
            motion = _draw_motion(rng, step, start)
            if _happens(rng, level.accompanied):
                # Drawn behind the step, and so before it in the list.
                yield replace(_draw_grey(rng, start), end=motion.end)
            yield RecipeStep(**vars(motion), recipe=recipe, sequence=sequence, position=position)
            start = motion.end + _draw_gap(rng)
            if _happens(rng, level.interrupted):
                alone = _draw_grey(rng, start)
                yield alone
                start = alone.end + _draw_gap(rng)


def _happens(rng: np.random.Generator, share: Fraction) -> bool:
    """Whether something does that happens so often; what never happens draws no number."""
    return share > 0 and int(rng.integers(share.denominator)) < share.numerator


def _draw_sequence(rng: np.random.Generator, level: Level, recipe: int) -> Recipe:
    sequence = level.recipes[recipe]
    if _happens(rng, level.swapped):
        return swapped(sequence, int(rng.integers(len(sequence) - 1)))
    return sequence


def _draw_motion(rng: np.random.Generator, step: int, start: int) -> Motion:
    length = int(rng.integers(*STEP_FRAMES, endpoint=True))
    return Motion(
        step=step,
        color=int(rng.integers(len(COLORS))),
        direction=1 if rng.integers(2) else -1,
        size=float(rng.uniform(0.18, 0.34)),
        center=(float(rng.uniform(-0.3, 0.3)), float(rng.uniform(-0.3, 0.3))),
        start=start,
        end=start + length,
    )


def _draw_grey(rng: np.random.Generator, start: int) -> Motion:
    return replace(_draw_motion(rng, int(rng.integers(STEPS)), start), color=GREY)


def _draw_gap(rng: np.random.Generator) -> int:
    return int(rng.integers(*GAP_FRAMES, endpoint=True))


def make_questions(
    rng: np.random.Generator,
    steps: Sequence[RecipeStep],
    frames: int,
    fps: float,
    count: int | None,
    level: Level = EASY,
) -> list[Question]:
    """Ask about `count` of the finished steps, each at the last frame that shows it, in order of time.

    Without a `count`, about one question in `level.frames_per_question` frames, and one finished step at
    least goes without a question wherever there are two: asked about every step, the model could answer from
    earlier answers instead of from the pixels. There are never more questions than finished steps.
    """
    finished = [index for index, step in enumerate(steps) if step.end <= frames]
    if count is None:
        count = min(max(round(frames / level.frames_per_question), 1), max(len(finished) - 1, 1))
    asked = rng.permutation(len(finished))[:count]
    return [_ask(rng, steps, finished[index], fps, level) for index in sorted(asked)]


def kinds_at(position: int) -> tuple[str, ...]:
    """The kinds of questions that step `position` of a recipe (0 = first) brings, `OLDER` apart."""
    return KINDS if position else KINDS_OF_FIRST_STEP


def _ask(
    rng: np.random.Generator, steps: Sequence[RecipeStep], index: int, fps: float, level: Level
) -> Question:
    """A question of a random kind about the video as it stands when step `index` ends."""
    step = steps[index]
    shown = steps[index - step.position : index + 1]
    # The steps of one recipe differ, so the recipe's latest SHAPE ACTION has one colour only.
    colored = shown[int(rng.integers(len(shown)))]
    older = older_steps(steps, index) if level.older else []
    kinds = kinds_at(step.position) + ((OLDER,) if older else ())
    kind = kinds[rng.integers(len(kinds))]
    if kind == OLDER:
        colored = older[rng.integers(len(older))]
    if kind in ("color", OLDER):
        text, answer = color_of(colored)
    else:
        text = f"goal task{step.recipe}" if kind == "goal" else kind
        answer = recipe_answer(kind, step.recipe, step.sequence, step.position)
    return Question((step.end - 0.5) / fps, kind, text, answer)


def recipe_answer(kind: str, recipe: int, sequence: Recipe, position: int) -> str:
    """The answer to a question about the recipe alone, when its step `position` ends.

    `sequence` holds the recipe's steps in the order of this showing; `kind` is none of the colour's.
    """
    plan = [step_name(step) for step in sequence[position + 1 :]] or [IDLE]
    return {
        "now": step_name(sequence[position]),
        "next": plan[0],
        "task": f"task{recipe}",
        "plan": " ".join(plan),
        "goal": " ".join(plan),
        "first": step_name(sequence[0]),
    }[kind]


def color_of(motion: Motion) -> tuple[str, str]:
    """The question for a motion's colour, and its answer."""
    return f"color of {motion.name}", COLORS[motion.color]


def older_steps(steps: Sequence[RecipeStep], index: int) -> list[RecipeStep]:
    """Of every step that the recipe of step `index` has not shown yet, the latest showing before it."""
    begin = index - steps[index].position
    latest = {step.step: step for step in steps[:begin]}
    for step in steps[begin : index + 1]:
        latest.pop(step.step, None)
    return list(latest.values())


def make_narration(steps: Sequence[RecipeStep], frames: int, fps: float) -> list[tuple[float, str]]:
    """What a narrating model says: (time, step that just ended), on seeing the first frame after the step."""
    return [(step.end / fps, step.name) for step in steps if step.end < frames]
