"""Front of the units behind a command stream: one command at a time, from descriptor to completion.

Takes the descriptor, checks it, lets the unit run, and completes. The payload of a command that fails its
check is discarded.
"""

from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import Any

from amaranth import C, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from vrex.hw.dre.commands import COMPLETION, DESCRIPTOR, count_beats
from vrex.hw.lib.registers import Registers
from vrex.model.commands import Opcode, Status
from vrex.model.config import Config

SIZE_CYCLES = 5
"""Cycles from a descriptor to its check, for the sizes of payload and result."""


class CommandFront(wiring.Component):
    """Base class: executes commands in order, one completion each.

    Args:
        config: accelerator.
        members: of the unit besides those below.

    Members:
        cmd: descriptors, 32 bytes.
        din: payloads of the commands, in their order.
        dout: results of the commands, in their order; a command's beats leave before its completion.
        cpl: completions, 16 bytes.
    """

    cmd: stream.Interface
    din: stream.Interface
    dout: stream.Interface
    cpl: stream.Interface

    registers: Registers

    def __init__(self, config: Config, members: Mapping[str, wiring.Member] | None = None) -> None:
        self.config = config
        self._beats = partial(count_beats, bus_bits=config.bus_bits)
        super().__init__(
            {
                "cmd": In(stream.Signature(DESCRIPTOR)),
                "din": In(stream.Signature(config.bus_bits)),
                "dout": Out(stream.Signature(config.bus_bits)),
                "cpl": Out(stream.Signature(COMPLETION)),
                **(members or {}),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """The parts of the unit, and the state machine of one command."""
        m = Module()
        self.command: Any = Signal(DESCRIPTOR)
        self.completion: Any = Signal(COMPLETION)
        self._parts(m)
        self._control(m)
        return m

    @abstractmethod
    def _parts(self, m: Module) -> None:
        """What the unit is made of, `registers` among them."""

    @abstractmethod
    def _checks(self) -> dict[Opcode, Any]:
        """Status before it runs of each opcode but SETREG and GETREG, `SIZE_CYCLES` after the descriptor."""

    @abstractmethod
    def _begin(self, m: Module) -> None:
        """What a good command of those opcodes does in the cycle of its check, in cases of its opcode.

        `m.next` is COMPLETE unless it is set to one of the unit's states.
        """

    @abstractmethod
    def _unit_states(self, m: Module) -> None:
        """States that start a unit and connect its streams; the last of them goes to COMPLETE."""

    def _whole(self, beats: Any) -> Any:
        """OK if the payload is so many beats, else BAD_LENGTH."""
        command, shift = self.command, self.config.bus_bytes.bit_length() - 1
        whole = (command.length[:shift] == 0) & (command.length >> shift == beats)
        return Mux(whole, Status.OK, Status.BAD_LENGTH)

    def _status(self) -> Any:
        """Status of the command before it runs."""
        command = self.command
        checks = {
            Opcode.SETREG: self.registers.status(command, write=True),
            Opcode.GETREG: self.registers.status(command, write=False),
            **self._checks(),
        }
        status: Any = C(Status.BAD_OPCODE, 16)
        for opcode, check in checks.items():
            status = Mux(command.opcode == opcode, check, status)
        return status

    def _control(self, m: Module) -> None:
        """Sequence of one command."""
        command, completion = self.command, self.completion
        sizing = Signal(range(SIZE_CYCLES))
        drain = Signal(32)
        status = self._status()
        value = self.registers.read(m, command)
        m.d.comb += self.cpl.payload.eq(completion)
        m.d.sync += completion.cycles.eq(completion.cycles + 1)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.cmd.ready.eq(1)
                m.d.sync += [sizing.eq(0), completion.eq(0)]
                with m.If(self.cmd.valid):
                    m.d.sync += command.eq(self.cmd.payload)
                    m.next = "SIZE"
            with m.State("SIZE"):
                m.d.sync += [sizing.eq(sizing + 1), completion.tag.eq(command.tag)]
                with m.If(sizing == SIZE_CYCLES - 1):
                    m.next = "CHECK"
            with m.State("CHECK"):
                m.d.sync += [completion.status.eq(status), drain.eq(self._beats(command.length, 8))]
                m.next = "DRAIN"
                with m.If(status == Status.OK):
                    m.next = "COMPLETE"
                    with m.Switch(command.opcode):
                        with m.Case(Opcode.SETREG):
                            self.registers.write(m, command)
                        with m.Case(Opcode.GETREG):
                            m.d.sync += completion.detail.eq(value)
                        self._begin(m)
            with m.State("DRAIN"):
                m.d.comb += self.din.ready.eq(drain != 0)
                with m.If(drain == 0):
                    m.next = "COMPLETE"
                with m.Elif(self.din.valid):
                    m.d.sync += drain.eq(drain - 1)
            self._unit_states(m)
            with m.State("COMPLETE"):
                m.d.comb += self.cpl.valid.eq(1)
                m.d.sync += completion.cycles.eq(completion.cycles)
                with m.If(self.cpl.ready):
                    m.next = "IDLE"
