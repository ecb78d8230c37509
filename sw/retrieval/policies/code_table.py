"""Codes of one KV head for policy `resv-bits`: on one level, or on two where those read fewer bytes."""

from dataclasses import dataclass

import numpy as np

from vrex.model.commands import VoteRows
from vrex.model.dre import codes, hashing, hcu, levels, quant, token_store, wtu
from vrex.model.dre.codes import Codes
from vrex.model.dre.hctable import HCTable
from vrex.model.dre.hcu import Clustering
from vrex.model.dre.wtu import Scale
from vrex.model.lib import arith
from vrex.model.lxe import mac_tree
from vrex.sw.retrieval.policies.account import BF16_BYTES

COUNT_BYTES, WORD_BYTES = 2, 4
INDEX_BYTES = 4
"""A token's number, beside its code where codes lie in cluster order."""

CALL_TOKENS = 256
"""Tokens that are clustered by one call of the HCU where there are many at once."""

COPY_BITS = 4
"""Of a value of a cluster's mean as the first level reads it."""

BUDGET, BUDGET_TOKENS, BUDGET_POWER = 2240, 16_384, 0.4
"""Clusters that a first level may have at so many tokens, and how these grow with the tokens."""

YOUNG = 4
"""One of so many candidates is one of the youngest tokens whatever its cluster.

Tokens that have just left the window attract attention by their position, which their cluster's mean, made of
older tokens for the most part, does not show.
"""

COARSER = 2
"""What the Hamming threshold rises by where there are more."""


@dataclass(frozen=True)
class Levels:
    """How codes are ranked on two levels.

    Attributes:
        th_hd: Hamming threshold of the clusters to begin with.
        limit: candidates of the second level, tokens.
    """

    th_hd: int
    limit: int


def budget(tokens: int) -> int:
    """Clusters that the first level may have: 2,240 up to 16,384 tokens, beyond with the power 0.4."""
    return int(BUDGET * max(1.0, tokens / BUDGET_TOKENS) ** BUDGET_POWER)


@dataclass(frozen=True)
class Ranking:
    """The best tokens of a table.

    Attributes:
        tokens: int64, ascending, counted from the table's first.
        read: bytes of codes, scales, means, counts and numbers that were read to find them.
        silent: rows of queries that are not finite and have no vote.
    """

    tokens: np.ndarray
    read: int
    silent: int


@dataclass(frozen=True)
class Ballot:
    """What a voter, or the host, chooses from.

    Attributes:
        past: codes of the tokens.
        rows: queries and scores of the residents.
        tokens: their numbers, int64; None for 0, 1, ...
        read, silent: see `Ranking`.
    """

    past: Codes
    rows: VoteRows
    tokens: np.ndarray | None
    read: int
    silent: int

    def count(self, wanted: int, scale: Scale) -> np.ndarray:
        """What a voter selects of `past`, by its golden model: int64, at most `wanted`, ascending."""
        scores = codes.score(self.rows.components, self.rows.scales, self.past)
        return codes.select(codes.vote(self.rows.residents, scores, scale), wanted)

    def ranking(self, chosen: np.ndarray) -> Ranking:
        """The tokens that were selected of `past`."""
        tokens = chosen if self.tokens is None else self.tokens[chosen]
        return Ranking(tokens, self.read, self.silent)


def silent_rows(queries: np.ndarray) -> int:
    """Rows of queries, BF16 bits uint16 [rows, dim], that are not finite and have no vote."""
    return int((~np.isfinite(arith.from_bf16(queries)).all(axis=1)).sum())


class _Codes:
    """Codes that grow."""

    def __init__(self, words: int) -> None:
        self.size = 0
        self._words, self._scales = np.empty((64, words), np.uint32), np.empty(64, np.uint16)

    def add(self, new: Codes) -> None:
        end = self.size + len(new.scales)
        if end > len(self._scales):
            room = max(end, 2 * len(self._scales)) - len(self._scales)
            self._words = np.pad(self._words, ((0, room), (0, 0)))
            self._scales = np.pad(self._scales, (0, room))
        self._words[self.size : end], self._scales[self.size : end] = new.words, new.scales
        self.size = end

    def view(self) -> Codes:
        return Codes(self._words[: self.size], self._scales[: self.size])

    def take(self, tokens: np.ndarray) -> Codes:
        return Codes(self._words[: self.size][tokens], self._scales[: self.size][tokens])


