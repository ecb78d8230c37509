"""SDR SDRAM: what a chip asks of its controller, in nanoseconds, and the same in cycles of a clock.

Source: JEDEC 21-C, 3.11.5 (commands and their rules); the figures of a chip are its data sheet's.
"""

import math
from dataclasses import dataclass
from enum import IntEnum


class SdramCommand(IntEnum):
    """Commands: RAS, CAS and WE, asserted as ones, RAS in the highest bit."""

    NOP = 0b000
    BURST_STOP = 0b001
    READ = 0b010
    WRITE = 0b011
    ACTIVATE = 0b100
    PRECHARGE = 0b101
    REFRESH = 0b110
    MODE = 0b111


ALL_BANKS = 1 << 10
"""Address bit 10 of PRECHARGE: all banks; of READ and WRITE: precharge afterwards."""


def mode_word(cas_latency: int) -> int:
    """The mode register for reads and writes of one word."""
    return cas_latency << 4


@dataclass(frozen=True)
class SdramCycles:
    """Least distances between commands, in cycles; `refresh` is the most between two REFRESHes.

    Attributes:
        cas: from READ to its word.
        rcd: ACTIVATE to READ or WRITE of that bank.
        rp: PRECHARGE to ACTIVATE or REFRESH.
        ras: ACTIVATE to PRECHARGE.
        rc: ACTIVATE to ACTIVATE of one bank, or to REFRESH.
        rfc: REFRESH to anything else.
        wr: WRITE to PRECHARGE.
        mrd: MODE to anything else.
        init: before the first command.
        refresh: REFRESH to REFRESH.
    """

    cas: int
    rcd: int
    rp: int
    ras: int
    rc: int
    rfc: int
    wr: int
    mrd: int
    init: int
    refresh: int


@dataclass(frozen=True)
class SdramChip:
    """A chip, or several side by side.

    Attributes:
        name: of it.
        banks, rows, columns: of words.
        width: bits of a word.
        rcd, rp, ras, rc, rfc, wr: least times in ns, as in `SdramCycles`.
        rrd: ACTIVATE to ACTIVATE of another bank, in ns.
        init: pause after power-up, in ns.
        refresh: most time between two of the `rows` REFRESHes of all rows, in ns.
        cas2_mhz, cas3_mhz: highest clock with CAS latency 2 and 3.
        mrd: cycles from MODE to anything else.
    """

    name: str
    banks: int
    rows: int
    columns: int
    width: int
    rcd: float
    rp: float
    ras: float
    rc: float
    rfc: float
    wr: float
    rrd: float
    init: float
    refresh: float
    cas2_mhz: float
    cas3_mhz: float
    mrd: int = 2

    @property
    def bytes(self) -> int:
        """Its size."""
        return self.banks * self.rows * self.columns * self.width // 8

    def cycles(self, mhz: float) -> SdramCycles:
        """Its times in cycles of a clock, rounded to the safe side.

        Args:
            mhz: frequency of the clock.

        Raises:
            ValueError: the chip is slower than that.
        """
        if mhz > self.cas3_mhz:
            raise ValueError(f"{self.name} runs at up to {self.cas3_mhz:g} MHz, not at {mhz:g}")

        def least(ns: float) -> int:
            # A hair less than the quotient, which may be a whole number but for the rounding of floats.
            return max(1, math.ceil(ns * mhz / 1000 - 1e-9))

        return SdramCycles(
            cas=2 if mhz <= self.cas2_mhz else 3,
            rcd=least(self.rcd),
            rp=least(self.rp),
            ras=least(self.ras),
            rc=least(self.rc),
            rfc=least(self.rfc),
            # Word and precharge in one cycle would mask the word.
            wr=max(2, least(self.wr)),
            mrd=self.mrd,
            init=least(self.init),
            refresh=math.floor(self.refresh * mhz / 1000 + 1e-9),
        )


SDR_32MB = SdramChip(
    "sdr-32mb",
    banks=4,
    rows=8192,
    columns=512,
    width=16,
    rcd=21,
    rp=21,
    ras=45,
    rc=70,
    rfc=70,
    wr=20,
    rrd=15,
    init=200_000,
    refresh=64e6 / 8192,
    cas2_mhz=100,
    cas3_mhz=133,
)
"""256 Mbit of 16 bits: the slowest figures of MT48LC16M16A2-75, IS42S16160-7 and AS4C16M16SA-7, so that any
of them does. An AS4C32M16SB-7 works as well, with half of its columns unused."""
