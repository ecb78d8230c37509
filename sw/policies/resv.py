"""Policy `resv`: hash-bit key clustering and WiCSum thresholding on the retrieval engine (paper IV)."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from vrex.model import arith, hashing, quant
from vrex.model.config import MAX_CLUSTERS, HcuConfig
from vrex.model.hctable import HCTable
from vrex.model.hcu import Clustering, TableFullError
from vrex.model.wtu import TH_R_BITS, Rule, Scale, Selection, Transform
from vrex.sw.driver.engine import Engine, SelectRequest
from vrex.sw.driver.transport import DriverError, Transport
from vrex.sw.errors import UserError
from vrex.sw.policies.account import BF16_BYTES
from vrex.sw.policies.base import Chunk
from vrex.sw.policies.ratio import RatioMeter
from vrex.sw.policies.settings import check_choice, check_int, check_th_r
from vrex.sw.policies.shape import Shape

RULES = {"raw": Transform.RAW, "shift": Transform.SHIFT, "exp": Transform.EXP}
SCOPES = ("layer", "head")
PREDICTIONS = ("same", "next", "reuse")
SELECTIONS = {"exact": Selection.EXACT, "bucket": Selection.BUCKET}
MEAN_BITS = (16, *quant.BITS)
COUNT_BYTES = 2
INDEX_BYTES = 4
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
            quantised per cluster and KV head (see `vrex.model.quant`).
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


class _Table:
    """An HC table with what belongs to it.

    Attributes:
        hc: the table.
        planes: its hyperplanes.
        heads: KV heads whose keys it holds.
        mask: the same, one bit a head.
        row_bytes: a cluster as SCORE and SELECT read it: mean and count.
    """

    def __init__(self, hc: HCTable, planes: np.ndarray, heads: slice, dim: int, mean_bits: int) -> None:
        self.hc, self.planes, self.heads = hc, planes, heads
        groups = heads.stop - heads.start
        self.mask = ((1 << groups) - 1) << heads.start
        self._bits, self._copy = mean_bits, np.empty((0, groups, dim // groups), dtype=np.uint16)
        self._mean_bytes = dim * BF16_BYTES
        self._copy_bytes = 0 if mean_bits == 16 else quant.nbytes(dim, groups, mean_bits)
        self.row_bytes = (self._copy_bytes or self._mean_bytes) + COUNT_BYTES

    def keys(self) -> np.ndarray:
        """Key_cluster as SCORE reads it, BF16 bits [C, KV heads of the table, head_dim]."""
        if self._bits == 16:
            return self.hc.means.reshape(self.hc.clusters, *self._copy.shape[1:])
        return self._copy[: self.hc.clusters]

    def refresh(self, clusters: np.ndarray) -> None:
        """Quantises the means of these clusters anew."""
        if self._bits == 16:
            return
        if len(self._copy) < self.hc.clusters:
            self._copy = np.resize(self._copy, (2 * self.hc.clusters, *self._copy.shape[1:]))
        means = self.hc.means[clusters].reshape(len(clusters), *self._copy.shape[1:])
        self._copy[clusters] = quant.dequantise(*quant.quantise(means, self._bits))

    def update_bytes(self, tokens: int, opened: int, hash_bytes: int) -> int:
        """What taking in tokens moves, each by itself: the first of a cluster finds nothing to read."""
        entry = self._mean_bytes + COUNT_BYTES
        read = tokens * self._mean_bytes + (tokens - opened) * entry
        written = tokens * (entry + self._copy_bytes + INDEX_BYTES) + opened * hash_bytes
        return read + written


@dataclass(frozen=True)
class _Selection:
    """What a layer's tables gave: per KV head ascending token ids out of [sinks, tabled)."""

    tokens: list[np.ndarray]
    tabled: int


