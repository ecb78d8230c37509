"""Time per frame of retrieval in transformers, by length of the past, at Llama-3-8B's layer shapes."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from vrex.errors import UserError

POLICIES = ("full", "resv", "rekv")
LENGTHS = (1_000, 4_000, 10_000, 40_000)
FRAME_TOKENS = 10
ROWS = FRAME_TOKENS + 1
SCENE_FRAMES = 16
TIMED = 5
SHAPE: dict[str, Any] = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "rope_theta": 500_000.0,
}
"""Of one layer of Llama-3-8B."""


def bench_hf(
    lengths: Sequence[int] = LENGTHS,
    device: str = "cpu",
    layers: int = 1,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Streams made-up frames through random weights and times the last frames before each length.

    A frame's embeddings are its scene's and some noise; a scene lasts `SCENE_FRAMES` frames, so keys do
    cluster. What is attended to means nothing here; how long it takes does. BF16 on a GPU, FP32 on a CPU.

    Args:
        lengths: tokens of the past, each at least `TIMED` + 1 frames.
        device: a name that torch knows.
        layers: decoder layers; the times are of all of them.
        progress: called with what is measured next, once for each policy and length.

    Returns:
        device, dtype, layers, and rows of policy, tokens, ms_per_frame (median of `TIMED`), ratio.

    Raises:
        UserError: torch is missing, or there is no such device, or a length is too short.
    """
    short = (TIMED + 1) * ROWS
    if not lengths or min(lengths) < short:
        raise UserError(f"lengths are {list(lengths)}; give at least one, of {short} tokens or more")
    from vrex.sw.retrieval.hf import retrieval

    model = _model(layers, device)
    figures: dict[str, Any] = {
        "device": _name(device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "layers": layers,
        "rows": [],
    }
    for policy in POLICIES:
        with retrieval(model, policy=policy, frame_tokens=FRAME_TOKENS) as session:
            times: list[float] = []
            for length in sorted(lengths):
                if progress:
                    progress(f"{policy} {length}")
                while len(times) < length // ROWS:
                    times.append(_frame(model, session, len(times)))
                figures["rows"].append(
                    {
                        "policy": policy,
                        "tokens": len(times) * ROWS,
                        "ms_per_frame": round(1000 * statistics.median(times[-TIMED:]), 3),
                        "ratio": session.report()["ratio"]["frame"],
                    }
                )
    return figures


def _model(layers: int, device: str) -> Any:
    """Random weights; a vocabulary of one word, since only the layers count."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"device {device!r} cannot be used here; choose cpu, or install a torch for it"
        ) from error
    config = LlamaConfig(**SHAPE, num_hidden_layers=layers, vocab_size=8)
    dtype = torch.float32 if place.type == "cpu" else torch.bfloat16
    model: Any = LlamaForCausalLM(config)
    return model.to(place, dtype).eval()


def _name(device: str) -> str:
    import torch

    place = torch.device(device)
    return torch.cuda.get_device_name(place) if place.type == "cuda" else place.type


def _frame(model: Any, session: Any, index: int) -> float:
    """One frame through the model; returns its seconds."""
    import torch

    def noise(seed: int) -> Any:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn((1, ROWS, SHAPE["hidden_size"]), generator=generator)

    x = (noise(index // SCENE_FRAMES) + 0.2 * noise(1 << 20 | index)).to(model.device, model.dtype)
    _wait(model.device)
    begun = time.perf_counter()
    with torch.no_grad():
        model.model(inputs_embeds=x, past_key_values=session.cache)
    _wait(model.device)
    return time.perf_counter() - begun


def _wait(device: Any) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def table(figures: dict[str, Any]) -> str:
    """The rows as text."""
    where = f"{figures['dtype']} on {figures['device']}"
    lines = [f"decoder layers: {figures['layers']}, of Llama-3-8B's shape, {where}"]
    lines += [f"{'policy':8}{'tokens':>8}{'ms/frame':>10}{'ratio':>8}"]
    lines += [
        f"{row['policy']:8}{row['tokens']:8}{row['ms_per_frame']:10.2f}{row['ratio']:8.3f}"
        for row in figures["rows"]
    ]
    return "\n".join(lines)
