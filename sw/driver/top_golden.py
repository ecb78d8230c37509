"""Golden cores behind the registers of a chip."""

from vrex.model.config import Config
from vrex.model.core.top import (
    BUSY,
    ENABLE,
    IRQ,
    PAGE_BYTES,
    TOP_REGISTERS,
    WORD_CORES,
    TopRegister,
    complete,
    cores_word,
)
from vrex.model.lib.memory import Memory
from vrex.sw.driver.core import CoreReport
from vrex.sw.driver.core_golden import GoldenCoreTransport
from vrex.sw.driver.transport import DriverError


class GoldenTopTransport:
    """Executes jobs on golden cores when their bells ring (see `CoreTransport`), by addresses of the chip."""

    def __init__(self, config: Config, memory: Memory) -> None:
        """A chip as after reset.

        Args:
            config: accelerator.
            memory: what its AXI4 ports reach.

        Raises:
            ValueError: the configuration makes no chip.
        """
        config.check_top()
        self.config, self.memory = config, memory
        self.report = CoreReport()
        self._cores_word = cores_word(config)
        self._cores = [GoldenCoreTransport(config, memory) for _ in range(config.cores)]
        for core in self._cores:
            core.allow(False)

    def read_register(self, address: int) -> int:
        """See `CoreTransport`."""
        page, offset = divmod(address, PAGE_BYTES)
        if page:
            return self._core(page).read_register(offset)
        register = self._register(offset)
        if register in IRQ:
            return self._word(IRQ.index(register), [core.irq for core in self._cores])
        if register in ENABLE:
            return self._word(ENABLE.index(register), [core.allowed for core in self._cores])
        if register in BUSY:
            # A golden core ends every job that it takes at once, unless it waits at a BARRIER.
            return self._word(BUSY.index(register), [core.waits > 0 for core in self._cores])
        return self._cores_word if register == TopRegister.CORES else TOP_REGISTERS[register].reset

    def write_register(self, address: int, value: int) -> None:
        """See `CoreTransport`."""
        page, offset = divmod(address, PAGE_BYTES)
        if page:
            self._core(page).write_register(offset, value)
            self._meet()
            return
        register = self._register(offset)
        if register not in ENABLE:
            raise DriverError(f"register {register.name} of the chip can't be written; it is read-only")
        first = WORD_CORES * ENABLE.index(register)
        for bit, core in enumerate(self._cores[first : first + WORD_CORES]):
            core.allow(bool(value >> bit & 1))
        self._meet()

    def wait(self) -> None:
        """See `CoreTransport`; all that is to do is done when a bell has rung.

        While the host waits, nobody comes to a BARRIER any more, so who waits there is STALLED.
        """
        if not any(core.irq for core in self._cores):
            for core in self._cores:
                if core.waits:
                    core.stall()
        if not any(core.irq for core in self._cores):
            raise DriverError("no core of the chip has a job to end; ring a bell first")

    def close(self) -> None:
        """See `CoreTransport`."""

    def _meet(self) -> None:
        """Lets go those whose group is complete."""
        while firsts := complete([core.waits for core in self._cores]):
            for first in firsts:
                for core in self._cores[first : first + self._cores[first].waits]:
                    core.go_on()

    def _core(self, page: int) -> GoldenCoreTransport:
        if page > len(self._cores):
            raise DriverError(f"the chip has {len(self._cores)} cores, so page {page} has no registers")
        return self._cores[page - 1]

    @staticmethod
    def _register(offset: int) -> TopRegister:
        if offset not in list(TopRegister):
            raise DriverError(f"the chip has no register at {offset:#x}; see the table of registers")
        return TopRegister(offset)

    @staticmethod
    def _word(number: int, bits: list[bool]) -> int:
        chosen = bits[WORD_CORES * number : WORD_CORES * (number + 1)]
        return sum(bit << place for place, bit in enumerate(chosen))
