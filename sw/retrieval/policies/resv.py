"""Policy `resv`: hash-bit key clustering and WiCSum thresholding on the retrieval engine (paper IV)."""

from typing import Any

import numpy as np

from vrex.sw.retrieval.policies.base import Chunk, Delivered
from vrex.sw.retrieval.policies.ratio import RatioMeter
from vrex.sw.retrieval.policies.resv_settings import ResvSettings
from vrex.sw.retrieval.policies.shape import Shape
from vrex.sw.retrieval.policies.tables import Selection, Tables


class Resv:
    """Retrieval of the past for one stream of tokens (see `Policy`).

    A layer's past is sinks, then tokens in its HC tables, then a window in time order. Sinks and window are
    resident and always attended; of the tables' tokens those of the selected clusters are. Tokens that leave
    the window are hashed and clustered, after the chunk's selection or, `cluster_first`, before it. Where
    tables, keys and values are kept, and what clusters and selects, is up to `Tables`.
    """

    name = "resv"

    def __init__(
        self, settings: ResvSettings, shape: Shape, tables: Tables, past: tuple[int, int] | None = None
    ) -> None:
        """A policy that has seen nothing yet, or only what its tables hold.

        Args:
            settings: knobs.
            shape: the decoder's dimensions.
            tables: the HC tables, made with the same settings and shape.
            past: tokens that have passed all layers, and of these the end of those in `tables`, where an
                earlier process has filled them; None for empty ones.
        """
        self.settings, self.shape, self.tables = settings, shape, tables
        self._window = settings.window * shape.step_tokens
        # Of a layer's `tokens` tokens, [sinks, tabled) are in its tables.
        tokens, tabled = past or (0, settings.sinks)
        self._tokens = [tokens] * shape.layers
        self._tabled = [tabled] * shape.layers
        # What the layer before selected for this one, when the prediction comes from there.
        self._ahead = Selection([], 0)
        self._ratio = RatioMeter(shape)

    def select(self, chunk: Chunk) -> list[np.ndarray] | Delivered:
        """What each KV head attends to of the past (see `Policy.select`).

        Raises:
            DriverError: the accelerator refused or did not answer, or a table is full.
            ValueError: the chunk does not follow the one before.
        """
        if chunk.start != self._tokens[chunk.layer]:
            raise ValueError("a policy serves one stream, chunk by chunk: make a new one for another")
        if self.settings.cluster_first:
            self._retire(chunk)
        attended = self._attend(chunk, self._predict(chunk))
        if not self.settings.cluster_first:
            self._retire(chunk)
        return attended

    def report(self) -> dict[str, Any]:
        """What was retrieved so far, for JSON.

        Returns:
            ratio: attended past tokens / past tokens, sums over chunks with a past: `frame`, `text`,
                `per_layer_head` [layers][KV heads]; None where there was no past.
            fetched: `tokens` (per KV head) that were not resident, `bytes` of their K and V in BF16, and
                `metadata_bytes` read to choose them and moved to keep the tables (see `account`).
            clusters, clusters_per_layer: in all tables, and [layers].
            tokens_per_cluster: mean over all clusters, None without any.
            rows: rows of scores that the WTU selected by.
            degenerate_rows: those of rule `raw` whose sum was <= 0.
            predict: whose queries select (see `ResvSettings`).
            rtl: what went over the transport (`CommandReport.to_dict`).
            dre, cache: where keys and values are in a DRE or in tiers, the figures of `MemoryTables.report`
                or `StoredTables.report`.
        """
        tables = self.tables.report()
        clusters, tokens = sum(tables["clusters_per_layer"]), tables["tokens"]
        return {
            "ratio": self._ratio.report(),
            "fetched": tables["fetched"],
            "clusters": clusters,
            "clusters_per_layer": tables["clusters_per_layer"],
            "tokens_per_cluster": tokens / clusters if clusters else None,
            "rows": tables["rows"],
            "degenerate_rows": tables["degenerate_rows"],
            "predict": self.settings.predict,
            "rtl": tables["rtl"],
            **{part: tables[part] for part in ("dre", "cache") if part in tables},
        }

    def _predict(self, chunk: Chunk) -> Selection:
        """The selection for the chunk's layer; those made for the next layer wait in `_ahead`."""
        mode, layer = self.settings.predict, chunk.layer
        if mode == "same":
            return self._ask([(layer, chunk.q)])[0]
        # Nothing comes before layer 0, which selects for itself, and nothing after the last one.
        wanted = [(0, chunk.q)] if layer == 0 else []
        if layer + 1 < self.shape.layers:
            if mode == "next":
                wanted.append((layer + 1, chunk.predict_q(layer + 1)))
            elif layer > 0:
                wanted.append((layer, chunk.q))
        answers = self._ask(wanted)
        selection = answers[0] if layer == 0 else self._ahead
        if answers:
            self._ahead = answers[-1]
        return selection

    def _ask(self, wanted: list[tuple[int, np.ndarray]]) -> list[Selection]:
        """Selections on the tables of (layer, queries as in `Chunk.q`), all in one batch."""
        return self.tables.select([(layer, q, self._tabled[layer]) for layer, q in wanted])

    def _attend(self, chunk: Chunk, selection: Selection) -> list[np.ndarray] | Delivered:
        """Sinks, selected tokens, and everything that was in no table; only of the past."""
        # With `cluster_first` the chunk's own tokens may be in the table already.
        past = selection.before(chunk.start)
        sinks = min(self.settings.sinks, chunk.start)
        resident = sinks + chunk.start - past.tabled
        self._ratio.add(
            chunk.stage, chunk.layer, [resident + len(tokens) for tokens in past.tokens], chunk.start
        )
        return self.tables.choose(chunk, past, sinks)

    def _retire(self, chunk: Chunk) -> None:
        """Takes the chunk into the window, and what leaves the window into the tables."""
        layer = chunk.layer
        first = self._tabled[layer]
        self._tokens[layer] = chunk.start + chunk.k.shape[1]
        self._tabled[layer] = max(first, self._tokens[layer] - self._window)
        self.tables.add(chunk, first, self._tabled[layer])
