import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vrex.sw.videollm.activations import erf, gelu, gelu_tanh

GRID = np.linspace(-8, 8, 40001).astype(np.float32)


def float32(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def test_erf_to_float32_precision() -> None:
    expected = np.array([math.erf(x) for x in GRID.tolist()])
    assert np.abs(erf(GRID) - expected).max() < 6e-8
    assert erf(float32(0.0, np.inf, -np.inf)).tolist() == [0.0, 1.0, -1.0]
    assert np.isnan(erf(float32(np.nan)))


@given(st.floats(-4, 4, width=32))
def test_erf_relative_error(x: float) -> None:
    # float32's own rounding is 6e-8; tiny arguments show that nothing cancels
    assert math.isclose(float(erf(float32(x))[0]), math.erf(x), rel_tol=1.3e-7, abs_tol=1e-44)


def test_gelus_against_their_definitions() -> None:
    x = GRID.astype(np.float64)
    exact = 0.5 * x * (1 + np.array([math.erf(v / math.sqrt(2)) for v in x]))
    tanh = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    assert np.abs(gelu(GRID) - exact).max() < 1e-6
    assert np.abs(gelu_tanh(GRID) - tanh).max() < 2e-6
    assert gelu(GRID).dtype == gelu_tanh(GRID).dtype == np.float32
