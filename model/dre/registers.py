"""Registers of the command units: a table of widths, reset values and meanings, and what SETREG does."""

from collections.abc import Iterable
from dataclasses import dataclass

from vrex.model.commands import CommandError, Descriptor, Register, Status
from vrex.model.config import Config
from vrex.model.dre import wtu
from vrex.model.lib.layout import Field, Layout

REGISTER_BITS = 32

KVPU, DRE, VOTER, RECALL = "KVPU", "DRE", "voter", "recall"
PREDICTION = (KVPU, DRE)
"""Units with HCU and WTU."""

IN_MEMORY = (DRE, RECALL)
"""Units with an AXI4 port."""

ON_CODES = (VOTER, RECALL)
"""Units that select tokens by codes."""

SCALE = Layout(
    "SCALE",
    (
        Field("mantissa", 16, "0, or with bit 15 set"),
        Field("exponent", 8, "see `vrex.model.dre.wtu.Scale`", signed=True),
    ),
)
"""Fields of the register SCALE."""


@dataclass(frozen=True, kw_only=True)
class RegisterInfo:
    """A row of the register table.

    Attributes:
        meaning: one line for the docs.
        bits: width.
        reset: value after reset.
        writable: SETREG writes it; else it is a counter, which wraps.
        units: that have it.
        maximum: largest value that SETREG accepts, where that is not all ones.
    """

    meaning: str
    bits: int = REGISTER_BITS
    reset: int = 0
    writable: bool = True
    units: tuple[str, ...] = PREDICTION
    maximum: int | None = None

    @property
    def largest(self) -> int:
        """Largest value that SETREG accepts."""
        return (1 << self.bits) - 1 if self.maximum is None else self.maximum


def _counter(meaning: str, *units: str) -> RegisterInfo:
    return RegisterInfo(meaning=meaning, writable=False, units=units or PREDICTION)


def _window(meaning: str) -> RegisterInfo:
    return RegisterInfo(meaning=meaning, units=IN_MEMORY)


REGISTERS: dict[Register, RegisterInfo] = {
    Register.TH_HD: RegisterInfo(meaning="Hamming threshold", bits=8, reset=7),
    Register.TH_R: RegisterInfo(meaning="WiCSum ratio, Q0.16", bits=wtu.TH_R_BITS, reset=19661),
    Register.TRANSFORM: RegisterInfo(
        meaning="score transform (`Transform`)",
        bits=2,
        reset=wtu.Transform.RAW,
        maximum=max(wtu.Transform),
    ),
    Register.SELECTION: RegisterInfo(
        meaning="selection rule (`Selection`)",
        bits=1,
        reset=wtu.Selection.EXACT,
        maximum=max(wtu.Selection),
    ),
    Register.SCALE: RegisterInfo(
        meaning="scale of the scores, fields of `SCALE`", bits=SCALE.bits, units=(*PREDICTION, *ON_CODES)
    ),
    Register.DEVICE_BASE: _window("first page of the device window, 4 KiB each"),
    Register.DEVICE_PAGES: _window("pages of the device window; 0: no access"),
    Register.HOST_BASE: _window("first page of the host window"),
    Register.HOST_PAGES: _window("pages of the host window; 0: no access"),
    Register.TIMEOUT: RegisterInfo(meaning="cycles to wait for memory; 0: for ever", units=IN_MEMORY),
    Register.HCU_BUSY: _counter("cycles with a command in the HCU"),
    Register.HCU_WAIT_IN: _counter("of them, cycles that wait for `din` or memory"),
    Register.HCU_WAIT_OUT: _counter("of them, cycles that wait for the taker of decisions"),
    Register.WTU_BUSY: _counter("cycles with a command in the WTU"),
    Register.WTU_WAIT_IN: _counter("of them, cycles that wait for `din` or memory"),
    Register.WTU_WAIT_OUT: _counter("of them, cycles that wait for the taker of bitmasks"),
    Register.WTU_ROWS: _counter("rows of scores"),
    Register.WTU_SEARCH: _counter("of rows that fit the score memory, cycles from last score to last bit"),
    Register.WTU_WORDS: _counter("of such rows, words through the lanes after the first pass"),
    Register.WTU_EXAMINED: _counter("clusters from a row's top one to the end of its threshold's bin"),
    Register.DEGENERATE_ROWS: _counter("degenerate rows of RETRIEVE", DRE),
    Register.APPEND_BUSY: _counter("cycles with an APPEND in work", DRE),
    Register.RETRIEVE_BUSY: _counter("cycles with a RETRIEVE in work", DRE),
    Register.FETCH_BUSY: _counter("cycles with a FETCH in work, also for RETRIEVE", DRE),
    Register.FETCH_WAIT_IN: _counter("of them, cycles that wait for memory", DRE),
    Register.FETCH_WAIT_OUT: _counter("of them, cycles that wait for the taker of `kv`", DRE),
    Register.READ_BURSTS: _counter("AXI read bursts", *IN_MEMORY),
    Register.READ_BEATS: _counter("AXI read beats", *IN_MEMORY),
    Register.WRITE_BURSTS: _counter("AXI write bursts", *IN_MEMORY),
    Register.WRITE_BEATS: _counter("AXI write beats", *IN_MEMORY),
    Register.KV_BEATS: _counter("beats on `kv`", *IN_MEMORY),
    Register.KV_HOST_BEATS: _counter("of them, beats from the host window", DRE),
    Register.VOTE_BUSY: _counter("cycles with a command in the unit of codes", *ON_CODES),
    Register.VOTE_WAIT_IN: _counter("of them, cycles that wait for `din`", *ON_CODES),
    Register.VOTE_WAIT_OUT: _counter("of them, cycles that wait for the taker of the bitmask", *ON_CODES),
}
"""All registers. After reset they hold the paper's N_hp-independent setting (Th_hd 7, Th_r 0.3, raw scores);
no window is set, so no access is allowed."""


