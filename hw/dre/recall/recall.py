"""Recall: tokens in memory, found by their codes, behind a command stream (model `vrex.model.dre.recall`)."""

from collections.abc import Callable
from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import Out, connect, flipped

from vrex.hw.dre.codes.codes import CodeSelect
from vrex.hw.dre.codes.scorer import Query
from vrex.hw.dre.front import CommandFront
from vrex.hw.dre.kvmu.table import ExactReader, status_of
from vrex.hw.dre.recall.deliver import Deliver
from vrex.hw.dre.recall.store import Store
from vrex.hw.lib.axi.burst import PAGE_BITS, Error
from vrex.hw.lib.axi.master import AxiMaster
from vrex.hw.lib.axi.signature import Axi4Interface, Axi4Signature
from vrex.hw.lib.layout import struct_layout
from vrex.hw.lib.registers import Registers
from vrex.hw.lib.stream import delay
from vrex.model.commands import STORE_TOKENS, VOTE_PARAM, VOTE_ROWS, Opcode, Register, Status
from vrex.model.config import CodesConfig, Config, KvmuConfig, MeanConfig
from vrex.model.dre import token_store
from vrex.model.dre.registers import RECALL_REGISTERS, SCALE

HEADER = struct_layout(token_store.STORE_HEADER)

PACKED_BIT = token_store.PACKED.bit_length() - 1

TABLE_CLIENT, KV_CLIENT = range(2)
"""Clients of the AXI reader: header, codes and scales; K and V, with a buffer."""


