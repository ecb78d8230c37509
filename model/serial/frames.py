"""Frames of the serial link: the bytes on the line.

A frame is a header (`HEADER`), up to `PAYLOAD_BYTES` of payload and the CRC-32 of both (that of Ethernet and
zlib, lowest byte first), COBS-encoded, so that no byte of it is zero, and ended by a zero byte. Between two
zeros there may be nothing: a sender may put a zero in front of a frame, which then is whole whatever the line
held before.

COBS (consistent overhead byte stuffing; Cheshire and Baker, IEEE/ACM Transactions on Networking 7(2), 1999)
replaces every zero by the distance to the next one: one byte more a frame, and one more every 254 bytes
without a zero.
"""

import zlib
from dataclasses import dataclass
from enum import IntEnum

from vrex.model.lib.layout import Field, Layout

VERSION = 2
"""Of frames and of what the ends do; said in HELLO."""

PAYLOAD_BYTES = 256
"""Most bytes of payload of a frame, and the size of a board's buffer for one."""

CRC_BYTES = 4
LONGEST_BLOCK = 254
"""Bytes of a COBS block at most."""

DELIMITER = 0
NO_SESSION = 0
"""Session of a board that was reset by its button or its power; no host uses it."""

SEQUENCES = 256
"""Numbers of frames, and of sessions."""

HEADER = Layout(
    "HEADER",
    (
        Field("kind", 8, "see `Kind`"),
        Field("session", 8, "chosen by the host in RESET; 0 after a reset by button or power"),
        Field("sequence", 8, "of a frame with data: its number; else the number of the sender's next one"),
        Field("ack", 8, "the number of the next frame with data that the sender expects"),
        Field("limit", 8, "the first number that the sender has no room for yet"),
    ),
)
"""First bytes of a frame."""

CAPABILITIES = Layout(
    "CAPABILITIES",
    (
        Field("version", 8, "of the protocol"),
        Field("unit", 8, "1: KVPU, 2: DRE, 3: core"),
        Field("bus_bytes", 8, "of a beat of the unit's data streams"),
        Field("slots", 8, "frames with data that the board buffers: the host's window"),
        Field("digest", 64, "of the configuration, see `vrex.model.serial.capabilities.digest`"),
        Field("memory", 64, "bytes of the memory that the host may access, from address 0 on; 0: none"),
    ),
)
"""Payload of HELLO."""

HEADER_BYTES = HEADER.size
OVERHEAD = HEADER_BYTES + CRC_BYTES
LONGEST = OVERHEAD + PAYLOAD_BYTES
"""Bytes of a frame at most, before COBS."""


class Kind(IntEnum):
    """What a frame is. Those with data have numbers and are sent again until they arrive.

    To the board: DESCRIPTOR, whole descriptors; PAYLOAD, whole beats; ACCESS and DATA, accesses to memory and
    whole beats of the writes among them (`vrex.model.serial.memory`), which is all that a core takes. To the
    host: RESULT and KV, whole beats; COMPLETION, one completion; READ, whole beats of memory; END, the end of
    one access. ACK brings `ack` and `limit` alone. RESEND: what was sent since `ack` did not arrive, or does
    not show; send it again. RESET (to the board): forget everything, reset the unit, and begin the session of
    its header. HELLO (to the host): the board's session, and `CAPABILITIES`.
    """

    DESCRIPTOR = 0x01
    PAYLOAD = 0x02
    ACCESS = 0x03
    DATA = 0x04
    RESULT = 0x11
    COMPLETION = 0x12
    KV = 0x13
    READ = 0x14
    END = 0x15
    ACK = 0x80
    RESEND = 0x81
    RESET = 0x82
    HELLO = 0x83


CLOSING = (Kind.COMPLETION, Kind.END)
"""Kinds of which a frame holds one word, so that it leaves at once."""

CONTROL = 0x80
"""Bit of the kinds without data."""


class FrameError(ValueError):
    """Bytes between two delimiters that are no frame: damaged on the line."""


@dataclass(frozen=True)
class Frame:
    """A frame: the fields of `HEADER`, and its payload."""

    kind: int
    session: int
    sequence: int = 0
    ack: int = 0
    limit: int = 0
    payload: bytes = b""

    @property
    def is_data(self) -> bool:
        """Whether it has a number of its own."""
        return not self.kind & CONTROL


def cobs_encode(data: bytes) -> bytes:
    """`data` without zeros, one byte longer, and one more every 254 bytes without a zero."""
    encoded = bytearray()
    first = 0
    while True:
        zero = data.find(DELIMITER, first, first + LONGEST_BLOCK)
        if zero >= 0:
            encoded += bytes([zero - first + 1]) + data[first:zero]
            first = zero + 1
            continue
        block = data[first : first + LONGEST_BLOCK]
        encoded += bytes([len(block) + 1]) + block
        first += len(block)
        # A whole block has no zero behind it, so nothing needs to follow at the end of the data.
        if len(block) < LONGEST_BLOCK or first == len(data):
            return bytes(encoded)


def cobs_decode(data: bytes) -> bytes:
    """Inverse of `cobs_encode`.

    Raises:
        FrameError: a zero in it, or its last block is cut off.
    """
    decoded = bytearray()
    first = 0
    while first < len(data):
        code = data[first]
        block = data[first + 1 : first + code]
        if code == DELIMITER or DELIMITER in block or len(block) != code - 1:
            raise FrameError("no COBS")
        decoded += block
        first += code
        if code <= LONGEST_BLOCK and first < len(data):
            decoded.append(DELIMITER)
    return bytes(decoded)


def encode(frame: Frame) -> bytes:
    """The bytes on the line, with the delimiter at their end.

    Raises:
        ValueError: the payload is too long.
        struct.error: a field does not fit.
    """
    if len(frame.payload) > PAYLOAD_BYTES:
        raise ValueError(f"a frame holds {PAYLOAD_BYTES} bytes, not {len(frame.payload)}")
    body = HEADER.pack(vars(frame)) + frame.payload
    return cobs_encode(body + zlib.crc32(body).to_bytes(CRC_BYTES, "little")) + bytes([DELIMITER])


def decode(data: bytes) -> Frame:
    """The frame of what stood between two delimiters.

    Raises:
        FrameError: it is none, or damaged.
    """
    body = cobs_decode(data)
    if not OVERHEAD <= len(body) <= LONGEST:
        raise FrameError(f"a frame has {OVERHEAD} to {LONGEST} bytes, not {len(body)}")
    body, crc = body[:-CRC_BYTES], body[-CRC_BYTES:]
    if zlib.crc32(body) != int.from_bytes(crc, "little"):
        raise FrameError("wrong CRC")
    return Frame(**HEADER.unpack(body[:HEADER_BYTES]), payload=body[HEADER_BYTES:])


class Splitter:
    """Cuts a stream of bytes at the delimiters."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def split(self, data: bytes) -> list[bytes]:
        """What stood before each delimiter since the last call, empty ones left out.

        What is longer than any frame is cut off, so that a line full of noise does not fill memory; it is
        no frame either way.
        """
        *whole, rest = bytes(self._rest + data).split(bytes([DELIMITER]))
        self._rest = bytearray(rest[: 2 * LONGEST])
        return [part for part in whole if part]


def distance(start: int, end: int) -> int:
    """Frames from number `start` to number `end`, 0 to 255."""
    return (end - start) % SEQUENCES


def line_bytes(payload: int) -> int:
    """Most bytes on the line of a frame with so much payload, delimiter included."""
    body = OVERHEAD + payload
    return body + 1 + (body - 1) // LONGEST_BLOCK + 1
