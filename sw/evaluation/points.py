"""The policies to compare and their settings, as the command line names them."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vrex.errors import UserError
from vrex.sw.retrieval.policies.account import Reporting
from vrex.sw.retrieval.policies.calibration import Calibration, Model, calibration_at
from vrex.sw.retrieval.policies.registry import entry, make_policy, make_settings
from vrex.sw.retrieval.policies.shape import Shape

LINK = "+"


@dataclass(frozen=True)
class Point:
    """A policy at one setting.

    Attributes:
        policy: its name in the registry.
        knobs: (name, value) of all its knobs, in the order of the settings.
    """

    policy: str
    knobs: tuple[tuple[str, Any], ...]

    @classmethod
    def of(cls, policy: str, knobs: dict[str, Any]) -> "Point":
        """The policy with these knobs, the others at their defaults.

        Raises:
            UserError: no such policy or knob, or a value out of its range.
        """
        return cls(policy, tuple(dataclasses.asdict(make_settings(policy, knobs)).items()))

    @property
    def settings(self) -> Any:
        """An instance of the policy's settings class."""
        return make_settings(self.policy, dict(self.knobs))

    def key(self) -> dict[str, Any]:
        """`policy` and `settings`, for JSON."""
        return {"policy": self.policy, "settings": dict(self.knobs)}

    def calibration(self, path: Path, model: Model, make: Callable[[], Calibration]) -> Calibration | None:
        """The policy's calibration (see `calibration_at`), None if it needs none."""
        return calibration_at(path, model, make) if entry(self.policy).calibrated else None

    def new_policy(self, shape: Shape, calibration: Calibration | None) -> Reporting:
        """A policy that has seen nothing yet (see `make_policy`)."""
        return make_policy(self.policy, self.settings, shape, calibration=calibration)


def make_points(policies: Sequence[str], sets: Sequence[str]) -> list[Point]:
    """Every policy at every combination of the values given for its knobs.

    Args:
        policies: names, in the order of the report.
        sets: words `knob=a,b` (for every policy that has the knob) or `policy.knob=a,b` (for that one). Knobs
            joined by `+` take each value together: `rekv.frame_ratio+text_ratio=0.1,0.2` makes two points.

    Raises:
        UserError: an unknown policy or knob, a value out of its range, or something named twice.
    """
    if not policies:
        raise UserError("--policies names none; give at least one, as in --policies full,resv")
    if len(set(policies)) < len(policies):
        raise UserError("--policies names a policy twice; name each once")
    axes: dict[str, list[list[dict[str, str]]]] = {policy: [] for policy in policies}
    known = {policy: entry(policy).knobs for policy in policies}
    for word in sets:
        owners, knobs, values = _split(word, known)
        for owner in owners:
            if any(knob in axis[0] for axis in axes[owner] for knob in knobs):
                raise UserError(f"--set {word}: {knobs[0]} of {owner} is set twice; give its values at once")
            axes[owner].append([dict.fromkeys(knobs, value) for value in values])
    points = [
        Point.of(policy, {knob: value for choice in choices for knob, value in choice.items()})
        for policy in policies
        for choices in itertools.product(*axes[policy])
    ]
    return list(dict.fromkeys(points))


def _split(word: str, known: dict[str, dict[str, Any]]) -> tuple[list[str], list[str], list[str]]:
    """The policies, knobs and values of one `--set`."""
    target, equals, text = word.partition("=")
    values = text.split(",")
    policy, dot, names = target.rpartition(".")
    knobs = names.split(LINK)
    if not equals or not all(values) or not all(knobs):
        raise UserError(f"--set {word!r} is not of the form knob=value,value or policy.knob=value,value")
    if dot and policy not in known:
        raise UserError(f"--set {word}: policy {policy!r} is not among --policies; add it there")
    owners = [policy] if dot else [name for name in known if set(knobs) <= set(known[name])]
    if not owners:
        raise UserError(f"--set {word}: no policy of --policies has the knob {names!r}; leave it out")
    return owners, knobs, values
