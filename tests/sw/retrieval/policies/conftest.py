"""A stream of random chunks of a small decoder, and the shipped model with a calibration of it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from vrex.model.lib.arith import round_bf16
from vrex.sw.retrieval.policies.base import FRAME, TEXT, Chunk
from vrex.sw.retrieval.policies.calibration import Calibration
from vrex.sw.retrieval.policies.shape import Shape
from vrex.sw.videollm.calibration import calibrate
from vrex.sw.videollm.procstream import make
from vrex.sw.videollm.videollm import VideoLLM

SHAPE = Shape(layers=3, query_heads=6, kv_heads=2, head_dim=10, frame_tokens=3)


@dataclass(frozen=True)
class Tape:
    """Keys and queries of a whole stream; sizes are (stage, rows) of each chunk."""

    sizes: list[tuple[str, int]]
    q: np.ndarray  # [layers, query heads, tokens, head_dim], like the next two
    ahead: np.ndarray
    bare_q: np.ndarray
    k: np.ndarray  # [layers, KV heads, tokens, head_dim], like the next
    bare_k: np.ndarray

    def predict(self, span: slice) -> Callable[[int], np.ndarray]:
        """`Chunk.predict_q` of a chunk's tokens."""
        return lambda layer: self.ahead[layer][:, span]

    def chunks(self) -> Iterator[Chunk]:
        start = 0
        for stage, rows in self.sizes:
            span = slice(start, start + rows)
            for layer in range(SHAPE.layers):
                yield Chunk(
                    layer=layer,
                    stage=stage,
                    start=start,
                    q=self.q[layer][:, span],
                    k=self.k[layer][:, span],
                    v=self.k[layer][:, span],
                    keys=self.k[layer][:, :start],
                    predict_q=self.predict(span),
                    unrotated_q=self.bare_q[layer][:, span],
                    unrotated_k=self.bare_k[layer][:, span],
                )
            start += rows


@pytest.fixture
def shape() -> Shape:
    return SHAPE


@pytest.fixture
def make_tape() -> Callable[[int], Tape]:
    """A tape of 14 chunks from a seed: frames, questions, single tokens."""

    def make_tape(seed: int) -> Tape:
        rng = np.random.default_rng(seed)
        sizes = [(FRAME, 6), *[(FRAME, 4)] * 5, (TEXT, 3), (TEXT, 1), (TEXT, 1), *[(FRAME, 4)] * 4, (TEXT, 1)]
        total = sum(rows for _, rows in sizes)

        def drawn(heads: int) -> np.ndarray:
            size = (SHAPE.layers, heads, total, SHAPE.head_dim)
            return round_bf16((2 * rng.standard_normal(size)).astype(np.float32))

        heads, kv_heads = SHAPE.query_heads, SHAPE.kv_heads
        return Tape(sizes, drawn(heads), drawn(heads), drawn(heads), drawn(kv_heads), drawn(kv_heads))

    return make_tape


@pytest.fixture
def random_calibration() -> Calibration:
    """Random orthogonal bases for the tape's shape."""
    rng = np.random.default_rng(77)
    dim = SHAPE.head_dim
    basis, _ = np.linalg.qr(rng.standard_normal((SHAPE.layers, SHAPE.kv_heads, dim, dim)))
    magnitude = rng.random((SHAPE.layers, SHAPE.kv_heads, dim))
    thresholds = np.tile(np.array([-3.0, 0.2, 2.5], dtype=np.float32), (SHAPE.layers, 2, 1))
    return Calibration("", 0, (1,), basis.astype(np.float32), magnitude.astype(np.float32), thresholds)


@pytest.fixture(scope="session")
def shipped() -> VideoLLM:
    return VideoLLM.load()


@pytest.fixture(scope="session")
def calibration(shipped: VideoLLM) -> Calibration:
    return calibrate(shipped, [make(3, 10)], seed=5)
