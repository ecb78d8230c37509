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
APPEND    `count` token hashes, then for each token and KV    one decision a token as CLUSTER's; `detail`
          head its key and its value (BF16)                   = clusters opened
RETRIEVE  for each KV head `count` rows of scores, as         bitmasks as SELECT's, and on the stream `kv`
          SELECT's                                            what FETCH gives for them; `param` 1: no `kv`
FETCH     one bitmask of `clusters` bits per KV head in the   on the stream `kv` K and V of the clusters,
          mask                                                head by head; `detail` = beats of `kv`
VOTE      `clusters` codes, as many scales (BF16), then for   one bitmask of `clusters` bits; `detail` =
          each of `count` rows its query, 8 bits a component  tokens in it
          with a scale (BF16) behind, and the scores of the
          resident tokens (BF16)
STORE     `count` codes, as many scales (BF16), then for      none; `detail` = tokens in the store now
          each token its key and its value (BF16)
RECALL    for each of `count` rows what VOTE takes for one    the bitmask, as VOTE's, and on the stream
                                                              `kv` K and V of its tokens; `detail` =
                                                              beats of `kv`
========  ==================================================  ==========================================

The KVPU executes SETREG, GETREG, CLUSTER and SELECT; the DRE executes SETREG, GETREG and APPEND to FETCH,
which work on the table at `address` (`vrex.model.dre.kvstore`); bit i of `kv_heads` is its i-th KV head. The
voter executes SETREG, GETREG and VOTE, whose `clusters` are coded tokens of one KV head
(`vrex.model.dre.codes`) and whose `param` tells residents and tokens to select (`VOTE_PARAM`). The unit
`recall` executes SETREG, GETREG, STORE and RECALL on the store of one KV head at `address`
(`vrex.model.dre.token_store`): `kv_heads` is the identity of its codes, and of RECALL `clusters` the tokens
in the store and `param` as VOTE's.
`size` of a completion counts the bytes on the result stream, `detail` of FETCH, RETRIEVE and RECALL the beats
on `kv`, also when the command failed: what came of a failed command is to be thrown away.

A row of SELECT that is longer than the WTU's score memory is sent once for each of its passes, in tiles of
`row_clusters`: in the first of `LONG_PASSES` passes the scores of each tile, in the others each tile's token
counts and then its scores. No token counts come before such rows. Every tile starts on a new beat, and every
pass and row must bring the same values. Such a row of RETRIEVE is sent once a pass too; its counts come
from memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from vrex.model.config import Config
from vrex.model.dre import codes
from vrex.model.dre.codes import Codes
from vrex.model.dre.hcu import DECISION, Clustering
from vrex.model.lib.layout import Field, Layout

DESCRIPTOR = Layout(
    "DESCRIPTOR",
    (
        Field("opcode", 8, "see `Opcode`"),
        Field("reserved", 8),
        Field("tag", 16, "returned in the completion"),
        Field("sequence", 16, "video stream that the command belongs to"),
        Field("layer", 16, "decoder layer"),
        Field(
            "kv_heads",
            32,
            "mask of KV heads; SELECT expects one group of rows per set bit, lowest first; of STORE and "
            "RECALL the identity of the codes",
        ),
        Field("count", 16, "tokens, rows per KV head, or register"),
        Field("clusters", 16, "clusters in the table"),
        Field("address", 64, "of the table, for commands that use memory"),
        Field("length", 32, "payload in bytes"),
        Field("param", 32, "register value; of RETRIEVE 1: no `kv`; of VOTE and RECALL `VOTE_PARAM`"),
    ),
)
"""A command: 32 bytes."""

VOTE_PARAM = Layout(
    "VOTE_PARAM",
    (
        Field("residents", 16, "resident tokens that each row has scores of"),
        Field("wanted", 16, "tokens to select"),
    ),
)
"""Fields of `param` of a VOTE or RECALL."""

VOTE_ROWS = 1023
"""Most rows of a VOTE or RECALL."""

STORE_TOKENS = 4095
"""Most tokens of a STORE."""

COMPLETION = Layout(
    "COMPLETION",
    (
        Field("tag", 16, "the command's"),
        Field("status", 16, "see `Status`"),
        Field("cycles", 32, "from taking the descriptor to this completion; 0 on transports without a clock"),
        Field("size", 32, "bytes on the result stream"),
        Field("detail", 32, "see the table of commands"),
    ),
)
"""The end of a command: 16 bytes."""