class _First:
    """The first level: clusters of the tokens whose code is not NaN.

    Attributes:
        th_hd: Hamming threshold by now.
    """

    def __init__(self, words: int, dim: int, th_hd: int) -> None:
        self._words, self._dim, self.th_hd = words, dim, th_hd
        self._hc = HCTable(words, dim, CALL_TOKENS)
        self._copies = np.empty((0, dim), dtype=np.uint16)
        self._copy_bytes = quant.nbytes(dim, 1, COPY_BITS)

    @property
    def clusters(self) -> int:
        """Clusters there are."""
        return self._hc.clusters

    @property
    def read_bytes(self) -> int:
        """What ranking reads: the copies of the means, and counts."""
        return self.clusters * (self._copy_bytes + COUNT_BYTES)

    def add(self, new: Codes, keys: np.ndarray, first: int) -> int:
        """Takes tokens first, first + 1, ... in; keys are centred, BF16 bits uint16 [n, dim].

        Returns:
            Bytes moved: founders' bits are read; a member's mean and count are read and written, a founder's
            written, with its bits; copies are written.

        Raises:
            TableFullError: more than 65 535 clusters would exist.
        """
        held = np.flatnonzero((new.scales & 0x7FFF) <= wtu.INFINITY)
        hashes, known = new.words[held], self.clusters
        owners = self._hc.add(hashes, keys[held], first + held, self._cluster)
        self._refresh(np.unique(owners))
        opened = self.clusters - known
        entry = self._dim * BF16_BYTES + COUNT_BYTES
        moved = known * self._words * WORD_BYTES + opened * self._words * WORD_BYTES
        moved += (len(held) - opened) * entry + len(held) * (entry + self._copy_bytes)
        return moved + self._fit(first + len(new.scales))

    def _cluster(self, hashes: np.ndarray, founders: np.ndarray) -> Clustering:
        return hcu.cluster(hashes, founders, self.th_hd)

    def _refresh(self, changed: np.ndarray) -> None:
        """Makes the copies of these clusters' means anew."""
        if len(self._copies) < self.clusters:
            room = max(self.clusters, 2 * len(self._copies)) - len(self._copies)
            self._copies = np.pad(self._copies, ((0, room), (0, 0)))
        means = self._hc.means[changed]
        self._copies[changed] = quant.dequantise(*quant.quantise(means, COPY_BITS))

    def _fit(self, tokens: int) -> int:
        """Coarsens the clusters until they are no more than the budget.

        Returns:
            Bytes moved: what is kept of every cluster is read, and of every new one written.
        """
        moved, entry = 0, self._words * WORD_BYTES + self._dim * BF16_BYTES + COUNT_BYTES
        while self.clusters > budget(tokens):
            old = self._hc
            self.th_hd += COARSER
            coarse = levels.coarsen(old.hashes, old.means, old.counts, self.th_hd)
            self._hc = HCTable(self._words, self._dim, CALL_TOKENS)
            self._hc.restore(coarse.hashes, coarse.means, old.token_ids, coarse.owners[old.token_cluster])
            self._refresh(np.arange(self.clusters))
            # Of every token's record the place changes, so it is read and written.
            moved += old.clusters * entry + self.clusters * (entry + self._copy_bytes)
            moved += 2 * old.tokens * (self._words * WORD_BYTES + BF16_BYTES + INDEX_BYTES)
        return moved

    def candidates(self, queries: np.ndarray, residents: np.ndarray, scale: Scale, limit: int) -> np.ndarray:
        """Tokens of the clusters with the most votes, int64, ascending.

        Args:
            queries: BF16 bits, uint16 [rows, dim].
            residents: scores of the resident tokens, BF16 bits, uint16 [rows, m].
            scale: of scores.
            limit: see `levels.candidates`.
        """
        counts = self._hc.counts
        scores = mac_tree.dot_bf16(queries, self._copies[: self.clusters])
        taken = np.zeros(self.clusters, dtype=bool)
        votes = levels.vote_clusters(residents, scores, counts, scale)
        taken[levels.candidates(votes, counts, limit)] = True
        return self._hc.tokens_of(taken)


