"""The designs that go onto boards, each behind the serial line."""

from vrex.errors import UserError
from vrex.hw.fpga.boards import Board
from vrex.hw.fpga.dre import DreDesign
from vrex.hw.serial.design import SerialDesign
from vrex.model.config import Config

DESIGNS = ("kvpu", "dre", "core")
"""Names of the designs; `check` says which a board can hold."""

def check(board: Board, design: str, config: Config) -> None:
    """Says at once what a board can't hold, before anything is built.

    Raises:
        UserError: there is no such design, or the board lacks what it needs.
    """
    if design not in DESIGNS:
        raise UserError(f"--design: unknown design {design!r}; choose one of {', '.join(DESIGNS)}")
    if design == "dre" and board.sdram is None:
        raise UserError(
            f"design dre needs memory for its tables, and {board.name} has none that is supported; "
            "choose design kvpu, or board ulx3s"
        )
    if design == "core":
        trees = config.dpe.trees * config.dpe.inputs
        kind, has = list(board.has.items())[-1]
        if trees > has:
            raise UserError(
                f"core of {config.name} does not fit on {board.name}: its MAC trees alone need {trees:,} "
                f"{kind} of {has:,} ({trees - has:,} too many); choose a smaller dpe.trees or dpe.inputs"
            )
        raise UserError("the serial link drives no core yet; choose design kvpu or dre")


def divisor(mhz: float, baud: int) -> int:
    """Cycles of a bit on the serial line.

    Args:
        mhz: of the clock.
        baud: bits a second.

    Raises:
        UserError: the clock makes no such rate, within 2 %.
    """
    cycles = round(mhz * 1e6 / baud)
    if cycles < 1 or abs(mhz * 1e6 / cycles / baud - 1) > 0.02:
        raise UserError(f"--baud: a clock of {mhz:g} MHz makes no {baud} baud; choose a rate that divides it")
    return cycles


def make(design: str, config: Config, bit_cycles: int) -> SerialDesign | DreDesign:
    """A design that `check` lets pass, behind the serial line."""
    if design == "dre":
        return DreDesign(config, divisor=bit_cycles)
    return SerialDesign(config, unit=design, divisor=bit_cycles)
