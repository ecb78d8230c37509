"""KVPU: the prediction unit at its command interface, HCU and WTU behind one command stream."""

from collections.abc import Callable
from functools import partial

import numpy as np

from vrex.model import commands
from vrex.model.commands import CommandError, Completion, Descriptor, Opcode, Register, Status
from vrex.model.config import Config
from vrex.model.dre import hcu, wtu
from vrex.model.dre.registers import (
    KVPU_REGISTERS,
    RegisterFile,
    accepts,
    check_length,
    counters,
    reset_values,
)

Result = tuple[bytes, int]
"""Result bytes and the completion's `detail`."""

RESET = reset_values(KVPU_REGISTERS)
"""Writable registers and their values after reset."""

VALID: dict[Register, Callable[[int], bool]] = {register: partial(accepts, register) for register in RESET}
"""Writable registers and the values they take."""

COUNTERS = counters(KVPU_REGISTERS)
"""Registers that count."""


class Kvpu:
    """Golden KVPU. Cycle counters read 0: the model has no clock."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.registers = RegisterFile(KVPU_REGISTERS)

    def execute(self, command: Descriptor, payload: bytes) -> tuple[Completion, bytes]:
        """Runs one command.

        Args:
            command: descriptor.
            payload: its data, `command.length` bytes rounded up to whole beats.
        """
        try:
            result, detail = self._dispatch(command, payload)
        except CommandError as error:
            return Completion(command.tag, error.status), b""
        return Completion(command.tag, Status.OK, size=len(result), detail=detail), result

    def _dispatch(self, command: Descriptor, payload: bytes) -> Result:
        operations: dict[int, Callable[[Descriptor, bytes], Result]] = {
            Opcode.SETREG: self._setreg,
            Opcode.GETREG: self._getreg,
            Opcode.CLUSTER: self._cluster,
            Opcode.SELECT: self._select,
        }
        if command.opcode not in operations:
            raise CommandError(Status.BAD_OPCODE)
        return operations[command.opcode](command, payload)

    def _setreg(self, command: Descriptor, payload: bytes) -> Result:
        self.registers.set(command)
        return b"", 0

    def _getreg(self, command: Descriptor, payload: bytes) -> Result:
        return b"", self.registers.get(command)

    def _cluster(self, command: Descriptor, payload: bytes) -> Result:
        config = self.config
        if not 1 <= command.count <= config.hcu.chunk_tokens:
            raise CommandError(Status.BAD_COUNT)
        check_length(command, commands.cluster_length(config, command.count, command.clusters))
        split = config.beats(command.count, config.hcu.hash_bits) * config.bus_bytes
        tokens = commands.bytes_to_hashes(config, payload[:split], command.count)
        clusters = commands.bytes_to_hashes(config, payload[split:], command.clusters)
        try:
            result = hcu.cluster(tokens, clusters, self.registers.values[Register.TH_HD])
        except hcu.TableFullError:
            raise CommandError(Status.TABLE_FULL) from None
        return commands.pack_clustering(config, result), int(result.opened.sum())

    def _select(self, command: Descriptor, payload: bytes) -> Result:
        config, clusters = self.config, command.clusters
        n_heads = command.kv_heads.bit_count()
        if command.count == 0 or n_heads == 0:
            raise CommandError(Status.BAD_COUNT)
        if clusters > config.wtu.mask_clusters:
            raise CommandError(Status.CAPACITY)
        check_length(command, commands.select_length(config, command.count, clusters, command.kv_heads))
        scores, counts = commands.select_payload(config, payload, n_heads * command.count, clusters)
        chosen = wtu.select(scores, counts, self.registers.rule(config))
        masks = np.any(chosen.rows.reshape(n_heads, command.count, clusters), axis=1)
        return commands.pack_masks(config, list(masks)), chosen.degenerate
