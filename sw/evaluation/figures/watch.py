"""What the figures take out of a stream: keys of its past, and what a policy did chunk by chunk."""

from collections.abc import Callable
from typing import Any

import numpy as np

from vrex.sw.evaluation.cells import Bench, Clip, VideoCell
from vrex.sw.evaluation.points import Point
from vrex.sw.retrieval.policies.account import Reporting
from vrex.sw.retrieval.policies.base import Choice, Chunk

FULL = Point.of("full", {})


class Observed:
    """A policy whose chunks an observer sees first (see `Policy`)."""

    def __init__(self, policy: Reporting, observe: Callable[[Chunk], None]) -> None:
        self.name, self._policy, self._observe = policy.name, policy, observe

    def select(self, chunk: Chunk) -> Choice:
        """What the policy selects (see `Policy.select`)."""
        self._observe(chunk)
        return self._policy.select(chunk)

    def report(self) -> dict[str, Any]:
        """The policy's own."""
        return self._policy.report()


def capture_keys(bench: Bench, clip: Clip) -> np.ndarray:
    """Keys of a whole stream under `full`, as the cache stores them after RoPE.

    Returns:
        float32 [layers, KV heads, tokens, head_dim].
    """
    last: dict[int, Chunk] = {}

    def observe(chunk: Chunk) -> None:
        last[chunk.layer] = chunk

    bench.run(VideoCell(FULL, clip), lambda policy: Observed(policy, observe))
    return np.stack([np.concatenate([chunk.keys, chunk.k], axis=1) for _, chunk in sorted(last.items())])
