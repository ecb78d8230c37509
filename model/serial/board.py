"""The board's end of the serial link, without a clock (RTL `vrex.hw.serial.bridge`).

Frames with data that arrive whole and in order are put into slots, and from these, in their order, into the
unit's streams; all others are dropped. What the unit gives is packed into frames that stay in their slots
until the host has acknowledged them. The board has no timers: it sends again only what the host asks for.
"""

from collections import deque

from vrex.model.serial.capabilities import Capabilities
from vrex.model.serial.frames import (
    CLOSING,
    NO_SESSION,
    PAYLOAD_BYTES,
    SEQUENCES,
    Frame,
    FrameError,
    Kind,
    Splitter,
    decode,
    distance,
    encode,
)

RECEIVE_SLOTS = 16
SEND_SLOTS = 8


class BoardEnd:
    """State of the board's end.

    Attributes:
        session: of the host that reset it last; `NO_SESSION` after power-up.
        received: kind and payload of the frames that the unit has still to take.
        resets: how often the unit was reset.
        damaged: frames that were none.
    """

    def __init__(self, capabilities: Capabilities) -> None:
        """A board after power-up, which says HELLO."""
        self.capabilities = capabilities
        self.resets = self.damaged = 0
        self._splitter = Splitter()
        self._begin(NO_SESSION)

    def _begin(self, session: int) -> None:
        self.session = session
        self.received: deque[tuple[int, bytes]] = deque()
        self._expected = self._consumed = 0
        self._closed: dict[int, tuple[int, bytes]] = {}
        self._open: tuple[int, bytes] | None = None
        self._base = self._next = self._fill = 0
        self._hello, self._ack, self._resend, self._asked = True, False, False, False

    # -- from the host -------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Takes bytes from the line."""
        for part in self._splitter.split(data):
            try:
                self._frame(decode(part))
            except FrameError:
                self.damaged += 1
                self._ask()

    def _frame(self, frame: Frame) -> None:
        if frame.kind == Kind.RESET:
            self.resets += 1
            self._begin(frame.session)
            return
        if frame.session != self.session:
            # The host does not know yet that the board was reset.
            self._hello = True
            return
        self._acknowledged(frame.ack)
        if frame.is_data:
            self._data(frame)
        elif frame.kind == Kind.RESEND:
            self._next = self._base
            self._ack, self._asked = True, False

    def _acknowledged(self, ack: int) -> None:
        if distance(self._base, ack) > distance(self._base, self._fill):
            return
        if distance(self._base, self._next) < distance(self._base, ack):
            self._next = ack
        while self._base != ack:
            del self._closed[self._base]
            self._base = (self._base + 1) % SEQUENCES

    def _data(self, frame: Frame) -> None:
        ahead = distance(self._expected, frame.sequence)
        if ahead == 0 and distance(self._consumed, self._expected) < RECEIVE_SLOTS:
            self.received.append((frame.kind, frame.payload))
            self._expected = (self._expected + 1) % SEQUENCES
            self._ack, self._asked = True, False
        elif ahead >= SEQUENCES // 2:
            # Repeated, so the host may have missed the acknowledgement.
            self._ack = True
        else:
            self._ask()

    def _ask(self) -> None:
        """Asks for what is missing, once until it comes."""
        if not self._asked and self.session != NO_SESSION:
            self._resend = self._asked = True

    # -- the unit ------------------------------------------------------------------------------------------

    def take(self) -> tuple[int, bytes]:
        """Kind and payload of the oldest frame; its slot is free then."""
        self._consumed = (self._consumed + 1) % SEQUENCES
        self._ack = True
        return self.received.popleft()

    def put(self, kind: int, word: bytes) -> bool:
        """Takes a word of one of the unit's streams, whose size divides that of a frame.

        A frame ends when it is full, when a word of another kind comes, and after each word of `CLOSING`.

        Returns:
            Whether there was room; else the unit has to wait.
        """
        if self._open is not None and self._open[0] != kind:
            self._close()
        if distance(self._base, self._fill) == SEND_SLOTS:
            return False
        _, before = self._open or (kind, b"")
        self._open = (kind, before + word)
        if kind in CLOSING or len(before) + len(word) == PAYLOAD_BYTES:
            self._close()
        return True

    def _close(self) -> None:
        assert self._open is not None
        self._closed[self._fill], self._open = self._open, None
        self._fill = (self._fill + 1) % SEQUENCES

    # -- to the host ---------------------------------------------------------------------------------------

    def send(self) -> bytes:
        """The bytes of the next frame, none if there is nothing to say.

        HELLO comes first, then RESEND, then the next frame with data, then ACK.
        """
        if self._hello:
            self._hello = False
            return self._encoded(Kind.HELLO, self.capabilities.pack())
        if self._resend:
            self._resend = False
            return self._encoded(Kind.RESEND)
        if self._next != self._fill:
            frame = self._encoded(*self._closed[self._next])
            self._next = (self._next + 1) % SEQUENCES
            return frame
        if self._ack:
            return self._encoded(Kind.ACK)
        return b""

    def _encoded(self, kind: int, payload: bytes = b"") -> bytes:
        self._ack = False
        limit = (self._consumed + RECEIVE_SLOTS) % SEQUENCES
        return encode(Frame(kind, self.session, self._next, self._expected, limit, payload))
