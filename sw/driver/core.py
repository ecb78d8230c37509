"""The core's engine: jobs in a ring in memory, a doorbell, and the ends of jobs in another ring."""

from dataclasses import dataclass
from typing import Any, Protocol

from vrex.model.commands import Status as EngineStatus
from vrex.model.config import Config
from vrex.model.core.core import Job, JobEnd
from vrex.model.core.instructions import JOB, JOB_END, Status
from vrex.model.core.registers import ID, VERSION, Register, caps
from vrex.model.lib.memory import PAGE, Memory, Window
from vrex.sw.driver.transport import DriverError

ENABLE, RESET = 1, 2
"""Bits of the register CONTROL."""

WRAP = 1 << 16
"""The numbers of jobs and ends wrap here."""

REGISTER_BYTES = 4


@dataclass
class CoreReport:
    """What was compared with the golden model.

    Attributes:
        compared: ends of jobs, pages of memory after each of them, and registers that were read.
        mismatches: those that differ.
    """

    compared: int = 0
    mismatches: int = 0

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"compared": self.compared, "mismatches": self.mismatches}


class JobError(DriverError):
    """A job failed.

    Attributes:
        end: how.
    """

    def __init__(self, end: JobEnd) -> None:
        super().__init__(complaint(end))
        self.end = end


class CoreTransport(Protocol):
    """A way to a core: its registers, and the memory that both sides see.

    Attributes:
        config: accelerator.
        memory: what the core's AXI4 port reaches; the host touches no bytes of it that a job in work uses.
    """

    config: Config
    memory: Memory

    @property
    def report(self) -> CoreReport:
        """What was compared."""
        ...

    def read_register(self, address: int) -> int:
        """A word of the AXI4-Lite port.

        Raises:
            DriverError: SLVERR.
        """
        ...

    def write_register(self, address: int, value: int) -> None:
        """See `read_register`."""
        ...

    def wait(self) -> None:
        """Returns when the core raises its interrupt.

        Raises:
            DriverError: it does not within the transport's patience.
        """
        ...

    def close(self) -> None:
        """Releases the core; a second call does nothing."""
        ...


@dataclass(frozen=True, kw_only=True)
class CoreSetting:
    """What the engine sets a core to.

    Attributes:
        jobs, ends: pages of the two rings.
        ring_bits: log2 of the jobs, and of the ends, that fit them.
        device, host: windows.
        sequences: video streams.
        budget: most instructions of a job; 0: any number.
        timeout: cycles to wait for memory.
    """

    jobs: int
    ends: int
    ring_bits: int
    device: Window
    host: Window
    sequences: int
    budget: int = 0
    timeout: int = 1 << 16


@dataclass
class HostTraffic:
    """What crosses the register port and the rings.

    Attributes:
        registers: reads and writes of registers.
        jobs: written to the ring.
        ends: read from the ring.
    """

    registers: int = 0
    jobs: int = 0
    ends: int = 0

    @property
    def ring_bytes(self) -> int:
        """Of jobs and their ends."""
        return JOB.size * self.jobs + JOB_END.size * self.ends


class JobEngine(Protocol):
    """What takes jobs: a core, or several.

    Attributes:
        transport: the way to it.
        memory: see `CoreTransport`.
        traffic: of the host, from the first job on.
    """

    transport: CoreTransport
    memory: Memory

    @property
    def traffic(self) -> HostTraffic:
        """See the attribute."""
        ...

    def run(self, program: int, *, sequence: int = 0, parameters: tuple[int, ...] = ()) -> JobEnd:
        """See `CoreEngine.run`."""
        ...

    def post(self, program: int, *, sequence: int = 0, parameters: tuple[int, ...] = ()) -> Any:
        """See `CoreEngine.post`."""
        ...

    def collect(self, job: Any, /) -> JobEnd:
        """Takes what `post` returned; see `CoreEngine.collect`."""
        ...

    def counters(self) -> dict[str, int]:
        """See `CoreEngine.counters`."""
        ...


