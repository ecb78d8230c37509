"""Testbench of the LXE: programs on its memory, bit for bit against `vrex.model.lxe.lxe`."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import pairwise
from typing import Any

import numpy as np

from vrex.hw.lxe.lxe import COUNTERS
from vrex.hw.lxe.sequencer import OPEN
from vrex.model.commands import Status
from vrex.model.config import CHUNK, Config
from vrex.model.lxe import dpe, instructions, vpe
from vrex.model.lxe.instructions import Access, Instruction, Opcode, Operand
from vrex.model.lxe.lxe import Lxe
from vrex.tb.lib.bench import Bench, beats, case, scaled
from vrex.tb.lib.stimuli import SCORES
from vrex.tb.lib.streams import PROFILES, Profile, StreamError

SLOTS = "abco"
"""A slot of memory for each operand."""

SLOT_LINES = 96

CYCLES_AT = 64
"""Lowest bit of a completion's `cycles`."""

START_CYCLES = 40
"""Most cycles of an instruction besides those of its lines: check, start, the way through memory, the end."""


class LxeBench(Bench):
    """Drives programs and expects what the model computes.

    Attributes:
        cycles: of the completions so far.
        multiplied: cycles in which the trees must have had a beat, since the last reset.
    """

    unit = "lxe"

    def __init__(self, dut: Any, config: Config, seed: str) -> None:
        super().__init__(dut, config, seed, inputs=("cmd", "din"), outputs=("dout", "cpl"))
        self.model = Lxe(config)
        self.slot = min(config.lines // len(SLOTS), SLOT_LINES)
        self.inputs = config.dpe.inputs
        self.cycles: list[int] = []
        self.multiplied = 0
        self.sinks["cpl"].on_word = lambda word: self.cycles.append(word >> CYCLES_AT)

    async def reset(self) -> None:
        """Also sets back what the counters must say."""
        self.multiplied = 0
        await super().reset()

    async def finish(self) -> None:
        """Also compares the cycles in which the trees were busy."""
        await super().finish()
        if self.number("busy") != self.multiplied:
            raise StreamError(
                f"busy says {self.number('busy')} cycles, and the trees had {self.multiplied} beats"
            )

    def values(self, n: int, kind: str | None = None) -> np.ndarray:
        """BF16 bits uint16 [n] of a class of `vrex.tb.lib.stimuli`, or of one drawn."""
        return SCORES[kind or self.random.choice(list(SCORES))](self.rng, n)

    def run(self, program: list[Instruction], payload: list[np.ndarray]) -> Status:
        """Queues a program and its expectations.

        Args:
            program: instructions.
            payload: beats on `din` of each, uint16 [beats, inputs].

        Returns:
            Its status.
        """
        program = [replace(i, last=k == len(program) - 1) for k, i in enumerate(program)]
        line = 2 * self.inputs
        self.sources["cmd"].send(int.from_bytes(i.pack(), "little") for i in program)
        self.sources["din"].send(beats(np.concatenate(payload).astype("<u2").tobytes(), line))
        stored, completion = self.model.run(program, np.concatenate(payload))
        self.sinks["dout"].expect("stored line", beats(stored.astype("<u2").tobytes(), line))
        # The model has no clock, so `cycles`, in the highest bits, is not compared.
        self.sinks["cpl"].expect(
            f"completion of {len(program)} instructions",
            [instructions.COMPLETION.to_int(asdict(completion))],
            mask=(1 << CYCLES_AT) - 1,
            after=(self.sinks["dout"], self.sinks["dout"].asked),
        )
        done = program[: completion.index + (completion.status == Status.OK)]
        self.multiplied += sum(self._beats(i) for i in done if i.opcode == Opcode.GEMM)
        hit = self.coverage.hit
        hit(f"program ends with {Status(completion.status).name}")
        hit("a fault in the middle of a program", completion.index < len(program) - 1)
        hit("NaN in a program", completion.nan)
        return Status(completion.status)

    def _beats(self, i: Instruction) -> int:
        """Beats of a GEMM's rows."""
        tiles, chunks = -(-i.length // self.config.dpe.trees), -(-i.inner // CHUNK)
        return i.rows * i.groups * tiles * chunks * self.config.dpe.beats

    def fill(self, kind: str | None = None) -> None:
        """Loads values into the slots."""
        lines = len(SLOTS) * self.slot
        data = np.stack([self.values(self.inputs, kind) for _ in range(lines)])
        load = Instruction(
            opcode=Opcode.LOAD,
            rows=lines,
            length=self.inputs,
            beats=lines,
            o=Operand(0, 1),
        )
        self.run([load], [data])

    def dump(self) -> None:
        """Stores the slots, so that every value is compared."""
        lines = len(SLOTS) * self.slot
        store = Instruction(opcode=Opcode.STORE, rows=lines, length=self.inputs, a=Operand(0, 1))
        self.run([store], [np.zeros((0, self.inputs), dtype=np.uint16)])

    def place(self, i: Instruction) -> Instruction | None:
        """The instruction, its operands put into their slots at random strides; None if they don't fit."""
        return self.place_in(i, {name: SLOTS.index(name) * self.slot for name in SLOTS}, self.slot)

    def place_anywhere(self, i: Instruction) -> Instruction | None:
        """As `place`, in any half slots of a few, but the result in none of an operand's."""
        half = self.slot // 2
        halves = [half * n for n in self.random.sample(range(len(SLOTS) + 1), len(SLOTS))]
        return self.place_in(i, dict(zip(SLOTS, halves, strict=True)), half)

    def place_in(self, i: Instruction, firsts: dict[str, int], room: int) -> Instruction | None:
        """As `place`, each operand in `room` lines from a first one on."""
        placed: dict[str, Any] = {}
        for name, access in instructions.accesses(i, self.config).items():
            operand = self._operand(firsts[name], room, access)
            if operand is None:
                return None
            placed[name] = operand
        return replace(i, **placed)

    def _operand(self, first: int, room: int, access: Access) -> Operand | None:
        rows = access.rows * access.groups
        spare = room - rows * access.lines
        if spare < 0:
            return None
        gap = self.random.randint(0, spare // rows)
        stride = access.lines + gap
        base = first + self.random.randint(0, room - rows * stride)
        if self.random.random() < 0.5:
            return Operand(base, stride, access.rows * stride)
        # Rows of different groups in turn.
        return Operand(base, access.groups * stride, stride)

    def gemm(
        self,
        rows: int,
        groups: int,
        inner: int,
        length: int,
        *,
        resident: bool = False,
        columns: bool = False,
    ) -> None:
        """Queues a product, unless its operands don't fit into their slots."""
        config = self.config.dpe
        i = Instruction(
            opcode=Opcode.GEMM,
            bf16=self.random.choice([7, 15]),
            resident=resident,
            columns=columns,
            rows=rows,
            groups=groups,
            inner=inner,
            length=length,
        )
        i = replace(i, beats=instructions.expected_beats(i, self.config))
        weights = self.values(length * inner).reshape(length, inner)
        given = (dpe.column_beats if i.columns else dpe.weight_beats)(weights, config)
        placed = self.place(i)
        if placed is None:
            return
        self.run([placed], [given[: i.beats]])
        hit = self.coverage.hit
        hit("GEMM of weights in memory", i.resident and not i.columns)
        hit("GEMM of columns in memory", i.resident and i.columns)
        hit("GEMM of weights on din", not i.resident and not i.columns)
        hit("GEMM of columns on din", not i.resident and i.columns)
        hit("GEMM of groups of rows", groups > 1)
        hit("partial chunk", inner % CHUNK)
        hit("partial line of terms", inner % self.inputs)
        hit("partial tile", length % config.trees)
        hit("several tiles and chunks", length > config.trees and inner > CHUNK)

    def vector(self, function: int, length: int, rows: int, groups: int) -> None:
        """Queues an operation on rows; its result may take the place of its first operand."""
        i = Instruction(
            opcode=Opcode.VECTOR,
            function=function,
            bf16=self.random.randrange(16),
            scalar=self.random.randrange(4),
            length=length,
            rows=rows,
            groups=groups,
        )
        placed = self.place(i)
        if placed is None:
            return
        code = vpe.Function(function)
        same = code not in (*vpe.REDUCTIONS, vpe.Function.SIGN) and (i.bf16 & 1) == i.bf16 >> 3
        if same and self.random.random() < 0.3:
            placed = replace(placed, o=placed.a)
            self.coverage.hit("VECTOR over its operand")
        self.run([placed], [np.zeros((0, self.inputs), dtype=np.uint16)])
        self.coverage.hit(f"VECTOR {code.name}")
        self.coverage.hit("VECTOR of several rows", rows > 1)

    def small(self) -> tuple[Instruction, np.ndarray] | None:
        """A small instruction of any opcode anywhere, and its beats; None if it does not fit."""
        draw = self.random
        i = Instruction(
            opcode=draw.choice([Opcode.GEMM, Opcode.VECTOR, Opcode.VECTOR, Opcode.LOAD, Opcode.STORE]),
            function=draw.choice(list(vpe.Function)),
            bf16=draw.choice([7, 15]),
            resident=draw.random() < 0.7,
            columns=draw.random() < 0.5,
            rows=draw.choice([1, 2, 3, self.slot // 6]),
            inner=draw.randint(1, 2 * self.inputs),
            length=draw.randint(1, 2 * self.inputs),
        )
        i = replace(i, beats=instructions.expected_beats(i, self.config))
        placed = self.place_anywhere(i)
        data = np.stack([self.values(self.inputs, "normal") for _ in range(i.beats + 1)])[: i.beats]
        return None if placed is None else (placed, data)

    def cover_pair(self, before: Instruction, i: Instruction) -> None:
        """Counts what an instruction shares with the one before it, in the other lane."""
        in_vector = i.opcode == Opcode.VECTOR
        if in_vector == (before.opcode == Opcode.VECTOR):
            return
        (reads, writes), (earlier_reads, earlier_writes) = (_lines(x, self.config) for x in (i, before))
        lane = "VECTOR" if in_vector else "product or move"
        hit = self.coverage.hit
        hit(f"{lane} reads what the other lane writes", reads & earlier_writes)
        hit(f"{lane} writes what the other lane reads", writes & earlier_reads)
        hit(f"{lane} writes what the other lane writes", writes & earlier_writes)
        hit(
            f"{lane} shares nothing with the other lane",
            not (reads | writes) & (earlier_reads | earlier_writes),
        )


def _lines(i: Instruction, config: Config) -> tuple[set[int], set[int]]:
    """Lines that an instruction reads, and those that it writes."""
    read: set[int] = set()
    written: set[int] = set()
    for name, access in instructions.accesses(i, config).items():
        for first in access.operand.lines(access.rows, access.groups):
            (written if name == "o" else read).update(range(first, first + access.lines))
    return read, written


def make(dut: Any, config: Config, seed: str) -> LxeBench:
    """Bench of one case."""
    return LxeBench(dut, config, seed)


@case(make)
async def load_and_store(bench: LxeBench) -> None:
    """Rows of any length at any stride."""
    bench.stall()
    bench.fill()
    for _ in range(scaled(12, 4)):
        bench.stall()
        rows, groups = bench.random.randint(1, 4), bench.random.randint(1, 3)
        length = bench.random.choice([1, bench.inputs, bench.random.randint(1, 3 * bench.inputs)])
        for code in (Opcode.LOAD, Opcode.STORE):
            i = Instruction(opcode=code, rows=rows, groups=groups, length=length)
            count = instructions.expected_beats(i, bench.config)
            data = np.stack([bench.values(bench.inputs) for _ in range(count + 1)])[:count]
            placed = bench.place(replace(i, beats=count))
            if placed is not None:
                bench.run([placed], [data])
    bench.dump()
    await bench.drain()


@case(make, kind=["normal", "bits"])
async def products(bench: LxeBench, kind: str) -> None:
    """Weights from memory and from din, by rows and by columns, whole tiles and chunks or not."""
    bench.stall("none")
    bench.fill(kind)
    trees, most = bench.config.dpe.trees, bench.config.dpe.rows
    for resident in (False, True):
        for columns in (False, True):
            for inner, length in ((1, 1), (CHUNK, trees), (CHUNK + 3, trees + 1), (2 * CHUNK - 1, 2 * trees)):
                bench.stall()
                rows = bench.random.randint(1, min(6, most))
                groups = bench.random.randint(1, max(1, min(3, most // rows)))
                bench.gemm(rows, groups, inner, length, resident=resident, columns=columns)
            bench.dump()
            await bench.drain()


@case(make, columns=[False, True])
async def beyond(bench: LxeBench, columns: bool) -> None:
    """What lies behind the terms of a row or column is NaN, and counts for nothing."""
    bench.stall("light")
    trees, width = bench.config.dpe.trees, bench.inputs
    for inner in (1, width + 1, CHUNK - 1):
        lines = len(SLOTS) * bench.slot
        fill = Instruction(opcode=Opcode.LOAD, rows=lines, length=width, beats=lines, o=Operand(0, 1))
        memory = np.full((lines, width), 0x7FC0, dtype=np.uint16)
        per_row, b = -(-inner // width), SLOTS.index("b") * bench.slot
        memory[:per_row].reshape(-1)[:inner] = bench.values(inner, "normal")
        shape = (inner, trees) if columns else (trees, inner)
        stride = 1 if columns else per_row
        for row in range(shape[0]):
            target = memory[b + row * stride : b + (row + 1) * stride].reshape(-1)
            target[: shape[1]] = bench.values(shape[1], "normal")
        o = SLOTS.index("o") * bench.slot
        gemm = Instruction(
            opcode=Opcode.GEMM,
            resident=True,
            columns=columns,
            inner=inner,
            length=trees,
            b=Operand(b, stride),
            o=Operand(o),
        )
        if shape[0] * stride > bench.slot:
            continue
        store = Instruction(opcode=Opcode.STORE, length=trees, a=Operand(o))
        nothing = memory[:0]
        bench.run([fill, gemm, store], [memory, nothing, nothing])
        await bench.drain()


@case(make, function=[code.name for code in vpe.Function])
async def operations(bench: LxeBench, function: str) -> None:
    """Every function on rows of every format."""
    bench.stall("none")
    bench.fill(bench.random.choice([None, "normal"]))
    lanes = bench.config.vpe.lanes
    for length in (1, lanes, lanes + 1, 2 * bench.inputs + 1, bench.random.randint(1, 150)):
        bench.stall()
        rows, groups = bench.random.randint(1, 3), bench.random.randint(1, 2)
        bench.vector(vpe.Function[function], length, rows, groups)
    bench.dump()
    await bench.drain()


def _kinds(bench: LxeBench) -> Iterator[Instruction]:
    """Instructions of every kind that takes its operands' lines another way."""
    shape: dict[str, Any] = {"rows": 2, "groups": 2}
    for opcode in (Opcode.LOAD, Opcode.STORE):
        yield Instruction(opcode=opcode, length=bench.inputs + 1, **shape)
    for columns in (False, True):
        for bf16 in (7, 15):
            for resident in (False, True):
                flags: dict[str, Any] = {"columns": columns, "resident": resident, "bf16": bf16}
                for length in (bench.config.dpe.trees, bench.config.dpe.trees + 1):
                    yield Instruction(
                        opcode=Opcode.GEMM, inner=bench.inputs + 3, length=length, **flags, **shape
                    )
    for function in vpe.Function:
        for bf16 in {0, 15, bench.random.randrange(16)}:
            yield Instruction(
                opcode=Opcode.VECTOR,
                function=function,
                bf16=bf16,
                scalar=bench.random.randrange(4),
                length=bench.inputs + bench.config.vpe.lanes + 1,
                **shape,
            )


@case(make)
async def last_line(bench: LxeBench) -> None:
    """Operands that end with the memory's last line are good, those that end a line behind it refused."""
    empty = np.zeros((0, bench.inputs), dtype=np.uint16)
    end = Operand(bench.config.lines - bench.slot, 1)
    whole = Instruction(opcode=Opcode.STORE, rows=bench.slot, length=bench.inputs, a=end)
    bench.fill("normal")
    data = np.stack([bench.values(bench.inputs, "normal") for _ in range(bench.slot)])
    bench.run([replace(whole, opcode=Opcode.LOAD, beats=bench.slot, o=end)], [data])
    for kind in _kinds(bench):
        i = replace(kind, beats=instructions.expected_beats(kind, bench.config))
        for name in instructions.accesses(i, bench.config):
            bench.stall()
            # The others lie before it.
            order = [*(other for other in SLOTS if other != name), name]
            firsts = {other: order.index(other) * bench.slot for other in SLOTS}
            placed = bench.place_in(i, firsts, bench.slot)
            if placed is None:
                continue
            access = instructions.accesses(placed, bench.config)[name]
            for beyond, wanted in ((0, Status.OK), (1, Status.BAD_ADDRESS)):
                base = access.operand.base + bench.config.lines - access.end + beyond
                operand: dict[str, Any] = {name: replace(access.operand, base=base)}
                moved = replace(placed, **operand)
                given = np.stack([bench.values(bench.inputs, "normal") for _ in range(i.beats + 1)])[
                    : i.beats
                ]
                if bench.run([moved], [given]) != wanted:
                    raise StreamError(f"the model does not say {wanted.name} of {moved}")
                bench.coverage.hit("operand up to the last line", not beyond)
        bench.run([whole], [empty])
        await bench.drain()
    bench.dump()


def _faulty(bench: LxeBench) -> list[tuple[Status, Instruction]]:
    """Instructions that must be refused, and as what."""
    lines, inputs = bench.config.lines, bench.inputs
    store = Instruction(opcode=Opcode.STORE, length=inputs)
    gemm = Instruction(opcode=Opcode.GEMM, resident=True, inner=inputs, length=1, o=Operand(8))
    add = Instruction(opcode=Opcode.VECTOR, function=vpe.Function.FMA, length=inputs)
    far = Operand(lines)
    everywhere: list[dict[str, Any]] = [{name: far} for name in SLOTS]
    return [
        (Status.BAD_OPCODE, replace(store, opcode=0)),
        (Status.BAD_OPCODE, replace(store, opcode=5)),
        (Status.BAD_OPCODE, replace(store, opcode=255, beats=3)),
        (Status.BAD_OPCODE, replace(add, function=13)),
        (Status.BAD_COUNT, replace(store, rows=0)),
        (Status.BAD_COUNT, replace(store, groups=0)),
        (Status.BAD_COUNT, replace(store, length=0)),
        (Status.BAD_COUNT, replace(store, rows=256, groups=256)),
        (Status.BAD_COUNT, replace(gemm, inner=0)),
        (Status.BAD_COUNT, replace(gemm, rows=bench.config.dpe.rows + 1)),
        (Status.BAD_COUNT, replace(gemm, length=65535 * bench.config.dpe.trees + 1)),
        (Status.BAD_LENGTH, replace(store, beats=2)),
        (Status.BAD_LENGTH, replace(gemm, beats=1)),
        (Status.BAD_LENGTH, replace(gemm, resident=False)),
        (Status.BAD_LENGTH, replace(store, opcode=Opcode.LOAD, rows=2, beats=1)),
        (Status.BAD_ADDRESS, replace(store, a=far)),
        (Status.BAD_ADDRESS, replace(store, rows=2, a=Operand(lines - 1, 1))),
        (Status.BAD_ADDRESS, replace(store, groups=2, a=Operand(lines - 1, 0, 1))),
        (Status.BAD_ADDRESS, replace(store, length=inputs + 1, a=Operand(lines - 1))),
        (Status.BAD_ADDRESS, replace(store, rows=65535, a=Operand(1, 65535))),
        (Status.BAD_ADDRESS, replace(gemm, a=far)),
        (Status.BAD_ADDRESS, replace(gemm, b=far)),
        (Status.BAD_ADDRESS, replace(gemm, o=far)),
        (Status.BAD_ADDRESS, replace(gemm, columns=True, inner=2, b=Operand(lines - 1, 1))),
        *((Status.BAD_ADDRESS, replace(add, **operand)) for operand in everywhere),
    ]


@case(make)
async def faults(bench: LxeBench) -> None:
    """What can't be done ends its program with a status and nothing changed; the next program works."""
    bench.fill("normal")
    empty = np.zeros((0, bench.inputs), dtype=np.uint16)
    good = Instruction(opcode=Opcode.STORE, rows=2, length=bench.inputs, a=Operand(0, 1))
    load = Instruction(opcode=Opcode.LOAD, length=bench.inputs, beats=1, o=Operand(0))
    for status, bad in _faulty(bench):
        bench.stall()
        data = [bench.values(bench.inputs)[None] for _ in range(2)]
        lost = np.stack([bench.values(bench.inputs) for _ in range(bad.beats + 1)])[: bad.beats]
        got = bench.run([good, load, bad, load, good], [empty, data[0], lost, data[1], empty])
        if got != status:
            raise StreamError(f"the model says {got.name} of {bad}, not {status.name}")
        bench.run([good], [empty])
        await bench.drain()
    bench.dump()


@case(make, round=range(scaled(3, 1)))
async def random(bench: LxeBench, round: int) -> None:
    """Random instructions back to back."""
    bench.fill()
    most = bench.config.dpe.rows
    for _ in range(scaled(16, 5)):
        bench.stall()
        if bench.random.random() < 0.5:
            rows = bench.random.randint(1, min(5, most))
            inner, length = bench.random.randint(1, 150), bench.random.randint(1, 40)
            flags = {name: bench.random.random() < 0.5 for name in ("resident", "columns")}
            bench.gemm(rows, bench.random.randint(1, max(1, most // rows)), inner, length, **flags)
        else:
            rows, groups = bench.random.randint(1, 4), bench.random.randint(1, 3)
            bench.vector(bench.random.choice(list(vpe.Function)), bench.random.randint(1, 200), rows, groups)
        if bench.random.random() < 0.3:
            await bench.drain()
    bench.dump()
    await bench.drain()


@case(make, round=range(scaled(6, 3)))
async def lanes(bench: LxeBench, round: int) -> None:
    """VECTORs among products and moves, in long programs; some share lines, others work at the same time."""
    bench.fill("normal")
    for _ in range(scaled(8, 4)):
        bench.stall()
        drawn = [found for found in (bench.small() for _ in range(20)) if found is not None]
        program = [i for i, _ in drawn]
        for before, i in pairwise(program):
            bench.cover_pair(before, i)
        bench.run(program, [data for _, data in drawn])
    bench.dump()
    await bench.drain()


@case(make)
async def at_once(bench: LxeBench) -> None:
    """LOAD and STORE move a line a cycle; a VECTOR that shares no line with them works at the same time."""
    bench.fill("normal")
    lines = bench.slot
    none = np.zeros((0, bench.inputs), dtype=np.uint16)
    data = np.stack([bench.values(bench.inputs, "normal") for _ in range(lines)])
    store = Instruction(opcode=Opcode.STORE, rows=lines, length=bench.inputs, a=Operand(0, 1))
    load = replace(store, opcode=Opcode.LOAD, beats=lines, o=Operand(bench.slot, 1))
    rows = min(lines, 2 * lines * bench.config.vpe.lanes // bench.inputs)
    vector = Instruction(
        opcode=Opcode.VECTOR,
        function=vpe.Function.COPY,
        rows=rows,
        length=bench.inputs,
        a=Operand(2 * bench.slot, 1),
        o=Operand(3 * bench.slot, 1),
    )
    bench.stall("none")
    await bench.drain()
    bench.cycles.clear()
    for program, beats_of in (([store], []), ([load], [data]), ([vector], [])):
        bench.run(program, [none, *beats_of])
        await bench.drain()
    # Of other lines than the VECTOR before, so that a write that gets lost leaves another value.
    for move, first in ((store, 0), (load, 2 * bench.slot)):
        bench.run([replace(vector, a=Operand(first, 1)), move], [none, data[: move.beats]])
        await bench.drain()
    stored, loaded, alone, *together = bench.cycles
    bench.dut._log.info(f"cycles: {stored}, {loaded}, {alone} alone, {together} together")
    if max(stored, loaded) > lines + START_CYCLES:
        raise StreamError(f"a STORE of {lines} lines took {stored} cycles, a LOAD {loaded}")
    # A single bank serves one of them in a cycle.
    shared = lines if bench.config.lxe.banks == 1 else 0
    if max(together) > max(alone, stored, loaded) + shared + START_CYCLES:
        raise StreamError(f"a VECTOR of {alone} cycles took {together} with another instruction")
    bench.dump()
    await bench.drain()


@case(make)
async def late_weights(bench: LxeBench) -> None:
    """The counter of waiting for weights follows those on din, and stays where none are missing."""
    bench.fill("normal")
    await bench.drain()
    trees = bench.config.dpe.trees
    for profile, late in (("none", False), ("heavy", True)):
        bench.stall("none")
        bench.sources["din"].stalls.profile = PROFILES[profile]
        before, columns = bench.number("no_weights"), bench.random.random() < 0.5
        bench.gemm(1, 1, 3 * CHUNK, trees, columns=columns)
        await bench.drain()
        waited = bench.number("no_weights") - before
        least = 3 * (CHUNK if columns else trees * bench.config.dpe.beats)
        if late == (waited <= least):
            raise StreamError(f"no_weights says {waited} cycles of {least} beats, {profile} held back")


@case(make)
async def unreported(bench: LxeBench) -> None:
    """More programs than may end while nobody takes their completions."""
    bench.fill("normal")
    await bench.drain()
    bench.stall("none")
    bench.sinks["cpl"].stalls.profile = Profile(1.0, 1)
    store = Instruction(opcode=Opcode.STORE, length=bench.inputs)
    move = replace(store, opcode=Opcode.VECTOR, function=vpe.Function.COPY, o=Operand(bench.slot))
    for _ in range(OPEN):
        for i in (store, move):
            bench.run([i], [np.zeros((0, bench.inputs), dtype=np.uint16)])
    await bench.steps(200 * OPEN)
    bench.coverage.hit("many programs wait for their report", bench.sinks["cpl"].expected)
    bench.stall("none")
    bench.dump()
    await bench.drain()


@case(make)
async def reset(bench: LxeBench) -> None:
    """Reset at random moments of a program; what follows must not notice."""
    for _ in range(scaled(6, 2)):
        bench.stall("light")
        bench.fill("normal")
        await bench.drain()
        bench.gemm(2, 1, 2 * CHUNK, 2 * bench.config.dpe.trees)
        bench.vector(vpe.Function.EXP, 70, 2, 1)
        await bench.steps(bench.random.randint(5, 200))
        bench.coverage.hit("reset in the middle of a program", bench.sinks["cpl"].expected)
        await bench.reset_in_work()
    bench.fill("normal")
    bench.vector(vpe.Function.RSUM, 70, 2, 1)
    bench.dump()


@case(make)
async def reset_counters(bench: LxeBench) -> None:
    """A reset at any moment of a program: counters and cycles of the next one are equal, bit for bit."""
    lines, inputs, trees = 2 * bench.slot, bench.inputs, bench.config.dpe.trees
    data = np.stack([bench.values(inputs, "normal") for _ in range(lines)])
    none = np.zeros((0, inputs), dtype=np.uint16)
    load = Instruction(opcode=Opcode.LOAD, rows=lines, length=inputs, beats=lines, o=Operand(0, 1))
    given = Instruction(opcode=Opcode.GEMM, inner=CHUNK, length=trees, o=Operand(lines))
    given = replace(given, beats=instructions.expected_beats(given, bench.config))
    weights = np.stack([bench.values(inputs, "normal") for _ in range(given.beats)])
    vector = Instruction(
        opcode=Opcode.VECTOR,
        function=vpe.Function.EXP,
        length=inputs,
        rows=4,
        a=Operand(0, 1),
        o=Operand(lines + bench.slot, 1),
    )
    store = Instruction(opcode=Opcode.STORE, rows=4, length=inputs, a=Operand(lines + bench.slot, 1))
    program, payload = [load, given, vector, store], [data, weights, none, none]
    bench.stall("none")
    wanted: list[int] = []
    for number in range(1 + scaled(8, 4)):
        bench.run(program, payload)
        await bench.drain()
        found = [bench.cycles[-1], *(bench.number(name) for name in COUNTERS)]
        wanted = wanted or found
        if found != wanted:
            raise StreamError(f"after reset {number} cycles and counters say {found}, not {wanted}")
        bench.run(program, payload)
        await bench.steps(bench.random.randint(1, wanted[0]))
        bench.coverage.hit("counters after a reset in the middle of a program", bench.sinks["cpl"].expected)
        await bench.reset_in_work()
        if any(bench.number(name) for name in COUNTERS):
            raise StreamError(f"a counter is not 0 after reset {number}")


@case(make)
async def ready_and_valid(bench: LxeBench) -> None:
    """No valid depends on a ready of the same cycle."""
    bench.stall("heavy")
    bench.fill("normal")
    bench.dump()
    await bench.check_ready_is_not_seen_by_valid(1500)
