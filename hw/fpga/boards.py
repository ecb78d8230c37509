"""The boards that `vrex fpga` builds for.

Pins come from amaranth-boards; what a chip has is from its data sheet: Lattice FPGA-DS-02012 (ECP5),
FPGA-DS-02008 (iCE40 UltraPlus), Gowin DS117 (GW1NR), AMD DS180 (Artix-7).
"""

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vrex.errors import UserError
from vrex.hw.fpga.families import ECP5, GOWIN, ICE40, XILINX7, Family
from vrex.model.lib.sdram import SDR_32MB, SdramChip

PACKAGE = "amaranth_boards"


@dataclass(frozen=True)
class Board:
    """A board.

    Attributes:
        name: of it.
        title: what a person calls it.
        platform: module and class in amaranth-boards.
        family: of its FPGA.
        clock_mhz: of its oscillator.
        has: what its FPGA has, by the family's resources.
        leds: how many LEDs may show the state.
        reset: resource of the button that resets the design, None where the platform has one of its own.
        held_high: a signal of a resource that must be 1, as (resource, signal).
        sdram: its SDRAM, if it has one.
        flash: command that loads a bitstream into the FPGA, `FILE` for its name.
        arguments: of the platform's class.
    """

    name: str
    title: str
    platform: str
    family: Family
    clock_mhz: float
    has: Mapping[str, int]
    leds: int
    reset: tuple[str, int] | None
    held_high: tuple[str, str] | None = None
    sdram: SdramChip | None = None
    flash: str = ""
    arguments: Mapping[str, Any] | None = None

    @property
    def has_pll(self) -> bool:
        """Whether `vrex.hw.fpga.clocks` makes other clocks than the oscillator's on it."""
        return self.family in (ECP5, XILINX7)

    def make_platform(self) -> Any:
        """Amaranth's platform.

        Raises:
            UserError: amaranth-boards is not installed.
        """
        if importlib.util.find_spec(PACKAGE) is None:
            raise UserError("the Python package amaranth-boards is missing; pip install 'vrex[fpga]'")
        module, name = self.platform.split(":")
        return getattr(importlib.import_module(f"{PACKAGE}.{module}"), name)(**(self.arguments or {}))


def _ecp5(lut4: int, dp16kd: int, mult: int) -> dict[str, int]:
    return {"LUT4": lut4, "FF": lut4, "DP16KD": dp16kd, "MULT18X18D": mult}


_ECP5_25, _ECP5_45, _ECP5_85 = _ecp5(24288, 56, 28), _ecp5(43848, 108, 72), _ecp5(83640, 208, 156)


def _ulx3s(name: str, size: str, has: Mapping[str, int]) -> Board:
    return Board(
        name,
        f"ULX3S with an ECP5-{size}",
        f"ulx3s:ULX3S_{size}_Platform",
        ECP5,
        25.0,
        has,
        leds=8,
        reset=("button_fire", 0),
        # The ESP32 beside the FPGA starts from its flash and may load another bitstream while this is low.
        held_high=("esp32", "gpio0"),
        sdram=SDR_32MB,
        flash="openFPGALoader --board=ulx3s FILE",
    )


def _ecpix5(name: str, size: str, has: Mapping[str, int]) -> Board:
    return Board(
        name,
        f"ECPIX-5 with an ECP5-{size}F",
        f"ecpix5:ECPIX5{size}Platform",
        ECP5,
        100.0,
        has,
        leds=0,
        reset=None,
        flash="openFPGALoader --board=ecpix5 FILE",
    )


_BOARDS = (
    _ulx3s("ulx3s", "85F", _ECP5_85),
    _ulx3s("ulx3s-45f", "45F", _ECP5_45),
    _ulx3s("ulx3s-25f", "25F", _ECP5_25),
    _ecpix5("ecpix5", "85", _ECP5_85),
    _ecpix5("ecpix5-45f", "45", _ECP5_45),
    Board(
        "icebreaker",
        "iCEBreaker with an iCE40UP5K",
        "icebreaker:ICEBreakerPlatform",
        ICE40,
        12.0,
        {"LUT4": 5280, "FF": 5280, "RAM4K": 30, "MAC16": 8},
        leds=2,
        reset=("button", 0),
        flash="openFPGALoader --board=ice40_generic FILE",
    ),
    Board(
        "tangnano9k",
        "Tang Nano 9K with a GW1NR-9C",
        "tang_nano_9k:TangNano9kPlatform",
        GOWIN,
        27.0,
        {"LUT4": 8640, "FF": 6480, "BSRAM": 26, "MULT18X18": 20},
        leds=6,
        reset=("button", 0),
        flash="openFPGALoader --board=tangnano9k FILE",
        arguments={"toolchain": "Apicula"},
    ),
    Board(
        "arty-a7",
        "Arty A7 with an Artix-7 35T",
        "arty_a7:ArtyA7_35Platform",
        XILINX7,
        100.0,
        {"LUT": 20800, "FF": 41600, "RAMB18": 100, "DSP48E1": 90},
        leds=4,
        reset=None,
        flash="openFPGALoader --board=arty_a7_35t FILE",
    ),
)

BOARDS = {board.name: board for board in _BOARDS}
"""Boards by name."""


def find(name: str) -> Board:
    """The board of a name.

    Raises:
        UserError: there is none.
    """
    if name not in BOARDS:
        raise UserError(f"--board: unknown board {name!r}; choose one of {', '.join(BOARDS)}")
    return BOARDS[name]
