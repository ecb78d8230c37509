"""Boards behind serial ports: models of them behind pseudo-terminals, and the simulated RTL."""

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.sw.driver.model_board import ModelBoard, noisy
from vrex.errors import UserError
from vrex.model.commands import Descriptor, Opcode, Register
from vrex.model.config import preset
from vrex.model.dre.registers import reset_values
from vrex.model.serial import BAUD
from vrex.model.serial.capabilities import Capabilities, capabilities
from vrex.sw.cli.main import main
from vrex.sw.driver import serial_port
from vrex.sw.driver.backends import open_transport
from vrex.sw.driver.command_check import CheckedCommands
from vrex.sw.driver.command_interface import CommandInterface
from vrex.sw.driver.kvpu import KvpuEngine
from vrex.sw.driver.selftest import run as selftest
from vrex.sw.driver.serial import SerialTransport, open_serial, parse_name
from vrex.sw.driver.serial_board import Board, Noise, SimulatedBoard, Terminal
from vrex.sw.driver.serial_port import SerialPort
from vrex.sw.driver.transport import DriverError

CONFIG = preset("tiny")
SETREG = Descriptor(Opcode.SETREG, 1, count=Register.TH_HD, param=9)
GETREG = Descriptor(Opcode.GETREG, 2, count=Register.TH_HD)
RESET_TH_HD = reset_values([Register.TH_HD])[Register.TH_HD]


@contextmanager
def served(board: Board) -> Iterator[Terminal]:
    """A board behind a pseudo-terminal."""
    terminal = Terminal(board)
    thread = threading.Thread(target=terminal.serve)
    thread.start()
    try:
        yield terminal
    finally:
        terminal.stop()
        thread.join()
        terminal.close()


@contextmanager
def opened(board: Board, **options: Any) -> Iterator[SerialTransport]:
    """A transport to it."""
    with served(board) as terminal:
        port = SerialPort(terminal.name, BAUD)
        transport = SerialTransport(CommandInterface(CONFIG), port, **options)
        yield transport
        transport.close()


# -- what works ------------------------------------------------------------------------------------------


def test_commands() -> None:
    with opened(ModelBoard(CONFIG)) as transport:
        first, second = transport.submit([(SETREG, b""), (GETREG, b"")])
        assert (first.completion.status, second.completion.detail) == (0, 9)
        assert transport.capabilities == capabilities(CONFIG, "kvpu", 16)
        figures = transport.report.to_dict()["link"]
        assert isinstance(figures, dict)
        assert (figures["frames"], figures["resent"], figures["resets"]) == (1, 0, 0)
        assert figures["payload_bytes"] == 2 * (32 + 16)


@pytest.mark.parametrize("rate", [0, 2e-4, 2e-3])
def test_random_commands_over_a_noisy_line(rate: float) -> None:
    board = ModelBoard(CONFIG, over=noisy(random.Random(1), rate))
    with opened(board) as transport:
        figures = selftest(transport, 60, seed=3)
    assert (figures["answered"], figures["mismatches"]) == (60, 0)
    assert figures["compared"] > 60
    assert figures["refused"] > 0
    assert bool(figures["link"]["resent"] + figures["link"]["repeated"]) == bool(rate)


def test_the_check_sees_a_wrong_result() -> None:
    board = ModelBoard(CONFIG, spoil=lambda result: bytes([result[0] ^ 1]) + result[1:])
    with opened(board) as transport:
        figures = selftest(transport, 60, seed=3)
    assert figures["answered"] == 60
    assert figures["mismatches"] > 10


def test_a_reset_in_the_middle_loses_nothing() -> None:
    """Registers are set again, and what was not completed is sent again."""
    board = ModelBoard(CONFIG)
    # Behind the third command, and as soon as the third but one is done once more.
    board.resets_at = [3, 9, 25, 26, 44]
    with opened(board) as transport:
        figures = selftest(transport, 60, seed=3)
    assert (figures["answered"], figures["mismatches"]) == (60, 0)
    assert figures["link"]["resets"] == 5
    assert board.executed >= 60


def test_a_reset_between_two_batches_loses_no_register() -> None:
    board = ModelBoard(CONFIG)
    with opened(board) as transport:
        transport.submit([(SETREG, b"")])
        board.press()
        assert transport.submit([(GETREG, b"")])[0].completion.detail == 9
        assert transport.report.resets == 1


def test_the_engine_over_a_line_that_is_checked() -> None:
    with served(ModelBoard(CONFIG)) as terminal:
        transport = open_transport(f"serial:{terminal.name}", CONFIG, check=True)
        assert isinstance(transport, CheckedCommands)
        engine = KvpuEngine(transport)
        assert engine.read_register(Register.TH_HD) == RESET_TH_HD
        transport.close()


def test_hosts_come_and_go() -> None:
    with served(ModelBoard(CONFIG)) as terminal:
        for _ in range(3):
            transport = open_serial(f"serial:{terminal.name}@1000000", CONFIG)
            assert transport.submit([(GETREG, b"")])[0].completion.detail == RESET_TH_HD
            transport.submit([(SETREG, b"")])
            transport.close()


