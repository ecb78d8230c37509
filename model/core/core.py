"""The core: LXE and DRE behind one memory port, told what to do by programs in memory (paper Figure 10)."""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from vrex.model import commands
from vrex.model.commands import Descriptor
from vrex.model.commands import Opcode as DreOpcode
from vrex.model.commands import Status as UnitStatus
from vrex.model.config import Config
from vrex.model.core import instructions
from vrex.model.core.instructions import (
    JOB,
    JOB_END,
    MOVERS,
    PARAMETERS,
    REGISTERS,
    WORDS,
    Body,
    Condition,
    Control,
    Engine,
    Function,
    Move,
    Opcode,
    Port,
    Status,
)
from vrex.model.dre import quant
from vrex.model.dre.dre import PREDICT_ONLY, Dre
from vrex.model.lib.memory import AccessError, BusError, Memory, Window
from vrex.model.lxe.instructions import Instruction as LxeInstruction
from vrex.model.lxe.lxe import Lxe

WORD = (1 << 32) - 1


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job: the fields of `JOB`.

    Attributes:
        program: address.
        tag, sequence: see `JOB`.
        parameters: registers 0 to 11 at the start; those that are not given are 0.
    """

    program: int
    tag: int = 0
    sequence: int = 0
    parameters: tuple[int, ...] = ()

    def pack(self) -> bytes:
        """64 bytes, little-endian.

        Raises:
            struct.error: a field does not fit.
            ValueError: too many parameters.
        """
        if len(self.parameters) > PARAMETERS:
            raise ValueError(f"a job has at most {PARAMETERS} parameters, not {len(self.parameters)}")
        values = (*self.parameters, *[0] * PARAMETERS)[:PARAMETERS]
        named = {f"r{n}": value for n, value in enumerate(values)}
        return JOB.pack({"tag": self.tag, "sequence": self.sequence, "program": self.program, **named})

    @classmethod
    def unpack(cls, data: bytes) -> "Job":
        """Inverse of `pack`."""
        values = JOB.unpack(data)
        parameters = tuple(values.pop(f"r{n}") for n in range(PARAMETERS))
        return cls(**values, parameters=parameters)


@dataclass(frozen=True, kw_only=True)
class JobEnd:
    """How a job ended: the fields of `JOB_END`."""

    status: int
    tag: int = 0
    sequence: int = 0
    detail: int = 0
    nan: bool = False
    index: int = 0
    instructions: int = 0
    cycles: int = 0

    def pack(self) -> bytes:
        """32 bytes, little-endian."""
        return JOB_END.pack(vars(self))

    @classmethod
    def unpack(cls, data: bytes) -> "JobEnd":
        """Inverse of `pack`."""
        values = JOB_END.unpack(data)
        return cls(**{**values, "nan": bool(values["nan"])})


class _JobError(Exception):
    """A job can't go on."""

    def __init__(self, status: Status, index: int, detail: int = 0) -> None:
        super().__init__(status.name)
        self.status, self.index, self.detail = status, index, detail


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the host allows a core: its registers of these names.

    Attributes:
        device, host: windows that the core's own accesses must stay in; the DRE has windows of its own.
        sequences: video streams.
        budget: most instructions of a job; 0: any number.
    """

    device: Window
    host: Window = field(default_factory=lambda: Window(0, 0))
    sequences: int = 1
    budget: int = 0


class Core:
    """Golden core: executes jobs. It has no clock; what waits for what never comes is STALLED at once.

    Attributes:
        config: accelerator.
        memory: what its AXI port reaches.
        limits: see `Limits`.
        observe: gets each instruction that an engine is given, as it is after its patches.
    """

    def __init__(self, config: Config, memory: Memory, limits: Limits) -> None:
        """A core as after reset.

        Raises:
            ValueError: the configuration makes no core (`Config.check_core`).
        """
        config.check_core()
        self.config, self.memory, self.limits = config, memory, limits
        self.lxe = Lxe(config)
        self.dre = Dre(config, memory)
        self.observe: Callable[[Body], None] = lambda body: None

    def run(self, job: Job) -> JobEnd:
        """Executes a job. After one that failed the DRE's registers hold their reset values.

        A core that is alone finds nobody at a BARRIER of several: STALLED.
        """
        running = self.begin(job)
        for _ in running:
            running.stall()
        return running.end

    def begin(self, job: Job) -> "Running":
        """A job that is executed from BARRIER to BARRIER."""
        return Running(self, job)


class Running:
    """A job of a core in work: an iterator over the BARRIERs of several cores that it comes to.

    Attributes:
        end: how it ended, once the iterator has.
    """

    end: JobEnd

    def __init__(self, core: Core, job: Job) -> None:
        self._core, self._job, self._run = core, job, _Run(core, job)
        self._steps = self._execute()

    def __iter__(self) -> Iterator[int]:
        return self._steps

    def stall(self) -> None:
        """Nobody will come to the BARRIER that it waits at."""
        self._run.stalled = True

    def _execute(self) -> Iterator[int]:
        """Gives how many cores each BARRIER is for."""
        job, run = self._job, self._run
        end = JobEnd(status=Status.OK, tag=job.tag, sequence=job.sequence)
        try:
            if job.sequence >= self._core.limits.sequences:
                raise _JobError(Status.BAD_SEQUENCE, 0)
            index = yield from run.execute()
        except _JobError as failure:
            self._core.dre = Dre(self._core.config, self._core.memory)
            end = replace(end, status=failure.status, detail=failure.detail)
            index = failure.index
        self.end = replace(end, nan=run.nan, index=index, instructions=run.taken)


@dataclass
class _Delivery:
    """Tokens of a FETCH or RETRIEVE that TOKENS has not granted yet."""

    left: int


class _Lines:
    """Lines that wait to be taken, uint16 [n, dpe.inputs], in the blocks in which they came."""

    def __init__(self, inputs: int) -> None:
        self._nothing = np.zeros((0, inputs), dtype=np.uint16)
        self._blocks: deque[np.ndarray] = deque()
        self._held = 0

    def __len__(self) -> int:
        return self._held

    def add(self, lines: np.ndarray) -> None:
        """Appends lines."""
        if len(lines):
            self._blocks.append(lines)
            self._held += len(lines)

    def take(self, count: int) -> np.ndarray:
        """The first lines; there must be as many."""
        self._held -= count
        taken = [self._nothing]
        while count:
            block = self._blocks.popleft()
            taken.append(block[:count])
            if len(block) > count:
                self._blocks.appendleft(block[count:])
            count -= len(taken[-1])
        return taken[1] if len(taken) == 2 else np.concatenate(taken)


class _Run:
    """One job in work."""

    def __init__(self, core: Core, job: Job) -> None:
        self._core, self._config, self._job = core, core.config, job
        self._memory = core.memory.seen_through(core.limits.device, core.limits.host)
        self._registers = [*job.parameters, *[0] * REGISTERS][:REGISTERS]
        # Instructions that each engine has still to execute, with their numbers.
        self._queues: dict[Engine, deque[tuple[int, Body]]] = {engine: deque() for engine in Engine}
        # What engines have given and no other has taken: lines, lines, beats, tokens, beats.
        self._din, self._dout = (_Lines(self._config.dpe.inputs) for _ in range(2))
        self._payload: deque[bytes] = deque()
        self._kv: deque[bytes] = deque()
        self._results: deque[bytes] = deque()
        # The movers that take what the LXE stores, in the order of their instructions.
        self._takers: deque[Engine] = deque()
        self._deliveries: deque[_Delivery] = deque()
        self._detail = 0
        self.taken, self.nan, self.stalled = 0, False, False

    def execute(self) -> Generator[int, None, int]:
        """Runs the program; gives the cores of each BARRIER of several, and returns the index of its END.

        Raises:
            _JobError: it can't go on.
        """
        index = 0
        while True:
            self.taken += 1
            if self._core.limits.budget and self.taken > self._core.limits.budget:
                raise _JobError(Status.BUDGET, index)
            opcode, body = self._fetch(index)
            if opcode == Opcode.END:
                self._wait(index, sum(Engine))
                if self._din or self._dout or self._payload or self._kv or self._results:
                    raise _JobError(Status.STALLED, index)
                return index
            if opcode == Opcode.BARRIER:
                assert isinstance(body, Control)
                if body.immediate > 1:
                    yield body.immediate
                if self.stalled:
                    raise _JobError(Status.STALLED, index)
                index += 1
            elif isinstance(body, Control):
                index = self._control(index, opcode, body)
            else:
                self._hand_out(index, opcode, body)
                index += 1

    def _fetch(self, index: int) -> tuple[int, Body]:
        """The instruction, patched and checked."""
        size = 4 * WORDS
        data = self._access(index, self._memory.read, self._job.program + size * index, size)
        patched = instructions.patched(data, self._registers)
        if patched is None or patched[0] not in Opcode.__members__.values():
            raise _JobError(Status.BAD_INSTRUCTION, index)
        body = instructions.unpack_body(patched)
        status = instructions.check(patched[0], body, self._config)
        if status != Status.OK:
            raise _JobError(status, index)
        return patched[0], body

    def _access(
        self, index: int, access: Callable[..., bytes | None], address: int, *rest: int | bytes
    ) -> bytes:
        try:
            return access(address, *rest) or b""
        except AccessError as error:
            raise _JobError(Status.BAD_ADDRESS, index) from error
        except BusError as error:
            raise _JobError(Status.BUS_ERROR, index) from error

    def _control(self, index: int, opcode: int, body: Control) -> int:
        """Executes an instruction of control; returns the index of the next one."""
        values, a = self._registers, self._registers[body.a]
        match opcode:
            case Opcode.COMPUTE:
                b = values[body.b] if body.use_b else body.immediate
                values[body.destination] = _compute(Function(body.function), a, b)
            case Opcode.BRANCH:
                taken = {Condition.ALWAYS: True, Condition.ZERO: a == 0, Condition.NONZERO: a != 0}
                return body.immediate if taken[Condition(body.function)] else index + 1
            case Opcode.READ:
                data = self._access(index, self._memory.read, body.address, 4)
                values[body.destination] = int.from_bytes(data, "little")
            case Opcode.WRITE:
                self._access(index, self._memory.write, body.address, a.to_bytes(4, "little"))
            case Opcode.WAIT:
                self._wait(index, body.immediate)
            case Opcode.TOKENS:
                values[body.destination] = self._tokens(index, body.immediate)
            case Opcode.DETAIL:
                self._wait(index, Engine.DRE)
                values[body.destination] = self._detail
        return index + 1

    def _tokens(self, index: int, limit: int) -> int:
        """Grants tokens of the oldest delivery."""
        self._pump()
        if not self._deliveries:
            raise _JobError(Status.STALLED, index)
        granted = min(limit, self._deliveries[0].left)
        self._deliveries[0].left -= granted
        if not granted:
            self._deliveries.popleft()
        return granted

    def _hand_out(self, index: int, opcode: int, body: Body) -> None:
        """Gives an instruction to its engine."""
        self._core.observe(body)
        engine = Engine.LXE if opcode == Opcode.LXE else Engine.DRE
        if isinstance(body, Move):
            engine = MOVERS[Port(body.source), Port(body.sink)]
            if body.source == Port.LXE and body.rows:
                self._takers.append(engine)
        self._queues[engine].append((index, body))
        self._pump()

    def _wait(self, index: int, mask: int) -> None:
        self._pump()
        if any(mask & engine and self._queues[engine] for engine in Engine):
            raise _JobError(Status.STALLED, index)

    def _pump(self) -> None:
        """Lets every engine work as far as it can."""
        steps: dict[Engine, Callable[[int, Body], bool]] = {
            Engine.LOAD: self._load,
            Engine.FEED: self._feed,
            Engine.LXE: self._run_lxe,
            Engine.DRE: self._run_dre,
            Engine.SAVE: self._save,
            Engine.RESULT: self._result,
        }
        moved = True
        while moved:
            moved = False
            for engine, step in steps.items():
                queue = self._queues[engine]
                while queue and step(*queue[0]):
                    queue.popleft()
                    moved = True

    def _load(self, index: int, move: Body) -> bool:
        assert isinstance(move, Move)
        if move.source == Port.KV:
            if len(self._kv) < move.rows:
                return False
            rows = [self._kv.popleft() for _ in range(move.rows)]
        elif move.bits:
            rows = self._dequantised(index, move)
        else:
            rows = self._read_rows(index, move)
        if rows:
            size = len(rows[0])
            padded = np.zeros(
                (len(rows), -(-size // self._config.dpe.beat_bytes) * self._config.dpe.inputs), np.uint16
            )
            padded[:, : size // 2] = np.frombuffer(b"".join(rows), dtype="<u2").reshape(len(rows), -1)
            self._din.add(padded.reshape(-1, self._config.dpe.inputs))
        return True

    def _feed(self, index: int, move: Body) -> bool:
        assert isinstance(move, Move)
        rows = (
            self._read_rows(index, move)
            if move.source == Port.MEMORY
            else self._take_lines(Engine.FEED, move)
        )
        if rows is None:
            return False
        self._payload.extend(beat for row in rows for beat in self._beats(row))
        return True

    def _save(self, index: int, move: Body) -> bool:
        assert isinstance(move, Move)
        rows = self._take_lines(Engine.SAVE, move)
        if rows is None:
            return False
        for address, row in zip(move.addresses(), rows, strict=True):
            self._access(index, self._memory.write, address, row[: move.bytes])
        return True

    def _result(self, index: int, move: Body) -> bool:
        assert isinstance(move, Move)
        beats = -(-move.bytes // self._config.bus_bytes)
        if len(self._results) < move.rows * beats:
            return False
        for address in move.addresses():
            row = b"".join(self._results.popleft() for _ in range(beats))
            if move.sink == Port.MEMORY:
                self._access(index, self._memory.write, address, row[: move.bytes])
        return True

    def _run_lxe(self, index: int, instruction: Body) -> bool:
        assert isinstance(instruction, LxeInstruction)
        if len(self._din) < instruction.beats:
            return False
        lines = self._din.take(instruction.beats)
        stored, end = self._core.lxe.run([replace(instruction, last=True)], lines)
        if end.status != UnitStatus.OK:
            raise _JobError(Status.LXE_FAILED, index, int(end.status))
        self.nan |= end.nan
        self._dout.add(stored)
        return True

    def _run_dre(self, index: int, command: Body) -> bool:
        assert isinstance(command, Descriptor)
        beats = -(-command.length // self._config.bus_bytes)
        if len(self._payload) < beats:
            return False
        payload = b"".join(self._payload.popleft() for _ in range(beats))[: command.length]
        end, result, kv = self._core.dre.execute(command, payload)
        if end.status != UnitStatus.OK:
            raise _JobError(Status.DRE_FAILED, index, int(end.status))
        self._detail = end.detail
        self._results.extend(self._beats(result))
        if delivers(command):
            size = self._config.kvmu.token_bytes
            tokens = [kv[first : first + size] for first in range(0, len(kv), size)]
            self._kv.extend(tokens)
            self._deliveries.append(_Delivery(len(tokens)))
        return True

    def _read_rows(self, index: int, move: Move) -> list[bytes]:
        """Rows of memory in whole beats."""
        size = -(-move.bytes // self._config.bus_bytes) * self._config.bus_bytes
        return [self._access(index, self._memory.read, address, size) for address in move.addresses()]

    def _dequantised(self, index: int, move: Move) -> list[bytes]:
        """What rows of codes stand for, BF16; all their scales are read at once, in whole beats."""
        if not move.rows:
            return []
        unit = self._config.bus_bytes
        first, beats = move.scale_beats(unit)
        block = self._access(index, self._memory.read, first, beats * unit)
        before = (move.scales + 2 * move.first * move.step) % unit // 2
        scales = np.frombuffer(block, dtype="<u2")[before + move.step * np.arange(move.rows)]
        codes = np.frombuffer(b"".join(self._read_rows(index, move)), dtype=np.uint8).reshape(move.rows, -1)
        values = quant.dequantise(quant.unpack(codes, move.bits), scales)
        return [row.tobytes() for row in values.astype("<u2")]

    def _take_lines(self, engine: Engine, move: Move) -> list[bytes] | None:
        """Rows that the LXE stored, in whole beats; None as long as they are not all there."""
        if not move.rows:
            return []
        lines = -(-move.bytes // self._config.dpe.beat_bytes)
        if self._takers[0] != engine or len(self._dout) < move.rows * lines:
            return None
        self._takers.popleft()
        size = -(-move.bytes // self._config.bus_bytes) * self._config.bus_bytes
        rows = self._dout.take(move.rows * lines).astype("<u2").reshape(move.rows, -1)
        return [row.tobytes()[:size] for row in rows]

    def _beats(self, data: bytes) -> list[bytes]:
        padded = commands.to_beats(self._config, data)
        return [
            padded[first : first + self._config.bus_bytes]
            for first in range(0, len(padded), self._config.bus_bytes)
        ]


def delivers(command: Descriptor) -> bool:
    """Whether a command of the DRE gives tokens on the stream `kv`."""
    if command.opcode == DreOpcode.FETCH:
        return True
    return command.opcode == DreOpcode.RETRIEVE and command.param != PREDICT_ONLY


def _compute(function: Function, a: int, b: int) -> int:
    """COMPUTE, modulo 2^32; shifts by the lower five bits of b."""
    results = {
        Function.COPY: b,
        Function.ADD: a + b,
        Function.SUB: a - b,
        Function.AND: a & b,
        Function.SHL: a << (b & 31),
        Function.SHR: a >> (b & 31),
        Function.MIN: min(a, b),
    }
    return results[function] & WORD
