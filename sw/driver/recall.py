"""The engine of the unit `recall`: stores in its memory, arrays in and out, error statuses as messages."""

from dataclasses import dataclass, replace

import numpy as np

from vrex.errors import UserError
from vrex.model import commands
from vrex.model.commands import STORE_TOKENS, VOTE_ROWS, Completion, Descriptor, Register, Status, VoteRows
from vrex.model.config import Config
from vrex.model.dre.codes import Codes
from vrex.model.dre.registers import RECALL_REGISTERS, counters, scale_to_register
from vrex.model.dre.token_store import StoreHeader, plan_store
from vrex.model.dre.wtu import Scale
from vrex.model.lib.memory import PAGE, Memory, Window
from vrex.sw.driver.command_interface import CommandTransport
from vrex.sw.driver.dre import DEVICE_BASE, HOST_BASE, new_memory
from vrex.sw.driver.link import TIMEOUT, Link

COUNTERS = counters(RECALL_REGISTERS)


@dataclass(frozen=True)
class StoreLayout:
    """Where the stores of one unit lie.

    Attributes:
        addresses, headers: of every store, empty; their identities are not known yet.
        device, host: windows that hold them all and nothing else.
    """

    addresses: list[int]
    headers: list[StoreHeader]
    device: Window
    host: Window

    @classmethod
    def of(cls, config: Config, stores: int, cap_tokens: int, *, is_packed: bool = False) -> "StoreLayout":
        """Lays out stores one after the other.

        Args:
            config: accelerator.
            stores: how many.
            cap_tokens: tokens that fit each.
            is_packed: keep K and V in 4 bits.

        Raises:
            UserError: a store can't hold so many.
        """
        try:
            first = plan_store(config, cap_tokens, 0, 0, is_packed=is_packed)
        except ValueError as error:
            raise UserError(f"the stores can't be laid out: {error}; shorten the video") from error
        device = Window(DEVICE_BASE, stores * first.device_pages)
        host = Window(max(HOST_BASE, device.base + device.pages), stores * first.host_pages)
        return cls(
            [(device.base + store * first.device_pages) * PAGE for store in range(stores)],
            [
                replace(first.header, host_page=host.base + store * first.host_pages)
                for store in range(stores)
            ],
            device,
            host,
        )

    def new_memory(self) -> Memory:
        """Memory for both windows, which takes up what is written to it.

        Raises:
            UserError: the system does not have as much.
        """
        return new_memory(self.device, self.host, "stores", "shorten the video")


@dataclass(frozen=True)
class StoreRequest:
    """Tokens for one store.

    Attributes:
        store: index.
        layer: decoder layer.
        codes: of the tokens.
        kv: BF16 bits, uint16 [n, 2, head_dim]: keys (RoPE applied), then values.
    """

    store: int
    layer: int
    codes: Codes
    kv: np.ndarray


@dataclass(frozen=True)
class RecallRequest:
    """What asks one store.

    Attributes:
        store: index; it holds tokens.
        layer: decoder layer.
        rows: queries and scores of the residents.
    """

    store: int
    layer: int
    rows: VoteRows


@dataclass(frozen=True)
class Recalled:
    """What a RECALL gave.

    Attributes:
        tokens: selected, ascending, int64, counted from the store's first.
        kv: their keys and values, BF16 bits uint16 [tokens, 2, head_dim].
    """

    tokens: np.ndarray
    kv: np.ndarray


