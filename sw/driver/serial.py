"""A KVPU on a board, behind a serial port (`vrex.model.serial`)."""

import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from vrex.model import serial as link
from vrex.model.commands import (
    COMPLETION,
    DESCRIPTOR,
    Completion,
    Descriptor,
    Opcode,
    Status,
    to_beats,
)
from vrex.model.config import PRESETS, Config
from vrex.model.serial.capabilities import Capabilities, digest
from vrex.model.serial.frames import PAYLOAD_BYTES, SEQUENCES, VERSION, Kind
from vrex.model.serial.host import BoardResetError, HostEnd, LinkFigures
from vrex.sw.driver.command_interface import (
    Batch,
    CommandInterface,
    CommandReport,
    Results,
    describe,
)
from vrex.sw.driver.serial_port import SerialPort
from vrex.sw.driver.transport import DriverError, Response, Transport

PATIENCE = 10.0
"""Seconds without a sign of life after which a board is given up."""

STALLED = 120.0
"""Seconds after which a board that answers, but does nothing, is given up."""

RESETS = 3
"""Resets in a row, without a completion in between, after which the board is given up."""

TICK = 0.1
"""Seconds to wait for the port at most."""

AHEAD = 512
"""Bytes of frames to make before the port takes them; more would only be older when they leave."""


