"""The voter's engine above the golden model and the simulated Verilog; faults as sentences."""

import dataclasses
import re

import numpy as np
import pytest

from vrex.errors import UserError
from vrex.model.commands import VOTE_ROWS, Register, VoteRows
from vrex.model.config import CodesConfig, Config
from vrex.model.dre import codes, hashing
from vrex.model.dre.codes import Codes
from vrex.model.dre.registers import scale_to_register
from vrex.model.dre.wtu import Scale
from vrex.sw.driver import DriverError, VoterEngine, VoteRequest, open_voter
from vrex.sw.driver.command_check import CheckedCommands
from vrex.sw.driver.command_interface import VOTER, CommandInterface
from vrex.sw.driver.rtl import RtlTransport

CONFIG = Config(name="small", bus_bits=64, codes=CodesConfig(lanes=4, bits=64, tokens=64, residents=16))
SCALE = Scale.from_float(0.125)
NOTHING = Codes(np.empty((0, 2), np.uint32), np.empty(0, np.uint16))


def request(tokens: int, rows: int = 3, residents: int = 5, layer: int = 0, kv_head: int = 0) -> VoteRequest:
    rng = np.random.default_rng([tokens, rows, residents, layer, kv_head])
    past = Codes(
        hashing.pack_bits(rng.random((tokens, 64)) < 0.5, 64),
        rng.integers(0x3E00, 0x4100, tokens).astype(np.uint16),
    )
    seen = VoteRows(
        rng.integers(-127, 128, (rows, 64)).astype(np.int8),
        rng.integers(0x3B00, 0x3D00, rows).astype(np.uint16),
        rng.integers(0x3F00, 0x4200, (rows, residents)).astype(np.uint16),
    )
    return VoteRequest(past, seen, layer, kv_head)


def of_the_model(request: VoteRequest, wanted: int) -> list[int]:
    scores = codes.score(request.rows.components, request.rows.scales, request.past)
    return codes.select(codes.vote(request.rows.residents, scores, SCALE), wanted).tolist()


@pytest.mark.parametrize(("backend", "check"), [("golden", False), ("rtl", False), ("rtl", True)])
def test_selects_what_the_model_does(backend: str, check: bool) -> None:
    engine = VoterEngine(open_voter(backend, CONFIG, check))
    engine.set_scale(SCALE)
    requests = [request(7 + 9 * head, layer=head % 2, kv_head=head) for head in range(5)]
    got = engine.select(requests, 6)
    assert [tokens.tolist() for tokens in got] == [of_the_model(one, 6) for one in requests]
    assert engine.read_register(Register.SCALE) == scale_to_register(SCALE)
    report = engine.transport.report.to_dict()
    assert report["calls"] == 5
    assert (report["compared"], report["mismatches"]) == (5 if check else 0, 0)
    units = report["units"]
    assert isinstance(units, dict)
    assert (units["votes"] > 5 * 100) == (backend == "rtl")
    assert (engine.read_register(Register.VOTE_BUSY) > 500) == (backend == "rtl")


def test_a_planted_bug_is_a_mismatch_and_the_golden_result_goes_on() -> None:
    def only_ties(text: str) -> str:
        changed, planted = re.subn(r"= ranked_larger \| ", "= ranked_larger & ", text)
        assert planted == 1
        return changed

    checked = CheckedCommands(RtlTransport(CommandInterface(CONFIG, unit=VOTER), mutate=only_ties))
    engine = VoterEngine(checked)
    engine.set_scale(SCALE)
    one = request(20)
    assert engine.select([one], 4)[0].tolist() == of_the_model(one, 4)
    assert checked.report.mismatches == 1
    assert checked.records[0].command.clusters == 20


def test_stalls_change_nothing() -> None:
    engine = VoterEngine(RtlTransport(CommandInterface(CONFIG, unit=VOTER), stall=0.4, seed=3))
    engine.set_scale(SCALE)
    requests = [request(50, kv_head=head) for head in range(3)]
    assert [t.tolist() for t in engine.select(requests, 9)] == [of_the_model(one, 9) for one in requests]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (
            request(65, layer=3),
            "layer 3 has 65 coded tokens, but preset small's voter chooses from 64 beside 16",
        ),
        (request(5, residents=17), "take a larger codes.tokens or codes.residents"),
        (request(5, rows=VOTE_ROWS + 1), f"asks with {VOTE_ROWS + 1} rows, but a voter takes {VOTE_ROWS}"),
        (
            dataclasses.replace(request(5), past=Codes(np.empty((0, 2), np.uint32), np.empty(0, np.uint16))),
            "BAD",
        ),
    ],
)
def test_what_it_refuses(bad: VoteRequest, says: str) -> None:
    engine = VoterEngine(open_voter("golden", CONFIG))
    with pytest.raises(DriverError, match=re.escape(says)):
        engine.select([bad], 2)
    good = request(5)
    engine.set_scale(SCALE)
    assert engine.select([good], 2)[0].tolist() == of_the_model(good, 2)


def test_unknown_backends_and_boards() -> None:
    with pytest.raises(UserError, match="unknown backend 'fpga'"):
        open_voter("fpga", CONFIG)
    with pytest.raises(UserError, match="can't be checked against itself"):
        open_voter("golden", CONFIG, check=True)
