"""A DRE behind a serial port: its memory, its tables, and resets in the middle of an APPEND."""

import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vrex
from tests.sw.driver.model_board import ModelBoard, noisy
from tests.sw.driver.test_serial import served
from tests.sw.driver.test_serial import vrex as ran
from vrex.model.commands import Descriptor, Opcode, Register
from vrex.model.config import preset
from vrex.model.dre.registers import reset_values
from vrex.model.lib.memory import AccessError, Memory
from vrex.model.serial import BAUD
from vrex.model.serial.capabilities import capabilities
from vrex.model.serial.memory import MOST_BYTES, Access
from vrex.sw.driver.backends import open_transport
from vrex.sw.driver.command_check import CheckedCommands
from vrex.sw.driver.command_interface import CommandInterface
from vrex.sw.driver.dre import AppendRequest, Capacity, DreEngine, FetchRequest, MemoryLayout, RetrieveRequest
from vrex.sw.driver.golden import GoldenTransport
from vrex.sw.driver.selftest import open_board
from vrex.sw.driver.selftest import run as selftest
from vrex.sw.driver.serial import SerialTransport
from vrex.sw.driver.serial_board import Noise, SimulatedBoard
from vrex.sw.driver.serial_memory import BLOCK, BoardMemory, run_accesses
from vrex.sw.driver.serial_port import SerialPort
from vrex.sw.driver.transport import DriverError

CONFIG = preset("tiny")
LAYOUT = MemoryLayout.of(CONFIG, 2, 2, Capacity(clusters=64, segments=64, ring=32), near=True)
WINDOW = LAYOUT.device


@contextmanager
def opened(board: ModelBoard, layout: MemoryLayout = LAYOUT, **options: Any) -> Iterator[SerialTransport]:
    """A transport to a board with a DRE."""
    with served(board) as terminal:
        interface = CommandInterface(CONFIG, Memory(layout.device, layout.host))
        transport = SerialTransport(interface, SerialPort(terminal.name, BAUD), **options)
        yield transport
        transport.close()


def board(**options: Any) -> ModelBoard:
    return ModelBoard(CONFIG, unit="dre", **options)


class Work:
    """Random chunks for the tables of an engine, and questions about them."""

    def __init__(self, engine: DreEngine, seed: int) -> None:
        self.engine, self.rng = engine, np.random.default_rng(seed)
        self.few = self.rng.integers(0, 1 << 32, (3, 1), dtype=np.uint32)

    def append(self, tokens: int) -> list[Any]:
        """The same number of tokens for every table."""
        flips = np.uint32(1) << self.rng.integers(0, 32, (2, tokens, 1), dtype=np.uint32)
        hashes = self.few[self.rng.integers(0, len(self.few), (2, tokens))] ^ flips
        kv = self.rng.integers(0x3F00, 0x4000, (2, 2, 2, tokens, CONFIG.kvmu.head_dim), dtype=np.uint16)
        requests = [AppendRequest(table, table, hashes[table], kv[table]) for table in range(2)]
        return self.engine.append(requests)

    def ask(self) -> list[Any]:
        """Scores of the means that are read from memory, then K and V."""
        answers: list[Any] = []
        for table in range(2):
            means = self.engine.table(table).score_means()
            values = (means.astype(np.uint32) << 16).view(np.float32)[..., 0]
            scores = (np.ascontiguousarray(values.T[:, None]).view(np.uint32) >> 16).astype(np.uint16)
            answers += self.engine.retrieve([RetrieveRequest(table, table, scores)])
            answers += self.engine.fetch([FetchRequest(table, table, answers[-1].masks)])
        return answers


def same(one: list[Any], other: list[Any]) -> bool:
    """Whether answers are equal, array for array."""
    if len(one) != len(other):
        return False
    for a, b in zip(one, other, strict=True):
        left, right = (vars(each).values() if hasattr(each, "__dict__") else [each] for each in (a, b))
        if not all(np.array_equal(x, y) for x, y in zip(left, right, strict=True)):
            return False
    return True


def work_through(transport: Any, rounds: int = 6) -> list[list[Any]]:
    """Appends and questions in turn; all that came of them, and the tables at the end."""
    engine = DreEngine(transport, LAYOUT)
    work = Work(engine, 5)
    answers = [answer for tokens in range(3, 3 + rounds) for answer in (work.append(tokens), work.ask())]
    tables = [[transport.memory.read(*span) for span in engine.table(table).spans()] for table in range(2)]
    return [*answers, *([np.frombuffer(part, np.uint8) for part in table] for table in tables)]


