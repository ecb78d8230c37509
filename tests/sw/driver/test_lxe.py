"""The simulated LXE behind the driver; the first run builds simulators of a small one."""

import re
from dataclasses import replace

import numpy as np
import pytest

from vrex.errors import UserError
from vrex.model.commands import Status
from vrex.model.config import Config, DpeConfig, KvmuConfig, LxeConfig, MeanConfig, VpeConfig
from vrex.model.dre import hashing
from vrex.model.lib import arith
from vrex.model.lxe import mac_tree, program, vpe
from vrex.model.lxe.instructions import Instruction, Opcode, Operand
from vrex.model.lxe.program import Program
from vrex.sw.driver import DriverError
from vrex.sw.driver.backends import open_lxe
from vrex.sw.driver.golden import GoldenTransport
from vrex.sw.driver.lxe import LxeEngine
from vrex.sw.driver.products import GoldenProducts, LxeProducts
from vrex.sw.driver.program_interface import CheckedPrograms, Code, ProgramInterface
from vrex.sw.driver.rtl import RtlTransport

CONFIG = Config(
    name="small",
    bus_bits=64,
    kvmu=KvmuConfig(head_dim=16, kv_heads=2),
    mean=MeanConfig(lanes=1),
    dpe=DpeConfig(trees=2, inputs=8, rows=8),
    vpe=VpeConfig(lanes=2),
    lxe=LxeConfig(memory_kib=16, banks=2),
)
SEED = 5


def golden_lxe() -> LxeEngine:
    return LxeEngine(GoldenTransport(ProgramInterface(CONFIG)))


def rtl_lxe() -> LxeEngine:
    return LxeEngine(RtlTransport(ProgramInterface(CONFIG)))


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return arith.to_bf16(rng.standard_normal(shape).astype(np.float32))


def attention(rng: np.random.Generator) -> Program:
    """Softmax attention of random queries on random keys and values."""
    p, rows, n = Program(CONFIG), int(rng.integers(1, 12)), int(rng.integers(1, 20))
    queries, keys, values = normal(rng, rows, 16), normal(rng, n, 16), normal(rng, n, 16)
    scores = p.gemm(p.load(queries), keys, p.tensor(rows, n, bf16=False))
    weights = program.softmax(p, scores, 0.25, p.tensor(rows, n))
    p.store(weights)
    p.store(p.gemm(weights, values, p.tensor(rows, 16, bf16=False), columns=True))
    return p


@pytest.mark.parametrize("stall", [0.0, 0.3])
def test_programs_equal_the_golden_model(stall: float) -> None:
    print(f"seed {SEED}, stall {stall}")
    rng = np.random.default_rng(SEED)
    checked = LxeEngine(CheckedPrograms(RtlTransport(ProgramInterface(CONFIG), stall=stall, seed=SEED)))
    golden = golden_lxe()
    for _ in range(5):
        p = attention(rng)
        found, expected = checked.run(p), golden.run(p)
        for left, right in zip(found.results, expected.results, strict=True):
            np.testing.assert_array_equal(left, right)
    report = checked.report
    assert (report.programs, report.mismatches) == (5, 0)
    assert report.compared > 5
    assert report.cycles > report.multiplying > 0


def test_planted_faults_are_counted() -> None:
    def mutate(text: str) -> str:
        # The write port's enable of the memory's lowest unit is lost.
        text, planted = re.subn(r"if \(write_mask\[0\]\)", "if (1'b0)", text)
        assert planted
        return text

    checked = LxeEngine(CheckedPrograms(RtlTransport(ProgramInterface(CONFIG), mutate=mutate)))
    checked.run(attention(np.random.default_rng(SEED)))
    assert checked.report.mismatches > 0


def refused(lxe: LxeEngine) -> None:
    p = attention(np.random.default_rng(SEED))
    p.instructions[2] = replace(p.instructions[2], o=Operand(CONFIG.lines))
    with pytest.raises(DriverError, match=r"refused instruction 2 of a program with status BAD_ADDRESS: "):
        lxe.run(p)
    lxe.run(attention(np.random.default_rng(SEED)))


def test_a_refusal_is_a_sentence_and_the_next_program_works() -> None:
    refused(golden_lxe())
    checked = LxeEngine(CheckedPrograms(RtlTransport(ProgramInterface(CONFIG))))
    refused(checked)
    assert checked.report.mismatches == 0


def test_no_answer_is_a_sentence_and_the_next_program_works() -> None:
    device = RtlTransport(ProgramInterface(CONFIG), cycle_limit=40)
    load = Instruction(opcode=Opcode.LOAD, rows=100, length=8, beats=100, o=Operand(0, 1), last=True)
    with pytest.raises(DriverError, match="a program of 1 instructions did not end after 40 cycles"):
        device.submit(Code([load], np.zeros((100, 8), dtype=np.uint16)))
    store = Instruction(opcode=Opcode.STORE, length=8, last=True)
    lines, completion = device.submit(Code([store], np.zeros((0, 8), dtype=np.uint16)))
    assert (len(lines), completion.status) == (1, Status.OK)


@pytest.mark.parametrize("n_hp", [8, 32, 40])
def test_hash_bits_and_scores_are_the_golden_ones(n_hp: int) -> None:
    rng = np.random.default_rng(SEED)
    keys, planes = normal(rng, 11, 32), hashing.hyperplanes(0, 0, 0, n_hp, 32)
    q, means = normal(rng, 20, 16), normal(rng, 301, 16)
    q[3, 2] = 0x7FC0
    keys[4, 1] = 0xFF80
    for products in (GoldenProducts(), LxeProducts(golden_lxe()), LxeProducts(rtl_lxe())):
        np.testing.assert_array_equal(products.hashes(keys, planes, 64), hashing.hash_keys(keys, planes, 64))
        np.testing.assert_array_equal(products.scores(q, means), mac_tree.dot_bf16(q, means))
        assert products.scores(q, means[:0]).shape == (20, 0)


def test_nan_is_told() -> None:
    p = Program(CONFIG)
    x = p.load(np.full((1, 8), 0x7FC0, dtype=np.uint16))
    p.store(p.vector(vpe.Function.COPY, p.tensor(1, 8), x))
    for lxe in (golden_lxe(), rtl_lxe()):
        completion = lxe.run(p).completion
        assert (completion.status, completion.nan, completion.nan_index) == (Status.OK, True, 1)


def test_backends() -> None:
    assert isinstance(open_lxe("golden", CONFIG).transport, GoldenTransport)
    with pytest.raises(UserError, match="can't be checked against itself"):
        open_lxe("golden", CONFIG, check=True)
    with pytest.raises(UserError, match="unknown backend 'fpga'; choose golden or rtl"):
        open_lxe("fpga", CONFIG)
