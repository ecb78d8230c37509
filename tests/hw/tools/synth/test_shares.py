"""Which unit an instance is counted to, and shares under each density."""

import pytest

from vrex.hw.tools.synth import shares
from vrex.hw.tools.synth.report import table


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("lxe.dpe.tree_3.chunk.", "dpe"),
        ("lxe.vpe.lane_0.fma.", "vpe"),
        ("lxe.memory.bank_1.words", "memory"),
        ("lxe.memory.", "control"),
        ("dre.hcu.founders.", "hcu"),
        ("dre.wtu.scores", "wtu"),
        ("dre.kvmu.mean.", "kvmu"),
        ("dre.payloads.", "front"),
        ("dre.", "front"),
        ("sequencer.fetcher.", "control"),
        ("", "control"),
    ],
)
def test_every_instance_has_a_unit(path: str, unit: str) -> None:
    assert shares.unit_of(path) == unit


def test_areas_count_every_instance_once() -> None:
    children = {
        "top": {"lxe": "lxe", "dre": "dre"},
        "lxe": {"dpe": "dpe", "memory": "mem"},
        "dpe": {"tree_0": "tree", "tree_1": "tree"},
        **{"tree": {}, "mem": {}},
        "dre": {"hcu": "tree", "queue": "tree"},
    }
    own = {"top": 1.0, "lxe": 2.0, "dpe": 4.0, "tree": 8.0, "mem": 16.0, "dre": 32.0}
    assert shares.areas("top", children, own) == {
        "control": {"top": 1.0, "lxe": 2.0, "mem": 16.0},
        "dpe": {"dpe": 4.0, "tree": 8.0 + 8.0},
        "hcu": {"tree": 8.0},
        "front": {"dre": 32.0, "tree": 8.0},
    }
    assert shares.areas("dre", children, own, "dre.") == {
        "hcu": {"tree": 8.0},
        "front": {"dre": 32.0, "tree": 8.0},
    }


def test_bits_are_those_of_macros() -> None:
    memories = [
        {"name": "lxe.memory.bank_0.words", "bits": 100, "kind": "macro"},
        {"name": "lxe.memory.bank_1.words", "bits": 100, "kind": "macro"},
        {"name": "dre.wtu.scores", "bits": 7, "kind": "macro"},
        {"name": "dre.wtu.table", "bits": 9, "kind": "logic"},
    ]
    assert shares.bits(memories) == {"memory": 200, "wtu": 7}
    assert shares.bits([{"name": "wtu.scores", "bits": 7, "kind": "macro"}], "dre.") == {"wtu": 7}


def test_shares_are_of_everything() -> None:
    gates = {"dpe": 700.0, "vpe": 100.0, "wtu": 10.0, "kvmu": 6.0, "hcu": 1.0, "front": 3.0, "control": 30.0}
    macro_bits = {"memory": 2000, "wtu": 100, "control": 40}
    found = shares.shares(gates, macro_bits)
    for density in shares.DENSITIES:
        figures = found["densities"][density.name]
        total = sum(gates.values()) * density.gate + sum(macro_bits.values()) * density.bit
        assert figures["dpe"] == pytest.approx(700 * density.gate / total)
        assert figures["memory"] == pytest.approx(2000 * density.bit / total)
        assert figures["dre_share"] == pytest.approx(20 * density.gate / total)
        with_memories = 20 * density.gate + 100 * density.bit
        assert figures["dre_share_with_memories"] == pytest.approx(with_memories / total)
    values = [figures["dre_share"] for figures in found["densities"].values()]
    assert found["dre_share"] == {"middle": values[0], "min": min(values), "max": max(values)}
    assert set(found["share"]) == {"dpe", "vpe", "hcu", "wtu", "kvmu", "front", "control", "memory"}


def test_the_table_shows_the_paper_beside_them() -> None:
    figures = {
        **{"cells": 1, "area": 1.0, "ff": 0, "memories": [], "critical_path_ns": None},
        "by_unit": {"dpe": {"gates": 7, "macro_bits": 0}, "memory": {"gates": 0, "macro_bits": 50}},
        **shares.shares({"dpe": 7.0}, {"memory": 50}),
    }
    text = table({"library": "toy", "units": {"core": figures}})
    assert [line.split()[0] for line in text.splitlines() if "%" in line][:2] == ["dpe", "vpe"]
    assert "72.80 %" in text
    assert "2.04 %" in text
