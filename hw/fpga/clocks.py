"""Clocks of a board: the oscillator as it is, or a PLL behind it, and the reset that goes with it."""

from dataclasses import dataclass
from typing import Any

from amaranth import ClockDomain, ClockSignal, Instance, Module, Signal
from amaranth.hdl import Elaboratable
from amaranth.lib import io
from amaranth.lib.cdc import ResetSynchronizer

from vrex.errors import UserError
from vrex.hw.fpga.boards import Board
from vrex.hw.fpga.families import ECP5

SHIFTED = "shifted"
"""Domain of the clock that lags behind `sync` by a quarter of a cycle: a memory's."""

_TOLERANCE = 0.01
"""How far a PLL's clock may lie off the wish, as a share."""


@dataclass(frozen=True)
class PllLimits:
    """What a PLL can do; MHz.

    Attributes:
        phase: least and most of the divided oscillator.
        vco: least and most of the PLL's own oscillator.
        divide: most that the oscillator is divided by.
        multiply: most that it is multiplied by.
        output: most that the PLL's own oscillator is divided by.
        inner: what is fed back is the PLL's own oscillator, else the clock that leaves it.
    """

    phase: tuple[float, float]
    vco: tuple[float, float]
    divide: int
    multiply: int
    output: int
    inner: bool


ECP5_PLL = PllLimits((3.125, 400), (400, 800), 128, 80, 128, inner=False)
"""EHXPLLL (Lattice FPGA-DS-02012, 3.19; FPGA-TN-02200)."""

XILINX7_PLL = PllLimits((19, 450), (800, 1600), 56, 64, 128, inner=True)
"""PLLE2_BASE of speed grade -1 (AMD DS181, table 37; UG472)."""


@dataclass(frozen=True)
class Pll:
    """Settings of a PLL.

    Attributes:
        divide: of the board's oscillator.
        multiply: what is fed back is that many times as fast.
        output: the clock is the PLL's own oscillator divided by that, a multiple of 4.
        mhz: the clock.
    """

    divide: int
    multiply: int
    output: int
    mhz: float

    @property
    def quarter(self) -> int:
        """A quarter of the clock's cycle, in cycles of the PLL's oscillator."""
        return self.output // 4


def find_pll(clock_mhz: float, mhz: float, limits: PllLimits) -> Pll:
    """The settings that come nearest to a clock; of equal ones the fastest comparison and oscillator.

    Args:
        clock_mhz: of the board.
        mhz: that is wished.
        limits: of the PLL.

    Raises:
        UserError: the PLL makes nothing near it.
    """
    found: list[tuple[float, int, float, Pll]] = []
    for divide in range(1, limits.divide + 1):
        phase = clock_mhz / divide
        if not limits.phase[0] <= phase <= limits.phase[1]:
            continue
        for output in range(4, limits.output + 1, 4):
            # What is fed back, times this, is the PLL's own oscillator.
            above = 1 if limits.inner else output
            multiply = round(mhz * (output if limits.inner else 1) / phase)
            vco = phase * multiply * above
            if 1 <= multiply <= limits.multiply and limits.vco[0] <= vco <= limits.vco[1]:
                made = vco / output
                found.append((abs(made - mhz), divide, -vco, Pll(divide, multiply, output, made)))
    if not found:
        raise UserError(
            f"--frequency: the PLL makes no {mhz:g} MHz of the board's {clock_mhz:g}; "
            f"choose one between {limits.vco[0] / limits.output:.3g} and {limits.vco[1] / 4:g} MHz"
        )
    off, *_, nearest = min(found, key=lambda entry: entry[:3])
    if off > _TOLERANCE * mhz:
        raise UserError(
            f"--frequency: the PLL makes no {mhz:g} MHz of the board's {clock_mhz:g}; "
            f"choose another, such as {nearest.mhz:g}"
        )
    return nearest


def clock_of(board: Board, mhz: float | None) -> tuple[float, Pll | None]:
    """The clock of a design on a board: MHz, and the PLL's settings unless it is the oscillator's.

    Args:
        board: it.
        mhz: wished; None for what the board offers: 50 MHz with a PLL, else its oscillator's.

    Raises:
        UserError: the board can't make it.
    """
    wished = mhz or (DEFAULT_MHZ if board.has_pll else board.clock_mhz)
    if not board.has_pll:
        if abs(wished - board.clock_mhz) > 1e-6:
            raise UserError(
                f"--frequency: {board.name} runs at its oscillator's {board.clock_mhz:g} MHz alone, "
                f"not at {wished:g}; leave the option out"
            )
        return board.clock_mhz, None
    pll = find_pll(board.clock_mhz, wished, ECP5_PLL if board.family is ECP5 else XILINX7_PLL)
    return pll.mhz, pll


