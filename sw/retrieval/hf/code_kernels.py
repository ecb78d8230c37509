"""Steps of policy `resv-bits` on torch tensors, on any device.

Scores, votes and selection are the golden model's bit by bit (`vrex.model.dre.codes`), given the same codes,
rotated queries and scores of residents. Projections, norms and the residents' scores are torch's own FP32
sums, added up in another order than the model's; so now and then the last bit of a scale or score differs.
Integers are held in floating point where they stay exact, since there a CPU's vector units are fastest.
"""

from functools import lru_cache

import numpy as np
import torch

from vrex.model.dre.codes import NO_VOTE, QUERY_BITS, RECIPROCAL_BITS, SHARE_BITS
from vrex.model.dre.quant import SMALLEST_SCALE
from vrex.model.dre.wtu import EXP_INDEX_BITS, EXP_SATURATED, EXP_TABLE, FRACTION_BITS, Scale

_TOP = (1 << QUERY_BITS - 1) - 1
_BIAS = 127
_HIGHEST = (1 << 15) - 1
"""u of plus infinity; minus infinity has one below its negative."""

_BLOCK = 1 << 20
"""Scores of a block of rows, so that what is made of them stays in the processor's cache."""

_STEPS = np.arange(EXP_SATURATED + 1)
_WEIGHTS = EXP_TABLE[_STEPS & ((1 << EXP_INDEX_BITS) - 1)] >> (_STEPS >> EXP_INDEX_BITS)
"""Weight of each exponent that `vrex.model.dre.wtu.transform` can have under `exp`."""


def centre(keys: torch.Tensor) -> torch.Tensor:
    """Mean of the keys that are finite, 0 without any; bfloat16 [heads, n, dim] to [heads, dim]."""
    finite = keys.isfinite().all(dim=-1, keepdim=True)
    total = torch.where(finite, keys, 0).double().sum(dim=1).float()
    count = finite.sum(dim=1).float()
    return torch.where(count > 0, total * (1 / count), 0).to(torch.bfloat16)


