"""What a policy attended to and fetched: the report that all policies share."""

from typing import Any, Protocol

from vrex.sw.driver.transport import TransportReport
from vrex.sw.policies.base import Choice, Chunk
from vrex.sw.policies.ratio import RatioMeter
from vrex.sw.policies.shape import Shape

BF16_BYTES = 2


class Reporting(Protocol):
    """A `Policy` that says what it did."""

    name: str

    def select(self, chunk: Chunk) -> Choice:
        """See `Policy.select`."""
        ...

    def report(self) -> dict[str, Any]:
        """See `Resv.report`."""
        ...


class Account:
    """Sums over layers and chunks for `Policy.report`.

    Attributes:
        token_bytes: K and V of one token in one KV head, BF16.
    """

    def __init__(self, shape: Shape, predict: str | None = None) -> None:
        """An empty account.

        Args:
            shape: the decoder's dimensions.
            predict: whose queries select (see `ResvSettings.predict`), None when nothing is predicted.
        """
        self.token_bytes = 2 * shape.head_dim * BF16_BYTES
        self._shape, self._predict = shape, predict
        self._ratio = RatioMeter(shape)
        self._tokens = self._bytes = self._metadata_bytes = 0

    def add(
        self,
        chunk: Chunk,
        attended: list[int],
        fetched: int = 0,
        metadata_bytes: int = 0,
        fetched_bytes: int | None = None,
    ) -> None:
        """One layer of one chunk.

        Args:
            chunk: as it came to `Policy.select`.
            attended: past tokens attended to, per KV head.
            fetched: those that were not resident, summed over the KV heads.
            metadata_bytes: what the policy read to choose them.
            fetched_bytes: their K and V; None counts BF16.
        """
        self._ratio.add(chunk.stage, chunk.layer, attended, chunk.start)
        self._tokens += fetched
        self._bytes += fetched * self.token_bytes if fetched_bytes is None else fetched_bytes
        self._metadata_bytes += metadata_bytes

    def report(self) -> dict[str, Any]:
        """The keys of `Resv.report`, for a policy without clusters and accelerator."""
        return {
            "ratio": self._ratio.report(),
            "fetched": {"tokens": self._tokens, "bytes": self._bytes, "metadata_bytes": self._metadata_bytes},
            "clusters": 0,
            "clusters_per_layer": [0] * self._shape.layers,
            "tokens_per_cluster": None,
            "degenerate_rows": 0,
            "predict": self._predict,
            "rtl": TransportReport().to_dict(),
        }
