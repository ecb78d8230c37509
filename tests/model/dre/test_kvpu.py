import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import strategies as st

from vrex.model import commands
from vrex.model.commands import Completion, Descriptor, Opcode, Register, Status
from vrex.model.config import Config, HcuConfig, WtuConfig, preset
from vrex.model.dre import hcu, wtu
from vrex.model.dre.kvpu import COUNTERS, VALID, Kvpu
from vrex.model.dre.registers import scale_from_register, scale_to_register

EDGE = preset("edge")
SMALL = Config(
    bus_bits=64,
    hcu=HcuConfig(lanes=4, tile_clusters=64),
    wtu=WtuConfig(lanes=4, row_clusters=64, mask_clusters=256),
)
WRITABLE = list(VALID)


def set_register(kvpu: Kvpu, register: int, value: int) -> Status:
    completion, result = kvpu.execute(Descriptor(Opcode.SETREG, count=register, param=value), b"")
    assert result == b""
    return Status(completion.status)


def get_register(kvpu: Kvpu, register: int) -> int:
    completion, result = kvpu.execute(Descriptor(Opcode.GETREG, tag=5, count=register), b"")
    assert result == b""
    assert (completion.tag, completion.status, completion.size) == (5, Status.OK, 0)
    return completion.detail


def registers(kvpu: Kvpu) -> list[int]:
    return [get_register(kvpu, register) for register in (*WRITABLE, *COUNTERS)]


def test_registers_after_reset() -> None:
    """The paper's setting: Hamming threshold 7, Th_r 0.3, raw scores."""
    assert registers(Kvpu(EDGE)) == [7, round(0.3 * 65536), 0, 0, 0] + [0] * len(COUNTERS)


GOOD = {
    Register.TH_HD: [0, 7, 255],
    Register.TH_R: [0, 1, 65535],
    Register.TRANSFORM: [0, 1, 2],
    Register.SELECTION: [0, 1],
    Register.SCALE: [0, 0x8000, 0xFFFF, 0xFF8000, 0x7FFFFF, 0x800000],
}
BAD = {
    Register.TH_HD: [256, 0xFFFFFFFF],
    Register.TH_R: [65536, 0xFFFFFFFF],
    Register.TRANSFORM: [3, 0x10000],
    Register.SELECTION: [2, 0x10001],
    Register.SCALE: [1, 0x7FFF, 0x010001, 0x1000000, 0x1008000],
}


@pytest.mark.parametrize("register", WRITABLE)
def test_register_values(register: Register) -> None:
    kvpu = Kvpu(EDGE)
    for value in GOOD[register]:
        assert set_register(kvpu, register, value) == Status.OK
        assert get_register(kvpu, register) == value
    before = registers(kvpu)
    for value in BAD[register]:
        assert set_register(kvpu, register, value) == Status.BAD_VALUE
        assert registers(kvpu) == before


@pytest.mark.parametrize("register", [5, 15, 26, 65535])
def test_registers_that_are_not(register: int) -> None:
    kvpu = Kvpu(EDGE)
    assert set_register(kvpu, register, 0) == Status.BAD_REGISTER
    completion, _ = kvpu.execute(Descriptor(Opcode.GETREG, count=register), b"")
    assert completion == Completion(0, Status.BAD_REGISTER)


@pytest.mark.parametrize("register", COUNTERS)
def test_counters_are_read_only(register: Register) -> None:
    assert set_register(Kvpu(EDGE), register, 0) == Status.BAD_REGISTER


def test_scale_register(prove: Callable[..., None]) -> None:
    def check(mantissa: int, exponent: int) -> None:
        value = scale_to_register(wtu.Scale(mantissa, exponent))
        assert value == mantissa + 65536 * (exponent % 256)
        assert scale_from_register(value) == wtu.Scale(mantissa, exponent)

    prove(check, mantissa=st.integers(0, 65535), exponent=st.integers(-128, 127))