@dataclass
class SerialReport(CommandReport):
    """What went over a serial link (see `CommandReport`).

    Attributes:
        link: its frames and bytes.
        resets: of the board in the middle of the work, after which it was taken up again.
        seconds: spent in `submit`.
        payload_bytes: of descriptors, payloads, results and completions.
    """

    link: LinkFigures = field(default_factory=LinkFigures)
    resets: int = 0
    seconds: float = 0.0
    payload_bytes: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As of `CommandReport`, and what the link did."""
        own = {"resets": self.resets, "seconds": self.seconds, "payload_bytes": self.payload_bytes}
        return {**super().to_dict(), "link": {**asdict(self.link), **own}}


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


class SerialTransport(Transport[Batch, Results, CommandReport]):
    """Runs commands on a board (see `Transport`).

    A board that is reset in the middle loses nothing here: a KVPU remembers registers alone, so these are
    set again and what was not completed is sent again. Its counters start anew.

    Attributes:
        capabilities: what the board said of itself.
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
            DriverError: nothing answers, or a board of another version, unit or configuration.
        """
        super().__init__(interface, SerialReport(interface.unit))
        self._port, self._clock = port, clock
        self._patience, self._stalled = patience, stalled
        self._random = random.SystemRandom()
        self._registers: dict[int, int] = {}
        self._out = b""
        self._session = 0
        self._lost = self._broken = False
        try:
            self._connect()
        except BaseException:
            port.close()
            raise

    def submit(self, sent: Batch, /) -> Results:
        """Executes commands in order (see `Transport`)."""
        begun = self._clock()
        if self._broken:
            # A batch was given up, and what is left of it must not mix with this one.
            self._registers.clear()
            self._lost = False
            self._connect()
        self._broken = True
        self._host.wake(begun)
        completions, results = b"", b""
        resets = 0
        while len(completions) < len(sent) * COMPLETION.size:
            done = len(completions) // COMPLETION.size
            try:
                if self._lost:
                    self._restore()
                self._queue(sent[done:])
                more = self._collect(sent, done)
            except BoardResetError:
                more = self._collected(after_reset=True)
                resets = 1 if more[0] else resets + 1
                if resets > RESETS:
                    raise DriverError(
                        f"the board at {self._port.name} is reset again and again in the middle of "
                        f"{describe(sent[done][0])}; check its power and its clock"
                    ) from None
                self.report.resets += 1
                self._lost = True
                self._connect()
            self._note(sent[done:], more[0])
            completions, results = completions + more[0], results + more[1]
        answer = self.interface.unpack(sent, Response(completions, results, b""))
        self._broken = False
        self.report.count(sent, answer)
        self.report.seconds += self._clock() - begun
        self.report.payload_bytes += len(completions) + len(results)
        self.report.payload_bytes += sum(DESCRIPTOR.size + len(payload) for _, payload in sent)
        return answer

    def close(self) -> None:
        """Lets go of the port (see `Transport`)."""
        self._port.close()

    # -- sessions ------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        """Resets the board, begins a session, and checks what the board says of itself."""
        others = [session for session in range(1, SEQUENCES) if session != self._session]
        self._session = self._random.choice(others)
        self._host = HostEnd(self._session, self._clock(), self.report.link)
        self._completions, self._results = b"", b""
        self._out = b""
        while self._host.capabilities is None:
            self._exchange()
            if self._clock() - self._host.heard > self._patience:
                raise DriverError(
                    f"nothing answers at serial port {self._port.name}; see that the board is on, holds a "
                    "bitstream of vrex fpga, and has this rate"
                )
        self.capabilities = self._host.capabilities
        self._check(self.capabilities)

    def _check(self, board: Capabilities) -> None:
        """Sees that the board is the accelerator that is meant.

        Raises:
            DriverError: it is another one; the sentence says which.
        """
        config, unit, name = self.config, self.interface.unit, self._port.name
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

    def _restore(self) -> None:
        """Sets the registers of a board that was reset, as far as they were set."""
        for register, value in self._registers.items():
            command = Descriptor(Opcode.SETREG, count=register, param=value)
            self._host.put(Kind.DESCRIPTOR, command.pack())
        try:
            while len(self._completions) < len(self._registers) * COMPLETION.size:
                self._exchange()
                self._take()
                self._see_life(f"the registers of the board at {self._port.name}")
        finally:
            # No command's of the batch, also when the board is reset here.
            self._completions = b""
        self._lost = False

    def _note(self, batch: Batch, completions: bytes) -> None:
        """Remembers what the first commands of a batch, which have completed, set registers to."""
        for (command, _), end in zip(batch, _split(completions), strict=False):
            if command.opcode == Opcode.SETREG and end.status == Status.OK:
                self._registers[command.count] = command.param

    # -- one batch -----------------------------------------------------------------------------------------

    def _queue(self, batch: Batch) -> None:
        """Queues the frames of commands: descriptors without a payload together, else command by command."""
        descriptors = b""
        for command, payload in batch:
            descriptors += command.pack()
            data = to_beats(self.config, payload)
            if data or len(descriptors) == PAYLOAD_BYTES:
                self._host.put(Kind.DESCRIPTOR, descriptors)
                descriptors = b""
            for first in range(0, len(data), PAYLOAD_BYTES):
                self._host.put(Kind.PAYLOAD, data[first : first + PAYLOAD_BYTES])
        if descriptors:
            self._host.put(Kind.DESCRIPTOR, descriptors)

    def _collect(self, sent: Batch, done: int) -> tuple[bytes, bytes]:
        """Completions and results of all commands from number `done` on."""
        expected = (len(sent) - done) * COMPLETION.size
        while len(self._completions) < expected or self._host.unsent:
            self._exchange()
            self._take()
            at = min(done + len(self._completions) // COMPLETION.size, len(sent) - 1)
            self._see_life(describe(sent[at][0]))
        return self._collected()

    def _take(self) -> None:
        """Sorts what the board sent by streams."""
        while self._host.delivered:
            kind, payload = self._host.delivered.popleft()
            if kind == Kind.COMPLETION:
                self._completions += payload
            elif kind == Kind.RESULT:
                self._results += payload

    def _collected(self, *, after_reset: bool = False) -> tuple[bytes, bytes]:
        """What came of the commands that have completed, after a reset without what others have left."""
        self._take()
        ends = self._completions[: len(self._completions) // COMPLETION.size * COMPLETION.size]
        size = sum(end.size for end in _split(ends))
        whole = ends, self._results[:size] if after_reset else self._results
        self._completions, self._results = b"", b""
        return whole

    def _exchange(self) -> None:
        """Sends what is to be sent and takes what came, or waits a moment."""
        now = self._clock()
        while len(self._out) < AHEAD and (data := self._host.send(now)):
            self._out += data
        sent, got = self._port.exchange(self._out, min(TICK, self._host.deadline - now))
        self._out = self._out[sent:]
        if got:
            self._host.receive(got, self._clock())

    def _see_life(self, what: str) -> None:
        """Gives up a board that is silent or stuck.

        Raises:
            DriverError: it is. The next batch begins with a reset.
        """
        now = self._clock()
        if now - self._host.heard > self._patience:
            reason = (
                f"the board at {self._port.name} fell silent at {what}; see that it is on and plugged in, "
                "and start again"
            )
        elif now - self._host.moved > self._stalled:
            reason = (
                f"no completion of {what} from the board at {self._port.name} in {self._stalled:.0f} s; "
                f"run vrex link --selftest {self._port.name}"
            )
        else:
            return
        raise DriverError(reason)


def _split(completions: bytes) -> list[Completion]:
    parts = range(0, len(completions), COMPLETION.size)
    return [Completion.unpack(completions[first : first + COMPLETION.size]) for first in parts]


def _known(board: Capabilities, unit: str) -> str:
    """The board's configuration, for people: a preset's name if it is one."""
    names = [name for name, config in PRESETS.items() if digest(config, unit) == board.digest]
    return f"preset {names[0]}" if names else "another configuration"


def open_serial(name: str, config: Config) -> SerialTransport:
    """Opens a KVPU on a board.

    Args:
        name: `serial:PORT` or `serial:PORT@BAUD`.
        config: accelerator.

    Raises:
        DriverError: there is no such port, or not this accelerator behind it.
    """
    port, baud = parse_name(name)
    return SerialTransport(CommandInterface(config), SerialPort(port, baud))
