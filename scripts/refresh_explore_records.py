"""Records what `vrex explore` reads beside the calibration: sw/perf/data/area.json and accuracy.json.

    python scripts/refresh_explore_records.py            accuracy, and the areas of docs/synth-history.json
    python scripts/refresh_explore_records.py FILE...    and what `vrex synth --json FILE` measured just now

Areas are by unit and by the dimensions that the unit was given; a record of the same dimensions is replaced.
Accuracies are rows of `vrex eval` and `vrex figures` (docs/*.json) with the tokens of a cluster that
docs/clusters.json, of `vrex run`, has for their settings.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vrex.errors import UserError
from vrex.files import write_file
from vrex.model.config import preset

AREA, ACCURACY = Path("sw/perf/data/area.json"), Path("sw/perf/data/accuracy.json")
HISTORY, CLUSTERS, QUANTISED = (
    Path("docs/synth-history.json"),
    Path("docs/clusters.json"),
    Path("docs/figures/quantised.json"),
)
EVALUATIONS = (Path("docs/accuracy.json"),)
FIELDS = {"dpe": ("trees", "rows"), "vpe": ("lanes",), "hcu": ("lanes",), "wtu": ("lanes",), "kvmu": ()}
"""Dimensions by which a unit's area is known; the others are those of preset edge."""
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

Entry = dict[str, Any]


def _commit(*paths: str | Path) -> str:
    """The last commit that changed these files."""
    command = ["git", "log", "-1", "--format=%h", "--", *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


# -- area ------------------------------------------------------------------------------------------------


def measured(path: Path) -> Iterator[Entry]:
    """Records of what `vrex synth` wrote.

    Raises:
        UserError: cells are of another library.
    """
    result = json.loads(path.read_text())
    if result["library"] != "osu018_stdcells":
        raise UserError(f"{path}: cells are of {result['library']}; measure with --fetch-liberty osu018")
    config = result.get("config")
    for unit, figures in result["units"].items():
        if unit in FIELDS:
            section = config[unit] if config else vars(getattr(preset(result["preset"]), unit))
            yield {
                "unit": unit,
                "fields": {name: section[name] for name in FIELDS[unit]},
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
            section = getattr(preset("edge"), entry["unit"])
            names = ("area", "macro_bits", "critical_path_ns")
            yield {
                "unit": entry["unit"],
                "fields": {name: getattr(section, name) for name in FIELDS[entry["unit"]]},
                **{name: entry[name] for name in names},
                "source": str(HISTORY),
                "commit": entry["commit"],
                "date": entry["date"],
            }


def merged(old: list[Entry], new: list[Entry]) -> list[Entry]:
    """Records by unit and dimensions, a later one in place of an earlier one."""
    found = {(entry["unit"], *sorted(entry["fields"].items())): entry for entry in [*old, *new]}
    return [found[key] for key in sorted(found)]


# -- accuracy --------------------------------------------------------------------------------------------


def _clusters(settings: Entry) -> float | None:
    """Tokens of a cluster that a run with the same clustering counted."""
    for entry in json.loads(CLUSTERS.read_text())["rows"]:
        if entry["settings"]["th_hd"] == settings["th_hd"] and settings["n_hp"] == 32:
            return float(entry["tokens_per_cluster"])
    return None


def evaluated(path: Path) -> Iterator[Entry]:
    """Records of an evaluation's rows over all tasks."""
    result = json.loads(path.read_text())
    for row in result["rows"]:
        if row["task"] == "all" and row["policy"] in PREDICTORS:
            shown = [f"{name}={row['settings'][name]}" for name in SHOWN if name in row["settings"]]
            yield _record(
                " ".join([row["policy"], *shown]), row["policy"], row, path,
                f"ProcStream tasks, {row['length']} frames, {len(result['seeds'])} videos, "
                f"model {result['model'][:8]}",
                16.0, row["settings"].get("mean_bits", 16),
                _clusters(row["settings"]) if row["policy"] == "resv" else None,
            )  # fmt: skip


def quantised() -> Iterator[Entry]:
    """Records of the figure whose K and V Oaken's codec stores."""
    result = json.loads(QUANTISED.read_text())
    frames = result["clips"][0]["frames"]
    clusters = _clusters({"th_hd": 5, "n_hp": 32})
    for row in result["rows"]:
        policy = row["name"].partition(" ")[0].rstrip(",")
        stored = row["name"] == "oaken" or row["name"].endswith("4-bit KV")
        if stored:
            yield _record(
                row["name"], policy, row, QUANTISED,
                f"ProcStream tasks, {frames} frames, {len(result['clips'])} videos, "
                f"model {result['model'][:8]}",
                OAKEN_BITS, 4 if "4-bit means" in row["name"] else 16,
                clusters if policy == "resv" else None,
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
        new = [entry for path in paths for entry in measured(Path(path))]
        areas = merged([*recorded(), *old], new)
        accuracies = {
            entry["name"]: entry
            for entry in [*quantised(), *(entry for path in EVALUATIONS for entry in evaluated(path))]
        }
        for path, records in ((AREA, areas), (ACCURACY, list(accuracies.values()))):
            write_file(path, (json.dumps({"records": records}, indent=1) + "\n").encode())
            print(f"{path}: {len(records)} records")
    except UserError as error:
        print(f"vrex: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
