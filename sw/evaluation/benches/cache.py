"""The tiered KV cache over a long stream: process memory, and time and bytes of each chunk."""

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vrex.model.config import preset
from vrex.model.lib import arith
from vrex.sw.driver import open_transport
from vrex.sw.retrieval.cache.tables import StoredTables
from vrex.sw.retrieval.cache.tiers import Budgets
from vrex.sw.retrieval.policies.base import FRAME, Chunk, Delivered
from vrex.sw.retrieval.policies.resv import Resv
from vrex.sw.retrieval.policies.resv_settings import ResvSettings
from vrex.sw.retrieval.policies.shape import Shape

SHAPE = Shape(layers=8, query_heads=4, kv_heads=2, head_dim=64, frame_tokens=49)
"""The shipped checkpoint's decoder, with longer frames: 50 tokens a chunk."""

TOKENS = 100_000
BUDGETS = Budgets(device=16_000_000, host=64_000_000)
QUERY_ROWS = 1
"""Rows of queries that select; the tokens that enter are a chunk's all the same."""

SCENES = 25_000
"""Distinct tokens, each seen again with noise, as a scene is from frame to frame."""

NOISE = 0.05
_SEED = 5


@dataclass
class _Stretch:
    """Sums over the chunks between two marks."""

    chunks: int = 0
    seconds: float = 0.0
    attended_bytes: int = 0

    def mark(self, tokens: int, before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
        """Figures of the stretch; `before` and `now` are the policy's reports."""
        tiers = [_tier_seconds(now) - _tier_seconds(before), _metadata(now) - _metadata(before)]
        return {
            "tokens": tokens,
            "rss_bytes": resident_bytes(),
            "ms_per_chunk": 1e3 * self.seconds / self.chunks,
            "tiers_ms_per_chunk": 1e3 * tiers[0] / self.chunks,
            "attended_bytes_per_chunk": self.attended_bytes // self.chunks,
            "metadata_bytes_per_chunk": int(tiers[1]) // self.chunks,
        }


def _tier_seconds(report: dict[str, Any]) -> float:
    return sum(tier["seconds"] for tier in report["cache"]["tiers"].values())


def _metadata(report: dict[str, Any]) -> int:
    return int(report["fetched"]["metadata_bytes"])


class Synthetic:
    """Synthetic keys and values of an endless stream, computed from the number of a chunk."""

    def __init__(self, shape: Shape = SHAPE) -> None:
        self.shape = shape

    def kv(self, index: int) -> np.ndarray:
        """float32 [layers, 2, KV heads, rows, head_dim], rounded to BF16."""
        rng, shape = np.random.default_rng([_SEED, index]), self.shape
        size = (shape.layers, 2, shape.kv_heads, shape.head_dim)
        chosen = rng.integers(0, SCENES, shape.step_tokens).tolist()
        scenes = np.stack(
            [np.random.default_rng([_SEED, 0, i]).standard_normal(size, dtype=np.float32) for i in chosen]
        )
        noisy = scenes + NOISE * rng.standard_normal(scenes.shape, dtype=np.float32)
        return arith.round_bf16(noisy.transpose(1, 2, 3, 0, 4))

    def chunks(self, index: int) -> list[Chunk]:
        """The layers' chunks; a query is a key of the chunk."""
        kv, rows = self.kv(index), self.shape.step_tokens
        group = self.shape.query_heads // self.shape.kv_heads
        return [
            Chunk(
                layer=layer,
                stage=FRAME,
                start=index * rows,
                q=np.repeat(kv[layer, 0, :, :QUERY_ROWS], group, axis=0),
                k=kv[layer, 0],
                v=kv[layer, 1],
                keys=kv[layer, 0, :, :0],
                predict_q=_no_prediction,
                unrotated_q=kv[layer, 0, :, :0],
                unrotated_k=kv[layer, 0, :, :0],
            )
            for layer in range(self.shape.layers)
        ]


def _no_prediction(layer: int) -> np.ndarray:
    raise NotImplementedError("the synthetic stream selects with a layer's own queries")


def resident_bytes() -> int:
    """Memory of this process that is in use now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def bench_cache(
    tokens: int = TOKENS, budgets: Budgets = BUDGETS, progress: Callable[[int], None] = lambda done: None
) -> dict[str, Any]:
    """Streams tokens through policy `resv` with keys and values in tiers.

    Every delivered key and value of one chunk in ten is compared with what the stream brought.

    Args:
        tokens: of the stream.
        budgets: memory for keys and values.
        progress: called with the tokens that are done.

    Returns:
        `marks`: at each tenth of the stream, `tokens`, `rss_bytes`, and per chunk since the mark before
        `ms_per_chunk`, of these `tiers_ms_per_chunk` in the tiers and the journal, `attended_bytes_per_chunk`
        and `metadata_bytes_per_chunk`, read to choose them. From the first to the last mark
        `rss_growth_bytes`, and as ratios `time_growth`, `tiers_time_growth`, `attended_growth`, and
        `moved_growth` of attended bytes and metadata. `compared` values and `mismatches`;
        `reopen_s`, seconds; `cache` as in `StoredTables.report`; `conditions`.
    """
    stream, settings = Synthetic(), ResvSettings(rule="raw", th_r=0.05, window=2, th_hd=7)
    config = preset("edge").with_hash_bits(settings.n_hp)
    chunks = tokens // SHAPE.step_tokens
    marks: list[dict[str, Any]] = []
    compared = mismatches = 0
    with tempfile.TemporaryDirectory() as folder:

        def opened() -> StoredTables:
            transport = open_transport("golden", config)
            return StoredTables(settings, SHAPE, transport, Path(folder) / "kv", budgets, model="synthetic")

        tables = opened()
        policy = Resv(settings, SHAPE, tables)
        stretch, now = _Stretch(), policy.report()
        for index in range(chunks):
            check = index % 10 == 9
            for chunk in stream.chunks(index):
                begun = time.perf_counter()
                choice = policy.select(chunk)
                stretch.seconds += time.perf_counter() - begun
                assert isinstance(choice, Delivered)
                stretch.attended_bytes += sum(kv.nbytes // 2 for kv in choice.kv)
                if check and chunk.layer == index // 10 % SHAPE.layers:
                    seen, wrong = _compare(stream, policy, chunk, choice)
                    compared, mismatches = compared + seen, mismatches + wrong
            stretch.chunks += 1
            if (index + 1) % max(1, chunks // 10) == 0:
                before, now = now, policy.report()
                marks.append(stretch.mark((index + 1) * SHAPE.step_tokens, before, now))
                stretch = _Stretch()
            progress((index + 1) * SHAPE.step_tokens)
        report = policy.report()
        tables.close()
        begun = time.perf_counter()
        tables = opened()
        reopen = time.perf_counter() - begun
        assert tables.tokens == chunks * SHAPE.step_tokens
        tables.close()
    return {
        "marks": marks,
        **_growth(marks[0], marks[-1]),
        "compared": compared,
        "mismatches": mismatches,
        "reopen_s": reopen,
        "clusters": report["clusters"],
        "tokens_per_cluster": report["tokens_per_cluster"],
        "ratio": report["ratio"]["frame"],
        "cache": report["cache"],
        "conditions": {
            "device_bytes": budgets.device,
            "host_bytes": budgets.host,
            "layers": SHAPE.layers,
            "kv_heads": SHAPE.kv_heads,
            "head_dim": SHAPE.head_dim,
            "chunk_tokens": SHAPE.step_tokens,
            "query_rows": QUERY_ROWS,
            "seed": _SEED,
        },
    }


def _growth(first: dict[str, Any], last: dict[str, Any]) -> dict[str, Any]:
    """How much more memory, time and bytes the last mark has than the first."""
    return {
        "rss_growth_bytes": last["rss_bytes"] - first["rss_bytes"],
        "time_growth": last["ms_per_chunk"] / first["ms_per_chunk"],
        "tiers_time_growth": last["tiers_ms_per_chunk"] / first["tiers_ms_per_chunk"],
        "attended_growth": last["attended_bytes_per_chunk"] / first["attended_bytes_per_chunk"],
        "moved_growth": _moved(last) / _moved(first),
    }


def _moved(mark: dict[str, Any]) -> int:
    """Bytes of a chunk, those read to choose included."""
    return int(mark["attended_bytes_per_chunk"] + mark["metadata_bytes_per_chunk"])


def _compare(stream: Synthetic, policy: Resv, chunk: Chunk, choice: Delivered) -> tuple[int, int]:
    """Values delivered for a chunk that were compared with the stream's, and those that differ."""
    tables = policy.tables
    assert isinstance(tables, StoredTables)
    compared = mismatches = 0
    for head, kv in enumerate(choice.kv):
        tokens = tables.attended[head]
        assert len(tokens) == kv.shape[1]
        for index in np.unique(tokens // SHAPE.step_tokens).tolist():
            mine = np.flatnonzero(tokens // SHAPE.step_tokens == index)
            wanted = stream.kv(index)[chunk.layer, :, head][:, tokens[mine] % SHAPE.step_tokens]
            compared += wanted.size
            mismatches += int((kv[:, mine] != wanted).sum())
    return compared, mismatches


def table(figures: dict[str, Any]) -> str:
    """The figures as text."""
    lines = ["  tokens   memory   time/chunk   in tiers   attended/chunk   metadata/chunk"]
    lines += [
        f"{mark['tokens']:>8,} {mark['rss_bytes'] / 1e6:>5,.0f} MB {mark['ms_per_chunk']:>9,.1f} ms "
        f"{mark['tiers_ms_per_chunk']:>7,.1f} ms {mark['attended_bytes_per_chunk'] / 1e6:>13,.2f} MB "
        f"{mark['metadata_bytes_per_chunk'] / 1e6:>13,.2f} MB"
        for mark in figures["marks"]
    ]
    cache = figures["cache"]
    lines.append(
        f"memory grew by {figures['rss_growth_bytes'] / 1e6:,.0f} MB; HC tables and places of tokens are "
        f"{cache['metadata_bytes'] / 1e6:,.0f} MB in all"
    )
    growth = {
        name: f"x {figures[f'{name}_growth']:.2f}" for name in ("time", "tiers_time", "attended", "moved")
    }
    lines.append(
        f"a chunk's time grew {growth['time']}, in tiers {growth['tiers_time']}, its attended bytes "
        f"{growth['attended']}, with metadata {growth['moved']}"
    )
    lines.append(
        f"{figures['compared']:,} values compared, {figures['mismatches']:,} mismatches; "
        f"{cache['file_bytes'] / 1e6:,.0f} MB in the file, reopened in {figures['reopen_s']:.1f} s"
    )
    return "\n".join(lines)
