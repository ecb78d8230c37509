"""The designs that go onto boards, each behind the serial line."""

from vrex.errors import UserError
from vrex.hw.fpga.boards import Board
from vrex.hw.serial.design import SerialDesign
from vrex.hw.serial.uart import LEAST_DIVISOR
from vrex.model.config import Config

TOLERANCE = 0.01
"""How far the serial line's rate may lie off the wish, as a share: half of what a UART bears (`Uart`)."""

IN_MEMORY = {"dre": "its tables", "core": "weights and tables"}
"""Designs that need the board's memory, and for what."""

DESIGNS = ("kvpu", *IN_MEMORY)
"""Names of the designs; `check` says which a board can hold."""


def check(board: Board, design: str, config: Config) -> None:
    """Says at once what a board can't hold, before anything is built.

    Raises:
        UserError: there is no such design, or the board lacks what it needs.
    """
    if design not in DESIGNS:
        raise UserError(f"--design: unknown design {design!r}; choose one of {', '.join(DESIGNS)}")
    if design in IN_MEMORY and board.sdram is None:
        raise UserError(
            f"design {design} needs memory for {IN_MEMORY[design]}, and {board.name} has none that is "
            "supported; choose design kvpu, or board ulx3s"
        )
    if design == "core":
        trees = config.dpe.trees * config.dpe.inputs
        kind, has = list(board.has.items())[-1]
        if trees > has:
            raise UserError(
                f"core of {config.name} does not fit on {board.name}: its MAC trees alone need {trees:,} "
                f"{kind} of {has:,} ({trees - has:,} too many); choose a smaller dpe.trees or dpe.inputs"
            )
        if config.cores > 1:
            raise UserError(f"design core is one core, not {config.cores}; leave cores out")
        try:
            config.check_core()
        except ValueError as error:
            raise UserError(f"preset {config.name} makes no core: {error}") from error


def divisor(mhz: float, baud: int) -> int:
    """Cycles of a bit on the serial line.

    Args:
        mhz: of the clock.
        baud: bits a second.

    Raises:
        UserError: the clock makes no such rate, within `TOLERANCE`.
    """
    cycles = round(mhz * 1e6 / baud)
    if cycles < LEAST_DIVISOR or abs(mhz * 1e6 / cycles / baud - 1) > TOLERANCE:
        raise UserError(
            f"--baud: a clock of {mhz:g} MHz makes no {baud} baud; choose at most "
            f"{int(mhz * 1e6 / LEAST_DIVISOR)}, a rate that divides the clock"
        )
    return cycles


def make(board: Board, design: str, config: Config, bit_cycles: int) -> SerialDesign:
    """A design that `check` lets pass, behind the serial line; it has all of the board's memory, if any."""
    memory = board.sdram.bytes if design in IN_MEMORY and board.sdram is not None else 0
    return SerialDesign(config, unit=design, divisor=bit_cycles, memory_bytes=memory)