@dataclass(frozen=True)
class Coder:
    """What codes of one KV head are made with.

    Attributes:
        planes: rows of R, BF16 bits uint16 [bits, dim].
        centre: BF16 bits, uint16 [dim].
    """

    planes: np.ndarray
    centre: np.ndarray

    @classmethod
    def around(cls, planes: np.ndarray, keys: np.ndarray) -> "Coder":
        """A coder whose centre is the mean of some keys.

        Args:
            planes: rows of R.
            keys: BF16 bits uint16 [n, dim]; those that are not finite are left out, since one of them would
                make every code NaN. Without any the centre is 0.
        """
        finite = keys[((keys & 0x7FFF) < wtu.INFINITY).all(axis=1)]
        nothing = np.zeros(keys.shape[1], dtype=np.uint16)
        return cls(planes, codes.centre(finite) if len(finite) else nothing)

    @property
    def identity(self) -> int:
        """See `vrex.model.dre.token_store.identity`."""
        return token_store.identity(self.planes, self.centre)

    def encode(self, centred: np.ndarray) -> Codes:
        """Codes of keys as `centred` gives them."""
        return codes.encode(centred, self.planes)

    def centred(self, keys: np.ndarray) -> np.ndarray:
        """Keys without the centre, BF16 bits uint16 [n, dim]."""
        return codes.centred(keys, self.centre)

    def residents(self, queries: np.ndarray, keys: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """Scores of the tokens that are attended anyway, NaN where a row must not look.

        bf16(q . k - q . mu), both dot products and the difference in FP32: the first is attention's own
        score, so that prediction adds one dot product a row and a subtraction a score.

        Args:
            queries: BF16 bits, uint16 [rows, dim].
            keys: theirs, BF16 bits, uint16 [m, dim].
            seen: bool [rows, m], which of them a row attends to.

        Returns:
            BF16 bits, uint16 [rows, m].
        """
        with np.errstate(invalid="ignore"):
            scores = mac_tree.dot_fused(queries, keys) - mac_tree.dot_fused(queries, self.centre[None])
        return np.where(seen, arith.to_bf16(scores), np.uint16(arith.NAN))

    def rows(self, queries: np.ndarray, residents: np.ndarray) -> VoteRows:
        """What a voter gets of queries and of the scores that `residents` gives."""
        return VoteRows(*codes.rotate(queries, self.planes), residents)


class CodeTable:
    """Centre and codes of one KV head, in token order, and with two levels in cluster order as well.

    Attributes:
        nans: tokens whose code is NaN, because their key is not finite; they are never selected.
    """

    def __init__(self, planes: np.ndarray, keys: np.ndarray, settings: Levels | None = None) -> None:
        """An empty table.

        Args:
            planes, keys: see `Coder.around`.
            settings: of two levels; None is one.
        """
        self._coder, self._levels = Coder.around(planes, keys), settings
        words = len(planes) // hashing.WORD_BITS
        self._codes = _Codes(words)
        self._first = None if settings is None else _First(words, keys.shape[1], settings.th_hd)
        self._code_bytes = words * WORD_BYTES + BF16_BYTES
        self.nans = 0

    @property
    def clusters(self) -> int:
        """Clusters of the first level, 0 where there is none."""
        return 0 if self._first is None else self._first.clusters

    @property
    def th_hd(self) -> int | None:
        """Hamming threshold of the first level by now, None where there is none."""
        return None if self._first is None else self._first.th_hd

    def add(self, keys: np.ndarray) -> int:
        """Codes the next tokens, BF16 bits uint16 [n, dim].

        Returns:
            Bytes moved: keys are read and codes written, and the first level is brought up to date.

        Raises:
            TableFullError: more than 65 535 clusters would exist.
        """
        centred = self._coder.centred(keys)
        new, first = self._coder.encode(centred), self._codes.size
        self._codes.add(new)
        self.nans += int(((new.scales & 0x7FFF) > wtu.INFINITY).sum())
        moved = len(keys) * (keys.shape[1] * BF16_BYTES + self._code_bytes)
        if self._first is not None:
            moved += self._first.add(new, centred, first) + len(keys) * (self._code_bytes + INDEX_BYTES)
        return moved

    def best(
        self, queries: np.ndarray, residents: np.ndarray, seen: np.ndarray, scale: Scale, count: int
    ) -> Ranking:
        """The `count` tokens with the most votes; other arguments as of `ballot`."""
        ballot = self.ballot(queries, residents, seen, scale)
        return ballot.ranking(ballot.count(count, scale))

    def ballot(self, queries: np.ndarray, residents: np.ndarray, seen: np.ndarray, scale: Scale) -> Ballot:
        """Codes to choose from, of the levels that read fewer bytes, and what asks for them.

        Args:
            queries: BF16 bits, uint16 [rows, dim].
            residents: keys of the tokens that are attended anyway, BF16 bits, uint16 [m, dim].
            seen: bool [rows, m], which of them a row attends to.
            scale: of scores.
        """
        exact = self._coder.residents(queries, residents, seen)
        tokens, read = None, self._codes.size * self._code_bytes
        if self._first is not None and self._levels is not None:
            young = self._levels.limit // YOUNG
            record = self._code_bytes + INDEX_BYTES
            near = self._first.read_bytes + young * self._code_bytes
            if near + (self._levels.limit - young) * record < read:
                older = self._first.candidates(queries, exact, scale, self._levels.limit - young)
                last = self._codes.size - young
                tokens = np.concatenate([older[older < last], np.arange(last, self._codes.size)])
                read = near + len(older) * record
        held = self._codes.view() if tokens is None else self._codes.take(tokens)
        return Ballot(held, self._coder.rows(queries, exact), tokens, read, silent_rows(queries))
