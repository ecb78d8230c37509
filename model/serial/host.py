"""The host's end of the serial link, without a clock or a port of its own: bytes and the time go in and out.

The host alone has timers. It sends as far as the board's `limit` lets it, goes back to what the board lacks
when that asks or stays silent, and asks the board in turn for what is missing.
"""

from collections import deque
from dataclasses import dataclass

from vrex.model.serial.capabilities import Capabilities
from vrex.model.serial.frames import (
    DELIMITER,
    NO_SESSION,
    SEQUENCES,
    Frame,
    FrameError,
    Kind,
    Splitter,
    decode,
    distance,
    encode,
)

WINDOW = SEQUENCES // 2
"""Frames in flight at most, whatever room the board says it has."""

FIRST_WAIT, LEAST_WAIT, LONGEST_WAIT = 0.5, 0.05, 4.0
"""Seconds of silence before the host asks: before anything was measured, and the bounds after that."""

MOST_FACTOR = 8
"""How much longer to wait at most; more would leave a line idle that damages most frames."""

SMOOTHING, SPREADING, SPREADS = 1 / 8, 1 / 4, 4
"""Weights of a new measurement of the round trip, and how many of its deviations to wait (as RFC 6298)."""


class BoardResetError(Exception):
    """The board was reset by its button, its power or another host: what it held is lost."""


@dataclass
class LinkFigures:
    """What went over the line, seen from the host.

    Attributes:
        frames: sent with data, each counted once.
        resent: sent once more.
        received: frames with data that were taken.
        repeated: frames with data that came again, or too early.
        damaged: stretches between two delimiters that were no frame.
        asked: how often the host asked for what was missing.
        waited: how often it did so because of silence.
        sent_bytes, received_bytes: on the line.
    """

    frames: int = 0
    resent: int = 0
    received: int = 0
    repeated: int = 0
    damaged: int = 0
    asked: int = 0
    waited: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0


