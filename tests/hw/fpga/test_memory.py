"""A board's SDRAM: its pins, its clock, and that the tools take all of it."""

import re
from pathlib import Path
from typing import Any

import pytest
from amaranth import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from vrex.errors import UserError
from vrex.hw.fpga import designs
from vrex.hw.fpga.boards import BOARDS
from vrex.hw.fpga.clocks import clock_of
from vrex.hw.fpga.top import Top
from vrex.hw.lib.axi.burst import INCR
from vrex.hw.lib.axi.signature import Axi4Interface, Axi4Signature
from vrex.hw.tools.fpga.flow import Job, build, prepare
from vrex.hw.tools.fpga.pieces import Pieces
from vrex.model.config import preset

BITS = 32
BOARD = BOARDS["ulx3s-25f"]
PINS = 1 + 1 + 4 + 2 + 13 + 2 + 16
"""Clock, CKE, CS and command, bank, address, DQM, DQ."""


class Wanderer(wiring.Component):
    """Writes what comes in to one beat after the other, reads another, and sends its parity."""

    rx: Signal
    tx: Signal
    m_axi: Axi4Interface
    memory_reset: Signal

    def __init__(self) -> None:
        super().__init__(
            {
                "rx": In(1),
                "tx": Out(1),
                "m_axi": Out(Axi4Signature(data_width=BITS)),
                "memory_reset": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        axi, count, word = self.m_axi, Signal(23), Signal(BITS)
        m.d.sync += word.eq(Cat(self.rx, word))
        for channel in (axi.ar, axi.aw):
            m.d.comb += [channel.burst.eq(INCR), channel.size.eq(2), channel.addr[2:].eq(count)]
        with m.If(axi.aw.valid & axi.aw.ready | ~axi.aw.valid):
            m.d.sync += [axi.aw.valid.eq(1), count.eq(count + 1)]
        m.d.sync += self.tx.eq(axi.r.data.xor() ^ axi.b.resp.any())
        m.d.comb += [
            axi.ar.valid.eq(1),
            axi.w.valid.eq(1),
            axi.w.data.eq(word),
            axi.w.strb.eq(word[:4]),
            axi.w.last.eq(1),
            axi.r.ready.eq(1),
            axi.b.ready.eq(1),
        ]
        return m


def _plan(mhz: float | None = None) -> dict[str, str]:
    clock, pll = clock_of(BOARD, mhz)
    return prepare(BOARD, Top(BOARD, Wanderer(), mhz=clock, pll=pll))


def test_every_pin_has_its_place() -> None:
    plan = _plan()
    sites = re.findall(r'LOCATE COMP "sdram_0__\w+__io(?:\[\d+\])?" SITE "(\w+)"', plan["top.lpf"])
    assert len(set(sites)) == len(sites) == PINS
    # Registers at all pins but the clock's, which has the memory's own clock.
    assert plan["top.il"].count("cell \\OFS1P3DX") >= PINS - 1
    assert plan["top.il"].count("cell \\IFS1P3DX") == 16
    assert plan["top.il"].count("cell \\ODDRX1F") == 1


def test_the_memory_has_a_clock_a_quarter_later() -> None:
    text = _plan()["top.il"]
    found = {
        name: int(value)
        for name, value in re.findall(r"parameter(?: signed)? \\(CLK\w+) (\d+)", text)
        if value
    }
    assert found["CLKOP_DIV"] == found["CLKOS_DIV"] == 16
    assert found["CLKOS_CPHASE"] - found["CLKOP_CPHASE"] == 4


def test_a_clock_that_is_too_fast_for_the_chip() -> None:
    with pytest.raises(UserError, match="--frequency: sdr-32mb runs at up to 133 MHz, not at 150"):
        _plan(150)


@pytest.mark.slow
def test_a_bitstream_with_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(designs, "make", lambda *of: Wanderer())
    built = build(Job(BOARD, "dre", preset("tiny"), None, 1_000_000, 1), lambda *_: None, Pieces(tmp_path))
    assert built.figures["meets_clock"]
    assert built.figures["packed"]["IOLOGIC"]["used"] >= PINS
    (bits,) = built.files.values()
    assert b"LFE5U-25F" in bits[:200]
