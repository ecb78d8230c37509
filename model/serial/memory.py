"""Accesses of the host to a board's memory, without a clock (RTL `vrex.hw.serial.memory`).

The host sends an `ACCESS`, and behind that of a write its data: the bus beats that hold the bytes, in place;
their other bytes stay as they are in memory. Of a read the board gives those beats, and of either one an
`END`. Accesses are executed one after the other, in no order with the unit's commands.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from vrex.model.lib.layout import Field, Layout
from vrex.model.lib.memory import PAGE, BusError

MOST_BYTES = PAGE
"""Of one access; a longer one is refused, so that the hardware's counters are short."""

ACCESS = Layout(
    "ACCESS",
    (
        Field("address", 64, "of the first byte"),
        Field("size", 32, "1 to 4,096 bytes"),
        Field("write", 8, "1: data follow; 0: a read"),
        Field("reserved", 8),
        Field("tag", 16, "returned in the end"),
    ),
)
"""What the host wants of memory: 16 bytes."""

END = Layout(
    "END",
    (
        Field("tag", 16, "the access's"),
        Field("status", 8, "see `AccessStatus`"),
        Field("reserved", 8),
        Field("beats", 32, "that a read gave"),
    ),
)
"""The end of an access: 8 bytes."""


class AccessStatus(IntEnum):
    """How an access ended.

    BAD_LENGTH: no bytes, or more than `MOST_BYTES`. BAD_ADDRESS: not all of them are in the memory. Neither
    changes or gives anything; the data of such a write are thrown away. BUS_ERROR: memory answered SLVERR or
    DECERR for some of the beats, of which a read gave what came.
    """

    OK = 0
    BAD_LENGTH = 1
    BAD_ADDRESS = 2
    BUS_ERROR = 3


@dataclass(frozen=True)
class Access:
    """What the host wants: the fields of `ACCESS`."""

    address: int
    size: int
    write: int = 0
    tag: int = 0

    def pack(self) -> bytes:
        """16 bytes.

        Raises:
            struct.error: a field does not fit.
        """
        return ACCESS.pack(vars(self))

    @classmethod
    def unpack(cls, data: bytes) -> "Access":
        """Inverse of `pack`."""
        return cls(**ACCESS.unpack(data))

    def offset(self, bus_bytes: int) -> int:
        """Place of the first byte in the first beat."""
        return self.address % bus_bytes

    def beats(self, bus_bytes: int) -> int:
        """Bus beats that hold the bytes."""
        return -(-(self.offset(bus_bytes) + self.size) // bus_bytes)

    def status(self, memory_bytes: int) -> AccessStatus:
        """What is wrong with it before memory is asked.

        Args:
            memory_bytes: size of the memory, which begins at address 0.
        """
        if not 1 <= self.size <= MOST_BYTES:
            return AccessStatus.BAD_LENGTH
        if self.address + self.size > memory_bytes:
            return AccessStatus.BAD_ADDRESS
        return AccessStatus.OK


@dataclass(frozen=True)
class End:
    """How an access ended: the fields of `END`."""

    tag: int
    status: int = AccessStatus.OK
    beats: int = 0

    def pack(self) -> bytes:
        """8 bytes; errors as `Access.pack`."""
        return END.pack(vars(self))

    @classmethod
    def unpack(cls, data: bytes) -> "End":
        """Inverse of `pack`."""
        return cls(**END.unpack(data))


def execute(
    access: Access, data: bytes, view: Callable[[int, int], np.ndarray], memory_bytes: int, bus_bytes: int
) -> tuple[End, bytes]:
    """Runs one access.

    Args:
        access: it.
        data: of a write, `access.beats` whole beats.
        view: the bytes of a beat by address and size, uint8 [size]; raises `BusError` where there is
            none.
        memory_bytes: size of the memory, which begins at address 0.
        bus_bytes: of a beat.

    Returns:
        Its end, and of a read whole beats, zeros for those that memory did not give.
    """
    status = access.status(memory_bytes)
    if status != AccessStatus.OK:
        return End(access.tag, status), b""
    offset, beats = access.offset(bus_bytes), access.beats(bus_bytes)
    given = b""
    for beat in range(beats):
        at = access.address - offset + beat * bus_bytes
        first = offset if beat == 0 else 0
        stop = min(bus_bytes, access.address + access.size - at)
        try:
            content = view(at, bus_bytes)
        except BusError:
            status = AccessStatus.BUS_ERROR
            given += bytes(0 if access.write else bus_bytes)
            continue
        if access.write:
            start = beat * bus_bytes
            content[first:stop] = np.frombuffer(data[start + first : start + stop], dtype=np.uint8)
        else:
            given += content.tobytes()
    return End(access.tag, status, 0 if access.write else beats), given