EXPECTED = work_through(GoldenTransport(CommandInterface(CONFIG, LAYOUT.new_memory())))


# -- what works ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0, 2e-4, 1e-3])
def test_tables_over_a_noisy_line(rate: float) -> None:
    with opened(board(over=noisy(random.Random(1), rate))) as transport:
        assert all(map(same, work_through(transport), EXPECTED))
        figures = transport.report.to_dict()["link"]
    assert isinstance(figures, dict)
    assert figures["resets"] == 0
    assert figures["read_bytes"] > 1000
    assert figures["written_bytes"] >= 2 * 72


@pytest.mark.parametrize(
    ("when", "moments", "least"), [("resets_at", range(3, 400, 7), 10), ("cut_off_at", range(1, 4000, 13), 5)]
)
def test_a_reset_in_the_middle_appends_once(when: str, moments: range, least: int) -> None:
    """Behind commands, or within accesses: what was done is undone, or was nothing, and it is done again."""
    made = board()
    with opened(made) as transport:
        setattr(made, when, list(moments))
        assert all(map(same, work_through(transport), EXPECTED))
        assert transport.report.resets > least


def test_an_append_that_was_cut_off_is_put_back() -> None:
    """Half of what it writes has been written, and its header has not."""
    made = board()
    with opened(made) as transport:
        work = Work(DreEngine(transport, LAYOUT), 5)
        work.append(6)
        execute = made.unit.execute

        def cut_off(command: Descriptor, payload: bytes) -> Any:
            header = made.memory.read(command.address, 72)
            answer = execute(command, payload)
            made.memory.write(command.address, header)
            return answer

        made.unit.execute = cut_off  # type: ignore[method-assign]
        made.resets_at = [made.executed + 1]
        answer = work.append(7)
        assert transport.memory is not None
        tables = [transport.memory.read(*span) for span in work.engine.table(0).spans()]
    golden = GoldenTransport(CommandInterface(CONFIG, LAYOUT.new_memory()))
    expected = Work(DreEngine(golden, LAYOUT), 5)
    expected.append(6)
    assert same(answer, expected.append(7))
    assert golden.memory is not None
    assert tables == [golden.memory.read(*span) for span in expected.engine.table(0).spans()]


def test_two_appends_to_one_table_in_a_batch() -> None:
    made = board()
    with opened(made) as transport:
        engine = DreEngine(transport, LAYOUT)
        made.resets_at = [made.executed + 1, made.executed + 13]
        kv = np.full((2, 2, 4, CONFIG.kvmu.head_dim), 0x3F80, dtype=np.uint16)
        chunks = [AppendRequest(0, 0, np.full((4, 1), word, dtype=np.uint32), kv) for word in (0, 0, 1 << 31)]
        first, second, third = engine.append(chunks)
        assert first.opened.tolist() == [True, False, False, False]
        assert not second.opened.any()
        assert engine.table(0).header.tokens == 12
        assert third.cluster.shape == (4,)


def test_what_is_known_is_not_read_again() -> None:
    with opened(board()) as transport:
        work = Work(DreEngine(transport, LAYOUT), 5)
        work.append(8)
        work.ask()
        before = transport.report.read_bytes
        work.ask()
        assert transport.report.read_bytes == before
        work.append(1)
        work.ask()
        row = 2 * 2 * CONFIG.kvmu.head_dim
        # Of both tables one mean, and the header, hashes, counts, tails and map, whole blocks of each.
        assert transport.report.read_bytes - before <= 2 * (row + BLOCK + 7 * BLOCK)


def test_the_checked_board() -> None:
    with served(board()) as terminal:
        memory = Memory(LAYOUT.device, LAYOUT.host)
        transport = open_transport(f"serial:{terminal.name}", CONFIG, check=True, memory=memory)
        assert isinstance(transport, CheckedCommands)
        assert all(map(same, work_through(transport), EXPECTED))
        assert (transport.report.mismatches, transport.report.compared > 50) == (0, True)
        transport.close()


@pytest.mark.parametrize("rate", [0, 5e-4])
def test_random_commands(rate: float) -> None:
    made = board(over=noisy(random.Random(2), rate))
    made.resets_at = list(range(20, 2000, 40))
    with served(made) as terminal:
        transport = open_board(f"serial:{terminal.name}", CONFIG)
        figures = selftest(transport, 200, seed=4)
        transport.close()
    assert (figures["unit"], figures["answered"], figures["mismatches"]) == ("dre", 200, 0)
    assert figures["compared"] > 200
    assert 0 < figures["refused"] < 60
    assert figures["link"]["resets"] >= 5


