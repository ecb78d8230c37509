"""The engine of the unit `recall` above the golden model and the simulated Verilog; faults as sentences."""

import re
from dataclasses import replace

import numpy as np
import pytest

from vrex.errors import UserError
from vrex.model.commands import STORE_TOKENS, VOTE_ROWS, VoteRows
from vrex.model.config import CodesConfig, Config, KvmuConfig
from vrex.model.dre import codes, hashing
from vrex.model.dre.codes import Codes
from vrex.model.dre.wtu import Scale
from vrex.sw.driver import DriverError, RecallEngine, RecallRequest, StoreLayout, StoreRequest, open_recall
from vrex.sw.driver.command_check import CheckedCommands
from vrex.sw.driver.command_interface import RECALL, CommandInterface
from vrex.sw.driver.rtl import RtlTransport

CONFIG = Config(
    name="small",
    bus_bits=64,
    codes=CodesConfig(lanes=4, bits=64, tokens=64, residents=16),
    kvmu=KvmuConfig(head_dim=16),
)
SCALE = Scale.from_float(0.125)
STORES = 3


def layout(cap_tokens: int = 80) -> StoreLayout:
    return StoreLayout.of(CONFIG, STORES, cap_tokens)


def engine(backend: str = "golden", check: bool = False, cap_tokens: int = 80) -> RecallEngine:
    laid = layout(cap_tokens)
    made = RecallEngine(open_recall(backend, CONFIG, check, laid.new_memory()), laid)
    made.set_scale(SCALE)
    for store in range(STORES):
        made.create(store, 1000 + store)
    return made


def tokens(count: int, store: int = 0, seed: int = 0) -> StoreRequest:
    rng = np.random.default_rng([count, store, seed])
    new = Codes(
        hashing.pack_bits(rng.random((count, 64)) < 0.5, 64),
        rng.integers(0x3E00, 0x4100, count).astype(np.uint16),
    )
    return StoreRequest(store, store, new, rng.integers(0, 1 << 16, (count, 2, 16)).astype(np.uint16))


def asks(store: int = 0, rows: int = 3, residents: int = 5) -> RecallRequest:
    rng = np.random.default_rng([rows, residents, store])
    seen = VoteRows(
        rng.integers(-127, 128, (rows, 64)).astype(np.int8),
        rng.integers(0x3B00, 0x3D00, rows).astype(np.uint16),
        rng.integers(0x3F00, 0x4200, (rows, residents)).astype(np.uint16),
    )
    return RecallRequest(store, store, seen)


def of_the_model(past: Codes, rows: VoteRows, wanted: int) -> list[int]:
    scores = codes.score(rows.components, rows.scales, past)
    return codes.select(codes.vote(rows.residents, scores, SCALE), wanted).tolist()


@pytest.mark.parametrize(("backend", "check"), [("golden", False), ("rtl", False), ("rtl", True)])
def test_recalls_what_was_stored(backend: str, check: bool) -> None:
    made = engine(backend, check)
    first = [tokens(7 + 9 * store, store) for store in range(STORES)]
    then = [tokens(1 + store, store, seed=1) for store in range(STORES)]
    made.store(first)
    made.store(then)
    requests = [asks(store) for store in range(STORES)]
    got = made.recall(requests, 6)
    for store, (one, two) in enumerate(zip(first, then, strict=True)):
        past = Codes(
            np.concatenate([one.codes.words, two.codes.words]),
            np.concatenate([one.codes.scales, two.codes.scales]),
        )
        wanted = of_the_model(past, requests[store].rows, 6)
        assert got[store].tokens.tolist() == wanted
        np.testing.assert_array_equal(got[store].kv, np.concatenate([one.kv, two.kv])[wanted])
        assert made.tokens(store) == len(past.scales)
    report = made.transport.report.to_dict()
    assert report["calls"] == 3 * STORES
    # A store after each batch; a bitmask, and K and V.
    assert (report["compared"], report["mismatches"]) == (4 * STORES if check else 0, 0)
    counted = made.counters()
    assert (counted["read_beats"] > 100) == (backend == "rtl")
    assert counted["kv_beats"] == (sum(len(one.kv) for one in got) * 8 if backend == "rtl" else 0)


