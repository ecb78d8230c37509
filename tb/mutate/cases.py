"""The cases of a unit's bench for cocotb, the shortest first, each with a limit of simulated time.

A mutant that hangs or never stops moving data fails at the limit, whatever the machine's speed.
"""

import json
import os
from importlib import import_module
from typing import Any

from cocotb.regression import Test, TestGenerator

ENV_CASES = "VREX_TB_CASES"
"""Environment variable with the JSON object {module, cycles}: cycles of each case without a mutant; null
where they are still to be measured."""

PERIOD_NS = 10
"""A clock cycle of `vrex.tb.lib.bench.Bench`."""

TIMES = 3
"""The limit is so many times the cycles without a mutant ..."""

MORE_CYCLES = 2000
"""... and so many cycles more."""


def tests(module: str, cycles: dict[str, int] | None) -> dict[str, Any]:
    """The cases of a bench by name, as tests of cocotb."""
    found: list[Any] = []
    for entry in vars(import_module(module)).values():
        if isinstance(entry, Test):
            found.append(entry)
        elif isinstance(entry, TestGenerator):
            found += entry.generate_tests()
    for test in found:
        if cycles is not None:
            test.stage = cycles[test.name]
            test.timeout = ((TIMES * cycles[test.name] + MORE_CYCLES) * PERIOD_NS, "ns")
    return {test.name.replace("/", "_"): test for test in found}


if ENV_CASES in os.environ:
    ask = json.loads(os.environ[ENV_CASES])
    globals().update(tests(ask["module"], ask["cycles"]))
