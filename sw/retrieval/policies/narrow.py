"""Keys and values in 4 bits: what a policy keeps outside sinks and window, packed as memory holds it.

Sinks, window and chunk stay in BF16. A token that leaves the window is packed (`vrex.model.dre.packed`), its
key rotated before that where the policy's settings say so; what the policy's own tables hold of it, such as a
hash or a code, they take from its BF16 key.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from vrex.errors import UserError
from vrex.model.dre import packed
from vrex.model.lib import arith
from vrex.sw.retrieval.policies.account import BF16_BYTES, Reporting
from vrex.sw.retrieval.policies.base import Chunk, Delivered
from vrex.sw.retrieval.policies.resident import Resident
from vrex.sw.retrieval.policies.shape import Shape

KV_BITS = (16, packed.BITS)
"""Widths of a stored value: BF16 itself, or packed codes with scales."""

BF16_BITS = 16


def check_kv_bits(value: int) -> None:
    """The value must be a width of stored keys and values."""
    if value not in KV_BITS:
        raise UserError(f"kv_bits must be 16 or 4, not {value!r}")


def rotations(settings: Any, layer: int, shape: Shape) -> list[np.ndarray] | None:
    """What rotates the keys of each KV head of a layer before they are packed; None: nothing does."""
    if not getattr(settings, "rotate", False):
        return None
    return [packed.rotation(settings.seed, layer, head, shape.head_dim) for head in range(shape.kv_heads)]


class _Store:
    """Packed keys and values of one layer, token by token from `first` on.

    Held as they read back: a token is read often, and unpacks to the same bits each time.
    """

    def __init__(self, first: int, shape: Shape, rows: list[np.ndarray] | None) -> None:
        """An empty store; `rows` as `rotations` gives them."""
        self.first = self.end = first
        self._rows = rows
        self._kv = np.empty((shape.kv_heads, 0, 2, shape.head_dim), dtype=np.uint16)

    def add(self, kv: np.ndarray) -> None:
        """Packs the next tokens, BF16 bits uint16 [2, KV heads, n, head_dim]."""
        used, end = self.end - self.first, self.end - self.first + kv.shape[2]
        if end > self._kv.shape[1]:
            more = np.empty((len(self._kv), end + kv.shape[2], *self._kv.shape[2:]), dtype=np.uint16)
            self._kv = np.concatenate([self._kv, more], axis=1)
        for head, read_back in enumerate(self._kv):
            read_back[used:end] = self._through(head, kv[:, head].transpose(1, 0, 2))
        self.end += kv.shape[2]

    def _through(self, head: int, kv: np.ndarray) -> np.ndarray:
        """Keys and values [n, 2, head_dim] of one KV head, packed and unpacked."""
        count, dim = kv.shape[1:]
        if self._rows is None:
            return packed.unpack(packed.pack(kv), count, dim)
        rows = self._rows[head]
        turned = np.stack([packed.rotate(kv[:, 0], rows), kv[:, 1]], axis=1)
        read_back = packed.unpack(packed.pack(turned), count, dim)
        read_back[:, 0] = packed.rotate_back(read_back[:, 0], rows)
        return read_back

    def read(self, head: int, tokens: np.ndarray) -> np.ndarray:
        """Keys and values as they read back, BF16 bits uint16 [n, 2, head_dim]."""
        return self._kv[head, tokens - self.first]


class Narrow:
    """A policy that selects tokens, with a store of 4 bits behind it (see `Policy`).

    The cache keeps BF16 for the policy, which reads the keys that enter its tables there; attention takes
    from it nothing but the chunk.
    """

    def __init__(
        self,
        policy: Reporting,
        settings: Any,
        shape: Shape,
        to_numpy: Callable[[Any], np.ndarray] = np.asarray,
    ) -> None:
        """A store that is empty.

        Args:
            policy: names its choice by tokens.
            settings: its own, with `sinks` and `window`; `cluster_first` counts the chunk into the window,
                `rotate` rotates keys, with `seed`.
            shape: the decoder's dimensions.
            to_numpy: makes a numpy array of a chunk's keys or values.
        """
        self.name, self._policy, self._to_numpy = policy.name, policy, to_numpy
        self._sinks, self._window = settings.sinks, settings.window * shape.step_tokens
        self._ahead = getattr(settings, "cluster_first", False)
        self._record_bytes = packed.nbytes(2, shape.head_dim)
        self._value_bytes = shape.head_dim * BF16_BYTES
        self._resident = [Resident(settings.sinks, shape) for _ in range(shape.layers)]
        self._stores = [
            _Store(settings.sinks, shape, rotations(settings, layer, shape)) for layer in range(shape.layers)
        ]
        self._heads, self._packed = shape.kv_heads, 0

    def select(self, chunk: Chunk) -> Delivered:
        """What the policy selects, as it reads back (see `Policy.select`)."""
        choice = self._policy.select(chunk)
        assert isinstance(choice, list), f"{self.name} does not name the tokens of each KV head"
        store, resident = self._stores[chunk.layer], self._resident[chunk.layer]
        end = chunk.start + (chunk.k.shape[1] if self._ahead else 0) - self._window
        last = max(store.end, min(end, chunk.start))
        if last > store.end:
            self._packed += (last - store.end) * self._heads
            store.add(resident.read(store.end, last))
        kv = [
            store.read(head, tokens[(tokens >= store.first) & (tokens < last)])
            for head, tokens in enumerate(choice)
        ]
        delivered = resident.around(kv, min(self._sinks, chunk.start), last, chunk.start)
        new = arith.to_bf16(np.stack([self._to_numpy(chunk.k), self._to_numpy(chunk.v)]))
        resident.add(new, last)
        return Delivered(delivered.kv, keeps=True)

    def report(self) -> dict[str, Any]:
        """The policy's, its keys and values in the bytes of their records.

        A token that is packed has its value read (its key is read for the tables) and its record written;
        both are among the metadata, since a store of BF16 moves neither.
        """
        report = self._policy.report()
        fetched = report["fetched"]
        moved = self._packed * (self._value_bytes + self._record_bytes)
        return report | {
            "fetched": fetched
            | {
                "bytes": fetched["tokens"] * self._record_bytes,
                "metadata_bytes": fetched["metadata_bytes"] + moved,
            }
        }