def cluster_of(tokens: int, clusters: int, config: Config = EDGE) -> tuple[Descriptor, bytes]:
    rng = np.random.default_rng(tokens)
    values = [rng.integers(0, 1 << 32, (n, 1), dtype=np.uint32) for n in (tokens, clusters)]
    return commands.cluster_command(config, *values, tag=0xABCD)


def select_of(
    clusters: int, heads: int = 2, rows: int = 3, config: Config = EDGE
) -> tuple[Descriptor, bytes]:
    rng = np.random.default_rng(clusters)
    scores = rng.integers(0x3F00, 0x4200, (heads, rows, clusters), dtype=np.uint16)
    return commands.select_command(config, scores, rng.integers(1, 9, clusters), tag=0xABCD)


def changed(command: tuple[Descriptor, bytes], **fields: int) -> tuple[Descriptor, bytes]:
    return dataclasses.replace(command[0], **fields), command[1]


def full_table() -> tuple[Descriptor, bytes]:
    far, table = np.array([[0xFFFFFFFF]], dtype=np.uint32), np.zeros((65_535, 1), dtype=np.uint32)
    return commands.cluster_command(SMALL, far, table, tag=0xABCD)


FAULTS: list[tuple[str, Status, Callable[[], tuple[Descriptor, bytes]]]] = [
    ("opcode 0", Status.BAD_OPCODE, lambda: (Descriptor(0, tag=0xABCD), b"")),
    ("opcode 255 with a payload", Status.BAD_OPCODE, lambda: (Descriptor(255, 0xABCD, length=8), bytes(8))),
    ("register", Status.BAD_REGISTER, lambda: (Descriptor(Opcode.GETREG, 0xABCD, count=5), b"")),
    ("value", Status.BAD_VALUE, lambda: (Descriptor(Opcode.SETREG, 0xABCD, count=0, param=256), b"")),
    ("SETREG length", Status.BAD_LENGTH, lambda: (Descriptor(Opcode.SETREG, 0xABCD, length=8), bytes(8))),
    ("GETREG length", Status.BAD_LENGTH, lambda: (Descriptor(Opcode.GETREG, 0xABCD, length=8), bytes(8))),
    ("no tokens", Status.BAD_COUNT, lambda: cluster_of(0, 5, SMALL)),
    ("too many tokens", Status.BAD_COUNT, lambda: cluster_of(33, 5, SMALL)),
    ("CLUSTER too long", Status.BAD_LENGTH, lambda: changed(cluster_of(3, 5, SMALL), length=48)),
    ("CLUSTER too short", Status.BAD_LENGTH, lambda: changed(cluster_of(3, 5, SMALL), length=0)),
    ("table full", Status.TABLE_FULL, full_table),
    ("no rows", Status.BAD_COUNT, lambda: select_of(5, rows=0, config=SMALL)),
    ("no heads", Status.BAD_COUNT, lambda: changed(select_of(5, config=SMALL), kv_heads=0)),
    ("row too long", Status.CAPACITY, lambda: select_of(257, config=SMALL)),
    ("SELECT too long", Status.BAD_LENGTH, lambda: changed(select_of(5, config=SMALL), length=4096)),
    ("SELECT not in whole beats", Status.BAD_LENGTH, lambda: changed(select_of(5, config=SMALL), length=13)),
    (
        "SELECT heads and length differ",
        Status.BAD_LENGTH,
        lambda: changed(select_of(5, config=SMALL), kv_heads=7),
    ),
]


def test_every_status_has_a_fault() -> None:
    assert {status for _, status, _ in FAULTS} | {Status.OK} == {s for s in Status if s <= Status.TABLE_FULL}


