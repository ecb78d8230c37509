"""The DRE's engine: tables in its memory, arrays in and out, error statuses as messages."""

from dataclasses import dataclass

import numpy as np

from vrex.errors import UserError
from vrex.model import commands
from vrex.model.commands import CommandError, Completion, Descriptor, Opcode, Status
from vrex.model.config import MAX_COUNT, Config
from vrex.model.dre.dre import COUNTERS
from vrex.model.dre.hcu import Clustering
from vrex.model.dre.kvstore import Header, Plan, Table, plan
from vrex.model.lib.memory import PAGE, Memory, Window
from vrex.sw.driver.command_interface import CommandTransport, Outcome, describe
from vrex.sw.driver.link import TIMEOUT, Link
from vrex.sw.driver.transport import DriverError

DEVICE_BASE = 1 << 8
"""First page of the device window; lower pages are not the engine's."""

HOST_BASE = 1 << 24
"""First page of the host window, 64 GiB up, unless the device window reaches that far."""


def new_memory(device: Window, host: Window, what: str, cure: str) -> Memory:
    """Memory of two windows, which takes up what is written to it.

    Args:
        device, host: the windows.
        what: lies in it, for the sentence of the error.
        cure: what to do where the system does not have as much.

    Raises:
        UserError: it does not.
    """
    try:
        return Memory(device, host)
    except MemoryError as error:
        size = (device.pages + host.pages) * PAGE / 2**30
        raise UserError(
            f"the {what} need {size:.1f} GiB, which this machine does not give; {cure}"
        ) from error


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """How much every table of an engine can hold; it does not grow.

    Attributes:
        clusters: 1..65535.
        segments: of `segment_tokens` tokens of one cluster each, >= 1.
        ring: the youngest segments, which stay in the device window (`vrex.model.dre.kvstore.Header`).
        mean_bits: of a mean as scores read it; with 8 or 4 the tables hold a quantised copy.
    """

    clusters: int
    segments: int
    ring: int
    mean_bits: int = 16


@dataclass(frozen=True)
class MemoryLayout:
    """Where the tables of one engine lie.

    Attributes:
        addresses, headers: of every table, empty.
        device, host: windows that hold them all and nothing else.
    """

    addresses: list[int]
    headers: list[Header]
    device: Window
    host: Window

    @classmethod
    def of(
        cls, config: Config, tables: int, heads: int, capacity: Capacity, *, near: bool = False
    ) -> "MemoryLayout":
        """Lays out tables one after the other.

        Args:
            config: accelerator.
            tables: how many.
            heads: KV heads of each.
            capacity: of each.
            near: the host window begins where the device window ends, in one small memory.

        Raises:
            UserError: a size that the engine can't use.
        """

        def planned(host_page: int) -> Plan:
            return plan(
                config,
                heads,
                capacity.clusters,
                capacity.segments,
                capacity.ring,
                host_page,
                capacity.mean_bits,
            )

        try:
            first = planned(0)
        except ValueError as error:
            raise UserError(f"the tables can't be laid out: {error}") from error
        device = Window(DEVICE_BASE, tables * first.device_pages)
        host_base = max(0 if near else HOST_BASE, device.base + device.pages)
        host_pages = [host_base + table * first.host_pages for table in range(tables)]
        plans = [planned(page) for page in host_pages]
        return cls(
            [(device.base + table * first.device_pages) * PAGE for table in range(tables)],
            [made.header for made in plans],
            device,
            Window(host_base, tables * first.host_pages),
        )

    def new_memory(self) -> Memory:
        """Memory for both windows, which takes up what is written to it.

        Raises:
            UserError: the system does not have as much.
        """
        return new_memory(self.device, self.host, "tables", "lower table_segments or table_clusters")


@dataclass(frozen=True)
class AppendRequest:
    """Tokens for one table.

    Attributes:
        table: index.
        layer: decoder layer.
        hashes: hash words, uint32 [n, words], n <= chunk_tokens.
        kv: BF16 bits, uint16 [2, KV heads of the table, n, head_dim]: keys (RoPE applied), then values.
    """

    table: int
    layer: int
    hashes: np.ndarray
    kv: np.ndarray


@dataclass(frozen=True)
class RetrieveRequest:
    """Scores of one table.

    Attributes:
        table: index.
        layer: decoder layer.
        scores: BF16 bits, uint16 [KV heads of the table, rows, C], C >= 1 all clusters of the table.
    """

    table: int
    layer: int
    scores: np.ndarray


@dataclass(frozen=True)
class FetchRequest:
    """Clusters of one table.

    Attributes:
        table: index.
        layer: decoder layer.
        masks: bool [KV heads of the table, C].
    """

    table: int
    layer: int
    masks: np.ndarray


@dataclass(frozen=True)
class Retrieved:
    """What a RETRIEVE gave.

    Attributes:
        masks: bool [KV heads of the table, C], the clusters that any row of the head selects.
        kv: their keys and values, BF16 bits uint16 [tokens, 2, head_dim], head by head, in each by ascending
            number of the segment.
    """

    masks: np.ndarray
    kv: np.ndarray


