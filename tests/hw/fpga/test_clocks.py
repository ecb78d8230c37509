"""PLLs and serial rates."""

import termios

import pytest

from vrex.errors import UserError
from vrex.hw.fpga import designs
from vrex.hw.fpga.boards import BOARDS, find
from vrex.hw.fpga.clocks import ECP5_PLL, XILINX7_PLL, Clocks, Pll, PllLimits, clock_of, find_pll
from vrex.model.serial import BAUD


def test_the_usual_clock() -> None:
    assert find_pll(25, 50, ECP5_PLL) == Pll(divide=1, multiply=2, output=16, mhz=50.0)


@pytest.mark.parametrize("limits", [ECP5_PLL, XILINX7_PLL])
@pytest.mark.parametrize("clock", [25.0, 100.0])
def test_settings_are_within_the_limits(limits: PllLimits, clock: float) -> None:
    for mhz in (20, 25, 30, 33.3, 40, 50, 62.5, 66, 75, 80, 100, 120, 150):
        pll = find_pll(clock, mhz, limits)
        assert abs(pll.mhz - mhz) <= 0.01 * mhz
        fed_back = clock * pll.multiply / pll.divide
        vco = fed_back * (1 if limits.inner else pll.output)
        assert pll.mhz == pytest.approx(vco / pll.output)
        assert limits.vco[0] <= vco <= limits.vco[1]
        assert 4 * pll.quarter == pll.output


def test_the_nearest_clock_is_named() -> None:
    with pytest.raises(UserError, match=r"makes no 13 MHz of the board's 25; choose another, such as 12\.5"):
        find_pll(25, 13, ECP5_PLL)


@pytest.mark.parametrize("mhz", [1.0, 500.0])
def test_a_clock_that_no_pll_makes(mhz: float) -> None:
    with pytest.raises(
        UserError, match=f"--frequency: the PLL makes no {mhz:g} MHz of the board's 25; choose one between"
    ):
        clock_of(BOARDS["ulx3s"], mhz)


def test_a_board_without_a_pll() -> None:
    assert clock_of(BOARDS["icebreaker"], None) == (12.0, None)
    assert clock_of(BOARDS["icebreaker"], 12.0) == (12.0, None)
    with pytest.raises(UserError, match="icebreaker runs at its oscillator's 12 MHz alone, not at 50"):
        clock_of(BOARDS["icebreaker"], 50.0)
    with pytest.raises(ValueError, match="icebreaker has no shifted clock"):
        Clocks(BOARDS["icebreaker"], None, shifted=True)


@pytest.mark.parametrize(
    ("mhz", "baud", "cycles"),
    [(50, 1_000_000, 50), (50, 115_200, 434), (12, 1_000_000, 12), (27, 115_200, 234)],
)
def test_cycles_of_a_bit(mhz: float, baud: int, cycles: int) -> None:
    assert designs.divisor(mhz, baud) == cycles


@pytest.mark.parametrize("name", [name for name, board in BOARDS.items() if board.has_pll])
def test_the_links_rate_needs_no_option(name: str) -> None:
    """Every board that can hold a KVPU makes it exactly at its usual clock, and hosts have it."""
    mhz, _ = clock_of(BOARDS[name], None)
    assert mhz * 1e6 / designs.divisor(mhz, BAUD) == BAUD
    assert hasattr(termios, f"B{BAUD}")


@pytest.mark.parametrize("baud", [900_000, 4_000_000, 100_000_000])
def test_a_rate_that_the_clock_does_not_make(baud: int) -> None:
    with pytest.raises(UserError, match=f"--baud: a clock of 12 MHz makes no {baud} baud; choose"):
        designs.divisor(12, baud)


def test_an_unknown_board() -> None:
    assert find("ulx3s") is BOARDS["ulx3s"]
    with pytest.raises(UserError, match="--board: unknown board 'de10'; choose one of ulx3s, ulx3s-45f"):
        find("de10")
