"""The DRE behind the serial line, with its tables in a memory of the board's."""

from typing import Any

from amaranth import Module, ResetInserter, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from vrex.hw.dre.commands import COMPLETION, DESCRIPTOR
from vrex.hw.dre.dre import Dre
from vrex.hw.lib.axi.signature import Axi4Interface, Axi4Signature
from vrex.hw.serial.bridge import SerialBridge
from vrex.hw.serial.slots import Carried
from vrex.hw.serial.uart import Uart
from vrex.model.config import Config
from vrex.model.serial.board import RECEIVE_SLOTS
from vrex.model.serial.capabilities import capabilities
from vrex.model.serial.frames import Kind


class DreDesign(wiring.Component):
    """A DRE that is driven over two pins, but for its memory, which the line does not reach yet.

    All of it is in the domain `sync`.

    Args:
        config: accelerator.
        divisor: clock cycles of a bit, as of `Uart`.

    Members:
        rx, tx: the line, from and to the host.
        axi: AXI4 manager, the DRE's.
        memory_reset: high for a cycle in which the host resets the DRE, so that what is behind `axi` forgets
            what it owes.
    """

    rx: Signal
    tx: Signal
    axi: Axi4Interface
    memory_reset: Signal

    def __init__(self, config: Config, *, divisor: int) -> None:
        """A design.

        Raises:
            ValueError: `divisor` is too small.
        """
        self.config = config
        self.uart = Uart(divisor=divisor)
        super().__init__(
            {
                "rx": In(1),
                "tx": Out(1),
                "axi": Out(Axi4Signature(data_width=config.bus_bits)),
                "memory_reset": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """UART, bridge and DRE in a row."""
        m = Module()
        config, uart = self.config, self.uart
        dre = Dre(
            hcu=config.hcu, wtu=config.wtu, kvmu=config.kvmu, mean=config.mean, bus_bits=config.bus_bits
        )
        bridge = SerialBridge(
            capabilities(config, "dre", RECEIVE_SLOTS),
            to_unit={
                "cmd": Carried(Kind.DESCRIPTOR, DESCRIPTOR),
                "din": Carried(Kind.PAYLOAD, config.bus_bits),
            },
            from_unit={
                "dout": Carried(Kind.RESULT, config.bus_bits),
                "kv": Carried(Kind.KV, config.bus_bits),
                "cpl": Carried(Kind.COMPLETION, COMPLETION),
            },
        )
        m.submodules.uart, m.submodules.bridge = uart, bridge
        m.submodules.dre = ResetInserter(bridge.unit_reset)(dre)
        m.d.comb += [
            uart.rx.eq(self.rx),
            self.tx.eq(uart.tx),
            self.memory_reset.eq(bridge.unit_reset),
        ]
        wiring.connect(m, uart.received, bridge.received)
        wiring.connect(m, bridge.send, uart.send)
        for name in (*bridge.to_unit, *bridge.from_unit):
            wiring.connect(m, getattr(bridge, name), getattr(dre, name))
        wiring.connect(m, dre.m_axi, wiring.flipped(self.axi))
        return m
