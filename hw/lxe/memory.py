"""On-chip memory of the LXE: banks of SRAM, interleaved line by line (paper Table III).

The banks are instances of the module `vrex_sram`, so that it is generated, and can be replaced, in one place.
"""

from typing import Any

from amaranth import Array, Cat, ClockSignal, Instance, Module, Mux, ResetSignal, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from vrex.hw.lib.stream import delay
from vrex.hw.lxe.sram import unit_values
from vrex.model.config import DpeConfig, LxeConfig, VpeConfig

READERS = 5
"""Read ports: rows and weights of the matrix engine, and the vector engine's three operands."""

WRITERS = 2
"""Write ports: one for each engine."""


class ReadPort(wiring.PureInterface):
    """A read port: the data follow one cycle after a cycle with `en` and `granted`."""

    en: Signal
    line: Signal
    granted: Signal
    data: Signal


class ReadPortSignature(wiring.Signature):
    """Signature of a `ReadPort` as its user sees it.

    Args:
        config: size of the memory.
        dpe: width of a line.
    """

    def __init__(self, config: LxeConfig, dpe: DpeConfig) -> None:
        super().__init__(
            {
                "en": Out(1),
                "line": Out(range(max(2, config.lines(dpe)))),
                "granted": In(1),
                "data": In(8 * dpe.beat_bytes),
            }
        )

    def create(self, *, path: tuple[str | int, ...] = (), src_loc_at: int = 0) -> ReadPort:
        """The interface, with its signals."""
        return ReadPort(self, path=path, src_loc_at=1 + src_loc_at)


class WritePort(wiring.PureInterface):
    """A write port: what it shows is written in a cycle with `granted`."""

    mask: Signal
    line: Signal
    data: Signal
    granted: Signal


class WritePortSignature(wiring.Signature):
    """Signature of a `WritePort` as its user sees it.

    Args:
        config: size of the memory.
        dpe, vpe: width of a line, and of the units that can be written separately.
    """

    def __init__(self, config: LxeConfig, *, dpe: DpeConfig, vpe: VpeConfig) -> None:
        super().__init__(
            {
                "mask": Out(dpe.inputs // unit_values(dpe, vpe)),
                "line": Out(range(max(2, config.lines(dpe)))),
                "data": Out(8 * dpe.beat_bytes),
                "granted": In(1),
            }
        )

    def create(self, *, path: tuple[str | int, ...] = (), src_loc_at: int = 0) -> WritePort:
        """The interface, with its signals."""
        return WritePort(self, path=path, src_loc_at=1 + src_loc_at)


class LxeMemory(wiring.Component):
    """Banks that several readers and writers share. Each bank serves one of either in a cycle.

    Args:
        config: size of the memory, and its banks.
        dpe, vpe: width of a line, and of the units that can be written separately.

    Members:
        readers: read ports; of those that request one bank in a cycle, the first is granted.
        writers: write ports (see `vrex.hw.lxe.sram.Sram`), likewise.
    """

    readers: list[ReadPort]
    writers: list[WritePort]

    def __init__(self, config: LxeConfig, *, dpe: DpeConfig, vpe: VpeConfig) -> None:
        self.config, self.line_bits = config, 8 * dpe.beat_bytes
        super().__init__(
            {
                "readers": In(ReadPortSignature(config, dpe)).array(READERS),
                "writers": In(WritePortSignature(config, dpe=dpe, vpe=vpe)).array(WRITERS),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Builds the banks, a fixed-priority arbiter for each, and the read multiplexers."""
        m = Module()
        banks = self.config.banks
        bits = banks.bit_length() - 1
        data = [self._bank(m, bank, bits) for bank in range(banks)]
        for k, reader in enumerate(self.readers):
            earlier = self.readers[:k]
            same = [other.en & (other.line[:bits] == reader.line[:bits]) for other in earlier]
            m.d.comb += reader.granted.eq(~_any(same))
            asked = delay(m, reader.line[:bits], 1, f"bank_{k}")
            m.d.comb += reader.data.eq(Array(data)[asked] if bits else data[0])
        for k, writer in enumerate(self.writers):
            earlier_writers = self.writers[:k]
            same = [other.mask.any() & (other.line[:bits] == writer.line[:bits]) for other in earlier_writers]
            m.d.comb += writer.granted.eq(~_any(same))
        return m

    def _bank(self, m: Module, bank: int, bits: int) -> Signal:
        """One bank; returns its read data."""
        data = Signal(self.line_bits, name=f"data_{bank}")
        wanted = [reader.en & (reader.line[:bits] == bank) for reader in self.readers]
        line: Any = self.readers[-1].line[bits:]
        for want, reader in reversed(list(zip(wanted[:-1], self.readers[:-1], strict=True))):
            line = Mux(want, reader.line[bits:], line)
        first, second = self.writers
        by_first = first.mask.any() & (first.line[:bits] == bank)
        write = Mux(by_first, Cat(first.line, first.data), Cat(second.line, second.data))
        masks = [Mux(writer.line[:bits] == bank, writer.mask, 0) for writer in self.writers]
        m.submodules[f"bank_{bank}"] = Instance(
            "vrex_sram",
            i_clk=ClockSignal(),
            i_rst=ResetSignal(),
            i_read_en=_any(wanted),
            i_read_line=line,
            o_read_data=data,
            i_write_mask=Mux(by_first, *masks),
            i_write_line=write[bits : len(first.line)],
            i_write_data=write[len(first.line) :],
        )
        return data


def _any(flags: list[Any]) -> Any:
    """Whether one of the flags is set; 0 if there is none."""
    result: Any = 0
    for flag in flags:
        result = result | flag
    return result
