"""Accesses to a board's memory against slices of it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrex.model.lib.memory import BusError
from vrex.model.serial.memory import (
    ACCESS,
    END,
    MOST_BYTES,
    REGISTERS,
    Access,
    AccessStatus,
    End,
    execute,
    register_address,
)

SIZE = 1 << 13
BUS_BYTES = 8


def run(access: Access, content: np.ndarray, data: bytes = b"") -> tuple[End, bytes]:
    return execute(access, data, lambda at, size: content[at : at + size], SIZE, BUS_BYTES)


def test_sizes_of_the_words() -> None:
    assert (ACCESS.size, END.size) == (16, 8)
    access = Access(0x123456789A, 77, 1, 5)
    assert Access.unpack(access.pack()) == access
    end = End(5, AccessStatus.BUS_ERROR, 9)
    assert End.unpack(end.pack()) == end


@given(st.integers(0, SIZE - 1), st.integers(1, 300))
def test_what_is_written_is_read_and_nothing_else_changes(address: int, size: int) -> None:
    size = min(size, SIZE - address)
    content = np.arange(SIZE, dtype=np.uint32).astype(np.uint8)
    before = content.copy()
    fresh = np.random.default_rng(size).bytes(size)
    write = Access(address, size, 1, 3)
    beats, offset = write.beats(BUS_BYTES), write.offset(BUS_BYTES)
    data = (b"\xee" * offset + fresh).ljust(beats * BUS_BYTES, b"\xdd")
    assert run(write, content, data) == (End(3), b"")
    assert content[address : address + size].tobytes() == fresh
    outside = np.ones(SIZE, dtype=bool)
    outside[address : address + size] = False
    assert (content[outside] == before[outside]).all()
    end, given_beats = run(Access(address, size, 0, 4), content)
    assert end == End(4, AccessStatus.OK, beats)
    assert given_beats[offset : offset + size] == fresh


@pytest.mark.parametrize("write", [0, 1])
@pytest.mark.parametrize(
    ("address", "size", "status"),
    [
        (0, 0, AccessStatus.BAD_LENGTH),
        (0, MOST_BYTES, AccessStatus.OK),
        (0, MOST_BYTES + 1, AccessStatus.BAD_LENGTH),
        (SIZE - 4, 4, AccessStatus.OK),
        (SIZE - 4, 5, AccessStatus.BAD_ADDRESS),
        (1 << 40, 1, AccessStatus.BAD_ADDRESS),
    ],
)
def test_what_is_refused(address: int, size: int, status: AccessStatus, write: int) -> None:
    content = np.zeros(SIZE, dtype=np.uint8)
    end, beats = run(Access(address, size, write), content, bytes([1]) * (MOST_BYTES + BUS_BYTES))
    assert end.status == status
    if status != AccessStatus.OK:
        assert (end.beats, beats, content.any()) == (0, b"", False)


def test_a_bus_error_in_the_middle() -> None:
    content = np.arange(SIZE, dtype=np.uint32).astype(np.uint8)

    def view(at: int, size: int) -> np.ndarray:
        if at == 8:
            raise BusError
        return content[at : at + size]

    end, beats = execute(Access(4, 16, 0, 1), b"", view, SIZE, BUS_BYTES)
    assert end == End(1, AccessStatus.BUS_ERROR, 3)
    assert beats == bytes(range(8)) + bytes(8) + bytes(range(16, 24))
    end, beats = execute(Access(4, 16, 1, 2), b"\xff" * 24, view, SIZE, BUS_BYTES)
    assert (end, beats) == (End(2, AccessStatus.BUS_ERROR), b"")
    assert content[:24].tobytes() == bytes(range(4)) + b"\xff" * 4 + bytes(
        range(8, 16)
    ) + b"\xff" * 4 + bytes(range(20, 24))


class SomeRegisters:
    """Those at 0x10 and 0x14, of which the latter can't be written."""

    def __init__(self) -> None:
        self.values = {0x10: 0x01020304, 0x14: 0xA0B0C0D0}

    def read_register(self, address: int) -> int:
        if address not in self.values:
            raise BusError
        return self.values[address]

    def write_register(self, address: int, value: int) -> None:
        if address != 0x10:
            raise BusError
        self.values[address] = value


def on_registers(
    access: Access, data: bytes = b"", registers: SomeRegisters | None = None
) -> tuple[End, bytes]:
    content = np.zeros(SIZE, dtype=np.uint8)
    found = execute(
        access, data, lambda at, size: content[at : at + size], SIZE, BUS_BYTES, registers or SomeRegisters()
    )
    assert not content.any()
    return found


def test_registers_lie_behind_the_memory_one_a_beat() -> None:
    place = register_address(0x10, SIZE, BUS_BYTES)
    assert place == SIZE + 4 * BUS_BYTES
    end, beats = on_registers(Access(place, 2 * BUS_BYTES, 0, 1))
    assert end == End(1, AccessStatus.OK, 2)
    assert beats == bytes([4, 3, 2, 1, 0, 0, 0, 0, 0xD0, 0xC0, 0xB0, 0xA0, 0, 0, 0, 0])
    registers = SomeRegisters()
    assert on_registers(Access(place, 4, 1, 2), b"\1\2\3\4\5\6\7\10", registers) == (End(2), b"")
    assert registers.values == {0x10: 0x04030201, 0x14: 0xA0B0C0D0}


@pytest.mark.parametrize(
    ("at", "size", "write"), [(0x18, 4, 0), (0x14, 4, 1), (0x18, 4, 1), (0x10, 3, 1), (0x10, 1, 1)]
)
def test_what_a_register_refuses(at: int, size: int, write: int) -> None:
    registers = SomeRegisters()
    before = dict(registers.values)
    end, _ = on_registers(Access(register_address(at, SIZE, BUS_BYTES), size, write), bytes(8), registers)
    assert end.status == AccessStatus.BUS_ERROR
    assert registers.values == before


@pytest.mark.parametrize(
    ("address", "size", "status"),
    [
        (SIZE - 8, 16, AccessStatus.BAD_ADDRESS),
        (SIZE + (REGISTERS - 1) * BUS_BYTES, 8, AccessStatus.BUS_ERROR),
        (SIZE + (REGISTERS - 1) * BUS_BYTES, 9, AccessStatus.BAD_ADDRESS),
        (SIZE + REGISTERS * BUS_BYTES, 4, AccessStatus.BAD_ADDRESS),
        (2 * SIZE, 4, AccessStatus.BAD_ADDRESS),
    ],
)
def test_the_ends_of_memory_and_registers(address: int, size: int, status: AccessStatus) -> None:
    assert on_registers(Access(address, size))[0].status == status
