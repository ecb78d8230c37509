"""Hadamard matrices with random signs: rotations that take additions alone."""

import numpy as np


def sylvester(order: int) -> np.ndarray:
    """The Hadamard matrix in Sylvester's order, float64 [order, order] of 1 and -1; order a power of two."""
    matrix: np.ndarray = np.ones((1, 1))
    while len(matrix) < order:
        matrix = np.kron([[1, 1], [1, -1]], matrix)
    return matrix


def signs(seed: int, layer: int, head: int, block: int, dim: int) -> np.ndarray:
    """Random signs by numpy's PCG64([seed, layer, head, block]), int64 [dim] of 1 and -1."""
    rng = np.random.Generator(np.random.PCG64([seed, layer, head, block]))
    drawn: np.ndarray = 1 - 2 * rng.integers(0, 2, dim)
    return drawn