@pytest.mark.parametrize(
    ("status", "build"), [fault[1:] for fault in FAULTS], ids=[fault[0] for fault in FAULTS]
)
def test_fault_leaves_everything_as_it_was(
    status: Status, build: Callable[[], tuple[Descriptor, bytes]]
) -> None:
    """A named status, no result, unchanged registers, and the next command gives what it always gives."""
    kvpu = Kvpu(SMALL)
    for register in WRITABLE:
        assert set_register(kvpu, register, GOOD[register][1]) == Status.OK
    before, good = registers(kvpu), select_of(40, config=SMALL)
    undisturbed = kvpu.execute(*good)
    assert kvpu.execute(*build()) == (Completion(0xABCD, status), b"")
    assert registers(kvpu) == before
    assert kvpu.execute(*good) == undisturbed


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (Descriptor(Opcode.SETREG, count=99, param=1 << 31, length=8), Status.BAD_REGISTER),
        (Descriptor(Opcode.SETREG, count=0, param=1 << 31, length=8), Status.BAD_VALUE),
        (Descriptor(Opcode.CLUSTER, count=33, length=8), Status.BAD_COUNT),
        (Descriptor(Opcode.SELECT, count=0, clusters=257, length=8), Status.BAD_COUNT),
        (Descriptor(Opcode.SELECT, count=1, kv_heads=1, clusters=257, length=8), Status.CAPACITY),
    ],
)
def test_order_of_checks(command: Descriptor, status: Status) -> None:
    assert Kvpu(SMALL).execute(command, bytes(8))[0].status == status


