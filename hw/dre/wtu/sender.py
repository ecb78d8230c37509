"""Bitmask of the WTU: a head's bits, joined over its rows, and how they are sent."""

from typing import Any

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from vrex.hw.dre.wtu.datapath import NO_BYPASS
from vrex.hw.dre.wtu.layouts import tile_layout
from vrex.hw.lib.stream import Packer, Stage, delay
from vrex.model.config import WtuConfig


class Bitmask(wiring.Component):
    """Memory of a head's bits: words of selected lanes are ORed into it; words that are sent are cleared.

    A word's bits, or zeros, can be read three cycles later.

    Args:
        config: WTU.

    Members:
        tile: number of the tile in work, above the numbers of its words.
        next_word: number of the word that comes one cycle later.
        write, word, selected: a word of the tile and its selected lanes.
        fresh, fresh_word: a word of the command's first row; its bits become 0.
        send: the memory is read for sending, at `read_word`, when `read_en` is high; `data` follow.
        clear_sent, sent_word: while `send`: the word that becomes 0.
    """

    tile: Signal
    next_word: Signal
    write: Signal
    word: Signal
    selected: Signal
    fresh: Signal
    fresh_word: Signal
    send: Signal
    read_word: Signal
    read_en: Signal
    data: Signal
    clear_sent: Signal
    sent_word: Signal

    def __init__(self, config: WtuConfig) -> None:
        self.config = config
        words, tile_words = config.mask_clusters // config.lanes, config.row_clusters // config.lanes
        super().__init__(
            {
                "tile": In(tile_layout(config)["number"].shape),
                "next_word": In(range(max(2, tile_words))),
                "write": In(1),
                "word": In(range(max(2, tile_words))),
                "selected": In(config.lanes),
                "fresh": In(1),
                "fresh_word": In(range(max(2, tile_words))),
                "send": In(1),
                "read_word": In(range(max(2, words))),
                "read_en": In(1),
                "data": Out(config.lanes),
                "clear_sent": In(1),
                "sent_word": In(range(max(2, words))),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """A memory with a registered write port, which either clears a word or writes what was read, ORed."""
        m = Module()
        config = self.config
        words = config.mask_clusters // config.lanes
        memory: Memory = Memory(shape=config.lanes, depth=words, init=[], attrs=NO_BYPASS)
        m.submodules.memory = memory
        read, write = memory.read_port(), memory.write_port()
        # No bits of it if there is only one tile.
        tile = self.tile[: (config.mask_clusters // config.row_clusters).bit_length() - 1]
        clear = delay(m, self.fresh | self.clear_sent, 1, "clear", reset=True)
        clear_word = Mux(self.send, self.sent_word, Cat(self.fresh_word, tile))
        clear_word = delay(m, clear_word, 1, "clear_word")
        m.d.comb += [
            read.addr.eq(Mux(self.send, self.read_word, Cat(self.next_word, tile))),
            read.en.eq(~self.send | self.read_en),
            self.data.eq(read.data),
        ]
        # A word is written one cycle later, since what was read arrives late in its cycle.
        m.d.sync += [
            write.addr.eq(Mux(clear, clear_word, Cat(self.word, tile))),
            write.data.eq(Mux(clear, 0, self.selected | read.data)),
            write.en.eq(clear | self.write),
        ]
        return m


class Sender(wiring.Component):
    """Holds a head's bitmask, and sends its words.

    Args:
        config: WTU.
        bus_bits: width of a beat.

    Members:
        tile, next_word, write, word, selected, fresh, fresh_word: see `Bitmask`.
        last_cluster: number of the last one of a row.
        send: high from before `read_first` until `sent`; no word may come meanwhile.
        read_first: for one cycle, reads the first word, which begins the sending.
        sent: no word is left to be sent; low from the cycle after `read_first` on.
        drained: the last beat has left.
        dout: the bitmask, lowest cluster first, zeros after the last cluster.
    """

    tile: Signal
    next_word: Signal
    write: Signal
    word: Signal
    selected: Signal
    fresh: Signal
    fresh_word: Signal
    last_cluster: Signal
    send: Signal
    read_first: Signal
    sent: Signal
    drained: Signal
    dout: stream.Interface

    def __init__(self, config: WtuConfig, *, bus_bits: int) -> None:
        self.config, self.bus_bits = config, bus_bits
        tile_words = config.row_clusters // config.lanes
        super().__init__(
            {
                "tile": In(tile_layout(config)["number"].shape),
                "next_word": In(range(max(2, tile_words))),
                "write": In(1),
                "word": In(range(max(2, tile_words))),
                "selected": In(config.lanes),
                "fresh": In(1),
                "fresh_word": In(range(max(2, tile_words))),
                "last_cluster": In(16),
                "send": In(1),
                "read_first": In(1),
                "sent": Out(1),
                "drained": Out(1),
                "dout": Out(stream.Signature(bus_bits)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """The bitmask, a counter of its words, and what packs them into beats."""
        m = Module()
        lanes = self.config.lanes
        m.submodules.bitmask = bitmask = Bitmask(self.config)
        m.submodules.packer = packer = Packer(lanes, self.bus_bits)
        m.submodules.stage = stage = Stage(packer.i.payload.shape())
        wiring.connect(m, stage.o, packer.i)
        wiring.connect(m, packer.o, wiring.flipped(self.dout))
        # The word that is sent and whether it is the last; the word after it, which is read as it is taken.
        sent_word = Signal.like(bitmask.sent_word)
        next_word = Signal.like(bitmask.sent_word)
        sending = Signal()
        last = Signal()
        taken = sending & stage.i.ready
        step = self.read_first | taken
        m.d.comb += [
            stage.i.valid.eq(sending),
            stage.i.payload.data.eq(bitmask.data),
            stage.i.payload.last.eq(last),
            self.sent.eq(~sending),
            self.drained.eq(~(stage.o.valid | packer.o.valid)),
            bitmask.tile.eq(self.tile),
            bitmask.next_word.eq(self.next_word),
            bitmask.write.eq(self.write),
            bitmask.word.eq(self.word),
            bitmask.selected.eq(self.selected),
            bitmask.fresh.eq(self.fresh),
            bitmask.fresh_word.eq(self.fresh_word),
            bitmask.send.eq(self.send),
            bitmask.read_word.eq(next_word),
            bitmask.read_en.eq(step),
            bitmask.clear_sent.eq(taken),
            bitmask.sent_word.eq(sent_word),
        ]
        last_word = self.last_cluster[lanes.bit_length() - 1 :][: len(sent_word)]
        with m.If(step):
            m.d.sync += [
                sent_word.eq(next_word),
                next_word.eq(next_word + 1),
                last.eq(next_word == last_word),
                sending.eq(self.read_first | ~last),
            ]
        with m.If(~self.send):
            m.d.sync += next_word.eq(0)
        return m
