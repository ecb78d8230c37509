"""The table of figures."""

import copy
from typing import Any

from vrex.sw.evaluation.reports.table import format_run

RESULT: dict[str, Any] = {
    "frames": 96,
    "fps": 2.345,
    "questions": 8,
    "correct": 7,
    "ratio": {"frame": 0.4321, "text": None, "per_layer_head": [[0.4, 0.5]]},
    "clusters": 1200,
    "tokens_per_cluster": 4.25,
    "rows": 67_890,
    "degenerate_rows": 12_345,
    "rtl": {
        "cycles": 96_000,
        "calls": 1600,
        "compared": 3200,
        "mismatches": 2,
        "units": {"hcu": 48_000, "wtu": 24_000},
    },
    "settings": {"policy": "resv", "fallback_for": None, "backend": "rtl", "check": True},
}


def _rows(result: dict[str, Any]) -> dict[str, str]:
    return {line[:18].rstrip(): line[20:] for line in format_run(result).splitlines()}


def test_every_figure_is_shown() -> None:
    assert _rows(RESULT) == {
        "policy": "resv",
        "frames": "96 at 2.35 frames/s",
        "questions": "8, 7 answered right",
        "retrieval ratio": "frame 43.2 %, text - of the past tokens attended",
        "clusters": "1,200 of 4.2 tokens on average",
        "engine calls": "1,600",
        "degenerate rows": "12,345 of 67,890 rows (weighted sum not positive)",
        "RTL cycles / frame": "1,000 (hcu 500, wtu 250)",
        "RTL check": "3,200 results compared with the golden model, 2 mismatches",
    }


def test_what_was_not_done_is_not_shown() -> None:
    result = copy.deepcopy(RESULT)
    result["settings"] |= {"policy": "full", "backend": "golden", "check": False}
    result["correct"] = None
    assert set(_rows(result)) == {"policy", "frames", "questions", "retrieval ratio"}
    assert _rows(result)["questions"] == "8"


def test_why_a_policy_is_the_default_is_said() -> None:
    result = copy.deepcopy(RESULT)
    result["settings"]["fallback_for"] = "--offload dre"
    assert _rows(result)["policy"] == "resv, the default with --offload dre"


def test_an_rtl_run_without_a_check_says_so() -> None:
    result = copy.deepcopy(RESULT)
    result["settings"]["check"] = False
    assert _rows(result)["RTL check"] == "not asked for"


def test_what_is_not_finite_is_shown_where_there_is_any() -> None:
    result = copy.deepcopy(RESULT)
    result["settings"] |= {"policy": "resv-bits", "backend": "golden", "check": False}
    result |= {"nan_keys": 0, "degenerate_rows": 0}
    assert "not finite" not in _rows(result)
    result |= {"nan_keys": 1200}
    assert _rows(result)["not finite"] == "1,200 keys, never selected; 0 rows, without a vote"
    result |= {"nan_keys": 0, "degenerate_rows": 7}
    assert _rows(result)["not finite"] == "0 keys, never selected; 7 rows, without a vote"
