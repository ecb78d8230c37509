"""The table of figures."""

from typing import Any

from vrex.hw.tools.synth import report


def memory(name: str, depth: int = 8, kind: str = "macro") -> dict[str, Any]:
    return {"name": name, "depth": depth, "width": 4, "bits": 4 * depth, "kind": kind}


def test_memories_of_numbered_instances_share_a_line() -> None:
    names = [f"vpe.lane_{lane}.table_{part}.words" for lane in range(12) for part in range(2)]
    memories = [*map(memory, names), memory("vpe.lane_3.table_1.sums", 16), memory("vpe.bank_1", 8)]
    figures = {"cells": 1, "ff": 1, "area": 2.0, "critical_path_ns": 1.0, "memories": memories}
    text = report.table({"library": "cells", "preset": "tiny", "units": {"core": figures}, "flags": {}})
    rows = [line.split() for line in text.splitlines() if line.startswith("core.")]
    assert rows == [
        ["core.vpe.lane_0.table_0.words", "24", "8", "x", "4", "768", "macro"],
        ["core.vpe.lane_3.table_1.sums", "1", "16", "x", "4", "64", "macro"],
        ["core.vpe.bank_1", "1", "8", "x", "4", "32", "macro"],
    ]
