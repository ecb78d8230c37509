import struct
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import strategies as st

from vrex.model import commands
from vrex.model.commands import Completion, Descriptor
from vrex.model.config import Config, HcuConfig, WtuConfig, preset
from vrex.model.dre.hcu import Clustering

FIELDS = {
    "opcode": (0, 1),
    "tag": (2, 2),
    "sequence": (4, 2),
    "layer": (6, 2),
    "kv_heads": (8, 4),
    "count": (12, 2),
    "clusters": (14, 2),
    "address": (16, 8),
    "length": (24, 4),
    "param": (28, 4),
}
"""Offset and size in bytes of each field of a descriptor."""

CONFIGS = [preset("tiny"), preset("ulx3s"), preset("edge")]
CONFIGS += [Config(bus_bits=512, hcu=HcuConfig(hash_bits=bits)) for bits in (8, 16, 64, 128)]
IDS = [f"bus{config.bus_bits}-hash{config.hcu.hash_bits}" for config in CONFIGS]


@pytest.mark.parametrize("field", FIELDS)
def test_place_of_every_field(field: str) -> None:
    offset, size = FIELDS[field]
    ones = bytes([0xFF] * size)
    packed = Descriptor(**{"opcode": 0} | {field: (1 << 8 * size) - 1}).pack()
    assert packed == bytes(offset) + ones + bytes(32 - offset - size)
    with pytest.raises(struct.error):
        Descriptor(**{"opcode": 0} | {field: 1 << 8 * size}).pack()


def test_descriptor_round_trip(prove: Callable[..., None]) -> None:
    def check(values: list[int]) -> None:
        fields = {
            name: value % (1 << 8 * size)
            for (name, (_, size)), value in zip(FIELDS.items(), values, strict=True)
        }
        data = Descriptor(**fields).pack()
        for name, (offset, size) in FIELDS.items():
            assert int.from_bytes(data[offset : offset + size], "little") == fields[name]
        assert data[1] == 0
        assert Descriptor.unpack(data) == Descriptor(**fields)

    word = st.integers(0, (1 << 64) - 1)
    prove(check, values=st.lists(word, min_size=len(FIELDS), max_size=len(FIELDS)))


def test_reserved_byte_is_ignored() -> None:
    data = bytearray(Descriptor(3, tag=9).pack())
    data[1] = 0xAB
    assert Descriptor.unpack(bytes(data)) == Descriptor(3, tag=9)


def test_completion_round_trip() -> None:
    completion = Completion(0x1234, 0x5678, 0x9ABCDEF0, 0x0FEDCBA9, 0x87654321)
    data = completion.pack()
    assert data.hex() == "34127856f0debc9aa9cbed0f21436587"
    assert Completion.unpack(data) == completion


