"""Scores and token counts by class: the floating-point corner cases that a random draw would miss."""

from collections.abc import Callable

import numpy as np

from vrex.model.lib import arith

_NEGATIVE = np.uint16(0x8000)
_INFINITY = 0x7F80


def _normal(rng: np.random.Generator, n: int) -> np.ndarray:
    return arith.to_bf16((rng.standard_normal(n) * 2.0 ** rng.integers(-20, 20)).astype(np.float32))


def _positive(rng: np.random.Generator, n: int) -> np.ndarray:
    return _normal(rng, n) & ~_NEGATIVE


def _negative(rng: np.random.Generator, n: int) -> np.ndarray:
    return _normal(rng, n) | _NEGATIVE


def _mostly_positive(rng: np.random.Generator, n: int) -> np.ndarray:
    return arith.to_bf16((rng.standard_normal(n) + 1.5).astype(np.float32))


def _ties(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.choice(_mostly_positive(rng, 3), n)


def _constant(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.full(n, _normal(rng, 1)[0])


def _cancelling(rng: np.random.Generator, n: int) -> np.ndarray:
    half = _normal(rng, n // 2)
    return rng.permutation(np.concatenate([half, half ^ _NEGATIVE, np.zeros(n % 2, dtype=np.uint16)]))


def _bits(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.integers(0, 1 << 16, n).astype(np.uint16)


def _exponents(rng: np.random.Generator, n: int) -> np.ndarray:
    """Every exponent but that of infinities and NaN."""
    return (_bits(rng, n) & 0x807F) | (rng.integers(0, 255, n) << 7).astype(np.uint16)


def _subnormal(rng: np.random.Generator, n: int) -> np.ndarray:
    return _bits(rng, n) & 0x807F


def _nan(rng: np.random.Generator, n: int) -> np.ndarray:
    return (_bits(rng, n) & 0x8000) | rng.integers(_INFINITY + 1, 0x8000, n).astype(np.uint16)


def _infinite(rng: np.random.Generator, n: int) -> np.ndarray:
    return (_bits(rng, n) & 0x8000) | np.uint16(_INFINITY)


def _zeros(rng: np.random.Generator, n: int) -> np.ndarray:
    return _bits(rng, n) & 0x8000


def _extremes(rng: np.random.Generator, n: int) -> np.ndarray:
    """The values at the edges of the format."""
    edges = [0x0000, 0x0001, 0x007F, 0x0080, 0x3F80, 0x7F7F, _INFINITY, 0x7F81, 0x7FC0, 0x7FFF]
    return rng.choice(np.array(edges, dtype=np.uint16), n) | _zeros(rng, n)


def _outlier(rng: np.random.Generator, n: int) -> np.ndarray:
    """One score so large that the others fall below the row's resolution."""
    row = arith.to_bf16((rng.standard_normal(n) * 1e-3).astype(np.float32))
    row[rng.integers(0, n)] = arith.to_bf16(np.array([1e6], dtype=np.float32))[0] | _zeros(rng, 1)[0]
    return row


def _sprinkled(rng: np.random.Generator, n: int) -> np.ndarray:
    """Ordinary scores with a few specials among them."""
    return np.where(rng.random(n) < 0.1, _extremes(rng, n), _mostly_positive(rng, n))


SCORES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "normal": _normal,
    "positive": _positive,
    "negative": _negative,
    "mostly_positive": _mostly_positive,
    "ties": _ties,
    "constant": _constant,
    "cancelling": _cancelling,
    "bits": _bits,
    "exponents": _exponents,
    "subnormal": _subnormal,
    "nan": _nan,
    "infinite": _infinite,
    "zeros": _zeros,
    "extremes": _extremes,
    "outlier": _outlier,
    "sprinkled": _sprinkled,
}
"""Classes of a row of scores: (generator, n) -> BF16 bits uint16 [n]."""

COUNTS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "small": lambda rng, n: rng.integers(1, 11, n),
    "any": lambda rng, n: rng.integers(0, 1 << 16, n),
    "with_zeros": lambda rng, n: rng.integers(0, 3, n),
    "ones": lambda rng, n: np.ones(n, dtype=np.int64),
    "zeros": lambda rng, n: np.zeros(n, dtype=np.int64),
    "largest": lambda rng, n: np.full(n, (1 << 16) - 1),
}
"""Classes of token counts: (generator, n) -> integers [n], 0..65535."""
