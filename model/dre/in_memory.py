"""What HC tables and token stores share: a place in memory, on a page."""

import numpy as np

from vrex.model.commands import CommandError, Status
from vrex.model.config import Config
from vrex.model.lib.memory import PAGE, AccessError, BusError, Memory


class InMemory:
    """Arrays in pages from an address on."""

    def __init__(self, config: Config, memory: Memory, address: int) -> None:
        """What lies at an address.

        Raises:
            CommandError: BAD_ADDRESS, where it is no page's.
        """
        self.config, self.memory, self.address = config, memory, address
        if address % PAGE:
            raise CommandError(Status.BAD_ADDRESS)

    def _at(self, page: int) -> int:
        """First byte of a page, counted from the first one."""
        return self.address + page * PAGE

    def _view(self, address: int, size: int) -> np.ndarray:
        """The bytes themselves, uint8 [size].

        Raises:
            CommandError: BAD_ADDRESS or BUS_ERROR.
        """
        try:
            return self.memory.view(address, size)
        except AccessError:
            raise CommandError(Status.BAD_ADDRESS) from None
        except BusError:
            raise CommandError(Status.BUS_ERROR) from None

    def _write(self, address: int, data: bytes) -> None:
        self._view(address, len(data))[:] = np.frombuffer(data, dtype=np.uint8)
