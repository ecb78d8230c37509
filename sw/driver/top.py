"""A chip of several cores on one memory: each has rings of its own, and sequences are dealt out to them."""

from collections.abc import Sequence
from dataclasses import dataclass

from vrex.model.core.core import Job, JobEnd
from vrex.model.core.registers import Register
from vrex.model.core.top import (
    BUSY,
    ENABLE,
    ID,
    IRQ,
    VERSION,
    WORD_CORES,
    TopRegister,
    core_address,
    cores_word,
)
from vrex.sw.driver.core import CoreEngine, CoreSetting, CoreTransport, HostTraffic
from vrex.sw.driver.transport import DriverError

RAISED = 3
"""All bits of a core's register IRQ."""


class _OneCore:
    """The way to one core of a chip (see `CoreTransport`)."""

    def __init__(self, chip: "TopDriver", number: int) -> None:
        self._chip, self._number = chip, number
        self.config, self.memory = chip.transport.config, chip.transport.memory
        self.report = chip.transport.report

    def read_register(self, address: int) -> int:
        """See `CoreTransport`."""
        return self._chip.transport.read_register(core_address(self._number, address))

    def write_register(self, address: int, value: int) -> None:
        """See `CoreTransport`."""
        self._chip.transport.write_register(core_address(self._number, address), value)

    def wait(self) -> None:
        """See `CoreTransport`; also returns if the core has raised its interrupt since the last call."""
        self._chip.wait_for(self._number)

    def close(self) -> None:
        """See `CoreTransport`; the chip's other cores are still open."""


@dataclass(frozen=True)
class Posted:
    """A job in work.

    Attributes:
        core: that it was given.
        job: as it lies in that core's ring.
    """

    core: int
    job: Job


class TopDriver:
    """Jobs of a chip: those of sequence s go to core s modulo the number of cores, so they stay in order.

    A sequence's state lies in memory that its core alone touches, so nothing orders two cores. Or a layer is
    spread over several, each of which gets a job of its own; their programs meet at BARRIERs.

    Attributes:
        transport: the way to the chip, by the chip's addresses; its `wait` is for any core's interrupt.
        engines: of the cores.
    """

    def __init__(self, transport: CoreTransport, settings: Sequence[CoreSetting]) -> None:
        """Sets and enables all cores.

        Args:
            transport: the way to the chip.
            settings: of each core; their rings lie apart.

        Raises:
            DriverError: it is no chip of this configuration, or does not answer.
            ValueError: there are fewer or more settings than cores, or two cores share a ring.
        """
        self.transport, self.config = transport, transport.config
        self.memory = transport.memory
        cores = self.config.cores
        if len(settings) != cores:
            raise ValueError(f"there are {cores} cores and {len(settings)} settings")
        rings = [page for setting in settings for page in (setting.jobs, setting.ends)]
        if len(set(rings)) != len(rings):
            raise ValueError(f"every core needs pages of its own for its two rings, not {rings}")
        self._traffic = 0
        self._raised = [False] * cores
        self._check_identity()
        self.engines = [
            CoreEngine(_OneCore(self, number), setting) for number, setting in enumerate(settings)
        ]
        self._enabled = (1 << cores) - 1
        self._write_enable()
        self._traffic = 0

    @property
    def traffic(self) -> HostTraffic:
        """Of the host with all cores, from the first job on."""
        own = [engine.traffic for engine in self.engines]
        return HostTraffic(
            registers=self._traffic + sum(part.registers for part in own),
            jobs=sum(part.jobs for part in own),
            ends=sum(part.ends for part in own),
        )

    def core_of(self, sequence: int) -> int:
        """The core that has a sequence's jobs."""
        return sequence % len(self.engines)

    def post(
        self,
        program: int,
        *,
        sequence: int = 0,
        parameters: tuple[int, ...] = (),
        core: int | None = None,
    ) -> Posted:
        """Gives a core a job, the sequence's if none is named; errors as of `CoreEngine.post`."""
        chosen = self.core_of(sequence) if core is None else core
        job = self.engines[chosen].post(program, sequence=sequence, parameters=parameters)
        return Posted(chosen, job)

    def collect(self, posted: Posted) -> JobEnd:
        """Waits for the end of a core's oldest job, which must be this one; errors as of `CoreEngine`."""
        return self.engines[posted.core].collect(posted.job)

    def run(self, program: int, *, sequence: int = 0, parameters: tuple[int, ...] = ()) -> JobEnd:
        """Executes a job and waits for its end; arguments and errors as of `CoreEngine.run`."""
        return self.collect(self.post(program, sequence=sequence, parameters=parameters))

    def enable(self, core: int, on: bool) -> None:
        """Lets a core take jobs, or not: one that has a job in work ends it, and those behind it wait."""
        self._enabled = self._enabled & ~(1 << core) | on << core
        self._write_enable()

    def busy(self, core: int) -> bool:
        """Whether a core has a job in work; one that is neither enabled nor busy leaves its bus alone."""
        word, bit = divmod(core, WORD_CORES)
        return bool(self._read(BUSY[word]) >> bit & 1)

    def counters(self) -> dict[str, int]:
        """All counters by name in lower case, of all cores together."""
        each = [engine.counters() for engine in self.engines]
        return {name: sum(counters[name] for counters in each) for name in each[0]}

    def wait_for(self, core: int) -> None:
        """Returns when a core has raised its interrupt, which is cleared; what other cores raise is noted.

        Raises:
            DriverError: no core does within the transport's patience.
        """
        while not self._raised[core]:
            self.transport.wait()
            for word in range(-(-len(self.engines) // WORD_CORES)):
                bits = self._read(IRQ[word])
                for bit in range(WORD_CORES):
                    if bits >> bit & 1:
                        self._take_interrupt(WORD_CORES * word + bit)
        self._raised[core] = False

    def close(self) -> None:
        """Releases the chip; a second call does nothing."""
        self.transport.close()

    def _take_interrupt(self, core: int) -> None:
        self._traffic += 1
        self.transport.write_register(core_address(core, Register.IRQ), RAISED)
        self._raised[core] = True

    def _check_identity(self) -> None:
        expected = {
            TopRegister.ID: ID,
            TopRegister.VERSION: VERSION,
            TopRegister.CORES: cores_word(self.config),
        }
        for register, value in expected.items():
            found = self._read(register)
            if found != value:
                raise DriverError(
                    f"register {register.name} of the chip reads {found:#x} instead of {value:#x}: "
                    f"this is no chip of {self.config.cores} cores and {self.config.ports} ports, "
                    "so generate it anew"
                )

    def _write_enable(self) -> None:
        for word in range(-(-self.config.cores // WORD_CORES)):
            self._traffic += 1
            bits = self._enabled >> WORD_CORES * word & (1 << WORD_CORES) - 1
            self.transport.write_register(ENABLE[word], bits)

    def _read(self, register: TopRegister) -> int:
        self._traffic += 1
        return self.transport.read_register(register)
