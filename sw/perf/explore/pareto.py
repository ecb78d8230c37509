"""Pareto fronts: rows that no other row beats."""

from collections.abc import Sequence

import numpy as np

from vrex.sw.perf.explore.evaluate import OBJECTIVES, WORKLOAD, Row


def front(values: np.ndarray) -> np.ndarray:
    """Which rows are not dominated: none is at least as small in all columns and smaller in one.

    Args:
        values: float [rows, columns], smaller is better, without NaN.

    Returns:
        bool [rows]; of equal rows all or none.
    """
    count = len(values)
    kept = np.zeros(count, bool)
    # In this order a row can only be dominated by one before it, and then also by one of the front.
    order = np.lexsort(values.T[::-1]) if values.shape[1] else np.arange(count)
    best = np.empty_like(values)
    size = 0
    for index in order:
        row = values[index]
        found = best[:size]
        beaten = (found <= row).all(axis=1) & (found < row).any(axis=1)
        if not beaten.any():
            kept[index] = True
            best[size] = row
            size += 1
    return kept


def fronts(rows: Sequence[Row], objectives: Sequence[str]) -> list[bool]:
    """Of each row, whether it is on the front of its workload; it fits then and has all objectives.

    Args:
        rows: of a sweep.
        objectives: names of `OBJECTIVES`.
    """
    signs = np.array([1.0 if OBJECTIVES[name] == "min" else -1.0 for name in objectives])
    groups: dict[tuple[object, ...], list[int]] = {}
    for index, row in enumerate(rows):
        if row["fits"] and all(row[name] is not None for name in objectives):
            groups.setdefault(tuple(row[name] for name in WORKLOAD), []).append(index)
    found = [False] * len(rows)
    for members in groups.values():
        values = np.array([[float(rows[index][name]) for name in objectives] for index in members]) * signs
        for index, kept in zip(members, front(values), strict=True):
            found[index] = bool(kept)
    return found
