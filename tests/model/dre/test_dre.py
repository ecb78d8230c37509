"""The golden DRE against a table kept in plain Python lists."""

from dataclasses import replace

import numpy as np
import pytest

from vrex.model import commands
from vrex.model.commands import Descriptor, Opcode, Register, Status
from vrex.model.config import Config, HcuConfig, KvmuConfig, WtuConfig
from vrex.model.dre import hcu, quant, wtu
from vrex.model.dre.dre import PREDICT_ONLY, RESET, VALID, Dre
from vrex.model.dre.hctable import HCTable
from vrex.model.dre.kvstore import CLOSED, HEADER, POISONED, Header, Table, plan
from vrex.model.lib.arith import to_bf16
from vrex.model.lib.memory import PAGE, AccessError, BusError, Memory, Window

CONFIG = Config(
    bus_bits=128,
    hcu=HcuConfig(lanes=4, hash_bits=32, chunk_tokens=8, tile_clusters=64),
    wtu=WtuConfig(lanes=4, row_clusters=256),
    kvmu=KvmuConfig(head_dim=16, kv_heads=2, segment_tokens=4),
)
HEADS = 2
TABLE = 16 * PAGE
DEVICE, HOST = Window(16, 128), Window(1024, 128)


class Reference:
    """Every token's key and value by cluster, in plain lists, and the table of `HCTable`."""

    def __init__(self) -> None:
        self.hc = HCTable(1, HEADS * 16, CONFIG.hcu.chunk_tokens)
        self.kv: dict[int, list[np.ndarray]] = {}
        self.segments: list[tuple[int, list[np.ndarray]]] = []

    def append(self, hashes: np.ndarray, keys: np.ndarray, values: np.ndarray, th_hd: int) -> np.ndarray:
        first = self.hc.tokens
        joined = self.hc.add(
            hashes,
            keys.reshape(len(keys), -1),
            np.arange(first, first + len(keys)),
            lambda tokens, clusters: hcu.cluster(tokens, clusters, th_hd),
        )
        for cluster, k, v in zip(joined, keys, values, strict=True):
            held = self.kv.setdefault(int(cluster), [])
            if len(held) % CONFIG.kvmu.segment_tokens == 0:
                self.segments.append((int(cluster), []))
            token = np.stack([k, v], axis=1)
            held.append(token)
            [content for owner, content in self.segments if owner == cluster][-1].append(token)
        return joined

    def fetch(self, head: int, mask: np.ndarray) -> bytes:
        parts = [
            token[head].tobytes() for owner, content in self.segments if mask[owner] for token in content
        ]
        return b"".join(parts)


def engine(ring: int = 16, **changes: int) -> Dre:
    """An engine with one empty table."""
    dre = Dre(CONFIG, Memory(DEVICE, HOST))
    caps = {"cap_clusters": 200, "cap_segments": 300, "mean_bits": 16} | changes
    layout = plan(CONFIG, HEADS, ring_segments=ring, host_page=HOST.base, **caps)
    assert layout.device_pages <= DEVICE.pages
    assert layout.host_pages <= HOST.pages
    dre.memory.write(TABLE, layout.header.pack())
    windows = {
        Register.DEVICE_BASE: DEVICE.base,
        Register.DEVICE_PAGES: DEVICE.pages,
        Register.HOST_BASE: HOST.base,
        Register.HOST_PAGES: HOST.pages,
        Register.TH_HD: 5,
    }
    for register, value in windows.items():
        run(dre, Descriptor(Opcode.SETREG, count=register, param=value), b"")
    return dre


def run(
    dre: Dre, command: Descriptor, payload: bytes, status: Status = Status.OK
) -> tuple[bytes, bytes, int]:
    completion, result, kv = dre.execute(replace(command, tag=9), payload)
    assert (completion.tag, Status(completion.status)) == (9, status)
    assert completion.size == len(result)
    return result, kv, completion.detail


