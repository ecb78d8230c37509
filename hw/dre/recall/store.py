"""Writes tokens behind those of a store: codes, scales, K and V, then the count.

Model `vrex.model.dre.token_store.TokenStore.append`.
"""

from collections.abc import Callable
from typing import Any

from amaranth import Array, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect

from vrex.hw.dre.commands import count_beats
from vrex.hw.dre.kvmu.fetch import DONE
from vrex.hw.dre.kvmu.table import status_of
from vrex.hw.dre.recall.aligner import Aligner
from vrex.hw.dre.recall.records import Pack
from vrex.hw.lib.axi import writer
from vrex.hw.lib.axi.burst import (
    ADDRESS_BITS,
    PAGE_BITS,
    PAGE_NUMBER_BITS,
    REQUEST,
    Error,
    beat_shift,
    request_beats,
)
from vrex.hw.lib.stream import Skid, delay
from vrex.model.commands import STORE_TOKENS
from vrex.model.config import CodesConfig, KvmuConfig, MeanConfig
from vrex.model.dre.token_store import SCALE_BYTES

COMMAND = data.StructLayout(
    {
        "address": ADDRESS_BITS,
        "codes_page": PAGE_NUMBER_BITS,
        "scales_page": PAGE_NUMBER_BITS,
        "host_page": PAGE_NUMBER_BITS,
        "packed": 1,
        "tokens": 16,
        "count": range(STORE_TOKENS + 1),
    }
)
"""A store, the pages of its arrays, whether K and V are packed, its tokens, how many are to come (>= 1)."""

PARTS = 3
"""Codes, scales, K and V."""

COUNT_BYTES = 4
"""Of the number of tokens, first in a store's header."""


