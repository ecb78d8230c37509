"""The two GELUs, in float32: exact (erf) for the connector, the tanh form for the vision tower."""

import math

import numpy as np

# erf(x) / x is even and smooth: a Chebyshev series in x^2, fitted once to math.erf in float64, meets
# float32 precision everywhere up to _LIMIT, beyond which erf rounds to 1.
_LIMIT = 4.0
_DEGREE = 24


def _fit() -> np.polynomial.Chebyshev:
    def even(squares: np.ndarray) -> np.ndarray:
        return np.array([math.erf(math.sqrt(s)) / math.sqrt(s) for s in squares])

    return np.polynomial.Chebyshev.interpolate(even, _DEGREE, domain=[0.0, _LIMIT**2])


_SERIES = _fit()


def erf(x: np.ndarray) -> np.ndarray:
    """The error function to float32 precision.

    Args:
        x: float32, any shape.

    Returns:
        float32, same shape; NaN stays NaN.
    """
    limited = np.clip(x, -_LIMIT, _LIMIT).astype(np.float64)
    return (limited * _SERIES(limited * limited)).astype(np.float32)


def gelu(x: np.ndarray) -> np.ndarray:
    """Exact GELU, x * Phi(x); float32, any shape."""
    return np.float32(0.5) * x * (1 + erf(x * np.float32(math.sqrt(0.5))))


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    """GELU in its tanh approximation (``gelu_pytorch_tanh``); float32, any shape."""
    inner = x * x
    inner *= np.float32(0.044715 * math.sqrt(2 / math.pi))
    inner += np.float32(math.sqrt(2 / math.pi))
    inner *= x
    np.tanh(inner, out=inner)
    inner += 1
    inner *= x
    inner *= np.float32(0.5)
    return inner
