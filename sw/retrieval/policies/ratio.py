"""How much of the past a policy attends to."""

from typing import Any

import numpy as np

from vrex.sw.retrieval.policies.base import FRAME, TEXT
from vrex.sw.retrieval.policies.shape import Shape


class RatioMeter:
    """Sums of attended and of all past tokens, per stage, layer and KV head."""

    def __init__(self, shape: Shape) -> None:
        self._attended = {
            stage: np.zeros((shape.layers, shape.kv_heads), np.int64) for stage in (FRAME, TEXT)
        }
        self._past = {stage: np.zeros((shape.layers, 1), np.int64) for stage in (FRAME, TEXT)}
        self._heads = shape.kv_heads

    def add(self, stage: str, layer: int, attended: np.ndarray | list[int], past: int) -> None:
        """One layer of one chunk: attended past tokens per KV head, and past tokens."""
        self._attended[stage][layer] += attended
        self._past[stage][layer] += past

    def report(self) -> dict[str, Any]:
        """Ratios `frame`, `text` and `per_layer_head` [layers][KV heads]; None where there was no past."""
        attended = self._attended[FRAME] + self._attended[TEXT]
        past = self._past[FRAME] + self._past[TEXT]
        ratios = np.broadcast_to(attended / np.maximum(past, 1), (len(past), self._heads))
        return {
            "frame": self._stage(FRAME),
            "text": self._stage(TEXT),
            "per_layer_head": [
                [float(ratio) for ratio in row] if n else [None] * self._heads
                for row, n in zip(ratios, past[:, 0], strict=True)
            ],
        }

    def _stage(self, stage: str) -> float | None:
        past = int(self._past[stage].sum()) * self._heads
        return int(self._attended[stage].sum()) / past if past else None
