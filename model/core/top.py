"""The chip: several cores on one memory, and the registers that say which of them work (paper Table I)."""

from collections import deque
from collections.abc import Sequence
from enum import IntEnum

from vrex.model.config import MOST_CORES, Config
from vrex.model.core.core import Core, Job, JobEnd, Limits, Running
from vrex.model.core.registers import RegisterInfo
from vrex.model.lib.memory import Memory

ID = 0x50_4F_54_56
"""Value of the register ID: `VTOP` in ASCII, little-endian."""

VERSION = 0x0001_0000
"""Value of the register VERSION: major number in the upper half, minor in the lower."""

PAGE_BYTES = 4096
"""Of the registers of the chip itself, which come first, and of those of each core behind them."""

WORD_CORES = 32
"""Cores with a bit in one register."""

WORDS = MOST_CORES // WORD_CORES
"""Registers with a bit for each core."""


class TopRegister(IntEnum):
    """Registers of the chip by their address in bytes; `TOP_REGISTERS` has their meanings."""

    ID = 0x000
    VERSION = 0x004
    CORES = 0x008
    ENABLE_0 = 0x010
    ENABLE_1 = 0x014
    IRQ_0 = 0x018
    IRQ_1 = 0x01C
    BUSY_0 = 0x020
    BUSY_1 = 0x024


ENABLE = (TopRegister.ENABLE_0, TopRegister.ENABLE_1)
IRQ = (TopRegister.IRQ_0, TopRegister.IRQ_1)
BUSY = (TopRegister.BUSY_0, TopRegister.BUSY_1)
"""Words of one bit a core, core 0 in the lowest of the first; bits of cores that there are not read 0."""

TOP_REGISTERS: dict[TopRegister, RegisterInfo] = {
    TopRegister.ID: RegisterInfo(meaning="`VTOP` in ASCII", reset=ID, access="RO"),
    TopRegister.VERSION: RegisterInfo(
        meaning="major number in 31:16, minor in 15:0", reset=VERSION, access="RO"
    ),
    TopRegister.CORES: RegisterInfo(
        meaning="cores 15:0; AXI4 ports 31:16, core k at port k modulo their number", access="RO"
    ),
    TopRegister.ENABLE_0: RegisterInfo(
        meaning="bit k: core k takes jobs, if its own CONTROL.enable says so too; cleared in work, it ends "
        "the job first"
    ),
    TopRegister.ENABLE_1: RegisterInfo(meaning="the same of core 32 + k"),
    TopRegister.IRQ_0: RegisterInfo(meaning="bit k: core k raises its interrupt", access="RO"),
    TopRegister.IRQ_1: RegisterInfo(meaning="the same of core 32 + k", access="RO"),
    TopRegister.BUSY_0: RegisterInfo(
        meaning="bit k: core k has a job in work or drains its bus; 0: nothing of it is on the bus",
        access="RO",
    ),
    TopRegister.BUSY_1: RegisterInfo(meaning="the same of core 32 + k", access="RO"),
}
"""All registers of the chip. Other addresses of its page, writes to RO, and pages of no core: SLVERR."""


def core_address(core: int, register: int = 0) -> int:
    """Address of a core's register behind the chip's AXI4-Lite port."""
    return (1 + core) * PAGE_BYTES + register


def port_of(core: int, ports: int) -> int:
    """The AXI4 port that serves a core: neighbours have different ones, so few cores still use all ports."""
    return core % ports


def cores_word(config: Config) -> int:
    """Value of the register CORES."""
    return config.cores | config.ports << 16


class Top:
    """Golden chip: golden cores on one memory. It has no clock, so a job ends when `work` takes it.

    What cores do at the same time must not depend on who is first: between two BARRIERs the jobs of two cores
    touch no bytes that one of them writes, or the host waits in between.

    Attributes:
        config: accelerator.
        memory: what all AXI4 ports reach.
        cores: golden cores; each has limits of its own.
        enable: whether each core takes jobs, none at first.
    """

    def __init__(self, config: Config, memory: Memory, limits: Limits | Sequence[Limits]) -> None:
        """A chip as after reset.

        Args:
            config: accelerator.
            memory: what its ports reach.
            limits: of all cores, or of each.

        Raises:
            ValueError: the configuration makes no chip (`Config.check_top`), or the limits are of fewer or
                more cores than there are.
        """
        config.check_top()
        each = [limits] * config.cores if isinstance(limits, Limits) else list(limits)
        if len(each) != config.cores:
            raise ValueError(f"there are {config.cores} cores and limits of {len(each)}")
        self.config, self.memory = config, memory
        self.cores = [Core(config, memory, own) for own in each]
        self.enable = [False] * config.cores
        self._jobs: list[deque[Job]] = [deque() for _ in each]
        # Of each core: its job in work, and of how many cores the BARRIER is that it waits at.
        self._running: list[Running | None] = [None] * config.cores
        self._waits = [0] * config.cores

    def post(self, core: int, job: Job) -> None:
        """Gives a core a job, which waits until the core is enabled."""
        self._jobs[core].append(job)

    def work(self) -> list[tuple[int, JobEnd]]:
        """Lets the enabled cores end their jobs; returns core and end of each.

        A job that waits at a BARRIER for a core without a job stays in work.
        """
        ends: list[tuple[int, JobEnd]] = []
        while any(self._advance(number, ends) for number in range(len(self.cores))):
            self._release()
        return ends

    def stall(self, core: int) -> JobEnd:
        """Ends the job of a core that waits at a BARRIER for one that won't come."""
        running = self._running[core]
        assert running is not None
        running.stall()
        self._waits[core] = 0
        ((_, end),) = self.work()
        return end

    def reset(self, core: int) -> None:
        """A soft reset of one core: it forgets its jobs, and its DRE's registers hold their reset values."""
        limits = self.cores[core].limits
        self.cores[core] = Core(self.config, self.memory, limits)
        self._jobs[core].clear()
        self._running[core], self._waits[core] = None, 0

    def _advance(self, number: int, ends: list[tuple[int, JobEnd]]) -> bool:
        """Lets a core work on to a BARRIER or the end of its job; returns whether it could."""
        running = self._running[number]
        if running is None:
            if not (self.enable[number] and self._jobs[number]):
                return False
            running = self._running[number] = self.cores[number].begin(self._jobs[number].popleft())
        if self._waits[number]:
            return False
        self._waits[number] = next(iter(running), 0)
        if not self._waits[number]:
            ends.append((number, running.end))
            self._running[number] = None
        return True

    def _release(self) -> None:
        """Lets go those whose group is complete."""
        for first in complete(self._waits):
            cores = self._waits[first]
            self._waits[first : first + cores] = [0] * cores


def complete(waits: Sequence[int]) -> list[int]:
    """First cores of the groups that all wait at a BARRIER.

    Args:
        waits: by core, of how many cores the BARRIER is that it waits at; 0: at none.
    """
    firsts = [
        number
        for number, cores in enumerate(waits)
        if cores and number % cores == 0 and number + cores <= len(waits)
    ]
    return [first for first in firsts if set(waits[first : first + waits[first]]) == {waits[first]}]
