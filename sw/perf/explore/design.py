"""One design point: a system, a core and a method, changed by field, and what runs on them."""

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from vrex.errors import UserError
from vrex.sw.perf.description.method import Method
from vrex.sw.perf.description.sections import Rule, rule_of
from vrex.sw.perf.description.system import ACCELERATOR, SSD, System, check_system
from vrex.sw.perf.description.workload import Model, Vision
from vrex.sw.perf.memory.parts import load_dram, load_flash
from vrex.sw.perf.report.paper import lookup
from vrex.sw.perf.simulation import calibration
from vrex.sw.perf.simulation.calibration import EDGE, Core

CORE_FIELDS = {"dpe.trees": "trees", "dpe.rows": "rows", "vpe.lanes": "vpe_lanes", "hcu.lanes": "hcu_lanes"}
"""Fields of the RTL's configuration that cycles and areas are known by, and their names in `Core`."""
ROWS = (32, 64)
"""Rows of the DPE whose cycles and memories are recorded."""
SHARED_FIELDS = (
    "memory.part", "memory.channels", "memory.capacity_gb", "link.generation", "link.lanes",
    "link.max_payload", "offload.part", "offload.channels", "offload.capacity_gb", "power.lane_w",
    "power.offload_w",
)  # fmt: skip
GPU_FIELDS = (
    "compute.peak_tflops", "compute.roofline_share", "compute.launch_us", "power.compute_w", "power.idle_w",
    *SHARED_FIELDS,
)  # fmt: skip
ACCELERATOR_FIELDS = (
    "compute.cores", "compute.clock_mhz", *CORE_FIELDS, "power.dram_pj_bit", *SHARED_FIELDS,
)  # fmt: skip
METHOD_FIELDS = (
    "overlap", "offloaded", "ratio_frame", "ratio_text", "run_tokens", "per_head", "kv_bits", "mean_bits",
    "cluster_tokens",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Design:
    """A point of a sweep.

    Attributes:
        names: of system, method, model, vision tower.
        system, core, method, model, vision: what these stand for, after all changes.
        kv, batch: past tokens of a sequence, and sequences.
        recorded: name of the recorded setting that the method was given; None: of none.
    """

    names: tuple[str, str, str, str]
    system: System
    core: Core
    method: Method
    model: Model
    vision: Vision
    kv: int
    batch: int
    recorded: str | None = None

    @property
    def id(self) -> str:
        """What a store knows the point by: a hash of all that its figures depend on."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:20]

    def key(self) -> dict[str, Any]:
        """See `Store`."""
        return {"id": self.id}


def core_values(name: str) -> list[int]:
    """Values of a field of the RTL's configuration whose cycles are recorded."""
    known = calibration.load()
    recorded = {
        "dpe.trees": known["dpe"]["tile_cycles"],
        "dpe.rows": ROWS,
        "vpe.lanes": known["vpe"]["word_cycles"],
        "hcu.lanes": known["hcu"]["cycles"],
    }
    return sorted(map(int, recorded[name]))


def complaint(name: str, value: object, system: System) -> str | None:
    """What is wrong with a value of a hardware field, as the end of a sentence; None: nothing."""
    own = ACCELERATOR_FIELDS if system.compute.kind == ACCELERATOR else GPU_FIELDS
    if name not in own:
        if name in (*ACCELERATOR_FIELDS, *GPU_FIELDS):
            return f"does not belong to {system.title}; of that, {', '.join(own)} can be swept"
        return f"is unknown; known are {', '.join(own)}"
    if name in CORE_FIELDS:
        if isinstance(value, bool) or value not in core_values(name):
            return f"is not one of {', '.join(map(str, core_values(name)))}, whose cycles are recorded"
        return None
    return rule_of(System, name).complaint(value)


def method_rule(name: str) -> Rule | None:
    """What a field of the method may be; None: it can't be swept."""
    return rule_of(Method, name) if name in METHOD_FIELDS else None


@cache
def _core_mw(core: Core) -> float:
    """Milliwatts of a core by the V-Rex paper's Table III: DPE and VPE in proportion to trees and lanes."""

    def unit(name: str) -> float:
        return lookup("table3", "power_mw", 0, 0, "v-rex core", name)

    rest = unit("total") - unit("dpe") - unit("vpe")
    return unit("dpe") * core.trees / EDGE.trees + unit("vpe") * core.vpe_lanes / EDGE.vpe_lanes + rest


def change_hardware(
    system: System, changes: Mapping[str, Any], path: Path, place: str
) -> tuple[System, Core]:
    """A system with fields changed, and its core.

    What follows from changed fields follows: an accelerator's peak, and its power in proportion to cores,
    clock and units, at the same voltage.

    Args:
        system: as its file has it.
        changes: values by field that `complaint` has found right.
        path, place: of the changes, for the message.

    Raises:
        UserError: fields don't fit together, or a memory part is unknown.
    """
    core = EDGE
    parts: dict[str, dict[str, Any]] = {}
    for name, value in changes.items():
        section, _, field = name.partition(".")
        if name in CORE_FIELDS:
            core = dataclasses.replace(core, **{CORE_FIELDS[name]: value})
        else:
            parts.setdefault(section, {})[field] = rule_of(System, name).kind(value)
    changed = dataclasses.replace(
        system,
        **{
            section: dataclasses.replace(getattr(system, section), **fields)
            for section, fields in parts.items()
        },
    )
    was, now = system.compute, changed.compute
    if (now.cores, now.clock_mhz) != (was.cores, was.clock_mhz) or core != EDGE:
        changed = _with_power(system, changed, core)
    try:
        check_system(changed, path)
        load_dram(changed.memory.part)
        (load_flash if changed.offload.kind == SSD else load_dram)(changed.offload.part)
    except UserError as error:
        raise UserError(f"{path}: {place} makes no system of {system.title}: {error}") from error
    return changed, core


def _with_power(before: System, after: System, core: Core) -> System:
    was, now = before.compute, after.compute
    macs = 2 * core.trees * calibration.load()["dpe"]["inputs"] + 2 * core.vpe_lanes
    peak = now.cores * macs * now.clock_mhz * 1e6 / 1e12
    share = now.cores * now.clock_mhz * _core_mw(core) / (was.cores * was.clock_mhz * _core_mw(EDGE))
    return dataclasses.replace(
        after,
        compute=dataclasses.replace(now, peak_tflops=peak),
        power=dataclasses.replace(
            after.power, compute_w=before.power.compute_w * share, idle_w=before.power.idle_w * share
        ),
    )


def change_method(method: Method, changes: Mapping[str, Any]) -> Method:
    """A method with fields changed.

    Where a cluster's tokens lie together (`run_tokens` is `cluster_tokens`), they do so with clusters of
    another size as well.
    """
    found = dict(changes)
    together = method.run_tokens == method.cluster_tokens and method.run_tokens > 1
    if together and "cluster_tokens" in found and "run_tokens" not in found:
        found["run_tokens"] = max(1, int(found["cluster_tokens"]))
    return dataclasses.replace(
        method, **{name: rule_of(Method, name).kind(value) for name, value in found.items()}
    )
