"""Memory behind the AXI port: a device window and a host window, byte for byte."""

from copy import copy
from dataclasses import dataclass

import numpy as np

PAGE = 4096
"""Bytes of a page, the unit of bases and sizes; no AXI burst crosses one (AMBA AXI4, A3.4.1)."""


class AccessError(Exception):
    """An access that the engine's windows do not allow."""


class BusError(Exception):
    """An access that memory answers with DECERR."""


@dataclass(frozen=True)
class Window:
    """A range of the address space, in pages.

    Attributes:
        base: first page.
        pages: number of pages; 0 is an empty window.
    """

    base: int
    pages: int

    @property
    def start(self) -> int:
        """First byte."""
        return self.base * PAGE

    @property
    def stop(self) -> int:
        """Byte behind the last one."""
        return (self.base + self.pages) * PAGE

    def holds(self, address: int, size: int) -> bool:
        """Whether all bytes lie inside."""
        return self.start <= address and address + size <= self.stop


class Memory:
    """Bytes of two ranges, zero at first, seen through an engine's windows.

    Attributes:
        device, host: what there is.
    """

    def __init__(self, device: Window, host: Window) -> None:
        self.device, self.host = device, host
        # The system gives zero pages when they are first touched.
        self._parts = [(window, np.zeros(window.pages * PAGE, dtype=np.uint8)) for window in (device, host)]
        self._allowed = (device, host)

    def seen_through(self, device: Window, host: Window) -> "Memory":
        """The same bytes, as far as an engine with these windows may touch them."""
        seen = copy(self)
        seen._allowed = (device, host)
        return seen

    def view(self, address: int, size: int) -> np.ndarray:
        """The bytes themselves, uint8 [size].

        Raises:
            AccessError: they are not inside one window.
            BusError: they are, but nothing is there.
        """
        if not any(window.holds(address, size) for window in self._allowed):
            raise AccessError(f"{size} bytes at {address:#x} are in no window")
        for window, content in self._parts:
            if window.holds(address, size):
                return content[address - window.start : address - window.start + size]
        raise BusError(f"nothing is at {address:#x}")

    def read(self, address: int, size: int) -> bytes:
        """A copy of the bytes (see `view`)."""
        return self.view(address, size).tobytes()

    def write(self, address: int, data: bytes) -> None:
        """Replaces bytes (see `view`)."""
        self.view(address, len(data))[:] = np.frombuffer(data, dtype=np.uint8)
