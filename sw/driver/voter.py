"""The voter's engine: codes and rows in, selected tokens out, error statuses as messages."""

from dataclasses import dataclass

import numpy as np

from vrex.model import commands
from vrex.model.commands import VOTE_ROWS, Completion, Descriptor, Register, Status, VoteRows
from vrex.model.dre.codes import Codes
from vrex.model.dre.registers import scale_to_register
from vrex.model.dre.wtu import Scale
from vrex.sw.driver.link import Link


@dataclass(frozen=True)
class VoteRequest:
    """What one KV head chooses from, and what asks for it.

    Attributes:
        past: codes of the tokens, at least one.
        rows: queries and scores of the residents.
        layer, kv_head: whose they are.
    """

    past: Codes
    rows: VoteRows
    layer: int
    kv_head: int


class VoterEngine(Link):
    """VOTE of one voter (see `Link`)."""

    def set_scale(self, scale: Scale) -> None:
        """Sets what scores are multiplied with, for all later commands."""
        self._set({Register.SCALE: scale_to_register(scale)})

    def select(self, requests: list[VoteRequest], wanted: int, *, sequence: int = 0) -> list[np.ndarray]:
        """The tokens with the most votes, all requests in one batch.

        Args:
            requests: what to choose from.
            wanted: tokens to select for each, 1..65535.
            sequence: stream id in the commands.

        Returns:
            For each request the tokens, ascending, int64, at most `wanted`.

        Raises:
            DriverError: the accelerator refused or did not answer.
        """
        batch = [
            commands.vote_command(
                self.config,
                request.past,
                request.rows,
                wanted,
                tag=self._next_tag(),
                sequence=sequence,
                layer=request.layer,
                kv_head=request.kv_head,
            )
            for request in requests
        ]
        results = self._submit(batch)
        return [
            np.flatnonzero(commands.unpack_masks(self.config, outcome.result, len(request.past.scales), 1)[0])
            for request, outcome in zip(requests, results, strict=True)
        ]

    def _complaint(self, command: Descriptor, completion: Completion) -> str:
        """See `Link._complaint`."""
        name, unit = self.config.name, self.config.codes
        if completion.status == Status.CAPACITY:
            return (
                f"layer {command.layer} has {command.clusters} coded tokens, but preset {name}'s voter "
                f"chooses from {unit.tokens} beside {unit.residents} residents; take a larger codes.tokens "
                "or codes.residents, or shorten the video"
            )
        if completion.status == Status.BAD_COUNT and command.count > VOTE_ROWS:
            return (
                f"layer {command.layer} asks with {command.count} rows, but a voter takes {VOTE_ROWS}; "
                "send fewer tokens in a chunk"
            )
        return super()._complaint(command, completion)