LONG_PASSES = 4
"""Passes of a row that does not fit the score memory: extremes, bins, scores of one bin, bitmask."""


class Opcode(IntEnum):
    """Operations; every other value completes with BAD_OPCODE."""

    SETREG = 1
    GETREG = 2
    CLUSTER = 3
    SELECT = 4
    APPEND = 5
    RETRIEVE = 6
    FETCH = 7
    VOTE = 8
    STORE = 9
    RECALL = 10


class Status(IntEnum):
    """How a command ended.

    BAD_ADDRESS: a table or store that is not on a page, or an access outside the windows. BAD_MASK: a
    bitmask names a cluster that the table does not have; KV heads before it were delivered. KV_FULL: no room
    for another segment, or for the tokens of a STORE. CLUSTER_FULL: an APPEND has more tokens for a cluster
    than it has room for; none of them is taken, so send fewer at once. BUS_ERROR: memory answered SLVERR or
    DECERR. TIMEOUT: it did not answer.
    POISONED: an error struck while a chunk was written to this table, so the host must write it anew.
    OTHER_CODES: the store's codes are made with other planes or another centre than the command's.
    """

    OK = 0
    BAD_OPCODE = 1
    BAD_REGISTER = 2
    BAD_VALUE = 3
    BAD_COUNT = 4
    BAD_LENGTH = 5
    CAPACITY = 6
    TABLE_FULL = 7
    BAD_ADDRESS = 8
    BAD_MASK = 9
    KV_FULL = 10
    CLUSTER_FULL = 11
    BUS_ERROR = 12
    TIMEOUT = 13
    POISONED = 14
    OTHER_CODES = 15


class Register(IntEnum):
    """Registers of SETREG and GETREG; `vrex.model.dre.registers.REGISTERS` has their widths and meanings.

    Those from HCU_BUSY on are counters, read-only. Which unit has which is in that table.
    """

    TH_HD = 0
    TH_R = 1
    TRANSFORM = 2
    SELECTION = 3
    SCALE = 4
    DEVICE_BASE = 5
    DEVICE_PAGES = 6
    HOST_BASE = 7
    HOST_PAGES = 8
    TIMEOUT = 9
    HCU_BUSY = 16
    HCU_WAIT_IN = 17
    HCU_WAIT_OUT = 18
    WTU_BUSY = 19
    WTU_WAIT_IN = 20
    WTU_WAIT_OUT = 21
    WTU_ROWS = 22
    WTU_SEARCH = 23
    WTU_WORDS = 24
    WTU_EXAMINED = 25
    DEGENERATE_ROWS = 32
    APPEND_BUSY = 33
    RETRIEVE_BUSY = 34
    FETCH_BUSY = 35
    FETCH_WAIT_IN = 36
    FETCH_WAIT_OUT = 37
    READ_BURSTS = 38
    READ_BEATS = 39
    WRITE_BURSTS = 40
    WRITE_BEATS = 41
    KV_BEATS = 42
    KV_HOST_BEATS = 43
    VOTE_BUSY = 48
    VOTE_WAIT_IN = 49
    VOTE_WAIT_OUT = 50


@dataclass(frozen=True)
class Descriptor:
    """One command: the fields of `DESCRIPTOR`. Its opcode may be any byte, so that faults can be tested."""

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
        """32 bytes.

        Raises:
            struct.error: a field does not fit.
        """
        return DESCRIPTOR.pack(vars(self))

    @classmethod
    def unpack(cls, data: bytes) -> "Descriptor":
        """Inverse of `pack`."""
        return cls(**DESCRIPTOR.unpack(data))


@dataclass(frozen=True)
class Completion:
    """End of one command: the fields of `COMPLETION`."""

    tag: int
    status: int
    cycles: int = 0
    size: int = 0
    detail: int = 0

    def pack(self) -> bytes:
        """16 bytes; errors as `Descriptor.pack`."""
        return COMPLETION.pack(vars(self))

    @classmethod
    def unpack(cls, data: bytes) -> "Completion":
        """Inverse of `pack`."""
        return cls(**COMPLETION.unpack(data))


class CommandError(Exception):
    """A command that completes with a status other than OK.

    Attributes:
        status: it.
        kv: what left on the stream `kv` before.
    """

    def __init__(self, status: Status, kv: bytes = b"") -> None:
        super().__init__(status.name)
        self.status, self.kv = status, kv


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


