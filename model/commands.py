"""Commands of the accelerator: 32-byte descriptors in, 16-byte completions out, the same on every transport.

Little-endian. A command's payload follows its descriptor on the data stream: `length` bytes, a whole
number of bus beats. Every field of a payload or result (the tokens, the clusters, the counts, each row of
scores, each bitmask) starts on a new beat and its last beat is filled with zeros. A command that fails
still consumes its payload, returns no result and leaves the registers as they were.

========  ==================================================  ==========================================
opcode    payload                                             result
========  ==================================================  ==========================================
SETREG    none; `count` = register, `param` = value           none
GETREG    none; `count` = register                            none; value in the completion's `detail`
CLUSTER   `count` token hashes, `clusters` founder hashes     one 32-bit decision a token; `detail` =
                                                              clusters opened
SELECT    `clusters` token counts (u16), then for each KV     one bitmask of `clusters` bits per KV head
          head `count` rows of `clusters` BF16 scores         in the mask; `detail` = degenerate rows
========  ==================================================  ==========================================
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from vrex.model.config import Config
from vrex.model.hcu import Clustering

DESCRIPTOR = struct.Struct("<BBHHHIHHQII")
COMPLETION = struct.Struct("<HHIII")


class Opcode(IntEnum):
    """Operations; every other value completes with BAD_OPCODE."""

    SETREG = 1
    GETREG = 2
    CLUSTER = 3
    SELECT = 4


class Status(IntEnum):
    """How a command ended."""

    OK = 0
    BAD_OPCODE = 1
    BAD_REGISTER = 2
    BAD_VALUE = 3
    BAD_COUNT = 4
    BAD_LENGTH = 5
    CAPACITY = 6
    TABLE_FULL = 7


class Register(IntEnum):
    """Registers of SETREG and GETREG; those from HCU_BUSY on are counters and read-only.

    Counters count cycles and wrap at 2^32. TH_R is Q0.16. SCALE holds the mantissa in bits 0..15 and the
    signed exponent in bits 16..23 (`vrex.model.wtu.Scale`).
    """

    TH_HD = 0
    TH_R = 1
    TRANSFORM = 2
    SELECTION = 3
    SCALE = 4
    HCU_BUSY = 16
    HCU_WAIT_IN = 17
    HCU_WAIT_OUT = 18
    WTU_BUSY = 19
    WTU_WAIT_IN = 20
    WTU_WAIT_OUT = 21


@dataclass(frozen=True)
class Descriptor:
    """One command.

    Attributes:
        opcode: see `Opcode` (any byte, so that faults can be tested).
        tag: 16 bits, returned in the completion.
        sequence: stream of tokens it belongs to, 16 bits.
        layer: decoder layer, 16 bits.
        kv_heads: 32-bit mask; SELECT expects one group of rows per set bit, lowest first.
        count: tokens, rows per KV head, or register; 16 bits.
        clusters: clusters in the table, 16 bits.
        address: for commands that use memory; 64 bits.
        length: payload in bytes, 32 bits.
        param: register value, 32 bits.
    """

    opcode: int
    tag: int = 0
    sequence: int = 0
    layer: int = 0
    kv_heads: int = 0
    count: int = 0
    clusters: int = 0
    address: int = 0
    length: int = 0
    param: int = 0

    def pack(self) -> bytes:
        """32 bytes; byte 1 is reserved and 0.

        Raises:
            struct.error: a field does not fit.
        """
        return DESCRIPTOR.pack(
            self.opcode,
            0,
            self.tag,
            self.sequence,
            self.layer,
            self.kv_heads,
            self.count,
            self.clusters,
            self.address,
            self.length,
            self.param,
        )

    @classmethod
    def unpack(cls, data: bytes) -> "Descriptor":
        """Inverse of `pack`."""
        opcode, _, *rest = DESCRIPTOR.unpack(data)
        return cls(opcode, *rest)


@dataclass(frozen=True)
class Completion:
    """End of one command.

    Attributes:
        tag: the command's.
        status: see `Status`.
        cycles: from taking the descriptor to this completion; 0 on transports without a clock.
        size: result bytes.
        detail: see the table of commands.
    """

    tag: int
    status: int
    cycles: int = 0
    size: int = 0
    detail: int = 0

    def pack(self) -> bytes:
        """16 bytes."""
        return COMPLETION.pack(self.tag, self.status, self.cycles, self.size, self.detail)

    @classmethod
    def unpack(cls, data: bytes) -> "Completion":
        """Inverse of `pack`."""
        return cls(*COMPLETION.unpack(data))


class CommandError(Exception):
    """A command that completes with a status other than OK."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.name)
        self.status = status


def to_beats(config: Config, data: bytes) -> bytes:
    """`data` filled with zeros up to a whole number of bus beats."""
    return data + bytes(-len(data) % config.bus_bytes)


