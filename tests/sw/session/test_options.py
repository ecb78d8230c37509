"""What a session's options need and exclude."""

from pathlib import Path
from typing import Any

import pytest

from vrex.errors import UserError
from vrex.sw.session.options import SessionOptions


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"mode": "loud"}, "--mode must be one of narrate, quiet, not 'loud'"),
        ({"backend": "gpu"}, "--backend must be one of golden, rtl, serial:PORT, not 'gpu'"),
        ({"arithmetic": "float"}, "--arithmetic must be one of rtl, dpi, not 'float'"),
        (
            {"offload": "chip", "arithmetic": "dpi"},
            "--arithmetic dpi is about a simulated core; add --backend rtl",
        ),
        (
            {"backend": "rtl", "arithmetic": "dpi"},
            "--arithmetic dpi is about a simulated core; add --offload chip",
        ),
        ({"offload": "all"}, "--offload must be one of kvpu, dre, core, layer, chip, not 'all'"),
        ({"cache": "x", "cache_bits": 8}, "--cache-bits must be one of 16, 4, not 8"),
        ({"frames": 0}, "--frames must be a whole number of at least 1, not 0"),
        ({"frames": True}, "--frames must be a whole number of at least 1, not True"),
        ({"frames": 1.5}, "--frames must be a whole number of at least 1, not 1.5"),
        ({"fps": 0.0}, "--fps must be a number above 0, not 0.0"),
        ({"fps": float("nan")}, "--fps must be a number above 0, not nan"),
        ({"offload": "dre", "table_clusters": -1}, "--table-clusters must be a whole number of at least 0"),
        ({"policy": "full", "paper": True}, "--paper has no meaning with --policy full, which retrieves"),
        ({"policy": "topk", "backend": "rtl"}, "--backend rtl has no meaning with --policy topk, which does"),
        (
            {"policy": "resv-bits", "offload": "chip"},
            "--offload chip clusters keys, but --policy resv-bits selects by codes; choose --offload dre",
        ),
        ({"policy": "resv-bits", "offload": "core"}, "--offload core clusters keys, but --policy resv-bits"),
        (
            {"policy": "resv-bits", "offload": "dre", "ring_segments": 64},
            "--ring-segments sizes the tables of policy resv; leave one out",
        ),
        (
            {"policy": "resv-bits", "backend": "serial:p"},
            "--backend serial:p is a board that clusters keys, but --policy resv-bits selects by codes",
        ),
        ({"policy": "topk", "offload": "dre"}, "--offload dre has no meaning with --policy topk, which does"),
        ({"policy": "topk", "check": True}, "--check has no meaning with --policy topk, which does not run"),
        ({"ring_segments": 64}, "--ring-segments sizes the DRE's memory; add --offload dre"),
        ({"offload": "chip", "layers": [1]}, "--layers names what --offload layer runs; add it"),
        ({"offload": "chip", "lxe_preset": "tiny"}, "--lxe-preset needs an LXE; add --offload core or layer"),
        (
            {"offload": "chip", "cache": "x"},
            "--cache needs policy resv with --offload kvpu, not --offload chip",
        ),
        ({"offload": "core", "layers": [1]}, "--layers names what --offload layer runs; add it"),
        ({"offload": "dre", "lxe_preset": "tiny"}, "--lxe-preset needs an LXE; add --offload core or layer"),
        ({"host_bytes": 5}, "--host-bytes is about the cache file; add --cache, or leave it out"),
        (
            {"policy": "topk", "cache": "x"},
            "--cache needs policy resv with --offload kvpu, not --policy topk",
        ),
        (
            {"offload": "dre", "cache": "x"},
            "--cache needs policy resv with --offload kvpu, not --offload dre",
        ),
        ({"check": True}, "--check compares the RTL with the golden model; add --backend rtl"),
        ({"paper": True, "knobs": {"seed": 1, "th_hd": 3}}, "--paper sets --th-hd itself; leave one"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as raised:
        SessionOptions("procstream:1", **options)
    assert str(raised.value).startswith(says)


@pytest.mark.parametrize(
    "options",
    [
        {"offload": "dre", "backend": "rtl", "check": True, "segment_tokens": 4, "table_clusters": 0},
        {"offload": "layer", "layers": [0, 3], "lxe_preset": "edge"},
        {"offload": "chip", "config": "tiny", "table_clusters": 100},
        {"offload": "chip", "backend": "rtl", "arithmetic": "dpi"},
        {"cache": Path("x"), "device_bytes": 0, "cache_bits": 4},
        {"paper": True, "knobs": {"seed": 1, "predict": "next"}},
        {"policy": "topk", "knobs": {"ratio": 0.5}, "calibration": "x.npz"},
    ],
)
def test_options_that_do(options: dict[str, Any]) -> None:
    assert SessionOptions("procstream:1", **options).policy_name == options.get("policy", "resv")


@pytest.mark.parametrize(
    ("options", "policy", "because"),
    [
        ({}, "resv-bits", None),
        ({"backend": "rtl", "check": True, "config": "tiny"}, "resv-bits", None),
        ({"paper": True}, "resv", "--paper"),
        ({"cache": "x"}, "resv", "--cache"),
        ({"offload": "core"}, "resv", "--offload core"),
        ({"backend": "serial:p"}, "resv", "--backend serial:p"),
        ({"backend": "serial:p", "offload": "dre"}, "resv", "--offload dre"),
        ({"policy": "resv", "offload": "dre"}, "resv", None),
        ({"policy": "topk"}, "topk", None),
    ],
)
def test_the_policy_by_default(options: dict[str, Any], policy: str, because: str | None) -> None:
    made = SessionOptions("procstream:1", **options)
    assert (made.chosen, made.policy_name, made.fallback_for) == (policy, policy, because)