@pytest.mark.parametrize("reset", [False, True])
def test_the_check_compares_a_counter_until_a_reset(reset: bool) -> None:
    """The board's begins anew then, and the model's does not."""
    made = board()
    with served(made) as terminal:
        memory = Memory(LAYOUT.device, LAYOUT.host)
        transport = open_transport(f"serial:{terminal.name}", CONFIG, check=True, memory=memory)
        work = Work(DreEngine(transport, LAYOUT), 5)
        work.append(8)
        scores = np.full((2, 1, work.engine.table(0).header.clusters), 0xBF80, dtype=np.uint16)
        work.engine.retrieve([RetrieveRequest(0, 0, scores)])
        assert work.engine.read_register(Register.DEGENERATE_ROWS) == 2
        if reset:
            made.press()
        else:
            made.unit.registers.values[Register.DEGENERATE_ROWS] = 7
        work.engine.read_register(Register.DEGENERATE_ROWS)
        assert transport.report.resets == int(reset)
        assert transport.report.mismatches == int(not reset)
        transport.close()


def test_the_check_sees_a_table_that_differs() -> None:
    made = board()
    with served(made) as terminal:
        memory = Memory(LAYOUT.device, LAYOUT.host)
        transport = open_transport(f"serial:{terminal.name}", CONFIG, check=True, memory=memory)
        work = Work(DreEngine(transport, LAYOUT), 5)
        work.append(8)
        counts = work.engine.table(0).cluster_arrays()[1][0]
        made.memory.view(counts, 2)[:] ^= 1
        work.append(8)
        assert transport.report.mismatches > 0
        transport.close()


# -- what does not ---------------------------------------------------------------------------------------


def accessed(transport: SerialTransport, *accesses: Access) -> list[bytes]:
    return run_accesses(
        transport._session, [(access, bytes(access.size * access.write)) for access in accesses]
    )


@pytest.mark.parametrize(
    ("access", "sentence"),
    [
        (Access(0, MOST_BYTES + 1), "refused a read of 4097 bytes at 0x0: an access has 1 to 4096 bytes"),
        (Access(0, 0), "refused a read of 0 bytes at 0x0: an access has 1 to 4096"),
        (Access((1 << 25) - 4, 8), "refused a read of 8 bytes at 0x1fffffc: its memory has 33554432 bytes"),
        (Access(1 << 40, 8, 1), "refused a write of 8 bytes at 0x10000000000: its memory has"),
        (
            Access(0x2004, 16),
            "memory of the board at .* answered a read of 16 bytes at 0x2004 with a bus error",
        ),
    ],
)
def test_accesses_that_are_refused(access: Access, sentence: str) -> None:
    made = board()
    made.broken = range(0x2000, 0x2010)
    with opened(made) as transport:
        with pytest.raises(DriverError, match=sentence):
            accessed(transport, access)
        assert accessed(transport, Access(0, 4)) == [bytes(4)]


def test_addresses_outside_the_windows() -> None:
    with opened(board()) as transport, pytest.raises(AccessError, match="4 bytes at 0x0 are in no window"):
        transport.write(0, b"1234")


def test_tables_that_the_board_has_no_room_for() -> None:
    large = MemoryLayout.of(CONFIG, 8, 2, Capacity(clusters=2080, segments=2080, ring=64), near=True)
    says = r"the tables need 72\.5 MiB, and the board at /dev/\S+ has 32; lower --table-segments or"
    with pytest.raises(DriverError, match=says), opened(board(), large):
        pass


def test_a_board_that_lost_its_memory() -> None:
    made = board()
    with opened(made) as transport:
        work = Work(DreEngine(transport, LAYOUT), 5)
        work.append(8)
        made.memory = Memory(made.memory.device, made.memory.host)
        made.press()
        with pytest.raises(
            DriverError, match="has lost the tables in its memory, as without power; start again"
        ):
            work.append(8)


def test_a_line_that_is_lost_in_an_access() -> None:
    made = board()
    with opened(made, patience=0.5) as transport:
        engine = DreEngine(transport, LAYOUT)
        Work(engine, 5).append(3)
        made.silent = True
        with pytest.raises(
            DriverError, match=r"fell silent at a read of \d+ bytes at 0x100000; see that it is"
        ):
            engine.table(0)
        made.silent = False
        # The board was reset since, and has its registers again.
        assert engine.table(0).header.tokens == 3
        assert engine.read_register(Register.DEVICE_BASE) == WINDOW.base


