"""Registers and counters behind SETREG and GETREG (model `vrex.model.dre.kvpu.RegisterFile`)."""

import operator
from typing import Any

from amaranth import Module, Mux, Signal

from vrex.hw.lib.stream import delay, reduce_tree
from vrex.model.commands import Register, Status
from vrex.model.dre.wtu import Selection, Transform

WIDTHS = {
    Register.TH_HD: 8,
    Register.TH_R: 16,
    Register.TRANSFORM: 2,
    Register.SELECTION: 1,
    Register.SCALE: 24,
    Register.DEVICE_BASE: 32,
    Register.DEVICE_PAGES: 32,
    Register.HOST_BASE: 32,
    Register.HOST_PAGES: 32,
    Register.TIMEOUT: 32,
}
"""Bits of the writable registers."""


class Registers:
    """The registers of one unit, part of its own module.

    Attributes:
        values: the writable ones, as signals.
    """

    def __init__(self, m: Module, reset: dict[Register, int], counters: dict[Register, Any]) -> None:
        """Registers with their reset values, counters with what they add in every cycle."""
        self.values = {
            register: Signal(WIDTHS[register], name=register.name.lower(), init=int(value))
            for register, value in reset.items()
        }
        self._counters = {register: Signal(32, name=register.name.lower()) for register in counters}
        for register, amount in counters.items():
            # What the units show is the end of long paths; a counter may well be a cycle late.
            counter, late = self._counters[register], delay(m, amount, 1, "amount", reset=True)
            m.d.sync += counter.eq(counter + late)

    def status(self, command: Any, *, write: bool) -> Any:
        """Status of a SETREG or GETREG."""
        known = list(self.values) if write else [*self.values, *self._counters]
        there = reduce_tree([command.count == register for register in known], operator.or_)
        status = Mux(command.length == 0, Status.OK, Status.BAD_LENGTH)
        if write:
            status = Mux(self._valid(command.count, command.param), status, Status.BAD_VALUE)
        return Mux(there, status, Status.BAD_REGISTER)

    def write(self, m: Module, command: Any) -> None:
        """Executes a SETREG in this cycle."""
        with m.Switch(command.count):
            for register, signal in self.values.items():
                with m.Case(register):
                    m.d.sync += signal.eq(command.param)

    def read(self, m: Module, command: Any) -> Signal:
        """Value for a GETREG, one cycle after its command."""
        value = Signal(32)
        with m.Switch(command.count):
            for register, signal in (self.values | self._counters).items():
                with m.Case(register):
                    m.d.sync += value.eq(signal)
        return value

    def _valid(self, register: Any, value: Any) -> Any:
        """Whether a register takes the value."""
        limits = {key: value < 1 << width for key, width in WIDTHS.items() if key in self.values}
        limits[Register.TRANSFORM] = value <= max(Transform)
        limits[Register.SELECTION] = value <= max(Selection)
        limits[Register.SCALE] = (value[24:] == 0) & (value[15] | (value[:16] == 0))
        return reduce_tree([(register == key) & limit for key, limit in limits.items()], operator.or_)