# -- what does not ---------------------------------------------------------------------------------------


def test_a_board_that_is_reset_again_and_again() -> None:
    board = ModelBoard(CONFIG)
    with opened(board) as transport:
        board.resets_at = list(range(1, 100))
        board.executed = 0
        with pytest.raises(DriverError, match=r"reset again and again in the middle of GETREG \(tag 2"):
            transport.submit([(GETREG, b"")])


def test_a_board_that_falls_silent() -> None:
    board = ModelBoard(CONFIG)
    with opened(board, patience=0.5) as transport:
        transport.submit([(SETREG, b"")])
        board.silent = True
        with pytest.raises(DriverError, match=r"fell silent at SETREG .*; see that it is on"):
            transport.submit([(SETREG, b"")] * 3)
        # Nothing of it is left when the board is back: registers hold their reset values.
        board.silent = False
        [outcome] = transport.submit([(GETREG, b"")])
        assert (outcome.completion.tag, outcome.completion.detail) == (GETREG.tag, RESET_TH_HD)


def test_a_unit_that_takes_nothing() -> None:
    board = ModelBoard(CONFIG)
    with opened(board, stalled=1.0) as transport:
        board.deaf_after = 0
        with pytest.raises(DriverError, match=r"no completion of GETREG .* in 1 s; run vrex link --selftest"):
            transport.submit([(GETREG, b"")])
        # It was reset, so that the next command works.
        board.deaf_after = -1
        assert transport.submit([(GETREG, b"")])[0].completion.detail == RESET_TH_HD


def test_a_port_that_goes_away() -> None:
    board = ModelBoard(CONFIG)
    terminal = Terminal(board)
    thread = threading.Thread(target=terminal.serve)
    thread.start()
    transport = SerialTransport(CommandInterface(CONFIG), SerialPort(terminal.name, BAUD))
    terminal.stop()
    thread.join()
    terminal.close()
    name = terminal.name
    for says in (f"serial port {name} went away in the middle; plug", f"serial port {name} was closed"):
        with pytest.raises(DriverError, match=says):
            transport.submit([(GETREG, b"")])


def test_nothing_at_the_port() -> None:
    board = ModelBoard(CONFIG)
    board.silent = True
    with (
        pytest.raises(DriverError, match=r"nothing answers at serial port /dev/\S+; see that"),
        opened(board, patience=0.3),
    ):
        pass


@pytest.mark.parametrize(
    ("says", "sentence"),
    [
        (
            capabilities(preset("ulx3s"), "kvpu", 16),
            r"was made of preset ulx3s \(128 bus bits, digest [0-9a-f]{16}\), not of tiny \(64 bus bits, "
            r"digest [0-9a-f]{16}\); give the board's --preset or --config",
        ),
        (
            Capabilities(1, 8, 16, 77),
            "was made of another configuration .64 bus bits, digest 000000000000004d",
        ),
        (capabilities(CONFIG, "dre", 16), "holds a DRE, not a KVPU; load another bitstream"),
        (
            Capabilities(1, 8, 16, 77, version=9),
            "speaks version 9 of the link, not 2; make its bitstream with",
        ),
    ],
)
def test_another_board(says: Capabilities, sentence: str) -> None:
    with pytest.raises(DriverError, match=sentence), opened(ModelBoard(CONFIG, says)):
        pass


def test_a_port_in_use() -> None:
    with opened(ModelBoard(CONFIG)) as transport:
        name = transport._session.name
        with pytest.raises(DriverError, match=f"serial port {name} is in use by another program; end that"):
            SerialPort(name, BAUD)


def test_names_that_are_no_ports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for name, says in (
        ("/dev/ttyNONE9", "there is no serial port /dev/ttyNONE9; plug the board in, or name another port"),
        (str(tmp_path), "is a folder, not a serial port"),
        (str(file), "is not a serial port; name one such as"),
        (f"{file}/x", "there is no serial port"),
    ):
        with pytest.raises(DriverError, match=says):
            SerialPort(name, BAUD)
    with pytest.raises(DriverError, match="no serial rate of 3000001 baud; choose another"):
        SerialPort(str(file), 3_000_001)

    def refuse(*_: Any) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(serial_port.os, "open", refuse)
    with pytest.raises(DriverError, match="may not be used by this user"):
        SerialPort("/dev/ttyS0", BAUD)


def test_names_with_a_rate() -> None:
    assert parse_name("serial:/dev/ttyUSB0") == ("/dev/ttyUSB0", BAUD)
    assert parse_name("serial:/dev/ttyUSB0@115200") == ("/dev/ttyUSB0", 115_200)
    for name, says in (
        ("serial:", "names no port"),
        ("serial:/x@", "'' is no rate"),
        ("serial:/x@1e6", "'1e6'"),
    ):
        with pytest.raises(UserError, match=says):
            parse_name(name)


