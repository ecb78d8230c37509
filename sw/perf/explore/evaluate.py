"""Figures of a design point, by the same simulation as `vrex perf`."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from vrex.sw.perf.description.method import Method
from vrex.sw.perf.description.system import System
from vrex.sw.perf.description.workload import Workload, frame, token
from vrex.sw.perf.explore import accuracy
from vrex.sw.perf.explore.design import CORE_FIELDS, METHOD_FIELDS, Design
from vrex.sw.perf.simulation import area
from vrex.sw.perf.simulation.calibration import Core
from vrex.sw.perf.simulation.machine import Machine
from vrex.sw.perf.simulation.step import OutOfMemoryError, Step, memory_bytes, simulate

Row = dict[str, Any]

OBJECTIVES = {
    "fps": "max",
    "tokens_per_s": "max",
    "accuracy": "max",
    "frame_ms": "min",
    "tpot_ms": "min",
    "joule_per_frame": "min",
    "joule_per_token": "min",
    "area_mm2": "min",
    "memory_gb": "min",
    "compute_w": "min",
}
"""What a Pareto front may be made of, and which way is better."""
WORKLOAD = ("model", "vision", "kv", "batch")
"""Columns that say what runs; fronts are made among points of the same."""
HARDWARE = (
    "compute.cores", "compute.clock_mhz", "compute.peak_tflops", "memory.part", "memory.channels",
    "link.generation", "link.lanes", "offload.part",
)  # fmt: skip
KINDS = ("vision", "compute", "prediction", "fetch")
FIGURES = (
    "fits", "obstacle", "fps", "tokens_per_s", "frame_ms", "tpot_ms", "joule_per_frame", "joule_per_token",
    "frame_joule", "tpot_joule", *(f"{kind}_ms" for kind in KINDS), "memory_gb", "area_mm2",
    "area_memory_mm2", "area_basis", "compute_w", "accuracy", "accuracy_n", "accuracy_source",
)  # fmt: skip
COLUMNS = ("id", "system", "method", *WORKLOAD, *HARDWARE, *CORE_FIELDS, *METHOD_FIELDS, "recorded", *FIGURES)
"""Of a row, in order."""


@cache
def machine(system: System, core: Core) -> Machine:
    """A system with its memories, simulated once."""
    return Machine(system, core)


def _step(machine: Machine, method: Method, work: Workload) -> Step:
    return simulate(machine, method, work)


def evaluate(design: Design) -> Row:
    """One row: what was chosen and what comes of it; null where something does not apply or is not known."""
    found = machine(design.system, design.core)
    row: Row = dict.fromkeys(COLUMNS)
    row |= {"id": design.id, "recorded": design.recorded, "kv": design.kv, "batch": design.batch}
    row |= dict(zip(("system", "method", "model", "vision"), design.names, strict=True))
    for name in HARDWARE:
        section, _, field = name.partition(".")
        row[name] = getattr(getattr(design.system, section), field)
    row |= {name: getattr(design.method, name) for name in METHOD_FIELDS}
    row["compute_w"] = design.system.power.compute_w
    if found.accelerated:
        row |= {name: getattr(design.core, field) for name, field in CORE_FIELDS.items()}
        chip = area.chip(design.core, design.system.compute.cores)
        row |= {"area_mm2": chip.mm2, "area_memory_mm2": chip.memory_mm2, "area_basis": chip.basis}
    known = accuracy.known(design.method, design.recorded)
    if known is not None:
        row |= {"accuracy": known.accuracy, "accuracy_n": known.n}
        row["accuracy_source"] = f"{known.benchmark}; {known.source}"
    picture = frame(design.model, design.vision, design.kv, design.batch)
    row["memory_gb"] = memory_bytes(found, design.method, picture) / 1e9
    try:
        step = _step(found, design.method, picture)
        text = _step(found, design.method, token(design.model, design.kv, design.batch))
    except OutOfMemoryError as error:
        return row | {"fits": False, "obstacle": str(error)}
    return row | {"fits": True} | _figures(step, text, design.batch)


def _figures(step: Step, text: Step, batch: int) -> Row:
    """Of a frame's step and a token's."""
    return {
        "fps": batch / step.seconds,
        "tokens_per_s": batch / text.seconds,
        "frame_ms": step.seconds * 1e3,
        "tpot_ms": text.seconds * 1e3,
        "frame_joule": step.joules,
        "tpot_joule": text.joules,
        "joule_per_frame": step.joules / batch,
        "joule_per_token": text.joules / batch,
        **{f"{kind}_ms": step.breakdown[kind] * 1e3 for kind in KINDS},
    }


def evaluate_all(designs: Sequence[Design]) -> list[Row]:
    """Rows of several points, in order: what one task of a worker does."""
    return [evaluate(design) for design in designs]
