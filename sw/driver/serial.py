"""A KVPU or a DRE on a board, behind a serial port (`vrex.model.serial`)."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from threading import RLock
from typing import Any, TypeVar

from vrex.model import serial as link
from vrex.model.commands import COMPLETION, DESCRIPTOR, Completion, Descriptor, Opcode, Status, to_beats
from vrex.model.config import PRESETS, Config
from vrex.model.lib.memory import Memory
from vrex.model.serial.capabilities import Capabilities, digest
from vrex.model.serial.frames import PAYLOAD_BYTES, VERSION, Kind
from vrex.model.serial.host import BoardResetError, LinkFigures
from vrex.model.serial.memory import Access
from vrex.sw.driver.command_interface import (
    DELIVERING,
    Batch,
    CommandInterface,
    CommandReport,
    Results,
    describe,
)
from vrex.sw.driver.serial_memory import BoardMemory, run_accesses
from vrex.sw.driver.serial_port import SerialPort
from vrex.sw.driver.serial_session import PATIENCE, STALLED, SerialSession
from vrex.sw.driver.serial_tables import BoardTables
from vrex.sw.driver.transport import DriverError, Response, Transport

RESETS = 3
"""Resets in a row, without a completion in between, after which the board is given up."""

Made = TypeVar("Made")


@dataclass
class SerialReport(CommandReport):
    """What went over a serial link (see `CommandReport`).

    Attributes:
        link: its frames and bytes.
        seconds: spent in `submit`.
        payload_bytes: of descriptors, payloads, results, keys and values, and completions.
        read_bytes, written_bytes: of a DRE's memory.
    """

    link: LinkFigures = field(default_factory=LinkFigures)
    seconds: float = 0.0
    payload_bytes: int = 0
    read_bytes: int = 0
    written_bytes: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As of `CommandReport`, and what the link did."""
        own = ("resets", "seconds", "payload_bytes", "read_bytes", "written_bytes")
        return {**super().to_dict(), "link": asdict(self.link) | {name: getattr(self, name) for name in own}}


def parse_name(name: str) -> tuple[str, int]:
    """Port and rate of `serial:PORT` or `serial:PORT@BAUD`.

    Raises:
        DriverError: it names no port, or no rate.
    """
    port, at, rate = name.removeprefix(link.SCHEME).partition("@")
    if not port:
        raise DriverError("serial: names no port; give one, as in serial:/dev/ttyUSB0")
    if at and not (rate.isdecimal() and rate.isascii()):
        raise DriverError(f"{rate!r} is no rate in baud; give one, as in {link.SCHEME}{port}@1000000")
    return port, int(rate) if at else link.BAUD


