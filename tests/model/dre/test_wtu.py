import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import strategies as st
from ml_dtypes import bfloat16
from numpy.typing import ArrayLike

from vrex.model.dre import wtu
from vrex.model.dre.wtu import Rule, Scale, Selection, Transform

NAN, INF, MINUS_INF = 0x7FC0, 0x7F80, 0xFF80
RULES = [(transform, selection) for transform in Transform for selection in Selection]


# ---- The contract's sentences on Python integers and fractions, one row at a time ----


@dataclass(frozen=True)
class Expected:
    chosen: list[bool]
    degenerate: bool


def value(bits: int) -> float:
    return float(struct.unpack("<f", struct.pack("<I", bits << 16))[0])


def row_exponent(row: list[int]) -> int:
    """Exponent of the largest finite magnitude; -126, that of subnormals, if there is none or it is 0."""
    magnitudes = [abs(value(bits)) for bits in row if math.isfinite(value(bits))]
    return max(-126, math.frexp(max(magnitudes, default=0.0))[1] - 1 if any(magnitudes) else -126)


def integers(row: list[int]) -> list[int | None]:
    """u = floor(S * 2^(14 - e)), infinities saturated, None for NaN."""
    e = row_exponent(row)
    u: list[int | None] = []
    for score in map(value, row):
        if math.isnan(score):
            u.append(None)
        elif math.isinf(score):
            u.append(32767 if score > 0 else -32768)
        else:
            u.append(math.floor(Fraction(score) * Fraction(2) ** (14 - e)))
    return u


def power_of_half(index: int) -> int:
    """2^(15 - index / 64) to the nearest integer, by comparing 64th powers exactly."""
    nearest = 1 << 14
    while (2 * nearest + 1) ** 64 <= 1 << (16 * 64 - index):
        nearest += 1
    return nearest


POWERS = [power_of_half(index) for index in range(64)]


