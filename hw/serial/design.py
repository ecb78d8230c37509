"""A board's whole design behind a serial line: UART, bridge, the unit, and the way to its memory."""

from typing import Any

from amaranth import Module, ResetInserter, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from vrex.hw.dre.commands import COMPLETION, DESCRIPTOR
from vrex.hw.dre.dre import Dre
from vrex.hw.dre.kvpu import Kvpu
from vrex.hw.lib.axi.merge import AxiMerge
from vrex.hw.lib.axi.signature import ID_BITS, Axi4Interface, Axi4Signature
from vrex.hw.serial.bridge import BYTE, SerialBridge
from vrex.hw.serial.memory import ACCESS, END, MemoryPort
from vrex.hw.serial.slots import Carried
from vrex.hw.serial.uart import Uart
from vrex.model.config import Config
from vrex.model.serial.board import RECEIVE_SLOTS
from vrex.model.serial.capabilities import capabilities
from vrex.model.serial.frames import Kind

DESIGN_UNITS = ("kvpu", "dre")
"""Units that a design is made of."""


class SerialDesign(wiring.Component):
    """A unit that is driven over two pins; all of it is in the domain `sync`.

    A board's top connects clock, reset and pins. After a reset the board says HELLO and waits for the host's
    RESET. A DRE shares its memory with the host, whose accesses come over the line as well.

    Args:
        config: accelerator.
        unit: of `DESIGN_UNITS`.
        divisor: clock cycles of a bit, as of `Uart`; None: there is no UART, and bytes go in and out.
        memory_bytes: of a DRE: size of the memory behind `m_axi`, which begins at address 0 (`MemoryPort`).

    Members:
        rx, tx: the line, from and to the host.
        received, send: without a UART: the line's bytes, at least 4 cycles apart (`SerialBridge`).
        m_axi: of a DRE: AXI4 manager.
        memory_reset: of a DRE: high for a cycle in which the host resets the unit, so that what is behind
            `m_axi` forgets what it owes.
    """

    rx: Signal
    tx: Signal
    received: stream.Interface
    send: stream.Interface
    m_axi: Axi4Interface
    memory_reset: Signal

    def __init__(
        self, config: Config, *, unit: str = "kvpu", divisor: int | None, memory_bytes: int = 0
    ) -> None:
        """A design.

        Raises:
            ValueError: there is no such unit, or `divisor` or `memory_bytes` is not what it can be.
        """
        if unit not in DESIGN_UNITS:
            raise ValueError(f"no design of unit {unit!r}: choose one of {', '.join(DESIGN_UNITS)}")
        if unit == "kvpu" and memory_bytes:
            raise ValueError("a KVPU has no memory")
        self.config, self.unit, self.memory_bytes = config, unit, memory_bytes
        self.uart = None if divisor is None else Uart(divisor=divisor)
        members: dict[str, wiring.Member] = {"rx": In(1), "tx": Out(1)}
        if self.uart is None:
            members = {"received": In(stream.Signature(BYTE)), "send": Out(stream.Signature(BYTE))}
        if unit == "dre":
            self.port = MemoryPort(config.bus_bits, memory_bytes=memory_bytes)
            # One bit more says whose a burst is.
            port = Axi4Signature(data_width=config.bus_bits, id_width=ID_BITS + 1)
            members |= {"m_axi": Out(port), "memory_reset": Out(1)}
        super().__init__(members)

    def elaborate(self, platform: Any) -> Module:
        """UART, bridge and unit in a row; beside a DRE the host's port, and both in front of the memory."""
        m = Module()
        config = self.config
        to_unit = {
            "cmd": Carried(Kind.DESCRIPTOR, DESCRIPTOR),
            "din": Carried(Kind.PAYLOAD, config.bus_bits),
        }
        from_unit = {"dout": Carried(Kind.RESULT, config.bus_bits)}
        to_memory, from_memory = {}, {}
        if self.unit == "dre":
            from_unit["kv"] = Carried(Kind.KV, config.bus_bits)
            to_memory = {
                "access": Carried(Kind.ACCESS, ACCESS),
                "data": Carried(Kind.DATA, config.bus_bits),
            }
            from_memory = {"read": Carried(Kind.READ, config.bus_bits), "end": Carried(Kind.END, END)}
        from_unit["cpl"] = Carried(Kind.COMPLETION, COMPLETION)
        bridge = SerialBridge(
            capabilities(config, self.unit, RECEIVE_SLOTS, self.memory_bytes),
            to_unit=to_unit | to_memory,
            from_unit=from_unit | from_memory,
        )
        unit = self._unit()
        m.submodules.bridge = bridge
        m.submodules[self.unit] = ResetInserter(bridge.unit_reset)(unit)
        self._line(m, bridge)
        for name in (*to_unit, *from_unit):
            connect(m, getattr(bridge, name), getattr(unit, name))
        if isinstance(unit, Dre):
            m.submodules.port = ResetInserter(bridge.unit_reset)(self.port)
            for name in (*to_memory, *from_memory):
                connect(m, getattr(bridge, name), getattr(self.port, name))
            self._share(m, unit, bridge.unit_reset)
        return m

    def _line(self, m: Module, bridge: SerialBridge) -> None:
        """The UART, if there is one."""
        if self.uart is None:
            connect(m, flipped(self.received), bridge.received)
            connect(m, bridge.send, flipped(self.send))
            return
        m.submodules.uart = uart = self.uart
        m.d.comb += [uart.rx.eq(self.rx), self.tx.eq(uart.tx)]
        connect(m, uart.received, bridge.received)
        connect(m, bridge.send, uart.send)

    def _unit(self) -> Kvpu | Dre:
        config = self.config
        if self.unit == "kvpu":
            return Kvpu(hcu=config.hcu, wtu=config.wtu, bus_bits=config.bus_bits)
        return Dre(
            hcu=config.hcu, wtu=config.wtu, kvmu=config.kvmu, mean=config.mean, bus_bits=config.bus_bits
        )

    def _share(self, m: Module, dre: Dre, reset: Signal) -> None:
        """The DRE's and the host's bursts in turn; a reset reaches all that owes something."""
        merge = AxiMerge(self.config.bus_bits, reads=2, writes=2)
        m.submodules.merge = ResetInserter(reset)(merge)
        m.d.comb += self.memory_reset.eq(reset)
        for number, manager in enumerate((dre.m_axi, self.port.m_axi)):
            for channel in ("ar", "r"):
                _connect(m, channel, manager, merge.read_axi[number])
            for channel in ("aw", "w", "b"):
                _connect(m, channel, manager, merge.write_axi[number])
        connect(m, merge.m_axi, flipped(self.m_axi))


def _connect(m: Module, channel: str, manager: Axi4Interface, subordinate: Axi4Interface) -> None:
    """One channel of two ports, of which the other one lacks some."""
    connect(m, getattr(manager, channel), getattr(subordinate, channel))
