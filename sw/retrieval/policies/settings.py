"""Checks that the policies' settings share: each raises `UserError` with one sentence."""

from collections.abc import Iterable

from vrex.errors import UserError


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """The value must be one of the choices."""
    choices = list(choices)
    if value not in choices:
        raise UserError(f"{name} {value!r} is unknown; choose one of {', '.join(choices)}")


def check_int(name: str, value: int, low: int, high: int | None = None) -> None:
    """The value must be a whole number of the range low..high, ends included; None is no upper end."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < low or (high is not None and value > high):
        span = f"at least {low}" if high is None else f"from {low} to {high}"
        raise UserError(f"{name} must be {span}, not {value!r}")


def check_share(name: str, value: float) -> None:
    """The value must be a share of a whole that is not empty: above 0, at most 1."""
    if not 0 < value <= 1:
        raise UserError(f"{name} must be above 0 and at most 1, not {value!r}")


def check_th_r(value: float) -> None:
    """The value must be a threshold ratio: at least 0, below 1."""
    if not 0 <= value < 1:
        raise UserError(f"th_r must be at least 0 and below 1, not {value!r}")
