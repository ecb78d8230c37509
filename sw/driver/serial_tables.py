"""Tables in a board's memory, so that an APPEND happens once even if the board is reset in the middle."""

from collections.abc import Iterable

from vrex.model.commands import CommandError, Descriptor, Opcode, Status, unpack_clustering
from vrex.model.config import Config
from vrex.model.dre.kvstore import HEADER_BYTES, MAP_BYTES, Header, Table
from vrex.model.lib.memory import PAGE, AccessError
from vrex.model.serial.memory import MOST_BYTES, Access
from vrex.sw.driver.command_interface import Batch, Results
from vrex.sw.driver.serial_memory import BoardMemory, run_accesses
from vrex.sw.driver.serial_session import SerialSession
from vrex.sw.driver.transport import DriverError

Saved = list[tuple[int, bytes]]
"""Addresses, and what was there."""


def _appends(batch: Batch) -> Iterable[Descriptor]:
    return (command for command, _ in batch if command.opcode == Opcode.APPEND)


class BoardTables:
    """What APPENDs change in a board's memory: saved before, put back after a reset, forgotten afterwards.

    An APPEND that was cut off may have written some of its clusters and not others, and one whose completion
    was lost would come twice. So what is not its table's K and V is put back as it was before, and the APPEND
    sent again; the K and V that it wrote are in slots that such a table does not use yet.
    """

    def __init__(self, config: Config, memory: BoardMemory, session: SerialSession) -> None:
        self._config, self._memory, self._session = config, memory, session
        # By address; of a table that can't be read nothing, its APPEND being refused.
        self._saved: dict[int, Saved] = {}
        self._headers: dict[int, Header] = {}
        self._started = False

    def parts(self, sent: Batch) -> list[Batch]:
        """A batch in parts, in none of which two commands append to one table."""
        parts: list[Batch] = [[]]
        changed: set[int] = set()
        for command, payload in sent:
            if command.opcode == Opcode.APPEND:
                if command.address in changed:
                    parts.append([])
                    changed.clear()
                changed.add(command.address)
            parts[-1].append((command, payload))
        return parts

    def save(self, batch: Batch) -> None:
        """Reads what the APPENDs of a part may change, as far as it is not known.

        Raises:
            DriverError: the board does not give it.
        """
        self._saved, self._started = {}, False
        addresses = [command.address for command in _appends(batch)]
        inside = [address for address in addresses if self._is_inside(address)]
        self._memory.fetch((address, HEADER_BYTES) for address in inside)
        spans = {address: spans for address in inside if (spans := self._spans(address))}
        self._memory.fetch(span for each in spans.values() for span in each)
        for address, each in spans.items():
            self._saved[address] = [(first, self._memory.view(first, size).tobytes()) for first, size in each]
            self._headers[address] = Header.unpack(self._saved[address][0][1])

    def put_back(self, batch: Batch) -> None:
        """Writes what was saved for the APPENDs of a batch that are sent again; nothing the first time.

        Raises:
            DriverError: the board does not take it.
            BoardResetError: it was reset once more.
        """
        again, self._started = self._started, True
        if not again:
            return
        saved = [each for command in _appends(batch) for each in self._saved.get(command.address, [])]
        writes = [
            (Access(address + first, len(part), 1), part)
            for address, data in saved
            for first in range(0, len(data), MOST_BYTES)
            if (part := data[first : first + MOST_BYTES])
        ]
        if writes:
            run_accesses(self._session, writes)

    def changed(self, batch: Batch, answer: Results) -> None:
        """Forgets what the APPENDs of a batch, which have completed, have changed."""
        for (command, _), outcome in zip(batch, answer, strict=True):
            if command.opcode != Opcode.APPEND or command.address not in self._saved:
                continue
            table = Table(self._config, self._memory, command.address)
            if outcome.completion.status != Status.OK:
                # It leaves the table as it was, or says in the header that it does not.
                self._memory.forget(command.address, HEADER_BYTES)
                continue
            decisions = unpack_clustering(outcome.result, command.count)
            for first, size in table.cluster_arrays():
                for cluster in set(decisions.cluster.tolist()):
                    self._memory.forget(first + cluster * size, size)
            segments = (table.header.segments + command.count) * MAP_BYTES
            first_entry = table.address + table.header.map_page * PAGE
            self._memory.forget(first_entry, min(segments, table.header.cap_segments * MAP_BYTES))
            self._memory.forget(command.address, HEADER_BYTES)

    def forget(self) -> None:
        """Something was given up, so nothing is known of the memory."""
        self._memory.forget_all()

    def check_memory(self) -> None:
        """Sees after a reset that the tables are still there.

        Raises:
            DriverError: they are not, or the board does not answer.
            BoardResetError: it was reset once more.
        """
        reads = [(Access(address, HEADER_BYTES), b"") for address in self._headers]
        for before, data in zip(self._headers.values(), run_accesses(self._session, reads), strict=True):
            now = Header.unpack(data)
            if _places(now) != _places(before):
                raise DriverError(
                    f"the board at {self._session.name} has lost the tables in its memory, as without power; "
                    "start again"
                )

    def _is_inside(self, address: int) -> bool:
        return any(window.holds(address, HEADER_BYTES) for window in (self._memory.device, self._memory.host))

    def _spans(self, address: int) -> list[tuple[int, int]]:
        """What an APPEND may change of a table; nothing if there is none that can be read."""
        try:
            spans = Table(self._config, self._memory, address).spans()
            for span in spans:
                self._memory.check(*span)
        except (CommandError, AccessError):
            return []
        return spans


def _places(header: Header) -> tuple[int, ...]:
    """What of a header no command changes."""
    own = ("clusters", "segments", "tokens", "flags")
    return tuple(value for name, value in vars(header).items() if name not in own)
