"""Random commands for a KVPU or a DRE, good and bad ones, and what came of them beside the golden model."""

from typing import Any

import numpy as np

from vrex.model import commands as model
from vrex.model.commands import Descriptor, Opcode, Register, cluster_command, select_command
from vrex.model.config import Config
from vrex.model.dre.kvstore import Table
from vrex.model.lib.memory import Memory
from vrex.sw.driver.command_check import CheckedCommands
from vrex.sw.driver.command_interface import Batch
from vrex.sw.driver.dre import Capacity, MemoryLayout
from vrex.sw.driver.link import TIMEOUT
from vrex.sw.driver.serial import SerialTransport, identify, open_serial

BATCH = 8
"""Commands that are submitted at once, at most."""

HEADS, ROWS, CLUSTERS, TOKENS = 2, 4, 160, 16
"""Most KV heads, rows of a head, clusters and tokens of a command."""

REGISTERS = (Register.TH_HD, Register.TH_R, Register.TRANSFORM, Register.SELECTION, Register.SCALE)
WRONG = 0.05
"""Share of commands that the accelerator must refuse."""

TABLES = 3
"""Of a DRE."""

CHUNK = 4
"""Most tokens that an APPEND brings: K and V of a token are many bytes."""

FULL = 20
"""Tokens from which on a table is replaced by an empty one; it has room for a few more."""

Command = tuple[Descriptor, bytes]


def open_board(name: str, config: Config) -> SerialTransport:
    """Opens a KVPU on a board, or a DRE with tables for the test.

    Args:
        name: `serial:PORT` or `serial:PORT@BAUD`.
        config: accelerator.

    Raises:
        DriverError: there is no such port, or no such accelerator behind it.
    """
    if identify(name).unit_name != "dre":
        return open_serial(name, config)
    layout = _layout(config)
    return open_serial(name, config, Memory(layout.device, layout.host))


