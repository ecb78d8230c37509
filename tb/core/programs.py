"""Random programs for a core, each with what it needs in memory: all engines, loops, patches, faults."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from vrex.model import commands
from vrex.model.commands import Descriptor
from vrex.model.commands import Opcode as DreOpcode
from vrex.model.commands import Register as DreRegister
from vrex.model.config import Config
from vrex.model.core.core import Job, Limits
from vrex.model.core.instructions import (
    CODE_BITS,
    CODE_ROWS,
    Body,
    Condition,
    Control,
    Engine,
    Function,
    Instruction,
    Mode,
    Move,
    Opcode,
    Patch,
    Port,
    Status,
    pack_program,
)
from vrex.model.dre import kvstore
from vrex.model.dre.dre import PREDICT_ONLY
from vrex.model.lib.memory import PAGE, Memory, Window
from vrex.model.lxe import dpe, vpe
from vrex.model.lxe.instructions import Instruction as LxeInstruction
from vrex.model.lxe.instructions import Opcode as LxeOpcode
from vrex.model.lxe.instructions import Operand, lines_of

ALL = sum(Engine)
DEVICE = Window(256, 512)
HOST = Window(1 << 20, 128)
JOBS_PAGE, ENDS_PAGE, PROGRAM_PAGE, DATA_PAGE, OUTPUT_PAGE, TABLE_PAGE = (
    DEVICE.base + n for n in (0, 1, 2, 64, 192, 320)
)
LIMITS = Limits(device=DEVICE, host=HOST, sequences=4)
NOTHING = Control()
ROW_WORDS = 6
"""Word of a MOVE with `rows` and `first`, as it is counted for patches."""
SCALES_WORD = 10
"""Word of a MOVE in which `scales` begins."""


def windows_of(core: int) -> tuple[Window, Window]:
    """What `DEVICE` and `HOST` are to the first core, to another core of several on one memory."""
    return (
        Window(DEVICE.base + core * DEVICE.pages, DEVICE.pages),
        Window(HOST.base + core * HOST.pages, HOST.pages),
    )


@dataclass
class RandomJob:
    """A job and the memory that it starts from.

    Attributes:
        job: with its parameters.
        program: its instructions.
        contents: bytes by address, besides the program.
        faults: statuses it may end with besides OK; empty where it must end with OK.
        coded: bits of the codes that it makes BF16 of, and steps of their scales.
    """

    job: Job
    program: list[Instruction] = field(default_factory=list)
    contents: dict[int, bytes] = field(default_factory=dict)
    faults: set[Status] = field(default_factory=set)
    coded: set[tuple[int, int]] = field(default_factory=set)

    def fill(self, memory: Memory) -> None:
        """Writes what the job needs."""
        for address, data in self.contents.items():
            memory.write(address, data)
        memory.write(self.job.program, pack_program(self.program))


class ProgramStimuli:
    """Makes random jobs for one configuration.

    Args:
        config: accelerator; its tables must fit the windows, so take a small one.
        rng: source of randomness.
        core: whose jobs they are, of several on one memory.
    """

    def __init__(self, config: Config, rng: np.random.Generator, core: int = 0) -> None:
        self.config, self.rng = config, rng
        self.device, self.host = windows_of(core)
        self._data = self._output = 0
        self._heads = 1
        self._made = RandomJob(Job(program=self._place_of(PROGRAM_PAGE)))

    def job(self, tag: int, faulty: bool) -> RandomJob:
        """A program of some blocks, none of which races another; with `faulty` one of them goes wrong."""
        rng = self.rng
        self._begin(tag)
        blocks: list[Callable[[], None]] = [
            self._product, self._vectors, self._loop, self._words, self._retrieval, self._rows_to_dre,
            self._codes,
        ]  # fmt: skip
        chosen = [blocks[k] for k in rng.integers(0, len(blocks), rng.integers(1, 6))]
        at = int(rng.integers(len(chosen) + 1)) if faulty else -1
        for number, block in enumerate([*chosen, None]):
            if number == at:
                faults = self._faults()
                self._fault(faults[int(rng.integers(len(faults)))])
            if block is not None:
                block()
                if rng.random() < 0.3:
                    self._add(Opcode.WAIT, Control(immediate=int(rng.integers(64))))
                if rng.random() < 0.1:
                    self._add(Opcode.BARRIER, Control(immediate=1))
        self._add(Opcode.END)
        return self._made

    def product_job(self) -> RandomJob:
        """A product of random sizes."""
        self._begin(0)
        self._product()
        self._add(Opcode.END)
        return self._made

    def _begin(self, tag: int) -> None:
        """An empty program with random parameters."""
        rng = self.rng
        self._data, self._output = self._place_of(DATA_PAGE), self._place_of(OUTPUT_PAGE)
        parameters = tuple(int(x) for x in rng.integers(0, 1 << 32, 12))
        program, sequence = self._place_of(PROGRAM_PAGE), int(rng.integers(4))
        job = Job(program=program, tag=tag, sequence=sequence, parameters=parameters)
        self._made = RandomJob(job)
        # All blocks of a job share their table.
        self._heads = int(rng.integers(1, self.config.kvmu.kv_heads + 1))

    def _place_of(self, page: int) -> int:
        """Address of a page of the first core's windows in this one's."""
        return (page - DEVICE.base + self.device.base) * PAGE

    def _add(self, opcode: int, body: Body = NOTHING, *patches: Patch) -> None:
        self._made.program.append(Instruction(opcode, body, patches))

    def _put(self, data: bytes) -> int:
        """Bytes somewhere in memory; returns their address."""
        address = self._data
        self._made.contents[address] = data
        self._data += -(-len(data) // 64) * 64
        return address

    def _place(self, size: int) -> int:
        """Address of an output that no other instruction writes."""
        address = self._output
        self._output += -(-size // 64) * 64
        return address

    def _values(self, rows: int, length: int) -> np.ndarray:
        """BF16 bits of moderate size."""
        signs = self.rng.integers(0, 2, (rows, length), dtype=np.uint16) << 15
        return signs | self.rng.integers(0x3E00, 0x4080, (rows, length), dtype=np.uint16)

    def _load(self, values: np.ndarray, base: int, gap: int = 0) -> int:
        """Rows from memory to the LXE; returns the lines of a row."""
        size = 2 * values.shape[1]
        pitch = -(-size // self.config.bus_bytes) * self.config.bus_bytes + gap * self.config.bus_bytes
        stored = np.zeros((len(values), pitch), dtype=np.uint8)
        stored[:, :size] = np.ascontiguousarray(values).view(np.uint8)
        lines = lines_of(values.shape[1], 1, True, self.config)
        address = self._put(stored.tobytes())
        move = Move(
            source=Port.MEMORY, sink=Port.LXE, bytes=size, rows=len(values), pitch=pitch, address=address
        )
        body, patches = self._displaced(move)
        self._add(Opcode.MOVE, body, *patches)
        self._add(
            Opcode.LXE,
            LxeInstruction(
                opcode=LxeOpcode.LOAD,
                rows=len(values),
                length=values.shape[1],
                beats=len(values) * lines,
                o=Operand(base, lines),
            ),
        )
        return lines

    def _displaced(self, move: Move) -> tuple[Move, list[Patch]]:
        """A MOVE and the patch that makes this one of it."""
        # Blocks compute in registers 1 to 10 and from 12 on.
        register = int(self.rng.choice([0, 11]))
        value = self._made.job.parameters[register]
        places = [
            (replace(move, address=(move.address - value) % (1 << 64)), 8, Mode.BYTES),
            (replace(move, address=(move.address - (value << 12)) % (1 << 64)), 8, Mode.PAGES),
            (replace(move, bytes=(move.bytes - value) % (1 << 32)), 4, Mode.WORD),
            (replace(move, rows=(move.rows - value) % (1 << 16)), ROW_WORDS, Mode.LOW),
        ]
        if move.bits:
            scales = (move.scales - (value << 12)) % (1 << 64)
            places.append((replace(move, scales=scales), SCALES_WORD, Mode.PAGES))
        body, word, mode = places[int(self.rng.integers(len(places)))]
        return body, [Patch(word, mode, register)]

    def _store(self, base: int, stride: int, rows: int, length: int) -> None:
        """Rows of the LXE to memory, in a ring of rows now and then."""
        size = 2 * length
        small = size in (4, 8, 16)
        pitch = size if small else -(-size // self.config.bus_bytes) * self.config.bus_bytes
        ring = int(self.rng.integers(2))
        mask = (1 << rows.bit_length()) - 1 if ring else 0xFFFF
        first = int(self.rng.integers(0, 1 << 16)) if ring else 0
        address = self._place(pitch * (rows if not ring else mask + 1))
        self._add(
            Opcode.MOVE,
            Move(
                source=Port.LXE, sink=Port.MEMORY, bytes=size, rows=rows, pitch=pitch, first=first, mask=mask,
                address=address,
            ),
        )  # fmt: skip
        self._add(
            Opcode.LXE,
            LxeInstruction(opcode=LxeOpcode.STORE, rows=rows, length=length, a=Operand(base, stride)),
        )

    def _product(self) -> None:
        """A product with weights from memory, its rows stored."""
        rng, config = self.rng, self.config.dpe
        rows, inner, columns = int(rng.integers(1, 12)), int(rng.integers(1, 100)), int(rng.integers(1, 50))
        lines = self._load(self._values(rows, inner), 0)
        weights = dpe.weight_beats(self._values(columns, inner), config)
        address = self._put(np.ascontiguousarray(weights).astype("<u2").tobytes())
        self._add(
            Opcode.MOVE,
            Move(source=Port.MEMORY, sink=Port.LXE, bytes=len(weights) * config.beat_bytes, address=address),
        )
        out = lines_of(columns, config.trees, True, self.config)
        self._add(
            Opcode.LXE,
            LxeInstruction(
                opcode=LxeOpcode.GEMM, rows=rows, inner=inner, length=columns, beats=len(weights),
                a=Operand(0, lines), o=Operand(1000, out),
            ),
        )  # fmt: skip
        self._store(1000, out, rows, columns)

    def _vectors(self) -> None:
        """Operations of the vector engine on loaded rows, one after another."""
        rng = self.rng
        rows, length = int(rng.integers(1, 6)), int(rng.integers(1, 80))
        lines = self._load(self._values(rows, length), 0)
        stride = lines_of(length, max(self.config.dpe.trees, self.config.vpe.lanes), True, self.config)
        self._load(self._values(rows, length), 500)
        for _ in range(int(rng.integers(1, 4))):
            function = int(
                rng.choice([vpe.Function.MUL, vpe.Function.ADD, vpe.Function.MAX, vpe.Function.EXP])
            )
            self._add(
                Opcode.LXE,
                LxeInstruction(
                    opcode=LxeOpcode.VECTOR, function=function, rows=rows, length=length, a=Operand(0, lines),
                    b=Operand(500, lines), c=Operand(500, lines), o=Operand(1000, stride),
                ),
            )  # fmt: skip
        self._store(1000, stride, rows, length)

    def codes_job(self) -> RandomJob:
        """Rows of codes of random sizes, several MOVEs of them in a row."""
        self._begin(0)
        for _ in range(3):
            self._codes()
        self._add(Opcode.END)
        return self._made

    def _codes(self) -> None:
        """Rows of codes, and rows as they are close behind and before them, to the LXE and back to memory."""
        rng = self.rng
        base = 0
        kinds = rng.permutation([CODE_BITS[0], CODE_BITS[1], 16, 16])[: rng.integers(1, 5)]
        loaded = []
        for bits in kinds:
            rows = int(rng.integers(1, 1 + min(CODE_ROWS, 4 << int(rng.integers(5)))))
            length = int(rng.integers(1, 5)) * self.config.bus_bits // int(bits)
            if bits == 16:
                lines = self._load(self._values(rows, length), base)
            else:
                lines = self._load_codes(int(bits), rows, length, base)
            loaded.append((base, lines, rows, length))
            base += rows * lines
        for at, lines, rows, length in loaded:
            self._store(at, lines, rows, length)

    def _load_codes(self, bits: int, rows: int, length: int, base: int) -> int:
        """Rows of codes to the LXE, with scales of all kinds; returns the lines of a row."""
        config, rng = self.config, self.rng
        size, step = length * bits // 8, int(rng.integers(config.kvmu.kv_heads + 1))
        first, gap = int(rng.integers(40)), int(rng.integers(3)) * config.bus_bytes
        pitch = size + gap
        place = 2 * int(rng.integers(2 * config.bus_bytes))
        stored = rng.integers(0, 256, (first + rows) * pitch, dtype=np.uint8)
        # Mostly those of a table, and now and then subnormal, infinite and NaN ones.
        scales = rng.integers(0x3800, 0x4000, (first + rows) * step + 1, dtype=np.uint16)
        odd = rng.random(scales.shape) < 0.1
        scales = np.where(odd, rng.integers(0, 1 << 16, scales.shape, dtype=np.uint16), scales)
        self._made.coded.add((bits, step))
        move = Move(
            source=Port.MEMORY, sink=Port.LXE, bytes=size, rows=rows, pitch=pitch, first=first, bits=bits,
            step=step, address=self._put(stored.tobytes()),
            scales=self._put(bytes(place) + scales.astype("<u2").tobytes()) + place,
        )  # fmt: skip
        body, patches = self._displaced(move)
        self._add(Opcode.MOVE, body, *patches)
        lines = lines_of(length, 1, True, config)
        load = LxeInstruction(
            opcode=LxeOpcode.LOAD, rows=rows, length=length, beats=rows * lines, o=Operand(base, lines)
        )
        self._add(Opcode.LXE, load)
        return lines

    def _loop(self) -> None:
        """Counts a register down and another up, and writes what came of it."""
        times, step = int(self.rng.integers(1, 5)), int(self.rng.integers(1 << 32))
        functions = [Function.ADD, Function.SUB, Function.AND, Function.MIN, Function.SHL, Function.SHR]
        self._add(Opcode.COMPUTE, Control(destination=12, immediate=times, function=Function.COPY))
        start = len(self._made.program)
        self._add(
            Opcode.COMPUTE,
            Control(destination=13, a=13, immediate=step, function=int(self.rng.choice(functions))),
        )
        self._add(Opcode.COMPUTE, Control(destination=13, a=13, b=2, use_b=True, function=Function.ADD))
        self._add(Opcode.COMPUTE, Control(destination=12, a=12, immediate=1, function=Function.SUB))
        self._add(Opcode.BRANCH, Control(a=12, function=Condition.NONZERO, immediate=start))
        skipped = len(self._made.program) + 2
        self._add(Opcode.BRANCH, Control(a=12, function=Condition.ZERO, immediate=skipped))
        self._add(0xFF)
        self._add(Opcode.WRITE, Control(a=13, address=self._place(4)))

    def _words(self) -> None:
        """A word that is written, read and written again."""
        first, second = self._place(4) + 4 * int(self.rng.integers(16)), self._place(4)
        self._add(Opcode.WRITE, Control(a=int(self.rng.integers(16)), address=first))
        self._add(Opcode.WAIT, Control(immediate=Engine.RESULT))
        self._add(Opcode.READ, Control(destination=14, address=first))
        self._add(Opcode.WRITE, Control(a=14, address=second))

    def _set(self, register: DreRegister, value: int) -> None:
        self._add(Opcode.DRE, Descriptor(DreOpcode.SETREG, count=register, param=value))

    def _windows(self) -> None:
        for register, value in (
            (DreRegister.TH_HD, int(self.rng.integers(2, 14))),
            (DreRegister.DEVICE_BASE, self.device.base),
            (DreRegister.DEVICE_PAGES, self.device.pages),
            (DreRegister.HOST_BASE, self.host.base),
            (DreRegister.HOST_PAGES, self.host.pages),
        ):
            self._set(register, value)

    def _retrieval(self) -> None:
        """Appends to a new table, retrieves from it, and stores the tokens that were delivered."""
        config, rng = self.config, self.rng
        heads = self._heads
        plan = kvstore.plan(config, heads, 64, 64, 2 * config.hcu.chunk_tokens, self.host.base)
        table = self._place_of(TABLE_PAGE)
        self._add(Opcode.WAIT, Control(immediate=ALL))
        self._windows()
        self._made.contents[table] = plan.header.pack()
        # The header lies in memory only once: a second retrieval of the job goes on with the same table.
        for _ in range(int(rng.integers(1, 3))):
            self._append(heads, table)
        self._add(Opcode.WAIT, Control(immediate=ALL))
        self._add(Opcode.READ, Control(destination=1, address=table))
        self._add(
            Opcode.COMPUTE,
            Control(destination=2, a=1, immediate=8 * config.bus_bytes - 1, function=Function.ADD),
        )
        shift = (8 * config.bus_bytes).bit_length() - 1
        self._add(Opcode.COMPUTE, Control(destination=2, a=2, immediate=shift, function=Function.SHR))
        beat = config.bus_bytes.bit_length() - 1
        self._add(Opcode.COMPUTE, Control(destination=2, a=2, immediate=beat, function=Function.SHL))
        mask = self._all_clusters()
        for head in range(heads):
            place = Move(source=Port.MEMORY, sink=Port.DRE, bytes=0, address=mask)
            self._add(Opcode.MOVE, place, Patch(4, Mode.WORD, 2))
            fetch = Descriptor(DreOpcode.FETCH, kv_heads=1 << head, address=table)
            self._add(Opcode.DRE, fetch, Patch(6, Mode.HIGH, 1), Patch(9, Mode.WORD, 2))
        for _ in range(heads):
            self._take_tokens()

    def _all_clusters(self) -> int:
        """A bitmask of exactly the clusters there are, word by word; returns its address."""
        mask = self._place(64)
        self._add(Opcode.COMPUTE, Control(destination=3, a=1, function=Function.COPY, b=1, use_b=True))
        for word in range(4):
            # min(left, 32) ones: 2^n - 1, of 32 by a shift of 31 and another of 1.
            self._add(Opcode.COMPUTE, Control(destination=4, a=3, immediate=32, function=Function.MIN))
            self._add(Opcode.COMPUTE, Control(destination=3, a=3, b=4, use_b=True, function=Function.SUB))
            self._add(Opcode.COMPUTE, Control(destination=5, immediate=0, function=Function.COPY))
            done = len(self._made.program) + 5
            self._add(Opcode.BRANCH, Control(a=4, function=Condition.ZERO, immediate=done))
            self._add(Opcode.COMPUTE, Control(destination=4, a=4, immediate=1, function=Function.SUB))
            self._add(Opcode.COMPUTE, Control(destination=5, immediate=2, function=Function.COPY))
            self._add(Opcode.COMPUTE, Control(destination=5, a=5, b=4, use_b=True, function=Function.SHL))
            self._add(Opcode.COMPUTE, Control(destination=5, a=5, immediate=1, function=Function.SUB))
            self._add(Opcode.WRITE, Control(a=5, address=mask + 4 * word))
        self._add(Opcode.WAIT, Control(immediate=Engine.RESULT))
        return mask

    def _append(self, heads: int, table: int) -> None:
        """New tokens, payload from memory, decisions to memory or nowhere."""
        config, rng = self.config, self.rng
        tokens = int(rng.integers(1, config.hcu.chunk_tokens // 2))
        words = -(-config.hcu.hash_bits // 32)
        hashes = rng.integers(0, 1 << 32, (tokens, words), dtype=np.uint64).astype(np.uint32)
        packed = commands.to_beats(config, commands.hashes_to_bytes(config, hashes))
        kv = self._values(tokens, heads * config.kvmu.token_bytes // 2).astype("<u2")
        size = heads * config.kvmu.token_bytes
        decisions = len(commands.to_beats(config, bytes(4 * tokens)))
        sink = int(rng.choice([Port.MEMORY, Port.NONE]))
        at_hashes, at_kv = self._put(packed), self._put(kv.tobytes())
        self._add(Opcode.MOVE, Move(source=Port.MEMORY, sink=Port.DRE, bytes=len(packed), address=at_hashes))
        self._add(
            Opcode.MOVE,
            Move(source=Port.MEMORY, sink=Port.DRE, bytes=size, pitch=size, rows=tokens, address=at_kv),
        )
        self._add(
            Opcode.MOVE, Move(source=Port.DRE, sink=sink, bytes=decisions, address=self._place(decisions))
        )
        self._add(
            Opcode.DRE,
            Descriptor(
                DreOpcode.APPEND, kv_heads=(1 << heads) - 1, count=tokens, address=table,
                length=len(packed) + tokens * size,
            ),
        )  # fmt: skip

    def _take_tokens(self) -> None:
        """Tokens to the LXE and from there to memory, some at a time, until there are no more."""
        config = self.config
        size, limit = config.kvmu.token_bytes, int(self.rng.integers(1, config.core.kv_tokens + 1))
        lines = size // config.dpe.beat_bytes
        place = self._place(size * 256)
        # Now and then lines from memory come behind the tokens, and both wait for the LXE.
        behind = bool(self.rng.random() < 0.5)
        self._add(Opcode.COMPUTE, Control(destination=6, immediate=0, function=Function.COPY))
        start = len(self._made.program)
        self._add(Opcode.TOKENS, Control(destination=7, immediate=limit))
        branch = len(self._made.program)
        self._add(Opcode.BRANCH)
        shift = lines.bit_length() - 1
        self._add(Opcode.COMPUTE, Control(destination=8, a=7, immediate=shift, function=Function.SHL))
        move = Move(source=Port.KV, sink=Port.LXE, bytes=size, rows=0)
        self._add(Opcode.MOVE, move, Patch(ROW_WORDS, Mode.LOW, 7))
        if behind:
            self._memory_behind(size)
        load = LxeInstruction(opcode=LxeOpcode.LOAD, rows=0, length=size // 2, o=Operand(3000, lines))
        self._add(Opcode.LXE, load, Patch(4, Mode.LOW, 7), Patch(7, Mode.WORD, 8))
        if behind:
            more = LxeInstruction(
                opcode=LxeOpcode.LOAD, length=size // 2, beats=lines, o=Operand(2900, lines)
            )
            self._add(Opcode.LXE, more)
        save = Move(source=Port.LXE, sink=Port.MEMORY, bytes=size, pitch=size, rows=0, address=place)
        self._add(Opcode.MOVE, save, Patch(ROW_WORDS, Mode.LOW, 7), Patch(ROW_WORDS, Mode.HIGH, 6))
        store = LxeInstruction(opcode=LxeOpcode.STORE, rows=0, length=size // 2, a=Operand(3000, lines))
        self._add(Opcode.LXE, store, Patch(4, Mode.LOW, 7))
        self._add(Opcode.COMPUTE, Control(destination=6, a=6, b=7, use_b=True, function=Function.ADD))
        self._add(Opcode.BRANCH, Control(function=Condition.ALWAYS, immediate=start))
        end = Control(a=7, function=Condition.ZERO, immediate=len(self._made.program))
        self._made.program[branch] = Instruction(Opcode.BRANCH, end)

    def _memory_behind(self, size: int) -> None:
        """Moves a row from memory to the LXE, and lets it wait there for a while."""
        address = self._put(self._values(1, size // 2).tobytes())
        self._add(Opcode.MOVE, Move(source=Port.MEMORY, sink=Port.LXE, bytes=size, address=address))
        self._add(Opcode.COMPUTE, Control(destination=9, immediate=20, function=Function.COPY))
        again = len(self._made.program)
        self._add(Opcode.COMPUTE, Control(destination=9, a=9, immediate=1, function=Function.SUB))
        self._add(Opcode.BRANCH, Control(a=9, function=Condition.NONZERO, immediate=again))

    def _rows_to_dre(self) -> None:
        """Scores from the LXE to a RETRIEVE on a table of one cluster, which selects it."""
        config = self.config
        table = self._place_of(TABLE_PAGE + 96)
        plan = kvstore.plan(config, 1, 64, 64, 0, self.host.base + self.host.pages // 2)
        self._add(Opcode.WAIT, Control(immediate=ALL))
        self._windows()
        self._made.contents[table] = plan.header.pack()
        self._append(1, table)
        self._add(Opcode.WAIT, Control(immediate=ALL))
        self._add(Opcode.READ, Control(destination=1, address=table))
        rows = int(self.rng.integers(1, 5))
        lines = self._load(self._values(rows, 64), 0)
        self._add(Opcode.WAIT, Control(immediate=Engine.LXE))
        # Scores in whole beats.
        per_beat = config.bus_bits // 16
        for destination, source, amount, function in (
            (9, 1, per_beat - 1, Function.ADD),
            (9, 9, per_beat.bit_length() - 1, Function.SHR),
            (9, 9, config.bus_bytes.bit_length() - 1, Function.SHL),
        ):
            self._add(
                Opcode.COMPUTE,
                Control(destination=destination, a=source, immediate=amount, function=function),
            )
        self._add(Opcode.COMPUTE, Control(destination=10, immediate=0, function=Function.COPY))
        for _ in range(rows):
            self._add(Opcode.COMPUTE, Control(destination=10, a=10, b=9, use_b=True, function=Function.ADD))
        feed = Move(source=Port.LXE, sink=Port.DRE, bytes=0, rows=rows)
        self._add(Opcode.MOVE, feed, Patch(4, Mode.WORD, 9))
        masks = len(commands.to_beats(config, bytes(2)))
        self._add(Opcode.MOVE, Move(source=Port.DRE, sink=Port.MEMORY, bytes=masks, address=self._place(64)))
        retrieve = Descriptor(DreOpcode.RETRIEVE, kv_heads=1, count=rows, address=table, param=PREDICT_ONLY)
        self._add(Opcode.DRE, retrieve, Patch(6, Mode.HIGH, 1), Patch(9, Mode.WORD, 10))
        store = LxeInstruction(opcode=LxeOpcode.STORE, rows=rows, length=0, a=Operand(0, lines))
        self._add(Opcode.LXE, store, Patch(6, Mode.WORD, 1))

    def fault_jobs(self) -> Iterator[RandomJob]:
        """A job of each fault, behind instructions that are right."""
        for fault in self._faults():
            self._begin(0)
            self._loop()
            self._fault(fault)
            self._add(Opcode.END)
            yield self._made

    def _faults(self) -> list[tuple[Status, list[tuple[int, Body]]]]:
        """What ends a job: its status, and instructions."""
        outside = 1 << 40
        rows = Move(source=Port.MEMORY, sink=Port.LXE, bytes=64, address=self._place_of(DATA_PAGE))
        load = LxeInstruction(opcode=LxeOpcode.LOAD, length=32, beats=64 // self.config.dpe.beat_bytes)
        waits = (Opcode.WAIT, Control(immediate=ALL))
        bad, address = Status.BAD_INSTRUCTION, Status.BAD_ADDRESS
        codes = replace(rows, bits=8, scales=rows.address + 4096, rows=2, pitch=64)
        wrong_codes = [
            *(replace(codes, bits=bits) for bits in (1, 12, 16, 136)),
            *(replace(codes, rows=CODE_ROWS + 1), replace(codes, mask=7), replace(codes, first=65535)),
            *(replace(codes, scales=codes.scales + 1), replace(codes, address=codes.address + 4)),
            *(replace(codes, step=self.config.kvmu.kv_heads + 1), replace(codes, sink=Port.DRE)),
        ]
        faults: list[tuple[Status, list[tuple[int, Body]]]]
        faults = [(bad, [(Opcode.MOVE, move)]) for move in wrong_codes]
        return [
            *faults,
            (address, [(Opcode.MOVE, replace(codes, scales=outside)), (Opcode.LXE, load)]),
            (address, [(Opcode.MOVE, replace(codes, address=outside)), (Opcode.LXE, load)]),
            (bad, [(0xAB, NOTHING)]),
            (bad, [(Opcode.MOVE, replace(rows, sink=Port.KV))]),
            (bad, [(Opcode.MOVE, replace(rows, address=rows.address + 4))]),
            (bad, [(Opcode.MOVE, replace(rows, mask=5))]),
            (bad, [(Opcode.MOVE, replace(rows, bytes=1 << 24))]),
            (bad, [(Opcode.TOKENS, Control(immediate=self.config.core.kv_tokens + 1))]),
            (bad, [(Opcode.COMPUTE, Control(function=15))]),
            (bad, [(Opcode.BARRIER, Control(immediate=3))]),
            (address, [(Opcode.MOVE, replace(rows, address=outside)), (Opcode.LXE, load)]),
            (address, [(Opcode.READ, Control(address=outside))]),
            (address, [(Opcode.WRITE, Control(address=outside)), waits]),
            (address, [(Opcode.BRANCH, Control(immediate=1 << 30))]),
            (Status.LXE_FAILED, [(Opcode.LXE, LxeInstruction(opcode=99)), waits]),
            (Status.DRE_FAILED, [(Opcode.DRE, Descriptor(99)), waits]),
            (Status.STALLED, [waits, (Opcode.LXE, load), (Opcode.WAIT, Control(immediate=Engine.LXE))]),
            (Status.STALLED, [waits, (Opcode.TOKENS, Control(immediate=1))]),
        ]

    def _fault(self, fault: tuple[Status, list[tuple[int, Body]]]) -> None:
        """Something that ends the job."""
        status, instructions = fault
        self._made.faults.add(status)
        self._add(Opcode.WAIT, Control(immediate=ALL))
        for opcode, body in instructions:
            self._add(opcode, body)