def encode(keys: torch.Tensor, planes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes of centred keys (model `vrex.model.dre.codes.encode`).

    Args:
        keys: bfloat16 [heads, n, dim].
        planes: rows of R, float32 [heads, bits, dim].

    Returns:
        Signs, int8 [heads, n, bits], 1 or -1, and scales, bfloat16 [heads, n].
    """
    x = keys.float()
    rotated = x @ planes.mT
    norms, lengths = x.square().sum(dim=-1), rotated.abs().sum(dim=-1)
    scales = torch.where(lengths == 0, 0, norms * (1 / lengths))
    scales = torch.where(norms.isfinite() & lengths.isfinite(), scales, torch.nan)
    return torch.where(rotated > 0, 1, -1).to(torch.int8), scales.to(torch.bfloat16)


def rotate(queries: torch.Tensor, planes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotated queries in 8 bits (model `vrex.model.dre.codes.rotate`).

    Args:
        queries: bfloat16 [heads, rows, dim].
        planes: float32 [heads, bits, dim].

    Returns:
        Components, float32 [heads, rows, bits], and scales, float32 [heads, rows]; NaN where a row is not
        finite.
    """
    x = (queries.float() @ planes.mT).to(torch.bfloat16).float()
    finite = x.isfinite().all(dim=-1)
    x = torch.where(finite[..., None], x, 0)
    scales = (x.abs().amax(dim=-1) * float(np.float32(1) / np.float32(_TOP))).to(torch.bfloat16).float()
    scales = torch.where(scales < float(SMALLEST_SCALE), 0, scales)
    reciprocals = torch.where(scales > 0, 1 / scales, 0)
    return (x * reciprocals[..., None]).round(), torch.where(finite, scales, torch.nan)


def votes(
    residents: torch.Tensor,
    components: torch.Tensor,
    query_scales: torch.Tensor,
    signs: torch.Tensor,
    scales: torch.Tensor,
    scale: Scale,
) -> torch.Tensor:
    """Votes of one KV head's rows for its coded tokens (model: `score` and `vote` of `vrex.model.dre.codes`).

    Args:
        residents: scores of the resident tokens, bfloat16 [rows, m]; NaN where a row must not look.
        components, query_scales: of a head, as `rotate` gives them.
        signs, scales: of n tokens, as `encode` gives them.
        scale: what scores are multiplied with before e^x.

    Returns:
        int64 [n], in units of 2^-24 of a row; -1 for a token whose scores are all NaN.
    """
    total = torch.zeros(len(signs), dtype=torch.float64, device=signs.device)
    silent = torch.ones(len(signs), dtype=torch.bool, device=signs.device)
    rotation, factors = signs.float().T, scales.float()
    step = max(1, _BLOCK // max(1, len(signs)))
    for first in range(0, len(components), step):
        rows = slice(first, first + step)
        # Sums of at most 128 integers below 128 are exact in FP32.
        scores = components[rows] @ rotation
        scores = scores.mul_(query_scales[rows, None]).mul_(factors).to(torch.bfloat16)
        shares, nan = _shares(residents[rows], scores, scale)
        total += shares
        silent &= nan
    return torch.where(silent, NO_VOTE, total.long())


def _shares(residents: torch.Tensor, scores: torch.Tensor, scale: Scale) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum over rows of each token's share, float64 [n], and which tokens have NaN alone, bool [n]."""
    parts = residents, scores
    exponent = torch.stack([_exponent(part) for part in parts]).amax(dim=0)
    unit = torch.exp2((FRACTION_BITS + _BIAS - exponent).double())
    fixed = [_fixed_point(part, unit) for part in parts]
    top = torch.stack([_largest(part) for part in fixed]).amax(dim=0)
    top = torch.where(top.isinf(), 0, top)
    shift = 15 - EXP_INDEX_BITS - scale.exponent - (exponent - _BIAS - FRACTION_BITS)
    factor = scale.mantissa * torch.exp2(-shift.clamp(0, 40).double())
    nan = fixed[1].amax(dim=0).isinf()
    around, weights = (_weights(part, top, factor) for part in fixed)
    total = around.sum(dim=1) + weights.sum(dim=1)
    reciprocal = (1 << RECIPROCAL_BITS) // total.clamp(min=1).long()
    shares = weights.mul_(reciprocal[:, None]).mul_(2.0 ** (SHARE_BITS - RECIPROCAL_BITS)).floor_()
    return shares.sum(dim=0), nan


def _exponent(scores: torch.Tensor) -> torch.Tensor:
    """Biased exponent of each row's largest finite magnitude, at least 1: int64 [rows]."""
    magnitude = scores.contiguous().view(torch.int16) & 0x7FFF
    finite = magnitude.masked_fill_(magnitude >= 0x7F80, 0)
    largest = finite.amax(dim=1) if finite.shape[1] else finite.new_zeros(len(finite))
    return (largest >> 7).clamp(min=1).long()


def _fixed_point(scores: torch.Tensor, unit: torch.Tensor) -> torch.Tensor:
    """The u of `vrex.model.dre.wtu.fixed_point`, float64 [rows, n], minus infinity for a NaN."""
    u = scores.double().mul_(unit[:, None]).floor_().clamp_(-_HIGHEST - 1, _HIGHEST)
    return u.nan_to_num_(nan=-torch.inf)


def _largest(u: torch.Tensor) -> torch.Tensor:
    """Largest u of each row, minus infinity without any: float64 [rows]."""
    return u.amax(dim=1) if u.shape[1] else u.new_full((len(u),), -torch.inf)


def _weights(u: torch.Tensor, top: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Weights of `exp`, integers as float64 [rows, n]; `u` is overwritten."""
    x = u.neg_().add_(top[:, None]).mul_(factor[:, None]).floor_().clamp_(0, EXP_SATURATED)
    return _weight_table(u.device).index_select(0, x.int().flatten()).view(u.shape)


@lru_cache
def _weight_table(device: torch.device) -> torch.Tensor:
    """`_WEIGHTS` on a device, float64."""
    return torch.from_numpy(_WEIGHTS.astype(np.float64)).to(device)


def select(counted: torch.Tensor, count: int) -> torch.Tensor:
    """The tokens with the most votes, ascending, lower ones first on ties (`vrex.model.dre.codes.select`).

    Args:
        counted: votes, int64 [n].
        count: how many, at most n.

    Returns:
        int64, fewer than `count` where other tokens have no vote.
    """
    # All ranks differ, so that the order among equal ones, which torch leaves open, does not matter.
    n = len(counted)
    ranks = counted * n + torch.arange(n - 1, -1, -1, device=counted.device)
    best = ranks.topk(count).indices
    return best[counted[best] > NO_VOTE].sort().values
