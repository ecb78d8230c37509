"""Records what the system simulator takes from the RTL: sw/perf/data/calibration.json.

    python scripts/refresh_perf_calibration.py

Cycles are those that `vrex bench dre` and `vrex bench lxe` read from counters of the simulated Verilog
(docs/dre.json, docs/lxe.json), and what DPE, VPE and mean publish as their latency, which their benches hold
them to. Run it after one of these has changed.
"""

import dataclasses
import json
import subprocess
from pathlib import Path
from typing import Any

from scripts.refresh import run
from vrex.files import write_file
from vrex.hw.dre.hcu import Hcu
from vrex.hw.dre.mean import Mean
from vrex.hw.lxe.dpe import Dpe
from vrex.hw.lxe.vpe import Vpe
from vrex.model.config import Config, preset
from vrex.model.lxe.vpe import Function

OUT = Path("sw/perf/data/calibration.json")
DRE, LXE = Path("docs/dre.json"), Path("docs/lxe.json")
PRESET = "edge"
LONG = 1 << 16
"""Elements of a row that is long enough for cycles a word to be those of the steady state."""
FUNCTIONS = {
    "one_pass": Function.MUL,
    "exp": Function.EXP,
    "recip": Function.RECIP,
    "reduction": Function.RSUM,
}
TREES, ROWS = (8, 16, 32, 64, 128), 64
LANES = {"vpe": (8, 16, 32, 64), "hcu": (4, 8, 16, 32, 64)}
"""Dimensions of a core that `vrex explore` sweeps; preset edge has 64 trees, 64 and 16 lanes."""


def _commit(*paths: str | Path) -> str:
    """The last commit that changed these files."""
    command = ["git", "log", "-1", "--format=%h", "--", *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _tile_cycles(config: Config) -> dict[str, list[int]]:
    """Of a tile by number of trees, with 1 to `ROWS` rows."""
    return {
        str(trees): [
            Dpe.tile_cycles(dataclasses.replace(config.dpe, trees=trees, rows=ROWS), rows)
            for rows in range(1, ROWS + 1)
        ]
        for trees in TREES
    }


def _word_cycles(config: Config) -> dict[str, dict[str, float]]:
    """Of a word of a long row by number of lanes and function."""
    found = {}
    for lanes in LANES["vpe"]:
        own = dataclasses.replace(config.vpe, lanes=lanes)
        cycles = {name: Vpe.cycles(own, code, LONG) for name, code in FUNCTIONS.items()}
        found[str(lanes)] = {name: round(count * lanes / LONG, 2) for name, count in cycles.items()}
    return found


def _hcu_cycles(config: Config, recorded: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Of a chunk by number of lanes and clusters: counters for the preset's lanes, else what `Hcu` publishes.

    The published bound is within 1 % of the counters of the preset.
    """
    counted = {int(key[1:]): entry["cycles"] for key, entry in recorded.items() if key[1:].isdigit()}
    found: dict[str, dict[str, int]] = {}
    for lanes in LANES["hcu"]:
        own = dataclasses.replace(config.hcu, lanes=lanes)
        published = {
            clusters: Hcu.cycles(own, recorded["tokens"], clusters, bus_bits=config.bus_bits)
            for clusters in counted
        }
        if lanes == config.hcu.lanes:
            assert all(0.99 <= counted[n] / published[n] <= 1 for n in counted), (counted, published)
            published = counted
        found[str(lanes)] = {str(clusters): cycles for clusters, cycles in published.items()}
    return found


def calibration() -> dict[str, Any]:
    """All that the simulator reads."""
    dre, lxe, config = json.loads(DRE.read_text()), json.loads(LXE.read_text()), preset(PRESET)
    gemm = lxe["dpe"]["gemm"]["11"]
    mean = (Mean.cycles(config.mean, 2, beats, bus_bits=config.bus_bits) for beats in (0, 64))
    first, last = mean
    sources = {str(path): _commit(path) for path in (DRE, LXE)}
    return {
        "rtl_commit": _commit("hw", "model"),
        "recorded": sources,
        "preset": PRESET,
        "dpe": {
            "trees": config.dpe.trees,
            "inputs": config.dpe.inputs,
            "rows": config.dpe.rows,
            "tile_cycles": _tile_cycles(config),
            "utilisation": gemm["utilisation"],
        },
        "vpe": {
            "lanes": config.vpe.lanes,
            "word_cycles": _word_cycles(config),
        },
        "hcu": {
            "tokens": dre["hcu"]["tokens"],
            "cycles": _hcu_cycles(config, dre["hcu"]),
        },
        "wtu": {
            "row_clusters": config.wtu.row_clusters,
            "load": {key[1:]: entry["load"] for key, entry in dre["wtu"]["exact"].items()},
            "search": {key[1:]: entry["mean"] for key, entry in dre["wtu"]["exact"].items()},
            "passes_of_long_rows": 7,
        },
        "kvmu": {name: dre["kvmu"][name] for name in ("bus_busy", "bus_busy_scattered", "segment_bytes")},
        "mean": {"word_cycles": (last - first) / 64, "command_cycles": first, "bus_bits": config.bus_bits},
    }


def record() -> str:
    """Writes the file."""
    found = calibration()
    write_file(OUT, (json.dumps(found, indent=1) + "\n").encode())
    return f"{OUT}: RTL of commit {found['rtl_commit']}"


if __name__ == "__main__":
    run(record)
