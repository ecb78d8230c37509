"""Prediction work of figure `clustering` (the paper's Fig. 19): what is scored to choose."""

from typing import Any

from vrex.sw.evaluation.cells import Bench, Clip, VideoCell
from vrex.sw.evaluation.figures.watch import Observed
from vrex.sw.evaluation.points import Point
from vrex.sw.retrieval.policies.account import Reporting
from vrex.sw.retrieval.policies.base import Chunk
from vrex.sw.retrieval.policies.resv import Resv
from vrex.sw.retrieval.policies.shape import Shape

POLICIES = ("resv", "resv-nocluster")


class Work:
    """Counts a policy's scores, one for each query row and cluster or token that it is compared with.

    Attributes:
        scores: dot products of head_dim terms.
        rows: query rows that had something to be compared with.
    """

    def __init__(self, policy: Reporting, shape: Shape) -> None:
        self._policy, self._shape = policy, shape
        self.scores = self.rows = 0

    def __call__(self, chunk: Chunk) -> None:
        """One layer of one chunk, before the policy sees it."""
        n = candidates(self._policy, chunk, self._shape.step_tokens)
        rows = chunk.q.shape[0] * chunk.q.shape[1]
        self.scores += n * rows
        self.rows += rows if n else 0


def candidates(policy: Any, chunk: Chunk, step_tokens: int) -> int:
    """What a query row of the chunk is compared with under `resv` of scope layer, or `resv-nocluster`."""
    if isinstance(policy, Resv):
        clusters: list[int] = policy.tables.report()["clusters_per_layer"]
        return clusters[chunk.layer]
    return max(0, chunk.start - policy.settings.sinks - policy.settings.window * step_tokens)


def measure(bench: Bench, clips: list[Clip]) -> dict[str, Any]:
    """Work and bytes of both policies at their defaults on the first video."""
    shape = Shape.of(bench.model.config)
    found: dict[str, Any] = {}
    for name in POLICIES:
        counted: list[Work] = []
        kept: list[Reporting] = []

        def count(
            policy: Reporting, counted: list[Work] = counted, kept: list[Reporting] = kept
        ) -> Reporting:
            counted.append(Work(policy, shape))
            kept.append(policy)
            return Observed(policy, counted[0])

        bench.run(VideoCell(Point.of(name, {}), clips[0]), count)
        fetched = kept[0].report()["fetched"]
        found[name] = {
            "scores": counted[0].scores,
            "rows": counted[0].rows,
            "kv_bytes": fetched["bytes"],
            "metadata_bytes": fetched["metadata_bytes"],
        }
    fewer = found["resv-nocluster"]["scores"] / max(found["resv"]["scores"], 1)
    return {"clip": vars(clips[0]), "policies": found, "fewer_scores": fewer}


def table(work: dict[str, Any]) -> str:
    """A line for each policy."""
    lines = [
        f"{name}: {own['scores'] / 1e6:,.1f} million scores in {own['rows']:,} rows, "
        f"K and V {own['kv_bytes'] / 1e6:,.0f} MB, metadata {own['metadata_bytes'] / 1e6:,.0f} MB"
        for name, own in work["policies"].items()
    ]
    return "\n".join([*lines, f"clustering scores {work['fewer_scores']:.1f} times fewer"])
