"""Where the paper's numbers contradict each other, found from the numbers themselves and nominal figures.

No simulated number decides here but where a check says so; machines give nominal rates, sizes and powers.
"""

from collections.abc import Callable, Iterator
from typing import Any

from vrex.sw.perf.description.workload import frame
from vrex.sw.perf.memory import pcie
from vrex.sw.perf.report.metrics import Context, machine
from vrex.sw.perf.report.paper import lookup, numbers, stated
from vrex.sw.perf.simulation.step import memory_bytes

Row = dict[str, Any]
EDGE, SERVER = "v-rex8", "v-rex48"
GPU = {EDGE: "agx-orin", SERVER: "a100"}
ROUNDING = 0.05
"""What two roundings of printed numbers may differ by."""
LONG = 40000


def row(system: str, metric: str, kv: int, batch: int, paper: float, ours: float, sentence: str) -> Row:
    """A row of the report; `ours` is what the paper's other numbers imply."""
    return {
        "figure": "contradictions",
        "system": system,
        "method": "vrex",
        "metric": metric,
        "kv": kv or None,
        "batch": batch or None,
        "paper": paper,
        "ours": ours,
        "ratio": ours / paper,
        "verdict": f"contradicts the paper's own {sentence}",
    }


def kv_bytes(context: Context, kv: int, batch: int) -> float:
    """Bytes of the whole cache."""
    return batch * context.model.layers * context.model.kv_bytes(kv)


def _implied_ratios(context: Context) -> Iterator[Row]:
    """What the link can move in the printed latency, of the cache: against the printed ratio."""
    low = stated()["ratios"]["frame_low"]
    rate = pcie.nominal(machine(EDGE).system.link)
    single = lookup("13a", "frame_ms", LONG, system=EDGE) / 1e3
    # FlexGen takes at least its fetch at the nominal rate and the step of one resident sequence.
    flexgen = kv_bytes(context, LONG, 4) / rate + context.frame(GPU[EDGE], "resident", LONG, 1).seconds
    cases = (
        (1, single, "printed latency"),
        (4, flexgen / lookup("13a", "frame_gain", LONG, 4), "printed gain over FlexGen"),
        (16, 16 / lookup("15", "fps", LONG, 16), "printed frame rate"),
    )
    for batch, seconds, what in cases:
        implied = rate * seconds / kv_bytes(context, LONG, batch)
        if implied < low:
            yield row(
                EDGE, "ratio_frame", LONG, batch, low, implied,
                f"ratio: in the {what} PCIe moves {implied:.1%} of the cache, "
                f"not the {low:.1%} of its lowest task",
            )  # fmt: skip


def _offloading(context: Context) -> Iterator[Row]:
    """A cache that fits beside the weights needs no link; dense attention reads it at full bandwidth."""
    found = machine(EDGE)
    work = frame(context.model, context.tower, LONG)
    needed = memory_bytes(found, context.method("resident"), work)
    printed = lookup("13a", "frame_ms", LONG, system=EDGE)
    tower = 2 * context.tower.weights
    read = 2 * context.model.layers * context.model.layer_weights + tower + kv_bytes(context, LONG, 1)
    dense = read / found.peak_bandwidth * 1e3 + context.tower.flop / found.peak_flops * 1e3
    if needed <= found.system.memory.capacity_gb * 1e9 and dense < printed:
        yield row(
            EDGE, "frame_ms", LONG, 1, printed, dense,
            f"need to offload at batch 1: weights and cache take {needed / 1e9:.1f} of "
            f"{found.system.memory.capacity_gb:.0f} GB, and dense attention on them about {dense:.0f} ms",
        )  # fmt: skip


def _gains(context: Context) -> Iterator[Row]:
    """One gain, printed three times."""
    printed = {
        "Fig. 13": lookup("13a", "frame_gain", LONG),
        "Fig. 16": lookup("16", "frame_gain", LONG),
        "2400 ms / 254 ms": lookup("13a", "frame_ms", LONG, system=GPU[EDGE], method="flexgen")
        / lookup("13a", "frame_ms", LONG, system=EDGE),
    }
    first = printed["Fig. 13"]
    for name, gain in printed.items():
        if abs(gain / first - 1) > ROUNDING:
            yield row(
                EDGE, "frame_gain", LONG, 1, first, gain,
                f"gain over FlexGen: {first:.1f} in Fig. 13, {gain:.1f} by {name}",
            )  # fmt: skip


