"""Dot-product engine: matrix products in the order in which the DPE's streams carry them."""

import numpy as np

from vrex.model.config import CHUNK, DpeConfig
from vrex.model.lib import arith
from vrex.model.lib.layout import Field, Layout
from vrex.model.lxe import mac_tree

COMMAND = Layout(
    "DPE_COMMAND",
    (
        Field("rows", 16, "rows of x, 1 to `dpe.rows`"),
        Field("chunks", 16, "chunks of a row, at least 1"),
        Field("tiles", 16, "tiles of `dpe.trees` rows of w, at least 1"),
        Field("bf16", 1, "results in BF16, else FP32"),
        Field("columns", 1, "w comes by columns (`column_beats`), else by rows (`weight_beats`)"),
    ),
)
"""One matrix product."""


def gemm(x: np.ndarray, w: np.ndarray, config: DpeConfig, *, bf16: bool = False) -> np.ndarray:
    """X times the transpose of w.

    Args:
        x: activations, BF16 bits, uint16 [M, K].
        w: weights, BF16 bits, uint16 [N, K].
        config: of the DPE.
        bf16: round the results to BF16.

    Returns:
        float32 [M, N], or BF16 bits, uint16 [M, N].
    """
    if bf16 and (config.scheme, config.fraction_bits) == ("fused", mac_tree.FRACTION_BITS):
        return mac_tree.dot_bf16(x, w)
    product = mac_tree.dot(x, w, config)
    return arith.to_bf16(product) if bf16 else product


def weight_beats(w: np.ndarray, config: DpeConfig) -> np.ndarray:
    """Beats of stream `w`: for each tile of `trees` rows of w, each chunk, each row, the chunk's beats.

    Args:
        w: BF16 bits, uint16 [N, K]; filled up with +0 to whole tiles and chunks.
        config: of the DPE.

    Returns:
        uint16 [tiles * chunks * trees * beats, inputs].
    """
    tiled = _filled(w, config.trees).reshape(-1, config.trees, _chunks(w), CHUNK)
    return tiled.transpose(0, 2, 1, 3).reshape(-1, config.inputs)


def column_beats(w: np.ndarray, config: DpeConfig) -> np.ndarray:
    """Beats of stream `w` of a command whose weights come by columns of w.

    For each tile of `trees` rows of w, each chunk, each of its 64 terms a beat that holds the term of every
    row, the first in the lowest place.

    Args:
        w: BF16 bits, uint16 [N, K]; filled up with +0 to whole tiles and chunks.
        config: of the DPE, not more trees than inputs.

    Returns:
        uint16 [tiles * chunks * 64, inputs].
    """
    tiled = _filled(w, config.trees).reshape(-1, config.trees, _chunks(w), CHUNK)
    beats = np.zeros((*tiled.transpose(0, 2, 3, 1).shape[:3], config.inputs), dtype=np.uint16)
    beats[..., : config.trees] = tiled.transpose(0, 2, 3, 1)
    return beats.reshape(-1, config.inputs)


def weights_of(beats: np.ndarray, tiles: int, columns: bool, config: DpeConfig) -> np.ndarray:
    """Inverse of `weight_beats` and `column_beats`: uint16 [tiles * trees, chunks * 64]."""
    if columns:
        split = beats[:, : config.trees].reshape(tiles, -1, CHUNK, config.trees)
        return split.transpose(0, 3, 1, 2).reshape(tiles * config.trees, -1)
    split = beats.reshape(tiles, -1, config.trees, CHUNK)
    return split.transpose(0, 2, 1, 3).reshape(tiles * config.trees, -1)


def row_beats(x: np.ndarray, tiles: int, config: DpeConfig) -> np.ndarray:
    """Beats of stream `x`: for each tile of weights, each chunk, each row of x, the chunk's beats.

    Args:
        x: BF16 bits, uint16 [M, K]; filled up with +0 to whole chunks.
        tiles: of weights.
        config: of the DPE.

    Returns:
        uint16 [tiles * chunks * M * beats, inputs].
    """
    chunked = _filled(x, 1).reshape(len(x), _chunks(x), CHUNK).transpose(1, 0, 2)
    return np.tile(chunked.reshape(-1, config.inputs), (tiles, 1))


def tiles(n: int, config: DpeConfig) -> int:
    """Tiles of so many rows of weights."""
    return -(-n // config.trees)


def _chunks(x: np.ndarray) -> int:
    return -(-x.shape[1] // CHUNK)


def _filled(x: np.ndarray, rows: int) -> np.ndarray:
    """`x` with whole chunks and a multiple of so many rows."""
    filled = np.zeros((-(-len(x) // rows) * rows, _chunks(x) * CHUNK), dtype=np.uint16)
    filled[: len(x), : x.shape[1]] = x
    return filled
