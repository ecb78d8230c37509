"""What a policy attended to and fetched: the report that all policies share.

What counts as moved, for every policy alike:

- `bytes`: K and V of the attended past tokens that are not resident, anew for every layer and chunk; nothing
  fetched is kept for the next chunk. Resident are the sinks and the window of the policies that define them
  (resv, resv-bits, resv-nocluster, rekv, streaming-llm) and everything under full. The others define none:
  all that they attend to is fetched.
- `metadata_bytes`: what is read to choose, anew for every layer and chunk, and what is read and written to
  keep it. Keys that are read in order to choose count here, and again in `bytes` when they are chosen.
- Not counted: writing K and V into the cache, which every policy does once; queries; scores and masks, which
  stay inside the accelerator; hyperplanes and InfiniGen's bases, which are constant.

Read to choose, and then moved to keep it:

- resv: mean (or its quantised copy) and count of every cluster, hashes of the open ones, 4 bytes of index for
  each selected token and KV head. For each token that enters a table its key is read, mean and count are
  read (unless it opens a cluster) and written, copy and index are written, and a founder's hash. With a DRE:
  header, mean and count of every cluster, and for each KV head the segment map instead of the indices; tails
  are read and written like counts, the map's entries are written, and new means pass through a scratch.
- resv-bits: code and scale of every token outside sinks and window, unless all are attended to. Of each token
  that leaves the window the key is read and the code written. With a DRE the codes are always read, and the
  store's header with them and for every chunk that is stored; packed records are whole bus beats.
  With two levels, once that is less: the 4-bit mean and count of every cluster, code, scale and number (4
  bytes) of the older candidates, code and scale of the younger. Founders' bits are read to cluster what
  leaves the window; of each token mean and count are read (unless it opens a cluster) and written, the copy
  is written, and code, scale and number once more in cluster order.
- resv and resv-bits with `kv_bits` 4: `bytes` are those of the packed records, scales included. Of each token
  that leaves the window the value is read too, and its record is written.
- resv-nocluster: every key outside sinks and window. topk: every key. Neither keeps anything.
- quest: two bounds for each page and KV head. Touched pages are written, a part-full one is read first.
- rekv: the mean key of every block outside the window. A block's mean is written.
- infinigen, infinigen-p: the kept columns of every key, where they speculate. A token's columns are written.
- oaken: 12 scales of 16 bits for each token. The chunk's are written.
"""

from typing import Any, Protocol

from vrex.sw.driver.command_interface import CommandReport
from vrex.sw.retrieval.policies.base import Choice, Chunk
from vrex.sw.retrieval.policies.ratio import RatioMeter
from vrex.sw.retrieval.policies.shape import Shape

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
            metadata_bytes: read to choose them and moved to keep what is read.
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
            "rows": 0,
            "degenerate_rows": 0,
            "predict": self._predict,
            "rtl": CommandReport().to_dict(),
        }
