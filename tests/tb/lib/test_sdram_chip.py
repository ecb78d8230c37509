"""The chip of the benches finds every broken rule, and lets a correct controller be."""

from random import Random
from typing import Any

import pytest

from vrex.model.lib.sdram import ALL_BANKS, SDR_32MB, SdramCommand, mode_word
from vrex.tb.lib.sdram_chip import Pins, SdramModel

MHZ = 100.0
"""A cycle is 10 ns: rcd, rp 3; ras 5; rc, rfc 7; wr 2."""

ROW, COLUMN = 77, 5


class Script:
    """Gives commands to a chip, each some cycles after the one before."""

    def __init__(self) -> None:
        self.model = SdramModel(SDR_32MB, MHZ, Random(1))
        self.words: list[int | None] = []

    def give(self, after: int, command: SdramCommand, **pins: int) -> "Script":
        for _ in range(after - 1):
            self.words.append(self.model.step(Pins()))
        self.words.append(self.model.step(Pins(command=command, **pins)))
        return self

    def wait(self, cycles: int, **pins: int) -> "Script":
        for _ in range(cycles):
            self.words.append(self.model.step(Pins(**pins)))
        return self

    def start(self) -> "Script":
        self.give(20_001, SdramCommand.PRECHARGE, address=ALL_BANKS)
        self.give(3, SdramCommand.REFRESH).give(7, SdramCommand.REFRESH)
        return self.give(7, SdramCommand.MODE, address=mode_word(2)).wait(1)

    def open(self, after: int = 1, bank: int = 0) -> "Script":
        return self.give(after, SdramCommand.ACTIVATE, bank=bank, address=ROW)

    def write(self, after: int, word: int, **pins: Any) -> "Script":
        return self.give(after, SdramCommand.WRITE, **{"address": COLUMN, "dq_o": word, "dq_oe": 1} | pins)

    def read(self, after: int, **pins: Any) -> "Script":
        return self.give(after, SdramCommand.READ, **{"address": COLUMN} | pins)

    def close(self, after: int) -> "Script":
        return self.give(after, SdramCommand.PRECHARGE, address=ALL_BANKS)


def test_words_are_written_and_read() -> None:
    script = Script().start().open().write(3, 0xBEEF).write(1, 0x1234, mask=0b10)
    assert script.model.word(script.model.number(0, ROW, COLUMN)) == 0xBE34
    script.read(1).wait(1)
    # On the pins at the second edge after READ's.
    assert script.words[-2:] == [None, 0xBE34]
    script.wait(1).close(3).give(3, SdramCommand.REFRESH)
    assert script.model.violations == []
    assert script.model.bytes(script.model.number(0, ROW, COLUMN) * 2, 2) == b"\x34\xbe"


def test_addresses_go_through_columns_then_banks() -> None:
    model = SdramModel(SDR_32MB, MHZ, Random(1))
    assert model.number(0, 0, 511) + 1 == model.number(1, 0, 0)
    assert model.number(3, 0, 511) + 1 == model.number(0, 1, 0)
    assert model.number(3, 8191, 511) == SDR_32MB.bytes // 2 - 1


STARTED: dict[str, Any] = {
    "tRCD": lambda s: s.open().read(2),
    "tRAS": lambda s: s.open().close(4),
    "tWR": lambda s: s.open().wait(5).write(1, 1).close(1),
    "tRP": lambda s: s.open().close(5).open(2),
    "tRC": lambda s: s.open().close(4).open(2),
    "tRRD": lambda s: s.open().open(1, bank=1),
    "tRFC": lambda s: s.give(1, SdramCommand.REFRESH).open(6),
    "bank state: bank 0 is open": lambda s: s.open().open(8),
    "bank state: bank 2 has no row open": lambda s: s.open().read(3, bank=2),
    "refresh interval": lambda s: s.wait(800),
    "bus contention": lambda s: s.open().read(3).write(3, 1),
    "DQM hides": lambda s: s.open().read(3, mask=1).wait(2),
    "driven without WRITE": lambda s: s.wait(1, dq_oe=1),
    "WRITE without a word": lambda s: s.open().give(3, SdramCommand.WRITE),
    "no column": lambda s: s.open().read(3, address=512),
    "not modelled": lambda s: s.open().read(3, address=ALL_BANKS),
    "BURST_STOP": lambda s: s.give(1, SdramCommand.BURST_STOP),
    "without CKE": lambda s: s.give(1, SdramCommand.REFRESH, cke=0),
    "tMRD": lambda s: s.give(1, SdramCommand.MODE, address=mode_word(2)).open(1),
    "CAS latency 1": lambda s: s.give(1, SdramCommand.MODE, address=mode_word(1)),
    "one word a burst": lambda s: s.give(1, SdramCommand.MODE, address=mode_word(2) | 3),
}


@pytest.mark.parametrize("rule", list(STARTED))
def test_a_broken_rule_is_found(rule: str) -> None:
    script = Script().start()
    assert script.model.violations == []
    STARTED[rule](script)
    assert any(rule in violation for violation in script.model.violations), script.model.violations


@pytest.mark.parametrize(
    "steps",
    [
        lambda s: s.open().read(3),
        lambda s: s.open().close(5).open(3),
        lambda s: s.open().write(5, 1).close(2),
        lambda s: s.open().open(2, bank=1),
        lambda s: s.give(1, SdramCommand.REFRESH).open(7),
        lambda s: s.open().read(3).write(4, 1),
        lambda s: s.wait(700).give(1, SdramCommand.REFRESH).wait(700),
    ],
)
def test_the_least_that_is_allowed_is_not_complained_about(steps: Any) -> None:
    script = Script().start()
    steps(script)
    assert script.model.violations == []


@pytest.mark.parametrize(
    ("says", "steps"),
    [
        ("start: 199990.0 of 200000 ns", lambda s: s.give(20_000, SdramCommand.PRECHARGE)),
        ("start: ACTIVATE before MODE", lambda s: s.open(20_001)),
        ("start: MODE after 0 REFRESHes", lambda s: s.close(20_001).give(3, SdramCommand.MODE, address=32)),
    ],
)
def test_the_start_is_checked(says: str, steps: Any) -> None:
    script = Script()
    steps(script)
    assert any(says in violation for violation in script.model.violations), script.model.violations
