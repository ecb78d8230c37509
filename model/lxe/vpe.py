"""Vector engine of the LXE: FP32 operations on rows, and the programs made of them (paper Section V-A).

Every operation is defined bit by bit: IEEE 754 binary32, one rounding to nearest even, subnormals and signed
zeros kept, every NaN that comes out 0x7FC00000. `exp`, `recip` and `rsqrt` are fixed sequences of fused
multiply-adds around small tables, so even their last bits are defined. Values are float32 here; BF16 operands
are widened before an operation and results rounded after it (`vrex.model.lib.arith`).
"""

from collections.abc import Callable
from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike

from vrex.model.lib import arith
from vrex.model.lib.layout import Field, Layout

COMMAND = Layout(
    "VPE_COMMAND",
    (
        Field("opcode", 8, "operation (`vrex.model.lxe.vpe.Function`)"),
        Field("bf16", 4, "a, b, c and the result are BF16, else FP32; from bit 0"),
        Field("scalar", 2, "b and c are one element for each row; from bit 0"),
        Field("unused", 2, "ignored"),
        Field("length", 24, "elements of a row, at least 1"),
        Field("rows", 16, "at least 1"),
    ),
)
"""One operation on rows, one after the other."""

DONE = Layout(
    "VPE_DONE",
    (
        Field("status", 2, "OK 0, BAD_OPCODE 1, BAD_LENGTH 2"),
        Field("nan", 1, "a result was NaN (SIGN: an operand)"),
    ),
)
"""The end of an operation."""

ACCUMULATORS = 64
"""Partial sums of a reduction: part of the numerics, not the number of lanes."""

HASH_WORD_BITS = 32
"""Bits that SIGN packs into one element of its result."""

MAX_LENGTH = (1 << 24) - 1
"""Elements of the longest row."""

NAN = 0x7FC0_0000
_SIGN = np.uint32(0x8000_0000)
_EXPONENT = np.uint32(0x7F80_0000)
_FRACTION = np.uint32(0x007F_FFFF)


class Function(IntEnum):
    """What the unit computes, by opcode; every other opcode is reserved."""

    FMA = 0
    FNMA = 1
    MUL = 2
    ADD = 3
    SUB = 4
    MAX = 5
    COPY = 6
    SIGN = 7
    RSUM = 8
    RMAX = 9
    EXP = 10
    RECIP = 11
    RSQRT = 12


OPERANDS = {
    Function.FMA: "abc",
    Function.FNMA: "abc",
    Function.MUL: "ab",
    Function.ADD: "ac",
    Function.SUB: "ac",
    Function.MAX: "ac",
}
"""Operand streams of the operations that take more than `a`."""

REDUCTIONS = (Function.RSUM, Function.RMAX)
"""Operations of one result a row."""

PASSES = {Function.EXP: 9, Function.RECIP: 6, Function.RSQRT: 8}
"""Fused multiply-adds that an element takes one after another; 1 in the other operations."""


class Status(IntEnum):
    """How a command ended."""

    OK = 0
    BAD_OPCODE = 1
    BAD_LENGTH = 2


def status(opcode: int, length: int, rows: int = 1) -> Status:
    """How a command ends; one that is not OK takes no operand and gives no result."""
    if opcode not in Function.__members__.values():
        return Status.BAD_OPCODE
    return Status.OK if length and rows else Status.BAD_LENGTH


def to_bits(values: ArrayLike) -> np.ndarray:
    """Bits of FP32 values: uint32 of the same shape."""
    return np.asarray(values, dtype=np.float32).view(np.uint32)


def _from_bits(bits: ArrayLike) -> np.ndarray:
    return np.asarray(bits, dtype=np.uint32).view(np.float32)


def _canonical(values: np.ndarray) -> np.ndarray:
    """The values with every NaN replaced by `NAN`."""
    return np.where(np.isnan(values), _from_bits(NAN), values)


def fma(a: ArrayLike, b: ArrayLike, c: ArrayLike) -> np.ndarray:
    """A * b + c with one rounding.

    The product is exact in float64; the sum is rounded to odd there, which the rounding to float32 does not
    notice (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", 2008).

    Args:
        a, b, c: float32, of shapes that broadcast.

    Returns:
        float32.
    """
    with np.errstate(all="ignore"):
        product = np.asarray(a, dtype=np.float64) * np.asarray(b, dtype=np.float64)
        addend = np.asarray(c, dtype=np.float64)
        total = np.asarray(product + addend)
        # What the sum has lost (Knuth's TwoSum); NaN where something is infinite, which then is exact.
        other = total - product
        lost = (product - (total - other)) + (addend - other)
        inexact = (lost != 0) & np.isfinite(total) & np.isfinite(lost)
        pattern = np.array(total).view(np.int64)
        outward = (lost > 0) == (total > 0)
        odd = np.where(outward, pattern | 1, pattern - 1 | 1)
        pattern = np.where(inexact & (pattern & 1 == 0), odd, pattern)
        return _canonical(pattern.view(np.float64).astype(np.float32))


