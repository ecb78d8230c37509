"""Sequence of an APPEND: the steps, and the phases between them."""

from typing import Any

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from vrex.hw.dre import hcu as hcu_unit
from vrex.hw.dre.kvmu.append.blocks import BLOCK_BITS
from vrex.hw.dre.kvmu.append.steps import (
    STEPS,
    UPDATES,
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
from vrex.hw.lib.stream import delay
from vrex.model.commands import Status
from vrex.model.config import HcuConfig, KvmuConfig
from vrex.model.dre.kvstore import CLOSED, COPIES

DONE = data.StructLayout({"status": STATUS_BITS, "opened": 9})


def command_layout(hcu: HcuConfig) -> data.StructLayout:
    """An APPEND whose payload has the right length."""
    return data.StructLayout({"address": ADDRESS_BITS, "tokens": range(hcu.chunk_tokens + 1), "kv_heads": 32})


class Sequencer(wiring.Component):
    """Decides which step, token and KV head comes next.

    A step takes the cycles of `StepRunner` and one more. The first access that fails ends the command with
    its status, except while founders are read: the HCU must complete, so the reader pads the rest. A failure
    while the table is updated poisons it.

    Args:
        config: the KV store.
        hcu: `hash_bits` and `chunk_tokens` matter.
        bus_bits: width of a beat.

    Members:
        cmd: what to append, and where.
        command: the command in work; valid while `busy`.
        busy, idle: a command is in work, or none; state of the last one may be cleared while `idle`.
        header: of the command's table.
        header_status: `TableHeader.status`.
        step, step_flags: the step, and one-hot a cycle later.
        token, head, block: current token, KV head, block of clusters.
        last_token: `token` is the chunk's last; one cycle late.
        evicted: segment that is copied to the host window.
        running, ended, error: `run`, `ended` and `error` of `StepRunner`.
        hcu_start, hcu_ready: valid and ready of the HCU's command.
        hashing: the payload's hash-bits go to the HCU.
        hash_taken, hash_beat: a beat of them is transferred; its number.
        deciding: ready for the HCU's decisions.
        decision_valid: a decision is valid.
        hcu_done: end of the HCU's command.
        last_block: `block` is the table's last.
        placing, look_up, placed, cluster_full, kv_full: `run`, and ports of the same names, of `Places`.
        opened: the token opened its cluster.
        clusters_opened: number of clusters the chunk opened.
        has_ring, first_before, first_after: see `Residency`.
        result: the decision of `token` is sent as a result; the payload marks the last one.
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
    step_flags: Signal
    token: Signal
    head: Signal
    block: Signal
    last_token: Signal
    evicted: Signal
    running: Signal
    ended: Signal
    error: Any
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
        self.status = Signal(STATUS_BITS)
        # Registered: their operands change many cycles before they are used.
        self.last_head = Signal(reset_less=True)
        self.table_full = Signal(reset_less=True)
        # The HCU ran out of cluster numbers.
        self.hcu_full = Signal()
        super().__init__(
            {
                "cmd": In(stream.Signature(command_layout(hcu))),
                "command": Out(command_layout(hcu)),
                "busy": Out(1),
                "idle": Out(1),
                "header": In(HEADER),
                "header_status": In(STATUS_BITS),
                "step": Out(Step),
                "step_flags": Out(len(Step)),
                "token": Out(range(hcu.chunk_tokens)),
                "head": Out(range(config.kv_heads)),
                "block": Out(BLOCK_BITS),
                "last_token": Out(1),
                "evicted": Out(32),
                "running": Out(1),
                "ended": In(1),
                "error": In(Error),
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
        free = delay(m, self.header.cap_clusters - self.header.clusters, 1, "free_clusters")
        m.d.sync += [
            self.last_head.eq(self.head == self.header.heads - 1),
            self.table_full.eq(self.clusters_opened > free),
        ]
        last_token = delay(m, self.token == self.command.tokens - 1, 1, "token_is_last")
        m.d.comb += [
            self.last_token.eq(last_token),
            self.step_flags.eq(
                Cat(delay(m, self.step == step, 1, f"at_{step.name.lower()}") for step in Step)
            ),
            self.busy.eq(~self.idle),
            self.done.payload.status.eq(self.status),
            self.done.payload.opened.eq(Mux(self.status == Status.OK, self.clusters_opened, 0)),
            self.result.payload.eq(self.last_token),
        ]
        all_evicted = delay(m, ~self.has_ring | (self.evicted == self.first_after), 1, "all_evicted")
        failed, status = self._failure(m)
        with m.FSM():
            self._idle(m)
            self._step(m)
            self._next(m, failed, status)
            self._cluster(m)
            self._decide(m)
            self._place(m)
            self._evict(m, all_evicted)
            self._end(m)
        return m

    # -- transitions --------------------------------------------------------------------------------------

    def _go(self, m: Module, step: Step) -> None:
        """Starts a step."""
        m.d.sync += self.step.eq(step)
        m.next = "STEP"

    def _fail(self, m: Module, status: Any) -> None:
        """Ends the command."""
        m.d.sync += self.status.eq(status)
        m.next = Phase.DONE.value

    def _follow(self, m: Module, successor: Successor) -> None:
        """Transition to the successor that a row of the table of steps names."""
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
        """Advances the first counter, and the next one when it wraps."""
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
        """Accepts a command and starts with its header."""
        with m.State("IDLE"):
            m.d.comb += [self.idle.eq(1), self.cmd.ready.eq(1)]
            m.d.sync += [self.command.eq(self.cmd.payload), self.step.eq(Step.HEADER)]
            m.d.sync += [self.token.eq(0), self.head.eq(0), self.block.eq(0), self.hash_beat.eq(0)]
            m.d.sync += [self.status.eq(Status.OK), self.clusters_opened.eq(0)]
            with m.If(self.cmd.valid):
                m.next = "STEP"

    def _step(self, m: Module) -> None:
        """Waits until the step's accesses have ended."""
        with m.State("STEP"):
            m.d.comb += self.running.eq(1)
            with m.If(self.ended):
                m.next = "NEXT"

    def _failure(self, m: Module) -> tuple[Any, Any]:
        """Whether the step has failed, and its status; registered, since the step ended two cycles before."""
        goes_on = step_in(self.step_flags, reading_for(Sink.BLOCK_COUNTS, Sink.HCU))
        failed = delay(m, (self.error != Error.NONE) & ~delay(m, goes_on, 1, "goes_on"), 1, "failed")
        return failed, delay(m, status_of(self.error), 1, "status_after")

    def _next(self, m: Module, failed: Any, status: Any) -> None:
        """Transition after a step."""
        updates = delay(m, step_in(self.step_flags, UPDATES), 1, "updates")
        with m.State("NEXT"):
            # The segment's last KV head has been copied.
            m.d.sync += self.evicted.eq(self.evicted + (self.step_flags[Step.EVICT] & self.last_head))
            with m.If(failed):
                self._fail(m, status)
                with m.If(updates):
                    self._go(m, Step.POISON)
            with m.Elif(self.step_flags[Step.HEADER] & (self.header_status != Status.OK)):
                self._fail(m, self.header_status)
            with m.Else(), m.Switch(self.step):
                for step, row in STEPS.items():
                    with m.Case(step):
                        self._follow(m, row.then)

    # -- the phases ---------------------------------------------------------------------------------------

    def _cluster(self, m: Module) -> None:
        """Starts the HCU and sends the tokens' hash-bits; the founders follow if the table has any."""
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

    def _decide(self, m: Module) -> None:
        """Counts the decisions, then checks the reads of founders and the table's capacity."""
        with m.State(Phase.DECIDE.value):
            m.d.comb += [self.deciding.eq(1), self.hcu_done.ready.eq(1)]
            with m.If(self.decision_valid):
                m.d.sync += self.token.eq(self.token + 1)
            with m.If(self.hcu_done.valid):
                m.d.sync += [
                    self.token.eq(0),
                    self.clusters_opened.eq(self.hcu_done.payload.opened),
                    self.hcu_full.eq(self.hcu_done.payload.full),
                ]
                m.next = "DECIDED"
        with m.State("DECIDED"):
            m.next = "CHECK_CAPACITY"
        with m.State("CHECK_CAPACITY"):
            m.next = Phase.PLACE.value
            with m.If(self.error != Error.NONE):
                self._fail(m, status_of(self.error))
            with m.Elif(self.hcu_full | self.table_full):
                self._fail(m, Status.TABLE_FULL)

    def _place(self, m: Module) -> None:
        """Places every token, with the steps that this needs; then starts on keys and values."""
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

    def _evict(self, m: Module, all_evicted: Any) -> None:
        """Copies the segments that leave the ring, one by one; `all_evicted` is one cycle late."""
        with m.State(Phase.EVICTIONS.value):
            m.next = "CHECK_EVICTIONS"
        with m.State("CHECK_EVICTIONS"):
            self._go(m, Step.EVICT)
            with m.If(all_evicted):
                self._go(m, Step.STAGED)

    def _end(self, m: Module) -> None:
        """Sends the decisions, each a cycle after its token is set, then the status."""
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
