"""Timing of the serial line: 8N1, a start bit, eight bits from the lowest on, a stop bit."""

from vrex.model.serial.frames import PAYLOAD_BYTES, line_bytes

BITS = 10
"""Of a byte on the line."""

LEAST_DIVISOR = 4
"""Clock cycles of a bit below which an edge is not found well enough within it."""

SIMULATED_DIVISOR = LEAST_DIVISOR
"""Of a simulated UART, as every cycle costs time; the design does the same at any number."""

SIMULATED_BYTE = 4
"""Clock cycles between two bytes of a simulated board that has no UART."""

SIMULATED_MEMORY = 1 << 25
"""Bytes of the memory of a simulated board with a DRE: as much as a ULX3S has."""


def throughput(baud: float, window: int, latency: float = 0.0, payload: int = PAYLOAD_BYTES) -> float:
    """Bytes of payload a second in one direction over a line without errors.

    A frame takes its bytes' time, and no more than `window` of them can be sent in the time that the first
    one and its acknowledgement take.

    Args:
        baud: bits a second.
        window: frames in flight at most.
        latency: seconds that a byte takes from one end to the other and an acknowledgement back, besides
            their own time on the line: USB, operating system.
        payload: bytes of payload of a frame.
    """
    byte = BITS / baud
    frame, ack = line_bytes(payload) * byte, line_bytes(0) * byte
    return payload / max(frame, (frame + ack + latency) / window)