def test_more_tokens_than_a_store_command_takes() -> None:
    made = engine(cap_tokens=STORE_TOKENS + 10)
    many = tokens(STORE_TOKENS + 3)
    made.store([many])
    assert made.tokens(0) == STORE_TOKENS + 3


def test_stalls_change_nothing() -> None:
    laid = layout()
    transport = RtlTransport(CommandInterface(CONFIG, laid.new_memory(), RECALL), stall=0.4, seed=3)
    made = RecallEngine(transport, laid)
    made.set_scale(SCALE)
    made.create(1, 5)
    new = tokens(50, 1)
    made.store([new])
    (got,) = made.recall([asks(1)], 9)
    assert got.tokens.tolist() == of_the_model(new.codes, asks(1).rows, 9)
    np.testing.assert_array_equal(got.kv, new.kv[got.tokens])


def test_a_planted_bug_is_a_mismatch_and_the_golden_result_goes_on() -> None:
    def without_carry(text: str) -> str:
        changed, planted = re.subn(r"\| carry\b", "| 0", text)
        assert planted >= 1
        return changed

    laid = layout()
    interface = CommandInterface(CONFIG, laid.new_memory(), RECALL)
    checked = CheckedCommands(RtlTransport(interface, mutate=without_carry))
    made = RecallEngine(checked, laid)
    made.set_scale(SCALE)
    made.create(0, 1)
    parts = tokens(3), tokens(6, seed=1)
    for part in parts:
        made.store([part])
    assert checked.report.mismatches >= 1
    past = Codes(
        np.concatenate([part.codes.words for part in parts]),
        np.concatenate([part.codes.scales for part in parts]),
    )
    (got,) = made.recall([asks()], 4)
    assert got.tokens.tolist() == of_the_model(past, asks().rows, 4)


def test_what_it_refuses() -> None:
    made = engine()
    made.store([tokens(40)])
    with pytest.raises(DriverError, match="a store of layer 0 has room for 80 tokens and is full"):
        made.store([tokens(41)])
    with pytest.raises(DriverError, match=f"asks with {VOTE_ROWS + 1} rows, but a RECALL takes {VOTE_ROWS}"):
        made.recall([asks(rows=VOTE_ROWS + 1)], 2)
    with pytest.raises(DriverError, match=r"take a larger codes\.tokens or codes\.residents"):
        made.recall([asks(residents=17)], 2)
    assert made.tokens(0) == 40
    made.store([tokens(25, seed=2)])
    with pytest.raises(DriverError, match="layer 0 has 65 coded tokens, but preset small's unit of codes"):
        made.recall([asks()], 2)


def test_codes_of_another_seed_or_centre_are_refused() -> None:
    made = engine()
    made.store([tokens(4)])
    header = made.transport.memory
    assert header is not None
    # As if another stream had written the store.
    header.write(made.layout.addresses[0] + 4, bytes(4))
    for call in (lambda: made.store([tokens(1)]), lambda: made.recall([asks()], 2)):
        with pytest.raises(DriverError, match="codes of other planes or another centre"):
            call()


@pytest.mark.parametrize("check", [False, True])
def test_a_store_that_leaves_the_windows(check: bool) -> None:
    made = engine("rtl", check)
    made.store([tokens(4)])
    good = made.layout.headers[0]
    for broken in (replace(good, codes_page=1 << 20), replace(good, host_page=1 << 31)):
        header = replace(broken, tokens=4, identity=1000).pack()
        made.transport.write(made.layout.addresses[0], header)
        for call in (lambda: made.store([tokens(1)]), lambda: made.recall([asks()], 2)):
            with pytest.raises(DriverError, match="a store of layer 0 leaves the memory windows"):
                call()
    made.transport.write(made.layout.addresses[0], replace(good, tokens=4, identity=1000).pack())
    assert len(made.recall([asks()], 2)[0].tokens) == 2
    assert made.transport.report.mismatches == 0


def test_a_layout_that_cannot_be() -> None:
    with pytest.raises(UserError, match=r"the stores can't be laid out: .* shorten the video"):
        StoreLayout.of(CONFIG, 2, 70_000)
    with pytest.raises(UserError, match="unknown backend 'fpga'"):
        open_recall("fpga", CONFIG, False, layout().new_memory())
    with pytest.raises(UserError, match="can't be checked against itself"):
        open_recall("golden", CONFIG, True, layout().new_memory())
