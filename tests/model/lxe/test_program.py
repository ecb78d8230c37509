"""Programs against the vector engine's own functions and float64."""

import numpy as np
import pytest

from vrex.model.config import PRESETS
from vrex.model.lib import arith
from vrex.model.lxe import program, vpe
from vrex.model.lxe.lxe import Lxe
from vrex.model.lxe.program import Program, Tensor

NAMES = ("tiny", "ulx3s", "edge")


def results(p: Program) -> list[np.ndarray]:
    instructions, payload = p.finish()
    lines, completion = Lxe(p.config).run(instructions, payload)
    assert completion.status == 0, completion
    return p.outputs(lines)


def normal(seed: int, *shape: int, scale: float = 1.0) -> np.ndarray:
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


@pytest.mark.parametrize("name", NAMES)
def test_softmax_is_the_vector_engines(name: str) -> None:
    scores = arith.to_bf16(normal(1, 5, 77, scale=20))
    p = Program(PRESETS[name])
    x = p.load(scores)
    p.store(program.softmax(p, x, 0.125, p.tensor(5, 77)))
    wide = p.vector(vpe.Function.COPY, p.tensor(5, 77, bf16=False), x)
    p.store(program.softmax(p, wide, 0.125, p.tensor(5, 77)))
    expected = vpe.softmax_row(scores, 0.125)
    for found in results(p):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", NAMES)
def test_rms_norm_and_silu_are_the_vector_engines(name: str) -> None:
    x, weight = arith.to_bf16(normal(2, 3, 200)), arith.to_bf16(normal(3, 200))
    p = Program(PRESETS[name])
    tensor = p.load(x)
    p.store(program.rms_norm(p, tensor, p.load(weight[None]), 1e-5, p.tensor(3, 200)))
    p.store(program.silu(p, tensor, p.tensor(3, 200)))
    norm, gated = results(p)
    np.testing.assert_array_equal(norm, vpe.rms_norm(x, weight, 1e-5))
    np.testing.assert_array_equal(gated, vpe.silu(x))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("columns", [False, True])
def test_products_of_more_rows_than_the_dpe_holds(name: str, columns: bool) -> None:
    x, w = (
        arith.to_bf16(normal(4, 70, 100)),
        arith.to_bf16(normal(5, 100, 40) if columns else normal(5, 40, 100)),
    )
    p = Program(PRESETS[name])
    tensor = p.load(x)
    p.store(p.gemm(tensor, w, p.tensor(70, 40, bf16=False), columns=columns))
    p.store(p.gemm(tensor, p.load(w), p.tensor(70, 40, bf16=False), columns=columns))
    right = arith.from_bf16(w) if columns else arith.from_bf16(w).T
    exact = arith.from_bf16(x).astype(np.float64) @ right.astype(np.float64)
    given, resident = results(p)
    np.testing.assert_allclose(given, exact, atol=2e-4)
    np.testing.assert_array_equal(given, resident)


def test_scratch_is_free_again_and_a_full_memory_is_a_sentence() -> None:
    p = Program(PRESETS["tiny"])
    before = p.free
    with p.scratch():
        p.tensor(10, 100)
        assert p.free < before
    assert p.free == before
    with pytest.raises(
        ValueError, match=r"1000 rows of 16000 elements need 1000000 lines, but 12288 of the 12288"
    ):
        p.tensor(1000, 16000)


def test_columns_begin_with_a_line() -> None:
    p = Program(PRESETS["tiny"])
    x = p.tensor(2, 64, bf16=False)
    assert p.columns(x, 8, 56) == Tensor(x.base + 1, x.stride, 2, 56, bf16=False)
    with pytest.raises(ValueError, match="column 4 does not begin a line of 16 values in preset tiny"):
        p.columns(x, 4, 8)


def test_misfits_are_refused() -> None:
    p = Program(PRESETS["tiny"])
    x, w = p.tensor(3, 32), np.zeros((5, 33), dtype=np.uint16)
    with pytest.raises(ValueError, match=r"\(5, 33\) weights do not lead from 32 to 5 elements a row"):
        p.gemm(x, w, p.tensor(3, 5))
    with pytest.raises(ValueError, match="shares lines with the operand"):
        p.gemm(x, w[:, :32], p.columns(x, 16, 5))
    with pytest.raises(ValueError, match="MUL has operands ab, not a"):
        p.vector(vpe.Function.MUL, x, x)
    with pytest.raises(ValueError, match="operand c of ADD does not fit"):
        p.vector(vpe.Function.ADD, x, x, c=p.tensor(3, 31))
    with pytest.raises(ValueError, match="operand c of ADD does not fit"):
        p.vector(vpe.Function.ADD, x, x, c=p.tensor(2, 32))
    with pytest.raises(ValueError, match="shares lines with the operand"):
        p.vector(vpe.Function.COPY, Tensor(x.base, x.stride, 3, 32, bf16=False), x)
    assert not p.instructions
    # Other columns of the same rows are other lines.
    p.vector(vpe.Function.COPY, p.columns(x, 0, 16), p.columns(x, 16, 16))
    p.vector(vpe.Function.COPY, x, x)
