"""A board's whole design behind a serial line: UART, bridge, the unit, and the way to its memory."""

from typing import Any

from amaranth import ClockDomain, ClockSignal, DomainRenamer, Module, ResetInserter, ResetSignal, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from vrex.hw.core.core import CORE_ID_BITS, Core
from vrex.hw.dre.commands import COMPLETION, DESCRIPTOR
from vrex.hw.dre.dre import Dre
from vrex.hw.dre.kvpu import Kvpu
from vrex.hw.lib.axi.merge import AxiMerge
from vrex.hw.lib.axi.signature import ID_BITS, Axi4Interface, Axi4Signature
from vrex.hw.serial.bridge import BYTE, SerialBridge
from vrex.hw.serial.memory import ACCESS, END, MemoryPort
from vrex.hw.serial.registers import RegisterWindow
from vrex.hw.serial.slots import Carried
from vrex.hw.serial.uart import Uart
from vrex.model.config import Config
from vrex.model.serial.board import RECEIVE_SLOTS
from vrex.model.serial.capabilities import capabilities
from vrex.model.serial.frames import Kind
from vrex.model.serial.memory import REGISTERS

DESIGN_UNITS = ("kvpu", "dre", "core")
"""Units that a design is made of."""


class SerialDesign(wiring.Component):
    """A unit that is driven over two pins; all of it is in the domain `sync`.

    A board's top connects clock, reset and pins. After a reset the board says HELLO and waits for the host's
    RESET. A DRE or a core shares its memory with the host, whose accesses come over the line as well. To a
    core nothing else comes: its registers lie behind the memory.

    Args:
        config: accelerator.
        unit: of `DESIGN_UNITS`.
        divisor: clock cycles of a bit, as of `Uart`; None: there is no UART, and bytes go in and out.
        memory_bytes: of a DRE or a core: size of the memory behind `m_axi`, from address 0 on (`MemoryPort`).

    Members:
        rx, tx: the line, from and to the host.
        received, send: without a UART: the line's bytes, at least 4 cycles apart (`SerialBridge`).
        m_axi: of a DRE or a core: AXI4 manager.
        memory_reset: of these: high for a cycle in which the host resets the unit, so that what is behind
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
        if unit != "kvpu":
            ids = CORE_ID_BITS if unit == "core" else ID_BITS
            self.port = MemoryPort(
                config.bus_bits,
                memory_bytes=memory_bytes,
                register_bytes=REGISTERS * config.bus_bytes if unit == "core" else 0,
                id_width=ids,
            )
            # One bit more says whose a burst is.
            port = Axi4Signature(data_width=config.bus_bits, id_width=ids + 1)
            members |= {"m_axi": Out(port), "memory_reset": Out(1)}
        super().__init__(members)

    def elaborate(self, platform: Any) -> Module:
        """UART, bridge and unit; beside a DRE or a core the host's port, and both in front of the memory."""
        m = Module()
        config, beat = self.config, self.config.bus_bits
        to_unit, from_unit, to_memory, from_memory = {}, {}, {}, {}
        if self.unit != "core":
            to_unit = {"cmd": Carried(Kind.DESCRIPTOR, DESCRIPTOR), "din": Carried(Kind.PAYLOAD, beat)}
            from_unit = {"dout": Carried(Kind.RESULT, beat)}
        if self.unit == "dre":
            from_unit["kv"] = Carried(Kind.KV, beat)
        if self.unit != "core":
            from_unit["cpl"] = Carried(Kind.COMPLETION, COMPLETION)
        if self.unit != "kvpu":
            to_memory = {"access": Carried(Kind.ACCESS, ACCESS), "data": Carried(Kind.DATA, beat)}
            from_memory = {"read": Carried(Kind.READ, beat), "end": Carried(Kind.END, END)}
        m.submodules.bridge = bridge = SerialBridge(
            capabilities(config, self.unit, RECEIVE_SLOTS, self.memory_bytes),
            to_unit=to_unit | to_memory,
            from_unit=from_unit | from_memory,
        )
        # A domain rather than an inserted reset, which would not reach instances such as a core's trees.
        m.domains += ClockDomain("unit", local=True)
        m.d.comb += [
            ClockSignal("unit").eq(ClockSignal()),
            ResetSignal("unit").eq(ResetSignal() | bridge.unit_reset),
        ]
        unit = self._unit()
        m.submodules[self.unit] = DomainRenamer("unit")(unit)
        self._line(m, bridge)
        for name in (*to_unit, *from_unit):
            connect(m, getattr(bridge, name), getattr(unit, name))
        if not isinstance(unit, Kvpu):
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

    def _unit(self) -> Kvpu | Dre | Core:
        config = self.config
        if self.unit == "kvpu":
            return Kvpu(hcu=config.hcu, wtu=config.wtu, bus_bits=config.bus_bits)
        if self.unit == "core":
            return Core(config)
        return Dre(
            hcu=config.hcu, wtu=config.wtu, kvmu=config.kvmu, mean=config.mean, bus_bits=config.bus_bits
        )

    def _share(self, m: Module, unit: Dre | Core, reset: Signal) -> None:
        """The unit's and the host's bursts in turn; a reset reaches all that owes something."""
        merge = AxiMerge(self.config.bus_bits, reads=2, writes=2, id_width=len(unit.m_axi.ar.id))
        m.submodules.merge = ResetInserter(reset)(merge)
        m.d.comb += self.memory_reset.eq(reset)
        host = self.port.m_axi
        if isinstance(unit, Core):
            m.submodules.window = window = RegisterWindow(
                self.config.bus_bits, memory_bytes=self.memory_bytes, id_width=len(host.ar.id)
            )
            connect(m, host, window.s_axi)
            connect(m, window.registers, unit.s_axi)
            m.d.comb += unit.enable.eq(1)
            host = window.m_axi
        for number, manager in enumerate((unit.m_axi, host)):
            for channel in ("ar", "r"):
                _connect(m, channel, manager, merge.read_axi[number])
            for channel in ("aw", "w", "b"):
                _connect(m, channel, manager, merge.write_axi[number])
        connect(m, merge.m_axi, flipped(self.m_axi))


def _connect(m: Module, channel: str, manager: Axi4Interface, subordinate: Axi4Interface) -> None:
    """One channel of two ports, of which the other one lacks some."""
    connect(m, getattr(manager, channel), getattr(subordinate, channel))
