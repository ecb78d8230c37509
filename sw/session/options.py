"""What a session can be asked for, and which options need or exclude each other."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vrex.errors import UserError
from vrex.model.config_rules import is_whole
from vrex.model.serial import SCHEME
from vrex.sw.retrieval.policies import DEFAULT, FALLBACK

if TYPE_CHECKING:
    import numpy as np

    from vrex.model.config import Config
    from vrex.sw.retrieval.policies.account import Reporting
    from vrex.sw.retrieval.policies.shape import Shape
    from vrex.sw.videollm.videollm import VideoLLM

MODES = ("narrate", "quiet")
BACKENDS = ("golden", "rtl")
"""And `serial:PORT`, a board behind a serial port."""

ARITHMETIC = ("rtl", "dpi")
"""How the simulated core multiplies: in its Verilog, or in C++ functions in its place."""

IN_MEMORY = ("dre", "core", "layer")
"""Offloads with the KV cache in the engine's memory."""

ON_LXE = ("core", "layer")
"""Offloads with an LXE."""

ON_BOARD = ("kvpu", "dre", "chip")
"""Offloads that a board behind a serial port can have."""

CODED = ("kvpu", "dre")
"""Offloads that have a unit that selects by codes in their place, for policy `resv-bits`."""

CHIP = "chip"
"""Offload of the whole decoder to a core."""

OFFLOADS = ("kvpu", *IN_MEMORY, CHIP)
CACHE_BITS = (16, 4)

LXE_PRESET = "tiny"
"""What a simulator of an LXE can be built for in a minute."""

PRESET, CHIP_PRESET = "edge", "small"
"""Of the accelerator by default: of any, and of a core, which must simulate fast."""

PAPER_FIXES = ("rule", "th_hd", "th_r", "n_hp", "scope", "sinks", "window")
"""Knobs that `paper` sets (ResvSettings.paper)."""

TABLE_SIZES = ("table_clusters", "table_segments", "ring_segments")
"""Options that give the tables in the DRE's memory room."""

SIZES = (*TABLE_SIZES, "segment_tokens")
"""Options that size the DRE's memory."""

CACHE = {"device_bytes": 16_000_000, "host_bytes": 64_000_000, "cache_bits": 16}
"""Options of the cache and their defaults."""