def _roofline(context: Context) -> Iterator[Row]:
    """Operations a byte times bandwidth, against the peak and the printed share of it."""
    found = machine(EDGE)
    intensity = lookup("18", "op_per_byte", LONG, 4)
    roof = intensity * found.peak_bandwidth
    share = lookup("18", "roof_share", LONG, 4, EDGE)
    if share * found.peak_flops > roof:
        yield row(
            EDGE, "roof_share", LONG, 4, share, roof / found.peak_flops,
            f"roofline: at {intensity} Op/B the DRAM allows {roof / 1e12:.1f} of "
            f"{found.peak_flops / 1e12:.1f} TFLOPS, so {share:.1%} can't be of the peak: memory binds",
        )  # fmt: skip


def _bandwidths(context: Context) -> Iterator[Row]:
    """A peak above the edge system's memory, and the link's share of DRAM bandwidth."""
    peak = lookup("17", "prediction_peak_gb_s", LONG)
    edge = machine(EDGE).peak_bandwidth / 1e9
    if peak > edge:
        yield row(
            EDGE, "prediction_peak_gb_s", LONG, 1, peak, edge,
            f"Table I on the edge: {peak:.0f} GB/s are more than its {edge:.1f} GB/s; "
            "only the server's memory has them",
        )  # fmt: skip
    printed = lookup("17", "retrieval_dram_share", LONG)
    for system in (EDGE, SERVER):
        share = pcie.nominal(machine(system).system.link) / machine(system).peak_bandwidth
        if abs(share / printed - 1) > 0.5:
            yield row(
                system, "retrieval_dram_share", LONG, 1, printed, share,
                f"Table I: a link at work takes {share:.2%} of DRAM bandwidth, not about {printed:.0%}",
            )  # fmt: skip


def _energies(context: Context) -> Iterator[Row]:
    """No energy gain exceeds the gain in time by more than the ratio of nameplate powers."""
    for entry in numbers():
        if (
            not entry.metric.endswith("_energy_gain")
            or entry.method != "vrex"
            or entry.figure not in ("13a", "13b")
        ):
            continue
        times = {
            (other.kv, other.batch): other.paper
            for other in numbers()
            if other.figure == entry.figure and other.metric == entry.metric.replace("_energy", "")
        }
        gain = times.get((entry.kv, entry.batch))
        if gain is None or entry.paper is None:
            continue
        power = machine(GPU[entry.system]).system.power.board_w / machine(entry.system).system.power.board_w
        if entry.paper > gain * power * (1 + ROUNDING):
            yield row(
                entry.system, entry.metric, entry.kv, entry.batch, entry.paper, gain * power,
                f"powers: {gain}x in time and nameplate powers that differ by {power:.2f} give at most "
                f"{gain * power:.1f}x",
            )  # fmt: skip


def _powers(context: Context) -> Iterator[Row]:
    """The engine's power, stated twice and summed in Table III."""
    power = {
        name: lookup("table3", "power_mw", 0, 0, method=name) for name in ("hcu", "wtu", "kvmu", "total")
    }
    summed = (power["hcu"] + power["wtu"] + power["kvmu"]) / power["total"]
    dre = stated()["dre"]
    for name in ("power_abstract", "power_text"):
        if abs(dre[name] - summed) > 0.0005:
            yield row(
                "v-rex core", "dre_power_share", 0, 0, dre[name], summed,
                f"Table III: HCU, WTU and KVMU are {summed:.1%} of the power, not {dre[name]:.1%}",
            )  # fmt: skip


CHECKS: tuple[Callable[[Context], Iterator[Row]], ...] = (
    _implied_ratios,
    _offloading,
    _gains,
    _roofline,
    _bandwidths,
    _energies,
    _powers,
)


def find(context: Context) -> list[Row]:
    """All contradictions, a row each."""
    return [found for check in CHECKS for found in check(context)]
