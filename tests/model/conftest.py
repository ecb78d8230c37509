"""Runs the properties of the golden model at two sizes: small in CI, large with `-m slow`."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

Prove = Callable[..., None]


@pytest.fixture(params=[pytest.param(1, id="ci"), pytest.param(10, id="long", marks=pytest.mark.slow)])
def prove(request: pytest.FixtureRequest) -> Prove:
    """Function that runs a property over its strategies; derandomized, so a failure repeats as it is."""

    every_check: list[Any] = list(HealthCheck)

    def run(check: Callable[..., None], *, examples: int = 150, **strategies: SearchStrategy) -> None:
        profile = settings(
            max_examples=examples * request.param,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=every_check,
        )
        profile(given(**strategies)(check))()

    return run
