"""Recall: selects tokens by codes in memory and delivers their K and V, at its command interface."""

from collections.abc import Callable

from vrex.model import commands
from vrex.model.commands import (
    STORE_TOKENS,
    VOTE_PARAM,
    VOTE_ROWS,
    CommandError,
    Completion,
    Descriptor,
    Opcode,
    Register,
    Status,
)
from vrex.model.config import Config
from vrex.model.dre import codes
from vrex.model.dre.registers import (
    RECALL_REGISTERS,
    WINDOWS,
    RegisterFile,
    check_length,
    scale_from_register,
)
from vrex.model.dre.token_store import TokenStore
from vrex.model.lib.memory import Memory, Window


class Recall:
    """Golden unit. Counters read 0: the model has no clock."""

    def __init__(self, config: Config, memory: Memory) -> None:
        """A unit whose windows are not set yet.

        Args:
            config: accelerator.
            memory: what its AXI port reaches.
        """
        self.config, self.memory = config, memory
        self.registers = RegisterFile(RECALL_REGISTERS)

    def execute(self, command: Descriptor, payload: bytes) -> tuple[Completion, bytes, bytes]:
        """Runs one command.

        Args:
            command: descriptor.
            payload: its data, `command.length` bytes rounded up to whole beats.

        Returns:
            (completion, bytes on the result stream, bytes on the stream `kv`). What leaves before a failure
            is not part of the contract, and nothing here.
        """
        operations: dict[int, Callable[[Descriptor, bytes], tuple[bytes, bytes, int]]] = {
            Opcode.SETREG: self._setreg,
            Opcode.GETREG: self._getreg,
            Opcode.STORE: self._store,
            Opcode.RECALL: self._recall,
        }
        try:
            if command.opcode not in operations:
                raise CommandError(Status.BAD_OPCODE)
            result, kv, detail = operations[command.opcode](command, payload)
        except CommandError as error:
            return Completion(command.tag, error.status), b"", b""
        return Completion(command.tag, Status.OK, size=len(result), detail=detail), result, kv

    def _setreg(self, command: Descriptor, payload: bytes) -> tuple[bytes, bytes, int]:
        self.registers.set(command)
        return b"", b"", 0

    def _getreg(self, command: Descriptor, payload: bytes) -> tuple[bytes, bytes, int]:
        return b"", b"", self.registers.get(command)

    def _store(self, command: Descriptor, payload: bytes) -> tuple[bytes, bytes, int]:
        if not 1 <= command.count <= STORE_TOKENS:
            raise CommandError(Status.BAD_COUNT)
        check_length(command, commands.store_length(self.config, command.count))
        return (
            b"",
            b"",
            self._open(command).append(*commands.store_payload(self.config, payload, command.count)),
        )

    def _recall(self, command: Descriptor, payload: bytes) -> tuple[bytes, bytes, int]:
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
        base, pages, host_base, host_pages = (self.registers.values[register] for register in WINDOWS)
        seen = self.memory.seen_through(Window(base, pages), Window(host_base, host_pages))
        store = TokenStore(self.config, seen, command.address)
        if store.header.identity != command.kv_heads:
            raise CommandError(Status.OTHER_CODES)
        return store
