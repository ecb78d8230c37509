"""A unit on a Lattice ECP5: its LUTs and registers, and the clock it reaches.

A unit has more ports than the chip has pins. For the clock it therefore stands in a harness that gives every
input from a register and takes every output into one, with two pins in all; so paths from register to
register count, a port being a register. LUTs and registers are counted without the harness.
"""

import json
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

from vrex.hw.tools.synth import multipliers, tools

SYNTH = [
    "synth_ecp5 -nowidelut -top {top} -run begin:map_ram",
    "memory_map -rom-only",
    "synth_ecp5 -nowidelut -top {top} -run map_ram:",
]
"""Tables of constants become LUTs, as they become gates in standard cells; Yosys fails on one of 16 ports."""

PLACE = [
    *("--85k", "--package", "CABGA381", "--speed", "6", "--freq", "100"),
    *("--timing-allow-fail", "--lpf-allow-unconstrained"),
]
COUNTED = {
    "lut4": "LUT4",
    "ccu2c": "CCU2C",
    "ff": "TRELLIS_FF",
    "dp16kd": "DP16KD",
    "dpr16x4": "TRELLIS_DPR16X4",
    "mult18x18d": "MULT18X18D",
}
"""Key of a figure and the type of cell it counts."""


def flags(seeds: int) -> dict[str, str]:
    """What the tools are told."""
    return {
        "yosys_ecp5": "; ".join(SYNTH).format(top="TOP") + "; products' registers into MULT18X18D",
        "nextpnr_ecp5": f"{' '.join(PLACE)} --seed 1..{seeds}",
    }


def measure(
    top: str, ports: dict[str, Any], folder: Path, seeds: int, progress: tools.Progress
) -> dict[str, Any]:
    """Cells and the highest clock of a unit.

    Args:
        top: its module; `folder` holds its Verilog as `unit.v`.
        ports: of that module, as Yosys lists them.
        folder: for the tools' files.
        seeds: placements to try, at least 1; nextpnr's seeds 1, 2, ...
        progress: told of the 1 + seeds parts.

    Returns:
        Counts of `COUNTED`, and `fmax_mhz`: min, median, max and by_seed, in MHz; the slowest path of the
        median's seed (of the slower of the two when seeds is even).

    Raises:
        UserError: a tool is missing or failed, for instance because the unit does not fit.
    """
    progress("LUTs")
    (folder / "harness.v").write_text(harness(top, ports))
    cells = mapped(top, "read_verilog unit.v", folder)["modules"][top]["cells"]
    counts = Counter(cell["type"] for cell in cells.values())
    (folder / "harness_ecp5.json").write_text(
        json.dumps(mapped("harness", "read_verilog unit.v harness.v", folder))
    )
    figures: dict[str, Any] = {key: counts[kind] for key, kind in COUNTED.items()}
    runs = []
    for seed in range(1, seeds + 1):
        progress(f"place {seed}/{seeds}")
        runs.append(_place(folder, seed))
    by_clock = sorted(runs, key=lambda run: float(run["mhz"]))
    clocks = [run["mhz"] for run in by_clock]
    figures["fmax_mhz"] = {
        "min": clocks[0],
        "median": round(statistics.median(clocks), 2),
        "max": clocks[-1],
        "by_seed": [run["mhz"] for run in runs],
    }
    figures["critical_path"] = by_clock[(len(by_clock) - 1) // 2]["path"]
    return figures


def mapped(top: str, read: str, folder: Path, advice: str = tools.ADVICE) -> dict[str, Any]:
    """A design as Yosys's JSON for nextpnr.

    Args:
        top: its top module.
        read: Yosys's command that reads it from files in `folder`.
        folder: for the tools' files.
        advice: what to do when Yosys fails.

    Raises:
        UserError: Yosys failed.
    """
    commands = "\n".join(SYNTH).format(top=top)
    tools.yosys(f"{read}\n{commands}\nwrite_json mapped.json\n", folder, advice)
    design: dict[str, Any] = json.loads((folder / "mapped.json").read_text())
    multipliers.pack(design["modules"][top])
    return design


def harness(top: str, ports: dict[str, Any]) -> str:
    """Verilog of a module `harness` of two pins and a clock around a unit.

    An input's register takes the sum of two others (the two below all inputs see to that), so that none of
    them is another's delayed copy, which Yosys would put to use in the unit.
    """
    given = [(name, len(port["bits"])) for name, port in ports.items() if port["direction"] == "input"]
    made = [(name, len(port["bits"])) for name, port in ports.items() if port["direction"] == "output"]
    given = [(name, width) for name, width in given if name != "clk"]
    inputs, outputs = (sum(width for _, width in part) for part in (given, made))
    links = [*_links("given", 2, given), *_links("made", 0, made)]
    return f"""module harness(input clk, input i, output o);
  reg [{inputs + 1}:0] given;
  wire [{outputs - 1}:0] made;
  reg [{outputs - 1}:0] seen, folded;
  always @(posedge clk) begin
    given <= {{given, i}} ^ {{given, 2'b00}};
    seen <= made;
    folded <= seen ^ {{folded, 1'b0}};
  end
  assign o = folded[{outputs - 1}];
  {top} unit(.clk(clk), {", ".join(links)});
endmodule
"""


def _links(vector: str, at: int, ports: list[tuple[str, int]]) -> list[str]:
    """Port connections of a unit to the bits of a vector from `at` on."""
    links = []
    for name, width in ports:
        links.append(f".{name}({vector}[{at} +: {width}])")
        at += width
    return links


def _place(folder: Path, seed: int) -> dict[str, Any]:
    """Places and routes the harness; returns the clock in MHz and the path that limits it."""
    files = ["--json", "harness_ecp5.json", "--report", "report.json"]
    tools.nextpnr_ecp5([*PLACE, "--seed", str(seed), *files], folder)
    report = json.loads((folder / "report.json").read_text())
    (clock,) = report["fmax"].values()
    return {"mhz": round(clock["achieved"], 2), "path": slowest(report["critical_paths"])}


def slowest(paths: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The slowest path between two clocked cells of nextpnr's `critical_paths`; None if there is none.

    Returns:
        from, to: its cells; ns, routing_ns; levels of logic; nets on the way.
    """
    inside = [path["path"] for path in paths if "<async>" not in (path["from"], path["to"])]
    if not inside:
        return None
    path = max(inside, key=lambda steps: sum(step["delay"] for step in steps))
    routing = sum(step["delay"] for step in path if step["type"] == "routing")
    total = sum(step["delay"] for step in path)
    nets = [step["net"] for step in path if "net" in step]
    return {
        "from": path[0]["from"]["cell"],
        "to": path[-1]["to"]["cell"],
        "ns": round(total, 2),
        "routing_ns": round(routing, 2),
        "levels": sum(step["type"] == "logic" for step in path),
        "nets": nets,
    }
