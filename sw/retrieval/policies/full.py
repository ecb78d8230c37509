"""Policies `full` and `flexgen`: attend to all of the past."""

from typing import Any

from vrex.sw.retrieval.policies.account import Account
from vrex.sw.retrieval.policies.base import Chunk
from vrex.sw.retrieval.policies.shape import Shape


class Full:
    """Everything, resident (see `Policy`)."""

    name = "full"

    def __init__(self, shape: Shape) -> None:
        self._kv_heads = shape.kv_heads
        self._account = Account(shape)

    def select(self, chunk: Chunk) -> None:
        """All of the past (see `Policy.select`)."""
        self._account.add(chunk, [chunk.start] * self._kv_heads)

    def report(self) -> dict[str, Any]:
        """The keys of `Resv.report`."""
        return self._account.report()


class Flexgen(Full):
    """Everything, kept in host memory and fetched whole at every step (FlexGen, ICML 2023)."""

    name = "flexgen"

    def select(self, chunk: Chunk) -> None:
        """All of the past (see `Policy.select`)."""
        self._account.add(chunk, [chunk.start] * self._kv_heads, fetched=chunk.start * self._kv_heads)
