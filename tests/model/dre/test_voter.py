"""The voter at its command interface: what it answers, refuses and keeps."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from vrex.model import commands
from vrex.model.commands import (
    VOTE_PARAM,
    VOTE_ROWS,
    Completion,
    Descriptor,
    Opcode,
    Register,
    Status,
    VoteRows,
)
from vrex.model.config import CodesConfig, Config
from vrex.model.dre import codes, hashing
from vrex.model.dre.codes import Codes
from vrex.model.dre.registers import VOTER_REGISTERS, scale_to_register
from vrex.model.dre.voter import Voter
from vrex.model.dre.wtu import Scale

CONFIG = Config(bus_bits=64, codes=CodesConfig(lanes=2, bits=32, tokens=64, residents=8))
SCALE = Scale.from_float(0.25)
Command = tuple[Descriptor, bytes]


def drawn(tokens: int, rows: int, residents: int, bits: int = 32) -> tuple[Codes, VoteRows]:
    rng = np.random.default_rng([tokens, rows, residents, bits])
    past = Codes(
        hashing.pack_bits(rng.random((tokens, bits)) < 0.5, bits),
        rng.integers(0x3E00, 0x4100, tokens).astype(np.uint16),
    )
    return past, VoteRows(
        rng.integers(-127, 128, (rows, bits)).astype(np.int8),
        rng.integers(0x3B00, 0x3D00, rows).astype(np.uint16),
        rng.integers(0x3F00, 0x4200, (rows, residents)).astype(np.uint16),
    )


def vote(tokens: int = 5, rows: int = 2, residents: int = 3, wanted: int = 2) -> Command:
    return commands.vote_command(CONFIG, *drawn(tokens, rows, residents), wanted, tag=0xABCD)


def changed(command: Command, **fields: int) -> Command:
    return dataclasses.replace(command[0], **fields), command[1]


@pytest.mark.parametrize("bits", [8, 32, 64, 128])
@pytest.mark.parametrize(("tokens", "rows", "residents"), [(1, 1, 0), (5, 3, 1), (64, 2, 8), (33, 4, 5)])
def test_a_payload_is_what_was_packed(bits: int, tokens: int, rows: int, residents: int) -> None:
    config = dataclasses.replace(CONFIG, codes=dataclasses.replace(CONFIG.codes, bits=bits))
    past, seen = drawn(tokens, rows, residents, bits)
    command, payload = commands.vote_command(config, past, seen, 3, tag=0)
    assert len(payload) == command.length == commands.vote_length(config, tokens, rows, residents)
    assert VOTE_PARAM.from_int(command.param) == {"residents": residents, "wanted": 3}
    got_past, got_seen = commands.vote_payload(config, payload, tokens, rows, residents)
    for got, wanted in ((got_past, past), (got_seen, seen)):
        for name, values in vars(wanted).items():
            np.testing.assert_array_equal(getattr(got, name), values)


@pytest.mark.parametrize(("tokens", "wanted"), [(5, 2), (64, 63), (40, 0), (7, 65535)])
def test_the_tokens_of_the_model(tokens: int, wanted: int) -> None:
    voter = Voter(CONFIG)
    voter.execute(Descriptor(Opcode.SETREG, count=Register.SCALE, param=scale_to_register(SCALE)), b"")
    past, seen = drawn(tokens, 3, 4)
    command, payload = commands.vote_command(CONFIG, past, seen, wanted, tag=3)
    completion, result = voter.execute(command, payload)
    scores = codes.score(seen.components, seen.scales, past)
    chosen = codes.select(codes.vote(seen.residents, scores, SCALE), wanted)
    assert (completion.status, completion.tag, completion.detail) == (Status.OK, 3, len(chosen))
    assert completion.size == len(result) == CONFIG.beats(tokens, 1) * CONFIG.bus_bytes
    assert np.flatnonzero(commands.unpack_masks(CONFIG, result, tokens, 1)[0]).tolist() == chosen.tolist()
    assert len(chosen) == min(wanted, tokens)


FAULTS: list[tuple[str, Status, Callable[[], Command]]] = [
    ("opcode of a KVPU", Status.BAD_OPCODE, lambda: changed(vote(), opcode=Opcode.SELECT)),
    ("opcode 9", Status.BAD_OPCODE, lambda: changed(vote(), opcode=9)),
    ("no rows", Status.BAD_COUNT, lambda: changed(vote(), count=0)),
    ("too many rows", Status.BAD_COUNT, lambda: changed(vote(), count=VOTE_ROWS + 1)),
    ("no tokens", Status.BAD_COUNT, lambda: changed(vote(), clusters=0)),
    ("no KV head", Status.BAD_COUNT, lambda: changed(vote(), kv_heads=0)),
    ("two KV heads", Status.BAD_COUNT, lambda: changed(vote(), kv_heads=5)),
    ("too many tokens", Status.CAPACITY, lambda: vote(tokens=65)),
    ("too many residents", Status.CAPACITY, lambda: vote(residents=9)),
    ("too short", Status.BAD_LENGTH, lambda: changed(vote(), length=8)),
    ("too long", Status.BAD_LENGTH, lambda: changed(vote(), length=vote()[0].length + 8)),
    ("rows and length differ", Status.BAD_LENGTH, lambda: changed(vote(), count=3)),
]


@pytest.mark.parametrize(("status", "make"), [fault[1:] for fault in FAULTS], ids=[f[0] for f in FAULTS])
def test_faults(status: Status, make: Callable[[], Command]) -> None:
    voter = Voter(CONFIG)
    assert voter.execute(*make()) == (Completion(0xABCD, status), b"")
    completion, _ = voter.execute(*vote())
    assert completion.status == Status.OK


def test_registers() -> None:
    """The scale and three counters, which read 0 without a clock; not those of a KVPU."""
    voter = Voter(CONFIG)
    assert [register.name for register in VOTER_REGISTERS] == [
        "SCALE",
        "VOTE_BUSY",
        "VOTE_WAIT_IN",
        "VOTE_WAIT_OUT",
    ]
    for register in VOTER_REGISTERS:
        completion, _ = voter.execute(Descriptor(Opcode.GETREG, count=register), b"")
        assert (completion.status, completion.detail) == (Status.OK, 0)
    for register in (Register.TH_HD, Register.TIMEOUT):
        completion, _ = voter.execute(Descriptor(Opcode.SETREG, count=register), b"")
        assert completion.status == Status.BAD_REGISTER
    completion, _ = voter.execute(Descriptor(Opcode.SETREG, count=Register.SCALE, param=1), b"")
    assert completion.status == Status.BAD_VALUE
