"""Mass and cosine against a softmax in Python's own numbers, row by row."""

import math

import numpy as np
import pytest

from vrex.errors import UserError
from vrex.sw.evaluation.cells import Clip
from vrex.sw.evaluation.figures import recall

HEADS, GROUP, ROWS, PAST, DIM = 2, 2, 3, 9, 4
TOKENS = [np.array([0, 4, 8]), np.array([2])]
RNG = np.random.default_rng(11)
Q = RNG.normal(size=(HEADS * GROUP, ROWS, DIM)).astype(np.float32)
KEYS, VALUES = RNG.normal(size=(2, HEADS, PAST + ROWS, DIM)).astype(np.float32)


def softmax(query: int, row: int, tokens: list[int]) -> dict[int, float]:
    q, keys = Q[query, row].tolist(), KEYS[query // GROUP].tolist()
    dots = {t: math.fsum(a * b for a, b in zip(q, keys[t], strict=True)) for t in tokens}
    powers = {t: math.exp(dot / math.sqrt(DIM)) for t, dot in dots.items()}
    total = math.fsum(powers.values())
    return {t: power / total for t, power in powers.items()}


def output(query: int, row: int, past: list[int]) -> list[float]:
    weights = softmax(query, row, past + list(range(PAST, PAST + row + 1)))
    values = VALUES[query // GROUP].tolist()
    return [math.fsum(weight * values[t][i] for t, weight in weights.items()) for i in range(DIM)]


def test_mass_equals_plain_python() -> None:
    found = recall.mass_recalled(Q, KEYS[:, :PAST], TOKENS)
    for head in range(HEADS):
        shares = [
            math.fsum(softmax(query, row, list(range(PAST)))[t] for t in TOKENS[head].tolist())
            for query in range(head * GROUP, (head + 1) * GROUP)
            for row in range(ROWS)
        ]
        assert math.isclose(found[head], math.fsum(shares) / len(shares), rel_tol=1e-5)
    everything = recall.mass_recalled(Q, KEYS[:, :PAST], [np.arange(PAST)] * HEADS)
    np.testing.assert_allclose(everything, 1, rtol=1e-12)


def test_cosine_equals_plain_python() -> None:
    found = recall.output_cosine(Q, KEYS, VALUES, TOKENS)
    for head in range(HEADS):
        cosines = []
        for query in range(head * GROUP, (head + 1) * GROUP):
            for row in range(ROWS):
                whole, part = output(query, row, list(range(PAST))), output(query, row, TOKENS[head].tolist())
                dot = math.fsum(a * b for a, b in zip(whole, part, strict=True))
                cosines.append(dot / math.hypot(*whole) / math.hypot(*part))
        assert math.isclose(found[head], math.fsum(cosines) / len(cosines), rel_tol=1e-4)


def test_a_video_without_a_chunk_that_counts_is_refused() -> None:
    with pytest.raises(UserError, match="counts from frame 21"):
        recall.measure(None, [Clip("tasks", recall.WARMUP, 1)])  # type: ignore[arg-type]
