"""The policies by name: their settings and how to make them."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vrex.errors import UserError
from vrex.model.config import preset
from vrex.sw.driver import CommandTransport, VoterEngine, open_transport
from vrex.sw.driver.command_interface import KVPU, VOTER
from vrex.sw.retrieval.policies.account import Reporting
from vrex.sw.retrieval.policies.calibration import Calibration
from vrex.sw.retrieval.policies.full import Flexgen, Full
from vrex.sw.retrieval.policies.host_tables import HostTables
from vrex.sw.retrieval.policies.infinigen import Infinigen, InfinigenP, InfinigenPSettings, InfinigenSettings
from vrex.sw.retrieval.policies.narrow import BF16_BITS, Narrow
from vrex.sw.retrieval.policies.oaken import Oaken, OakenSettings
from vrex.sw.retrieval.policies.quest import Quest, QuestSettings
from vrex.sw.retrieval.policies.rekv import Rekv, RekvSettings
from vrex.sw.retrieval.policies.resv import Resv
from vrex.sw.retrieval.policies.resv_bits import ResvBits, ResvBitsSettings
from vrex.sw.retrieval.policies.resv_nocluster import ResvNocluster, ResvNoclusterSettings
from vrex.sw.retrieval.policies.resv_settings import ResvSettings
from vrex.sw.retrieval.policies.shape import Shape
from vrex.sw.retrieval.policies.streaming_llm import StreamingLlm, StreamingLlmSettings
from vrex.sw.retrieval.policies.topk import Topk, TopkSettings


@dataclass(frozen=True)
class NoSettings:
    """The settings of a policy without knobs."""


@dataclass(frozen=True)
class Entry:
    """One policy.

    Attributes:
        settings: class of its settings.
        build: makes it from settings and shape, and from a calibration or a transport where it needs one.
        calibrated: it needs a calibration.
        accelerator: what it runs on, KVPU or voter; without a voter the host does the same.
    """

    settings: type
    build: Callable[..., Reporting]
    calibrated: bool = False
    accelerator: str | None = None

    @property
    def knobs(self) -> dict[str, Any]:
        """Its knobs and their defaults."""
        return {knob.name: knob.default for knob in dataclasses.fields(self.settings)}


def _resv(settings: ResvSettings, shape: Shape, transport: CommandTransport) -> Resv:
    return Resv(settings, shape, HostTables(settings, shape, transport))


def _resv_bits(settings: ResvBitsSettings, shape: Shape, transport: CommandTransport | None) -> ResvBits:
    return ResvBits(settings, shape, None if transport is None else VoterEngine(transport))


POLICIES = {
    "full": Entry(NoSettings, lambda _, shape: Full(shape)),
    "flexgen": Entry(NoSettings, lambda _, shape: Flexgen(shape)),
    "infinigen": Entry(InfinigenSettings, Infinigen, calibrated=True),
    "infinigen-p": Entry(InfinigenPSettings, InfinigenP, calibrated=True),
    "rekv": Entry(RekvSettings, Rekv),
    "oaken": Entry(OakenSettings, Oaken, calibrated=True),
    "resv": Entry(ResvSettings, _resv, accelerator=KVPU),
    "resv-bits": Entry(ResvBitsSettings, _resv_bits, accelerator=VOTER),
    "resv-nocluster": Entry(ResvNoclusterSettings, ResvNocluster),
    "topk": Entry(TopkSettings, Topk),
    "streaming-llm": Entry(StreamingLlmSettings, StreamingLlm),
    "quest": Entry(QuestSettings, Quest),
}
"""Every policy there is."""


def entry(name: str) -> Entry:
    """The policy of that name.

    Raises:
        UserError: there is none; the sentence lists those there are.
    """
    if name not in POLICIES:
        raise UserError(f"policy {name!r} is unknown; choose one of {', '.join(POLICIES)}")
    return POLICIES[name]


def make_settings(name: str, knobs: dict[str, Any], paper: bool = False) -> Any:
    """A policy's settings, those not given at their defaults.

    Args:
        name: of the policy.
        knobs: values by name, as numbers and words or as the text of a command line.
        paper: those not given are the paper's own (`ResvSettings.paper`); only `resv` has them.

    Raises:
        UserError: no such policy or knob, or a value of the wrong type or out of its range.
    """
    known = entry(name).knobs
    for knob in knobs:
        if knob not in known:
            has = f"choose one of {', '.join(known)}" if known else "it has none"
            owners = [owner for owner, other in POLICIES.items() if knob in other.knobs]
            whose = f", or policy {' or '.join(owners)}, which has it" if owners else ""
            raise UserError(f"policy {name} has no knob {knob!r}; {has}{whose}")
    values = {knob: _typed(knob, value, known[knob]) for knob, value in knobs.items()}
    if paper:
        return dataclasses.replace(ResvSettings.paper(), **values)
    return entry(name).settings(**values)


_WORDS = {"true": True, "false": False}


def _typed(knob: str, value: Any, default: Any) -> Any:
    """A knob's value in the type of its default."""
    kind = type(default)
    if isinstance(value, str) and kind is not str:
        value = _WORDS.get(value) if kind is bool else _number(value, kind)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        names = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}
        raise UserError(f"{knob} must be {names[kind]}; see its range in the documentation of the policy")
    return value


def _number(text: str, kind: type) -> Any:
    try:
        return kind(text)
    except ValueError:
        return None


def make_policy(
    name: str,
    settings: Any,
    shape: Shape,
    *,
    calibration: Calibration | None = None,
    transport: CommandTransport | None = None,
) -> Reporting:
    """A policy that has seen nothing yet.

    Args:
        name: of the policy.
        settings: as `make_settings` gives them.
        shape: the decoder's dimensions.
        calibration: of the model; policies marked `calibrated` need it.
        transport: the accelerator, for policies that have one; None is preset `edge`'s golden KVPU, or no
            voter.

    Raises:
        UserError: the accelerator does not hold what the settings ask for.
        ValueError: the calibration is missing.
    """
    policy = _make_plain(entry(name), name, settings, shape, calibration, transport)
    return policy if getattr(settings, "kv_bits", BF16_BITS) == BF16_BITS else Narrow(policy, settings, shape)


def _make_plain(
    policy: Entry,
    name: str,
    settings: Any,
    shape: Shape,
    calibration: Calibration | None,
    transport: CommandTransport | None,
) -> Reporting:
    """The policy itself, with keys and values in the cache."""
    if policy.calibrated:
        if calibration is None:
            raise ValueError(f"policy {name} needs a calibration")
        return policy.build(settings, shape, calibration)
    if policy.accelerator == KVPU:
        transport = transport or open_transport("golden", preset("edge").with_hash_bits(settings.n_hp))
    if policy.accelerator is not None:
        return policy.build(settings, shape, transport)
    return policy.build(settings, shape)
