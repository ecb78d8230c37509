"""Registers and counters behind SETREG and GETREG (model `vrex.model.dre.registers`)."""

import operator
from collections.abc import Iterable, Mapping
from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.hdl import ValueLike
from amaranth.lib import data

from vrex.hw.lib.layout import struct_layout
from vrex.hw.lib.stream import delay, reduce_tree
from vrex.model.commands import Register, Status
from vrex.model.dre.registers import REGISTER_BITS, REGISTERS, SCALE, reset_values


class Registers:
    """The registers of one unit, part of its own module.

    Attributes:
        values: the writable ones, as signals.
    """

    def __init__(self, m: Module, counters: Mapping[Register, ValueLike], there: Iterable[Register]) -> None:
        """Registers at their reset values.

        Args:
            m: the unit's module.
            counters: what each counter adds in every cycle.
            there: the registers that the unit has.
        """
        self.values = {
            # Not the bare name, which is that of a port in Verilog for the windows (`PORT_NAMES`).
            register: Signal(REGISTERS[register].bits, name=f"reg_{register.name.lower()}", init=value)
            for register, value in reset_values(there).items()
        }
        self._counters = {
            register: Signal(REGISTER_BITS, name=register.name.lower()) for register in counters
        }
        for register, amount in counters.items():
            # Registered: the units' outputs end long paths, and a counter may be a cycle late.
            counter, late = self._counters[register], delay(m, amount, 1, "amount", reset=True)
            m.d.sync += counter.eq(counter + late)

    def status(self, command: Any, *, write: bool) -> Any:
        """Status of a SETREG or GETREG (`vrex.model.commands.DESCRIPTOR`); combinational."""
        known = list(self.values) if write else [*self.values, *self._counters]
        there = reduce_tree([command.count == register for register in known], operator.or_)
        status = Mux(command.length == 0, Status.OK, Status.BAD_LENGTH)
        if write:
            status = Mux(self._accepts(command.count, command.param), status, Status.BAD_VALUE)
        return Mux(there, status, Status.BAD_REGISTER)

    def write(self, m: Module, command: Any) -> None:
        """Executes a SETREG in this cycle."""
        with m.Switch(command.count):
            for register, signal in self.values.items():
                with m.Case(register):
                    m.d.sync += signal.eq(command.param)

    def read(self, m: Module, command: Any) -> Signal:
        """Value for a GETREG, one cycle after its command."""
        value = Signal(REGISTER_BITS)
        with m.Switch(command.count):
            for register, signal in (self.values | self._counters).items():
                with m.Case(register):
                    m.d.sync += value.eq(signal)
        return value

    def rule(self, command: Any) -> list[Any]:
        """Assigns the selection rule to a WTU's command."""
        scale = data.View(struct_layout(SCALE), self.values[Register.SCALE])
        return [
            command.th_r.eq(self.values[Register.TH_R]),
            command.transform.eq(self.values[Register.TRANSFORM]),
            command.selection.eq(self.values[Register.SELECTION]),
            command.scale_mantissa.eq(scale.mantissa),
            command.scale_exponent.eq(scale.exponent),
        ]

    def _accepts(self, register: Any, value: Any) -> Any:
        """Whether SETREG takes the value for the register."""
        limits: dict[Register, Any] = {}
        for key in self.values:
            info = REGISTERS[key]
            limits[key] = value < 1 << info.bits if info.maximum is None else value <= info.maximum
        limits[Register.SCALE] = (value[SCALE.bits :] == 0) & (value[15] | (value[:16] == 0))
        return reduce_tree([(register == key) & limit for key, limit in limits.items()], operator.or_)
