"""Policy `full`: attends to all of the past and retrieves nothing."""

from typing import Any

from vrex.sw.driver.transport import TransportReport
from vrex.sw.policies.base import Chunk
from vrex.sw.policies.ratio import RatioMeter
from vrex.sw.policies.shape import Shape


class Full:
    """Everything, resident (see `Policy`)."""

    name = "full"

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._ratio = RatioMeter(shape)

    def select(self, chunk: Chunk) -> None:
        """All of the past (see `Policy.select`)."""
        self._ratio.add(chunk.stage, chunk.layer, [chunk.start] * self._shape.kv_heads, chunk.start)

    def report(self) -> dict[str, Any]:
        """The keys of `Resv.report`."""
        return {
            "ratio": self._ratio.report(),
            "fetched": {"tokens": 0, "bytes": 0, "metadata_bytes": 0},
            "clusters": 0,
            "clusters_per_layer": [0] * self._shape.layers,
            "tokens_per_cluster": None,
            "degenerate_rows": 0,
            "predict": None,
            "rtl": TransportReport().to_dict(),
        }