def test_cluster_equals_a_direct_call(prove: Callable[..., None]) -> None:
    def check(seed: int, config: Config, n: int, existing: int, th_hd: int) -> None:
        rng = np.random.default_rng(seed)
        n_words = -(-config.hcu.hash_bits // 32)
        tokens, clusters = (rng.integers(0, 256, (size, n_words), dtype=np.uint32) for size in (n, existing))
        kvpu = Kvpu(config)
        assert set_register(kvpu, Register.TH_HD, th_hd) == Status.OK
        completion, result = kvpu.execute(
            *commands.cluster_command(config, tokens, clusters, tag=seed & 0xFFFF)
        )
        direct = hcu.cluster(tokens, clusters, th_hd)
        assert completion == Completion(seed & 0xFFFF, 0, 0, len(result), int(direct.opened.sum()))
        assert len(result) == -(-n * 4 // config.bus_bytes) * config.bus_bytes
        words = np.frombuffer(result, dtype="<u4")[:n]
        np.testing.assert_array_equal(words & 0xFFFF, direct.cluster)
        np.testing.assert_array_equal(words >> 16 & 0xFF, direct.distance)
        np.testing.assert_array_equal(words >> 24, direct.opened)
        assert not any(result[4 * n :])

    prove(
        check,
        examples=60,
        seed=st.integers(0, 1 << 32),
        config=st.sampled_from(
            [EDGE, SMALL, preset("ulx3s"), EDGE.with_hash_bits(100), Config(hcu=HcuConfig(hash_bits=8))]
        ),
        n=st.integers(1, 32),
        existing=st.integers(0, 100),
        th_hd=st.integers(0, 255),
    )


def test_select_equals_a_direct_call(prove: Callable[..., None]) -> None:
    def check(seed: int, config: Config, clusters: int, rows: int, mask: int, rule: wtu.Rule) -> None:
        rng = np.random.default_rng(seed)
        n_heads = bin(mask).count("1")
        scores = rng.integers(0, 1 << 16, (n_heads, rows, clusters), dtype=np.uint16)
        counts = rng.integers(0, 50, clusters)
        kvpu = Kvpu(config)
        values = [rule.th_r, rule.transform, rule.selection, scale_to_register(rule.scale)]
        for register, value in zip(WRITABLE[1:], values, strict=True):
            assert set_register(kvpu, register, value) == Status.OK
        command = commands.select_command(config, scores, counts, tag=1, kv_heads=mask)
        completion, result = kvpu.execute(*command)
        direct = [wtu.select(scores[head], counts, rule) for head in range(n_heads)]
        assert completion == Completion(1, 0, 0, len(result), sum(one.degenerate for one in direct))
        size = -(-clusters // config.bus_bits) * config.bus_bytes
        union = [
            int("0" + "".join(str(int(bit)) for bit in np.any(one.rows, axis=0)[::-1]), 2) for one in direct
        ]
        assert result == b"".join(value.to_bytes(size, "little") for value in union)

    rules = st.builds(
        wtu.Rule,
        st.integers(0, 65535),
        st.sampled_from(wtu.Transform),
        st.sampled_from(wtu.Selection),
        st.just(16),
        st.builds(wtu.Scale, st.integers(0x8000, 0xFFFF), st.integers(-8, 4)),
    )
    prove(
        check,
        examples=60,
        seed=st.integers(0, 1 << 32),
        config=st.sampled_from([EDGE, SMALL, preset("tiny"), preset("ulx3s")]),
        clusters=st.integers(0, 64),
        rows=st.integers(1, 5),
        mask=st.sampled_from([1, 3, 0b1010, 1 << 31]),
        rule=rules,
    )


@pytest.mark.parametrize("clusters", [65, 68, 69, 128, 129, 255, 256])
def test_rows_longer_than_the_score_memory_are_selected_as_wholes(clusters: int) -> None:
    rng = np.random.default_rng(clusters)
    scores = rng.integers(0x3F00, 0x4200, (2, 3, clusters), dtype=np.uint16)
    counts = rng.integers(1, 9, clusters)
    command, payload = commands.select_command(SMALL, scores, counts, tag=1)
    kvpu = Kvpu(SMALL)
    completion, result = kvpu.execute(command, payload)
    assert completion.status == Status.OK
    assert command.length == len(payload) == 6 * 7 * -(-clusters * 2 // 8) * 8
    chosen = wtu.select(scores.reshape(6, clusters), counts, kvpu.registers.rule(SMALL)).rows
    masks = commands.unpack_masks(SMALL, result, clusters, 2)
    np.testing.assert_array_equal(masks, chosen.reshape(2, 3, clusters).any(axis=1))


def test_buckets_come_from_the_configuration() -> None:
    scores = np.arange(0x4000, 0x4080, dtype=np.uint16)[None, None]
    for buckets in (2, 64):
        config = Config(wtu=WtuConfig(buckets=buckets))
        kvpu = Kvpu(config)
        assert set_register(kvpu, Register.SELECTION, wtu.Selection.BUCKET) == Status.OK
        _, result = kvpu.execute(*commands.select_command(config, scores, np.ones(128), tag=0))
        rule = wtu.Rule(19661, selection=wtu.Selection.BUCKET, buckets=buckets)
        mask = np.unpackbits(np.frombuffer(result, dtype=np.uint8), count=128, bitorder="little")
        np.testing.assert_array_equal(mask, wtu.select(scores[0], np.ones(128), rule).rows[0])


def test_fill_of_a_field_is_ignored() -> None:
    """Only the payload's defined bits count, whatever the host left in the rest of a beat."""
    for descriptor, payload in (cluster_of(3, 5), select_of(5)):
        item = 4 if descriptor.opcode == Opcode.CLUSTER else 2
        sizes = [3 * item, 5 * item] if descriptor.opcode == Opcode.CLUSTER else [5 * item] * 7
        fields = [payload[i * 32 : i * 32 + size] for i, size in enumerate(sizes)]
        dirty = b"".join(field + b"\xee" * (32 - len(field)) for field in fields)
        assert Kvpu(EDGE).execute(descriptor, dirty) == Kvpu(EDGE).execute(descriptor, payload)


def test_empty_table() -> None:
    completion, result = Kvpu(EDGE).execute(*select_of(0))
    assert (completion, result) == (Completion(0xABCD, Status.OK), b"")
    completion, result = Kvpu(EDGE).execute(*cluster_of(1, 0))
    assert completion.detail == 1
    assert result[:4].hex() == "0000ff01"


def test_largest_commands() -> None:
    """A whole chunk of tokens, and a row that fills the score memory."""
    for command, size in ((cluster_of(32, 5, SMALL), 32 * 4), (select_of(64, config=SMALL), 2 * 8)):
        completion, result = Kvpu(SMALL).execute(*command)
        assert (completion.status, completion.size, len(result)) == (Status.OK, size, size)
