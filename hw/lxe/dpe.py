"""DPE: matrix products on MAC trees (paper Section V-A, Table III; model `vrex.model.lxe.dpe`).

Weight-stationary: each tree holds one chunk of one row of w while the rows of x stream past it, and the next
tile of weights is loaded in the background, one beat a cycle. A tile therefore takes the larger of
rows x beats cycles of arithmetic and trees x beats cycles of weights. Partial sums are kept in a memory of
one FP32 word per tree and row.

The trees are instances of the module `vrex_mac_tree`, so that its Verilog is generated only once.
"""

from types import SimpleNamespace
from typing import Any

from amaranth import Cat, ClockSignal, Const, Instance, Module, Mux, ResetSignal, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from vrex.hw.lib.float32 import BF16, FP32, Adder, to_bf16
from vrex.hw.lib.layout import struct_layout
from vrex.hw.lib.stream import delay
from vrex.hw.lxe.mac_tree import MINUS_ZERO, latencies
from vrex.model.commands import Status
from vrex.model.config import CHUNK, DpeConfig
from vrex.model.lxe.dpe import COMMAND

COUNTER_BITS = 32
HAZARD = Adder.latency + 2
"""Least cycles between two chunks of one row: the first one's sum must be in the memory before it is read."""


class Dpe(wiring.Component):
    """One matrix product per command: o = x times the transpose of w.

    Args:
        config: its parameters.

    Members:
        cmd: products (`vrex.model.lxe.dpe.COMMAND`); by columns only with at most as many trees as inputs.
        w: beats of weights (`vrex.model.lxe.dpe.weight_beats`, or `column_beats`).
        x: beats of activations (`vrex.model.lxe.dpe.row_beats`): all rows again for each tile.
        o: for each tile and row a word with one result of every tree, FP32, or BF16 in its lower half.
        done: status, `OK` after the last word was taken; `BAD_LENGTH` at once for a command whose rows,
            chunks or tiles are out of range, which takes no beat and gives no word.
        busy: cycles since reset in which a beat of x entered the trees.
        no_weights, no_rows, no_room: cycles in which a command waited for w, for x, for `o` to be taken.

    Attributes:
        total_latency, latency: of its MAC trees (`vrex.hw.lxe.mac_tree.latencies`).
    """

    cmd: stream.Interface
    x: stream.Interface
    w: stream.Interface
    o: stream.Interface
    done: stream.Interface
    busy: Signal
    no_weights: Signal
    no_rows: Signal
    no_room: Signal

    def __init__(self, config: DpeConfig) -> None:
        self.config = config
        self.total_latency, self.latency = latencies(config)
        beat = stream.Signature(config.inputs * BF16.bits)
        super().__init__(
            {
                "cmd": In(stream.Signature(struct_layout(COMMAND))),
                "x": In(beat),
                "w": In(beat),
                "o": Out(stream.Signature(config.trees * FP32.bits)),
                "done": Out(stream.Signature(8)),
                **{name: Out(COUNTER_BITS) for name in ("busy", "no_weights", "no_rows", "no_room")},
            }
        )

    @staticmethod
    def tile_cycles(config: DpeConfig, rows: int, columns: bool = False) -> int:
        """Cycles of one tile and chunk when no port waits."""
        weights = CHUNK if columns else config.trees * config.beats
        return max(rows * config.beats + 1, weights, HAZARD + config.beats - 1)

    def elaborate(self, platform: Any) -> Module:
        """Builds the weight loader, the row buffer, the trees with their sums, and the queue of results."""
        m = Module()
        self.rows = Signal(16)
        self.chunks = Signal(16)
        self.tiles = Signal(16)
        self.bf16 = Signal()
        self.columns = Signal()
        # Complete tiles in the double-buffered weight memories; words of the queue of results in use.
        self.filled = Signal(2)
        self.reserved = Signal(range(2 * self.config.rows + 1))
        self.accepted = Signal()
        self.tile_done = Signal()
        self.working = Signal()
        weights = self._load(m)
        step = self._issue(m)
        results = self._trees(m, weights, step)
        self._collect(m, results)
        self._control(m)
        return m

    def _control(self, m: Module) -> None:
        """Takes commands, checks them, and reports their end."""
        command = self.cmd.payload
        whole = (command.rows != 0) & (command.chunks != 0) & (command.tiles != 0)
        legal = whole & (command.rows <= self.config.rows)
        status = Signal(8)
        m.d.comb += self.done.payload.eq(status)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.cmd.ready.eq(1)
                with m.If(self.cmd.valid):
                    m.d.sync += [
                        self.rows.eq(command.rows),
                        self.chunks.eq(command.chunks),
                        self.tiles.eq(command.tiles),
                        self.bf16.eq(command.bf16),
                        self.columns.eq(command.columns),
                        status.eq(Status.BAD_LENGTH),
                    ]
                    m.next = "DONE"
                    with m.If(legal):
                        m.d.comb += self.accepted.eq(1)
                        m.d.sync += [self.working.eq(1), status.eq(Status.OK)]
                        m.next = "WORK"
            with m.State("WORK"), m.If(~self.working & (self.reserved == 0)):
                m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += self.done.valid.eq(1)
                with m.If(self.done.ready):
                    m.next = "IDLE"

    def _load(self, m: Module) -> list[Memory]:
        """Writes beats of w to the trees' memories: the next tile while the current one is in use."""
        dpe = self.config
        row_steps = dpe.trees * dpe.beats
        step = Signal(range(max(row_steps, CHUNK)))
        bank = Signal()
        chunk = Signal(16)
        tile = Signal(16)
        loading = Signal()
        taken = Signal()
        ends_tile = Signal()
        m.d.comb += [
            self.w.ready.eq(loading & (self.filled != 2)),
            taken.eq(self.w.valid & self.w.ready),
            ends_tile.eq(taken & (step == Mux(self.columns, CHUNK - 1, row_steps - 1))),
        ]
        with m.If(self.accepted):
            m.d.sync += [chunk.eq(0), tile.eq(0), loading.eq(1)]
        with m.If(taken):
            m.d.sync += step.eq(Mux(ends_tile, 0, step + 1))
        with m.If(ends_tile):
            m.d.sync += [bank.eq(~bank), chunk.eq(chunk + 1)]
            with m.If(chunk == self.chunks - 1):
                m.d.sync += [chunk.eq(0), tile.eq(tile + 1)]
                with m.If(tile == self.tiles - 1):
                    m.d.sync += loading.eq(0)
        with m.If(ends_tile != self.tile_done):
            m.d.sync += self.filled.eq(Mux(ends_tile, self.filled + 1, self.filled - 1))
        return [self._weights(m, i, step, bank, taken) for i in range(dpe.trees)]

    def _weights(self, m: Module, tree: int, step: Any, bank: Any, taken: Any) -> Memory:
        """A tree's memory: by rows it takes the beats of its own row, by columns its term of every beat."""
        dpe = self.config
        beat_bits, term_bits = dpe.beats.bit_length() - 1, dpe.inputs.bit_length() - 1
        memory: Memory[Any, Any] = Memory(shape=dpe.inputs * BF16.bits, depth=2 * dpe.beats, init=[])
        m.submodules[f"weights_{tree}"] = memory
        port = memory.write_port(granularity=BF16.bits)
        # A chunk of one beat takes only one word of each bank.
        beat = Mux(self.columns, step[term_bits:], step[:beat_bits]) if beat_bits else 0
        term = self.w.payload.word_select(tree, BF16.bits) if tree < dpe.inputs else 0
        by_row = (step[beat_bits:] == tree).replicate(dpe.inputs)
        by_column = Const(1, dpe.inputs) << step[:term_bits]
        m.d.comb += [
            port.addr.eq(beat + Mux(bank, dpe.beats, 0)),
            port.data.eq(Mux(self.columns, Cat(*[term] * dpe.inputs), self.w.payload)),
            port.en.eq(Mux(taken, Mux(self.columns, by_column, by_row), 0)),
        ]
        return memory

    def _issue(self, m: Module) -> SimpleNamespace:
        """Issues whole chunks of x to the trees, row by row, tile by tile.

        Returns:
            Of the beat that leaves the buffer: `beat` and `bank` of the weights it is multiplied by, `x`,
            `valid`, its `row`, and whether its chunk is the row's `first` or `last`.
        """
        dpe = self.config
        fifo: Any = SyncFIFOBuffered(width=dpe.inputs * BF16.bits, depth=4 * dpe.beats + 2)
        m.submodules.rows = fifo
        active = Signal()
        bank = Signal()
        beat = Signal(range(max(dpe.beats, 2)))
        row = Signal(range(dpe.rows))
        chunk = Signal(16)
        tile = Signal(16)
        wait = Signal(range(HAZARD + 1))
        take = Signal()
        ends = Signal()
        start = Signal()
        last = Signal()
        room = self.reserved + self.rows <= 2 * dpe.rows
        m.d.comb += [
            fifo.w_data.eq(self.x.payload),
            fifo.w_en.eq(self.x.valid),
            self.x.ready.eq(fifo.w_rdy),
            last.eq(chunk == self.chunks - 1),
            take.eq(active & fifo.r_rdy & ((beat != 0) | (fifo.level >= dpe.beats))),
            fifo.r_en.eq(take),
            ends.eq(take & (beat == dpe.beats - 1)),
            self.tile_done.eq(ends & (row == self.rows - 1)),
            start.eq(self.working & ~active & (self.filled != 0) & (wait == 0) & (~last | room)),
        ]
        with m.If(wait != 0):
            m.d.sync += wait.eq(wait - 1)
        with m.If(start):
            m.d.sync += [active.eq(1), row.eq(0)]
        with m.If(take):
            m.d.sync += beat.eq(Mux(ends, 0, beat + 1))
        with m.If(ends):
            m.d.sync += row.eq(row + 1)
        with m.If(self.tile_done):
            # Rows come in the same order in each chunk, so only a tile of few rows has to wait for its sums.
            m.d.sync += [
                active.eq(0),
                bank.eq(~bank),
                wait.eq(self._wait(m)),
                chunk.eq(Mux(last, 0, chunk + 1)),
            ]
            with m.If(last):
                m.d.sync += tile.eq(tile + 1)
                with m.If(tile == self.tiles - 1):
                    m.d.sync += [self.working.eq(0), tile.eq(0)]
        self._reserve(m, start & last)
        self._count(m, take, active, start, room | ~last)
        return SimpleNamespace(
            beat=beat, bank=bank, x=fifo.r_data, valid=take, row=row, first=chunk == 0, last=last
        )

    def _wait(self, m: Module) -> Any:
        """Cycles to wait between the end of a tile and the first row of the next one (see `HAZARD`)."""
        span = Signal(20)
        m.d.comb += span.eq((self.rows - 1) * self.config.beats)
        # A tile starts two cycles after the end of the one before in any case.
        least = HAZARD - 2
        return Mux(span >= least, 0, least - span[: len(Const(least))])

    def _reserve(self, m: Module, begins: Any) -> None:
        """Reserves words of the queue of results when their last chunk begins."""
        taken = self.o.valid & self.o.ready
        with m.If(begins):
            m.d.sync += self.reserved.eq(self.reserved + self.rows - taken)
        with m.Elif(taken):
            m.d.sync += self.reserved.eq(self.reserved - 1)

    def _count(self, m: Module, take: Any, active: Any, start: Any, room: Any) -> None:
        """The performance counters."""
        counted = {
            "busy": take,
            "no_weights": self.working & ~active & ~start & (self.filled == 0),
            "no_rows": active & ~take,
            "no_room": self.working & ~active & (self.filled != 0) & ~room,
        }
        for name, event in counted.items():
            counter = getattr(self, name)
            m.d.sync += counter.eq(counter + event)

    def _trees(self, m: Module, weights: list[Memory], step: SimpleNamespace) -> SimpleNamespace:
        """The trees and the memory of their partial sums.

        Returns:
            `words`, the sum of each tree, and `valid`, whether they are the final ones of a row.
        """
        dpe = self.config
        sums: Memory[Any, Any] = Memory(shape=dpe.trees * FP32.bits, depth=dpe.rows, init=[])
        m.submodules.sums = sums
        read, write = sums.read_port(), sums.write_port()
        x, valid = delay(m, step.x, 1, "x"), delay(m, step.valid, 1, "valid", reset=True)
        mark = Cat(step.first, step.last, step.row)
        early = delay(m, mark, self.total_latency, "early")
        due = delay(m, early, 1, "due")
        late = delay(m, due, Adder.latency, "late")
        m.d.comb += [read.addr.eq(early[2:]), read.en.eq(1)]
        outputs = []
        for i, memory in enumerate(weights):
            port, o, o_valid = (
                memory.read_port(),
                Signal(FP32.bits, name=f"o_{i}"),
                Signal(name=f"o_valid_{i}"),
            )
            total = Mux(due[0], MINUS_ZERO, read.data.word_select(i, FP32.bits))
            m.d.comb += [port.addr.eq(step.beat + Mux(step.bank, dpe.beats, 0)), port.en.eq(1)]
            m.submodules[f"tree_{i}"] = Instance(
                "vrex_mac_tree",
                i_clk=ClockSignal(),
                i_rst=ResetSignal(),
                i_a=x,
                i_b=port.data,
                i_i_valid=valid,
                i_total=total,
                o_o=o,
                o_o_valid=o_valid,
            )
            outputs.append((o, o_valid))
        # All trees finish in the same cycle.
        words, valid = [o for o, _ in outputs], outputs[0][1]
        m.d.comb += [write.addr.eq(late[2:]), write.data.eq(Cat(words)), write.en.eq(valid)]
        return SimpleNamespace(words=words, valid=valid & late[1])

    def _collect(self, m: Module, results: SimpleNamespace) -> None:
        """Queues the final sums of each row, rounded to BF16 if the command says so."""
        dpe = self.config
        m.submodules.results = fifo = SyncFIFOBuffered(width=dpe.trees * FP32.bits, depth=2 * dpe.rows)
        rounded = Cat(*(to_bf16(word) for word in results.words))
        word = delay(m, Mux(self.bf16, rounded, Cat(results.words)), 1, "word")
        m.d.comb += [
            fifo.w_data.eq(word),
            fifo.w_en.eq(delay(m, results.valid, 1, "word_valid", reset=True)),
            self.o.payload.eq(fifo.r_data),
            self.o.valid.eq(fifo.r_rdy),
            fifo.r_en.eq(self.o.ready),
        ]