def weights_per_token(row: list[int], transform: Transform, scale: Scale) -> list[int]:
    u = integers(row)
    known = [v for v in u if v is not None]
    weights = []
    for v in u:
        if v is None:
            weights.append(0)
        elif transform == Transform.RAW:
            weights.append(v)
        elif transform == Transform.SHIFT:
            weights.append(v - min(known))
        else:
            real = (max(known) - v) * Fraction(2) ** (row_exponent(row) - 14)
            steps = math.floor(real * scale.mantissa * Fraction(2) ** (scale.exponent - 15) * 64)
            weights.append(0 if steps >= 16 * 64 else POWERS[steps % 64] >> steps // 64)
    return weights


def in_order(u: list[int | None], selection: Selection, buckets: int) -> list[list[int]]:
    """Groups of clusters in the order they are taken; the threshold is tested after each."""
    known = [j for j, v in enumerate(u) if v is not None]
    if selection == Selection.EXACT:
        return [[j] for j in sorted(known, key=lambda j: (-int(u[j] or 0), j))]
    values = [v for v in u if v is not None]
    low, span = min(values), 1
    while span <= max(values) - low:
        span *= 2
    width = max(1, span // buckets)
    groups: list[list[int]] = [[] for _ in range(buckets)]
    for j in known:
        groups[(int(u[j] or 0) - low) // width].append(j)
    return groups[::-1]


def expected(row: list[int], counts: list[int], rule: Rule) -> Expected:
    if not row:
        return Expected([], False)
    u = integers(row)
    weights = [w * c for w, c in zip(weights_per_token(row, rule.transform, rule.scale), counts, strict=True)]
    total = sum(weights)
    chosen = [False] * len(row)
    known = [v for v in u if v is not None]
    if rule.transform == Transform.RAW and total <= 0:
        if known:
            chosen[u.index(max(known))] = True
        return Expected(chosen, True)
    if not known:
        return Expected(chosen, False)
    acc = 0
    for group in in_order(u, rule.selection, rule.buckets):
        for j in group:
            chosen[j] = True
            acc += weights[j]
        if acc * 65536 > rule.th_r * total:
            break
    return Expected(chosen, False)


def check_rows(rows: list[list[int]], counts: list[int], rule: Rule) -> None:
    wanted = [expected(row, counts, rule) for row in rows]
    scores = np.array(rows, dtype=np.uint16).reshape(len(rows), len(counts))
    got = wtu.select(scores, np.array(counts, dtype=np.int64), rule)
    np.testing.assert_array_equal(got.rows, np.array([w.chosen for w in wanted]).reshape(got.rows.shape))
    assert got.degenerate == sum(w.degenerate for w in wanted)


# ---- Rows ----


def bf16(values: ArrayLike) -> np.ndarray:
    return np.asarray(values, dtype=np.float32).astype(bfloat16).view(np.uint16)


CORNERS = [
    0,
    0x8000,
    1,
    0x8001,
    0x007F,
    0x0080,
    0x8080,
    0x3F80,
    0xBF80,
    0x7F7F,
    0xFF7F,
    INF,
    MINUS_INF,
    NAN,
    0xFFC1,
]

scores_of_a_row: dict[str, st.SearchStrategy[int]] = {
    "any bits": st.integers(0, 0xFFFF),
    "corners": st.sampled_from(CORNERS),
    "corners among ordinary": st.one_of(st.sampled_from(CORNERS), st.integers(0x3E00, 0x4200)),
    "ordinary": st.one_of(st.integers(0x3C00, 0x4300), st.integers(0xBC00, 0xC300)),
    "positive": st.integers(0x3C00, 0x4300),
    "negative": st.integers(0xBC00, 0xC300),
    "few distinct": st.sampled_from([0x3F80, 0x3F90, 0xBF80, 0x0000]),
    "subnormal": st.one_of(st.integers(0, 0x7F), st.integers(0x8000, 0x807F)),
    "near in value": st.integers(0x4100, 0x4108),
    "huge": st.one_of(st.integers(0x7F00, 0x7F80), st.integers(0xFF00, 0xFF80)),
}
token_counts = st.one_of(st.integers(0, 9), st.integers(0, 65535), st.sampled_from([0, 1, 65535]))
thresholds = st.one_of(st.integers(0, 65535), st.sampled_from([0, 1, 19661, 32768, 65535]))
scales = st.builds(
    Scale,
    st.one_of(st.just(0), st.integers(0x8000, 0xFFFF)),
    st.one_of(st.integers(-8, 4), st.integers(-128, 127)),
)


@st.composite
def blocks(draw: st.DrawFn, kind: str) -> tuple[list[list[int]], list[int]]:
    n, rows = draw(st.integers(0, 40)), draw(st.integers(1, 3))
    row = st.lists(scores_of_a_row[kind], min_size=n, max_size=n)
    return [draw(row) for _ in range(rows)], draw(st.lists(token_counts, min_size=n, max_size=n))


@pytest.mark.parametrize("kind", scores_of_a_row)
@pytest.mark.parametrize(("transform", "selection"), RULES)
def test_select_equals_the_contract(
    prove: Callable[..., None], kind: str, transform: Transform, selection: Selection
) -> None:
    def check(block: tuple[list[list[int]], list[int]], th_r: int, buckets: int, scale: Scale) -> None:
        check_rows(*block, Rule(th_r, transform, selection, buckets, scale))

    bucket_numbers = st.sampled_from([2, 4, 16, 64])
    prove(check, examples=20, block=blocks(kind), th_r=thresholds, buckets=bucket_numbers, scale=scales)


@pytest.mark.parametrize(("transform", "selection"), RULES)
def test_select_equals_the_contract_on_long_rows(
    prove: Callable[..., None], transform: Transform, selection: Selection
) -> None:
    def check(seed: int, n: int, offset: float) -> None:
        rng = np.random.default_rng(seed)
        scores = bf16(rng.standard_normal((2, n)) * 8 + offset)
        rule = Rule(int(rng.integers(65536)), transform, selection, 16, Scale.from_float(0.125))
        check_rows(scores.tolist(), rng.integers(0, 40, n).tolist(), rule)

    offsets = st.sampled_from([-30.0, -1.0, 0.0, 3.0, 100.0])
    prove(check, examples=3, seed=st.integers(0, 1 << 32), n=st.integers(100, 800), offset=offsets)


@pytest.mark.parametrize("kind", scores_of_a_row)
def test_fixed_point_and_weights_equal_the_contract(prove: Callable[..., None], kind: str) -> None:
    def check(row: list[int], scale: Scale) -> None:
        rows = wtu.fixed_point(np.array([row], dtype=np.uint16))
        assert rows.exponent[0, 0] - 127 == row_exponent(row)
        assert [None if nan else u for u, nan in zip(rows.u[0], rows.nan[0], strict=True)] == integers(row)
        for transform in Transform:
            got = wtu.transform(rows, Rule(0, transform, scale=scale))[0].tolist()
            assert got == weights_per_token(row, transform, scale)

    row = st.lists(scores_of_a_row[kind], min_size=1, max_size=20)
    prove(check, examples=40, row=row, scale=scales)


def test_exp_table_is_correctly_rounded() -> None:
    assert wtu.EXP_TABLE.tolist() == POWERS


# ---- Fixed point, by hand ----


def u_of(*bits: int) -> list[int]:
    return [int(u) for u in wtu.fixed_point(np.array([bits], dtype=np.uint16)).u[0]]


def test_negative_scores_are_floored_not_truncated() -> None:
    """1 and -2^-20: the small one is between -1 and 0 units."""
    assert u_of(0x3F80, 0x8000 | 127 - 20 << 7) == [1 << 14, -1]
    assert u_of(0x3F80, 127 - 20 << 7) == [1 << 14, 0]


def test_largest_magnitudes() -> None:
    assert u_of(0x7F7F, 0xFF7F) == [32640, -32640]
    assert u_of(0x3F80, 0x3FFF) == [1 << 13 << 1, 32640]
    assert u_of(0x3F80, 0x4000) == [1 << 13, 1 << 14]


def test_infinities_saturate_above_every_finite_score() -> None:
    assert u_of(INF, 0x3FFF, MINUS_INF, 0xBFFF) == [32767, 32640, -32768, -32640]
    assert u_of(INF, MINUS_INF) == [32767, -32768]


def test_zeros_and_subnormals() -> None:
    assert u_of(0x0000, 0x8000) == [0, 0]
    assert u_of(0x0001, 0x8001, 0x007F) == [1 << 7, -(1 << 7), 127 << 7]
    assert u_of(0x0080, 0x0001) == [1 << 14, 1 << 7]


# ---- Order codes ----


@pytest.mark.parametrize("exponent", [1, 2, 7, 8, 9, 10, 16, 17, 40, 127, 254])
def test_order_codes_sort_as_u_does_and_lose_nothing(exponent: int) -> None:
    """Every score that a row with this largest exponent may hold, NaN apart."""
    every = np.arange(1 << 16, dtype=np.uint16)
    kept = every[((every >> 7 & 0xFF) <= exponent) | (every & 0x7FFF == INF)]
    u, codes = wtu.fixed_point(kept[None]).u[0], wtu.order_code(kept[None])[0]
    order = np.argsort(u, kind="stable")
    rises, falls = np.diff(u[order]) > 0, np.diff(codes[order]) < 0
    np.testing.assert_array_equal(rises, falls)
    assert (np.diff(codes[order]) <= 0).all()
    assert codes.min() == 0
    assert codes.max() == 2 * wtu.ORDER_ZERO
    assert (codes[u == 0] == wtu.ORDER_ZERO).all()


def test_bins_keep_the_order_and_part_the_signs() -> None:
    codes = np.arange(2 * wtu.ORDER_ZERO + 1)
    bins = wtu.order_bin(codes)
    assert bins[0] == 0
    assert set(np.diff(bins).tolist()) == {0, 1}
    assert bins[-1] < 64
    assert max(np.bincount(bins)) <= 64
    assert bins[wtu.ORDER_ZERO - 1] < bins[wtu.ORDER_ZERO]


# ---- The paper's examples ----


def chosen(scores: list[float], counts: list[int], rule: Rule) -> list[int]:
    selected = wtu.select(bf16([scores]), np.array(counts), rule).rows[0]
    return np.flatnonzero(selected).tolist()


def ratio(th_r: float) -> int:
    return round(th_r * 65536)


def test_papers_worked_example() -> None:
    """Fig. 9: sum 95, threshold 76, accumulates 36, 60, 81 and stops; here in another order of clusters."""
    scores, counts = [7.0, 2.0, 9.0, 8.0], [3, 7, 4, 3]
    unit = 1 << 14 - 3
    weights = wtu.transform(wtu.fixed_point(bf16([scores])), Rule(0))[0] * counts // unit
    assert weights.tolist() == [21, 14, 36, 24]
    assert np.cumsum(weights[[2, 3, 0]]).tolist() == [36, 60, 81]
    assert weights.sum() == 95
    assert chosen(scores, counts, Rule(ratio(0.8))) == [0, 2, 3]
    assert chosen(scores, counts, Rule(ratio(0.63))) == [2, 3]
    assert chosen(scores, counts, Rule(ratio(0.37))) == [2]


def test_papers_bucket_example() -> None:
    """Fig. 11: scores 0..40 in 20 buckets of width 2, left at bucket 15 (scores 30 and 31).

    Here the range is rounded up to 64 and cut into 16 buckets, so a bucket is 4 wide and the pass ends
    with scores 28..31: as many clusters as the paper's rule, or one bucket's rest more.
    """
    scores, counts, th_r = [float(s) for s in range(41)], [1] * 41, ratio(0.4)
    assert [sum(range(low, 41)) for low in (32, 31, 30)] == [324, 355, 385]
    assert 324 < 0.4 * sum(range(41)) == 328 < 355
    assert chosen(scores, counts, Rule(th_r, Transform.RAW, Selection.EXACT)) == list(range(31, 41))
    assert chosen(scores, counts, Rule(th_r, Transform.RAW, Selection.BUCKET, 16)) == list(range(28, 41))
    assert chosen(scores, counts, Rule(th_r, Transform.RAW, Selection.BUCKET, 32)) == list(range(30, 41))


# ---- Corner cases, by hand ----


def test_threshold_is_strict_and_exact() -> None:
    """Half of four equal weights: two clusters reach the threshold, only the third passes it."""
    rule = Rule(32768, Transform.RAW, Selection.EXACT)
    assert chosen([8.0] * 4, [1] * 4, rule) == [0, 1, 2]
    assert chosen([8.0] * 4, [1] * 4, Rule(32767, Transform.RAW, Selection.EXACT)) == [0, 1]


def test_ties_take_the_lower_index_first() -> None:
    assert chosen([1.0, 5.0, 5.0, 5.0], [1] * 4, Rule(1)) == [1]
    assert chosen([5.0, 1.0, 5.0, 5.0], [1] * 4, Rule(ratio(0.5))) == [0, 2]


@pytest.mark.parametrize("selection", Selection)
@pytest.mark.parametrize("transform", Transform)
def test_empty_table_gives_an_empty_mask(transform: Transform, selection: Selection) -> None:
    got = wtu.select(
        np.zeros((3, 0), dtype=np.uint16), np.zeros(0, dtype=np.int64), Rule(1, transform, selection)
    )
    assert got.rows.shape == (3, 0)
    assert got.degenerate == 0


@pytest.mark.parametrize("selection", Selection)
@pytest.mark.parametrize("scores", [[-1.0, -2.0, -0.5], [1.0, -1.0, 0.0], [0.0, 0.0, 0.0]])
def test_raw_with_a_sum_of_at_most_zero_takes_the_top_cluster(
    scores: list[float], selection: Selection
) -> None:
    rule = Rule(ratio(0.3), Transform.RAW, selection)
    got = wtu.select(bf16([scores, [1.0, 2.0, 3.0]]), np.array([1, 1, 1]), rule)
    assert np.flatnonzero(got.rows[0]).tolist() == [int(np.argmax(scores))]
    assert got.degenerate == 1


@pytest.mark.parametrize("selection", Selection)
def test_shift_of_one_distinct_value_takes_everything(selection: Selection) -> None:
    assert chosen([-3.0] * 5, [2] * 5, Rule(0, Transform.SHIFT, selection)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("selection", Selection)
@pytest.mark.parametrize("transform", [Transform.SHIFT, Transform.EXP])
def test_zero_counts_everywhere_take_everything(transform: Transform, selection: Selection) -> None:
    rule = Rule(ratio(0.3), transform, selection, scale=Scale.from_float(1.0))
    assert chosen([1.0, 2.0, 3.0], [0, 0, 0], rule) == [0, 1, 2]


@pytest.mark.parametrize(("transform", "selection"), RULES)
def test_nan_is_never_selected(transform: Transform, selection: Selection) -> None:
    rule = Rule(65535, transform, selection, scale=Scale.from_float(1.0))
    nan = float("nan")
    for scores in ([nan, 5.0, nan, -1.0], [nan] * 4, [nan, -5.0, -5.0, nan], [nan, float("inf"), 0.0, nan]):
        got = chosen(scores, [3] * 4, rule)
        assert not any(math.isnan(scores[j]) for j in got)
        assert bool(got) == any(not math.isnan(score) for score in scores)


def test_largest_sum_does_not_overflow() -> None:
    """65 535 clusters of 65 535 tokens at the full 16-bit weight: the product with Th_r needs 64 bits."""
    scores = np.full((1, 65_535), INF, dtype=np.uint16)
    scores[0, 7] = MINUS_INF
    got = wtu.select(scores, np.full(65_535, 65_535), Rule(65_535, Transform.SHIFT))
    assert np.flatnonzero(~got.rows[0]).tolist() == [7]


# ---- Laws ----


def realistic(seed: int, rows: int, n: int, offset: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return bf16(rng.standard_normal((rows, n)) * 8 + offset), rng.integers(1, 20, n)


@pytest.mark.parametrize(("transform", "selection"), RULES)
def test_sets_grow_with_th_r(transform: Transform, selection: Selection) -> None:
    scores, counts = realistic(1, 8, 200, 2.0)
    previous = np.zeros(scores.shape, dtype=bool)
    for th_r in range(0, 65536, 2731):
        rule = Rule(th_r, transform, selection, scale=Scale.from_float(0.125))
        now = wtu.select(scores, counts, rule).rows
        assert (now | ~previous).all()
        previous = now
    assert previous.sum() > 8


@pytest.mark.parametrize(("transform", "selection"), RULES)
def test_permuting_clusters_permutes_the_selection(transform: Transform, selection: Selection) -> None:
    rng = np.random.default_rng(2)
    scores = rng.permutation(np.arange(0x4000, 0x4200, 2)).astype(np.uint16)[None]
    counts, order = rng.integers(1, 9, 256), rng.permutation(256)
    rule = Rule(ratio(0.4), transform, selection, scale=Scale.from_float(0.125))
    direct = wtu.select(scores, counts, rule).rows
    assert 0 < direct.sum() < 256
    np.testing.assert_array_equal(wtu.select(scores[:, order], counts[order], rule).rows, direct[:, order])


@pytest.mark.parametrize(("transform", "selection"), RULES)
def test_rows_do_not_see_each_other(transform: Transform, selection: Selection) -> None:
    scores, counts = realistic(3, 6, 90)
    scores[2, :5] = [NAN, INF, MINUS_INF, 0, 0x8000]
    rule = Rule(ratio(0.3), transform, selection, scale=Scale.from_float(0.125))
    together = wtu.select(scores, counts, rule)
    alone = [wtu.select(row[None], counts, rule) for row in scores]
    np.testing.assert_array_equal(together.rows, np.concatenate([one.rows for one in alone]))
    assert together.degenerate == sum(one.degenerate for one in alone)


@pytest.mark.parametrize("selection", Selection)
def test_shift_ignores_a_constant_where_nothing_rounds(
    prove: Callable[..., None], selection: Selection
) -> None:
    """Integers up to 255 are exact in BF16 and never lose a bit in u."""

    def check(scores: list[int], constant: int, th_r: int, seed: int) -> None:
        counts = np.random.default_rng(seed).integers(0, 30, len(scores)).tolist()
        rule = Rule(th_r, Transform.SHIFT, selection)
        moved = [float(score + constant) for score in scores]
        assert chosen(moved, counts, rule) == chosen([float(score) for score in scores], counts, rule)

    prove(
        check,
        examples=50,
        scores=st.lists(st.integers(0, 127), min_size=1, max_size=30),
        constant=st.integers(-127, 128),
        th_r=thresholds,
        seed=st.integers(0, 1 << 32),
    )


@pytest.mark.parametrize("selection", Selection)
@pytest.mark.parametrize("transform", [Transform.RAW, Transform.SHIFT])
def test_powers_of_two_do_not_matter(transform: Transform, selection: Selection) -> None:
    scores, counts = realistic(4, 10, 300, 1.0)
    rule = Rule(ratio(0.3), transform, selection)
    scaled = bf16(scores.view(bfloat16).astype(np.float32) * 2.0**60)
    np.testing.assert_array_equal(
        wtu.select(scaled, counts, rule).rows, wtu.select(scores, counts, rule).rows
    )


def test_buckets_of_one_unit_are_exact_up_to_ties() -> None:
    """64 buckets over a range of 64 values: a bucket holds one value, so whole ties are taken."""
    scores = [float(s) for s in np.random.default_rng(5).integers(128, 192, 60)]
    counts = [1] * 60
    exact = chosen(scores, counts, Rule(ratio(0.3), Transform.SHIFT, Selection.EXACT))
    bucket = chosen(scores, counts, Rule(ratio(0.3), Transform.SHIFT, Selection.BUCKET, 64))
    lowest = min(scores[j] for j in exact)
    assert bucket == [j for j, score in enumerate(scores) if score >= lowest]


# ---- `exp` ----


def test_exp_weight_against_float64(prove: Callable[..., None]) -> None:
    """At most 1.09 % (a step of 1/64) too large, and at most 1.5 units of 2^-15 off otherwise."""

    def check(row: list[float], scale: float) -> None:
        bits = bf16([row])
        register = Scale.from_float(scale)
        weights = wtu.transform(wtu.fixed_point(bits), Rule(0, Transform.EXP, scale=register))[0]
        e = row_exponent(bits[0].tolist())
        real = np.floor(bits[0].view(bfloat16).astype(np.float64) * 2.0 ** (14 - e)) * 2.0 ** (e - 14)
        exponent = (real.max() - real) * register.mantissa * 2.0 ** (register.exponent - 15)
        ideal = 32768 * 2.0**-exponent
        assert (weights <= ideal * 1.0109 + 0.5).all()
        assert (weights >= ideal - 1.5).all()
        assert weights.max() == 32768

    prove(
        check,
        examples=100,
        row=st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=30),
        scale=st.floats(0.001, 10),
    )


@pytest.mark.parametrize("exponent", range(-128, 8))
def test_exp_at_every_exponent_of_the_scale(exponent: int) -> None:
    """The widest product, against every shift: from no weight but the top's down to all the same."""
    row, scale = [0x407F, 0xC07F, MINUS_INF, 0x407E], Scale(0xFFFF, exponent)
    got = wtu.transform(
        wtu.fixed_point(np.array([row], dtype=np.uint16)), Rule(0, Transform.EXP, scale=scale)
    )
    assert got[0].tolist() == weights_per_token(row, Transform.EXP, scale)


@pytest.mark.parametrize(
    "scale", [1 / math.sqrt(d) for d in (32, 64, 128, 256)] + [0.0, 1.0, 1e-30, 1e30, 0.6931471805599453]
)
def test_scale_register_is_nearest(scale: float) -> None:
    got = Scale.from_float(scale)
    exact = scale / math.log(2)
    assert got.mantissa == 0 if scale == 0 else 0x8000 <= got.mantissa <= 0xFFFF
    assert got.mantissa * 2.0 ** (got.exponent - 15) == pytest.approx(exact, rel=2.0**-17 * (1 + 1e-9), abs=0)


@pytest.mark.parametrize("scale", [-1.0, -1e-30, math.nan, math.inf, -math.inf])
def test_scale_must_be_finite_and_not_negative(scale: float) -> None:
    with pytest.raises(ValueError, match="must be finite and not negative"):
        Scale.from_float(scale)


@pytest.mark.parametrize("scale", [1e39, 1e308, 1e-39, 5e-324])
def test_scale_outside_the_register(scale: float) -> None:
    with pytest.raises(ValueError, match="outside the register's range"):
        Scale.from_float(scale)


def test_scale_rounds_up_to_the_next_power_of_two() -> None:
    just_below = 2.0 * (1 - 2.0**-20) / math.log2(math.e)
    assert Scale.from_float(just_below) == Scale(0x8000, 1)


# ---- Against a real-valued WiCSum in float64, which knows nothing of fixed point ----


def float64_wicsum(scores: np.ndarray, counts: np.ndarray, th_r: float, transform: Transform) -> np.ndarray:
    """The paper's rule on real numbers: descending scores until the weighted sum passes Th_r of the whole."""
    weights = (scores - scores.min() if transform == Transform.SHIFT else scores) * counts
    order = np.argsort(-scores, kind="stable")
    passed = np.flatnonzero(np.cumsum(weights[order]) > th_r * weights.sum())
    taken = np.zeros(len(scores), dtype=bool)
    taken[order[: passed[0] + 1 if len(passed) else None]] = True
    return taken


@pytest.mark.parametrize("transform", [Transform.RAW, Transform.SHIFT])
def test_agreement_with_float64(transform: Transform) -> None:
    """At least 99.9 % of the rows; a row that differs passes the threshold within the rounding of u."""
    rng = np.random.default_rng(17)
    rows, differing = 0, 0
    th_r = ratio(0.3)
    for _ in range(60):
        n = int(rng.integers(10, 1250))
        query, keys = rng.standard_normal((40, 32)), rng.standard_normal((n, 32)) + 0.5
        bits = bf16(query @ keys.T * 2)
        counts = rng.integers(1, 20, n)
        model = wtu.select(bits, counts, Rule(th_r, transform)).rows
        for row_bits, got in zip(bits, model, strict=True):
            scores = row_bits.view(bfloat16).astype(np.float64)
            if transform == Transform.RAW and (scores * counts).sum() <= 0:
                continue
            rows += 1
            differing += not np.array_equal(got, float64_wicsum(scores, counts, th_r / 65536, transform))
            assert_margin_is_rounding(scores, counts, th_r / 65536, transform, got)
    print(f"seed 17, {transform.name}: {differing} of {rows} rows differ from float64")
    assert rows > 1000
    assert differing <= rows / 1000


def assert_margin_is_rounding(
    scores: np.ndarray, counts: np.ndarray, th_r: float, transform: Transform, got: np.ndarray
) -> None:
    """The set passes the real threshold and without its last cluster does not, within one unit of u."""
    unit = 2.0 ** (math.frexp(float(np.abs(scores).max()))[1] - 15)
    weights = (scores - scores.min() if transform == Transform.SHIFT else scores) * counts
    slack = unit * counts.sum() * 2
    last = np.flatnonzero(got & (scores == scores[got].min()))[-1]
    acc, threshold = weights[got].sum(), th_r * weights.sum()
    assert acc > threshold - slack
    assert acc - weights[last] <= threshold + slack
