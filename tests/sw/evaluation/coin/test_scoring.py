"""Scores against the definition of the edit distance."""

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrex.sw.evaluation.coin.scoring import distances, nearest, score

words = st.text("abc .", max_size=8)


def levenshtein(a: str, b: str) -> int:
    """Fewest insertions, deletions and replacements, by the recursion that defines it."""

    @cache
    def of(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        return min(of(i - 1, j) + 1, of(i, j - 1) + 1, of(i - 1, j - 1) + (a[i - 1] != b[j - 1]))

    return of(len(a), len(b))


@given(words, st.lists(words, min_size=1, max_size=6))
def test_distances_are_those_of_the_definition(text: str, choices: list[str]) -> None:
    assert distances(text, choices).tolist() == [levenshtein(text, choice) for choice in choices]


@given(words, st.lists(words, min_size=1, max_size=6, unique=True))
def test_the_nearest_is_the_first_of_the_smallest(text: str, choices: list[str]) -> None:
    found = choices.index(nearest(text, choices))
    each = [levenshtein(text, choice) for choice in choices]
    assert each[found] == min(each)
    assert min(each) not in each[:found]


def test_known_distances() -> None:
    assert distances("kitten", ["sitting", "kitten", "", "mitten", "kittens"]).tolist() == [3, 0, 6, 1, 1]


CHOICES = ["Add milk.", "Add sugar.", "Pour water.", "Stir."]


@pytest.mark.parametrize(
    ("text", "expected", "right"),
    [
        ("Add milk.", ["Add milk."], [True]),
        (" add milk", ["Add milk."], [True]),
        ("Add sugar.", ["Add milk."], [False]),
        # One answer: line breaks belong to it.
        ("Stir.\nAdd milk.", ["Stir."], [False]),
        ("1. Add milk.\n2. Stir.", ["Add milk.", "Stir."], [True, True]),
        ("1. Stir.\n2. Add milk.", ["Add milk.", "Stir."], [False, False]),
        ("1. Add milk.", ["Add milk.", "Stir."], [True, False]),
        ("1. Add milk.\n2. Stir.\n3. Stir.", ["Add milk.", "Stir."], [True, True]),
        ("", ["Stir."], [True]),
    ],
)
def test_answers(text: str, expected: list[str], right: list[bool]) -> None:
    assert score(text, expected, CHOICES) == right
