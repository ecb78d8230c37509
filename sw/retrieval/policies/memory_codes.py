"""Policy `resv-bits` with codes, keys and values in the memory of a unit `recall`: `--offload dre`."""

from dataclasses import replace
from typing import Any

import numpy as np

from vrex.errors import UserError
from vrex.model.config import Config
from vrex.model.dre import codes, packed, wtu
from vrex.model.dre.token_store import MAX_TOKENS, SCALE_BYTES, STORE_HEADER, kv_bytes
from vrex.model.dre.wtu import Scale
from vrex.model.lib import arith
from vrex.sw.driver.command_interface import CommandTransport
from vrex.sw.driver.recall import RecallEngine, RecallRequest, StoreLayout, StoreRequest
from vrex.sw.retrieval.policies.account import BF16_BYTES, Account
from vrex.sw.retrieval.policies.base import Chunk, Delivered
from vrex.sw.retrieval.policies.code_table import Coder, silent_rows
from vrex.sw.retrieval.policies.narrow import BF16_BITS, rotations
from vrex.sw.retrieval.policies.ranking import grouped
from vrex.sw.retrieval.policies.resident import Resident, bf16_of
from vrex.sw.retrieval.policies.resv_bits import ResvBitsSettings, causal_rows
from vrex.sw.retrieval.policies.shape import Shape


def fitted(config: Config, settings: ResvBitsSettings, shape: Shape) -> Config:
    """An accelerator's configuration for a decoder whose tokens are in its memory.

    Raises:
        UserError: the unit can't serve such a decoder or such settings.
    """
    if settings.levels != 1:
        raise UserError("a DRE reads the codes of all tokens: set levels=1, or leave --offload dre out")
    try:
        bits = config.with_code_bits(settings.bits)
        return replace(bits, kvmu=replace(bits.kvmu, head_dim=shape.head_dim))
    except ValueError as error:
        raise UserError(f"a DRE can't serve this model: {error}; leave --offload dre out") from error


