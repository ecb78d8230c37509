"""What an observer who sees every frame can answer at best: Bayes accuracies, exactly, as fractions.

The observer knows how videos are made, sees every step and where each recipe begins (on a level with scenes
by the background; on level `easy` because two steps tell the recipe), but not the future. All that it needs
to know of the past is then what this showing of the recipe has shown: recipes are drawn independently, and
neither lengths, colours, grey objects nor the choice of the steps that are asked about depend on them.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

from vrex.sw.videollm.procstream.levels import LEVELS, Level, Recipe, swapped
from vrex.sw.videollm.procstream.procvideo import ProcVideo
from vrex.sw.videollm.procstream.script import ALL_KINDS, OLDER, kinds_at, recipe_answer

RECALL = ("color", OLDER)
"""These ask for what was shown; who saw it knows it."""

Evidence = tuple[Recipe, int | None]
"""The steps that were seen of the recipe, and its number where the question names it."""
Masses = dict[Evidence, dict[str, Fraction]]
"""The probability of each answer together with its evidence."""


@dataclass(frozen=True)
class Bayes:
    """A kind of question after so many steps of the recipe.

    `weight` is its share of all questions in the long run, `accuracy` the share of them that is answered
    right by always giving the likeliest answer.
    """

    kind: str
    seen: int
    weight: Fraction
    accuracy: Fraction


def bayes(level: Level) -> list[Bayes]:
    """All kinds of questions on a level, in the order of `ALL_KINDS`, and by the number of steps seen.

    The long run is a video so long that its first recipe and its end don't matter.
    """
    steps = sum(share * len(sequence) for share, _, sequence in showings(level))
    rows = []
    for kind in ALL_KINDS if level.older else ALL_KINDS[:-1]:
        for position in range(max(map(len, level.recipes))):
            kinds = kinds_at(position) + ((OLDER,) if level.older else ())
            if kind not in kinds:
                continue
            reached = sum(share for share, _, sequence in showings(level) if position < len(sequence))
            best = Fraction(1) if kind in RECALL else _best(_masses(level, kind, position)) / reached
            rows.append(Bayes(kind, position + 1, Fraction(reached) / steps / len(kinds), best))
    return rows


def showings(level: Level) -> Iterator[tuple[Fraction, int, Recipe]]:
    """Every (probability, recipe, its steps in an order in which they may be shown)."""
    for number, recipe in enumerate(level.recipes):
        share = Fraction(1, len(level.recipes))
        yield share * (1 - level.swapped), number, recipe
        if level.swapped:
            pairs = len(recipe) - 1
            for first in range(pairs):
                yield share * level.swapped / pairs, number, swapped(recipe, first)


@cache
def _masses(level: Level, kind: str, position: int) -> Masses:
    masses: Masses = defaultdict(lambda: defaultdict(Fraction))
    for share, recipe, sequence in showings(level):
        if position < len(sequence):
            evidence = (sequence[: position + 1], recipe if kind == "goal" else None)
            masses[evidence][recipe_answer(kind, recipe, sequence, position)] += share
    return masses


def _best(masses: Masses) -> Fraction:
    return sum((max(answers.values()) for answers in masses.values()), Fraction(0))


def ideal_answers(video: ProcVideo) -> list[tuple[str, Fraction]]:
    """For each question of `make` the likeliest answer and its probability, given what was seen by then."""
    level = LEVELS[video.level]
    by_end = {step.end: step for step in video.steps}
    answers = []
    for question in video.questions:
        step = by_end[round(question.time * video.fps + 0.5)]
        if question.kind in RECALL:
            answers.append((question.answer, Fraction(1)))
            continue
        evidence = (step.sequence[: step.position + 1], step.recipe if question.kind == "goal" else None)
        masses = _masses(level, question.kind, step.position)[evidence]
        share, answer = max((share, answer) for answer, share in masses.items())
        answers.append((answer, share / sum(masses.values())))
    return answers


def over_all(rows: list[Bayes], kind: str | None = None) -> tuple[Fraction, Fraction]:
    """Weight and accuracy of a kind, or of all questions, over all numbers of steps seen."""
    chosen = [row for row in rows if kind in (None, row.kind)]
    weight = sum((row.weight for row in chosen), Fraction(0))
    return weight, sum((row.weight * row.accuracy for row in chosen), Fraction(0)) / weight


def describe(level: Level) -> dict[str, Any]:
    """The table for JSON: `level`, and `rows` of `kind`, `seen`, `weight`, `accuracy` and `exact`.

    A `seen` of null stands for all numbers of steps seen. Numbers are floats; `exact` is the accuracy as a
    fraction.
    """
    table = bayes(level)
    rows = [_entry(row.kind, row.seen, row.weight, row.accuracy) for row in table]
    for kind in dict.fromkeys(row.kind for row in table):
        rows.append(_entry(kind, None, *over_all(table, kind)))
    rows.append(_entry("all", None, *over_all(table)))
    return {"level": level.name, "rows": rows}


def _entry(kind: str, seen: int | None, weight: Fraction, accuracy: Fraction) -> dict[str, Any]:
    return {
        "kind": kind,
        "seen": seen,
        "weight": float(weight),
        "accuracy": float(accuracy),
        "exact": str(accuracy),
    }


def table(description: dict[str, Any]) -> str:
    """What `describe` gives as aligned lines, a line a kind."""
    cells = {(row["kind"], row["seen"]): row for row in description["rows"]}
    most = max(row["seen"] or 0 for row in description["rows"])
    lines = [f"{'question':<9} share  " + " ".join(f"{seen:>6}" for seen in range(1, most + 1)) + "    all"]
    for kind in dict.fromkeys(row["kind"] for row in description["rows"]):
        figures = [
            f"{cells[kind, seen]['accuracy']:6.3f}" if (kind, seen) in cells else "     -"
            for seen in (*range(1, most + 1), None)
        ]
        lines.append(f"{kind:<9} {cells[kind, None]['weight']:5.3f}  " + " ".join(figures))
    return "\n".join(lines)
