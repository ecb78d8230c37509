"""KVPU: the prediction unit at its command interface, HCU and WTU behind one command stream."""

from collections.abc import Callable
from functools import partial

import numpy as np

from vrex.model import commands
from vrex.model.commands import CommandError, Descriptor, Opcode, Register, Status
from vrex.model.config import Config
from vrex.model.dre import hcu, wtu
from vrex.model.dre.command_unit import CommandUnit, Operation, Result
from vrex.model.dre.registers import (
    KVPU_REGISTERS,
    accepts,
    check_length,
    counters,
    reset_values,
)

RESET = reset_values(KVPU_REGISTERS)
"""Writable registers and their values after reset."""

VALID: dict[Register, Callable[[int], bool]] = {register: partial(accepts, register) for register in RESET}
"""Writable registers and the values they take."""

COUNTERS = counters(KVPU_REGISTERS)
"""Registers that count."""


class Kvpu(CommandUnit):
    """Golden KVPU."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, KVPU_REGISTERS)

    def operations(self) -> dict[int, Operation]:
        """See `CommandUnit.operations`."""
        return {Opcode.CLUSTER: self._cluster, Opcode.SELECT: self._select}

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
