"""ReSV's steps on torch tensors, on any device.

Clustering, means and selection are the golden model's bit by bit (`vrex.model`: `hcu`, `mean`, `wtu`), given
the same bits and BF16 scores. Projections and scores are torch's own FP32 matrix products, which add up in
another order than the model's trees; so now and then a hash-bit or the last bit of a score differs.
"""

import numpy as np
import torch

from vrex.model.dre.wtu import (
    EXP_INDEX_BITS,
    EXP_SATURATED,
    EXP_TABLE,
    FRACTION_BITS,
    TH_R_BITS,
    Rule,
    Selection,
    Transform,
)

_NONE = -(1 << 20)
"""Below every u."""


def bf16_from_bits(bits: np.ndarray, device: torch.device) -> torch.Tensor:
    """BF16 bits, uint16, as a bfloat16 tensor of the same shape."""
    return torch.from_numpy(bits.astype(np.int16)).to(device).view(torch.bfloat16)


def hash_bits(keys: torch.Tensor, planes: torch.Tensor) -> torch.Tensor:
    """Whether each projection is positive.

    Args:
        keys: bfloat16 [n, dim].
        planes: bfloat16 [n_hp, dim].

    Returns:
        bool [n, n_hp].
    """
    return keys.float() @ planes.float().T > 0


