"""The assembler: what it makes runs on the golden core, so memory says whether it is right."""

from dataclasses import replace

import numpy as np
import pytest

from vrex.model.config import preset
from vrex.model.core.core import Core, Job, JobEnd, Limits
from vrex.model.core.instructions import MOVE, Condition, Engine, Function, Opcode, Port, Status, pack_program
from vrex.model.core.program import Address, CoreProgram, Label, Pool, Register, _split
from vrex.model.lib import arith
from vrex.model.lib.memory import PAGE, Memory, Window
from vrex.model.lxe import dpe

CONFIG = preset("small")
WINDOW = Window(16, 64)
PROGRAM, POOL, DATA = 16 * PAGE, 24 * PAGE, 48 * PAGE


def pool() -> Pool:
    return Pool(POOL, 16 * PAGE)


def run(p: CoreProgram, memory: Memory, *parameters: int) -> JobEnd:
    """Executes a program, to which END is added."""
    p.end()
    memory.write(PROGRAM, pack_program(p.assemble()))
    for address, data in p.pool.take():
        memory.write(address, data)
    return Core(p.config, memory, Limits(device=WINDOW)).run(Job(program=PROGRAM, parameters=parameters))


def new_memory() -> Memory:
    return Memory(WINDOW, Window(0, 0))


def words(memory: Memory, count: int) -> list[int]:
    return np.frombuffer(memory.read(DATA, 4 * count), dtype="<u4").tolist()


