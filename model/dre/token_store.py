"""The token store in memory, address for address: codes, scales, K and V of one KV head, in token order.

A store lies at a page of the device window; its pages follow each other:

=========  ===========================================  ==================================================
array      an entry                                     entries
=========  ===========================================  ==================================================
header     32 bytes, see `StoreHeader`                  1, in page 0
codes      sign bits of the token's key                 `cap_tokens`, from `codes_page`
           (`vrex.model.dre.codes`)
scales     BF16 scale f of the code                     `cap_tokens`, from `scales_page`
host       K, then V of the token, BF16 [head_dim]; or  `cap_tokens`, from `host_page`, in the host window
           its record of 4-bit values
           (`vrex.model.dre.packed`), filled up to a
           whole bus beat
=========  ===========================================  ==================================================

Tokens are only ever added, and the header's count is written last, so an error in the middle leaves a store
as it was. Where it is the count's own write that gets no answer, the host must look which of the two it is.
"""

import struct
import zlib
from dataclasses import dataclass, replace

import numpy as np

from vrex.model.commands import CommandError, Status, bytes_to_codes, codes_to_bytes
from vrex.model.config import Config
from vrex.model.dre import packed
from vrex.model.dre.codes import Codes
from vrex.model.dre.in_memory import InMemory
from vrex.model.lib.layout import Field, Layout
from vrex.model.lib.memory import PAGE, Memory

SCALE_BYTES = 2

STORE_HEADER = Layout(
    "STORE_HEADER",
    (
        Field("tokens", 32, "tokens in the store"),
        Field("identity", 32, "of planes and centre, with which all codes are made (`identity`)"),
        Field("cap_tokens", 32, "tokens that fit, at most 65 535"),
        Field("codes_page", 32, "page of the array `codes`, from the store's first page"),
        Field("scales_page", 32, "of `scales`"),
        Field("host_page", 32, "number of the first page of K and V"),
        Field("flags", 16, "`PACKED` (bit 0)"),
        Field("reserved", 48),
    ),
)
"""First 32 bytes of a store."""

PACKED = 1
"""Flag of a header: K and V are kept in 4 bits."""

MAX_TOKENS = 65_535
"""Tokens one store can hold: RECALL names all of them in 16 bits."""


def identity(planes: np.ndarray, centre: np.ndarray) -> int:
    """Names what codes are made with: the CRC-32 of the planes' rows and the centre, little-endian.

    Args:
        planes: BF16 bits, uint16 [bits, dim].
        centre: BF16 bits, uint16 [dim].
    """
    return zlib.crc32(centre.astype("<u2").tobytes(), zlib.crc32(planes.astype("<u2").tobytes()))


@dataclass(frozen=True)
class StoreHeader:
    """The fields of `STORE_HEADER`. The engine changes `tokens`; the host writes the rest once."""

    tokens: int
    identity: int
    cap_tokens: int
    codes_page: int
    scales_page: int
    host_page: int
    flags: int = 0

    @property
    def is_packed(self) -> bool:
        """Whether K and V are kept in 4 bits."""
        return bool(self.flags & PACKED)

    def pack(self) -> bytes:
        """32 bytes, little-endian."""
        return STORE_HEADER.pack(vars(self))

    @classmethod
    def unpack(cls, data: bytes) -> "StoreHeader":
        """Inverse of `pack`."""
        return cls(**STORE_HEADER.unpack(data))


@dataclass(frozen=True)
class StorePlan:
    """Where a new store goes.

    Attributes:
        header: of the empty store.
        device_pages: pages of the device window from the store's first one.
        host_pages: pages of the host window from `header.host_page`.
    """

    header: StoreHeader
    device_pages: int
    host_pages: int


