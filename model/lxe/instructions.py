"""Instructions of the LXE: their encoding, and the checks that each must pass before it does anything.

Tensors lie in the LXE's memory row by row, and each row starts on a new line. A line holds `dpe.inputs` BF16
values, or half as many FP32 values.
"""

import dataclasses
from dataclasses import dataclass
from enum import IntEnum

from vrex.model.commands import Status
from vrex.model.config import CHUNK, Config
from vrex.model.lib.layout import Field, Layout
from vrex.model.lxe import vpe
from vrex.model.lxe.vpe import HASH_WORD_BITS, OPERANDS, REDUCTIONS

OPERAND = Layout(
    "OPERAND",
    (
        Field("base", 16, "line of the first row"),
        Field("stride", 16, "lines from a row to the next one of its group"),
        Field("group", 16, "lines from a group of rows to the next one"),
    ),
)
"""Where a tensor lies."""

INSTRUCTION = Layout(
    "INSTRUCTION",
    (
        Field("opcode", 8, "LOAD 1, STORE 2, GEMM 3, VECTOR 4"),
        Field("function", 8, "VECTOR: operation of the vector engine (`vrex.model.lxe.vpe.Function`)"),
        Field("bf16", 4, "a, b, c and o are BF16, else FP32; from bit 0 (a and b of GEMM always are)"),
        Field("scalar", 2, "VECTOR: b and c are one element a row; from bit 0"),
        Field("resident", 1, "GEMM: the weights are operand b, else they come on `din`"),
        Field("columns", 1, "GEMM: the weights are [inner, length], else [length, inner]"),
        Field("last", 1, "last instruction of its program"),
        Field("reserved0", 7),
        Field("rows", 16, "rows of the tensors in one group"),
        Field("groups", 16, "groups of rows"),
        Field("inner", 16, "GEMM: terms of a dot product"),
        Field("reserved1", 16),
        Field("length", 24, "elements of a row"),
        Field("reserved2", 8),
        Field("beats", 32, "beats on `din` that belong to the instruction, whatever becomes of it"),
        Field("a", OPERAND, "operand"),
        Field("b", OPERAND, "operand"),
        Field("c", OPERAND, "operand"),
        Field("o", OPERAND, "result"),
    ),
)
"""An instruction: 44 bytes."""

COMPLETION = Layout(
    "PROGRAM_END",
    (
        Field("status", 8, "OK, or what was wrong with instruction `index`; those after it did nothing"),
        Field("nan", 8, "1 if a result was NaN (SIGN: an operand)"),
        Field("index", 16, "number of the instruction that failed, else of the last one, modulo 2^16"),
        Field("nan_index", 16, "number of the first instruction with a NaN, else 0"),
        Field("reserved", 16),
        Field("cycles", 32, "cycles from the first instruction to the end, modulo 2^32; 0 in the model"),
    ),
)
"""The end of a program: 12 bytes."""

MAX_ROWS = MAX_TILES = 0xFFFF
"""Most rows, and most tiles of `dpe.trees` columns, of one instruction."""


class Opcode(IntEnum):
    """Instructions; every other code is reserved."""

    LOAD = 1
    STORE = 2
    GEMM = 3
    VECTOR = 4


@dataclass(frozen=True)
class Operand:
    """Where a tensor lies, in lines: the fields of `OPERAND`."""

    base: int = 0
    stride: int = 0
    group: int = 0

    def lines(self, rows: int, groups: int) -> list[int]:
        """First line of each row, group by group."""
        return [self.base + g * self.group + r * self.stride for g in range(groups) for r in range(rows)]


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """One instruction.

    LOAD: `length` 16-bit values a row from `din` to o; a row begins with a new beat.
    STORE: `length` 16-bit values a row from a to `dout`.
    GEMM: o [rows, length] = a [rows, inner] times the transpose of w [length, inner], or with `columns` times
    w [inner, length]; w is b if it is `resident`, else it comes on `din`
    (`vrex.model.lxe.dpe.weight_beats` or `column_beats`).
        Whole words of `dpe.trees` results are written; those from the length on are 0.
    VECTOR: o = function(a, b, c) on each row of `length` elements (`vrex.model.lxe.vpe`). Whole words of
    `vpe.lanes` results are written; those from the length on are 0. SIGN gives words of 32 hash-bits.

    A VECTOR may write over an operand that has its result's place and format; else no operand may share a
    line with the result. The attributes are the fields of `INSTRUCTION`.
    """

    opcode: int
    function: int = 0
    bf16: int = 0b1111
    scalar: int = 0
    resident: bool = False
    columns: bool = False
    last: bool = False
    rows: int = 1
    groups: int = 1
    inner: int = 0
    length: int = 1
    beats: int = 0
    a: Operand = Operand()
    b: Operand = Operand()
    c: Operand = Operand()
    o: Operand = Operand()

    def pack(self) -> bytes:
        """44 bytes, little-endian.

        Raises:
            struct.error: a field does not fit.
        """
        return INSTRUCTION.pack(dataclasses.asdict(self))

    @classmethod
    def unpack(cls, data: bytes) -> "Instruction":
        """Inverse of `pack`."""
        values = INSTRUCTION.unpack(data)
        for name in ("resident", "columns", "last"):
            values[name] = bool(values[name])
        for name in ("a", "b", "c", "o"):
            values[name] = Operand(**values[name])
        return cls(**values)