class ResvBitsInMemory:
    """`ResvBits` (see `Policy`) on one store a layer and KV head; sinks and window are beside it.

    The host keeps neither codes nor keys of what has left the window. A token whose key is not finite has no
    vote and is never delivered, even where all others are.
    """

    name = "resv-bits"

    def __init__(
        self, settings: ResvBitsSettings, shape: Shape, transport: CommandTransport, layout: StoreLayout
    ) -> None:
        """Empty stores; sets the accelerator's registers.

        Args:
            settings: knobs; one level.
            shape: the decoder's dimensions.
            transport: to a unit of the configuration that `fitted` gives.
            layout: of as many stores as the decoder has KV heads in all layers, packed with `kv_bits` 4.

        Raises:
            DriverError: the accelerator refused or did not answer.
        """
        self.settings, self._shape = settings, shape
        self._window = settings.window * shape.step_tokens
        self._kv_bytes = kv_bytes(transport.config, layout.headers[0].is_packed)
        self._engine = RecallEngine(transport, layout)
        self._engine.set_scale(Scale.from_float(shape.head_dim**-0.5))
        self._coders: list[list[Coder]] = [[] for _ in range(shape.layers)]
        self._resident = [Resident(settings.sinks, shape) for _ in range(shape.layers)]
        packs = settings.kv_bits != BF16_BITS
        self._rotations = [
            rotations(settings, layer, shape) if packs else None for layer in range(shape.layers)
        ]
        # Of a layer's `tokens` tokens, [sinks, stored) are in its stores.
        self._tokens = [0] * shape.layers
        self._stored = [settings.sinks] * shape.layers
        self._rows = self._silent = self._nans = self._delivered_bytes = 0
        self._account = Account(shape, predict="same")

    def select(self, chunk: Chunk) -> Delivered:
        """Sinks, the tokens with the most votes, and the window (see `Policy.select`).

        Raises:
            DriverError: the accelerator refused or did not answer, or a store is full.
            ValueError: the chunk does not follow the one before, or the cache is not in BF16.
        """
        layer, settings, shape = chunk.layer, self.settings, self._shape
        if chunk.start != self._tokens[layer]:
            raise ValueError("a policy serves one stream, chunk by chunk: make a new one for another")
        own = bf16_of(chunk)
        first = min(settings.sinks, chunk.start)
        last = max(first, chunk.start - self._window)
        moved = self._store(layer, last, chunk.start)
        coded, kv = last - first, [np.zeros((0, 2, shape.head_dim), dtype=np.uint16)] * shape.kv_heads
        if coded:
            kv = self._recall(chunk, own, first, last)
            moved += shape.kv_heads * (STORE_HEADER.size + coded * self._code_bytes)
        around = self._resident[layer].around(kv, first, last, chunk.start)
        self._resident[layer].add(own, max(last, settings.sinks))
        self._tokens[layer] += own.shape[2]
        self._account.add(
            chunk,
            [head.shape[1] for head in around.kv],
            fetched=sum(map(len, kv)),
            metadata_bytes=moved,
            fetched_bytes=sum(map(len, kv)) * self._kv_bytes,
        )
        return around

    @property
    def _code_bytes(self) -> int:
        return self.settings.bits // 8 + SCALE_BYTES

    def _store(self, layer: int, last: int, end: int) -> int:
        """Puts the tokens that have left the window into their stores; the first ones make these.

        Returns:
            Bytes moved for that.
        """
        settings, shape, resident = self.settings, self._shape, self._resident[layer]
        new = last - self._stored[layer]
        if new <= 0:
            return 0
        if not self._coders[layer]:
            known = resident.read(settings.sinks, end)[0]
            for head, keys in enumerate(known):
                planes = codes.planes(settings.seed, layer, head, settings.bits, shape.head_dim)
                self._coders[layer].append(Coder.around(planes, keys))
                self._engine.create(self._index(layer, head), self._coders[layer][head].identity)
        requests = []
        for head, coder in enumerate(self._coders[layer]):
            kv = resident.read(self._stored[layer], last)[:, head].transpose(1, 0, 2)
            made = coder.encode(coder.centred(kv[:, 0]))
            self._nans += int(((made.scales & 0x7FFF) > wtu.INFINITY).sum())
            rows = self._rotations[layer]
            if rows is not None:
                kv = np.stack([packed.rotate(kv[:, 0], rows[head]), kv[:, 1]], axis=1)
            requests.append(StoreRequest(self._index(layer, head), layer, made, kv))
        self._engine.store(requests)
        self._stored[layer] = last
        return shape.kv_heads * (STORE_HEADER.size + new * (shape.head_dim * BF16_BYTES + self._code_bytes))

    def _recall(self, chunk: Chunk, own: np.ndarray, first: int, last: int) -> list[np.ndarray]:
        """K and V that each KV head's store delivers, BF16 bits uint16 [n, 2, head_dim]."""
        layer, resident = chunk.layer, self._resident[chunk.layer]
        queries = arith.to_bf16(grouped(chunk.q, self._shape.kv_heads))
        around = np.concatenate(
            [resident.read(0, first)[0], resident.read(last, chunk.start)[0], own[0]], axis=1
        )
        seen = causal_rows(chunk, queries.shape[1], first + chunk.start - last)
        requests = []
        for head, coder in enumerate(self._coders[layer]):
            scores = coder.residents(queries[head], around[head], seen)
            rows = coder.rows(queries[head], scores)
            requests.append(RecallRequest(self._index(layer, head), layer, rows))
        self._rows += queries.shape[0] * queries.shape[1]
        self._silent += sum(map(silent_rows, queries))
        wanted = min(self.settings.wanted(chunk), MAX_TOKENS)
        delivered = [recalled.kv for recalled in self._engine.recall(requests, wanted)]
        self._delivered_bytes += sum(kv.nbytes for kv in delivered)
        turned = self._rotations[layer]
        if turned is None:
            return delivered
        return [
            np.stack([packed.rotate_back(kv[:, 0], rows), kv[:, 1]], axis=1)
            for kv, rows in zip(delivered, turned, strict=True)
        ]

    def _index(self, layer: int, head: int) -> int:
        return layer * self._shape.kv_heads + head

    def report(self) -> dict[str, Any]:
        """The keys of `ResvBits.report`, and `stores`: what is in memory, and what went to and from it.

        Returns:
            As there, and in `stores`:
                delivered_bytes: on the stream `kv`.
                tokens: in the stores, summed over layers and KV heads.
                bytes: of headers, codes and scales in use.
                counters: of the engine (`RecallEngine.counters`).
        """
        shape = self._shape
        stored = sum(tokens - self.settings.sinks for tokens in self._stored) * shape.kv_heads
        stores = sum(map(len, self._coders))
        return (
            self._account.report()
            | {"rtl": self._engine.transport.report.to_dict()}
            | {
                "rows": self._rows,
                "degenerate_rows": self._silent,
                "nan_keys": self._nans,
                "stores": {
                    "delivered_bytes": self._delivered_bytes,
                    "tokens": stored,
                    "bytes": stores * STORE_HEADER.size + stored * self._code_bytes,
                    "counters": self._engine.counters(),
                },
            }
        )
