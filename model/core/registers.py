"""Registers of a core behind its AXI4-Lite port: addresses, widths, reset values and meanings as a table."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from vrex.model.config import Config

ID = 0x58455256
"""Value of the register ID: `VREX` in ASCII, little-endian."""

VERSION = 0x0001_0001
"""Value of the register VERSION: major number in the upper half, minor in the lower."""


class Register(IntEnum):
    """Registers by their address in bytes; each is a word of 32 bits. `REGISTERS` has their meanings."""

    ID = 0x000
    VERSION = 0x004
    CAPS = 0x008
    CONTROL = 0x010
    STATUS = 0x014
    IRQ = 0x018
    IRQ_MASK = 0x01C
    JOB_BASE = 0x020
    JOB_SIZE = 0x024
    JOB_TAIL = 0x028
    JOB_HEAD = 0x02C
    END_BASE = 0x030
    END_TAIL = 0x034
    END_HEAD = 0x038
    SEQUENCES = 0x040
    BUDGET = 0x044
    STALL = 0x048
    TIMEOUT = 0x04C
    DEVICE_BASE = 0x050
    DEVICE_PAGES = 0x054
    HOST_BASE = 0x058
    HOST_PAGES = 0x05C
    CYCLES = 0x080
    JOBS = 0x084
    INSTRUCTIONS = 0x088
    BUSY = 0x08C
    LXE_BUSY = 0x090
    DPE_BUSY = 0x094
    DPE_NO_WEIGHTS = 0x098
    DPE_NO_ROWS = 0x09C
    DPE_NO_ROOM = 0x0A0
    VPE_BUSY = 0x0A4
    DRE_BUSY = 0x0A8
    LOAD_BUSY = 0x0AC
    LOAD_WAIT = 0x0B0
    SAVE_BUSY = 0x0B4
    FEED_BUSY = 0x0B8
    SEQUENCER_WAIT = 0x0BC
    READ_BEATS = 0x0C0
    WRITE_BEATS = 0x0C4
    KV_WAIT = 0x0C8
    LOST_ENDS = 0x0CC


@dataclass(frozen=True, kw_only=True)
class RegisterInfo:
    """A row of the register table.

    Attributes:
        meaning: one line for the docs.
        bits: width; the others read 0.
        reset: value after reset.
        access: `RW`; `RO`; `W1C`, writing a 1 clears a bit; `OFF`, RW while CONTROL.enable and STATUS.busy
            are 0, else a write is answered with SLVERR; `COUNT`, read-only, counts and wraps.
    """

    meaning: str
    bits: int = 32
    reset: int = 0
    access: str = "RW"


def _off(meaning: str, bits: int = 32, reset: int = 0) -> RegisterInfo:
    return RegisterInfo(meaning=meaning, bits=bits, reset=reset, access="OFF")


def _count(meaning: str) -> RegisterInfo:
    return RegisterInfo(meaning=meaning, access="COUNT")


REGISTERS: dict[Register, RegisterInfo] = {
    Register.ID: RegisterInfo(meaning="`VREX` in ASCII", reset=ID, access="RO"),
    Register.VERSION: RegisterInfo(
        meaning="major number in 31:16, minor in 15:0", reset=VERSION, access="RO"
    ),
    Register.CAPS: RegisterInfo(
        meaning="log2 of: bus bits 3:0, dpe.trees 7:4, dpe.inputs 11:8, vpe.lanes 15:12, head_dim 19:16; "
        "KV heads 31:24",
        access="RO",
    ),
    Register.CONTROL: RegisterInfo(
        meaning="enable (bit 0): jobs are taken; reset (bit 1, reads 0): ends the job in work, resets all "
        "but this port, drains the bus, clears `enable` and both rings",
        bits=2,
    ),
    Register.STATUS: RegisterInfo(
        meaning="busy (bit 0): a job is in work; draining (bit 1): a reset is; full (bit 2): ring of ends",
        bits=3,
        access="RO",
    ),
    Register.IRQ: RegisterInfo(
        meaning="ended (bit 0): a job has; failed (bit 1): its status was not OK", bits=2, access="W1C"
    ),
    Register.IRQ_MASK: RegisterInfo(meaning="bits of IRQ that raise the interrupt", bits=2),
    Register.JOB_BASE: _off("page of the ring of jobs"),
    Register.JOB_SIZE: _off("log2 of the jobs, and of the ends, that fit their rings", bits=4, reset=4),
    Register.JOB_TAIL: RegisterInfo(meaning="doorbell: number of jobs written so far, modulo 2^16", bits=16),
    Register.JOB_HEAD: RegisterInfo(meaning="number of jobs taken so far, modulo 2^16", bits=16, access="RO"),
    Register.END_BASE: _off("page of the ring of ends"),
    Register.END_TAIL: RegisterInfo(
        meaning="number of ends written so far, modulo 2^16", bits=16, access="RO"
    ),
    Register.END_HEAD: RegisterInfo(meaning="number of ends that the host has read, modulo 2^16", bits=16),
    Register.SEQUENCES: _off("video streams: a job's `sequence` is below", bits=16, reset=1),
    Register.BUDGET: _off("most instructions of a job; 0: any number"),
    Register.STALL: _off("cycles without progress after which a job is STALLED; 0: for ever", reset=1 << 20),
    Register.TIMEOUT: _off("cycles to wait for memory; 0: for ever"),
    Register.DEVICE_BASE: _off("first page of the device window, 4 KiB each"),
    Register.DEVICE_PAGES: _off("pages of the device window; 0: no access"),
    Register.HOST_BASE: _off("first page of the host window"),
    Register.HOST_PAGES: _off("pages of the host window; 0: no access"),
    Register.CYCLES: _count("cycles since reset"),
    Register.JOBS: _count("jobs ended"),
    Register.INSTRUCTIONS: _count("instructions taken by the sequencer"),
    Register.BUSY: _count("cycles with a job in work"),
    Register.LXE_BUSY: _count("cycles with an instruction in the LXE"),
    Register.DPE_BUSY: _count("cycles with a beat in the trees of the DPE"),
    Register.DPE_NO_WEIGHTS: _count("cycles in which the DPE waits for weights"),
    Register.DPE_NO_ROWS: _count("cycles in which the DPE waits for rows"),
    Register.DPE_NO_ROOM: _count("cycles in which the DPE waits for the taker of its results"),
    Register.VPE_BUSY: _count("cycles with a VECTOR in the LXE"),
    Register.DRE_BUSY: _count("cycles with a command in the DRE"),
    Register.LOAD_BUSY: _count("cycles with a row on its way to the LXE"),
    Register.LOAD_WAIT: _count("cycles in which the LXE waits for a line that is not there"),
    Register.SAVE_BUSY: _count("cycles with a row on its way from the LXE to memory"),
    Register.FEED_BUSY: _count("cycles with a row on its way to the DRE"),
    Register.SEQUENCER_WAIT: _count(
        "cycles in which the sequencer waits: WAIT, TOKENS, or an engine's full queue"
    ),
    Register.READ_BEATS: _count("read beats of the AXI4 port"),
    Register.WRITE_BEATS: _count("write beats of the AXI4 port"),
    Register.KV_WAIT: _count("cycles in which the DRE's stream `kv` waits for room"),
    Register.LOST_ENDS: _count("jobs whose end could not be written"),
}
"""All registers. Other addresses, and writes to those that are RO or COUNT, are answered with SLVERR."""


def caps(config: Config) -> int:
    """Value of the register CAPS."""
    sizes = (config.bus_bits, config.dpe.trees, config.dpe.inputs, config.vpe.lanes, config.kvmu.head_dim)
    return sum((size.bit_length() - 1) << 4 * n for n, size in enumerate(sizes)) | config.kvmu.kv_heads << 24


def register_table(registers: Mapping[Any, RegisterInfo] = REGISTERS) -> str:
    """The docs' table of registers in Markdown, of a core's by default."""
    rows = ["| address | register | bits | access | reset | meaning |", "|---|---|---|---|---|---|"]
    rows += [
        f"| 0x{register.value:03x} | `{register.name}` | {info.bits} | {info.access} | {info.reset:#x} "
        f"| {info.meaning} |"
        for register, info in registers.items()
    ]
    return "\n".join(rows)