def kv_bytes(config: Config, is_packed: bool) -> int:
    """Bytes of a token's K and V in memory."""
    if not is_packed:
        return config.kvmu.token_bytes
    size = packed.nbytes(2, config.kvmu.head_dim)
    return -(-size // config.bus_bytes) * config.bus_bytes


def plan_store(
    config: Config, cap_tokens: int, host_page: int, made_with: int, *, is_packed: bool = False
) -> StorePlan:
    """Lays out an empty store.

    Args:
        config: accelerator.
        cap_tokens: 1..65535.
        host_page: first page of its K and V in the host window.
        made_with: see `identity`.
        is_packed: keep K and V in 4 bits.

    Raises:
        ValueError: so many tokens do not fit.
    """
    if not 1 <= cap_tokens <= MAX_TOKENS:
        raise ValueError(f"a store has room for 1 to {MAX_TOKENS} tokens, not {cap_tokens}")
    sizes = (config.codes.bits // 8, SCALE_BYTES, kv_bytes(config, is_packed))
    codes, scales, host = (-(-cap_tokens * size // PAGE) for size in sizes)
    header = StoreHeader(0, made_with, cap_tokens, 1, 1 + codes, host_page, PACKED if is_packed else 0)
    return StorePlan(header, 1 + codes + scales, host)


class TokenStore(InMemory):
    """The store at an address, for one command.

    Attributes:
        header: as the command found it.
    """

    def __init__(self, config: Config, memory: Memory, address: int) -> None:
        """Reads the header.

        Raises:
            CommandError: BAD_ADDRESS.
        """
        super().__init__(config, memory, address)
        self.header = StoreHeader.unpack(self._view(address, STORE_HEADER.size).tobytes())

    def codes(self) -> Codes:
        """Codes of all tokens."""
        n, (words, scales, _) = self.header.tokens, self._arrays()
        return Codes(
            bytes_to_codes(self.config, self._view(*words).tobytes(), n),
            self._view(*scales).view("<u2").astype(np.uint16),
        )

    def kv(self, token: int) -> np.ndarray:
        """K and V of a token as they are delivered, BF16 bits uint16 [2, head_dim]."""
        size, dim = kv_bytes(self.config, self.header.is_packed), self.config.kvmu.head_dim
        raw = self._view(self.header.host_page * PAGE + token * size, size)
        if not self.header.is_packed:
            return raw.view("<u2").reshape(2, dim).astype(np.uint16)
        return packed.unpack(raw[None, : packed.nbytes(2, dim)], 2, dim)[0]

    def spans(self) -> list[tuple[int, int]]:
        """Address and size of all that a STORE changes: the header, and each array in use."""
        return [(self.address, STORE_HEADER.size), *self._arrays()]

    def append(self, new: Codes, kv: np.ndarray) -> int:
        """Takes tokens in; an error leaves the store as it was.

        Args:
            new: their codes.
            kv: BF16 bits, uint16 [n, 2, head_dim]: keys (RoPE applied), then values.

        Returns:
            Tokens in the store now.

        Raises:
            CommandError: KV_FULL; BAD_ADDRESS when the store leaves the windows.
        """
        after = replace(self.header, tokens=self.header.tokens + len(kv))
        if after.tokens > self.header.cap_tokens:
            raise CommandError(Status.KV_FULL)
        kept = self._records(kv) if self.header.is_packed else kv.astype("<u2")
        parts = (
            codes_to_bytes(self.config, new),
            new.scales.astype("<u2").tobytes(),
            kept.tobytes(),
        )
        for part, (first, used) in zip(parts, self._arrays(), strict=True):
            self._write(first + used, part)
        self._write(self.address, struct.pack("<I", after.tokens))
        return after.tokens

    def _records(self, kv: np.ndarray) -> np.ndarray:
        """Packed K and V, each filled up with zeros to a whole beat: uint8 [n, bytes]."""
        records = packed.pack(kv)
        return np.pad(records, ((0, 0), (0, kv_bytes(self.config, True) - records.shape[1])))

    def _arrays(self) -> list[tuple[int, int]]:
        """First byte of codes, scales, and K and V, and the bytes of each that are in use."""
        header, config = self.header, self.config
        sizes = (config.codes.bits // 8, SCALE_BYTES, kv_bytes(config, header.is_packed))
        first = [self._at(page) for page in (header.codes_page, header.scales_page)]
        first.append(header.host_page * PAGE)
        return [(at, header.tokens * size) for at, size in zip(first, sizes, strict=True)]
