"""The chip: several cores on one memory, and the registers that say which of them work (paper Table I)."""

from collections import deque
from collections.abc import Sequence
from enum import IntEnum

from vrex.model.config import MOST_CORES, Config
from vrex.model.core.core import Core, Job, JobEnd, Limits
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

    What cores do at the same time must not depend on who is first: the jobs of two cores touch no bytes that
    one of them writes, or the host waits in between.

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

    def post(self, core: int, job: Job) -> None:
        """Gives a core a job, which waits until the core is enabled."""
        self._jobs[core].append(job)

    def work(self) -> list[tuple[int, JobEnd]]:
        """Lets the enabled cores end their jobs; returns core and end of each, one core after another."""
        ends = []
        for number, (core, jobs) in enumerate(zip(self.cores, self._jobs, strict=True)):
            while self.enable[number] and jobs:
                ends.append((number, core.run(jobs.popleft())))
        return ends

    def reset(self, core: int) -> None:
        """A soft reset of one core: it forgets its jobs, and its DRE's registers hold their reset values."""
        limits = self.cores[core].limits
        self.cores[core] = Core(self.config, self.memory, limits)
        self._jobs[core].clear()
