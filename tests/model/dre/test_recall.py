"""The unit `recall` at its command interface, and its stores in memory."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from vrex.model import commands
from vrex.model.commands import (
    STORE_TOKENS,
    VOTE_PARAM,
    VOTE_ROWS,
    CommandError,
    Completion,
    Descriptor,
    Opcode,
    Register,
    Status,
    VoteRows,
)
from vrex.model.config import CodesConfig, Config, KvmuConfig
from vrex.model.dre import codes, hashing, packed
from vrex.model.dre.codes import Codes
from vrex.model.dre.recall import Recall
from vrex.model.dre.registers import RECALL_REGISTERS, reset_values, scale_to_register
from vrex.model.dre.token_store import MAX_TOKENS, StoreHeader, TokenStore, identity, plan_store
from vrex.model.dre.wtu import Scale
from vrex.model.lib import arith
from vrex.model.lib.memory import PAGE, Memory, Window

CONFIG = Config(
    bus_bits=64,
    codes=CodesConfig(lanes=2, bits=32, tokens=64, residents=8),
    kvmu=KvmuConfig(head_dim=16),
)
DEVICE, HOST = Window(16, 8), Window(64, 8)
STORE = DEVICE.start
SCALE = Scale.from_float(0.25)
NAMED = 0xCAFE_F00D
Command = tuple[Descriptor, bytes]


def unit(cap_tokens: int = 70) -> Recall:
    """A unit whose windows are set, with one empty store."""
    made = Recall(CONFIG, Memory(DEVICE, HOST))
    made.memory.write(STORE, plan_store(CONFIG, cap_tokens, HOST.base, NAMED).header.pack())
    for register, value in (
        (Register.SCALE, scale_to_register(SCALE)),
        (Register.DEVICE_BASE, DEVICE.base),
        (Register.DEVICE_PAGES, DEVICE.pages),
        (Register.HOST_BASE, HOST.base),
        (Register.HOST_PAGES, HOST.pages),
    ):
        completion, _, _ = made.execute(Descriptor(Opcode.SETREG, count=register, param=value), b"")
        assert completion.status == Status.OK
    return made


def drawn(tokens: int, seed: int = 0) -> tuple[Codes, np.ndarray]:
    rng = np.random.default_rng([tokens, seed])
    new = Codes(
        hashing.pack_bits(rng.random((tokens, 32)) < 0.5, 32),
        rng.integers(0x3E00, 0x4100, tokens).astype(np.uint16),
    )
    return new, rng.integers(0, 1 << 16, (tokens, 2, 16)).astype(np.uint16)


def store(tokens: int, seed: int = 0) -> Command:
    return commands.store_command(CONFIG, *drawn(tokens, seed), address=STORE, identity=NAMED, tag=7)


def asked(rows: int = 2, residents: int = 3) -> VoteRows:
    rng = np.random.default_rng([rows, residents])
    return VoteRows(
        rng.integers(-127, 128, (rows, 32)).astype(np.int8),
        rng.integers(0x3B00, 0x3D00, rows).astype(np.uint16),
        rng.integers(0x3F00, 0x4200, (rows, residents)).astype(np.uint16),
    )


def recall(tokens: int, wanted: int = 4, rows: int = 2, residents: int = 3) -> Command:
    return commands.recall_command(
        CONFIG, tokens, asked(rows, residents), wanted, address=STORE, identity=NAMED, tag=9
    )


def changed(command: Command, **fields: int) -> Command:
    return dataclasses.replace(command[0], **fields), command[1]


def test_a_store_grows_and_gives_back_what_was_stored() -> None:
    made, tokens = unit(), 0
    parts = []
    for seed, count in enumerate((1, 5, 8, 30, 3)):
        completion, result, kv = made.execute(*store(count, seed))
        tokens += count
        assert completion == Completion(7, Status.OK, detail=tokens)
        assert (result, kv) == (b"", b"")
        parts.append(drawn(count, seed))
    held = TokenStore(CONFIG, made.memory, STORE)
    assert held.header.tokens == tokens == 47
    np.testing.assert_array_equal(held.codes().words, np.concatenate([new.words for new, _ in parts]))
    np.testing.assert_array_equal(held.codes().scales, np.concatenate([new.scales for new, _ in parts]))
    wanted = np.concatenate([kv for _, kv in parts])
    for token in range(tokens):
        np.testing.assert_array_equal(held.kv(token).view("<u2").reshape(2, 16), wanted[token])


@pytest.mark.parametrize(("tokens", "wanted"), [(5, 2), (47, 46), (40, 0), (7, 65535)])
def test_recalls_what_a_vote_selects(tokens: int, wanted: int) -> None:
    made = unit()
    past, values = drawn(tokens)
    made.execute(*store(tokens))
    seen = asked()
    completion, mask, kv = made.execute(*recall(tokens, wanted))
    scores = codes.score(seen.components, seen.scales, past)
    chosen = codes.select(codes.vote(seen.residents, scores, SCALE), wanted)
    assert len(chosen) == min(wanted, tokens)
    assert np.flatnonzero(commands.unpack_masks(CONFIG, mask, tokens, 1)[0]).tolist() == chosen.tolist()
    np.testing.assert_array_equal(np.frombuffer(kv, "<u2").reshape(-1, 2, 16), values[chosen])
    assert completion == Completion(
        9, Status.OK, size=len(mask), detail=len(chosen) * CONFIG.kvmu.token_bytes // CONFIG.bus_bytes
    )


def test_a_token_whose_code_is_nan_is_never_recalled() -> None:
    made = unit()
    new, values = drawn(6)
    scales = new.scales.copy()
    scales[2] = arith.NAN
    command = commands.store_command(
        CONFIG, Codes(new.words, scales), values, address=STORE, identity=NAMED, tag=0
    )
    made.execute(*command)
    _, mask, _ = made.execute(*recall(6, 65535))
    assert commands.unpack_masks(CONFIG, mask, 6, 1)[0].tolist() == [True, True, False, True, True, True]


@pytest.mark.parametrize(
    ("spoil", "status"),
    [
        (lambda: changed(store(2), count=0), Status.BAD_COUNT),
        (lambda: changed(store(2), count=STORE_TOKENS + 1), Status.BAD_COUNT),
        (lambda: changed(store(2), count=3), Status.BAD_LENGTH),
        (lambda: changed(store(2), kv_heads=NAMED + 1), Status.OTHER_CODES),
        (lambda: changed(store(2), address=STORE + 8), Status.BAD_ADDRESS),
        (lambda: changed(store(2), address=HOST.stop), Status.BAD_ADDRESS),
        (lambda: store(31), Status.KV_FULL),
        (lambda: changed(recall(40), count=0), Status.BAD_COUNT),
        (lambda: changed(recall(40), count=VOTE_ROWS + 1), Status.BAD_COUNT),
        (lambda: recall(39), Status.BAD_COUNT),
        (lambda: recall(41), Status.BAD_COUNT),
        (lambda: changed(recall(40), clusters=0), Status.BAD_COUNT),
        (lambda: recall(65), Status.CAPACITY),
        (lambda: recall(40, residents=9), Status.CAPACITY),
        (
            lambda: changed(recall(40), param=VOTE_PARAM.to_int({"residents": 5, "wanted": 1})),
            Status.BAD_LENGTH,
        ),
        (lambda: changed(recall(40), kv_heads=1), Status.OTHER_CODES),
        (lambda: changed(recall(40), address=STORE + 8), Status.BAD_ADDRESS),
        (lambda: changed(recall(40), opcode=Opcode.VOTE), Status.BAD_OPCODE),
    ],
)
def test_refuses(spoil: Callable[[], Command], status: Status) -> None:
    made = unit()
    made.execute(*store(40))
    before = made.memory.read(DEVICE.start, DEVICE.pages * PAGE)
    command, payload = spoil()
    completion, result, kv = made.execute(command, payload)
    assert completion == Completion(command.tag, status)
    assert (result, kv) == (b"", b"")
    assert made.memory.read(DEVICE.start, DEVICE.pages * PAGE) == before
    assert made.execute(*recall(40))[0].status == Status.OK


def test_a_store_that_leaves_the_windows_stays_as_it_was() -> None:
    made = unit()
    made.execute(*store(4))
    header = StoreHeader.unpack(made.memory.read(STORE, 32))
    for page in ("codes_page", "scales_page", "host_page"):
        made.memory.write(STORE, dataclasses.replace(header, **{page: HOST.base + HOST.pages}).pack())
        assert made.execute(*store(2))[0].status == Status.BAD_ADDRESS
        assert made.execute(*recall(4, 9))[0].status == Status.BAD_ADDRESS
        assert StoreHeader.unpack(made.memory.read(STORE, 32)).tokens == 4
    made.memory.write(STORE, header.pack())
    assert made.execute(*store(2))[0].detail == 6


def test_packed_keys_and_values_are_those_of_the_records() -> None:
    made = unit()
    plan = plan_store(CONFIG, 70, HOST.base, NAMED, is_packed=True)
    made.memory.write(STORE, plan.header.pack())
    assert plan.host_pages * PAGE >= 70 * 24
    _, values = drawn(9)
    assert made.execute(*store(9))[0].detail == 9
    completion, mask, kv = made.execute(*recall(9, 4))
    chosen = np.flatnonzero(commands.unpack_masks(CONFIG, mask, 9, 1)[0])
    want = packed.unpack(packed.pack(values[chosen]), 2, 16)
    np.testing.assert_array_equal(np.frombuffer(kv, "<u2").reshape(-1, 2, 16), want)
    assert completion.detail == len(chosen) * CONFIG.kvmu.token_bytes // CONFIG.bus_bytes
    # 16 bytes of codes and 4 of scales, filled up to a beat of 8 bytes.
    raw = made.memory.view(HOST.start, 9 * 24).reshape(9, 24)
    np.testing.assert_array_equal(raw[:, :20], packed.pack(values))
    assert not raw[:, 20:].any()


def test_an_identity_names_planes_and_centre() -> None:
    rows, centre = codes.planes(0, 1, 2, 64, 16), np.zeros(16, dtype=np.uint16)
    other = centre.copy()
    other[3] = 1
    named = [
        identity(rows, centre),
        identity(rows, other),
        identity(codes.planes(1, 1, 2, 64, 16), centre),
        identity(codes.planes(0, 1, 3, 64, 16), centre),
        identity(rows[:32], centre),
    ]
    assert len(set(named)) == len(named)
    assert all(0 <= name < 1 << 32 for name in named)


@pytest.mark.parametrize("tokens", [0, MAX_TOKENS + 1])
def test_plans_no_store_that_cannot_be(tokens: int) -> None:
    with pytest.raises(ValueError, match="room for 1 to 65535 tokens"):
        plan_store(CONFIG, tokens, 0, 0)


def test_arrays_of_a_plan_do_not_meet() -> None:
    for tokens in (1, 1024, 1025, MAX_TOKENS):
        made = plan_store(CONFIG, tokens, 77, NAMED)
        header = made.header
        assert (header.codes_page - 0) * PAGE >= 32
        assert (header.scales_page - header.codes_page) * PAGE >= tokens * 4
        assert (made.device_pages - header.scales_page) * PAGE >= tokens * 2
        assert made.host_pages * PAGE >= tokens * 64
        assert StoreHeader.unpack(header.pack()) == header


def test_payloads_come_back() -> None:
    new, values = drawn(9)
    command, payload = store(9)
    got, kv = commands.store_payload(CONFIG, payload, 9)
    assert len(payload) == command.length == commands.store_length(CONFIG, 9)
    np.testing.assert_array_equal(got.words, new.words)
    np.testing.assert_array_equal(got.scales, new.scales)
    np.testing.assert_array_equal(kv, values)
    command, payload = recall(9, rows=3, residents=5)
    assert len(payload) == command.length == commands.recall_length(CONFIG, 3, 5)
    for name, values in vars(asked(3, 5)).items():
        np.testing.assert_array_equal(getattr(commands.vote_rows(CONFIG, payload, 3, 5), name), values)


def test_registers() -> None:
    made = unit()
    for register in RECALL_REGISTERS:
        completion, _, _ = made.execute(Descriptor(Opcode.GETREG, count=register), b"")
        assert completion.status == Status.OK
        if register not in reset_values(RECALL_REGISTERS):
            assert completion.detail == 0
    assert made.execute(Descriptor(Opcode.GETREG, count=Register.TH_HD), b"")[0].status == Status.BAD_REGISTER


def test_a_header_is_not_a_command_error_of_another_kind() -> None:
    with pytest.raises(CommandError) as raised:
        TokenStore(CONFIG, Memory(DEVICE, HOST), STORE + 1)
    assert raised.value.status == Status.BAD_ADDRESS
