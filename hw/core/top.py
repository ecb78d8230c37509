"""The chip: cores that share AXI4 ports to one memory (model `vrex.model.core.top`)."""

import operator
from dataclasses import replace
from functools import reduce
from typing import Any

from amaranth import Cat, Const, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from vrex.hw.core.core import CORE_ID_BITS, Core
from vrex.hw.core.sequencer import CORES_BITS
from vrex.hw.lib.axi.decoder import AxiLiteDecoder
from vrex.hw.lib.axi.lite import ACCESS, ANSWER, REGISTER_BITS, AxiLiteInterface, AxiLiteSignature
from vrex.hw.lib.axi.merge import AxiMerge
from vrex.hw.lib.axi.signature import Axi4Interface, Axi4Signature
from vrex.hw.lib.axi.slice import AxiSlice
from vrex.hw.lib.instance import instance
from vrex.hw.lib.stream import reduce_tree
from vrex.model.config import Config
from vrex.model.core.instructions import GROUPS
from vrex.model.core.top import (
    BUSY,
    ENABLE,
    IRQ,
    TOP_REGISTERS,
    WORD_CORES,
    TopRegister,
    cores_word,
    port_of,
)


class Barrier(wiring.Component):
    """Lets cores that wait for each other go on. All outputs are registers.

    Args:
        config: accelerator.

    Members:
        barrier: by core: it waits in a group of as many cores as `cores` says.
        cores: of each.
        progress: by core: something moved.
        met: by core: all of its group wait for as many.
        others: by core: something moved in a core of its group.
    """

    barrier: Signal
    cores: list[Signal]
    progress: Signal
    met: Signal
    others: Signal

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "barrier": In(config.cores),
                "cores": In(CORES_BITS).array(config.cores),
                "progress": In(config.cores),
                "met": Out(config.cores),
                "others": Out(config.cores),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """For each size of a group, whether it is complete."""
        m = Module()
        count = self.config.cores
        met: list[Any] = [Const(0, count)]
        others: list[Any] = [Const(0, count)]
        for size in GROUPS[1:]:
            waits = Cat(self.barrier[core] & (self.cores[core] == size) for core in range(count))
            # Cores behind the last whole group are in none.
            parts = [slice(first, first + size) for first in range(0, count - size + 1, size)]
            met.append(Cat(waits[part].all().replicate(size) for part in parts))
            moved = Cat(self.progress[part].any().replicate(size) for part in parts)
            others.append(moved & waits)
        for output, found in ((self.met, met), (self.others, others)):
            m.d.sync += output.eq(reduce(operator.or_, found))
        return m


PART = "vrex_{}"
"""Names of the modules of core and slice."""


def slice_beats(config: Config) -> int:
    """Beats of a core's writes that its slice holds: two of the longest bursts."""
    return 2 * config.kvmu.burst_beats


