"""Every metric of the figures, computed from simulated steps."""

import dataclasses
from collections.abc import Callable
from functools import cache

from vrex.sw.perf.description.method import Method, load_method
from vrex.sw.perf.description.system import load_system
from vrex.sw.perf.description.workload import (
    COIN_ANSWER,
    COIN_FRAMES,
    COIN_QUESTION,
    FRAME_TOKENS,
    Workload,
    frame,
    load_model,
    load_vision,
    token,
)
from vrex.sw.perf.memory import pcie
from vrex.sw.perf.report.paper import Quantity
from vrex.sw.perf.simulation import area, calibration
from vrex.sw.perf.simulation.calibration import EDGE
from vrex.sw.perf.simulation.machine import Machine
from vrex.sw.perf.simulation.step import OutOfMemoryError, Step, simulate

MODEL, VISION = "llama-3-8b", "siglip-l-384"
LENGTHS = (1000, 5000, 10000, 20000, 40000)
FRAMES_A_SECOND = 10


class Context:
    """Simulated steps, each once; constants of methods may be replaced, which is what fitting does."""

    def __init__(
        self, model: str = MODEL, vision: str = VISION, changed: dict[str, Method] | None = None
    ) -> None:
        """A context without steps.

        Args:
            model, vision: by name.
            changed: methods that take the place of those of the same name.
        """
        self.model, self.tower = load_model(model), load_vision(vision)
        self.changed = dict(changed or {})
        self._steps: dict[tuple[str, str, Workload], Step] = {}

    def method(self, name: str) -> Method:
        """A method, changed or not."""
        if name not in self.changed:
            self.changed[name] = load_method(name)
        return self.changed[name]

    def step(self, system: str, method: str, work: Workload) -> Step:
        """A step.

        Raises:
            OutOfMemoryError: it does not fit.
        """
        key = (system, method, work)
        if key not in self._steps:
            self._steps[key] = simulate(machine(system), self.method(method), work)
        return self._steps[key]

    def frame(self, system: str, method: str, kv: int, batch: int) -> Step:
        """The step of a frame."""
        return self.step(system, method, frame(self.model, self.tower, kv, batch))

    def token(self, system: str, method: str, kv: int, batch: int, tokens: int = 1) -> Step:
        """The step of a generated token."""
        return self.step(system, method, token(self.model, kv, batch, tokens))

    def coin(self, system: str, method: str, kv: int, batch: int) -> float:
        """Seconds of the average COIN case that begins with so many tokens in the cache."""
        after = kv + COIN_FRAMES * FRAME_TOKENS
        answered = after + COIN_QUESTION + COIN_ANSWER // 2
        return (
            COIN_FRAMES * self.frame(system, method, kv + COIN_FRAMES * FRAME_TOKENS // 2, batch).seconds
            + self.token(system, method, after, batch, COIN_QUESTION).seconds
            + COIN_ANSWER * self.token(system, method, answered, batch).seconds
        )


@cache
def machine(system: str) -> Machine:
    """A system with its simulated memories."""
    return Machine(load_system(system))


def _over(wanted: Quantity) -> Quantity:
    system, _, method = wanted.over.partition("/")
    return dataclasses.replace(wanted, system=system, method=method)


def _gain(metric: Callable[[Context, Quantity], float]) -> Callable[[Context, Quantity], float]:
    """How much smaller a metric is than that of what the gain is over."""
    return lambda context, wanted: metric(context, _over(wanted)) / metric(context, wanted)


def _frame(context: Context, wanted: Quantity) -> Step:
    return context.frame(wanted.system, wanted.method, wanted.kv, wanted.batch)


def _token(context: Context, wanted: Quantity) -> Step:
    return context.token(wanted.system, wanted.method, wanted.kv, wanted.batch)


def _frame_ms(context: Context, wanted: Quantity) -> float:
    return _frame(context, wanted).seconds * 1e3


def _tpot_ms(context: Context, wanted: Quantity) -> float:
    return _token(context, wanted).seconds * 1e3


def _frame_joule(context: Context, wanted: Quantity) -> float:
    return _frame(context, wanted).joules


def _tpot_joule(context: Context, wanted: Quantity) -> float:
    return _token(context, wanted).joules


def _coin_s(context: Context, wanted: Quantity) -> float:
    return context.coin(wanted.system, wanted.method, wanted.kv, wanted.batch)


def _fps(context: Context, wanted: Quantity) -> float:
    return wanted.batch / _frame(context, wanted).seconds


def _share(kind: str) -> Callable[[Context, Quantity], float]:
    def share(context: Context, wanted: Quantity) -> float:
        step = _frame(context, wanted)
        return step.breakdown[kind] / step.seconds

    return share


def _retrieval_share(context: Context, wanted: Quantity) -> float:
    return _share("prediction")(context, wanted) + _share("fetch")(context, wanted)


def _prefill_share(context: Context, wanted: Quantity) -> float:
    whole = _coin_s(context, wanted)
    step = context.frame(
        wanted.system, wanted.method, wanted.kv + COIN_FRAMES * FRAME_TOKENS // 2, wanted.batch
    )
    return COIN_FRAMES * step.seconds / whole


def _flop_share(context: Context, wanted: Quantity) -> float:
    step = _frame(context, wanted)
    return step.selection_flop / (step.selection_flop + step.flop)


def _minutes_to_full(context: Context, wanted: Quantity) -> float:
    """Minutes of video until weights and cache fill the memory."""
    model, system = context.model, machine(wanted.system).system
    free = system.memory.capacity_gb * 1e9 - model.weight_bytes - 2 * context.tower.weights
    grows = wanted.batch * FRAMES_A_SECOND * model.layers * model.kv_bytes(FRAME_TOKENS + 1)
    return free / grows / 60


def _largest_kv(context: Context, wanted: Quantity) -> float:
    """The largest of the paper's lengths that fits."""
    largest = 0
    for kv in LENGTHS:
        try:
            context.frame(wanted.system, wanted.method, kv, wanted.batch)
        except OutOfMemoryError:
            break
        largest = kv
    return largest


def _op_per_byte(context: Context, wanted: Quantity) -> float:
    step = _frame(context, wanted)
    return step.flop / step.dram_bytes


def _roof_share(context: Context, wanted: Quantity) -> float:
    """Of what the memory's nominal bandwidth and the peak allow at this many operations a byte."""
    step, found = _frame(context, wanted), machine(wanted.system)
    roof = min(found.peak_flops, step.flop / step.dram_bytes * found.peak_bandwidth)
    return step.flop / step.seconds / roof


def _prediction_peak(context: Context, wanted: Quantity) -> float:
    """GB/s while tables are read: the weight ports of all cores, or what the memory gives."""
    found = machine(wanted.system)
    ports = found.system.compute.cores * calibration.load()["dpe"]["inputs"] * 2
    return min(ports * found.system.compute.clock_mhz * 1e6, found.bandwidth()) / 1e9


def _retrieval_dram_share(context: Context, wanted: Quantity) -> float:
    """What the link writes into memory, of the memory's bandwidth."""
    found = machine(wanted.system)
    return found.link_rate(16384) / found.peak_bandwidth


def _peak_tflops(context: Context, wanted: Quantity) -> float:
    """Multiplications and additions of DPE and VPE of all cores."""
    found, cores = machine(wanted.system).system.compute, calibration.load()
    dpe, lanes = cores["dpe"], cores["vpe"]["lanes"]
    return found.cores * (2 * dpe["trees"] * dpe["inputs"] + 2 * lanes) * found.clock_mhz * 1e6 / 1e12


def _core_area(context: Context, wanted: Quantity) -> float:
    """Square millimetres of one core's units: synthesised gates and memory bits at published densities."""
    parts = area.parts(EDGE)
    found = {unit: part.logic_mm2 for unit, part in parts.items()}
    found["memory"] = sum(part.memory_mm2 for part in parts.values())
    return sum(found.values()) if wanted.method == "total" else found[wanted.method]


def _chip_area(context: Context, wanted: Quantity) -> float:
    """mm2 of all cores, by ours."""
    core = _core_area(context, dataclasses.replace(wanted, method="total"))
    return machine(wanted.system).system.compute.cores * core


def _dre_area_share(context: Context, wanted: Quantity) -> float:
    """HCU, WTU and KVMU without their memories, of a core."""
    areas = [_core_area(context, dataclasses.replace(wanted, method=unit)) for unit in ("hcu", "wtu", "kvmu")]
    return sum(areas) / _core_area(context, dataclasses.replace(wanted, method="total"))


PARTS = ("compute", "idle", "dram", "link", "offload")


def _part_joule(part: str) -> Callable[[Context, Quantity], float]:
    return lambda context, wanted: _frame(context, wanted).energy[part]


METRICS: dict[str, Callable[[Context, Quantity], float]] = {
    "frame_ms": _frame_ms,
    "tpot_ms": _tpot_ms,
    "frame_gain": _gain(_frame_ms),
    "tpot_gain": _gain(_tpot_ms),
    "frame_joule": _frame_joule,
    "tpot_joule": _tpot_joule,
    "frame_energy_gain": _gain(_frame_joule),
    "tpot_energy_gain": _gain(_tpot_joule),
    "coin_gain": _gain(_coin_s),
    "fps": _fps,
    "fps_gain": lambda context, wanted: _fps(context, wanted) / _fps(context, _over(wanted)),
    "prediction_share": _share("prediction"),
    "fetch_share": _share("fetch"),
    "retrieval_share": _retrieval_share,
    "prefill_share": _prefill_share,
    "retrieval_flop_share": _flop_share,
    "minutes_to_full": _minutes_to_full,
    "largest_kv": _largest_kv,
    "op_per_byte": _op_per_byte,
    "roof_share": _roof_share,
    "prediction_peak_gb_s": _prediction_peak,
    "retrieval_dram_share": _retrieval_dram_share,
    "peak_tflops": _peak_tflops,
    "bandwidth_gb_s": lambda context, wanted: machine(wanted.system).peak_bandwidth / 1e9,
    "link_gb_s": lambda context, wanted: pcie.raw(machine(wanted.system).system.link) / 1e9,
    "area_mm2": _core_area,
    "chip_area_mm2": _chip_area,
    "dre_area_share": _dre_area_share,
    **{f"frame_joule_{part}": _part_joule(part) for part in PARTS},
}
"""By name; `power_mw` of Table III is not among them, since it needs switching activity."""
