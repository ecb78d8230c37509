"""One bank of the LXE's memory: a separate module, which a foundry's macro can replace."""

from typing import Any

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from vrex.model.config import DpeConfig, LxeConfig, VpeConfig


def unit_values(dpe: DpeConfig, vpe: VpeConfig) -> int:
    """16-bit values that are written together: a result word of the narrower one of DPE and VPE."""
    return min(dpe.trees, vpe.lanes)


class Sram(wiring.Component):
    """A memory of one read and one write port, generated as module `vrex_sram`.

    The contents are unknown until written. Reading the line that is written in the same cycle gives undefined
    data; the LXE never does so.

    Args:
        config: size of the memory, and its banks.
        dpe, vpe: width of a line, and of the units that can be written separately (`unit_values`).

    Members:
        read_en, read_line, read_data: the data follow one cycle after the line, and are held.
        write_mask: write enable of each unit of `unit_values` values.
        write_line, write_data: line to write, and its data.
    """

    read_en: Signal
    read_line: Signal
    read_data: Signal
    write_mask: Signal
    write_line: Signal
    write_data: Signal

    def __init__(self, config: LxeConfig, *, dpe: DpeConfig, vpe: VpeConfig) -> None:
        self.depth = config.lines(dpe) // config.banks
        self.width, self.granularity = 8 * dpe.beat_bytes, 16 * unit_values(dpe, vpe)
        line = range(max(2, self.depth))
        super().__init__(
            {
                "read_en": In(1),
                "read_line": In(line),
                "read_data": Out(self.width),
                "write_mask": In(self.width // self.granularity),
                "write_line": In(line),
                "write_data": In(self.width),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Builds a synchronous memory, which becomes block RAM on an FPGA."""
        m = Module()
        memory: Memory[Any, Any] = Memory(shape=self.width, depth=self.depth, init=[])
        m.submodules.memory = memory
        write, read = memory.write_port(granularity=self.granularity), memory.read_port()
        m.d.comb += [
            *(write.addr.eq(self.write_line), write.data.eq(self.write_data), write.en.eq(self.write_mask)),
            *(read.addr.eq(self.read_line), read.en.eq(self.read_en), self.read_data.eq(read.data)),
        ]
        return m
