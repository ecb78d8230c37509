"""Answers to categories: exact match, or the nearest by edit distance."""

from collections.abc import Sequence

import numpy as np


def distances(text: str, choices: Sequence[str]) -> np.ndarray:
    """Levenshtein's distances of a text to each choice, int64 [choices].

    The usual table, a row for each character of the text, for all choices at once. What a row's neighbours to
    the left add is a running minimum: min over k <= j of cost[k] + (j - k).
    """
    lengths = np.array([len(choice) for choice in choices])
    letters = np.full((len(choices), lengths.max(initial=0)), -1, dtype=np.int64)
    for row, choice in zip(letters, choices, strict=True):
        row[: len(choice)] = [ord(letter) for letter in choice]
    column = np.arange(letters.shape[1] + 1)
    costs = np.tile(column, (len(choices), 1))
    for letter in text:
        replaced = costs[:, :-1] + (letters != ord(letter))
        new = costs + 1
        np.minimum(new[:, 1:], replaced, out=new[:, 1:])
        costs = np.minimum.accumulate(new - column, axis=1) + column
    return costs[np.arange(len(choices)), lengths]


def nearest(text: str, choices: Sequence[str]) -> str:
    """The choice that a text means: itself, else the nearest, the first of equals."""
    return text if text in choices else choices[int(distances(text, choices).argmin())]


def score(text: str, expected: Sequence[str], choices: Sequence[str]) -> list[bool]:
    """Which of the expected answers an answer gets right.

    One is expected of most tasks, and the whole text counts. Of several each is compared with the line in its
    place, number prefix included, as VideoLLM-Online does; a line that is missing is wrong, more are ignored.
    """
    lines = text.split("\n") if len(expected) > 1 else [text]
    found = [nearest(line, choices) for line in lines[: len(expected)]]
    return [i < len(found) and found[i] == answer for i, answer in enumerate(expected)]
