"""Two levels of binary codes: clusters of keys vote first, then the codes of the best clusters' tokens.

Reading every code takes bytes in proportion to the past. The first level is an HC table of one KV head whose
hashes are the codes' sign bits and whose keys are centred: a mean, read as its 4-bit copy, stands for its
members. The second level is `codes` on the candidates alone. Clusters that have become too many are clustered
themselves, with a higher threshold (`coarsen`), so that the first level grows as slowly as it is asked to.
"""

from dataclasses import dataclass

import numpy as np

from vrex.model.config import MAX_COUNT
from vrex.model.dre import codes, hcu, wtu
from vrex.model.dre.wtu import Rule, Scale, Transform
from vrex.model.lib import arith


@dataclass(frozen=True)
class Coarse:
    """Clusters of clusters.

    Attributes:
        owners: int32 [C], the new cluster of each old one.
        hashes: their founders' hash words, uint32 [c, words].
        means: BF16 bits, uint16 [c, dim].
        counts: int64 [c].
    """

    owners: np.ndarray
    hashes: np.ndarray
    means: np.ndarray
    counts: np.ndarray


def coarsen(hashes: np.ndarray, means: np.ndarray, counts: np.ndarray, th_hd: int) -> Coarse:
    """Clusters clusters in their order, by the HCU's rule; a member's mean enters with its count.

    Of a founder m of n tokens and a member k of c: m' = bf16(m + (k - m) * fp32(c / (n + c))), FP32 RNE at
    each operation. A cluster that would hold more than 65 535 tokens takes no member.

    Args:
        hashes: founders' hash words, uint32 [C, words].
        means: BF16 bits, uint16 [C, dim].
        counts: integers [C].
        th_hd: Hamming threshold.
    """
    founders: list[int] = []
    owners = np.zeros(len(hashes), dtype=np.int32)
    merged, sums = means.copy(), counts.astype(np.int64)
    for i, count in enumerate(sums.tolist()):
        distance = hcu.hamming(hashes[i : i + 1], hashes[founders])[0]
        distance[sums[founders] + count > MAX_COUNT] = hcu.NO_DISTANCE
        nearest = int(distance.argmin()) if founders else 0
        if not founders or distance[nearest] >= th_hd:
            owners[i] = len(founders)
            founders.append(i)
            continue
        owners[i], at = nearest, founders[nearest]
        share = np.float32(count / (int(sums[at]) + count))
        with np.errstate(invalid="ignore", over="ignore", under="ignore"):
            own, other = arith.from_bf16(merged[at]), arith.from_bf16(means[i])
            merged[at] = arith.to_bf16(own + (other - own) * share)
        sums[at] += count
    return Coarse(owners, hashes[founders], merged[founders], sums[founders])


def vote_clusters(residents: np.ndarray, scores: np.ndarray, counts: np.ndarray, scale: Scale) -> np.ndarray:
    """Sums over the rows of the share that a token of each cluster has of its row's softmax.

    As `codes.vote`, but a cluster's weight enters the sum of the row once for each of its tokens; its share
    is that of one of them, since candidates are paid for by the token.

    Args:
        residents: BF16 bits, uint16 [rows, m], of sinks, window and chunk; NaN where a row must not look.
        scores: BF16 bits, uint16 [rows, C], of the means.
        counts: tokens of each cluster, integers [C].
        scale: what scores are multiplied with before e^x.

    Returns:
        int64 [C], in units of 2^-24 of a row; `codes.NO_VOTE` for a cluster whose scores are all NaN.
    """
    row = np.concatenate([residents, scores], axis=1)
    rule = Rule(th_r=0, transform=Transform.EXP, scale=scale)
    weights = wtu.transform(wtu.fixed_point(row), rule)
    near, far = weights[:, : residents.shape[1]], weights[:, residents.shape[1] :]
    total = near.sum(axis=1, keepdims=True) + (far * counts).sum(axis=1, keepdims=True)
    reciprocal = (1 << codes.RECIPROCAL_BITS) // np.maximum(total, 1)
    shares = far * reciprocal >> codes.RECIPROCAL_BITS - codes.SHARE_BITS
    silent = ((scores & 0x7FFF) > wtu.INFINITY).all(axis=0)
    return np.where(silent, codes.NO_VOTE, shares.sum(axis=0))


def candidates(votes: np.ndarray, counts: np.ndarray, limit: int) -> np.ndarray:
    """The clusters with the most votes, lower ones first on ties, until they hold `limit` tokens.

    Args:
        votes: of clusters, int64 [C].
        counts: their tokens, integers [C].
        limit: the cluster that reaches it is the last one taken.

    Returns:
        int64, ascending; all that have a vote where these hold fewer tokens.
    """
    order = np.argsort(-votes, kind="stable")
    order = order[votes[order] > codes.NO_VOTE]
    before = np.cumsum(counts[order]) - counts[order]
    return np.sort(order[before < limit])
