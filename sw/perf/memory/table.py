"""Effective bandwidths by memory, pattern and chunk, with the timing parameters that they follow from."""

import dataclasses
from pathlib import Path
from typing import Any

from vrex.sw.perf.description.system import SSD, load_system
from vrex.sw.perf.memory import dram, ssd
from vrex.sw.perf.memory.parts import load_dram, load_flash

DRAMS = (("v-rex8", "memory"), ("v-rex48", "memory"), ("v-rex48", "offload"))
"""System and which of its memories: LPDDR5-6400, HBM2E, DDR4-3200."""
PATTERNS = (
    ("sequential", dram.SEQUENTIAL, 0),
    ("16 KB chunks", dram.RANDOM, 16384),
    ("random 512 B", dram.RANDOM, 512),
)
FETCH_BYTES = 50_135_040
"""One layer's fetch of Llama-3-8B at 40 K tokens and a ratio of .306: 12,240 tokens of 4 KB."""
FETCH_CHUNKS = (16384, 4096, 512)
DRIVE = "v-rex8"


def measure() -> dict[str, Any]:
    """Bandwidths and timing parameters.

    Returns:
        `dram`: rows with `part`, `channels`, `pattern`, `gb_s`, `peak_gb_s`, `share`; `fetch`: rows with
        `part`, `chunk`, `commands`, `ms`, `gb_s`; `parts`: all fields of each part by its name.
    """
    parts: dict[str, dict[str, Any]] = {}
    rows = []
    for name, place in DRAMS:
        memory = getattr(load_system(name), place)
        part = load_dram(memory.part)
        parts[memory.part] = dataclasses.asdict(part)
        for label, pattern, chunk in PATTERNS:
            found, peak = dram.bandwidth(part, memory.channels, chunk, pattern), memory.channels * part.peak
            rows.append(
                {
                    "part": memory.part,
                    "channels": memory.channels,
                    "pattern": label,
                    "gb_s": found / 1e9,
                    "peak_gb_s": peak / 1e9,
                    "share": found / peak,
                }
            )
    system = load_system(DRIVE)
    assert system.offload.kind == SSD
    flash = load_flash(system.offload.part)
    parts[system.offload.part] = dataclasses.asdict(flash) | {"link": dataclasses.asdict(system.link)}
    fetches = []
    for chunk in FETCH_CHUNKS:
        count = FETCH_BYTES // chunk
        time = ssd.fetch_us(flash, system.link, chunk, count)
        fetches.append(
            {
                "part": system.offload.part,
                "chunk": chunk,
                "commands": count,
                "ms": time / 1e3,
                "gb_s": count * chunk / time / 1e3,
            }
        )
    return {"dram": rows, "fetch": fetches, "parts": parts}


def text(figures: dict[str, Any]) -> str:
    """The tables of `measure`."""
    lines = [f"{'memory':<14} {'channels':>8} {'pattern':<14} {'GB/s':>9} {'peak':>9} {'share':>7}"]
    for row in figures["dram"]:
        lines.append(
            f"{row['part']:<14} {row['channels']:>8} {row['pattern']:<14} {row['gb_s']:>9.1f} "
            f"{row['peak_gb_s']:>9.1f} {row['share']:>7.1%}"
        )
    lines += [
        "",
        f"{'drive':<14} {'chunk':>8} {'commands':>9} {'ms':>9} {'GB/s':>9}   ({FETCH_BYTES:,} bytes)",
    ]
    for row in figures["fetch"]:
        lines.append(
            f"{row['part']:<14} {row['chunk']:>8} {row['commands']:>9} {row['ms']:>9.2f} {row['gb_s']:>9.3f}"
        )
    for name, part in figures["parts"].items():
        shown = " ".join(
            f"{field}={value}" for field, value in part.items() if field not in ("title", "link")
        )
        lines += ["", f"{name}: {shown}"]
        if "link" in part:
            lines.append(
                f"{name}, link: " + " ".join(f"{field}={value}" for field, value in part["link"].items())
            )
    return "\n".join(lines)


def trace_folder_files(folder: Path) -> list[tuple[Path, bytes]]:
    """Traces of all rows of the table for DRAMSim3, Ramulator 2 and MQSim, with their file names."""
    from vrex.sw.perf.memory import traces

    files = []
    for name, place in DRAMS:
        memory = getattr(load_system(name), place)
        part = load_dram(memory.part)
        for label, pattern, chunk in PATTERNS:
            reads = list(traces.reads(part, memory.channels, chunk, pattern))
            stem = f"{memory.part}-{label.replace(' ', '-')}"
            files.append((folder / f"{stem}.dramsim3.trace", traces.dramsim3(part, memory.channels, reads)))
            files.append((folder / f"{stem}.ramulator2.trace", traces.ramulator2(reads)))
    for chunk in FETCH_CHUNKS:
        files.append((folder / f"fetch-{chunk}.mqsim.trace", traces.mqsim(chunk, FETCH_BYTES // chunk)))
    return files
