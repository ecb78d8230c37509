"""One bank of the LXE's memory: a module of its own, to be replaced by a foundry's macro."""

from typing import Any

from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from vrex.model.config import Config


def unit_values(config: Config) -> int:
    """16-bit values that can be written by themselves: what the narrower of DPE and VPE gives at once."""
    return min(config.dpe.trees, config.vpe.lanes)


class Sram(wiring.Component):
    """A memory of one read and one write port, as the generated module `vrex_sram`.

    The contents are unknown until written. A read of the line that is written in the same cycle is undefined;
    the LXE makes none.

    Args:
        config: accelerator; `lxe` and the width of a line matter.

    Members:
        read_en, read_line, read_data: the data follow one cycle after the line, and stay.
        write_mask: which units of `unit_values` values are written, none of them most of the time.
        write_line, write_data: what and where.
    """

    def __init__(self, config: Config) -> None:
        self.depth = config.lines // config.lxe.banks
        self.width, self.granularity = 8 * config.line_bytes, 16 * unit_values(config)
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
        """Hardware: a block RAM on an FPGA."""
        m = Module()
        m.submodules.memory = memory = Memory(shape=self.width, depth=self.depth, init=[])
        write, read = memory.write_port(granularity=self.granularity), memory.read_port()
        m.d.comb += [
            *(write.addr.eq(self.write_line), write.data.eq(self.write_data), write.en.eq(self.write_mask)),
            *(read.addr.eq(self.read_line), read.en.eq(self.read_en), self.read_data.eq(read.data)),
        ]
        return m
