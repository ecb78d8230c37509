"""The order of an APPEND: steps, and the phases between them."""

from typing import Any

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from vrex.hw.dre import hcu as hcu_unit
from vrex.hw.dre.kvmu.append.addresses import PREPARE_CYCLES
from vrex.hw.dre.kvmu.append.blocks import BLOCK_BITS
from vrex.hw.dre.kvmu.append.steps import (
    HALF_CHANGED,
    STEPS,
    Choice,
    Condition,
    Counter,
    Phase,
    Repeat,
    Sink,
    Step,
    Successor,
    reading_for,
    step_in,
)
from vrex.hw.dre.kvmu.table import HEADER, STATUS_BITS, status_of
from vrex.hw.lib.axi.burst import ADDRESS_BITS, Error
from vrex.hw.lib.axi.writer import DONE as WRITTEN
from vrex.hw.lib.stream import delay
from vrex.model.commands import Status
from vrex.model.config import HcuConfig, KvmuConfig
from vrex.model.dre.kvstore import CLOSED, COPIES

DONE = data.StructLayout({"status": STATUS_BITS, "opened": 9})

UNITS = data.StructLayout({"read": 1, "write": 1, "mean": 1, "quant": 1})
"""What a step may ask: reader, writer, mean and quantiser."""


def command_layout(hcu: HcuConfig) -> data.StructLayout:
    """An APPEND whose payload has the right length."""
    return data.StructLayout({"address": ADDRESS_BITS, "tokens": range(hcu.chunk_tokens + 1), "kv_heads": 32})