def fnma(a: ArrayLike, b: ArrayLike, c: ArrayLike) -> np.ndarray:
    """C - a * b with one rounding; arguments as of `fma`."""
    return fma(-np.asarray(a, dtype=np.float32), b, c)


def mul(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    """A * b."""
    # A sum with -0 is what it was, whatever its sign.
    return fma(a, b, np.float32(-0.0))


def add(a: ArrayLike, c: ArrayLike) -> np.ndarray:
    """A + c."""
    return fma(a, np.float32(1), c)


def sub(a: ArrayLike, c: ArrayLike) -> np.ndarray:
    """A - c."""
    return fma(a, np.float32(1), -np.asarray(c, dtype=np.float32))


def copy(a: ArrayLike) -> np.ndarray:
    """A, with every NaN replaced by `NAN`; used to convert a row's format."""
    return fma(a, np.float32(1), np.float32(-0.0))


def maximum(a: ArrayLike, c: ArrayLike) -> np.ndarray:
    """The larger one: +0 is larger than -0, and NaN if either is NaN (IEEE 754-2019 `maximum`)."""
    left, right = to_bits(copy(a)), to_bits(copy(c))
    # Sign and magnitude as integers that are ordered as the values are.
    keys = [np.where(x & _SIGN, ~x, x | _SIGN) for x in (left, right)]
    larger = _from_bits(np.where(keys[0] > keys[1], left, right))
    return np.where(np.isnan(_from_bits(left)), _from_bits(left), larger)


def sign(a: np.ndarray) -> np.ndarray:
    """Hash-bits: bit i is 1 iff a[i] > 0, so 0 for either zero and for NaN.

    Args:
        a: float32 [n].

    Returns:
        uint32 [ceil(n / 32)]; bit i is bit i mod 32 of word i div 32, those from n on are 0.
    """
    positive = np.zeros(-(-len(a) // HASH_WORD_BITS) * HASH_WORD_BITS, dtype=np.uint8)
    positive[: len(a)] = np.asarray(a, dtype=np.float32) > 0
    return np.packbits(positive, bitorder="little").view("<u4").astype(np.uint32)


def _reduce(a: np.ndarray, join: Callable[..., np.ndarray], identity: float) -> np.ndarray:
    """Element i into accumulator i mod 64 in ascending order, then a balanced tree, neighbours first."""
    row = copy(a)
    rows = -(-row.shape[-1] // ACCUMULATORS)
    padded = np.full((*row.shape[:-1], rows * ACCUMULATORS), identity, dtype=np.float32)
    padded[..., : row.shape[-1]] = row
    words = padded.reshape(*row.shape[:-1], rows, ACCUMULATORS)
    total = words[..., 0, :]
    for i in range(1, rows):
        total = join(words[..., i, :], total)
    while total.shape[-1] > 1:
        total = join(total[..., 0::2], total[..., 1::2])
    return total[..., 0]


def rsum(a: np.ndarray) -> np.ndarray:
    """Sum over the last axis, in the unit's order.

    Element i is added to accumulator i mod 64, in ascending order; a balanced tree adds the accumulators up,
    2i and 2i + 1 first. One without an element is -0.

    Args:
        a: float32 [..., n], n at least 1.

    Returns:
        float32 [...].
    """
    return _reduce(a, add, -0.0)


def rmax(a: np.ndarray) -> np.ndarray:
    """Largest value of the last axis (`maximum`): float32 [..., n], n at least 1, to [...]."""
    return _reduce(a, maximum, -np.inf)


def _power_of_two(exponent: ArrayLike) -> np.ndarray:
    """2^exponent for -126 <= exponent <= 127."""
    return _from_bits((np.asarray(exponent) + 127).astype(np.uint32) << 23)


def _scale(values: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    """Values near 1 times 2^exponent, -200 <= exponent <= 200, rounded once: halves of it one by one."""
    low = exponent >> 1
    # The first product is exact: in hardware a sum of exponents.
    return mul(values * _power_of_two(exponent - low), _power_of_two(low))


EXP_BITS = 5
"""Bits of the index of `EXP_TABLE`: exp works in steps of 2^(1/32)."""

EXP_TABLE = np.exp2(np.arange(1 << EXP_BITS) / (1 << EXP_BITS)).astype(np.float32)
"""2^(j / 32)."""

_STEPS = (1 << EXP_BITS) / np.log(2.0)
EXP_STEPS = np.float32(_STEPS)
"""Steps of one unit of x: 32 / ln 2."""

EXP_STEPS_LOW = np.float32(_STEPS - float(EXP_STEPS))
"""The rounding error of `EXP_STEPS`."""

EXP_MAGIC = np.float32(1.5 * 2**23)
"""A number whose last bit has weight 1: adding it rounds to an integer."""

EXP_TERMS = tuple(
    np.float32((np.log(2.0) / (1 << EXP_BITS)) ** i / factorial) for i, factorial in ((1, 1), (2, 2), (3, 6))
)
"""2^(r / 32) - 1 = r (t1 + r (t2 + r t3)) + what is below 2^-30, |r| <= 1/2."""

EXP_LIMIT = np.float32(128)
"""Larger magnitudes count as this one: the result is an infinity or a zero all the same."""


def exp(a: ArrayLike) -> np.ndarray:
    """e^a within 1.1 units in the last place, subnormal results included.

    exp(NaN) is NaN, exp(-inf) +0, exp(+inf) +inf.

    Args:
        a: float32, any shape.

    Returns:
        float32, the same shape.
    """
    x = np.asarray(a, dtype=np.float32)
    x = np.where(np.abs(x) >= EXP_LIMIT, np.copysign(EXP_LIMIT, x), x)
    rounded = fma(x, EXP_STEPS, EXP_MAGIC)
    whole = sub(rounded, EXP_MAGIC)
    rest = fma(x, EXP_STEPS_LOW, fma(x, EXP_STEPS, -whole))
    series = fma(fma(rest, EXP_TERMS[2], EXP_TERMS[1]), rest, EXP_TERMS[0])
    steps = to_bits(rounded).astype(np.int64) - int(to_bits(EXP_MAGIC))
    steps = np.where(np.isnan(x), 0, steps)
    table = EXP_TABLE[steps % (1 << EXP_BITS)]
    return _scale(fma(table, mul(series, rest), table), steps >> EXP_BITS)


SEED_BITS = 7
"""Bits of a seed's index."""


def _seeds(values: np.ndarray) -> np.ndarray:
    """Seeds in units of 2^-9, as float32."""
    return (np.rint(values * 2.0 ** (SEED_BITS + 2)) / 2.0 ** (SEED_BITS + 2)).astype(np.float32)


RECIP_SEEDS = _seeds(1 / (1 + (np.arange(1 << SEED_BITS) + 0.5) / (1 << SEED_BITS)))
"""1 / m by the top 7 bits of the fraction of m, 1 <= m < 2."""

_HALF = 1 + (np.arange(1 << SEED_BITS - 1) + 0.5) / (1 << SEED_BITS - 1)
RSQRT_SEEDS = _seeds(1 / np.sqrt(np.concatenate([_HALF * 2, _HALF])))
"""1 / sqrt(m) by the lowest bit of the exponent field and the top 6 bits of the fraction, 1 <= m < 4.

An even field is an odd exponent: m is at least 2.
"""

LIFT = 24
"""Subnormal operands are first multiplied by 2^24."""


def _lift(a: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bits of the operand made normal, its exponent field, and its exponent (of the operand itself)."""
    bits = to_bits(a)
    lift = np.where(bits & _EXPONENT, 0, LIFT)
    lifted = to_bits(mul(a, _power_of_two(lift)))
    field = (lifted >> np.uint32(23) & np.uint32(255)).astype(np.int64)
    return lifted, field, field - 127 - lift


def recip(a: ArrayLike) -> np.ndarray:
    """1 / a within 1 unit in the last place: a seed of 7 bits and two of Newton's steps.

    recip(+-0) is +-inf, recip(+-inf) +-0.

    Args:
        a: float32, any shape.

    Returns:
        float32, the same shape.
    """
    bits, _, exponent = _lift(a)
    m = _from_bits(bits & _FRACTION | np.uint32(127 << 23))
    y = RECIP_SEEDS[(bits & _FRACTION) >> np.uint32(23 - SEED_BITS)]
    for _ in range(2):
        y = fma(y, fma(-m, y, np.float32(1)), y)
    magnitude = to_bits(_scale(y, -exponent))
    magnitude = np.where(bits & ~_SIGN, magnitude, _EXPONENT)
    magnitude = np.where(bits & ~_SIGN == _EXPONENT, 0, magnitude)
    result = _from_bits(magnitude | bits & _SIGN)
    return np.where(np.isnan(a), _from_bits(NAN), result)


def rsqrt(a: ArrayLike) -> np.ndarray:
    """1 / sqrt(a) within 1.1 units in the last place: a seed of 7 bits and two of Newton's steps.

    rsqrt(+-0) is +-inf, rsqrt(+inf) +0, NaN below zero.

    Args:
        a: float32, any shape.

    Returns:
        float32, the same shape.
    """
    bits, field, exponent = _lift(a)
    odd = field & 1
    half = _from_bits(bits & _FRACTION | ((127 - odd) << 23).astype(np.uint32))
    top = (bits & _FRACTION) >> np.uint32(24 - SEED_BITS)
    y = RSQRT_SEEDS[odd << SEED_BITS - 1 | top]
    for _ in range(2):
        y = fma(y, fma(-half, mul(y, y), np.float32(0.5)), y)
    result = _scale(y, -(exponent >> 1))
    result = np.where(bits & ~_SIGN, result, _from_bits(bits & _SIGN | _EXPONENT))
    result = np.where(bits == _EXPONENT, np.float32(0), result)
    wrong = np.isnan(a) | ((bits & _SIGN != 0) & (bits & ~_SIGN != 0))
    return np.where(wrong, _from_bits(NAN), result)


OPERATIONS: dict[Function, Callable[..., np.ndarray]] = {
    Function.FMA: fma,
    Function.FNMA: fnma,
    Function.MUL: mul,
    Function.ADD: add,
    Function.SUB: sub,
    Function.MAX: maximum,
    Function.COPY: copy,
    Function.RSUM: lambda a: rsum(a)[..., None],
    Function.RMAX: lambda a: rmax(a)[..., None],
    Function.EXP: exp,
    Function.RECIP: recip,
    Function.RSQRT: rsqrt,
}
"""What every operation but SIGN computes: float32 rows to float32 rows."""


def softmax_row(scores: np.ndarray, scale: float) -> np.ndarray:
    """Program: softmax of scale * scores over the last axis.

    MUL by the scale, RMAX, SUB of it, EXP, RSUM, RECIP of one element, MUL by it.

    Args:
        scores: BF16 bits, uint16 [..., n].
        scale: positive, rounded to FP32.

    Returns:
        BF16 bits, uint16 [..., n].
    """
    scaled = mul(arith.from_bf16(scores), np.float32(scale))
    powers = exp(sub(scaled, rmax(scaled)[..., None]))
    return arith.to_bf16(mul(powers, recip(rsum(powers))[..., None]))


def rms_norm(x: np.ndarray, weight: np.ndarray, epsilon: float) -> np.ndarray:
    """Program: x / sqrt(mean(x^2) + epsilon) * weight over the last axis.

    MUL by itself, RSUM, FMA with 1/n and epsilon on one element, RSQRT of it, MUL by it, MUL by the weight.

    Args:
        x: BF16 bits, uint16 [..., n].
        weight: BF16 bits, uint16 [n].
        epsilon: rounded to FP32.

    Returns:
        BF16 bits, uint16 [..., n].
    """
    row = arith.from_bf16(x)
    mean = fma(rsum(mul(row, row)), np.float32(1 / row.shape[-1]), np.float32(epsilon))
    return arith.to_bf16(mul(mul(row, rsqrt(mean)[..., None]), arith.from_bf16(weight)))


def silu(x: np.ndarray) -> np.ndarray:
    """Program: x / (1 + e^-x).

    MUL by -1, EXP, ADD of 1, RECIP, MUL by x. Below -88.8 e^-x leaves FP32 and the result is -0; that of -inf
    is NaN.

    Args:
        x: BF16 bits, uint16, any shape.

    Returns:
        BF16 bits, uint16, the same shape.
    """
    row = arith.from_bf16(x)
    return arith.to_bf16(mul(row, recip(add(exp(mul(row, np.float32(-1))), np.float32(1)))))


def rope(x: np.ndarray, cosine: np.ndarray, sine: np.ndarray) -> np.ndarray:
    """Program: rotation of the pairs (x[i], x[i + n/2]) by the angles whose cosine and sine are given.

    On halves of the row: MUL by the sine, which the caller gives negated for the first half, then FMA by the
    cosine.

    Args:
        x: BF16 bits, uint16 [..., n], n even.
        cosine, sine: float32 [..., n/2].

    Returns:
        BF16 bits, uint16 [..., n].
    """
    first, second = np.split(arith.from_bf16(x), 2, axis=-1)
    turned = [
        fma(first, cosine, mul(second, -np.asarray(sine))),
        fma(second, cosine, mul(first, sine)),
    ]
    return arith.to_bf16(np.concatenate(turned, axis=-1))
