"""Policy `streaming-llm`: the first tokens and the most recent ones (StreamingLLM, ICLR 2024)."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from vrex.sw.retrieval.policies.account import Account
from vrex.sw.retrieval.policies.base import Chunk, Compacted
from vrex.sw.retrieval.policies.settings import check_int
from vrex.sw.retrieval.policies.shape import Shape


@dataclass(frozen=True, kw_only=True)
class StreamingLlmSettings:
    """Knobs.

    Attributes:
        sinks: first tokens, always attended.
        window: most recent frames, always attended.

    Raises:
        UserError: a value is out of its range.
    """

    sinks: int = 4
    window: int = 10

    def __post_init__(self) -> None:
        check_int("sinks", self.sinks, 0)
        check_int("window", self.window, 0)


class StreamingLlm:
    """Sinks and window, resident, at the positions they have in that short cache (see `Policy`)."""

    name = "streaming-llm"

    def __init__(self, settings: StreamingLlmSettings, shape: Shape) -> None:
        self.settings = settings
        self._kv_heads = shape.kv_heads
        self._window = settings.window * shape.step_tokens
        self._account = Account(shape)

    def select(self, chunk: Chunk) -> Compacted:
        """Sinks and window (see `Policy.select`)."""
        tokens = np.arange(chunk.start)
        kept = tokens[(tokens < self.settings.sinks) | (tokens >= chunk.start - self._window)]
        self._account.add(chunk, [len(kept)] * self._kv_heads)
        return Compacted(kept)

    def report(self) -> dict[str, Any]:
        """The keys of `Resv.report`."""
        return self._account.report()