class Sequencer(wiring.Component):
    """Says which step, token and KV head is next, and when it begins and ends.

    A step takes `PREPARE_CYCLES` cycles, the cycles until the units it needs have taken their requests, those
    of its accesses, and three more. The first access that fails ends the command with its status, but the HCU
    must come to its end, so founders go on with what the reader makes up. A table that is changed by half is
    poisoned.

    Args:
        config: the KV store.
        hcu: `hash_bits` and `chunk_tokens` matter.
        bus_bits: width of a beat.

    Members:
        cmd: what to append, and where.
        command: the command in work.
        busy: there is one.
        idle: there is none; what the last one left may be cleared.
        header: of its table.
        header_status: `TableHeader.status`.
        step, at: the step, and one-hot a cycle later.
        token, head, block: number of token, KV head, block of clusters.
        last_token: the token is the last one, a cycle late.
        evicted: segment that leaves the ring.
        prepare: the step begins.
        moves: its accesses are under way from the next cycle on.
        needed, issue, accepted: units that the step needs, that are asked, that take it.
        reading: beats of the step's read are still to come or to be taken.
        read_error: of the first read that failed since `idle`.
        written: end of a write.
        hcu_start, hcu_ready: the HCU is asked to begin with the chunk, and does.
        hashing: hash-bits of the payload go to the HCU.
        hash_taken, hash_beat: a beat of them is taken, its number.
        deciding: decisions come from the HCU.
        decision_valid: one is there.
        hcu_done: the HCU's end.
        last_block: the block is the table's last.
        placing, look_up, placed, cluster_full, kv_full: `run`, and the rest, of `Places`.
        opened: the token has opened its cluster.
        clusters_opened: clusters that the chunk has opened.
        has_ring, first_before, first_after: see `Residency`.
        result: the token's decision is to be given as a result; the payload marks the last one.
        flushed: all results have left.
        done: status and clusters opened.
    """

    cmd: stream.Interface
    command: Any
    busy: Signal
    idle: Signal
    header: Any
    header_status: Signal
    step: Signal
    at: Signal
    token: Signal
    head: Signal
    block: Signal
    last_token: Signal
    evicted: Signal
    prepare: Signal
    moves: Signal
    needed: Any
    issue: Any
    accepted: Any
    reading: Signal
    read_error: Any
    written: stream.Interface
    hcu_start: Signal
    hcu_ready: Signal
    hashing: Signal
    hash_taken: Signal
    hash_beat: Signal
    deciding: Signal
    decision_valid: Signal
    hcu_done: stream.Interface
    last_block: Signal
    placing: Signal
    look_up: Signal
    placed: Signal
    cluster_full: Signal
    kv_full: Signal
    opened: Signal
    clusters_opened: Signal
    has_ring: Signal
    first_before: Signal
    first_after: Signal
    result: stream.Interface
    flushed: Signal
    done: stream.Interface

    def __init__(self, config: KvmuConfig, *, hcu: HcuConfig, bus_bits: int) -> None:
        self.hash_bits, self.bus_bits = hcu.hash_bits, bus_bits
        self.status, self.write_error, self.writing = Signal(STATUS_BITS), Signal(Error), Signal()
        self.prepared = Signal(range(PREPARE_CYCLES))
        # Units that have taken the step's request, or are not needed.
        self.sent: Any = Signal(UNITS)
        # Registered; head, token and opened clusters change many cycles before these matter.
        self.last_head, self.no_room = Signal(reset_less=True), Signal(reset_less=True)
        # No room in the HCU's numbers of clusters.
        self.full = Signal()
        super().__init__(
            {
                "cmd": In(stream.Signature(command_layout(hcu))),
                "command": Out(command_layout(hcu)),
                "busy": Out(1),
                "idle": Out(1),
                "header": In(HEADER),
                "header_status": In(STATUS_BITS),
                "step": Out(Step),
                "at": Out(len(Step)),
                "token": Out(range(hcu.chunk_tokens)),
                "head": Out(range(config.kv_heads)),
                "block": Out(BLOCK_BITS),
                "last_token": Out(1),
                "evicted": Out(32),
                "prepare": Out(1),
                "moves": Out(1),
                "needed": In(UNITS),
                "issue": Out(UNITS),
                "accepted": In(UNITS),
                "reading": In(1),
                "read_error": In(Error),
                "written": In(stream.Signature(WRITTEN)),
                "hcu_start": Out(1),
                "hcu_ready": In(1),
                "hashing": Out(1),
                "hash_taken": In(1),
                "hash_beat": Out(range(max(1, hcu.chunk_tokens * hcu.hash_bits // bus_bits) + 1)),
                "deciding": Out(1),
                "decision_valid": In(1),
                "hcu_done": In(stream.Signature(hcu_unit.DONE)),
                "last_block": In(1),
                "placing": Out(1),
                "look_up": In(1),
                "placed": In(1),
                "cluster_full": In(1),
                "kv_full": In(1),
                "opened": In(1),
                "clusters_opened": Out(9),
                "has_ring": In(1),
                "first_before": In(32),
                "first_after": In(32),
                "result": Out(stream.Signature(1)),
                "flushed": In(1),
                "done": Out(stream.Signature(DONE)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Hardware: one FSM, counters of token, head, block and segment, and registered comparisons."""
        m = Module()
        room = delay(m, self.header.cap_clusters - self.header.clusters, 1, "room")
        m.d.sync += [
            self.last_head.eq(self.head == self.header.heads - 1),
            self.no_room.eq(self.clusters_opened > room),
        ]
        at_token = delay(m, self.token == self.command.tokens - 1, 1, "at_last_token")
        m.d.comb += [
            self.last_token.eq(at_token),
            self.at.eq(Cat(delay(m, self.step == step, 1, f"at_{step.name.lower()}") for step in Step)),
            self.busy.eq(~self.idle),
            self.done.payload.status.eq(self.status),
            self.done.payload.opened.eq(Mux(self.status == Status.OK, self.clusters_opened, 0)),
            self.result.payload.eq(self.last_token),
        ]
        error = Mux(self.read_error == Error.NONE, self.write_error, self.read_error)
        left = delay(m, ~self.has_ring | (self.evicted == self.first_after), 1, "left")
        failed, status = self._failure(m, error)
        with m.FSM():
            self._idle(m)
            self._access(m)
            self._next(m, failed, status)
            self._cluster(m)
            self._decide(m, error)
            self._place(m)
            self._leave(m, left)
            self._end(m)
        return m

    # -- transitions --------------------------------------------------------------------------------------

    def _go(self, m: Module, step: Step) -> None:
        """Goes on with another step."""
        m.d.sync += self.step.eq(step)
        m.next = "PREPARE"

    def _fail(self, m: Module, status: Any) -> None:
        """Ends the command."""
        m.d.sync += self.status.eq(status)
        m.next = Phase.DONE.value

    def _follow(self, m: Module, successor: Successor) -> None:
        """Goes on as a row of the table of steps says."""
        if isinstance(successor, Step):
            self._go(m, successor)
        elif isinstance(successor, Phase):
            m.next = successor.value
        elif isinstance(successor, Choice):
            copy = (self.header.flags & (COPIES[8] | COPIES[4])) != 0
            with m.If({Condition.COPY: copy, Condition.OPENED: self.opened}[successor.condition]):
                self._follow(m, successor.yes)
            with m.Else():
                self._follow(m, successor.no)
        else:
            self._repeat(m, successor, successor.counters)

    def _repeat(self, m: Module, repeat: Repeat, counters: tuple[Counter, ...]) -> None:
        """Counts on the first of the counters, and the ones behind it where it starts anew."""
        counter, last = {
            Counter.BLOCK: (self.block, self.last_block),
            Counter.HEAD: (self.head, self.last_head),
            Counter.TOKEN: (self.token, self.last_token),
        }[counters[0]]
        m.d.sync += counter.eq(Mux(last, 0, counter + 1))
        with m.If(~last):
            self._go(m, repeat.again)
        with m.Else():
            if len(counters) > 1:
                self._repeat(m, repeat, counters[1:])
            else:
                self._follow(m, repeat.then)

    # -- a step -------------------------------------------------------------------------------------------

    def _idle(self, m: Module) -> None:
        """Takes a command, and starts with its header."""
        with m.State("IDLE"):
            m.d.comb += [self.idle.eq(1), self.cmd.ready.eq(1)]
            m.d.sync += [self.command.eq(self.cmd.payload), self.step.eq(Step.HEADER)]
            m.d.sync += [self.token.eq(0), self.head.eq(0), self.block.eq(0), self.hash_beat.eq(0)]
            m.d.sync += [self.status.eq(Status.OK), self.write_error.eq(Error.NONE)]
            m.d.sync += [self.clusters_opened.eq(0), self.prepared.eq(0)]
            with m.If(self.cmd.valid):
                m.next = "PREPARE"

    def _access(self, m: Module) -> None:
        """Waits for the step's requests, issues them, and waits until they have ended."""
        ended = Signal()
        with m.State("PREPARE"):
            m.d.comb += self.prepare.eq(1)
            m.d.sync += [
                self.prepared.eq(self.prepared + 1),
                self.sent.as_value().eq(~self.needed.as_value()),
                self.writing.eq(self.needed.write),
            ]
            with m.If(self.prepared == PREPARE_CYCLES - 1):
                m.d.sync += self.prepared.eq(0)
                m.next = "ISSUE"
        with m.State("ISSUE"):
            sent = self.sent.as_value() | self.accepted.as_value()
            m.d.comb += self.issue.as_value().eq(~self.sent.as_value())
            m.d.sync += self.sent.as_value().eq(sent)
            with m.If(sent.all()):
                m.d.comb += self.moves.eq(1)
                m.d.sync += ended.eq(0)
                m.next = "MOVE"
        with m.State("MOVE"):
            m.d.comb += [self.written.ready.eq(1), self.moves.eq(~ended)]
            m.d.sync += ended.eq(~self.reading & ~self.writing)
            with m.If(self.written.valid):
                m.d.sync += self.writing.eq(0)
                with m.If(self.write_error == Error.NONE):
                    m.d.sync += self.write_error.eq(self.written.payload.error)
            with m.If(ended):
                m.next = "NEXT"

    def _failure(self, m: Module, error: Any) -> tuple[Any, Any]:
        """Whether the step has failed, and with what status; one cycle late, and it ended two cycles ago."""
        goes_on = step_in(self.at, reading_for(Sink.BLOCK_COUNTS, Sink.HCU))
        failed = delay(m, (error != Error.NONE) & ~delay(m, goes_on, 1, "goes_on"), 1, "failed")
        return failed, delay(m, status_of(error), 1, "status_after")

    def _next(self, m: Module, failed: Any, status: Any) -> None:
        """What follows a step's accesses."""
        half_changed = delay(m, step_in(self.at, HALF_CHANGED), 1, "half_changed")
        with m.State("NEXT"):
            # A segment's last head was copied.
            m.d.sync += self.evicted.eq(self.evicted + (self.at[Step.EVICT] & self.last_head))
            with m.If(failed):
                self._fail(m, status)
                with m.If(half_changed):
                    self._go(m, Step.POISON)
            with m.Elif(self.at[Step.HEADER] & (self.header_status != Status.OK)):
                self._fail(m, self.header_status)
            with m.Else(), m.Switch(self.step):
                for step, row in STEPS.items():
                    with m.Case(step):
                        self._follow(m, row.then)

    # -- the phases ---------------------------------------------------------------------------------------

    def _cluster(self, m: Module) -> None:
        """The HCU begins and takes the tokens' hash-bits; its founders follow if there are any."""
        beats = self.command.tokens * self.hash_bits + self.bus_bits - 1
        last_beat = delay(m, beats[self.bus_bits.bit_length() - 1 :] - 1, 1, "last_beat")
        with m.State(Phase.CLUSTER.value):
            m.d.comb += self.hcu_start.eq(1)
            with m.If(self.hcu_ready):
                m.next = "HASHES"
        with m.State("HASHES"):
            m.d.comb += self.hashing.eq(1)
            with m.If(self.hash_taken):
                m.d.sync += self.hash_beat.eq(self.hash_beat + 1)
                with m.If(self.hash_beat == last_beat):
                    self._go(m, Step.FOUNDERS)
                    with m.If((self.header.flags & CLOSED) != 0):
                        self._go(m, Step.BLOCK_COUNTS)
                    with m.If(self.header.clusters == 0):
                        m.next = Phase.DECIDE.value

    def _decide(self, m: Module, error: Any) -> None:
        """Counts the decisions; places follow if founders could be read and there is room."""
        with m.State(Phase.DECIDE.value):
            m.d.comb += [self.deciding.eq(1), self.hcu_done.ready.eq(1)]
            with m.If(self.decision_valid):
                m.d.sync += self.token.eq(self.token + 1)
            with m.If(self.hcu_done.valid):
                m.d.sync += [
                    self.token.eq(0),
                    self.clusters_opened.eq(self.hcu_done.payload.opened),
                    self.full.eq(self.hcu_done.payload.full),
                ]
                m.next = "DECIDED"
        with m.State("DECIDED"):
            m.next = "ROOM"
        with m.State("ROOM"):
            m.next = Phase.PLACE.value
            with m.If(error != Error.NONE):
                self._fail(m, status_of(error))
            with m.Elif(self.full | self.no_room):
                self._fail(m, Status.TABLE_FULL)

    def _place(self, m: Module) -> None:
        """Every token's place, with the steps that it needs; then the tokens' keys and values."""
        with m.State(Phase.PLACE.value):
            m.d.comb += self.placing.eq(1)
            with m.If(self.look_up):
                self._go(m, Step.COUNT)
            with m.If(self.placed):
                m.d.sync += self.token.eq(self.token + 1)
                with m.If(self.cluster_full):
                    self._fail(m, Status.CLUSTER_FULL)
                with m.Elif(self.last_token):
                    m.d.sync += self.token.eq(0)
                    m.next = "PLACED"
        with m.State("PLACED"):
            m.d.sync += self.evicted.eq(self.first_before)
            self._go(m, Step.TOKEN)
            with m.If(self.kv_full):
                self._fail(m, Status.KV_FULL)

    def _leave(self, m: Module, left: Any) -> None:
        """Segments that leave the ring, one after the other; `left` is known a cycle late."""
        with m.State(Phase.LEAVE.value):
            m.next = "LEFT"
        with m.State("LEFT"):
            self._go(m, Step.EVICT)
            with m.If(left):
                self._go(m, Step.STAGED)

    def _end(self, m: Module) -> None:
        """The decisions as results, each a cycle after its token; the status when they have left."""
        with m.State(Phase.RESULT.value):
            m.next = "DECISION"
        with m.State("DECISION"):
            m.d.comb += self.result.valid.eq(1)
            with m.If(self.result.ready):
                m.d.sync += self.token.eq(self.token + 1)
                m.next = Phase.DONE.value
                with m.If(~self.last_token):
                    m.next = Phase.RESULT.value
        with m.State(Phase.DONE.value):
            m.d.comb += self.done.valid.eq(self.flushed)
            with m.If(self.done.valid & self.done.ready):
                m.next = "IDLE"
