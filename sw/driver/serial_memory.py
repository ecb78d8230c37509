"""The memory of a board behind a serial port (`vrex.model.serial.memory`)."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from vrex.model.lib.memory import Memory, Window
from vrex.model.serial.frames import PAYLOAD_BYTES, Kind
from vrex.model.serial.memory import END, MOST_BYTES, Access, AccessStatus, End
from vrex.sw.driver.serial_session import SerialSession
from vrex.sw.driver.transport import DriverError


class RefusedError(DriverError):
    """A board refused an access, or what it goes to answered with an error."""


BLOCK = 64
"""Bytes that are read and forgotten together; divides a page."""

Span = tuple[int, int]
"""First byte and size."""


def run_accesses(session: SerialSession, accesses: Sequence[tuple[Access, bytes]]) -> list[bytes]:
    """Executes accesses to a board's memory.

    Args:
        session: with the board.
        accesses: with what the writes among them write. Of each, `tag` is set here.

    Returns:
        What each read; nothing of a write.

    Raises:
        DriverError: the board does not answer, or is out of step.
        RefusedError: it refused one.
        BoardResetError: it was reset in the middle.
    """
    size = session.capabilities.bus_bytes
    tagged = [
        Access(access.address, access.size, access.write, tag) for tag, (access, _) in enumerate(accesses)
    ]
    requests = b""
    for access, (_, data) in zip(tagged, accesses, strict=True):
        requests += access.pack()
        # Behind a write come its data, so no other access may stand between.
        if access.write or len(requests) == PAYLOAD_BYTES:
            session.put(Kind.ACCESS, requests)
            requests = b""
        if access.write:
            beats = (bytes(access.offset(size)) + data).ljust(access.beats(size) * size, b"\0")
            for first in range(0, len(beats), PAYLOAD_BYTES):
                session.put(Kind.DATA, beats[first : first + PAYLOAD_BYTES])
    if requests:
        session.put(Kind.ACCESS, requests)
    while session.count(Kind.END) < len(tagged) * END.size or session.unsent:
        session.exchange()
        session.see_life(_describe(tagged[min(session.count(Kind.END) // END.size, len(tagged) - 1)]))
    return _answers(session, tagged, session.take(Kind.END), session.take(Kind.READ))


def _answers(session: SerialSession, accesses: list[Access], ends: bytes, beats: bytes) -> list[bytes]:
    """What each access read, out of the board's streams."""
    size, found, first = session.capabilities.bus_bytes, [], 0
    for number, access in enumerate(accesses):
        end = End.unpack(ends[number * END.size : (number + 1) * END.size])
        if end.tag != access.tag:
            raise DriverError(
                f"the board at {session.name} answered {_describe(access)} with the tag {end.tag}: host and "
                "board are out of step, so open it again"
            )
        if end.status != AccessStatus.OK:
            raise RefusedError(_complaint(session, access, end.status))
        given = beats[first : first + end.beats * size]
        first += end.beats * size
        found.append(given[access.offset(size) :][: access.size] if not access.write else b"")
        if not access.write and len(found[-1]) != access.size:
            raise DriverError(
                f"the board at {session.name} gave {len(given)} bytes for {_describe(access)}: its Verilog "
                f"is at fault, so run vrex link --selftest {session.name}"
            )
    return found


def _describe(access: Access) -> str:
    kind = "write" if access.write else "read"
    return f"a {kind} of {access.size} bytes at {access.address:#x}"


def _complaint(session: SerialSession, access: Access, status: int) -> str:
    """What a status other than OK means, in one sentence."""
    start = f"the board at {session.name} refused {_describe(access)}"
    match status:
        case AccessStatus.BAD_LENGTH:
            return f"{start}: an access has 1 to {MOST_BYTES} bytes; cut it into several"
        case AccessStatus.BAD_ADDRESS:
            return (
                f"{start}: its memory has {session.capabilities.memory} bytes; lay the tables out within them"
            )
        case AccessStatus.BUS_ERROR:
            return f"memory of the board at {session.name} answered {_describe(access)} with a bus error"
    return f"{start} with status {status}; compare it with vrex.model.serial.memory"


