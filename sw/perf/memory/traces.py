"""Read traces in the text formats of public simulators, so that anyone can check the memory models.

DRAMSim3: `0xADDRESS READ CYCLE` a line. Ramulator 2, front end LoadStoreTrace: `LD 0xADDRESS`. MQSim: arrival
time in ns, device, first sector of 512 bytes, sectors, 1 for a read.
"""

import random
from collections.abc import Iterator, Sequence

from vrex.sw.perf.memory.dram import SEQUENTIAL
from vrex.sw.perf.memory.parts import Dram

READS = 20_000
"""Reads of a DRAM trace."""
SPACE = 1 << 33
"""Bytes that random reads touch."""
SECTOR = 512


def reads(part: Dram, channels: int, chunk: int, pattern: str, count: int = READS) -> Iterator[int]:
    """Byte addresses in the whole memory, one a burst.

    Args:
        part: one channel.
        channels: of the memory.
        chunk: contiguous bytes of a request of pattern `random`.
        pattern: `sequential` or `random`.
        count: reads.
    """
    size = part.burst_bytes
    if pattern == SEQUENTIAL:
        yield from range(0, count * size, size)
        return
    source = random.Random(1)
    for _ in range(-(-count * size // chunk)):
        start = source.randrange(SPACE // chunk) * chunk
        yield from range(start, start + chunk, size)


def dramsim3(part: Dram, channels: int, addresses: Sequence[int]) -> bytes:
    """A trace whose reads arrive as fast as all channels' data pins could take them.

    A cycle is two transfers long: of LPDDR5, whose command clock is slower, one of the data clock.
    """
    cycles = part.burst_length / 2 / channels
    lines = (f"0x{address:X} READ {int(index * cycles)}" for index, address in enumerate(addresses))
    return ("\n".join(lines) + "\n").encode()


def ramulator2(addresses: Sequence[int]) -> bytes:
    """A trace for the front end LoadStoreTrace."""
    return ("\n".join(f"LD 0x{address:X}" for address in addresses) + "\n").encode()


def mqsim(chunk: int, count: int) -> bytes:
    """A trace of random reads of `chunk` bytes that all arrive at once, a ns apart to keep their order."""
    source = random.Random(1)
    capacity = 1 << 38
    lines = []
    for index in range(count):
        sector = source.randrange(capacity // chunk) * chunk // SECTOR
        lines.append(f"{index} 0 {sector} {chunk // SECTOR} 1")
    return ("\n".join(lines) + "\n").encode()
