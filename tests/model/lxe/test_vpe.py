"""Vector engine: operations against exact arithmetic and float64, programs against float64."""

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import ArrayLike

from vrex.model.lib import arith
from vrex.model.lxe import vpe

SEED = 4
N = 200_000
EDGES = np.array(
    [
        *(0, 1, 2, 0x7F_FFFF, 0x80_0000, 0x80_0001, 0x1F80_0000, 0x3380_0000, 0x3400_0000, 0x3F7F_FFFF),
        *(0x3F80_0000, 0x3F80_0001, 0x7F00_0000, 0x7F7F_FFFF, 0x7F80_0000, 0x7F80_0001, 0x7FC0_0000),
    ],
    dtype=np.uint32,
)
EDGES = np.concatenate([EDGES, EDGES | np.uint32(0x8000_0000)])
SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan], dtype=np.float32)


def same(got: ArrayLike, want: ArrayLike) -> bool:
    """Equal bit by bit."""
    return np.array_equal(
        np.asarray(got, dtype=np.float32).view(np.uint32), np.asarray(want, dtype=np.float32).view(np.uint32)
    )


def f32(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def bits(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.integers(0, 1 << 32, n, dtype=np.uint32).view(np.float32)


def nearest(exact: Fraction) -> int:
    """FP32 bits of the number nearest to a fraction other than 0, by the definition of the format."""
    size = abs(exact)
    exponent = max(-149, size.numerator.bit_length() - size.denominator.bit_length() - 25)
    while size >= Fraction(2) ** (exponent + 24):
        exponent += 1
    # Python rounds a fraction to the nearest integer, ties to even.
    unit = round(size / Fraction(2) ** exponent)
    pattern = unit if exponent == -149 else unit + (exponent + 149 << 23)
    return min(pattern, 0x7F80_0000) | (0x8000_0000 if exact < 0 else 0)


def triples(rng: np.random.Generator, n: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Operands: any, edges, near cancellation, results around half way and around the subnormal numbers."""
    a, b, c = (bits(rng, n) for _ in range(3))
    near = (rng.integers(0, 1 << 24, (2, n)).astype(np.uint32) + np.uint32(0x3F00_0000)).view(np.float32)
    with np.errstate(all="ignore"):
        cancel = -(near[0] * near[1])
        jitter = (cancel.view(np.uint32) + rng.integers(0, 3, n).astype(np.uint32)).view(np.float32)
        small = near[0] * np.float32(2.0**-70), near[1] * np.float32(2.0**-66)
        far = near[0] * np.float32(2.0) ** rng.integers(-60, 60, n).astype(np.float32)
    tiny = rng.integers(0, 1 << 25, n).astype(np.uint32).view(np.float32)
    edges = [rng.choice(EDGES, n).view(np.float32) for _ in range(3)]
    half = (rng.integers(0, 1 << 12, n) << 11 | 0x3F80_0000).astype(np.uint32).view(np.float32)
    return [
        (a, b, c),
        (edges[0], edges[1], edges[2]),
        (near[0], near[1], jitter),
        (small[0], small[1], tiny),
        (far, near[1], near[0]),
        (half, half, tiny),
        (tiny, far, tiny),
    ]


def test_fma_is_exact_arithmetic_rounded_once() -> None:
    rng = np.random.default_rng(SEED)
    checked = 0
    for operands in triples(rng, 3000):
        got = vpe.fma(*operands).view(np.uint32)
        for i in range(len(got)):
            values = [float(x[i]) for x in operands]
            if not np.isfinite(values).all():
                continue
            a, b, c = map(Fraction, values)
            exact = a * b + c
            if exact == 0:
                assert got[i] & 0x7FFF_FFFF == 0
                continue
            assert got[i] == nearest(exact), f"seed {SEED}: {values} give {got[i]:08x}"
            checked += 1
    assert checked > 15_000


def test_fma_of_specials_and_zeros_is_ieee() -> None:
    """float64 decides where nothing is rounded: signs of zeros, infinities and what is no number."""
    grid = np.concatenate([SPECIAL, np.array([1, -1], dtype=np.float32)])
    a, b, c = (x.ravel() for x in np.meshgrid(grid, grid, grid))
    with np.errstate(invalid="ignore"):
        want = (a.astype(np.float64) * b + c).astype(np.float32)
    want[np.isnan(want)] = np.uint32(vpe.NAN).view(np.float32)
    assert same(vpe.fma(a, b, c), want)


def test_the_simple_operations_are_numpys() -> None:
    rng = np.random.default_rng(SEED)
    a, c = (np.concatenate([bits(rng, N), rng.choice(EDGES, N).view(np.float32)]) for _ in range(2))
    with np.errstate(all="ignore"):
        for got, want in (
            (vpe.add(a, c), a + c),
            (vpe.sub(a, c), a - c),
            (vpe.mul(a, c), a * c),
            (vpe.copy(a), a.copy()),
            (vpe.maximum(a, c), np.maximum(a, c)),
        ):
            want[np.isnan(want)] = np.uint32(vpe.NAN).view(np.float32)
            zero = (want == 0) & (got == 0)
            assert same(got[~zero], want[~zero])
        assert same(vpe.add(a, c), np.where(np.isnan(a + c), vpe.add(a, c), a + c))
    assert same(vpe.maximum(f32(0.0, -0.0), f32(-0.0, 0.0)), f32(0.0, 0.0))
    assert same(vpe.fnma(a, c, a), vpe.fma(-a, c, a))


def test_sign_packs_as_a_hash_does() -> None:
    rng = np.random.default_rng(SEED)
    row = rng.standard_normal(77).astype(np.float32)
    row[:5] = SPECIAL
    words = vpe.sign(row)
    assert words.shape == (3,)
    for i, value in enumerate(row):
        assert words[i // 32] >> (i % 32) & 1 == (value > 0)
    assert words[2] >> (77 - 64) == 0


def test_a_sum_has_the_documented_order() -> None:
    row = (np.random.default_rng(SEED).standard_normal(200) * 1e3).astype(np.float32)
    partial = [np.float32(-0.0)] * 64
    for i, value in enumerate(row):
        partial[i % 64] = partial[i % 64] + value
    assert same(vpe.rsum(row), arith.tree_sum(np.array(partial)))
    assert same(vpe.rsum(f32(-0.0)), np.float32(-0.0))
    assert vpe.rmax(row) == row.max()
    assert np.isnan(vpe.rmax(np.append(row, np.float32(np.nan))))


def ulps(got: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Distance in units of the last place of the exact value in FP32."""
    with np.errstate(divide="ignore"):
        exponent = np.floor(np.log2(np.maximum(np.abs(exact), 2.0**-126)))
    return np.abs(got.astype(np.float64) - exact) / 2.0 ** (exponent - 23)


FUNCTIONS = [
    (vpe.exp, np.exp, 1.1),
    (vpe.recip, lambda x: 1 / x, 1.0),
    (vpe.rsqrt, lambda x: 1 / np.sqrt(x), 1.1),
]


@pytest.mark.parametrize(("function", "reference", "bound"), FUNCTIONS)
def test_a_function_is_near_float64(
    function: Callable[..., np.ndarray], reference: Callable[..., np.ndarray], bound: float
) -> None:
    rng = np.random.default_rng(SEED)
    x = np.abs(bits(rng, 2 * N))
    assert np.isnan(x).any()
    if function is vpe.exp:
        spread = np.concatenate([rng.uniform(-104, 89, N), rng.standard_normal(N)]).astype(np.float32)
        x = np.concatenate([spread, bits(rng, N)])
    x = x[np.isfinite(x)]
    with np.errstate(all="ignore"):
        exact = reference(x.astype(np.float64))
    inside = exact < float(np.finfo(np.float32).max)
    got = function(x)
    assert inside.sum() > N / 2
    worst = ulps(got[inside], exact[inside]).max()
    assert 0.5 < worst <= bound
    assert np.isinf(got[exact >= 2.0**128]).all()


def test_specials_of_the_functions() -> None:
    nan = float(np.uint32(vpe.NAN).view(np.float32))
    assert same(vpe.exp(SPECIAL), f32(1, 1, np.inf, 0, nan))
    assert same(vpe.recip(SPECIAL), f32(np.inf, -np.inf, 0.0, -0.0, nan))
    assert same(vpe.rsqrt(SPECIAL), f32(np.inf, -np.inf, 0.0, nan, nan))
    assert same(vpe.rsqrt(f32(-1, -1e-45, 4, 2.0**-149)), f32(nan, nan, 0.5, 2**74.5))
    powers = np.float32(2.0) ** np.arange(-126, 127, dtype=np.float32)
    assert same(vpe.recip(powers), 1 / powers)


def near_bf16(got: np.ndarray, exact: np.ndarray) -> float:
    """Share of results within 1 unit of BF16 of the exact value."""
    size = np.maximum(np.abs(exact), 2.0**-126)
    unit = 2.0 ** (np.floor(np.log2(size)) - 7)
    return float(np.mean(np.abs(arith.from_bf16(got) - exact) <= unit))


def rows(rng: np.random.Generator, kind: str) -> np.ndarray:
    """BF16 bits [11, n]: ordinary, heavy-tailed, or long rows."""
    n = 4096 * 11 if kind == "long" else 700
    values = rng.standard_t(2, (11, n)) if kind == "heavy" else rng.standard_normal((11, n)) * 4
    return arith.to_bf16(values.astype(np.float32))


@pytest.mark.parametrize("kind", ["normal", "heavy", "long"])
def test_programs_are_within_a_unit_of_bf16(kind: str) -> None:
    rng = np.random.default_rng(SEED)
    bf16 = rows(rng, kind)
    x = np.asarray(arith.from_bf16(bf16), dtype=np.float64)
    scale = float(np.float32(0.125))
    powers = np.exp(scale * (x - x.max(axis=-1, keepdims=True)))
    assert near_bf16(vpe.softmax_row(bf16, scale), powers / powers.sum(axis=-1, keepdims=True)) >= 0.99
    weight = arith.to_bf16(rng.standard_normal(int(x.shape[-1])).astype(np.float32))
    norm = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-5) * arith.from_bf16(weight)
    assert near_bf16(vpe.rms_norm(bf16, weight, 1e-5), norm) >= 0.99
    assert near_bf16(vpe.silu(bf16), x / (1 + np.exp(-x))) >= 0.99
    angle = rng.uniform(-np.pi, np.pi, (11, x.shape[-1] // 2))
    cosine, sine = (f(angle).astype(np.float32) for f in (np.cos, np.sin))
    first, second = np.split(x, 2, axis=-1)
    turned = np.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
    assert near_bf16(vpe.rope(bf16, cosine, sine), turned) >= 0.99


def test_a_nan_in_a_row_is_seen() -> None:
    row = np.array([0x3F80, 0x7FC0, 0x4000], dtype=np.uint16)
    assert (vpe.softmax_row(row, 1.0) == arith.NAN).all()
    assert (vpe.rms_norm(row, row, 1e-5) == arith.NAN).all()


@pytest.mark.parametrize(
    ("opcode", "length", "rows", "status"),
    [
        *((0, 1, 1, "OK"), (12, 7, 9, "OK"), (13, 1, 1, "BAD_OPCODE"), (255, 0, 0, "BAD_OPCODE")),
        *((3, 0, 1, "BAD_LENGTH"), (3, 1, 0, "BAD_LENGTH")),
    ],
)
def test_status(opcode: int, length: int, rows: int, status: str) -> None:
    assert vpe.status(opcode, length, rows) == vpe.Status[status]