class Store(wiring.Component):
    """Executes one command after the other. The count is written once all else is; after a failure it is not.

    Args:
        codes, kvmu: bytes of a token's code, and of its K and V.
        mean: lanes of the quantiser.
        bus_bits: width of a beat.

    Members:
        cmd: where to.
        din: codes, scales, K and V, each from a new beat on; all of them are taken, however it ends.
        done: status.
        write, data, written: `request`, `data` and `done` of a `vrex.hw.lib.axi.writer.AxiWriter`.
    """

    cmd: stream.Interface
    din: stream.Interface
    done: stream.Interface
    write: stream.Interface
    data: stream.Interface
    written: stream.Interface

    def __init__(self, *, codes: CodesConfig, kvmu: KvmuConfig, mean: MeanConfig, bus_bits: int) -> None:
        self.bus_bits = bus_bits
        self.pack = Pack(kvmu, mean=mean, bus_bits=bus_bits)
        self.sizes = (codes.bits // 8, SCALE_BYTES, kvmu.token_bytes)
        self.record_bytes = self.pack.shape.bits // 8
        super().__init__(
            {
                "cmd": In(stream.Signature(COMMAND)),
                "din": In(stream.Signature(bus_bits)),
                "done": Out(stream.Signature(DONE)),
                "write": Out(stream.Signature(REQUEST)),
                "data": Out(stream.Signature(bus_bits)),
                "written": In(stream.Signature(writer.DONE)),
            }
        )
        self.command: Any = Signal(COMMAND)
        self.part = Signal(range(PARTS))
        # Of an earlier write; nothing more is written then.
        self.error = Signal(Error)

    def elaborate(self, platform: Any) -> Module:
        """Hardware: a part's place and size, a packer, an aligner, a skid buffer, a state machine."""
        m = Module()
        command, error, pack = self.command, self.error, self.pack
        m.submodules.pack = pack
        m.submodules.aligner = aligner = Aligner(self.bus_bits, step=min(self.sizes))
        # Between the writer's ready, which comes late, and the packer, which shifts a whole record by it.
        m.submodules.skid = skid = Skid(self.bus_bits)
        connect(m, aligner.o, skid.i)
        self._place(m, aligner)
        tokens = delay(m, command.tokens + command.count, 1, "tokens")
        waiting = Signal()
        packs = delay(m, (self.part == PARTS - 1) & command.packed, 1, "packs")
        m.d.comb += [
            aligner.i.payload.eq(Mux(packs, pack.o.payload, self.din.payload)),
            pack.i.payload.eq(self.din.payload),
            self.data.payload.eq(skid.o.payload),
            self.done.payload.status.eq(status_of(error)),
            self.written.ready.eq(1),
        ]
        with m.If(self.written.valid):
            m.d.sync += waiting.eq(0)
            with m.If(error == Error.NONE):
                m.d.sync += error.eq(self.written.payload.error)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.cmd.ready.eq(1)
                m.d.sync += [command.eq(self.cmd.payload), self.part.eq(0), error.eq(Error.NONE)]
                with m.If(self.cmd.valid):
                    m.next = "PLACE"
            with m.State("PLACE"):
                m.next = "SIZE"
            with m.State("SIZE"):
                m.next = "ALIGN"
            with m.State("ALIGN"):
                m.d.comb += aligner.cmd.valid.eq(1)
                with m.If(aligner.cmd.ready):
                    m.next = "MOVE"
                    with m.If(error == Error.NONE):
                        m.next = "WRITE"
            with m.State("WRITE"):
                m.d.comb += self.write.valid.eq(1)
                with m.If(self.write.ready):
                    m.d.sync += waiting.eq(1)
                    m.next = "MOVE"
            with m.State("MOVE"):
                with m.If(packs):
                    m.d.comb += [
                        # Behind the last token comes the next command's payload.
                        pack.i.valid.eq(self.din.valid & aligner.takes),
                        self.din.ready.eq(pack.i.ready & aligner.takes),
                        aligner.i.valid.eq(pack.o.valid),
                        pack.o.ready.eq(aligner.i.ready),
                    ]
                with m.Else():
                    m.d.comb += [
                        aligner.i.valid.eq(self.din.valid),
                        self.din.ready.eq(aligner.i.ready),
                    ]
                m.d.comb += [
                    self.data.valid.eq(skid.o.valid & waiting),
                    # A writer takes all beats of a request before it is done with it.
                    skid.o.ready.eq(self.data.ready | ~waiting),
                ]
                with m.If(~aligner.busy & ~skid.o.valid & ~waiting):
                    m.d.sync += self.part.eq(self.part + 1)
                    m.next = "PLACE"
                    with m.If(self.part == PARTS - 1):
                        m.next = "COUNT"
            with m.State("COUNT"):
                with m.If(error != Error.NONE):
                    m.next = "DONE"
                with m.Else():
                    m.d.comb += self.write.valid.eq(1)
                    with m.If(self.write.ready):
                        m.d.sync += waiting.eq(1)
                        m.next = "TOKENS"
                m.d.comb += [
                    self.write.payload.address.eq(command.address),
                    self.write.payload.bytes.eq(COUNT_BYTES),
                ]
            with m.State("TOKENS"):
                m.d.comb += [self.data.valid.eq(1), self.data.payload.eq(tokens)]
                with m.If(self.data.ready):
                    m.next = "COUNTED"
            with m.State("COUNTED"), m.If(~waiting):
                m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += self.done.valid.eq(1)
                with m.If(self.done.ready):
                    m.next = "IDLE"
        return m

    def _place(self, m: Module, aligner: Aligner) -> None:
        """The part's request, and the aligner's command for it, two cycles after `part`."""
        command, part, shift = self.command, self.part, beat_shift(self.bus_bits)
        pages = Array((command.codes_page, command.scales_page, command.host_page))
        used = Array(self._each(command, lambda size: command.tokens * size))
        new = Array(self._each(command, lambda size: command.count * size))
        take = Array(
            self._each(command, lambda size: count_beats(command.count, 8 * size, bus_bits=self.bus_bits))
        )
        request: Any = Signal(REQUEST)
        m.d.sync += [
            request.address.eq((pages[part] << PAGE_BITS) + used[part]),
            request.bytes.eq(new[part]),
            aligner.cmd.payload.take.eq(take[part]),
            aligner.cmd.payload.give.eq(request_beats(self.bus_bits, request)),
            aligner.cmd.payload.shift.eq(request.address[:shift] >> (min(self.sizes).bit_length() - 1)),
        ]
        m.d.comb += self.write.payload.eq(request)

    def _each(self, command: Any, of: Callable[[int], Any]) -> list[Any]:
        """What a part's bytes of a token give, of K and V by whether they are packed."""
        *parts, kv = (of(size) for size in self.sizes)
        return [*parts, Mux(command.packed, of(self.record_bytes), kv)]
