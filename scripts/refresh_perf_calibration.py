"""Records what the system simulator takes from the RTL: sw/perf/data/calibration.json.

    python scripts/refresh_perf_calibration.py

Cycles are those that `vrex bench dre` and `vrex bench lxe` read from counters of the simulated Verilog
(docs/dre.json, docs/lxe.json), and what DPE, VPE and mean publish as their latency, which their benches hold
them to; areas are those of docs/synth-history.json. Run it after one of these has changed.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

from scripts.refresh import run
from vrex.files import write_file
from vrex.hw.dre.mean import Mean
from vrex.hw.lxe.dpe import Dpe
from vrex.hw.lxe.vpe import Vpe
from vrex.model.config import preset
from vrex.model.lxe.vpe import Function

OUT = Path("sw/perf/data/calibration.json")
DRE, LXE, SYNTH = Path("docs/dre.json"), Path("docs/lxe.json"), Path("docs/synth-history.json")
PRESET = "edge"
LONG = 1 << 16
"""Elements of a row that is long enough for cycles a word to be those of the steady state."""
FUNCTIONS = {
    "one_pass": Function.MUL,
    "exp": Function.EXP,
    "recip": Function.RECIP,
    "reduction": Function.RSUM,
}
AREAS = {"hcu": "edge", "wtu": "edge", "kvmu": "edge", "mac_tree": "edge", "vpe": "tiny"}


def _commit(*paths: str | Path) -> str:
    """The last commit that changed these files."""
    command = ["git", "log", "-1", "--format=%h", "--", *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _areas() -> dict[str, Any]:
    """The latest entry of each unit: area in units of the library, bits in memories."""
    found = {}
    for entry in json.loads(SYNTH.read_text()):
        if AREAS.get(entry["unit"]) == entry["preset"]:
            names = ("commit", "preset", "library", "area", "macro_bits")
            found[entry["unit"]] = {name: entry[name] for name in names}
    return found


def calibration() -> dict[str, Any]:
    """All that the simulator reads."""
    dre, lxe, config = json.loads(DRE.read_text()), json.loads(LXE.read_text()), preset(PRESET)
    gemm = lxe["dpe"]["gemm"]["11"]
    mean = (Mean.cycles(config.mean, 2, beats, bus_bits=config.bus_bits) for beats in (0, 64))
    first, last = mean
    sources = {str(path): _commit(path) for path in (DRE, LXE, SYNTH)}
    return {
        "rtl_commit": _commit("hw", "model"),
        "recorded": sources,
        "preset": PRESET,
        "dpe": {
            "trees": config.dpe.trees,
            "inputs": config.dpe.inputs,
            "rows": config.dpe.rows,
            "tile_cycles": [Dpe.tile_cycles(config.dpe, rows) for rows in range(1, config.dpe.rows + 1)],
            "utilisation": gemm["utilisation"],
        },
        "vpe": {
            "lanes": config.vpe.lanes,
            "word_cycles": {
                name: round(Vpe.cycles(config.vpe, code, LONG) / (LONG / config.vpe.lanes), 2)
                for name, code in FUNCTIONS.items()
            },
        },
        "hcu": {
            "tokens": dre["hcu"]["tokens"],
            "cycles": {key[1:]: entry["cycles"] for key, entry in dre["hcu"].items() if key[1:].isdigit()},
        },
        "wtu": {
            "row_clusters": config.wtu.row_clusters,
            "load": {key[1:]: entry["load"] for key, entry in dre["wtu"]["exact"].items()},
            "search": {key[1:]: entry["mean"] for key, entry in dre["wtu"]["exact"].items()},
            "passes_of_long_rows": 7,
        },
        "kvmu": {name: dre["kvmu"][name] for name in ("bus_busy", "bus_busy_scattered", "segment_bytes")},
        "mean": {"word_cycles": (last - first) / 64, "command_cycles": first, "bus_bits": config.bus_bits},
        "area": _areas(),
    }


def record() -> str:
    """Writes the file."""
    found = calibration()
    write_file(OUT, (json.dumps(found, indent=1) + "\n").encode())
    return f"{OUT}: RTL of commit {found['rtl_commit']}"


if __name__ == "__main__":
    run(record)
