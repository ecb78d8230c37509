"""An SDRAM chip for testbenches: its contents, and every rule that its data sheet has for the commands.

It knows times in nanoseconds alone and nothing of the controller's cycles. Like `vrex.tb.lib.streams` it
knows no simulator.
"""

from dataclasses import dataclass, field
from random import Random

from vrex.model.lib.sdram import ALL_BANKS, SdramChip, SdramCommand

LEAST_REFRESHES = 2
"""REFRESHes before the mode register is set."""

MASK_LATENCY = 2
"""Cycles from DQM to the word that it keeps from the pins."""

_SLACK = 1e-6
"""Rounding of floats, in ns."""

NEVER = float("-inf")


@dataclass
class Pins:
    """What the controller drives in a cycle; see `vrex.hw.lib.sdram.SdramPinsSignature`."""

    cke: int = 1
    command: int = SdramCommand.NOP
    bank: int = 0
    address: int = 0
    mask: int = 0
    dq_o: int = 0
    dq_oe: int = 0


@dataclass
class Bank:
    """A bank: the open row, if one is, and when what was done to it."""

    row: int | None = None
    activated: float = NEVER
    precharged: float = NEVER
    written: float = NEVER


@dataclass
class SdramModel:
    """A chip at a clock.

    Attributes:
        chip: its geometry and times.
        mhz: of its clock.
        rng: fills what was never written.
        violations: of its rules, a sentence each.
        words: contents, by number (bank, row and column, the column lowest).
        counts: commands so far.
    """

    chip: SdramChip
    mhz: float
    rng: Random
    violations: list[str] = field(default_factory=list)
    words: dict[int, int] = field(default_factory=dict)
    counts: dict[SdramCommand, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.power_up()

    def power_up(self) -> None:
        """Begins anew; the contents stay."""
        self.cycle = 0
        self.banks = [Bank() for _ in range(self.chip.banks)]
        self.refreshed = self.set = NEVER
        self.refreshes, self.precharged_all = 0, False
        self.cas: int | None = None
        # Words on their way: the cycle in which each is driven, and it; cycles in which none may be seen.
        self.driven: dict[int, int] = {}
        self.masked: set[int] = set()
        self.late = False

    @property
    def now(self) -> float:
        """Time since power-up, in ns."""
        return self.cycle * 1000 / self.mhz

    def number(self, bank: int, row: int, column: int) -> int:
        """Of a word; the order in which addresses go through rows, banks and columns."""
        return (row * self.chip.banks + bank) * self.chip.columns + column

    def word(self, number: int) -> int:
        """A word; a random one at first."""
        if number not in self.words:
            self.words[number] = self.rng.getrandbits(self.chip.width)
        return self.words[number]

    def bytes(self, address: int, size: int) -> bytes:
        """Bytes from an address, as the controller counts them."""
        width = self.chip.width // 8
        first, last = address // width, (address + size - 1) // width
        joined = b"".join(self.word(number).to_bytes(width, "little") for number in range(first, last + 1))
        return joined[address % width :][:size]

    def step(self, pins: Pins) -> int | None:
        """A rising edge of the clock.

        Args:
            pins: just before it.

        Returns:
            The word that the chip drives until the next edge, None for high impedance.
        """
        self._check_bus(pins)
        command = SdramCommand(pins.command)
        if command is not SdramCommand.NOP:
            self.counts[command] = self.counts.get(command, 0) + 1
            self._check_started(command, pins)
            getattr(self, f"_{command.name.lower()}")(pins)
        if self.cas is not None and not self.late and self.now - self.refreshed > self.chip.refresh + _SLACK:
            self.late = True
            self._report(f"refresh interval: {self.now - self.refreshed:.0f} ns without REFRESH")
        self.cycle += 1
        return self.driven.get(self.cycle)

    # -- rules -------------------------------------------------------------------------------------------

    def _report(self, sentence: str) -> None:
        self.violations.append(f"cycle {self.cycle}: {sentence}")

    def _since(self, rule: str, moment: float, least: float) -> None:
        """A time must have passed since a moment."""
        if self.now - moment < least - _SLACK:
            self._report(f"{rule}: {self.now - moment:.1f} of {least:g} ns")

    def _settled(self) -> None:
        """What every command waits for."""
        self._since("tRFC", self.refreshed, self.chip.rfc)
        if self.cycle - self.set < self.chip.mrd:
            self._report(f"tMRD: {self.cycle - self.set} of {self.chip.mrd} cycles")

    def _check_bus(self, pins: Pins) -> None:
        """Nobody drives at once, or without being asked to."""
        if pins.dq_oe and {self.cycle, self.cycle - 1} & self.driven.keys():
            self._report("bus contention: a word is driven onto the chip's, or right behind it")
        if pins.mask:
            self.masked.add(self.cycle + MASK_LATENCY)
        if self.cycle in self.driven and self.cycle in self.masked:
            self._report("DQM hides a word that is read")
        self.masked.discard(self.cycle)
        if pins.dq_oe and pins.command != SdramCommand.WRITE:
            self._report("a word is driven without WRITE")
        self.driven.pop(self.cycle - 2, None)

    def _check_started(self, command: SdramCommand, pins: Pins) -> None:
        if not pins.cke:
            self._report(f"{command.name} without CKE")
        if self.cas is not None:
            return
        self._since("start", 0.0, self.chip.init)
        if command is SdramCommand.PRECHARGE:
            self.precharged_all |= bool(pins.address & ALL_BANKS)
        elif command is SdramCommand.MODE:
            if not self.precharged_all or self.refreshes < LEAST_REFRESHES:
                self._report(f"start: MODE after {self.refreshes} REFRESHes")
        elif command is not SdramCommand.REFRESH:
            self._report(f"start: {command.name} before MODE")

    def _active(self, pins: Pins) -> Bank:
        """The bank of READ or WRITE, which must be open."""
        self._settled()
        bank = self.banks[pins.bank]
        if bank.row is None:
            self._report(f"bank state: bank {pins.bank} has no row open")
        self._since("tRCD", bank.activated, self.chip.rcd)
        if pins.address & ALL_BANKS:
            self._report("precharge behind a word is not modelled")
        if pins.address % ALL_BANKS >= self.chip.columns:
            self._report(f"there is no column {pins.address}")
        return bank

    # -- commands ----------------------------------------------------------------------------------------

    def _activate(self, pins: Pins) -> None:
        self._settled()
        bank = self.banks[pins.bank]
        if bank.row is not None:
            self._report(f"bank state: bank {pins.bank} is open")
        self._since("tRP", bank.precharged, self.chip.rp)
        self._since("tRC", bank.activated, self.chip.rc)
        for other in self.banks:
            if other is not bank:
                self._since("tRRD", other.activated, self.chip.rrd)
        bank.row, bank.activated, bank.written = pins.address, self.now, NEVER

    def _read(self, pins: Pins) -> None:
        bank = self._active(pins)
        number = self.number(pins.bank, bank.row or 0, pins.address % self.chip.columns)
        self.driven[self.cycle + (self.cas or 2)] = self.word(number)

    def _write(self, pins: Pins) -> None:
        bank = self._active(pins)
        if not pins.dq_oe:
            self._report("WRITE without a word")
        number = self.number(pins.bank, bank.row or 0, pins.address % self.chip.columns)
        word = self.word(number)
        for byte in range(self.chip.width // 8):
            if not pins.mask >> byte & 1:
                bits = 0xFF << 8 * byte
                word = word & ~bits | pins.dq_o & bits
        self.words[number] = word
        bank.written = self.now

    def _precharge(self, pins: Pins) -> None:
        self._settled()
        banks = self.banks if pins.address & ALL_BANKS else [self.banks[pins.bank]]
        for bank in banks:
            if bank.row is not None:
                self._since("tRAS", bank.activated, self.chip.ras)
                self._since("tWR", bank.written, self.chip.wr)
            bank.row, bank.precharged = None, self.now

    def _idle(self) -> None:
        """What REFRESH and MODE ask of all banks."""
        self._settled()
        for index, bank in enumerate(self.banks):
            if bank.row is not None:
                self._report(f"bank state: bank {index} is open")
            self._since("tRP", bank.precharged, self.chip.rp)

    def _refresh(self, pins: Pins) -> None:
        self._idle()
        for bank in self.banks:
            self._since("tRC", bank.activated, self.chip.rc)
        self.refreshed, self.late = self.now, False
        self.refreshes += 1

    def _mode(self, pins: Pins) -> None:
        self._idle()
        cas, rest = pins.address >> 4 & 7, pins.address & ~(7 << 4)
        if rest or pins.bank:
            self._report(f"mode {pins.address:#x} is not one word a burst")
        highest = {2: self.chip.cas2_mhz, 3: self.chip.cas3_mhz}.get(cas, 0.0)
        if self.mhz > highest:
            self._report(f"CAS latency {cas} at {self.mhz:g} MHz")
        self.cas, self.set = cas, self.cycle

    def _burst_stop(self, pins: Pins) -> None:
        self._report("BURST_STOP: there are no bursts")
