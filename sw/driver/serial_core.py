"""A core on a board, behind a serial port: its memory and its registers (`vrex.model.serial.memory`)."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from vrex.model.config import Config
from vrex.model.core.core import JobEnd
from vrex.model.core.instructions import JOB_END
from vrex.model.core.registers import Register
from vrex.model.lib.memory import PAGE, Memory
from vrex.model.serial.host import BoardResetError, LinkFigures
from vrex.model.serial.memory import REGISTER_BYTES, Access, register_address
from vrex.sw.driver.core import CoreReport
from vrex.sw.driver.core_rtl import CheckedCoreTransport, HostMemory
from vrex.sw.driver.serial import check_board, parse_name
from vrex.sw.driver.serial_memory import BoardMemory, RefusedError, run_accesses
from vrex.sw.driver.serial_port import SerialPort
from vrex.sw.driver.serial_session import PATIENCE, STALLED, SerialSession
from vrex.sw.driver.transport import DriverError

UNIT = "core"


@dataclass
class SerialCoreReport(CoreReport):
    """What was compared, and what went over a serial link.

    Attributes:
        link: its frames and bytes.
        seconds: spent with the board.
        read_bytes, written_bytes: of memory and registers.
    """

    link: LinkFigures = field(default_factory=LinkFigures)
    seconds: float = 0.0
    read_bytes: int = 0
    written_bytes: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As of `CoreReport`, and `link`."""
        own = {name: getattr(self, name) for name in ("seconds", "read_bytes", "written_bytes")}
        own |= {"resets": 0, "payload_bytes": self.read_bytes + self.written_bytes}
        return {**super().to_dict(), "link": asdict(self.link) | own}


class SerialCoreTransport:
    """A core on a board (see `CoreTransport`).

    A board that is reset in the middle has forgotten the core's registers and the job in work, so that is an
    error; what is opened anew begins with empty tables.
    """

    unit = UNIT

    def __init__(
        self,
        config: Config,
        memory: Memory,
        port: SerialPort,
        *,
        clock: Callable[[], float] = time.monotonic,
        patience: float = PATIENCE,
        stalled: float = STALLED,
    ) -> None:
        """Resets the board at the end of an open port, and asks what it is.

        Args:
            config: accelerator.
            memory: its windows are those of the board's memory that are used.
            port: of the board; the transport closes it.
            clock: the time in seconds.
            patience, stalled: see `PATIENCE`, `STALLED`.

        Raises:
            DriverError: nothing answers, or a board of another version, unit or configuration, or with less
                memory than the windows need.
        """
        self.config, self.report = config, SerialCoreReport()
        self._clock, self._stalled = clock, stalled
        self._session = SerialSession(port, self.report.link, clock=clock, patience=patience, stalled=stalled)
        try:
            check_board(self._session, config, UNIT, memory)
        except BaseException:
            port.close()
            raise
        self._is_broken = False
        self._irq_mask = 0
        self.memory: Memory = BoardMemory(memory.device, memory.host, self._run)

    def read_register(self, address: int) -> int:
        """See `CoreTransport`."""
        return self._registers([address])[0]

    def write_register(self, address: int, value: int) -> None:
        """See `CoreTransport`."""
        data = value.to_bytes(REGISTER_BYTES, "little")
        try:
            self._run([(self._at(address, write=1), data)])
        except RefusedError:
            raise DriverError(_refused(address, "written")) from None
        if address == Register.IRQ_MASK:
            self._irq_mask = value

    def wait(self) -> None:
        """See `CoreTransport`: asks again and again, as the line has no interrupt.

        Raises:
            DriverError: for `stalled` seconds the core has executed no instruction.
        """
        before, since = -1, self._clock()
        while True:
            irq, instructions = self._registers([Register.IRQ, Register.INSTRUCTIONS])
            if irq & self._irq_mask:
                return
            if instructions != before:
                before, since = instructions, self._clock()
            elif self._clock() - since > self._stalled:
                raise DriverError(
                    f"the core of the board at {self._session.name} has executed no instruction for "
                    f"{self._stalled:.0f} s; run vrex link --selftest {self._session.name}"
                )

    def close(self) -> None:
        """See `CoreTransport`."""
        self._session.close()

    def _at(self, address: int, write: int = 0) -> Access:
        board = self._session.capabilities
        place = register_address(address, board.memory, board.bus_bytes)
        return Access(place, REGISTER_BYTES, write)

    def _registers(self, addresses: Sequence[int]) -> list[int]:
        """Reads registers, all at once."""
        try:
            words = self._run([(self._at(address), b"") for address in addresses])
        except RefusedError:
            raise DriverError(_refused(addresses[0], "read")) from None
        return [int.from_bytes(word, "little") for word in words]

    def _run(self, accesses: Sequence[tuple[Access, bytes]]) -> list[bytes]:
        """Executes accesses.

        Raises:
            DriverError: the board does not answer, or was reset.
            RefusedError: it refused one.
        """
        if self._is_broken:
            raise DriverError(f"the board at {self._session.name} was given up; start again")
        begun = self._clock()
        self._is_broken = True
        self._session.wake()
        try:
            found = run_accesses(self._session, accesses)
        except RefusedError:
            # All the others have been answered.
            self._is_broken = False
            raise
        except BoardResetError:
            raise DriverError(
                f"the board at {self._session.name} was reset, so its core has forgotten what it was doing; "
                "start again"
            ) from None
        self._is_broken = False
        self.report.seconds += self._clock() - begun
        self.report.read_bytes += sum(map(len, found))
        self.report.written_bytes += sum(len(data) for _, data in accesses)
        return found


