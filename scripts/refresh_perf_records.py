"""Records areas and accuracies for `vrex perf` and `vrex explore`: sw/perf/data/area.json, accuracy.json.

    python scripts/refresh_perf_records.py              accuracies, and the areas of docs/synth-history.json
    python scripts/refresh_perf_records.py FILE...      and what `vrex synth --json FILE` measured just now
    python scripts/refresh_perf_records.py --memories   and the DPE's memories, from its RTL (some minutes)

Areas are by unit and by the dimensions that the unit was given; a record of the same dimensions is replaced.
Accuracies are rows of `vrex eval` and `vrex figures` (docs/*.json) with the tokens of a cluster that
docs/clusters.json, of `vrex run`, has for their settings.
"""

import dataclasses
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from vrex.errors import UserError
from vrex.files import write_file
from vrex.hw.tools.generate import UNITS, to_rtlil
from vrex.model.config import preset

AREA, ACCURACY = Path("sw/perf/data/area.json"), Path("sw/perf/data/accuracy.json")
HISTORY, CLUSTERS, QUANTISED = (
    Path("docs/synth-history.json"),
    Path("docs/clusters.json"),
    Path("docs/figures/quantised.json"),
)
EVALUATIONS = (
    Path("docs/accuracy.json"),
    Path("docs/figures/lengths.json"),
    Path("docs/figures/sensitivity.json"),
)
"""The first one's records stand where another has the same."""
FIELDS = {"mac_tree": (), "vpe": ("lanes",), "hcu": ("lanes",), "wtu": (), "kvmu": ()}
"""Dimensions by which a unit's area is known; the others are those of preset edge."""
TREES, ROWS = (8, 16, 32, 64, 128), (32, 64)
OAKEN_BITS = 4.8
"""Of a value that Oaken's codec stores, with 10 % outliers (`Oaken.bits_per_value`)."""
PREDICTORS = {
    "full": ["none"],
    "resv": ["resv", "dre"],
    "rekv": ["rekv"],
    "infinigen-p": ["infinigen"],
    "oaken": ["none"],
}
SHOWN = ("th_r", "th_hd", "mean_bits", "frame_ratio", "prefill_ratio")
"""Settings that names of records have."""

PLAIN = {"n_hp": 32, "scope": "layer", "window": 10, "seed": 0}
"""Settings of resv that records have in common."""

Entry = dict[str, Any]