class _Layer:
    """What one decoder layer remembers: of its `tokens` tokens, [sinks, tabled) are in its tables."""

    def __init__(self, index: int, settings: ResvSettings, shape: Shape, hcu: HcuConfig) -> None:
        self.tokens = 0
        self.tabled = settings.sinks
        self._kv_heads = shape.kv_heads
        heads = shape.kv_heads if settings.scope == "layer" else 1
        dim, words = heads * shape.head_dim, -(-hcu.hash_bits // hashing.WORD_BITS)
        self.tables = [
            _Table(
                HCTable(words, dim, hcu.chunk_tokens),
                hashing.hyperplanes(settings.seed, index, first // heads, settings.n_hp, dim),
                slice(first, first + heads),
                dim,
                settings.mean_bits,
            )
            for first in range(0, shape.kv_heads, heads)
        ]

    def nothing(self) -> _Selection:
        """The selection on empty tables."""
        return _Selection([np.zeros(0, dtype=np.int64)] * self._kv_heads, self.tabled)


class Resv:
    """Retrieval of the past for one stream of tokens (see `Policy`).

    A layer's past is sinks, then tokens in its HC tables, then a window in time order. Sinks and window are
    resident and always attended; of the tables' tokens those of the selected clusters are. Tokens that leave
    the window are hashed and clustered, after the chunk's selection or, `cluster_first`, before it.
    """

    name = "resv"

    def __init__(self, settings: ResvSettings, shape: Shape, transport: Transport, sequence: int = 0) -> None:
        """A policy that has seen nothing yet.

        Args:
            settings: knobs.
            shape: the decoder's dimensions.
            transport: the accelerator; the policy sets its registers.
            sequence: stream id in the commands, 0..65535.

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
        self._sequence = sequence
        self._engine = Engine(transport)
        self._engine.set_rule(settings.wtu_rule(shape.head_dim), settings.th_hd)
        self._window = settings.window * shape.step_tokens
        self._layers = [_Layer(index, settings, shape, config.hcu) for index in range(shape.layers)]
        # What the layer before selected for this one, when the prediction comes from there.
        self._ahead = _Selection([], 0)
        self._ratio = RatioMeter(shape)
        self._fetched_tokens = 0
        self._metadata_bytes = 0

    def select(self, chunk: Chunk) -> list[np.ndarray]:
        """Past tokens that each KV head attends to (see `Policy.select`).

        Raises:
            DriverError: the accelerator refused or did not answer, or a table is full.
            ValueError: the chunk does not follow the one before.
        """
        if chunk.start != self._layers[chunk.layer].tokens:
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
        """
        tables = [[table.hc for table in layer.tables] for layer in self._layers]
        per_layer = [sum(hc.clusters for hc in layer) for layer in tables]
        clusters = sum(per_layer)
        tokens = sum(hc.tokens for layer in tables for hc in layer)
        return {
            "ratio": self._ratio.report(),
            "fetched": {
                "tokens": self._fetched_tokens,
                "bytes": self._fetched_tokens * 2 * self.shape.head_dim * BF16_BYTES,
                "metadata_bytes": self._metadata_bytes,
            },
            "clusters": clusters,
            "clusters_per_layer": per_layer,
            "tokens_per_cluster": tokens / clusters if clusters else None,
            "rows": self._engine.rows,
            "degenerate_rows": self._engine.degenerate,
            "predict": self.settings.predict,
            "rtl": self._transport.report.to_dict(),
        }

    def _predict(self, chunk: Chunk) -> _Selection:
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

    def _ask(self, wanted: list[tuple[int, np.ndarray]]) -> list[_Selection]:
        """Selections on the tables of (layer, queries as in `Chunk.q`), all in one batch."""
        targets = [
            (
                self._layers[index],
                table,
                SelectRequest(self._scores(table, q), table.hc.counts, index, table.mask),
            )
            for index, q in wanted
            for table in self._layers[index].tables
            if table.hc.clusters
        ]
        masks = self._engine.select([request for _, _, request in targets], sequence=self._sequence)
        selections = {index: self._layers[index].nothing() for index, _ in wanted}
        for (_, table, request), heads in zip(targets, masks, strict=True):
            tokens = [table.hc.tokens_of(mask) for mask in heads]
            self._metadata_bytes += table.hc.clusters * table.row_bytes + sum(map(len, tokens)) * INDEX_BYTES
            selections[request.layer].tokens[table.heads] = tokens
        return [selections[index] for index, _ in wanted]

    def _scores(self, table: _Table, q: np.ndarray) -> np.ndarray:
        """Queries times Key_cluster, BF16 bits [KV heads of the table, rows, C]; each head its own slice."""
        kv_heads, head_dim = self.shape.kv_heads, self.shape.head_dim
        grouped = arith.to_bf16(q).reshape(kv_heads, -1, head_dim)[table.heads]
        means = table.keys()
        return np.stack([arith.dot_tree_bf16(rows, means[:, head]) for head, rows in enumerate(grouped)])

    def _attend(self, chunk: Chunk, selection: _Selection) -> list[np.ndarray]:
        """Sinks, selected tokens, and everything that was in no table; only of the past."""
        start = chunk.start
        sinks = np.arange(min(self.settings.sinks, start))
        recent = np.arange(min(selection.tabled, start), start)
        # With `cluster_first` the chunk's own tokens may be in the table already.
        selected = [tokens[: np.searchsorted(tokens, start)] for tokens in selection.tokens]
        attended = [np.concatenate([sinks, tokens, recent]) for tokens in selected]
        self._fetched_tokens += sum(len(tokens) for tokens in selected)
        self._ratio.add(chunk.stage, chunk.layer, [len(tokens) for tokens in attended], start)
        return attended

    def _retire(self, chunk: Chunk) -> None:
        """Takes the chunk into the window, and what leaves the window into the tables."""
        layer = self._layers[chunk.layer]
        layer.tokens = chunk.start + chunk.k.shape[1]
        first, last = layer.tabled, max(layer.tabled, layer.tokens - self._window)
        if first == last:
            return
        keys = arith.to_bf16(_keys(chunk, first, last))
        for table in layer.tables:
            self._cluster(chunk.layer, table, keys[table.heads], np.arange(first, last))
        layer.tabled = last

    def _cluster(self, layer: int, table: _Table, keys: np.ndarray, tokens: np.ndarray) -> None:
        """Adds tokens to a table; keys are BF16 bits [KV heads of the table, n, head_dim]."""
        hash_bits = self._transport.config.hcu.hash_bits
        known = table.hc.clusters

        def cluster(hashes: np.ndarray, clusters: np.ndarray) -> Clustering:
            self._metadata_bytes += len(clusters) * hash_bits // 8
            return self._engine.cluster(hashes, clusters, sequence=self._sequence, layer=layer)

        flat = keys.transpose(1, 0, 2).reshape(len(tokens), -1)
        try:
            joined = table.hc.add(hashing.hash_keys(flat, table.planes, hash_bits), flat, tokens, cluster)
        except TableFullError:
            raise DriverError(
                f"the HC table of layer {layer} would need more than {MAX_CLUSTERS} clusters; "
                "raise th_hd or shorten the video"
            ) from None
        table.refresh(np.unique(joined))
        opened = table.hc.clusters - known
        self._metadata_bytes += table.update_bytes(len(tokens), opened, hash_bits // 8)


def _keys(chunk: Chunk, first: int, last: int) -> np.ndarray:
    """Keys of tokens first..last-1 out of past and chunk, float32 [KV heads, last - first, head_dim]."""
    past = chunk.keys[:, first:last]
    own = chunk.k[:, max(first - chunk.start, 0) : max(last - chunk.start, 0)]
    return np.concatenate([past, own], axis=1)
