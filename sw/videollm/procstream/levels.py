"""The levels of ProcStream: how hard the recipes and what is shown around them make it."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np

from vrex.errors import UserError
from vrex.sw.videollm.procstream.world import RECIPES, STEPS

Recipe = tuple[int, ...]
"""Step numbers, all different, in the order of the recipe."""

FAMILIES = 16
"""The hard level's recipes come in so many families of four, each with a first step of its own."""
HARD_SEED = 64
"""Of the hard level's recipes."""


@dataclass(frozen=True)
class Level:
    """What videos are made of.

    Attributes:
        name: as the command line takes it.
        recipes: recipe n is called `taskn`; each is shown equally often.
        swapped: share of a recipe's showings in which two neighbouring steps change places.
        accompanied: share of steps during which a second object, a grey one, moves behind the first.
        interrupted: share of steps after which a grey object acts alone.
        scenes: whether the background changes whenever a recipe begins; else it stays.
        older: whether steps of earlier recipes are asked about.
        frames_per_question: so many frames bring one question.
    """

    name: str
    recipes: tuple[Recipe, ...]
    swapped: Fraction = Fraction(0)
    accompanied: Fraction = Fraction(0)
    interrupted: Fraction = Fraction(0)
    scenes: bool = False
    older: bool = False
    frames_per_question: int = 12


def _hard_recipes() -> Iterator[Recipe]:
    """Four recipes of 4 to 6 steps a family: the first step is common to all, the second to two of them."""
    rng = np.random.default_rng(HARD_SEED)
    for first in rng.permutation(STEPS)[:FAMILIES].tolist():
        others = [step for step in range(STEPS) if step != first]
        for second in rng.permutation(others)[:2].tolist():
            rest = [step for step in others if step != second]
            for third in rng.permutation(rest)[:2].tolist():
                tail = rng.permutation([step for step in rest if step != third])
                yield (first, second, third, *tail[: rng.integers(1, 3, endpoint=True)].tolist())


EASY: Final = Level("easy", RECIPES)
"""What the shipped checkpoint was trained on."""
HARD: Final = Level(
    "hard",
    tuple(_hard_recipes()),
    swapped=Fraction(1, 4),
    accompanied=Fraction(1, 2),
    interrupted=Fraction(1, 4),
    scenes=True,
    older=True,
    frames_per_question=24,
)
LEVELS: Final = {level.name: level for level in (EASY, HARD)}


def level_named(name: str) -> Level:
    """The level of that name.

    Raises:
        UserError: there is none.
    """
    if name not in LEVELS:
        raise UserError(f"ProcStream has no level {name!r}; choose one of {', '.join(LEVELS)}")
    return LEVELS[name]


def swapped(recipe: Recipe, first: int) -> Recipe:
    """The recipe with steps `first` and `first` + 1 in each other's place."""
    return (*recipe[:first], recipe[first + 1], recipe[first], *recipe[first + 2 :])
