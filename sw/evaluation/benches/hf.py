"""Time per frame of retrieval in transformers, by length of the past, at Llama-3-8B's layer shapes."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from vrex.errors import UserError

PLAIN = "transformers"
"""The model as it is, without the plug-in."""

POLICIES = (PLAIN, "full", "resv", "rekv", "resv-bits")
LENGTHS = (1_000, 4_000, 10_000, 40_000)
FRAME_TOKENS = 10
ROWS = FRAME_TOKENS + 1
SCENE_FRAMES = 16
TIMED = 5
FILL_FRAMES = 24
"""Frames that enter at once before those that are timed."""

SHAPE: dict[str, Any] = {
    "hidden_size": 4096,
    "intermediate_size": 64,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "rope_theta": 500_000.0,
}
"""Of one layer of Llama-3-8B but for the MLP, which costs the same under every policy."""


def bench_hf(
    lengths: Sequence[int] = LENGTHS,
    device: str = "cpu",
    layers: int = 1,
    policies: Sequence[str] = POLICIES,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Streams made-up frames through random weights and times the last frames before each length.

    A frame's embeddings are its scene's and some noise; a scene lasts `SCENE_FRAMES` frames, so keys do
    cluster. What is attended to means nothing here; how long it takes does. BF16 on a GPU, FP32 on a CPU.

    Args:
        lengths: tokens of the past, each at least `TIMED` + 1 frames.
        device: a name that torch knows.
        layers: decoder layers; the times are of all of them.
        policies: at their defaults; `transformers` is the model without the plug-in.
        progress: called with what is measured next, once for each policy and length.

    Returns:
        device, dtype, layers, and rows of policy, tokens, ms_per_frame (median of `TIMED`) of wall time,
        cpu_ms_per_frame, the same of the process's CPU time, and ratio, null without the plug-in.

    Raises:
        UserError: torch is missing, or there is no such device or policy, or a length is too short.
    """
    short = (TIMED + 1) * ROWS
    if not lengths or min(lengths) < short:
        raise UserError(f"lengths are {list(lengths)}; give at least one, of {short} tokens or more")
    model = _model(layers, device)
    figures: dict[str, Any] = {
        "device": _name(device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "layers": layers,
        "rows": [],
    }
    for policy in policies:
        with _streaming(model, policy) as session:
            seen = 0
            for length in sorted(lengths):
                if progress:
                    progress(f"{policy} {length}")
                frames = length // ROWS
                while seen < frames - TIMED:
                    count = min(FILL_FRAMES, frames - TIMED - seen)
                    _frames(model, session.cache, seen, count)
                    seen += count
                times = [_frames(model, session.cache, index, 1) for index in range(seen, frames)]
                seen = max(seen, frames)
                wall, cpu = (round(1000 * statistics.median(part), 3) for part in zip(*times, strict=True))
                ratio = session.report()["ratio"]["frame"] if policy != PLAIN else None
                row = {"policy": policy, "tokens": seen * ROWS, "ms_per_frame": wall}
                figures["rows"].append(row | {"cpu_ms_per_frame": cpu, "ratio": ratio})
    return figures


@contextmanager
def _streaming(model: Any, policy: str) -> Iterator[Any]:
    """What has the model's cache as `cache`: a session of the plug-in, or nothing else."""
    from transformers import DynamicCache

    from vrex.sw.retrieval.hf import retrieval

    if policy == PLAIN:
        yield SimpleNamespace(cache=DynamicCache(config=model.config))
        return
    with retrieval(model, policy=policy, frame_tokens=FRAME_TOKENS) as session:
        yield session


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


def _frames(model: Any, cache: Any, first: int, count: int) -> tuple[float, float]:
    """Frames through the model, as one chunk; returns its seconds, of wall and of CPU time."""
    import torch

    def noise(seed: int) -> Any:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn((1, ROWS, SHAPE["hidden_size"]), generator=generator)

    indices = range(first, first + count)
    frames = [noise(index // SCENE_FRAMES) + 0.2 * noise(1 << 20 | index) for index in indices]
    x = torch.cat(frames, dim=1).to(model.device, model.dtype)
    _wait(model.device)
    begun = time.perf_counter(), time.process_time()
    with torch.no_grad():
        model.model(inputs_embeds=x, past_key_values=cache)
    _wait(model.device)
    return time.perf_counter() - begun[0], time.process_time() - begun[1]


def _wait(device: Any) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def table(figures: dict[str, Any]) -> str:
    """The rows as text."""
    where = f"{figures['dtype']} on {figures['device']}"
    lines = [f"decoder layers: {figures['layers']}, of Llama-3-8B's shape without its MLP, {where}"]
    lines += [f"{'policy':12}{'tokens':>8}{'ms/frame':>10}{'CPU ms':>10}{'ratio':>8}"]
    for row in figures["rows"]:
        ratio = "-" if row["ratio"] is None else f"{row['ratio']:.3f}"
        times = f"{row['ms_per_frame']:10.2f}{row['cpu_ms_per_frame']:10.2f}"
        lines += [f"{row['policy']:12}{row['tokens']:8}{times}{ratio:>8}"]
    return "\n".join(lines)
