"""A session with a board behind a serial port: the host's end of the link at an open port."""

import random
import time
from collections.abc import Callable

from vrex.model.serial.capabilities import Capabilities
from vrex.model.serial.frames import SEQUENCES, Kind
from vrex.model.serial.host import HostEnd, LinkFigures
from vrex.sw.driver.serial_port import SerialPort
from vrex.sw.driver.transport import DriverError

PATIENCE = 10.0
"""Seconds without a sign of life after which a board is given up."""

STALLED = 120.0
"""Seconds after which a board that answers, but does nothing, is given up."""

TICK = 0.1
"""Seconds to wait for the port at most."""

AHEAD = 512
"""Bytes of frames to make before the port takes them; more would only be older when they leave."""


class SerialSession:
    """Frames to a board, and what comes back, by kind.

    Attributes:
        name: of the port.
        capabilities: what the board said of itself.
        figures: what went over the line.
    """

    capabilities: Capabilities

    def __init__(
        self,
        port: SerialPort,
        figures: LinkFigures,
        *,
        clock: Callable[[], float] = time.monotonic,
        patience: float = PATIENCE,
        stalled: float = STALLED,
    ) -> None:
        """Resets the board at the end of an open port, and asks what it is.

        Args:
            port: of the board; the session closes it.
            figures: to count on.
            clock: the time in seconds.
            patience, stalled: see `PATIENCE`, `STALLED`.

        Raises:
            DriverError: nothing answers.
        """
        self.name, self.figures, self.clock = port.name, figures, clock
        self._port, self._patience, self._stalled = port, patience, stalled
        self._random = random.SystemRandom()
        self._number = 0
        try:
            self.begin()
        except BaseException:
            port.close()
            raise

    def begin(self) -> None:
        """Resets the board and begins a new session; what was on its way is forgotten.

        Raises:
            DriverError: nothing answers.
        """
        others = [number for number in range(1, SEQUENCES) if number != self._number]
        self._number = self._random.choice(others)
        self._host = HostEnd(self._number, self.clock(), self.figures)
        self._came: dict[int, bytearray] = {}
        self._out = b""
        while self._host.capabilities is None:
            self.exchange()
            if self.clock() - self._host.heard > self._patience:
                raise DriverError(
                    f"nothing answers at serial port {self.name}; see that the board is on, holds a "
                    "bitstream of vrex fpga, and has this rate"
                )
        self.capabilities = self._host.capabilities

    def wake(self) -> None:
        """Goes on after a pause in which nobody listened."""
        self._host.wake(self.clock())

    def put(self, kind: Kind, payload: bytes) -> None:
        """Queues a frame."""
        self._host.put(kind, payload)

    @property
    def unsent(self) -> int:
        """Frames that the board has not acknowledged."""
        return self._host.unsent

    def count(self, kind: Kind) -> int:
        """Bytes of a kind that have come and were not taken away."""
        return len(self._came.get(kind, b""))

    def take(self, kind: Kind) -> bytes:
        """Takes away all bytes of a kind that have come."""
        return bytes(self._came.pop(kind, b""))

    def exchange(self) -> None:
        """Sends what is to be sent and takes what came, or waits a moment.

        Raises:
            BoardResetError: the board was reset; what had come before is still there.
            DriverError: the port is not there any more.
        """
        now = self.clock()
        while len(self._out) < AHEAD and (data := self._host.send(now)):
            self._out += data
        sent, got = self._port.exchange(self._out, min(TICK, self._host.deadline - now))
        self._out = self._out[sent:]
        try:
            if got:
                self._host.receive(got, self.clock())
        finally:
            while self._host.delivered:
                kind, payload = self._host.delivered.popleft()
                self._came.setdefault(kind, bytearray()).extend(payload)

    def see_life(self, what: str) -> None:
        """Gives up a board that is silent or stuck.

        Args:
            what: is waited for.

        Raises:
            DriverError: it is.
        """
        now = self.clock()
        if now - self._host.heard > self._patience:
            raise DriverError(
                f"the board at {self.name} fell silent at {what}; see that it is on and plugged in, "
                "and start again"
            )
        if now - self._host.moved > self._stalled:
            raise DriverError(
                f"no completion of {what} from the board at {self.name} in {self._stalled:.0f} s; "
                f"run vrex link --selftest {self.name}"
            )

    def close(self) -> None:
        """Lets go of the port; a second call does nothing."""
        self._port.close()