def _commit(*paths: str | Path) -> str:
    """The last commit that changed these files."""
    command = ["git", "log", "-1", "--format=%h", "--", *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


# -- area ------------------------------------------------------------------------------------------------


def _fields(unit: str, config: Entry | None) -> dict[str, int]:
    """Dimensions of a unit in a configuration; None: in preset edge."""
    if not FIELDS[unit]:
        return {}
    section = config[unit] if config else vars(getattr(preset("edge"), unit))
    return {name: section[name] for name in FIELDS[unit]}


def measured(path: Path) -> Iterator[Entry]:
    """Records of what `vrex synth` wrote.

    Raises:
        UserError: cells are of another library.
    """
    result = json.loads(path.read_text())
    if result["library"] != "osu018_stdcells":
        raise UserError(f"{path}: cells are of {result['library']}; measure with --fetch-liberty osu018")
    for unit, figures in result["units"].items():
        if unit in FIELDS:
            yield {
                "unit": unit,
                "fields": _fields(unit, result.get("config")),
                "area": figures["area"],
                "macro_bits": sum(m["bits"] for m in figures["memories"] if m["kind"] == "macro"),
                "critical_path_ns": figures["critical_path_ns"],
                "source": "vrex synth --fetch-liberty osu018",
                "commit": _commit("hw", "model"),
                "date": datetime.now(UTC).date().isoformat(),
            }


def recorded() -> Iterator[Entry]:
    """The latest entries of the history for units of preset edge."""
    for entry in json.loads(HISTORY.read_text()):
        if entry["unit"] in FIELDS and entry["preset"] == "edge":
            names = ("area", "macro_bits", "critical_path_ns")
            yield {
                "unit": entry["unit"],
                "fields": _fields(entry["unit"], None),
                **{name: entry[name] for name in names},
                "source": str(HISTORY),
                "commit": entry["commit"],
                "date": entry["date"],
            }


def memories() -> Iterator[Entry]:
    """Bits in the DPE's memories by trees and rows; its logic beside the trees is not measured."""
    edge = preset("edge")
    for trees, rows in itertools.product(TREES, ROWS):
        config = dataclasses.replace(edge, dpe=dataclasses.replace(edge.dpe, trees=trees, rows=rows))
        design = to_rtlil(UNITS["dpe"](config), "vrex_dpe")
        sizes = re.findall(r"(?m)^  memory width (\d+) size (\d+)", design)
        yield {
            "unit": "dpe_memories",
            "fields": {"trees": trees, "rows": rows},
            "area": 0.0,
            "macro_bits": sum(int(width) * int(size) for width, size in sizes),
            "critical_path_ns": None,
            "source": "memories of the RTL of unit dpe",
            "commit": _commit("hw", "model"),
            "date": datetime.now(UTC).date().isoformat(),
        }


def merged(old: list[Entry], new: list[Entry]) -> list[Entry]:
    """Records by unit and dimensions, a later one in place of an earlier one."""
    found = {(entry["unit"], *sorted(entry["fields"].items())): entry for entry in [*old, *new]}
    return [found[key] for key in sorted(found)]


# -- accuracy --------------------------------------------------------------------------------------------


@cache
def _clusters() -> dict[int, float]:
    """Tokens of a cluster by `th_hd`, as a run of 384 frames counted them."""
    rows = json.loads(CLUSTERS.read_text())["rows"]
    return {row["settings"]["th_hd"]: float(row["tokens_per_cluster"]) for row in rows}


def _is_plain(settings: Entry) -> bool:
    """Whether resv was at its defaults but for thresholds and bits, with clusters that were counted."""
    return all(settings[name] == value for name, value in PLAIN.items()) and settings["th_hd"] in _clusters()


def evaluated(path: Path) -> Iterator[Entry]:
    """Records of rows over all tasks."""
    result = json.loads(path.read_text())
    for row in result["rows"]:
        policy, settings, frames = row["policy"], row["settings"], row["length"]
        # Dense attention once: it is what the others are compared with.
        if row["task"] != "all" or policy not in PREDICTORS or (policy == "full" and path != EVALUATIONS[0]):
            continue
        if policy != "resv" or _is_plain(settings):
            shown = [f"{name}={settings[name]}" for name in SHOWN if name in settings]
            yield _record(
                f"{' '.join([policy, *shown])}, {frames} frames", policy, row, path,
                f"ProcStream tasks, {frames} frames, model {result['model'][:8]}", 16.0,
                settings.get("mean_bits", 16), _clusters()[settings["th_hd"]] if policy == "resv" else None,
            )  # fmt: skip


def quantised() -> Iterator[Entry]:
    """Records of the figure whose K and V Oaken's codec stores."""
    result = json.loads(QUANTISED.read_text())
    frames = result["clips"][0]["frames"]
    for row in result["rows"]:
        policy = row["name"].partition(" ")[0].rstrip(",")
        if row["name"] == "oaken" or row["name"].endswith("4-bit KV"):
            yield _record(
                f"{row['name']}, {frames} frames", policy, row, QUANTISED,
                f"ProcStream tasks, {frames} frames, model {result['model'][:8]}", OAKEN_BITS,
                4 if "4-bit means" in row["name"] else 16, _clusters()[5] if policy == "resv" else None,
            )  # fmt: skip


def _record(
    name: str, policy: str, row: Entry, path: Path, benchmark: str, kv_bits: float, mean_bits: int,
    clusters: float | None,
) -> Entry:  # fmt: skip
    return {
        "name": name,
        "predictors": PREDICTORS[policy],
        **{key: row[key] for key in ("ratio_frame", "ratio_text", "accuracy", "low", "high", "n")},
        "kv_bits": kv_bits,
        "mean_bits": mean_bits,
        "cluster_tokens": clusters,
        "benchmark": benchmark,
        "source": f"{path} of {_commit(path)}",
    }


def main(paths: list[str]) -> int:
    """Writes both files."""
    try:
        old = json.loads(AREA.read_text())["records"] if AREA.exists() else []
        new = list(memories()) if "--memories" in paths else []
        new += [entry for path in paths if path != "--memories" for entry in measured(Path(path))]
        areas = merged([*recorded(), *old], new)
        accuracies: dict[str, Entry] = {}
        for entry in [*(entry for path in EVALUATIONS for entry in evaluated(path)), *quantised()]:
            accuracies.setdefault(entry["name"], entry)
        for path, records in ((AREA, areas), (ACCURACY, list(accuracies.values()))):
            write_file(path, (json.dumps({"records": records}, indent=1) + "\n").encode())
            print(f"{path}: {len(records)} records")
    except UserError as error:
        print(f"vrex: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
