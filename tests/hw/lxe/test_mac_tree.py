"""The MAC tree bit for bit, in Verilog and in C++ functions: both schemes, all classes, several widths."""

import os
from pathlib import Path

import pytest

from tests.hw.dre.test_formal import with_bug
from vrex.hw.lxe import mac_tree as unit
from vrex.hw.tools.lxe_parts import simulate_tree
from vrex.model.config import DpeConfig
from vrex.sw.evaluation.benches.mac_tree import check

SEED = 11
CI_DOTS = 10_000
SLOW_DOTS = int(os.environ.get("VREX_VECTORS", "100000"))
"""Dot products of each class in the slow test."""

CONFIGS = [
    DpeConfig(inputs=64),
    DpeConfig(inputs=16),
    DpeConfig(inputs=2, fraction_bits=20),
    DpeConfig(inputs=8, fraction_bits=40),
    DpeConfig(inputs=4, fraction_bits=18),
    DpeConfig(inputs=16, scheme="tree"),
]


def agree(config: DpeConfig, folder: Path, dots: int, *, functions: bool = False) -> None:
    results = check(simulate_tree(config, folder, functions=functions), dots, SEED)
    print("seed", SEED, results)
    assert all(compared >= dots for compared, _ in results.values())
    assert {name: wrong for name, (_, wrong) in results.items() if wrong} == {}


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.scheme}-{c.inputs}-{c.fraction_bits}")
def test_equals_the_model(config: DpeConfig, tmp_path: Path) -> None:
    agree(config, tmp_path, CI_DOTS // config.beats)


@pytest.mark.parametrize(
    "config", [CONFIGS[1], CONFIGS[2], CONFIGS[5]], ids=lambda c: f"{c.scheme}-{c.inputs}"
)
def test_functions_equal_the_model(config: DpeConfig, tmp_path: Path) -> None:
    agree(config, tmp_path, CI_DOTS, functions=True)


@pytest.mark.slow
@pytest.mark.parametrize("config", [DpeConfig(inputs=16), DpeConfig(inputs=64)], ids=lambda c: str(c.inputs))
def test_equals_the_model_on_many(config: DpeConfig, tmp_path: Path) -> None:
    agree(config, tmp_path, SLOW_DOTS)


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.scheme}-{c.inputs}-{c.fraction_bits}")
def test_functions_equal_the_model_on_many(config: DpeConfig, tmp_path: Path) -> None:
    agree(config, tmp_path, SLOW_DOTS, functions=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ('delay(m, left_over, 1, "carry")', 'delay(m, carry, 1, "carry")'),
        ("(carry ^ sign)", "carry"),
        ("step.kept[0], step.rest)", "step.kept[0], Const(0, 1))"),
        ("exponent & counts", "exponent"),
        ("before_carry = held_carry & ~first", "before_carry = held_carry"),
        ("Mux(below, amount, 0)", "0 * amount"),
    ],
)
def test_a_planted_bug_is_seen(good: str, bad: str, tmp_path: Path) -> None:
    config = DpeConfig(inputs=8)
    planted = simulate_tree(config, tmp_path, with_bug(unit, good, bad).MacTree(config))
    assert any(wrong for _, wrong in check(planted, 500, SEED).values())