def registers_of(unit: str) -> tuple[Register, ...]:
    """The registers that a unit has."""
    return tuple(register for register, info in REGISTERS.items() if unit in info.units)


KVPU_REGISTERS, DRE_REGISTERS, VOTER_REGISTERS, RECALL_REGISTERS = (
    registers_of(unit) for unit in (KVPU, DRE, VOTER, RECALL)
)

WINDOWS = (Register.DEVICE_BASE, Register.DEVICE_PAGES, Register.HOST_BASE, Register.HOST_PAGES)


def reset_values(registers: Iterable[Register]) -> dict[Register, int]:
    """The writable ones among registers, with their reset values."""
    return {
        register: int(REGISTERS[register].reset) for register in registers if REGISTERS[register].writable
    }


def counters(registers: Iterable[Register]) -> tuple[Register, ...]:
    """The read-only ones among registers."""
    return tuple(register for register in registers if not REGISTERS[register].writable)


def accepts(register: Register, value: int) -> bool:
    """Whether SETREG takes the value for a writable register."""
    if not 0 <= value <= REGISTERS[register].largest:
        return False
    return register != Register.SCALE or value & 0xFFFF == 0 or value & 0x8000 != 0


def scale_to_register(scale: wtu.Scale) -> int:
    """SCALE register of a scale."""
    return SCALE.to_int(vars(scale))


def scale_from_register(value: int) -> wtu.Scale:
    """Inverse of `scale_to_register`."""
    return wtu.Scale(**SCALE.from_int(value))


def register_table() -> str:
    """The docs' table of the registers in Markdown."""
    rows = ["| number | register | bits | access | reset | in | meaning |", "|---|---|---|---|---|---|---|"]
    for register, info in REGISTERS.items():
        access, units = "RW" if info.writable else "RO", ", ".join(info.units)
        reset = str(int(info.reset))
        rows.append(
            f"| {register.value} | `{register.name}` | {info.bits} | {access} | {reset} | {units} "
            f"| {info.meaning} |"
        )
    return "\n".join(rows)


def check_length(command: Descriptor, expected: int) -> None:
    """Raises CommandError(BAD_LENGTH) unless the payload has this length."""
    if command.length != expected:
        raise CommandError(Status.BAD_LENGTH)


class RegisterFile:
    """What SETREG writes and GETREG reads.

    Attributes:
        values: of the writable registers and of the counters that the model keeps; others read 0, for the
            model has no clock.
    """

    def __init__(self, registers: tuple[Register, ...], kept: tuple[Register, ...] = ()) -> None:
        """The registers of one unit after reset.

        Args:
            registers: all that it has.
            kept: counters that the unit's model counts.
        """
        self.values = reset_values(registers) | dict.fromkeys(kept, 0)
        self._registers = registers

    def set(self, command: Descriptor) -> None:
        """Executes SETREG."""
        if command.count not in list(reset_values(self._registers)):
            raise CommandError(Status.BAD_REGISTER)
        register = Register(command.count)
        if not accepts(register, command.param):
            raise CommandError(Status.BAD_VALUE)
        check_length(command, 0)
        self.values[register] = command.param

    def get(self, command: Descriptor) -> int:
        """Executes GETREG."""
        if command.count not in self._registers:
            raise CommandError(Status.BAD_REGISTER)
        check_length(command, 0)
        return self.values.get(Register(command.count), 0)

    def rule(self, config: Config) -> wtu.Rule:
        """The selection rule."""
        return wtu.Rule(
            th_r=self.values[Register.TH_R],
            transform=wtu.Transform(self.values[Register.TRANSFORM]),
            selection=wtu.Selection(self.values[Register.SELECTION]),
            buckets=config.wtu.buckets,
            scale=scale_from_register(self.values[Register.SCALE]),
        )
