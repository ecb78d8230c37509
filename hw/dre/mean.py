"""Running mean of a cluster's keys: Key_cluster (paper Section IV-B; model `vrex.model.dre.mean`).

m' = bf16(m + (k - m) * fp32(1 / n')), rounded to nearest or by n'. A command first divides, then processes
its beats: `lanes` values a cycle go from both input streams through the pipelines into a FIFO of beats. The
pipelines never stall: a beat is started only once a FIFO entry is reserved for it. A first key is its
cluster's mean and bypasses the lanes.
"""

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from vrex.hw.lib.float32 import BF16, FP32, Adder, Multiplier, Reciprocal, dither, to_bf16
from vrex.hw.lib.stream import delay
from vrex.model.config import MeanConfig, check_unit
from vrex.model.dre.mean import COUNT_BITS

COMMAND = data.StructLayout({"count": COUNT_BITS, "beats": 16})

FIFO_CYCLES = 4
"""Cycles from a beat's last result until its FIFO entry can be reserved again."""


class Lane(wiring.Component):
    """Pipeline of one value: m + (k - m) * r, each operation rounded to FP32, the result to BF16.

    Args:
        dithered: whether the result is rounded by `count`.

    Members:
        mean, key: BF16 bits of m and k.
        reciprocal: FP32 bits of r, stable as long as values are in the pipelines.
        count: members, as stable; only if `dithered`.
        i_valid: m and k are there.
        o, o_valid: BF16 bits of the result, `latency` cycles later.
    """

    latency = 2 * Adder.latency + Multiplier.latency + 1

    mean: Signal
    key: Signal
    reciprocal: Signal
    count: Signal
    i_valid: Signal
    o: Signal
    o_valid: Signal

    def __init__(self, *, dithered: bool = False) -> None:
        self.dithered = dithered
        super().__init__(
            {
                "mean": In(BF16.bits),
                "key": In(BF16.bits),
                "reciprocal": In(FP32.bits),
                **({"count": In(COUNT_BITS)} if dithered else {}),
                "i_valid": In(1),
                "o": Out(BF16.bits),
                "o_valid": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Subtractor, multiplier, adder and the rounding to BF16, in series."""
        m = Module()
        m.submodules.difference = difference = Adder()
        m.submodules.share = share = Multiplier(normal=True)
        m.submodules.sum = total = Adder()
        low = Const(0, FP32.bits - BF16.bits)
        result = dither(total.o, self.count) if self.dithered else to_bf16(total.o)
        mean = delay(m, self.mean, difference.latency + share.latency, "mean")
        m.d.comb += [
            difference.a.eq(Cat(low, self.key)),
            difference.b.eq(Cat(low, self.mean)),
            difference.subtract.eq(1),
            difference.i_valid.eq(self.i_valid),
            share.a.eq(difference.o),
            share.b.eq(self.reciprocal),
            share.i_valid.eq(difference.o_valid),
            total.a.eq(Cat(low, mean)),
            total.b.eq(share.o),
            total.subtract.eq(0),
            total.i_valid.eq(share.o_valid),
            self.o.eq(delay(m, result, 1, "result")),
            self.o_valid.eq(delay(m, total.o_valid, 1, "result_valid", reset=True)),
        ]
        return m


class Mean(wiring.Component):
    """Updates one mean per command.

    Cycles of a command that never waits: see `cycles`.

    Args:
        config: dimensions of the unit.
        bus_bits: width of its streams of beats.

    Members:
        cmd: count (members including the new one, 1..65535) and beats of the mean, 0..65535.
        mean, key: beats of BF16 values, the first in the lowest bits; taken together. A command with
            count 1 takes none from `mean`.
        o: beats of the updated mean.
    """

    cmd: stream.Interface
    mean: stream.Interface
    key: stream.Interface
    o: stream.Interface

    def __init__(self, config: MeanConfig, *, bus_bits: int) -> None:
        """A unit of these dimensions.

        Raises:
            ValueError: a beat does not hold a value for each lane, or its width is no power of two.
        """
        check_unit(mean=config, bus_bits=bus_bits)
        self.config, self.bus_bits = config, bus_bits
        self.word_bits = BF16.bits * config.lanes
        self.words = bus_bits // self.word_bits
        beats = stream.Signature(bus_bits)
        super().__init__(
            {"cmd": In(stream.Signature(COMMAND)), "mean": In(beats), "key": In(beats), "o": Out(beats)}
        )

    @staticmethod
    def cycles(config: MeanConfig, count: int, beats: int, *, bus_bits: int) -> int:
        """Upper bound of the cycles from a command to its last beat when no port makes the unit wait."""
        if count == 1:
            return 1 + beats + FIFO_CYCLES
        words = bus_bits // (BF16.bits * config.lanes)
        return Reciprocal.cycles + 1 + beats * words + Lane.latency + FIFO_CYCLES

    def elaborate(self, platform: Any) -> Module:
        """Divider, lanes, the FIFO of results, and the state machine."""
        m = Module()
        m.submodules.reciprocal = self.reciprocal = Reciprocal()
        self.updating = Signal()
        self.copying = Signal()
        # Beats still to be read, and still to be delivered.
        self.left = Signal(16)
        self.due = Signal(16)
        # Of the command in work, for the lanes if they round by it.
        self.count = Signal(COUNT_BITS)
        self._control(m)
        self._room(m)
        taken, done, results = self._take(m)
        self._give(m, done, results)
        with m.If(taken):
            m.d.sync += self.left.eq(self.left - 1)
            with m.If(self.left == 1):
                m.d.sync += [self.updating.eq(0), self.copying.eq(0)]
        return m

    def _room(self, m: Module) -> None:
        """The FIFO of results, and the credits for its entries.

        `room` is two cycles late, so it keeps two entries back for beats that were started meanwhile.
        """
        # A freed entry can be reserved again two cycles later. Copies take one beat per cycle.
        places = max((Lane.latency + FIFO_CYCLES + 2) // self.words, FIFO_CYCLES + 2) + 4
        m.submodules.beats = self.beats = SyncFIFOBuffered(width=self.bus_bits, depth=places + 1)
        free = Signal(range(places + 1), init=places)
        self.room = Signal()
        self.reserve = Signal()
        given = self.o.valid & self.o.ready
        m.d.comb += [
            self.o.payload.eq(self.beats.r_data),
            self.o.valid.eq(self.beats.r_rdy),
            self.beats.r_en.eq(self.o.ready),
        ]
        there, taken = delay(m, given, 1, "there", reset=True), delay(m, self.reserve, 1, "taken", reset=True)
        m.d.sync += [free.eq(free + there - taken), self.room.eq(free >= 3)]
        with m.If(given):
            m.d.sync += self.due.eq(self.due - 1)

    def _control(self, m: Module) -> None:
        """Sequence of one command."""
        command = self.cmd.payload
        m.d.comb += self.reciprocal.count.eq(command.count)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.cmd.ready.eq(1)
                m.d.sync += [self.left.eq(command.beats), self.due.eq(command.beats)]
                if self.config.dithered:
                    m.d.sync += self.count.eq(command.count)
                with m.If(self.cmd.valid & (command.beats != 0)):
                    m.d.comb += self.reciprocal.start.eq(1)
                    m.next = "DIVIDE"
                    with m.If(command.count == 1):
                        m.d.sync += self.copying.eq(1)
                        m.next = "WORK"
            with m.State("DIVIDE"), m.If(self.reciprocal.valid):
                m.d.sync += self.updating.eq(1)
                m.next = "WORK"
            with m.State("WORK"), m.If(self.due == 0):
                m.next = "IDLE"

    def _take(self, m: Module) -> tuple[Any, Any, Any]:
        """Feeds both streams to the lanes; returns (beat taken, results valid, results)."""
        word = Signal(range(max(self.words, 2)))
        # Registered, not decoded from `word`, whose fan-out to the lanes' multiplexers is large.
        first = Signal(init=1)
        last = Signal(init=self.words == 1)
        take = Signal()
        taken = Signal()
        m.d.comb += [
            take.eq(self.updating & self.mean.valid & self.key.valid & (self.room | ~first)),
            self.mean.ready.eq(take & last),
            self.key.ready.eq(self.mean.ready | (self.copying & self.room)),
            taken.eq(self.key.valid & self.key.ready),
            self.reserve.eq(Mux(self.copying, taken, take & first)),
        ]
        with m.If(take):
            m.d.sync += [
                word.eq(Mux(last, 0, word + 1)),
                first.eq(last),
                last.eq((word == self.words - 2) | (self.words == 1)),
            ]
        results, done = self._lanes(m, word, take)
        return taken, done, results

    def _give(self, m: Module, done: Any, results: Any) -> None:
        """Collects results into a beat, or copies a first key, and writes it into the FIFO."""
        word = Signal(range(max(self.words, 2)))
        beat = Signal(self.bus_bits)
        complete = Mux(self.copying, self.key.valid & self.key.ready, done & (word == self.words - 1))
        m.d.comb += [
            self.beats.w_data.eq(beat),
            self.beats.w_en.eq(delay(m, complete, 1, "complete", reset=True)),
        ]
        with m.If(self.copying):
            m.d.sync += beat.eq(self.key.payload)
        with m.Elif(done):
            m.d.sync += beat.word_select(word, self.word_bits).eq(results)
        with m.If(done):
            m.d.sync += word.eq(Mux(word == self.words - 1, 0, word + 1))

    def _lanes(self, m: Module, word: Signal, take: Signal) -> tuple[Any, Any]:
        """The lanes, with registered inputs; returns (results, valid)."""
        lanes = [Lane(dithered=self.config.dithered) for _ in range(self.config.lanes)]
        valid = delay(m, take, 1, "valid", reset=True)
        for i, lane in enumerate(lanes):
            m.submodules[f"lane_{i}"] = lane
            for port, beat in ((lane.mean, self.mean.payload), (lane.key, self.key.payload)):
                value = beat.word_select(word, self.word_bits).word_select(i, BF16.bits)
                m.d.comb += port.eq(delay(m, value, 1, "value"))
            m.d.comb += [lane.reciprocal.eq(self.reciprocal.o), lane.i_valid.eq(valid)]
            if self.config.dithered:
                m.d.comb += lane.count.eq(self.count)
        return Cat(lane.o for lane in lanes), lanes[0].o_valid
