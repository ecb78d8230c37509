"""Errors of the running mean against a mean in Python's own numbers."""

import math

import numpy as np

from vrex.model.dre import hcu
from vrex.model.dre.hctable import HCTable
from vrex.model.lib import arith
from vrex.sw.evaluation.figures import drift


def test_errors_equal_plain_python() -> None:
    rng = np.random.default_rng(5)
    table = HCTable(1, 6, 16)
    keys = arith.to_bf16((3 + rng.normal(size=(60, 6))).astype(np.float32))
    # Few hashes, so that clusters of many sizes come about; token 0 is a sink.
    hashes = rng.choice(np.array([0, 0xF, 0xFF, 0xFFFF0000], dtype=np.uint32), 60, p=[0.6, 0.2, 0.15, 0.05])
    table.add(hashes[1:, None], keys[1:], np.arange(1, 60), lambda t, c: hcu.cluster(t, c, 2))
    found = drift.errors(table, keys)
    assert table.counts.max() > 20
    values = arith.from_bf16(keys).tolist()
    for cluster in range(table.clusters):
        members = table.tokens_of(np.arange(table.clusters) == cluster).tolist()
        exact = [math.fsum(values[token][i] for token in members) / len(members) for i in range(6)]
        mean = arith.from_bf16(table.means[cluster]).tolist()
        error = math.hypot(*(a - b for a, b in zip(mean, exact, strict=True))) / math.hypot(*exact)
        assert math.isclose(found[0, cluster], error, rel_tol=1e-9, abs_tol=1e-12)
    # The exact mean's own rounding is at most 2^-8 of each value.
    assert (found[1] <= 2.0**-8).all()
    assert found[0].max() > found[1].max()


def test_sizes_are_binned_by_powers_of_two() -> None:
    both = np.array([[0.1, 0.2, 0.4, 0.3], [0.0, 0.0, 0.0, 0.1]])
    rows = drift._by_size(both, np.array([1, 2, 3, 5000]))
    assert [(row["from"], row["clusters"]) for row in rows] == [(1, 1), (2, 2), (512, 1)]
    assert math.isclose(rows[1]["mean"], 0.3)
    assert (rows[1]["largest"], rows[2]["rounding"]) == (0.4, 0.1)