@dataclass
class BatchInWork:
    """Commands, and what has come of them.

    Attributes:
        sent: the commands.
        completions, results, kv: of those that have completed.
    """

    sent: Batch
    completions: bytes = b""
    results: bytes = b""
    kv: bytes = b""

    @property
    def done(self) -> int:
        """Commands that have completed."""
        return len(self.completions) // COMPLETION.size

    def collect(self, session: SerialSession, bus_bytes: int, *, after_reset: bool) -> Batch:
        """Takes what has come; after a reset without what belongs to commands that have not completed.

        Returns:
            The commands that have completed since the last call.
        """
        came, done = session.take(Kind.COMPLETION), self.done
        ends = split_completions(came[: len(came) // COMPLETION.size * COMPLETION.size])
        results, kv = session.take(Kind.RESULT), session.take(Kind.KV)
        new = self.sent[done : done + len(ends)]
        if after_reset:
            results = results[: sum(end.size for end in ends)]
            delivering = (end for (command, _), end in zip(new, ends, strict=True) if delivers(command))
            kv = kv[: sum(end.detail for end in delivering) * bus_bytes]
        self.completions += came[: len(ends) * COMPLETION.size]
        self.results, self.kv = self.results + results, self.kv + kv
        return new

    def last_end(self, number: int) -> Completion:
        """Completion of a command that has completed."""
        return Completion.unpack(self.completions[number * COMPLETION.size :][: COMPLETION.size])


def delivers(command: Descriptor) -> bool:
    """Whether a command's completion counts beats of K and V."""
    return command.opcode in DELIVERING


def split_completions(completions: bytes) -> list[Completion]:
    """Whole completions out of their bytes."""
    parts = range(0, len(completions), COMPLETION.size)
    return [Completion.unpack(completions[first : first + COMPLETION.size]) for first in parts]


class SerialTransport(Transport[Batch, Results, CommandReport]):
    """Runs commands on a board (see `Transport`).

    A board that is reset in the middle loses nothing here. Its registers are set again, tables that an APPEND
    may have left half written are put back as they were (`BoardTables`), and what was not completed is sent
    again; its counters start anew. A board that lost its memory as well, by its power, is an error.

    Several threads may use it; one waits for the other.
    """

    report: SerialReport

    def __init__(
        self,
        interface: CommandInterface,
        port: SerialPort,
        *,
        clock: Callable[[], float] = time.monotonic,
        patience: float = PATIENCE,
        stalled: float = STALLED,
    ) -> None:
        """Resets the board at the end of an open port, and asks what it is.

        Args:
            interface: of the accelerator.
            port: of the board; the transport closes it.
            clock: the time in seconds.
            patience, stalled: see `PATIENCE`, `STALLED`.

        Raises:
            DriverError: nothing answers, or a board of another version, unit or configuration, or with less
                memory than the windows need.
        """
        super().__init__(interface, SerialReport(interface.unit))
        self._clock = clock
        self._registers: dict[int, int] = {}
        self._lost = self._broken = False
        self._lock = RLock()
        self._session = SerialSession(port, self.report.link, clock=clock, patience=patience, stalled=stalled)
        try:
            check_board(self._session, self.config, interface.unit, self.memory)
        except BaseException:
            port.close()
            raise
        self._tables: BoardTables | None = None
        if self.memory is not None:
            memory = BoardMemory(self.memory.device, self.memory.host, self._access)
            self.memory = memory
            self._tables = BoardTables(self.config, memory, self._session)

    @property
    def capabilities(self) -> Capabilities:
        """What the board said of itself."""
        return self._session.capabilities

    def submit(self, sent: Batch, /) -> Results:
        """Executes commands in order (see `Transport`)."""
        with self._lock:
            begun = self._clock()
            parts = [sent] if self._tables is None else self._tables.parts(sent)
            try:
                answer = [outcome for part in parts for outcome in self._submit(part)]
            except DriverError:
                self._registers.clear()
                raise
            self.report.count(sent, answer)
            self.report.seconds += self._clock() - begun
            return answer

    def close(self) -> None:
        """Lets go of the port (see `Transport`)."""
        self._session.close()

    # -- resets --------------------------------------------------------------------------------------------

    def _through(
        self, work: Callable[[], Made], what: Callable[[], str], progress: Callable[[], int] = lambda: 0
    ) -> Made:
        """Does work, again where the board is reset in the middle of it.

        Args:
            work: takes up what is left of it.
            what: is in work.
            progress: how far it has come; a reset without any is one in a row.

        Raises:
            DriverError: the board does not answer, or is reset again and again.
        """
        if self._broken:
            # Something was given up, and what is left of it must not mix with this.
            self._session.begin()
            self._lost = True
            if self._tables is not None:
                self._tables.forget()
        self._broken = True
        self._session.wake()
        resets, before = 0, progress()
        while True:
            try:
                if self._lost:
                    self._restore()
                made = work()
                self._broken = False
                return made
            except BoardResetError:
                now = progress()
                resets, before = 1 if now != before else resets + 1, now
                if resets > RESETS:
                    raise DriverError(
                        f"the board at {self._session.name} is reset again and again in the middle of "
                        f"{what()}; check its power and its clock"
                    ) from None
                self.report.resets += 1
                self._lost = True
                self._session.begin()

    def _restore(self) -> None:
        """Sets the registers of a board that was reset, as far as they were set, and looks at its memory.

        Raises:
            DriverError: the board does not answer, or has lost its memory.
            BoardResetError: it was reset once more.
        """
        for register, value in self._registers.items():
            command = Descriptor(Opcode.SETREG, count=register, param=value)
            self._session.put(Kind.DESCRIPTOR, command.pack())
        while self._session.count(Kind.COMPLETION) < len(self._registers) * COMPLETION.size:
            self._session.exchange()
            self._session.see_life(f"the registers of the board at {self._session.name}")
        # No command's of a batch.
        self._session.take(Kind.COMPLETION)
        if self._tables is not None:
            self._tables.check_memory()
        self._lost = False

    # -- one batch -----------------------------------------------------------------------------------------

    def _submit(self, sent: Batch) -> Results:
        """Executes commands of which no two change the same table."""
        batch = BatchInWork(sent)
        if self._tables is not None:
            self._tables.save(sent)
        self._through(
            lambda: self._run(batch),
            lambda: describe(sent[min(batch.done, len(sent) - 1)][0]),
            lambda: batch.done,
        )
        answer = self.interface.unpack(sent, Response(batch.completions, batch.results, batch.kv))
        if self._tables is not None:
            self._tables.changed(sent, answer)
        self.report.payload_bytes += len(batch.completions) + len(batch.results) + len(batch.kv)
        self.report.payload_bytes += sum(DESCRIPTOR.size + len(payload) for _, payload in sent)
        return answer

    def _run(self, batch: BatchInWork) -> None:
        """Sends what has not completed of a batch, and collects all that comes of it."""
        session, left = self._session, batch.sent[batch.done :]
        try:
            if self._tables is not None:
                self._tables.put_back(left)
            self._queue(left)
            while session.count(Kind.COMPLETION) < len(left) * COMPLETION.size or session.unsent:
                session.exchange()
                at = min(session.count(Kind.COMPLETION) // COMPLETION.size, len(left) - 1)
                session.see_life(describe(left[at][0]))
        except BoardResetError:
            self._collect(batch, after_reset=True)
            raise
        self._collect(batch, after_reset=False)

    def _collect(self, batch: BatchInWork, *, after_reset: bool) -> None:
        """Takes what has come of a batch, and remembers what it set registers to."""
        first = batch.done
        for number, (command, _) in enumerate(
            batch.collect(self._session, self.config.bus_bytes, after_reset=after_reset), first
        ):
            if command.opcode == Opcode.SETREG and batch.last_end(number).status == Status.OK:
                self._registers[command.count] = command.param

    def _queue(self, batch: Batch) -> None:
        """Queues the frames of commands: descriptors without a payload together, else command by command."""
        descriptors = b""
        for command, payload in batch:
            descriptors += command.pack()
            data = to_beats(self.config, payload)
            if data or len(descriptors) == PAYLOAD_BYTES:
                self._session.put(Kind.DESCRIPTOR, descriptors)
                descriptors = b""
            for first in range(0, len(data), PAYLOAD_BYTES):
                self._session.put(Kind.PAYLOAD, data[first : first + PAYLOAD_BYTES])
        if descriptors:
            self._session.put(Kind.DESCRIPTOR, descriptors)

    # -- memory --------------------------------------------------------------------------------------------

    def _access(self, accesses: Sequence[tuple[Access, bytes]]) -> list[bytes]:
        """Executes accesses to memory, from the first on again where the board is reset."""
        with self._lock:
            found = self._through(
                lambda: run_accesses(self._session, accesses), lambda: "an access to its memory"
            )
            self.report.read_bytes += sum(map(len, found))
            self.report.written_bytes += sum(len(data) for _, data in accesses)
            return found


def check_board(session: SerialSession, config: Config, unit: str, memory: Memory | None) -> None:
    """Sees that a board is the accelerator that is meant.

    Args:
        session: with the board.
        config, unit: what is meant.
        memory: its windows are those of the board's memory that are used.

    Raises:
        DriverError: it is another one, or has too little memory; the sentence says which.
    """
    board, name = session.capabilities, session.name
    if board.version != VERSION:
        raise DriverError(
            f"the board at {name} speaks version {board.version} of the link, not {VERSION}; make its "
            "bitstream with this vrex, or take the vrex that made it"
        )
    if board.unit_name != unit:
        raise DriverError(
            f"the board at {name} holds a {board.unit_name.upper()}, not a {unit.upper()}; load another "
            "bitstream"
        )
    if board.bus_bytes != config.bus_bytes or board.digest != digest(config, unit):
        raise DriverError(
            f"the board at {name} was made of {_known(board, unit)} ({board.bus_bytes * 8} bus bits, "
            f"digest {board.digest:016x}), not of {config.name} ({config.bus_bits} bus bits, digest "
            f"{digest(config, unit):016x}); give the board's --preset or --config"
        )
    if memory is not None:
        stop = max(window.stop for window in (memory.device, memory.host))
        if stop > board.memory:
            what = "the weights and tables" if unit == "core" else "the tables"
            raise DriverError(
                f"{what} need {stop / 2**20:.1f} MiB, and the board at {name} has "
                f"{board.memory / 2**20:g}; lower --table-segments or --segment-tokens, or --frames"
            )


def _known(board: Capabilities, unit: str) -> str:
    """The board's configuration, for people: a preset's name if it is one."""
    names = [name for name, config in PRESETS.items() if digest(config, unit) == board.digest]
    return f"preset {names[0]}" if names else "another configuration"


def open_serial(name: str, config: Config, memory: Memory | None = None) -> SerialTransport:
    """Opens a KVPU on a board, or with a memory a DRE.

    Args:
        name: `serial:PORT` or `serial:PORT@BAUD`.
        config: accelerator.
        memory: its windows are those of the board's memory that are used.

    Raises:
        DriverError: there is no such port, or not this accelerator behind it.
    """
    port, baud = parse_name(name)
    return SerialTransport(CommandInterface(config, memory), SerialPort(port, baud))


def identify(name: str) -> Capabilities:
    """What a board says of itself; resets it.

    Args:
        name: as of `open_serial`.

    Raises:
        DriverError: there is no such port, or nothing answers there.
    """
    port, baud = parse_name(name)
    session = SerialSession(SerialPort(port, baud), LinkFigures())
    session.close()
    return session.capabilities