def chunk(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hashes near a few centres, so that tokens join; keys and values in BF16."""
    centres = rng.integers(0, 1 << 32, 12, dtype=np.uint32)
    hashes = rng.choice(centres, n) ^ (np.uint32(1) << rng.integers(0, 32, n, dtype=np.uint32))
    kv = to_bf16(rng.standard_normal((2, n, HEADS, 16)).astype(np.float32))
    return hashes[:, None], kv[0], kv[1]


def append_of(hashes: np.ndarray, keys: np.ndarray, values: np.ndarray) -> tuple[Descriptor, bytes]:
    payload = commands.to_beats(CONFIG, commands.hashes_to_bytes(CONFIG, hashes))
    payload += np.stack([keys, values], axis=2).astype("<u2").tobytes()
    length = commands.append_length(CONFIG, len(hashes), HEADS)
    assert length == len(payload)
    return Descriptor(Opcode.APPEND, kv_heads=3, count=len(hashes), address=TABLE, length=length), payload


def fetch_of(masks: np.ndarray, kv_heads: int = 3) -> tuple[Descriptor, bytes]:
    payload = commands.pack_masks(CONFIG, list(masks))
    made = Descriptor(
        Opcode.FETCH, kv_heads=kv_heads, clusters=masks.shape[1], address=TABLE, length=len(payload)
    )
    return made, payload


def table(dre: Dre) -> Table:
    return Table(CONFIG, dre.memory, TABLE)


@pytest.mark.parametrize("ring", [0, 16, 32, 256])
@pytest.mark.parametrize("seed", range(3))
def test_append_and_fetch(ring: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    dre, reference = engine(ring), Reference()
    pool = rng.integers(0, 1 << 32, 30, dtype=np.uint32)
    for _ in range(30):
        n = int(rng.integers(1, CONFIG.hcu.chunk_tokens + 1))
        _, keys, values = chunk(rng, n)
        hashes = (rng.choice(pool, n) ^ (np.uint32(1) << rng.integers(0, 32, n, dtype=np.uint32)))[:, None]
        before = reference.hc.clusters
        result, kv, opened = run(dre, *append_of(hashes, keys, values))
        joined = reference.append(hashes, keys, values, 5)
        np.testing.assert_array_equal(commands.unpack_clustering(result, n).cluster, joined)
        assert (kv, opened) == (b"", reference.hc.clusters - before)
        masks = rng.random((HEADS, reference.hc.clusters)) < 0.4
        _, kv, beats = run(dre, *fetch_of(masks))
        assert kv == b"".join(reference.fetch(head, masks[head]) for head in range(HEADS))
        assert beats * CONFIG.bus_bytes == len(kv)
    hc, now = reference.hc, table(dre)
    assert (now.header.clusters, now.header.tokens) == (hc.clusters, hc.tokens)
    np.testing.assert_array_equal(now.hashes(), hc.hashes)
    np.testing.assert_array_equal(now.counts(), hc.counts)
    np.testing.assert_array_equal(now.means().reshape(hc.clusters, -1), hc.means)
    if ring == 16:
        assert now.header.first_resident(CONFIG.hcu.chunk_tokens) > 0


def test_long_rows_are_sent_once_a_pass() -> None:
    rng = np.random.default_rng(6)
    dre = engine(ring=0, cap_clusters=600, cap_segments=600)
    dre.registers.values[Register.TH_HD] = 0
    while (clusters := table(dre).header.clusters) < 301:
        run(dre, *append_of(*chunk(rng, min(8, 301 - clusters))))
    scores = to_bf16(rng.standard_normal((4, clusters)).astype(np.float32))
    made = Descriptor(
        Opcode.RETRIEVE,
        kv_heads=3,
        count=2,
        clusters=clusters,
        address=TABLE,
        length=commands.retrieve_length(CONFIG, 2, clusters, 3),
        param=PREDICT_ONLY,
    )
    payload = commands.retrieve_payload(CONFIG, scores)
    passes = np.frombuffer(payload, dtype="<u2").reshape(4, commands.LONG_PASSES, -1)
    assert (passes == passes[:, :1]).all()
    result, _, _ = run(dre, made, payload)
    rule = wtu.Rule(th_r=RESET[Register.TH_R])
    rows = wtu.select(scores, np.ones(clusters, dtype=np.int64), rule).rows.reshape(2, 2, clusters)
    np.testing.assert_array_equal(commands.unpack_masks(CONFIG, result, clusters, HEADS), rows.any(axis=1))


@pytest.mark.parametrize("param", [0, PREDICT_ONLY])
def test_retrieve_is_select_and_fetch(param: int) -> None:
    rng = np.random.default_rng(5)
    dre, reference = engine(), Reference()
    for _ in range(8):
        data = chunk(rng, 8)
        run(dre, *append_of(*data))
        reference.append(*data, 5)
    clusters, rows = reference.hc.clusters, 3
    scores = to_bf16(rng.standard_normal((HEADS, rows, clusters)).astype(np.float32))
    _, payload = commands.select_command(CONFIG, scores, reference.hc.counts, tag=0)
    payload = payload[CONFIG.beats(clusters, 16) * CONFIG.bus_bytes :]
    made = Descriptor(
        Opcode.RETRIEVE,
        kv_heads=3,
        count=rows,
        clusters=clusters,
        address=TABLE,
        length=commands.retrieve_length(CONFIG, rows, clusters, 3),
        param=param,
    )
    result, kv, beats = run(dre, made, payload)
    rule = wtu.Rule(th_r=RESET[Register.TH_R])
    chosen = np.array([wtu.select(head, reference.hc.counts, rule).rows.any(axis=0) for head in scores])
    np.testing.assert_array_equal(commands.unpack_masks(CONFIG, result, clusters, HEADS), chosen)
    expected = [reference.fetch(head, chosen[head]) for head in range(HEADS)]
    assert kv == (b"" if param else b"".join(expected))
    assert beats * CONFIG.bus_bytes == len(kv)


@pytest.mark.parametrize("bits", quant.BITS)
def test_a_table_with_a_quantised_copy_of_its_means(bits: int) -> None:
    rng = np.random.default_rng(bits)
    dre, plain = engine(mean_bits=bits), engine()
    for _ in range(12):
        data = chunk(rng, int(rng.integers(1, 9)))
        assert run(dre, *append_of(*data)) == run(plain, *append_of(*data))
    copied, means = table(dre), table(plain).means()
    np.testing.assert_array_equal(copied.means(), means)
    codes, scales = quant.quantise(means, bits)
    np.testing.assert_array_equal(quant.unpack(copied.codes(), bits), codes)
    np.testing.assert_array_equal(copied.scales(), scales)
    np.testing.assert_array_equal(copied.score_means(), quant.dequantise(codes, scales))
    assert (copied.score_means() != means).any()
    np.testing.assert_array_equal(table(plain).score_means(), means)


def test_one_head_of_the_mask() -> None:
    rng = np.random.default_rng(1)
    dre, reference = engine(), Reference()
    data = chunk(rng, 8)
    run(dre, *append_of(*data))
    reference.append(*data, 5)
    everything = np.ones((1, reference.hc.clusters), dtype=bool)
    _, kv, _ = run(dre, *fetch_of(everything, kv_heads=2))
    assert kv == reference.fetch(1, everything[0])


def visible(dre: Dre) -> list[bytes]:
    """All that the table says."""
    now = table(dre)
    everything = np.ones(now.header.clusters, dtype=bool)
    kv = [part.tobytes() for head in range(HEADS) for part in now.fetch(head, everything)]
    arrays = (now.hashes(), now.counts(), now.means(), now.map())
    return [now.header.pack(), *(array.tobytes() for array in arrays), *kv]


@pytest.mark.parametrize(
    ("caps", "status"),
    [({"cap_clusters": 9}, Status.TABLE_FULL), ({"cap_segments": 9}, Status.KV_FULL)],
)
def test_full_leaves_the_table(caps: dict[str, int], status: Status) -> None:
    rng = np.random.default_rng(3)
    dre = engine(**caps)
    hashes = rng.integers(0, 1 << 32, (8, 1), dtype=np.uint32)
    _, keys, values = chunk(rng, 8)
    run(dre, *append_of(hashes, keys, values))
    before = visible(dre)
    run(dre, *append_of(~hashes, keys, values), status)
    assert visible(dre) == before
    run(dre, *append_of(hashes[:1], keys[:1], values[:1]))
    assert table(dre).header.tokens == 9


def test_a_chunk_with_more_tokens_than_a_cluster_has_room_for() -> None:
    rng = np.random.default_rng(3)
    dre = engine()
    hashes, keys, values = chunk(rng, 1)
    run(dre, *append_of(hashes, keys, values))
    table(dre).counts()[0] = 65_534
    before = visible(dre)
    pair = [np.repeat(part, 2, axis=0) for part in (hashes, keys, values)]
    run(dre, *append_of(*pair), Status.CLUSTER_FULL)
    assert visible(dre)[0] == before[0]
    assert table(dre).counts()[0] == 65_534
    run(dre, *append_of(hashes, keys, values))
    assert table(dre).counts().tolist() == [65_535]
    run(dre, *append_of(*pair))
    assert table(dre).counts().tolist() == [65_535, 2]


@pytest.mark.parametrize("seed", range(4))
def test_closed_clusters_as_in_the_hc_table(seed: int) -> None:
    """Clusters close one after the other, some within a chunk of the table on the host's side."""
    rng = np.random.default_rng(seed)
    dre, reference = engine(), Reference()
    pool = rng.integers(0, 1 << 32, 6, dtype=np.uint32)

    def tokens(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        _, keys, values = chunk(rng, n)
        flips = np.uint32(1) << rng.integers(0, 32, n, dtype=np.uint32)
        return (rng.choice(pool, n) ^ flips)[:, None], keys, values

    first = tokens(8)
    run(dre, *append_of(*first))
    reference.append(*first, 5)
    table(dre).counts()[:] = reference.hc.counts[:] = 65_535 - rng.integers(1, 6, reference.hc.clusters)
    for _ in range(12):
        data = tokens(int(rng.integers(1, 9)))
        joined, at = [], 0
        while at < len(data[0]):
            counts = table(dre).counts().astype(np.int64)
            n = 65_535 - int(counts[counts < 65_535].max(initial=0))
            part = [array[at : at + n] for array in data]
            result, _, _ = run(dre, *append_of(*part))
            joined += commands.unpack_clustering(result, len(part[0])).cluster.tolist()
            at += len(part[0])
        assert joined == reference.append(*data, 5).tolist()
    np.testing.assert_array_equal(table(dre).counts(), reference.hc.counts)
    np.testing.assert_array_equal(table(dre).hashes(), reference.hc.hashes)
    assert (table(dre).counts() == 65_535).sum() > 2
    assert table(dre).header.flags == CLOSED


def bad(command: tuple[Descriptor, bytes], **fields: int) -> tuple[Descriptor, bytes]:
    made = replace(command[0], **fields)
    return made, (command[1] + bytes(made.length))[: made.length]


FAULTS = {
    "opcode of the KVPU": (Status.BAD_OPCODE, lambda c: bad(c, opcode=Opcode.CLUSTER)),
    "reserved opcode": (Status.BAD_OPCODE, lambda c: bad(c, opcode=200)),
    "no tokens": (Status.BAD_COUNT, lambda c: bad(c, count=0)),
    "too many tokens": (Status.BAD_COUNT, lambda c: bad(c, count=9)),
    "no heads": (Status.BAD_COUNT, lambda c: bad(c, kv_heads=0)),
    "other heads": (Status.BAD_COUNT, lambda c: bad(c, kv_heads=5)),
    "length": (Status.BAD_LENGTH, lambda c: bad(c, length=c[0].length - 16)),
    "not on a page": (Status.BAD_ADDRESS, lambda c: bad(c, address=TABLE + 64)),
    "outside the windows": (Status.BAD_ADDRESS, lambda c: bad(c, address=4 * PAGE)),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults(name: str) -> None:
    rng = np.random.default_rng(2)
    dre = engine()
    data = chunk(rng, 8)
    run(dre, *append_of(*data))
    before = visible(dre)
    status, spoil = FAULTS[name]
    run(dre, *spoil(append_of(*chunk(rng, 4))), status)
    assert visible(dre) == before
    run(dre, *append_of(*chunk(rng, 4)))


def test_missing_cluster() -> None:
    rng = np.random.default_rng(2)
    dre = engine()
    run(dre, *append_of(*chunk(rng, 8)))
    clusters = table(dre).header.clusters
    masks = np.zeros((HEADS, clusters + 1), dtype=bool)
    assert run(dre, *fetch_of(masks)) == (b"", b"", 0)
    masks[1, clusters] = True
    assert run(dre, *fetch_of(masks), Status.BAD_MASK) == (b"", b"", 0)
    masks[0, :clusters] = True
    result, kv, beats = run(dre, *fetch_of(masks), Status.BAD_MASK)
    assert (result, beats * CONFIG.bus_bytes) == (b"", len(kv))
    assert kv == run(dre, *fetch_of(masks[:1], kv_heads=1))[1]
    assert len(kv) == 8 * CONFIG.kvmu.token_bytes
    run(dre, *fetch_of(masks, kv_heads=5), Status.BAD_COUNT)


def test_poisoned_until_written_anew() -> None:
    rng = np.random.default_rng(2)
    dre = engine()
    run(dre, *append_of(*chunk(rng, 8)))
    header = table(dre).header
    dre.memory.write(TABLE, replace(header, flags=POISONED).pack())
    run(dre, *append_of(*chunk(rng, 8)), Status.POISONED)
    run(dre, *fetch_of(np.zeros((HEADS, 1), dtype=bool)), Status.POISONED)
    dre.memory.write(TABLE, header.pack())
    run(dre, *append_of(*chunk(rng, 8)))


def test_window_without_memory_behind_it() -> None:
    dre = engine()
    run(dre, Descriptor(Opcode.SETREG, count=Register.DEVICE_PAGES, param=1 << 20), b"")
    lost = fetch_of(np.zeros((HEADS, 1), dtype=bool))
    run(dre, *bad(lost, address=PAGE << 12), Status.BUS_ERROR)


def test_registers() -> None:
    dre = Dre(CONFIG, Memory(DEVICE, HOST))
    for register, value in RESET.items():
        assert run(dre, Descriptor(Opcode.GETREG, count=register), b"")[2] == value
        if VALID[register](7 if register > Register.SCALE else 0):
            run(dre, Descriptor(Opcode.SETREG, count=register, param=0), b"")
    run(dre, Descriptor(Opcode.SETREG, count=Register.FETCH_BUSY, param=1), b"", Status.BAD_REGISTER)
    assert run(dre, Descriptor(Opcode.GETREG, count=Register.KV_HOST_BEATS), b"") == (b"", b"", 0)


def test_memory_windows() -> None:
    memory = Memory(Window(1, 2), Window(8, 1))
    memory.write(PAGE, b"abc")
    assert memory.read(PAGE, 4) == b"abc\0"
    for address, size in ((PAGE - 1, 1), (3 * PAGE - 1, 2), (9 * PAGE, 1)):
        with pytest.raises(AccessError):
            memory.view(address, size)
    wide = memory.seen_through(Window(0, 8), Window(8, 1))
    assert wide.read(PAGE, 3) == b"abc"
    with pytest.raises(BusError):
        wide.view(0, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3, 1, 1, 0), "1 to 2 KV heads"),
        ((1, 0, 1, 0), "1 to 65535 clusters"),
        ((1, 1, 0, 0), "segments, not 0"),
        ((1, 1, 1, 8), "power of two from 16"),
    ],
)
def test_plan_refuses(arguments: tuple[int, int, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(CONFIG, *arguments, host_page=0)


@pytest.mark.parametrize("bits", [16, *quant.BITS])
def test_arrays_of_a_plan_do_not_overlap(bits: int) -> None:
    layout = plan(CONFIG, HEADS, 65_535, 1000, 16, 0, bits)
    h = layout.header
    assert h.mean_bits == bits
    row = 2 * HEADS * 16
    sizes = {
        1: 4 * h.cap_clusters,
        h.counts_page: 2 * h.cap_clusters,
        h.tails_page: 4 * h.cap_clusters,
        h.means_page: row * h.cap_clusters,
        h.map_page: 4 * h.cap_segments,
        h.stage_page: row * 8,
        h.ring_page: h.ring_stride * PAGE * HEADS,
    }
    if bits < 16:
        sizes |= {h.codes_page: HEADS * 2 * bits * h.cap_clusters, h.scales_page: 2 * HEADS * h.cap_clusters}
    starts = sorted(sizes)
    assert [start + -(-sizes[start] // PAGE) for start in starts] == [*starts[1:], layout.device_pages]
    assert h.ring_stride * PAGE >= 16 * CONFIG.kvmu.segment_bytes
    assert layout.host_pages * PAGE >= HEADS * 1000 * CONFIG.kvmu.segment_bytes
    assert Header.unpack(h.pack()) == h
    assert HEADER.size == 64
