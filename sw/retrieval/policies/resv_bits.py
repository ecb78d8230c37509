"""Policy `resv-bits`: the tokens with the most attention, estimated from binary codes of their keys.

The rule and its arithmetic are those of `vrex.model.dre.codes`: a frozen centre for each KV head, 64 sign
bits and a BF16 scale a token, one vote over all rows and query heads of a KV head, and the k tokens with the
most.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from vrex.errors import UserError
from vrex.model.dre import codes
from vrex.model.dre.codes import Codes
from vrex.model.dre.wtu import Scale
from vrex.model.lib import arith
from vrex.model.lxe import mac_tree
from vrex.sw.retrieval.policies.account import BF16_BYTES, Account
from vrex.sw.retrieval.policies.base import Chunk
from vrex.sw.retrieval.policies.narrow import check_kv_bits
from vrex.sw.retrieval.policies.ranking import grouped
from vrex.sw.retrieval.policies.settings import check_int
from vrex.sw.retrieval.policies.shape import Shape

BITS = (32, 64, 128)


@dataclass(frozen=True, kw_only=True)
class ResvBitsSettings:
    """Knobs.

    Attributes:
        k: past tokens that a KV head attends to beside sinks and window, at least 1; all of them where the
            past has no more.
        bits: of a token's code: 32, 64 or 128.
        kv_bits: of a value of stored keys and values: 16 is BF16, 4 packed codes (`narrow`).
        sinks: first tokens, always attended.
        window: most recent frames, always attended.
        seed: of the rotation.

    Raises:
        UserError: a value is out of its range.
    """

    k: int = 256
    bits: int = 64
    kv_bits: int = 16
    sinks: int = 4
    window: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        check_int("k", self.k, 1)
        check_kv_bits(self.kv_bits)
        for name in ("sinks", "window", "seed"):
            check_int(name, getattr(self, name), 0)
        if self.bits not in BITS:
            raise UserError(f"bits must be 32, 64 or 128, not {self.bits!r}")

    @property
    def code_bytes(self) -> int:
        """A token's code and scale in one KV head."""
        return self.bits // 8 + BF16_BYTES


class _Table:
    """Centre and codes of one KV head."""

    def __init__(self, planes: np.ndarray, keys: np.ndarray) -> None:
        """An empty table, its centre the mean of keys, BF16 bits uint16 [n, dim]."""
        self._planes, self._centre = planes, codes.centre(keys)
        self._codes = Codes(np.empty((0, planes.shape[0] // 32), np.uint32), np.empty(0, np.uint16))

    def add(self, keys: np.ndarray) -> None:
        """Codes the next tokens."""
        new = codes.encode(codes.centred(keys, self._centre), self._planes)
        self._codes = Codes(
            np.concatenate([self._codes.words, new.words]), np.concatenate([self._codes.scales, new.scales])
        )

    def votes(self, queries: np.ndarray, residents: np.ndarray, seen: np.ndarray, scale: Scale) -> np.ndarray:
        """Votes for the coded tokens, int64 [n].

        Args:
            queries: BF16 bits, uint16 [rows, dim].
            residents: keys of the tokens that are attended anyway, BF16 bits, uint16 [m, dim].
            seen: bool [rows, m], which of them a row attends to.
            scale: of scores.
        """
        exact = mac_tree.dot_bf16(queries, codes.centred(residents, self._centre))
        exact = np.where(seen, exact, np.uint16(arith.NAN))
        return codes.vote(exact, codes.score_codes(queries, self._codes, self._planes), scale)


class ResvBits:
    """Top-k tokens by estimated attention, with sinks and a recent window (see `Policy`)."""

    name = "resv-bits"

    def __init__(self, settings: ResvBitsSettings, shape: Shape) -> None:
        self.settings, self._shape = settings, shape
        self._window = settings.window * shape.step_tokens
        self._tables: list[list[_Table]] = [[] for _ in range(shape.layers)]
        self._coded = [settings.sinks] * shape.layers
        self._scale = Scale.from_float(shape.head_dim**-0.5)
        self._account = Account(shape, predict="same")

    def select(self, chunk: Chunk) -> list[np.ndarray]:
        """Sinks, the k tokens with the most votes, and the window (see `Policy.select`)."""
        settings, shape = self.settings, self._shape
        first = min(settings.sinks, chunk.start)
        last = max(first, chunk.start - self._window)
        written = self._code(chunk, last)
        coded = last - first
        chosen = [np.arange(coded)] * shape.kv_heads
        read = 0
        if coded > settings.k:
            chosen = self._best(chunk, first, last)
            read = coded * shape.kv_heads * settings.code_bytes
        resident = np.r_[:first], np.r_[last : chunk.start]
        attended = [np.concatenate([resident[0], first + tokens, resident[1]]) for tokens in chosen]
        # A token that leaves the window has its key read and its code written.
        moved = written * shape.kv_heads * (settings.code_bytes + shape.head_dim * BF16_BYTES)
        self._account.add(
            chunk,
            [len(tokens) for tokens in attended],
            fetched=sum(len(tokens) for tokens in chosen),
            metadata_bytes=read + moved,
        )
        return attended

    def _code(self, chunk: Chunk, last: int) -> int:
        """Codes the tokens that have left the window, and freezes the centre when the first do.

        Returns:
            How many.
        """
        layer, settings = chunk.layer, self.settings
        new = slice(self._coded[layer], last)
        if new.stop <= new.start:
            return 0
        keys = arith.to_bf16(chunk.keys[:, settings.sinks :])
        if not self._tables[layer]:
            self._tables[layer] = [
                _Table(codes.planes(settings.seed, layer, head, settings.bits, self._shape.head_dim), past)
                for head, past in enumerate(keys)
            ]
        for table, past in zip(self._tables[layer], keys, strict=True):
            table.add(past[new.start - settings.sinks : new.stop - settings.sinks])
        self._coded[layer] = last
        return new.stop - new.start

    def _best(self, chunk: Chunk, first: int, last: int) -> list[np.ndarray]:
        """The coded tokens that each KV head selects, counted from the first coded one."""
        queries = arith.to_bf16(grouped(chunk.q, self._shape.kv_heads))
        past = np.concatenate([chunk.keys[:, :first], chunk.keys[:, last:], chunk.k], axis=1)
        residents = arith.to_bf16(past)
        rows, before = chunk.k.shape[1], first + chunk.start - last
        # A row of the chunk sees the chunk up to itself; rows of a head follow one another.
        causal = np.tril(np.ones((rows, rows), dtype=bool), 0)
        seen = np.concatenate([np.ones((rows, before), dtype=bool), causal], axis=1)
        seen = np.tile(seen, (queries.shape[1] // rows, 1))
        return [
            codes.select(table.votes(head, keys, seen, self._scale), self.settings.k)
            for table, head, keys in zip(self._tables[chunk.layer], queries, residents, strict=True)
        ]

    def report(self) -> dict[str, Any]:
        """The keys of `Resv.report`."""
        return self._account.report()