DEFAULT_MHZ = 50.0


def add_domains(m: Module, *, shifted: bool) -> None:
    """Defines the domains that `Clocks` drives, in the module around it and all that they clock."""
    m.domains.sync = ClockDomain("sync")
    if shifted:
        m.domains.shifted = ClockDomain(SHIFTED, reset_less=True)


class Clocks(Elaboratable):
    """Drives domain `sync`, and `shifted` if it is wished, from the board's oscillator (`add_domains`).

    The reset lasts until the PLL has locked, and as long as the board's button is held; it ends in step with
    the clock.

    Args:
        board: it.
        pll: settings, None for the oscillator's clock.
        shifted: also make the clock of a memory.
    """

    def __init__(self, board: Board, pll: Pll | None, *, shifted: bool = False) -> None:
        if shifted and (pll is None or board.family is not ECP5):
            raise ValueError(f"{board.name} has no shifted clock")
        self.board, self.pll, self.shifted = board, pll, shifted

    def elaborate(self, platform: Any) -> Module:
        """Oscillator, PLL and reset."""
        m = Module()
        port = platform.request(platform.default_clk, dir="-")
        m.submodules.clock = clock = io.Buffer(io.Direction.Input, port)
        locked = Signal(init=1)
        if self.pll is None:
            m.d.comb += ClockSignal("sync").eq(clock.i)
        else:
            locked = Signal()
            if self.board.family is ECP5:
                self._ecp5(m, clock.i, locked, self.pll)
            else:
                self._xilinx7(m, clock.i, locked, self.pll)
        button = Signal()
        reset = self.board.reset or ((platform.default_rst, 0) if platform.default_rst else None)
        if reset is not None:
            m.submodules.button = pressed = io.Buffer(io.Direction.Input, platform.request(*reset, dir="-"))
            m.d.comb += button.eq(pressed.i)
        m.submodules.reset = ResetSynchronizer(~locked | button, domain="sync")
        return m

    def _ecp5(self, m: Module, clock: Any, locked: Signal, pll: Pll) -> None:
        # Both outputs have the same divider, so their phases differ by what their delays differ by.
        base = pll.output - 1
        parameters = {
            "p_CLKI_DIV": pll.divide,
            "p_CLKFB_DIV": pll.multiply,
            "p_FEEDBK_PATH": "CLKOP",
            "p_CLKOP_ENABLE": "ENABLED",
            "p_CLKOP_DIV": pll.output,
            "p_CLKOP_CPHASE": base,
            "p_CLKOP_FPHASE": 0,
        }
        ports = {"i_CLKI": clock, "i_CLKFB": ClockSignal("sync"), "o_CLKOP": ClockSignal("sync")}
        if self.shifted:
            parameters |= {
                "p_CLKOS_ENABLE": "ENABLED",
                "p_CLKOS_DIV": pll.output,
                "p_CLKOS_CPHASE": base + pll.quarter,
                "p_CLKOS_FPHASE": 0,
            }
            ports["o_CLKOS"] = ClockSignal(SHIFTED)
        m.submodules.pll = Instance(
            "EHXPLLL",
            ("a", "FREQUENCY_PIN_CLKI", f"{self.board.clock_mhz:g}"),
            ("a", "FREQUENCY_PIN_CLKOP", f"{pll.mhz:g}"),
            **parameters,
            **ports,
            i_RST=0,
            i_STDBY=0,
            i_PHASESEL0=0,
            i_PHASESEL1=0,
            i_PHASEDIR=1,
            i_PHASESTEP=1,
            i_PHASELOADREG=1,
            i_PLLWAKESYNC=0,
            i_ENCLKOP=0,
            o_LOCK=locked,
        )

    def _xilinx7(self, m: Module, clock: Any, locked: Signal, pll: Pll) -> None:
        made = Signal()
        feedback = Signal()
        m.submodules.pll = Instance(
            "PLLE2_BASE",
            p_CLKIN1_PERIOD=1000 / self.board.clock_mhz,
            p_DIVCLK_DIVIDE=pll.divide,
            p_CLKFBOUT_MULT=pll.multiply,
            p_CLKOUT0_DIVIDE=pll.output,
            i_CLKIN1=clock,
            i_CLKFBIN=feedback,
            i_RST=0,
            i_PWRDWN=0,
            o_CLKFBOUT=feedback,
            o_CLKOUT0=made,
            o_LOCKED=locked,
        )
        m.submodules.global_clock = Instance("BUFG", i_I=made, o_O=ClockSignal("sync"))
