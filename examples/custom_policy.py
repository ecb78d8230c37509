"""A retrieval policy of your own in 20 lines, held against attending to everything.

`EveryThird` attends to the first tokens, the last ten frames, and every third token between them. A policy
is asked once per decoder layer and chunk (a frame or some text) and answers which past tokens each KV head
attends to; `vrex.sw.retrieval.policies.base` says what it sees: queries, keys, values, the past keys.

    python examples/custom_policy.py

It takes extra `llm`. It ends with exit code 1 if the policy attends to more than it should.
"""

import sys
from typing import Any

import numpy as np

import vrex
from vrex.sw.retrieval.policies.account import Account
from vrex.sw.retrieval.policies.base import Chunk
from vrex.sw.retrieval.policies.full import Full
from vrex.sw.retrieval.policies.shape import Shape

FRAMES = 64


class EveryThird:
    """Sinks, a window, and every third token between them, the same for all KV heads."""

    name = "every-third"

    def __init__(self, shape: Shape) -> None:
        self._kv_heads, self._window = shape.kv_heads, 10 * shape.step_tokens
        self._account = Account(shape)

    def select(self, chunk: Chunk) -> list[np.ndarray]:
        """Past tokens to attend to, ascending, per KV head."""
        tokens = np.arange(chunk.start)
        resident = (tokens < 4) | (tokens >= chunk.start - self._window)
        kept = tokens[resident | (tokens % 3 == 0)]
        fetched = self._kv_heads * (len(kept) - int(resident.sum()))
        self._account.add(chunk, [len(kept)] * self._kv_heads, fetched)
        return [kept] * self._kv_heads

    def report(self) -> dict[str, Any]:
        """What was attended to and fetched."""
        return self._account.report()


def main() -> int:
    """Both policies on the same video."""
    for policy in (Full, EveryThird):
        with vrex.open_session("procstream:1", frames=FRAMES, policy=policy) as session:
            for _ in session.stream():
                pass
            figures = session.figures()
        share = figures["ratio"]["frame"]
        answers = f"{figures['correct']} of {figures['questions']} answers right"
        print(f"{policy.name}: {answers}, {share:.0%} of the past attended per frame")
    return 0 if share < 0.8 else 1


if __name__ == "__main__":
    sys.exit(main())
