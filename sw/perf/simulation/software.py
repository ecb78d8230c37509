"""Selection in software on a GPU: dependent kernels, and the bytes that they read and write.

Counts of kernels are those of a plain implementation with library sorts and products; what each moves follows
from shapes.
"""

from dataclasses import dataclass

from vrex.sw.perf.description.method import Method
from vrex.sw.perf.description.workload import BF16_BYTES, Model, Workload

PLANES = 32
SORT_PASSES = 4
"""Passes of a radix sort of 32-bit keys with 8 bits a pass; each reads and writes keys and values."""
PAIR_BYTES = 8
PARTIAL = 0.2
"""Columns that InfiniGen keeps of queries, keys and query weights."""


@dataclass(frozen=True)
class Selection:
    """What selecting costs in one layer.

    Attributes:
        kernels: that wait for each other.
        bytes: read and written in memory.
        flop: of products.
    """

    kernels: int
    bytes: float
    flop: float


def _sort(items: float) -> float:
    """Bytes that sorting moves."""
    return items * PAIR_BYTES * 2 * SORT_PASSES


def resv(model: Model, work: Workload, clusters: float) -> Selection:
    """ReSV: hashes, clustering token by token, scores, and a sorted running sum for each row."""
    values = model.kv_heads * model.head_dim
    rows = work.tokens * model.heads
    items = rows * clusters * work.batch
    # A token waits for the one before it: compare and count bits, least distance, update of the table.
    kernels = 3 + 3 * work.tokens + 1 + 2 * SORT_PASSES + 4
    moved = work.tokens * clusters * PLANES / 8 * work.batch
    moved += clusters * values * BF16_BYTES * work.batch
    moved += items * BF16_BYTES * 2 + _sort(items) + items * 4 * 2
    flop = (
        2 * values * (PLANES * work.rows + clusters * work.tokens * work.batch * model.heads / model.kv_heads)
    )
    return Selection(kernels, moved, flop)


def infinigen(model: Model, work: Workload, past: float) -> Selection:
    """InfiniGen: partial queries of the next layer against partial keys, and a top-k for each head."""
    weights = PARTIAL * model.hidden * model.heads * model.head_dim
    keys = PARTIAL * past * model.kv_heads * model.head_dim * work.batch
    items = work.tokens * model.heads * past * work.batch
    # The chunk's rows and the heads of a group are joined before the top-k.
    joined = model.kv_heads * past * work.batch
    kernels = 2 + 1 + 2 + 2 * SORT_PASSES + 2
    moved = (weights + keys) * BF16_BYTES + items * BF16_BYTES * 2 + _sort(joined)
    flop = 2 * weights * work.rows + 2 * keys * work.tokens * model.heads / model.kv_heads
    return Selection(kernels, moved, flop)


def rekv(model: Model, work: Workload, blocks: float) -> Selection:
    """ReKV: the mean query against each block's mean key, and one top-k for the layer."""
    values = model.heads * model.head_dim
    keys = blocks * values * work.batch
    kernels = 1 + 1 + 2 * SORT_PASSES + 2
    return Selection(kernels, keys * BF16_BYTES + _sort(blocks * work.batch), 2 * keys)


def select(model: Model, work: Workload, method: Method) -> Selection:
    """The cost of a method's predictor in software."""
    if method.predictor == "resv":
        return resv(model, work, work.past / method.cluster_tokens)
    if method.predictor == "infinigen":
        return infinigen(model, work, work.past)
    return rekv(model, work, work.past / method.cluster_tokens)
