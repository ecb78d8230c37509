"""Registers of a core behind its AXI4-Lite port (model `vrex.model.core.registers`)."""

import operator
from collections.abc import Collection
from typing import Any

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from vrex.hw.lib.axi.lite import ACCESS, REGISTER_BITS, AxiLite, AxiLiteInterface, AxiLiteSignature
from vrex.hw.lib.stream import delay, reduce_tree
from vrex.model.config import Config
from vrex.model.core.registers import REGISTERS, Register, caps

CONSTANTS = (Register.ID, Register.VERSION, Register.CAPS)
RINGS = ("job_tail", "end_head")
"""Values that a soft reset clears."""


def named(access: set[str], without: Collection[Register] = ()) -> dict[str, Register]:
    """Registers of some kinds of access, by their names in lower case."""
    return {
        register.name.lower(): register
        for register, info in REGISTERS.items()
        if info.access in access and register not in without
    }


VALUES = named({"RW", "OFF"}, [Register.CONTROL])
STATES = named({"RO"}, CONSTANTS)
COUNTS = named({"COUNT"}, [Register.CYCLES])
"""What the core gets, what it shows, and what it counts."""


class CoreRegisters(wiring.Component):
    """Registers behind an AXI4-Lite port.

    An unknown address, a write to RO or COUNT, and one to OFF while CONTROL.enable or STATUS.busy is 1, is
    answered with SLVERR and changes nothing. Bits that a register does not have read 0 and are ignored. An
    event in the cycle in which its bit of IRQ is cleared counts. A soft reset clears CONTROL.enable, JOB_TAIL
    and END_HEAD; everything else stays.

    An answer shows seven cycles after its access was taken.

    Args:
        config: accelerator, for CAPS.

    Members:
        s_axi: AXI4-Lite subordinate.
        enable: CONTROL.enable.
        reset: high for the cycle after CONTROL.reset was written; `enable` is low in it already.
        values: registers RW and OFF but CONTROL, by their names in lower case.
        states: what the registers RO show that are no constants.
        events: bits of IRQ to set.
        counts: for each counter but CYCLES, whether it counts this cycle.
        irq: a bit is set in both IRQ and IRQ_MASK, a cycle late.
    """

    s_axi: AxiLiteInterface
    enable: Signal
    reset: Signal
    values: Any
    states: Any
    events: Signal
    counts: Any
    irq: Signal

    def __init__(self, config: Config) -> None:
        self.config = config
        values = {name: Out(REGISTERS[register].bits) for name, register in VALUES.items()}
        states = {name: Out(REGISTERS[register].bits) for name, register in STATES.items()}
        super().__init__(
            {
                "s_axi": In(AxiLiteSignature()),
                "enable": Out(1),
                "reset": Out(1),
                "values": Out(wiring.Signature(values)),
                "states": In(wiring.Signature(states)),
                "events": In(REGISTERS[Register.IRQ].bits),
                "counts": In(wiring.Signature(dict.fromkeys(COUNTS, Out(1)))),
                "irq": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware: the port's front, a register each, a decoder and a multiplexer behind registers."""
        m = Module()
        m.submodules.lite = lite = AxiLite()
        connect(m, flipped(self.s_axi), lite.s_axi)
        self.access: Any = Signal(ACCESS)
        self.pending = Signal.like(self.events)
        # Not the bare name, which may be that of a port in Verilog (`PORT_NAMES`).
        self.held = {
            name: Signal(REGISTERS[register].bits, init=REGISTERS[register].reset, name=f"reg_{name}")
            for name, register in VALUES.items()
        }
        m.d.comb += [getattr(self.values, name).eq(register) for name, register in self.held.items()]
        # Whose address the access has.
        self.hits = {register: Signal(name=f"hit_{register.name.lower()}") for register in REGISTERS}
        written = self._access(m, lite)
        self._write(m, written)
        self._control(m, written)
        self._count(m)
        return m

    def _access(self, m: Module, lite: AxiLite) -> Signal:
        """Finds an access's register (FIND), judges it (JUDGE), reads or writes (DO); returns the writing."""
        written = Signal()
        allowed = Signal()
        response = lite.response
        m.d.sync += [hit.eq(self.access.address == register) for register, hit in self.hits.items()]
        fixed = reduce_tree(
            [self.hits[register] for register in named({"RO", "COUNT"}).values()], operator.or_
        )
        closed = reduce_tree([self.hits[register] for register in named({"OFF"}).values()], operator.or_)
        known = reduce_tree(list(self.hits.values()), operator.or_)
        works = self.enable | self.states.status[0]
        # Registered: it steers all registers' enables.
        m.d.sync += allowed.eq(known & ~(self.access.write & (fixed | (closed & works))))
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += lite.request.ready.eq(1)
                m.d.sync += self.access.eq(lite.request.payload)
                with m.If(lite.request.valid):
                    m.next = "FIND"
            with m.State("FIND"):
                m.next = "JUDGE"
            with m.State("JUDGE"):
                m.next = "DO"
            with m.State("DO"):
                m.d.comb += written.eq(self.access.write & allowed)
                m.d.sync += [
                    response.payload.data.eq(self._read()),
                    response.payload.error.eq(~allowed),
                    response.valid.eq(1),
                ]
                m.next = "ANSWER"
            with m.State("ANSWER"), m.If(response.ready):
                m.d.sync += response.valid.eq(0)
                m.next = "IDLE"
        return written

    def _read(self) -> Any:
        """The register that is meant."""
        self.counters = {
            register: Signal(REGISTER_BITS, name=name) for name, register in named({"COUNT"}).items()
        }
        words: dict[Register, Any] = {
            **{register: REGISTERS[register].reset for register in CONSTANTS},
            Register.CAPS: caps(self.config),
            Register.CONTROL: self.enable,
            Register.IRQ: self.pending,
            **{register: self.held[name] for name, register in VALUES.items()},
            **{register: getattr(self.states, name) for name, register in STATES.items()},
            **self.counters,
        }
        masked = [self.hits[register].replicate(REGISTER_BITS) & word for register, word in words.items()]
        return reduce_tree(masked, operator.or_)

    def _write(self, m: Module, written: Signal) -> None:
        """Values, and the bits of IRQ."""
        word, hits = self.access.data, self.hits
        for name, register in VALUES.items():
            with m.If(written & hits[register]):
                m.d.sync += self.held[name].eq(word)
        cleared = (written & hits[Register.IRQ]).replicate(len(self.pending)) & word
        m.d.sync += [
            self.pending.eq((self.pending & ~cleared) | self.events),
            self.irq.eq((self.pending & self.held["irq_mask"]).any()),
        ]

    def _control(self, m: Module, written: Signal) -> None:
        """CONTROL: a reset goes before everything else."""
        m.d.sync += self.reset.eq(0)
        with m.If(written & self.hits[Register.CONTROL]):
            m.d.sync += self.enable.eq(self.access.data[0])
            with m.If(self.access.data[1]):
                m.d.sync += [self.enable.eq(0), self.reset.eq(1)]
                m.d.sync += [self.held[name].eq(0) for name in RINGS]

    def _count(self, m: Module) -> None:
        """Counters: a cycle late, since what they count ends long paths."""
        for name, register in COUNTS.items():
            counter = self.counters[register]
            m.d.sync += counter.eq(
                counter + delay(m, getattr(self.counts, name), 1, f"{name}_late", reset=True)
            )
        cycles = self.counters[Register.CYCLES]
        m.d.sync += cycles.eq(cycles + 1)