def test_products_with_constants_and_rounding_up() -> None:
    factors = [1, 2, 3, 5, 8, 44, 96, 511, 512, 4097]
    units = [1, 8, 64]
    p, memory = CoreProgram(CONFIG, pool(), 1), new_memory()
    with p.registers(1) as [result]:
        for n, factor in enumerate(factors):
            p.multiply(result, Register(0), factor)
            p.write(Address(DATA + 4 * n), result)
        for n, unit in enumerate(units, len(factors)):
            p.round_up(result, Register(0), unit)
            p.write(Address(DATA + 4 * n), result)
    assert run(p, memory, 1234).status == Status.OK
    expected = [1234 * factor for factor in factors] + [-(-1234 // unit) * unit for unit in units]
    assert words(memory, len(expected)) == expected


def test_loops_and_branches() -> None:
    """The sum of 1 to n, for n of 0 too."""
    for n in (0, 1, 7):
        p, memory = CoreProgram(CONFIG, pool(), 1), new_memory()
        with p.registers(1) as [total]:
            p.set(total, 0)
            left = Register(0)
            with p.unless_zero(left), p.while_nonzero(left):
                p.compute(Function.ADD, total, total, left)
                p.compute(Function.SUB, left, left, 1)
            behind = Label()
            p.branch(behind)
            p.set(total, 99)
            p.place(behind)
            p.write(Address(DATA), total)
        assert run(p, memory, n).status == Status.OK
        assert words(memory, 1) == [n * (n + 1) // 2]


def test_addresses_and_fields_come_from_registers() -> None:
    """Rows of a ring are copied through the LXE: page, first row and number of rows are the job's."""
    rng = np.random.default_rng(1)
    ring = rng.integers(0, 1 << 16, (8, 32), dtype=np.uint16)
    p, memory = CoreProgram(CONFIG, pool(), 3), new_memory()
    page, first, rows = (Register(n) for n in range(3))
    target = p.tensor(8, 32)
    with p.registers(1) as [lines]:
        p.multiply(lines, rows, 2)
        p.move(
            Port.MEMORY, Port.LXE, Address(64, pages=page), bytes=64, pitch=64, rows=rows, first=first, mask=7
        )
        with p.variable({"rows": rows, "beats": lines}):
            p.receive(target)
        p.move(Port.LXE, Port.MEMORY, Address(DATA, bytes=lines), bytes=64, pitch=64, rows=rows + 0)
        with p.variable({"rows": rows}):
            p.store(target)
    memory.write(40 * PAGE + 64, ring.astype("<u2").tobytes())
    assert run(p, memory, 40, 6, 4).status == Status.OK
    copied = np.frombuffer(memory.read(DATA + 8, 4 * 64), dtype="<u2").reshape(4, 32)
    np.testing.assert_array_equal(copied, ring[[6, 7, 0, 1]])


@pytest.mark.parametrize("rows", [1, 5, 40])
def test_products_from_the_pool_and_from_memory(rows: int) -> None:
    """Up to more rows than the DPE takes at once; weights from the pool, from memory, and resident."""
    rng = np.random.default_rng(rows)
    x, w = (arith.to_bf16(rng.standard_normal(size).astype(np.float32)) for size in ((rows, 80), (48, 80)))
    p, memory = CoreProgram(CONFIG, pool(), 1), new_memory()
    at = 56 * PAGE
    memory.write(at, dpe.weight_beats(w, CONFIG.dpe).astype("<u2").tobytes())
    left = p.load(x)
    targets = [
        p.gemm(left, w, p.tensor(rows, 48)),
        p.stream_gemm(left, Address(at), p.tensor(rows, 48)),
        p.tensor(rows, 48),
    ]
    resident = p.load(w)
    with p.variable({"length": Register(0)}):
        p.gemm(left, resident, targets[2])
    for n, target in enumerate(targets):
        p.move(Port.LXE, Port.MEMORY, Address(DATA + 96 * rows * n), bytes=96, pitch=96, rows=rows)
        p.store(target)
    assert run(p, memory, 21).status == Status.OK
    found = np.frombuffer(memory.read(DATA, 3 * 96 * rows), dtype="<u2").reshape(3, rows, 48)
    expected = dpe.gemm(x, w, CONFIG.dpe, bf16=True)
    np.testing.assert_array_equal(found[0], expected)
    np.testing.assert_array_equal(found[1], expected)
    np.testing.assert_array_equal(found[2, :, :21], expected[:, :21])


def test_rows_are_stored_repeatedly() -> None:
    values = np.arange(3 * 16, dtype=np.uint16).reshape(3, 16)
    p, memory = CoreProgram(CONFIG, pool(), 1), new_memory()
    tensor = p.load(values)
    p.move(Port.LXE, Port.MEMORY, Address(DATA), bytes=32, pitch=32, rows=12)
    with p.variable({"rows": Register(0)}):
        p.store_repeatedly(tensor)
    assert run(p, memory, 4).status == Status.OK
    found = np.frombuffer(memory.read(DATA, 12 * 32), dtype="<u2").reshape(12, 16)
    np.testing.assert_array_equal(found, values.repeat(4, axis=0))


def test_constants_are_in_memory_once_and_kept_ones_are_loaded_once() -> None:
    shared = pool()
    one = np.ones((1, 1), dtype=np.float32)
    programs = [CoreProgram(CONFIG, shared) for _ in range(2)]
    for p in programs:
        kept = p.keep(one)
        assert p.load(one.copy()) is kept
        assert p.load(one.view(np.uint32).astype(np.float32)) is not kept
    assert len(shared.take()) == 2
    moves = [i for i in programs[0].assemble() if i.opcode == Opcode.MOVE]
    assert len(moves) == 2


def test_long_streams_are_rows_of_a_mebibyte() -> None:
    p = CoreProgram(CONFIG, pool())
    p.stream(Address(PAGE), (5 << 20) + 64)
    bodies = [i.body for i in p.assemble()]
    assert [(b.rows, b.bytes, b.address) for b in bodies] == [  # type: ignore[union-attr]
        (5, 1 << 20, PAGE),
        (1, 64, PAGE + (5 << 20)),
    ]


def test_mistakes_are_sentences() -> None:
    p = CoreProgram(CONFIG, pool(), 12)
    with pytest.raises(ValueError, match="5 registers are wanted, but 4 are free"), p.registers(5):
        pass
    with pytest.raises(ValueError, match="takes a register as it is"):
        p.write(Address(DATA), Register(1, plus=2))
    with pytest.raises(ValueError, match="can't be computed by shifts and sums"):
        p.multiply(Register(1), Register(1), 3)
    with pytest.raises(ValueError, match="MOVE has no field source that a register can be added to"):
        _split({"source": Register(1)}, MOVE)
    with pytest.raises(ValueError, match="room for 4 registers, not 5"):
        p.move(
            Port.MEMORY,
            Port.LXE,
            Address(pages=Register(0), bytes=Register(1)),
            bytes=Register(2),
            rows=Register(3),
            first=Register(4),
        )
    p.branch(Label(), Condition.ALWAYS)
    with pytest.raises(ValueError, match="label of branch 0 is set nowhere"):
        p.assemble()
    with pytest.raises(ValueError, match="need 64 bytes more than there are"):
        Pool(0, 64).add(bytes(65))
    with pytest.raises(ValueError, match="must be whole bus beats"):
        CoreProgram(replace(CONFIG, bus_bits=512), pool())


def test_waiting_for_what_never_comes_stalls() -> None:
    p, memory = CoreProgram(CONFIG, pool()), new_memory()
    p.move(Port.LXE, Port.MEMORY, Address(DATA), bytes=32)
    p.wait(Engine.SAVE)
    end = run(p, memory)
    assert (end.status, end.index) == (Status.STALLED, 1)
