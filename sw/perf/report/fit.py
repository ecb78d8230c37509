"""Constants fitted to the paper, only where somebody asks for it, and named in what comes out."""

import dataclasses

from vrex.sw.perf.report.metrics import Context
from vrex.sw.perf.report.paper import lookup

STEPS = 40
LONG = 40000


def fitted() -> tuple[Context, dict[str, float]]:
    """A context in which V-Rex8's frame at 40 K takes as long as printed, by the ratio that does it.

    Returns:
        The context, and the fitted constants by name.
    """
    wanted = lookup("13a", "frame_ms", LONG, system="v-rex8") / 1e3
    plain = Context()
    method = plain.method("vrex")
    low, high = 1e-6, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        context = Context(changed={"vrex": dataclasses.replace(method, ratio_frame=middle)})
        if context.frame("v-rex8", "vrex", LONG, 1).seconds > wanted:
            high = middle
        else:
            low = middle
    return Context(changed={"vrex": dataclasses.replace(method, ratio_frame=high)}), {
        "vrex.ratio_frame": high
    }