class Recall(CommandFront):
    """Executes STORE and RECALL in order, one completion each (see `CommandFront`).

    A RECALL takes the cycles of its unit of codes (`CodeSelect.cycles`), three reads, and those of `Deliver`
    that do not hide behind the last of the bitmask.

    Args:
        codes: dimensions of the unit of codes.
        kvmu: head_dim, and the AXI port's bursts.
        mean: lanes of the quantiser.
        bus_bits: width of `din`, `dout`, `kv` and of the AXI data.

    Members:
        kv: K and V of RECALL; all of a command's have left before its completion.
        m_axi: AXI4 manager (`vrex.hw.lib.axi`).
    """

    kv: stream.Interface
    m_axi: Axi4Interface

    def __init__(self, *, codes: CodesConfig, kvmu: KvmuConfig, mean: MeanConfig, bus_bits: int) -> None:
        """A unit of these dimensions.

        Raises:
            ValueError: the parts do not go together, see `Config`.
        """
        super().__init__(
            Config(codes=codes, kvmu=kvmu, mean=mean, bus_bits=bus_bits),
            {"kv": Out(stream.Signature(bus_bits)), "m_axi": Out(Axi4Signature(data_width=bus_bits))},
        )

    def _parts(self, m: Module) -> None:
        """The unit of codes, readers, writer and registers (see `CommandFront._parts`)."""
        config = self.config
        bus_bits, kvmu = config.bus_bits, config.kvmu
        m.submodules.selector = self.codes = CodeSelect(config.codes, bus_bits=bus_bits)
        m.submodules.reader = self.reader = ExactReader(bus_bits)
        m.submodules.store = self.store = Store(
            codes=config.codes, kvmu=kvmu, mean=config.mean, bus_bits=bus_bits
        )
        m.submodules.deliver = self.deliver = Deliver(kvmu, bus_bits=bus_bits)
        m.submodules.axi = self.axi = AxiMaster(
            bus_bits,
            outstanding=kvmu.outstanding,
            burst_beats=kvmu.burst_beats,
            clients=2,
            buffered=(KV_CLIENT,),
        )
        self.header: Any = Signal(HEADER)
        self.param: Any = data.View(struct_layout(VOTE_PARAM), self.command.param)
        self._registers(m)
        self._connect(m)
        self._sizes(m)
        self._judge(m)
        self._to_units(m)

    def _registers(self, m: Module) -> None:
        """Registers, and what the counters count."""
        codes, axi = self.codes, self.axi
        self.kv_moves = self.kv.valid & self.kv.ready
        self.registers = Registers(
            m,
            {
                Register.VOTE_BUSY: codes.busy,
                Register.VOTE_WAIT_IN: codes.din.ready & ~codes.din.valid,
                Register.VOTE_WAIT_OUT: codes.dout.valid & ~codes.dout.ready,
                Register.READ_BURSTS: axi.read_bursts,
                Register.READ_BEATS: axi.read_beats,
                Register.WRITE_BURSTS: axi.write_bursts,
                Register.WRITE_BEATS: axi.write_beats,
                Register.KV_BEATS: self.kv_moves,
            },
            RECALL_REGISTERS,
        )
        self.kv_beats = Signal(32)
        with m.If(self.cmd.ready):
            m.d.sync += self.kv_beats.eq(0)
        with m.Elif(self.kv_moves):
            m.d.sync += self.kv_beats.eq(self.kv_beats + 1)

    def _connect(self, m: Module) -> None:
        """The AXI port and who uses it."""
        axi, reader, deliver, store = self.axi, self.reader, self.deliver, self.store
        values = self.registers.values
        m.d.comb += [
            axi.windows.device_base.eq(values[Register.DEVICE_BASE]),
            axi.windows.device_pages.eq(values[Register.DEVICE_PAGES]),
            axi.windows.host_base.eq(values[Register.HOST_BASE]),
            axi.windows.host_pages.eq(values[Register.HOST_PAGES]),
            axi.timeout.eq(values[Register.TIMEOUT]),
        ]
        connect(m, axi.m_axi, flipped(self.m_axi))
        connect(m, reader.to_reader, axi.read[TABLE_CLIENT])
        connect(m, axi.beats[TABLE_CLIENT], reader.from_reader)
        connect(m, deliver.read, axi.read[KV_CLIENT])
        connect(m, axi.beats[KV_CLIENT], deliver.beats)
        connect(m, store.write, axi.write)
        connect(m, store.data, axi.data)
        connect(m, axi.done, store.written)
        connect(m, deliver.kv, flipped(self.kv))

    def _sizes(self, m: Module) -> None:
        """Expected sizes of payloads and result in beats, valid four cycles after the descriptor."""
        command, config = self.command, self.config
        row = Signal(17)
        count = Signal(range(max(STORE_TOKENS, VOTE_ROWS) + 1))
        codes = Signal(24)
        kv = Signal(24)
        self.rows_beats = Signal(27)
        self.store_beats = Signal(25)
        self.mask_beats = Signal(14)
        query = Query.beats_of(config.codes.bits, config.bus_bits)
        m.d.sync += [
            count.eq(command.count),
            row.eq(query + self._beats(self.param.residents, 16)),
            self.rows_beats.eq(row * count),
            codes.eq(self._beats(command.count, config.codes.bits) + self._beats(command.count, 16)),
            kv.eq(count * (config.kvmu.token_bytes // config.bus_bytes)),
            self.store_beats.eq(codes + kv),
            self.mask_beats.eq(self._beats(command.clusters, 1)),
        ]

    def _checks(self) -> dict[Opcode, Any]:
        """See `CommandFront._checks`."""
        command, codes = self.command, self.config.codes

        def fits(beats: Signal) -> Any:
            off = command.address[:PAGE_BITS].any() | command.address[48:].any()
            whole = self._whole(beats)
            return Mux((whole == Status.OK) & off, Status.BAD_ADDRESS, whole)

        none = (command.count == 0) | (command.clusters == 0) | (command.count > VOTE_ROWS)
        too_long = (command.clusters > codes.tokens) | (self.param.residents > codes.residents)
        recall = Mux(too_long, Status.CAPACITY, fits(self.rows_beats))
        no_tokens = (command.count == 0) | (command.count > STORE_TOKENS)
        return {
            Opcode.STORE: Mux(no_tokens, Status.BAD_COUNT, fits(self.store_beats)),
            Opcode.RECALL: Mux(none, Status.BAD_COUNT, recall),
        }

    def _judge(self, m: Module) -> None:
        """Takes the header's beats up; `verdict` follows the last of them by two cycles."""
        command, header, reader = self.command, self.header, self.reader
        self.takes_header = Signal()
        bits, bus_bits = header.as_value(), self.config.bus_bits
        with m.If(self.takes_header & reader.o.valid):
            if bus_bits < HEADER.size:
                m.d.sync += bits.eq((bits >> bus_bits) | (reader.o.payload << (HEADER.size - bus_bits)))
            else:
                m.d.sync += bits.eq(reader.o.payload)
        other = delay(m, header.identity != command.kv_heads, 1, "other")
        wrong = delay(m, header.tokens != command.clusters, 1, "wrong")
        full = delay(m, header.tokens + command.count > header.cap_tokens, 1, "full")
        self.verdict = Signal(16)
        with m.If(command.opcode == Opcode.STORE):
            m.d.sync += self.verdict.eq(Mux(full, Status.KV_FULL, Status.OK))
        with m.Else():
            m.d.sync += self.verdict.eq(Mux(wrong, Status.BAD_COUNT, Status.OK))
        with m.If(other):
            m.d.sync += self.verdict.eq(Status.OTHER_CODES)
        with m.If(reader.error != Error.NONE):
            m.d.sync += self.verdict.eq(status_of(reader.error))

    def _to_units(self, m: Module) -> None:
        """Commands of the units, and what is read, from descriptor and header."""
        command, header, codes = self.command, self.header, self.codes
        table = command.address[PAGE_BITS:48]
        scale: Any = data.View(struct_layout(SCALE), self.registers.values[Register.SCALE])
        to_codes, to_store, to_deliver = codes.cmd.payload, self.store.cmd.payload, self.deliver.cmd.payload
        codes_page = Signal(36)
        scales_page = Signal(36)
        self.reads_scales = Signal()
        self.has_header = Signal()
        m.d.sync += [codes_page.eq(table + header.codes_page), scales_page.eq(table + header.scales_page)]
        m.d.comb += [
            to_codes.tokens.eq(command.clusters),
            to_codes.rows.eq(command.count),
            to_codes.residents.eq(self.param.residents),
            to_codes.count.eq(self.param.wanted),
            to_codes.scale_mantissa.eq(scale.mantissa),
            to_codes.scale_exponent.eq(scale.exponent),
            to_store.address.eq(command.address),
            to_store.codes_page.eq(codes_page),
            to_store.scales_page.eq(scales_page),
            to_store.host_page.eq(header.host_page),
            to_store.packed.eq(header.flags[PACKED_BIT]),
            to_store.tokens.eq(header.tokens),
            to_store.count.eq(command.count),
            to_deliver.page.eq(header.host_page),
            to_deliver.packed.eq(header.flags[PACKED_BIT]),
            to_deliver.tokens.eq(command.clusters),
            self.store.din.payload.eq(self.din.payload),
        ]
        # Registered: the reader computes much from a read's bytes in the cycle in which it is asked for.
        read = self.reader.request.payload
        bits = self.config.codes.bits // 8
        m.d.sync += [
            read.address.eq(Mux(self.reads_scales, scales_page, codes_page) << PAGE_BITS),
            read.bytes.eq(command.clusters * Mux(self.reads_scales, token_store.SCALE_BYTES, bits)),
        ]
        with m.If(~self.has_header):
            m.d.sync += [read.address.eq(command.address), read.bytes.eq(token_store.STORE_HEADER.size)]

    def _begin(self, m: Module) -> None:
        """See `CommandFront._begin`."""
        with m.Case(Opcode.STORE, Opcode.RECALL):
            m.d.comb += self.reader.clear.eq(1)
            m.d.sync += self.has_header.eq(0)
            m.next = "HEADER_PLACE"

    def _unit_states(self, m: Module) -> None:
        """See `CommandFront._unit_states`."""
        command, completion, reader = self.command, self.completion, self.reader
        self._read(m, "HEADER", "COMPARE", self._keep_header)
        with m.State("COMPARE"):
            m.next = "COMPARED"
        with m.State("COMPARED"):
            m.next = "JUDGE"
        with m.State("JUDGE"):
            m.d.sync += self.has_header.eq(1)
            m.next = "SELECT"
            with m.If(command.opcode == Opcode.STORE):
                m.next = "STORE"
            with m.If(self.verdict != Status.OK):
                # None of the payload was taken.
                m.d.sync += completion.status.eq(self.verdict)
                m.next = "DRAIN"
        self._store_states(m)
        with m.State("SELECT"):
            m.d.comb += self.codes.cmd.valid.eq(1)
            with m.If(self.codes.cmd.ready):
                m.next = "CODES_PLACE"
        self._read(m, "CODES", "SCALES_PLACE", self._feed_codes)
        self._read(m, "SCALES", "DELIVER", self._feed_codes)
        with m.State("DELIVER"):
            # After a failure the unit of codes must still come to its end.
            m.d.sync += completion.status.eq(status_of(reader.error))
            with m.If(reader.error != Error.NONE):
                m.next = "ROWS"
            with m.Else():
                m.d.comb += self.deliver.cmd.valid.eq(1)
                with m.If(self.deliver.cmd.ready):
                    m.next = "ROWS"
        self._row_states(m)

    def _read(self, m: Module, name: str, after: str, take: Callable[[Module], None]) -> None:
        """States of one read: its address goes into its register, it is asked for, its beats are taken.

        Args:
            m: module.
            name: of the last of them.
            after: state that follows.
            take: takes beats of the reader.
        """
        reader = self.reader
        with m.State(f"{name}_PLACE"):
            m.next = f"{name}_ASK"
        with m.State(f"{name}_ASK"):
            m.d.comb += reader.request.valid.eq(1)
            with m.If(reader.request.ready):
                m.next = name
        with m.State(name):
            take(m)
            with m.If(~reader.busy):
                m.d.sync += self.reads_scales.eq(after.startswith("SCALES"))
                m.next = after

    def _keep_header(self, m: Module) -> None:
        m.d.comb += [self.reader.o.ready.eq(1), self.takes_header.eq(1)]

    def _feed_codes(self, m: Module) -> None:
        codes, reader = self.codes, self.reader
        m.d.comb += [
            codes.din.payload.eq(reader.o.payload),
            codes.din.valid.eq(reader.o.valid),
            reader.o.ready.eq(codes.din.ready),
        ]

    def _store_states(self, m: Module) -> None:
        """STORE: the unit takes the payload."""
        store, completion = self.store, self.completion
        with m.State("STORE"):
            m.d.comb += store.cmd.valid.eq(1)
            with m.If(store.cmd.ready):
                m.next = "STORING"
        with m.State("STORING"):
            m.d.comb += [
                store.din.valid.eq(self.din.valid),
                self.din.ready.eq(store.din.ready),
                store.done.ready.eq(1),
            ]
            with m.If(store.done.valid):
                m.d.sync += completion.status.eq(store.done.payload.status)
                with m.If(store.done.payload.status == Status.OK):
                    m.d.sync += completion.detail.eq(self.header.tokens + self.command.count)
                m.next = "COMPLETE"

    def _row_states(self, m: Module) -> None:
        """RECALL from its rows on: the bitmask leaves as a result and goes to `Deliver`, if all went well."""
        codes, deliver, completion = self.codes, self.deliver, self.completion
        out_took = Signal()
        deliver_took = Signal()
        good = completion.status == Status.OK
        with m.State("ROWS"):
            out_done, deliver_done = out_took | self.dout.ready, deliver_took | deliver.masks.ready
            m.d.comb += [
                codes.din.payload.eq(self.din.payload),
                codes.din.valid.eq(self.din.valid),
                self.din.ready.eq(codes.din.ready),
                self.dout.payload.eq(codes.dout.payload),
                self.dout.valid.eq(codes.dout.valid & ~out_took & good),
                deliver.masks.payload.eq(codes.dout.payload),
                deliver.masks.valid.eq(codes.dout.valid & ~deliver_took & good),
                codes.dout.ready.eq(~good | (out_done & deliver_done)),
                codes.done.ready.eq(1),
            ]
            with m.If(codes.dout.valid & good):
                m.d.sync += [
                    out_took.eq(out_done & ~deliver_done),
                    deliver_took.eq(deliver_done & ~out_done),
                ]
            with m.If(codes.done.valid):
                m.next = "COMPLETE"
                with m.If(good):
                    m.next = "KV"
        with m.State("KV"):
            m.d.comb += deliver.done.ready.eq(1)
            with m.If(deliver.done.valid):
                m.d.sync += [
                    completion.status.eq(deliver.done.payload.status),
                    completion.size.eq(self.mask_beats << (self.config.bus_bytes.bit_length() - 1)),
                    completion.detail.eq(self.kv_beats),
                ]
                m.next = "COMPLETE"
