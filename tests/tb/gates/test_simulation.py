"""Models and counters in a simulator: the ECP5's block RAM bit for bit, counts that are known beforehand."""

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.hw.tools.synth.toy import LIBERTY
from tests.tb.gates import counter_bench, memory_bench
from vrex.hw.tools.gates import toggles
from vrex.hw.tools.gates.ecp5_models import DP16KD
from vrex.hw.tools.gates.models import cell_model
from vrex.hw.tools.gates.verilog import flat, instance
from vrex.hw.tools.synth.liberty import parse
from vrex.tb import build

ROOT = Path(__file__).parents[3]
CACHE = ROOT / "build" / "regress" / "cache"
"""Where built simulators stay from one run to the next."""


def _run(
    unit: str, verilog: str, bench: str, folder: Path, environment: dict[str, str] | None = None
) -> None:
    """Simulates module `vrex_<unit>` with a bench that must pass."""
    CACHE.mkdir(parents=True, exist_ok=True)
    simulator = build.build(unit, "test", verilog, "verilator", False, CACHE)
    results = folder / "results.xml"
    build.runner("verilator").test(
        test_module=bench,
        hdl_toplevel=build.top_name(unit),
        hdl_toplevel_lang="verilog",
        build_dir=simulator,
        test_dir=folder,
        results_xml=str(results),
        extra_env={"COCOTB_ANSI_OUTPUT": "0", **(environment or {})},
        log_file=folder / "sim.log",
    )
    assert "<failure" not in results.read_text(), (folder / "sim.log").read_text()[-2000:]


def _mode(a: int, b: int, write: str = "NORMAL") -> dict[str, Any]:
    init = f"{Random(a * 100 + b).getrandbits(9 * 2048):x}"
    return {"width_A": a, "width_B": b, "write_A": write, "write_B": write, "init": init}


MODES = [
    _mode(36, 36),
    _mode(36, 18),
    _mode(36, 4),
    _mode(18, 36),
    _mode(9, 36),
    _mode(18, 18),
    _mode(9, 9, "WRITETHROUGH"),
    _mode(18, 9, "READBEFOREWRITE"),
    _mode(1, 4),
    _mode(2, 18, "WRITETHROUGH"),
]


def _memories(ram: str, modes: list[dict[str, Any]]) -> str:
    """A module of a block RAM in each mode, their inputs joined."""
    outputs = [f"DO{port}{index}" for index in range(len(modes)) for port in "AB"]
    inputs = ["clk", *(f"{name}{port}" for port in "AB" for name in ("AD", "CE", "WE", "RST")), "DI"]
    lines = [f"module vrex_blockram({', '.join([*inputs, *outputs])});", "  input clk;", "  input [35:0] DI;"]
    for port in "AB":
        lines += [f"  input [13:0] AD{port};", f"  input CE{port}, WE{port}, RST{port};"]
    lines += [f"  output [17:0] {name};" for name in outputs]
    for index, mode in enumerate(modes):
        wide = 36 in (mode["width_A"], mode["width_B"])
        given = [f".DATA_WIDTH_{port}({mode[f'width_{port}']})" for port in "AB"]
        given += [f'.WRITEMODE_{port}("{mode[f"write_{port}"]}")' for port in "AB"]
        for block in range(64):
            words = [int(mode["init"], 16) >> 18 * (16 * block + word) & 0x3FFFF for word in range(16)]
            value = sum(word << 20 * place for place, word in enumerate(words))
            given.append(f".INITVAL_{block:02X}(320'h{value:x})")
        pins = [f".CLK{port}(clk), .CE{port}(CE{port}), .RST{port}(RST{port})" for port in "AB"]
        pins += [".WEA(WEA)", ".WEB(1'b0)" if wide else ".WEB(WEB)"]
        pins += [f".CS{port}{k}(1'b0)" for port in "AB" for k in range(3)]
        pins += [f".AD{port}{k}(AD{port}[{k}])" for port in "AB" for k in range(14)]
        pins += [f".DIA{k}(DI[{k}]), .DIB{k}(DI[{k + 18}])" for k in range(18)]
        pins += [f".DO{port}{k}(DO{port}{index}[{k}])" for port in "AB" for k in range(18)]
        lines.append(f"  DP16KD #({', '.join(given)}) ram{index}({', '.join(pins)});")
    return "\n".join([ram, *lines, "endmodule", ""])


def test_block_ram_in_every_mode(tmp_path: Path) -> None:
    environment = {memory_bench.ENV_MODES: json.dumps(MODES)}
    _run("blockram", _memories(DP16KD, MODES), memory_bench.__name__, tmp_path, environment)


def test_the_bench_finds_a_wrong_block_ram(tmp_path: Path) -> None:
    right, modes = "seenA & ~writtenA(", [_mode(9, 9, "WRITETHROUGH")]
    assert right in DP16KD
    wrong = _memories(DP16KD.replace(right, "seenA | ~writtenA("), modes)
    with pytest.raises((AssertionError, SystemExit)):
        _run("blockram", wrong, memory_bench.__name__, tmp_path, {memory_bench.ENV_MODES: json.dumps(modes)})
    assert "mode 0, port A: bit" in (tmp_path / "sim.log").read_text()


def test_counters_count_what_is_known(tmp_path: Path) -> None:
    """A flip-flop that changes in every cycle, one in every second, and an input."""
    clock, e, a, not_a, b, not_b = range(2, 8)
    p, q = 8, 9
    cells: list[tuple[str, dict[str, list[int | str]]]] = [
        ("DFF", {"CK": [clock], "D": [not_a], "Q": [a]}),
        ("INV", {"A": [a], "Y": [not_a]}),
        # The second changes where the first is high: an XOR of NANDs.
        ("DFF", {"CK": [clock], "D": [10], "Q": [b]}),
        ("INV", {"A": [b], "Y": [not_b]}),
        ("NAND", {"A": [a], "B": [not_b], "Y": [p]}),
        ("NAND", {"A": [not_a], "B": [b], "Y": [q]}),
        ("NAND", {"A": [p], "B": [q], "Y": [10]}),
    ]
    nets, levels = [e, a, not_a, b, not_b], [e]
    ports = {
        "clk": {"direction": "input", "bits": [clock]},
        "e": {"direction": "input", "bits": [e]},
        "o": {"direction": "output", "bits": [b]},
    }
    module = {"ports": ports, "cells": {str(i): {"connections": pins} for i, (_, pins) in enumerate(cells)}}
    library = parse(LIBERTY)
    text = [cell_model(kind, library.cells[kind]) for kind in ("DFF", "INV", "NAND")]
    instances = [instance(kind, index, pins) for index, (kind, pins) in enumerate(cells)]
    instances += toggles.counters("clk", nets, levels)
    (tmp_path / toggles.FILE).unlink(missing_ok=True)
    _run(
        "counted",
        "\n".join([*text, toggles.MODEL, flat("vrex_counted", module, instances)]),
        counter_bench.__name__,
        tmp_path,
    )
    activity = toggles.read(tmp_path, nets, levels)
    changes = counter_bench.CYCLES - 1
    assert activity.cycles == counter_bench.CYCLES
    assert activity.toggles == {e: 2, a: changes, not_a: changes, b: changes // 2, not_b: changes // 2}
    assert activity.high == {e: counter_bench.HIGH}