def _layout(config: Config) -> MemoryLayout:
    ring = 2 * config.hcu.chunk_tokens
    room = Capacity(clusters=FULL + CHUNK // 2, segments=2 * FULL, ring=ring)
    return MemoryLayout.of(config, TABLES, config.kvmu.kv_heads, room, near=True)


def _wrong(config: Config, rng: np.random.Generator, tag: int, clusters: int, opcodes: list[int]) -> Command:
    payload = rng.bytes(config.bus_bytes * int(rng.integers(0, 8)))
    opcode = int(rng.choice(opcodes))
    return Descriptor(opcode, tag, count=3, clusters=clusters, length=len(payload)), payload


def _setreg(rng: np.random.Generator, tag: int) -> Command:
    register = int(rng.choice(REGISTERS))
    value = int(rng.integers(0, 1 << int(rng.choice([1, 2, 5, 8, 16]))))
    return Descriptor(Opcode.SETREG, tag, count=register, param=value), b""


def _bf16(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Normal values of a random size, BF16 bits."""
    values = rng.standard_normal(shape, dtype=np.float32) * np.float32(10.0 ** rng.integers(-2, 3))
    return (values.view(np.uint32) >> 16).astype(np.uint16)


def _hashes(config: Config, rng: np.random.Generator, n: int) -> np.ndarray:
    """Hashes of which many are near each other."""
    words = -(-config.hcu.hash_bits // 32)
    mask = np.uint32((1 << min(config.hcu.hash_bits, 32)) - 1)
    few = rng.integers(0, 1 << 32, (4, words), dtype=np.uint32)
    flips = np.uint32(1) << rng.integers(0, 32, (n, words), dtype=np.uint32)
    hashes: np.ndarray = (few[rng.integers(0, len(few), n)] ^ flips) & mask
    return hashes


class KvpuCommands:
    """Commands for a KVPU; some are wrong, and complete with a status that says so."""

    def __init__(self, config: Config, rng: np.random.Generator) -> None:
        self._config, self._rng = config, rng

    def batch(self, first: int, count: int) -> Batch:
        """Commands with their payloads and with tags from `first` on."""
        return [self._command((first + i) % (1 << 16)) for i in range(count)]

    def _command(self, tag: int) -> Command:
        config, rng = self._config, self._rng
        clusters = int(rng.integers(0, CLUSTERS + 1))
        if rng.random() < WRONG:
            return _wrong(config, rng, tag, clusters, [0, Opcode.CLUSTER, Opcode.SELECT, 200])
        match int(rng.integers(0, 4)):
            case 0:
                return _setreg(rng, tag)
            case 1:
                return Descriptor(Opcode.GETREG, tag, count=int(rng.choice(REGISTERS))), b""
            case 2:
                most = min(TOKENS, config.hcu.chunk_tokens)
                tokens, founders = (
                    _hashes(config, rng, n) for n in (int(rng.integers(1, most + 1)), clusters)
                )
                return cluster_command(config, tokens, founders, tag=tag)
            case _:
                shape = int(rng.integers(1, HEADS + 1)), int(rng.integers(1, ROWS + 1)), clusters
                return select_command(config, _bf16(rng, shape), rng.integers(1, 100, clusters), tag=tag)


class DreCommands:
    """Commands for a DRE, whose tables lie in its memory."""

    def __init__(self, checked: CheckedCommands, rng: np.random.Generator) -> None:
        """Writes empty tables and sets the windows.

        Raises:
            DriverError: the board does not answer.
        """
        self._checked, self._config, self._rng = checked, checked.config, rng
        self._layout = layout = _layout(checked.config)
        registers = {
            Register.DEVICE_BASE: layout.device.base,
            Register.DEVICE_PAGES: layout.device.pages,
            Register.HOST_BASE: layout.host.base,
            Register.HOST_PAGES: layout.host.pages,
            Register.TIMEOUT: TIMEOUT,
        }
        for table in range(TABLES):
            self._clear(table)
        checked.submit(
            [
                (Descriptor(Opcode.SETREG, count=register, param=value), b"")
                for register, value in registers.items()
            ]
        )

    def batch(self, first: int, count: int) -> Batch:
        """Commands with tags from `first` on, after tables that are full were replaced."""
        for number in range(TABLES):
            if self._table(number).header.tokens >= FULL:
                self._clear(number)
        changed: set[int] = set()
        return [self._command((first + i) % (1 << 16), changed) for i in range(count)]

    def _clear(self, table: int) -> None:
        self._checked.write(self._layout.addresses[table], self._layout.headers[table].pack())

    def _table(self, number: int) -> Table:
        """As the golden model holds it, which the board's was compared with."""
        assert self._checked.memory is not None
        return Table(self._config, self._checked.memory, self._layout.addresses[number])

    def _command(self, tag: int, changed: set[int]) -> Command:
        """One command; `changed` holds the tables that the batch has appended to."""
        rng = self._rng
        if rng.random() < WRONG:
            opcodes = [0, Opcode.SELECT, Opcode.APPEND, Opcode.FETCH, 200]
            return _wrong(self._config, rng, tag, int(rng.integers(0, CLUSTERS + 1)), opcodes)
        number = int(rng.integers(0, TABLES))
        match int(rng.integers(0, 6)):
            case 0:
                return _setreg(rng, tag)
            case 1:
                return Descriptor(Opcode.GETREG, tag, count=int(rng.choice(REGISTERS))), b""
            case 2 | 3 if number not in changed:
                changed.add(number)
                return self._append(number, tag)
            case 4:
                return self._retrieve(number, tag)
            case _:
                return self._fetch(number, tag)

    def _append(self, number: int, tag: int) -> Command:
        config, rng = self._config, self._rng
        tokens = int(rng.integers(1, CHUNK + 1))
        hashes = model.hashes_to_bytes(config, _hashes(config, rng, tokens))
        kv = _bf16(rng, (tokens, config.kvmu.kv_heads, 2, config.kvmu.head_dim))
        payload = model.to_beats(config, hashes) + kv.astype("<u2").tobytes()
        return self._on(number, Opcode.APPEND, tag, payload, (1 << config.kvmu.kv_heads) - 1, count=tokens)

    def _retrieve(self, number: int, tag: int) -> Command:
        """Refused where the table is empty, or an APPEND before has opened clusters."""
        rng, heads = self._rng, self._heads()
        rows, clusters = int(rng.integers(1, ROWS + 1)), self._table(number).header.clusters
        scores = _bf16(rng, (heads.bit_count() * rows, clusters))
        payload = model.retrieve_payload(self._config, scores)
        return self._on(number, Opcode.RETRIEVE, tag, payload, heads, count=rows, clusters=clusters)

    def _fetch(self, number: int, tag: int) -> Command:
        """Now and then of a cluster that the table does not have."""
        rng, heads = self._rng, self._heads()
        clusters = self._table(number).header.clusters + int(rng.random() < WRONG)
        masks = rng.random((heads.bit_count(), clusters)) < 0.5
        payload = model.pack_masks(self._config, list(masks))
        return self._on(number, Opcode.FETCH, tag, payload, heads, clusters=clusters)

    def _heads(self) -> int:
        """A mask of KV heads."""
        return int(self._rng.integers(1, 1 << self._config.kvmu.kv_heads))

    def _on(
        self,
        number: int,
        opcode: Opcode,
        tag: int,
        payload: bytes,
        heads: int,
        *,
        count: int = 0,
        clusters: int = 0,
    ) -> Command:
        """A command on a table."""
        return Descriptor(
            opcode,
            tag,
            kv_heads=heads,
            count=count,
            clusters=clusters,
            address=self._layout.addresses[number],
            length=len(payload),
        ), payload


def run(board: SerialTransport, commands: int, seed: int, step: Any = None) -> dict[str, Any]:
    """Sends random commands to a board and compares all that comes back.

    Args:
        board: with registers at their reset values; a DRE as of `open_board`.
        commands: how many.
        seed: of the commands.
        step: called with the number of commands after each batch.

    Returns:
        For JSON: unit, commands sent and answered, results compared and wrong, and what the link did.

    Raises:
        DriverError: the board does not answer.
    """
    rng = np.random.default_rng(seed)
    checked = CheckedCommands(board)
    source = KvpuCommands(board.config, rng) if board.memory is None else DreCommands(checked, rng)
    answered = statuses = 0
    while answered < commands:
        n = min(int(rng.integers(1, BATCH + 1)), commands - answered)
        outcomes = checked.submit(source.batch(answered, n))
        answered += len(outcomes)
        statuses += sum(outcome.completion.status != 0 for outcome in outcomes)
        if step is not None:
            step(n)
    report = board.report.to_dict()
    return {
        "unit": board.interface.unit,
        "commands": commands,
        "answered": answered,
        "refused": statuses,
        "compared": report["compared"],
        "mismatches": report["mismatches"],
        "seed": seed,
        "cycles": report["cycles"],
        "link": report["link"],
    }
