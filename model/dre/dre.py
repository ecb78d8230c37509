"""DRE: the retrieval engine at its command interface, HCU, WTU and KVMU on tables in memory."""

from collections.abc import Callable
from functools import partial

import numpy as np

from vrex.model import commands
from vrex.model.commands import CommandError, Descriptor, Opcode, Register, Status
from vrex.model.config import Config
from vrex.model.dre import wtu
from vrex.model.dre.command_unit import Delivery, MemoryOperation, MemoryUnit
from vrex.model.dre.kvstore import Table
from vrex.model.dre.registers import (
    DRE_REGISTERS,
    RegisterFile,
    accepts,
    check_length,
    counters,
    reset_values,
)
from vrex.model.lib.memory import Memory

PREDICT_ONLY = 1
"""`param` of a RETRIEVE that fetches nothing."""

RESET = reset_values(DRE_REGISTERS)
"""Writable registers and their values after reset."""

VALID: dict[Register, Callable[[int], bool]] = {register: partial(accepts, register) for register in RESET}
"""Writable registers and the values they take."""

COUNTERS = counters(DRE_REGISTERS)
"""Registers that count."""


class Dre(MemoryUnit):
    """Golden DRE (see `MemoryUnit`). Of the counters it keeps DEGENERATE_ROWS."""

    def __init__(self, config: Config, memory: Memory) -> None:
        super().__init__(config, memory, RegisterFile(DRE_REGISTERS, kept=(Register.DEGENERATE_ROWS,)))

    def operations(self) -> dict[int, MemoryOperation]:
        """See `MemoryUnit.operations`."""
        return {Opcode.APPEND: self._append, Opcode.RETRIEVE: self._retrieve, Opcode.FETCH: self._fetch}

    def _append(self, command: Descriptor, payload: bytes) -> Delivery:
        config, n, heads = self.config, command.count, command.kv_heads.bit_count()
        if not 1 <= n <= config.hcu.chunk_tokens or heads == 0:
            raise CommandError(Status.BAD_COUNT)
        check_length(command, commands.append_length(config, n, heads))
        table = self._table(command)
        if command.kv_heads != (1 << table.header.heads) - 1:
            raise CommandError(Status.BAD_COUNT)
        split = len(payload) - n * heads * config.kvmu.token_bytes
        hashes = commands.bytes_to_hashes(config, payload[:split], n)
        kv = np.frombuffer(payload[split:], dtype="<u2").reshape(n, heads, 2, config.kvmu.head_dim)
        decisions = table.append(hashes, kv[:, :, 0], kv[:, :, 1], self.registers.values[Register.TH_HD])
        return commands.pack_clustering(config, decisions), b"", int(decisions.opened.sum())

    def _retrieve(self, command: Descriptor, payload: bytes) -> Delivery:
        config, clusters, rows = self.config, command.clusters, command.count
        n_heads = command.kv_heads.bit_count()
        if rows == 0 or n_heads == 0:
            raise CommandError(Status.BAD_COUNT)
        if clusters > config.wtu.mask_clusters:
            raise CommandError(Status.CAPACITY)
        if command.param > PREDICT_ONLY:
            raise CommandError(Status.BAD_VALUE)
        check_length(command, commands.retrieve_length(config, rows, clusters, command.kv_heads))
        table = self._table(command)
        if clusters != table.header.clusters or command.kv_heads >> table.header.heads:
            raise CommandError(Status.BAD_COUNT)
        scores = commands.retrieve_scores(config, payload, n_heads * rows, clusters)
        chosen = wtu.select(scores, table.counts(), self.registers.rule(config))
        masks = np.any(chosen.rows.reshape(n_heads, rows, clusters), axis=1)
        self.registers.values[Register.DEGENERATE_ROWS] += chosen.degenerate
        kv = b"" if command.param == PREDICT_ONLY else self._deliver(table, command.kv_heads, masks)
        return commands.pack_masks(config, list(masks)), kv, len(kv) // config.bus_bytes

    def _fetch(self, command: Descriptor, payload: bytes) -> Delivery:
        config, clusters = self.config, command.clusters
        if command.kv_heads == 0:
            raise CommandError(Status.BAD_COUNT)
        check_length(command, commands.fetch_length(config, clusters, command.kv_heads))
        table = self._table(command)
        if command.kv_heads >> table.header.heads:
            raise CommandError(Status.BAD_COUNT)
        masks = commands.unpack_masks(config, payload, clusters, command.kv_heads.bit_count())
        kv = self._deliver(table, command.kv_heads, masks)
        return b"", kv, len(kv) // config.bus_bytes

    def _deliver(self, table: Table, kv_heads: int, masks: np.ndarray) -> bytes:
        """K and V of the selected clusters, head by head."""
        heads = [head for head in range(table.header.heads) if kv_heads >> head & 1]
        kv = b""
        for head, mask in zip(heads, masks, strict=True):
            if mask[table.header.clusters :].any():
                raise CommandError(Status.BAD_MASK, kv)
            kv += b"".join(part.tobytes() for part in table.fetch(head, mask))
        return kv

    def _table(self, command: Descriptor) -> Table:
        """The command's table, as far as the registers' windows let it be seen."""
        return Table(self.config, self.seen(), command.address)