@dataclass(frozen=True)
class SessionOptions:
    """What a session is made of; the command line of ``vrex run`` has the same options.

    Attributes:
        video: a file, ``procstream:[LEVEL:]SEED``, or frames, uint8 [image_size, image_size, 3] each.
        frames: watch at most so many.
        fps: frames a second of the video's time; None is the sidecar's, else 2.
        ask: (seconds, question), instead of the video's own questions.
        mode: `narrate` lets the model speak unasked, `quiet` does not.
        model: checkpoint, or with `adapter` and `vision` its language model, or a model that is loaded;
            None is the one that comes with the package.
        adapter: LoRA adapter with the connector.
        vision: SigLIP model.
        stream_weights: read each decoder layer's weights when it is needed.
        policy: a name of `vrex.sw.retrieval.policies.NAMES`, or what makes a policy of the decoder's `Shape`;
            None is `resv-bits`, and `resv` with `paper`, `cache`, a board, or an offload other than `kvpu`.
        knobs: of a policy that is not your own, those not given at their defaults.
        paper: the paper's own setting of `PAPER_FIXES`.
        calibration: file that keeps the calibration of a policy that needs one; None measures anew.
        config: of the accelerator: a preset's name, a TOML file (`vrex.model.config_file`), or the object;
            None is `edge`, for offload `chip` `small`.
        backend: `golden` (model), `rtl` (simulated Verilog), or `serial:PORT`, a board behind a serial port,
            `serial:PORT@BAUD` at another rate than 2,000,000.
        offload: what the accelerator does: `kvpu` predicts (a voter, with policy `resv-bits`); `dre` also
            keeps the KV cache in its memory (the unit `recall`, with policy `resv-bits`);
            `core` also computes hash-bits and scores; `layer` also runs the decoder layers of `layers`;
            `chip` runs the whole decoder by itself.
        layers: None is layer 0.
        lxe_preset: of the LXE; None is `tiny`.
        table_clusters: room of each HC table in the DRE's memory; None: by the video's length.
        table_segments: room of each KV store there, in segments; None: by the video's length.
        ring_segments: segments of it in accelerator memory, a power of two or 0; None is four chunks.
        segment_tokens: tokens of a segment; None is the configuration's.
        check: compare the RTL, or the board, with the golden model at every call.
        arithmetic: of a simulated core: `rtl`, or `dpi`, its MAC trees and vector lanes as C++ functions that
            give the same bits in the same cycles, which simulates faster.
        cache: file for keys and values beyond two budgets; if it is there, the session goes on where it ends.
        device_bytes, host_bytes: the budgets; None is 16 and 64 MB.
        cache_bits: of a value in the file, 16 or 4; None is 16.

    Raises:
        UserError: a value is none of those above, or options contradict each other; the sentence names them
            as the command line does.
    """

    video: "str | Path | Iterable[np.ndarray]"
    _: dataclasses.KW_ONLY
    frames: int | None = None
    fps: float | None = None
    ask: Sequence[tuple[float, str]] = ()
    mode: str = "quiet"
    model: "str | Path | VideoLLM | None" = None
    adapter: str | Path | None = None
    vision: str | Path | None = None
    stream_weights: bool = False
    policy: "str | Callable[[Shape], Reporting] | None" = None
    knobs: Mapping[str, Any] = field(default_factory=dict)
    paper: bool = False
    calibration: str | Path | None = None
    config: "str | Path | Config | None" = None
    backend: str = "golden"
    offload: str = "kvpu"
    layers: Sequence[int] | None = None
    lxe_preset: str | None = None
    table_clusters: int | None = None
    table_segments: int | None = None
    ring_segments: int | None = None
    segment_tokens: int | None = None
    check: bool = False
    arithmetic: str = "rtl"
    cache: str | Path | None = None
    device_bytes: int | None = None
    host_bytes: int | None = None
    cache_bits: int | None = None

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            good = value in choices or value == _DEFAULTS[name] or (name == "backend" and self.is_on_board)
            named = (*choices, f"{SCHEME}PORT") if name == "backend" else choices
            _check(name, value, good, f"one of {', '.join(map(str, named))}")
        for name, least in _LEAST.items():
            value = getattr(self, name)
            good = value is None or (is_whole(value) and value >= least)
            _check(name, value, good, f"a whole number of at least {least}")
        good = self.fps is None or (self.fps > 0 and math.isfinite(self.fps))
        _check("fps", self.fps, good, "a number above 0")
        for rule in NEEDS:
            rule.check(self)
        if self.is_on_board and self.offload not in ON_BOARD:
            raise UserError(
                f"--backend {self.backend} is a board with a KVPU, a DRE or a core, but --offload "
                f"{self.offload} needs an LXE beside a DRE; choose the backend rtl, or --offload dre or chip"
            )
        if self.policy_name == "resv-bits" and self.offload not in CODED:
            raise UserError(
                f"--offload {self.offload} clusters keys, but --policy resv-bits selects by codes; "
                "choose --offload dre, or policy resv"
            )
        if self.is_on_board and self.policy_name == "resv-bits":
            raise UserError(
                f"--backend {self.backend} is a board that clusters keys, but --policy resv-bits selects by "
                "codes; choose the backend rtl, or policy resv"
            )
        clash = [name for name in self.knobs if name in PAPER_FIXES]
        if self.paper and clash:
            raise UserError(f"--paper sets {option(clash[0])} itself; leave one of the two out")

    @property
    def is_on_board(self) -> bool:
        """Whether the accelerator is a board behind a serial port."""
        return isinstance(self.backend, str) and self.backend.startswith(SCHEME)

    @property
    def gates(self) -> str:
        """`rtl` where the accelerator has gates, simulated or not."""
        return "rtl" if self.is_on_board else self.backend

    @property
    def chosen(self) -> "str | Callable[[Shape], Reporting]":
        """The policy, by default too."""
        if self.policy is not None:
            return self.policy
        return DEFAULT if self.fallback_for is None else FALLBACK

    @property
    def fallback_for(self) -> str | None:
        """The option that makes `resv` the default policy, None where none does or a policy is named."""
        if self.policy is not None:
            return None
        names = [name for name in ("paper", "cache", "offload") if self.is_given(name)]
        names += ["backend"] if self.is_on_board else []
        return self.spelled(names[0]) if names else None

    @property
    def policy_name(self) -> str:
        """The policy, for people."""
        policy = self.chosen
        if isinstance(policy, str):
            return policy
        return str(getattr(policy, "name", None) or getattr(policy, "__name__", "own"))

    def is_given(self, name: str) -> bool:
        """Whether an option differs from its default."""
        value = getattr(self, name)
        return value is not None and value != _DEFAULTS[name]

    def spelled(self, name: str) -> str:
        """An option as the command line spells it, with its value where that is a word of a few."""
        return f"{option(name)} {getattr(self, name)}" if name in _SPELLED else option(name)


