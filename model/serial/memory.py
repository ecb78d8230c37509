"""Accesses of the host to a board's memory and registers, without a clock (RTL `vrex.hw.serial.memory`).

The host sends an `ACCESS`, and behind that of a write its data: the bus beats that hold the bytes, in place;
their other bytes stay as they are in memory. Of a read the board gives those beats, and of either one an
`END`. Accesses are executed one after the other, in no order with the unit's commands.

Of a core the registers lie behind the memory, one in the lowest bytes of each beat (`register_address`). A
write that does not hold all bytes of a register is refused by it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import numpy as np

from vrex.model.lib.layout import Field, Layout
from vrex.model.lib.memory import PAGE, BusError

MOST_BYTES = PAGE
"""Of one access; a longer one is refused, so that the hardware's counters are short."""

REGISTER_BYTES = 4
REGISTERS = PAGE // REGISTER_BYTES
"""Beats of the registers: those of the page that a core's AXI4-Lite port has."""

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


class Registers(Protocol):
    """A core's AXI4-Lite port."""

    def read_register(self, address: int) -> int:
        """A register; raises `BusError` for SLVERR."""
        ...

    def write_register(self, address: int, value: int) -> None:
        """See `read_register`."""
        ...


def register_address(address: int, memory_bytes: int, bus_bytes: int) -> int:
    """Where the host finds a register.

    Args:
        address: of the register at its AXI4-Lite port.
        memory_bytes: size of the memory, which begins at address 0.
        bus_bytes: of a beat.
    """
    return memory_bytes + address // REGISTER_BYTES * bus_bytes


class AccessStatus(IntEnum):
    """How an access ended.

    BAD_LENGTH: no bytes, or more than `MOST_BYTES`. BAD_ADDRESS: not all of them are in the memory, or in the
    registers. Neither changes or gives anything; the data of such a write are thrown away. BUS_ERROR: memory
    or registers answered SLVERR or DECERR for some of the beats, of which a read gave what came.
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

    def status(self, memory_bytes: int, register_bytes: int = 0) -> AccessStatus:
        """What is wrong with it before memory is asked.

        Args:
            memory_bytes: size of the memory, which begins at address 0.
            register_bytes: of the registers behind it, 0: there are none.
        """
        if not 1 <= self.size <= MOST_BYTES:
            return AccessStatus.BAD_LENGTH
        start, stop = self.address, self.address + self.size
        if stop <= memory_bytes or (memory_bytes <= start and stop <= memory_bytes + register_bytes):
            return AccessStatus.OK
        return AccessStatus.BAD_ADDRESS


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
    access: Access,
    data: bytes,
    view: Callable[[int, int], np.ndarray],
    memory_bytes: int,
    bus_bytes: int,
    registers: Registers | None = None,
) -> tuple[End, bytes]:
    """Runs one access.

    Args:
        access: it.
        data: of a write, `access.beats` whole beats.
        view: the bytes of a beat by address and size, uint8 [size]; raises `BusError` where there is
            none.
        memory_bytes: size of the memory, which begins at address 0.
        bus_bytes: of a beat.
        registers: behind the memory, if there are any.

    Returns:
        Its end, and of a read whole beats, zeros for those that were not given.
    """
    status = access.status(memory_bytes, 0 if registers is None else REGISTERS * bus_bytes)
    if status != AccessStatus.OK:
        return End(access.tag, status), b""
    offset, beats = access.offset(bus_bytes), access.beats(bus_bytes)
    given = b""
    for beat in range(beats):
        at = access.address - offset + beat * bus_bytes
        span = slice(offset if beat == 0 else 0, min(bus_bytes, access.address + access.size - at))
        new = data[beat * bus_bytes : (beat + 1) * bus_bytes][span] if access.write else None
        try:
            if at < memory_bytes or registers is None:
                content = _memory_beat(view(at, bus_bytes), span, new)
            else:
                number = (at - memory_bytes) // bus_bytes
                content = _register(registers, number * REGISTER_BYTES, span, new).ljust(bus_bytes, b"\0")
        except BusError:
            status, content = AccessStatus.BUS_ERROR, bytes(bus_bytes)
        given += b"" if access.write else content
    return End(access.tag, status, 0 if access.write else beats), given


def _memory_beat(content: np.ndarray, span: slice, new: bytes | None) -> bytes:
    """Reads a beat of memory, or writes some of its bytes."""
    if new is not None:
        content[span] = np.frombuffer(new, dtype=np.uint8)
    return content.tobytes()


def _register(registers: Registers, address: int, span: slice, new: bytes | None) -> bytes:
    """Reads a register, or writes it if the bytes hold all of it.

    Raises:
        BusError: there is no such register, or it can't be written so.
    """
    if new is None:
        return registers.read_register(address).to_bytes(REGISTER_BYTES, "little")
    if span.start > 0 or span.stop < REGISTER_BYTES:
        raise BusError
    registers.write_register(address, int.from_bytes(new[:REGISTER_BYTES], "little"))
    return b""
