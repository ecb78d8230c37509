"""A core behind a serial port: registers, memory, jobs, and what goes wrong."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.sw.driver.model_board import ModelBoard, noisy
from tests.sw.driver.test_core import CONFIG, DATA, DEVICE, PROGRAM, adding, setting
from tests.sw.driver.test_serial import served
from vrex.errors import UserError
from vrex.model import config_file
from vrex.model.config import preset
from vrex.model.core.instructions import pack_program
from vrex.model.core.registers import ID, Register
from vrex.model.lib.memory import Memory, Window
from vrex.model.serial import BAUD, SCHEME
from vrex.model.serial.capabilities import capabilities
from vrex.model.serial.line import SIMULATED_MEMORY
from vrex.sw.driver.backends import open_core
from vrex.sw.driver.core import CoreEngine
from vrex.sw.driver.serial_board import Noise, SimulatedBoard
from vrex.sw.driver.serial_core import CheckedBoardCore, SerialCoreTransport
from vrex.sw.driver.serial_port import SerialPort
from vrex.sw.driver.transport import DriverError
from vrex.sw.videollm import chip_selftest

EXAMPLE = Path(__file__).parents[3] / "examples" / "ulx3s-core.toml"
MEMORY = Memory(DEVICE, Window(DEVICE.base + DEVICE.pages, 1))


@contextmanager
def opened(board: ModelBoard, memory: Memory = MEMORY, **options: Any) -> Iterator[SerialCoreTransport]:
    """A transport to a board with a core."""
    with served(board) as terminal:
        transport = SerialCoreTransport(CONFIG, memory, SerialPort(terminal.name, BAUD), **options)
        yield transport
        transport.close()


def board(**options: Any) -> ModelBoard:
    return ModelBoard(CONFIG, unit="core", **options)


def sums(engine: CoreEngine, jobs: int) -> list[int]:
    """Has the core add two numbers in each of some jobs, and reads the sums."""
    engine.memory.write(PROGRAM, pack_program(adding()))
    for n in range(jobs):
        engine.run(PROGRAM, sequence=n % 2, parameters=(n, 1000, 4 * n))
    data = engine.memory.read(DATA, 4 * jobs)
    return [int.from_bytes(data[4 * n : 4 * n + 4], "little") for n in range(jobs)]


@pytest.mark.parametrize("rate", [0, 2e-4, 1e-3])
def test_jobs_over_a_noisy_line(rate: float) -> None:
    with opened(board(over=noisy(random.Random(3), rate))) as transport:
        assert transport.read_register(Register.ID) == ID
        engine = CoreEngine(transport, setting())
        assert sums(engine, 9) == [1000 + n for n in range(9)]
        figures = transport.report.to_dict()["link"]
    assert figures["written_bytes"] > 9 * 64
    assert figures["damaged"] + figures["resent"] + figures["repeated"] > 0 or rate < 1e-3


def test_a_board_is_checked_against_the_golden_core() -> None:
    with opened(board()) as transport:
        checked = CheckedBoardCore(transport)
        assert sums(CoreEngine(checked, setting()), 5) == [1000 + n for n in range(5)]
        assert checked.report.mismatches == 0
        # Ends of the jobs and the sums, besides registers.
        assert checked.report.compared > 5


@pytest.mark.parametrize("where", [PROGRAM + 64, DATA])
def test_a_wrong_result_is_seen(where: int) -> None:
    """A byte of the board's memory changes behind the golden model's back."""
    made = board()
    with opened(made) as transport:
        checked = CheckedBoardCore(transport)
        engine = CoreEngine(checked, setting())
        sums(engine, 5)
        made.memory.view(where, 1)[0] ^= 1
        assert int.from_bytes(engine.memory.read(DATA, 4), "little") == 1000
        engine.memory.read(PROGRAM, 128)
        assert checked.report.mismatches == 1


def test_a_register_that_there_is_not() -> None:
    with opened(board()) as transport:
        with pytest.raises(DriverError, match=r"register at 0xc can't be read \(SLVERR\)"):
            transport.read_register(0xC)
        with pytest.raises(DriverError, match=r"register ID can't be written \(SLVERR\)"):
            transport.write_register(Register.ID, 1)
        assert transport.read_register(Register.ID) == ID


def test_a_reset_in_the_middle_is_an_error_and_the_next_session_works() -> None:
    made = board()
    with served(made) as terminal:
        transport = SerialCoreTransport(CONFIG, MEMORY, SerialPort(terminal.name, BAUD))
        engine = CoreEngine(transport, setting())
        assert len(sums(engine, 2)) == 2
        made.cut_off_at = [made.accessed + 3]
        with pytest.raises(DriverError, match="was reset, so its core has forgotten what it was doing"):
            sums(engine, 2)
        with pytest.raises(DriverError, match="was given up; start again"):
            transport.read_register(Register.ID)
        transport.close()
        transport = SerialCoreTransport(CONFIG, MEMORY, SerialPort(terminal.name, BAUD))
        assert sums(CoreEngine(transport, setting()), 2) == [1000, 1001]
        transport.close()


def test_a_core_that_stands_still_is_given_up() -> None:
    """Nothing was posted, so no interrupt comes."""
    with opened(board(), stalled=0.2) as transport:
        CoreEngine(transport, setting())
        with pytest.raises(DriverError, match="has executed no instruction for 0 s"):
            transport.wait()


@pytest.mark.parametrize(
    ("says", "memory", "words"),
    [
        (capabilities(CONFIG, "dre", 16, 1 << 25), MEMORY, "holds a DRE, not a CORE"),
        (capabilities(preset("tiny"), "core", 16, 1 << 25), MEMORY, "was made of preset tiny"),
        (None, Memory(Window(0, 1 << 14), Window(0, 0)), "the weights and tables need 64.0 MiB"),
    ],
)
def test_another_board(says: Any, memory: Memory, words: str) -> None:
    with served(board(says=says)) as terminal, pytest.raises(DriverError, match=words):
        SerialCoreTransport(CONFIG, memory, SerialPort(terminal.name, BAUD))


def test_a_board_has_one_core() -> None:
    with pytest.raises(UserError, match="a board has one core, not 2"):
        open_core(f"{SCHEME}/dev/null", replace(CONFIG, cores=2), False, MEMORY)


# -- the self-test ---------------------------------------------------------------------------------------


def test_the_selftest_runs_a_decoder_on_the_board() -> None:
    with served(board()) as terminal:
        figures = chip_selftest.run(f"{SCHEME}{terminal.name}", CONFIG, 40, 7)
    assert (figures["unit"], figures["answered"], figures["mismatches"]) == ("core", 40, 0)
    # Results, ends, headers of all tables and counts of each chunk.
    assert figures["compared"] > 40 * 5


def test_the_selftest_sees_a_wrong_table() -> None:
    """What the board's memory holds of the tables changes in the middle."""
    made = board()
    with served(made) as terminal:

        def spoil(_: int) -> None:
            made.memory.view(0, SIMULATED_MEMORY)[4 << 20 :] ^= 1

        figures = chip_selftest.run(f"{SCHEME}{terminal.name}", CONFIG, 12, 7, spoil)
    assert figures["mismatches"] > 0


@pytest.mark.slow
def test_the_selftest_on_the_simulated_board_over_a_noisy_line() -> None:
    """The Verilog of the core that fits a ULX3S."""
    config = config_file.read(EXAMPLE)
    made = SimulatedBoard(config, Noise(1e-5, 1e-4, 1e-4, seed=7), unit="core", functions=True)
    with served(made) as terminal:
        figures = chip_selftest.run(f"{SCHEME}{terminal.name}", config, 60, 2)
    made.close()
    print(figures, made.harm(), made.cycles)
    assert (figures["answered"], figures["mismatches"], made.violations) == (60, 0, 0)
    assert min(made.harm()[name] for name in ("flipped bits", "lost bytes", "repeated bytes")) > 0