def option(name: str) -> str:
    """An option's name on the command line."""
    return "--" + name.replace("_", "-")


def _check(name: str, value: object, good: bool, rule: str) -> None:
    if not good:
        raise UserError(f"{option(name)} must be {rule}, not {value!r}")


@dataclass(frozen=True)
class Needs:
    """Options that have a meaning only with some values of another one.

    Attributes:
        options: those.
        other: the other.
        values: its values; None is any but the default.
        sentence: for the user, of `option` (one that is given in vain), `value` of the other and `does`.
    """

    options: tuple[str, ...]
    other: str
    values: tuple[object, ...] | None
    sentence: str

    def check(self, given: SessionOptions) -> None:
        """Sees that the options keep to it.

        Raises:
            UserError: they do not.
        """
        value = getattr(given, self.other)
        if given.is_given(self.other) if self.values is None else value in self.values:
            return
        for name in self.options:
            if given.is_given(name):
                does = NO_ACCELERATOR.get(value, "does not run on the accelerator")
                raise UserError(self.sentence.format(option=given.spelled(name), value=value, does=does))


NO_ACCELERATOR = {"full": "retrieves nothing", "resv-bits": "selects by codes"}
"""Why options of the accelerator have no meaning with a policy, where it is not that it never runs there."""

WITHOUT_MEANING = "{option} has no meaning with --policy {value}, which {does}; leave one out"

NEEDS = (
    Needs(("check", "backend"), "policy_name", ("resv", "resv-bits"), WITHOUT_MEANING),
    Needs(("paper",), "policy_name", ("resv",), WITHOUT_MEANING),
    Needs(("offload",), "policy_name", ("resv", "resv-bits"), WITHOUT_MEANING),
    Needs(
        SIZES,
        "offload",
        (*IN_MEMORY, CHIP),
        "{option} sizes the DRE's memory; add --offload dre, or leave it out",
    ),
    Needs(SIZES, "policy_name", ("resv",), "{option} sizes the tables of policy resv; leave one out"),
    Needs(
        ("layers",),
        "offload",
        ("layer",),
        "--layers names what --offload layer runs; add it, or leave --layers out",
    ),
    Needs(
        ("lxe_preset",),
        "offload",
        ON_LXE,
        "--lxe-preset needs an LXE; add --offload core or layer, or leave it out",
    ),
    Needs(tuple(CACHE), "cache", None, "{option} is about the cache file; add --cache, or leave it out"),
    Needs(
        ("cache",),
        "policy_name",
        ("resv",),
        "--cache needs policy resv with --offload kvpu, not --policy {value}; leave one out",
    ),
    Needs(
        ("cache",),
        "offload",
        ("kvpu",),
        "--cache needs policy resv with --offload kvpu, not --offload {value}; leave one out",
    ),
    Needs(
        ("check",),
        "gates",
        ("rtl",),
        "--check compares the RTL with the golden model; add --backend rtl, or leave --check out",
    ),
    Needs(
        ("arithmetic",),
        "backend",
        ("rtl",),
        "{option} is about a simulated core; add --backend rtl, or leave it out",
    ),
    Needs(
        ("arithmetic",),
        "offload",
        (CHIP,),
        "{option} is about a simulated core; add --offload chip, or leave it out",
    ),
)
"""In the order in which they are looked at."""

_SPELLED = ("backend", "offload", "arithmetic")
"""Options that are named with their value."""

_CHOICES: dict[str, tuple[object, ...]] = {
    "mode": MODES,
    "backend": BACKENDS,
    "offload": OFFLOADS,
    "arithmetic": ARITHMETIC,
    "cache_bits": CACHE_BITS,
}
_LEAST = {
    "frames": 1,
    "table_clusters": 0,
    "table_segments": 0,
    "ring_segments": 0,
    "segment_tokens": 1,
    "device_bytes": 0,
    "host_bytes": 0,
}
_DEFAULTS = {found.name: found.default for found in dataclasses.fields(SessionOptions)}
