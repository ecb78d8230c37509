"""A unit's quick proofs on the design with one mutant built in.

The proofs are tests of a checkout; without one there are none. This module is also the plug-in of pytest that
builds the mutant in: `pytest -p vrex.tb.mutate.proofs`.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from vrex.errors import UserError

ENV_MUTANT = "VREX_TB_MUTANT"
"""Environment variable with the JSON object {unit, mutant} that is built into the proofs' designs."""

LIMIT_SECONDS = 240
"""Longest time of the proofs with a mutant; they have then seen nothing."""

_DRE = "tests/hw/dre/test_formal"
PROOFS = {
    "hcu": [f"{_DRE}.py::test_hcu"],
    "wtu": [f"{_DRE}_wtu.py::test_wtu"],
    "kvpu": [f"{_DRE}.py::test_packer", f"{_DRE}.py::test_kvpu"],
    "axi": [
        *(
            f"tests/hw/lib/test_formal_axi.py::test_{part}"
            for part in ("planner", "client", "reader", "writer")
        ),
        "tests/hw/lib/test_formal_master.py::test_every_client_gets_its_ends",
    ],
    "fetch": [f"{_DRE}_fetch.py::test_fetch"],
    "mean": [f"{_DRE}.py::test_mean", f"{_DRE}.py::test_arithmetic"],
    "quant": [f"{_DRE}.py::test_arithmetic"],
    "codes": [f"{_DRE}_codes.py::test_selection"],
    "lxe": [f"tests/hw/lxe/test_formal_lxe.py::test_{part}" for part in ("walker", "reader", "unpacker")],
    "dre": [f"{_DRE}_dre.py::test_dispatcher"],
}
"""Tests of pytest that prove something of a unit, without the slow ones and those by induction.

A mutant may break what an induction needs of the state inside without any harm outside.
"""

_ROOT = Path(__file__).parents[3]
"""The checkout."""


def files(unit: str) -> list[Path]:
    """Sources of a unit's proofs; none outside a checkout."""
    own = {_ROOT / name.partition("::")[0] for name in PROOFS.get(unit, [])}
    found = sorted(path for path in own if path.exists())
    return [*found, _ROOT / "tests/hw/formal.py"] if found else []


def failed(
    unit: str,
    mutant: str | None,
    began: Callable[[subprocess.Popen[str]], None] = lambda process: None,
) -> str:
    """The first of a unit's quick proofs that fails with a mutant built in; empty if all pass.

    Args:
        unit: a key of `vrex.tb.mutate.design.OWN`.
        mutant: its name; None for the design itself.
        began: gets pytest's process, the leader of a process group.

    Raises:
        UserError: the proofs can't be run.
    """
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not slow", "-p", "no:cacheprovider"]
    command += [] if mutant is None else ["-p", "vrex.tb.mutate.proofs"]
    process = subprocess.Popen(
        [*command, *PROOFS[unit]],
        cwd=_ROOT,
        env=os.environ | {ENV_MUTANT: json.dumps({"unit": unit, "mutant": mutant})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    began(process)
    try:
        out, _ = process.communicate(timeout=LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        from vrex.tb.mutate.simulate import end

        end(process)
        process.communicate()
        return ""
    if process.returncode not in (0, 1):
        last = (out.strip().splitlines() or ["no output"])[-1]
        raise UserError(f"the proofs of unit {unit} can't be run ({last})")
    found = re.search(r"^(?:FAILED|ERROR) \S*?::(\S+)", out, re.MULTILINE)
    return "" if process.returncode == 0 else (found[1] if found else "a proof")


def _build_in() -> None:
    """Builds the mutant of `ENV_MUTANT` into all hardware that this process makes."""
    from vrex.tb.mutate import inject
    from vrex.tb.mutate.design import modules

    ask = json.loads(os.environ[ENV_MUTANT])
    inject.install(modules(ask["unit"]))
    inject.begin(alone=ask["mutant"])


if ENV_MUTANT in os.environ and "pytest" in sys.modules:
    _build_in()
