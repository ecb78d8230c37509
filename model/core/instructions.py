"""Programs of a core: their instructions, and the jobs that start them (paper Figure 10).

A program is an array of instructions of 64 bytes. The sequencer takes them in order, executes those of
control itself and hands the others to the engines, each of which works through its own in order:

==========  ===============================================================================================
engine      instructions
==========  ===============================================================================================
LXE         `LXE`
DRE         `DRE`
LOAD        `MOVE` to the LXE's `din`
FEED        `MOVE` to the DRE's `din`
SAVE        `MOVE` from the LXE's `dout` to memory
RESULT      `MOVE` from the DRE's `dout`, and `WRITE`
==========  ===============================================================================================

An engine waits for what it takes from another one; nothing else orders two engines but `WAIT`. So a `MOVE` to
an engine must come before the instruction that takes its data, and what goes through memory needs a `WAIT`
between the instruction that writes and the one that reads. A RETRIEVE holds back what others read from memory
until its scores
come, so the LXE must have them: it needs a `WAIT` for the LXE before it.
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from functools import lru_cache
from typing import Any

from vrex.model.commands import DESCRIPTOR, Descriptor
from vrex.model.config import MOST_CORES, Config
from vrex.model.lib.layout import Field, Layout
from vrex.model.lxe.instructions import INSTRUCTION as LXE_INSTRUCTION
from vrex.model.lxe.instructions import Instruction as LxeInstruction

WORDS = 16
"""32-bit words of an instruction."""

BODY_WORD = 3
"""Word in which the body begins."""

REGISTERS = 16
"""32-bit registers of the sequencer."""

PATCHES = 4
"""Patches of an instruction."""


class Opcode(IntEnum):
    """What an instruction does; every other code is reserved.

    END: the job ends once all engines are idle. COMPUTE: register `destination` = `function`(register `a`,
        b), where b is `immediate`, or register `b` if `use_b`. BRANCH: goes on at instruction `immediate` if
        register `a` meets the condition `function`. READ: register `destination` = the 32-bit word at
        `address`. WRITE: register `a` to that word. WAIT: for the engines of the mask `immediate` to be idle.
        TOKENS: register `destination` = how many tokens of the oldest FETCH or RETRIEVE that is not used up
        may be moved from stream `kv` now: `immediate` of them, fewer at its end, and 0 once behind it.
        DETAIL: register `destination` = `detail` of the last completion of the DRE.
    BARRIER: for a group of `immediate` cores, those of the same quotient of number and `immediate`, to be all
        in theirs. What a core has written before it, its engines SAVE and RESULT idle, the others then read.
    MOVE, LXE, DRE: see `Move`, `vrex.model.lxe.instructions.Instruction` and
        `vrex.model.commands.Descriptor`.
    """

    END = 0
    COMPUTE = 1
    BRANCH = 2
    READ = 3
    WRITE = 4
    WAIT = 5
    TOKENS = 6
    DETAIL = 7
    MOVE = 8
    LXE = 9
    DRE = 10
    BARRIER = 11


class Function(IntEnum):
    """Of COMPUTE, modulo 2^32 and unsigned; the others are reserved."""

    COPY = 0
    ADD = 1
    SUB = 2
    AND = 3
    SHL = 4
    SHR = 5
    MIN = 6


class Condition(IntEnum):
    """Of BRANCH; the others are reserved."""

    ALWAYS = 0
    ZERO = 1
    NONZERO = 2


class Engine(IntFlag):
    """Of WAIT."""

    LXE = 1
    DRE = 2
    LOAD = 4
    FEED = 8
    SAVE = 16
    RESULT = 32


class Port(IntEnum):
    """Where a MOVE takes its rows from, or where it takes them to."""

    MEMORY = 0
    LXE = 1
    DRE = 2
    KV = 3
    NONE = 4


class Mode(IntEnum):
    """What a patch adds its register to; each wraps in its field. The others are reserved."""

    LOW = 0
    HIGH = 1
    WORD = 2
    BYTES = 3
    PAGES = 4


MOVERS = {
    (Port.MEMORY, Port.LXE): Engine.LOAD,
    (Port.KV, Port.LXE): Engine.LOAD,
    (Port.MEMORY, Port.DRE): Engine.FEED,
    (Port.LXE, Port.DRE): Engine.FEED,
    (Port.LXE, Port.MEMORY): Engine.SAVE,
    (Port.DRE, Port.MEMORY): Engine.RESULT,
    (Port.DRE, Port.NONE): Engine.RESULT,
}
"""Engine of a MOVE by source and sink; there are no others."""

GROUPS = tuple(1 << n for n in range(MOST_CORES.bit_length()))
"""How many cores a BARRIER may be for. A group that the chip does not have is never complete."""

SMALL_ROWS = (4, 8, 16)
"""Bytes of rows that may be written to multiples of themselves; others begin with a bus beat."""

PATCH = Layout(
    "PATCH",
    (
        Field("word", 4, "word of the instruction, from `BODY_WORD` on"),
        Field("mode", 3, "LOW 0: bits 15:0, HIGH 1: bits 31:16, WORD 2: the word; 64 bits: BYTES 3, PAGES 4"),
        Field("register", 4, "that is added; PAGES: times 4096"),
        Field("used", 1, "1; 0: nothing is added"),
        Field("reserved", 4),
    ),
)
"""Adds a register to a field of the instruction before it is executed."""

CONTROL = Layout(
    "CONTROL",
    (
        Field("destination", 4, "register that is set"),
        Field("a", 4, "register that is read"),
        Field("b", 4, "register that is read, if `use_b`"),
        Field("function", 4, "COMPUTE: see `Function`; BRANCH: see `Condition`"),
        Field("use_b", 1, "COMPUTE: b is a register, else `immediate`"),
        Field("reserved0", 15),
        Field(
            "immediate",
            32,
            "operand; BRANCH: number of an instruction; WAIT: mask; TOKENS: most tokens; BARRIER: cores",
        ),
        Field("address", 64, "READ, WRITE: of a 32-bit word"),
        Field("reserved1", 288),
    ),
)
"""Body of the instructions of control."""

CODE_BITS = (8, 4)
"""Widths of the codes that a MOVE can make BF16 of (`vrex.model.dre.quant`)."""

CODE_ROWS = 64
"""Most rows of codes of a MOVE, so that the core can keep their scales."""

MOVE = Layout(
    "MOVE",
    (
        Field("source", 4, "MEMORY 0, LXE 1, DRE 2, KV 3"),
        Field("sink", 4, "MEMORY 0, LXE 1, DRE 2, NONE 4"),
        Field("bits", 8, "MEMORY to LXE: 8 or 4: rows are codes, of which BF16 is made; 0: as they are"),
        Field("reserved0", 16),
        Field("bytes", 32, "of a row"),
        Field("pitch", 32, "bytes from a row in memory to the next one"),
        Field("rows", 16, "0: nothing is moved"),
        Field("first", 16, "number of the first row"),
        Field("mask", 16, "2^n - 1; row r lies at address + ((first + r) AND mask) x pitch"),
        Field("step", 16, "codes: from the scale of a row to the next one's, in scales of 2 bytes"),
        Field("address", 64, "of row 0 in memory"),
        Field("scales", 64, "codes: of row 0's scale; that of row r lies at scales + 2 x step x (first + r)"),
        Field("reserved1", 128),
    ),
)
"""Body of MOVE."""

HEAD = Layout(
    "CORE_INSTRUCTION",
    (
        Field("opcode", 8, "see `vrex.model.core.instructions.Opcode`"),
        Field("reserved", 24),
        *(Field(f"patch{n}", PATCH) for n in range(PATCHES)),
    ),
)
"""First words of an instruction; `CONTROL`, `MOVE`, an instruction of the LXE or a descriptor follows."""

PARAMETERS = 12
"""Registers that a job sets."""

JOB = Layout(
    "JOB",
    (
        Field("tag", 16, "returned in the end of the job"),
        Field("sequence", 16, "video stream, below the register SEQUENCES"),
        Field("reserved", 32),
        Field("program", 64, "address of the program, a multiple of 64"),
        *(Field(f"r{n}", 32, f"register {n} at the start") for n in range(PARAMETERS)),
    ),
)
"""A job: 64 bytes."""

JOB_END = Layout(
    "JOB_END",
    (
        Field("tag", 16, "the job's"),
        Field("sequence", 16, "the job's"),
        Field("status", 8, "see `vrex.model.core.instructions.Status`"),
        Field("detail", 8, "LXE_FAILED, DRE_FAILED: status of the engine, else 0"),
        Field("nan", 8, "1 if a result of the LXE was NaN"),
        Field("reserved0", 8),
        Field("index", 32, "number of the instruction that failed, else of END"),
        Field("instructions", 32, "taken by the sequencer"),
        Field("cycles", 64, "from taking the job to its end; 0 in the model"),
        Field("reserved1", 64),
    ),
)
"""How a job ended: 32 bytes."""


class Status(IntEnum):
    """How a job ended. What a job that failed had written by then is not defined; the next one works.

    BAD_INSTRUCTION: a reserved code, a patch of words 0 to 2, a pair of ports that no engine moves between,
        rows of no bytes or of 16 MiB, a mask that is not 2^n - 1, a row that does not begin with a bus beat,
        more TOKENS than the buffer holds, or a BARRIER of a number of cores that is not in `GROUPS`. In a
        MOVE of codes also: bits that are not in `CODE_BITS`, other ports than from MEMORY to LXE, more rows
        than `CODE_ROWS`, rows that wrap (a mask, or `first` + `rows` beyond 2^16), scales at an odd address,
        or a step above the accelerator's KV heads.
    BAD_SEQUENCE: the sequence is not below the register SEQUENCES.
    BAD_ADDRESS: an access outside the windows. BUS_ERROR: memory answered SLVERR or DECERR.
    TIMEOUT: it did not answer. LXE_FAILED, DRE_FAILED: the engine refused or could not execute an
        instruction. BUDGET: more instructions than the register BUDGET allows. STALLED: an engine waits for
        what never comes.
    """

    OK = 0
    BAD_INSTRUCTION = 1
    BAD_SEQUENCE = 2
    BAD_ADDRESS = 3
    BUS_ERROR = 4
    TIMEOUT = 5
    LXE_FAILED = 6
    DRE_FAILED = 7
    BUDGET = 8
    STALLED = 9


@dataclass(frozen=True)
class Patch:
    """A patch: the fields of `PATCH`."""

    word: int
    mode: Mode
    register: int


@dataclass(frozen=True, kw_only=True)
class Control:
    """An instruction of control: the fields of `CONTROL`."""

    destination: int = 0
    a: int = 0
    b: int = 0
    function: int = 0
    use_b: bool = False
    immediate: int = 0
    address: int = 0


@dataclass(frozen=True, kw_only=True)
class Move:
    """Moves rows: the fields of `MOVE`.

    A row is taken and given in whole words of the port: beats of the bus at MEMORY, DRE and KV, lines at LXE,
        where it begins a new line. Bytes of its last beat behind the row are what the source holds there;
        beats that fill up a line are 0. To MEMORY exactly `bytes` bytes are written. A row from KV is a
        token, K and V of one KV head.

    With `bits` a row in memory is packed codes that share a scale, and LXE gets what they stand for
        (`vrex.model.dre.quant.dequantise`), of all codes of the row's last beat; values that fill up a line
        are 0.
    """

    source: int
    sink: int
    bytes: int
    pitch: int = 0
    rows: int = 1
    first: int = 0
    mask: int = 0xFFFF
    address: int = 0
    bits: int = 0
    step: int = 0
    scales: int = 0

    def addresses(self) -> list[int]:
        """Of each row, below 2^48."""
        places = ((self.first + row & self.mask) * self.pitch for row in range(self.rows))
        return [self.address + place & (1 << 48) - 1 for place in places]

    def scale_beats(self, bus_bytes: int) -> tuple[int, int]:
        """Address of the first beat, below 2^48, and number of those that hold the scales of all rows."""
        place = self.scales + 2 * self.first * self.step & (1 << 48) - 1
        before = place % bus_bytes
        size = before + 2 * (self.step * (self.rows - 1) + 1)
        return place - before, -(-size // bus_bytes)


Body = Control | Move | LxeInstruction | Descriptor


@dataclass(frozen=True)
class Instruction:
    """An instruction of a core.

    Attributes:
        opcode: see `Opcode`.
        body: of its kind.
        patches: at most `PATCHES`.
    """

    opcode: int
    body: Body = Control()
    patches: tuple[Patch, ...] = ()

    def pack(self) -> bytes:
        """64 bytes, little-endian.

        Raises:
            struct.error: a field does not fit.
            ValueError: too many patches.
        """
        if len(self.patches) > PATCHES:
            raise ValueError(f"an instruction has at most {PATCHES} patches, not {len(self.patches)}")
        unused = {"word": 0, "mode": 0, "register": 0, "used": 0}
        head: dict[str, Any] = {f"patch{n}": unused for n in range(PATCHES)}
        head |= {f"patch{n}": {**vars(patch), "used": 1} for n, patch in enumerate(self.patches)}
        body = self.body.pack() if isinstance(self.body, LxeInstruction | Descriptor) else _packed(self.body)
        return (HEAD.pack({"opcode": self.opcode, **head}) + body).ljust(4 * WORDS, b"\0")


def _packed(body: Control | Move) -> bytes:
    return (CONTROL if isinstance(body, Control) else MOVE).pack(dataclasses.asdict(body))


def patched(data: bytes, registers: list[int]) -> bytes | None:
    """An instruction's bytes after its patches; None where one is illegal."""
    patches = _patches(data[: HEAD.size])
    if patches is None:
        return None
    for patch in patches:
        data = _added(data, patch.word, patch.mode, registers[patch.register])
    return data


