"""Rows of codes to the LXE: against fractions, a value at a time."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from vrex.model.config import Config, preset
from vrex.model.core.core import Core, Job, JobEnd, Limits
from vrex.model.core.instructions import CODE_ROWS, MOVE, Move, Port, Status, check, pack_program
from vrex.model.core.instructions import Opcode as CoreOpcode
from vrex.model.core.program import Address, CoreProgram, Pool, Register
from vrex.model.lib.memory import PAGE, Memory, Window

CONFIG = preset("small")
WINDOW = Window(16, 64)
PROGRAM, POOL, CODES, SCALES, OUTPUT = (page * PAGE for page in (16, 24, 40, 50, 60))
INFINITY, NAN = 0x7F80, 0x7FC0


def magnitude_of(bits: int) -> Fraction:
    """Of a finite BF16."""
    exponent, fraction = bits >> 7 & 255, bits & 127
    return Fraction(fraction + 128 * (exponent > 0)) * Fraction(2) ** (max(exponent, 1) - 134)


def rounded(value: Fraction) -> int:
    """BF16 bits of a magnitude, to the nearest, ties to even."""
    exponent = 0
    while value >= Fraction(2) ** (exponent + 1 - 127) and exponent < 255:
        exponent += 1
    unit = Fraction(2) ** (max(exponent, 1) - 134)
    steps = math.floor(value / unit)
    rest = value / unit - steps
    steps += rest > Fraction(1, 2) or (rest == Fraction(1, 2) and steps % 2)
    return min((max(exponent, 1) - 1) * 128 + steps, INFINITY)


def expected(code: int, scale: int) -> int:
    """BF16 bits of code * scale."""
    sign = (scale >> 15 ^ (code < 0)) << 15
    if scale & 0x7FFF >= INFINITY:
        return NAN if scale & 127 or code == 0 else sign | INFINITY
    return sign | rounded(abs(code) * magnitude_of(scale & 0x7FFF))


def codes_of(data: bytes, bits: int) -> list[int]:
    """Signed codes, the first of two in the lower half of a byte."""
    raw = list(data) if bits == 8 else [half for byte in data for half in (byte & 15, byte >> 4)]
    return [code - (1 << bits) * (code >> bits - 1) for code in raw]


def run(p: CoreProgram, memory: Memory, *parameters: int) -> JobEnd:
    p.end()
    memory.write(PROGRAM, pack_program(p.assemble()))
    return Core(p.config, memory, Limits(device=WINDOW)).run(Job(program=PROGRAM, parameters=parameters))


def odd_scales(rng: np.random.Generator, count: int) -> np.ndarray:
    """Zero, subnormal, ordinary, huge, infinite and NaN ones of both signs."""
    special = np.array([0, 1, 0x7F, 0x80, 0x7F7F, INFINITY, NAN, 0x7F81, 0x3F80], dtype=np.uint16)
    drawn = rng.integers(0x3800, 0x4100, count, dtype=np.uint16)
    picked = np.where(rng.random(count) < 0.3, special[rng.integers(0, len(special), count)], drawn)
    return picked | rng.integers(0, 2, count, dtype=np.uint16) << 15


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(
    "config", [CONFIG, replace(CONFIG, dpe=replace(CONFIG.dpe, inputs=32), bus_bits=128)], ids=["64", "128"]
)
@pytest.mark.parametrize(("rows", "first", "heads", "step"), [(1, 0, 1, 1), (64, 64, 2, 2), (7, 3, 2, 0)])
def test_values_are_the_products_rounded_once(
    bits: int, config: Config, rows: int, first: int, heads: int, step: int
) -> None:
    """Rows of one head of a table, from a row on that a register says, as many as another one says."""
    rng = np.random.default_rng([bits, rows, config.bus_bits])
    dim = 64
    size = dim * bits // 8
    codes = rng.integers(0, 256, ((first + rows) * heads, size), dtype=np.uint8)
    scales = odd_scales(rng, (first + rows) * max(step, 1))
    p, memory = CoreProgram(config, Pool(POOL, 8 * PAGE), 4), Memory(WINDOW, Window(0, 0))
    page, number, begin = (Register(n) for n in range(3))
    target = p.tensor(CODE_ROWS, dim)
    # The second head's codes, and scales that begin behind a beat's first.
    p.move_codes(
        bits, Address((heads - 1) * size, pages=page), Address(SCALES - CODES + 6, pages=page),
        bytes=size, pitch=heads * size, rows=number, first=begin, step=step,
    )  # fmt: skip
    with p.registers(1) as [lines]:
        p.multiply(lines, number, target.stride)
        with p.variable({"rows": number, "beats": lines}):
            p.receive(target)
    p.move(Port.LXE, Port.MEMORY, Address(OUTPUT), bytes=2 * dim, pitch=2 * dim, rows=number)
    with p.variable({"rows": number}):
        p.store(target)
    memory.write(CODES, codes.tobytes())
    memory.write(SCALES + 6, scales.astype("<u2").tobytes())
    assert run(p, memory, CODES // PAGE, rows, first).status == Status.OK
    found = np.frombuffer(memory.read(OUTPUT, 2 * dim * rows), dtype="<u2").reshape(rows, dim)
    for row in range(rows):
        cluster = first + row
        scale = int(scales[cluster * step])
        head = codes[cluster * heads + heads - 1].tobytes()
        assert found[row].tolist() == [expected(code, scale) for code in codes_of(head, bits)], row


def test_rows_that_fill_no_line_end_with_zeros() -> None:
    """A beat of codes is half a line; codes of the last beat behind the row are values as well."""
    p, memory = CoreProgram(CONFIG, Pool(POOL, 8 * PAGE)), Memory(WINDOW, Window(0, 0))
    target = p.tensor(2, 16)
    p.move_codes(8, Address(CODES), Address(SCALES), bytes=5, pitch=8, rows=2, step=1)
    p.receive(target)
    p.move(Port.LXE, Port.MEMORY, Address(OUTPUT), bytes=32, pitch=32, rows=2)
    p.store(target)
    memory.write(CODES, bytes(range(1, 17)))
    memory.write(SCALES, bytes([0x80, 0x3F, 0x00, 0x40]))
    assert run(p, memory).status == Status.OK
    found = np.frombuffer(memory.read(OUTPUT, 64), dtype="<u2").astype(np.uint32) << 16
    values = found.view(np.float32).reshape(2, 16)
    assert values[0].tolist() == [*range(1, 9), *[0] * 8]
    assert values[1].tolist() == [*range(18, 34, 2), *[0] * 8]


CODED = Move(
    source=Port.MEMORY,
    sink=Port.LXE,
    bytes=64,
    pitch=64,
    rows=4,
    address=CODES,
    bits=8,
    step=1,
    scales=SCALES,
)


@pytest.mark.parametrize(
    "change",
    [
        *({"bits": bits} for bits in (1, 2, 5, 12, 16, 255)),
        {"sink": Port.DRE},
        {"source": Port.KV},
        {"rows": CODE_ROWS + 1},
        {"mask": 0x7FFF},
        {"first": 0xFFFD},
        {"scales": SCALES + 1},
        {"step": CONFIG.kvmu.kv_heads + 1},
    ],
    ids=str,
)
def test_what_no_engine_can_do_is_refused(change: dict[str, int]) -> None:
    assert check(CoreOpcode.MOVE, CODED, CONFIG) == Status.OK
    assert check(CoreOpcode.MOVE, replace(CODED, first=0xFFFC, rows=4), CONFIG) == Status.OK
    assert check(CoreOpcode.MOVE, replace(CODED, **change), CONFIG) == Status.BAD_INSTRUCTION
    # Without codes, none of the new fields matters.
    plain = replace(CODED, bits=0, scales=SCALES + 1, step=0xFFFF, rows=CODE_ROWS + 1)
    assert check(CoreOpcode.MOVE, plain, CONFIG) == Status.OK


@pytest.mark.parametrize("field", ["address", "scales"])
def test_codes_and_scales_outside_the_windows_end_the_job(field: str) -> None:
    at = {"address": CODES, "scales": SCALES} | {field: 1 << 40}
    p, memory = CoreProgram(CONFIG, Pool(POOL, 8 * PAGE)), Memory(WINDOW, Window(0, 0))
    p.move_codes(8, Address(at["address"]), Address(at["scales"]), bytes=64, rows=1)
    end = run(p, memory)
    assert (end.status, end.index) == (Status.BAD_ADDRESS, 0)


def test_programs_of_before_mean_what_they_did() -> None:
    """The new fields lie where all bits were 0."""
    plain = MOVE.unpack(MOVE.pack(vars(replace(CODED, bits=0, step=0, scales=0))))
    assert (plain["bits"], plain["step"], plain["scales"]) == (0, 0, 0)
    assert MOVE.size == 52
