"""Static timing, on netlists whose delays are added up by hand."""

from typing import Any

import pytest

from tests.hw.tools.synth.toy import LIBERTY
from vrex.hw.tools.synth import buffers, liberty
from vrex.hw.tools.synth.timing import slowest_path

LIBRARY = liberty.parse(LIBERTY)
PINS = {"INV": "A", "NAND": "AB", "BUF": "A"}


def netlist(
    cells: list[tuple[str, list[int], int]],
    inputs: dict[str, list[int]] | None = None,
    outputs: dict[str, list[int]] | None = None,
) -> dict[str, Any]:
    """A module as Yosys writes it; a cell is (type, nets of its inputs, net it drives)."""
    made = {}
    for index, (kind, sources, target) in enumerate(cells):
        pins = {"DFF": ["D"], "$mem_v2": ["RD_ADDR"]}.get(kind) or list(PINS[kind])
        out = {"DFF": "Q", "$mem_v2": "RD_DATA"}.get(kind, "Y")
        connections = {pin: [net] for pin, net in zip(pins, sources, strict=True)} | {out: [target]}
        directions = dict.fromkeys(pins, "input") | {out: "output"}
        made[f"cell{index}"] = {"type": kind, "connections": connections, "port_directions": directions}
    nets = {net for _, sources, target in cells for net in [*sources, target]}
    ports = {name: {"direction": "input", "bits": bits} for name, bits in (inputs or {}).items()}
    ports |= {name: {"direction": "output", "bits": bits} for name, bits in (outputs or {}).items()}
    names = {f"n{net}": {"hide_name": 0, "bits": [net]} for net in nets}
    return {"cells": made, "ports": ports, "netnames": names}


def test_clock_to_output_gates_and_setup_add_up() -> None:
    # 3 to n1; an inverter with a load of 0.5: 2; the worse setup, of the rising edge.
    path = slowest_path(netlist([("DFF", [2], 1), ("INV", [1], 2)]), LIBRARY)
    assert path is not None
    assert path.ns == pytest.approx(3 + 2 + 0.75)
    assert (path.start, path.end) == ("n1", "n1")
    assert [(cell, net, pytest.approx(ns)) for cell, net, ns in path.steps] == [
        ("DFF", "n1", 3.0),
        ("INV", "n2", 5.0),
    ]


def test_slopes_count() -> None:
    # The inverter's slope is 0.2 + 0.25 (a buffer's input); the buffer's delay 0.5 + 0.25 * slope.
    path = slowest_path(netlist([("INV", [1], 2), ("BUF", [2], 3)], {"a": [1]}, {"y": [3]}), LIBRARY)
    assert path is not None
    assert path.ns == pytest.approx((1 + 2 * 0.25) + (0.5 + 0.25 * 0.45))
    assert path.end == "port y"


def test_every_reader_of_a_net_is_a_load() -> None:
    cells = [("INV", [1], 2), *[("DFF", [2], 10 + i) for i in range(3)]]
    path = slowest_path(netlist(cells, {"a": [1]}), LIBRARY)
    assert path is not None
    assert path.ns == pytest.approx(1 + 2 * 1.5 + 0.75)


def test_the_slower_of_two_ways_wins() -> None:
    cells = [("DFF", [9], 1), ("INV", [1], 2), ("BUF", [2], 3), ("NAND", [1, 3], 9)]
    path = slowest_path(netlist(cells), LIBRARY)
    assert path is not None
    assert [cell for cell, _, _ in path.steps] == ["DFF", "INV", "BUF", "NAND"]


def test_a_memory_ends_one_path_and_begins_another() -> None:
    cells = [("DFF", [9], 1), ("INV", [1], 2), ("$mem_v2", [2], 3), ("INV", [3], 9)]
    path = slowest_path(netlist(cells), LIBRARY)
    assert path is not None
    assert path.start == "n1"
    assert path.ns == pytest.approx(3 + 1)
    assert path.end.startswith("memory cell2")
    later = slowest_path(netlist([*cells[:3], ("INV", [3], 4), ("INV", [4], 9)]), LIBRARY)
    assert later is not None
    assert (later.start, later.end) == ("n3", "n1")
    assert later.ns == pytest.approx(2 + 2 + 0.75)


def test_nothing_to_end_at_is_no_path() -> None:
    assert slowest_path(netlist([], {"a": [1]}), LIBRARY) is None


def test_a_loop_is_refused() -> None:
    with pytest.raises(ValueError, match="loop"):
        slowest_path(netlist([("INV", [1], 2), ("INV", [2], 1)], {}, {"y": [2]}), LIBRARY)


@pytest.mark.parametrize("readers", [1, buffers.FANOUT, buffers.FANOUT + 1, 12 * buffers.FANOUT, 500])
def test_buffers_bound_what_a_register_drives(readers: int) -> None:
    module = netlist([("DFF", [1], 1), *[("INV", [1], 10 + i) for i in range(readers)]])
    buffers.insert_buffers(module, LIBRARY)
    drives: dict[int, int] = {}
    source: dict[int, int] = {}
    for cell in module["cells"].values():
        pin = "D" if cell["type"] == "DFF" else "A"
        net = cell["connections"][pin][0]
        drives[net] = drives.get(net, 0) + 1
        if cell["type"] == "BUF":
            source[cell["connections"]["Y"][0]] = net
    assert max(drives.values()) <= buffers.FANOUT
    # Every inverter still hangs on net 1, if through buffers.
    inverters = [cell for cell in module["cells"].values() if cell["type"] == "INV"]
    assert len(inverters) == readers
    for cell in inverters:
        net = cell["connections"]["A"][0]
        while net in source:
            net = source[net]
        assert net == 1
    assert bool(source) == (readers + 1 > buffers.FANOUT)
