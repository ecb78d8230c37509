"""Policy `quest`: pages of consecutive tokens by an upper bound of their scores (Quest, ICML 2024).

A page keeps the smallest and the largest value of each channel of its keys. No key of it can score more than
sum_i max(q_i * smallest_i, q_i * largest_i).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from vrex.sw.retrieval.policies.account import BF16_BYTES, Account
from vrex.sw.retrieval.policies.base import Chunk
from vrex.sw.retrieval.policies.ranking import grouped, share_of, top
from vrex.sw.retrieval.policies.settings import check_int, check_share
from vrex.sw.retrieval.policies.shape import Shape


@dataclass(frozen=True, kw_only=True)
class QuestSettings:
    """Knobs.

    Attributes:
        page: tokens of a page, at least 1.
        ratio: share of the pages to attend, 0 < ratio <= 1.

    Raises:
        UserError: a value is out of its range.
    """

    page: int = 16
    ratio: float = 0.25

    def __post_init__(self) -> None:
        check_int("page", self.page, 1)
        check_share("ratio", self.ratio)


class _Pages:
    """Bounds of one layer's pages; the last page may be part full."""

    def __init__(self, shape: Shape, page: int) -> None:
        self._page = page
        self._tokens = 0
        self._low = np.empty((shape.kv_heads, 64, shape.head_dim), dtype=np.float32)
        self._high = np.empty_like(self._low)

    def update(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
        """Takes in what is new among all past keys.

        Returns:
            low, high: [KV heads, pages, head_dim].
            Pages that were written, and once more those that were read for it.
        """
        start, page = keys.shape[1], self._page
        pages = -(-start // page)
        touched = pages - self._tokens // page
        read = 1 if touched and self._tokens % page else 0
        while pages > self._low.shape[1]:
            self._low, self._high = (np.concatenate([x, x], axis=1) for x in (self._low, self._high))
        for index in range(self._tokens // page, pages):
            members = keys[:, index * page : (index + 1) * page]
            self._low[:, index], self._high[:, index] = members.min(axis=1), members.max(axis=1)
        self._tokens = start
        return self._low[:, :pages], self._high[:, :pages], read + touched


class Quest:
    """Top pages of each KV head, by the largest bound over its rows (see `Policy`)."""

    name = "quest"

    def __init__(self, settings: QuestSettings, shape: Shape) -> None:
        self.settings, self._shape = settings, shape
        self._pages = [_Pages(shape, settings.page) for _ in range(shape.layers)]
        self._account = Account(shape, predict="same")

    def select(self, chunk: Chunk) -> list[np.ndarray]:
        """The tokens of each KV head's best pages (see `Policy.select`)."""
        shape, page = self._shape, self.settings.page
        low, high, moved = self._pages[chunk.layer].update(chunk.keys)
        q = grouped(chunk.q, shape.kv_heads)
        # The larger product is that with `high` where q is positive, with `low` where it is negative.
        bounds = np.maximum(q, 0) @ high.swapaxes(1, 2) + np.minimum(q, 0) @ low.swapaxes(1, 2)
        pages = low.shape[1]
        k = share_of(pages, self.settings.ratio)
        chosen = [top(row, k) for row in bounds.max(axis=1)]
        tokens = [(best[:, None] * page + np.arange(page)).ravel() for best in chosen]
        tokens = [ids[ids < chunk.start] for ids in tokens]
        self._account.add(
            chunk,
            [len(ids) for ids in tokens],
            fetched=sum(len(ids) for ids in tokens),
            metadata_bytes=(pages + moved) * shape.kv_heads * 2 * shape.head_dim * BF16_BYTES,
        )
        return tokens

    def report(self) -> dict[str, Any]:
        """The keys of `Resv.report`."""
        return self._account.report()