class CoreEngine:
    """Jobs of one core.

    Attributes:
        transport: the way to it.
        config: accelerator.
        memory: see `CoreTransport`.
        traffic: of the host, from the first job on.
    """

    def __init__(self, transport: CoreTransport, setting: CoreSetting) -> None:
        """Sets the core's registers and enables it.

        Raises:
            DriverError: it is no core of this configuration, or does not answer.
        """
        self.transport, self.setting = transport, setting
        self.config, self.memory = transport.config, transport.memory
        self.traffic = HostTraffic()
        self._tag = self._posted = self._collected = 0
        self._check_identity()
        self._start()
        self.traffic = HostTraffic()

    def run(self, program: int, *, sequence: int = 0, parameters: tuple[int, ...] = ()) -> JobEnd:
        """Executes a job and waits for its end.

        Args:
            program: address.
            sequence: video stream.
            parameters: registers 0 to 11.

        Raises:
            DriverError: the core could not execute it, or did not answer. The next job works.
        """
        return self.collect(self.post(program, sequence=sequence, parameters=parameters))

    def post(self, program: int, *, sequence: int = 0, parameters: tuple[int, ...] = ()) -> Job:
        """Writes a job into the ring and rings the bell; arguments as of `run`.

        Raises:
            DriverError: the ring is full: collect first.
        """
        if (self._posted - self._collected) % WRAP == 1 << self.setting.ring_bits:
            raise DriverError("the core's ring of jobs is full; collect the end of a job first")
        job = Job(program=program, tag=self._tag, sequence=sequence, parameters=parameters)
        self._tag = (self._tag + 1) % WRAP
        place = self._posted % (1 << self.setting.ring_bits)
        self.memory.write(self.setting.jobs * PAGE + place * JOB.size, job.pack())
        self._posted = (self._posted + 1) % WRAP
        self.traffic.jobs += 1
        self._write(Register.JOB_TAIL, self._posted)
        return job

    def collect(self, job: Job) -> JobEnd:
        """Waits for the end of the oldest job that was not collected yet, which must be this one.

        Raises:
            DriverError: it failed, or the core did not answer.
        """
        while self._read(Register.END_TAIL) == self._collected:
            self.transport.wait()
            self._write(Register.IRQ, 3)
        place = self._collected % (1 << self.setting.ring_bits)
        data = self.memory.read(self.setting.ends * PAGE + place * JOB_END.size, JOB_END.size)
        self.traffic.ends += 1
        self._collected = (self._collected + 1) % WRAP
        self._write(Register.END_HEAD, self._collected)
        end = JobEnd.unpack(data)
        if end.tag != job.tag:
            raise DriverError(
                f"the core ended job {end.tag} where job {job.tag} was due: host and core are out of step, "
                "so open it again"
            )
        if end.status != Status.OK:
            raise JobError(end)
        return end

    def counters(self) -> dict[str, int]:
        """All counters by name in lower case; a model without a clock counts jobs and instructions only."""
        return {
            register.name.lower(): self.transport.read_register(register)
            for register in Register
            if register >= Register.CYCLES
        }

    def reset(self) -> None:
        """Ends what is in work and forgets it; memory keeps its content.

        Raises:
            DriverError: the core does not answer.
        """
        self._write(Register.CONTROL, RESET)
        self._start()

    def _check_identity(self) -> None:
        expected = {Register.ID: ID, Register.VERSION: VERSION, Register.CAPS: caps(self.config)}
        for register, value in expected.items():
            found = self._read(register)
            if found != value:
                raise DriverError(
                    f"register {register.name} reads {found:#x} instead of {value:#x}: "
                    f"this is no core of preset {self.config.name}, so generate it anew"
                )

    def _start(self) -> None:
        setting = self.setting
        values = {
            Register.JOB_BASE: setting.jobs,
            Register.JOB_SIZE: setting.ring_bits,
            Register.END_BASE: setting.ends,
            Register.SEQUENCES: setting.sequences,
            Register.BUDGET: setting.budget,
            Register.TIMEOUT: setting.timeout,
            Register.DEVICE_BASE: setting.device.base,
            Register.DEVICE_PAGES: setting.device.pages,
            Register.HOST_BASE: setting.host.base,
            Register.HOST_PAGES: setting.host.pages,
            Register.IRQ_MASK: 1,
            Register.CONTROL: ENABLE,
        }
        for register, value in values.items():
            self._write(register, value)
        self._posted, self._collected = self._read(Register.JOB_HEAD), self._read(Register.END_TAIL)

    def _read(self, register: Register) -> int:
        self.traffic.registers += 1
        return self.transport.read_register(register)

    def _write(self, register: Register, value: int) -> None:
        self.traffic.registers += 1
        self.transport.write_register(register, value)


def complaint(end: JobEnd) -> str:
    """What a status other than OK means, in one sentence."""
    job, place = f"job {end.tag}", f"instruction {end.index} of its program"
    engine = EngineStatus(end.detail).name if end.detail in list(EngineStatus) else str(end.detail)
    match end.status:
        case Status.BAD_INSTRUCTION:
            return f"the core refused {place} of {job}: assemble the program for this configuration"
        case Status.BAD_SEQUENCE:
            return f"{job} is for sequence {end.sequence}, for which the core is not set up; allow more"
        case Status.BAD_ADDRESS:
            return f"{job} leaves the memory windows at {place}; lay memory out again"
        case Status.BUS_ERROR:
            return f"memory answered {job} with a bus error at {place}; check that the windows exist"
        case Status.TIMEOUT:
            return f"memory did not answer {job} at {place} in time; run it again"
        case Status.LXE_FAILED:
            return f"the LXE refused {place} of {job} with status {engine}; assemble the program again"
        case Status.DRE_FAILED:
            return f"the DRE could not execute {place} of {job}: {_dre_reason(end.detail, engine)}"
        case Status.BUDGET:
            return f"{job} took more instructions than its budget allows, up to {place}; raise the budget"
        case Status.STALLED:
            return f"{job} waits at {place} for what never comes; assemble the program again"
    return f"{job} ended at {place} with the unknown status {end.status}; generate the core anew"


def _dre_reason(detail: int, name: str) -> str:
    match detail:
        case EngineStatus.TABLE_FULL:
            return (
                "an HC table has no room for another cluster; "
                "raise table_clusters or th_hd, or shorten the video"
            )
        case EngineStatus.KV_FULL:
            return "a KV store has no room for another segment; raise table_segments or shorten the video"
        case EngineStatus.CAPACITY:
            return "its WTU holds no rows of so many clusters; raise th_hd or take a larger preset"
        case EngineStatus.POISONED:
            return "an earlier error left a table half written; run it again"
    return f"it answered {name}; compare it with the table of commands in vrex.model.commands"
