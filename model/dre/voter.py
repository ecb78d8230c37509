"""Voter: the selection of tokens by the codes of their keys, at its command interface."""

from vrex.model import commands
from vrex.model.commands import VOTE_PARAM, VOTE_ROWS, CommandError, Descriptor, Opcode, Register, Status
from vrex.model.config import Config
from vrex.model.dre import codes
from vrex.model.dre.command_unit import CommandUnit, Operation, Result
from vrex.model.dre.registers import VOTER_REGISTERS, check_length, scale_from_register


class Voter(CommandUnit):
    """Golden voter."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, VOTER_REGISTERS)

    def operations(self) -> dict[int, Operation]:
        """See `CommandUnit.operations`."""
        return {Opcode.VOTE: self._vote}

    def _vote(self, command: Descriptor, payload: bytes) -> Result:
        config, tokens, rows = self.config, command.clusters, command.count
        param = VOTE_PARAM.from_int(command.param)
        if not 1 <= rows <= VOTE_ROWS or tokens == 0 or command.kv_heads.bit_count() != 1:
            raise CommandError(Status.BAD_COUNT)
        if tokens > config.codes.tokens or param["residents"] > config.codes.residents:
            raise CommandError(Status.CAPACITY)
        check_length(command, commands.vote_length(config, tokens, rows, param["residents"]))
        past, seen = commands.vote_payload(config, payload, tokens, rows, param["residents"])
        scores = codes.score(seen.components, seen.scales, past)
        scale = scale_from_register(self.registers.values[Register.SCALE])
        chosen = codes.select(codes.vote(seen.residents, scores, scale), param["wanted"])
        return commands.pack_masks(config, [codes.bitmask(chosen, tokens)]), len(chosen)
