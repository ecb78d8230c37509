"""A board's whole design behind a serial line: UART, bridge and the unit."""

from typing import Any

from amaranth import Module, ResetInserter, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from vrex.hw.dre.commands import COMPLETION, DESCRIPTOR
from vrex.hw.dre.kvpu import Kvpu
from vrex.hw.serial.bridge import SerialBridge
from vrex.hw.serial.slots import Carried
from vrex.hw.serial.uart import Uart
from vrex.model.config import Config
from vrex.model.serial.board import RECEIVE_SLOTS
from vrex.model.serial.capabilities import capabilities
from vrex.model.serial.frames import Kind

DESIGN_UNITS = ("kvpu",)
"""Units that a design is made of."""


class SerialDesign(wiring.Component):
    """A unit that is driven over two pins; all of it is in the domain `sync`.

    A board's top connects clock, reset and pins. After a reset the board says HELLO and waits for the host's
    RESET.

    Args:
        config: accelerator.
        unit: of `DESIGN_UNITS`.
        divisor: clock cycles of a bit, as of `Uart`.

    Members:
        rx, tx: the line, from and to the host.
    """

    rx: Signal
    tx: Signal

    def __init__(self, config: Config, *, unit: str = "kvpu", divisor: int) -> None:
        """A design.

        Raises:
            ValueError: there is no such unit, or `divisor` is too small.
        """
        if unit not in DESIGN_UNITS:
            raise ValueError(f"no design of unit {unit!r}: choose one of {', '.join(DESIGN_UNITS)}")
        self.config, self.unit = config, unit
        self.uart = Uart(divisor=divisor)
        super().__init__({"rx": In(1), "tx": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        """UART, bridge and unit in a row."""
        m = Module()
        config, uart = self.config, self.uart
        kvpu = Kvpu(hcu=config.hcu, wtu=config.wtu, bus_bits=config.bus_bits)
        bridge = SerialBridge(
            capabilities(config, self.unit, RECEIVE_SLOTS),
            to_unit={
                "cmd": Carried(Kind.DESCRIPTOR, DESCRIPTOR),
                "din": Carried(Kind.PAYLOAD, config.bus_bits),
            },
            from_unit={
                "dout": Carried(Kind.RESULT, config.bus_bits),
                "cpl": Carried(Kind.COMPLETION, COMPLETION),
            },
        )
        m.submodules.uart, m.submodules.bridge = uart, bridge
        m.submodules.kvpu = ResetInserter(bridge.unit_reset)(kvpu)
        m.d.comb += [uart.rx.eq(self.rx), self.tx.eq(uart.tx)]
        wiring.connect(m, uart.received, bridge.received)
        wiring.connect(m, bridge.send, uart.send)
        for name in (*bridge.to_unit, *bridge.from_unit):
            wiring.connect(m, getattr(bridge, name), getattr(kvpu, name))
        return m