class HostEnd:
    """State of the host's end.

    Attributes:
        capabilities: of the board; None until it said HELLO in this session.
        delivered: kind and payload of what the board sent, in order, for the caller to take away.
        heard: when the last frame of this session came.
        moved: when something new arrived last, there or here.
        figures: what went over the line.
    """

    def __init__(self, session: int, now: float, figures: LinkFigures | None = None) -> None:
        """Begins a session with a RESET.

        Args:
            session: 1 to 255, another one than before.
            now: the time in seconds, of any clock.
            figures: to count on.

        Raises:
            ValueError: no host may use this session.
        """
        if not NO_SESSION < session < SEQUENCES:
            raise ValueError(f"a session is a number from 1 to {SEQUENCES - 1}, not {session}")
        self.session = session
        self.capabilities: Capabilities | None = None
        self.delivered: deque[tuple[int, bytes]] = deque()
        self.figures = figures or LinkFigures()
        self.heard = self.moved = now
        self._splitter = Splitter()
        self._queue: deque[tuple[int, bytes]] = deque()
        self._flight: deque[tuple[int, bytes]] = deque()
        self._base = self._next = self._newest = self._limit = 0
        self._expected = 0
        self._reset, self._resend, self._ack, self._asked = True, False, False, False
        self._timed: tuple[int, float] | None = None
        self._round, self._spread = 0.0, 0.0
        self._factor = 1
        self._settle(now)

    # -- what the caller wants -----------------------------------------------------------------------------

    def put(self, kind: int, payload: bytes) -> None:
        """Queues a frame with data."""
        self._queue.append((kind, payload))

    def wake(self, now: float) -> None:
        """Goes on after a pause in which nobody listened."""
        self.heard = self.moved = now
        self._settle(now)

    @property
    def unsent(self) -> int:
        """Frames with data that the board has not acknowledged."""
        return len(self._queue) + len(self._flight)

    # -- from the board ------------------------------------------------------------------------------------

    def receive(self, data: bytes, now: float) -> None:
        """Takes bytes from the line.

        Raises:
            BoardResetError: the board is not in this session any more.
        """
        self.figures.received_bytes += len(data)
        for part in self._splitter.split(data):
            try:
                frame = decode(part)
            except FrameError:
                self.figures.damaged += 1
                self._ask()
                continue
            self._frame(frame, now)

    def _frame(self, frame: Frame, now: float) -> None:
        if frame.kind == Kind.HELLO:
            self._hello(frame, now)
            return
        if frame.session != self.session or self.capabilities is None:
            # Sent before the board got this session's RESET.
            return
        self.heard = now
        self._acknowledged(frame, now)
        if frame.is_data:
            self._data(frame, now)
        elif frame.kind == Kind.RESEND:
            self._go_back()

    def _hello(self, frame: Frame, now: float) -> None:
        if frame.session == self.session:
            if self.capabilities is None:
                self.capabilities = Capabilities.unpack(frame.payload)
                self._limit = frame.limit
                self._reset = False
                self.heard = self.moved = now
                self._settle(now)
        elif self.capabilities is not None:
            raise BoardResetError

    def _acknowledged(self, frame: Frame, now: float) -> None:
        acked = distance(self._base, frame.ack)
        if acked > len(self._flight):
            return
        room = distance(frame.ack, frame.limit)
        if room < WINDOW and distance(self._limit, frame.limit) < WINDOW:
            if frame.limit != self._limit:
                self.moved = now
            self._limit = frame.limit
        if not acked:
            return
        if self._timed is not None and distance(self._base, self._timed[0]) < acked:
            self._measure(now - self._timed[1])
            self._timed = None
        if distance(self._base, self._next) < acked:
            self._next = frame.ack
        for _ in range(acked):
            self._flight.popleft()
        self._base = frame.ack
        self.moved = now
        self._settle(now)

    def _data(self, frame: Frame, now: float) -> None:
        if frame.sequence != self._expected:
            self.figures.repeated += 1
            self._ack = True
            if distance(self._expected, frame.sequence) < SEQUENCES // 2:
                self._ask()
            return
        self._expected = (self._expected + 1) % SEQUENCES
        self._ack, self._asked = True, False
        self.figures.received += 1
        self.delivered.append((frame.kind, frame.payload))
        self.moved = now
        self._settle(now)

    def _ask(self) -> None:
        """Asks for what is missing, once until it comes."""
        if not self._asked and self.capabilities is not None:
            self._resend = self._asked = True

    def _go_back(self) -> None:
        self._next = self._base
        self._timed = None

    def _measure(self, seconds: float) -> None:
        """Takes a round trip into account."""
        self._factor = 1
        if not self._round:
            self._round, self._spread = seconds, seconds / 2
        self._spread += SPREADING * (abs(seconds - self._round) - self._spread)
        self._round += SMOOTHING * (seconds - self._round)

    def _settle(self, now: float) -> None:
        """Something moved: waits anew, as long as a round trip suggests."""
        wait = self._round + SPREADS * self._spread if self._round else FIRST_WAIT
        self._deadline = now + min(max(wait, LEAST_WAIT) * self._factor, LONGEST_WAIT)

    # -- to the board --------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float:
        """When `send` is to be called again if nothing comes until then."""
        return self._deadline

    def send(self, now: float) -> bytes:
        """The bytes of the next frame, none if there is nothing to say or no room at the board.

        RESET comes first, then RESEND, then the next frame with data, then ACK.
        """
        if now >= self._deadline:
            self._silence(now)
        if self._reset:
            self._reset = False
            # Ends whatever the board has of a frame.
            return bytes([DELIMITER]) + self._encoded(Kind.RESET)
        if self.capabilities is None:
            return b""
        if self._resend:
            self._resend = False
            self.figures.asked += 1
            return self._encoded(Kind.RESEND)
        if (frame := self._next_frame(now)) is not None:
            return frame
        return self._encoded(Kind.ACK) if self._ack else b""

    def _silence(self, now: float) -> None:
        """Nothing moved for a while: asks and sends again, and waits longer until a round trip is measured.

        What was sent twice measures none (Karn), so the wait could else stay too short for good.
        """
        self._factor = min(2 * self._factor, MOST_FACTOR)
        self._settle(now)
        if self.capabilities is None:
            self._reset = True
            return
        self.figures.waited += 1
        self._resend = True
        self._go_back()

    def _next_frame(self, now: float) -> bytes | None:
        sent = distance(self._base, self._next)
        if sent == len(self._flight):
            if not self._queue:
                return None
            if distance(self._base, self._limit) <= sent or sent >= WINDOW:
                return None
            self._flight.append(self._queue.popleft())
        kind, payload = self._flight[sent]
        if self._next == self._newest:
            self._newest = (self._newest + 1) % SEQUENCES
            self.figures.frames += 1
            if self._timed is None:
                self._timed = self._next, now
        else:
            self.figures.resent += 1
        frame = self._encoded(kind, payload)
        self._next = (self._next + 1) % SEQUENCES
        return frame

    def _encoded(self, kind: int, payload: bytes = b"") -> bytes:
        self._ack = False
        limit = (self._expected + WINDOW) % SEQUENCES
        data = encode(Frame(kind, self.session, self._next, self._expected, limit, payload))
        self.figures.sent_bytes += len(data)
        return data
