"""The LXE's model against numpy on the tensors that its instructions name."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_dtypes import bfloat16

from vrex.model.commands import Status
from vrex.model.config import PRESETS, Config, DpeConfig, LxeConfig, VpeConfig
from vrex.model.lib import arith
from vrex.model.lxe import dpe, vpe
from vrex.model.lxe.instructions import Instruction, Opcode, Operand
from vrex.model.lxe.lxe import Lxe

TINY = PRESETS["tiny"]
NOTHING = np.zeros((0, 16), dtype=np.uint16)


def bf16(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, dtype=np.float32).astype(bfloat16).view(np.uint16)


def filled(config: Config = TINY, seed: int = 0) -> Lxe:
    """A memory of BF16 normals."""
    lxe = Lxe(config)
    rng = np.random.default_rng(seed)
    lxe.memory[:] = bf16(rng.standard_normal(lxe.memory.shape))
    return lxe


def run(lxe: Lxe, *program: Instruction, payload: np.ndarray = NOTHING) -> np.ndarray:
    lines, completion = lxe.run(program, payload)
    assert completion.status == Status.OK, completion
    return lines


def test_load_and_store_go_row_by_row_and_group_by_group() -> None:
    lxe = Lxe(TINY)
    data = np.arange(12 * 16, dtype=np.uint16).reshape(12, 16)
    place = Operand(5, 4, 100)
    load = Instruction(opcode=Opcode.LOAD, rows=3, groups=2, length=17, beats=12, o=place)
    run(lxe, load, payload=data)
    for row, line in enumerate((5, 9, 13, 105, 109, 113)):
        np.testing.assert_array_equal(lxe.memory[line : line + 2], data[2 * row : 2 * row + 2])
    assert np.count_nonzero(lxe.memory) == np.count_nonzero(data)
    store = Instruction(opcode=Opcode.STORE, rows=3, groups=2, length=17, a=place)
    np.testing.assert_array_equal(run(lxe, store), data)


@pytest.mark.parametrize("resident", [False, True])
@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("rounded", [False, True])
def test_gemm_is_a_product(resident: bool, columns: bool, rounded: bool) -> None:
    lxe = filled()
    m, k, n = 6, 70, 19
    x = lxe.memory[: 6 * 5].reshape(6, 80)[:, :k]
    stored = lxe.memory[1000 : 1000 + 70 * 5].reshape(70, 80)
    w = stored[:k, :n].T if columns else stored[:n, :k]
    beats = NOTHING
    if not resident:
        beats = (dpe.column_beats if columns else dpe.weight_beats)(w, TINY.dpe)
    i = Instruction(
        opcode=Opcode.GEMM,
        bf16=7 | rounded << 3,
        resident=resident,
        columns=columns,
        rows=3,
        groups=2,
        inner=k,
        length=n,
        beats=len(beats),
        a=Operand(0, 5, 15),
        b=Operand(1000, 5) if resident else Operand(),
        o=Operand(3000, 8, 4),
    )
    exact = arith.from_bf16(x).astype(np.float64) @ arith.from_bf16(w).astype(np.float64).T
    run(lxe, i, payload=beats)
    rows = [3000, 3008, 3016, 3004, 3012, 3020]
    assert m == len(rows)
    for row, line in zip(exact, rows, strict=True):
        found = lxe.memory[line : line + 4].reshape(-1)
        values = arith.from_bf16(found[:32]) if rounded else found.view("<u4").view(np.float32)
        np.testing.assert_allclose(values[:n], row, atol=0.1 if rounded else 1e-4)
        assert not values[n:32].any()


@settings(deadline=None, max_examples=40)
@given(
    function=st.sampled_from(list(vpe.OPERATIONS)),
    length=st.integers(1, 70),
    formats=st.integers(0, 15),
    scalar=st.integers(0, 3),
)
def test_vector_is_the_vector_engines_operation(
    function: vpe.Function, length: int, formats: int, scalar: int
) -> None:
    lxe = filled()
    rows, strides = 2, {"a": 20, "b": 21, "c": 22}
    operands = []
    for place, name in enumerate(vpe.OPERANDS.get(function, "a")):
        index = "abc".index(name)
        base = lxe.memory[200 * index : 200 * index + rows * strides[name]]
        halves = base.reshape(rows, -1)
        count = 1 if place and scalar >> "bc".index(name) & 1 else length
        if formats >> index & 1:
            operands.append(arith.from_bf16(halves[:, :count]))
        else:
            operands.append(np.ascontiguousarray(halves[:, : 2 * count]).view("<u4").view(np.float32))
    with np.errstate(all="ignore"):
        expected = vpe.OPERATIONS[function](*operands)
    width = 1 if function in vpe.REDUCTIONS else length
    i = Instruction(
        opcode=Opcode.VECTOR,
        function=function,
        bf16=formats,
        scalar=scalar,
        rows=rows,
        length=length,
        a=Operand(0, strides["a"]),
        b=Operand(200, strides["b"]),
        c=Operand(400, strides["c"]),
        o=Operand(900, 30),
    )
    before = lxe.memory.copy()
    _, completion = lxe.run([i], NOTHING)
    assert completion.status == Status.OK
    assert completion.nan == np.isnan(expected).any()
    written = -(-width // 4) * 4
    for row in range(rows):
        found = lxe.memory[900 + 30 * row : 930 + 30 * row].reshape(-1)
        if formats >> 3:
            np.testing.assert_array_equal(found[:width], arith.to_bf16(np.broadcast_to(expected[row], width)))
        else:
            bits = np.broadcast_to(expected[row], width).astype(np.float32).view(np.uint32)
            np.testing.assert_array_equal(found[: 2 * width].view("<u4"), bits)
        end = written * (1 if formats >> 3 else 2)
        assert not found[width * (1 if formats >> 3 else 2) : end].any()
        old = before[900 + 30 * row : 930 + 30 * row].reshape(-1)
        np.testing.assert_array_equal(found[end:], old[end:])


def test_sign_packs_hash_bits() -> None:
    lxe = filled()
    i = Instruction(
        opcode=Opcode.VECTOR, function=vpe.Function.SIGN, length=40, rows=2, a=Operand(0, 3), o=Operand(50, 1)
    )
    run(lxe, i)
    for row in range(2):
        bits = arith.from_bf16(lxe.memory[3 * row : 3 * row + 3].reshape(-1)[:40]) > 0
        words = lxe.memory[50 + row].view("<u4")
        assert [int(words[k // 32]) >> k % 32 & 1 for k in range(40)] == bits.tolist()


def test_a_fault_ends_the_program_and_the_next_one_works() -> None:
    lxe = filled()
    before = lxe.memory.copy()
    store = Instruction(opcode=Opcode.STORE, length=16)
    load = Instruction(opcode=Opcode.LOAD, length=16, beats=1, o=Operand(7))
    data = np.full((2, 16), 0x3F80, dtype=np.uint16)
    lines, completion = lxe.run([store, replace(store, rows=0, beats=1), load], data)
    assert (completion.status, completion.index) == (Status.BAD_COUNT, 1)
    np.testing.assert_array_equal(lines, before[:1])
    np.testing.assert_array_equal(lxe.memory, before)
    run(lxe, load, payload=data[:1])
    np.testing.assert_array_equal(lxe.memory[7], data[0])


def test_the_first_nan_is_named() -> None:
    lxe = Lxe(TINY)
    lxe.memory[3] = 0x7FC0
    copy = Instruction(opcode=Opcode.VECTOR, function=vpe.Function.COPY, length=16, o=Operand(9))
    spoilt = replace(copy, a=Operand(3))
    _, completion = lxe.run([copy, spoilt, spoilt], NOTHING)
    assert (completion.status, completion.nan, completion.nan_index) == (Status.OK, True, 1)
    _, completion = lxe.run([copy], NOTHING)
    assert (completion.nan, completion.nan_index) == (False, 0)


def test_columns_that_do_not_count_make_no_nan() -> None:
    """An infinity times the zeros that fill the last tile."""
    lxe = Lxe(TINY)
    lxe.memory[0] = 0x7F80
    lxe.memory[1] = 0x3F80
    i = Instruction(opcode=Opcode.GEMM, resident=True, inner=16, length=1, b=Operand(1), o=Operand(2))
    _, completion = lxe.run([i], NOTHING)
    assert not completion.nan
    np.testing.assert_array_equal(lxe.memory[2], [0x7F80] + [0] * 15)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dpe": DpeConfig(trees=16, inputs=8)}, "must not exceed dpe.inputs"),
        ({"vpe": VpeConfig(lanes=32)}, "must not exceed dpe.inputs"),
        (
            {"lxe": LxeConfig(memory_kib=2049)},
            "lxe.memory_kib must be whole lines of 2 x dpe.inputs bytes in all banks",
        ),
    ],
)
def test_configurations_that_fit_no_memory(change: dict[str, Any], message: str) -> None:
    config = replace(TINY, **change)
    with pytest.raises(ValueError, match=message):
        Lxe(config)


@pytest.mark.parametrize(("name", "value"), [("memory_kib", 0), ("memory_kib", 1.5), ("banks", 3)])
def test_memories_that_there_can_not_be(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"lxe.{name}"):
        LxeConfig(**{name: value})
