"""EXP, RECIP and RSQRT over all FP32 operands: what docs/numerics.md says of their errors.

A port in C++ makes the scan fast; it must give the model's bits on millions of operands first.
"""

import ctypes
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from vrex.model.lxe import vpe

FUNCTIONS = {"EXP": vpe.exp, "RECIP": vpe.recip, "RSQRT": vpe.rsqrt}
SOURCE = Path(__file__).with_name("functions.cpp")
NUMERICS = Path(__file__).parents[3] / "docs" / "numerics.md"
SEED = 11


def tables() -> ctypes.Array[ctypes.c_float]:
    """The constants in the order of the port's `Tables`."""
    steps = (vpe.EXP_STEPS, vpe.EXP_STEPS_LOW, vpe.EXP_MAGIC)
    constants = np.concatenate([steps, vpe.EXP_TERMS, vpe.EXP_TABLE, vpe.RECIP_SEEDS, vpe.RSQRT_SEEDS])
    return (ctypes.c_float * len(constants))(*constants.tolist())


@pytest.fixture(scope="session")
def port(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    library = tmp_path_factory.mktemp("scan") / "functions.so"
    # Only a processor with FMA scans in minutes; others call the C library's, which rounds the same.
    flags = ["-O2", "-fPIC", "-shared", "-march=native", "-ffp-contract=off", "-fno-fast-math"]
    subprocess.run(["g++", *flags, "-o", library, SOURCE], check=True)
    return ctypes.CDLL(str(library))


def operands(count: int) -> np.ndarray:
    """Of every kind: any bits, around the edges of formats and of the functions' ranges."""
    rng = np.random.default_rng(SEED)
    edges = np.array(
        [0, 0x00800000, 0x3F800000, 0x42B17218, 0x42CE8ED0, 0x43000000, 0x7F800000], dtype=np.int64
    )
    near = (edges[:, None] + np.arange(-2000, 2000)).ravel() & 0x7FFFFFFF
    common = rng.uniform(-104, 89, count).astype(np.float32).view(np.uint32)
    drawn = rng.integers(0, 1 << 32, count, dtype=np.uint32)
    return np.concatenate([drawn, common, near.astype(np.uint32), (near | 1 << 31).astype(np.uint32)])


@pytest.mark.parametrize("count", [200_000, pytest.param(4_000_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_port_gives_the_models_bits(port: ctypes.CDLL, name: str, count: int) -> None:
    drawn = operands(count)
    got = np.empty_like(drawn)
    pointer = ctypes.POINTER(ctypes.c_uint32)
    arrays = [x.ctypes.data_as(pointer) for x in (drawn, got)]
    index = list(FUNCTIONS).index(name)
    port.apply_all(index, tables(), *arrays, ctypes.c_uint64(len(drawn)))
    with np.errstate(all="ignore"):
        expected = FUNCTIONS[name](drawn.view(np.float32))
    np.testing.assert_array_equal(got, vpe.to_bits(expected))


def scanned(port: ctypes.CDLL, name: str) -> tuple[float, int, int, int]:
    """Largest error in ulp, its operand, steps against the function by one ulp, and by more."""

    def scan(sign: int) -> tuple[float, int, int, int]:
        worst, where = ctypes.c_double(), ctypes.c_uint32()
        against, farther = ctypes.c_uint64(), ctypes.c_uint64()
        results = [ctypes.byref(x) for x in (worst, where, against, farther)]
        port.scan(list(FUNCTIONS).index(name), tables(), sign, sign | 0x7F800000, *results)
        return worst.value, where.value, against.value, farther.value

    with ThreadPoolExecutor(2) as pool:
        halves = list(pool.map(scan, [0, 1 << 31]))
    worst, where, *_ = max(halves, key=lambda half: (half[0], -half[1]))
    return worst, where, sum(half[2] for half in halves), sum(half[3] for half in halves)


def documented(name: str) -> tuple[float, int, int]:
    """Error, operand and steps of the function's line in the numeric contract."""
    line = re.search(
        rf"^\| {name} \| ([\d.]+) at `0x(\w+)` \| ([\d,]+) \|", NUMERICS.read_text(), re.MULTILINE
    )
    assert line
    return float(line[1]), int(line[2], 16), int(line[3].replace(",", ""))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_all_operands_err_as_documented(port: ctypes.CDLL, name: str) -> None:
    worst, where, against, farther = scanned(port, name)
    print(f"{name}: {worst:.6f} ulp at {where:08X}, {against} steps of one ulp against it, {farther} of more")
    assert (round(worst, 6), where, against) == documented(name)
    assert farther == 0
