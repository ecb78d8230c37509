"""Bayes accuracies: by hand on a small level, and by simulation on the real ones."""

import math
from collections import Counter, defaultdict
from dataclasses import replace
from fractions import Fraction
from functools import cache

import numpy as np
import pytest

from vrex.sw.videollm.procstream import EASY, HARD, LEVELS, Level, ProcVideo, Question, RecipeStep, make
from vrex.sw.videollm.procstream.ideal import bayes, describe, ideal_answers, over_all, showings, table
from vrex.sw.videollm.procstream.script import make_motions, make_questions

Asked = tuple[RecipeStep, Question]
SIGMAS = 4.5


@cache
def simulated(level: Level, seed: int, videos: int) -> list[Asked]:
    """A question after every step of many videos, without the steps at their ends."""
    return [pair for number in range(videos) for pair in one_video(level, seed, number)]


def one_video(level: Level, seed: int, number: int) -> list[Asked]:
    frames = 4000
    rng = np.random.default_rng([99, seed, number])
    steps = [motion for motion in make_motions(rng, frames, level) if isinstance(motion, RecipeStep)]
    by_end = {step.end: step for step in steps}
    questions = make_questions(rng, steps, frames, 1.0, len(steps), level)
    pairs = [(by_end[round(question.time + 0.5)], question) for question in questions]
    return pairs[20:-20]


def evidence(step: RecipeStep, question: Question) -> tuple[str, tuple[int, ...]]:
    """All that an observer has to go by: the question's words and the steps of the recipe so far."""
    return question.text, step.sequence[: step.position + 1]


def accuracy(level: Level, kind: str, seen: int) -> Fraction:
    (row,) = [row for row in bayes(level) if (row.kind, row.seen) == (kind, seen)]
    return row.accuracy


def test_two_recipes_by_hand() -> None:
    """Recipes a b c d and a b e f, never swapped, half and half."""
    level = Level("two", ((0, 1, 2, 3), (0, 1, 4, 5)))
    assert (
        accuracy(level, "task", 2)
        == accuracy(level, "next", 2)
        == accuracy(level, "plan", 2)
        == Fraction(1, 2)
    )
    assert accuracy(level, "goal", 1) == accuracy(level, "goal", 2) == 1
    assert all(accuracy(level, kind, 3) == 1 for kind in ("task", "next", "plan"))


def test_one_swapped_recipe_by_hand() -> None:
    """Recipe a b c d: a quarter of its showings swaps ab, bc or cd, a twelfth each."""
    level = Level("one", ((0, 1, 2, 3),), swapped=Fraction(1, 4))
    assert accuracy(level, "task", 2) == 1
    # After a: b comes, but in 1 of the 11 twelfths that begin with a; after b, a does for certain.
    assert accuracy(level, "goal", 1) == Fraction(9, 12) + Fraction(1, 12)
    # a b (10 twelfths): c, but d in 1; a c (1): b; b a (1): c.
    assert accuracy(level, "next", 2) == Fraction(11, 12)
    assert accuracy(level, "next", 4) == accuracy(level, "plan", 3) == 1


def test_a_recipe_that_another_goes_on_from_by_hand() -> None:
    """Recipes a b c d and a b c d e: at d nobody knows whether it is over."""
    level = Level("prefix", ((0, 1, 2, 3), (0, 1, 2, 3, 4)))
    assert accuracy(level, "next", 4) == Fraction(1, 2)
    assert accuracy(level, "next", 5) == 1
    weights = {row.seen: row.weight for row in bayes(level) if row.kind == "now"}
    # Both recipes show 4 steps, one a fifth: of 9 steps in all; a first step may bring 4 kinds, others 7.
    later = dict.fromkeys((2, 3, 4), Fraction(2, 9) / 7)
    assert weights == {1: Fraction(2, 9) / 4, **later, 5: Fraction(1, 9) / 7}


def test_on_the_easy_level_everything_can_be_known() -> None:
    """Two steps tell the recipe, and so where it ends and the next begins."""
    assert len({recipe[:2] for recipe in EASY.recipes}) == len(EASY.recipes)
    assert {row.accuracy for row in bayes(EASY)} == {1}


def test_orders_are_drawn_as_often_as_they_are_counted() -> None:
    def change(recipe: int, sequence: tuple[int, ...]) -> tuple[int, int]:
        """A recipe's length, and where it was swapped (its length: nowhere)."""
        usual = HARD.recipes[recipe]
        moved = [place for place in range(len(usual)) if usual[place] != sequence[place]]
        return len(usual), min(moved, default=len(usual))

    shares: dict[tuple[int, int], float] = defaultdict(float)
    for share, recipe, sequence in showings(HARD):
        shares[change(recipe, sequence)] += float(share)
    motions = make_motions(np.random.default_rng(8), 400_000, HARD)
    firsts = [motion for motion in motions if isinstance(motion, RecipeStep) and motion.position == 0]
    counts = Counter(change(step.recipe, step.sequence) for step in firsts)
    assert set(counts) == set(shares)
    for key, part in shares.items():
        expected = part * len(firsts)
        assert abs(counts[key] - expected) < SIGMAS * math.sqrt(expected), key