@lru_cache(maxsize=1 << 12)
def _patches(head: bytes) -> tuple[Patch, ...] | None:
    """The patches that an instruction's first words ask for; None where one is illegal."""
    fields = HEAD.unpack(head)
    patches = []
    for n in range(PATCHES):
        patch = fields[f"patch{n}"]
        if not patch["used"]:
            continue
        wide = patch["mode"] in (Mode.BYTES, Mode.PAGES)
        if patch["mode"] not in Mode.__members__.values() or not BODY_WORD <= patch["word"] < WORDS - wide:
            return None
        patches.append(Patch(patch["word"], Mode(patch["mode"]), patch["register"]))
    return tuple(patches)


def _added(data: bytes, word: int, mode: Mode, value: int) -> bytes:
    first, size = 4 * word, 4
    if mode in (Mode.LOW, Mode.HIGH):
        first, size = first + 2 * (mode == Mode.HIGH), 2
    elif mode in (Mode.BYTES, Mode.PAGES):
        size = 8
        value <<= 12 * (mode == Mode.PAGES)
    total = int.from_bytes(data[first : first + size], "little") + value
    changed = (total & (1 << 8 * size) - 1).to_bytes(size, "little")
    return data[:first] + changed + data[first + size :]


@lru_cache(maxsize=1 << 14)
def unpack_body(data: bytes) -> Body:
    """The body of an instruction that has a known opcode."""
    opcode, body = data[0], data[4 * BODY_WORD :]
    if opcode == Opcode.LXE:
        return LxeInstruction.unpack(body[: LXE_INSTRUCTION.size])
    if opcode == Opcode.DRE:
        return Descriptor.unpack(body[: DESCRIPTOR.size])
    if opcode == Opcode.MOVE:
        return Move(**MOVE.unpack(body))
    values = CONTROL.unpack(body)
    return Control(**{**values, "use_b": bool(values["use_b"])})


