"""Streams and the small pieces of structure that every unit shares.

Four rules hold on every stream: valid does not wait for ready; the payload is stable while it is stalled;
there is no combinational path from ready to valid; a transfer happens when both are high.
"""

from collections.abc import Callable, Sequence
from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

LEVELS_PER_STAGE = 2
"""Levels of a reduction tree between two registers."""


def delay(m: Module, value: Any, cycles: int, name: str = "delayed", *, reset: bool = False) -> Any:
    """`value`, `cycles` clock cycles later; registers of data need no reset, those of control do."""
    for _ in range(cycles):
        later = Signal.like(value, name=name, reset_less=not reset)
        m.d.sync += later.eq(value)
        value = later
    return value


def tree_stages(leaves: int, levels: int = LEVELS_PER_STAGE) -> int:
    """Registers that `reduce_tree` puts between its leaves and its result."""
    return -(-(leaves - 1).bit_length() // levels)


def reduce_tree(
    leaves: Sequence[Any],
    join: Callable[[Any, Any], Any],
    m: Module | None = None,
    levels: int = LEVELS_PER_STAGE,
    *,
    reset: bool = False,
) -> Any:
    """Balanced reduction of neighbours, so that widths and depth grow with the logarithm.

    Args:
        leaves: values of one cycle, at least one.
        join: combines a left and a right neighbour.
        m: module that gets a register after every `levels` levels and after the last; latency
            `tree_stages(len(leaves), levels)` cycles. Without it the tree is combinational.
        levels: between two registers.
        reset: the registers have one, because what samples them has one.
    """
    values, level = list(leaves), 0
    while len(values) > 1:
        pairs = [join(left, right) for left, right in zip(values[0::2], values[1::2], strict=False)]
        values = pairs + values[len(values) & ~1 :]
        level += 1
        if m is not None and (level % levels == 0 or len(values) == 1):
            values = [delay(m, value, 1, "tree", reset=reset) for value in values]
    return values[0]


def word_layout(bits: int) -> data.StructLayout:
    """A word with a mark on the last one of a packet."""
    return data.StructLayout({"data": bits, "last": 1})


class _Inserted(wiring.Component):
    """Base class of components inserted into a stream.

    Args:
        shape: of the payload.

    Members:
        i, o: the stream.
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, shape: Any) -> None:
        self.shape = shape
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})


class Stage(_Inserted):
    """Registers payload and valid, not ready: one word a cycle, latency one cycle.

    For payloads that arrive late in the cycle, such as block memory outputs. Arguments, members: `_Inserted`.
    """

    def elaborate(self, platform: Any) -> Module:
        """One register for payload and valid."""
        m = Module()
        m.d.comb += self.i.ready.eq(self.o.ready | ~self.o.valid)
        with m.If(self.i.ready):
            m.d.sync += [self.o.valid.eq(self.i.valid), self.o.payload.eq(self.i.payload)]
        return m


class Skid(_Inserted):
    """Skid buffer: registers payload, valid and ready; one word a cycle, latency one cycle.

    The two registers are filled in turn, so the enables of the wide registers do not depend on `o.ready`.
    Arguments and members: `_Inserted`.
    """

    def elaborate(self, platform: Any) -> Module:
        """Two registers of the payload and the count of those in use."""
        m = Module()
        words = [Signal(self.shape, name=f"word_{i}", reset_less=True) for i in range(2)]
        to = Signal()
        at = Signal()
        full = Signal()
        push, pop = self.i.valid & self.i.ready, self.o.valid & self.o.ready
        m.d.comb += [
            self.i.ready.eq(~full),
            self.o.payload.eq(Mux(at, *(Value.cast(word) for word in reversed(words)))),
        ]
        m.d.sync += [
            to.eq(to ^ push),
            at.eq(at ^ pop),
            full.eq((full | (self.o.valid & push)) & ~pop),
            self.o.valid.eq(push | full | (self.o.valid & ~pop)),
        ]
        for i, word in enumerate(words):
            with m.If(~full & (to == i)):
                m.d.sync += word.eq(self.i.payload)
        return m


class Packer(wiring.Component):
    """Packs words into wider beats, first word in the lowest bits, zeros after the last.

    One word a cycle with one idle cycle per beat; a beat is valid one cycle after its last word.

    Args:
        word_bits: width of a word.
        beat_bits: width of a beat, a multiple of it.

    Members:
        i: words (`word_layout`).
        o: beats.
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, word_bits: int, beat_bits: int) -> None:
        if word_bits < 1 or beat_bits % word_bits:
            raise ValueError(f"beats of {beat_bits} bits do not hold a whole number of {word_bits}-bit words")
        self.word_bits, self.words = word_bits, beat_bits // word_bits
        super().__init__(
            {"i": In(stream.Signature(word_layout(word_bits))), "o": Out(stream.Signature(beat_bits))}
        )

    def elaborate(self, platform: Any) -> Module:
        """One register of a beat, written word by word."""
        m = Module()
        index = Signal(range(max(self.words, 2)))
        m.d.comb += self.i.ready.eq(~self.o.valid)
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [self.o.valid.eq(0), self.o.payload.eq(0)]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                self.o.payload.word_select(index, self.word_bits).eq(self.i.payload.data),
                index.eq(index + 1),
            ]
            with m.If(self.i.payload.last | (index == self.words - 1)):
                m.d.sync += [self.o.valid.eq(1), index.eq(0)]
        return m


class BeatMemory(wiring.Component):
    """Memory written in bus beats and read in rows of another width.

    Read latency one cycle. Beat b holds bits [b * beat_bits, ...) of the contents, row r those from
    r * row_bits; both widths are powers of two.

    Args:
        beat_bits: width of a write.
        row_bits: width of a read.
        bits: size.

    Members:
        write_en, write_beat, write_data: write port.
        read_row, read_data: read port; the data of a row follow its number by one cycle.
    """

    write_en: Signal
    write_beat: Signal
    write_data: Signal
    read_row: Signal
    read_data: Signal

    def __init__(self, beat_bits: int, row_bits: int, bits: int) -> None:
        self.beat_bits, self.row_bits, self.bits = beat_bits, row_bits, bits
        super().__init__(
            {
                "write_en": In(1),
                "write_beat": In(range(max(2, bits // beat_bits))),
                "write_data": In(beat_bits),
                "read_row": In(range(max(2, bits // row_bits))),
                "read_data": Out(row_bits),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """A memory of the wider width, with write enables per beat and a multiplexer of rows."""
        m = Module()
        word_bits = max(self.beat_bits, self.row_bits)
        beats, rows = word_bits // self.beat_bits, word_bits // self.row_bits
        memory: Memory[Any, Any] = Memory(shape=word_bits, depth=self.bits // word_bits, init=[])
        m.submodules.memory = memory
        write = memory.write_port(granularity=self.beat_bits)
        read = memory.read_port()
        beat_shift, row_shift = beats.bit_length() - 1, rows.bit_length() - 1
        m.d.comb += [
            write.addr.eq(self.write_beat >> beat_shift),
            write.data.eq(self.write_data.replicate(beats)),
            read.addr.eq(self.read_row >> row_shift),
        ]
        if beats > 1:
            m.d.comb += write.en.bit_select(self.write_beat[:beat_shift], 1).eq(self.write_en)
        else:
            m.d.comb += write.en.eq(self.write_en)
        if rows > 1:
            sub_row = delay(m, self.read_row[:row_shift], 1, "sub_row")
            m.d.comb += self.read_data.eq(read.data.word_select(sub_row, self.row_bits))
        else:
            m.d.comb += self.read_data.eq(read.data)
        return m
