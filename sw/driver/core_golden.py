"""A golden core behind its registers and rings."""

from collections.abc import Callable

from vrex.model.config import Config
from vrex.model.core.core import Core, Job, JobEnd, Limits, Running
from vrex.model.core.instructions import JOB, JOB_END, Body, Status
from vrex.model.core.registers import REGISTERS, Register, caps
from vrex.model.lib.memory import PAGE, Memory, Window
from vrex.sw.driver.core import ENABLE, RESET, WRAP, CoreReport
from vrex.sw.driver.transport import DriverError

FULL = 4
"""Bit of STATUS: ends wait for room. Its lowest one says that a job is in work."""


class GoldenCoreTransport:
    """Executes jobs on the golden model when the bell rings (see `CoreTransport`).

    Attributes:
        allowed: the core's input `enable`.
        waits: of how many cores the BARRIER is that its job waits at; 0: at none.
    """

    def __init__(
        self, config: Config, memory: Memory, observe: Callable[[Body], None] = lambda body: None
    ) -> None:
        """A core as after reset.

        Args:
            config: accelerator.
            memory: what its AXI4 port reaches.
            observe: see `vrex.model.core.core.Core`.

        Raises:
            ValueError: the configuration makes no core.
        """
        config.check_core()
        self.config, self.memory, self._observe = config, memory, observe
        self.report = CoreReport()
        self.allowed, self.waits = True, 0
        self._running: Running | None = None
        self._values: dict[Register, int] = {}
        self._reset()

    def read_register(self, address: int) -> int:
        """See `CoreTransport`."""
        return self._values[self._register(address)]

    def write_register(self, address: int, value: int) -> None:
        """See `CoreTransport`."""
        register = self._register(address)
        info = REGISTERS[register]
        enabled = self._values[Register.CONTROL] & ENABLE
        if info.access in ("RO", "COUNT") or (info.access == "OFF" and enabled):
            raise DriverError(f"register {register.name} can't be written now; see the table of registers")
        value &= (1 << info.bits) - 1
        if info.access == "W1C":
            self._values[register] &= ~value
        elif register == Register.CONTROL and value & RESET:
            self._soft_reset()
        else:
            self._values[register] = value
        self._work()

    def allow(self, allowed: bool) -> None:
        """Sets the input `enable`; jobs that have waited for it are executed."""
        self.allowed = allowed
        self._work()

    @property
    def irq(self) -> bool:
        """Whether the interrupt is raised."""
        return bool(self._values[Register.IRQ] & self._values[Register.IRQ_MASK])

    def wait(self) -> None:
        """See `CoreTransport`; all that is to do is done when the bell has rung."""
        if not self.irq:
            raise DriverError("the core has no job to end; ring the bell first")

    def close(self) -> None:
        """See `CoreTransport`."""

    @staticmethod
    def _register(address: int) -> Register:
        if address not in list(Register):
            raise DriverError(f"there is no register at {address:#x}; see the table of registers")
        return Register(address)

    def _reset(self) -> None:
        self._values = {register: info.reset for register, info in REGISTERS.items()}
        self._values[Register.CAPS] = caps(self.config)
        self._core: Core | None = None

    def _soft_reset(self) -> None:
        """Clears `enable` and both rings; the other registers of the port stay."""
        self._core = self._running = None
        self.waits = 0
        for register in (
            Register.CONTROL,
            Register.JOB_TAIL,
            Register.JOB_HEAD,
            Register.END_TAIL,
            Register.END_HEAD,
        ):
            self._values[register] = 0

    def _limits(self) -> Limits:
        read = self._values.__getitem__
        return Limits(
            device=Window(read(Register.DEVICE_BASE), read(Register.DEVICE_PAGES)),
            host=Window(read(Register.HOST_BASE), read(Register.HOST_PAGES)),
            sequences=read(Register.SEQUENCES),
            budget=read(Register.BUDGET),
        )

    def go_on(self) -> None:
        """The BARRIER that the job waits at is complete."""
        self.waits = 0
        self._work()

    def stall(self) -> None:
        """Nobody will come to the BARRIER that the job waits at."""
        assert self._running is not None
        self._running.stall()
        self.go_on()

    def _work(self) -> None:
        """Takes jobs as long as it may, there are some, and there is room for their ends."""
        values = self._values
        size = 1 << values[Register.JOB_SIZE]
        while not self.waits and (self._running is not None or self._begin(size)):
            assert self._running is not None
            self.waits = next(iter(self._running), 0)
            if not self.waits:
                self._end(self._running.end, size)
                self._running = None
        values[Register.STATUS] = values[Register.STATUS] & FULL | (self._running is not None)

    def _begin(self, size: int) -> bool:
        """Takes the next job, if it may and there is one."""
        values = self._values
        if not (self.allowed and values[Register.CONTROL] & ENABLE):
            return False
        full = (values[Register.END_TAIL] - values[Register.END_HEAD]) % WRAP == size
        waits = values[Register.JOB_HEAD] != values[Register.JOB_TAIL]
        values[Register.STATUS] = FULL if full and waits else 0
        if full or not waits:
            return False
        if self._core is None:
            self._core = Core(self.config, self.memory, self._limits())
            self._core.observe = self._observe
        self._core.limits = self._limits()
        place = values[Register.JOB_BASE] * PAGE + values[Register.JOB_HEAD] % size * JOB.size
        self._running = self._core.begin(Job.unpack(self.memory.read(place, JOB.size)))
        values[Register.JOB_HEAD] = (values[Register.JOB_HEAD] + 1) % WRAP
        return True

    def _end(self, end: JobEnd, size: int) -> None:
        """Writes how a job ended."""
        values = self._values
        place = values[Register.END_BASE] * PAGE + values[Register.END_TAIL] % size * JOB_END.size
        self.memory.write(place, end.pack())
        values[Register.END_TAIL] = (values[Register.END_TAIL] + 1) % WRAP
        values[Register.JOBS] += 1
        values[Register.INSTRUCTIONS] = values[Register.INSTRUCTIONS] + end.instructions & 0xFFFF_FFFF
        values[Register.IRQ] |= 1 if end.status == Status.OK else 3