def hashes_to_bytes(config: Config, hashes: np.ndarray) -> bytes:
    """Hash words uint32 [n, words] as `hash_bits`-wide little-endian fields."""
    raw = np.ascontiguousarray(hashes, dtype="<u4").view(np.uint8).reshape(len(hashes), 4 * hashes.shape[1])
    return raw[:, : config.hcu.hash_bits // 8].tobytes()


def bytes_to_hashes(config: Config, data: bytes, n: int) -> np.ndarray:
    """Inverse of `hashes_to_bytes` for the first n hashes."""
    size = config.hcu.hash_bits // 8
    raw = np.zeros((n, -(-size // 4) * 4), dtype=np.uint8)
    raw[:, :size] = np.frombuffer(data, dtype=np.uint8, count=n * size).reshape(n, size)
    return raw.view("<u4").astype(np.uint32)


def cluster_length(config: Config, tokens: int, clusters: int) -> int:
    """Payload bytes of CLUSTER."""
    width = config.hcu.hash_bits
    return (config.beats(tokens, width) + config.beats(clusters, width)) * config.bus_bytes


def select_length(config: Config, rows: int, clusters: int, kv_heads: int) -> int:
    """Payload bytes of SELECT for a mask of KV heads and `rows` rows each."""
    fields = 1 + rows * kv_heads.bit_count()
    return fields * config.beats(clusters, 16) * config.bus_bytes


def cluster_command(
    config: Config, tokens: np.ndarray, clusters: np.ndarray, *, tag: int, sequence: int = 0, layer: int = 0
) -> tuple[Descriptor, bytes]:
    """CLUSTER with its payload.

    Args:
        config: accelerator.
        tokens: hash words, uint32 [n, words], n <= chunk_tokens.
        clusters: hash words of the open clusters, uint32 [C, words].
        tag, sequence, layer: descriptor fields.
    """
    payload = b"".join(to_beats(config, hashes_to_bytes(config, part)) for part in (tokens, clusters))
    return (
        Descriptor(
            Opcode.CLUSTER,
            tag,
            sequence,
            layer,
            count=len(tokens),
            clusters=len(clusters),
            length=len(payload),
        ),
        payload,
    )


def select_command(
    config: Config,
    scores: np.ndarray,
    counts: np.ndarray,
    *,
    tag: int,
    sequence: int = 0,
    layer: int = 0,
    kv_heads: int | None = None,
) -> tuple[Descriptor, bytes]:
    """SELECT with its payload.

    Args:
        config: accelerator.
        scores: BF16 bits, uint16 [KV heads, rows, C].
        counts: token counts, integers [C], 0..65535.
        tag, sequence, layer: descriptor fields.
        kv_heads: mask with one bit per KV head of `scores`; by default the lowest ones.
    """
    n_heads, rows, clusters = scores.shape
    mask = (1 << n_heads) - 1 if kv_heads is None else kv_heads
    per_beat = config.bus_bits // 16
    fields = np.zeros((1 + n_heads * rows, config.beats(clusters, 16) * per_beat), dtype="<u2")
    fields[0, :clusters] = counts
    fields[1:, :clusters] = scores.reshape(n_heads * rows, clusters)
    payload = fields.tobytes()
    return (
        Descriptor(
            Opcode.SELECT,
            tag,
            sequence,
            layer,
            kv_heads=mask,
            count=rows,
            clusters=clusters,
            length=len(payload),
        ),
        payload,
    )


def pack_clustering(config: Config, result: Clustering) -> bytes:
    """Result of CLUSTER: index in bits 0..15, distance in 16..23, opened in bit 24 of each word."""
    words = result.cluster | result.distance << 16 | result.opened.astype(np.int32) << 24
    return to_beats(config, words.astype("<u4").tobytes())


def unpack_clustering(data: bytes, tokens: int) -> Clustering:
    """Inverse of `pack_clustering`."""
    words = np.frombuffer(data, dtype="<u4", count=tokens).astype(np.int64)
    return Clustering(
        (words & 0xFFFF).astype(np.int32),
        (words >> 16 & 0xFF).astype(np.int32),
        (words >> 24 & 1).astype(bool),
    )


def pack_masks(config: Config, masks: Sequence[np.ndarray]) -> bytes:
    """Result of SELECT: bool [C] per KV head, bit i of a mask at bit i % 8 of its byte i // 8."""
    return b"".join(to_beats(config, np.packbits(mask, bitorder="little").tobytes()) for mask in masks)


def unpack_masks(config: Config, data: bytes, clusters: int, n_heads: int) -> np.ndarray:
    """Inverse of `pack_masks`: bool [KV heads, C]."""
    size = config.beats(clusters, 1) * config.bus_bytes
    raw = np.frombuffer(data, dtype=np.uint8, count=n_heads * size).reshape(n_heads, size)
    return np.unpackbits(raw, axis=1, count=clusters, bitorder="little").astype(bool)