@pytest.mark.parametrize("level", LEVELS.values(), ids=lambda level: level.name)
def test_weights_are_the_shares_of_the_questions(level: Level) -> None:
    rows = bayes(level)
    assert sum(row.weight for row in rows) == 1
    asked = simulated(level, 1, 100)
    counts = Counter((question.kind, step.position + 1) for step, question in asked)
    assert set(counts) == {(row.kind, row.seen) for row in rows}
    for row in rows:
        expected = float(row.weight) * len(asked)
        # Steps of a recipe come together, so their counts scatter a little more than independent ones.
        assert abs(counts[row.kind, row.seen] - expected) < 1.3 * SIGMAS * math.sqrt(expected)


def test_an_observer_who_only_counts_comes_close_and_not_past() -> None:
    """It knows nothing of recipes: it learns from 300 videos what mostly followed the same evidence."""
    learned: dict[tuple[str, tuple[int, ...]], Counter[str]] = defaultdict(Counter)
    for step, question in simulated(HARD, 2, 300):
        if question.kind not in ("color", "older"):
            learned[evidence(step, question)][question.answer] += 1
    results = defaultdict(list)
    for step, question in simulated(HARD, 1, 100):
        known = learned.get(evidence(step, question))
        given = known.most_common(1)[0][0] if known else None
        results[question.kind].append(given == question.answer)
    for kind in ("now", "next", "task", "plan", "goal", "first"):
        best = float(over_all(bayes(HARD), kind)[1])
        share, noise = np.mean(results[kind]), SIGMAS * math.sqrt(best * (1 - best) / len(results[kind]))
        assert best - noise - 0.06 <= share <= best + noise, kind


def without_pictures(level: Level, asked: list[Asked]) -> ProcVideo:
    steps, questions = [step for step, _ in asked], [question for _, question in asked]
    return ProcVideo(0, 1.0, np.zeros((1, 64, 64, 3), np.uint8), steps, questions, [], [], level.name)


@pytest.mark.parametrize("level", LEVELS.values(), ids=lambda level: level.name)
def test_the_ideal_observer_is_right_as_often_as_it_should(level: Level) -> None:
    asked = simulated(level, 1, 100)
    given = [
        answer
        for number in range(100)
        for answer in ideal_answers(without_pictures(level, one_video(level, 1, number)))
    ]
    right: Counter[tuple[str, int]] = Counter()
    total: Counter[tuple[str, int]] = Counter()
    for (step, question), (answer, _) in zip(asked, given, strict=True):
        key = (question.kind, step.position + 1)
        total[key] += 1
        right[key] += answer == question.answer
    for row in bayes(level):
        n = total[row.kind, row.seen]
        noise = SIGMAS * math.sqrt(float(row.accuracy * (1 - row.accuracy)) * n)
        assert abs(right[row.kind, row.seen] - float(row.accuracy) * n) <= noise, row
    expected = float(sum(share for _, share in given))
    assert abs(right.total() - expected) <= SIGMAS * math.sqrt(max(expected * (1 - expected / len(asked)), 0))


def test_a_rendered_videos_expectation() -> None:
    video = make(3, 384, level=HARD)
    given = ideal_answers(video)
    assert len(given) == len(video.questions) > 10
    assert 0 < sum(share for _, share in given) < len(given)
    easy = make(3, 96)
    assert ideal_answers(easy) == [(question.answer, Fraction(1)) for question in easy.questions]


def test_table_and_description_say_the_same() -> None:
    description = describe(HARD)
    lines = table(description).splitlines()
    assert lines[0].split() == ["question", "share", "1", "2", "3", "4", "5", "6", "all"]
    assert [line.split()[0] for line in lines[1:]] == [*dict.fromkeys(row.kind for row in bayes(HARD)), "all"]
    weight, whole = over_all(bayes(HARD), "next")
    assert lines[2].split() == [
        "next",
        f"{float(weight):.3f}",
        "-",
        *(f"{float(accuracy(HARD, 'next', seen)):.3f}" for seen in range(2, 7)),
        f"{float(whole):.3f}",
    ]
    assert over_all(bayes(HARD))[0] == 1


def test_more_swaps_make_it_harder() -> None:
    chances = [over_all(bayes(replace(HARD, swapped=Fraction(share, 4))))[1] for share in range(3)]
    assert chances[0] > chances[1] > chances[2]
