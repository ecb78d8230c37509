"""Random commands for a KVPU, good and bad ones, and what came of them beside the golden model."""

from typing import Any

import numpy as np

from vrex.model.commands import Descriptor, Opcode, Register, cluster_command, select_command
from vrex.model.config import Config
from vrex.sw.driver.command_check import CheckedCommands
from vrex.sw.driver.command_interface import Batch
from vrex.sw.driver.serial import SerialTransport

BATCH = 8
"""Commands that are submitted at once, at most."""

HEADS, ROWS, CLUSTERS, TOKENS = 2, 4, 160, 16
"""Most KV heads, rows of a head, clusters and tokens of a command."""

REGISTERS = (Register.TH_HD, Register.TH_R, Register.TRANSFORM, Register.SELECTION, Register.SCALE)
WRONG = 0.05
"""Share of commands that the KVPU must refuse."""


def random_command(config: Config, rng: np.random.Generator, tag: int) -> tuple[Descriptor, bytes]:
    """A command with its payload; some are wrong, and complete with a status that says so."""
    clusters = int(rng.integers(0, CLUSTERS + 1))
    if rng.random() < WRONG:
        payload = rng.bytes(config.bus_bytes * int(rng.integers(0, 8)))
        opcode = int(rng.choice([0, Opcode.CLUSTER, Opcode.SELECT, 200]))
        return Descriptor(opcode, tag, count=3, clusters=clusters, length=len(payload)), payload
    match int(rng.integers(0, 4)):
        case 0:
            register = int(rng.choice(REGISTERS))
            value = int(rng.integers(0, 1 << int(rng.choice([1, 2, 5, 8, 16]))))
            return Descriptor(Opcode.SETREG, tag, count=register, param=value), b""
        case 1:
            return Descriptor(Opcode.GETREG, tag, count=int(rng.choice(REGISTERS))), b""
        case 2:
            most = min(TOKENS, config.hcu.chunk_tokens)
            tokens, founders = (_hashes(config, rng, n) for n in (int(rng.integers(1, most + 1)), clusters))
            return cluster_command(config, tokens, founders, tag=tag)
        case _:
            shape = int(rng.integers(1, HEADS + 1)), int(rng.integers(1, ROWS + 1)), clusters
            values = rng.standard_normal(shape, dtype=np.float32) * np.float32(10.0 ** rng.integers(-2, 3))
            scores = (values.view(np.uint32) >> 16).astype(np.uint16)
            return select_command(config, scores, rng.integers(1, 100, clusters), tag=tag)


def _hashes(config: Config, rng: np.random.Generator, n: int) -> np.ndarray:
    """Hashes of which many are near each other."""
    words = -(-config.hcu.hash_bits // 32)
    mask = np.uint32((1 << min(config.hcu.hash_bits, 32)) - 1)
    few = rng.integers(0, 1 << 32, (4, words), dtype=np.uint32)
    flips = np.uint32(1) << rng.integers(0, 32, (n, words), dtype=np.uint32)
    hashes: np.ndarray = (few[rng.integers(0, len(few), n)] ^ flips) & mask
    return hashes


def run(board: SerialTransport, commands: int, seed: int, step: Any = None) -> dict[str, Any]:
    """Sends random commands to a board and compares all that comes back.

    Args:
        board: of a KVPU, with registers at their reset values.
        commands: how many.
        seed: of the commands.
        step: called with the number of commands after each batch.

    Returns:
        For JSON: commands sent and answered, results compared and wrong, and what the link did.

    Raises:
        DriverError: the board does not answer.
    """
    rng = np.random.default_rng(seed)
    checked = CheckedCommands(board)
    answered = statuses = 0
    while answered < commands:
        n = min(int(rng.integers(1, BATCH + 1)), commands - answered)
        batch: Batch = [random_command(board.config, rng, (answered + i) % (1 << 16)) for i in range(n)]
        outcomes = checked.submit(batch)
        answered += len(outcomes)
        statuses += sum(outcome.completion.status != 0 for outcome in outcomes)
        if step is not None:
            step(n)
    report = board.report.to_dict()
    return {
        "commands": commands,
        "answered": answered,
        "refused": statuses,
        "compared": report["compared"],
        "mismatches": report["mismatches"],
        "seed": seed,
        "cycles": report["cycles"],
        "link": report["link"],
    }
