"""Recall: selects tokens by codes in memory and delivers their K and V, at its command interface."""

from vrex.model import commands
from vrex.model.commands import (
    STORE_TOKENS,
    VOTE_PARAM,
    VOTE_ROWS,
    CommandError,
    Descriptor,
    Opcode,
    Register,
    Status,
)
from vrex.model.config import Config
from vrex.model.dre import codes
from vrex.model.dre.command_unit import Delivery, MemoryOperation, MemoryUnit
from vrex.model.dre.registers import (
    RECALL_REGISTERS,
    RegisterFile,
    check_length,
    scale_from_register,
)
from vrex.model.dre.token_store import TokenStore
from vrex.model.lib.memory import Memory


class Recall(MemoryUnit):
    """Golden unit (see `MemoryUnit`)."""

    def __init__(self, config: Config, memory: Memory) -> None:
        super().__init__(config, memory, RegisterFile(RECALL_REGISTERS))

    def operations(self) -> dict[int, MemoryOperation]:
        """See `MemoryUnit.operations`."""
        return {Opcode.STORE: self._store, Opcode.RECALL: self._recall}

    def _store(self, command: Descriptor, payload: bytes) -> Delivery:
        if not 1 <= command.count <= STORE_TOKENS:
            raise CommandError(Status.BAD_COUNT)
        check_length(command, commands.store_length(self.config, command.count))
        return (
            b"",
            b"",
            self._open(command).append(*commands.store_payload(self.config, payload, command.count)),
        )

    def _recall(self, command: Descriptor, payload: bytes) -> Delivery:
        config, tokens, rows = self.config, command.clusters, command.count
        param = VOTE_PARAM.from_int(command.param)
        if not 1 <= rows <= VOTE_ROWS or tokens == 0:
            raise CommandError(Status.BAD_COUNT)
        if tokens > config.codes.tokens or param["residents"] > config.codes.residents:
            raise CommandError(Status.CAPACITY)
        check_length(command, commands.recall_length(config, rows, param["residents"]))
        store = self._open(command)
        if tokens != store.header.tokens:
            raise CommandError(Status.BAD_COUNT)
        seen = commands.vote_rows(config, payload, rows, param["residents"])
        scores = codes.score(seen.components, seen.scales, store.codes())
        scale = scale_from_register(self.registers.values[Register.SCALE])
        chosen = codes.select(codes.vote(seen.residents, scores, scale), param["wanted"])
        kv = b"".join(store.kv(int(token)).astype("<u2").tobytes() for token in chosen)
        mask = commands.pack_masks(config, [codes.bitmask(chosen, tokens)])
        return mask, kv, len(kv) // config.bus_bytes

    def _open(self, command: Descriptor) -> TokenStore:
        """The command's store, as far as the registers' windows let it be seen.

        Raises:
            CommandError: BAD_ADDRESS; OTHER_CODES where it was made with others than the command's.
        """
        store = TokenStore(self.config, self.seen(), command.address)
        if store.header.identity != command.kv_heads:
            raise CommandError(Status.OTHER_CODES)
        return store
