"""Policy `resv`: hash-bit key clustering and WiCSum thresholding on the retrieval engine (paper IV)."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from vrex.errors import UserError
from vrex.model.dre import quant, wtu
from vrex.model.dre.wtu import TH_R_BITS, Rule, Scale, Transform
from vrex.sw.driver.dre import Layout
from vrex.sw.driver.products import Products
from vrex.sw.driver.transport import Transport
from vrex.sw.retrieval.policies.base import Chunk, Delivered
from vrex.sw.retrieval.policies.host_tables import HostTables
from vrex.sw.retrieval.policies.memory_tables import MemoryTables
from vrex.sw.retrieval.policies.ratio import RatioMeter
from vrex.sw.retrieval.policies.settings import check_choice, check_int, check_th_r
from vrex.sw.retrieval.policies.shape import Shape
from vrex.sw.retrieval.policies.tables import Selection, Tables

RULES = {"raw": Transform.RAW, "shift": Transform.SHIFT, "exp": Transform.EXP}
SCOPES = ("layer", "head")
PREDICTIONS = ("same", "next", "reuse")
SELECTIONS = {"exact": wtu.Selection.EXACT, "bucket": wtu.Selection.BUCKET}
MEAN_BITS = (16, *quant.BITS)
MASK_HEADS = 32
"""KV heads that one command's mask has room for."""


@dataclass(frozen=True, kw_only=True)
class ResvSettings:
    """Knobs of the policy; the defaults are those that measured best on the shipped checkpoint.

    Attributes:
        rule: how a score becomes a weight per token: `raw` (the paper's), `shift` or `exp`.
        th_r: share of a row's weight to reach, 0 <= th_r < 1.
        th_hd: a token joins a cluster below this Hamming distance, 0..255.
        n_hp: hyperplanes, that is bits of a hash, 1..128.
        scope: one HC table per `layer` or per KV `head`.
        sinks: first tokens, always attended.
        window: most recent frames, always attended.
        predict: whose queries select for layer l: `same`, layer l's own; `next`, those that layer l-1's
            input gives with layer l's weights; `reuse`, layer l-1's selection as it is.
        cluster_first: tokens that leave the window are clustered before the chunk's selection, not after it.
        selection: `exact`, in descending score, or `bucket`, by whole score ranges.
        mean_bits: of a value of Key_cluster as scores read it: 16 is the BF16 mean itself, 8 and 4 a copy
            quantised per cluster and KV head (see `vrex.model.dre.quant`).
        seed: of the hyperplanes.

    Raises:
        UserError: a value is out of its range.
    """

    rule: str = "raw"
    th_r: float = 0.3
    th_hd: int = 5
    n_hp: int = 32
    scope: str = "layer"
    sinks: int = 4
    window: int = 10
    predict: str = "same"
    cluster_first: bool = False
    selection: str = "exact"
    mean_bits: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("rule", self.rule, RULES)
        check_choice("scope", self.scope, SCOPES)
        check_choice("predict", self.predict, PREDICTIONS)
        check_choice("selection", self.selection, SELECTIONS)
        check_int("th_hd", self.th_hd, 0, 255)
        check_int("n_hp", self.n_hp, 1, 128)
        for name in ("sinks", "window", "seed"):
            check_int(name, getattr(self, name), 0)
        check_th_r(self.th_r)
        if self.mean_bits not in MEAN_BITS:
            raise UserError(f"mean_bits must be 16, 8 or 4, not {self.mean_bits!r}")

    @classmethod
    def paper(cls, predict: str = "same", seed: int = 0) -> "ResvSettings":
        """The paper's own setting (Sections IV and VI): no sinks, no window, CLUSTER before SCORE."""
        return cls(
            rule="raw",
            th_r=0.3,
            th_hd=7,
            n_hp=32,
            scope="layer",
            sinks=0,
            window=0,
            cluster_first=True,
            predict=predict,
            seed=seed,
        )

    def wtu_rule(self, head_dim: int) -> Rule:
        """The WTU's registers; scores come without 1/sqrt(head_dim), so `exp` scales by it."""
        return Rule(
            th_r=min(round(self.th_r * (1 << TH_R_BITS)), (1 << TH_R_BITS) - 1),
            transform=RULES[self.rule],
            selection=SELECTIONS[self.selection],
            scale=Scale.from_float(head_dim**-0.5),
        )


class Resv:
    """Retrieval of the past for one stream of tokens (see `Policy`).

    A layer's past is sinks, then tokens in its HC tables, then a window in time order. Sinks and window are
    resident and always attended; of the tables' tokens those of the selected clusters are. Tokens that leave
    the window are hashed and clustered, after the chunk's selection or, `cluster_first`, before it. The
    tables are the host's, and keys and values the cache's, or all are in the memory of a DRE.
    """

    name = "resv"

    def __init__(
        self,
        settings: ResvSettings,
        shape: Shape,
        transport: Transport,
        sequence: int = 0,
        layout: Layout | None = None,
        tables: Tables | None = None,
        past: tuple[int, int] | None = None,
        products: Products | None = None,
    ) -> None:
        """A policy that has seen nothing yet, or only what its tables hold.

        Args:
            settings: knobs.
            shape: the decoder's dimensions.
            transport: the accelerator; the policy sets its registers.
            sequence: stream id in the commands, 0..65535.
            layout: of the tables in the memory of a DRE (`memory_tables.lay_out`); None for a KVPU.
            tables: other ones than those above; then `layout` does not matter.
            past: tokens that have passed all layers, and of these the end of those in `tables`, where an
                earlier process has filled them; None for empty ones.
            products: with a layout, where hash-bits and scores are computed; None is the golden arithmetic.

        Raises:
            UserError: the accelerator can't hold such hashes or so many KV heads.
            DriverError: the accelerator refused or did not answer.
        """
        config = transport.config
        if settings.n_hp > config.hcu.hash_bits:
            raise UserError(
                f"n_hp is {settings.n_hp}, but preset {config.name}'s HCU holds hashes of "
                f"{config.hcu.hash_bits} bits; lower n_hp or widen hash_bits"
            )
        if shape.kv_heads > MASK_HEADS:
            raise UserError(
                f"the model has {shape.kv_heads} KV heads, but a SELECT command has room for {MASK_HEADS}; "
                "choose a model with fewer"
            )
        self.settings, self.shape = settings, shape
        self._transport = transport
        if tables is None:
            tables = (
                HostTables(settings, shape, transport, sequence)
                if layout is None
                else MemoryTables(settings, shape, transport, sequence, layout, products)
            )
        self.tables = tables
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
            rtl: what went over the transport (`TransportReport.to_dict`).
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
            "rtl": self._transport.report.to_dict(),
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
