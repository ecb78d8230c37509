"""Binary codes of keys: sign bits of the rotated, centred key with one scale, and votes by softmax weights.

The rule of policy `resv-bits`, per KV head. A key k is stored as the signs b of R x, x = k - mu, and the
scale f = |x|^2 / sum |R x|, so that f sum_i b_i (R q)_i estimates q . x (Gao and Long, "RaBitQ", SIGMOD
2024). R is a Hadamard matrix with random signs: its rows are orthogonal and hold +-1 only, so rotating takes
additions. No score has the part q . mu, which is the same for all keys of a row and cancels in a softmax.
Every step is one of the LXE, the quantiser or the WTU, with the rounding of the numeric contract.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from vrex.model.dre import hadamard, hashing, quant, wtu
from vrex.model.dre.wtu import Rule, Scale, Transform
from vrex.model.lib import arith
from vrex.model.lxe import mac_tree, vpe

ONE = np.uint16(0x3F80)
"""BF16 bits of 1."""

QUERY_BITS = 8
"""Of a component of a rotated query."""

RECIPROCAL_BITS, SHARE_BITS = 40, 24
"""1 / sum of a row's weights has units of 2^-40, a token's share of the row 2^-24."""

NO_VOTE = -1
"""Vote for a token whose code is NaN: below all others, and never selected."""


@dataclass(frozen=True)
class Codes:
    """Coded keys of one KV head, in token order.

    Attributes:
        words: sign bits as hash words, uint32 [n, ceil(bits / 32)].
        scales: BF16 bits, uint16 [n]; NaN where a key is not finite, 0 where it is the centre.
    """

    words: np.ndarray
    scales: np.ndarray


@lru_cache(maxsize=1024)
def planes(seed: int, layer: int, head: int, bits: int, dim: int) -> np.ndarray:
    """The rows of R for one KV head.

    With n the power of two that is at least dim, rows j * n .. j * n + n - 1 are those of the Hadamard matrix
    of order n in Sylvester's order, their first dim columns times signs of their own.

    Args:
        seed, layer, head: of the signs, numpy's PCG64([seed, layer, head, j]).
        bits: number of rows.
        dim: head_dim.

    Returns:
        BF16 bits of 1 and -1, uint16 [bits, dim]. Row i does not depend on `bits`.
    """
    matrix = hadamard.sylvester(1 << (dim - 1).bit_length())[:, :dim]
    count = -(-bits // len(matrix))
    blocks = [matrix * hadamard.signs(seed, layer, head, block, dim) for block in range(count)]
    rows = arith.to_bf16(np.concatenate(blocks)[:bits].astype(np.float32))
    rows.flags.writeable = False
    return rows


def centre(keys: np.ndarray) -> np.ndarray:
    """Mean of keys: bf16(sum * fp32(1 / n)), the sum a fused dot product with ones.

    Args:
        keys: BF16 bits, uint16 [n, dim], n at least 1.

    Returns:
        BF16 bits, uint16 [dim].
    """
    total = mac_tree.dot_fused(np.ascontiguousarray(keys.T), np.full((1, len(keys)), ONE))[:, 0]
    with np.errstate(invalid="ignore", over="ignore"):
        return arith.to_bf16(total * (np.float32(1) / np.float32(len(keys))))


def centred(keys: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """bf16(k - mu): BF16 bits uint16 [..., dim] and [dim] to [..., dim]."""
    with np.errstate(invalid="ignore", over="ignore"):
        return arith.to_bf16(arith.from_bf16(keys) - arith.from_bf16(mean))


def encode(keys: np.ndarray, rows: np.ndarray) -> Codes:
    """Codes of centred keys.

    Bit i is R_i . x > 0. The scale is bf16(|x|^2 * RECIP(RSUM |R x|)), dot products and operations in FP32; a
    key that is zero has scale +0, one that is not finite, or whose |x|^2 is not, NaN.

    Args:
        keys: x, BF16 bits, uint16 [n, dim].
        rows: of R, as `planes` gives them.
    """
    rotated = mac_tree.dot_fused(keys, rows)
    words = hashing.pack_bits(rotated > 0, len(rows))
    norms = mac_tree.dot_pairs(keys, keys)
    lengths = vpe.rsum(np.abs(rotated))
    scales = vpe.mul(norms, vpe.recip(lengths))
    scales = np.where(lengths == 0, np.float32(0), scales)
    scales = np.where(np.isfinite(norms) & np.isfinite(lengths), scales, np.float32(np.nan))
    return Codes(words, arith.to_bf16(scales))


def rotate(queries: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """R q, rounded to BF16 and quantised to 8 bits with one scale a row of queries (`quant`).

    Args:
        queries: BF16 bits, uint16 [rows, dim].
        rows: of R.

    Returns:
        Components, int8 [rows, bits], and scales, BF16 bits, uint16 [rows].

    Raises:
        ValueError: R has no rows.
    """
    if not len(rows):
        raise ValueError("there are no planes to rotate queries with")
    return quant.quantise(arith.to_bf16(mac_tree.dot_fused(queries, rows)), QUERY_BITS)


def score(components: np.ndarray, scales: np.ndarray, codes: Codes) -> np.ndarray:
    """Estimates of q . x from rotated queries.

    A score is bf16(f * (scale * S)), S the integer sum of the components, each added where the token's bit is
    1 and subtracted where it is 0; both products are FP32, the inner one is exact.

    Args:
        components, scales: as `rotate` gives them.
        codes: of n tokens.

    Returns:
        BF16 bits, uint16 [rows, n].

    Raises:
        ValueError: the codes have another number of bits than there are components.
    """
    bits = components.shape[1]
    words = codes.words.shape[1]
    if words != -(-bits // hashing.WORD_BITS):
        raise ValueError(f"codes of {words} words do not belong to {bits} planes")
    # Sums of at most 128 integers below 128 are exact in FP32.
    sums = components.astype(np.float32) @ _signs(codes.words, bits).T
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = arith.from_bf16(scales)[:, None] * sums
        return arith.to_bf16(arith.from_bf16(codes.scales) * scaled)


def _signs(words: np.ndarray, bits: int) -> np.ndarray:
    """Hash words to float32 [n, bits] of 1 and -1."""
    raw = np.unpackbits(words.astype("<u4").view(np.uint8), axis=1, bitorder="little", count=bits)
    return np.where(raw, np.float32(1), np.float32(-1))


def vote(residents: np.ndarray, scores: np.ndarray, scale: Scale) -> np.ndarray:
    """Sums over the rows of each token's share of its row's softmax.

    A row holds the scores of the resident tokens and of the coded ones; their weights are those of the WTU's
    `exp`, 0 for a NaN. With c = floor(2^40 / sum of the row), a share is floor(weight * c / 2^16).

    Args:
        residents: BF16 bits, uint16 [rows, m], of sinks, window and chunk; NaN where a row must not look.
        scores: BF16 bits, uint16 [rows, n], of the coded tokens.
        scale: what scores are multiplied with before e^x.

    Returns:
        int64 [n], in units of 2^-24 of a row; `NO_VOTE` for a token whose scores are all NaN.
    """
    row = np.concatenate([residents, scores], axis=1)
    rule = Rule(th_r=0, transform=Transform.EXP, scale=scale)
    weights = wtu.transform(wtu.fixed_point(row), rule)
    total = weights.sum(axis=1, keepdims=True)
    reciprocal = (1 << RECIPROCAL_BITS) // np.maximum(total, 1)
    shares = weights[:, residents.shape[1] :] * reciprocal >> RECIPROCAL_BITS - SHARE_BITS
    silent = ((scores & 0x7FFF) > wtu.INFINITY).all(axis=0)
    return np.where(silent, NO_VOTE, shares.sum(axis=0))


def select(votes: np.ndarray, count: int) -> np.ndarray:
    """The tokens with the most votes, ascending, lower ones first on ties: int64, at most `count`."""
    order = np.argsort(-votes, kind="stable")[:count]
    return np.sort(order[votes[order] > NO_VOTE])


def bitmask(chosen: np.ndarray, tokens: int) -> np.ndarray:
    """Numbers of tokens as bool [tokens]."""
    mask = np.zeros(tokens, dtype=bool)
    mask[chosen] = True
    return mask