class BoardMemory(Memory):
    """Two windows of a board's memory.

    What was read or written stays here until it is forgotten, so that nothing goes over the line twice that
    the board has not changed. Whoever lets the board change it says so with `forget`.
    """

    def __init__(
        self, device: Window, host: Window, access: Callable[[Sequence[tuple[Access, bytes]]], list[bytes]]
    ) -> None:
        """Of which nothing is known yet.

        Args:
            device, host: windows.
            access: executes accesses, as `run_accesses`.
        """
        super().__init__(device, host)
        self._access = access
        self._known = [np.zeros(len(content) // BLOCK, dtype=bool) for _, content in self._parts]

    def view(self, address: int, size: int) -> np.ndarray:
        """The bytes as they were read last, uint8 [size], not to be written to.

        Raises:
            AccessError: they are not inside one window.
            DriverError: the board does not give them.
        """
        content = super().view(address, size)
        self.fetch([(address, size)])
        content.flags.writeable = False
        return content

    def check(self, address: int, size: int) -> None:
        """Sees that bytes are inside one window.

        Raises:
            AccessError: they are not.
        """
        super().view(address, size)

    def fetch(self, spans: Iterable[Span]) -> None:
        """Reads what of some spans is not known, all at once (see `view`)."""
        missing = dict.fromkeys(run for span in spans for run in self._missing(*span))
        reads = [Access(start, size) for start, size in missing]
        if not reads:
            return
        for access, data in zip(reads, self._access([(each, b"") for each in reads]), strict=True):
            super().view(access.address, access.size)[:] = np.frombuffer(data, dtype=np.uint8)
            self._mark(access.address, access.size, True)

    def read(self, address: int, size: int) -> bytes:
        """The bytes as they are now (see `view`)."""
        self.forget(address, size)
        return self.view(address, size).tobytes()

    def write(self, address: int, data: bytes) -> None:
        """Replaces bytes, there and here (see `view`)."""
        content = super().view(address, len(data))
        spans = [(first, data[first : first + MOST_BYTES]) for first in range(0, len(data), MOST_BYTES)]
        self._access([(Access(address + first, len(part), 1), part) for first, part in spans])
        content[:] = np.frombuffer(data, dtype=np.uint8)
        # Blocks that were written in part are known only if they were before.
        start = -(-address // BLOCK) * BLOCK
        stop = (address + len(data)) // BLOCK * BLOCK
        if start < stop:
            self._mark(start, stop - start, True)

    def forget(self, address: int, size: int) -> None:
        """The board may have changed these bytes, or will; those outside the windows are ignored."""
        if size and any(window.holds(address, size) for window, _ in self._parts):
            self._mark(address, size, False)

    def forget_all(self) -> None:
        """The board may have changed anything."""
        for known in self._known:
            known[:] = False

    def _blocks(self, address: int, size: int) -> tuple[int, np.ndarray]:
        """First byte of the blocks that hold bytes of a window, and which of them are known; a view."""
        for (window, _), known in zip(self._parts, self._known, strict=True):
            if window.holds(address, size):
                first = (address - window.start) // BLOCK
                stop = -(-(address + size - window.start) // BLOCK)
                return window.start + first * BLOCK, known[first:stop]
        raise AssertionError(f"{size} bytes at {address:#x} are in no window")

    def _mark(self, address: int, size: int, known: bool) -> None:
        self._blocks(address, size)[1][:] = known

    def _missing(self, address: int, size: int) -> list[Span]:
        """Runs of blocks that are not known, each as long as an access may be at most."""
        if not size:
            return []
        start, known = self._blocks(address, size)
        edges = np.flatnonzero(np.diff(np.concatenate([[True], known, [True]]))).reshape(-1, 2)
        most = MOST_BYTES // BLOCK
        return [
            (start + first * BLOCK, (min(first + most, stop) - first) * BLOCK)
            for begin, stop in edges.tolist()
            for first in range(begin, stop, most)
        ]