def test_another_unit() -> None:
    with (
        pytest.raises(DriverError, match="holds a KVPU, not a DRE; load another"),
        opened(ModelBoard(CONFIG)),
    ):
        pass
    old = capabilities(CONFIG, "dre", 16)
    with pytest.raises(DriverError, match=r"the tables need .* has 0; lower"), opened(board(says=old)):
        pass


def test_commands_that_name_no_table() -> None:
    """Nothing is saved for an APPEND that is refused, wherever its table is said to be."""
    with opened(board()) as transport:
        assert isinstance(transport.memory, BoardMemory)
        kv = CONFIG.kvmu.token_bytes * 2
        length = CONFIG.bus_bytes + kv
        for address in (0, 5, WINDOW.start + 4096, 1 << 40, (1 << 64) - 4096):
            command = Descriptor(Opcode.APPEND, 1, kv_heads=3, count=1, address=address, length=length)
            [outcome] = transport.submit([(command, bytes(length))])
            assert outcome.completion.status != 0
        value = reset_values([Register.TH_HD])[Register.TH_HD]
        [outcome] = transport.submit([(Descriptor(Opcode.GETREG, 2, count=Register.TH_HD), b"")])
        assert outcome.completion.detail == value


# -- the simulated board ---------------------------------------------------------------------------------


def self_tested(commands: int, noise: Noise) -> dict[str, Any]:
    """A self-test of a simulated board; what the board did beside it."""
    simulated = SimulatedBoard(CONFIG, noise, unit="dre")
    with served(simulated) as terminal:
        transport = open_board(f"serial:{terminal.name}", CONFIG)
        figures = selftest(transport, commands, seed=2)
        transport.close()
    figures |= {"harm": simulated.harm(), "violations": simulated.violations, "cycles": simulated.cycles}
    simulated.close()
    return figures


def test_simulated_board() -> None:
    figures = self_tested(25, Noise(flip=2e-5, drop=1e-4, repeat=1e-4, seed=5, reset_every=15_000))
    assert (figures["answered"], figures["mismatches"], figures["violations"]) == (25, 0, 0)
    assert figures["compared"] > 25
    assert sum(figures["harm"].values()) > 5
    assert figures["harm"]["resets"] > 0


@pytest.mark.slow
@pytest.mark.timeout(2 * 3600)
def test_a_thousand_commands_over_a_noisy_line() -> None:
    figures = self_tested(1000, Noise(flip=1e-5, drop=1e-4, repeat=1e-4, seed=7, reset_every=60_000))
    print(figures)
    assert (figures["answered"], figures["mismatches"], figures["violations"]) == (1000, 0, 0)
    assert min(figures["harm"].values()) > 5


def test_a_video_on_the_simulated_board() -> None:
    """Frames that leave a window of one at once, so that the second one and the question retrieve."""
    options: dict[str, Any] = {
        "frames": 2,
        "policy": "resv",
        "config": CONFIG,
        "offload": "dre",
        "knobs": {"window": 1, "sinks": 0},
    }
    with vrex.open_session("procstream:1", **options) as session:
        for _ in session.stream():
            pass
        expected, wanted = session.ask("now"), session.figures()
    simulated = SimulatedBoard(CONFIG, unit="dre")
    with served(simulated) as terminal:
        board_options = options | {"backend": f"serial:{terminal.name}", "check": True}
        with vrex.open_session("procstream:1", **board_options) as session:
            for _ in session.stream():
                pass
            assert session.ask("now") == expected
            figures = session.figures()
    assert figures["fetched"] == wanted["fetched"]
    assert figures["fetched"]["tokens"] > 0
    assert figures["rtl"]["calls"] == wanted["rtl"]["calls"] > 8
    assert (figures["rtl"]["mismatches"], figures["rtl"]["compared"] > 30) == (0, True)
    assert simulated.violations == 0
    simulated.close()


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
def test_a_longer_video_by_the_command_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vrex", "link", "--simulate", "dre", "--preset", "tiny"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as simulation:
        assert simulation.stdout is not None
        port = simulation.stdout.readline().strip()
        words = ["--offload", "dre", "--backend", f"serial:{port}", "--preset", "tiny", "--check"]
        png = ["--png", str(tmp_path / "x.png")]
        done = ran("run", "--video", "procstream:1", "--frames", "24", *words, *png)
        simulation.send_signal(2)
        assert simulation.wait() == 0
    assert done.returncode == 0, done.stderr
    assert "1, 1 answered right" in done.stdout
    assert ", 0 mismatches" in done.stdout