class DreEngine(Link):
    """APPEND, RETRIEVE and FETCH of one DRE (see `Link`) on the tables of a layout."""

    def __init__(self, transport: CommandTransport, layout: MemoryLayout) -> None:
        """Writes the empty tables and sets the windows.

        Raises:
            DriverError: the accelerator refused or did not answer.
            ValueError: the transport leads to no DRE.
        """
        if transport.memory is None:
            raise ValueError("a DRE engine needs a transport with a memory")
        super().__init__(transport)
        self.memory = transport.memory
        self.layout = layout
        self._set_windows(layout.device, layout.host)
        for address, header in zip(layout.addresses, layout.headers, strict=True):
            transport.write(address, header.pack())

    def table(self, index: int) -> Table:
        """A table as memory holds it now, to be read.

        Raises:
            DriverError: an error struck while it was written.
        """
        try:
            return Table(self.config, self.memory, self.layout.addresses[index])
        except CommandError as error:
            raise DriverError(
                f"table {index} in the accelerator's memory can't be read (status {error.status.name}); "
                "run it again"
            ) from error

    def append(self, requests: list[AppendRequest], *, sequence: int = 0) -> list[Clustering]:
        """Clusters tokens and takes their keys and values in, all requests in one batch.

        Raises:
            DriverError: the accelerator refused or did not answer, or a table is full.
        """
        batch = [
            self._command(
                Opcode.APPEND,
                request,
                sequence,
                commands.to_beats(self.config, commands.hashes_to_bytes(self.config, request.hashes))
                + np.ascontiguousarray(request.kv.transpose(2, 1, 0, 3), dtype="<u2").tobytes(),
                count=len(request.hashes),
            )
            for request in requests
        ]
        return [
            commands.unpack_clustering(outcome.result, len(request.hashes))
            for request, outcome in zip(requests, self._submit(batch), strict=True)
        ]

    def retrieve(self, requests: list[RetrieveRequest], *, sequence: int = 0) -> list[Retrieved]:
        """Selects clusters by scores and delivers their keys and values, all requests in one batch.

        Raises:
            DriverError: the accelerator refused or did not answer.
        """
        batch = []
        for request in requests:
            rows, clusters = request.scores.shape[1:]
            payload = commands.retrieve_payload(self.config, request.scores.reshape(-1, clusters))
            batch.append(
                self._command(Opcode.RETRIEVE, request, sequence, payload, count=rows, clusters=clusters)
            )
        return [
            Retrieved(
                commands.unpack_masks(
                    self.config, outcome.result, request.scores.shape[2], len(request.scores)
                ),
                self._kv(outcome),
            )
            for request, outcome in zip(requests, self._submit(batch), strict=True)
        ]

    def fetch(self, requests: list[FetchRequest], *, sequence: int = 0) -> list[np.ndarray]:
        """Delivers the keys and values of clusters, all requests in one batch.

        Returns:
            For each request what `Retrieved.kv` holds.

        Raises:
            DriverError: the accelerator refused or did not answer.
        """
        batch = [
            self._command(
                Opcode.FETCH,
                request,
                sequence,
                commands.pack_masks(self.config, list(request.masks)),
                clusters=request.masks.shape[1],
            )
            for request in requests
        ]
        return [self._kv(outcome) for outcome in self._submit(batch)]

    def counters(self) -> dict[str, int]:
        """All counters by name in lower case; a model without a clock counts `degenerate_rows` only."""
        values = self.read_registers(COUNTERS)
        return {register.name.lower(): value for register, value in values.items()}

    def _command(
        self,
        opcode: Opcode,
        request: AppendRequest | RetrieveRequest | FetchRequest,
        sequence: int,
        payload: bytes,
        *,
        count: int = 0,
        clusters: int = 0,
    ) -> tuple[Descriptor, bytes]:
        """A command for all KV heads of a table."""
        descriptor = Descriptor(
            opcode,
            self._next_tag(),
            sequence,
            request.layer,
            kv_heads=(1 << self.layout.headers[request.table].heads) - 1,
            count=count,
            clusters=clusters,
            address=self.layout.addresses[request.table],
            length=len(payload),
        )
        return descriptor, payload

    def _kv(self, outcome: Outcome) -> np.ndarray:
        return np.frombuffer(outcome.kv, dtype="<u2").reshape(-1, 2, self.config.kvmu.head_dim)

    def _complaint(self, command: Descriptor, completion: Completion) -> str:
        """What a status other than OK means, in one sentence."""
        header, layer = self.layout.headers[0], f"layer {command.layer}"
        match completion.status:
            case Status.TABLE_FULL:
                return (
                    f"the HC table of {layer} has room for {header.cap_clusters} clusters and is full; "
                    "raise table_clusters or th_hd, or shorten the video"
                )
            case Status.KV_FULL:
                return (
                    f"the KV store of {layer} has room for {header.cap_segments} segments and is full; "
                    "raise table_segments or shorten the video"
                )
            case Status.CLUSTER_FULL:
                return (
                    f"{describe(command)} brings a cluster more tokens than the {MAX_COUNT} it can hold; "
                    "send fewer tokens at once"
                )
            case Status.BUS_ERROR:
                return f"memory answered {describe(command)} with a bus error; check that the windows exist"
            case Status.TIMEOUT:
                return f"memory did not answer {describe(command)} within {TIMEOUT} cycles; run it again"
            case Status.POISONED:
                return f"an earlier error left the table of {layer} half written; run it again"
            case Status.BAD_ADDRESS:
                return (
                    f"{describe(command)} works on a table that leaves the memory windows; "
                    "lay the tables out again"
                )
            case Status.BAD_MASK:
                return f"{describe(command)} names a cluster that the table does not have; check its bitmask"
        return super()._complaint(command, completion)
