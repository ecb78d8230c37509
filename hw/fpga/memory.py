"""A board's SDRAM behind an AXI4 port, and its pins."""

from typing import Any

from amaranth import Module, ResetInserter
from amaranth.lib import io
from amaranth.lib.wiring import connect

from vrex.errors import UserError
from vrex.hw.fpga.boards import Board
from vrex.hw.fpga.clocks import SHIFTED
from vrex.hw.lib.axi.signature import Axi4Interface
from vrex.hw.lib.sdram import Sdram, SdramPins

EXTRA_READ_CYCLES = 1
"""From `cas` to `read_delay`: a register at the pins each way, less the cycle that the chip's clock saves.

Outputs leave registers at the pins a cycle after the controller's; the chip sees them a quarter of a cycle
later, at the shifted clock, so within that cycle and not at its end; its words are in a register at the pins
a cycle after they are there."""


def attach(m: Module, platform: Any, board: Board, axi: Axi4Interface, mhz: float, *, reset: Any = 0) -> None:
    """Connects the board's SDRAM to a port.

    Args:
        m: gets the controller and the pins; has domains `sync` and `shifted`.
        platform: Amaranth's.
        board: with an SDRAM.
        axi: the manager's port.
        mhz: of `sync`.
        reset: makes the controller forget all that is under way and start the chip again, which takes 0.2 ms
            and leaves its contents.

    Raises:
        UserError: the chip is slower than the clock.
    """
    assert board.sdram is not None
    try:
        cycles = board.sdram.cycles(mhz)
    except ValueError as error:
        raise UserError(f"--frequency: {error}; choose a lower one") from error
    sdram = Sdram(
        board.sdram,
        cycles,
        data_width=len(axi.r.data),
        id_width=len(axi.ar.id),
        read_delay=cycles.cas + EXTRA_READ_CYCLES,
    )
    m.submodules.sdram = ResetInserter(reset)(sdram)
    connect(m, axi, sdram.s_axi)
    _pins(m, platform, sdram.pins)


def _pins(m: Module, platform: Any, pins: SdramPins) -> None:
    """Registers at the pins, so that all of them have the same delay."""
    names = ("clk", "clk_en", "cs", "we", "ras", "cas", "ba", "a", "dq", "dqm")
    ports = platform.request("sdram", 0, dir=dict.fromkeys(names, "-"))
    driven = {
        "clk_en": pins.cke,
        "cs": 1,
        "we": pins.command[0],
        "cas": pins.command[1],
        "ras": pins.command[2],
        "ba": pins.bank,
        "a": pins.address,
        "dqm": pins.mask,
    }
    for name, value in driven.items():
        buffer = io.FFBuffer(io.Direction.Output, getattr(ports, name))
        m.submodules[f"sdram_{name}"] = buffer
        m.d.comb += buffer.o.eq(value)
    words: Any = io.FFBuffer(io.Direction.Bidir, ports.dq)
    m.submodules.sdram_dq = words
    m.d.comb += [words.o.eq(pins.dq_o), words.oe.eq(pins.dq_oe), pins.dq_i.eq(words.i)]
    # High in the first half of the shifted clock's cycle: that clock itself, by way of the pin's register.
    clock: Any = io.DDRBuffer(io.Direction.Output, ports.clk, o_domain=SHIFTED)
    m.submodules.sdram_clk = clock
    m.d.comb += [clock.o[0].eq(1), clock.o[1].eq(0)]
