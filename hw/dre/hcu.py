"""HCU: hash-bit clustering unit (paper Section V-B; model `vrex.model.dre.hcu`).

The tokens of a chunk are loaded first. The founders' hash-bits then stream through the cluster hash-bits
memory, a circular buffer of rows of `lanes` hashes: every row is compared with all tokens, one token a
cycle, while later rows arrive, so loading hides behind comparing. A token's nearest cluster so far lives in
the `best` memory. Finally the tokens are settled in order: token t is loaded into a register, compared with
the earlier tokens that opened a cluster, and then joins or opens one. One pipeline serves all of these slots,
in order. Its last stage writes the memory that the stage before it reads; the order of slots keeps two
accesses to one entry at least two cycles apart.
"""

from itertools import chain
from typing import Any, cast

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from vrex.hw.lib.layout import struct_layout
from vrex.hw.lib.stream import BeatMemory, delay
from vrex.model.config import MAX_CLUSTERS, HcuConfig, check_unit
from vrex.model.dre import hcu as model

COMMAND = data.StructLayout({"tokens": 9, "clusters": 16, "th_hd": 8})
DECISION = struct_layout(model.DECISION)
DONE = data.StructLayout({"opened": 9, "full": 1})


def founders_in_a_beat(config: HcuConfig, bus_bits: int) -> int:
    """Founders' hashes that a bus beat holds."""
    return bus_bits // config.hash_bits


def count_stages(bits: int) -> int:
    """Latency in cycles of `count_differences` of so many bits, a power of two of at least 8."""
    return 1 + (bits.bit_length() - 1) // 2