class TopRegisters(wiring.Component):
    """Registers of the chip. An access is answered three cycles after it was taken.

    Args:
        config: accelerator.

    Members:
        request, response: accesses and how they end (`vrex.hw.lib.axi.lite`).
        enable: one bit a core.
        irq, busy: what the registers of these names show, one bit a core.
    """

    request: stream.Interface
    response: stream.Interface
    enable: Signal
    irq: Signal
    busy: Signal

    def __init__(self, config: Config) -> None:
        self.config = config
        super().__init__(
            {
                "request": In(stream.Signature(ACCESS)),
                "response": Out(stream.Signature(ANSWER)),
                "enable": Out(config.cores),
                "irq": In(config.cores),
                "busy": In(config.cores),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware: a register of the access, one bit a register, and a state machine."""
        m = Module()
        access: Any = Signal(ACCESS)
        response = self.response
        hits = {register: Signal(name=f"hit_{register.name.lower()}") for register in TopRegister}
        m.d.sync += [hit.eq(access.address == register) for register, hit in hits.items()]
        words: dict[TopRegister, Any] = {
            TopRegister.ID: TOP_REGISTERS[TopRegister.ID].reset,
            TopRegister.VERSION: TOP_REGISTERS[TopRegister.VERSION].reset,
            TopRegister.CORES: cores_word(self.config),
        }
        for registers, bits in ((ENABLE, self.enable), (IRQ, self.irq), (BUSY, self.busy)):
            for number, register in enumerate(registers):
                words[register] = bits[WORD_CORES * number : WORD_CORES * (number + 1)]
        masked = [hits[register].replicate(REGISTER_BITS) & word for register, word in words.items()]
        fixed = reduce_tree(
            [hit for register, hit in hits.items() if TOP_REGISTERS[register].access == "RO"], operator.or_
        )
        known = reduce_tree(list(hits.values()), operator.or_)
        allowed = known & ~(access.write & fixed)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.request.ready.eq(1)
                m.d.sync += access.eq(self.request.payload)
                with m.If(self.request.valid):
                    m.next = "FIND"
            with m.State("FIND"):
                m.next = "DO"
            with m.State("DO"):
                m.d.sync += [
                    response.payload.data.eq(reduce_tree(masked, operator.or_)),
                    response.payload.error.eq(~allowed),
                    response.valid.eq(1),
                ]
                for number, register in enumerate(ENABLE):
                    with m.If(access.write & hits[register]):
                        m.d.sync += self.enable[WORD_CORES * number : WORD_CORES * (number + 1)].eq(
                            access.data
                        )
                m.next = "ANSWER"
            with m.State("ANSWER"), m.If(response.ready):
                m.d.sync += response.valid.eq(0)
                m.next = "IDLE"
        return m


class Top(wiring.Component):
    """Cores behind one AXI4-Lite port, and behind AXI4 ports of which each serves as many.

    Core k is at port k modulo their number, whatever the address: so its bursts stay in order, and every port
    must reach all of memory. At a port the cores' bursts go in turn, reads and writes apart; `AxiMerge` says
    what holds. A core's beats of a write wait in its slice until the burst is complete, and it takes its
    answers at once; so none waits for another one but for its turn.

    The modules `vrex_core` and `vrex_slice`, of which each core has one, are emitted by themselves.

    Args:
        config: accelerator.
        cores, ports: instead of the configuration's.

    Members:
        s_axi: AXI4-Lite subordinate: registers (`vrex.model.core.top`).
        m_axi: AXI4 managers. Their ids are the cores' with the core's number at its port above them.
        irq: interrupt, active high, as long as any core raises its own, one cycle late.

    Raises:
        ValueError: the configuration makes no chip (`Config.check_top`).
    """

    s_axi: AxiLiteInterface
    m_axi: list[Axi4Interface]
    irq: Signal

    def __init__(self, config: Config, *, cores: int | None = None, ports: int | None = None) -> None:
        config = replace(config, cores=cores or config.cores, ports=ports or config.ports)
        config.check_top()
        self.config = config
        # Of the cores at a port.
        share = config.cores // config.ports
        id_width = CORE_ID_BITS + (share - 1).bit_length()
        super().__init__(
            {
                "s_axi": In(AxiLiteSignature(AxiLiteDecoder.address_bits_of(config.cores))),
                "m_axi": Out(Axi4Signature(data_width=config.bus_bits, id_width=id_width)).array(
                    config.ports
                ),
                "irq": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Decoder and registers, cores with their slices, and a merge at each port."""
        m = Module()
        config, bus_bits = self.config, self.config.bus_bits
        m.submodules.decoder = decoder = AxiLiteDecoder(config.cores)
        m.submodules.registers = registers = TopRegisters(config)
        connect(m, flipped(self.s_axi), decoder.s_axi)
        connect(m, decoder.request, registers.request)
        connect(m, registers.response, decoder.response)
        share = config.cores // config.ports
        merges = [
            AxiMerge(bus_bits, reads=share, writes=share, id_width=CORE_ID_BITS) for _ in range(config.ports)
        ]
        for number, merge in enumerate(merges):
            m.submodules[f"merge_{number}"] = merge
            connect(m, merge.m_axi, flipped(self.m_axi[number]))
        m.submodules.barrier = barrier = Barrier(config)
        irq, busy, enable = (Signal(config.cores) for _ in range(3))
        for number in range(config.cores):
            core = instance(m, f"core_{number}", PART.format("core"), Core.members_of(config))
            own = instance(
                m, f"slice_{number}", PART.format("slice"), AxiSlice.members_of(bus_bits, CORE_ID_BITS)
            )
            connect(m, decoder.m_axi[number], core.s_axi)
            connect(m, core.m_axi, own.s_axi)
            self._join(m, own.m_axi, merges[port_of(number, config.ports)], number // config.ports)
            m.d.comb += [
                core.enable.eq(enable[number]),
                *(barrier.barrier[number].eq(core.barrier), barrier.cores[number].eq(core.cores)),
                barrier.progress[number].eq(core.progress),
                *(core.met.eq(barrier.met[number]), core.others.eq(barrier.others[number])),
                irq[number].eq(core.irq),
                busy[number].eq(core.busy),
            ]
        m.d.sync += [
            enable.eq(registers.enable),
            self.irq.eq(irq.any()),
            registers.irq.eq(irq),
            registers.busy.eq(busy),
        ]
        return m

    @staticmethod
    def _join(m: Module, port: Axi4Interface, merge: AxiMerge, number: int) -> None:
        """Connects a manager to a port of a merge."""
        reads, writes = merge.read_axi[number], merge.write_axi[number]
        links: list[tuple[Any, Any]] = [
            (port.ar, reads.ar),
            (reads.r, port.r),
            (port.aw, writes.aw),
            (port.w, writes.w),
            (writes.b, port.b),
        ]
        for source, sink in links:
            connect(m, source, sink)