@dataclass(frozen=True)
class Completion:
    """How a program ended: the fields of `COMPLETION`."""

    status: int
    index: int
    nan: bool = False
    nan_index: int = 0
    cycles: int = 0

    @classmethod
    def unpack(cls, data: bytes) -> "Completion":
        """From 12 bytes, little-endian."""
        values = COMPLETION.unpack(data)
        return cls(**{**values, "nan": bool(values["nan"])})


@dataclass(frozen=True)
class Access:
    """What an instruction reads or writes of an operand: so many lines of each of its rows."""

    operand: Operand
    rows: int
    groups: int
    lines: int

    @property
    def end(self) -> int:
        """The line after the highest one."""
        top = (self.rows - 1) * self.operand.stride + (self.groups - 1) * self.operand.group
        return self.operand.base + top + self.lines


def lines_of(elements: int, word: int, bf16: bool, config: Config) -> int:
    """Lines of a row of so many elements, read and written in whole words of `word` elements."""
    halves = -(-elements // word) * word * (1 if bf16 else 2)
    return -(-halves // config.dpe.inputs)


def results(instruction: Instruction) -> int:
    """Elements of a row of a VECTOR's result."""
    if instruction.function in REDUCTIONS:
        return 1
    if instruction.function == vpe.Function.SIGN:
        return -(-instruction.length // HASH_WORD_BITS)
    return instruction.length


def result_is_bf16(instruction: Instruction) -> bool:
    """Whether the results are BF16; hash words never are."""
    return bool(instruction.bf16 >> 3) and instruction.function != vpe.Function.SIGN


def accesses(instruction: Instruction, config: Config) -> dict[str, Access]:
    """What a valid instruction reads (`a`, `b`, `c`) and writes (`o`)."""
    i = instruction
    shape = (i.rows, i.groups)
    if i.opcode in (Opcode.LOAD, Opcode.STORE):
        name = "o" if i.opcode == Opcode.LOAD else "a"
        return {name: Access(getattr(i, name), *shape, lines_of(i.length, 1, True, config))}
    if i.opcode == Opcode.GEMM:
        return _gemm_accesses(i, config)
    used = {}
    for place, name in enumerate(OPERANDS.get(vpe.Function(i.function), "a")):
        # Bit 0 of `scalar` is operand b's.
        elements = 1 if place and i.scalar >> "bc".index(name) & 1 else i.length
        bf16 = bool(i.bf16 >> "abc".index(name) & 1)
        used[name] = Access(getattr(i, name), *shape, lines_of(elements, config.vpe.lanes, bf16, config))
    out = lines_of(results(i), config.vpe.lanes, result_is_bf16(i), config)
    return used | {"o": Access(i.o, *shape, out)}


def _gemm_accesses(i: Instruction, config: Config) -> dict[str, Access]:
    trees = config.dpe.trees
    inner = lines_of(i.inner, 1, True, config)
    used = {
        "a": Access(i.a, i.rows, i.groups, inner),
        "o": Access(i.o, i.rows, i.groups, lines_of(i.length, trees, bool(i.bf16 >> 3), config)),
    }
    if i.resident:
        columns = Access(i.b, i.inner, 1, lines_of(i.length, trees, True, config))
        used["b"] = columns if i.columns else Access(i.b, i.length, 1, inner)
    return used


def expected_beats(instruction: Instruction, config: Config) -> int:
    """Beats on `din` of a valid instruction."""
    i, dpe = instruction, config.dpe
    if i.opcode == Opcode.LOAD:
        return i.rows * i.groups * lines_of(i.length, 1, True, config)
    if i.opcode != Opcode.GEMM or i.resident:
        return 0
    return _tiles(i, config) * -(-i.inner // CHUNK) * (CHUNK if i.columns else dpe.trees * dpe.beats)


def _tiles(i: Instruction, config: Config) -> int:
    return -(-i.length // config.dpe.trees)


def check(instruction: Instruction, config: Config) -> Status:
    """Checks an instruction; the first check that fails determines the status.

    BAD_OPCODE: no such opcode, or function of VECTOR. BAD_COUNT: no row, group or element, or more than
    65,535 rows; of GEMM no term, more than `dpe.rows` rows, or more than 65,535 tiles of columns. BAD_LENGTH:
    `beats` is wrong. BAD_ADDRESS: a row that is read or written ends after the last line of the memory.
    """
    i = instruction
    if i.opcode not in Opcode.__members__.values():
        return Status.BAD_OPCODE
    if i.opcode == Opcode.VECTOR and i.function not in vpe.Function.__members__.values():
        return Status.BAD_OPCODE
    gemm = i.opcode == Opcode.GEMM
    if not (i.length and 0 < i.rows * i.groups <= (config.dpe.rows if gemm else MAX_ROWS)):
        return Status.BAD_COUNT
    if gemm and not (i.inner and _tiles(i, config) <= MAX_TILES):
        return Status.BAD_COUNT
    if i.beats != expected_beats(i, config):
        return Status.BAD_LENGTH
    if any(access.end > config.lines for access in accesses(i, config).values()):
        return Status.BAD_ADDRESS
    return Status.OK