def count_differences(m: Module, left: Any, right: Any) -> Any:
    """Number of bits in which two words differ, `count_stages(len(left))` cycles later.

    Three bits make a number of two; two numbers and one more bit make a number a bit wider, so that no sum
    has a value it cannot take, until all bits but one are counted; that one is added last.
    """
    different = left ^ right
    bits = [different[i] for i in range(len(left))]
    leaves = len(bits) // 4
    numbers = [_full_adder(*bits[3 * i : 3 * i + 3]) for i in range(leaves)]
    numbers = [delay(m, number, 1, "count") for number in numbers]
    bits = [delay(m, bit, 1, "bit") for bit in bits[3 * leaves :]]
    levels = 0
    while bits:
        if len(numbers) > 1:
            numbers, bits = _add_pairs(numbers, bits), bits[len(numbers) // 2 :]
        else:
            numbers, bits = [numbers[0] + bits[0]], []
        levels += 1
        if levels % 2 == 0 or not bits:
            numbers = [delay(m, number, 1, "count") for number in numbers]
            bits = [delay(m, bit, 1, "bit") for bit in bits]
    return numbers[0]


def _full_adder(a: Any, b: Any, c: Any) -> Any:
    """Number of ones among three bits."""
    return Cat(a ^ b ^ c, (a & b) | (c & (a ^ b)))


def _add_pairs(numbers: list[Any], bits: list[Any]) -> list[Any]:
    """Sums of neighbours, of one width, and one bit each, one bit wider.

    One adder makes them all. Below the operands of a sum stands its bit on both sides: it carries in, and
    its own place in the total shows the carry out of the sum before.
    """
    places = len(numbers[0]) + 1
    left, right = (
        Cat(*chain.from_iterable(zip(bits, side, strict=False))) for side in (numbers[0::2], numbers[1::2])
    )
    total = left + right
    return [total[at + 1 : at + 1 + places] for at in range(0, len(left), places)]


def row_bits(config: HcuConfig) -> int:
    """Bits that number the rows of the longest table."""
    return bits_for(MAX_CLUSTERS // config.lanes)


def _nearer(m: Module, left: Any, right: Any, right_used: Any) -> Any:
    """The nearer of two, the left one on a tie or when the right one is not used, one cycle later."""
    nearer = Signal(left.shape(), name="nearer", reset_less=True)
    chosen = right_used & (right.distance < left.distance)
    m.d.sync += nearer.eq(Mux(chosen, right.as_value(), left.as_value()))
    return nearer


class SlotKind(enum.Enum, shape=2):
    """What a pipeline slot does."""

    ROW = 0
    LOAD = 1
    PAIR = 2
    SETTLE = 3


class FounderQueue(wiring.Component):
    """The circular buffer that founders' hash-bits stream through, with their closed marks.

    Read latency one cycle: `hashes` and `row_closed` follow `row` by one.

    Args:
        config: dimensions of the HCU.
        bus_bits: width of a beat.
        closing: whether founders may be marked as closed.

    Members:
        clear: the next beat is the first of a command.
        beats: beats of founders that the command has.
        streaming: beats may be taken.
        row: the row that is read now; all before it are released.
        row_there: all founders of that row are in the buffer.
        valid, payload, ready: beats of founders; ready does not wait for valid.
        closed: with `closing`: marks of the founders in that beat, lowest first.
        hashes: founders' hashes of the row read.
        row_closed: which of them are closed, 0 without `closing`.
    """

    clear: Signal
    beats: Signal
    streaming: Signal
    row: Signal
    row_there: Signal
    valid: Signal
    payload: Signal
    ready: Signal
    closed: Signal
    hashes: Signal
    row_closed: Signal

    def __init__(self, config: HcuConfig, *, bus_bits: int, closing: bool) -> None:
        self.config, self.bus_bits, self.closing = config, bus_bits, closing
        super().__init__(
            ({"closed": In(founders_in_a_beat(config, bus_bits))} if closing else {})
            | {
                "clear": In(1),
                "beats": In(range(-(-MAX_CLUSTERS * config.hash_bits // bus_bits) + 1)),
                "streaming": In(1),
                "row": In(row_bits(config)),
                "row_there": Out(1),
                "valid": In(1),
                "payload": In(bus_bits),
                "ready": Out(1),
                "hashes": Out(config.lanes * config.hash_bits),
                "row_closed": Out(config.lanes),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """The memory of hashes, that of the marks, and the count of beats written."""
        m = Module()
        config, bus = self.config, self.bus_bits
        row = config.lanes * config.hash_bits
        bits = config.tile_clusters * config.hash_bits
        m.submodules.queue = queue = BeatMemory(bus, row, bits)
        beat_shift = max(row // bus, 1).bit_length() - 1
        row_shift = max(bus // row, 1).bit_length() - 1
        word_bits = (bits // max(row, bus)).bit_length() - 1
        beat = Signal.like(self.beats, name="beat")
        all_there = beat == self.beats
        # Words written and words released; the extra bit tells a full memory from an empty one.
        filled = Signal(word_bits + 1)
        used = Signal(word_bits + 1)
        same_word = filled[:-1] == used[:-1]
        space = ~(same_word & (filled[-1] ^ used[-1]))
        m.d.comb += [
            filled.eq(beat >> beat_shift),
            used.eq(self.row >> row_shift),
            self.row_there.eq(~same_word | ~space | all_there),
            self.ready.eq(self.streaming & ~all_there & space),
            queue.write_en.eq(self.valid & self.ready),
            queue.write_beat.eq(beat),
            queue.write_data.eq(self.payload),
            queue.read_row.eq(self.row),
            self.hashes.eq(queue.read_data),
        ]
        with m.If(self.clear):
            m.d.sync += beat.eq(0)
        with m.Elif(queue.write_en):
            m.d.sync += beat.eq(beat + 1)
        if self.closing:
            self._marks(m, queue)
        else:
            m.d.comb += self.row_closed.eq(0)
        return m

    def _marks(self, m: Module, queue: BeatMemory) -> None:
        """The memory of closed marks, written and read with that of the hashes."""
        founders = founders_in_a_beat(self.config, self.bus_bits)
        m.submodules.marks = marks = BeatMemory(founders, self.config.lanes, self.config.tile_clusters)
        m.d.comb += [
            marks.write_en.eq(queue.write_en),
            marks.write_beat.eq(queue.write_beat),
            marks.write_data.eq(self.closed),
            marks.read_row.eq(queue.read_row),
            self.row_closed.eq(marks.read_data),
        ]


class Hcu(wiring.Component):
    """Clusters one chunk of tokens per command.

    Cycles of a command that never waits: see `cycles`.

    Args:
        config: dimensions of the unit.
        bus_bits: width of `din`.
        closing: whether founders may be marked as closed; without it the owner leaves them out.

    Members:
        cmd: tokens (1..chunk_tokens), clusters (0..65535) and th_hd of a chunk.
        din: beats with the tokens' hashes, then beats with the founders' hashes.
        closed: with `closing`: with a beat of founders, which of them accept no tokens, lowest first.
        dout: one decision per token, in order; none if the table would overflow.
        done: clusters opened, and whether the table would overflow; follows the last decision.
        busy, wait_in, wait_out: a command is in work; it waits for `din`, for `dout`.
    """

    cmd: stream.Interface
    din: stream.Interface
    closed: Signal
    dout: stream.Interface
    done: stream.Interface
    busy: Signal
    wait_in: Signal
    wait_out: Signal

    def __init__(self, config: HcuConfig, *, bus_bits: int, closing: bool = False) -> None:
        """A unit of these dimensions.

        Raises:
            ValueError: `din` is too wide for the cluster hash-bits memory, or not a power of two.
        """
        check_unit(hcu=config, bus_bits=bus_bits)
        self.config, self.bus_bits, self.closing = config, bus_bits, closing
        super().__init__(
            ({"closed": In(founders_in_a_beat(config, bus_bits))} if closing else {})
            | {
                "cmd": In(stream.Signature(COMMAND)),
                "din": In(stream.Signature(bus_bits)),
                "dout": Out(stream.Signature(DECISION)),
                "done": Out(stream.Signature(DONE)),
                "busy": Out(1),
                "wait_in": Out(1),
                "wait_out": Out(1),
            }
        )
        self.lane_bits = config.lanes.bit_length() - 1
        self.distance_bits = bits_for(config.hash_bits)
        self.none = (1 << self.distance_bits) - 1
        self.best_layout = data.StructLayout({"distance": self.distance_bits, "cluster": 16, "opened": 1})
        self.nearest_layout = data.StructLayout({"distance": self.distance_bits, "lane": self.lane_bits})
        self.step_layout = data.StructLayout(
            {
                "valid": 1,
                "kind": SlotKind,
                "token": range(config.chunk_tokens),
                "row": row_bits(config),
                "first_row": 1,
                "last": 1,
            }
        )
        self.depth = self._depth(config)

    @staticmethod
    def _depth(config: HcuConfig) -> int:
        """Cycles from a slot to its nearest distance: memory, count, and the tree over the lanes."""
        return 1 + count_stages(config.hash_bits) + config.lanes.bit_length() - 1

    @staticmethod
    def cycles(config: HcuConfig, tokens: int, clusters: int, *, bus_bits: int) -> int:
        """Upper bound of the cycles from a command to `done` when no port makes the unit wait."""
        rows = -(-clusters // config.lanes)
        beats_per_row = max(1, config.lanes * config.hash_bits // bus_bits)
        compare = rows * max(tokens, beats_per_row, 2) + beats_per_row + 3
        settle = tokens * (tokens + 3) // 2 + Hcu._depth(config) + 2
        return 1 + tokens + compare + settle + tokens

    def elaborate(self, platform: Any) -> Module:
        """Memories of tokens, founders and best clusters; the compare pipeline; the state machine."""
        m = Module()
        config = self.config
        self.step = cast(Any, Signal(self.step_layout, name="step"))
        self.last_lane = Signal(self.lane_bits)
        m.submodules.founders = self.founders = founders = FounderQueue(
            config, bus_bits=self.bus_bits, closing=self.closing
        )
        self.row = Signal(row_bits(config))
        self._registers(m)
        tokens: Memory[Any, Any] = Memory(shape=config.hash_bits, depth=config.chunk_tokens, init=[])
        m.submodules.tokens = tokens
        best: Memory[Any, Any] = Memory(shape=self.best_layout, depth=config.chunk_tokens, init=[])
        m.submodules.best = best
        self.best_write = best.write_port()
        self.best_read = best.read_port()
        self.token_write = tokens.write_port()
        token = tokens.read_port()
        m.d.comb += token.addr.eq(self.step.token)
        m.d.comb += [
            founders.beats.eq(self.beats),
            founders.row.eq(self.row),
            founders.valid.eq(self.din.valid),
            founders.payload.eq(self.din.payload),
        ]
        if self.closing:
            m.d.comb += founders.closed.eq(self.closed)
        self.nearest = self._nearest(m, founders.hashes, founders.row_closed, token.data)
        self.settled = delay(m, self.step, self.depth, "step", reset=True)
        self._control(m)
        return m

    def _registers(self, m: Module) -> None:
        """Registers the command, preprocessed: last indices instead of counts, founders in beats."""
        config, bus, command = self.config, self.bus_bits, self.cmd.payload
        self.th_hd = Signal(8)
        self.last_token = Signal(range(config.chunk_tokens))
        self.last_cluster = Signal(16)
        self.no_cluster = Signal()
        self.beats = Signal.like(self.founders.beats)
        self.opened = Signal(9)
        self.full = Signal()
        with m.If(self.cmd.valid & self.cmd.ready):
            m.d.sync += [
                self.th_hd.eq(command.th_hd),
                self.last_token.eq(command.tokens - 1),
                self.last_cluster.eq(command.clusters - 1),
                self.no_cluster.eq(command.clusters == 0),
                self.beats.eq((command.clusters * config.hash_bits + bus - 1) >> (bus.bit_length() - 1)),
                self.opened.eq(0),
                self.full.eq(0),
            ]

    def _nearest(self, m: Module, row: Any, closed: Any, token: Any) -> Any:
        """Distances of one slot: (distance, lane) of the nearest, `depth` cycles after the slot.

        In a row lanes from some lane on hold no founder, and closed ones are as far as if there were none;
        in a pair only the first lane counts, which compares with the token that was loaded before.
        """
        config = self.config
        kind = delay(m, self.step.kind, 1, "kind")
        loaded = Signal(config.hash_bits, reset_less=True)
        with m.If(kind == SlotKind.LOAD):
            m.d.sync += loaded.eq(token)
        stages = 1 + count_stages(config.hash_bits)
        last_lane = delay(m, self.last_lane, stages, "last_lane")
        far = self._far(m, closed & (kind == SlotKind.ROW).replicate(config.lanes))
        nearest = []
        for lane in range(config.lanes):
            founder = row.word_select(lane, config.hash_bits)
            if lane == 0:
                founder = Mux(kind == SlotKind.PAIR, loaded, founder)
            entry: Any = Signal(self.nearest_layout, name=f"nearest_{lane}")
            distance = count_differences(m, founder, token)
            m.d.comb += [entry.distance.eq(distance | far[lane]), entry.lane.eq(lane)]
            nearest.append(entry)
        # If the first lane of a right neighbour is unused, all of its lanes are.
        width = 1
        while len(nearest) > 1:
            nearest = [
                _nearer(m, left, right, last_lane >= (2 * i + 1) * width)
                for i, (left, right) in enumerate(zip(nearest[0::2], nearest[1::2], strict=True))
            ]
            last_lane = delay(m, last_lane, 1, "last_lane")
            width *= 2
        return nearest[0]

    def _far(self, m: Module, closed: Any) -> list[Any]:
        """For each lane a mask that is ORed onto its distance: all ones if its founder is closed."""
        if not self.closing:
            return [0] * self.config.lanes
        late = delay(m, closed, count_stages(self.config.hash_bits), "closed")
        return [lane.replicate(self.distance_bits) for lane in late]

    def _settle(self, m: Module) -> None:
        """End of the pipeline: updates a token's best cluster, or lets the token join or open one.

        The entry of `best` is read one stage earlier. `current` holds the entry of the token that is being
        settled.
        """
        step = delay(m, self.settled, 1, "step", reset=True)
        nearest = delay(m, self.nearest, 1, "nearest")
        best = self.best_read.data
        current: Any = Signal(self.best_layout, reset_less=True)
        write, is_row = self.best_write, step.kind == SlotKind.ROW
        nearer = nearest.distance < Mux(is_row, best.distance, current.distance)
        opens = self._distance(current) >= self.th_hd
        cluster = (self.last_cluster + self.opened + 1)[:16]
        m.d.comb += [
            self.best_read.addr.eq(self.settled.token),
            write.addr.eq(step.token),
            write.data.distance.eq(Mux(is_row, nearest.distance, current.distance)),
            write.data.cluster.eq(
                Mux(is_row, Cat(nearest.lane, step.row), Mux(opens, cluster, current.cluster))
            ),
            write.data.opened.eq(~is_row & opens),
        ]
        with m.If(step.valid & is_row):
            m.d.comb += write.en.eq(nearer | step.first_row)
        with m.If(step.valid & (step.kind == SlotKind.LOAD)):
            m.d.sync += [
                current.distance.eq(Mux(self.no_cluster, self.none, best.distance)),
                current.cluster.eq(best.cluster),
            ]
        with m.If(step.valid & (step.kind == SlotKind.PAIR) & nearer & best.opened):
            m.d.sync += [current.distance.eq(nearest.distance), current.cluster.eq(best.cluster)]
        with m.If(step.valid & (step.kind == SlotKind.SETTLE)):
            m.d.comb += write.en.eq(1)
            with m.If(opens):
                m.d.sync += [
                    self.opened.eq(self.opened + 1),
                    self.full.eq(self.full | (cluster == MAX_CLUSTERS)),
                ]
        self.all_settled = delay(m, step.valid & step.last, 1, "all_settled", reset=True)

    def _distance(self, best: Any) -> Any:
        """Distance of an entry of `best` as 8 bits; all ones: there was no cluster to compare with."""
        return Cat(best.distance, best.distance.all().replicate(8 - self.distance_bits))

    def _load_token(self, m: Module, token: Signal) -> Any:
        """Takes one token a cycle out of the beats; returns whether this is the last."""
        per_beat = self.bus_bits // self.config.hash_bits
        within = token[: per_beat.bit_length() - 1]
        last = token == self.last_token
        m.d.comb += [
            self.token_write.addr.eq(token),
            self.token_write.data.eq(self.din.payload.word_select(within, self.config.hash_bits)),
            self.token_write.en.eq(self.din.valid),
            self.din.ready.eq((within == per_beat - 1) | last),
            self.wait_in.eq(~self.din.valid),
        ]
        return last

    def _control(self, m: Module) -> None:
        """Sequence of one command."""
        step = self.step
        token = Signal(range(self.config.chunk_tokens))
        last_token = token == self.last_token
        last_out = Signal()
        m.d.comb += [step.token.eq(token), step.row.eq(self.row)]
        self._settle(m)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.cmd.ready.eq(1)
                m.d.sync += [token.eq(0), self.row.eq(0)]
                with m.If(self.cmd.valid):
                    m.next = "TOKENS"
            with m.State("TOKENS"):
                m.d.comb += [self.busy.eq(1), self.founders.clear.eq(1)]
                last = self._load_token(m, token)
                with m.If(self.din.valid):
                    m.d.sync += token.eq(Mux(last, 0, token + 1))
                    with m.If(last):
                        m.next = "COMPARE"
                        with m.If(self.no_cluster):
                            m.next = "LOAD"
            self._compare_state(m, token, last_token)
            self._settle_states(m, token, last_token)
            with m.State("FLUSH"):
                m.d.comb += self.busy.eq(1)
                with m.If(self.all_settled):
                    m.d.comb += self.best_read.addr.eq(token)
                    m.d.sync += [token.eq(token + 1), last_out.eq(last_token)]
                    m.next = "OUT"
                    with m.If(self.full):
                        m.next = "DONE"
            with m.State("OUT"):
                word = self.dout.payload
                best = self.best_read.data
                m.d.comb += [
                    self.busy.eq(1),
                    word.cluster.eq(best.cluster),
                    word.distance.eq(self._distance(best)),
                    word.opened.eq(best.opened),
                    # Undriven bits would become an `always @*` without inputs, which never runs.
                    word.reserved.eq(0),
                    self.dout.valid.eq(1),
                    self.wait_out.eq(~self.dout.ready),
                    self.best_read.addr.eq(token),
                    self.best_read.en.eq(self.dout.ready),
                ]
                with m.If(self.dout.ready):
                    m.d.sync += [token.eq(token + 1), last_out.eq(last_token)]
                    with m.If(last_out):
                        m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += [
                    self.done.valid.eq(1),
                    self.done.payload.opened.eq(self.opened),
                    self.done.payload.full.eq(self.full),
                ]
                with m.If(self.done.ready):
                    m.next = "IDLE"

    def _compare_state(self, m: Module, token: Signal, last_token: Any) -> None:
        """States that issue the slots of all rows, and one idle cycle before the next slots."""
        step = self.step
        rest = Signal()
        last_row = self.row == self.last_cluster >> self.lane_bits
        with m.State("COMPARE"):
            m.d.comb += [
                self.busy.eq(1),
                self.founders.streaming.eq(1),
                self.din.ready.eq(self.founders.ready),
                step.kind.eq(SlotKind.ROW),
                step.first_row.eq(self.row == 0),
                self.last_lane.eq(Mux(last_row, self.last_cluster[: self.lane_bits], ~0)),
            ]
            m.d.sync += rest.eq(0)
            with m.If(self.founders.row_there & ~rest):
                m.d.comb += step.valid.eq(1)
                # A single token would read its entry in the cycle in which the previous row writes it.
                m.d.sync += [token.eq(Mux(last_token, 0, token + 1)), rest.eq(self.last_token == 0)]
                with m.If(last_token):
                    m.d.sync += self.row.eq(self.row + 1)
                    with m.If(last_row):
                        m.next = "TURN"
            with m.Elif(~self.founders.row_there):
                m.d.comb += self.wait_in.eq(~self.din.valid)
        with m.State("TURN"):
            m.d.comb += self.busy.eq(1)
            m.d.sync += rest.eq(0)
            m.next = "LOAD"

    def _settle_states(self, m: Module, token: Signal, last_token: Any) -> None:
        """States that issue for each token t its load, its pairs (t, 0) .. (t, t - 1), its settlement."""
        step = self.step
        other = Signal.like(token, name="other")
        with m.State("LOAD"):
            m.d.comb += [self.busy.eq(1), step.valid.eq(1), step.kind.eq(SlotKind.LOAD)]
            m.d.sync += other.eq(0)
            m.next = "PAIR"
        with m.State("PAIR"):
            m.d.comb += [
                self.busy.eq(1),
                step.valid.eq(1),
                step.kind.eq(SlotKind.PAIR),
                step.token.eq(other),
            ]
            m.d.sync += other.eq(other + 1)
            with m.If(other == token):
                m.d.comb += [step.kind.eq(SlotKind.SETTLE), step.last.eq(last_token)]
                m.d.sync += token.eq(Mux(last_token, 0, token + 1))
                m.next = "LOAD"
                with m.If(last_token):
                    m.next = "FLUSH"