# -- the command line ------------------------------------------------------------------------------------


def vrex(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "vrex", *words], capture_output=True, text=True, check=False)


def test_mistakes_on_the_command_line_are_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    for words, says in (
        (
            ["run", "--video", "procstream:1", "--frames", "1", "--backend", "serial:/dev/ttyNONE9"],
            "there is no",
        ),
        (
            ["run", "--video", "procstream:1", "--backend", "serial:/x", "--offload", "dre"],
            "there is no serial port /x",
        ),
        (
            ["run", "--video", "procstream:1", "--backend", "serial:/x", "--offload", "core"],
            "is a board with a KVPU, a DRE or a core, but --offload core needs an LXE beside a DRE; choose",
        ),
        (["link"], "vrex link needs something to do; give --selftest PORT or --simulate kvpu"),
        (["link", "--selftest", "/dev/ttyNONE9"], "there is no serial port /dev/ttyNONE9"),
        (["link", "--selftest", "/dev/null"], "/dev/null is not a serial port"),
        (["link", "--selftest", "/x", "--noise", "0.1"], "--noise belongs to --simulate; leave it out"),
        (["link", "--simulate", "kvpu", "--json", "x.json"], "--json belongs to --selftest; leave it out"),
        (["link", "--simulate", "kvpu", "--drop", "1"], "'1' is no chance"),
        (["link", "--simulate", "dre", "--pins"], "--pins belongs to --simulate kvpu; leave it out"),
        (["link", "--selftest", "/x", "--pins"], "--pins belongs to --simulate kvpu; leave it out"),
        (["link", "--simulate", "dre", "--arithmetic", "dpi"], "--arithmetic belongs to --simulate core"),
    ):
        assert main(words) == 2, words
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1), err
        assert err.startswith("vrex: error: "), err
        assert says in err
    assert not Path("x.json").exists()


# -- the simulated board ---------------------------------------------------------------------------------


@pytest.mark.parametrize("pins", [False, True])
def test_simulated_board(pins: bool) -> None:
    noise = Noise(flip=2e-5, drop=2e-4, repeat=2e-4, seed=5, reset_every=20_000)
    board = SimulatedBoard(CONFIG, noise, pins=pins)
    with opened(board) as transport:
        figures = selftest(transport, 30, seed=1)
    assert (figures["answered"], figures["mismatches"]) == (30, 0)
    assert figures["compared"] > 30
    assert sum(board.harm().values()) > 0
    board.close()
    assert board.harm()["resets"] == board.resets


class Talking:
    """A board that resends and resends, as one does whose host has gone."""

    waiting = 0

    def __init__(self) -> None:
        self.runs = 0

    def run(self, data: bytes) -> tuple[bytes, bool]:
        self.runs += 1
        return bytes(1000), False


def test_a_board_without_a_host_stands_still_after_a_while() -> None:
    board = Talking()
    terminal = Terminal(board)
    thread = threading.Thread(target=terminal.serve)
    thread.start()
    near = os.open(terminal.name, os.O_RDONLY | os.O_NOCTTY)
    try:
        counts = [0]
        while board.runs > counts[-1] or not board.runs:
            counts.append(board.runs)
            time.sleep(1)
        # Whoever comes and reads sets it going again.
        assert len(os.read(near, 4096)) > 0
        while len(os.read(near, 4096)) and board.runs == counts[-1]:
            pass
    finally:
        terminal.stop()
        thread.join()
        os.close(near)
        terminal.close()
    assert 65 < counts[-1] < 100


def test_boards_that_are_not_simulated() -> None:
    for unit, pins in (("lxe", False), ("dre", True)):
        with pytest.raises(ValueError, match=f"no simulated board of unit '{unit}'"):
            SimulatedBoard(CONFIG, unit=unit, pins=pins)


@pytest.mark.slow
def test_a_thousand_commands_over_a_noisy_line() -> None:
    board = SimulatedBoard(
        CONFIG, Noise(flip=1e-5, drop=1e-4, repeat=1e-4, seed=7, reset_every=300_000), pins=True
    )
    with opened(board) as transport:
        figures = selftest(transport, 1000, seed=2)
    print(figures, board.harm())
    assert (figures["answered"], figures["mismatches"]) == (1000, 0)
    assert min(board.harm().values()) > 0
    board.close()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_video_over_the_simulated_board(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vrex", "link", "--simulate", "kvpu", "--preset", "tiny"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as simulation:
        assert simulation.stdout is not None
        port = simulation.stdout.readline().strip()
        words = [
            "--backend",
            f"serial:{port}",
            "--preset",
            "tiny",
            "--check",
            "--png",
            str(tmp_path / "x.png"),
        ]
        done = vrex("run", "--video", "procstream:1", "--frames", "96", *words)
        simulation.send_signal(2)
        assert simulation.wait() == 0
    assert done.returncode == 0, done.stderr
    assert "7, 7 answered right" in done.stdout
    assert ", 0 mismatches" in done.stdout