def check(opcode: int, body: Body, config: Config) -> Status:
    """Whether the sequencer takes an instruction; the engines check their own."""
    if opcode not in Opcode.__members__.values():
        return Status.BAD_INSTRUCTION
    right = True
    if isinstance(body, Move):
        right = _check_move(body, config)
    elif isinstance(body, Control):
        right = {
            Opcode.COMPUTE: body.function in Function.__members__.values(),
            Opcode.BRANCH: body.function in Condition.__members__.values(),
            Opcode.TOKENS: 1 <= body.immediate <= config.core.kv_tokens,
            Opcode.READ: body.address % 4 == 0,
            Opcode.WRITE: body.address % 4 == 0,
            Opcode.BARRIER: body.immediate in GROUPS,
        }.get(Opcode(opcode), True)
    return Status.OK if right else Status.BAD_INSTRUCTION


def _check_move(move: Move, config: Config) -> bool:
    ports = (move.source, move.sink)
    if ports not in MOVERS or not 0 < move.bytes < 1 << 24 or move.mask & (move.mask + 1):
        return False
    if move.source == Port.KV and move.bytes != config.kvmu.token_bytes:
        return False
    if move.bits and not _check_codes(move, config):
        return False
    if Port.MEMORY not in ports:
        return True
    small = move.sink == Port.MEMORY and move.bytes in SMALL_ROWS and move.bytes < config.bus_bytes
    unit = move.bytes if small else config.bus_bytes
    return move.address % unit == 0 and move.pitch % unit == 0


def _check_codes(move: Move, config: Config) -> bool:
    ports, whole = (move.source, move.sink), (1 << 16) - 1
    right = ports == (Port.MEMORY, Port.LXE) and move.bits in CODE_BITS and move.scales % 2 == 0
    right &= move.mask == whole and move.first + move.rows <= whole + 1
    return right and move.rows <= CODE_ROWS and move.step <= config.kvmu.kv_heads


def pack_program(program: Iterable[Instruction]) -> bytes:
    """The bytes of a program."""
    return b"".join(instruction.pack() for instruction in program)
