"""Random chunks for policies that keep the past themselves."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from vrex.model.config import Config, HcuConfig, KvmuConfig, WtuConfig
from vrex.model.lib.arith import round_bf16
from vrex.sw.driver import open_transport
from vrex.sw.retrieval.policies.base import FRAME, TEXT, Chunk
from vrex.sw.retrieval.policies.host_tables import HostTables
from vrex.sw.retrieval.policies.resv import Resv
from vrex.sw.retrieval.policies.resv_settings import ResvSettings
from vrex.sw.retrieval.policies.shape import Shape

SHAPE = Shape(layers=2, query_heads=4, kv_heads=2, head_dim=16, frame_tokens=2)
SMALL = Config(
    name="small",
    bus_bits=64,
    hcu=HcuConfig(lanes=4, chunk_tokens=4, tile_clusters=64),
    wtu=WtuConfig(lanes=4, row_clusters=256),
    kvmu=KvmuConfig(segment_tokens=2),
)


class Tape:
    """Random chunks of a small decoder; values are not the keys."""

    def __init__(self, sizes: list[int], seed: int, shape: Shape = SHAPE) -> None:
        rng = np.random.default_rng(seed)
        self.sizes, self.shape = sizes, shape
        total = sum(sizes)
        # Few directions with some noise, so that tokens do cluster.
        centres = rng.normal(size=(shape.layers, shape.kv_heads, 5, shape.head_dim))
        noise = 0.4 * rng.normal(size=(shape.layers, shape.kv_heads, total, shape.head_dim))
        keys = centres[:, :, rng.integers(0, 5, total)] + noise
        self.k, self.v = round_bf16(np.stack([keys, rng.normal(size=keys.shape)]).astype(np.float32))
        drawn = rng.normal(size=(2, shape.layers, shape.query_heads, total, shape.head_dim))
        self.own, self.ahead = drawn.astype(np.float32)

    def play(self, policy: Resv, keeps_past: bool) -> list[tuple[Chunk, Any]]:
        """Every chunk with the policy's choice; a policy that keeps the past itself is shown none of it."""
        start, played = 0, []
        for rows in self.sizes:
            for layer in range(self.shape.layers):
                chunk = self.chunk(layer, start, rows, keeps_past)
                played.append((chunk, policy.select(chunk)))
            start += rows
        return played

    def chunk(self, layer: int, start: int, rows: int, keeps_past: bool = True) -> Chunk:
        span = slice(start, start + rows)
        return Chunk(
            layer=layer,
            stage=FRAME if rows > 1 else TEXT,
            start=start,
            q=self.own[layer][:, span],
            k=self.k[layer][:, span],
            v=self.v[layer][:, span],
            keys=self.k[layer][:, : 0 if keeps_past else start],
            predict_q=lambda other: self.ahead[other][:, span],
            unrotated_q=np.zeros(0),
            unrotated_k=np.zeros(0),
        )


def on_host(knobs: ResvSettings, shape: Shape = SHAPE, config: Config = SMALL) -> Resv:
    return Resv(
        knobs, shape, HostTables(knobs, shape, open_transport("golden", config.with_hash_bits(knobs.n_hp)))
    )


KNOBS = st.builds(
    ResvSettings,
    rule=st.sampled_from(["raw", "shift", "exp"]),
    th_r=st.sampled_from([0.0, 0.3, 0.9]),
    th_hd=st.sampled_from([3, 9]),
    n_hp=st.sampled_from([16, 32, 40]),
    scope=st.sampled_from(["layer", "head"]),
    sinks=st.sampled_from([0, 2, 7]),
    window=st.sampled_from([0, 1, 2]),
    predict=st.sampled_from(["same", "next"]),
    cluster_first=st.booleans(),
    selection=st.sampled_from(["exact", "bucket"]),
    seed=st.integers(0, 3),
)