class RecallEngine(Link):
    """STORE and RECALL of one unit (see `Link`) on the stores of a layout."""

    def __init__(self, transport: CommandTransport, layout: StoreLayout) -> None:
        """Sets the windows.

        Raises:
            DriverError: the accelerator refused or did not answer.
            ValueError: the transport leads to no memory.
        """
        if transport.memory is None:
            raise ValueError("stores need a transport with a memory")
        super().__init__(transport)
        self.layout = layout
        self._tokens = [0] * len(layout.headers)
        self._identities = [0] * len(layout.headers)
        self._set_windows(layout.device, layout.host)

    def set_scale(self, scale: Scale) -> None:
        """Sets what scores are multiplied with, for all later commands."""
        self._set({Register.SCALE: scale_to_register(scale)})

    def create(self, store: int, identity: int) -> None:
        """Writes an empty store, whose codes are made as `vrex.model.dre.token_store.identity` says."""
        header = replace(self.layout.headers[store], identity=identity)
        self.transport.write(self.layout.addresses[store], header.pack())
        self._tokens[store], self._identities[store] = 0, identity

    def tokens(self, store: int) -> int:
        """Tokens in a store."""
        return self._tokens[store]

    def store(self, requests: list[StoreRequest], *, sequence: int = 0) -> None:
        """Takes tokens in, all requests in one batch.

        Raises:
            DriverError: the accelerator refused or did not answer, or a store is full.
        """
        batch = [
            commands.store_command(
                self.config,
                Codes(request.codes.words[part], request.codes.scales[part]),
                request.kv[part],
                address=self.layout.addresses[request.store],
                identity=self._identities[request.store],
                tag=self._next_tag(),
                sequence=sequence,
                layer=request.layer,
            )
            for request in requests
            for part in _parts(len(request.kv))
        ]
        self._submit(batch)
        for request in requests:
            self._tokens[request.store] += len(request.kv)

    def recall(self, requests: list[RecallRequest], wanted: int, *, sequence: int = 0) -> list[Recalled]:
        """The tokens with the most votes, with their keys and values, all requests in one batch.

        Args:
            requests: whom to ask.
            wanted: tokens to select of each, 0..65535.
            sequence: stream id in the commands.

        Raises:
            DriverError: the accelerator refused or did not answer.
        """
        batch = [
            commands.recall_command(
                self.config,
                self._tokens[request.store],
                request.rows,
                wanted,
                address=self.layout.addresses[request.store],
                identity=self._identities[request.store],
                tag=self._next_tag(),
                sequence=sequence,
                layer=request.layer,
            )
            for request in requests
        ]
        return [
            Recalled(
                np.flatnonzero(
                    commands.unpack_masks(self.config, outcome.result, self._tokens[request.store], 1)[0]
                ),
                np.frombuffer(outcome.kv, dtype="<u2").reshape(-1, 2, self.config.kvmu.head_dim),
            )
            for request, outcome in zip(requests, self._submit(batch), strict=True)
        ]

    def counters(self) -> dict[str, int]:
        """All counters by name in lower case; 0 of a model, which has no clock."""
        values = self.read_registers(COUNTERS)
        return {register.name.lower(): value for register, value in values.items()}

    def _complaint(self, command: Descriptor, completion: Completion) -> str:
        """See `Link._complaint`."""
        name, unit, layer = self.config.name, self.config.codes, f"layer {command.layer}"
        match completion.status:
            case Status.CAPACITY:
                return (
                    f"{layer} has {command.clusters} coded tokens, but preset {name}'s unit of codes chooses "
                    f"from {unit.tokens} beside {unit.residents} residents; take a larger codes.tokens or "
                    "codes.residents, or shorten the video"
                )
            case Status.BAD_COUNT if command.count > VOTE_ROWS:
                return (
                    f"{layer} asks with {command.count} rows, but a RECALL takes {VOTE_ROWS}; send fewer "
                    "tokens in a chunk"
                )
            case Status.KV_FULL:
                room = self.layout.headers[0].cap_tokens
                return f"a store of {layer} has room for {room} tokens and is full; shorten the video"
            case Status.OTHER_CODES:
                return (
                    f"a store of {layer} holds codes of other planes or another centre; create it anew and "
                    "store its tokens again"
                )
            case Status.BUS_ERROR:
                return f"memory answered a command of {layer} with a bus error; check that the windows exist"
            case Status.TIMEOUT:
                return f"memory did not answer a command of {layer} within {TIMEOUT} cycles; run it again"
            case Status.BAD_ADDRESS:
                return f"a store of {layer} leaves the memory windows; lay the stores out again"
        return super()._complaint(command, completion)


def _parts(tokens: int) -> list[slice]:
    """Tokens cut into as many as a STORE takes."""
    return [slice(first, first + STORE_TOKENS) for first in range(0, tokens, STORE_TOKENS)]