def append_length(config: Config, tokens: int, heads: int) -> int:
    """Payload bytes of APPEND."""
    hashes = config.beats(tokens, config.hcu.hash_bits) * config.bus_bytes
    return hashes + tokens * heads * config.kvmu.token_bytes


def retrieve_length(config: Config, rows: int, clusters: int, kv_heads: int) -> int:
    """Payload bytes of RETRIEVE for a mask of KV heads and `rows` rows each."""
    return (
        rows
        * kv_heads.bit_count()
        * _passes(config, clusters)
        * config.beats(clusters, 16)
        * config.bus_bytes
    )


def retrieve_payload(config: Config, scores: np.ndarray) -> bytes:
    """Payload of RETRIEVE: whole beats a row; once a pass for rows that do not fit the score memory.

    Args:
        config: accelerator.
        scores: BF16 bits, uint16 [rows of all KV heads, C].
    """
    rows, clusters = scores.shape
    padded = np.zeros((rows, config.beats(clusters, 16) * config.bus_bits // 16), dtype="<u2")
    padded[:, :clusters] = scores
    return padded.repeat(_passes(config, clusters), axis=0).tobytes()


def retrieve_scores(config: Config, payload: bytes, rows: int, clusters: int) -> np.ndarray:
    """Inverse of `retrieve_payload`, of a row that is sent several times the last pass."""
    width = config.beats(clusters, 16) * config.bus_bits // 16
    passes = _passes(config, clusters)
    return np.frombuffer(payload, dtype="<u2").reshape(rows, passes, width)[:, -1, :clusters]


def _passes(config: Config, clusters: int) -> int:
    """How often a row of RETRIEVE is sent."""
    return 1 if clusters <= config.wtu.row_clusters else LONG_PASSES


def fetch_length(config: Config, clusters: int, kv_heads: int) -> int:
    """Payload bytes of FETCH."""
    return kv_heads.bit_count() * config.beats(clusters, 1) * config.bus_bytes


def select_length(config: Config, rows: int, clusters: int, kv_heads: int) -> int:
    """Payload bytes of SELECT for a mask of KV heads and `rows` rows each."""
    n_rows = rows * kv_heads.bit_count()
    fields = 1 + n_rows if clusters <= config.wtu.row_clusters else n_rows * (2 * LONG_PASSES - 1)
    return fields * config.beats(clusters, 16) * config.bus_bytes


def vote_length(config: Config, tokens: int, rows: int, residents: int) -> int:
    """Payload bytes of VOTE."""
    return _codes_length(config, tokens) + recall_length(config, rows, residents)


def recall_length(config: Config, rows: int, residents: int) -> int:
    """Payload bytes of RECALL: the rows of a VOTE."""
    query = config.beats(1, codes.QUERY_BITS * config.codes.bits + 16)
    return rows * (query + config.beats(residents, 16)) * config.bus_bytes


def store_length(config: Config, tokens: int) -> int:
    """Payload bytes of STORE."""
    return _codes_length(config, tokens) + tokens * config.kvmu.token_bytes


def _codes_length(config: Config, tokens: int) -> int:
    """Bytes of the fields of codes and scales."""
    return (config.beats(tokens, config.codes.bits) + config.beats(tokens, 16)) * config.bus_bytes


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
    if clusters > config.wtu.row_clusters:
        fields = _in_tiles(fields, config.wtu.row_clusters)
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


def _in_tiles(fields: np.ndarray, tile: int) -> np.ndarray:
    """Token counts and rows, whole beats each, as the payload of rows that do not fit the score memory."""
    counts, rows = fields[0], fields[1:]
    tiles = [slice(first, first + tile) for first in range(0, len(counts), tile)]
    parts = []
    for row in rows:
        again = [values[span] for span in tiles for values in (counts, row)]
        parts += [row, *again * (LONG_PASSES - 1)]
    return np.concatenate(parts)


def select_payload(config: Config, payload: bytes, rows: int, clusters: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores, BF16 bits uint16 [rows, clusters], and token counts, uint16 [clusters], of a payload of SELECT.

    Of a row that is sent several times the last pass counts; every row brings the same token counts.
    """
    values = np.frombuffer(payload, dtype="<u2")
    if clusters <= config.wtu.row_clusters:
        fields = values.reshape(1 + rows, -1)[:, :clusters]
        return fields[1:], fields[0]
    tile = config.wtu.row_clusters
    width = config.beats(clusters, 16) * config.bus_bits // 16
    last = values.reshape(rows, 2 * LONG_PASSES - 1, width)[:, -2:].reshape(rows, 2 * width)
    spans = [last[:, 2 * first : 2 * (first + tile)] for first in range(0, width, tile)]
    counts = np.concatenate([np.split(span, 2, axis=1)[0] for span in spans], axis=1)
    scores = np.concatenate([np.split(span, 2, axis=1)[1] for span in spans], axis=1)
    return scores[:, :clusters], counts[0, :clusters]


def pack_clustering(config: Config, result: Clustering) -> bytes:
    """Result of CLUSTER: a `DECISION` for each token."""
    return to_beats(config, DECISION.pack_words(vars(result)).astype("<u4").tobytes())


def unpack_clustering(data: bytes, tokens: int) -> Clustering:
    """Inverse of `pack_clustering`."""
    columns = DECISION.unpack_words(np.frombuffer(data, dtype="<u4", count=tokens))
    return Clustering(
        columns["cluster"].astype(np.int32),
        columns["distance"].astype(np.int32),
        columns["opened"].astype(bool),
    )


def pack_masks(config: Config, masks: Sequence[np.ndarray]) -> bytes:
    """Result of SELECT: bool [C] per KV head, bit i of a mask at bit i % 8 of its byte i // 8."""
    return b"".join(to_beats(config, np.packbits(mask, bitorder="little").tobytes()) for mask in masks)


def unpack_masks(config: Config, data: bytes, clusters: int, n_heads: int) -> np.ndarray:
    """Inverse of `pack_masks`: bool [KV heads, C]."""
    size = config.beats(clusters, 1) * config.bus_bytes
    raw = np.frombuffer(data, dtype=np.uint8, count=n_heads * size).reshape(n_heads, size)
    return np.unpackbits(raw, axis=1, count=clusters, bitorder="little").astype(bool)


@dataclass(frozen=True)
class VoteRows:
    """What the rows of a VOTE bring.

    Attributes:
        components, scales: rotated queries, as `codes.rotate` gives them: int8 [rows, bits], uint16 [rows].
        residents: scores of the resident tokens, BF16 bits, uint16 [rows, m]; NaN where a row must not look.
    """

    components: np.ndarray
    scales: np.ndarray
    residents: np.ndarray


def vote_command(
    config: Config,
    past: Codes,
    rows: VoteRows,
    wanted: int,
    *,
    tag: int,
    sequence: int = 0,
    layer: int = 0,
    kv_head: int = 0,
) -> tuple[Descriptor, bytes]:
    """VOTE with its payload.

    Args:
        config: accelerator; its codes have `codes.bits` bits.
        past: codes of the tokens to choose from, 1 to 65 535.
        rows: 1 to `VOTE_ROWS`.
        wanted: tokens to select, 0..65535.
        tag, sequence, layer, kv_head: descriptor fields.
    """
    tokens, (count, residents) = len(past.scales), rows.residents.shape
    payload = _pack_codes(config, past) + _pack_rows(config, rows)
    descriptor = Descriptor(
        Opcode.VOTE,
        tag,
        sequence,
        layer,
        kv_heads=1 << kv_head,
        count=count,
        clusters=tokens,
        length=len(payload),
        param=VOTE_PARAM.to_int({"residents": residents, "wanted": wanted}),
    )
    return descriptor, payload


def vote_payload(
    config: Config, payload: bytes, tokens: int, rows: int, residents: int
) -> tuple[Codes, VoteRows]:
    """Inverse of `vote_command`: codes and rows of a payload."""
    past, rest = _unpack_codes(config, payload, tokens)
    return past, vote_rows(config, rest, rows, residents)


def vote_rows(config: Config, payload: bytes, rows: int, residents: int) -> VoteRows:
    """The rows of a payload of RECALL, or behind the codes of a VOTE's."""
    bits = config.codes.bits
    by_row = np.frombuffer(payload, dtype=np.uint8).reshape(rows, -1)
    seen = config.beats(1, codes.QUERY_BITS * bits + 16) * config.bus_bytes
    return VoteRows(
        by_row[:, :bits].view(np.int8),
        by_row[:, bits : bits + 2].copy().view("<u2")[:, 0].astype(np.uint16),
        by_row[:, seen : seen + 2 * residents].copy().view("<u2").astype(np.uint16),
    )


def store_command(
    config: Config,
    new: Codes,
    kv: np.ndarray,
    *,
    address: int,
    identity: int,
    tag: int,
    sequence: int = 0,
    layer: int = 0,
) -> tuple[Descriptor, bytes]:
    """STORE with its payload.

    Args:
        config: accelerator; its codes have `codes.bits` bits.
        new: codes of the tokens, 1 to `STORE_TOKENS`.
        kv: BF16 bits, uint16 [n, 2, head_dim]: keys (RoPE applied), then values.
        address: of the store.
        identity: of the codes (`vrex.model.dre.token_store.identity`).
        tag, sequence, layer: descriptor fields.
    """
    payload = _pack_codes(config, new) + kv.astype("<u2").tobytes()
    descriptor = Descriptor(
        Opcode.STORE,
        tag,
        sequence,
        layer,
        kv_heads=identity,
        count=len(kv),
        address=address,
        length=len(payload),
    )
    return descriptor, payload


def store_payload(config: Config, payload: bytes, tokens: int) -> tuple[Codes, np.ndarray]:
    """Inverse of `store_command`: codes, and K and V, BF16 bits uint16 [n, 2, head_dim]."""
    new, rest = _unpack_codes(config, payload, tokens)
    return new, np.frombuffer(rest, dtype="<u2").reshape(tokens, 2, config.kvmu.head_dim)


def recall_command(
    config: Config,
    tokens: int,
    rows: VoteRows,
    wanted: int,
    *,
    address: int,
    identity: int,
    tag: int,
    sequence: int = 0,
    layer: int = 0,
) -> tuple[Descriptor, bytes]:
    """RECALL with its payload.

    Args:
        config: accelerator; its codes have `codes.bits` bits.
        tokens: in the store, 1 to 65 535.
        rows: 1 to `VOTE_ROWS`.
        wanted: tokens to select, 0..65535.
        address: of the store.
        identity: of the codes (`vrex.model.dre.token_store.identity`).
        tag, sequence, layer: descriptor fields.
    """
    payload, (count, residents) = _pack_rows(config, rows), rows.residents.shape
    descriptor = Descriptor(
        Opcode.RECALL,
        tag,
        sequence,
        layer,
        kv_heads=identity,
        count=count,
        clusters=tokens,
        address=address,
        length=len(payload),
        param=VOTE_PARAM.to_int({"residents": residents, "wanted": wanted}),
    )
    return descriptor, payload


def codes_to_bytes(config: Config, past: Codes) -> bytes:
    """Sign bits of codes as `codes.bits`-wide little-endian fields."""
    raw = np.ascontiguousarray(past.words, dtype="<u4").view(np.uint8)
    return raw[:, : config.codes.bits // 8].tobytes()


def bytes_to_codes(config: Config, data: bytes, tokens: int) -> np.ndarray:
    """Inverse of `codes_to_bytes`: words of so many tokens, uint32 [tokens, words]."""
    size = config.codes.bits // 8
    raw = np.zeros((tokens, -(-size // 4) * 4), dtype=np.uint8)
    raw[:, :size] = np.frombuffer(data, np.uint8, tokens * size).reshape(tokens, size)
    return raw.view("<u4").astype(np.uint32)


def _pack_codes(config: Config, past: Codes) -> bytes:
    """The fields of codes and scales."""
    fields = codes_to_bytes(config, past), past.scales.astype("<u2").tobytes()
    return b"".join(to_beats(config, data) for data in fields)


def _unpack_codes(config: Config, payload: bytes, tokens: int) -> tuple[Codes, bytes]:
    """Inverse of `_pack_codes`, and what follows in the payload."""
    split = config.beats(tokens, config.codes.bits) * config.bus_bytes
    scales = np.frombuffer(payload[split:], dtype="<u2", count=tokens).astype(np.uint16)
    past = Codes(bytes_to_codes(config, payload, tokens), scales)
    return past, payload[_codes_length(config, tokens) :]


def _pack_rows(config: Config, rows: VoteRows) -> bytes:
    """The fields of rows."""
    fields = []
    for components, scale, scores in zip(rows.components, rows.scales, rows.residents, strict=True):
        fields += [components.tobytes() + scale.astype("<u2").tobytes(), scores.astype("<u2").tobytes()]
    return b"".join(to_beats(config, data) for data in fields)