def _refused(address: int, what: str) -> str:
    name = Register(address).name if address in list(Register) else f"at {int(address):#x}"
    return f"register {name} can't be {what} (SLVERR); see the table of registers"


class _ComparedMemory(HostMemory):
    """As `HostMemory`; what the host reads is compared with the other memory.

    Args:
        golden, other: as of `HostMemory`.
        compare: is called with an address and the bytes that both have there.
        before: is called before the golden model's memory is read.
    """

    def __init__(
        self,
        golden: Memory,
        other: Memory,
        compare: Callable[[int, bytes, bytes], None],
        before: Callable[[], None],
    ) -> None:
        super().__init__(golden, other)
        self._compare, self._before = compare, before

    def read(self, address: int, size: int) -> bytes:
        """The golden model's bytes."""
        self._before()
        wanted = super().read(address, size)
        self._compare(address, wanted, self.other.read(address, size))
        return wanted


class CheckedBoardCore(CheckedCoreTransport):
    """A core on a board watched by the golden model, which works on memory of its own.

    All that the host reads is compared: ends of jobs, results, counts and headers of tables. The rest of the
    board's memory is not, as the line would take minutes for it after every job (see `CoreTransport`).
    """

    def __init__(self, board: SerialCoreTransport) -> None:
        """Watches a core that has done nothing yet."""
        super().__init__(board)
        self.report = board.report
        self.memory: Memory = _ComparedMemory(self.memory, board.memory, self._compare_read, self._finish)

    def wait(self) -> None:
        """See `CoreTransport`."""
        self._device.wait()
        self._finish()

    def _compare_read(self, address: int, wanted: bytes, got: bytes) -> None:
        """Compares what the host reads, an end of a job without its cycles, which the model does not have."""
        ring = self._golden.read_register(Register.END_BASE) * PAGE
        entries = 1 << self._golden.read_register(Register.JOB_SIZE)
        if ring <= address < ring + entries * JOB_END.size:
            got = replace(JobEnd.unpack(got), cycles=JobEnd.unpack(wanted).cycles).pack()
        self.report.compared += 1
        self.report.mismatches += wanted != got


def open_serial_core(
    name: str, config: Config, memory: Memory, *, check: bool
) -> SerialCoreTransport | CheckedBoardCore:
    """Opens a core on a board.

    Args:
        name: `serial:PORT` or `serial:PORT@BAUD`.
        config: accelerator.
        memory: its windows are those of the board's memory that are used.
        check: have the golden model watch it.

    Raises:
        DriverError: there is no such port, or not this core behind it.
    """
    port, baud = parse_name(name)
    board = SerialCoreTransport(config, memory, SerialPort(port, baud))
    return CheckedBoardCore(board) if check else board
