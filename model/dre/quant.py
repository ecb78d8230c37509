"""Quantised copies of Key_cluster for SCORE: signed integer codes with one BF16 scale a group."""

import numpy as np

from vrex.model.lib import arith

BITS = (8, 4)
"""Widths of a code, sign included."""
SMALLEST_SCALE = np.float32(2.0**-126)


def quantise(values: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes of groups, symmetric about 0.

    With top = 2^(bits - 1) - 1: scale = bf16(largest magnitude * fp32(1 / top)), a scale below 2^-126 becomes
    +0; code = value * fp32(1 / scale) to the nearest integer, ties to even. As the scale is at most 2^-8
    short, no code is beyond -top..top. FP32 RNE at each operation. Where the scale is 0 all codes are 0;
    where a value is not finite the scale is NaN and all codes are 0.

    Args:
        values: BF16 bits, uint16 [..., group].
        bits: of a code, one of `BITS`.

    Returns:
        Codes, int8 [..., group], and scales, BF16 bits uint16 [...].
    """
    top = (1 << bits - 1) - 1
    x = arith.from_bf16(values)
    finite = np.asarray(np.isfinite(x).all(axis=-1))
    x = np.where(finite[..., None], x, np.float32(0))
    scales = arith.round_bf16(np.abs(x).max(axis=-1) * (np.float32(1) / np.float32(top)))
    scales = np.where(scales < SMALLEST_SCALE, np.float32(0), scales)
    reciprocals = np.divide(np.float32(1), scales, out=np.zeros_like(scales), where=scales > 0)
    codes = np.rint(x * reciprocals[..., None]).astype(np.int8)
    return codes, np.where(finite, arith.to_bf16(scales), np.uint16(arith.NAN))


def dequantise(codes: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """What SCORE multiplies with: bf16(code * scale), the product in FP32, where it is exact.

    Args:
        codes: int8 [..., group].
        scales: BF16 bits, uint16 [...].

    Returns:
        BF16 bits, uint16 [..., group].
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return arith.to_bf16(codes.astype(np.float32) * arith.from_bf16(scales)[..., None])


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes as memory holds them: of 4 bits two in a byte, the first in the lower half.

    Args:
        codes: int8 [..., group], the group even.
        bits: of a code.

    Returns:
        uint8 [..., group * bits / 8].
    """
    raw = codes.view(np.uint8)
    return raw if bits == 8 else raw[..., 0::2] & 15 | raw[..., 1::2] << 4


def unpack(packed: np.ndarray, bits: int) -> np.ndarray:
    """Inverse of `pack`."""
    if bits == 8:
        return packed.view(np.int8)
    # Shifted up and down again, so that the sign comes along.
    *rows, size = packed.shape
    halves = np.stack([packed << 4, packed & 0xF0], axis=-1).reshape(*rows, 2 * size)
    return halves.view(np.int8) >> 4


def nbytes(values: int, groups: int, bits: int) -> int:
    """Storage of a quantised copy: codes, packed, and scales."""
    return (values * bits + 7) // 8 + groups * 2
