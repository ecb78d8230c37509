"""Policy `rekv`: whole frames by their mean key, before RoPE (ReKV, ICLR 2025).

A block is a frame with the text before it; the mean of the frame's keys before RoPE represents it. Its score
is the dot product with the chunk's mean query before RoPE, summed over all query heads, so all heads of a
layer attend to the same blocks. What is attended to gets consecutive positions.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from vrex.sw.retrieval.policies.account import BF16_BYTES, Account
from vrex.sw.retrieval.policies.base import FRAME, Chunk, Compacted
from vrex.sw.retrieval.policies.ranking import share_of, top
from vrex.sw.retrieval.policies.settings import check_int, check_share
from vrex.sw.retrieval.policies.shape import Shape


@dataclass(frozen=True, kw_only=True)
class RekvSettings:
    """Knobs; the ratios are about those of the V-Rex paper's comparison (Table II).

    Attributes:
        frame_ratio: share of the blocks outside the window to attend in the frame stage, 0 < ratio <= 1.
        text_ratio: the same in the text stage.
        sinks: first tokens, always attended.
        window: most recent frames, always attended.

    Raises:
        UserError: a value is out of its range.
    """

    frame_ratio: float = 0.5
    text_ratio: float = 0.3
    sinks: int = 4
    window: int = 10

    def __post_init__(self) -> None:
        check_share("frame_ratio", self.frame_ratio)
        check_share("text_ratio", self.text_ratio)
        check_int("sinks", self.sinks, 0)
        check_int("window", self.window, 0)


class _Blocks:
    """The blocks of one layer, in time order."""

    def __init__(self) -> None:
        self.means: list[np.ndarray] = []  # float32 [KV heads, head_dim] each
        self.ends = [0]  # block i holds tokens ends[i]..ends[i + 1] - 1

    def add(self, keys: np.ndarray, end: int) -> None:
        self.means.append(keys.mean(axis=1))
        self.ends.append(end)

    def before(self, token: int) -> int:
        """Blocks that lie wholly before a token."""
        return max(int(np.searchsorted(self.ends, token, side="right")) - 1, 0)


class Rekv:
    """Blocks by mean query and mean key, with sinks and a recent window (see `Policy`)."""

    name = "rekv"

    def __init__(self, settings: RekvSettings, shape: Shape) -> None:
        self.settings, self._shape = settings, shape
        self._window = settings.window * shape.step_tokens
        self._layers = [_Blocks() for _ in range(shape.layers)]
        self._account = Account(shape, predict="same")

    def select(self, chunk: Chunk) -> Compacted:
        """Sinks, chosen blocks and everything from the window on (see `Policy.select`)."""
        blocks, heads = self._layers[chunk.layer], self._shape.kv_heads
        candidates = blocks.before(chunk.start - self._window)
        kept = np.zeros(chunk.start, dtype=bool)
        kept[: self.settings.sinks] = True
        # Blocks are whole, so the window starts with the first block that is no candidate.
        kept[blocks.ends[candidates] :] = True
        resident = int(kept.sum())
        for block in self._best(chunk, blocks.means[:candidates]):
            kept[blocks.ends[block] : blocks.ends[block + 1]] = True
        tokens = np.flatnonzero(kept)
        # A frame writes its block's mean.
        means = candidates + (chunk.stage == FRAME)
        self._account.add(
            chunk,
            [len(tokens)] * heads,
            fetched=(len(tokens) - resident) * heads,
            metadata_bytes=means * heads * self._shape.head_dim * BF16_BYTES,
        )
        if chunk.stage == FRAME:
            blocks.add(chunk.unrotated_k, chunk.start + chunk.k.shape[1])
        return Compacted(tokens)

    def _best(self, chunk: Chunk, means: list[np.ndarray]) -> np.ndarray:
        """Indices of the best blocks, ascending."""
        if not means:
            return np.zeros(0, dtype=np.int64)
        ratio = self.settings.frame_ratio if chunk.stage == FRAME else self.settings.text_ratio
        query = chunk.unrotated_q.mean(axis=1).reshape(self._shape.kv_heads, -1, self._shape.head_dim)
        # A representative is repeated for each query head of its group: the queries can be summed first.
        scores = np.stack(means).reshape(len(means), -1) @ query.sum(axis=1).ravel()
        return top(scores, share_of(len(means), ratio))

    def report(self) -> dict[str, Any]:
        """The keys of `Resv.report`."""
        return self._account.report()