def test_codes_are_fixed() -> None:
    """Hosts and hardware are built apart: a code never changes its meaning."""
    assert [(o.name, o.value) for o in commands.Opcode] == [
        ("SETREG", 1),
        ("GETREG", 2),
        ("CLUSTER", 3),
        ("SELECT", 4),
        ("APPEND", 5),
        ("RETRIEVE", 6),
        ("FETCH", 7),
        ("VOTE", 8),
        ("STORE", 9),
        ("RECALL", 10),
    ]
    assert [s.name for s in sorted(commands.Status)] == [
        *(
            "OK",
            "BAD_OPCODE",
            "BAD_REGISTER",
            "BAD_VALUE",
            "BAD_COUNT",
            "BAD_LENGTH",
            "CAPACITY",
            "TABLE_FULL",
            "BAD_ADDRESS",
            "BAD_MASK",
            "KV_FULL",
            "CLUSTER_FULL",
            "BUS_ERROR",
            "TIMEOUT",
            "POISONED",
            "OTHER_CODES",
        )
    ]
    registers = [(0, "TH_HD"), (1, "TH_R"), (2, "TRANSFORM"), (3, "SELECTION"), (4, "SCALE")]
    registers += [
        (5, "DEVICE_BASE"),
        (6, "DEVICE_PAGES"),
        (7, "HOST_BASE"),
        (8, "HOST_PAGES"),
        (9, "TIMEOUT"),
    ]
    registers += [(16, "HCU_BUSY"), (17, "HCU_WAIT_IN"), (18, "HCU_WAIT_OUT")]
    registers += [(19, "WTU_BUSY"), (20, "WTU_WAIT_IN"), (21, "WTU_WAIT_OUT")]
    registers += [(22, "WTU_ROWS"), (23, "WTU_SEARCH"), (24, "WTU_WORDS"), (25, "WTU_EXAMINED")]
    registers += [(32, "DEGENERATE_ROWS"), (33, "APPEND_BUSY"), (34, "RETRIEVE_BUSY"), (35, "FETCH_BUSY")]
    registers += [(36, "FETCH_WAIT_IN"), (37, "FETCH_WAIT_OUT"), (38, "READ_BURSTS"), (39, "READ_BEATS")]
    registers += [(40, "WRITE_BURSTS"), (41, "WRITE_BEATS"), (42, "KV_BEATS"), (43, "KV_HOST_BEATS")]
    registers += [(48, "VOTE_BUSY"), (49, "VOTE_WAIT_IN"), (50, "VOTE_WAIT_OUT")]
    assert [(r.value, r.name) for r in commands.Register] == registers


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
@pytest.mark.parametrize("n", [0, 1, 3, 33])
def test_hashes(config: Config, n: int) -> None:
    width = config.hcu.hash_bits
    rng = np.random.default_rng(n)
    values = [int.from_bytes(rng.bytes(width // 8), "little") for _ in range(n)]
    n_words = -(-width // 32)
    rows = [[value >> 32 * i & 0xFFFFFFFF for i in range(n_words)] for value in values]
    hashes = np.array(rows, dtype=np.uint32).reshape(n, n_words)
    data = commands.hashes_to_bytes(config, hashes)
    assert data == b"".join(value.to_bytes(width // 8, "little") for value in values)
    np.testing.assert_array_equal(commands.bytes_to_hashes(config, data + b"\xff" * 9, n), hashes)


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
def test_cluster_payload(config: Config) -> None:
    """Tokens, then clusters, each from a new beat and filled with zeros."""
    size, words = config.hcu.hash_bits // 8, -(-config.hcu.hash_bits // 32)
    tokens, clusters = np.full((3, words), 0x01010101), np.full((5, words), 0x02020202)
    mask = 0xFFFFFFFF if size >= 4 else (1 << 8 * size) - 1
    descriptor, payload = commands.cluster_command(
        config, tokens.astype(np.uint32) & mask, clusters.astype(np.uint32) & mask, tag=7, sequence=2, layer=4
    )
    fields = [b"\x01" * 3 * size, b"\x02" * 5 * size]
    assert payload == b"".join(field + bytes(-len(field) % config.bus_bytes) for field in fields)
    assert descriptor == Descriptor(3, 7, 2, 4, count=3, clusters=5, length=len(payload))
    assert descriptor.length == commands.cluster_length(config, 3, 5)


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
@pytest.mark.parametrize(("heads", "rows", "clusters"), [(1, 1, 1), (2, 3, 33), (3, 1, 32), (2, 2, 0)])
def test_select_payload(config: Config, heads: int, rows: int, clusters: int) -> None:
    """Counts, then one field a row, head by head."""
    rng = np.random.default_rng(clusters)
    scores = rng.integers(0, 1 << 16, (heads, rows, clusters), dtype=np.uint16)
    counts = rng.integers(0, 1 << 16, clusters)
    descriptor, payload = commands.select_command(config, scores, counts, tag=7, sequence=1, layer=2)
    fields = [counts.tolist(), *scores.reshape(heads * rows, clusters).tolist()]
    raw = [b"".join(v.to_bytes(2, "little") for v in field) for field in fields]
    assert payload == b"".join(field + bytes(-len(field) % config.bus_bytes) for field in raw)
    mask = (1 << heads) - 1
    assert descriptor == Descriptor(4, 7, 1, 2, mask, rows, clusters, length=len(payload))
    assert descriptor.length == commands.select_length(config, rows, clusters, mask)


def test_select_of_named_heads() -> None:
    descriptor, payload = commands.select_command(
        preset("edge"), np.zeros((2, 1, 4), dtype=np.uint16), np.ones(4), tag=0, kv_heads=0b1010
    )
    assert descriptor.kv_heads == 0b1010
    assert len(payload) == commands.select_length(preset("edge"), 1, 4, 0b1010) == 3 * 32


def test_clustering_words(prove: Callable[..., None]) -> None:
    decisions = st.lists(st.tuples(st.integers(0, 65534), st.integers(0, 255), st.booleans()), min_size=1)

    def check(rows: list[tuple[int, int, bool]]) -> None:
        columns = [np.array(column) for column in zip(*rows, strict=True)]
        result = Clustering(columns[0].astype(np.int32), columns[1].astype(np.int32), columns[2].astype(bool))
        data = commands.pack_clustering(preset("edge"), result)
        assert len(data) == -(-len(rows) // 8) * 32
        words = [cluster + (distance << 16) + (opened << 24) for cluster, distance, opened in rows]
        assert data == struct.pack(f"<{len(rows)}I", *words) + bytes(len(data) - 4 * len(rows))
        back = commands.unpack_clustering(data, len(rows))
        assert list(zip(back.cluster, back.distance, back.opened, strict=True)) == rows

    prove(check, rows=decisions)


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
@pytest.mark.parametrize("clusters", [0, 1, 8, 255, 256, 600])
def test_masks(config: Config, clusters: int) -> None:
    masks = np.random.default_rng(clusters).random((3, clusters)) < 0.5
    data = commands.pack_masks(config, list(masks))
    size = -(-clusters // config.bus_bits) * config.bus_bytes
    as_integers = [sum(int(bit) << i for i, bit in enumerate(mask)) for mask in masks]
    assert data == b"".join(value.to_bytes(size, "little") for value in as_integers)
    np.testing.assert_array_equal(commands.unpack_masks(config, data, clusters, 3), masks)


def test_largest_select_fits_the_length_field() -> None:
    """One row of each of 32 KV heads over the longest row that a configuration may have."""
    wide = Config(bus_bits=512, wtu=WtuConfig(row_clusters=65536))
    assert commands.select_length(wide, 1, 65535, 0xFFFFFFFF) == 33 * 131072
    edge = Config()
    assert commands.select_length(edge, 1, 65535, 0xFFFFFFFF) == 32 * 7 * 131072 < 1 << 32


def test_a_long_row_is_sent_once_for_each_pass() -> None:
    """Six scores in tiles of four: all scores, and three times the counts and the scores of each tile."""
    config = Config(bus_bits=64, wtu=WtuConfig(lanes=1, row_clusters=4, mask_clusters=8))
    scores, counts = np.arange(6, dtype=np.uint16)[None, None] + 100, np.arange(6) + 1
    command, payload = commands.select_command(config, scores, counts, tag=0)
    row = [100, 101, 102, 103, 104, 105, 0, 0]
    tiles = [1, 2, 3, 4, 100, 101, 102, 103, 5, 6, 0, 0, 104, 105, 0, 0]
    assert np.frombuffer(payload, dtype="<u2").tolist() == row + 3 * tiles
    assert command.length == commands.select_length(config, 1, 6, 1) == len(payload)
    sent_scores, sent_counts = commands.select_payload(config, payload, 1, 6)
    assert sent_scores.tolist() == scores[0].tolist()
    assert sent_counts.tolist() == counts.tolist()
