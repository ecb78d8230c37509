"""What PCI Express delivers: lanes and line code, packets with their headers, skip ordered sets."""

from vrex.sw.perf.description.system import Link

RATES = {1: 2.5, 2: 5.0, 3: 8.0, 4: 16.0, 5: 32.0}
"""Gigatransfers/s of a lane by generation."""

FRAMING = 8
"""Bytes of start token with sequence number, and of LCRC (PCIe 3.0, Sections 3.5.2 and 4.2.2)."""
WRITE_HEADER, COMPLETION_HEADER = 16, 12
"""Memory write with a 64-bit address: four words; completion with data: three (PCIe 3.0, Section 2.2)."""
SKIP_SHARE = 1 / 371
"""A skip ordered set takes the place of a block, once in 370 to 375 blocks (PCIe 3.0, Section 4.2.7)."""
COMMAND_BYTES = (WRITE_HEADER + FRAMING) * 2 + (16 + WRITE_HEADER + FRAMING) + (4 + WRITE_HEADER + FRAMING)
"""What an NVMe command costs towards the host beside its data: reads of its submission entry and page list,
its completion entry of 16 bytes, and an interrupt message of 4 (NVMe 1.4)."""


def raw(link: Link) -> float:
    """Bytes/s of all lanes behind the line code: 8b/10b up to generation 2, 128b/130b after."""
    coded = 0.8 if link.generation <= 2 else 128 / 130
    return link.lanes * RATES.get(link.generation, 64.0) * 1e9 / 8 * coded * (1 - SKIP_SHARE)


def nominal(link: Link) -> float:
    """Bytes/s as tables round it: a gigabyte a lane of generation 3, twice as much in each later one."""
    return link.lanes * 1e9 * 2.0 ** (link.generation - 3)


def wire_bytes(link: Link, chunk: float, header: int) -> float:
    """Bytes on the lanes for a chunk of data in packets of `max_payload`.

    Args:
        link: PCIe.
        chunk: bytes of data at contiguous addresses.
        header: bytes of a packet's header.
    """
    packets = -(-chunk // link.max_payload)
    return chunk + packets * (header + FRAMING)


def write_rate(link: Link, chunk: float) -> float:
    """Bytes/s of data that a drive writes into the accelerator's memory, an NVMe command a chunk."""
    return raw(link) * chunk / (wire_bytes(link, chunk, WRITE_HEADER) + COMMAND_BYTES)


def read_rate(link: Link, chunk: float) -> float:
    """Bytes/s of data that the accelerator reads from a host's memory, chunk by chunk."""
    return raw(link) * chunk / wire_bytes(link, chunk, COMPLETION_HEADER)
