"""Scheme `fused` built from the sentences of docs/numerics.md alone, in fractions, against the model.

Readings that the page rules out must differ on the same vectors: else they would not show that it does.
"""

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest

from vrex.model.lxe import mac_tree

NAN, INFINITY = 0x7FC00000, 0x7F800000
W, SEED = 26, 3
SIZES = (1, 3, 64, 65, 130)
SPECIALS, SHARES = (0, 0x3F80, 0x7F80, 0x0001, 0x7F7F, 0x7FC0), (0.06, 0.55, 0.02, 0.3, 0.06, 0.01)


def is_nan(bits: int) -> bool:
    return bits & 0x7F80 == 0x7F80 and bits & 0x7F != 0


def is_infinite(bits: int) -> bool:
    return bits & 0x7FFF == 0x7F80


def value(bits: int) -> Fraction:
    """A finite BF16 number: 8 bits of exponent, 7 of fraction."""
    field, fraction = bits >> 7 & 0xFF, bits & 0x7F
    magnitude = Fraction(fraction + (128 if field else 0), 128) * Fraction(2) ** (max(field, 1) - 127)
    return -magnitude if bits >> 15 else magnitude


def log2_floor(x: Fraction) -> int:
    exponent = x.numerator.bit_length() - x.denominator.bit_length()
    return exponent if Fraction(2) ** exponent <= x else exponent - 1


def exponent(bits: int) -> int:
    return max(log2_floor(abs(value(bits))), -126)


def to_fp32(x: Fraction, negative: bool) -> int:
    """Bits of the nearest FP32 number, ties to even."""
    sign = 0x80000000 if negative else 0
    if x == 0:
        return sign
    at = max(log2_floor(abs(x)), -126)
    units = round(abs(x) / Fraction(2) ** (at - 23))  # Python rounds a half to even
    # A carry out of the fraction moves into the exponent field by itself.
    bits = units if at == -126 else units + (at + 126 << 23)
    return sign | min(bits, INFINITY)


def of_fp32(bits: int) -> Fraction:
    field, fraction = bits >> 23 & 0xFF, bits & 0x7FFFFF
    magnitude = Fraction(fraction + (1 << 23 if field else 0), 1 << 23) * Fraction(2) ** (max(field, 1) - 127)
    return -magnitude if bits >> 31 else magnitude


def add(a: int, b: int) -> int:
    """IEEE 754 addition of FP32 bits."""
    kinds = [x & 0x7FFFFFFF for x in (a, b)]
    if max(kinds) > INFINITY or (kinds == [INFINITY, INFINITY] and a != b):
        return NAN
    for kind, x in zip(kinds, (a, b), strict=True):
        if kind == INFINITY:
            return x
    total = of_fp32(a) + of_fp32(b)
    return to_fp32(total, negative=total < 0 or (total == 0 and a >> 31 == b >> 31 == 1))


def of_operands(x: int, y: int) -> int:
    return exponent(x) + exponent(y)


def of_product(x: int, y: int) -> int:
    return max(log2_floor(abs(value(x) * value(y))), -252)


def down(x: Fraction) -> int:
    return int(abs(x)) * (1 if x > 0 else -1)


def floor(x: Fraction) -> int:
    return x.numerator // x.denominator


def chunk(
    a: list[int],
    b: list[int],
    term: Callable[[int, int], int] = of_operands,
    cut: Callable[[Fraction], int] = down,
) -> int:
    """FP32 bits of one chunk's sum."""
    pairs = list(zip(a, b, strict=True))
    infinite = [pair for pair in pairs if is_infinite(pair[0]) or is_infinite(pair[1])]
    signs = {x >> 15 ^ y >> 15 for x, y in infinite}
    zero_times_infinity = any(0 in (x & 0x7FFF, y & 0x7FFF) for x, y in infinite)
    if any(map(is_nan, a + b)) or zero_times_infinity or len(signs) == 2:
        return NAN
    if infinite:
        return signs.pop() << 31 | INFINITY
    pairs = [pair for pair in pairs if pair[0] & 0x7FFF and pair[1] & 0x7FFF]
    if not pairs:
        return 0
    unit = Fraction(2) ** (max(term(x, y) for x, y in pairs) - W)
    total = sum(cut(value(x) * value(y) / unit) for x, y in pairs)
    return to_fp32(total * unit, negative=total < 0)


def dot(a: list[int], b: list[int], **reading: Callable[..., int]) -> int:
    total: int | None = None
    for at in range(0, len(a), 64):
        part = chunk(a[at : at + 64], b[at : at + 64], **reading)
        total = part if total is None else add(total, part)
    return 0 if total is None else total


def drawn(kind: str, count: int) -> list[tuple[list[int], list[int]]]:
    """Pairs of operands: any bits that are finite, with much to cut, near zero, or all there is."""
    rng = np.random.default_rng([SEED, len(kind)])
    pairs = []
    for i in range(count):
        size = (2, SIZES[i % len(SIZES)])
        sign = rng.integers(0, 2, size) << 15
        bits = {
            "finite": rng.integers(0, 0x7F80, size) | sign,
            "spread": rng.integers(0x3A00, 0x4500, size) | sign,
            "subnormal": np.where(rng.random(size) < 0.5, 0x3F00, 0) + rng.integers(0, 0x200, size) | sign,
            "specials": rng.choice(SPECIALS, size, p=SHARES) | sign,
        }[kind]
        pairs.append((bits[0].tolist(), bits[1].tolist()))
    return pairs


@pytest.mark.parametrize("kind", ["finite", "spread", "subnormal", "specials"])
def test_the_page_gives_the_models_bits(kind: str) -> None:
    results = []
    for a, b in drawn(kind, 100):
        left, right = (np.array([x], dtype=np.uint16) for x in (a, b))
        got = int(mac_tree.dot_fused(left, right, W).view(np.uint32)[0, 0])
        assert got == dot(a, b), (a, b)
        results.append(got)
    assert len(set(results)) > 3
    if kind == "specials":
        assert {NAN, INFINITY, INFINITY | 1 << 31} <= set(results)


@pytest.mark.parametrize(
    "reading", [{"term": of_product}, {"cut": floor}], ids=["exponent of the product", "cut to the floor"]
)
def test_readings_that_the_page_rules_out_differ(reading: dict[str, Callable[..., int]]) -> None:
    pairs = drawn("spread", 100)
    differ = sum(dot(a, b) != dot(a, b, **reading) for a, b in pairs)
    assert differ >= len(pairs) // 20
