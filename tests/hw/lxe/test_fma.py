"""The fused multiply-add bit for bit: small formats exhaustively, FP32 against the model."""

import os
from pathlib import Path

import numpy as np
import pytest
from amaranth import Module, Signal

from tests.hw.dre.test_formal import with_bug
from tests.hw.lib.test_float32 import nearest, numbers
from tests.model.lxe.test_vpe import triples
from vrex.hw.lib.float32 import Format
from vrex.hw.lxe import fma
from vrex.hw.lxe.fma import Fma
from vrex.hw.tools import verilated
from vrex.model.lxe import vpe

SEED = 12
SMALL = (Format(2, 2), Format(3, 2), Format(2, 3), Format(3, 3))
VECTORS = int(os.environ.get("VREX_FMA_VECTORS", "10_000_000"))
"""Of the long test."""


def build(units: list[Fma], folder: Path) -> verilated.Simulation:
    m = Module()
    inputs = [Signal(32, name=name) for name in "abc"] + [Signal(name="valid")]
    outputs = []
    for i, unit in enumerate(units):
        m.submodules[f"unit_{i}"] = unit
        ports = [Signal(unit.form.bits, name=f"o{i}"), Signal(name=f"valid{i}")]
        m.d.comb += [unit.a.eq(inputs[0]), unit.b.eq(inputs[1]), unit.c.eq(inputs[2])]
        m.d.comb += [unit.i_valid.eq(inputs[3]), ports[0].eq(unit.o), ports[1].eq(unit.o_valid)]
        outputs += ports
    return verilated.build(m, inputs, outputs, folder)


def compute(simulation: verilated.Simulation, *operands: np.ndarray) -> dict[str, np.ndarray]:
    """One operation a cycle."""
    pad = np.zeros(Fma.latency, dtype=np.uint32)
    a, b, c = (np.concatenate([np.asarray(x, dtype=np.uint32), pad]) for x in operands)
    return {name: seen[Fma.latency :] for name, seen in simulation(a=a, b=b, c=c, valid=1).items()}


def everything(form: Format) -> tuple[list[np.ndarray], np.ndarray]:
    """All triples of a small format, and what they must give."""
    patterns = [x.ravel() for x in np.meshgrid(*[np.arange(1 << form.bits)] * 3)]
    a, b, c = (numbers(form)[x] for x in patterns)
    with np.errstate(invalid="ignore"):
        return patterns, nearest(form, a * b + c)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> verilated.Simulation:
    return build([Fma(form) for form in SMALL], tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> verilated.Simulation:
    return build([Fma()], tmp_path_factory.mktemp("fp32"))


@pytest.mark.parametrize("index", range(len(SMALL)))
def test_all_triples_of_a_small_format(index: int, small: verilated.Simulation) -> None:
    patterns, want = everything(SMALL[index])
    got = compute(small, *patterns)[f"o{index}"]
    wrong = np.flatnonzero(got != want)[:5]
    assert not len(wrong), [
        (*(f"{int(x[i]):02x}" for x in patterns), f"{got[i]:02x}", f"not {want[i]:02x}") for i in wrong
    ]


def check(simulation: verilated.Simulation, vectors: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    done = 0
    while done < vectors:
        for operands in triples(rng, min(100_000, vectors)):
            a, b, c = (np.asarray(x).view(np.uint32) for x in operands)
            got, want = compute(simulation, a, b, c)["o0"], vpe.fma(*operands).view(np.uint32)
            wrong = np.flatnonzero(got != want)[:3]
            assert not len(wrong), f"seed {seed}: " + "; ".join(
                f"{a[i]:08x} {b[i]:08x} {c[i]:08x} -> {got[i]:08x}, not {want[i]:08x}" for i in wrong
            )
            done += len(a)


def test_fp32_is_the_model(fp32: verilated.Simulation) -> None:
    check(fp32, 20_000, SEED)


@pytest.mark.slow
def test_fp32_is_the_model_many_times(fp32: verilated.Simulation) -> None:
    """10 million vectors, or as many as VREX_FMA_VECTORS says."""
    check(fp32, VECTORS, SEED + 1)


def test_valid_follows(fp32: verilated.Simulation) -> None:
    valid = np.random.default_rng(SEED).integers(0, 2, 300)
    seen = fp32(a=0, b=0, c=0, valid=valid)["valid0"]
    assert np.array_equal(seen[Fma.latency :], valid[: -Fma.latency])
    assert not seen[: Fma.latency].any()


BUGS = (
    ("Mux(stay, step.c_exponent, reach)", "reach"),
    ("zero & late.subtract & ~late.infinite", "zero & late.infinite"),
    ("coarse[:always].any() |", "coarse[1:always].any() |"),
    ("step.exponent == place for", "step.exponent == place + 1 for"),
    ("Mux(c_endless, step.c_sign, step.sign)", "step.sign"),
    ("step.amount > step.c_room", "step.amount >= step.c_room"),
)


@pytest.mark.slow
def test_bugs_are_seen(tmp_path: Path) -> None:
    form = Format(3, 2)
    units = [with_bug(fma, good, bad).Fma(form) for good, bad in BUGS]
    patterns, want = everything(form)
    seen = compute(build(units, tmp_path), *patterns)
    for i, (_, bad) in enumerate(BUGS):
        assert (seen[f"o{i}"] != want).any(), bad
