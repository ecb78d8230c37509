"""Speed of the numpy decoder against transformers' LlamaForCausalLM: same weights, same threads."""

import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vrex.errors import UserError
from vrex.sw.videollm.checkpoint import SHIPPED, Checkpoint
from vrex.sw.videollm.decoder import PREFIX
from vrex.sw.videollm.procstream.procvideo import make
from vrex.sw.videollm.videollm import VideoLLM

_VIDEO_SEED = 1
_WARM_UP = 8

Run = Callable[[list[np.ndarray]], np.ndarray]
"""Streams chunks through an empty cache; returns the last token's logits of every chunk."""


def bench_decoder(
    frames: int = 96,
    repeats: int = 3,
    path: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Measure frames per second of both decoders, runs interleaved, float32, with a KV cache.

    A chunk is one frame after its interval word (11 rows with the shipped checkpoint). Frame embeddings are
    computed beforehand, so the decoder alone is timed. Both use the threads numpy's BLAS was started with
    (OPENBLAS_NUM_THREADS, else OMP_NUM_THREADS, else every usable core).

    Args:
        frames: length of the stream, at least 1.
        repeats: timed runs of each decoder, at least 1; the median counts.
        path: checkpoint folder; None is the one that comes with the package.
        progress: called as (runs done, runs in all).

    Returns:
        ``{"numpy": {"fps", "runs"}, "transformers": {"fps", "runs"}, "ratio", "frames", "threads",
        "max_logit_difference"}``: fps in frames/s, ratio = numpy / transformers.

    Raises:
        UserError: torch or transformers is not installed, or a count is below 1.
    """
    if frames < 1 or repeats < 1:
        raise UserError(f"the benchmark got {frames} frames and {repeats} repeats; give at least 1 of each")
    _need_transformers()
    folder = path or SHIPPED
    model = VideoLLM.load(folder)
    chunks = _chunks(model, frames)
    runs: dict[str, Run] = {"numpy": _numpy_run(model), "transformers": _transformers_run(folder, model)}
    fps: dict[str, list[float]] = {name: [] for name in runs}
    logits: dict[str, np.ndarray] = {}
    threads = _blas_threads()
    with _torch_threads(threads):
        for run in runs.values():
            run(chunks[:_WARM_UP])
        for repeat in range(repeats):
            for position, (name, run) in enumerate(runs.items()):
                start = time.perf_counter()
                logits[name] = run(chunks)
                fps[name].append(frames / (time.perf_counter() - start))
                if progress:
                    progress(repeat * len(runs) + position + 1, repeats * len(runs))
    medians = {name: statistics.median(values) for name, values in fps.items()}
    return {
        **{name: {"fps": medians[name], "runs": fps[name]} for name in runs},
        "ratio": medians["numpy"] / medians["transformers"],
        "frames": frames,
        "threads": threads,
        "max_logit_difference": float(np.abs(logits["numpy"] - logits["transformers"]).max()),
    }


def _need_transformers() -> None:
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise UserError(
            "the decoder benchmark needs torch and transformers, which are missing; run make setup-dev"
        ) from error


def _chunks(model: VideoLLM, frames: int) -> list[np.ndarray]:
    """Embeddings [rows, hidden_size] of every frame after its interval word."""
    interval = model.embed_text([model.tokenizer.interval])
    video = _frames(frames, model.config.vision.image_size)
    return [np.concatenate([interval, model.embed_frame(frame)]) for frame in video]


def _frames(count: int, side: int) -> np.ndarray:
    """ProcStream frames, cut or tiled to the model's picture: uint8 [count, side, side, 3]."""
    video = make(_VIDEO_SEED, count).frames
    tiles = -(-side // video.shape[1])
    return np.tile(video, (1, tiles, tiles, 1))[:, :side, :side]


def _numpy_run(model: VideoLLM) -> Run:
    decoder = model.decoder

    def run(chunks: list[np.ndarray]) -> np.ndarray:
        cache = decoder.new_cache("float32")
        return np.concatenate([decoder.logits(decoder.forward(x, cache)[-1:]) for x in chunks])

    return run


def _transformers_run(folder: Path, model: VideoLLM) -> Run:
    import torch
    from transformers import DynamicCache

    llama = _llama(folder, model.config.text.tied)

    def run(chunks: list[np.ndarray]) -> np.ndarray:
        cache, logits = DynamicCache(), []
        with torch.inference_mode():
            for x in chunks:
                embeds = torch.from_numpy(x)[None]
                out = llama(inputs_embeds=embeds, past_key_values=cache, use_cache=True, logits_to_keep=1)
                logits.append(out.logits[0].numpy())
        return np.concatenate(logits)

    return run


def _llama(folder: Path, tied: bool) -> Any:
    """LlamaForCausalLM in float32 with the checkpoint's weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    checkpoint = Checkpoint(folder)
    llama = LlamaForCausalLM(LlamaConfig(**config["text_config"])).float().eval()
    weights = {
        name: torch.from_numpy(checkpoint.tensor(PREFIX + name, tuple(value.shape)))
        for name, value in llama.state_dict().items()
        if not (tied and name == "lm_head.weight")
    }
    llama.load_state_dict(weights, strict=not tied)
    return llama


def _blas_threads() -> int:
    """Threads of numpy's OpenBLAS, which reads its environment once, at start."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        value = os.environ.get(name, "")
        if value.isdigit() and int(value):
            return min(int(value), cores)
    return cores


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
