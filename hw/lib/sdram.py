"""SDRAM behind an AXI4 port: a controller for one chip of single data rate.

Every word is a burst of its own (mode register: length 1), a column a cycle, so that nothing ever has to be
cut off. One row is open at a time and stays so until another one is wanted or a refresh is due. Model of the
commands, and their rules: `vrex.model.lib.sdram`.
"""

from typing import Any

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from vrex.hw.lib.axi.burst import INCR, beat_shift
from vrex.hw.lib.axi.signature import ID_BITS, Axi4Interface, Axi4Signature
from vrex.hw.lib.stream import delay
from vrex.model.lib.sdram import ALL_BANKS, SdramChip, SdramCommand, SdramCycles, mode_word

REFRESHES = 8
"""REFRESHes at the start."""

SLVERR, DECERR = 2, 3

READ_BEATS = 16
"""Beats that wait for their taker; as many are asked for ahead."""


class SdramPins(wiring.PureInterface):
    """A chip's pins; see `SdramPinsSignature`."""

    cke: Signal
    command: Signal
    bank: Signal
    address: Signal
    mask: Signal
    dq_o: Signal
    dq_oe: Signal
    dq_i: Signal


class SdramPinsSignature(wiring.Signature):
    """Pins of a chip, from the controller's side; all that is driven comes from registers.

    Args:
        chip: it.

    Members:
        cke: clock enable.
        command: `SdramCommand`: WE in bit 0, CAS, RAS; ones are asserted, so low at the chip.
        bank, address: as the chip's; `address` is as wide as a row's number.
        mask: DQM, a bit a byte.
        dq_o, dq_oe, dq_i: the words, and whether they are driven.
    """

    def __init__(self, chip: SdramChip) -> None:
        self.chip = chip
        width = chip.width
        super().__init__(
            {
                "cke": Out(1),
                "command": Out(3),
                "bank": Out(range(chip.banks)),
                "address": Out(range(chip.rows)),
                "mask": Out(width // 8),
                "dq_o": Out(width),
                "dq_oe": Out(1),
                "dq_i": In(width),
            }
        )

    def create(self, *, path: tuple[str | int, ...] = (), src_loc_at: int = 0) -> SdramPins:
        """The pins' signals."""
        return SdramPins(self, path=path, src_loc_at=1 + src_loc_at)


class Sdram(wiring.Component):
    """Serves one burst after the other, reading and writing in turn when both are asked for.

    A burst of n beats of w words takes n w cycles, plus up to ras + rp + rcd for its row (`SdramCycles`),
    plus 3; of every `refresh_cycles`, rp + rfc + 2 are the refresh's. A beat that is read is valid
    `read_delay` + w + 4 cycles after its first column was asked for. INCR bursts of whole beats alone are
    served; another is answered with SLVERR, one beyond the chip with DECERR, and changes nothing.

    Args:
        chip: its geometry.
        cycles: its times at the clock (`SdramChip.cycles`).
        data_width: bits of a beat, a multiple of the chip's.
        id_width: bits of a burst's id.
        read_delay: cycles from the one in which READ stands at `pins` to the one in which its word does:
            `cycles.cas` where the chip hangs on the pins and has the same clock.

    Members:
        s_axi: AXI4 subordinate.
        pins: the chip's.
    """

    s_axi: Axi4Interface
    pins: SdramPins

    def __init__(
        self,
        chip: SdramChip,
        cycles: SdramCycles,
        *,
        data_width: int,
        id_width: int = ID_BITS,
        read_delay: int | None = None,
    ) -> None:
        """A controller.

        Raises:
            ValueError: a beat holds no whole number of words of the chip, or refreshes leave no time.
        """
        words = data_width // chip.width
        if data_width % chip.width or words & words - 1 or not 1 < words <= chip.columns:
            raise ValueError(f"beats of {data_width} bits are not 2, 4, 8, ... words of {chip.width} bits")
        self.chip, self.cycles, self.words = chip, cycles, words
        self.data_width, self.id_width = data_width, id_width
        self.read_delay = cycles.cas if read_delay is None else read_delay
        if self.refresh_cycles < 2 * (cycles.rp + cycles.rfc + cycles.rcd + words):
            raise ValueError(f"a refresh every {cycles.refresh} cycles leaves no time for anything else")
        super().__init__(
            {
                "s_axi": In(Axi4Signature(data_width=data_width, id_width=id_width)),
                "pins": Out(SdramPinsSignature(chip)),
            }
        )

    @property
    def refresh_cycles(self) -> int:
        """Cycles between two refreshes: earlier than they must be by what one may have to wait for."""
        times = self.cycles
        return times.refresh - (times.rcd + max(times.ras, times.wr) + times.rp + times.rc + 4)

    def elaborate(self, platform: Any) -> Module:
        """Bursts, beats to write, beats read, and the commands."""
        m = Module()
        self._burst(m)
        self._written_beats(m)
        self._read_beats(m)
        self._timers(m)
        self._commands(m)
        return m

    # -- AXI4 --------------------------------------------------------------------------------------------

    def _burst(self, m: Module) -> None:
        """The burst in work, taken from AR and AW in turn."""
        ar, aw, b = self.s_axi.ar, self.s_axi.aw, self.s_axi.b
        self.busy = Signal()
        self.is_write = Signal()
        self.id = Signal(self.id_width)
        self.left = Signal(8)
        self.resp = Signal(2)
        # Number of the beat within the chip, and of the word in the beat.
        self.beat = Signal(range(self.chip.bytes * 8 // self.data_width))
        self.word = Signal(range(self.words))
        self.word_done = Signal()
        self.beat_done = Signal()
        self.last_word = Signal()
        self.beat_waits = Signal()
        was_write = Signal()
        take_read = Signal()
        shift = beat_shift(self.data_width)
        m.d.comb += [
            self.last_word.eq(self.word == self.words - 1),
            self.beat_done.eq(self.word_done & self.last_word),
            # An address alone would keep reads waiting for its first beat.
            aw.ready.eq(~self.busy & ~b.valid & self.beat_waits & ~take_read),
            take_read.eq(ar.valid & ~(aw.valid & self.beat_waits & ~b.valid & ~was_write)),
            ar.ready.eq(~self.busy & take_read),
        ]
        for channel, is_write in ((ar, 0), (aw, 1)):
            size = (self.data_width // 8).bit_length() - 1
            beyond = channel.addr[self.chip.bytes.bit_length() - 1 :].any()
            unknown = (channel.burst != INCR) | (channel.size != size)
            with m.If(channel.valid & channel.ready):
                m.d.sync += [
                    self.busy.eq(1),
                    self.is_write.eq(is_write),
                    was_write.eq(is_write),
                    self.id.eq(channel.id),
                    self.left.eq(channel.len),
                    self.beat.eq(channel.addr[shift:]),
                    self.resp.eq(Mux(unknown, SLVERR, Mux(beyond, DECERR, 0))),
                ]
        with m.If(b.ready):
            m.d.sync += b.valid.eq(0)
        with m.If(self.word_done):
            m.d.sync += self.word.eq(self.word + 1)
        with m.If(self.beat_done):
            m.d.sync += [self.beat.eq(self.beat + 1), self.left.eq(self.left - 1)]
            with m.If(self.left == 0):
                m.d.sync += self.busy.eq(0)
                with m.If(self.is_write):
                    m.d.sync += [b.valid.eq(1), b.id.eq(self.id), b.resp.eq(self.resp)]

    def _written_beats(self, m: Module) -> None:
        """The beat that is written, word by word, and the one behind it."""
        w = self.s_axi.w
        layout = data.StructLayout({"data": self.data_width, "strb": self.data_width // 8})
        following: Any = Signal(layout)
        current: Any = Signal(layout)
        waits = Signal()
        self.has_beat = Signal()
        width = self.chip.width
        m.d.comb += [
            w.ready.eq(~waits),
            self.beat_waits.eq(self.has_beat),
        ]
        self.to_write: Any = Signal(width)
        self.mask = Signal(width // 8)
        m.d.comb += [
            self.to_write.eq(current.data[:width]),
            self.mask.eq(~current.strb[: width // 8] | (self.resp != 0).replicate(width // 8)),
        ]
        with m.If(self.word_done & self.is_write):
            m.d.sync += [current.data.eq(current.data >> width), current.strb.eq(current.strb >> width // 8)]
        with m.If(w.valid & w.ready):
            m.d.sync += [following.data.eq(w.data), following.strb.eq(w.strb), waits.eq(1)]
        with m.If(~self.has_beat | (self.beat_done & self.is_write)):
            m.d.sync += self.has_beat.eq(waits)
            with m.If(waits):
                m.d.sync += [current.eq(following), waits.eq(0)]

    def _read_beats(self, m: Module) -> None:
        """Words that come back, joined to beats that wait for their taker."""
        r = self.s_axi.r
        shape = data.StructLayout({"id": self.id_width, "resp": 2, "last": 1})
        self.reads = Signal()
        tag: Any = Signal(shape)
        m.d.comb += [
            tag.id.eq(self.id),
            tag.resp.eq(self.resp),
            tag.last.eq(self.left == 0),
            self.reads.eq(self.word_done & ~self.is_write),
        ]
        # One cycle to the register at the pins.
        cycles = 1 + self.read_delay
        comes = delay(m, self.reads, cycles, "comes", reset=True)
        ends = delay(m, self.reads & self.last_word, cycles + 1, "ends", reset=True)
        of: Any = delay(m, tag, cycles + 1, "tag")
        joined = Signal(self.data_width)
        with m.If(comes):
            m.d.sync += joined.eq(Cat(joined[self.chip.width :], self.pins.dq_i))
        width = self.data_width + shape.size
        fifo: Any = SyncFIFOBuffered(width=width, depth=READ_BEATS + 1)
        m.submodules.fifo = fifo
        m.d.comb += [
            fifo.w_data.eq(Cat(joined, of.as_value())),
            fifo.w_en.eq(ends),
            Cat(r.data, r.id, r.resp, r.last).eq(fifo.r_data),
            r.valid.eq(fifo.r_rdy),
            fifo.r_en.eq(r.ready),
        ]
        # Room that no beat has been asked for; a beat has its room from its first word on.
        free = Signal(range(READ_BEATS + 1), init=READ_BEATS)
        self.has_room = Signal()
        m.d.comb += self.has_room.eq(free != 0)
        m.d.sync += free.eq(free + (r.valid & r.ready) - (self.reads & (self.word == 0)))

    # -- the chip ----------------------------------------------------------------------------------------

    def _timers(self, m: Module) -> None:
        """What must pass before a command may follow; all count down to 0."""
        times = self.cycles

        def timer(name: str, most: int) -> Signal:
            left = Signal(range(max(2, most)), name=name)
            with m.If(left != 0):
                m.d.sync += left.eq(left - 1)
            return left

        # Before anything; before PRECHARGE, of ACTIVATE and of WRITE; before ACTIVATE; before WRITE.
        self.wait = timer("wait", max(times.rcd, times.rp, times.rfc, times.mrd))
        self.ras, self.rc = timer("ras", times.ras), timer("rc", times.rc)
        self.recovery = timer("recovery", times.wr)
        self.turn = timer("turn", times.cas + 2)
        self.may_close = Signal()
        m.d.comb += self.may_close.eq((self.ras == 0) & (self.recovery == 0))
        until_refresh = Signal(range(self.refresh_cycles), init=self.refresh_cycles - 1)
        self.refresh_due = Signal()
        m.d.sync += until_refresh.eq(until_refresh - 1)
        with m.If(until_refresh == 0):
            m.d.sync += [until_refresh.eq(self.refresh_cycles - 1), self.refresh_due.eq(1)]

    def _commands(self, m: Module) -> None:
        """The start, and then the next command that may be given."""
        times, pins = self.cycles, self.pins
        self.is_open = Signal()
        pause = Signal(range(times.init + 1), init=times.init)
        refreshes = Signal(range(REFRESHES))
        m.d.sync += [
            pins.cke.eq(1),
            pins.command.eq(SdramCommand.NOP),
            pins.mask.eq(0),
            pins.dq_oe.eq(0),
        ]
        with m.FSM():
            with m.State("PAUSE"):
                m.d.sync += pause.eq(pause - 1)
                with m.If(pause == 0):
                    self._precharge(m)
                    m.next = "REFRESH"
            with m.State("REFRESH"), m.If(self.wait == 0):
                self._refresh(m)
                m.d.sync += refreshes.eq(refreshes + 1)
                with m.If(refreshes == REFRESHES - 1):
                    m.next = "MODE"
            with m.State("MODE"), m.If(self.wait == 0):
                self._give(m, SdramCommand.MODE, mode_word(times.cas), times.mrd)
                m.d.sync += pins.bank.eq(0)
                m.next = "WORK"
            with m.State("WORK"), m.If(self.wait == 0):
                self._work(m)

    def _work(self, m: Module) -> None:
        """One command of the burst in work, or of a refresh."""
        times, pins = self.cycles, self.pins
        columns, banks = ((n - 1).bit_length() for n in (self.chip.columns, self.chip.banks))
        address = Cat(self.word, self.beat)
        column, row = address[:columns], address[columns:]
        opened = Signal.like(row)
        hits = Signal()
        wanted = Signal()
        m.d.comb += [
            hits.eq(self.is_open & (opened == row)),
            wanted.eq(self.busy & ((self.word != 0) | Mux(self.is_write, self.has_beat, self.has_room))),
        ]
        with m.If(self.refresh_due):
            with m.If(self.is_open), m.If(self.may_close):
                self._precharge(m)
            with m.Elif(self.rc == 0):
                self._refresh(m)
        with m.Elif(wanted & hits):
            with m.If(~self.is_write | (self.turn == 0)):
                m.d.comb += self.word_done.eq(1)
                m.d.sync += [pins.address.eq(column), pins.bank.eq(row[:banks])]
            with m.If(~self.is_write):
                m.d.sync += [pins.command.eq(SdramCommand.READ), self.turn.eq(times.cas + 1)]
            with m.Elif(self.turn == 0):
                m.d.sync += [
                    pins.command.eq(SdramCommand.WRITE),
                    pins.mask.eq(self.mask),
                    pins.dq_o.eq(self.to_write),
                    pins.dq_oe.eq(1),
                    self.recovery.eq(times.wr - 1),
                ]
        with m.Elif(wanted & self.is_open), m.If(self.may_close):
            self._precharge(m)
        with m.Elif(wanted & (self.rc == 0)):
            self._give(m, SdramCommand.ACTIVATE, row[banks:], times.rcd)
            m.d.sync += [
                pins.bank.eq(row[:banks]),
                self.is_open.eq(1),
                opened.eq(row),
                self.ras.eq(times.ras - 1),
                self.rc.eq(times.rc - 1),
            ]

    def _precharge(self, m: Module) -> None:
        self._give(m, SdramCommand.PRECHARGE, ALL_BANKS, self.cycles.rp)
        m.d.sync += self.is_open.eq(0)

    def _refresh(self, m: Module) -> None:
        self._give(m, SdramCommand.REFRESH, 0, self.cycles.rfc)
        m.d.sync += self.refresh_due.eq(0)

    def _give(self, m: Module, command: SdramCommand, address: Any, cycles: int) -> None:
        """Gives a command after which nothing may follow for so many cycles."""
        m.d.sync += [
            self.pins.command.eq(command),
            self.pins.address.eq(address),
            self.wait.eq(cycles - 1),
        ]
