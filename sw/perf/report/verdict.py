"""A verdict on each number: how near ours is, and if it is not, why."""

from vrex.sw.perf.description.workload import Workload, frame, token
from vrex.sw.perf.memory import pcie
from vrex.sw.perf.report.metrics import Context, machine
from vrex.sw.perf.report.paper import Quantity, stated
from vrex.sw.perf.simulation import software
from vrex.sw.perf.simulation.step import OutOfMemoryError, Step

REPRODUCED, NEAR, UNKNOWN = "reproduced (10 %)", "within 20 %", "no number in the paper"
LATENCIES = ("frame_ms", "tpot_ms")


def judge(context: Context, wanted: Quantity, ours: float | None, obstacle: str = "") -> str:
    """The verdict.

    Args:
        context: of the simulated steps.
        wanted: what was computed, with the paper's number.
        ours: the result; None: it could not be computed.
        obstacle: why not.
    """
    if ours is None:
        return f"not reproduced: {obstacle}" if wanted.paper is not None else obstacle
    if wanted.paper is None:
        return UNKNOWN
    if floor := _below_the_link(context, wanted):
        return f"contradicts the paper's own {floor}"
    miss = abs(ours / wanted.paper - 1)
    if miss <= 0.1:
        return REPRODUCED
    return NEAR if miss <= 0.2 else f"not reproduced: {reason(context, wanted)}"


def _below_the_link(context: Context, wanted: Quantity) -> str:
    """Whether a printed latency is shorter than the printed ratio takes on the printed link."""
    if wanted.metric not in LATENCIES or wanted.method != "vrex" or wanted.paper is None:
        return ""
    ratios = stated()["ratios"]
    low = ratios["frame_low" if wanted.metric == "frame_ms" else "text_low"]
    rate = pcie.nominal(machine(wanted.system).system.link)
    size = wanted.batch * context.model.layers * context.model.kv_bytes(wanted.kv)
    if low * size / rate * 1e3 <= wanted.paper:
        return ""
    return (
        f"ratio: {low:.1%} of the cache, its lowest task's, take {low * size / rate * 1e3:.0f} ms "
        f"at the link's nominal {rate / 1e9:.0f} GB/s"
    )


def work_of(context: Context, wanted: Quantity) -> Workload:
    """The step that a metric is about."""
    if wanted.metric.startswith("tpot"):
        return token(context.model, wanted.kv, wanted.batch)
    return frame(context.model, context.tower, wanted.kv, wanted.batch)


def parts(step: Step) -> str:
    """A step's time by kind, in words."""
    shown = [f"{seconds * 1e3:.1f} {kind}" for kind, seconds in step.breakdown.items() if seconds >= 5e-5]
    return f"{step.seconds * 1e3:.1f} ms = {' + '.join(shown)}"


def joules(step: Step) -> str:
    """A step's energy by part, in words."""
    shown = [f"{value:.2f} {part}" for part, value in step.energy.items() if value >= 0.005]
    return f"{step.joules:.2f} J = {' + '.join(shown)}"


def reason(context: Context, wanted: Quantity) -> str:
    """Why a number comes out otherwise: what ours is made of."""
    if wanted.metric == "power_mw":
        return "power needs switching activity of a layout, which is not simulated here"
    if wanted.metric in ("area_mm2", "chip_area_mm2", "dre_area_share"):
        return "ours is from synthesis at published 14 nm densities; another content, or rounding"
    if not wanted.kv:
        return "ours follows from the data sheets"
    shown = joules if "energy" in wanted.metric else parts
    own = shown(context.step(wanted.system, wanted.method, work_of(context, wanted)))
    if wanted.over:
        system, _, method = wanted.over.partition("/")
        try:
            other = shown(context.step(system, method, work_of(context, wanted)))
        except OutOfMemoryError as error:
            other = str(error)
        return f"ours {own}, against {other}"
    if wanted.metric == "prediction_peak_gb_s":
        return (
            "ours reads tables as fast as the memory gives them; how long the paper's window is is not stated"
        )
    if (
        wanted.metric in ("prediction_share", "retrieval_flop_share", "fetch_share")
        and wanted.system == "agx-orin"
    ):
        found = software.select(context.model, work_of(context, wanted), context.method(wanted.method))
        own += f"; selecting is {found.kernels} kernels and {found.bytes / 1e6:.0f} MB a layer"
    return f"ours {own}"