def hamming(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Distances of hashes, bool [n, bits] and [m, bits], as int64 [n, m]."""
    signs = [2 * bits.float() - 1 for bits in (left, right)]
    return ((left.shape[1] - signs[0] @ signs[1].T) / 2).long()


def cluster(
    tokens: torch.Tensor, founders: torch.Tensor, counts: torch.Tensor, th_hd: int, max_count: int
) -> torch.Tensor:
    """The cluster of each token, in order (model `vrex.model.dre.hctable`, one token at a time).

    Args:
        tokens: hashes, bool [n, bits].
        founders: hashes of the clusters, bool [C, bits].
        counts: members of the clusters, int64 [C]; one of `max_count` takes no more.
        th_hd: a token joins the nearest cluster below this distance, the first of equals.
        max_count: members of a closed cluster.

    Returns:
        int64 [n] on the CPU; C, C + 1, ... are clusters that tokens open.
    """
    known, n, far = len(founders), len(tokens), tokens.shape[1] + 1
    # Every token may open a cluster: columns of distances to all clusters there are or could be.
    distances = hamming(tokens, torch.cat([founders, tokens])).cpu()
    members = torch.cat([counts.cpu(), torch.zeros(n, dtype=torch.int64)])
    founder_of = torch.arange(known + n)
    order = torch.arange(known + n)
    is_open = torch.cat([members[:known] < max_count, torch.zeros(n, dtype=torch.bool)])
    opened = 0
    chosen = torch.empty(n, dtype=torch.int64)
    for i in range(n):
        row = torch.where(is_open, distances[i, founder_of], far)
        best = int((row * (known + n) + order).argmin()) if known + n else 0
        if int(row[best]) >= min(th_hd, far):
            best = known + opened
            founder_of[best] = known + i
            is_open[best] = True
            opened += 1
        members[best] += 1
        is_open[best] = bool(members[best] < max_count)
        chosen[i] = best
    return chosen


def update_mean(mean: torch.Tensor, key: torch.Tensor, count: int) -> torch.Tensor:
    """A mean after one more key (model `vrex.model.dre.mean`), bfloat16 [dim].

    Args:
        mean: bfloat16 [dim]; does not matter for a first key.
        key: bfloat16 [dim].
        count: members including the new one.
    """
    if count == 1:
        return key
    m = mean.float()
    reciprocal = torch.tensor(1.0, dtype=torch.float32) / count
    # Each operation is rounded by itself: a fused multiply-add would give other means.
    step = (key.float() - m) * reciprocal.to(m.device)
    return _bf16(m + step)


def _bf16(values: torch.Tensor) -> torch.Tensor:
    """float32 to bfloat16, every NaN the contract's 0x7FC0."""
    quiet = torch.tensor(float("nan"), dtype=torch.bfloat16, device=values.device)
    return torch.where(values.isnan(), quiet, values.to(torch.bfloat16))


def select(scores: torch.Tensor, counts: torch.Tensor, rule: Rule) -> tuple[torch.Tensor, int]:
    """Selects clusters row by row (model `vrex.model.dre.wtu.select`).

    Args:
        scores: bfloat16 [rows, n].
        counts: token counts, int64 [n].
        rule: registers.

    Returns:
        bool [rows, n], and the number of `raw` rows whose sum was not positive.
    """
    if scores.shape[1] == 0:
        return torch.zeros(scores.shape, dtype=torch.bool, device=scores.device), 0
    u, nan, exponent = _fixed_point(scores)
    weights = _weights(u, nan, exponent, rule) * counts
    total = weights.sum(1, keepdim=True)
    high, low = total >> TH_R_BITS, total & ((1 << TH_R_BITS) - 1)
    threshold = high * rule.th_r + ((low * rule.th_r) >> TH_R_BITS)
    if rule.selection == Selection.EXACT:
        chosen = _exact(u, nan, weights, threshold)
    else:
        chosen = _buckets(u, nan, weights, threshold, rule.buckets)
    degenerate = 0
    if rule.transform == Transform.RAW:
        hopeless = total <= 0
        top = _first_maximum(torch.where(nan, _NONE, u))
        alone = torch.zeros_like(chosen).scatter_(1, top, True)
        chosen = torch.where(hopeless, alone, chosen)
        degenerate = int(hopeless.sum())
    return chosen & ~nan, degenerate


def _fixed_point(scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Integers u [rows, n], NaN [rows, n] and exponents [rows, 1] of `vrex.model.dre.wtu.fixed_point`."""
    bits = scores.contiguous().view(torch.int16).long() & 0xFFFF
    exponent, fraction = (bits >> 7) & 0xFF, bits & 0x7F
    special = exponent == 0xFF
    significand = torch.where(exponent > 0, fraction | 0x80, fraction)
    exponent = exponent.clamp(min=1)
    largest = torch.where(special, 1, exponent).amax(1, keepdim=True)
    negative = bits & 0x8000 != 0
    signed = torch.where(negative, -significand, significand) << (FRACTION_BITS - 7)
    u = signed >> (largest - exponent).clamp(0, 16)
    saturated = torch.where(negative, -(1 << 15), (1 << 15) - 1)
    nan = special & (fraction != 0)
    return torch.where(nan, 0, torch.where(special, saturated, u)), nan, largest


def _extreme(u: torch.Tensor, nan: torch.Tensor, sign: int) -> torch.Tensor:
    """Largest (sign 1) or smallest (-1) u of each row that is not NaN, 0 if none; int64 [rows, 1]."""
    best = torch.where(nan, _NONE, sign * u).amax(1, keepdim=True)
    return torch.where(best == _NONE, 0, sign * best)


def _weights(u: torch.Tensor, nan: torch.Tensor, exponent: torch.Tensor, rule: Rule) -> torch.Tensor:
    """Weight per token of every score, int64 [rows, n] (`vrex.model.dre.wtu.transform`)."""
    if rule.transform == Transform.RAW:
        weight = u
    elif rule.transform == Transform.SHIFT:
        weight = u - _extreme(u, nan, -1)
    else:
        product = (_extreme(u, nan, 1) - u) * rule.scale.mantissa
        shift = 15 - EXP_INDEX_BITS - rule.scale.exponent - (exponent - 127 - FRACTION_BITS)
        x = torch.where(shift > 0, product >> shift.clamp(0, 40), product).clamp(0, EXP_SATURATED)
        table = torch.from_numpy(np.asarray(EXP_TABLE, dtype=np.int64)).to(u.device)
        weight = table[x & ((1 << EXP_INDEX_BITS) - 1)] >> (x >> EXP_INDEX_BITS)
    return torch.where(nan, 0, weight)


def _first_maximum(values: torch.Tensor) -> torch.Tensor:
    """Index of each row's first maximum, int64 [rows, 1]; torch promises no order among equals."""
    n = values.shape[1]
    index = torch.arange(n, device=values.device)
    return (values * n - index).argmax(1, keepdim=True)


def _exact(
    u: torch.Tensor, nan: torch.Tensor, weights: torch.Tensor, threshold: torch.Tensor
) -> torch.Tensor:
    """Smallest prefix in descending u, the first of equals first, whose weight passes the threshold."""
    order = torch.sort(u, dim=1, descending=True, stable=True).indices
    sums = weights.gather(1, order).cumsum(1)
    # A prefix is taken as long as none before it had passed.
    passed_before = torch.nn.functional.pad((sums > threshold).long(), (1, 0))[:, :-1].cumsum(1) > 0
    return torch.zeros_like(nan).scatter_(1, order, ~passed_before)


def _buckets(
    u: torch.Tensor, nan: torch.Tensor, weights: torch.Tensor, threshold: torch.Tensor, buckets: int
) -> torch.Tensor:
    """Whole buckets from the top until the threshold is passed."""
    low = _extreme(u, nan, -1)
    span_bits = torch.frexp((_extreme(u, nan, 1) - low).double()).exponent
    digit = (u - low) >> (span_bits.long() - (buckets.bit_length() - 1)).clamp(min=0)
    chosen = torch.zeros_like(nan)
    is_open = torch.ones_like(threshold, dtype=torch.bool)
    for bucket in range(buckets - 1, -1, -1):
        at_least = digit >= bucket
        chosen |= at_least & is_open
        is_open &= torch.where(at_least & ~nan, weights, 0).sum(1, keepdim=True) <= threshold
    return chosen
