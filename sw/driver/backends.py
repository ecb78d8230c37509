"""Opens accelerators: the golden model, the simulated Verilog or a board, or one watched by the model."""

from collections.abc import Callable

from vrex.errors import UserError
from vrex.model.config import Config
from vrex.model.lib.memory import Memory
from vrex.model.serial import SCHEME
from vrex.sw.driver.command_check import CheckedCommands
from vrex.sw.driver.command_interface import (
    RECALL,
    VOTER,
    CommandInterface,
    CommandTransport,
)
from vrex.sw.driver.core import CoreTransport
from vrex.sw.driver.core_golden import GoldenCoreTransport
from vrex.sw.driver.core_rtl import CheckedCoreTransport, RtlCoreTransport
from vrex.sw.driver.golden import GoldenTransport
from vrex.sw.driver.lxe import LxeEngine
from vrex.sw.driver.program_interface import CheckedPrograms, ProgramInterface
from vrex.sw.driver.rtl import RtlTransport
from vrex.sw.driver.serial import open_serial
from vrex.sw.driver.serial_core import open_serial_core
from vrex.sw.driver.top_golden import GoldenTopTransport
from vrex.sw.driver.transport import Answer, AnyReport, Interface, Sent, Transport


def open_transport(
    name: str, config: Config, check: bool = False, memory: Memory | None = None
) -> CommandTransport:
    """Opens a KVPU, or with a memory a DRE.

    Args:
        name: `golden`, the golden model; `rtl`, the simulated Verilog (built on first use); or `serial:PORT`
            or `serial:PORT@BAUD`, a board behind a serial port.
        config: accelerator.
        check: with `rtl` or a board, compare every result with the golden model's.
        memory: what the DRE's AXI port reaches, nothing but zeros yet; of a board its windows alone count.

    Raises:
        UserError: no such transport, nothing to check, or the simulator can't be built.
    """
    if name.startswith(SCHEME):
        board = open_serial(name, config, memory)
        return CheckedCommands(board) if check else board
    return _open(name, CommandInterface(config, memory), CheckedCommands, check)


def open_voter(name: str, config: Config, check: bool = False) -> CommandTransport:
    """Opens a voter; arguments and errors as of `open_transport`, but no board has one.

    Raises:
        UserError: see `open_transport`.
    """
    return _open(name, CommandInterface(config, unit=VOTER), CheckedCommands, check)


def open_recall(name: str, config: Config, check: bool, memory: Memory) -> CommandTransport:
    """Opens a unit `recall`.

    Args:
        name, config, check: as of `open_transport`, but no board has one.
        memory: what its AXI port reaches, nothing but zeros yet.

    Raises:
        UserError: see `open_transport`.
    """
    return _open(name, CommandInterface(config, memory, RECALL), CheckedCommands, check)


def open_lxe(name: str, config: Config, check: bool = False) -> LxeEngine:
    """Opens an LXE; arguments and errors as of `open_transport`."""
    return LxeEngine(_open(name, ProgramInterface(config), CheckedPrograms, check))


def open_core(
    name: str, config: Config, check: bool, memory: Memory, *, functions: bool = False
) -> CoreTransport:
    """Opens a core, or the chip of all cores of the configuration.

    Args:
        name, check: as of `open_transport`.
        config: accelerator.
        memory: what its AXI port reaches; of a board its windows alone count.
        functions: with `rtl`, simulate MAC trees and vector lanes as C++ functions
            (`vrex.hw.tools.arithmetic`).

    Raises:
        UserError: no such transport, nothing to check, or the simulator can't be built.
        ValueError: the configuration makes no core, or no chip.
    """
    if name.startswith(SCHEME):
        if config.cores > 1:
            raise UserError(f"a board has one core, not {config.cores}; leave cores out")
        return open_serial_core(name, config, memory, check=check)
    if name == "rtl":
        unit = "core" if config.cores == 1 else "top"
        rtl = RtlCoreTransport(config, memory, functions=functions, unit=unit)
        return CheckedCoreTransport(rtl) if check else rtl
    if name != "golden":
        raise UserError(f"unknown backend {name!r}; choose golden or rtl")
    if check:
        raise UserError("the golden model can't be checked against itself; choose the backend rtl")
    return GoldenCoreTransport(config, memory) if config.cores == 1 else GoldenTopTransport(config, memory)


def _open(
    name: str,
    interface: Interface[Sent, Answer, AnyReport],
    watch: Callable[[Transport[Sent, Answer, AnyReport]], Transport[Sent, Answer, AnyReport]],
    check: bool,
) -> Transport[Sent, Answer, AnyReport]:
    if name == "golden":
        if check:
            raise UserError("the golden model can't be checked against itself; choose the backend rtl")
        return GoldenTransport(interface)
    if name == "rtl":
        rtl = RtlTransport(interface)
        return watch(rtl) if check else rtl
    raise UserError(f"unknown backend {name!r}; choose golden or rtl")
